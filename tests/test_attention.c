/*
 * test_attention.c - attention of every kernel set against its definition in double, and its
 * bits however the tokens are cut.
 *
 * Bounds. Scores here are below 20; in f32 they are off by D 2^-24 sum|q k| < 2e-5 (f16 keys
 * are rounded for both sides), which is the relative error of a weight. The result is a mean of
 * values below 6, so 2e-4 covers it with exp, cap and the merging of chunks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/cpu/cpu.h"
#include "engine/quant/quant.h"
#include "rand.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 80, MAX_HEAD = 40 };

static const struct cpu_kernels *sets[8];
static int n_set;

struct att_case {
    int H, Hkv, D, n_past, n_tok;
    bool f16;
    float cap;
    int window;
    bool alibi, scaled, sinks;
};

/* What a case computes with: the same for every kernel set. */
struct world {
    const struct att_case *c;
    struct backend *be;
    struct kv_layer kv;
    struct att_op op;
    float *q, *k, *v, *pool; /* q [n_tok, H * D], k and v [n_past + n_tok, Hkv * D] */
    float slopes[MAX_HEAD], sinks[MAX_HEAD];
    int32_t blocks[BLOCKS];
    size_t ldq, ldk;
};

static float *matrix(struct backend *be, int T, int K, float scale) {
    size_t ld = (size_t)weight_pad_k(K);
    float *x = be->alloc(be, (size_t)T * ld * sizeof *x);
    for (int t = 0; t < T; t++)
        rand_fill(x + (size_t)t * ld, (size_t)K, scale);
    return x;
}

static void world_open(struct world *w, const struct cpu_kernels *kernels,
                       const struct att_case *c) {
    int n_all = c->n_past + c->n_tok, KV = c->Hkv * c->D;
    struct err err = {0};
    struct backend_limits lim = {n_all, 64, c->H, c->Hkv, c->D};
    *w = (struct world){
        .c = c, .ldq = (size_t)weight_pad_k(c->H * c->D), .ldk = (size_t)weight_pad_k(KV)};
    assert_true(n_all <= BLOCKS * 16 && c->H <= MAX_HEAD);
    assert_int_equal(cpu_backend_new(kernels, 2, &w->be, &err), ST_OK);
    assert_int_equal(w->be->reserve(w->be, &lim, &err), ST_OK);
    rand_state = 7;
    w->q = matrix(w->be, c->n_tok, c->H * c->D, 1);
    w->k = matrix(w->be, n_all, KV, 1.5f);
    w->v = matrix(w->be, n_all, KV, 1);
    rand_fill(w->sinks, MAX_HEAD, 2);
    for (int h = 0; h < MAX_HEAD; h++)
        w->slopes[h] = 1.0f / (float)(h + 2);
    size_t part = (size_t)KV * 16 * BLOCKS * (c->f16 ? 2 : 4);
    w->pool = w->be->alloc(w->be, 2 * part);
    memset(w->pool, 0x7e, 2 * part); /* NaN in f16: what isn't written may not be used */
    w->kv = (struct kv_layer){w->pool, (char *)w->pool + part, c->f16, c->Hkv, c->D};
    w->op = (struct att_op){.scale = c->D > 64 ? 0.08f : (float)(1 / sqrt(c->D)),
                            .cap = c->cap,
                            .window = c->window,
                            .slopes = c->alibi ? w->slopes : NULL,
                            .alibi_scaled = c->scaled,
                            .sinks = c->sinks ? w->sinks : NULL};
    for (int i = 0; i < BLOCKS; i++)
        w->blocks[i] = i ^ 5; /* not in order */
    struct step_seq seq = {0, n_all, 0, w->blocks};
    struct step s = {.T = n_all, .seqs = &seq, .n_seq = 1};
    w->be->begin(w->be, &s);
    w->be->kv_write(w->be, &w->kv, w->k, w->v);
    assert_int_equal(w->be->finish(w->be, &err), ST_OK);
}

static void world_close(struct world *w) {
    struct backend *be = w->be;
    be->free(be, w->q);
    be->free(be, w->k);
    be->free(be, w->v);
    be->free(be, w->pool);
    be->close(be);
}

/* Attention of tokens from .. from + n - 1 of the case's own. */
static void run(struct world *w, int from, int n, float *out) {
    struct err err = {0};
    struct step_seq seq = {0, n, w->c->n_past + from, w->blocks};
    struct step s = {.T = n, .seqs = &seq, .n_seq = 1};
    w->be->begin(w->be, &s);
    w->be->attention(w->be, &w->kv, &w->op, w->c->H, w->q + (size_t)from * w->ldq, out);
    assert_int_equal(w->be->finish(w->be, &err), ST_OK);
}

static double cached(const struct world *w, const float *x, int pos, int at) {
    float f = x[(size_t)pos * w->ldk + (size_t)at];
    return (double)(w->c->f16 ? cpu_f16_to_f32(cpu_f32_to_f16(f)) : f);
}

/* The definition, head h of token t: out [D]. */
static void definition(const struct world *w, int t, int h, double *out) {
    const struct att_case *c = w->c;
    int D = c->D, hk = h / (c->H / c->Hkv), pos = c->n_past + t;
    int from = c->window && pos + 1 > c->window ? pos + 1 - c->window : 0;
    double sum = c->sinks ? exp((double)w->sinks[h]) : 0;
    for (int d = 0; d < D; d++)
        out[d] = 0;
    for (int j = from; j <= pos; j++) {
        double s = 0, scale = (double)w->op.scale;
        for (int d = 0; d < D; d++)
            s += (double)w->q[(size_t)t * w->ldq + (size_t)(h * D + d)] *
                 cached(w, w->k, j, hk * D + d);
        s *= scale;
        if (c->cap > 0)
            s = (double)c->cap * tanh(s / (double)c->cap);
        if (c->alibi && c->scaled) { /* the same shift for all: from the token's own position */
            s += scale * (double)bf16_to_f32(bf16_from_f32(w->slopes[h] * (float)j));
            s -= scale * (double)bf16_to_f32(bf16_from_f32(w->slopes[h] * (float)pos));
        } else if (c->alibi) {
            s += (double)w->slopes[h] * (j - pos);
        }
        sum += exp(s);
        for (int d = 0; d < D; d++)
            out[d] += exp(s) * cached(w, w->v, j, hk * D + d);
    }
    for (int d = 0; d < D; d++)
        out[d] /= sum;
}

static const struct att_case cases[] = {
    {9, 3, 64, 0, 50, true, 0, 0, 0, 0, 0},
    {9, 3, 64, 0, 50, false, 0, 0, 0, 0, 0},
    {9, 3, 64, 300, 1, true, 0, 0, 0, 0, 0},
    {4, 4, 80, 17, 20, true, 0, 0, 0, 0, 0},
    {4, 4, 80, 255, 3, false, 0, 0, 0, 0, 0},
    {8, 1, 100, 5, 9, true, 0, 0, 0, 0, 0},
    {40, 1, 16, 30, 2, true, 0, 0, 0, 0, 0},
    {2, 1, 256, 3, 5, true, 0, 0, 0, 0, 0},
    {2, 2, 10, 250, 12, true, 0, 0, 0, 0, 0},
    {6, 2, 128, 511, 1, true, 0, 0, 0, 0, 0},
    {3, 3, 6, 0, 1, false, 0, 0, 0, 0, 0},
    {32, 2, 64, 600, 2, true, 0, 0, 0, 0, 0},
    {9, 3, 64, 250, 40, true, 0, 0, 0, 0, 0},
    {2, 1, 34, 767, 1, false, 0, 0, 0, 0, 0},
    /* windows: shorter and longer than the text, borders of blocks and chunks inside a tile */
    {4, 2, 32, 0, 40, false, 0, 1, 0, 0, 0},
    {4, 2, 32, 0, 60, false, 0, 17, 0, 0, 0},
    {4, 2, 32, 500, 40, true, 0, 16, 0, 0, 0},
    {4, 2, 32, 240, 60, false, 0, 20, 0, 0, 0},
    {4, 2, 96, 700, 70, true, 0, 256, 0, 0, 0},
    {4, 2, 96, 700, 70, false, 0, 257, 0, 0, 0},
    {8, 4, 64, 511, 1, true, 0, 300, 0, 0, 0},
    {8, 4, 64, 1000, 1, true, 0, 513, 0, 0, 0},
    {1, 1, 48, 1000, 3, false, 0, 2, 0, 0, 0},
    {2, 1, 80, 100, 30, true, 0, 5000, 0, 0, 0},
    /* soft caps, alone and with a window */
    {4, 2, 256, 40, 20, true, 50, 0, 0, 0, 0},
    {4, 2, 96, 300, 20, false, 2, 0, 0, 0, 0},
    {8, 4, 256, 500, 10, true, 5, 270, 0, 0, 0},
    /* ALiBi, scaled and not; heads of a group have slopes of their own */
    {6, 6, 64, 30, 20, false, 0, 0, true, false, 0},
    {6, 2, 64, 250, 20, true, 0, 0, true, false, 0},
    {7, 1, 64, 300, 20, false, 0, 0, true, true, 0},
    {4, 2, 80, 600, 1, false, 3, 100, true, true, 0},
    /* sinks */
    {8, 2, 64, 0, 20, false, 0, 0, 0, 0, true},
    {8, 2, 64, 700, 3, true, 0, 128, 0, 0, true},
    {4, 2, 64, 290, 30, false, 10, 33, 0, 0, true},
};
enum { N_CASE = sizeof cases / sizeof *cases };

static void equals_its_definition(void **state) {
    (void)state;
    for (int i = 0; i < n_set; i++)
        for (int n = 0; n < N_CASE; n++) {
            const struct att_case *c = &cases[n];
            struct world w;
            double want[256];
            world_open(&w, sets[i], c);
            float *out = w.be->alloc(w.be, (size_t)c->n_tok * w.ldq * sizeof *out);
            run(&w, 0, c->n_tok, out);
            for (int t = 0; t < c->n_tok; t++)
                for (int h = 0; h < c->H; h++) {
                    const float *got = out + (size_t)t * w.ldq + (size_t)(h * c->D);
                    definition(&w, t, h, want);
                    for (int d = 0; d < c->D; d++)
                        if (!(fabs((double)got[d] - want[d]) <= 2e-4))
                            fail_msg("%s case %d token %d head %d [%d]: %g, want %g",
                                     sets[i]->name, n, t, h, d, (double)got[d], want[d]);
                }
            w.be->free(w.be, out);
            world_close(&w);
        }
}

/* All at once, one by one, and in uneven pieces. */
static void bits_do_not_depend_on_the_cut(void **state) {
    (void)state;
    static const int pieces[] = {3, 1, 7, 16, 2, 30, 64};
    for (int i = 0; i < n_set; i++)
        for (int n = 0; n < N_CASE; n++) {
            const struct att_case *c = &cases[n];
            struct world w;
            world_open(&w, sets[i], c);
            size_t bytes = (size_t)c->n_tok * w.ldq * sizeof(float);
            float *whole = w.be->alloc(w.be, bytes), *cut = w.be->alloc(w.be, bytes);
            run(&w, 0, c->n_tok, whole);
            for (int t = 0; t < c->n_tok; t++)
                run(&w, t, 1, cut + (size_t)t * w.ldq);
            assert_memory_equal(whole, cut, bytes);
            for (int t = 0, p = 0; t < c->n_tok; p++) {
                int k = pieces[p] < c->n_tok - t ? pieces[p] : c->n_tok - t;
                run(&w, t, k, cut + (size_t)t * w.ldq);
                t += k;
            }
            assert_memory_equal(whole, cut, bytes);
            w.be->free(w.be, whole);
            w.be->free(w.be, cut);
            world_close(&w);
        }
}

/* What lies outside the window is not even read: it is poisoned here. */
static void keys_outside_the_window_are_not_used(void **state) {
    (void)state;
    static const struct att_case c = {4, 2, 64, 900, 20, false, 0, 40, 0, 0, 0};
    for (int i = 0; i < n_set; i++) {
        struct world w;
        world_open(&w, sets[i], &c);
        size_t n = (size_t)c.n_tok * w.ldq, block = (size_t)(c.Hkv * c.D * 16);
        float *out = w.be->alloc(w.be, n * sizeof *out), *again = w.be->alloc(w.be, n * 4);
        run(&w, 0, c.n_tok, out);
        for (int b = 0; b < (900 + 1 - 40) / 16; b++)
            for (size_t e = 0; e < block; e++) {
                ((float *)w.kv.k)[(size_t)w.blocks[b] * block + e] = NAN;
                ((float *)w.kv.v)[(size_t)w.blocks[b] * block + e] = NAN;
            }
        run(&w, 0, c.n_tok, again);
        assert_memory_equal(out, again, n * sizeof *out);
        w.be->free(w.be, out);
        w.be->free(w.be, again);
        world_close(&w);
    }
}

/* The written cache is the same for every kernel set. */
static void cache_equals_that_of_the_reference(void **state) {
    (void)state;
    for (int n = 0; n < 12; n++) {
        struct world ref, w;
        const struct att_case *c = &cases[n];
        size_t bytes = (size_t)(c->Hkv * c->D) * 2 * 16 * BLOCKS * (c->f16 ? 2 : 4);
        world_open(&ref, &cpu_scalar, c);
        for (int i = 0; i < n_set; i++) {
            world_open(&w, sets[i], c);
            assert_memory_equal(ref.pool, w.pool, bytes);
            world_close(&w);
        }
        world_close(&ref);
    }
}

int main(void) {
    n_set = cpu_kernel_sets(sets);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_its_definition),
        cmocka_unit_test(bits_do_not_depend_on_the_cut),
        cmocka_unit_test(keys_outside_the_window_are_not_used),
        cmocka_unit_test(cache_equals_that_of_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
