/*
 * simd.h - what the vector kernel sets share: tables made from a weight, and the numbers of
 * exp.
 *
 * A 4-bit table is used as int16 words times a step, see q4_words(), and 64 activations as
 * round(x / absmax * X_STEPS). The sum of 64 products stays below 2^31: 64 * 4095 * 8191 =
 * 2146697280 for Q4, less for the 128 steps of I8.
 *
 * The 8-bit dynamic map of the scales is affine between powers of two: with a = |code - 127|
 * and 2^i <= a < 2^(i+1), value = sign * (BASE[i] + SLOPE[i] * a),  SLOPE[i] = 0.9 * 10^(i-6) /
 * 2^i,  BASE[i] = 10^(i-6) (0.45 / 2^i - 0.8) for i = 0 .. 6; a = 0 is 0 and a = 128 (code 255)
 * is 1. A vector of codes is decoded in about ten instructions, a gather from the table costs
 * twice that. test_ops holds the formula against the table.
 */
#ifndef LLMCHAT_ENGINE_CPU_SIMD_H
#define LLMCHAT_ENGINE_CPU_SIMD_H

#include "engine/cpu/cpu.h"
#include "engine/quant/quant.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define Q4_STEPS    4095
#define X_STEPS     8191
#define X8_STEPS    127
#define KV_I8_STEPS 127

/* Activations of 8 bits: those of a group above `from`, this many times the mean of all groups'
 * largest ones, are outliers where they are worth it, see take_outliers(). A group's error is
 * as the square of its top. KL divergence from exact products on prose (SmolLM2-135M in NF4,
 * two texts; the table's bytes alone: 0.5e-3, 0.8e-3), and how many there are:
 *
 *   from 1,    gain 0:   1.2e-3, 1.5e-3, 0.8 %
 *              gain 0.6: 1.2e-3, 1.6e-3, 0.5 %
 *              gain 1:   1.3e-3, 1.8e-3, 0.4 %
 *   from 0.85, gain 0.6: 1.0e-3, 1.5e-3, 0.75 %
 *   from 1.25, gain 0:   1.4e-3, 1.6e-3, 0.4 %   (with a cache of f16, as the next)
 *   from 2,    gain 0:   2.4e-3, 2.9e-3, 0.1 % */
#define CPU_OUTLIER_FROM 1.0f
#define CPU_OUTLIER_GAIN 0.6f
#define NO_STEP          1e-30f /* what is not above it counts as 0 */

#define MAP_SLOPES                                                                             \
    0.9e-6f, 0.45e-5f, 0.225e-4f, 0.1125e-3f, 0.05625e-2f, 0.028125e-1f, 0.0140625f, 0.0f
#define MAP_BASES                                                                              \
    -0.35e-6f, -0.575e-5f, -0.6875e-4f, -0.74375e-3f, -0.771875e-2f, -0.7859375e-1f,           \
        -0.79296875f, 1.0f

/* exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= 0.347; Taylor to r^7, whose remainder is
 * below 6e-9. */
#define EXP_LOG2E  1.44269504f
#define EXP_LN2_HI 0.693359375f
#define EXP_LN2_LO -2.12194440e-4f
#define EXP_C2     0.5f
#define EXP_C3     0.166666667f
#define EXP_C4     0.0416666667f
#define EXP_C5     0.00833333333f
#define EXP_C6     0.00138888889f
#define EXP_C7     1.98412698e-4f

/* gelu(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), or x/2 (1 + erf(x / sqrt(2))) */
#define GELU_TANH_A   0.797884561f
#define GELU_TANH_B   0.044715f
#define GELU_ERF_A    0.707106781f
#define GPT_OSS_ALPHA 1.702f /* ACT_GPT_OSS, model.h */
#define GPT_OSS_LIMIT 7.0f

/* How one token's K or V of one head stands in an int8 cache: x as round(x * *inv) times the
 * returned scale, symmetric about 0. top: the bits of the largest |x|, which order as integers
 * as the numbers do, infinity and NaN above all others. Where something is not finite the scale
 * is NaN, so that it shows; *inv is 0 then, and where all is (nearly) 0. */
static inline float kv_i8_scale(uint32_t top, float *inv) {
    float absmax;
    memcpy(&absmax, &top, sizeof absmax);
    *inv = 0;
    if (top >= 0x7f800000)
        return NAN;
    if (absmax < 1e-30f)
        return 0;
    *inv = KV_I8_STEPS / absmax;
    return absmax / KV_I8_STEPS;
}

/* The vector kernels read the numbers of a cache over this, and multiply sums by it: the bits
 * of fp8 are, but for their place, those of f16 over 2^8. */
static inline float kv_unit(enum kv_type type) {
    return type == KV_FP8 ? 256 : 1;
}

/* kv_put for a cache of floats. */
static inline void kv_put_f32(const float *k, const float *v, size_t D, int slot, float *dst_k,
                              float *dst_v) {
    for (size_t d = 0; d < D; d++)
        dst_k[d * 16 + (size_t)slot] = k[d];
    memcpy(dst_v + (size_t)slot * D, v, D * sizeof *v);
}

/* The largest number of which all 16 values are multiples, or about so; 0 when it is less than
 * the top / Q4_STEPS: Euclid's algorithm. */
static inline double q4_unit(const float table[16], double top) {
    double unit = 0;
    for (int i = 0; i < 16; i++) {
        double rest = fabs((double)table[i]);
        while (rest > top / (2 * Q4_STEPS)) {
            double next = unit - floor(unit / rest) * rest;
            unit = rest;
            rest = next;
        }
    }
    return unit;
}

/* Words and a step with table[i] = word[i] * *step: to f32's precision where the values are
 * multiples, up to Q4_STEPS, of one number (the integers of Q4_0 and IQ4_NL, FP4's 192nds),
 * else to half a step of top / Q4_STEPS (NF4). Finite values. Called once for a few tiles, so
 * what is common is found at once. */
static inline void q4_words(const struct weight *w, int16_t word[16], float *step) {
    static const int16_t nf4[16] = {-4095, -2851, -2150, -1617, -1165, -757, -373, 0,
                                    326,   659,   1008,  1384,  1805,  2304, 2961, 4095};
    if (memcmp(w->table, nf4_table, sizeof w->table) == 0) {
        memcpy(word, nf4, sizeof nf4);
        *step = 1.0f / Q4_STEPS;
        return;
    }
    bool whole = true;
    double top = 0, steps = Q4_STEPS; /* steps of the top */
    for (int i = 0; i < 16; i++) {
        float v = w->table[i], a = fabsf(v);
        top = (double)a > top ? (double)a : top;
        whole = whole && a <= Q4_STEPS && (float)(int)v == v;
    }
    if (whole) {
        top = steps;
    } else {
        steps = fmin(rint(top / q4_unit(w->table, top)), Q4_STEPS);
        for (int i = 0; i < 16; i++) {
            double v = (double)w->table[i] / top, near = rint(v * steps) / steps;
            if (fabs(near - v) > 0x1p-23 * fabs(v))
                steps = Q4_STEPS;
        }
    }
    double per_value = steps / top;
    for (int i = 0; i < 16; i++)
        word[i] = (int16_t)lrint((double)w->table[i] * per_value);
    *step = (float)(top / steps);
}

/* 16 values of a table as bytes: table[i] = (byte[i] - zero) * *step, as near as 256 steps
 * allow; zero is 128, or NF4_BYTE_ZERO where true is returned.
 *
 * NF4's are those of least squared error over the step and a zero between two bytes: the values
 * weighted by how often they occur in normal weights are off by 0.0013 on average, 0.0023 with
 * 127 steps to each side. Tables whose values are multiples of one number, up to 127 of it, are
 * exact; the others get 127 steps. */
#define NF4_BYTE_ZERO 128.16f
static inline bool q4_bytes(const struct weight *w, uint8_t byte[16], float *step) {
    static const int8_t nf4[16] = {-124, -86, -65, -49, -35, -23, -11, 0,
                                   10,   20,  31,  42,  55,  70,  90,  124};
    int16_t word[16];
    int top = 0;
    if (memcmp(w->table, nf4_table, sizeof w->table) == 0 && w->group == 64) {
        for (int i = 0; i < 16; i++)
            byte[i] = (uint8_t)(nf4[i] + 128);
        *step = 1 / 124.095f;
        return true;
    }
    q4_words(w, word, step);
    for (int i = 0; i < 16; i++)
        top = abs(word[i]) > top ? abs(word[i]) : top;
    float per_word = top > 127 ? 127 / (float)top : 1;
    for (int i = 0; i < 16; i++)
        byte[i] = (uint8_t)(128 + lrintf((float)word[i] * per_word));
    *step /= per_word;
    return false;
}

/* The groups of a weight for a kernel that takes every kind: S inputs of a group, G groups of a
 * row, activation scale g >> shift for group g, sums of activations from in->sum + sum on. */
struct groups {
    int S, shift;
    size_t G, sum;
};

static inline struct groups weight_groups(const struct weight *w) {
    int shift = w->group == 64 ? 0 : w->group == 32 ? 1 : 2;
    size_t G = (size_t)(w->Kp / w->group);
    return (struct groups){w->group, shift, G, cpu_sum_at(w->Kp, w->group)};
}

/* The kinds that have kernels of their own: Q4 with a code, and I8 with one scale each 64
 * inputs and no minimum. */
static inline bool plain_groups(const struct weight *w) {
    return w->code || (w->type == WEIGHT_I8 && w->group == 64 && !w->min);
}

/* The second-level scales of a tile's 16 rows at group g, for the groups from g on to *end:
 * they change where the running index crosses a multiple of 256. */
static inline void q4_absmax2(const struct weight *w, int tile, int g, float out[16],
                              int *end) {
    size_t G = (size_t)w->Kp / WEIGHT_GROUP, last = (size_t)w->N * G - 1;
    *end = (int)G;
    for (int r = 0; r < 16; r++) {
        size_t at = (size_t)(tile * 16 + r) * G + (size_t)g;
        at = at < last ? at : last;
        out[r] = w->absmax2[at / WEIGHT_SCALE_BLOCK];
        size_t next = (at / WEIGHT_SCALE_BLOCK + 1) * WEIGHT_SCALE_BLOCK - at + (size_t)g;
        if (next < (size_t)*end)
            *end = (int)next;
    }
}

#endif
