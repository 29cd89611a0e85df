/*
 * nvml.c - NVML opened at run time: the few functions that are called, by the prototypes of its
 * reference manual, so that building needs nothing of NVIDIA's.
 *
 * Every value may be missing, each for a reason of its own (a card without a sensor, MIG, no
 * permission), so each is asked for by itself. A watch is a mutex, and a thread that begins
 * with the first question; it keeps the library open, since opening is what is slow.
 */
#include "engine/cuda/nvml.h"

#include "base/clock.h"
#include "base/thread.h"
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY "libnvidia-ml.so.1"

enum { PCI_BYTES = 32, EACH_US = 1000000, OLD_US = 3000000 };

/* ---- the library ---- */

struct nvml_device; /* the library's */
struct nvml_memory {
    unsigned long long total, free, used; /* bytes */
};
struct nvml_utilization {
    unsigned gpu, memory; /* percent */
};
enum { NVML_SUCCESS = 0, NVML_TEMPERATURE_GPU = 0 };

/* Each function once: type of its arguments, name in the library, name here. All return 0, or a
 * code that error_string() knows. */
#define NVML_FUNCTIONS(X)                                                                      \
    X((void), nvmlInit_v2, start)                                                              \
    X((void), nvmlShutdown, stop)                                                              \
    X((const char *pci, struct nvml_device **d), nvmlDeviceGetHandleByPciBusId_v2, by_pci)     \
    X((struct nvml_device * d, struct nvml_memory * m), nvmlDeviceGetMemoryInfo, memory)       \
    X((struct nvml_device * d, struct nvml_utilization * u), nvmlDeviceGetUtilizationRates,    \
      utilization)                                                                             \
    X((struct nvml_device * d, int sensor, unsigned *celsius), nvmlDeviceGetTemperature,       \
      temperature)                                                                             \
    X((struct nvml_device * d, unsigned *milliwatt), nvmlDeviceGetPowerUsage, power)           \
    X((struct nvml_device * d, unsigned *milliwatt), nvmlDeviceGetEnforcedPowerLimit, limit)

struct nvml {
    void *so;
    const char *(*error_string)(int code);
#define X(arguments, symbol, name) int(*name) arguments;
    NVML_FUNCTIONS(X)
#undef X
    bool started;
    struct nvml_device *device;
};

/* to: a pointer to a function. */
static enum status find(struct nvml *n, const char *path, const char *symbol, void *to,
                        struct err *err) {
    void *at = dlsym(n->so, symbol);
    if (!at)
        return err_set(err, ST_NOT_FOUND, "no NVML: %s has no %s", path, symbol);
    memcpy(to, &at, sizeof at);
    return ST_OK;
}

static enum status find_all(struct nvml *n, const char *path, struct err *err) {
    n->so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!n->so)
        return err_set(err, ST_NOT_FOUND, "no NVML: %s", dlerror());
    CHECK(find(n, path, "nvmlErrorString", &n->error_string, err));
#define X(arguments, symbol, name) CHECK(find(n, path, #symbol, &n->name, err));
    NVML_FUNCTIONS(X)
#undef X
    return ST_OK;
}

enum status nvml_open(const char *pci, struct nvml **out, struct err *err) {
    const char *told = getenv("LLMCHAT_NVML"), *path = told && *told ? told : LIBRARY;
    struct nvml *n = xcalloc(1, sizeof *n);
    enum status st;
    int code;
    TRY(find_all(n, path, err));
    code = n->start();
    n->started = code == NVML_SUCCESS;
    if (code == NVML_SUCCESS)
        code = n->by_pci(pci, &n->device);
    if (code != NVML_SUCCESS)
        TRY(err_set(err, ST_NOT_FOUND, n->started ? "no NVML: GPU %s: %s" : "no NVML: %s%s",
                    n->started ? pci : "", n->error_string(code)));
    *out = n;
    return ST_OK;
out:
    nvml_close(n);
    return st;
}

void nvml_close(struct nvml *n) {
    if (!n)
        return;
    if (n->started)
        n->stop();
    if (n->so)
        dlclose(n->so);
    free(n);
}

static int number(int code, unsigned v) {
    return code == NVML_SUCCESS && v <= INT_MAX ? (int)v : -1;
}

static int64_t bytes(int code, unsigned long long v) {
    return code == NVML_SUCCESS && v <= INT64_MAX ? (int64_t)v : -1;
}

enum status nvml_read(struct nvml *n, struct nvml_load *out, struct err *err) {
    struct nvml_memory m = {0};
    struct nvml_utilization u = {0};
    unsigned celsius = 0, power = 0, limit = 0;
    int memory = n->memory(n->device, &m), busy = n->utilization(n->device, &u);
    int warm = n->temperature(n->device, NVML_TEMPERATURE_GPU, &celsius);
    int drawn = n->power(n->device, &power), most = n->limit(n->device, &limit);
    *out = (struct nvml_load){.used_bytes = bytes(memory, m.used),
                              .total_bytes = bytes(memory, m.total),
                              .busy = number(busy, u.gpu),
                              .memory_busy = number(busy, u.memory),
                              .celsius = number(warm, celsius),
                              .milliwatt = number(drawn, power),
                              .limit_milliwatt = number(most, limit)};
    if (memory && busy && warm && drawn) /* a limit alone is no news */
        return err_set(err, ST_UNSUPPORTED, "no NVML: the card says nothing: %s",
                       n->error_string(memory));
    return ST_OK;
}

/* ---- as text ---- */

/* The next part of a line. */
static void part(struct buf *out, size_t start, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void part(struct buf *out, size_t start, const char *fmt, ...) {
    va_list ap;
    char text[80];
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    buf_addf(out, "%s%s", out->len > start ? ", " : "", text);
}

void nvml_text(const struct nvml_load *l, struct buf *out) {
    size_t start = out->len;
    if (l->used_bytes >= 0)
        part(out, start, "%.1f of %.1f GiB in use", (double)l->used_bytes / (1 << 30),
             (double)l->total_bytes / (1 << 30));
    if (l->busy >= 0)
        part(out, start, "%d %% busy (memory %d %%)", l->busy, l->memory_busy);
    if (l->celsius >= 0)
        part(out, start, "%d °C", l->celsius);
    if (l->milliwatt >= 0 && l->limit_milliwatt >= 0)
        part(out, start, "%.0f of %.0f W", l->milliwatt / 1e3, l->limit_milliwatt / 1e3);
    else if (l->milliwatt >= 0)
        part(out, start, "%.0f W", l->milliwatt / 1e3);
}

/* ---- a watch ---- */

struct nvml_watch {
    char pci[PCI_BYTES];
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t asking;
    pthread_t thread;
    bool started, asked, quit;
    int64_t read_us; /* when the last reading ended; 0: none yet */
    enum status st;  /* of it */
    struct nvml_load load;
    struct err err;
};

struct nvml_watch *nvml_watch_new(const char *pci) {
    struct nvml_watch *w = xcalloc(1, sizeof *w);
    snprintf(w->pci, sizeof w->pci, "%s", pci);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->asking, NULL);
    return w;
}

static void *watch(void *arg) {
    struct nvml_watch *w = arg;
    struct nvml *n = NULL;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (!w->asked && !w->quit)
            pthread_cond_wait(&w->asking, &w->lock);
        if (w->quit)
            break;
        struct nvml_load load = {0};
        struct err err = {0};
        pthread_mutex_unlock(&w->lock);
        enum status st = n ? ST_OK : nvml_open(w->pci, &n, &err);
        if (st == ST_OK)
            st = nvml_read(n, &load, &err);
        pthread_mutex_lock(&w->lock);
        w->st = st;
        w->load = load;
        w->err = err;
        w->read_us = clock_us();
        w->asked = false;
    }
    pthread_mutex_unlock(&w->lock);
    nvml_close(n);
    return NULL;
}

/* Has the thread read; false: there is no thread. */
static bool ask(struct nvml_watch *w) {
    if (!w->started && thread_start(&w->thread, watch, w) != 0)
        return false;
    w->started = w->asked = true;
    pthread_cond_signal(&w->asking);
    return true;
}

enum status nvml_watch_get(struct nvml_watch *w, struct nvml_load *out, struct err *err) {
    enum status st = ST_OK;
    pthread_mutex_lock(&w->lock);
    int64_t age = w->read_us ? clock_us() - w->read_us : INT64_MAX;
    if (!w->asked && age >= EACH_US && !ask(w))
        st = err_set(err, ST_UNSUPPORTED, "no NVML: no thread could be started to ask it");
    else if (age > OLD_US)
        st = err_set(err, ST_BUSY, "the GPU is being asked");
    else if (w->st != ST_OK)
        st = err_set(err, w->st, "%s", w->err.msg);
    *out = w->load;
    pthread_mutex_unlock(&w->lock);
    return st;
}

void nvml_watch_free(struct nvml_watch *w) {
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->quit = true;
    pthread_cond_signal(&w->asking);
    pthread_mutex_unlock(&w->lock);
    if (w->started)
        pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->asking);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
