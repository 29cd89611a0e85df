/*
 * avx512_vbmi.c - Q4 and I8 weights times activations of 8 bits, with AVX-512 VBMI and VNNI
 * (Ice Lake, Zen 4 and later).
 *
 *     y[t, n] (+)= sum over groups g of  scale_w[n, g] * scale_x[t, g] * sum of w[n, k] q[t, k]
 *                                     +  min_w[n, g] * (sum of x[t, k])
 *               +  sum over outliers k of  w[n, k] * x[t, k]
 *
 * An activation has 8 bits in groups of 64, but for outliers: those above the mean of the row's
 * largest ones of a group where few of them make its steps much smaller (CPU_OUTLIER_FROM in
 * simd.h), about one in two hundred. They are 0 among the digits and are multiplied one by one
 * in f32 with their weights' exact values, as the columns they meet: a shift and a look-up for
 * 16 rows. An error is a step of the largest value of a group, so the few outliers of a model
 * would make most of the error of plain 8 bits. Nearly half of what is left comes from the
 * table of NF4 in bytes.
 *
 * Weights are unsigned bytes, w + 128 (vpdpbusd takes unsigned times signed); the sum of 128 q
 * that this is too much is where an accumulator starts. vpermb reads 6 index bits: the table is
 * in it four times and no nibble needs a mask. 16 values of a table become bytes by q4_bytes().
 *
 * Sums of a group of the weight (64, 32 or 16 inputs) are exact in int32; groups are added in
 * ascending order, and then outliers. So the bits don't depend on which tokens are computed
 * together.
 *
 * Weights are unpacked in registers, once for up to 16 tokens, which are quantised together and
 * interleaved; four row tiles (in L1) meet a block of tokens before the next one comes. One
 * token is bound by reading weights, many by the dot products, 4 x 16 a cycle; those and
 * multiplications of floats share their units, and vpermb takes a third of one, so that 64
 * inputs of 16 tokens are 256 of about 293 cycles. An operand in memory that the instruction
 * itself repeats for all lanes costs nothing; loaded by an instruction of its own it made GCC
 * 12 copy accumulators. The sums of 16 tokens do not all fit in registers beside accumulators;
 * they are needed once in a group, and blocks of 12, where they fit, are not faster.
 *
 * Weights are asked for ahead, into the second-level cache: what runs by itself ahead of the
 * loads stops at the borders of pages of 4 kB. Into the first level one token read 21 GB/s or
 * less, because few lines can be on their way there. Requests beyond what can be on its way are
 * dropped, so each line is asked for again when it is nearer: steps of one token take 7 to 20 %
 * less time, of 2 or 4 sequences 4 to 5 %.
 *
 * Measured on one core of a Zen 4 at rest, in 1e9 products a second (235 is the most): 190 for
 * many tokens with an outlier in every twelfth group (vpdpwssd on int16: 95), 184 for 16.
 *
 * Rejected: 8 bits alone, groups of 64 (KL 5e-3), 32 (3.3e-3) or 16 (1.7e-3, and twice the
 * instructions behind the dot products); groups of 32 with a limit for outliers of twice the
 * mean (as exact and 6 % slower); whole groups in 16 bits where one is an outlier (as exact,
 * 25 % slower); a second digit instead (leaves the table's error to outliers); row tiles
 * expanded to bytes in scratch for many tokens (130); rows one behind the other (the compiler
 * keeps twelve pointers on the stack); asking for the lines of the output (nothing); waiting
 * threads that read the beginning of the weights that come next (nothing, at one token).
 */
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512cd,avx512vnni,avx512vbmi,fma,f16c")

#include "engine/cpu/avx512_inline.h"
#include "engine/cpu/avx512_weights.h"

enum {
    BLOCK = VBMI_BLOCK, /* tokens */
    TILES = 4,          /* row tiles that a block of tokens meets one after the other */
    OUTLIERS = 8,       /* one of so many activations at most is an outlier */
    WIDE = 32768,  /* columns of rows that leave the cache before they are read, as logits do */
    AHEAD = 8192,  /* bytes, of weights, that the first block of tokens asks for */
    KV_TOKENS = 8, /* so many also ask for the KV of the next attention: kv_ahead.c */
};

/* NT <= BLOCK tokens, quantised; G = Kp / 64 groups. The tokens are innermost but for the 4
 * activations of a broadcast, so that a kernel finds all it needs behind one pointer. */
struct tokens {
    int8_t *q8;    /* [Kp/4, NT, 4] x / scale, 0 for an outlier */
    float *scale;  /* [G, NT] */
    int32_t *zero; /* [cpu_sums(Kp), NT] where an accumulator starts: -128 times a sum of q8 */
    int32_t *zero_nf4; /* [G, NT] the same for the bytes of NF4 */
    float *sum;        /* [cpu_sums(Kp), NT] sums of x; written where they are asked for */
    int32_t *n_outlier;
    struct outlier {
        float x;
        uint32_t k, token;
    } * outliers; /* [Kp / OUTLIERS of each token at most] by k */
};

static inline struct tokens tokens_at(const void *at, int Kp, int NT) {
    struct tokens b;
    size_t n = (size_t)NT, G = (size_t)Kp / 64 * n, sums = cpu_sums(Kp) * n;
    b.q8 = (int8_t *)(uintptr_t)at;
    b.scale = (float *)(void *)(b.q8 + (size_t)Kp * n);
    b.zero = (int32_t *)(void *)(b.scale + G);
    b.zero_nf4 = b.zero + sums;
    b.sum = (float *)(void *)(b.zero_nf4 + G);
    b.n_outlier = (int32_t *)(void *)(b.sum + sums);
    b.outliers = (struct outlier *)(void *)(b.n_outlier + 1);
    return b;
}

size_t vbmi_block_bytes(int Kp) {
    size_t K = (size_t)Kp, words = K / 64 * 2 + cpu_sums(Kp) * 2 + 1;
    size_t bytes = K + words * 4 + K / OUTLIERS * sizeof(struct outlier);
    return (bytes * BLOCK + 63) / 64 * 64;
}

/* Lane i of the result is the largest lane of v[i]. */
static inline __m512 top_of_each(const __m512 v[16]) {
    __m512 t[8], u[4];
    for (int i = 0; i < 8; i++)
        t[i] = larger(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]),
                      _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 4; i++) {
        __m512d x = _mm512_castps_pd(t[2 * i]), y = _mm512_castps_pd(t[2 * i + 1]);
        u[i] = larger(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                      _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
    }
    for (int i = 0; i < 2; i++)
        t[i] = larger(_mm512_shuffle_f32x4(u[2 * i], u[2 * i + 1], 0x88),
                      _mm512_shuffle_f32x4(u[2 * i], u[2 * i + 1], 0xdd));
    return larger(_mm512_shuffle_f32x4(t[0], t[1], 0x88),
                  _mm512_shuffle_f32x4(t[0], t[1], 0xdd));
}

/* The largest of 64 absolute values, in some lane. */
static inline __m512 top_of_64(const float *x) {
    __m512 a =
        larger(_mm512_abs_ps(_mm512_loadu_ps(x)), _mm512_abs_ps(_mm512_loadu_ps(x + 16)));
    __m512 b =
        larger(_mm512_abs_ps(_mm512_loadu_ps(x + 32)), _mm512_abs_ps(_mm512_loadu_ps(x + 48)));
    return larger(a, b);
}

/* The largest activation of each group of a token to top [G, NT]; returns what an outlier is
 * above. */
static float group_tops(const float *x, int G, int NT, float *top) {
    __m512 sum = _mm512_setzero_ps();
    for (int g = 0; g < G; g += 16) {
        __m512 v[16];
        float tops[16];
        for (int i = 0; i < 16; i++)
            v[i] = g + i < G ? top_of_64(x + (g + i) * 64) : _mm512_setzero_ps();
        __m512 t = top_of_each(v);
        sum = _mm512_add_ps(sum, t);
        _mm512_storeu_ps(tops, t);
        for (int i = 0; i < 16 && g + i < G; i++)
            top[(g + i) * NT] = tops[i];
    }
    return CPU_OUTLIER_FROM * _mm512_reduce_add_ps(sum) / (float)G + NO_STEP;
}

static inline __mmask16 above(const float *x, float from) {
    return _mm512_cmp_ps_mask(_mm512_abs_ps(_mm512_loadu_ps(x)), _mm512_set1_ps(from),
                              _CMP_GT_OQ);
}

/* The outliers among the 64 activations x of token i from input k on, if it is worth while:
 * each takes at least CPU_OUTLIER_GAIN from^2 of the square of the group's top. That becomes
 * the top of what is left. Of more than a group has room for it is the largest ones. */
static void take_outliers(const float *x, int k, int i, float from, float *top,
                          const struct tokens *b) {
    __m512 rest;
    __mmask16 out[4];
    int n;
    for (;; from *= 2) {
        n = 0;
        rest = _mm512_setzero_ps();
        for (int j = 0; j < 4; j++) {
            __m512 v = _mm512_abs_ps(_mm512_loadu_ps(x + j * 16));
            out[j] = above(x + j * 16, from);
            rest = larger(rest, _mm512_maskz_mov_ps((__mmask16)~out[j], v));
            n += __builtin_popcount(out[j]);
        }
        if (n <= 64 / OUTLIERS)
            break;
    }
    float left = largest(rest);
    if (n == 0 || *top * *top - left * left < CPU_OUTLIER_GAIN * (float)n * from * from)
        return;
    *top = left;
    for (int j = 0; j < 4; j++)
        for (unsigned m = out[j]; m; m &= m - 1) {
            uint32_t at = (uint32_t)(j * 16 + __builtin_ctz(m));
            b->outliers[(*b->n_outlier)++] =
                (struct outlier){x[at], (uint32_t)k + at, (uint32_t)i};
        }
}

/* 16 activations as steps; outliers, above the top, as 0. */
static inline __m512i steps16(const float *x, float per_unit, float top) {
    __m512 v = _mm512_maskz_mul_ps((__mmask16)~above(x, top), _mm512_loadu_ps(x),
                                   _mm512_set1_ps(per_unit));
    return _mm512_cvtps_epi32(v);
}

/* 64 activations as digits; *s: the sums of their quarters. */
static inline __m512i digits64(const float *x, float top, __m128i *s) {
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    const __m512i order =
        _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    const float per_unit = top > NO_STEP ? X8_STEPS / top : 0;
    __m512i v[4];
    for (int j = 0; j < 4; j++)
        v[j] = steps16(x + j * 16, per_unit, top);
    v[0] = _mm512_packs_epi32(v[0], v[1]); /* within 128 bits */
    v[2] = _mm512_packs_epi32(v[2], v[3]);
    const __m512i all = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(v[0], v[2]));
    /* sums of 8 bytes, each 128 too much */
    v[0] = _mm512_sad_epu8(_mm512_xor_si512(all, flip), _mm512_setzero_si512());
    *s = _mm_madd_epi16(_mm512_cvtepi64_epi16(v[0]), _mm_set1_epi16(1));
    *s = _mm_sub_epi32(*s, _mm_set1_epi32(16 * 128));
    return all;
}

/* Group g of n <= 4 tokens from i on, their digits v and sums s, to their places: four tokens
 * are turned in registers, so that a store has all of them. The sums go to zero for now. */
static inline void put_digits(const struct tokens *b, int Kp, int g, int i, int n, int NT,
                              const __m512i v[4], const __m128i s[4]) {
    int8_t *q = b->q8 + (g * 16 * NT + i) * 4;
    int32_t *sum = b->zero + (cpu_sum_at(Kp, 16) + (size_t)g * 4) * (size_t)NT + i;
    if (NT == 1) {
        _mm512_storeu_si512(q, v[0]);
        _mm_storeu_si128((__m128i *)sum, s[0]);
        return;
    }
    if (n < 4) {
        for (int t = 0; t < n; t++) {
            int32_t digits[16], sums[4];
            _mm512_storeu_si512(digits, v[t]);
            _mm_storeu_si128((__m128i *)sums, s[t]);
            for (int c = 0; c < 16; c++)
                memcpy(q + (c * NT + t) * 4, &digits[c], 4);
            for (int c = 0; c < 4; c++)
                sum[c * NT + t] = sums[c];
        }
        return;
    }
    __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), c = _mm512_unpacklo_epi32(v[2], v[3]);
    __m512i d = _mm512_unpackhi_epi32(v[0], v[1]), e = _mm512_unpackhi_epi32(v[2], v[3]);
    const __m512i turned[4] = {_mm512_unpacklo_epi64(a, c), _mm512_unpackhi_epi64(a, c),
                               _mm512_unpacklo_epi64(d, e), _mm512_unpackhi_epi64(d, e)};
    for (int j = 0; j < 4; j++) {
        __m128i *to = (__m128i *)(void *)(q + j * NT * 4);
        _mm_storeu_si128(to, _mm512_castsi512_si128(turned[j]));
        _mm_storeu_si128(to + NT, _mm512_extracti32x4_epi32(turned[j], 1));
        _mm_storeu_si128(to + 2 * NT, _mm512_extracti32x4_epi32(turned[j], 2));
        _mm_storeu_si128(to + 3 * NT, _mm512_extracti32x4_epi32(turned[j], 3));
    }
    __m128i w = _mm_unpacklo_epi32(s[0], s[1]), x = _mm_unpacklo_epi32(s[2], s[3]);
    __m128i y = _mm_unpackhi_epi32(s[0], s[1]), z = _mm_unpackhi_epi32(s[2], s[3]);
    _mm_storeu_si128((__m128i *)sum, _mm_unpacklo_epi64(w, x));
    _mm_storeu_si128((__m128i *)(sum + NT), _mm_unpackhi_epi64(w, x));
    _mm_storeu_si128((__m128i *)(sum + 2 * NT), _mm_unpacklo_epi64(y, z));
    _mm_storeu_si128((__m128i *)(sum + 3 * NT), _mm_unpackhi_epi64(y, z));
}

/* Where the accumulators of all groups start, from the sums of their quarters, and scales from
 * tops; with `sums` also those of activations without outliers. */
static inline void end_groups(const struct tokens *b, int Kp, const int NT, bool sums) {
    const __mmask16 m = first(NT);
    const __m512 nf4 = _mm512_set1_ps(-NF4_BYTE_ZERO);
    const __m512i no = _mm512_setzero_si512();
    int32_t *of64 = b->zero, *of32 = of64 + cpu_sum_at(Kp, 32) * (size_t)NT;
    int32_t *of16 = of64 + cpu_sum_at(Kp, 16) * (size_t)NT;
    float *x16 = b->sum + cpu_sum_at(Kp, 16) * (size_t)NT;
    for (int g = 0; g < Kp / 64; g++, of64 += NT, of32 += 2 * NT, of16 += 4 * NT) {
        __m512i s[4];
        __m512 scale = _mm512_maskz_loadu_ps(m, b->scale + g * NT);
        scale = _mm512_mul_ps(scale, _mm512_set1_ps(1.0f / X8_STEPS));
        _mm512_mask_storeu_ps(b->scale + g * NT, m, scale);
        for (int j = 0; j < 4; j++) {
            s[j] = _mm512_maskz_loadu_epi32(m, of16 + j * NT);
            if (sums)
                _mm512_mask_storeu_ps(x16 + (g * 4 + j) * NT, m,
                                      _mm512_mul_ps(scale, _mm512_cvtepi32_ps(s[j])));
            _mm512_mask_storeu_epi32(of16 + j * NT, m,
                                     _mm512_sub_epi32(no, _mm512_slli_epi32(s[j], 7)));
        }
        s[0] = _mm512_add_epi32(s[0], s[1]);
        s[2] = _mm512_add_epi32(s[2], s[3]);
        for (int j = 0; j < 2; j++)
            _mm512_mask_storeu_epi32(of32 + j * NT, m,
                                     _mm512_sub_epi32(no, _mm512_slli_epi32(s[2 * j], 7)));
        s[0] = _mm512_add_epi32(s[0], s[2]);
        _mm512_mask_storeu_epi32(of64, m, _mm512_sub_epi32(no, _mm512_slli_epi32(s[0], 7)));
        _mm512_mask_storeu_epi32(
            b->zero_nf4 + g * NT, m,
            _mm512_cvtps_epi32(_mm512_mul_ps(nf4, _mm512_cvtepi32_ps(s[0]))));
    }
}

/* Adds outliers to the sums of activations over 16; sums over 32 and over 64. */
static void end_sums(const struct tokens *b, int Kp, int NT) {
    float *of64 = b->sum, *of32 = of64 + cpu_sum_at(Kp, 32) * (size_t)NT;
    float *of16 = of64 + cpu_sum_at(Kp, 16) * (size_t)NT;
    for (int o = 0; o < *b->n_outlier; o++)
        of16[b->outliers[o].k / 16 * (uint32_t)NT + b->outliers[o].token] += b->outliers[o].x;
    for (int j = 0; j < Kp / 32 * NT; j++)
        of32[j] = of16[j / NT * 2 * NT + j % NT] + of16[(j / NT * 2 + 1) * NT + j % NT];
    for (int j = 0; j < Kp / 64 * NT; j++)
        of64[j] = of32[j / NT * 2 * NT + j % NT] + of32[(j / NT * 2 + 1) * NT + j % NT];
}

/* By input; they are a few. */
static void sort_outliers(struct outlier *o, int n) {
    for (int i = 1; i < n; i++) {
        struct outlier x = o[i];
        int j = i;
        for (; j > 0 && o[j - 1].k > x.k; j--)
            o[j] = o[j - 1];
        o[j] = x;
    }
}

static inline __attribute__((always_inline)) void
quantize_tokens(const float *x, size_t ldx, const int NT, int K, bool sums, void *to) {
    const int Kp = weight_pad_k(K), G = Kp / 64;
    const struct tokens b = tokens_at(to, Kp, NT);
    *b.n_outlier = 0;
    float from[BLOCK];
    for (int i = 0; i < NT; i++)
        from[i] = group_tops(x + (size_t)i * ldx, G, NT, b.scale + i);
    for (int g = 0; g < G; g++, x += 64) {
        int32_t first_out = *b.n_outlier;
        for (int i = 0; i < NT; i += 4) {
            const int n = NT - i < 4 ? NT - i : 4;
            __m512i v[4];
            __m128i s[4];
            for (int t = 0; t < n; t++) {
                const float *at = x + (size_t)(i + t) * ldx;
                float *top = &b.scale[g * NT + i + t];
                if (*top > from[i + t])
                    take_outliers(at, g * 64, i + t, from[i + t], top, &b);
                v[t] = digits64(at, *top, &s[t]);
            }
            put_digits(&b, Kp, g, i, n, NT, v, s);
        }
        sort_outliers(b.outliers + first_out, *b.n_outlier - first_out);
    }
    end_groups(&b, Kp, NT, sums);
    if (sums)
        end_sums(&b, Kp, NT);
}

void vbmi_quantize(const float *x, size_t ldx, int NT, int K, bool sums, void *to) {
    if (NT == 1)
        quantize_tokens(x, ldx, 1, K, sums, to);
    else
        quantize_tokens(x, ldx, NT, K, sums, to);
}

/* What a kernel knows of a weight. */
struct decoder {
    __m512i bytes; /* [64] the table's 16 bytes four times */
    __m512 step;   /* of the bytes */
    __m512 values; /* the table's */
    bool nf4;      /* zero_nf4 counts */
};

static struct decoder decoder(const struct weight *w) {
    struct decoder d = {.step = _mm512_set1_ps(1)};
    uint8_t bytes[16];
    float step;
    if (w->type == WEIGHT_I8)
        return d;
    d.nf4 = q4_bytes(w, bytes, &step);
    d.bytes = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)bytes));
    d.step = _mm512_set1_ps(step);
    d.values = _mm512_loadu_ps(w->table);
    return d;
}

/* acc + the products of the four activations at q with those of each row; in assembler like
 * dot2() in avx512_int16.h. */
static inline __m512i dot4(__m512i acc, __m512i w, const int8_t *q) {
    struct four {
        int8_t q[4];
    };
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*(const struct four *)q));
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

/* Input k of 16 rows as numbers, of the tile at p. */
static inline __m512 column(const struct decoder *d, const bool q4, const uint8_t *p,
                            uint32_t k) {
    if (q4) {
        __m512i eight = _mm512_loadu_si512(p + k / 8 * 64);
        __m512i by = _mm512_set1_epi32((int)(k % 4 * 8 + k % 8 / 4 * 4));
        return _mm512_permutexvar_ps(_mm512_srlv_epi32(eight, by), d->values);
    }
    __m512i four = _mm512_loadu_si512(p + k / 4 * 64);
    four = _mm512_sllv_epi32(four, _mm512_set1_epi32((int)(24 - k % 4 * 8)));
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(four, 24));
}

/* The accumulators' starts for a weight whose groups have S inputs. */
static inline const int32_t *zeros(const struct tokens *b, const struct decoder *d, int Kp,
                                   int NT, int S) {
    return d->nf4 ? b->zero_nf4 : b->zero + cpu_sum_at(Kp, S) * (size_t)NT;
}

/* A row tile as the loops below want it. */
struct tile {
    const struct weight *w;
    int tile;
    const uint8_t *data;
    const float *scales; /* [G, 16] */
    float *room;         /* the same, where they are still to be decoded to; else NULL */
    const float *min;    /* [G, 16] or NULL */
    __mmask16 rows;      /* those that exist */
    int S, G;            /* inputs of a group; groups of a row */
};

/* The next 16 scales of a tile from its codes. They are so few beside weights that the
 * processor does not see a stream: those of the tiles that come next are asked for. */
struct scale_reader {
    int end; /* group up to which absmax2 holds */
    __m512 absmax2;
};

static inline __m512 next_scales(struct scale_reader *r, const struct tile *w, int g) {
    if (g == r->end)
        r->absmax2 = q4_absmax2_rows(w->w, w->tile, g, &r->end);
    const uint8_t *code = w->w->code + ((size_t)w->tile * (size_t)w->G + (size_t)g) * 16;
    _mm_prefetch(code + (size_t)w->G * 16 * TILES, _MM_HINT_T0);
    return q4_scales(code, r->absmax2, _mm512_set1_ps(w->w->offset));
}

/* room: [G, 16] */
static struct tile tile_at(const struct weight *w, int tile, float *room) {
    size_t Kp = (size_t)w->Kp, G = Kp / (size_t)w->group;
    return (struct tile){
        .w = w,
        .tile = tile,
        .data = (const uint8_t *)w->data + (size_t)tile * Kp * (w->type == WEIGHT_Q4 ? 8 : 16),
        .scales = w->code ? room : w->scale + (size_t)tile * G * 16,
        .room = w->code ? room : NULL,
        .min = w->min ? w->min + (size_t)tile * G * 16 : NULL,
        .rows = tile_rows(w, tile),
        .S = w->group,
        .G = (int)G,
    };
}

/* Decodes a tile's scales, for many blocks of tokens. */
static void decode_scales(struct tile *w) {
    struct scale_reader r = {0};
    for (int g = 0; g < w->G && w->room; g++)
        _mm512_store_ps(w->room + g * 16, next_scales(&r, w, g));
    w->room = NULL;
}

/* Asks for a line of weights ahead, more than once: when many are on their way the processor
 * forgets some. One token asks fastest, three times and always from AHEAD on, so that distances
 * are part of the instructions. */
static inline __attribute__((always_inline)) void ask(const uint8_t *p, size_t ahead,
                                                      const int NT) {
    if (NT > 1) {
        _mm_prefetch(p + ahead, _MM_HINT_T1);
        _mm_prefetch(p + ahead / 2, _MM_HINT_T1);
        return;
    }
    _mm_prefetch(p + AHEAD, _MM_HINT_T1);
    _mm_prefetch(p + AHEAD * 5 / 8, _MM_HINT_T1);
    _mm_prefetch(p + AHEAD * 3 / 8, _MM_HINT_T1);
}

/* One group of S inputs of NT tokens: sum += (zero + sums of digits) * scale * ws. Weights
 * `ahead` bytes behind these are asked for. */
static inline __attribute__((always_inline)) void
group(const struct decoder *d, const uint8_t *p, const int8_t *q, const int32_t *zero,
      const float *scale, __m512 ws, const int NT, const bool q4, const int S, size_t ahead,
      __m512 sum[BLOCK]) {
    __m512i acc[BLOCK], more = _mm512_setzero_si512();
#pragma GCC unroll 16
    for (int i = 0; i < NT; i++)
        acc[i] = _mm512_set1_epi32(zero[i]);
#pragma GCC unroll 1 /* unrolled, GCC 12 copies accumulators when KV is asked for, too */
    for (int b = 0; b < S; b += 8, p += q4 ? 64 : 128, q += 8 * NT) {
        __m512i v[2];
        bytes8(d, q4, p, v);
        ask(p, ahead, NT);
        if (!q4)
            ask(p + 64, ahead, NT);
        if (NT == 1) {
            acc[0] = dot4(acc[0], v[0], q);
            more = dot4(more, v[1], q + 4);
            continue;
        }
#pragma GCC unroll 16
        for (int i = 0; i < NT; i++)
            acc[i] = dot4(acc[i], v[0], q + i * 4);
#pragma GCC unroll 16
        for (int i = 0; i < NT; i++)
            acc[i] = dot4(acc[i], v[1], q + (NT + i) * 4);
    }
    if (NT == 1)
        acc[0] = _mm512_add_epi32(acc[0], more);
#pragma GCC unroll 16
    for (int i = 0; i < NT; i++)
        sum[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[i]),
                                 _mm512_mul_ps(ws, _mm512_set1_ps(scale[i])), sum[i]);
}

/* The scales of group g; one token decodes them on the way. */
static inline __attribute__((always_inline)) __m512
scales_of(struct scale_reader *r, const struct tile *w, int g, const int NT, const bool coded) {
    if (NT > 1 || !coded || !w->room)
        return _mm512_loadu_ps(w->scales + g * 16);
    __m512 scales = next_scales(r, w, g);
    _mm512_store_ps(w->room + g * 16, scales);
    return scales;
}

/* sum [n][token] += the outliers' parts of n row tiles. Tokens mostly have theirs in the same
 * inputs, whose columns are made once. Behind the digits, which read the
 * weights from front to back: the processor asks for them ahead. */
static inline __attribute__((always_inline)) void
add_outliers(const struct tile *w, const int n, const struct decoder *d, const struct tokens *b,
             const bool q4, const int S, __m512 sum[TILES][BLOCK]) {
    const struct outlier *o = b->outliers, *end = o + *b->n_outlier;
    while (o < end) {
        const uint32_t k = o->k;
        __m512 c[TILES] = {0};
#pragma GCC unroll 4
        for (int i = 0; i < n; i++)
            c[i] = _mm512_mul_ps(column(d, q4, w[i].data, k),
                                 _mm512_loadu_ps(w[i].scales + k / (uint32_t)S * 16));
        do {
            __m512 x = _mm512_set1_ps(o->x), *to = &sum[0][o->token];
#pragma GCC unroll 4
            for (int i = 0; i < n; i++)
                to[i * BLOCK] = _mm512_fmadd_ps(c[i], x, to[i * BLOCK]);
        } while (++o < end && o->k == k);
    }
}

/* One row tile, NT tokens: the sums of digits, and of minimums, to out [NT]. */
static inline __attribute__((always_inline)) void
block(const struct tile *w, const struct decoder *d, const void *at, const int NT,
      const bool q4, const bool any, size_t ahead, struct kv_ahead *kv, __m512 *out) {
    const bool coded = q4 && !any;
    const int S = any ? w->S : 64, Kp = w->w->Kp;
    const struct tokens b = tokens_at(at, Kp, NT);
    const int32_t *zero = zeros(&b, d, Kp, NT, S);
    const uint8_t *p = w->data;
    const int8_t *q = b.q8;
    struct scale_reader reader = {0};
    __m512 sum[BLOCK];
#pragma GCC unroll 16
    for (int i = 0; i < NT; i++)
        sum[i] = _mm512_setzero_ps();
    for (int g = 0; g < w->G; g++, p += S * (q4 ? 8 : 16), q += S * NT, zero += NT) {
        const __m512 base = scales_of(&reader, w, g, NT, coded);
        const float *scale = b.scale + g * S / 64 * NT;
        __m512 ws = _mm512_mul_ps(base, d->step);
        if (NT >= KV_TOKENS && kv_ahead_left(kv))
            kv_ahead_ask(kv, (size_t)S * 8);
        if (S == 64)
            group(d, p, q, zero, scale, ws, NT, q4, 64, ahead, sum);
        else if (S == 32)
            group(d, p, q, zero, scale, ws, NT, q4, 32, ahead, sum);
        else
            group(d, p, q, zero, scale, ws, NT, q4, 16, ahead, sum);
        if (!any || !w->min)
            continue;
        ws = _mm512_loadu_ps(w->min + g * 16);
        const float *x = b.sum + (cpu_sum_at(Kp, S) + (size_t)g) * (size_t)NT;
#pragma GCC unroll 16
        for (int i = 0; i < NT; i++)
            sum[i] = add_min(sum[i], ws, x[i]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < NT; i++)
        out[i] = sum[i];
}

/* block() with each of n row tiles. For each kind of weight and number of tokens a function of
 * its own: a single one is as fast, but lives out of spilled registers and takes five times as
 * long to compile. */
typedef void tiles_fn(const struct tile *w, int n, const struct decoder *d, const void *at,
                      size_t ahead, struct kv_ahead *kv, __m512 sum[TILES][BLOCK]);
#define KIND(NAME, NT, Q4, ANY)                                                                \
    static void NAME##_##NT(const struct tile *w, int n, const struct decoder *d,              \
                            const void *at, size_t ahead, struct kv_ahead *kv,                 \
                            __m512 sum[TILES][BLOCK]) {                                        \
        for (int i = 0; i < n; i++)                                                            \
            block(&w[i], d, at, NT, Q4, ANY, ahead, kv, sum[i]);                               \
    }
#define KINDS(NT)                                                                              \
    KIND(q4_plain, NT, true, false)                                                            \
    KIND(q4_any, NT, true, true)                                                               \
    KIND(i8_plain, NT, false, false)                                                           \
    KIND(i8_any, NT, false, true)
KINDS(1)
KINDS(2)
KINDS(3)
KINDS(4)
KINDS(5)
KINDS(6)
KINDS(7)
KINDS(8)
KINDS(9)
KINDS(10)
KINDS(11)
KINDS(12)
KINDS(13)
KINDS(14)
KINDS(15)
KINDS(16)

#define UP_TO_16(f)                                                                            \
    {                                                                                          \
        f##1, f##2, f##3, f##4, f##5, f##6, f##7, f##8, f##9, f##10, f##11, f##12, f##13,      \
            f##14, f##15, f##16                                                                \
    }
static tiles_fn *const all_tiles[2][2][BLOCK] = {
    /* [q4][any][NT - 1] */
    {UP_TO_16(i8_plain_), UP_TO_16(i8_any_)},
    {UP_TO_16(q4_plain_), UP_TO_16(q4_any_)},
};

/* n <= TILES row tiles meet a block of NT tokens. Wide rows go past the cache: where the
 * other core had read them last, getting their lines took a third of the time of the head. */
static void tiles(const struct tile *w, int n, const struct decoder *d, const void *at, int NT,
                  bool q4, bool any, size_t ahead, struct kv_ahead *kv, float *y, size_t ldy,
                  bool add) {
    const struct tokens b = tokens_at(at, w->w->Kp, NT);
    const int S = any ? w->S : 64;
    const bool stream = NT > 1 && ldy >= WIDE && !add && ((uintptr_t)y | ldy * 4) % 64 == 0;
    __m512 sum[TILES][BLOCK];
    all_tiles[q4][any][NT - 1](w, n, d, at, ahead, kv, sum);
    if (q4 && n == TILES)
        add_outliers(w, TILES, d, &b, true, S, sum);
    else
        add_outliers(w, n, d, &b, q4, S, sum);
    for (int i = 0; i < n; i++, w++, y += 16)
        for (int t = 0; t < NT; t++) {
            float *to = y + (size_t)t * ldy;
            if (stream && w->rows == 0xffff)
                _mm512_stream_ps(to, sum[i][t]);
            else
                put_rows(to, sum[i][t], w->rows, add);
        }
}

void vbmi_matmul(const struct cpu_input *in, const struct weight *w, int tile, int n_tile,
                 float *y, size_t ldy, bool add, void *scratch) {
    const bool q4 = w->type == WEIGHT_Q4, any = !plain_groups(w);
    if (!q4 && w->type != WEIGHT_I8) {
        avx512_matmul_float(in, w, tile, n_tile, y, ldy, add);
        return;
    }
    const struct decoder d = decoder(w);
    const size_t G = (size_t)(w->Kp / w->group);
    for (; n_tile > 0; n_tile -= TILES, tile += TILES, y += TILES * 16) {
        struct tile part[TILES];
        int n = n_tile < TILES ? n_tile : TILES;
        for (int i = 0; i < n; i++) {
            part[i] = tile_at(w, tile + i, (float *)scratch + (size_t)i * G * 16);
            if (in->T > 1)
                decode_scales(&part[i]);
        }
        for (int t = 0; t < in->T; t += BLOCK) {
            int NT = in->T - t < BLOCK ? in->T - t : BLOCK;
            size_t ahead = t == 0 ? AHEAD : 0; /* later ones find the tiles in the cache */
            tiles(part, n, &d, in->rows + (size_t)(t / BLOCK) * in->block_bytes, NT, q4, any,
                  ahead, in->kv, y + (size_t)t * ldy, ldy, add);
        }
    }
    if (ldy >= WIDE)
        _mm_sfence(); /* behind streamed rows */
}

const struct cpu_kernels cpu_avx512_vbmi = {
    .name = "avx512",
    .kv = KV_F16,
    .block = BLOCK,
    .block_bytes = vbmi_block_bytes,
    .quantize = vbmi_quantize,
    .matmul = vbmi_matmul,
    AVX512_ROWS,
    .att_chunk = avx512_att_chunk,
};
#endif
