/*
 * pack.c - the layouts of weight.h, written and read one element at a time. See pack.h.
 *
 * Where element (row r of the tile, input k) lies in a tile's data:
 *   F32   float  [k][r]
 *   BF16  u16    [k / 2][r][k % 2]; F16 the same
 *   I8    i8     [k / 4][r][k % 4]
 *   Q4    u8     [k / 8][r][k % 4], the low nibble for k % 8 < 4, else the high one
 * and a group's scale and minimum in a tile's scales: float [group][r].
 *
 * Kernels that unpack many values at once are held against weight_unpack_row(). Its product and
 * its sum are rounded one after the other: the build says -ffp-contract=off, without which a
 * compiler for a CPU with fused multiply-add makes one rounding of the two.
 */
#include "engine/quant/pack.h"
#include "base/mem.h"
#include "engine/quant/ggml_types.h"
#include "engine/quant/quant.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

const char *weight_type_name(enum weight_type t) {
    static const char *const names[] = {"f32", "bf16", "f16", "i8", "q4"};
    return names[t];
}

size_t weight_tile_bytes(enum weight_type t, int Kp) {
    static const int per_two_inputs[] = {128, 64, 64, 32, 16}; /* 16 rows x 2 inputs */
    return (size_t)Kp / 2 * (size_t)per_two_inputs[t];
}

size_t weight_absmax2_len(int N, int K) {
    size_t groups = (size_t)weight_pad_n(N) * (size_t)(weight_pad_k(K) / WEIGHT_GROUP);
    size_t blocks = (groups + WEIGHT_SCALE_BLOCK - 1) / WEIGHT_SCALE_BLOCK;
    return (blocks + 15) / 16 * 16;
}

size_t weight_parts(const struct weight *w, struct weight_part part[WEIGHT_PARTS]) {
    size_t tiles = (size_t)w->Np / WEIGHT_TILE;
    size_t groups = w->group ? (size_t)w->Np * (size_t)(w->Kp / w->group) : 0;
    const struct weight_part all[WEIGHT_PARTS] = {
        {w->data, tiles * weight_tile_bytes(w->type, w->Kp), 0},
        {w->scale, groups * sizeof *w->scale, 0},
        {w->min, groups * sizeof *w->min, 0},
        {w->code, groups * sizeof *w->code, 0},
        {w->absmax2, weight_absmax2_len(w->N, w->K) * sizeof *w->absmax2, 0},
    };
    size_t sum = 0;
    for (int i = 0; i < WEIGHT_PARTS; i++) {
        part[i] = all[i];
        if (!part[i].from)
            part[i].bytes = 0;
        part[i].at = sum;
        sum += (part[i].bytes + 63) / 64 * 64;
    }
    return sum;
}

size_t weight_bytes(const struct weight *w) {
    struct weight_part part[WEIGHT_PARTS];
    return weight_parts(w, part);
}

static void pack_f32(const float *rows, int Kp, float *data) {
    for (int k = 0; k < Kp; k++)
        for (int r = 0; r < WEIGHT_TILE; r++)
            data[k * WEIGHT_TILE + r] = rows[(size_t)r * Kp + k];
}

static void pack_half(const float *rows, int Kp, uint16_t (*half)(float), uint16_t *data) {
    for (int k = 0; k < Kp; k++)
        for (int r = 0; r < WEIGHT_TILE; r++)
            data[(k / 2 * WEIGHT_TILE + r) * 2 + k % 2] = half(rows[(size_t)r * Kp + k]);
}

/* Codes [64] of row r from input k on. */
static void place_i8(const uint8_t *code, int r, int k, uint8_t *data) {
    for (int i = 0; i < 64; i += 4)
        memcpy(data + ((k + i) / 4 * WEIGHT_TILE + r) * 4, code + i, 4);
}

static void place_q4(const uint8_t *code, int r, int k, uint8_t *data) {
    for (int i = 0; i < 64; i += 8)
        for (int j = 0; j < 4; j++)
            data[((k + i) / 8 * WEIGHT_TILE + r) * 4 + j] =
                (uint8_t)(code[i + j] | code[i + j + 4] << 4);
}

void weight_place_codes(enum weight_type t, const uint8_t *code, int Kp, void *data) {
    assert(Kp % 64 == 0 && (t == WEIGHT_I8 || t == WEIGHT_Q4));
    for (int r = 0; r < WEIGHT_TILE; r++)
        for (int k = 0; k < Kp; k += 64)
            (t == WEIGHT_I8 ? place_i8 : place_q4)(code + (size_t)r * (size_t)Kp + k, r, k,
                                                   data);
}

static void pack_i8(const float *rows, int Kp, void *data, float *scale) {
    int G = Kp / WEIGHT_GROUP;
    for (int r = 0; r < WEIGHT_TILE; r++)
        for (int g = 0; g < G; g++) {
            int8_t q[WEIGHT_GROUP];
            scale[r * G + g] = int8_quantise_group(rows + (size_t)r * Kp + g * 64, q);
            place_i8((const uint8_t *)q, r, g * 64, data);
        }
}

static void pack_q4(const float *rows, int Kp, void *data, float *scale) {
    int G = Kp / WEIGHT_GROUP;
    for (int r = 0; r < WEIGHT_TILE; r++)
        for (int g = 0; g < G; g++) {
            uint8_t q[WEIGHT_GROUP];
            scale[r * G + g] = nf4_quantise_group(rows + (size_t)r * Kp + g * 64, q);
            place_q4(q, r, g * 64, data);
        }
}

void weight_pack_tile(enum weight_type t, const float *rows, int Kp, void *data, float *scale) {
    assert(Kp % WEIGHT_GROUP == 0);
    switch (t) {
    case WEIGHT_F32:
        pack_f32(rows, Kp, data);
        break;
    case WEIGHT_BF16:
        pack_half(rows, Kp, bf16_from_f32, data);
        break;
    case WEIGHT_F16:
        pack_half(rows, Kp, f16_from_f32, data);
        break;
    case WEIGHT_I8:
        pack_i8(rows, Kp, data, scale);
        break;
    case WEIGHT_Q4:
        pack_q4(rows, Kp, data, scale);
        break;
    }
}

void weight_tile_scales(const float *scale, int G, float *out) {
    for (int g = 0; g < G; g++)
        for (int r = 0; r < WEIGHT_TILE; r++)
            out[g * WEIGHT_TILE + r] = scale[r * G + g];
}

void weight_tile_codes(const uint8_t *code, int G, uint8_t *out) {
    for (int g = 0; g < G; g++)
        for (int r = 0; r < WEIGHT_TILE; r++)
            out[g * WEIGHT_TILE + r] = code[r * G + g];
}

/* Storage at 64-byte borders, as in a file. */
static void *aligned_zero(size_t bytes) {
    size_t size = (bytes + 63) / 64 * 64;
    return memset(xaligned(1, size), 0, size);
}

void weight_pack(struct weight *w, enum weight_type t, const float *x, int N, int K) {
    int Np = weight_pad_n(N), Kp = weight_pad_k(K), G = Kp / WEIGHT_GROUP;
    size_t tile = weight_tile_bytes(t, Kp), groups = (size_t)Np * (size_t)G;
    *w = (struct weight){.type = t, .N = N, .K = K, .Np = Np, .Kp = Kp, .group = WEIGHT_GROUP};
    char *data = aligned_zero((size_t)Np / WEIGHT_TILE * tile);
    float *rows = xcalloc((size_t)WEIGHT_TILE * (size_t)Kp, sizeof *rows);
    float *row_scale = xcalloc(groups, sizeof *row_scale); /* [Np, G] */
    for (int n = 0; n < Np; n += WEIGHT_TILE) {
        for (int r = 0; r < WEIGHT_TILE; r++)
            if (n + r < N)
                memcpy(rows + (size_t)r * Kp, x + (size_t)(n + r) * K, (size_t)K * sizeof *x);
            else
                memset(rows + (size_t)r * Kp, 0, (size_t)Kp * sizeof *x);
        weight_pack_tile(t, rows, Kp, data + (size_t)n / WEIGHT_TILE * tile,
                         row_scale + (size_t)n * G);
    }
    w->data = data;
    if (t == WEIGHT_I8) {
        float *scale = aligned_zero(groups * sizeof *scale);
        for (int n = 0; n < Np; n += WEIGHT_TILE)
            weight_tile_scales(row_scale + (size_t)n * G, G, scale + (size_t)n * G);
        w->scale = scale;
    } else if (t == WEIGHT_Q4) {
        uint8_t *row_code = xcalloc(groups, 1), *code = aligned_zero(groups);
        float *absmax2 = aligned_zero(weight_absmax2_len(N, K) * sizeof *absmax2);
        quant_double(row_scale, (size_t)N * (size_t)G, row_code, absmax2, &w->offset);
        for (int n = 0; n < Np; n += WEIGHT_TILE)
            weight_tile_codes(row_code + (size_t)n * G, G, code + (size_t)n * G);
        free(row_code);
        w->code = code;
        w->absmax2 = absmax2;
        w->code_map = quant_code_map;
        memcpy(w->table, nf4_table, sizeof w->table);
    }
    free(row_scale);
    free(rows);
}

/* x [N, n] in the order of the file, [Np/16, G, 16], zero where there is no x. */
static float *tiled(const float *x, int N, int n, int G) {
    float *out = aligned_zero((size_t)weight_pad_n(N) * (size_t)G * sizeof *out);
    for (int r = 0; r < N; r++)
        for (int g = 0; g < n; g++)
            out[((size_t)(r / WEIGHT_TILE) * (size_t)G + (size_t)g) * WEIGHT_TILE +
                (size_t)(r % WEIGHT_TILE)] = x[(size_t)r * (size_t)n + (size_t)g];
    return out;
}

void weight_pack_codes(struct weight *w, enum weight_type t, int N, int K, int group,
                       const uint8_t *code, const float *scale, const float *min,
                       const float *table) {
    int Np = weight_pad_n(N), Kp = weight_pad_k(K), n = (K + group - 1) / group;
    size_t tile = weight_tile_bytes(t, Kp);
    assert(group == 16 || group == 32 || group == 64);
    *w = (struct weight){.type = t, .N = N, .K = K, .Np = Np, .Kp = Kp, .group = group};
    char *data = aligned_zero((size_t)Np / WEIGHT_TILE * tile);
    uint8_t *rows = xcalloc((size_t)WEIGHT_TILE * (size_t)Kp, 1); /* [16, Kp] */
    for (int i = 0; i < N; i++) {
        memcpy(rows + (size_t)(i % WEIGHT_TILE) * (size_t)Kp, code + (size_t)i * (size_t)K,
               (size_t)K);
        if (i % WEIGHT_TILE == WEIGHT_TILE - 1 || i == N - 1)
            weight_place_codes(t, rows, Kp, data + (size_t)(i / WEIGHT_TILE) * tile);
    }
    w->data = data;
    w->scale = tiled(scale, N, n, Kp / group);
    w->min = min ? tiled(min, N, n, Kp / group) : NULL;
    if (t == WEIGHT_Q4)
        memcpy(w->table, table, sizeof w->table);
    free(rows);
}

void weight_pack_release(struct weight *w) {
    free((void *)(uintptr_t)w->data);
    free((void *)(uintptr_t)w->scale);
    free((void *)(uintptr_t)w->min);
    free((void *)(uintptr_t)w->code);
    free((void *)(uintptr_t)w->absmax2);
    *w = (struct weight){0};
}

static size_t group_at(const struct weight *w, int n, int g) {
    size_t G = (size_t)(w->Kp / w->group);
    return ((size_t)(n / WEIGHT_TILE) * G + (size_t)g) * WEIGHT_TILE +
           (size_t)(n % WEIGHT_TILE);
}

float weight_group_scale(const struct weight *w, int n, int g) {
    if (w->type != WEIGHT_I8 && w->type != WEIGHT_Q4)
        return 1;
    if (!w->code)
        return w->scale[group_at(w, n, g)];
    size_t i = ((size_t)n * (size_t)(w->Kp / w->group) + (size_t)g) / WEIGHT_SCALE_BLOCK;
    float v = w->code_map[w->code[group_at(w, n, g)]] * w->absmax2[i];
    return v + w->offset;
}

float weight_group_min(const struct weight *w, int n, int g) {
    return w->min ? w->min[group_at(w, n, g)] : 0;
}

bool weight_row_scaled(const struct weight *w) {
    if (w->type != WEIGHT_I8 || w->min)
        return false;
    for (int n = 0; n < w->N; n++) {
        float first = weight_group_scale(w, n, 0);
        for (int k = w->group; k < w->K; k += w->group) {
            float scale = weight_group_scale(w, n, k / w->group);
            if (memcmp(&scale, &first, sizeof scale) != 0)
                return false;
        }
    }
    return true;
}

/* n codes of row r from input k on. */
static void take_codes(const struct weight *w, const uint8_t *tile, size_t r, size_t k,
                       size_t n, float *out) {
    for (size_t i = 0; i < n; i++, k++)
        if (w->type == WEIGHT_I8)
            out[i] = (float)(int8_t)tile[(k / 4 * WEIGHT_TILE + r) * 4 + k % 4];
        else
            out[i] =
                w->table[tile[(k / 8 * WEIGHT_TILE + r) * 4 + k % 4] >> (k % 8 < 4 ? 0 : 4) &
                         15];
}

static void unpack_groups(const struct weight *w, const uint8_t *tile, int n, float *out) {
    for (int g = 0, k = 0; k < w->K; g++, k += w->group) {
        int len = w->K - k < w->group ? w->K - k : w->group;
        float scale = weight_group_scale(w, n, g), min = weight_group_min(w, n, g);
        take_codes(w, tile, (size_t)(n % WEIGHT_TILE), (size_t)k, (size_t)len, out + k);
        for (int i = k; i < k + len; i++)
            out[i] *= scale;
        for (int i = k; w->min && i < k + len; i++)
            out[i] += min;
    }
}

void weight_unpack_row(const struct weight *w, int n, float *out) {
    size_t r = (size_t)(n % WEIGHT_TILE), K = (size_t)w->K;
    const void *tile = (const uint8_t *)w->data +
                       (size_t)(n / WEIGHT_TILE) * weight_tile_bytes(w->type, w->Kp);
    const uint16_t *half = tile;
    switch (w->type) {
    case WEIGHT_F32:
        for (size_t k = 0; k < K; k++)
            out[k] = ((const float *)tile)[k * WEIGHT_TILE + r];
        break;
    case WEIGHT_BF16:
        for (size_t k = 0; k < K; k++)
            out[k] = bf16_to_f32(half[(k / 2 * WEIGHT_TILE + r) * 2 + k % 2]);
        break;
    case WEIGHT_F16:
        for (size_t k = 0; k < K; k++)
            out[k] = f16_to_f32(half[(k / 2 * WEIGHT_TILE + r) * 2 + k % 2]);
        break;
    case WEIGHT_I8:
    case WEIGHT_Q4:
        unpack_groups(w, tile, n, out);
        break;
    }
}
