/*
 * bind.c - takes a model's tensors to the device.
 *
 * The tables below name every tensor that struct layer and struct model can hold, whatever the
 * architecture; what a model does not have stays zero. An architecture therefore adds nothing
 * here, a new field of struct layer a line.
 *
 * Linears that follow each other in a table and reorder their inputs in the same way (act-order
 * checkpoints repeat the order for q, k and v) share one perm on the device, so that the graph
 * sees by the address that one permuted input serves them all.
 *
 * How many bytes that will be is found by binding to a backend that only counts, so that no
 * second list of tensors can say something else.
 */
#include "engine/run/graph_internal.h"

#include "base/mem.h"
#include "engine/quant/pack.h"
#include "engine/quant/quant.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const size_t linears[] = {
    offsetof(struct layer, wq),          offsetof(struct layer, wk),
    offsetof(struct layer, wv),          offsetof(struct layer, wo),
    offsetof(struct layer, gate),        offsetof(struct layer, up),
    offsetof(struct layer, down),        offsetof(struct layer, router),
    offsetof(struct layer, gate_shared), offsetof(struct layer, up_shared),
    offsetof(struct layer, down_shared), offsetof(struct layer, shared_router),
};
static const size_t experts[] = {
    offsetof(struct layer, gate_exp),
    offsetof(struct layer, up_exp),
    offsetof(struct layer, down_exp),
};
static const size_t norms[] = {
    /* over n_embd columns */
    offsetof(struct layer, attn_norm),
    offsetof(struct layer, post_attn_norm),
    offsetof(struct layer, ffn_norm),
    offsetof(struct layer, post_ffn_norm),
};
enum {
    N_LINEAR = sizeof linears / sizeof *linears,
    N_EXPERT_SET = sizeof experts / sizeof *experts,
    N_NORM = sizeof norms / sizeof *norms,
};
/* q_norm, k_norm and sinks are bound by name. */
_Static_assert(sizeof(struct layer) ==
                   N_LINEAR * sizeof(struct linear) + (N_NORM + 2) * sizeof(struct norm) +
                       N_EXPERT_SET * sizeof(struct linear *) + sizeof(const float *),
               "a field of struct layer is not bound");

static enum status bind_floats(struct graph *g, const float *host, int n, const float **dev,
                               struct err *err) {
    const void *p = NULL;
    if (host)
        CHECK(g->be->bind_data(g->be, host, (size_t)n * sizeof *host, &p, err));
    *dev = p;
    return ST_OK;
}

static enum status bind_norm(struct graph *g, const struct norm *host, int n, struct norm *dev,
                             struct err *err) {
    CHECK(bind_floats(g, host->g, n, &dev->g, err));
    return bind_floats(g, host->b, n, &dev->b, err);
}

/* A linear as it was bound before, to share its perm. */
struct bound {
    const struct linear *host, *dev;
};

/* Each step reads all of w, or of an expert: it may settle. */
static void reads_whole(struct graph *g, struct weight *w) {
    if (g->settle.n == g->settle.cap) {
        g->settle.cap = g->settle.cap ? 2 * g->settle.cap : 64;
        g->settle.w = xreallocarray(g->settle.w, (size_t)g->settle.cap, sizeof *g->settle.w);
    }
    g->settle.w[g->settle.n++] = w;
    g->settle.bytes += weight_bytes(w);
}

/* A linear; of a table a step reads some rows only. */
static enum status bind_table(struct graph *g, const struct linear *host, struct linear *dev,
                              struct bound *last, struct err *err) {
    *dev = (struct linear){0};
    if (host->w.N == 0)
        return ST_OK;
    CHECK(g->be->bind(g->be, &host->w, &dev->w, err));
    CHECK(bind_floats(g, host->bias, host->w.N, &dev->bias, err));
    if (host->perm) {
        size_t bytes = (size_t)host->w.K * sizeof *host->perm;
        const struct linear *l = last->host;
        const void *p;
        g->perm = true;
        if (l && l->perm && l->w.K == host->w.K && memcmp(l->perm, host->perm, bytes) == 0)
            p = last->dev->perm;
        else
            CHECK(g->be->bind_data(g->be, host->perm, bytes, &p, err));
        dev->perm = p;
    }
    *last = (struct bound){host, dev};
    return ST_OK;
}

static enum status bind_linear(struct graph *g, const struct linear *host, struct linear *dev,
                               struct bound *last, struct err *err) {
    CHECK(bind_table(g, host, dev, last, err));
    if (host->w.N)
        reads_whole(g, &dev->w);
    return ST_OK;
}

static void *field(void *base, size_t at) {
    return (char *)base + at;
}

static enum status bind_experts(struct graph *g, int i, struct linear **room, struct err *err) {
    const struct layer *l = &g->model->layers[i];
    int n = g->model->hp.n_expert;
    struct bound last = {0};
    struct linear *to[N_EXPERT_SET] = {0};
    const struct linear *from[N_EXPERT_SET];
    for (int s = 0; s < N_EXPERT_SET; s++) {
        memcpy(&from[s], (const char *)l + experts[s], sizeof from[s]);
        if (!from[s])
            continue;
        to[s] = *room;
        *room += n;
        memcpy(field(&g->dev.layers[i], experts[s]), &to[s], sizeof to[s]);
    }
    for (int e = 0; e < n; e++) /* gate and up of an expert follow each other */
        for (int s = 0; s < N_EXPERT_SET; s++)
            if (from[s])
                CHECK(bind_linear(g, &from[s][e], &to[s][e], &last, err));
    return ST_OK;
}

static enum status bind_layer(struct graph *g, int i, struct linear **room, struct err *err) {
    const struct hparams *hp = &g->model->hp;
    struct layer *from = &g->model->layers[i], *to = &g->dev.layers[i];
    struct bound last = {0};
    int D = hp->head_dim;
    bool rows = hp->qk_norm_rows != QK_NORM_HEADS;
    for (int j = 0; j < N_LINEAR; j++)
        CHECK(bind_linear(g, field(from, linears[j]), field(to, linears[j]), &last, err));
    for (int j = 0; j < N_NORM; j++)
        CHECK(bind_norm(g, field(from, norms[j]), hp->n_embd, field(to, norms[j]), err));
    CHECK(bind_norm(g, &from->q_norm, rows ? hp->n_head * D : D, &to->q_norm, err));
    CHECK(bind_norm(g, &from->k_norm, rows ? hp->n_head_kv * D : D, &to->k_norm, err));
    CHECK(bind_floats(g, from->sinks, hp->n_head, &to->sinks, err));
    return bind_experts(g, i, room, err);
}

/* Slopes of ALiBi (arXiv:2108.12409): a geometric sequence from 2^(-8/n) for a power of two n
 * of heads; what is beyond the power takes every other member of the sequence for 2n. */
static void make_slopes(float *slopes, int n_head, bool bf16) {
    int n = 1;
    while (2 * n <= n_head)
        n *= 2;
    float base = (float)exp2(-exp2(3 - log2(n))), between = (float)exp2(-exp2(3 - log2(2 * n)));
    for (int h = 0; h < n_head; h++) {
        slopes[h] =
            h < n ? powf(base, (float)(h + 1)) : powf(between, (float)(2 * (h - n) + 1));
        if (bf16)
            slopes[h] = bf16_to_f32(bf16_from_f32(slopes[h]));
    }
}

/* What the embedding needs, and what the head does; a tied one is bound once. */
static enum status bind_embedding(struct graph *g, struct err *err) {
    const struct model *m = g->model;
    struct bound last = {0};
    CHECK(bind_table(g, &m->embd, &g->dev.embd, &last, err));
    CHECK(bind_linear(g, &m->embd_in, &g->dev.embd_in, &last, err));
    CHECK(bind_table(g, &m->pos, &g->dev.pos, &last, err));
    return bind_norm(g, &m->embd_norm, m->hp.n_embd, &g->dev.embd_norm, err);
}

static enum status bind_head(struct graph *g, struct err *err) {
    const struct model *m = g->model;
    struct bound last = {0};
    CHECK(bind_linear(g, &m->embd_out, &g->dev.embd_out, &last, err));
    CHECK(bind_norm(g, &m->out_norm, m->hp.n_embd, &g->dev.out_norm, err));
    if (!g->embeds || m->head.w.data != m->embd.w.data)
        return bind_linear(g, &m->head, &g->dev.head, &last, err);
    g->dev.head = g->dev.embd;
    reads_whole(g, &g->dev.head.w); /* rows of embd are read where they are mapped */
    return bind_floats(g, m->head.bias, m->hp.n_vocab, &g->dev.head.bias, err);
}

enum status graph_bind(struct graph *g, struct err *err) {
    const struct model *m = g->model;
    const struct hparams *hp = &m->hp;
    size_t n_expert = (size_t)hp->n_expert, n_layer = (size_t)hp->n_layer;
    g->dev.hp = *hp;
    g->dev.layers = xcalloc(n_layer + 1, sizeof *g->dev.layers);
    g->exp = xcalloc(n_layer * n_expert * N_EXPERT_SET + 1, sizeof *g->exp);
    struct linear *room = g->exp;
    for (int i = g->first; i < g->end; i++)
        CHECK(bind_layer(g, i, &room, err));
    if (g->embeds)
        CHECK(bind_embedding(g, err));
    if (!g->next)
        CHECK(bind_head(g, err));
    if (hp->alibi == ALIBI_NONE)
        return ST_OK;
    int all = m->all_heads ? m->all_heads : hp->n_head;
    g->slopes_host = xcalloc((size_t)all, sizeof *g->slopes_host);
    make_slopes(g->slopes_host, all, hp->alibi == ALIBI_FALCON);
    return bind_floats(g, g->slopes_host + m->first_head, hp->n_head, &g->slopes, err);
}

void graph_unbind(struct graph *g) {
    free(g->dev.layers);
    free(g->exp);
    free(g->slopes_host);
    free(g->settle.w);
}

/* ---- counting ---- */

struct counter {
    struct backend be;
    size_t bytes;
    bool mapped; /* some weight has a code map, which all share */
    bool row_scaled;
};

static size_t taken(size_t bytes) {
    return (bytes + BACKEND_BIND_ALIGN - 1) / BACKEND_BIND_ALIGN * BACKEND_BIND_ALIGN;
}

static enum status count_weight(struct backend *be, const struct weight *host,
                                struct weight *dev, struct err *err) {
    struct counter *c = (struct counter *)(void *)be;
    struct weight_part part[WEIGHT_PARTS];
    (void)err;
    weight_parts(host, part);
    for (int i = 0; i < WEIGHT_PARTS; i++)
        c->bytes += taken(part[i].bytes);
    if (host->code && !c->mapped)
        c->bytes += taken(BACKEND_CODE_MAP);
    c->mapped = c->mapped || host->code;
    c->row_scaled = c->row_scaled || weight_row_scaled(host);
    *dev = *host;
    return ST_OK;
}

static enum status count_data(struct backend *be, const void *host, size_t bytes,
                              const void **dev, struct err *err) {
    struct counter *c = (struct counter *)(void *)be;
    (void)err;
    c->bytes += taken(bytes);
    *dev = host;
    return ST_OK;
}

struct graph_bound graph_count_bound(const struct graph *g) {
    struct counter c = {.be = {.bind = count_weight, .bind_data = count_data}};
    struct graph alike = {.model = g->model,
                          .be = &c.be,
                          .first = g->first,
                          .end = g->end,
                          .embeds = g->embeds,
                          .next = g->next};
    graph_bind(&alike, NULL); /* counting cannot fail */
    graph_unbind(&alike);
    return (struct graph_bound){c.bytes, alike.perm, c.row_scaled};
}
