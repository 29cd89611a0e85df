/*
 * container.c - reads a safetensors file. See container.h.
 *
 * The header is parsed by jansson (duplicate keys refused), then each entry is checked on its
 * own (known keys, dtype, shape, that the bytes equal the product of the sizes), and at last
 * all together: sorted by place they must begin at 0, follow each other without hole or overlap
 * and end with the file. That is what the format demands, and it makes a pointer into the
 * mapping safe without further checks.
 *
 * The header of a model of ours is about 100 KB, that of a checkpoint with 100,000 tensors (a
 * mixture of experts, quantised) 15 MB. jansson takes up to eighty times the size of what it
 * parses, so not only the size is bounded but, before it is parsed, how many objects and lists
 * there are and how deep: a hostile header takes at most 700 MB for a moment. Only
 * names and metadata are kept, since a set of shards has all its headers open at once.
 */
#include "engine/model/container.h"
#include "base/path.h"

#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TENSORS = 300000, MAX_DEPTH = 3 /* the object, a tensor, its shape */ };

struct container {
    char *name;
    struct file_map map;
    bool owns_map;
    json_t *meta;                   /* NULL when there is none */
    char *names;                    /* of all tensors, each with its NUL */
    struct ctensor *tensors;        /* [n] by place */
    const struct ctensor **by_name; /* [n] sorted */
    size_t n;
};

static const struct {
    const char *name;
    size_t bytes;
} dtypes[DTYPE_N] = {
    [DTYPE_BOOL] = {"BOOL", 1},       [DTYPE_U8] = {"U8", 1},
    [DTYPE_I8] = {"I8", 1},           [DTYPE_F8_E4M3] = {"F8_E4M3", 1},
    [DTYPE_F8_E5M2] = {"F8_E5M2", 1}, [DTYPE_F8_E8M0] = {"F8_E8M0", 1},
    [DTYPE_I16] = {"I16", 2},         [DTYPE_U16] = {"U16", 2},
    [DTYPE_F16] = {"F16", 2},         [DTYPE_BF16] = {"BF16", 2},
    [DTYPE_I32] = {"I32", 4},         [DTYPE_U32] = {"U32", 4},
    [DTYPE_F32] = {"F32", 4},         [DTYPE_F64] = {"F64", 8},
    [DTYPE_I64] = {"I64", 8},         [DTYPE_U64] = {"U64", 8},
};

const char *dtype_name(enum dtype t) {
    return dtypes[t].name;
}

size_t dtype_size(enum dtype t) {
    return dtypes[t].bytes;
}

static bool dtype_parse(const char *s, enum dtype *out) {
    for (int i = 0; i < DTYPE_N; i++)
        if (strcmp(s, dtypes[i].name) == 0) {
            *out = (enum dtype)i;
            return true;
        }
    return false;
}

/* A JSON integer of 0 or more. */
static bool get_size(const json_t *j, uint64_t *out) {
    if (!json_is_integer(j) || json_integer_value(j) < 0)
        return false;
    *out = (uint64_t)json_integer_value(j);
    return true;
}

static enum status read_shape(const struct container *c, struct ctensor *t, const json_t *shape,
                              struct err *err) {
    size_t n = json_array_size(shape);
    if (!json_is_array(shape) || n > CONTAINER_MAX_DIMS)
        return err_set(err, ST_FORMAT, "%s: tensor %s: shape is no list of at most %d sizes",
                       c->name, t->name, CONTAINER_MAX_DIMS);
    t->n_dims = (int)n;
    t->n_elem = 1;
    for (size_t d = 0; d < n; d++)
        if (!get_size(json_array_get(shape, d), &t->shape[d]) ||
            __builtin_mul_overflow(t->n_elem, t->shape[d], &t->n_elem))
            return err_set(err, ST_FORMAT, "%s: tensor %s: size %zu of its shape does not fit",
                           c->name, t->name, d);
    if (__builtin_mul_overflow(t->n_elem, (uint64_t)dtypes[t->dtype].bytes, &t->n_bytes))
        return err_set(err, ST_FORMAT, "%s: tensor %s: its shape does not fit", c->name,
                       t->name);
    return ST_OK;
}

/* One entry of the header; data_bytes is what follows the header. */
static enum status read_entry(const struct container *c, const unsigned char *data,
                              uint64_t data_bytes, struct ctensor *t, json_t *entry,
                              struct err *err) {
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    uint64_t begin, end;
    if (!json_is_object(entry) || json_object_size(entry) != 3 || !dtype)
        return err_set(err, ST_FORMAT, "%s: tensor %s: wanted dtype, shape and data_offsets",
                       c->name, t->name);
    if (!dtype_parse(dtype, &t->dtype))
        return err_set(err, ST_UNSUPPORTED, "%s: tensor %s: unknown dtype %s", c->name, t->name,
                       dtype);
    CHECK(read_shape(c, t, json_object_get(entry, "shape"), err));
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !get_size(json_array_get(offsets, 0), &begin) ||
        !get_size(json_array_get(offsets, 1), &end) || end < begin)
        return err_set(err, ST_FORMAT, "%s: tensor %s: data_offsets are not two rising numbers",
                       c->name, t->name);
    if (end > data_bytes) /* the commonest of all: a download that broke off */
        return err_set(err, ST_FORMAT,
                       "%s: tensor %s: ends at byte %" PRIu64
                       " of the data, the file has %" PRIu64 ": its end is missing",
                       c->name, t->name, end, data_bytes);
    if (end - begin != t->n_bytes)
        return err_set(err, ST_FORMAT,
                       "%s: tensor %s: has %" PRIu64 " bytes, its shape needs %" PRIu64,
                       c->name, t->name, end - begin, t->n_bytes);
    t->data = data + begin;
    return ST_OK;
}

static int place_cmp(const void *a, const void *b) {
    const struct ctensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

static int name_cmp(const void *a, const void *b) {
    return strcmp((*(const struct ctensor *const *)a)->name,
                  (*(const struct ctensor *const *)b)->name);
}

static enum status check_places(const struct container *c, const unsigned char *data,
                                const unsigned char *end, struct err *err) {
    const unsigned char *at = data;
    for (size_t i = 0; i < c->n; i++) {
        const struct ctensor *t = &c->tensors[i];
        if (t->data != at)
            return err_set(err, ST_FORMAT, "%s: tensor %s: begins at %zu, wanted %zu (%s)",
                           c->name, t->name, (size_t)(t->data - data), (size_t)(at - data),
                           t->data < at ? "tensors overlap" : "a hole before it");
        at += t->n_bytes;
    }
    if (at != end)
        return err_set(err, ST_FORMAT,
                       "%s: the tensors end at %zu, the file has %zu bytes of data", c->name,
                       (size_t)(at - data), (size_t)(end - data));
    return ST_OK;
}

static enum status read_meta(struct container *c, const json_t *root, struct err *err) {
    const char *key;
    json_t *value;
    c->meta = json_incref(json_object_get(root, "__metadata__"));
    if (c->meta && !json_is_object(c->meta))
        return err_set(err, ST_FORMAT, "%s: __metadata__ is no object", c->name);
    json_object_foreach(c->meta, key, value) {
        if (!json_is_string(value))
            return err_set(err, ST_FORMAT, "%s: __metadata__: %s is no string", c->name, key);
    }
    return ST_OK;
}

static bool is_padding(const struct ctensor *t) {
    return t->dtype == DTYPE_U8 && strncmp(t->name, "pad.", 4) == 0 && t->name[4] &&
           !t->name[4 + strspn(t->name + 4, "0123456789")];
}

static enum status read_tensors(struct container *c, json_t *root, size_t header_bytes,
                                struct err *err) {
    const unsigned char *data = c->map.p + 8 + header_bytes;
    const unsigned char *end = c->map.p + c->map.len;
    const char *key;
    json_t *value;
    c->tensors = xcalloc(json_object_size(root), sizeof *c->tensors);
    char *name = c->names = xmalloc(header_bytes); /* unescaped they are shorter */
    json_object_foreach(root, key, value) {
        if (value == c->meta)
            continue;
        struct ctensor *t = &c->tensors[c->n];
        size_t len = strlen(key) + 1;
        t->name = memcpy(name, key, len);
        name += len;
        CHECK(read_entry(c, data, (uint64_t)(end - data), t, value, err));
        c->n++;
    }
    qsort(c->tensors, c->n, sizeof *c->tensors, place_cmp);
    return check_places(c, data, end, err);
}

/* Leaves the padding out, and sorts. */
static void list_names(struct container *c) {
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++)
        if (!is_padding(&c->tensors[i]))
            c->tensors[n++] = c->tensors[i];
    c->n = n;
    c->by_name = xreallocarray(NULL, n, sizeof *c->by_name);
    for (size_t i = 0; i < n; i++)
        c->by_name[i] = &c->tensors[i];
    qsort(c->by_name, n, sizeof *c->by_name, name_cmp);
}

/* No more objects and lists than the most tensors have, and none inside a shape. */
static enum status check_extent(const struct container *c, size_t header_bytes,
                                struct err *err) {
    const char *p = (const char *)c->map.p + 8;
    size_t n = 0;
    long depth = 0;
    bool text = false;
    for (size_t i = 0; i < header_bytes; i++) {
        if (p[i] == '"') {
            text = !text;
        } else if (text) {
            i += p[i] == '\\';
        } else if (p[i] == '{' || p[i] == '[') {
            n++;
            depth++;
        } else if (p[i] == '}' || p[i] == ']') {
            depth--;
        }
        if (depth > MAX_DEPTH)
            return err_set(err, ST_FORMAT, "%s: header: nested more than %d deep", c->name,
                           MAX_DEPTH);
        if (n > 3 * (size_t)MAX_TENSORS)
            return err_set(err, ST_LIMIT, "%s: header: more than %d tensors", c->name,
                           MAX_TENSORS);
    }
    return ST_OK;
}

static enum status read_all(struct container *c, struct err *err) {
    json_error_t why;
    uint64_t header = 0;
    if (c->map.len < 8)
        return err_set(err, ST_FORMAT, "%s: %zu bytes, a safetensors file has at least 8",
                       c->name, c->map.len);
    for (int i = 7; i >= 0; i--)
        header = header << 8 | c->map.p[i];
    if (header > c->map.len - 8 || header > CONTAINER_MAX_HEADER)
        return err_set(
            err, ST_FORMAT,
            "%s: not a safetensors file: header of %" PRIu64 " bytes, wanted at most %zu",
            c->name, header,
            c->map.len - 8 < CONTAINER_MAX_HEADER ? c->map.len - 8 : CONTAINER_MAX_HEADER);
    if (header == 0 || c->map.p[8] != '{')
        return err_set(err, ST_FORMAT, "%s: not a safetensors file: header begins without '{'",
                       c->name);
    CHECK(check_extent(c, (size_t)header, err));
    json_t *root =
        json_loadb((const char *)c->map.p + 8, (size_t)header, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return err_set(err, ST_FORMAT, "%s: header: %s near byte %d", c->name, why.text,
                       why.position);
    enum status st = read_meta(c, root, err);
    if (st == ST_OK)
        st = read_tensors(c, root, (size_t)header, err);
    json_decref(root);
    if (st == ST_OK)
        list_names(c);
    return st;
}

static enum status open_map(struct file_map map, bool owns, const char *name,
                            struct container **out, struct err *err) {
    struct container *c = xcalloc(1, sizeof *c);
    c->name = xstrdup(name);
    c->map = map;
    c->owns_map = owns;
    enum status st = read_all(c, err);
    if (st == ST_OK)
        *out = c;
    else
        container_close(c);
    return st;
}

enum status container_parse(const void *p, size_t len, const char *name, struct container **out,
                            struct err *err) {
    return open_map((struct file_map){p, len}, false, name, out, err);
}

enum status container_open(const char *path, struct container **out, struct err *err) {
    struct file_map map;
    CHECK(file_map_open(&map, path, err));
    return open_map(map, true, path_base(path), out, err);
}

void container_close(struct container *c) {
    if (!c)
        return;
    free(c->tensors);
    free(c->by_name);
    free(c->names);
    json_decref(c->meta);
    if (c->owns_map)
        file_map_close(&c->map);
    free(c->name);
    free(c);
}

const char *container_name(const struct container *c) {
    return c->name;
}

uint64_t container_bytes(const struct container *c) {
    return c->map.len;
}

enum status container_intact(const struct container *c, struct err *err) {
    return file_map_intact(c->map, c->name, err);
}

struct file_map container_map(const struct container *c) {
    return c->map;
}

size_t container_n_tensors(const struct container *c) {
    return c->n;
}

const struct ctensor *container_tensor(const struct container *c, size_t i) {
    assert(i < c->n);
    return &c->tensors[i];
}

const struct ctensor *container_find(const struct container *c, const char *name) {
    struct ctensor want = {.name = name};
    const struct ctensor *p = &want;
    const struct ctensor **hit = bsearch(&p, c->by_name, c->n, sizeof *c->by_name, name_cmp);
    return hit ? *hit : NULL;
}

static void shape_text(struct buf *b, enum dtype dtype, int n_dims, const uint64_t *shape) {
    buf_addf(b, "%s [", dtype_name(dtype));
    for (int d = 0; d < n_dims; d++)
        buf_addf(b, "%s%" PRIu64, d ? ", " : "", shape[d]);
    buf_addc(b, ']');
}

enum status container_need(const struct container *c, const char *name, enum dtype dtype,
                           int n_dims, const uint64_t *shape, const struct ctensor **out,
                           struct err *err) {
    const struct ctensor *t = container_find(c, name);
    if (!t)
        return err_set(err, ST_FORMAT, "%s: tensor %s is missing", c->name, name);
    if (t->dtype != dtype || t->n_dims != n_dims ||
        memcmp(t->shape, shape, (size_t)n_dims * sizeof *shape) != 0) {
        struct buf found = {0}, wanted = {0};
        shape_text(&found, t->dtype, t->n_dims, t->shape);
        shape_text(&wanted, dtype, n_dims, shape);
        enum status st = err_set(err, ST_FORMAT, "%s: tensor %s: is %s, wanted %s", c->name,
                                 name, buf_str(&found), buf_str(&wanted));
        buf_release(&found);
        buf_release(&wanted);
        return st;
    }
    if ((size_t)(t->data - c->map.p) % CONTAINER_ALIGN)
        return err_set(err, ST_FORMAT, "%s: tensor %s: begins at byte %zu, no multiple of %d",
                       c->name, name, (size_t)(t->data - c->map.p), CONTAINER_ALIGN);
    *out = t;
    return ST_OK;
}

const char *container_meta(const struct container *c, const char *key) {
    return json_string_value(json_object_get(c->meta, key));
}

void container_meta_each(const struct container *c,
                         void (*each)(void *user, const char *key, const char *value),
                         void *user) {
    const char *key;
    json_t *value;
    json_object_foreach(c->meta, key, value) each(user, key, json_string_value(value));
}

enum status container_meta_int(const struct container *c, const char *key, int64_t min,
                               int64_t max, int64_t *out, struct err *err) {
    const char *s = container_meta(c, key);
    char *end;
    if (!s)
        return err_set(err, ST_FORMAT, "%s: metadata %s is missing", c->name, key);
    long long v = strtoll(s, &end, 10);
    if (end == s || *end || v < min || v > max)
        return err_set(err, ST_FORMAT,
                       "%s: metadata %s is \"%.40s\", wanted %" PRId64 "..%" PRId64, c->name,
                       key, s, min, max);
    *out = v;
    return ST_OK;
}

enum status container_meta_num(const struct container *c, const char *key, double min,
                               double max, double *out, struct err *err) {
    const char *s = container_meta(c, key);
    if (!s)
        return err_set(err, ST_FORMAT, "%s: metadata %s is missing", c->name, key);
    /* the JSON reader takes numbers with a point whatever the locale is */
    json_t *j = json_loads(s, JSON_DECODE_ANY, NULL);
    double v = json_number_value(j);
    bool good = json_is_number(j) && v >= min && v <= max;
    json_decref(j);
    if (!good)
        return err_set(err, ST_FORMAT, "%s: metadata %s is \"%.40s\", wanted %g..%g", c->name,
                       key, s, min, max);
    *out = v;
    return ST_OK;
}
