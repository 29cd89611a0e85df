/*
 * view.c - see view.h.
 *
 * Which row of the source is our row r is one function, row_of(): first the order inside a
 * head, then the place inside a fused tensor, then the expert. Biases and vectors go through
 * the same function, an element taking the part of a row. A transposed source is turned once,
 * as a whole, when its first row is asked for: column by column through its rows would read it
 * N / 16 times. Only floats are transposed: the libraries that quantise turn a Conv1D into the
 * linear layer that it stands for, and store that.
 */
#include "engine/model/view.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned kind_of(const struct view *v) {
    return v->rows & ~(unsigned)ROWS_TRANSPOSED;
}

static bool is_transposed(const struct view *v) {
    return v->rows & ROWS_TRANSPOSED;
}

/* Rows that the source's tensor must have so that ours are among them. */
static uint64_t rows_wanted(const struct view *v, uint64_t N) {
    uint64_t D = (uint64_t)v->hp->head_dim;
    uint64_t all = ((uint64_t)v->hp->n_head + 2 * (uint64_t)v->hp->n_head_kv) * D;
    switch ((enum rows)kind_of(v)) {
    case ROWS_ALL:
    case ROWS_HEADS:
        return N;
    case ROWS_Q:
    case ROWS_K:
    case ROWS_V:
    case ROWS_GROUP_Q:
    case ROWS_GROUP_K:
    case ROWS_GROUP_V:
        return all;
    case ROWS_FIRST_HALF:
    case ROWS_SECOND_HALF:
    case ROWS_EVEN:
    case ROWS_ODD:
        return 2 * N;
    case ROWS_FROM_2:
        return N + 2;
    }
    return N;
}

/* Place of pair element d of a head where pairs are (i, i + half): ours is (2i, 2i + 1). */
static uint64_t unrotated(const struct view *v, uint64_t r) {
    uint64_t D = (uint64_t)v->hp->head_dim, half = (uint64_t)v->hp->rope_dim / 2, d = r % D;
    return d < 2 * half ? r - d + (d % 2 ? half + d / 2 : d / 2) : r;
}

static uint64_t row_of(const struct view *v, uint64_t r, uint64_t N) {
    const struct hparams *hp = v->hp;
    uint64_t D = (uint64_t)hp->head_dim, H = (uint64_t)hp->n_head,
             Hkv = (uint64_t)hp->n_head_kv;
    uint64_t gq = H / Hkv, d = r % D, h = r / D;
    if (v->rotate) {
        r = unrotated(v, r);
        d = r % D;
    }
    switch ((enum rows)kind_of(v)) {
    case ROWS_ALL:
    case ROWS_HEADS:
    case ROWS_Q:
    case ROWS_FIRST_HALF:
        return r;
    case ROWS_K:
        return H * D + r;
    case ROWS_V:
        return (H + Hkv) * D + r;
    case ROWS_GROUP_Q:
        return (h / gq * (gq + 2) + h % gq) * D + d;
    case ROWS_GROUP_K:
        return (h * (gq + 2) + gq) * D + d;
    case ROWS_GROUP_V:
        return (h * (gq + 2) + gq + 1) * D + d;
    case ROWS_SECOND_HALF:
        return N + r;
    case ROWS_EVEN:
        return 2 * r;
    case ROWS_ODD:
        return 2 * r + 1;
    case ROWS_FROM_2:
        return 2 + r;
    }
    return r;
}

/* `at` with the first %d of it replaced, and the end put behind. False: it does not fit. */
static bool fill_in(char *out, size_t cap, const char *at, int n, const char *end) {
    const char *mark = strstr(at, "%d");
    int len = mark ? snprintf(out, cap, "%.*s%d%s%s", (int)(mark - at), at, n, mark + 2, end)
                   : snprintf(out, cap, "%s%s", at, end);
    return len >= 0 && (size_t)len < cap;
}

/* A name of the table's that takes no ending, "!" at its end. */
static bool is_complete(const char *name) {
    size_t n = strlen(name);
    return n && name[n - 1] == '!';
}

/* The source's name of a slot at a place, with an ending. */
static void source_name(const struct source *s, const struct arch_slot *slot,
                        const struct place *p, const char *ending, char out[192]) {
    char prefix[96] = "", name[128], bare[96];
    bool complete = is_complete(p->name);
    snprintf(bare, sizeof bare, "%.*s", (int)(strlen(p->name) - complete), p->name);
    if (slot->layer >= 0)
        fill_in(prefix, sizeof prefix, s->is_gguf ? "blk.%d." : s->arch->hf_layer, slot->layer,
                "");
    fill_in(name, sizeof name, bare, slot->expert, complete ? "" : ending);
    int len = snprintf(out, 192, "%s%s", prefix, name);
    assert(len > 0 && len < 192); /* both are the table's */
}

/* "3 x 16 x 80", or without the 3 where there is no stack. */
static const char *shape_text(char (*buf)[72], uint64_t E, uint64_t N, uint64_t K) {
    int n = 0;
    if (E != 1)
        n = snprintf(*buf, sizeof *buf, "%" PRIu64 " x ", E);
    snprintf(*buf + n, sizeof *buf - (size_t)n, "%" PRIu64 " x %" PRIu64, N, K);
    return *buf;
}

static enum status check_shape(const struct source *s, const struct view *v, bool stack,
                               struct err *err) {
    uint64_t N = v->vector ? 1 : rows_wanted(v, v->N);
    uint64_t K = v->vector ? rows_wanted(v, v->K) : v->K;
    uint64_t E = stack ? (uint64_t)v->hp->n_expert : 1;
    char found[72], wanted[72];
    if (v->rows == ROWS_HEADS) {
        N = v->K / (uint64_t)v->hp->head_dim;
        K = (uint64_t)v->hp->head_dim;
    }
    if (is_transposed(v) && !v->vector) {
        uint64_t swap = N;
        N = K;
        K = swap;
    }
    if (v->t->E != E || v->t->N != N || v->t->K != K)
        return err_set(err, ST_FORMAT, "%s: tensor %s is %s, wanted %s", s->file, v->t->name,
                       shape_text(&found, v->t->E, v->t->N, v->t->K),
                       shape_text(&wanted, E, N, K));
    return ST_OK;
}

/* The bias beside a matrix: one number for each of the source's rows. */
static enum status find_bias(struct source *s, const struct arch_slot *slot,
                             const struct place *p, struct view *v, struct err *err) {
    char name[192];
    uint64_t n = rows_wanted(v, v->N);
    bool stack = slot->expert >= 0 && !strstr(p->name, "%d");
    if (is_complete(p->name) && !p->bias)
        return ST_OK;
    source_name(s, slot, p->bias ? &(struct place){.name = p->bias} : p, ".bias", name);
    CHECK(source_find(s, name, &v->bias, err));
    if (!v->bias && slot->t->flags & T_BIASED)
        return err_set(err, ST_FORMAT, "%s: tensor %s is missing", s->file, name);
    if (!v->bias)
        return ST_OK;
    uint64_t rows = stack ? (uint64_t)v->hp->n_expert : 1;
    if (v->bias->E * v->bias->N != rows || v->bias->K != n)
        return err_set(err, ST_FORMAT,
                       "%s: tensor %s is %" PRIu64 " x %" PRIu64 ", wanted %" PRIu64
                       " x %" PRIu64,
                       s->file, name, v->bias->E * v->bias->N, v->bias->K, rows, n);
    return ST_OK;
}

static bool is_vector(enum tensor_kind k) {
    return k == TENSOR_NORM || k == TENSOR_VECTOR;
}

/* The other tensors of a norm that has one for each head; t is the first. */
static enum status find_heads(struct source *s, const struct arch_slot *slot,
                              const struct place *p, struct view *v, struct err *err) {
    uint64_t D = (uint64_t)v->hp->head_dim, n = v->K / D;
    struct arch_slot head = *slot;
    char name[192];
    v->heads = xcalloc((size_t)n, sizeof *v->heads);
    for (head.expert = 0; (uint64_t)head.expert < n; head.expert++) {
        const struct source_tensor **t = &v->heads[head.expert];
        source_name(s, &head, p, ".weight", name);
        CHECK(source_find(s, name, t, err));
        if (!*t)
            return err_set(err, ST_FORMAT, "%s: tensor %s is missing", s->file, name);
        if ((*t)->E * (*t)->N != 1 || (*t)->K != D)
            return err_set(err, ST_FORMAT,
                           "%s: tensor %s has %" PRIu64 " values, wanted %" PRIu64, s->file,
                           name, (*t)->E * (*t)->N * (*t)->K, D);
    }
    return ST_OK;
}

static enum status find_at(struct source *s, const struct arch_slot *slot,
                           const struct place *p, struct view *v, struct err *err) {
    const struct arch_tensor *t = slot->t;
    char name[192];
    bool heads = p->rows == ROWS_HEADS && strstr(p->name, "%d");
    struct arch_slot first = *slot;
    first.expert = heads ? 0 : slot->expert;
    source_name(s, &first, p, ".weight", name);
    CHECK(source_find(s, name, &v->t, err));
    if (!v->t)
        return ST_OK;
    bool stack = slot->expert >= 0 && !strstr(p->name, "%d");
    *v = (struct view){.t = v->t,
                       .N = arch_dim(t->n, &s->hp),
                       .K = arch_dim(t->k, &s->hp),
                       .rows = v->t->quantised ? p->rows & ~(unsigned)ROWS_TRANSPOSED : p->rows,
                       .expert = stack ? slot->expert : 0,
                       .hp = &s->hp};
    v->vector = is_vector(t->kind);
    v->rotate = t->flags & T_ROTATED && !s->interleaved;
    v->plus_one = t->flags & T_PLUS_ONE && !s->is_gguf;
    if (heads) {
        enum status st = find_heads(s, slot, p, v, err);
        if (st != ST_OK)
            view_release(v);
        return st;
    }
    CHECK(check_shape(s, v, stack, err));
    if (t->kind == TENSOR_VECTOR)
        return ST_OK;
    if (t->kind != TENSOR_NORM)
        return find_bias(s, slot, p, v, err);
    source_name(s, slot, p, ".bias", name);
    CHECK(source_find(s, name, &v->bias, err));
    if (v->bias && v->bias->E * v->bias->N * v->bias->K != v->t->K)
        return err_set(err, ST_FORMAT, "%s: tensor %s has %" PRIu64 " values, wanted %" PRIu64,
                       s->file, name, v->bias->E * v->bias->N * v->bias->K, v->t->K);
    return ST_OK;
}

enum status view_find(struct source *s, const struct arch_slot *slot, struct view *out,
                      struct err *err) {
    const struct arch_tensor *t = slot->t;
    const struct place own = {.name = t->name};
    const struct place *places = s->is_gguf ? t->gguf : t->hf;
    char name[192] = "";
    bool named = false;
    *out = (struct view){0};
    for (int i = 0; i < ARCH_PLACES && places[i].name && !out->t; i++) {
        if (!named)
            source_name(s, slot, &places[i], ".weight", name);
        named = true;
        CHECK(find_at(s, slot, &places[i], out, err));
    }
    if (!named && s->is_gguf) {
        named = true;
        source_name(s, slot, &own, ".weight", name);
        CHECK(find_at(s, slot, &own, out, err));
    }
    if (!out->t && named && !(t->flags & (T_OPTIONAL | T_ONES)))
        return err_set(err, ST_FORMAT, "%s: tensor %s is missing", s->file, name);
    return ST_OK;
}

void view_release(struct view *v) {
    free(v->whole);
    v->whole = NULL;
    free(v->heads);
    v->heads = NULL;
}

bool view_has_codes(const struct view *v) {
    return v->t->format->codes && !is_transposed(v);
}

/* Source rows of ours first .. first + n - 1. */
static void source_rows(const struct view *v, uint64_t first, int n, uint64_t *row) {
    for (int i = 0; i < n; i++)
        row[i] = (uint64_t)v->expert * v->t->N + row_of(v, first + (uint64_t)i, v->N);
}

static void turn(struct view *v) {
    const struct source_tensor *t = v->t;
    float *in = xreallocarray(NULL, (size_t)t->K, SOURCE_ROWS * sizeof *in);
    v->whole = xreallocarray(NULL, (size_t)v->N, (size_t)v->K * sizeof *v->whole);
    for (uint64_t k = 0; k < v->K; k += SOURCE_ROWS) {
        uint64_t row[SOURCE_ROWS];
        int n = v->K - k < SOURCE_ROWS ? (int)(v->K - k) : SOURCE_ROWS;
        for (int i = 0; i < n; i++)
            row[i] = (uint64_t)v->expert * t->N + k + (uint64_t)i;
        t->format->rows(t, row, n, in);
        for (uint64_t r = 0; r < v->N; r++)
            for (int i = 0; i < n; i++)
                v->whole[r * v->K + k + (uint64_t)i] =
                    in[(uint64_t)i * t->K + row_of(v, r, v->N)];
    }
    free(in);
}

void view_rows(struct view *v, uint64_t first, int n, float *out) {
    uint64_t row[SOURCE_ROWS];
    if (is_transposed(v)) {
        if (!v->whole)
            turn(v);
        memcpy(out, v->whole + first * v->K, (size_t)n * (size_t)v->K * sizeof *out);
        return;
    }
    source_rows(v, first, n, row);
    v->t->format->rows(v->t, row, n, out);
}

void view_codes(const struct view *v, uint64_t first, int n, uint8_t *code, float *scale,
                float *min) {
    uint64_t row[SOURCE_ROWS];
    source_rows(v, first, n, row);
    v->t->format->codes(v->t, row, n, code, scale, min);
}

/* n elements of a source's vector, or of row `row` of a matrix, through row_of(). */
static void elements(const struct view *v, const struct source_tensor *t, uint64_t row,
                     uint64_t n, float *out) {
    float *all = xreallocarray(NULL, (size_t)(n > t->K ? n : t->K), sizeof *all);
    uint64_t D = (uint64_t)v->hp->head_dim;
    if (v->rows != ROWS_HEADS)
        t->format->rows(t, &row, 1, all);
    for (uint64_t h = 0; v->rows == ROWS_HEADS && h < n / D; h++) {
        const struct source_tensor *from = v->heads ? v->heads[h] : t;
        from->format->rows(from, v->heads ? &row : &h, 1, all + h * D);
    }
    for (uint64_t i = 0; i < n; i++)
        out[i] = all[row_of(v, i, n)];
    free(all);
}

void view_vector(const struct view *v, float *out) {
    elements(v, v->t, 0, v->K, out);
    for (uint64_t i = 0; v->plus_one && i < v->K; i++)
        out[i] += 1;
}

/* A norm's bias has a value for each of its K columns, a matrix's one for each of its N rows.
 */
void view_bias(const struct view *v, float *out) {
    elements(v, v->bias, v->N == 1 ? 0 : (uint64_t)v->expert, v->N == 1 ? v->K : v->N, out);
}
