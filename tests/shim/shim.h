/*
 * shim.h - CUDA kernels on the host: a fibre for each CUDA thread.
 *
 * The kernel sources of src/engine/cuda are compiled by the host compiler with this in the
 * place of CUDA (dev.h includes it). A launch runs block after block; in a block each thread is
 * a fibre that runs until it waits for its warp or its block. So shuffles, votes, barriers and
 * matrix fragments mean what they mean on a device, ASan and UBSan see the kernel, and the same
 * numbers come out each time.
 *
 * Kernels overlap as far as one can see: where a kernel may begin before others have ended, its
 * first block does, before two of them have begun. What it reads then that they write is old.
 *
 * Found at once, ending the program with the kernel's name: a barrier that not all threads
 * reach; threads that don't wait for the kernels before, once; a warp operation without all 32
 * lanes; asynchronous copies that are read too early give the old bytes. With shim_trace(true)
 * also: two threads that touch a byte of shared memory, one of them writing, with no barrier
 * between (additions by sts_add() may meet each other, but nothing else); and for each place in
 * the source how many passes its accesses to shared memory take (bank conflicts).
 *
 * Only whole warps are launched. A block's threads are one-dimensional.
 */
#ifndef LLMCHAT_TESTS_SHIM_H
#define LLMCHAT_TESTS_SHIM_H

#include "engine/cuda/gpu.h"
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KERNEL static
#define DEVICE [[maybe_unused]] static inline
#define BOUNDS(threads, blocks)
#define UNROLL
#define SHARED(name) unsigned char *name = shim_shared()

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {
    }
};

/* The thread that runs. */
struct shim_self {
    int thread, n_thread;
    long waited; /* calls of wait_for_others() in this block */
    dim3 block, grid;
};
extern struct shim_self shim_me;

unsigned char *shim_shared(void);
void shim_block_sync(void);
void shim_warp_sync(void);
/* Gives `bytes` (at most 32) to the warp and returns what lane 0 gave, lane i's 32 bytes behind
 * it; good until the warp's next exchange but one. */
const unsigned char *shim_exchange(const void *mine, size_t bytes);
enum shim_access { SHIM_READ, SHIM_WRITE, SHIM_ADD };
void shim_touch(const void *p, size_t bytes, enum shim_access how, const char *file, int line);
void shim_cp_async(void *shared, const void *global, int bytes, const char *file, int line);
void shim_cp_commit(void);
void shim_cp_wait(int n);
void shim_mma(float d[4], const uint32_t a[4], const uint32_t b[2], float (*real)(uint16_t));
void mma_s8(int32_t d[4], const uint32_t a[4], const uint32_t b[2], const int32_t c[4]);

/* Runs body for all threads of a grid; one launch at a time, whoever asks. Before, shim_begin()
 * may have the first block of this ctx run as far as it need not wait for others. */
void shim_begin(const char *kernel, dim3 grid, int block, size_t shared,
                void (*body)(void *ctx), void *ctx);
void shim_run(const char *kernel, dim3 grid, int block, size_t shared, void (*body)(void *ctx),
              void *ctx);

static inline int thread_x() {
    return shim_me.thread;
}
static inline int block_x() {
    return (int)shim_me.block.x;
}
static inline int block_y() {
    return (int)shim_me.block.y;
}
static inline int block_z() {
    return (int)shim_me.block.z;
}
static inline int n_block_x() {
    return (int)shim_me.grid.x;
}
static inline int n_thread() {
    return shim_me.n_thread;
}
void shim_wait_for_others(void);
static inline void let_next_begin() {
}
static inline void wait_for_others() {
    shim_wait_for_others();
}
static inline void block_sync() {
    shim_block_sync();
}
static inline void warp_sync() {
    shim_warp_sync();
}
template <class T> static inline T shfl(T v, int lane) {
    T r;
    memcpy(&r, shim_exchange(&v, sizeof v) + 32 * (lane % 32), sizeof r);
    return r;
}
template <class T> static inline T shfl_xor(T v, int mask) {
    return shfl(v, shim_me.thread % 32 ^ mask);
}
static inline bool any_lane(bool mine) {
    const unsigned char *all = shim_exchange(&mine, sizeof mine);
    bool any = false;
    for (int i = 0; i < 32; i++)
        any = any || all[32 * i];
    return any;
}
template <class T>
static inline T lds(const T *p, const char *file = __builtin_FILE(),
                    int line = __builtin_LINE()) {
    shim_touch(p, sizeof *p, SHIM_READ, file, line);
    return *p;
}
template <class T>
static inline void sts(T *p, T v, const char *file = __builtin_FILE(),
                       int line = __builtin_LINE()) {
    shim_touch(p, sizeof *p, SHIM_WRITE, file, line);
    *p = v;
}
static inline void prefetch(const void *) {
}
/* Fibres give way at barriers only, so nobody comes between. */
static inline uint32_t sts_add(uint32_t *p, uint32_t v, const char *file = __builtin_FILE(),
                               int line = __builtin_LINE()) {
    shim_touch(p, sizeof *p, SHIM_ADD, file, line);
    uint32_t was = *p;
    *p = was + v;
    return was;
}
static inline void sts_add(uint64_t *p, uint64_t v, const char *file = __builtin_FILE(),
                           int line = __builtin_LINE()) {
    shim_touch(p, sizeof *p, SHIM_ADD, file, line);
    *p += v;
}
static inline int add_global(int *p, int v) {
    int was = *p;
    *p = was + v;
    return was;
}
static inline void make_visible() {
}
static inline float ld_fresh(const float *p) {
    return *p;
}
static inline float mul_rounded(float a, float b) {
    return a * b; /* compiled with -ffp-contract=off */
}
static inline word4 ld_stream(const void *p) {
    return *(const word4 *)p;
}
static inline void cp_async(void *shared, const void *global, int bytes,
                            const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    shim_cp_async(shared, global, bytes, file, line);
}
static inline void cp_async_commit() {
    shim_cp_commit();
}
template <int N> static inline void cp_async_wait() {
    shim_cp_wait(N);
}

static inline uint32_t byte_perm(uint32_t a, uint32_t b, uint32_t select) {
    uint64_t both = (uint64_t)b << 32 | a;
    uint32_t r = 0;
    for (int i = 0; i < 4; i++)
        r |= (uint32_t)(both >> (select >> 4 * i & 7) * 8 & 255) << 8 * i;
    return r;
}
static inline float bf16_real(uint16_t b) {
    uint32_t bits = (uint32_t)b << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static inline uint16_t real_bf16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    if (f != f)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
static inline uint32_t reals_bf16(float lo, float hi) {
    return real_bf16(lo) | (uint32_t)real_bf16(hi) << 16;
}
float f16_real(uint16_t h);
uint16_t real_f16(float f);
static inline void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    shim_mma(d, a, b, bf16_real);
}
static inline void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    shim_mma(d, a, b, f16_real);
}

/* ---- launching ---- */

template <class F> static void shim_call(void *ctx) {
    (*(F *)ctx)();
}
/* Into the stream, or the recording (device.cc). */
void shim_launch(struct gpu *g, const char *name, dim3 grid, int block, size_t shared,
                 void (*body)(void *ctx), void *ctx, size_t ctx_bytes);

template <auto K, class... P, class... A> static auto shim_bind(void (*)(P...), A... a) {
    /* arguments become what the kernel takes, once, as a launch copies them */
    return [... p = (P)a] { K(p...); };
}
template <auto K, class... A>
static void launch(struct gpu *g, const char *name, dim3 grid, int block, size_t shared,
                   A... a) {
    auto body = shim_bind<K>(K, a...);
    shim_launch(g, name, grid, block, shared, shim_call<decltype(body)>, &body, sizeof body);
}

/* ---- what a trace says ---- */

extern "C" {
void shim_trace(bool on); /* on: forgets what was found before */
/* mma_s8() of whole matrices: d [16, 8] = a [16, 32] b [8, 32]^T + c [16, 8] */
void shim_try_mma_s8(const int8_t *a, const int8_t *b, const int32_t *c, int32_t *d);
/* What a kernel finds where the one before it wrote 1 in the place of 0: before it waits for
 * that one, or behind. */
int shim_try_early(struct gpu *g, bool waits);
int shim_replays(void); /* recorded steps that were run, since the start */
int shim_races(void);   /* found since; each is described on standard error, some at most */
/* Passes that the accesses from a line of a kernel took beside what they would take without
 * conflicts, the worst line of all: 1 is none. where: its file and line. */
double shim_worst_conflict(char where[64]);
}

#endif
