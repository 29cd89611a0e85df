/*
 * test_ops.c - every kernel set that this CPU has, held against the scalar reference, operation
 * by operation. The numbers of products with weights are in test_matmul.c; here is what the
 * backend does around them.
 *
 * Bounds. A sum of K products in f32, in any order and with or without fused steps, is off by
 * at most K 2^-24 sum|x w|; two such sums by twice that. exp is good to 2e-7 of its value
 * (test: 1e-6). f16 values agree in all but a tie's last bit, because both sides round to
 * nearest even.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "act_f64.h"
#include "base/mem.h"
#include "engine/cpu/cpu.h"
#include "engine/quant/fp8.h"
#include "engine/quant/pack.h"
#include "engine/quant/quant.h"
#include "rand.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EPS 0x1p-24f

enum { GUARD = 7 };
static const float guard = 12345.0f;

static const struct cpu_kernels *sets[8];
static int n_set;

/* A backend with room for this test. */
static struct backend *open_backend(const struct cpu_kernels *k, int T, int K, int H, int Hkv,
                                    int D) {
    struct backend *be = NULL;
    struct err err = {0};
    struct backend_limits lim = {T, K, H, Hkv, D, false};
    assert_int_equal(cpu_backend_new(k, 2, &be, &err), ST_OK);
    assert_int_equal(be->reserve(be, &lim, &err), ST_OK);
    return be;
}

static float *matrix(struct backend *be, int T, int K, float scale) {
    size_t ld = (size_t)weight_pad_k(K);
    float *x = be->alloc(be, (size_t)T * ld * sizeof *x);
    for (int t = 0; t < T; t++)
        rand_fill(x + (size_t)t * ld, (size_t)K, scale);
    return x;
}

enum { MM_OUT = 4 };

/* Four weights [N, K] of types that want different inputs: f32 rows, int16 rows, and their sums
 * for minimums. */
static void mixed_weights(struct weight w[MM_OUT], int N, int K) {
    size_t n = (size_t)N * (size_t)K, n_scale = (size_t)N * (size_t)((K + 15) / 16);
    float *wf = xcalloc(n, sizeof *wf), *scale = xcalloc(n_scale, sizeof *scale);
    float *min = xcalloc(n_scale, sizeof *min), table[16];
    uint8_t *code = xcalloc(n, 1);
    rand_fill(wf, n, 0.1f);
    rand_fill(scale, n_scale, 0.01f);
    rand_fill(min, n_scale, 0.1f);
    for (size_t i = 0; i < n; i++)
        code[i] = rand_u32() & 15;
    for (int i = 0; i < 16; i++)
        table[i] = (float)i;
    weight_pack(&w[0], WEIGHT_F16, wf, N, K);
    weight_pack_codes(&w[1], WEIGHT_Q4, N, K, 16, code, scale, min, table);
    weight_pack(&w[2], WEIGHT_I8, wf, N, K);
    weight_pack_codes(&w[3], WEIGHT_I8, N, K, 32, code, scale, min, NULL);
    free(wf);
    free(scale);
    free(min);
    free(code);
}

/* Outputs that share an input, at once and one by one, and with the kernel alone: the same bits
 * (what the kernels compute is test_matmul's business). */
static void check_matmul(const struct cpu_kernels *k, int T, int N, int K) {
    struct backend *be = open_backend(k, T, K, 1, 1, 64);
    size_t Kp = (size_t)weight_pad_k(K), ldy = (size_t)N + GUARD, n_y = (size_t)T * ldy;
    struct weight w[MM_OUT];
    struct matmul_out out[MM_OUT];
    float *x = matrix(be, T, K, 1), *y = xcalloc(MM_OUT * n_y, sizeof *y);
    float *one = xcalloc(n_y, sizeof *one), *alone = xcalloc(n_y, sizeof *alone);
    size_t ld = k->quantize ? k->block_bytes((int)Kp) : 64;
    char *rows = be->alloc(be, (size_t)T * ld);
    void *scratch = be->alloc(be, cpu_scratch_bytes(K));
    struct cpu_input in = {.x = x, .ldx = Kp, .T = T, .K = K, .rows = rows, .block_bytes = ld};
    for (int t = 0; t < T && k->quantize; t += k->block)
        k->quantize(x + (size_t)t * Kp, Kp, T - t < k->block ? T - t : k->block, K, true,
                    rows + (size_t)(t / k->block) * ld);
    mixed_weights(w, N, K);
    for (size_t i = 0; i < MM_OUT * n_y; i++)
        y[i] = guard;
    for (size_t i = 0; i < MM_OUT; i++)
        out[i] = (struct matmul_out){&w[i], y + i * n_y, ldy, NULL};
    be->matmul(be, x, T, K, out, MM_OUT);
    for (size_t i = 0; i < MM_OUT; i++) {
        for (size_t j = 0; j < n_y; j++)
            one[j] = alone[j] = guard;
        be->matmul(be, x, T, K, &(struct matmul_out){&w[i], one, ldy, NULL}, 1);
        k->matmul(&in, &w[i], 0, w[i].Np / 16, alone, ldy, false, scratch);
        assert_memory_equal(one, alone, n_y * sizeof *one);
        assert_memory_equal(y + i * n_y, alone, n_y * sizeof *one);
        be->matmul_add(be, x, T, K, &(struct matmul_out){&w[i], one, ldy, NULL});
        for (size_t j = 0; j < n_y; j++)
            assert_true(one[j] == (j % ldy < (size_t)N ? 2 * alone[j] : guard));
        weight_pack_release(&w[i]);
    }
    be->free(be, x);
    be->free(be, scratch);
    free(y);
    free(one);
    free(alone);
    be->free(be, rows);
    be->close(be);
}

static void matmul_gives_each_output_its_kind_of_input(void **state) {
    (void)state;
    static const int shapes[][2] = {{1, 1}, {33, 72}, {90, 200}, {200, 576}};
    for (int i = 0; i < n_set; i++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            for (int T = 1; T <= 73; T += 6)
                check_matmul(sets[i], T, shapes[s][0], shapes[s][1]);
}

/* Long rows: many scale blocks of 256 groups are crossed, and the int32 sums of a group are at
 * their largest. */
static void matmul_q4_holds_at_the_extremes(void **state) {
    (void)state;
    enum { N = 17, K = 64 * 300, T = 13 };
    for (int i = 0; i < n_set; i++) {
        struct backend *be = open_backend(sets[i], T, K, 1, 1, 64);
        float *wf = xcalloc((size_t)N * K, sizeof *wf), y[T * N];
        float *x = be->alloc(be, (size_t)T * K * sizeof *x);
        struct weight w;
        /* additions of one sum: inputs for the reference, groups for the others; and the
         * scales' formula */
        double bound = (sets[i]->quantize ? 3 * K / 32 : K) * (double)EPS + 2e-6;
        for (size_t k = 0; k < (size_t)N * K; k++)
            wf[k] = (float)(1 + k / 64 % 97);
        for (size_t k = 0; k < (size_t)T * K; k++)
            x[k] = 3;
        for (int type = WEIGHT_I8; type <= WEIGHT_Q4; type++) {
            weight_pack(&w, (enum weight_type)type, wf, N, K);
            be->matmul(be, x, T, K, &(struct matmul_out){&w, y, N, NULL}, 1);
            for (int n = 0; n < N; n++) {
                double want = 0; /* all weights of a group are its scale, to the last step */
                for (int g = 0; g < K / 64; g++)
                    want += 64.0 * 3 * (double)weight_group_scale(&w, n, g) *
                            (type == WEIGHT_I8 ? 127 : 1);
                /* with 8 bits the value 1 of the table is not exact */
                double table = type == WEIGHT_Q4 && sets[i]->block > 1 ? 0.0021 : 0;
                for (int t = 0; t < T; t++)
                    assert_true(fabs((double)y[t * N + n] / want - 1) < bound + table);
            }
            weight_pack_release(&w);
        }
        be->free(be, x);
        free(wf);
        be->close(be);
    }
}

static void close_to(const char *what, const struct cpu_kernels *k, const float *a,
                     const float *b, size_t n, float rel, float abs_err) {
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(a[i] - b[i]) <= rel * fabsf(b[i]) + abs_err))
            fail_msg("%s %s: [%zu] = %.9g, want %.9g", k->name, what, i, (double)a[i],
                     (double)b[i]);
}

enum { ROW = 600 };

/* An f64 norm as PyTorch's modules define it. */
static void norm_f64(enum norm_kind kind, const float *x, const float *g, const float *b,
                     double eps, int n, float *y) {
    double mean = 0, sum = 0;
    for (int i = 0; i < n; i++)
        mean += kind == NORM_LAYER ? (double)x[i] / n : 0;
    for (int i = 0; i < n; i++)
        sum += ((double)x[i] - mean) * ((double)x[i] - mean);
    for (int i = 0; i < n; i++)
        y[i] = (float)(((double)x[i] - mean) / sqrt(sum / n + eps) * (double)g[i] +
                       (b ? (double)b[i] : 0));
}

/* Both sides of a difference of x and their mean carry an error of the mean of n numbers up to
 * 10: n 2^-24 10; times 1/deviation (here under 2), gain (under 4), both with bias (under 4).
 */
static void norms_equal_their_definition(void **state) {
    (void)state;
    static const int sizes[] = {2, 6, 15, 16, 17, 31, 64, 72, 100, 577};
    float x[ROW], g[ROW], b[ROW], y[ROW + 1], z[ROW];
    for (int i = 0; i < n_set; i++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (int kind = NORM_RMS; kind <= NORM_LAYER; kind++)
                for (int bias = 0; bias < 2; bias++) {
                    int n = sizes[s];
                    rand_fill(x, ROW, 3);
                    rand_fill(g, ROW, 1);
                    rand_fill(b, ROW, 1);
                    y[n] = guard;
                    sets[i]->norm((enum norm_kind)kind, x, g, bias ? b : NULL, 1e-5f, n, y);
                    norm_f64((enum norm_kind)kind, x, g, bias ? b : NULL, 1e-5, n, z);
                    close_to("norm", sets[i], y, z, (size_t)n, (float)(n + 8) * EPS,
                             kind == NORM_LAYER ? 4 * 10 * (float)(n + 8) * EPS : 8 * EPS);
                    assert_true(y[n] == guard);
                }
}

static void rows_equal_reference(void **state) {
    (void)state;
    static const int sizes[] = {1, 2, 6, 15, 16, 17, 31, 64, 72, 100, 577};
    float x[ROW], g[ROW], y[ROW], z[ROW];
    for (int i = 0; i < n_set; i++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            const struct cpu_kernels *k = sets[i];
            int n = sizes[s];
            size_t bytes = (size_t)(n + 1) * sizeof *x;
            rand_fill(x, ROW, 3);
            rand_fill(g, ROW, 1);
            y[n] = z[n] = guard;
            memcpy(y, g, (size_t)n * sizeof *y);
            memcpy(z, g, (size_t)n * sizeof *z);
            k->axpby(0.3f, x, -1.7f, n, y);
            cpu_scalar.axpby(0.3f, x, -1.7f, n, z);
            close_to("axpby", k, y, z, (size_t)n, 0, 3 * 10 * EPS * 2);
            assert_true(y[n] == guard && z[n] == guard);
            memcpy(y, x, bytes);
            memcpy(z, x, bytes);
            k->rope(y, g, g + 20, n & ~1);
            cpu_scalar.rope(z, g, g + 20, n & ~1);
            close_to("rope", k, y, z, (size_t)n + 1, 0, 100 * EPS);
        }
}

/* tanh and erf are good to 2e-7 and the sum 1 + tanh to a step of 1, so gelu to 4e-7 |x|, with
 * what the rounded argument moves: under 1e-7 |x| more. silu: exp's 2e-7 of the result, and
 * gpt-oss's what the rounding of 1.702 and of its product with x move: 1.2e-7 |1.702 x| of it.
 */
static void activations_equal_their_definition(void **state) {
    (void)state;
    enum { N = 2001 };
    static float x[N], u[N], y[N + 1];
    for (int i = 0; i < N; i++)
        x[i] = (float)(i - N / 2) * 0.0100001f;
    rand_fill(u, N, 9);
    for (int i = 0; i < n_set; i++)
        for (int kind = ACT_SILU; kind <= ACT_GPT_OSS; kind++)
            for (int gated = 0; gated < 2; gated++) {
                y[N] = guard;
                sets[i]->act((enum act_kind)kind, x, gated ? u : NULL, N, y);
                for (int j = 0; j < N; j++) {
                    double w = gated ? up_f64((enum act_kind)kind, (double)u[j]) : 1;
                    double ax = fabs((double)x[j] * w);
                    double want = act_f64((enum act_kind)kind, (double)x[j]) * w;
                    double bound = fabs(want) * 4e-7;
                    if (kind == ACT_GELU_TANH || kind == ACT_GELU_ERF)
                        bound += 5e-7 * ax;
                    if (kind == ACT_GPT_OSS)
                        bound += fabs(want) * 2.1e-7 * fabs((double)x[j]);
                    if (!(fabs((double)y[j] - want) <= bound + 1e-37))
                        fail_msg("%s act %d of %g: %g, want %g", sets[i]->name, kind,
                                 (double)x[j], (double)y[j], want);
                }
                assert_true(y[N] == guard);
                float *in_place = xcalloc(N, sizeof *in_place);
                memcpy(in_place, x, sizeof x);
                sets[i]->act((enum act_kind)kind, in_place, gated ? u : NULL, N, in_place);
                assert_memory_equal(in_place, y, sizeof x);
                free(in_place);
            }
}

static void act_survives_large_inputs(void **state) {
    (void)state;
    float g[] = {-1000, -100, -88, 0, 88, 100, 1000}, u[] = {1, 1, 1, 1, 1, 1, 1}, y[7];
    for (int i = 0; i < n_set; i++)
        for (int kind = ACT_SILU; kind <= ACT_RELU; kind++) {
            sets[i]->act((enum act_kind)kind, g, u, 7, y);
            for (int j = 0; j < 3; j++)
                assert_true(y[j] <= 0 && y[j] > -1e-30f);
            for (int j = 3; j < 7; j++)
                assert_true(fabsf(y[j] - g[j]) <= 1e-6f * g[j]);
        }
}

static void act_and_cap_keep_what_is_not_a_number(void **state) {
    (void)state;
    float x[5] = {1, NAN, -1, 2, NAN}, y[5];
    for (int i = 0; i < n_set; i++) {
        for (int kind = ACT_SILU; kind <= ACT_GPT_OSS; kind++) {
            sets[i]->act((enum act_kind)kind, x, NULL, 5, y);
            assert_true(isnan(y[1]) && isnan(y[4]) && !isnan(y[0]) && !isnan(y[3]));
        }
        memcpy(y, x, sizeof y);
        sets[i]->cap(30, y, 5);
        assert_true(isnan(y[1]) && isnan(y[4]) && !isnan(y[2]));
    }
}

static void cap_equals_its_definition(void **state) {
    (void)state;
    enum { N = 4001 };
    static float x[N + 1], y[N + 1];
    for (int i = 0; i < n_set; i++) {
        for (int j = 0; j < N; j++)
            y[j] = x[j] = (float)(j - N / 2) * (j % 2 ? 0.37f : 1e-4f);
        y[N] = guard;
        sets[i]->cap(30, y, N);
        for (int j = 0; j < N; j++) { /* tanh's 2e-7, two roundings, all relative */
            double want = 30 * tanh((double)x[j] / 30);
            assert_true(fabs((double)y[j] - want) <= 4e-7 * fabs(want));
        }
        assert_true(y[N] == guard);
    }
}

static void f16_rounds_to_even_and_saturates(void **state) {
    (void)state;
    static const struct {
        float f;
        uint16_t h;
    } known[] = {{0, 0},          {1, 0x3c00},         {-2, 0xc000},          {65504, 0x7bff},
                 {1e6f, 0x7bff},  {-INFINITY, 0xfbff}, {0x1p-24f, 1},         {0x1p-25f, 0},
                 {0x1.8p-24f, 2}, {0x1p-14f, 0x400},   {0x1.ff8p-15f, 0x3ff}, {2049, 0x6800},
                 {2051, 0x6802},  {65519, 0x7bff}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        assert_int_equal(cpu_f32_to_f16(known[i].f), known[i].h);
    for (uint32_t h = 0; h < 0x7c00; h++)
        assert_int_equal(cpu_f32_to_f16(cpu_f16_to_f32((uint16_t)h)), h);
}

static void embed_gives_the_rows_of_the_table(void **state) {
    (void)state;
    enum { N = 40, K = 70, T = 12 };
    float *wf = xcalloc(N * K, sizeof *wf), row[K];
    rand_fill(wf, N * K, 1);
    for (int type = WEIGHT_F32; type <= WEIGHT_Q4; type++) {
        struct backend *be = open_backend(sets[0], T, K, 1, 1, 64);
        float *x = be->alloc(be, T * (size_t)weight_pad_k(K) * sizeof *x);
        struct weight w;
        int32_t tokens[T];
        for (int t = 0; t < T; t++)
            tokens[t] = t * 7 % N;
        weight_pack(&w, (enum weight_type)type, wf, N, K);
        be->embed(be, &w, tokens, T, x);
        for (int t = 0; t < T; t++) {
            weight_unpack_row(&w, tokens[t], row);
            assert_memory_equal(x + t * weight_pad_k(K), row, sizeof row);
            assert_true(x[t * weight_pad_k(K) + K] == 0);
        }
        weight_pack_release(&w);
        be->free(be, x);
        be->close(be);
    }
    free(wf);
}

/* The fused feed-forward is what the graph would compose, with and without gate and biases. */
static void ffn_equals_its_parts(void **state) {
    (void)state;
    enum { K = 96, F = 139 };
    float *wf = xcalloc(K * F, sizeof *wf), bias[2][F];
    struct linear gate = {.bias = bias[0]}, up = {.bias = bias[1]};
    rand_fill(wf, K * F, 0.3f);
    weight_pack(&gate.w, WEIGHT_Q4, wf, F, K);
    rand_fill(wf, K * F, 0.3f);
    weight_pack(&up.w, WEIGHT_I8, wf, F, K);
    rand_fill(bias[0], 2 * F, 1);
    for (int i = 0; i < n_set; i++)
        for (int T = 1; T < 70; T += 17)
            for (int c = 0; c < 4; c++) {
                struct backend *be = open_backend(sets[i], T, F, 1, 1, 64);
                size_t ld = (size_t)weight_pad_k(F);
                float *x = matrix(be, T, K, 1), *y = matrix(be, T, F, 0);
                float *g = matrix(be, T, F, 0), *u = matrix(be, T, F, 0);
                bool gated = c & 1;
                gate.bias = c & 2 ? bias[0] : NULL;
                up.bias = c & 2 ? bias[1] : NULL;
                struct matmul_out out[] = {{&up.w, u, ld, up.bias},
                                           {&gate.w, g, ld, gate.bias}};
                be->matmul(be, x, T, K, out, gated ? 2 : 1);
                be->act(be, ACT_GELU_TANH, gated ? g : u, gated ? u : NULL, T, F, g);
                be->ffn(be, ACT_GELU_TANH, x, T, K, gated ? &gate : NULL, &up, y);
                close_to("ffn", sets[i], y, g, (size_t)T * ld, 1e-6f, 0);
                be->free(be, x);
                be->free(be, g);
                be->free(be, u);
                be->free(be, y);
                be->close(be);
            }
    weight_pack_release(&gate.w);
    weight_pack_release(&up.w);
    free(wf);
}

/* y = x w^T + bias, and y += x w^T + bias: the bias of each output once, nothing behind N. */
static void matmul_adds_the_bias_once(void **state) {
    (void)state;
    enum { K = 70, N = 150, LD = N + GUARD };
    float *wf = xcalloc(K * N, sizeof *wf), bias[N];
    struct weight w;
    rand_fill(wf, K * N, 0.3f);
    rand_fill(bias, N, 1);
    weight_pack(&w, WEIGHT_F32, wf, N, K);
    for (int i = 0; i < n_set; i++)
        for (int T = 1; T < 50; T += 9) {
            struct backend *be = open_backend(sets[i], T, K, 1, 1, 64);
            float *x = matrix(be, T, K, 1), *y = xcalloc((size_t)T * LD, sizeof *y);
            float *z = xcalloc((size_t)T * LD, sizeof *z);
            be->matmul(be, x, T, K, &(struct matmul_out){&w, z, LD, NULL}, 1);
            be->matmul(be, x, T, K, &(struct matmul_out){&w, y, LD, bias}, 1);
            be->matmul_add(be, x, T, K, &(struct matmul_out){&w, y, LD, bias});
            for (int t = 0; t < T; t++)
                for (int n = 0; n < LD; n++) {
                    float xw = z[t * LD + n], want = n < N ? 2 * (xw + bias[n]) : 0;
                    assert_true(fabsf(y[t * LD + n] - want) <= 1e-5f);
                }
            be->free(be, x);
            be->close(be);
            free(y);
            free(z);
        }
    weight_pack_release(&w);
    free(wf);
}

/* Heads of 20 columns: one gain for all, or one for each; the padding of a row stays zero. */
static void norm_of_heads_normalises_each(void **state) {
    (void)state;
    enum { H = 5, D = 20, K = H * D };
    float g[K], b[K], want[D];
    rand_fill(g, K, 1);
    rand_fill(b, K, 1);
    for (int i = 0; i < n_set; i++)
        for (int T = 1; T < 20; T += 9)
            for (int each = 0; each < 2; each++) {
                struct backend *be = open_backend(sets[i], T, K, 1, 1, 64);
                size_t ld = (size_t)weight_pad_k(K);
                float *x = matrix(be, T, K, 2), *y = matrix(be, T, K, 0);
                struct norm_op op = {NORM_LAYER, 1e-5f, g, b, H, D, each != 0};
                be->norm(be, &op, x, T, y);
                for (int t = 0; t < T; t++) {
                    for (int h = 0; h < H; h++) {
                        int own = each ? h * D : 0;
                        size_t at = (size_t)t * ld + (size_t)(h * D);
                        norm_f64(NORM_LAYER, x + at, g + own, b + own, 1e-5, D, want);
                        close_to("head norm", sets[i], y + at, want, D, 30 * EPS, 1e-4f);
                    }
                    for (size_t k = K; k < ld; k++)
                        assert_true(y[(size_t)t * ld + k] == 0);
                }
                be->norm(be, &op, x, T, x);
                assert_memory_equal(x, y, (size_t)T * ld * sizeof *x);
                be->free(be, x);
                be->free(be, y);
                be->close(be);
            }
}

static void rows_are_permuted_gathered_and_scattered(void **state) {
    (void)state;
    enum { K = 70, T = 23, N = 9 };
    static const int32_t rows[N] = {0, 1, 4, 5, 9, 12, 13, 20, 22};
    int32_t perm[K];
    float a[N];
    rand_fill(a, N, 1);
    for (int k = 0; k < K; k++)
        perm[k] = k * 3 % K;
    for (int i = 0; i < n_set; i++) {
        struct backend *be = open_backend(sets[i], T, K, 1, 1, 64);
        size_t ld = (size_t)weight_pad_k(K);
        float *x = matrix(be, T, K, 1), *y = matrix(be, T, K, 0), *z = matrix(be, T, K, 1);
        float *sum = matrix(be, T, K, 0);
        be->permute(be, x, perm, T, K, y);
        for (int t = 0; t < T; t++)
            for (size_t k = 0; k < ld; k++)
                assert_true(y[(size_t)t * ld + k] ==
                            (k < K ? x[(size_t)t * ld + (size_t)perm[k]] : 0));
        be->select(be, x, rows, N, K, y);
        memcpy(sum, z, T * ld * sizeof *z);
        be->scatter(be, y, rows, a, N, K, sum);
        for (int t = 0, n = 0; t < T; t++) {
            bool hit = n < N && rows[n] == t;
            for (size_t k = 0; k < K; k++) {
                size_t at = (size_t)t * ld + k;
                assert_true(fabsf(sum[at] - z[at] - (hit ? a[n] * x[at] : 0)) <= 1e-5f);
            }
            n += hit;
        }
        be->free(be, x);
        be->free(be, y);
        be->free(be, z);
        be->free(be, sum);
        be->close(be);
    }
}

/* scale() goes by parts of a row: long rows, and a stride that is no multiple of anything. */
static void scale_caps_and_clears_rows_of_any_stride(void **state) {
    (void)state;
    enum { K = 9001, LD = K + 2, T = 3 };
    float *x = xcalloc(T * LD, sizeof *x), *y = xcalloc(T * LD, sizeof *y);
    for (int i = 0; i < n_set; i++) {
        struct backend *be = open_backend(sets[i], T, 64, 1, 1, 64);
        rand_fill(x, T * LD, 40);
        memcpy(y, x, T * LD * sizeof *y);
        be->scale(be, 0.5f, 25, y, LD, T, K);
        for (int j = 0; j < T * LD; j++) {
            double want = j % LD < K ? 25 * tanh((double)x[j] / 2 / 25) : (double)x[j];
            assert_true(fabs((double)y[j] - want) <= 5e-7 * fabs(want));
        }
        y[1] = NAN;
        be->scale(be, 0, 0, y, LD, T, K);
        for (int j = 0; j < T * LD; j++)
            assert_true(y[j] == (j % LD < K ? 0 : x[j]));
        be->close(be);
    }
    free(x);
    free(y);
}

enum { TURN_D = 20, TURN_DIM = 12, TURN_HKV = 3, TURN_BLOCKS = 5 };

/* Column d of the key in slot t of a head's part of a block. */
static double key_at(const struct kv_layer *kv, const char *part, int d, int t) {
    size_t i = kv_k_at(kv->type, (size_t)d, (size_t)t);
    switch (kv->type) {
    case KV_F16:
        return (double)cpu_f16_to_f32(((const uint16_t *)(const void *)part)[i]);
    case KV_BF16:
        return (double)bf16_to_f32(((const uint16_t *)(const void *)part)[i]);
    case KV_I8:
        return (double)((const float *)(const void *)(part + TURN_D * 16))[t] *
               ((const signed char *)part)[i];
    case KV_FP8:
        return (double)fp8_to_f32(((const uint8_t *)part)[i]);
    default:
        return (double)((const float *)(const void *)part)[i];
    }
}

/* Columns 0 .. TURN_DIM - 1 of one head turned by angle [16, TURN_DIM / 2] (NULL: untouched).
 *
 * A turned pair is two products of halves each, rounded (4 EPS of the largest it can be, the
 * length of the pair), and rounded again as it is stored: f16 2^-11, bf16 2^-8, fp8 2^-4, at
 * most 2^-10 below 2^-6; in int8 every number of the key is, by half a step of the largest one.
 */
static void check_turned(const struct kv_layer *kv, const char *name, const char *before,
                         const char *after, double (*angle)[TURN_DIM / 2]) {
    for (int t = 0; t < 16; t++) {
        double want[TURN_D], length[TURN_D], absmax = 0;
        for (int d = 0; d < TURN_D; d++) {
            double a = angle && d < TURN_DIM ? angle[t][d / 2] : 0;
            double x0 = key_at(kv, before, d & ~1, t), x1 = key_at(kv, before, d | 1, t);
            want[d] = d % 2 ? x0 * sin(a) + x1 * cos(a) : x0 * cos(a) - x1 * sin(a);
            if (kv->type == KV_F16)
                want[d] = fmax(-65504, fmin(65504, want[d]));
            if (kv->type == KV_FP8)
                want[d] = fmax(-448, fmin(448, want[d]));
            length[d] = hypot(x0, x1);
            absmax = fmax(absmax, fabs(want[d]));
        }
        for (int d = 0; d < TURN_D; d++) {
            double got = key_at(kv, after, d, t), most = 4 * EPS * length[d];
            bool same = !angle || (d >= TURN_DIM && kv->type != KV_I8);
            most += kv->type == KV_I8     ? absmax * (1 / 254.0 + 4 * EPS)
                    : kv->type == KV_BF16 ? length[d] * 0x1p-8
                    : kv->type == KV_FP8  ? fmax(length[d] * 0x1p-4, 0x1p-10)
                    : kv->type == KV_F16  ? length[d] * 0x1p-11 + 0x1p-25
                                          : 0x1p-25;
            if (!(fabs(got - want[d]) <= (same ? 0 : most)))
                fail_msg("%s type %d: %g, wanted %g", name, (int)kv->type, got, want[d]);
        }
    }
}

static void keys_are_turned_in_their_blocks_alone(void **state) {
    (void)state;
    enum { N = 3, DIM = TURN_DIM, HEADS = TURN_BLOCKS * TURN_HKV };
    static const int32_t blocks[N] = {4, 0, 3};
    static float cs[N * 16 * DIM], sn[N * 16 * DIM];
    static double angle[N * 16][DIM / 2];
    for (int t = 0; t < N * 16; t++)
        for (int i = 0; i < DIM / 2; i++) {
            angle[t][i] = (double)rand_normal() * 3;
            int at = t / 16 * 16 * DIM + 2 * i * 16 + t % 16;
            cs[at] = cs[at + 16] = (float)cos(angle[t][i]);
            sn[at + 16] = (float)sin(angle[t][i]);
            sn[at] = -sn[at + 16];
        }
    for (int i = 0; i < 5 * n_set; i++) {
        struct backend *be = open_backend(sets[i / 5], 4, 64, TURN_HKV, TURN_HKV, TURN_D);
        enum kv_type type = (enum kv_type)(KV_F32 + i % 5);
        size_t part = kv_head_bytes(type, TURN_D), bytes = HEADS * part;
        struct kv_layer kv = {be->alloc(be, bytes),
                              be->alloc(be, bytes),
                              TURN_HKV * part,
                              type,
                              TURN_HKV,
                              TURN_D};
        char *before = xmalloc(bytes);
        for (int h = 0; h < HEADS; h++)
            for (int t = 0; t < 16; t++) {
                float x[TURN_D];
                rand_fill(x, TURN_D, 3);
                if (h == 0 &&
                    type != KV_I8) /* a pair that f16 can't hold everywhere, nor fp8 */
                    x[0] = x[1] = 60000;
                sets[i / 5]->kv_put(&kv, x, x, t, (char *)kv.k + (size_t)h * part, kv.v);
            }
        memcpy(before, kv.k, bytes);
        be->kv_turn(be, &kv, blocks, N, cs, sn, DIM);
        for (int h = 0; h < HEADS; h++) {
            int n = 0;
            while (n < N && blocks[n] != h / TURN_HKV)
                n++;
            check_turned(&kv, be->kernels, before + (size_t)h * part,
                         (char *)kv.k + (size_t)h * part, n < N ? angle + n * 16 : NULL);
        }
        free(before);
        be->free(be, kv.k);
        be->free(be, kv.v);
        be->close(be);
    }
}

int main(void) {
    n_set = cpu_kernel_sets(sets);
    for (int i = 0; i < n_set; i++)
        print_message("kernel set %d: %s\n", i, sets[i]->name);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matmul_gives_each_output_its_kind_of_input),
        cmocka_unit_test(matmul_q4_holds_at_the_extremes),
        cmocka_unit_test(norms_equal_their_definition),
        cmocka_unit_test(rows_equal_reference),
        cmocka_unit_test(activations_equal_their_definition),
        cmocka_unit_test(act_survives_large_inputs),
        cmocka_unit_test(act_and_cap_keep_what_is_not_a_number),
        cmocka_unit_test(cap_equals_its_definition),
        cmocka_unit_test(f16_rounds_to_even_and_saturates),
        cmocka_unit_test(embed_gives_the_rows_of_the_table),
        cmocka_unit_test(ffn_equals_its_parts),
        cmocka_unit_test(matmul_adds_the_bias_once),
        cmocka_unit_test(norm_of_heads_normalises_each),
        cmocka_unit_test(rows_are_permuted_gathered_and_scattered),
        cmocka_unit_test(keys_are_turned_in_their_blocks_alone),
        cmocka_unit_test(scale_caps_and_clears_rows_of_any_stride),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
