/*
 * plain_types.c - tensors that are arrays of numbers, as safetensors files have them.
 *
 * A row of the table per type: how its numbers become f32 and which of our layouts holds them
 * exactly. The 8-bit floats and integers all fit BF16 (8 significant bits; the smallest E5M2 is
 * 2^-16). Wider integers and booleans are no weights of anything that we know and have no row.
 *
 * Values are those of torch.Tensor.float(), which rounds 64-bit floats to the nearest. Data may
 * lie at any address, so it is read with memcpy().
 */
#include "engine/model/container.h"
#include "engine/model/source.h"
#include "engine/quant/fp8.h"
#include "engine/quant/ggml_types.h"

#include <string.h>

static void from_f64(const unsigned char *p, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double d;
        memcpy(&d, p + 8 * i, 8);
        out[i] = (float)d;
    }
}

static void from_f32(const unsigned char *p, float *out, size_t n) {
    memcpy(out, p, 4 * n);
}

static void from_f16(const unsigned char *p, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, 2);
        out[i] = f16_to_f32(h);
    }
}

static void from_bits(uint32_t bits, float *out) {
    memcpy(out, &bits, 4);
}

static void from_bf16(const unsigned char *p, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, 2);
        from_bits((uint32_t)h << 16, &out[i]);
    }
}

static void from_e4m3(const unsigned char *p, float *out, size_t n) {
    for (size_t i = 0; i < n; i++)
        out[i] = fp8_to_f32(p[i]);
}

static void from_e5m2(const unsigned char *p, float *out, size_t n) {
    for (size_t i = 0; i < n; i++)
        out[i] = f16_to_f32((uint16_t)(p[i] << 8));
}

static void from_i8(const unsigned char *p, float *out, size_t n) {
    for (size_t i = 0; i < n; i++)
        out[i] = (int8_t)p[i];
}

static void from_u8(const unsigned char *p, float *out, size_t n) {
    for (size_t i = 0; i < n; i++)
        out[i] = p[i];
}

static const struct plain_row {
    void (*convert)(const unsigned char *p, float *out, size_t n);
    enum weight_type keep;
    const char *inexact;
} plain_rows[DTYPE_N] = {
    [DTYPE_F64] = {from_f64, WEIGHT_F32, "64-bit floats are rounded to 32"},
    [DTYPE_F32] = {from_f32, WEIGHT_F32, NULL},
    [DTYPE_F16] = {from_f16, WEIGHT_F16, NULL},
    [DTYPE_BF16] = {from_bf16, WEIGHT_BF16, NULL},
    [DTYPE_F8_E4M3] = {from_e4m3, WEIGHT_BF16, NULL},
    [DTYPE_F8_E5M2] = {from_e5m2, WEIGHT_BF16, NULL},
    [DTYPE_I8] = {from_i8, WEIGHT_BF16, NULL},
    [DTYPE_U8] = {from_u8, WEIGHT_BF16, NULL},
};

static void plain_values(const struct source_tensor *t, const uint64_t *row, int n,
                         float *out) {
    size_t bytes = (size_t)t->K * dtype_size(t->dtype);
    for (int i = 0; i < n; i++)
        plain_rows[t->dtype].convert(t->data + row[i] * bytes, out + (size_t)i * t->K,
                                     (size_t)t->K);
}

bool tensor_format_plain(struct source_tensor *t) {
    static const struct tensor_format format = {.rows = plain_values};
    if (t->dtype >= DTYPE_N || !plain_rows[t->dtype].convert)
        return false;
    t->type = dtype_name(t->dtype);
    t->format = &format;
    t->keep = plain_rows[t->dtype].keep;
    t->inexact = plain_rows[t->dtype].inexact;
    t->quantised = false;
    return true;
}
