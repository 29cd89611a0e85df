/*
 * test_layer.c - the layer graph with the options of every architecture, against a plain graph
 * in double that is written from model.h.
 *
 * Models are small, random and in f32: families by name, then random mixtures of all options.
 * Weights have deviation 1/sqrt(K), so that values stay about 1 and each of some hundred
 * operations adds 2^-24 of them: logits agree to 2e-5 of their deviation, and 1e-4 covers the
 * worst of a few thousand. A router whose choice is nearly even could flip by rounding: it
 * would be seen as an error of 1, and none of these models does.
 *
 * The same logits must come bit by bit however the prompt is cut. Ranks that share a model are
 * held to the same bound, and to their own bits; so is, within the bound, a model that is split
 * over the CPU and a GPU (the host shim's kernels, in f32 too).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "act_f64.h"
#include "base/mem.h"
#include "cuda_device.h"
#include "engine/cpu/cpu_internal.h"
#include "engine/quant/pack.h"
#include "engine/quant/quant.h"
#include "engine/run/graph_internal.h"
#include "engine/run/rope.h"
#include "engine/run/shard.h"
#include "rand.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_LAYER = 3, V = 61, E = 40, F = 72, H = 4, D = 12, T = 29, CTX = 64, MAX_WIDTH = 96 };

/* What a model has beside hparams. */
struct family {
    const char *name;
    struct hparams hp; /* what differs from the defaults */
    bool no_pre_norm, post_norms, one_norm, qk_norm, embd_norm, norm_bias;
    bool bias, perm, plain; /* of all linears; the feed-forward has no gate */
    bool no_out_norm, shared, shared_gate, sinks, freqs;
};

static struct model model;
static struct layer layers[N_LAYER];
static int32_t tokens[T], blocks[8];

/* ---- making a model ---- */

static float *random_floats(int n, float mean, float deviation) {
    float *x = xcalloc((size_t)n, sizeof *x);
    rand_fill(x, (size_t)n, deviation);
    for (int i = 0; i < n; i++)
        x[i] += mean;
    return x;
}

static void linear_make(struct linear *l, int N, int K, const struct family *f) {
    float *x = random_floats(N * K, 0, 1 / sqrtf((float)K));
    weight_pack(&l->w, WEIGHT_F32, x, N, K);
    free(x);
    if (f->bias)
        l->bias = random_floats(N, 0, 0.3f);
    if (f->perm) {
        int32_t *perm = xcalloc((size_t)K, sizeof *perm);
        for (int k = 0; k < K; k++)
            perm[k] = k;
        for (int k = K - 1; k > 0; k--) {
            int j = (int)(rand_u32() % (uint32_t)(k + 1)), was = perm[k];
            perm[k] = perm[j];
            perm[j] = was;
        }
        l->perm = perm;
    }
}

static void linear_free(struct linear *l) {
    if (l->w.N)
        weight_pack_release(&l->w);
    free((float *)l->bias);
    free((int32_t *)l->perm);
}

static void norm_make(struct norm *n, int K, const struct family *f) {
    n->g = random_floats(K, 1, 0.2f);
    n->b = f->norm_bias ? random_floats(K, 0, 0.2f) : NULL;
}

static void norm_free(struct norm *n) {
    free((float *)n->g);
    free((float *)n->b);
}

static struct linear *experts_make(int N, int K, const struct family *f) {
    struct linear *l = xcalloc((size_t)model.hp.n_expert, sizeof *l);
    for (int e = 0; e < model.hp.n_expert; e++)
        linear_make(&l[e], N, K, f);
    return l;
}

static void layer_make(struct layer *l, bool experts, const struct family *f) {
    const struct hparams *hp = &model.hp;
    int Q = H * D, KV = hp->n_head_kv * D, FE = hp->n_ff_expert, FS = hp->n_ff_shared;
    *l = (struct layer){0};
    if (!f->no_pre_norm) {
        norm_make(&l->attn_norm, E, f);
        if (!f->one_norm)
            norm_make(&l->ffn_norm, E, f);
    }
    if (f->post_norms) {
        norm_make(&l->post_attn_norm, E, f);
        norm_make(&l->post_ffn_norm, E, f);
    }
    if (f->qk_norm) {
        norm_make(&l->q_norm, hp->qk_norm_rows ? Q : D, f);
        norm_make(&l->k_norm, hp->qk_norm_rows ? KV : D, f);
    }
    linear_make(&l->wq, Q, E, f);
    linear_make(&l->wk, KV, E, f);
    linear_make(&l->wv, KV, E, f);
    linear_make(&l->wo, E, Q, f);
    if (f->sinks)
        l->sinks = random_floats(H, 0, 1);
    if (!experts) {
        if (!f->plain)
            linear_make(&l->gate, F, E, f);
        linear_make(&l->up, F, E, f);
        linear_make(&l->down, E, F, f);
        return;
    }
    linear_make(&l->router, hp->n_expert, E, f);
    if (!f->plain)
        l->gate_exp = experts_make(FE, E, f);
    l->up_exp = experts_make(FE, E, f);
    l->down_exp = experts_make(E, FE, f);
    if (f->shared) {
        linear_make(&l->gate_shared, FS, E, f);
        linear_make(&l->up_shared, FS, E, f);
        linear_make(&l->down_shared, E, FS, f);
        if (f->shared_gate)
            linear_make(&l->shared_router, 1, E, f);
    }
}

static void experts_free(struct linear *l) {
    for (int e = 0; l && e < model.hp.n_expert; e++)
        linear_free(&l[e]);
    free(l);
}

static void model_free(void) {
    for (int i = 0; i < N_LAYER; i++) {
        struct layer *l = &layers[i];
        struct norm *n[] = {&l->attn_norm,      &l->q_norm,   &l->k_norm,
                            &l->post_attn_norm, &l->ffn_norm, &l->post_ffn_norm};
        struct linear *w[] = {&l->wq,     &l->wk,        &l->wv,          &l->wo,
                              &l->gate,   &l->up,        &l->down,        &l->gate_shared,
                              &l->router, &l->up_shared, &l->down_shared, &l->shared_router};
        for (size_t j = 0; j < sizeof n / sizeof *n; j++)
            norm_free(n[j]);
        for (size_t j = 0; j < sizeof w / sizeof *w; j++)
            linear_free(w[j]);
        experts_free(l->gate_exp);
        experts_free(l->up_exp);
        experts_free(l->down_exp);
        free((float *)l->sinks);
    }
    norm_free(&model.out_norm);
    norm_free(&model.embd_norm);
    linear_free(&model.embd);
    linear_free(&model.pos);
    linear_free(&model.head);
    free((float *)model.rope_freqs);
}

/* Zeros in the family's hparams mean the usual. */
static void hparams_make(const struct family *f) {
    struct hparams *hp = &model.hp;
    *hp = f->hp;
    hp->n_layer = N_LAYER;
    hp->n_vocab = V;
    hp->n_embd = E;
    hp->n_ff = F;
    hp->n_head = H;
    hp->head_dim = D;
    hp->ctx_train = CTX;
    hp->norm_eps = 1e-5f;
    hp->n_head_kv = hp->n_head_kv ? hp->n_head_kv : 2;
    hp->rope_base = hp->rope_base > 0 ? hp->rope_base : 10000;
    float *ones[] = {&hp->rope_scale, &hp->logit_scale, &hp->embd_scale, &hp->residual_scale,
                     &hp->expert_scale};
    for (size_t i = 0; i < sizeof ones / sizeof *ones; i++)
        *ones[i] = *ones[i] != 0 ? *ones[i] : 1;
}

static void model_make(const struct family *f) {
    const struct family bare = {0};
    model = (struct model){.layers = layers};
    hparams_make(f);
    for (int i = 0; i < N_LAYER; i++)
        layer_make(&layers[i], model.hp.layer[i] & LAYER_EXPERTS, f);
    linear_make(&model.embd, V, E, &bare);
    linear_make(&model.head, V, E, f);
    if (model.hp.n_pos)
        linear_make(&model.pos, model.hp.n_pos, E, &bare);
    if (f->embd_norm)
        norm_make(&model.embd_norm, E, f);
    if (!f->no_out_norm)
        norm_make(&model.out_norm, E, f);
    if (f->freqs)
        model.rope_freqs = random_floats(model.hp.rope_dim / 2, 1.5f, 0.1f);
    for (int i = 0; i < T; i++)
        tokens[i] = (int32_t)(rand_u32() % V);
    for (int i = 0; i < 8; i++)
        blocks[i] = 7 - i;
}

/* ---- the plain graph; rows are [T][MAX_WIDTH] ---- */

typedef double rows_t[T][MAX_WIDTH];

static void plain_norm(const struct norm *n, int at, int K, const double *x, double *y) {
    const struct hparams *hp = &model.hp;
    double mean = 0, sum = 0;
    for (int k = 0; k < K && hp->norm_kind == NORM_LAYER; k++)
        mean += x[k] / K;
    for (int k = 0; k < K; k++)
        sum += (x[k] - mean) * (x[k] - mean);
    double scale = 1 / sqrt(sum / K + (double)hp->norm_eps);
    for (int k = 0; k < K; k++)
        y[k] = (x[k] - mean) * scale * (double)n->g[at + k] + (n->b ? (double)n->b[at + k] : 0);
}

static void plain_norms(const struct norm *n, rows_t x, rows_t y) {
    for (int t = 0; t < T; t++)
        if (n->g)
            plain_norm(n, 0, E, x[t], y[t]);
        else
            memmove(y[t], x[t], sizeof x[t]);
}

static void plain_linear(const struct linear *l, const double *x, double *y) {
    float row[MAX_WIDTH];
    for (int n = 0; n < l->w.N; n++) {
        weight_unpack_row(&l->w, n, row);
        y[n] = l->bias ? (double)l->bias[n] : 0;
        for (int k = 0; k < l->w.K; k++)
            y[n] += (double)row[k] * x[l->perm ? l->perm[k] : k];
    }
}

static void plain_ffn(const struct linear *gate, const struct linear *up,
                      const struct linear *down, const double *x, double *y) {
    enum act_kind act = (enum act_kind)model.hp.act;
    double g[MAX_WIDTH], u[MAX_WIDTH];
    plain_linear(up, x, u);
    if (gate && gate->w.N)
        plain_linear(gate, x, g);
    for (int k = 0; k < up->w.N; k++)
        u[k] = gate && gate->w.N ? act_f64(act, g[k]) * up_f64(act, u[k]) : act_f64(act, u[k]);
    plain_linear(down, u, y);
}

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static void plain_experts(const struct layer *l, const double *x, double *y) {
    const struct hparams *hp = &model.hp;
    double p[MAX_WIDTH], one[MAX_WIDTH], weight[MAX_WIDTH] = {0}, sum = 0;
    plain_linear(&l->router, x, p);
    for (int e = 0; e < hp->n_expert; e++)
        sum += p[e] = hp->expert_sigmoid ? sigmoid(p[e]) : exp(p[e]);
    for (int e = 0; e < hp->n_expert && !hp->expert_sigmoid; e++)
        p[e] /= sum;
    sum = 0;
    for (int i = 0; i < hp->n_expert_used; i++) {
        int best = 0;
        for (int e = 1; e < hp->n_expert; e++)
            best = p[e] > p[best] ? e : best;
        sum += weight[best] = p[best];
        p[best] = -1;
    }
    memset(y, 0, E * sizeof *y);
    for (int e = 0; e < hp->n_expert; e++)
        if (weight[e] > 0) {
            double w = weight[e] * (double)hp->expert_scale / (hp->expert_norm ? sum : 1);
            plain_ffn(l->gate_exp ? &l->gate_exp[e] : NULL, &l->up_exp[e], &l->down_exp[e], x,
                      one);
            for (int k = 0; k < E; k++)
                y[k] += w * one[k];
        }
    if (l->up_shared.w.N) {
        double g = 1;
        if (l->shared_router.w.N) {
            plain_linear(&l->shared_router, x, &g);
            g = sigmoid(g);
        }
        plain_ffn(&l->gate_shared, &l->up_shared, &l->down_shared, x, one);
        for (int k = 0; k < E; k++)
            y[k] += g * one[k];
    }
}

/* Queries or keys of a layer: projected, normalised, rotated. */
static void plain_heads(const struct linear *w, const struct norm *n, int layer, int n_head,
                        rows_t in, rows_t out) {
    const struct hparams *hp = &model.hp;
    bool local = hp->layer[layer] & LAYER_LOCAL_ROPE;
    struct rope r;
    rope_init(&r, &model);
    rope_set_length(&r, T);
    for (int t = 0; t < T; t++) {
        plain_linear(w, in[t], out[t]);
        if (n->g && hp->qk_norm_rows == 1)
            plain_norm(n, 0, n_head * D, out[t], out[t]);
        for (int h = 0; h < n_head; h++) {
            double *x = out[t] + h * D;
            if (n->g && hp->qk_norm_rows != 1)
                plain_norm(n, 0, D, x, x);
            for (int i = 0; i < hp->rope_dim / 2 && !(hp->layer[layer] & LAYER_NO_ROPE); i++) {
                double a = (double)((float)t * (local ? r.inv_freq_local : r.inv_freq)[i]);
                double k = local ? 1 : (double)r.factor, b = x[2 * i], c = x[2 * i + 1];
                x[2 * i] = k * (b * cos(a) - c * sin(a));
                x[2 * i + 1] = k * (c * cos(a) + b * sin(a));
            }
        }
    }
    rope_release(&r);
}

static double slope_of(int h) { /* H is a power of two */
    float s = powf(2, -8.0f * (float)(h + 1) / H);
    return (double)(model.hp.alibi == ALIBI_FALCON ? bf16_to_f32(bf16_from_f32(s)) : s);
}

static double plain_score(const double *q, const double *k, int h, int j) {
    const struct hparams *hp = &model.hp;
    double s = 0, scale = hp->att_scale > 0 ? (double)hp->att_scale : 1 / sqrt(D);
    for (int d = 0; d < D; d++)
        s += q[d] * k[d];
    s *= scale;
    if (hp->att_cap > 0)
        s = (double)hp->att_cap * tanh(s / (double)hp->att_cap);
    if (hp->alibi == ALIBI_ADDED)
        s += slope_of(h) * j;
    if (hp->alibi == ALIBI_FALCON)
        s += scale * (double)bf16_to_f32(bf16_from_f32((float)(slope_of(h) * j)));
    return s;
}

static void plain_attention(int layer, rows_t q, rows_t k, rows_t v, rows_t out) {
    const struct hparams *hp = &model.hp;
    const struct layer *l = &layers[layer];
    for (int t = 0; t < T; t++)
        for (int h = 0; h < H; h++) {
            int at = h / (H / hp->n_head_kv) * D;
            double *o = out[t] + h * D, sum = l->sinks ? exp((double)l->sinks[h]) : 0;
            memset(o, 0, D * sizeof *o);
            for (int j = 0; j <= t; j++) {
                if (hp->layer[layer] & LAYER_WINDOW && j <= t - hp->window)
                    continue;
                double p = exp(plain_score(q[t] + h * D, k[j] + at, h, j));
                sum += p;
                for (int d = 0; d < D; d++)
                    o[d] += p * v[j][at + d];
            }
            for (int d = 0; d < D; d++)
                o[d] /= sum;
        }
}

static void plain_add(rows_t x, rows_t y) {
    for (int t = 0; t < T; t++)
        for (int k = 0; k < E; k++)
            x[t][k] += (double)model.hp.residual_scale * y[t][k];
}

static void plain_forward(int layer, rows_t in, rows_t out) {
    const struct layer *l = &layers[layer];
    for (int t = 0; t < T; t++)
        if (model.hp.layer[layer] & LAYER_EXPERTS)
            plain_experts(l, in[t], out[t]);
        else
            plain_ffn(&l->gate, &l->up, &l->down, in[t], out[t]);
}

static void plain_layer(int layer, rows_t x) {
    static rows_t in, q, k, v, att, o, f;
    const struct hparams *hp = &model.hp;
    const struct layer *l = &layers[layer];
    bool post = hp->residual == RESIDUAL_POST;
    static const struct norm none;
    plain_norms(post ? &none : &l->attn_norm, x, in);
    plain_heads(&l->wq, &l->q_norm, layer, H, in, q);
    plain_heads(&l->wk, &l->k_norm, layer, hp->n_head_kv, in, k);
    for (int t = 0; t < T; t++)
        plain_linear(&l->wv, in[t], v[t]);
    plain_attention(layer, q, k, v, att);
    for (int t = 0; t < T; t++)
        plain_linear(&l->wo, att[t], o[t]);
    plain_norms(&l->post_attn_norm, o, o);
    if (hp->residual == RESIDUAL_PARALLEL) {
        if (l->ffn_norm.g)
            plain_norms(&l->ffn_norm, x, in);
        plain_forward(layer, in, f);
        plain_norms(&l->post_ffn_norm, f, f);
        plain_add(x, o);
        plain_add(x, f);
        return;
    }
    plain_add(x, o);
    if (post)
        plain_norms(&l->attn_norm, x, x);
    plain_norms(post ? &none : &l->ffn_norm, x, in);
    plain_forward(layer, in, f);
    plain_norms(&l->post_ffn_norm, f, f);
    plain_add(x, f);
    if (post)
        plain_norms(&l->ffn_norm, x, x);
}

static void plain_logits(double *logits) {
    static rows_t x;
    const struct hparams *hp = &model.hp;
    float row[MAX_WIDTH];
    for (int t = 0; t < T; t++) {
        weight_unpack_row(&model.embd.w, tokens[t], row);
        for (int k = 0; k < E; k++)
            x[t][k] = (double)row[k] * (double)hp->embd_scale;
        if (hp->n_pos)
            weight_unpack_row(&model.pos.w, t, row);
        for (int k = 0; k < E && hp->n_pos; k++)
            x[t][k] += (double)row[k];
    }
    plain_norms(&model.embd_norm, x, x);
    for (int i = 0; i < N_LAYER; i++)
        plain_layer(i, x);
    plain_norms(&model.out_norm, x, x);
    for (int t = 0; t < T; t++)
        plain_linear(&model.head, x[t], logits + (size_t)t * V);
    for (int i = 0; i < T * V; i++) {
        logits[i] *= (double)hp->logit_scale;
        if (hp->logit_cap > 0)
            logits[i] = (double)hp->logit_cap * tanh(logits[i] / (double)hp->logit_cap);
    }
}

/* ---- checks ---- */

static struct graph *open_ranks(const char *kernels, int threads, int n_rank) {
    struct graph *g = NULL;
    struct err err = {0};
    struct graph_params p = {
        .threads = threads, .n_block = 8, .max_tok = 32, .tensor_parallel = n_rank};
    setenv("LLMCHAT_CPU", kernels, 1);
    if (graph_open(&model, &p, &g, &err) != ST_OK)
        fail_msg("%s", err.msg);
    unsetenv("LLMCHAT_CPU");
    return g;
}

static struct graph *open_graph(const char *kernels, int threads) {
    return open_ranks(kernels, threads, 1);
}

static void forward(struct graph *g, int from, int n, int n_logits, float *logits) {
    struct batch_seq s = {blocks, from, n, n_logits, T};
    struct err err = {0};
    assert_int_equal(graph_forward(g, &(struct batch){tokens + from, n, &s, 1}, logits, &err),
                     ST_OK);
}

/* The same bits while weights move and when all have. */
static void check_settled(const char *name, struct graph *g, const float *whole) {
    static float again[T * V];
    bool more = true;
    cpu_of(g->be)->settle.always = true;
    for (int n = 0; more; n++) {
        more = graph_settle(g);
        if (more && n % 16 != 0)
            continue;
        forward(g, 0, T, T, again);
        if (memcmp(again, whole, sizeof again) != 0)
            fail_msg("%s: other bits in part %d of settling", name, n);
    }
    for (int i = 0; i < N_LAYER && model.layers[i].up_exp; i++)
        for (int e = 0; e < model.hp.n_expert; e++) {
            assert_ptr_not_equal(g->dev.layers[i].up_exp[e].w.data,
                                 model.layers[i].up_exp[e].w.data);
            assert_ptr_not_equal(g->dev.layers[i].down_exp[e].w.data,
                                 model.layers[i].down_exp[e].w.data);
        }
}

static void check_cuts(const char *name, struct graph *g, const float *whole) {
    static float cut[T * V];
    static const int pieces[] = {1, 2, 7, 3, 16};
    for (int t = 0, p = 0; t < T; t += pieces[p++])
        forward(g, t, pieces[p], pieces[p], cut + (size_t)t * V);
    if (memcmp(whole, cut, sizeof cut) != 0)
        fail_msg("%s: a prompt in pieces has other bits", name);
    memset(cut, 0, sizeof cut);
    forward(g, 0, T, 2, cut);
    if (memcmp(whole + (T - 2) * V, cut, 2 * V * sizeof *cut) != 0)
        fail_msg("%s: the last two logits alone have other bits", name);
    forward(g, 0, T - 1, 0, NULL);
    forward(g, T - 1, 1, 1, cut);
    if (memcmp(whole + (T - 1) * V, cut, V * sizeof *cut) != 0)
        fail_msg("%s: decoding has other bits", name);
}

static void check_near(const char *name, const char *what, const float *got, const double *want,
                       double size) {
    for (int i = 0; i < T * V; i++)
        if (!(fabs((double)got[i] - want[i]) <= 1e-4 * size))
            fail_msg("%s %s: logit %d of token %d is %g, want %g (deviation %g)", name, what,
                     i % V, i / V, (double)got[i], want[i], size);
}

/* Whether n ranks can share it; F and H are divided by 2 and 4. */
static bool can_share(const struct family *f, int n) {
    const struct hparams *hp = &model.hp;
    return hp->n_head_kv % n == 0 && hp->n_ff_expert % n == 0 && hp->n_ff_shared % n == 0 &&
           !f->perm && !(f->qk_norm && hp->qk_norm_rows == QK_NORM_ROWS);
}

static int n_shared; /* families that ranks shared */

static void check_ranks(const struct family *f, const char *kernels, const double *want,
                        double size) {
    static float got[T * V];
    for (int n = 2; n <= 4; n += 2) {
        struct err err;
        assert_int_equal(shard_check(&model, n, &err) == ST_OK, can_share(f, n));
        if (!can_share(f, n))
            continue;
        struct graph *g = open_ranks(kernels, 1, n);
        forward(g, 0, T, T, got);
        check_near(f->name, "ranks", got, want, size);
        check_cuts(f->name, g, got);
        graph_close(g);
        n_shared++;
    }
}

/* Makes the model, and its logits want [T, V]; returns their deviation. */
static double make_wanted(const struct family *f, double *want) {
    double size = 0;
    model_make(f);
    plain_logits(want);
    for (int i = 0; i < T * V; i++)
        size += want[i] * want[i] / (T * V);
    size = sqrt(size);
    assert_true(size > 0.01 && size < 100);
    return size;
}

static void check_family(const struct family *f) {
    static double want[T * V];
    static float got[T * V];
    const struct cpu_kernels *sets[8];
    int n = cpu_kernel_sets(sets);
    double size = make_wanted(f, want);
    for (int s = 0; s < n; s++) {
        struct graph *g = open_graph(sets[s]->name, s == 0 ? 2 : 1);
        forward(g, 0, T, T, got);
        check_near(f->name, sets[s]->name, got, want, size);
        check_cuts(f->name, g, got);
        check_settled(f->name, g, got);
        graph_close(g);
    }
    check_ranks(f, sets[n - 1]->name, want, size);
    model_free();
}

#define WIN_MIX                                                                                \
    { LAYER_WINDOW, 0, LAYER_WINDOW }
#define LOCAL_MIX                                                                              \
    { LAYER_WINDOW | LAYER_LOCAL_ROPE, 0, LAYER_WINDOW | LAYER_LOCAL_ROPE }
#define ALL_MOE                                                                                \
    { LAYER_EXPERTS, LAYER_EXPERTS, LAYER_EXPERTS }

static const struct family families[] = {
    {.name = "llama", .hp = {.rope_dim = D}, .freqs = true},
    {.name = "mistral", .hp = {.rope_dim = D, .window = 9, .layer = {1, 1, 1}}},
    {.name = "gpt2",
     .hp = {.n_head_kv = H, .norm_kind = NORM_LAYER, .act = ACT_GELU_TANH, .n_pos = CTX},
     .norm_bias = true,
     .bias = true,
     .plain = true},
    {.name = "gptneox",
     .hp = {.n_head_kv = H,
            .rope_dim = 4,
            .norm_kind = NORM_LAYER,
            .act = ACT_GELU_ERF,
            .residual = RESIDUAL_PARALLEL},
     .norm_bias = true,
     .bias = true,
     .plain = true},
    {.name = "falcon",
     .hp = {.n_head_kv = 1,
            .rope_dim = D,
            .norm_kind = NORM_LAYER,
            .act = ACT_GELU_ERF,
            .residual = RESIDUAL_PARALLEL},
     .norm_bias = true,
     .one_norm = true,
     .plain = true},
    {.name = "falcon-rw",
     .hp =
         {.n_head_kv = H, .norm_kind = NORM_LAYER, .act = ACT_GELU_ERF, .alibi = ALIBI_FALCON},
     .norm_bias = true,
     .bias = true,
     .plain = true},
    {.name = "bloom",
     .hp =
         {.n_head_kv = H, .norm_kind = NORM_LAYER, .act = ACT_GELU_TANH, .alibi = ALIBI_ADDED},
     .norm_bias = true,
     .embd_norm = true,
     .bias = true,
     .plain = true},
    {.name = "opt-350m",
     .hp = {.n_head_kv = H,
            .norm_kind = NORM_LAYER,
            .act = ACT_RELU,
            .n_pos = CTX,
            .residual = RESIDUAL_POST},
     .norm_bias = true,
     .bias = true,
     .plain = true,
     .no_out_norm = true},
    {.name = "gemma2",
     .hp = {.rope_dim = D,
            .act = ACT_GELU_TANH,
            .window = 6,
            .layer = WIN_MIX,
            .att_cap = 3,
            .logit_cap = 2,
            .att_scale = 0.2f,
            .embd_scale = 6.3f},
     .post_norms = true},
    {.name = "gemma3",
     .hp = {.rope_dim = D,
            .act = ACT_GELU_TANH,
            .window = 5,
            .layer = LOCAL_MIX,
            .rope_base = 1000000,
            .rope_base_local = 10000,
            .rope_type = ROPE_LINEAR,
            .rope_scale = 8,
            .embd_scale = 6.3f},
     .post_norms = true,
     .qk_norm = true},
    {.name = "olmo2",
     .hp = {.rope_dim = D, .qk_norm_rows = 1},
     .no_pre_norm = true,
     .post_norms = true,
     .qk_norm = true},
    {.name = "granite",
     .hp = {.rope_dim = D,
            .embd_scale = 12,
            .residual_scale = 0.22f,
            .logit_scale = 0.125f,
            .att_scale = 0.0625f}},
    {.name = "smollm3", .hp = {.rope_dim = D, .layer = {0, LAYER_NO_ROPE, 0}}},
    {.name = "phi3-long",
     .hp = {.rope_dim = 8, .rope_type = ROPE_LONG, .rope_orig_ctx = 20, .rope_scale = 4},
     .freqs = true},
    {.name = "dynamic",
     .hp = {.rope_dim = D, .rope_type = ROPE_DYNAMIC, .rope_orig_ctx = 11, .rope_scale = 3}},
    {.name = "mixtral",
     .hp = {.rope_dim = D,
            .n_expert = 8,
            .n_expert_used = 2,
            .n_ff_expert = 50,
            .expert_norm = 1,
            .layer = ALL_MOE}},
    {.name = "qwen2moe",
     .hp = {.rope_dim = D,
            .n_expert = 5,
            .n_expert_used = 3,
            .n_ff_expert = 30,
            .n_ff_shared = 90,
            .layer = {0, LAYER_EXPERTS, LAYER_EXPERTS}},
     .shared = true,
     .shared_gate = true,
     .bias = true},
    {.name = "deepseek",
     .hp = {.rope_dim = D,
            .n_expert = 6,
            .n_expert_used = 2,
            .n_ff_expert = 30,
            .n_ff_shared = 60,
            .expert_sigmoid = 1,
            .expert_norm = 1,
            .expert_scale = 2.5f,
            .layer = {0, LAYER_EXPERTS, LAYER_EXPERTS}},
     .shared = true},
    {.name = "act-order", .hp = {.rope_dim = D}, .perm = true, .bias = true},
    {.name = "act-order experts",
     .hp = {.rope_dim = D,
            .n_expert = 4,
            .n_expert_used = 1,
            .n_ff_expert = 20,
            .layer = ALL_MOE,
            .act = ACT_RELU2},
     .perm = true,
     .plain = true},
    {.name = "gpt-oss",
     .hp = {.rope_dim = D,
            .window = 7,
            .n_expert = 5,
            .n_expert_used = 2,
            .n_ff_expert = 30,
            .expert_norm = 1,
            .act = ACT_GPT_OSS,
            .layer = {LAYER_EXPERTS | LAYER_WINDOW, LAYER_EXPERTS, LAYER_EXPERTS}},
     .bias = true,
     .sinks = true},
};

static void families_equal_the_plain_graph(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        rand_state = 100 + i;
        check_family(&families[i]);
    }
    assert_true(n_shared > 20);
}

static bool coin(void) {
    return rand_u32() % 2;
}

static void random_family(struct family *f) {
    static const int kv[] = {1, 2, 4};
    struct hparams *hp = &f->hp;
    memset(f, 0, sizeof *f);
    f->name = "random";
    hp->n_head_kv = kv[rand_u32() % 3];
    hp->rope_dim = coin() ? D : 6;
    hp->norm_kind = coin() ? NORM_RMS : NORM_LAYER;
    hp->act = (int)(rand_u32() % (ACT_GPT_OSS + 1));
    hp->residual = (int)(rand_u32() % (RESIDUAL_POST + 1));
    hp->window = 1 + (int)(rand_u32() % T);
    hp->att_cap = coin() ? 4 : 0;
    hp->logit_cap = coin() ? 3 : 0;
    hp->residual_scale = coin() ? 0.5f : 1;
    hp->embd_scale = coin() ? 3 : 1;
    hp->n_pos = coin() ? CTX : 0;
    hp->rope_base_local = 500;
    hp->qk_norm_rows = coin();
    hp->n_expert = 7;
    hp->n_expert_used = 1 + (int)(rand_u32() % 7);
    hp->n_ff_expert = coin() ? 33 : 36;
    hp->n_ff_shared = 20;
    hp->expert_norm = coin();
    hp->expert_sigmoid = coin();
    for (int i = 0; i < N_LAYER; i++)
        hp->layer[i] = (uint8_t)(rand_u32() % 16);
    bool *flags[] = {&f->post_norms, &f->qk_norm, &f->embd_norm, &f->norm_bias,  &f->bias,
                     &f->perm,       &f->plain,   &f->shared,    &f->shared_gate};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        *flags[i] = coin();
    f->one_norm = hp->residual == RESIDUAL_PARALLEL && coin();
    f->no_pre_norm = hp->residual == RESIDUAL_PRE && f->post_norms && coin();
}

static void random_mixtures_equal_the_plain_graph(void **state) {
    (void)state;
    struct family f;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        rand_state = seed * 7919;
        random_family(&f);
        check_family(&f);
    }
}

/* With n layers on the GPU: a prompt whole, in pieces and token by token, the last two logits
 * alone, and none. */
static void check_split(const struct family *f, int n, const double *want, double size) {
    static const int pieces[] = {2, 11, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    static float got[T * V];
    struct graph *g = NULL;
    struct err err = {0};
    struct graph_params p = {
        .device = DEVICE_CUDA, .threads = 2, .n_block = 8, .max_tok = 32, .gpu_layers = n};
    setenv("LLMCHAT_CPU", "scalar", 1);
    if (graph_open(&model, &p, &g, &err) != ST_OK)
        fail_msg("%s", err.msg);
    unsetenv("LLMCHAT_CPU");
    assert_true(graph_is_split(g) && graph_gpu_layers(g) == n);
    forward(g, 0, T, T, got);
    check_near(f->name, "split", got, want, size);
    memset(got, 0, sizeof got);
    for (int t = 0, i = 0; t < T; t += pieces[i++])
        forward(g, t, pieces[i], pieces[i], got + (size_t)t * V);
    check_near(f->name, "split, in pieces", got, want, size);
    memset(got + (T - 2) * V, 0, 2 * V * sizeof *got);
    forward(g, 0, T, 2, got + (T - 2) * V);
    check_near(f->name, "split, two logits", got, want, size);
    memset(got + (T - 1) * V, 0, V * sizeof *got);
    forward(g, 0, T - 1, 0, NULL);
    forward(g, T - 1, 1, 1, got + (T - 1) * V);
    check_near(f->name, "split, decoded", got, want, size);
    graph_close(g);
}

static void split_models_equal_the_plain_graph(void **state) {
    (void)state;
    static double want[T * V];
    if (!cuda_is_here())
        skip();
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        rand_state = 100 + i;
        double size = make_wanted(&families[i], want);
        for (int n = 1; n < N_LAYER; n++)
            check_split(&families[i], n, want, size);
        model_free();
    }
}

/* Sequences of different lengths in one batch each have the frequencies of their own length. */
static void sequences_of_a_batch_have_lengths_of_their_own(void **state) {
    (void)state;
    const struct family f = {
        .hp = {.rope_dim = D, .rope_type = ROPE_DYNAMIC, .rope_orig_ctx = 11, .rope_scale = 3}};
    static float alone[2][V], both[2][V];
    static const int32_t other[] = {4, 5, 6};
    struct err err = {0};
    int32_t in[32];
    model_make(&f);
    struct graph *g = open_graph("scalar", 1);
    struct batch_seq s[2] = {{blocks, 0, 8, 1, 0}, {other, 0, 20, 1, 0}};
    memcpy(in, tokens, 8 * sizeof *in);
    memcpy(in + 8, tokens + 2, 20 * sizeof *in);
    assert_int_equal(graph_forward(g, &(struct batch){in, 8, s, 1}, alone[0], &err), ST_OK);
    assert_int_equal(graph_forward(g, &(struct batch){in + 8, 20, s + 1, 1}, alone[1], &err),
                     ST_OK);
    assert_int_equal(graph_forward(g, &(struct batch){in, 28, s, 2}, both[0], &err), ST_OK);
    assert_memory_equal(alone, both, sizeof alone);
    graph_close(g);
    model_free();
}

static void graph_open_refuses_too_few_learned_positions(void **state) {
    (void)state;
    const struct family f = {.hp = {.n_pos = CTX - 1}};
    struct graph *g = NULL;
    struct err err = {0};
    struct graph_params p = {.threads = 1, .n_block = 4};
    model_make(&f);
    assert_int_equal(graph_open(&model, &p, &g, &err), ST_FORMAT);
    assert_non_null(strstr(err.msg, "63"));
    model_free();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_equal_the_plain_graph),
        cmocka_unit_test(random_mixtures_equal_the_plain_graph),
        cmocka_unit_test(split_models_equal_the_plain_graph),
        cmocka_unit_test(sequences_of_a_batch_have_lengths_of_their_own),
        cmocka_unit_test(graph_open_refuses_too_few_learned_positions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
