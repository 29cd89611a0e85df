/*
 * arch.c - see arch.h. Llama is the architecture that exists today: RMSNorm, RoPE on
 * interleaved pairs, grouped-query attention, SwiGLU, a tied or separate head, no biases
 * (GGUF's "llama" also covers Mistral, SmolLM2 and others).
 *
 * What a file asks for and the layer graph does not do is refused by name, never ignored: a
 * model that runs with a scaling left out answers, and answers wrongly.
 */
#include "engine/model/arch.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LAYER(f) offsetof(struct layer, f)
#define MODEL(f) offsetof(struct model, f)

static const struct arch_tensor llama_layer[] = {
    {"attn_norm", TENSOR_VECTOR, DIM_ONE, DIM_EMBD, LAYER(attn_norm), false},
    {"attn_q", TENSOR_LINEAR, DIM_Q, DIM_EMBD, LAYER(wq), false},
    {"attn_k", TENSOR_LINEAR, DIM_KV, DIM_EMBD, LAYER(wk), false},
    {"attn_v", TENSOR_LINEAR, DIM_KV, DIM_EMBD, LAYER(wv), false},
    {"attn_output", TENSOR_LINEAR, DIM_EMBD, DIM_Q, LAYER(wo), false},
    {"ffn_norm", TENSOR_VECTOR, DIM_ONE, DIM_EMBD, LAYER(ffn_norm), false},
    {"ffn_gate", TENSOR_LINEAR, DIM_FF, DIM_EMBD, LAYER(gate), false},
    {"ffn_up", TENSOR_LINEAR, DIM_FF, DIM_EMBD, LAYER(up), false},
    {"ffn_down", TENSOR_LINEAR, DIM_EMBD, DIM_FF, LAYER(down), false},
    {NULL, TENSOR_VECTOR, DIM_ONE, DIM_ONE, 0, false},
};

static const struct arch_tensor llama_model[] = {
    {"token_embd", TENSOR_HEAD, DIM_VOCAB, DIM_EMBD, MODEL(embd), false},
    {"output_norm", TENSOR_VECTOR, DIM_ONE, DIM_EMBD, MODEL(out_norm), false},
    {"rope_freqs", TENSOR_VECTOR, DIM_ONE, DIM_ROPE_HALF, MODEL(rope_freqs), true},
    {"output", TENSOR_HEAD, DIM_VOCAB, DIM_EMBD, MODEL(head), true},
    {NULL, TENSOR_VECTOR, DIM_ONE, DIM_ONE, 0, false},
};

uint64_t arch_dim(enum dim d, const struct hparams *hp) {
    switch (d) {
    case DIM_ONE:
        return 1;
    case DIM_EMBD:
        return (uint64_t)hp->n_embd;
    case DIM_FF:
        return (uint64_t)hp->n_ff;
    case DIM_Q:
        return (uint64_t)hp->n_head * (uint64_t)hp->head_dim;
    case DIM_KV:
        return (uint64_t)hp->n_head_kv * (uint64_t)hp->head_dim;
    case DIM_VOCAB:
        return (uint64_t)hp->n_vocab;
    case DIM_ROPE_HALF:
        return (uint64_t)hp->rope_dim / 2;
    }
    return 0;
}

enum status arch_check(const struct hparams *hp, const char *file, struct err *err) {
    const struct {
        const char *name;
        int value, max;
    } bounds[] = {
        {"layers", hp->n_layer, 1024},       {"vocabulary", hp->n_vocab, 1 << 22},
        {"embedding", hp->n_embd, 1 << 18},  {"feed-forward", hp->n_ff, 1 << 20},
        {"heads", hp->n_head, 4096},         {"KV heads", hp->n_head_kv, 4096},
        {"head size", hp->head_dim, 1024},   {"rope dimensions", hp->rope_dim, 1024},
        {"context", hp->ctx_train, 1 << 28},
    };
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
        if (bounds[i].value < 1 || bounds[i].value > bounds[i].max)
            return err_set(err, ST_FORMAT, "%s: %s is %d, wanted 1..%d", file, bounds[i].name,
                           bounds[i].value, bounds[i].max);
    if (hp->n_head % hp->n_head_kv)
        return err_set(err, ST_FORMAT, "%s: %d heads are no multiple of %d KV heads", file,
                       hp->n_head, hp->n_head_kv);
    if (hp->n_head * hp->head_dim > 1 << 20)
        return err_set(err, ST_FORMAT, "%s: %d heads of %d are too large", file, hp->n_head,
                       hp->head_dim);
    if (hp->head_dim % 2 || hp->rope_dim % 2 || hp->rope_dim > hp->head_dim)
        return err_set(
            err, ST_FORMAT,
            "%s: %d rope dimensions of a head of %d, wanted an even number of an even one",
            file, hp->rope_dim, hp->head_dim);
    if (!(hp->norm_eps > 0 && hp->norm_eps < 1))
        return err_set(err, ST_FORMAT, "%s: RMSNorm epsilon is %g, wanted between 0 and 1",
                       file, (double)hp->norm_eps);
    if (!(hp->rope_base >= 1 && hp->rope_base <= 1e12f))
        return err_set(err, ST_FORMAT, "%s: rope base is %g, wanted 1..1e12", file,
                       (double)hp->rope_base);
    if (!(hp->rope_scale >= 1 && hp->rope_scale <= 1e6f))
        return err_set(err, ST_FORMAT, "%s: rope scale is %g, wanted 1..1e6", file,
                       (double)hp->rope_scale);
    return ST_OK;
}

/* The key of architecture `llama`. */
static const char *key_of(char (*buf)[96], const char *suffix) {
    snprintf(*buf, sizeof *buf, "llama.%s", suffix);
    return *buf;
}

/* A count: an integer of 1..2^30, so that sums and products with others stay in range until
 * arch_check(). */
static enum status count(const struct gguf *g, const char *suffix, bool required, int *out,
                         struct err *err) {
    char key[96];
    uint64_t v = (uint64_t)*out;
    CHECK(gguf_get_u64(g, key_of(&key, suffix), required, &v, err));
    if (v < 1 || v > 1 << 30)
        return err_set(err, ST_FORMAT, "%s: key %s is %" PRIu64 ", wanted 1..%d", gguf_name(g),
                       key, v, 1 << 30);
    *out = (int)v;
    return ST_OK;
}

static enum status number(const struct gguf *g, const char *suffix, bool required, float *out,
                          struct err *err) {
    char key[96];
    double v = (double)*out;
    CHECK(gguf_get_f64(g, key_of(&key, suffix), required, &v, err));
    *out = (float)v;
    return ST_OK;
}

/* Keys that change the computation in ways that are not built: a value other than 0 is refused.
 */
static enum status refuse_unknown(const struct gguf *g, struct err *err) {
    static const char *const keys[] = {"expert_count",        "attention.scale",
                                       "logit_scale",         "embedding_scale",
                                       "residual_scale",      "attention.sliding_window",
                                       "attention.clamp_kqv", "attention.max_alibi_bias"};
    char key[96];
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        double v = 0;
        CHECK(gguf_get_f64(g, key_of(&key, keys[i]), false, &v, err));
        if (v != 0)
            return err_set(err, ST_UNSUPPORTED, "%s: %s = %g is not supported", gguf_name(g),
                           key, v);
    }
    return ST_OK;
}

static enum status rope_scaling(const struct gguf *g, struct hparams *hp, struct err *err) {
    struct gguf_str type = {"none", 4};
    hp->rope_scale = 1;
    CHECK(number(g, "rope.scale_linear", false, &hp->rope_scale, err));
    CHECK(gguf_get_str(g, "llama.rope.scaling.type", false, &type, err));
    if (type.len == 4 && memcmp(type.p, "none", 4) == 0)
        return ST_OK;
    if (type.len != 6 || memcmp(type.p, "linear", 6) != 0)
        return err_set(err, ST_UNSUPPORTED,
                       "%s: llama.rope.scaling.type %.*s is not supported (none, linear)",
                       gguf_name(g), (int)(type.len < 40 ? type.len : 40), type.p);
    return number(g, "rope.scaling.factor", true, &hp->rope_scale, err);
}

static enum status llama_from_gguf(const struct gguf *g, struct hparams *hp, struct err *err) {
    *hp = (struct hparams){.rope_base = 10000};
    CHECK(refuse_unknown(g, err));
    CHECK(count(g, "block_count", true, &hp->n_layer, err));
    CHECK(count(g, "embedding_length", true, &hp->n_embd, err));
    CHECK(count(g, "feed_forward_length", true, &hp->n_ff, err));
    CHECK(count(g, "attention.head_count", true, &hp->n_head, err));
    CHECK(count(g, "context_length", true, &hp->ctx_train, err));
    hp->n_head_kv = hp->n_head;
    CHECK(count(g, "attention.head_count_kv", false, &hp->n_head_kv, err));
    hp->head_dim = hp->n_embd / hp->n_head;
    if (hp->n_embd % hp->n_head && !gguf_find(g, "llama.attention.key_length"))
        return err_set(err, ST_FORMAT, "%s: embedding of %d is no multiple of %d heads",
                       gguf_name(g), hp->n_embd, hp->n_head);
    if (hp->head_dim < 1)
        hp->head_dim = 1;
    CHECK(count(g, "attention.key_length", false, &hp->head_dim, err));
    int value_dim = hp->head_dim;
    CHECK(count(g, "attention.value_length", false, &value_dim, err));
    if (value_dim != hp->head_dim)
        return err_set(err, ST_UNSUPPORTED,
                       "%s: heads of %d for keys and %d for values are not supported",
                       gguf_name(g), hp->head_dim, value_dim);
    hp->rope_dim = hp->head_dim;
    CHECK(count(g, "rope.dimension_count", false, &hp->rope_dim, err));
    CHECK(number(g, "attention.layer_norm_rms_epsilon", true, &hp->norm_eps, err));
    CHECK(number(g, "rope.freq_base", false, &hp->rope_base, err));
    CHECK(rope_scaling(g, hp, err));
    const struct gguf_tensor *embd = gguf_find_tensor(g, "token_embd.weight");
    if (!embd)
        return err_set(err, ST_FORMAT, "%s: tensor token_embd.weight is missing", gguf_name(g));
    hp->n_vocab = embd->ne[1] > 1 << 30 ? 1 << 30 : (int)embd->ne[1];
    return ST_OK;
}

static const struct arch archs[] = {
    {"llama", llama_layer, llama_model, llama_from_gguf},
};

enum status arch_find(const char *name, const char *file, const struct arch **out,
                      struct err *err) {
    struct buf known = {0};
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        if (strcmp(name, archs[i].name) == 0) {
            *out = &archs[i];
            buf_release(&known);
            return ST_OK;
        }
        buf_addf(&known, "%s%s", i ? ", " : "", archs[i].name);
    }
    enum status st =
        err_set(err, ST_UNSUPPORTED, "%s: architecture %.40s is not supported; supported: %s",
                file, name, buf_str(&known));
    buf_release(&known);
    return st;
}
