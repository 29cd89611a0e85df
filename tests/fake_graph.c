/*
 * fake_graph.c - see fake_graph.h.
 */
#include "fake_graph.h"

#include "base/mem.h"
#include "engine/model/arch.h"
#include "engine/run/graph.h"
#include "engine/text.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct fake fake;

void fake_reset(void) {
    memset(&fake, 0, sizeof fake);
    sem_init(&fake.entered, 0, 0);
    sem_init(&fake.go, 0, 0);
    fake.max_swap_chunk = 1 << 20;
}

/* ---- the model ---- */

enum status model_open(const char *path, struct model **out, struct err *err) {
    if (strcmp(path, "fake") != 0 && strcmp(path, "fake-draft") != 0)
        return err_set(err, ST_NOT_FOUND, "%s: no such model", path);
    struct model *m = xcalloc(1, sizeof *m);
    m->info.name = xstrdup(path);
    if (strcmp(path, "fake-draft") == 0)
        m->text = (struct text_model *)m; /* never looked into */
    m->info.architecture = xstrdup("llama");
    m->info.quant = xstrdup("f32");
    m->info.n_params = 1000;
    arch_find("llama", "fake", &m->arch, NULL);
    m->hp = (struct hparams){.n_layer = 1,
                             .n_vocab = FAKE_VOCAB,
                             .n_embd = 64,
                             .n_head = 1,
                             .n_head_kv = 1,
                             .head_dim = 64,
                             .ctx_train = FAKE_CTX_TRAIN};
    m->embd.w = (struct weight){.type = WEIGHT_BF16,
                                .N = FAKE_VOCAB,
                                .K = 64,
                                .Np = weight_pad_n(FAKE_VOCAB),
                                .Kp = 64,
                                .data = m};
    m->head = m->embd;
    m->layers = xcalloc(1, sizeof *m->layers);
    m->layers[0].wq.w = (struct weight){.type = WEIGHT_Q4,
                                        .N = 64,
                                        .K = 64,
                                        .Np = 64,
                                        .Kp = 64,
                                        .group = 64,
                                        .data = m,
                                        .code = (const uint8_t *)m,
                                        .absmax2 = (const float *)(void *)m};
    *out = m;
    return ST_OK;
}

uint64_t model_hash(const struct model *m) {
    (void)m;
    return 0xFA4Eu;
}

void model_close(struct model *m) {
    free(m->info.name);
    free(m->info.architecture);
    free(m->info.quant);
    free(m->layers);
    free(m);
}

/* ---- its text ---- */

void text_decode(const struct text_model *t, int32_t token, bool special, struct buf *out) {
    if (t && fake.foreign && fake.foreign == token)
        buf_adds(out, "foreign");
    else if (token < 256)
        buf_addc(out, (char)token);
    else if (token == FAKE_CTL && special)
        buf_adds(out, "<ctl>");
}

bool text_is_eog(const struct text_model *t, int32_t token) {
    (void)t;
    return token == FAKE_EOG;
}

bool text_is_control(const struct text_model *t, int32_t token) {
    (void)t;
    return token >= 256;
}

int text_n_vocab(const struct text_model *t) {
    return FAKE_VOCAB + (t ? fake.more_tokens : 0);
}

int text_bos(const struct text_model *t) {
    (void)t;
    return FAKE_CTL;
}

int text_eos(const struct text_model *t) {
    (void)t;
    return FAKE_EOG;
}

bool text_adds_bos(const struct text_model *t) {
    (void)t;
    return false;
}

/* ---- its arithmetic ---- */

int32_t fake_next(const int32_t *tokens, size_t n) {
    uint64_t h = 14695981039346656037u;
    for (size_t i = n; i-- > 0 && fake.script;)
        if (tokens[i] == '#') {
            size_t at = n - 1 - i;
            return at < strlen(fake.script) ? (unsigned char)fake.script[at] : FAKE_EOG;
        }
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint64_t)tokens[i]) * 1099511628211u;
    return 'a' + (int32_t)((h >> 20) % 26);
}

void fake_logits(const int32_t *tokens, size_t n, float *logits) {
    int32_t best = fake_next(tokens, n);
    for (int v = 0; v < FAKE_VOCAB; v++)
        logits[v] = v < 'a' || v > 'z' ? -20 : (float)((v * 7 + (int)n) % 26) / 10;
    logits[best] = 5;
}

enum { KIND = 1 << 24 }; /* FAKE_CTX_TRAIN places are less */

struct graph {
    bool draft; /* of "fake-draft" */
    int n_block, max_tok, max_logits;
    enum kv_type kv_type;
    int32_t (*kv)[FAKE_BLOCK_BYTES / 4]; /* [KV_BLOCK] tokens, + FAKE_PLACE * position, + KIND
                                            for KV of the second kind; nothing behind */
    int32_t *history;
    int32_t decoding[256]; /* last block of the sequences that decoded in the batch before */
    int n_decoding;
};

enum kv_type graph_kv_type(const struct graph *g) {
    return g->kv_type;
}

int graph_n_block(const struct graph *g) {
    return g->n_block;
}

size_t graph_kv_block_bytes(const struct model *m, enum kv_type want) {
    (void)m;
    (void)want;
    return fake.kv_block_bytes ? fake.kv_block_bytes : FAKE_BLOCK_BYTES;
}

enum status graph_open(const struct model *m, const struct graph_params *p, struct graph **out,
                       struct err *err) {
    (void)err;
    struct graph *g = xcalloc(1, sizeof *g);
    g->draft = m && strcmp(m->info.name, "fake-draft") == 0;
    fake.n_block = g->n_block = p->n_block;
    g->kv_type = p->kv_type == KV_AUTO ? KV_F16 : p->kv_type;
    g->max_tok = fake.max_tok ? fake.max_tok : 512;
    g->max_logits = p->max_logits;
    g->kv = xcalloc((size_t)p->n_block, sizeof *g->kv);
    memset(g->kv, -1, (size_t)p->n_block * sizeof *g->kv);
    g->history = xcalloc((size_t)p->n_block * KV_BLOCK, sizeof *g->history);
    *out = g;
    return ST_OK;
}

void graph_close(struct graph *g) {
    if (!g)
        return;
    free(g->history);
    free(g->kv);
    free(g);
}

int graph_max_tok(const struct graph *g) {
    return g->max_tok;
}

const char *graph_device(const struct graph *g) {
    (void)g;
    return "fake";
}

int graph_n_gpu(const struct graph *g) {
    (void)g;
    return 0;
}

const char *graph_pci(const struct graph *g, int i) {
    (void)g;
    (void)i;
    return NULL;
}

const char *graph_kernels(const struct graph *g) {
    (void)g;
    return "none";
}

int graph_gpu_layers(const struct graph *g) {
    (void)g;
    return fake.gpu_layers;
}

bool graph_is_split(const struct graph *g) {
    (void)g;
    return fake.split;
}

int graph_threads(const struct graph *g) {
    (void)g;
    return 1;
}

int graph_kv_kind(const struct graph *g, int n_total) {
    (void)g;
    return fake.long_from && n_total >= fake.long_from;
}

bool graph_same_angles(const struct graph *g, int a, int b) {
    return graph_kv_kind(g, a) == graph_kv_kind(g, b);
}

bool graph_settle(struct graph *g) {
    (void)g;
    fake.n_settle++;
    return true;
}

void graph_copy_block(struct graph *g, int dst, int src, int n_tok) {
    assert(dst != src && n_tok > 0 && n_tok <= KV_BLOCK);
    memcpy(g->kv[dst], g->kv[src], (size_t)n_tok * sizeof **g->kv); /* and not what is behind */
    fake.n_copied++;
}

const char *graph_cannot_move(const struct graph *g) {
    (void)g;
    return fake.cannot_move;
}

void graph_move_blocks(struct graph *g, const int32_t *blocks, int n, int from, int to) {
    assert(!fake.cannot_move && n > 0 && to < from && from % KV_BLOCK == 0);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < KV_BLOCK; j++)
            g->kv[blocks[i]][j] += FAKE_PLACE * (to - from);
    fake.n_moved += n;
}

bool graph_failed(const struct graph *g) {
    (void)g;
    return fake.failed;
}

void graph_read_block(struct graph *g, int block, int n_tok, void *host) {
    assert(block >= 0 && block < g->n_block && n_tok > 0 && n_tok <= KV_BLOCK);
    memset(host, 0, FAKE_BLOCK_BYTES);
    memcpy(host, g->kv[block], (size_t)n_tok * sizeof **g->kv);
}

void graph_write_block(struct graph *g, int block, const void *host) {
    assert(block >= 0 && block < g->n_block);
    memcpy(g->kv[block], host, sizeof *g->kv);
    fake.n_loaded++;
}

void *graph_host_block(struct graph *g, int block) {
    assert(block >= 0 && block < g->n_block);
    return fake.host_blocks ? g->kv[block] : NULL;
}

bool graph_can_swap(const struct graph *g) {
    (void)g;
    return !fake.host_blocks;
}

void *graph_swap_alloc(struct graph *g, size_t bytes) {
    (void)g;
    if (fake.n_swap_chunk == fake.max_swap_chunk)
        return NULL;
    fake.n_swap_chunk++;
    fake.swap_bytes += bytes;
    return malloc(bytes);
}

void graph_swap_free(struct graph *g, void *p) {
    (void)g;
    fake.n_swap_chunk--;
    free(p);
}

void graph_swap_out(struct graph *g, int block, void *to) {
    assert(block >= 0 && block < g->n_block);
    memcpy(to, g->kv[block], sizeof *g->kv);
    fake.n_out++;
}

void graph_swap_in(struct graph *g, int block, const void *from) {
    assert(block >= 0 && block < g->n_block);
    memcpy(g->kv[block], from, sizeof *g->kv);
    fake.n_in++;
}

static void check(const struct graph *g, const struct batch *b) {
    int n_tok = 0, n_logits = 0;
    for (int i = 0; i < b->n_seq; i++) {
        const struct batch_seq *s = &b->seqs[i];
        assert(s->n_total == 0 || s->n_total >= s->n_past + s->n_tok);
        assert(s->n_tok >= 1 && s->n_logits >= 0 && s->n_logits <= s->n_tok && s->n_past >= 0);
        for (int j = 0; j < (s->n_past + s->n_tok + KV_BLOCK - 1) / KV_BLOCK; j++)
            assert(s->blocks[j] >= 0 && s->blocks[j] < g->n_block);
        fake.longest =
            s->n_past + s->n_tok > fake.longest ? s->n_past + s->n_tok : fake.longest;
        n_tok += s->n_tok;
        n_logits += s->n_logits;
    }
    assert(n_tok == b->n_tok && n_tok <= g->max_tok && n_logits <= g->max_logits);
    for (int i = 0; i < n_tok; i++)
        assert(b->tokens[i] >= 0 && b->tokens[i] < FAKE_VOCAB);
}

/* A sequence that decoded in the last batch must be in this one; those that ended are told
 * apart by the batch's size. */
static void watch_decoders(struct graph *g, const struct batch *b) {
    int seen = 0, prefill = 0;
    for (int i = 0; i < b->n_seq; i++) {
        prefill += b->seqs[i].n_tok > 1;
        for (int j = 0; j < g->n_decoding; j++)
            seen += b->seqs[i].blocks[0] == g->decoding[j];
    }
    fake.n_starved += prefill && seen < g->n_decoding;
    g->n_decoding = 0;
    for (int i = 0; i < b->n_seq && i < 256; i++)
        if (b->seqs[i].n_tok == 1 && b->seqs[i].n_logits)
            g->decoding[g->n_decoding++] = b->seqs[i].blocks[0];
}

bool graph_can_sample(const struct graph *g, int n) {
    (void)g;
    (void)n;
    return false;
}

enum status graph_sample(struct graph *g, const struct batch *b, const struct sample_row *rows,
                         struct sample_got *got, struct err *err) {
    (void)g;
    (void)b;
    (void)rows;
    (void)got;
    return err_set(err, ST_INTERNAL, "the fake graph gives logits");
}

enum status graph_forward(struct graph *g, const struct batch *b, float *logits,
                          struct err *err) {
    check(g, b);
    watch_decoders(g, b);
    if (fake.gated) {
        sem_post(&fake.entered);
        sem_wait(&fake.go);
    }
    fake.n_forward++;
    fake.n_tok += b->n_tok;
    fake.n_draft += g->draft ? b->n_tok : 0;
    int64_t us = fake.step_us + (int64_t)b->n_tok * fake.row_us;
    fake.now_us += g->draft && fake.draft_part ? us / fake.draft_part : us;
    fake.max_seq = b->n_seq > fake.max_seq ? b->n_seq : fake.max_seq;
    if (fake.n_forward == fake.fail_at)
        return err_set(err, ST_NOMEM, "the device has no memory left");
    const int32_t *token = b->tokens;
    for (int i = 0; i < b->n_seq; i++) /* all are written before one is read, as layers do */
        for (int j = 0; j < b->seqs[i].n_tok; j++) {
            int at = b->seqs[i].n_past + j;
            int kind = graph_kv_kind(g, b->seqs[i].n_total) ? KIND : 0;
            g->kv[b->seqs[i].blocks[at / KV_BLOCK]][at % KV_BLOCK] =
                *token++ + FAKE_PLACE * at + kind;
        }
    for (int i = 0; i < b->n_seq; i++) {
        const struct batch_seq *s = &b->seqs[i];
        int end = s->n_past + s->n_tok;
        int kind = graph_kv_kind(g, s->n_total) ? KIND : 0;
        for (int at = 0; at < end; at++) /* KV of the wrong kind or place is not this history */
            g->history[at] =
                g->kv[s->blocks[at / KV_BLOCK]][at % KV_BLOCK] - FAKE_PLACE * at - kind;
        for (int n = end - s->n_logits + 1; n <= end; n++, logits += FAKE_VOCAB) {
            fake_logits(g->history, (size_t)n, logits);
            if (g->draft && fake.draft_wrong &&
                fake_next(g->history, (size_t)n) % fake.draft_wrong == 0)
                logits['!'] = 100;
            if (fake.nan_at && fake.n_forward >= fake.nan_at)
                logits[3] = NAN;
        }
    }
    return ST_OK;
}

void graph_parallel(struct graph *g, int n_item, void (*body)(void *ctx, int item, int thread),
                    void *ctx) {
    (void)g;
    for (int i = n_item; i-- > 0;) /* any order will do */
        body(ctx, i, 0);
}

void fake_prompt(int32_t *tokens, int n, int family) {
    for (int i = 0; i < n; i++)
        tokens[i] = 'A' + (i * 7 + family * 11 + i / 26) % 26;
}
