/*
 * gpu.h - a device as the CUDA backend (cuda.c) sees it: memory, copies, and one function for
 * each kernel. Who implements it:
 *
 *   device.cu  with cudart and cuBLAS. Built as the module llmchat-cuda.so, which the program
 *              opens at run time (module.h), so that one package runs with and without CUDA.
 *   tests/shim the same kernels on the host.
 *
 * A device has one stream: copies and kernels run in the order of the calls, behind the
 * caller's back, until sync(). The first failure is kept in `error`, and everything after it
 * does nothing: who calls looks once a step. One thread uses a device at a time.
 *
 * Matrices are f32, [T, K] with a row stride of weight_pad_k(K), as backend.h says; a `struct
 * weight`, `struct kv_layer` and so on holds device addresses here. Each kernel's formula,
 * layout and bound stand at the kernel.
 */
#ifndef LLMCHAT_ENGINE_CUDA_GPU_H
#define LLMCHAT_ENGINE_CUDA_GPU_H

#ifdef __cplusplus
extern "C" {
#endif

#include "engine/backend.h"

enum {
    GPU_VERSION = 4,   /* of this table: raised when program and module would not agree */
    GPU_GEMV_TOK = 4,  /* most tokens of gemv() */
    GPU_GEMM_TOK = 64, /* most tokens that gemm() and q4gemm() are asked for: above, unpacking a
                          weight and cuBLAS take less time (an H200, weights of 4096 x 4096 and
                          larger); crossover.h finds where that begins on a card */
    GPU_Q4_WORK = 16 << 20, /* floats of workspace of q4gemm(), */
    GPU_Q4_COUNTS = 4096,   /* and numbers */
    GPU_ATT_ROWS = 16,      /* query rows that attention multiplies at once */
    GPU_ATT_MAX_D = 256,    /* largest head */
};

/* The step's sequences in device memory; a token's row is its number. */
struct gpu_step {
    int T, n_seq;
    int max_tok;           /* most tokens of a sequence in this step */
    int max_len;           /* most tokens in a sequence's cache, those of the step included */
    const int32_t *seq;    /* [T] sequence of a token */
    const int32_t *pos;    /* [T] its position in it */
    const int32_t *first;  /* [n_seq + 1] row of a sequence's first token */
    const int32_t *past;   /* [n_seq] tokens in the cache before them */
    const int32_t *table;  /* [n_seq] where its block table begins in blocks */
    const int32_t *blocks; /* all block tables */
    const float *cos[BACKEND_ROPES], *sin[BACKEND_ROPES]; /* [T, rope_dim] */
    int rope_dim;
};

/* Where attention leaves the parts of a row's keys that several blocks computed: o [n, T * H,
 * D], then max and sum [n, T * H, 2]. */
struct gpu_parts {
    float *at;
    int n; /* parts of a row; 1: written to out at once */
};

/* What a product multiplies: x [T, K], or norm(x) where there is one, over whole rows. */
struct gpu_input {
    const float *x;
    int T, K;
    const struct norm_op *norm; /* or NULL */
};

/* A row to sample (struct sample_row). */
struct gpu_sample {
    int32_t first, n_token;        /* its part of the tokens with penalties */
    int32_t top_k;                 /* 0: off */
    float repeat;                  /* penalty */
    float inv_temperature;         /* 0: the best is taken */
    double top_p, log_min_p, unit; /* top_p 1, log_min_p -infinity: off */
};

/* What q4gemm() works in. */
struct gpu_q4_room {
    uint16_t *pairs; /* [GPU_GEMM_TOK, Kp] */
    float *work;     /* [GPU_Q4_WORK] */
    int *count;      /* [GPU_Q4_COUNTS] zeros, before and behind */
};

/* Activations in digits of 8 bits (w8a8.cu); T8: tokens of room, a multiple of 8. */
struct gpu_digits {
    int8_t *q[2];    /* [T8, Kp] first digits, second ones */
    float *scale[2]; /* [Kp/64, T8] their steps, by groups of 64 inputs */
    uint8_t *second; /* [Kp/64, T8/8] whether a group of eight tokens has second digits */
    int T8;
};

struct gpu_info {
    char name[96];
    char pci[32];        /* "0000:0f:00.0" */
    int n_device;        /* how many devices there are, this one and others */
    int major, minor;    /* compute capability */
    int runtime, driver; /* versions of CUDA, as it counts them: 12080 */
    int n_sm;
    size_t block_bytes; /* shared memory that a block may have */
    size_t total_bytes;
};

struct gpu {
    const char *kernels; /* "sm_90", "host shim" */
    struct gpu_info info;
    bool failed;
    char error[256]; /* once failed: what, where */
    void *stream;
    /* A copy, a recording or a sum of NCCL's came last: the next kernel begins behind it.
     * cuBLAS ends with a kernel of its own, which others can wait for. */
    bool copied;

    void (*close)(struct gpu *g);
    /* At a 256-byte border; NULL when there is no room (not a failure). Not zeroed. */
    void *(*alloc)(struct gpu *g, size_t bytes);
    void (*free)(struct gpu *g, void *p); /* NULL is allowed, here and below */
    size_t (*room)(struct gpu *g);        /* bytes that are free now */
    /* Host memory that this device, and every other one, copies from and to without help; NULL:
     * none left */
    void *(*alloc_pinned)(struct gpu *g, size_t bytes);
    void (*free_pinned)(struct gpu *g, void *p);
    /* src or dst of the host is pinned, and stays as it is until sync() */
    void (*upload)(struct gpu *g, void *dev, const void *pinned, size_t bytes);
    void (*download)(struct gpu *g, void *pinned, const void *dev, size_t bytes);
    void (*copy)(struct gpu *g, void *dst, const void *src, size_t bytes);
    void (*zero)(struct gpu *g, void *p, size_t bytes);
    void (*sync)(struct gpu *g);
    /* Microseconds from mark(0) to mark(1) in the stream; waits for the latter. Not while a
     * step is recorded. */
    void (*mark)(struct gpu *g, int end);
    double (*between_us)(struct gpu *g);

    /* Kernels and copies between record() and recorded() do not run: they become a recording,
     * which replay() runs as often as wanted, with what is in memory then. NULL: it failed, see
     * error. */
    void (*record)(struct gpu *g);
    void *(*recorded)(struct gpu *g);
    void (*replay)(struct gpu *g, void *recording);
    void (*free_recording)(struct gpu *g, void *recording);

    /* rows.cu; arguments as in backend.h where not said otherwise */
    void (*embed)(struct gpu *g, const struct weight *w, const int32_t *rows, int T, float *x);
    void (*norm)(struct gpu *g, const struct norm_op *n, const float *x, int T, float *y);
    void (*permute)(struct gpu *g, const float *x, const int32_t *perm, int T, int K, float *y);
    void (*rope)(struct gpu *g, const struct gpu_step *s, int table, float *x, int n_head,
                 int D);
    void (*kv_write)(struct gpu *g, const struct gpu_step *s, const struct kv_layer *kv,
                     const float *k, const float *v);
    void (*rope_kv)(struct gpu *g, const struct gpu_step *s, int table,
                    const struct kv_layer *kv, int H, float *q, float *k, const float *v);
    void (*act)(struct gpu *g, enum act_kind kind, const float *a, const float *u, int T, int K,
                float *y);
    void (*add)(struct gpu *g, float a, const float *x, int T, int K, float *y);
    void (*scale)(struct gpu *g, float a, float cap, float *x, size_t ld, int T, int K);
    /* y[i] = x[rows[i]]; x and y are not the same memory */
    void (*select)(struct gpu *g, const float *x, const int32_t *rows, int n, int K, float *y);
    void (*scatter)(struct gpu *g, const float *x, const int32_t *rows, const float *a, int n,
                    int K, float *y);
    void (*kv_turn)(struct gpu *g, const struct kv_layer *kv, const int32_t *blocks, int n,
                    const float *cos, const float *sin, int rope_dim);

    /* y (+)= x w^T + bias. gemv: T <= GPU_GEMV_TOK, x in f32. gemm: any T, x in bf16 on tensor
     * cores (xb [T, Kp] from to_16; f16 weights: f16). Both for every type of weight but gemm
     * with f32. */
    void (*gemv)(struct gpu *g, const float *x, int T, const struct matmul_out *o, bool add);
    void (*gemm)(struct gpu *g, const uint16_t *xb, int T, const struct matmul_out *o,
                 bool add);
    /* q4gemv.cu: some tokens and weights of 4 bits, each weight read once; false: nothing was
     * done, such tokens, weights or norms are others' business. q4gemv: as matmul. q4ffn: y of
     * up = act(x gate^T + bias) (x up^T + bias). */
    bool (*q4gemv)(struct gpu *g, const struct gpu_input *in, const struct matmul_out *out,
                   int n_out, bool add);
    bool (*q4ffn)(struct gpu *g, enum act_kind kind, const struct gpu_input *in,
                  const struct matmul_out *up, const struct matmul_out *gate);
    /* q4gemm.cu: the same for up to GPU_GEMM_TOK tokens, x in bf16. */
    bool (*q4gemm)(struct gpu *g, const struct gpu_input *in, struct gpu_q4_room room,
                   const struct matmul_out *out, int n_out, bool add);
    /* w8a8.cu: rows of x [T, K] in digits, T <= out.T8; and a product with them, for int8
     * weights with one scale a row (row_scaled), any T. */
    void (*quantise)(struct gpu *g, const float *x, int T, int K, struct gpu_digits out);
    void (*w8a8)(struct gpu *g, struct gpu_digits x, int T, const struct matmul_out *o,
                 bool add);
    /* Rows of x [T, K] to xb [T, Kp]: bf16, or f16 */
    void (*to_16)(struct gpu *g, const float *x, int T, int K, bool f16, uint16_t *xb);
    /* Rows first .. first + n - 1 (multiples of 16) of w to wb [n, Kp]: bf16, or f16 for f16
     * weights */
    void (*unpack)(struct gpu *g, const struct weight *w, int first, int n, uint16_t *wb);
    /* y [T, n] (row stride ldy) (+)= xb [T, Kp] wb [n, Kp]^T, f32 sums: cuBLAS */
    void (*blas)(struct gpu *g, const uint16_t *xb, const uint16_t *wb, bool f16, int T, int n,
                 int Kp, float *y, size_t ldy, bool add);
    /* y[t, i] += bias[i]; y [T, n] with row stride ldy */
    void (*bias)(struct gpu *g, const float *bias, int T, int n, float *y, size_t ldy);

    /* attention.cu; parts.n blocks share a row's keys, and another kernel adds them up */
    void (*attention)(struct gpu *g, const struct gpu_step *s, const struct kv_layer *kv,
                      const struct att_op *a, int H, const float *q, struct gpu_parts parts,
                      float *out);

    /* sample.cu: the tokens of logits [n, n_vocab], which are changed; rows [n], tokens and got
     * [n] in device memory, n_vocab <= BACKEND_SAMPLE_VOCAB */
    void (*sample)(struct gpu *g, const struct gpu_sample *rows,
                   const struct sample_token *tokens, int n, int n_vocab, float *logits,
                   struct sample_got *got);
};

/* The functions of the kernel sources, by file; device.cu and the shim fill the rest. */
void gpu_rows_kernels(struct gpu *g);
void gpu_gemv_kernels(struct gpu *g);
void gpu_q4gemv_kernels(struct gpu *g);
void gpu_q4gemm_kernels(struct gpu *g);
void gpu_gemm_kernels(struct gpu *g);
void gpu_w8a8_kernels(struct gpu *g);
void gpu_attention_kernels(struct gpu *g);
void gpu_sample_kernels(struct gpu *g);
static inline void gpu_kernels(struct gpu *g) {
    gpu_rows_kernels(g);
    gpu_gemv_kernels(g);
    gpu_q4gemv_kernels(g);
    gpu_q4gemm_kernels(g);
    gpu_gemm_kernels(g);
    gpu_w8a8_kernels(g);
    gpu_attention_kernels(g);
    gpu_sample_kernels(g);
}

/* The module's door (the only symbol that llmchat-cuda.so shows): opens device number `index`.
 * NULL: error [256] says why; *none: because there is no such device, else it can't be used.
 * version is the program's GPU_VERSION. */
struct gpu *llmchat_gpu_open(int version, int index, char *error, bool *none);

#ifdef __cplusplus
}
#endif
#endif
