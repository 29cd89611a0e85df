/*
 * avx512_weights.h - scales of weights into AVX-512 registers, and results out of them;
 * included behind a target pragma.
 */
#ifndef LLMCHAT_ENGINE_CPU_AVX512_WEIGHTS_H
#define LLMCHAT_ENGINE_CPU_AVX512_WEIGHTS_H

#include "engine/cpu/avx512.h"
#include "engine/cpu/simd.h"
#include <immintrin.h>
#include <string.h>

/* 16 scales from codes. The map of code a is in the tables at lzcnt(a) & 15: 15 .. 9 for i =
 * 0 .. 6, 8 for a = 128, 0 for a = 0. */
static inline __m512 q4_scales(const uint8_t *code, __m512 absmax2, __m512 offset) {
    static const float slopes[8] = {MAP_SLOPES}, bases[8] = {MAP_BASES};
#define TABLE(t)                                                                               \
    _mm512_set_ps(t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], 0, 0, 0, 0, 0, 0, 0, 0)
    const __m512 slope = TABLE(slopes), base = TABLE(bases);
#undef TABLE
    __m512i c = _mm512_sub_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)code)),
                                 _mm512_set1_epi32(127));
    __m512i a = _mm512_abs_epi32(c), i = _mm512_lzcnt_epi32(a);
    __m512 v = _mm512_fmadd_ps(_mm512_permutexvar_ps(i, slope), _mm512_cvtepi32_ps(a),
                               _mm512_permutexvar_ps(i, base));
    __m512i sign = _mm512_and_si512(c, _mm512_set1_epi32(INT32_MIN));
    v = _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(v), sign));
    return _mm512_fmadd_ps(v, absmax2, offset);
}

/* q4_absmax2() in vectors: the running indices of 16 rows at g ascend, and few blocks of scales
 * hold them. */
static inline __m512 q4_absmax2_rows(const struct weight *w, int tile, int g, int *end) {
    const __m512i row = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const size_t G = (size_t)w->Kp / WEIGHT_GROUP, last = (size_t)w->N * G - 1;
    const size_t from = (size_t)tile * 16 * G + (size_t)g, to = from + 15 * G;
    const size_t base = from / WEIGHT_SCALE_BLOCK; /* first block */
    size_t n = (to < last ? to : last) / WEIGHT_SCALE_BLOCK - base;
    __m512i at = _mm512_mullo_epi32(row, _mm512_set1_epi32((int)G));
    at = _mm512_add_epi32(at, _mm512_set1_epi32((int)(from % WEIGHT_SCALE_BLOCK)));
    __m512i block = _mm512_srli_epi32(at, 8), in = _mm512_and_epi32(at, _mm512_set1_epi32(255));
    __m512 a2 = _mm512_set1_ps(w->absmax2[base]);
    for (size_t b = 1; b <= n; b++)
        a2 = _mm512_mask_mov_ps(a2, _mm512_cmpge_epi32_mask(block, _mm512_set1_epi32((int)b)),
                                _mm512_set1_ps(w->absmax2[base + b]));
    int next = g + WEIGHT_SCALE_BLOCK - _mm512_reduce_max_epi32(in);
    *end = next < (int)G ? next : (int)G;
    return a2;
}
_Static_assert(WEIGHT_SCALE_BLOCK == 256, "the vectors above know it");

/* sum + what a minimum adds; sum_x: of the group's activations. */
static inline __m512 add_min(__m512 sum, __m512 min, float sum_x) {
    return _mm512_fmadd_ps(min, _mm512_set1_ps(sum_x), sum);
}

static inline void put_rows(float *y, __m512 v, __mmask16 rows, bool add) {
    if (add)
        v = _mm512_add_ps(_mm512_maskz_loadu_ps(rows, y), v);
    _mm512_mask_storeu_ps(y, rows, v);
}

static __mmask16 tile_rows(const struct weight *w, int tile) {
    int n = w->N - tile * 16;
    return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1);
}

#endif
