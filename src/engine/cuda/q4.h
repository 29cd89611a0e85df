/*
 * q4.h - 4-bit weights as the A fragments of tensor cores, for the kernels that read them as
 * they lie in the file: NF4, FP4, Q4_0, IQ4_NL and whatever else has groups of 64 or 32 inputs
 * and no minimums.
 *
 * A warp takes a chunk, 64 inputs of 32 rows (two tiles of the file's layout), which is a
 * kilobyte: a lane 16 bytes, twice, which are four neighbouring rows of unit t and of unit t +
 * 4 (a unit is 8 inputs, t = lane % 4). That is what tensor cores want: a byte of two weights
 * becomes one register of a fragment by one look-up, since the order of k inside a product is
 * free as long as B has the same, and rows may be numbered as one likes. So weights go from
 * memory to registers without a stop in shared memory, and nothing is arranged anew when a
 * model is opened.
 *
 * The table of pairs has a copy for each lane, in the lane's own bank. Its rows are 256 bytes
 * apart, so that the place of a byte's pair is made by one instruction, which puts the byte
 * behind the lane's number; what is between the rows is for others. Values are bf16, times the
 * factor that suits the table best (weights.h: NF4 is off by 1.9e-3 of a value at most, tables
 * of integers and FP4 are exact), and scales are over that factor.
 */
#ifndef LLMCHAT_ENGINE_CUDA_Q4_H
#define LLMCHAT_ENGINE_CUDA_Q4_H

#include "engine/cuda/weights.h"

enum {
    CHUNK = 64,
    ROWS = 32,
    TABLE_ROW = 256, /* bytes: 32 words of a pair, then as much for others */
    TABLE_BYTES = 256 * TABLE_ROW,
    MAP_BYTES = 256 * (int)sizeof(float),
};

/* How the scales of a chunk lie: one for its 64 inputs, one for each half, or quantised. */
enum scales { ONE, HALVES, QUANTISED };

struct q4_out {
    struct weight w;
    float *y;
    size_t ldy;
    const float *bias;
    float inverse; /* of the table's factor; the kernel's table is multiplied already */
};

/* ---- on the device ---- */

/* Where a lane finds its part of a tile's chunks: of each the words of four rows, and scales of
 * one of them. */
struct lane_place {
    const char *data;
    const uint8_t *code;  /* NULL: */
    const float *scale;   /* of the chunk's groups; or absmax2, */
    uint32_t absmax2_row; /* whose first group counts from here */
};

/* Of rows first .. first + 31 of a weight, those behind its end being the last ones again. */
DEVICE lane_place place_of(const struct weight &w, int first) {
    int g = lane_id() / 4, t = lane_id() % 4, quad = g % 4, row = quad * 4 + t;
    int G = w.Kp / w.group, tile = min_int(first / 16 + g / 4, w.Np / 16 - 1);
    size_t at = (size_t)tile * (size_t)G * 16;
    lane_place p;
    p.data = (const char *)w.data + (size_t)tile * (size_t)w.Kp * 8 + (t * 4 + quad) * 16;
    p.code = w.code ? w.code + at + row : NULL;
    p.scale = w.code ? w.absmax2 : w.scale + at + row;
    p.absmax2_row = (uint32_t)(tile * 16 + row) * (uint32_t)G;
    return p;
}

struct lane_chunk {
    word4 q[2];     /* units t and t + 4 */
    float scale[2]; /* of the halves; or scale[0] = absmax2, and */
    uint32_t code;
};

template <enum scales SCALES>
DEVICE void load_chunk(const lane_place &p, int c, lane_chunk *l) {
    const char *data = p.data + (size_t)c * 512;
    l->q[0] = ld_stream(data);
    l->q[1] = ld_stream(data + 256);
    if (SCALES == HALVES) {
        l->scale[0] = p.scale[c * 32];
        l->scale[1] = p.scale[c * 32 + 16];
    } else if (SCALES == QUANTISED) {
        l->code = p.code[c * 16];
        l->scale[0] = p.scale[(p.absmax2_row + (uint32_t)c) / WEIGHT_SCALE_BLOCK];
    } else {
        l->scale[0] = p.scale[c * 16];
    }
}

/* The pair of values of byte j of a row's word, from the lane's place of the table's row; lane:
 * 4 times the lane's number. */
DEVICE uint32_t pair_of(const unsigned char *table, uint32_t word, int j, uint32_t lane) {
    return lds((const uint32_t *)(table + byte_perm(word, lane, 0x5504u | (uint32_t)j << 4)));
}

/* What turns a chunk's words of scales into scales over the table's factor. */
struct decoder {
    const float *map; /* of quantised ones */
    float offset, inverse;
};

/* The block's table of pairs: each word stands 32 times; a lane writes four of them at once. */
template <int WARPS> DEVICE void fill_pairs(const float *values, unsigned char *table) {
    float mine = 0; /* lane i has values[i % 16] */
    UNROLL
    for (int i = 0; i < 16; i++)
        mine = lane_id() % 16 == i ? values[i] : mine;
    UNROLL
    for (int i = 0; i < 64 / WARPS; i++) {
        int b = (i * WARPS + warp_id()) * 4 + lane_id() / 8;
        uint32_t pair = reals_bf16(shfl(mine, b % 16), shfl(mine, b / 16));
        word4 four = {{pair, pair, pair, pair}};
        sts((word4 *)(table + b * TABLE_ROW + lane_id() % 8 * 16), four);
    }
}

/* ---- on the host ---- */

/* Whether these kernels can multiply with a weight. */
[[maybe_unused]] static bool q4_fits(const struct weight *w) {
    return w->type == WEIGHT_Q4 && !w->min && w->group >= 32;
}

/* The norms that are computed on the way. */
[[maybe_unused]] static bool q4_norm(const struct norm_op *n) {
    return !n || (n->kind == NORM_RMS && n->H == 1 && !n->b);
}

[[maybe_unused]] static void q4_out_of(struct q4_out *to, const struct matmul_out *o) {
    float factor = table_factor(o->w->table);
    to->w = *o->w;
    for (int i = 0; i < 16; i++)
        to->w.table[i] *= factor;
    to->y = o->y;
    to->ldy = o->ldy;
    to->bias = o->bias;
    to->inverse = 1 / factor;
}

/* Whether one launch can have both: its blocks have one table. */
[[maybe_unused]] static bool q4_alike(const struct weight *a, const struct weight *b) {
    return a->group == b->group && (a->code != NULL) == (b->code != NULL) &&
           memcmp(a->table, b->table, sizeof a->table) == 0;
}

[[maybe_unused]] static enum scales scales_of(const struct weight *w) {
    return w->group == 32 ? HALVES : w->code ? QUANTISED : ONE;
}

#endif
