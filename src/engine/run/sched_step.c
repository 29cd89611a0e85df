/*
 * sched_step.c - what a step computes: how many tokens of each active task, the batch, and what
 * it means for them; and a chunk of the evaluation that runs. See sched.c.
 *
 * Running answers bring one token each (and guesses behind it, spec.h); what the step's time
 * leaves is shared out among prompts, a better class getting SCHED_WEIGHT times as much. The
 * first tokens behind the rows of a batch are sampled side by side, then the tasks go on one
 * after the other, in their order. Where the rows of a step can all be sampled on the device,
 * they are, and no logits come to the host: what it can't do (sampler.h), guesses, whose
 * penalties follow from each other, and evaluations have the step as logits.
 */
#include "engine/run/sched_internal.h"

#include "base/clock.h"
#include "base/mem.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A timeline that grew into another kind of KV is computed again. */
static void follow_kinds(struct sched *s) {
    for (int i = 0; i < s->n_active; i++) {
        struct session *ss = s->active[i]->session;
        kv_set_kind(s->pool, &ss->kv, graph_kv_kind(s->graph, s->active[i]->n_tok));
        task_note_said(s->active[i]);
        atomic_store(&ss->cached_tok, ss->kv.n_tok);
    }
}

/* Who has filled the context and streams goes on without its oldest tokens. */
static void make_place(struct sched *s) {
    for (int i = 0; i < s->n_active; i++) {
        struct task *t = s->active[i];
        if (!shift_due(t))
            continue;
        sched_make_room(s, shift_need(s->pool, t), t->session);
        shift_on(s->pool, s->graph, t);
        atomic_store(&t->session->cached_tok, t->session->kv.n_tok);
    }
}

/* Tokens of one step that prefills: as many as their time allows, at most twice as many as were
 * measured last. */
static int chunk_tok(const struct sched *s) {
    /* an idle one keeps to shorter steps: nobody waits for it, but somebody may come */
    bool alone = s->n_active + (s->evals && s->evals->running) == 1 && sched_others_work(s);
    double fits = s->first_tok;
    if (s->us_per_tok > 0)
        fits = (alone ? SCHED_ALONE_US : SCHED_STEP_US) / s->us_per_tok;
    else if (s->measured_tok)
        fits = s->max_tok; /* too fast for the clock */
    int most = s->measured_tok ? 2 * s->measured_tok : s->first_tok;
    most = most < s->max_tok ? most : s->max_tok;
    int n = fits < most ? (int)fits : most;
    if (n > KV_BLOCK)
        n -= n % KV_BLOCK;
    return n > SCHED_MIN_CHUNK ? n : SCHED_MIN_CHUNK;
}

static int weight_of(const struct task *t) {
    return t->priority == PRIORITY_INTERACTIVE ? SCHED_WEIGHT : 1;
}

/* What of a step's tokens is for prompts when n_decode others go along: a quarter at least, so
 * that many answers don't stop them. */
static int prefill_tok(const struct sched *s, int n_decode) {
    int all = chunk_tok(s), n = all - n_decode;
    n = n > all / 4 ? n : all / 4;
    n = n > SCHED_MIN_CHUNK ? n : SCHED_MIN_CHUNK;
    int most = s->max_tok - s->n_active;
    return n < most ? n : most;
}

/* How many tokens each active task brings. */
static void plan(const struct sched *s, int *n_tok) {
    int n_prefill = 0, weights = 0;
    for (int i = 0; i < s->n_active; i++) {
        n_tok[i] = 1;
        if (task_todo(s->active[i]) > 1) {
            n_prefill++;
            weights += weight_of(s->active[i]);
        }
    }
    int left = prefill_tok(s, s->n_active - n_prefill);
    /* shares by weight; what a short prompt leaves goes to those behind it */
    for (int i = 0; i < s->n_active; i++) {
        int todo = task_todo(s->active[i]);
        if (todo == 1)
            continue;
        int weight = weight_of(s->active[i]);
        int share = (left * weight + weights - 1) / weights;
        weights -= weight;
        n_tok[i] = todo < share ? todo : share;
        n_tok[i] = n_tok[i] > 1 ? n_tok[i] : 1;
        left -= n_tok[i];
        left = left > 0 ? left : 0;
    }
}

/* Learns what a token costs. */
static void learn(struct sched *s, int n_tok, int64_t us) {
    if (n_tok < SCHED_MIN_CHUNK)
        return;
    double cost = (double)us / n_tok;
    /* quick to believe a lower cost: the first steps wait for pages of the model to come in */
    bool lower = s->us_per_tok == 0 || cost < s->us_per_tok;
    s->us_per_tok = lower ? cost : (s->us_per_tok + cost) / 2;
    if (n_tok > s->measured_tok)
        s->measured_tok = n_tok;
}

/* Tokens of the rows come to lend.got where they are lent; else their logits. */
static enum status forward(struct sched *s, int n_seq, int n_tok, bool lent, float *logits,
                           struct err *err) {
    struct batch b = {.tokens = s->tokens, .n_tok = n_tok, .seqs = s->seqs, .n_seq = n_seq};
    int64_t start = clock_us();
    if (lent)
        CHECK(graph_sample(s->graph, &b, s->lend.rows, s->lend.got, err));
    else
        CHECK(graph_forward(s->graph, &b, logits, err));
    int64_t us = clock_us() - start;
    if (s->decoding)
        spec_measured(s->spec, n_tok, us);
    else
        learn(s, n_tok, us);
    return ST_OK;
}

static void room_for_logits(struct sched *s, int n) {
    if (n <= s->cap_logits)
        return;
    free(s->logits);
    s->logits = xaligned((size_t)n, (size_t)s->n_vocab * sizeof *s->logits);
    s->cap_logits = n;
}

/* One sequence of the batch: the next n_more tokens of a timeline of n_total behind what kv
 * holds. */
static void add_seq(struct sched *s, int at, int *n_tok, const struct kv_seq *kv,
                    const int32_t *tokens, int n_total, int n_more, int n_logits) {
    s->seqs[at] = (struct batch_seq){.blocks = kv->blocks,
                                     .n_past = kv->n_tok,
                                     .n_tok = n_more,
                                     .n_logits = n_logits,
                                     .n_total = n_total};
    memcpy(s->tokens + *n_tok, tokens + kv->n_tok, (size_t)n_more * sizeof *tokens);
    *n_tok += n_more;
}

static enum status sample(struct sched *s, struct task *t, int thread, float *logits,
                          struct sampled *next, struct err *err) {
    return sampler_next(&t->sampler, s->scratch[thread], logits, t->tokens, (size_t)t->n_tok,
                        next, err);
}

static void choose_one(void *ctx, int item, int thread) {
    struct sched *s = ctx;
    struct choice *c = &s->choices[item];
    if (c->logits)
        c->st = sample(s, c->task, thread, c->logits, &c->next, &c->err);
    else if (c->n_row)
        c->st = sampler_lent(c->got, &c->next, &c->err);
}

/* Fills lend.rows for the batch of n sequences with n_row rows; false: not all of them can be
 * lent. No draw is made before it is certain. */
static bool lend(struct sched *s, int n, int n_row) {
    struct sample_row *row = s->lend.rows;
    int n_token = 0;
    if (n_row == 0 || !graph_can_sample(s->graph, n_row))
        return false;
    for (int i = 0; i < n; i++)
        if (s->seqs[i].n_logits > 1 ||
            (s->seqs[i].n_logits && !sampler_can_lend(&s->active[i]->sampler)))
            return false;
    for (int i = 0; i < n; i++) {
        struct task *t = s->active[i];
        if (s->seqs[i].n_logits == 0)
            continue;
        if (!sampler_lend(&t->sampler, s->scratch[0], t->tokens, (size_t)t->n_tok,
                          s->lend.tokens + n_token, BACKEND_SAMPLE_TOKENS - n_token, row))
            return false;
        n_token += row++->n_token;
    }
    row = s->lend.rows;
    for (int i = 0; i < n; i++)
        if (s->seqs[i].n_logits)
            sampler_lend_draw(&s->active[i]->sampler, row++);
    return true;
}

/* Where each task's part of what the batch gives will be. */
static void share_rows(struct sched *s, int n, bool lent) {
    for (int i = 0, at = 0; i < n; i++) {
        struct choice *c = &s->choices[i];
        c->n_row = s->seqs[i].n_logits;
        c->logits = c->n_row && !lent ? s->logits + (size_t)at * (size_t)s->n_vocab : NULL;
        c->got = s->lend.got + (lent ? at : 0);
        at += c->n_row;
    }
}

/* What the batch means for one task. Its rows of logits are one, sampled already, and another
 * for each guess behind its last token; there are none while it prefills. Of the guesses only
 * those that turned out right enter the session's KV; what the others left in its own blocks is
 * written over. */
static void advance(struct sched *s, struct choice *c, int n_more) {
    struct task *t = c->task;
    struct session *ss = t->session;
    kv_commit(s->pool, &ss->kv, t->tokens + ss->kv.n_tok, n_more);
    task_note_said(t);
    atomic_store(&ss->cached_tok, ss->kv.n_tok);
    task_prefilled(t);
    if (task_todo(t) > 0)
        return;
    enum finish why = FINISH_LENGTH;
    for (int i = 0; c->n_row; i++) {
        if (i > 0)
            c->st =
                sample(s, t, 0, c->logits + (size_t)i * (size_t)s->n_vocab, &c->next, &c->err);
        if (c->st != ST_OK) {
            sched_fail(s, t, &c->err);
            return;
        }
        bool guessed = spec_right(s->spec, t, i, c->next.token);
        if (!task_token(t, &c->next, s->text, &why))
            break;
        if (!guessed) {
            kv_trim(s->pool, &ss->kv);
            return;
        }
        kv_commit(s->pool, &ss->kv, &c->next.token, 1);
        task_note_said(t);
        atomic_store(&ss->cached_tok, ss->kv.n_tok);
    }
    sched_finish(s, t, why);
}

void sched_run_batch(struct sched *s) {
    int n_more[SCHED_MAX_ACTIVE], n_tok = 0, n_logits = 0;
    follow_kinds(s);
    make_place(s);
    plan(s, n_more);
    for (int i = 0; i < s->n_active; i++)
        if (!sched_reserve(s, s->active[i], n_more[i]))
            break;
    int n = s->n_active;
    s->decoding = spec_plan(s->spec, s->pool, s->active, n, n_more);
    for (int i = 0; i < n; i++) {
        struct task *t = s->choices[i].task = s->active[i];
        bool sample = n_more[i] == task_todo(t) && t->n_tok < t->last_tok;
        add_seq(s, i, &n_tok, &t->session->kv, t->tokens, t->n_tok, n_more[i], sample);
        n_tok += spec_add(t, &s->seqs[i], s->tokens + n_tok);
        n_logits += s->seqs[i].n_logits;
    }
    if (n == 0)
        return;
    bool lent = lend(s, n, n_logits);
    if (!lent)
        room_for_logits(s, n_logits);
    share_rows(s, n, lent);
    struct err err;
    bool ok = forward(s, n, n_tok, lent, s->logits, &err) == ST_OK;
    if (ok)
        graph_parallel(s->graph, n, choose_one, s);
    for (int i = 0; i < n; i++)
        if (ok)
            advance(s, &s->choices[i], n_more[i]);
        else
            sched_fail(s, s->choices[i].task, &err);
    for (int i = 0; i < s->n_active; i++)
        mailbox_wake(s->active[i]->events); /* once for all that a step made */
    if (s->decoding && s->n_active) /* who ended has its answer, and nobody waits for more */
        graph_settle(s->graph);
}

/* ---- evaluation ---- */

void sched_evaluate(struct sched *s, struct eval *e) {
    struct eval **at = &s->evals;
    while (*at)
        at = &(*at)->next;
    *at = e;
}

void sched_eval_end(struct sched *s, enum status st) {
    struct eval *e = s->evals;
    struct mailbox *reply = e->reply;
    s->evals = e->next;
    e->st = st;
    kv_seq_release(s->pool, &e->kv);
    mailbox_put(reply, e); /* e is its owner's again */
    mailbox_unref(reply);
}

/* Runs n_more tokens and hands the logits out. */
static enum status eval_chunk(struct sched *s, struct eval *e, int n_more) {
    int past = e->kv.n_tok, end = past + n_more, n_tok = 0;
    int from = e->first > past ? e->first : past; /* first position with logits */
    int n_logits = end > from ? end - from : 0;
    size_t n_vocab = (size_t)s->n_vocab;
    add_seq(s, 0, &n_tok, &e->kv, e->tokens, e->n_tok, n_more, n_logits);
    if (!e->out)
        room_for_logits(s, n_logits);
    float *logits = e->out ? e->out + (size_t)(from - e->first) * n_vocab : s->logits;
    CHECK(forward(s, 1, n_tok, false, logits, &e->err));
    kv_commit(s->pool, &e->kv, e->tokens + past, n_more);
    for (int i = 0; i < n_logits && e->row; i++)
        CHECK(e->row(e->user, from + i, logits + (size_t)i * n_vocab, &e->err));
    return ST_OK;
}

void sched_eval_step(struct sched *s) {
    struct eval *e = s->evals;
    if (atomic_load(&e->cancel)) {
        err_set(&e->err, ST_CANCELLED, "cancelled");
        sched_eval_end(s, ST_CANCELLED);
        return;
    }
    if (!e->running) {
        e->kv.hidden = true;
        if (!sched_make_room(s, kv_need(&e->kv, e->n_tok), NULL))
            return;
        bool got = kv_reserve(s->pool, &e->kv, e->n_tok);
        assert(got);
        (void)got;
        e->running = true;
    }
    s->decoding = false;
    int n_more = e->n_tok - e->kv.n_tok;
    n_more = n_more < chunk_tok(s) ? n_more : chunk_tok(s);
    int logits_from = e->first > e->kv.n_tok ? e->first : e->kv.n_tok;
    if (n_more > logits_from - e->kv.n_tok + SCHED_EVAL_LOGITS)
        n_more = logits_from - e->kv.n_tok + SCHED_EVAL_LOGITS;
    enum status st = eval_chunk(s, e, n_more);
    if (st != ST_OK || e->kv.n_tok == e->n_tok)
        sched_eval_end(s, st);
}
