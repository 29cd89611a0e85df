/*
 * ggml_types.c - values of GGUF tensor types as f32.
 *
 * All block formats share one idea: a few small integers, a scale, sometimes an offset. The
 * 32-element ones (Q4_0 … Q8_0) keep one f16 scale (and for the _1 types an f16 minimum); low
 * nibbles are elements 0..15, high nibbles 16..31, and the fifth bits of Q5 are one
 * little-endian u32. The K types cover 256 elements in groups of 32 (Q4_K, Q5_K: 6-bit scales
 * and minimums packed into 12 bytes) or 16 (Q6_K: 8-bit scales).
 *
 * Each product and sum below is one f32 operation in a fixed order, since the results must be
 * bit-equal to the gguf Python package (tests/golden/quant). Speed matters little: this runs
 * once, when a model is created.
 *
 * Layouts: ggml's block definitions (ggml-common.h), as published with the GGUF format.
 */
#include "engine/quant/ggml_types.h"

#include <string.h>

float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = (h >> 10) & 31, man = h & 0x3ff, bits;
    float f;
    if (exp == 31)
        bits = sign | 0x7f800000 | man << 13;
    else if (exp)
        bits = sign | (exp + 112) << 23 | man << 13;
    else { /* zero or subnormal: man * 2^-24, exact in f32 */
        f = (float)man * 0x1p-24f;
        return sign ? -f : f;
    }
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint16_t load_u16(const unsigned char *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static float load_f16(const unsigned char *p) {
    return f16_to_f32(load_u16(p));
}

static uint32_t load_u32(const unsigned char *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void dequant_f32(const unsigned char *src, float *dst, size_t n) {
    memcpy(dst, src, n * sizeof *dst);
}

static void dequant_f16(const unsigned char *src, float *dst, size_t n) {
    for (size_t i = 0; i < n; i++)
        dst[i] = load_f16(src + 2 * i);
}

static void dequant_bf16(const unsigned char *src, float *dst, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)load_u16(src + 2 * i) << 16;
        memcpy(dst + i, &bits, sizeof bits);
    }
}

/* block: f16 d, u8 q[16]; w = (q - 8) d */
static void dequant_q4_0(const unsigned char *src, float *dst, size_t n) {
    for (size_t b = 0; b < n / 32; b++, src += 18, dst += 32) {
        float d = load_f16(src);
        for (int j = 0; j < 16; j++) {
            dst[j] = (float)((src[2 + j] & 15) - 8) * d;
            dst[j + 16] = (float)((src[2 + j] >> 4) - 8) * d;
        }
    }
}

/* block: f16 d, f16 m, u8 q[16]; w = q d + m */
static void dequant_q4_1(const unsigned char *src, float *dst, size_t n) {
    for (size_t b = 0; b < n / 32; b++, src += 20, dst += 32) {
        float d = load_f16(src), m = load_f16(src + 2);
        for (int j = 0; j < 16; j++) {
            dst[j] = (float)(src[4 + j] & 15) * d + m;
            dst[j + 16] = (float)(src[4 + j] >> 4) * d + m;
        }
    }
}

/* block: f16 d, u32 h, u8 q[16]; bit j of h is the fifth bit of element j; w = (q - 16) d */
static void dequant_q5_0(const unsigned char *src, float *dst, size_t n) {
    for (size_t b = 0; b < n / 32; b++, src += 22, dst += 32) {
        float d = load_f16(src);
        uint32_t h = load_u32(src + 2);
        for (int j = 0; j < 16; j++) {
            int lo = (src[6 + j] & 15) | (int)(h >> j & 1) << 4;
            int hi = src[6 + j] >> 4 | (int)(h >> (j + 16) & 1) << 4;
            dst[j] = (float)(lo - 16) * d;
            dst[j + 16] = (float)(hi - 16) * d;
        }
    }
}

/* block: f16 d, f16 m, u32 h, u8 q[16]; w = q d + m */
static void dequant_q5_1(const unsigned char *src, float *dst, size_t n) {
    for (size_t b = 0; b < n / 32; b++, src += 24, dst += 32) {
        float d = load_f16(src), m = load_f16(src + 2);
        uint32_t h = load_u32(src + 4);
        for (int j = 0; j < 16; j++) {
            int lo = (src[8 + j] & 15) | (int)(h >> j & 1) << 4;
            int hi = src[8 + j] >> 4 | (int)(h >> (j + 16) & 1) << 4;
            dst[j] = (float)lo * d + m;
            dst[j + 16] = (float)hi * d + m;
        }
    }
}

/* block: f16 d, i8 q[32]; w = q d */
static void dequant_q8_0(const unsigned char *src, float *dst, size_t n) {
    for (size_t b = 0; b < n / 32; b++, src += 34, dst += 32) {
        float d = load_f16(src);
        for (int j = 0; j < 32; j++)
            dst[j] = (float)(int8_t)src[2 + j] * d;
    }
}

/* The 6-bit scale and minimum of group g (0..7) from the 12 bytes of a Q4_K or Q5_K block:
 * groups 0..3 lie in the low six bits of bytes g and g + 4; groups 4..7 have their low four
 * bits in byte g + 4 and the upper two in the spare bits. */
static void k_scale(const unsigned char *s, int g, int *scale, int *min) {
    if (g < 4) {
        *scale = s[g] & 63;
        *min = s[g + 4] & 63;
    } else {
        *scale = (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
        *min = s[g + 4] >> 4 | s[g] >> 6 << 4;
    }
}

/* block: f16 d, f16 dmin, u8 scales[12], u8 q[128]; groups 2i and 2i + 1 are the low and high
 * nibbles of q[32 i ..]; w = (d scale) q - (dmin min) */
static void dequant_q4_k(const unsigned char *src, float *dst, size_t n) {
    for (size_t b = 0; b < n / 256; b++, src += 144, dst += 256) {
        float d = load_f16(src), dmin = load_f16(src + 2);
        for (int g = 0; g < 8; g++) {
            const unsigned char *q = src + 16 + g / 2 * 32;
            int scale, min;
            k_scale(src + 4, g, &scale, &min);
            float dg = d * (float)scale, mg = dmin * (float)min;
            for (int j = 0; j < 32; j++)
                dst[g * 32 + j] = dg * (float)(q[j] >> (g & 1) * 4 & 15) - mg;
        }
    }
}

/* block: f16 d, f16 dmin, u8 scales[12], u8 h[32], u8 q[128]; bit g of h[j] is the fifth bit of
 * element j of group g */
static void dequant_q5_k(const unsigned char *src, float *dst, size_t n) {
    for (size_t b = 0; b < n / 256; b++, src += 176, dst += 256) {
        float d = load_f16(src), dmin = load_f16(src + 2);
        const unsigned char *h = src + 16;
        for (int g = 0; g < 8; g++) {
            const unsigned char *q = src + 48 + g / 2 * 32;
            int scale, min;
            k_scale(src + 4, g, &scale, &min);
            float dg = d * (float)scale, mg = dmin * (float)min;
            for (int j = 0; j < 32; j++) {
                int v = (q[j] >> (g & 1) * 4 & 15) | (h[j] >> g & 1) << 4;
                dst[g * 32 + j] = dg * (float)v - mg;
            }
        }
    }
}

/* block: u8 l[128], u8 h[64], i8 scales[16], f16 d. Two halves of 128; in a half quarter i
 * (0..3, 32 elements) has its low nibbles in l[32 (i & 1) ..], low ones for i < 2, and its
 * upper two bits in bits 2i of h[]; a scale covers 16 elements; w = (d scale) (q - 32) */
static void dequant_q6_k(const unsigned char *src, float *dst, size_t n) {
    for (size_t b = 0; b < n / 256; b++, src += 210, dst += 256) {
        float d = load_f16(src + 208);
        for (int e = 0; e < 256; e++) {
            int half = e >> 7, i = e >> 5 & 3, j = e & 31;
            int lo = src[half * 64 + (i & 1) * 32 + j] >> (i >> 1) * 4 & 15;
            int hi = src[128 + half * 32 + j] >> i * 2 & 3;
            float dg = d * (float)(int8_t)src[192 + e / 16];
            dst[e] = dg * (float)((lo | hi << 4) - 32);
        }
    }
}

static const struct ggml_type_row rows[] = {
    {0, "F32", 1, 4, dequant_f32},
    {1, "F16", 1, 2, dequant_f16},
    {2, "Q4_0", 32, 18, dequant_q4_0},
    {3, "Q4_1", 32, 20, dequant_q4_1},
    {6, "Q5_0", 32, 22, dequant_q5_0},
    {7, "Q5_1", 32, 24, dequant_q5_1},
    {8, "Q8_0", 32, 34, dequant_q8_0},
    {9, "Q8_1", 32, 36, NULL},
    {10, "Q2_K", 256, 84, NULL},
    {11, "Q3_K", 256, 110, NULL},
    {12, "Q4_K", 256, 144, dequant_q4_k},
    {13, "Q5_K", 256, 176, dequant_q5_k},
    {14, "Q6_K", 256, 210, dequant_q6_k},
    {15, "Q8_K", 256, 292, NULL},
    {16, "IQ2_XXS", 256, 66, NULL},
    {17, "IQ2_XS", 256, 74, NULL},
    {18, "IQ3_XXS", 256, 98, NULL},
    {19, "IQ1_S", 256, 50, NULL},
    {20, "IQ4_NL", 32, 18, NULL},
    {21, "IQ3_S", 256, 110, NULL},
    {22, "IQ2_S", 256, 82, NULL},
    {23, "IQ4_XS", 256, 136, NULL},
    {24, "I8", 1, 1, NULL},
    {25, "I16", 1, 2, NULL},
    {26, "I32", 1, 4, NULL},
    {27, "I64", 1, 8, NULL},
    {28, "F64", 1, 8, NULL},
    {29, "IQ1_M", 256, 56, NULL},
    {30, "BF16", 1, 2, dequant_bf16},
    {34, "TQ1_0", 256, 54, NULL},
    {35, "TQ2_0", 256, 66, NULL},
    {39, "MXFP4", 32, 17, NULL},
    {40, "NVFP4", 64, 36, NULL},
    {41, "Q1_0", 128, 18, NULL},
};

const struct ggml_type_row *ggml_type_row(uint32_t type) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].type == type)
            return &rows[i];
    return NULL;
}

const char *ggml_types_supported(void) {
    return "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K";
}
