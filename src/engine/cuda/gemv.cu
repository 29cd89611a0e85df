/*
 * gemv.cu - y (+)= x w^T + bias for one token to four: bound by reading the weights.
 *
 * Work split. A block computes a tile of 16 rows; its eight warps take turns along the inputs,
 * so that few rows still keep a whole device busy, and add up in shared memory. A warp reads
 * 512 contiguous bytes of the tile at once, 16 a lane: as weights lie in the file (weight.h) a
 * lane has four rows of I neighbouring inputs (I = 8 for 4 bits, 4 for int8, 2, 1), and eight
 * neighbouring lanes' worth of inputs share the same four rows. So a lane reads each activation
 * once for four weights, and nothing is arranged anew when a model is opened. A warp for one or
 * two rows, as usual elsewhere, would read four times the activations.
 *
 * Arithmetic. Activations, products and sums are f32. A byte of 4-bit weights becomes two
 * values of the table by one look-up of a pair of f16 numbers, in units of a power of two so
 * that any table fits: exact for integers, off by 2^-11 of the value for NF4. The table stands
 * in shared memory once for each lane, in the lane's own bank. The sum over the inputs of a
 * lane is multiplied by the group's scale, which is decoded here where it is double-quantised;
 * with a minimum m, m sum(x) is added. A lane then adds over its own inputs, eight lanes by a
 * tree, eight warps in order: the same for any number of tokens, so that a token's bits don't
 * depend on who else is in the batch.
 *
 * Four loads a lane are on their way while four are used: with 24 warps on a multiprocessor
 * 48 KB, where 3.35 TB/s and 132 of them, at 700 ns, want 18.
 */
#include "engine/cuda/weights.h"

enum {
    WARPS = 8,
    DEPTH = 4,
    PAIRS = 256 * 32 * (int)sizeof(uint32_t), /* bytes of the table of pairs */
    MAP = 256 * (int)sizeof(float),
};

/* Inputs in a lane's 16 bytes. */
template <enum weight_type TYPE> DEVICE constexpr int lane_inputs() {
    return TYPE == WEIGHT_Q4 ? 8 : TYPE == WEIGHT_I8 ? 4 : TYPE == WEIGHT_F32 ? 1 : 2;
}

/* The block's tables for 4 bits: pairs [256][32] f16 pairs, map [256] values of scale codes. */
DEVICE void fill_tables(const struct weight &w, uint32_t *pairs, float *map) {
    for (int i = thread_x(); i < 256; i += n_thread())
        sts(&map[i], w.code ? w.code_map[i] : 0);
    for (int b = warp_id(); b < 256; b += WARPS)
        sts(&pairs[b * 32 + lane_id()], reals_f16(w.table[b % 16], w.table[b / 16]));
}

/* The weights of a lane's row r (0..3), without scale. */
template <enum weight_type TYPE>
DEVICE void lane_weights(const word4 &q, int r, const uint32_t *pairs, float *out) {
    uint32_t bits = q.w[r];
    if constexpr (TYPE == WEIGHT_Q4) {
        UNROLL
        for (int j = 0; j < 4; j++) { /* inputs j and j + 4 */
            uint32_t pair = lds(&pairs[(bits >> 8 * j & 255) * 32 + lane_id()]);
            out[j] = f16_real((uint16_t)pair);
            out[j + 4] = f16_real((uint16_t)(pair >> 16));
        }
    } else if constexpr (TYPE == WEIGHT_I8) {
        UNROLL
        for (int j = 0; j < 4; j++)
            out[j] = (float)(int8_t)(bits >> 8 * j);
    } else if constexpr (TYPE == WEIGHT_BF16) {
        out[0] = low_bf16(bits);
        out[1] = high_bf16(bits);
    } else if constexpr (TYPE == WEIGHT_F16) {
        out[0] = f16_real((uint16_t)bits);
        out[1] = f16_real((uint16_t)(bits >> 16));
    } else {
        memcpy(out, &bits, 4);
    }
}

/* Scales and minimums of the lane's four rows in group g; at: of the tile's group 0, row
 * n0 the first of the four. */
DEVICE void lane_scales(const struct weight &w, float unit, int n0, int g, const float *map,
                        float *scale, float *min) {
    int G = w.Kp / w.group;
    size_t at = ((size_t)(n0 / 16) * (size_t)G + (size_t)g) * 16 + (size_t)(n0 % 16);
    if (w.code) {
        uint32_t codes = *(const uint32_t *)(w.code + at);
        UNROLL
        for (int r = 0; r < 4; r++) {
            size_t i = ((size_t)(n0 + r) * (size_t)G + (size_t)g) / WEIGHT_SCALE_BLOCK;
            float s = lds(&map[codes >> 8 * r & 255]) * w.absmax2[i];
            scale[r] = (s + w.offset) * unit;
        }
    } else {
        real4 s = *(const real4 *)(w.scale + at);
        UNROLL
        for (int r = 0; r < 4; r++)
            scale[r] = s.v[r] * unit;
    }
    if (w.min) {
        real4 m = *(const real4 *)(w.min + at);
        UNROLL
        for (int r = 0; r < 4; r++)
            min[r] = m.v[r];
    }
}

/* acc[t][r] += the lane's part of row r for the inputs k .. k + I - 1 of each token */
template <enum weight_type TYPE, int T>
DEVICE void lane_products(const struct weight &w, float unit, const word4 &q, int n0, int k,
                          const float *x, size_t ldx, int n_tok, const uint32_t *pairs,
                          const float *map, float acc[T][4]) {
    constexpr int I = lane_inputs<TYPE>();
    float scale[4] = {1, 1, 1, 1}, min[4] = {0, 0, 0, 0}, in[T][I], sum[T];
    UNROLL
    for (int t = 0; t < T; t++) {
        const float *row = x + (size_t)min_int(t, n_tok - 1) * ldx + k;
        sum[t] = 0;
        if constexpr (I >= 4) {
            UNROLL
            for (int i = 0; i < I; i += 4)
                memcpy(&in[t][i], (const real4 *)(row + i), sizeof(real4));
        } else {
            UNROLL
            for (int i = 0; i < I; i++)
                in[t][i] = row[i];
        }
    }
    if constexpr (TYPE == WEIGHT_Q4 || TYPE == WEIGHT_I8)
        lane_scales(w, unit, n0, k / w.group, map, scale, min);
    if (w.min) {
        UNROLL
        for (int t = 0; t < T; t++) {
            UNROLL
            for (int i = 0; i < I; i++)
                sum[t] += in[t][i];
        }
    }
    UNROLL
    for (int r = 0; r < 4; r++) {
        float v[I];
        lane_weights<TYPE>(q, r, pairs, v);
        UNROLL
        for (int t = 0; t < T; t++) {
            float p = 0;
            UNROLL
            for (int i = 0; i < I; i++)
                p += in[t][i] * v[i];
            acc[t][r] += p * scale[r] + sum[t] * min[r];
        }
    }
}

/* What eight lanes, then eight warps, have of each row, and into y. sums [WARPS][T][16] */
template <int T>
DEVICE void finish_tile(const struct matmul_out &o, int N, int tile, int n_tok, bool add,
                        float acc[T][4], float *sums) {
    UNROLL
    for (int t = 0; t < T; t++) {
        UNROLL
        for (int r = 0; r < 4; r++) {
            float v = acc[t][r];
            v += shfl_xor(v, 4);
            v += shfl_xor(v, 8);
            v += shfl_xor(v, 16);
            if (lane_id() < 4)
                sts(&sums[(warp_id() * T + t) * 16 + lane_id() * 4 + r], v);
        }
    }
    block_sync();
    int t = thread_x() / 16, r = thread_x() % 16, n = tile * 16 + r;
    if (t >= n_tok || n >= N)
        return;
    float v = 0;
    for (int i = 0; i < WARPS; i++)
        v += lds(&sums[(i * T + t) * 16 + r]);
    if (o.bias)
        v += o.bias[n];
    float *y = &o.y[(size_t)t * o.ldy + (size_t)n];
    *y = add ? *y + v : v;
}

/* Block b: tile b of 16 rows. n_tok <= T. */
template <enum weight_type TYPE, int T>
KERNEL void BOUNDS(WARPS * 32, T == 1 ? 3 : 2)
    gemv_kernel(struct weight w, float unit, struct matmul_out o, const float *x, size_t ldx,
                int n_tok, bool add) {
    SHARED(shared);
    constexpr int I = lane_inputs<TYPE>();
    float *sums = (float *)shared, *map = sums + WARPS * T * 16;
    uint32_t *pairs = (uint32_t *)(map + 256);
    int n_unit = w.Kp / (8 * I), tile = block_x();
    int n0 = tile * 16 + lane_id() % 4 * 4, own = lane_id() / 4 * I;
    const char *data = (const char *)w.data + (size_t)tile * (size_t)n_unit * 512;
    const word4 none = {{0, 0, 0, 0}};
    word4 now[DEPTH], next[DEPTH];
    float acc[T][4] = {};
    UNROLL
    for (int d = 0; d < DEPTH; d++) {
        int u = warp_id() + d * WARPS;
        next[d] = u < n_unit ? ld_stream(data + (size_t)u * 512 + lane_id() * 16) : none;
    }
    if constexpr (TYPE == WEIGHT_Q4) {
        fill_tables(w, pairs, map);
        block_sync();
    }
    wait_for_others();
    for (int first = warp_id(); first < n_unit; first += DEPTH * WARPS) {
        UNROLL
        for (int d = 0; d < DEPTH; d++) {
            int u = first + (DEPTH + d) * WARPS;
            now[d] = next[d];
            next[d] = u < n_unit ? ld_stream(data + (size_t)u * 512 + lane_id() * 16) : none;
        }
        UNROLL
        for (int d = 0; d < DEPTH; d++) {
            int u = first + d * WARPS;
            if (u < n_unit)
                lane_products<TYPE, T>(w, unit, now[d], n0, u * 8 * I + own, x, ldx, n_tok,
                                       pairs, map, acc);
        }
    }
    finish_tile<T>(o, w.N, tile, n_tok, add, acc, sums);
}

/* The power of two that the table's values are below. */
static float table_unit(const float *table) {
    float top = 0;
    int e = 0;
    for (int i = 0; i < 16; i++)
        top = fmaxf(top, fabsf(table[i]));
    frexpf(top, &e);
    return top < INFINITY ? ldexpf(1, e < -126 ? -126 : e > 127 ? 127 : e) : 1;
}

template <enum weight_type TYPE, int T>
static void run(struct gpu *g, const float *x, int n_tok, const struct matmul_out *o,
                bool add) {
    struct weight w = *o->w;
    float unit = TYPE == WEIGHT_Q4 ? table_unit(w.table) : 1;
    for (int i = 0; TYPE == WEIGHT_Q4 && i < 16; i++)
        w.table[i] /= unit;
    size_t shared = WARPS * T * 16 * sizeof(float) + (TYPE == WEIGHT_Q4 ? MAP + PAIRS : 0);
    launch<gemv_kernel<TYPE, T>>(g, "gemv", dim3((unsigned)w.Np / 16), WARPS * 32, shared, w,
                                 unit, *o, x, (size_t)weight_pad_k(w.K), n_tok, add);
}

template <enum weight_type TYPE>
static void run_type(struct gpu *g, const float *x, int T, const struct matmul_out *o,
                     bool add) {
    if (T == 1)
        run<TYPE, 1>(g, x, T, o, add);
    else if (T == 2)
        run<TYPE, 2>(g, x, T, o, add);
    else
        run<TYPE, 4>(g, x, T, o, add);
}

static void gemv(struct gpu *g, const float *x, int T, const struct matmul_out *o, bool add) {
    switch (o->w->type) {
    case WEIGHT_F32:
        return run_type<WEIGHT_F32>(g, x, T, o, add);
    case WEIGHT_BF16:
        return run_type<WEIGHT_BF16>(g, x, T, o, add);
    case WEIGHT_F16:
        return run_type<WEIGHT_F16>(g, x, T, o, add);
    case WEIGHT_I8:
        return run_type<WEIGHT_I8>(g, x, T, o, add);
    case WEIGHT_Q4:
        return run_type<WEIGHT_Q4>(g, x, T, o, add);
    }
}

void gpu_gemv_kernels(struct gpu *g) {
    g->gemv = gemv;
}
