/*
 * hf_templates.c - see hf_templates.h.
 *
 * Files come before keys, as in transformers: who saves a folder today writes files, and keys
 * beside them are left over from before. The two are never mixed, since a named template of
 * the one and a default of the other were not written for each other.
 *
 * The folder is read in the order of names, so that what is stored does not depend on the file
 * system.
 */
#include "engine/text/hf_templates.h"
#include "base/path.h"
#include "engine/model/hf_json.h"
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_BYTES = 64 << 20, MAX_FILES = 4096 };

struct found {
    struct vocab_data *v;
    struct strlist names, texts;
    bool any;
};

static enum status add(struct found *f, const char *where, const char *name, const char *text,
                       size_t len, struct err *err) {
    f->any = true;
    return vocab_add_template(f->v, &f->names, &f->texts, where, name, text, len, err);
}

/* DIR/FILE as the template NAME; a file that is not there is passed over. */
static enum status add_file(struct found *f, const char *dir, const char *file,
                            const char *name, struct err *err) {
    char *path = path_join(dir, file);
    struct buf text = {0};
    struct err why = {0};
    enum status st = file_read(path, VOCAB_TEMPLATE_BYTES, &text, &why);
    if (st == ST_OK)
        st = add(f, file, name, buf_str(&text), text.len, err);
    else if (st == ST_NOT_FOUND)
        st = ST_OK;
    else
        st = err_set(err, st, "%s", why.msg);
    buf_release(&text);
    free(path);
    return st;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names NAME of all NAME.jinja in dir. */
static enum status list_folder(const char *dir, struct strlist *out, struct err *err) {
    static const char ext[] = ".jinja";
    DIR *d = opendir(dir);
    if (!d)
        return errno == ENOENT || errno == ENOTDIR
                   ? ST_OK
                   : err_set(err, ST_IO, "%s: %s", dir, strerror(errno));
    int n_files = 0;
    for (struct dirent *e; (e = readdir(d)) && n_files <= MAX_FILES; n_files++) {
        size_t n = strlen(e->d_name), n_ext = sizeof ext - 1;
        if (n > n_ext && e->d_name[0] != '.' && !strcmp(e->d_name + n - n_ext, ext))
            strlist_addn(out, e->d_name, n - n_ext);
    }
    closedir(d);
    if (n_files > MAX_FILES)
        return err_set(err, ST_LIMIT, "%s: more than %d files", dir, MAX_FILES);
    if (out->n)
        qsort(out->v, out->n, sizeof *out->v, by_name);
    return ST_OK;
}

static enum status from_files(struct found *f, const char *dir, struct err *err) {
    char *more = path_join(dir, "additional_chat_templates");
    struct strlist names = {0};
    enum status st;
    TRY(add_file(f, dir, "chat_template.jinja", "default", err));
    TRY(list_folder(more, &names, err));
    for (size_t i = 0; i < names.n; i++) {
        struct buf file = {0};
        buf_addf(&file, "%s.jinja", names.v[i]);
        st = add_file(f, more, file.p, names.v[i], err);
        buf_release(&file);
        if (st != ST_OK)
            goto out;
    }
out:
    strlist_release(&names);
    free(more);
    return st;
}

static enum status add_json(struct found *f, const char *file, const char *name,
                            const json_t *text, struct err *err) {
    if (!json_is_string(text))
        return err_set(err, ST_FORMAT, "%s: chat template %s is no text", file, name);
    return add(f, file, name, json_string_value(text), json_string_length(text), err);
}

/* One {"name", "template"} of a list. */
static enum status add_item(struct found *f, const char *file, const json_t *item,
                            struct err *err) {
    const char *name = json_string_value(json_object_get(item, "name"));
    if (!name)
        return err_set(err, ST_FORMAT,
                       "%s: chat_template: an item without a name, wanted \"name\" and "
                       "\"template\"",
                       file);
    return add_json(f, file, name, json_object_get(item, "template"), err);
}

static enum status from_key(struct found *f, const char *dir, const char *file,
                            struct err *err) {
    struct hf_json j;
    enum status st = ST_OK;
    CHECK(hf_json_load(dir, file, false, CONFIG_BYTES, &j, err));
    json_t *t = hf_get(&j, "chat_template"), *item;
    const char *name;
    size_t i;
    if (json_is_array(t)) {
        json_array_foreach(t, i, item) TRY(add_item(f, file, item, err));
    } else if (json_is_object(t)) {
        json_object_foreach(t, name, item) TRY(add_json(f, file, name, item, err));
    } else if (t) {
        st = add_json(f, file, "default", t, err);
    }
out:
    hf_json_release(&j);
    return st;
}

/* What the choice of a built-in template looks at. */
static enum status names(struct vocab_data *v, const char *dir, struct err *err) {
    struct hf_json j;
    CHECK(hf_json_load(dir, "config.json", false, CONFIG_BYTES, &j, err));
    const char *arch = "";
    enum status st = hf_str(&j, "model_type", false, &arch, err);
    if (st == ST_OK && !*v->arch)
        v->arch = vocab_own(v, xstrdup(arch));
    hf_json_release(&j);
    CHECK(st);
    if (*v->name)
        return ST_OK;
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/')
        n--;
    char *clean = xstrndup(dir, n);
    v->name = vocab_own(v, xstrdup(path_base(clean)));
    free(clean);
    return ST_OK;
}

enum status hf_templates(struct vocab_data *v, const char *dir, struct err *err) {
    struct found f = {.v = v};
    enum status st;
    TRY(names(v, dir, err));
    TRY(from_files(&f, dir, err));
    if (!f.any)
        TRY(from_key(&f, dir, "tokenizer_config.json", err));
    if (!f.any)
        TRY(from_key(&f, dir, "chat_template.json", err));
    vocab_own_strings(v, &v->template_names, &f.names);
    vocab_own_strings(v, &v->template_texts, &f.texts);
out:
    strlist_release(&f.names);
    strlist_release(&f.texts);
    return st;
}
