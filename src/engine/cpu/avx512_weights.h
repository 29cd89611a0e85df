/*
 * avx512_weights.h - weights and their scales into AVX-512 registers; included behind a target
 * pragma, with DOT_VNNI 1 where vpdpwssd may be used.
 *
 * A 64-byte vector of int16 holds 2 inputs of 16 rows. Of 4 neighbouring inputs the pairs are
 * (0, 2) and (1, 3): then a nibble or byte gets into its int16 by shifts alone. vpermw reads 5
 * index bits, so the table is in it twice and no nibble needs a mask.
 */
#ifndef LLMCHAT_ENGINE_CPU_AVX512_WEIGHTS_H
#define LLMCHAT_ENGINE_CPU_AVX512_WEIGHTS_H

#include "engine/cpu/avx512.h"
#include "engine/cpu/simd.h"
#include <immintrin.h>
#include <string.h>

struct q4_decoder {
    __m512i table; /* [32] int16: the 16 values twice */
    __m512 step;   /* of the table; 1 for I8 */
};

static inline struct q4_decoder q4_decoder(const struct weight *w) {
    int16_t words[32];
    float step = 1;
    struct q4_decoder d = {.step = _mm512_set1_ps(1)};
    if (w->type == WEIGHT_I8)
        return d;
    q4_words(w, words, &step);
    d.step = _mm512_set1_ps(step);
    memcpy(words + 16, words, 16 * sizeof *words);
    d.table = _mm512_loadu_si512(words);
    return d;
}

/* 8 inputs of 16 rows: pairs (0, 2), (1, 3), (4, 6), (5, 7). */
static inline void q4_expand(const struct q4_decoder *d, const void *p, __m512i v[4]) {
    __m512i two = _mm512_loadu_si512(p);
    v[0] = _mm512_permutexvar_epi16(two, d->table);
    v[1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(two, 8), d->table);
    v[2] = _mm512_permutexvar_epi16(_mm512_srli_epi16(two, 4), d->table);
    v[3] = _mm512_permutexvar_epi16(_mm512_srli_epi16(two, 12), d->table);
}

/* 4 inputs of 16 rows: pairs (0, 2), (1, 3). */
static inline void i8_expand(const void *p, __m512i v[2]) {
    __m512i four = _mm512_loadu_si512(p);
    v[0] = _mm512_srai_epi16(_mm512_slli_epi16(four, 8), 8);
    v[1] = _mm512_srai_epi16(four, 8);
}

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

static inline __m512i bcast2(const int16_t *q) {
    int32_t two;
    memcpy(&two, q, sizeof two);
    return _mm512_set1_epi32(two);
}

/* acc + the two products of each row. In assembler for the reason given in avx2_int16.h: GCC 12
 * copies accumulators else. */
static inline __m512i dot2(__m512i acc, __m512i w, __m512i q) {
#if DOT_VNNI
    __asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(q));
#else
    __m512i dots;
    __asm__("vpmaddwd %2, %3, %1\n\tvpaddd %1, %0, %0"
            : "+v"(acc), "=&v"(dots)
            : "v"(w), "v"(q));
#endif
    return acc;
}

static inline __m512 add_group(__m512 sum, __m512i dots, __m512 ws, float xs) {
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), _mm512_mul_ps(ws, _mm512_set1_ps(xs)),
                           sum);
}

/* The same for the minimum; sum_x: of the group's activations. */
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
