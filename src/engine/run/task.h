/*
 * task.h - a request in flight, and the session that it belongs to.
 *
 * A task is made by the thread that asks (task_new checks and copies everything) and belongs to
 * the engine thread from its submission to task_finish() or task_fail(), which send the last
 * event and free it.
 */
#ifndef LLMCHAT_ENGINE_RUN_TASK_H
#define LLMCHAT_ENGINE_RUN_TASK_H

#include "engine/engine.h"
#include "engine/run/kv.h"
#include "engine/run/sampler.h"
#include "engine/run/shift.h"
#include "engine/run/spec.h"
#include "engine/text/stream.h"
#include <stdatomic.h>

struct session {
    struct engine *engine;
    atomic_bool busy;      /* a task exists; set by the asker, cleared by the engine thread */
    atomic_int cached_tok; /* kv.n_tok for other threads */
    /* The rest is the engine thread's. */
    struct session *prev, *next;
    struct kv_seq kv;
    struct shift_map map; /* what of its text is not in kv's timeline */
    struct task *task;
    uint64_t used;    /* when it last ran, in the scheduler's count */
    int64_t owner;    /* whose state is kept; 0: nobody's */
    int said_tok;     /* see session_said(); more than kv.n_tok when kv was cut since */
    int kept_tok;     /* tokens when it was handed to the keeper last */
    int64_t ended_us; /* when its last request ended */
};

struct task {
    struct session *session;
    struct mailbox *events; /* a reference */
    uint64_t request_id;
    uint64_t serial;        /* order of submission */
    enum priority priority; /* rises while it waits */
    int waited;             /* steps that it spent waiting */
    atomic_int *queue;      /* the count of those that wait for their first step; NULL when this
                               is not one of them */
    bool active;            /* admitted: its session's blocks are not taken away */

    int32_t *tokens; /* [n_tok] prompt and answer, owned; room for cap_tok */
    int n_tok, n_prompt, cap_tok;
    int last_tok; /* n_tok at which the answer ends for want of context or by max_tok */
    int ctx_tok;  /* n_tok is never more */
    bool streams; /* tokens are left out instead (shift.h) */
    bool fitted;  /* its prompt was: n_prompt are those that it is shown */
    int keep_tok; /* that stay at the beginning, about */
    int n_gone;   /* left out since the answer began */
    bool hidden, ignore_eos, special_text;
    struct logit_bias *bias; /* owned */
    struct sampler sampler;
    struct stream stream;
    struct buf bytes; /* of one token */
    struct spec_task spec;

    bool started;           /* was admitted once; the fields below are set */
    int cached_tok, n_told; /* kept at the first admission; prompt tokens told by PREFILL */
    int64_t asked_us, started_us, prompt_done_us, first_us, last_us;
};

/* What a task must fit. */
struct task_limits {
    int n_vocab, ctx_tok;
};

/* Checks and copies a request. Errors as for session_generate(). */
enum status task_new(const struct request *r, const struct task_limits *lim, struct task **out,
                     struct err *err);
/* Frees a task that was never submitted, without a word. */
void task_free(struct task *t);

/* Tokens in the session's KV that a request brought which was no guess. What an idle one
 * computed is a draft's: it may be taken back, and must not be found on a disk then. */
int session_said(const struct session *ss);
/* The session's KV has changed for t. */
void task_note_said(const struct task *t);
/* It will be made to fit t: what t says otherwise is not said any more. */
void task_unsay(const struct task *t);

/* Its first step has come, or it ended without. */
void task_leave_queue(struct task *t);
/* Tokens whose KV is missing: 1 while it decodes, more while it prefills. */
int task_todo(const struct task *t);
/* The session's KV has grown up to kv.n_tok: sends PREFILL while the prompt is not done. */
void task_prefilled(struct task *t);
/* Takes the next token of the answer. True when the task goes on; false when it has ended (*why
 * says how). */
bool task_token(struct task *t, const struct sampled *s, const struct text_model *text,
                enum finish *why);
/* Sends what was held back and FINISHED; frees t. The session is free for the next request when
 * the event arrives. */
void task_finish(struct task *t, enum finish why);
void task_fail(struct task *t, const struct err *err);

#endif
