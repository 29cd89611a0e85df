/*
 * cpu.c - the CPU backend: its table, its memory, and products with weights, cut into items for
 * the thread pool. What goes row by row is in rows.c, attention in attention.c.
 *
 * A matmul is cut by row tiles of the weight; all outputs that share an input are one loop,
 * which quantises the input once. Whoever computes a strip of an output adds its bias and, in a
 * feed-forward, applies the activation while the strip is in the cache.
 *
 * Many tokens are cut as well, into a group for each thread or fewer. A thread's part of a loop
 * then is that of the same tokens from one operation to the next, and what it reads it wrote
 * itself: between cores that share no cache loops over rows took twice their time. For that
 * weights are read once for each group, so that groups are as large as leaves the memory time
 * for it.
 */
#include "engine/cpu/cpu_internal.h"

#include "base/mem.h"
#include "engine/quant/pack.h"
#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Memory */

enum { HUGE_FROM = 16 << 20 };

/* Asks for huge pages where the memory has whole ones; without them it works as well. */
static void want_huge_pages(char *p, size_t bytes) {
    const size_t page = cpu_huge_page_bytes();
    size_t skip = page ? (page - (uintptr_t)p % page) % page : 0;
    if (page && bytes > skip + page)
        madvise(p + skip, (bytes - skip) / page * page, MADV_HUGEPAGE);
}

/* Zeroed, on a 64-byte border. calloc() takes the KV pool's pages from the system untouched, so
 * that opening a model costs neither the time nor the memory of a pool that is not used yet.
 * Huge pages: see settle.c; and the first touch of memory is dearest in small ones. */
static void *cpu_alloc(struct backend *be, size_t bytes) {
    (void)be;
    size_t size;
    if (add_overflows(bytes, 128, &size))
        return NULL;
    char *base = calloc(1, size);
    if (!base)
        return NULL;
    if (bytes >= HUGE_FROM)
        want_huge_pages(base, size);
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

static void cpu_copy(struct backend *be, void *dst, const void *src, size_t bytes) {
    (void)be;
    memcpy(dst, src, bytes);
}

static void cpu_upload(struct backend *be, void *dev, const void *host, size_t bytes) {
    (void)be;
    memcpy(dev, host, bytes);
}

static enum status cpu_bind(struct backend *be, const struct weight *host, struct weight *dev,
                            struct err *err) {
    (void)err;
    cpu_of(be)->settle.bound += weight_bytes(host);
    *dev = *host;
    return ST_OK;
}

static enum status cpu_bind_data(struct backend *be, const void *host, size_t bytes,
                                 const void **dev, struct err *err) {
    (void)be;
    (void)bytes;
    (void)err;
    *dev = host;
    return ST_OK;
}

size_t cpu_scratch_bytes(int max_k) {
    size_t Kp = (size_t)weight_pad_k(max_k);
    size_t panel = CPU_PANEL_TILES * (Kp * 32 + Kp / 16 * 16 * sizeof(float));
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

static size_t n_block(const struct cpu *c, size_t T) {
    return (T + (size_t)c->k->block - 1) / (size_t)c->k->block;
}

static enum status cpu_reserve(struct backend *be, const struct backend_limits *lim,
                               struct err *err) {
    struct cpu *c = cpu_of(be);
    bool failed = false;
    release_scratch(c);
    c->lim = *lim;
    size_t T = (size_t)lim->max_tok;
    size_t row = (size_t)lim->head_dim + 2;
    if (c->k->quantize)
        c->rows = take(c, n_block(c, T), c->k->block_bytes(weight_pad_k(lim->max_k)), &failed);
    c->block = take(c, T, sizeof *c->block, &failed);
    c->slot = take(c, T, sizeof *c->slot, &failed);
    size_t n_tile = T * (size_t)cpu_group_heads(c) / (size_t)cpu_att_tile_rows(c) + T + 1;
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
    cpu_settle_release(&c->settle);
    free(c->scratch);
    free(c);
}

/* Matmul */

struct mm_loop {
    struct cpu *c;
    struct cpu_input f32, quant; /* the input, without and with quantised rows */
    bool sums;                   /* a weight has minimums */
    const struct matmul_out *out;
    int n_out;
    int tiles;  /* row tiles of an item */
    int n_item; /* of a group of tokens */
    int n_group;
    bool add;
    enum act_kind act; /* of a feed-forward */
};

enum { GROUP_TOKENS = 8 }; /* times the threads: tokens of a group at least */

static bool wants_int(const struct cpu *c, const struct weight *w) {
    return c->k->quantize && (w->type == WEIGHT_I8 || w->type == WEIGHT_Q4);
}

/* Tokens begin .. end - 1. */
struct token_range {
    int begin, end;
};

/* Groups end at blocks of tokens. */
static struct token_range group_tokens(const struct mm_loop *l, int group) {
    int T = l->f32.T, block = l->c->k->block;
    int begin = T * group / l->n_group / block * block;
    int end = T * (group + 1) / l->n_group / block * block;
    return (struct token_range){begin, group + 1 == l->n_group ? T : end};
}

/* Those tokens of the input as a weight wants it. */
static struct cpu_input input_for(const struct mm_loop *l, const struct weight *w,
                                  struct token_range r) {
    struct cpu_input in = wants_int(l->c, w) ? l->quant : l->f32;
    in.x += (size_t)r.begin * in.ldx;
    if (in.rows)
        in.rows += (size_t)(r.begin / l->c->k->block) * in.block_bytes;
    in.T = r.end - r.begin;
    return in;
}

static void quantize_rows(struct cpu *c, const void *arg, int t, int end) {
    const struct mm_loop *l = arg;
    const struct cpu_input *in = &l->quant;
    const int block = c->k->block;
    for (; t < end; t += block) {
        int n = end - t < block ? end - t : block;
        c->k->quantize(in->x + (size_t)t * in->ldx, in->ldx, n, in->K, l->sums,
                       c->rows + (size_t)(t / block) * in->block_bytes);
    }
}

/* n tiles of an output from tile on, with their bias, to y. */
static void strip(const struct mm_loop *l, const struct matmul_out *o, struct token_range r,
                  int tile, int n, float *y, size_t ldy, bool add, int thread) {
    const struct cpu_kernels *k = l->c->k;
    struct cpu_input in = input_for(l, o->w, r);
    in.kv = &l->c->scratch[thread].ahead;
    int cols = o->w->N - tile * 16 < n * 16 ? o->w->N - tile * 16 : n * 16;
    k->matmul(&in, o->w, tile, n, y, ldy, add, l->c->scratch[thread].mm);
    for (int t = 0; o->bias && t < in.T; t++)
        k->axpby(1, o->bias + (size_t)tile * 16, 1, cols, y + (size_t)t * ldy);
}

static void mm_item(void *ctx, int item, int thread) {
    const struct mm_loop *l = ctx;
    const struct matmul_out *o = l->out;
    struct token_range r = group_tokens(l, item / l->n_item);
    int n_item;
    item %= l->n_item;
    while (item >= (n_item = (o->w->Np / 16 + l->tiles - 1) / l->tiles)) {
        item -= n_item;
        o++;
    }
    int tile = item * l->tiles, end = tile + l->tiles;
    if (end > o->w->Np / 16)
        end = o->w->Np / 16;
    strip(l, o, r, tile, end - tile, o->y + (size_t)r.begin * o->ldy + (size_t)tile * 16,
          o->ldy, l->add, thread);
}

/* A strip of up into its place, and the activation there: of itself, or of the same strip of
 * gate, in scratch, times up. */
static void ffn_item(void *ctx, int item, int thread) {
    const struct mm_loop *l = ctx;
    const struct matmul_out *up = &l->out[0], *gate = l->n_out > 1 ? &l->out[1] : NULL;
    struct token_range r = group_tokens(l, item / l->n_item);
    float *g = l->c->scratch[thread].gate;
    int tile = item % l->n_item * l->tiles, n = up->w->Np / 16 - tile;
    if (n > l->tiles)
        n = l->tiles;
    int cols = up->w->N - tile * 16 < n * 16 ? up->w->N - tile * 16 : n * 16;
    float *y = up->y + (size_t)r.begin * up->ldy + (size_t)tile * 16;
    size_t ld = (size_t)MAX_TILES * 16;
    if (gate)
        strip(l, gate, r, tile, n, g, ld, false, thread);
    strip(l, up, r, tile, n, y, up->ldy, false, thread);
    for (int t = r.begin; t < r.end; t++, g += ld, y += up->ldy)
        l->c->k->act(l->act, gate ? g : y, gate ? y : NULL, cols, y);
}

static int items(const struct matmul_out *out, int n_out, int tiles) {
    int n = 0;
    for (int i = 0; i < n_out; i++)
        n += (out[i].w->Np / 16 + tiles - 1) / tiles;
    return n;
}

/* Row tiles of an item: as many as leave a thread four items, or so few less that all threads
 * end together. */
static int item_tiles(const struct matmul_out *out, int n_out, int threads) {
    int n = items(out, n_out, 1), most = n / (4 * threads), best = 1, best_time = INT_MAX;
    most = most < 1 ? 1 : most > MAX_TILES ? MAX_TILES : most;
    for (int tiles = most; tiles >= 1; tiles--) {
        int time = (items(out, n_out, tiles) + threads - 1) / threads * tiles;
        if (time < best_time) {
            best = tiles;
            best_time = time;
        }
    }
    return best;
}

static void run_matmul(struct cpu *c, const float *x, int T, int K,
                       const struct matmul_out *out, int n_out, struct mm_loop l,
                       pool_body *item) {
    l.c = c;
    l.out = out;
    l.n_out = n_out;
    l.f32 = (struct cpu_input){.x = x, .ldx = (size_t)weight_pad_k(K), .T = T, .K = K};
    bool quant = false;
    for (int i = 0; i < n_out; i++) {
        assert(out[i].w->K == K && T <= c->lim.max_tok && K <= c->lim.max_k);
        quant = quant || wants_int(c, out[i].w);
        l.sums = l.sums || out[i].w->min;
    }
    if (T == 0)
        return;
    if (quant) {
        l.quant = l.f32;
        l.quant.rows = c->rows;
        l.quant.block_bytes = c->k->block_bytes(weight_pad_k(K));
        cpu_for_rows(c, T, c->k->block, quantize_rows, &l);
    }
    int n_cut = item == ffn_item ? 1 : n_out; /* outputs that items are cut from */
    l.n_group = T / (GROUP_TOKENS * c->be.threads);
    l.n_group = l.n_group > c->be.threads ? c->be.threads : l.n_group < 1 ? 1 : l.n_group;
    l.tiles = item_tiles(out, n_cut, c->be.threads);
    l.n_item = items(out, n_cut, l.tiles);
    pool_run(c->pool, l.n_group * l.n_item, item, &l);
}

static void cpu_matmul(struct backend *be, const float *x, int T, int K,
                       const struct matmul_out *out, int n_out) {
    run_matmul(cpu_of(be), x, T, K, out, n_out, (struct mm_loop){0}, mm_item);
}

static void cpu_matmul_add(struct backend *be, const float *x, int T, int K,
                           const struct matmul_out *out) {
    run_matmul(cpu_of(be), x, T, K, out, 1, (struct mm_loop){.add = true}, mm_item);
}

static void cpu_ffn(struct backend *be, enum act_kind kind, const float *x, int T, int K,
                    const struct linear *gate, const struct linear *up, float *y) {
    struct matmul_out out[2] = {{&up->w, y, (size_t)weight_pad_k(up->w.N), up->bias}};
    assert(!gate || gate->w.N == up->w.N);
    if (gate)
        out[1] = (struct matmul_out){&gate->w, NULL, 0, gate->bias};
    run_matmul(cpu_of(be), x, T, K, out, gate ? 2 : 1, (struct mm_loop){.act = kind}, ffn_item);
}

/* Steps */

static void cpu_begin(struct backend *be, const struct step *s) {
    struct cpu *c = cpu_of(be);
    assert(s->T <= c->lim.max_tok);
    c->step = s;
    for (int i = 0; i < s->n_seq; i++) {
        const struct step_seq *q = &s->seqs[i];
        for (int t = 0; t < q->n_tok; t++) {
            int pos = q->n_past + t;
            c->block[q->first + t] = q->blocks[pos / 16];
            c->slot[q->first + t] = pos % 16;
        }
    }
    cpu_att_tiles(c, s);
}

static enum status cpu_finish(struct backend *be, struct err *err) {
    (void)err;
    cpu_of(be)->step = NULL;
    cpu_expect_nothing(cpu_of(be));
    return ST_OK;
}

static void cpu_parallel(struct backend *be, int n_item, pool_body *body, void *ctx) {
    pool_run(cpu_of(be)->pool, n_item, body, ctx);
}

static const struct backend cpu_table = {
    .device = "cpu",
    .host_memory = true,
    .close = cpu_close,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .download = cpu_download,
    .upload = cpu_upload,
    .copy = cpu_copy,
    .bind = cpu_bind,
    .bind_data = cpu_bind_data,
    .reserve = cpu_reserve,
    .begin = cpu_begin,
    .finish = cpu_finish,
    .embed = cpu_embed,
    .norm = cpu_norm,
    .matmul = cpu_matmul,
    .permute = cpu_permute,
    .rope = cpu_rope,
    .kv_write = cpu_kv_write,
    .attention = cpu_attention,
    .act = cpu_act,
    .add = cpu_add,
    .scale = cpu_scale,
    .select = cpu_select,
    .scatter = cpu_scatter,
    .kv_turn = cpu_kv_turn,
    .matmul_add = cpu_matmul_add,
    .ffn = cpu_ffn,
    .expect = cpu_expect,
    .rope_kv = cpu_rope_kv,
    .settle = cpu_settle,
    .parallel = cpu_parallel,
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
    c->be.kv_type = k->kv;
    c->k = k;
    c->pool = pool;
    c->scratch = xaligned((size_t)c->be.threads, sizeof *c->scratch);
    memset(c->scratch, 0, (size_t)c->be.threads * sizeof *c->scratch);
    *out = &c->be;
    return ST_OK;
}

enum status cpu_backend_open(int threads, struct backend **out, struct err *err) {
    const struct cpu_kernels *k;
    CHECK(cpu_choose(&k, err));
    return cpu_backend_new(k, threads, out, err);
}
