/*
 * comm.c - a group's failure, and sums over host memory. See comm.h.
 *
 * A sum: every rank downloads its numbers to a place of its own; when all have, each adds all
 * of them in the order of the ranks, so that the bits are equal, and uploads the result; when
 * all have, the places may be written again.
 */
#include "engine/run/comm.h"

#include "base/mem.h"
#include "engine/backend.h"
#include <assert.h>
#include <stdlib.h>

void comm_stop_init(struct comm_stop *s) {
    atomic_init(&s->is, false);
    pthread_mutex_init(&s->lock, NULL);
    s->why = (struct err){0};
}

void comm_stop_release(struct comm_stop *s) {
    pthread_mutex_destroy(&s->lock);
}

void comm_fail(struct comm *c, const struct err *why) {
    struct comm_stop *s = c->stop;
    pthread_mutex_lock(&s->lock);
    bool first = !s->is;
    if (first)
        s->why = *why;
    s->is = true;
    pthread_mutex_unlock(&s->lock);
    if (first)
        c->let_go(c);
}

enum status comm_status(struct comm_stop *s, struct err *err) {
    if (!s->is)
        return ST_OK;
    pthread_mutex_lock(&s->lock);
    struct err why = s->why;
    pthread_mutex_unlock(&s->lock);
    if (err)
        *err = why;
    return why.code;
}

/* ---- over host memory ---- */

struct meeting {
    pthread_mutex_t lock;
    pthread_cond_t all_here;
    int n, here, n_open;
    unsigned round;
    size_t most;
    float **part; /* [n][most] what each rank brought */
};

struct member {
    struct comm comm;
    struct meeting *with;
    float *sum; /* [most] */
};

static struct member *member_of(struct comm *c) {
    return (struct member *)(void *)c;
}

/* Waits for all ranks. False: the group has stopped. */
static bool meet(struct member *m) {
    struct meeting *w = m->with;
    pthread_mutex_lock(&w->lock);
    unsigned round = w->round;
    if (!m->comm.stop->is && ++w->here == w->n) {
        w->here = 0;
        w->round++;
        pthread_cond_broadcast(&w->all_here);
    }
    while (w->round == round && !m->comm.stop->is)
        pthread_cond_wait(&w->all_here, &w->lock);
    bool met = w->round != round;
    pthread_mutex_unlock(&w->lock);
    return met;
}

static void threads_all_reduce(struct comm *c, struct backend *be, float *x, size_t n) {
    struct member *m = member_of(c);
    float *const *part = m->with->part;
    assert(n <= m->with->most);
    if (c->stop->is)
        return;
    be->download(be, part[c->rank], x, n * sizeof *x);
    if (!meet(m))
        return;
    for (size_t i = 0; i < n; i++) {
        float sum = part[0][i];
        for (int r = 1; r < c->n; r++)
            sum += part[r][i];
        m->sum[i] = sum;
    }
    be->upload(be, x, m->sum, n * sizeof *x);
    meet(m);
}

static void threads_let_go(struct comm *c) {
    struct meeting *w = member_of(c)->with;
    pthread_mutex_lock(&w->lock);
    pthread_cond_broadcast(&w->all_here);
    pthread_mutex_unlock(&w->lock);
}

static void meeting_free(struct meeting *w) {
    for (int r = 0; r < w->n; r++)
        free(w->part[r]);
    free(w->part);
    pthread_cond_destroy(&w->all_here);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

static void threads_close(struct comm *c) {
    struct member *m = member_of(c);
    struct meeting *w = m->with;
    pthread_mutex_lock(&w->lock);
    bool last = --w->n_open == 0;
    pthread_mutex_unlock(&w->lock);
    if (last)
        meeting_free(w);
    free(m->sum);
    free(m);
}

void comm_threads_open(int n, size_t most, struct comm_stop *stop, struct comm *out[]) {
    struct meeting *w = xcalloc(1, sizeof *w);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->all_here, NULL);
    w->n = w->n_open = n;
    w->most = most;
    w->part = xcalloc((size_t)n, sizeof *w->part);
    for (int r = 0; r < n; r++) {
        struct member *m = xcalloc(1, sizeof *m);
        w->part[r] = xcalloc(most, sizeof **w->part);
        m->comm = (struct comm){.rank = r,
                                .n = n,
                                .stop = stop,
                                .all_reduce = threads_all_reduce,
                                .let_go = threads_let_go,
                                .close = threads_close};
        m->with = w;
        m->sum = xcalloc(most, sizeof *m->sum);
        out[r] = &m->comm;
    }
}
