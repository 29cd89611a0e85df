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

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mapped {
    struct container *file;
    struct vocab_data vocab;
};

/* One row of the table: a weight or a vector into its place in base. */
static enum status bind_one(const struct container *c, const struct hparams *hp,
                            const enum quant quants[2], const struct arch_tensor *t,
                            const char *prefix, void *base, struct err *err) {
    char name[64], full[96];
    const struct ctensor *ct = NULL;
    uint64_t N = arch_dim(t->n, hp), K = arch_dim(t->k, hp);
    void *field = (char *)base + t->field;
    snprintf(name, sizeof name, "%s%s", prefix, t->name);
    snprintf(full, sizeof full, "%s.weight", name);
    if (t->optional && !container_find(c, full))
        return ST_OK;
    if (t->kind == TENSOR_VECTOR) {
        CHECK(container_need(c, full, DTYPE_F32, 1, &K, &ct, err));
        *(const float **)field = (const float *)(const void *)ct->data;
        return ST_OK;
    }
    enum quant q = quants[t->kind == TENSOR_HEAD];
    return weight_bind(field, c, name, quant_weight_type(q), (int)N, (int)K, err);
}

static enum status bind_all(struct model *m, const struct container *c, const struct arch *arch,
                            const enum quant quants[2], struct err *err) {
    char prefix[32];
    m->layers = xcalloc((size_t)m->hp.n_layer, sizeof *m->layers);
    for (const struct arch_tensor *t = arch->model; t->name; t++)
        CHECK(bind_one(c, &m->hp, quants, t, "", m, err));
    for (int l = 0; l < m->hp.n_layer; l++) {
        snprintf(prefix, sizeof prefix, "blk.%d.", l);
        for (const struct arch_tensor *t = arch->layer; t->name; t++)
            CHECK(bind_one(c, &m->hp, quants, t, prefix, &m->layers[l], err));
    }
    if (!m->head.data)
        m->head = m->embd; /* tied */
    return ST_OK;
}

static enum status open_text(struct model *m, struct mapped *p, struct err *err) {
    CHECK(vocab_from_container(&p->vocab, p->file, err));
    if (p->vocab.tokens.n != (uint32_t)m->hp.n_vocab)
        return err_set(err, ST_FORMAT, "%s: %u tokens, the embedding has %d rows",
                       container_name(p->file), p->vocab.tokens.n, m->hp.n_vocab);
    if (text_from_vocab(&p->vocab, &m->text, err) != ST_OK)
        return err_prefix(err, "%s", container_name(p->file));
    return ST_OK;
}

enum status model_open(const char *path, struct model **out, struct err *err) {
    struct model *m = xcalloc(1, sizeof *m);
    struct mapped *p = m->priv = xcalloc(1, sizeof *p);
    const struct arch *arch = NULL;
    enum quant quants[2];
    enum status st;
    TRY(container_open(path, &p->file, err));
    TRY(model_meta_read(p->file, path, &m->hp, quants, &m->info, err));
    TRY(arch_find(m->info.architecture, container_name(p->file), &arch, err));
    TRY(bind_all(m, p->file, arch, quants, err));
    TRY(open_text(m, p, err));
    *out = m;
    return ST_OK;
out:
    model_close(m);
    return st;
}

void model_close(struct model *m) {
    if (!m)
        return;
    struct mapped *p = m->priv;
    if (m->text)
        text_close(m->text);
    vocab_release(&p->vocab);
    container_close(p->file);
    free(p);
    free(m->layers);
    model_info_release(&m->info);
    free(m);
}
