/*
 * graph.c - the Llama layer graph over the backend table.
 *
 * A layer: norm, q/k/v, RoPE, KV write, attention, output projection into the residual stream,
 * norm, gate and up with the activation between, down into the residual stream. Five loops of
 * the thread pool for one token. Where the backend has a fused function it is used, otherwise
 * the graph composes it.
 *
 * Rows whose logits nobody wants leave in the last layer: behind its attention only the wanted
 * rows go on, and when none is wanted the last layer ends with the KV write.
 *
 * RoPE tables are computed once a step: angle = position * inverse frequency, both f32, as
 * PyTorch's Llama does (a more exact angle would differ from it at long positions).
 *
 * Matrices lie one behind the other in one allocation, made when the graph is opened. The pool
 * of KV blocks is another.
 */
#include "engine/run/graph.h"
#include "base/mem.h"
#include "engine/backend.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_TOK = 512, LOGIT_ROWS = 32 /* logits computed at once for a device */ };

struct graph {
    const struct model *model;
    struct backend *be;
    struct layer *layers; /* [n_layer] as the backend bound them */
    struct weight embd, head;
    const float *out_norm;
    int max_tok, max_logits, n_block;
    bool kv_f16;
    void *kv;        /* [n_layer][2] parts of kv_part bytes */
    size_t kv_part;  /* K or V of a layer, all blocks */
    float *scratch;  /* the matrices below */
    float *x, *xn;   /* [max_tok, n_embd] */
    float *q, *att;  /* [max_tok, n_head * D] */
    float *k, *v;    /* [max_tok, n_head_kv * D] */
    float *h, *u;    /* [max_tok, n_ff]; u only without a fused ffn */
    float *logits;   /* [LOGIT_ROWS, n_vocab] when the backend's memory is not the host's */
    float *inv_freq; /* [rope_dim / 2] */
    float *rope_cos, *rope_sin; /* [max_tok, rope_dim] */
    int32_t *rows;              /* [max_tok] rows whose logits are wanted */
    struct step_seq *seqs;      /* [max_tok] */
};

/* Models whose weights are not quantised are taken for exact answers: rounding keys and values
 * changed the greedy text of a bf16 model within 64 tokens for one prompt in twenty. */
static bool kv_is_f16(const struct model *m) {
    enum weight_type t = m->hp.n_layer ? m->layers[0].wq.type : WEIGHT_Q4;
    return t != WEIGHT_F32 && t != WEIGHT_BF16;
}

/* Bytes of K or of V of one block in one layer. */
static size_t kv_part_block(const struct model *m) {
    return (size_t)m->hp.n_head_kv * (size_t)m->hp.head_dim * KV_BLOCK *
           (kv_is_f16(m) ? sizeof(uint16_t) : sizeof(float));
}

size_t graph_kv_block_bytes(const struct model *m) {
    return 2 * (size_t)m->hp.n_layer * kv_part_block(m);
}

/* PyTorch: 1 / base^(2i / dim) in f32. Linear scaling divides the position, which is done to
 * the frequency here. */
static void make_inv_freq(struct graph *g) {
    const struct hparams *hp = &g->model->hp;
    g->inv_freq = xcalloc((size_t)hp->rope_dim / 2 + 1, sizeof *g->inv_freq);
    for (int i = 0; i < hp->rope_dim / 2; i++) {
        float f = 1.0f / powf(hp->rope_base, (float)(2 * i) / (float)hp->rope_dim);
        if (g->model->rope_freqs)
            f /= g->model->rope_freqs[i];
        if (hp->rope_scale > 0)
            f /= hp->rope_scale;
        g->inv_freq[i] = f;
    }
}

static enum status bind_weights(struct graph *g, struct err *err) {
    const struct model *m = g->model;
    struct backend *be = g->be;
    g->layers = xcalloc((size_t)m->hp.n_layer + 1, sizeof *g->layers);
    for (int i = 0; i < m->hp.n_layer; i++) {
        const struct layer *l = &m->layers[i];
        struct layer *b = &g->layers[i];
        const struct weight *from[] = {&l->wq,   &l->wk, &l->wv,  &l->wo,
                                       &l->gate, &l->up, &l->down};
        struct weight *to[] = {&b->wq, &b->wk, &b->wv, &b->wo, &b->gate, &b->up, &b->down};
        for (size_t j = 0; j < sizeof to / sizeof *to; j++)
            CHECK(be->bind(be, from[j], to[j], err));
        CHECK(be->bind_vec(be, l->attn_norm, m->hp.n_embd, &b->attn_norm, err));
        CHECK(be->bind_vec(be, l->ffn_norm, m->hp.n_embd, &b->ffn_norm, err));
    }
    CHECK(be->bind(be, &m->embd, &g->embd, err));
    if (m->head.data == m->embd.data)
        g->head = g->embd;
    else
        CHECK(be->bind(be, &m->head, &g->head, err));
    return be->bind_vec(be, m->out_norm, m->hp.n_embd, &g->out_norm, err);
}

static size_t row_floats(int K) {
    return (size_t)weight_pad_k(K);
}

static enum status alloc_scratch(struct graph *g, struct err *err) {
    const struct hparams *hp = &g->model->hp;
    size_t T = (size_t)g->max_tok, E = row_floats(hp->n_embd), F = row_floats(hp->n_ff);
    size_t Q = row_floats(hp->n_head * hp->head_dim),
           KV = row_floats(hp->n_head_kv * hp->head_dim);
    size_t L = g->be->host_memory ? 0 : LOGIT_ROWS * row_floats(hp->n_vocab);
    size_t U = g->be->ffn ? 0 : F;
    size_t row = 2 * E + 2 * Q + 2 * KV + F + U, bytes;
    if (mul_overflows(row, T, &bytes) || mul_overflows(bytes + L, sizeof(float), &bytes) ||
        !(g->scratch = g->be->alloc(g->be, bytes)))
        return err_set(err, ST_NOMEM, "no memory for the activations of %d tokens", g->max_tok);
    g->x = g->scratch;
    g->xn = g->x + T * E;
    g->q = g->xn + T * E;
    g->att = g->q + T * Q;
    g->k = g->att + T * Q;
    g->v = g->k + T * KV;
    g->h = g->v + T * KV;
    g->u = g->h + T * F;
    g->logits = g->u + T * U;
    g->rope_cos = xcalloc(T * (size_t)hp->rope_dim + 1, sizeof(float));
    g->rope_sin = xcalloc(T * (size_t)hp->rope_dim + 1, sizeof(float));
    g->rows = xcalloc(T, sizeof *g->rows);
    g->seqs = xcalloc(T, sizeof *g->seqs);
    int widest = hp->n_embd;
    if (hp->n_ff > widest)
        widest = hp->n_ff;
    if (hp->n_head * hp->head_dim > widest)
        widest = hp->n_head * hp->head_dim;
    struct backend_limits lim = {g->max_tok, widest, hp->n_head, hp->n_head_kv, hp->head_dim};
    return g->be->reserve(g->be, &lim, err);
}

static enum status alloc_kv(struct graph *g, struct err *err) {
    size_t bytes;
    g->kv_part = kv_part_block(g->model) * (size_t)g->n_block;
    if (mul_overflows(graph_kv_block_bytes(g->model), (size_t)g->n_block, &bytes) ||
        !(g->kv = g->be->alloc(g->be, bytes)))
        return err_set(err, ST_NOMEM, "no memory for a KV pool of %d blocks of %zu bytes",
                       g->n_block, graph_kv_block_bytes(g->model));
    return ST_OK;
}

enum status graph_open(const struct model *m, const struct graph_params *p, struct graph **out,
                       struct err *err) {
    enum status st;
    if (p->device == DEVICE_CUDA)
        return err_set(err, ST_UNSUPPORTED, "this program was built without CUDA");
    struct graph *g = xcalloc(1, sizeof *g);
    g->model = m;
    g->max_tok = p->max_tok > 0 ? p->max_tok : DEFAULT_TOK;
    g->max_logits = p->max_logits > 0 ? p->max_logits : g->max_tok;
    g->n_block = p->n_block;
    g->kv_f16 = kv_is_f16(m);
    assert(p->n_block > 0);
    TRY(cpu_backend_open(p->threads, &g->be, err));
    TRY(bind_weights(g, err));
    make_inv_freq(g);
    TRY(alloc_scratch(g, err));
    TRY(alloc_kv(g, err));
    *out = g;
    return ST_OK;
out:
    graph_close(g);
    return st;
}

void graph_close(struct graph *g) {
    if (!g)
        return;
    if (g->be) {
        g->be->free(g->be, g->kv);
        g->be->free(g->be, g->scratch);
        g->be->close(g->be);
    }
    free(g->rope_cos);
    free(g->rope_sin);
    free(g->inv_freq);
    free(g->rows);
    free(g->seqs);
    free(g->layers);
    free(g);
}

int graph_max_tok(const struct graph *g) {
    return g->max_tok;
}

const char *graph_device(const struct graph *g) {
    return g->be->device;
}

const char *graph_kernels(const struct graph *g) {
    return g->be->kernels;
}

int graph_threads(const struct graph *g) {
    return g->be->threads;
}

static struct kv_layer kv_of(const struct graph *g, int layer) {
    char *base = (char *)g->kv + 2 * (size_t)layer * g->kv_part;
    return (struct kv_layer){.k = base,
                             .v = base + g->kv_part,
                             .f16 = g->kv_f16,
                             .Hkv = g->model->hp.n_head_kv,
                             .D = g->model->hp.head_dim};
}

void graph_copy_block(struct graph *g, int dst, int src, int n_tok) {
    assert(dst >= 0 && dst < g->n_block && src >= 0 && src < g->n_block);
    assert(n_tok >= 0 && n_tok <= KV_BLOCK);
    if (n_tok == 0 || dst == src)
        return;
    for (int i = 0; i < g->model->hp.n_layer; i++) {
        struct kv_layer kv = kv_of(g, i);
        g->be->kv_copy(g->be, &kv, dst,
                       src); /* slots behind n_tok are written before they are read */
    }
}

/* Checks the batch and fills what begin() wants; returns how many logits rows are wanted. */
static int make_step(struct graph *g, const struct batch *b, struct step *s) {
    const struct hparams *hp = &g->model->hp;
    int t = 0, n_rows = 0;
    assert(b->n_tok > 0 && b->n_tok <= g->max_tok && b->n_seq <= b->n_tok);
    for (int i = 0; i < b->n_seq; i++) {
        const struct batch_seq *q = &b->seqs[i];
        assert(q->n_tok > 0 && q->n_past >= 0 && q->n_logits >= 0 && q->n_logits <= q->n_tok);
        assert(t + q->n_tok <= b->n_tok);
        for (int j = 0; j < (q->n_past + q->n_tok + KV_BLOCK - 1) / KV_BLOCK; j++)
            assert(q->blocks[j] >= 0 && q->blocks[j] < g->n_block);
        g->seqs[i] = (struct step_seq){t, q->n_tok, q->n_past, q->blocks};
        for (int j = 0; j < q->n_tok; j++, t++) {
            assert(b->tokens[t] >= 0 && b->tokens[t] < hp->n_vocab);
            float *c = g->rope_cos + (size_t)t * (size_t)hp->rope_dim;
            float *n = g->rope_sin + (size_t)t * (size_t)hp->rope_dim;
            for (int d = 0; d < hp->rope_dim; d += 2) {
                float angle = (float)(q->n_past + j) * g->inv_freq[d / 2];
                c[d] = c[d + 1] = cosf(angle);
                n[d + 1] = sinf(angle);
                n[d] = -n[d + 1];
            }
            if (j >= q->n_tok - q->n_logits)
                g->rows[n_rows++] = t;
        }
    }
    assert(t == b->n_tok && n_rows <= g->max_logits);
    *s = (struct step){.T = t,
                       .tokens = b->tokens,
                       .rope_cos = g->rope_cos,
                       .rope_sin = g->rope_sin,
                       .rope_dim = hp->rope_dim,
                       .seqs = g->seqs,
                       .n_seq = b->n_seq};
    return n_rows;
}

/* x += in w^T; tmp [T, w->N] */
static void residual(struct graph *g, const float *in, int T, const struct weight *w,
                     float *tmp) {
    struct backend *be = g->be;
    size_t ld = row_floats(w->N);
    if (be->matmul_add) {
        be->matmul_add(be, in, T, w->K, &(struct matmul_out){w, g->x, ld});
    } else {
        be->matmul(be, in, T, w->K, &(struct matmul_out){w, tmp, ld}, 1);
        be->add(be, tmp, T, w->N, g->x);
    }
}

static void rope_and_store(struct graph *g, const struct kv_layer *kv) {
    struct backend *be = g->be;
    int H = g->model->hp.n_head;
    if (be->rope_kv) {
        be->rope_kv(be, kv, H, g->q, g->k, g->v);
    } else {
        be->rope(be, g->q, H, kv->D);
        be->rope(be, g->k, kv->Hkv, kv->D);
        be->kv_write(be, kv, g->k, g->v);
    }
}

static void feed_forward(struct graph *g, const struct layer *l, int T) {
    struct backend *be = g->be;
    const struct hparams *hp = &g->model->hp;
    be->norm(be, g->x, l->ffn_norm, hp->norm_eps, T, hp->n_embd, g->xn);
    if (be->ffn) {
        be->ffn(be, g->xn, T, hp->n_embd, &l->gate, &l->up, g->h);
    } else {
        size_t ld = row_floats(hp->n_ff);
        struct matmul_out out[] = {{&l->gate, g->h, ld}, {&l->up, g->u, ld}};
        be->matmul(be, g->xn, T, hp->n_embd, out, 2);
        be->act(be, g->h, g->u, T, hp->n_ff, g->h);
    }
    residual(g, g->h, T, &l->down, g->xn);
}

/* One layer; only rows [n_rows] go on behind the attention when they are given. */
static void run_layer(struct graph *g, int i, int T, const int32_t *rows, int n_rows) {
    struct backend *be = g->be;
    const struct hparams *hp = &g->model->hp;
    const struct layer *l = &g->layers[i];
    struct kv_layer kv = kv_of(g, i);
    size_t ldq = row_floats(hp->n_head * hp->head_dim),
           ldk = row_floats(hp->n_head_kv * hp->head_dim);
    struct matmul_out qkv[] = {{&l->wq, g->q, ldq}, {&l->wk, g->k, ldk}, {&l->wv, g->v, ldk}};
    be->norm(be, g->x, l->attn_norm, hp->norm_eps, T, hp->n_embd, g->xn);
    be->matmul(be, g->xn, T, hp->n_embd, qkv, 3);
    rope_and_store(g, &kv);
    if (rows && n_rows == 0)
        return;
    be->attention(be, &kv, hp->n_head, g->q, g->att);
    if (rows) {
        be->select(be, g->att, rows, n_rows, hp->n_head * hp->head_dim, g->att);
        be->select(be, g->x, rows, n_rows, hp->n_embd, g->x);
        T = n_rows;
    }
    residual(g, g->att, T, &l->wo, g->xn);
    feed_forward(g, l, T);
}

/* Logits of the first n rows of x to host memory [n, n_vocab]. */
static void run_head(struct graph *g, int n, float *logits) {
    struct backend *be = g->be;
    const struct hparams *hp = &g->model->hp;
    size_t V = (size_t)hp->n_vocab, ld = row_floats(hp->n_embd);
    be->norm(be, g->x, g->out_norm, hp->norm_eps, n, hp->n_embd, g->xn);
    if (be->host_memory) {
        be->matmul(be, g->xn, n, hp->n_embd, &(struct matmul_out){&g->head, logits, V}, 1);
        return;
    }
    for (int i = 0; i < n; i += LOGIT_ROWS) {
        int part = n - i < LOGIT_ROWS ? n - i : LOGIT_ROWS;
        be->matmul(be, g->xn + (size_t)i * ld, part, hp->n_embd,
                   &(struct matmul_out){&g->head, g->logits, V}, 1);
        be->download(be, logits + (size_t)i * V, g->logits, (size_t)part * V * sizeof(float));
    }
}

enum status graph_forward(struct graph *g, const struct batch *b, float *logits,
                          struct err *err) {
    struct step s;
    int n_rows = make_step(g, b, &s), last = g->model->hp.n_layer - 1;
    g->be->begin(g->be, &s);
    g->be->embed(g->be, &g->embd, g->x);
    for (int i = 0; i <= last; i++)
        run_layer(g, i, s.T, i == last ? g->rows : NULL, n_rows);
    if (n_rows > 0)
        run_head(g, n_rows, logits);
    return g->be->finish(g->be, err);
}
