/*
 * gguf.c - checks a GGUF file once and indexes it. See gguf.h.
 *
 * The directory is read front to back with a cursor that knows how many bytes are left: header
 * (magic, version, two counts), key-value pairs, tensor descriptions, padding, data. Before a
 * count is believed it is held against the smallest size its items could have in the bytes that
 * are left, so the tables never take more than a few times the file's own size. Keys and tensor
 * names are sorted once: that finds duplicates and makes look-up a binary search.
 *
 * The alternative, keeping only offsets and checking at each access, spreads the checks over
 * every reader; here all of them are in one file, and what the accessors return needs no more.
 */
#include "engine/model/gguf.h"
#include "base/mem.h"
#include "base/path.h"
#include "engine/quant/ggml_types.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_DEPTH = 4,         /* arrays in arrays */
    MAX_KEY = 65535,       /* the specification's limit */
    MAX_NAME = 64,         /* of a tensor, the specification's limit */
    MIN_KV_BYTES = 14,     /* length, one byte of key, type, one byte of value */
    MIN_TENSOR_BYTES = 25, /* length, one byte of name, dimensions, type, offset */
};
static const uint64_t max_alignment = 1 << 20;

struct gguf {
    char *name;
    struct file_map map;
    bool owns_map;
    uint64_t n_kv, n_tensors, alignment;
    struct gguf_kv *kv;
    struct gguf_tensor *tensors;
    const struct gguf_kv **by_key;      /* [n_kv] sorted */
    const struct gguf_tensor **by_name; /* [n_tensors] sorted */
    const struct gguf_set *set;         /* of which this is the main file, or NULL */
};

/* Where reading stands; `what` and `item` say for messages what is being read. */
struct cursor {
    const unsigned char *p;
    size_t left;
    const char *name, *what;
    uint64_t item;
    struct err *err;
};

static const struct {
    const char *name;
    size_t bytes; /* 0: strings and arrays */
} types[GGUF_TYPE_N] = {
    [GGUF_U8] = {"u8", 1},     [GGUF_I8] = {"i8", 1},     [GGUF_U16] = {"u16", 2},
    [GGUF_I16] = {"i16", 2},   [GGUF_U32] = {"u32", 4},   [GGUF_I32] = {"i32", 4},
    [GGUF_F32] = {"f32", 4},   [GGUF_BOOL] = {"bool", 1}, [GGUF_STR] = {"string", 0},
    [GGUF_ARR] = {"array", 0}, [GGUF_U64] = {"u64", 8},   [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

const char *gguf_type_name(enum gguf_type t) {
    return (unsigned)t < GGUF_TYPE_N ? types[t].name : "?";
}

size_t gguf_type_bytes(enum gguf_type t) {
    return (unsigned)t < GGUF_TYPE_N ? types[t].bytes : 0;
}

/* n bytes, little-endian, n <= 8 */
static uint64_t load_uint(const unsigned char *p, size_t n) {
    uint64_t v = 0;
    for (size_t i = n; i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

static enum status cur_bytes(struct cursor *c, uint64_t n, const unsigned char **p) {
    if (n > c->left)
        return err_set(c->err, ST_FORMAT,
                       "%s: %s %" PRIu64 ": needs %" PRIu64 " bytes, the file has %zu left",
                       c->name, c->what, c->item, n, c->left);
    *p = c->p;
    c->p += n;
    c->left -= (size_t)n;
    return ST_OK;
}

static enum status cur_u32(struct cursor *c, uint32_t *v) {
    const unsigned char *p = NULL;
    CHECK(cur_bytes(c, 4, &p));
    *v = (uint32_t)load_uint(p, 4);
    return ST_OK;
}

static enum status cur_u64(struct cursor *c, uint64_t *v) {
    const unsigned char *p = NULL;
    CHECK(cur_bytes(c, 8, &p));
    *v = load_uint(p, 8);
    return ST_OK;
}

static enum status cur_str(struct cursor *c, struct gguf_str *s) {
    const unsigned char *p = NULL;
    uint64_t n = 0;
    CHECK(cur_u64(c, &n));
    CHECK(cur_bytes(c, n, &p));
    *s = (struct gguf_str){(const char *)p, (size_t)n};
    return ST_OK;
}

static enum status read_value(struct cursor *c, struct gguf_kv *kv, uint32_t type, int depth);

/* The elements of an array; depth counts the arrays around them. */
static enum status read_array(struct cursor *c, struct gguf_kv *kv, int depth) {
    uint32_t elem = 0;
    uint64_t n = 0;
    CHECK(cur_u32(c, &elem));
    CHECK(cur_u64(c, &n));
    if (elem >= GGUF_TYPE_N)
        return err_set(c->err, ST_FORMAT,
                       "%s: key %.*s: unknown array element type %" PRIu32 ", wanted 0..%d",
                       c->name, GGUF_SHOW(kv->key), elem, GGUF_TYPE_N - 1);
    if (elem == GGUF_ARR && depth + 1 >= MAX_DEPTH)
        return err_set(c->err, ST_LIMIT, "%s: key %.*s: arrays nested deeper than %d", c->name,
                       GGUF_SHOW(kv->key), MAX_DEPTH);
    size_t least = elem == GGUF_STR ? 8 : elem == GGUF_ARR ? 12 : types[elem].bytes;
    if (n > c->left / least)
        return err_set(c->err, ST_FORMAT,
                       "%s: key %.*s: array of %" PRIu64 " %s, the file has %zu bytes left",
                       c->name, GGUF_SHOW(kv->key), n, types[elem].name, c->left);
    if (depth == 0) {
        kv->elem = (enum gguf_type)elem;
        kv->n = n;
        kv->value = c->p;
    }
    const unsigned char *p = NULL;
    if (types[elem].bytes)
        return cur_bytes(c, n * types[elem].bytes, &p);
    for (uint64_t i = 0; i < n; i++)
        CHECK(read_value(c, kv, elem, depth + 1));
    return ST_OK;
}

/* One value. At depth 0 it is the key's own and is kept in kv; inside arrays it is only walked
 * over. */
static enum status read_value(struct cursor *c, struct gguf_kv *kv, uint32_t type, int depth) {
    const unsigned char *p = NULL;
    struct gguf_str s = {0};
    if (type == GGUF_ARR)
        return read_array(c, kv, depth);
    if (type == GGUF_STR) {
        CHECK(cur_str(c, &s));
        if (depth == 0) {
            kv->value = (const unsigned char *)s.p;
            kv->n = s.len;
        }
        return ST_OK;
    }
    CHECK(cur_bytes(c, types[type].bytes, &p));
    if (type == GGUF_BOOL && *p > 1)
        return err_set(c->err, ST_FORMAT, "%s: key %.*s: bool of value %d, wanted 0 or 1",
                       c->name, GGUF_SHOW(kv->key), *p);
    kv->value = p;
    kv->n = 1;
    return ST_OK;
}

static enum status read_kv(struct cursor *c, struct gguf_kv *kv) {
    uint32_t type = 0;
    CHECK(cur_str(c, &kv->key));
    if (kv->key.len == 0 || kv->key.len > MAX_KEY)
        return err_set(c->err, ST_FORMAT, "%s: key %" PRIu64 ": %zu bytes long, wanted 1..%d",
                       c->name, c->item, kv->key.len, MAX_KEY);
    CHECK(cur_u32(c, &type));
    if (type >= GGUF_TYPE_N)
        return err_set(c->err, ST_FORMAT,
                       "%s: key %.*s: unknown value type %" PRIu32 ", wanted 0..%d", c->name,
                       GGUF_SHOW(kv->key), type, GGUF_TYPE_N - 1);
    kv->type = (enum gguf_type)type;
    return read_value(c, kv, type, 0);
}

/* Elements and bytes of a tensor from its dimensions and type. */
static enum status tensor_size(struct cursor *c, struct gguf_tensor *t) {
    const struct ggml_type_row *row = ggml_type_row(t->type);
    if (!row)
        return err_set(c->err, ST_UNSUPPORTED,
                       "%s: tensor %.*s: unknown type %" PRIu32 "; supported: %s", c->name,
                       GGUF_SHOW(t->name), t->type, ggml_types_supported());
    t->n_elem = 1;
    for (int d = 0; d < t->n_dims; d++) {
        if (t->ne[d] == 0 || t->ne[d] > INT64_MAX ||
            __builtin_mul_overflow(t->n_elem, t->ne[d], &t->n_elem))
            return err_set(c->err, ST_FORMAT,
                           "%s: tensor %.*s: dimension %d of %" PRIu64 " does not fit", c->name,
                           GGUF_SHOW(t->name), d, t->ne[d]);
    }
    if (t->ne[0] % row->block_elems)
        return err_set(c->err, ST_FORMAT,
                       "%s: tensor %.*s: rows of %" PRIu64
                       " elements, %s wants a multiple of %" PRIu32,
                       c->name, GGUF_SHOW(t->name), t->ne[0], row->name, row->block_elems);
    if (__builtin_mul_overflow(t->n_elem / row->block_elems, (uint64_t)row->block_bytes,
                               &t->n_bytes))
        return err_set(c->err, ST_FORMAT,
                       "%s: tensor %.*s: %" PRIu64 " elements of %s are too many", c->name,
                       GGUF_SHOW(t->name), t->n_elem, row->name);
    return ST_OK;
}

/* A tensor's description; its offset is still relative to the data. */
static enum status read_tensor(struct cursor *c, struct gguf_tensor *t) {
    uint32_t n_dims = 0;
    CHECK(cur_str(c, &t->name));
    if (t->name.len == 0 || t->name.len > MAX_NAME)
        return err_set(c->err, ST_FORMAT,
                       "%s: tensor %" PRIu64 ": name of %zu bytes, wanted 1..%d", c->name,
                       c->item, t->name.len, MAX_NAME);
    CHECK(cur_u32(c, &n_dims));
    if (n_dims > 4)
        return err_set(c->err, ST_FORMAT,
                       "%s: tensor %.*s: %" PRIu32 " dimensions, wanted at most 4", c->name,
                       GGUF_SHOW(t->name), n_dims);
    t->n_dims = (int)n_dims;
    for (int d = 0; d < 4; d++) {
        t->ne[d] = 1;
        if (d < t->n_dims)
            CHECK(cur_u64(c, &t->ne[d]));
    }
    CHECK(cur_u32(c, &t->type));
    CHECK(cur_u64(c, &t->offset));
    return tensor_size(c, t);
}

static int str_cmp(const struct gguf_str *a, const struct gguf_str *b) {
    size_t n = a->len < b->len ? a->len : b->len;
    int r = memcmp(a->p, b->p, n);
    return r ? r : (a->len > b->len) - (a->len < b->len);
}

static int kv_cmp(const void *a, const void *b) {
    return str_cmp(&(*(const struct gguf_kv *const *)a)->key,
                   &(*(const struct gguf_kv *const *)b)->key);
}

static int name_cmp(const void *a, const void *b) {
    return str_cmp(&(*(const struct gguf_tensor *const *)a)->name,
                   &(*(const struct gguf_tensor *const *)b)->name);
}

static int offset_cmp(const void *a, const void *b) {
    const struct gguf_tensor *x = *(const struct gguf_tensor *const *)a;
    const struct gguf_tensor *y = *(const struct gguf_tensor *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static enum status index_kv(struct gguf *g, struct err *err) {
    g->by_key = xreallocarray(NULL, g->n_kv, sizeof *g->by_key);
    for (uint64_t i = 0; i < g->n_kv; i++)
        g->by_key[i] = &g->kv[i];
    qsort(g->by_key, g->n_kv, sizeof *g->by_key, kv_cmp);
    for (uint64_t i = 1; i < g->n_kv; i++)
        if (kv_cmp(&g->by_key[i - 1], &g->by_key[i]) == 0)
            return err_set(err, ST_FORMAT, "%s: key %.*s occurs twice", g->name,
                           GGUF_SHOW(g->by_key[i]->key));
    return ST_OK;
}

/* Offsets become those of the file; each tensor lies inside it, none over another. */
static enum status place_tensors(struct gguf *g, const struct cursor *c, struct err *err) {
    uint64_t info_end = g->map.len - c->left;
    uint64_t start = (info_end + g->alignment - 1) / g->alignment * g->alignment;
    uint64_t room = start < g->map.len ? g->map.len - start : 0;
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        struct gguf_tensor *t = &g->tensors[i];
        if (t->offset % g->alignment)
            return err_set(err, ST_FORMAT,
                           "%s: tensor %.*s: offset %" PRIu64 " is no multiple of %" PRIu64,
                           g->name, GGUF_SHOW(t->name), t->offset, g->alignment);
        uint64_t left = t->offset < room ? room - t->offset : 0;
        if (t->n_bytes > left)
            return err_set(err, ST_FORMAT,
                           "%s: tensor %.*s: %" PRIu64 " elements of %s need %" PRIu64
                           " bytes, the file has %" PRIu64 " left",
                           g->name, GGUF_SHOW(t->name), t->n_elem, ggml_type_row(t->type)->name,
                           t->n_bytes, left);
        t->offset += start;
        t->data = g->map.p + t->offset;
    }
    return ST_OK;
}

static enum status index_tensors(struct gguf *g, struct err *err) {
    g->by_name = xreallocarray(NULL, g->n_tensors, sizeof *g->by_name);
    for (uint64_t i = 0; i < g->n_tensors; i++)
        g->by_name[i] = &g->tensors[i];
    qsort(g->by_name, g->n_tensors, sizeof *g->by_name, offset_cmp);
    for (uint64_t i = 1; i < g->n_tensors; i++) {
        const struct gguf_tensor *a = g->by_name[i - 1], *b = g->by_name[i];
        if (a->offset + a->n_bytes > b->offset)
            return err_set(err, ST_FORMAT, "%s: tensors %.*s and %.*s overlap", g->name,
                           GGUF_SHOW(a->name), GGUF_SHOW(b->name));
    }
    qsort(g->by_name, g->n_tensors, sizeof *g->by_name, name_cmp);
    for (uint64_t i = 1; i < g->n_tensors; i++)
        if (name_cmp(&g->by_name[i - 1], &g->by_name[i]) == 0)
            return err_set(err, ST_FORMAT, "%s: tensor %.*s occurs twice", g->name,
                           GGUF_SHOW(g->by_name[i]->name));
    return ST_OK;
}

static enum status read_header(struct gguf *g, struct cursor *c) {
    const unsigned char *magic = NULL;
    uint32_t version = 0;
    CHECK(cur_bytes(c, 4, &magic));
    if (memcmp(magic, "GGUF", 4) != 0)
        return err_set(c->err, ST_FORMAT,
                       "%s: not a GGUF file (begins with %02x %02x %02x %02x)", c->name,
                       magic[0], magic[1], magic[2], magic[3]);
    CHECK(cur_u32(c, &version));
    if (version && (version & 0xffff) == 0)
        return err_set(c->err, ST_UNSUPPORTED,
                       "%s: a big-endian GGUF file; only little-endian ones are read", c->name);
    if (version != 2 && version != 3)
        return err_set(c->err, ST_UNSUPPORTED,
                       "%s: GGUF version %" PRIu32 "; versions 2 and 3 are read", c->name,
                       version);
    CHECK(cur_u64(c, &g->n_tensors));
    CHECK(cur_u64(c, &g->n_kv));
    if (g->n_kv > c->left / MIN_KV_BYTES)
        return err_set(c->err, ST_FORMAT,
                       "%s: %" PRIu64 " keys can't fit into the %zu bytes left", c->name,
                       g->n_kv, c->left);
    if (g->n_tensors > c->left / MIN_TENSOR_BYTES)
        return err_set(c->err, ST_FORMAT,
                       "%s: %" PRIu64 " tensors can't fit into the %zu bytes left", c->name,
                       g->n_tensors, c->left);
    return ST_OK;
}

static enum status read_alignment(struct gguf *g, struct err *err) {
    g->alignment = 32;
    CHECK(gguf_get_u64(g, "general.alignment", false, &g->alignment, err));
    if (g->alignment == 0 || g->alignment & (g->alignment - 1) || g->alignment > max_alignment)
        return err_set(err, ST_FORMAT,
                       "%s: general.alignment is %" PRIu64
                       ", wanted a power of two up to %" PRIu64,
                       g->name, g->alignment, max_alignment);
    return ST_OK;
}

static enum status read_all(struct gguf *g, struct err *err) {
    struct cursor c = {g->map.p, g->map.len, g->name, "header", 0, err};
    CHECK(read_header(g, &c));
    c.what = "key";
    g->kv = xcalloc(g->n_kv, sizeof *g->kv);
    for (c.item = 0; c.item < g->n_kv; c.item++)
        CHECK(read_kv(&c, &g->kv[c.item]));
    CHECK(index_kv(g, err));
    CHECK(read_alignment(g, err));
    c.what = "tensor";
    g->tensors = xcalloc(g->n_tensors, sizeof *g->tensors);
    for (c.item = 0; c.item < g->n_tensors; c.item++)
        CHECK(read_tensor(&c, &g->tensors[c.item]));
    CHECK(place_tensors(g, &c, err));
    return index_tensors(g, err);
}

static enum status open_map(struct file_map map, bool owns, const char *name, struct gguf **out,
                            struct err *err) {
    struct gguf *g = xcalloc(1, sizeof *g);
    g->name = xstrdup(name);
    g->map = map;
    g->owns_map = owns;
    enum status st = read_all(g, err);
    if (st == ST_OK)
        *out = g;
    else
        gguf_close(g);
    return st;
}

enum status gguf_parse(const void *p, size_t len, const char *name, struct gguf **out,
                       struct err *err) {
    return open_map((struct file_map){p, len}, false, name, out, err);
}

enum status gguf_open(const char *path, struct gguf **out, struct err *err) {
    struct file_map map;
    CHECK(file_map_open(&map, path, err));
    return open_map(map, true, path_base(path), out, err);
}

void gguf_close(struct gguf *g) {
    if (!g)
        return;
    free(g->by_key);
    free(g->by_name);
    free(g->kv);
    free(g->tensors);
    if (g->owns_map)
        file_map_close(&g->map);
    free(g->name);
    free(g);
}

const char *gguf_name(const struct gguf *g) {
    return g->name;
}

struct file_map gguf_map(const struct gguf *g) {
    return g->map;
}

uint64_t gguf_n_kv(const struct gguf *g) {
    return g->n_kv;
}

const struct gguf_kv *gguf_kv(const struct gguf *g, uint64_t i) {
    assert(i < g->n_kv);
    return &g->kv[i];
}

uint64_t gguf_n_tensors(const struct gguf *g) {
    return g->n_tensors;
}

const struct gguf_tensor *gguf_tensor(const struct gguf *g, uint64_t i) {
    assert(i < g->n_tensors);
    return &g->tensors[i];
}

void gguf_join(struct gguf *g, const struct gguf_set *set) {
    g->set = set;
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name) {
    if (g->set)
        return gguf_set_find(g->set, name, NULL);
    struct gguf_tensor want = {.name = {name, strlen(name)}};
    const struct gguf_tensor *p = &want;
    const struct gguf_tensor **hit =
        bsearch(&p, g->by_name, g->n_tensors, sizeof *g->by_name, name_cmp);
    return hit ? *hit : NULL;
}

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key) {
    struct gguf_kv want = {.key = {key, strlen(key)}};
    const struct gguf_kv *p = &want;
    const struct gguf_kv **hit = bsearch(&p, g->by_key, g->n_kv, sizeof *g->by_key, kv_cmp);
    return hit ? *hit : NULL;
}
