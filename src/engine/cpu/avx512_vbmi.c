/*
 * avx512_vbmi.c - Q4 and I8 weights times activations of 8 bits, with AVX-512 VBMI and VNNI
 * (Ice Lake, Zen 4 and later).
 *
 *     y[t, n] (+)= sum over units u of  scale_w[n, u] * scale_x[t, u] * sum of w[n, k] q[t, k]
 *                                     + min_w[n, g] * (sum of x[t, k])
 *
 * An activation has 8 bits in groups of 32, but where the group's largest one is far above the
 * row's average: there activations and weights have 16 bits, as in avx512_int16.h ("wide"
 * groups, about one in ten). Errors are steps of the largest value of a group, so the few
 * groups that hold a model's outliers make most of the error of plain 8 bits. KL divergence
 * from exact products on prose (SmolLM2-135M in NF4): see cpu.h.
 *
 * Weights are unsigned bytes, w + 128 (vpdpbusd takes unsigned times signed); the sum of 128 q
 * that this is too much is where an accumulator starts. vpermb reads 6 index bits: the table is
 * in it four times and no nibble needs a mask. 16 values of a table become bytes by q4_bytes().
 *
 * Sums of a unit (32 inputs, 16 where the weight's groups are as small) are exact in int32;
 * units are added in ascending order, the 8-bit part before the wide one, which is exactly 0
 * where it does not apply. So the bits don't depend on which tokens are computed together.
 *
 * Few tokens: weights are unpacked in registers, once for up to 8 tokens; bound by reading
 * weights for one token. Many tokens: two row tiles are expanded to bytes in scratch (L2),
 * their wide groups to int16 behind them, and blocks of 6 tokens x 2 tiles run over it; bound
 * by the dot products, 4 x 16 a cycle.
 *
 * Rejected: 8 bits alone, groups of 64 (KL 5e-3), 32 (3e-3) or 16 (1.7e-3, and as many
 * instructions as wide groups cost); a second digit for wide groups (leaves the table's error).
 */
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512cd,avx512vnni,avx512vbmi,fma,f16c")

#define DOT_VNNI 1
#include "engine/cpu/avx512_inline.h"
#include "engine/cpu/avx512_weights.h"

enum {
    BLOCK = 12,   /* tokens */
    TILES = 4,    /* row tiles that a block of tokens meets one after the other */
    AHEAD = 3072, /* bytes, as in avx512_int16.h */
};

/* NT <= BLOCK tokens, quantised; H = Kp / 32 groups. The tokens are innermost but for the 4 or
 * 2 activations of a broadcast, so that a kernel finds all it needs behind one pointer. */
struct tokens {
    int8_t *q8;        /* [Kp/4, NT, 4] x / scale, 0 in wide groups */
    float *scale;      /* [H, NT] */
    int32_t *zero;     /* [H, NT] where an accumulator starts: -128 times the sum of q8 */
    int32_t *zero_nf4; /* [H, NT] the same for the bytes of NF4 */
    int32_t *zero16;   /* [2 H, NT] zero of groups of 16 */
    uint32_t *some;    /* [ceil(H/32)] bits: groups that are wide for some token */
    uint32_t *all;     /* [ceil(H/32)] for all */
    float *sum;        /* [cpu_sums(Kp), NT] sums of x; written where they are asked for */
    int16_t *q16; /* [Kp/2, NT, 2] x / scale in wide groups, 0 for tokens whose group is not
                     wide; nothing where it is for no token; order of avx512_weights.h */
};

static inline size_t wide_words(int Kp) {
    return ((size_t)Kp / 32 + 31) / 32;
}

static inline struct tokens tokens_at(const void *at, int Kp, int NT) {
    struct tokens b;
    size_t n = (size_t)NT, H = (size_t)Kp / 32 * n;
    b.q8 = (int8_t *)(uintptr_t)at;
    b.scale = (float *)(void *)(b.q8 + (size_t)Kp * n);
    b.zero = (int32_t *)(void *)(b.scale + H);
    b.zero_nf4 = b.zero + H;
    b.zero16 = b.zero_nf4 + H;
    b.some = (uint32_t *)(void *)(b.zero16 + 2 * H);
    b.all = b.some + wide_words(Kp);
    b.sum = (float *)(void *)(b.all + wide_words(Kp));
    b.q16 = (int16_t *)(void *)(b.sum + cpu_sums(Kp) * n);
    return b;
}

static size_t tokens_bytes(int Kp) {
    size_t n = BLOCK, H = (size_t)Kp / 32;
    size_t bytes = n * ((size_t)Kp * 3 + (5 * H + cpu_sums(Kp)) * 4) + 2 * wide_words(Kp) * 4;
    return (bytes + 63) / 64 * 64;
}

static inline bool bit(const uint32_t *bits, int i) {
    return bits[i / 32] >> i % 32 & 1;
}

/* Inputs k .. k + 15 of x [K]. */
static inline __m512 load16(const float *x, int K, int k) {
    return _mm512_maskz_loadu_ps(first(K - k), x + k);
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
            v[i] = _mm512_max_ps(_mm512_abs_ps(load16(x, K, k)),
                                 _mm512_abs_ps(load16(x, K, k + 16)));
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
static inline __m512i steps16(const float *x, int K, int k, float per_unit) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(load16(x, K, k), _mm512_set1_ps(per_unit)));
}

/* The 16-bit digits of group h of token i, with the sums of its halves s; none: zeros. */
static void put_wide(const float *x, int K, int h, int i, int NT, float per_unit,
                     const struct tokens *b, int32_t s[2]) {
    for (int j = 0; j < 2; j++) {
        int32_t digits[8];
        int k = h * 32 + j * 16;
        __m512i v = steps16(x, K, k, per_unit);
        s[j] = _mm512_reduce_add_epi32(v);
        v = _mm512_shuffle_epi32(v, _MM_PERM_DBCA); /* pairs (0, 2), (1, 3) */
        _mm256_storeu_si256((__m256i *)digits, _mm512_cvtepi32_epi16(v));
        for (int c = 0; c < 8; c++)
            memcpy(b->q16 + ((k / 2 + c) * NT + i) * 2, &digits[c], 4);
    }
}

/* The 8-bit digits of groups h and h + 1 of token i, with the sums of their halves. */
static inline void put_narrow(const float *x, int K, int h, int i, int NT,
                              const float per_unit[2], const struct tokens *b, int32_t s[4]) {
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    const __m512i order =
        _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    __m512i v[4];
    int32_t digits[16];
    int64_t sums[8];
    for (int j = 0; j < 4; j++)
        v[j] = steps16(x, K, h * 32 + j * 16, per_unit[j / 2]);
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
static inline __attribute__((always_inline)) void quantize_token(const float *x, int K, int Kp,
                                                                 int i, const int NT,
                                                                 float from, bool sums,
                                                                 const struct tokens *b) {
    static const int32_t none[2] = {0};
    for (int h = 0; h < Kp / 32; h += 2) {
        float per_unit[2], top[2] = {b->scale[h * NT + i], b->scale[(h + 1) * NT + i]};
        int32_t s[4];
        for (int j = 0; j < 2; j++) {
            per_unit[j] = top[j] > from ? 0 : steps_per_unit(X8_STEPS, top[j]);
            b->scale[(h + j) * NT + i] = top[j] * (1.0f / X8_STEPS);
        }
        put_narrow(x, K, h, i, NT, per_unit, b, s);
        for (int j = 0; j < 2; j++) {
            bool wide = top[j] > from;
            put_zeros(b, h + j, i, NT, wide ? none : s + 2 * j);
            if (bit(b->some, h + j)) {
                int32_t *to = s + 2 * j, unused[2];
                put_wide(x, K, h + j, i, NT, wide ? steps_per_unit(X_STEPS, top[j]) : 0, b,
                         wide ? to : unused);
                if (wide)
                    b->scale[(h + j) * NT + i] = top[j] / X_STEPS;
            }
            if (sums)
                put_sums(b, Kp, h + j, i, NT, s + 2 * j);
        }
    }
}

static void quantize8(const float *x, size_t ldx, int NT, int K, bool sums, void *to) {
    const int Kp = weight_pad_k(K), H = Kp / 32;
    const struct tokens b = tokens_at(to, Kp, NT);
    float from[BLOCK];
    for (int i = 0; i < NT; i++)
        from[i] = group_tops(x + (size_t)i * ldx, K, H, NT, b.scale + i);
    memset(b.some, 0, 2 * wide_words(Kp) * sizeof *b.some);
    for (int h = 0; h < H; h++) {
        int n = 0;
        for (int i = 0; i < NT; i++)
            n += b.scale[h * NT + i] > from[i];
        b.some[h / 32] |= (uint32_t)(n > 0) << h % 32;
        b.all[h / 32] |= (uint32_t)(n == NT) << h % 32;
    }
    if (NT == 1) {
        quantize_token(x, K, Kp, 0, 1, from[0], sums, &b);
        return;
    }
    for (int i = 0; i < NT; i++)
        quantize_token(x + (size_t)i * ldx, K, Kp, i, NT, from[i], sums, &b);
}

/* What a kernel knows of a weight. */
struct decoder {
    struct q4_decoder q4; /* int16 words and their step, scales by code */
    __m512i bytes;        /* [64] the table's 16 bytes four times */
    __m512 step;          /* of the bytes */
    __m512 ratio;         /* of the words' step to it */
    bool nf4;             /* zero_nf4 counts */
};

static struct decoder decoder(const struct weight *w) {
    struct decoder d = {
        .q4 = q4_decoder(w), .step = _mm512_set1_ps(1), .ratio = _mm512_set1_ps(1)};
    uint8_t bytes[16];
    float step;
    if (w->type == WEIGHT_I8)
        return d;
    d.nf4 = q4_bytes(w, bytes, &step);
    d.bytes = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)bytes));
    d.step = _mm512_set1_ps(step);
    d.ratio = _mm512_div_ps(d.q4.step, d.step);
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

/* The scales of a tile as floats [G, 16]: where they are, or decoded to room. */
static const float *tile_scales(const struct weight *w, const struct decoder *d, int tile,
                                float *room) {
    size_t G = (size_t)(w->Kp / w->group);
    const __m512 offset = _mm512_set1_ps(w->offset);
    __m512 absmax2 = _mm512_setzero_ps();
    float a2[16];
    int end = 0;
    if (!w->code)
        return w->scale + (size_t)tile * G * 16;
    for (int g = 0; g < (int)G; g++) {
        if (g == end) {
            q4_absmax2(w, tile, g, a2, &end);
            absmax2 = _mm512_loadu_ps(a2);
        }
        const uint8_t *code = w->code + ((size_t)tile * G + (size_t)g) * 16;
        _mm512_store_ps(room + g * 16, q4_scales(&d->q4, code, absmax2, offset));
    }
    return room;
}

/* A row tile as the loops below want it. */
struct tile {
    const uint8_t *data;
    const float *scales; /* [G, 16] */
    const float *min;    /* [G, 16] or NULL */
    __mmask16 rows;      /* those that exist */
    int Kp;
    struct units us;
};

static struct tile tile_at(const struct weight *w, const struct decoder *d, int tile,
                           float *scratch, int i) {
    size_t Kp = (size_t)w->Kp, G = Kp / (size_t)w->group;
    return (struct tile){
        .data = (const uint8_t *)w->data + (size_t)tile * Kp * (w->type == WEIGHT_Q4 ? 8 : 16),
        .scales = tile_scales(w, d, tile, scratch + (size_t)i * G * 16),
        .min = w->min ? w->min + (size_t)tile * G * 16 : NULL,
        .rows = tile_rows(w, tile),
        .Kp = w->Kp,
        .us = units(w),
    };
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
        _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T0);
        if (!q4)
            _mm_prefetch((const char *)p + AHEAD + 64, _MM_HINT_T0);
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

/* The same with 16 bits: t += acc * scale * ratio of the steps. */
static inline __attribute__((always_inline)) void
wide_unit(const struct decoder *d, const uint8_t *p, const int16_t *q, const float *scale,
          const int NT, const bool q4, const int U, __m512 t[BLOCK]) {
    __m512i acc[BLOCK];
#pragma GCC unroll 12
    for (int i = 0; i < NT; i++)
        acc[i] = _mm512_setzero_si512();
    for (int b = 0; b < U; b += 8, p += q4 ? 64 : 128, q += 8 * NT) {
        __m512i v[4];
        words8(d, q4, p, v);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
#pragma GCC unroll 12
            for (int i = 0; i < NT; i++)
                acc[i] = dot2(acc[i], v[j], bcast2(q + (j * NT + i) * 2));
    }
#pragma GCC unroll 12
    for (int i = 0; i < NT; i++) {
        __m512 x = _mm512_mul_ps(d->ratio, _mm512_set1_ps(scale[i]));
        t[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[i]), x, t[i]);
    }
}

/* One row tile, NT tokens. */
static inline __attribute__((always_inline)) void
block(const struct tile *w, const struct decoder *d, const void *at, const int NT,
      const bool q4, const bool any, float *y, size_t ldy, bool add) {
    const int U = any ? w->us.U : 32, S = any ? w->us.S : 64;
    const struct tokens b = tokens_at(at, w->Kp, NT);
    const int32_t *zero = zeros(&b, d, U);
    const uint8_t *p = w->data;
    __m512 sum[BLOCK];
#pragma GCC unroll 12
    for (int i = 0; i < NT; i++)
        sum[i] = _mm512_setzero_ps();
    for (int g = 0; g < (int)w->us.G; g++) {
        __m512 t[BLOCK];
#pragma GCC unroll 12
        for (int i = 0; i < NT; i++)
            t[i] = _mm512_setzero_ps();
        for (int k = g * S; k < g * S + S; k += U, p += (size_t)U * (q4 ? 8 : 16)) {
            const int h = k / 32;
            const float *scale = b.scale + h * NT;
            if (!bit(b.all, h)) {
                if (U == 32)
                    narrow_unit(d, p, b.q8 + k * NT, zero + h * NT, scale, NT, q4, 32, t);
                else
                    narrow_unit(d, p, b.q8 + k * NT, zero + k / 16 * NT, scale, NT, q4, 16, t);
            }
            if (bit(b.some, h))
                wide_unit(d, p, b.q16 + k * NT, scale, NT, q4, U, t);
        }
        __m512 ws = _mm512_mul_ps(_mm512_loadu_ps(w->scales + g * 16), d->step);
#pragma GCC unroll 12
        for (int i = 0; i < NT; i++)
            sum[i] = _mm512_fmadd_ps(t[i], ws, sum[i]);
        if (!any || !w->min)
            continue;
        ws = _mm512_loadu_ps(w->min + g * 16);
        const float *x = b.sum + (w->us.sums + (size_t)g) * NT;
#pragma GCC unroll 12
        for (int i = 0; i < NT; i++)
            sum[i] = add_min(sum[i], ws, x[i]);
    }
#pragma GCC unroll 12
    for (int i = 0; i < NT; i++)
        put_rows(y + (size_t)i * ldy, sum[i], w->rows, add);
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
        for (int i = 0; i < n; i++)
            tiles[i] = tile_at(w, &d, tile + i, scratch, i);
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
    .att_chunk = avx512_att_chunk,
};
#endif
