/*
 * source_gguf.c - a GGUF file, or all parts of a split one, as a source. See source.h.
 *
 * The reader (gguf.c) has checked the files; here a tensor becomes a matrix: GGUF's fastest
 * dimension is the columns, the next the rows, a third one the experts of a stack.
 */
#include "base/sha256.h"
#include "base/utf8.h"
#include "engine/model/source.h"
#include "engine/quant/ggml_types.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct found {
    struct found *next;
    char name[80];
    struct source_tensor t;
};

struct gguf_source {
    struct gguf_set *set;
    const struct gguf *g;  /* the part with the metadata */
    bool **used;           /* [files][tensors] */
    struct found *found;   /* what find() gave out */
    char *title, *license; /* "" when there is none */
};

static struct gguf_source *of(const struct source *s) {
    return s->priv;
}

static void gguf_source_close(struct source *s) {
    struct gguf_source *p = of(s);
    for (size_t i = 0; p->used && i < gguf_set_n_files(p->set); i++)
        free(p->used[i]);
    for (struct found *f = p->found, *next; f; f = next) {
        next = f->next;
        free(f);
    }
    free(p->used);
    free(p->title);
    free(p->license);
    gguf_set_close(p->set);
    free(p);
}

static size_t file_number(const struct gguf_source *p, const struct gguf *g) {
    size_t i = 0;
    while (gguf_set_file(p->set, i) != g)
        i++;
    return i;
}

static enum status gguf_source_find(struct source *s, const char *name,
                                    const struct source_tensor **out, struct err *err) {
    struct gguf_source *p = of(s);
    const struct gguf *in = NULL;
    const struct gguf_tensor *gt = gguf_set_find(p->set, name, &in);
    if (!gt)
        return ST_OK;
    p->used[file_number(p, in)][gt - gguf_tensor(in, 0)] = true;
    struct found *f = xcalloc(1, sizeof *f);
    f->next = p->found;
    p->found = f;
    snprintf(f->name, sizeof f->name, "%s", name);
    f->t = (struct source_tensor){.name = f->name,
                                  .E = gt->ne[2],
                                  .N = gt->ne[1],
                                  .K = gt->ne[0],
                                  .n_bytes = gt->n_bytes,
                                  .data = gt->data,
                                  .dtype = gt->type};
    if (gt->ne[3] != 1)
        return err_set(err, ST_FORMAT, "%s: tensor %s has four dimensions", gguf_name(in),
                       name);
    if (!tensor_format_ggml(&f->t))
        return err_set(err, ST_UNSUPPORTED,
                       "%s: tensor %s has type %s, which is not supported; supported: %s",
                       gguf_name(in), name, ggml_type_row(gt->type)->name,
                       ggml_types_supported());
    f->t.quantised = ggml_type_row(gt->type)->block_elems > 1;
    *out = &f->t;
    return ST_OK;
}

static enum status gguf_source_all_used(struct source *s, struct err *err) {
    struct gguf_source *p = of(s);
    for (size_t i = 0; i < gguf_set_n_files(p->set); i++) {
        const struct gguf *g = gguf_set_file(p->set, i);
        for (uint64_t t = 0; t < gguf_n_tensors(g); t++) {
            struct gguf_str name = gguf_tensor(g, t)->name;
            if (!p->used[i][t])
                return err_set(err, ST_UNSUPPORTED,
                               "%s: tensor %.*s: it is not supported for %s models",
                               gguf_name(g), (int)name.len, name.p, s->arch->name);
        }
    }
    return ST_OK;
}

static const char *gguf_source_text(const struct source *s, const char *what) {
    const struct gguf_source *p = of(s);
    const char *text = strcmp(what, "title") == 0     ? p->title
                       : strcmp(what, "license") == 0 ? p->license
                                                      : NULL;
    return text && *text ? text : NULL;
}

static enum status gguf_source_vocab(struct source *s, struct vocab_data *out,
                                     struct err *err) {
    return vocab_from_gguf(out, of(s)->g, err);
}

static void gguf_source_hash(const struct source *s, char hex[65], const _Atomic bool *stop) {
    struct gguf_source *p = of(s);
    struct sha256 sum;
    sha256_init(&sum);
    for (size_t i = 0; i < gguf_set_n_files(p->set); i++) {
        struct file_map map = gguf_map(gguf_set_file(p->set, i));
        for (size_t at = 0; at < map.len && !atomic_load(stop);) {
            size_t n = map.len - at < 1 << 20 ? map.len - at : 1 << 20;
            sha256_add(&sum, map.p + at, n);
            at += n;
        }
    }
    sha256_hex(&sum, hex);
}

static enum status gguf_source_intact(const struct source *s, bool at_end, struct err *err) {
    const struct gguf_set *set = of(s)->set;
    for (size_t i = 0; i < gguf_set_n_files(set); i++) {
        const struct gguf *g = gguf_set_file(set, i);
        CHECK(at_end ? file_map_unchanged(gguf_map(g), gguf_name(g), err)
                     : file_map_intact(gguf_map(g), gguf_name(g), err));
    }
    return ST_OK;
}

static const struct source_ops gguf_ops = {
    .close = gguf_source_close,
    .find = gguf_source_find,
    .all_used = gguf_source_all_used,
    .text = gguf_source_text,
    .vocab = gguf_source_vocab,
    .hash = gguf_source_hash,
    .intact = gguf_source_intact,
};

/* A text of the general metadata; "" when it is missing, no string, or absurdly long. */
static char *text_of(const struct gguf *g, const char *key) {
    struct gguf_str s = {"", 0};
    struct buf clean = {0};
    if (gguf_get_str(g, key, false, &s, NULL) == ST_OK && s.len <= 4096)
        utf8_scrub(&clean, s.p, s.len);
    char *text = xstrdup(buf_str(&clean));
    buf_release(&clean);
    return text;
}

static enum status open_arch(struct source *s, const struct gguf *g, struct err *err) {
    struct gguf_str arch = {"", 0};
    CHECK(gguf_get_str(g, "general.architecture", true, &arch, err));
    char *name = xstrndup(arch.p, arch.len);
    enum status st = arch_find(name, gguf_name(g), &s->arch, err);
    free(name);
    CHECK(st);
    s->interleaved = s->arch->gguf_interleaved;
    return arch_from_gguf(s->arch, g, &s->hp, err);
}

enum status source_open_gguf(const char *path, struct source *s, struct err *err) {
    struct gguf_set *set;
    CHECK(gguf_set_open(path, &set, err));
    struct gguf_source *p = s->priv = xcalloc(1, sizeof *p);
    s->ops = &gguf_ops; /* from here on source_close() frees */
    s->is_gguf = true;
    p->set = set;
    p->g = gguf_set_main(set);
    s->file = gguf_name(p->g);
    p->used = xcalloc(gguf_set_n_files(set), sizeof *p->used);
    for (size_t i = 0; i < gguf_set_n_files(set); i++) {
        const struct gguf *g = gguf_set_file(set, i);
        p->used[i] = xcalloc((size_t)gguf_n_tensors(g) + 1, sizeof **p->used);
        s->file_bytes += gguf_map(g).len;
    }
    CHECK(open_arch(s, p->g, err));
    p->title = text_of(p->g, "general.name");
    p->license = text_of(p->g, "general.license");
    return ST_OK;
}
