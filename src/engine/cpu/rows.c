/*
 * rows.c - the operations of the CPU backend that go row by row: embedding, norms, activations,
 * sums, gathering, RoPE and the KV cache.
 *
 * Rows are independent, so a loop is cut into ranges of them; a few rows cost less than waking
 * a thread and run on the caller. scale() alone is cut along its columns, because its rows may
 * be logits.
 */
#include "engine/cpu/cpu_internal.h"
#include "engine/quant/pack.h"
#include <string.h>

enum { SCALE_COLS = 4096 }; /* columns of an item of scale() */

struct row_loop {
    struct cpu *c;
    int T, per_item;
    void (*rows)(struct cpu *c, const void *arg, int t, int end);
    const void *arg;
};

static void row_item(void *ctx, int item, int thread) {
    const struct row_loop *l = ctx;
    (void)thread;
    int t = item * l->per_item, end = t + l->per_item;
    l->rows(l->c, l->arg, t, end < l->T ? end : l->T);
}

void cpu_for_rows(struct cpu *c, int T, int grain,
                  void (*rows)(struct cpu *c, const void *arg, int t, int end),
                  const void *arg) {
    if (T <= FEW_ROWS) {
        rows(c, arg, 0, T);
        return;
    }
    int n = T / (4 * c->be.threads);
    n = (n < 1 ? 1 : n > MAX_ROWS ? MAX_ROWS : n) + grain - 1;
    struct row_loop l = {c, T, n / grain * grain, rows, arg};
    pool_run(c->pool, (T + l.per_item - 1) / l.per_item, row_item, &l);
}

struct row_args {
    const float *x, *g;
    float *y;
    float a;
    int K;
    size_t ld;
    enum act_kind act;
    const struct norm_op *norm;
    const struct weight *w;
    const int32_t *index; /* rows, or columns */
};

static void embed_rows(struct cpu *c, const void *arg, int t, int end) {
    const struct row_args *a = arg;
    (void)c;
    for (; t < end; t++)
        weight_unpack_row(a->w, a->index[t], a->y + (size_t)t * a->ld);
}

void cpu_embed(struct backend *be, const struct weight *w, const int32_t *rows, int T,
               float *x) {
    struct row_args a = {.w = w, .index = rows, .y = x, .ld = (size_t)weight_pad_k(w->K)};
    cpu_for_rows(cpu_of(be), T, 1, embed_rows, &a);
}

static void norm_rows(struct cpu *c, const void *arg, int t, int end) {
    const struct row_args *a = arg;
    const struct norm_op *n = a->norm;
    for (; t < end; t++)
        for (int h = 0; h < n->H; h++) {
            size_t part = (size_t)h * (size_t)n->D, at = (size_t)t * a->ld + part;
            size_t own = n->each ? part : 0;
            c->k->norm(n->kind, a->x + at, n->g + own, n->b ? n->b + own : NULL, n->eps, n->D,
                       a->y + at);
        }
}

void cpu_norm(struct backend *be, const struct norm_op *n, const float *x, int T, float *y) {
    struct row_args a = {.x = x, .norm = n, .y = y, .ld = (size_t)weight_pad_k(n->H * n->D)};
    cpu_for_rows(cpu_of(be), T, 1, norm_rows, &a);
}

static void permute_rows(struct cpu *c, const void *arg, int t, int end) {
    const struct row_args *a = arg;
    (void)c;
    for (; t < end; t++) {
        const float *x = a->x + (size_t)t * a->ld;
        float *y = a->y + (size_t)t * a->ld;
        for (int k = 0; k < a->K; k++)
            y[k] = x[a->index[k]];
    }
}

void cpu_permute(struct backend *be, const float *x, const int32_t *perm, int T, int K,
                 float *y) {
    struct row_args a = {.x = x, .y = y, .index = perm, .K = K, .ld = (size_t)weight_pad_k(K)};
    cpu_for_rows(cpu_of(be), T, 1, permute_rows, &a);
}

static void act_rows(struct cpu *c, const void *arg, int t, int end) {
    const struct row_args *a = arg;
    for (; t < end; t++) {
        size_t at = (size_t)t * a->ld;
        c->k->act(a->act, a->g + at, a->x ? a->x + at : NULL, a->K, a->y + at);
    }
}

void cpu_act(struct backend *be, enum act_kind kind, const float *g, const float *u, int T,
             int K, float *y) {
    struct row_args a = {
        .act = kind, .g = g, .x = u, .y = y, .K = K, .ld = (size_t)weight_pad_k(K)};
    cpu_for_rows(cpu_of(be), T, 1, act_rows, &a);
}

static void add_rows(struct cpu *c, const void *arg, int t, int end) {
    const struct row_args *a = arg;
    for (; t < end; t++)
        c->k->axpby(a->a, a->x + (size_t)t * a->ld, 1, a->K, a->y + (size_t)t * a->ld);
}

void cpu_add(struct backend *be, float a, const float *x, int T, int K, float *y) {
    struct row_args args = {.a = a, .x = x, .y = y, .K = K, .ld = (size_t)weight_pad_k(K)};
    cpu_for_rows(cpu_of(be), T, 1, add_rows, &args);
}

struct scale_loop {
    struct cpu *c;
    float a, cap;
    float *x;
    size_t ld;
    int K, per_row; /* items of a row */
};

static void scale_item(void *ctx, int item, int thread) {
    const struct scale_loop *l = ctx;
    (void)thread;
    int k = item % l->per_row * SCALE_COLS, n = l->K - k < SCALE_COLS ? l->K - k : SCALE_COLS;
    float *x = l->x + (size_t)(item / l->per_row) * l->ld + (size_t)k;
    if (l->a == 0)
        memset(x, 0, (size_t)n * sizeof *x);
    else if (l->a != 1)
        l->c->k->axpby(l->a, x, 0, n, x);
    if (l->cap > 0)
        l->c->k->cap(l->cap, x, n);
}

void cpu_scale(struct backend *be, float a, float cap, float *x, size_t ld, int T, int K) {
    struct cpu *c = cpu_of(be);
    struct scale_loop l = {c, a, cap, x, ld, K, (K + SCALE_COLS - 1) / SCALE_COLS};
    int n_item = T * l.per_row;
    if (T <= FEW_ROWS && l.per_row <= 2)
        for (int i = 0; i < n_item; i++)
            scale_item(&l, i, 0);
    else
        pool_run(c->pool, n_item, scale_item, &l);
}

void cpu_select(struct backend *be, const float *x, const int32_t *rows, int n, int K,
                float *y) {
    (void)be;
    size_t ld = (size_t)weight_pad_k(K);
    for (int i = 0; i < n; i++)
        memmove(y + (size_t)i * ld, x + (size_t)rows[i] * ld, (size_t)K * sizeof *y);
}

static void scatter_rows(struct cpu *c, const void *arg, int i, int end) {
    const struct row_args *a = arg;
    for (; i < end; i++)
        c->k->axpby(a->g[i], a->x + (size_t)i * a->ld, 1, a->K,
                    a->y + (size_t)a->index[i] * a->ld);
}

void cpu_scatter(struct backend *be, const float *x, const int32_t *rows, const float *a, int n,
                 int K, float *y) {
    struct row_args args = {
        .g = a, .x = x, .index = rows, .y = y, .K = K, .ld = (size_t)weight_pad_k(K)};
    cpu_for_rows(cpu_of(be), n, 1, scatter_rows, &args);
}

/* RoPE and the KV cache */

struct rope_args {
    float *q, *k;
    const float *v;
    const struct kv_layer *kv;
    int table, H, Hkv, D;
};

static void rope_rows(struct cpu *c, const void *arg, int t, int end) {
    const struct rope_args *a = arg;
    const struct step *s = c->step;
    size_t ld = (size_t)weight_pad_k(a->H * a->D);
    for (; t < end; t++) {
        size_t at = (size_t)t * (size_t)s->rope_dim;
        for (int h = 0; h < a->H; h++)
            c->k->rope(a->q + (size_t)t * ld + (size_t)(h * a->D), s->rope[a->table].cos + at,
                       s->rope[a->table].sin + at, s->rope_dim);
    }
}

void cpu_rope(struct backend *be, int table, float *x, int n_head, int D) {
    struct cpu *c = cpu_of(be);
    struct rope_args a = {.q = x, .table = table, .H = n_head, .D = D};
    cpu_for_rows(c, c->step->T, 1, rope_rows, &a);
}

static void *block_at(const struct kv_layer *kv, void *base, int block, int head) {
    return (char *)base + kv_part(kv, kv->type, block, head) * kv_elem_bytes(kv->type);
}

/* Asks for the keys and values of the block that row t is written to, where it is not the one
 * of the row before: a key's numbers are in as many lines. */
static inline __attribute__((always_inline)) void
fetch_block(const struct cpu *c, const struct kv_layer *kv, int t) {
    if (t > 0 && c->block[t] == c->block[t - 1])
        return;
    size_t bytes = (size_t)kv->Hkv * kv_head_bytes(kv->type, kv->D);
    const char *k = block_at(kv, kv->k, c->block[t], 0),
               *v = block_at(kv, kv->v, c->block[t], 0);
    for (size_t i = 0; i < bytes; i += 64) {
        __builtin_prefetch(k + i, 1, 2);
        __builtin_prefetch(v + i, 1, 2);
    }
}

static void kv_rows(struct cpu *c, const void *arg, int t, int end) {
    const struct rope_args *a = arg;
    size_t ld = (size_t)weight_pad_k(a->Hkv * a->D);
    for (; t < end; t++)
        for (int h = 0; h < a->Hkv; h++) {
            size_t at = (size_t)t * ld + (size_t)(h * a->D);
            c->k->kv_put(a->kv, a->k + at, a->v + at, c->slot[t],
                         block_at(a->kv, a->kv->k, c->block[t], h),
                         block_at(a->kv, a->kv->v, c->block[t], h));
        }
}

void cpu_kv_write(struct backend *be, const struct kv_layer *kv, const float *k,
                  const float *v) {
    struct cpu *c = cpu_of(be);
    struct rope_args a = {.k = (float *)k, .v = v, .kv = kv, .Hkv = kv->Hkv, .D = kv->D};
    cpu_for_rows(c, c->step->T, 1, kv_rows, &a);
}

static void rope_kv_rows(struct cpu *c, const void *arg, int t, int end) {
    const struct rope_args *a = arg;
    struct rope_args keys = {.q = a->k, .table = a->table, .H = a->Hkv, .D = a->D};
    for (fetch_block(c, a->kv, t); t < end; t++) {
        if (t + 1 < end)
            fetch_block(c, a->kv, t + 1);
        rope_rows(c, a, t, t + 1);
        rope_rows(c, &keys, t, t + 1);
        kv_rows(c, a, t, t + 1);
    }
}

void cpu_rope_kv(struct backend *be, int table, const struct kv_layer *kv, int H, float *q,
                 float *k, const float *v) {
    struct cpu *c = cpu_of(be);
    struct rope_args a = {q, k, v, kv, table, H, kv->Hkv, kv->D};
    cpu_for_rows(c, c->step->T, 1, rope_kv_rows, &a);
}

struct turn_loop {
    const struct cpu_kernels *k;
    const struct kv_layer *kv;
    const int32_t *blocks;
    const float *cos, *sin;
    int rope_dim;
};

/* A head in a block. */
static void turn_item(void *ctx, int item, int thread) {
    const struct turn_loop *l = ctx;
    int i = item / l->kv->Hkv;
    size_t at = (size_t)i * 16 * (size_t)l->rope_dim;
    (void)thread;
    l->k->kv_turn(l->kv, block_at(l->kv, l->kv->k, l->blocks[i], item % l->kv->Hkv),
                  l->cos + at, l->sin + at, l->rope_dim);
}

void cpu_kv_turn(struct backend *be, const struct kv_layer *kv, const int32_t *blocks, int n,
                 const float *cos, const float *sin, int rope_dim) {
    struct turn_loop l = {cpu_of(be)->k, kv, blocks, cos, sin, rope_dim};
    pool_run(cpu_of(be)->pool, n * kv->Hkv, turn_item, &l);
}
