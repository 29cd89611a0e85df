/*
 * gemm.cu - y (+)= x w^T + bias for a few tokens to 128: tensor cores straight from the weights
 * as they lie in the file. Bound by reading the weights up to about 32 tokens, then by x's way
 * from the second-level cache and by the tensor cores.
 *
 * Fragments. Weights are the A operand (m16n8k16), tokens the B operand. A product's inputs may
 * come in any order as long as A and B agree, and so may the rows: a warp multiplies two tiles
 * of the file, 32 rows, by 64 inputs. Lane (g = lane / 4, t = lane % 4) holds rows 4g .. 4g + 3
 * of the 32, the first two in one m16 and the others in a second, and of the inputs the units
 * of eight t and t + 4. Row r's 16 bytes in the file hold just these four rows, so weights and
 * activations both come out of shared memory 16 bytes at a time, and a lane ends with four
 * neighbouring numbers of y. A unit is two k16 steps: words 0, 1 and words 2, 3 of a token's
 * eight activations are the B registers as they are. Pieces of 16 bytes stand in shared memory
 * in such an order (piece_at(), unit_at()) that eight lanes never meet in a bank.
 *
 * Values. Operands are bf16 (f16 for f16 weights), products exact, sums f32.
 *   PLAIN   BF16, F16: the file's numbers.
 *   AFTER   I8, Q4 with groups of 64 or 32 and no minimum: A = q or table[q], the group's
 *           products are summed by themselves and multiplied by the f32 scale. Exact for I8 and
 *           for tables of integers. A table that bf16 does not hold is first multiplied by the
 *           best of a few factors, and the scale divided by it: FP4 is exact times 12, NF4's
 *           values are off by 6.3e-4 (weighted mean square; 1.9e-3 at most) instead of 1.1e-3
 *           (3.1e-3), and their errors no longer have a mean.
 *   BEFORE  I8, Q4 with groups of 16 or a minimum: A = bf16(q * scale + min), rounded once (for
 *           Q4 the table is f16 before): off by 2^-8 of the weight at most, as x itself is.
 *           Minimums after the sums would want another product, of x with ones.
 * AFTER is also the cheaper one where weights are what bounds: scaling costs 8 operations a
 * lane for 8 tokens and 64 inputs, rounding 160 for any number of tokens.
 *
 * Four-bit values: a byte holds inputs j and j + 4 of a unit. One look-up in a table of 256
 * pairs, which stands in shared memory once for each lane in the lane's own bank, gives both.
 * Up to 16 tokens x is turned into such pairs (TURN), 4 operations a unit of 8 tokens; above,
 * two look-ups are put together to two pairs of neighbours, 16 a unit for any number of tokens.
 *
 * Work split. Eight warps: `rows` x 32 rows, `ks` chunks of 64 inputs and `toks` parts of the
 * tokens side by side; those along the inputs add up in shared memory, in order. More rows a
 * block read x less often; fewer make more blocks. plan_of() takes the most rows (32, 64 or
 * 128) that leave a block for each multiprocessor. Of 132: N = 576 gives 18 blocks, 4096 128,
 * 14336 224; above 32 tokens 9, 64, 224, because ks slices of x have to fit.
 *
 * A round is `ks` chunks. cp.async brings weights, their scales and x for up to three rounds
 * ahead; a barrier a round.
 */
#include "engine/cuda/weights.h"

enum {
    WARPS = 8,
    CHUNK = 64,                                  /* inputs of a warp's turn */
    MAX_STAGES = 4,                              /* rounds in shared memory */
    X_ROW = CHUNK * (int)sizeof(uint16_t),       /* bytes of a token in a chunk */
    PAIRS = 256 * 32 * (int)sizeof(uint32_t),    /* bytes of the table of pairs */
    MAP_COPIES = 4,                              /* of the table of scale codes */
    MAP = 256 * MAP_COPIES * (int)sizeof(float), /* bytes of it */
    SUM_ROW = 32 + 4,                            /* floats of a token in a warp's sums */
};
enum how { PLAIN, AFTER, BEFORE };

struct gemm_plan {
    int rows, ks, toks; /* warps along each; 8 together */
    int stages;
    /* bytes: a stage is x [ks][tokens][64] and a slot [ks][rows]; a slot data [2 tiles], scale
     * or code [2], min [2] */
    int x_bytes, slot_bytes, scale_bytes, stage_bytes;
    int scale_pieces;      /* of 16 bytes, of a tile's 64 inputs */
    int group_bits;        /* log2 of the inputs of a group */
    float factor, inverse; /* Q4, AFTER: of the table, and of its scales */
};

/* What a warp, and a lane, does. */
struct gemm_warp {
    int row, k, tok;    /* its place along each */
    int chunk[2];       /* of the weight's: the first of its two tiles (clamped to the last) */
    int x, slot;        /* where its own parts of a stage begin */
    int scale;          /* which of the pieces of scales the lane asks for in chunk 0, or -1 */
    unsigned absmax[4]; /* Q4 with a code: n * G of the lane's rows */
};

/* ---- what a weight's type means ---- */

/* Pieces of 16 bytes of a tile's 64 inputs, and bytes of a block's tables. */
template <enum weight_type TYPE>
constexpr int tile_pieces = TYPE == WEIGHT_Q4   ? 32
                            : TYPE == WEIGHT_I8 ? 64
                                                : 128;
template <enum weight_type TYPE>
constexpr int table_bytes = TYPE == WEIGHT_Q4 ? PAIRS + MAP : 0;
/* Where piece p of a tile's 64 inputs stands: read by lanes (t, two neighbouring g) at once. */
template <enum weight_type TYPE> DEVICE int piece_at(int p) {
    int t = p / (tile_pieces<TYPE> / 8) % 4;
    return p ^ (TYPE == WEIGHT_Q4 ? t & 2 : 2 * t);
}
/* Where unit u of token t stands, in units. */
DEVICE int unit_at(int t, int u) {
    return t * 8 + (u ^ (t & 1) * 4);
}
DEVICE uint32_t real_bits(float f) {
    uint32_t b;
    memcpy(&b, &f, 4);
    return b;
}
DEVICE float bits_real(uint32_t b) {
    float f;
    memcpy(&f, &b, 4);
    return f;
}
DEVICE uint32_t halves(uint16_t lo, uint16_t hi) {
    const uint16_t both[2] = {lo, hi};
    uint32_t r;
    memcpy(&r, both, 4);
    return r;
}
DEVICE uint32_t low_halves(uint32_t a, uint32_t b) {
    return halves((uint16_t)a, (uint16_t)b);
}
DEVICE uint32_t high_halves(uint32_t a, uint32_t b) {
    return halves((uint16_t)(a >> 16), (uint16_t)(b >> 16));
}
/* Byte i of a word with its sign bits flipped: by the exponent of 2^23, whose last bit is 1. */
DEVICE float byte_real(uint32_t flipped, int i) {
    return bits_real(0x4b000000 | (flipped >> 8 * i & 255)) - 8388736.0f;
}

/* The block's tables for 4 bits: pairs [256][32], map [256][MAP_COPIES]. */
template <enum how HOW>
DEVICE void fill_tables(const struct weight &w, const struct gemm_plan &p, uint32_t *pairs,
                        float *map) {
    float mine = 0; /* lane i has table[i % 16] */
    UNROLL
    for (int i = 0; i < 16; i++)
        mine = lane_id() % 16 == i ? w.table[i] : mine;
    if (HOW == AFTER)
        mine *= p.factor;
    for (int b = warp_id(); b < 256; b += WARPS) {
        float lo = shfl(mine, b % 16), hi = shfl(mine, b / 16);
        sts(&pairs[b * 32 + lane_id()], HOW == AFTER ? reals_bf16(lo, hi) : reals_f16(lo, hi));
    }
    for (int i = thread_x(); w.code && i < 256 * MAP_COPIES; i += n_thread())
        sts(&map[i], w.code_map[i / MAP_COPIES]);
}

/* ---- a lane's weights ---- */

/* One row of a unit: its eight inputs as pairs, of both k16 steps. a0, a1: registers of the two
 * steps; the first pair goes to [0], the second to [2]. TURN: pairs of j and j + 4, else of
 * neighbours. */
template <enum how HOW, bool TURN>
DEVICE void unpack_q4(uint32_t bits, float scale, float min, const uint32_t *pairs,
                      uint32_t *a0, uint32_t *a1) {
    uint32_t p[4];
    UNROLL
    for (int j = 0; j < 4; j++)
        p[j] = lds(&pairs[(bits >> 8 * j & 255) * 32 | (unsigned)lane_id()]);
    if constexpr (TURN) {
        a0[0] = p[0];
        a0[2] = p[1];
        a1[0] = p[2];
        a1[2] = p[3];
    } else if constexpr (HOW == AFTER) {
        a0[0] = low_halves(p[0], p[1]);
        a0[2] = low_halves(p[2], p[3]);
        a1[0] = high_halves(p[0], p[1]);
        a1[2] = high_halves(p[2], p[3]);
    } else {
        float v[8];
        UNROLL
        for (int j = 0; j < 4; j++) {
            v[j] = f16_real((uint16_t)p[j]) * scale + min;
            v[j + 4] = f16_real((uint16_t)(p[j] >> 16)) * scale + min;
        }
        a0[0] = reals_bf16(v[0], v[1]);
        a0[2] = reals_bf16(v[2], v[3]);
        a1[0] = reals_bf16(v[4], v[5]);
        a1[2] = reals_bf16(v[6], v[7]);
    }
}

/* One row of half a unit, a k16 step. */
template <enum how HOW>
DEVICE void unpack_i8(uint32_t bits, float scale, float min, uint32_t *a) {
    float v[4];
    UNROLL
    for (int i = 0; i < 4; i++)
        v[i] = byte_real(bits ^ 0x80808080, i);
    if constexpr (HOW == AFTER) { /* whole numbers of at most 8 bits */
        a[0] = high_halves(real_bits(v[0]), real_bits(v[1]));
        a[2] = high_halves(real_bits(v[2]), real_bits(v[3]));
    } else {
        a[0] = reals_bf16(v[0] * scale + min, v[1] * scale + min);
        a[2] = reals_bf16(v[2] * scale + min, v[3] * scale + min);
    }
}

/* Unit t + 4 h of the lane's four rows: a [k16 step][m16][register]. slot: the two tiles;
 * scale, min: of the four rows (BEFORE). */
template <enum weight_type TYPE, enum how HOW, bool TURN>
DEVICE void lane_weights(const unsigned char *slot, int h, const float *scale, const float *min,
                         const uint32_t *pairs, uint32_t a[2][2][4]) {
    constexpr int P = tile_pieces<TYPE>, U = P / 8;
    int g = lane_id() / 4, first = (lane_id() % 4 + 4 * h) * U + g % 4;
    const word4 *tile = (const word4 *)(const void *)slot + g / 4 * P;
    UNROLL
    for (int i = 0; i < U / 4; i++) {
        word4 v = lds(&tile[piece_at<TYPE>(first + 4 * i)]);
        UNROLL
        for (int r = 0; r < 4; r++) {
            if constexpr (TYPE == WEIGHT_Q4)
                unpack_q4<HOW, TURN>(v.w[r], scale[r], min[r], pairs, &a[0][r / 2][r % 2],
                                     &a[1][r / 2][r % 2]);
            else if constexpr (TYPE == WEIGHT_I8)
                unpack_i8<HOW>(v.w[r], scale[r], min[r], &a[i][r / 2][r % 2]);
            else
                a[i / 2][r / 2][i % 2 * 2 + r % 2] = v.w[r];
        }
    }
}

/* The absmax of the lane's rows in group g, asked for before they are needed. */
DEVICE void lane_absmax(const struct weight &w, const struct gemm_warp &me, int g,
                        float absmax[4]) {
    UNROLL
    for (int r = 0; r < 4; r++)
        absmax[r] = w.absmax2[(me.absmax[r] + (unsigned)g) / WEIGHT_SCALE_BLOCK];
}

/* Scales and minimums of the lane's four rows in group i of the chunk. */
template <enum how HOW>
DEVICE void lane_scales(const struct weight &w, const struct gemm_plan &p,
                        const unsigned char *scales, int i, const float absmax[4],
                        const float *map, float scale[4], float min[4]) {
    int g = lane_id() / 4, G = CHUNK >> p.group_bits;
    if (w.code) {
        uint32_t codes = lds((const uint32_t *)(const void *)scales + g);
        UNROLL
        for (int r = 0; r < 4; r++) {
            uint32_t code = codes >> 8 * r & 255;
            float s = lds(&map[code * MAP_COPIES + (unsigned)g % MAP_COPIES]) * absmax[r];
            scale[r] = (s + w.offset) * p.inverse;
        }
        return;
    }
    const real4 *at = (const real4 *)(const void *)scales + (g / 4 * G + i) * 4 + g % 4;
    real4 s = lds(at), m = {{0, 0, 0, 0}};
    if (HOW == BEFORE && w.min)
        m = lds(at + p.scale_bytes / (int)sizeof m);
    UNROLL
    for (int r = 0; r < 4; r++) {
        scale[r] = HOW == AFTER ? s.v[r] * p.inverse : s.v[r];
        min[r] = m.v[r];
    }
}

/* ---- a round ---- */

/* Asks for round i: each warp for its own weights, and with those that share them for x. */
template <enum weight_type TYPE, int NT>
DEVICE void fetch(const struct weight &w, const struct gemm_plan &p, const struct gemm_warp &me,
                  const uint16_t *xb, int T, int i, unsigned char *stage) {
    constexpr int P = tile_pieces<TYPE>;
    int n_chunk = w.Kp / CHUNK, c = i * p.ks + me.k, lane = lane_id();
    if (c >= n_chunk)
        return;
    unsigned char *slot = stage + me.slot;
    UNROLL
    for (int j = 0; j < 2; j++) {
        if (p.toks == 2 && me.tok != j)
            continue;
        const word4 *from = (const word4 *)w.data + ((me.chunk[j] + c) * P + lane);
        UNROLL
        for (int q = 0; q < P; q += 32)
            cp_async(slot + (j * P + piece_at<TYPE>(q + lane)) * 16, from + q, 16);
    }
    if (me.scale >= 0) {
        int at = me.scale + c * p.scale_pieces;
        slot += 2 * P * 16 + lane * 16;
        cp_async(slot, (const word4 *)(w.code ? (const void *)w.code : w.scale) + at, 16);
        if (w.min)
            cp_async(slot + p.scale_bytes, (const word4 *)(const void *)w.min + at, 16);
    }
    const uint16_t *x = xb + (c * CHUNK + lane % 8 * 8);
    int first = (me.row * p.toks + me.tok) * 4 + lane / 8, step = p.rows * p.toks * 4;
    for (int t = first; t < NT * 8 * p.toks; t += step)
        cp_async(stage + me.x + unit_at(t, lane % 8) * 16, x + min_int(t, T - 1) * w.Kp,
                 t < T ? 16 : 0);
}

template <enum weight_type TYPE>
DEVICE void mma(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    if constexpr (TYPE == WEIGHT_F16)
        mma_f16(d, a, b);
    else
        mma_bf16(d, a, b);
}

/* d [m16] += the lane's unit of 16 rows x 2 by that of 8 tokens */
template <enum weight_type TYPE>
DEVICE void unit_products(float d[2][4], const uint32_t a[2][2][4], const word4 &x) {
    UNROLL
    for (int q = 0; q < 2; q++) {
        UNROLL
        for (int m = 0; m < 2; m++)
            mma<TYPE>(d[m], a[q][m], &x.w[2 * q]);
    }
}

/* acc += d * scale of its row, d = 0 */
DEVICE void scale_products(float acc[2][4], float d[2][4], const float scale[4]) {
    UNROLL
    for (int m = 0; m < 2; m++) {
        UNROLL
        for (int i = 0; i < 4; i++) {
            acc[m][i] += d[m][i] * scale[2 * m + i / 2];
            d[m][i] = 0;
        }
    }
}

/* A unit of activations in pairs of j and j + 4. */
DEVICE word4 turned(const word4 &x) {
    return {{low_halves(x.w[0], x.w[2]), high_halves(x.w[0], x.w[2]),
             low_halves(x.w[1], x.w[3]), high_halves(x.w[1], x.w[3])}};
}

/* acc += 32 rows by the warp's tokens over one chunk; x: the tokens' chunk, slot: the weights',
 * as they stand in shared memory. */
template <enum weight_type TYPE, enum how HOW, int NT>
DEVICE void chunk_products(const struct weight &w, const struct gemm_plan &p,
                           const unsigned char *x, const unsigned char *slot,
                           const float absmax[4], const uint32_t *pairs, const float *map,
                           float acc[NT][2][4]) {
    const unsigned char *scales = slot + 2 * tile_pieces<TYPE> * 16;
    constexpr bool TURN = TYPE == WEIGHT_Q4 && HOW == AFTER && NT <= 2;
    const word4 *unit = (const word4 *)(const void *)x;
    int g = lane_id() / 4, t = lane_id() % 4;
    uint32_t a[2][2][2][4];
    float scale[2][4] = {}, min[4] = {};
    UNROLL
    for (int h = 0; h < 2; h++) {
        int group = (32 * h + (HOW == BEFORE ? 8 * t : 0)) >> p.group_bits;
        if constexpr (HOW != PLAIN)
            if (h == 0 || HOW == BEFORE || w.group == 32)
                lane_scales<HOW>(w, p, scales, group, absmax, map, scale[h], min);
        lane_weights<TYPE, HOW, TURN>(slot, h, scale[h], min, pairs, a[h]);
        UNROLL
        for (int n = 0; HOW != AFTER && n < NT; n++)
            unit_products<TYPE>(acc[n], a[h], lds(&unit[unit_at(n * 8 + g, t + 4 * h)]));
    }
    if (w.group != 32)
        memcpy(scale[1], scale[0], sizeof scale[1]);
    UNROLL
    for (int n = 0; HOW == AFTER && n < NT; n++) {
        float d[2][4] = {};
        UNROLL
        for (int h = 0; h < 2; h++) {
            word4 b = lds(&unit[unit_at(n * 8 + g, t + 4 * h)]);
            unit_products<TYPE>(d, a[h], TURN ? turned(b) : b);
            if (h == 0 && w.group == 32)
                scale_products(acc[n], d, scale[0]);
        }
        scale_products(acc[n], d, scale[1]);
    }
}

/* ---- the end ---- */

/* acc of all warps to sums [WARPS][NT * 8][SUM_ROW] */
template <int NT> DEVICE void keep_sums(const float acc[NT][2][4], float *sums) {
    int g = lane_id() / 4, t = lane_id() % 4;
    float *own = sums + warp_id() * (NT * 8 * SUM_ROW);
    UNROLL
    for (int n = 0; n < NT; n++) {
        UNROLL
        for (int i = 0; i < 2; i++) {
            const real4 v = {{acc[n][0][i], acc[n][0][i + 2], acc[n][1][i], acc[n][1][i + 2]}};
            sts((real4 *)(void *)&own[(n * 8 + 2 * t + i) * SUM_ROW + 4 * g], v);
        }
    }
}

/* The sums of the warps along the inputs, in order, and bias, into y. A warp's turn is 32 rows
 * of a token. Warp number = (k * rows + row) * toks + tok. */
template <int NT>
DEVICE void add_up(const struct gemm_plan &p, const struct matmul_out &o, int N, int token0,
                   int n_tok, bool add, const float *sums) {
    for (int i = warp_id(); i < p.rows * n_tok; i += WARPS) {
        int row = i % p.rows, t = i / p.rows, n = (block_x() * p.rows + row) * 32 + lane_id();
        int tok = t / (NT * 8), at = t % (NT * 8) * SUM_ROW + lane_id();
        float v = 0;
        for (int k = 0; k < p.ks; k++)
            v += lds(&sums[((k * p.rows + row) * p.toks + tok) * (NT * 8 * SUM_ROW) + at]);
        if (n >= N)
            continue;
        if (o.bias)
            v += o.bias[n];
        float *y = &o.y[(size_t)(token0 + t) * o.ldy + (size_t)n];
        *y = add ? *y + v : v;
    }
}

template <enum weight_type TYPE, int NT>
DEVICE struct gemm_warp warp_of(const struct weight &w, const struct gemm_plan &p) {
    struct gemm_warp me;
    me.tok = warp_id() % p.toks;
    me.row = warp_id() / p.toks % p.rows;
    me.k = warp_id() / p.toks / p.rows;
    me.x = me.k * NT * 8 * p.toks * X_ROW;
    me.slot = p.x_bytes + (me.k * p.rows + me.row) * p.slot_bytes;
    int tile = (block_x() * p.rows + me.row) * 2, last = w.Np / 16 - 1, C = w.Kp / CHUNK;
    UNROLL
    for (int j = 0; j < 2; j++)
        me.chunk[j] = min_int(tile + j, last) * C;
    me.scale = -1;
    if (me.tok == 0 && lane_id() < 2 * p.scale_pieces)
        me.scale = min_int(tile + lane_id() / p.scale_pieces, last) * C * p.scale_pieces +
                   lane_id() % p.scale_pieces;
    int n = min_int(tile + lane_id() / 16, last) * 16 + lane_id() / 4 % 4 * 4;
    UNROLL
    for (int r = 0; r < 4; r++)
        me.absmax[r] = (unsigned)(n + r) * (unsigned)C;
    return me;
}

/* Waits for the oldest of the rounds on their way. */
DEVICE void wait_round(int stages) {
    if (stages == 4)
        cp_async_wait<2>();
    else if (stages == 3)
        cp_async_wait<1>();
    else
        cp_async_wait<0>();
}

/* Block (b, i): rows 32 p.rows b .. of the tokens 128 i .. */
template <enum weight_type TYPE, enum how HOW, int NT>
KERNEL void BOUNDS(WARPS * 32, NT <= 2 ? 2 : 1)
    gemm_kernel(struct weight w, struct matmul_out o, struct gemm_plan p, const uint16_t *xb,
                int T, bool add) {
    SHARED(shared);
    constexpr int FIXED = table_bytes<TYPE>;
    uint32_t *pairs = (uint32_t *)(void *)shared;
    float *map = (float *)(void *)(shared + (TYPE == WEIGHT_Q4 ? PAIRS : 0));
    struct gemm_warp me = warp_of<TYPE, NT>(w, p);
    int token0 = block_y() * GPU_GEMM_TOK, n_tok = min_int(T - token0, GPU_GEMM_TOK);
    int n_chunk = w.Kp / CHUNK, n_round = (n_chunk + p.ks - 1) / p.ks;
    float acc[NT][2][4] = {}, absmax[4] = {};
    xb += (size_t)token0 * (size_t)w.Kp;
    if constexpr (TYPE == WEIGHT_Q4)
        fill_tables<HOW>(w, p, pairs, map);
    wait_for_others();
    for (int i = 0; i < p.stages - 1; i++) {
        fetch<TYPE, NT>(w, p, me, xb, n_tok, i, shared + FIXED + i * p.stage_bytes);
        cp_async_commit();
    }
    for (int i = 0, at = 0; i < n_round; i++) {
        unsigned char *stage = shared + FIXED + at * p.stage_bytes;
        int c = i * p.ks + me.k, last = at == 0 ? p.stages - 1 : at - 1;
        if (TYPE == WEIGHT_Q4 && HOW == AFTER && w.code && c < n_chunk)
            lane_absmax(w, me, c, absmax);
        wait_round(p.stages);
        block_sync(); /* all have round i, and are done with round i - 1 */
        fetch<TYPE, NT>(w, p, me, xb, n_tok, i + p.stages - 1,
                        shared + FIXED + last * p.stage_bytes);
        cp_async_commit();
        if (c < n_chunk)
            chunk_products<TYPE, HOW, NT>(w, p, stage + me.x + me.tok * NT * 8 * X_ROW,
                                          stage + me.slot, absmax, pairs, map, acc);
        at = at == p.stages - 1 ? 0 : at + 1;
    }
    cp_async_wait<0>();
    block_sync(); /* the stages may be overwritten */
    keep_sums<NT>(acc, (float *)(void *)shared);
    block_sync();
    add_up<NT>(p, o, w.N, token0, n_tok, add, (const float *)(const void *)shared);
}

/* ---- host ---- */

static int shared_bytes(const struct gemm_plan *p, int fixed, int nt) {
    int sums = WARPS * nt * 8 * SUM_ROW * (int)sizeof(float);
    int work = fixed + p->stages * p->stage_bytes;
    return work > sums ? work : sums;
}

/* Fills in what follows from rows and stages. pieces: tile_pieces() */
static void plan_sizes(struct gemm_plan *p, const struct weight *w, int pieces, int nt) {
    bool scaled = w->type == WEIGHT_Q4 || w->type == WEIGHT_I8;
    p->ks = WARPS / p->rows / p->toks;
    p->group_bits = w->group == 16 ? 4 : w->group == 32 ? 5 : 6;
    p->scale_pieces = !scaled ? 0 : w->code ? 1 : 4 * (CHUNK >> p->group_bits);
    p->scale_bytes = 2 * p->scale_pieces * 16;
    p->slot_bytes = 2 * pieces * 16 + (w->min ? 2 : 1) * p->scale_bytes;
    p->x_bytes = p->ks * nt * 8 * p->toks * X_ROW;
    p->stage_bytes = p->x_bytes + p->ks * p->rows * p->slot_bytes;
}

/* As many rows a block as leave a block for each multiprocessor (and as fit); then as many
 * stages as leave room for a second block, where there are so many and three stages do, or else
 * as fit. Even devices with 99 KB hold two stages of the last. */
static struct gemm_plan plan_of(const struct gpu *g, const struct weight *w, int T, int pieces,
                                int nt, int fixed) {
    struct gemm_plan p = {};
    int limit = (int)g->info.block_bytes, pairs = (w->Np + 31) / 32;
    p.toks = T > 64 ? 2 : 1;
    p.rows = nt == 8 ? 2 : 1;
    p.factor = p.inverse = 1;
    while (p.rows < 4 && (pairs + 2 * p.rows - 1) / (2 * p.rows) >= g->info.n_sm)
        p.rows *= 2;
    for (p.stages = 2;; p.rows *= 2) {
        plan_sizes(&p, w, pieces, nt);
        if (shared_bytes(&p, fixed, nt) <= limit || p.rows * p.toks == WARPS)
            break;
    }
    bool two = nt <= 2 && (pairs + p.rows - 1) / p.rows > g->info.n_sm;
    for (p.stages = MAX_STAGES; two && p.stages > 2; p.stages--)
        if (shared_bytes(&p, fixed, nt) <= limit / 2)
            return p;
    for (p.stages = MAX_STAGES; p.stages > 2 && shared_bytes(&p, fixed, nt) > limit;)
        p.stages--;
    return p;
}

template <enum weight_type TYPE, enum how HOW, int NT>
static void run(struct gpu *g, const uint16_t *xb, int T, const struct matmul_out *o,
                bool add) {
    constexpr int P = tile_pieces<TYPE>, FIXED = table_bytes<TYPE>;
    struct gemm_plan p = plan_of(g, o->w, T, P, NT, FIXED);
    if (TYPE == WEIGHT_Q4 && HOW == AFTER) {
        p.factor = table_factor(o->w->table);
        p.inverse = 1 / p.factor;
    }
    unsigned blocks = (unsigned)((o->w->Np + 32 * p.rows - 1) / (32 * p.rows));
    dim3 grid(blocks, (unsigned)((T + GPU_GEMM_TOK - 1) / GPU_GEMM_TOK));
    launch<gemm_kernel<TYPE, HOW, NT>>(g, "gemm", grid, WARPS * 32,
                                       (size_t)shared_bytes(&p, FIXED, NT), *o->w, *o, p, xb, T,
                                       add);
}

template <enum weight_type TYPE, enum how HOW>
static void run_type(struct gpu *g, const uint16_t *xb, int T, const struct matmul_out *o,
                     bool add) {
    if (T <= 8)
        run<TYPE, HOW, 1>(g, xb, T, o, add);
    else if (T <= 16)
        run<TYPE, HOW, 2>(g, xb, T, o, add);
    else if (T <= 32)
        run<TYPE, HOW, 4>(g, xb, T, o, add);
    else
        run<TYPE, HOW, 8>(g, xb, T, o, add);
}

static void gemm(struct gpu *g, const uint16_t *xb, int T, const struct matmul_out *o,
                 bool add) {
    const struct weight *w = o->w;
    bool after = !w->min && w->group >= 32;
    switch (w->type) {
    case WEIGHT_F32: /* gpu.h: not here */
        return;
    case WEIGHT_BF16:
        return run_type<WEIGHT_BF16, PLAIN>(g, xb, T, o, add);
    case WEIGHT_F16:
        return run_type<WEIGHT_F16, PLAIN>(g, xb, T, o, add);
    case WEIGHT_I8:
        return after ? run_type<WEIGHT_I8, AFTER>(g, xb, T, o, add)
                     : run_type<WEIGHT_I8, BEFORE>(g, xb, T, o, add);
    case WEIGHT_Q4:
        return after ? run_type<WEIGHT_Q4, AFTER>(g, xb, T, o, add)
                     : run_type<WEIGHT_Q4, BEFORE>(g, xb, T, o, add);
    }
}

void gpu_gemm_kernels(struct gpu *g) {
    g->gemm = gemm;
}
