/*
 * cuda_internal.h - what the files of the CUDA backend share: cuda.c has memory, steps and the
 * table, product.c the products.
 */
#ifndef LLMCHAT_ENGINE_CUDA_CUDA_INTERNAL_H
#define LLMCHAT_ENGINE_CUDA_CUDA_INTERNAL_H

#include "engine/cuda/crossover.h"
#include "engine/cuda/cuda.h"
#include "engine/cuda/gpu.h"

enum {
    CUDA_WORK_BYTES = 64 << 20, /* of unpacked weights */
    RECORD_SEQS = 32,           /* most sequences of a recorded step */
    RECORD_LENGTHS = 31,
};

/* Steps of as many sequences, with caches of about the same length. */
struct recording {
    int seen;
    void *made; /* or NULL */
};

struct chunk {
    char *at;
    size_t bytes, used;
};

struct cuda {
    struct backend be;
    struct gpu *g;
    size_t left_bytes; /* of the device's memory, for others */
    struct backend_limits lim;
    struct {
        struct chunk *v;
        int n;
    } chunks;        /* of weights and other bound data */
    char *bounce[2]; /* pinned, BOUNCE_BYTES each */
    int side;        /* the one to fill next */
    float *code_map; /* of double-quantised scales: the same for all weights; NULL: none yet */

    char *pinned, *twin; /* stage_bytes each: host data of a step, and its copy */
    size_t stage_bytes;
    size_t staged, of_step; /* used; of_step: by what stays as long as the step */
    struct gpu_step step;
    /* where host data of the step is on the device, and how much there is of it */
    struct {
        const int32_t *host, *dev;
        size_t n;
    } known[3];
    struct recording recordings[RECORD_SEQS + 1][RECORD_LENGTHS], *recording;
    int n_logits; /* rows of the step that will be selected */
    struct crossover cross;
    bool bound[CROSSOVER_KINDS];          /* whether there are such weights */
    struct weight trial[CROSSOVER_KINDS]; /* the first to time products with; N = 0: none */

    struct {
        void **p;
        int n;
    } scratch;
    uint16_t *xb[2];          /* [max_tok, Kp] a product's input in bf16, in f16 */
    struct gpu_digits digits; /* and in int8, where a weight is row_scaled */
    uint16_t *work;           /* unpacked rows of a weight */
    struct gpu_q4_room q4;
    float *rows; /* [max_tok, Kp] for select() in place, and for a feed-forward */
    struct gpu_parts parts;
    size_t parts_floats;

    struct sample_got *got, *got_pinned; /* [BACKEND_SAMPLE_ROWS] on the device, and here */
    struct {
        struct sample_got *host; /* the caller's */
        int n;
    } asked[BACKEND_SAMPLE_ROWS]; /* the step's calls of sample(), their rows in order */
    int n_asked, n_sampled;       /* calls, and rows */
};

static inline struct cuda *cuda_of(struct backend *be) {
    return (struct cuda *)(void *)be;
}

/* What the device says of its failure. It does nothing more from then on. */
enum status cuda_failure(const struct gpu *g, struct err *err);
/* The backend's upload() */
void cuda_upload(struct backend *be, void *dev, const void *host, size_t bytes);

/* product.c: functions of the table, as backend.h says; and a weight that was bound, and
 * whether a product of so many tokens may be cuBLAS's. */
void product_note(struct cuda *c, const struct weight *w);
bool product_needs_blas(const struct cuda *c, int T);
void product_matmul(struct backend *be, const float *x, int T, int K,
                    const struct matmul_out *out, int n_out);
void product_norm_matmul(struct backend *be, const struct norm_op *n, const float *x, int T,
                         int K, float *xn, const struct matmul_out *out, int n_out);
void product_matmul_add(struct backend *be, const float *x, int T, int K,
                        const struct matmul_out *out);
void product_ffn(struct backend *be, enum act_kind kind, const float *x, int T, int K,
                 const struct linear *gate, const struct linear *up, float *y);
void product_norm_ffn(struct backend *be, const struct norm_op *n, enum act_kind kind,
                      const float *x, int T, int K, float *xn, const struct linear *gate,
                      const struct linear *up, float *y);

#endif
