/*
 * shard.c - cuts a model's weights. See shard.h.
 *
 * All layouts of weight.h are one to a cut: a tile of 16 rows is a list of lines, 64 bytes
 * each, with 4 bytes of each row; a line has 1, 2, 4 or 8 inputs. Scales and minimums are lines
 * as well, one for each group.
 *
 * Double-quantised scales find their second scale by the number of their group in the whole
 * matrix, counted along the rows. Where a part begins with such a block and has whole rows, it
 * keeps them; else its scales are written out as floats: 3 bytes more for 64 weights.
 */
#include "engine/run/shard.h"

#include "base/mem.h"
#include "engine/quant/pack.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 64, LINE_WORDS = LINE / 4 };

/* What is cut, and how; experts: [n_expert] of them. */
static const struct cut {
    size_t at; /* in struct layer */
    const char *name;
    bool inputs, experts;
} cuts[] = {
    {offsetof(struct layer, wq), "wq", false, false},
    {offsetof(struct layer, wk), "wk", false, false},
    {offsetof(struct layer, wv), "wv", false, false},
    {offsetof(struct layer, wo), "wo", true, false},
    {offsetof(struct layer, gate), "gate", false, false},
    {offsetof(struct layer, up), "up", false, false},
    {offsetof(struct layer, down), "down", true, false},
    {offsetof(struct layer, gate_shared), "gate_shared", false, false},
    {offsetof(struct layer, up_shared), "up_shared", false, false},
    {offsetof(struct layer, down_shared), "down_shared", true, false},
    {offsetof(struct layer, gate_exp), "gate_exp", false, true},
    {offsetof(struct layer, up_exp), "up_exp", false, true},
    {offsetof(struct layer, down_exp), "down_exp", true, true},
};
enum { N_CUT = sizeof cuts / sizeof *cuts };

struct shard {
    struct model model;
    struct linear *experts; /* all layers' */
    void **copies;
    size_t n_copy, cap;
    int rank, n;
};

/* The linears of a cut in a layer, *n of them. */
static const struct linear *linears(const struct layer *l, const struct cut *c, int n_expert,
                                    int *n) {
    const void *at = (const char *)l + c->at;
    const struct linear *list = at;
    if (c->experts)
        memcpy(&list, at, sizeof list);
    *n = !list ? 0 : c->experts ? n_expert : list->w.N > 0;
    return list;
}

/* ---- what can be cut ---- */

/* Inputs that can't be parted. */
static int unit_of(const struct weight *w) {
    switch (w->type) {
    case WEIGHT_F32:
        return 1;
    case WEIGHT_BF16:
    case WEIGHT_F16:
        return 2;
    default:
        return w->group;
    }
}

static enum status check_inputs(const struct linear *l, const char *name, int layer, int n,
                                struct err *err) {
    if (l->perm)
        return err_set(
            err, ST_UNSUPPORTED,
            "layer %d: %s: its inputs are reordered (act-order), and can't be shared "
            "by %d GPUs: quantise the model without act-order, or use one GPU",
            layer, name, n);
    if (l->w.K % n || l->w.K / n % unit_of(&l->w))
        return err_set(
            err, ST_UNSUPPORTED,
            "layer %d: %s: %d inputs, %d with one scale, can't be shared by %d GPUs: "
            "use fewer, or weights without scales (--quant bf16)",
            layer, name, l->w.K, unit_of(&l->w), n);
    return ST_OK;
}

static enum status check_layer(const struct model *m, int i, int n, struct err *err) {
    int count;
    for (const struct cut *c = cuts; c < cuts + N_CUT; c++) {
        const struct linear *l = linears(&m->layers[i], c, m->hp.n_expert, &count);
        for (int e = 0; e < count; e++)
            if (c->inputs)
                CHECK(check_inputs(&l[e], c->name, i, n, err));
    }
    if (m->hp.qk_norm_rows == QK_NORM_ROWS && m->layers[i].q_norm.g)
        return err_set(err, ST_UNSUPPORTED,
                       "layer %d: queries are normalised over all heads, which %d GPUs can't "
                       "share: use one GPU",
                       i, n);
    return ST_OK;
}

enum status shard_check(const struct model *m, int n, struct err *err) {
    const struct hparams *hp = &m->hp;
    const struct {
        const char *what;
        int size;
    } sizes[] = {{"heads", hp->n_head},
                 {"KV heads", hp->n_head_kv},
                 {"columns of a feed-forward", hp->n_ff},
                 {"columns of an expert", hp->n_ff_expert},
                 {"columns of the shared expert", hp->n_ff_shared}};
    if (n < 1 || n > SHARD_MOST)
        return err_set(err, ST_UNSUPPORTED, "a model is shared by 1 to %d GPUs, not %d",
                       SHARD_MOST, n);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].size % n)
            return err_set(err, ST_UNSUPPORTED,
                           "%d %s can't be shared by %d GPUs: their number must divide it",
                           sizes[i].size, sizes[i].what, n);
    for (int i = 0; i < hp->n_layer; i++)
        CHECK(check_layer(m, i, n, err));
    return ST_OK;
}

/* ---- cutting ---- */

/* Zeros that the shard owns, at a 64-byte border; NULL: no memory. */
static void *copy_room(struct shard *s, size_t bytes) {
    size_t size = (bytes + LINE - 1) / LINE * LINE;
    void *p = aligned_alloc(LINE, size ? size : LINE);
    if (!p)
        return NULL;
    if (s->n_copy == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 64;
        s->copies = xreallocarray(s->copies, s->cap, sizeof *s->copies);
    }
    s->copies[s->n_copy++] = p;
    return memset(p, 0, size);
}

/* A part of a matrix: rows [row, row + N), inputs [k, k + K). */
struct part {
    int row, N, k, K;
};

/* Lines [first, first + n) of each tile, `lines` in one, to tiles of `to_lines`. */
static void cut_lines(const void *from, size_t lines, size_t first, size_t n,
                      const struct part *p, void *to, size_t to_lines) {
    const uint32_t *src = from;
    uint32_t *dst = to;
    for (int i = 0; i < p->N; i++) {
        int row = p->row + i;
        const uint32_t *a = src + ((size_t)(row / WEIGHT_TILE) * lines + first) * LINE_WORDS +
                            row % WEIGHT_TILE;
        uint32_t *b = dst + (size_t)(i / WEIGHT_TILE) * to_lines * LINE_WORDS + i % WEIGHT_TILE;
        if (i % WEIGHT_TILE == 0 && row % WEIGHT_TILE == 0 && i + WEIGHT_TILE <= p->N) {
            memcpy(b, a, n * LINE); /* a whole tile */
            i += WEIGHT_TILE - 1;
            continue;
        }
        for (size_t l = 0; l < n; l++)
            b[l * LINE_WORDS] = a[l * LINE_WORDS];
    }
}

/* Scales or minimums of the part's groups. */
static const float *cut_scales(struct shard *s, const struct weight *w, const float *from,
                               const struct part *p, const struct weight *to) {
    size_t G = (size_t)(to->Kp / w->group);
    float *out = copy_room(s, (size_t)to->Np * G * sizeof *out);
    if (out)
        cut_lines(from, (size_t)(w->Kp / w->group), (size_t)(p->k / w->group),
                  (size_t)((p->K + w->group - 1) / w->group), p, out, G);
    return out;
}

/* Double-quantised ones, written out. */
static const float *write_scales(struct shard *s, const struct weight *w, const struct part *p,
                                 const struct weight *to) {
    size_t G = (size_t)(to->Kp / w->group);
    int n = (p->K + w->group - 1) / w->group;
    float *out = copy_room(s, (size_t)to->Np * G * sizeof *out);
    for (int i = 0; out && i < p->N; i++)
        for (int g = 0; g < n; g++)
            out[((size_t)(i / WEIGHT_TILE) * G + (size_t)g) * WEIGHT_TILE +
                (size_t)(i % WEIGHT_TILE)] =
                weight_group_scale(w, p->row + i, p->k / w->group + g);
    return out;
}

/* The part as a copy. False: no memory. */
static bool cut_copy(struct shard *s, const struct weight *w, const struct part *p,
                     struct weight *to) {
    size_t lines = weight_tile_bytes(w->type, w->Kp) / LINE;
    size_t to_lines = weight_tile_bytes(w->type, to->Kp) / LINE;
    int per_line = w->Kp / (int)lines;
    void *data = copy_room(s, (size_t)to->Np / WEIGHT_TILE * to_lines * LINE);
    if (!data)
        return false;
    cut_lines(w->data, lines, (size_t)(p->k / per_line),
              (size_t)((p->K + per_line - 1) / per_line), p, data, to_lines);
    to->data = data;
    to->code = NULL;
    to->code_map = to->absmax2 = NULL;
    if (w->code)
        to->scale = write_scales(s, w, p, to);
    else if (w->scale)
        to->scale = cut_scales(s, w, w->scale, p, to);
    if (w->min)
        to->min = cut_scales(s, w, w->min, p, to);
    return (!w->code || to->scale) && (!w->scale || to->scale) && (!w->min || to->min);
}

/* Whole rows that begin and end with a tile, and with a block of second scales. */
static bool by_address(const struct weight *w, const struct part *p) {
    size_t G = w->group ? (size_t)(w->Kp / w->group) : 0;
    return p->k == 0 && p->K == w->K && p->row % WEIGHT_TILE == 0 && p->N % WEIGHT_TILE == 0 &&
           (!w->code || (size_t)p->row * G % WEIGHT_SCALE_BLOCK == 0);
}

/* False: no memory for the second scales, which need entries behind their last. */
static bool cut_address(struct shard *s, const struct weight *w, const struct part *p,
                        struct weight *to) {
    size_t tile = (size_t)(p->row / WEIGHT_TILE);
    size_t groups = w->group ? tile * (size_t)(w->Kp / w->group) * WEIGHT_TILE : 0;
    to->data = (const char *)w->data + tile * weight_tile_bytes(w->type, w->Kp);
    to->scale = w->scale ? w->scale + groups : NULL;
    to->min = w->min ? w->min + groups : NULL;
    to->code = w->code ? w->code + groups : NULL;
    if (!w->code)
        return true;
    size_t first = groups / WEIGHT_SCALE_BLOCK, len = weight_absmax2_len(p->N, p->K);
    size_t left = weight_absmax2_len(w->N, w->K) - first;
    float *absmax2 = copy_room(s, len * sizeof *absmax2);
    if (absmax2)
        memcpy(absmax2, w->absmax2 + first, (left < len ? left : len) * sizeof *absmax2);
    to->absmax2 = absmax2;
    return absmax2 != NULL;
}

/* l becomes the rank's part of `from`. False: no memory. */
static bool cut_linear(struct shard *s, const struct linear *from, bool inputs,
                       struct linear *l) {
    const struct weight *w = &from->w;
    struct part p = {0, w->N, 0, w->K};
    if (inputs) {
        p.K = w->K / s->n;
        p.k = s->rank * p.K;
    } else {
        p.N = w->N / s->n;
        p.row = s->rank * p.N;
    }
    *l = *from;
    l->w.N = p.N;
    l->w.K = p.K;
    l->w.Np = weight_pad_n(p.N);
    l->w.Kp = weight_pad_k(p.K);
    if (from->bias)
        l->bias = !inputs ? from->bias + p.row : s->rank == 0 ? from->bias : NULL;
    return by_address(w, &p) ? cut_address(s, w, &p, &l->w) : cut_copy(s, w, &p, &l->w);
}

/* A norm over heads with gains of their own, from head `first` on. */
static void cut_norm(const struct hparams *hp, int first, struct norm *n) {
    if (hp->qk_norm_rows != QK_NORM_EACH || !n->g)
        return;
    n->g += first * hp->head_dim;
    if (n->b)
        n->b += first * hp->head_dim;
}

/* room: where the parts of the layer's experts go. False: no memory. */
static bool cut_layer(struct shard *s, const struct layer *from, struct layer *l,
                      struct linear **room) {
    const struct hparams *hp = &s->model.hp; /* of the part */
    *l = *from;
    for (const struct cut *c = cuts; c < cuts + N_CUT; c++) {
        int n;
        const struct linear *whole = linears(from, c, hp->n_expert, &n);
        struct linear *to = c->experts ? *room : (struct linear *)(void *)((char *)l + c->at);
        if (c->experts && n > 0) {
            memcpy((char *)l + c->at, room, sizeof *room);
            *room += n;
        }
        for (int e = 0; e < n; e++)
            if (!cut_linear(s, &whole[e], c->inputs, &to[e]))
                return false;
    }
    cut_norm(hp, s->rank * hp->n_head, &l->q_norm);
    cut_norm(hp, s->rank * hp->n_head_kv, &l->k_norm);
    if (l->sinks)
        l->sinks += s->rank * hp->n_head;
    return true;
}

enum status shard_new(const struct model *m, int rank, int n, struct shard **out,
                      struct err *err) {
    struct shard *s = xcalloc(1, sizeof *s);
    struct hparams *hp = &s->model.hp;
    s->model = *m;
    s->rank = rank;
    s->n = n;
    s->model.first_head = rank * m->hp.n_head / n;
    s->model.all_heads = m->hp.n_head;
    int *sizes[] = {&hp->n_head, &hp->n_head_kv, &hp->n_ff, &hp->n_ff_expert, &hp->n_ff_shared};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        *sizes[i] /= n;
    size_t n_layer = (size_t)hp->n_layer, n_expert = (size_t)hp->n_expert;
    s->model.layers = xcalloc(n_layer + 1, sizeof *s->model.layers);
    s->experts = xcalloc(3 * n_layer * n_expert + 1, sizeof *s->experts);
    struct linear *room = s->experts;
    if (rank > 0)
        s->model.head = s->model.embd_out = (struct linear){0};
    for (int i = 0; i < hp->n_layer; i++)
        if (!cut_layer(s, &m->layers[i], &s->model.layers[i], &room)) {
            shard_free(s);
            return err_set(err, ST_NOMEM, "no memory for part %d of %d of the model", rank + 1,
                           n);
        }
    *out = s;
    return ST_OK;
}

void shard_drop_copies(struct shard *s) {
    for (size_t i = 0; i < s->n_copy; i++)
        free(s->copies[i]);
    free(s->copies);
    s->copies = NULL;
    s->n_copy = s->cap = 0;
}

void shard_free(struct shard *s) {
    if (!s)
        return;
    shard_drop_copies(s);
    free(s->model.layers);
    free(s->experts);
    free(s);
}

const struct model *shard_model(const struct shard *s) {
    return &s->model;
}
