/*
 * avx512_int8.h - Q4 and I8 weights times int8 activations; included by avx512_vnni.c and
 * avx512.c, which define DOT_VNNI as 1 or 0, MATMUL as the function's name, and the target of
 * the code.
 *
 *     y[t, n] (+)= sum over groups g of scale_w[n, g] * scale_x[t, g] * sum over 64 k of w8[n,
 * k] * q[t, k]
 *
 * The inner sum is exact in int32; groups are added in ascending order with one fused
 * multiply-add each, in every variant below, so the bits don't depend on the number of tokens.
 *
 * A 64-byte vector holds 4 inputs of 16 rows, the 4 activations of a token are broadcast. With
 * VNNI the weights are unsigned (code + 128) and the sum starts at the input's bias; without,
 * vpmaddubsw multiplies |w| by the activation with w's sign, whose pair sums stay within 2 *
 * 127 * 127 < 2^15.
 *
 * Few tokens: nibbles go through the table (vpshufb) in registers, once for up to 8 tokens;
 * bound by reading weights for one token. Many tokens: two row tiles are expanded to bytes in
 * scratch (L1 or L2), then blocks of 6 tokens x 2 tiles run over it: 12 integer and 12 float
 * accumulators, bound by the dot products.
 */
#include "engine/cpu/avx512.h"
#include "engine/cpu/simd.h"
#include <string.h>

enum { FEW = 8, BLOCK = 6, PANEL_FROM = 12 /* tokens */ };

/* Rows of a table of the weight bytes, as the dot product wants them. */
struct q4_decoder {
    __m512i table, low;
    __m512 slope, base;
};

static inline __m512i weight_byte(__m512i s8) {
    return DOT_VNNI ? _mm512_xor_si512(s8, _mm512_set1_epi8(-128)) : s8;
}

static struct q4_decoder q4_decoder(const struct weight *w) {
    _Alignas(16) int8_t bytes[16];
    static const float slopes[8] = {MAP_SLOPES}, bases[8] = {MAP_BASES};
    struct q4_decoder d;
    q4_bytes(w, bytes);
    d.table = weight_byte(_mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)bytes)));
    d.low = _mm512_set1_epi8(15);
    /* entry lzcnt(a) & 15: 15 .. 9 for i = 0 .. 6, 8 for a = 128, 0 for a = 0 */
    float s[16] = {0}, b[16] = {0};
    for (int i = 0; i < 8; i++) {
        s[15 - i] = slopes[i];
        b[15 - i] = bases[i];
    }
    d.slope = _mm512_loadu_ps(s);
    d.base = _mm512_loadu_ps(b);
    return d;
}

static inline void q4_expand(const struct q4_decoder *d, const void *p, __m512i *lo,
                             __m512i *hi) {
    __m512i two = _mm512_loadu_si512(p);
    *lo = _mm512_shuffle_epi8(d->table, _mm512_and_si512(two, d->low));
    *hi = _mm512_shuffle_epi8(d->table, _mm512_and_si512(_mm512_srli_epi16(two, 4), d->low));
}

/* 16 scales, divided by the steps of the table. */
static inline __m512 q4_scales(const struct q4_decoder *d, const uint8_t *code, __m512 absmax2,
                               __m512 offset) {
    __m512i c = _mm512_sub_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)code)),
                                 _mm512_set1_epi32(127));
    __m512i a = _mm512_abs_epi32(c), i = _mm512_lzcnt_epi32(a);
    __m512 v = _mm512_fmadd_ps(_mm512_permutexvar_ps(i, d->slope), _mm512_cvtepi32_ps(a),
                               _mm512_permutexvar_ps(i, d->base));
    __m512i sign = _mm512_and_si512(c, _mm512_set1_epi32(INT32_MIN));
    v = _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(v), sign));
    v = _mm512_fmadd_ps(v, absmax2, offset);
    return _mm512_mul_ps(v, _mm512_set1_ps(1.0f / Q4_STEPS));
}

static inline __m512i bcast4(const int8_t *q) {
    int32_t four;
    memcpy(&four, q, 4);
    return _mm512_set1_epi32(four);
}

/* acc + the four products of each row; w as weight_byte() gave it */
static inline __m512i dot4(__m512i acc, __m512i w, __m512i q) {
#if DOT_VNNI
    return _mm512_dpbusd_epi32(acc, w, q);
#else
    q = _mm512_mask_sub_epi8(q, _mm512_movepi8_mask(w), _mm512_setzero_si512(), q);
    __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(w), q);
    return _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#endif
}

static inline __m512i start(int32_t bias) {
    return DOT_VNNI ? _mm512_set1_epi32(bias) : _mm512_setzero_si512();
}

static inline __m512 add_group(__m512 sum, __m512i dots, __m512 ws, float xs) {
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), _mm512_mul_ps(ws, _mm512_set1_ps(xs)),
                           sum);
}

static inline void put_rows(float *y, __m512 v, __mmask16 rows, bool add) {
    if (add)
        v = _mm512_add_ps(_mm512_maskz_loadu_ps(rows, y), v);
    _mm512_mask_storeu_ps(y, rows, v);
}

static __mmask16 tile_rows(const struct weight *w, int tile) {
    int n = w->N - tile * 16;
    return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1);
}

/* One row tile, NT tokens from t on, Q4. */
static inline __attribute__((always_inline)) void
q4_few(const struct cpu_input *in, const struct weight *w, const struct q4_decoder *d, int tile,
       int t, const int NT, float *y, size_t ldy, bool add) {
    size_t Kp = (size_t)w->Kp, G = Kp / 64;
    const uint8_t *p = (const uint8_t *)w->data + (size_t)tile * Kp * 8;
    const uint8_t *code = w->code + (size_t)tile * G * 16;
    const int8_t *q = in->q + (size_t)t * Kp;
    const float *xs = in->scale + (size_t)t * G;
    const int32_t *bias = in->bias + (size_t)t * G;
    __m512 sum[FEW], absmax2 = _mm512_setzero_ps(), offset = _mm512_set1_ps(w->offset);
    float a2[16];
    int end = 0;
#pragma GCC unroll 8
    for (int i = 0; i < NT; i++)
        sum[i] = _mm512_setzero_ps();
    for (int g = 0; g < (int)G; g++, p += 512, q += 64) {
        if (g == end) {
            q4_absmax2(w, tile, g, a2, &end);
            absmax2 = _mm512_loadu_ps(a2);
        }
        __m512 ws = q4_scales(d, code + g * 16, absmax2, offset);
        __m512i acc[FEW], acc2 = _mm512_setzero_si512();
#pragma GCC unroll 8
        for (int i = 0; i < NT; i++)
            acc[i] = start(bias[(size_t)i * G + (size_t)g]);
#pragma GCC unroll 8
        for (int b = 0; b < 8; b++) {
            __m512i lo, hi;
            q4_expand(d, p + b * 64, &lo, &hi);
            if (NT == 1) { /* two chains */
                acc[0] = dot4(acc[0], lo, bcast4(q + b * 8));
                acc2 = dot4(acc2, hi, bcast4(q + b * 8 + 4));
                continue;
            }
#pragma GCC unroll 8
            for (int i = 0; i < NT; i++) {
                const int8_t *qi = q + (size_t)i * Kp + b * 8;
                acc[i] = dot4(dot4(acc[i], lo, bcast4(qi)), hi, bcast4(qi + 4));
            }
        }
        if (NT == 1)
            acc[0] = _mm512_add_epi32(acc[0], acc2);
#pragma GCC unroll 8
        for (int i = 0; i < NT; i++)
            sum[i] = add_group(sum[i], acc[i], ws, xs[(size_t)i * G + (size_t)g]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < NT; i++)
        put_rows(y + (size_t)(t + i) * ldy, sum[i], tile_rows(w, tile), add);
}

/* The same, I8. */
static inline __attribute__((always_inline)) void
i8_few(const struct cpu_input *in, const struct weight *w, const struct q4_decoder *d, int tile,
       int t, const int NT, float *y, size_t ldy, bool add) {
    size_t Kp = (size_t)w->Kp, G = Kp / 64;
    const int8_t *p = (const int8_t *)w->data + (size_t)tile * Kp * 16;
    const float *scale = w->scale + (size_t)tile * G * 16;
    const int8_t *q = in->q + (size_t)t * Kp;
    const float *xs = in->scale + (size_t)t * G;
    const int32_t *bias = in->bias + (size_t)t * G;
    __m512 sum[FEW];
    (void)d;
#pragma GCC unroll 8
    for (int i = 0; i < NT; i++)
        sum[i] = _mm512_setzero_ps();
    for (int g = 0; g < (int)G; g++, p += 1024, q += 64) {
        __m512i acc[FEW];
#pragma GCC unroll 8
        for (int i = 0; i < NT; i++)
            acc[i] = start(bias[(size_t)i * G + (size_t)g]);
#pragma GCC unroll 16
        for (int b = 0; b < 16; b++) {
            __m512i v = weight_byte(_mm512_loadu_si512(p + b * 64));
#pragma GCC unroll 8
            for (int i = 0; i < NT; i++)
                acc[i] = dot4(acc[i], v, bcast4(q + (size_t)i * Kp + b * 4));
        }
        __m512 ws = _mm512_loadu_ps(scale + g * 16);
#pragma GCC unroll 8
        for (int i = 0; i < NT; i++)
            sum[i] = add_group(sum[i], acc[i], ws, xs[(size_t)i * G + (size_t)g]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < NT; i++)
        put_rows(y + (size_t)(t + i) * ldy, sum[i], tile_rows(w, tile), add);
}

#define FEW_CASES(fn)                                                                          \
    switch (n) {                                                                               \
    case 1:                                                                                    \
        fn(in, w, d, tile, t, 1, y, ldy, add);                                                 \
        break;                                                                                 \
    case 2:                                                                                    \
        fn(in, w, d, tile, t, 2, y, ldy, add);                                                 \
        break;                                                                                 \
    case 3:                                                                                    \
        fn(in, w, d, tile, t, 3, y, ldy, add);                                                 \
        break;                                                                                 \
    case 4:                                                                                    \
        fn(in, w, d, tile, t, 4, y, ldy, add);                                                 \
        break;                                                                                 \
    case 5:                                                                                    \
        fn(in, w, d, tile, t, 5, y, ldy, add);                                                 \
        break;                                                                                 \
    case 6:                                                                                    \
        fn(in, w, d, tile, t, 6, y, ldy, add);                                                 \
        break;                                                                                 \
    case 7:                                                                                    \
        fn(in, w, d, tile, t, 7, y, ldy, add);                                                 \
        break;                                                                                 \
    default:                                                                                   \
        fn(in, w, d, tile, t, 8, y, ldy, add);                                                 \
    }

static void few_tokens(const struct cpu_input *in, const struct weight *w,
                       const struct q4_decoder *d, int tile, float *y, size_t ldy, bool add) {
    for (int t = 0; t < in->T; t += FEW) {
        int n = in->T - t < FEW ? in->T - t : FEW;
        if (w->type == WEIGHT_Q4)
            FEW_CASES(q4_few)
        else
            FEW_CASES(i8_few)
    }
}

/* A tile into the panel: bytes [Kp/4, NP, 16, 4], scales [G, NP, 16]; `which` of the NP tiles
 * it is. */
static void expand_tile(const struct weight *w, const struct q4_decoder *d, int tile, int NP,
                        int which, uint8_t *bytes, float *scales) {
    size_t Kp = (size_t)w->Kp, G = Kp / 64, step = (size_t)NP * 64;
    uint8_t *to = bytes + which * 64;
    if (w->type == WEIGHT_I8) {
        const uint8_t *p = (const uint8_t *)w->data + (size_t)tile * Kp * 16;
        for (size_t i = 0; i < Kp / 4; i++)
            _mm512_store_si512(to + i * step, weight_byte(_mm512_loadu_si512(p + i * 64)));
        for (size_t g = 0; g < G; g++)
            memcpy(scales + (g * (size_t)NP + (size_t)which) * 16,
                   w->scale + ((size_t)tile * G + g) * 16, 64);
        return;
    }
    const uint8_t *p = (const uint8_t *)w->data + (size_t)tile * Kp * 8;
    for (size_t i = 0; i < Kp / 8; i++) {
        __m512i lo, hi;
        q4_expand(d, p + i * 64, &lo, &hi);
        _mm512_store_si512(to + 2 * i * step, lo);
        _mm512_store_si512(to + (2 * i + 1) * step, hi);
    }
    int end = 0;
    float a2[16];
    for (int g = 0; g < (int)G; g++) {
        if (g == end)
            q4_absmax2(w, tile, g, a2, &end);
        __m512 s = q4_scales(d, w->code + ((size_t)tile * G + (size_t)g) * 16,
                             _mm512_loadu_ps(a2), _mm512_set1_ps(w->offset));
        _mm512_store_ps(scales + (g * NP + which) * 16, s);
    }
}

/* NP tiles of the panel times NT tokens from t on. */
static inline __attribute__((always_inline)) void
panel_block(const struct cpu_input *in, const uint8_t *bytes, const float *scales, size_t Kp,
            int t, const int NP, const int NT, const __mmask16 *rows, float *y, size_t ldy,
            bool add) {
    size_t G = Kp / 64;
    const int8_t *q = in->q + (size_t)t * Kp;
    const float *xs = in->scale + (size_t)t * G;
    const int32_t *bias = in->bias + (size_t)t * G;
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
                acc[i][j] = start(bias[(size_t)i * G + g]);
#pragma GCC unroll 4
        for (int k = 0; k < 16; k++) {
            __m512i v[CPU_PANEL_TILES];
#pragma GCC unroll 2
            for (int j = 0; j < NP; j++)
                v[j] = _mm512_load_si512(bytes + j * 64);
            bytes += NP * 64;
#pragma GCC unroll 8
            for (int i = 0; i < NT; i++) {
                __m512i x = bcast4(q + (size_t)i * Kp + k * 4);
#pragma GCC unroll 2
                for (int j = 0; j < NP; j++)
                    acc[i][j] = dot4(acc[i][j], v[j], x);
            }
        }
        q += 64;
#pragma GCC unroll 2
        for (int j = 0; j < NP; j++) {
            __m512 ws = _mm512_load_ps(scales + (g * (size_t)NP + (size_t)j) * 16);
#pragma GCC unroll 8
            for (int i = 0; i < NT; i++)
                sum[i][j] = add_group(sum[i][j], acc[i][j], ws, xs[(size_t)i * G + g]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < NT; i++)
#pragma GCC unroll 2
        for (int j = 0; j < NP; j++)
            put_rows(y + (size_t)(t + i) * ldy + j * 16, sum[i][j], rows[j], add);
}

#define PANEL_CASES(NP)                                                                        \
    switch (n) {                                                                               \
    case 1:                                                                                    \
        panel_block(in, bytes, scales, Kp, t, NP, 1, rows, y, ldy, add);                       \
        break;                                                                                 \
    case 2:                                                                                    \
        panel_block(in, bytes, scales, Kp, t, NP, 2, rows, y, ldy, add);                       \
        break;                                                                                 \
    case 3:                                                                                    \
        panel_block(in, bytes, scales, Kp, t, NP, 3, rows, y, ldy, add);                       \
        break;                                                                                 \
    case 4:                                                                                    \
        panel_block(in, bytes, scales, Kp, t, NP, 4, rows, y, ldy, add);                       \
        break;                                                                                 \
    case 5:                                                                                    \
        panel_block(in, bytes, scales, Kp, t, NP, 5, rows, y, ldy, add);                       \
        break;                                                                                 \
    default:                                                                                   \
        panel_block(in, bytes, scales, Kp, t, NP, 6, rows, y, ldy, add);                       \
    }

static void many_tokens(const struct cpu_input *in, const struct weight *w,
                        const struct q4_decoder *d, int tile, int NP, float *y, size_t ldy,
                        bool add, uint8_t *bytes) {
    size_t Kp = (size_t)w->Kp;
    float *scales = (float *)(bytes + (size_t)NP * Kp * 16);
    __mmask16 rows[CPU_PANEL_TILES];
    for (int j = 0; j < NP; j++) {
        expand_tile(w, d, tile + j, NP, j, bytes, scales);
        rows[j] = tile_rows(w, tile + j);
    }
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
    if (w->type == WEIGHT_F32 || w->type == WEIGHT_BF16) {
        avx512_matmul_float(in, w, tile, n_tile, y, ldy, add);
        return;
    }
    struct q4_decoder d = {0};
    if (w->type == WEIGHT_Q4)
        d = q4_decoder(w);
    int step = in->T < PANEL_FROM ? 1 : CPU_PANEL_TILES;
    for (int i = 0; i < n_tile; i += step) {
        int NP = n_tile - i < step ? n_tile - i : step;
        if (in->T < PANEL_FROM)
            few_tokens(in, w, &d, tile + i, y + i * 16, ldy, add);
        else
            many_tokens(in, w, &d, tile + i, NP, y + i * 16, ldy, add, scratch);
    }
}
