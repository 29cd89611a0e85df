/*
 * shift.h - a timeline that outgrows the context goes on (StreamingLLM, arXiv 2309.17453).
 *
 * A request that streams may be longer than the context. Its beginning stays ("attention
 * sinks": softmax puts on the first tokens what it has no use for, and without them every
 * answer falls apart), and so do its newest tokens; the oldest behind the beginning are left
 * out, a quarter of the context at a time, in whole blocks. What lies behind them moves up:
 * its keys are turned to their new positions, nothing is computed again.
 *
 * The asker always sends the whole text. A session remembers what of its timeline was left out
 * (shift_map); a request that begins with all of that goes on behind it, with the same tokens
 * left out. Any other that does not fit is computed anew: its beginning and its newest tokens.
 * So is a task whose blocks were taken away: its tokens alone are then its timeline, and as
 * good as any other prompt's. One that fits is shown whole.
 *
 * Used by the engine thread only.
 */
#ifndef LLMCHAT_ENGINE_RUN_SHIFT_H
#define LLMCHAT_ENGINE_RUN_SHIFT_H

#include "base/err.h"
#include "engine/run/graph.h"
#include "engine/run/kv.h"

enum {
    SHIFT_MIN_CTX = 4 * KV_BLOCK, /* a quarter of it is a block */
    SHIFT_ANSWER_CTX = 10         /* contexts that an answer without a limit may fill */
};

struct shift_map {  /* in a session; {0}: nothing is left out */
    int sinks;      /* tokens that stay at the beginning */
    int32_t *out;   /* [n_out] those behind them that were left out */
    int n_out, cap; /* n_out 0: the timeline is whole */
};
void shift_release(struct shift_map *m);
void shift_copy(struct shift_map *dst, const struct shift_map *src);

struct session;
struct task;

/* ST_UNSUPPORTED, with the reason, when this model or a context of ctx_tok can't stream. */
enum status shift_check(const struct graph *g, int ctx_tok, struct err *err);

/* Blocks that shift_fit() or shift_on() would copy for others' sake. */
int shift_need(const struct kv_pool *p, const struct task *t);
/* Before t is admitted first: what it is shown of its prompt becomes its timeline, and what its
 * session holds the part of that that is computed. Also for tasks that don't stream. */
void shift_fit(struct kv_pool *p, struct graph *g, struct task *t);
/* The timeline of t has filled the context: leaves out more. */
bool shift_due(const struct task *t);
void shift_on(struct kv_pool *p, struct graph *g, struct task *t);

#endif
