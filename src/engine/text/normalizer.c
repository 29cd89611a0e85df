/*
 * normalizer.c - see normalizer.h: the steps of one character or one match each, reading them
 * from JSON, and running them.
 *
 * Two texts are swapped between steps. A step writes what it changes with norm_emit() and
 * copies stretches that stay; both keep the marks, and the note whether the text still begins
 * where the original did, which pre-tokenizers ask for.
 */
#include "engine/text/normalizer.h"
#include "base/utf8.h"
#include "engine/model/hf_json.h"
#include "engine/text/alphabet.h"
#include "engine/text/normalizer_steps.h"
#include "engine/text/unicode_data.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_STEPS = 32, MAX_DEPTH = 8, MAX_GROWTH = 64, MAX_BYTES = 512 << 20 };

struct normalizer {
    struct norm_step step[MAX_STEPS]; /* [n] */
    size_t n;
    struct charsmap *chars; /* or NULL */
};

void norm_text_release(struct norm_text *t) {
    buf_release(&t->text);
    buf_release(&t->marks);
}

void norm_emit(struct norm_text *out, const struct norm_text *in, const char *s, size_t n,
               size_t from, size_t to) {
    if (out->text.len == 0 && n > 0 && from > 0)
        out->moved = true;
    buf_add(&out->text, s, n);
    if (!out->has_marks)
        return;
    unsigned char mark = 0;
    for (size_t i = from; i < to; i++)
        mark |= (unsigned char)in->marks.p[i];
    for (size_t i = 0; i < n; i++)
        buf_addc(&out->marks, (char)mark);
}

void norm_copy(struct norm_text *out, const struct norm_text *in, size_t from, size_t to) {
    if (from == to)
        return;
    if (out->text.len == 0 && from > 0)
        out->moved = true;
    buf_add(&out->text, in->text.p + from, to - from);
    if (out->has_marks)
        buf_add(&out->marks, in->marks.p + from, to - from);
}

/* ---- steps ---- */

static bool is_space(uint32_t cp) {
    return (cp >= 9 && cp <= 13) || cp == ' ' || cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 || cp == 0x202f ||
           cp == 0x205f || cp == 0x3000;
}

static void step_strip(const struct norm_step *s, const struct norm_text *in,
                       struct norm_text *out) {
    size_t from = 0, to = 0, len = in->text.len;
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        size_t n = utf8_decode(in->text.p + i, len - i, &cp);
        if (!is_space(cp)) {
            if (to == 0)
                from = i;
            to = i + n;
        }
        i += n;
    }
    if (to == 0) { /* blanks only */
        if (!s->left && !s->right)
            norm_copy(out, in, 0, len);
        return;
    }
    norm_copy(out, in, s->left ? from : 0, s->right ? to : len);
}

static void step_prepend(const struct norm_step *s, const struct norm_text *in,
                         struct norm_text *out) {
    if (in->text.len > 0)
        norm_emit(out, in, s->text, s->len, 0, 0);
    norm_copy(out, in, 0, in->text.len);
}

static void step_lowercase(const struct norm_step *s, const struct norm_text *in,
                           struct norm_text *out) {
    (void)s;
    for (size_t i = 0; i < in->text.len;) {
        uint32_t cp;
        char to[8];
        size_t n = utf8_decode(in->text.p + i, in->text.len - i, &cp);
        size_t k = utf8_encode(unicode_lower(cp), to);
        if (cp == 0x130) { /* the one letter whose lower case is two characters */
            memcpy(to, "i\xcc\x87", 3);
            k = 3;
        }
        norm_emit(out, in, to, k, i, i + n);
        i += n;
    }
}

static void step_strip_accents(const struct norm_step *s, const struct norm_text *in,
                               struct norm_text *out) {
    (void)s;
    for (size_t i = 0; i < in->text.len;) {
        uint32_t cp;
        size_t n = utf8_decode(in->text.p + i, in->text.len - i, &cp);
        if (cp < 0x300 || !unicode_accent(cp))
            norm_copy(out, in, i, i + n);
        i += n;
    }
}

/* SentencePiece's "nmt" rules: control characters go, separators become blanks. */
static void step_nmt(const struct norm_step *s, const struct norm_text *in,
                     struct norm_text *out) {
    (void)s;
    for (size_t i = 0; i < in->text.len;) {
        uint32_t cp;
        size_t n = utf8_decode(in->text.p + i, in->text.len - i, &cp);
        bool gone = (cp >= 1 && cp <= 8) || cp == 0xb || (cp >= 0xe && cp <= 0x1f) ||
                    cp == 0x7f || cp == 0x8f || cp == 0x9f;
        bool blank = cp == 9 || cp == 0xa || cp == 0xc || cp == 0xd || cp == 0x1680 ||
                     (cp >= 0x200b && cp <= 0x200f) || cp == 0x2028 || cp == 0x2029 ||
                     cp == 0x2581 || cp == 0xfeff || cp == 0xfffd;
        if (blank)
            norm_emit(out, in, " ", 1, i, i + n);
        else if (!gone)
            norm_copy(out, in, i, i + n);
        i += n;
    }
}

static void step_byte_level(const struct norm_step *s, const struct norm_text *in,
                            struct norm_text *out) {
    struct buf one = {0};
    (void)s;
    for (size_t i = 0; i < in->text.len; i++) {
        buf_clear(&one);
        alphabet_encode(in->text.p + i, 1, &one);
        norm_emit(out, in, one.p, one.len, i, i + 1);
    }
    buf_release(&one);
}

/* Where the search goes on behind an empty match; beyond len: nowhere. */
static size_t next_char(const char *s, size_t len, size_t i) {
    for (i++; i < len && ((unsigned char)s[i] & 0xc0) == 0x80;)
        i++;
    return i;
}

static enum status run_replace(const struct norm_step *s, struct regex_run *run,
                               const struct norm_text *in, struct norm_text *out,
                               struct err *err) {
    const char *t = buf_str(&in->text);
    size_t len = in->text.len, done = 0, from = 0;
    bool matched = false;
    while (from <= len && len > 0) {
        size_t at, end;
        bool found;
        CHECK(regex_find(s->regex, run, t, len, from, &at, &end, &found, err));
        if (!found)
            break;
        if (at > done || end > done || !matched) { /* not empty right behind a match */
            norm_copy(out, in, done, at);
            norm_emit(out, in, s->text, s->len, at, end);
            done = end;
            matched = true;
        }
        from = at == end ? next_char(t, len, end) : end;
    }
    norm_copy(out, in, done, len);
    return ST_OK;
}

enum status normalizer_run(const struct normalizer *n, struct regex_run *run,
                           struct norm_text *t, struct norm_text *tmp, struct err *err) {
    size_t max = t->text.len * MAX_GROWTH + 4096;
    for (size_t i = 0; i < n->n; i++) {
        const struct norm_step *s = &n->step[i];
        buf_clear(&tmp->text);
        buf_clear(&tmp->marks);
        tmp->has_marks = t->has_marks;
        tmp->moved = t->moved;
        tmp->first = t->first;
        if (s->run)
            s->run(s, t, tmp);
        else
            CHECK(run_replace(s, run, t, tmp, err));
        struct norm_text swap = *t;
        *t = *tmp;
        *tmp = swap;
        if (t->text.len > max || t->text.len > MAX_BYTES)
            return err_set(err, ST_LIMIT, "normalizer: a text grows to %zu bytes", t->text.len);
    }
    return ST_OK;
}

/* ---- from JSON ---- */

static enum status read_plain(struct norm_step *s, const struct hf_json *j, struct err *err) {
    (void)s, (void)j, (void)err;
    return ST_OK;
}

static enum status read_strip(struct norm_step *s, const struct hf_json *j, struct err *err) {
    s->left = s->right = true;
    CHECK(hf_bool(j, "strip_left", &s->left, err));
    return hf_bool(j, "strip_right", &s->right, err);
}

static enum status read_text(struct norm_step *s, const struct hf_json *j, const char *key,
                             struct err *err) {
    const json_t *text = json_object_get(j->root, key);
    if (!json_is_string(text) || json_string_length(text) > 1024)
        return err_set(err, ST_FORMAT, "%s: %s is no short text", j->file, key);
    s->len = json_string_length(text);
    s->text = xmalloc(s->len + 1);
    memcpy(s->text, json_string_value(text), s->len + 1);
    return ST_OK;
}

static enum status read_prepend(struct norm_step *s, const struct hf_json *j, struct err *err) {
    return read_text(s, j, "prepend", err);
}

static enum status read_replace(struct norm_step *s, const struct hf_json *j, struct err *err) {
    const json_t *p = json_object_get(j->root, "pattern"), *re = json_object_get(p, "Regex"),
                 *text = json_object_get(p, "String");
    CHECK(read_text(s, j, "content", err));
    if (!json_is_string(re) && !json_is_string(text))
        return err_set(err, ST_FORMAT, "%s: pattern is neither a String nor a Regex", j->file);
    const json_t *one = json_is_string(re) ? re : text;
    return regex_open(json_string_value(one), json_string_length(one),
                      one == re ? REGEX_ONIG : REGEX_LITERAL, &s->regex, err);
}

static enum status read_sentencepiece(struct norm_step *s, const struct hf_json *j,
                                      struct err *err) {
    s->prefix = s->squeeze = s->escape = true;
    CHECK(hf_bool(j, "add_dummy_prefix", &s->prefix, err));
    CHECK(hf_bool(j, "remove_extra_whitespaces", &s->squeeze, err));
    CHECK(hf_bool(j, "escape_whitespaces", &s->escape, err));
    CHECK(hf_bool(j, "first_only", &s->first_only, err));
    return hf_bool(j, "suffix", &s->suffix, err);
}

static const struct norm_type {
    const char *type;
    void (*run)(const struct norm_step *s, const struct norm_text *in, struct norm_text *out);
    enum status (*read)(struct norm_step *s, const struct hf_json *j, struct err *err);
    bool compose, compat;
} TYPES[] = {
    {"NFC", norm_unicode, read_plain, true, false},
    {"NFD", norm_unicode, read_plain, false, false},
    {"NFKC", norm_unicode, read_plain, true, true},
    {"NFKD", norm_unicode, read_plain, false, true},
    {"Lowercase", step_lowercase, read_plain, false, false},
    {"Strip", step_strip, read_strip, false, false},
    {"StripAccents", step_strip_accents, read_plain, false, false},
    {"Prepend", step_prepend, read_prepend, false, false},
    {"Replace", NULL, read_replace, false, false},
    {"Precompiled", norm_precompiled, read_plain, false, false},
    {"Nmt", step_nmt, read_plain, false, false},
    {"ByteLevel", step_byte_level, read_plain, false, false},
    {"SentencePiece", norm_sentencepiece, read_sentencepiece, false, false},
};

static enum status add_step(struct normalizer *n, const struct norm_type *type,
                            const struct hf_json *j, struct err *err) {
    if (n->n == MAX_STEPS)
        return err_set(err, ST_LIMIT, "%s: more than %d steps", j->file, (int)MAX_STEPS);
    struct norm_step *s = &n->step[n->n++];
    *s = (struct norm_step){
        .run = type->run, .compose = type->compose, .compat = type->compat, .chars = n->chars};
    return type->read(s, j, err);
}

static enum status add_any(struct normalizer *n, const json_t *json, int depth,
                           struct err *err) {
    struct hf_json j = {"normalizer", (json_t *)json};
    const char *type;
    if (!json_is_object(json))
        return err_set(err, ST_FORMAT, "normalizer: is no object");
    CHECK(hf_str(&j, "type", true, &type, err));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(json, "normalizers");
        if (!json_is_array(list) || depth == MAX_DEPTH)
            return err_set(err, ST_FORMAT,
                           "normalizer: a Sequence without a list, or nested more than %d deep",
                           (int)MAX_DEPTH);
        for (size_t i = 0; i < json_array_size(list); i++)
            CHECK(add_any(n, json_array_get(list, i), depth + 1, err));
        return ST_OK;
    }
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
        if (strcmp(TYPES[i].type, type) == 0)
            return add_step(n, &TYPES[i], &j, err);
    struct buf known = {0};
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
        buf_addf(&known, ", %s", TYPES[i].type);
    err_set(err, ST_UNSUPPORTED,
            "normalizer: type \"%.40s\" is not supported; known are Sequence%s", type,
            buf_str(&known));
    buf_release(&known);
    return ST_UNSUPPORTED;
}

enum status normalizer_from_json(const json_t *json, const uint8_t *charsmap, size_t n_charsmap,
                                 struct normalizer **out, struct err *err) {
    struct normalizer *n = xcalloc(1, sizeof *n);
    enum status st = charsmap_open(charsmap, n_charsmap, &n->chars, err);
    if (st == ST_OK && json && !json_is_null(json))
        st = add_any(n, json, 0, err);
    if (st != ST_OK) {
        if (err && strncmp(err->msg, "normalizer", 10) != 0)
            err_prefix(err, "normalizer");
        normalizer_close(n);
        return st;
    }
    *out = n;
    return ST_OK;
}

void normalizer_close(struct normalizer *n) {
    if (!n)
        return;
    for (size_t i = 0; i < n->n; i++) {
        free(n->step[i].text);
        regex_close(n->step[i].regex);
    }
    charsmap_close(n->chars);
    free(n);
}

void normalizer_keep(struct normalizer *n, const struct added *texts) {
    for (size_t i = 0; i < n->n; i++)
        n->step[i].keep = texts;
}

bool normalizer_empty(const struct normalizer *n) {
    return n->n == 0;
}
