/*
 * context.c - what the model is shown of a conversation.
 *
 * From the active branch to a list of messages for the template:
 *   - the system prompt, other system messages of the branch and the summary in force become
 * one system message in front (most templates take one, and only there);
 *   - what lies before the visible part is left out: the part begins with the message
 * conversation.keep_from names when it is on this branch, or with the question that a summary
 * was made for, whichever comes later;
 *   - replies without text (failed, stopped at once) are left out, and neighbours of one role
 * are joined by a blank line, since templates insist on alternation;
 *   - when a template refuses a system message, its text goes in front of the first message of
 * the user.
 *
 * Leaving turns out frees a quarter of the context beyond what is needed: otherwise every turn
 * from then on would drop one more, and with the changed beginning compute its whole prompt
 * anew.
 */
#include "base/utf8.h"
#include "chat/chat_internal.h"

#include <assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_TOK = 256 };

int context_size(const struct chat *c) {
    if (!c->engine)
        return 0;
    int ctx = engine_info(c->engine)->ctx_tok;
    return c->settings.ctx > 0 && c->settings.ctx < ctx ? c->settings.ctx : ctx;
}

enum status chat_can_stream(const struct chat *c, struct err *err) {
    if (!c->engine)
        return err_set(err, ST_NOT_FOUND, "no model is loaded");
    return engine_can_stream(c->engine, context_size(c), err);
}

bool context_streams(const struct chat *c) {
    struct err err;
    bool wanted = c->streams || c->config->context_full == OVERFLOW_STREAM;
    return wanted && chat_can_stream(c, &err) == ST_OK;
}

int context_reserve(const struct chat *c) {
    int ctx = context_size(c), want = c->settings.max_tokens;
    if (context_streams(c))
        return 1;
    if (want <= 0)
        want = ANSWER_TOK;
    return want < ctx / 4 ? want : ctx / 4;
}

size_t context_common(const struct tok_list *a, const struct tok_list *b) {
    size_t n = 0;
    while (n < a->n && n < b->n && a->v[n] == b->v[n])
        n++;
    return n;
}

/* What it has in common with that of another conversation. */
int context_head_tok(const struct chat *c, const struct tok_list *prompt) {
    struct tok_list other = {0};
    struct err err;
    size_t n = 0;
    if (context_tokens(c, c->msgs.n, c->msgs.n, "?", &other, &err) == ST_OK)
        n = context_common(prompt, &other);
    tok_list_release(&other);
    return (int)n;
}

static bool is_summary(const struct message *m) {
    return m->role == ROLE_SYSTEM && strcmp(m->finish, SUMMARY_FINISH) == 0;
}

size_t context_start(const struct chat *c, int *summary) {
    const struct message_list *l = &c->msgs;
    size_t start = 0;
    *summary = -1;
    for (size_t i = 0; i < l->n; i++) {
        if (l->v[i].id == c->keep_from && i > start)
            start = i;
        if (!is_summary(&l->v[i]))
            continue;
        *summary = (int)i;
        size_t begin = i > 0 && l->v[i - 1].role == ROLE_USER ? i - 1 : i + 1;
        if (begin > start)
            start = begin;
    }
    return start;
}

/* -- the list of messages -- */

static void add_paragraph(struct buf *b, const char *text) {
    if (!*text)
        return;
    if (b->len)
        buf_adds(b, "\n\n");
    utf8_scrub(b, text, strlen(text));
}

static void append_message(json_t *list, const char *role, const struct buf *text) {
    json_t *o = json_object();
    json_object_set_new(o, "role", json_string(role));
    json_object_set_new(o, "content", json_stringn(buf_str(text), text->len));
    json_array_append_new(list, o);
}

/* Collects neighbours of one role and hands them on when another begins. */
struct joiner {
    json_t *list;
    enum role role;
    struct buf text;
};

static void flush(struct joiner *j) {
    if (j->text.len)
        append_message(j->list, role_name(j->role), &j->text);
    buf_clear(&j->text);
}

static void join(struct joiner *j, enum role role, const char *text) {
    if (!*text)
        return;
    if (role != j->role || role == ROLE_TOOL)
        flush(j);
    j->role = role;
    add_paragraph(&j->text, text);
}

static void head_text(const struct chat *c, size_t start, size_t n, int summary,
                      struct buf *out) {
    const char *model_system = c->engine ? engine_info(c->engine)->system : "";
    add_paragraph(out, *c->system ? c->system : model_system);
    for (size_t i = start; i < n; i++)
        if (c->msgs.v[i].role == ROLE_SYSTEM && !is_summary(&c->msgs.v[i]))
            add_paragraph(out, c->msgs.v[i].text);
    if (summary >= 0 && (size_t)summary < n) {
        add_paragraph(out, "Summary of the conversation so far:");
        add_paragraph(out, c->msgs.v[summary].text);
    }
}

/* head_in_user: the template takes no system message. */
static char *messages_json(const struct chat *c, size_t start, size_t n, const char *extra,
                           bool head_in_user, bool *has_head) {
    int summary;
    struct buf head = {0};
    struct joiner j = {.list = json_array(), .role = ROLE_USER};
    context_start(c, &summary);
    head_text(c, start, n, summary, &head);
    *has_head = head.len > 0;
    if (head.len && head_in_user)
        join(&j, ROLE_USER, head.p);
    else if (head.len)
        append_message(j.list, "system", &head);
    for (size_t i = start; i < n; i++)
        if (c->msgs.v[i].role != ROLE_SYSTEM)
            join(&j, c->msgs.v[i].role, c->msgs.v[i].text);
    if (extra)
        join(&j, ROLE_USER, extra);
    flush(&j);
    char *text = json_dumps(j.list, JSON_COMPACT);
    assert(text);
    json_decref(j.list);
    buf_release(&j.text);
    buf_release(&head);
    return text;
}

enum status context_render(const struct chat *c, const char *json, struct tok_list *out,
                           struct err *err) {
    struct render_opts opts = {.messages_json = json, .add_generation_prompt = true};
    return text_prompt(engine_text(c->engine), &opts, out, err);
}

enum status context_tokens(const struct chat *c, size_t start, size_t n, const char *extra,
                           struct tok_list *out, struct err *err) {
    bool has_head;
    char *json = messages_json(c, start, n, extra, false, &has_head);
    enum status st = context_render(c, json, out, err);
    if (st != ST_OK && has_head) {
        struct err second;
        free(json);
        json = messages_json(c, start, n, extra, true, &has_head);
        out->n = 0;
        if (context_render(c, json, out, &second) == ST_OK)
            st = ST_OK;
    }
    free(json);
    return st;
}

/* -- too much -- */

enum status context_too_long(const struct chat *c, size_t n_tok, struct err *err) {
    return err_set(
        err, ST_LIMIT,
        "the message with the system prompt has %zu tokens; the context holds %d, of "
        "which %d are kept for the answer: shorten it, or raise ctx",
        n_tok, context_size(c), context_reserve(c));
}

/* Tokens of messages start to n - 1. */
static enum status count(const struct chat *c, size_t start, size_t n, size_t *n_tok,
                         struct err *err) {
    struct tok_list t = {0};
    enum status st = context_tokens(c, start, n, NULL, &t, err);
    *n_tok = t.n;
    tok_list_release(&t);
    return st;
}

enum status context_drop(struct chat *c, struct err *err) {
    const struct message_list *l = &c->msgs;
    int summary;
    size_t start = context_start(c, &summary), n_turn = 0, n_tok;
    size_t *turn = xreallocarray(NULL, l->n + 1, sizeof *turn);
    int ctx = context_size(c);
    size_t target = (size_t)(ctx - context_reserve(c) - ctx / 4);
    enum status st = ST_OK;
    for (size_t i = start + 1; i < l->n; i++)
        if (l->v[i].role == ROLE_USER)
            turn[n_turn++] = i;
    if (n_turn == 0) {
        TRY(count(c, start, l->n, &n_tok, err));
        st = context_too_long(c, n_tok, err);
        goto out;
    }
    size_t lo = 0, hi = n_turn - 1; /* the first turn from which on it is short enough */
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        TRY(count(c, turn[mid], l->n, &n_tok, err));
        if (n_tok <= target)
            hi = mid;
        else
            lo = mid + 1;
    }
    int64_t keep = l->v[turn[lo]].id;
    TRY(store_conv_set_keep_from(c->store, c->id, keep, err));
    c->keep_from = keep;
    context_forget_count(c);
out:
    free(turn);
    return st;
}

int chat_dropped(const struct chat *c) {
    int summary;
    return (int)context_start(c, &summary);
}

void context_forget_count(struct chat *c) {
    c->count->valid = false;
    c->count->forgotten_for = 0;
}

int chat_left_out(const struct chat *c) {
    int used, ctx;
    chat_context(c, &used, &ctx);
    return c->turn.kind == TURN_REPLY ? c->turn.left_out : c->count->left_out;
}

/* What is left out begins behind the head, of which the engine keeps whole blocks: in the text
 * it ends there or a little later. */
static size_t forgotten(const struct chat *c, int left_out) {
    struct tok_list first = {0};
    struct err err;
    int summary, most = context_size(c) / 4;
    size_t lo = context_start(c, &summary), start = lo, hi = c->msgs.n - 1, n_tok;
    if (start >= hi)
        return start;
    if (context_tokens(c, start, start + 1, NULL, &first, &err) != ST_OK)
        hi = lo;
    int head = context_head_tok(c, &first);
    size_t end = (size_t)((head < most ? head : most) + left_out);
    while (lo < hi) {
        size_t mid = hi - (hi - lo) / 2;
        if (count(c, start, mid, &n_tok, &err) == ST_OK && n_tok <= end)
            lo = mid;
        else
            hi = mid - 1;
    }
    tok_list_release(&first);
    return lo;
}

int chat_forgotten(const struct chat *c) {
    struct context_count *k = c->count;
    int out = chat_left_out(c);
    if (out <= 0 || c->msgs.n == 0)
        return 0;
    if (k->forgotten_for != out || k->forgotten_leaf != c->leaf) {
        k->forgotten = (int)forgotten(c, out);
        k->forgotten_for = out;
        k->forgotten_leaf = c->leaf;
    }
    return k->forgotten;
}

void chat_context(const struct chat *c, int *used_tok, int *ctx_tok) {
    *used_tok = 0;
    *ctx_tok = context_size(c);
    if (!c->engine)
        return;
    if (c->turn.kind == TURN_REPLY) {
        *used_tok = c->turn.prompt_tok + c->turn.n_tok - c->turn.left_out;
        if (*used_tok > *ctx_tok) /* until the engine says what it leaves out */
            *used_tok = *ctx_tok;
        return;
    }
    if (!c->count->valid) {
        int summary;
        struct tok_list t = {0};
        struct err err;
        if (c->msgs.n &&
            context_tokens(c, context_start(c, &summary), c->msgs.n, NULL, &t, &err) == ST_OK)
            c->count->used = (int)t.n;
        else
            c->count->used = 0;
        c->count->left_out = 0;
        if (c->count->used > *ctx_tok && context_streams(c)) {
            c->count->left_out = c->count->used - *ctx_tok; /* at least */
            c->count->used = *ctx_tok;
        }
        c->count->valid = true;
        tok_list_release(&t);
    }
    *used_tok = c->count->used;
}
