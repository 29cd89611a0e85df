/*
 * cpu.c - the CPU backend: cuts the operations of backend.h into items for the thread pool.
 *
 * Matrices over tokens are cut by rows, matmul by row tiles of the weight (all outputs that
 * share an input are one loop, which quantises the input once), attention by query rows of a KV
 * head, and by chunks of keys too when there are few rows and a long past. A loop over one or
 * few tokens that costs less than waking a thread runs on the caller.
 *
 * Attention keeps (maximum, sum, weighted sum of V) for each chunk of keys and merges chunks in
 * ascending order, whether one item did them all or each was an item of its own: the bits are
 * the same.
 */
#include "engine/cpu/cpu.h"
#include "base/mem.h"
#include "engine/cpu/pool.h"
#include "engine/quant/pack.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    FEW_ROWS = 4, /* rows of an element-wise operation that the caller does alone */
    ROWS_PER_ITEM = 8,
    MAX_TILES = 4,   /* row tiles of a matmul item */
    ATT_PARTS = 256, /* room for partial results of attention, in full items */
};

/* Query rows row .. row + R - 1 of a sequence, counted over token * gq + head inside the KV
 * head's group. */
struct att_tile {
    const struct step_seq *seq;
    int row, R;
};

struct thread_scratch {
    void *mm;      /* cpu_scratch_bytes */
    float *gate;   /* [max_tok, MAX_TILES * 16] */
    float *scores; /* [CPU_ATT_ROWS, CPU_ATT_CHUNK] */
    float *q;      /* [CPU_ATT_ROWS, D] */
    float *part;   /* [CPU_ATT_ROWS, D + 2]: o, then m, then l */
    float *acc;    /* the same */
};

struct cpu {
    struct backend be;
    const struct cpu_kernels *k;
    struct pool *pool;
    struct backend_limits lim;
    const struct step *step;
    struct thread_scratch *scratch; /* [threads] */
    int16_t *q;                     /* [max_tok, Kp] */
    float *scale;                   /* [max_tok, Kp/64] */
    int32_t *block, *slot;          /* [max_tok] where a token's KV goes */
    struct att_tile *tiles;         /* of the step */
    int n_tile;
    float *parts; /* ATT_PARTS times [CPU_ATT_ROWS, D + 2] */
    struct arena {
        void **p;
        int n;
    } arena;
};

static struct cpu *cpu_of(struct backend *be) {
    return (struct cpu *)be;
}

/* Memory */

/* Zeroed, on a 64-byte border. calloc() takes the KV pool's pages from the system untouched, so
 * that opening a model costs neither the time nor the memory of a pool that is not used yet. */
static void *cpu_alloc(struct backend *be, size_t bytes) {
    (void)be;
    size_t size;
    if (add_overflows(bytes, 128, &size))
        return NULL;
    char *base = calloc(1, size);
    if (!base)
        return NULL;
    char *p = base + 128 - (uintptr_t)base % 64;
    memcpy(p - sizeof base, &base, sizeof base); /* what cpu_free() needs */
    return p;
}

static void cpu_free(struct backend *be, void *p) {
    (void)be;
    char *base = NULL;
    if (p)
        memcpy(&base, (char *)p - sizeof base, sizeof base);
    free(base);
}

static void cpu_download(struct backend *be, void *host, const void *dev, size_t bytes) {
    (void)be;
    memcpy(host, dev, bytes);
}

static enum status cpu_bind(struct backend *be, const struct weight *host, struct weight *dev,
                            struct err *err) {
    (void)be;
    (void)err;
    *dev = *host;
    return ST_OK;
}

static enum status cpu_bind_vec(struct backend *be, const float *host, int n, const float **dev,
                                struct err *err) {
    (void)be;
    (void)n;
    (void)err;
    *dev = host;
    return ST_OK;
}

size_t cpu_scratch_bytes(int max_k) {
    size_t Kp = (size_t)weight_pad_k(max_k);
    size_t panel = CPU_PANEL_TILES * (Kp * 32 + Kp / 64 * 16 * sizeof(float));
    size_t ref = Kp * 16 * sizeof(float);
    return panel > ref ? panel : ref;
}

static void release_scratch(struct cpu *c) {
    for (int i = 0; i < c->arena.n; i++)
        cpu_free(&c->be, c->arena.p[i]);
    free(c->arena.p);
    c->arena.p = NULL;
    c->arena.n = 0;
}

/* Memory of the step's scratch; NULL sets *failed. */
static void *take(struct cpu *c, size_t n, size_t size_bytes, bool *failed) {
    size_t bytes;
    void *p = mul_overflows(n, size_bytes, &bytes) ? NULL : cpu_alloc(&c->be, bytes);
    if (!p) {
        *failed = true;
        return NULL;
    }
    c->arena.p = xreallocarray(c->arena.p, (size_t)c->arena.n + 1, sizeof *c->arena.p);
    c->arena.p[c->arena.n++] = p;
    return p;
}

static int group_heads(const struct cpu *c) {
    return c->lim.n_head / c->lim.n_head_kv;
}

/* Rows of an attention item: whole tokens where a token's heads fit. */
static int att_rows(const struct cpu *c) {
    int gq = group_heads(c);
    return gq >= CPU_ATT_ROWS ? CPU_ATT_ROWS : CPU_ATT_ROWS / gq * gq;
}

static enum status cpu_reserve(struct backend *be, const struct backend_limits *lim,
                               struct err *err) {
    struct cpu *c = cpu_of(be);
    bool failed = false;
    release_scratch(c);
    c->lim = *lim;
    size_t T = (size_t)lim->max_tok, Kp = (size_t)weight_pad_k(lim->max_k);
    size_t row = (size_t)lim->head_dim + 2;
    if (c->k->quantize) {
        c->q = take(c, T, Kp * sizeof *c->q, &failed);
        c->scale = take(c, T, Kp / 64 * sizeof(float), &failed);
    }
    c->block = take(c, T, sizeof *c->block, &failed);
    c->slot = take(c, T, sizeof *c->slot, &failed);
    size_t n_tile = T * (size_t)group_heads(c) / (size_t)att_rows(c) + T + 1;
    c->tiles = take(c, n_tile, sizeof *c->tiles, &failed);
    c->parts = take(c, (size_t)ATT_PARTS * CPU_ATT_ROWS, row * sizeof(float), &failed);
    for (int i = 0; i < be->threads; i++) {
        struct thread_scratch *s = &c->scratch[i];
        s->mm = take(c, 1, cpu_scratch_bytes(lim->max_k), &failed);
        s->gate = take(c, T, MAX_TILES * 16 * sizeof(float), &failed);
        s->scores = take(c, CPU_ATT_ROWS * CPU_ATT_CHUNK, sizeof(float), &failed);
        s->q = take(c, CPU_ATT_ROWS, row * sizeof(float), &failed);
        s->part = take(c, CPU_ATT_ROWS, row * sizeof(float), &failed);
        s->acc = take(c, CPU_ATT_ROWS, row * sizeof(float), &failed);
    }
    if (failed)
        return err_set(err, ST_NOMEM, "no memory for the work space of a step of %d tokens",
                       lim->max_tok);
    return ST_OK;
}

static void cpu_close(struct backend *be) {
    struct cpu *c = cpu_of(be);
    pool_free(c->pool);
    release_scratch(c);
    free(c->scratch);
    free(c);
}

/* Loops over rows */

struct row_loop {
    struct cpu *c;
    int T;
    void (*rows)(struct cpu *c, const void *arg, int t, int end);
    const void *arg;
};

static void row_item(void *ctx, int item, int thread) {
    const struct row_loop *l = ctx;
    (void)thread;
    int t = item * ROWS_PER_ITEM, end = t + ROWS_PER_ITEM;
    l->rows(l->c, l->arg, t, end < l->T ? end : l->T);
}

static void for_rows(struct cpu *c, int T,
                     void (*rows)(struct cpu *c, const void *arg, int t, int end),
                     const void *arg) {
    struct row_loop l = {c, T, rows, arg};
    if (T <= FEW_ROWS)
        rows(c, arg, 0, T);
    else
        pool_run(c->pool, (T + ROWS_PER_ITEM - 1) / ROWS_PER_ITEM, row_item, &l);
}

struct row_args {
    const float *x, *g;
    float *y;
    float eps;
    int K;
    size_t ld;
    const struct weight *w;
};

static void embed_rows(struct cpu *c, const void *arg, int t, int end) {
    const struct row_args *a = arg;
    for (; t < end; t++)
        weight_unpack_row(a->w, c->step->tokens[t], a->y + (size_t)t * a->ld);
}

static void cpu_embed(struct backend *be, const struct weight *w, float *x) {
    struct cpu *c = cpu_of(be);
    struct row_args a = {.w = w, .y = x, .ld = (size_t)weight_pad_k(w->K)};
    for_rows(c, c->step->T, embed_rows, &a);
}

static void norm_rows(struct cpu *c, const void *arg, int t, int end) {
    const struct row_args *a = arg;
    for (; t < end; t++) {
        size_t at = (size_t)t * a->ld;
        c->k->norm(a->x + at, a->g, a->eps, a->K, a->y + at);
    }
}

static void cpu_norm(struct backend *be, const float *x, const float *g, float eps, int T,
                     int K, float *y) {
    struct row_args a = {
        .x = x, .g = g, .y = y, .eps = eps, .K = K, .ld = (size_t)weight_pad_k(K)};
    for_rows(cpu_of(be), T, norm_rows, &a);
}

static void act_rows(struct cpu *c, const void *arg, int t, int end) {
    const struct row_args *a = arg;
    for (; t < end; t++) {
        size_t at = (size_t)t * a->ld;
        c->k->act(a->g + at, a->x + at, a->K, a->y + at);
    }
}

static void cpu_act(struct backend *be, const float *g, const float *u, int T, int K,
                    float *y) {
    struct row_args a = {.g = g, .x = u, .y = y, .K = K, .ld = (size_t)weight_pad_k(K)};
    for_rows(cpu_of(be), T, act_rows, &a);
}

static void add_rows(struct cpu *c, const void *arg, int t, int end) {
    const struct row_args *a = arg;
    for (; t < end; t++)
        c->k->axpby(1, a->x + (size_t)t * a->ld, 1, a->K, a->y + (size_t)t * a->ld);
}

static void cpu_add(struct backend *be, const float *x, int T, int K, float *y) {
    struct row_args a = {.x = x, .y = y, .K = K, .ld = (size_t)weight_pad_k(K)};
    for_rows(cpu_of(be), T, add_rows, &a);
}

static void cpu_select(struct backend *be, const float *x, const int32_t *rows, int n, int K,
                       float *y) {
    (void)be;
    size_t ld = (size_t)weight_pad_k(K);
    for (int i = 0; i < n; i++)
        memmove(y + (size_t)i * ld, x + (size_t)rows[i] * ld, (size_t)K * sizeof *y);
}

/* Matmul */

struct mm_loop {
    struct cpu *c;
    struct cpu_input f32, i16; /* the input, without and with q */
    const struct matmul_out *out;
    int tiles; /* row tiles of an item */
    bool add;
};

static bool wants_int(const struct cpu *c, const struct weight *w) {
    return c->k->quantize && (w->type == WEIGHT_I8 || w->type == WEIGHT_Q4);
}

static const struct cpu_input *input_for(const struct mm_loop *l, const struct weight *w) {
    return wants_int(l->c, w) ? &l->i16 : &l->f32;
}

static void quantize_rows(struct cpu *c, const void *arg, int t, int end) {
    const struct cpu_input *in = arg;
    size_t Kp = (size_t)weight_pad_k(in->K), G = Kp / 64;
    for (; t < end; t++)
        c->k->quantize(in->x + (size_t)t * in->ldx, in->K, c->q + (size_t)t * Kp,
                       c->scale + (size_t)t * G);
}

static void mm_item(void *ctx, int item, int thread) {
    const struct mm_loop *l = ctx;
    const struct matmul_out *o = l->out;
    int n_item;
    while (item >= (n_item = (o->w->Np / 16 + l->tiles - 1) / l->tiles)) {
        item -= n_item;
        o++;
    }
    int tile = item * l->tiles, end = tile + l->tiles;
    if (end > o->w->Np / 16)
        end = o->w->Np / 16;
    struct thread_scratch *s = &l->c->scratch[thread];
    l->c->k->matmul(input_for(l, o->w), o->w, tile, end - tile, o->y + (size_t)tile * 16,
                    o->ldy, l->add, s->mm);
}

/* A strip of gate into scratch, the same strip of up into its place, and their product there.
 */
static void ffn_item(void *ctx, int item, int thread) {
    const struct mm_loop *l = ctx;
    const struct weight *gate = l->out[0].w, *up = l->out[1].w;
    struct thread_scratch *s = &l->c->scratch[thread];
    int tile = item * l->tiles, n = gate->Np / 16 - tile;
    if (n > l->tiles)
        n = l->tiles;
    int cols = gate->N - tile * 16 < n * 16 ? gate->N - tile * 16 : n * 16;
    float *y = l->out[1].y + (size_t)tile * 16;
    size_t ld = (size_t)MAX_TILES * 16, ldy = l->out[1].ldy;
    l->c->k->matmul(input_for(l, gate), gate, tile, n, s->gate, ld, false, s->mm);
    l->c->k->matmul(input_for(l, up), up, tile, n, y, ldy, false, s->mm);
    for (int t = 0; t < l->f32.T; t++)
        l->c->k->act(s->gate + (size_t)t * ld, y + (size_t)t * ldy, cols, y + (size_t)t * ldy);
}

static void run_matmul(struct cpu *c, const float *x, int T, int K,
                       const struct matmul_out *out, int n_out, bool add, bool gated) {
    struct mm_loop l = {.c = c, .out = out, .add = add};
    l.f32 = (struct cpu_input){.x = x, .ldx = (size_t)weight_pad_k(K), .T = T, .K = K};
    l.i16 = l.f32;
    l.i16.q = c->q;
    l.i16.scale = c->scale;
    int tiles = 0, n_item = 0;
    bool quant = false;
    for (int i = 0; i < n_out; i++) {
        assert(out[i].w->K == K && T <= c->lim.max_tok && K <= c->lim.max_k);
        tiles += out[i].w->Np / 16;
        quant = quant || wants_int(c, out[i].w);
    }
    if (T == 0)
        return;
    if (quant)
        for_rows(c, T, quantize_rows, &l.f32);
    l.tiles = tiles / (4 * c->be.threads);
    l.tiles = l.tiles < 1 ? 1 : l.tiles > MAX_TILES ? MAX_TILES : l.tiles;
    for (int i = 0; i < (gated ? 1 : n_out); i++)
        n_item += (out[i].w->Np / 16 + l.tiles - 1) / l.tiles;
    pool_run(c->pool, n_item, gated ? ffn_item : mm_item, &l);
}

static void cpu_matmul(struct backend *be, const float *x, int T, int K,
                       const struct matmul_out *out, int n_out) {
    run_matmul(cpu_of(be), x, T, K, out, n_out, false, false);
}

static void cpu_matmul_add(struct backend *be, const float *x, int T, int K,
                           const struct matmul_out *out) {
    run_matmul(cpu_of(be), x, T, K, out, 1, true, false);
}

static void cpu_ffn(struct backend *be, const float *x, int T, int K, const struct weight *gate,
                    const struct weight *up, float *y) {
    struct matmul_out out[2] = {{gate, NULL, 0}, {up, y, (size_t)weight_pad_k(up->N)}};
    assert(gate->N == up->N);
    run_matmul(cpu_of(be), x, T, K, out, 2, false, true);
}

/* RoPE and the KV cache */

struct rope_args {
    float *q, *k;
    const float *v;
    const struct kv_layer *kv;
    int H, Hkv, D;
};

static void rope_rows(struct cpu *c, const void *arg, int t, int end) {
    const struct rope_args *a = arg;
    const struct step *s = c->step;
    size_t ld = (size_t)weight_pad_k(a->H * a->D);
    for (; t < end; t++)
        for (int h = 0; h < a->H; h++)
            c->k->rope(a->q + (size_t)t * ld + (size_t)(h * a->D),
                       s->rope_cos + (size_t)t * (size_t)s->rope_dim,
                       s->rope_sin + (size_t)t * (size_t)s->rope_dim, s->rope_dim);
}

static void cpu_rope(struct backend *be, float *x, int n_head, int D) {
    struct cpu *c = cpu_of(be);
    struct rope_args a = {.q = x, .H = n_head, .D = D};
    for_rows(c, c->step->T, rope_rows, &a);
}

static void *block_at(const struct kv_layer *kv, void *base, int block, int head) {
    size_t size = kv->f16 ? sizeof(uint16_t) : sizeof(float);
    return (char *)base + kv_part(kv, block, head) * size;
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

static void cpu_kv_write(struct backend *be, const struct kv_layer *kv, const float *k,
                         const float *v) {
    struct cpu *c = cpu_of(be);
    struct rope_args a = {.k = (float *)k, .v = v, .kv = kv, .Hkv = kv->Hkv, .D = kv->D};
    for_rows(c, c->step->T, kv_rows, &a);
}

static void rope_kv_rows(struct cpu *c, const void *arg, int t, int end) {
    const struct rope_args *a = arg;
    struct rope_args keys = {.q = a->k, .H = a->Hkv, .D = a->D};
    rope_rows(c, a, t, end);
    rope_rows(c, &keys, t, end);
    kv_rows(c, a, t, end);
}

static void cpu_rope_kv(struct backend *be, const struct kv_layer *kv, int H, float *q,
                        float *k, const float *v) {
    struct cpu *c = cpu_of(be);
    struct rope_args a = {q, k, v, kv, H, kv->Hkv, kv->D};
    for_rows(c, c->step->T, rope_kv_rows, &a);
}

static void cpu_kv_copy(struct backend *be, const struct kv_layer *kv, int dst, int src) {
    (void)be;
    size_t n =
        (size_t)kv->Hkv * (size_t)kv->D * 16 * (kv->f16 ? sizeof(uint16_t) : sizeof(float));
    memcpy(block_at(kv, kv->k, dst, 0), block_at(kv, kv->k, src, 0), n);
    memcpy(block_at(kv, kv->v, dst, 0), block_at(kv, kv->v, src, 0), n);
}

/* Attention */

static void cpu_begin(struct backend *be, const struct step *s) {
    struct cpu *c = cpu_of(be);
    int gq = group_heads(c), rows = att_rows(c);
    assert(s->T <= c->lim.max_tok);
    c->step = s;
    c->n_tile = 0;
    for (int i = 0; i < s->n_seq; i++) {
        const struct step_seq *q = &s->seqs[i];
        for (int t = 0; t < q->n_tok; t++) {
            int pos = q->n_past + t;
            c->block[q->first + t] = q->blocks[pos / 16];
            c->slot[q->first + t] = pos % 16;
        }
        for (int r = 0; r < q->n_tok * gq; r += rows) {
            int left = q->n_tok * gq - r;
            c->tiles[c->n_tile++] = (struct att_tile){q, r, left < rows ? left : rows};
        }
    }
}

static enum status cpu_finish(struct backend *be, struct err *err) {
    (void)err;
    cpu_of(be)->step = NULL;
    return ST_OK;
}

struct att_loop {
    struct cpu *c;
    const struct kv_layer *kv;
    int H;
    const float *q;
    float *out;
    bool split; /* an item is one chunk of keys and leaves its result in parts */
    int chunks; /* split: of the longest sequence */
};

static int att_chunks(const struct cpu *c, const struct att_tile *t) {
    int last = t->seq->n_past + (t->row + t->R - 1) / group_heads(c) + 1;
    return (last + CPU_ATT_CHUNK - 1) / CPU_ATT_CHUNK;
}

/* Gathers the query rows of a tile; returns the keys that the last of them sees. */
static int att_gather(const struct att_loop *l, const struct att_tile *t, int head, float *q,
                      int *limit) {
    int gq = group_heads(l->c), D = l->kv->D;
    size_t ld = (size_t)weight_pad_k(l->H * D);
    for (int r = 0; r < t->R; r++) {
        int tok = (t->row + r) / gq, h = head * gq + (t->row + r) % gq;
        memcpy(q + (size_t)r * (size_t)D,
               l->q + (size_t)(t->seq->first + tok) * ld + (size_t)(h * D),
               (size_t)D * sizeof *q);
        limit[r] = t->seq->n_past + tok + 1;
    }
    return limit[t->R - 1];
}

/* One chunk; p is [R, D] o, [CPU_ATT_ROWS] m, [CPU_ATT_ROWS] l with o at p. Returns the first
 * row that sees any of it. */
static int att_chunk(const struct att_loop *l, const struct cpu_att *a, int chunk, float *p) {
    int key = chunk * CPU_ATT_CHUNK, n = a->limit[a->R - 1] - key, row = 0;
    float *m = p + CPU_ATT_ROWS * (size_t)l->kv->D, *sum = m + CPU_ATT_ROWS;
    while (a->limit[row] <= key)
        row++;
    l->c->k->att_chunk(a, row, key, n < CPU_ATT_CHUNK ? n : CPU_ATT_CHUNK, m, sum, p);
    return row;
}

/* acc (+) part for rows row .. R - 1. */
static void att_merge(const struct att_loop *l, int row, int R, const float *part, float *acc) {
    int D = l->kv->D;
    size_t at = CPU_ATT_ROWS * (size_t)D;
    const float *pm = part + at, *pl = pm + CPU_ATT_ROWS;
    float *m = acc + at, *sum = m + CPU_ATT_ROWS;
    for (int r = row; r < R; r++) {
        float top = m[r] > pm[r] ? m[r] : pm[r];
        float a = expf(pm[r] - top), b = expf(m[r] - top);
        size_t o = (size_t)r * (size_t)D;
        l->c->k->axpby(a, part + o, b, D, acc + o);
        sum[r] = a * pl[r] + b * sum[r];
        m[r] = top;
    }
}

static void att_store(const struct att_loop *l, const struct att_tile *t, int head,
                      const float *acc) {
    int gq = group_heads(l->c), D = l->kv->D;
    size_t ld = (size_t)weight_pad_k(l->H * D);
    const float *sum = acc + CPU_ATT_ROWS * (size_t)D + CPU_ATT_ROWS;
    for (int r = 0; r < t->R; r++) {
        int tok = (t->row + r) / gq, h = head * gq + (t->row + r) % gq;
        float *out = l->out + (size_t)(t->seq->first + tok) * ld + (size_t)(h * D);
        float inv = 1.0f / sum[r];
        for (int d = 0; d < D; d++)
            out[d] = acc[(size_t)r * (size_t)D + (size_t)d] * inv;
    }
}

static size_t att_part_size(const struct cpu *c) {
    return CPU_ATT_ROWS * ((size_t)c->lim.head_dim + 2);
}

static void att_item(void *ctx, int item, int thread) {
    const struct att_loop *l = ctx;
    struct cpu *c = l->c;
    struct thread_scratch *s = &c->scratch[thread];
    int Hkv = l->kv->Hkv, chunk = 0;
    if (l->split) {
        chunk = item % l->chunks;
        item /= l->chunks;
    }
    /* late tiles see the most keys: they go first */
    const struct att_tile *t = &c->tiles[c->n_tile - 1 - item / Hkv];
    int head = item % Hkv, limit[CPU_ATT_ROWS], n_chunk = att_chunks(c, t);
    struct cpu_att a = {l->kv, t->seq->blocks, head, t->R, s->q, limit, s->scores};
    att_gather(l, t, head, s->q, limit);
    if (l->split) {
        if (chunk < n_chunk)
            att_chunk(l, &a, chunk,
                      c->parts + (size_t)(item * l->chunks + chunk) * att_part_size(c));
        return;
    }
    att_chunk(l, &a, 0, s->acc);
    for (int i = 1; i < n_chunk; i++)
        att_merge(l, att_chunk(l, &a, i, s->part), t->R, s->part, s->acc);
    att_store(l, t, head, s->acc);
}

/* What the items of a split loop left: merged into each item's first chunk. */
static void att_join(const struct att_loop *l) {
    struct cpu *c = l->c;
    for (int item = 0; item < c->n_tile * l->kv->Hkv; item++) {
        const struct att_tile *t = &c->tiles[c->n_tile - 1 - item / l->kv->Hkv];
        float *first = c->parts + (size_t)(item * l->chunks) * att_part_size(c);
        for (int i = 1; i < att_chunks(c, t); i++) {
            int row = 0;
            while (t->seq->n_past + (t->row + row) / group_heads(c) + 1 <= i * CPU_ATT_CHUNK)
                row++;
            att_merge(l, row, t->R, first + (size_t)i * att_part_size(c), first);
        }
        att_store(l, t, item % l->kv->Hkv, first);
    }
}

static void cpu_attention(struct backend *be, const struct kv_layer *kv, int H, const float *q,
                          float *out) {
    struct cpu *c = cpu_of(be);
    struct att_loop l = {.c = c, .kv = kv, .H = H, .q = q, .out = out};
    int n = c->n_tile * kv->Hkv;
    for (int i = 0; i < c->n_tile; i++) {
        int chunks = att_chunks(c, &c->tiles[i]);
        l.chunks = chunks > l.chunks ? chunks : l.chunks;
    }
    l.split =
        c->be.threads > 1 && n < 4 * c->be.threads && l.chunks > 1 && n * l.chunks <= ATT_PARTS;
    pool_run(c->pool, l.split ? n * l.chunks : n, att_item, &l);
    if (l.split)
        att_join(&l);
}

static const struct backend cpu_table = {
    .device = "cpu",
    .host_memory = true,
    .close = cpu_close,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .download = cpu_download,
    .bind = cpu_bind,
    .bind_vec = cpu_bind_vec,
    .reserve = cpu_reserve,
    .begin = cpu_begin,
    .finish = cpu_finish,
    .embed = cpu_embed,
    .norm = cpu_norm,
    .matmul = cpu_matmul,
    .rope = cpu_rope,
    .kv_write = cpu_kv_write,
    .attention = cpu_attention,
    .act = cpu_act,
    .add = cpu_add,
    .select = cpu_select,
    .kv_copy = cpu_kv_copy,
    .matmul_add = cpu_matmul_add,
    .ffn = cpu_ffn,
    .rope_kv = cpu_rope_kv,
};

enum status cpu_backend_new(const struct cpu_kernels *k, int threads, struct backend **out,
                            struct err *err) {
    struct pool *pool = pool_new(threads);
    if (!pool)
        return err_set(err, ST_NOMEM, "no memory for a thread pool");
    struct cpu *c = xcalloc(1, sizeof *c);
    c->be = cpu_table;
    c->be.kernels = k->name;
    c->be.threads = pool_threads(pool);
    c->k = k;
    c->pool = pool;
    c->scratch = xcalloc((size_t)c->be.threads, sizeof *c->scratch);
    *out = &c->be;
    return ST_OK;
}

enum status cpu_backend_open(int threads, struct backend **out, struct err *err) {
    const struct cpu_kernels *k;
    CHECK(cpu_choose(&k, err));
    return cpu_backend_new(k, threads, out, err);
}
