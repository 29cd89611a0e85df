/*
 * ref.c - every operation in plain C and f32: what the vector kernels are held against, and
 * what runs on any CPU.
 *
 * Weights are used at their exact value (table[nibble] * absmax and so on) and activations are
 * not rounded to int16, so this is also the yardstick for what int16 activations cost. A tile
 * of 16 rows is unpacked to [16, K] floats once for all tokens of a call. Sums run over k in
 * ascending order, one f32 accumulator for each output.
 */
#include "engine/cpu/cpu.h"
#include "engine/cpu/simd.h"
#include "engine/quant/fp8.h"
#include "engine/quant/pack.h"
#include "engine/quant/quant.h"
#include <math.h>
#include <string.h>

float cpu_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 1023, bits;
    float f;
    if (exp == 0) {
        f = (float)man * 0x1p-24f;
        return sign ? -f : f;
    }
    bits = sign | (exp == 31 ? 0x7f800000u : (exp + 112) << 23) | man << 13;
    memcpy(&f, &bits, 4);
    return f;
}

uint16_t cpu_f32_to_f16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    float a = fabsf(f);
    if (isnan(f))
        return sign | 0x7e00;
    if (a >= 65504.0f)
        return sign | 0x7bff;
    if (a < 0x1p-14f) /* subnormal: a multiple of 2^-24; rintf rounds to even */
        return sign | (uint16_t)rintf(a * 0x1p24f);
    bits &= 0x7fffffff;
    bits += 0xfff + (bits >> 13 & 1);
    uint32_t h = (bits >> 13) - (112u << 10);
    return sign | (uint16_t)(h > 0x7bff ? 0x7bff : h);
}

static int32_t sum16(const int16_t *q) {
    int32_t even = 0, odd = 0;
    for (int i = 0; i < 16; i += 2) {
        even += q[i];
        odd += q[i + 1];
    }
    return even + odd;
}

size_t cpu_row16_bytes(int Kp) {
    size_t bytes =
        (size_t)Kp * sizeof(int16_t) + ((size_t)Kp / 64 + cpu_sums(Kp)) * sizeof(float);
    return (bytes + 63) / 64 * 64;
}

void cpu_row16_sums(struct row16 r, int Kp) {
    float *of64 = r.sum, *of32 = r.sum + cpu_sum_at(Kp, 32), *of16 = r.sum + cpu_sum_at(Kp, 16);
    const int16_t *q = r.q;
    const float *scale = r.scale;
    for (int b = 0; b < Kp / 64; b++, q += 64) {
        int32_t s[4] = {sum16(q), sum16(q + 16), sum16(q + 32), sum16(q + 48)};
        for (int i = 0; i < 4; i++)
            of16[b * 4 + i] = scale[b] * (float)s[i];
        of32[b * 2] = scale[b] * (float)(s[0] + s[1]);
        of32[b * 2 + 1] = scale[b] * (float)(s[2] + s[3]);
        of64[b] = scale[b] * (float)(s[0] + s[1] + s[2] + s[3]);
    }
}

static void ref_matmul(const struct cpu_input *in, const struct weight *w, int tile, int n_tile,
                       float *y, size_t ldy, bool add, void *scratch) {
    float *rows = scratch; /* [16, K] */
    size_t K = (size_t)w->K;
    for (int i = 0; i < n_tile; i++) {
        int n0 = (tile + i) * 16, n = w->N - n0 < 16 ? w->N - n0 : 16;
        for (int r = 0; r < n; r++)
            weight_unpack_row(w, n0 + r, rows + (size_t)r * K);
        for (int t = 0; t < in->T; t++) {
            const float *x = in->x + (size_t)t * in->ldx;
            float *out = y + (size_t)t * ldy + (size_t)i * 16;
            for (int r = 0; r < n; r++) {
                float sum = 0;
                for (size_t k = 0; k < K; k++)
                    sum += x[k] * rows[(size_t)r * K + k];
                out[r] = add ? out[r] + sum : sum;
            }
        }
    }
}

static void ref_norm(enum norm_kind kind, const float *x, const float *g, const float *b,
                     float eps, int K, float *y) {
    float mean = 0, sum = 0;
    for (int k = 0; kind == NORM_LAYER && k < K; k++)
        mean += x[k];
    mean /= (float)K;
    for (int k = 0; k < K; k++)
        sum += (x[k] - mean) * (x[k] - mean);
    float scale = 1.0f / sqrtf(sum / (float)K + eps);
    for (int k = 0; k < K; k++)
        y[k] = (x[k] - mean) * scale * g[k] + (b ? b[k] : 0);
}

static void ref_rope(float *x, const float *c, const float *s, int n) {
    for (int i = 0; i < n; i += 2) {
        float a = x[i], b = x[i + 1];
        x[i] = a * c[i] + b * s[i];
        x[i + 1] = b * c[i + 1] + a * s[i + 1];
    }
}

/* The formulas of PyTorch's functions of these names. */
static float act_of(enum act_kind kind, float x) {
    switch (kind) {
    case ACT_SILU:
        return x / (1.0f + expf(-x));
    case ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(GELU_TANH_A * (x + GELU_TANH_B * x * x * x)));
    case ACT_GELU_ERF:
        return 0.5f * x * (1.0f + erff(x * GELU_ERF_A));
    case ACT_RELU:
        return x < 0 ? 0 : x;
    case ACT_RELU2:
        return x < 0 ? 0 : x * x;
    case ACT_GPT_OSS:
        x = x > GPT_OSS_LIMIT ? GPT_OSS_LIMIT : x;
        return x / (1.0f + expf(-GPT_OSS_ALPHA * x));
    }
    return NAN;
}

/* What f of the gate is multiplied by. */
static float up_of(enum act_kind kind, float u) {
    if (kind != ACT_GPT_OSS)
        return u;
    return 1 + (u > GPT_OSS_LIMIT ? GPT_OSS_LIMIT : u < -GPT_OSS_LIMIT ? -GPT_OSS_LIMIT : u);
}

static void ref_act(enum act_kind kind, const float *g, const float *u, int n, float *y) {
    for (int i = 0; i < n; i++)
        y[i] = act_of(kind, g[i]) * (u ? up_of(kind, u[i]) : 1);
}

static void ref_cap(float cap, float *x, int n) {
    for (int i = 0; i < n; i++)
        x[i] = cap * tanhf(x[i] / cap);
}

static void ref_axpby(float a, const float *x, float b, int n, float *y) {
    for (int i = 0; i < n; i++)
        y[i] = a * x[i] + b * y[i];
}

static float i8_scale(const float *x, int D, float *inv) {
    uint32_t top = 0, bits;
    for (int d = 0; d < D; d++) {
        memcpy(&bits, &x[d], sizeof bits);
        bits &= 0x7fffffff;
        top = bits > top ? bits : top;
    }
    return kv_i8_scale(top, inv);
}

/* x as element i; inv as kv_i8_scale() gave it. */
static void put_number(enum kv_type type, void *part, size_t i, float x, float inv) {
    switch (type) {
    case KV_F16:
        ((uint16_t *)part)[i] = cpu_f32_to_f16(x);
        break;
    case KV_BF16:
        ((uint16_t *)part)[i] = bf16_from_f32(x);
        break;
    case KV_I8: /* at most 127, rounding included */
        ((int8_t *)part)[i] = (int8_t)(inv > 0 ? lrintf(x * inv) : 0);
        break;
    case KV_FP8:
        ((uint8_t *)part)[i] = fp8_from_f32(x);
        break;
    default:
        ((float *)part)[i] = x;
    }
}

static void ref_kv_put(const struct kv_layer *kv, const float *k, const float *v, int slot,
                       void *dst_k, void *dst_v) {
    float inv_k = 0, inv_v = 0;
    size_t D = (size_t)kv->D, t = (size_t)slot;
    if (kv->type == KV_I8) {
        kv_scales(kv, dst_k, 0)[slot] = i8_scale(k, kv->D, &inv_k);
        kv_scales(kv, dst_v, 0)[slot] = i8_scale(v, kv->D, &inv_v);
    }
    for (size_t d = 0; d < D; d++) {
        put_number(kv->type, dst_k, kv_k_at(kv->type, d, t), k[d], inv_k);
        put_number(kv->type, dst_v, kv_v_at(kv->type, D, d, t), v[d], inv_v);
    }
}

/* An element; of an int8 cache without its scale. */
static float kv_at(const struct kv_layer *kv, const void *base, size_t i) {
    switch (kv->type) {
    case KV_F16:
        return cpu_f16_to_f32(((const uint16_t *)base)[i]);
    case KV_BF16:
        return bf16_to_f32(((const uint16_t *)base)[i]);
    case KV_I8:
        return (float)((const int8_t *)base)[i];
    case KV_FP8:
        return fp8_to_f32(((const uint8_t *)base)[i]);
    default:
        return ((const float *)base)[i];
    }
}

static float scale_at(const struct kv_layer *kv, void *base, size_t part, size_t slot) {
    return kv->type == KV_I8 ? kv_scales(kv, base, part)[slot] : 1;
}

/* Column d of the key in a slot, turned as kv_turn() says; scale: the old one. */
static float turned(const struct kv_layer *kv, const void *k, const float *c, const float *s,
                    int n, int slot, int d, float scale) {
    size_t i = (size_t)(d * 16 + slot); /* of the angles */
    float x = kv_at(kv, k, kv_k_at(kv->type, (size_t)d, (size_t)slot)) * scale;
    if (d >= n)
        return x;
    float y = kv_at(kv, k, kv_k_at(kv->type, (size_t)d ^ 1, (size_t)slot)) * scale;
    return x * c[i] + y * s[i];
}

static void ref_kv_turn(const struct kv_layer *kv, void *k, const float *c, const float *s,
                        int n) {
    bool i8 = kv->type == KV_I8;
    for (int slot = 0; slot < 16; slot++) {
        float old = scale_at(kv, k, 0, (size_t)slot), scale = 0, inv = 0;
        uint32_t top = 0, bits;
        for (int d = 0; i8 && d < kv->D; d++) {
            float x = turned(kv, k, c, s, n, slot, d, old);
            memcpy(&bits, &x, sizeof bits);
            bits &= 0x7fffffff;
            top = bits > top ? bits : top;
        }
        if (i8)
            scale = kv_i8_scale(top, &inv);
        for (int d = 0; d < (i8 ? kv->D : n); d += 2) {
            float x = turned(kv, k, c, s, n, slot, d, old);
            float y = turned(kv, k, c, s, n, slot, d + 1, old);
            size_t t = (size_t)slot, at = (size_t)d;
            put_number(kv->type, k, kv_k_at(kv->type, at, t), x, inv);
            put_number(kv->type, k, kv_k_at(kv->type, at + 1, t), y, inv);
        }
        if (i8)
            kv_scales(kv, k, 0)[slot] = scale;
    }
}

void cpu_att_slope(const struct cpu_att *a, int row, int key, int from, int n, float *s) {
    float slope = a->slope[row];
    int own = a->limit[row] - 1; /* the token's position */
    for (int j = from; j < n; j++)
        if (a->op->alibi_scaled)
            s[j] += bf16_to_f32(bf16_from_f32(slope * (float)(key + j))) * a->op->scale;
        else
            s[j] += slope * (float)(key + j - own);
}

/* Scores of one row against the keys key + from .. key + n - 1. */
static void ref_scores(const struct cpu_att *a, int row, int key, int from, int n, float *s) {
    const struct kv_layer *kv = a->kv;
    size_t D = (size_t)kv->D;
    const float *q = a->q + row;
    for (int j = from; j < n; j++) {
        size_t base = kv_part(kv, kv->type, a->blocks[(key + j) / 16], a->head);
        size_t slot = (size_t)(key + j) % 16;
        s[j] = 0;
        for (size_t d = 0; d < D; d++)
            s[j] += q[d * CPU_ATT_ROWS] * kv_at(kv, kv->k, base + kv_k_at(kv->type, d, slot));
        s[j] *= scale_at(kv, kv->k, base, slot);
        s[j] *= a->op->scale;
    }
    if (a->op->cap > 0)
        ref_cap(a->op->cap, s + from, n - from);
    if (a->op->slopes)
        cpu_att_slope(a, row, key, from, n, s);
}

static void ref_att_chunk(const struct cpu_att *a, int row, int end, int key, int n, float *m,
                          float *l, float *o) {
    const struct kv_layer *kv = a->kv;
    size_t D = (size_t)kv->D;
    for (int r = row; r < end; r++) {
        int from = att_skips(a, r, key), n_see = att_sees(a, r, key, n);
        float *s = a->scores, *out = o + (size_t)r * D;
        ref_scores(a, r, key, from, n_see, s);
        m[r] = -INFINITY;
        for (int j = from; j < n_see; j++)
            m[r] = fmaxf(m[r], s[j]);
        l[r] = 0;
        memset(out, 0, D * sizeof *out);
        for (int j = from; j < n_see; j++) {
            size_t base = kv_part(kv, kv->type, a->blocks[(key + j) / 16], a->head);
            size_t slot = (size_t)(key + j) % 16;
            float p = expf(s[j] - m[r]);
            l[r] += p;
            p *= scale_at(kv, kv->v, base, slot);
            for (size_t d = 0; d < D; d++)
                out[d] += p * kv_at(kv, kv->v, base + kv_v_at(kv->type, D, d, slot));
        }
    }
}

const struct cpu_kernels cpu_scalar = {
    .name = "scalar",
    .kv = KV_F16,
    .block = 1,
    .matmul = ref_matmul,
    .norm = ref_norm,
    .rope = ref_rope,
    .act = ref_act,
    .cap = ref_cap,
    .axpby = ref_axpby,
    .kv_put = ref_kv_put,
    .kv_turn = ref_kv_turn,
    .att_chunk = ref_att_chunk,
};
