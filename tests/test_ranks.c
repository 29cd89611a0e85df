/*
 * test_ranks.c - a model that several ranks share, against one that has it whole: parts of
 * weights, sums, KV blocks, failures. Ranks run over threads on the CPU, and on devices of the
 * host shim, there also with a stand-in for NCCL; or on two real devices, where
 * TEST_CUDA_MODULE is a real module (make check-gpu). test_layer.c has the options of every
 * architecture over ranks.
 *
 * Ranks add the same products in another order. In f32, and with the scalar kernels for every
 * type of weight, that is a rounding of 2^-24 for each of some hundred sums that a logit goes
 * through: as noise, 1e-5 of the logits' deviation. Kernels that round activations to integers
 * round hidden values that differ in their last bits to other integers: as in test_graph.c that
 * stays below 5 %. So does bf16 on a device.
 *
 * What a rank computes does not depend on how tokens are cut into batches, nor does the order
 * of the sum: bits stay equal, as they do for one graph. And until the first sum, which the
 * keys and values of layer 0 come before, ranks compute what one graph computes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cuda_device.h"
#include "engine/run/comm.h"
#include "engine/run/graph_internal.h"
#include "engine/run/ranks.h"
#include "engine/run/shard.h"
#include "rand.h"
#include "toy_hparams.h"
#include "weight_kinds.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    N_LAYER = 2,
    V = 203,
    E = 72,
    F = 256,
    H = 8,
    HKV = 4,
    D = 32,
    MAX_TOK = 64,
    N_BLOCK = 32,
    N_TOK = 53,
    DECODED = 8, /* by devices: the shim is slow */
    HANG_S = 300 /* far beyond what a test takes, with sanitizers too */
};

static struct layer layers[N_LAYER];
static struct model model;
static int32_t tokens[N_TOK], straight[N_BLOCK];

static const struct kind *kind_of(const char *name) {
    for (int i = 0; i < N_KIND; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    fail_msg("no kind %s", name);
    return NULL;
}

/* ---- making a model ---- */

static float *floats(int n, float mean, float deviation) {
    float *x = xcalloc((size_t)n, sizeof *x);
    rand_fill(x, (size_t)n, deviation);
    for (int i = 0; i < n; i++)
        x[i] += mean;
    return x;
}

static void linear_make(struct linear *l, const struct kind *kind, int N, int K, bool bias) {
    *l = (struct linear){0};
    if (kind->how == BY_SCALE) {
        weight_make(&l->w, kind, N, K);
    } else {
        float *x = floats(N * K, 0, 1 / sqrtf((float)K));
        weight_pack(&l->w, kind->type, x, N, K);
        free(x);
    }
    if (bias)
        l->bias = floats(N, 0, 0.3f);
}

static void layer_make(struct layer *l, const struct hparams *hp, const struct kind *kind) {
    int Q = hp->n_head * hp->head_dim, KV = hp->n_head_kv * hp->head_dim, K = hp->n_embd;
    *l = (struct layer){.attn_norm = {floats(K, 1, 0.1f), NULL},
                        .ffn_norm = {floats(K, 1, 0.1f), NULL}};
    linear_make(&l->wq, kind, Q, K, true);
    linear_make(&l->wk, kind, KV, K, true);
    linear_make(&l->wv, kind, KV, K, true);
    linear_make(&l->wo, kind, K, Q, true);
    linear_make(&l->gate, kind, hp->n_ff, K, true);
    linear_make(&l->up, kind, hp->n_ff, K, true);
    linear_make(&l->down, kind, K, hp->n_ff, true);
}

static void model_make_sized(const struct kind *kind, int n_embd, int n_head, int n_head_kv,
                             int head_dim, int n_ff) {
    rand_state = 42;
    model = (struct model){.layers = layers};
    model.hp =
        toy_hparams((struct toy_sizes){N_LAYER, V, n_embd, n_ff, n_head, n_head_kv, head_dim});
    for (int i = 0; i < N_LAYER; i++)
        layer_make(&layers[i], &model.hp, kind);
    model.out_norm.g = floats(n_embd, 1, 0.1f);
    linear_make(&model.embd, kind_of("f32"), V, n_embd, false);
    model.head = model.embd;
    for (int i = 0; i < N_TOK; i++)
        tokens[i] = (int32_t)(rand_u32() % V);
    for (int i = 0; i < N_BLOCK; i++)
        straight[i] = i;
}

static void model_make(const char *kind) {
    model_make_sized(kind_of(kind), E, H, HKV, D, F);
}

static void linear_free(struct linear *l) {
    weight_pack_release(&l->w);
    free((float *)(uintptr_t)l->bias);
}

static void model_release(void) {
    for (int i = 0; i < N_LAYER; i++) {
        struct layer *l = &layers[i];
        struct linear *w[] = {&l->wq, &l->wk, &l->wv, &l->wo, &l->gate, &l->up, &l->down};
        for (size_t j = 0; j < sizeof w / sizeof *w; j++)
            linear_free(w[j]);
        free((float *)(uintptr_t)l->attn_norm.g);
        free((float *)(uintptr_t)l->ffn_norm.g);
    }
    free((float *)(uintptr_t)model.out_norm.g);
    linear_free(&model.embd);
}

/* ---- parts of weights ---- */

/* Rows and inputs of the whole where a part should have them, bit by bit. */
static void same_values(const char *name, const struct weight *whole, const struct weight *part,
                        int row, int k) {
    float *a = xcalloc((size_t)whole->Kp, sizeof *a), *b = xcalloc((size_t)part->Kp, sizeof *b);
    assert_int_equal(part->Np, weight_pad_n(part->N));
    assert_int_equal(part->Kp, weight_pad_k(part->K));
    for (int i = 0; i < part->N; i++) {
        weight_unpack_row(whole, row + i, a);
        weight_unpack_row(part, i, b);
        if (memcmp(a + k, b, (size_t)part->K * sizeof *b) != 0)
            fail_msg("%s: row %d from %d, input %d", name, i, row, k);
    }
    for (int i = part->N; i < part->Np; i++) { /* kernels index them */
        weight_unpack_row(part, i, b);
        for (int j = 0; j < part->K && part->type != WEIGHT_Q4; j++)
            assert_true(b[j] == 0);
    }
    free(a);
    free(b);
}

static void check_part(const char *name, int rank, int n) {
    struct shard *s = NULL;
    struct err err = {0};
    if (shard_new(&model, rank, n, &s, &err) != ST_OK)
        fail_msg("%s", err.msg);
    const struct model *m = shard_model(s);
    assert_int_equal(m->hp.n_head * n, model.hp.n_head);
    assert_int_equal(m->hp.n_head_kv * n, model.hp.n_head_kv);
    assert_int_equal(m->hp.n_ff * n, model.hp.n_ff);
    for (int i = 0; i < N_LAYER; i++) {
        const struct layer *a = &model.layers[i], *b = &m->layers[i];
        const struct linear *rows[][2] = {{&a->wq, &b->wq},
                                          {&a->wk, &b->wk},
                                          {&a->wv, &b->wv},
                                          {&a->gate, &b->gate},
                                          {&a->up, &b->up}};
        const struct linear *inputs[][2] = {{&a->wo, &b->wo}, {&a->down, &b->down}};
        for (size_t j = 0; j < sizeof rows / sizeof *rows; j++) {
            const struct weight *whole = &rows[j][0]->w, *part = &rows[j][1]->w;
            assert_int_equal(part->N * n, whole->N);
            assert_int_equal(part->K, whole->K);
            same_values(name, whole, part, rank * part->N, 0);
            assert_ptr_equal(rows[j][1]->bias, rows[j][0]->bias + rank * part->N);
        }
        for (size_t j = 0; j < sizeof inputs / sizeof *inputs; j++) {
            const struct weight *whole = &inputs[j][0]->w, *part = &inputs[j][1]->w;
            assert_int_equal(part->K * n, whole->K);
            assert_int_equal(part->N, whole->N);
            same_values(name, whole, part, 0, rank * part->K);
            assert_ptr_equal(inputs[j][1]->bias, rank == 0 ? inputs[j][0]->bias : NULL);
        }
    }
    assert_true((m->head.w.N > 0) == (rank == 0));
    shard_free(s);
}

/* Heads of 8: with four ranks wk and wv are cut within a tile. 136 inputs are three groups, so
 * that the outputs of some parts begin with a block of second scales, and those of others have
 * two blocks in part. */
static void parts_of_every_kind_have_the_values_of_the_whole(void **state) {
    (void)state;
    for (int i = 0; i < N_KIND; i++) {
        model_make_sized(&kinds[i], 136, 32, 4, 8, 512);
        for (int n = 2; n <= 4; n += 2) {
            struct err err = {0};
            if (shard_check(&model, n, &err) != ST_OK)
                fail_msg("%s: %s", kinds[i].name, err.msg);
            for (int rank = 0; rank < n; rank++)
                check_part(kinds[i].name, rank, n);
        }
        model_release();
    }
}

/* Inputs of floats may be cut anywhere that doesn't part two of 16 bits. */
static void parts_of_floats_may_be_of_odd_sizes(void **state) {
    (void)state;
    static const char *const names[] = {"f32", "bf16", "f16"};
    for (size_t i = 0; i < 3; i++) {
        model_make_sized(kind_of(names[i]), E, 8, 4, 10, 264);
        for (int rank = 0; rank < 4; rank++)
            check_part(names[i], rank, 4);
        model_release();
    }
}

static void whole_tiles_are_not_copied(void **state) {
    (void)state;
    struct shard *s = NULL;
    struct err err;
    model_make("nf4");
    assert_int_equal(shard_new(&model, 1, 2, &s, &err), ST_OK);
    const struct weight *whole = &layers[0].wq.w, *part = &shard_model(s)->layers[0].wq.w;
    size_t tiles = H * D / 2 / WEIGHT_TILE;
    assert_ptr_equal(part->data, (const char *)whole->data +
                                     tiles * weight_tile_bytes(whole->type, whole->Kp));
    assert_non_null(part->code);
    shard_free(s);
    model_release();
}

/* What can't be cut is named, before anything is opened. */
static void refused(int n, const char *const words[3]) {
    struct graph *g = NULL;
    struct err err = {0};
    struct graph_params p = {.threads = 1, .n_block = N_BLOCK, .tensor_parallel = n};
    assert_int_equal(graph_open(&model, &p, &g, &err), ST_UNSUPPORTED);
    for (int i = 0; i < 3; i++)
        if (!strstr(err.msg, words[i]))
            fail_msg("%s: no \"%s\"", err.msg, words[i]);
}

static void what_cannot_be_shared_is_refused_by_name(void **state) {
    (void)state;
    static const int32_t order[H * D] = {0};
    model_make("nf4");
    refused(3, (const char *const[]){"8 heads", "3 GPUs", "divide"});
    refused(8, (const char *const[]){"4 KV heads", "8 GPUs", "divide"});
    refused(65, (const char *const[]){"1 to 64", "65", "GPUs"});
    layers[1].wo.perm = order;
    refused(2, (const char *const[]){"layer 1", "wo", "act-order"});
    layers[1].wo.perm = NULL;
    model.hp.qk_norm_rows = QK_NORM_ROWS;
    layers[1].q_norm.g = layers[1].attn_norm.g;
    refused(2, (const char *const[]){"layer 1", "normalised", "all heads"});
    model_release();
    model_make_sized(kind_of("nf4"), E, H, HKV, D, 192);
    refused(2, (const char *const[]){"layer 0: down", "192 inputs, 64 with", "2 GPUs"});
    model_release();
    model_make_sized(kind_of("bf16"), E, H, HKV, D, 36);
    refused(4, (const char *const[]){"layer 0: down", "36 inputs", "4 GPUs"});
    model_release();
}

/* ---- graphs ---- */

static enum kv_type kv_type; /* of the graphs that are opened */

static enum status try_open(const struct graph_params *how, struct graph **out,
                            struct err *err) {
    struct graph_params p = *how;
    p.threads = 1;
    p.kv_type = kv_type;
    p.n_block = N_BLOCK;
    p.max_tok = MAX_TOK;
    return graph_open(&model, &p, out, err);
}

static struct graph *open_as(const struct graph_params *how) {
    struct graph *g = NULL;
    struct err err = {0};
    if (try_open(how, &g, &err) != ST_OK)
        fail_msg("%s", err.msg);
    return g;
}

static struct graph *open_ranks(int n) {
    return open_as(&(struct graph_params){.tensor_parallel = n});
}

static void forward(struct graph *g, const int32_t *blocks, int from, int n, float *logits) {
    struct batch_seq s = {blocks, from, n, n, 0};
    struct err err = {0};
    if (graph_forward(g, &(struct batch){tokens + from, n, &s, 1}, logits, &err) != ST_OK)
        fail_msg("%s", err.msg);
}

static float logits_a[N_TOK * V], logits_b[N_TOK * V];

static double deviation(const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum / (double)n);
}

/* logits_b against logits_a; logits_b is used up. */
static void close_enough(const char *name, int n, double limit) {
    double size = deviation(logits_a, N_TOK * V);
    for (size_t i = 0; i < N_TOK * V; i++)
        logits_b[i] -= logits_a[i];
    double noise = deviation(logits_b, N_TOK * V) / size;
    if (!(noise <= limit && size > 0.1))
        fail_msg("%s, %d ranks: noise %g of the logits, at most %g", name, n, noise, limit);
}

static void with_kernels(const char *kernels, double limit) {
    static const char *const names[] = {"f32", "bf16", "f16", "int8", "nf4"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        model_make(names[i]);
        if (kernels)
            setenv("LLMCHAT_CPU", kernels, 1);
        struct graph *one = open_ranks(1);
        forward(one, straight, 0, N_TOK, logits_a);
        for (int n = 2; n <= 4; n += 2) {
            struct graph *g = open_ranks(n);
            assert_string_equal(graph_device(g), "cpu");
            assert_int_equal(graph_n_block(g), N_BLOCK);
            forward(g, straight, 0, N_TOK, logits_b);
            close_enough(names[i], n, limit);
            graph_close(g);
        }
        graph_close(one);
        unsetenv("LLMCHAT_CPU");
        model_release();
    }
}

static void ranks_compute_what_one_computes(void **state) {
    (void)state;
    with_kernels("scalar", 1e-5);
    with_kernels(NULL, 0.05);
}

static int32_t best(const float *logits) {
    int32_t at = 0;
    for (int32_t i = 1; i < V; i++)
        at = logits[i] > logits[at] ? i : at;
    return at;
}

/* Greedy text behind the first tokens. */
static void write_text(struct graph *g, int32_t *text, int n) {
    static float row[V];
    struct err err;
    forward(g, straight, 0, 9, logits_b);
    text[0] = best(logits_b + 8 * V);
    for (int i = 1; i < n; i++) {
        struct batch_seq s = {straight, 8 + i, 1, 1, 0};
        struct batch b = {&text[i - 1], 1, &s, 1};
        assert_int_equal(graph_forward(g, &b, row, &err), ST_OK);
        text[i] = best(row);
    }
}

static void ranks_write_the_text_that_one_writes(void **state) {
    (void)state;
    int32_t a[60], b[60];
    model_make("f32");
    struct graph *one = open_ranks(1);
    write_text(one, a, 60);
    for (int n = 2; n <= 4; n += 2) {
        struct graph *g = open_ranks(n);
        write_text(g, b, 60);
        assert_memory_equal(a, b, sizeof a);
        graph_close(g);
    }
    graph_close(one);
    model_release();
}

/* The prompt in pieces, beside other sequences, in other blocks, behind a copied block, and
 * with few logits: the bits of the prompt whole. */
static void ranks_give_the_same_bits_however_tokens_are_cut(void **state) {
    (void)state;
    static const int sizes[] = {1, 2, 17, 3, 30};
    static const int32_t blocks[3][4] = {{8, 1, 30, 4}, {5, 6, 11, 12}, {20, 21, 22, 23}};
    static const int32_t fork[] = {0, 13, 14, 15};
    int32_t in[32];
    struct err err;
    model_make("nf4");
    struct graph *g = open_ranks(2);
    forward(g, straight, 0, N_TOK, logits_a);
    for (int at = 0, p = 0; at < N_TOK; at += sizes[p++])
        forward(g, straight, at, sizes[p], logits_b + (size_t)at * V);
    assert_memory_equal(logits_a, logits_b, sizeof logits_a);
    graph_copy_block(g, 13, 1, 9);
    forward(g, fork, 25, N_TOK - 25, logits_b);
    assert_memory_equal(logits_b, logits_a + 25 * V, (N_TOK - 25) * V * sizeof(float));
    struct batch_seq s[3] = {
        {blocks[0], 20, 9, 2, 0}, {blocks[1], 0, 13, 13, 0}, {blocks[2], 33, 1, 1, 0}};
    forward(g, blocks[0], 0, 20, logits_b);
    forward(g, blocks[2], 0, 33, logits_b);
    memcpy(in, tokens + 20, 9 * sizeof *in);
    memcpy(in + 9, tokens, 13 * sizeof *in);
    memcpy(in + 22, tokens + 33, sizeof *in);
    assert_int_equal(graph_forward(g, &(struct batch){in, 23, s, 3}, logits_b, &err), ST_OK);
    assert_memory_equal(logits_b, logits_a + 27 * V, 2 * V * sizeof(float));
    assert_memory_equal(logits_b + 2 * V, logits_a, 13 * V * sizeof(float));
    assert_memory_equal(logits_b + 15 * V, logits_a + 33 * V, V * sizeof(float));
    s[0] = (struct batch_seq){straight, 0, N_TOK - 1, 0, 0};
    struct batch none = {tokens, N_TOK - 1, s, 1};
    assert_int_equal(graph_forward(g, &none, NULL, &err), ST_OK);
    forward(g, straight, N_TOK - 1, 1, logits_b);
    assert_memory_equal(logits_b, logits_a + (N_TOK - 1) * V, V * sizeof(float));
    bool more = true;
    for (int i = 0; more; i++, assert_true(i < 1000))
        more = graph_settle(g);
    forward(g, straight, 0, N_TOK, logits_b);
    assert_memory_equal(logits_a, logits_b, sizeof logits_a);
    graph_close(g);
    model_release();
}

/* ---- blocks ---- */

/* Blocks are those of the whole model: layer 0's have the bits that one graph computes, also
 * where they moved, and what ranks saved goes on in one graph, and the other way round. */
static void check_blocks(struct graph *one, struct graph *ranks, double limit) {
    size_t bytes = graph_kv_block_bytes(&model, kv_type);
    char *a = xmalloc(bytes), *b = xmalloc(bytes);
    int past = 3 * KV_BLOCK;
    assert_null(graph_host_block(ranks, 0));
    forward(one, straight, 0, past, logits_a);
    forward(ranks, straight, 0, past, logits_b);
    for (int moved = 0; moved < 2; moved++) {
        for (int i = 0; i < 3; i++) {
            int used = i < 2 ? KV_BLOCK : 5;
            graph_read_block(one, i, used, a);
            graph_read_block(ranks, i, used, b);
            assert_memory_equal(a, b, bytes / N_LAYER);
        }
        graph_move_blocks(one, straight, 3, 100, 70);
        graph_move_blocks(ranks, straight, 3, 100, 70);
    }
    forward(one, straight, 0, past, logits_a);
    forward(ranks, straight, 0, past, logits_b);
    for (int i = 0; i < 3; i++) {
        graph_read_block(ranks, i, KV_BLOCK, b);
        graph_write_block(one, 10 + i, b);
        graph_read_block(one, 10 + i, KV_BLOCK, a);
        assert_memory_equal(a, b, bytes);
        graph_write_block(ranks, 20 + i, a);
    }
    static const int32_t in_one[] = {10, 11, 12, 13}, in_ranks[] = {20, 21, 22, 23};
    memset(logits_a, 0, sizeof logits_a);
    memset(logits_b, 0, sizeof logits_b);
    forward(one, in_one, past, N_TOK - past, logits_a + (size_t)past * V);
    forward(ranks, in_ranks, past, N_TOK - past, logits_b + (size_t)past * V);
    close_enough("blocks", 2, limit);
    free(a);
    free(b);
}

static void blocks_are_those_of_the_whole_model(void **state) {
    (void)state;
    model_make("f32");
    setenv("LLMCHAT_CPU", "scalar", 1);
    for (kv_type = KV_F32; kv_type <= KV_I8; kv_type++)
        for (int n = 2; n <= 4; n += 2) {
            struct graph *one = open_ranks(1), *ranks = open_ranks(n);
            check_blocks(one, ranks, 1e-5);
            graph_close(one);
            graph_close(ranks);
        }
    unsetenv("LLMCHAT_CPU");
    kv_type = KV_AUTO;
    model_release();
}

/* ---- failures ---- */

/* A step that must fail, saying `words`; so must the next, at once. */
static void fails(struct graph *g, const char *words) {
    struct batch_seq s = {straight, 0, 3, 1, 0};
    struct batch b = {tokens, 3, &s, 1};
    for (int i = 0; i < 2; i++) {
        struct err err = {0};
        assert_int_equal(graph_forward(g, &b, logits_b, &err), ST_DEVICE);
        if (!strstr(err.msg, words))
            fail_msg("%s: no \"%s\"", err.msg, words);
    }
}

static void (*whole_sum)(struct comm *c, struct backend *be, float *x, size_t n);
static atomic_int sums_left;

/* Adds up a few times, and then fails without meeting the others. */
static void failing_sum(struct comm *c, struct backend *be, float *x, size_t n) {
    struct err why;
    if (atomic_fetch_sub(&sums_left, 1) > 0) {
        whole_sum(c, be, x, n);
        return;
    }
    err_set(&why, ST_DEVICE, "rank %d has had enough", c->rank);
    comm_fail(c, &why);
}

static void a_rank_that_fails_stops_all(void **state) {
    (void)state;
    alarm(HANG_S);
    model_make("f32");
    for (int rank = 0; rank < 4; rank++)
        for (int after = 0; after < 4; after += 3) {
            char words[40];
            struct graph *g = open_ranks(4);
            struct comm *c = ranks_comm(g->ranks, rank);
            snprintf(words, sizeof words, "rank %d has had enough", rank);
            whole_sum = c->all_reduce;
            c->all_reduce = failing_sum;
            atomic_store(&sums_left, after);
            fails(g, words);
            graph_copy_block(g, 1, 0, 3); /* none waits */
            graph_close(g);
        }
    model_release();
    alarm(0);
}

/* ---- devices ---- */

static const struct graph_params on_host = {
    .device = DEVICE_CUDA, .tensor_parallel = 2, .sum_on_host = true};
static const struct graph_params by_nccl = {.device = DEVICE_CUDA, .tensor_parallel = 2};

static void two_devices(void) {
    if (!two_devices_are_here())
        skip();
}

static bool is_shim(void) {
    return shim_function("shim_replays") != NULL;
}

/* Also the stand-in for NCCL, whose function `name` this is; NULL: it is NCCL itself, over real
 * devices. */
static int (*stand_in(const char *name))(void) {
    int (*f)(void) = NULL;
    if (!nccl_is_here())
        skip();
    if (!is_shim())
        return NULL;
    void *so = dlopen(getenv("LLMCHAT_NCCL"), RTLD_NOW | RTLD_LOCAL);
    void *symbol = so ? dlsym(so, name) : NULL;
    assert_non_null(symbol);
    memcpy(&f, &symbol, sizeof f);
    return f;
}

/* Prompt, decoding and blocks, against one device. Blocks in f32: how a device cuts products of
 * quantised weights may depend on their size. */
static void check_devices(const struct graph_params *how, const char *kind, double limit) {
    model_make(kind);
    struct graph *one = open_as(&(struct graph_params){.device = DEVICE_CUDA});
    struct graph *two = open_as(how);
    assert_string_equal(graph_device(two), "cuda");
    forward(one, straight, 0, N_TOK, logits_a);
    forward(two, straight, 0, N_TOK, logits_b);
    close_enough(kind, 2, limit);
    memset(logits_a, 0, sizeof logits_a);
    memset(logits_b, 0, sizeof logits_b);
    for (int t = N_TOK - DECODED; t < N_TOK; t++) {
        forward(one, straight, t, 1, logits_a + (size_t)t * V);
        forward(two, straight, t, 1, logits_b + (size_t)t * V);
    }
    close_enough(kind, 2, limit);
    if (strcmp(kind, "f32") == 0)
        check_blocks(one, two, limit);
    graph_close(one);
    graph_close(two);
    model_release();
}

static void devices_share_a_model(void **state) {
    (void)state;
    two_devices();
    check_devices(&on_host, "f32", 1e-5);
    check_devices(&on_host, "nf4", 0.05);
}

static void devices_share_a_model_by_nccl(void **state) {
    (void)state;
    int (*sums)(void) = stand_in("fake_nccl_sums"), (*left)(void) = stand_in("fake_nccl_open");
    int before = sums ? sums() : 0;
    check_devices(&by_nccl, "f32", 1e-5);
    if (!sums)
        return;
    /* two a layer and rank: the prompt, what is decoded, three steps of check_blocks() */
    assert_int_equal(sums() - before, 2 * 2 * N_LAYER * (1 + DECODED + 3));
    assert_int_equal(left(), 0);
}

/* The best token but one of each row of logits_a, which rank 0 had the kernel find: the best
 * one has a penalty. A prompt, more rows than the device has logits at once, and single tokens.
 */
static void sample(struct graph *g, int from, int n) {
    struct batch_seq s = {straight, from, n, n, 0};
    struct batch b = {tokens + from, n, &s, 1};
    struct sample_token banned[N_TOK];
    struct sample_row rows[N_TOK];
    struct sample_got got[N_TOK];
    struct err err = {0};
    assert_true(graph_can_sample(g, n));
    for (int t = 0; t < n; t++) {
        banned[t] =
            (struct sample_token){.token = best(logits_a + (from + t) * V), .minus = 1000};
        rows[t] = (struct sample_row){
            .tokens = &banned[t], .n_token = 1, .repeat = 1, .top_p = 1, .unit = 0.5};
    }
    if (graph_sample(g, &b, rows, got, &err) != ST_OK)
        fail_msg("%s", err.msg);
    for (int t = 0; t < n; t++) {
        logits_a[(from + t) * V + banned[t].token] = -INFINITY;
        assert_int_equal(got[t].token, best(logits_a + (from + t) * V));
    }
}

/* A block of every device goes out, is written over, and comes back to another place, without a
 * step between: bit by bit, and two of them one behind the other in the host's memory. */
static void blocks_are_swapped_by_all_devices(void **state) {
    (void)state;
    two_devices();
    model_make("f32");
    struct graph *g = open_as(&on_host);
    size_t bytes = graph_kv_block_bytes(&model, kv_type);
    char *a = xmalloc(bytes), *b = xmalloc(bytes), *zeros = xcalloc(1, bytes);
    assert_true(graph_can_swap(g));
    char *host = graph_swap_alloc(g, 2 * bytes);
    assert_non_null(host);
    forward(g, straight, 0, 2 * KV_BLOCK, logits_a);
    graph_swap_out(g, 0, host);
    graph_swap_out(g, 1, host + bytes);
    for (int i = 0; i < 2; i++) {
        graph_copy_block(g, 10 + i, i, KV_BLOCK);
        graph_write_block(g, i, zeros);
        graph_swap_in(g, 20 + i, host + (size_t)i * bytes);
    }
    for (int i = 0; i < 2; i++) {
        graph_read_block(g, 10 + i, KV_BLOCK, a);
        graph_read_block(g, 20 + i, KV_BLOCK, b);
        assert_memory_equal(a, b, bytes);
        assert_true(memcmp(a, zeros, bytes) != 0);
    }
    graph_swap_free(g, host);
    graph_close(g);
    g = open_ranks(2);
    assert_false(graph_can_swap(g));
    graph_close(g);
    free(a);
    free(b);
    free(zeros);
    model_release();
}

static void tokens_are_sampled_by_rank_0(void **state) {
    (void)state;
    two_devices();
    model_make("f32");
    struct graph *g = open_as(&on_host);
    forward(g, straight, 0, N_TOK, logits_a);
    sample(g, 0, N_TOK - DECODED);
    for (int t = N_TOK - DECODED; t < N_TOK; t++)
        sample(g, t, 1);
    if (is_shim()) {
        struct batch_seq s = {straight, 0, 1, 1, 0};
        struct batch b = {tokens, 1, &s, 1};
        struct sample_row row = {.repeat = 1, .top_p = 1};
        struct sample_got got;
        struct err err = {0};
        setenv("LLMCHAT_SHIM_FAIL", "sample@1", 1); /* which has no head */
        assert_int_equal(graph_sample(g, &b, &row, &got, &err), ST_OK);
        setenv("LLMCHAT_SHIM_FAIL", "norm@1", 1);
        assert_int_equal(graph_sample(g, &b, &row, &got, &err), ST_DEVICE);
        assert_non_null(strstr(err.msg, "GPU 1: host shim failed: norm"));
        unsetenv("LLMCHAT_SHIM_FAIL");
    }
    graph_close(g);
    g = open_ranks(2);
    assert_false(graph_can_sample(g, 1)); /* the CPU's logits are where they are wanted */
    graph_close(g);
    model_release();
}

/* Rank 0 has the head beside what all have, and so fewer blocks: the pool has as many as it,
 * and the last of them is there on every device. */
static void the_pool_has_blocks_that_all_devices_have(void **state) {
    (void)state;
    two_devices();
    if (!is_shim())
        skip();
    model_make("f32");
    setenv("LLMCHAT_SHIM_BYTES", "200000000", 1);
    struct graph *g = NULL, *alone = NULL;
    struct err err = {0};
    struct graph_params p = on_host;
    p.threads = 1;
    p.max_tok = MAX_TOK;
    p.n_block = 1 << 20;
    p.tensor_parallel = 1;
    assert_int_equal(graph_open(&model, &p, &alone, &err), ST_OK);
    forward(alone, straight, 0, N_TOK, logits_a);
    int whole = graph_n_block(alone);
    graph_close(alone);
    p.tensor_parallel = on_host.tensor_parallel;
    if (graph_open(&model, &p, &g, &err) != ST_OK)
        fail_msg("%s", err.msg);
    int n = graph_n_block(g);
    /* half of a block, and of most weights, is on each */
    assert_true(n > 3 * whole / 2 && n < 3 * whole);
    const int32_t blocks[] = {n - 1, n - 2, n - 3, n - 4};
    forward(g, blocks, 0, N_TOK, logits_b);
    close_enough("last blocks", 2, 1e-5);
    graph_close(g);
    unsetenv("LLMCHAT_SHIM_BYTES");
    model_release();
}

static void not_opened(const struct graph_params *how, enum status st, const char *words) {
    struct graph *g = NULL;
    struct err err = {0};
    assert_int_equal(try_open(how, &g, &err), st);
    if (!strstr(err.msg, words))
        fail_msg("%s: no \"%s\"", err.msg, words);
}

/* Blocks in the pool where each device has so many bytes, all of which may be used. */
static int blocks_with(const struct graph_params *how, size_t bytes) {
    char text[32];
    struct graph *g = NULL;
    struct err err = {0};
    struct graph_params p = *how;
    p.threads = 1;
    p.max_tok = MAX_TOK;
    p.n_block = 1 << 20;
    snprintf(text, sizeof text, "%zu", bytes);
    setenv("LLMCHAT_SHIM_BYTES", text, 1);
    if (graph_open(&model, &p, &g, &err) != ST_OK)
        fail_msg("%s", err.msg);
    unsetenv("LLMCHAT_SHIM_BYTES");
    int n = graph_n_block(g);
    graph_close(g);
    return n;
}

/* NCCL has a GiB of each device; sums over the host need none. */
static void nccl_has_room(void **state) {
    (void)state;
    const size_t bytes = 200000000, gib = (size_t)1 << 30;
    if (!stand_in("fake_nccl_open"))
        skip();
    model_make("f32");
    int n = blocks_with(&on_host, bytes);
    assert_true(n > 100);
    assert_int_equal(blocks_with(&by_nccl, bytes + gib), n);
    setenv("LLMCHAT_SHIM_BYTES", "200000000", 1);
    not_opened(&by_nccl, ST_NOMEM, "GPU 0: beside the model, and 1024 MiB that others need");
    unsetenv("LLMCHAT_SHIM_BYTES");
    model_release();
}

static void a_device_that_fails_stops_all(void **state) {
    (void)state;
    static const struct {
        const char *told, *words;
    } cases[] = {{"norm@1", "GPU 1: host shim failed: norm"},
                 {"norm@0", "GPU 0: host shim failed: norm"}};
    two_devices();
    if (!is_shim())
        skip();
    alarm(HANG_S);
    model_make("f32");
    for (size_t i = 0; i < 2; i++) {
        struct graph *g = open_as(&on_host);
        setenv("LLMCHAT_SHIM_FAIL", cases[i].told, 1);
        fails(g, cases[i].words);
        unsetenv("LLMCHAT_SHIM_FAIL");
        graph_close(g);
    }
    model_release();
    alarm(0);
}

static void a_failure_ends_the_sums_of_nccl(void **state) {
    (void)state;
    int (*left)(void) = stand_in("fake_nccl_open");
    if (!left)
        skip();
    alarm(HANG_S);
    model_make("f32");
    for (int i = 0; i < 2; i++) {
        struct graph *g = open_as(&by_nccl);
        if (i == 0)
            setenv("LLMCHAT_SHIM_FAIL", "norm@1", 1);
        else
            setenv("FAKE_NCCL_FAIL", "3", 1);
        fails(g, i == 0 ? "GPU 1: norm: the shim was told to fail"
                        : "GPU 1: the stand-in was told to fail");
        unsetenv("LLMCHAT_SHIM_FAIL");
        unsetenv("FAKE_NCCL_FAIL");
        graph_close(g);
        assert_int_equal(left(), 0);
    }
    model_release();
    alarm(0);
}

static void what_is_missing_is_said(void **state) {
    (void)state;
    int (*left)(void) = stand_in("fake_nccl_open");
    if (!left)
        skip();
    model_make("f32");
    setenv("FAKE_NCCL_FAIL", "init", 1);
    not_opened(&by_nccl, ST_DEVICE, "can't connect 2 GPUs: the stand-in was told to fail");
    unsetenv("FAKE_NCCL_FAIL");
    setenv("LLMCHAT_NCCL", "/nowhere/libnccl.so.2", 1);
    not_opened(&by_nccl, ST_NOT_FOUND, "/nowhere/libnccl.so.2");
    setenv("LLMCHAT_NCCL", getenv("LLMCHAT_CUDA_MODULE"), 1);
    not_opened(&by_nccl, ST_NOT_FOUND, "has no ncclCommInitAll");
    setenv("LLMCHAT_SHIM_DEVICES", "1", 1);
    not_opened(&by_nccl, ST_NOT_FOUND, "over 2 GPUs: GPU 1 is wanted, and there are 1");
    setenv("LLMCHAT_SHIM_DEVICES", "2", 1);
    setenv("LLMCHAT_SHIM_BYTES", "100000", 1);
    not_opened(&by_nccl, ST_NOMEM, "over 2 GPUs: GPU 0: device cuda has no room");
    unsetenv("LLMCHAT_SHIM_BYTES");
    assert_int_equal(left(), 0);
    model_release();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_of_every_kind_have_the_values_of_the_whole),
        cmocka_unit_test(parts_of_floats_may_be_of_odd_sizes),
        cmocka_unit_test(whole_tiles_are_not_copied),
        cmocka_unit_test(what_cannot_be_shared_is_refused_by_name),
        cmocka_unit_test(ranks_compute_what_one_computes),
        cmocka_unit_test(ranks_write_the_text_that_one_writes),
        cmocka_unit_test(ranks_give_the_same_bits_however_tokens_are_cut),
        cmocka_unit_test(blocks_are_those_of_the_whole_model),
        cmocka_unit_test(a_rank_that_fails_stops_all),
        cmocka_unit_test(devices_share_a_model),
        cmocka_unit_test(devices_share_a_model_by_nccl),
        cmocka_unit_test(blocks_are_swapped_by_all_devices),
        cmocka_unit_test(tokens_are_sampled_by_rank_0),
        cmocka_unit_test(the_pool_has_blocks_that_all_devices_have),
        cmocka_unit_test(nccl_has_room),
        cmocka_unit_test(a_device_that_fails_stops_all),
        cmocka_unit_test(a_failure_ends_the_sums_of_nccl),
        cmocka_unit_test(what_is_missing_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
