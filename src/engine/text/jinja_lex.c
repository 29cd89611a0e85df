/*
 * jinja_lex.c - template text to tokens.
 *
 * Two states: outside a tag the next "{{", "{%" or "{#" is searched and what lies before it is
 * data; inside a tag, tokens. White space around tags, as jinja2 does it with trim_blocks and
 * lstrip_blocks:
 *   - the newline after "%}" and "#}" goes, unless "+%}" keeps it; "-%}" and "-}}" take all
 * white space after them;
 *   - blanks from the start of a line to "{%" or "{#" go, unless "{%+" keeps them; "{%-" and
 * "{{-" take all before them;
 *   - line ends become "\n", and one newline at the very end of the template goes.
 * An end mark inside open brackets is no end mark. "{{-1}}" prints 1, there as here.
 */
#include "base/utf8.h"
#include "engine/text/jinja_ast.h"
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

enum { MAX_OPEN = 250 };

struct lexer {
    struct jx *x;
    const char *s;
    size_t n, at;
    struct jtoken *v;
    size_t n_tok, cap;
    char open[MAX_OPEN]; /* [n_open] the closing brackets that are awaited */
    size_t n_open;
};

static struct jtoken *push(struct lexer *l, enum jtok type) {
    if (l->n_tok == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 256;
        struct jtoken *v = jx_alloc(l->x, cap, sizeof *v);
        if (l->n_tok)
            memcpy(v, l->v, l->n_tok * sizeof *v);
        l->v = v;
        l->cap = cap;
    }
    jx_step(l->x, 1);
    struct jtoken *t = &l->v[l->n_tok++];
    *t = (struct jtoken){.type = type, .line = l->x->line};
    return t;
}

/* Moves to `to` and counts the lines on the way. */
static void go(struct lexer *l, size_t to) {
    for (; l->at < to; l->at++)
        l->x->line += l->s[l->at] == '\n';
}

static bool here(const struct lexer *l, size_t at, const char *w) {
    size_t n = strlen(w);
    return l->n - at >= n && memcmp(l->s + at, w, n) == 0;
}

static size_t skip_space(const struct lexer *l, size_t at) {
    size_t used;
    while (at < l->n && js_space(js_decode(l->s + at, l->n - at, &used)))
        at += used;
    return at;
}

/* End of [from, to) without the white space at its end. */
static size_t rstrip(const struct lexer *l, size_t from, size_t to) {
    while (to > from) {
        size_t p = to - 1, used;
        while (p > from && ((unsigned char)l->s[p] & 0xC0) == 0x80)
            p--;
        if (!js_space(js_decode(l->s + p, to - p, &used)))
            break;
        to = p;
    }
    return to;
}

/* Data [from, to) before a tag with this sign; block: lstrip_blocks applies. */
static void data(struct lexer *l, size_t from, size_t to, char sign, bool block) {
    size_t end = to;
    if (sign == '-') {
        end = rstrip(l, from, to);
    } else if (sign != '+' && block) {
        size_t line = to;
        while (line > from && l->s[line - 1] != '\n')
            line--;
        bool starts = line > from || from == 0 || l->s[from - 1] == '\n';
        if (starts && rstrip(l, line, to) == line)
            end = line;
    }
    if (end > from) {
        struct jtoken *t = push(l, JT_DATA);
        t->v = jv_str(l->x, l->s + from, end - from);
    }
    go(l, to);
}

/* After a tag's end mark: what goes with it. */
static size_t after_end(const struct lexer *l, size_t at, char sign, bool trim) {
    if (sign == '-')
        return skip_space(l, at);
    return sign != '+' && trim && at < l->n && l->s[at] == '\n' ? at + 1 : at;
}

static char sign_at(const struct lexer *l, size_t at) {
    return at < l->n && (l->s[at] == '-' || l->s[at] == '+') ? l->s[at] : '\0';
}

static void comment(struct lexer *l) {
    for (size_t p = l->at; p + 2 <= l->n; p++)
        if (here(l, p, "#}")) {
            char sign = p > l->at ? sign_at(l, p - 1) : '\0';
            go(l, after_end(l, p + 2, sign, true));
            return;
        }
    jx_fail(l->x, "a comment is not closed by #}");
}

/* At a "{%", past its sign: whether this is a raw tag, and where its text starts. */
static bool raw_tag(const struct lexer *l, size_t at, const char *word, size_t *end,
                    bool trim) {
    at = skip_space(l, at);
    if (!here(l, at, word))
        return false;
    at = skip_space(l, at + strlen(word));
    char sign = sign_at(l, at);
    if (sign == '+' && !trim)
        return false;
    at += sign != '\0';
    if (!here(l, at, "%}"))
        return false;
    *end = after_end(l, at + 2, sign, trim);
    return true;
}

static void raw(struct lexer *l) {
    size_t end;
    for (size_t p = l->at; p + 2 <= l->n; p++) {
        if (!here(l, p, "{%"))
            continue;
        jx_step(l->x, 1);
        char sign = sign_at(l, p + 2);
        if (raw_tag(l, p + 2 + (sign != '\0'), "endraw", &end, true)) {
            data(l, l->at, p, sign, true);
            go(l, end);
            return;
        }
    }
    jx_fail(l->x, "a raw block is not closed by {%% endraw %%}");
}

/* ---- inside a tag ---- */

static int digit_of(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 32);
    return c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;
}

/* Digits with single underscores between them; returns their end, or `at` when there are none.
 */
static size_t digits(const struct lexer *l, size_t at, int base, bool lead) {
    size_t p = at;
    for (;;) {
        size_t q = p + ((p > at || lead) && p < l->n && l->s[p] == '_');
        if (q >= l->n || digit_of(l->s[q]) >= base)
            return p;
        p = q + 1;
    }
}

static bool lex_float(struct lexer *l) {
    if (l->at && l->s[l->at - 1] == '.')
        return false;
    size_t whole = digits(l, l->at, 10, false), end = whole;
    if (whole == l->at)
        return false;
    if (end < l->n && l->s[end] == '.') {
        size_t frac = digits(l, end + 1, 10, false);
        end = frac > end + 1 ? frac : whole;
    }
    if (end < l->n && (l->s[end] | 32) == 'e') {
        size_t e = end + 1 + (sign_at(l, end + 1) != '\0'), stop = digits(l, e, 10, false);
        end = stop > e ? stop : end;
    }
    if (end == whole)
        return false;
    char *t = jx_alloc(l->x, end - l->at + 1, 1);
    size_t n = 0;
    for (size_t i = l->at; i < end; i++)
        if (l->s[i] != '_')
            t[n++] = l->s[i];
    push(l, JT_FLOAT)->v = jv_float(strtod(t, NULL));
    l->at = end;
    return true;
}

static bool lex_int(struct lexer *l) {
    const char *s = l->s;
    size_t at = l->at, end;
    int base = 10;
    if (at >= l->n || s[at] < '0' || s[at] > '9')
        return false;
    if (s[at] == '0') {
        char c = at + 1 < l->n ? (char)(s[at + 1] | 32) : '\0';
        base = c == 'b' ? 2 : c == 'o' ? 8 : c == 'x' ? 16 : 10;
        end = base == 10 ? digits(l, at, 1, false) : digits(l, at + 2, base, true);
        if (base != 10 && end == at + 2) { /* "0x" alone: a zero and a name */
            base = 10;
            end = at + 1;
        }
    } else {
        end = digits(l, at, 10, false);
    }
    int64_t v = 0;
    for (size_t i = at + (base == 10 ? 0 : 2); i < end; i++)
        if (s[i] != '_' && (__builtin_mul_overflow(v, base, &v) ||
                            __builtin_add_overflow(v, digit_of(s[i]), &v)))
            jx_fail(l->x, "an integer is beyond 64 bits");
    push(l, JT_INT)->v = jv_int(v);
    l->at = end;
    return true;
}

bool js_in_name(uint32_t cp, bool first) {
    if (cp < 0x80)
        return cp == '_' || ((cp | 32) >= 'a' && (cp | 32) <= 'z') ||
               (!first && cp >= '0' && cp <= '9');
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_NL:
        return true;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_PC:
        return !first;
    default:
        return false;
    }
}

static bool lex_name(struct lexer *l) {
    size_t p = l->at, used;
    while (p < l->n && js_in_name(js_decode(l->s + p, l->n - p, &used), p == l->at))
        p += used;
    if (p == l->at)
        return false;
    push(l, JT_NAME)->name = jx_intern(l->x, l->s + l->at, p - l->at);
    l->at = p;
    return true;
}

/* Digits of an escape: exactly n (hexadecimal), or up to n (octal). */
static uint32_t escape_digits(struct lexer *l, size_t *at, size_t end, int n, int base) {
    uint32_t v = 0;
    int got = 0;
    for (; got < n && *at < end && digit_of(l->s[*at]) < base; got++, (*at)++)
        v = v * (uint32_t)base + (uint32_t)digit_of(l->s[*at]);
    if (base == 16 && got < n)
        jx_fail(l->x, "a string has an escape with too few digits");
    if (v > 0x10FFFF)
        jx_fail(l->x, "a string has an escape beyond Unicode");
    return v;
}

/* One escape of a string literal, at the character after the backslash: Python's
 * unicode_escape. */
static size_t unescape(struct lexer *l, struct jb *b, size_t at, size_t end) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = l->s[at], t[16];
    const char *hit = c ? strchr(from, c) : NULL;
    if (hit) {
        jb_addc(l->x, b, to[hit - from], 0);
        return at + 1;
    }
    if (c == '\n')
        return at + 1;
    if (c >= '0' && c <= '7') {
        jb_addcp(l->x, b, escape_digits(l, &at, end, 3, 8), 0);
        return at;
    }
    if (c == 'x' || c == 'u' || c == 'U') {
        at++;
        jb_addcp(l->x, b, escape_digits(l, &at, end, c == 'x' ? 2 : c == 'u' ? 4 : 8, 16), 0);
        return at;
    }
    if (c == 'N')
        jx_fail(l->x, "a string has an escape \\N{…}, which is not supported");
    jb_addc(l->x, b, '\\', 0);
    if ((unsigned char)c < 0x80)
        return at; /* an unknown escape stays as it is */
    size_t used;   /* jinja2 escapes what is not ASCII first, and so meets its own backslash */
    uint32_t cp = js_decode(l->s + at, end - at, &used);
    snprintf(t, sizeof t, cp < 0x100 ? "x%02x" : cp < 0x10000 ? "u%04x" : "U%08x", cp);
    jb_adds(l->x, b, t);
    return at + used;
}

static bool lex_string(struct lexer *l) {
    char q = l->s[l->at];
    if (q != '\'' && q != '"')
        return false;
    size_t p = l->at + 1;
    bool plain = true;
    for (; p < l->n && l->s[p] != q; p++)
        if (l->s[p] == '\\') {
            plain = false;
            p++;
        }
    if (p >= l->n)
        jx_fail(l->x, "a string is not closed by %c", q);
    struct jtoken *t = push(l, JT_STRING);
    if (plain) {
        t->v = jv_str(l->x, l->s + l->at + 1, p - l->at - 1);
    } else {
        struct jb b = {0};
        for (size_t i = l->at + 1; i < p;) {
            size_t from = i;
            while (i < p && l->s[i] != '\\')
                i++;
            jb_add(l->x, &b, l->s + from, NULL, i - from);
            if (i < p)
                i = unescape(l, &b, i + 1, p);
        }
        t->v = jb_value(l->x, &b);
    }
    go(l, p + 1);
    return true;
}

static const struct {
    const char *w;
    enum jtok t;
} op_table[] = {{"//", JT_FLOORDIV}, {"**", JT_POW},     {"==", JT_EQ},    {"!=", JT_NE},
                {">=", JT_GE},       {"<=", JT_LE},      {"+", JT_ADD},    {"-", JT_SUB},
                {"/", JT_DIV},       {"*", JT_MUL},      {"%", JT_MOD},    {"~", JT_TILDE},
                {"[", JT_LBRACKET},  {"]", JT_RBRACKET}, {"(", JT_LPAREN}, {")", JT_RPAREN},
                {"{", JT_LBRACE},    {"}", JT_RBRACE},   {">", JT_GT},     {"<", JT_LT},
                {"=", JT_ASSIGN},    {".", JT_DOT},      {":", JT_COLON},  {"|", JT_PIPE},
                {",", JT_COMMA},     {";", JT_SEMICOLON}};

const char *jl_name(enum jtok t) {
    static const char *const name[] = {[JT_EOF] = "the end of the template",
                                       [JT_DATA] = "text",
                                       [JT_BLOCK_BEGIN] = "{%",
                                       [JT_BLOCK_END] = "%}",
                                       [JT_VAR_BEGIN] = "{{",
                                       [JT_VAR_END] = "}}",
                                       [JT_NAME] = "a name",
                                       [JT_STRING] = "a string",
                                       [JT_INT] = "an integer",
                                       [JT_FLOAT] = "a number"};
    for (size_t i = 0; i < sizeof op_table / sizeof *op_table; i++)
        if (op_table[i].t == t)
            return op_table[i].w;
    return name[t];
}

static void bracket(struct lexer *l, char c) {
    const char *opening = "([{", *closing = ")]}", *at = strchr(opening, c);
    if (at) {
        if (l->n_open == MAX_OPEN)
            jx_limit(l->x, "more than %d brackets are open", MAX_OPEN);
        l->open[l->n_open++] = closing[at - opening];
    } else if (strchr(closing, c)) {
        if (!l->n_open)
            jx_fail(l->x, "unexpected '%c'", c);
        if (l->open[--l->n_open] != c)
            jx_fail(l->x, "unexpected '%c', '%c' wanted", c, l->open[l->n_open]);
    }
}

static void lex_op(struct lexer *l) {
    for (size_t i = 0; i < sizeof op_table / sizeof *op_table; i++)
        if (here(l, l->at, op_table[i].w)) {
            if (!op_table[i].w[1])
                bracket(l, op_table[i].w[0]);
            push(l, op_table[i].t);
            l->at += strlen(op_table[i].w);
            return;
        }
    size_t used;
    jx_fail(l->x, "unexpected character U+%04X in a tag",
            js_decode(l->s + l->at, l->n - l->at, &used));
}

/* Whether a tag's end mark is here; then it is passed. */
static bool tag_end(struct lexer *l, bool block) {
    char sign = sign_at(l, l->at);
    size_t p = l->at + (sign != '\0');
    if (l->n_open || (sign == '+' && !block) || !here(l, p, block ? "%}" : "}}"))
        return false;
    push(l, block ? JT_BLOCK_END : JT_VAR_END);
    go(l, after_end(l, p + 2, sign, block));
    return true;
}

static void tag(struct lexer *l, bool block) {
    int from = l->x->line;
    l->n_open = 0;
    for (;;) {
        go(l, skip_space(l, l->at));
        if (l->at >= l->n) {
            l->x->line = from;
            jx_fail(l->x, "a tag is not closed by %s", block ? "%}" : "}}");
        }
        if (tag_end(l, block))
            return;
        if (!lex_float(l) && !lex_int(l) && !lex_name(l) && !lex_string(l))
            lex_op(l);
    }
}

/* The source with "\n" for every line end and without the last one. */
static void normalize(struct lexer *l, const char *src, size_t len) {
    char *s = jx_alloc(l->x, len + 1, 1);
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        bool cr = src[i] == '\r';
        s[n++] = cr ? '\n' : src[i];
        i += cr && i + 1 < len && src[i + 1] == '\n';
    }
    if (n && s[n - 1] == '\n')
        n--;
    l->s = s;
    l->n = n;
}

struct jtoken *jl_lex(struct jx *x, const char *src, size_t len) {
    struct lexer *l = jx_alloc(x, 1, sizeof *l);
    l->x = x;
    x->line = 1;
    if (!utf8_valid(src, len))
        jx_fail(x, "byte %zu is not valid UTF-8", utf8_valid_prefix(src, len));
    normalize(l, src, len);
    while (l->at < l->n) {
        size_t p = l->at;
        while (p < l->n &&
               !(l->s[p] == '{' && p + 1 < l->n && strchr("{%#", l->s[p + 1]) && l->s[p + 1]))
            p++;
        if (p == l->n) {
            push(l, JT_DATA)->v = jv_str(x, l->s + l->at, l->n - l->at);
            break;
        }
        char kind = l->s[p + 1], sign = sign_at(l, p + 2);
        size_t in = p + 2 + (sign != '\0'), end;
        bool is_raw = kind == '%' && raw_tag(l, in, "raw", &end, false);
        data(l, l->at, p, sign, kind != '{');
        go(l, is_raw ? end : in);
        if (is_raw) {
            raw(l);
        } else if (kind == '#') {
            comment(l);
        } else {
            push(l, kind == '%' ? JT_BLOCK_BEGIN : JT_VAR_BEGIN);
            tag(l, kind == '%');
        }
    }
    push(l, JT_EOF);
    return l->v;
}
