/*
 * avx2_int16.h - Q4 and I8 weights times int16 activations, AVX2. Included with DOT_VNNI 0 or 1
 * and MATMUL, the name of the function it defines. The formula and the promise about bits are
 * those of avx512_int16.h, and so are the two kinds: `any` false is one scale each 64 inputs
 * and no minimum.
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
    __m256i low, high, nibble; /* bytes of the 16 int16 words; 15 */
    float step;                /* of the words; 1 for I8 */
    __m256 slope, base;        /* of the code's map */
};

static struct q4_decoder q4_decoder(const struct weight *w) {
    static const float slopes[8] = {MAP_SLOPES}, bases[8] = {MAP_BASES};
    int16_t words[16];
    uint8_t low[16], high[16];
    struct q4_decoder d = {.step = 1};
    if (w->type == WEIGHT_I8)
        return d;
    q4_words(w, words, &d.step);
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

/* 8 scales from codes, times the step of the table. The level is the exponent of a as a float.
 */
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
    return _mm256_mul_ps(v, _mm256_set1_ps(d->step));
}

/* The scales of a tile, [G, 16], times the step of the table: w's own where that is 1, else
 * written to room. */
static const float *tile_scales(const struct weight *w, const struct q4_decoder *d, int tile,
                                float *room) {
    size_t G = (size_t)(w->Kp / w->group), at = (size_t)tile * G * 16;
    const __m256 offset = _mm256_set1_ps(w->offset), step = _mm256_set1_ps(d->step);
    const uint8_t *code = w->code + (w->code ? at : 0);
    float *out = room;
    int end = 0;
    float a2[16];
    if (!w->code && d->step == 1)
        return w->scale + at;
    for (size_t i = 0; !w->code && i < G * 16; i += 8)
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_loadu_ps(w->scale + at + i), step));
    for (int g = 0; w->code && g < (int)G; g++, code += 16, out += 16) {
        if (g == end)
            q4_absmax2(w, tile, g, a2, &end);
        _mm256_storeu_ps(out, q4_scales(d, code, _mm256_loadu_ps(a2), offset));
        _mm256_storeu_ps(out + 8, q4_scales(d, code + 8, _mm256_loadu_ps(a2 + 8), offset));
    }
    return room;
}

/* A tile (or its second half) as the blocks below want it. */
struct tile {
    const char *p;       /* data */
    const float *scales; /* [G, 16] with the table's step */
    const float *min;    /* [G, 16] or NULL */
    int n_row;           /* rows that exist from here on */
    size_t Kp;
    struct groups gr;
};

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

/* The same for the minimum; sum_x: of the group's activations. */
static inline __m256 add_min(__m256 sum, const float *min, float sum_x) {
    return _mm256_fmadd_ps(_mm256_loadu_ps(min), _mm256_set1_ps(sum_x), sum);
}

/* One token, 16 rows: group by group, eight chains of sums. */
static inline __attribute__((always_inline)) void
one_token(const struct cpu_input *in, const struct tile *w, const struct q4_decoder *d,
          const bool q4, const bool any, float *y, bool add) {
    const int S = any ? w->gr.S : 64, shift = any ? w->gr.shift : 0, U = any ? 16 : 64;
    size_t G = any ? w->gr.G : w->Kp / 64;
    const struct row16 row = cpu_row16(in->rows, (int)w->Kp);
    const int16_t *q = row.q;
    const char *p = w->p;
    const float *scales = w->scales, *min = any ? w->min : NULL;
    __m256 sum0 = _mm256_setzero_ps(), sum1 = sum0;
    for (size_t g = 0; g < G; g++, scales += 16) {
        __m256i a0 = _mm256_setzero_si256(), b0 = a0, c0 = a0, e0 = a0;
        __m256i a1 = a0, b1 = a0, c1 = a0, e1 = a0;
        for (int b = 0; b < S; b += U)
#pragma GCC unroll 8
            for (int k = 0; k < U; k += 8, q += 8, p += step8(q4)) {
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
        float xs = row.scale[g >> shift];
        sum0 = add_group(sum0, a0, _mm256_loadu_ps(scales), xs);
        sum1 = add_group(sum1, a1, _mm256_loadu_ps(scales + 8), xs);
        if (any && min) {
            sum0 = add_min(sum0, min + g * 16, row.sum[w->gr.sum + g]);
            sum1 = add_min(sum1, min + g * 16 + 8, row.sum[w->gr.sum + g]);
        }
    }
    put_rows(y, sum0, w->n_row, add);
    put_rows(y + 8, sum1, w->n_row - 8, add);
}

/* 8 rows times NT tokens. */
static inline __attribute__((always_inline)) void
few_block(const struct cpu_input *in, const struct tile *w, const struct q4_decoder *d,
          const int NT, const bool q4, const bool any, float *y, size_t ldy, bool add) {
    const int S = any ? w->gr.S : 64, shift = any ? w->gr.shift : 0;
    size_t G = any ? w->gr.G : w->Kp / 64;
    const struct row16 row = cpu_row16(in->rows, (int)w->Kp);
    const size_t ldq = in->block_bytes / sizeof *row.q, lds = in->block_bytes / sizeof(float);
    const int16_t *q = row.q;
    const char *p = w->p;
    const float *min = any ? w->min : NULL, *xsum = row.sum + w->gr.sum;
    __m256 sum[FEW];
#pragma GCC unroll 4
    for (int i = 0; i < NT; i++)
        sum[i] = _mm256_setzero_ps();
    for (size_t g = 0; g < G; g++) {
        __m256i a[FEW], b[FEW];
#pragma GCC unroll 4
        for (int i = 0; i < NT; i++)
            a[i] = b[i] = _mm256_setzero_si256();
        for (int k = 0; k < S; k += 16)
#pragma GCC unroll 2
            for (int c = 0; c < 2; c++, q += 8, p += step8(q4)) {
                struct eight v = q4 ? q4_expand(d, p) : i8_expand(p);
#pragma GCC unroll 4
                for (int i = 0; i < NT; i++) {
                    const int16_t *qi = q + (size_t)i * ldq;
                    __m256i x0 = bcast4(qi), x1 = bcast4(qi + 4);
                    a[i] = dot2(dot2(a[i], v.a0, x0), v.a1, x1);
                    b[i] = dot2(dot2(b[i], v.b0, x0), v.b1, x1);
                }
            }
        __m256 ws = _mm256_loadu_ps(w->scales + g * 16);
#pragma GCC unroll 4
        for (int i = 0; i < NT; i++)
            sum[i] = add_group(sum[i], _mm256_hadd_epi32(a[i], b[i]), ws,
                               row.scale[(size_t)i * lds + (g >> shift)]);
        if (!any || !min)
            continue;
#pragma GCC unroll 4
        for (int i = 0; i < NT; i++)
            sum[i] = add_min(sum[i], min + g * 16, xsum[(size_t)i * lds + g]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < NT; i++)
        put_rows(y + (size_t)i * ldy, sum[i], w->n_row, add);
}

static inline __attribute__((always_inline)) void
few_tokens(const struct cpu_input *in, const struct tile *tile, const struct q4_decoder *d,
           const bool q4, const bool any, float *y, size_t ldy, bool add) {
    if (in->T == 1) {
        one_token(in, tile, d, q4, any, y, add);
        return;
    }
    struct tile half = *tile;
    for (int h = 0; h < 2; h++, y += 8) {
        if (in->T == 2)
            few_block(in, &half, d, 2, q4, any, y, ldy, add);
        else if (in->T == 3)
            few_block(in, &half, d, 3, q4, any, y, ldy, add);
        else
            few_block(in, &half, d, 4, q4, any, y, ldy, add);
        half.p += 32;
        half.scales += 8;
        half.min += half.min ? 8 : 0;
        half.n_row -= 8;
    }
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
panel_block(const struct cpu_input *in, const struct tile *w, const char *pairs, int t,
            const int NT, float *y, size_t ldy, bool add) {
    const size_t G = w->gr.G;
    const struct row16 row = cpu_row16(in->rows + (size_t)t * in->block_bytes, (int)w->Kp);
    const size_t ldq = in->block_bytes / sizeof *row.q, lds = in->block_bytes / sizeof(float);
    const int16_t *q = row.q;
    const float *xs = row.scale, *min = w->min, *xsum = row.sum + w->gr.sum;
    __m256 sum[BLOCK][2];
#pragma GCC unroll 8
    for (int i = 0; i < NT; i++)
        sum[i][0] = sum[i][1] = _mm256_setzero_ps();
    for (size_t g = 0; g < G; g++) {
        __m256i acc[BLOCK][2];
#pragma GCC unroll 8
        for (int i = 0; i < NT; i++)
            acc[i][0] = acc[i][1] = _mm256_setzero_si256();
        for (int b = 0; b < w->gr.S; b += 8, q += 8)
#pragma GCC unroll 4
            for (int k = 0; k < 8; k += 2, pairs += 64) {
                __m256i w0 = _mm256_load_si256((const __m256i *)pairs);
                __m256i w1 = _mm256_load_si256((const __m256i *)(pairs + 32));
#pragma GCC unroll 8
                for (int i = 0; i < NT; i++) {
                    __m256i x = bcast2(q + (size_t)i * ldq + k);
                    acc[i][0] = dot2(acc[i][0], w0, x);
                    acc[i][1] = dot2(acc[i][1], w1, x);
                }
            }
        __m256 ws0 = _mm256_loadu_ps(w->scales + g * 16),
               ws1 = _mm256_loadu_ps(w->scales + g * 16 + 8);
#pragma GCC unroll 8
        for (int i = 0; i < NT; i++) {
            float s = xs[(size_t)i * lds + (g >> w->gr.shift)];
            sum[i][0] = add_group(sum[i][0], acc[i][0], ws0, s);
            sum[i][1] = add_group(sum[i][1], acc[i][1], ws1, s);
        }
        if (!min)
            continue;
#pragma GCC unroll 8
        for (int i = 0; i < NT; i++) {
            float s = xsum[(size_t)i * lds + g];
            sum[i][0] = add_min(sum[i][0], min + g * 16, s);
            sum[i][1] = add_min(sum[i][1], min + g * 16 + 8, s);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < NT; i++) {
        put_rows(y + (size_t)(t + i) * ldy, sum[i][0], w->n_row, add);
        put_rows(y + (size_t)(t + i) * ldy + 8, sum[i][1], w->n_row - 8, add);
    }
}

#define PANEL_CASE(NT)                                                                         \
    case NT:                                                                                   \
        panel_block(in, w, pairs, t, NT, y, ldy, add);                                         \
        break

static void many_tokens(const struct cpu_input *in, const struct tile *w, const char *pairs,
                        float *y, size_t ldy, bool add) {
    for (int t = 0; t < in->T; t += BLOCK)
        switch (in->T - t) {
            PANEL_CASE(1);
            PANEL_CASE(2);
            PANEL_CASE(3);
            PANEL_CASE(4);
            PANEL_CASE(5);
        default:
            panel_block(in, w, pairs, t, BLOCK, y, ldy, add);
        }
}

/* The tiles of one kind of weight. scratch: int16 [Kp/2, 16, 2], then scales [G, 16] */
static inline __attribute__((always_inline)) void
int_tiles(const struct cpu_input *in, const struct weight *w, int tile, int n_tile,
          const bool q4, const bool any, float *y, size_t ldy, bool add, void *scratch) {
    const struct groups gr = weight_groups(w);
    const struct q4_decoder d = q4_decoder(w);
    size_t Kp = (size_t)w->Kp;
    float *room = (float *)(void *)((char *)scratch + Kp * 32);
    for (; n_tile > 0; n_tile--, tile++, y += 16) {
        const struct tile one = {
            .p = (const char *)w->data + (size_t)tile * Kp * (q4 ? 8 : 16),
            .scales = tile_scales(w, &d, tile, room),
            .min = w->min ? w->min + (size_t)tile * gr.G * 16 : NULL,
            .n_row = w->N - tile * 16,
            .Kp = Kp,
            .gr = gr,
        };
        if (in->T < PANEL_FROM) {
            few_tokens(in, &one, &d, q4, any, y, ldy, add);
            continue;
        }
        expand_tile(one.p, &d, Kp, q4, scratch);
        many_tokens(in, &one, scratch, y, ldy, add);
    }
}

void MATMUL(const struct cpu_input *in, const struct weight *w, int tile, int n_tile, float *y,
            size_t ldy, bool add, void *scratch) {
    bool any = !plain_groups(w);
    if (w->type != WEIGHT_I8 && w->type != WEIGHT_Q4)
        avx2_matmul_float(in, w, tile, n_tile, y, ldy, add);
    else if (w->type == WEIGHT_Q4 && !any)
        int_tiles(in, w, tile, n_tile, true, false, y, ldy, add, scratch);
    else if (w->type == WEIGHT_Q4)
        int_tiles(in, w, tile, n_tile, true, true, y, ldy, add, scratch);
    else if (!any)
        int_tiles(in, w, tile, n_tile, false, false, y, ldy, add, scratch);
    else
        int_tiles(in, w, tile, n_tile, false, true, y, ldy, add, scratch);
}
