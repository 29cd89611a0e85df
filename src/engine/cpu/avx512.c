/*
 * avx512.c - AVX-512 (F, BW, VL, DQ, CD) without VNNI: quantising activations, and products
 * with weights that are floats. Rows are in avx512_rows.c, attention in avx512_att.c; both
 * AVX-512 sets use all three.
 *
 * A row ends with a masked vector, so nothing beyond it is read or written.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512cd,fma,f16c")

#include "engine/cpu/avx512_inline.h"
#define DOT_VNNI 0
#define MATMUL   plain_matmul
#include "engine/cpu/avx512_int16.h"

void avx512_quantize(const float *x, size_t ldx, int n, int K, bool sums, void *row) {
    (void)ldx;
    (void)n; /* one row is a block */
    const int Kp = weight_pad_k(K);
    const struct row16 to = cpu_row16(row, Kp);
    for (int k = 0; k < Kp; k += 64) {
        __m512 v[4], top = _mm512_setzero_ps();
        for (int i = 0; i < 4; i++) {
            int left = K - k - i * 16;
            v[i] = _mm512_maskz_loadu_ps(left > 0 ? first(left) : 0, x + k + i * 16);
            top = larger(top, _mm512_abs_ps(v[i]));
        }
        float absmax = largest(top);
        __m512 inv = _mm512_set1_ps(absmax > 1e-30f ? X_STEPS / absmax : 0);
        for (int i = 0; i < 4; i++) {
            __m512i r = _mm512_cvtps_epi32(_mm512_mul_ps(v[i], inv));
            r = _mm512_shuffle_epi32(r, _MM_PERM_DBCA); /* pairs (0, 2), (1, 3) */
            _mm256_storeu_si256((__m256i *)(to.q + k + i * 16), _mm512_cvtepi32_epi16(r));
        }
        to.scale[k / 64] = absmax / X_STEPS;
    }
    if (sums)
        cpu_row16_sums(to, Kp);
}

/* F32, BF16 and F16 weights: f32 multiply-adds over k in ascending order, one accumulator for
 * each output. */

/* 16 rows of inputs k and, but for F32, k + 1. */
static inline __attribute__((always_inline)) void
float_inputs(const enum weight_type type, const void *p, __m512 *even, __m512 *odd) {
    const __m512i high = _mm512_set1_epi32((int)0xffff0000);
    const __m512i apart =
        _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1, 30, 28, 26,
                         24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    __m512i raw = _mm512_loadu_si512(p);
    if (type == WEIGHT_F16) {
        raw = _mm512_permutexvar_epi16(apart, raw);
        *even = _mm512_cvtph_ps(_mm512_castsi512_si256(raw));
        *odd = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(raw, 1));
        return;
    }
    *even = _mm512_castsi512_ps(type == WEIGHT_BF16 ? _mm512_slli_epi32(raw, 16) : raw);
    *odd = _mm512_castsi512_ps(_mm512_and_si512(raw, high));
}

static inline __attribute__((always_inline)) void
float_block(const struct cpu_input *in, const struct weight *w, int tile, int t, const int NP,
            const int NT, const enum weight_type type, float *y, size_t ldy, bool add) {
    const bool two = type != WEIGHT_F32;
    size_t part = (size_t)w->Kp * 16 * (two ? 2 : 4);
    const char *p = (const char *)w->data + (size_t)tile * part;
    const float *x = in->x + (size_t)t * in->ldx;
    __m512 sum[BLOCK][4];
#pragma GCC unroll 8
    for (int i = 0; i < NT; i++)
#pragma GCC unroll 4
        for (int j = 0; j < NP; j++)
            sum[i][j] = _mm512_setzero_ps();
    for (int k = 0; k < w->K; k += two ? 2 : 1, p += 64) {
        __m512 v[4], v2[4];
#pragma GCC unroll 4
        for (int j = 0; j < NP; j++)
            float_inputs(type, p + (size_t)j * part, &v[j], &v2[j]);
#pragma GCC unroll 8
        for (int i = 0; i < NT; i++) {
            const float *xi = x + (size_t)i * in->ldx + k;
#pragma GCC unroll 4
            for (int j = 0; j < NP; j++) {
                sum[i][j] = _mm512_fmadd_ps(v[j], _mm512_set1_ps(xi[0]), sum[i][j]);
                if (two)
                    sum[i][j] = _mm512_fmadd_ps(v2[j], _mm512_set1_ps(xi[1]), sum[i][j]);
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < NT; i++)
#pragma GCC unroll 4
        for (int j = 0; j < NP; j++)
            put_rows(y + (size_t)(t + i) * ldy + j * 16, sum[i][j], tile_rows(w, tile + j),
                     add);
}

#define FLOAT_CASE(NT)                                                                         \
    case NT:                                                                                   \
        float_block(in, w, tile, t, 2, NT, type, y, ldy, add);                                 \
        break

static inline __attribute__((always_inline)) void
float_tiles(const struct cpu_input *in, const struct weight *w, int tile, int n_tile,
            const enum weight_type type, float *y, size_t ldy, bool add) {
    for (; in->T == 1 && n_tile >= 4; n_tile -= 4, tile += 4, y += 64)
        float_block(in, w, tile, 0, 4, 1, type, y, ldy, add);
    for (; n_tile >= 2; n_tile -= 2, tile += 2, y += 32)
        for (int t = 0; t < in->T; t += BLOCK)
            switch (in->T - t) {
                FLOAT_CASE(1);
                FLOAT_CASE(2);
                FLOAT_CASE(3);
                FLOAT_CASE(4);
                FLOAT_CASE(5);
            default:
                float_block(in, w, tile, t, 2, BLOCK, type, y, ldy, add);
            }
    for (int t = 0; n_tile == 1 && t < in->T; t++)
        float_block(in, w, tile, t, 1, 1, type, y, ldy, add);
}

void avx512_matmul_float(const struct cpu_input *in, const struct weight *w, int tile,
                         int n_tile, float *y, size_t ldy, bool add) {
    if (w->type == WEIGHT_F32)
        float_tiles(in, w, tile, n_tile, WEIGHT_F32, y, ldy, add);
    else if (w->type == WEIGHT_BF16)
        float_tiles(in, w, tile, n_tile, WEIGHT_BF16, y, ldy, add);
    else
        float_tiles(in, w, tile, n_tile, WEIGHT_F16, y, ldy, add);
}

const struct cpu_kernels cpu_avx512 = {
    .name = "avx512",
    .kv = KV_F16,
    .block = 1,
    .block_bytes = cpu_row16_bytes,
    .quantize = avx512_quantize,
    .matmul = plain_matmul,
    AVX512_ROWS,
    .att_chunk = avx512_att_chunk,
};
#endif
