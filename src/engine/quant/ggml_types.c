/*
 * ggml_types.c - GGUF tensor types: blocks into codes, scales and minima, and into f32.
 *
 * Each block type has one function that takes a block apart; values and what `keep` stores
 * both come from it, so they cannot differ. The 32-element types (Q4_0 … Q8_0, IQ4_NL, MXFP4)
 * keep one scale (and for the _1 types a minimum); low nibbles are elements 0..15, high nibbles
 * 16..31, and the fifth bits of Q5 are one little-endian u32. The K types and IQ4_XS cover 256
 * elements in groups of 32 or 16, with small integer scales under one f16 (and, where there are
 * minima, small integers under a second one).
 *
 * A group's scale is one f32 product, a value one product and perhaps one sum, each rounded:
 * the results must be bit-equal to the gguf Python package (tests/golden/ggml). It subtracts
 * minima where we add their negatives, which is the same number.
 *
 * Q8_K and Q8_1 exist in memory only, never in files. Layouts: ggml's block definitions
 * (ggml-common.h), as published with the GGUF format; MXFP4: OCP Microscaling Formats 1.0.
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

/* -- plain types ---------------------------------------------------------------------- */

static void plain_f32(const unsigned char *src, float *dst, size_t n) {
    memcpy(dst, src, n * sizeof *dst);
}

static void plain_f16(const unsigned char *src, float *dst, size_t n) {
    for (size_t i = 0; i < n; i++)
        dst[i] = load_f16(src + 2 * i);
}

static void plain_bf16(const unsigned char *src, float *dst, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)load_u16(src + 2 * i) << 16;
        memcpy(dst + i, &bits, sizeof bits);
    }
}

static void plain_f64(const unsigned char *src, float *dst, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double d;
        memcpy(&d, src + 8 * i, sizeof d);
        dst[i] = (float)d;
    }
}

/* -- blocks of 32 --------------------------------------------------------------------- */

static const float table_0_15[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static const float table_m8_7[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
static const float table_0_3[16] = {0, 1, 2, 3}; /* codes above 3 do not occur */
static const float table_m4_3[16] = {-4, -3, -2, -1, 0, 1, 2, 3};
/* The sixteen values of the IQ4 types, denser where weights are. */
static const float table_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  113};
/* E2M1 doubled; the scale is halved in turn. */
static const float table_mxfp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* code [32] = the nibbles of q [16] */
static void nibbles(const unsigned char *q, uint8_t *code) {
    for (int j = 0; j < 16; j++) {
        code[j] = q[j] & 15;
        code[j + 16] = q[j] >> 4;
    }
}

/* code [32] = nibbles of q [16] with bit j of h above element j, less `zero` */
static void nibbles_and_fifth(const unsigned char *q, uint32_t h, int zero, uint8_t *code) {
    nibbles(q, code);
    for (int j = 0; j < 32; j++)
        code[j] = (uint8_t)((code[j] | (h >> j & 1) << 4) - (uint32_t)zero);
}

/* f16 d, u8 q[16]; Q4_0: w = (q - 8) d; IQ4_NL: w = table[q] d */
static void unpack_q4_0(const unsigned char *src, uint8_t *code, float *scale, float *min) {
    (void)min;
    scale[0] = load_f16(src);
    nibbles(src + 2, code);
}

/* f16 d, f16 m, u8 q[16]; w = q d + m */
static void unpack_q4_1(const unsigned char *src, uint8_t *code, float *scale, float *min) {
    scale[0] = load_f16(src);
    min[0] = load_f16(src + 2);
    nibbles(src + 4, code);
}

/* f16 d, u32 h, u8 q[16]; w = (q - 16) d */
static void unpack_q5_0(const unsigned char *src, uint8_t *code, float *scale, float *min) {
    (void)min;
    scale[0] = load_f16(src);
    nibbles_and_fifth(src + 6, load_u32(src + 2), 16, code);
}

/* f16 d, f16 m, u32 h, u8 q[16]; w = q d + m */
static void unpack_q5_1(const unsigned char *src, uint8_t *code, float *scale, float *min) {
    scale[0] = load_f16(src);
    min[0] = load_f16(src + 2);
    nibbles_and_fifth(src + 8, load_u32(src + 4), 0, code);
}

/* f16 d, i8 q[32]; w = q d */
static void unpack_q8_0(const unsigned char *src, uint8_t *code, float *scale, float *min) {
    (void)min;
    scale[0] = load_f16(src);
    memcpy(code, src + 2, 32);
}

/* u8 e, u8 q[16]; w = table[q] 2^(e - 128); 2^-128 and 2^-127 are subnormal in f32. The
 * standard makes e = 255 NaN, ggml and the gguf package 2^127: such a value times 2 is
 * infinite and refused like any other. */
static void unpack_mxfp4(const unsigned char *src, uint8_t *code, float *scale, float *min) {
    (void)min;
    uint32_t e = src[0], bits = e < 2 ? 0x00200000u << e : (e - 1) << 23;
    memcpy(scale, &bits, sizeof *scale);
    nibbles(src + 1, code);
}

/* -- blocks of 256 -------------------------------------------------------------------- */

/* The 2-bit element e of q [64]: two halves of 128 elements; in a half quarter i (32 elements)
 * lies in bits 2i of its 32 bytes. */
static int two_bits(const unsigned char *q, int e) {
    return q[e / 128 * 32 + e % 32] >> e / 32 % 4 * 2 & 3;
}

/* u8 scales[16], u8 q[64], f16 d, f16 dmin; low nibbles of scales[] scale, high ones are
 * minima; w = (d scale) q - (dmin min), 16 elements a group */
static void unpack_q2_k(const unsigned char *src, uint8_t *code, float *scale, float *min) {
    float d = load_f16(src + 80), dmin = load_f16(src + 82);
    for (int g = 0; g < 16; g++) {
        scale[g] = d * (float)(src[g] & 15);
        min[g] = -(dmin * (float)(src[g] >> 4));
    }
    for (int e = 0; e < 256; e++)
        code[e] = (uint8_t)two_bits(src + 16, e);
}

/* u8 h[32], u8 q[64], u8 scales[12], f16 d; bit i of h[j] clear takes 4 from element 32 i + j.
 * Scales are 6 bits, 32 stands for 0: the low four of scale g are a nibble of scales[g % 8],
 * the upper two lie in bits 2 (g / 4) of scales[8 + g % 4]. w = (d scale) q */
static void unpack_q3_k(const unsigned char *src, uint8_t *code, float *scale, float *min) {
    const unsigned char *h = src, *q = src + 32, *s = src + 96;
    float d = load_f16(src + 108);
    (void)min;
    for (int g = 0; g < 16; g++) {
        int lo = s[g % 8] >> g / 8 * 4 & 15, hi = s[8 + g % 4] >> g / 4 * 2 & 3;
        scale[g] = d * (float)((lo | hi << 4) - 32);
    }
    for (int e = 0; e < 256; e++)
        code[e] = (uint8_t)(two_bits(q, e) | (h[e % 32] >> e / 32 & 1) << 2);
}

/* The eight scales and minima of a Q4_K or Q5_K block: f16 d, f16 dmin, u8 s[12] with 6 bits
 * each. Groups 0..3 lie in the low six bits of bytes g and g + 4; groups 4..7 have their low
 * four bits in byte g + 4 and the upper two in the spare bits. */
static void k_scales(const unsigned char *src, float *scale, float *min) {
    const unsigned char *s = src + 4;
    float d = load_f16(src), dmin = load_f16(src + 2);
    for (int g = 0; g < 8; g++) {
        int sc = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
        int m = g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | s[g] >> 6 << 4;
        scale[g] = d * (float)sc;
        min[g] = -(dmin * (float)m);
    }
}

/* Element e of q [128]: groups 2i and 2i + 1 are the low and high nibbles of q[32 i ..]. */
static int k_nibble(const unsigned char *q, int e) {
    return q[e / 64 * 32 + e % 32] >> e / 32 % 2 * 4 & 15;
}

/* f16 d, f16 dmin, u8 s[12], u8 q[128]; w = (d scale) q - (dmin min), 32 elements a group */
static void unpack_q4_k(const unsigned char *src, uint8_t *code, float *scale, float *min) {
    k_scales(src, scale, min);
    for (int e = 0; e < 256; e++)
        code[e] = (uint8_t)k_nibble(src + 16, e);
}

/* f16 d, f16 dmin, u8 s[12], u8 h[32], u8 q[128]; bit g of h[j] is the fifth bit of element j
 * of group g */
static void unpack_q5_k(const unsigned char *src, uint8_t *code, float *scale, float *min) {
    k_scales(src, scale, min);
    for (int e = 0; e < 256; e++)
        code[e] = (uint8_t)(k_nibble(src + 48, e) | (src[16 + e % 32] >> e / 32 & 1) << 4);
}

/* u8 l[128], u8 h[64], i8 scales[16], f16 d. Two halves of 128; in a half quarter i (0..3, 32
 * elements) has its low nibbles in l[32 (i % 2) ..], low ones for i < 2, and its upper two bits
 * in bits 2i of h[]; w = (d scale) (q - 32), 16 elements a group */
static void unpack_q6_k(const unsigned char *src, uint8_t *code, float *scale, float *min) {
    float d = load_f16(src + 208);
    (void)min;
    for (int g = 0; g < 16; g++)
        scale[g] = d * (float)(int8_t)src[192 + g];
    for (int e = 0; e < 256; e++) {
        int lo = src[e / 128 * 64 + e % 64] >> e / 64 % 2 * 4 & 15;
        code[e] = (uint8_t)((lo | two_bits(src + 128, e) << 4) - 32);
    }
}

/* f16 d, u16 h, u8 l[4], u8 q[8][16]: scales of 6 bits, 32 stands for 0: low four from the
 * nibbles of l[], upper two from h. Groups are as in IQ4_NL. w = (d scale) table[q] */
static void unpack_iq4_xs(const unsigned char *src, uint8_t *code, float *scale, float *min) {
    float d = load_f16(src);
    unsigned h = load_u16(src + 2);
    (void)min;
    for (int g = 0; g < 8; g++) {
        int lo = src[4 + g / 2] >> g % 2 * 4 & 15, hi = (int)(h >> 2 * g & 3);
        scale[g] = d * (float)((lo | hi << 4) - 32);
        nibbles(src + 8 + 16 * g, code + 32 * g);
    }
}

/* -- the table ------------------------------------------------------------------------ */

static const struct ggml_type_row rows[] = {
    {0, "F32", 1, 4, .plain = plain_f32},
    {1, "F16", 1, 2, .plain = plain_f16},
    {2, "Q4_0", 32, 18, NULL, unpack_q4_0, 32, false, table_m8_7},
    {3, "Q4_1", 32, 20, NULL, unpack_q4_1, 32, true, table_0_15},
    {6, "Q5_0", 32, 22, NULL, unpack_q5_0, 32, false, NULL},
    {7, "Q5_1", 32, 24, NULL, unpack_q5_1, 32, true, NULL},
    {8, "Q8_0", 32, 34, NULL, unpack_q8_0, 32, false, NULL},
    {9, "Q8_1", 32, 36, .plain = NULL},
    {10, "Q2_K", 256, 84, NULL, unpack_q2_k, 16, true, table_0_3},
    {11, "Q3_K", 256, 110, NULL, unpack_q3_k, 16, false, table_m4_3},
    {12, "Q4_K", 256, 144, NULL, unpack_q4_k, 32, true, table_0_15},
    {13, "Q5_K", 256, 176, NULL, unpack_q5_k, 32, true, NULL},
    {14, "Q6_K", 256, 210, NULL, unpack_q6_k, 16, false, NULL},
    {15, "Q8_K", 256, 292, .plain = NULL},
    {16, "IQ2_XXS", 256, 66, .plain = NULL},
    {17, "IQ2_XS", 256, 74, .plain = NULL},
    {18, "IQ3_XXS", 256, 98, .plain = NULL},
    {19, "IQ1_S", 256, 50, .plain = NULL},
    {20, "IQ4_NL", 32, 18, NULL, unpack_q4_0, 32, false, table_iq4},
    {21, "IQ3_S", 256, 110, .plain = NULL},
    {22, "IQ2_S", 256, 82, .plain = NULL},
    {23, "IQ4_XS", 256, 136, NULL, unpack_iq4_xs, 32, false, table_iq4},
    {24, "I8", 1, 1, .plain = NULL},
    {25, "I16", 1, 2, .plain = NULL},
    {26, "I32", 1, 4, .plain = NULL},
    {27, "I64", 1, 8, .plain = NULL},
    {28, "F64", 1, 8, .plain = plain_f64},
    {29, "IQ1_M", 256, 56, .plain = NULL},
    {30, "BF16", 1, 2, .plain = plain_bf16},
    {34, "TQ1_0", 256, 54, .plain = NULL},
    {35, "TQ2_0", 256, 66, .plain = NULL},
    {39, "MXFP4", 32, 17, NULL, unpack_mxfp4, 32, false, table_mxfp4},
    {40, "NVFP4", 64, 36, .plain = NULL},
    {41, "Q1_0", 128, 18, .plain = NULL},
    {42, "Q2_0", 64, 18, .plain = NULL},
};

const struct ggml_type_row *ggml_type_row(uint32_t type) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].type == type)
            return &rows[i];
    return NULL;
}

bool ggml_type_readable(const struct ggml_type_row *row) {
    return row->plain || row->unpack;
}

const char *ggml_types_supported(void) {
    return "F32, F16, BF16, F64, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, "
           "IQ4_NL, IQ4_XS, MXFP4";
}

/* dst [block_elems] = values of one block */
static void dequant_block(const struct ggml_type_row *row, const unsigned char *src,
                          float *dst) {
    uint8_t code[GGML_MAX_BLOCK];
    float scale[GGML_MAX_GROUPS], min[GGML_MAX_GROUPS];
    row->unpack(src, code, scale, min);
    for (uint32_t e = 0; e < row->block_elems; e++)
        dst[e] = row->table ? row->table[code[e]] : (float)(int8_t)code[e];
    for (uint32_t e = 0; e < row->block_elems; e++)
        dst[e] *= scale[e / row->group];
    if (row->has_min)
        for (uint32_t e = 0; e < row->block_elems; e++)
            dst[e] += min[e / row->group];
}

void ggml_dequant(const struct ggml_type_row *row, const unsigned char *src, float *dst,
                  size_t n) {
    if (row->plain) {
        row->plain(src, dst, n);
        return;
    }
    for (size_t b = 0; b < n / row->block_elems; b++)
        dequant_block(row, src + b * row->block_bytes, dst + b * row->block_elems);
}
