/*
 * spec.h - speculation: tokens that are guessed, computed together with the last one in a
 * single step, and kept as far as the sampler says the same.
 *
 * Guesses come from the timeline itself (lookup.h: text that repeats or edits what is there) or
 * from a second, smaller model (draft.h). The sampler takes a token at each position from the
 * model's own logits, with the history that is really there, exactly as it would without
 * guesses; a guess is right when it is the token that was taken, and the first wrong one ends
 * the run. So the answer is the same, token by token, for every seed and every setting: nothing
 * here can change its distribution. (It is the rule of Leviathan et al., arXiv 2211.17192, for
 * a proposal that has all its mass on one token: accept with p(x), else draw from p without x.)
 *
 * How many tokens are guessed is decided anew in each step, by what guesses were worth so far
 * and what steps of so many rows cost; often that is none.
 *
 * A step of the scheduler:
 *     spec_plan()      each decoding task gets n_draft guesses and blocks for them
 *     spec_add()       they go into the batch behind the task's last token, each with logits
 *     spec_measured()  what the step cost
 *     spec_right()     for each token that was sampled, in order: go on with the next row?
 * Used by the engine thread only.
 */
#ifndef LLMCHAT_ENGINE_RUN_SPEC_H
#define LLMCHAT_ENGINE_RUN_SPEC_H

#include "engine/run/graph.h"
#include "engine/run/kv.h"
#include "engine/run/lookup.h"

enum {
    SPEC_MAX_DRAFT = 15, /* guesses of a task in one step */
    SPEC_MAX_SEQ = 8,    /* tasks in a step; with more the batch is efficient without guesses */
    SPEC_MAX_ROWS = 64,  /* rows of a step with guesses */
    SPEC_CLASSES = 6,    /* lengths of a match that are told apart */
};

enum spec_source { SPEC_LOOKUP, SPEC_DRAFT };

/* How likely a guess is right, 0..1: running averages. */
struct spec_odds {
    double lookup[SPEC_CLASSES]; /* by the length of the match */
    double draft;
};

struct spec_task { /* in a task; {0} is a new one */
    enum speculation mode;
    struct lookup lookup;
    bool started;          /* odds are set */
    struct spec_odds odds; /* of this answer */
    int32_t found[SPEC_MAX_DRAFT];
    int n_found, len; /* what lookup proposes, used or not, and the length of its match */
    enum spec_source from;
    int32_t draft[SPEC_MAX_DRAFT];
    int n_draft;           /* guesses in this step's batch */
    int n_right;           /* of `found`, in the step that is being read */
    int pause, next_pause; /* steps until the draft model is tried again */
    int drafted, accepted; /* in all */
};
void spec_task_release(struct spec_task *t);

struct task;
struct draft;
struct spec;

/* graph is borrowed; draft too, or NULL: there is no draft model. */
struct spec *spec_new(const struct graph *graph, struct draft *draft);
void spec_free(struct spec *sp); /* NULL is allowed */

/* Guesses for tasks [n] that bring n_more [n] tokens in this step, for which blocks are
 * reserved already. Takes only blocks that nobody else holds or may need in this step. True
 * when all the tasks decode: such a step is told to spec_measured(). */
bool spec_plan(struct spec *sp, struct kv_pool *pool, struct task *const *tasks, int n,
               const int *n_more);
/* Appends the guesses of t to its sequence q of the batch and to tokens, which has room.
 * Returns how many. */
int spec_add(struct task *t, struct batch_seq *q, int32_t *tokens);
/* A step of n_tok rows of decoding tasks, guesses among them, took so long. */
void spec_measured(struct spec *sp, int n_tok, int64_t us);
/* Row i of the task gave this token. True when it was guessed: its KV is in the blocks, and row
 * i + 1 tells the token behind it. */
bool spec_right(struct spec *sp, struct task *t, int i, int32_t token);

#endif
