/*
 * avx2_matmul.c - products with weights, AVX2: F32 and BF16 here, Q4 and I8 in avx2_int16.h.
 *
 * F32 and BF16 are f32 multiply-adds over k in ascending order, one accumulator for each
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
enum part { F32, BF16_LOW, BF16_HIGH };

/* sum[i][j] += one input of 8 rows x that input of token i, for 2 NP times 8 rows. */
static inline __attribute__((always_inline)) void
float_input(const char *p, size_t next, const enum part part, const float *x, size_t ldx,
            const int NP, const int NT, __m256 sum[BLOCK][4]) {
    __m256 v[4];
#pragma GCC unroll 4
    for (int j = 0; j < 2 * NP; j++) {
        const char *at = p + (size_t)(j / 2) * next + (size_t)(j % 2) * 32;
        __m256i raw = _mm256_loadu_si256((const __m256i *)at);
        if (part == BF16_LOW)
            raw = _mm256_slli_epi32(raw, 16);
        if (part == BF16_HIGH)
            raw = _mm256_and_si256(raw, _mm256_set1_epi32((int)0xffff0000));
        v[j] = _mm256_castsi256_ps(raw);
    }
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
            const int NT, const bool bf16, float *y, size_t ldy, bool add) {
    size_t next = (size_t)w->Kp * 16 * (bf16 ? 2 : 4);
    const char *p = (const char *)w->data + (size_t)tile * next;
    const float *x = in->x + (size_t)t * in->ldx;
    __m256 sum[BLOCK][4];
#pragma GCC unroll 8
    for (int i = 0; i < NT; i++)
#pragma GCC unroll 4
        for (int j = 0; j < 2 * NP; j++)
            sum[i][j] = _mm256_setzero_ps();
    for (int k = 0; k < w->K; k += bf16 ? 2 : 1, p += 64) {
        float_input(p, next, bf16 ? BF16_LOW : F32, x + k, in->ldx, NP, NT, sum);
        if (bf16)
            float_input(p, next, BF16_HIGH, x + k + 1, in->ldx, NP, NT, sum);
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
        float_block(in, w, tile, t, 1, NT, bf16, y, ldy, add);                                 \
        break

static inline __attribute__((always_inline)) void float_tiles(const struct cpu_input *in,
                                                              const struct weight *w, int tile,
                                                              int n_tile, const bool bf16,
                                                              float *y, size_t ldy, bool add) {
    for (; in->T == 1 && n_tile >= 2; n_tile -= 2, tile += 2, y += 32)
        float_block(in, w, tile, 0, 2, 1, bf16, y, ldy, add);
    for (; n_tile > 0; n_tile--, tile++, y += 16)
        for (int t = 0; t < in->T; t += BLOCK)
            switch (in->T - t) {
                FLOAT_CASE(1);
                FLOAT_CASE(2);
                FLOAT_CASE(3);
                FLOAT_CASE(4);
                FLOAT_CASE(5);
            default:
                float_block(in, w, tile, t, 1, BLOCK, bf16, y, ldy, add);
            }
}

void avx2_matmul_float(const struct cpu_input *in, const struct weight *w, int tile, int n_tile,
                       float *y, size_t ldy, bool add) {
    if (w->type == WEIGHT_F32)
        float_tiles(in, w, tile, n_tile, false, y, ldy, add);
    else
        float_tiles(in, w, tile, n_tile, true, y, ldy, add);
}
#endif
