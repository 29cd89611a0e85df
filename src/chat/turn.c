/*
 * turn.c - a reply: its prompt, its row, its tokens, its saves and its end.
 *
 * The row is in the store before the engine is asked. Text grows in turn.text, which the last
 * message of the branch points into while it streams (no copy a token), and is saved when 150
 * ms have passed since the last save: together with a caller that polls every 250 ms nothing
 * older than that is ever only in memory.
 *
 * A save that fails is told once, tried again every second, and the text stays in memory. A
 * reply that has ended and could not be saved waits in the list `unsaved`, so the next turn
 * need not wait for the disk.
 *
 * Events carry the number of their request; what comes late from a request that was given up is
 * dropped.
 */
#include "base/clock.h"
#include "base/path.h"
#include "chat/chat_internal.h"

#include <stdlib.h>
#include <string.h>

enum { SAVE_US = 150000, RETRY_US = 1000000, STOP_MS = 10000 };

void turn_clear(struct chat *c) {
    chat_detach_tail(c);
    if (c->turn.kind == TURN_SUMMARY)
        session_free(c->turn.session);
    buf_release(&c->turn.text);
    memset(&c->turn, 0, sizeof c->turn);
}

enum status turn_request(struct chat *c, const struct request *r, struct session *session,
                         struct err *err) {
    draft_end(c);
    c->turn.request = ++c->last_request;
    c->turn.start_us = c->turn.saved_us = clock_us();
    c->turn.limit_tok = r->max_tok;
    CHECK(session_generate(session, r, c->turn.request, c->box, err));
    c->turn.session = session;
    return ST_OK;
}

/* -- starting -- */

/* Nothing more can be left out: the visible part has only one question. */
static bool nothing_to_drop(const struct chat *c) {
    int summary;
    for (size_t i = context_start(c, &summary) + 1; i < c->msgs.n; i++)
        if (c->msgs.v[i].role == ROLE_USER)
            return false;
    return true;
}

static enum status full(struct chat *c, size_t n_tok, enum overflow overflow, struct err *err) {
    struct err why;
    if (overflow == OVERFLOW_STREAM && chat_can_stream(c, &why) != ST_OK) {
        c->full = c->full_reply = true;
        return err_set(err, ST_CONTEXT_FULL, "the conversation has %zu tokens, and %s", n_tok,
                       why.msg);
    }
    if (overflow == OVERFLOW_ASK) {
        c->full = c->full_reply = true;
        return err_set(err, ST_CONTEXT_FULL,
                       "the conversation has %zu tokens; the context holds %d, of which %d are "
                       "kept for the answer",
                       n_tok, context_size(c), context_reserve(c));
    }
    return err_set(
        err, ST_LIMIT,
        "the conversation has %zu tokens; the context holds %d, of which %d are kept "
        "for the answer: start a new one, raise ctx, or set context_full",
        n_tok, context_size(c), context_reserve(c));
}

static enum status add_row(struct chat *c, struct err *err) {
    int64_t id;
    char *settings = settings_to_json(&c->settings);
    struct message m = {.parent = c->leaf,
                        .role = ROLE_ASSISTANT,
                        .state = MSG_STREAMING,
                        .model = (char *)path_base(c->model), /* not where it lies */
                        .settings_json = settings,
                        .seed = c->settings.sampling.seed};
    enum status st = store_msg_add(c->store, c->id, &m, &id, err);
    free(settings);
    CHECK(st);
    c->turn.msg = id;
    return chat_read_branch(c, id, err);
}

/* Keeps the row of a reply that could not even begin. */
static void fail_row(struct chat *c) {
    struct message m = {.state = MSG_FAILED, .finish = (char[]){"error"}};
    struct err ignored; /* the first error is the one to tell; recovery mends the row */
    if (c->turn.msg)
        store_msg_finish(c->store, c->turn.msg, &m, &ignored);
    turn_clear(c);
    chat_read_branch(c, c->leaf, &ignored);
}

void turn_stream(struct chat *c, const struct tok_list *prompt, struct request *r) {
    r->stream = context_streams(c);
    if (!r->stream)
        return;
    r->stream_ctx = context_size(c);
    r->keep_tok = context_head_tok(c, prompt);
}

static enum status ask_engine(struct chat *c, const struct tok_list *t, struct err *err) {
    const struct settings *s = &c->settings;
    int room = context_size(c) - (int)t->n;
    struct request r = {.tokens = t->v,
                        .n_tok = t->n,
                        .priority = PRIORITY_INTERACTIVE,
                        .sampling = s->sampling,
                        .max_tok =
                            s->max_tokens > 0 && s->max_tokens < room ? s->max_tokens : room,
                        .stop = (const char *const *)s->stop.v,
                        .n_stop = s->stop.n,
                        .speculation = (enum speculation)s->speculation};
    turn_stream(c, t, &r);
    if (r.stream)
        r.max_tok = s->max_tokens > 0 ? s->max_tokens : -1;
    c->turn = (struct turn){.kind = TURN_REPLY, .prompt_tok = (int)t->n};
    if (r.stream && (int)t->n > context_size(c))
        c->turn.left_out = (int)t->n - context_size(c); /* at least, until the engine says */
    c->turn.limited_by_ctx = !r.stream && (s->max_tokens <= 0 || s->max_tokens > room);
    turn_forget_rates(c);
    enum status st = add_row(c, err);
    if (st == ST_OK)
        st = turn_request(c, &r, session_of(c, c->id), err);
    if (st != ST_OK)
        fail_row(c);
    return st;
}

void turn_forget_rates(struct chat *c) {
    c->decode_tok_s = c->prefill_tok_s = 0;
    c->reused_tok = 0;
}

enum status turn_start(struct chat *c, enum overflow overflow, struct err *err) {
    struct tok_list t = {0};
    int summary;
    enum status st = ST_OK;
    if (!c->engine)
        return err_set(err, ST_NOT_FOUND, "no model is loaded; the message is kept");
    size_t limit = (size_t)(context_size(c) - context_reserve(c));
    TRY(context_tokens(c, context_start(c, &summary), c->msgs.n, NULL, &t, err));
    if (t.n > limit && nothing_to_drop(c) && summary < 0) {
        st = context_too_long(c, t.n, err);
    } else if (t.n > limit && context_streams(c)) {
        st = ST_OK; /* the engine leaves out what is too much */
    } else if (t.n > limit && overflow == OVERFLOW_SUMMARISE) {
        st = summary_start(c, true, err);
        goto out;
    } else if (t.n > limit && overflow == OVERFLOW_DROP) {
        TRY(context_drop(c, err));
        t.n = 0;
        TRY(context_tokens(c, context_start(c, &summary), c->msgs.n, NULL, &t, err));
        if (t.n > limit)
            st = context_too_long(c, t.n, err);
    } else if (t.n > limit) {
        st = full(c, t.n, overflow, err);
    }
    if (st == ST_OK)
        st = ask_engine(c, &t, err);
out:
    tok_list_release(&t);
    return st;
}

/* -- saving -- */

static void save_failed(struct chat *c, const struct err *err) {
    if (!c->retry_us)
        chat_queue(c, EV_STORE_FAILED, NULL, 0, 0, err, NULL);
    c->retry_us = clock_us() + RETRY_US;
}

static void save_streaming(struct chat *c, bool now) {
    struct turn *t = &c->turn;
    struct err err;
    if (t->kind != TURN_REPLY || t->text.len == t->saved_len)
        return;
    if (!now && clock_us() - t->saved_us < SAVE_US)
        return;
    if (store_msg_text(c->store, t->msg, t->text.p, t->text.len, &err) != ST_OK) {
        save_failed(c, &err);
        return;
    }
    c->retry_us = 0;
    t->saved_len = t->text.len;
    t->saved_us = clock_us();
}

static void save_ended(struct chat *c) {
    while (c->unsaved) {
        struct unsaved *u = c->unsaved;
        struct err err;
        enum status st = store_msg_finish(c->store, u->m.id, &u->m, &err);
        if (st != ST_OK && st != ST_NOT_FOUND) { /* not found: deleted by someone meanwhile */
            save_failed(c, &err);
            return;
        }
        c->retry_us = 0;
        c->unsaved = u->next;
        message_release(&u->m);
        free(u);
    }
}

void turn_save(struct chat *c, bool now) {
    if (!now && c->retry_us && clock_us() < c->retry_us)
        return;
    save_ended(c);
    if (!c->unsaved)
        save_streaming(c, now);
}

/* -- ending -- */

static void copy_figures(struct message *m, const struct event *e) {
    m->seed = e->seed;
    m->prompt_tok = e->prompt_tok;
    m->cached_tok = e->cached_tok;
    m->completion_tok = e->completion_tok;
    m->prompt_us = e->prompt_us;
    m->decode_us = e->decode_us;
    m->ttft_us = e->ttft_us;
}

/* The reply's text and figures go to the store, or into the list of those that must still go
 * there. */
static void end_reply(struct chat *c, enum msg_state state, const char *finish,
                      const struct event *e) {
    struct turn *t = &c->turn;
    struct unsaved *u = xcalloc(1, sizeof *u), **p = &c->unsaved;
    u->m = (struct message){.id = t->msg,
                            .text = xstrdup(buf_str(&t->text)),
                            .state = state,
                            .finish = xstrdup(finish),
                            .seed = c->settings.sampling.seed};
    if (e)
        copy_figures(&u->m, e);
    int at = chat_index(c, t->msg);
    chat_detach_tail(c);
    if (at >= 0) {
        struct message *shown = &c->msgs.v[at];
        shown->state = state;
        free(shown->finish);
        shown->finish = xstrdup(finish);
        if (e)
            copy_figures(shown, e);
    }
    while (*p)
        p = &(*p)->next;
    *p = u;
    save_ended(c);
}

static void keep_rates(struct chat *c, const struct event *e) {
    int computed = e->prompt_tok - e->cached_tok;
    c->decode_tok_s = e->decode_us > 0 && e->completion_tok > 1
                          ? (e->completion_tok - 1) * 1e6 / (double)e->decode_us
                          : 0;
    c->prefill_tok_s =
        e->prompt_us > 0 && computed > 0 ? computed * 1e6 / (double)e->prompt_us : 0;
    c->reused_tok = e->cached_tok;
}

static void reply_finished(struct chat *c, struct event *takes_e) {
    static const enum msg_state states[] = {[FINISH_STOP] = MSG_COMPLETE,
                                            [FINISH_LENGTH] = MSG_COMPLETE,
                                            [FINISH_CANCEL] = MSG_STOPPED,
                                            [FINISH_ERROR] = MSG_FAILED};
    bool filled = takes_e->finish == FINISH_LENGTH && c->turn.limited_by_ctx;
    keep_rates(c, takes_e);
    end_reply(c, states[takes_e->finish], finish_name(takes_e->finish), takes_e);
    *c->count = (struct context_count){.valid = true,
                                       .used = c->turn.prompt_tok + takes_e->completion_tok -
                                               takes_e->dropped_tok,
                                       .left_out = takes_e->dropped_tok};
    turn_clear(c);
    chat_queue(c, EV_DONE, NULL, 0, 0, NULL, takes_e);
    if (filled) {
        c->full = true;
        c->full_reply = false;
        c->full_old_leaf = 0;
        chat_queue(c, EV_CONTEXT_FULL, NULL, 0, 0, NULL, NULL);
    }
    loader_adopt(c);
}

static void reply_failed(struct chat *c, const struct event *e) {
    if (c->turn.kind == TURN_REPLY)
        end_reply(c, MSG_FAILED, "error", NULL);
    turn_clear(c);
    summary_release(c);
    context_forget_count(c);
    chat_queue(c, EV_FAILED, NULL, 0, 0, &e->err, NULL);
    loader_adopt(c);
}

/* -- events -- */

static void token(struct chat *c, const struct event *e) {
    struct turn *t = &c->turn;
    if (e->token >= 0)
        t->n_tok++;
    if (!t->first_us)
        t->first_us = clock_us();
    buf_adds(&t->text, e->text);
    if (t->kind != TURN_REPLY)
        return;
    chat_attach_tail(c); /* the buffer may have moved */
    if (*e->text)
        chat_queue(c, EV_TEXT, e->text, 0, 0, NULL, NULL);
    if (c->want_tokens) {
        chat_queue(c, EV_TOKEN, e->text, 0, 0, NULL, NULL);
        c->queue_last->ev.token = e->token;
        c->queue_last->ev.held = e->held;
    }
    turn_save(c, false);
}

void turn_event(struct chat *c, struct event *takes_e) {
    struct event *e = takes_e;
    if (c->turn.kind == TURN_NONE || e->request_id != c->turn.request) {
        event_free(e);
        return;
    }
    if (e->type == EVENT_FINISHED) {
        if (c->turn.kind == TURN_SUMMARY)
            summary_round_done(c, e);
        else
            reply_finished(c, e);
        return;
    }
    c->turn.left_out = e->dropped_tok;
    if (e->type == EVENT_TOKEN)
        token(c, e);
    else if (e->type == EVENT_PREFILL)
        chat_queue(c, EV_PREFILL, NULL, (uint64_t)e->n_done, (uint64_t)e->n_total, NULL, NULL);
    else
        reply_failed(c, e);
    event_free(e);
}

void chat_stop(struct chat *c) {
    c->summary.then_reply = false;
    if (c->turn.kind != TURN_NONE)
        session_cancel(c->turn.session);
}

void turn_stop_and_wait(struct chat *c) {
    int64_t until = clock_us() + STOP_MS * 1000LL;
    while (c->turn.kind != TURN_NONE) {
        chat_stop(c);
        int64_t left_ms = (until - clock_us()) / 1000;
        void *msg = left_ms > 0 ? mailbox_wait(c->box, (int)left_ms) : NULL;
        if (msg) {
            chat_message(c, msg);
        } else { /* the engine does not answer: keep what came */
            if (c->turn.kind == TURN_REPLY)
                end_reply(c, MSG_STOPPED, "cancel", NULL);
            turn_clear(c);
        }
    }
}

bool chat_unsaved(struct chat *c) {
    turn_save(c, true);
    return c->unsaved || (c->turn.kind == TURN_REPLY && c->turn.text.len != c->turn.saved_len);
}

bool chat_busy(const struct chat *c) {
    return c->turn.kind != TURN_NONE;
}

void chat_rates(const struct chat *c, double *decode_tok_s, double *prefill_tok_s,
                int *reused_tok) {
    const struct turn *t = &c->turn;
    *decode_tok_s = c->decode_tok_s;
    *prefill_tok_s = c->prefill_tok_s;
    *reused_tok = c->reused_tok;
    if (t->kind == TURN_REPLY && t->n_tok > 1) {
        int64_t us = clock_us() - t->first_us;
        *decode_tok_s = us > 0 ? (t->n_tok - 1) * 1e6 / (double)us : 0;
    }
}
