/*
 * gpu.c - what the CUDA backend does on the device that is there: `make bench-gpu`.
 *
 *   - the ceilings: a copy on the device (bytes read and written), cuBLAS in bf16
 *   - products of a 7B model's shapes from NF4, one token to 2048; of the largest from int8,
 * with a scale for each 64 inputs and with one for each row (w8a8.cu)
 *   - a 7B-shaped model (Mistral's sizes) with random NF4 weights: time to be ready, decode at
 *     batch 1, 8, 32 behind contexts of 128, 4096 and 32768 tokens, prefill
 *
 * Weights are one random buffer, which every layer gets a copy of on the device, so that the
 * host needs little. A time is the median of several, between two synchronisations, launches
 * and the copy of the logits included. What does not fit on the device is left out, and said.
 */
#include "engine/cuda/gpu.h"
#include "base/clock.h"
#include "base/mem.h"
#include "engine/cuda/cuda.h"
#include "engine/quant/pack.h"
#include "engine/quant/quant.h"
#include "engine/run/graph_internal.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 9, COPY_BYTES = 1 << 30 };

/* The sizes that are measured; a small model for a device that is none. */
static struct size {
    int n_layer, n_vocab, n_embd, n_ff, n_head, n_head_kv, head_dim, max_tok;
} size = {32, 32000, 4096, 14336, 32, 8, 128, 2048};

static struct gpu *gpu;

static int by_time(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static double median(int64_t *us, int n) {
    qsort(us, (size_t)n, sizeof *us, by_time);
    return (double)us[n / 2];
}

/* Random bytes: codes of weights, and of scales. */
static uint8_t *noise(size_t bytes) {
    uint64_t s = 88172645463325252ull, *v = xmalloc((bytes + 7) / 8 * 8);
    for (size_t i = 0; i < (bytes + 7) / 8; i++) {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        v[i] = s;
    }
    return (uint8_t *)v;
}

static const uint8_t *random_bytes;
static float *absmax2;

/* An NF4 weight [N, K] as a file would have it: scales of about 1 / sqrt(K). */
static struct weight nf4(int N, int K) {
    struct weight w = {.type = WEIGHT_Q4,
                       .N = N,
                       .K = K,
                       .Np = weight_pad_n(N),
                       .Kp = weight_pad_k(K),
                       .group = WEIGHT_GROUP,
                       .data = random_bytes,
                       .code = random_bytes,
                       .absmax2 = absmax2,
                       .offset = 1.5f / sqrtf((float)K),
                       .code_map = quant_code_map};
    memcpy(w.table, nf4_table, sizeof w.table);
    return w;
}

/* The same in int8, with equal scales in `scale` [Np/16, G, 16]. */
static struct weight int8(int N, int K, const float *scale) {
    return (struct weight){.type = WEIGHT_I8,
                           .N = N,
                           .K = K,
                           .Np = weight_pad_n(N),
                           .Kp = weight_pad_k(K),
                           .group = WEIGHT_GROUP,
                           .data = random_bytes,
                           .scale = scale};
}

/* ---- ceilings ---- */

static double copy_rate(void) {
    char *a = gpu->alloc(gpu, COPY_BYTES), *b = gpu->alloc(gpu, COPY_BYTES);
    int64_t us[RUNS];
    enum { TIMES = 10 };
    if (!a || !b)
        return 0;
    gpu->zero(gpu, a, COPY_BYTES);
    for (int i = 0; i < RUNS; i++) {
        gpu->sync(gpu);
        int64_t start = clock_us();
        for (int j = 0; j < TIMES; j++)
            gpu->copy(gpu, b, a, COPY_BYTES);
        gpu->sync(gpu);
        us[i] = clock_us() - start;
    }
    gpu->free(gpu, a);
    gpu->free(gpu, b);
    return 2.0 * TIMES * COPY_BYTES / median(us, RUNS) * 1e6;
}

/* Operations a second of cuBLAS on [n, n] bf16 numbers that are random. */
static double blas_rate(int n) {
    size_t bytes = (size_t)n * (size_t)n * 2;
    uint16_t *a = gpu->alloc(gpu, bytes), *b = gpu->alloc(gpu, bytes), *host;
    float *y = gpu->alloc(gpu, 2 * bytes);
    int64_t us[RUNS];
    enum { TIMES = 5 };
    host = gpu->alloc_pinned(gpu, bytes);
    for (size_t i = 0; i < bytes / 2; i++) /* -2..2 */
        host[i] = (uint16_t)(0x3f00 | (random_bytes[i % 4096000] & 0x80ff));
    gpu->upload(gpu, a, host, bytes);
    gpu->upload(gpu, b, host, bytes);
    for (int i = 0; i < RUNS + 1; i++) {
        gpu->sync(gpu);
        int64_t start = clock_us();
        for (int j = 0; j < TIMES; j++)
            gpu->blas(gpu, a, b, false, n, n, n, y, (size_t)n, false);
        gpu->sync(gpu);
        us[i ? i - 1 : 0] = clock_us() - start; /* the first warms up */
    }
    gpu->free(gpu, a);
    gpu->free(gpu, b);
    gpu->free(gpu, y);
    gpu->free_pinned(gpu, host);
    return 2.0 * TIMES * n * n * n / median(us, RUNS) * 1e6;
}

/* ---- products ---- */

enum { SETS = 12 }; /* copies of a weight, so that the cache does not hold it */

static void products(struct weight host, double bytes_s, double flop_s) {
    static const int tokens[] = {1, 2, 4, 5, 8, 16, 32, 64, 128, 256, 512, 2048};
    struct backend *be = NULL;
    struct err err;
    int N = host.N, K = host.K;
    struct backend_limits lim = {size.max_tok, K, 32, 8, 128};
    struct weight dev[SETS];
    if (cuda_backend_open(0, 1, &be, &err) != ST_OK || be->reserve(be, &lim, &err) != ST_OK) {
        printf("%s\n", err.msg);
        return;
    }
    for (int i = 0; i < SETS; i++)
        if (be->bind(be, &host, &dev[i], &err) != ST_OK)
            printf("%s\n", err.msg);
    float *x = be->alloc(be, (size_t)size.max_tok * (size_t)K * sizeof *x);
    float *y = be->alloc(be, (size_t)size.max_tok * (size_t)N * sizeof *y);
    float *some = xcalloc((size_t)size.max_tok * (size_t)K, sizeof *some);
    for (size_t i = 0; i < (size_t)size.max_tok * (size_t)K; i++)
        some[i] = (float)(random_bytes[i % 4096000] - 128) / 64;
    be->upload(be, x, some, (size_t)size.max_tok * (size_t)K * sizeof *some);
    free(some);
    double bytes = (double)weight_bytes(&host);
    for (size_t t = 0; t < sizeof tokens / sizeof *tokens && tokens[t] <= size.max_tok; t++) {
        int64_t us[RUNS];
        int T = tokens[t], times = T > 256 ? SETS : 4 * SETS;
        for (int i = -1; i < RUNS; i++) {
            be->finish(be, &err);
            int64_t start = clock_us();
            for (int j = 0; j < times; j++)
                be->matmul(be, x, T, K,
                           &(struct matmul_out){&dev[j % SETS], y, (size_t)N, NULL}, 1);
            be->finish(be, &err);
            us[i < 0 ? 0 : i] = clock_us() - start;
        }
        double s = median(us, RUNS) / 1e6 / times;
        printf("  [%5d, %5d] %4d tokens %9.2f us  %5.0f GB/s (%3.0f %% of copy)  %6.1f TFLOP/s "
               "(%3.0f %% of cuBLAS)\n",
               N, K, T, s * 1e6, bytes / s / 1e9, 100 * bytes / s / bytes_s,
               2.0 * N * K * T / s / 1e12, 100 * 2.0 * N * K * T / s / flop_s);
        fflush(stdout);
    }
    be->free(be, x);
    be->free(be, y);
    be->close(be);
}

static void int8_products(int N, int K, double bytes_s, double flop_s) {
    size_t n = (size_t)weight_pad_n(N) * (size_t)(weight_pad_k(K) / WEIGHT_GROUP);
    float *scale = xcalloc(n, sizeof *scale);
    for (size_t i = 0; i < n; i++)
        scale[i] = 0.0001f;
    printf("products in int8, a scale for each row\n");
    products(int8(N, K, scale), bytes_s, flop_s);
    for (size_t i = 0; i < n; i += 3)
        scale[i] = 0.0002f;
    printf("products in int8, a scale for each %d inputs\n", WEIGHT_GROUP);
    products(int8(N, K, scale), bytes_s, flop_s);
    free(scale);
}

/* ---- the model ---- */

static float *ones(int n) {
    float *g = xcalloc((size_t)n, sizeof *g);
    for (int i = 0; i < n; i++)
        g[i] = 1;
    return g;
}

static struct model make_model(void) {
    struct model m = {0};
    int E = size.n_embd, D = size.head_dim, Q = size.n_head * D, KV = size.n_head_kv * D;
    float *g = ones(E);
    m.hp = (struct hparams){.n_layer = size.n_layer,
                            .n_vocab = size.n_vocab,
                            .n_embd = E,
                            .n_ff = size.n_ff,
                            .n_head = size.n_head,
                            .n_head_kv = size.n_head_kv,
                            .head_dim = D,
                            .ctx_train = 1 << 20,
                            .rope_dim = D,
                            .norm_eps = 1e-5f,
                            .rope_base = 1e6f,
                            .rope_scale = 1,
                            .embd_scale = 1,
                            .residual_scale = 1,
                            .logit_scale = 1};
    m.layers = xcalloc((size_t)size.n_layer, sizeof *m.layers);
    for (int i = 0; i < size.n_layer; i++) {
        struct layer *l = &m.layers[i];
        l->attn_norm.g = l->ffn_norm.g = g;
        l->wq.w = nf4(Q, E);
        l->wk.w = nf4(KV, E);
        l->wv.w = nf4(KV, E);
        l->wo.w = nf4(E, Q);
        l->gate.w = nf4(size.n_ff, E);
        l->up.w = nf4(size.n_ff, E);
        l->down.w = nf4(E, size.n_ff);
    }
    m.out_norm.g = g;
    m.embd.w = nf4(size.n_vocab, E);
    m.head = m.embd;
    return m;
}

static double weight_sum(const struct model *m) {
    const struct layer *l = &m->layers[0];
    const struct linear *w[] = {&l->wq, &l->wk, &l->wv, &l->wo, &l->gate, &l->up, &l->down};
    double sum = 0;
    for (size_t i = 0; i < sizeof w / sizeof *w; i++)
        sum += (double)weight_bytes(&w[i]->w);
    return sum * m->hp.n_layer + (double)weight_bytes(&m->head.w);
}

/* A step of n sequences with n_tok tokens each behind `past`; the median of its times in us. */
static double step(struct graph *g, int n, int n_tok, int past, const int32_t *blocks,
                   int n_block, float *logits, int runs) {
    struct batch_seq *seqs = xcalloc((size_t)n, sizeof *seqs);
    int32_t *tokens = xcalloc((size_t)(n * n_tok), sizeof *tokens);
    int64_t us[64];
    struct err err;
    for (int i = 0; i < n * n_tok; i++)
        tokens[i] = (i * 7919 + 13) % size.n_vocab;
    for (int r = -3; r < runs; r++) {
        for (int i = 0; i < n; i++)
            seqs[i] =
                (struct batch_seq){blocks + (size_t)i * (size_t)n_block, past, n_tok, 1, 0};
        struct batch b = {tokens, n * n_tok, seqs, n};
        int64_t start = clock_us();
        if (graph_forward(g, &b, logits, &err) != ST_OK) {
            printf("  %s\n", err.msg);
            free(seqs);
            free(tokens);
            return 0;
        }
        us[r < 0 ? 0 : r] = clock_us() - start;
    }
    free(seqs);
    free(tokens);
    return median(us, runs);
}

static void decode(const struct model *m, int batch, int context, double bytes_s) {
    int per_seq = context / KV_BLOCK + 2;
    struct graph_params p = {.device = DEVICE_CUDA, .n_block = batch * per_seq};
    struct graph *g = NULL;
    struct err err;
    p.room.min_block = p.n_block;
    if (graph_open(m, &p, &g, &err) != ST_OK) {
        printf("  batch %2d, context %5d: %s\n", batch, context, err.msg);
        return;
    }
    int32_t *blocks = xcalloc((size_t)p.n_block, sizeof *blocks);
    float *logits = xcalloc((size_t)batch * (size_t)size.n_vocab, sizeof *logits);
    for (int i = 0; i < p.n_block; i++) /* no two neighbours */
        blocks[i] = (int32_t)(((int64_t)i * 7919) % p.n_block);
    double us = step(g, batch, 1, context, blocks, per_seq, logits, 32);
    double kv = (double)graph_kv_block_bytes(m, KV_AUTO) / KV_BLOCK * context * batch;
    double bytes = weight_sum(m) + kv;
    if (us > 0)
        printf(
            "  decode, batch %2d, context %5d: %8.0f us  %7.0f tok/s  %5.0f GB/s (%3.0f %% of "
            "copy)\n",
            batch, context, us, batch * 1e6 / us, bytes / us / 1e3,
            100 * bytes / us * 1e6 / bytes_s);
    fflush(stdout);
    free(blocks);
    free(logits);
    graph_close(g);
}

static void prefill(const struct model *m, int n_tok, int past, double flop_s) {
    int n_block = (past + n_tok) / KV_BLOCK + 1;
    struct graph_params p = {.device = DEVICE_CUDA, .n_block = n_block, .max_tok = n_tok};
    struct graph *g = NULL;
    struct err err;
    if (graph_open(m, &p, &g, &err) != ST_OK) {
        printf("  %s\n", err.msg);
        return;
    }
    int32_t *blocks = xcalloc((size_t)n_block, sizeof *blocks);
    float *logits = xcalloc((size_t)size.n_vocab, sizeof *logits);
    for (int i = 0; i < n_block; i++)
        blocks[i] = i;
    double us = step(g, 1, n_tok, past, blocks, n_block, logits, 5);
    double params = 0;
    const struct layer *l = &m->layers[0];
    const struct linear *w[] = {&l->wq, &l->wk, &l->wv, &l->wo, &l->gate, &l->up, &l->down};
    for (size_t i = 0; i < sizeof w / sizeof *w; i++)
        params += (double)w[i]->w.N * w[i]->w.K * m->hp.n_layer;
    double flop = 2 * params * n_tok + 4.0 * m->hp.n_layer * m->hp.n_head * m->hp.head_dim *
                                           n_tok * (past + n_tok / 2.0);
    if (us > 0)
        printf(
            "  prefill, %4d tokens behind %5d: %9.0f us  %7.0f tok/s  %6.1f TFLOP/s (%3.0f %% "
            "of cuBLAS)\n",
            n_tok, past, us, n_tok * 1e6 / us, flop / us / 1e6, 100 * flop / us * 1e6 / flop_s);
    fflush(stdout);
    free(blocks);
    free(logits);
    graph_close(g);
}

static void ready(const struct model *m) {
    struct graph_params p = {.device = DEVICE_CUDA, .n_block = 600};
    struct graph *g = NULL;
    struct err err;
    int64_t start = clock_us();
    enum status st = graph_open(m, &p, &g, &err);
    if (st == ST_OK)
        printf("  ready in %.2f s: %.2f GB of weights to the device\n",
               (double)(clock_us() - start) / 1e6, weight_sum(m) / 1e9);
    else
        printf("  %s\n", err.msg);
    graph_close(g);
}

int main(int argc, char **argv) {
    static const int batches[] = {1, 8, 32}, contexts[] = {128, 4096, 32768};
    struct err err;
    if (cuda_module_open(0, &gpu, &err) != ST_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    if (argc > 1 && strcmp(argv[1], "--small") == 0)
        size = (struct size){2, 500, 128, 256, 4, 2, 32, 64};
    size_t most = (size_t)size.n_ff * (size_t)size.n_embd;
    size_t head = (size_t)size.n_vocab * (size_t)size.n_embd;
    random_bytes = noise((most > head ? most : head) / 2 + 4096000);
    absmax2 = xcalloc((most > head ? most : head) / 64 / 256 + 64, sizeof *absmax2);
    for (size_t i = 0; i < (most > head ? most : head) / 64 / 256 + 64; i++)
        absmax2[i] = 0.004f;
    printf("%s, %s, %d multiprocessors, %.1f of %.1f GiB free; llmchat %s\n", gpu->info.name,
           gpu->kernels, gpu->info.n_sm, (double)gpu->room(gpu) / (1 << 30),
           (double)gpu->info.total_bytes / (1 << 30), LLMCHAT_VERSION);
    bool small = size.max_tok < 2048;
    if (argc > 3 && strcmp(argv[1], "--decode") == 0) { /* BATCH CONTEXT: for a profiler */
        struct model m = make_model();
        decode(&m, atoi(argv[2]), atoi(argv[3]), 1e12);
        return 0;
    }
    double bytes_s = copy_rate(), flop_s = blas_rate(small ? 128 : 8192);
    printf("copy %.0f GB/s (read and written), cuBLAS bf16 %.0f TFLOP/s\n", bytes_s / 1e9,
           flop_s / 1e12);
    fflush(stdout);
    gpu->close(gpu);
    products(nf4(size.n_embd, size.n_embd), bytes_s, flop_s);
    products(nf4(size.n_ff, size.n_embd), bytes_s, flop_s);
    products(nf4(size.n_embd, size.n_ff), bytes_s, flop_s);
    int8_products(size.n_ff, size.n_embd, bytes_s, flop_s);
    struct model m = make_model();
    printf("model: %d layers, %d wide, %d feed-forward, %d heads (%d for keys) of %d\n",
           size.n_layer, size.n_embd, size.n_ff, size.n_head, size.n_head_kv, size.head_dim);
    ready(&m);
    for (int c = 0; c < (small ? 1 : 3); c++)
        for (int b = 0; b < 3; b++)
            decode(&m, batches[b], contexts[c], bytes_s);
    prefill(&m, size.max_tok / 4, 0, flop_s);
    prefill(&m, size.max_tok, 0, flop_s);
    prefill(&m, size.max_tok, 2 * size.max_tok, flop_s);
    return 0;
}
