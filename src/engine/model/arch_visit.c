/*
 * arch_visit.c - walks the tensors of an architecture, and finds the place of each in struct
 * model. See arch.h.
 *
 * A row of the table stands for one tensor of the model, one of every layer, or one of every
 * expert of every layer. Rows whose sizes are zero in this model (no learned positions, no
 * shared expert) are left out, and so are those of the other kind of feed-forward.
 */
#include "engine/model/arch.h"

#include <stdio.h>
#include <stdlib.h>

static bool applies(const struct arch_tensor *t, const struct hparams *hp, int layer) {
    if (arch_dim(t->n, hp) == 0 || arch_dim(t->k, hp) == 0)
        return false;
    if (layer < 0)
        return true;
    bool experts = hp->layer[layer] & LAYER_EXPERTS;
    return !(t->flags & (experts ? T_DENSE : T_SPARSE));
}

static enum status visit_row(const struct arch_tensor *t, const struct hparams *hp, int layer,
                             arch_visit_fn *visit, void *user, struct err *err) {
    struct arch_slot s = {.t = t, .layer = layer, .expert = -1};
    char prefix[24] = "";
    if (!applies(t, hp, layer))
        return ST_OK;
    if (layer >= 0)
        snprintf(prefix, sizeof prefix, "blk.%d.", layer);
    if (t->kind != TENSOR_EXPERTS) {
        snprintf(s.name, sizeof s.name, "%s%s", prefix, t->name);
        return visit(user, &s, err);
    }
    for (s.expert = 0; s.expert < hp->n_expert; s.expert++) {
        snprintf(s.name, sizeof s.name, "%s%s.%d", prefix, t->name, s.expert);
        CHECK(visit(user, &s, err));
    }
    return ST_OK;
}

enum status arch_visit(const struct arch *a, const struct hparams *hp, arch_visit_fn *visit,
                       void *user, struct err *err) {
    for (const struct arch_tensor *t = a->model; t->name; t++)
        CHECK(visit_row(t, hp, -1, visit, user, err));
    for (int l = 0; l < hp->n_layer; l++)
        for (const struct arch_tensor *t = a->layer; t->name; t++)
            CHECK(visit_row(t, hp, l, visit, user, err));
    return ST_OK;
}

void model_alloc_layers(struct model *m) {
    m->layers = xcalloc((size_t)m->hp.n_layer + 1, sizeof *m->layers);
    for (int i = 0; i < m->hp.n_layer; i++) {
        struct layer *l = &m->layers[i];
        if (!(m->hp.layer[i] & LAYER_EXPERTS))
            continue;
        size_t n = (size_t)m->hp.n_expert;
        l->gate_exp = xcalloc(3 * n, sizeof *l->gate_exp);
        l->up_exp = l->gate_exp + n;
        l->down_exp = l->up_exp + n;
    }
}

void model_free_layers(struct model *m) {
    for (int i = 0; m->layers && i < m->hp.n_layer; i++)
        free(m->layers[i].gate_exp); /* and the others behind it */
    free(m->layers);
    m->layers = NULL;
}

void *arch_field(struct model *m, const struct arch_slot *s) {
    char *base = s->layer < 0 ? (char *)m : (char *)&m->layers[s->layer];
    void *field = base + s->t->field;
    if (s->t->kind == TENSOR_EXPERTS)
        return *(struct linear **)field + s->expert;
    return field;
}
