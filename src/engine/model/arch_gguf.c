/*
 * arch_gguf.c - hyperparameters from the metadata of a GGUF file.
 *
 * Keys are "ARCH.suffix", with suffixes that mean the same for all architectures; the special
 * functions below have the exceptions, and what the format leaves unsaid (which layers slide,
 * which are rotated) because readers know it by the architecture's name. Whether a layer has
 * experts is seen by its router.
 */
#include "engine/model/arch_table.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* The key of this file's architecture. */
static const char *key_of(const struct gguf *g, char (*buf)[128], const char *suffix) {
    struct gguf_str arch = {"", 0};
    (void)gguf_get_str(g, "general.architecture", false, &arch, NULL);
    snprintf(*buf, sizeof *buf, "%.*s.%s", (int)(arch.len < 40 ? arch.len : 40), arch.p,
             suffix);
    return *buf;
}

static bool has(const struct gguf *g, const char *suffix) {
    char key[128];
    return gguf_find(g, key_of(g, &key, suffix)) != NULL;
}

/* An integer of min..2^30, so that sums and products with others stay in range until
 * arch_check(). */
static enum status count(const struct gguf *g, const char *suffix, bool required, int min,
                         int *out, struct err *err) {
    char key[128];
    uint64_t v = (uint64_t)*out;
    CHECK(gguf_get_u64(g, key_of(g, &key, suffix), required, &v, err));
    if (!gguf_find(g, key))
        return ST_OK;
    if (v < (uint64_t)min || v > 1 << 30)
        return err_set(err, ST_FORMAT, "%s: key %s is %" PRIu64 ", wanted %d..%d", gguf_name(g),
                       key, v, min, 1 << 30);
    *out = (int)v;
    return ST_OK;
}

/* A count that a file may have for each layer: it must be the same in all of them. */
static enum status layer_count(const struct gguf *g, const char *suffix, bool required,
                               const struct hparams *hp, int *out, struct err *err) {
    char key[128];
    uint64_t v[MODEL_MAX_LAYER];
    const struct gguf_kv *kv = gguf_find(g, key_of(g, &key, suffix));
    if (!kv || kv->type != GGUF_ARR)
        return count(g, suffix, required, 1, out, err);
    CHECK(gguf_get_u64s(g, key, true, (size_t)hp->n_layer, v, err));
    for (int i = 1; i < hp->n_layer; i++)
        if (v[i] != v[0])
            return err_set(err, ST_UNSUPPORTED,
                           "%s: %s is %" PRIu64 " in layer 0 and %" PRIu64
                           " in layer %d; layers that differ are not supported",
                           gguf_name(g), key, v[0], v[i], i);
    if (v[0] < 1 || v[0] > 1 << 30)
        return err_set(err, ST_FORMAT, "%s: key %s is %" PRIu64 ", wanted 1..%d", gguf_name(g),
                       key, v[0], 1 << 30);
    *out = (int)v[0];
    return ST_OK;
}

static enum status number(const struct gguf *g, const char *suffix, bool required, float *out,
                          struct err *err) {
    char key[128];
    double v = (double)*out;
    CHECK(gguf_get_f64(g, key_of(g, &key, suffix), required, &v, err));
    *out = (float)v;
    return ST_OK;
}

static enum status flag(const struct gguf *g, const char *suffix, int *out, struct err *err) {
    char key[128];
    bool v = *out;
    CHECK(gguf_get_bool(g, key_of(g, &key, suffix), false, &v, err));
    *out = v;
    return ST_OK;
}

static enum status read_sizes(const struct gguf *g, struct hparams *hp, struct err *err) {
    CHECK(count(g, "block_count", true, 1, &hp->n_layer, err));
    if (hp->n_layer > MODEL_MAX_LAYER)
        return err_set(err, ST_FORMAT, "%s: %d layers, wanted at most %d", gguf_name(g),
                       hp->n_layer, MODEL_MAX_LAYER);
    CHECK(count(g, "embedding_length", true, 1, &hp->n_embd, err));
    CHECK(layer_count(g, "feed_forward_length", true, hp, &hp->n_ff, err));
    CHECK(layer_count(g, "attention.head_count", true, hp, &hp->n_head, err));
    CHECK(count(g, "context_length", true, 1, &hp->ctx_train, err));
    hp->n_head_kv = hp->n_head;
    CHECK(layer_count(g, "attention.head_count_kv", false, hp, &hp->n_head_kv, err));
    if (hp->n_embd % hp->n_head && !has(g, "attention.key_length"))
        return err_set(err, ST_FORMAT, "%s: embedding of %d is no multiple of %d heads",
                       gguf_name(g), hp->n_embd, hp->n_head);
    hp->head_dim = hp->n_embd < hp->n_head ? 1 : hp->n_embd / hp->n_head;
    CHECK(count(g, "attention.key_length", false, 1, &hp->head_dim, err));
    int value_dim = hp->head_dim;
    CHECK(count(g, "attention.value_length", false, 1, &value_dim, err));
    if (value_dim != hp->head_dim)
        return err_set(err, ST_UNSUPPORTED,
                       "%s: heads of %d for keys and %d for values are not supported",
                       gguf_name(g), hp->head_dim, value_dim);
    const char *eps = hp->norm_kind == NORM_RMS ? "attention.layer_norm_rms_epsilon"
                                                : "attention.layer_norm_epsilon";
    CHECK(number(g, eps, true, &hp->norm_eps, err));
    const struct gguf_tensor *embd = gguf_find_tensor(g, "token_embd.weight");
    if (!embd)
        return err_set(err, ST_FORMAT, "%s: tensor token_embd.weight is missing", gguf_name(g));
    hp->n_vocab = embd->ne[1] > 1 << 30 ? 1 << 30 : (int)embd->ne[1];
    return ST_OK;
}

static bool is(struct gguf_str s, const char *text) {
    return s.len == strlen(text) && memcmp(s.p, text, s.len) == 0;
}

/* YaRN's factor for cos and sin is applied in any case; what the file has comes on top. */
static enum status read_yarn(const struct gguf *g, struct hparams *hp, struct err *err) {
    float factor = 1, log_mul = 0;
    hp->rope_type = ROPE_YARN;
    CHECK(number(g, "rope.scaling.attn_factor", false, &factor, err));
    CHECK(number(g, "rope.scaling.yarn_attn_factor", false, &factor, err));
    CHECK(number(g, "rope.scaling.yarn_log_multiplier", false, &log_mul, err));
    CHECK(number(g, "rope.scaling.yarn_beta_fast", false, &hp->rope_beta_fast, err));
    CHECK(number(g, "rope.scaling.yarn_beta_slow", false, &hp->rope_beta_slow, err));
    if (log_mul != 0)
        return err_set(err, ST_UNSUPPORTED,
                       "%s: rope.scaling.yarn_log_multiplier is %g, which is not supported",
                       gguf_name(g), (double)log_mul);
    if (factor != 1 && hp->rope_scale > 1)
        hp->rope_attn_factor = factor * (1 + 0.1f * logf(hp->rope_scale));
    return ST_OK;
}

static enum status read_scaling(const struct gguf *g, struct hparams *hp, struct err *err) {
    char key[128];
    struct gguf_str type = {"none", 4};
    CHECK(number(g, "rope.scale_linear", false, &hp->rope_scale, err));
    if (hp->rope_scale != 1)
        hp->rope_type = ROPE_LINEAR;
    CHECK(gguf_get_str(g, key_of(g, &key, "rope.scaling.type"), false, &type, err));
    CHECK(count(g, "rope.scaling.original_context_length", false, 0, &hp->rope_orig_ctx, err));
    if (is(type, "none"))
        return ST_OK;
    if (!is(type, "linear") && !is(type, "yarn") && !is(type, "longrope"))
        return err_set(err, ST_UNSUPPORTED,
                       "%s: %s is \"%.*s\", supported: none, linear, yarn, longrope",
                       gguf_name(g), key, GGUF_SHOW(type));
    CHECK(number(g, "rope.scaling.factor", !is(type, "longrope"), &hp->rope_scale, err));
    if (is(type, "linear"))
        hp->rope_type = ROPE_LINEAR;
    return is(type, "yarn") ? read_yarn(g, hp, err) : ST_OK; /* longrope: by its factors */
}

static enum status read_rope(const struct gguf *g, struct hparams *hp, struct err *err) {
    hp->rope_dim = hp->head_dim;
    CHECK(count(g, "rope.dimension_count", false, 0, &hp->rope_dim, err));
    CHECK(number(g, "rope.freq_base", false, &hp->rope_base, err));
    CHECK(read_scaling(g, hp, err));
    if (!gguf_find_tensor(g, "rope_factors_long.weight"))
        return ST_OK;
    hp->rope_type = ROPE_LONG;
    hp->rope_attn_factor = 1;
    return number(g, "rope.scaling.attn_factor", false, &hp->rope_attn_factor, err);
}

/* Sliding layers: all, all but each n-th, or one by one. */
static enum status read_windows(const struct gguf *g, struct hparams *hp, struct err *err) {
    static const char pattern[] = "attention.sliding_window_pattern";
    char key[128];
    int every = 0;
    CHECK(count(g, "attention.sliding_window", false, 0, &hp->window, err));
    if (hp->window == 0)
        return ST_OK;
    const struct gguf_kv *kv = gguf_find(g, key_of(g, &key, pattern));
    if (!kv || kv->type != GGUF_ARR) {
        CHECK(count(g, pattern, false, 0, &every, err));
        arch_flag_layers(hp, every, LAYER_WINDOW);
        return ST_OK;
    }
    uint64_t slides[MODEL_MAX_LAYER];
    CHECK(gguf_get_u64s(g, key, true, (size_t)hp->n_layer, slides, err));
    for (int i = 0; i < hp->n_layer; i++)
        if (slides[i])
            hp->layer[i] |= LAYER_WINDOW;
    return ST_OK;
}

static enum status read_factors(const struct gguf *g, struct hparams *hp, struct err *err) {
    CHECK(number(g, "attention.scale", false, &hp->att_scale, err));
    CHECK(number(g, "attn_logit_softcapping", false, &hp->att_cap, err));
    CHECK(number(g, "final_logit_softcapping", false, &hp->logit_cap, err));
    CHECK(number(g, "embedding_scale", false, &hp->embd_scale, err));
    CHECK(number(g, "residual_scale", false, &hp->residual_scale, err));
    return number(g, "logit_scale", false, &hp->logit_scale, err);
}

static enum status read_experts(const struct gguf *g, struct hparams *hp, struct err *err) {
    enum { SOFTMAX = 1, SIGMOID = 2, SOFTMAX_OF_CHOSEN = 3 };
    char name[48];
    int gating = SOFTMAX;
    CHECK(count(g, "expert_count", false, 0, &hp->n_expert, err));
    if (hp->n_expert == 0)
        return ST_OK;
    CHECK(count(g, "expert_used_count", true, 1, &hp->n_expert_used, err));
    hp->n_ff_expert = hp->n_ff;
    CHECK(count(g, "expert_feed_forward_length", false, 0, &hp->n_ff_expert, err));
    CHECK(flag(g, "expert_weights_norm", &hp->expert_norm, err));
    CHECK(number(g, "expert_weights_scale", false, &hp->expert_scale, err));
    CHECK(count(g, "expert_gating_func", false, 0, &gating, err));
    if (gating == SOFTMAX_OF_CHOSEN) /* the same as over all, divided by their sum */
        hp->expert_norm = 1;
    else if (gating > SIGMOID)
        return err_set(err, ST_UNSUPPORTED, "%s: expert_gating_func = %d is not supported",
                       gguf_name(g), gating);
    hp->expert_sigmoid = gating == SIGMOID;
    for (int i = 0; i < hp->n_layer; i++) {
        snprintf(name, sizeof name, "blk.%d.ffn_gate_inp.weight", i);
        if (gguf_find_tensor(g, name))
            hp->layer[i] |= LAYER_EXPERTS;
    }
    return ST_OK;
}

/* Keys that change the computation in ways that are not built: refused but for 0 (or, of ALiBi,
 * what is built). */
static enum status refuse(const struct arch *a, const struct gguf *g, struct err *err) {
    static const char *const keys[] = {
        "attention.clamp_kqv", "attention.max_alibi_bias",  "attention.temperature_length",
        "expert_group_count",  "leading_dense_block_count", "router_logit_softcapping"};
    char key[128];
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        double v = 0;
        CHECK(gguf_get_f64(g, key_of(g, &key, keys[i]), false, &v, err));
        bool built = v == 8 && a->traits.pos == POS_ALIBI && strstr(keys[i], "alibi");
        if (v != 0 && !built)
            return err_set(err, ST_UNSUPPORTED, "%s: %s = %g is not supported", gguf_name(g),
                           key, v);
    }
    int experts = 0;
    CHECK(count(g, "expert_count", false, 0, &experts, err));
    if (experts > 0 && !arch_has_experts(a))
        return err_set(err, ST_UNSUPPORTED,
                       "%s: %s = %d: experts of %s models are not supported", gguf_name(g),
                       key_of(g, &key, "expert_count"), experts, a->name);
    return ST_OK;
}

enum status arch_from_gguf(const struct arch *a, const struct gguf *g, struct hparams *hp,
                           struct err *err) {
    arch_traits_apply(a, hp);
    CHECK(refuse(a, g, err));
    CHECK(read_sizes(g, hp, err));
    if (a->traits.pos == POS_ROPE)
        CHECK(read_rope(g, hp, err));
    if (a->traits.pos == POS_LEARNED)
        hp->n_pos = hp->ctx_train;
    CHECK(read_windows(g, hp, err));
    CHECK(read_factors(g, hp, err));
    if (arch_has_experts(a))
        CHECK(read_experts(g, hp, err));
    if (a->gguf_special)
        CHECK(a->gguf_special(g, hp, err));
    return arch_check(hp, gguf_name(g), err);
}

static bool has_tensor(const struct gguf *g, const char *name) {
    return gguf_find_tensor(g, name) != NULL;
}

/* Every fourth layer sees everything, where the file does not say which. */
static void full_each_fourth(const struct gguf *g, struct hparams *hp) {
    for (int i = 3; !has(g, "attention.sliding_window_pattern") && i < hp->n_layer; i += 4)
        hp->layer[i] &= (uint8_t)~LAYER_WINDOW;
}

enum status gguf_cohere2(const struct gguf *g, struct hparams *hp, struct err *err) {
    (void)err;
    full_each_fourth(g, hp);
    arch_no_rope_in_full_layers(hp);
    return ST_OK;
}

enum status gguf_exaone4(const struct gguf *g, struct hparams *hp, struct err *err) {
    (void)err;
    full_each_fourth(g, hp);
    if (hp->window > 0)
        arch_no_rope_in_full_layers(hp);
    return ST_OK;
}

/* OLMo 3 comes under this name too: RoPE of its sliding layers is not scaled. */
enum status gguf_olmo2(const struct gguf *g, struct hparams *hp, struct err *err) {
    (void)err;
    full_each_fourth(g, hp);
    hp->rope_base_local = hp->window > 0 ? hp->rope_base : 0;
    for (int i = 0; i < hp->n_layer; i++)
        if (hp->layer[i] & LAYER_WINDOW)
            hp->layer[i] |= LAYER_LOCAL_ROPE;
    return ST_OK;
}

enum status gguf_gptneox(const struct gguf *g, struct hparams *hp, struct err *err) {
    int parallel = 1;
    CHECK(flag(g, "use_parallel_residual", &parallel, err));
    hp->residual = parallel ? RESIDUAL_PARALLEL : RESIDUAL_PRE;
    return ST_OK;
}

/* Every second layer sees everything, where the file does not say which. */
enum status gguf_gptoss(const struct gguf *g, struct hparams *hp, struct err *err) {
    (void)err;
    for (int i = 1; !has(g, "attention.sliding_window_pattern") && i < hp->n_layer; i += 2)
        hp->layer[i] &= (uint8_t)~LAYER_WINDOW;
    return ST_OK;
}

/* Gemma's embeddings are scaled, which no key says. */
enum status gguf_gemma(const struct gguf *g, struct hparams *hp, struct err *err) {
    (void)g;
    (void)err;
    hp->embd_scale = (float)sqrt((double)hp->n_embd);
    return ST_OK;
}

/* The scale of scores is that of heads but for the 27B models, where it is that of
 * n_embd / n_head; they are known by their layers. */
static void gemma_scale(struct hparams *hp, int layers_of_27b) {
    if (hp->n_layer == layers_of_27b && hp->att_scale == 0)
        hp->att_scale = 1 / sqrtf((float)hp->n_embd / (float)hp->n_head);
}

enum status gguf_gemma2(const struct gguf *g, struct hparams *hp, struct err *err) {
    CHECK(gguf_gemma(g, hp, err));
    gemma_scale(hp, 46);
    if (!has(g, "attn_logit_softcapping"))
        hp->att_cap = 50;
    if (!has(g, "final_logit_softcapping"))
        hp->logit_cap = 30;
    for (int i = 1; i < hp->n_layer; i += 2)
        hp->layer[i] &= (uint8_t)~LAYER_WINDOW;
    return ST_OK;
}

enum status gguf_gemma3(const struct gguf *g, struct hparams *hp, struct err *err) {
    CHECK(gguf_gemma(g, hp, err));
    gemma_scale(hp, 62);
    if (!has(g, "rope.freq_base"))
        hp->rope_base = 1e6f;
    hp->rope_base_local = 10000;
    CHECK(number(g, "rope.freq_base_swa", false, &hp->rope_base_local, err));
    for (int i = 0; i < hp->n_layer; i++) {
        if (!has(g, "attention.sliding_window_pattern") && (i + 1) % 6 == 0)
            hp->layer[i] &= (uint8_t)~LAYER_WINDOW;
        if (hp->layer[i] & LAYER_WINDOW)
            hp->layer[i] |= LAYER_LOCAL_ROPE;
    }
    return ST_OK;
}

/* Granite divides logits by the number that the key has. */
enum status gguf_granite(const struct gguf *g, struct hparams *hp, struct err *err) {
    if (has(g, "logit_scale") && hp->logit_scale == 0)
        return err_set(err, ST_FORMAT, "%s: logit_scale is 0", gguf_name(g));
    hp->logit_scale = 1 / hp->logit_scale;
    return ST_OK;
}

enum status gguf_phi3(const struct gguf *g, struct hparams *hp, struct err *err) {
    (void)err;
    if (hp->rope_type == ROPE_LONG && !has(g, "rope.scaling.original_context_length"))
        hp->rope_orig_ctx = 4096;
    return ST_OK;
}

enum status gguf_qwen2moe(const struct gguf *g, struct hparams *hp, struct err *err) {
    return count(g, "expert_shared_feed_forward_length", false, 0, &hp->n_ff_shared, err);
}

enum status gguf_smollm3(const struct gguf *g, struct hparams *hp, struct err *err) {
    (void)g;
    (void)err;
    for (int i = 3; i < hp->n_layer; i += 4)
        hp->layer[i] |= LAYER_NO_ROPE;
    return ST_OK;
}

/* The file's word about parallel residuals is not reliable; the second norm is. */
enum status gguf_stablelm(const struct gguf *g, struct hparams *hp, struct err *err) {
    if (has_tensor(g, "blk.0.attn_q_norm.weight"))
        return err_set(err, ST_UNSUPPORTED,
                       "%s: tensor blk.0.attn_q_norm.weight: norms of single heads are not "
                       "supported",
                       gguf_name(g));
    hp->residual = has_tensor(g, "blk.0.ffn_norm.weight") ? RESIDUAL_PRE : RESIDUAL_PARALLEL;
    return ST_OK;
}
