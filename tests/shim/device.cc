/*
 * device.cc - the host as a device: what device.cu does with CUDA, done with malloc() and the
 * shim's fibres. Device memory is the heap's, so ASan sees a kernel that leaves it.
 *
 * LLMCHAT_SHIM_BYTES limits it, for all that this process has on a device together, so that
 * running out can be tested, and
 * LLMCHAT_SHIM_BLOCK_BYTES the shared memory of a block, of which cards have 99 to 227 KB; a
 * kernel named by LLMCHAT_SHIM_FAIL ("alloc" and "open" too) fails, as after a fault on a
 * device; with @N behind the name only on device N. There are as many devices as
 * LLMCHAT_SHIM_DEVICES says, or one.
 *
 * The stream runs late: copies and kernels are kept and done when somebody waits, so that a
 * host that changes or reads its side of a copy too early is seen. Copies are from and to
 * pinned memory alone, and that can't be freed while one is to come; what a device must not do
 * while a step is recorded ends the program.
 *
 * Time is none of the host's: a launch takes a millisecond, and that of the kernel named by
 * LLMCHAT_SHIM_SLOW (also "cuBLAS") a hundred.
 */
#include "engine/cuda/dev.h"
#include "stream.h"

#include <map>
#include <mutex>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <vector>

namespace {

enum { AHEAD = 2 }; /* kernels that begin while one runs */

/* A launch, or a copy, as it was asked for. */
struct recorded_launch {
    std::string name;
    dim3 grid;
    int block;
    size_t shared;
    void (*body)(void *);
    std::vector<char> ctx;
    bool early; /* may begin before the kernels before it end */
};
typedef std::vector<recorded_launch> recording;

struct host_device {
    struct gpu gpu;
    struct shim_stream stream;
    int index;
    size_t limit;
    std::map<void *, size_t> sizes;
    recording *open; /* while a step is recorded */
    recording late;  /* what has not run yet */
    double us, marks[2];
};

/* What all who opened a device have of it, and memory of the host that all devices know. */
std::mutex alone;
std::map<int, size_t> used;
std::map<char *, size_t> pinned;

struct host_device *host_of(struct gpu *g) {
    return (struct host_device *)(void *)g;
}

size_t left(const struct host_device *d) {
    size_t n = used[d->index];
    return d->limit > n ? d->limit - n : 0;
}

[[noreturn]] void die(const char *what) {
    fprintf(stderr, "shim: %s\n", what);
    abort();
}

void must_not_record(struct gpu *g, const char *what) {
    if (!host_of(g)->open)
        return;
    fprintf(stderr, "shim: %s while a step is recorded\n", what);
    abort();
}

/* What was asked for runs; nothing any more on a device that failed. */
void run_late(struct gpu *g) {
    recording now;
    now.swap(host_of(g)->late);
    size_t next = 1; /* to begin early */
    for (size_t i = 0; i < now.size() && !g->failed; i++) {
        recorded_launch &l = now[i];
        for (next = next > i ? next : i + 1; next < now.size() && next <= i + AHEAD; next++) {
            recorded_launch &e = now[next];
            if (!now[next - 1].block || !e.block || !e.early)
                break;
            shim_begin(e.name.c_str(), e.grid, e.block, e.shared, e.body, e.ctx.data());
        }
        if (l.block)
            shim_run(l.name.c_str(), l.grid, l.block, l.shared, l.body, l.ctx.data());
        else
            l.body(l.ctx.data());
    }
}

void run_dry(struct shim_stream *s) {
    run_late((struct gpu *)s->device);
}

/* Into the recording, or the stream. */
void ask(struct gpu *g, const recorded_launch &l) {
    struct host_device *d = host_of(g);
    (d->open ? *d->open : d->late).push_back(l);
}

template <class ARGS> void ask_host(struct gpu *g, void (*body)(void *), ARGS a) {
    ask(g, {"", dim3(), 0, 0, body, {(char *)&a, (char *)(&a + 1)}, false});
}

/* Whether LLMCHAT_SHIM_FAIL means this kernel of this device; it has failed then. */
bool told_to_fail(struct gpu *g, const char *name) {
    const char *told = getenv("LLMCHAT_SHIM_FAIL");
    size_t n = strlen(name);
    if (!told || strncmp(told, name, n) != 0)
        return false;
    if (told[n] != 0 && !(told[n] == '@' && atoi(told + n + 1) == host_of(g)->index))
        return false;
    g->failed = true;
    snprintf(g->error, sizeof g->error, "%s: the shim was told to fail", name);
    return true;
}

void *dev_alloc(struct gpu *g, size_t bytes) {
    struct host_device *d = host_of(g);
    void *p = nullptr;
    must_not_record(g, "alloc");
    if (g->failed || told_to_fail(g, "alloc"))
        return nullptr;
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
    must_not_record(g, "free");
    run_late(g); /* cudaFree() waits */
    std::lock_guard<std::mutex> lock(alone);
    used[d->index] -= d->sizes.at(p);
    d->sizes.erase(p);
    free(p);
}

size_t room(struct gpu *g) {
    std::lock_guard<std::mutex> lock(alone);
    return left(host_of(g));
}

void *alloc_pinned(struct gpu *g, size_t bytes) {
    must_not_record(g, "alloc_pinned");
    void *p = g->failed ? nullptr : calloc(1, bytes ? bytes : 1);
    std::lock_guard<std::mutex> lock(alone);
    if (p)
        pinned[(char *)p] = bytes;
    return p;
}

struct copy_args {
    void *dst;
    const void *src; /* NULL: zeros */
    size_t bytes;
};

void copy_body(void *ctx) {
    copy_args *a = (copy_args *)ctx;
    if (a->src)
        memcpy(a->dst, a->src, a->bytes);
    else
        memset(a->dst, 0, a->bytes);
}

void free_pinned(struct gpu *g, void *p) {
    struct host_device *d = host_of(g);
    if (!p)
        return;
    must_not_record(g, "free_pinned");
    std::lock_guard<std::mutex> lock(alone);
    char *from = (char *)p, *end = from + pinned.at(from);
    for (recorded_launch &l : d->late) {
        copy_args *a = (copy_args *)(void *)l.ctx.data();
        if (l.body == copy_body && !g->failed &&
            ((a->src >= from && a->src < end) || (a->dst >= from && a->dst < end)))
            die("pinned memory is freed that a copy is to come from, or to");
    }
    pinned.erase(from);
    free(p);
}

/* Whether memory of the host is pinned, all of it. */
bool is_pinned(const void *p, size_t bytes) {
    std::lock_guard<std::mutex> lock(alone);
    auto next = pinned.upper_bound((char *)p);
    if (next == pinned.begin())
        return false;
    auto at = std::prev(next);
    return (char *)p + bytes <= at->first + at->second;
}

void copy(struct gpu *g, void *dst, const void *src, size_t bytes) {
    g->copied = true;
    if (!g->failed)
        ask_host(g, copy_body, copy_args{dst, src, bytes});
}

void upload(struct gpu *g, void *dev, const void *host, size_t bytes) {
    if (!is_pinned(host, bytes))
        die("a copy from memory that is not pinned");
    copy(g, dev, host, bytes);
}

void download(struct gpu *g, void *host, const void *dev, size_t bytes) {
    if (!is_pinned(host, bytes))
        die("a copy to memory that is not pinned");
    copy(g, host, dev, bytes);
}

void zero(struct gpu *g, void *p, size_t bytes) {
    must_not_record(g, "zero");
    g->copied = true;
    if (!g->failed)
        ask_host(g, copy_body, copy_args{p, nullptr, bytes});
}

void sync(struct gpu *g) {
    must_not_record(g, "sync");
    run_late(g);
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
    run_late(g);
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
    g->copied = true;
    for (const recorded_launch &l : *(recording *)made)
        ask(g, l);
}

void free_recording(struct gpu *, void *made) {
    delete (recording *)made;
}

struct blas_args {
    const uint16_t *xb, *wb;
    bool f16;
    int T, n, Kp;
    float *y;
    size_t ldy;
    bool add;
};

void blas_body(void *ctx) {
    const blas_args &a = *(blas_args *)ctx;
    float (*real)(uint16_t) = a.f16 ? f16_real : bf16_real;
    for (int t = 0; t < a.T; t++)
        for (int i = 0; i < a.n; i++) {
            float sum = 0;
            for (int k = 0; k < a.Kp; k++)
                sum += real(a.xb[(size_t)t * (size_t)a.Kp + (size_t)k]) *
                       real(a.wb[(size_t)i * (size_t)a.Kp + (size_t)k]);
            float *at = &a.y[(size_t)t * a.ldy + (size_t)i];
            *at = a.add ? *at + sum : sum;
        }
}

void blas(struct gpu *g, const uint16_t *xb, const uint16_t *wb, bool f16, int T, int n, int Kp,
          float *y, size_t ldy, bool add) {
    must_not_record(g, "cuBLAS");
    takes_time(g, "cuBLAS");
    if (!g->failed)
        ask_host(g, blas_body, blas_args{xb, wb, f16, T, n, Kp, y, ldy, add});
}

void dev_close(struct gpu *g) {
    struct host_device *d = host_of(g);
    run_late(g);
    std::lock_guard<std::mutex> lock(alone);
    for (auto &m : d->sizes) {
        used[d->index] -= m.second;
        free(m.first);
    }
    delete d;
}

} // namespace

void shim_launch(struct gpu *g, const char *name, dim3 grid, int block, size_t shared,
                 void (*body)(void *), void *ctx, size_t ctx_bytes) {
    if (g->failed || told_to_fail(g, name))
        return;
    if (shared > g->info.block_bytes) {
        fprintf(stderr, "shim: %s: %zu bytes of shared memory, a block may have %zu\n", name,
                shared, g->info.block_bytes);
        abort();
    }
    takes_time(g, name);
    ask(g,
        {name, grid, block, shared, body, {(char *)ctx, (char *)ctx + ctx_bytes}, !g->copied});
    g->copied = false;
}

static void write_kernel(int *x) {
    wait_for_others();
    if (thread_x() == 0)
        *x = 1;
}

static void read_kernel(const int *x, int *y, bool waits) {
    int v = waits ? 0 : *x;
    wait_for_others();
    if (thread_x() == 0)
        *y = waits ? *x : v;
}

int shim_try_early(struct gpu *g, bool waits) {
    int *x = (int *)dev_alloc(g, 2 * sizeof *x);
    zero(g, x, 2 * sizeof *x);
    launch<write_kernel>(g, "write", dim3(1), 32, 0, x);
    launch<read_kernel>(g, "read", dim3(1), 32, 0, x, x + 1, waits);
    sync(g);
    int found = x[1];
    dev_free(g, x);
    return found;
}

int shim_replays(void) {
    return replays;
}

struct gpu *llmchat_gpu_open(int version, int index, char *error, bool *none) {
    const char *devices = getenv("LLMCHAT_SHIM_DEVICES");
    int n = devices ? atoi(devices) : 1;
    *none = false;
    if (version != GPU_VERSION) {
        snprintf(error, 256, "the host shim has version %d, wanted %d", GPU_VERSION, version);
        return nullptr;
    }
    *none = index >= n;
    if (index >= n) {
        snprintf(error, 256, "GPU %d is wanted, and there are %d, counted from 0", index, n);
        return nullptr;
    }
    struct host_device *d = new host_device();
    struct gpu *g = &d->gpu;
    d->index = index;
    d->stream = {run_dry, g};
    g->stream = &d->stream;
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
    g->upload = upload;
    g->download = download;
    g->copy = copy;
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
    if (told_to_fail(g, "open")) {
        snprintf(error, 256, "%s", g->error);
        dev_close(g);
        return nullptr;
    }
    return g;
}
