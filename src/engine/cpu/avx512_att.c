/*
 * avx512_att.c - the KV cache and attention in AVX-512.
 *
 * 16 keys of a block are one vector: scores need no horizontal sums. Up to 8 query rows are
 * kept in registers while a block's K, and then its V, is read once. What a row does not see
 * weighs exactly nothing, so its bits don't depend on the rows beside it.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512cd,fma,f16c")

#include "engine/cpu/avx512.h"
#include "engine/cpu/avx512_inline.h"

void avx512_kv_put(const struct kv_layer *kv, const float *k, const float *v, int slot,
                   void *dst_k, void *dst_v) {
    const __m512 top = _mm512_set1_ps(65504), bottom = _mm512_set1_ps(-65504);
    size_t D = (size_t)kv->D;
    if (!kv->f16) {
        kv_put_f32(k, v, D, slot, dst_k, dst_v);
        return;
    }
    uint16_t *to_k = dst_k, *to_v = (uint16_t *)dst_v + (size_t)slot * D;
    for (size_t d = 0; d < D; d += 16) {
        __mmask16 m = first((int)(D - d));
        uint16_t half[16];
        __m512 x = _mm512_maskz_loadu_ps(m, k + d), z = _mm512_maskz_loadu_ps(m, v + d);
        x = _mm512_max_ps(bottom, _mm512_min_ps(top, x));
        z = _mm512_max_ps(bottom, _mm512_min_ps(top, z));
        _mm256_storeu_si256((__m256i *)half, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
        _mm256_mask_storeu_epi16(to_v + d, m, _mm512_cvtps_ph(z, _MM_FROUND_TO_NEAREST_INT));
        for (size_t i = 0; i < 16 && d + i < D; i++)
            to_k[(d + i) * 16 + (size_t)slot] = half[i];
    }
}

/* Attention */

enum {
    ROWS = 8,
    FEW_ROWS = 4, /* so few get two blocks of keys, or four vectors of values, at once */
    VECS = 4,
};

static inline __m512 load_kv(const void *base, size_t i, bool f16, __mmask16 m) {
    if (f16)
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, (const uint16_t *)base + i));
    return _mm512_maskz_loadu_ps(m, (const float *)base + i);
}

/* Element i on, into the cache. */
static inline void fetch_kv(const void *base, size_t i, bool f16) {
    _mm_prefetch((const char *)base + i * (f16 ? 2 : 4), _MM_HINT_T0);
}

/* Scores of NR rows from row on against NB blocks of 16 keys at at[], columns from j on; next:
 * the blocks that come after these, which are asked for on the way. */
static inline __attribute__((always_inline)) void
att_scores(const struct cpu_att *a, const void *k, const size_t at[2], const size_t next[2],
           int row, const int NR, const int NB, int j, float scale, const bool f16) {
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
            keys[b] = load_kv(k, at[b] + d * 16, f16, 0xffff);
            if (NR <= FEW_ROWS)
                fetch_kv(k, next[b] + d * 16, f16);
        }
#pragma GCC unroll 8
        for (int i = 0; i < NR; i++) {
            __m512 x = _mm512_set1_ps(q[d * CPU_ATT_ROWS + (size_t)i]);
#pragma GCC unroll 2
            for (int b = 0; b < NB; b++)
                s[i][b] = _mm512_fmadd_ps(keys[b], x, s[i][b]);
        }
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
           const int NV, __mmask16 m, const bool f16, float *o) {
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
        size_t at = kv_part(kv, a->blocks[(key + j) / 16], a->head) + d;
        size_t next = j + 16 < n ? kv_part(kv, a->blocks[(key + j) / 16 + 1], a->head) + d : at;
        int slots = n - j < 16 ? n - j : 16;
        for (int s = 0; s < slots; s++, at += D, next += D) {
            __m512 v[VECS];
#pragma GCC unroll 4
            for (int c = 0; c < NV; c++) {
                v[c] = load_kv(kv->v, at + (size_t)c * 16, f16, c == NV - 1 ? m : 0xffff);
                if (NR <= FEW_ROWS)
                    fetch_kv(kv->v, next + (size_t)c * 16, f16);
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
                                  c == NV - 1 ? m : 0xffff, sum[i][c]);
}

/* Keys of a chunk: a row sees from .. see - 1, its group of rows start .. end - 1, start a
 * multiple of 16. */
struct span {
    int from, see, start, end;
};

/* Scores of a row to exp(s - m); those of keys that it does not see become 0. */
static void att_softmax(float *s, struct span k, float *m, float *l) {
    __m512 top = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (int j = k.start; j < k.see; j += 16) {
        __mmask16 seen = (__mmask16)(first(k.see - j) & ~first(k.from - j));
        top = _mm512_mask_max_ps(top, seen, top, _mm512_loadu_ps(s + j));
    }
    *m = _mm512_reduce_max_ps(top);
    top = _mm512_set1_ps(*m);
    for (int j = k.start; j < k.end; j += 16) {
        __mmask16 seen = (__mmask16)(first(k.see - j) & ~first(k.from - j));
        __m512 e = exp_ps(_mm512_sub_ps(_mm512_loadu_ps(s + j), top));
        e = _mm512_maskz_mov_ps(seen, e);
        sum = _mm512_add_ps(sum, e);
        _mm512_storeu_ps(s + j, e);
    }
    *l = _mm512_reduce_add_ps(sum);
}

static inline __attribute__((always_inline)) void att_rows(const struct cpu_att *a, int row,
                                                           const int NR, int key, int n,
                                                           float *m, float *l, float *o,
                                                           const bool f16) {
    const struct kv_layer *kv = a->kv;
    size_t D = (size_t)kv->D;
    int see = att_sees(a, row + NR - 1, key, n), start = att_skips(a, row, key) / 16 * 16;
    for (int j = start; j < see;) {
        const int NB = NR <= FEW_ROWS && j + 16 < see ? 2 : 1;
        size_t at[2], next[2];
        for (int b = 0; b < NB; b++) {
            int block = (key + j) / 16 + b;
            at[b] = kv_part(kv, a->blocks[block], a->head);
            next[b] =
                j + (NB + b) * 16 < see ? kv_part(kv, a->blocks[block + NB], a->head) : at[b];
        }
        if (NB == 2)
            att_scores(a, kv->k, at, next, row, NR, 2, j, a->op->scale, f16);
        else
            att_scores(a, kv->k, at, next, row, NR, 1, j, a->op->scale, f16);
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
    }
    size_t d = 0;
    for (; NR <= FEW_ROWS && d + 64 <= D; d += 64)
        att_values(a, key, start, see, row, NR, d, 4, 0xffff, f16, o);
    for (; d + 32 <= D; d += 32)
        att_values(a, key, start, see, row, NR, d, 2, 0xffff, f16, o);
    for (; d < D; d += 16)
        att_values(a, key, start, see, row, NR, d, 1, first((int)(D - d)), f16, o);
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
    case 4:                                                                                    \
        att_rows(a, row, 4, key, n, m, l, o, f16);                                             \
        break;                                                                                 \
    case 5:                                                                                    \
        att_rows(a, row, 5, key, n, m, l, o, f16);                                             \
        break;                                                                                 \
    case 6:                                                                                    \
        att_rows(a, row, 6, key, n, m, l, o, f16);                                             \
        break;                                                                                 \
    case 7:                                                                                    \
        att_rows(a, row, 7, key, n, m, l, o, f16);                                             \
        break;                                                                                 \
    default:                                                                                   \
        att_rows(a, row, 8, key, n, m, l, o, f16);                                             \
    }

void avx512_att_chunk(const struct cpu_att *a, int row, int end, int key, int n, float *m,
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
