/*
 * q4gemv.cu - products of few tokens with 4-bit weights, bound by reading the weights: NF4,
 * FP4, Q4_0, IQ4_NL and whatever else has groups of 64 or 32 inputs and no minimums.
 *
 *   gemv   y = x w^T + bias for up to four outputs of one input (q, k and v) in one launch
 *   ffn    y = act(x gate^T + b) (x up^T + b), the two products of a row side by side
 *
 * Work split. A block computes 32 rows, two tiles of the file's layout; its 8 or 16 warps take
 * turns along the inputs, 64 at a time, and add up in shared memory. A warp reads a kilobyte: a
 * lane 16 bytes, twice, which are four neighbouring rows of unit t and of unit t + 4 (a unit is
 * 8 inputs, t = lane % 4). That is what tensor cores want: a byte of two weights becomes one
 * register of an A fragment by one look-up, since the order of k inside a product is free as
 * long as B has the same, and rows may be numbered as one likes. So weights go from memory to
 * registers without a stop in shared memory, and nothing is arranged anew when a model is
 * opened. f32 arithmetic, as gemv.cu has it, took three times the instructions and 17 % of an
 * H200's copy rate.
 *
 * Arithmetic. B is x as a sum of two bf16 numbers, whose columns are neighbours: x is off by
 * 2^-16, and four tokens fill the eight columns. A is the table in bf16, times the factor that
 * suits it best (weights.h: NF4 is off by 1.9e-3 of a value at most, tables of integers and FP4
 * are exact), and the f32 sum over a group is multiplied by the group's scale over that factor.
 * The order of sums is that of the weight's shape, so a token's bits don't depend on the
 * others.
 *
 * x is brought to shared memory a slab of inputs at a time, as bf16 pairs (j, j + 4). The table
 * of pairs has a copy for each lane, in the lane's own bank: 32 KB, at a multiple of 32 KB, so
 * that a look-up is a shift, a mask with the lane's place, and a load. Five to thirty-two
 * tokens in this way (each once in bf16) were no faster than gemm.cu, which reads x less often.
 */
#include "engine/cuda/act.h"
#include "engine/cuda/weights.h"

enum {
    CHUNK = 64,
    RESERVED = 1024, /* bytes of a block's shared memory that the system has, at most */
    ROWS = 32,
    PAIR_BYTES = 256 * 32 * (int)sizeof(uint32_t),
    MAP_BYTES = 256 * (int)sizeof(float),
};

struct q4_out {
    struct weight w;
    float *y;
    size_t ldy;
    const float *bias;
    float inverse; /* of the table's factor; the kernel's table is multiplied already */
};

struct q4_args {
    struct q4_out o[BACKEND_MAX_OUT];
    int first[BACKEND_MAX_OUT + 1]; /* block of an output's first rows */
    int n;                          /* outputs; ffn: 1, with gate in o[1] */
    const float *x;                 /* [T, Kp] */
    int T, Kp, slab;                /* slab: inputs in shared memory at once */
    bool add, gated;
    enum act_kind act;
};

/* Inputs in shared memory at once, so that four tokens fit 99 KB. DEPTH: chunks that a lane has
 * on their way; a warp's share of a slab is a multiple of them, or all that there is. */
template <int TOKENS>
constexpr int slab_inputs = TOKENS == 1   ? 14336
                            : TOKENS == 2 ? 6144
                                          : 2048;
enum { DEPTH = 2 };

/* ---- x ---- */

/* Where unit u of column c begins in the slab, in words. Columns are 16 bytes longer than their
 * units, so that eight lanes of different columns meet different banks. */
DEVICE int unit_at(const q4_args &a, int c, int u) {
    return c * (a.slab / 2 + 4) + u * 4;
}

/* Unit u of token t to its two columns: pairs (j, j + 4). */
DEVICE void put_unit(const q4_args &a, int t, int u, const real4 &lo, const real4 &hi,
                     uint32_t *xs) {
    word4 first, rest;
    UNROLL
    for (int j = 0; j < 4; j++) {
        first.w[j] = reals_bf16(lo.v[j], hi.v[j]);
        rest.w[j] = reals_bf16(lo.v[j] - low_bf16(first.w[j]), hi.v[j] - high_bf16(first.w[j]));
    }
    sts((word4 *)(xs + unit_at(a, 2 * t, u)), first);
    sts((word4 *)(xs + unit_at(a, 2 * t + 1, u)), rest);
}

/* The inputs k0 .. of TOKENS tokens to xs; column 2t is the first part of token t, column 2t +
 * 1 the rest. A thread asks for four units before it waits for one: everybody waits for this.
 */
template <int TOKENS> DEVICE void stage_slab(const q4_args &a, int k0, uint32_t *xs) {
    enum { AT_ONCE = 4 };
    int n_unit = min_int(a.slab, a.Kp - k0) / 8, n = n_unit * TOKENS;
    for (int first = thread_x(); first < n; first += AT_ONCE * n_thread()) {
        real4 lo[AT_ONCE] = {}, hi[AT_ONCE] = {};
        UNROLL
        for (int i = 0; i < AT_ONCE; i++) {
            int at = first + i * n_thread(), t = at / n_unit, u = at % n_unit;
            if (at >= n || t >= a.T)
                continue;
            const real4 *from = (const real4 *)(a.x + (size_t)t * (size_t)a.Kp + k0 + u * 8);
            lo[i] = from[0];
            hi[i] = from[1];
        }
        UNROLL
        for (int i = 0; i < AT_ONCE; i++) {
            int at = first + i * n_thread();
            if (at < n)
                put_unit(a, at / n_unit, at % n_unit, lo[i], hi[i], xs);
        }
    }
}

/* ---- weights ---- */

/* Where a lane finds its part of the tile's chunks: of each the words of four rows, and scales
 * of one of them. */
struct lane_place {
    const char *data;
    const uint8_t *code;  /* NULL: */
    const float *scale;   /* of the chunk's groups; or absmax2, */
    uint32_t absmax2_row; /* whose first group counts from here */
};

template <bool HALVES> DEVICE lane_place place_of(const struct weight &w, int tile) {
    int g = lane_id() / 4, t = lane_id() % 4, quad = g % 4, row = quad * 4 + t;
    int G = w.Kp / w.group;
    size_t at = (size_t)tile * (size_t)G * 16 + (size_t)row;
    lane_place p;
    p.data = (const char *)w.data + (size_t)tile * (size_t)w.Kp * 8 + (t * 4 + quad) * 16;
    p.code = w.code ? w.code + at : NULL;
    p.scale = w.code ? w.absmax2 : w.scale + at;
    p.absmax2_row = (uint32_t)(tile * 16 + row) * (uint32_t)G;
    return p;
}

struct lane_chunk {
    word4 q[2];     /* units t and t + 4 */
    float scale[2]; /* of the halves; or scale[0] = absmax2, and */
    uint32_t code;
};

template <bool HALVES> DEVICE void load_chunk(const lane_place &p, int c, lane_chunk *l) {
    const char *data = p.data + (size_t)c * 512;
    l->q[0] = ld_stream(data);
    l->q[1] = ld_stream(data + 256);
    if (HALVES) {
        l->scale[0] = p.scale[c * 32];
        l->scale[1] = p.scale[c * 32 + 16];
    } else if (p.code) {
        l->code = p.code[c * 16];
        l->scale[0] = p.scale[(p.absmax2_row + (uint32_t)c) / WEIGHT_SCALE_BLOCK];
    } else {
        l->scale[0] = p.scale[c * 16];
    }
}

/* The pair of values of byte j of a row's word; own: the address of the table, and the lane's
 * place in a row of it. */
DEVICE uint32_t pair_of(uint32_t word, int j, uint32_t own) {
    return lds_at(((j == 0 ? word << 7 : word >> (8 * j - 7)) & 0x7f80) | own);
}

/* d[row pair] += the products of half a chunk: the lane's words q of four rows, and a unit of
 * the columns in xs. */
template <int COLUMNS>
DEVICE void multiply_half(const word4 &q, const uint32_t *x, uint32_t own, float d[2][4]) {
    word4 b = {{0, 0, 0, 0}};
    if (COLUMNS == 8 || lane_id() / 4 < COLUMNS)
        b = lds((const word4 *)x);
    UNROLL
    for (int p = 0; p < 2; p++) { /* rows 2p and 2p + 1 of the lane's four */
        UNROLL
        for (int s = 0; s < 2; s++) { /* bytes 2s and 2s + 1 */
            uint32_t frag[4] = {
                pair_of(q.w[2 * p], 2 * s, own), pair_of(q.w[2 * p + 1], 2 * s, own),
                pair_of(q.w[2 * p], 2 * s + 1, own), pair_of(q.w[2 * p + 1], 2 * s + 1, own)};
            mma_bf16(d[p], frag, &b.w[2 * s]);
        }
    }
}

/* acc += d times the scales of the lane's rows: mine is that of row t, the other three are
 * the neighbours'. */
DEVICE void add_scaled(float mine, float d[2][4], float acc[2][4]) {
    int quad = lane_id() / 4 * 4;
    UNROLL
    for (int p = 0; p < 2; p++) {
        float s0 = shfl(mine, quad + 2 * p), s1 = shfl(mine, quad + 2 * p + 1);
        acc[p][0] += d[p][0] * s0;
        acc[p][1] += d[p][1] * s0;
        acc[p][2] += d[p][2] * s1;
        acc[p][3] += d[p][3] * s1;
        d[p][0] = d[p][1] = d[p][2] = d[p][3] = 0;
    }
}

/* What a chunk adds to acc; x: the lane's column and unit in the slab. */
template <int COLUMNS, bool HALVES>
DEVICE void use_chunk(const lane_place &p, const lane_chunk &l, const float *map, float offset,
                      float inverse, const uint32_t *x, uint32_t own, float acc[2][4]) {
    float d[2][4] = {}, mine = l.scale[0];
    if (!HALVES && p.code)
        mine = lds(&map[l.code]) * mine + offset;
    multiply_half<COLUMNS>(l.q[0], x, own, d);
    if (HALVES)
        add_scaled(mine * inverse, d, acc);
    multiply_half<COLUMNS>(l.q[1], x + 16, own, d);
    add_scaled((HALVES ? l.scale[1] : mine) * inverse, d, acc);
}

/* The first chunks of the warp's share, which are on their way while tables are filled. */
template <int WARPS, bool HALVES>
DEVICE void load_first(const lane_place &p, int n_chunk, lane_chunk l[DEPTH]) {
    UNROLL
    for (int i = 0; i < DEPTH; i++)
        if (warp_id() + i * WARPS < n_chunk)
            load_chunk<HALVES>(p, warp_id() + i * WARPS, &l[i]);
}

/* acc += the block's rows times the warp's share of the inputs, whose first chunks are in l. */
template <int WARPS, int TOKENS, bool HALVES>
DEVICE void products(const q4_args &a, const q4_out &o, const lane_place &p,
                     lane_chunk l[DEPTH], uint32_t table, const float *map, uint32_t *xs,
                     float acc[2][4]) {
    const float offset = o.w.offset, inverse = o.inverse;
    const int n_chunk = o.w.Kp / CHUNK, slab = a.slab / CHUNK, column = lane_id() / 4;
    const uint32_t own = table + (uint32_t)lane_id() * 4;
    for (int first = 0; first < n_chunk; first += slab) {
        const int end = min_int(first + slab, n_chunk);
        if (first > 0)
            block_sync(); /* the last slab was read */
        stage_slab<TOKENS>(a, first * CHUNK, xs);
        block_sync();
        const uint32_t *x = xs + unit_at(a, column, lane_id() % 4);
        for (int c = first + warp_id(); c < end; c += DEPTH * WARPS) {
            UNROLL
            for (int i = 0; i < DEPTH; i++) {
                int at = c + i * WARPS;
                if (at < end)
                    use_chunk<2 * TOKENS, HALVES>(p, l[i], map, offset, inverse,
                                                  x + (at - first) * 32, own, acc);
                if (at + DEPTH * WARPS < n_chunk)
                    load_chunk<HALVES>(p, at + DEPTH * WARPS, &l[i]);
            }
        }
    }
}

/* ---- the end ---- */

/* What all warps have: part [WARPS][tokens][PART_ROW]. Row i of the lanes of g is at 8i + g, so
 * that no two lanes meet in a bank. */
enum { PART_ROW = ROWS + 4 };
DEVICE int row_at(int place) {
    return place % 8 * 4 + place / 8;
}

DEVICE void put_part(const float acc[2][4], int tokens, float *part) {
    int g = lane_id() / 4, t = lane_id() % 4;
    UNROLL
    for (int i = 0; i < 4; i++)
        if (t < tokens)
            sts(part + (warp_id() * tokens + t) * PART_ROW + i * 8 + g,
                acc[i / 2][2 * (i % 2)] + acc[i / 2][2 * (i % 2) + 1]);
}

/* The sum for token i / ROWS and place i % ROWS. */
template <int WARPS> DEVICE float sum_parts(const float *part, int i, int tokens) {
    float v = 0;
    for (int w = 0; w < WARPS; w++)
        v += lds(&part[(w * tokens + i / ROWS) * PART_ROW + i % ROWS]);
    return v;
}

/* The block's table of pairs: each word stands 32 times; a lane writes four of them at once. */
template <int WARPS> DEVICE void fill_pairs(const float *table, uint32_t *pairs) {
    float mine = 0; /* lane i has table[i % 16] */
    UNROLL
    for (int i = 0; i < 16; i++)
        mine = lane_id() % 16 == i ? table[i] : mine;
    UNROLL
    for (int i = 0; i < 64 / WARPS; i++) {
        int b = (i * WARPS + warp_id()) * 4 + lane_id() / 8;
        uint32_t pair = reals_bf16(shfl(mine, b % 16), shfl(mine, b / 16));
        word4 four = {{pair, pair, pair, pair}};
        sts((word4 *)(pairs + b * 32 + lane_id() % 8 * 4), four);
    }
}

/* Shared memory: x, then parts in its place; the map; the table at the next multiple of 32 KB.
 */
template <int WARPS, int TOKENS, bool HALVES>
KERNEL void BOUNDS(WARPS * 32, WARPS > 8 ? 1 : 2) q4gemv_kernel(q4_args a, int xs_bytes) {
    SHARED(shared);
    uint32_t *xs = (uint32_t *)shared;
    float *part = (float *)(void *)xs, *map = (float *)(shared + xs_bytes);
    uint32_t base = shared_address(shared), behind = base + (uint32_t)(xs_bytes + MAP_BYTES);
    uint32_t table = (behind + PAIR_BYTES - 1) / PAIR_BYTES * PAIR_BYTES;
    uint32_t *pairs = (uint32_t *)(shared + (table - base));
    int out = 0;
    while (out + 1 < a.n && block_x() >= a.first[out + 1])
        out++;
    const q4_out &o = a.o[out];
    int row0 = (block_x() - a.first[out]) * ROWS, last = o.w.Np / 16 - 1;
    int tile = min_int(row0 / 16 + lane_id() / 16, last);
    lane_chunk l[DEPTH];
    lane_place p = place_of<HALVES>(o.w, tile);
    load_first<WARPS, HALVES>(p, o.w.Kp / CHUNK, l);
    for (int i = thread_x(); i < 256 && o.w.code; i += n_thread())
        sts(&map[i], o.w.code_map[i]);
    fill_pairs<WARPS>(o.w.table, pairs);
    float acc[2][4] = {}, kept = 0;
    products<WARPS, TOKENS, HALVES>(a, o, p, l, table, map, xs, acc);
    if (a.gated) {
        p = place_of<HALVES>(a.o[1].w, tile);
        load_first<WARPS, HALVES>(p, o.w.Kp / CHUNK, l);
    }
    block_sync();
    put_part(acc, TOKENS, part);
    block_sync();
    const int i = thread_x(), n = row0 + row_at(i % ROWS), t = i / ROWS;
    if (t < TOKENS)
        kept = sum_parts<WARPS>(part, i, TOKENS);
    if (a.gated) { /* the same rows of gate, whose table is the same */
        float gate[2][4] = {};
        block_sync(); /* the parts were read */
        products<WARPS, TOKENS, HALVES>(a, a.o[1], p, l, table, map, xs, gate);
        block_sync();
        put_part(gate, TOKENS, part);
        block_sync();
    }
    if (n >= o.w.N || t >= a.T)
        return;
    float v = kept + (o.bias ? o.bias[n] : 0), *y = &o.y[(size_t)t * o.ldy + (size_t)n];
    if (a.gated) {
        float gate = sum_parts<WARPS>(part, i, TOKENS);
        gate += a.o[1].bias ? a.o[1].bias[n] : 0;
        v = act_of(a.act, gate) * act_up(a.act, v);
    }
    *y = a.add ? *y + v : v;
}

/* ---- launching ---- */

/* Whether these kernels can multiply with a weight. */
static bool fits(const struct weight *w) {
    return w->type == WEIGHT_Q4 && !w->min && w->group >= 32;
}

static void fill_out(struct q4_out *to, const struct matmul_out *o) {
    float factor = table_factor(o->w->table);
    to->w = *o->w;
    for (int i = 0; i < 16; i++)
        to->w.table[i] *= factor;
    to->y = o->y;
    to->ldy = o->ldy;
    to->bias = o->bias;
    to->inverse = 1 / factor;
}

template <int WARPS, int TOKENS, bool HALVES>
static void run(struct gpu *g, struct q4_args *a, int blocks) {
    a->slab = a->Kp < slab_inputs<TOKENS> ? a->Kp : slab_inputs<TOKENS>;
    int xs = 2 * TOKENS * (a->slab / 2 + 4) * 4, parts = WARPS * PART_ROW * TOKENS * 4;
    int bytes = xs > parts ? xs : parts;
    /* the table's place: shared memory begins behind what the system has of it */
    int table = (RESERVED + bytes + MAP_BYTES + PAIR_BYTES - 1) / PAIR_BYTES * PAIR_BYTES;
    launch<q4gemv_kernel<WARPS, TOKENS, HALVES>>(g, "q4gemv", dim3((unsigned)blocks),
                                                 WARPS * 32, (size_t)(table + PAIR_BYTES), *a,
                                                 bytes);
}

template <int WARPS, bool HALVES>
static void run_tokens(struct gpu *g, struct q4_args *a, int blocks) {
    if (a->T == 1)
        run<WARPS, 1, HALVES>(g, a, blocks);
    else if (a->T == 2)
        run<WARPS, 2, HALVES>(g, a, blocks);
    else
        run<WARPS, 4, HALVES>(g, a, blocks);
}

/* Sixteen warps share a block's inputs where there are too few blocks for two on each
 * multiprocessor; else two of eight warps fit one. */
template <bool HALVES> static void run_warps(struct gpu *g, struct q4_args *a, int blocks) {
    if (blocks < 2 * g->info.n_sm)
        run_tokens<16, HALVES>(g, a, blocks);
    else
        run_tokens<8, HALVES>(g, a, blocks);
}

static void start(struct gpu *g, struct q4_args *a, const float *x, int T, int K, int blocks) {
    a->x = x;
    a->T = T;
    a->Kp = weight_pad_k(K);
    if (a->o[0].w.group == 32)
        run_warps<true>(g, a, blocks);
    else
        run_warps<false>(g, a, blocks);
}

static int blocks_of(const struct weight *w) {
    return (w->Np + ROWS - 1) / ROWS;
}

static bool q4gemv(struct gpu *g, const float *x, int T, int K, const struct matmul_out *o,
                   int n_out, bool add) {
    struct q4_args a = {};
    if (T > GPU_GEMV_TOK)
        return false;
    for (int i = 0; i < n_out; i++) {
        if (!fits(o[i].w) || o[i].w->group != o[0].w->group)
            return false;
        fill_out(&a.o[i], &o[i]);
        a.first[i + 1] = a.first[i] + blocks_of(o[i].w);
    }
    a.n = n_out;
    a.add = add;
    start(g, &a, x, T, K, a.first[n_out]);
    return true;
}

static bool q4ffn(struct gpu *g, enum act_kind act, const float *x, int T, int K,
                  const struct matmul_out *up, const struct matmul_out *gate) {
    struct q4_args a = {};
    if (T > GPU_GEMV_TOK || !fits(up->w) || !fits(gate->w) || gate->w->group != up->w->group ||
        memcmp(gate->w->table, up->w->table, sizeof up->w->table) != 0 ||
        (gate->w->code != NULL) != (up->w->code != NULL))
        return false;
    fill_out(&a.o[0], up);
    fill_out(&a.o[1], gate);
    a.first[1] = blocks_of(up->w);
    a.n = 1;
    a.gated = true;
    a.act = act;
    start(g, &a, x, T, K, a.first[1]);
    return true;
}

void gpu_q4gemv_kernels(struct gpu *g) {
    g->q4gemv = q4gemv;
    g->q4ffn = q4ffn;
}
