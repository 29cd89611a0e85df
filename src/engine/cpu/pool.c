/*
 * pool.c - a persistent team of threads for parallel loops.
 *
 * The whole state of a loop that a worker needs to claim an item is one 64-bit word, the
 * ticket: bits 40..63 number of the loop   20..39 items   0..19 next item Claiming is one
 * fetch_add. Whoever gets an index below the count owns that item, and with it the right to
 * read body and ctx: the caller can't leave pool_run() before that item is done, so they don't
 * change. An index beyond the count means "nothing left" and nothing else is read. So a worker
 * that was off its core during a whole loop is not waited for, which fixed shares and a barrier
 * would do: on a machine shared with others that costs a time slice now and then, in each of
 * the hundred loops of a token.
 *
 * The end of a loop is a count of done items; the caller spins on it, then sleeps. Workers
 * sleep on `wake`. Sleeper counts are kept so that no system call is made while everybody
 * spins. The order "announce sleep, look again" against "publish, look for sleepers" needs
 * sequential consistency; all atomics here use it.
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

enum { SPIN_US = 60, ITEM_BITS = 20, MAX_THREADS = 512 };

struct worker {
    struct pool *pool;
    pthread_t id;
    int index;
};

struct pool {
    int n_thread;
    int spin_us;
    struct worker *workers; /* [n_thread - 1] */
    pool_body *body;
    void *ctx;
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) _Atomic uint32_t done; /* items finished in this loop */
    _Atomic uint32_t caller_sleeps;
    _Alignas(64) _Atomic uint32_t wake; /* number of loops, and of the end */
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

static uint32_t ticket_count(uint64_t t) {
    return t >> ITEM_BITS & ((1u << ITEM_BITS) - 1);
}

static bool work_left(struct pool *p) {
    uint64_t t = atomic_load(&p->ticket);
    return ticket_next(t) < ticket_count(t);
}

/* Claims and runs items until none is left. */
static void work(struct pool *p, int thread) {
    while (work_left(p)) {
        uint64_t t = atomic_fetch_add(&p->ticket, 1);
        if (ticket_next(t) >= ticket_count(t))
            return;
        uint32_t count = ticket_count(t);
        p->body(p->ctx, (int)ticket_next(t), thread);
        if (atomic_fetch_add(&p->done, 1) + 1 == count && atomic_load(&p->caller_sleeps))
            futex_wake(&p->done, 1);
    }
}

static bool spin_for_work(struct pool *p) {
    int64_t end = 0;
    for (int i = 0; p->spin_us > 0; i++) {
        if (work_left(p) || atomic_load(&p->quit))
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
    while (!atomic_load(&p->quit)) {
        work(p, w->index);
        if (spin_for_work(p))
            continue;
        uint32_t seen = atomic_load(&p->wake);
        atomic_fetch_add(&p->sleepers, 1);
        if (!work_left(p) && !atomic_load(&p->quit))
            futex_wait(&p->wake, seen);
        atomic_fetch_sub(&p->sleepers, 1);
    }
    return NULL;
}

static void wait_done(struct pool *p, uint32_t count) {
    int64_t end = 0;
    for (int i = 0; atomic_load(&p->done) != count; i++) {
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
        while ((seen = atomic_load(&p->done)) != count)
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
    atomic_store(&p->done, 0);
    uint64_t loop = (atomic_load(&p->ticket) >> (2 * ITEM_BITS)) + 1;
    atomic_store(&p->ticket, loop << (2 * ITEM_BITS) | (uint64_t)n_item << ITEM_BITS);
    atomic_fetch_add(&p->wake, 1);
    int asleep = atomic_load(&p->sleepers);
    if (asleep > 0)
        futex_wake(&p->wake, n_item - 1 < p->n_thread ? n_item - 1 : p->n_thread);
    work(p, 0);
    wait_done(p, (uint32_t)n_item);
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
    return p;
}

void pool_free(struct pool *p) {
    if (!p)
        return;
    atomic_store(&p->quit, true);
    atomic_fetch_add(&p->wake, 1);
    futex_wake(&p->wake, MAX_THREADS);
    for (int i = 0; i < p->n_thread - 1; i++)
        pthread_join(p->workers[i].id, NULL);
    free(p->workers);
    free(p);
}

int pool_threads(const struct pool *p) {
    return p->n_thread;
}
