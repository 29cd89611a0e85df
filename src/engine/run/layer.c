/*
 * layer.c - one layer of the model, over the backend table.
 *
 * A usual layer is norm, q/k/v, RoPE and KV write, attention, output projection into the
 * residual stream, norm, gate and up with the activation between, down into the residual
 * stream: five loops of the thread pool for one token. Where the backend has a fused function
 * and the layer does not need more than it does, it is used; otherwise the graph composes it.
 *
 * The kinds of residual streams are those of model.h. In the parallel kind the feed-forward
 * reads the stream as it was before the attention: its input is in xn by then, so that adding
 * the attention's output first does not disturb it.
 *
 * A linear whose inputs are reordered (act-order) reads a permuted copy in px.
 *
 * A rank of several (ranks.h) has a part of the heads and of the feed-forward: what its wo and
 * down give is added up over the ranks before anything is done with it.
 */
#include "engine/run/comm.h"
#include "engine/run/graph_internal.h"
#include <assert.h>
#include <math.h>

struct kv_layer graph_kv(const struct graph *g, int layer) {
    char *base = (char *)g->kv + 2 * (size_t)(layer - g->first) * g->kv_part;
    return (struct kv_layer){.k = base,
                             .v = base + g->kv_part,
                             .stride = g->kv_block,
                             .type = g->kv_type,
                             .Hkv = g->model->hp.n_head_kv,
                             .D = g->model->hp.head_dim};
}

static struct norm_op row_norm(const struct graph *g, const struct norm *n) {
    const struct hparams *hp = &g->model->hp;
    return (struct norm_op){.kind = (enum norm_kind)hp->norm_kind,
                            .eps = hp->norm_eps,
                            .g = n->g,
                            .b = n->b,
                            .H = 1,
                            .D = hp->n_embd};
}

const float *graph_norm(struct graph *g, const struct norm *n, const float *x, int T,
                        float *xn) {
    const struct norm_op op = row_norm(g, n);
    if (!n->g)
        return x;
    g->be->norm(g->be, &op, x, T, xn);
    return xn;
}

/* x as a linear with this perm reads it. */
static const float *permuted(struct graph *g, const int32_t *perm, const float *x, int T,
                             int K) {
    if (!perm)
        return x;
    g->be->permute(g->be, x, perm, T, K, g->px);
    return g->px;
}

void graph_matmul(struct graph *g, const float *x, int T, const struct linear *const w[],
                  float *const y[], int n) {
    struct matmul_out out[BACKEND_MAX_OUT];
    assert(n <= BACKEND_MAX_OUT);
    for (int i = 0, j; i < n; i = j) { /* at once as far as they read the same input */
        for (j = i; j < n && w[j]->perm == w[i]->perm; j++)
            out[j - i] = (struct matmul_out){&w[j]->w, y[j], row_floats(w[j]->w.N), w[j]->bias};
        const float *in = permuted(g, w[i]->perm, x, T, w[i]->w.K);
        g->be->matmul(g->be, in, T, w[i]->w.K, out, j - i);
    }
}

/* The same of x normalised; what is in xn then is not said. */
static void norm_matmul(struct graph *g, const struct norm *n, const float *x, int T,
                        const struct linear *const w[], float *const y[], int n_out) {
    const struct norm_op op = row_norm(g, n);
    struct matmul_out out[BACKEND_MAX_OUT];
    bool fused = g->be->norm_matmul && n->g;
    for (int i = 0; i < n_out; i++) {
        fused = fused && !w[i]->perm;
        out[i] = (struct matmul_out){&w[i]->w, y[i], row_floats(w[i]->w.N), w[i]->bias};
    }
    if (fused)
        g->be->norm_matmul(g->be, &op, x, T, op.D, g->xn, out, n_out);
    else
        graph_matmul(g, graph_norm(g, n, x, T, g->xn), T, w, y, n_out);
}

void graph_hidden(struct graph *g, const struct linear *gate, const struct linear *up,
                  const float *x, int T, float *h) {
    struct backend *be = g->be;
    enum act_kind act = (enum act_kind)g->model->hp.act;
    if (gate && gate->w.N == 0)
        gate = NULL;
    if (be->ffn && (!gate || gate->perm == up->perm)) {
        be->ffn(be, act, permuted(g, up->perm, x, T, up->w.K), T, up->w.K, gate, up, h);
    } else if (gate) {
        graph_matmul(g, x, T, (const struct linear *[]){gate, up}, (float *[]){h, g->u}, 2);
        be->act(be, act, h, g->u, T, up->w.N, h);
    } else {
        graph_matmul(g, x, T, &up, &h, 1);
        be->act(be, act, h, NULL, T, up->w.N, h);
    }
}

/* x += residual_scale * norm(y), y added up over the ranks; y is overwritten */
static void add_block(struct graph *g, float *y, int T, const struct norm *post) {
    const struct hparams *hp = &g->model->hp;
    if (g->comm)
        g->comm->all_reduce(g->comm, g->be, y, (size_t)T * row_floats(hp->n_embd));
    graph_norm(g, post, y, T, y);
    g->be->add(g->be, hp->residual_scale, y, T, hp->n_embd, g->x);
}

/* x += residual_scale * norm(in w^T + bias) */
static void add_linear(struct graph *g, const float *in, int T, const struct linear *w,
                       const struct norm *post) {
    if (g->be->matmul_add && !g->comm && !post->g && g->model->hp.residual_scale == 1) {
        const struct matmul_out out = {&w->w, g->x, row_floats(w->w.N), w->bias};
        g->be->matmul_add(g->be, permuted(g, w->perm, in, T, w->w.K), T, w->w.K, &out);
        return;
    }
    graph_matmul(g, in, T, &w, &g->tmp, 1);
    add_block(g, g->tmp, T, post);
}

static void head_norm(struct graph *g, const struct norm *n, float *x, int n_head, int T) {
    const struct hparams *hp = &g->model->hp;
    bool rows = hp->qk_norm_rows == QK_NORM_ROWS;
    struct norm_op op = {.kind = (enum norm_kind)hp->norm_kind,
                         .eps = hp->norm_eps,
                         .g = n->g,
                         .b = n->b,
                         .H = rows ? 1 : n_head,
                         .D = rows ? n_head * hp->head_dim : hp->head_dim,
                         .each = hp->qk_norm_rows == QK_NORM_EACH};
    if (n->g)
        g->be->norm(g->be, &op, x, T, x);
}

/* Positions into q and k, and k and v into the cache. */
static void rope_and_store(struct graph *g, int layer, const struct kv_layer *kv) {
    struct backend *be = g->be;
    const struct hparams *hp = &g->model->hp;
    int table = hp->layer[layer] & LAYER_LOCAL_ROPE ? ROPE_LOCAL : ROPE_GLOBAL;
    if (hp->rope_dim == 0 || hp->layer[layer] & LAYER_NO_ROPE) {
        be->kv_write(be, kv, g->k, g->v);
    } else if (be->rope_kv) {
        be->rope_kv(be, table, kv, hp->n_head, g->q, g->k, g->v);
    } else {
        be->rope(be, table, g->q, hp->n_head, kv->D);
        be->rope(be, table, g->k, kv->Hkv, kv->D);
        be->kv_write(be, kv, g->k, g->v);
    }
}

static int window(const struct graph *g, int layer) {
    const struct hparams *hp = &g->model->hp;
    return hp->layer[layer] & LAYER_WINDOW ? hp->window : 0;
}

void graph_expect(struct graph *g, int layer) {
    if (!g->be->expect || layer == g->end)
        return;
    const struct kv_layer kv = graph_kv(g, layer);
    g->be->expect(g->be, &kv, window(g, layer));
}

static void attend(struct graph *g, int layer, const struct kv_layer *kv) {
    const struct hparams *hp = &g->model->hp;
    const struct att_op op = {
        .scale = hp->att_scale > 0 ? hp->att_scale : (float)(1 / sqrt(hp->head_dim)),
        .cap = hp->att_cap,
        .window = window(g, layer),
        .slopes = g->slopes,
        .alibi_scaled = hp->alibi == ALIBI_FALCON,
        .sinks = g->dev.layers[layer].sinks,
    };
    g->be->attention(g->be, kv, &op, hp->n_head, g->q, g->att);
}

/* What a layer's feed-forward makes of x [T, n_embd], which a norm with weights is for, into
 * the residual stream. What is in xn then is not said. */
static void feed_forward(struct graph *g, int layer, const struct norm *n, const float *x,
                         int T) {
    const struct layer *l = &g->dev.layers[layer];
    const struct norm_op op = row_norm(g, n);
    if (g->model->hp.layer[layer] & LAYER_EXPERTS) {
        experts_run(g, l, graph_norm(g, n, x, T, g->xn), T);
        add_block(g, g->route.sum, T, &l->post_ffn_norm);
        return;
    }
    if (g->be->norm_ffn && n->g && l->gate.w.N > 0 && !l->gate.perm && !l->up.perm)
        g->be->norm_ffn(g->be, &op, (enum act_kind)g->model->hp.act, x, T, op.D, g->xn,
                        &l->gate, &l->up, g->h);
    else
        graph_hidden(g, &l->gate, &l->up, graph_norm(g, n, x, T, g->xn), T, g->h);
    add_linear(g, g->h, T, &l->down, &l->post_ffn_norm);
}

/* Keeps rows [n] alone of what goes on behind the attention. */
static void keep_rows(struct graph *g, const int32_t *rows, int n, bool with_xn) {
    struct backend *be = g->be;
    const struct hparams *hp = &g->model->hp;
    be->select(be, g->att, rows, n, hp->n_head * hp->head_dim, g->att);
    be->select(be, g->x, rows, n, hp->n_embd, g->x);
    if (with_xn)
        be->select(be, g->xn, rows, n, hp->n_embd, g->xn);
}

void graph_layer(struct graph *g, int i, int T, const int32_t *rows, int n_rows) {
    const struct hparams *hp = &g->model->hp;
    const struct layer *l = &g->dev.layers[i];
    struct kv_layer kv = graph_kv(g, i);
    bool parallel = hp->residual == RESIDUAL_PARALLEL, post = hp->residual == RESIDUAL_POST;
    static const struct norm none = {0};
    const struct linear *const qkv[] = {&l->wq, &l->wk, &l->wv};
    float *const to[] = {g->q, g->k, g->v};
    if (parallel) /* xn is the input of the feed-forward, too */
        graph_matmul(g, graph_norm(g, &l->attn_norm, g->x, T, g->xn), T, qkv, to, 3);
    else
        norm_matmul(g, post ? &none : &l->attn_norm, g->x, T, qkv, to, 3);
    head_norm(g, &l->q_norm, g->q, hp->n_head, T);
    head_norm(g, &l->k_norm, g->k, hp->n_head_kv, T);
    rope_and_store(g, i, &kv);
    if (rows && n_rows == 0)
        return;
    attend(g, i, &kv);
    graph_expect(g, i + 1);
    if (rows && n_rows < T) {
        keep_rows(g, rows, n_rows, parallel && !l->ffn_norm.g);
        T = n_rows;
    }
    if (parallel) {
        assert(l->attn_norm.g || l->ffn_norm.g);
        graph_norm(g, &l->ffn_norm, g->x, T, g->xn);
        add_linear(g, g->att, T, &l->wo, &l->post_attn_norm);
        feed_forward(g, i, &none, g->xn, T);
        return;
    }
    add_linear(g, g->att, T, &l->wo, &l->post_attn_norm);
    if (post)
        graph_norm(g, &l->attn_norm, g->x, T, g->x);
    feed_forward(g, i, post ? &none : &l->ffn_norm, g->x, T);
    if (post)
        graph_norm(g, &l->ffn_norm, g->x, T, g->x);
}
