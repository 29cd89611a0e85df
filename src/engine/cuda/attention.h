/*
 * attention.h - what the kernels of attention share: their arguments, the rows and keys of a
 * block, and the end of a row.
 */
#ifndef LLMCHAT_ENGINE_CUDA_ATTENTION_H
#define LLMCHAT_ENGINE_CUDA_ATTENTION_H

#include "engine/cuda/weights.h"

/* Loops whose length is not known, or whose bodies all unrolled want too many registers. */
#ifdef __CUDACC__
#define UNROLL_SOME _Pragma("unroll 4")
#else
#define UNROLL_SOME
#endif

struct att_args {
    struct gpu_step s;
    struct kv_layer kv; /* k, v and stride are multiples of 16 bytes */
    struct att_op a;
    struct gpu_parts parts;
    const float *q; /* [T, H * D], row stride ld, as out */
    float *out;
    size_t ld;
    int H, G, tiles; /* tiles: of rows, for each sequence */
};

/* The block's rows row .. row + n - 1 of a sequence's. */
struct att_tile {
    int head, first, past, row, n; /* first: the sequence's, in q */
    int from, limit;               /* keys that any row sees */
    const char *k, *v;             /* of the KV head in block 0 */
    const int32_t *blocks;
};

/* Keys that row r of a tile sees: from .. limit - 1 */
DEVICE int row_limit(const att_args &A, const att_tile &t, int r) {
    return t.past + (t.row + r) / A.G + 1;
}
DEVICE int limit_from(const att_args &A, int limit) {
    return A.a.window > 0 ? max_int(limit - A.a.window, 0) : 0;
}
/* The head of row r, and its number among the step's T * H. */
DEVICE int row_head(const att_args &A, const att_tile &t, int r) {
    return t.head * A.G + (t.row + r) % A.G;
}
DEVICE size_t row_id(const att_args &A, const att_tile &t, int r) {
    return (size_t)(t.first + (t.row + r) / A.G) * (size_t)A.H + (size_t)row_head(A, t, r);
}
/* Where it begins in q and out. */
DEVICE size_t row_at(const att_args &A, const att_tile &t, int r) {
    return (size_t)(t.first + (t.row + r) / A.G) * A.ld +
           (size_t)row_head(A, t, r) * (size_t)A.kv.D;
}

/* What this block does, with at most `rows` rows; n <= 0: nothing. */
DEVICE att_tile block_tile(const att_args &A, int rows) {
    att_tile t;
    int seq = block_z();
    size_t part = kv_head_bytes(A.kv.type, A.kv.D);
    t.head = block_x() % A.kv.Hkv;
    t.first = A.s.first[seq];
    t.past = A.s.past[seq];
    t.row = (A.tiles - 1 - block_x() / A.kv.Hkv) * rows;
    t.n = min_int(rows, (A.s.first[seq + 1] - t.first) * A.G - t.row);
    t.limit = row_limit(A, t, max_int(t.n - 1, 0));
    t.from = limit_from(A, row_limit(A, t, 0));
    t.k = (const char *)A.kv.k + (size_t)t.head * part;
    t.v = (const char *)A.kv.v + (size_t)t.head * part;
    t.blocks = A.s.blocks + A.s.table[seq];
    return t;
}

/* Units begin .. end - 1 of n are this part's. */
DEVICE void part_share(const att_args &A, int n, int *begin, int *end) {
    *begin = (int)((int64_t)n * block_y() / A.parts.n);
    *end = (int)((int64_t)n * (block_y() + 1) / A.parts.n);
}

/* 1 / the sum of a row's softmax with its sink */
DEVICE float row_inverse(const att_op &a, int h, float m, float l) {
    if (!a.sinks)
        return 1 / l;
    float sink = a.sinks[h], top = fmaxf(sink, m), f = expf(m - top);
    return f / (f * l + expf(sink - top));
}

/* (m, l) of a part; the other part of the layout, o, begins at parts.at. */
DEVICE float *part_sums(const att_args &A, size_t part_row) {
    size_t n = (size_t)A.parts.n * (size_t)A.s.T * (size_t)A.H;
    return A.parts.at + n * (size_t)A.kv.D + part_row * 2;
}

/* Adds up what WARPS warps have of a tile's rows: ml [WARPS, rows, 2] and o [WARPS, rows, ldo]
 * in shared memory; writes it to out, or as a part. */
template <int WARPS>
DEVICE void merge_warps(const att_args &A, const att_tile &t, const float *ml, const float *o,
                        int rows, int ldo) {
    int D = A.kv.D;
    for (int r = warp_id(); r < t.n; r += WARPS) {
        float top = -INFINITY, l = 0, f[WARPS], inv = 1, *to = A.out + row_at(A, t, r);
        for (int w = 0; w < WARPS; w++)
            top = fmaxf(top, lds(&ml[(w * rows + r) * 2]));
        UNROLL
        for (int w = 0; w < WARPS; w++) {
            float wl = lds(&ml[(w * rows + r) * 2 + 1]);
            f[w] = wl == 0 ? 0 : expf(lds(&ml[(w * rows + r) * 2]) - top);
            l += f[w] * wl;
        }
        if (A.parts.n > 1) {
            size_t at = (size_t)block_y() * (size_t)A.s.T * (size_t)A.H + row_id(A, t, r);
            float *sums = part_sums(A, at);
            to = A.parts.at + at * (size_t)D;
            if (lane_id() == 0) {
                sums[0] = top;
                sums[1] = l;
            }
        } else {
            inv = row_inverse(A.a, row_head(A, t, r), top, l);
        }
        for (int d = lane_id(); d < D; d += 32) {
            float v = 0;
            UNROLL
            for (int w = 0; w < WARPS; w++)
                v += f[w] * lds(&o[(w * rows + r) * ldo + d]);
            to[d] = v * inv;
        }
    }
}

#endif
