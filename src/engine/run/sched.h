/*
 * sched.h - which tokens are computed next.
 *
 * Each step is one batch of all active requests: those that decode bring one token each, those
 * that prefill share what a step may cost (about a tenth of a second, measured; twice that for
 * one alone), so that a cancel is seen and other sessions go on in that time. Requests become
 * active in the order of their submission as far as the KV pool has room. When the pool runs
 * out, cached blocks go first, then those of idle sessions, then the newest active request
 * waits and computes its blocks again later. A single request always fits. Used by the engine
 * thread only.
 */
#ifndef LLMCHAT_ENGINE_RUN_SCHED_H
#define LLMCHAT_ENGINE_RUN_SCHED_H

#include "engine/run/draft.h"
#include "engine/run/eval.h"
#include "engine/run/graph.h"
#include "engine/run/task.h"

enum {
    SCHED_MAX_ACTIVE = 64,   /* requests in one batch */
    SCHED_MAX_LOGITS = 64,   /* rows of logits in one batch: what a graph is opened with */
    SCHED_STEP_US = 100000,  /* what a step with prefill may cost while others share it */
    SCHED_ALONE_US = 200000, /* and when only one request waits for it */
    SCHED_MIN_CHUNK = 8,
};

struct sched;

/* All borrowed; draft may be NULL. n_block >= ceil(ctx_tok / KV_BLOCK). */
struct sched *sched_new(struct graph *graph, const struct text_model *text, int n_vocab,
                        int ctx_tok, int n_block, struct draft *draft);
void sched_free(struct sched *s); /* ends what runs with FINISH_CANCEL, frees the sessions; NULL
                                     is allowed */

void sched_add_session(struct sched *s, struct session *takes_ss);
void sched_fork(struct sched *s, struct session *dst, const struct session *src);
void sched_free_session(struct sched *s, struct session *ss);

void sched_submit(struct sched *s, struct task *takes_t);
void sched_cancel(struct sched *s, struct session *ss);
/* An evaluation; its owner gets it back through its reply mailbox. */
void sched_evaluate(struct sched *s, struct eval *e);

bool sched_has_work(const struct sched *s);
void sched_step(struct sched *s);

#endif
