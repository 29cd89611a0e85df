/*
 * attention.c - attention over the KV cache: cut into items by query rows of a KV head, and by
 * chunks of keys too when there are few rows and a long past.
 *
 * Row r of a tile sees the keys from[r] .. limit[r] - 1; both ascend with r, so of a chunk's
 * keys a contiguous range of rows sees any. Chunks that lie outside the window of all rows of a
 * tile are never touched.
 *
 * Each chunk gives (maximum, sum, weighted sum of V) a row; chunks are merged in ascending
 * order, whether one item did them all or each was an item of its own: the bits are the same. A
 * row that sees nothing of a chunk has the maximum -infinity there. A sink joins the softmax at
 * the end, as a chunk without values would.
 */
#include "engine/cpu/cpu_internal.h"
#include <math.h>
#include <string.h>

struct att_loop {
    struct cpu *c;
    const struct kv_layer *kv;
    const struct att_op *op;
    int H;
    const float *q;
    float *out;
    bool split; /* an item is one chunk of keys and leaves its result in parts */
    int chunks; /* split: of the tile that sees most */
};

/* What each row of a tile sees, and the head it belongs to. */
struct att_view {
    int from[CPU_ATT_ROWS], limit[CPU_ATT_ROWS];
    float slope[CPU_ATT_ROWS];
};

int cpu_att_tile_rows(const struct cpu *c) {
    int gq = cpu_group_heads(c);
    return gq >= CPU_ATT_ROWS ? CPU_ATT_ROWS : CPU_ATT_ROWS / gq * gq;
}

void cpu_att_tiles(struct cpu *c, const struct step *s) {
    int gq = cpu_group_heads(c), rows = cpu_att_tile_rows(c);
    c->n_tile = 0;
    for (int i = 0; i < s->n_seq; i++) {
        const struct step_seq *q = &s->seqs[i];
        for (int r = 0; r < q->n_tok * gq; r += rows) {
            int left = q->n_tok * gq - r;
            c->tiles[c->n_tile++] = (struct att_tile){q, r, left < rows ? left : rows};
        }
    }
}

/* Keys that row r of a tile sees end before this. */
static int row_limit(const struct cpu *c, const struct att_tile *t, int r) {
    return t->seq->n_past + (t->row + r) / cpu_group_heads(c) + 1;
}

static int window_from(const struct att_op *op, int limit) {
    return op->window > 0 && limit > op->window ? limit - op->window : 0;
}

/* The chunks that a tile sees: *first .. the returned one, exclusive. */
static int att_chunks(const struct att_loop *l, const struct att_tile *t, int *first) {
    *first = window_from(l->op, row_limit(l->c, t, 0)) / CPU_ATT_CHUNK;
    return (row_limit(l->c, t, t->R - 1) + CPU_ATT_CHUNK - 1) / CPU_ATT_CHUNK;
}

/* Where row r of a tile is in q and in out. */
static size_t row_at(const struct att_loop *l, const struct att_tile *t, int head, int r,
                     int *h) {
    int gq = cpu_group_heads(l->c), D = l->kv->D, tok = (t->row + r) / gq;
    *h = head * gq + (t->row + r) % gq;
    return (size_t)(t->seq->first + tok) * (size_t)weight_pad_k(l->H * D) + (size_t)(*h * D);
}

static void att_gather(const struct att_loop *l, const struct att_tile *t, int head, float *q,
                       struct att_view *v) {
    size_t D = (size_t)l->kv->D;
    for (int r = 0, h; r < t->R; r++) {
        const float *from = l->q + row_at(l, t, head, r, &h);
        for (size_t d = 0; d < D; d++)
            q[d * CPU_ATT_ROWS + (size_t)r] = from[d];
        v->limit[r] = row_limit(l->c, t, r);
        v->from[r] = window_from(l->op, v->limit[r]);
        v->slope[r] = l->op->slopes ? l->op->slopes[h] : 0;
    }
}

/* One chunk; p is [CPU_ATT_ROWS, D] o, [CPU_ATT_ROWS] m, [CPU_ATT_ROWS] l. */
static void att_chunk(const struct att_loop *l, const struct cpu_att *a, int chunk, float *p) {
    int key = chunk * CPU_ATT_CHUNK, n = a->limit[a->R - 1] - key, row = 0, end = a->R;
    float *m = p + CPU_ATT_ROWS * (size_t)l->kv->D, *sum = m + CPU_ATT_ROWS;
    n = n < CPU_ATT_CHUNK ? n : CPU_ATT_CHUNK;
    while (a->limit[row] <= key)
        m[row++] = -INFINITY;
    while (end > row && a->from[end - 1] >= key + n)
        m[--end] = -INFINITY;
    if (row < end)
        l->c->k->att_chunk(a, row, end, key, n, m, sum, p);
}

/* acc (+) part */
static void att_merge(const struct att_loop *l, int R, const float *part, float *acc) {
    size_t D = (size_t)l->kv->D, at = CPU_ATT_ROWS * D;
    const float *pm = part + at, *pl = pm + CPU_ATT_ROWS;
    float *m = acc + at, *sum = m + CPU_ATT_ROWS;
    for (int r = 0; r < R; r++) {
        const float *po = part + (size_t)r * D;
        float *o = acc + (size_t)r * D;
        if (pm[r] == -INFINITY)
            continue;
        if (m[r] == -INFINITY) {
            memcpy(o, po, D * sizeof *o);
            sum[r] = pl[r];
            m[r] = pm[r];
            continue;
        }
        float top = m[r] > pm[r] ? m[r] : pm[r];
        float a = pm[r] == top ? 1 : expf(pm[r] - top), b = m[r] == top ? 1 : expf(m[r] - top);
        l->c->k->axpby(a, po, b, (int)D, o);
        sum[r] = a * pl[r] + b * sum[r];
        m[r] = top;
    }
}

static void att_store(const struct att_loop *l, const struct att_tile *t, int head,
                      const float *acc) {
    size_t D = (size_t)l->kv->D;
    const float *m = acc + CPU_ATT_ROWS * D, *sum = m + CPU_ATT_ROWS;
    for (int r = 0, h; r < t->R; r++) {
        float *out = l->out + row_at(l, t, head, r, &h), inv = 1.0f / sum[r];
        if (l->op->sinks) {
            float sink = l->op->sinks[h], top = sink > m[r] ? sink : m[r];
            float a = expf(m[r] - top);
            inv = a / (a * sum[r] + expf(sink - top));
        }
        for (size_t d = 0; d < D; d++)
            out[d] = acc[(size_t)r * D + d] * inv;
    }
}

static size_t att_part_size(const struct cpu *c) {
    return CPU_ATT_ROWS * ((size_t)c->lim.head_dim + 2);
}

static void att_item(void *ctx, int item, int thread) {
    const struct att_loop *l = ctx;
    struct cpu *c = l->c;
    struct thread_scratch *s = &c->scratch[thread];
    int Hkv = l->kv->Hkv, chunk = 0, first;
    if (l->split) {
        chunk = item % l->chunks;
        item /= l->chunks;
    }
    /* late tiles see the most keys: they go first */
    const struct att_tile *t = &c->tiles[c->n_tile - 1 - item / Hkv];
    int head = item % Hkv, end = att_chunks(l, t, &first);
    struct att_view v;
    struct cpu_att a = {l->kv, l->op,  t->seq->blocks, head,    t->R,
                        s->q,  v.from, v.limit,        v.slope, s->scores};
    att_gather(l, t, head, s->q, &v);
    if (l->split) {
        if (first + chunk < end)
            att_chunk(l, &a, first + chunk,
                      c->parts + (size_t)(item * l->chunks + chunk) * att_part_size(c));
        return;
    }
    att_chunk(l, &a, first, s->acc);
    for (int i = first + 1; i < end; i++) {
        att_chunk(l, &a, i, s->part);
        att_merge(l, t->R, s->part, s->acc);
    }
    att_store(l, t, head, s->acc);
}

/* What the items of a split loop left: merged into each item's first chunk. */
static void att_join(const struct att_loop *l) {
    struct cpu *c = l->c;
    for (int item = 0; item < c->n_tile * l->kv->Hkv; item++) {
        const struct att_tile *t = &c->tiles[c->n_tile - 1 - item / l->kv->Hkv];
        float *acc = c->parts + (size_t)(item * l->chunks) * att_part_size(c);
        int first, end = att_chunks(l, t, &first);
        for (int i = 1; i < end - first; i++)
            att_merge(l, t->R, acc + (size_t)i * att_part_size(c), acc);
        att_store(l, t, item % l->kv->Hkv, acc);
    }
}

void cpu_attention(struct backend *be, const struct kv_layer *kv, const struct att_op *a, int H,
                   const float *q, float *out) {
    struct cpu *c = cpu_of(be);
    struct att_loop l = {.c = c, .kv = kv, .op = a, .H = H, .q = q, .out = out};
    int n = c->n_tile * kv->Hkv;
    for (int i = 0; i < c->n_tile; i++) {
        int first, end = att_chunks(&l, &c->tiles[i], &first);
        l.chunks = end - first > l.chunks ? end - first : l.chunks;
    }
    l.split =
        c->be.threads > 1 && n < 4 * c->be.threads && l.chunks > 1 && n * l.chunks <= ATT_PARTS;
    pool_run(c->pool, l.split ? n * l.chunks : n, att_item, &l);
    if (l.split)
        att_join(&l);
}
