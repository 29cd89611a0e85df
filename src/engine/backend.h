/*
 * backend.h - what a device must be able to do; the layer graph is written once over this
 * table.
 *
 * Activations are f32 matrices [T, K] with a row stride of weight_pad_k(K) floats, in memory
 * that came from alloc(): for a device they are its own addresses, which download() reads and
 * upload() writes. alloc() gives zeros, and no function writes beyond a row's logical K
 * columns, so the padding of a row stays zero and kernels may read it.
 *
 * KV: for each layer and block, K is [Hkv, D, 16] (the 16 tokens of a block innermost: 16
 * scores are one vector, without horizontal sums) and V is [Hkv, 16, D] (a weighted sum of
 * rows). Elements are of one type for the whole pool: f32; bf16; f16 and fp8 (quant/fp8.h),
 * which saturate; or int8 with a scale for each token: behind the D * 16 bytes of a head's keys
 * lie their 16 scales, and likewise behind its values. A token's scale is its own, so no
 * element changes when the next token comes. In bf16 the two numbers that a dot product takes
 * at once are neighbours: K is [Hkv, D/2, 16, 2], V [Hkv, 8, D, 2] with the tokens in pairs.
 * kv_k_at() and kv_v_at() say it for all types.
 *
 * A step: begin(), operations, finish(). Operations are ordered; a device may run them behind
 * the caller's back until finish() or download(), and host memory that an operation was given
 * stays as it is until then. One thread uses a backend at a time. Functions below "optional"
 * may be NULL: the graph then composes them from the others.
 */
#ifndef LLMCHAT_ENGINE_BACKEND_H
#define LLMCHAT_ENGINE_BACKEND_H

#include "base/err.h"
#include "engine/engine.h"
#include "engine/model/model.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    BACKEND_KV_BLOCK = 16,
    BACKEND_MAX_OUT = 4,
    BACKEND_ROPES = 2,
    BACKEND_SAMPLE_ROWS = 256,      /* most rows of a step that sample() takes, */
    BACKEND_SAMPLE_TOKENS = 16384,  /* their tokens with penalties together, */
    BACKEND_SAMPLE_VOCAB = 1 << 20, /* and the largest vocabulary */
};
/* Each part of a bound weight, and other bound data, takes a multiple of this. */
enum { BACKEND_BIND_ALIGN = 256, BACKEND_CODE_MAP = 256 * sizeof(float) };

/* What a step may ask for at most; scratch is allocated from it once. */
struct backend_limits {
    int max_tok; /* rows of a matrix */
    int max_k;   /* columns of an input of matmul */
    int n_head, n_head_kv, head_dim;
    bool row_scaled; /* weights that are (weight.h) */
};

/* The part of a batch that belongs to one sequence. */
struct step_seq {
    int first, n_tok;      /* rows first .. first + n_tok - 1 */
    int n_past;            /* tokens in the cache before them */
    const int32_t *blocks; /* [ceil((n_past + n_tok) / 16)] host memory */
};

/* One batch, as host data that stays valid until finish(). */
struct step {
    int T;
    struct {              /* angles of each token; a layer uses one of them, or none */
        const float *cos; /* [T, rope_dim] pairs (cos a, cos a) */
        const float *sin; /* [T, rope_dim] pairs (-sin a, sin a) */
    } rope[BACKEND_ROPES];
    int rope_dim;
    const struct step_seq *seqs; /* [n_seq] */
    int n_seq;
    const int32_t *tokens, *pos; /* [T] as embed() gets them, */
    const int32_t *rows;         /* [n_rows] and select(): a device may have them already */
    int n_rows;
};

/* One layer's part of the KV pool. Its parts of two blocks lie `stride` bytes apart, so that a
 * block of all layers can be one piece of memory. */
struct kv_layer {
    void *k; /* of block 0: [Hkv, D, 16] */
    void *v; /* [Hkv, 16, D] */
    size_t stride;
    enum kv_type type; /* not KV_AUTO */
    int Hkv, D;        /* D is even */
};

/* These are for kernels too. */
#ifdef __CUDACC__
#define BACKEND_INLINE static inline __host__ __device__
#else
#define BACKEND_INLINE static inline
#endif

BACKEND_INLINE size_t kv_elem_bytes(enum kv_type t) {
    return t == KV_I8 || t == KV_FP8 ? 1 : t == KV_F32 ? 4 : 2;
}
/* The 16 keys, or the 16 values, of a head in a block, with their scales. */
BACKEND_INLINE size_t kv_head_bytes(enum kv_type t, int D) {
    size_t scales = t == KV_I8 ? BACKEND_KV_BLOCK * sizeof(float) : 0;
    return BACKEND_KV_BLOCK * (size_t)D * kv_elem_bytes(t) + scales;
}
/* Where number d of the key in a slot is, and of the value: elements of the head's part. */
BACKEND_INLINE size_t kv_k_at(enum kv_type t, size_t d, size_t slot) {
    return t == KV_BF16 ? d / 2 * 32 + slot * 2 + d % 2 : d * BACKEND_KV_BLOCK + slot;
}
BACKEND_INLINE size_t kv_v_at(enum kv_type t, size_t D, size_t d, size_t slot) {
    return t == KV_BF16 ? slot / 2 * 2 * D + d * 2 + slot % 2 : slot * D + d;
}

/* One output of a matmul: y [T, N] = x W^T + bias. */
struct matmul_out {
    const struct weight *w; /* as bind() gave it */
    float *y;
    size_t ldy;        /* row stride of y in floats, at least N */
    const float *bias; /* [N] as bind_data() gave it, or NULL */
};

/* How rows are normalised. A row is H parts of D columns, each normalised by itself.
 *   NORM_RMS:   y = x / sqrt(mean(x^2) + eps) * g + b
 *   NORM_LAYER: y = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * g + b */
struct norm_op {
    enum norm_kind kind;
    float eps;
    const float *g, *b; /* [D], with `each` [H, D]; b may be NULL */
    int H, D;
    bool each; /* every part has its own g and b */
};

/* How a layer attends: scores s = q k * scale; with a cap > 0 s = cap tanh(s / cap); with
 * slopes s += slope * (position of the key - the token's own) (ALiBi). */
struct att_op {
    float scale, cap;
    int window;          /* > 0: a token sees this many, its own included */
    const float *slopes; /* [H] or NULL */
    bool alibi_scaled;   /* instead s += scale * (slope * position of the key, in bf16); what
                            all keys share cancels out */
    const float *sinks;  /* [H] a score more in each softmax, without a value; or NULL */
};

/* How a row of logits becomes a token: the steps of run/sampler.h from the penalties on,
 * without locally typical sampling. */
struct sample_token {
    int32_t token;
    float minus; /* count * frequency penalty + presence penalty */
};
struct sample_row {
    const struct sample_token *tokens; /* [n_token] those that have a penalty, all different */
    int n_token;
    float repeat; /* penalty */
    int top_k;    /* 0: off */
    double top_p, min_p;
    double temperature; /* 0: the best is taken */
    double unit;        /* [0, 1) what the draw is made with */
};
struct sample_got {
    int32_t token; /* or below 0: none can be taken, because of token -1 - this */
    float logit;   /* then: its logit, which is no number, +infinity, or where all are -infinity
                      that */
};

struct backend {
    const char *device;  /* "cpu" */
    const char *kernels; /* "scalar", "avx2", "avx512" */
    const char *pci;     /* PCI address of a GPU (nvml.h); NULL: it is none */
    int threads;
    enum kv_type kv_type; /* the type of 16 bits that its attention is fastest with */
    bool host_memory;     /* alloc() gives host memory, and outputs may be the caller's own */

    void (*close)(struct backend *be);
    /* Zeroed, at a 64-byte border; NULL when the device has no room. NULL may be freed. */
    void *(*alloc)(struct backend *be, size_t bytes);
    void (*free)(struct backend *be, void *p);
    void (*download)(struct backend *be, void *host, const void *dev, size_t bytes);
    /* The caller may change host again at once. */
    void (*upload)(struct backend *be, void *dev, const void *host, size_t bytes);
    /* From the device's memory to other memory of it */
    void (*copy)(struct backend *be, void *dst, const void *src, size_t bytes);
    /* Makes a weight, or other data, of the mapped model usable by the device; *dev lives until
     * close(). */
    enum status (*bind)(struct backend *be, const struct weight *host, struct weight *dev,
                        struct err *err);
    enum status (*bind_data)(struct backend *be, const void *host, size_t bytes,
                             const void **dev, struct err *err);
    enum status (*reserve)(struct backend *be, const struct backend_limits *lim,
                           struct err *err);
    /* optional: the device does nothing any more, and what was downloaded since is zeros. NULL:
     * it never fails. */
    bool (*failed)(const struct backend *be);
    /* optional: bytes that may still be allocated. NULL: the host's memory, which is not
     * counted here. */
    size_t (*room)(struct backend *be);
    /* optional, before anything is bound: memory for all that will be, so many bytes
     * (run/bind.c counts them), in the place of what an earlier call took. ST_NOMEM: it took
     * none. */
    enum status (*make_room)(struct backend *be, size_t bytes, struct err *err);

    void (*begin)(struct backend *be, const struct step *s);
    enum status (*finish)(struct backend *be, struct err *err);

    /* x[t] = row rows[t] of w; rows [T] host memory */
    void (*embed)(struct backend *be, const struct weight *w, const int32_t *rows, int T,
                  float *x);
    /* x, y [T, H * D]; y may be x */
    void (*norm)(struct backend *be, const struct norm_op *n, const float *x, int T, float *y);
    /* out[i].y = x out[i].w^T + out[i].bias for all outputs; x [T, K] */
    void (*matmul)(struct backend *be, const float *x, int T, int K,
                   const struct matmul_out *out, int n_out);
    /* y[t, k] = x[t, perm[k]]; x, y [T, K], not the same memory; perm [K] as bound */
    void (*permute)(struct backend *be, const float *x, const int32_t *perm, int T, int K,
                    float *y);
    /* Rotates pairs (2i, 2i + 1) of the first rope_dim columns of each head by the step's table
     * number `table`; x [T, n_head * D] of the step's tokens */
    void (*rope)(struct backend *be, int table, float *x, int n_head, int D);
    /* Stores the step's k and v [T, Hkv * D] at the sequences' positions */
    void (*kv_write)(struct backend *be, const struct kv_layer *kv, const float *k,
                     const float *v);
    /* out[t, h] = softmax(scores of q[t, h]) V over positions 0 .. of the token, its own
     * included, or the last `window` of them; head h reads KV head h / (H / Hkv); q, out
     * [T, H * D] */
    void (*attention)(struct backend *be, const struct kv_layer *kv, const struct att_op *a,
                      int H, const float *q, float *out);
    /* y = act(g) * u, or act(g) when u is NULL; all [T, K]; y may be g or u */
    void (*act)(struct backend *be, enum act_kind kind, const float *g, const float *u, int T,
                int K, float *y);
    /* y += a x; both [T, K] */
    void (*add)(struct backend *be, float a, const float *x, int T, int K, float *y);
    /* x *= a (a = 0 gives zeros whatever x was); with a cap > 0 then x = cap tanh(x / cap);
     * x [T, K] with row stride ld */
    void (*scale)(struct backend *be, float a, float cap, float *x, size_t ld, int T, int K);
    /* y[i] = x[rows[i]]; x [.., K], y [n, K]; rows ascend, and y may be x; rows [n] host memory
     */
    void (*select)(struct backend *be, const float *x, const int32_t *rows, int n, int K,
                   float *y);
    /* y[rows[i]] += a[i] x[i]; x [n, K], y [.., K]; rows all different, rows and a [n] host
     * memory */
    void (*scatter)(struct backend *be, const float *x, const int32_t *rows, const float *a,
                    int n, int K, float *y);
    /* Turns the keys in blocks [n] of a layer: pairs (2i, 2i + 1) of the first rope_dim columns
     * of each head, by cos and sin [n, rope_dim, 16] with values as in struct step, which are
     * host memory and may change as soon as it returns. Between steps. */
    void (*kv_turn)(struct backend *be, const struct kv_layer *kv, const int32_t *blocks, int n,
                    const float *cos, const float *sin, int rope_dim);

    /* optional: y += x w^T + bias (the residual stream) */
    void (*matmul_add)(struct backend *be, const float *x, int T, int K,
                       const struct matmul_out *out);
    /* optional: y [T, F] = act(x gate^T) * (x up^T), with their biases; gate NULL: act(x up^T).
     * perm of both is the caller's business. */
    void (*ffn)(struct backend *be, enum act_kind kind, const float *x, int T, int K,
                const struct linear *gate, const struct linear *up, float *y);
    /* optional: matmul and ffn of norm(x) [T, K], which may be left in xn, or not */
    void (*norm_matmul)(struct backend *be, const struct norm_op *n, const float *x, int T,
                        int K, float *xn, const struct matmul_out *out, int n_out);
    void (*norm_ffn)(struct backend *be, const struct norm_op *n, enum act_kind kind,
                     const float *x, int T, int K, float *xn, const struct linear *gate,
                     const struct linear *up, float *y);
    /* optional: the step's next attention will be over kv, as far back as the last `window`
     * positions (0: all); it may be read ahead. kv need not outlive the call. */
    void (*expect)(struct backend *be, const struct kv_layer *kv, int window);
    /* optional: rope(q), rope(k), kv_write(k, v) at once; q and k are rotated in place */
    void (*rope_kv)(struct backend *be, int table, const struct kv_layer *kv, int H, float *q,
                    float *k, const float *v);
    /* optional: true: a step like this one (as many tokens, each of a sequence of its own; as
     * many rows) has run before, and runs again with the data of this one: none of its
     * operations is to be called. False: they are, and then step_over(). Operations that wait
     * for the device, or stage data of their own, may not come between the two. */
    bool (*step_again)(struct backend *be);
    void (*step_over)(struct backend *be);
    /* optional: a token of each row of logits [n, n_vocab], which are the backend's memory and
     * changed; what is asked for lies within the limits above. rows [n] may change as soon as
     * it returns; got [n] is filled by finish(). It may be off by the rounding of sums: where a
     * border (of the draw, of top-p) is closer than 2^-17 of the mass to a token's, the
     * neighbour of that token may be taken. */
    void (*sample)(struct backend *be, const struct sample_row *rows, int n, int n_vocab,
                   float *logits, struct sample_got *got);
    /* optional, between steps: moves a bound weight to where the device reads it faster, at
     * most *bytes of it in this call, counted down. True when it is done with this weight,
     * moved or not; until then it is read where it was. The same numbers before and behind. One
     * weight after the other. */
    bool (*settle)(struct backend *be, struct weight *dev, size_t *bytes);
    /* optional, all four or none: host memory that this device, and every other one, copies to
     * and from by itself (NULL: there is none left), and such copies. They are ordered with
     * operations, and nobody waits: what the host reads or writes there has no order. Between
     * steps. */
    void *(*swap_alloc)(struct backend *be, size_t bytes);
    void (*swap_free)(struct backend *be, void *p); /* waits for copies; NULL does no more */
    void (*swap_out)(struct backend *be, void *to, const void *dev, size_t bytes);
    void (*swap_in)(struct backend *be, void *dev, const void *from, size_t bytes);
    /* optional: body(ctx, item, thread) for all items, side by side on the host; thread is
     * below `threads` and no two items have the same one at a time */
    void (*parallel)(struct backend *be, int n_item,
                     void (*body)(void *ctx, int item, int thread), void *ctx);
};

/* The CPU. threads 0: as many as this process may use. The environment variable LLMCHAT_CPU
 * (scalar, avx2, avx512) forces a kernel set; one that this CPU lacks, or an unknown word, is
 * ST_UNSUPPORTED. */
enum status cpu_backend_open(int threads, struct backend **out, struct err *err);

#endif
