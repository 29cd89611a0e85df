/*
 * draft.c - the prompt is computed while the person still types it.
 *
 * When typing pauses, the conversation and the draft as it is go through the template, and the
 * engine computes what will stay of that prompt whatever is typed next, as an idle request in
 * the conversation's session: it runs only while nothing else does, and the message that is
 * sent at last, or the next guess, ends it and goes on with what is there.
 *
 * What stays: the tokens that the prompt has in common with that of a longer draft. So nothing
 * needs to be known about how a template ends a message. The last word may still merge with
 * letters to come; the engine finds that out token by token.
 *
 * A conversation that is only read costs nothing: its history is computed when typing begins.
 */
#include "chat/chat_internal.h"

#include <string.h>

enum { MIN_BYTES = 12, MAX_BYTES = 1 << 18 };

static int64_t slot_key(const struct chat *c) {
    return c->id ? c->id : CONV_NEW;
}

void draft_end(struct chat *c) {
    struct session *s = c->guess ? session_find(c, c->guess) : NULL;
    if (s)
        session_cancel(s);
    c->guess = 0;
}

/* A few words alone are computed faster than they are guessed. */
static bool worth_it(const struct chat *c, size_t len) {
    return len > 0 && len <= MAX_BYTES && (c->msgs.n > 0 || len >= MIN_BYTES);
}

static enum status guess(struct chat *c, const struct tok_list *t, size_t n, struct err *err) {
    struct request r = {.tokens = t->v,
                        .n_tok = n,
                        .priority = PRIORITY_IDLE,
                        .sampling = SAMPLING_DEFAULTS,
                        .max_tok = 0};
    turn_stream(c, t, &r);
    CHECK(session_generate(session_of(c, slot_key(c)), &r, ++c->last_request, c->box, err));
    c->guess = slot_key(c);
    return ST_OK;
}

void chat_prefill_draft(struct chat *c, const char *text) {
    struct tok_list t = {0}, longer = {0};
    struct buf draft = {0};
    struct err err; /* a guess that fails is none; sending will say why */
    int summary;
    size_t len = strlen(text), start = context_start(c, &summary);
    while (len > 0 && strchr(" \t\r\n", text[len - 1]))
        len--;
    if (!c->engine || !c->config->prefill_draft || c->turn.kind != TURN_NONE || c->full)
        return;
    if (c->guess && c->guess != slot_key(c))
        draft_end(c);
    if (!worth_it(c, len)) {
        draft_end(c);
        return;
    }
    buf_add(&draft, text, len);
    if (context_tokens(c, start, c->msgs.n, buf_str(&draft), &t, &err) != ST_OK)
        goto out;
    buf_adds(&draft, " x");
    if (context_tokens(c, start, c->msgs.n, buf_str(&draft), &longer, &err) != ST_OK)
        goto out;
    size_t n = context_common(&t, &longer);
    bool fits = t.n <= (size_t)(context_size(c) - context_reserve(c));
    if (n > 0 && (fits || context_streams(c)))
        guess(c, &t, n, &err);
out:
    tok_list_release(&t);
    tok_list_release(&longer);
    buf_release(&draft);
}
