/*
 * avx2_matmul.c - products with weights, AVX2. The formulas and the promise about bits are
 * those of avx512_int8.h.
 *
 * A row tile is two halves of 8 rows. vpmaddubsw wants one unsigned operand and saturates at
 * 2^15: it gets |w| and the activation with w's sign (vpsignb), whose pair sums are at most 2 *
 * 127 * 127. The nibbles' |w| comes from a second table. Offset weights (w + 128) would save
 * the sign but overflow.
 *
 * Few tokens (up to 4 at a time) unpack nibbles in registers; many run over a tile expanded to
 * signed bytes.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx2,fma,f16c")

#include "engine/cpu/avx2.h"
#include "engine/cpu/avx2_inline.h"
#include <string.h>

enum { BLOCK = 4, PANEL_FROM = 9 /* tokens */ };

struct q4_decoder {
    __m256i table, sizes, low; /* signed bytes, their absolute values, 15 */
    __m256 slope, base;
};

static struct q4_decoder q4_decoder(const struct weight *w) {
    static const float slopes[8] = {MAP_SLOPES}, bases[8] = {MAP_BASES};
    int8_t bytes[16];
    struct q4_decoder d;
    q4_bytes(w, bytes);
    d.table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)bytes));
    d.sizes = _mm256_abs_epi8(d.table);
    d.low = _mm256_set1_epi8(15);
    d.slope = _mm256_loadu_ps(slopes);
    d.base = _mm256_loadu_ps(bases);
    return d;
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

static inline __m256i bcast4(const int8_t *q) {
    int32_t four;
    memcpy(&four, q, 4);
    return _mm256_set1_epi32(four);
}

static inline __m256i dot4(__m256i acc, __m256i w, __m256i size, __m256i q) {
    __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(q, w));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
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

/* Half h of a row tile, NT tokens from t on; Q4 or I8. */
static inline __attribute__((always_inline)) void
few_block(const struct cpu_input *in, const struct weight *w, const struct q4_decoder *d,
          int tile, int h, int t, const int NT, const bool q4, float *y, size_t ldy, bool add) {
    size_t Kp = (size_t)w->Kp, G = Kp / 64;
    const int8_t *p = (const int8_t *)w->data + (size_t)tile * Kp * (q4 ? 8 : 16) + h * 32;
    const int8_t *q = in->q + (size_t)t * Kp;
    const float *xs = in->scale + (size_t)t * G;
    __m256 sum[BLOCK], absmax2 = _mm256_setzero_ps(), offset = _mm256_set1_ps(w->offset);
    float a2[16];
    int end = 0;
#pragma GCC unroll 4
    for (int i = 0; i < NT; i++)
        sum[i] = _mm256_setzero_ps();
    for (int g = 0; g < (int)G; g++, q += 64) {
        size_t at = ((size_t)tile * G + (size_t)g) * 16 + (size_t)h * 8;
        __m256i acc[BLOCK];
        __m256 ws;
        if (q4 && g == end) {
            q4_absmax2(w, tile, g, a2, &end);
            absmax2 = _mm256_loadu_ps(a2 + h * 8);
        }
        ws = q4 ? q4_scales(d, w->code + at, absmax2, offset) : _mm256_loadu_ps(w->scale + at);
#pragma GCC unroll 4
        for (int i = 0; i < NT; i++)
            acc[i] = _mm256_setzero_si256();
        for (int b = 0; b < (q4 ? 8 : 16); b++, p += 64) {
            __m256i v = _mm256_loadu_si256((const __m256i *)p);
            if (!q4) {
                __m256i size = _mm256_abs_epi8(v);
#pragma GCC unroll 4
                for (int i = 0; i < NT; i++)
                    acc[i] = dot4(acc[i], v, size, bcast4(q + (size_t)i * Kp + b * 4));
                continue;
            }
            __m256i lo = _mm256_and_si256(v, d->low);
            __m256i hi = _mm256_and_si256(_mm256_srli_epi16(v, 4), d->low);
            __m256i wl = _mm256_shuffle_epi8(d->table, lo),
                    sl = _mm256_shuffle_epi8(d->sizes, lo);
            __m256i wh = _mm256_shuffle_epi8(d->table, hi),
                    sh = _mm256_shuffle_epi8(d->sizes, hi);
#pragma GCC unroll 4
            for (int i = 0; i < NT; i++) {
                const int8_t *qi = q + (size_t)i * Kp + b * 8;
                acc[i] = dot4(dot4(acc[i], wl, sl, bcast4(qi)), wh, sh, bcast4(qi + 4));
            }
        }
#pragma GCC unroll 4
        for (int i = 0; i < NT; i++)
            sum[i] = add_group(sum[i], acc[i], ws, xs[(size_t)i * G + (size_t)g]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < NT; i++)
        put_rows(y + (size_t)(t + i) * ldy + h * 8, sum[i], half_rows(w, tile, h), add);
}

#define FEW_CASES(q4)                                                                          \
    switch (n) {                                                                               \
    case 1:                                                                                    \
        few_block(in, w, d, tile, h, t, 1, q4, y, ldy, add);                                   \
        break;                                                                                 \
    case 2:                                                                                    \
        few_block(in, w, d, tile, h, t, 2, q4, y, ldy, add);                                   \
        break;                                                                                 \
    case 3:                                                                                    \
        few_block(in, w, d, tile, h, t, 3, q4, y, ldy, add);                                   \
        break;                                                                                 \
    default:                                                                                   \
        few_block(in, w, d, tile, h, t, 4, q4, y, ldy, add);                                   \
    }

static void few_tokens(const struct cpu_input *in, const struct weight *w,
                       const struct q4_decoder *d, int tile, float *y, size_t ldy, bool add) {
    for (int h = 0; h < 2; h++)
        for (int t = 0; t < in->T; t += BLOCK) {
            int n = in->T - t;
            if (w->type == WEIGHT_Q4)
                FEW_CASES(true)
            else
                FEW_CASES(false)
        }
}

/* A Q4 tile as signed bytes [Kp/4, 16, 4] and scales [G, 16]. */
static void expand_q4(const struct weight *w, const struct q4_decoder *d, int tile,
                      int8_t *bytes, float *scales) {
    size_t Kp = (size_t)w->Kp, G = Kp / 64;
    const uint8_t *p = (const uint8_t *)w->data + (size_t)tile * Kp * 8;
    for (size_t i = 0; i < Kp / 8; i++)
        for (size_t h = 0; h < 64; h += 32) {
            __m256i v = _mm256_loadu_si256((const __m256i *)(p + i * 64 + h));
            __m256i lo = _mm256_and_si256(v, d->low);
            __m256i hi = _mm256_and_si256(_mm256_srli_epi16(v, 4), d->low);
            _mm256_storeu_si256((__m256i *)(bytes + i * 128 + h),
                                _mm256_shuffle_epi8(d->table, lo));
            _mm256_storeu_si256((__m256i *)(bytes + i * 128 + 64 + h),
                                _mm256_shuffle_epi8(d->table, hi));
        }
    int end = 0;
    float a2[16];
    for (int g = 0; g < (int)G; g++) {
        if (g == end)
            q4_absmax2(w, tile, g, a2, &end);
        for (size_t h = 0; h < 16; h += 8)
            _mm256_storeu_ps(scales + (size_t)g * 16 + h,
                             q4_scales(d, w->code + ((size_t)tile * G + (size_t)g) * 16 + h,
                                       _mm256_loadu_ps(a2 + h), _mm256_set1_ps(w->offset)));
    }
}

/* A tile of signed bytes times NT tokens from t on. */
static inline __attribute__((always_inline)) void
panel_block(const struct cpu_input *in, const struct weight *w, int tile, const int8_t *bytes,
            const float *scales, int t, const int NT, float *y, size_t ldy, bool add) {
    size_t Kp = (size_t)w->Kp, G = Kp / 64;
    const int8_t *q = in->q + (size_t)t * Kp;
    const float *xs = in->scale + (size_t)t * G;
    __m256 sum[BLOCK][2];
#pragma GCC unroll 4
    for (int i = 0; i < NT; i++)
        sum[i][0] = sum[i][1] = _mm256_setzero_ps();
    for (size_t g = 0; g < G; g++, q += 64) {
        __m256i acc[BLOCK][2];
#pragma GCC unroll 4
        for (int i = 0; i < NT; i++)
            acc[i][0] = acc[i][1] = _mm256_setzero_si256();
        for (int k = 0; k < 64; k += 4, bytes += 64) {
            __m256i v0 = _mm256_loadu_si256((const __m256i *)bytes);
            __m256i v1 = _mm256_loadu_si256((const __m256i *)(bytes + 32));
            __m256i s0 = _mm256_abs_epi8(v0), s1 = _mm256_abs_epi8(v1);
#pragma GCC unroll 4
            for (int i = 0; i < NT; i++) {
                __m256i x = bcast4(q + (size_t)i * Kp + k);
                acc[i][0] = dot4(acc[i][0], v0, s0, x);
                acc[i][1] = dot4(acc[i][1], v1, s1, x);
            }
        }
        __m256 w0 = _mm256_loadu_ps(scales + g * 16), w1 = _mm256_loadu_ps(scales + g * 16 + 8);
#pragma GCC unroll 4
        for (int i = 0; i < NT; i++) {
            sum[i][0] = add_group(sum[i][0], acc[i][0], w0, xs[(size_t)i * G + g]);
            sum[i][1] = add_group(sum[i][1], acc[i][1], w1, xs[(size_t)i * G + g]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < NT; i++) {
        put_rows(y + (size_t)(t + i) * ldy, sum[i][0], half_rows(w, tile, 0), add);
        put_rows(y + (size_t)(t + i) * ldy + 8, sum[i][1], half_rows(w, tile, 1), add);
    }
}

static void many_tokens(const struct cpu_input *in, const struct weight *w,
                        const struct q4_decoder *d, int tile, float *y, size_t ldy, bool add,
                        int8_t *scratch) {
    size_t Kp = (size_t)w->Kp;
    const int8_t *bytes = (const int8_t *)w->data + (size_t)tile * Kp * 16;
    const float *scales = w->scale + (size_t)tile * (Kp / 64) * 16;
    if (w->type == WEIGHT_Q4) {
        float *to = (float *)(void *)(scratch + Kp * 16);
        expand_q4(w, d, tile, scratch, to);
        bytes = scratch;
        scales = to;
    }
    int t = 0;
    for (; t + 4 <= in->T; t += 4)
        panel_block(in, w, tile, bytes, scales, t, 4, y, ldy, add);
    for (; t < in->T; t++)
        panel_block(in, w, tile, bytes, scales, t, 1, y, ldy, add);
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
    for (int i = 0; i < n_tile; i++) {
        if (in->T < PANEL_FROM)
            few_tokens(in, w, &d, tile + i, y + i * 16, ldy, add);
        else
            many_tokens(in, w, &d, tile + i, y + i * 16, ldy, add, scratch);
    }
}
#endif
