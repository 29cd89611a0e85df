/*
 * cuda.c - the CUDA backend: its table over a device (gpu.h), memory and steps. Kernels are in
 * the .cu files, the choice between those of products in product.c.
 *
 * Memory. Weights lie on the device as they lie in the file, in chunks that are filled one
 * weight after the other: a chunk is one allocation, and one holds them all where their bytes
 * were known before (cuda_make_room()). They go there through two pinned buffers;
 * one is filled from the mapping while the other is copied.
 *
 * A step. What it needs of host data (angles, tokens, positions, block tables) is written to
 * pinned memory, which has a twin on the device. From then on nothing waits until finish(), or
 * until a download() needs what was computed. The first failure of the device is noticed there.
 *
 * Recordings (CUDA graphs). Where each sequence decodes one token, the launches of a step
 * differ from those of the step before in nothing but what lies in the twin: for each number of
 * sequences, and power of two that the longest cache is below, the second such step is recorded
 * and later ones run the recording. So the host's part of a token is one copy and one launch in
 * the place of some hundred. Padding to fewer numbers of sequences was rejected: the rows would
 * need KV blocks of their own.
 *
 * Sampling runs behind the step, recorded or not, with parameters that are staged then. Tokens
 * come to pinned memory, and from there to the caller in finish(), where the host waits.
 */
#include "engine/cuda/cuda_internal.h"

#include "base/mem.h"
#include "engine/cuda/nvml.h"
#include "engine/quant/pack.h"
#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK_BYTES = 64 << 20,
    BOUNCE_BYTES = 4 << 20,
    ALIGN = BACKEND_BIND_ALIGN,
    WAVES = 2,       /* blocks of decode attention for each multiprocessor */
    PART_KEYS = 256, /* fewest keys for which a row's attention is split further */
    MAX_PARTS = 64,
};

static size_t aligned(size_t n) {
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

enum status cuda_failure(const struct gpu *g, struct err *err) {
    return err_set(err, ST_DEVICE, "%s failed: %s. The CPU can go on (--device cpu)",
                   g->info.name, g->error);
}

/* ---- memory ---- */

static void *cuda_alloc(struct backend *be, size_t bytes) {
    struct gpu *g = cuda_of(be)->g;
    void *p = g->alloc(g, bytes);
    if (p) {
        g->zero(g, p, bytes);
        g->sync(g); /* the host may write to it, where it can */
    }
    return p;
}

static void cuda_free(struct backend *be, void *p) {
    struct gpu *g = cuda_of(be)->g;
    g->free(g, p);
}

static void cuda_copy(struct backend *be, void *dst, const void *src, size_t bytes) {
    struct gpu *g = cuda_of(be)->g;
    g->copy(g, dst, src, bytes);
}

/* One buffer is filled while the other is on its way. */
void cuda_upload(struct backend *be, void *dev, const void *host, size_t bytes) {
    struct cuda *c = cuda_of(be);
    struct gpu *g = c->g;
    for (size_t done = 0, part; done < bytes; done += part) {
        part = bytes - done < BOUNCE_BYTES ? bytes - done : BOUNCE_BYTES;
        memcpy(c->bounce[c->side], (const char *)host + done, part);
        g->sync(g); /* the other one has arrived */
        g->upload(g, (char *)dev + done, c->bounce[c->side], part);
        c->side = !c->side;
    }
}

static void cuda_download(struct backend *be, void *host, const void *dev, size_t bytes) {
    struct cuda *c = cuda_of(be);
    struct gpu *g = c->g;
    for (size_t done = 0, part; done < bytes; done += part) {
        part = bytes - done < BOUNCE_BYTES ? bytes - done : BOUNCE_BYTES;
        g->sync(g); /* an upload may still read the buffer */
        g->download(g, c->bounce[c->side], (const char *)dev + done, part);
        g->sync(g);
        if (g->failed)
            memset(c->bounce[c->side], 0, part); /* finish() tells */
        memcpy((char *)host + done, c->bounce[c->side], part);
    }
}

static void *cuda_swap_alloc(struct backend *be, size_t bytes) {
    struct gpu *g = cuda_of(be)->g;
    return g->alloc_pinned(g, bytes);
}

static void cuda_swap_free(struct backend *be, void *p) {
    struct gpu *g = cuda_of(be)->g;
    g->sync(g);
    g->free_pinned(g, p);
}

static bool cuda_failed(const struct backend *be) {
    return ((const struct cuda *)(const void *)be)->g->failed;
}

static void cuda_swap_out(struct backend *be, void *to, const void *dev, size_t bytes) {
    struct gpu *g = cuda_of(be)->g;
    g->download(g, to, dev, bytes);
}

static void cuda_swap_in(struct backend *be, void *dev, const void *from, size_t bytes) {
    struct gpu *g = cuda_of(be)->g;
    g->upload(g, dev, from, bytes);
}

/* Memory for bound data; NULL: the device has no room. */
static char *chunk_take(struct cuda *c, size_t bytes) {
    struct chunk *last = c->chunks.n ? &c->chunks.v[c->chunks.n - 1] : NULL;
    bytes = aligned(bytes);
    if (!last || last->bytes - last->used < bytes) {
        struct chunk new = {.bytes = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES};
        new.at = c->g->alloc(c->g, new.bytes);
        if (!new.at &&new.bytes > bytes) /* the last of a device's memory */
            new.at = c->g->alloc(c->g, new.bytes = bytes);
        if (!new.at)
            return NULL;
        c->chunks.v = xreallocarray(c->chunks.v, (size_t)c->chunks.n + 1, sizeof new);
        last = &c->chunks.v[c->chunks.n++];
        *last = new;
    }
    char *p = last->at + last->used;
    last->used += bytes;
    return p;
}

static size_t bound_bytes(const struct cuda *c) {
    size_t sum = 0;
    for (int i = 0; i < c->chunks.n; i++)
        sum += c->chunks.v[i].used;
    return sum;
}

static void free_chunks(struct cuda *c) {
    for (int i = 0; i < c->chunks.n; i++)
        c->g->free(c->g, c->chunks.v[i].at);
    free(c->chunks.v);
    c->chunks.v = NULL;
    c->chunks.n = 0;
}

static enum status cuda_make_room(struct backend *be, size_t bytes, struct err *err) {
    struct cuda *c = cuda_of(be);
    struct chunk all = {.bytes = aligned(bytes)};
    assert(bound_bytes(c) == 0);
    free_chunks(c);
    all.at = c->g->alloc(c->g, all.bytes);
    if (!all.at && c->g->failed)
        return cuda_failure(c->g, err);
    if (!all.at)
        return err_set(err, ST_NOMEM,
                       "%s has no room for the model: %zu MiB are wanted and %zu MiB are "
                       "free; fewer of its layers on one GPU, or more GPUs, need less",
                       c->g->info.name, bytes >> 20, c->g->room(c->g) >> 20);
    c->chunks.v = xreallocarray(NULL, 1, sizeof all);
    c->chunks.v[c->chunks.n++] = all;
    return ST_OK;
}

static size_t cuda_room(struct backend *be) {
    struct cuda *c = cuda_of(be);
    size_t room = c->g->room(c->g);
    return room > c->left_bytes ? room - c->left_bytes : 0;
}

static enum status cuda_bind_data(struct backend *be, const void *host, size_t bytes,
                                  const void **dev, struct err *err) {
    struct cuda *c = cuda_of(be);
    char *p = chunk_take(c, bytes);
    if (!p && c->g->failed)
        return cuda_failure(c->g, err);
    if (!p)
        return err_set(err, ST_NOMEM,
                       "%s has no room for the model: %zu MiB of it are there "
                       "and %zu MiB are free",
                       c->g->info.name, bound_bytes(c) >> 20, c->g->room(c->g) >> 20);
    cuda_upload(be, p, host, bytes);
    *dev = p;
    return c->g->failed ? cuda_failure(c->g, err) : ST_OK;
}

static enum status bind_part(struct cuda *c, const struct weight_part *p, const void **dev,
                             struct err *err) {
    *dev = NULL;
    return p->bytes ? cuda_bind_data(&c->be, p->from, p->bytes, dev, err) : ST_OK;
}

static enum status cuda_bind(struct backend *be, const struct weight *host, struct weight *dev,
                             struct err *err) {
    struct cuda *c = cuda_of(be);
    struct weight_part part[WEIGHT_PARTS];
    const void *at[WEIGHT_PARTS], *map = NULL;
    weight_parts(host, part);
    for (int i = 0; i < WEIGHT_PARTS; i++)
        CHECK(bind_part(c, &part[i], &at[i], err));
    if (host->code && !c->code_map) {
        CHECK(cuda_bind_data(be, host->code_map, BACKEND_CODE_MAP, &map, err));
        c->code_map = (float *)(uintptr_t)map;
    }
    *dev = *host;
    dev->data = at[0];
    dev->scale = at[1];
    dev->min = at[2];
    dev->code = at[3];
    dev->absmax2 = at[4];
    dev->code_map = host->code ? c->code_map : NULL;
    dev->row_scaled = weight_row_scaled(host);
    product_note(c, dev);
    return ST_OK;
}

/* ---- scratch ---- */

/* They hold addresses of what is about to go. */
static void forget_recordings(struct cuda *c) {
    for (int i = 0; i <= RECORD_SEQS; i++)
        for (int j = 0; j < RECORD_LENGTHS; j++) {
            c->g->free_recording(c->g, c->recordings[i][j].made);
            c->recordings[i][j] = (struct recording){0};
        }
}

static void release_scratch(struct cuda *c) {
    struct gpu *g = c->g;
    forget_recordings(c);
    for (int i = 0; i < c->scratch.n; i++)
        g->free(g, c->scratch.p[i]);
    free(c->scratch.p);
    c->scratch.p = NULL;
    c->scratch.n = 0;
    g->free(g, c->twin);
    g->free_pinned(g, c->pinned);
    g->free_pinned(g, c->got_pinned);
    c->twin = c->pinned = NULL;
    c->got_pinned = NULL;
}

static void *take(struct cuda *c, size_t n, size_t size_bytes, bool *failed) {
    size_t bytes;
    void *p = mul_overflows(n, size_bytes, &bytes) ? NULL : cuda_alloc(&c->be, bytes);
    if (!p) {
        *failed = true;
        return NULL;
    }
    c->scratch.p = xreallocarray(c->scratch.p, (size_t)c->scratch.n + 1, sizeof p);
    c->scratch.p[c->scratch.n++] = p;
    return p;
}

static struct gpu_digits take_digits(struct cuda *c, int T, size_t Kp, bool *failed) {
    size_t T8 = ((size_t)T + 7) / 8 * 8, G = Kp / 64;
    return (struct gpu_digits){.q = {take(c, T8, Kp, failed), take(c, T8, Kp, failed)},
                               .scale = {take(c, T8 * G, sizeof(float), failed),
                                         take(c, T8 * G, sizeof(float), failed)},
                               .second = take(c, T8 / 8, G, failed),
                               .T8 = (int)T8};
}

/* Host data of a step but for its block tables: angles, some numbers for each token and
 * sequence, tokens or rows, what single operations stage, and what sample() does. */
static size_t step_bytes(const struct backend_limits *lim) {
    size_t T = (size_t)lim->max_tok, D = (size_t)lim->head_dim;
    size_t sample = BACKEND_SAMPLE_ROWS * sizeof(struct gpu_sample) +
                    BACKEND_SAMPLE_TOKENS * sizeof(struct sample_token);
    return T * (D * BACKEND_ROPES * 2 * sizeof(float) + 16 * sizeof(int32_t)) + sample +
           128 * ALIGN;
}

/* Blocks that attention should have at least, and rows of 16 heads that they leave parts for.
 */
static int enough_blocks(const struct cuda *c) {
    return WAVES * c->g->info.n_sm;
}

static enum status cuda_reserve(struct backend *be, const struct backend_limits *lim,
                                struct err *err) {
    struct cuda *c = cuda_of(be);
    size_t T = (size_t)lim->max_tok, Kp = (size_t)weight_pad_k(lim->max_k);
    size_t rows = (size_t)enough_blocks(c) * GPU_ATT_ROWS + T * (size_t)lim->n_head;
    bool failed = false;
    release_scratch(c);
    c->lim = *lim;
    if (lim->head_dim > GPU_ATT_MAX_D)
        return err_set(err, ST_UNSUPPORTED,
                       "heads of %d numbers: kernels for GPUs have %d at most", lim->head_dim,
                       GPU_ATT_MAX_D);
    c->xb[0] = take(c, T * Kp, sizeof(uint16_t), &failed);
    c->xb[1] = take(c, T * Kp, sizeof(uint16_t), &failed);
    c->q4.pairs = take(c, GPU_GEMM_TOK * Kp, sizeof(uint16_t), &failed);
    c->q4.count = take(c, GPU_Q4_COUNTS, sizeof(int), &failed);
    c->digits = (struct gpu_digits){0};
    if (lim->row_scaled)
        c->digits = take_digits(c, lim->max_tok, Kp, &failed);
    c->work = take(c, CUDA_WORK_BYTES + 32 * Kp, 1, &failed);
    c->q4.work = (float *)(void *)c->work; /* never at once with unpacked weights */
    c->rows = take(c, T * Kp, sizeof(float), &failed);
    c->parts_floats = rows * (size_t)(lim->head_dim + 2);
    c->parts.at = take(c, c->parts_floats, sizeof(float), &failed);
    c->got = take(c, BACKEND_SAMPLE_ROWS, sizeof *c->got, &failed);
    c->got_pinned = c->g->alloc_pinned(c->g, BACKEND_SAMPLE_ROWS * sizeof *c->got);
    c->stage_bytes = 2 * step_bytes(lim);
    c->twin = c->g->alloc(c->g, c->stage_bytes);
    c->pinned = c->g->alloc_pinned(c->g, c->stage_bytes);
    if (c->g->failed)
        return cuda_failure(c->g, err);
    if (failed || !c->twin || !c->pinned || !c->got_pinned)
        return err_set(err, ST_NOMEM, "%s has no room for a step of %d tokens", c->g->info.name,
                       lim->max_tok);
    return ST_OK;
}

/* ---- steps ---- */

/* Makes room for `bytes` in the stage: what was staged behind the step's own data is given up
 * when what uses it has run. */
static void stage_room(struct cuda *c, size_t bytes) {
    assert(c->of_step + bytes <= c->stage_bytes);
    if (c->stage_bytes - c->staged >= bytes)
        return;
    c->g->sync(c->g);
    c->staged = c->of_step;
}

/* Host data to the twin's next place, without sending it yet. */
static const void *place(struct cuda *c, const void *host, size_t bytes) {
    size_t at = c->staged;
    memcpy(c->pinned + at, host, bytes);
    c->staged += aligned(bytes);
    return c->twin + at;
}

/* A copy on the device of host data, good until stage_room() has to make room. The step's own
 * rows are there already. */
static const void *stage(struct cuda *c, const void *host, size_t bytes) {
    if (c->g->failed)
        return c->twin; /* nothing runs any more */
    for (int i = 0; i < 3; i++)
        if (host == c->known[i].host && bytes <= c->known[i].n * sizeof(int32_t))
            return c->known[i].dev;
    assert(!c->recording);
    stage_room(c, aligned(bytes));
    size_t at = c->staged;
    place(c, host, bytes);
    c->g->upload(c->g, c->twin + at, c->pinned + at, bytes);
    return c->twin + at;
}

static size_t blocks_of(const struct step_seq *q) {
    return (size_t)(q->n_past + q->n_tok + BACKEND_KV_BLOCK - 1) / BACKEND_KV_BLOCK;
}

/* Block tables can be longer than reserve() could know. */
static bool grow_stage(struct cuda *c, size_t bytes) {
    struct gpu *g = c->g;
    if (bytes <= c->stage_bytes)
        return true;
    g->sync(g);
    forget_recordings(c);
    g->free(g, c->twin);
    g->free_pinned(g, c->pinned);
    c->twin = g->alloc(g, bytes);
    c->pinned = g->alloc_pinned(g, bytes);
    c->stage_bytes = c->twin && c->pinned ? bytes : 0;
    if (c->stage_bytes == 0 && !g->failed) {
        g->failed = true;
        snprintf(g->error, sizeof g->error, "no room for the block tables of a step");
    }
    return c->stage_bytes > 0;
}

/* The numbers of struct gpu_step, in one array: seq [T], pos [T], first [n_seq + 1], past and
 * table [n_seq], blocks [n_block]. Last of the step's data, since n_block varies. */
static void stage_numbers(struct cuda *c, const struct step *s, size_t n_block) {
    struct gpu_step *d = &c->step;
    size_t T = (size_t)s->T, n = (size_t)s->n_seq, all = 2 * T + 3 * n + 1 + n_block, at = 0;
    int32_t *v = (int32_t *)(void *)(c->pinned + c->staged), *seq = v, *pos = seq + T;
    int32_t *first = pos + T, *past = first + n + 1, *table = past + n, *blocks = table + n;
    for (int i = 0; i < s->n_seq; i++) {
        const struct step_seq *q = &s->seqs[i];
        int len = q->n_past + q->n_tok;
        first[i] = q->first;
        past[i] = q->n_past;
        table[i] = (int32_t)at;
        for (int t = 0; t < q->n_tok; t++) {
            seq[q->first + t] = i;
            pos[q->first + t] = q->n_past + t;
        }
        memcpy(blocks + at, q->blocks, blocks_of(q) * sizeof *blocks);
        at += blocks_of(q);
        d->max_tok = q->n_tok > d->max_tok ? q->n_tok : d->max_tok;
        d->max_len = len > d->max_len ? len : d->max_len;
    }
    first[n] = s->T;
    d->seq = (const int32_t *)(void *)(c->twin + c->staged);
    d->pos = d->seq + T;
    d->first = d->pos + T;
    d->past = d->first + n + 1;
    d->table = d->past + n;
    d->blocks = d->table + n;
    c->staged += aligned(all * sizeof *v);
}

static void place_rows(struct cuda *c, int i, const int32_t *rows, int n) {
    c->known[i].host = rows;
    c->known[i].n = (size_t)n;
    c->known[i].dev = rows ? place(c, rows, (size_t)n * sizeof *rows) : NULL;
}

/* A step's data lies where that of every step of as many tokens lies, but for its end. */
static void cuda_begin(struct backend *be, const struct step *s) {
    struct cuda *c = cuda_of(be);
    size_t angles = (size_t)s->T * (size_t)s->rope_dim * sizeof(float), n_block = 0;
    assert(s->T <= c->lim.max_tok);
    c->step = (struct gpu_step){.T = s->T, .n_seq = s->n_seq, .rope_dim = s->rope_dim};
    c->staged = c->of_step = 0;
    c->n_logits = s->n_rows;
    c->n_asked = c->n_sampled = 0;
    for (int i = 0; i < s->n_seq; i++)
        n_block += blocks_of(&s->seqs[i]);
    if (!grow_stage(c, step_bytes(&c->lim) + n_block * sizeof(int32_t)))
        return; /* nothing runs any more, and finish() says why */
    for (int i = 0; i < BACKEND_ROPES && angles; i++)
        if (s->rope[i].cos) {
            c->step.cos[i] = place(c, s->rope[i].cos, angles);
            c->step.sin[i] = place(c, s->rope[i].sin, angles);
        }
    place_rows(c, 0, s->tokens, s->T);
    place_rows(c, 1, s->pos, s->T);
    place_rows(c, 2, s->rows, s->n_rows);
    stage_numbers(c, s, n_block);
    c->g->upload(c->g, c->twin, c->pinned, c->staged);
    c->of_step = c->staged;
}

/* The recording of steps like this one; NULL: such are not recorded. Attention's share of the
 * keys follows from max_len, so that it becomes what all of them have. */
static struct recording *like_this(struct cuda *c) {
    int top = 0;
    if (c->step.max_tok != 1 || c->step.T > RECORD_SEQS || c->n_logits != c->step.T ||
        product_needs_blas(c, c->step.T))
        return NULL;
    while (top < RECORD_LENGTHS - 1 && 1 << top < c->step.max_len)
        top++;
    c->step.max_len = 1 << top;
    return &c->recordings[c->step.T][top];
}

static bool cuda_step_again(struct backend *be) {
    struct cuda *c = cuda_of(be);
    struct recording *r = like_this(c);
    c->recording = NULL;
    if (!r || c->g->failed)
        return false;
    if (r->made) {
        c->g->replay(c->g, r->made);
        return true;
    }
    if (r->seen++ > 0) { /* kernels have run once: nothing is set up any more */
        c->recording = r;
        c->g->record(c->g);
    }
    return false;
}

static void cuda_step_over(struct backend *be) {
    struct cuda *c = cuda_of(be);
    struct recording *r = c->recording;
    c->recording = NULL;
    if (!r)
        return;
    r->made = c->g->recorded(c->g);
    if (r->made)
        c->g->replay(c->g, r->made);
}

static enum status cuda_finish(struct backend *be, struct err *err) {
    struct cuda *c = cuda_of(be);
    struct gpu *g = c->g;
    memset(c->known, 0, sizeof c->known);
    g->sync(g);
    if (g->failed)
        return cuda_failure(g, err);
    for (int i = 0, at = 0; i < c->n_asked; at += c->asked[i++].n)
        memcpy(c->asked[i].host, c->got_pinned + at, (size_t)c->asked[i].n * sizeof *c->got);
    c->n_asked = c->n_sampled = 0;
    return ST_OK;
}

/* ---- attention ---- */

/* A row's keys are shared out as far as blocks are missing, and its keys go. */
static int row_parts(const struct cuda *c, const struct kv_layer *kv, int H) {
    const struct gpu_step *s = &c->step;
    int blocks = kv->Hkv * s->n_seq, n = (enough_blocks(c) + blocks - 1) / blocks;
    int most = (s->max_len + PART_KEYS - 1) / PART_KEYS;
    size_t part = (size_t)s->T * (size_t)H * (size_t)(kv->D + 2);
    if (s->max_tok > 1 && s->max_tok * (H / kv->Hkv) > GPU_ATT_ROWS)
        return 1;
    n = n < most ? n : most;
    n = n < MAX_PARTS ? n : MAX_PARTS;
    return (size_t)n * part <= c->parts_floats ? n : 1;
}

static void cuda_attention(struct backend *be, const struct kv_layer *kv,
                           const struct att_op *a, int H, const float *q, float *out) {
    struct cuda *c = cuda_of(be);
    struct gpu_parts parts = {c->parts.at, row_parts(c, kv, H)};
    c->g->attention(c->g, &c->step, kv, a, H, q, parts, out);
}

/* ---- the other operations ---- */

static void cuda_embed(struct backend *be, const struct weight *w, const int32_t *rows, int T,
                       float *x) {
    struct cuda *c = cuda_of(be);
    c->g->embed(c->g, w, stage(c, rows, (size_t)T * sizeof *rows), T, x);
}

static void cuda_norm(struct backend *be, const struct norm_op *n, const float *x, int T,
                      float *y) {
    struct gpu *g = cuda_of(be)->g;
    if (T > 0)
        g->norm(g, n, x, T, y);
}

static void cuda_permute(struct backend *be, const float *x, const int32_t *perm, int T, int K,
                         float *y) {
    struct gpu *g = cuda_of(be)->g;
    if (T > 0)
        g->permute(g, x, perm, T, K, y);
}

static void cuda_rope(struct backend *be, int table, float *x, int n_head, int D) {
    struct cuda *c = cuda_of(be);
    c->g->rope(c->g, &c->step, table, x, n_head, D);
}

static void cuda_kv_write(struct backend *be, const struct kv_layer *kv, const float *k,
                          const float *v) {
    struct cuda *c = cuda_of(be);
    c->g->kv_write(c->g, &c->step, kv, k, v);
}

static void cuda_rope_kv(struct backend *be, int table, const struct kv_layer *kv, int H,
                         float *q, float *k, const float *v) {
    struct cuda *c = cuda_of(be);
    c->g->rope_kv(c->g, &c->step, table, kv, H, q, k, v);
}

static void cuda_act(struct backend *be, enum act_kind kind, const float *a, const float *u,
                     int T, int K, float *y) {
    struct gpu *g = cuda_of(be)->g;
    if (T > 0)
        g->act(g, kind, a, u, T, K, y);
}

static void cuda_add(struct backend *be, float a, const float *x, int T, int K, float *y) {
    struct gpu *g = cuda_of(be)->g;
    if (T > 0)
        g->add(g, a, x, T, K, y);
}

static void cuda_scale(struct backend *be, float a, float cap, float *x, size_t ld, int T,
                       int K) {
    struct gpu *g = cuda_of(be)->g;
    if (T > 0)
        g->scale(g, a, cap, x, ld, T, K);
}

static void cuda_select(struct backend *be, const float *x, const int32_t *rows, int n, int K,
                        float *y) {
    struct cuda *c = cuda_of(be);
    if (n == 0)
        return;
    float *to = x == y ? c->rows : y;
    /* with the padding, which is zeros: `to` may have had other rows */
    c->g->select(c->g, x, stage(c, rows, (size_t)n * sizeof *rows), n, weight_pad_k(K), to);
    if (to != y)
        c->g->copy(c->g, y, to, (size_t)n * (size_t)weight_pad_k(K) * sizeof *y);
}

static void cuda_scatter(struct backend *be, const float *x, const int32_t *rows,
                         const float *a, int n, int K, float *y) {
    struct cuda *c = cuda_of(be);
    if (n == 0)
        return;
    if (c->g->failed)
        return;
    stage_room(c, aligned((size_t)n * sizeof *rows) + aligned((size_t)n * sizeof *a));
    const int32_t *to = stage(c, rows, (size_t)n * sizeof *rows);
    c->g->scatter(c->g, x, to, stage(c, a, (size_t)n * sizeof *a), n, K, y);
}

/* The rows' parameters and their tokens, one behind the other, to the twin in one copy. */
static const struct gpu_sample *stage_rows(struct cuda *c, const struct sample_row *rows, int n,
                                           const struct sample_token **tokens) {
    size_t bytes = aligned((size_t)n * sizeof(struct gpu_sample)), at, n_token = 0;
    for (int i = 0; i < n; i++)
        n_token += (size_t)rows[i].n_token;
    assert(!c->recording && n_token <= BACKEND_SAMPLE_TOKENS);
    stage_room(c, bytes + aligned(n_token * sizeof **tokens));
    at = c->staged;
    struct gpu_sample *to = (struct gpu_sample *)(void *)(c->pinned + at);
    struct sample_token *t = (struct sample_token *)(void *)(c->pinned + at + bytes);
    for (int i = 0, first = 0; i < n; first += rows[i++].n_token) {
        const struct sample_row *r = &rows[i];
        double inv = r->temperature > 0 ? 1 / r->temperature : 0;
        to[i] = (struct gpu_sample){.first = first,
                                    .n_token = r->n_token,
                                    .top_k = r->top_k,
                                    .repeat = r->repeat,
                                    .inv_temperature = (float)(inv < FLT_MAX ? inv : FLT_MAX),
                                    .top_p = r->top_p,
                                    .log_min_p = log(r->min_p),
                                    .unit = r->unit};
        if (r->n_token > 0)
            memcpy(t + first, r->tokens, (size_t)r->n_token * sizeof *t);
    }
    c->staged += bytes + aligned(n_token * sizeof **tokens);
    c->g->upload(c->g, c->twin + at, to, c->staged - at);
    *tokens = (const struct sample_token *)(void *)(c->twin + at + bytes);
    return (const struct gpu_sample *)(void *)(c->twin + at);
}

static void cuda_sample(struct backend *be, const struct sample_row *rows, int n, int n_vocab,
                        float *logits, struct sample_got *got) {
    struct cuda *c = cuda_of(be);
    const struct sample_token *tokens;
    struct sample_got *dev = c->got + c->n_sampled;
    if (n == 0 || c->g->failed)
        return;
    assert(n_vocab <= BACKEND_SAMPLE_VOCAB && c->n_sampled + n <= BACKEND_SAMPLE_ROWS);
    const struct gpu_sample *staged = stage_rows(c, rows, n, &tokens);
    c->g->sample(c->g, staged, tokens, n, n_vocab, logits, dev);
    c->g->download(c->g, c->got_pinned + c->n_sampled, dev, (size_t)n * sizeof *dev);
    c->asked[c->n_asked].host = got;
    c->asked[c->n_asked++].n = n;
    c->n_sampled += n;
}

/* Between steps, so that the stage is free. */
static void cuda_kv_turn(struct backend *be, const struct kv_layer *kv, const int32_t *blocks,
                         int n, const float *cos, const float *sin, int rope_dim) {
    struct cuda *c = cuda_of(be);
    size_t angles = (size_t)n * (size_t)rope_dim * 16 * sizeof *cos;
    c->of_step = 0;
    if (c->g->failed)
        return;
    stage_room(c, aligned((size_t)n * sizeof *blocks) + 2 * aligned(angles));
    const int32_t *dev = stage(c, blocks, (size_t)n * sizeof *blocks);
    const float *dev_cos = stage(c, cos, angles);
    c->g->kv_turn(c->g, kv, dev, n, dev_cos, stage(c, sin, angles), rope_dim);
    c->g->sync(c->g); /* the next step begins where this was staged */
}

static void cuda_close(struct backend *be) {
    struct cuda *c = cuda_of(be);
    struct gpu *g = c->g;
    release_scratch(c);
    free_chunks(c);
    g->free_pinned(g, c->bounce[0]);
    g->free_pinned(g, c->bounce[1]);
    g->close(g);
    free(c);
}

static const struct backend cuda_table = {
    .device = "cuda",
    .kv_type = KV_BF16,
    .threads = 1,
    .close = cuda_close,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .download = cuda_download,
    .upload = cuda_upload,
    .copy = cuda_copy,
    .bind = cuda_bind,
    .bind_data = cuda_bind_data,
    .reserve = cuda_reserve,
    .failed = cuda_failed,
    .room = cuda_room,
    .make_room = cuda_make_room,
    .swap_alloc = cuda_swap_alloc,
    .swap_free = cuda_swap_free,
    .swap_out = cuda_swap_out,
    .swap_in = cuda_swap_in,
    .begin = cuda_begin,
    .finish = cuda_finish,
    .embed = cuda_embed,
    .norm = cuda_norm,
    .matmul = product_matmul,
    .permute = cuda_permute,
    .rope = cuda_rope,
    .kv_write = cuda_kv_write,
    .attention = cuda_attention,
    .act = cuda_act,
    .add = cuda_add,
    .scale = cuda_scale,
    .select = cuda_select,
    .scatter = cuda_scatter,
    .kv_turn = cuda_kv_turn,
    .step_again = cuda_step_again,
    .step_over = cuda_step_over,
    .matmul_add = product_matmul_add,
    .ffn = product_ffn,
    .norm_matmul = product_norm_matmul,
    .norm_ffn = product_norm_ffn,
    .rope_kv = cuda_rope_kv,
    .sample = cuda_sample,
};

enum status cuda_backend_new(struct gpu *g, double utilization, struct backend **out,
                             struct err *err) {
    struct cuda *c = xcalloc(1, sizeof *c);
    c->be = cuda_table;
    c->be.kernels = g->kernels;
    c->be.pci = g->info.pci;
    c->g = g;
    c->left_bytes = (size_t)((double)g->info.total_bytes * (1 - utilization));
    for (int i = 0; i < 2; i++)
        c->bounce[i] = g->alloc_pinned(g, BOUNCE_BYTES);
    if (!c->bounce[0] || !c->bounce[1]) {
        enum status st = g->failed
                             ? cuda_failure(g, err)
                             : err_set(err, ST_NOMEM, "no pinned memory for %s", g->info.name);
        cuda_close(&c->be);
        return st;
    }
    *out = &c->be;
    return ST_OK;
}

struct gpu *cuda_gpu(struct backend *be) {
    return cuda_of(be)->g;
}

enum status cuda_backend_open(int index, double utilization, struct backend **out,
                              struct err *err) {
    struct gpu *g = NULL;
    CHECK(cuda_module_open(index, &g, err));
    return cuda_backend_new(g, utilization, out, err);
}

/* What g does just now, or why nobody says. */
static void describe_load(const struct gpu *g, struct buf *out) {
    struct nvml *n = NULL;
    struct nvml_load load;
    struct err err = {0};
    enum status st = nvml_open(g->info.pci, &n, &err);
    if (st == ST_OK)
        st = nvml_read(n, &load, &err);
    if (st == ST_OK)
        nvml_text(&load, out);
    else
        buf_adds(out, err.msg);
    nvml_close(n);
}

bool engine_gpu(int index, struct buf *out, struct buf *load, int *n) {
    struct gpu *g = NULL;
    struct err err = {0};
    if (cuda_module_open(index, &g, &err) != ST_OK) {
        buf_addf(out, "%s", err.msg);
        return false;
    }
    *n = g->info.n_device;
    buf_addf(out, "%s, %s, %.1f of %.1f GiB free", g->info.name, g->kernels,
             (double)g->room(g) / (1 << 30), (double)g->info.total_bytes / (1 << 30));
    describe_load(g, load);
    g->close(g);
    return true;
}
