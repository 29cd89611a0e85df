/*
 * decoder.c - see decoder.h.
 *
 * Steps run over one token's text. "Fuse" (and "ByteLevel", whose result is one text) ends
 * them: behind it the library works on the whole text, of which only taking a character from
 * its beginning is known here, since nothing else is published and a text that is streamed
 * can't be changed behind its end.
 */
#include "engine/text/decoder.h"
#include "engine/model/hf_json.h"
#include "engine/text/alphabet.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STEPS = 16, MAX_DEPTH = 8 };

enum step_kind { REPLACE, BYTE_FALLBACK, BYTE_LEVEL, METASPACE, STRIP, PREFIX_BLANK };

struct step {
    enum step_kind kind;
    struct regex *regex; /* REPLACE; owned */
    char *text;          /* REPLACE: [len]; owned */
    size_t len;
    char mark[8]; /* METASPACE, STRIP: one character, terminated */
    bool never;   /* METASPACE: the first token keeps its blank */
    int start, stop;
};

struct decoder {
    struct step step[MAX_STEPS]; /* [n] */
    size_t n;
    bool fused;
    struct decoder_rest rest;
};

const struct decoder_rest *decoder_rest(const struct decoder *d) {
    return &d->rest;
}

/* The byte of "<0xHH>", or -1. */
static int byte_token(const char *s, size_t len) {
    if (len != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>' || !isxdigit((unsigned char)s[3]) ||
        !isxdigit((unsigned char)s[4]))
        return -1;
    return (int)strtol((char[]){s[3], s[4], 0}, NULL, 16);
}

static enum status replace(const struct step *p, struct regex_run *run, const struct buf *in,
                           struct buf *out, struct err *err) {
    size_t done = 0;
    while (done < in->len) {
        size_t at, end;
        bool found;
        CHECK(regex_find(p->regex, run, in->p, in->len, done, &at, &end, &found, err));
        if (!found || end == at) /* an empty match is no use here */
            break;
        buf_add(out, in->p + done, at - done);
        buf_add(out, p->text, p->len);
        done = end;
    }
    buf_add(out, buf_str(in) + done, in->len - done);
    return ST_OK;
}

static void metaspace(const struct step *p, const struct buf *in, bool first, struct buf *out) {
    size_t n = strlen(p->mark);
    for (size_t i = 0; i < in->len;) {
        if (in->len - i >= n && memcmp(in->p + i, p->mark, n) == 0) {
            if (!first || p->never)
                buf_addc(out, ' ');
            i += n;
        } else {
            buf_addc(out, in->p[i++]);
        }
    }
}

static void strip(const struct step *p, const struct buf *in, struct buf *out) {
    size_t n = strlen(p->mark), from = 0, to = in->len;
    for (int i = 0; i < p->start && to - from >= n && !memcmp(in->p + from, p->mark, n); i++)
        from += n;
    for (int i = 0; i < p->stop && to - from >= n && !memcmp(in->p + to - n, p->mark, n); i++)
        to -= n;
    buf_add(out, buf_str(in) + from, to - from);
}

static enum status run_step(const struct step *p, struct regex_run *run, const struct buf *in,
                            bool first, struct buf *out, bool *is_byte, struct err *err) {
    int byte;
    switch (p->kind) {
    case REPLACE:
        return replace(p, run, in, out, err);
    case BYTE_FALLBACK:
        byte = byte_token(buf_str(in), in->len);
        *is_byte = byte >= 0;
        if (byte >= 0)
            buf_addc(out, (char)byte);
        else
            buf_add(out, in->p, in->len);
        return ST_OK;
    case BYTE_LEVEL:
        if (!alphabet_decode(buf_str(in), in->len, out))
            buf_add(out, in->p, in->len);
        return ST_OK;
    case METASPACE:
        metaspace(p, in, first, out);
        return ST_OK;
    case STRIP:
        strip(p, in, out);
        return ST_OK;
    case PREFIX_BLANK:
        if (!first)
            buf_addc(out, ' ');
        buf_add(out, in->p, in->len);
        return ST_OK;
    }
    return ST_OK;
}

enum status decoder_token(const struct decoder *d, struct regex_run *run, const char *s,
                          size_t len, bool first, struct buf *out, bool *is_byte,
                          struct err *err) {
    struct buf a = {0}, b = {0};
    bool byte = false;
    enum status st = ST_OK;
    buf_add(&a, s, len);
    for (size_t i = 0; i < d->n && st == ST_OK; i++) {
        buf_clear(&b);
        st = run_step(&d->step[i], run, &a, first, &b, &byte, err);
        struct buf swap = a;
        a = b;
        b = swap;
    }
    buf_add(out, buf_str(&a), a.len);
    if (is_byte)
        *is_byte = byte;
    buf_release(&a);
    buf_release(&b);
    return st;
}

/* ---- from JSON ---- */

static enum status read_mark(const struct hf_json *j, const char *key, const char *missing,
                             char mark[8], struct err *err) {
    const char *s = missing;
    CHECK(hf_str(j, key, false, &s, err));
    if (!*s || strlen(s) >= 8)
        return err_set(err, ST_FORMAT, "decoder: %s is not one character", key);
    strcpy(mark, s);
    return ST_OK;
}

static enum status read_replace(struct decoder *d, struct step *p, const struct hf_json *j,
                                struct err *err) {
    const json_t *pattern = json_object_get(j->root, "pattern"),
                 *re = json_object_get(pattern, "Regex"),
                 *text = json_object_get(pattern, "String"),
                 *content = json_object_get(j->root, "content"),
                 *one = json_is_string(re) ? re : text;
    if (!json_is_string(one) || !json_is_string(content))
        return err_set(err, ST_FORMAT, "decoder: Replace without a pattern or content");
    if (d->fused && !(one == text && json_string_length(one) == 1))
        return err_set(err, ST_UNSUPPORTED, "decoder: Replace behind Fuse is not supported");
    p->kind = REPLACE;
    p->len = json_string_length(content);
    if (p->len > 1024)
        return err_set(err, ST_LIMIT, "decoder: Replace by %zu bytes", p->len);
    p->text = xmalloc(p->len + 1);
    memcpy(p->text, json_string_value(content), p->len + 1);
    return regex_open(json_string_value(one), json_string_length(one),
                      one == re ? REGEX_ONIG : REGEX_LITERAL, &p->regex, err);
}

static enum status read_byte_fallback(struct decoder *d, struct step *p,
                                      const struct hf_json *j, struct err *err) {
    (void)j, (void)err;
    p->kind = BYTE_FALLBACK;
    d->rest.byte_runs = true;
    return ST_OK;
}

static enum status read_byte_level(struct decoder *d, struct step *p, const struct hf_json *j,
                                   struct err *err) {
    (void)j, (void)err;
    p->kind = BYTE_LEVEL;
    d->fused = true;
    return ST_OK;
}

static enum status read_metaspace(struct decoder *d, struct step *p, const struct hf_json *j,
                                  struct err *err) {
    const char *scheme = NULL;
    bool prefix = true;
    p->kind = METASPACE;
    CHECK(read_mark(j, "replacement", "\xe2\x96\x81", p->mark, err));
    CHECK(hf_str(j, "prepend_scheme", false, &scheme, err));
    CHECK(hf_bool(j, "add_prefix_space", &prefix, err));
    p->never = scheme ? strcmp(scheme, "never") == 0 : !prefix;
    d->rest.first_differs |= !p->never;
    return ST_OK;
}

static enum status read_strip(struct decoder *d, struct step *p, const struct hf_json *j,
                              struct err *err) {
    p->kind = STRIP;
    CHECK(read_mark(j, "content", " ", p->mark, err));
    CHECK(hf_int(j, "start", false, 0, 1000, &p->start, err));
    CHECK(hf_int(j, "stop", false, 0, 1000, &p->stop, err));
    if (!d->fused)
        return ST_OK;
    if (p->stop > 0 || d->rest.strip_n > 0)
        return err_set(err, ST_UNSUPPORTED,
                       "decoder: Strip of the end of the whole text is not supported");
    memcpy(d->rest.strip, p->mark, sizeof p->mark);
    d->rest.strip_n = p->start;
    p->start = 0; /* nothing for one token */
    return ST_OK;
}

static enum status read_fuse(struct decoder *d, struct step *p, const struct hf_json *j,
                             struct err *err) {
    (void)j, (void)err;
    p->kind = STRIP; /* of nothing */
    d->fused = true;
    return ST_OK;
}

static const struct {
    const char *type;
    enum status (*read)(struct decoder *d, struct step *p, const struct hf_json *j,
                        struct err *err);
} TYPES[] = {
    {"ByteLevel", read_byte_level},
    {"ByteFallback", read_byte_fallback},
    {"Fuse", read_fuse},
    {"Strip", read_strip},
    {"Replace", read_replace},
    {"Metaspace", read_metaspace},
};

static enum status add_any(struct decoder *d, const json_t *json, int depth, struct err *err) {
    struct hf_json j = {"decoder", (json_t *)json};
    const char *type;
    if (!json_is_object(json))
        return err_set(err, ST_FORMAT, "decoder: is no object");
    CHECK(hf_str(&j, "type", true, &type, err));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(json, "decoders");
        if (!json_is_array(list) || depth == MAX_DEPTH)
            return err_set(err, ST_FORMAT,
                           "decoder: a Sequence without a list, or nested more than %d deep",
                           (int)MAX_DEPTH);
        for (size_t i = 0; i < json_array_size(list); i++)
            CHECK(add_any(d, json_array_get(list, i), depth + 1, err));
        return ST_OK;
    }
    if (d->n == MAX_STEPS)
        return err_set(err, ST_LIMIT, "decoder: more than %d steps", (int)MAX_STEPS);
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
        if (strcmp(TYPES[i].type, type) == 0)
            return TYPES[i].read(d, &d->step[d->n++], &j, err);
    struct buf known = {0};
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
        buf_addf(&known, ", %s", TYPES[i].type);
    err_set(err, ST_UNSUPPORTED,
            "decoder: type \"%.40s\" is not supported; known are Sequence%s", type,
            buf_str(&known));
    buf_release(&known);
    return ST_UNSUPPORTED;
}

enum status decoder_from_json(const json_t *json, struct decoder **out, struct err *err) {
    struct decoder *d = xcalloc(1, sizeof *d);
    enum status st = ST_OK;
    if (json && !json_is_null(json)) {
        st = add_any(d, json, 0, err);
    } else {
        d->step[d->n++].kind = PREFIX_BLANK;
        d->rest.first_differs = true;
    }
    if (st != ST_OK) {
        if (err && strncmp(err->msg, "decoder", 7) != 0)
            err_prefix(err, "decoder");
        decoder_close(d);
        return st;
    }
    *out = d;
    return ST_OK;
}

void decoder_close(struct decoder *d) {
    if (!d)
        return;
    for (size_t i = 0; i < d->n; i++) {
        regex_close(d->step[i].regex);
        free(d->step[i].text);
    }
    free(d);
}
