/*
 * avx512_inline.h - small vector pieces of the AVX-512 files; included behind their target
 * pragma.
 */
#ifndef LLMCHAT_ENGINE_CPU_AVX512_INLINE_H
#define LLMCHAT_ENGINE_CPU_AVX512_INLINE_H

#include "engine/cpu/simd.h"
#include <immintrin.h>
#include <string.h>

/* The first n of 16 lanes; none for n <= 0. */
static inline __mmask16 first(int n) {
    return n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
}

/* The larger ones of absolute values, where NaN is larger than all: they order as integers. */
static inline __m512 larger(__m512 a, __m512 b) {
    return _mm512_castsi512_ps(
        _mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}
static inline float largest(__m512 v) {
    int32_t bits = _mm512_reduce_max_epi32(_mm512_castps_si512(v));
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Keys of a chunk: a row sees from .. see - 1, its group of rows start .. end - 1, start a
 * multiple of 16. */
struct span {
    int from, see, start, end;
};

/* Which of the keys j .. j + 15 the row sees. */
static inline __mmask16 seen(struct span k, int j) {
    return (__mmask16)(first(k.see - j) & ~first(k.from - j));
}

/* The largest of the scores that a row sees. */
static inline float top_score(const float *s, struct span k) {
    __m512 top = _mm512_set1_ps(-INFINITY);
    for (int j = k.start; j < k.see; j += 16)
        top = _mm512_mask_max_ps(top, seen(k, j), top, _mm512_loadu_ps(s + j));
    return _mm512_reduce_max_ps(top);
}

static inline __m512 exp_ps(__m512 x) {
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(EXP_LOG2E)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EXP_LN2_HI), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EXP_LN2_LO), r);
    __m512 p = _mm512_set1_ps(EXP_C7);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C2));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1));
    return _mm512_scalef_ps(p, n);
}

#endif
