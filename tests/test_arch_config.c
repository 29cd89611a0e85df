/*
 * test_arch_config.c - what a config.json or GGUF metadata asks for and we don't do is refused
 * by name; what they leave out means what transformers takes it for.
 *
 * The numbers that are read right are the business of test_archs.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/model/arch.h"
#include "engine/model/model_file.h"
#include "gguf_build.h"
#include <stdlib.h>

#define SIZES                                                                                  \
    "\"hidden_size\": 64, \"num_hidden_layers\": 4, \"num_attention_heads\": 4, "              \
    "\"intermediate_size\": 96, \"vocab_size\": 99, \"max_position_embeddings\": 128"

static enum status read_config(const char *text, struct hparams *hp, struct err *err) {
    struct hf_json c = {0};
    const struct arch *a;
    enum status st = hf_json_parse(text, strlen(text), "config.json", &c, err);
    if (st == ST_OK)
        st = arch_of_config(&c, &a, err);
    if (st == ST_OK)
        st = arch_from_hf(a, &c, hp, err);
    hf_json_release(&c);
    return st;
}

static struct hparams read_ok(const char *text) {
    struct hparams hp;
    struct err err = {0};
    if (read_config(text, &hp, &err) != ST_OK)
        fail_msg("%s", err.msg);
    return hp;
}

static void refuses(const char *text, enum status st, const char *words) {
    struct hparams hp;
    struct err err = {0};
    assert_int_equal(read_config(text, &hp, &err), st);
    if (!strstr(err.msg, words))
        fail_msg("\"%s\" does not say \"%s\"", err.msg, words);
}

#define CONFIG(type, more) "{\"model_type\": \"" type "\", " SIZES ", " more "}"

static void what_is_not_built_is_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *config, *words;
    } cases[] = {
        {CONFIG("mamba", "\"a\": 1"), "model_type mamba is not supported; supported: "},
        {CONFIG("llama", "\"hidden_act\": \"quick_gelu\""),
         "hidden_act is \"quick_gelu\", supported: silu"},
        {CONFIG("llama", "\"rope_scaling\": {\"rope_type\": \"mrope\", \"factor\": 2}"),
         "rope_type is \"mrope\", supported: default, linear"},
        {CONFIG("mpt", "\"attn_config\": {\"clip_qkv\": 8.0}"),
         "attn_config asks for clip_qkv"},
        {CONFIG("gpt_neo", "\"attention_types\": [[[\"random\"], 4]]"),
         "attention_types has \"random\""},
        {CONFIG("bloom", "\"apply_residual_connection_post_layernorm\": true"),
         "apply_residual_connection_post_layernorm is true"},
        {CONFIG("mistral", "\"rope_parameters\": {\"llama_4_scaling_beta\": 0.1}"),
         "llama_4_scaling_beta is 0.1"},
        {"{\"model_type\": \"mistral3\", \"text_config\": {\"model_type\": \"qwen3\"}}",
         "text_config of a mistral3 model is of type qwen3"},
        {CONFIG("olmo", "\"clip_qkv\": 8.0"), "clip_qkv is 8.0"},
        {CONFIG("gemma3_text", "\"use_bidirectional_attention\": true"),
         "use_bidirectional_attention is true"},
        {CONFIG("opt", "\"layer_norm_elementwise_affine\": false"),
         "layer_norm_elementwise_affine is false"},
        {CONFIG("gpt2", "\"scale_attn_by_inverse_layer_idx\": true"),
         "scale_attn_by_inverse_layer_idx is true"},
        {CONFIG("phi3", "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}"),
         "rope_type of a phi3 model"},
        {CONFIG("qwen2", "\"layer_types\": [\"full_attention\", \"full_attention\", "
                         "\"linear_attention\", \"full_attention\"]"),
         "layer_types is \"linear_attention\", supported: full_attention"},
        {CONFIG("gemma3_text",
                "\"rope_parameters\": {\"full_attention\": {\"rope_theta\": 1e6}, "
                "\"sliding_attention\": {\"rope_type\": \"linear\", \"factor\": 2}}"),
         "rope_type of sliding_attention"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuses(cases[i].config, ST_UNSUPPORTED, cases[i].words);
}

static void what_is_wrong_is_named(void **state) {
    (void)state;
    static const struct {
        const char *config, *words;
    } cases[] = {
        {"{\"vocab_size\": 3}", "model_type is missing"},
        {"{\"model_type\": \"llama\", \"hidden_size\": 64}", "num_hidden_layers is missing"},
        {CONFIG("llama", "\"num_key_value_heads\": 3"), "4 heads are no multiple of 3"},
        {CONFIG("llama", "\"head_dim\": 15"), "rope dimensions"},
        {CONFIG("llama", "\"num_key_value_heads\": 99999"), "num_key_value_heads is 99999"},
        {CONFIG("llama", "\"rms_norm_eps\": -1"), "norm epsilon is -1"},
        {CONFIG("llama", "\"rope_theta\": 0"), "rope base is 0"},
        {CONFIG("llama", "\"rope_scaling\": {\"type\": \"linear\"}"), "factor is missing"},
        {CONFIG("llama", "\"rope_scaling\": 7"), "rope_scaling is 7"},
        {CONFIG("llama", "\"rope_scaling\": {\"type\": \"longrope\", \"factor\": 2, "
                         "\"short_factor\": [], \"long_factor\": []}"),
         "longrope\" has no short_factor"},
        {CONFIG("phi3", "\"rope_scaling\": {\"type\": \"yarn\", \"short_factor\": [1]}"),
         "longrope\" has no long_factor"},
        {CONFIG("llama", "\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, "
                         "\"low_freq_factor\": 4, \"high_freq_factor\": 4}"),
         "high_freq_factor is 4"},
        {CONFIG("gpt_neox", "\"rotary_pct\": 1.5"), "partial_rotary_factor is 1.5"},
        {CONFIG("qwen2", "\"layer_types\": [\"full_attention\"]"), "no list of 4 entries"},
        {CONFIG("gpt_neo", "\"attention_types\": [[[\"global\"], 3]]"),
         "has 3 layers, wanted 4"},
        {CONFIG("gpt_neo", "\"attention_types\": [[[], 9000000000000000000]]"),
         "has 0 layers, wanted 4"},
        {CONFIG("smollm3", "\"no_rope_layers\": [1]"), "no list of 4 entries"},
        {CONFIG("mixtral", "\"num_key_value_heads\": 2, \"num_local_experts\": 2, "
                           "\"num_experts_per_tok\": 3"),
         "3 of 2 experts of size 96"},
        {CONFIG("mixtral", "\"num_key_value_heads\": 2, \"num_local_experts\": 999999"),
         "experts is 999999"},
        {CONFIG("qwen3_moe", "\"mlp_only_layers\": 1"), "mlp_only_layers is no list"},
        {"{\"model_type\": \"llama\", \"text_config\": 1}", "text_config is 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuses(cases[i].config, ST_FORMAT, cases[i].words);
}

static void missing_keys_mean_the_defaults_of_their_class(void **state) {
    (void)state;
    struct hparams hp = read_ok(CONFIG("mistral", "\"num_key_value_heads\": 2"));
    assert_int_equal(hp.window, 4096);
    assert_int_equal(hp.layer[0], LAYER_WINDOW);
    hp = read_ok(CONFIG("mistral", "\"num_key_value_heads\": 2, \"sliding_window\": null"));
    assert_int_equal(hp.window, 0);
    assert_int_equal(hp.layer[0], 0);
    hp = read_ok(CONFIG("qwen2", "\"a\": 1"));
    assert_int_equal(hp.layer[0] | hp.layer[3], 0);
    hp = read_ok(CONFIG("mpt", "\"d_model\": 64, \"n_heads\": 4, \"n_layers\": 4, "
                               "\"expansion_ratio\": 2"));
    assert_int_equal(hp.n_ff, 256);
    hp = read_ok(CONFIG("gpt_neox", "\"a\": 1"));
    assert_int_equal(hp.rope_dim, 4);
    hp = read_ok("{\"model_type\": \"gemma3\", \"text_config\": {\"hidden_size\": 2560, "
                 "\"intermediate_size\": 10240, \"model_type\": \"gemma3_text\", "
                 "\"num_hidden_layers\": 34, \"rope_scaling\": {\"factor\": 8.0, "
                 "\"rope_type\": \"linear\"}, \"sliding_window\": 1024}}");
    assert_int_equal(hp.n_head, 8);
    assert_int_equal(hp.head_dim, 256);
    assert_int_equal(hp.n_vocab, 262208);
    assert_int_equal(hp.window, 1024);
    assert_int_equal(hp.layer[4], LAYER_WINDOW | LAYER_LOCAL_ROPE);
    assert_int_equal(hp.layer[5], 0);
    assert_float_equal(hp.rope_base, 1e6, 0);
    assert_float_equal(hp.rope_base_local, 1e4, 0);
    assert_float_equal(hp.rope_scale, 8, 0);
}

static void a_missing_context_is_that_of_the_class(void **state) {
    (void)state;
    static const struct {
        const char *type;
        int ctx;
    } cases[] = {{"llama", 2048},   {"mistral", 131072}, {"qwen3", 32768}, {"phi3", 4096},
                 {"opt", 2048},     {"gpt2", 1024},      {"gptj", 2048},   {"cohere", 8192},
                 {"olmoe", 4096},   {"gpt_neox", 2048},  {"mpt", 2048},    {"stablelm", 4096},
                 {"granite", 2048}, {"gemma2", 8192}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = xasprintf("{\"model_type\": \"%s\", \"hidden_size\": 512, "
                               "\"num_hidden_layers\": 4, \"num_attention_heads\": 8, "
                               "\"intermediate_size\": 96, \"vocab_size\": 99}",
                               cases[i].type);
        struct hparams hp = read_ok(text);
        assert_int_equal(hp.ctx_train, cases[i].ctx);
        free(text);
    }
}

static void scaling_reaches_beyond_the_context_before_it(void **state) {
    (void)state;
    struct hparams hp =
        read_ok(CONFIG("llama", "\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 3}"));
    assert_int_equal(hp.rope_orig_ctx, 128);
    assert_int_equal(hp.ctx_train, 384);
    hp = read_ok(CONFIG("qwen2", "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, "
                                 "\"original_max_position_embeddings\": 128}"));
    assert_int_equal(hp.ctx_train, 512);
    hp = read_ok(CONFIG("qwen2", "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, "
                                 "\"original_max_position_embeddings\": 32}"));
    assert_int_equal(hp.ctx_train, 128);
    hp = read_ok(CONFIG("llama", "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 4}"));
    assert_int_equal(hp.ctx_train, 128);
}

/* What transformers does not look at for a model_type: leftovers of another architecture. */
static void keys_of_other_architectures_change_nothing(void **state) {
    (void)state;
    static const struct {
        const char *type, *keys;
    } cases[] = {
        {"llama", "\"sliding_window\": 8, \"use_sliding_window\": true, "
                  "\"max_window_layers\": 0, \"partial_rotary_factor\": 0.5, "
                  "\"attention_multiplier\": 0.1, \"query_pre_attn_scalar\": 7, "
                  "\"attn_logit_softcapping\": 2, \"final_logit_softcapping\": 3, "
                  "\"embedding_multiplier\": 5, \"residual_multiplier\": 0.5, "
                  "\"logit_scale\": 0.1, \"logits_scaling\": 4, \"rotary_dim\": 4, "
                  "\"num_experts\": 4, \"hidden_activation\": \"relu\", "
                  "\"layer_norm_eps\": 0.5"},
        {"mistral", "\"num_key_value_heads\": 4, \"use_sliding_window\": false, "
                    "\"sliding_window_pattern\": 2, \"rope_local_base_freq\": 33, "
                    "\"layer_types\": [\"full_attention\", \"full_attention\", "
                    "\"full_attention\", \"full_attention\"]"},
        {"mixtral", "\"num_key_value_heads\": 4, \"moe_intermediate_size\": 8, "
                    "\"mlp_only_layers\": [0], \"decoder_sparse_step\": 2, "
                    "\"norm_topk_prob\": false"},
        {"gemma2", "\"num_key_value_heads\": 4, \"use_sliding_window\": false, "
                   "\"rope_local_base_freq\": 33, \"hidden_act\": \"relu\""},
        {"gemma3_text", "\"num_key_value_heads\": 4, \"attn_logit_softcapping\": 2"},
        {"falcon", "\"rms_norm_eps\": 0.5, \"layer_norm_eps\": 0.5, "
                   "\"partial_rotary_factor\": 0.5, \"activation_function\": \"relu\""},
        {"gpt2", "\"rms_norm_eps\": 0.5, \"hidden_act\": \"relu\", \"sliding_window\": 5"},
        {"starcoder2", "\"num_key_value_heads\": 2, \"layer_norm_epsilon\": 0.5, "
                       "\"sliding_window_pattern\": 2"},
        {"stablelm", "\"sliding_window\": 5, \"rope_pct\": 0.5, \"rms_norm_eps\": 0.5"},
        {"cohere", "\"logits_scaling\": 4, \"sliding_window\": 5"},
        {"granite", "\"logit_scale\": 4, \"query_pre_attn_scalar\": 5"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *heads = strstr(cases[i].keys, "\"num_key_value_heads\"");
        char *plain = xasprintf("{\"model_type\": \"%s\", %s%s%.*s}", cases[i].type, SIZES,
                                heads ? ", " : "", heads ? (int)strcspn(cases[i].keys, ",") : 0,
                                cases[i].keys);
        char *more =
            xasprintf("{\"model_type\": \"%s\", %s, %s}", cases[i].type, SIZES, cases[i].keys);
        struct hparams want = read_ok(plain), got = read_ok(more);
        if (memcmp(&want, &got, sizeof got) != 0)
            fail_msg("%s: something of %s counts", cases[i].type, cases[i].keys);
        free(plain);
        free(more);
    }
}

/* "yarn" and "su" are what the first configs of Phi-3 call LongRoPE. */
static void old_names_of_longrope_are_longrope(void **state) {
    (void)state;
    static const char *const names[] = {"longrope", "su", "yarn"};
    for (size_t i = 0; i < 3; i++) {
        char *text = xasprintf("{\"model_type\": \"phi3\", %s, "
                               "\"original_max_position_embeddings\": 32, \"rope_scaling\": "
                               "{\"type\": \"%s\", \"short_factor\": [1], "
                               "\"long_factor\": [2]}}",
                               SIZES, names[i]);
        struct hparams hp = read_ok(text);
        assert_int_equal(hp.rope_type, ROPE_LONG);
        assert_int_equal(hp.rope_orig_ctx, 32);
        assert_float_equal(hp.rope_scale, 4, 0);
        free(text);
    }
}

static void what_is_shown_is_what_there_is(void **state) {
    (void)state;
    struct model_info info = {0};
    struct hparams hp = read_ok(CONFIG("gpt2", "\"a\": 1"));
    model_info_sizes(&info, &hp);
    assert_float_equal(info.rope_base, 0, 0); /* it has learned positions */
    assert_int_equal(info.n_expert, 0);
    hp = read_ok(CONFIG("qwen2_moe", "\"num_experts\": 6, \"num_experts_per_tok\": 2, "
                                     "\"moe_intermediate_size\": 40, "
                                     "\"shared_expert_intermediate_size\": 56"));
    model_info_sizes(&info, &hp);
    assert_float_equal(info.rope_base, 1e4, 0);
    assert_int_equal(info.n_expert, 6);
    assert_int_equal(info.n_expert_used, 2);
    assert_int_equal(info.n_ff_expert, 40);
    assert_int_equal(info.n_ff_shared, 56);
}

static void a_fraction_of_a_head_is_cut_as_python_does(void **state) {
    (void)state;
    struct hparams hp =
        read_ok(CONFIG("phi", "\"head_dim\": 20, \"partial_rotary_factor\": 0.7"));
    assert_int_equal(hp.rope_dim, 14); /* 20 * 0.7 in double; in f32 it would be 13 */
}

/* A GGUF file of 2 layers with one more key. */
static enum status read_gguf(const char *arch, const char *key, double value, const char *text,
                             struct err *err) {
    static const char *const counts[] = {"block_count", "embedding_length",
                                         "feed_forward_length", "context_length",
                                         "attention.head_count"};
    static const uint32_t sizes[] = {2, 64, 96, 128, 4};
    struct buf b = {0};
    struct gguf *g = NULL;
    struct hparams hp;
    const struct arch *a;
    char name[96];
    gb_head(&b, 3, 1, 9);
    gb_kv_str(&b, "general.architecture", arch);
    for (size_t i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "%s.%s", arch, counts[i]);
        gb_kv_u32(&b, name, sizes[i]);
    }
    snprintf(name, sizeof name, "%s.attention.layer_norm_rms_epsilon", arch);
    gb_kv_f32(&b, name, 1e-5f);
    snprintf(name, sizeof name, "%s.attention.layer_norm_epsilon", arch);
    gb_kv_f32(&b, name, 1e-5f);
    snprintf(name, sizeof name, "%s.%s", arch, key);
    if (text)
        gb_kv_str(&b, name, text);
    else
        gb_kv_f32(&b, name, (float)value);
    gb_tensor(&b, "token_embd.weight", 2, 64, 1, 0, 0);
    gb_align(&b, 32);
    for (int i = 0; i < 64; i++)
        gb_f32(&b, 0);
    enum status st = gguf_parse(b.p, b.len, "x.gguf", &g, err);
    if (st == ST_OK)
        st = arch_find(arch, "x.gguf", &a, err);
    if (st == ST_OK)
        st = arch_from_gguf(a, g, &hp, err);
    gguf_close(g);
    buf_release(&b);
    return st;
}

static void metadata_that_is_not_built_is_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *arch, *key;
        double value;
        const char *text;
        enum status st;
        const char *words;
    } cases[] = {
        {"mamba", "x", 1, NULL, ST_UNSUPPORTED, "architecture mamba is not supported"},
        {"llama", "attention.clamp_kqv", 8, NULL, ST_UNSUPPORTED, "clamp_kqv = 8"},
        {"llama", "attention.max_alibi_bias", 8, NULL, ST_UNSUPPORTED, "max_alibi_bias = 8"},
        {"llama", "rope.scaling.type", 0, "mystery", ST_UNSUPPORTED, "\"mystery\", supported"},
        {"llama", "rope.scaling.type", 0, "linear", ST_FORMAT, "scaling.factor is missing"},
        {"llama", "rope.freq_base", 0, NULL, ST_FORMAT, "rope base is 0"},
        {"gpt2", "router_logit_softcapping", 30, NULL, ST_UNSUPPORTED, "softcapping = 30"},
        {"llama", "rope.freq_base", 5e5, NULL, ST_OK, ""},
        {"gpt2", "x", 1, NULL, ST_OK, ""},
        {"granite", "logit_scale", 0, NULL, ST_FORMAT, "logit_scale is 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err err = {0};
        enum status st =
            read_gguf(cases[i].arch, cases[i].key, cases[i].value, cases[i].text, &err);
        if (st != cases[i].st || !strstr(err.msg, cases[i].words))
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, err.msg, cases[i].words);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_built_is_refused_by_name),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(missing_keys_mean_the_defaults_of_their_class),
        cmocka_unit_test(a_missing_context_is_that_of_the_class),
        cmocka_unit_test(scaling_reaches_beyond_the_context_before_it),
        cmocka_unit_test(keys_of_other_architectures_change_nothing),
        cmocka_unit_test(old_names_of_longrope_are_longrope),
        cmocka_unit_test(what_is_shown_is_what_there_is),
        cmocka_unit_test(a_fraction_of_a_head_is_cut_as_python_does),
        cmocka_unit_test(metadata_that_is_not_built_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
