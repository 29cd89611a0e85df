/*
 * test_cuda.c - every operation of the CUDA backend beside the scalar reference, on the host
 * shim or on a device; attention is in test_attention.c, whole models in test_graph.c.
 *
 * Bounds of products, with A = sum of (|t s| + 2 |m|) |x| over the inputs, eps = 2^-24:
 *   f32 sums       (K + 8) eps A, in any order; two roundings a weight; 1e-6 A where scales are
 *                  double-quantised (a fused step or not)
 *   4 bits, few    with groups of 16 or minimums the table's values in f16: 2^-11 of each, or
 *                  2^-25 of the table's unit. Else on tensor cores with the table in bf16 (2^-8
 *                  of a value that is no integer) and activations in two parts (2^-16)
 *   tensor cores   activations are rounded to bf16, 2^-8 of each, and so are weights that are
 *                  not bf16 already; with f16 weights activations to f16, 2^-11 of each and at
 *                  least 2^-25
 *   int8 digits    activations are off by half a step of their group: its largest / 127, or
 *                  254 times less where that is above twice the mean of the row's largest ones
 * Of the other operations: as in test_ops.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "act_f64.h"
#include "cuda_device.h"
#include "engine/cpu/cpu.h"
#include "engine/cuda/gpu.h"
#include "weight_kinds.h"
#include <math.h>

#define EPS 0x1p-24

enum { MAX_T = 300, MAX_K = 2304, GUARD = 5 };
#define MAX_CONFLICT                                                                           \
    2.5 /* passes of an access to shared memory, on average; by random codes                   \
         */
static const float guard = 12345.0f;

/* The device, and the reference. */
static struct backend *dev, *ref;

static int open_both(void **state) {
    (void)state;
    struct err err = {0};
    struct backend_limits lim = {MAX_T, MAX_K, 8, 8, 128, true};
    if (!cuda_is_here())
        return 0;
    dev = cuda_open();
    assert_non_null(dev);
    assert_int_equal(cpu_backend_new(&cpu_scalar, 1, &ref, &err), ST_OK);
    assert_int_equal(dev->reserve(dev, &lim, &err), ST_OK);
    return ref->reserve(ref, &lim, &err) == ST_OK ? 0 : -1;
}

static int close_both(void **state) {
    (void)state;
    if (dev)
        dev->close(dev);
    if (ref)
        ref->close(ref);
    return 0;
}

static void finish(void) {
    struct err err = {0};
    if (dev->finish(dev, &err) != ST_OK)
        fail_msg("%s", err.msg);
}

/* The same matrix [T, K] for both: random numbers, or zeros with scale 0. */
struct pair {
    float *dev, *ref;
    size_t n;
};

static struct pair matrix(int T, int K, float scale) {
    size_t ld = (size_t)weight_pad_k(K);
    struct pair p = {.n = (size_t)T * ld};
    p.ref = ref->alloc(ref, p.n * sizeof(float));
    p.dev = dev->alloc(dev, p.n * sizeof(float));
    for (int t = 0; t < T; t++)
        rand_fill(p.ref + (size_t)t * ld, (size_t)K, scale);
    dev->upload(dev, p.dev, p.ref, p.n * sizeof(float));
    return p;
}

static void release(struct pair p) {
    dev->free(dev, p.dev);
    ref->free(ref, p.ref);
}

/* Both are the same to rel of a number and `off`, padding included. */
static void same(const char *what, struct pair p, double rel, double off) {
    float *got = xcalloc(p.n, sizeof *got);
    dev->download(dev, got, p.dev, p.n * sizeof *got);
    finish();
    for (size_t i = 0; i < p.n; i++) {
        double want = (double)p.ref[i];
        if (!(fabs((double)got[i] - want) <= rel * fabs(want) + off))
            fail_msg("%s [%zu]: %.9g, want %.9g", what, i, (double)got[i], want);
    }
    free(got);
}

/* ---- rows ---- */

static const int sizes[] = {1, 2, 6, 31, 64, 65, 200, 577};
enum { N_SIZE = sizeof sizes / sizeof *sizes };

static void embedding_gives_the_rows_of_every_kind_of_weight(void **state) {
    (void)state;
    static const int32_t rows[] = {3, 0, 39, 17, 3};
    for (int i = 0; i < N_KIND; i++) {
        struct weight w, bound;
        struct err err = {0};
        struct pair x = matrix(5, 70, 0);
        weight_make(&w, &kinds[i], 40, 70);
        assert_int_equal(dev->bind(dev, &w, &bound, &err), ST_OK);
        dev->embed(dev, &bound, rows, 5, x.dev);
        ref->embed(ref, &w, rows, 5, x.ref);
        same(kinds[i].name, x, 4 * EPS, 1e-7);
        weight_pack_release(&w);
        release(x);
    }
}

static const float *bound_floats(const float *x, int n) {
    const void *p = NULL;
    struct err err = {0};
    assert_int_equal(dev->bind_data(dev, x, (size_t)n * sizeof *x, &p, &err), ST_OK);
    return p;
}

static void norms_are_those_of_the_reference(void **state) {
    (void)state;
    float g[MAX_K], b[MAX_K];
    rand_fill(g, MAX_K, 1);
    rand_fill(b, MAX_K, 1);
    const float *dg = bound_floats(g, MAX_K), *db = bound_floats(b, MAX_K);
    for (int s = 1; s < N_SIZE; s++)
        for (int c = 0; c < 8; c++) {
            int H = c & 1 && sizes[s] <= 200 ? 5 : 1, D = sizes[s];
            enum norm_kind kind = c & 2 ? NORM_LAYER : NORM_RMS;
            struct norm_op op = {kind, 1e-5f, g, c & 4 ? b : NULL, H, D, (c & 5) == 5};
            struct norm_op on_dev = op;
            struct pair x = matrix(7, H * D, 3), y = matrix(7, H * D, 0);
            on_dev.g = dg;
            on_dev.b = op.b ? db : NULL;
            ref->norm(ref, &op, x.ref, 7, y.ref);
            dev->norm(dev, &on_dev, x.dev, 7, y.dev);
            same("norm", y, 2 * (D + 8) * EPS, kind == NORM_LAYER ? 80 * (D + 8) * EPS : 1e-6);
            dev->norm(dev, &on_dev, x.dev, 7, x.dev); /* in place: the same bits */
            float *in_place = xcalloc(x.n, 4), *apart = xcalloc(x.n, 4);
            dev->download(dev, in_place, x.dev, x.n * 4);
            dev->download(dev, apart, y.dev, x.n * 4);
            finish();
            assert_memory_equal(in_place, apart, x.n * 4);
            free(in_place);
            free(apart);
            release(x);
            release(y);
        }
}

/* As test_ops.c derives them. */
static void activations_are_those_of_the_reference(void **state) {
    (void)state;
    for (int kind = ACT_SILU; kind <= ACT_GPT_OSS; kind++)
        for (int gated = 0; gated < 2; gated++) {
            struct pair g = matrix(9, 577, 4), u = matrix(9, 577, 9), y = matrix(9, 577, 0);
            dev->act(dev, (enum act_kind)kind, g.dev, gated ? u.dev : NULL, 9, 577, y.dev);
            for (size_t i = 0; i < y.n; i++) {
                double w = gated ? up_f64((enum act_kind)kind, (double)u.ref[i]) : 1;
                y.ref[i] = i % 640 < 577
                               ? (float)(act_f64((enum act_kind)kind, (double)g.ref[i]) * w)
                               : 0;
            }
            bool gelu = kind == ACT_GELU_TANH || kind == ACT_GELU_ERF;
            same("act", y, kind == ACT_GPT_OSS ? 4e-6 : 5e-7, gelu ? 5e-7 * 200 : 1e-37);
            release(g);
            release(u);
            release(y);
        }
}

static void rows_are_permuted_selected_and_scattered(void **state) {
    (void)state;
    static const int32_t rows[] = {0, 1, 4, 5, 9, 12, 13, 20, 22};
    float a[9];
    int32_t perm[200];
    const void *dev_perm = NULL;
    struct err err = {0};
    rand_fill(a, 9, 1);
    for (int k = 0; k < 200; k++)
        perm[k] = k * 3 % 200;
    assert_int_equal(dev->bind_data(dev, perm, sizeof perm, &dev_perm, &err), ST_OK);
    struct pair x = matrix(23, 200, 1), y = matrix(23, 200, 0), z = matrix(23, 200, 1);
    dev->permute(dev, x.dev, dev_perm, 23, 200, y.dev);
    ref->permute(ref, x.ref, perm, 23, 200, y.ref);
    same("permute", y, 0, 0);
    for (int again = 0; again < 400; again++) { /* more than a stage holds */
        dev->scatter(dev, x.dev, rows, a, 9, 200, z.dev);
        ref->scatter(ref, x.ref, rows, a, 9, 200, z.ref);
    }
    same("scatter", z, 400 * 2 * EPS, 400 * 400 * EPS);
    dev->add(dev, 0.3f, x.dev, 23, 200, y.dev);
    ref->add(ref, 0.3f, x.ref, 23, 200, y.ref);
    same("add", y, 0, 6 * EPS);
    dev->scale(dev, -1.5f, 0, y.dev, 256, 23, 200);
    ref->scale(ref, -1.5f, 0, y.ref, 256, 23, 200);
    same("scale", y, 4 * EPS, 12 * EPS);
    dev->scale(dev, 3, 5, y.dev, 256, 23, 200);
    ref->scale(ref, 3, 5, y.ref, 256, 23, 200);
    same("cap", y, 1e-6, 40 * EPS);
    dev->select(dev, x.dev, rows, 9, 200, x.dev);
    ref->select(ref, x.ref, rows, 9, 200, x.ref);
    x.n = 9 * 256;
    same("select", x, 0, 0);
    y.ref[0] = NAN;
    dev->upload(dev, y.dev, y.ref, 4);
    dev->scale(dev, 0, 0, y.dev, 256, 23, 200);
    memset(y.ref, 0, y.n * 4);
    same("zeros", y, 0, 0);
    release(x);
    release(y);
    release(z);
}

/* ---- keys and values ---- */

/* A number's place among those of fp8, from 0. */
static int fp8_place(char code) {
    return code & 0x80 ? -(code & 0x7f) : code;
}

/* Two sequences in one step: RoPE by both tables, the cache, and keys that move. */
static void rope_and_the_cache_are_those_of_the_reference(void **state) {
    (void)state;
    enum { T = 20, HKV = 3, D = 34, DIM = 22, BLOCKS = 6 };
    static const enum kv_type types[] = {KV_F32, KV_F16, KV_BF16, KV_I8, KV_FP8};
    static const int32_t a[] = {4, 1}, b[] = {3, 0, 5}, moved[] = {4, 5};
    const struct step_seq seqs[] = {{0, 13, 9, a}, {13, 7, 30, b}};
    float angles[4][T * DIM], turn[2][2 * DIM * 16];
    for (int i = 0; i < 4; i++)
        rand_fill(angles[i], T * DIM, 1);
    rand_fill(turn[0], 2 * (size_t)DIM * 16 * 2, 1);
    const struct step s = {.T = T,
                           .rope = {{angles[0], angles[1]}, {angles[2], angles[3]}},
                           .rope_dim = DIM,
                           .seqs = seqs,
                           .n_seq = 2};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        struct pair q = matrix(T, 7 * D, 1), k = matrix(T, HKV * D, 1),
                    v = matrix(T, HKV * D, 1);
        size_t part = HKV * kv_head_bytes(types[t], D), bytes = BLOCKS * 2 * part;
        struct kv_layer kd = {NULL, NULL, 2 * part, types[t], HKV, D}, kr = kd;
        char *got = xmalloc(bytes);
        struct err err = {0};
        kd.k = dev->alloc(dev, bytes);
        kr.k = ref->alloc(ref, bytes);
        kd.v = (char *)kd.k + part;
        kr.v = (char *)kr.k + part;
        dev->begin(dev, &s);
        ref->begin(ref, &s);
        for (int i = 0; i < 2; i++) {
            dev->rope(dev, i, q.dev, 7, D);
            ref->rope(ref, i, q.ref, 7, D);
        }
        same("rope", q, 8 * EPS, 40 * EPS);
        dev->upload(dev, q.dev, q.ref, q.n * 4);
        dev->kv_write(dev, &kd, k.dev, v.dev);
        ref->kv_write(ref, &kr, k.ref, v.ref);
        dev->download(dev, got, kd.k, bytes);
        assert_memory_equal(got, kr.k, bytes);
        /* both at once: as one after the other */
        dev->rope_kv(dev, 0, &kd, 7, q.dev, k.dev, v.dev);
        ref->rope(ref, 0, q.ref, 7, D);
        same("rope of q beside k", q, 8 * EPS, 40 * EPS);
        dev->download(dev, k.ref, k.dev, k.n * 4);
        ref->kv_write(ref, &kr, k.ref, v.ref);
        dev->download(dev, got, kd.k, bytes);
        assert_memory_equal(got, kr.k, bytes);
        finish();
        ref->finish(ref, &err);
        /* turned by anything at all: rounding may differ by a step of the type */
        dev->kv_turn(dev, &kd, moved, 2, turn[0], turn[1], DIM);
        ref->kv_turn(ref, &kr, moved, 2, turn[0], turn[1], DIM);
        dev->download(dev, got, kd.k, bytes);
        finish();
        bool half = types[t] == KV_F16 || types[t] == KV_BF16;
        for (size_t i = 0; i < bytes / 4 && types[t] == KV_F32; i++)
            assert_true(fabs((double)((float *)(void *)got)[i] - (double)((float *)kr.k)[i]) <=
                        2e-6 * 8);
        for (size_t i = 0; i < bytes / 2 && half; i++) {
            uint16_t x = ((uint16_t *)(void *)got)[i], y = ((uint16_t *)kr.k)[i];
            assert_true(x - y <= 1 && y - x <= 1);
        }
        for (size_t i = 0; i < bytes && types[t] == KV_I8; i++)
            if (i % kv_head_bytes(types[t], D) < 16 * D)
                assert_true(abs(got[i] - ((signed char *)kr.k)[i]) <= 1);
        for (size_t i = 0; i < bytes && types[t] == KV_FP8; i++)
            assert_true(abs(fp8_place(got[i]) - fp8_place(((char *)kr.k)[i])) <= 1);
        dev->free(dev, kd.k);
        ref->free(ref, kr.k);
        free(got);
        release(q);
        release(k);
        release(v);
    }
}

/* Wherever it stands in a key or value, the scale of the int8 cache is none either. */
static void a_key_that_is_no_number_has_no_scale(void **state) {
    (void)state;
    enum { D = 34, PART = 16 * D + 16 * 4 };
    static const int32_t block[] = {0};
    static const int at[] = {0, 3, 31, 32, 33};
    const struct step_seq seq = {0, 1, 0, block};
    const struct step s = {.T = 1, .seqs = &seq, .n_seq = 1};
    assert_int_equal(kv_head_bytes(KV_I8, D), PART);
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        struct pair k = matrix(1, D, 1), v = matrix(1, D, 1);
        struct kv_layer kv = {NULL, NULL, 2 * PART, KV_I8, 1, D};
        char got[2 * PART];
        float scale[2];
        k.ref[at[i]] = v.ref[at[i]] = NAN;
        dev->upload(dev, k.dev, k.ref, k.n * 4);
        dev->upload(dev, v.dev, v.ref, v.n * 4);
        kv.k = dev->alloc(dev, sizeof got);
        kv.v = (char *)kv.k + PART;
        dev->begin(dev, &s);
        dev->kv_write(dev, &kv, k.dev, v.dev);
        dev->download(dev, got, kv.k, sizeof got);
        finish();
        memcpy(&scale[0], got + 16 * D, 4);
        memcpy(&scale[1], got + PART + 16 * D, 4);
        assert_true(isnan(scale[0]) && isnan(scale[1]));
        dev->free(dev, kv.k);
        release(k);
        release(v);
    }
}

/* ---- products ---- */

static double far(const struct weight *w, const struct kind *kind, int n, const float *row,
                  const float *x, int T) {
    bool q4 = w->type == WEIGHT_Q4, tensor = T > GPU_GEMV_TOK && w->type != WEIGHT_F32;
    double A = 0, units = 0, top = 1;
    for (int i = 0; i < 16 && q4; i++)
        top = fmax(top, 2 * fabs((double)w->table[i]));
    for (int k = 0; k < w->K; k++) {
        double ax = fabs((double)x[k]),
               s = fabs((double)weight_group_scale(w, n, k / w->group));
        double m = fabs((double)weight_group_min(w, n, k / w->group));
        A += (fabs((double)row[k]) + 2 * m) * ax;
        units += q4 ? 0x1p-25 * top * s * ax : 0;
        units += tensor && w->type == WEIGHT_F16 ? 0x1p-25 * fabs((double)row[k]) : 0;
    }
    bool fused = q4 && !w->min && w->group >= 32 && T <= GPU_GEMV_TOK;
    double table = kind->half_step > 0 ? 0x1p-8 : 0x1p-22;
    double rounding = fused                    ? table + 0x1p-16
                      : !tensor                ? (q4 ? 0x1p-11 : 0)
                      : w->type == WEIGHT_F16  ? 0x1p-11
                      : w->type == WEIGHT_BF16 ? 0x1p-8
                                               : 0x1.01p-7;
    return ((w->K + 8) * EPS + rounding + (kind->how != BY_SCALE ? 1e-6 : 0)) * A + units;
}

static void check_product(const struct kind *kind, int N, int K, int T) {
    struct weight w, bound;
    struct err err = {0};
    size_t ldy = (size_t)N + GUARD, n_y = (size_t)T * ldy, ldx = (size_t)weight_pad_k(K);
    struct pair x = matrix(T, K, 1);
    float *y = xcalloc(n_y, sizeof *y), *sum = xcalloc(n_y, sizeof *y), bias[MAX_K];
    float *row = xcalloc((size_t)K, sizeof *row), *dy = dev->alloc(dev, n_y * sizeof *y);
    rand_fill(bias, MAX_K, 1);
    for (size_t i = 0; i < n_y; i++)
        y[i] = guard;
    dev->upload(dev, dy, y, n_y * sizeof *y);
    weight_make(&w, kind, N, K);
    assert_int_equal(dev->bind(dev, &w, &bound, &err), ST_OK);
    struct matmul_out out = {&bound, dy, ldy, bound_floats(bias, N)};
    dev->matmul(dev, x.dev, T, K, &out, 1);
    dev->download(dev, y, dy, n_y * sizeof *y);
    dev->matmul_add(dev, x.dev, T, K, &out);
    dev->download(dev, sum, dy, n_y * sizeof *y);
    finish();
    for (int n = 0; n < N; n++) {
        weight_unpack_row(&w, n, row);
        for (int t = 0; t < T; t++) {
            double want = 0, off = far(&w, kind, n, row, x.ref + (size_t)t * ldx, T);
            size_t at = (size_t)t * ldy + (size_t)n;
            for (int k = 0; k < K; k++)
                want += (double)row[k] * (double)x.ref[(size_t)t * ldx + (size_t)k];
            want += (double)bias[n];
            if (!(fabs((double)y[at] - want) <= off + 1e-6))
                fail_msg("%s, %d tokens, [%d, %d]: y[%d, %d] = %g, want %g +- %g", kind->name,
                         T, N, K, t, n, (double)y[at], want, off);
            if (!(fabs((double)sum[at] - 2 * want) <= 2 * off + 2e-6))
                fail_msg("%s, %d tokens, [%d, %d]: y[%d, %d] += %g, want %g", kind->name, T, N,
                         K, t, n, (double)sum[at], 2 * want);
        }
    }
    for (size_t i = 0; i < n_y; i++)
        assert_true(i % ldy < (size_t)N || (y[i] == guard && sum[i] == guard));
    dev->free(dev, dy);
    weight_pack_release(&w);
    release(x);
    free(y);
    free(sum);
    free(row);
}

static void products_with_every_kind_of_weight(void **state) {
    (void)state;
    static const int shapes[][2] = {{1, 1}, {17, 72}, {100, 200}};
    static const int tokens[] = {1, 2, 3, 4, 5, 9, 31, 130};
    for (int i = 0; i < N_KIND; i++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++)
                check_product(&kinds[i], shapes[s][0], shapes[s][1], tokens[t]);
}

/* Slabs of inputs, blocks that share them, several tiles and groups of tokens (q4gemm.cu), as
 * on cards with more and with less shared memory. */
static void products_of_long_rows(void **state) {
    (void)state;
    static const int cases[][3] = {/* N, K, T */ {60, 2300, 5},
                                   {130, 2300, 16},
                                   {300, 1100, 33},
                                   {40, 2112, 64},
                                   {700, 1024, 20}};
    static const char *const bytes[] = {"232448", "166912", "101376"};
    struct backend *usual = dev;
    for (int b = 0; b < 3; b += SLOWLY ? 2 : 1) {
        struct err err = {0};
        struct backend_limits lim = {MAX_T, MAX_K, 8, 8, 128, false};
        setenv("LLMCHAT_SHIM_BLOCK_BYTES", bytes[b], 1);
        dev = cuda_open();
        unsetenv("LLMCHAT_SHIM_BLOCK_BYTES");
        assert_non_null(dev);
        assert_int_equal(dev->reserve(dev, &lim, &err), ST_OK);
        for (int i = 4; i < 7; i++)
            for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
                check_product(&kinds[i], cases[c][0], cases[c][1], cases[c][2]);
        for (int i = 1; b > 0 && i < N_KIND; i += i < 3 ? 1 : SLOWLY ? 5 : 2) { /* gemm.cu */
            check_product(&kinds[i], 200, 300, 33);
            check_product(&kinds[i], 40, 520, 16);
        }
        dev->close(dev);
    }
    dev = usual;
}

static void products_in_larger_shapes(void **state) {
    (void)state;
    static const int cases[][3] = {/* N, K, T */ {300, 1000, 1},
                                   {48, 577, 4},
                                   {256, 640, 8},
                                   {90, 1024, 64},
                                   {33, 512, 128},
                                   {40, 320, 129}};
    for (int i = 3; i < 8; i++) /* int8, nf4, fp4 by code, i8 with and without minimums */
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
            check_product(&kinds[i], cases[c][0], cases[c][1], cases[c][2]);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        check_product(&kinds[N_KIND - 1], cases[c][0], cases[c][1], cases[c][2]);
}

/* The bits of a token are the same alone and beside others, up to four. */
/* A row alone, and twice among others: the norm and the product have the same bits. */
static void check_norm_bits(int K, int T) {
    enum { N = 32, LD = 64 };
    struct weight w, bound;
    struct err err = {0};
    struct pair one = matrix(1, K, 1), x = matrix(T, K, 1), xn = matrix(T, K, 0);
    struct pair y = matrix(T, N, 0), z = matrix(1, N, 0);
    const size_t row = (size_t)weight_pad_k(K) * sizeof(float);
    float *gain = xcalloc((size_t)K, sizeof *gain), got[4 * LD], alone[LD];
    rand_fill(gain, K, 1);
    const struct norm_op op = {
        .kind = NORM_RMS, .eps = 1e-5f, .g = bound_floats(gain, K), .H = 1, .D = K};
    weight_make(&w, &kinds[4], N, K);
    assert_int_equal(dev->bind(dev, &w, &bound, &err), ST_OK);
    dev->copy(dev, x.dev, one.dev, row);
    dev->copy(dev, x.dev + (size_t)(T - 1) * row / sizeof(float), one.dev, row);
    const struct matmul_out many = {&bound, y.dev, LD, NULL},
                            single = {&bound, z.dev, LD, NULL};
    dev->norm_matmul(dev, &op, x.dev, T, K, xn.dev, &many, 1);
    dev->norm_matmul(dev, &op, one.dev, 1, K, xn.dev, &single, 1);
    dev->download(dev, got, y.dev, (size_t)T * LD * sizeof(float));
    dev->download(dev, alone, z.dev, sizeof alone);
    finish();
    assert_memory_equal(got, alone, N * sizeof(float));
    assert_memory_equal(got + (T - 1) * LD, alone, N * sizeof(float));
    weight_pack_release(&w);
    release(one);
    release(x);
    release(xn);
    release(y);
    release(z);
    free(gain);
}

static void few_normalised_tokens_have_the_bits_of_one(void **state) {
    (void)state;
    static const int inputs[] = {300, 1024, 2304};
    for (int i = 0; i < 3; i++)
        for (int T = 2; T <= 4; T++)
            for (int again = 0; again < (SLOWLY ? 1 : 3); again++)
                check_norm_bits(inputs[i], T);
}

/* What a feed-forward left in the memory that select() uses does not come along: rows keep
 * zeros behind their columns, which a norm may add up. */
static void selected_rows_end_in_zeros(void **state) {
    (void)state;
    enum { T = 23, K = 200, F = 500, KP = 256 };
    static const int32_t rows[] = {1, 7, 22};
    struct weight w[2], bound[2];
    struct err err = {0};
    struct pair x = matrix(T, K, 1), h = matrix(T, F, 0);
    float got[3 * KP];
    for (int o = 0; o < 2; o++) {
        weight_make(&w[o], &kinds[4], F, K);
        assert_int_equal(dev->bind(dev, &w[o], &bound[o], &err), ST_OK);
    }
    const struct linear gate = {.w = bound[0]}, up = {.w = bound[1]};
    dev->ffn(dev, ACT_SILU, x.dev, T, K, &gate, &up, h.dev);
    dev->select(dev, x.dev, rows, 3, K, x.dev);
    dev->download(dev, got, x.dev, sizeof got);
    finish();
    for (int i = 0; i < 3 * KP; i++)
        assert_true(got[i] == (i % KP < K ? x.ref[rows[i / KP] * KP + i % KP] : 0));
    for (int o = 0; o < 2; o++)
        weight_pack_release(&w[o]);
    release(x);
    release(h);
}

static void few_tokens_have_the_bits_of_one(void **state) {
    (void)state;
    for (int i = 0; i < N_KIND; i++) {
        enum { N = 60, K = 300, LD = 64 };
        struct weight w, bound;
        struct err err = {0};
        struct pair x = matrix(4, K, 1), y = matrix(4, N, 0), z = matrix(4, N, 0);
        float got[2][4 * LD];
        weight_make(&w, &kinds[i], N, K);
        assert_int_equal(dev->bind(dev, &w, &bound, &err), ST_OK);
        dev->matmul(dev, x.dev, 4, K, &(struct matmul_out){&bound, y.dev, LD, NULL}, 1);
        for (int t = 0; t < 4; t++)
            dev->matmul(dev, x.dev + (size_t)t * 320, 1, K,
                        &(struct matmul_out){&bound, z.dev + t * LD, LD, NULL}, 1);
        dev->download(dev, got[0], y.dev, sizeof got[0]);
        dev->download(dev, got[1], z.dev, sizeof got[1]);
        finish();
        assert_memory_equal(got[0], got[1], sizeof got[0]);
        weight_pack_release(&w);
        release(x);
        release(y);
        release(z);
    }
}

/* Four outputs at once, and a feed-forward, are what their parts are; so are kinds that have no
 * kernel of their own for it. */
/* The norm is part of the product, or comes before it: as a whole it is norm(x) w^T + bias. */
static void check_norm_product(const struct kind *kind, int T, int K) {
    enum { N = 60, LD = 64 };
    struct weight w, bound;
    struct err err = {0};
    struct pair x = matrix(T, K, 3), y = matrix(T, N, 0), xn = matrix(T, K, 0);
    const size_t ldx = (size_t)weight_pad_k(K);
    float *row = xcalloc((size_t)K, sizeof *row), *gain = xcalloc((size_t)K, sizeof *gain);
    float *normed = xcalloc((size_t)K, sizeof *normed), *got = xcalloc(y.n, sizeof *got);
    rand_fill(gain, K, 2);
    const struct norm_op op = {
        .kind = NORM_RMS, .eps = 1e-5f, .g = bound_floats(gain, K), .H = 1, .D = K};
    weight_make(&w, kind, N, K);
    assert_int_equal(dev->bind(dev, &w, &bound, &err), ST_OK);
    const struct matmul_out out = {&bound, y.dev, LD, bound_floats(gain, N)};
    dev->norm_matmul(dev, &op, x.dev, T, K, xn.dev, &out, 1);
    dev->download(dev, got, y.dev, y.n * sizeof *got);
    finish();
    for (int t = 0; t < T; t++) {
        const float *in = x.ref + (size_t)t * ldx;
        double squares = 0;
        for (int k = 0; k < K; k++)
            squares += (double)in[k] * (double)in[k];
        double scale = 1 / sqrt(squares / K + 1e-5);
        for (int k = 0; k < K; k++)
            normed[k] = (float)((double)in[k] * scale * (double)gain[k]);
        for (int n = 0; n < N; n++) {
            weight_unpack_row(&w, n, row);
            /* f32's roundings of the scale and of each input are in far()'s K + 8 */
            double want = (double)gain[n], off = far(&w, kind, n, row, normed, T) + 1e-6;
            for (int k = 0; k < K; k++)
                want += (double)row[k] * (double)normed[k];
            double is = (double)got[(size_t)t * LD + (size_t)n];
            if (!(fabs(is - want) <= off))
                fail_msg("%s, %d tokens, K %d: y[%d, %d] = %g, want %g +- %g", kind->name, T, K,
                         t, n, is, want, off);
        }
    }
    weight_pack_release(&w);
    release(x);
    release(y);
    release(xn);
    free(row);
    free(gain);
    free(normed);
    free(got);
}

static void products_of_what_is_normalised(void **state) {
    (void)state;
    static const int tokens[] = {1, 2, 3, 4, 5, 8, 17, 33, 64, 70}, inputs[] = {72, 200, 640};
    for (int i = 0; i < N_KIND; i += SLOWLY ? 2 : 1)
        for (size_t c = 0; c < sizeof tokens / sizeof *tokens; c++)
            check_norm_product(&kinds[i], tokens[c], inputs[(c + (size_t)i) % 3]);
}

/* The same as a norm and then a feed-forward. Where x becomes bf16, what is normalised on the
 * way may round to a neighbour of what was normalised before: 2^-8 of a product's terms, of
 * which there are 200 of up to 3 or so, and the other factor goes up to 10. A product that is
 * another one is off by its own size. */
static void feed_forwards_of_what_is_normalised(void **state) {
    (void)state;
    enum { K = 200, F = 130 };
    static const int tokens[] = {1, 3, 4, 6, 40};
    for (int i = 0; i < N_KIND; i++)
        for (size_t c = 0; c < sizeof tokens / sizeof *tokens; c++) {
            int T = tokens[c];
            struct weight w[2], bound[2];
            struct err err = {0};
            struct pair x = matrix(T, K, 1), xn = matrix(T, K, 0), y = matrix(T, F, 0),
                        z = matrix(T, F, 0);
            float gain[K], bias[F];
            rand_fill(gain, K, 1);
            rand_fill(bias, F, 1);
            for (int o = 0; o < 2; o++) {
                weight_make(&w[o], &kinds[i], F, K);
                assert_int_equal(dev->bind(dev, &w[o], &bound[o], &err), ST_OK);
            }
            const float *b = bound_floats(bias, F);
            const struct norm_op op = {
                .kind = NORM_RMS, .eps = 1e-5f, .g = bound_floats(gain, K), .H = 1, .D = K};
            const struct linear gate = {.w = bound[0], .bias = b}, up = {.w = bound[1]};
            dev->norm(dev, &op, x.dev, T, xn.dev);
            dev->ffn(dev, ACT_SILU, xn.dev, T, K, &gate, &up, z.dev);
            dev->norm_ffn(dev, &op, ACT_SILU, x.dev, T, K, xn.dev, &gate, &up, y.dev);
            dev->download(dev, y.ref, z.dev, z.n * 4);
            bool exact = T <= GPU_GEMV_TOK || w[0].type == WEIGHT_F32;
            same("feed-forward of a norm", y, exact ? 1e-3 : 0.1, exact ? 1e-3 : 0.3);
            for (int o = 0; o < 2; o++)
                weight_pack_release(&w[o]);
            release(x);
            release(xn);
            release(y);
            release(z);
        }
}

static void products_of_one_input_and_feed_forwards(void **state) {
    (void)state;
    enum { K = 200 };
    static const int rows[4] = {60, 17, 33, 130}, tokens[] = {1, 2, 3, 4, 7, 40};
    for (int i = 1; i < N_KIND; i += 2)
        for (size_t c = 0; c < sizeof tokens / sizeof *tokens; c++) {
            int T = tokens[c];
            struct err err = {0};
            struct weight w[5], bound[5];
            struct matmul_out out[4];
            struct pair x = matrix(T, K, 1), y[4], z[4], h = matrix(T, rows[0], 0);
            float bias[256];
            rand_fill(bias, 256, 1);
            const float *dev_bias = bound_floats(bias, 256);
            for (int o = 0; o < 5; o++) {
                weight_make(&w[o], &kinds[i], rows[o % 4], K);
                assert_int_equal(dev->bind(dev, &w[o], &bound[o], &err), ST_OK);
            }
            for (int o = 0; o < 4; o++) {
                y[o] = matrix(T, rows[o], 0);
                z[o] = matrix(T, rows[o], 0);
                out[o] = (struct matmul_out){&bound[o], z[o].dev, (size_t)weight_pad_k(rows[o]),
                                             dev_bias};
                dev->matmul(dev, x.dev, T, K, &out[o], 1);
                dev->download(dev, z[o].ref, z[o].dev, z[o].n * 4);
                memcpy(y[o].ref, z[o].ref, z[o].n * 4);
                out[o].y = y[o].dev;
            }
            dev->matmul(dev, x.dev, T, K, out, 4);
            for (int o = 0; o < 4; o++)
                same("one of four", y[o], 1e-5, 1e-5);
            /* gate: weight 4, which is as large as weight 0 */
            struct linear up = {.w = bound[0], .bias = dev_bias};
            struct linear gate = {.w = bound[4], .bias = dev_bias};
            struct matmul_out g = {&bound[4], y[0].dev, (size_t)weight_pad_k(rows[0]),
                                   dev_bias};
            dev->matmul(dev, x.dev, T, K, &g, 1);
            dev->act(dev, ACT_SILU, y[0].dev, z[0].dev, T, rows[0], y[0].dev);
            dev->ffn(dev, ACT_SILU, x.dev, T, K, &gate, &up, h.dev);
            dev->download(dev, h.ref, y[0].dev, h.n * 4);
            same("feed-forward", h, 1e-4, 1e-4);
            dev->act(dev, ACT_RELU2, z[0].dev, NULL, T, rows[0], y[0].dev);
            dev->ffn(dev, ACT_RELU2, x.dev, T, K, NULL, &up, h.dev);
            dev->download(dev, h.ref, y[0].dev, h.n * 4);
            same("feed-forward without gate", h, 1e-4, 1e-4);
            for (int o = 0; o < 5; o++)
                weight_pack_release(&w[o]);
            for (int o = 0; o < 4; o++) {
                release(y[o]);
                release(z[o]);
            }
            release(x);
            release(h);
        }
}

/* ---- int8 by int8 ---- */

/* Random codes with a scale for each row, as LLM.int8 has it. */
static void row_scaled_make(struct weight *w, int N, int K) {
    int G = weight_pad_k(K) / 64;
    uint8_t *code = xcalloc((size_t)N, (size_t)K);
    float *scale = xcalloc((size_t)N * (size_t)G, sizeof *scale);
    for (size_t i = 0; i < (size_t)N * (size_t)K; i++)
        code[i] = (uint8_t)(rand_u32() & 255);
    for (int n = 0; n < N; n++) {
        float s = rand_normal() * 0.01f;
        for (int g = 0; g < G; g++)
            scale[n * G + g] = s;
    }
    weight_pack_codes(w, WEIGHT_I8, N, K, 64, code, scale, NULL, NULL);
    free(code);
    free(scale);
}

/* What an activation of group g of a row of K is off by: half a step. */
static double half_step(const float *x, int K, int g) {
    double sum = 0, top = 0;
    int G = weight_pad_k(K) / 64;
    for (int i = 0; i < G; i++) {
        double most = 0;
        for (int k = i * 64; k < K && k < i * 64 + 64; k++)
            most = fmax(most, fabs((double)x[k]));
        sum += most;
        top = i == g ? most : top;
    }
    return top / 127 / (top > 2.00002 * sum / G ? 254 : 1) / 2;
}

static double far_in_digits(const float *row, const float *x, int K) {
    double off = 0, A = 0;
    for (int g = 0; g * 64 < K; g++) {
        double half = half_step(x, K, g);
        for (int k = g * 64; k < K && k < g * 64 + 64; k++) {
            off += fabs((double)row[k]) * half * 1.001;
            A += fabs((double)row[k] * (double)x[k]);
        }
    }
    return off + (K / 32 + 8) * EPS * A;
}

/* Outliers as models have them: in a column, all of it; and one here and there. */
static void add_outliers(struct pair x, int T, int K) {
    size_t ld = (size_t)weight_pad_k(K);
    for (int t = 0; t < T; t++) {
        x.ref[(size_t)t * ld + (size_t)K / 3] *= 60;
        if (t % 9 == 4)
            x.ref[(size_t)t * ld + (size_t)(t * 37 % K)] *= 300;
    }
    dev->upload(dev, x.dev, x.ref, x.n * sizeof(float));
}

static void check_digits(int N, int K, int T) {
    struct weight w, bound;
    struct err err = {0};
    size_t ldy = (size_t)N + GUARD, n_y = (size_t)T * ldy, ldx = (size_t)weight_pad_k(K);
    struct pair x = matrix(T, K, 1);
    float *y = xcalloc(n_y, sizeof *y), *sum = xcalloc(n_y, sizeof *y), bias[MAX_K];
    float *row = xcalloc((size_t)K, sizeof *row), *dy = dev->alloc(dev, n_y * sizeof *y);
    add_outliers(x, T, K);
    rand_fill(bias, MAX_K, 1);
    for (size_t i = 0; i < n_y; i++)
        y[i] = guard;
    dev->upload(dev, dy, y, n_y * sizeof *y);
    row_scaled_make(&w, N, K);
    assert_int_equal(dev->bind(dev, &w, &bound, &err), ST_OK);
    assert_true(bound.row_scaled);
    struct matmul_out out = {&bound, dy, ldy, bound_floats(bias, N)};
    dev->matmul(dev, x.dev, T, K, &out, 1);
    dev->download(dev, y, dy, n_y * sizeof *y);
    dev->matmul_add(dev, x.dev, T, K, &out);
    dev->download(dev, sum, dy, n_y * sizeof *y);
    finish();
    for (int n = 0; n < N; n++) {
        weight_unpack_row(&w, n, row);
        for (int t = 0; t < T; t++) {
            const float *xt = x.ref + (size_t)t * ldx;
            double want = (double)bias[n], off = far_in_digits(row, xt, K) + 1e-6;
            size_t at = (size_t)t * ldy + (size_t)n;
            for (int k = 0; k < K; k++)
                want += (double)row[k] * (double)xt[k];
            if (!(fabs((double)y[at] - want) <= off) ||
                !(fabs((double)sum[at] - 2 * want) <= 2 * off))
                fail_msg("%d tokens, [%d, %d]: y[%d, %d] = %g and then %g, want %g +- %g", T, N,
                         K, t, n, (double)y[at], (double)sum[at], want, off);
        }
    }
    for (size_t i = 0; i < n_y; i++)
        assert_true(i % ldy < (size_t)N || (y[i] == guard && sum[i] == guard));
    dev->free(dev, dy);
    weight_pack_release(&w);
    release(x);
    free(y);
    free(sum);
    free(row);
}

static void int8_by_int8_with_outliers(void **state) {
    (void)state;
    static const int cases[][3] = {/* N, K, T: each of the kernel's widths on four processors */
                                   {1, 1, 65},      {17, 64, 70},    {100, 200, 130},
                                   {300, 1000, 65}, {300, 577, 200}, {520, 330, 130},
                                   {130, 640, 300}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_digits(cases[i][0], cases[i][1], cases[i][2]);
}

/* Bits of a token among 66 and among 300, and a token that is no number, which harms no other.
 */
static void digits_of_a_token_are_its_own(void **state) {
    (void)state;
    enum { N = 140, K = 300, T = 300, FEW = 66, LDX = 320, LDY = 192 };
    struct weight w, bound;
    struct err err = {0};
    struct pair x = matrix(T, K, 1), y = matrix(T, N, 0), z = matrix(FEW, N, 0);
    float *many = xcalloc(y.n, 4), *few = xcalloc(z.n, 4);
    add_outliers(x, T, K);
    memset(x.ref + 7 * LDX, 0, K * sizeof(float));
    x.ref[9 * LDX + 100] = NAN;
    x.ref[11 * LDX + 200] = INFINITY;
    dev->upload(dev, x.dev, x.ref, x.n * 4);
    row_scaled_make(&w, N, K);
    assert_int_equal(dev->bind(dev, &w, &bound, &err), ST_OK);
    dev->matmul(dev, x.dev, T, K, &(struct matmul_out){&bound, y.dev, LDY, NULL}, 1);
    dev->matmul(dev, x.dev, FEW, K, &(struct matmul_out){&bound, z.dev, LDY, NULL}, 1);
    dev->download(dev, many, y.dev, y.n * 4);
    dev->download(dev, few, z.dev, z.n * 4);
    finish();
    for (int t = 0; t < FEW; t++)
        for (int n = 0; n < N; n++) {
            float v = few[t * LDY + n];
            if (t == 9 || t == 11)
                assert_false(isfinite(v));
            else
                assert_true(isfinite(v) && (t != 7 || v == 0) &&
                            memcmp(&v, &many[t * LDY + n], 4) == 0);
        }
    weight_pack_release(&w);
    release(x);
    release(y);
    release(z);
    free(many);
    free(few);
}

/* Few tokens, and weights whose groups have scales of their own, stay what they were. */
static void only_rows_with_one_scale_are_multiplied_in_int8(void **state) {
    (void)state;
    struct err err = {0};
    struct weight w[2], bound[2];
    struct backend_limits lim = {MAX_T, 256, 8, 8, 128, true};
    if (!shim_function("shim_trace"))
        skip();
    struct backend *be = cuda_open();
    assert_int_equal(be->reserve(be, &lim, &err), ST_OK);
    float *x = be->alloc(be, 70 * 256 * 4), *y = be->alloc(be, 70 * 64 * 4);
    weight_make(&w[0], &kinds[3], 40, 200); /* int8, by groups */
    row_scaled_make(&w[1], 40, 200);
    for (int i = 0; i < 2; i++)
        assert_int_equal(be->bind(be, &w[i], &bound[i], &err), ST_OK);
    assert_false(bound[0].row_scaled);
    setenv("LLMCHAT_SHIM_FAIL", "w8a8", 1);
    be->matmul(be, x, 70, 200, &(struct matmul_out){&bound[0], y, 64, NULL}, 1);
    be->matmul(be, x, 64, 200, &(struct matmul_out){&bound[1], y, 64, NULL}, 1);
    enum status others = be->finish(be, &err);
    be->matmul(be, x, 65, 200, &(struct matmul_out){&bound[1], y, 64, NULL}, 1);
    unsetenv("LLMCHAT_SHIM_FAIL");
    assert_int_equal(others, ST_OK);
    assert_int_equal(be->finish(be, &err), ST_DEVICE);
    for (int i = 0; i < 2; i++)
        weight_pack_release(&w[i]);
    be->free(be, x);
    be->free(be, y);
    be->close(be);
}

static void the_shims_int8_fragments_are_those_of_the_manual(void **state) {
    (void)state;
    void (*try)(const int8_t *a, const int8_t *b, const int32_t *c, int32_t *d) = NULL;
    void *f = shim_function("shim_try_mma_s8");
    int8_t a[16 * 32], b[8 * 32];
    int32_t c[16 * 8], d[16 * 8];
    if (!f)
        skip();
    memcpy(&try, &f, sizeof try);
    for (int i = 0; i < 16 * 32; i++)
        a[i] = (int8_t)(rand_u32() & 255);
    for (int i = 0; i < 8 * 32; i++)
        b[i] = (int8_t)(rand_u32() & 255);
    for (int i = 0; i < 16 * 8; i++)
        c[i] = (int32_t)(rand_u32() & 0xffffff);
    try(a, b, c, d);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            int32_t want = c[i * 8 + j];
            for (int k = 0; k < 32; k++)
                want += a[i * 32 + k] * b[j * 32 + k];
            assert_int_equal(d[i * 8 + j], want);
        }
}

/* ---- what can go wrong ---- */

/* A shim's device with so much memory beside what the other tests have there. */
static struct backend *open_limited(size_t bytes) {
    const size_t all = 4000000000;
    char limit[32];
    snprintf(limit, sizeof limit, "%zu", all);
    setenv("LLMCHAT_SHIM_BYTES", limit, 1);
    struct backend *be = cuda_open();
    assert_non_null(be);
    snprintf(limit, sizeof limit, "%zu", all - be->room(be) + bytes);
    be->close(be);
    setenv("LLMCHAT_SHIM_BYTES", limit, 1);
    be = cuda_open();
    unsetenv("LLMCHAT_SHIM_BYTES");
    return be;
}

static void a_device_without_room_says_so(void **state) {
    (void)state;
    struct weight w, bound;
    struct err err = {0};
    if (!shim_function("shim_trace"))
        skip();
    struct backend *be = open_limited(20000000);
    assert_non_null(be);
    assert_true(be->room(be) > 19000000 && be->room(be) <= 20000000);
    assert_null(be->alloc(be, 30000000));
    weight_make(&w, &kinds[0], 1000, 1000);
    for (int i = 0; i < 4; i++)
        assert_int_equal(be->bind(be, &w, &bound, &err), ST_OK);
    assert_int_equal(be->bind(be, &w, &bound, &err), ST_NOMEM);
    assert_non_null(strstr(err.msg, "has no room for the model"));
    struct backend_limits lim = {512, 4096, 8, 8, 128, false};
    assert_int_equal(be->reserve(be, &lim, &err), ST_NOMEM);
    weight_pack_release(&w);
    be->close(be);
}

static void a_fault_ends_in_an_error_of_the_step(void **state) {
    (void)state;
    struct err err = {0};
    if (!shim_function("shim_trace"))
        skip();
    struct backend *be = cuda_open();
    float *x = be->alloc(be, 64 * 4), y[64] = {1};
    setenv("LLMCHAT_SHIM_FAIL", "add", 1);
    be->add(be, 1, x, 1, 64, x);
    unsetenv("LLMCHAT_SHIM_FAIL");
    be->add(be, 1, x, 1, 64, x);
    be->download(be, y, x, sizeof y);
    assert_true(y[0] == 0);
    assert_int_equal(be->finish(be, &err), ST_DEVICE);
    assert_non_null(strstr(err.msg, "add"));
    assert_int_equal(be->finish(be, &err), ST_DEVICE); /* it stays lost */
    be->free(be, x);
    be->close(be);
}

/* A device that gives no memory because it failed has room enough. */
static void a_fault_is_no_want_of_room(void **state) {
    (void)state;
    struct backend_limits lim = {16, 64, 8, 8, 128, false};
    struct err err[3] = {{0}};
    enum status st[3];
    const void *p;
    if (!shim_function("shim_trace"))
        skip();
    for (int i = 0; i < 3; i++) {
        struct backend *be = cuda_open();
        setenv("LLMCHAT_SHIM_FAIL", "alloc", 1);
        st[i] = i == 0   ? be->reserve(be, &lim, &err[i])
                : i == 1 ? be->make_room(be, 1000, &err[i])
                         : be->bind_data(be, &guard, sizeof guard, &p, &err[i]);
        unsetenv("LLMCHAT_SHIM_FAIL");
        assert_int_equal(st[i], ST_DEVICE);
        assert_non_null(strstr(err[i].msg, "alloc"));
        be->close(be);
    }
}

/* That the shim runs its stream late is what shows a host that is too early. */
static void a_copy_is_done_when_it_is_waited_for(void **state) {
    (void)state;
    struct gpu *g = cuda_gpu(dev);
    if (!shim_function("shim_trace"))
        skip();
    int *x = g->alloc(g, sizeof *x), *host = g->alloc_pinned(g, 2 * sizeof *host);
    host[0] = 1;
    g->upload(g, x, host, sizeof *x);
    g->download(g, host + 1, x, sizeof *x);
    host[0] = 2;
    assert_int_equal(host[1], 0);
    g->sync(g);
    assert_int_equal(host[1], 2);
    g->free(g, x);
    g->free_pinned(g, host);
}

static void a_kernel_that_does_not_wait_finds_what_was_there(void **state) {
    (void)state;
    int (*early)(struct gpu *, bool) = NULL;
    void *f = shim_function("shim_try_early");
    if (!f)
        skip();
    memcpy(&early, &f, sizeof early);
    assert_int_equal(early(cuda_gpu(dev), true), 1);
    assert_int_equal(early(cuda_gpu(dev), false), 0);
}

static void a_module_that_is_not_there_is_named(void **state) {
    (void)state;
    struct backend *be = NULL;
    struct err err = {0};
    char *was = xstrdup(getenv("LLMCHAT_CUDA_MODULE"));
    setenv("LLMCHAT_CUDA_MODULE", "/nowhere/llmchat-cuda.so", 1);
    assert_int_equal(cuda_backend_open(0, 1, &be, &err), ST_NOT_FOUND);
    assert_non_null(strstr(err.msg, "/nowhere/llmchat-cuda.so"));
    setenv("LLMCHAT_CUDA_MODULE", was, 1);
    free(was);
}

/* ---- what the shim watches ---- */

static void kernels_race_nowhere_and_rarely_wait_for_banks(void **state) {
    (void)state;
    void (*trace)(bool on) = NULL;
    int (*races)(void) = NULL;
    double (*conflict)(char where[64]) = NULL;
    char where[64];
    void *f[] = {shim_function("shim_trace"), shim_function("shim_races"),
                 shim_function("shim_worst_conflict")};
    if (!f[0])
        skip();
    memcpy(&trace, &f[0], sizeof trace);
    memcpy(&races, &f[1], sizeof races);
    memcpy(&conflict, &f[2], sizeof conflict);
    trace(true);
    for (int i = 1; i < N_KIND; i++)
        for (int T = 1; T <= 33; T += 8)
            check_product(&kinds[i], 40, 330, T);
    norms_are_those_of_the_reference(state);
    check_digits(140, 330, 70);
    assert_int_equal(races(), 0);
    double worst = conflict(where);
    if (worst > MAX_CONFLICT)
        fail_msg("%s: %.2f passes in the place of one", where, worst);
    trace(false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embedding_gives_the_rows_of_every_kind_of_weight),
        cmocka_unit_test(norms_are_those_of_the_reference),
        cmocka_unit_test(activations_are_those_of_the_reference),
        cmocka_unit_test(rows_are_permuted_selected_and_scattered),
        cmocka_unit_test(rope_and_the_cache_are_those_of_the_reference),
        cmocka_unit_test(a_key_that_is_no_number_has_no_scale),
        cmocka_unit_test(products_with_every_kind_of_weight),
        cmocka_unit_test(products_in_larger_shapes),
        cmocka_unit_test(products_of_long_rows),
        cmocka_unit_test(few_tokens_have_the_bits_of_one),
        cmocka_unit_test(few_normalised_tokens_have_the_bits_of_one),
        cmocka_unit_test(selected_rows_end_in_zeros),
        cmocka_unit_test(products_of_one_input_and_feed_forwards),
        cmocka_unit_test(products_of_what_is_normalised),
        cmocka_unit_test(feed_forwards_of_what_is_normalised),
        cmocka_unit_test(int8_by_int8_with_outliers),
        cmocka_unit_test(digits_of_a_token_are_its_own),
        cmocka_unit_test(only_rows_with_one_scale_are_multiplied_in_int8),
        cmocka_unit_test(the_shims_int8_fragments_are_those_of_the_manual),
        cmocka_unit_test(a_device_without_room_says_so),
        cmocka_unit_test(a_fault_ends_in_an_error_of_the_step),
        cmocka_unit_test(a_fault_is_no_want_of_room),
        cmocka_unit_test(a_copy_is_done_when_it_is_waited_for),
        cmocka_unit_test(a_kernel_that_does_not_wait_finds_what_was_there),
        cmocka_unit_test(a_module_that_is_not_there_is_named),
        cmocka_unit_test(kernels_race_nowhere_and_rarely_wait_for_banks),
    };
    if (!cuda_is_here()) {
        print_message("no C++ compiler: kernels do not run on the host\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, open_both, close_both);
}
