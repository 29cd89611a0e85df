/*
 * sched.c - see sched.h.
 *
 * Data: `active` and `waiting` hold tasks by rank, best first. A session whose task is not
 * active is idle: its blocks may be taken. Giving up an idle session's blocks costs little: the
 * full ones stay in the cache until they are really needed and are found again by their tokens.
 *
 * A step: raise who waited long; admit what fits; decide how many tokens each active task
 * brings; get blocks for them, best task first, the worst going back to `waiting` when there
 * are none; run the batch; commit the blocks; take the tokens. Then a step of the evaluation
 * that runs, if any, alone, because its logits go straight to their place.
 *
 * Why nothing blocks for ever: the best active task is never sent back for another one, and
 * when it is alone every block that is not its own is free, cached or idle; an evaluation takes
 * all its blocks before it starts, and while one waits for room no task is admitted. A task is
 * admitted only when its whole timeline fits beside those of the active tasks and each of these
 * could still get one more block, so that two tasks don't throw each other out in turns. What
 * waits is raised after a number of steps, for good, and is then the oldest of the best sooner
 * or later.
 *
 * Age is counted in steps, not in time: a test can count them, and a slow machine ages nobody
 * faster than it works.
 *
 * Rejected: reserving each request's longest possible answer (wastes most of the pool);
 * swapping blocks out to host memory (on a CPU they are in host memory already); strict classes
 * within a step (a stream of short interactive prompts would hold up all others).
 */
#include "engine/run/sched.h"

#include "base/clock.h"
#include "base/mem.h"
#include "engine/text.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The token behind what a task brought to a step. */
struct choice {
    struct task *task;
    float *logits; /* its rows; NULL: none is wanted */
    struct sampled next;
    enum status st;
    struct err err;
};

struct sched {
    struct graph *graph;
    const struct text_model *text;
    int n_vocab, ctx_tok;
    struct kv_pool *pool;
    struct keep *keep; /* or NULL */
    int64_t rest_us;   /* a conversation rests so long before its state is kept */
    struct session *sessions;
    uint64_t clock;

    struct task *active[SCHED_MAX_ACTIVE];
    int n_active, max_active;
    struct task **waiting; /* [n_waiting] */
    int n_waiting, cap_waiting;
    struct eval *evals;               /* first in, first out; the first may run */
    struct sampler_scratch **scratch; /* [n_scratch] a thread each */
    int n_scratch;
    struct choice *choices; /* [SCHED_MAX_ACTIVE] of a step */
    struct spec *spec;
    struct draft *draft; /* or NULL */
    bool decoding;       /* all tasks of the batch that runs do */

    int max_tok;       /* of the graph */
    int measured_tok;  /* largest batch so far; 0: none */
    int first_tok;     /* largest batch until then */
    double us_per_tok; /* 0: not measured */
    int32_t *tokens;   /* [max_tok] */
    float *logits;     /* [cap_logits, n_vocab] */
    int cap_logits;
    struct batch_seq seqs[SCHED_MAX_ACTIVE];
};

static void copy_block(void *user, int dst, int src, int n_tok) {
    graph_copy_block(user, dst, src, n_tok);
}

struct sched *sched_new(struct graph *graph, const struct text_model *text, int n_vocab,
                        int ctx_tok, int n_block, struct draft *draft) {
    struct sched *s = xcalloc(1, sizeof *s);
    s->graph = graph;
    s->draft = draft;
    s->spec = spec_new(graph, draft);
    s->text = text;
    s->n_vocab = n_vocab;
    s->ctx_tok = ctx_tok;
    s->pool = kv_pool_new(n_block, copy_block, graph);
    s->n_scratch = graph_threads(graph) > 0 ? graph_threads(graph) : 1;
    s->scratch = xcalloc((size_t)s->n_scratch, sizeof *s->scratch);
    for (int i = 0; i < s->n_scratch; i++)
        s->scratch[i] = sampler_scratch_new(n_vocab);
    s->choices = xcalloc(SCHED_MAX_ACTIVE, sizeof *s->choices);
    s->max_tok = graph_max_tok(graph);
    s->first_tok = 2 * KV_BLOCK;
    s->max_active = s->max_tok / 2 < SCHED_MAX_ACTIVE ? s->max_tok / 2 : SCHED_MAX_ACTIVE;
    assert(s->max_active >= 1 && (ctx_tok + KV_BLOCK - 1) / KV_BLOCK <= n_block);
    s->tokens = xcalloc((size_t)s->max_tok, sizeof *s->tokens);
    return s;
}

void sched_expect(struct sched *s, double us_per_tok) {
    double n = SCHED_ALONE_US / us_per_tok;
    s->first_tok = n < SCHED_MIN_CHUNK   ? SCHED_MIN_CHUNK
                   : n < SCHED_FIRST_TOK ? (int)n
                                         : SCHED_FIRST_TOK;
}

/* ---- sessions ---- */

void sched_add_session(struct sched *s, struct session *ss) {
    ss->next = s->sessions;
    if (ss->next)
        ss->next->prev = ss;
    s->sessions = ss;
    ss->used = ++s->clock;
}

void sched_fork(struct sched *s, struct session *dst, const struct session *src) {
    sched_add_session(s, dst);
    kv_fork(s->pool, &dst->kv, &src->kv);
    dst->said_tok = src->said_tok;
    shift_copy(&dst->map, &src->map);
    atomic_store(&dst->cached_tok, dst->kv.n_tok);
}

static bool is_idle(const struct session *ss) {
    return !ss->task || !ss->task->active;
}

/* ---- states in files ---- */

void sched_keep(struct sched *s, struct keep_params *p, int idle_ms) {
    p->graph = s->graph;
    p->pool = s->pool;
    s->keep = keep_open(p);
    s->rest_us = (int64_t)idle_ms * 1000;
}

void sched_keep_session(struct sched *s, struct session *ss, int64_t owner) {
    (void)s;
    ss->kept_tok = owner == ss->owner ? ss->kept_tok : 0;
    ss->owner = owner;
}

void sched_forget(struct sched *s, int64_t owner) {
    if (s->keep)
        keep_forget(s->keep, owner);
}

static void keep_session(struct sched *s, struct session *ss) {
    keep_save(s->keep, &ss->kv, session_said(ss), ss->owner);
    ss->kept_tok = session_said(ss);
}

/* Enough is new: a state is written whole, and with a quarter more each time what is written in
 * all is at most five times the last one. */
static bool keep_pays(const struct session *ss) {
    int more = ss->kept_tok / 4 > KEEP_MIN_TOK ? ss->kept_tok / 4 : KEEP_MIN_TOK;
    return ss->owner && !ss->task && !ss->kv.moved_from &&
           session_said(ss) >= ss->kept_tok + more;
}

void sched_tend(struct sched *s) {
    if (!s->keep)
        return;
    keep_pump(s->keep);
    int64_t now = clock_us();
    for (struct session *ss = s->sessions; ss; ss = ss->next)
        if (keep_pays(ss) && now >= ss->ended_us + s->rest_us)
            keep_session(s, ss);
}

int sched_wait_ms(const struct sched *s) {
    int64_t first = INT64_MAX, now = clock_us();
    for (struct session *ss = s->sessions; ss && s->keep; ss = ss->next)
        if (keep_pays(ss) && ss->ended_us + s->rest_us < first)
            first = ss->ended_us + s->rest_us;
    if (first == INT64_MAX)
        return -1;
    return first > now ? (int)((first - now) / 1000) + 1 : 0;
}

/* ---- room ---- */

/* Makes the idle session that was used longest ago give up its blocks, or what waits to be
 * written to a file. False when there is none. */
static bool release_idle(struct sched *s, const struct session *except) {
    struct session *oldest = NULL;
    for (struct session *ss = s->sessions; ss; ss = ss->next)
        if (ss != except && is_idle(ss) && ss->kv.n_block &&
            (!oldest || ss->used < oldest->used))
            oldest = ss;
    if (!oldest)
        return s->keep && keep_give_up(s->keep);
    kv_seq_clear(s->pool, &oldest->kv);
    atomic_store(&oldest->cached_tok, 0);
    return true;
}

/* Sees to n_block blocks that can be taken without disturbing an active task. */
static bool make_room(struct sched *s, int n_block, const struct session *except) {
    while (kv_available(s->pool) < n_block)
        if (!release_idle(s, except))
            return false;
    return true;
}

/* ---- tasks ---- */

static bool ranks_before(const struct task *a, const struct task *b) {
    return a->priority != b->priority ? a->priority > b->priority : a->serial < b->serial;
}

static void insert_ranked(struct task **list, int *n, struct task *t) {
    int i = (*n)++;
    for (; i > 0 && ranks_before(t, list[i - 1]); i--)
        list[i] = list[i - 1];
    list[i] = t;
}

static void wait_in_order(struct sched *s, struct task *t) {
    if (s->n_waiting == s->cap_waiting) {
        s->cap_waiting = s->cap_waiting ? s->cap_waiting * 2 : 8;
        s->waiting = xreallocarray(s->waiting, (size_t)s->cap_waiting, sizeof *s->waiting);
    }
    insert_ranked(s->waiting, &s->n_waiting, t);
}

static void remove_at(struct task **list, int *n, int i) {
    memmove(&list[i], &list[i + 1], (size_t)(*n - i - 1) * sizeof *list);
    (*n)--;
}

/* Takes the task off its list and puts its session in order. */
static void detach(struct sched *s, struct task *t) {
    struct task **list = t->active ? s->active : s->waiting;
    int *n = t->active ? &s->n_active : &s->n_waiting;
    for (int i = 0; i < *n; i++)
        if (list[i] == t) {
            remove_at(list, n, i);
            break;
        }
    kv_trim(s->pool, &t->session->kv);
    t->session->used = ++s->clock;
    t->session->ended_us = clock_us();
}

static void finish(struct sched *s, struct task *t, enum finish why) {
    detach(s, t);
    task_finish(t, why);
}

static void fail(struct sched *s, struct task *t, const struct err *err) {
    detach(s, t);
    task_fail(t, err);
}

void sched_submit(struct sched *s, struct task *t) {
    sched_cancel(s, t->session); /* an idle one that still runs */
    t->session->task = t;
    t->serial = ++s->clock;
    wait_in_order(s, t);
}

void sched_cancel(struct sched *s, struct session *ss) {
    if (ss->task)
        finish(s, ss->task, FINISH_CANCEL);
}

void sched_free_session(struct sched *s, struct session *ss) {
    sched_cancel(s, ss);
    if (s->draft)
        draft_forget(s->draft, ss);
    if (s->keep && ss->owner)
        keep_session(s, ss);
    kv_seq_release(s->pool, &ss->kv);
    shift_release(&ss->map);
    if (ss->prev)
        ss->prev->next = ss->next;
    else
        s->sessions = ss->next;
    if (ss->next)
        ss->next->prev = ss->prev;
    free(ss);
}

/* Reads what a file has of the task's tokens, a piece. True when there is more. */
static bool load_state(struct sched *s, const struct task *t) {
    struct session *ss = t->session;
    bool alone = s->n_active + (s->evals && s->evals->running) == 0;
    size_t piece = alone ? 4 * (size_t)SCHED_LOAD_BYTES : SCHED_LOAD_BYTES;
    int held = ss->kv.n_tok;
    bool more = s->keep && keep_load(s->keep, &ss->kv, t->tokens, t->n_tok, piece);
    if (ss->kv.n_tok > held)
        ss->kept_tok = ss->kv.n_tok; /* a file has them */
    task_note_said(t);
    atomic_store(&ss->cached_tok, ss->kv.n_tok);
    return more;
}

/* Back to waiting; its blocks can be taken by others and are computed again when they were. */
static void park(struct sched *s, struct task *t) {
    detach(s, t);
    t->active = false;
    wait_in_order(s, t);
}

/* As park(), and gives the blocks up at once. */
static void preempt(struct sched *s, struct task *t) {
    park(s, t);
    kv_seq_clear(s->pool, &t->session->kv);
    atomic_store(&t->session->cached_tok, 0);
}

/* Blocks that the n best active tasks have still to get: for their timelines, and one for each
 * to grow into. */
static int promised(const struct sched *s, int n) {
    int n_block = n;
    for (int i = 0; i < n; i++)
        n_block += kv_need(&s->active[i]->session->kv, task_todo(s->active[i]));
    return n_block;
}

/* Makes room for t by sending back active tasks of lower classes, unless all of them together
 * would not be enough. */
static bool displace(struct sched *s, const struct task *t, int n_block) {
    int first = s->n_active, could = kv_available(s->pool);
    while (first > 0 && s->active[first - 1]->priority < t->priority)
        could += s->active[--first]->session->kv.n_block;
    if (first == s->n_active || could < n_block + promised(s, first))
        return false;
    do
        preempt(s, s->active[s->n_active - 1]);
    while (s->n_active > first && kv_available(s->pool) < n_block + promised(s, s->n_active));
    return kv_available(s->pool) >= n_block + promised(s, s->n_active);
}

/* The first waiting task becomes active when its whole timeline fits. */
static bool admit_first(struct sched *s) {
    struct task *t = s->waiting[0];
    struct session *ss = t->session;
    if (s->n_active == s->max_active && s->active[s->n_active - 1]->priority >= t->priority)
        return false;
    make_room(s, shift_need(s->pool, t), ss);
    shift_fit(s->pool, s->graph, t);
    kv_set_kind(s->pool, &ss->kv, graph_kv_kind(s->graph, t->n_tok));
    task_unsay(t);
    int kept = kv_match(s->pool, &ss->kv, t->tokens, t->n_tok);
    task_note_said(t);
    if (kept < ss->kept_tok)
        ss->kept_tok = kept; /* another branch */
    int need = kv_need(&ss->kv, t->n_tok - kept);
    bool fits =
        make_room(s, need + promised(s, s->n_active), ss) && s->n_active < s->max_active;
    if (!fits && !displace(s, t, need)) {
        atomic_store(&ss->cached_tok, kept);
        return false;
    }
    if (load_state(s, t)) /* goes on behind the next step */
        return false;
    kept = ss->kv.n_tok;
    if (!t->started) {
        t->started = true;
        t->cached_tok = kept;
        t->started_us = clock_us();
        task_leave_queue(t);
    }
    remove_at(s->waiting, &s->n_waiting, 0); /* who was displaced ranks behind it */
    t->active = true;
    insert_ranked(s->active, &s->n_active, t);
    return true;
}

/* Idle tasks stand back as soon as there is something else. */
static bool others_work(const struct sched *s) {
    return s->evals || (s->n_active && s->active[0]->priority > PRIORITY_IDLE) ||
           (s->n_waiting && s->waiting[0]->priority > PRIORITY_IDLE);
}

static void park_idle(struct sched *s) {
    while (s->n_active && s->active[s->n_active - 1]->priority == PRIORITY_IDLE)
        park(s, s->active[s->n_active - 1]);
}

/* Who waited long enough ranks by its age alone from now on. */
static void raise_waiting(struct sched *s) {
    for (int i = 0; i < s->n_waiting; i++) {
        struct task *t = s->waiting[i];
        if (t->priority != PRIORITY_NORMAL || ++t->waited < SCHED_AGE_STEPS)
            continue;
        remove_at(s->waiting, &s->n_waiting, i);
        t->priority = PRIORITY_INTERACTIVE;
        wait_in_order(s, t); /* at i or before it: those behind are still to come */
    }
}

static void admit_waiting(struct sched *s) {
    raise_waiting(s);
    bool others = others_work(s);
    if (others)
        park_idle(s);
    while (s->n_waiting && !(s->evals && !s->evals->running)) {
        if ((others && s->waiting[0]->priority == PRIORITY_IDLE) || !admit_first(s))
            break;
    }
}

/* Blocks for n_more tokens of t. False when t itself had to go back to waiting. */
static bool reserve(struct sched *s, struct task *t, int n_more) {
    while (!kv_reserve(s->pool, &t->session->kv, n_more)) {
        if (release_idle(s, NULL))
            continue;
        struct task *worst = s->active[s->n_active - 1];
        preempt(s, worst);
        if (worst == t)
            return false;
    }
    return true;
}

/* ---- a step ---- */

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
        make_room(s, shift_need(s->pool, t), t->session);
        shift_on(s->pool, s->graph, t);
        atomic_store(&t->session->cached_tok, t->session->kv.n_tok);
    }
}

/* Tokens of one step that prefills: as many as their time allows, at most twice as many as were
 * measured last. */
static int chunk_tok(const struct sched *s) {
    /* an idle one keeps to shorter steps: nobody waits for it, but somebody may come */
    bool alone = s->n_active + (s->evals && s->evals->running) == 1 && others_work(s);
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

static enum status forward(struct sched *s, int n_seq, int n_tok, float *logits,
                           struct err *err) {
    struct batch b = {.tokens = s->tokens, .n_tok = n_tok, .seqs = s->seqs, .n_seq = n_seq};
    int64_t start = clock_us();
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
    size_t size;
    if (mul_overflows((size_t)n, (size_t)s->n_vocab, &size))
        abort();
    s->logits = xreallocarray(s->logits, size, sizeof *s->logits);
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
    for (int i = 0; c->logits; i++) {
        if (i > 0)
            c->st =
                sample(s, t, 0, c->logits + (size_t)i * (size_t)s->n_vocab, &c->next, &c->err);
        if (c->st != ST_OK) {
            fail(s, t, &c->err);
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
    finish(s, t, why);
}

static void run_batch(struct sched *s) {
    int n_more[SCHED_MAX_ACTIVE], n_tok = 0, n_logits = 0;
    follow_kinds(s);
    make_place(s);
    plan(s, n_more);
    for (int i = 0; i < s->n_active; i++)
        if (!reserve(s, s->active[i], n_more[i]))
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
    room_for_logits(s, n_logits);
    struct err err;
    bool ok = forward(s, n, n_tok, s->logits, &err) == ST_OK;
    float *row = s->logits;
    for (int i = 0; i < n; i++) {
        int n_rows = s->seqs[i].n_logits;
        s->choices[i].logits = n_rows ? row : NULL;
        row += (size_t)n_rows * (size_t)s->n_vocab;
    }
    if (ok)
        graph_parallel(s->graph, n, choose_one, s);
    for (int i = 0; i < n; i++)
        if (ok)
            advance(s, &s->choices[i], n_more[i]);
        else
            fail(s, s->choices[i].task, &err);
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

static void eval_end(struct sched *s, enum status st) {
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
    CHECK(forward(s, 1, n_tok, logits, &e->err));
    kv_commit(s->pool, &e->kv, e->tokens + past, n_more);
    for (int i = 0; i < n_logits && e->row; i++)
        CHECK(e->row(e->user, from + i, logits + (size_t)i * n_vocab, &e->err));
    return ST_OK;
}

static void eval_step(struct sched *s) {
    struct eval *e = s->evals;
    if (atomic_load(&e->cancel)) {
        err_set(&e->err, ST_CANCELLED, "cancelled");
        eval_end(s, ST_CANCELLED);
        return;
    }
    if (!e->running) {
        e->kv.hidden = true;
        if (!make_room(s, kv_need(&e->kv, e->n_tok), NULL))
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
        eval_end(s, st);
}

/* ---- from outside ---- */

bool sched_has_work(const struct sched *s) {
    return s->n_active || s->n_waiting || s->evals;
}

void sched_step(struct sched *s) {
    admit_waiting(s);
    if (s->n_active)
        run_batch(s);
    if (s->evals)
        eval_step(s);
}

static bool ranked(struct task *const *list, int n, bool active) {
    for (int i = 0; i < n; i++)
        if (list[i]->active != active || list[i]->session->task != list[i] ||
            (i > 0 && !ranks_before(list[i - 1], list[i])))
            return false;
    return true;
}

bool sched_consistent(const struct sched *s) {
    int n = 0, n_task = 0;
    for (const struct session *ss = s->sessions; ss; ss = ss->next) {
        n++;
        n_task += ss->task != NULL;
    }
    for (const struct eval *e = s->evals; e; e = e->next)
        n++;
    int n_kept = keep_seqs(s->keep, NULL, 0); /* only this thread changes it */
    const struct kv_seq **seqs = xreallocarray(NULL, (size_t)(n + n_kept) + 1, sizeof *seqs);
    n = keep_seqs(s->keep, seqs, n_kept);
    for (const struct session *ss = s->sessions; ss; ss = ss->next)
        seqs[n++] = &ss->kv;
    for (const struct eval *e = s->evals; e; e = e->next)
        seqs[n++] = &e->kv;
    bool ok = kv_consistent(s->pool, seqs, n) && n_task == s->n_active + s->n_waiting &&
              ranked(s->active, s->n_active, true) && ranked(s->waiting, s->n_waiting, false);
    free(seqs);
    return ok;
}

void sched_free(struct sched *s) {
    if (!s)
        return;
    while (s->evals) {
        err_set(&s->evals->err, ST_CANCELLED, "the model is being closed");
        eval_end(s, ST_CANCELLED);
    }
    while (s->sessions) { /* the one that was used last is saved first */
        struct session *last = s->sessions;
        for (struct session *ss = last; ss; ss = ss->next)
            last = ss->used > last->used ? ss : last;
        sched_free_session(s, last);
    }
    keep_close(s->keep);
    kv_pool_free(s->pool);
    for (int i = 0; i < s->n_scratch; i++)
        sampler_scratch_free(s->scratch[i]);
    free(s->scratch);
    free(s->choices);
    spec_free(s->spec);
    free(s->waiting);
    free(s->tokens);
    free(s->logits);
    free(s);
}
