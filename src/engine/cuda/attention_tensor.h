/*
 * attention_tensor.h - attention on tensor cores (attention.cu has the rest).
 *
 * How an mma's fragments lie in the cache. The order of the numbers that a product adds up is
 * free, and so is the order of columns; both are chosen so that a lane's words are neighbours
 * in all types of cache, and no lane has to give anything to another. With g = lane / 4 and
 * t = lane % 4, for 32 keys (two blocks of the cache):
 *
 *   scores  [16 rows, 32 keys], contraction over d. Lane t adds up the t'th quarter of D, four
 *           numbers a step. Column g of product j is key 4g + j: so a lane reads the keys
 *           4g .. 4g + 3 at once, and has scores of the keys 8t .. 8t + 7: s[j][e] is row g and
 *           key 8t + 4e + j, s[j][2 + e] row g + 8.
 *   values  [16 rows, 32 columns], contraction over keys. Lane t adds up the keys
 *           8t .. 8t + 7, whose weights it has. Column g of product j is column 4g + j, so
 *           o[j][e] is row g and column 8t + 4e + j, o[j][2 + e] row g + 8.
 *
 * So both K and V are read in quarters, one for each t; in shared memory 32 bytes lie between
 * two quarters (and 16 between two blocks of keys), so that the 32 lanes of a read reach all
 * banks once. Else the bytes lie as in the cache: cp.async brings them, 16 at a time, and f16,
 * int8 and fp8 are paired up when they are read.
 */
#ifndef LLMCHAT_ENGINE_CUDA_ATTENTION_TENSOR_H
#define LLMCHAT_ENGINE_CUDA_ATTENTION_TENSOR_H

#include "engine/cuda/attention.h"

template <enum kv_type TYPE_, int DT_, bool FEW_> struct att_shape {
    static constexpr enum kv_type TYPE = TYPE_;
    static constexpr int DT = DT_; /* D and zeros */
    static constexpr bool FEW = FEW_;
    /* Multiplied as f16, else as bf16; words_at() gives numbers over UNIT. */
    static constexpr bool F16 = TYPE == KV_F16 || TYPE == KV_FP8;
    static constexpr float UNIT = TYPE == KV_FP8 ? 256 : 1;
    static constexpr int BYTES = TYPE == KV_I8 || TYPE == KV_FP8 ? 1 : 2; /* of a number */
    static constexpr int WARPS = FEW && DT > 128 ? 2 : 4;
    static constexpr int ROWS = FEW ? 16 : 16 * WARPS;
    static constexpr int KEYS = FEW || DT > 128 ? 32 : 64; /* of a tile of keys */
    static constexpr int GROUPS = KEYS / 32, BLOCKS = KEYS / 16;
    static constexpr int TEAM = FEW ? 32 : WARPS * 32; /* threads that share it */
    static constexpr int K_QUARTER = 4 * DT * BYTES + 32, K_BLOCK = 4 * K_QUARTER + 16;
    static constexpr int V_QUARTER = 8 * DT * BYTES + 32, V_BLOCK = 2 * V_QUARTER;
    static constexpr int V_COLUMN = TYPE == KV_BF16 ? 4 : BYTES; /* from one to the next */
    static constexpr int SCALES = TYPE == KV_I8 ? KEYS * (int)sizeof(float) : 0;
    /* Shared bytes. A team's tile: keys, values, scales of both; behind the tiles the queries:
     * for each warp (FEW: for all) fragments [DT / 16][high, low][32 lanes]. With FEW the tiles
     * give way to what each warp has of o [WARPS, 16, O_LD] and (m, l). */
    static constexpr int V_AT = BLOCKS * K_BLOCK, SCALES_AT = V_AT + BLOCKS * V_BLOCK;
    static constexpr int TILE = SCALES_AT + 2 * SCALES;
    static constexpr int O_LD = DT + 4, O_BYTES = WARPS * 16 * (O_LD + 2) * (int)sizeof(float);
    static constexpr int TILES = !FEW ? TILE : WARPS * TILE > O_BYTES ? WARPS *TILE : O_BYTES;
    static constexpr int WARP_Q = DT / 16 * 2 * 512;
    static constexpr int SHARED_BYTES = TILES + (FEW ? 1 : WARPS) * WARP_Q;
    /* On a multiprocessor, as far as registers need not be spilled. */
    static constexpr int MIN_BLOCKS = DT > 128                               ? 1
                                      : DT == 64 || (FEW && TYPE == KV_BF16) ? 3
                                                                             : 2;
};

/* A reference this far below the largest score lets f16 weights be up to e^9: those of 2^-27
 * are still not subnormal. */
template <class S> DEVICE constexpr float reference() {
    return S::F16 ? 9.0f : 0.0f;
}

template <class S> DEVICE void team_sync() {
    if constexpr (S::FEW)
        warp_sync();
    else
        block_sync();
}
template <class S> DEVICE int team_thread() {
    return S::FEW ? lane_id() : thread_x();
}

/* Two numbers in a word, of the type that is multiplied, and back. */
template <class S> DEVICE uint32_t pair_of(float lo, float hi) {
    return S::F16 ? reals_f16(lo, hi) : reals_bf16(lo, hi);
}
template <class S> DEVICE float pair_low(uint32_t w) {
    return S::F16 ? f16_real((uint16_t)w) : low_bf16(w);
}
template <class S> DEVICE float pair_high(uint32_t w) {
    return S::F16 ? f16_real((uint16_t)(w >> 16)) : high_bf16(w);
}
/* What two numbers have behind those. */
template <class S> DEVICE uint32_t pair_rest(float lo, float hi, uint32_t w) {
    return pair_of<S>(lo - pair_low<S>(w), hi - pair_high<S>(w));
}
template <class S>
DEVICE void multiply(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
    const uint32_t b[2] = {b0, b1};
    if constexpr (S::F16)
        mma_f16(d, a, b);
    else
        mma_bf16(d, a, b);
}

/* Byte j of q, whose top bits are turned, as a float that has the signed number in its upper
 * half: 2^23 + 128 + x, less that. */
DEVICE uint32_t byte_real(uint32_t q, int j) {
    uint32_t bits = (q >> 8 * j & 255) | 0x4b000000;
    float f;
    memcpy(&f, &bits, 4);
    f -= 8388736.0f;
    memcpy(&bits, &f, 4);
    return bits;
}

/* Pairs of a and b: of their low halves, of their high ones. */
DEVICE void pair_up(uint32_t a, uint32_t b, uint32_t *low, uint32_t *high) {
    *low = (a & 0xffff) | b << 16;
    *high = a >> 16 | (b & 0xffff0000);
}

/* Four words of a B fragment: of four neighbours at p and the four `next` bytes behind, with
 * which they are to be pairs; bf16 is paired already. */
template <class S> DEVICE word4 words_at(const unsigned char *p, int next) {
    word4 w;
    if constexpr (S::TYPE == KV_BF16) {
        w = lds((const word4 *)p);
    } else if constexpr (S::TYPE == KV_F16) {
        uint64_t a = lds((const uint64_t *)p), b = lds((const uint64_t *)(p + next));
        UNROLL
        for (int i = 0; i < 2; i++)
            pair_up((uint32_t)(a >> 32 * i), (uint32_t)(b >> 32 * i), &w.w[2 * i],
                    &w.w[2 * i + 1]);
    } else if constexpr (S::TYPE == KV_FP8) {
        uint32_t a = lds((const uint32_t *)p), b = lds((const uint32_t *)(p + next));
        pair_up(fp8_f16(a), fp8_f16(b), &w.w[0], &w.w[2]);
        pair_up(fp8_f16(a >> 8), fp8_f16(b >> 8), &w.w[1], &w.w[3]);
    } else {
        uint32_t a = lds((const uint32_t *)p) ^ 0x80808080;
        uint32_t b = lds((const uint32_t *)(p + next)) ^ 0x80808080;
        UNROLL
        for (int i = 0; i < 4; i++)
            w.w[i] = byte_real(a, i) >> 16 | (byte_real(b, i) & 0xffff0000);
    }
    return w;
}

/* Asks for the 16 scales behind a head's part. */
template <class S>
DEVICE void stage_scales(const char *part, int D, int bytes, unsigned char *to) {
    if (team_thread<S>() < 4)
        cp_async(to + team_thread<S>() * 16, part + (D + team_thread<S>()) * 16, bytes);
}

/* Asks for the keys of BLOCKS blocks from number `block` of the sequence; those behind the last
 * one that is seen, and the columns behind D, become zeros. */
template <class S>
DEVICE void stage_keys(const att_args &A, const att_tile &t, int block, unsigned char *tile) {
    constexpr int N = S::DT * S::BYTES; /* pieces of 16 bytes */
    int last = (t.limit - 1) / 16, D = A.kv.D;
    UNROLL
    for (int i = 0; i < S::BLOCKS; i++) {
        int bytes = block + i <= last ? 16 : 0;
        const char *part = t.k + (size_t)t.blocks[min_int(block + i, last)] * A.kv.stride;
        UNROLL_SOME
        for (int j = 0; j < N; j += S::TEAM) {
            int x = j + team_thread<S>();
            if (N % S::TEAM == 0 || x < N)
                cp_async(tile + i * S::K_BLOCK + x * 16 + x / (N / 4) * 32, part + x * 16,
                         x < D * S::BYTES ? bytes : 0);
        }
        if constexpr (S::TYPE == KV_I8)
            stage_scales<S>(part, D, bytes, tile + S::SCALES_AT + i * 64);
    }
}

/* The same of values. Their rows have V_COLUMN * DT bytes, in the cache V_COLUMN * D. */
template <class S>
DEVICE void stage_values(const att_args &A, const att_tile &t, int block, unsigned char *tile) {
    constexpr int N = S::DT * S::BYTES, ROW = S::DT * S::V_COLUMN / 16;
    int last = (t.limit - 1) / 16, D = A.kv.D, row = D * S::V_COLUMN / 16;
    UNROLL
    for (int i = 0; i < S::BLOCKS; i++) {
        int bytes = block + i <= last ? 16 : 0;
        const char *part = t.v + (size_t)t.blocks[min_int(block + i, last)] * A.kv.stride;
        UNROLL_SOME
        for (int j = 0; j < N; j += S::TEAM) {
            int x = j + team_thread<S>(), c = x % ROW;
            if (N % S::TEAM == 0 || x < N)
                cp_async(tile + S::V_AT + i * S::V_BLOCK + x * 16 + x / (N / 2) * 32,
                         part + (x / ROW * row + c) * 16, c < row ? bytes : 0);
        }
        if constexpr (S::TYPE == KV_I8)
            stage_scales<S>(part, D, bytes, tile + S::SCALES_AT + S::SCALES + i * 64);
    }
}

/* Values of slots begin .. end - 1 of the tile become zero, as far as it has them: what nobody
 * sees has the weight 0, but may be infinite or NaN. */
template <class S> DEVICE void clear_values(unsigned char *tile, int begin, int end) {
    for (int i = max_int(begin, 0); i < min_int(end, S::KEYS); i++)
        for (int d = team_thread<S>(); d < S::DT * S::BYTES / 2; d += S::TEAM) {
            int at = S::TYPE == KV_BF16 ? i % 8 / 2 * S::DT * 4 + d * 4 + i % 2 * 2
                                        : i % 8 * S::DT * S::BYTES + d * 2;
            sts((uint16_t *)(tile + S::V_AT + i / 8 * S::V_QUARTER + at), (uint16_t)0);
        }
}

/* The values of the tile from `key` have come: those that nobody sees are cleared. Whole blocks
 * behind the last key are zeros already. int8 is finite whatever it is. */
template <class S> DEVICE void values_came(const att_tile &t, int key, unsigned char *tile) {
    team_sync<S>();
    if constexpr (S::TYPE != KV_I8)
        if (key < t.from || key + S::KEYS > t.limit) {
            clear_values<S>(tile, t.from / 16 * 16 - key, t.from - key);
            clear_values<S>(tile, t.limit - key, (t.limit + 15) / 16 * 16 - key);
            team_sync<S>();
        }
}

/* The warp's 16 rows, of which a lane has g and g + 8. */
struct att_rows {
    int from[2], limit[2];
    float slope[2];
    int see_from, see_limit; /* keys that any row sees */
    int all_from, all_limit; /* keys that all rows see */
};

/* row: the first one in the tile. Rows behind the tile's last one are like that one. */
DEVICE att_rows warp_rows(const att_args &A, const att_tile &t, int row) {
    att_rows w;
    UNROLL
    for (int h = 0; h < 2; h++) {
        int r = min_int(row + lane_id() / 4 + 8 * h, t.n - 1);
        w.limit[h] = row_limit(A, t, r);
        w.from[h] = limit_from(A, w.limit[h]);
        w.slope[h] = A.a.slopes ? A.a.slopes[row_head(A, t, r)] : 0;
    }
    w.all_limit = row_limit(A, t, row);
    w.see_from = limit_from(A, w.all_limit);
    w.see_limit = row < t.n ? row_limit(A, t, min_int(row + 15, t.n - 1)) : 0;
    w.all_from = limit_from(A, w.see_limit);
    return w;
}

/* q * scale of 16 rows as fragments, by one warp. at [DT / 16][high, low][32] */
template <class S>
DEVICE void stage_queries(const att_args &A, const att_tile &t, int row, word4 *at) {
    const real4 none = {{0, 0, 0, 0}};
    const float *q[2];
    UNROLL
    for (int h = 0; h < 2; h++)
        q[h] = A.q + row_at(A, t, min_int(row + lane_id() / 4 + 8 * h, t.n - 1));
    for (int i = 0; i < S::DT / 16; i++) {
        int d = lane_id() % 4 * (S::DT / 4) + 4 * i;
        word4 high, low;
        UNROLL
        for (int h = 0; h < 2; h++) {
            real4 x = d < A.kv.D ? *(const real4 *)(q[h] + d) : none;
            UNROLL
            for (int j = 0; j < 4; j += 2) {
                float a = x.v[j] * A.a.scale, b = x.v[j + 1] * A.a.scale;
                high.w[h + j] = pair_of<S>(a, b);
                low.w[h + j] = pair_rest<S>(a, b, high.w[h + j]);
            }
        }
        sts(&at[i * 64 + lane_id()], high);
        sts(&at[i * 64 + 32 + lane_id()], low);
    }
}

/* s = q k of the tile's keys */
template <class S>
DEVICE void multiply_keys(const word4 *q, const unsigned char *tile, float s[S::GROUPS][4][4]) {
    int g = lane_id() / 4;
    const unsigned char *k = tile + g / 4 * S::K_BLOCK + lane_id() % 4 * S::K_QUARTER +
                             g % 4 * (S::TYPE == KV_BF16 ? 16 : 4 * S::BYTES);
    UNROLL
    for (int u = 0; u < S::GROUPS; u++)
        UNROLL
    for (int i = 0; i < 16; i++)
        s[u][i / 4][i % 4] = 0;
    UNROLL_SOME
    for (int i = 0; i < S::DT / 16; i++) {
        word4 high = lds(&q[i * 64 + lane_id()]), low = lds(&q[i * 64 + 32 + lane_id()]);
        UNROLL
        for (int u = 0; u < S::GROUPS; u++) {
            const unsigned char *p = k + u * 2 * S::K_BLOCK + i * 64 * S::BYTES;
            word4 b0 = words_at<S>(p, 16 * S::BYTES);
            word4 b1 = words_at<S>(p + 32 * S::BYTES, 16 * S::BYTES);
            UNROLL
            for (int j = 0; j < 4; j++)
                multiply<S>(s[u][j], high.w, b0.w[j], b1.w[j]);
            UNROLL
            for (int j = 0; j < 4; j++)
                multiply<S>(s[u][j], low.w, b0.w[j], b1.w[j]);
        }
    }
    if constexpr (S::UNIT != 1) {
        UNROLL
        for (int i = 0; i < S::GROUPS * 16; i++)
            s[i / 16][i / 4 % 4][i % 4] *= S::UNIT;
    }
    if constexpr (S::TYPE == KV_I8) {
        const float *scales = (const float *)(tile + S::SCALES_AT) + lane_id() % 4 * 8;
        UNROLL
        for (int u = 0; u < 2 * S::GROUPS; u++) {
            real4 x = lds((const real4 *)&scales[u / 2 * 32 + u % 2 * 4]);
            UNROLL
            for (int j = 0; j < 4; j++) {
                s[u / 2][j][u % 2] *= x.v[j];
                s[u / 2][j][2 + u % 2] *= x.v[j];
            }
        }
    }
}

/* cap, ALiBi and mask; key: the tile's first */
template <class S>
DEVICE void finish_scores(const att_args &A, const att_rows &w, int key,
                          float s[S::GROUPS][4][4]) {
    bool mask = key < w.all_from || key + S::KEYS > w.all_limit;
    key += lane_id() % 4 * 8;
    if (A.a.cap > 0) { /* cap tanh(x), off by 2^-23 cap or so */
        float f = 2 / A.a.cap;
        UNROLL
        for (int i = 0; i < S::GROUPS * 16; i++) {
            float &x = s[i / 16][i / 4 % 4][i % 4];
            x = A.a.cap - 2 * A.a.cap / (expf(x * f) + 1);
        }
    }
    if (A.a.slopes) {
        UNROLL
        for (int i = 0; i < S::GROUPS * 16; i++) {
            int h = i % 4 / 2, pos = key + i / 16 * 32 + i % 2 * 4 + i / 4 % 4;
            s[i / 16][i / 4 % 4][i % 4] +=
                A.a.alibi_scaled ? bf16_real(real_bf16(w.slope[h] * (float)pos)) * A.a.scale
                                 : w.slope[h] * (float)(pos - (w.limit[h] - 1));
        }
    }
    if (mask) {
        UNROLL
        for (int i = 0; i < S::GROUPS * 16; i++) {
            int h = i % 4 / 2, pos = key + i / 16 * 32 + i % 2 * 4 + i / 4 % 4;
            if (pos >= w.limit[h] || pos < w.from[h])
                s[i / 16][i / 4 % 4][i % 4] = -INFINITY;
        }
    }
}

/* What a warp has of its rows; of l a lane has the sum over its own keys. */
template <class S> struct att_state { float m[2], l[2], o[S::DT / 32][4][4]; };

/* Scores become weights, and what there was before is put on the new reference: where one of
 * the warp's rows has one, since the largest score of most rows stands among their first keys.
 */
template <class S> DEVICE void softmax(att_state<S> &st, float s[S::GROUPS][4][4]) {
    float f[2];
    UNROLL
    for (int h = 0; h < 2; h++) {
        float top = -INFINITY;
        UNROLL
        for (int i = 0; i < S::GROUPS * 8; i++)
            top = fmaxf(top, s[i / 8][i / 2 % 4][2 * h + i % 2]);
        top = fmaxf(top, shfl_xor(top, 1));
        top = fmaxf(top, shfl_xor(top, 2));
        top = fmaxf(top - reference<S>(), st.m[h]);
        float ref = top == -INFINITY ? 0 : top;
        f[h] = expf(st.m[h] - ref);
        UNROLL
        for (int i = 0; i < S::GROUPS * 8; i++) {
            float &x = s[i / 8][i / 2 % 4][2 * h + i % 2];
            x = expf(x - ref);
        }
        st.m[h] = top;
        st.l[h] *= f[h];
    }
    if (any_lane(f[0] != 1 || f[1] != 1)) {
        UNROLL
        for (int i = 0; i < S::DT / 2; i++)
            st.o[i / 16][i / 4 % 4][i % 4] *= f[i % 4 / 2];
    }
}

/* Weights of 32 keys as fragments of two products, and l += weights. scales: of the lane's
 * eight values, with int8. */
template <class S>
DEVICE void weight_pairs(const float p[4][4], const float *scales, float l[2],
                         uint32_t high[2][4], uint32_t low[2][4]) {
    UNROLL
    for (int i = 0; i < 8; i++) {
        int e = i / 4, h = i % 2, j = i / 2 % 2 * 2; /* keys 4e + j, 4e + j + 1 of row h */
        float a = p[j][e + 2 * h], b = p[j + 1][e + 2 * h];
        if constexpr (S::FEW || S::TYPE == KV_I8)
            l[h] += a + b;
        if constexpr (S::TYPE == KV_I8) {
            a = a == 0 ? 0 : a * scales[4 * e + j];
            b = b == 0 ? 0 : b * scales[4 * e + j + 1];
        }
        uint32_t w = pair_of<S>(a, b);
        high[e][h + j] = w;
        if constexpr (S::FEW)
            low[e][h + j] = pair_rest<S>(a, b, w);
        else if constexpr (S::TYPE != KV_I8)
            l[h] += pair_low<S>(w) + pair_high<S>(w);
    }
}

/* o += p V of the tile's keys */
template <class S>
DEVICE void multiply_values(const unsigned char *tile, const float p[S::GROUPS][4][4],
                            att_state<S> &st) {
    int g = lane_id() / 4, t = lane_id() % 4;
    const unsigned char *v = tile + S::V_AT + t * S::V_QUARTER + g * 4 * S::V_COLUMN;
    const float *at = (const float *)(tile + S::SCALES_AT + S::SCALES) + t * 8;
    UNROLL
    for (int u = 0; u < S::GROUPS; u++) {
        uint32_t high[2][4], low[2][4];
        real4 scales[2] = {};
        if constexpr (S::TYPE == KV_I8) {
            scales[0] = lds((const real4 *)&at[u * 32]);
            scales[1] = lds((const real4 *)&at[u * 32 + 4]);
        }
        weight_pairs<S>(p[u], scales[0].v, st.l, high, low);
        UNROLL
        for (int c = 0; c < S::DT / 32; c++)
            UNROLL
        for (int e = 0; e < 2; e++) {
            const unsigned char *from =
                v + u * 2 * S::V_BLOCK + e * 4 * S::DT * S::BYTES + c * 32 * S::V_COLUMN;
            word4 b0 = words_at<S>(from, S::DT * S::BYTES);
            word4 b1 = words_at<S>(from + 2 * S::DT * S::BYTES, S::DT * S::BYTES);
            UNROLL
            for (int j = 0; j < 4; j++)
                multiply<S>(st.o[c][j], high[e], b0.w[j], b1.w[j]);
            if constexpr (S::FEW) {
                UNROLL
                for (int j = 0; j < 4; j++)
                    multiply<S>(st.o[c][j], low[e], b0.w[j], b1.w[j]);
            }
        }
    }
}

/* The first tile of keys and of values is on its way. */
template <class S>
DEVICE void ask_first(const att_args &A, const att_tile &t, int begin, int end,
                      unsigned char *tile) {
    int block = t.from / 16 + begin * S::BLOCKS;
    if (begin < end)
        stage_keys<S>(A, t, block, tile);
    cp_async_commit();
    if (begin < end)
        stage_values<S>(A, t, block, tile);
    cp_async_commit();
}

/* Tiles of keys begin, begin + step, .. of the tile's, the first asked for already. While the
 * keys of one are multiplied its values are on their way, and the next one's keys while its
 * values are.
 */
template <class S>
DEVICE void walk_keys(const att_args &A, const att_tile &t, const att_rows &w, int begin,
                      int end, int step, unsigned char *tile, const word4 *q,
                      att_state<S> &st) {
    int first = t.from / 16;
    for (int i = begin; i < end; i += step) {
        int key = (first + i * S::BLOCKS) * 16, next = first + (i + step) * S::BLOCKS;
        bool sees = key < w.see_limit && key + S::KEYS > w.see_from;
        float s[S::GROUPS][4][4];
        cp_async_wait<1>();
        team_sync<S>();
        if (sees)
            multiply_keys<S>(q, tile, s);
        team_sync<S>();
        if (i + step < end)
            stage_keys<S>(A, t, next, tile);
        cp_async_commit();
        if (sees) {
            finish_scores<S>(A, w, key, s);
            softmax<S>(st, s);
        }
        cp_async_wait<1>();
        values_came<S>(t, key, tile);
        if (sees)
            multiply_values<S>(tile, s, st);
        team_sync<S>();
        if (i + step < end)
            stage_values<S>(A, t, next, tile);
        cp_async_commit();
    }
}

/* What a warp has of its 16 rows, for merge_warps(): ml [WARPS, 16, 2], o [WARPS, 16, O_LD] */
template <class S> DEVICE void leave_rows(const att_state<S> &st, float *ml, float *o) {
    UNROLL
    for (int h = 0; h < 2; h++) {
        int row = warp_id() * 16 + lane_id() / 4 + 8 * h;
        if (lane_id() % 4 == 0) {
            sts(&ml[row * 2], st.m[h]);
            sts(&ml[row * 2 + 1], st.l[h]);
        }
        UNROLL
        for (int i = 0; i < S::DT / 16; i++) {
            int c = i / 2, e = 2 * h + i % 2;
            const real4 x = {{st.o[c][0][e], st.o[c][1][e], st.o[c][2][e], st.o[c][3][e]}};
            sts((real4 *)&o[row * S::O_LD + c * 32 + lane_id() % 4 * 8 + i % 2 * 4], x);
        }
    }
}

/* The warp's rows, from `row` of the tile on, to out. */
template <class S>
DEVICE void store_rows(const att_args &A, const att_tile &t, int row, const att_state<S> &st) {
    UNROLL
    for (int h = 0; h < 2; h++) {
        int r = row + lane_id() / 4 + 8 * h;
        if (r >= t.n)
            continue;
        float inv = row_inverse(A.a, row_head(A, t, r), st.m[h], st.l[h]);
        float *out = A.out + row_at(A, t, r);
        UNROLL
        for (int i = 0; i < S::DT / 16; i++) {
            int c = i / 2, e = 2 * h + i % 2, d = c * 32 + lane_id() % 4 * 8 + i % 2 * 4;
            const real4 x = {{st.o[c][0][e] * inv, st.o[c][1][e] * inv, st.o[c][2][e] * inv,
                              st.o[c][3][e] * inv}};
            if (d < A.kv.D)
                *(real4 *)(out + d) = x;
        }
    }
}

template <class S> KERNEL void BOUNDS(S::WARPS * 32, S::MIN_BLOCKS) tensor_kernel(att_args A) {
    wait_for_others();
    SHARED(shared);
    att_tile t = block_tile(A, S::ROWS);
    int row = S::FEW ? 0 : warp_id() * 16, begin, end;
    word4 *q = (word4 *)(shared + S::TILES + (S::FEW ? 0 : warp_id() * S::WARP_Q));
    att_state<S> st = {};
    if (t.n <= 0)
        return;
    part_share(A, ((t.limit + 15) / 16 - t.from / 16 + S::BLOCKS - 1) / S::BLOCKS, &begin,
               &end);
    begin += S::FEW ? warp_id() : 0;
    unsigned char *tile = shared + (S::FEW ? warp_id() * S::TILE : 0);
    ask_first<S>(A, t, begin, end, tile);
    if (!S::FEW || warp_id() == 0)
        stage_queries<S>(A, t, row, q);
    st.m[0] = st.m[1] = -INFINITY;
    block_sync();
    att_rows w = warp_rows(A, t, row);
    walk_keys<S>(A, t, w, begin, end, S::FEW ? S::WARPS : 1, tile, q, st);
    cp_async_wait<0>();
    UNROLL
    for (int h = 0; h < 2; h++) {
        st.l[h] += shfl_xor(st.l[h], 1);
        st.l[h] += shfl_xor(st.l[h], 2);
    }
    if constexpr (S::UNIT != 1) {
        UNROLL
        for (int i = 0; i < S::DT / 2; i++)
            st.o[i / 16][i / 4 % 4][i % 4] *= S::UNIT;
    }
    if constexpr (S::FEW) {
        float *o = (float *)shared, *ml = o + S::WARPS * 16 * S::O_LD;
        block_sync();
        leave_rows<S>(st, ml, o);
        block_sync();
        merge_warps<S::WARPS>(A, t, ml, o, 16, S::O_LD);
    } else {
        store_rows<S>(A, t, row, st);
    }
}

#endif
