/*
 * sched_internal.h - the scheduler from inside, shared by sched.c (who may run) and
 * sched_step.c (what is computed). The engine thread's alone.
 */
#ifndef LLMCHAT_ENGINE_RUN_SCHED_INTERNAL_H
#define LLMCHAT_ENGINE_RUN_SCHED_INTERNAL_H

#include "engine/run/sched.h"

/* The token behind what a task brought to a step. */
struct choice {
    struct task *task;
    int n_row;                    /* that are wanted of it */
    float *logits;                /* [n_row, n_vocab], or NULL: it was sampled on the device, */
    const struct sample_got *got; /* where this came from */
    struct sampled next;
    enum status st;
    struct err err;
};

struct sched {
    struct graph *graph;
    const struct text_model *text;
    int n_vocab, ctx_tok;
    struct kv_pool *pool;
    struct keep *keep; /* or NULL */
    struct swap *swap; /* or NULL */
    int64_t rest_us;   /* a conversation rests so long before its state is kept */
    struct session *sessions;
    uint64_t clock;

    struct task *active[SCHED_MAX_ACTIVE];
    int n_active, max_active;
    struct task **waiting; /* [n_waiting] */
    int n_waiting, cap_waiting;
    struct eval *evals;               /* first in, first out; the first may run */
    struct sampler_scratch **scratch; /* [n_scratch] a thread each */
    int n_scratch;
    struct choice *choices; /* [SCHED_MAX_ACTIVE] of a step */
    struct spec *spec;
    struct draft *draft; /* or NULL */
    bool decoding;       /* all tasks of the batch that runs do */

    int max_tok;       /* of the graph */
    int measured_tok;  /* largest batch so far; 0: none */
    int first_tok;     /* largest batch until then */
    double us_per_tok; /* 0: not measured */
    int32_t *tokens;   /* [max_tok] */
    float *logits;     /* [cap_logits, n_vocab] */
    int cap_logits;
    struct {
        struct sample_row *rows;     /* [BACKEND_SAMPLE_ROWS] of a step */
        struct sample_got *got;      /* the same */
        struct sample_token *tokens; /* [BACKEND_SAMPLE_TOKENS] */
    } lend;
    struct batch_seq seqs[SCHED_MAX_ACTIVE];
};

/* sched.c */
/* Sees to n_block blocks that can be taken without disturbing an active task, except's own
 * included. False when there are not so many. */
bool sched_make_room(struct sched *s, int n_block, const struct session *except);
/* Blocks for n_more tokens of t. False when t itself had to go back to waiting. */
bool sched_reserve(struct sched *s, struct task *t, int n_more);
/* Something else than idle tasks is there to do. */
bool sched_others_work(const struct sched *s);
/* Take a task off its list and end it. */
void sched_finish(struct sched *s, struct task *t, enum finish why);
void sched_fail(struct sched *s, struct task *t, const struct err *err);

/* sched_step.c */
/* One batch of the active tasks, of which there is one at least. */
void sched_run_batch(struct sched *s);
/* A chunk of the first evaluation, when there is room for it. */
void sched_eval_step(struct sched *s);
/* Hands the first evaluation back to its owner. */
void sched_eval_end(struct sched *s, enum status st);

#endif
