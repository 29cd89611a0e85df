/*
 * model.c - opens one of our model files: maps it, checks it against its hyperparameters,
 * points the weights into it.
 *
 * Nothing is read but the header and the vocabulary, so opening takes milliseconds whatever the
 * size; weights are paged in as they are used. The container outlives everything that points
 * into it and is closed last.
 */
#include "engine/model/model.h"
#include "engine/model/model_file.h"
#include "engine/text.h"
#include "engine/text/text_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct binding {
    struct model *m;
    const struct container *c;
};

/* NAME.weight of a vector, or NAME.bias: f32 [K]; left NULL when it is not there and need not
 * be. */
static enum status bind_floats(const struct container *c, const char *base, const char *suffix,
                               uint64_t K, bool optional, const float **out, struct err *err) {
    char name[96];
    const struct ctensor *ct = NULL;
    snprintf(name, sizeof name, "%s%s", base, suffix);
    if (optional && !container_find(c, name))
        return ST_OK;
    CHECK(container_need(c, name, DTYPE_F32, 1, &K, &ct, err));
    *out = (const float *)(const void *)ct->data;
    return ST_OK;
}

/* NAME.perm: each input once, so that whoever gathers by it stays inside a row. */
static enum status bind_perm(const struct container *c, const char *base, uint64_t K,
                             const int32_t **out, struct err *err) {
    char name[96];
    const struct ctensor *ct = NULL;
    snprintf(name, sizeof name, "%s.perm", base);
    if (!container_find(c, name))
        return ST_OK;
    CHECK(container_need(c, name, DTYPE_I32, 1, &K, &ct, err));
    const int32_t *perm = (const int32_t *)(const void *)ct->data;
    for (uint64_t k = 0; k < K; k++)
        if (perm[k] < 0 || (uint64_t)perm[k] >= K)
            return err_set(err, ST_FORMAT, "%s: tensor %s: input %d of %d", container_name(c),
                           name, perm[k], (int)K);
    *out = perm;
    return ST_OK;
}

static enum status bind_linear(const struct container *c, const struct arch_slot *s,
                               const struct hparams *hp, struct linear *l, struct err *err) {
    uint64_t N = arch_dim(s->t->n, hp), K = arch_dim(s->t->k, hp);
    CHECK(weight_bind(&l->w, c, s->name, (int)N, (int)K, err));
    CHECK(bind_floats(c, s->name, ".bias", N, true, &l->bias, err));
    return bind_perm(c, s->name, K, &l->perm, err);
}

/* The graph goes by qk_norm_rows alone: it must say what the table has. */
static enum status check_head_norm(const struct binding *b, const struct arch_slot *s,
                                   struct err *err) {
    const struct hparams *hp = &b->m->hp;
    bool q = s->t->field == offsetof(struct layer, q_norm),
         k = s->t->field == offsetof(struct layer, k_norm);
    int heads = q ? hp->n_head : hp->n_head_kv;
    uint64_t K = arch_dim(s->t->k, hp), D = (uint64_t)hp->head_dim;
    uint64_t want = hp->qk_norm_rows == QK_NORM_HEADS ? D : (uint64_t)heads * D;
    if (s->layer < 0 || !(q || k) || K == want)
        return ST_OK;
    return err_set(err, ST_FORMAT,
                   "%s: %s has %" PRIu64 " values, qk_norm_rows %d wants %" PRIu64,
                   container_name(b->c), s->name, K, hp->qk_norm_rows, want);
}

/* One tensor of the table into its place. */
static enum status bind_one(void *user, const struct arch_slot *s, struct err *err) {
    struct binding *b = user;
    char name[96];
    uint64_t K = arch_dim(s->t->k, &b->m->hp);
    void *field = arch_field(b->m, s);
    snprintf(name, sizeof name, "%s.weight", s->name);
    if (s->t->flags & T_OPTIONAL && !container_find(b->c, name))
        return ST_OK;
    if (s->t->kind == TENSOR_VECTOR)
        return bind_floats(b->c, s->name, ".weight", K, false, field, err);
    if (s->t->kind != TENSOR_NORM)
        return bind_linear(b->c, s, &b->m->hp, field, err);
    struct norm *norm = field;
    CHECK(check_head_norm(b, s, err));
    CHECK(bind_floats(b->c, s->name, ".weight", K, false, &norm->g, err));
    return bind_floats(b->c, s->name, ".bias", K, true, &norm->b, err);
}

static enum status bind_all(struct model *m, const struct container *c, const struct arch *arch,
                            struct err *err) {
    struct binding b = {m, c};
    model_alloc_layers(m);
    CHECK(arch_visit(arch, &m->hp, bind_one, &b, err));
    if (!m->head.w.data) { /* tied */
        struct linear embd = m->embd;
        embd.bias = m->head.bias;
        m->head = embd;
    }
    return ST_OK;
}

static enum status open_text(struct model *m, const struct container *c, struct err *err) {
    struct vocab_data v;
    enum status st;
    CHECK(vocab_from_container(&v, c, err));
    if (v.tokens.n != (uint32_t)m->hp.n_vocab)
        TRY(err_set(err, ST_FORMAT, "%s: %u tokens, the embedding has %d rows",
                    container_name(c), v.tokens.n, m->hp.n_vocab));
    st = text_from_vocab(&v, &m->text, err);
    if (st != ST_OK)
        err_prefix(err, "%s", container_name(c));
out:
    vocab_release(&v);
    return st;
}

enum status model_open(const char *path, struct model **out, struct err *err) {
    struct model *m = xcalloc(1, sizeof *m);
    struct container *c = NULL;
    enum status st;
    TRY(container_open(path, &c, err));
    m->priv = c;
    file_map_huge(container_map(c));
    TRY(model_meta_read(c, path, &m->hp, &m->info, err));
    TRY(arch_find(m->info.architecture, container_name(c), &m->arch, err));
    TRY(bind_all(m, c, m->arch, err));
    TRY(open_text(m, c, err));
    TRY(container_intact(c, err));
    *out = m;
    return ST_OK;
out:
    model_close(m);
    return st;
}

enum status model_intact(const struct model *m, struct err *err) {
    const struct container *c = m->priv;
    return c ? container_intact(c, err) : ST_OK;
}

static uint64_t hash_of(const struct container *c) {
    struct file_map map = container_map(c);
    uint64_t header = 0;
    memcpy(&header, map.p, sizeof header); /* container_open() has checked it */
    size_t len = header < map.len - 8 ? (size_t)header + 8 : map.len;
    return XXH3_64bits_withSeed(map.p, len, container_bytes(c));
}

uint64_t model_hash(const struct model *m) {
    return hash_of(m->priv);
}

enum status model_file_hash(const char *path, uint64_t *out, struct err *err) {
    struct container *c;
    CHECK(container_open(path, &c, err));
    *out = hash_of(c);
    enum status st = container_intact(c, err);
    container_close(c);
    return st;
}

void model_close(struct model *m) {
    if (!m)
        return;
    if (m->text)
        text_close(m->text);
    container_close(m->priv);
    model_free_layers(m);
    model_info_release(&m->info);
    free(m);
}
