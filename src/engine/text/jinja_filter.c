/*
 * jinja_filter.c - filters on text and numbers, and the way to a filter by its name.
 *
 * A filter is a row of a table: name, parameters as jinja2 calls them, function. Where jinja2
 * makes a string of what it is given (soft_str), so does text() here. tojson is transformers'
 * own: plain json.dumps, nothing escaped for HTML. Two are refused by name: random, since the
 * same conversation must give the same prompt, and urlize, which writes web pages.
 */
#include "base/utf8.h"
#include "engine/text/jinja_run.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define FILTER(name)                                                                           \
    static struct jv name(__attribute__((unused)) struct jx *x,                                \
                          __attribute__((unused)) struct jv self,                              \
                          __attribute__((unused)) struct jv *arg,                              \
                          __attribute__((unused)) const struct jargs *raw)

/* soft_str: a string as it is, anything else as text. */
static struct jstr *text(struct jx *x, struct jv v) {
    return v.kind == JV_STR ? v.s : jv_text(x, v);
}

static bool flag(struct jx *x, struct jv v) {
    return v.kind != JV_MISSING && jv_truth(x, v);
}

static struct jv as_str(struct jstr *s) {
    return (struct jv){.kind = JV_STR, .s = s};
}

FILTER(f_upper) {
    return js_upper(x, text(x, self));
}

FILTER(f_lower) {
    return js_lower(x, text(x, self));
}

FILTER(f_capitalize) {
    return js_capital(x, text(x, self));
}

static bool word_break(uint32_t cp) {
    return cp == '-' || js_space(cp) || cp == '(' || cp == '{' || cp == '[' || cp == '<';
}

FILTER(f_title) { /* a word starts after blanks, hyphens and opening brackets only */
    struct jstr *s = text(x, self);
    struct jb b = {0};
    for (size_t i = 0, used; i < s->n;) {
        bool brk = word_break(js_decode(s->p + i, s->n - i, &used));
        size_t first = i + used, end = first;
        while (end < s->n && word_break(js_decode(s->p + end, s->n - end, &used)) == brk)
            end += used;
        jb_addstr(x, &b, js_upper(x, jv_sub(x, s, i, first).s).s);
        jb_addstr(x, &b, js_lower(x, jv_sub(x, s, first, end).s).s);
        i = end;
    }
    return jb_value(x, &b);
}

FILTER(f_trim) {
    return js_strip(x, text(x, self),
                    ja_given(arg[0]) ? ja_str(x, arg[0], "trim(): chars") : NULL, 3);
}

FILTER(f_center) {
    int64_t width = arg[0].kind == JV_MISSING ? 80 : ja_int(x, arg[0], "center(): width");
    return js_center(x, text(x, self), width, ' ', 0, 'c');
}

FILTER(f_replace) {
    int64_t max = ja_given(arg[2]) ? ja_int(x, arg[2], "replace(): count") : -1;
    return js_replace(x, jv_text(x, self), jv_text(x, arg[0]), jv_text(x, arg[1]), max);
}

FILTER(f_string) {
    return as_str(text(x, self));
}

FILTER(f_safe) {
    struct jstr *s = jv_text(x, self), *r = js_new(x, s->p, s->m, s->n);
    r->safe = true;
    return as_str(r);
}

FILTER(f_escape) {
    return self.kind == JV_STR && self.s->safe ? self : js_escape(x, jv_text(x, self));
}

FILTER(f_forceescape) {
    return js_escape(x, jv_text(x, self));
}

/* Attributes of a tag. A value is escaped, a key only checked, as jinja2 does it. */
FILTER(f_xmlattr) {
    struct jb b = {0};
    if (self.kind == JV_UNDEF)
        jv_fail_undef(x, self);
    if (self.kind != JV_DICT)
        jx_fail(x, "'%s' object has no attribute 'items'", jv_type(self));
    for (size_t i = 0; i < self.d->n; i++) {
        struct jv key = self.d->key[i], val = self.d->val[i];
        if (val.kind == JV_NONE || val.kind == JV_UNDEF)
            continue;
        const struct jstr *k = ja_str(x, key, "xmlattr(): a key");
        for (size_t j = 0, used; j < k->n; j += used) {
            uint32_t cp = js_decode(k->p + j, k->n - j, &used);
            if (js_space(cp) || cp == '/' || cp == '>' || cp == '=')
                jx_fail(x, "Invalid character in attribute name");
        }
        if (b.n || arg[0].kind == JV_MISSING || jv_truth(x, arg[0]))
            jb_adds(x, &b, " ");
        jb_addstr(x, &b, k->safe ? k : js_escape(x, k).s);
        jb_adds(x, &b, "=\"");
        jb_addstr(x, &b,
                  val.kind == JV_STR && val.s->safe ? val.s : js_escape(x, jv_text(x, val)).s);
        jb_adds(x, &b, "\"");
        jx_step(x, 1);
    }
    return jb_value(x, &b);
}

FILTER(f_refused) {
    jx_fail(x, "the filters random and urlize are not offered to chat templates");
}

FILTER(f_format) {
    if (raw->n && raw->n_kw)
        jx_fail(x, "can't handle positional and keyword arguments at the same time");
    if (!raw->n_kw) {
        struct jv t = jv_seq(x, JV_TUPLE, raw->n);
        for (size_t i = 0; i < raw->n; i++)
            jv_push(x, t.l, raw->v[i]);
        return js_percent(x, text(x, self), t);
    }
    struct jv d = jv_dict(x);
    for (size_t i = 0; i < raw->n_kw; i++)
        jd_put(x, d.d, jv_keyword(x, &raw->kw[i]), raw->kw[i].v);
    return js_percent(x, text(x, self), d);
}

static struct jstr *spaces(struct jx *x, int64_t n) {
    struct jb b = {0};
    if (n > 1 << 20)
        jx_limit(x, "an indentation of %lld", (long long)n);
    jb_fill(x, &b, ' ', 0, n > 0 ? (size_t)n : 0);
    return jb_value(x, &b).s;
}

FILTER(f_indent) {
    struct jstr *s = ja_str(x, self, "indent(): the value");
    const struct jstr *in = arg[0].kind == JV_STR ? arg[0].s
                            : arg[0].kind == JV_MISSING
                                ? spaces(x, 4)
                                : spaces(x, ja_int(x, arg[0], "indent(): width"));
    bool first = flag(x, arg[1]), blank = flag(x, arg[2]);
    struct jb b = {0};
    jb_addstr(x, &b, s);
    jb_adds(x, &b, "\n");
    const struct jlist *l = js_lines(x, jb_value(x, &b).s, false);
    b = (struct jb){0};
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            jb_adds(x, &b, "\n");
        if (i ? blank || l->v[i].s->n : first)
            jb_addstr(x, &b, in);
        jb_addstr(x, &b, l->v[i].s);
    }
    struct jv v = jb_value(x, &b);
    v.s->safe = s->safe;
    return v;
}

FILTER(f_truncate) {
    int64_t len = arg[0].kind == JV_MISSING ? 255 : ja_int(x, arg[0], "truncate(): length");
    struct jstr *end =
        arg[2].kind == JV_MISSING ? jv_cstr(x, "...").s : ja_str(x, arg[2], "truncate(): end");
    int64_t leeway = ja_given(arg[3]) ? ja_int(x, arg[3], "truncate(): leeway") : 5;
    int64_t n_end = (int64_t)js_cps(x, end);
    if (len < n_end || leeway < 0)
        jx_fail(x, "truncate(): expected length >= %lld and leeway >= 0", (long long)n_end);
    int64_t have = (int64_t)jv_len(x, self);
    if (have <= leeway || have - leeway <= len)
        return self;
    struct jstr *s = ja_str(x, self, "truncate(): the value");
    struct jstr *cut = jv_sub(x, s, 0, js_offset(x, s, (size_t)(len - n_end))).s;
    const char *sp = cut->n ? memrchr(cut->p, ' ', cut->n) : NULL;
    if (!flag(x, arg[1]) && sp)
        cut = jv_sub(x, cut, 0, (size_t)(sp - cut->p)).s;
    return js_plus(x, cut, end);
}

static bool word_char(uint32_t cp) {
    return cp == '_' || js_alnum(cp);
}

FILTER(f_wordcount) {
    struct jstr *s = text(x, self);
    int64_t n = 0;
    bool in = false;
    for (size_t i = 0, used; i < s->n; i += used) {
        bool w = word_char(js_decode(s->p + i, s->n - i, &used));
        n += w && !in;
        in = w;
    }
    jx_step(x, s->n / 8);
    return jv_int(n);
}

FILTER(f_striptags) {
    const struct jstr *s = jv_text(x, self);
    struct jb b = {0};
    for (size_t i = 0; i < s->n;) { /* up to a comment or a tag that is not closed */
        const char *open = memchr(s->p + i, '<', s->n - i), *close = NULL;
        size_t at = open ? (size_t)(open - s->p) : s->n;
        bool comment = s->n - at >= 4 && memcmp(open, "<!--", 4) == 0;
        if (comment)
            close = s->n - at > 4 ? memmem(open + 4, s->n - at - 4, "-->", 3) : NULL;
        else if (open)
            close = memchr(open, '>', s->n - at);
        at = close ? at : s->n;
        jb_add(x, &b, s->p + i, s->m ? s->m + i : NULL, at - i);
        i = close ? (size_t)(close - s->p) + (comment ? 3 : 1) : s->n;
        jx_step(x, 1);
    }
    struct jlist *words =
        jr_builtin(x, jb_find(jb_str_methods, "split", 5), jb_value(x, &b), &(struct jargs){0})
            .l;
    struct jv v = js_join(x, jv_cstr(x, " ").s, words, false);
    static const struct {
        const char *from, *to;
    } entity[] = {{"&lt;", "<"},    {"&gt;", ">"},  {"&#34;", "\""},
                  {"&quot;", "\""}, {"&#39;", "'"}, {"&amp;", "&"}};
    for (size_t k = 0; k < 6; k++)
        v = js_replace(x, v.s, jv_cstr(x, entity[k].from).s, jv_cstr(x, entity[k].to).s, -1);
    return v;
}

static void quote_url(struct jx *x, struct jb *b, const struct jstr *s, bool query) {
    for (size_t i = 0; i < s->n; i++) {
        unsigned char c = (unsigned char)s->p[i];
        uint8_t m = s->m ? s->m[i] : 0;
        char t[8];
        bool alnum = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
        if (alnum || (c && strchr("_.-~", c)) || (c == '/' && !query)) {
            jb_addc(x, b, (char)c, m);
        } else if (c == ' ' && query) {
            jb_addc(x, b, '+', m);
        } else {
            snprintf(t, sizeof t, "%%%02X", c);
            jb_add(x, b, t, m ? jx_ones(x, 3) : NULL, 3);
        }
    }
    jx_step(x, s->n / 8);
}

FILTER(f_urlencode) {
    struct jb b = {0};
    if (self.kind == JV_STR || !jv_iterable(self)) {
        quote_url(x, &b, jv_text(x, self), false);
        return jb_value(x, &b);
    }
    if (self.kind == JV_DICT)
        self = jr_builtin(x, jb_find(jb_dict_methods, "items", 5), self, &(struct jargs){0});
    const struct jlist *l = jv_items(x, self);
    for (size_t i = 0; i < l->n; i++) {
        const struct jlist *two = jv_items(x, l->v[i]);
        if (two->n != 2)
            jx_fail(x, "urlencode needs pairs");
        if (i)
            jb_adds(x, &b, "&");
        quote_url(x, &b, jv_text(x, two->v[0]), true);
        jb_adds(x, &b, "=");
        quote_url(x, &b, jv_text(x, two->v[1]), true);
    }
    return jb_value(x, &b);
}

/* ---- numbers ---- */

static struct jv int_of_float(struct jx *x, double f, struct jv dflt) {
    if (isnan(f) || isinf(f))
        return dflt;
    if (!(fabs(f) < 9223372036854775808.0))
        jx_limit(x, "an integer is beyond 64 bits");
    return jv_int((int64_t)f);
}

/* Digits of other scripts count as numbers do in Python. They come ten in a row, from zero. */
static char digit_of(uint32_t cp) {
    uint32_t zero = cp;
    while (cp - zero < 9 && js_decimal(zero - 1))
        zero--;
    if (cp >= 0x1D7CE && cp <= 0x1D7FF) /* five sets without a gap */
        zero = cp - (cp - 0x1D7CE) % 10;
    return (char)('0' + (cp - zero));
}

static bool number_char(char c, bool letters) {
    return (c >= '0' && c <= '9') || (letters && (c | 32) >= 'a' && (c | 32) <= 'z');
}

/* A string's number without blanks around and without the underscores between digits, which
 * letters can be too; NULL: not one. */
static char *number_text(struct jx *x, const struct jstr *s, bool letters) {
    const struct jstr *t = js_strip(x, s, NULL, 3).s;
    char *z = jx_alloc(x, t->n + 1, 1), before = '\0';
    size_t n = 0;
    for (size_t i = 0, used; i < t->n; i += used) {
        uint32_t cp = js_decode(t->p + i, t->n - i, &used);
        char c = cp < 0x80 ? (char)cp : js_decimal(cp) ? digit_of(cp) : '\0';
        if (c == '\0' || (c == '_' && !number_char(before, letters)) ||
            (before == '_' && !number_char(c, letters)))
            return NULL;
        if (c != '_')
            z[n++] = c;
        before = c;
    }
    return n && before != '_' ? z : NULL;
}

static bool parse_float(struct jx *x, const struct jstr *s, double *out) {
    char *z = number_text(x, s, false), *end;
    if (!z || strpbrk(z, "xX(pP"))
        return false;
    *out = strtod(z, &end);
    return *end == '\0';
}

static bool parse_int(struct jx *x, const struct jstr *s, int base, int64_t *out) {
    char *z = number_text(x, s, true), *end, *d;
    if (!z)
        return false;
    d = z + (*z == '-' || *z == '+');
    if ((base == 16 || base == 8 || base == 2 || base == 0) && d[0] == '0' && d[1]) {
        int of = (d[1] | 32) == 'x' ? 16 : (d[1] | 32) == 'o' ? 8 : (d[1] | 32) == 'b' ? 2 : 0;
        if (of && (base == of || base == 0)) {
            base = of;
            memmove(d, d + 2, strlen(d + 2) + 1);
        } else if (base == 0 && strspn(d, "0") != strlen(d)) {
            return false;
        }
    }
    bool prefix = d[0] == '0' && (d[1] | 32) == 'x'; /* strtoll would take it */
    if (!number_char(*d, true) || (prefix && base == 16))
        return false;
    errno = 0;
    long long v = strtoll(z, &end, base ? base : 10);
    if (*end)
        return false;
    if (errno == ERANGE)
        jx_limit(x, "an integer is beyond 64 bits");
    *out = v;
    return true;
}

FILTER(f_int) {
    struct jv dflt = arg[0].kind == JV_MISSING ? jv_int(0) : arg[0];
    int64_t base = arg[1].kind == JV_MISSING ? 10 : ja_int(x, arg[1], "int(): base"), i;
    double f;
    if (self.kind == JV_UNDEF)
        jv_fail_undef(x, self);
    if (base != 0 && (base < 2 || base > 36))
        return dflt;
    if (self.kind == JV_BIG)
        return self;
    if (jv_is_int(self))
        return jv_int(jv_i(self));
    if (self.kind == JV_FLOAT)
        return int_of_float(x, self.f, dflt);
    if (self.kind != JV_STR)
        return dflt;
    if (parse_int(x, self.s, (int)base, &i))
        return jv_int(i);
    return parse_float(x, self.s, &f) ? int_of_float(x, f, dflt) : dflt;
}

FILTER(f_float) {
    struct jv dflt = arg[0].kind == JV_MISSING ? jv_float(0) : arg[0];
    double f;
    if (self.kind == JV_UNDEF)
        jv_fail_undef(x, self);
    if (jv_is_num(self))
        return jv_float(jv_f(self));
    if (self.kind == JV_STR || self.kind == JV_BIG)
        return parse_float(x, self.s, &f) ? jv_float(f) : dflt;
    return dflt;
}

FILTER(f_abs) {
    if (self.kind == JV_UNDEF)
        jv_fail_undef(x, self);
    if (!jv_is_num(self))
        jx_fail(x, "bad operand type for abs(): '%s'", jv_type(self));
    if (self.kind == JV_FLOAT)
        return jv_float(fabs(self.f));
    return jv_i(self) < 0 ? jo_negate(x, self, true) : jv_int(jv_i(self));
}

/* The number written with so many digits after the point, read back: round half to even of the
 * exact value. */
static double round_digits(double f, int digits) {
    char t[400];
    if (!isfinite(f) || digits > 300)
        return f;
    snprintf(t, sizeof t, "%.*f", digits, f);
    return strtod(t, NULL);
}

static struct jv round_int(struct jx *x, int64_t v, int64_t digits) {
    if (digits >= 0)
        return jv_int(v);
    int64_t unit = 1;
    for (; digits < 0; digits++)
        if (__builtin_mul_overflow(unit, 10, &unit))
            return jv_int(0);
    int64_t down = v - ((v % unit) + unit) % unit, rest = v - down;
    bool up = rest > unit - rest || (rest == unit - rest && (down / unit) % 2 != 0);
    if (up && __builtin_add_overflow(down, unit, &down))
        jx_limit(x, "an integer is beyond 64 bits");
    return jv_int(down);
}

FILTER(f_round) {
    int64_t digits = arg[0].kind == JV_MISSING ? 0 : ja_int(x, arg[0], "round(): precision");
    const char *how = "common";
    if (arg[1].kind != JV_MISSING) {
        const struct jstr *s = ja_str(x, arg[1], "round(): method");
        how = js_is(s, "common")  ? "common"
              : js_is(s, "ceil")  ? "ceil"
              : js_is(s, "floor") ? "floor"
                                  : NULL;
        if (!how)
            jx_fail(x, "method must be common, ceil or floor");
    }
    if (self.kind == JV_UNDEF)
        jv_fail_undef(x, self);
    if (!jv_is_num(self))
        jx_fail(x, "type %s doesn't define __round__ method", jv_type(self));
    bool common = how[1] == 'o';
    if (common && jv_is_int(self))
        return round_int(x, jv_i(self), digits);
    double f = jv_f(self);
    if (common && digits >= 0)
        return jv_float(round_digits(f, (int)(digits > 400 ? 400 : digits)));
    double unit = pow(10, (double)digits);
    if (common)
        return jv_float(digits < -308 ? 0 * f : nearbyint(f * unit) / unit);
    if (!isfinite(f))
        jx_fail(x, "cannot convert float infinity or NaN to integer");
    if (jv_is_int(self) && digits >= 0) /* exact in Python: there is nothing to round */
        return jv_float(f);
    if (!isfinite(f * unit))
        jx_fail(x, "cannot convert float infinity to integer");
    return jv_float(((how[0] == 'c' ? ceil(f * unit) : floor(f * unit)) + 0.0) / unit);
}

FILTER(f_filesizeformat) {
    static const char *const bin[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"};
    static const char *const dec[] = {"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"};
    char t[400]; /* 309 digits, the point, the unit */
    bool binary = flag(x, arg[0]);
    double f = 0, base = binary ? 1024 : 1000, unit = base;
    if (jv_is_num(self))
        f = jv_f(self);
    else if (self.kind != JV_STR || !parse_float(x, self.s, &f))
        jx_fail(x, "filesizeformat needs a number");
    if (f == 1)
        return jv_cstr(x, "1 Byte");
    int k = 0;
    if (f < base) {
        snprintf(t, sizeof t, "%.0f Bytes", trunc(f) + 0.0); /* no -0 */
    } else {
        for (unit = base * base; !(f < unit) && k < 7; k++)
            unit *= base;
        snprintf(t, sizeof t, "%.1f %s", base * f / unit, binary ? bin[k] : dec[k]);
    }
    struct jb b = {0};
    jb_adds(x, &b, t);
    return jb_value(x, &b);
}

FILTER(f_tojson) {
    struct json_style st = {.ascii = flag(x, arg[0]), .sort = flag(x, arg[3])};
    if (arg[1].kind == JV_STR)
        st.indent = arg[1].s;
    else if (ja_given(arg[1]))
        st.indent = spaces(x, ja_int(x, arg[1], "tojson(): indent"));
    st.item_sep = jv_cstr(x, st.indent ? "," : ", ").s;
    st.key_sep = jv_cstr(x, ": ").s;
    if (ja_given(arg[2])) {
        const struct jlist *two = jv_items(x, arg[2]);
        if (two->n != 2)
            jx_fail(x, "tojson(): separators must be a pair");
        st.item_sep = ja_str(x, two->v[0], "tojson(): a separator");
        st.key_sep = ja_str(x, two->v[1], "tojson(): a separator");
    }
    struct jb b = {0};
    jv_json(x, &b, self, &st, 0);
    return jb_value(x, &b);
}

const struct jfn jb_filters_text[] = {
    {"abs", "/", 0, f_abs},
    {"capitalize", "", 0, f_capitalize},
    {"center", "width", 0, f_center},
    {"e", "", 0, f_escape},
    {"escape", "", 0, f_escape},
    {"filesizeformat", "binary", 0, f_filesizeformat},
    {"float", "default", 0, f_float},
    {"forceescape", "", 0, f_forceescape},
    {"format", "*", 0, f_format},
    {"indent", "width first blank", 0, f_indent},
    {"int", "default base", 0, f_int},
    {"lower", "", 0, f_lower},
    {"random", "*", 0, f_refused},
    {"replace", "old new count", 2, f_replace},
    {"round", "precision method", 0, f_round},
    {"safe", "", 0, f_safe},
    {"string", "", 0, f_string},
    {"striptags", "", 0, f_striptags},
    {"title", "", 0, f_title},
    {"tojson", "ensure_ascii indent separators sort_keys", 0, f_tojson},
    {"trim", "chars", 0, f_trim},
    {"truncate", "length killwords end leeway", 0, f_truncate},
    {"upper", "", 0, f_upper},
    {"urlencode", "", 0, f_urlencode},
    {"urlize", "*", 0, f_refused},
    {"wordcount", "", 0, f_wordcount},
    {"xmlattr", "autospace", 0, f_xmlattr},
    {0}};

const struct jfn *jb_find_filter(const char *name, size_t len) {
    const struct jfn *f = jb_find(jb_filters_text, name, len);
    f = f ? f : jb_find(jb_filters_seq, name, len);
    return f ? f : jb_find(jb_filters_wrap, name, len);
}

struct jv jb_filter(struct jx *x, const struct jstr *name, struct jv self,
                    const struct jargs *a) {
    const struct jfn *f = jb_find_filter(name->p, name->n);
    jx_step(x, 1);
    if (!f)
        jx_fail(x, "No filter named '%.*s'", (int)(name->n < 60 ? name->n : 60), name->p);
    return jr_builtin(x, f, self, a);
}
