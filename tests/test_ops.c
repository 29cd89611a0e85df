/*
 * test_ops.c - every kernel set that this CPU has, held against the scalar reference, operation
 * by operation.
 *
 * Bounds. A sum of K products in f32, in any order and with or without fused steps, is off by
 * at most K 2^-24 sum|x w|; two such sums by twice that. Int16 activations are off by absmax/(2
 * * 8191) each, the int16 table of Q4 by absmax/(2 * 4095): this times the other factor is
 * summed for each output. exp is good to 2e-7 of its value (test: 1e-6). f16 values agree in
 * all but a tie's last bit, because both sides round to nearest even.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/cpu/cpu.h"
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
    struct backend_limits lim = {T, K, H, Hkv, D};
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

/* What one output may be off by. */
static float mm_bound(const struct weight *w, const float *row, int n, const float *x) {
    float sum = 0, steps = 0;
    for (int g = 0; g * 64 < w->K; g++) {
        float top = 0, aw = w->type == WEIGHT_Q4 ? fabsf(weight_group_scale(w, n, g)) : 0;
        int end = g * 64 + 64 < w->K ? g * 64 + 64 : w->K;
        for (int k = g * 64; k < end; k++)
            top = fmaxf(top, fabsf(x[k]));
        for (int k = g * 64; k < end; k++) {
            sum += fabsf(x[k] * row[k]);
            steps += fabsf(row[k]) * top / 16382 + fabsf(x[k]) * aw / 8190;
        }
    }
    bool exact = w->type == WEIGHT_F32 || w->type == WEIGHT_BF16;
    /* 1.01: both roundings at once; 1e-6: the scales of Q4 come from a formula */
    return 2 * (float)(w->K + 4) * EPS * sum + (exact ? 0 : 1.01f * steps + 1e-6f * sum);
}

static void check_matmul(const struct cpu_kernels *k, enum weight_type type, int T, int N,
                         int K) {
    struct backend *be = open_backend(k, T, K, 1, 1, 64);
    struct backend *ref = open_backend(&cpu_scalar, T, K, 1, 1, 64);
    float *wf = xcalloc((size_t)N * (size_t)K, sizeof *wf),
          *row = xcalloc((size_t)K, sizeof *row);
    float *x = matrix(be, T, K, 1), *y, *z;
    size_t ldx = (size_t)weight_pad_k(K), ldy = (size_t)N + GUARD, n_y = (size_t)T * ldy;
    struct weight w;
    rand_fill(wf, (size_t)N * (size_t)K, 0.1f);
    weight_pack(&w, type, wf, N, K);
    y = xcalloc(n_y, sizeof *y);
    z = xcalloc(n_y, sizeof *z);
    for (int add = 0; add < 2; add++) {
        for (size_t i = 0; i < n_y; i++)
            y[i] = z[i] = guard;
        struct matmul_out oy = {&w, y, ldy}, oz = {&w, z, ldy};
        if (add) {
            be->matmul_add(be, x, T, K, &oy);
            ref->matmul_add(ref, x, T, K, &oz);
        } else {
            be->matmul(be, x, T, K, &oy, 1);
            ref->matmul(ref, x, T, K, &oz, 1);
        }
        for (int n = 0; n < N; n++) {
            weight_unpack_row(&w, n, row);
            for (int t = 0; t < T; t++) {
                float a = y[(size_t)t * ldy + (size_t)n], b = z[(size_t)t * ldy + (size_t)n];
                float bound =
                    mm_bound(&w, row, n, x + (size_t)t * ldx) + (add ? guard * EPS * 2 : 0);
                if (!(fabsf(a - b) <= bound))
                    fail_msg("%s %s T %d N %d K %d add %d: y[%d, %d] = %g, want %g +- %g",
                             k->name, weight_type_name(type), T, N, K, add, t, n, (double)a,
                             (double)b, (double)bound);
            }
        }
        for (int t = 0; t < T; t++)
            for (int i = 0; i < GUARD; i++)
                assert_true(y[(size_t)t * ldy + (size_t)(N + i)] == guard);
    }
    weight_pack_release(&w);
    be->free(be, x);
    free(wf);
    free(row);
    free(y);
    free(z);
    be->close(be);
    ref->close(ref);
}

static void matmul_equals_reference_for_every_type_and_shape(void **state) {
    (void)state;
    static const int tokens[] = {1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 17, 24, 31, 33};
    static const struct {
        int N, K;
    } shapes[] = {{16, 64}, {1, 1}, {33, 72}, {90, 200}, {48, 576}, {70, 129}};
    for (int i = 0; i < n_set; i++)
        for (int type = WEIGHT_F32; type <= WEIGHT_Q4; type++)
            for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
                for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++)
                    check_matmul(sets[i], (enum weight_type)type, tokens[t], shapes[s].N,
                                 shapes[s].K);
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
        double bound = (sets[i]->quantize ? 2 * K / 64 : K) * (double)EPS + 2e-6;
        for (size_t k = 0; k < (size_t)N * K; k++)
            wf[k] = (float)(1 + k / 64 % 97);
        for (size_t k = 0; k < (size_t)T * K; k++)
            x[k] = 3;
        for (int type = WEIGHT_I8; type <= WEIGHT_Q4; type++) {
            weight_pack(&w, (enum weight_type)type, wf, N, K);
            be->matmul(be, x, T, K, &(struct matmul_out){&w, y, N}, 1);
            for (int n = 0; n < N; n++) {
                double want = 0; /* all weights of a group are its scale, to the last step */
                for (int g = 0; g < K / 64; g++)
                    want += 64.0 * 3 * (double)weight_group_scale(&w, n, g) *
                            (type == WEIGHT_I8 ? 127 : 1);
                for (int t = 0; t < T; t++)
                    assert_true(fabs((double)y[t * N + n] / want - 1) < bound);
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

static void rows_equal_reference(void **state) {
    (void)state;
    static const int sizes[] = {1, 2, 6, 15, 16, 17, 31, 64, 72, 100, 577};
    float x[600], g[600], y[600], z[600];
    for (int i = 0; i < n_set; i++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            const struct cpu_kernels *k = sets[i];
            int n = sizes[s];
            size_t bytes = (size_t)(n + 1) * sizeof *x;
            rand_fill(x, 600, 3);
            rand_fill(g, 600, 1);
            y[n] = z[n] = guard;
            k->norm(x, g, 1e-5f, n, y);
            cpu_scalar.norm(x, g, 1e-5f, n, z);
            /* relative: half the error of a sum of n squares, and four roundings */
            close_to("norm", k, y, z, (size_t)n, (float)(n + 8) * EPS, 0);
            k->act(x, g, n, y);
            cpu_scalar.act(x, g, n, z);
            close_to("act", k, y, z, (size_t)n, 1e-6f, 0);
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

static void act_survives_large_inputs(void **state) {
    (void)state;
    float g[] = {-1000, -100, -88, 0, 88, 100, 1000}, u[] = {1, 1, 1, 1, 1, 1, 1}, y[7];
    for (int i = 0; i < n_set; i++) {
        sets[i]->act(g, u, 7, y);
        for (int j = 0; j < 3; j++)
            assert_true(y[j] <= 0 && y[j] > -1e-30f);
        for (int j = 3; j < 7; j++)
            assert_true(fabsf(y[j] - g[j]) <= 1e-6f * g[j]);
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

struct att_case {
    int H, Hkv, D, n_past, n_tok;
    bool f16;
};

static void check_attention(const struct cpu_kernels *kernels, const struct att_case *c) {
    enum { BLOCKS = 64 };
    int T = c->n_tok, Q = c->H * c->D, KV = c->Hkv * c->D, n_all = c->n_past + T;
    struct backend *be[2] = {open_backend(kernels, n_all, 64, c->H, c->Hkv, c->D),
                             open_backend(&cpu_scalar, n_all, 64, c->H, c->Hkv, c->D)};
    size_t part = (size_t)KV * 16 * BLOCKS * (c->f16 ? 2 : 4), ld = (size_t)weight_pad_k(Q);
    float *q = matrix(be[0], T, Q, 1), *k = matrix(be[0], n_all, KV, 1.5f);
    float *v = matrix(be[0], n_all, KV, 1), *out[2];
    void *pool[2];
    int32_t blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = i ^ 5; /* not in order */
    for (int b = 0; b < 2; b++) {
        pool[b] = be[b]->alloc(be[b], 2 * part);
        memset(pool[b], 0x7e, 2 * part); /* NaN in f16: what isn't written may not be used */
        struct kv_layer kv = {pool[b], (char *)pool[b] + part, c->f16, c->Hkv, c->D};
        struct step_seq seq = {0, n_all, 0, blocks};
        struct step s = {.T = n_all, .seqs = &seq, .n_seq = 1};
        be[b]->begin(be[b], &s);
        be[b]->kv_write(be[b], &kv, k, v);
        seq = (struct step_seq){0, T, c->n_past, blocks};
        s.T = T;
        be[b]->begin(be[b], &s);
        out[b] = be[b]->alloc(be[b], (size_t)T * ld * sizeof(float));
        be[b]->attention(be[b], &kv, c->H, q, out[b]);
    }
    if (c->f16)
        assert_memory_equal(pool[0], pool[1], 2 * part);
    /* scores up to about 12 are off by D 2^-24 sum|q k| < 1e-5, which is p's relative error;
     * |v| < 6 */
    for (int t = 0; t < T; t++)
        close_to("attention", kernels, out[0] + (size_t)t * ld, out[1] + (size_t)t * ld, ld, 0,
                 1e-4f);
    be[0]->free(be[0], q);
    be[0]->free(be[0], k);
    be[0]->free(be[0], v);
    for (int b = 0; b < 2; b++) {
        be[b]->free(be[b], out[b]);
        be[b]->free(be[b], pool[b]);
        be[b]->close(be[b]);
    }
}

static void attention_equals_reference_for_heads_sizes_and_pasts(void **state) {
    (void)state;
    static const struct att_case cases[] = {
        {9, 3, 64, 0, 50, true},   {9, 3, 64, 0, 50, false},  {9, 3, 64, 300, 1, true},
        {4, 4, 80, 17, 20, true},  {4, 4, 80, 255, 3, false}, {8, 1, 100, 5, 9, true},
        {40, 1, 16, 30, 2, true},  {2, 1, 256, 3, 5, true},   {2, 2, 10, 250, 12, true},
        {6, 2, 128, 511, 1, true}, {3, 3, 6, 0, 1, false},    {32, 2, 64, 600, 2, true},
        {9, 3, 64, 250, 40, true}, {2, 1, 34, 767, 1, false},
    };
    for (int i = 0; i < n_set; i++)
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
            check_attention(sets[i], &cases[c]);
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
        struct step s = {.T = T, .tokens = tokens};
        weight_pack(&w, (enum weight_type)type, wf, N, K);
        be->begin(be, &s);
        be->embed(be, &w, x);
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

/* The fused feed-forward is what the graph would compose. */
static void ffn_equals_its_parts(void **state) {
    (void)state;
    enum { K = 96, F = 139 };
    for (int i = 0; i < n_set; i++)
        for (int T = 1; T < 40; T += 13) {
            struct backend *be = open_backend(sets[i], T, F, 1, 1, 64);
            size_t ld = (size_t)weight_pad_k(F);
            float *wf = xcalloc(K * F, sizeof *wf), *x = matrix(be, T, K, 1);
            float *g = matrix(be, T, F, 0), *u = matrix(be, T, F, 0), *y = matrix(be, T, F, 0);
            struct weight gate, up;
            rand_fill(wf, K * F, 0.3f);
            weight_pack(&gate, WEIGHT_Q4, wf, F, K);
            rand_fill(wf, K * F, 0.3f);
            weight_pack(&up, WEIGHT_I8, wf, F, K);
            struct matmul_out out[] = {{&gate, g, ld}, {&up, u, ld}};
            be->matmul(be, x, T, K, out, 2);
            be->act(be, g, u, T, F, g);
            be->ffn(be, x, T, K, &gate, &up, y);
            close_to("ffn", sets[i], y, g, (size_t)T * ld, 1e-6f, 0);
            weight_pack_release(&gate);
            weight_pack_release(&up);
            free(wf);
            be->free(be, x);
            be->free(be, g);
            be->free(be, u);
            be->free(be, y);
            be->close(be);
        }
}

int main(void) {
    n_set = cpu_kernel_sets(sets);
    for (int i = 0; i < n_set; i++)
        print_message("kernel set %d: %s\n", i, sets[i]->name);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matmul_equals_reference_for_every_type_and_shape),
        cmocka_unit_test(matmul_q4_holds_at_the_extremes),
        cmocka_unit_test(rows_equal_reference),
        cmocka_unit_test(act_survives_large_inputs),
        cmocka_unit_test(f16_rounds_to_even_and_saturates),
        cmocka_unit_test(attention_equals_reference_for_heads_sizes_and_pasts),
        cmocka_unit_test(embed_gives_the_rows_of_the_table),
        cmocka_unit_test(ffn_equals_its_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
