/*
 * avx2_att.c - the KV cache and attention in AVX2 with FMA and F16C.
 *
 * A block of 16 keys is two vectors; scores of up to 4 query rows are kept in registers while a
 * block's K, and then its V, is read once. What a row does not see weighs exactly nothing, so
 * its bits don't depend on the rows beside it. The type of the cache is a constant in all
 * loops. The scales of int8 are not in the inner ones: those of K multiply 16 finished scores,
 * those of V what a row weighs 16 values with.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx2,fma,f16c")

#include "engine/cpu/avx2.h"
#include "engine/cpu/avx2_inline.h"
#include <string.h>

/* As bf16_from_f32(). */
static inline __m128i bf16_of(__m256 x) {
    __m256i bits = _mm256_castps_si256(x), high = _mm256_srli_epi32(bits, 16);
    __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    __m256i near = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    near = _mm256_blendv_epi8(_mm256_srli_epi32(near, 16),
                              _mm256_or_si256(high, _mm256_set1_epi32(0x40)), nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(near), _mm256_extracti128_si256(near, 1));
}

static inline __m128i f16_of(__m256 x) {
    const __m256 top = _mm256_set1_ps(65504), bottom = _mm256_set1_ps(-65504);
    return _mm256_cvtps_ph(_mm256_max_ps(bottom, _mm256_min_ps(top, x)),
                           _MM_FROUND_TO_NEAREST_INT);
}

/* x [D] to bytes to[0], to[step], …; returns their scale. */
static float put_i8(const float *x, size_t D, int8_t *to, size_t step) {
    const __m256i no_sign = _mm256_set1_epi32(0x7fffffff);
    __m256i most = _mm256_setzero_si256();
    int32_t top[8];
    float inv;
    for (size_t d = 0; d < D; d += 8) {
        __m256 y = _mm256_maskload_ps(x + d, first8(D - d < 8 ? (int)(D - d) : 8));
        most = _mm256_max_epi32(most, _mm256_and_si256(_mm256_castps_si256(y), no_sign));
    }
    _mm256_storeu_si256((__m256i *)top, most);
    for (int i = 1; i < 8; i++)
        top[0] = top[i] > top[0] ? top[i] : top[0];
    float scale = kv_i8_scale((uint32_t)top[0], &inv);
    for (size_t d = 0; d < D; d += 8) {
        size_t n = D - d < 8 ? D - d : 8;
        int32_t q[8];
        __m256 y = _mm256_maskload_ps(x + d, first8((int)n));
        y = _mm256_mul_ps(y, _mm256_set1_ps(inv));
        _mm256_storeu_si256((__m256i *)q, _mm256_cvtps_epi32(y));
        for (size_t i = 0; i < n; i++)
            to[(d + i) * step] = (int8_t)(inv > 0 ? q[i] : 0);
    }
    return scale;
}

/* As fp8_from_f32(), in the lower half. */
static inline __m128i fp8_of(__m256 x) {
    const __m256 no_sign = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    const __m256 step = _mm256_set1_ps(0x1p14f); /* the ulp of its sums is 2^-9 */
    __m256 a = _mm256_min_ps(_mm256_set1_ps(448), _mm256_and_ps(x, no_sign)); /* or NaN */
    __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    __m256 tiny = _mm256_cmp_ps(a, _mm256_set1_ps(0x1p-6f), _CMP_LT_OQ);
    __m256i bits = _mm256_castps_si256(a),
            sign = _mm256_castps_si256(_mm256_andnot_ps(no_sign, x));
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 20), _mm256_set1_epi32(1));
    __m256i q = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7ffff)), odd);
    __m256i multiple = _mm256_castps_si256(_mm256_add_ps(a, step));
    q = _mm256_sub_epi32(_mm256_srli_epi32(q, 20), _mm256_set1_epi32((127 - 7) << 3));
    multiple = _mm256_sub_epi32(multiple, _mm256_castps_si256(step));
    q = _mm256_blendv_epi8(q, multiple, _mm256_castps_si256(tiny));
    q = _mm256_blendv_epi8(q, _mm256_set1_epi32(0x7f), _mm256_castps_si256(nan));
    q = _mm256_or_si256(q, _mm256_srli_epi32(sign, 24));
    __m128i w = _mm_packus_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    return _mm_packus_epi16(w, w);
}

/* x [D] to bytes to[0], to[step], … */
static void put_fp8(const float *x, size_t D, uint8_t *to, size_t step) {
    for (size_t d = 0; d < D; d += 8) {
        size_t n = D - d < 8 ? D - d : 8;
        uint8_t q[8];
        _mm_storel_epi64((__m128i *)(void *)q,
                         fp8_of(_mm256_maskload_ps(x + d, first8((int)n))));
        for (size_t i = 0; i < n; i++)
            to[(d + i) * step] = q[i];
    }
}

void avx2_kv_put(const struct kv_layer *kv, const float *k, const float *v, int slot,
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
    if (kv->type == KV_FP8) {
        put_fp8(k, D, (uint8_t *)dst_k + slot, 16);
        put_fp8(v, D, (uint8_t *)dst_v + (size_t)slot * D, 1);
        return;
    }
    bool f16 = kv->type == KV_F16;
    uint16_t *to_k = dst_k, *to_v = dst_v;
    for (size_t d = 0; d < D; d += 8) {
        size_t n = D - d < 8 ? D - d : 8;
        uint16_t half_k[8], half_v[8];
        __m256 x = _mm256_maskload_ps(k + d, first8((int)n));
        __m256 z = _mm256_maskload_ps(v + d, first8((int)n));
        _mm_storeu_si128((__m128i *)half_k, f16 ? f16_of(x) : bf16_of(x));
        _mm_storeu_si128((__m128i *)half_v, f16 ? f16_of(z) : bf16_of(z));
        for (size_t i = 0; i < n; i++) {
            to_k[kv_k_at(kv->type, d + i, (size_t)slot)] = half_k[i];
            to_v[kv_v_at(kv->type, D, d + i, (size_t)slot)] = half_v[i];
        }
    }
}

/* Reading: numbers over kv_unit() */

/* A code moved by 7 bits is the f16 of its number over 2^8, its sign one bit further. NaN alone
 * gives 0x3f80, which becomes 0x7f80. */
static inline __m256 fp8_part(__m128i codes) {
    __m128i x = _mm_slli_epi16(_mm_cvtepi8_epi16(codes), 7);
    x = _mm_and_si128(x, _mm_set1_epi16((short)0xbf80));
    __m128i nan = _mm_and_si128(_mm_add_epi16(x, _mm_set1_epi16(0x80)), _mm_set1_epi16(0x4000));
    return _mm256_cvtph_ps(_mm_or_si128(x, nan));
}

static inline __attribute__((always_inline)) __m256 load_kv(const void *base, size_t i,
                                                            const enum kv_type type) {
    const void *at = (const char *)base + i * kv_elem_bytes(type);
    switch (type) {
    case KV_F16:
        return _mm256_cvtph_ps(_mm_loadu_si128(at));
    case KV_I8:
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(at)));
    case KV_FP8:
        return fp8_part(_mm_loadl_epi64(at));
    default:
        return _mm256_loadu_ps(at);
    }
}

/* The first, or the second, of 8 pairs of bf16. */
static inline __m256 half_of(__m256i pairs, bool second) {
    return _mm256_castsi256_ps(second ? _mm256_and_si256(pairs, _mm256_set1_epi32(-65536))
                                      : _mm256_slli_epi32(pairs, 16));
}

/* Number d of 8 keys, the first of them in `slot`, of the head's part that begins at `at`. */
static inline __attribute__((always_inline)) __m256
load_k(const void *base, size_t at, size_t d, size_t slot, const enum kv_type type) {
    const uint16_t *pairs = (const uint16_t *)base + at + d / 2 * 32 + slot * 2;
    if (type == KV_BF16)
        return half_of(_mm256_loadu_si256((const __m256i *)pairs), d % 2);
    return load_kv(base, at + d * 16 + slot, type);
}

/* The first n < 8 elements, zeros behind. */
static inline __attribute__((always_inline)) __m256
load_kv_part(const void *base, size_t i, const enum kv_type type, size_t n) {
    if (type == KV_F32)
        return _mm256_maskload_ps((const float *)base + i, first8((int)n));
    char part[16] = {0};
    size_t size = kv_elem_bytes(type);
    memcpy(part, (const char *)base + i * size, n * size);
    return load_kv(part, 0, type);
}

/* Numbers d .. d + 7 of the value in a slot, or the first `part` of them. */
static inline __attribute__((always_inline)) __m256 load_v(const void *base, size_t at,
                                                           size_t D, size_t d, size_t slot,
                                                           size_t part,
                                                           const enum kv_type type) {
    const uint16_t *pairs = (const uint16_t *)base + at + slot / 2 * 2 * D + d * 2;
    if (type == KV_BF16) {
        __m256i m = first8(part ? (int)part : 8);
        return half_of(_mm256_maskload_epi32((const int *)(const void *)pairs, m), slot % 2);
    }
    at += slot * D + d;
    return part ? load_kv_part(base, at, type, part) : load_kv(base, at, type);
}

/* Keys that move */

static inline __attribute__((always_inline)) void
turn_plain(void *k, const float *c, const float *s, int n, const enum kv_type type) {
    for (int i = 0; i < n * 16; i += i % 32 ? 24 : 8) {
        size_t pair[2] = {(size_t)i, (size_t)i + 16};
        __m256 x[2] = {load_kv(k, pair[0], type), load_kv(k, pair[1], type)};
        for (int j = 0; j < 2; j++) {
            __m256 y = _mm256_mul_ps(x[j], _mm256_loadu_ps(c + pair[j]));
            y = _mm256_fmadd_ps(x[1 - j], _mm256_loadu_ps(s + pair[j]), y);
            if (type == KV_F32)
                _mm256_storeu_ps((float *)k + pair[j], y);
            else if (type == KV_FP8)
                _mm_storel_epi64((__m128i *)(void *)((uint8_t *)k + pair[j]),
                                 fp8_of(_mm256_mul_ps(y, _mm256_set1_ps(kv_unit(type)))));
            else
                _mm_storeu_si128((__m128i *)((uint16_t *)k + pair[j]), f16_of(y));
        }
    }
}

/* Both numbers of a pair are in one lane. */
static void turn_bf16(uint16_t *k, const float *c, const float *s, int n) {
    for (int i = 0; i < n * 16; i += i % 32 ? 24 : 8) { /* 8 keys of column i / 16, the next */
        __m128i half[2];
        __m256i *to = (__m256i *)(void *)(k + i / 32 * 32 + i % 32 * 2);
        __m256i pairs = _mm256_loadu_si256(to);
        __m256 x[2] = {half_of(pairs, false), half_of(pairs, true)};
        for (int j = 0; j < 2; j++) {
            __m256 y = _mm256_mul_ps(x[j], _mm256_loadu_ps(c + i + j * 16));
            half[j] = bf16_of(_mm256_fmadd_ps(x[1 - j], _mm256_loadu_ps(s + i + j * 16), y));
        }
        _mm256_storeu_si256(to, _mm256_set_m128i(_mm_unpackhi_epi16(half[0], half[1]),
                                                 _mm_unpacklo_epi16(half[0], half[1])));
    }
}

/* Column d of 8 int8 keys, those before n turned. */
static inline __m256 turned(const int8_t *k, const float *c, const float *s, int n, int d,
                            __m256 scale) {
    size_t i = (size_t)d * 16, j = (size_t)(d ^ 1) * 16;
    __m256 x = _mm256_mul_ps(load_kv(k, i, KV_I8), scale);
    if (d >= n)
        return x;
    __m256 y = _mm256_mul_ps(load_kv(k, j, KV_I8), scale);
    x = _mm256_mul_ps(x, _mm256_loadu_ps(c + i));
    return _mm256_fmadd_ps(y, _mm256_loadu_ps(s + i), x);
}

/* round(x * inv), 0 where inv is 0. */
static inline void store_i8(int8_t *to, __m256 x, __m256 inv) {
    __m256 some = _mm256_cmp_ps(inv, _mm256_setzero_ps(), _CMP_GT_OQ);
    x = _mm256_and_ps(_mm256_mul_ps(x, inv), some);
    __m256i q = _mm256_cvtps_epi32(x);
    __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    _mm_storel_epi64((__m128i *)to, _mm_packs_epi16(w, w));
}

/* 8 keys, with new scales: a turned number may be larger than all were. */
static void turn_i8(int8_t *k, float *scales, const float *c, const float *s, int n, int D) {
    __m256 old = _mm256_loadu_ps(scales);
    __m256i most = _mm256_setzero_si256(), no_sign = _mm256_set1_epi32(0x7fffffff);
    uint32_t top[8];
    float inv[8];
    for (int d = 0; d < D; d++) {
        __m256i x = _mm256_castps_si256(turned(k, c, s, n, d, old));
        most = _mm256_max_epi32(most, _mm256_and_si256(x, no_sign));
    }
    _mm256_storeu_si256((__m256i *)top, most);
    for (int i = 0; i < 8; i++)
        scales[i] = kv_i8_scale(top[i], &inv[i]);
    for (int d = 0; d < D; d += 2) {
        __m256 x = turned(k, c, s, n, d, old), y = turned(k, c, s, n, d + 1, old);
        store_i8(k + d * 16, x, _mm256_loadu_ps(inv));
        store_i8(k + d * 16 + 16, y, _mm256_loadu_ps(inv));
    }
}

void avx2_kv_turn(const struct kv_layer *kv, void *k, const float *c, const float *s, int n) {
    switch (kv->type) {
    case KV_F16:
        turn_plain(k, c, s, n, KV_F16);
        break;
    case KV_BF16:
        turn_bf16(k, c, s, n);
        break;
    case KV_I8:
        for (int i = 0; i < 16; i += 8)
            turn_i8((int8_t *)k + i, kv_scales(kv, k, 0) + i, c + i, s + i, n, kv->D);
        break;
    case KV_FP8:
        turn_plain(k, c, s, n, KV_FP8);
        break;
    default:
        turn_plain(k, c, s, n, KV_F32);
    }
}

/* Attention */

enum { ROWS = 4, VECS = 2 };

/* Scores of NR rows from row on against one block of 16 keys, column j of the scratch. */
static inline __attribute__((always_inline)) void att_scores(const struct cpu_att *a,
                                                             const void *k, size_t at, int row,
                                                             const int NR, int j, float scale,
                                                             const enum kv_type type) {
    size_t D = (size_t)a->kv->D;
    const float *q = a->q + row;
    __m256 s[ROWS][2];
#pragma GCC unroll 4
    for (int i = 0; i < NR; i++)
        s[i][0] = s[i][1] = _mm256_setzero_ps();
    for (size_t d = 0; d < D; d++) {
        __m256 k0 = load_k(k, at, d, 0, type), k1 = load_k(k, at, d, 8, type);
#pragma GCC unroll 4
        for (int i = 0; i < NR; i++) {
            __m256 x = _mm256_set1_ps(q[d * CPU_ATT_ROWS + (size_t)i]);
            s[i][0] = _mm256_fmadd_ps(k0, x, s[i][0]);
            s[i][1] = _mm256_fmadd_ps(k1, x, s[i][1]);
        }
    }
    if (type == KV_I8) {
        const float *scales = kv_scales(a->kv, a->kv->k, at);
        __m256 c0 = _mm256_loadu_ps(scales), c1 = _mm256_loadu_ps(scales + 8);
#pragma GCC unroll 4
        for (int i = 0; i < NR; i++) {
            s[i][0] = _mm256_mul_ps(s[i][0], c0);
            s[i][1] = _mm256_mul_ps(s[i][1], c1);
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
           const int NV, size_t part, const enum kv_type type, float *o) {
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
        size_t at = kv_part(kv, type, a->blocks[(key + j) / 16], a->head);
        int slots = n - j < 16 ? n - j : 16;
        for (int s = 0; s < slots; s++) {
            __m256 v[VECS];
#pragma GCC unroll 2
            for (int c = 0; c < NV; c++)
                v[c] = load_v(kv->v, at, D, d + (size_t)c * 8, (size_t)s, part, type);
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
                                first8(part ? (int)part : 8),
                                _mm256_mul_ps(sum[i][c], _mm256_set1_ps(kv_unit(type))));
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

/* What a row weighs values with, times the scales of int8 values. Of those that it does not see
 * 0 stays whatever their scales are. */
static void att_scale_values(const struct cpu_att *a, int key, struct span k, float *s) {
    for (int j = k.start; j < k.see; j += 16) {
        size_t at = kv_part(a->kv, KV_I8, a->blocks[(key + j) / 16], a->head);
        const float *scales = kv_scales(a->kv, a->kv->v, at);
        for (int i = 0; i < 16; i += 8) {
            __m256 p = _mm256_mul_ps(_mm256_loadu_ps(s + j + i), _mm256_loadu_ps(scales + i));
            _mm256_storeu_ps(s + j + i, _mm256_and_ps(p, seen(k, j + i)));
        }
    }
}

static inline __attribute__((always_inline)) void att_rows(const struct cpu_att *a, int row,
                                                           const int NR, int key, int n,
                                                           float *m, float *l, float *o,
                                                           const enum kv_type type) {
    const struct kv_layer *kv = a->kv;
    size_t D = (size_t)kv->D, d = 0;
    int see = att_sees(a, row + NR - 1, key, n), start = att_skips(a, row, key) / 16 * 16;
    for (int j = start; j < see; j += 16)
        att_scores(a, kv->k, kv_part(kv, type, a->blocks[(key + j) / 16], a->head), row, NR, j,
                   a->op->scale * kv_unit(type), type);
    for (int i = row; i < row + NR; i++) {
        float *s = a->scores + (size_t)i * CPU_ATT_CHUNK;
        struct span k = {att_skips(a, i, key), att_sees(a, i, key, see), start, see};
        if (a->op->cap > 0)
            avx2_cap(a->op->cap, s + start, see - start);
        if (a->op->slopes)
            cpu_att_slope(a, i, key, start, see, s);
        att_softmax(s, k, &m[i], &l[i]);
        if (type == KV_I8)
            att_scale_values(a, key, k, s);
    }
    for (; d + 16 <= D; d += 16)
        att_values(a, key, start, see, row, NR, d, 2, 0, type, o);
    for (; d + 8 <= D; d += 8)
        att_values(a, key, start, see, row, NR, d, 1, 0, type, o);
    if (d < D)
        att_values(a, key, start, see, row, NR, d, 1, D - d, type, o);
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
    default:                                                                                   \
        att_rows(a, row, 4, key, n, m, l, o, type);                                            \
    }

void avx2_att_chunk(const struct cpu_att *a, int row, int end, int key, int n, float *m,
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
