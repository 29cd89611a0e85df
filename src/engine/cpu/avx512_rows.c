/*
 * avx512_rows.c - rows in AVX-512: norms, RoPE, activations, sums.
 *
 * A row ends with a masked vector, so nothing beyond it is read or written. Reductions of a row
 * keep one vector of sums and add its lanes at the end.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512cd,fma,f16c")

#include "engine/cpu/avx512.h"
#include "engine/cpu/avx512_inline.h"

#define VF       __m512
#define V_SET(f) _mm512_set1_ps(f)
#define V_EXP(x) exp_ps(x)
#include "engine/cpu/vec_math.h"

void avx512_norm(enum norm_kind kind, const float *x, const float *g, const float *b, float eps,
                 int K, float *y) {
    __m512 sum = _mm512_setzero_ps(), mean = sum;
    if (kind == NORM_LAYER) {
        for (int k = 0; k < K; k += 16)
            mean = _mm512_add_ps(mean, _mm512_maskz_loadu_ps(first(K - k), x + k));
        mean = _mm512_set1_ps(_mm512_reduce_add_ps(mean) / (float)K);
    }
    for (int k = 0; k < K; k += 16) {
        __mmask16 m = first(K - k);
        __m512 v = _mm512_maskz_sub_ps(m, _mm512_maskz_loadu_ps(m, x + k), mean);
        sum = _mm512_fmadd_ps(v, v, sum);
    }
    __m512 scale = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(sum) / (float)K + eps));
    for (int k = 0; k < K; k += 16) {
        __mmask16 m = first(K - k);
        __m512 v = _mm512_sub_ps(_mm512_maskz_loadu_ps(m, x + k), mean);
        v = _mm512_mul_ps(_mm512_mul_ps(v, scale), _mm512_maskz_loadu_ps(m, g + k));
        if (b)
            v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(m, b + k));
        _mm512_mask_storeu_ps(y + k, m, v);
    }
}

void avx512_rope(float *x, const float *c, const float *s, int n) {
    for (int i = 0; i < n; i += 16) {
        __mmask16 m = first(n - i);
        __m512 v = _mm512_maskz_loadu_ps(m, x + i), swapped = _mm512_permute_ps(v, 0xb1);
        __m512 r = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, c + i));
        r = _mm512_fmadd_ps(swapped, _mm512_maskz_loadu_ps(m, s + i), r);
        _mm512_mask_storeu_ps(x + i, m, r);
    }
}

static inline __attribute__((always_inline)) void
act_loop(const enum act_kind kind, const float *g, const float *u, int n, float *y) {
    for (int i = 0; i < n; i += 16) {
        __mmask16 m = first(n - i);
        __m512 v = v_act(kind, _mm512_maskz_loadu_ps(m, g + i));
        if (u)
            v = _mm512_mul_ps(v, v_up(kind, _mm512_maskz_loadu_ps(m, u + i)));
        _mm512_mask_storeu_ps(y + i, m, v);
    }
}

void avx512_act(enum act_kind kind, const float *g, const float *u, int n, float *y) {
    if (kind == ACT_SILU) /* a loop of its own for the most usual */
        act_loop(ACT_SILU, g, u, n, y);
    else
        act_loop(kind, g, u, n, y);
}

void avx512_cap(float cap, float *x, int n) {
    const __m512 top = _mm512_set1_ps(cap);
    for (int i = 0; i < n; i += 16) {
        __mmask16 m = first(n - i);
        __m512 v = v_tanh(_mm512_div_ps(_mm512_maskz_loadu_ps(m, x + i), top));
        _mm512_mask_storeu_ps(x + i, m, _mm512_mul_ps(v, top));
    }
}

void avx512_axpby(float a, const float *x, float b, int n, float *y) {
    const __m512 va = _mm512_set1_ps(a), vb = _mm512_set1_ps(b);
    for (int i = 0; i < n; i += 16) {
        __mmask16 m = first(n - i);
        __m512 v = _mm512_mul_ps(vb, _mm512_maskz_loadu_ps(m, y + i));
        _mm512_mask_storeu_ps(y + i, m,
                              _mm512_fmadd_ps(va, _mm512_maskz_loadu_ps(m, x + i), v));
    }
}
#endif
