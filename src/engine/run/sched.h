/*
 * sched.h - which tokens are computed next.
 *
 * Each step is one batch of all active requests: those that decode bring one token each, those
 * that prefill share what is left of a step's budget (the tokens that take about a tenth of a
 * second, measured; twice that for one alone), so that a cancel is seen and other sessions go
 * on in that time.
 *
 * Requests are ranked: by class (enum priority), in it by their submission. Best first they
 * become active as far as the KV pool has room; one that does not fit lets nobody pass, but may
 * displace those of lower classes. Who has waited for SCHED_AGE_STEPS steps is raised to the
 * highest class and ranks there by its age: so nobody starves. Of the budget a prompt of the
 * highest class gets SCHED_WEIGHT times the share of another.
 *
 * When the pool runs out, cached blocks go first, then those of idle sessions, then the worst
 * active request waits; what nobody took of its blocks by then it finds again, or in the host's
 * memory where the pool is a device's; the rest is computed anew. A single request always fits.
 *
 * Idle requests run while there is nothing else: whoever comes waits for the step that runs.
 * They are never raised. Used by the engine thread only.
 */
#ifndef LLMCHAT_ENGINE_RUN_SCHED_H
#define LLMCHAT_ENGINE_RUN_SCHED_H

#include "engine/run/draft.h"
#include "engine/run/eval.h"
#include "engine/run/graph.h"
#include "engine/run/keep.h"
#include "engine/run/swap.h"
#include "engine/run/task.h"

enum {
    SCHED_MAX_ACTIVE = 256,  /* requests in one batch */
    SCHED_MAX_LOGITS = 256,  /* rows of logits in one batch: what a graph is opened with */
    SCHED_EVAL_LOGITS = 64,  /* of them for an evaluation */
    SCHED_STEP_US = 100000,  /* what a step with prefill may cost while others share it */
    SCHED_ALONE_US = 200000, /* and when only one request waits for it */
    SCHED_MIN_CHUNK = 8,
    SCHED_LOAD_BYTES = 16 << 20, /* of a saved state, or of swapped blocks, between two steps */
    SCHED_FIRST_TOK =
        128, /* the first step's prompt tokens at most: nothing was measured yet */
    SCHED_AGE_STEPS = 64,
    SCHED_WEIGHT = 8,
};

struct sched;

/* All borrowed; draft may be NULL. n_block >= ceil(ctx_tok / KV_BLOCK). */
struct sched *sched_new(struct graph *graph, const struct text_model *text, int n_vocab,
                        int ctx_tok, int n_block, struct draft *draft);
/* What a token of a prompt is thought to cost before any was measured: bounds the first step.
 */
void sched_expect(struct sched *s, double us_per_tok);
void sched_free(struct sched *s); /* ends what runs with FINISH_CANCEL, frees the sessions; NULL
                                     is allowed */

void sched_add_session(struct sched *s, struct session *takes_ss);
void sched_fork(struct sched *s, struct session *dst, const struct session *src);
void sched_free_session(struct sched *s, struct session *ss);

void sched_submit(struct sched *s, struct task *takes_t);
void sched_cancel(struct sched *s, struct session *ss);
/* An evaluation; its owner gets it back through its reply mailbox. */
void sched_evaluate(struct sched *s, struct eval *e);

/* Keeps states of sessions in files (keep.h); pool and graph of p are filled in. Once, at the
 * start. idle_ms: how long a conversation rests before its state is kept. */
void sched_keep(struct sched *s, struct keep_params *p, int idle_ms);
/* Up to max_bytes of host memory for blocks of the pool (swap.h), before the first session. */
void sched_swap(struct sched *s, size_t block_bytes, uint64_t max_bytes);
/* owner 0: its state is not kept. */
void sched_keep_session(struct sched *s, struct session *ss, int64_t owner);
void sched_forget(struct sched *s, int64_t owner);
/* Between two steps, and after sched_wait_ms() when there is none. */
void sched_tend(struct sched *s);
/* How long it may wait without work; -1: for ever. */
int sched_wait_ms(const struct sched *s);

bool sched_has_work(const struct sched *s);
void sched_step(struct sched *s);

/* Lists and blocks agree (for tests). */
bool sched_consistent(const struct sched *s);

#endif
