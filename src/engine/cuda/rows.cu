/*
 * rows.cu - what goes element by element or row by row: embedding, norms, RoPE, activations,
 * sums, and writing keys and values. All of it is bound by memory, and most by the launch.
 *
 * Element kernels have a grid (ceil(K / 256), T): a thread is one number of one row. Columns
 * behind K are never written, so the padding of rows stays zero. Sums run in f32: each thread
 * over every n_thread-th column, then a tree.
 */
#include "engine/cuda/act.h"
#include "engine/cuda/weights.h"

enum { ROW_THREADS = 256 };

static dim3 row_grid(int T, int K) {
    return dim3((unsigned)(K + ROW_THREADS - 1) / ROW_THREADS, (unsigned)T);
}
DEVICE int column() {
    return block_x() * ROW_THREADS + thread_x();
}
static size_t row_stride(int K) {
    return (size_t)weight_pad_k(K);
}

/* x[t] = row rows[t] of w */
KERNEL void embed_kernel(struct weight w, const int32_t *rows, float *x, size_t ld) {
    wait_for_others();
    int k = column();
    if (k < w.K)
        x[(size_t)block_y() * ld + (size_t)k] = weight_at(w, rows[block_y()], k);
}

static void embed(struct gpu *g, const struct weight *w, const int32_t *rows, int T, float *x) {
    launch<embed_kernel>(g, "embed", row_grid(T, w->K), ROW_THREADS, 0, *w, rows, x,
                         row_stride(w->K));
}

/* The sum over a block of v; all threads get it. sums: [warps] shared memory. */
DEVICE float block_sum(float v, float *sums) {
    v = warp_sum(v);
    block_sync(); /* the last sum was read */
    if (lane_id() == 0)
        sts(&sums[warp_id()], v);
    block_sync();
    v = 0;
    for (int i = 0; i < n_thread() / 32; i++)
        v += lds(&sums[i]);
    return v;
}

enum { NORM_HELD = 8 }; /* numbers of a row that a thread keeps in registers */

/* Block (h, t): part h of row t, the formulas of struct norm_op. A row is read once as far as
 * its threads can hold it: NORM_HELD for each. */
KERNEL void norm_kernel(struct norm_op n, const float *x, float *y, size_t ld) {
    wait_for_others();
    SHARED(shared);
    float *sums = (float *)shared, mean = 0, var = 0, held[NORM_HELD];
    size_t at = (size_t)block_y() * ld + (size_t)(block_x() * n.D);
    const float *row = x + at;
    int rest = thread_x() + NORM_HELD * n_thread();
    UNROLL
    for (int i = 0; i < NORM_HELD; i++) {
        int k = thread_x() + i * n_thread();
        held[i] = k < n.D ? row[k] : 0;
    }
    if (n.kind == NORM_LAYER) {
        UNROLL
        for (int i = 0; i < NORM_HELD; i++)
            mean += held[i];
        for (int k = rest; k < n.D; k += n_thread())
            mean += row[k];
        mean = block_sum(mean, sums) / (float)n.D;
    }
    UNROLL
    for (int i = 0; i < NORM_HELD; i++)
        if (thread_x() + i * n_thread() < n.D)
            var += (held[i] - mean) * (held[i] - mean);
    for (int k = rest; k < n.D; k += n_thread())
        var += (row[k] - mean) * (row[k] - mean);
    float scale = 1 / sqrtf(block_sum(var, sums) / (float)n.D + n.eps);
    int own = n.each ? block_x() * n.D : 0;
    UNROLL
    for (int i = 0; i < NORM_HELD; i++) {
        int k = thread_x() + i * n_thread();
        if (k < n.D)
            y[at + (size_t)k] =
                (held[i] - mean) * scale * n.g[own + k] + (n.b ? n.b[own + k] : 0);
    }
    for (int k = rest; k < n.D; k += n_thread())
        y[at + (size_t)k] = (row[k] - mean) * scale * n.g[own + k] + (n.b ? n.b[own + k] : 0);
}

static void norm(struct gpu *g, const struct norm_op *n, const float *x, int T, float *y) {
    int block = n->D / NORM_HELD / 32 * 32 + 32;
    block = block > 1024 ? 1024 : block;
    launch<norm_kernel>(g, "norm", dim3((unsigned)n->H, (unsigned)T), block,
                        (size_t)block / 32 * sizeof(float), *n, x, y, row_stride(n->H * n->D));
}

KERNEL void permute_kernel(const float *x, const int32_t *perm, int K, float *y, size_t ld) {
    wait_for_others();
    int k = column();
    size_t row = (size_t)block_y() * ld;
    if (k < K)
        y[row + (size_t)k] = x[row + (size_t)perm[k]];
}

static void permute(struct gpu *g, const float *x, const int32_t *perm, int T, int K,
                    float *y) {
    launch<permute_kernel>(g, "permute", row_grid(T, K), ROW_THREADS, 0, x, perm, K, y,
                           row_stride(K));
}

/* A thread turns one pair: (a, b) -> (a c - b s, b c + a s), from tables as in struct step. */
KERNEL void rope_kernel(const float *cos, const float *sin, int dim, float *x, int n_head,
                        int D, size_t ld) {
    wait_for_others();
    int i = column(), head = i / (dim / 2), d = i % (dim / 2) * 2;
    if (head >= n_head)
        return;
    const float *c = cos + (size_t)block_y() * (size_t)dim + d;
    const float *s = sin + (size_t)block_y() * (size_t)dim + d;
    float *p = x + (size_t)block_y() * ld + (size_t)(head * D + d), a = p[0], b = p[1];
    p[0] = a * c[0] + b * s[0];
    p[1] = b * c[1] + a * s[1];
}

static void rope(struct gpu *g, const struct gpu_step *s, int table, float *x, int n_head,
                 int D) {
    launch<rope_kernel>(g, "rope", row_grid(s->T, n_head * s->rope_dim / 2), ROW_THREADS, 0,
                        s->cos[table], s->sin[table], s->rope_dim, x, n_head, D,
                        row_stride(n_head * D));
}

/* One warp: k and v [D] of token t to its slot. An int8 cache has a scale for each: the largest
 * magnitude / 127. */
DEVICE void put_head(const struct gpu_step &s, const struct kv_layer &kv, int t, int head,
                     const float *k, const float *v) {
    int D = kv.D, pos = s.pos[t], block = s.blocks[s.table[s.seq[t]] + pos / 16];
    size_t slot = (size_t)(pos % 16);
    char *pk = kv_head(kv.k, kv, block, head), *pv = kv_head(kv.v, kv, block, head);
    float inv_k = 0, inv_v = 0;
    if (kv.type == KV_I8) {
        float top_k = 0, top_v = 0;
        for (int d = lane_id(); d < D; d += 32) {
            top_k = max_or_nan(fabsf(k[d]), top_k);
            top_v = max_or_nan(fabsf(v[d]), top_v);
        }
        for (int i = 16; i > 0; i /= 2) {
            top_k = max_or_nan(shfl_xor(top_k, i), top_k);
            top_v = max_or_nan(shfl_xor(top_v, i), top_v);
        }
        float scale_k = kv_scale_of(top_k, &inv_k), scale_v = kv_scale_of(top_v, &inv_v);
        if (lane_id() == 0) {
            kv_head_scales(pk, D)[slot] = scale_k;
            kv_head_scales(pv, D)[slot] = scale_v;
        }
    }
    for (int d = lane_id(); d < D; d += 32) {
        size_t i = (size_t)d;
        kv_put(kv.type, pk, kv_k_at(kv.type, i, slot), k[d], inv_k);
        kv_put(kv.type, pv, kv_v_at(kv.type, (size_t)D, i, slot), v[d], inv_v);
    }
}

/* Block (head, token), one warp. */
KERNEL void kv_write_kernel(struct gpu_step s, struct kv_layer kv, const float *k,
                            const float *v, size_t ld) {
    wait_for_others();
    size_t at = (size_t)block_y() * ld + (size_t)(block_x() * kv.D);
    put_head(s, kv, block_y(), block_x(), k + at, v + at);
}

static void kv_write(struct gpu *g, const struct gpu_step *s, const struct kv_layer *kv,
                     const float *k, const float *v) {
    launch<kv_write_kernel>(g, "kv_write", dim3((unsigned)kv->Hkv, (unsigned)s->T), 32, 0, *s,
                            *kv, k, v, row_stride(kv->Hkv * kv->D));
}

/* Block (head, token), one warp: heads below H are q's, the others the cache's. Turns the head
 * where it stands; a key goes to the cache then, with its value. */
KERNEL void rope_kv_kernel(struct gpu_step s, int table, struct kv_layer kv, int H, float *q,
                           size_t ldq, float *k, const float *v, size_t ldk) {
    wait_for_others();
    int t = block_y(), head = block_x(), D = kv.D, dim = s.rope_dim;
    size_t at = (size_t)t * ldk + (size_t)((head - H) * D);
    float *x = head < H ? q + (size_t)t * ldq + (size_t)(head * D) : k + at;
    const float *cos = s.cos[table] + (size_t)t * (size_t)dim;
    const float *sin = s.sin[table] + (size_t)t * (size_t)dim;
    for (int d = 2 * lane_id(); d < dim; d += 64) {
        float a = x[d], b = x[d + 1];
        x[d] = a * cos[d] + b * sin[d];
        x[d + 1] = b * cos[d + 1] + a * sin[d + 1];
    }
    if (head < H)
        return;
    warp_sync(); /* all lanes see the turned key */
    put_head(s, kv, t, head - H, x, v + at);
}

static void rope_kv(struct gpu *g, const struct gpu_step *s, int table,
                    const struct kv_layer *kv, int H, float *q, float *k, const float *v) {
    launch<rope_kv_kernel>(g, "rope_kv", dim3((unsigned)(H + kv->Hkv), (unsigned)s->T), 32, 0,
                           *s, table, *kv, H, q, row_stride(H * kv->D), k, v,
                           row_stride(kv->Hkv * kv->D));
}

/* y = act(a) u; an optional u of gpt-oss is clamped and counts one more */
KERNEL void act_kernel(enum act_kind kind, const float *a, const float *u, int K, float *y,
                       size_t ld) {
    wait_for_others();
    int k = column();
    size_t at = (size_t)block_y() * ld + (size_t)k;
    if (k >= K)
        return;
    y[at] = act_of(kind, a[at]) * (u ? act_up(kind, u[at]) : 1);
}

static void act(struct gpu *g, enum act_kind kind, const float *a, const float *u, int T, int K,
                float *y) {
    launch<act_kernel>(g, "act", row_grid(T, K), ROW_THREADS, 0, kind, a, u, K, y,
                       row_stride(K));
}

KERNEL void add_kernel(float a, const float *x, int K, float *y, size_t ld) {
    wait_for_others();
    int k = column();
    size_t at = (size_t)block_y() * ld + (size_t)k;
    if (k < K)
        y[at] += a * x[at];
}

static void add(struct gpu *g, float a, const float *x, int T, int K, float *y) {
    launch<add_kernel>(g, "add", row_grid(T, K), ROW_THREADS, 0, a, x, K, y, row_stride(K));
}

KERNEL void scale_kernel(float a, float cap, float *x, int K, size_t ld) {
    wait_for_others();
    int k = column();
    size_t at = (size_t)block_y() * ld + (size_t)k;
    if (k >= K)
        return;
    float v = a == 0 ? 0 : a * x[at];
    x[at] = cap > 0 ? cap * tanhf(v / cap) : v;
}

static void scale(struct gpu *g, float a, float cap, float *x, size_t ld, int T, int K) {
    launch<scale_kernel>(g, "scale", row_grid(T, K), ROW_THREADS, 0, a, cap, x, K, ld);
}

KERNEL void select_kernel(const float *x, const int32_t *rows, int K, float *y, size_t ld) {
    wait_for_others();
    int k = column();
    if (k < K)
        y[(size_t)block_y() * ld + (size_t)k] = x[(size_t)rows[block_y()] * ld + (size_t)k];
}

static void select(struct gpu *g, const float *x, const int32_t *rows, int n, int K, float *y) {
    launch<select_kernel>(g, "select", row_grid(n, K), ROW_THREADS, 0, x, rows, K, y,
                          row_stride(K));
}

KERNEL void scatter_kernel(const float *x, const int32_t *rows, const float *a, int K, float *y,
                           size_t ld) {
    wait_for_others();
    int k = column();
    if (k < K)
        y[(size_t)rows[block_y()] * ld + (size_t)k] +=
            a[block_y()] * x[(size_t)block_y() * ld + (size_t)k];
}

static void scatter(struct gpu *g, const float *x, const int32_t *rows, const float *a, int n,
                    int K, float *y) {
    launch<scatter_kernel>(g, "scatter", row_grid(n, K), ROW_THREADS, 0, x, rows, a, K, y,
                           row_stride(K));
}

KERNEL void bias_kernel(const float *bias, int n, float *y, size_t ld) {
    wait_for_others();
    int i = column();
    if (i < n)
        y[(size_t)block_y() * ld + (size_t)i] += bias[i];
}

static void bias(struct gpu *g, const float *b, int T, int n, float *y, size_t ldy) {
    launch<bias_kernel>(g, "bias", row_grid(T, n), ROW_THREADS, 0, b, n, y, ldy);
}

/* Rows with their padding, which is zero and becomes zero. */
KERNEL void to_16_kernel(const float *x, int Kp, bool f16, uint16_t *xb) {
    wait_for_others();
    int k = column();
    size_t at = (size_t)block_y() * (size_t)Kp + (size_t)k;
    if (k < Kp)
        xb[at] = f16 ? real_f16(x[at]) : real_bf16(x[at]);
}

static void to_16(struct gpu *g, const float *x, int T, int K, bool f16, uint16_t *xb) {
    int Kp = weight_pad_k(K);
    launch<to_16_kernel>(g, "to_16", row_grid(T, Kp), ROW_THREADS, 0, x, Kp, f16, xb);
}

/* Rows first .. of w as [n, Kp] in 16 bits; a thread is a weight. */
KERNEL void unpack_kernel(struct weight w, int first, uint16_t *wb) {
    wait_for_others();
    int k = column(), n = block_y();
    if (k >= w.Kp)
        return;
    float v = k < w.K && first + n < w.N ? weight_at(w, first + n, k) : 0;
    wb[(size_t)n * (size_t)w.Kp + (size_t)k] =
        w.type == WEIGHT_F16 ? real_f16(v) : real_bf16(v);
}

/* The same for 4 bits: a thread has 16 bytes of a tile, 8 inputs of four rows, and writes 16
 * bytes of each. A warp reads 512 bytes, and writes 128 of each of four rows at once. Bound by
 * writing. values: [16][32], a copy of the table for each lane in its own bank. */
KERNEL void unpack_q4_kernel(struct weight w, int first, uint16_t *wb) {
    wait_for_others();
    SHARED(shared);
    float *values = (float *)shared;
    for (int i = thread_x(); i < 16 * 32; i += n_thread())
        sts(&values[i], w.table[i / 32]);
    block_sync();
    int piece = column(), unit = piece / 4, row = piece % 4 * 4; /* of the tile's */
    int tile = first / 16 + block_y(), k = unit * 8;
    if (k >= w.Kp)
        return;
    word4 q =
        ld_stream((const char *)w.data + (size_t)tile * (size_t)w.Kp * 8 + (size_t)piece * 16);
    UNROLL
    for (int r = 0; r < 4; r++) {
        int n = tile * 16 + row + r, g = k / w.group, G = w.Kp / w.group;
        float v[8], s = weight_scale(w, n, g), m = 0;
        word4 out;
        if (w.min)
            m = w.min[((size_t)tile * (size_t)G + (size_t)g) * 16 + (size_t)(row + r)];
        UNROLL
        for (int j = 0; j < 4; j++) {
            uint32_t b = q.w[r] >> 8 * j & 255;
            v[j] = lds(&values[b % 16 * 32 + lane_id()]) * s + m;
            v[j + 4] = lds(&values[b / 16 * 32 + lane_id()]) * s + m;
        }
        UNROLL
        for (int j = 0; j < 4; j++)
            out.w[j] = reals_bf16(v[2 * j], v[2 * j + 1]);
        size_t to = (size_t)(block_y() * 16 + row + r) * (size_t)w.Kp + (size_t)k;
        *(word4 *)(wb + to) = out;
    }
}

static void unpack(struct gpu *g, const struct weight *w, int first, int n, uint16_t *wb) {
    if (w->type == WEIGHT_Q4)
        launch<unpack_q4_kernel>(g, "unpack", row_grid(n / 16, w->Kp / 2), ROW_THREADS,
                                 16 * 32 * sizeof(float), *w, first, wb);
    else
        launch<unpack_kernel>(g, "unpack", row_grid(n, w->Kp), ROW_THREADS, 0, *w, first, wb);
}

/* Number d of the key in a slot, turned; scale: the one it was stored with. */
DEVICE float turned(const struct kv_layer &kv, const char *part, const float *cos,
                    const float *sin, int dim, int slot, int d, float old) {
    float x = kv_get(kv.type, part, kv_k_at(kv.type, (size_t)d, (size_t)slot)) * old;
    if (d >= dim)
        return x;
    float y = kv_get(kv.type, part, kv_k_at(kv.type, (size_t)d ^ 1, (size_t)slot)) * old;
    return x * cos[d * 16 + slot] + y * sin[d * 16 + slot];
}

/* Block (head, i): the keys of blocks[i]. Eight threads share a slot, each every eighth pair of
 * columns, so that what a thread overwrites nobody else reads; the old scale is read by all
 * eight before the new one is written. */
KERNEL void kv_turn_kernel(struct kv_layer kv, const int32_t *blocks, const float *cos,
                           const float *sin, int dim) {
    wait_for_others();
    int slot = thread_x() / 8, share = thread_x() % 8, D = kv.D;
    char *part = kv_head(kv.k, kv, blocks[block_y()], block_x());
    size_t table = (size_t)block_y() * (size_t)dim * 16;
    float old = 1, inv = 0;
    cos += table;
    sin += table;
    if (kv.type == KV_I8) {
        float top = 0;
        old = kv_head_scales(part, D)[slot];
        for (int d = share * 2; d < D; d += 16)
            for (int i = d; i < d + 2; i++)
                top = max_or_nan(fabsf(turned(kv, part, cos, sin, dim, slot, i, old)), top);
        for (int i = 4; i > 0; i /= 2)
            top = max_or_nan(shfl_xor(top, i), top);
        float scale = kv_scale_of(top, &inv);
        warp_sync();
        if (share == 0)
            kv_head_scales(part, D)[slot] = scale;
    }
    for (int d = share * 2; d < (kv.type == KV_I8 ? D : dim); d += 16) {
        float x = turned(kv, part, cos, sin, dim, slot, d, old);
        float y = turned(kv, part, cos, sin, dim, slot, d + 1, old);
        kv_put(kv.type, part, kv_k_at(kv.type, (size_t)d, (size_t)slot), x, inv);
        kv_put(kv.type, part, kv_k_at(kv.type, (size_t)d + 1, (size_t)slot), y, inv);
    }
}

static void kv_turn(struct gpu *g, const struct kv_layer *kv, const int32_t *blocks, int n,
                    const float *cos, const float *sin, int rope_dim) {
    launch<kv_turn_kernel>(g, "kv_turn", dim3((unsigned)kv->Hkv, (unsigned)n), 128, 0, *kv,
                           blocks, cos, sin, rope_dim);
}

void gpu_rows_kernels(struct gpu *g) {
    g->embed = embed;
    g->norm = norm;
    g->permute = permute;
    g->rope = rope;
    g->kv_write = kv_write;
    g->rope_kv = rope_kv;
    g->act = act;
    g->add = add;
    g->scale = scale;
    g->select = select;
    g->scatter = scatter;
    g->bias = bias;
    g->to_16 = to_16;
    g->unpack = unpack;
    g->kv_turn = kv_turn;
}
