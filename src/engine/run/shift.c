/*
 * shift.c - see shift.h.
 *
 * Data: a session's text is kv.tokens[0 .. sinks), then map.out, then the rest of kv.tokens. A
 * task comes with its whole prompt; shift_fit() takes what is left out from it, and from then
 * on task and session have the same timeline as everywhere else: tokens, and the KV of the
 * first of them.
 *
 * What moved is published nowhere (kv.h), and states of it are not written to files: its values
 * know of what was left out. Where the pool has no room for the copies that moving shared
 * blocks takes, they are not moved but computed anew, behind the sinks.
 *
 * Rejected: turning keys when they are read, with positions in the cache as in the paper (every
 * step would turn the whole cache, to save a pass over it in thousands of tokens); leaving out
 * a few tokens at a time (each time all that remains is turned, and rounded, again).
 */
#include "engine/run/shift.h"

#include "base/mem.h"
#include "engine/run/task.h"
#include <stdlib.h>
#include <string.h>

void shift_release(struct shift_map *m) {
    free(m->out);
    *m = (struct shift_map){0};
}

static void append(struct shift_map *m, const int32_t *tokens, int n) {
    if (m->n_out + n > m->cap) {
        m->cap = 2 * (m->n_out + n);
        m->out = xreallocarray(m->out, (size_t)m->cap, sizeof *m->out);
    }
    memcpy(m->out + m->n_out, tokens, (size_t)n * sizeof *tokens);
    m->n_out += n;
}

void shift_copy(struct shift_map *dst, const struct shift_map *src) {
    dst->n_out = 0;
    dst->sinks = src->sinks;
    if (src->n_out)
        append(dst, src->out, src->n_out);
}

enum status shift_check(const struct graph *g, int ctx_tok, struct err *err) {
    const char *why = graph_cannot_move(g);
    if (why)
        return err_set(err, ST_UNSUPPORTED, "this model can't stream: %s", why);
    if (ctx_tok < SHIFT_MIN_CTX)
        return err_set(err, ST_UNSUPPORTED,
                       "a context of %d tokens is too small to stream in, it takes %d", ctx_tok,
                       SHIFT_MIN_CTX);
    return ST_OK;
}

static int whole_blocks(int n_tok) {
    return kv_blocks(n_tok) * KV_BLOCK;
}

static int most_sinks(const struct task *t) {
    return t->ctx_tok / 4 / KV_BLOCK * KV_BLOCK;
}

/* What stays at the beginning: whole blocks, a quarter of the context at most. */
static int sinks_of(const struct task *t) {
    int most = most_sinks(t);
    int want = t->keep_tok < most ? whole_blocks(t->keep_tok) : most;
    return want > KV_BLOCK ? want : KV_BLOCK;
}

/* How many of n_tok tokens are too many: a quarter of the context is free then. */
static int surplus(const struct task *t, int n_tok) {
    return whole_blocks(n_tok - (t->ctx_tok - t->ctx_tok / 4));
}

/* How many tokens of the prompt are those of the session's text, from the beginning on. */
static int common(const struct task *t) {
    const struct kv_seq *kv = &t->session->kv;
    const struct shift_map *m = &t->session->map;
    int n = 0;
    if (m->n_out == 0 || kv->n_tok <= m->sinks)
        return kv_common(kv->tokens, kv->n_tok, t->tokens, t->n_tok);
    for (int end = kv->n_tok + m->n_out; n < end && n < t->n_tok; n++) {
        int32_t known = n < m->sinks              ? kv->tokens[n]
                        : n < m->sinks + m->n_out ? m->out[n - m->sinks]
                                                  : kv->tokens[n - m->n_out];
        if (known != t->tokens[n])
            break;
    }
    return n;
}

struct plan {
    int sinks;
    int had;   /* left out of the session's timeline already */
    int n_out; /* in all */
    bool move; /* the difference is taken out of the session's KV */
};

/* What the prompt of t, not fitted yet, is shown without. */
static struct plan plan_for(const struct task *t) {
    const struct shift_map *m = &t->session->map;
    struct plan p = {0};
    if (!t->streams || t->n_tok < t->ctx_tok)
        return p;
    int same = common(t);
    bool goes_on = m->n_out > 0 && same >= m->sinks + m->n_out;
    if (goes_on && m->sinks <= most_sinks(t)) /* the context may be another one now */
        p = (struct plan){.sinks = m->sinks, .had = m->n_out, .n_out = m->n_out};
    else
        p.sinks = sinks_of(t);
    if (t->n_tok - p.had < t->ctx_tok)
        return p;
    p.n_out += surplus(t, t->n_tok - p.had);
    p.move = p.sinks + p.n_out <= same && p.had == m->n_out;
    if (!p.move)
        p = (struct plan){.sinks = sinks_of(t), .n_out = surplus(t, t->n_tok)};
    return p;
}

static int sinks_now(const struct task *t) {
    const struct shift_map *m = &t->session->map;
    return m->n_out > 0 ? m->sinks : sinks_of(t);
}

int shift_need(const struct kv_pool *p, const struct task *t) {
    const struct kv_seq *kv = &t->session->kv;
    if (!t->fitted) {
        struct plan plan = plan_for(t);
        return plan.move ? kv_shift_need(p, kv, plan.sinks, plan.n_out - plan.had) : 0;
    }
    return shift_due(t) ? kv_shift_need(p, kv, sinks_now(t), surplus(t, t->n_tok)) : 0;
}

/* Takes tokens from .. from + n - 1 out of the session's KV. */
static void move(struct kv_pool *p, struct graph *g, struct kv_seq *kv, int from, int n) {
    if (from + n > kv->n_tok || !kv_shift(p, kv, from, n)) {
        kv_cut(p, kv, from);
        return;
    }
    int first = from / KV_BLOCK;
    if (kv->n_block > first)
        graph_move_blocks(g, kv->blocks + first, kv->n_block - first, from + n, from);
}

/* And out of the task's timeline. */
static void take_out(struct task *t, int from, int n) {
    memmove(t->tokens + from, t->tokens + from + n,
            (size_t)(t->n_tok - from - n) * sizeof *t->tokens);
    t->n_tok -= n;
    t->last_tok -= n;
}

void shift_fit(struct kv_pool *p, struct graph *g, struct task *t) {
    struct kv_seq *kv = &t->session->kv;
    struct shift_map *m = &t->session->map;
    if (t->fitted)
        return;
    struct plan plan = plan_for(t);
    t->fitted = true;
    if (plan.had == 0 && kv->moved_from)
        kv_cut(p, kv, kv->moved_from);
    if (plan.move)
        move(p, g, kv, plan.sinks, plan.n_out - plan.had);
    m->n_out = 0;
    m->sinks = plan.sinks;
    if (plan.n_out == 0)
        return;
    append(m, t->tokens + plan.sinks, plan.n_out);
    take_out(t, plan.sinks, plan.n_out);
    t->n_prompt = t->n_tok;
}

bool shift_due(const struct task *t) {
    return t->streams && t->n_tok >= t->ctx_tok;
}

void shift_on(struct kv_pool *p, struct graph *g, struct task *t) {
    struct shift_map *m = &t->session->map;
    int from = sinks_now(t), n = surplus(t, t->n_tok);
    move(p, g, &t->session->kv, from, n);
    m->sinks = from;
    append(m, t->tokens + from, n);
    take_out(t, from, n);
    t->n_gone += n;
    lookup_release(&t->spec.lookup); /* its places were those of the old timeline */
}
