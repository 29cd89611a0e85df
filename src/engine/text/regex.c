/*
 * regex.c - see regex.h.
 *
 * PCRE2 with JIT where the system allows it. Three things differ from the engines that the
 * models' tokenizers were written for, and are evened out before compiling: `\s` is Unicode's
 * White_Space there, while PCRE2 adds U+180E; their tables are of a newer Unicode
 * (pretok_unicode.c); and a limit on backtracking that is hit is an error there or goes unseen,
 * here it is always an error. The limit grows with the text, since a run of a megabyte is cut
 * in one match that may give all of it back once.
 *
 * An expression may try each start of a long run again ("\s+$"), or look to its end for each
 * match ("\d{1,3}(?=(?:\d{3})*\b)"), which takes quadratic time. JIT's code does not count
 * steps, and the interpreter's limit is one for each start. So an expression that is not one of
 * ours is tried on short runs of several characters when it is compiled; one that needs more
 * than linear time there is steep, and run by the interpreter on all but short texts: start by
 * start, with a limit that is doubled until it suffices, and what is out of proportion to the
 * text that was matched is taken from a budget that all matches of a text share. Loops that
 * PCRE2 would make possessive by itself are not counted, so steep expressions are compiled
 * without that.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/text/regex.h"
#include "engine/text/pretok.h"
#include "engine/text/pretok_unicode.h"
#include <pcre2.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    PROBE_BYTES = 3000,
    PROBE_BUDGET = 40 * PROBE_BYTES,
    SHORT_BYTES = 2048,     /* quadratic is bearable */
    STEEP_FREE = 256,       /* steps of one start that count for nothing */
    STEEP_BYTE = 16,        /* steps a byte that are in proportion */
    STEEP_BUDGET = 1 << 24, /* for what is not, a few seconds */
};

struct regex {
    char *literal; /* [literal_len], or NULL */
    size_t literal_len;
    pcre2_code *code;
    bool jit, steep; /* steep: more than linear on some run */
};

struct regex_run {
    pcre2_match_data *match;
    pcre2_match_context *ctx;
    pcre2_jit_stack *stack;
    size_t limit_len; /* the length that the limit is set for; SIZE_MAX: none */
    size_t budget;    /* steps that are left to steep expressions */
};

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

/* Writes one of our rules with \s, \S and \p{…} spelt out. \S and \P in a bracket are not
 * needed and stay PCRE2's. */
static void spell_rule(const char *pattern, struct buf *out) {
    bool bracket = false;
    for (const char *p = pattern; *p;) {
        const char *close = p[0] == '\\' && p[1] == 'p' && p[2] == '{' ? strchr(p, '}') : NULL;
        size_t used = 1;
        if (p[0] == '\\' && (p[1] == 's' || (p[1] == 'S' && !bracket))) {
            spell_class(bracket, p[1] == 'S', "", 0, REGEX_WHITE_SPACE, out);
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

static enum status compile(struct regex *r, const char *shown, const struct buf *text,
                           uint32_t options, struct err *err) {
    int error;
    PCRE2_SIZE at;
    pcre2_compile_context *ctx = pcre2_compile_context_create(NULL);
    if (ctx)
        pcre2_set_newline(ctx, PCRE2_NEWLINE_LF);
    r->code = pcre2_compile((PCRE2_SPTR)buf_str(text), text->len,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | options, &error,
                            &at, ctx);
    pcre2_compile_context_free(ctx);
    if (r->code) {
        r->jit = pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE) == 0;
        return ST_OK;
    }
    PCRE2_UCHAR msg[128];
    pcre2_get_error_message(error, msg, sizeof msg);
    return err_set(err, ST_FORMAT, "regular expression: %s at offset %zu of %.200s",
                   (char *)msg, (size_t)at, shown);
}

/* A match by the interpreter, start by start. Takes steps from *budget; when it has no more it
 * gives PCRE2_ERROR_MATCHLIMIT. */
static int match_counted(const struct regex *re, struct regex_run *run, const char *s,
                         size_t len, size_t from, size_t *budget) {
    run->limit_len = SIZE_MAX; /* the next match by JIT sets its own */
    for (size_t at = from; at <= len; at++) {
        size_t steps = STEEP_FREE, most = *budget + STEEP_BYTE * (len - at);
        int n;
        if (at > from && at < len && ((unsigned char)s[at] & 0xc0) == 0x80)
            continue;
        for (;; steps *= 2) {
            pcre2_set_match_limit(run->ctx, steps > UINT32_MAX ? UINT32_MAX : (uint32_t)steps);
            n = pcre2_match(re->code, (PCRE2_SPTR)s, len, at,
                            PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT | PCRE2_ANCHORED, run->match,
                            run->ctx);
            if (n != PCRE2_ERROR_MATCHLIMIT || steps > most)
                break;
        }
        size_t passed = n >= 0 ? pcre2_get_ovector_pointer(run->match)[1] - at : 0;
        if (steps > STEEP_FREE && steps > 2 * STEEP_BYTE * passed)
            *budget -= steps < *budget ? steps : *budget;
        if (*budget == 0)
            return PCRE2_ERROR_MATCHLIMIT;
        if (n != PCRE2_ERROR_NOMATCH)
            return n;
    }
    return PCRE2_ERROR_NOMATCH;
}

/* Every match of one run, all together within a limit that a linear expression does not need.
 */
static bool probe_run(const struct regex *r, struct regex_run *run, const char *unit) {
    char text[PROBE_BYTES + 8];
    size_t step = strlen(unit), len = 0, budget = PROBE_BUDGET;
    for (; len + step <= PROBE_BYTES; len += step)
        memcpy(text + len, unit, step);
    text[len++] = 'x';
    for (size_t from = 0; from < len;) {
        int n = match_counted(r, run, text, len, from, &budget);
        if (n < 0)
            return n == PCRE2_ERROR_NOMATCH;
        size_t end = pcre2_get_ovector_pointer(run->match)[1];
        from = end > from ? end : from + 1;
        while (from < len && ((unsigned char)text[from] & 0xc0) == 0x80)
            from++;
    }
    return true;
}

static void probe(struct regex *r) {
    static const char *const units[] = {" ",        "\n", " \n", "\t", "A",
                                        "aB",       "1",  "!",   "'",  "\xe6\xbc\xa2",
                                        "\xcc\x81", "a ", "_",   "-",  "\r\n"};
    struct regex_run *run = regex_run_new();
    if (!run)
        return;
    for (size_t i = 0; i < sizeof units / sizeof *units && !r->steep; i++)
        r->steep = !probe_run(r, run, units[i]);
    regex_run_free(run);
}

/* The expressions of published tokenizers that are rules of ours, or for which a faster one
 * that matches the same is known. */
static const char *known(const char *pattern) {
    size_t n;
    const struct pretok_rule *rules = pretok_rules(&n);
    if (strcmp(pattern, "\\s+$") == 0)
        return "(?m)(?<!\\s)\\s+$";
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < PRETOK_MAX_STAGES && rules[i].stages[k]; k++)
            if (strcmp(rules[i].stages[k], pattern) == 0)
                return rules[i].stages[k];
    return NULL;
}

/* Digits counted from the right look to the end of their run for each match. But where one
 * match has begun the others follow three by three: \G, where the search began, is then behind
 * a digit (pretok.c searches on behind a match, and one character further behind an empty
 * one). The run is looked through once, at its start; where that fails no later place fits. */
static const struct {
    const char *pattern, *same; /* Oniguruma's words */
} FASTER[] = {
    {"\\d{1,3}(?=(?:\\d{3})*\\b)", "\\G(?<=\\d)\\d{3}|(?<!\\d)\\d{1,3}(?=(?:\\d{3})*+\\b)"},
    {"[0-9]{1,3}(?=(?:[0-9]{3})*\\b)",
     "\\G(?<=[0-9])[0-9]{3}|(?<![0-9])[0-9]{1,3}(?=(?:[0-9]{3})*+\\b)"},
    {"(?=(\\d{3})+(?!\\d))",
     "(?<=\\d\\G\\d\\d)(?=\\d{3})"
     "|(?:(?<!\\d)|(?<=(?<!\\d)\\d)|(?<=(?<!\\d)\\d\\d))(?=(?:\\d{3})++(?!\\d))"},
};

static const char *faster(const char *pattern) {
    for (size_t i = 0; i < sizeof FASTER / sizeof *FASTER; i++)
        if (strcmp(FASTER[i].pattern, pattern) == 0)
            return FASTER[i].same;
    return NULL;
}

static enum status open_pattern(struct regex *r, const char *pattern, size_t len,
                                enum regex_kind kind, struct err *err) {
    struct buf text = {0};
    enum status st = ST_OK;
    const char *rule = kind == REGEX_RULE ? pattern : known(pattern);
    const char *same = rule ? NULL : faster(pattern);
    if (rule) {
        spell_rule(rule, &text);
        st = compile(r, pattern, &text, 0, err);
    } else if (same) {
        st = regex_from_onig(same, strlen(same), &text, err);
        if (st == ST_OK)
            st = compile(r, pattern, &text, PCRE2_MULTILINE, err);
    } else {
        st = regex_from_onig(pattern, len, &text, err);
        if (st == ST_OK)
            st = compile(r, pattern, &text, PCRE2_MULTILINE | PCRE2_NO_AUTO_POSSESS, err);
        if (st == ST_OK)
            probe(r);
        if (st == ST_OK && !r->steep) {
            pcre2_code_free(r->code);
            st = compile(r, pattern, &text, PCRE2_MULTILINE, err);
        }
    }
    buf_release(&text);
    return st;
}

enum status regex_open(const char *pattern, size_t len, enum regex_kind kind,
                       struct regex **out, struct err *err) {
    *out = NULL;
    if (len > REGEX_MAX_PATTERN)
        return err_set(err, ST_LIMIT, "regular expression: %zu bytes, at most %d are allowed",
                       len, (int)REGEX_MAX_PATTERN);
    if (memchr(pattern, 0, len) && kind != REGEX_LITERAL)
        return err_set(err, ST_FORMAT, "regular expression: has a NUL inside");
    struct regex *r = xcalloc(1, sizeof *r);
    enum status st = ST_OK;
    if (kind == REGEX_LITERAL) {
        r->literal = xmalloc(len + 1);
        memcpy(r->literal, pattern, len);
        r->literal[len] = 0;
        r->literal_len = len;
    } else {
        char *copy = xstrndup(pattern, len);
        st = open_pattern(r, copy, len, kind, err);
        free(copy);
    }
    if (st != ST_OK) {
        regex_close(r);
        return st;
    }
    *out = r;
    return ST_OK;
}

void regex_close(struct regex *r) {
    if (!r)
        return;
    pcre2_code_free(r->code);
    free(r->literal);
    free(r);
}

struct regex_run *regex_run_new(void) {
    struct regex_run *r = xcalloc(1, sizeof *r);
    r->limit_len = SIZE_MAX;
    r->budget = STEEP_BUDGET;
    r->ctx = pcre2_match_context_create(NULL);
    r->match = pcre2_match_data_create(1, NULL);
    r->stack = pcre2_jit_stack_create((size_t)32 << 10, (size_t)64 << 20, NULL);
    if (!r->ctx || !r->match) { /* no stack: no JIT here, or its small own one */
        regex_run_free(r);
        return NULL;
    }
    if (r->stack)
        pcre2_jit_stack_assign(r->ctx, NULL, r->stack);
    return r;
}

void regex_run_free(struct regex_run *r) {
    if (!r)
        return;
    pcre2_match_data_free(r->match);
    pcre2_match_context_free(r->ctx);
    pcre2_jit_stack_free(r->stack);
    free(r);
}

static bool literal_find(const struct regex *re, const char *s, size_t len, size_t from,
                         size_t *at, size_t *end) {
    if (re->literal_len == 0) {
        *at = *end = from;
        return true;
    }
    const char *hit = re->literal_len == 1
                          ? memchr(s + from, re->literal[0], len - from)
                          : memmem(s + from, len - from, re->literal, re->literal_len);
    if (hit) {
        *at = (size_t)(hit - s);
        *end = *at + re->literal_len;
    }
    return hit != NULL;
}

static int match_fast(const struct regex *re, struct regex_run *run, const char *s, size_t len,
                      size_t from) {
    if (run->limit_len != len) {
        size_t limit = 10000000 + 16 * len;
        pcre2_set_match_limit(run->ctx, limit > UINT32_MAX ? UINT32_MAX : (uint32_t)limit);
        run->limit_len = len;
    }
    return re->jit ? pcre2_jit_match(re->code, (PCRE2_SPTR)s, len, from, PCRE2_NO_UTF_CHECK,
                                     run->match, run->ctx)
                   : pcre2_match(re->code, (PCRE2_SPTR)s, len, from,
                                 PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, run->match, run->ctx);
}

enum status regex_find(const struct regex *re, struct regex_run *run, const char *s, size_t len,
                       size_t from, size_t *at, size_t *end, bool *found, struct err *err) {
    if (re->literal) {
        *found = literal_find(re, s, len, from, at, end);
        return ST_OK;
    }
    bool steep = re->steep && len > SHORT_BYTES;
    int n = steep ? match_counted(re, run, s, len, from, &run->budget)
                  : match_fast(re, run, s, len, from);
    *found = n >= 0;
    if (n >= 0) {
        PCRE2_SIZE *v = pcre2_get_ovector_pointer(run->match);
        *at = v[0];
        *end = v[1] < v[0] ? v[0] : v[1]; /* \K in a look-ahead */
        return ST_OK;
    }
    if (n == PCRE2_ERROR_NOMATCH)
        return ST_OK;
    PCRE2_UCHAR msg[128];
    pcre2_get_error_message(n, msg, sizeof msg);
    return err_set(err, ST_LIMIT, "pre-tokenizer: %s in a piece of %zu bytes", (char *)msg,
                   len);
}
