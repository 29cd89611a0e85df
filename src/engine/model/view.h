/*
 * view.h - what of a source's tensor is ours: the rows of queries in a fused matrix, one expert
 * of a stack, a transposed matrix, rows sorted for interleaved RoPE, as a matrix [N, K] of
 * its own.
 */
#ifndef LLMCHAT_ENGINE_MODEL_VIEW_H
#define LLMCHAT_ENGINE_MODEL_VIEW_H

#include "engine/model/source.h"

struct view {
    const struct source_tensor *t;    /* NULL: the source has none, and need not */
    const struct source_tensor *bias; /* or NULL */
    uint64_t N, K;
    unsigned rows; /* as struct place has it */
    int expert;    /* its number in a stack, 0 otherwise */
    bool rotate;   /* rows are sorted from half-split to interleaved pairs */
    bool plus_one;
    bool vector; /* a norm or a vector: N = 1, bias [K] */
    const struct hparams *hp;
    float *whole; /* transposed: [N, K], made at the first use */
    const struct source_tensor *
        *heads; /* [K / head_dim], of a norm in a tensor for each head */
};

/* ST_FORMAT: a tensor that must be there is missing, or has another shape than the
 * architecture says. */
enum status view_find(struct source *s, const struct arch_slot *slot, struct view *out,
                      struct err *err);
void view_release(struct view *v);

/* Whether codes are there to be kept as they are. */
bool view_has_codes(const struct view *v);
/* Rows first .. first + n - 1, n <= SOURCE_ROWS: out [n, K]. */
void view_rows(struct view *v, uint64_t first, int n, float *out);
/* As struct tensor_format's codes(). */
void view_codes(const struct view *v, uint64_t first, int n, uint8_t *code, float *scale,
                float *min);
/* All of a vector or a norm's gain: out [K]. */
void view_vector(const struct view *v, float *out);
void view_bias(const struct view *v, float *out); /* out [N], of a norm [K] */

#endif
