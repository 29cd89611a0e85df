/*
 * sched.c - see sched.h. Sessions, and who may run; what a step computes is in sched_step.c.
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
 * Blocks that were swapped out come back when a task is admitted, as those of files do: by then
 * there is room for its whole timeline, which they fill in the place of computed ones.
 *
 * Rejected: reserving each request's longest possible answer (wastes most of the pool);
 * swapping in where prompts are matched with the pool (whose blocks others may still hold);
 * strict classes within a step (a stream of short interactive prompts would hold up all
 * others).
 */
#include "engine/run/sched_internal.h"

#include "base/clock.h"
#include "base/mem.h"
#include "engine/text.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct sched *sched_new(struct graph *graph, const struct text_model *text, int n_vocab,
                        int ctx_tok, int n_block, struct draft *draft) {
    struct sched *s = xcalloc(1, sizeof *s);
    s->graph = graph;
    s->draft = draft;
    s->spec = spec_new(graph, draft);
    s->text = text;
    s->n_vocab = n_vocab;
    s->ctx_tok = ctx_tok;
    s->pool = kv_pool_new(n_block, graph_kv_copy, graph);
    s->n_scratch = graph_threads(graph) > 0 ? graph_threads(graph) : 1;
    s->scratch = xcalloc((size_t)s->n_scratch, sizeof *s->scratch);
    for (int i = 0; i < s->n_scratch; i++)
        s->scratch[i] = sampler_scratch_new(n_vocab);
    s->choices = xcalloc(SCHED_MAX_ACTIVE, sizeof *s->choices);
    s->lend.rows = xcalloc(BACKEND_SAMPLE_ROWS, sizeof *s->lend.rows);
    s->lend.got = xcalloc(BACKEND_SAMPLE_ROWS, sizeof *s->lend.got);
    s->lend.tokens = xcalloc(BACKEND_SAMPLE_TOKENS, sizeof *s->lend.tokens);
    s->max_tok = graph_max_tok(graph);
    s->first_tok = 2 * KV_BLOCK;
    s->max_active = s->max_tok / 2 < SCHED_MAX_ACTIVE ? s->max_tok / 2 : SCHED_MAX_ACTIVE;
    assert(s->max_active >= 1 && kv_blocks(ctx_tok) <= n_block);
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

void sched_swap(struct sched *s, size_t block_bytes, uint64_t max_bytes) {
    s->swap = swap_open(s->graph, s->pool, block_bytes, max_bytes);
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
bool sched_make_room(struct sched *s, int n_block, const struct session *except) {
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

void sched_finish(struct sched *s, struct task *t, enum finish why) {
    detach(s, t);
    task_finish(t, why);
}

void sched_fail(struct sched *s, struct task *t, const struct err *err) {
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
        sched_finish(s, ss->task, FINISH_CANCEL);
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

/* Fetches what host memory, or a file, has of the task's tokens, a piece. True when there is
 * more. */
static bool load_state(struct sched *s, const struct task *t) {
    struct session *ss = t->session;
    bool alone = s->n_active + (s->evals && s->evals->running) == 0;
    size_t piece = alone ? 4 * (size_t)SCHED_LOAD_BYTES : SCHED_LOAD_BYTES;
    bool more = swap_bring(s->swap, &ss->kv, t->tokens, t->n_tok, piece);
    int held = ss->kv.n_tok;
    if (!more && s->keep && !t->hidden)
        more = keep_load(s->keep, &ss->kv, t->tokens, t->n_tok, piece);
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
    sched_make_room(s, shift_need(s->pool, t), ss);
    shift_fit(s->pool, s->graph, t);
    kv_set_kind(s->pool, &ss->kv, graph_kv_kind(s->graph, t->n_tok));
    if (ss->kv.n_tok == 0)
        ss->kv.hidden = t->hidden;
    task_unsay(t);
    int kept = kv_match(s->pool, &ss->kv, t->tokens, t->n_tok);
    task_note_said(t);
    int need = kv_need(&ss->kv, t->n_tok - kept);
    bool fits =
        sched_make_room(s, need + promised(s, s->n_active), ss) && s->n_active < s->max_active;
    if (!fits && !displace(s, t, need)) {
        atomic_store(&ss->cached_tok, kept);
        return false;
    }
    if (load_state(s, t)) /* goes on behind the next step */
        return false;
    kept = ss->kv.n_tok;
    if (kept < ss->kept_tok)
        ss->kept_tok = kept; /* another branch */
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
bool sched_others_work(const struct sched *s) {
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
    bool others = sched_others_work(s);
    if (others)
        park_idle(s);
    while (s->n_waiting && !(s->evals && !s->evals->running)) {
        if ((others && s->waiting[0]->priority == PRIORITY_IDLE) || !admit_first(s))
            break;
    }
}

/* Blocks for n_more tokens of t. False when t itself had to go back to waiting. */
bool sched_reserve(struct sched *s, struct task *t, int n_more) {
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

/* ---- from outside ---- */

bool sched_has_work(const struct sched *s) {
    return s->n_active || s->n_waiting || s->evals;
}

void sched_step(struct sched *s) {
    admit_waiting(s);
    if (s->n_active)
        sched_run_batch(s);
    if (s->evals)
        sched_eval_step(s);
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
        sched_eval_end(s, ST_CANCELLED);
    }
    while (s->sessions) { /* the one that was used last is saved first */
        struct session *last = s->sessions;
        for (struct session *ss = last; ss; ss = ss->next)
            last = ss->used > last->used ? ss : last;
        sched_free_session(s, last);
    }
    keep_close(s->keep);
    kv_pool_free(s->pool);
    swap_close(s->swap);
    for (int i = 0; i < s->n_scratch; i++)
        sampler_scratch_free(s->scratch[i]);
    free(s->scratch);
    free(s->choices);
    free(s->lend.rows);
    free(s->lend.got);
    free(s->lend.tokens);
    spec_free(s->spec);
    free(s->waiting);
    free(s->tokens);
    free(s->logits);
    free(s);
}
