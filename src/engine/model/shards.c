/*
 * shards.c - the safetensors files of a Hugging Face folder as one set of tensors. See
 * shards.h.
 *
 * Each file is a container of its own, mapped and checked by container.c; here they are put in
 * one list sorted by name. What the index says must be so in the files. The other way round, a
 * tensor of a shard that the index does not list is part of the set, as it is for transformers,
 * which loads whatever the shards hold.
 *
 * Files are in order of their names, whatever the order in the index is. A file name from the
 * index is one name in the folder: with a slash, or "..", it could point anywhere.
 *
 * Everything but the marks is immutable after opening; the marks belong to one thread.
 */
#include "engine/model/shards.h"
#include "base/path.h"

#include "engine/model/hf_json.h"
#include <assert.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INDEX  "model.safetensors.index.json"
#define SINGLE "model.safetensors"

enum { MAX_FILES = 4096 };
static const size_t max_index_bytes = 32u << 20;

struct entry {
    const struct ctensor *t;
    size_t file;
    bool used;
};

struct shards {
    struct container **files; /* [n_files] by name */
    size_t n_files;
    struct entry *v; /* [n] by name */
    size_t n;
};

static int text_cmp(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool has_ending(const char *s, const char *ending) {
    size_t n = strlen(s), m = strlen(ending);
    return n >= m && strcmp(s + n - m, ending) == 0;
}

static bool in_folder(const char *dir, const char *name) {
    char *path = path_join(dir, name);
    bool is = access(path, F_OK) == 0;
    free(path);
    return is;
}

/* The names of all *.safetensors files, and whether there is a checkpoint of PyTorch's own. */
static enum status list_folder(const char *dir, struct strlist *files, bool *pickle,
                               struct err *err) {
    DIR *d = opendir(dir);
    if (!d)
        return err_set(err, ST_NOT_FOUND, "%s: can't read this folder", dir);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        if (has_ending(e->d_name, ".safetensors") && files->n < MAX_FILES)
            strlist_add(files, e->d_name);
        *pickle |= has_ending(e->d_name, ".bin") || has_ending(e->d_name, ".bin.index.json") ||
                   has_ending(e->d_name, ".pt") || has_ending(e->d_name, ".pth");
    }
    closedir(d);
    if (files->n)
        qsort(files->v, files->n, sizeof *files->v, text_cmp);
    return ST_OK;
}

/* The one file of a folder without an index. */
static enum status only_file(const char *dir, struct strlist *files, struct err *err) {
    struct strlist found = {0};
    bool pickle = false;
    enum status st = list_folder(dir, &found, &pickle, err);
    if (st == ST_OK && found.n == 1)
        strlist_add(files, found.v[0]);
    else if (st == ST_OK && found.n > 1)
        st =
            err_set(err, ST_FORMAT, "%s: has %zu files *.safetensors, %s among them, and no %s",
                    dir, found.n, found.v[0], INDEX);
    else if (st == ST_OK && pickle)
        st = err_set(err, ST_UNSUPPORTED,
                     "%s: has its weights as pickle files only (pytorch_model.bin), which are "
                     "programs and are not run; wanted %s (save_pretrained() writes it)",
                     dir, SINGLE);
    else if (st == ST_OK)
        st = err_set(err, ST_NOT_FOUND, "%s: has neither %s nor %s", dir, SINGLE, INDEX);
    strlist_release(&found);
    return st;
}

/* The names of the files that the index lists, each once. */
static enum status index_files(const struct hf_json *map, struct strlist *files,
                               struct err *err) {
    const char *tensor;
    json_t *value;
    const char **v = xcalloc(json_object_size(map->root), sizeof *v);
    size_t n = 0;
    enum status st = ST_OK;
    json_object_foreach(map->root, tensor, value) {
        const char *s = json_string_value(value);
        if (!s || strlen(s) != json_string_length(value) || strchr(s, '/') || s[0] == '.' ||
            !has_ending(s, ".safetensors")) {
            st = err_set(err, ST_FORMAT,
                         "%s: tensor %s is in %.100s, wanted the name of a file "
                         "*.safetensors in this folder",
                         map->file, tensor, s ? s : "no text");
            break;
        }
        v[n++] = s;
    }
    qsort(v, n, sizeof *v, text_cmp);
    for (size_t i = 0; st == ST_OK && i < n; i++) {
        if (i && strcmp(v[i], v[i - 1]) == 0)
            continue;
        if (files->n == MAX_FILES)
            st = err_set(err, ST_LIMIT, "%s: more than %d files", map->file, MAX_FILES);
        else
            strlist_add(files, v[i]);
    }
    free(v);
    return st;
}

static enum status open_files(struct shards *s, const char *dir, const struct strlist *files,
                              bool from_index, struct err *err) {
    s->files = xcalloc(files->n, sizeof(struct container *));
    for (size_t i = 0; i < files->n; i++) {
        char *path = path_join(dir, files->v[i]);
        enum status st = container_open(path, &s->files[i], err);
        free(path);
        if (st == ST_NOT_FOUND && from_index)
            return err_set(err, st, "%s: lists %s, which is not in %s", INDEX, files->v[i],
                           dir);
        CHECK(st);
        s->n_files++;
    }
    return ST_OK;
}

static int entry_cmp(const void *a, const void *b) {
    return strcmp(((const struct entry *)a)->t->name, ((const struct entry *)b)->t->name);
}

static enum status join(struct shards *s, struct err *err) {
    size_t n = 0;
    for (size_t f = 0; f < s->n_files; f++)
        n += container_n_tensors(s->files[f]);
    s->v = xreallocarray(NULL, n, sizeof *s->v);
    for (size_t f = 0; f < s->n_files; f++)
        for (size_t i = 0; i < container_n_tensors(s->files[f]); i++)
            s->v[s->n++] = (struct entry){container_tensor(s->files[f], i), f, false};
    qsort(s->v, s->n, sizeof *s->v, entry_cmp);
    for (size_t i = 1; i < s->n; i++)
        if (strcmp(s->v[i].t->name, s->v[i - 1].t->name) == 0)
            return err_set(err, ST_FORMAT, "tensor %s is in %s and in %s", s->v[i].t->name,
                           container_name(s->files[s->v[i - 1].file]),
                           container_name(s->files[s->v[i].file]));
    return ST_OK;
}

static struct entry *find(const struct shards *s, const char *name) {
    struct ctensor t = {.name = name};
    struct entry want = {.t = &t};
    return s->n ? bsearch(&want, s->v, s->n, sizeof *s->v, entry_cmp) : NULL;
}

static enum status check_index(const struct shards *s, const struct hf_json *map,
                               struct err *err) {
    const char *tensor;
    json_t *value;
    json_object_foreach(map->root, tensor, value) {
        const struct entry *e = find(s, tensor);
        const char *wanted = json_string_value(value);
        if (!e)
            return err_set(err, ST_FORMAT, "%s: tensor %s is not in %s", map->file, tensor,
                           wanted);
        if (strcmp(container_name(s->files[e->file]), wanted) != 0)
            return err_set(err, ST_FORMAT, "%s: tensor %s is in %s, wanted in %s", map->file,
                           tensor, container_name(s->files[e->file]), wanted);
    }
    return ST_OK;
}

static enum status open_all(struct shards *s, const char *dir, struct strlist *files,
                            struct hf_json *index, struct err *err) {
    struct hf_json map = {0};
    if (in_folder(dir, SINGLE))
        strlist_add(files, SINGLE);
    else
        CHECK(hf_json_load(dir, INDEX, false, max_index_bytes, index, err));
    if (index->root) {
        CHECK(hf_child(index, "weight_map", &map, err));
        if (!json_object_size(map.root))
            return err_set(err, ST_FORMAT, "%s: weight_map is missing or empty", INDEX);
        CHECK(index_files(&map, files, err));
    } else if (!files->n) {
        CHECK(only_file(dir, files, err));
    }
    CHECK(open_files(s, dir, files, index->root != NULL, err));
    CHECK(join(s, err));
    return map.root ? check_index(s, &map, err) : ST_OK;
}

enum status shards_open(const char *dir, struct shards **out, struct err *err) {
    struct shards *s = xcalloc(1, sizeof *s);
    struct strlist files = {0};
    struct hf_json index = {0};
    enum status st = open_all(s, dir, &files, &index, err);
    hf_json_release(&index);
    strlist_release(&files);
    if (st == ST_OK)
        *out = s;
    else
        shards_close(s);
    return st;
}

void shards_close(struct shards *s) {
    if (!s)
        return;
    for (size_t i = 0; i < s->n_files; i++)
        container_close(s->files[i]);
    free(s->files);
    free(s->v);
    free(s);
}

const struct ctensor *shards_find(struct shards *s, const char *name) {
    struct entry *e = find(s, name);
    if (!e)
        return NULL;
    e->used = true;
    return e->t;
}

bool shards_has(const struct shards *s, const char *name) {
    return find(s, name) != NULL;
}

size_t shards_n(const struct shards *s) {
    return s->n;
}

const struct ctensor *shards_tensor(const struct shards *s, size_t i, bool *used) {
    assert(i < s->n);
    *used = s->v[i].used;
    return s->v[i].t;
}

const char *shards_file(const struct shards *s, const struct ctensor *t) {
    const struct entry *e = find(s, t->name);
    assert(e);
    return container_name(s->files[e->file]);
}

size_t shards_n_files(const struct shards *s) {
    return s->n_files;
}

enum status shards_intact(const struct shards *s, bool at_end, struct err *err) {
    for (size_t i = 0; i < s->n_files; i++) {
        const struct container *c = s->files[i];
        CHECK(at_end ? file_map_unchanged(container_map(c), container_name(c), err)
                     : container_intact(c, err));
    }
    return ST_OK;
}

struct file_map shards_map(const struct shards *s, size_t i) {
    assert(i < s->n_files);
    return container_map(s->files[i]);
}
