/*
 * avx512_att.c - the KV cache and attention in AVX-512.
 *
 * 16 keys of a block are one vector: scores need no horizontal sums. Up to 8 query rows are
 * kept in registers while a block's K, and then its V, is read once. What a row does not see
 * weighs exactly nothing, so its bits don't depend on the rows beside it. The type of the cache
 * is a constant in all loops. The scales of int8 are not in the inner ones: those of K multiply
 * 16 finished scores, those of V what a row weighs 16 values with.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512cd,fma,f16c")

#include "engine/cpu/avx2.h"
#include "engine/cpu/avx512.h"
#include "engine/cpu/avx512_inline.h"

/* As bf16_from_f32(). */
static inline __m256i bf16_of(__m512 x) {
    __m512i bits = _mm512_castps_si512(x), high = _mm512_srli_epi32(bits, 16);
    __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    __m512i near = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    near =
        _mm512_mask_or_epi32(_mm512_srli_epi32(near, 16), nan, high, _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(near);
}

static inline __m256i f16_of(__m512 x) {
    const __m512 top = _mm512_set1_ps(65504), bottom = _mm512_set1_ps(-65504);
    return _mm512_cvtps_ph(_mm512_max_ps(bottom, _mm512_min_ps(top, x)),
                           _MM_FROUND_TO_NEAREST_INT);
}

/* x [D] to bytes to[0], to[step], …; returns their scale. */
static float put_i8(const float *x, size_t D, int8_t *to, size_t step) {
    const __m512i no_sign = _mm512_set1_epi32(0x7fffffff);
    __m512i most = _mm512_setzero_si512();
    float inv;
    for (size_t d = 0; d < D; d += 16) {
        __m512 y = _mm512_maskz_loadu_ps(first((int)(D - d)), x + d);
        most = _mm512_max_epi32(most, _mm512_and_si512(_mm512_castps_si512(y), no_sign));
    }
    float scale = kv_i8_scale((uint32_t)_mm512_reduce_max_epi32(most), &inv);
    __mmask16 some = inv > 0 ? 0xffff : 0;
    for (size_t d = 0; d < D; d += 16) {
        int8_t q[16];
        __m512 y = _mm512_maskz_loadu_ps(some & first((int)(D - d)), x + d);
        y = _mm512_mul_ps(y, _mm512_set1_ps(inv));
        _mm_storeu_si128((__m128i *)q, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(y)));
        for (size_t i = 0; i < 16 && d + i < D; i++)
            to[(d + i) * step] = q[i];
    }
    return scale;
}

static void put_f16(const float *k, const float *v, size_t D, size_t slot, uint16_t *to_k,
                    uint16_t *to_v) {
    for (size_t d = 0; d < D; d += 16) {
        __mmask16 m = first((int)(D - d));
        uint16_t half[16];
        _mm256_storeu_si256((__m256i *)half, f16_of(_mm512_maskz_loadu_ps(m, k + d)));
        for (size_t i = 0; i < 16 && d + i < D; i++)
            to_k[(d + i) * 16 + slot] = half[i];
        _mm256_mask_storeu_epi16(to_v + slot * D + d, m,
                                 f16_of(_mm512_maskz_loadu_ps(m, v + d)));
    }
}

/* Both numbers of a pair of K are of one token; of V one is. */
static void put_bf16(const float *k, const float *v, size_t D, size_t slot, uint16_t *to_k,
                     uint16_t *to_v) {
    const __mmask32 own = slot % 2 ? 0xaaaaaaaa : 0x55555555;
    to_k += slot * 2;
    to_v += slot / 2 * 2 * D;
    for (size_t d = 0; d < D; d += 16) {
        __mmask16 m = first((int)(D - d));
        uint32_t pairs[8];
        _mm256_storeu_si256((__m256i *)pairs, bf16_of(_mm512_maskz_loadu_ps(m, k + d)));
        for (size_t i = 0; i < 8 && d + 2 * i < D; i++)
            memcpy(to_k + (d / 2 + i) * 32, &pairs[i], 4);
        __m512i one = _mm512_cvtepu16_epi32(bf16_of(_mm512_maskz_loadu_ps(m, v + d)));
        one = _mm512_or_si512(one, _mm512_slli_epi32(one, 16));
        __mmask32 some = D - d < 16 ? (1u << 2 * (D - d)) - 1 : 0xffffffff;
        _mm512_mask_storeu_epi16(to_v + d * 2, own & some, one);
    }
}

void avx512_kv_put(const struct kv_layer *kv, const float *k, const float *v, int slot,
                   void *dst_k, void *dst_v) {
    size_t D = (size_t)kv->D;
    if (kv->type == KV_F32) {
        kv_put_f32(k, v, D, slot, dst_k, dst_v);
        return;
    }
    if (kv->type == KV_I8) {
        kv_scales(kv, dst_k, 0)[slot] = put_i8(k, D, (int8_t *)dst_k + slot, 16);
        kv_scales(kv, dst_v, 0)[slot] = put_i8(v, D, (int8_t *)dst_v + (size_t)slot * D, 1);
        return;
    }
    if (kv->type == KV_FP8)
        avx2_kv_put(kv, k, v, slot, dst_k, dst_v);
    else if (kv->type == KV_F16)
        put_f16(k, v, D, (size_t)slot, dst_k, dst_v);
    else
        put_bf16(k, v, D, (size_t)slot, dst_k, dst_v);
}

/* Attention */

enum {
    ROWS = 8,
    FEW_ROWS = 4, /* so few get two blocks of keys, or four vectors of values, at once */
    VECS = 4,
};

/* 16 numbers of fp8 over kv_unit(), as in avx2_att.c. */
static inline __m512 fp8_part(__m128i codes) {
    __m256i x = _mm256_slli_epi16(_mm256_cvtepi8_epi16(codes), 7);
    x = _mm256_and_si256(x, _mm256_set1_epi16((short)0xbf80));
    __m256i nan = _mm256_and_si256(_mm256_add_epi16(x, _mm256_set1_epi16(0x80)),
                                   _mm256_set1_epi16(0x4000));
    return _mm512_cvtph_ps(_mm256_or_si256(x, nan));
}

static inline __attribute__((always_inline)) __m512
load_kv(const void *base, size_t i, const enum kv_type type, __mmask16 m) {
    const void *at = (const char *)base + i * kv_elem_bytes(type);
    switch (type) {
    case KV_F16:
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, at));
    case KV_I8:
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(m, at)));
    case KV_FP8:
        return fp8_part(_mm_maskz_loadu_epi8(m, at));
    default:
        return _mm512_maskz_loadu_ps(m, at);
    }
}

/* The first, or the second, of 16 pairs of bf16. */
static inline __m512 half_of(__m512i pairs, bool second) {
    return _mm512_castsi512_ps(second ? _mm512_and_si512(pairs, _mm512_set1_epi32(-65536))
                                      : _mm512_slli_epi32(pairs, 16));
}

/* Number d of 16 keys, of the head's part that begins at `at`. */
static inline __attribute__((always_inline)) __m512 load_k(const void *base, size_t at,
                                                           size_t d, const enum kv_type type) {
    if (type == KV_BF16)
        return half_of(_mm512_loadu_si512((const uint16_t *)base + at + d / 2 * 32), d % 2);
    return load_kv(base, at + d * 16, type, 0xffff);
}

/* Numbers d .. d + 15 of the value in a slot. */
static inline __attribute__((always_inline)) __m512 load_v(const void *base, size_t at,
                                                           size_t D, size_t d, size_t slot,
                                                           const enum kv_type type,
                                                           __mmask16 m) {
    const uint16_t *pairs = (const uint16_t *)base + at + slot / 2 * 2 * D + d * 2;
    if (type == KV_BF16)
        return half_of(_mm512_maskz_loadu_epi32(m, pairs), slot % 2);
    return load_kv(base, at + slot * D + d, type, m);
}

/* Element i on, into the cache. Without always_inline gcc 12 finds that the function does
 * nothing, and removes its calls. */
static inline __attribute__((always_inline)) void fetch_kv(const void *base, size_t i,
                                                           const enum kv_type type) {
    _mm_prefetch((const char *)base + i * kv_elem_bytes(type), _MM_HINT_T1);
}

/* Scores of NR rows from row on against NB blocks of 16 keys at at[], columns from j on; their
 * values are asked for on the way. */
static inline __attribute__((always_inline)) void
att_scores(const struct cpu_att *a, const size_t at[2], int row, const int NR, const int NB,
           int j, float scale, const enum kv_type type) {
    size_t D = (size_t)a->kv->D;
    const float *q = a->q + row;
    __m512 s[ROWS][2];
#pragma GCC unroll 8
    for (int i = 0; i < NR; i++)
        s[i][0] = s[i][1] = _mm512_setzero_ps();
    for (size_t d = 0; d < D; d++) {
        __m512 keys[2];
#pragma GCC unroll 2
        for (int b = 0; b < NB; b++) {
            keys[b] = load_k(a->kv->k, at[b], d, type);
            if (NR <= FEW_ROWS)
                fetch_kv(a->kv->v, at[b] + d * 16, type);
        }
#pragma GCC unroll 8
        for (int i = 0; i < NR; i++) {
            __m512 x = _mm512_set1_ps(q[d * CPU_ATT_ROWS + (size_t)i]);
#pragma GCC unroll 2
            for (int b = 0; b < NB; b++)
                s[i][b] = _mm512_fmadd_ps(keys[b], x, s[i][b]);
        }
    }
#pragma GCC unroll 2
    for (int b = 0; type == KV_I8 && b < NB; b++) {
        __m512 scales = _mm512_loadu_ps(kv_scales(a->kv, a->kv->k, at[b]));
#pragma GCC unroll 8
        for (int i = 0; i < NR; i++)
            s[i][b] = _mm512_mul_ps(s[i][b], scales);
    }
#pragma GCC unroll 8
    for (int i = 0; i < NR; i++)
#pragma GCC unroll 2
        for (int b = 0; b < NB; b++)
            _mm512_storeu_ps(a->scores + (size_t)(row + i) * CPU_ATT_CHUNK + j + b * 16,
                             _mm512_mul_ps(s[i][b], _mm512_set1_ps(scale)));
}

/* o[row .. row + NR - 1, d .. d + 16 NV - 1] = p V over keys start .. n - 1. m: lanes of the
 * last vector. */
static inline __attribute__((always_inline)) void
att_values(const struct cpu_att *a, int key, int start, int n, int row, const int NR, size_t d,
           const int NV, __mmask16 m, const enum kv_type type, float *o) {
    const struct kv_layer *kv = a->kv;
    size_t D = (size_t)kv->D;
    const float *p = a->scores + (size_t)row * CPU_ATT_CHUNK;
    __m512 sum[ROWS][VECS];
#pragma GCC unroll 8
    for (int i = 0; i < NR; i++)
#pragma GCC unroll 4
        for (int c = 0; c < NV; c++)
            sum[i][c] = _mm512_setzero_ps();
    for (int j = start; j < n; j += 16) {
        size_t at = kv_part(kv, type, a->blocks[(key + j) / 16], a->head);
        size_t next = kv_part_next(a, type, j, at);
        int slots = n - j < 16 ? n - j : 16;
        for (int s = 0; s < slots; s++) {
            __m512 v[VECS];
#pragma GCC unroll 4
            for (int c = 0; c < NV; c++) {
                size_t column = d + (size_t)c * 16, slot = (size_t)s;
                v[c] = load_v(kv->v, at, D, column, slot, type, c == NV - 1 ? m : 0xffff);
                if (NR <= FEW_ROWS)
                    fetch_kv(kv->k, next + slot * D + column, type);
            }
#pragma GCC unroll 8
            for (int i = 0; i < NR; i++) {
                __m512 w = _mm512_set1_ps(p[i * CPU_ATT_CHUNK + j + s]);
#pragma GCC unroll 4
                for (int c = 0; c < NV; c++)
                    sum[i][c] = _mm512_fmadd_ps(v[c], w, sum[i][c]);
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < NR; i++)
#pragma GCC unroll 4
        for (int c = 0; c < NV; c++)
            _mm512_mask_storeu_ps(o + (size_t)(row + i) * D + d + (size_t)c * 16,
                                  c == NV - 1 ? m : 0xffff,
                                  _mm512_mul_ps(sum[i][c], _mm512_set1_ps(kv_unit(type))));
}

/* Scores of a row to exp(s - m); those of keys that it does not see become 0. */
static void att_softmax(float *s, struct span k, float *m, float *l) {
    __m512 sum = _mm512_setzero_ps();
    *m = top_score(s, k);
    for (int j = k.start; j < k.end; j += 16) {
        __m512 e = exp_ps(_mm512_sub_ps(_mm512_loadu_ps(s + j), _mm512_set1_ps(*m)));
        e = _mm512_maskz_mov_ps(seen(k, j), e);
        sum = _mm512_add_ps(sum, e);
        _mm512_storeu_ps(s + j, e);
    }
    *l = _mm512_reduce_add_ps(sum);
}

/* What a row weighs values with, times the scales of int8 values. Of those that it does not see
 * 0 stays whatever their scales are. */
static void att_scale_values(const struct cpu_att *a, int key, struct span k, float *s) {
    for (int j = k.start; j < k.see; j += 16) {
        size_t at = kv_part(a->kv, KV_I8, a->blocks[(key + j) / 16], a->head);
        __m512 p = _mm512_loadu_ps(s + j),
               scales = _mm512_loadu_ps(kv_scales(a->kv, a->kv->v, at));
        _mm512_storeu_ps(s + j, _mm512_maskz_mul_ps(seen(k, j), p, scales));
    }
}

static inline __attribute__((always_inline)) void att_rows(const struct cpu_att *a, int row,
                                                           const int NR, int key, int n,
                                                           float *m, float *l, float *o,
                                                           const enum kv_type type) {
    const struct kv_layer *kv = a->kv;
    size_t D = (size_t)kv->D;
    int see = att_sees(a, row + NR - 1, key, n), start = att_skips(a, row, key) / 16 * 16;
    for (int j = start; j < see;) {
        const int NB = NR <= FEW_ROWS && j + 16 < see ? 2 : 1;
        size_t at[2];
        for (int b = 0; b < NB; b++)
            at[b] = kv_part(kv, type, a->blocks[(key + j) / 16 + b], a->head);
        if (NB == 2)
            att_scores(a, at, row, NR, 2, j, a->op->scale * kv_unit(type), type);
        else
            att_scores(a, at, row, NR, 1, j, a->op->scale * kv_unit(type), type);
        j += NB * 16;
    }
    for (int i = row; i < row + NR; i++) {
        float *s = a->scores + (size_t)i * CPU_ATT_CHUNK;
        struct span k = {att_skips(a, i, key), att_sees(a, i, key, see), start, see};
        if (a->op->cap > 0)
            avx512_cap(a->op->cap, s + start, see - start);
        if (a->op->slopes)
            cpu_att_slope(a, i, key, start, see, s);
        att_softmax(s, k, &m[i], &l[i]);
        if (type == KV_I8)
            att_scale_values(a, key, k, s);
    }
    size_t d = 0;
    for (; NR <= FEW_ROWS && d + 64 <= D; d += 64)
        att_values(a, key, start, see, row, NR, d, 4, 0xffff, type, o);
    for (; d + 32 <= D; d += 32)
        att_values(a, key, start, see, row, NR, d, 2, 0xffff, type, o);
    for (; d < D; d += 16)
        att_values(a, key, start, see, row, NR, d, 1, first((int)(D - d)), type, o);
}

#define ATT_CASES(type)                                                                        \
    switch (NR) {                                                                              \
    case 1:                                                                                    \
        att_rows(a, row, 1, key, n, m, l, o, type);                                            \
        break;                                                                                 \
    case 2:                                                                                    \
        att_rows(a, row, 2, key, n, m, l, o, type);                                            \
        break;                                                                                 \
    case 3:                                                                                    \
        att_rows(a, row, 3, key, n, m, l, o, type);                                            \
        break;                                                                                 \
    case 4:                                                                                    \
        att_rows(a, row, 4, key, n, m, l, o, type);                                            \
        break;                                                                                 \
    case 5:                                                                                    \
        att_rows(a, row, 5, key, n, m, l, o, type);                                            \
        break;                                                                                 \
    case 6:                                                                                    \
        att_rows(a, row, 6, key, n, m, l, o, type);                                            \
        break;                                                                                 \
    case 7:                                                                                    \
        att_rows(a, row, 7, key, n, m, l, o, type);                                            \
        break;                                                                                 \
    default:                                                                                   \
        att_rows(a, row, 8, key, n, m, l, o, type);                                            \
    }

void avx512_att_chunk(const struct cpu_att *a, int row, int end, int key, int n, float *m,
                      float *l, float *o) {
    for (; row < end; row += ROWS) {
        int NR = end - row < ROWS ? end - row : ROWS;
        switch (a->kv->type) {
        case KV_F16:
            ATT_CASES(KV_F16)
            break;
        case KV_BF16:
            ATT_CASES(KV_BF16)
            break;
        case KV_I8:
            ATT_CASES(KV_I8)
            break;
        case KV_FP8:
            ATT_CASES(KV_FP8)
            break;
        default:
            ATT_CASES(KV_F32)
        }
    }
}
#endif
