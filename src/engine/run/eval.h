/*
 * eval.h - logits for evaluation: a timeline of its own beside the sessions, with hidden KV
 * blocks.
 *
 * The thread that asks owns the struct, hands it to the engine thread and waits for it in
 * `reply`.
 */
#ifndef LLMCHAT_ENGINE_RUN_EVAL_H
#define LLMCHAT_ENGINE_RUN_EVAL_H

#include "engine/engine.h"
#include "engine/run/kv.h"
#include <stdatomic.h>

struct eval {
    const int32_t *tokens; /* [n_tok] borrowed */
    int n_tok, first;      /* logits of positions first..n_tok-1 */
    float *out;            /* [n_tok - first, n_vocab], or NULL: then each row goes to row() */
    enum status (*row)(void *user, int pos, const float *logits, struct err *err);
    void *user;
    atomic_bool cancel; /* set by the asker to end early with ST_CANCELLED */
    struct mailbox
        *reply; /* gets the struct when st is final; the engine thread holds a reference */
    enum status st;
    struct err err;

    /* The engine thread's. */
    struct kv_seq kv;
    bool running;
    struct eval *next;
};

/* Hands e to the engine thread and waits. wait() is called about ten times a second; false
 * cancels. NULL is allowed. */
enum status engine_evaluate(struct engine *en, struct eval *e, bool (*wait)(void *user),
                            void *user, struct err *err);

#endif
