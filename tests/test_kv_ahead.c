/*
 * test_kv_ahead.c - what is asked for ahead of an attention is the KV that it will read, all of
 * it and once, and asking changes no product.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/cpu/cpu_internal.h"
#include "engine/quant/pack.h"
#include "rand.h"
#include <stdlib.h>
#include <string.h>

enum { N_SEQ = 5, BLOCKS = 64, HKV = 3, D = 24, LINE = 64, MAX_TOK = 64 };

/* Sequences at and off the borders of blocks, the last one a piece of a prompt. */
static const int n_past[N_SEQ] = {0, 15, 16, 100, 299}, n_tok[N_SEQ] = {1, 2, 1, 3, 40};

struct world {
    struct backend *be;
    struct step_seq seqs[N_SEQ];
    struct step step;
    int32_t blocks[BLOCKS];
    char *pool;
    struct kv_layer kv;
    size_t part; /* bytes of the keys, or values, of a block */
};

static void world_open(struct world *w, const struct cpu_kernels *k, int threads,
                       enum kv_type type) {
    struct err err = {0};
    struct backend_limits lim = {MAX_TOK, 512, HKV, HKV, D, false};
    *w = (struct world){.step = {.seqs = w->seqs, .n_seq = N_SEQ}};
    assert_int_equal(cpu_backend_new(k, threads, &w->be, &err), ST_OK);
    assert_int_equal(w->be->reserve(w->be, &lim, &err), ST_OK);
    int at = 0;
    for (int i = 0; i < BLOCKS; i++)
        w->blocks[i] = i ^ 9; /* not in order */
    for (int i = 0; i < N_SEQ; i++) {
        w->seqs[i] = (struct step_seq){w->step.T, n_tok[i], n_past[i], w->blocks + at};
        w->step.T += n_tok[i];
        at += (n_past[i] + n_tok[i] + 15) / 16;
    }
    assert_true(at <= BLOCKS && w->step.T <= MAX_TOK);
    w->kv = (struct kv_layer){.type = type, .Hkv = HKV, .D = D};
    w->part = HKV * kv_head_bytes(type, D);
    w->kv.stride = 3 * w->part + 128; /* keys, a gap, values, a gap */
    w->kv.k = w->pool = w->be->alloc(w->be, BLOCKS * w->kv.stride);
    w->kv.v = w->pool + 2 * w->part;
}

static void world_close(struct world *w) {
    w->be->free(w->be, w->pool);
    w->be->close(w->be);
}

static bool any_left(const struct world *w) {
    bool left = false;
    for (int i = 0; i < w->be->threads; i++)
        left = left || kv_ahead_left(&cpu_of(w->be)->scratch[i].ahead);
    return left;
}

/* How often each line of the pool's is asked for, [pool bytes / LINE], and how many in all. */
static int asked(struct world *w, uint8_t *times) {
    int n = 0;
    memset(times, 0, BLOCKS * w->kv.stride / LINE);
    for (int i = 0; i < w->be->threads; i++) {
        struct kv_ahead *a = &cpu_of(w->be)->scratch[i].ahead;
        while (kv_ahead_next(a))
            for (; a->at < a->stop; a->at += LINE, n++) {
                assert_true(a->at >= w->pool && a->at < w->pool + BLOCKS * w->kv.stride);
                times[(a->at - w->pool) / LINE]++;
            }
        assert_false(kv_ahead_left(a));
    }
    return n;
}

static void all_that_is_read_is_asked_for_once(void **state) {
    static const enum kv_type types[] = {KV_F32, KV_F16, KV_BF16, KV_I8, KV_FP8};
    static const int windows[] = {0, 1, 20, 100};
    (void)state;
    for (int threads = 1; threads <= 7; threads += 3)
        for (size_t i = 0; i < 20; i++) {
            struct world w;
            int window = windows[i / 5], expected = 0;
            world_open(&w, &cpu_scalar, threads, types[i % 5]);
            uint8_t *times = xcalloc(BLOCKS, w.kv.stride / LINE);
            w.be->begin(w.be, &w.step);
            w.be->expect(w.be, &w.kv, window);
            int n = asked(&w, times);
            for (int s = 0; s < N_SEQ; s++) {
                const struct step_seq *q = &w.seqs[s];
                int see = window > 0 ? q->n_past + 1 - window : 0;
                for (int b = (see > 0 ? see : 0) / 16; b < (q->n_past + q->n_tok + 15) / 16;
                     b++)
                    for (int v = 0; v < 2; v++) {
                        const char *p = (const char *)(v ? w.kv.v : w.kv.k);
                        p += (size_t)q->blocks[b] * w.kv.stride;
                        for (size_t at = 0; at < w.part; at += LINE, expected++)
                            assert_int_equal(times[(p + at - w.pool) / LINE], 1);
                    }
            }
            assert_int_equal(n, expected);
            free(times);
            world_close(&w);
        }
}

static void nothing_is_expected_beyond_a_step(void **state) {
    struct world w;
    struct err err;
    (void)state;
    world_open(&w, &cpu_scalar, 2, KV_F16);
    assert_false(any_left(&w));
    w.be->begin(w.be, &w.step);
    assert_false(any_left(&w));
    w.be->expect(w.be, &w.kv, 0);
    assert_true(any_left(&w));
    assert_int_equal(w.be->finish(w.be, &err), ST_OK);
    assert_false(any_left(&w));
    assert_false(kv_ahead_left(NULL));
    world_close(&w);
}

/* y = x wt^T for the step's tokens; whether KV was asked for on the way. */
static bool products(struct world *w, const struct weight *wt, bool expect, const float *x,
                     float *y) {
    bool asked = false;
    struct err err;
    const struct matmul_out out = {wt, y, (size_t)weight_pad_k(wt->N), NULL};
    w->be->begin(w->be, &w->step);
    if (expect)
        w->be->expect(w->be, &w->kv, 0);
    w->be->matmul(w->be, x, w->step.T, wt->K, &out, 1);
    for (int i = 0; i < w->be->threads; i++)
        asked = asked || cpu_of(w->be)->scratch[i].ahead.at;
    assert_int_equal(w->be->finish(w->be, &err), ST_OK);
    return asked;
}

/* The sets whose products ask for KV. */
static bool asks(const struct cpu_kernels *k) {
#if defined(__x86_64__)
    return k == &cpu_avx512_vbmi || k == &cpu_avx512_bf16;
#else
    (void)k;
    return false;
#endif
}

static void asking_changes_no_product(void **state) {
    enum { N = 333, K = 448, G = K / 32 };
    static const float table[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
    const struct cpu_kernels *sets[8];
    int n_set = cpu_kernel_sets(sets);
    float *x = xcalloc((size_t)N * K, sizeof *x), *y[2];
    uint8_t *code = xcalloc(N, K);
    (void)state;
    rand_fill(x, (size_t)N * K, 1);
    for (int i = 0; i < N * K; i++)
        code[i] = rand_u32() & 15;
    for (int i = 0; i < 2; i++)
        y[i] = xcalloc(MAX_TOK, (size_t)weight_pad_k(N) * sizeof(float));
    for (int i = 0; i < n_set * 4; i++) {
        struct world w;
        struct weight wt;
        enum weight_type type = i % 2 ? WEIGHT_I8 : WEIGHT_Q4;
        if (i % 4 < 2)
            weight_pack(&wt, type, x, N, K);
        else /* groups of 32 with minimums */
            weight_pack_codes(&wt, type, N, K, 32, code, x, x + N * G, table);
        world_open(&w, sets[i / 4], 2, KV_F16);
        for (int expect = 0; expect < 2; expect++)
            assert_int_equal(products(&w, &wt, expect, x, y[expect]),
                             expect && asks(sets[i / 4]));
        for (int t = 0; t < w.step.T; t++) {
            size_t at = (size_t)t * (size_t)weight_pad_k(N);
            assert_memory_equal(y[0] + at, y[1] + at, N * sizeof(float));
        }
        world_close(&w);
        weight_pack_release(&wt);
    }
    free(x);
    free(code);
    free(y[0]);
    free(y[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_that_is_read_is_asked_for_once),
        cmocka_unit_test(nothing_is_expected_beyond_a_step),
        cmocka_unit_test(asking_changes_no_product),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
