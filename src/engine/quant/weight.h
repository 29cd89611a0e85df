/*
 * weight.h - a weight matrix as the kernels read it, and its layout in a model file.
 *
 * A weight is y = W x with W [N, K], row n the weights of output n. Every type is stored in
 * tiles of 16 rows, so that a 64-byte load holds the same few inputs k of 16 neighbouring
 * outputs n; N is padded to a multiple of 16 and K to a multiple of 64 with zeros (for 4 bits:
 * any code, since the padding of activations is zero). Np and Kp are the padded sizes, S the
 * inputs that share a scale (16, 32 or 64), G = Kp / S the groups of a row.
 *
 *   F32   float    data[Np/16][Kp][16]            64 bytes: 1 input  x 16 rows
 *   BF16  uint16   data[Np/16][Kp/2][16][2]       64 bytes: 2 inputs x 16 rows
 *   F16   uint16   data[Np/16][Kp/2][16][2]       the same
 *   I8    int8     data[Np/16][Kp/4][16][4]       64 bytes: 4 inputs x 16 rows
 *         float    scale[Np/16][G][16]            w = data * scale + min; data in -128..127
 *         float    min[Np/16][G][16]              or NULL: 0
 *   Q4    uint8    data[Np/16][Kp/8][16][4]       64 bytes: 8 inputs x 16 rows: byte j of a
 *                                                 row's four holds input j of the eight in its
 *                                                 low nibble and input j + 4 in its high one
 *         either   scale, min as for I8           w = table[nibble] * scale + min
 *         or       uint8 code[Np/16][G][16]       double-quantised scale, S = 64:
 *                                                 scale = code_map[code] * absmax2[i] + offset
 *                  float absmax2[ceil(N*G/256)]   with i = (n * G + g) / 256: the order of
 *                                                 bitsandbytes
 *
 * The 4-bit family is one thing: a table of 16 values, a scale per group, perhaps a minimum per
 * group. NF4, FP4, Q4_0, IQ4_NL, GPTQ and AWQ differ in the table and the group alone. A
 * product and its sum are rounded one after the other (no fused multiply-add), as the libraries
 * do that these formats come from. Data, scales and codes start at 64-byte borders in the file
 * and are used where they are mapped.
 */
#ifndef LLMCHAT_ENGINE_QUANT_WEIGHT_H
#define LLMCHAT_ENGINE_QUANT_WEIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum weight_type { WEIGHT_F32, WEIGHT_BF16, WEIGHT_F16, WEIGHT_I8, WEIGHT_Q4 };

enum { WEIGHT_TILE = 16, WEIGHT_GROUP = 64, WEIGHT_SCALE_BLOCK = 256 };

struct weight {
    enum weight_type type;
    int N, K;              /* logical sizes */
    int Np, Kp;            /* padded sizes */
    int group;             /* I8, Q4: S above; 64 where there is a code */
    const void *data;      /* as above; borrowed from the mapping */
    const float *scale;    /* I8, Q4 without a code: [Np/16, G, 16] */
    const float *min;      /* I8, Q4 without a code: [Np/16, G, 16], or NULL */
    const uint8_t *code;   /* Q4: [Np/16, G, 16], or NULL */
    const float *absmax2;  /* Q4 with a code: [ceil(N * Kp/64 / 256)] */
    float offset;          /* Q4 with a code: mean of the absmax values */
    float table[16];       /* Q4: value of a nibble */
    const float *code_map; /* Q4 with a code: [256] the 8-bit dynamic map of bitsandbytes */
    bool row_scaled;       /* I8: known to have no minimums and the same scale all along a row;
                              false where nobody looked */
};

static inline int weight_pad_n(int N) {
    return (N + 15) / 16 * 16;
}
static inline int weight_pad_k(int K) {
    return (K + 63) / 64 * 64;
}

#endif
