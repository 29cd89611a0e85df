/*
 * q4gemv.cu - products of few tokens with 4-bit weights (q4.h), bound by reading the weights.
 *
 *   gemv   y = x w^T + bias for up to four outputs of one input (q, k and v) in one launch
 *   ffn    y = act(x gate^T + b) (x up^T + b), the two products of a row side by side
 *
 * x may be normalised on the way (RMS): its numbers are multiplied by the norm's weights while
 * they are brought in, and a row's sum by the scale, which is known by then.
 *
 * Work split. A block goes along tiles of 32 rows; its 8 or 16 warps take turns along the
 * inputs, a chunk at a time, and add up in shared memory at the end of a tile. What a warp
 * reads next does not depend on x: it is on its way while x is brought in, while tiles are
 * added up, and before the kernels are done that this one waits for. f32 arithmetic, as gemv.cu
 * has it, took three times the instructions and 17 % of an H200's copy rate. Slots in shared
 * memory that cp.async fills, five deep, were rejected: 274 instructions a kilobyte for 142.
 *
 * Arithmetic. B is x as a sum of two bf16 numbers, whose columns are neighbours: x is off by
 * 2^-16, and four tokens fill the eight columns. The f32 sum over a group is multiplied by the
 * group's scale. The order of sums is that of the weight's shape, so a token's bits don't
 * depend on the others.
 *
 * x is brought to shared memory a slab of inputs at a time, as bf16 pairs (j, j + 4), between
 * the rows of the table of pairs.
 */
#include "engine/cuda/act.h"
#include "engine/cuda/q4.h"

enum {
    DEPTH = 2,   /* chunks that a lane has on their way, */
    AHEAD = 4,   /* and that are on their way to the second-level cache */
    SLAB = 8192, /* inputs of a token in shared memory at once, at most */
};

struct q4_args {
    struct q4_out o[BACKEND_MAX_OUT];
    int first[BACKEND_MAX_OUT + 1]; /* tile of an output's first rows */
    int n;                          /* outputs; ffn: 1, with gate in o[1] */
    const float *x;                 /* [T, Kp] */
    const float *g;                 /* [K] x is normalised by it first (NORM_RMS), or NULL */
    float eps;
    int T, K, Kp, slab; /* slab: inputs in shared memory at once */
    bool add, gated;
    enum act_kind act;
};

/* ---- x ---- */

/* Where unit u of column c begins: bytes of shared memory. Units fill the second half of the
 * table's rows, eight in one. A column begins four units further than it would, so that two of
 * them meet different banks. */
DEVICE int unit_at(const q4_args &a, int c, int u) {
    int i = c * (a.slab / 8 + 4) + u;
    return i / 8 * TABLE_ROW + TABLE_ROW / 2 + i % 8 * 16;
}

/* Unit u of token t to its two columns: pairs (j, j + 4). */
DEVICE void put_unit(const q4_args &a, int t, int u, const real4 &lo, const real4 &hi,
                     unsigned char *table) {
    word4 first, rest;
    UNROLL
    for (int j = 0; j < 4; j++) {
        first.w[j] = reals_bf16(lo.v[j], hi.v[j]);
        rest.w[j] = reals_bf16(lo.v[j] - low_bf16(first.w[j]), hi.v[j] - high_bf16(first.w[j]));
    }
    sts((word4 *)(table + unit_at(a, 2 * t, u)), first);
    sts((word4 *)(table + unit_at(a, 2 * t + 1, u)), rest);
}

/* Unit u (of all inputs) as a normalised row has it but for its scale; returns its sum of
 * squares. */
DEVICE float weigh_unit(const q4_args &a, int u, real4 *lo, real4 *hi) {
    real4 g0 = {}, g1 = {};
    float sum = 0;
    if (u * 8 + 8 <= a.K) {
        g0 = ((const real4 *)a.g)[2 * u];
        g1 = ((const real4 *)a.g)[2 * u + 1];
    } else {
        for (int i = 0; i < 4; i++) {
            g0.v[i] = u * 8 + i < a.K ? a.g[u * 8 + i] : 0;
            g1.v[i] = u * 8 + 4 + i < a.K ? a.g[u * 8 + 4 + i] : 0;
        }
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
        sum += lo->v[i] * lo->v[i] + hi->v[i] * hi->v[i];
        lo->v[i] *= g0.v[i];
        hi->v[i] *= g1.v[i];
    }
    return sum;
}

/* The inputs k0 .. of TOKENS tokens to the table's rows; column 2t is the first part of token
 * t, column 2t + 1 the rest. squares[t] += the thread's share of what a norm sums up: units
 * thread_x(), thread_x() + n_thread(), .. of the whole row in this order, so that the sum does
 * not depend on the other tokens. A thread asks for four units before it waits for one:
 * everybody waits for this. */
template <int TOKENS>
DEVICE void stage_slab(const q4_args &a, int k0, unsigned char *table, float squares[TOKENS]) {
    enum { AT_ONCE = 4 };
    const int n_unit = min_int(a.slab, a.Kp - k0) / 8, unit0 = k0 / 8;
    const int u0 = (thread_x() + n_thread() - unit0 % n_thread()) % n_thread();
    for (int first = u0; first < n_unit; first += AT_ONCE / TOKENS * n_thread()) {
        real4 lo[AT_ONCE] = {}, hi[AT_ONCE] = {};
        UNROLL
        for (int i = 0; i < AT_ONCE; i++) {
            int t = i % TOKENS, u = first + i / TOKENS * n_thread();
            if (u >= n_unit || t >= a.T)
                continue;
            const real4 *from = (const real4 *)(a.x + (size_t)t * (size_t)a.Kp + k0 + u * 8);
            lo[i] = from[0];
            hi[i] = from[1];
        }
        UNROLL
        for (int i = 0; i < AT_ONCE; i++) {
            int t = i % TOKENS, u = first + i / TOKENS * n_thread();
            if (u >= n_unit)
                continue;
            squares[t] += a.g ? weigh_unit(a, unit0 + u, &lo[i], &hi[i]) : 0;
            put_unit(a, t, u, lo[i], hi[i], table);
        }
    }
}

/* ---- weights ---- */

/* A warp's way along the tiles of its block and its share of their chunks: what comes next. */
struct cursor {
    lane_place at;
    int tile, c;
};

/* Of `warps` warps that share a tile's chunks this is number `warp`. */
struct share {
    int warp, warps, n_chunk;
    bool gate; /* of a gated product: the warps that have gate's rows */
};

DEVICE int out_of(const q4_args &a, int tile) {
    int out = 0;
    while (out + 1 < a.n && tile >= a.first[out + 1])
        out++;
    return out;
}

/* A chunk of the tile is on its way to the second-level cache: of each of its lines one lane
 * asks for a byte. */
DEVICE void ahead(const share &s, const cursor &k, int c) {
    if (lane_id() / 4 % 4 == 0 && c < s.n_chunk)
        prefetch(k.at.data + (size_t)c * 512 + lane_id() % 2 * 256);
}

DEVICE void begin_tile(const q4_args &a, const share &s, int tile, cursor *k) {
    k->tile = tile;
    k->c = s.warp;
    if (tile >= a.first[a.n])
        return;
    int out = out_of(a, tile);
    k->at = place_of(a.o[s.gate ? 1 : out].w, (tile - a.first[out]) * ROWS);
    for (int i = 0; i < AHEAD; i++)
        ahead(s, *k, k->c + i * s.warps);
}

/* Chunk i of the warp's next DEPTH of a tile. Behind the last of a tile's comes the next tile.
 */
template <enum scales SCALES>
DEVICE void load_next(const q4_args &a, const share &s, const cursor &k, int i, lane_chunk *l) {
    int c = k.c + i * s.warps;
    if (k.tile < a.first[a.n] && c < s.n_chunk) {
        load_chunk<SCALES>(k.at, c, l);
        ahead(s, k, c + AHEAD * s.warps);
    }
}

DEVICE void step_on(const q4_args &a, const share &s, cursor *k) {
    k->c += DEPTH * s.warps;
    if (k->c >= s.n_chunk)
        begin_tile(a, s, k->tile + n_block_x(), k);
}

/* d[row pair] += the products of half a chunk: the lane's words q of four rows, and x, a unit
 * of its column. */
template <int COLUMNS>
DEVICE void multiply_half(const word4 &q, const unsigned char *x, const unsigned char *table,
                          float d[2][4]) {
    const uint32_t lane = (uint32_t)lane_id() * 4;
    word4 b = {{0, 0, 0, 0}};
    if (COLUMNS == 8 || lane_id() / 4 < COLUMNS)
        b = lds((const word4 *)x);
    UNROLL
    for (int p = 0; p < 2; p++) { /* rows 2p and 2p + 1 of the lane's four */
        UNROLL
        for (int s = 0; s < 2; s++) { /* bytes 2s and 2s + 1 */
            uint32_t frag[4] = {pair_of(table, q.w[2 * p], 2 * s, lane),
                                pair_of(table, q.w[2 * p + 1], 2 * s, lane),
                                pair_of(table, q.w[2 * p], 2 * s + 1, lane),
                                pair_of(table, q.w[2 * p + 1], 2 * s + 1, lane)};
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

/* What a chunk adds to acc; x: the lane's column and first unit, step: to the second. */
template <int COLUMNS, enum scales SCALES>
DEVICE void use_chunk(const lane_chunk &l, const decoder &of, const unsigned char *x, int step,
                      const unsigned char *table, float acc[2][4]) {
    float d[2][4] = {}, mine = l.scale[0];
    if (SCALES == QUANTISED)
        mine = lds(&of.map[l.code]) * mine + of.offset;
    multiply_half<COLUMNS>(l.q[0], x, table, d);
    if (SCALES == HALVES) {
        add_scaled(mine * of.inverse, d, acc);
        mine = l.scale[1];
    }
    multiply_half<COLUMNS>(l.q[1], x + step, table, d);
    add_scaled(mine * of.inverse, d, acc);
}

/* ---- the end ---- */

/* What all warps have: part [WARPS][tokens][PART_ROW]. Row i of the lanes of g is at 8i + g, so
 * that no two lanes meet in a bank. Behind it are sums of squares. */
enum { PART_ROW = ROWS + 4 };
template <int WARPS, int TOKENS> constexpr int part_floats = WARPS *TOKENS *(PART_ROW + 1);
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

/* The sum of `warps` warps from warp `first` on for token i / ROWS and place i % ROWS. */
DEVICE float sum_parts(const float *part, int first, int warps, int i, int tokens) {
    float v = 0;
    for (int w = first; w < first + warps; w++)
        v += lds(&part[(w * tokens + i / ROWS) * PART_ROW + i % ROWS]);
    return v;
}

/* Each warp's sums of squares, one behind the other [WARPS][TOKENS]; and a norm's scale. */
template <int TOKENS> DEVICE void put_squares(const float squares[TOKENS], float *at) {
    UNROLL
    for (int t = 0; t < TOKENS; t++) {
        float sum = warp_sum(squares[t]);
        if (lane_id() == 0)
            sts(&at[warp_id() * TOKENS + t], sum);
    }
}
template <int WARPS, int TOKENS> DEVICE float norm_scale(const q4_args &a, const float *at) {
    float sum = 0;
    for (int w = 0; w < WARPS; w++)
        sum += lds(&at[w * TOKENS]);
    return 1 / sqrtf(sum / (float)a.K + a.eps);
}

/* In front of the table: the map, and parts; the table begins at a multiple of its rows. */
template <int WARPS, int TOKENS>
constexpr int front_bytes = (MAP_BYTES + 2 * part_floats<WARPS, TOKENS> * (int)sizeof(float) +
                             TABLE_ROW - 1) /
                            TABLE_ROW *TABLE_ROW;

/* The rows of a tile from all warps' parts to y. */
template <int WARPS, int TOKENS>
DEVICE void finish(const q4_args &a, int tile, int warps, const float *part) {
    const int i = thread_x(), t = i / ROWS, out = out_of(a, tile);
    const int n = (tile - a.first[out]) * ROWS + row_at(i % ROWS);
    const q4_out &o = a.o[out];
    if (n >= o.w.N || t >= a.T)
        return;
    float scale = a.g ? norm_scale<WARPS, TOKENS>(a, part + WARPS * TOKENS * PART_ROW + t) : 1;
    float v = sum_parts(part, 0, warps, i, TOKENS) * scale + (o.bias ? o.bias[n] : 0);
    float *y = &o.y[(size_t)t * o.ldy + (size_t)n];
    if (a.gated) {
        float gate = sum_parts(part, warps, warps, i, TOKENS) * scale;
        gate += a.o[1].bias ? a.o[1].bias[n] : 0;
        v = act_of(a.act, gate) * act_up(a.act, v);
    }
    *y = a.add ? *y + v : v;
}

/* Block b computes tiles b, b + blocks, … Of a gated product one half of the warps has up's
 * rows, the other gate's. Shared memory: the map; two sets of parts, taken by turns; the table
 * with x. */
template <int WARPS, int TOKENS, enum scales SCALES>
KERNEL void BOUNDS(WARPS * 32, WARPS > 8 ? 1 : 2) q4gemv_kernel(q4_args a) {
    SHARED(shared);
    float *map = (float *)shared, *parts = map + 256;
    unsigned char *table = shared + front_bytes<WARPS, TOKENS>;
    share s;
    s.warps = a.gated ? WARPS / 2 : WARPS;
    s.warp = warp_id() % s.warps;
    s.gate = warp_id() >= s.warps;
    s.n_chunk = a.Kp / CHUNK;
    lane_chunk l[DEPTH] = {};
    cursor next = {};
    let_next_begin();
    begin_tile(a, s, block_x(), &next);
    UNROLL
    for (int i = 0; i < DEPTH; i++)
        load_next<SCALES>(a, s, next, i, &l[i]);
    step_on(a, s, &next);
    float mapped = 0;
    if (SCALES == QUANTISED)
        mapped = a.o[0].w.code_map[thread_x() % 256];
    fill_pairs<WARPS>(a.o[0].w.table, table);
    if (thread_x() < 256)
        sts(&map[thread_x()], mapped);
    wait_for_others();
    const int slab = a.slab / CHUNK, column = lane_id() / 4, unit = lane_id() % 4;
    const unsigned char *x = table + unit_at(a, column, unit);
    const int step = unit_at(a, column, unit + 4) - unit_at(a, column, unit);
    float squares[TOKENS] = {};
    bool odd = false, staged = false;
    for (int tile = block_x(); tile < a.first[a.n]; tile += n_block_x(), odd = !odd) {
        const decoder of = {map, a.o[s.gate ? 1 : out_of(a, tile)].w.offset, a.o[0].inverse};
        float acc[2][4] = {};
        for (int first = 0; first < s.n_chunk; first += slab) {
            const int end = min_int(first + slab, s.n_chunk);
            if (!staged) {
                block_sync(); /* the last slab was read */
                stage_slab<TOKENS>(a, first * CHUNK, table, squares);
                block_sync();
                staged = slab >= s.n_chunk;
            }
            for (int c = first + s.warp; c < end; c += DEPTH * s.warps) {
                UNROLL
                for (int i = 0; i < DEPTH; i++) {
                    int at = c + i * s.warps;
                    if (at < end)
                        use_chunk<2 * TOKENS, SCALES>(l[i], of, x + (at - first) * TABLE_ROW,
                                                      step, table, acc);
                    load_next<SCALES>(a, s, next, i, &l[i]);
                }
                step_on(a, s, &next);
            }
        }
        float *part = parts + (odd ? part_floats<WARPS, TOKENS> : 0);
        put_part(acc, TOKENS, part);
        if (a.g)
            put_squares<TOKENS>(squares, part + WARPS * TOKENS * PART_ROW);
        for (int t = 0; t < TOKENS && !staged; t++)
            squares[t] = 0; /* they are summed up anew */
        block_sync();
        finish<WARPS, TOKENS>(a, tile, s.warps, part);
    }
}

/* ---- launching ---- */

template <int WARPS, int TOKENS, enum scales SCALES>
static void run(struct gpu *g, struct q4_args *a, int blocks) {
    const int most = SLAB / TOKENS, tiles = a->first[a->n];
    a->slab = a->Kp < most ? a->Kp : most;
    int units = 2 * TOKENS * (a->slab / 8 + 4), rows = (units + 7) / 8;
    int bytes = front_bytes<WARPS, TOKENS> + (rows > 256 ? rows * TABLE_ROW : TABLE_BYTES);
    blocks = tiles < blocks ? tiles : blocks;
    launch<q4gemv_kernel<WARPS, TOKENS, SCALES>>(g, "q4gemv", dim3((unsigned)blocks),
                                                 WARPS * 32, (size_t)bytes, *a);
}

template <int WARPS, enum scales SCALES>
static void run_tokens(struct gpu *g, struct q4_args *a, int blocks) {
    if (a->T == 1)
        run<WARPS, 1, SCALES>(g, a, blocks);
    else if (a->T == 2)
        run<WARPS, 2, SCALES>(g, a, blocks);
    else
        run<WARPS, 4, SCALES>(g, a, blocks);
}

/* A multiprocessor has one block of sixteen warps, which share a tile's inputs, where there are
 * too few tiles for two; else two of eight. */
template <enum scales SCALES> static void run_warps(struct gpu *g, struct q4_args *a) {
    int sm = g->info.n_sm, tiles = a->first[a->n];
    if (tiles < 2 * sm)
        run_tokens<16, SCALES>(g, a, sm);
    else
        run_tokens<8, SCALES>(g, a, 2 * sm);
}

static void start(struct gpu *g, struct q4_args *a, const struct gpu_input *in) {
    a->x = in->x;
    a->g = in->norm ? in->norm->g : NULL;
    a->eps = in->norm ? in->norm->eps : 0;
    a->T = in->T;
    a->K = in->K;
    a->Kp = weight_pad_k(in->K);
    switch (scales_of(&a->o[0].w)) {
    case HALVES:
        run_warps<HALVES>(g, a);
        break;
    case QUANTISED:
        run_warps<QUANTISED>(g, a);
        break;
    case ONE:
        run_warps<ONE>(g, a);
        break;
    }
}

static int tiles_of(const struct weight *w) {
    return (w->Np + ROWS - 1) / ROWS;
}

static bool q4gemv(struct gpu *g, const struct gpu_input *in, const struct matmul_out *o,
                   int n_out, bool add) {
    if (in->T > GPU_GEMV_TOK || !q4_norm(in->norm))
        return false;
    for (int i = 0; i < n_out; i++)
        if (!q4_fits(o[i].w))
            return false;
    for (int i = 0; i < n_out;) {
        struct q4_args a = {};
        for (int j = i; i < n_out && q4_alike(o[j].w, o[i].w); i++, a.n++) {
            q4_out_of(&a.o[a.n], &o[i]);
            a.first[a.n + 1] = a.first[a.n] + tiles_of(o[i].w);
        }
        a.add = add;
        start(g, &a, in);
    }
    return true;
}

static bool q4ffn(struct gpu *g, enum act_kind act, const struct gpu_input *in,
                  const struct matmul_out *up, const struct matmul_out *gate) {
    struct q4_args a = {};
    if (in->T > GPU_GEMV_TOK || !q4_norm(in->norm) || !q4_fits(up->w) || !q4_fits(gate->w) ||
        !q4_alike(up->w, gate->w))
        return false;
    q4_out_of(&a.o[0], up);
    q4_out_of(&a.o[1], gate);
    a.first[1] = tiles_of(up->w);
    a.n = 1;
    a.gated = true;
    a.act = act;
    start(g, &a, in);
    return true;
}

void gpu_q4gemv_kernels(struct gpu *g) {
    g->q4gemv = q4gemv;
    g->q4ffn = q4ffn;
}
