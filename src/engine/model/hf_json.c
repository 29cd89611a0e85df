/*
 * hf_json.c - the JSON files of a Hugging Face folder. See hf_json.h.
 *
 * jansson parses (at most 2048 levels deep, duplicate keys refused). What Python's json module
 * writes and reads but JSON does not have is rewritten before: NaN, Infinity and -Infinity
 * become the strings "NaN" …, which no getter of a number takes, so that a config that has one
 * in a corner that nobody asks for loads and one that has it in hidden_size is refused by name.
 * Integers beyond 64 bits (a tokenizer without a longest text says model_max_length = 10^30)
 * become reals of that value. jansson's own JSON_DECODE_INT_AS_REAL would make every integer a
 * double, and ids above 2^53 wrong without a word.
 *
 * The rewriting copies only when there is something to rewrite: a tokenizer.json has tens of
 * megabytes. On its way it counts objects and lists, since jansson takes eighty bytes and more
 * for an empty one.
 */
#include "engine/model/hf_json.h"

#include "base/mem.h"
#include "base/path.h"
#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_DIGITS = 300,      /* of an integer that a double holds */
    MAX_OBJECTS = 3000000, /* a big tokenizer has a list for each of 500,000 merges */
};

struct rewrite {
    struct buf out;
    const char *from; /* what was not copied yet */
    size_t n_objects; /* and lists */
};

static void replace(struct rewrite *r, const char *at, const char *end, const char *with) {
    buf_add(&r->out, r->from, (size_t)(at - r->from));
    buf_adds(&r->out, with);
    r->from = end;
}

static const char *skip_string(const char *p, const char *end) {
    for (p++; p < end && *p != '"'; p++)
        if (*p == '\\' && p + 1 < end)
            p++;
    return p < end ? p + 1 : end;
}

/* The number (or -Infinity) at p; returns its end. */
static const char *rewrite_number(struct rewrite *r, const char *p, const char *end) {
    const char *s = p + (*p == '-'), *digits = s;
    if (s > p && end - s >= 8 && memcmp(s, "Infinity", 8) == 0) {
        replace(r, p, s + 8, "\"-Infinity\"");
        return s + 8;
    }
    while (s < end && isdigit((unsigned char)*s))
        s++;
    size_t n = (size_t)(s - digits);
    bool whole = s == end || !strchr(".eE", *s);
    if (whole && n > MAX_DIGITS)
        replace(r, p, s, *p == '-' ? "\"-Infinity\"" : "\"Infinity\"");
    else if (whole && (n > 19 || (n == 19 && memcmp(digits, "9223372036854775807", 19) > 0)))
        replace(r, s, s, ".0");
    while (s < end && *s && strchr("0123456789+-.eE", *s))
        s++;
    return s;
}

static void rewrite_all(struct rewrite *r, const char *p, const char *end) {
    while (p < end) {
        if (*p == '"') {
            p = skip_string(p, end);
        } else if (*p == '-' || isdigit((unsigned char)*p)) {
            p = rewrite_number(r, p, end);
        } else if (*p == 'N' && end - p >= 3 && memcmp(p, "NaN", 3) == 0) {
            replace(r, p, p + 3, "\"NaN\"");
            p += 3;
        } else if (*p == 'I' && end - p >= 8 && memcmp(p, "Infinity", 8) == 0) {
            replace(r, p, p + 8, "\"Infinity\"");
            p += 8;
        } else {
            r->n_objects += *p == '{' || *p == '[';
            p++;
        }
    }
}

enum status hf_json_parse(const char *p, size_t len, const char *file, struct hf_json *out,
                          struct err *err) {
    struct rewrite r = {.from = p};
    json_error_t why;
    *out = (struct hf_json){.file = file};
    rewrite_all(&r, p, p + len);
    if (r.n_objects > MAX_OBJECTS) {
        buf_release(&r.out);
        return err_set(err, ST_LIMIT, "%s: more than %d objects and lists", file, MAX_OBJECTS);
    }
    if (r.from != p) {
        buf_add(&r.out, r.from, (size_t)(p + len - r.from));
        p = r.out.p;
        len = r.out.len;
    }
    json_t *root = json_loadb(p, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    buf_release(&r.out);
    if (!root)
        return err_set(err, ST_FORMAT, "%s: %s (line %d, column %d)", file, why.text, why.line,
                       why.column);
    if (!json_is_object(root)) {
        json_decref(root);
        return err_set(err, ST_FORMAT, "%s: is a list, wanted an object", file);
    }
    out->root = root;
    return ST_OK;
}

enum status hf_json_load(const char *dir, const char *file, bool required, size_t max_bytes,
                         struct hf_json *out, struct err *err) {
    char *path = path_join(dir, file);
    struct buf text = {0};
    struct err why = {0};
    *out = (struct hf_json){.file = file};
    enum status st = file_read(path, max_bytes, &text, &why);
    if (st == ST_OK)
        st = hf_json_parse(buf_str(&text), text.len, file, out, err);
    else if (st == ST_NOT_FOUND && !required)
        st = ST_OK;
    else if (st == ST_NOT_FOUND)
        st = err_set(err, st, "%s: has no file %s", dir, file);
    else
        st = err_set(err, st, "%s", why.msg);
    buf_release(&text);
    free(path);
    return st;
}

void hf_json_release(struct hf_json *j) {
    json_decref(j->root);
    j->root = NULL;
}

/* The value of the first spelling that is there, and in key [64] that spelling; when none is,
 * NULL and the first one. */
static json_t *get(const struct hf_json *j, const char *keys, char key[64]) {
    const char *all = keys;
    for (;;) {
        size_t n = strcspn(keys, "|");
        assert(n < 64);
        memcpy(key, keys, n);
        key[n] = 0;
        json_t *v = json_object_get(j->root, key);
        if (v && !json_is_null(v))
            return v;
        if (!keys[n])
            break;
        keys += n + 1;
    }
    size_t n = strcspn(all, "|");
    memcpy(key, all, n);
    key[n] = 0;
    return NULL;
}

static enum status missing(const struct hf_json *j, const char *key, struct err *err) {
    return err_set(err, ST_FORMAT, "%s: %s is missing", j->file, key);
}

/* "FILE: KEY is VALUE, wanted …" */
static enum status wrong(const struct hf_json *j, const char *key, const json_t *v,
                         const char *wanted, struct err *err) {
    char *text = NULL;
    const char *shown = json_is_array(v) ? "a list" : "an object";
    if (!json_is_array(v) && !json_is_object(v))
        shown = text = json_dumps(v, JSON_ENCODE_ANY);
    enum status st = err_set(err, ST_FORMAT, "%s: %s is %.80s, wanted %s", j->file, key,
                             shown ? shown : "not text", wanted);
    free(text);
    return st;
}

json_t *hf_get(const struct hf_json *j, const char *keys) {
    char key[64];
    return get(j, keys, key);
}

enum status hf_int(const struct hf_json *j, const char *keys, bool required, int min, int max,
                   int *out, struct err *err) {
    char key[64], wanted[64];
    const json_t *v = get(j, keys, key);
    if (!v)
        return required ? missing(j, key, err) : ST_OK;
    double d = json_number_value(v); /* 4096.0 is an integer too */
    if (!json_is_number(v) || d < min || d > max || d != floor(d)) {
        snprintf(wanted, sizeof wanted, "an integer %d..%d", min, max);
        return wrong(j, key, v, wanted, err);
    }
    *out = (int)d;
    return ST_OK;
}

enum status hf_num(const struct hf_json *j, const char *keys, bool required, float *out,
                   struct err *err) {
    char key[64];
    const json_t *v = get(j, keys, key);
    if (!v)
        return required ? missing(j, key, err) : ST_OK;
    if (!json_is_number(v) || !isfinite((float)json_number_value(v)))
        return wrong(j, key, v, "a number", err);
    *out = (float)json_number_value(v);
    return ST_OK;
}

enum status hf_bool(const struct hf_json *j, const char *keys, bool *out, struct err *err) {
    char key[64];
    const json_t *v = get(j, keys, key);
    if (!v)
        return ST_OK;
    if (!json_is_boolean(v))
        return wrong(j, key, v, "true or false", err);
    *out = json_is_true(v);
    return ST_OK;
}

enum status hf_str(const struct hf_json *j, const char *keys, bool required, const char **out,
                   struct err *err) {
    char key[64];
    const json_t *v = get(j, keys, key);
    if (!v)
        return required ? missing(j, key, err) : ST_OK;
    if (!json_is_string(v) || strlen(json_string_value(v)) != json_string_length(v))
        return wrong(j, key, v, "a text", err);
    *out = json_string_value(v);
    return ST_OK;
}

enum status hf_list(const struct hf_json *j, const char *keys, const json_t **out,
                    struct err *err) {
    char key[64];
    const json_t *v = get(j, keys, key);
    *out = NULL;
    if (v && !json_is_array(v))
        return wrong(j, key, v, "a list", err);
    *out = v;
    return ST_OK;
}

enum status hf_child(const struct hf_json *j, const char *key, struct hf_json *out,
                     struct err *err) {
    char found[64];
    json_t *v = get(j, key, found);
    *out = (struct hf_json){.file = j->file};
    if (v && !json_is_object(v))
        return wrong(j, found, v, "an object", err);
    out->root = v;
    return ST_OK;
}
