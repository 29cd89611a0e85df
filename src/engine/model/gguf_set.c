/*
 * gguf_set.c - the files of a split model as one. See gguf.h.
 *
 * The first part says in split.count how many there are; the others' names follow from its own,
 * PREFIX-00001-of-0000N.gguf, and each part says its place in split.no, from 0. Nothing is
 * looked for in the folder: a part is where its name says or it is missing. Tensors of all
 * parts are sorted by name once, which finds those that occur twice and makes look-up a binary
 * search.
 *
 * Looking for a tensor in one part after the other was rejected: a hostile set of thousands of
 * files would make each look-up as long as the set.
 */
#include "base/mem.h"
#include "engine/model/gguf.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_PARTS = 1000, /* the largest published models have a few hundred */
    SUFFIX = 20,      /* length of "-00001-of-00005.gguf" */
};

struct entry {
    const struct gguf_tensor *tensor;
    const struct gguf *file;
};

struct gguf_set {
    struct gguf **file; /* [n] */
    size_t n;
    struct entry *by_name; /* [n_tensors] sorted */
    size_t n_tensors;
};

static int entry_cmp(const void *a, const void *b) {
    const struct gguf_str *x = &((const struct entry *)a)->tensor->name;
    const struct gguf_str *y = &((const struct entry *)b)->tensor->name;
    int c = memcmp(x->p, y->p, x->len < y->len ? x->len : y->len);
    return c ? c : (x->len > y->len) - (x->len < y->len);
}

/* Where a part stands in its split; a file that is not split is part 0 of 1. */
static enum status read_place(const struct gguf *g, uint64_t *no, uint64_t *count,
                              struct err *err) {
    *no = 0;
    *count = 1;
    CHECK(gguf_get_u64(g, "split.no", false, no, err));
    CHECK(gguf_get_u64(g, "split.count", false, count, err));
    if (*count == 0) /* written by some tools into files that are not split */
        *count = 1;
    if (*count > MAX_PARTS)
        return err_set(err, ST_LIMIT, "%s: split into %" PRIu64 " files, wanted at most %d",
                       gguf_name(g), *count, MAX_PARTS);
    if (*no >= *count)
        return err_set(err, ST_FORMAT, "%s: split.no is %" PRIu64 ", wanted less than %" PRIu64,
                       gguf_name(g), *no, *count);
    return ST_OK;
}

/* "-00002-of-00005.gguf", number from 0 */
static void part_suffix(char out[SUFFIX + 1], uint64_t no, uint64_t count) {
    snprintf(out, SUFFIX + 1, "-%05u-of-%05u.gguf", (unsigned)(no + 1) % 100000,
             (unsigned)count % 100000);
}

/* The first file is open; is it the first part, and is its name one that leads to the others?
 */
static enum status check_first(const struct gguf *g, const char *path, uint64_t no,
                               uint64_t count, struct err *err) {
    char suffix[SUFFIX + 1];
    part_suffix(suffix, 0, count);
    if (no != 0)
        return err_set(err, ST_FORMAT,
                       "%s is part %" PRIu64 " of %" PRIu64 "; open the first, …%s",
                       gguf_name(g), no + 1, count, suffix);
    size_t len = strlen(path);
    if (len < SUFFIX || strcmp(path + len - SUFFIX, suffix) != 0)
        return err_set(err, ST_FORMAT,
                       "%s: the first of %" PRIu64 " files; its name must end in %s, or the "
                       "others can't be found",
                       gguf_name(g), count, suffix);
    return ST_OK;
}

static enum status open_part(struct gguf_set *s, const char *first, uint64_t no, uint64_t count,
                             struct err *err) {
    char suffix[SUFFIX + 1];
    uint64_t its_no, its_count;
    part_suffix(suffix, no, count);
    char *path = xasprintf("%.*s%s", (int)(strlen(first) - SUFFIX), first, suffix);
    enum status st = gguf_open(path, &s->file[no], err);
    if (st == ST_NOT_FOUND)
        err_set(err, ST_NOT_FOUND, "%s: part %" PRIu64 " of %" PRIu64 " is missing", path,
                no + 1, count);
    free(path);
    CHECK(st);
    s->n = (size_t)no + 1;
    const struct gguf *g = s->file[no];
    CHECK(read_place(g, &its_no, &its_count, err));
    if (its_no != no || its_count != count)
        return err_set(err, ST_FORMAT,
                       "%s: says it is part %" PRIu64 " of %" PRIu64 ", wanted part %" PRIu64
                       " of %" PRIu64,
                       gguf_name(g), its_no + 1, its_count, no + 1, count);
    return ST_OK;
}

static enum status index_all(struct gguf_set *s, struct err *err) {
    for (size_t i = 0; i < s->n; i++)
        s->n_tensors += (size_t)gguf_n_tensors(s->file[i]);
    uint64_t wanted = s->n_tensors;
    CHECK(gguf_get_u64(s->file[0], "split.tensors.count", false, &wanted, err));
    if (s->n > 1 && wanted != s->n_tensors)
        return err_set(err, ST_FORMAT,
                       "%s: the %zu files have %zu tensors, split.tensors.count is %" PRIu64,
                       gguf_name(s->file[0]), s->n, s->n_tensors, wanted);
    s->by_name = xreallocarray(NULL, s->n_tensors, sizeof *s->by_name);
    struct entry *e = s->by_name;
    for (size_t i = 0; i < s->n; i++)
        for (uint64_t t = 0; t < gguf_n_tensors(s->file[i]); t++)
            *e++ = (struct entry){gguf_tensor(s->file[i], t), s->file[i]};
    qsort(s->by_name, s->n_tensors, sizeof *s->by_name, entry_cmp);
    for (size_t i = 1; i < s->n_tensors; i++) {
        const struct entry *a = &s->by_name[i - 1], *b = &s->by_name[i];
        if (entry_cmp(a, b) == 0)
            return err_set(err, ST_FORMAT, "%s: tensor %.*s is in %s, too", gguf_name(a->file),
                           GGUF_SHOW(a->tensor->name), gguf_name(b->file));
    }
    return ST_OK;
}

static enum status open_all(struct gguf_set *s, const char *path, struct err *err) {
    uint64_t no, count;
    s->file = xcalloc(1, sizeof(struct gguf *));
    CHECK(gguf_open(path, &s->file[0], err));
    s->n = 1;
    CHECK(read_place(s->file[0], &no, &count, err));
    if (count > 1) {
        CHECK(check_first(s->file[0], path, no, count, err));
        s->file = xreallocarray(s->file, (size_t)count, sizeof *s->file);
        for (uint64_t i = 1; i < count; i++)
            CHECK(open_part(s, path, i, count, err));
    }
    return index_all(s, err);
}

enum status gguf_set_open(const char *path, struct gguf_set **out, struct err *err) {
    struct gguf_set *s = xcalloc(1, sizeof *s);
    enum status st = open_all(s, path, err);
    if (st == ST_OK) {
        gguf_join(s->file[0], s);
        *out = s;
    } else {
        gguf_set_close(s);
    }
    return st;
}

void gguf_set_close(struct gguf_set *s) {
    if (!s)
        return;
    free(s->by_name);
    for (size_t i = 0; i < s->n; i++)
        gguf_close(s->file[i]);
    free(s->file);
    free(s);
}

const struct gguf *gguf_set_main(const struct gguf_set *s) {
    return s->file[0];
}

size_t gguf_set_n_files(const struct gguf_set *s) {
    return s->n;
}

const struct gguf *gguf_set_file(const struct gguf_set *s, size_t i) {
    assert(i < s->n);
    return s->file[i];
}

const struct gguf_tensor *gguf_set_find(const struct gguf_set *s, const char *name,
                                        const struct gguf **in_file) {
    struct gguf_tensor want = {.name = {name, strlen(name)}};
    struct entry key = {&want, NULL};
    const struct entry *hit =
        bsearch(&key, s->by_name, s->n_tensors, sizeof *s->by_name, entry_cmp);
    if (hit && in_file)
        *in_file = hit->file;
    return hit ? hit->tensor : NULL;
}
