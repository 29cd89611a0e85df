/*
 * jinja_str.c - what strings can do: the work behind Python's string methods and the text
 * filters.
 *
 * Everything keeps the mask: a piece that is cut out shares its source's bytes and marks, what
 * is put between (a separator, padding) has its own. Upper and lower case are in jinja_case.c.
 */
#include "base/utf8.h"
#include "engine/text/jinja_run.h"
#include <utf8proc.h>

struct jstr *ja_str(struct jx *x, struct jv v, const char *what) {
    if (v.kind == JV_UNDEF)
        jv_fail_undef(x, v);
    if (v.kind != JV_STR)
        jx_fail(x, "%s must be str, not %s", what, jv_type(v));
    return v.s;
}

int64_t ja_int(struct jx *x, struct jv v, const char *what) {
    if (v.kind == JV_UNDEF)
        jv_fail_undef(x, v);
    if (!jv_is_int(v))
        jx_fail(x, "%s must be an integer, not %s", what, jv_type(v));
    return jv_i(v);
}

void ja_bounds(struct jx *x, struct jv from, struct jv to, size_t n, size_t *lo, size_t *hi) {
    int64_t len = (int64_t)n, a = ja_given(from) ? ja_int(x, from, "start") : 0;
    int64_t b = ja_given(to) ? ja_int(x, to, "end") : len;
    a = a < 0 ? (a < -len ? 0 : a + len) : a;
    b = b < 0 ? (b < -len ? 0 : b + len) : b;
    *lo = (size_t)(a > len ? len + 1 : a); /* n + 1: beyond the end, where nothing is found */
    *hi = (size_t)(b > len ? len : b);
}

/* ---- characters ---- */

static int category(uint32_t cp) {
    return (int)utf8proc_category((utf8proc_int32_t)cp);
}

static bool is_letter(uint32_t cp) {
    int c = category(cp);
    return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL ||
           c == UTF8PROC_CATEGORY_LT || c == UTF8PROC_CATEGORY_LM || c == UTF8PROC_CATEGORY_LO;
}

bool js_alnum(uint32_t cp) {
    int c = category(cp);
    return is_letter(cp) || c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL ||
           c == UTF8PROC_CATEGORY_NO;
}

bool js_decimal(uint32_t cp) {
    return category(cp) == UTF8PROC_CATEGORY_ND;
}

/* ---- cutting ---- */

/* c: a character of n bytes. None begins inside another, so bytes can be compared. */
static bool in_set(struct jx *x, const struct jstr *set, const char *c, size_t n) {
    size_t used;
    if (!set)
        return js_space(js_decode(c, n, &used));
    jx_step(x, set->n / 32);
    return n == 1 ? memchr(set->p, c[0], set->n) : memmem(set->p, set->n, c, n);
}

struct jv js_strip(struct jx *x, const struct jstr *s, const struct jstr *chars, int sides) {
    size_t lo = 0, hi = s->n, used;
    while ((sides & 1) && lo < hi) {
        js_decode(s->p + lo, hi - lo, &used);
        if (!in_set(x, chars, s->p + lo, used))
            break;
        lo += used;
    }
    while ((sides & 2) && hi > lo) {
        size_t p = hi - 1;
        while (p > lo && ((unsigned char)s->p[p] & 0xC0) == 0x80)
            p--;
        if (!in_set(x, chars, s->p + p, hi - p))
            break;
        hi = p;
    }
    jx_step(x, (s->n - (hi - lo)) / 16);
    return jv_sub(x, s, lo, hi);
}

const char *js_find(const char *p, size_t n, const struct jstr *w) {
    if (n < w->n || !n)
        return NULL;
    return w->n == 1 ? memchr(p, w->p[0], n) : memmem(p, n, w->p, w->n);
}

struct jv js_replace(struct jx *x, const struct jstr *s, const struct jstr *from,
                     const struct jstr *to, int64_t max) {
    struct jb b = {0};
    size_t at = 0, used;
    int64_t done = 0;
    jx_step(x, s->n / 64);
    if (from->n == 0) { /* before every character and at the end */
        for (; at < s->n && (max < 0 || done < max); at += used, done++) {
            jb_addstr(x, &b, to);
            js_decode(s->p + at, s->n - at, &used);
            jb_add(x, &b, s->p + at, s->m ? s->m + at : NULL, used);
        }
        if (at == s->n && (max < 0 || done < max)) {
            jb_addstr(x, &b, to);
            done++;
        }
    }
    for (const char *hit; from->n && (max < 0 || done < max); done++) {
        hit = js_find(s->p + at, s->n - at, from);
        if (!hit)
            break;
        size_t pos = (size_t)(hit - s->p);
        jb_add(x, &b, s->p + at, s->m ? s->m + at : NULL, pos - at);
        jb_addstr(x, &b, to);
        at = pos + from->n;
        jx_step(x, 1);
    }
    if (at == 0 && done == 0)
        return jv_sub(x, s, 0, s->n);
    jb_add(x, &b, s->p + at, s->m ? s->m + at : NULL, s->n - at);
    struct jv v = jb_value(x, &b);
    v.s->safe = s->safe;
    return v;
}

struct jv js_join(struct jx *x, const struct jstr *sep, const struct jlist *l, bool any) {
    struct jb b = {0};
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            jb_addstr(x, &b, sep);
        if (!any && l->v[i].kind != JV_STR)
            jx_fail(x, "sequence item %zu: expected str instance, %s found", i,
                    jv_type(l->v[i]));
        jv_print(x, &b, l->v[i]);
        jx_step(x, 1);
    }
    return jb_value(x, &b);
}

struct jlist *js_lines(struct jx *x, const struct jstr *s, bool keep) {
    struct jlist *l = jv_seq(x, JV_LIST, 0).l;
    size_t from = 0, used;
    for (size_t i = 0; i < s->n; i += used) {
        uint32_t cp = js_decode(s->p + i, s->n - i, &used);
        bool brk = (cp >= '\n' && cp <= '\r') || (cp >= 0x1C && cp <= 0x1E) || cp == 0x85 ||
                   cp == 0x2028 || cp == 0x2029;
        if (!brk)
            continue;
        if (cp == '\r' && i + 1 < s->n && s->p[i + 1] == '\n')
            used = 2;
        jv_push(x, l, jv_sub(x, s, from, keep ? i + used : i));
        from = i + used;
    }
    if (from < s->n)
        jv_push(x, l, jv_sub(x, s, from, s->n));
    jx_step(x, s->n / 16);
    return l;
}

struct jv js_center(struct jx *x, struct jstr *s, int64_t width, uint32_t fill, uint8_t mask,
                    int side) {
    int64_t n = (int64_t)js_cps(x, s);
    if (width <= n)
        return jv_sub(x, s, 0, s->n);
    if (width > (int64_t)x->mem_max)
        jx_limit(x, "a width of %lld", (long long)width);
    int64_t pad = width - n, left = pad / 2 + (pad & width & 1);
    left = side == 'l' ? 0 : side == 'r' ? pad : left;
    struct jb b = {0};
    for (int64_t i = 0; i < left; i++)
        jb_addcp(x, &b, fill, mask);
    jb_addstr(x, &b, s);
    for (int64_t i = left; i < pad; i++)
        jb_addcp(x, &b, fill, mask);
    jx_step(x, (size_t)pad / 8);
    struct jv v = jb_value(x, &b);
    v.s->safe = s->safe;
    return v;
}

struct jv js_repeat(struct jx *x, struct jstr *s, int64_t times) {
    struct jb b = {0};
    size_t all;
    if (times <= 0 || !s->n)
        return jv_cstr(x, "");
    if (mul_overflows(s->n, (size_t)times, &all) || all > x->mem_max)
        jx_limit(x, "a string is repeated beyond %zu MiB", x->mem_max >> 20);
    for (int64_t i = 0; i < times; i++) {
        jb_addstr(x, &b, s);
        jx_step(x, (i & 7) == 0);
    }
    struct jv v = jb_value(x, &b);
    v.s->safe = s->safe;
    return v;
}

struct jv js_escape(struct jx *x, const struct jstr *s) {
    static const struct {
        char c;
        const char *as;
    } table[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&#34;"}, {'\'', "&#39;"}};
    struct jb b = {0};
    for (size_t i = 0; i < s->n; i++) {
        const char *as = NULL;
        for (size_t k = 0; k < 5 && !as; k++)
            as = table[k].c == s->p[i] ? table[k].as : NULL;
        uint8_t m = s->m ? s->m[i] : 0;
        if (as)
            jb_add(x, &b, as, m ? jx_ones(x, strlen(as)) : NULL, strlen(as));
        else
            jb_addc(x, &b, s->p[i], m);
    }
    jx_step(x, s->n / 8);
    struct jv v = jb_value(x, &b);
    v.s->safe = true;
    return v;
}

struct jv js_plus(struct jx *x, struct jstr *a, struct jstr *b) {
    struct jb r = {0};
    bool safe = a->safe || b->safe;
    if (safe && !a->safe)
        a = js_escape(x, a).s;
    if (safe && !b->safe)
        b = js_escape(x, b).s;
    jb_addstr(x, &r, a);
    jb_addstr(x, &r, b);
    struct jv v = jb_value(x, &r);
    v.s->safe = safe;
    return v;
}
