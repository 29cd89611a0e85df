/*
 * model.h - a model as it is mapped: hyperparameters and weights, ready for the layer graph.
 *
 * Everything points into the mapping and lives as long as the struct model. Immutable after
 * model_open().
 */
#ifndef LLMCHAT_ENGINE_MODEL_MODEL_H
#define LLMCHAT_ENGINE_MODEL_MODEL_H

#include "base/err.h"
#include "engine/models.h"
#include "engine/quant/weight.h"

struct text_model;

struct hparams {
    int n_layer, n_vocab, n_embd, n_ff, n_head, n_head_kv, head_dim, ctx_train;
    int rope_dim; /* leading dimensions of a head that are rotated; head_dim for Llama */
    float norm_eps;
    float rope_base;  /* theta */
    float rope_scale; /* positions are divided by it (linear scaling); 1: none */
};

struct layer {
    const float *attn_norm; /* [n_embd] */
    struct weight wq; /* [n_head * head_dim, n_embd], rows ordered for interleaved RoPE: pair i
                         of a head is (2i, 2i + 1), as GGUF stores Llama */
    struct weight wk, wv;   /* [n_head_kv * head_dim, n_embd]; wk rows like wq */
    struct weight wo;       /* [n_embd, n_head * head_dim] */
    const float *ffn_norm;  /* [n_embd] */
    struct weight gate, up; /* [n_ff, n_embd] */
    struct weight down;     /* [n_embd, n_ff] */
};

struct model {
    struct model_info info;
    struct hparams hp;
    struct weight embd;    /* [n_vocab, n_embd] */
    struct weight head;    /* [n_vocab, n_embd]; the same data as embd when tied */
    const float *out_norm; /* [n_embd] */
    const float
        *rope_freqs; /* [rope_dim / 2] divisors of the inverse frequencies (llama3), or NULL */
    struct layer *layers;    /* [n_layer] */
    struct text_model *text; /* tokenizer and template; owned */
    void *priv;
};

/* Opens one of our files: ST_NOT_FOUND, ST_FORMAT (which field, found, wanted), ST_UNSUPPORTED
 * (newer layout, unknown architecture). All offsets and sizes are checked before use. */
enum status model_open(const char *path, struct model **out, struct err *err);
void model_close(struct model *m);

#endif
