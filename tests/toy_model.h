/*
 * toy_model.h - a small llama-like model made in memory, and tokens for it, for tests of the
 * graph. The numbers follow from a fixed seed.
 */
#ifndef LLMCHAT_TESTS_TOY_MODEL_H
#define LLMCHAT_TESTS_TOY_MODEL_H

#include "base/mem.h"
#include "engine/quant/pack.h"
#include "rand.h"
#include "toy_hparams.h"
#include <math.h>
#include <stdlib.h>

enum {
    V = 203,
    E = 72,
    F = 136,
    H = 6,
    HKV = 2,
    D = 20,
    N_TOK = 53,
    N_BLOCK = 64,
    MAX_TOK = 64,
    MOST_LAYERS = 4
};

static struct layer layers[MOST_LAYERS];
static struct model model;
static int32_t tokens[N_TOK];
static int32_t straight[N_BLOCK]; /* a block table: 0, 1, 2 … */

static void fill(struct linear *l, enum weight_type t, int N, int K) {
    float *x = xcalloc((size_t)N * (size_t)K, sizeof *x);
    rand_fill(x, (size_t)N * (size_t)K, 1.0f / sqrtf((float)K));
    weight_pack(&l->w, t, x, N, K);
    free(x);
}

static struct norm norm_weights(void) {
    float *g = xcalloc(E, sizeof *g);
    for (int i = 0; i < E; i++)
        g[i] = 1 + 0.1f * rand_normal();
    return (struct norm){.g = g};
}

/* linear: the type of the layers' weights; head: of the embedding, which is the head when tied
 */
static void toy_make(int n_layer, enum weight_type linear, enum weight_type head, bool tied) {
    rand_state = 42;
    model = (struct model){.layers = layers};
    model.hp = toy_hparams((struct toy_sizes){n_layer, V, E, F, H, HKV, D});
    for (int i = 0; i < n_layer; i++) {
        struct layer *l = &layers[i];
        l->attn_norm = norm_weights();
        l->ffn_norm = norm_weights();
        fill(&l->wq, linear, H * D, E);
        fill(&l->wk, linear, HKV * D, E);
        fill(&l->wv, linear, HKV * D, E);
        fill(&l->wo, linear, E, H * D);
        fill(&l->gate, linear, F, E);
        fill(&l->up, linear, F, E);
        fill(&l->down, linear, E, F);
    }
    model.out_norm = norm_weights();
    fill(&model.embd, head, V, E);
    model.head = model.embd;
    if (!tied)
        fill(&model.head, head, V, E);
    for (int i = 0; i < N_TOK; i++)
        tokens[i] = (int32_t)(rand_u32() % V);
    for (int i = 0; i < N_BLOCK; i++)
        straight[i] = i;
}

static void toy_release(void) {
    for (int i = 0; i < model.hp.n_layer; i++) {
        struct layer *l = &layers[i];
        struct linear *w[] = {&l->wq, &l->wk, &l->wv, &l->wo, &l->gate, &l->up, &l->down};
        for (size_t j = 0; j < sizeof w / sizeof *w; j++)
            weight_pack_release(&w[j]->w);
        free((float *)l->attn_norm.g);
        free((float *)l->ffn_norm.g);
    }
    free((float *)model.out_norm.g);
    if (model.head.w.data != model.embd.w.data)
        weight_pack_release(&model.head.w);
    weight_pack_release(&model.embd.w);
}

#endif
