/*
 * quant.c - NF4 with double quantisation, int8, bf16. See quant.h.
 *
 * Bit-equality with bitsandbytes decides every rounding here; what was found by running it
 * (0.50.2, CPU): 4-bit codes:  x * (1 / max(absmax, 1e-38)), f32, against f32 midpoints; a
 * value on a midpoint goes down. scales:       mean subtracted, then x * (1 / absmax2) is
 * mapped to one of 65536 steps over -1..1 and the code is the nearest to that step's value,
 * through a table built once. Near zero this is coarser than the map itself; searching the map
 * directly gives other codes. mean:         PyTorch's blocked f32 sum, see quant_torch_sum().
 * A double or Kahan sum would be better arithmetic and give a neighbouring offset, so other
 * bits. The build says -ffp-contract=off: the one fused multiply-add here is written as fmaf().
 *
 * nf4_quantise_group() compares all 64 inputs with one midpoint after the other: no branches,
 * and the compiler makes vector code of it; a binary search per element was four times slower.
 */
#include "engine/quant/quant.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

const float nf4_table[16] = {-1.0f,         -0.696192801f, -0.525073051f,  -0.394917488f,
                             -0.284441382f, -0.18477343f,  -0.0910500363f, 0.0f,
                             0.0795802996f, 0.160930201f,  0.246112302f,   0.337915242f,
                             0.440709829f,  0.562617004f,  0.722956836f,   1.0f};

const float fp4_table[16] = {0.0f,
                             0x1.555556p-8f,
                             0x1.555556p-1f,
                             1.0f,
                             0x1.555556p-2f,
                             0.5f,
                             0x1.555556p-3f,
                             0.25f,
                             0.0f,
                             -0x1.555556p-8f,
                             -0x1.555556p-1f,
                             -1.0f,
                             -0x1.555556p-2f,
                             -0.5f,
                             -0x1.555556p-3f,
                             -0.25f};

/* From tests/oracle/quant.py (record 1 of nf4.bin). */
const float quant_code_map[256] = {
    -0x1.fc6666p-1f,  -0x1.f53334p-1f,  -0x1.eep-1f,      -0x1.e6ccccp-1f,
    -0x1.df999ap-1f,  -0x1.d86666p-1f,  -0x1.d13334p-1f,  -0x1.cap-1f,
    -0x1.c2ccccp-1f,  -0x1.bb999ap-1f,  -0x1.b46666p-1f,  -0x1.ad3334p-1f,
    -0x1.a6p-1f,      -0x1.9eccccp-1f,  -0x1.97999ap-1f,  -0x1.906666p-1f,
    -0x1.893334p-1f,  -0x1.82p-1f,      -0x1.7accccp-1f,  -0x1.73999ap-1f,
    -0x1.6c6668p-1f,  -0x1.653334p-1f,  -0x1.5ep-1f,      -0x1.56ccccp-1f,
    -0x1.4f999ap-1f,  -0x1.486668p-1f,  -0x1.413334p-1f,  -0x1.3ap-1f,
    -0x1.32ccccp-1f,  -0x1.2b999ap-1f,  -0x1.246668p-1f,  -0x1.1d3334p-1f,
    -0x1.16p-1f,      -0x1.0eccccp-1f,  -0x1.079998p-1f,  -0x1.006666p-1f,
    -0x1.f26664p-2f,  -0x1.e4p-2f,      -0x1.d59998p-2f,  -0x1.c73334p-2f,
    -0x1.b8ccccp-2f,  -0x1.aa6666p-2f,  -0x1.9cp-2f,      -0x1.8d9998p-2f,
    -0x1.7f3334p-2f,  -0x1.70ccccp-2f,  -0x1.626666p-2f,  -0x1.54p-2f,
    -0x1.459998p-2f,  -0x1.373334p-2f,  -0x1.28ccccp-2f,  -0x1.1a6668p-2f,
    -0x1.0cp-2f,      -0x1.fb3332p-3f,  -0x1.de6666p-3f,  -0x1.c1999ap-3f,
    -0x1.a4ccccp-3f,  -0x1.88p-3f,      -0x1.6b3334p-3f,  -0x1.4e6666p-3f,
    -0x1.31999ap-3f,  -0x1.14ccccp-3f,  -0x1.fp-4f,       -0x1.b66668p-4f,
    -0x1.93d70ap-4f,  -0x1.8851eep-4f,  -0x1.7ccccep-4f,  -0x1.7147aep-4f,
    -0x1.65c29p-4f,   -0x1.5a3d7p-4f,   -0x1.4eb854p-4f,  -0x1.433334p-4f,
    -0x1.37ae14p-4f,  -0x1.2c28f6p-4f,  -0x1.20a3d6p-4f,  -0x1.151ebap-4f,
    -0x1.09999ap-4f,  -0x1.fc28f6p-5f,  -0x1.e51ebap-5f,  -0x1.ce147ap-5f,
    -0x1.b70a3ep-5f,  -0x1.ap-5f,       -0x1.88f5c2p-5f,  -0x1.71eb86p-5f,
    -0x1.5ae146p-5f,  -0x1.43d70ap-5f,  -0x1.2ccccep-5f,  -0x1.15c29p-5f,
    -0x1.fd70a4p-6f,  -0x1.cf5c2ap-6f,  -0x1.a147aep-6f,  -0x1.733334p-6f,
    -0x1.451ebap-6f,  -0x1.170a3ep-6f,  -0x1.d1eb86p-7f,  -0x1.75c29p-7f,
    -0x1.3e76c8p-7f,  -0x1.2c083p-7f,   -0x1.19999ap-7f,  -0x1.072b02p-7f,
    -0x1.e978d4p-8f,  -0x1.c49ba6p-8f,  -0x1.9fbe76p-8f,  -0x1.7ae148p-8f,
    -0x1.56041ap-8f,  -0x1.3126e8p-8f,  -0x1.0c49bap-8f,  -0x1.ced914p-9f,
    -0x1.851eb8p-9f,  -0x1.3b645ap-9f,  -0x1.e353f8p-10f, -0x1.4fdf3ap-10f,
    -0x1.eecbfep-11f, -0x1.b3d07cp-11f, -0x1.78d5p-11f,   -0x1.3dd982p-11f,
    -0x1.02de02p-11f, -0x1.8fc506p-12f, -0x1.19ce0ap-12f, -0x1.47ae16p-13f,
    -0x1.743e96p-14f, -0x1.15df66p-14f, -0x1.6f0068p-15f, -0x1.64840cp-16f,
    -0x1.040bfep-17f, -0x1.b43528p-19f, -0x1.27476ep-21f, 0x0p0f,
    0x1.27476ep-21f,  0x1.b43528p-19f,  0x1.040bfep-17f,  0x1.64840cp-16f,
    0x1.6f0068p-15f,  0x1.15df66p-14f,  0x1.743e96p-14f,  0x1.47ae16p-13f,
    0x1.19ce0ap-12f,  0x1.8fc506p-12f,  0x1.02de02p-11f,  0x1.3dd982p-11f,
    0x1.78d5p-11f,    0x1.b3d07cp-11f,  0x1.eecbfep-11f,  0x1.4fdf3ap-10f,
    0x1.e353f8p-10f,  0x1.3b645ap-9f,   0x1.851eb8p-9f,   0x1.ced914p-9f,
    0x1.0c49bap-8f,   0x1.3126e8p-8f,   0x1.56041ap-8f,   0x1.7ae148p-8f,
    0x1.9fbe76p-8f,   0x1.c49ba6p-8f,   0x1.e978d4p-8f,   0x1.072b02p-7f,
    0x1.19999ap-7f,   0x1.2c083p-7f,    0x1.3e76c8p-7f,   0x1.75c29p-7f,
    0x1.d1eb86p-7f,   0x1.170a3ep-6f,   0x1.451ebap-6f,   0x1.733334p-6f,
    0x1.a147aep-6f,   0x1.cf5c2ap-6f,   0x1.fd70a4p-6f,   0x1.15c29p-5f,
    0x1.2ccccep-5f,   0x1.43d70ap-5f,   0x1.5ae146p-5f,   0x1.71eb86p-5f,
    0x1.88f5c2p-5f,   0x1.ap-5f,        0x1.b70a3ep-5f,   0x1.ce147ap-5f,
    0x1.e51ebap-5f,   0x1.fc28f6p-5f,   0x1.09999ap-4f,   0x1.151ebap-4f,
    0x1.20a3d6p-4f,   0x1.2c28f6p-4f,   0x1.37ae14p-4f,   0x1.433334p-4f,
    0x1.4eb854p-4f,   0x1.5a3d7p-4f,    0x1.65c29p-4f,    0x1.7147aep-4f,
    0x1.7ccccep-4f,   0x1.8851eep-4f,   0x1.93d70ap-4f,   0x1.b66668p-4f,
    0x1.fp-4f,        0x1.14ccccp-3f,   0x1.31999ap-3f,   0x1.4e6666p-3f,
    0x1.6b3334p-3f,   0x1.88p-3f,       0x1.a4ccccp-3f,   0x1.c1999ap-3f,
    0x1.de6666p-3f,   0x1.fb3332p-3f,   0x1.0cp-2f,       0x1.1a6668p-2f,
    0x1.28ccccp-2f,   0x1.373334p-2f,   0x1.459998p-2f,   0x1.54p-2f,
    0x1.626666p-2f,   0x1.70ccccp-2f,   0x1.7f3334p-2f,   0x1.8d9998p-2f,
    0x1.9cp-2f,       0x1.aa6666p-2f,   0x1.b8ccccp-2f,   0x1.c73334p-2f,
    0x1.d59998p-2f,   0x1.e4p-2f,       0x1.f26664p-2f,   0x1.006666p-1f,
    0x1.079998p-1f,   0x1.0eccccp-1f,   0x1.16p-1f,       0x1.1d3334p-1f,
    0x1.246668p-1f,   0x1.2b999ap-1f,   0x1.32ccccp-1f,   0x1.3ap-1f,
    0x1.413334p-1f,   0x1.486668p-1f,   0x1.4f999ap-1f,   0x1.56ccccp-1f,
    0x1.5ep-1f,       0x1.653334p-1f,   0x1.6c6668p-1f,   0x1.73999ap-1f,
    0x1.7accccp-1f,   0x1.82p-1f,       0x1.893334p-1f,   0x1.906666p-1f,
    0x1.97999ap-1f,   0x1.9eccccp-1f,   0x1.a6p-1f,       0x1.ad3334p-1f,
    0x1.b46666p-1f,   0x1.bb999ap-1f,   0x1.c2ccccp-1f,   0x1.cap-1f,
    0x1.d13334p-1f,   0x1.d86666p-1f,   0x1.df999ap-1f,   0x1.e6ccccp-1f,
    0x1.eep-1f,       0x1.f53334p-1f,   0x1.fc6666p-1f,   0x1p0f};

bool quant_finite(const float *x, size_t n) {
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bad |= (bits & 0x7f800000) == 0x7f800000;
    }
    return !bad;
}

static float group_absmax(const float *x) {
    float m[16] = {0}; /* lanes, so that the maximum is found in vectors */
    for (int i = 0; i < 64; i += 16)
        for (int l = 0; l < 16; l++) {
            float a = fabsf(x[i + l]);
            m[l] = a > m[l] ? a : m[l];
        }
    float max = 0;
    for (int l = 0; l < 16; l++)
        max = m[l] > max ? m[l] : max;
    return max;
}

float nf4_quantise_group(const float *x, uint8_t *codes) {
    float absmax = group_absmax(x), inv = 1.0f / (absmax > 1e-38f ? absmax : 1e-38f);
    float v[64];
    int32_t count[64] = {0};
    for (int i = 0; i < 64; i++)
        v[i] = x[i] * inv;
    for (int j = 0; j < 15; j++) {
        float mid = (nf4_table[j] + nf4_table[j + 1]) / 2;
        for (int i = 0; i < 64; i++)
            count[i] += v[i] > mid;
    }
    for (int i = 0; i < 64; i++)
        codes[i] = (uint8_t)count[i];
    return absmax;
}

/* PyTorch's cascade sum: x is cut into rows of 32 (four vectors of 8, or below 8 elements four
 * numbers). Column sums grow in level 0; after every 2^power rows they move up a level, so that
 * small never meets large. Then the levels are added up, the columns of rows that are not full,
 * the four vectors, the elements beyond the last vector, the eight lanes. */
float quant_torch_sum(const float *x, size_t n) {
    enum { LEVELS = 4, ILP = 4 };
    size_t lanes = n < 8 ? 1 : 8, width = ILP * lanes;
    size_t n_vec = n / lanes, rows = n_vec / ILP;
    float acc[LEVELS][32] = {{0}};
    int log2 = 0, power;
    while (((size_t)1 << log2) < rows)
        log2++;
    power = log2 / LEVELS > 4 ? log2 / LEVELS : 4;
    size_t step = (size_t)1 << power, i = 0;
    while (i + step <= rows) {
        for (size_t j = 0; j < step; j++, i++)
            for (size_t k = 0; k < width; k++)
                acc[0][k] += x[i * width + k];
        for (int j = 1; j < LEVELS; j++) {
            for (size_t k = 0; k < width; k++) {
                acc[j][k] += acc[j - 1][k];
                acc[j - 1][k] = 0;
            }
            if (i & ((step - 1) << (j * power)))
                break;
        }
    }
    for (; i < rows; i++)
        for (size_t k = 0; k < width; k++)
            acc[0][k] += x[i * width + k];
    for (int j = 1; j < LEVELS; j++)
        for (size_t k = 0; k < width; k++)
            acc[0][k] += acc[j][k];
    for (size_t v = rows * ILP; v < n_vec; v++)
        for (size_t k = 0; k < lanes; k++)
            acc[0][k] += x[v * lanes + k];
    for (size_t v = 1; v < ILP; v++)
        for (size_t k = 0; k < lanes; k++)
            acc[0][k] += acc[0][v * lanes + k];
    float sum = 0;
    for (size_t k = n_vec * lanes; k < n; k++)
        sum += x[k];
    for (size_t k = 0; k < lanes; k++)
        sum += acc[0][k];
    return sum;
}

static uint8_t step_code[65536]; /* code of the map nearest to step / 65535 * 2 - 1 */

static void build_step_code(void) {
    int code = 0;
    for (int i = 0; i < 65536; i++) {
        float v = 2 * (float)i / 65535 - 1;
        while (code < 255 && v > (quant_code_map[code] + quant_code_map[code + 1]) * 0.5f)
            code++;
        step_code[i] = (uint8_t)code;
    }
}

void quant_double(float *absmax, size_t n, uint8_t *codes, float *absmax2, float *offset) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, build_step_code);
    *offset = n ? quant_torch_sum(absmax, n) / (float)n : 0;
    for (size_t i = 0; i < n; i++)
        absmax[i] -= *offset;
    for (size_t b = 0; b < n; b += 256) {
        size_t end = n - b < 256 ? n : b + 256;
        float max = 0;
        for (size_t i = b; i < end; i++)
            max = fabsf(absmax[i]) > max ? fabsf(absmax[i]) : max;
        absmax2[b / 256] = max;
        float inv = 1.0f / max;
        for (size_t i = b; i < end; i++) {
            float v = absmax[i] * inv;
            v = v > 1 ? 1 : v < -1 ? -1 : v;
            float step = fmaf((v + 1) * 0.5f, 65535, 0.5f);
            /* max = 0, or so small that 1 / max is infinite, gives code 0 like theirs */
            codes[i] = max > 0 && step >= 0 ? step_code[(int)step] : 0;
        }
    }
}

float int8_quantise_group(const float *x, int8_t *q) {
    float absmax = group_absmax(x), scale = absmax / 127, inv = scale > 0 ? 1.0f / scale : 0;
    if (!isfinite(inv)) { /* a scale so small that its inverse overflows: nothing but noise */
        memset(q, 0, 64);
        return 0;
    }
    for (int i = 0; i < 64; i++) {
        float v = x[i] * inv + 0x1.8p23f; /* rounds to an integer, ties to even */
        int32_t r = (int32_t)(v - 0x1.8p23f);
        q[i] = (int8_t)(r > 127 ? 127 : r < -127 ? -127 : r);
    }
    return scale;
}

uint16_t bf16_from_f32(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float bf16_to_f32(uint16_t h) {
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

uint16_t f16_from_f32(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000)
        return sign | 0x7e00;
    if (bits >= 0x47800000) /* 65536 */
        return sign | 0x7c00;
    if (bits < 0x38800000) /* below 2^-14: a multiple of 2^-24 */
        return sign | (uint16_t)rintf(fabsf(f) * 0x1p24f);
    bits += 0xfff + (bits >> 13 & 1); /* a carry goes into the exponent, at 65520 to infinity */
    return sign | (uint16_t)((bits >> 13) - (112u << 10));
}
