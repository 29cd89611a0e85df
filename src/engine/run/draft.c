/*
 * draft.c - see draft.h.
 *
 * Data: a slot for each of the last few sessions that asked, with the KV of a prefix of its
 * timeline. `ahead` are tokens behind that prefix whose KV is in the slot's own blocks already:
 * the model's guesses of last time. They become part of the sequence when the timeline turns
 * out to go on like that, so a wrong guess is never published and never found. Blocks of equal
 * prefixes are shared as in the first model's pool; a slot that is taken over by another
 * session loses nothing but references.
 *
 * A call: bring the sequences up to date with their timelines, all in one batch, at most
 * CATCH_UP tokens; those that are up to date have their first guess from that batch; then a row
 * a sequence and round.
 *
 * Rejected: sampling guesses (a guess that is not the likeliest token is right less often); the
 * first model's backend (its scratch is sized for its shapes).
 */
#include "engine/run/draft.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/run/task.h"
#include "engine/text.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { N_SLOT = 2 * SPEC_MAX_SEQ, CATCH_UP = 256 };

struct slot {
    const struct session *session; /* NULL: unused */
    struct kv_seq kv;
    int32_t ahead[SPEC_MAX_DRAFT];
    int n_ahead;
    uint64_t used;
};

struct draft {
    const struct model *model;
    struct graph *graph;
    struct kv_pool *pool;
    int n_vocab, n_vocab_first;
    struct slot slots[N_SLOT];
    uint64_t clock;
    int32_t *tokens; /* [CATCH_UP + SPEC_MAX_SEQ] of a batch */
    float *logits;   /* [SPEC_MAX_SEQ, n_vocab] */
    bool failed;     /* said once */
};

/* ---- vocabularies ---- */

static bool same_token(const struct text_model *a, const struct text_model *b, int32_t t,
                       struct buf *x, struct buf *y) {
    buf_clear(x);
    buf_clear(y);
    text_decode(a, t, true, x);
    text_decode(b, t, true, y);
    return x->len == y->len && memcmp(buf_str(x), buf_str(y), x->len) == 0 &&
           text_is_control(a, t) == text_is_control(b, t);
}

enum status draft_check(const struct model *draft, const struct model *first, struct err *err) {
    const struct text_model *a = draft->text, *b = first->text;
    int na = text_n_vocab(a), nb = text_n_vocab(b), n = na < nb ? na : nb;
    int padding = na > nb ? na - nb : nb - na;
    struct buf x = {0}, y = {0};
    enum status st = ST_OK;
    if (padding > n / 100)
        st = err_set(err, ST_UNSUPPORTED,
                     "the draft model has %d tokens, the model %d: a draft model must have the "
                     "same vocabulary",
                     na, nb);
    for (int32_t t = 0; st == ST_OK && t < n; t++)
        if (!same_token(a, b, t, &x, &y))
            st = err_set(err, ST_UNSUPPORTED,
                         "token %d is \"%.40s\" in the draft model and \"%.40s\" in the model: "
                         "a draft model must have the same vocabulary",
                         t, buf_str(&x), buf_str(&y));
    buf_release(&x);
    buf_release(&y);
    return st;
}

/* ---- slots ---- */

struct draft *draft_new(const struct model *m, struct graph *graph, int n_block,
                        int n_vocab_first) {
    struct draft *d = xcalloc(1, sizeof *d);
    d->model = m;
    d->graph = graph;
    d->n_vocab = m->hp.n_vocab;
    d->n_vocab_first = n_vocab_first;
    d->pool = kv_pool_new(n_block, graph_kv_copy, graph);
    d->tokens = xcalloc(CATCH_UP + SPEC_MAX_SEQ, sizeof *d->tokens);
    d->logits = xcalloc((size_t)SPEC_MAX_SEQ * (size_t)d->n_vocab, sizeof *d->logits);
    return d;
}

static void empty_slot(struct draft *d, struct slot *s) {
    kv_seq_release(d->pool, &s->kv);
    *s = (struct slot){0};
}

void draft_free(struct draft *d) {
    if (!d)
        return;
    for (int i = 0; i < N_SLOT; i++)
        empty_slot(d, &d->slots[i]);
    kv_pool_free(d->pool);
    free(d->tokens);
    free(d->logits);
    free(d);
}

void draft_forget(struct draft *d, const struct session *ss) {
    for (int i = 0; i < N_SLOT; i++)
        if (d->slots[i].session == ss)
            empty_slot(d, &d->slots[i]);
}

/* The session's slot, or the one that was used longest ago. */
static struct slot *slot_of(struct draft *d, const struct session *ss) {
    struct slot *oldest = &d->slots[0];
    for (int i = 0; i < N_SLOT; i++) {
        struct slot *s = &d->slots[i];
        if (s->session == ss) {
            s->used = ++d->clock;
            return s;
        }
        if (s->used < oldest->used)
            oldest = s;
    }
    empty_slot(d, oldest);
    oldest->session = ss;
    oldest->used = ++d->clock;
    return oldest;
}

/* Blocks for n tokens; slots that are not in this call (older than `since`) give theirs. */
static bool room(struct draft *d, struct slot *s, int n, uint64_t since) {
    while (!kv_reserve(d->pool, &s->kv, n)) {
        struct slot *oldest = NULL;
        for (int i = 0; i < N_SLOT; i++) {
            struct slot *o = &d->slots[i];
            if (o->kv.n_block && o->used <= since && (!oldest || o->used < oldest->used))
                oldest = o;
        }
        if (!oldest)
            return false;
        empty_slot(d, oldest);
    }
    return true;
}

/* Makes the slot's KV a prefix of the timeline, shorter than it. */
static void follow(struct draft *d, struct slot *s, const struct task *t, int n_total) {
    struct kv_seq *kv = &s->kv;
    kv_set_kind(d->pool, kv, graph_kv_kind(d->graph, n_total));
    bool prefix = kv->n_tok > 0 && kv->n_tok < t->n_tok &&
                  memcmp(kv->tokens, t->tokens, (size_t)kv->n_tok * sizeof *t->tokens) == 0;
    if (!prefix) {
        s->n_ahead = 0;
        kv_match(d->pool, kv, t->tokens, t->n_tok);
    }
    int n = kv_common(s->ahead, s->n_ahead, t->tokens + kv->n_tok, t->n_tok - 1 - kv->n_tok);
    if (n)
        kv_commit(d->pool, kv, s->ahead, n);
    s->n_ahead = 0;
    kv_trim(d->pool, kv);
}

/* ---- guesses ---- */

struct guesser {
    struct task *task;
    struct slot *slot;
    int want;
    int n_new; /* tokens in the first batch */
    int total; /* the length the timeline may reach with all guesses */
    bool live;
};

static bool tokens_known(const struct draft *d, const int32_t *tokens, int n) {
    for (int i = 0; i < n; i++)
        if (tokens[i] >= d->n_vocab)
            return false;
    return true;
}

static bool forward(struct draft *d, const struct batch *b) {
    struct err err;
    if (graph_forward(d->graph, b, d->logits, &err) == ST_OK)
        return true;
    if (!d->failed)
        log_warn("the draft model: %s", err.msg);
    d->failed = true;
    return false;
}

/* Who takes part, and with how many tokens. */
static int gather(struct draft *d, struct task *const *tasks, const int *want, int n,
                  struct guesser *g) {
    int n_guesser = 0, left = CATCH_UP;
    int most = d->model->hp.ctx_train;
    uint64_t since = d->clock;
    if (left > graph_max_tok(d->graph) - SPEC_MAX_SEQ)
        left = graph_max_tok(d->graph) - SPEC_MAX_SEQ;
    for (int i = 0; i < n; i++) {
        struct task *t = tasks[i];
        if (want[i] < 1 || left < 1)
            continue;
        int cap = most - t->n_tok, k = want[i] < cap ? want[i] : cap;
        if (k < 1)
            continue;
        struct slot *s = slot_of(d, t->session);
        follow(d, s, t, t->n_tok + k);
        int todo = t->n_tok - s->kv.n_tok, n_new = todo < left ? todo : left;
        if (!tokens_known(d, t->tokens + s->kv.n_tok, n_new) ||
            !room(d, s, n_new + (n_new == todo ? k - 1 : 0), since))
            continue;
        g[n_guesser++] = (struct guesser){.task = t,
                                          .slot = s,
                                          .want = k,
                                          .n_new = n_new,
                                          .total = t->n_tok + k,
                                          .live = n_new == todo};
        left -= n_new;
    }
    return n_guesser;
}

/* Computes what timelines have and KV lacks. */
static bool catch_up(struct draft *d, struct guesser *g, int n) {
    struct batch_seq seqs[SPEC_MAX_SEQ];
    struct batch b = {.tokens = d->tokens, .seqs = seqs, .n_seq = n};
    for (int i = 0; i < n; i++) {
        const struct kv_seq *kv = &g[i].slot->kv;
        memcpy(d->tokens + b.n_tok, g[i].task->tokens + kv->n_tok,
               (size_t)g[i].n_new * sizeof *d->tokens);
        seqs[i] = (struct batch_seq){.blocks = kv->blocks,
                                     .n_past = kv->n_tok,
                                     .n_tok = g[i].n_new,
                                     .n_logits = g[i].live,
                                     .n_total = g[i].total};
        b.n_tok += g[i].n_new;
    }
    if (!forward(d, &b))
        return false;
    for (int i = 0; i < n; i++) {
        struct kv_seq *kv = &g[i].slot->kv;
        kv_commit(d->pool, kv, g[i].task->tokens + kv->n_tok, g[i].n_new);
    }
    return true;
}

/* Takes a guess from each live row of logits; who has all it wants, or guesses the end, is
 * done. Returns how many go on. */
static int take_guesses(struct draft *d, struct guesser *g, int n) {
    const float *row = d->logits;
    int n_live = 0, n_vocab = d->n_vocab < d->n_vocab_first ? d->n_vocab : d->n_vocab_first;
    for (int i = 0; i < n; i++) {
        if (!g[i].live)
            continue;
        struct spec_task *s = &g[i].task->spec;
        int32_t token = sampler_best(row, n_vocab);
        row += d->n_vocab;
        s->draft[s->n_draft++] = token;
        g[i].live = s->n_draft < g[i].want && !text_is_eog(d->model->text, token);
        n_live += g[i].live;
    }
    return n_live;
}

/* One more row for each that is live: the guess it made last. */
static bool next_round(struct draft *d, struct guesser *g, int n) {
    struct batch_seq seqs[SPEC_MAX_SEQ];
    struct batch b = {.tokens = d->tokens, .seqs = seqs};
    for (int i = 0; i < n; i++) {
        struct slot *s = g[i].slot;
        if (!g[i].live)
            continue;
        int32_t last = g[i].task->spec.draft[g[i].task->spec.n_draft - 1];
        d->tokens[b.n_tok++] = last;
        seqs[b.n_seq++] = (struct batch_seq){.blocks = s->kv.blocks,
                                             .n_past = s->kv.n_tok + s->n_ahead,
                                             .n_tok = 1,
                                             .n_logits = 1,
                                             .n_total = g[i].total};
        s->ahead[s->n_ahead++] = last;
    }
    return forward(d, &b);
}

int draft_guess(struct draft *d, struct task *const *tasks, const int *want, int n,
                int64_t *us) {
    struct guesser g[SPEC_MAX_SEQ];
    int64_t start = clock_us();
    int n_guesser = gather(d, tasks, want, n, g), rounds = 0, n_new = 0, n_live = 0;
    for (int i = 0; i < n_guesser; i++) {
        n_new += g[i].n_new;
        n_live += g[i].live;
    }
    if (n_guesser && catch_up(d, g, n_guesser) && n_live) {
        /* more than a few tokens are no round, but made-up arrears */
        if (n_new <= n_live * (SPEC_MAX_DRAFT + 1))
            rounds++;
        else
            start = clock_us();
        while (take_guesses(d, g, n_guesser) && next_round(d, g, n_guesser))
            rounds++;
    }
    *us = clock_us() - start;
    if (rounds)
        graph_settle(d->graph);
    return rounds;
}

bool draft_consistent(const struct draft *d) {
    const struct kv_seq *seqs[N_SLOT];
    for (int i = 0; i < N_SLOT; i++)
        seqs[i] = &d->slots[i].kv;
    return kv_consistent(d->pool, seqs, N_SLOT);
}
