/*
 * device.cc - the host as a device: what device.cu does with CUDA, done with malloc() and the
 * shim's fibres. Device memory is the heap's, so ASan sees a kernel that leaves it.
 *
 * LLMCHAT_SHIM_BYTES limits it, for all that this process has on a device together, so that
 * running out can be tested, and
 * LLMCHAT_SHIM_BLOCK_BYTES the shared memory of a block, of which cards have 99 to 227 KB; a
 * kernel named by LLMCHAT_SHIM_FAIL fails, as after a fault on a device; with @N behind the
 * name only on device N. There are as many devices as LLMCHAT_SHIM_DEVICES says, or one.
 *
 * Time is none of the host's: a launch takes a millisecond, and that of the kernel named by
 * LLMCHAT_SHIM_SLOW (also "cuBLAS") a hundred.
 */
#include "engine/cuda/dev.h"

#include <map>
#include <mutex>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <vector>

namespace {

/* A launch, or a copy, as it was asked for. */
struct recorded_launch {
    std::string name;
    dim3 grid;
    int block;
    size_t shared;
    void (*body)(void *);
    std::vector<char> ctx;
};
typedef std::vector<recorded_launch> recording;

struct host_device {
    struct gpu gpu;
    int index;
    size_t limit;
    std::map<void *, size_t> sizes;
    recording *open; /* while a step is recorded */
    double us, marks[2];
};

/* What all who opened a device have of it. */
std::mutex alone;
std::map<int, size_t> used;

struct host_device *host_of(struct gpu *g) {
    return (struct host_device *)(void *)g;
}

size_t left(const struct host_device *d) {
    size_t n = used[d->index];
    return d->limit > n ? d->limit - n : 0;
}

void *dev_alloc(struct gpu *g, size_t bytes) {
    struct host_device *d = host_of(g);
    void *p = nullptr;
    std::lock_guard<std::mutex> lock(alone);
    if (bytes > left(d) || posix_memalign(&p, 256, bytes ? bytes : 1))
        return nullptr;
    memset(p, 0xa5, bytes);
    d->sizes[p] = bytes;
    used[d->index] += bytes;
    return p;
}

void dev_free(struct gpu *g, void *p) {
    struct host_device *d = host_of(g);
    if (!p)
        return;
    std::lock_guard<std::mutex> lock(alone);
    used[d->index] -= d->sizes.at(p);
    d->sizes.erase(p);
    free(p);
}

size_t room(struct gpu *g) {
    std::lock_guard<std::mutex> lock(alone);
    return left(host_of(g));
}

void *alloc_pinned(struct gpu *, size_t bytes) {
    return calloc(1, bytes ? bytes : 1);
}

void free_pinned(struct gpu *, void *p) {
    free(p);
}

struct copy_args {
    void *dst;
    const void *src;
    size_t bytes;
};

void copy_body(void *ctx) {
    copy_args *a = (copy_args *)ctx;
    memcpy(a->dst, a->src, a->bytes);
}

void move(struct gpu *g, void *dst, const void *src, size_t bytes) {
    copy_args a = {dst, src, bytes};
    recording *r = host_of(g)->open;
    if (r)
        r->push_back({"", dim3(), 0, 0, copy_body, {(char *)&a, (char *)(&a + 1)}});
    else if (!g->failed)
        copy_body(&a);
}

void must_not_record(struct gpu *g, const char *what) {
    if (!host_of(g)->open)
        return;
    fprintf(stderr, "shim: %s while a step is recorded\n", what);
    abort();
}

void zero(struct gpu *g, void *p, size_t bytes) {
    must_not_record(g, "zero");
    if (!g->failed)
        memset(p, 0, bytes);
}

void sync(struct gpu *g) {
    must_not_record(g, "sync");
}

void takes_time(struct gpu *g, const char *name) {
    const char *slow = getenv("LLMCHAT_SHIM_SLOW");
    host_of(g)->us += slow && strcmp(slow, name) == 0 ? 100000 : 1000;
}

void mark(struct gpu *g, int end) {
    must_not_record(g, "mark");
    host_of(g)->marks[end] = host_of(g)->us;
}

double between_us(struct gpu *g) {
    return g->failed ? 0 : host_of(g)->marks[1] - host_of(g)->marks[0];
}

void record(struct gpu *g) {
    must_not_record(g, "record");
    host_of(g)->open = new recording();
}

void *recorded(struct gpu *g) {
    recording *r = host_of(g)->open;
    host_of(g)->open = nullptr;
    if (!g->failed)
        return r;
    delete r;
    return nullptr;
}

int replays;

void replay(struct gpu *g, void *made) {
    replays++;
    for (recorded_launch &l : *(recording *)made) {
        if (g->failed)
            return;
        if (l.block)
            shim_run(l.name.c_str(), l.grid, l.block, l.shared, l.body, l.ctx.data());
        else
            l.body(l.ctx.data());
    }
}

void free_recording(struct gpu *, void *made) {
    delete (recording *)made;
}

void blas(struct gpu *g, const uint16_t *xb, const uint16_t *wb, bool f16, int T, int n, int Kp,
          float *y, size_t ldy, bool add) {
    float (*real)(uint16_t) = f16 ? f16_real : bf16_real;
    must_not_record(g, "cuBLAS");
    takes_time(g, "cuBLAS");
    for (int t = 0; t < T && !g->failed; t++)
        for (int i = 0; i < n; i++) {
            float sum = 0;
            for (int k = 0; k < Kp; k++)
                sum += real(xb[(size_t)t * (size_t)Kp + (size_t)k]) *
                       real(wb[(size_t)i * (size_t)Kp + (size_t)k]);
            float *at = &y[(size_t)t * ldy + (size_t)i];
            *at = add ? *at + sum : sum;
        }
}

void dev_close(struct gpu *g) {
    struct host_device *d = host_of(g);
    std::lock_guard<std::mutex> lock(alone);
    for (auto &m : d->sizes) {
        used[d->index] -= m.second;
        free(m.first);
    }
    delete d;
}

} // namespace

/* Whether LLMCHAT_SHIM_FAIL means this kernel of this device. */
static bool told_to_fail(struct gpu *g, const char *name) {
    const char *told = getenv("LLMCHAT_SHIM_FAIL");
    size_t n = strlen(name);
    if (!told || strncmp(told, name, n) != 0)
        return false;
    return told[n] == 0 || (told[n] == '@' && atoi(told + n + 1) == host_of(g)->index);
}

void shim_launch(struct gpu *g, const char *name, dim3 grid, int block, size_t shared,
                 void (*body)(void *), void *ctx, size_t ctx_bytes) {
    if (g->failed)
        return;
    if (told_to_fail(g, name)) {
        g->failed = true;
        snprintf(g->error, sizeof g->error, "%s: the shim was told to fail", name);
        return;
    }
    takes_time(g, name);
    if (host_of(g)->open)
        host_of(g)->open->push_back(
            {name, grid, block, shared, body, {(char *)ctx, (char *)ctx + ctx_bytes}});
    else
        shim_run(name, grid, block, shared, body, ctx);
}

int shim_replays(void) {
    return replays;
}

struct gpu *llmchat_gpu_open(int version, int index, char *error) {
    const char *devices = getenv("LLMCHAT_SHIM_DEVICES");
    int n = devices ? atoi(devices) : 1;
    if (version != GPU_VERSION) {
        snprintf(error, 256, "the host shim has version %d, wanted %d", GPU_VERSION, version);
        return nullptr;
    }
    if (index >= n) {
        snprintf(error, 256, "GPU %d is wanted, and there are %d, counted from 0", index, n);
        return nullptr;
    }
    struct host_device *d = new host_device();
    struct gpu *g = &d->gpu;
    d->index = index;
    const char *limit = getenv("LLMCHAT_SHIM_BYTES");
    d->limit = limit ? strtoull(limit, nullptr, 10) : (size_t)8 << 30;
    g->kernels = "host shim";
    snprintf(g->info.name, sizeof g->info.name, "host shim");
    snprintf(g->info.pci, sizeof g->info.pci, "0000:%02x:00.0", 0x0f + 0x10 * index);
    g->info.n_device = n;
    g->info.major = 9;
    g->info.n_sm = 4;
    const char *block = getenv("LLMCHAT_SHIM_BLOCK_BYTES");
    g->info.block_bytes = block ? strtoull(block, nullptr, 10) : (size_t)227 << 10;
    g->info.total_bytes = d->limit;
    g->close = dev_close;
    g->alloc = dev_alloc;
    g->free = dev_free;
    g->room = room;
    g->alloc_pinned = alloc_pinned;
    g->free_pinned = free_pinned;
    g->upload = g->download = g->copy = move;
    g->zero = zero;
    g->sync = sync;
    g->mark = mark;
    g->between_us = between_us;
    g->record = record;
    g->recorded = recorded;
    g->replay = replay;
    g->free_recording = free_recording;
    g->blas = blas;
    gpu_kernels(g);
    return g;
}
