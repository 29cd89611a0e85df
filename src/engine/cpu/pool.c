/*
 * pool.c - a persistent team of threads for parallel loops.
 *
 * The items of a loop are cut into as many runs of neighbours as there are threads, MAX_RUNS at
 * most. A thread claims the items of its own run from front to back, then what others have
 * left. So neighbouring items, which are neighbours in memory, meet the same thread, and the
 * same part of every loop does: what a thread wrote it mostly reads itself, in its own cache,
 * and memory that it touched first lies on its own node.
 *
 * All that a worker needs to claim an item is one 64-bit word of a run, its ticket: bits 40..63
 * number of the loop   20..39 end   0..19 next item. Claiming is one fetch_add. Whoever gets an
 * index below the end owns that item, and with it the right to read body and ctx: the caller
 * can't leave pool_run() before that item is done, so they don't change. An index beyond the
 * end means "nothing left" and nothing else is read. So a worker that was off its core during a
 * whole loop is not waited for, which fixed shares and a barrier would do: on a machine shared
 * with others that costs a time slice now and then, in each of the hundred loops of a token.
 *
 * The end of a loop is a count of done items, which a thread adds to when it is through with a
 * run; the caller spins on it, then sleeps. Workers spin on, then sleep on, `loops`. Sleeper
 * counts are kept so that no system call is made while everybody spins. The order "announce
 * sleep, look again" against "publish, look for sleepers" needs sequential consistency; all
 * atomics here use it.
 *
 * With more threads than CPUs nobody spins.
 *
 * Rejected: pinning each thread to a CPU. Items are claimed, so a thread that is moved costs
 * little, but two programs that pin to the same CPUs wait for each other while others are free.
 */
#include "engine/cpu/pool.h"
#include "base/clock.h"
#include "base/mem.h"
#include "engine/cpu/cores.h"
#include <assert.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    SPIN_US = 60,
    ITEM_BITS = 20,
    MAX_THREADS = 512,
    MAX_RUNS = 8, /* who has nothing left looks at all of them */
};

struct worker {
    struct pool *pool;
    pthread_t id;
    int index;
};

struct run {
    _Alignas(64) _Atomic uint64_t ticket;
};

struct pool {
    int n_thread, n_run;
    int spin_us;
    struct worker *workers; /* [n_thread - 1] */
    pool_body *body;
    void *ctx;
    uint32_t n_item;
    struct run runs[MAX_RUNS];          /* [n_run] */
    _Alignas(64) _Atomic uint32_t done; /* items finished in this loop */
    _Atomic uint32_t caller_sleeps;
    _Alignas(64) _Atomic uint32_t loops; /* number of loops, and of the end */
    _Atomic int sleepers;
    _Atomic bool quit;
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static uint32_t ticket_next(uint64_t t) {
    return t & ((1u << ITEM_BITS) - 1);
}

static uint32_t ticket_end(uint64_t t) {
    return t >> ITEM_BITS & ((1u << ITEM_BITS) - 1);
}

static bool has_left(const struct run *r) {
    uint64_t t = atomic_load(&r->ticket);
    return ticket_next(t) < ticket_end(t);
}

/* Claims and does items of a run until none is left. */
static void do_run(struct pool *p, struct run *r, int thread) {
    uint32_t n = 0, all = 0;
    while (has_left(r)) {
        uint64_t t = atomic_fetch_add(&r->ticket, 1);
        if (ticket_next(t) >= ticket_end(t))
            break;
        p->body(p->ctx, (int)ticket_next(t), thread);
        n++;
        all = p->n_item;
    }
    if (n > 0 && atomic_fetch_add(&p->done, n) + n == all && atomic_load(&p->caller_sleeps))
        futex_wake(&p->done, 1);
}

/* The thread's own run, then the others. */
static void work(struct pool *p, int thread) {
    int own = thread * p->n_run / p->n_thread;
    for (int i = 0; i < p->n_run; i++)
        do_run(p, &p->runs[(own + i) % p->n_run], thread);
}

/* Until there is another loop than the one seen, or the end. */
static bool spin_for_loop(struct pool *p, uint32_t seen) {
    int64_t end = 0;
    for (int i = 0; p->spin_us > 0; i++) {
        if (atomic_load(&p->loops) != seen)
            return true;
        relax();
        if (i % 64 == 63) {
            int64_t now = clock_us();
            if (end == 0)
                end = now + p->spin_us;
            else if (now >= end)
                break;
        }
    }
    return false;
}

static void *worker_main(void *arg) {
    struct worker *w = arg;
    struct pool *p = w->pool;
    for (uint32_t seen = 0;;) {
        if (!spin_for_loop(p, seen)) {
            atomic_fetch_add(&p->sleepers, 1);
            futex_wait(&p->loops, seen);
            atomic_fetch_sub(&p->sleepers, 1);
        }
        uint32_t now = atomic_load(&p->loops);
        if (now == seen)
            continue;
        seen = now;
        if (atomic_load(&p->quit))
            return NULL;
        work(p, w->index);
    }
}

static void wait_done(struct pool *p) {
    int64_t end = 0;
    for (int i = 0; atomic_load(&p->done) != p->n_item; i++) {
        bool sleep_now = p->spin_us == 0;
        if (i % 64 == 63) {
            int64_t now = clock_us();
            if (end == 0)
                end = now + p->spin_us;
            else if (now >= end)
                sleep_now = true;
        }
        if (!sleep_now) {
            relax();
            continue;
        }
        atomic_store(&p->caller_sleeps, 1);
        uint32_t seen;
        while ((seen = atomic_load(&p->done)) != p->n_item)
            futex_wait(&p->done, seen);
        atomic_store(&p->caller_sleeps, 0);
        return;
    }
}

void pool_run(struct pool *p, int n_item, pool_body *body, void *ctx) {
    assert(n_item >= 0 && n_item < (1 << ITEM_BITS));
    if (p->n_thread == 1 || n_item <= 1) {
        for (int i = 0; i < n_item; i++)
            body(ctx, i, 0);
        return;
    }
    p->body = body;
    p->ctx = ctx;
    p->n_item = (uint32_t)n_item;
    atomic_store(&p->done, 0);
    uint64_t loop = atomic_load(&p->loops) + 1, n = (uint64_t)n_item, R = (uint64_t)p->n_run;
    for (uint64_t i = 0; i < R; i++)
        atomic_store(&p->runs[i].ticket,
                     loop << (2 * ITEM_BITS) | n * (i + 1) / R << ITEM_BITS | n * i / R);
    atomic_fetch_add(&p->loops, 1);
    int asleep = atomic_load(&p->sleepers);
    if (asleep > 0)
        futex_wake(&p->loops, n_item - 1 < p->n_thread ? n_item - 1 : p->n_thread);
    work(p, 0);
    wait_done(p);
}

struct pool *pool_new(int threads) {
    int cpus = cores_cpus();
    if (threads <= 0)
        threads = cores_default();
    if (threads > MAX_THREADS)
        threads = MAX_THREADS;
    struct pool *p = aligned_alloc(64, sizeof *p);
    if (!p)
        return NULL;
    memset(p, 0, sizeof *p);
    p->n_thread = 1;
    p->spin_us = threads > cpus ? 0 : SPIN_US;
    p->workers = xcalloc((size_t)threads, sizeof *p->workers);
    while (p->n_thread < threads) {
        struct worker *w = &p->workers[p->n_thread - 1];
        *w = (struct worker){.pool = p, .index = p->n_thread};
        if (pthread_create(&w->id, NULL, worker_main, w) != 0)
            break;
        p->n_thread++;
    }
    p->n_run = p->n_thread < MAX_RUNS ? p->n_thread : MAX_RUNS;
    return p;
}

void pool_free(struct pool *p) {
    if (!p)
        return;
    atomic_store(&p->quit, true);
    atomic_fetch_add(&p->loops, 1);
    futex_wake(&p->loops, MAX_THREADS);
    for (int i = 0; i < p->n_thread - 1; i++)
        pthread_join(p->workers[i].id, NULL);
    free(p->workers);
    free(p);
}

int pool_threads(const struct pool *p) {
    return p->n_thread;
}
