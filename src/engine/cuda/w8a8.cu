/*
 * w8a8.cu - y (+)= x w^T + bias for many tokens and int8 weights whose rows have one scale each
 * (LLM.int8, channels of compressed-tensors): activations of 8 bits, int8 tensor cores.
 *
 *     y[t, n] (+)= scale_w[n] * sum over d, g of scale_x[d, g, t] * sum of w[n, k] q[d, t, k]
 *                + bias[n]           d: digits 0 and 1, g: groups of 64 inputs, k in g
 *
 * Activations. A group of 64 inputs of a token has a step of its own, largest / 127, and digits
 * to nearest, ties to even. Where its largest is above OUTLIER times the mean of the row's
 * largest ones, the group has a second digit for what is left, in steps of 1/254 of the first:
 * so the few outliers of a model, which sit in few of its columns, do not cost their
 * neighbours' bits, and need no product of their own. What an activation is off by is half a
 * step. The CPU does as much where it is fastest; what that costs a small model's answers in KL
 * divergence is in cpu/simd.h (outliers from twice the mean: 2.4e-3) and avx512_vbmi.c (none:
 * 5e-3). A token's digits don't depend on other tokens. Rejected: one step for a whole row and
 * columns above 6 as floats, as LLM.int8 itself has: coarser steps, and columns that are one
 * token's outlier and the whole batch's work.
 *
 * Sums. Products of a group are exact in int32: at most 64 * 127 * 128, below 2^22, so that a
 * sum which starts at the bits of 1.5 * 2^23 becomes a float by one subtraction. Groups are
 * added in f32, digits 0 first. A group whose tokens have no second digit adds none.
 *
 * Fragments. Weights are A (m16n8k32), tokens B. Of 32 rows lane (g = lane / 4, t = lane % 4)
 * holds rows 4g .. 4g + 3, as in gemm.cu, and of a group's inputs the 16 from 16t on: four
 * pieces of 16 bytes of the file are four rows by four inputs each, and a token's 16 inputs are
 * 16 bytes. Two steps of 32 inputs take a lane's first eight and its last.
 *
 * Work split. Eight warps, two along the rows and four along the tokens: a block is 128 rows by
 * 32 * NT tokens. For each group a lane reads 8 + NT times 16 bytes of shared memory for 8 NT
 * products (NT = 8: 256 K multiplications of a warp by 64 clocks of shared memory, 4 K a clock;
 * a multiprocessor's tensor cores do 2 to 4 K), and scales 16 NT sums by two operations each.
 * cp.async brings two groups ahead. By these numbers tensor cores, shared memory and scaling
 * bound it about alike; it was not yet measured.
 */
#include "engine/cuda/weights.h"

enum {
    WARPS = 8,
    ROWS = 128,         /* of a block */
    GROUP = 64,         /* inputs of a step */
    TILE_PIECES = 64,   /* of 16 bytes, of 16 rows by a group */
    STAGES = 3,         /* groups in shared memory */
    TOKEN_TILE = 8,     /* tokens that share a flag for second digits */
    MAGIC = 0x4b400000, /* the bits of 1.5 * 2^23 */
};
#define OUTLIER    2.0f
#define MAGIC_REAL 12582912.0f

struct alignas(8) real2 {
    float v[2];
};

DEVICE float bits_real(int32_t b) {
    float f;
    memcpy(&f, &b, 4);
    return f;
}

/* ---- activations ---- */

/* The four of group g that are the lane's: half a warp has a group. None behind the last. */
DEVICE real4 lane_inputs(const float *row, int g, int G) {
    const real4 none = {{0, 0, 0, 0}};
    return g < G ? *(const real4 *)(const void *)(row + g * GROUP + lane_id() % 16 * 4) : none;
}

/* The group's largest magnitude, to all its lanes. */
DEVICE float group_top(const real4 &x) {
    float top = 0;
    UNROLL
    for (int i = 0; i < 4; i++)
        top = max_or_nan(fabsf(x.v[i]), top);
    UNROLL
    for (int i = 8; i > 0; i /= 2)
        top = max_or_nan(shfl_xor(top, i), top);
    return top;
}

/* Four digits of x in steps of 1 / inv; x becomes what is left. inv 0: zeros. */
DEVICE uint32_t digits(real4 &x, float step, float inv) {
    uint32_t all = 0;
    UNROLL
    for (int i = 0; i < 4; i++) {
        float q = inv > 0 ? rintf(x.v[i] * inv) : 0;
        x.v[i] -= q * step;
        all |= ((uint32_t)(int32_t)q & 255) << 8 * i;
    }
    return all;
}

/* Block b: tokens 8b .., a warp each. Shared: a flag of each group and token. */
KERNEL void BOUNDS(WARPS * 32, 4)
    quantise_kernel(const float *x, int T, int Kp, struct gpu_digits out) {
    wait_for_others();
    SHARED(shared);
    uint8_t *flags = shared; /* [8][G] */
    int G = Kp / GROUP, t = block_x() * TOKEN_TILE + warp_id(), half = lane_id() / 16;
    const float *row = x + (size_t)min_int(t, T - 1) * (size_t)Kp;
    float sum = 0;
    for (int g = half; g < G + half; g += 2)
        sum += group_top(lane_inputs(row, g, G));
    float limit = OUTLIER * (sum + shfl_xor(sum, 16)) / (float)G;
    for (int g = half; g < G + half; g += 2) {
        real4 v = lane_inputs(row, g, t < T ? G : 0);
        float top = group_top(v), inv = 0, step = kv_scale_of(top, &inv);
        bool second = top > limit && inv > 0;
        float inv2 = second ? 254 * inv : 0, step2 = second ? step / 254 : 0;
        uint32_t q = digits(v, step, inv), q2 = digits(v, step2, inv2);
        if (g >= G)
            continue;
        size_t at = (size_t)t * (size_t)Kp + (size_t)(g * GROUP + lane_id() % 16 * 4);
        *(uint32_t *)(void *)(out.q[0] + at) = q;
        *(uint32_t *)(void *)(out.q[1] + at) = q2;
        if (lane_id() % 16 == 0) {
            out.scale[0][(size_t)g * (size_t)out.T8 + (size_t)t] = step;
            out.scale[1][(size_t)g * (size_t)out.T8 + (size_t)t] = step2;
            sts(&flags[warp_id() * G + g], (uint8_t)second);
        }
    }
    block_sync();
    for (int g = thread_x(); g < G; g += n_thread()) {
        int any = 0;
        for (int i = 0; i < TOKEN_TILE; i++)
            any |= lds(&flags[i * G + g]);
        out.second[(size_t)g * (size_t)(out.T8 / TOKEN_TILE) + (size_t)block_x()] =
            (uint8_t)any;
    }
}

static void quantise(struct gpu *g, const float *x, int T, int K, struct gpu_digits out) {
    int Kp = weight_pad_k(K);
    launch<quantise_kernel>(g, "quantise", dim3((unsigned)out.T8 / TOKEN_TILE), WARPS * 32,
                            (size_t)(Kp / GROUP * TOKEN_TILE), x, T, Kp, out);
}

/* ---- products ---- */

/* A step of the sums: group g by digit d. seconds [G]: bit i says whether the block's tile i of
 * eight tokens has second digits. */
struct turn {
    int d, g;
};
DEVICE bool is_over(const struct turn &a, int G) {
    return a.d == 1 && a.g == G;
}
DEVICE struct turn next_turn(struct turn a, int G, const uint32_t *seconds) {
    a.g++;
    if (a.d == 0 && a.g == G) {
        a.d = 1;
        a.g = 0;
    }
    while (a.d == 1 && a.g < G && !lds(&seconds[a.g]))
        a.g++;
    return a;
}

/* Bytes of a stage: weights [8 tiles][64 pieces], digits [tokens][64], scales [tokens]. */
template <int NT>
constexpr int stage_bytes = ROWS *GROUP + 32 * NT *(GROUP + (int)sizeof(float));
/* Where piece p of a tile stands: lanes (t, two neighbouring g) read eight banks of 16 bytes.
 */
DEVICE int piece_at(int p) {
    return p ^ 2 * (p / 16);
}

/* Asks for a turn's numbers: tokens token0 .. token0 + n_tok - 1, what is behind T as zeros. */
DEVICE void fetch(const struct weight &w, const struct gpu_digits &x, const struct turn &a,
                  int T, int token0, int n_tok, unsigned char *stage) {
    int last = w.Np / 16 - 1, tile0 = block_x() * (ROWS / 16);
    for (int i = thread_x(); i < ROWS / 16 * TILE_PIECES; i += WARPS * 32) {
        int tile = i / TILE_PIECES, p = i % TILE_PIECES;
        size_t from = (size_t)min_int(tile0 + tile, last) * (size_t)w.Kp * 16;
        cp_async(stage + (tile * TILE_PIECES + piece_at(p)) * 16,
                 (const char *)w.data + from + (size_t)a.g * (GROUP * 16) + p * 16, 16);
    }
    const int8_t *q = a.d ? x.q[1] : x.q[0];
    const float *scale = a.d ? x.scale[1] : x.scale[0];
    stage += ROWS * GROUP;
    for (int i = thread_x(); i < n_tok * 4; i += WARPS * 32) {
        int t = token0 + i / 4;
        size_t from = (size_t)min_int(t, T - 1) * (size_t)w.Kp + (size_t)(a.g * GROUP);
        cp_async(stage + i * 16, q + from + i % 4 * 16, t < T ? 16 : 0);
    }
    stage += n_tok * GROUP;
    for (int i = thread_x(); i < n_tok / 4; i += WARPS * 32) {
        int t = token0 + i * 4;
        size_t from = (size_t)a.g * (size_t)x.T8 + (size_t)min_int(t, x.T8 - 4);
        cp_async(stage + i * 16, scale + from, t < x.T8 ? 16 : 0);
    }
}

/* acc += the warp's 64 rows by its 8 NT tokens over a turn's group; tiles: bits of the block's
 * tiles of tokens that have such digits. */
template <int NT>
DEVICE void group_products(const unsigned char *stage, uint32_t tiles, float acc[2][NT][2][4]) {
    constexpr int N_TOK = 32 * NT;
    const int32_t start[4] = {MAGIC, MAGIC, MAGIC, MAGIC};
    int g = lane_id() / 4, t = lane_id() % 4, row = warp_id() / 4, tok = warp_id() % 4 * NT;
    const word4 *weights = (const word4 *)(const void *)stage + row * 4 * TILE_PIECES;
    const word4 *digit = (const word4 *)(const void *)(stage + ROWS * GROUP);
    const real2 *scale = (const real2 *)(const void *)(stage + ROWS * GROUP + N_TOK * GROUP);
    word4 a[2][4]; /* [32 rows][four inputs]: four rows each */
    UNROLL
    for (int r = 0; r < 2; r++) {
        UNROLL
        for (int i = 0; i < 4; i++)
            a[r][i] = lds(
                &weights[(r * 2 + g / 4) * TILE_PIECES + piece_at((4 * t + i) * 4 + g % 4)]);
    }
    UNROLL
    for (int n = 0; n < NT; n++) {
        if (!(tiles >> (tok + n) & 1))
            continue;
        word4 b = lds(&digit[((tok + n) * 8 + g) * 4 + t]);
        real2 s = lds(&scale[(tok + n) * 4 + t]);
        UNROLL
        for (int r = 0; r < 2; r++) {
            UNROLL
            for (int m = 0; m < 2; m++) {
                const uint32_t a0[4] = {a[r][0].w[2 * m], a[r][0].w[2 * m + 1],
                                        a[r][1].w[2 * m], a[r][1].w[2 * m + 1]};
                const uint32_t a1[4] = {a[r][2].w[2 * m], a[r][2].w[2 * m + 1],
                                        a[r][3].w[2 * m], a[r][3].w[2 * m + 1]};
                int32_t half[4], d[4];
                mma_s8(half, a0, &b.w[0], start);
                mma_s8(d, a1, &b.w[2], half);
                UNROLL
                for (int i = 0; i < 4; i++)
                    acc[r][n][m][i] += (bits_real(d[i]) - MAGIC_REAL) * s.v[i % 2];
            }
        }
    }
}

/* The warp's sums, by their rows' scales, and bias, into y. */
template <int NT>
DEVICE void store(const struct weight &w, const struct matmul_out &o, int T, int token0,
                  bool add, const float acc[2][NT][2][4]) {
    int g = lane_id() / 4, t = lane_id() % 4;
    int n0 = block_x() * ROWS + warp_id() / 4 * 64 + 4 * g;
    token0 += warp_id() % 4 * NT * 8 + 2 * t;
    UNROLL
    for (int i = 0; i < 8; i++) { /* rows n0 .. n0 + 3 and 32 behind them */
        int n = n0 + i / 4 * 32 + i % 4;
        if (n >= w.N)
            continue;
        float scale = weight_scale(w, n, 0), bias = o.bias ? o.bias[n] : 0;
        UNROLL
        for (int j = 0; j < 2 * NT; j++) {
            int tok = token0 + j / 2 * 8 + j % 2;
            float v = acc[i / 4][j / 2][i % 4 / 2][i % 2 * 2 + j % 2] * scale + bias;
            if (tok >= T)
                continue;
            float *y = &o.y[(size_t)tok * o.ldy + (size_t)n];
            *y = add ? *y + v : v;
        }
    }
}

/* Block (b, i): rows 128 b .. of the tokens 32 NT i .. */
template <int NT>
KERNEL void BOUNDS(WARPS * 32, NT == 2 ? 2 : 1)
    w8a8_kernel(struct weight w, struct matmul_out o, struct gpu_digits x, int T, bool add) {
    wait_for_others();
    SHARED(shared);
    constexpr int N_TOK = 32 * NT, BYTES = stage_bytes<NT>;
    uint32_t *seconds = (uint32_t *)(void *)(shared + STAGES * BYTES);
    int G = w.Kp / GROUP, token0 = block_y() * N_TOK, all = x.T8 / TOKEN_TILE;
    int tile0 = token0 / TOKEN_TILE, n_tile = min_int(all - tile0, N_TOK / TOKEN_TILE);
    float acc[2][NT][2][4] = {};
    for (int g = thread_x(); g < G; g += n_thread()) {
        uint32_t tiles = 0;
        for (int i = 0; i < n_tile; i++)
            tiles |= (uint32_t)x.second[(size_t)g * (size_t)all + (size_t)(tile0 + i)] << i;
        sts(&seconds[g], tiles);
    }
    block_sync();
    struct turn now = {0, 0}, ahead = now;
    for (int i = 0; i < STAGES - 1; i++) {
        if (!is_over(ahead, G)) {
            fetch(w, x, ahead, T, token0, N_TOK, shared + i * BYTES);
            ahead = next_turn(ahead, G, seconds);
        }
        cp_async_commit();
    }
    for (int at = 0; !is_over(now, G); now = next_turn(now, G, seconds)) {
        cp_async_wait<STAGES - 2>();
        block_sync(); /* all have this turn's numbers, and are done with the last one's */
        if (!is_over(ahead, G)) {
            fetch(w, x, ahead, T, token0, N_TOK,
                  shared + (at == 0 ? STAGES - 1 : at - 1) * BYTES);
            ahead = next_turn(ahead, G, seconds);
        }
        cp_async_commit();
        group_products<NT>(shared + at * BYTES, now.d ? lds(&seconds[now.g]) : ~0u, acc);
        at = at == STAGES - 1 ? 0 : at + 1;
    }
    store<NT>(w, o, T, token0, add, acc);
}

template <int NT>
static void run(struct gpu *g, struct gpu_digits x, int T, const struct matmul_out *o,
                bool add) {
    dim3 grid((unsigned)((o->w->N + ROWS - 1) / ROWS),
              (unsigned)((T + 32 * NT - 1) / (32 * NT)));
    size_t shared =
        (size_t)(STAGES * stage_bytes<NT> + o->w->Kp / GROUP * (int)sizeof(uint32_t));
    launch<w8a8_kernel<NT>>(g, "w8a8", grid, WARPS * 32, shared, *o->w, *o, x, T, add);
}

/* As many tokens a block as leave a block for each multiprocessor. */
static void w8a8(struct gpu *g, struct gpu_digits x, int T, const struct matmul_out *o,
                 bool add) {
    int rows = (o->w->N + ROWS - 1) / ROWS;
    if (rows * ((T + 255) / 256) >= g->info.n_sm)
        run<8>(g, x, T, o, add);
    else if (rows * ((T + 127) / 128) >= g->info.n_sm)
        run<4>(g, x, T, o, add);
    else
        run<2>(g, x, T, o, add);
}

void gpu_w8a8_kernels(struct gpu *g) {
    g->quantise = quantise;
    g->w8a8 = w8a8;
}
