/*
 * avx2_matmul.c - products with weights, AVX2. The formulas and the promise about bits are
 * those of avx512_int16.h.
 *
 * A row tile is two halves of 8 rows, done one after the other. Bytes of 4 inputs x 8 rows
 * become two vectors of int16, a with rows 0 1 4 5 and b with rows 2 3 6 7, each 4 inputs x 4
 * rows (that is what unpacking within 128 bits gives). vpmaddwd leaves two int32 for a row, and
 * one vphaddd a group puts the rows in order. A nibble's int16 is looked up as a low and a high
 * byte.
 *
 * Few tokens (up to 4 at a time) unpack weights in registers; many run over a half tile
 * expanded to int16.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx2,fma,f16c")

#include "engine/cpu/avx2.h"
#include "engine/cpu/avx2_inline.h"
#include <string.h>

enum { BLOCK = 4, PANEL_FROM = 9 /* tokens */ };

/* Where 8 inputs of 8 rows come from. */
enum source { FROM_Q4, FROM_I8, FROM_PANEL };

struct q4_decoder {
    __m256i low, high, nibble; /* bytes of the 16 int16 values; 15 */
    __m256 slope, base;
};

static struct q4_decoder q4_decoder(const struct weight *w) {
    static const float slopes[8] = {MAP_SLOPES}, bases[8] = {MAP_BASES};
    int16_t words[16];
    uint8_t low[16], high[16];
    struct q4_decoder d;
    q4_words(w, words);
    for (int i = 0; i < 16; i++) {
        low[i] = (uint8_t)(words[i] & 255);
        high[i] = (uint8_t)(words[i] >> 8 & 255);
    }
    d.low = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)low));
    d.high = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)high));
    d.nibble = _mm256_set1_epi8(15);
    d.slope = _mm256_loadu_ps(slopes);
    d.base = _mm256_loadu_ps(bases);
    return d;
}

static inline void q4_words8(const struct q4_decoder *d, __m256i nibbles, __m256i v[2]) {
    __m256i lo = _mm256_shuffle_epi8(d->low, nibbles),
            hi = _mm256_shuffle_epi8(d->high, nibbles);
    v[0] = _mm256_unpacklo_epi8(lo, hi);
    v[1] = _mm256_unpackhi_epi8(lo, hi);
}

/* v: a and b of the first 4 inputs, a and b of the next 4. */
static inline __attribute__((always_inline)) void
load8(const enum source from, const char *p, const struct q4_decoder *d, __m256i v[4]) {
    if (from == FROM_Q4) {
        __m256i two = _mm256_loadu_si256((const __m256i *)p);
        q4_words8(d, _mm256_and_si256(two, d->nibble), v);
        q4_words8(d, _mm256_and_si256(_mm256_srli_epi16(two, 4), d->nibble), v + 2);
    } else if (from == FROM_I8) {
        for (int i = 0; i < 2; i++) {
            __m256i b = _mm256_loadu_si256((const __m256i *)(p + i * 64));
            v[2 * i] = _mm256_srai_epi16(_mm256_unpacklo_epi8(b, b), 8);
            v[2 * i + 1] = _mm256_srai_epi16(_mm256_unpackhi_epi8(b, b), 8);
        }
    } else {
        for (int i = 0; i < 4; i++)
            v[i] = _mm256_load_si256((const __m256i *)(p + i * 32));
    }
}

/* Bytes from 8 inputs to the next 8. */
static inline size_t step8(const enum source from) {
    return from == FROM_Q4 ? 64 : 128;
}

/* 8 scales, divided by the steps of the table. The level is the exponent of a as a float. */
static inline __m256 q4_scales(const struct q4_decoder *d, const uint8_t *code, __m256 absmax2,
                               __m256 offset) {
    __m256i c = _mm256_sub_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)code)),
                                 _mm256_set1_epi32(127));
    __m256i a = _mm256_abs_epi32(c);
    __m256 f = _mm256_cvtepi32_ps(a);
    __m256i level =
        _mm256_sub_epi32(_mm256_srli_epi32(_mm256_castps_si256(f), 23), _mm256_set1_epi32(127));
    __m256 v = _mm256_fmadd_ps(_mm256_permutevar8x32_ps(d->slope, level), f,
                               _mm256_permutevar8x32_ps(d->base, level));
    v = _mm256_and_ps(v, _mm256_cmp_ps(f, _mm256_setzero_ps(), _CMP_GT_OQ));
    v = _mm256_xor_ps(v, _mm256_and_ps(_mm256_castsi256_ps(c), _mm256_set1_ps(-0.0f)));
    v = _mm256_fmadd_ps(v, absmax2, offset);
    return _mm256_mul_ps(v, _mm256_set1_ps(1.0f / Q4_STEPS));
}

static inline __m256i bcast4(const int16_t *q) {
    int64_t four;
    memcpy(&four, q, sizeof four);
    return _mm256_set1_epi64x(four);
}

static inline __m256i dot2(__m256i acc, __m256i w, __m256i q) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(w, q));
}

static inline __m256 add_group(__m256 sum, __m256i dots, __m256 ws, float xs) {
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), _mm256_mul_ps(ws, _mm256_set1_ps(xs)),
                           sum);
}

/* 8 rows of an output, of which n exist. */
static inline void put_rows(float *y, __m256 v, int n, bool add) {
    __m256i m = first8(n);
    if (add)
        v = _mm256_add_ps(_mm256_maskload_ps(y, m), v);
    _mm256_maskstore_ps(y, m, v);
}

/* Rows of half h of a tile that exist. */
static inline int half_rows(const struct weight *w, int tile, int h) {
    return w->N - tile * 16 - h * 8;
}

/* The scales of half h of a tile, [G, 8]. */
static void half_scales(const struct weight *w, const struct q4_decoder *d, int tile, int h,
                        float *out) {
    size_t G = (size_t)w->Kp / 64;
    int end = 0;
    float a2[16];
    for (int g = 0; g < (int)G; g++) {
        size_t at = ((size_t)tile * G + (size_t)g) * 16 + (size_t)h * 8;
        if (w->type == WEIGHT_I8) {
            memcpy(out + g * 8, w->scale + at, 8 * sizeof *out);
            continue;
        }
        if (g == end)
            q4_absmax2(w, tile, g, a2, &end);
        _mm256_storeu_ps(out + g * 8, q4_scales(d, w->code + at, _mm256_loadu_ps(a2 + h * 8),
                                                _mm256_set1_ps(w->offset)));
    }
}

/* 8 rows, of which n_row exist, times NT tokens from t on; p: their weights, scales [G, 8]. */
static inline __attribute__((always_inline)) void
block(const struct cpu_input *in, const enum source from, const char *p,
      const struct q4_decoder *d, const float *scales, size_t Kp, int t, const int NT,
      int n_row, float *y, size_t ldy, bool add) {
    size_t G = Kp / 64;
    const int16_t *q = in->q + (size_t)t * Kp;
    const float *xs = in->scale + (size_t)t * G;
    __m256 sum[BLOCK];
#pragma GCC unroll 4
    for (int i = 0; i < NT; i++)
        sum[i] = _mm256_setzero_ps();
    for (size_t g = 0; g < G; g++) {
        __m256i a[BLOCK], b[BLOCK];
#pragma GCC unroll 4
        for (int i = 0; i < NT; i++)
            a[i] = b[i] = _mm256_setzero_si256();
        for (int k = 0; k < 64; k += 8, q += 8, p += step8(from)) {
            __m256i v[4];
            load8(from, p, d, v);
#pragma GCC unroll 4
            for (int i = 0; i < NT; i++) {
                __m256i x0 = bcast4(q + (size_t)i * Kp), x1 = bcast4(q + (size_t)i * Kp + 4);
                a[i] = dot2(dot2(a[i], v[0], x0), v[2], x1);
                b[i] = dot2(dot2(b[i], v[1], x0), v[3], x1);
            }
        }
        __m256 ws = _mm256_loadu_ps(scales + g * 8);
#pragma GCC unroll 4
        for (int i = 0; i < NT; i++)
            sum[i] =
                add_group(sum[i], _mm256_hadd_epi32(a[i], b[i]), ws, xs[(size_t)i * G + g]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < NT; i++)
        put_rows(y + (size_t)(t + i) * ldy, sum[i], n_row, add);
}

#define BLOCK_CASE(from, NT)                                                                   \
    case NT:                                                                                   \
        block(in, from, p, d, scales, Kp, t, NT, n_row, y, ldy, add);                          \
        break
#define BLOCK_CASES(from)                                                                      \
    switch (n) {                                                                               \
        BLOCK_CASE(from, 1);                                                                   \
        BLOCK_CASE(from, 2);                                                                   \
        BLOCK_CASE(from, 3);                                                                   \
        BLOCK_CASE(from, 4);                                                                   \
    }

/* Half h of a tile for all tokens. scratch: [Kp, 8] int16 and then [G, 8] scales. */
static void half_tile(const struct cpu_input *in, const struct weight *w,
                      const struct q4_decoder *d, int tile, int h, float *y, size_t ldy,
                      bool add, char *scratch) {
    size_t Kp = (size_t)w->Kp;
    enum source from = w->type == WEIGHT_Q4 ? FROM_Q4 : FROM_I8;
    const char *p =
        (const char *)w->data + (size_t)tile * Kp * (from == FROM_Q4 ? 8 : 16) + h * 32;
    float *scales = (float *)(void *)(scratch + Kp * 16);
    int n_row = w->N - tile * 16 - h * 8;
    half_scales(w, d, tile, h, scales);
    if (in->T >= PANEL_FROM) {
        for (size_t i = 0; i < Kp / 8; i++, p += step8(from)) {
            __m256i v[4];
            if (from == FROM_Q4)
                load8(FROM_Q4, p, d, v);
            else
                load8(FROM_I8, p, d, v);
            for (size_t j = 0; j < 4; j++)
                _mm256_store_si256((__m256i *)(scratch + i * 128 + j * 32), v[j]);
        }
        p = scratch;
        from = FROM_PANEL;
    }
    for (int t = 0; t < in->T; t += BLOCK) {
        int n = in->T - t < BLOCK ? in->T - t : BLOCK;
        if (from == FROM_PANEL)
            BLOCK_CASES(FROM_PANEL)
        else if (from == FROM_Q4)
            BLOCK_CASES(FROM_Q4)
        else
            BLOCK_CASES(FROM_I8)
    }
}

/* F32 and BF16: NP tiles, NT tokens; one accumulator for each output, k ascending. */
static inline __attribute__((always_inline)) void
float_block(const struct cpu_input *in, const struct weight *w, int tile, int t, const int NP,
            const int NT, const bool bf16, float *y, size_t ldy, bool add) {
    size_t Kp = (size_t)w->Kp, part = Kp * 16 * (bf16 ? 2 : 4);
    const char *p = (const char *)w->data + (size_t)tile * part;
    const float *x = in->x + (size_t)t * in->ldx;
    const __m256i high = _mm256_set1_epi32((int)0xffff0000);
    __m256 sum[4][4];
#pragma GCC unroll 4
    for (int i = 0; i < NT; i++)
#pragma GCC unroll 4
        for (int j = 0; j < 2 * NP; j++)
            sum[i][j] = _mm256_setzero_ps();
    for (int k = 0; k < w->K; k += bf16 ? 2 : 1, p += 64) {
#pragma GCC unroll 4
        for (int j = 0; j < 2 * NP; j++) {
            __m256i raw = _mm256_loadu_si256(
                (const __m256i *)(p + (size_t)(j / 2) * part + (size_t)(j % 2) * 32));
            __m256 v = _mm256_castsi256_ps(bf16 ? _mm256_slli_epi32(raw, 16) : raw);
            __m256 v2 = _mm256_castsi256_ps(_mm256_and_si256(raw, high));
#pragma GCC unroll 4
            for (int i = 0; i < NT; i++) {
                const float *xi = x + (size_t)i * in->ldx + k;
                sum[i][j] = _mm256_fmadd_ps(v, _mm256_set1_ps(xi[0]), sum[i][j]);
                if (bf16)
                    sum[i][j] = _mm256_fmadd_ps(v2, _mm256_set1_ps(xi[1]), sum[i][j]);
            }
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < NT; i++)
#pragma GCC unroll 4
        for (int j = 0; j < 2 * NP; j++)
            put_rows(y + (size_t)(t + i) * ldy + j * 8, sum[i][j],
                     half_rows(w, tile + j / 2, j % 2), add);
}

static inline __attribute__((always_inline)) void float_tiles(const struct cpu_input *in,
                                                              const struct weight *w, int tile,
                                                              int n_tile, const bool bf16,
                                                              float *y, size_t ldy, bool add) {
    for (; in->T == 1 && n_tile >= 2; n_tile -= 2, tile += 2, y += 32)
        float_block(in, w, tile, 0, 2, 1, bf16, y, ldy, add);
    for (; n_tile > 0; n_tile--, tile++, y += 16) {
        int t = 0;
        for (; t + 4 <= in->T; t += 4)
            float_block(in, w, tile, t, 1, 4, bf16, y, ldy, add);
        for (; t < in->T; t++)
            float_block(in, w, tile, t, 1, 1, bf16, y, ldy, add);
    }
}

void avx2_matmul(const struct cpu_input *in, const struct weight *w, int tile, int n_tile,
                 float *y, size_t ldy, bool add, void *scratch) {
    if (w->type == WEIGHT_F32) {
        float_tiles(in, w, tile, n_tile, false, y, ldy, add);
        return;
    }
    if (w->type == WEIGHT_BF16) {
        float_tiles(in, w, tile, n_tile, true, y, ldy, add);
        return;
    }
    struct q4_decoder d = {0};
    if (w->type == WEIGHT_Q4)
        d = q4_decoder(w);
    for (int i = 0; i < n_tile; i++)
        for (int h = 0; h < 2; h++)
            half_tile(in, w, &d, tile + i, h, y + i * 16 + h * 8, ldy, add, scratch);
}
#endif
