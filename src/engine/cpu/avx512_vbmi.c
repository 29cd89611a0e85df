/*
 * avx512_vbmi.c - Q4 and I8 weights times activations of 8 bits, with AVX-512 VBMI and VNNI
 * (Ice Lake, Zen 4 and later).
 *
 *     y[t, n] (+)= sum over groups g of  scale_w[n, g] * sum over its units u of
 *                                            scale_x[t, u] * sum of w[n, k] q[t, k]
 *                                     +  min_w[n, g] * (sum of x[t, k])
 *
 * An activation has 8 bits in groups of 32, but where the group's largest one is far above the
 * row's average: there activations and weights have 16 bits, as in avx512_int16.h ("wide"
 * groups, about one in fourteen). Errors are steps of the largest value of a group, so the few
 * groups that hold a model's outliers make most of the error of plain 8 bits. What is left of
 * it: CPU_WIDE_FROM in simd.h.
 *
 * Weights are unsigned bytes, w + 128 (vpdpbusd takes unsigned times signed); the sum of 128 q
 * that this is too much is where an accumulator starts. vpermb reads 6 index bits: the table is
 * in it four times and no nibble needs a mask. 16 values of a table become bytes by q4_bytes().
 *
 * Sums of a unit (32 inputs, 16 where the weight's groups are as small) are exact in int32.
 * 8-bit units are added in ascending order to one sum, wide ones to another, and the two at the
 * end; a token's 8-bit digits are 0 in its wide groups. So the bits don't depend on which
 * tokens are computed together, nor on when wide groups are met.
 *
 * Weights are unpacked in registers, once for up to 12 tokens, which are quantised together and
 * interleaved; four row tiles (in L1) meet a block of tokens before the next one comes. One
 * token is bound by reading weights, many by the dot products, 4 x 16 a cycle.
 *
 * Measured on one core of a Zen 4 at rest, in 1e9 products a second: 150 to 160 for many tokens
 * with every twelfth group wide (180 with none; vpdpwssd on int16: 95), 115 to 140 for 4, 65
 * for 1.
 *
 * Rejected: 8 bits alone, groups of 64 (KL 5e-3), 32 (3.3e-3) or 16 (1.7e-3, and as many
 * instructions as wide groups cost); a second digit for wide groups (leaves the table's error);
 * asking for weights ahead (reading in huge pages 19 GB/s instead of 21, in small ones the
 * same); all tokens of a block in 16 bits where one is wide (in 35 % of groups before down);
 * row tiles expanded to bytes in scratch for many tokens (130); rows one behind the other (the
 * compiler keeps twelve pointers on the stack).
 */
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512cd,avx512vnni,avx512vbmi,fma,f16c")

#define DOT_VNNI 1
#include "engine/cpu/avx512_weights.h"

enum {
    BLOCK = 12, /* tokens */
    TILES = 4,  /* row tiles that a block of tokens meets one after the other */
};

/* NT <= BLOCK tokens, quantised; H = Kp / 32 groups. The tokens are innermost but for the 4
 * activations of a broadcast, so that a kernel finds all it needs behind one pointer. */
struct tokens {
    int8_t *q8;        /* [Kp/4, NT, 4] x / scale, 0 in wide groups */
    float *scale;      /* [H, NT] */
    int32_t *zero;     /* [H, NT] where an accumulator starts: -128 times the sum of q8 */
    int32_t *zero_nf4; /* [H, NT] the same for the bytes of NF4 */
    int32_t *zero16;   /* [2 H, NT] zero of groups of 16 */
    uint32_t *wide;    /* [H] bits: tokens whose group is wide */
    int32_t *n_wide;   /* groups that are wide for some token */
    int32_t *places;   /* [n_wide] which */
    float *sum;        /* [cpu_sums(Kp), NT] sums of x; written where they are asked for */
    int16_t *q16;      /* [H, NT, 32] x / scale in wide groups, in the order of
                          avx512_weights.h; else nothing */
};

static inline struct tokens tokens_at(const void *at, int Kp, int NT) {
    struct tokens b;
    size_t n = (size_t)NT, H = (size_t)Kp / 32 * n;
    b.q8 = (int8_t *)(uintptr_t)at;
    b.scale = (float *)(void *)(b.q8 + (size_t)Kp * n);
    b.zero = (int32_t *)(void *)(b.scale + H);
    b.zero_nf4 = b.zero + H;
    b.zero16 = b.zero_nf4 + H;
    b.wide = (uint32_t *)(void *)(b.zero16 + 2 * H);
    b.n_wide = (int32_t *)(void *)(b.wide + (size_t)Kp / 32);
    b.places = b.n_wide + 1;
    b.sum = (float *)(void *)(b.places + (size_t)Kp / 32);
    b.q16 = (int16_t *)(void *)(b.sum + cpu_sums(Kp) * n);
    return b;
}

static size_t tokens_bytes(int Kp) {
    size_t n = BLOCK, H = (size_t)Kp / 32;
    size_t bytes = n * ((size_t)Kp * 3 + (5 * H + cpu_sums(Kp)) * 4) + (2 * H + 1) * 4;
    return (bytes + 63) / 64 * 64;
}

/* Lane i of the result is the largest lane of v[i]. */
static inline __m512 top_of_each(const __m512 v[16]) {
    __m512 t[8], u[4];
    for (int i = 0; i < 8; i++)
        t[i] = _mm512_max_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]),
                             _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 4; i++) {
        __m512d x = _mm512_castps_pd(t[2 * i]), y = _mm512_castps_pd(t[2 * i + 1]);
        u[i] = _mm512_max_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
    }
    for (int i = 0; i < 2; i++)
        t[i] = _mm512_max_ps(_mm512_shuffle_f32x4(u[2 * i], u[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(u[2 * i], u[2 * i + 1], 0xdd));
    return _mm512_max_ps(_mm512_shuffle_f32x4(t[0], t[1], 0x88),
                         _mm512_shuffle_f32x4(t[0], t[1], 0xdd));
}

/* The largest activation of each group of a token to top [H, NT]; returns what a wide group's
 * is above. */
static float group_tops(const float *x, int K, int H, int NT, float *top) {
    __m512 sum = _mm512_setzero_ps();
    for (int h = 0; h < H; h += 16) {
        __m512 v[16];
        float tops[16];
        for (int i = 0; i < 16; i++) {
            int k = (h + i) * 32;
            if (h + i >= H) {
                v[i] = _mm512_setzero_ps();
                continue;
            }
            v[i] = _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(x + k)),
                                 _mm512_abs_ps(_mm512_loadu_ps(x + k + 16)));
        }
        __m512 t = top_of_each(v);
        sum = _mm512_add_ps(sum, t);
        _mm512_storeu_ps(tops, t);
        for (int i = 0; i < 16 && h + i < H; i++)
            top[(h + i) * NT] = tops[i];
    }
    return CPU_WIDE_FROM * _mm512_reduce_add_ps(sum) / (float)((K + 31) / 32);
}

/* 16 activations as steps. */
static inline __m512i steps16(const float *x, float per_unit) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(per_unit)));
}

/* The 16-bit digits of group h of token i, with the sums of its halves s. */
static void put_wide(const float *x, int h, int i, int NT, float per_unit,
                     const struct tokens *b, int32_t s[2]) {
    for (int j = 0; j < 2; j++) {
        __m512i v = steps16(x + h * 32 + j * 16, per_unit);
        s[j] = _mm512_reduce_add_epi32(v);
        v = _mm512_shuffle_epi32(v, _MM_PERM_DBCA); /* pairs (0, 2), (1, 3) */
        _mm256_storeu_si256((__m256i *)(b->q16 + (h * NT + i) * 32 + j * 16),
                            _mm512_cvtepi32_epi16(v));
    }
}

/* The 8-bit digits of groups h and h + 1 of token i, with the sums of their halves. */
static inline void put_narrow(const float *x, int h, int i, int NT, const float per_unit[2],
                              const struct tokens *b, int32_t s[4]) {
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    const __m512i order =
        _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    __m512i v[4];
    int32_t digits[16];
    int64_t sums[8];
    for (int j = 0; j < 4; j++)
        v[j] = steps16(x + h * 32 + j * 16, per_unit[j / 2]);
    v[0] = _mm512_packs_epi32(v[0], v[1]); /* within 128 bits */
    v[2] = _mm512_packs_epi32(v[2], v[3]);
    const __m512i all = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(v[0], v[2]));
    _mm512_storeu_si512(digits, all);
    /* sums of 8 bytes, each 128 too much */
    _mm512_storeu_si512(sums,
                        _mm512_sad_epu8(_mm512_xor_si512(all, flip), _mm512_setzero_si512()));
    for (int j = 0; j < 4; j++)
        s[j] = (int32_t)(sums[2 * j] + sums[2 * j + 1]) - 16 * 128;
    int8_t *to = b->q8 + (h * 8 * NT + i) * 4;
    if (NT == 1)
        _mm512_storeu_si512(to, all);
    else
        for (int c = 0; c < 16; c++, to += 4 * NT)
            memcpy(to, &digits[c], 4);
}

/* The sums over groups of 64, of 32 and of 16 inputs of token i that group h is part of. */
static void put_sums(const struct tokens *b, int Kp, int h, int i, int NT, const int32_t s[2]) {
    float *of64 = b->sum + i, *of32 = of64 + cpu_sum_at(Kp, 32) * (size_t)NT;
    float *of16 = of64 + cpu_sum_at(Kp, 16) * (size_t)NT, scale = b->scale[h * NT + i];
    of16[2 * h * NT] = scale * (float)s[0];
    of16[(2 * h + 1) * NT] = scale * (float)s[1];
    of32[h * NT] = scale * (float)(s[0] + s[1]);
    if (h % 2)
        of64[h / 2 * NT] = of32[(h - 1) * NT] + of32[h * NT];
}

/* Where the accumulators of group h of token i start; s: sums of its halves in 8 bits. */
static inline void put_zeros(const struct tokens *b, int h, int i, int NT, const int32_t s[2]) {
    b->zero16[2 * h * NT + i] = -128 * s[0];
    b->zero16[(2 * h + 1) * NT + i] = -128 * s[1];
    b->zero[h * NT + i] = -128 * (s[0] + s[1]);
    b->zero_nf4[h * NT + i] = _mm_cvtss_si32(_mm_set_ss(-NF4_BYTE_ZERO * (float)(s[0] + s[1])));
}

static inline float steps_per_unit(float steps, float top) {
    return top > 1e-30f ? steps / top : 0;
}

/* Token i: its digits, scales and starts. */
static inline __attribute__((always_inline)) void quantize_token(const float *x, int Kp, int i,
                                                                 const int NT, float from,
                                                                 bool sums,
                                                                 const struct tokens *b) {
    static const int32_t none[2] = {0};
    for (int h = 0; h < Kp / 32; h += 2) {
        float per_unit[2], top[2] = {b->scale[h * NT + i], b->scale[(h + 1) * NT + i]};
        int32_t s[4];
        for (int j = 0; j < 2; j++) {
            per_unit[j] = top[j] > from ? 0 : steps_per_unit(X8_STEPS, top[j]);
            b->scale[(h + j) * NT + i] = top[j] * (1.0f / X8_STEPS);
        }
        put_narrow(x, h, i, NT, per_unit, b, s);
        for (int j = 0; j < 2; j++) {
            bool wide = top[j] > from;
            put_zeros(b, h + j, i, NT, wide ? none : s + 2 * j);
            if (wide) {
                put_wide(x, h + j, i, NT, steps_per_unit(X_STEPS, top[j]), b, s + 2 * j);
                b->scale[(h + j) * NT + i] = top[j] / X_STEPS;
                b->wide[h + j] |= 1u << i;
            }
            if (sums)
                put_sums(b, Kp, h + j, i, NT, s + 2 * j);
        }
    }
}

static void quantize8(const float *x, size_t ldx, int NT, int K, bool sums, void *to) {
    const int Kp = weight_pad_k(K), H = Kp / 32;
    const struct tokens b = tokens_at(to, Kp, NT);
    memset(b.wide, 0, (size_t)H * sizeof *b.wide);
    if (NT == 1) {
        float from = group_tops(x, K, H, 1, b.scale);
        quantize_token(x, Kp, 0, 1, from, sums, &b);
        return;
    }
    for (int i = 0; i < NT; i++, x += ldx) {
        float from = group_tops(x, K, H, NT, b.scale + i);
        quantize_token(x, Kp, i, NT, from, sums, &b);
    }
    *b.n_wide = 0;
    for (int h = 0; h < H; h++)
        if (b.wide[h])
            b.places[(*b.n_wide)++] = h;
}

/* What a kernel knows of a weight. */
struct decoder {
    struct q4_decoder q4; /* int16 words and their step, scales by code */
    __m512i bytes;        /* [64] the table's 16 bytes four times */
    __m512 step;          /* of the bytes */
    bool nf4;             /* zero_nf4 counts */
};

static struct decoder decoder(const struct weight *w) {
    struct decoder d = {.q4 = q4_decoder(w), .step = _mm512_set1_ps(1)};
    uint8_t bytes[16];
    float step;
    if (w->type == WEIGHT_I8)
        return d;
    d.nf4 = q4_bytes(w, bytes, &step);
    d.bytes = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)bytes));
    d.step = _mm512_set1_ps(step);
    return d;
}

static inline __m512i bcast4(const int8_t *q) {
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm512_set1_epi32(four);
}

/* acc + the four products of each row; in assembler like dot2(). */
static inline __m512i dot4(__m512i acc, __m512i w, __m512i q) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(q));
    return acc;
}

/* 8 inputs of 16 rows as bytes. */
static inline __attribute__((always_inline)) void bytes8(const struct decoder *d, const bool q4,
                                                         const uint8_t *p, __m512i v[2]) {
    if (q4) {
        __m512i two = _mm512_loadu_si512(p);
        v[0] = _mm512_permutexvar_epi8(two, d->bytes);
        v[1] = _mm512_permutexvar_epi8(_mm512_srli_epi16(two, 4), d->bytes);
        return;
    }
    const __m512i top = _mm512_set1_epi8((char)0x80);
    v[0] = _mm512_xor_si512(_mm512_loadu_si512(p), top);
    v[1] = _mm512_xor_si512(_mm512_loadu_si512(p + 64), top);
}

/* The same as int16. */
static inline __attribute__((always_inline)) void words8(const struct decoder *d, const bool q4,
                                                         const uint8_t *p, __m512i v[4]) {
    if (q4) {
        q4_expand(&d->q4, p, v);
        return;
    }
    i8_expand(p, v);
    i8_expand(p + 64, v + 2);
}

/* How a weight's inputs are cut, and where its scales are. */
struct units {
    int U, S;    /* inputs of a unit, 16 or 32; of a scale */
    int n;       /* units of a row */
    size_t G;    /* scales of a row */
    size_t sums; /* where sums over S begin */
};

static inline struct units units(const struct weight *w) {
    int U = w->group == 16 ? 16 : 32;
    return (struct units){U, w->group, w->Kp / U, (size_t)(w->Kp / w->group),
                          cpu_sum_at(w->Kp, w->group)};
}

/* The accumulators' starts for units of U. */
static inline const int32_t *zeros(const struct tokens *b, const struct decoder *d, int U) {
    return U == 16 ? b->zero16 : d->nf4 ? b->zero_nf4 : b->zero;
}

/* A row tile as the loops below want it. */
struct tile {
    const struct weight *w;
    int tile;
    const uint8_t *data;
    const float *scales; /* [G, 16]; NULL: one token decodes them on the way */
    const float *min;    /* [G, 16] or NULL */
    __mmask16 rows;      /* those that exist */
    struct units us;
};

/* The next 16 scales of a tile from its codes. */
struct scale_reader {
    int end; /* group up to which absmax2 holds */
    __m512 absmax2;
};

static inline __m512 next_scales(struct scale_reader *r, const struct tile *w,
                                 const struct decoder *d, int g) {
    if (g == r->end) {
        float a2[16];
        q4_absmax2(w->w, w->tile, g, a2, &r->end);
        r->absmax2 = _mm512_loadu_ps(a2);
    }
    const uint8_t *code = w->w->code + ((size_t)w->tile * w->us.G + (size_t)g) * 16;
    return q4_scales(&d->q4, code, r->absmax2, _mm512_set1_ps(w->w->offset));
}

static struct tile tile_at(const struct weight *w, int tile) {
    size_t Kp = (size_t)w->Kp, G = Kp / (size_t)w->group;
    return (struct tile){
        .w = w,
        .tile = tile,
        .data = (const uint8_t *)w->data + (size_t)tile * Kp * (w->type == WEIGHT_Q4 ? 8 : 16),
        .scales = w->code ? NULL : w->scale + (size_t)tile * G * 16,
        .min = w->min ? w->min + (size_t)tile * G * 16 : NULL,
        .rows = tile_rows(w, tile),
        .us = units(w),
    };
}

/* Decodes a tile's scales to room [G, 16], for many blocks of tokens. */
static void decode_scales(struct tile *w, const struct decoder *d, float *room) {
    struct scale_reader r = {0};
    for (int g = 0; g < (int)w->us.G && !w->scales; g++)
        _mm512_store_ps(room + g * 16, next_scales(&r, w, d, g));
    w->scales = w->scales ? w->scales : room;
}

/* One unit of NT tokens: acc = zero + sums of 8 bits, t += acc * scale. */
static inline __attribute__((always_inline)) void
narrow_unit(const struct decoder *d, const uint8_t *p, const int8_t *q, const int32_t *zero,
            const float *scale, const int NT, const bool q4, const int U, __m512 t[BLOCK]) {
    __m512i acc[BLOCK], more = _mm512_setzero_si512();
#pragma GCC unroll 12
    for (int i = 0; i < NT; i++)
        acc[i] = _mm512_set1_epi32(zero[i]);
#pragma GCC unroll 4
    for (int b = 0; b < U; b += 8, p += q4 ? 64 : 128, q += 8 * NT) {
        __m512i v[2];
        bytes8(d, q4, p, v);
        if (NT == 1) {
            acc[0] = dot4(acc[0], v[0], bcast4(q));
            more = dot4(more, v[1], bcast4(q + 4));
            continue;
        }
#pragma GCC unroll 12
        for (int i = 0; i < NT; i++)
            acc[i] = dot4(acc[i], v[0], bcast4(q + i * 4));
#pragma GCC unroll 12
        for (int i = 0; i < NT; i++)
            acc[i] = dot4(acc[i], v[1], bcast4(q + (NT + i) * 4));
    }
    if (NT == 1)
        acc[0] = _mm512_add_epi32(acc[0], more);
#pragma GCC unroll 12
    for (int i = 0; i < NT; i++)
        t[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[i]), _mm512_set1_ps(scale[i]), t[i]);
}

/* One unit in 16 bits, of the tokens whose bits are in wide: sum += acc * scale * ws. */
static inline __attribute__((always_inline)) void
wide_unit(const struct decoder *d, const uint8_t *p, const int16_t *q, const float *scale,
          uint32_t wide, const bool q4, const int U, __m512 ws, __m512 *sum) {
    __m512i v[16];
    for (int b = 0; b < U; b += 8, p += q4 ? 64 : 128)
        words8(d, q4, p, v + b / 2);
    for (; wide; wide &= wide - 1) {
        int i = __builtin_ctz(wide);
        __m512i a = _mm512_setzero_si512(), c = a;
#pragma GCC unroll 8
        for (int k = 0; k < U / 2; k += 2) {
            a = dot2(a, v[k], bcast2(q + i * 32 + k * 2));
            c = dot2(c, v[k + 1], bcast2(q + i * 32 + k * 2 + 2));
        }
        __m512 x = _mm512_mul_ps(ws, _mm512_set1_ps(scale[i]));
        sum[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(a, c)), x, sum[i]);
    }
}

/* The scales of group g, from where they are or, for one token, from their codes. */
static inline __attribute__((always_inline)) __m512 scales_of(struct scale_reader *r,
                                                              const struct tile *w,
                                                              const struct decoder *d, int g,
                                                              const int NT, const bool coded) {
    if (NT == 1 && coded)
        return next_scales(r, w, d, g);
    return _mm512_loadu_ps(w->scales + g * 16);
}

/* Group h in 16 bits, of the tokens for which it is wide. */
static inline __attribute__((always_inline)) void
wide_group(const struct tile *w, const struct decoder *d, const struct tokens *b, int h,
           const int NT, const bool q4, const int U, const int S, __m512 base, __m512 *sum) {
    for (int k = h * 32; k < h * 32 + 32; k += U) {
        __m512 ws = S >= 32 ? base : _mm512_loadu_ps(w->scales + k / S * 16);
        wide_unit(d, w->data + (size_t)k * (q4 ? 8 : 16), b->q16 + h * NT * 32 + k % 32,
                  b->scale + h * NT, b->wide[h], q4, U, _mm512_mul_ps(ws, d->q4.step), sum);
    }
}

/* One row tile, NT tokens: the 8-bit sums, and the wide ones on top. Few tokens meet a wide
 * group where it is; for many the loop keeps its registers, and they come behind it. */
static inline __attribute__((always_inline)) void
block(const struct tile *w, const struct decoder *d, const void *at, const int NT,
      const bool q4, const bool any, float *y, size_t ldy, bool add) {
    const bool coded = q4 && !any, few = NT <= 4;
    const int U = any ? w->us.U : 32, S = any ? w->us.S : 64;
    const struct tokens b = tokens_at(at, w->w->Kp, NT);
    const int32_t *zero = zeros(&b, d, U);
    const uint8_t *p = w->data;
    struct scale_reader reader = {0};
    __m512 sum[BLOCK], wide[BLOCK];
#pragma GCC unroll 12
    for (int i = 0; i < NT; i++)
        sum[i] = wide[i] = _mm512_setzero_ps();
    for (int g = 0; g < (int)w->us.G; g++) {
        const __m512 base = scales_of(&reader, w, d, g, NT, coded);
        __m512 t[BLOCK], ws = _mm512_mul_ps(base, d->step);
#pragma GCC unroll 12
        for (int i = 0; i < NT; i++)
            t[i] = _mm512_setzero_ps();
        for (int k = g * S; k < g * S + S; k += U, p += (size_t)U * (q4 ? 8 : 16)) {
            const int h = k / 32;
            if (few && b.wide[h]) {
                if (k % 32 == 0 && U == 32)
                    wide_group(w, d, &b, h, NT, q4, 32, S, base, wide);
                else if (k % 32 == 0)
                    wide_group(w, d, &b, h, NT, q4, 16, S, base, wide);
                if (NT == 1)
                    continue; /* its 8-bit digits are 0 */
            }
            if (U == 32)
                narrow_unit(d, p, b.q8 + k * NT, zero + h * NT, b.scale + h * NT, NT, q4, 32,
                            t);
            else
                narrow_unit(d, p, b.q8 + k * NT, zero + k / 16 * NT, b.scale + h * NT, NT, q4,
                            16, t);
        }
#pragma GCC unroll 12
        for (int i = 0; i < NT; i++)
            sum[i] = _mm512_fmadd_ps(t[i], ws, sum[i]);
        if (!any || !w->min)
            continue;
        ws = _mm512_loadu_ps(w->min + g * 16);
        const float *x = b.sum + (w->us.sums + (size_t)g) * (size_t)NT;
#pragma GCC unroll 12
        for (int i = 0; i < NT; i++)
            sum[i] = add_min(sum[i], ws, x[i]);
    }
    for (int i = 0; !few && i < *b.n_wide; i++) {
        const int h = b.places[i];
        const __m512 base = _mm512_loadu_ps(w->scales + h * 32 / S * 16);
        if (U == 32)
            wide_group(w, d, &b, h, NT, q4, 32, S, base, wide);
        else
            wide_group(w, d, &b, h, NT, q4, 16, S, base, wide);
    }
#pragma GCC unroll 12
    for (int i = 0; i < NT; i++)
        put_rows(y + (size_t)i * ldy, _mm512_add_ps(sum[i], wide[i]), w->rows, add);
}

#define CASE(NT)                                                                               \
    case NT:                                                                                   \
        block(w, d, at, NT, q4, any, y, ldy, add);                                             \
        break

static inline __attribute__((always_inline)) void
blocks(const struct tile *w, const struct decoder *d, const void *at, int n, const bool q4,
       const bool any, float *y, size_t ldy, bool add) {
    switch (n) {
        CASE(1);
        CASE(2);
        CASE(3);
        CASE(4);
        CASE(5);
        CASE(6);
        CASE(7);
        CASE(8);
        CASE(9);
        CASE(10);
        CASE(11);
        CASE(12);
    }
}

static void vbmi_matmul(const struct cpu_input *in, const struct weight *w, int tile,
                        int n_tile, float *y, size_t ldy, bool add, void *scratch) {
    const bool q4 = w->type == WEIGHT_Q4, any = !plain_groups(w);
    if (!q4 && w->type != WEIGHT_I8) {
        avx512_matmul_float(in, w, tile, n_tile, y, ldy, add);
        return;
    }
    const struct decoder d = decoder(w);
    for (; n_tile > 0; n_tile -= TILES, tile += TILES, y += TILES * 16) {
        struct tile tiles[TILES];
        int n = n_tile < TILES ? n_tile : TILES;
        for (int i = 0; i < n; i++) {
            tiles[i] = tile_at(w, tile + i);
            if (in->T > 1)
                decode_scales(&tiles[i], &d, (float *)scratch + (size_t)i * tiles[i].us.G * 16);
        }
        for (int t = 0; t < in->T; t += BLOCK)
            for (int i = 0; i < n; i++) {
                const char *at = in->rows + (size_t)(t / BLOCK) * in->block_bytes;
                float *to = y + (size_t)t * ldy + i * 16;
                int nt = in->T - t < BLOCK ? in->T - t : BLOCK;
                if (q4 && !any)
                    blocks(&tiles[i], &d, at, nt, true, false, to, ldy, add);
                else if (q4)
                    blocks(&tiles[i], &d, at, nt, true, true, to, ldy, add);
                else if (!any)
                    blocks(&tiles[i], &d, at, nt, false, false, to, ldy, add);
                else
                    blocks(&tiles[i], &d, at, nt, false, true, to, ldy, add);
            }
    }
}

const struct cpu_kernels cpu_avx512_vbmi = {
    .name = "avx512",
    .block = BLOCK,
    .block_bytes = tokens_bytes,
    .quantize = quantize8,
    .matmul = vbmi_matmul,
    .norm = avx512_norm,
    .rope = avx512_rope,
    .act = avx512_act,
    .cap = avx512_cap,
    .axpby = avx512_axpby,
    .kv_put = avx512_kv_put,
    .kv_turn = avx2_kv_turn,
    .att_chunk = avx512_att_chunk,
};
#endif
