/*
 * derive.c - a model from another one of ours: the same weights and vocabulary with another
 * system prompt, other suggested settings, another template.
 *
 * A model file is never changed in place (others may have it mapped), so this is a copy with
 * another header.
 */
#include "base/clock.h"
#include "base/path.h"
#include "engine/model/model_file.h"
#include "engine/model/vocab_store.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

char *settings_merge(const char *base, const char *over) {
    json_t *all = json_loads(base ? base : "", 0, NULL);
    json_t *more = json_loads(over ? over : "", 0, NULL);
    if (!json_is_object(all)) {
        json_decref(all);
        all = json_object();
    }
    if (json_is_object(more))
        json_object_update(all, more);
    char *text = json_object_size(all) ? json_dumps(all, JSON_COMPACT | JSON_REAL_PRECISION(10))
                                       : xstrdup("");
    json_decref(more);
    json_decref(all);
    return text;
}

void model_meta_overrides(struct container_writer *w, const struct create_params *p,
                          const char *source_settings) {
    char *settings = settings_merge(source_settings, p->settings);
    if (*settings)
        container_writer_meta(w, "settings", settings);
    if (p->system)
        container_writer_meta(w, "system", p->system);
    if (p->license)
        container_writer_meta(w, "license", p->license);
    free(settings);
}

void model_meta_created(struct container_writer *w) {
    char when[32];
    struct tm tm;
    time_t now = (time_t)(clock_unix_ms() / 1000);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    container_writer_meta(w, "created", when);
}

static void copy_meta(void *user, const char *key, const char *value) {
    container_writer_meta(user, key, value);
}

/* A template that a person gives replaces all that the model had: one for tools would else be
 * used instead where there are tools. */
static bool is_copied(const struct ctensor *t, const struct create_params *p) {
    return !p->chat_template || !vocab_is_template(t->name);
}

static enum status copy_tensors(struct container_writer *w, const struct container *c,
                                const struct create_params *p, struct err *err) {
    uint64_t done = 0, total = container_bytes(c);
    for (size_t i = 0; i < container_n_tensors(c); i++) {
        const struct ctensor *t = container_tensor(c, i);
        if (!is_copied(t, p))
            continue;
        for (uint64_t at = 0; at < t->n_bytes; at += 1 << 22) {
            uint64_t n = t->n_bytes - at < 1 << 22 ? t->n_bytes - at : 1 << 22;
            enum status st = container_writer_put(w, t->data + at, (size_t)n, err);
            if (st != ST_OK) /* the better reason where a cut file failed the write */
                CHECK(file_map_unchanged(container_map(c), container_name(c), err));
            CHECK(st);
            done += n;
            if (p->progress && !p->progress(p->user, "copying", done, total))
                return err_set(err, ST_CANCELLED, "cancelled");
        }
        CHECK(container_writer_end_tensor(w, err));
    }
    return ST_OK;
}

enum status model_derive(const struct create_params *p, const char *from, const char *to,
                         struct err *err) {
    struct container *c = NULL;
    struct container_writer *w = NULL;
    struct hparams hp;
    struct model_info info = {0};
    enum status st;
    if (p->quant != QUANT_N || p->head_quant != QUANT_N)
        return err_set(err, ST_USAGE,
                       "%s: a model already; its weights stay as they are (make it again from "
                       "its source for another --quant)",
                       path_base(from));
    TRY(container_open(from, &c, err));
    TRY(model_meta_read(c, from, &hp, &info, err));
    w = container_writer_new();
    container_meta_each(c, copy_meta, w);
    model_meta_overrides(w, p, info.settings);
    model_meta_created(w);
    if (p->chat_template)
        container_writer_meta(w, "chat_template", p->chat_template);
    for (size_t i = 0; i < container_n_tensors(c); i++) {
        const struct ctensor *t = container_tensor(c, i);
        if (is_copied(t, p))
            container_writer_declare(w, t->name, t->dtype, t->n_dims, t->shape);
    }
    TRY(container_writer_begin(w, to, err));
    if (!p->replace)
        container_writer_keep(w);
    TRY(copy_tensors(w, c, p, err));
    TRY(file_map_unchanged(container_map(c), container_name(c), err));
    TRY(container_writer_commit(w, err));
out:
    container_writer_free(w);
    model_info_release(&info);
    container_close(c);
    return st;
}
