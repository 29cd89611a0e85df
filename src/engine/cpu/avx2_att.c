/*
 * avx2_att.c - the KV cache and attention in AVX2 with FMA and F16C.
 *
 * A block of 16 keys is two vectors; scores of up to 4 query rows are kept in registers while a
 * block's K, and then its V, is read once. What a row does not see weighs exactly nothing, so
 * its bits don't depend on the rows beside it.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx2,fma,f16c")

#include "engine/cpu/avx2.h"
#include "engine/cpu/avx2_inline.h"
#include <string.h>

void avx2_kv_put(const struct kv_layer *kv, const float *k, const float *v, int slot,
                 void *dst_k, void *dst_v) {
    const __m256 top = _mm256_set1_ps(65504), bottom = _mm256_set1_ps(-65504);
    size_t D = (size_t)kv->D;
    if (!kv->f16) {
        kv_put_f32(k, v, D, slot, dst_k, dst_v);
        return;
    }
    uint16_t *to_k = dst_k, *to_v = (uint16_t *)dst_v + (size_t)slot * D;
    for (size_t d = 0; d < D; d += 8) {
        size_t n = D - d < 8 ? D - d : 8;
        uint16_t half_k[8], half_v[8];
        __m256 x = _mm256_maskload_ps(k + d, first8((int)n));
        __m256 z = _mm256_maskload_ps(v + d, first8((int)n));
        x = _mm256_max_ps(bottom, _mm256_min_ps(top, x));
        z = _mm256_max_ps(bottom, _mm256_min_ps(top, z));
        _mm_storeu_si128((__m128i *)half_k, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
        _mm_storeu_si128((__m128i *)half_v, _mm256_cvtps_ph(z, _MM_FROUND_TO_NEAREST_INT));
        memcpy(to_v + d, half_v, n * sizeof *half_v);
        for (size_t i = 0; i < n; i++)
            to_k[(d + i) * 16 + (size_t)slot] = half_k[i];
    }
}

/* Attention */

enum { ROWS = 4, VECS = 2 };

static inline __m256 load_kv(const void *base, size_t i, bool f16) {
    if (f16)
        return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)((const uint16_t *)base + i)));
    return _mm256_loadu_ps((const float *)base + i);
}

/* The first n < 8 elements, zeros behind. */
static inline __m256 load_kv_part(const void *base, size_t i, bool f16, size_t n) {
    if (!f16)
        return _mm256_maskload_ps((const float *)base + i, first8((int)n));
    uint16_t half[8] = {0};
    memcpy(half, (const uint16_t *)base + i, n * sizeof *half);
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)half));
}

/* Scores of NR rows from row on against one block of 16 keys, column j of the scratch. */
static inline __attribute__((always_inline)) void att_scores(const struct cpu_att *a,
                                                             const void *k, size_t at, int row,
                                                             const int NR, int j, float scale,
                                                             const bool f16) {
    size_t D = (size_t)a->kv->D;
    const float *q = a->q + row;
    __m256 s[ROWS][2];
#pragma GCC unroll 4
    for (int i = 0; i < NR; i++)
        s[i][0] = s[i][1] = _mm256_setzero_ps();
    for (size_t d = 0; d < D; d++) {
        __m256 k0 = load_kv(k, at + d * 16, f16), k1 = load_kv(k, at + d * 16 + 8, f16);
#pragma GCC unroll 4
        for (int i = 0; i < NR; i++) {
            __m256 x = _mm256_set1_ps(q[d * CPU_ATT_ROWS + (size_t)i]);
            s[i][0] = _mm256_fmadd_ps(k0, x, s[i][0]);
            s[i][1] = _mm256_fmadd_ps(k1, x, s[i][1]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < NR; i++) {
        float *to = a->scores + (size_t)(row + i) * CPU_ATT_CHUNK + j;
        _mm256_storeu_ps(to, _mm256_mul_ps(s[i][0], _mm256_set1_ps(scale)));
        _mm256_storeu_ps(to + 8, _mm256_mul_ps(s[i][1], _mm256_set1_ps(scale)));
    }
}

/* o[row .. row + NR - 1, d .. ] = p V over keys start .. n - 1: NV whole vectors, or the
 * first `part` of one. */
static inline __attribute__((always_inline)) void
att_values(const struct cpu_att *a, int key, int start, int n, int row, const int NR, size_t d,
           const int NV, size_t part, const bool f16, float *o) {
    const struct kv_layer *kv = a->kv;
    size_t D = (size_t)kv->D;
    const float *p = a->scores + (size_t)row * CPU_ATT_CHUNK;
    __m256 sum[ROWS][VECS];
#pragma GCC unroll 4
    for (int i = 0; i < NR; i++)
#pragma GCC unroll 2
        for (int c = 0; c < NV; c++)
            sum[i][c] = _mm256_setzero_ps();
    for (int j = start; j < n; j += 16) {
        size_t at = kv_part(kv, a->blocks[(key + j) / 16], a->head) + d;
        int slots = n - j < 16 ? n - j : 16;
        for (int s = 0; s < slots; s++, at += D) {
            __m256 v[VECS];
#pragma GCC unroll 2
            for (int c = 0; c < NV; c++)
                v[c] = part ? load_kv_part(kv->v, at, f16, part)
                            : load_kv(kv->v, at + (size_t)c * 8, f16);
#pragma GCC unroll 4
            for (int i = 0; i < NR; i++) {
                __m256 w = _mm256_set1_ps(p[i * CPU_ATT_CHUNK + j + s]);
#pragma GCC unroll 2
                for (int c = 0; c < NV; c++)
                    sum[i][c] = _mm256_fmadd_ps(v[c], w, sum[i][c]);
            }
        }
    }
    for (int i = 0; i < NR; i++)
        for (int c = 0; c < NV; c++)
            _mm256_maskstore_ps(o + (size_t)(row + i) * D + d + (size_t)c * 8,
                                first8(part ? (int)part : 8), sum[i][c]);
}

/* Keys of a chunk: a row sees from .. see - 1, its group of rows start .. end - 1, start a
 * multiple of 16. */
struct span {
    int from, see, start, end;
};

/* All bits in the lanes of keys j .. j + 7 that the row sees. */
static inline __m256 seen(struct span k, int j) {
    return _mm256_castsi256_ps(_mm256_andnot_si256(first8(k.from - j), first8(k.see - j)));
}

/* Scores of a row to exp(s - m); those of keys that it does not see become 0. */
static void att_softmax(float *s, struct span k, float *m, float *l) {
    const __m256 lowest = _mm256_set1_ps(-INFINITY);
    __m256 top = lowest, sum = _mm256_setzero_ps();
    for (int j = k.start; j < k.see; j += 8)
        top = _mm256_max_ps(top, _mm256_blendv_ps(lowest, _mm256_loadu_ps(s + j), seen(k, j)));
    *m = max8(top);
    top = _mm256_set1_ps(*m);
    for (int j = k.start; j < k.end; j += 8) {
        __m256 e = exp8(_mm256_sub_ps(_mm256_loadu_ps(s + j), top));
        e = _mm256_and_ps(e, seen(k, j));
        sum = _mm256_add_ps(sum, e);
        _mm256_storeu_ps(s + j, e);
    }
    *l = sum8(sum);
}

static inline __attribute__((always_inline)) void att_rows(const struct cpu_att *a, int row,
                                                           const int NR, int key, int n,
                                                           float *m, float *l, float *o,
                                                           const bool f16) {
    const struct kv_layer *kv = a->kv;
    size_t D = (size_t)kv->D, d = 0;
    int see = att_sees(a, row + NR - 1, key, n), start = att_skips(a, row, key) / 16 * 16;
    for (int j = start; j < see; j += 16)
        att_scores(a, kv->k, kv_part(kv, a->blocks[(key + j) / 16], a->head), row, NR, j,
                   a->op->scale, f16);
    for (int i = row; i < row + NR; i++) {
        float *s = a->scores + (size_t)i * CPU_ATT_CHUNK;
        struct span k = {att_skips(a, i, key), att_sees(a, i, key, see), start, see};
        if (a->op->cap > 0)
            avx2_cap(a->op->cap, s + start, see - start);
        if (a->op->slopes)
            cpu_att_slope(a, i, key, start, see, s);
        att_softmax(s, k, &m[i], &l[i]);
    }
    for (; d + 16 <= D; d += 16)
        att_values(a, key, start, see, row, NR, d, 2, 0, f16, o);
    for (; d + 8 <= D; d += 8)
        att_values(a, key, start, see, row, NR, d, 1, 0, f16, o);
    if (d < D)
        att_values(a, key, start, see, row, NR, d, 1, D - d, f16, o);
}

#define ATT_CASES(f16)                                                                         \
    switch (NR) {                                                                              \
    case 1:                                                                                    \
        att_rows(a, row, 1, key, n, m, l, o, f16);                                             \
        break;                                                                                 \
    case 2:                                                                                    \
        att_rows(a, row, 2, key, n, m, l, o, f16);                                             \
        break;                                                                                 \
    case 3:                                                                                    \
        att_rows(a, row, 3, key, n, m, l, o, f16);                                             \
        break;                                                                                 \
    default:                                                                                   \
        att_rows(a, row, 4, key, n, m, l, o, f16);                                             \
    }

void avx2_att_chunk(const struct cpu_att *a, int row, int end, int key, int n, float *m,
                    float *l, float *o) {
    for (; row < end; row += ROWS) {
        int NR = end - row < ROWS ? end - row : ROWS;
        if (a->kv->f16)
            ATT_CASES(true)
        else
            ATT_CASES(false)
    }
}
#endif
