/*
 * peak.c - how many multiply-adds a second this processor's cores can do, by type: the roof of
 * bench/roofline.py, which compiles and runs it (cc -O2 -pthread; it is no part of the
 * program).
 *
 *     peak THREADS  ->  one line of JSON: operations a second, all threads together
 *
 * A kernel is a loop of independent accumulators that never leave the registers, so nothing but
 * the arithmetic units bounds it; a multiply and an add count as two operations. What is used:
 *
 *   int8_dot   vpdpbusd      16 x 4 products a 64-byte instruction (AVX-512 VNNI), 8 x 4
 * (AVX-VNNI) int16_dot  vpdpwssd      16 x 2, 8 x 2 int8       vpmaddubsw + vpmaddwd + vpaddd
 * 32-byte, where there is no VNNI: 8 x 4 in three int16      vpmaddwd + vpaddd 32-byte: 8 x 2
 * in two bf16_dot   vdpbf16ps     16 x 2 f32        vfmadd231ps   16 or 8
 *
 * Each runs for a quarter of a second on all threads at once, after a start that does not
 * count; the best of three counts. Instructions stand in assembler, so that no compiler's idea
 * of a faster sum is measured.
 */
#define _GNU_SOURCE
#include <immintrin.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { N_ACC = 12, ROUNDS = 4096 };

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Twelve accumulators cover a latency of 5 or 6 cycles at two instructions a cycle. The inputs
 * are zeros: no denormals, and the units take no shorter way for them. */
#define KERNEL(name, features, type, zero, ...)                                                \
    __attribute__((target(features), noinline)) static void name(void) {                       \
        type a0 = zero, a1 = zero, a2 = zero, a3 = zero, a4 = zero, a5 = zero, a6 = zero,      \
             a7 = zero, a8 = zero, a9 = zero, a10 = zero, a11 = zero, x = zero, y = zero;      \
        for (int i = 0; i < ROUNDS; i++) {                                                     \
            STEP(a0, __VA_ARGS__)                                                              \
            STEP(a1, __VA_ARGS__) STEP(a2, __VA_ARGS__) STEP(a3, __VA_ARGS__)                  \
                STEP(a4, __VA_ARGS__) STEP(a5, __VA_ARGS__) STEP(a6, __VA_ARGS__)              \
                    STEP(a7, __VA_ARGS__) STEP(a8, __VA_ARGS__) STEP(a9, __VA_ARGS__)          \
                        STEP(a10, __VA_ARGS__) STEP(a11, __VA_ARGS__)                          \
        }                                                                                      \
    }
#define STEP(acc, ...)                                                                         \
    __asm__ volatile(__VA_ARGS__ : "+v"(acc) : "v"(x), "v"(y) : "xmm13", "xmm14");
#define AVX2_CODE_3                                                                            \
    "vpmaddubsw %1, %2, %%ymm13\n\tvpmaddwd %%ymm13, %1, %%ymm14\n\tvpaddd %%ymm14, %0, %0"
#define AVX2_CODE_2 "vpmaddwd %1, %2, %%ymm13\n\tvpaddd %%ymm13, %0, %0"

KERNEL(int8_512, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), "vpdpbusd %1, %2, %0")
KERNEL(int16_512, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), "vpdpwssd %1, %2, %0")
KERNEL(bf16_512, "avx512f,avx512bf16", __m512i, _mm512_setzero_si512(), "vdpbf16ps %1, %2, %0")
KERNEL(f32_512, "avx512f", __m512, _mm512_setzero_ps(), "vfmadd231ps %1, %2, %0")
KERNEL(int8_vnni, "avx2", __m256i, _mm256_setzero_si256(), "%{vex%} vpdpbusd %1, %2, %0")
KERNEL(int16_vnni, "avx2", __m256i, _mm256_setzero_si256(), "%{vex%} vpdpwssd %1, %2, %0")
KERNEL(int8_256, "avx2", __m256i, _mm256_setzero_si256(), AVX2_CODE_3)
KERNEL(int16_256, "avx2", __m256i, _mm256_setzero_si256(), AVX2_CODE_2)
KERNEL(f32_256, "avx2,fma", __m256, _mm256_setzero_ps(), "vfmadd231ps %1, %2, %0")

struct worker {
    pthread_t thread;
    pthread_barrier_t *together;
    void (*kernel)(void);
    double calls_s;
};

static void *work(void *arg) {
    struct worker *w = arg;
    for (int i = 0; i < 50; i++)
        w->kernel();
    pthread_barrier_wait(w->together);
    double begin = now_s(), end = begin;
    long calls = 0;
    for (; end - begin < 0.25; end = now_s())
        for (int i = 0; i < 50; i++, calls++)
            w->kernel();
    w->calls_s = (double)calls / (end - begin);
    return NULL;
}

/* Operations a second of all threads; ops: of one instruction (or group). */
static double measure(void (*kernel)(void), double ops, int threads) {
    struct worker *w = calloc((size_t)threads, sizeof *w);
    double best = 0;
    if (!w)
        return 0;
    for (int pass = 0; pass < 3; pass++) {
        pthread_barrier_t together;
        double sum = 0;
        pthread_barrier_init(&together, NULL, (unsigned)threads);
        for (int i = 0; i < threads; i++) {
            w[i] = (struct worker){.together = &together, .kernel = kernel};
            if (pthread_create(&w[i].thread, NULL, work, &w[i]) != 0)
                exit(1);
        }
        for (int i = 0; i < threads; i++) {
            pthread_join(w[i].thread, NULL);
            sum += w[i].calls_s * ROUNDS * N_ACC * ops;
        }
        pthread_barrier_destroy(&together);
        best = sum > best ? sum : best;
    }
    free(w);
    return best;
}

/* GCC 12's __builtin_cpu_supports() has no word for AVX-VNNI: leaf 7.1, EAX bit 4. */
static int has_avx_vnni(void) {
    uint32_t a = 7, b, c = 1, d;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return __builtin_cpu_supports("avx2") && (a >> 4 & 1);
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    if (threads < 1 || threads > 4096) {
        fputs("usage: peak THREADS\n", stderr);
        return 2;
    }
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    int avx512 = __builtin_cpu_supports("avx512f"), vnni = has_avx_vnni();
    int vnni512 = avx512 && __builtin_cpu_supports("avx512vnni");
    int bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
    const struct {
        const char *name;
        int there;
        void (*kernel)(void);
        double ops;
    } rows[] = {
        {"int8_avx512_vnni", vnni512, int8_512, 128},
        {"int16_avx512_vnni", vnni512, int16_512, 64},
        {"bf16_avx512", bf16, bf16_512, 64},
        {"f32_avx512", avx512, f32_512, 32},
        {"int8_avx_vnni", vnni, int8_vnni, 64},
        {"int16_avx_vnni", vnni, int16_vnni, 32},
        {"int8_avx2", avx2, int8_256, 64},
        {"int16_avx2", avx2, int16_256, 32},
        {"f32_avx2", avx2, f32_256, 16},
    };
    const char *comma = "";
    putchar('{');
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].there) {
            printf("%s\"%s\": %.4g", comma, rows[i].name,
                   measure(rows[i].kernel, rows[i].ops, threads));
            comma = ", ";
        }
    puts("}");
    return 0;
}
