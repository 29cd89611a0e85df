/*
 * vocab.c - a vocabulary out of a GGUF file or one of ours, and into one of ours. See
 * text/vocab.h, vocab_store.h.
 *
 * In GGUF the strings of an array carry their lengths between them, so they are copied once
 * into bytes and offsets; in our file they lie so already. Everything that the tokenizer takes
 * for granted is checked here: counts that agree, offsets that rise, ids inside the vocabulary.
 */
#include "base/mem.h"
#include "base/utf8.h"
#include "engine/model/gguf.h"
#include "engine/model/vocab_store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t max_tokens = 1 << 22;

/* What a vocabulary owns: storage of all that does not lie in a mapping. */
struct owned {
    char *model, *pre, *chat_template;
    void *token_bytes, *token_off, *merge_bytes, *merge_off, *types, *scores;
};

static const struct {
    const char *key;
    size_t field; /* int32_t */
} ids[] = {
#define X(field, key) {key, offsetof(struct vocab_data, field)},
    VOCAB_ID_LIST(X)
#undef X
};

static const struct {
    const char *key;
    size_t field; /* int8_t */
} flags[] = {
#define X(field, key) {key, offsetof(struct vocab_data, field)},
    VOCAB_FLAG_LIST(X)
#undef X
};

static int32_t *id_field(struct vocab_data *v, size_t i) {
    return (int32_t *)(void *)((char *)v + ids[i].field);
}

static int8_t *flag_field(struct vocab_data *v, size_t i) {
    return (int8_t *)v + flags[i].field;
}

static struct owned *start(struct vocab_data *v) {
    struct owned *o = xcalloc(1, sizeof *o);
    *v = (struct vocab_data){.model = "", .pre = "", .chat_template = "", .owned = o};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        *id_field(v, i) = -1;
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        *flag_field(v, i) = -1;
    return o;
}

void vocab_release(struct vocab_data *v) {
    struct owned *o = v->owned;
    if (o) {
        free(o->model);
        free(o->pre);
        free(o->chat_template);
        free(o->token_bytes);
        free(o->token_off);
        free(o->merge_bytes);
        free(o->merge_off);
        free(o->types);
        free(o->scores);
        free(o);
    }
    *v = (struct vocab_data){0};
}

/* A string value as valid UTF-8, terminated. */
static enum status gguf_text(const struct gguf *g, const char *key, bool required, char **out,
                             struct err *err) {
    struct gguf_str s = {"", 0};
    struct buf b = {0};
    CHECK(gguf_get_str(g, key, required, &s, err));
    utf8_scrub(&b, s.p, s.len);
    buf_adds(&b, "");
    free(*out);
    *out = b.p ? buf_take(&b) : xstrdup("");
    return ST_OK;
}

static enum status gguf_strings(const struct gguf *g, const char *key, bool required,
                                uint64_t max, struct vocab_strings *out, void **bytes_owner,
                                void **off_owner, struct err *err) {
    struct gguf_str_iter it, again;
    struct gguf_str s;
    uint64_t n, total = 0;
    CHECK(gguf_get_strings(g, key, required, &n, &it, err));
    again = it;
    while (gguf_next_string(&it, &s))
        total += s.len;
    if (n > max || total > INT32_MAX)
        return err_set(err, ST_LIMIT,
                       "%s: key %s: %" PRIu64 " strings of %" PRIu64
                       " bytes, wanted at most %" PRIu64 " of %d",
                       gguf_name(g), key, n, total, max, INT32_MAX);
    char *bytes = xmalloc((size_t)total + 1);
    uint32_t *off = xreallocarray(NULL, (size_t)n + 1, sizeof *off), at = 0, i = 0;
    *bytes_owner = bytes;
    *off_owner = off;
    while (gguf_next_string(&again, &s)) {
        memcpy(bytes + at, s.p, s.len);
        off[i++] = at;
        at += (uint32_t)s.len;
    }
    off[i] = at;
    *out = (struct vocab_strings){(uint32_t)n, bytes, off};
    return ST_OK;
}

static enum status wrong_count(const char *file, const char *what, uint64_t found,
                               uint32_t wanted, struct err *err) {
    return err_set(err, ST_FORMAT,
                   "%s: %s has %" PRIu64 " entries, the vocabulary has %" PRIu32, file, what,
                   found, wanted);
}

static enum status gguf_arrays(struct vocab_data *v, struct owned *o, const struct gguf *g,
                               struct err *err) {
    const unsigned char *p;
    uint64_t n;
    CHECK(gguf_strings(g, "tokenizer.ggml.tokens", true, max_tokens, &v->tokens,
                       &o->token_bytes, &o->token_off, err));
    CHECK(gguf_strings(g, "tokenizer.ggml.merges", false, 4 * max_tokens, &v->merges,
                       &o->merge_bytes, &o->merge_off, err));
    if (v->tokens.n == 0)
        return err_set(err, ST_FORMAT, "%s: key tokenizer.ggml.tokens is empty", gguf_name(g));
    CHECK(gguf_get_i32s(g, "tokenizer.ggml.token_type", false, &n, &p, err));
    if (p) {
        if (n != v->tokens.n)
            return wrong_count(gguf_name(g), "tokenizer.ggml.token_type", n, v->tokens.n, err);
        v->types = o->types = xreallocarray(NULL, v->tokens.n, sizeof *v->types);
        memcpy(o->types, p, v->tokens.n * sizeof *v->types);
    }
    CHECK(gguf_get_f32s(g, "tokenizer.ggml.scores", false, &n, &p, err));
    if (p) {
        if (n != v->tokens.n)
            return wrong_count(gguf_name(g), "tokenizer.ggml.scores", n, v->tokens.n, err);
        v->scores = o->scores = xreallocarray(NULL, v->tokens.n, sizeof *v->scores);
        memcpy(o->scores, p, v->tokens.n * sizeof *v->scores);
    }
    return ST_OK;
}

static enum status gguf_charsmap(struct vocab_data *v, const struct gguf *g, struct err *err) {
    const char *key = "tokenizer.ggml.precompiled_charsmap";
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv)
        return ST_OK;
    if (kv->type != GGUF_ARR || (kv->elem != GGUF_U8 && kv->elem != GGUF_I8))
        return err_set(err, ST_FORMAT, "%s: key %s is no array of bytes", gguf_name(g), key);
    v->charsmap = kv->value;
    v->n_charsmap = (size_t)kv->n;
    return ST_OK;
}

static enum status gguf_numbers(struct vocab_data *v, const struct gguf *g, struct err *err) {
    char key[64];
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        int64_t id = -1;
        snprintf(key, sizeof key, "tokenizer.ggml.%s", ids[i].key);
        CHECK(gguf_get_i64(g, key, false, &id, err));
        if (id == UINT32_MAX) /* -1 in the unsigned type that writers use */
            id = -1;
        if (id < -1 || id >= v->tokens.n)
            return err_set(err, ST_FORMAT,
                           "%s: key %s is %" PRId64 ", the vocabulary has %" PRIu32 " tokens",
                           gguf_name(g), key, id, v->tokens.n);
        *id_field(v, i) = (int32_t)id;
    }
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        snprintf(key, sizeof key, "tokenizer.ggml.%s", flags[i].key);
        bool on = false;
        CHECK(gguf_get_bool(g, key, false, &on, err));
        if (gguf_find(g, key))
            *flag_field(v, i) = on;
    }
    return ST_OK;
}

enum status vocab_from_gguf(struct vocab_data *v, const struct gguf *g, struct err *err) {
    enum status st;
    struct owned *o = start(v);
    if (!gguf_find(g, "tokenizer.ggml.model")) {
        st = err_set(err, ST_NOT_FOUND, "%s: holds no tokenizer (key tokenizer.ggml.model)",
                     gguf_name(g));
        goto out;
    }
    TRY(gguf_text(g, "tokenizer.ggml.model", true, &o->model, err));
    TRY(gguf_text(g, "tokenizer.ggml.pre", false, &o->pre, err));
    TRY(gguf_text(g, "tokenizer.chat_template", false, &o->chat_template, err));
    v->model = o->model;
    v->pre = o->pre;
    v->chat_template = o->chat_template;
    TRY(gguf_arrays(v, o, g, err));
    TRY(gguf_charsmap(v, g, err));
    TRY(gguf_numbers(v, g, err));
out:
    if (st != ST_OK)
        vocab_release(v);
    return st;
}

/* NAME and NAME.offsets; out stays empty when there is none. */
static enum status mapped_strings(const struct container *c, const char *name, uint64_t max,
                                  struct vocab_strings *out, struct err *err) {
    char off_name[64];
    snprintf(off_name, sizeof off_name, "%s.offsets", name);
    const struct ctensor *off = container_find(c, off_name), *bytes = container_find(c, name);
    if (!off && !bytes)
        return ST_OK;
    uint64_t n_off = off ? off->n_elem : 0, n_bytes = bytes ? bytes->n_elem : 0;
    CHECK(container_need(c, off_name, DTYPE_U32, 1, &n_off, &off, err));
    CHECK(container_need(c, name, DTYPE_U8, 1, &n_bytes, &bytes, err));
    if (n_off < 1 || n_off > max + 1)
        return err_set(err, ST_FORMAT, "%s: tensor %s: %" PRIu64 " entries, wanted 1..%" PRIu64,
                       container_name(c), off_name, n_off, max + 1);
    const uint32_t *o = (const uint32_t *)(const void *)off->data;
    for (uint64_t i = 1; i < n_off; i++)
        if (o[i] < o[i - 1])
            return err_set(err, ST_FORMAT,
                           "%s: tensor %s: entry %" PRIu64 " is smaller than before",
                           container_name(c), off_name, i);
    if (o[0] != 0 || o[n_off - 1] != n_bytes)
        return err_set(err, ST_FORMAT,
                       "%s: tensor %s: runs from %" PRIu32 " to %" PRIu32
                       ", wanted 0 to %" PRIu64,
                       container_name(c), off_name, o[0], o[n_off - 1], n_bytes);
    *out = (struct vocab_strings){(uint32_t)(n_off - 1), (const char *)bytes->data, o};
    return ST_OK;
}

static enum status mapped_arrays(struct vocab_data *v, const struct container *c,
                                 struct err *err) {
    const struct ctensor *t;
    uint64_t n;
    CHECK(mapped_strings(c, "tokenizer.tokens", max_tokens, &v->tokens, err));
    CHECK(mapped_strings(c, "tokenizer.merges", 4 * max_tokens, &v->merges, err));
    n = v->tokens.n;
    if (n == 0)
        return err_set(err, ST_FORMAT, "%s: tensor tokenizer.tokens is missing or empty",
                       container_name(c));
    if (container_find(c, "tokenizer.types")) {
        CHECK(container_need(c, "tokenizer.types", DTYPE_I32, 1, &n, &t, err));
        v->types = (const int32_t *)(const void *)t->data;
    }
    if (container_find(c, "tokenizer.scores")) {
        CHECK(container_need(c, "tokenizer.scores", DTYPE_F32, 1, &n, &t, err));
        v->scores = (const float *)(const void *)t->data;
    }
    t = container_find(c, "tokenizer.charsmap");
    if (t) {
        n = t->n_elem;
        CHECK(container_need(c, "tokenizer.charsmap", DTYPE_U8, 1, &n, &t, err));
        v->charsmap = t->data;
        v->n_charsmap = (size_t)n;
    }
    return ST_OK;
}

static enum status mapped_numbers(struct vocab_data *v, const struct container *c,
                                  struct err *err) {
    char key[64];
    int64_t n;
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        snprintf(key, sizeof key, "tokenizer.%s", ids[i].key);
        if (!container_meta(c, key))
            continue;
        CHECK(container_meta_int(c, key, 0, (int64_t)v->tokens.n - 1, &n, err));
        *id_field(v, i) = (int32_t)n;
    }
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        snprintf(key, sizeof key, "tokenizer.%s", flags[i].key);
        if (!container_meta(c, key))
            continue;
        CHECK(container_meta_int(c, key, 0, 1, &n, err));
        *flag_field(v, i) = (int8_t)n;
    }
    return ST_OK;
}

enum status vocab_from_container(struct vocab_data *v, const struct container *c,
                                 struct err *err) {
    enum status st;
    start(v);
    const char *model = container_meta(c, "tokenizer.model");
    const char *pre = container_meta(c, "tokenizer.pre");
    const char *chat = container_meta(c, "chat_template");
    if (!model) {
        st = err_set(err, ST_NOT_FOUND, "%s: holds no tokenizer (metadata tokenizer.model)",
                     container_name(c));
        goto out;
    }
    v->model = model;
    v->pre = pre ? pre : "";
    v->chat_template = chat ? chat : "";
    TRY(mapped_arrays(v, c, err));
    TRY(mapped_numbers(v, c, err));
out:
    if (st != ST_OK)
        vocab_release(v);
    return st;
}

static void declare_strings(struct container_writer *w, const char *name,
                            const struct vocab_strings *s) {
    char off_name[64];
    uint64_t n_bytes = s->off[s->n], n_off = (uint64_t)s->n + 1;
    snprintf(off_name, sizeof off_name, "%s.offsets", name);
    container_writer_declare(w, name, DTYPE_U8, 1, &n_bytes);
    container_writer_declare(w, off_name, DTYPE_U32, 1, &n_off);
}

void vocab_declare(struct container_writer *w, const struct vocab_data *v) {
    char key[64];
    uint64_t n = v->tokens.n, n_charsmap = v->n_charsmap;
    container_writer_meta(w, "tokenizer.model", v->model);
    container_writer_meta(w, "tokenizer.pre", v->pre);
    container_writer_meta(w, "chat_template", v->chat_template);
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        int32_t id = *(const int32_t *)(const void *)((const char *)v + ids[i].field);
        snprintf(key, sizeof key, "tokenizer.%s", ids[i].key);
        if (id >= 0)
            container_writer_metaf(w, key, "%" PRId32, id);
    }
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        int8_t flag = *((const int8_t *)v + flags[i].field);
        snprintf(key, sizeof key, "tokenizer.%s", flags[i].key);
        if (flag >= 0)
            container_writer_metaf(w, key, "%d", flag);
    }
    declare_strings(w, "tokenizer.tokens", &v->tokens);
    if (v->merges.n)
        declare_strings(w, "tokenizer.merges", &v->merges);
    if (v->types)
        container_writer_declare(w, "tokenizer.types", DTYPE_I32, 1, &n);
    if (v->scores)
        container_writer_declare(w, "tokenizer.scores", DTYPE_F32, 1, &n);
    if (v->n_charsmap)
        container_writer_declare(w, "tokenizer.charsmap", DTYPE_U8, 1, &n_charsmap);
}

static enum status write_one(struct container_writer *w, const void *p, size_t len,
                             struct err *err) {
    CHECK(container_writer_put(w, p, len, err));
    return container_writer_end_tensor(w, err);
}

static enum status write_strings(struct container_writer *w, const struct vocab_strings *s,
                                 struct err *err) {
    CHECK(write_one(w, s->bytes, s->off[s->n], err));
    return write_one(w, s->off, ((size_t)s->n + 1) * sizeof *s->off, err);
}

enum status vocab_write(struct container_writer *w, const struct vocab_data *v,
                        struct err *err) {
    CHECK(write_strings(w, &v->tokens, err));
    if (v->merges.n)
        CHECK(write_strings(w, &v->merges, err));
    if (v->types)
        CHECK(write_one(w, v->types, v->tokens.n * sizeof *v->types, err));
    if (v->scores)
        CHECK(write_one(w, v->scores, v->tokens.n * sizeof *v->scores, err));
    if (v->n_charsmap)
        CHECK(write_one(w, v->charsmap, v->n_charsmap, err));
    return ST_OK;
}
