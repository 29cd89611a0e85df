/*
 * avx512.c - AVX-512 (F, BW, VL, DQ, CD) without VNNI, and the kernels that both AVX-512 sets
 * use.
 *
 * Rows end with a masked vector, so nothing beyond a row is read or written. Reductions of a
 * row keep one vector of sums and add its lanes at the end.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512cd,fma,f16c")

#define DOT_VNNI 0
#define MATMUL   plain_matmul
#include "engine/cpu/avx512_int16.h"

/* The first n of 16 lanes. */
static inline __mmask16 first(int n) {
    return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1);
}

static inline __m512 exp_ps(__m512 x) {
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(EXP_LOG2E)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EXP_LN2_HI), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EXP_LN2_LO), r);
    __m512 p = _mm512_set1_ps(EXP_C7);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C2));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1));
    return _mm512_scalef_ps(p, n);
}

void avx512_quantize(const float *x, int K, int16_t *q, float *scale) {
    for (int k = 0; k < weight_pad_k(K); k += 64) {
        __m512 v[4], top = _mm512_setzero_ps();
        for (int i = 0; i < 4; i++) {
            int left = K - k - i * 16;
            v[i] = _mm512_maskz_loadu_ps(left > 0 ? first(left) : 0, x + k + i * 16);
            top = _mm512_max_ps(top, _mm512_abs_ps(v[i]));
        }
        float absmax = _mm512_reduce_max_ps(top);
        __m512 inv = _mm512_set1_ps(absmax > 1e-30f ? X_STEPS / absmax : 0);
        for (int i = 0; i < 4; i++) {
            __m512i r = _mm512_cvtps_epi32(_mm512_mul_ps(v[i], inv));
            r = _mm512_shuffle_epi32(r, _MM_PERM_DBCA); /* pairs (0, 2), (1, 3) */
            _mm256_storeu_si256((__m256i *)(q + k + i * 16), _mm512_cvtepi32_epi16(r));
        }
        scale[k / 64] = absmax / X_STEPS;
    }
}

void avx512_norm(const float *x, const float *g, float eps, int K, float *y) {
    __m512 sum = _mm512_setzero_ps();
    for (int k = 0; k < K; k += 16) {
        __m512 v = _mm512_maskz_loadu_ps(first(K - k), x + k);
        sum = _mm512_fmadd_ps(v, v, sum);
    }
    __m512 scale = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(sum) / (float)K + eps));
    for (int k = 0; k < K; k += 16) {
        __mmask16 m = first(K - k);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + k), scale);
        _mm512_mask_storeu_ps(y + k, m, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, g + k)));
    }
}

void avx512_rope(float *x, const float *c, const float *s, int n) {
    for (int i = 0; i < n; i += 16) {
        __mmask16 m = first(n - i);
        __m512 v = _mm512_maskz_loadu_ps(m, x + i), swapped = _mm512_permute_ps(v, 0xb1);
        __m512 r = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, c + i));
        r = _mm512_fmadd_ps(swapped, _mm512_maskz_loadu_ps(m, s + i), r);
        _mm512_mask_storeu_ps(x + i, m, r);
    }
}

void avx512_act(const float *g, const float *u, int n, float *y) {
    const __m512 one = _mm512_set1_ps(1);
    for (int i = 0; i < n; i += 16) {
        __mmask16 m = first(n - i);
        __m512 v = _mm512_maskz_loadu_ps(m, g + i);
        __m512 e = exp_ps(_mm512_sub_ps(_mm512_setzero_ps(), v));
        v = _mm512_div_ps(v, _mm512_add_ps(one, e));
        _mm512_mask_storeu_ps(y + i, m, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, u + i)));
    }
}

void avx512_axpby(float a, const float *x, float b, int n, float *y) {
    const __m512 va = _mm512_set1_ps(a), vb = _mm512_set1_ps(b);
    for (int i = 0; i < n; i += 16) {
        __mmask16 m = first(n - i);
        __m512 v = _mm512_mul_ps(vb, _mm512_maskz_loadu_ps(m, y + i));
        _mm512_mask_storeu_ps(y + i, m,
                              _mm512_fmadd_ps(va, _mm512_maskz_loadu_ps(m, x + i), v));
    }
}

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

enum { ROWS = 8, VECS = 2 };

static inline __m512 load_kv(const void *base, size_t i, bool f16, __mmask16 m) {
    if (f16)
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, (const uint16_t *)base + i));
    return _mm512_maskz_loadu_ps(m, (const float *)base + i);
}

/* Scores of NR rows from row on against one block of 16 keys, column j of the scratch. */
static inline __attribute__((always_inline)) void att_scores(const struct cpu_att *a,
                                                             const void *k, size_t at, int row,
                                                             const int NR, int j, float scale,
                                                             const bool f16) {
    size_t D = (size_t)a->kv->D;
    const float *q = a->q + (size_t)row * D;
    __m512 s[ROWS];
#pragma GCC unroll 8
    for (int i = 0; i < NR; i++)
        s[i] = _mm512_setzero_ps();
    for (size_t d = 0; d < D; d++) {
        __m512 keys = load_kv(k, at + d * 16, f16, 0xffff);
#pragma GCC unroll 8
        for (int i = 0; i < NR; i++)
            s[i] = _mm512_fmadd_ps(keys, _mm512_set1_ps(q[(size_t)i * D + d]), s[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < NR; i++)
        _mm512_storeu_ps(a->scores + (size_t)(row + i) * CPU_ATT_CHUNK + j,
                         _mm512_mul_ps(s[i], _mm512_set1_ps(scale)));
}

/* o[row .. row + NR - 1, d .. d + 16 NV - 1] = p V over n keys. m: lanes of the last vector. */
static inline __attribute__((always_inline)) void
att_values(const struct cpu_att *a, int key, int n, int row, const int NR, size_t d,
           const int NV, __mmask16 m, const bool f16, float *o) {
    const struct kv_layer *kv = a->kv;
    size_t D = (size_t)kv->D;
    const float *p = a->scores + (size_t)row * CPU_ATT_CHUNK;
    __m512 sum[ROWS][VECS];
#pragma GCC unroll 8
    for (int i = 0; i < NR; i++)
#pragma GCC unroll 2
        for (int c = 0; c < NV; c++)
            sum[i][c] = _mm512_setzero_ps();
    for (int j = 0; j < n; j += 16) {
        size_t at = kv_part(kv, a->blocks[(key + j) / 16], a->head) + d;
        int slots = n - j < 16 ? n - j : 16;
        for (int s = 0; s < slots; s++, at += D) {
            __m512 v[VECS];
#pragma GCC unroll 2
            for (int c = 0; c < NV; c++)
                v[c] = load_kv(kv->v, at + (size_t)c * 16, f16, c == NV - 1 ? m : 0xffff);
#pragma GCC unroll 8
            for (int i = 0; i < NR; i++) {
                __m512 w = _mm512_set1_ps(p[i * CPU_ATT_CHUNK + j + s]);
#pragma GCC unroll 2
                for (int c = 0; c < NV; c++)
                    sum[i][c] = _mm512_fmadd_ps(v[c], w, sum[i][c]);
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < NR; i++)
#pragma GCC unroll 2
        for (int c = 0; c < NV; c++)
            _mm512_mask_storeu_ps(o + (size_t)(row + i) * D + d + (size_t)c * 16,
                                  c == NV - 1 ? m : 0xffff, sum[i][c]);
}

/* Scores of a row to exp(s - m); those behind the n_see keys that it sees become 0. */
static void att_softmax(float *s, int n_see, int n, float *m, float *l) {
    __m512 top = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (int j = 0; j < n_see; j += 16)
        top = _mm512_mask_max_ps(top, first(n_see - j), top, _mm512_loadu_ps(s + j));
    *m = _mm512_reduce_max_ps(top);
    top = _mm512_set1_ps(*m);
    for (int j = 0; j < n; j += 16) {
        __mmask16 seen = n_see > j ? first(n_see - j) : 0;
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
    float scale = 1.0f / sqrtf((float)D);
    int see = att_sees(a, row + NR - 1, key, n);
    for (int j = 0; j < see; j += 16)
        att_scores(a, kv->k, kv_part(kv, a->blocks[(key + j) / 16], a->head), row, NR, j, scale,
                   f16);
    for (int i = row; i < row + NR; i++)
        att_softmax(a->scores + (size_t)i * CPU_ATT_CHUNK, att_sees(a, i, key, see), see, &m[i],
                    &l[i]);
    size_t d = 0;
    for (; d + 32 <= D; d += 32)
        att_values(a, key, see, row, NR, d, 2, 0xffff, f16, o);
    for (; d < D; d += 16)
        att_values(a, key, see, row, NR, d, 1, first((int)(D - d)), f16, o);
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

void avx512_att_chunk(const struct cpu_att *a, int row, int key, int n, float *m, float *l,
                      float *o) {
    for (; row < a->R; row += ROWS) {
        int NR = a->R - row < ROWS ? a->R - row : ROWS;
        if (a->kv->f16)
            ATT_CASES(true)
        else
            ATT_CASES(false)
    }
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
    .quantize = avx512_quantize,
    .matmul = plain_matmul,
    .norm = avx512_norm,
    .rope = avx512_rope,
    .act = avx512_act,
    .axpby = avx512_axpby,
    .kv_put = avx512_kv_put,
    .att_chunk = avx512_att_chunk,
};
#endif
