/*
 * q4gemm.cu - products of 5 to 64 tokens with 4-bit weights (q4.h) on tensor cores:
 *
 *   y (+)= x w^T + bias
 *
 * for up to four outputs of one input in one launch, x [T, Kp] in bf16.
 *
 * Work split. A block computes 128 rows for 32 tokens (8 or 16 where there are not more) over a
 * part of the inputs. Of its sixteen warps four have the same 32 rows and take turns along the
 * inputs, a chunk at a time; a warp's fragments of weights are looked up once and multiplied
 * with all tokens. x comes to shared memory in slabs of eight chunks, the next one by cp.async
 * while one is multiplied; so x is read once for 128 rows, where gemm.cu reads it once for 32.
 * Where a weight has too few rows to keep all multiprocessors busy, several blocks share its
 * inputs and leave their sums in memory; who comes last adds them up, in their order, so that
 * the result does not depend on who that is.
 *
 * Arithmetic. bf16 times bf16 in f32; the sum over a group is multiplied by its scale. What a
 * token gets does not depend on the other tokens, but on how many there are (8, 16, 32, 64).
 *
 * Shared memory of 99 KB (sm_89) has room for 8 tokens; more are gemm.cu's there.
 *
 * Bound: reading the weights, and look-ups, up to 16 tokens; with 32 the products take as long.
 */
#include "engine/cuda/q4.h"

enum {
    WARPS = 16,
    GROUPS = 4,             /* of rows in a block */
    SHARE = WARPS / GROUPS, /* warps that share a group's inputs */
    TILE = GROUPS * ROWS,   /* rows of a block */
    TOKENS = 32,            /* of a block, at most */
    PART_ROW = ROWS + 4,
};

/* Chunks that a lane has on their way: registers. */
template <int NT> constexpr int DEPTH = NT == 4 ? 1 : 2;

/* SLAB: chunks of x in shared memory at once. A row of it, a token's, is longer than its units,
 * so that two tokens meet different banks. */
template <int SLAB> constexpr int X_ROW = SLAB * 8 * 16 + 64;

struct q4gemm_args {
    struct q4_out o[BACKEND_MAX_OUT];
    int first[BACKEND_MAX_OUT + 1]; /* tile of an output's first rows */
    int n;
    const uint16_t *x; /* [T, Kp]; unit u of a row as pairs (j, j + 4) */
    int T, Kp;
    int splits, slabs; /* blocks that share a tile's inputs, and slabs of each */
    bool add;
    float *work; /* [splits][T][tiles * TILE] sums of the splits */
    int *count;  /* [tiles][groups of tokens] blocks that have left theirs; zeros between
                    launches */
};

/* ---- x ---- */

/* A row of x [T, Kp] as pairs, normalised by g (NORM_RMS) if there is one: unit u of row t by
 * thread u % n of block t, n threads. */
KERNEL void to_pairs_kernel(const float *x, const float *g, float eps, int K, int Kp,
                            uint16_t *pairs) {
    wait_for_others();
    SHARED(shared);
    float *sums = (float *)(void *)shared, scale = 1;
    const real4 *row = (const real4 *)(x + (size_t)block_x() * (size_t)Kp);
    word4 *to = (word4 *)(pairs + (size_t)block_x() * (size_t)Kp);
    if (g) {
        float sum = 0;
        for (int i = thread_x(); i < Kp / 4; i += n_thread())
            UNROLL
        for (int j = 0; j < 4; j++)
            sum += row[i].v[j] * row[i].v[j];
        sum = warp_sum(sum);
        if (lane_id() == 0)
            sts(&sums[warp_id()], sum);
        block_sync();
        sum = 0;
        for (int i = 0; i < n_thread() / 32; i++)
            sum += lds(&sums[i]);
        scale = 1 / sqrtf(sum / (float)K + eps);
    }
    for (int u = thread_x(); u < Kp / 8; u += n_thread()) {
        real4 lo = row[2 * u], hi = row[2 * u + 1];
        word4 w;
        UNROLL
        for (int j = 0; j < 4; j++) {
            if (g) {
                lo.v[j] *= scale * (u * 8 + j < K ? g[u * 8 + j] : 0);
                hi.v[j] *= scale * (u * 8 + 4 + j < K ? g[u * 8 + 4 + j] : 0);
            }
            w.w[j] = reals_bf16(lo.v[j], hi.v[j]);
        }
        to[u] = w;
    }
}

static void to_pairs(struct gpu *g, const struct gpu_input *in, uint16_t *pairs) {
    int Kp = weight_pad_k(in->K), threads = Kp / 8 < 512 ? (Kp / 8 + 31) / 32 * 32 : 512;
    launch<to_pairs_kernel>(
        g, "to_pairs", dim3((unsigned)in->T), threads, (size_t)threads / 32 * sizeof(float),
        in->x, in->norm ? in->norm->g : NULL, in->norm ? in->norm->eps : 0, in->K, Kp, pairs);
}

/* Asks for slab s of the block's tokens; what is behind the inputs or the tokens comes as
 * zeros. A thread has one unit of every STEP'th token. */
template <int NT, int SLAB>
DEVICE void ask_slab(const q4gemm_args &a, int token0, int s, unsigned char *to) {
    constexpr int UNITS = SLAB * 8, STEP = WARPS * 32 / UNITS;
    const int u = thread_x() % UNITS, t0 = thread_x() / UNITS;
    const bool in = s * UNITS + u < a.Kp / 8;
    const uint16_t *from =
        a.x + (size_t)(token0 + t0) * (size_t)a.Kp + (size_t)(s * UNITS + u) * 8;
    to += t0 * X_ROW<SLAB> + u * 16;
    for (int i = 0; i < NT * 8 / STEP; i++) {
        bool there = in && token0 + t0 + i * STEP < a.T;
        cp_async(to, there ? from : a.x, there ? 16 : 0);
        to += STEP * X_ROW<SLAB>;
        from += (size_t)STEP * (size_t)a.Kp;
    }
    cp_async_commit();
}

/* ---- products ---- */

/* The fragments of half a chunk: [rows 2p, 2p + 1][bytes 2s, 2s + 1]. */
DEVICE void look_up(const word4 &q, const unsigned char *table, uint32_t frag[2][2][4]) {
    const uint32_t lane = (uint32_t)lane_id() * 4;
    UNROLL
    for (int p = 0; p < 2; p++)
        UNROLL
    for (int s = 0; s < 2; s++)
        UNROLL
    for (int i = 0; i < 4; i++)
        frag[p][s][i] = pair_of(table, q.w[2 * p + i % 2], 2 * s + i / 2, lane);
}

DEVICE void half_products(const uint32_t frag[2][2][4], const unsigned char *x, float d[2][4]) {
    word4 b = lds((const word4 *)x);
    UNROLL
    for (int p = 0; p < 2; p++)
        UNROLL
    for (int s = 0; s < 2; s++)
        mma_bf16(d[p], frag[p][s], &b.w[2 * s]);
}

DEVICE void add_scaled(const float scale[4], const float d[2][4], float acc[2][4]) {
    UNROLL
    for (int p = 0; p < 2; p++)
        UNROLL
    for (int i = 0; i < 4; i++)
        acc[p][i] += d[p][i] * scale[2 * p + i / 2];
}

/* The scales of the lane's four rows: mine is that of row t. */
DEVICE void all_scales(float mine, float scale[4]) {
    int quad = lane_id() / 4 * 4;
    UNROLL
    for (int i = 0; i < 4; i++)
        scale[i] = shfl(mine, quad + i);
}

/* acc += scale times the products of half h of a chunk, or of both, with all tokens. */
template <int NT, int SLAB, int HALF0, int N>
DEVICE void all_products(const uint32_t frag[N][2][2][4], const float scale[4],
                         const unsigned char *x, float acc[NT][2][4]) {
    UNROLL
    for (int i = 0; i < NT; i++) {
        float d[2][4] = {};
        UNROLL
        for (int h = 0; h < N; h++)
            half_products(frag[h], x + i * 8 * X_ROW<SLAB> + (HALF0 + h) * 64, d);
        add_scaled(scale, d, acc[i]);
    }
}

/* acc += a chunk's products, and the next chunk is asked for as soon as this one is looked up.
 * x: the chunk's first unit of the lane's token in the slab. */
template <int NT, enum scales SCALES, int SLAB>
DEVICE void use_chunk(lane_chunk *l, const lane_place &place, int next, int end,
                      const decoder &of, const unsigned char *table, const unsigned char *x,
                      float acc[NT][2][4]) {
    float scale[4], mine = l->scale[0];
    if constexpr (SCALES == HALVES) {
        uint32_t frag[1][2][2][4];
        float rest = l->scale[1];
        look_up(l->q[0], table, frag[0]);
        all_scales(mine * of.inverse, scale);
        all_products<NT, SLAB, 0, 1>(frag, scale, x, acc);
        look_up(l->q[1], table, frag[0]);
        if (next < end)
            load_chunk<SCALES>(place, next, l);
        all_scales(rest * of.inverse, scale);
        all_products<NT, SLAB, 1, 1>(frag, scale, x, acc);
    } else {
        uint32_t frag[2][2][2][4];
        look_up(l->q[0], table, frag[0]);
        look_up(l->q[1], table, frag[1]);
        if (SCALES == QUANTISED)
            mine = lds(&of.map[l->code]) * mine + of.offset;
        if (next < end)
            load_chunk<SCALES>(place, next, l);
        all_scales(mine * of.inverse, scale);
        all_products<NT, SLAB, 0, 2>(frag, scale, x, acc);
    }
}

/* ---- the end ---- */

/* The warps' sums: [WARPS][NT * 8 tokens][PART_ROW], rows 4g + i of lane (g, t). */
template <int NT> DEVICE void put_parts(const float acc[NT][2][4], float *part) {
    int g = lane_id() / 4, t = lane_id() % 4;
    UNROLL
    for (int i = 0; i < NT; i++)
        UNROLL
    for (int e = 0; e < 2; e++) {
        int token = (warp_id() * NT + i) * 8 + 2 * t + e;
        real4 rows = {{acc[i][0][e], acc[i][0][2 + e], acc[i][1][e], acc[i][1][2 + e]}};
        sts((real4 *)(part + token * PART_ROW + 4 * g), rows);
    }
}

/* True for all threads of the block that is the last of a tile's. */
DEVICE bool come_last(const q4gemm_args &a, int *count, int *shared) {
    make_visible();
    block_sync();
    if (thread_x() == 0) {
        int last = add_global(count, 1) == a.splits - 1;
        if (last)
            *count = 0; /* for the next launch */
        sts(shared, last);
    }
    block_sync();
    make_visible();
    return lds(shared) != 0;
}

/* A thread's part of a tile: row n for the tokens t, t + STEP, … */
enum { STEP = WARPS * 32 / TILE };

/* Row n of a tile for the tokens that the thread has, from where they are, to y. */
template <int NT, class GET>
DEVICE void put_rows(const q4gemm_args &a, const q4_out &o, int token0, int n, GET sum) {
    if (n >= o.w.N)
        return;
    float bias = o.bias ? o.bias[n] : 0;
    for (int t = thread_x() / TILE; t < min_int(NT * 8, a.T - token0); t += STEP) {
        float *y = &o.y[(size_t)(token0 + t) * o.ldy + (size_t)n], v = sum(t) + bias;
        *y = a.add ? *y + v : v;
    }
}

template <int NT>
DEVICE void finish(const q4gemm_args &a, int out, int token0, const float *part, int *shared) {
    const int tile = block_x(), n = thread_x() % TILE, all = a.first[a.n] * TILE;
    const q4_out &o = a.o[out];
    const int row = (tile - a.first[out]) * TILE + n;
    const float *mine = part + n / ROWS * SHARE * NT * 8 * PART_ROW + n % ROWS;
    auto parts_sum = [&](int t) {
        float v = 0;
        UNROLL
        for (int k = 0; k < SHARE; k++)
            v += lds(&mine[(k * NT * 8 + t) * PART_ROW]);
        return v;
    };
    if (a.splits == 1) {
        put_rows<NT>(a, o, token0, row, parts_sum);
        return;
    }
    float *work = a.work + (size_t)token0 * (size_t)all + (size_t)(tile * TILE + n);
    const size_t split = (size_t)a.T * (size_t)all;
    for (int t = thread_x() / TILE; t < min_int(NT * 8, a.T - token0); t += STEP)
        work[(size_t)block_y() * split + (size_t)t * (size_t)all] = parts_sum(t);
    if (come_last(a, a.count + token0 / TOKENS * a.first[a.n] + tile, shared))
        put_rows<NT>(a, o, token0, row, [&](int t) {
            float v = 0;
            for (int k = 0; k < a.splits; k++)
                v += ld_fresh(&work[(size_t)k * split + (size_t)t * (size_t)all]);
            return v;
        });
}

/* Block (tile, split, group of tokens). Shared memory: the table; the map; two slabs of x, and
 * in the end the warps' sums in their place. */
template <int NT, enum scales SCALES, int SLAB>
KERNEL void BOUNDS(WARPS * 32, 1) q4gemm_kernel(q4gemm_args a) {
    SHARED(shared);
    float *map = (float *)(shared + TABLE_BYTES);
    unsigned char *slabs = shared + TABLE_BYTES + MAP_BYTES;
    const int token0 = block_z() * TOKENS, group = warp_id() / SHARE, share = warp_id() % SHARE;
    const int first = block_y() * a.slabs * SLAB;
    const int end = min_int(first + a.slabs * SLAB, a.Kp / CHUNK);
    int out = 0;
    while (out + 1 < a.n && block_x() >= a.first[out + 1])
        out++;
    const q4_out &o = a.o[out];
    let_next_begin();
    lane_chunk l[DEPTH<NT>] = {};
    const lane_place place = place_of(o.w, (block_x() - a.first[out]) * TILE + group * ROWS);
    UNROLL
    for (int i = 0; i < DEPTH<NT>; i++)
        if (first + share + i * SHARE < end)
            load_chunk<SCALES>(place, first + share + i * SHARE, &l[i]);
    if (SCALES == QUANTISED && thread_x() < 256)
        sts(&map[thread_x()], o.w.code_map[thread_x()]);
    fill_pairs<WARPS>(o.w.table, shared);
    const decoder of = {map, o.w.offset, o.inverse};
    constexpr int slab_bytes = NT * 8 * X_ROW<SLAB>;
    const int lane_x = lane_id() / 4 * X_ROW<SLAB> + lane_id() % 4 * 16;
    float acc[NT][2][4] = {};
    wait_for_others();
    ask_slab<NT, SLAB>(a, token0, first / SLAB, slabs);
    for (int c0 = first, odd = 0; c0 < end; c0 += SLAB, odd = 1 - odd) {
        cp_async_wait<0>();
        block_sync(); /* this slab is there, and the last one was read */
        if (c0 + SLAB < end)
            ask_slab<NT, SLAB>(a, token0, c0 / SLAB + 1, slabs + (1 - odd) * slab_bytes);
        const unsigned char *x = slabs + odd * slab_bytes + lane_x;
        const int stop = min_int(c0 + SLAB, end);
        for (int c = c0 + share; c < stop; c += DEPTH<NT> * SHARE) {
            UNROLL
            for (int i = 0; i < DEPTH<NT>; i++) {
                int at = c + i * SHARE;
                if (at < stop)
                    use_chunk<NT, SCALES, SLAB>(&l[i], place, at + DEPTH<NT> * SHARE, end, of,
                                                shared, x + (at - c0) * 128, acc);
            }
        }
    }
    block_sync();
    put_parts<NT>(acc, (float *)(void *)slabs);
    block_sync();
    finish<NT>(a, out, token0, (const float *)(const void *)slabs, (int *)(void *)map);
}

/* ---- launching ---- */

static int n_tile(int T) {
    return T <= 8 ? 1 : T <= 16 ? 2 : 4;
}

static size_t block_bytes(int nt, int x_row) {
    int x = 2 * nt * 8 * x_row, parts = WARPS * nt * 8 * PART_ROW * (int)sizeof(float);
    return (size_t)(TABLE_BYTES + MAP_BYTES + (x > parts ? x : parts));
}

/* Chunks of a slab where shared memory is large, and where it is not. */
enum { LONG = 4 * SHARE, SHORT = 2 * SHARE };

static bool has_room(const struct gpu *g, int T, int slab) {
    int row = slab == LONG ? X_ROW<LONG> : X_ROW<SHORT>;
    return block_bytes(n_tile(T), row) <= g->info.block_bytes;
}

template <int NT, enum scales SCALES, int SLAB>
static void run(struct gpu *g, const struct q4gemm_args *a) {
    dim3 grid((unsigned)a->first[a->n], (unsigned)a->splits,
              (unsigned)(a->T + TOKENS - 1) / TOKENS);
    launch<q4gemm_kernel<NT, SCALES, SLAB>>(g, "q4gemm", grid, WARPS * 32,
                                            block_bytes(NT, X_ROW<SLAB>), *a);
}

template <enum scales SCALES, int SLAB>
static void run_tokens(struct gpu *g, const struct q4gemm_args *a) {
    if (n_tile(a->T) == 1)
        run<1, SCALES, SLAB>(g, a);
    else if (n_tile(a->T) == 2)
        run<2, SCALES, SLAB>(g, a);
    else
        run<4, SCALES, SLAB>(g, a);
}

/* Blocks for every multiprocessor, as far as inputs go, and the workspace. */
static void share_inputs(struct gpu *g, struct q4gemm_args *a, int slab) {
    int tiles = a->first[a->n], all = (a->Kp / CHUNK + slab - 1) / slab;
    int tokens = (a->T + TOKENS - 1) / TOKENS, want = g->info.n_sm / (tiles * tokens);
    size_t room = GPU_Q4_WORK / ((size_t)a->T * (size_t)tiles * TILE);
    want = (size_t)want < room ? want : (int)room;
    if (tiles * tokens > GPU_Q4_COUNTS)
        want = 1;
    want = want < 1 ? 1 : want > all ? all : want;
    a->slabs = (all + want - 1) / want;
    a->splits = (all + a->slabs - 1) / a->slabs;
}

template <enum scales SCALES> static void run_slab(struct gpu *g, struct q4gemm_args *a) {
    int slab = has_room(g, a->T, LONG) ? LONG : SHORT;
    share_inputs(g, a, slab);
    if (slab == LONG)
        run_tokens<SCALES, LONG>(g, a);
    else
        run_tokens<SCALES, SHORT>(g, a);
}

static bool q4gemm(struct gpu *g, const struct gpu_input *in, struct gpu_q4_room room,
                   const struct matmul_out *o, int n_out, bool add) {
    if (in->T > GPU_GEMM_TOK || !has_room(g, in->T, SHORT) || !q4_norm(in->norm))
        return false;
    for (int i = 0; i < n_out; i++)
        if (!q4_fits(o[i].w))
            return false;
    to_pairs(g, in, room.pairs);
    for (int i = 0; i < n_out;) {
        struct q4gemm_args a = {};
        for (int j = i; i < n_out && q4_alike(o[j].w, o[i].w); i++, a.n++) {
            q4_out_of(&a.o[a.n], &o[i]);
            a.first[a.n + 1] = a.first[a.n] + (o[i].w->Np + TILE - 1) / TILE;
        }
        a.x = room.pairs;
        a.T = in->T;
        a.Kp = weight_pad_k(in->K);
        a.add = add;
        a.work = room.work;
        a.count = room.count;
        switch (scales_of(o[i - 1].w)) {
        case HALVES:
            run_slab<HALVES>(g, &a);
            break;
        case QUANTISED:
            run_slab<QUANTISED>(g, &a);
            break;
        case ONE:
            run_slab<ONE>(g, &a);
            break;
        }
    }
    return true;
}

void gpu_q4gemm_kernels(struct gpu *g) {
    g->q4gemm = q4gemm;
}
