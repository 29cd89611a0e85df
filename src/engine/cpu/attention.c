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

enum { ITEMS_PER_THREAD = 8 };

struct att_loop {
    struct cpu *c;
    const struct kv_layer *kv;
    const struct att_op *op;
    int H;
    const float *q;
    float *out;
    int pairs;  /* of a tile and a KV head: so many are an item */
    int chunks; /* of the tile that sees most */
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

/* The chunks that a tile sees: *first .. the returned one, exclusive. */
static int att_chunks(const struct att_loop *l, const struct att_tile *t, int *first) {
    *first = cpu_window_from(l->op->window, row_limit(l->c, t, 0)) / CPU_ATT_CHUNK;
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
        v->from[r] = cpu_window_from(l->op->window, v->limit[r]);
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

/* Pair i of a tile and a KV head. */
static const struct att_tile *att_pair(const struct att_loop *l, int i, int *head) {
    *head = i % l->kv->Hkv;
    return &l->c->tiles[i / l->kv->Hkv];
}

/* What comes behind a chunk of pair i < end: the next chunk, or the first of the next pair. */
static void att_next(const struct att_loop *l, int i, int end, int chunk, struct cpu_att *a) {
    int head, first;
    const struct att_tile *t = att_pair(l, i, &head);
    a->next_n = 0;
    if (++chunk == att_chunks(l, t, &first)) {
        if (i + 1 == end)
            return;
        t = att_pair(l, i + 1, &head);
        att_chunks(l, t, &chunk);
    }
    a->next_blocks = t->seq->blocks;
    a->next_head = head;
    a->next_key = chunk * CPU_ATT_CHUNK;
    int n = row_limit(l->c, t, t->R - 1) - a->next_key;
    a->next_n = n < CPU_ATT_CHUNK ? n : CPU_ATT_CHUNK;
}

static struct cpu_att att_begin(const struct att_loop *l, const struct att_tile *t, int head,
                                struct thread_scratch *s, struct att_view *v) {
    att_gather(l, t, head, s->q, v);
    return (struct cpu_att){.kv = l->kv,
                            .op = l->op,
                            .blocks = t->seq->blocks,
                            .head = head,
                            .R = t->R,
                            .q = s->q,
                            .from = v->from,
                            .limit = v->limit,
                            .slope = v->slope,
                            .scores = s->scores};
}

static void att_item(void *ctx, int item, int thread) {
    const struct att_loop *l = ctx;
    struct thread_scratch *s = &l->c->scratch[thread];
    struct att_view v;
    int n = l->c->n_tile * l->kv->Hkv, head, first;
    int i = item * l->pairs, end = i + l->pairs < n ? i + l->pairs : n;
    for (; i < end; i++) {
        const struct att_tile *t = att_pair(l, i, &head);
        struct cpu_att a = att_begin(l, t, head, s, &v);
        int last = att_chunks(l, t, &first);
        att_next(l, i, end, first, &a);
        att_chunk(l, &a, first, s->acc);
        for (int j = first + 1; j < last; j++) {
            att_next(l, i, end, j, &a);
            att_chunk(l, &a, j, s->part);
            att_merge(l, t->R, s->part, s->acc);
        }
        att_store(l, t, head, s->acc);
    }
}

/* A chunk of a pair, to parts. */
static void att_part_item(void *ctx, int item, int thread) {
    const struct att_loop *l = ctx;
    struct att_view v;
    int head, first;
    const struct att_tile *t = att_pair(l, item / l->chunks, &head);
    int end = att_chunks(l, t, &first), chunk = first + item % l->chunks;
    if (chunk >= end)
        return;
    struct cpu_att a = att_begin(l, t, head, &l->c->scratch[thread], &v);
    att_chunk(l, &a, chunk, l->c->parts + (size_t)item * att_part_size(l->c));
}

/* What the items of a loop over parts left: merged into each pair's first chunk. */
static void att_join(const struct att_loop *l) {
    struct cpu *c = l->c;
    for (int i = 0; i < c->n_tile * l->kv->Hkv; i++) {
        int head, first;
        const struct att_tile *t = att_pair(l, i, &head);
        float *acc = c->parts + (size_t)(i * l->chunks) * att_part_size(c);
        int end = att_chunks(l, t, &first);
        for (int j = 1; j < end - first; j++)
            att_merge(l, t->R, acc + (size_t)j * att_part_size(c), acc);
        att_store(l, t, head, acc);
    }
}

void cpu_attention(struct backend *be, const struct kv_layer *kv, const struct att_op *a, int H,
                   const float *q, float *out) {
    struct cpu *c = cpu_of(be);
    struct att_loop l = {.c = c, .kv = kv, .op = a, .H = H, .q = q, .out = out};
    int n = c->n_tile * kv->Hkv, few = ITEMS_PER_THREAD * c->be.threads;
    for (int i = 0; i < c->n_tile; i++) {
        int first, end = att_chunks(&l, &c->tiles[i], &first);
        l.chunks = end - first > l.chunks ? end - first : l.chunks;
    }
    if (c->be.threads > 1 && n < few && l.chunks > 1 && n * l.chunks <= ATT_PARTS) {
        pool_run(c->pool, n * l.chunks, att_part_item, &l);
        att_join(&l);
        return;
    }
    l.pairs = n < 2 * few || c->step->T > 2 * c->step->n_seq ? 1 : n / few;
    pool_run(c->pool, (n + l.pairs - 1) / l.pairs, att_item, &l);
}
