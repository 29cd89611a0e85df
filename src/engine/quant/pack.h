/*
 * pack.h - rows of f32, or ready codes, into the tiled layouts of weight.h, and back.
 *
 * The unit of work is a tile: 16 rows of Kp inputs. Creating a model streams tile after tile;
 * tests pack whole matrices. These are the reference: plain loops over (row, input), the
 * layout's formula written once in each direction.
 */
#ifndef LLMCHAT_ENGINE_QUANT_PACK_H
#define LLMCHAT_ENGINE_QUANT_PACK_H

#include "engine/quant/weight.h"

const char *weight_type_name(enum weight_type t);     /* "f32", "bf16", "f16", "i8", "q4" */
size_t weight_tile_bytes(enum weight_type t, int Kp); /* data of 16 rows */
/* Entries of absmax2 in the file: one for each 256 groups of all Np rows, so that kernels may
 * look up padding rows too, rounded up to whole 64 bytes. Entries beyond ceil(N * G / 256) are
 * zero. */
size_t weight_absmax2_len(int N, int K);

/* What a weight consists of: data, scale, min, code, absmax2; of those that it lacks no bytes.
 * code_map is small and shared by all. */
enum { WEIGHT_PARTS = 5 };
struct weight_part {
    const void *from;
    size_t bytes, at; /* at: in a copy of all of them, each at a 64-byte border */
};
/* Returns the bytes of such a copy. */
size_t weight_parts(const struct weight *w, struct weight_part part[WEIGHT_PARTS]);
size_t weight_bytes(const struct weight *w); /* the same alone */

/* Quantises: rows [16, Kp] (padding zero) -> data [weight_tile_bytes()] and, for I8 and Q4,
 * which are groups of 64 and for Q4 NF4, scale [16, G] in row order: the scale of an I8 group,
 * the absmax of a Q4 group (still to be double-quantised). scale may be NULL for floats. */
void weight_pack_tile(enum weight_type t, const float *rows, int Kp, void *data, float *scale);
/* Places ready codes, I8 or Q4: code [16, Kp], a byte each (int8; 0..15) -> data. Padding rows
 * and inputs may have any code; groups that are all padding get scale 0 and min 0. */
void weight_place_codes(enum weight_type t, const uint8_t *code, int Kp, void *data);
/* The order of the file for one tile's scales (minimums) or codes: [16, G] -> [G, 16]. */
void weight_tile_scales(const float *scale, int G, float *out);
void weight_tile_codes(const uint8_t *code, int G, uint8_t *out);

/* A whole matrix x [N, K] in its own heap storage. */
void weight_pack(struct weight *w, enum weight_type t, const float *x, int N, int K);
/* The same from ready codes, I8 or Q4: code [N, K], scale and min (or NULL) [N, ceil(K /
 * group)], table [16] (Q4; else ignored). */
void weight_pack_codes(struct weight *w, enum weight_type t, int N, int K, int group,
                       const uint8_t *code, const float *scale, const float *min,
                       const float *table);
void weight_pack_release(struct weight *w); /* only for what these two made */

/* The values of row n (0..Np-1): out [K]. */
void weight_unpack_row(const struct weight *w, int n, float *out);
/* The scale of group g of row n: what a code or a table's value is multiplied by, for Q4 with
 * a code after double quantisation; 1 for floats. */
float weight_group_scale(const struct weight *w, int n, int g);
float weight_group_min(const struct weight *w, int n, int g); /* 0 where there is none */
/* I8: whether the groups of a row that hold inputs have the bits of one scale and no minimum,
 * in all rows. Reads the scales until some differ. */
bool weight_row_scaled(const struct weight *w);

#endif
