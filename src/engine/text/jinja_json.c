/*
 * jinja_json.c - reads the JSON of messages, tools and variables into values.
 *
 * Own, and not jansson's, for three reasons: a string's bytes get their mask at birth, a number
 * keeps its Python type (an integer beyond 64 bits keeps its digits), and everything lands in
 * the render's arena under its limits. RFC 8259 strictly; of two equal keys the last wins, as
 * in Python. Lone surrogates become U+FFFD. Invalid UTF-8 is refused.
 */
#include "base/utf8.h"
#include "engine/text/jinja_value.h"
#include <errno.h>
#include <stdlib.h>

struct reader {
    struct jx *x;
    const char *s;
    size_t n, at;
};

static void bad(struct reader *r, const char *want) __attribute__((noreturn));
static void bad(struct reader *r, const char *want) {
    if (r->at >= r->n)
        jx_fail(r->x, "the JSON ends at byte %zu, %s wanted", r->at, want);
    jx_fail(r->x, "JSON byte %zu: '%c' found, %s wanted", r->at, r->s[r->at], want);
}

static void blanks(struct reader *r) {
    while (r->at < r->n && strchr(" \t\r\n", r->s[r->at]) && r->s[r->at])
        r->at++;
}

static bool take(struct reader *r, char c) {
    blanks(r);
    if (r->at < r->n && r->s[r->at] == c) {
        r->at++;
        return true;
    }
    return false;
}

static uint32_t hex4(struct reader *r) {
    uint32_t v = 0;
    for (int i = 0; i < 4; i++, r->at++) {
        char c = r->at < r->n ? r->s[r->at] : '\0';
        if (c >= '0' && c <= '9')
            v = v * 16 + (uint32_t)(c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            v = v * 16 + (uint32_t)((c | 32) - 'a' + 10);
        else
            bad(r, "four hexadecimal digits");
    }
    return v;
}

static uint32_t escaped(struct reader *r) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = r->at < r->n ? r->s[r->at] : '\0';
    const char *at = c ? strchr(from, c) : NULL;
    if (at) {
        r->at++;
        return (unsigned char)to[at - from];
    }
    if (c != 'u')
        bad(r, "an escape");
    r->at++;
    uint32_t cp = hex4(r);
    if (cp >= 0xD800 && cp < 0xDC00 && r->n - r->at >= 6 && r->s[r->at] == '\\' &&
        r->s[r->at + 1] == 'u') {
        size_t back = r->at;
        r->at += 2;
        uint32_t low = hex4(r);
        if (low >= 0xDC00 && low < 0xE000)
            return 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
        r->at = back;
    }
    return cp >= 0xD800 && cp < 0xE000 ? 0xFFFD : cp;
}

static struct jv string(struct reader *r) {
    if (!take(r, '"'))
        bad(r, "a string");
    struct jb b = {0};
    for (;;) {
        size_t from = r->at;
        while (r->at < r->n && (unsigned char)r->s[r->at] >= 0x20 && r->s[r->at] != '"' &&
               r->s[r->at] != '\\')
            r->at++;
        size_t run = r->at - from;
        bool end = r->at < r->n && r->s[r->at] == '"';
        if (end && b.n == 0) { /* no escapes: points into the text */
            r->at++;
            const uint8_t *m = run ? jx_ones(r->x, run) : NULL;
            return (struct jv){.kind = JV_STR, .s = js_new(r->x, r->s + from, m, run)};
        }
        jb_add(r->x, &b, r->s + from, NULL, run);
        if (r->at >= r->n || (unsigned char)r->s[r->at] < 0x20)
            bad(r, "a character of a string or its end");
        r->at++;
        if (end)
            break;
        jb_addcp(r->x, &b, escaped(r), 0);
    }
    struct jv v = jb_value(r->x, &b);
    v.s->m = jx_ones(r->x, v.s->n);
    return v;
}

static struct jv number(struct reader *r) {
    size_t from = r->at, digits = 0;
    bool whole = true;
    r->at += r->s[r->at] == '-';
    for (size_t d0 = r->at; r->at < r->n && strchr("0123456789.eE+-", r->s[r->at]); r->at++) {
        whole = whole && r->s[r->at] >= '0' && r->s[r->at] <= '9';
        digits = r->at - d0 + 1;
    }
    size_t n = r->at - from;
    const char *t = r->s + from;
    bool minus = *t == '-';
    if (!digits ||
        (t[minus] == '0' && digits > 1 && t[minus + 1] >= '0' && t[minus + 1] <= '9'))
        bad(r, "a number");
    char *z = jx_alloc(r->x, n + 1, 1), *end;
    memcpy(z, t, n);
    errno = 0;
    if (!whole) {
        double f = strtod(z, &end);
        const char *dot = strchr(z, '.');
        if (*end || z[minus] < '0' || z[minus] > '9' || (dot && (dot[1] < '0' || dot[1] > '9')))
            bad(r, "a number");
        return jv_float(f);
    }
    long long i = strtoll(z, &end, 10);
    if (errno == ERANGE)
        return (struct jv){.kind = JV_BIG, .s = js_new(r->x, z, NULL, n)};
    return jv_int(i);
}

static bool word(struct reader *r, const char *w) {
    size_t n = strlen(w);
    if (r->n - r->at < n || memcmp(r->s + r->at, w, n) != 0)
        return false;
    r->at += n;
    return true;
}

static struct jv value(struct reader *r);

static struct jv object(struct reader *r) {
    struct jv d = jv_dict(r->x);
    if (take(r, '}'))
        return d;
    do {
        struct jv k = string(r);
        if (!take(r, ':'))
            bad(r, "':'");
        jd_put(r->x, d.d, k, value(r));
    } while (take(r, ','));
    if (!take(r, '}'))
        bad(r, "',' or '}'");
    return d;
}

static struct jv array(struct reader *r) {
    struct jv l = jv_seq(r->x, JV_LIST, 0);
    if (take(r, ']'))
        return l;
    do {
        jv_push(r->x, l.l, value(r));
    } while (take(r, ','));
    if (!take(r, ']'))
        bad(r, "',' or ']'");
    return l;
}

static struct jv value(struct reader *r) {
    struct jv v;
    blanks(r);
    jx_enter(r->x);
    if (r->at < r->n && r->s[r->at] == '"')
        v = string(r);
    else if (take(r, '{'))
        v = object(r);
    else if (take(r, '['))
        v = array(r);
    else if (word(r, "true") || word(r, "false"))
        v = jv_bool(r->s[r->at - 2] == 'u');
    else if (word(r, "null"))
        v = jv_none();
    else if (r->at < r->n && strchr("-0123456789", r->s[r->at]) && r->s[r->at])
        v = number(r);
    else
        bad(r, "a value");
    jx_leave(r->x);
    return v;
}

struct jv jv_from_json(struct jx *x, const char *text, size_t len) {
    struct reader r = {x, text, len, 0};
    if (!utf8_valid(text, len))
        jx_fail(x, "byte %zu is not valid UTF-8", utf8_valid_prefix(text, len));
    struct jv v = value(&r);
    blanks(&r);
    if (r.at < r.n)
        bad(&r, "the end");
    return v;
}
