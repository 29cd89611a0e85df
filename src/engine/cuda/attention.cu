/*
 * attention.cu - attention over the paged KV cache, out = softmax(scores of q K) V.
 *
 * A query row is a (token, head of the group) pair of one sequence and one KV head: row r is
 * token r / G, head r % G, G = H / Hkv, so that all heads which read the same keys stand in one
 * tile. Row r sees the keys from[r] .. limit[r] - 1; both ascend with r. Blocks of the cache
 * that no row of a tile sees are never touched, and what a row does not see is masked by
 * select: it may be any bits. (With bf16, f16 and fp8 on tensor cores that is said of keys, and
 * of values that no row of the tile sees: one that is not finite reaches the rows before it
 * too.)
 *
 * Three kernels over grids (Hkv * row tiles, parts, sequences), largest tiles first; the grid
 * comes from max_tok, so a launch can be replayed with other lengths:
 *
 *   plain   any type of cache, any even D <= 256; products and sums in f32. For f32, and where
 *           D is not a multiple of 16.
 *   tensor  on tensor cores, for all but f32; D is filled up with zeros to 64, 96, 128
 *           or 256. With FEW rows (decode) a tile has 16 rows, and the warps of all parts share
 *           its keys; else a block has 64 rows and its four warps share tiles of keys.
 *   merge   adds up the parts of a row's keys: m, l, o as below.
 *
 * Online softmax, in f32: of what it has seen a row keeps a reference m (the largest score, or
 * 9 less, see reference()), l = sum exp(s - m) and o = sum exp(s - m) v. l = 0: saw nothing.
 * Parts lie in gpu_parts.at as o [n, T * H, D], then (m, l) [n, T * H, 2]. A sink joins at the
 * end, as a key without a value would.
 *
 * Precision of tensor. q (times scale) is the sum of two numbers of 16 bits and is off by
 * 2^-16 of itself in bf16, 2^-22 in f16; a score by that times scale sum|q k|. Of few rows the
 * weights exp(s - m) are split in two likewise; of many rows they are rounded once (2^-8 in
 * bf16, 2^-11 in f16), and l is the sum of the rounded ones, so that a mean of equal values is
 * that value. int8 counts as bf16: numbers up to 127 are exact; a key's scale multiplies its
 * score, a value's the weight before it is rounded. fp8 counts as f16: its numbers over 2^8 are
 * multiplied, exactly; scores and o are multiplied by 2^8 then.
 *
 * Bound: with few rows by reading K and V, once for each 16 rows; else by the products, 3/2 of
 * those of unsplit queries.
 */
#include "engine/cuda/attention_tensor.h"

/* Block (h, t): the parts of head h of token t. Bound by reading them. */
KERNEL void merge_kernel(att_args A) {
    wait_for_others();
    int D = A.kv.D, h = block_x(), d = thread_x();
    size_t n_row = (size_t)A.s.T * (size_t)A.H;
    size_t id = (size_t)block_y() * (size_t)A.H + (size_t)h;
    float top = -INFINITY, l = 0, v = 0;
    for (int p = 0; p < A.parts.n; p++)
        top = fmaxf(top, part_sums(A, (size_t)p * n_row + id)[0]);
    for (int p = 0; p < A.parts.n; p++) {
        size_t at = (size_t)p * n_row + id;
        const float *sums = part_sums(A, at);
        if (sums[1] == 0)
            continue;
        float f = expf(sums[0] - top);
        l += f * sums[1];
        v += d < D ? f * A.parts.at[at * (size_t)D + (size_t)d] : 0;
    }
    if (d < D)
        A.out[(size_t)block_y() * A.ld + (size_t)(h * D + d)] = v * row_inverse(A.a, h, top, l);
}

/* ---- plain ---- */

enum {
    PLAIN_ROWS = 4,
    PLAIN_WARPS = 4,
    PLAIN_COLS = GPU_ATT_MAX_D / 32,
};

/* What a warp has of its rows: o of the columns lane, lane + 32, .. */
struct plain_state {
    float m[PLAIN_ROWS], l[PLAIN_ROWS], o[PLAIN_ROWS][PLAIN_COLS];
};

/* Scores of the lane's slot of a block that begins at `key`; the warp's upper half takes the
 * odd columns of the same slots. q [D, PLAIN_ROWS] */
template <enum kv_type TYPE>
DEVICE void plain_scores(const att_args &A, const att_tile &t, const char *part, int key,
                         const float *q, float s[PLAIN_ROWS]) {
    size_t slot = (size_t)(lane_id() % 16);
    int D = A.kv.D, pos = key + (int)slot;
    float scale = TYPE == KV_I8 ? ((const float *)(part + 16 * (size_t)D))[slot] : 1;
    for (int r = 0; r < PLAIN_ROWS; r++)
        s[r] = 0;
    UNROLL_SOME
    for (int d = lane_id() / 16; d < D; d += 2) {
        float k = kv_get(TYPE, part, kv_k_at(TYPE, (size_t)d, slot));
        real4 x = lds((const real4 *)&q[d * PLAIN_ROWS]);
        UNROLL
        for (int r = 0; r < PLAIN_ROWS; r++)
            s[r] += x.v[r] * k;
    }
    UNROLL
    for (int r = 0; r < PLAIN_ROWS; r++) {
        int row = min_int(r, t.n - 1), limit = row_limit(A, t, row);
        s[r] = (s[r] + shfl_xor(s[r], 16)) * scale * A.a.scale;
        if (A.a.cap > 0)
            s[r] = A.a.cap * tanhf(s[r] / A.a.cap);
        if (A.a.slopes) {
            float slope = A.a.slopes[row_head(A, t, row)];
            s[r] += A.a.alibi_scaled ? bf16_real(real_bf16(slope * (float)pos)) * A.a.scale
                                     : slope * (float)(pos - (limit - 1));
        }
        if (pos >= limit || pos < limit_from(A, limit))
            s[r] = -INFINITY;
    }
}

/* Scores become weights, and what there was before is put on the new reference. */
DEVICE void plain_softmax(plain_state &st, float s[PLAIN_ROWS]) {
    UNROLL
    for (int r = 0; r < PLAIN_ROWS; r++) {
        float top = s[r];
        for (int i = 8; i > 0; i /= 2)
            top = fmaxf(top, shfl_xor(top, i));
        top = fmaxf(top, st.m[r]);
        float ref = top == -INFINITY ? 0 : top, f = expf(st.m[r] - ref);
        s[r] = expf(s[r] - ref);
        st.m[r] = top;
        st.l[r] = st.l[r] * f + s[r];
        UNROLL
        for (int c = 0; c < PLAIN_COLS; c++)
            st.o[r][c] *= f;
    }
}

/* o += p V over the slots that any row sees */
template <enum kv_type TYPE>
DEVICE void plain_values(const att_args &A, const att_tile &t, const char *part, int key,
                         float p[PLAIN_ROWS], plain_state &st) {
    int D = A.kv.D, end = min_int(16, t.limit - key);
    if constexpr (TYPE == KV_I8) {
        float scale = ((const float *)(part + 16 * (size_t)D))[lane_id() % 16];
        UNROLL
        for (int r = 0; r < PLAIN_ROWS; r++)
            p[r] = p[r] == 0 ? 0 : p[r] * scale;
    }
    for (int j = max_int(0, t.from - key); j < end; j++) {
        float pj[PLAIN_ROWS];
        UNROLL
        for (int r = 0; r < PLAIN_ROWS; r++)
            pj[r] = shfl(p[r], j);
        UNROLL
        for (int c = 0; c < PLAIN_COLS; c++) {
            int d = lane_id() + 32 * c;
            if (d >= D)
                break;
            float v = kv_get(TYPE, part, kv_v_at(TYPE, (size_t)D, (size_t)d, (size_t)j));
            UNROLL
            for (int r = 0; r < PLAIN_ROWS; r++)
                st.o[r][c] += pj[r] == 0 ? 0 : pj[r] * v;
        }
    }
}

/* The part's blocks in turn with the other warps. Four rows share what is read of K and V. */
template <enum kv_type TYPE> KERNEL void BOUNDS(PLAIN_WARPS * 32, 2) plain_kernel(att_args A) {
    wait_for_others();
    SHARED(shared);
    att_tile t = block_tile(A, PLAIN_ROWS);
    int D = A.kv.D, begin, end, first = t.from / 16;
    float *q = (float *)shared, *ml = q + D * PLAIN_ROWS,
          *o = ml + PLAIN_WARPS * PLAIN_ROWS * 2;
    size_t at[PLAIN_ROWS];
    plain_state st = {};
    if (t.n <= 0)
        return;
    UNROLL
    for (int r = 0; r < PLAIN_ROWS; r++) {
        at[r] = row_at(A, t, min_int(r, t.n - 1));
        st.m[r] = -INFINITY;
    }
    for (int d = thread_x(); d < D; d += n_thread()) {
        real4 x;
        UNROLL
        for (int r = 0; r < PLAIN_ROWS; r++)
            x.v[r] = A.q[at[r] + (size_t)d];
        sts((real4 *)&q[d * PLAIN_ROWS], x);
    }
    block_sync();
    part_share(A, (t.limit + 15) / 16 - first, &begin, &end);
    for (int i = begin + warp_id(); i < end; i += PLAIN_WARPS) {
        int key = (first + i) * 16;
        size_t block = (size_t)t.blocks[first + i] * A.kv.stride;
        float s[PLAIN_ROWS];
        plain_scores<TYPE>(A, t, t.k + block, key, q, s);
        plain_softmax(st, s);
        plain_values<TYPE>(A, t, t.v + block, key, s, st);
    }
    UNROLL
    for (int r = 0; r < PLAIN_ROWS; r++) {
        int row = warp_id() * PLAIN_ROWS + r;
        for (int i = 8; i > 0; i /= 2)
            st.l[r] += shfl_xor(st.l[r], i);
        if (lane_id() == 0) {
            sts(&ml[row * 2], st.m[r]);
            sts(&ml[row * 2 + 1], st.l[r]);
        }
        UNROLL
        for (int c = 0; c < PLAIN_COLS; c++)
            if (lane_id() + 32 * c < D)
                sts(&o[row * D + lane_id() + 32 * c], st.o[r][c]);
    }
    block_sync();
    merge_warps<PLAIN_WARPS>(A, t, ml, o, PLAIN_ROWS, D);
}

/* ---- launches ---- */

static dim3 att_grid(struct att_args *A, int rows) {
    A->tiles = (A->s.max_tok * A->G + rows - 1) / rows;
    return dim3((unsigned)(A->kv.Hkv * A->tiles), (unsigned)A->parts.n, (unsigned)A->s.n_seq);
}

template <enum kv_type TYPE> static void run_plain(struct gpu *g, struct att_args A) {
    int D = A.kv.D, o = PLAIN_WARPS * PLAIN_ROWS * (D + 2);
    dim3 grid = att_grid(&A, PLAIN_ROWS);
    launch<plain_kernel<TYPE>>(g, "attention_plain", grid, PLAIN_WARPS * 32,
                               (size_t)(D * PLAIN_ROWS + o) * sizeof(float), A);
}

template <class S> static void run_tensor(struct gpu *g, struct att_args A) {
    dim3 grid = att_grid(&A, S::ROWS);
    launch<tensor_kernel<S>>(g, S::FEW ? "attention_few" : "attention", grid, S::WARPS * 32,
                             (size_t)S::SHARED_BYTES, A);
}

template <enum kv_type TYPE, bool FEW> static void run_size(struct gpu *g, struct att_args A) {
    if (A.kv.D <= 64)
        run_tensor<att_shape<TYPE, 64, FEW>>(g, A);
    else if (A.kv.D <= 96)
        run_tensor<att_shape<TYPE, 96, FEW>>(g, A);
    else if (A.kv.D <= 128)
        run_tensor<att_shape<TYPE, 128, FEW>>(g, A);
    else
        run_tensor<att_shape<TYPE, 256, FEW>>(g, A);
}

template <enum kv_type TYPE> static void run(struct gpu *g, struct att_args A, bool few) {
    if (A.kv.D % 16 != 0)
        run_plain<TYPE>(g, A);
    else if (few)
        run_size<TYPE, true>(g, A);
    else
        run_size<TYPE, false>(g, A);
}

static void attention(struct gpu *g, const struct gpu_step *s, const struct kv_layer *kv,
                      const struct att_op *a, int H, const float *q, struct gpu_parts parts,
                      float *out) {
    struct att_args A = {*s, *kv,         *a, parts, q, out, (size_t)weight_pad_k(H * kv->D),
                         H,  H / kv->Hkv, 0};
    bool few = s->max_tok == 1 || s->max_tok * A.G <= GPU_ATT_ROWS;
    if (!few)
        A.parts.n = 1;
    if (kv->type == KV_F32)
        run_plain<KV_F32>(g, A);
    else if (kv->type == KV_F16)
        run<KV_F16>(g, A, few);
    else if (kv->type == KV_BF16)
        run<KV_BF16>(g, A, few);
    else if (kv->type == KV_FP8)
        run<KV_FP8>(g, A, few);
    else
        run<KV_I8>(g, A, few);
    if (A.parts.n > 1)
        launch<merge_kernel>(g, "attention_merge", dim3((unsigned)H, (unsigned)s->T),
                             (kv->D + 31) / 32 * 32, 0, A);
}

void gpu_attention_kernels(struct gpu *g) {
    g->attention = attention;
}
