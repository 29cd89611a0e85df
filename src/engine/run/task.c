/*
 * task.c - see task.h.
 *
 * `tokens` is the timeline as it should be, the session's kv the part of it that is computed;
 * the difference is what is to do. So a task whose blocks were taken away, or a prompt that a
 * fork has already computed, needs no state of its own: it simply has more or less to do.
 *
 * An end-of-generation token is not part of the answer: it is neither counted nor sent. Of a
 * stop string the token that completes it is counted, its text up to the stop string is sent.
 */
#include "engine/run/task.h"

#include "base/clock.h"
#include "base/mem.h"
#include "engine/run/event.h"
#include "engine/text.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STOPS = 256, MAX_BIAS = 1 << 20, MAX_PROMPT = 1 << 28 };

static enum status check(const struct request *r, const struct task_limits *lim,
                         struct err *err) {
    if (r->n_tok == 0 || !r->tokens)
        return err_set(err, ST_USAGE, "the prompt is empty");
    if (r->stream && r->n_tok > MAX_PROMPT)
        return err_set(err, ST_LIMIT, "the prompt has %zu tokens, at most %d are possible",
                       r->n_tok, MAX_PROMPT);
    if (r->stream && r->keep_tok < 0)
        return err_set(err, ST_USAGE, "%d tokens to keep, wanted 0 or more", r->keep_tok);
    if (r->n_tok >= (size_t)lim->ctx_tok && !r->stream)
        return err_set(err, ST_CONTEXT_FULL,
                       "the prompt has %zu tokens, the context %d: no room for an answer",
                       r->n_tok, lim->ctx_tok);
    for (size_t i = 0; i < r->n_tok; i++)
        if (r->tokens[i] < 0 || r->tokens[i] >= lim->n_vocab)
            return err_set(err, ST_USAGE,
                           "token %zu of the prompt is %d, the vocabulary has %d", i,
                           r->tokens[i], lim->n_vocab);
    if (r->priority < PRIORITY_IDLE || r->priority > PRIORITY_INTERACTIVE)
        return err_set(err, ST_USAGE, "a priority of %d, wanted %d to %d", (int)r->priority,
                       PRIORITY_IDLE, PRIORITY_INTERACTIVE);
    CHECK(sampling_check(&r->sampling, err));
    if (r->max_tok < -1)
        return err_set(err, ST_USAGE, "max_tokens is %d, wanted -1 (no limit) or more",
                       r->max_tok);
    if (r->n_logprobs < 0 || r->n_logprobs > SAMPLER_MAX_LOGPROBS)
        return err_set(err, ST_USAGE, "%d log probabilities asked for, wanted 0 to %d",
                       r->n_logprobs, SAMPLER_MAX_LOGPROBS);
    if (r->n_stop > MAX_STOPS)
        return err_set(err, ST_USAGE, "%zu stop strings, at most %d are possible", r->n_stop,
                       MAX_STOPS);
    if (r->n_bias > MAX_BIAS)
        return err_set(err, ST_USAGE, "%zu logit biases, at most %d are possible", r->n_bias,
                       MAX_BIAS);
    for (size_t i = 0; i < r->n_bias; i++) {
        if (r->bias[i].token < 0 || r->bias[i].token >= lim->n_vocab)
            return err_set(err, ST_USAGE, "logit bias for token %d, the vocabulary has %d",
                           r->bias[i].token, lim->n_vocab);
        if (!(r->bias[i].bias < INFINITY))
            return err_set(err, ST_USAGE,
                           "logit bias of token %d is %f, wanted a number or -infinity",
                           r->bias[i].token, (double)r->bias[i].bias);
    }
    return ST_OK;
}

static int ctx_of(const struct request *r, const struct task_limits *lim) {
    bool less = r->stream && r->stream_ctx > 0 && r->stream_ctx < lim->ctx_tok;
    return less ? r->stream_ctx : lim->ctx_tok;
}

/* The length of the timeline, with all of the prompt, at which the answer ends. */
static int last_tok(const struct request *r, const struct task_limits *lim) {
    int n = (int)r->n_tok, most = lim->ctx_tok - n;
    if (r->stream) { /* 2^28 and 2^30 at most: the sum fits */
        most = 1 << 30;
        int ctx = ctx_of(r, lim);
        if (r->max_tok < 0 && ctx < most / SHIFT_ANSWER_CTX)
            most = ctx * SHIFT_ANSWER_CTX;
    }
    return n + (r->max_tok >= 0 && r->max_tok < most ? r->max_tok : most);
}

enum status task_new(const struct request *r, const struct task_limits *lim, struct task **out,
                     struct err *err) {
    CHECK(check(r, lim, err));
    struct task *t = xcalloc(1, sizeof *t);
    t->asked_us = clock_us();
    t->n_tok = t->n_prompt = (int)r->n_tok;
    t->ctx_tok = ctx_of(r, lim);
    t->streams = r->stream;
    t->keep_tok = r->keep_tok;
    t->last_tok = last_tok(r, lim);
    t->cap_tok = t->n_tok + 64;
    t->tokens = xreallocarray(NULL, (size_t)t->cap_tok, sizeof *t->tokens);
    memcpy(t->tokens, r->tokens, r->n_tok * sizeof *t->tokens);
    t->priority = r->priority;
    t->hidden = r->hidden;
    t->ignore_eos = r->ignore_eos;
    t->special_text = r->special_text;
    t->spec.mode = r->speculation;
    if (r->n_bias) {
        t->bias = xreallocarray(NULL, r->n_bias, sizeof *t->bias);
        memcpy(t->bias, r->bias, r->n_bias * sizeof *t->bias);
    }
    sampler_init(&t->sampler, &r->sampling, t->bias, r->n_bias, r->n_logprobs);
    stream_init(&t->stream, r->stop, r->n_stop);
    *out = t;
    return ST_OK;
}

void task_free(struct task *t) {
    if (!t)
        return;
    stream_release(&t->stream);
    spec_task_release(&t->spec);
    buf_release(&t->bytes);
    mailbox_unref(t->events);
    free(t->bias);
    free(t->tokens);
    free(t);
}

void task_leave_queue(struct task *t) {
    if (t->queue)
        atomic_fetch_sub(t->queue, 1);
    t->queue = NULL;
}

int session_said(const struct session *ss) {
    return ss->said_tok < ss->kv.n_tok ? ss->said_tok : ss->kv.n_tok;
}

void task_note_said(const struct task *t) {
    struct session *ss = t->session;
    ss->said_tok = t->priority == PRIORITY_IDLE ? session_said(ss) : ss->kv.n_tok;
}

void task_unsay(const struct task *t) {
    struct session *ss = t->session;
    ss->said_tok = kv_common(ss->kv.tokens, session_said(ss), t->tokens, t->n_tok);
}

int task_todo(const struct task *t) {
    return t->n_tok - t->session->kv.n_tok;
}

static struct event *make_event(const struct task *t, enum event_type type) {
    struct event *e = event_new(type, t->request_id);
    e->dropped_tok = t->fitted ? t->session->map.n_out : 0;
    return e;
}

void task_prefilled(struct task *t) {
    int done = t->session->kv.n_tok;
    if (t->n_told >= t->n_prompt)
        return;
    if (done >= t->n_prompt) {
        done = t->n_prompt;
        t->prompt_done_us = clock_us();
    }
    if (done <= t->n_told) /* computed again after its blocks were taken away */
        return;
    t->n_told = done;
    struct event *e = make_event(t, EVENT_PREFILL);
    e->n_done = done;
    e->n_total = t->n_prompt;
    mailbox_put(t->events, e);
}

/* Who waits is woken at the end of the step, or by the last event. */
static void send_token(struct task *t, const struct sampled *s, struct buf *text) {
    struct event *e = make_event(t, EVENT_TOKEN);
    if (text->len) {
        free(e->text);
        e->text = buf_take(text);
    }
    e->held = stream_holds(&t->stream);
    if (s) {
        e->token = s->token;
        e->logprob = s->logprob;
        e->n_alt = s->n_alt;
        if (s->n_alt)
            e->alt = xcalloc((size_t)s->n_alt, sizeof *e->alt);
        for (int i = 0; i < s->n_alt; i++) {
            e->alt[i].token = s->alt[i].token;
            e->alt[i].logprob = s->alt[i].logprob;
        }
    }
    mailbox_add(t->events, e);
}

bool task_token(struct task *t, const struct sampled *s, const struct text_model *text,
                enum finish *why) {
    *why = FINISH_STOP;
    if (!t->ignore_eos && text_is_eog(text, s->token))
        return false;
    if (t->n_tok == t->cap_tok) {
        t->cap_tok *= 2;
        t->tokens = xreallocarray(t->tokens, (size_t)t->cap_tok, sizeof *t->tokens);
    }
    t->tokens[t->n_tok++] = s->token;
    t->last_us = clock_us();
    if (!t->first_us)
        t->first_us = t->last_us;

    struct buf shown = {0};
    buf_clear(&t->bytes);
    text_decode(text, s->token, t->special_text, &t->bytes);
    bool stopped = stream_push(&t->stream, buf_str(&t->bytes), t->bytes.len, &shown);
    send_token(t, s, &shown);
    buf_release(&shown);
    if (stopped)
        return false;
    *why = FINISH_LENGTH;
    return t->n_tok < t->last_tok;
}

/* The last event. The session is given free before it is sent: who reads it may ask again at
 * once. An idle task never had the session to itself. */
static void end(struct task *t, struct event *last) {
    struct session *s = t->session;
    s->task = NULL;
    atomic_store(&s->cached_tok, s->kv.n_tok);
    if (t->priority != PRIORITY_IDLE)
        atomic_store(&s->busy, false);
    task_leave_queue(t);
    mailbox_put(t->events, last);
    task_free(t);
}

void task_finish(struct task *t, enum finish why) {
    struct buf held = {0};
    stream_flush(&t->stream, &held);
    if (held.len)
        send_token(t, NULL, &held);
    buf_release(&held);

    struct event *e = make_event(t, EVENT_FINISHED);
    e->finish = why;
    e->n_done = t->n_told;
    e->n_total = t->n_prompt;
    e->prompt_tok = t->n_prompt;
    e->cached_tok = t->cached_tok;
    e->completion_tok = t->n_tok + t->n_gone - t->n_prompt;
    if (t->prompt_done_us)
        e->prompt_us = t->prompt_done_us - t->started_us;
    if (t->first_us) {
        e->decode_us = t->last_us - t->first_us;
        e->ttft_us = t->first_us - t->asked_us;
    }
    e->seed = t->sampler.set.seed;
    e->drafted_tok = t->spec.drafted;
    e->accepted_tok = t->spec.accepted;
    end(t, e);
}

void task_fail(struct task *t, const struct err *err) {
    struct event *e = event_new(EVENT_ERROR, t->request_id);
    e->finish = FINISH_ERROR;
    e->err = *err;
    end(t, e);
}
