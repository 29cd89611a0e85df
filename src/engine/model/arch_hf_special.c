/*
 * arch_hf_special.c - what only one family's config.json says. Each function runs after
 * arch_hf.c has read what all families have in common. The references are the configuration and
 * modelling files of transformers.
 */
#include "engine/model/arch_table.h"

#include <math.h>
#include <string.h>

/* Falcon: three layouts of attention, two of the residual stream. ALiBi takes RoPE's place. */
enum status hf_falcon(const struct hf_json *c, struct hparams *hp, struct err *err) {
    bool grouped = false, multi_query = true, parallel = true, alibi = false;
    CHECK(hf_bool(c, "new_decoder_architecture", &grouped, err));
    CHECK(hf_bool(c, "multi_query", &multi_query, err));
    CHECK(hf_bool(c, "parallel_attn", &parallel, err));
    CHECK(hf_bool(c, "alibi", &alibi, err));
    if (!grouped)
        hp->n_head_kv = multi_query ? 1 : hp->n_head;
    hp->residual = grouped || parallel ? RESIDUAL_PARALLEL : RESIDUAL_PRE;
    if (alibi) {
        hp->alibi = ALIBI_FALCON;
        hp->rope_dim = 0;
    }
    return ST_OK;
}

/* Gemma 1 to 3. Old configs of Gemma 1 say "gelu" and mean the approximation by tanh. */
enum status hf_gemma(const struct hf_json *c, struct hparams *hp, struct err *err) {
    (void)err;
    hp->embd_scale = (float)sqrt((double)hp->n_embd);
    if (hp->act == ACT_GELU_ERF && !hf_get(c, "hidden_activation"))
        hp->act = ACT_GELU_TANH;
    return ST_OK;
}

enum status hf_gpt2(const struct hf_json *c, struct hparams *hp, struct err *err) {
    bool scaled = true;
    CHECK(hf_bool(c, "scale_attn_weights", &scaled, err));
    if (!scaled)
        hp->att_scale = 1;
    return ST_OK;
}

/* One head of keys, or for each head its queries, keys and values together. */
enum status hf_bigcode(const struct hf_json *c, struct hparams *hp, struct err *err) {
    bool multi_query = true;
    CHECK(hf_bool(c, "multi_query", &multi_query, err));
    hp->n_head_kv = multi_query ? 1 : hp->n_head;
    return hf_gpt2(c, hp, err);
}

/* Attention is not scaled. attention_types is a list of [[kinds], how often]. */
enum status hf_gptneo(const struct hf_json *c, struct hparams *hp, struct err *err) {
    const json_t *types = hf_get(c, "attention_types");
    int i = 0;
    hp->att_scale = 1;
    hp->window = 256;
    CHECK(hf_int(c, "window_size", false, 1, 1 << 30, &hp->window, err));
    for (size_t t = 0; t < json_array_size(types); t++) {
        const json_t *kinds = json_array_get(json_array_get(types, t), 0);
        json_int_t times = json_integer_value(json_array_get(json_array_get(types, t), 1));
        for (json_int_t n = 0; json_array_size(kinds) && n < times && i < hp->n_layer; n++)
            for (size_t k = 0; k < json_array_size(kinds) && i < hp->n_layer; k++, i++) {
                const char *kind = json_string_value(json_array_get(kinds, k));
                if (kind && strcmp(kind, "local") == 0)
                    hp->layer[i] |= LAYER_WINDOW;
                else if (!kind || strcmp(kind, "global") != 0)
                    return err_set(err, ST_UNSUPPORTED,
                                   "%s: attention_types has \"%.40s\", supported: global, "
                                   "local",
                                   c->file, kind ? kind : "");
            }
    }
    for (; !types && i < hp->n_layer; i++)
        hp->layer[i] |= i % 2 ? LAYER_WINDOW : 0;
    if (i != hp->n_layer)
        return err_set(err, ST_FORMAT, "%s: attention_types has %d layers, wanted %d", c->file,
                       i, hp->n_layer);
    return ST_OK;
}

/* MPT's settings of attention are an object of their own. */
enum status hf_mpt(const struct hf_json *c, struct hparams *hp, struct err *err) {
    struct hf_json a;
    int bias_max = 8;
    bool qk_ln = false, prefix = false, alibi = true;
    const char *type = "multihead_attention";
    float clip = 0;
    CHECK(hf_child(c, "attn_config", &a, err));
    hp->n_ff = 4 * hp->n_embd; /* whatever expansion_ratio says: nobody else looks at it */
    CHECK(hf_num(&a, "softmax_scale", false, &hp->att_scale, err));
    CHECK(hf_num(&a, "clip_qkv", false, &clip, err));
    CHECK(hf_int(&a, "alibi_bias_max", false, 0, 1 << 20, &bias_max, err));
    CHECK(hf_bool(&a, "qk_ln", &qk_ln, err));
    CHECK(hf_bool(&a, "prefix_lm", &prefix, err));
    CHECK(hf_bool(&a, "alibi", &alibi, err));
    CHECK(hf_str(&a, "attn_type", false, &type, err));
    if (clip != 0 || qk_ln || prefix || !alibi || bias_max != 8 ||
        strcmp(type, "multihead_attention") != 0)
        return err_set(err, ST_UNSUPPORTED,
                       "%s: attn_config asks for clip_qkv, qk_ln, prefix_lm, no alibi, another "
                       "alibi_bias_max than 8 or another attn_type than "
                       "\"multihead_attention\", which is not supported",
                       c->file);
    return ST_OK;
}

enum status hf_gptneox(const struct hf_json *c, struct hparams *hp, struct err *err) {
    bool parallel = true;
    CHECK(hf_bool(c, "use_parallel_residual", &parallel, err));
    hp->residual = parallel ? RESIDUAL_PARALLEL : RESIDUAL_PRE;
    return ST_OK;
}

/* hidden_act names a part of the activation; the rest is not in every config. */
enum status hf_gptoss(const struct hf_json *c, struct hparams *hp, struct err *err) {
    float alpha = 1.702f, limit = 7;
    CHECK(hf_num(c, "swiglu_alpha", false, &alpha, err));
    CHECK(hf_num(c, "swiglu_limit", false, &limit, err));
    if (hp->act != ACT_SILU || alpha != 1.702f || limit != 7)
        return err_set(err, ST_UNSUPPORTED,
                       "%s: an activation with swiglu_alpha %g and swiglu_limit %g, or another "
                       "hidden_act than \"silu\"; supported: 1.702 and 7",
                       c->file, (double)alpha, (double)limit);
    hp->act = ACT_GPT_OSS;
    return ST_OK;
}

enum status hf_opt(const struct hf_json *c, struct hparams *hp, struct err *err) {
    bool before = true, affine = true;
    int proj = hp->n_embd;
    CHECK(hf_bool(c, "do_layer_norm_before", &before, err));
    CHECK(hf_bool(c, "layer_norm_elementwise_affine", &affine, err));
    CHECK(hf_int(c, "word_embed_proj_dim", false, 1, 1 << 18, &proj, err));
    hp->n_embd_word = proj == hp->n_embd ? 0 : proj;
    if (!affine)
        return err_set(err, ST_UNSUPPORTED,
                       "%s: layer_norm_elementwise_affine is false, supported: true", c->file);
    hp->residual = before ? RESIDUAL_PRE : RESIDUAL_POST;
    return ST_OK;
}

/* The first configs call LongRoPE "yarn", as they call it "su". */
enum status hf_phi3(const struct hf_json *c, struct hparams *hp, struct err *err) {
    if (hp->rope_type == ROPE_YARN)
        hp->rope_type = ROPE_LONG;
    if (hp->rope_type != ROPE_DEFAULT && hp->rope_type != ROPE_LONG)
        return err_set(err, ST_UNSUPPORTED,
                       "%s: rope_type of a phi3 model is another than \"default\" and "
                       "\"longrope\"",
                       c->file);
    return ST_OK;
}

/* The largest normalise queries and keys, each head with gains of its own. */
static enum status each_head(const struct hf_json *c, const char *key, struct hparams *hp,
                             struct err *err) {
    bool each = false;
    CHECK(hf_bool(c, key, &each, err));
    if (each)
        hp->qk_norm_rows = QK_NORM_EACH;
    return ST_OK;
}

enum status hf_cohere(const struct hf_json *c, struct hparams *hp, struct err *err) {
    return each_head(c, "use_qk_norm", hp, err);
}

enum status hf_cohere2(const struct hf_json *c, struct hparams *hp, struct err *err) {
    (void)c;
    (void)err;
    arch_no_rope_in_full_layers(hp);
    return ST_OK;
}

enum status hf_exaone4(const struct hf_json *c, struct hparams *hp, struct err *err) {
    (void)c;
    (void)err;
    if (hp->window > 0)
        arch_no_rope_in_full_layers(hp);
    return ST_OK;
}

/* Sliding layers have the base of all others, without their scaling. */
enum status hf_olmo3(const struct hf_json *c, struct hparams *hp, struct err *err) {
    (void)c;
    (void)err;
    for (int i = 0; hp->rope_base_local == 0 && i < hp->n_layer; i++)
        if (hp->layer[i] & LAYER_WINDOW)
            hp->layer[i] |= LAYER_LOCAL_ROPE;
    if (hp->rope_base_local == 0)
        hp->rope_base_local = hp->rope_base;
    return ST_OK;
}

static void forget_windows(struct hparams *hp) {
    for (int i = 0; i < hp->n_layer; i++)
        hp->layer[i] &= (uint8_t)~LAYER_WINDOW;
}

/* Qwen 2 and 3: windows from layer max_window_layers on. */
enum status hf_qwen(const struct hf_json *c, struct hparams *hp, struct err *err) {
    int first = 28;
    if (hf_get(c, "layer_types") || hp->window == 0)
        return ST_OK;
    CHECK(hf_int(c, "max_window_layers", false, 0, 1 << 30, &first, err));
    forget_windows(hp);
    for (int i = first; i < hp->n_layer; i++)
        hp->layer[i] |= LAYER_WINDOW;
    return ST_OK;
}

/* Windows in every other layer below max_window_layers. */
enum status hf_qwen2moe(const struct hf_json *c, struct hparams *hp, struct err *err) {
    int end = 28;
    if (hf_get(c, "layer_types") || hp->window == 0)
        return ST_OK;
    CHECK(hf_int(c, "max_window_layers", false, 0, 1 << 30, &end, err));
    forget_windows(hp);
    for (int i = 0; i < hp->n_layer && i < end; i += 2)
        hp->layer[i] |= LAYER_WINDOW;
    return ST_OK;
}

/* SmolLM3: no RoPE in every fourth layer, or where no_rope_layers has a 0; a sliding window
 * belongs to those layers. */
enum status hf_smollm3(const struct hf_json *c, struct hparams *hp, struct err *err) {
    const json_t *list = hf_get(c, "no_rope_layers");
    int every = 4;
    CHECK(hf_int(c, "no_rope_layer_interval", false, 1, MODEL_MAX_LAYER, &every, err));
    if (list && (!json_is_array(list) || json_array_size(list) != (size_t)hp->n_layer))
        return err_set(err, ST_FORMAT,
                       "%s: no_rope_layers is no list of %d entries, one for each layer",
                       c->file, hp->n_layer);
    for (int i = 0; i < hp->n_layer; i++) {
        const json_t *v = list ? json_array_get(list, (size_t)i) : NULL;
        bool rope = list ? json_is_true(v) || json_integer_value(v) != 0 : (i + 1) % every != 0;
        if (!rope)
            hp->layer[i] |= LAYER_NO_ROPE;
        else if (!hf_get(c, "layer_types"))
            hp->layer[i] &= (uint8_t)~LAYER_WINDOW;
    }
    return ST_OK;
}

enum status hf_stablelm(const struct hf_json *c, struct hparams *hp, struct err *err) {
    bool parallel = false;
    CHECK(each_head(c, "qk_layernorm", hp, err));
    CHECK(hf_bool(c, "use_parallel_residual", &parallel, err));
    hp->residual = parallel ? RESIDUAL_PARALLEL : RESIDUAL_PRE;
    return ST_OK;
}
