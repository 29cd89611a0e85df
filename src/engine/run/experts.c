/*
 * experts.c - a mixture of experts: a router scores all experts for each token, the best few
 * compute it, and their results are added up by weight.
 *
 * The router's logits come to the host, where experts are chosen and tokens are sorted by
 * expert: each expert runs once a step, on its own tokens, and weights of experts that nobody
 * chose are never read. Experts go in ascending order, so the sum of a token has one order
 * however the batch is cut.
 *
 *   p = softmax(logits) or sigmoid(logits); the n_expert_used largest, of equal ones the first;
 *   perhaps divided by their sum; times expert_scale
 *
 * Results for single tokens in one large matrix, combined at the end, were rejected: memory of
 * n_expert_used times the batch for nothing.
 */
#include "engine/run/graph_internal.h"

#include "base/mem.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>

size_t experts_floats(const struct graph *g) {
    const struct hparams *hp = &g->model->hp;
    if (hp->n_expert == 0)
        return 0;
    return (size_t)g->max_tok *
           (row_floats(hp->n_expert) + row_floats(1) + 2 * row_floats(hp->n_embd));
}

void experts_init(struct graph *g, float *scratch) {
    const struct hparams *hp = &g->model->hp;
    struct routing *r = &g->route;
    size_t T = (size_t)g->max_tok, n = (size_t)hp->n_expert, used = (size_t)hp->n_expert_used;
    if (n == 0)
        return;
    r->dev = scratch;
    r->dev_gate = r->dev + T * row_floats(hp->n_expert);
    r->in = r->dev_gate + T * row_floats(1);
    r->sum = r->in + T * row_floats(hp->n_embd);
    r->logits = xcalloc(T * row_floats(hp->n_expert), sizeof *r->logits);
    r->gate = xcalloc(T * row_floats(1), sizeof *r->gate);
    r->choice = xcalloc(T * used, sizeof *r->choice);
    r->weight = xcalloc(T * used, sizeof *r->weight);
    r->first = xcalloc(n + 2, sizeof *r->first);
    r->rows = xcalloc(T * used, sizeof *r->rows);
    r->of_row = xcalloc(T * used, sizeof *r->of_row);
    r->all = xcalloc(T, sizeof *r->all);
    for (int t = 0; t < g->max_tok; t++)
        r->all[t] = t;
}

void experts_release(struct graph *g) {
    struct routing *r = &g->route;
    free(r->logits);
    free(r->gate);
    free(r->choice);
    free(r->weight);
    free(r->first);
    free(r->rows);
    free(r->of_row);
    free(r->all);
}

static float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

/* Logits p [n] of a token to the probabilities of its experts. */
static void probabilities(float *p, int n, bool each) {
    float top = p[0], sum = 0;
    for (int e = 0; e < n; e++)
        top = fmaxf(top, p[e]);
    for (int e = 0; e < n; e++) {
        p[e] = each ? sigmoid(p[e]) : expf(p[e] - top);
        sum += p[e];
    }
    for (int e = 0; e < n && !each; e++)
        p[e] /= sum;
}

/* The experts of one token: choice, weight [n_expert_used]. p [n_expert] is used up. */
static void choose(const struct hparams *hp, float *p, int32_t *choice, float *weight) {
    float sum = 0;
    probabilities(p, hp->n_expert, hp->expert_sigmoid);
    for (int i = 0; i < hp->n_expert_used; i++) {
        int best = -1;
        for (int e = 0; e < hp->n_expert; e++)
            if (p[e] >= 0 && (best < 0 || p[e] > p[best]))
                best = e;
        if (best < 0) /* not a number: any that is left, and the logits will tell */
            for (best = 0; p[best] == -1;)
                best++;
        choice[i] = best;
        weight[i] = p[best];
        sum += p[best];
        p[best] = -1; /* taken */
    }
    for (int i = 0; i < hp->n_expert_used; i++) {
        if (hp->expert_norm)
            weight[i] /= sum;
        weight[i] *= hp->expert_scale;
    }
}

/* Tokens sorted by expert (by counting). */
static void group(const struct hparams *hp, struct routing *r, int T) {
    int used = hp->n_expert_used, *next = r->first + 1; /* next[e]: where e's next token goes */
    for (int e = 0; e <= hp->n_expert; e++)
        next[e] = 0;
    r->first[0] = 0;
    for (int i = 0; i < T * used; i++)
        next[r->choice[i] + 1]++;
    for (int e = 0; e < hp->n_expert; e++)
        next[e + 1] += next[e];
    for (int i = 0; i < T * used; i++) {
        int at = next[r->choice[i]]++;
        r->rows[at] = i / used;
        r->of_row[at] = r->weight[i];
    }
}

static void route(struct graph *g, const struct layer *l, const float *x, int T) {
    const struct hparams *hp = &g->model->hp;
    struct routing *r = &g->route;
    size_t ld = row_floats(hp->n_expert);
    bool gated = l->shared_router.w.N > 0;
    graph_matmul(g, x, T, (const struct linear *[]){&l->router, &l->shared_router},
                 (float *[]){r->dev, r->dev_gate}, gated ? 2 : 1);
    g->be->download(g->be, r->logits, r->dev, (size_t)T * ld * sizeof *r->logits);
    if (gated) {
        g->be->download(g->be, r->gate, r->dev_gate,
                        (size_t)T * row_floats(1) * sizeof *r->gate);
        for (int t = 0; t < T; t++)
            r->gate[t] = sigmoid(r->gate[(size_t)t * row_floats(1)]);
    }
    for (int t = 0; t < T; t++) {
        size_t at = (size_t)t * (size_t)hp->n_expert_used;
        choose(hp, r->logits + (size_t)t * ld, r->choice + at, r->weight + at);
    }
    group(hp, r, T);
}

static void run_expert(struct graph *g, const struct layer *l, int e, const float *x, int T) {
    struct routing *r = &g->route;
    int first = r->first[e], n = r->first[e + 1] - first, E = g->model->hp.n_embd;
    const struct linear *down = &l->down_exp[e];
    if (n == 0)
        return;
    if (n < T) {
        g->be->select(g->be, x, r->rows + first, n, E, r->in);
        x = r->in;
    }
    graph_hidden(g, l->gate_exp ? &l->gate_exp[e] : NULL, &l->up_exp[e], x, n, g->h);
    graph_matmul(g, g->h, n, &down, &g->tmp, 1);
    g->be->scatter(g->be, g->tmp, r->rows + first, r->of_row + first, n, E, r->sum);
}

/* The expert of all tokens, by its own weight where it has one. */
static void run_shared(struct graph *g, const struct layer *l, const float *x, int T) {
    struct routing *r = &g->route;
    const struct linear *down = &l->down_shared;
    int E = g->model->hp.n_embd;
    graph_hidden(g, &l->gate_shared, &l->up_shared, x, T, g->h);
    graph_matmul(g, g->h, T, &down, &g->tmp, 1);
    if (l->shared_router.w.N > 0)
        g->be->scatter(g->be, g->tmp, r->all, r->gate, T, E, r->sum);
    else
        g->be->add(g->be, 1, g->tmp, T, E, r->sum);
}

void experts_run(struct graph *g, const struct layer *l, const float *x, int T) {
    const struct hparams *hp = &g->model->hp;
    assert(l->router.w.N == hp->n_expert && l->up_exp && l->down_exp);
    route(g, l, x, T);
    g->be->scale(g->be, 0, 0, g->route.sum, row_floats(hp->n_embd), T, hp->n_embd);
    for (int e = 0; e < hp->n_expert; e++)
        run_expert(g, l, e, x, T);
    if (l->up_shared.w.N > 0)
        run_shared(g, l, x, T);
}
