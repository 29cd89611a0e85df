/*
 * summary.c - the model condenses the older turns of a conversation that has outgrown its
 * context.
 *
 * The older turns do not fit by definition, so they are read in rounds: each round shows the
 * model the summary so far and as many further messages as fit, and asks for a new summary. The
 * last one is stored as a system message of the tree with the finish word "summary"; context.c
 * shows it to the model instead of everything before the question it was made for.
 *
 * Rounds run in a session of their own: the conversation's KV is of no use to them and would be
 * lost. A message that is too long for a round even alone is cut at its end, the only place
 * where text is left out here.
 */
#include "base/path.h"
#include "base/utf8.h"
#include "chat/chat_internal.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { SUMMARY_TOK = 400 };

/* Words and form were chosen by what small models do with them: blank lines between the turns
 * or a heading above them made these go on with the conversation instead. */
static const char instruction[] =
    "Provide a concise, objective summary of the conversation in up to five sentences. Keep "
    "all "
    "names, facts, numbers, decisions and open questions of the user. Write in the language of "
    "the conversation. Do not answer the user and do not add anything new.";

static int summary_room(const struct chat *c) {
    int quarter = context_size(c) / 4;
    return quarter < SUMMARY_TOK ? quarter : SUMMARY_TOK;
}

static void add_message(json_t *list, const char *role, const char *text, size_t len) {
    json_t *o = json_object();
    json_object_set_new(o, "role", json_string(role));
    json_object_set_new(o, "content", json_stringn(text, len));
    json_array_append_new(list, o);
}

/* The prompt of a round that reads messages from..to; the last one is cut to max_bytes. */
static enum status round_tokens(struct chat *c, size_t from, size_t to, size_t max_bytes,
                                struct tok_list *out, struct err *err) {
    struct buf b = {0};
    if (c->summary.so_far)
        buf_addf(&b, "Summary of what came before:\n%s\n\n", c->summary.so_far);
    for (size_t i = from; i < to; i++) {
        const struct message *m = &c->msgs.v[i];
        if (m->role == ROLE_SYSTEM || !*m->text)
            continue;
        size_t len = strlen(m->text);
        if (i + 1 == to && len > max_bytes) {
            len = max_bytes;
            len -= utf8_incomplete_tail(m->text, len);
        }
        buf_addf(&b, "%s: ",
                 m->role == ROLE_USER   ? "User"
                 : m->role == ROLE_TOOL ? "Tool"
                                        : "Assistant");
        utf8_scrub(&b, m->text, len);
        buf_addc(&b, '\n');
    }
    buf_adds(&b,
             c->summary.so_far ? "\nSummarise all of this." : "\nSummarise this conversation.");
    json_t *list = json_array();
    add_message(list, "system", instruction, strlen(instruction));
    add_message(list, "user", b.p, b.len);
    char *json = json_dumps(list, JSON_COMPACT);
    out->n = 0;
    enum status st = context_render(c, json, out, err);
    if (st != ST_OK) { /* a template without system messages */
        struct buf both = {0};
        struct err second;
        buf_addf(&both, "%s\n\n%s", instruction, b.p);
        json_array_clear(list);
        add_message(list, "user", both.p, both.len);
        free(json);
        json = json_dumps(list, JSON_COMPACT);
        out->n = 0;
        if (context_render(c, json, out, &second) == ST_OK)
            st = ST_OK;
        buf_release(&both);
    }
    free(json);
    json_decref(list);
    buf_release(&b);
    return st;
}

/* Takes as many messages as fit, at least a part of one. */
static enum status fill_round(struct chat *c, struct tok_list *out, struct err *err) {
    struct summary *s = &c->summary;
    size_t limit = (size_t)(context_size(c) - summary_room(c));
    size_t lo = s->from + 1, hi = s->to;
    while (lo < hi) {
        size_t mid = lo + (hi - lo + 1) / 2;
        CHECK(round_tokens(c, s->from, mid, SIZE_MAX, out, err));
        if (out->n <= limit)
            lo = mid;
        else
            hi = mid - 1;
    }
    s->round_to = lo;
    CHECK(round_tokens(c, s->from, lo, SIZE_MAX, out, err));
    for (size_t bytes = strlen(c->msgs.v[lo - 1].text); out->n > limit && bytes > 0;) {
        bytes /= 2;
        CHECK(round_tokens(c, s->from, lo, bytes, out, err));
    }
    if (out->n > limit)
        return err_set(
            err, ST_LIMIT,
            "a context of %d tokens is too small to write a summary in; raise ctx or "
            "drop the oldest turns",
            context_size(c));
    return ST_OK;
}

static enum status start_round(struct chat *c, struct err *err) {
    struct tok_list t = {0};
    struct session *session = NULL;
    enum status st;
    TRY(fill_round(c, &t, err));
    session = session_new(c->engine);
    struct request r = {.tokens = t.v,
                        .n_tok = t.n,
                        .sampling = SAMPLING_DEFAULTS,
                        .max_tok = summary_room(c),
                        .speculation = (enum speculation)c->settings.speculation};
    r.priority = PRIORITY_INTERACTIVE;
    r.sampling.temperature = 0;
    r.sampling.repeat_penalty = 1.1;
    c->turn = (struct turn){.kind = TURN_SUMMARY, .prompt_tok = (int)t.n};
    st = turn_request(c, &r, session, err);
    if (st != ST_OK) {
        turn_clear(c);
        session_free(session);
    }
out:
    tok_list_release(&t);
    return st;
}

void summary_release(struct chat *c) {
    free(c->summary.so_far);
    memset(&c->summary, 0, sizeof c->summary);
}

enum status summary_start(struct chat *c, bool then_reply, struct err *err) {
    int old;
    size_t start = context_start(c, &old);
    size_t to = c->msgs.n - (then_reply && c->msgs.v[c->msgs.n - 1].role == ROLE_USER);
    summary_release(c);
    if (start >= to) {
        struct tok_list t = {0};
        enum status st = context_tokens(c, start, c->msgs.n, NULL, &t, err);
        if (st == ST_OK)
            st = context_too_long(c, t.n, err);
        tok_list_release(&t);
        return st;
    }
    c->summary = (struct summary){.from = start, .to = to, .then_reply = then_reply};
    if (old >= 0)
        c->summary.so_far = xstrdup(c->msgs.v[old].text);
    enum status st = start_round(c, err);
    if (st != ST_OK)
        summary_release(c);
    return st;
}

static char *trimmed(const struct buf *b) {
    const char *s = buf_str(b), *end = s + b->len;
    while (s < end && strchr(" \t\r\n", *s))
        s++;
    while (end > s && strchr(" \t\r\n", end[-1]))
        end--;
    return xstrndup(s, (size_t)(end - s));
}

static enum status store_summary(struct chat *c, struct err *err) {
    int64_t id;
    struct message m = {.parent = c->leaf,
                        .role = ROLE_SYSTEM,
                        .text = c->summary.so_far,
                        .finish = (char[]){SUMMARY_FINISH},
                        .model = (char *)path_base(c->model)};
    CHECK(store_msg_add(c->store, c->id, &m, &id, err));
    context_forget_count(c);
    return chat_read_branch(c, id, err);
}

/* The next round, or the summary is complete and the reply begins. */
static enum status go_on(struct chat *c, struct err *err, bool *more) {
    struct summary *s = &c->summary;
    s->from = s->round_to;
    *more = true;
    if (s->from < s->to)
        return start_round(c, err);
    *more = s->then_reply;
    CHECK(store_summary(c, err));
    return s->then_reply ? turn_start(c, OVERFLOW_STOP, err) : ST_OK;
}

void summary_round_done(struct chat *c, struct event *takes_e) {
    struct err err = {0};
    char *text = trimmed(&c->turn.text);
    enum finish how = takes_e->finish;
    bool more = false;
    turn_clear(c);
    enum status st;
    if (how == FINISH_CANCEL) {
        st = err_set(&err, ST_CANCELLED,
                     "the summary was stopped; the conversation is as it was");
    } else if (!*text) {
        st = err_set(&err, ST_INTERNAL,
                     "the model wrote no summary; drop the oldest turns instead");
    } else {
        free(c->summary.so_far);
        c->summary.so_far = xstrdup(text);
        st = go_on(c, &err, &more);
    }
    free(text);
    if (st != ST_OK)
        chat_queue(c, EV_FAILED, NULL, 0, 0, &err, NULL);
    else if (!more)
        chat_queue(c, EV_DONE, NULL, 0, 0, NULL, takes_e);
    if (st != ST_OK || more)
        event_free(takes_e);
    if (c->turn.kind != TURN_SUMMARY)
        summary_release(c);
    loader_adopt(c);
}
