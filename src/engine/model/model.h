/*
 * model.h - a model as it is mapped: hyperparameters and weights, ready for the layer graph.
 *
 * Everything points into the mapping and lives as long as the struct model. Immutable after
 * model_open().
 *
 * The fields below are all that any architecture needs; what an architecture does not have is
 * zero or NULL, and the graph leaves it out. So a layer is, with [] for what may be missing:
 *
 *   a = attn_norm(x)
 *   q, k, v = wq a, wk a, wv a; [q_norm, k_norm]; [RoPE]
 *   o = wo attention(q, k, v)
 *   RESIDUAL_PRE:       x += [post_attn_norm](o);  x += [post_ffn_norm](ffn(ffn_norm(x)))
 *   RESIDUAL_PARALLEL:  x += o + ffn([ffn_norm or else attn_norm](x))
 *   RESIDUAL_POST:      x = attn_norm(x + o);  x = ffn_norm(x + ffn(x)); q, k, v from x itself
 *
 * Without attn_norm (OLMo 2) q, k, v and the feed-forward read x itself and the post norms do
 * the work. A layer's ffn is gated, plain, or a mixture of experts.
 */
#ifndef LLMCHAT_ENGINE_MODEL_MODEL_H
#define LLMCHAT_ENGINE_MODEL_MODEL_H

#include "base/err.h"
#include "engine/models.h"
#include "engine/quant/weight.h"

struct text_model;
struct arch;

enum norm_kind { NORM_RMS, NORM_LAYER };
/* What a feed-forward makes of its gate g and of up u: f(g) u, or f(u) without a gate.
 * GPT_OSS (gated only): f(g) (clamp(u, -7, 7) + 1) with f(g) = m sigmoid(1.702 m), m = min(g,
 * 7). */
enum act_kind {
    ACT_SILU,
    ACT_GELU_TANH,
    ACT_GELU_ERF,
    ACT_RELU,
    ACT_RELU2,
    ACT_GPT_OSS,
};
enum residual_kind { RESIDUAL_PRE, RESIDUAL_PARALLEL, RESIDUAL_POST };
enum rope_type { ROPE_DEFAULT, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_LLAMA3, ROPE_YARN, ROPE_LONG };
/* ALiBi: score += slope * position. FALCON: the slope is rounded to bf16 and the bias is scaled
 * as the scores are. */
enum alibi_kind { ALIBI_NONE, ALIBI_ADDED, ALIBI_FALCON };

/* q_norm, k_norm over each head with one gain for all, over whole rows, or over each head with
 * its own gain. */
enum qk_norm { QK_NORM_HEADS, QK_NORM_ROWS, QK_NORM_EACH };

/* Flags of a layer, hparams.layer[]. */
enum {
    LAYER_WINDOW = 1,     /* attention sees hparams.window tokens, its own included */
    LAYER_NO_ROPE = 2,    /* queries and keys are not rotated */
    LAYER_LOCAL_ROPE = 4, /* base rope_base_local, no scaling */
    LAYER_EXPERTS = 8,    /* the feed-forward is a mixture of experts */
};

enum { MODEL_MAX_LAYER = 1024 };

/* Every number that says how a model computes: I(field, default) an int, F(field, default) a
 * float. HP_NEEDED: a file must have it. The struct, the metadata of our file and what a
 * missing key means all come from this list. */
#define HP_NEEDED (-1)
#define HPARAM_LIST(I, F)                                                                      \
    I(n_layer, HP_NEEDED)                                                                      \
    I(n_vocab, HP_NEEDED)                                                                      \
    I(n_embd, HP_NEEDED)                                                                       \
    I(n_ff, HP_NEEDED)                                                                         \
    I(n_head, HP_NEEDED)                                                                       \
    I(n_head_kv, HP_NEEDED)                                                                    \
    I(head_dim, HP_NEEDED)                                                                     \
    I(ctx_train, HP_NEEDED)                                                                    \
    /* leading dimensions of a head that are rotated; 0: no RoPE at all */                     \
    I(rope_dim, HP_NEEDED)                                                                     \
    F(norm_eps, HP_NEEDED)                                                                     \
    F(rope_base, HP_NEEDED)                                                                    \
    /* factor of every kind of scaling; linear divides positions by it */                      \
    F(rope_scale, HP_NEEDED)                                                                   \
    I(rope_type, ROPE_LINEAR) /* enum rope_type; linear with scale 1 is none */                \
    I(rope_orig_ctx, 0)       /* context before scaling; 0: ctx_train */                       \
    F(rope_attn_factor, 0)    /* cos and sin times this; 0: as the kind of scaling says */     \
    F(rope_beta_fast, 32)                                                                      \
    F(rope_beta_slow, 1)                                                                       \
    F(rope_mscale, 0)                                                                          \
    F(rope_mscale_all_dim, 0)                                                                  \
    I(rope_truncate, 1) /* YaRN: the borders of the ramp are whole numbers */                  \
    F(rope_low_freq, 1) /* llama3 */                                                           \
    F(rope_high_freq, 4)                                                                       \
    F(rope_base_local, 0) /* of LAYER_LOCAL_ROPE layers */                                     \
    I(n_embd_word, 0)     /* columns of embd and head where they are not n_embd: projected */  \
    I(n_pos, 0)           /* rows of the learned position embedding; 0: none */                \
    I(norm_kind, NORM_RMS)                                                                     \
    I(act, ACT_SILU)                                                                           \
    I(residual, RESIDUAL_PRE)                                                                  \
    I(window, 0)                                                                               \
    I(alibi, ALIBI_NONE) /* enum alibi_kind, slopes for a maximal bias of 8 */                 \
    I(qk_norm_rows, 0)   /* enum qk_norm */                                                    \
    F(att_scale, 0)      /* of the scores; 0: 1 / sqrt(head_dim) */                            \
    F(att_cap, 0)        /* scores s become cap tanh(s / cap); 0: none */                      \
    F(logit_cap, 0)                                                                            \
    F(logit_scale, 1)                                                                          \
    F(embd_scale, 1)                                                                           \
    F(residual_scale, 1) /* of what a block adds to the residual stream */                     \
    I(n_expert, 0)                                                                             \
    I(n_expert_used, 0)                                                                        \
    I(n_ff_expert, 0)                                                                          \
    I(n_ff_shared, 0)    /* the expert that every token uses; 0: none */                       \
    I(expert_norm, 0)    /* 1: weights of the chosen experts sum to 1 */                       \
    I(expert_sigmoid, 0) /* 1: sigmoid, 0: softmax over all experts */                         \
    F(expert_scale, 1)   /* of the chosen weights */

struct hparams {
#define I(f, d) int f;
#define F(f, d) float f;
    HPARAM_LIST(I, F)
#undef I
#undef F
    uint8_t layer[MODEL_MAX_LAYER]; /* LAYER_ flags */
};

struct norm {
    const float *g; /* gain [K]; NULL: the norm is not there */
    const float *b; /* bias [K], or NULL */
};

struct linear {
    struct weight w;     /* N = 0: it is not there */
    const float *bias;   /* [N], or NULL */
    const int32_t *perm; /* [K], or NULL: input k of w is column perm[k] of x (act-order) */
};

struct layer {
    struct norm attn_norm, q_norm, k_norm, post_attn_norm, ffn_norm, post_ffn_norm;
    struct linear wq; /* [n_head * head_dim, n_embd], rows ordered for interleaved RoPE: pair i
                         of a head is (2i, 2i + 1), as GGUF stores Llama; q_norm likewise */
    struct linear wk, wv; /* [n_head_kv * head_dim, n_embd]; wk and k_norm like wq */
    struct linear wo;     /* [n_embd, n_head * head_dim] */
    struct linear gate;   /* [n_ff, n_embd], not there when the feed-forward is not gated */
    struct linear up;     /* [n_ff, n_embd] */
    struct linear down;   /* [n_embd, n_ff] */
    struct linear router; /* [n_expert, n_embd] */
    struct linear *gate_exp, *up_exp, *down_exp;       /* [n_expert], sizes with n_ff_expert */
    struct linear gate_shared, up_shared, down_shared; /* sizes with n_ff_shared */
    struct linear shared_router; /* [1, n_embd]: the shared expert's sigmoid gate */
    const float *sinks; /* [n_head] a logit in each softmax that has no value, or NULL */
};

struct model {
    struct model_info info;
    const struct arch *arch; /* its row, for arch_visit() */
    struct hparams hp;
    struct linear embd;     /* [n_vocab, n_embd], or [n_vocab, n_embd_word] */
    struct linear embd_in;  /* [n_embd, n_embd_word] from the embedding to the stream, and */
    struct linear embd_out; /* [n_embd_word, n_embd] back, behind out_norm: with n_embd_word */
    struct linear pos;  /* [n_pos, n_embd] added to the embedding of the token at a position */
    struct linear head; /* as embd; the same data as embd when tied */
    struct norm embd_norm; /* of the embedding */
    struct norm out_norm;
    const float *rope_freqs;   /* [rope_dim / 2] divisors of the inverse frequencies, or NULL */
    const float *rope_long;    /* [rope_dim / 2] the same beyond rope_orig_ctx (ROPE_LONG) */
    struct layer *layers;      /* [n_layer] */
    int first_head, all_heads; /* of a rank's part (run/shard.h): its heads begin here, of so
                                  many; 0, 0: the model is whole */
    struct text_model *text;   /* tokenizer and template; owned */
    void *priv;
};

/* Opens one of our files: ST_NOT_FOUND, ST_FORMAT (which field, found, wanted), ST_UNSUPPORTED
 * (newer layout, unknown architecture). All offsets and sizes are checked before use. */
enum status model_open(const char *path, struct model **out, struct err *err);
/* ST_IO when the file was cut since: what was computed from it is wrong. */
enum status model_intact(const struct model *m, struct err *err);
void model_close(struct model *m);
/* Tells model files apart: a hash of the header (sizes, settings, the source's own hash, the
 * time of its making) and the size. A copy has the same. */
uint64_t model_hash(const struct model *m);
enum status model_file_hash(const char *path, uint64_t *out, struct err *err);

#endif
