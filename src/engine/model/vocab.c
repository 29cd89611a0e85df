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
    void **p; /* [n] */
    size_t n, cap;
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

void vocab_init(struct vocab_data *v) {
    *v = (struct vocab_data){.model = "",
                             .pre = "",
                             .chat_template = "",
                             .arch = "",
                             .name = "",
                             .pipeline = "",
                             .owned = xcalloc(1, sizeof(struct owned))};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        *id_field(v, i) = -1;
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        *flag_field(v, i) = -1;
}

void *vocab_own(struct vocab_data *v, void *takes_p) {
    struct owned *o = v->owned;
    if (o->n == o->cap) {
        o->cap = o->cap ? 2 * o->cap : 16;
        o->p = xreallocarray(o->p, o->cap, sizeof *o->p);
    }
    return o->p[o->n++] = takes_p;
}

void vocab_release(struct vocab_data *v) {
    struct owned *o = v->owned;
    for (size_t i = 0; o && i < o->n; i++)
        free(o->p[i]);
    if (o)
        free(o->p);
    free(o);
    *v = (struct vocab_data){0};
}

void vocab_own_strings(struct vocab_data *v, struct vocab_strings *out,
                       const struct strlist *l) {
    struct buf bytes = {0};
    uint32_t *off = vocab_own(v, xreallocarray(NULL, l->n + 1, sizeof *off));
    off[0] = 0;
    buf_reserve(&bytes, 1);
    for (size_t i = 0; i < l->n; i++) {
        buf_adds(&bytes, l->v[i]);
        off[i + 1] = (uint32_t)bytes.len;
    }
    *out = (struct vocab_strings){(uint32_t)l->n, vocab_own(v, buf_take(&bytes)), off};
}

static bool template_name_ok(const char *name) {
    size_t n = strlen(name);
    for (const char *p = name; *p; p++)
        if ((unsigned char)*p <= ' ' || *p == 127 || strchr("/\\\"'", *p))
            return false;
    return n > 0 && n <= VOCAB_TEMPLATE_NAME && utf8_valid(name, n);
}

enum status vocab_add_template(struct vocab_data *v, struct strlist *names,
                               struct strlist *texts, const char *where, const char *name,
                               const char *text, size_t len, struct err *err) {
    if (!template_name_ok(name))
        return err_set(err, ST_FORMAT,
                       "%s: \"%.80s\" is no name of a chat template, wanted 1 to %d bytes "
                       "without blanks, quotes and slashes",
                       where, name, VOCAB_TEMPLATE_NAME);
    if (len > VOCAB_TEMPLATE_BYTES)
        return err_set(err, ST_LIMIT,
                       "%s: chat template %s has %zu bytes, at most %d are taken", where, name,
                       len, VOCAB_TEMPLATE_BYTES);
    if (!utf8_valid(text, len) || memchr(text, 0, len))
        return err_set(err, ST_FORMAT,
                       "%s: chat template %s is not valid UTF-8 text at byte %zu", where, name,
                       strnlen(text, utf8_valid_prefix(text, len)));
    bool twice = strcmp(name, "default") == 0 && *v->chat_template;
    for (size_t i = 0; i < names->n; i++)
        twice |= strcmp(names->v[i], name) == 0;
    if (twice)
        return err_set(err, ST_FORMAT, "%s: chat template %s is there twice", where, name);
    if (names->n >= VOCAB_TEMPLATES)
        return err_set(err, ST_LIMIT, "%s: more than %d chat templates", where,
                       VOCAB_TEMPLATES);
    if (strcmp(name, "default") == 0) {
        v->chat_template = vocab_own(v, xstrndup(text, len));
        return ST_OK;
    }
    strlist_add(names, name);
    strlist_addn(texts, text, len);
    return ST_OK;
}

/* A string value as valid UTF-8, terminated. */
static enum status gguf_text(struct vocab_data *v, const struct gguf *g, const char *key,
                             bool required, const char **out, struct err *err) {
    struct gguf_str s = {"", 0};
    struct buf b = {0};
    CHECK(gguf_get_str(g, key, required, &s, err));
    utf8_scrub(&b, s.p, s.len);
    buf_adds(&b, "");
    *out = vocab_own(v, b.p ? buf_take(&b) : xstrdup(""));
    return ST_OK;
}

static enum status gguf_strings(struct vocab_data *v, const struct gguf *g, const char *key,
                                bool required, uint64_t max, struct vocab_strings *out,
                                struct err *err) {
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
    char *bytes = vocab_own(v, xmalloc((size_t)total + 1));
    uint32_t *off = vocab_own(v, xreallocarray(NULL, (size_t)n + 1, sizeof *off));
    uint32_t at = 0, i = 0;
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

static enum status gguf_arrays(struct vocab_data *v, const struct gguf *g, struct err *err) {
    const unsigned char *p;
    uint64_t n;
    CHECK(gguf_strings(v, g, "tokenizer.ggml.tokens", true, max_tokens, &v->tokens, err));
    CHECK(gguf_strings(v, g, "tokenizer.ggml.merges", false, 4 * max_tokens, &v->merges, err));
    if (v->tokens.n == 0)
        return err_set(err, ST_FORMAT, "%s: key tokenizer.ggml.tokens is empty", gguf_name(g));
    CHECK(gguf_get_i32s(g, "tokenizer.ggml.token_type", false, &n, &p, err));
    if (p) {
        if (n != v->tokens.n)
            return wrong_count(gguf_name(g), "tokenizer.ggml.token_type", n, v->tokens.n, err);
        v->types = memcpy(vocab_own(v, xreallocarray(NULL, v->tokens.n, sizeof *v->types)), p,
                          v->tokens.n * sizeof *v->types);
    }
    CHECK(gguf_get_f32s(g, "tokenizer.ggml.scores", false, &n, &p, err));
    if (p) {
        if (n != v->tokens.n)
            return wrong_count(gguf_name(g), "tokenizer.ggml.scores", n, v->tokens.n, err);
        v->scores = memcpy(vocab_own(v, xreallocarray(NULL, v->tokens.n, sizeof *v->scores)), p,
                           v->tokens.n * sizeof *v->scores);
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

/* tokenizer.chat_templates names the further ones, each in tokenizer.chat_template.NAME. */
static enum status gguf_templates(struct vocab_data *v, const struct gguf *g, struct err *err) {
    struct gguf_str_iter it;
    struct gguf_str s;
    struct strlist names = {0}, texts = {0};
    char name[VOCAB_TEMPLATE_NAME + 2], key[VOCAB_TEMPLATE_NAME + 32];
    uint64_t n;
    enum status st;
    s = (struct gguf_str){"", 0};
    TRY(gguf_get_str(g, "tokenizer.chat_template", false, &s, err));
    if (s.len > VOCAB_TEMPLATE_BYTES)
        TRY(err_set(err, ST_LIMIT,
                    "%s: key tokenizer.chat_template has %" PRIu64
                    " bytes, at most %d are taken",
                    gguf_name(g), (uint64_t)s.len, VOCAB_TEMPLATE_BYTES));
    TRY(gguf_text(v, g, "tokenizer.chat_template", false, &v->chat_template, err));
    TRY(gguf_get_strings(g, "tokenizer.chat_templates", false, &n, &it, err));
    while (gguf_next_string(&it, &s)) {
        snprintf(name, sizeof name, "%.*s", (int)(s.len < 99 ? s.len : 99), s.p);
        snprintf(key, sizeof key, "tokenizer.chat_template.%s", name);
        if (!strcmp(name, "default") && *v->chat_template)
            continue;
        TRY(gguf_get_str(g, key, true, &s, err));
        TRY(vocab_add_template(v, &names, &texts, gguf_name(g), name, s.p, s.len, err));
    }
    vocab_own_strings(v, &v->template_names, &names);
    vocab_own_strings(v, &v->template_texts, &texts);
out:
    strlist_release(&names);
    strlist_release(&texts);
    return st;
}

enum status vocab_from_gguf(struct vocab_data *v, const struct gguf *g, struct err *err) {
    enum status st;
    vocab_init(v);
    if (!gguf_find(g, "tokenizer.ggml.model")) {
        st = err_set(err, ST_NOT_FOUND, "%s: holds no tokenizer (key tokenizer.ggml.model)",
                     gguf_name(g));
        goto out;
    }
    TRY(gguf_text(v, g, "tokenizer.ggml.model", true, &v->model, err));
    TRY(gguf_text(v, g, "tokenizer.ggml.pre", false, &v->pre, err));
    TRY(gguf_text(v, g, "general.architecture", false, &v->arch, err));
    TRY(gguf_text(v, g, "general.name", false, &v->name, err));
    TRY(gguf_templates(v, g, err));
    TRY(gguf_arrays(v, g, err));
    TRY(gguf_charsmap(v, g, err));
    TRY(gguf_numbers(v, g, err));
out:
    if (st != ST_OK)
        vocab_release(v);
    return st;
}

/* NAME and NAME.offsets; out stays empty when there is none. The offsets are copied: of a file
 * that is cut after they were checked others would be read. */
static enum status mapped_strings(struct vocab_data *v, const struct container *c,
                                  const char *name, uint64_t max, struct vocab_strings *out,
                                  struct err *err) {
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
    uint32_t *o = vocab_own(v, xreallocarray(NULL, (size_t)n_off, sizeof *o));
    memcpy(o, off->data, (size_t)n_off * sizeof *o);
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

/* Merges and ends of generation: lists of ids, below the number of tokens. Zeros, which are
 * read where a file was cut, are such ids too. */
static enum status mapped_ids(struct vocab_data *v, const struct container *c,
                              struct err *err) {
    const struct ctensor *m = container_find(c, "tokenizer.merge_ids"),
                         *e = container_find(c, "tokenizer.eog");
    uint64_t shape[2] = {m && m->n_dims == 2 ? m->shape[0] : 0, 3};
    uint32_t worst = 0;
    if (m) {
        CHECK(container_need(c, "tokenizer.merge_ids", DTYPE_U32, 2, shape, &m, err));
        if (shape[0] > 4 * max_tokens)
            return wrong_count(container_name(c), "tokenizer.merge_ids", shape[0],
                               (uint32_t)(4 * max_tokens), err);
        v->merge_ids = (const uint32_t *)(const void *)m->data;
        v->n_merge_ids = (uint32_t)shape[0];
        for (size_t i = 0; i < 3 * (size_t)v->n_merge_ids; i++)
            worst = v->merge_ids[i] > worst ? v->merge_ids[i] : worst;
    }
    if (e) {
        shape[0] = e->n_elem;
        CHECK(container_need(c, "tokenizer.eog", DTYPE_I32, 1, shape, &e, err));
        v->eog = (const int32_t *)(const void *)e->data;
        v->n_eog = (uint32_t)e->n_elem;
        for (size_t i = 0; i < v->n_eog; i++)
            worst = (uint32_t)v->eog[i] > worst ? (uint32_t)v->eog[i] : worst;
    }
    if (worst >= v->tokens.n)
        return err_set(err, ST_FORMAT,
                       "%s: tokenizer.merge_ids or tokenizer.eog names token %" PRIu32
                       ", the vocabulary has %" PRIu32,
                       container_name(c), worst, v->tokens.n);
    return ST_OK;
}

static enum status mapped_arrays(struct vocab_data *v, const struct container *c,
                                 struct err *err) {
    const struct ctensor *t;
    uint64_t n;
    CHECK(mapped_strings(v, c, "tokenizer.tokens", max_tokens, &v->tokens, err));
    CHECK(mapped_strings(v, c, "tokenizer.merges", 4 * max_tokens, &v->merges, err));
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
    if (container_find(c, "tokenizer.scores64")) {
        CHECK(container_need(c, "tokenizer.scores64", DTYPE_F64, 1, &n, &t, err));
        v->scores64 = (const double *)(const void *)t->data;
    }
    if (container_find(c, "tokenizer.added")) {
        CHECK(container_need(c, "tokenizer.added", DTYPE_U8, 1, &n, &t, err));
        v->added = t->data;
    }
    CHECK(mapped_ids(v, c, err));
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

/* The first that is there; files of the first layout have the second of each pair only. */
static const char *meta_text(const struct container *c, const char *key, const char *older) {
    const char *text = container_meta(c, key);
    if (!text && older)
        text = container_meta(c, older);
    return text ? text : "";
}

/* Checked as those of any file: they are printed, parsed and compared. */
static enum status mapped_templates(struct vocab_data *v, const struct container *c,
                                    struct err *err) {
    struct vocab_strings n = {0}, t = {0};
    struct strlist names = {0}, texts = {0};
    enum status st;
    TRY(mapped_strings(v, c, "chat_templates.names", VOCAB_TEMPLATES, &n, err));
    TRY(mapped_strings(v, c, "chat_templates", VOCAB_TEMPLATES, &t, err));
    if (n.n != t.n)
        TRY(wrong_count(container_name(c), "chat_templates.names", n.n, t.n, err));
    for (uint32_t i = 0; i < n.n; i++) {
        size_t len, name_len;
        const char *text = vocab_string(&t, i, &len), *name = vocab_string(&n, i, &name_len);
        char *own = xstrndup(name, name_len);
        st = vocab_add_template(v, &names, &texts, container_name(c), own, text, len, err);
        free(own);
        if (st != ST_OK)
            goto out;
    }
    vocab_own_strings(v, &v->template_names, &names);
    vocab_own_strings(v, &v->template_texts, &texts);
out:
    strlist_release(&names);
    strlist_release(&texts);
    return st;
}

enum status vocab_from_container(struct vocab_data *v, const struct container *c,
                                 struct err *err) {
    enum status st;
    vocab_init(v);
    const char *model = container_meta(c, "tokenizer.model");
    if (!model) {
        st = err_set(err, ST_NOT_FOUND, "%s: holds no tokenizer (metadata tokenizer.model)",
                     container_name(c));
        goto out;
    }
    v->model = model;
    v->pre = meta_text(c, "tokenizer.pre", NULL);
    v->pipeline = meta_text(c, "tokenizer.pipeline", NULL);
    v->chat_template = meta_text(c, "chat_template", NULL);
    v->arch = meta_text(c, "tokenizer.arch", "architecture");
    v->name = meta_text(c, "tokenizer.name", "title");
    TRY(mapped_arrays(v, c, err));
    TRY(mapped_templates(v, c, err));
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
    if (*v->pipeline)
        container_writer_meta(w, "tokenizer.pipeline", v->pipeline);
    container_writer_meta(w, "chat_template", v->chat_template);
    if (*v->arch)
        container_writer_meta(w, "tokenizer.arch", v->arch);
    if (*v->name)
        container_writer_meta(w, "tokenizer.name", v->name);
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
    if (v->scores64)
        container_writer_declare(w, "tokenizer.scores64", DTYPE_F64, 1, &n);
    if (v->added)
        container_writer_declare(w, "tokenizer.added", DTYPE_U8, 1, &n);
    if (v->n_merge_ids)
        container_writer_declare(w, "tokenizer.merge_ids", DTYPE_U32, 2,
                                 (const uint64_t[]){v->n_merge_ids, 3});
    if (v->n_eog)
        container_writer_declare(w, "tokenizer.eog", DTYPE_I32, 1,
                                 (const uint64_t[]){v->n_eog});
    if (v->n_charsmap)
        container_writer_declare(w, "tokenizer.charsmap", DTYPE_U8, 1, &n_charsmap);
    if (v->template_names.n) {
        declare_strings(w, "chat_templates.names", &v->template_names);
        declare_strings(w, "chat_templates", &v->template_texts);
    }
}

bool vocab_is_template(const char *name) {
    static const char *const names[] = {"chat_templates.names", "chat_templates.names.offsets",
                                        "chat_templates", "chat_templates.offsets"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
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
    if (v->scores64)
        CHECK(write_one(w, v->scores64, v->tokens.n * sizeof *v->scores64, err));
    if (v->added)
        CHECK(write_one(w, v->added, v->tokens.n, err));
    if (v->n_merge_ids)
        CHECK(write_one(w, v->merge_ids, v->n_merge_ids * 3 * sizeof *v->merge_ids, err));
    if (v->n_eog)
        CHECK(write_one(w, v->eog, v->n_eog * sizeof *v->eog, err));
    if (v->n_charsmap)
        CHECK(write_one(w, v->charsmap, v->n_charsmap, err));
    if (v->template_names.n) {
        CHECK(write_strings(w, &v->template_names, err));
        CHECK(write_strings(w, &v->template_texts, err));
    }
    return ST_OK;
}
