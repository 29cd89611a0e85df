/*
 * crossover.h - up to how many tokens a product reads the quantised weight itself (q4gemm.cu,
 * gemm.cu: fused), and from how many on it unpacks the weight for cuBLAS, or multiplies in int8
 * (w8a8.cu). Which is faster depends on the card, so it is measured there, once for each kind
 * of weight, and kept in a file.
 *
 * What is kept decides how sums are rounded: with the file a card takes the same kernels for
 * the same batch in every run, and gives the same bits, while measuring anew could move a
 * border, and answers with it, within rounding.
 */
#ifndef LLMCHAT_ENGINE_CUDA_CROSSOVER_H
#define LLMCHAT_ENGINE_CUDA_CROSSOVER_H

#include "base/err.h"
#include "engine/cuda/gpu.h"

enum crossover_kind {
    CROSSOVER_Q4,      /* 4 bits as q4gemm() takes them: no minimums, groups of 32 or 64 */
    CROSSOVER_Q4_MIN,  /* 4 bits with minimums, or groups of 16 */
    CROSSOVER_I8,      /* 8 bits */
    CROSSOVER_I8_ROWS, /* 8 bits with one scale a row: the other way is w8a8() */
    CROSSOVER_16,      /* bf16, f16 */
    CROSSOVER_KINDS,
};
/* Of a weight as bound; not for f32, which has one way only. */
enum crossover_kind crossover_kind(const struct weight *w);

/* Most tokens of the fused kernel, GPU_GEMV_TOK .. GPU_GEMM_TOK; 0: not known. */
struct crossover {
    int tok[CROSSOVER_KINDS];
};
/* Of a kind; GPU_GEMM_TOK where it is not known. */
static inline int crossover_tok(const struct crossover *x, enum crossover_kind kind) {
    return x->tok[kind] ? x->tok[kind] : GPU_GEMM_TOK;
}

/* Where products are timed; each stands for the numbers of tokens since the one before. */
enum { CROSSOVER_POINTS = 6 };
extern const int crossover_points[CROSSOVER_POINTS]; /* ascending; the last: GPU_GEMM_TOK */

/* The border that follows from times at these points: GPU_GEMV_TOK or a point. Whatever the
 * curves do, it is the one with the smallest sum, over the points, of the time of the way that
 * it takes there by the time of the faster one; of equal ones the largest. 0: a time is no
 * positive number. */
int crossover_border(const double fused_us[CROSSOVER_POINTS],
                     const double other_us[CROSSOVER_POINTS]);

/* A product to be timed. run() starts it, one way or the other; what before() starts is not
 * timed. */
struct crossover_trial {
    void (*before)(void *user);
    void (*run)(void *user, int T, bool fused);
    void *user;
};
/* Its border, from the best of a few runs: some 15 ms behind the first run at each point, or
 * one where these take longer. 0: the device failed. */
int crossover_measure(struct gpu *g, const struct crossover_trial *trial);

/* What the file has of this device, with this program, CUDA and driver: other kinds stay as
 * they are. A file that is not there, or can't be read, has nothing; lines that are not whole
 * or make no sense are passed over. */
void crossover_read(const char *path, const struct gpu_info *info, struct crossover *x);
/* Adds what is known to the file, or puts it in the place of what it had of this device;
 * other devices' lines stay. The file is replaced as a whole. Of two programs that write at
 * once one may lose its lines: they are measured again. */
enum status crossover_write(const char *path, const struct gpu_info *info,
                            const struct crossover *x, struct err *err);

#endif
