/*
 * avx2_rows.c - rows in AVX2 with FMA: norms, RoPE, activations, sums.
 *
 * Rows end with masked loads and stores. Reductions of a row keep one vector of sums and add
 * its lanes at the end.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx2,fma,f16c")

#include "engine/cpu/avx2.h"
#include "engine/cpu/avx2_inline.h"

#define VF       __m256
#define V_SET(f) _mm256_set1_ps(f)
#define V_EXP(x) exp8(x)
#include "engine/cpu/vec_math.h"

void avx2_norm(enum norm_kind kind, const float *x, const float *g, const float *b, float eps,
               int K, float *y) {
    __m256 sum = _mm256_setzero_ps(), mean = sum;
    if (kind == NORM_LAYER) {
        for (int k = 0; k < K; k += 8)
            mean = _mm256_add_ps(mean, _mm256_maskload_ps(x + k, first8(K - k)));
        mean = _mm256_set1_ps(sum8(mean) / (float)K);
    }
    for (int k = 0; k < K; k += 8) {
        __m256i m = first8(K - k);
        __m256 v = _mm256_sub_ps(_mm256_maskload_ps(x + k, m), mean);
        v = _mm256_and_ps(v, _mm256_castsi256_ps(m));
        sum = _mm256_fmadd_ps(v, v, sum);
    }
    __m256 scale = _mm256_set1_ps(1.0f / sqrtf(sum8(sum) / (float)K + eps));
    for (int k = 0; k < K; k += 8) {
        __m256i m = first8(K - k);
        __m256 v = _mm256_sub_ps(_mm256_maskload_ps(x + k, m), mean);
        v = _mm256_mul_ps(_mm256_mul_ps(v, scale), _mm256_maskload_ps(g + k, m));
        if (b)
            v = _mm256_add_ps(v, _mm256_maskload_ps(b + k, m));
        _mm256_maskstore_ps(y + k, m, v);
    }
}

void avx2_rope(float *x, const float *c, const float *s, int n) {
    for (int i = 0; i < n; i += 8) {
        __m256i m = first8(n - i);
        __m256 v = _mm256_maskload_ps(x + i, m), swapped = _mm256_permute_ps(v, 0xb1);
        __m256 r = _mm256_mul_ps(v, _mm256_maskload_ps(c + i, m));
        r = _mm256_fmadd_ps(swapped, _mm256_maskload_ps(s + i, m), r);
        _mm256_maskstore_ps(x + i, m, r);
    }
}

static inline __attribute__((always_inline)) void
act_loop(const enum act_kind kind, const float *g, const float *u, int n, float *y) {
    for (int i = 0; i < n; i += 8) {
        __m256i m = first8(n - i);
        __m256 v = v_act(kind, _mm256_maskload_ps(g + i, m));
        if (u)
            v = _mm256_mul_ps(v, v_up(kind, _mm256_maskload_ps(u + i, m)));
        _mm256_maskstore_ps(y + i, m, v);
    }
}

void avx2_act(enum act_kind kind, const float *g, const float *u, int n, float *y) {
    if (kind == ACT_SILU) /* a loop of its own for the most usual */
        act_loop(ACT_SILU, g, u, n, y);
    else
        act_loop(kind, g, u, n, y);
}

void avx2_cap(float cap, float *x, int n) {
    const __m256 top = _mm256_set1_ps(cap);
    for (int i = 0; i < n; i += 8) {
        __m256i m = first8(n - i);
        __m256 v = v_tanh(_mm256_div_ps(_mm256_maskload_ps(x + i, m), top));
        _mm256_maskstore_ps(x + i, m, _mm256_mul_ps(v, top));
    }
}

void avx2_axpby(float a, const float *x, float b, int n, float *y) {
    const __m256 va = _mm256_set1_ps(a), vb = _mm256_set1_ps(b);
    for (int i = 0; i < n; i += 8) {
        __m256i m = first8(n - i);
        __m256 v = _mm256_mul_ps(vb, _mm256_maskload_ps(y + i, m));
        _mm256_maskstore_ps(y + i, m, _mm256_fmadd_ps(va, _mm256_maskload_ps(x + i, m), v));
    }
}
#endif
