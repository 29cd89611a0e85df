/*
 * sampler.h - the next token from a row of logits.
 *
 * Steps, in the order that llama.cpp uses by default: logit bias; repetition, presence and
 * frequency penalties over the last repeat_last_n tokens of prompt and answer together; top-k;
 * locally typical; top-p; min-p; temperature; a draw. With temperature 0 the best token after
 * bias and penalties is taken, of equal ones the one with the lowest number. Every step keeps
 * at least one token.
 */
#ifndef LLMCHAT_ENGINE_RUN_SAMPLER_H
#define LLMCHAT_ENGINE_RUN_SAMPLER_H

#include "base/err.h"
#include "engine/backend.h"
#include "engine/engine.h"
#include <stddef.h>
#include <stdint.h>

enum { SAMPLER_MAX_LOGPROBS = 20 };

/* xoshiro256** (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021),
 * its state filled from the seed by SplitMix64, as the authors advise. */
struct rng {
    uint64_t s[4];
};
void rng_seed(struct rng *r, uint64_t seed);
uint64_t rng_next(struct rng *r);
double rng_unit(struct rng *r); /* [0, 1) in steps of 2^-53 */

/* ST_USAGE names the setting, its value and its range. */
enum status sampling_check(const struct sampling *s, struct err *err);

/* Working memory for one draw; shared by all samplers of a thread. */
struct sampler_scratch;
struct sampler_scratch *sampler_scratch_new(int n_vocab);
void sampler_scratch_free(struct sampler_scratch *w); /* NULL is allowed */

/* What one request samples with. */
struct sampler {
    struct sampling set; /* checked; seed is the one in use, never -1 */
    struct rng rng;
    const struct logit_bias *bias; /* [n_bias], borrowed, tokens inside the vocabulary */
    size_t n_bias;
    int n_logprobs;
};
/* Draws the seed when it is -1. */
void sampler_init(struct sampler *s, const struct sampling *set, const struct logit_bias *bias,
                  size_t n_bias, int n_logprobs);

struct sampled {
    int32_t token;
    float logprob; /* natural log of the softmax of the raw logits; 0 when not asked for */
    int n_alt;
    struct {
        int32_t token;
        float logprob;
    } alt[SAMPLER_MAX_LOGPROBS]; /* best first */
};
/* The token of the largest logit [n], the first among equals. */
int32_t sampler_best(const float *logits, int n);
/* Takes the next token. logits [n_vocab] are changed; history [n_history] is prompt and answer
 * so far. A logit that is not a number or +infinity is ST_INTERNAL, and so is a bias that
 * leaves no token. */
enum status sampler_next(struct sampler *s, struct sampler_scratch *w, float *logits,
                         const int32_t *history, size_t n_history, struct sampled *out,
                         struct err *err);

/* ---- where logits stay on a device (backend.h, sample) ---- */

/* Whether a device takes all the steps of s: no bias, nothing typical, no log probabilities. */
bool sampler_can_lend(const struct sampler *s);
/* What the next token is drawn with, but for the draw itself; tokens [room] are filled, and
 * lent to row. False: those with penalties are more. */
bool sampler_lend(const struct sampler *s, struct sampler_scratch *w, const int32_t *history,
                  size_t n_history, struct sample_token *tokens, int room,
                  struct sample_row *row);
/* The number for the draw: the one that sampler_next() would take, so that a seed means the
 * same in both. */
void sampler_lend_draw(struct sampler *s, struct sample_row *row);
/* What came back; errors as of sampler_next(). */
enum status sampler_lent(const struct sample_got *got, struct sampled *out, struct err *err);

#endif
