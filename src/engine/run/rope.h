/*
 * rope.h - rotary positions: inverse frequencies of every kind of scaling, and a step's tables.
 *
 * The formulas, and their order in f32, are those of PyTorch transformers 5.23
 * (modeling_rope_utils.py): a pair i of a head turns by the f32 product of the position and
 * inv_freq[i]; cos and sin are multiplied by a factor.
 *
 * ROPE_DYNAMIC and ROPE_LONG have frequencies that depend on how long the sequence is. The
 * length is the one that a token's sequence is known to reach when the token is computed, n_seq
 * below: a prompt has the frequencies of its whole length, however it is cut, and a generated
 * token those of its own. As there, keys that are in the cache are not turned again for
 * ROPE_DYNAMIC; for ROPE_LONG the caller computes them again when rope_kind() changes.
 */
#ifndef LLMCHAT_ENGINE_RUN_ROPE_H
#define LLMCHAT_ENGINE_RUN_ROPE_H

#include "engine/model/model.h"

enum rope_table { ROPE_GLOBAL, ROPE_LOCAL }; /* of most layers; of LAYER_LOCAL_ROPE */

struct rope {
    const struct hparams *hp;
    const float *freqs, *freqs_long;  /* of the model, borrowed, or NULL */
    float *inv_freq, *inv_freq_local; /* [rope_dim / 2] */
    float factor;                     /* of cos and sin; local layers have none */
    int n_seq;                        /* the length inv_freq is for, where that matters */
};

void rope_init(struct rope *r, const struct model *m);
void rope_release(struct rope *r);
/* Which of two sets of frequencies, 0 or 1, a sequence that reaches n_seq tokens has. */
int rope_kind(const struct rope *r, int n_seq);
/* Whether sequences that reach a and b tokens have the same frequencies. */
bool rope_same(const struct rope *r, int a, int b);
/* Frequencies for a sequence that reaches n_seq tokens. */
void rope_set_length(struct rope *r, int n_seq);
/* One token: cos [rope_dim] as pairs (cos a, cos a), sin [rope_dim] as pairs (-sin a, sin a).
 */
void rope_fill(const struct rope *r, enum rope_table t, int pos, float *cos, float *sin);
/* Whether a key can be turned from one position to another: not where its angle depends on how
 * long the sequence was. */
bool rope_can_move(const struct rope *r);
/* As rope_fill(), but what turns a key of position `from` into that of position `to`; values
 * are `stride` apart. */
void rope_move(const struct rope *r, enum rope_table t, int from, int to, float *cos,
               float *sin, size_t stride);

#endif
