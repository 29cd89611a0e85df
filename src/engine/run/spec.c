/*
 * spec.c - see spec.h. What is guessed, and whether that pays.
 *
 * Two things are learned. The odds that a guess is right: running averages by the length of the
 * match it continues (that of the second guess is one longer), kept for each answer and begun
 * with what was seen in all; what lookup proposes is compared with what the model says also
 * when it was not put into the batch, so these odds cost nothing and are never out of date. And
 * the time of a decoding step by its number of rows; what was not measured lately lies between
 * its measured neighbours, or costs what the next smaller one does, so that it is tried when a
 * guess is good, at most twice as many rows at a time.
 *
 * A plan maximises tokens per time: guesses are added one at a time, always the likeliest to
 * be reached and right, and the number with the best (tokens expected) / (time) is taken when
 * it beats the step without guesses by a margin. With many tasks a row costs nearly as much as
 * a token is worth, and the plan is empty by itself.
 *
 * The draft model's odds are known only from tries. While they are too bad it is tried rarely,
 * each time after a pause twice as long.
 *
 * Rejected: a fixed number of guesses (loses where steps are bound by arithmetic); stopping and
 * starting by thresholds on the acceptance alone (the price of a row differs by ten between
 * models and machines).
 */
#include "engine/run/spec.h"

#include "base/mem.h"
#include "engine/run/draft.h"
#include "engine/run/task.h"
#include <stdlib.h>
#include <string.h>

enum {
    STALE_STEPS = 512, /* a measured time counts for so many steps */
    FIRST_PAUSE = 16,  /* steps until the draft model is tried again */
    LAST_PAUSE = 512,
    TRY_DRAFT = 2, /* guesses of a try */
};

static const double MARGIN = 1.03;        /* what a plan must gain */
static const double RATE = 1.0 / 32;      /* of an answer's averages */
static const double RATE_ALL = 1.0 / 128; /* of those over all answers */
static const int class_from[SPEC_CLASSES] = {2, 3, 4, 6, 10, 18}; /* match length */

struct spec {
    const struct graph *graph;
    struct draft *draft; /* or NULL */
    int max_rows;
    struct spec_odds odds;
    uint64_t step;
    double us[SPEC_MAX_ROWS + 1];   /* of a step by rows */
    uint64_t at[SPEC_MAX_ROWS + 1]; /* when that was measured; 0: never */
    double draft_us;                /* one round of the draft model; 0: not measured */
};

struct spec *spec_new(const struct graph *graph, struct draft *draft) {
    struct spec *sp = xcalloc(1, sizeof *sp);
    int most = graph_max_tok(graph);
    sp->graph = graph;
    sp->draft = draft;
    sp->max_rows = most < SPEC_MAX_ROWS ? most : SPEC_MAX_ROWS;
    sp->odds = (struct spec_odds){.lookup = {.2, .3, .45, .6, .75, .85}, .draft = .6};
    return sp;
}

void spec_free(struct spec *sp) {
    free(sp);
}

void spec_task_release(struct spec_task *t) {
    lookup_release(&t->lookup);
}

/* ---- what a step costs ---- */

/* Quick to believe a lower time: others on the machine only make it longer. */
static void average(double *mean, double us) {
    us = us > 1 ? us : 1;
    if (*mean <= 0)
        *mean = us;
    else
        *mean += (us - *mean) / (us < *mean ? 2 : 8);
}

static bool known(const struct spec *sp, int rows) {
    return sp->at[rows] && sp->step - sp->at[rows] < STALE_STEPS;
}

void spec_measured(struct spec *sp, int n_tok, int64_t us) {
    sp->step++;
    if (n_tok > sp->max_rows)
        return;
    if (!known(sp, n_tok))
        sp->us[n_tok] = 0;
    average(&sp->us[n_tok], (double)us);
    sp->at[n_tok] = sp->step;
}

/* A step of so many rows, at least `base`, whose time is known. Never more than one of more
 * rows took: then this one's was measured while others used the machine. */
static double cost(const struct spec *sp, int base, int rows) {
    int low = rows, high = rows;
    while (low > base && !known(sp, low))
        low--;
    while (high <= sp->max_rows && !known(sp, high))
        high++;
    double us = sp->us[low];
    if (high <= sp->max_rows && high > low)
        us += (sp->us[high] - us) * (rows - low) / (high - low);
    for (int r = high; r <= sp->max_rows; r++)
        if (known(sp, r) && sp->us[r] < us)
            us = sp->us[r];
    return us;
}

/* Rows that may be tried: twice as many as are known. */
static int bound(const struct spec *sp, int base) {
    int most = base;
    for (int r = base; r <= sp->max_rows; r++)
        if (known(sp, r))
            most = r;
    return 2 * most < sp->max_rows ? 2 * most : sp->max_rows;
}

/* ---- a plan ---- */

struct bid {
    int cap, n; /* guesses possible, taken */
    double p;   /* that the next one is reached and right */
};

static int class_of(int len) {
    int c = SPEC_CLASSES - 1;
    while (c > 0 && len < class_from[c])
        c--;
    return c;
}

/* That guess j of the task is right when those before it are. */
static double odds(const struct spec_task *t, int j) {
    return t->from == SPEC_DRAFT ? t->odds.draft : t->odds.lookup[class_of(t->len + j)];
}

static int likeliest(const struct bid *bids, int n) {
    int best = -1;
    for (int i = 0; i < n; i++)
        if (bids[i].n < bids[i].cap && (best < 0 || bids[i].p > bids[best].p))
            best = i;
    return best;
}

/* How many guesses of each task pay best: want [n]. */
static void share_out(const struct spec *sp, struct task *const *tasks, struct bid *bids, int n,
                      int *want) {
    int order[SPEC_MAX_ROWS], n_taken = 0, n_best = 0, rounds = 0;
    double value = n, best = value / cost(sp, n, n) * MARGIN;
    int most = bound(sp, n);
    for (int rows = n + 1; rows <= most; rows++) {
        int i = likeliest(bids, n);
        if (i < 0)
            break;
        const struct spec_task *t = &tasks[i]->spec;
        order[n_taken++] = i;
        value += bids[i].p;
        bids[i].n++;
        bids[i].p *= odds(t, bids[i].n);
        if (t->from == SPEC_DRAFT && bids[i].n > rounds)
            rounds = bids[i].n;
        double rate = value / (cost(sp, n, rows) + rounds * sp->draft_us);
        if (rate > best) {
            best = rate;
            n_best = n_taken;
        }
    }
    memset(want, 0, (size_t)n * sizeof *want);
    for (int i = 0; i < n_best; i++)
        want[order[i]]++;
}

/* Guesses that t could use at most: the answer may end, and keys of one step must all have the
 * angles that they would have one by one. */
static int cap_of(const struct spec *sp, const struct task *t) {
    int end = t->last_tok < t->ctx_tok ? t->last_tok : t->ctx_tok, cap = end - t->n_tok - 1;
    cap = cap < SPEC_MAX_DRAFT ? cap : SPEC_MAX_DRAFT;
    while (cap > 0 && !graph_same_angles(sp->graph, t->n_tok, t->n_tok + cap))
        cap--;
    return cap > 0 ? cap : 0;
}

/* What followed where the timeline ended alike before; a run that reaches the timeline's end
 * goes on with itself. */
static void look_up(struct task *t, int cap) {
    struct spec_task *s = &t->spec;
    int at = lookup_find(&s->lookup, t->tokens, t->n_tok, &s->len);
    for (int i = 0; at >= 0 && i < cap; i++)
        s->found[s->n_found++] =
            at + i < t->n_tok ? t->tokens[at + i] : s->found[at + i - t->n_tok];
}

/* Blocks for the guesses of t; fewer guesses when others could miss the blocks. */
static int take_room(struct kv_pool *pool, struct task *t, int want, int spare) {
    struct kv_seq *kv = &t->session->kv;
    while (want > 0 && kv_available(pool) < kv_need(kv, 1 + want) + spare)
        want--;
    return want > 0 && kv_reserve(pool, kv, 1 + want) ? want : 0;
}

/* Now and then the draft model is tried although it does not pay. */
static int retry(struct spec_task *s, int want, int cap) {
    if (want > 0) {
        s->pause = s->next_pause = 0;
        return want;
    }
    if (s->pause-- > 0 || cap < 1)
        return 0;
    s->next_pause = s->next_pause ? 2 * s->next_pause : FIRST_PAUSE;
    s->next_pause = s->next_pause < LAST_PAUSE ? s->next_pause : LAST_PAUSE;
    s->pause = s->next_pause;
    return TRY_DRAFT < cap ? TRY_DRAFT : cap;
}

static void plan_draft(struct spec *sp, struct task *const *tasks, int n, struct bid *bids,
                       int *want) {
    int ask[SPEC_MAX_SEQ] = {0};
    bool any = false;
    for (int i = 0; i < n; i++) {
        struct spec_task *s = &tasks[i]->spec;
        if (want[i] || (s->mode != SPECULATION_AUTO && s->mode != SPECULATION_DRAFT))
            continue;
        s->from = SPEC_DRAFT;
        bids[i].cap = cap_of(sp, tasks[i]);
    }
    for (int i = 0; i < n; i++) {
        bids[i].n = 0;
        bids[i].p = odds(&tasks[i]->spec, 0);
    }
    share_out(sp, tasks, bids, n, want);
    for (int i = 0; i < n; i++)
        if (tasks[i]->spec.from == SPEC_DRAFT) {
            want[i] = ask[i] = retry(&tasks[i]->spec, want[i], bids[i].cap);
            any = any || ask[i];
        }
    int64_t us;
    int rounds = any ? draft_guess(sp->draft, tasks, ask, n, &us) : 0;
    if (rounds)
        average(&sp->draft_us, (double)us / rounds);
    for (int i = 0; i < n; i++)
        if (ask[i])
            want[i] = tasks[i]->spec.n_draft;
}

static void start(struct spec *sp, struct spec_task *s) {
    if (!s->started)
        s->odds = sp->odds;
    s->started = true;
    s->n_found = s->n_draft = s->n_right = 0;
    s->from = SPEC_LOOKUP;
}

bool spec_plan(struct spec *sp, struct kv_pool *pool, struct task *const *tasks, int n,
               const int *n_more) {
    struct bid bids[SPEC_MAX_SEQ] = {{0}};
    int want[SPEC_MAX_SEQ];
    bool decoding = n > 0, wanted = false;
    for (int i = 0; i < n; i++) {
        start(sp, &tasks[i]->spec);
        decoding = decoding && n_more[i] == 1 && task_todo(tasks[i]) == 1;
        wanted = wanted || tasks[i]->spec.mode != SPECULATION_OFF;
    }
    if (!decoding || !wanted || n > SPEC_MAX_SEQ)
        return decoding;
    for (int i = 0; i < n; i++) {
        struct spec_task *s = &tasks[i]->spec;
        if (s->mode == SPECULATION_AUTO || s->mode == SPECULATION_LOOKUP)
            look_up(tasks[i], cap_of(sp, tasks[i]));
        bids[i] = (struct bid){.cap = s->n_found, .p = odds(s, 0)};
    }
    if (n > sp->max_rows || !known(sp, n)) /* a step without guesses must be measured first */
        return decoding;
    share_out(sp, tasks, bids, n, want);
    if (sp->draft)
        plan_draft(sp, tasks, n, bids, want);
    for (int i = 0, left = sp->max_rows - n; i < n; i++) {
        struct spec_task *s = &tasks[i]->spec;
        want[i] = want[i] < left ? want[i] : left;
        s->n_draft = take_room(pool, tasks[i], want[i], n);
        left -= s->n_draft;
        if (s->from == SPEC_LOOKUP)
            memcpy(s->draft, s->found, (size_t)s->n_draft * sizeof *s->draft);
    }
    return decoding;
}

int spec_add(struct task *t, struct batch_seq *q, int32_t *tokens) {
    struct spec_task *s = &t->spec;
    if (!s->n_draft)
        return 0;
    memcpy(tokens, s->draft, (size_t)s->n_draft * sizeof *tokens);
    q->n_tok += s->n_draft;
    q->n_logits += s->n_draft;
    q->n_total += s->n_draft;
    s->drafted += s->n_draft;
    return s->n_draft;
}

/* ---- what came of it ---- */

static void learn(double *mine, double *all, bool right) {
    *mine += (right - *mine) * RATE;
    *all += (right - *all) * RATE_ALL;
}

bool spec_right(struct spec *sp, struct task *t, int i, int32_t token) {
    struct spec_task *s = &t->spec;
    if (i < s->n_found && s->n_right == i) {
        int c = class_of(s->len + i);
        bool right = s->found[i] == token;
        s->n_right += right;
        learn(&s->odds.lookup[c], &sp->odds.lookup[c], right);
    }
    if (i >= s->n_draft)
        return false;
    bool right = s->draft[i] == token;
    if (s->from == SPEC_DRAFT)
        learn(&s->odds.draft, &sp->odds.draft, right);
    s->accepted += right;
    return right;
}
