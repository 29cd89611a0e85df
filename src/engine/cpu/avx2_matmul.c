/*
 * avx2_matmul.c - products with weights, AVX2: F32, BF16 and F16 here, Q4 and I8 in
 * avx2_int16.h.
 *
 * The floats are f32 multiply-adds over k in ascending order, one accumulator for each
 * output: 6 tokens x 16 rows, 8 loads for 12 multiply-adds. Bound by reading weights for a few
 * tokens, by the multiply-adds for many.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx2,fma,f16c")

#include "engine/cpu/avx2.h"
#define DOT_VNNI 0
#define MATMUL   avx2_matmul
#include "engine/cpu/avx2_int16.h"

/* Rows of half h of a tile that exist. */
static inline int half_rows(const struct weight *w, int tile, int h) {
    return w->N - tile * 16 - h * 8;
}

/* Where the f32 of an input are: whole, or a half of 32 bits. */
enum part { F32, BF16_LOW, BF16_HIGH, F16_LOW, F16_HIGH };

/* 8 rows of one input as f32. */
static inline __attribute__((always_inline)) __m256 float_rows(const char *p,
                                                               const enum part part) {
    const __m256i apart = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
    __m256i raw = _mm256_loadu_si256((const __m256i *)p);
    if (part == BF16_LOW)
        raw = _mm256_slli_epi32(raw, 16);
    if (part == BF16_HIGH)
        raw = _mm256_and_si256(raw, _mm256_set1_epi32((int)0xffff0000));
    if (part == F16_LOW || part == F16_HIGH) {
        raw = _mm256_shuffle_epi8(raw, apart);
        raw = _mm256_permute4x64_epi64(raw, part == F16_LOW ? 0x08 : 0x0d);
        return _mm256_cvtph_ps(_mm256_castsi256_si128(raw));
    }
    return _mm256_castsi256_ps(raw);
}

/* sum[i][j] += one input of 8 rows x that input of token i, for 2 NP times 8 rows. */
static inline __attribute__((always_inline)) void
float_input(const char *p, size_t next, const enum part part, const float *x, size_t ldx,
            const int NP, const int NT, __m256 sum[BLOCK][4]) {
    __m256 v[4];
#pragma GCC unroll 4
    for (int j = 0; j < 2 * NP; j++)
        v[j] = float_rows(p + (size_t)(j / 2) * next + (size_t)(j % 2) * 32, part);
#pragma GCC unroll 8
    for (int i = 0; i < NT; i++) {
        __m256 xi = _mm256_set1_ps(x[(size_t)i * ldx]);
#pragma GCC unroll 4
        for (int j = 0; j < 2 * NP; j++)
            sum[i][j] = _mm256_fmadd_ps(v[j], xi, sum[i][j]);
    }
}

/* NP tiles times NT tokens from t on. */
static inline __attribute__((always_inline)) void
float_block(const struct cpu_input *in, const struct weight *w, int tile, int t, const int NP,
            const int NT, const enum weight_type type, float *y, size_t ldy, bool add) {
    const bool two = type != WEIGHT_F32;
    const enum part even = type == WEIGHT_F32 ? F32 : type == WEIGHT_BF16 ? BF16_LOW : F16_LOW;
    size_t next = (size_t)w->Kp * 16 * (two ? 2 : 4);
    const char *p = (const char *)w->data + (size_t)tile * next;
    const float *x = in->x + (size_t)t * in->ldx;
    __m256 sum[BLOCK][4];
#pragma GCC unroll 8
    for (int i = 0; i < NT; i++)
#pragma GCC unroll 4
        for (int j = 0; j < 2 * NP; j++)
            sum[i][j] = _mm256_setzero_ps();
    for (int k = 0; k < w->K; k += two ? 2 : 1, p += 64) {
        float_input(p, next, even, x + k, in->ldx, NP, NT, sum);
        if (two)
            float_input(p, next, even + 1, x + k + 1, in->ldx, NP, NT, sum);
    }
#pragma GCC unroll 8
    for (int i = 0; i < NT; i++)
#pragma GCC unroll 4
        for (int j = 0; j < 2 * NP; j++)
            put_rows(y + (size_t)(t + i) * ldy + j * 8, sum[i][j],
                     half_rows(w, tile + j / 2, j % 2), add);
}

#define FLOAT_CASE(NT)                                                                         \
    case NT:                                                                                   \
        float_block(in, w, tile, t, 1, NT, type, y, ldy, add);                                 \
        break

static inline __attribute__((always_inline)) void
float_tiles(const struct cpu_input *in, const struct weight *w, int tile, int n_tile,
            const enum weight_type type, float *y, size_t ldy, bool add) {
    for (; in->T == 1 && n_tile >= 2; n_tile -= 2, tile += 2, y += 32)
        float_block(in, w, tile, 0, 2, 1, type, y, ldy, add);
    for (; n_tile > 0; n_tile--, tile++, y += 16)
        for (int t = 0; t < in->T; t += BLOCK)
            switch (in->T - t) {
                FLOAT_CASE(1);
                FLOAT_CASE(2);
                FLOAT_CASE(3);
                FLOAT_CASE(4);
                FLOAT_CASE(5);
            default:
                float_block(in, w, tile, t, 1, BLOCK, type, y, ldy, add);
            }
}

void avx2_matmul_float(const struct cpu_input *in, const struct weight *w, int tile, int n_tile,
                       float *y, size_t ldy, bool add) {
    if (w->type == WEIGHT_F32)
        float_tiles(in, w, tile, n_tile, WEIGHT_F32, y, ldy, add);
    else if (w->type == WEIGHT_BF16)
        float_tiles(in, w, tile, n_tile, WEIGHT_BF16, y, ldy, add);
    else
        float_tiles(in, w, tile, n_tile, WEIGHT_F16, y, ldy, add);
}
#endif
