/*
 * nccl.c - see nccl.h.
 *
 * A sum is put into the stream of each rank's device by that rank's thread, and nothing waits
 * for it: the kernels behind it do. A rank that fails never puts its next sum, and the others'
 * devices would wait for it; so the first failure aborts all communicators, from whichever
 * thread it is noticed in. That a communicator isn't freed while its own thread is putting a
 * sum is what `lock` is for; putting takes microseconds, and who is in there for longer waits
 * for its peers, which only the abort ends.
 *
 * All ranks connect in one call (ncclCommInitAll), so that none waits for one that failed.
 */
#include "engine/cuda/nccl.h"

#include "base/mem.h"
#include "engine/cuda/gpu.h"
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { NCCL_SUCCESS = 0, NCCL_FLOAT32 = 7, NCCL_SUM = 0, PUT_MS = 200 };

/* NCCL's functions that are used, as its documentation has them; results are ncclResult_t. */
struct nccl {
    int (*comm_init_all)(void **comms, int n, const int *devices);
    int (*all_reduce)(const void *from, void *to, size_t n, int type, int op, void *comm,
                      void *stream);
    int (*comm_destroy)(void *comm);
    int (*comm_abort)(void *comm);
    const char *(*error_string)(int result);
};

struct link;

struct net {
    struct nccl lib;
    int n, n_open;
    pthread_mutex_t lock; /* of n_open */
    struct link *v[];     /* [n] */
};

struct link {
    struct comm comm;
    struct net *net;
    struct gpu *gpu;
    pthread_mutex_t lock; /* of handle, and while a sum is put */
    void *handle;         /* NULL: aborted */
};

static struct link *link_of(struct comm *c) {
    return (struct link *)(void *)c;
}

static void fail(struct link *l, const char *what) {
    struct err err;
    err_set(&err, ST_DEVICE, "GPU %d: %s. The CPU can go on (--device cpu)", l->comm.rank,
            what);
    comm_fail(&l->comm, &err);
}

static void nccl_all_reduce(struct comm *c, struct backend *be, float *x, size_t n) {
    struct link *l = link_of(c);
    const struct nccl *lib = &l->net->lib;
    int result = NCCL_SUCCESS;
    (void)be;
    if (c->stop->is)
        return;
    if (l->gpu->failed) { /* which the others would wait for */
        fail(l, l->gpu->error);
        return;
    }
    pthread_mutex_lock(&l->lock);
    if (l->handle)
        result = lib->all_reduce(x, x, n, NCCL_FLOAT32, NCCL_SUM, l->handle, l->gpu->stream);
    pthread_mutex_unlock(&l->lock);
    l->gpu->copied = true;
    if (result != NCCL_SUCCESS)
        fail(l, lib->error_string(result));
}

static void abort_link(struct link *l) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += PUT_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    bool locked = pthread_mutex_timedlock(&l->lock, &until) == 0;
    if (l->handle)
        l->net->lib.comm_abort(l->handle);
    l->handle = NULL;
    if (locked)
        pthread_mutex_unlock(&l->lock);
}

static void nccl_let_go(struct comm *c) {
    struct net *net = link_of(c)->net;
    for (int i = 0; i < net->n; i++)
        abort_link(net->v[i]);
}

static void nccl_close(struct comm *c) {
    struct link *l = link_of(c);
    struct net *net = l->net;
    if (l->handle)
        net->lib.comm_destroy(l->handle);
    pthread_mutex_destroy(&l->lock);
    free(l);
    pthread_mutex_lock(&net->lock);
    bool last = --net->n_open == 0;
    pthread_mutex_unlock(&net->lock);
    if (!last)
        return;
    pthread_mutex_destroy(&net->lock);
    free(net);
}

static enum status open_library(struct nccl *lib, struct err *err) {
    const char *told = getenv("LLMCHAT_NCCL");
    const char *name = told && *told ? told : "libnccl.so.2";
    const struct {
        const char *name;
        void *to;
    } functions[] = {{"ncclCommInitAll", &lib->comm_init_all},
                     {"ncclAllReduce", &lib->all_reduce},
                     {"ncclCommDestroy", &lib->comm_destroy},
                     {"ncclCommAbort", &lib->comm_abort},
                     {"ncclGetErrorString", &lib->error_string}};
    void *so = dlopen(name, RTLD_NOW | RTLD_LOCAL); /* never closed: it keeps threads */
    if (!so)
        return err_set(err, ST_NOT_FOUND,
                       "several GPUs need NVIDIA's NCCL, which can't be opened: %s: install it "
                       "(libnccl2), or use one GPU",
                       dlerror());
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *f = dlsym(so, functions[i].name);
        if (!f)
            return err_set(err, ST_NOT_FOUND, "%s is no NCCL of version 2: it has no %s", name,
                           functions[i].name);
        memcpy(functions[i].to, &f, sizeof f);
    }
    return ST_OK;
}

enum status nccl_open(struct gpu *const gpus[], int n, struct comm_stop *stop,
                      struct comm *out[], struct err *err) {
    struct nccl lib;
    CHECK(open_library(&lib, err));
    void **handles = xcalloc((size_t)n, sizeof *handles);
    int result = lib.comm_init_all(handles, n, NULL);
    if (result != NCCL_SUCCESS) {
        free(handles);
        return err_set(err, ST_DEVICE, "NCCL can't connect %d GPUs: %s", n,
                       lib.error_string(result));
    }
    struct net *net = xcalloc(1, sizeof *net + (size_t)n * sizeof *net->v);
    net->lib = lib;
    net->n = net->n_open = n;
    pthread_mutex_init(&net->lock, NULL);
    for (int i = 0; i < n; i++) {
        struct link *l = xcalloc(1, sizeof *l);
        l->comm = (struct comm){.rank = i,
                                .n = n,
                                .stop = stop,
                                .all_reduce = nccl_all_reduce,
                                .let_go = nccl_let_go,
                                .close = nccl_close};
        l->net = net;
        l->gpu = gpus[i];
        l->handle = handles[i];
        pthread_mutex_init(&l->lock, NULL);
        net->v[i] = l;
        out[i] = &l->comm;
    }
    free(handles);
    return ST_OK;
}
