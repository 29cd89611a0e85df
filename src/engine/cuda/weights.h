/*
 * weights.h - single numbers of a weight and of the KV cache, for kernels: the layouts of
 * quant/weight.h and backend.h.
 */
#ifndef LLMCHAT_ENGINE_CUDA_WEIGHTS_H
#define LLMCHAT_ENGINE_CUDA_WEIGHTS_H

#include "engine/cuda/dev.h"
#include "engine/quant/fp8.h"

/* The scale of group g of row n, double-quantised or not. */
DEVICE float weight_scale(const struct weight &w, int n, int g) {
    int G = w.Kp / w.group;
    size_t at = ((size_t)(n / 16) * (size_t)G + (size_t)g) * 16 + (size_t)(n % 16);
    if (!w.code)
        return w.scale[at];
    size_t i = ((size_t)n * (size_t)G + (size_t)g) / WEIGHT_SCALE_BLOCK;
    float s = w.code_map[w.code[at]] * w.absmax2[i];
    return s + w.offset;
}

/* Weight [n, k] */
DEVICE float weight_at(const struct weight &w, int n, int k) {
    size_t tile = (size_t)(n / 16) * (size_t)w.Kp * 16, r = (size_t)(n % 16), i = (size_t)k;
    if (w.type == WEIGHT_F32)
        return ((const float *)w.data)[tile + i * 16 + r];
    if (w.type == WEIGHT_BF16)
        return bf16_real(((const uint16_t *)w.data)[tile + i / 2 * 32 + r * 2 + i % 2]);
    if (w.type == WEIGHT_F16)
        return f16_real(((const uint16_t *)w.data)[tile + i / 2 * 32 + r * 2 + i % 2]);
    float q;
    if (w.type == WEIGHT_I8) {
        q = (float)((const int8_t *)w.data)[tile + i / 4 * 64 + r * 4 + i % 4];
    } else {
        uint8_t b = ((const uint8_t *)w.data)[tile / 2 + i / 8 * 64 + r * 4 + i % 4];
        q = w.table[i % 8 < 4 ? b & 15 : b >> 4];
    }
    int g = k / w.group, G = w.Kp / w.group;
    q *= weight_scale(w, n, g);
    if (w.min)
        q += w.min[((size_t)(n / 16) * (size_t)G + (size_t)g) * 16 + r];
    return q;
}

/* The 16 keys, or values, of a head in a block of the pool. */
DEVICE char *kv_head(void *base, const struct kv_layer &kv, int block, int head) {
    return (char *)base + (size_t)block * kv.stride +
           (size_t)head * kv_head_bytes(kv.type, kv.D);
}
DEVICE float kv_get(enum kv_type type, const char *part, size_t i) {
    if (type == KV_F16)
        return f16_real(((const uint16_t *)part)[i]);
    if (type == KV_BF16)
        return bf16_real(((const uint16_t *)part)[i]);
    if (type == KV_I8)
        return (float)((const int8_t *)part)[i];
    if (type == KV_FP8)
        return f16_real((uint16_t)fp8_f16(((const uint8_t *)part)[i])) * 256;
    return ((const float *)part)[i];
}
/* inv: 1 / scale of an int8 cache */
DEVICE void kv_put(enum kv_type type, char *part, size_t i, float x, float inv) {
    if (type == KV_F16)
        ((uint16_t *)part)[i] = real_f16(x);
    else if (type == KV_BF16)
        ((uint16_t *)part)[i] = real_bf16(x);
    else if (type == KV_I8)
        ((int8_t *)part)[i] = (int8_t)(inv > 0 ? rintf(x * inv) : 0);
    else if (type == KV_FP8)
        ((uint8_t *)part)[i] = fp8_from_f32(x);
    else
        ((float *)part)[i] = x;
}
/* The 16 scales behind a head's part of an int8 cache. */
DEVICE float *kv_head_scales(char *part, int D) {
    return (float *)(part + 16 * (size_t)D);
}
/* A token's scale from its largest magnitude, and its inverse; as the CPU's (cpu/simd.h). */
DEVICE float kv_scale_of(float top, float *inv) {
    *inv = 0;
    if (!(top < INFINITY))
        return NAN;
    if (top < 1e-30f)
        return 0;
    *inv = 127 / top;
    return top / 127;
}
/* max that a NaN survives, whichever it is */
DEVICE float max_or_nan(float a, float b) {
    return a != a || a > b ? a : b;
}

/* The factor with which bf16 holds a table best: the first that is exact, or else the one with
 * the smallest errors. 12 is for FP4, the last was searched for NF4 in steps of 2^-12. */
[[maybe_unused]] static float table_factor(const float table[16]) {
    static const float tried[] = {1, 12, 1.43701171875f};
    float best = 1;
    double least = INFINITY;
    for (float f : tried) {
        double sum = 0;
        for (int i = 0; i < 16; i++) {
            int e;
            double v = (double)table[i] * (double)f, m = frexp(v, &e) * 256; /* 8 bits */
            double off = ldexp(rint(m) - m, e);
            sum += off * off / ((double)f * (double)f);
        }
        if (sum < least) {
            least = sum;
            best = f;
        }
    }
    return best;
}

#endif
