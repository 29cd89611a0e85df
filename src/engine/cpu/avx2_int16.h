/*
 * avx2_int16.h - Q4 and I8 weights times int16 activations, AVX2. Included with DOT_VNNI 0 or 1
 * and MATMUL, the name of the function it defines. The formula and the promise about bits are
 * those of avx512_int16.h: y[t, n] = sum over groups g, ascending, of scale_w[n, g] *
 * scale_x[t, g] * (exact int32 sum of 64 products).
 *
 * A 16-row tile is two halves of 8. 4 inputs of a half are 32 bytes, or 32 nibbles whose int16
 * are looked up as low and high bytes; unpacking within 128 bits gives two vectors, a with rows
 * 0 1 4 5 and b with rows 2 3 6 7, each 4 inputs x 4 rows.
 *
 * Few tokens (up to 4): a and b meet 4 activations broadcast as 64 bits; a row's two int32 are
 * joined and the rows put in order by one vphaddd a group. One token takes both halves at once,
 * in eight chains, so that a cache line is read in one go. Bound by the lookups, 19 vector
 * instructions for 64 weights (15 with VNNI), and behind them by reading weights.
 *
 * Many tokens: a tile is expanded once to int16 pairs, [Kp/2, 16, 2] (two more shuffles), and
 * blocks of 6 tokens x 16 rows run over it: 12 accumulators, 2 weights, 1 pair of activations,
 * 1 product fill the 16 registers, 8 loads for 12 vpmaddwd. The f32 sums are in memory between
 * groups. Bound by vpmaddwd and vpaddd: on Zen 5 97e9 products a second with one thread, 112e9
 * with VNNI; 16 for each f32 multiply-add that the core does would be 118e9.
 *
 * Rejected: activations as two int8 digits. vpmaddubsw takes 32 products but each is needed
 * twice, and its int16 sums must be widened: more instructions than vpmaddwd for the same.
 */
#include "engine/cpu/avx2_inline.h"
#include <string.h>

enum {
    FEW = 4,
    BLOCK = 6,
    PANEL_FROM = 5, /* tokens */
    AHEAD = 3072,   /* bytes, as with AVX-512 */
};

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

/* 8 inputs of 8 rows: a and b of the first 4, a and b of the next 4. (Vectors by value: GCC 12
 * keeps an array that a loop fills in memory, and its loads then wait for its stores.) */
struct eight {
    __m256i a0, b0, a1, b1;
};

static inline struct eight q4_expand(const struct q4_decoder *d, const char *p) {
    struct eight v;
    __m256i two = _mm256_loadu_si256((const __m256i *)p);
    __m256i n0 = _mm256_and_si256(two, d->nibble),
            n1 = _mm256_and_si256(_mm256_srli_epi16(two, 4), d->nibble);
    __m256i l0 = _mm256_shuffle_epi8(d->low, n0), h0 = _mm256_shuffle_epi8(d->high, n0);
    __m256i l1 = _mm256_shuffle_epi8(d->low, n1), h1 = _mm256_shuffle_epi8(d->high, n1);
    v.a0 = _mm256_unpacklo_epi8(l0, h0);
    v.b0 = _mm256_unpackhi_epi8(l0, h0);
    v.a1 = _mm256_unpacklo_epi8(l1, h1);
    v.b1 = _mm256_unpackhi_epi8(l1, h1);
    return v;
}

static inline struct eight i8_expand(const char *p) {
    struct eight v;
    __m256i x = _mm256_loadu_si256((const __m256i *)p),
            z = _mm256_loadu_si256((const __m256i *)(p + 64));
    v.a0 = _mm256_srai_epi16(_mm256_unpacklo_epi8(x, x), 8);
    v.b0 = _mm256_srai_epi16(_mm256_unpackhi_epi8(x, x), 8);
    v.a1 = _mm256_srai_epi16(_mm256_unpacklo_epi8(z, z), 8);
    v.b1 = _mm256_srai_epi16(_mm256_unpackhi_epi8(z, z), 8);
    return v;
}

/* Bytes from 8 inputs of a tile to the next 8. */
static inline size_t step8(bool q4) {
    return q4 ? 64 : 128;
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

/* The scales of a tile, [G, 16]. */
static void tile_scales(const struct weight *w, const struct q4_decoder *d, int tile,
                        float *out) {
    size_t G = (size_t)w->Kp / 64;
    const __m256 offset = _mm256_set1_ps(w->offset);
    const uint8_t *code = w->code + (size_t)tile * G * 16;
    int end = 0;
    float a2[16];
    for (int g = 0; g < (int)G; g++, code += 16, out += 16) {
        if (g == end)
            q4_absmax2(w, tile, g, a2, &end);
        _mm256_storeu_ps(out, q4_scales(d, code, _mm256_loadu_ps(a2), offset));
        _mm256_storeu_ps(out + 8, q4_scales(d, code + 8, _mm256_loadu_ps(a2 + 8), offset));
    }
}

static inline __m256i bcast2(const int16_t *q) {
    int32_t two;
    memcpy(&two, q, sizeof two);
    return _mm256_set1_epi32(two);
}

static inline __m256i bcast4(const int16_t *q) {
    int64_t four;
    memcpy(&four, q, sizeof four);
    return _mm256_set1_epi64x(four);
}

/* acc + the products of w and q, two to an int32. In assembler because it must change acc in
 * place: from the intrinsics GCC 12 keeps a copy of each sum that is live behind the loop and
 * runs out of registers, -45 % for many tokens. */
static inline __m256i dot2(__m256i acc, __m256i w, __m256i q) {
#if DOT_VNNI
    __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(acc) : "x"(w), "x"(q));
#else
    __m256i dots;
    __asm__("vpmaddwd %2, %3, %1\n\tvpaddd %1, %0, %0"
            : "+x"(acc), "=&x"(dots)
            : "x"(w), "x"(q));
#endif
    return acc;
}

static inline __m256 add_group(__m256 sum, __m256i dots, __m256 ws, float xs) {
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), _mm256_mul_ps(ws, _mm256_set1_ps(xs)),
                           sum);
}

/* One token, 16 rows: group by group, eight chains of sums. */
static inline __attribute__((always_inline)) void
one_token(const struct cpu_input *in, const char *p, const struct q4_decoder *d,
          const float *scales, size_t G, const bool q4, int n_row, float *y, bool add) {
    const int16_t *q = in->q;
    __m256 sum0 = _mm256_setzero_ps(), sum1 = sum0;
    for (size_t g = 0; g < G; g++, scales += 16) {
        __m256i a0 = _mm256_setzero_si256(), b0 = a0, c0 = a0, e0 = a0;
        __m256i a1 = a0, b1 = a0, c1 = a0, e1 = a0;
#pragma GCC unroll 8
        for (int k = 0; k < 64; k += 8, q += 8, p += step8(q4)) {
            __m256i x0 = bcast4(q), x1 = bcast4(q + 4);
            _mm_prefetch(p + AHEAD, _MM_HINT_T0);
            if (!q4)
                _mm_prefetch(p + AHEAD + 64, _MM_HINT_T0);
            struct eight v = q4 ? q4_expand(d, p) : i8_expand(p);
            a0 = dot2(a0, v.a0, x0);
            b0 = dot2(b0, v.b0, x0);
            c0 = dot2(c0, v.a1, x1);
            e0 = dot2(e0, v.b1, x1);
            v = q4 ? q4_expand(d, p + 32) : i8_expand(p + 32);
            a1 = dot2(a1, v.a0, x0);
            b1 = dot2(b1, v.b0, x0);
            c1 = dot2(c1, v.a1, x1);
            e1 = dot2(e1, v.b1, x1);
        }
        a0 = _mm256_hadd_epi32(_mm256_add_epi32(a0, c0), _mm256_add_epi32(b0, e0));
        a1 = _mm256_hadd_epi32(_mm256_add_epi32(a1, c1), _mm256_add_epi32(b1, e1));
        sum0 = add_group(sum0, a0, _mm256_loadu_ps(scales), in->scale[g]);
        sum1 = add_group(sum1, a1, _mm256_loadu_ps(scales + 8), in->scale[g]);
    }
    put_rows(y, sum0, n_row, add);
    put_rows(y + 8, sum1, n_row - 8, add);
}

/* 8 rows, of which n_row exist, times NT tokens; p: their weights, scales [G, 16]. */
static inline __attribute__((always_inline)) void
few_block(const struct cpu_input *in, const char *p, const struct q4_decoder *d,
          const float *scales, size_t G, const int NT, const bool q4, int n_row, float *y,
          size_t ldy, bool add) {
    const int16_t *q = in->q;
    __m256 sum[FEW];
#pragma GCC unroll 4
    for (int i = 0; i < NT; i++)
        sum[i] = _mm256_setzero_ps();
    for (size_t g = 0; g < G; g++) {
        __m256i a[FEW], b[FEW];
#pragma GCC unroll 4
        for (int i = 0; i < NT; i++)
            a[i] = b[i] = _mm256_setzero_si256();
#pragma GCC unroll 2
        for (int k = 0; k < 64; k += 8, q += 8, p += step8(q4)) {
            struct eight v = q4 ? q4_expand(d, p) : i8_expand(p);
#pragma GCC unroll 4
            for (int i = 0; i < NT; i++) {
                const int16_t *qi = q + (size_t)i * G * 64;
                __m256i x0 = bcast4(qi), x1 = bcast4(qi + 4);
                a[i] = dot2(dot2(a[i], v.a0, x0), v.a1, x1);
                b[i] = dot2(dot2(b[i], v.b0, x0), v.b1, x1);
            }
        }
        __m256 ws = _mm256_loadu_ps(scales + g * 16);
#pragma GCC unroll 4
        for (int i = 0; i < NT; i++)
            sum[i] = add_group(sum[i], _mm256_hadd_epi32(a[i], b[i]), ws,
                               in->scale[(size_t)i * G + g]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < NT; i++)
        put_rows(y + (size_t)i * ldy, sum[i], n_row, add);
}

static inline __attribute__((always_inline)) void
few_tokens(const struct cpu_input *in, const char *p, const struct q4_decoder *d,
           const float *scales, size_t G, const bool q4, int n_row, float *y, size_t ldy,
           bool add) {
    if (in->T == 1) {
        one_token(in, p, d, scales, G, q4, n_row, y, add);
        return;
    }
    for (int h = 0; h < 2; h++, p += 32, scales += 8, n_row -= 8, y += 8)
        if (in->T == 2)
            few_block(in, p, d, scales, G, 2, q4, n_row, y, ldy, add);
        else if (in->T == 3)
            few_block(in, p, d, scales, G, 3, q4, n_row, y, ldy, add);
        else
            few_block(in, p, d, scales, G, 4, q4, n_row, y, ldy, add);
}

/* From 4 inputs x 4 rows twice to pairs of 8 rows in order, 64 bytes apart. */
static inline void put_pairs(char *to, __m256i a, __m256i b) {
    __m256 x = _mm256_castsi256_ps(a), z = _mm256_castsi256_ps(b);
    _mm256_store_ps((float *)(void *)to, _mm256_shuffle_ps(x, z, 0x88));
    _mm256_store_ps((float *)(void *)(to + 64), _mm256_shuffle_ps(x, z, 0xdd));
}

/* A tile as int16 [Kp/2, 16, 2]. */
static void expand_tile(const char *p, const struct q4_decoder *d, size_t Kp, bool q4,
                        char *to) {
    for (size_t k = 0; k < Kp; k += 8, p += step8(q4), to += 256)
        for (int h = 0; h < 2; h++) {
            struct eight v = q4 ? q4_expand(d, p + h * 32) : i8_expand(p + h * 32);
            put_pairs(to + h * 32, v.a0, v.b0);
            put_pairs(to + h * 32 + 128, v.a1, v.b1);
        }
}

/* A tile's pairs times NT tokens from t on. */
static inline __attribute__((always_inline)) void
panel_block(const struct cpu_input *in, const char *pairs, const float *scales, size_t G, int t,
            const int NT, int n_row, float *y, size_t ldy, bool add) {
    size_t Kp = G * 64;
    const int16_t *q = in->q + (size_t)t * Kp;
    const float *xs = in->scale + (size_t)t * G;
    __m256 sum[BLOCK][2];
#pragma GCC unroll 8
    for (int i = 0; i < NT; i++)
        sum[i][0] = sum[i][1] = _mm256_setzero_ps();
    for (size_t g = 0; g < G; g++) {
        __m256i acc[BLOCK][2];
#pragma GCC unroll 8
        for (int i = 0; i < NT; i++)
            acc[i][0] = acc[i][1] = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (int k = 0; k < 64; k += 2, pairs += 64) {
            __m256i w0 = _mm256_load_si256((const __m256i *)pairs);
            __m256i w1 = _mm256_load_si256((const __m256i *)(pairs + 32));
#pragma GCC unroll 8
            for (int i = 0; i < NT; i++) {
                __m256i x = bcast2(q + (size_t)i * Kp + k);
                acc[i][0] = dot2(acc[i][0], w0, x);
                acc[i][1] = dot2(acc[i][1], w1, x);
            }
        }
        q += 64;
        __m256 ws0 = _mm256_loadu_ps(scales + g * 16),
               ws1 = _mm256_loadu_ps(scales + g * 16 + 8);
#pragma GCC unroll 8
        for (int i = 0; i < NT; i++) {
            float s = xs[(size_t)i * G + g];
            sum[i][0] = add_group(sum[i][0], acc[i][0], ws0, s);
            sum[i][1] = add_group(sum[i][1], acc[i][1], ws1, s);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < NT; i++) {
        put_rows(y + (size_t)(t + i) * ldy, sum[i][0], n_row, add);
        put_rows(y + (size_t)(t + i) * ldy + 8, sum[i][1], n_row - 8, add);
    }
}

#define PANEL_CASE(NT)                                                                         \
    case NT:                                                                                   \
        panel_block(in, pairs, scales, G, t, NT, n_row, y, ldy, add);                          \
        break

static void many_tokens(const struct cpu_input *in, const char *pairs, const float *scales,
                        size_t G, int n_row, float *y, size_t ldy, bool add) {
    for (int t = 0; t < in->T; t += BLOCK)
        switch (in->T - t) {
            PANEL_CASE(1);
            PANEL_CASE(2);
            PANEL_CASE(3);
            PANEL_CASE(4);
            PANEL_CASE(5);
        default:
            panel_block(in, pairs, scales, G, t, BLOCK, n_row, y, ldy, add);
        }
}

/* scratch: int16 [Kp/2, 16, 2], then scales [G, 16] */
void MATMUL(const struct cpu_input *in, const struct weight *w, int tile, int n_tile, float *y,
            size_t ldy, bool add, void *scratch) {
    if (w->type == WEIGHT_F32 || w->type == WEIGHT_BF16) {
        avx2_matmul_float(in, w, tile, n_tile, y, ldy, add);
        return;
    }
    bool q4 = w->type == WEIGHT_Q4;
    size_t Kp = (size_t)w->Kp, G = Kp / 64;
    struct q4_decoder d = {0};
    if (q4)
        d = q4_decoder(w);
    for (; n_tile > 0; n_tile--, tile++, y += 16) {
        const char *p = (const char *)w->data + (size_t)tile * Kp * (q4 ? 8 : 16);
        float *own = (float *)(void *)((char *)scratch + Kp * 32);
        const float *scales = q4 ? own : w->scale + (size_t)tile * G * 16;
        int n_row = w->N - tile * 16;
        if (q4)
            tile_scales(w, &d, tile, own);
        if (in->T >= PANEL_FROM) {
            if (q4)
                expand_tile(p, &d, Kp, true, scratch);
            else
                expand_tile(p, &d, Kp, false, scratch);
            many_tokens(in, scratch, scales, G, n_row, y, ldy, add);
        } else if (q4) {
            few_tokens(in, p, &d, scales, G, true, n_row, y, ldy, add);
        } else {
            few_tokens(in, p, &d, scales, G, false, n_row, y, ldy, add);
        }
    }
}
