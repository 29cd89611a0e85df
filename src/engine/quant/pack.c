/*
 * pack.c - the layouts of weight.h, written and read one element at a time. See pack.h.
 *
 * Where element (row r of the tile, input k) lies in a tile's data:
 *   F32   float  [k][r]
 *   BF16  u16    [k / 2][r][k % 2]
 *   I8    i8     [k / 4][r][k % 4]
 *   Q4    u8     [k / 8][r][k % 4], the low nibble for k % 8 < 4, else the high one
 * Kernels that unpack many values at once are held against weight_unpack_row().
 */
#include "engine/quant/pack.h"
#include "base/mem.h"
#include "engine/quant/quant.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

const char *weight_type_name(enum weight_type t) {
    static const char *const names[] = {"f32", "bf16", "i8", "q4"};
    return names[t];
}

size_t weight_tile_bytes(enum weight_type t, int Kp) {
    static const int per_two_inputs[] = {128, 64, 32, 16}; /* 16 rows x 2 inputs */
    return (size_t)Kp / 2 * (size_t)per_two_inputs[t];
}

size_t weight_absmax2_len(int N, int K) {
    size_t groups = (size_t)weight_pad_n(N) * (size_t)(weight_pad_k(K) / WEIGHT_GROUP);
    size_t blocks = (groups + WEIGHT_SCALE_BLOCK - 1) / WEIGHT_SCALE_BLOCK;
    return (blocks + 15) / 16 * 16;
}

static void pack_f32(const float *rows, int Kp, float *data) {
    for (int k = 0; k < Kp; k++)
        for (int r = 0; r < WEIGHT_TILE; r++)
            data[k * WEIGHT_TILE + r] = rows[(size_t)r * Kp + k];
}

static void pack_bf16(const float *rows, int Kp, uint16_t *data) {
    for (int k = 0; k < Kp; k++)
        for (int r = 0; r < WEIGHT_TILE; r++)
            data[(k / 2 * WEIGHT_TILE + r) * 2 + k % 2] =
                bf16_from_f32(rows[(size_t)r * Kp + k]);
}

static void pack_i8(const float *rows, int Kp, int8_t *data, float *scale) {
    int G = Kp / WEIGHT_GROUP;
    for (int r = 0; r < WEIGHT_TILE; r++)
        for (int g = 0; g < G; g++) {
            int8_t q[WEIGHT_GROUP];
            scale[r * G + g] = int8_quantise_group(rows + (size_t)r * Kp + g * 64, q);
            for (int i = 0; i < WEIGHT_GROUP; i += 4)
                memcpy(data + ((g * 64 + i) / 4 * WEIGHT_TILE + r) * 4, q + i, 4);
        }
}

static void pack_q4(const float *rows, int Kp, uint8_t *data, float *scale) {
    int G = Kp / WEIGHT_GROUP;
    for (int r = 0; r < WEIGHT_TILE; r++)
        for (int g = 0; g < G; g++) {
            uint8_t q[WEIGHT_GROUP];
            scale[r * G + g] = nf4_quantise_group(rows + (size_t)r * Kp + g * 64, q);
            for (int i = 0; i < WEIGHT_GROUP; i += 8)
                for (int j = 0; j < 4; j++)
                    data[((g * 64 + i) / 8 * WEIGHT_TILE + r) * 4 + j] =
                        (uint8_t)(q[i + j] | q[i + j + 4] << 4);
        }
}

void weight_pack_tile(enum weight_type t, const float *rows, int Kp, void *data, float *scale) {
    assert(Kp % WEIGHT_GROUP == 0);
    switch (t) {
    case WEIGHT_F32:
        pack_f32(rows, Kp, data);
        break;
    case WEIGHT_BF16:
        pack_bf16(rows, Kp, data);
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
    void *p = aligned_alloc(64, size ? size : 64);
    if (!p)
        p = xmalloc((size_t)-1 / 2); /* ends the program with its message */
    memset(p, 0, size);
    return p;
}

void weight_pack(struct weight *w, enum weight_type t, const float *x, int N, int K) {
    int Np = weight_pad_n(N), Kp = weight_pad_k(K), G = Kp / WEIGHT_GROUP;
    size_t tile = weight_tile_bytes(t, Kp), groups = (size_t)Np * (size_t)G;
    *w = (struct weight){.type = t, .N = N, .K = K, .Np = Np, .Kp = Kp};
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

void weight_pack_release(struct weight *w) {
    free((void *)(uintptr_t)w->data);
    free((void *)(uintptr_t)w->scale);
    free((void *)(uintptr_t)w->code);
    free((void *)(uintptr_t)w->absmax2);
    *w = (struct weight){0};
}

float weight_group_scale(const struct weight *w, int n, int g) {
    int G = w->Kp / WEIGHT_GROUP;
    size_t at = ((size_t)(n / WEIGHT_TILE) * (size_t)G + (size_t)g) * WEIGHT_TILE +
                (size_t)(n % WEIGHT_TILE);
    if (w->type == WEIGHT_I8)
        return w->scale[at];
    if (w->type != WEIGHT_Q4)
        return 1;
    size_t i = ((size_t)n * (size_t)G + (size_t)g) / WEIGHT_SCALE_BLOCK;
    return w->code_map[w->code[at]] * w->absmax2[i] + w->offset;
}

void weight_unpack_row(const struct weight *w, int n, float *out) {
    size_t r = (size_t)(n % WEIGHT_TILE);
    const unsigned char *tile = (const unsigned char *)w->data +
                                (size_t)(n / WEIGHT_TILE) * weight_tile_bytes(w->type, w->Kp);
    float scale = 1;
    for (size_t k = 0; k < (size_t)w->K; k++) {
        if (k % WEIGHT_GROUP == 0)
            scale = weight_group_scale(w, n, (int)(k / WEIGHT_GROUP));
        switch (w->type) {
        case WEIGHT_F32:
            out[k] = ((const float *)(const void *)tile)[k * WEIGHT_TILE + r];
            break;
        case WEIGHT_BF16:
            out[k] = bf16_to_f32(
                ((const uint16_t *)(const void *)tile)[(k / 2 * WEIGHT_TILE + r) * 2 + k % 2]);
            break;
        case WEIGHT_I8:
            out[k] = (float)(int8_t)tile[(k / 4 * WEIGHT_TILE + r) * 4 + k % 4] * scale;
            break;
        case WEIGHT_Q4:
            out[k] =
                w->table[tile[(k / 8 * WEIGHT_TILE + r) * 4 + k % 4] >> (k % 8 < 4 ? 0 : 4) &
                         15] *
                scale;
            break;
        }
    }
}
