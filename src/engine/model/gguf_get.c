/*
 * gguf_get.c - values of a GGUF file by key, with their types checked. See gguf.h.
 *
 * Writers disagree about integer widths and signs for the same key, so an integer is taken from
 * any integer type when its value fits; nothing else is converted but integers to floats. A
 * missing key leaves the caller's default.
 */
#include "engine/model/gguf.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static uint64_t load_uint(const unsigned char *p, size_t n) {
    uint64_t v = 0;
    for (size_t i = n; i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

/* The integer of this type at p: a sign and a magnitude, so that u64 and i64 both fit. False:
 * no integer type. */
static bool load_integer(enum gguf_type type, const unsigned char *p, bool *negative,
                         uint64_t *magnitude) {
    int64_t v;
    *negative = false;
    switch (type) {
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64:
        *magnitude = load_uint(p, gguf_type_bytes(type));
        return true;
    case GGUF_I8:
        v = (int8_t)p[0];
        break;
    case GGUF_I16:
        v = (int16_t)load_uint(p, 2);
        break;
    case GGUF_I32:
        v = (int32_t)load_uint(p, 4);
        break;
    case GGUF_I64:
        v = (int64_t)load_uint(p, 8);
        break;
    default:
        return false;
    }
    *negative = v < 0;
    *magnitude = v < 0 ? -(uint64_t)v : (uint64_t)v;
    return true;
}

/* The number of any numeric type at p. False: no number. */
static bool load_number(enum gguf_type type, const unsigned char *p, double *out) {
    bool negative;
    uint64_t v;
    if (type == GGUF_F32) {
        float f;
        memcpy(&f, p, sizeof f);
        *out = (double)f;
    } else if (type == GGUF_F64) {
        memcpy(out, p, sizeof *out);
    } else if (load_integer(type, p, &negative, &v)) {
        *out = negative ? -(double)v : (double)v;
    } else {
        return false;
    }
    return true;
}

static enum status wrong_type(const struct gguf *g, const struct gguf_kv *kv,
                              const char *wanted, struct err *err) {
    if (kv->type == GGUF_ARR)
        return err_set(err, ST_FORMAT, "%s: key %.*s: an array of %s, wanted %s", gguf_name(g),
                       GGUF_SHOW(kv->key), gguf_type_name(kv->elem), wanted);
    return err_set(err, ST_FORMAT, "%s: key %.*s: type %s, wanted %s", gguf_name(g),
                   GGUF_SHOW(kv->key), gguf_type_name(kv->type), wanted);
}

/* *kv is NULL when the key is missing and need not be there. */
static enum status look_up(const struct gguf *g, const char *key, bool required,
                           const struct gguf_kv **kv, struct err *err) {
    *kv = gguf_find(g, key);
    if (!*kv && required)
        return err_set(err, ST_FORMAT, "%s: key %s is missing", gguf_name(g), key);
    return ST_OK;
}

/* As look_up(), with the value of an integer of any width: -v when negative, else v. */
static enum status look_up_integer(const struct gguf *g, const char *key, bool required,
                                   const struct gguf_kv **kv, bool *negative, uint64_t *v,
                                   struct err *err) {
    CHECK(look_up(g, key, required, kv, err));
    if (*kv && !load_integer((*kv)->type, (*kv)->value, negative, v))
        return wrong_type(g, *kv, "an integer", err);
    return ST_OK;
}

enum status gguf_get_u64(const struct gguf *g, const char *key, bool required, uint64_t *out,
                         struct err *err) {
    const struct gguf_kv *kv;
    bool negative;
    uint64_t v;
    CHECK(look_up_integer(g, key, required, &kv, &negative, &v, err));
    if (!kv)
        return ST_OK;
    if (negative)
        return err_set(err, ST_FORMAT, "%s: key %s is -%" PRIu64 ", wanted 0 or more",
                       gguf_name(g), key, v);
    *out = v;
    return ST_OK;
}

enum status gguf_get_i64(const struct gguf *g, const char *key, bool required, int64_t *out,
                         struct err *err) {
    const struct gguf_kv *kv;
    bool negative;
    uint64_t v;
    CHECK(look_up_integer(g, key, required, &kv, &negative, &v, err));
    if (!kv)
        return ST_OK;
    if (!negative && v > INT64_MAX)
        return err_set(err, ST_FORMAT, "%s: key %s is %" PRIu64 ", wanted at most %" PRId64,
                       gguf_name(g), key, v, INT64_MAX);
    *out = negative ? (int64_t)(0 - v) : (int64_t)v;
    return ST_OK;
}

enum status gguf_get_f64(const struct gguf *g, const char *key, bool required, double *out,
                         struct err *err) {
    const struct gguf_kv *kv;
    double d;
    CHECK(look_up(g, key, required, &kv, err));
    if (!kv)
        return ST_OK;
    if (!load_number(kv->type, kv->value, &d))
        return wrong_type(g, kv, "a number", err);
    if (!isfinite(d))
        return err_set(err, ST_FORMAT, "%s: key %s is not a finite number", gguf_name(g), key);
    *out = d;
    return ST_OK;
}

enum status gguf_get_bool(const struct gguf *g, const char *key, bool required, bool *out,
                          struct err *err) {
    const struct gguf_kv *kv;
    CHECK(look_up(g, key, required, &kv, err));
    if (!kv)
        return ST_OK;
    if (kv->type != GGUF_BOOL)
        return wrong_type(g, kv, "bool", err);
    *out = kv->value[0] != 0;
    return ST_OK;
}

enum status gguf_get_str(const struct gguf *g, const char *key, bool required,
                         struct gguf_str *out, struct err *err) {
    const struct gguf_kv *kv;
    CHECK(look_up(g, key, required, &kv, err));
    if (!kv)
        return ST_OK;
    if (kv->type != GGUF_STR)
        return wrong_type(g, kv, "string", err);
    *out = (struct gguf_str){(const char *)kv->value, (size_t)kv->n};
    return ST_OK;
}

enum status gguf_get_strings(const struct gguf *g, const char *key, bool required, uint64_t *n,
                             struct gguf_str_iter *it, struct err *err) {
    const struct gguf_kv *kv;
    *n = 0;
    *it = (struct gguf_str_iter){0};
    CHECK(look_up(g, key, required, &kv, err));
    if (!kv)
        return ST_OK;
    if (kv->type != GGUF_ARR || kv->elem != GGUF_STR)
        return wrong_type(g, kv, "an array of strings", err);
    *n = kv->n;
    *it = (struct gguf_str_iter){kv->value, kv->n};
    return ST_OK;
}

bool gguf_next_string(struct gguf_str_iter *it, struct gguf_str *out) {
    if (it->left == 0)
        return false;
    out->len = (size_t)load_uint(it->p, 8);
    out->p = (const char *)it->p + 8;
    it->p += 8 + out->len;
    it->left--;
    return true;
}

static enum status get_array(const struct gguf *g, const char *key, bool required,
                             enum gguf_type a, enum gguf_type b, const char *wanted,
                             uint64_t *n, const unsigned char **v, struct err *err) {
    const struct gguf_kv *kv;
    *n = 0;
    *v = NULL;
    CHECK(look_up(g, key, required, &kv, err));
    if (!kv)
        return ST_OK;
    if (kv->type != GGUF_ARR || (kv->elem != a && kv->elem != b))
        return wrong_type(g, kv, wanted, err);
    *n = kv->n;
    *v = kv->value;
    return ST_OK;
}

enum status gguf_get_i32s(const struct gguf *g, const char *key, bool required, uint64_t *n,
                          const unsigned char **v, struct err *err) {
    return get_array(g, key, required, GGUF_I32, GGUF_U32, "an array of i32", n, v, err);
}

enum status gguf_get_f32s(const struct gguf *g, const char *key, bool required, uint64_t *n,
                          const unsigned char **v, struct err *err) {
    return get_array(g, key, required, GGUF_F32, GGUF_F32, "an array of f32", n, v, err);
}

/* What stands for layer 0 and how far it is to the next one: 0 when one value stands for all.
 */
struct per_layer {
    enum gguf_type type;
    const unsigned char *p;
    size_t step;
};

/* p is NULL when the key is missing and need not be there. */
static enum status look_up_layers(const struct gguf *g, const char *key, bool required,
                                  size_t n, struct per_layer *out, struct err *err) {
    const struct gguf_kv *kv;
    *out = (struct per_layer){0};
    CHECK(look_up(g, key, required, &kv, err));
    if (!kv)
        return ST_OK;
    *out = (struct per_layer){kv->type, kv->value, 0};
    if (kv->type != GGUF_ARR)
        return ST_OK;
    if (kv->n != n)
        return err_set(err, ST_FORMAT,
                       "%s: key %s: an array of %" PRIu64 ", wanted one for each of %zu layers",
                       gguf_name(g), key, kv->n, n);
    out->type = kv->elem;
    out->step = gguf_type_bytes(kv->elem);
    return ST_OK;
}

enum status gguf_get_u64s(const struct gguf *g, const char *key, bool required, size_t n,
                          uint64_t *out, struct err *err) {
    struct per_layer l;
    CHECK(look_up_layers(g, key, required, n, &l, err));
    for (size_t i = 0; l.p && i < n; i++) {
        const unsigned char *p = l.p + i * l.step;
        bool negative = false;
        if (l.type == GGUF_BOOL)
            out[i] = *p != 0;
        else if (!load_integer(l.type, p, &negative, &out[i]))
            return wrong_type(g, gguf_find(g, key), "an integer or one for each layer", err);
        if (negative)
            return err_set(err, ST_FORMAT,
                           "%s: key %s: layer %zu has -%" PRIu64 ", wanted 0 or more",
                           gguf_name(g), key, i, out[i]);
    }
    return ST_OK;
}

enum status gguf_get_f64s(const struct gguf *g, const char *key, bool required, size_t n,
                          double *out, struct err *err) {
    struct per_layer l;
    CHECK(look_up_layers(g, key, required, n, &l, err));
    for (size_t i = 0; l.p && i < n; i++) {
        if (!load_number(l.type, l.p + i * l.step, &out[i]))
            return wrong_type(g, gguf_find(g, key), "a number or one for each layer", err);
        if (!isfinite(out[i]))
            return err_set(err, ST_FORMAT, "%s: key %s: layer %zu has no finite number",
                           gguf_name(g), key, i);
    }
    return ST_OK;
}
