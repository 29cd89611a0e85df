/*
 * avx512_bf16.c - attention with dot products of bf16 (Zen 4, Sapphire Rapids and later), and
 * the kernel set that has it: avx512_vbmi.c with this.
 *
 * vdpbf16ps multiplies two numbers a lane where f32 has one, and a bf16 cache is laid out for
 * it (backend.h). Queries are rounded to bf16, and so are the weights of values, exp(score -
 * max); their sum is that of the rounded ones. Each is off by 2^-8 of itself, less than by what
 * the 8-bit products before and behind attention are.
 *
 * As in avx512_att.c up to 8 query rows are kept in registers while a block's K, then its V, is
 * read once, and a row's bits don't depend on the rows beside it. Instructions are written out
 * for the reason given in avx512_vbmi.c; they treat denormal numbers as 0.
 *
 * Of few rows, as when tokens are decoded, the parts of a head are short pieces all over the
 * pool, and reading them is most of the time: values are asked for while keys are read, the
 * keys of the next call while values are. Asking for the next block alone is too late by the
 * time of two: 32 sequences read 7 GB/s then, 15 to 25 now, 34 from front to back. What the
 * processor forgot of that is asked for again shortly before it is read: steps of 32 sequences
 * and those of one behind 3000 tokens take 5 % less time.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512cd,avx512bf16,fma,f16c")

#include "engine/cpu/avx512.h"
#include "engine/cpu/avx512_inline.h"
#include <assert.h>

enum {
    ROWS = 8,
    FEW_ROWS = 4, /* so few get two blocks of keys, or four vectors of values, at once */
    VECS = 4,
    MAX_D = 1024,
    AGAIN = 1536, /* bytes ahead where memory is asked for a second time */
};

/* What the rows of one call have: their queries, and what they weigh values with. */
struct rows {
    uint32_t q[MAX_D / 2][ROWS]; /* pairs of columns */
    uint16_t p[ROWS][CPU_ATT_CHUNK];
};

/* acc + the products of the pairs in w and the pair at x. */
static inline __attribute__((always_inline)) __m512 dot2(__m512 acc, __m512i w, const void *x) {
    __asm__("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*(const uint32_t *)x));
    return acc;
}

/* The queries of 8 rows, in pairs of columns: q [D, CPU_ATT_ROWS] from the first row on. */
static void put_queries(const float *q, int D, struct rows *r) {
    for (int d = 0; d < D; d += 2, q += 2 * CPU_ATT_ROWS) {
        __m256 even = _mm256_loadu_ps(q), odd = _mm256_loadu_ps(q + CPU_ATT_ROWS);
        __m256i x = _mm256_cvtepu16_epi32((__m128i)_mm256_cvtneps_pbh(even));
        __m256i y = _mm256_cvtepu16_epi32((__m128i)_mm256_cvtneps_pbh(odd));
        _mm256_storeu_si256((__m256i *)r->q[d / 2],
                            _mm256_or_si256(x, _mm256_slli_epi32(y, 16)));
    }
}

/* Scores of NR rows, to row `row` of the scratch and on, against NB blocks of 16 keys at at[],
 * columns from j on; their values are asked for on the way. */
static inline __attribute__((always_inline)) void scores(const struct cpu_att *a,
                                                         const struct rows *r,
                                                         const size_t at[2], int row,
                                                         const int NR, const int NB, int j) {
    const uint16_t *k = a->kv->k, *v = a->kv->v;
    __m512 s[ROWS][2];
#pragma GCC unroll 8
    for (int i = 0; i < NR; i++)
        s[i][0] = s[i][1] = _mm512_setzero_ps();
    for (size_t d = 0; d < (size_t)a->kv->D / 2; d++) {
#pragma GCC unroll 2
        for (int b = 0; b < NB; b++) {
            __m512i keys = _mm512_loadu_si512(k + at[b] + d * 32);
            if (NR <= FEW_ROWS) {
                _mm_prefetch((const char *)(v + at[b] + d * 32), _MM_HINT_T1);
                _mm_prefetch((const char *)(k + at[b] + d * 32) + AGAIN, _MM_HINT_T1);
            }
#pragma GCC unroll 8
            for (int i = 0; i < NR; i++)
                s[i][b] = dot2(s[i][b], keys, &r->q[d][i]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < NR; i++)
#pragma GCC unroll 2
        for (int b = 0; b < NB; b++)
            _mm512_storeu_ps(a->scores + (size_t)(row + i) * CPU_ATT_CHUNK + j + b * 16,
                             _mm512_mul_ps(s[i][b], _mm512_set1_ps(a->op->scale)));
}

/* Scores s of a row to p = exp(s - m); of keys that it does not see p is 0. */
static void softmax(const float *s, struct span k, uint16_t *p, float *m, float *l) {
    __m512 sum = _mm512_setzero_ps();
    *m = top_score(s, k);
    for (int j = k.start; j < k.end; j += 16) {
        __m512 e = exp_ps(_mm512_sub_ps(_mm512_loadu_ps(s + j), _mm512_set1_ps(*m)));
        __m256i half = (__m256i)_mm512_maskz_cvtneps_pbh(seen(k, j), e);
        _mm256_storeu_si256((__m256i *)(p + j), half);
        __m512i back = _mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
        sum = _mm512_add_ps(sum, _mm512_castsi512_ps(back));
    }
    *l = _mm512_reduce_add_ps(sum);
}

/* Where a head's part of the block with a key begins. */
static inline size_t part(const struct cpu_att *a, int key) {
    return kv_part(a->kv, KV_BF16, a->blocks[key / 16], a->head);
}

/* o[row .. row + NR - 1, d .. d + 16 NV - 1] = p V over keys start .. n - 1. m: lanes of the
 * last vector. Of a last key without its neighbour the neighbour is not used. */
static inline __attribute__((always_inline)) void
values(const struct cpu_att *a, const struct rows *r, int key, int start, int n, int row,
       const int NR, size_t d, const int NV, __mmask16 m, float *o) {
    size_t D = (size_t)a->kv->D;
    __m512 sum[ROWS][VECS];
#pragma GCC unroll 8
    for (int i = 0; i < NR; i++)
#pragma GCC unroll 4
        for (int c = 0; c < NV; c++)
            sum[i][c] = _mm512_setzero_ps();
    for (int j = start; j < n; j += 16) {
        size_t own = part(a, key + j);
        const uint16_t *at = (const uint16_t *)a->kv->v + own + d * 2;
        const uint16_t *next =
            (const uint16_t *)a->kv->k + kv_part_next(a, KV_BF16, j, own) + d * 2;
        int end = n - j < 16 ? n : j + 16;
        for (int t = j; t < end; t += 2, at += 2 * D, next += 2 * D) {
            __m512i use = _mm512_set1_epi32(t + 1 < end ? -1 : 0xffff), v[VECS];
#pragma GCC unroll 4
            for (int c = 0; c < NV; c++) {
                v[c] = _mm512_maskz_loadu_epi32(c == NV - 1 ? m : 0xffff, at + c * 32);
                v[c] = _mm512_and_si512(v[c], use);
                if (NR <= FEW_ROWS) {
                    _mm_prefetch((const char *)(next + c * 32), _MM_HINT_T1);
                    _mm_prefetch((const char *)(at + c * 32) + AGAIN, _MM_HINT_T1);
                }
            }
#pragma GCC unroll 8
            for (int i = 0; i < NR; i++)
#pragma GCC unroll 4
                for (int c = 0; c < NV; c++)
                    sum[i][c] = dot2(sum[i][c], v[c], &r->p[i][t]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < NR; i++)
#pragma GCC unroll 4
        for (int c = 0; c < NV; c++)
            _mm512_mask_storeu_ps(o + (size_t)(row + i) * D + d + (size_t)c * 16,
                                  c == NV - 1 ? m : 0xffff, sum[i][c]);
}

static inline __attribute__((always_inline)) void rows(const struct cpu_att *a, struct rows *r,
                                                       int row, const int NR, int key, int n,
                                                       float *m, float *l, float *o) {
    size_t D = (size_t)a->kv->D, d = 0;
    int see = att_sees(a, row + NR - 1, key, n), start = att_skips(a, row, key) / 16 * 16;
    put_queries(a->q + row, a->kv->D, r);
    for (int j = start; j < see;) {
        const int NB = NR <= FEW_ROWS && j + 16 < see ? 2 : 1;
        size_t at[2];
        for (int b = 0; b < NB; b++)
            at[b] = part(a, key + j + b * 16);
        if (NB == 2)
            scores(a, r, at, row, NR, 2, j);
        else
            scores(a, r, at, row, NR, 1, j);
        j += NB * 16;
    }
    for (int i = 0; i < NR; i++) {
        float *s = a->scores + (size_t)(row + i) * CPU_ATT_CHUNK;
        struct span k = {att_skips(a, row + i, key), att_sees(a, row + i, key, see), start,
                         see};
        if (a->op->cap > 0)
            avx512_cap(a->op->cap, s + start, see - start);
        if (a->op->slopes)
            cpu_att_slope(a, row + i, key, start, see, s);
        softmax(s, k, r->p[i], &m[row + i], &l[row + i]);
    }
    for (; NR <= FEW_ROWS && d + 64 <= D; d += 64)
        values(a, r, key, start, see, row, NR, d, 4, 0xffff, o);
    for (; d + 32 <= D; d += 32)
        values(a, r, key, start, see, row, NR, d, 2, 0xffff, o);
    for (; d < D; d += 16)
        values(a, r, key, start, see, row, NR, d, 1, first((int)(D - d)), o);
}

#define CASE(NR)                                                                               \
    case NR:                                                                                   \
        rows(a, &r, row, NR, key, n, m, l, o);                                                 \
        break

static void bf16_att_chunk(const struct cpu_att *a, int row, int end, int key, int n, float *m,
                           float *l, float *o) {
    struct rows r;
    if (a->kv->type != KV_BF16) {
        avx512_att_chunk(a, row, end, key, n, m, l, o);
        return;
    }
    assert(a->kv->D <= MAX_D); /* arch_check() */
    for (; row < end; row += ROWS)
        switch (end - row < ROWS ? end - row : ROWS) {
            CASE(1);
            CASE(2);
            CASE(3);
            CASE(4);
            CASE(5);
            CASE(6);
            CASE(7);
            CASE(8);
        }
}

const struct cpu_kernels cpu_avx512_bf16 = {
    .name = "avx512",
    .kv = KV_BF16,
    .block = VBMI_BLOCK,
    .block_bytes = vbmi_block_bytes,
    .quantize = vbmi_quantize,
    .matmul = vbmi_matmul,
    AVX512_ROWS,
    .att_chunk = bf16_att_chunk,
};
#endif
