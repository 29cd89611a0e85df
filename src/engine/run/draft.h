/*
 * draft.h - a second, smaller model that guesses for the first.
 *
 * It has a graph and KV blocks of its own, as many as the first model's, in the same engine
 * thread. Its KV follows the timelines of the tasks that ask: what a timeline has that its KV
 * lacks is computed when guesses are wanted, a bounded number of tokens a step, so that a long
 * prompt holds nobody up. It guesses greedily, for all tasks of a step together.
 */
#ifndef LLMCHAT_ENGINE_RUN_DRAFT_H
#define LLMCHAT_ENGINE_RUN_DRAFT_H

#include "engine/run/graph.h"
#include "engine/run/spec.h"

struct draft;
struct task;

/* ST_UNSUPPORTED, with the first token that differs, when the draft model has another
 * vocabulary than the first one. Padding at the end of the longer one may differ. */
enum status draft_check(const struct model *draft, const struct model *first, struct err *err);
/* Both are borrowed; the graph has n_block blocks and room for SPEC_MAX_SEQ rows of logits. */
struct draft *draft_new(const struct model *m, struct graph *graph, int n_block,
                        int n_vocab_first);
void draft_free(struct draft *d); /* NULL is allowed */

/* Guesses want[i] tokens for tasks[i], i < n <= SPEC_MAX_SEQ, where want[i] > 0: fills their
 * spec.draft and spec.n_draft with as many as could be made, often none. Returns the rounds of
 * the model that were run for guesses, 0 when time went into catching up; *us is the time. A
 * step that fails guesses nothing. */
int draft_guess(struct draft *d, struct task *const *tasks, const int *want, int n,
                int64_t *us);
/* The session goes. */
void draft_forget(struct draft *d, const struct session *ss);
/* For tests: kv_consistent() of all its sequences. */
bool draft_consistent(const struct draft *d);

#endif
