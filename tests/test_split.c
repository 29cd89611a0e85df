/*
 * test_split.c - a model of which the CPU has a part and a GPU the rest (the host shim, or a
 * real one), at every place where it can be cut; what each layer may be is in test_layer.c.
 *
 * Bounds, of the logits' deviation. Weights and cache in f32: 1e-4, as in test_layer.c. The CPU
 * is the scalar reference, whose products are f32; the GPU's of more than a few tokens, and a
 * cache in bf16, round to 2^-9 at most, as noise a third of that, in at most 7 products, 2 keys
 * and 2 values of each of 4 layers: sqrt(44) * 2^-9 / 3 is 0.5 %, and 3 % is far above it. A
 * cache in fp8 rounds to 2^-4 at most: sqrt(16) * 2^-4 / 3 is 8 %, and 25 % is as far above.
 * The wrong block, layer or position makes logits of other numbers: an error of 1.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cuda_device.h"
#include "engine/backend.h"
#include "engine/quant/pack.h"
#include "engine/run/graph.h"
#include "rand.h"
#include "toy_model.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_LAYER = 4,
    WHOLE_CPU = -2, /* a place to cut: no GPU; 0: all on the GPU; else layers there */
};

static float want[N_TOK * V], got[N_TOK * V];

/* WHOLE_CPU, 0, 1 .. */
static int next_cut(int cut) {
    return cut == WHOLE_CPU ? 0 : cut + 1;
}

static struct graph_params params_of(int cut, enum kv_type kv_type) {
    return (struct graph_params){.device = cut == WHOLE_CPU ? DEVICE_CPU : DEVICE_CUDA,
                                 .threads = 2,
                                 .kv_type = kv_type,
                                 .n_block = N_BLOCK,
                                 .max_tok = MAX_TOK,
                                 .gpu_layers = cut == WHOLE_CPU ? 0 : cut};
}

static enum status try_open(const struct graph_params *p, struct graph **g, struct err *err) {
    *g = NULL;
    setenv("LLMCHAT_CPU", "scalar", 1);
    enum status st = graph_open(&model, p, g, err);
    unsetenv("LLMCHAT_CPU");
    return st;
}

static struct graph *open_cut(int cut, enum kv_type kv_type) {
    struct graph_params p = params_of(cut, kv_type);
    struct graph *g;
    struct err err = {0};
    if (try_open(&p, &g, &err) != ST_OK)
        fail_msg("%s", err.msg);
    return g;
}

/* Tokens from .. from + n - 1 behind those before; logits of all of them. */
static void forward(struct graph *g, const int32_t *blocks, int from, int n, float *logits) {
    struct batch_seq s = {blocks, from, n, n, 0};
    struct err err = {0};
    assert_int_equal(graph_forward(g, &(struct batch){tokens + from, n, &s, 1}, logits, &err),
                     ST_OK);
}

static double deviation(const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum / (double)n);
}

/* Rows [n, V] that are of tokens from .. in `want`. */
static void check(const char *what, int cut, const float *rows, int from, int n, double limit) {
    static float off[N_TOK * V];
    for (int i = 0; i < n * V; i++)
        off[i] = rows[i] - want[from * V + i];
    double noise = deviation(off, (size_t)n * V) / deviation(want, N_TOK * V);
    if (!(noise <= limit))
        fail_msg("%s, cut %d: noise %g of the logits, at most %g", what, cut, noise, limit);
}

static void make_wanted(enum weight_type linear, enum weight_type head, bool tied) {
    toy_make(N_LAYER, linear, head, tied);
    struct graph *g = open_cut(WHOLE_CPU, KV_AUTO);
    assert_false(graph_is_split(g));
    assert_int_equal(graph_gpu_layers(g), 0);
    forward(g, straight, 0, N_TOK, want);
    graph_close(g);
}

/* ---- what is computed ---- */

static void every_cut_computes_the_same(void **state) {
    (void)state;
    static const struct {
        enum weight_type linear, head;
        bool tied;
        double limit;
        enum kv_type kv_type; /* what auto is */
    } kinds[] = {{WEIGHT_F32, WEIGHT_F32, true, 1e-4, KV_F32},
                 {WEIGHT_F32, WEIGHT_F32, false, 1e-4, KV_F32},
                 {WEIGHT_Q4, WEIGHT_I8, true, 0.03, KV_BF16}};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k += SLOWLY ? 2 : 1) {
        make_wanted(kinds[k].linear, kinds[k].head, kinds[k].tied);
        for (int cut = 0; cut <= N_LAYER + 1; cut++) {
            struct graph *g = open_cut(cut, KV_AUTO);
            bool whole = cut == 0 || cut >= N_LAYER;
            assert_int_equal(graph_is_split(g), !whole);
            assert_int_equal(graph_gpu_layers(g), whole ? N_LAYER : cut);
            assert_string_equal(graph_device(g), "cuda");
            assert_int_equal(graph_kv_type(g), kinds[k].kv_type);
            forward(g, straight, 0, N_TOK, got);
            check("a prompt", cut, got, 0, N_TOK, kinds[k].limit);
            for (int t = N_TOK - (SLOWLY ? 5 : 13); t < N_TOK; t++) {
                forward(g, straight, t, 1, got);
                check("a token", cut, got, t, 1, kinds[k].limit);
            }
            graph_close(g);
        }
        toy_release();
    }
}

/* Sequences that decode together, from different lengths on. Most of their steps are recordings
 * of the GPU's part that run again, behind new data of the CPU's. */
static void steps_of_the_gpu_are_recorded(void **state) {
    (void)state;
    enum { SEQS = 3 };
    static const int begins[SEQS] = {0, 7, 20};
    int (*replays)(void) = NULL;
    void *f = shim_function("shim_replays");
    memcpy(&replays, &f, sizeof replays);
    make_wanted(WEIGHT_F32, WEIGHT_F32, true);
    for (int cut = 1; cut < N_LAYER; cut++) {
        struct graph *g = open_cut(cut, KV_AUTO);
        int32_t blocks[SEQS][4], at[SEQS];
        int before = f ? replays() : 0, n_step = 0;
        for (int s = 0; s < SEQS; s++) {
            for (int i = 0; i < 4; i++)
                blocks[s][i] = (s * 5 + 3 * i + 17) % N_BLOCK;
            at[s] = begins[s];
            if (at[s])
                forward(g, blocks[s], 0, at[s], got);
        }
        for (; at[SEQS - 1] < N_TOK; n_step++) {
            struct batch_seq seqs[SEQS];
            int32_t next[SEQS];
            struct err err;
            for (int s = 0; s < SEQS; s++) {
                seqs[s] = (struct batch_seq){blocks[s], at[s], 1, 1, 0};
                next[s] = tokens[at[s]];
            }
            struct batch b = {next, SEQS, seqs, SEQS};
            assert_int_equal(graph_forward(g, &b, got, &err), ST_OK);
            for (int s = 0; s < SEQS; s++)
                check("a sequence among others", cut, got + s * V, at[s]++, 1, 1e-4);
        }
        if (f) /* all but the first of each power of two */
            assert_true(replays() - before >= n_step - 3);
        graph_close(g);
    }
    toy_release();
}

/* The token whose logit is the largest, but for one. */
static int32_t best(const float *row, int32_t but) {
    int32_t found = but == 0;
    for (int32_t v = 0; v < V; v++)
        if (v != but && row[v] > row[found])
            found = v;
    return found;
}

/* Tokens from .. from + n - 1, and what is sampled behind each with a temperature of 0: the
 * best but for rounding, or, where a penalty of 1000 keeps that away, the second best. */
static void sample(struct graph *g, int from, int n, int cut) {
    struct batch_seq s = {straight, from, n, n, 0};
    struct batch b = {tokens + from, n, &s, 1};
    struct sample_token banned[N_TOK];
    struct sample_row rows[N_TOK];
    struct sample_got taken[N_TOK];
    struct err err = {0};
    assert_true(graph_can_sample(g, n));
    for (int t = 0; t < n; t++) {
        const float *row = want + (from + t) * V;
        banned[t] = (struct sample_token){.token = best(row, -1), .minus = 1000};
        rows[t] = (struct sample_row){
            .tokens = &banned[t], .n_token = t % 2, .repeat = 1, .top_p = 1, .unit = 0.5};
    }
    assert_int_equal(graph_sample(g, &b, rows, taken, &err), ST_OK);
    double near = 1e-3 * deviation(want, N_TOK * V); /* ten times what logits may be off */
    for (int t = 0; t < n; t++) {
        const float *row = want + (from + t) * V;
        int32_t token = taken[t].token, away = t % 2 ? banned[t].token : -1;
        assert_in_range(token, 0, V - 1);
        if (token == away || row[token] < (double)row[best(row, away)] - near)
            fail_msg("cut %d: behind token %d comes %d, wanted %d", cut, from + t, token,
                     best(row, away));
    }
}

/* A prompt, more rows than the device has logits at once, and steps that are recorded. */
static void tokens_are_sampled_where_the_head_is(void **state) {
    (void)state;
    make_wanted(WEIGHT_F32, WEIGHT_F32, true);
    for (int cut = WHOLE_CPU; cut < N_LAYER; cut = next_cut(cut)) {
        struct graph *g = open_cut(cut, KV_AUTO);
        if (cut == WHOLE_CPU) {
            assert_false(graph_can_sample(g, 1));
        } else {
            sample(g, 0, N_TOK - 13, cut);
            for (int t = N_TOK - 13; t < N_TOK; t++)
                sample(g, t, 1, cut);
        }
        graph_close(g);
    }
    toy_release();
}

/* ---- blocks ---- */

/* Blocks of a text's first n tokens, from one graph to another. */
static void bring(struct graph *from, struct graph *to, const int32_t *blocks, int n) {
    size_t bytes = graph_kv_block_bytes(&model, graph_kv_type(from));
    char *block = xmalloc(bytes), *again = xmalloc(bytes);
    for (int i = 0; i < kv_blocks(n); i++) {
        int used = n - i * KV_BLOCK < KV_BLOCK ? n - i * KV_BLOCK : KV_BLOCK;
        memset(block, 0x55, bytes);
        graph_read_block(from, straight[i], used, block);
        graph_write_block(to, blocks[i], block);
        graph_read_block(to, blocks[i], used, again);
        assert_memory_equal(block, again, bytes);
    }
    free(block);
    free(again);
}

static void a_state_is_read_however_its_model_is_split(void **state) {
    (void)state;
    static const int32_t there[] = {40, 12, 41, 7};
    static const struct {
        enum kv_type type;
        double limit; /* test_graph.c has int8's */
    } kinds[] = {{KV_F32, 1e-4}, {KV_BF16, 0.03}, {KV_I8, 0.05}, {KV_FP8, 0.25}};
    enum { N = 50 }; /* the last block has two of them */
    make_wanted(WEIGHT_F32, WEIGHT_F32, true);
    for (int k = 0; k < 4; k += SLOWLY ? 4 : 1) {
        for (int a = WHOLE_CPU; a < N_LAYER; a = next_cut(a)) {
            struct graph *from = open_cut(a, kinds[k].type);
            forward(from, straight, 0, N, got);
            for (int b = WHOLE_CPU; b < N_LAYER; b = next_cut(b)) {
                if ((k > 0 || SLOWLY) && (a + b) % 2 != 0) /* every other pair will do */
                    continue;
                struct graph *to = open_cut(b, kinds[k].type);
                assert_true((graph_host_block(to, 0) != NULL) == (b == WHOLE_CPU));
                bring(from, to, there, N);
                forward(to, there, N, N_TOK - N, got);
                check("from a state", b, got, N, N_TOK - N, kinds[k].limit);
                graph_close(to);
            }
            graph_close(from);
        }
    }
    toy_release();
}

static void a_copied_block_goes_on(void **state) {
    (void)state;
    static const int32_t fork[] = {0, 50, 51, 52};
    make_wanted(WEIGHT_F32, WEIGHT_F32, true);
    for (int cut = 1; cut < N_LAYER; cut++) {
        struct graph *g = open_cut(cut, KV_AUTO);
        forward(g, straight, 0, 25, got);
        graph_copy_block(g, 50, 1, 9);
        forward(g, fork, 25, N_TOK - 25, got);
        check("a fork", cut, got, 25, N_TOK - 25, 1e-4);
        graph_close(g);
    }
    toy_release();
}

/* Block 1 is left out, and the keys behind it move up: all parts turn theirs. Values know of
 * what was left out, so it is compared with a whole model whose keys were moved too. */
static void keys_move_in_every_part(void **state) {
    (void)state;
    static const int32_t kept[] = {0, 2, 3};
    make_wanted(WEIGHT_F32, WEIGHT_F32, true);
    for (int cut = WHOLE_CPU; cut < N_LAYER; cut = next_cut(cut)) {
        struct graph *g = open_cut(cut, KV_AUTO);
        struct batch_seq s = {kept, 32, 5, 5, 0};
        struct err err = {0};
        forward(g, straight, 0, 48, got);
        graph_move_blocks(g, kept + 1, 2, 32, 16);
        assert_int_equal(graph_forward(g, &(struct batch){tokens + 48, 5, &s, 1}, got, &err),
                         ST_OK);
        if (cut == WHOLE_CPU)
            memcpy(want, got, 5 * V * sizeof *got);
        else
            check("behind moved keys", cut, got, 0, 5, 1e-4);
        graph_close(g);
    }
    toy_release();
}

/* ---- how much the GPU gets ---- */

/* What a device of so many bytes gets: layers, and 1 for the embedding; 0: err says why not. */
static int fit_in(size_t device_bytes, const struct graph_params *p, struct err *err) {
    char limit[32];
    struct graph *g;
    snprintf(limit, sizeof limit, "%zu", device_bytes);
    setenv("LLMCHAT_SHIM_BYTES", limit, 1);
    enum status st = try_open(p, &g, err);
    unsetenv("LLMCHAT_SHIM_BYTES");
    if (st != ST_OK) {
        assert_int_equal(st, ST_NOMEM);
        return 0;
    }
    int n = graph_gpu_layers(g) + !graph_is_split(g);
    assert_true(graph_n_block(g) >= p->room.min_block);
    graph_close(g);
    return n;
}

/* The smallest device that gets so much. */
static size_t least_for(int n, const struct graph_params *p) {
    size_t too_small = 0, enough = 200000000;
    struct err err = {0};
    while (enough - too_small > 1) {
        size_t mid = too_small + (enough - too_small) / 2;
        if (fit_in(mid, p, &err) >= n)
            enough = mid;
        else
            too_small = mid;
    }
    return enough;
}

static size_t linear_bytes(const struct linear *l) {
    return weight_bytes(&l->w);
}

/* 1 .. N_LAYER layers, those with the embedding elsewhere, and all: each has its price, which
 * is that of what comes with it, up to 255 bytes for each of its 9 or 1 tensors. */
static void as_many_layers_as_there_is_room_for(void **state) {
    (void)state;
    struct graph_params p = params_of(GRAPH_FIT, KV_AUTO);
    size_t price[N_LAYER + 2];
    struct err err = {0};
    if (!shim_function("shim_trace"))
        skip();
    make_wanted(WEIGHT_F32, WEIGHT_F32, false);
    p.room.min_block = 10;
    const struct layer *l = &layers[0];
    size_t layer = linear_bytes(&l->wq) + linear_bytes(&l->wk) + linear_bytes(&l->wv) +
                   linear_bytes(&l->wo) + linear_bytes(&l->gate) + linear_bytes(&l->up) +
                   linear_bytes(&l->down) + 2 * E * sizeof(float) +
                   10 * graph_kv_block_bytes(&model, KV_F32) / N_LAYER;
    for (int n = 1; n <= N_LAYER + 1; n++) {
        price[n] = least_for(n, &p);
        assert_int_equal(fit_in(price[n], &p, &err), n);
        assert_int_equal(fit_in(price[n] - 1, &p, &err), n - 1);
        if (n == 1)
            continue;
        size_t more = price[n] - price[n - 1];
        size_t least = n <= N_LAYER ? layer : linear_bytes(&model.embd);
        assert_true(more >= least && more <= least + (n <= N_LAYER ? 9 : 1) * 255);
    }
    assert_int_equal(fit_in(price[1] - 1, &p, &err), 0);
    assert_non_null(strstr(err.msg, "no room for a layer of the model"));
    p.gpu_layers = 3; /* by hand: this or nothing */
    assert_int_equal(fit_in(price[3], &p, &err), 3);
    assert_int_equal(fit_in(price[3] - 1, &p, &err), 0);
    assert_non_null(strstr(err.msg, "room for"));
    assert_non_null(strstr(err.msg, "fewer layers"));
    toy_release();
}

/* The embedding stays with the CPU when the rest fills the device, and all is computed. */
static void all_layers_may_leave_the_embedding_behind(void **state) {
    (void)state;
    struct graph_params p = params_of(GRAPH_FIT, KV_AUTO);
    struct graph *g;
    struct err err = {0};
    char limit[32];
    if (!shim_function("shim_trace"))
        skip();
    make_wanted(WEIGHT_F32, WEIGHT_F32, false);
    snprintf(limit, sizeof limit, "%zu", least_for(N_LAYER, &p));
    setenv("LLMCHAT_SHIM_BYTES", limit, 1);
    assert_int_equal(try_open(&p, &g, &err), ST_OK);
    unsetenv("LLMCHAT_SHIM_BYTES");
    assert_true(graph_is_split(g) && graph_gpu_layers(g) == N_LAYER);
    assert_int_equal(graph_n_block(g), 1);
    forward(g, straight, 0, KV_BLOCK - 2, got);
    forward(g, straight, KV_BLOCK - 2, 1, got + (KV_BLOCK - 2) * V);
    forward(g, straight, KV_BLOCK - 1, 1, got + (KV_BLOCK - 1) * V);
    check("without the embedding", N_LAYER, got, 0, KV_BLOCK, 1e-4);
    struct graph *all = open_cut(0, KV_AUTO);
    bring(g, all, straight, KV_BLOCK);
    forward(all, straight, KV_BLOCK, 4, got);
    check("its state", N_LAYER, got, KV_BLOCK, 4, 1e-4);
    graph_close(all);
    graph_close(g);
    toy_release();
}

/* What others will need of the device stays free, and their part of each block. */
static void others_have_their_room(void **state) {
    (void)state;
    struct graph_params p = params_of(GRAPH_FIT, KV_AUTO);
    if (!shim_function("shim_trace"))
        skip();
    make_wanted(WEIGHT_F32, WEIGHT_F32, true);
    p.room.min_block = 20;
    size_t alone = least_for(2, &p), block = graph_kv_block_bytes(&model, KV_F32);
    p.room.spare_bytes = 12345;
    assert_int_equal(least_for(2, &p), alone + 12345);
    p.room.block_bytes = block + 7;
    assert_int_equal(least_for(2, &p), alone + 12345 + 20 * 7);
    toy_release();
}

/* A pool that fills a GPU is no measure of what the host has. */
static void a_pool_on_both_has_what_the_host_allows(void **state) {
    (void)state;
    struct graph_params p = params_of(2, KV_AUTO);
    struct graph *g;
    struct err err = {0};
    make_wanted(WEIGHT_F32, WEIGHT_F32, true);
    p.n_block = 500;
    p.host_block = 40;
    assert_int_equal(try_open(&p, &g, &err), ST_OK);
    assert_int_equal(graph_n_block(g), 40);
    graph_close(g);
    p.gpu_layers = 0;
    assert_int_equal(try_open(&p, &g, &err), ST_OK);
    assert_int_equal(graph_n_block(g), 500);
    graph_close(g);
    toy_release();
}

static void a_gpu_that_fails_fails_the_step(void **state) {
    (void)state;
    struct batch_seq s = {straight, 0, 5, 1, 0};
    struct batch b = {tokens, 5, &s, 1};
    struct err err = {0};
    if (!shim_function("shim_trace"))
        skip();
    make_wanted(WEIGHT_F32, WEIGHT_F32, true);
    struct graph *g = open_cut(2, KV_AUTO);
    setenv("LLMCHAT_SHIM_FAIL", "rope_kv", 1);
    assert_int_equal(graph_forward(g, &b, got, &err), ST_DEVICE);
    unsetenv("LLMCHAT_SHIM_FAIL");
    assert_non_null(strstr(err.msg, "rope_kv"));
    assert_int_equal(graph_forward(g, &b, got, &err), ST_DEVICE); /* it stays lost */
    graph_close(g);
    toy_release();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut_computes_the_same),
        cmocka_unit_test(steps_of_the_gpu_are_recorded),
        cmocka_unit_test(tokens_are_sampled_where_the_head_is),
        cmocka_unit_test(a_state_is_read_however_its_model_is_split),
        cmocka_unit_test(a_copied_block_goes_on),
        cmocka_unit_test(keys_move_in_every_part),
        cmocka_unit_test(as_many_layers_as_there_is_room_for),
        cmocka_unit_test(all_layers_may_leave_the_embedding_behind),
        cmocka_unit_test(others_have_their_room),
        cmocka_unit_test(a_pool_on_both_has_what_the_host_allows),
        cmocka_unit_test(a_gpu_that_fails_fails_the_step),
    };
    if (!cuda_is_here())
        return 77;
    return cmocka_run_group_tests_name("split", tests, NULL, NULL);
}
