/*
 * comm.h - sums over the ranks of a group, each of which computes a part of every layer on a
 * device and in a thread of its own (ranks.h).
 *
 * A group stops at its first failure, and stays so: who waits for another rank comes back with
 * whatever numbers it has, and later sums return at once. So a rank never waits for one that
 * has failed; ranks.c asks after each step whether the group has stopped.
 *
 * Two implementations: over host memory, for any backend, below; and NCCL (cuda/nccl.h).
 */
#ifndef LLMCHAT_ENGINE_RUN_COMM_H
#define LLMCHAT_ENGINE_RUN_COMM_H

#include "base/err.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

struct backend;

/* Whether the group has stopped, and why: its first failure. Outlives the group's comms. */
struct comm_stop {
    atomic_bool is;
    pthread_mutex_t lock; /* of why */
    struct err why;
};
void comm_stop_init(struct comm_stop *s);
void comm_stop_release(struct comm_stop *s);

/* One rank's end of a group; used by the thread of its rank but for let_go(). */
struct comm {
    int rank, n;
    struct comm_stop *stop;
    /* x [n], memory of be, becomes the sum over the ranks: the same bits in all of them. All
     * ranks call it equally often, with the same n. */
    void (*all_reduce)(struct comm *c, struct backend *be, float *x, size_t n);
    /* The group has stopped: those who wait in a sum come back. From any thread, once. */
    void (*let_go)(struct comm *c);
    void (*close)(struct comm *c); /* each rank in its own thread, all of them */
};

/* Stops the group, unless it has stopped before. */
void comm_fail(struct comm *c, const struct err *why);
/* ST_OK, or why the group has stopped. */
enum status comm_status(struct comm_stop *s, struct err *err);

/* A group of n in host memory, for sums of at most `most` floats: each rank brings its numbers
 * to the host, and all add them in the order of the ranks. */
void comm_threads_open(int n, size_t most, struct comm_stop *stop, struct comm *out[]);

#endif
