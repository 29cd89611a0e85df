/*
 * avx512_int16.h - Q4 and I8 weights times int16 activations; included by avx512_vnni.c and
 * avx512.c, which define DOT_VNNI as 1 or 0, MATMUL as the function's name, and the target of
 * the code.
 *
 *     y[t, n] (+)= sum over groups g of  scale_w[n, g] * scale_x[t, g] * sum of w16[n, k] q[t,
 * k]
 *                                       + min_w[n, g] * (scale_x[t, g] * sum of q[t, k])
 *
 * The inner sums are exact in int32; groups are added in ascending order with one fused
 * multiply-add for each line, in every variant below, so the bits don't depend on the number of
 * tokens.
 *
 * A vector of weights meets 2 activations of a token, broadcast; quantize() stores activations
 * in the order that weights have: a 64-byte vector of int16 holds 2 inputs of 16 rows, and of 4
 * neighbouring inputs the pairs are (0, 2) and (1, 3); then a nibble or byte gets into its
 * int16 by shifts alone. vpermw reads 5 index bits, so the table is in it twice and no nibble
 * needs a mask.
 *
 * Groups are of 16, 32 or 64 inputs. `any` false is the code for those kinds of groups of 64
 * that plain_groups() tells: 9 % for one token, nothing for many.
 *
 * Few tokens: weights are unpacked in registers, once for up to 8 tokens; bound by reading
 * weights for one token. Many tokens: two row tiles are expanded to int16 in scratch (L2), then
 * blocks of 6 tokens x 2 tiles run over it: 12 integer and 12 float accumulators, bound by the
 * dot products.
 */
#include "engine/cpu/avx512_weights.h"

enum {
    FEW = 8,
    BLOCK = 6,
    PANEL_FROM = 12, /* tokens */
    AHEAD = 3072, /* bytes; the hardware stops at the borders of pages, +15 % for one token */
};

struct q4_decoder {
    __m512i table; /* [32] int16: the 16 values twice */
    __m512 step;   /* of the table; 1 for I8 */
};

static struct q4_decoder q4_decoder(const struct weight *w) {
    int16_t words[32];
    float step = 1;
    struct q4_decoder d = {.step = _mm512_set1_ps(1)};
    if (w->type == WEIGHT_I8)
        return d;
    q4_words(w, words, &step);
    d.step = _mm512_set1_ps(step);
    memcpy(words + 16, words, 16 * sizeof *words);
    d.table = _mm512_loadu_si512(words);
    return d;
}

/* 8 inputs of 16 rows: pairs (0, 2), (1, 3), (4, 6), (5, 7). */
static inline void q4_expand(const struct q4_decoder *d, const void *p, __m512i v[4]) {
    __m512i two = _mm512_loadu_si512(p);
    v[0] = _mm512_permutexvar_epi16(two, d->table);
    v[1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(two, 8), d->table);
    v[2] = _mm512_permutexvar_epi16(_mm512_srli_epi16(two, 4), d->table);
    v[3] = _mm512_permutexvar_epi16(_mm512_srli_epi16(two, 12), d->table);
}

/* 4 inputs of 16 rows: pairs (0, 2), (1, 3). */
static inline void i8_expand(const void *p, __m512i v[2]) {
    __m512i four = _mm512_loadu_si512(p);
    v[0] = _mm512_srai_epi16(_mm512_slli_epi16(four, 8), 8);
    v[1] = _mm512_srai_epi16(four, 8);
}

static inline __m512i bcast2(const int16_t *q) {
    int32_t two;
    memcpy(&two, q, sizeof two);
    return _mm512_set1_epi32(two);
}

/* acc + the two products of each row. In assembler for the reason given in avx2_int16.h: GCC 12
 * copies accumulators else. */
static inline __m512i dot2(__m512i acc, __m512i w, __m512i q) {
#if DOT_VNNI
    __asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(q));
#else
    __m512i dots;
    __asm__("vpmaddwd %2, %3, %1\n\tvpaddd %1, %0, %0"
            : "+v"(acc), "=&v"(dots)
            : "v"(w), "v"(q));
#endif
    return acc;
}

static inline __m512 add_group(__m512 sum, __m512i dots, __m512 ws, float xs) {
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), _mm512_mul_ps(ws, _mm512_set1_ps(xs)),
                           sum);
}

/* 8 inputs of 16 rows from *p on, which moves behind them. */
static inline void next8(const struct q4_decoder *d, const bool q4, const uint8_t **p,
                         __m512i v[4]) {
    _mm_prefetch((const char *)*p + AHEAD, _MM_HINT_T0);
    if (q4) {
        q4_expand(d, *p, v);
        *p += 64;
        return;
    }
    _mm_prefetch((const char *)*p + AHEAD + 64, _MM_HINT_T0);
    i8_expand(*p, v);
    i8_expand(*p + 64, v + 2);
    *p += 128;
}

/* One row tile, NT tokens from t on. For one token the sum of a group runs in four chains. */
static inline __attribute__((always_inline)) void
few_block(const struct cpu_input *in, const struct weight *w, const struct q4_decoder *d,
          int tile, int t, const int NT, const bool q4, const bool any, float *y, size_t ldy,
          bool add) {
    const struct groups gr = weight_groups(w);
    const int S = any ? gr.S : 64, shift = any ? gr.shift : 0;
    size_t Kp = (size_t)w->Kp, G = any ? gr.G : Kp / 64;
    const uint8_t *p = (const uint8_t *)w->data + (size_t)tile * Kp * (q4 ? 8 : 16);
    const struct row16 row = cpu_row16(in->rows + (size_t)t * in->block_bytes, w->Kp);
    const size_t ldq = in->block_bytes / sizeof *row.q, lds = in->block_bytes / sizeof(float);
    const int16_t *q = row.q;
    const float *xs = row.scale;
    const float *min = any && w->min ? w->min + (size_t)tile * G * 16 : NULL;
    const float *xsum = row.sum + gr.sum;
    __m512 sum[FEW], absmax2 = _mm512_setzero_ps(), offset = _mm512_set1_ps(w->offset);
    int end = 0;
#pragma GCC unroll 8
    for (int i = 0; i < NT; i++)
        sum[i] = _mm512_setzero_ps();
    for (int g = 0; g < (int)G; g++) {
        size_t at = ((size_t)tile * G + (size_t)g) * 16;
        __m512 ws;
        if (q4 && !any) {
            if (g == end)
                absmax2 = q4_absmax2_rows(w, tile, g, &end);
            ws = _mm512_mul_ps(q4_scales(w->code + at, absmax2, offset), d->step);
        } else {
            ws = _mm512_mul_ps(_mm512_loadu_ps(w->scale + at), d->step);
        }
        __m512i acc[FEW], more[3];
#pragma GCC unroll 8
        for (int i = 0; i < NT; i++)
            acc[i] = _mm512_setzero_si512();
        more[0] = more[1] = more[2] = _mm512_setzero_si512();
        for (int k = 0; k < S; k += 16)
#pragma GCC unroll 8
            for (int b = 0; b < 2; b++, q += 8) {
                __m512i v[4];
                next8(d, q4, &p, v);
                if (NT == 1) {
                    acc[0] = dot2(acc[0], v[0], bcast2(q));
                    more[0] = dot2(more[0], v[1], bcast2(q + 2));
                    more[1] = dot2(more[1], v[2], bcast2(q + 4));
                    more[2] = dot2(more[2], v[3], bcast2(q + 6));
                    continue;
                }
#pragma GCC unroll 8
                for (int i = 0; i < NT; i++) {
                    const int16_t *qi = q + (size_t)i * ldq;
#pragma GCC unroll 4
                    for (int j = 0; j < 4; j++)
                        acc[i] = dot2(acc[i], v[j], bcast2(qi + 2 * j));
                }
            }
        if (NT == 1)
            acc[0] = _mm512_add_epi32(_mm512_add_epi32(acc[0], more[0]),
                                      _mm512_add_epi32(more[1], more[2]));
#pragma GCC unroll 8
        for (int i = 0; i < NT; i++)
            sum[i] = add_group(sum[i], acc[i], ws, xs[(size_t)i * lds + (size_t)(g >> shift)]);
        if (!any || !min)
            continue;
        ws = _mm512_loadu_ps(min + (size_t)g * 16);
#pragma GCC unroll 8
        for (int i = 0; i < NT; i++)
            sum[i] = add_min(sum[i], ws, xsum[(size_t)i * lds + (size_t)g]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < NT; i++)
        put_rows(y + (size_t)(t + i) * ldy, sum[i], tile_rows(w, tile), add);
}

#define FEW_CASE(NT, q4, any)                                                                  \
    case NT:                                                                                   \
        few_block(in, w, d, tile, t, NT, q4, any, y, ldy, add);                                \
        break
#define FEW_CASES(q4, any)                                                                     \
    switch (n) {                                                                               \
        FEW_CASE(1, q4, any);                                                                  \
        FEW_CASE(2, q4, any);                                                                  \
        FEW_CASE(3, q4, any);                                                                  \
        FEW_CASE(4, q4, any);                                                                  \
        FEW_CASE(5, q4, any);                                                                  \
        FEW_CASE(6, q4, any);                                                                  \
        FEW_CASE(7, q4, any);                                                                  \
        FEW_CASE(8, q4, any);                                                                  \
    }

static void few_tokens(const struct cpu_input *in, const struct weight *w,
                       const struct q4_decoder *d, int tile, float *y, size_t ldy, bool add) {
    bool q4 = w->type == WEIGHT_Q4, any = !plain_groups(w);
    for (int t = 0; t < in->T; t += FEW) {
        int n = in->T - t < FEW ? in->T - t : FEW;
        if (q4 && !any)
            FEW_CASES(true, false)
        else if (q4)
            FEW_CASES(true, true)
        else if (!any)
            FEW_CASES(false, false)
        else
            FEW_CASES(false, true)
    }
}

/* Tile `which` of the NP of a panel: int16 [Kp/2, NP, 16, 2], scales [G, NP, 16]. */
static void expand_tile(const struct weight *w, const struct q4_decoder *d, int tile, int NP,
                        int which, char *words, float *scales) {
    size_t Kp = (size_t)w->Kp, G = (size_t)(w->Kp / w->group), step = (size_t)NP * 64;
    const char *p = (const char *)w->data + (size_t)tile * Kp * (w->type == WEIGHT_Q4 ? 8 : 16);
    char *to = words + which * 64;
    int end = 0;
    __m512 absmax2 = _mm512_setzero_ps();
    for (size_t i = 0; i < Kp / 8; i++, to += 4 * step) {
        __m512i v[4];
        if (w->type == WEIGHT_Q4) {
            q4_expand(d, p + i * 64, v);
        } else {
            i8_expand(p + i * 128, v);
            i8_expand(p + i * 128 + 64, v + 2);
        }
        for (size_t j = 0; j < 4; j++)
            _mm512_store_si512(to + j * step, v[j]);
    }
    for (int g = 0; g < (int)G; g++) {
        size_t at = ((size_t)tile * G + (size_t)g) * 16;
        float *s = scales + (g * NP + which) * 16;
        if (!w->code) {
            _mm512_store_ps(s, _mm512_mul_ps(_mm512_loadu_ps(w->scale + at), d->step));
            continue;
        }
        if (g == end)
            absmax2 = q4_absmax2_rows(w, tile, g, &end);
        __m512 v = q4_scales(w->code + at, absmax2, _mm512_set1_ps(w->offset));
        _mm512_store_ps(s, _mm512_mul_ps(v, d->step));
    }
}

/* NP tiles of the panel, from tile on, times NT tokens from t on. */
static inline __attribute__((always_inline)) void
panel_block(const struct cpu_input *in, const struct weight *w, int tile, const char *words,
            const float *scales, int t, const int NP, const int NT, float *y, size_t ldy,
            bool add) {
    const struct groups gr = weight_groups(w);
    const size_t G = gr.G;
    const struct row16 row = cpu_row16(in->rows + (size_t)t * in->block_bytes, w->Kp);
    const size_t ldq = in->block_bytes / sizeof *row.q, lds = in->block_bytes / sizeof(float);
    const int16_t *q = row.q;
    const float *xs = row.scale;
    const float *min = w->min ? w->min + (size_t)tile * G * 16 : NULL;
    const float *xsum = row.sum + gr.sum;
    __m512 sum[BLOCK][CPU_PANEL_TILES];
#pragma GCC unroll 8
    for (int i = 0; i < NT; i++)
#pragma GCC unroll 2
        for (int j = 0; j < NP; j++)
            sum[i][j] = _mm512_setzero_ps();
    for (size_t g = 0; g < G; g++) {
        __m512i acc[BLOCK][CPU_PANEL_TILES];
#pragma GCC unroll 8
        for (int i = 0; i < NT; i++)
#pragma GCC unroll 2
            for (int j = 0; j < NP; j++)
                acc[i][j] = _mm512_setzero_si512();
        for (int b = 0; b < gr.S; b += 8, q += 8)
#pragma GCC unroll 4
            for (int k = 0; k < 8; k += 2, words += NP * 64) {
                __m512i v[CPU_PANEL_TILES];
#pragma GCC unroll 2
                for (int j = 0; j < NP; j++)
                    v[j] = _mm512_load_si512(words + j * 64);
#pragma GCC unroll 8
                for (int i = 0; i < NT; i++) {
                    __m512i x = bcast2(q + (size_t)i * ldq + k);
#pragma GCC unroll 2
                    for (int j = 0; j < NP; j++)
                        acc[i][j] = dot2(acc[i][j], v[j], x);
                }
            }
#pragma GCC unroll 2
        for (int j = 0; j < NP; j++) {
            __m512 ws = _mm512_load_ps(scales + (g * (size_t)NP + (size_t)j) * 16);
#pragma GCC unroll 8
            for (int i = 0; i < NT; i++)
                sum[i][j] =
                    add_group(sum[i][j], acc[i][j], ws, xs[(size_t)i * lds + (g >> gr.shift)]);
            if (!min)
                continue;
            ws = _mm512_loadu_ps(min + ((size_t)j * G + g) * 16);
#pragma GCC unroll 8
            for (int i = 0; i < NT; i++)
                sum[i][j] = add_min(sum[i][j], ws, xsum[(size_t)i * lds + g]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < NT; i++)
#pragma GCC unroll 2
        for (int j = 0; j < NP; j++)
            put_rows(y + (size_t)(t + i) * ldy + j * 16, sum[i][j], tile_rows(w, tile + j),
                     add);
}

#define PANEL_CASE(NP, NT)                                                                     \
    case NT:                                                                                   \
        panel_block(in, w, tile, words, scales, t, NP, NT, y, ldy, add);                       \
        break
#define PANEL_CASES(NP)                                                                        \
    switch (n) {                                                                               \
        PANEL_CASE(NP, 1);                                                                     \
        PANEL_CASE(NP, 2);                                                                     \
        PANEL_CASE(NP, 3);                                                                     \
        PANEL_CASE(NP, 4);                                                                     \
        PANEL_CASE(NP, 5);                                                                     \
        PANEL_CASE(NP, 6);                                                                     \
    }

static void many_tokens(const struct cpu_input *in, const struct weight *w,
                        const struct q4_decoder *d, int tile, int NP, float *y, size_t ldy,
                        bool add, char *words) {
    float *scales = (float *)(void *)(words + (size_t)NP * (size_t)w->Kp * 32);
    for (int j = 0; j < NP; j++)
        expand_tile(w, d, tile + j, NP, j, words, scales);
    for (int t = 0; t < in->T; t += BLOCK) {
        int n = in->T - t < BLOCK ? in->T - t : BLOCK;
        if (NP == 2)
            PANEL_CASES(2)
        else
            PANEL_CASES(1)
    }
}

static void MATMUL(const struct cpu_input *in, const struct weight *w, int tile, int n_tile,
                   float *y, size_t ldy, bool add, void *scratch) {
    if (w->type != WEIGHT_I8 && w->type != WEIGHT_Q4) {
        avx512_matmul_float(in, w, tile, n_tile, y, ldy, add);
        return;
    }
    struct q4_decoder d = q4_decoder(w);
    int step = in->T < PANEL_FROM ? 1 : CPU_PANEL_TILES;
    for (int i = 0; i < n_tile; i += step) {
        int NP = n_tile - i < step ? n_tile - i : step;
        if (in->T < PANEL_FROM)
            few_tokens(in, w, &d, tile + i, y + i * 16, ldy, add);
        else
            many_tokens(in, w, &d, tile + i, NP, y + i * 16, ldy, add, scratch);
    }
}
