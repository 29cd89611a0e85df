/*
 * pretok.c - see pretok.h.
 *
 * PCRE2 with JIT where the system allows it. Three things differ from the engines that the
 * models' tokenizers were written for, and are evened out here: `\s` is Unicode's White_Space
 * there, while PCRE2 adds U+180E; their tables are of a newer Unicode (pretok_unicode.c); and a
 * limit on backtracking that is hit is an error there or goes unseen, here it is always an
 * error. The limit grows with the text, since a run of a megabyte is cut in one match that may
 * give all of it back once.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/text/pretok.h"
#include "base/mem.h"
#include "engine/text/pretok_unicode.h"
#include <pcre2.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct pretok {
    pcre2_code *code[PRETOK_MAX_STAGES]; /* [n] */
    bool jit[PRETOK_MAX_STAGES];
    size_t n;
};

struct pretok_run {
    const struct pretok *p;
    pcre2_match_data *match[PRETOK_MAX_STAGES]; /* [p->n] */
    pcre2_match_context *ctx;
    pcre2_jit_stack *stack;
    pretok_word_fn word;
    void *user;
};

#define WHITE_SPACE                                                                            \
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"

/* A class that PCRE2 and the models' engines see differently, in and outside of brackets. */
static void spell_class(bool bracket, bool negated, const char *name, size_t name_len,
                        const char *more, struct buf *out) {
    if (!bracket)
        buf_adds(out, negated ? "[^" : "[");
    buf_add(out, name, name_len);
    buf_adds(out, more);
    if (!bracket)
        buf_addc(out, ']');
}

/* Writes the pattern with \s, \S and \p{…} spelt out. \S and \P in a bracket are not needed and
 * stay PCRE2's. */
static void spell_pattern(const char *pattern, struct buf *out) {
    bool bracket = false;
    for (const char *p = pattern; *p;) {
        const char *close = p[0] == '\\' && p[1] == 'p' && p[2] == '{' ? strchr(p, '}') : NULL;
        size_t used = 1;
        if (p[0] == '\\' && (p[1] == 's' || (p[1] == 'S' && !bracket))) {
            spell_class(bracket, p[1] == 'S', "", 0, WHITE_SPACE, out);
            used = 2;
        } else if (close) {
            used = (size_t)(close + 1 - p);
            spell_class(bracket, false, p, used, pretok_young(p + 3, (size_t)(close - p) - 3),
                        out);
        } else {
            used = p[0] == '\\' && p[1] != '\0' ? 2 : 1;
            if (*p == '[' || *p == ']')
                bracket = *p == '[';
            buf_add(out, p, used);
        }
        p += used;
    }
}

static enum status pretok_compile(struct pretok *p, const char *pattern, struct err *err) {
    struct buf text = {0};
    spell_pattern(pattern, &text);
    int error;
    PCRE2_SIZE at;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)text.p, text.len, PCRE2_UTF | PCRE2_UCP, &error, &at, NULL);
    buf_release(&text);
    if (!code) {
        PCRE2_UCHAR msg[128];
        pcre2_get_error_message(error, msg, sizeof msg);
        return err_set(err, ST_FORMAT, "pre-tokenizer: %s at offset %zu of %.200s", (char *)msg,
                       (size_t)at, pattern);
    }
    p->code[p->n] = code;
    p->jit[p->n] = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
    p->n++;
    return ST_OK;
}

enum status pretok_open(const char *const *stages, struct pretok **out, struct err *err) {
    struct pretok *p = xcalloc(1, sizeof *p);
    for (size_t i = 0; i < PRETOK_MAX_STAGES && stages[i]; i++) {
        enum status st = pretok_compile(p, stages[i], err);
        if (st != ST_OK) {
            pretok_close(p);
            return st;
        }
    }
    *out = p;
    return ST_OK;
}

void pretok_close(struct pretok *p) {
    if (!p)
        return;
    for (size_t i = 0; i < p->n; i++)
        pcre2_code_free(p->code[i]);
    free(p);
}

struct pretok_run *pretok_run_new(const struct pretok *p) {
    struct pretok_run *r = xcalloc(1, sizeof *r);
    r->p = p;
    r->ctx = pcre2_match_context_create(NULL);
    r->stack = pcre2_jit_stack_create((size_t)32 << 10, (size_t)64 << 20, NULL);
    bool ok = r->ctx != NULL; /* no stack: no JIT here, or its small own one */
    for (size_t i = 0; i < p->n && ok; i++) {
        r->match[i] = pcre2_match_data_create(1, NULL);
        ok = r->match[i] != NULL;
    }
    if (!ok) {
        pretok_run_free(r);
        return NULL;
    }
    if (r->stack)
        pcre2_jit_stack_assign(r->ctx, NULL, r->stack);
    return r;
}

void pretok_run_free(struct pretok_run *r) {
    if (!r)
        return;
    for (size_t i = 0; i < r->p->n; i++)
        pcre2_match_data_free(r->match[i]);
    pcre2_match_context_free(r->ctx);
    pcre2_jit_stack_free(r->stack);
    free(r);
}

/* One match at or after from. True: *at and *end are set. */
static enum status stage_match(struct pretok_run *r, size_t stage, const char *s, size_t len,
                               size_t from, size_t *at, size_t *end, bool *found,
                               struct err *err) {
    const struct pretok *p = r->p;
    pcre2_match_data *m = r->match[stage];
    int n = p->jit[stage] ? pcre2_jit_match(p->code[stage], (PCRE2_SPTR)s, len, from,
                                            PCRE2_NO_UTF_CHECK, m, r->ctx)
                          : pcre2_match(p->code[stage], (PCRE2_SPTR)s, len, from,
                                        PCRE2_NO_UTF_CHECK, m, r->ctx);
    *found = n >= 0;
    if (n >= 0) {
        PCRE2_SIZE *v = pcre2_get_ovector_pointer(m);
        *at = v[0];
        *end = v[1];
        return ST_OK;
    }
    if (n == PCRE2_ERROR_NOMATCH)
        return ST_OK;
    PCRE2_UCHAR msg[128];
    pcre2_get_error_message(n, msg, sizeof msg);
    return err_set(err, ST_LIMIT, "pre-tokenizer: %s in a piece of %zu bytes", (char *)msg,
                   len);
}

static enum status stage_split(struct pretok_run *r, size_t stage, const char *s, size_t len,
                               struct err *err) {
    if (stage == r->p->n)
        return r->word(r->user, s, len, err);
    size_t done = 0, from = 0;
    while (from < len) {
        size_t at, end;
        bool found;
        CHECK(stage_match(r, stage, s, len, from, &at, &end, &found, err));
        if (!found)
            break;
        if (end <= at) { /* an empty match cuts nothing; go on behind the next character */
            from = at + 1;
            while (from < len && ((unsigned char)s[from] & 0xc0) == 0x80)
                from++;
            continue;
        }
        if (at > done)
            CHECK(stage_split(r, stage + 1, s + done, at - done, err));
        CHECK(stage_split(r, stage + 1, s + at, end - at, err));
        done = from = end;
    }
    return done < len ? stage_split(r, stage + 1, s + done, len - done, err) : ST_OK;
}

enum status pretok_split(struct pretok_run *r, const char *text, size_t len,
                         pretok_word_fn word, void *user, struct err *err) {
    size_t limit = 10000000 + 16 * len;
    pcre2_set_match_limit(r->ctx, limit > UINT32_MAX ? UINT32_MAX : (uint32_t)limit);
    r->word = word;
    r->user = user;
    return len > 0 ? stage_split(r, 0, text, len, err) : ST_OK;
}
