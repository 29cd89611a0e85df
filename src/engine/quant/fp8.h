/*
 * fp8.h - a number of 8 bits: a sign, 4 bits of exponent (bias 7), 3 of mantissa. E4M3 of
 * Micikevicius et al. 2022 (arXiv:2209.05433), "e4m3fn" elsewhere: exponent 15 is an exponent
 * like the others, so that 448 is the largest number and there is no infinity; but with
 * mantissa 7 it is NaN. Exponent 0 has the multiples of 2^-9.
 *
 * For the host and for kernels.
 */
#ifndef LLMCHAT_ENGINE_QUANT_FP8_H
#define LLMCHAT_ENGINE_QUANT_FP8_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define FP8_INLINE static inline __host__ __device__
#else
#define FP8_INLINE static inline
#endif

/* Exact. */
FP8_INLINE float fp8_to_f32(uint8_t code) {
    uint32_t sign = (uint32_t)(code & 0x80) << 24, low = code & 0x7f, bits;
    float f;
    if (low < 8) {
        f = (float)low * 0x1p-9f;
        return sign ? -f : f;
    }
    bits = sign | (low == 0x7f ? 0x7ff00000u : (low + ((127 - 7) << 3)) << 20);
    memcpy(&f, &bits, 4);
    return f;
}

/* Nearest, ties to even; saturates at +-448, infinity too; NaN stays NaN. */
FP8_INLINE uint8_t fp8_from_f32(float f) {
    uint32_t bits, low;
    float a = fabsf(f);
    memcpy(&bits, &f, 4);
    uint8_t sign = (uint8_t)(bits >> 24 & 0x80);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000)
        return sign | 0x7f;
    if (a >= 448.0f)
        return sign | 0x7e;
    if (a < 0x1p-6f) { /* a sum with 2^14 is a multiple of 2^-9 */
        a += 0x1p14f;
        memcpy(&low, &a, 4);
        return (uint8_t)(sign | (low - 0x46800000));
    }
    bits += 0x7ffff + (bits >> 20 & 1);
    return (uint8_t)(sign | ((bits >> 20) - ((127 - 7) << 3)));
}

#endif
