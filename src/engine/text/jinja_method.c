/*
 * jinja_method.c - the methods a template can call on strings, lists, tuples, dictionaries and
 * numbers.
 *
 * The tables are the whole surface: what is not in them is an undefined attribute. Rows without
 * a function are methods that Python has and that would change their object; the sandbox
 * refuses them, there as here. (Not offered: encode, translate and maketrans, whose results no
 * template could use.)
 */
#include "engine/text/jinja_run.h"
#include <utf8proc.h>

#define METHOD(name)                                                                           \
    static struct jv name(struct jx *x, struct jv self, struct jv *arg,                        \
                          __attribute__((unused)) const struct jargs *raw)

/* ---- case and width ---- */

METHOD(m_upper) {
    (void)arg;
    return js_upper(x, self.s);
}

METHOD(m_lower) {
    (void)arg;
    return js_lower(x, self.s);
}

METHOD(m_casefold) {
    (void)arg;
    return js_casefold(x, self.s);
}

METHOD(m_capitalize) {
    (void)arg;
    return js_capital(x, self.s);
}

METHOD(m_title) {
    (void)arg;
    return js_title(x, self.s);
}

METHOD(m_swapcase) {
    (void)arg;
    return js_swapcase(x, self.s);
}

static struct jv just(struct jx *x, struct jv self, const struct jv *arg, int side) {
    uint32_t fill = ' ';
    uint8_t mask = 0;
    if (arg[1].kind != JV_MISSING) {
        struct jstr *f = ja_str(x, arg[1], "the fill character");
        size_t used;
        if (js_cps(x, f) != 1)
            jx_fail(x, "the fill character must be exactly one character long");
        fill = js_decode(f->p, f->n, &used);
        mask = f->m ? f->m[0] : 0;
    }
    return js_center(x, self.s, ja_int(x, arg[0], "width"), fill, mask, side);
}

METHOD(m_center) {
    return just(x, self, arg, 'c');
}

METHOD(m_ljust) {
    return just(x, self, arg, 'l');
}

METHOD(m_rjust) {
    return just(x, self, arg, 'r');
}

METHOD(m_zfill) {
    int64_t width = ja_int(x, arg[0], "width"), n = (int64_t)js_cps(x, self.s);
    bool sign = self.s->n && (self.s->p[0] == '-' || self.s->p[0] == '+');
    struct jb b = {0};
    if (sign)
        jb_add(x, &b, self.s->p, self.s->m, 1);
    if (width > n)
        jb_fill(x, &b, '0', 0, (size_t)(width - n));
    jb_addstr(x, &b, jv_sub(x, self.s, sign, self.s->n).s);
    return jb_value(x, &b);
}

METHOD(m_expandtabs) {
    int64_t size = arg[0].kind == JV_MISSING ? 8 : ja_int(x, arg[0], "tabsize"), col = 0;
    struct jb b = {0};
    for (size_t i = 0; i < self.s->n; i++) {
        char c = self.s->p[i];
        uint8_t m = self.s->m ? self.s->m[i] : 0;
        jx_step(x, 1);
        if (c == '\t') {
            int64_t pad = size > 0 ? size - col % size : 0;
            jb_fill(x, &b, ' ', m, (size_t)pad);
            col += pad;
            continue;
        }
        jb_addc(x, &b, c, m);
        col = c == '\n' || c == '\r' ? 0 : col + (((unsigned char)c & 0xC0) != 0x80);
    }
    return jb_value(x, &b);
}

/* ---- stripping and splitting ---- */

static struct jv strip(struct jx *x, struct jv self, const struct jv *arg, int sides) {
    return js_strip(x, self.s, ja_given(arg[0]) ? ja_str(x, arg[0], "strip() argument") : NULL,
                    sides);
}

METHOD(m_strip) {
    return strip(x, self, arg, 3);
}

METHOD(m_lstrip) {
    return strip(x, self, arg, 1);
}

METHOD(m_rstrip) {
    return strip(x, self, arg, 2);
}

static void split_blank(struct jx *x, const struct jstr *s, int64_t max, struct jlist *out) {
    size_t i = 0, used;
    for (;;) {
        i = s->n - js_strip(x, jv_sub(x, s, i, s->n).s, NULL, 1).s->n;
        if (i >= s->n)
            return;
        if (max >= 0 && (int64_t)out->n >= max) {
            jv_push(x, out, jv_sub(x, s, i, s->n)); /* with the blanks at its end */
            return;
        }
        size_t from = i;
        while (i < s->n && !js_space(js_decode(s->p + i, s->n - i, &used)))
            i += used;
        jv_push(x, out, jv_sub(x, s, from, i));
        jx_step(x, (i - from) / 16);
    }
}

/* From the right; the pieces come in reverse. */
static void rsplit_blank(struct jx *x, const struct jstr *s, int64_t max, struct jlist *out) {
    size_t end = s->n, used;
    for (;;) {
        end = js_strip(x, jv_sub(x, s, 0, end).s, NULL, 2).s->n;
        if (!end)
            return;
        if (max >= 0 && (int64_t)out->n >= max) {
            jv_push(x, out, jv_sub(x, s, 0, end)); /* with the blanks before it */
            return;
        }
        size_t p = end;
        while (p > 0) {
            size_t q = p - 1;
            while (q > 0 && ((unsigned char)s->p[q] & 0xC0) == 0x80)
                q--;
            if (js_space(js_decode(s->p + q, s->n - q, &used)))
                break;
            p = q;
        }
        jv_push(x, out, jv_sub(x, s, p, end));
        jx_step(x, (end - p) / 16);
        end = p;
    }
}

static void split_by(struct jx *x, const struct jstr *s, const struct jstr *sep, int64_t max,
                     struct jlist *out) {
    size_t at = 0;
    jx_step(x, s->n / 64);
    while (max < 0 || (int64_t)out->n < max) {
        const char *hit = js_find(s->p + at, s->n - at, sep);
        if (!hit)
            break;
        jv_push(x, out, jv_sub(x, s, at, (size_t)(hit - s->p)));
        at = (size_t)(hit - s->p) + sep->n;
    }
    jv_push(x, out, jv_sub(x, s, at, s->n));
}

/* A search from the right: Knuth, Morris and Pratt's, since a plain one takes the product of
 * the lengths for a word that nearly fits everywhere. */
struct rsearch {
    const struct jstr *s, *w;
    uint32_t *fail; /* [w->n] of the word read backwards */
    size_t at;      /* what lies before it is not searched yet */
};

static char back(const struct jstr *w, size_t i) {
    return w->p[w->n - 1 - i];
}

static struct rsearch rsearch(struct jx *x, const struct jstr *s, const struct jstr *w) {
    struct rsearch r = {s, w, jx_alloc(x, w->n, sizeof *r.fail), s->n};
    for (size_t i = 1, k = 0; i < w->n; i++) {
        while (k && back(w, i) != back(w, k))
            k = r.fail[k - 1];
        k += back(w, i) == back(w, k);
        r.fail[i] = (uint32_t)k;
    }
    jx_step(x, w->n / 16 + s->n / 16);
    return r;
}

/* The last place of the word before r->at, which moves there; SIZE_MAX: none. */
static size_t rsearch_next(struct rsearch *r) {
    size_t k = 0;
    if (!r->w->n)
        return r->at;
    while (r->at) {
        char c = r->s->p[--r->at];
        while (k && back(r->w, k) != c)
            k = r->fail[k - 1];
        k += back(r->w, k) == c;
        if (k == r->w->n)
            return r->at;
    }
    return SIZE_MAX;
}

static size_t rfind_bytes(struct jx *x, const struct jstr *s, const struct jstr *w) {
    if (w->n > s->n)
        return SIZE_MAX;
    struct rsearch r = rsearch(x, s, w);
    return rsearch_next(&r);
}

static void rsplit_by(struct jx *x, const struct jstr *s, const struct jstr *sep, int64_t max,
                      struct jlist *out) {
    size_t end = s->n;
    struct rsearch r = rsearch(x, s, sep);
    while (max < 0 || (int64_t)out->n < max) {
        size_t hit = rsearch_next(&r);
        if (hit == SIZE_MAX)
            break;
        jv_push(x, out, jv_sub(x, s, hit + sep->n, end));
        end = hit;
    }
    jv_push(x, out, jv_sub(x, s, 0, end));
}

static const struct jstr *separator(struct jx *x, struct jv v) {
    if (!ja_given(v))
        return NULL;
    const struct jstr *s = ja_str(x, v, "the separator");
    if (!s->n)
        jx_fail(x, "empty separator");
    return s;
}

METHOD(m_split) {
    struct jv l = jv_seq(x, JV_LIST, 0);
    const struct jstr *sep = separator(x, arg[0]);
    int64_t max = arg[1].kind == JV_MISSING ? -1 : ja_int(x, arg[1], "maxsplit");
    if (sep)
        split_by(x, self.s, sep, max, l.l);
    else
        split_blank(x, self.s, max, l.l);
    return l;
}

METHOD(m_rsplit) {
    struct jv l = jv_seq(x, JV_LIST, 0);
    const struct jstr *sep = separator(x, arg[0]);
    int64_t max = arg[1].kind == JV_MISSING ? -1 : ja_int(x, arg[1], "maxsplit");
    if (sep)
        rsplit_by(x, self.s, sep, max, l.l);
    else
        rsplit_blank(x, self.s, max, l.l);
    for (size_t i = 0, j = l.l->n; i + 1 < j--; i++) {
        struct jv t = l.l->v[i];
        l.l->v[i] = l.l->v[j];
        l.l->v[j] = t;
    }
    return l;
}

METHOD(m_splitlines) {
    bool keep = arg[0].kind != JV_MISSING && jv_truth(x, arg[0]);
    return (struct jv){.kind = JV_LIST, .l = js_lines(x, self.s, keep)};
}

static struct jv partition(struct jx *x, struct jv self, struct jv by, bool last) {
    const struct jstr *s = self.s, *sep = separator(x, by);
    if (!sep)
        jx_fail(x, "must be str, not NoneType");
    struct jv t = jv_seq(x, JV_TUPLE, 3), none = jv_cstr(x, "");
    const char *hit = js_find(s->p, s->n, sep);
    size_t at = hit ? (size_t)(hit - s->p) : SIZE_MAX;
    jx_step(x, s->n / 16);
    if (last)
        at = rfind_bytes(x, s, sep);
    if (at == SIZE_MAX) {
        jv_push(x, t.l, last ? none : self);
        jv_push(x, t.l, none);
        jv_push(x, t.l, last ? self : none);
        return t;
    }
    jv_push(x, t.l, jv_sub(x, s, 0, at));
    jv_push(x, t.l, by);
    jv_push(x, t.l, jv_sub(x, s, at + sep->n, s->n));
    return t;
}

METHOD(m_partition) {
    return partition(x, self, arg[0], false);
}

METHOD(m_rpartition) {
    return partition(x, self, arg[0], true);
}

METHOD(m_removeprefix) {
    const struct jstr *w = ja_str(x, arg[0], "the prefix");
    bool cut = w->n <= self.s->n && memcmp(self.s->p, w->p, w->n) == 0;
    return jv_sub(x, self.s, cut ? w->n : 0, self.s->n);
}

METHOD(m_removesuffix) {
    const struct jstr *w = ja_str(x, arg[0], "the suffix");
    size_t n = self.s->n;
    bool cut = w->n <= n && memcmp(self.s->p + n - w->n, w->p, w->n) == 0;
    return jv_sub(x, self.s, 0, cut ? n - w->n : n);
}

METHOD(m_replace) {
    int64_t max = arg[2].kind == JV_MISSING ? -1 : ja_int(x, arg[2], "count");
    return js_replace(x, self.s, ja_str(x, arg[0], "replace() argument 1"),
                      ja_str(x, arg[1], "replace() argument 2"), max);
}

METHOD(m_join) {
    if (arg[0].kind == JV_UNDEF)
        return jv_cstr(x, "");
    if (!jv_iterable(arg[0]))
        jx_fail(x, "can only join an iterable");
    return js_join(x, self.s, jv_items(x, arg[0]), false);
}

/* ---- searching ---- */

/* self[from:to] as bytes; false: nothing can be found there. */
static bool window(struct jx *x, struct jv self, const struct jv *arg, struct jstr **w,
                   size_t *lo_cp) {
    size_t lo, hi, n = js_cps(x, self.s);
    ja_bounds(x, arg[1], arg[2], n, &lo, &hi);
    *lo_cp = lo;
    if (lo > hi)
        return false;
    *w = jv_sub(x, self.s, js_offset(x, self.s, lo), js_offset(x, self.s, hi)).s;
    jx_step(x, (*w)->n / 16);
    return true;
}

static int64_t find(struct jx *x, struct jv self, const struct jv *arg, bool last) {
    const struct jstr *what = ja_str(x, arg[0], "the substring");
    struct jstr *w;
    size_t lo, at;
    if (!window(x, self, arg, &w, &lo))
        return -1;
    if (last) {
        at = rfind_bytes(x, w, what);
    } else {
        const char *hit = !what->n ? w->p : js_find(w->p, w->n, what);
        at = hit ? (size_t)(hit - w->p) : SIZE_MAX;
    }
    return at == SIZE_MAX ? -1 : (int64_t)(lo + js_cps(x, jv_sub(x, w, 0, at).s));
}

METHOD(m_find) {
    return jv_int(find(x, self, arg, false));
}

METHOD(m_rfind) {
    return jv_int(find(x, self, arg, true));
}

METHOD(m_index) {
    int64_t at = find(x, self, arg, false);
    if (at < 0)
        jx_fail(x, "substring not found");
    return jv_int(at);
}

METHOD(m_rindex) {
    int64_t at = find(x, self, arg, true);
    if (at < 0)
        jx_fail(x, "substring not found");
    return jv_int(at);
}

METHOD(m_count) {
    const struct jstr *what = ja_str(x, arg[0], "the substring");
    struct jstr *w;
    size_t lo, at = 0;
    int64_t n = 0;
    if (!window(x, self, arg, &w, &lo))
        return jv_int(0);
    if (!what->n)
        return jv_int((int64_t)js_cps(x, w) + 1);
    for (const char *hit; (hit = js_find(w->p + at, w->n - at, what)) != NULL; n++)
        at = (size_t)(hit - w->p) + what->n;
    return jv_int(n);
}

static bool at_end(const struct jstr *w, const struct jstr *part, bool end) {
    return part->n <= w->n && memcmp(w->p + (end ? w->n - part->n : 0), part->p, part->n) == 0;
}

static struct jv with(struct jx *x, struct jv self, const struct jv *arg, bool end) {
    struct jstr *w;
    size_t lo;
    bool yes = false, there = window(x, self, arg, &w, &lo);
    if (arg[0].kind == JV_TUPLE) {
        for (size_t i = 0; i < arg[0].l->n; i++) {
            const struct jstr *p =
                ja_str(x, arg[0].l->v[i], "startswith/endswith: a tuple's item");
            yes = yes || (there && at_end(w, p, end));
        }
        return jv_bool(yes);
    }
    const struct jstr *p = ja_str(x, arg[0], "startswith/endswith: the first argument");
    return jv_bool(there && at_end(w, p, end));
}

METHOD(m_startswith) {
    return with(x, self, arg, false);
}

METHOD(m_endswith) {
    return with(x, self, arg, true);
}

/* ---- what a string is made of ---- */

static bool is_alpha(uint32_t cp) {
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL ||
           c == UTF8PROC_CATEGORY_LT || c == UTF8PROC_CATEGORY_LM || c == UTF8PROC_CATEGORY_LO;
}

static bool is_digit(uint32_t cp) { /* and the superscripts and subscripts */
    return js_decimal(cp) || cp == 0xB2 || cp == 0xB3 || cp == 0xB9 || cp == 0x2070 ||
           (cp >= 0x2074 && cp <= 0x2079) || (cp >= 0x2080 && cp <= 0x2089);
}

static bool is_numeric(uint32_t cp) {
    return js_alnum(cp) && !is_alpha(cp);
}

static bool is_ascii(uint32_t cp) {
    return cp < 0x80;
}

static bool all(struct jx *x, const struct jstr *s, bool (*is)(uint32_t), bool empty) {
    jx_step(x, s->n / 8);
    for (size_t i = 0, used; i < s->n; i += used)
        if (!is(js_decode(s->p + i, s->n - i, &used)))
            return false;
    return s->n || empty;
}

#define IS(name, of, empty)                                                                    \
    METHOD(name) {                                                                             \
        (void)arg;                                                                             \
        return jv_bool(all(x, self.s, of, empty));                                             \
    }

IS(m_isalpha, is_alpha, false)
IS(m_isalnum, js_alnum, false)
IS(m_isdigit, is_digit, false)
IS(m_isdecimal, js_decimal, false)
IS(m_isnumeric, is_numeric, false)
IS(m_isspace, js_space, false)
IS(m_isascii, is_ascii, true)
IS(m_isprintable, js_printable, true)

METHOD(m_isidentifier) {
    (void)arg;
    jx_step(x, self.s->n / 8);
    for (size_t i = 0, used; i < self.s->n; i += used)
        if (!js_in_name(js_decode(self.s->p + i, self.s->n - i, &used), i == 0))
            return jv_bool(false);
    return jv_bool(self.s->n > 0);
}

METHOD(m_islower) {
    (void)arg;
    jx_step(x, self.s->n / 8);
    return jv_bool(js_is_cased(self.s, false));
}

METHOD(m_isupper) {
    (void)arg;
    jx_step(x, self.s->n / 8);
    return jv_bool(js_is_cased(self.s, true));
}

METHOD(m_istitle) {
    bool inside = false, any = false;
    (void)arg;
    jx_step(x, self.s->n / 8);
    for (size_t i = 0, used; i < self.s->n; i += used) {
        uint32_t cp = js_decode(self.s->p + i, self.s->n - i, &used);
        enum js_case c = js_case_of(cp);
        if (c != JS_UNCASED && (c == JS_LOWER) != inside)
            return jv_bool(false);
        inside = c != JS_UNCASED;
        any = any || inside;
    }
    return jv_bool(any);
}

METHOD(m_format) {
    (void)arg;
    return js_format(x, self.s, raw);
}

METHOD(m_format_map) {
    if (arg[0].kind != JV_DICT)
        jx_fail(x, "format_map() needs a mapping");
    struct jargs a = {0};
    a.kw = jx_alloc(x, arg[0].d->n, sizeof *a.kw);
    for (size_t i = 0; i < arg[0].d->n; i++)
        if (arg[0].d->key[i].kind == JV_STR) {
            const struct jstr *k = arg[0].d->key[i].s;
            a.kw[a.n_kw++] = (struct jkw){jx_intern(x, k->p, k->n), arg[0].d->val[i], NULL};
        }
    return js_format(x, self.s, &a);
}

const struct jfn jb_str_methods[] = {{"capitalize", "/", 0, m_capitalize},
                                     {"casefold", "/", 0, m_casefold},
                                     {"center", "/width fillchar", 1, m_center},
                                     {"count", "/sub start end", 1, m_count},
                                     {"endswith", "/suffix start end", 1, m_endswith},
                                     {"expandtabs", "tabsize", 0, m_expandtabs},
                                     {"find", "/sub start end", 1, m_find},
                                     {"format", "*", 0, m_format},
                                     {"format_map", "/mapping", 1, m_format_map},
                                     {"index", "/sub start end", 1, m_index},
                                     {"isalnum", "/", 0, m_isalnum},
                                     {"isalpha", "/", 0, m_isalpha},
                                     {"isascii", "/", 0, m_isascii},
                                     {"isdecimal", "/", 0, m_isdecimal},
                                     {"isdigit", "/", 0, m_isdigit},
                                     {"isidentifier", "/", 0, m_isidentifier},
                                     {"islower", "/", 0, m_islower},
                                     {"isnumeric", "/", 0, m_isnumeric},
                                     {"isprintable", "/", 0, m_isprintable},
                                     {"isspace", "/", 0, m_isspace},
                                     {"istitle", "/", 0, m_istitle},
                                     {"isupper", "/", 0, m_isupper},
                                     {"join", "/iterable", 1, m_join},
                                     {"ljust", "/width fillchar", 1, m_ljust},
                                     {"lower", "/", 0, m_lower},
                                     {"lstrip", "/chars", 0, m_lstrip},
                                     {"partition", "/sep", 1, m_partition},
                                     {"removeprefix", "/prefix", 1, m_removeprefix},
                                     {"removesuffix", "/suffix", 1, m_removesuffix},
                                     {"replace", "/old new count", 2, m_replace},
                                     {"rfind", "/sub start end", 1, m_rfind},
                                     {"rindex", "/sub start end", 1, m_rindex},
                                     {"rjust", "/width fillchar", 1, m_rjust},
                                     {"rpartition", "/sep", 1, m_rpartition},
                                     {"rsplit", "sep maxsplit", 0, m_rsplit},
                                     {"rstrip", "/chars", 0, m_rstrip},
                                     {"split", "sep maxsplit", 0, m_split},
                                     {"splitlines", "keepends", 0, m_splitlines},
                                     {"startswith", "/prefix start end", 1, m_startswith},
                                     {"strip", "/chars", 0, m_strip},
                                     {"swapcase", "/", 0, m_swapcase},
                                     {"title", "/", 0, m_title},
                                     {"upper", "/", 0, m_upper},
                                     {"zfill", "/width", 1, m_zfill},
                                     {0}};
