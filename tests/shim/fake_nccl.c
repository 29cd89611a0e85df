/*
 * fake_nccl.c - what stands for NCCL over the host shim: the functions that cuda/nccl.c calls,
 * for devices whose memory is the host's. A sum has its stream run dry and waits for all ranks,
 * as the kernels behind a real one would.
 *
 * FAKE_NCCL_FAIL=init: nothing connects; FAKE_NCCL_FAIL=N: the Nth sum of rank 1 fails.
 */
#include "stream.h"
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, UNHANDLED_CUDA_ERROR = 1, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4 };
enum { FLOAT32 = 7, SUM = 0, MOST = 64 };

struct group {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int n, n_open, here;
    unsigned round;
    bool aborted;
    const float *from[MOST]; /* of the round */
    float *sum;              /* of the last rank to come, for all */
};

struct comm {
    struct group *group;
    int rank, n_sum;
    bool inside;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the following */
static int n_open, n_sum;

int ncclCommInitAll(void **comms, int n, const int *devices);
int ncclAllReduce(const void *from, void *to, size_t n, int type, int op, void *comm,
                  void *stream);
int ncclCommDestroy(void *comm);
int ncclCommAbort(void *comm);
const char *ncclGetErrorString(int result);
int fake_nccl_open(void); /* communicators */
int fake_nccl_sums(void); /* of all ranks */

static void count(int *what, int n) {
    pthread_mutex_lock(&lock);
    *what += n;
    pthread_mutex_unlock(&lock);
}

int fake_nccl_open(void) {
    return n_open;
}

int fake_nccl_sums(void) {
    return n_sum;
}

const char *ncclGetErrorString(int result) {
    return result == SYSTEM_ERROR           ? "the stand-in was told to fail"
           : result == UNHANDLED_CUDA_ERROR ? "a peer is gone"
                                            : "a wrong argument";
}

int ncclCommInitAll(void **comms, int n, const int *devices) {
    const char *told = getenv("FAKE_NCCL_FAIL");
    if (told && strcmp(told, "init") == 0)
        return SYSTEM_ERROR;
    if (n < 1 || n > MOST || devices)
        return INVALID_ARGUMENT;
    struct group *g = calloc(1, sizeof *g);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
    g->n = g->n_open = n;
    for (int i = 0; i < n; i++) {
        struct comm *c = calloc(1, sizeof *c);
        c->group = g;
        c->rank = i;
        comms[i] = c;
    }
    count(&n_open, n);
    return SUCCESS;
}

static int meet(struct group *g) {
    unsigned round = g->round;
    if (++g->here == g->n) {
        g->here = 0;
        g->round++;
        pthread_cond_broadcast(&g->changed);
    }
    while (g->round == round && !g->aborted)
        pthread_cond_wait(&g->changed, &g->lock);
    return g->round == round ? UNHANDLED_CUDA_ERROR : SUCCESS;
}

static int add_up(struct comm *c, const float *from, float *to, size_t n) {
    struct group *g = c->group;
    g->from[c->rank] = from;
    if (g->aborted)
        return UNHANDLED_CUDA_ERROR;
    if (g->here + 1 == g->n) {
        g->sum = realloc(g->sum, n * sizeof *g->sum);
        memset(g->sum, 0, n * sizeof *g->sum);
        for (int r = 0; r < g->n; r++)
            for (size_t i = 0; i < n; i++)
                g->sum[i] += g->from[r][i];
    }
    int result = meet(g);
    if (result != SUCCESS)
        return result;
    memcpy(to, g->sum, n * sizeof *to);
    return meet(g); /* before the next sum */
}

int ncclAllReduce(const void *from, void *to, size_t n, int type, int op, void *comm,
                  void *stream) {
    struct comm *c = comm;
    const char *told = getenv("FAKE_NCCL_FAIL");
    struct shim_stream *behind = stream;
    if (type != FLOAT32 || op != SUM || !behind)
        return INVALID_ARGUMENT;
    if (told && c->rank == 1 && ++c->n_sum == atoi(told))
        return SYSTEM_ERROR;
    count(&n_sum, 1);
    pthread_mutex_lock(&c->group->lock);
    c->inside = true;
    pthread_mutex_unlock(&c->group->lock);
    behind->run_dry(behind);
    pthread_mutex_lock(&c->group->lock);
    int result = add_up(c, from, to, n);
    c->inside = false;
    pthread_cond_broadcast(&c->group->changed);
    pthread_mutex_unlock(&c->group->lock);
    return result;
}

static int drop(struct comm *c) {
    struct group *g = c->group;
    while (c->inside)
        pthread_cond_wait(&g->changed, &g->lock);
    bool last = --g->n_open == 0;
    pthread_mutex_unlock(&g->lock);
    free(c);
    count(&n_open, -1);
    if (!last)
        return SUCCESS;
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->changed);
    free(g->sum);
    free(g);
    return SUCCESS;
}

int ncclCommDestroy(void *comm) {
    struct comm *c = comm;
    pthread_mutex_lock(&c->group->lock);
    return drop(c);
}

int ncclCommAbort(void *comm) {
    struct comm *c = comm;
    pthread_mutex_lock(&c->group->lock);
    c->group->aborted = true;
    pthread_cond_broadcast(&c->group->changed);
    return drop(c);
}
