/*
 * shim.cc - see shim.h: fibres, the barriers between them, and what is watched.
 *
 * A launch owns as many stacks as its blocks have threads; they are kept for the next launch. A
 * fibre gives way at a barrier only. The scheduler goes from warp to warp and lets a warp's
 * lanes run as long as one can, so that a shuffle costs a switch for each lane and no more.
 *
 * A kernel that may begin early (dev.h) does so with its first block: that runs as far as
 * wait_for_others() while two kernels before it have not even begun (device.cc), and goes on in
 * its turn. So what it reads or writes too early has the wrong value. Its fibres, and a copy of
 * its shared memory, are put aside meanwhile.
 *
 * Order of two accesses to shared memory: they are ordered if a block barrier lies between, or,
 * for lanes of one warp, a warp barrier. Each access is noted with the number of barriers that
 * its thread has passed, so that it does not matter which of the two the shim happened to run
 * first. Shuffles order nothing, as CUDA says of them.
 *
 * Bank conflicts: the accesses that the lanes of a warp make from one line for the nth time
 * since a barrier are one access of the warp. It takes as many passes as the largest number of
 * different words in one of the 32 banks; wider accesses are looked at in parts of 128 bytes a
 * pass (a half or a quarter of the warp), as the hardware makes them.
 */
#include "engine/cuda/dev.h"

#include <algorithm>
#include <list>
#include <map>
#include <mutex>
#include <set>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <tuple>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace {

enum { STACK = 256 << 10, MAX_SHARED = 227 << 10, MAX_REPORT = 8 };
enum state { READY, AT_WARP, AT_BLOCK, AT_OTHERS, DONE };

struct copy {
    void *shared;
    const void *global;
    int bytes;
    const char *file;
    int line;
};

struct fibre {
    char *stack;
#if defined(__x86_64__)
    void *sp;
#else
    ucontext_t ctx;
#endif
    void *asan_fake;
    enum state state;
    int n_exchange;      /* of its warp, so far */
    int n_block, n_warp; /* barriers passed */
    std::vector<std::vector<copy>> groups;
    std::vector<copy> open;
    std::map<std::pair<const char *, int>, int> n_access; /* from a line, since a barrier */
};

struct warp {
    int waiting, alive;
    alignas(16) unsigned char slot[2][32][32];
};

/* An access to a byte of shared memory. */
struct mark {
    int thread = -1; /* MANY: several lanes of a warp; ALL: of several warps */
    int warp = -1, n_block = -1, n_warp = -1;
};
enum { MANY = -2, ALL = -3 };
struct watch {
    mark read, write, add;
};

struct place {
    double passes = 0, ideal = 0;
};

/* What the lanes of one warp reached from one line, for the nth time. */
struct access {
    struct part {
        int lane;
        uintptr_t at;
        size_t bytes;
    };
    std::vector<part> parts;
};

std::mutex running; /* a launch: all that follows is of the one that runs */
std::vector<fibre> fibres;
std::vector<warp> warps;
int alive, waiting, current = -1;
const char *kernel;
void (*body)(void *);
void *body_ctx;
alignas(128) unsigned char shared_memory[MAX_SHARED];
size_t shared_bytes;

bool tracing;
int races;
std::vector<watch> watched;
std::map<std::pair<const char *, int>, place> places;
std::map<std::tuple<int, const char *, int, int>, access> open_accesses;

/* What a block has between beginning early and going on. */
struct begun_block {
    std::vector<fibre> fibres;
    std::vector<warp> warps;
    int alive, waiting;
    struct shim_self me;
    std::vector<unsigned char> shared;
    std::vector<watch> watched;
    std::map<std::tuple<int, const char *, int, int>, access> open_accesses;
    void *ctx; /* whose block it is */
};
std::list<begun_block> begun, idle; /* idle: keep their stacks */
bool beginning;

#if defined(__x86_64__)
void *main_sp;
#else
ucontext_t main_ctx;
#endif
#if defined(__SANITIZE_ADDRESS__)
void *main_fake;
const void *main_stack;
size_t main_size;
#endif

[[noreturn]] void die(const char *what) {
    fprintf(stderr, "shim: %s: %s (block %u %u %u, thread %d)\n", kernel, what, shim_me.block.x,
            shim_me.block.y, shim_me.block.z, current);
    abort();
}

#if defined(__x86_64__)
/* Saves the callee's registers on this stack and goes on with another. */
extern "C" void shim_switch(void **save, void *to);
asm(R"(
    .text
    .globl shim_switch
    .type shim_switch, @function
shim_switch:
    endbr64
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size shim_switch, .-shim_switch
)");
#endif

void to_main(bool last) {
    fibre &f = fibres[(size_t)current];
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(last ? nullptr : &f.asan_fake, main_stack, main_size);
#else
    (void)last;
#endif
#if defined(__x86_64__)
    shim_switch(&f.sp, main_sp);
#else
    swapcontext(&f.ctx, &main_ctx);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(f.asan_fake, &main_stack, &main_size);
#endif
}

void fibre_main() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &main_stack, &main_size);
#endif
    body(body_ctx);
    fibre &f = fibres[(size_t)current];
    f.state = DONE;
    alive--;
    warps[(size_t)current / 32].alive--;
    to_main(true);
    abort();
}

void enter(int i) {
    fibre &f = fibres[(size_t)i];
    current = i;
    shim_me.thread = i;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&main_fake, f.stack, STACK);
#endif
#if defined(__x86_64__)
    shim_switch(&main_sp, f.sp);
#else
    swapcontext(&main_ctx, &f.ctx);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(main_fake, nullptr, nullptr);
#endif
    current = -1;
}

void prepare(int i) {
    fibre &f = fibres[(size_t)i];
    if (!f.stack) {
        void *p = mmap(nullptr, STACK, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
            die("no memory for stacks");
        f.stack = (char *)p;
    }
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(f.stack, STACK);
#endif
#if defined(__x86_64__)
    void **sp = (void **)(void *)(f.stack + STACK - 64);
    *--sp = nullptr; /* where fibre_main would return to: keeps the stack's alignment */
    *--sp = (void *)fibre_main;
    for (int r = 0; r < 6; r++)
        *--sp = nullptr;
    f.sp = sp;
#else
    getcontext(&f.ctx);
    f.ctx.uc_stack.ss_sp = f.stack;
    f.ctx.uc_stack.ss_size = STACK;
    f.ctx.uc_link = nullptr;
    makecontext(&f.ctx, fibre_main, 0);
#endif
    f.state = READY;
    f.n_exchange = f.n_block = f.n_warp = 0;
    f.groups.clear();
    f.open.clear();
    f.n_access.clear();
}

/* ---- bank conflicts ---- */

/* Passes of one access of a warp: lanes go together as far as 128 bytes reach. */
int passes(const access &a, int *ideal) {
    int size = (int)a.parts[0].bytes, together = size <= 4 ? 32 : size <= 8 ? 16 : 8, sum = 0;
    *ideal = 0;
    for (int first = 0; first < 32; first += together) {
        std::set<uintptr_t> bank[32];
        bool any = false;
        for (const access::part &p : a.parts) {
            if (p.lane < first || p.lane >= first + together)
                continue;
            any = true;
            for (uintptr_t w = p.at / 4; w <= (p.at + p.bytes - 1) / 4; w++)
                bank[w % 32].insert(w);
        }
        if (!any)
            continue;
        size_t most = 1;
        for (auto &b : bank)
            most = std::max(most, b.size());
        sum += (int)most;
        ++*ideal;
    }
    return sum;
}

void close_access(const std::tuple<int, const char *, int, int> &key, const access &a) {
    int ideal, n = passes(a, &ideal);
    place &p = places[{std::get<1>(key), std::get<2>(key)}];
    p.passes += n;
    p.ideal += ideal;
}

void close_all() {
    for (auto &a : open_accesses)
        close_access(a.first, a.second);
    open_accesses.clear();
}

void note_access(fibre &f, uintptr_t at, size_t bytes, const char *file, int line) {
    int nth = f.n_access[{file, line}]++;
    auto key = std::make_tuple(current / 32, file, line, nth);
    access &a = open_accesses[key];
    a.parts.push_back({current % 32, at, bytes});
    if (a.parts.size() < 32)
        return;
    close_access(key, a);
    open_accesses.erase(key);
}

/* ---- races ---- */

bool unordered(const mark &m, const fibre &f) {
    if (m.thread == -1 || m.thread == current || m.n_block != f.n_block)
        return false;
    if (m.thread == ALL)
        return true;
    return m.warp != current / 32 || m.n_warp == f.n_warp;
}

void note_mark(mark &m, const fibre &f) {
    bool again = m.thread != -1 && m.n_block == f.n_block && m.thread != current;
    if (again && (m.thread == ALL || m.warp != current / 32))
        m.thread = ALL;
    else if (again && m.n_warp == f.n_warp)
        m.thread = MANY;
    else
        m.thread = current;
    m.warp = current / 32;
    m.n_block = f.n_block;
    m.n_warp = f.n_warp;
}

/* What of a byte's past an access is not ordered with: a read with writes and additions, a
 * write with everything, an addition with all but additions. NULL: all is well. */
const mark *met(const watch &w, const fibre &f, enum shim_access how, const char **did) {
    const struct {
        const mark *m;
        const char *did;
        bool may_meet;
    } past[] = {{&w.write, "wrote", false},
                {&w.read, "read", how == SHIM_READ},
                {&w.add, "added to", how == SHIM_ADD}};
    for (auto &p : past)
        if (!p.may_meet && unordered(*p.m, f)) {
            *did = p.did;
            return p.m;
        }
    return nullptr;
}

void note_race(fibre &f, size_t at, size_t bytes, enum shim_access how, const char *file,
               int line) {
    static const char *const doing[] = {"reads", "writes", "adds to"};
    for (size_t i = at; i < at + bytes; i++) {
        watch &w = watched[i];
        const char *did = nullptr;
        if (const mark *m = met(w, f, how, &did)) {
            if (races++ < MAX_REPORT)
                fprintf(stderr,
                        "shim: %s: %s:%d: thread %d %s byte %zu of shared memory that thread "
                        "%d %s, with no barrier between\n",
                        kernel, file, line, current, doing[how], i, m->thread, did);
            return;
        }
        note_mark(how == SHIM_READ ? w.read : how == SHIM_WRITE ? w.write : w.add, f);
    }
}

} // namespace

struct shim_self shim_me;

unsigned char *shim_shared(void) {
    return shared_memory;
}

void shim_touch(const void *p, size_t bytes, enum shim_access how, const char *file, int line) {
    size_t at = (size_t)((const unsigned char *)p - shared_memory);
    if ((const unsigned char *)p < shared_memory || at + bytes > shared_bytes)
        die("an access outside of the block's shared memory");
    if ((uintptr_t)p % bytes != 0)
        die("a shared memory access that is not aligned");
    if (!tracing)
        return;
    fibre &f = fibres[(size_t)current];
    note_access(f, (uintptr_t)at, bytes, file, line);
    note_race(f, at, bytes, how, file, line);
}

void shim_wait_for_others(void) {
    shim_me.waited++;
    if (!beginning)
        return;
    fibres[(size_t)current].state = AT_OTHERS;
    to_main(false);
}

void shim_warp_sync(void) {
    fibre &f = fibres[(size_t)current];
    warp &w = warps[(size_t)current / 32];
    f.n_warp++;
    if (++w.waiting == 32) {
        w.waiting = 0;
        for (int i = current / 32 * 32, end = i + 32; i < end; i++)
            fibres[(size_t)i].state = READY;
        return;
    }
    f.state = AT_WARP;
    to_main(false);
}

void shim_block_sync(void) {
    fibre &f = fibres[(size_t)current];
    f.n_block++;
    if (tracing)
        f.n_access.clear();
    f.state = AT_BLOCK;
    waiting++;
    to_main(false);
}

const unsigned char *shim_exchange(const void *mine, size_t bytes) {
    fibre &f = fibres[(size_t)current];
    warp &w = warps[(size_t)current / 32];
    int side = f.n_exchange++ & 1;
    memcpy(w.slot[side][current % 32], mine, bytes);
    shim_warp_sync();
    f.n_warp--; /* a shuffle orders no memory */
    return w.slot[side][0];
}

void shim_cp_async(void *shared, const void *global, int bytes, const char *file, int line) {
    size_t at = (size_t)((unsigned char *)shared - shared_memory);
    if ((unsigned char *)shared < shared_memory || at + 16 > shared_bytes)
        die("an asynchronous copy outside of the block's shared memory");
    if ((uintptr_t)shared % 16 != 0 || (uintptr_t)global % 16 != 0)
        die("an asynchronous copy that is not aligned to 16 bytes");
    shim_touch(shared, 16, SHIM_WRITE, file, line); /* from now on, until it is waited for */
    fibres[(size_t)current].open.push_back({shared, global, bytes, file, line});
}

void shim_cp_commit(void) {
    fibre &f = fibres[(size_t)current];
    f.groups.push_back(std::move(f.open));
    f.open.clear();
}

void shim_cp_wait(int n) {
    fibre &f = fibres[(size_t)current];
    while ((int)f.groups.size() > n) {
        for (copy &c : f.groups.front()) {
            if (tracing)
                note_race(f, (size_t)((unsigned char *)c.shared - shared_memory), 16,
                          SHIM_WRITE, c.file, c.line);
            memset(c.shared, 0, 16);
            memcpy(c.shared, c.global, (size_t)c.bytes);
        }
        f.groups.erase(f.groups.begin());
    }
}

void shim_mma(float d[4], const uint32_t a[4], const uint32_t b[2], float (*real)(uint16_t)) {
    uint32_t mine[8] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    const unsigned char *all = shim_exchange(mine, sizeof mine);
    auto word = [&](int lane, int i) {
        uint32_t w;
        memcpy(&w, all + 32 * lane + 4 * i, 4);
        return w;
    };
    int g = current % 32 / 4, t = current % 32 % 4;
    for (int i = 0; i < 4; i++) {
        int high = i / 2, col = 2 * t + i % 2; /* row g + 8 high */
        float sum = 0;
        for (int k = 0; k < 16; k++) {
            uint32_t wa = word(4 * g + k % 8 / 2, high + 2 * (k / 8));
            uint32_t wb = word(4 * col + k % 8 / 2, 4 + k / 8);
            uint16_t ha = (uint16_t)(wa >> 16 * (k % 2)), hb = (uint16_t)(wb >> 16 * (k % 2));
            sum += real(ha) * real(hb);
        }
        d[i] += sum;
    }
}

void mma_s8(int32_t d[4], const uint32_t a[4], const uint32_t b[2], const int32_t c[4]) {
    uint32_t mine[8] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    const unsigned char *all = shim_exchange(mine, sizeof mine);
    /* a lane's bytes: 16 of a, 8 of b; k: 0..31 */
    auto number = [&](int lane, int word, int k) {
        return (int32_t)(int8_t)all[32 * lane + 4 * word + k % 4];
    };
    int g = current % 32 / 4, t = current % 32 % 4;
    for (int i = 0; i < 4; i++) {
        int high = i / 2, col = 2 * t + i % 2; /* row g + 8 high */
        int32_t sum = c[i];
        for (int k = 0; k < 32; k++)
            sum += number(4 * g + k % 16 / 4, high + 2 * (k / 16), k) *
                   number(4 * col + k % 16 / 4, 4 + k / 16, k);
        d[i] = sum;
    }
}

float f16_real(uint16_t h) {
    int e = h >> 10 & 31, m = h & 1023;
    float f = e == 31  ? (m ? NAN : INFINITY)
              : e == 0 ? ldexpf((float)m, -24)
                       : ldexpf((float)(1024 + m), e - 25);
    return h & 0x8000 ? -f : f;
}

/* To nearest, ties to even; saturates, and NaN stays. */
uint16_t real_f16(float f) {
    uint16_t sign = signbit(f) ? 0x8000 : 0;
    float a = fabsf(f);
    int e;
    if (f != f)
        return sign | 0x7e00;
    if (a == 0)
        return sign;
    if (a >= 65504)
        return sign | 0x7bff;
    frexpf(a, &e); /* a < 2^e */
    e = e < -13 ? -13 : e;
    /* a multiple of 2^(e - 11); the leading one counts in the exponent, as would a carry */
    return (uint16_t)(sign | (((e + 13) << 10) + (int)rintf(ldexpf(a, 11 - e))));
}

static void start_block(dim3 at, int n) {
    shim_me.block = at;
    shim_me.waited = 0;
    alive = n;
    waiting = 0;
    for (int i = 0; i < n; i++)
        prepare(i);
    for (int w = 0; w < n / 32; w++) {
        warps[(size_t)w].waiting = 0;
        warps[(size_t)w].alive = 32;
    }
    memset(shared_memory, 0xa5, shared_bytes);
    if (tracing)
        watched.assign(shared_bytes, watch());
}

static bool all_wait_for_others(int n) {
    for (int i = 0; i < n; i++)
        if (fibres[(size_t)i].state != AT_OTHERS)
            return false;
    return true;
}

/* To the end, or, while it begins early, to where all wait for other kernels. */
static void run_block(int n) {
    while (alive > 0) {
        bool ran = false;
        for (int w = 0; w < n / 32; w++)
            for (bool again = true; again;) {
                again = false;
                for (int i = 32 * w; i < 32 * w + 32; i++)
                    if (fibres[(size_t)i].state == READY) {
                        enter(i);
                        again = ran = true;
                    }
            }
        if (waiting > 0 && waiting == alive) {
            waiting = 0;
            close_all();
            for (int i = 0; i < n; i++)
                if (fibres[(size_t)i].state == AT_BLOCK)
                    fibres[(size_t)i].state = READY;
        } else if (beginning && all_wait_for_others(n)) {
            return;
        } else if (!ran) {
            die("threads wait for each other at different barriers");
        }
    }
    close_all();
    if (shim_me.waited != n)
        die("not every thread waits, once, for the kernels before");
}

static void set_launch(const char *name, dim3 grid, int block, size_t shared, void (*f)(void *),
                       void *ctx) {
    kernel = name;
    if (block < 32 || block > 1024 || block % 32 || shared > MAX_SHARED || grid.x < 1 ||
        grid.y < 1 || grid.z < 1 || grid.y > 65535 || grid.z > 65535)
        die("a launch of an impossible shape");
    shared_bytes = shared;
    body = f;
    body_ctx = ctx;
    shim_me.n_thread = block;
    shim_me.grid = grid;
}

static void room_for(int block) {
    if ((int)fibres.size() < block)
        fibres.resize((size_t)block);
    if (warps.size() < (size_t)block / 32)
        warps.resize((size_t)block / 32);
}

/* Changes places with the block that runs. */
static void swap_places(begun_block &b) {
    std::swap(fibres, b.fibres);
    std::swap(warps, b.warps);
    std::swap(alive, b.alive);
    std::swap(waiting, b.waiting);
    std::swap(watched, b.watched);
    std::swap(open_accesses, b.open_accesses);
}

void shim_begin(const char *name, dim3 grid, int block, size_t shared, void (*f)(void *),
                void *ctx) {
    std::lock_guard<std::mutex> alone(running);
    if (idle.empty())
        idle.emplace_back();
    begun.splice(begun.end(), idle, idle.begin());
    begun_block &b = begun.back();
    set_launch(name, grid, block, shared, f, ctx);
    swap_places(b);
    room_for(block);
    start_block(dim3(0, 0, 0), block);
    beginning = true;
    run_block(block);
    beginning = false;
    swap_places(b);
    b.me = shim_me;
    b.shared.assign(shared_memory, shared_memory + shared_bytes);
    b.ctx = ctx;
}

/* The first block of a launch, if it has begun. */
static bool went_on(void *ctx, int n) {
    auto b = std::find_if(begun.begin(), begun.end(),
                          [&](const begun_block &x) { return x.ctx == ctx; });
    if (b == begun.end())
        return false;
    swap_places(*b);
    shim_me = b->me;
    std::copy(b->shared.begin(), b->shared.end(), shared_memory);
    for (int i = 0; i < n; i++)
        fibres[(size_t)i].state = READY;
    run_block(n);
    swap_places(*b);
    idle.splice(idle.end(), begun, b);
    return true;
}

void shim_run(const char *name, dim3 grid, int block, size_t shared, void (*f)(void *),
              void *ctx) {
    std::lock_guard<std::mutex> alone(running); /* devices run in threads of their own */
    set_launch(name, grid, block, shared, f, ctx);
    bool first = went_on(ctx, block);
    room_for(block);
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++, first = false)
                if (!first) {
                    start_block(dim3(x, y, z), block);
                    run_block(block);
                }
}

void shim_trace(bool on) {
    tracing = on;
    if (!on)
        return;
    races = 0;
    places.clear();
}

int shim_races(void) {
    return races;
}

double shim_worst_conflict(char where[64]) {
    double worst = 1;
    where[0] = 0;
    for (auto &p : places) {
        double x = p.second.passes / p.second.ideal;
        if (x <= worst)
            continue;
        worst = x;
        const char *slash = strrchr(p.first.first, '/');
        snprintf(where, 64, "%s:%d", slash ? slash + 1 : p.first.first, p.first.second);
    }
    return worst;
}
