/*
 * dev.h - the language that kernels are written in: C++ of a small kind, over these wrappers.
 *
 * With nvcc a wrapper is an intrinsic or a line of PTX; with any other C++ compiler it is a
 * function of the host shim, which runs a fibre for each CUDA thread (tests/shim/shim.h; the
 * build names it in LLMCHAT_SHIM). All inline PTX of the project is here. Kernels use no static
 * shared memory, no other intrinsics, and reach shared memory through lds() and sts() alone, so
 * that the shim sees every access.
 *
 * Numbers of 16 bits are passed around as their bits; two in a word have the first in its low
 * half. There is no ldmatrix: operands lie in memory so that what a lane has of several
 * fragments is 16 neighbouring bytes, one read.
 */
#ifndef LLMCHAT_ENGINE_CUDA_DEV_H
#define LLMCHAT_ENGINE_CUDA_DEV_H

#include "engine/cuda/gpu.h"
#include <math.h>
#include <stdint.h>
#include <string.h>

struct alignas(16) word4 {
    uint32_t w[4];
};
struct alignas(16) real4 {
    float v[4];
};

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define KERNEL                  static __global__
#define DEVICE                  static __device__ __forceinline__
#define BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)
#define UNROLL                  _Pragma("unroll")
/* The block's shared memory, 16-byte aligned. */
#define SHARED(name) extern __shared__ __align__(16) unsigned char name[]

DEVICE int thread_x() {
    return (int)threadIdx.x;
}
DEVICE int block_x() {
    return (int)blockIdx.x;
}
DEVICE int block_y() {
    return (int)blockIdx.y;
}
DEVICE int block_z() {
    return (int)blockIdx.z;
}
DEVICE int n_thread() {
    return (int)blockDim.x;
}
DEVICE int n_block_x() {
    return (int)gridDim.x;
}
/* Kernels overlap (launch()): one may begin when all blocks of the one before have called
 * let_next_begin(), or ended. What others wrote is there, and may be written over, from
 * wait_for_others() on, which every thread of every kernel calls. */
DEVICE void let_next_begin() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}
DEVICE void wait_for_others() {
    let_next_begin();
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
DEVICE void block_sync() {
    __syncthreads();
}
DEVICE void warp_sync() {
    __syncwarp();
}
template <class T> DEVICE T shfl_xor(T v, int mask) {
    return __shfl_xor_sync(0xffffffffu, v, mask);
}
template <class T> DEVICE T shfl(T v, int lane) {
    return __shfl_sync(0xffffffffu, v, lane);
}
/* Whether any lane says so, to all 32. */
DEVICE bool any_lane(bool mine) {
    return __any_sync(0xffffffffu, mine) != 0;
}
template <class T> DEVICE T lds(const T *p) {
    return *p;
}
template <class T> DEVICE void sts(T *p, T v) {
    *p = v;
}
/* The line with this byte comes to the second-level cache. */
DEVICE void prefetch(const void *p) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}
/* Adds to a number in shared memory, whoever else does so; the one of 32 bits gives what stood
 * there. For integers alone: their sums are the same in any order. 64 bits are two additions,
 * which the hardware has, in the place of a compare-and-swap that many threads would repeat. */
DEVICE uint32_t sts_add(uint32_t *p, uint32_t v) {
    return atomicAdd(p, v);
}
DEVICE void sts_add(uint64_t *p, uint64_t v) {
    uint32_t *half = (uint32_t *)p, low = (uint32_t)v;
    uint32_t carry = atomicAdd(half, low) + low < low;
    if (uint32_t high = (uint32_t)(v >> 32) + carry)
        atomicAdd(half + 1, high);
}
/* Adds to a number in device memory, whoever else does so; what stood there. What this thread
 * wrote before make_visible() others find who see what it writes behind it; they read it by
 * ld_fresh(). */
DEVICE int add_global(int *p, int v) {
    return atomicAdd(p, v);
}
DEVICE void make_visible() {
    __threadfence();
}
DEVICE float ld_fresh(const float *p) {
    return __ldcg(p);
}
/* a b, rounded before anything is added to it */
DEVICE float mul_rounded(float a, float b) {
    return __fmul_rn(a, b);
}
/* 16 bytes that are read once: not kept in the first-level cache. */
DEVICE word4 ld_stream(const void *p) {
    word4 r;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r.w[0]), "=r"(r.w[1]), "=r"(r.w[2]), "=r"(r.w[3])
                 : "l"(p));
    return r;
}
/* 16 bytes from global to shared memory behind the thread's back; `bytes` of them, 0 or 16: the
 * rest is zero. A group is what was asked for between two commits; wait<N> waits until at most
 * the last N groups are on their way. */
DEVICE void cp_async(void *shared, const void *global, int bytes) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(global),
                 "r"(bytes));
}
DEVICE void cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int N> DEVICE void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
/* d [16, 8] += a [16, 16] b [16, 8] in f32. With g = lane / 4 and t = lane % 4 a lane holds
 *   a: rows g, g + 8, g, g + 8; columns 2t, 2t + 1 in a[0] and a[1], + 8 in a[2] and a[3]
 *   b: column g; rows 2t, 2t + 1 in b[0], + 8 in b[1]
 *   d: rows g (d[0], d[1]) and g + 8 (d[2], d[3]); columns 2t, 2t + 1 */
DEVICE void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/* Byte i of the result is byte number (select >> 4 i) & 7 of b:a, a's being the first four. */
DEVICE uint32_t byte_perm(uint32_t a, uint32_t b, uint32_t select) {
    return __byte_perm(a, b, select);
}
/* d [16, 8] = a [16, 32] b [32, 8] + c [16, 8], int8 into int32. A word holds four numbers:
 *   a: rows g, g + 8, g, g + 8; columns 4t .. 4t + 3 in a[0] and a[1], + 16 in a[2] and a[3]
 *   b: column g; rows 4t .. 4t + 3 in b[0], + 16 in b[1]
 *   c, d: as above */
DEVICE void mma_s8(int32_t d[4], const uint32_t a[4], const uint32_t b[2], const int32_t c[4]) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(c[0]),
          "r"(c[1]), "r"(c[2]), "r"(c[3]));
}
DEVICE float bf16_real(uint16_t b) {
    return __uint_as_float((uint32_t)b << 16);
}
/* To nearest, ties to even; the infinities and NaN stay. */
DEVICE uint16_t real_bf16(float f) {
    return __bfloat16_as_ushort(__float2bfloat16_rn(f));
}
DEVICE uint32_t reals_bf16(float lo, float hi) {
    __nv_bfloat162 r = __floats2bfloat162_rn(lo, hi);
    uint32_t bits;
    memcpy(&bits, &r, 4);
    return bits;
}
DEVICE float f16_real(uint16_t h) {
    return __half2float(__ushort_as_half(h));
}
/* As above, but saturates at +-65504; NaN stays. */
DEVICE uint16_t real_f16(float f) {
    if (fabsf(f) > 65504.0f)
        f = f < 0 ? -65504.0f : 65504.0f;
    return __half_as_ushort(__float2half_rn(f));
}

/* Remembers the first error of a device (device.cu). */
void gpu_check(struct gpu *g, cudaError_t e, const char *what);

/* K<<<grid, block, shared>>>(a...), checked; where a device can, it begins while the kernel
 * before ends. Behind a copy it does not: nothing says that wait_for_others() waits for one. */
template <auto K, class... A>
static void launch(struct gpu *g, const char *name, dim3 grid, int block, size_t shared,
                   A... a) {
    if (g->failed)
        return;
    /* More has to be asked for, on each device: once a thread, so that a step that is recorded
     * does not. Always for all that there is: the limit is the process's, and a lower one of
     * another thread's would end this one's launches. */
    static thread_local char allowed[sizeof g->info.pci];
    if (shared > 48 << 10 && strcmp(allowed, g->info.pci) != 0) {
        gpu_check(g,
                  cudaFuncSetAttribute(K, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       (int)g->info.block_bytes),
                  name);
        memcpy(allowed, g->info.pci, sizeof allowed);
    }
    cudaLaunchAttribute early;
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3((unsigned)block);
    config.dynamicSmemBytes = shared;
    config.stream = (cudaStream_t)g->stream;
    config.attrs = &early;
    config.numAttrs = g->info.major >= 9 && !g->copied;
    g->copied = false;
    gpu_check(g, cudaLaunchKernelEx(&config, K, a...), name);
}
#else
#include LLMCHAT_SHIM
#endif

DEVICE float warp_sum(float v) {
    for (int i = 16; i > 0; i /= 2)
        v += shfl_xor(v, i);
    return v;
}
DEVICE int lane_id() {
    return thread_x() % 32;
}
DEVICE int warp_id() {
    return thread_x() / 32;
}
DEVICE float low_bf16(uint32_t pair) {
    return bf16_real((uint16_t)pair);
}
DEVICE float high_bf16(uint32_t pair) {
    return bf16_real((uint16_t)(pair >> 16));
}
/* Numbers of fp8 in the low bytes of both halves, as f16 numbers over 2^8: their bits are
 * moved, and NaN, the only one of 0x3f80, becomes 0x7f80. Exact. */
DEVICE uint32_t fp8_f16(uint32_t w) {
    uint32_t x = (w << 7 & 0x3f803f80) | (w << 8 & 0x80008000);
    return x | ((x + 0x00800080) & 0x40004000);
}
DEVICE int min_int(int a, int b) {
    return a < b ? a : b;
}
DEVICE int max_int(int a, int b) {
    return a > b ? a : b;
}
DEVICE uint32_t reals_f16(float lo, float hi) {
    return real_f16(lo) | (uint32_t)real_f16(hi) << 16;
}

#endif
