/*
 * graph.c - the model as a graph over the backend table: opened, and run a step at a time. What
 * a layer does is in layer.c.
 *
 * A step: embedding (with learned positions and a norm, where a model has them), the layers,
 * the head. Rows whose logits nobody wants leave in the last layer: behind its attention only
 * the wanted rows go on, and when none is wanted the last layer ends with the KV write.
 *
 * RoPE tables are computed once a step on the host, one for most layers and one for those with
 * a base of their own.
 *
 * Matrices lie one behind the other in one allocation, made when the graph is opened. The pool
 * of KV blocks is another. Both come before the weights: what there is no room for is known
 * before the model is read.
 *
 * A model that is split over two devices is a list of two graphs (graph_internal.h), so that a
 * layer, a mixture of experts and the binding know nothing of it: they see the backend, the
 * matrices and the pool of their part. A step goes from part to part. What must know of both is
 * here: the residual stream between them, and blocks, which have the same number in both pools
 * and leave them as one piece, in the layout of a model that is not split. Rejected: an array
 * of devices in each layer's functions (all of them would take two arguments where one has no
 * choice), and steps of the parts at the same time for two halves of a batch (one token, the
 * usual batch, has no halves).
 */
#include "engine/run/graph_internal.h"

#include "base/mem.h"
#include "engine/cuda/cuda.h"
#include "engine/run/ranks.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEFAULT_TOK = 512,
    SETTLE_AFTER = 32, /* tokens: a short answer would not earn the copy */
    SETTLE_PARTS = 32,
};

/* Models whose weights are not quantised are taken for exact answers: rounding keys and values
 * changed the greedy text of a bf16 model within 64 tokens for one prompt in twenty. */
static enum kv_type choose_kv(const struct model *m, enum kv_type want, enum kv_type of_16) {
    enum weight_type t = m->hp.n_layer ? m->layers[0].wq.w.type : WEIGHT_Q4;
    if (want != KV_AUTO)
        return want;
    return t == WEIGHT_I8 || t == WEIGHT_Q4 ? of_16 : KV_F32;
}

/* Bytes of K or of V of one block in one layer. */
static size_t kv_part_bytes(const struct model *m, enum kv_type t) {
    return (size_t)m->hp.n_head_kv * kv_head_bytes(t, m->hp.head_dim);
}

size_t graph_kv_block_bytes(const struct model *m, enum kv_type want) {
    return 2 * (size_t)m->hp.n_layer * kv_part_bytes(m, choose_kv(m, want, KV_F16));
}

static int max_of(int a, int b) {
    return a > b ? a : b;
}

/* Inputs of the widest feed-forward's down. */
static int widest_ff(const struct hparams *hp) {
    return max_of(hp->n_ff, max_of(hp->n_ff_expert, hp->n_ff_shared));
}

static int widest_input(const struct hparams *hp) {
    return max_of(max_of(hp->n_embd, hp->n_embd_word),
                  max_of(widest_ff(hp), hp->n_head * hp->head_dim));
}

static void alloc_host(struct graph *g) {
    const struct hparams *hp = &g->model->hp;
    size_t T = (size_t)g->max_tok;
    g->n_rope = 1;
    for (int i = 0; i < hp->n_layer; i++)
        if (hp->layer[i] & LAYER_LOCAL_ROPE)
            g->n_rope = BACKEND_ROPES;
    g->rope_cos = xcalloc(T * (size_t)hp->rope_dim * BACKEND_ROPES + 1, sizeof(float));
    g->rope_sin = xcalloc(T * (size_t)hp->rope_dim * BACKEND_ROPES + 1, sizeof(float));
    g->rows = xcalloc(T, sizeof *g->rows);
    g->pos = xcalloc(T, sizeof *g->pos);
    g->seqs = xcalloc(T, sizeof *g->seqs);
}

/* ST_DEVICE: a device that gave no memory has failed. */
static enum status still_works(struct graph *g, struct err *err) {
    return g->be->failed && g->be->failed(g->be) ? g->be->finish(g->be, err) : ST_OK;
}

static enum status alloc_scratch(struct graph *g, struct err *err) {
    const struct hparams *hp = &g->model->hp;
    const struct backend *be = g->be;
    size_t T = (size_t)g->max_tok, E = row_floats(hp->n_embd), bytes;
    size_t Q = row_floats(hp->n_head * hp->head_dim);
    size_t KV = row_floats(hp->n_head_kv * hp->head_dim), F = row_floats(widest_ff(hp));
    size_t experts = experts_floats(g);
    struct {
        float **at;
        size_t floats;
    } part[] = {
        {&g->x, T * E},
        {&g->xn, T * E},
        {&g->tmp, T * E},
        {&g->word, hp->n_embd_word ? T * row_floats(hp->n_embd_word) : 0},
        {&g->q, T * Q},
        {&g->att, T * Q},
        {&g->k, T * KV},
        {&g->v, T * KV},
        {&g->h, T * F},
        {&g->u, be->ffn && !g->perm ? 0 : T * F},
        {&g->px, g->perm ? T * row_floats(widest_input(hp)) : 0},
        {&g->logits,
         be->host_memory || g->next ? 0 : GRAPH_LOGIT_ROWS * row_floats(hp->n_vocab)},
    };
    enum { N = sizeof part / sizeof *part };
    size_t sum = experts;
    for (int i = 0; i < N; i++)
        sum += part[i].floats; /* some millions each at most: arch_check() */
    if (mul_overflows(sum, sizeof(float), &bytes) ||
        !(g->scratch = g->be->alloc(g->be, bytes))) {
        CHECK(still_works(g, err));
        return err_set(err, ST_NOMEM, "device %s has no room for the activations of %d tokens",
                       be->device, g->max_tok);
    }
    float *at = g->scratch;
    for (int i = 0; i < N; at += part[i++].floats)
        *part[i].at = at;
    experts_init(g, at);
    struct backend_limits lim = {g->max_tok,    widest_input(hp), hp->n_head,
                                 hp->n_head_kv, hp->head_dim,     g->row_scaled};
    return g->be->reserve(g->be, &lim, err);
}

/* Fewer blocks where a device has less room. */
static enum status fit_pool(struct graph *g, const struct graph_room *r, struct err *err) {
    size_t block = g->kv_block + graph_others_block(g, r);
    if (!g->be->room)
        return ST_OK;
    size_t room = g->be->room(g->be);
    size_t fits = room > r->spare_bytes ? (room - r->spare_bytes) / block : 0;
    int least = max_of(r->min_block, 1);
    char others[64] = "";
    if (r->spare_bytes)
        snprintf(others, sizeof others, ", and %zu MiB that others need,",
                 r->spare_bytes >> 20);
    if (fits < (size_t)least)
        return err_set(err, ST_NOMEM,
                       "beside the model%s there is room for %zu tokens of KV cache on the "
                       "device, wanted at least %d: a smaller context, or fewer layers on one "
                       "GPU, need less",
                       others, fits * KV_BLOCK, least * KV_BLOCK);
    if (fits < (size_t)g->n_block)
        g->n_block = (int)fits;
    return ST_OK;
}

static enum status alloc_kv(struct graph *g, const struct graph_room *room, struct err *err) {
    size_t bytes;
    CHECK(fit_pool(g, room, err));
    if (mul_overflows(g->kv_block, (size_t)g->n_block, &bytes) ||
        !(g->kv = g->be->alloc(g->be, bytes))) {
        CHECK(still_works(g, err));
        return err_set(err, ST_NOMEM, "no memory for a KV pool of %d blocks of %zu bytes",
                       g->n_block, g->kv_block);
    }
    return ST_OK;
}

/* All of a model, until it is known what else there is. */
static struct graph *new_part(const struct model *m, const struct graph_params *p) {
    struct graph *g = xcalloc(1, sizeof *g);
    g->model = m;
    g->max_tok = p->max_tok > 0 ? p->max_tok : DEFAULT_TOK;
    g->max_logits = p->max_logits > 0 ? p->max_logits : g->max_tok;
    g->n_block = p->n_block;
    g->end = m->hp.n_layer;
    g->embeds = true;
    struct graph_bound all = graph_count_bound(g);
    g->perm = all.perm;
    g->row_scaled = all.row_scaled;
    return g;
}

static void set_kv_type(struct graph *g, enum kv_type t) {
    g->kv_type = t;
    g->kv_part = kv_part_bytes(g->model, t);
    g->kv_block = 2 * (size_t)(g->end - g->first) * g->kv_part;
}

/* Memory for this part's weights and pool. */
static enum status alloc_part(struct graph *g, const struct graph_room *room, struct err *err) {
    if (g->be->make_room)
        CHECK(g->be->make_room(g->be, graph_count_bound(g).bytes, err));
    return alloc_kv(g, room, err);
}

/* Opens the part that is on the GPU. */
static enum status open_gpu(struct graph *g, const struct graph_params *p, struct err *err) {
    int all = g->model->hp.n_layer + 1, share = p->gpu_layers;
    double utilization = p->room.utilization;
    CHECK(cuda_backend_open(p->device_index, utilization > 0 ? utilization : 1, &g->be, err));
    set_kv_type(g, choose_kv(g->model, p->kv_type, g->be->kv_type));
    CHECK(alloc_scratch(g, err));
    if (share == 0 || share >= g->model->hp.n_layer)
        share = all;
    else if (share == GRAPH_FIT && (share = graph_share_that_fits(g, &p->room, err)) == 0)
        return ST_NOMEM;
    for (;; share--) {
        bool host = share < all && p->host_block > 0 && p->host_block < p->n_block;
        graph_take_share(g, share);
        g->n_block = host ? p->host_block : p->n_block;
        enum status st = alloc_part(g, &p->room, err);
        /* the device rounds what it gives, and others may have been faster */
        if (st != ST_NOMEM || p->gpu_layers != GRAPH_FIT || share == 1)
            return st;
    }
}

/* Opens what is on the CPU: all, or what is before `next`. */
static enum status open_cpu(struct graph *g, const struct graph_params *p, struct err *err) {
    CHECK(cpu_backend_open(p->threads, &g->be, err));
    if (g->next) {
        g->end = g->next->first;
        g->n_block = g->next->n_block;
    }
    enum kv_type want = g->next ? g->next->kv_type : p->kv_type;
    set_kv_type(g, choose_kv(g->model, want, g->be->kv_type));
    CHECK(alloc_scratch(g, err));
    return alloc_part(g, &p->room, err);
}

static enum status open_parts(struct graph **first, const struct graph_params *p,
                              struct err *err) {
    struct graph *g = *first;
    if (p->device != DEVICE_CUDA)
        return open_cpu(g, p, err);
    CHECK(open_gpu(g, p, err));
    if (g->embeds)
        return ST_OK;
    *first = new_part(g->model, p);
    (*first)->next = g;
    return open_cpu(*first, p, err);
}

static const struct graph *last_part(const struct graph *g) {
    return g->next ? g->next : g;
}

enum status graph_open(const struct model *m, const struct graph_params *p, struct graph **out,
                       struct err *err) {
    enum status st = ST_OK;
    assert(p->n_block > 0 && p->gpu_layers >= GRAPH_FIT);
    if (p->tensor_parallel > 1)
        return ranks_open(m, p, out, err);
    struct graph *g = new_part(m, p);
    if (m->hp.n_pos > 0 && m->hp.n_pos < m->hp.ctx_train)
        TRY(err_set(err, ST_FORMAT, "learned positions of %d tokens, the context has %d",
                    m->hp.n_pos, m->hp.ctx_train));
    TRY(open_parts(&g, p, err));
    for (struct graph *part = g; part; part = part->next)
        TRY(graph_bind(part, err));
    rope_init(&g->rope, m);
    alloc_host(g);
    if (p->device == DEVICE_CUDA && p->crossovers)
        TRY(cuda_learn_crossovers(last_part(g)->be, p->crossovers, err));
    *out = g;
    return ST_OK;
out:
    graph_close(g);
    return st;
}

void graph_close(struct graph *g) {
    if (!g)
        return;
    if (g->ranks) {
        ranks_close(g);
        return;
    }
    graph_close(g->next);
    if (g->be) {
        g->be->free(g->be, g->kv);
        g->be->free(g->be, g->scratch);
        g->be->close(g->be);
    }
    experts_release(g);
    rope_release(&g->rope);
    graph_unbind(g);
    free(g->rope_cos);
    free(g->rope_sin);
    free(g->rows);
    free(g->pos);
    free(g->seqs);
    free(g);
}

int graph_max_tok(const struct graph *g) {
    return g->max_tok;
}

const char *graph_device(const struct graph *g) {
    return last_part(g)->be->device;
}

int graph_n_gpu(const struct graph *g) {
    if (!last_part(g)->be->pci)
        return 0;
    return g->ranks ? ranks_number(g->ranks) : 1;
}

const char *graph_pci(const struct graph *g, int i) {
    return g->ranks ? ranks_pci(g->ranks, i) : last_part(g)->be->pci;
}

const char *graph_kernels(const struct graph *g) {
    return last_part(g)->be->kernels;
}

int graph_gpu_layers(const struct graph *g) {
    g = last_part(g);
    return g->be->host_memory ? 0 : g->end - g->first;
}

bool graph_is_split(const struct graph *g) {
    return g->next;
}

int graph_threads(const struct graph *g) {
    return g->be->threads;
}

enum kv_type graph_kv_type(const struct graph *g) {
    return g->kv_type;
}

int graph_n_block(const struct graph *g) {
    return g->n_block;
}

int graph_kv_kind(const struct graph *g, int n_total) {
    return rope_kind(&g->rope, n_total);
}

bool graph_same_angles(const struct graph *g, int a, int b) {
    return rope_same(&g->rope, a, b);
}

static void *block_memory(const struct graph *g, int block) {
    assert(block >= 0 && block < g->n_block);
    return (char *)g->kv + (size_t)block * g->kv_block;
}

void graph_copy_block(struct graph *g, int dst, int src, int n_tok) {
    assert(n_tok >= 0 && n_tok <= KV_BLOCK);
    if (n_tok == 0 || dst == src)
        return;
    if (g->ranks) {
        ranks_copy_block(g->ranks, dst, src, n_tok);
        return;
    }
    /* slots behind n_tok are written before they are read */
    for (; g; g = g->next)
        g->be->copy(g->be, block_memory(g, dst), block_memory(g, src), g->kv_block);
}

const char *graph_cannot_move(const struct graph *g) {
    if (g->model->hp.n_pos > 0)
        return "its positions are learned and part of every token";
    if (!rope_can_move(&g->rope))
        return "its rotary angles depend on the length of the text";
    return NULL;
}

/* The blocks of one batch of g's tables, in every layer of a part. Values and keys without RoPE
 * are the same everywhere; ALiBi counts when keys are read. */
static void turn_blocks(const struct graph *g, struct graph *part, const int32_t *blocks,
                        int n) {
    const struct hparams *hp = &g->model->hp;
    for (int i = part->first; i < part->end; i++) {
        struct kv_layer kv = graph_kv(part, i);
        size_t table = hp->layer[i] & LAYER_LOCAL_ROPE ? ROPE_LOCAL : ROPE_GLOBAL;
        size_t at = table * (size_t)g->max_tok * (size_t)hp->rope_dim;
        if (!(hp->layer[i] & LAYER_NO_ROPE))
            part->be->kv_turn(part->be, &kv, blocks, n, g->rope_cos + at, g->rope_sin + at,
                              hp->rope_dim);
    }
}

void graph_move_blocks(struct graph *g, const int32_t *blocks, int n, int from, int to) {
    const size_t dim = (size_t)g->model->hp.rope_dim;
    const int most = g->max_tok / KV_BLOCK; /* the tables of a step hold so many */
    assert(!graph_cannot_move(g) && most > 0);
    if (g->ranks) {
        ranks_move_blocks(g->ranks, blocks, n, from, to);
        return;
    }
    for (int done = 0, part; dim > 0 && done < n; done += part) {
        part = n - done < most ? n - done : most;
        for (int i = 0; i < g->n_rope; i++)
            for (int t = 0; t < part * KV_BLOCK; t++) {
                size_t at = (size_t)i * (size_t)g->max_tok * dim + (size_t)(t % KV_BLOCK) +
                            (size_t)(t / KV_BLOCK) * KV_BLOCK * dim;
                int pos = done * KV_BLOCK + t;
                rope_move(&g->rope, (enum rope_table)i, from + pos, to + pos, g->rope_cos + at,
                          g->rope_sin + at, KV_BLOCK);
            }
        for (struct graph *p = g; p; p = p->next)
            turn_blocks(g, p, blocks + done, part);
    }
}

/* Zeros behind n_tok of a block's K and V, and of their scales. */
static void blank_rest(char *k, char *v, const struct kv_layer *kv, int n_tok) {
    size_t D = (size_t)kv->D, used = (size_t)n_tok;
    size_t size = kv_elem_bytes(kv->type), part = kv_head_bytes(kv->type, kv->D);
    for (int h = 0; h < kv->Hkv; h++, k += part, v += part) {
        for (size_t slot = used; slot < KV_BLOCK; slot++)
            for (size_t d = 0; d < D; d++) {
                memset(k + kv_k_at(kv->type, d, slot) * size, 0, size);
                memset(v + kv_v_at(kv->type, D, d, slot) * size, 0, size);
            }
        if (kv->type != KV_I8)
            continue;
        size_t scale = KV_BLOCK * D + used * sizeof(float);
        memset(k + scale, 0, part - scale);
        memset(v + scale, 0, part - scale);
    }
}

bool graph_failed(const struct graph *g) {
    if (g->ranks)
        return ranks_failed(g->ranks);
    bool failed = false;
    for (; g; g = g->next)
        failed = failed || (g->be->failed && g->be->failed(g->be));
    return failed;
}

void graph_read_block(struct graph *g, int block, int n_tok, void *host) {
    char *to = host;
    assert(n_tok >= 0 && n_tok <= KV_BLOCK);
    if (g->ranks) {
        ranks_read_block(g->ranks, block, n_tok, host);
        return;
    }
    for (; g; g = g->next) {
        g->be->download(g->be, to, block_memory(g, block), g->kv_block);
        for (int i = g->first; i < g->end; i++, to += 2 * g->kv_part) {
            const struct kv_layer kv = graph_kv(g, i);
            if (n_tok < KV_BLOCK)
                blank_rest(to, to + g->kv_part, &kv, n_tok);
        }
    }
}

void graph_write_block(struct graph *g, int block, const void *host) {
    const char *from = host;
    if (g->ranks) {
        ranks_write_block(g->ranks, block, host);
        return;
    }
    for (; g; from += g->kv_block, g = g->next)
        g->be->upload(g->be, block_memory(g, block), from, g->kv_block);
}

void *graph_host_block(struct graph *g, int block) {
    return g->be->host_memory && !g->next && !g->ranks ? block_memory(g, block) : NULL;
}

bool graph_can_swap(const struct graph *g) {
    return last_part(g)->be->swap_out;
}

void *graph_swap_alloc(struct graph *g, size_t bytes) {
    return last_part(g)->be->swap_alloc(last_part(g)->be, bytes);
}

void graph_swap_free(struct graph *g, void *p) {
    if (g->ranks)
        ranks_swap_wait(g->ranks);
    last_part(g)->be->swap_free(last_part(g)->be, p);
}

/* A part in host memory is copied at once. */
void graph_swap_out(struct graph *g, int block, void *host) {
    if (g->ranks) {
        ranks_swap_out(g->ranks, block, host);
        return;
    }
    for (char *to = host; g; to += g->kv_block, g = g->next)
        if (g->be->host_memory)
            memcpy(to, block_memory(g, block), g->kv_block);
        else
            g->be->swap_out(g->be, to, block_memory(g, block), g->kv_block);
}

void graph_swap_in(struct graph *g, int block, const void *host) {
    if (g->ranks) {
        ranks_swap_in(g->ranks, block, host);
        return;
    }
    for (const char *from = host; g; from += g->kv_block, g = g->next)
        if (g->be->host_memory)
            memcpy(block_memory(g, block), from, g->kv_block);
        else
            g->be->swap_in(g->be, block_memory(g, block), from, g->kv_block);
}

/* The angles of row t, which is token pos of its sequence. */
static void fill_rope(struct graph *g, int t, int pos) {
    size_t dim = (size_t)g->model->hp.rope_dim;
    for (int i = 0; i < g->n_rope; i++) {
        size_t at = ((size_t)i * (size_t)g->max_tok + (size_t)t) * dim;
        rope_fill(&g->rope, (enum rope_table)i, pos, g->rope_cos + at, g->rope_sin + at);
    }
}

/* Checks the batch and fills what begin() wants. */
static void make_step(struct graph *g, const struct batch *b, struct step *s) {
    const struct hparams *hp = &g->model->hp;
    int t = 0, n_rows = 0;
    assert(b->n_tok > 0 && b->n_tok <= g->max_tok && b->n_seq <= b->n_tok);
    for (int i = 0; i < b->n_seq; i++) {
        const struct batch_seq *q = &b->seqs[i];
        int end = q->n_past + q->n_tok;
        assert(q->n_tok > 0 && q->n_past >= 0 && q->n_logits >= 0 && q->n_logits <= q->n_tok);
        assert(t + q->n_tok <= b->n_tok && (hp->n_pos == 0 || end <= hp->n_pos));
        for (int j = 0; j < kv_blocks(end); j++)
            assert(q->blocks[j] >= 0 && q->blocks[j] < g->n_block);
        g->seqs[i] = (struct step_seq){t, q->n_tok, q->n_past, q->blocks};
        rope_set_length(&g->rope, max_of(q->n_total, end));
        for (int j = 0; j < q->n_tok; j++, t++) {
            assert(b->tokens[t] >= 0 && b->tokens[t] < hp->n_vocab);
            g->pos[t] = q->n_past + j;
            fill_rope(g, t, g->pos[t]);
            if (j >= q->n_tok - q->n_logits)
                g->rows[n_rows++] = t;
        }
    }
    assert(t == b->n_tok && n_rows <= g->max_logits);
    *s = (struct step){.T = t,
                       .rope_dim = hp->rope_dim,
                       .seqs = g->seqs,
                       .n_seq = b->n_seq,
                       .tokens = b->tokens,
                       .pos = g->pos,
                       .rows = g->rows,
                       .n_rows = n_rows};
    for (int i = 0; i < BACKEND_ROPES; i++) {
        size_t at = (size_t)i * (size_t)g->max_tok * (size_t)hp->rope_dim;
        s->rope[i].cos = g->rope_cos + at;
        s->rope[i].sin = g->rope_sin + at;
    }
}

/* x = what the tokens are before the first layer */
static void run_embedding(struct graph *g, const struct step *s) {
    struct backend *be = g->be;
    const struct hparams *hp = &g->model->hp;
    const int32_t *tokens = s->tokens;
    int T = s->T;
    if (g->dev.embd_in.w.N > 0) {
        be->embed(be, &g->dev.embd.w, tokens, T, g->word);
        graph_matmul(g, g->word, T, (const struct linear *[]){&g->dev.embd_in}, &g->x, 1);
    } else {
        be->embed(be, &g->dev.embd.w, tokens, T, g->x);
    }
    if (hp->embd_scale != 1)
        be->scale(be, hp->embd_scale, 0, g->x, row_floats(hp->n_embd), T, hp->n_embd);
    if (g->dev.pos.w.N > 0) {
        be->embed(be, &g->dev.pos.w, s->pos, T, g->tmp);
        be->add(be, 1, g->tmp, T, hp->n_embd, g->x);
    }
    graph_norm(g, &g->dev.embd_norm, g->x, T, g->x);
}

/* Logits of n rows of x [n, n_embd] to y [n, n_vocab], which is the backend's memory. */
static void head_rows(struct graph *g, const float *x, int n, float *y) {
    struct backend *be = g->be;
    const struct hparams *hp = &g->model->hp;
    const struct linear *w = &g->dev.head;
    size_t V = (size_t)hp->n_vocab;
    be->matmul(be, x, n, w->w.K, &(struct matmul_out){&w->w, y, V, w->bias}, 1);
    if (hp->logit_scale != 1 || hp->logit_cap > 0)
        be->scale(be, hp->logit_scale, hp->logit_cap, y, V, n, hp->n_vocab);
}

/* The first n rows of x as the head's weight reads them. */
static const float *head_input(struct graph *g, int n) {
    struct backend *be = g->be;
    const float *x = graph_norm(g, &g->dev.out_norm, g->x, n, g->xn);
    if (g->dev.embd_out.w.N > 0) {
        graph_matmul(g, x, n, (const struct linear *[]){&g->dev.embd_out}, &g->word, 1);
        x = g->word;
    }
    if (g->dev.head.perm) {
        be->permute(be, x, g->dev.head.perm, n, g->dev.head.w.K, g->px);
        x = g->px;
    }
    return x;
}

/* What becomes of a step's rows of logits: they come to the host, or tokens of them do. */
struct wanted {
    float *logits;                 /* [n_rows, n_vocab], or NULL: */
    const struct sample_row *rows; /* [n_rows] */
    struct sample_got *got;        /* [n_rows] */
};

/* Rows i .. i + n - 1, whose logits are in g->logits. */
static void hand_out(struct graph *g, const struct wanted *w, int i, int n) {
    struct backend *be = g->be;
    size_t V = (size_t)g->model->hp.n_vocab;
    if (w->logits)
        be->download(be, w->logits + (size_t)i * V, g->logits, (size_t)n * V * sizeof(float));
    else
        be->sample(be, w->rows + i, n, g->model->hp.n_vocab, g->logits, w->got + i);
}

/* Logits of the first n rows of x, handed out. */
static void run_head(struct graph *g, const struct wanted *w, int n) {
    size_t ld = row_floats(g->dev.head.w.K);
    const float *x = head_input(g, n);
    if (g->be->host_memory) {
        head_rows(g, x, n, w->logits);
        return;
    }
    for (int i = 0; i < n; i += GRAPH_LOGIT_ROWS) {
        int part = n - i < GRAPH_LOGIT_ROWS ? n - i : GRAPH_LOGIT_ROWS;
        head_rows(g, x + (size_t)i * ld, part, g->logits);
        hand_out(g, w, i, part);
    }
}

bool graph_settle(struct graph *g) {
    size_t part = g->settle.bytes / SETTLE_PARTS + 1;
    if (g->ranks)
        return ranks_settle(g->ranks);
    if (!g->be->settle || g->settle.next == g->settle.n)
        return false;
    if (g->settle.n_call++ < SETTLE_AFTER)
        return true;
    while (part > 0 && g->settle.next < g->settle.n &&
           g->be->settle(g->be, g->settle.w[g->settle.next], &part))
        g->settle.next++;
    return g->settle.next < g->settle.n;
}

/* All but the head; behind the last layer the wanted rows are the first of x. */
static void run_layers(struct graph *g, const struct step *s) {
    int last = g->model->hp.n_layer - 1;
    graph_expect(g, g->first);
    if (g->embeds)
        run_embedding(g, s);
    for (int i = g->first; i < g->end; i++)
        graph_layer(g, i, s->T, i == last ? s->rows : NULL, s->n_rows);
}

/* A step that a device may record: each sequence decodes one token, whose logits are wanted,
 * and nothing comes to the host before them. A rank's steps are not: nobody has seen yet how
 * NCCL's sums are recorded. */
static bool decodes(const struct graph *g, const struct step *s) {
    return g->be->step_again && !g->comm && s->n_seq == s->T && s->n_rows == s->T &&
           s->T <= GRAPH_LOGIT_ROWS && g->model->hp.n_expert == 0;
}

static void run_decode(struct graph *g, const struct step *s, const struct wanted *w) {
    struct backend *be = g->be;
    if (!be->step_again(be)) {
        run_layers(g, s);
        head_rows(g, head_input(g, s->T), s->T, g->logits);
        be->step_over(be);
    }
    hand_out(g, w, 0, s->T);
}

/* From here to what is wanted, or to x for the next part. */
static void run_part(struct graph *g, const struct step *s, const struct wanted *w) {
    if (!g->next && decodes(g, s)) {
        run_decode(g, s, w);
        return;
    }
    run_layers(g, s);
    bool head = !g->next && (w->logits || w->got); /* of ranks the first has one */
    if (head && s->n_rows > 0)
        run_head(g, w, s->n_rows);
}

/* The residual stream goes on. A part that has finished lets its memory be read. */
static void hand_over(const struct graph *from, struct graph *to, int T) {
    size_t bytes = (size_t)T * row_floats(from->model->hp.n_embd) * sizeof *from->x;
    assert(from->be->host_memory);
    to->be->upload(to->be, to->x, from->x, bytes);
}

static enum status run_step(struct graph *g, const struct batch *b, const struct wanted *w,
                            struct err *err) {
    struct step s;
    make_step(g, b, &s);
    for (struct graph *part = g; part; part = part->next) {
        part->be->begin(part->be, &s);
        if (part != g) /* there are two parts at most */
            hand_over(g, part, s.T);
        run_part(part, &s, w);
        CHECK(part->be->finish(part->be, err));
    }
    return model_intact(g->model, err);
}

enum status graph_forward(struct graph *g, const struct batch *b, float *logits,
                          struct err *err) {
    if (g->ranks)
        return ranks_forward(g->ranks, b, logits, err);
    return run_step(g, b, &(struct wanted){.logits = logits}, err);
}

bool graph_can_sample(const struct graph *g, int n) {
    return last_part(g)->be->sample && n <= BACKEND_SAMPLE_ROWS &&
           g->model->hp.n_vocab <= BACKEND_SAMPLE_VOCAB;
}

enum status graph_sample(struct graph *g, const struct batch *b, const struct sample_row *rows,
                         struct sample_got *got, struct err *err) {
    assert(graph_can_sample(g, 0));
    if (g->ranks)
        return ranks_sample(g->ranks, b, rows, got, err);
    return run_step(g, b, &(struct wanted){.rows = rows, .got = got}, err);
}

void graph_parallel(struct graph *g, int n_item, void (*body)(void *ctx, int item, int thread),
                    void *ctx) {
    if (g->be->parallel) {
        g->be->parallel(g->be, n_item, body, ctx);
        return;
    }
    for (int i = 0; i < n_item; i++)
        body(ctx, i, 0);
}
