/*
 * jinja_print.c - values as text: Python's str(), repr() and json.dumps().
 *
 * Templates print lists and dictionaries, and models were trained on what Python made of them;
 * so the quotes, the spaces and the digits are Python's. The mask goes along: an escape that
 * stands for a user's character is the user's.
 */
#include "base/utf8.h"
#include "engine/text/jinja_run.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

/* The shortest digits that read back as f, laid out as Python's repr(): an exponent below 1e-4
 * and from 1e16 on. */
void jb_addfloat(struct jx *x, struct jb *b, double f) {
    if (isnan(f) || isinf(f)) {
        jb_adds(x, b, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    char t[40];
    for (int prec = 0; prec < 17; prec++) {
        snprintf(t, sizeof t, "%.*e", prec, f);
        if (strtod(t, NULL) == f)
            break;
    }
    char digits[24];
    size_t nd = 0;
    const char *p = t;
    if (*p == '-') {
        jb_adds(x, b, "-");
        p++;
    }
    for (; *p && *p != 'e'; p++)
        if (*p != '.')
            digits[nd++] = *p;
    int e = atoi(p + 1);
    while (nd > 1 && digits[nd - 1] == '0')
        nd--;
    if (e < -4 || e >= 16) {
        jb_add(x, b, digits, NULL, 1);
        if (nd > 1) {
            jb_adds(x, b, ".");
            jb_add(x, b, digits + 1, NULL, nd - 1);
        }
        snprintf(t, sizeof t, "e%c%02d", e < 0 ? '-' : '+', abs(e));
        jb_adds(x, b, t);
        return;
    }
    if (e < 0) {
        jb_adds(x, b, "0.");
        jb_fill(x, b, '0', 0, (size_t)(-e - 1));
        jb_add(x, b, digits, NULL, nd);
        return;
    }
    size_t whole = (size_t)e + 1;
    jb_add(x, b, digits, NULL, nd < whole ? nd : whole);
    jb_fill(x, b, '0', 0, nd < whole ? whole - nd : 0);
    jb_adds(x, b, ".");
    if (nd > whole)
        jb_add(x, b, digits + whole, NULL, nd - whole);
    else
        jb_adds(x, b, "0");
}

static void add_ascii(struct jx *x, struct jb *b, const char *t, uint8_t m) {
    size_t n = strlen(t);
    jb_add(x, b, t, m ? jx_ones(x, n) : NULL, n);
}

bool js_printable(uint32_t cp) {
    if (cp < 0x80)
        return cp >= 0x20 && cp < 0x7F;
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
        return false;
    default:
        return true;
    }
}

static void repr_str(struct jx *x, struct jb *b, const struct jstr *s) {
    bool single = s->n && memchr(s->p, '\'', s->n), dbl = s->n && memchr(s->p, '"', s->n);
    char q = single && !dbl ? '"' : '\'', t[16];
    if (s->safe)
        jb_adds(x, b, "Markup(");
    jb_addc(x, b, q, 0);
    for (size_t i = 0, used; i < s->n; i += used) {
        uint32_t cp = js_decode(s->p + i, s->n - i, &used);
        uint8_t m = s->m ? s->m[i] : 0;
        jx_step(x, 1);
        if (cp == (uint32_t)q || cp == '\\')
            snprintf(t, sizeof t, "\\%c", (char)cp);
        else if (cp == '\n' || cp == '\r' || cp == '\t')
            snprintf(t, sizeof t, "\\%c", cp == '\n' ? 'n' : cp == '\r' ? 'r' : 't');
        else if (js_printable(cp)) {
            jb_add(x, b, s->p + i, s->m ? s->m + i : NULL, used);
            continue;
        } else
            snprintf(t, sizeof t, js_escape_form(cp), cp);
        add_ascii(x, b, t, m);
    }
    jb_addc(x, b, q, 0);
    if (s->safe)
        jb_adds(x, b, ")");
}

static void repr_items(struct jx *x, struct jb *b, const struct jlist *l, const char *open,
                       const char *close) {
    jb_adds(x, b, open);
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            jb_adds(x, b, ", ");
        jv_repr(x, b, l->v[i]);
    }
    jb_adds(x, b, close);
}

static void repr_dict(struct jx *x, struct jb *b, const struct jdict *d) {
    jb_adds(x, b, "{");
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            jb_adds(x, b, ", ");
        jv_repr(x, b, d->key[i]);
        jb_adds(x, b, ": ");
        jv_repr(x, b, d->val[i]);
    }
    jb_adds(x, b, "}");
}

static void repr_range(struct jx *x, struct jb *b, const struct jrange *r) {
    char t[96];
    long long stop = (long long)r->stop;
    int n = snprintf(t, sizeof t, "range(%lld, %lld", (long long)r->start, stop);
    if (r->step != 1)
        snprintf(t + n, sizeof t - (size_t)n, ", %lld)", (long long)r->step);
    else
        snprintf(t + n, sizeof t - (size_t)n, ")");
    jb_adds(x, b, t);
}

static void repr_object(struct jx *x, struct jb *b, struct jv v) {
    char t[64];
    if (v.kind == JV_NS) {
        jb_adds(x, b, "<Namespace ");
        repr_dict(x, b, v.d);
        jb_adds(x, b, ">");
    } else if (v.kind == JV_VIEW) {
        jb_adds(x, b, v.l->what);
        repr_items(x, b, v.l, "([", "])");
    } else if (v.kind == JV_LOOP) {
        snprintf(t, sizeof t, "<LoopContext %lld/%lld>",
                 (long long)jv_loop_at(x, v.loop, false),
                 (long long)jv_loop_at(x, v.loop, true));
        jb_adds(x, b, t);
    } else if (v.kind == JV_MACRO) {
        const struct jstr *name = v.macro->name;
        jb_adds(x, b, "<Macro ");
        if (name)
            repr_str(x, b, name);
        else
            jb_adds(x, b, "anonymous");
        jb_adds(x, b, ">");
    } else { /* Python prints an address here: no template can rely on it */
        jb_adds(x, b, "<");
        jb_adds(x, b, v.kind == JV_GEN ? v.l->what : jv_type(v));
        jb_adds(x, b, " object>");
    }
}

void jv_repr(struct jx *x, struct jb *b, struct jv v) {
    char t[32];
    jx_enter(x);
    jx_step(x, 1);
    switch (v.kind) {
    case JV_UNDEF:
        jb_adds(x, b, "Undefined");
        break;
    case JV_NONE:
        jb_adds(x, b, "None");
        break;
    case JV_BOOL:
        jb_adds(x, b, v.b ? "True" : "False");
        break;
    case JV_INT:
        snprintf(t, sizeof t, "%lld", (long long)v.i);
        jb_adds(x, b, t);
        break;
    case JV_BIG:
        jb_addstr(x, b, v.s);
        break;
    case JV_FLOAT:
        jb_addfloat(x, b, v.f);
        break;
    case JV_STR:
        repr_str(x, b, v.s);
        break;
    case JV_LIST:
        repr_items(x, b, v.l, "[", "]");
        break;
    case JV_TUPLE:
        repr_items(x, b, v.l, "(", v.l->n == 1 ? ",)" : ")");
        break;
    case JV_DICT:
        repr_dict(x, b, v.d);
        break;
    case JV_RANGE:
        repr_range(x, b, v.r);
        break;
    default:
        repr_object(x, b, v);
    }
    jx_leave(x);
}

void jv_print(struct jx *x, struct jb *b, struct jv v) {
    if (v.kind == JV_STR)
        jb_addstr(x, b, v.s);
    else if (v.kind != JV_UNDEF)
        jv_repr(x, b, v);
}

struct jstr *jv_text(struct jx *x, struct jv v) {
    if (v.kind == JV_STR && !v.s->safe)
        return v.s;
    if (v.kind == JV_STR) {
        struct jstr *s = js_new(x, v.s->p, v.s->m, v.s->n);
        s->cps = v.s->cps;
        return s;
    }
    struct jb b = {0};
    jv_print(x, &b, v);
    return jb_value(x, &b).s;
}

/* ---- JSON ---- */

static void json_escape(struct jx *x, struct jb *b, uint32_t cp, uint8_t m) {
    static const char short_for[] = "\b\f\n\r\t\"\\", letter[] = "bfnrt\"\\";
    char t[16];
    const char *at = cp && cp < 0x80 ? strchr(short_for, (int)cp) : NULL;
    if (at)
        snprintf(t, sizeof t, "\\%c", letter[at - short_for]);
    else if (cp < 0x10000)
        snprintf(t, sizeof t, "\\u%04x", cp);
    else
        snprintf(t, sizeof t, "\\u%04x\\u%04x", 0xD800 + ((cp - 0x10000) >> 10),
                 0xDC00 + ((cp - 0x10000) & 0x3FF));
    add_ascii(x, b, t, m);
}

static void json_str(struct jx *x, struct jb *b, const struct jstr *s, bool ascii) {
    jb_addc(x, b, '"', 0);
    for (size_t i = 0; i < s->n;) {
        size_t from = i, used = 1;
        uint32_t cp = 0;
        while (i < s->n) { /* a run that needs no escape goes at once */
            cp = (unsigned char)s->p[i];
            if (cp < 0x20 || cp == '"' || cp == '\\' || (ascii && cp >= 0x7F))
                break;
            i++;
        }
        jb_add(x, b, s->p + from, s->m ? s->m + from : NULL, i - from);
        if (i == s->n)
            break;
        cp = js_decode(s->p + i, s->n - i, &used);
        json_escape(x, b, cp, s->m ? s->m[i] : 0);
        jx_step(x, 1);
        i += used;
    }
    jb_addc(x, b, '"', 0);
}

static void json_break(struct jx *x, struct jb *b, const struct json_style *st, int level) {
    if (!st->indent)
        return;
    jb_addc(x, b, '\n', 0);
    for (int i = 0; i < level; i++)
        jb_addstr(x, b, st->indent);
}

static void json_key(struct jx *x, struct jb *b, struct jv k, const struct json_style *st) {
    if (k.kind == JV_STR) {
        json_str(x, b, k.s, st->ascii);
        return;
    }
    if (!jv_is_num(k) && k.kind != JV_NONE && k.kind != JV_BIG)
        jx_fail(x, "keys must be str, int, float, bool or None, not %s", jv_type(k));
    jb_addc(x, b, '"', 0);
    jv_json(x, b, k, st, 0);
    jb_addc(x, b, '"', 0);
}

static size_t *json_order(struct jx *x, const struct jdict *d, bool sort) {
    size_t *at = jx_alloc(x, d->n, sizeof *at), *tmp = jx_alloc(x, d->n, sizeof *tmp);
    for (size_t i = 0; i < d->n; i++)
        at[i] = i;
    for (size_t w = 1; sort && w < d->n; w *= 2) { /* merge sort from below, stable */
        for (size_t lo = 0; lo < d->n; lo += 2 * w) {
            size_t mid = lo + w < d->n ? lo + w : d->n, hi = mid + w < d->n ? mid + w : d->n;
            for (size_t i = lo, j = mid, k = lo; k < hi; k++) {
                bool right =
                    j < hi && (i >= mid || jv_cmp(x, d->key[at[j]], d->key[at[i]], "<") < 0);
                tmp[k] = right ? at[j++] : at[i++];
            }
        }
        size_t *t = at;
        at = tmp;
        tmp = t;
    }
    return at;
}

static void json_dict(struct jx *x, struct jb *b, const struct jdict *d,
                      const struct json_style *st, int level) {
    if (!d->n) {
        jb_adds(x, b, "{}");
        return;
    }
    const size_t *at = json_order(x, d, st->sort);
    jb_adds(x, b, "{");
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            jb_addstr(x, b, st->item_sep);
        json_break(x, b, st, level + 1);
        json_key(x, b, d->key[at[i]], st);
        jb_addstr(x, b, st->key_sep);
        jv_json(x, b, d->val[at[i]], st, level + 1);
    }
    json_break(x, b, st, level);
    jb_adds(x, b, "}");
}

static void json_list(struct jx *x, struct jb *b, const struct jlist *l,
                      const struct json_style *st, int level) {
    if (!l->n) {
        jb_adds(x, b, "[]");
        return;
    }
    jb_adds(x, b, "[");
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            jb_addstr(x, b, st->item_sep);
        json_break(x, b, st, level + 1);
        jv_json(x, b, l->v[i], st, level + 1);
    }
    json_break(x, b, st, level);
    jb_adds(x, b, "]");
}

void jv_json(struct jx *x, struct jb *b, struct jv v, const struct json_style *st, int level) {
    jx_enter(x);
    jx_step(x, 1);
    switch (v.kind) {
    case JV_NONE:
        jb_adds(x, b, "null");
        break;
    case JV_BOOL:
        jb_adds(x, b, v.b ? "true" : "false");
        break;
    case JV_FLOAT:
        if (isnan(v.f) || isinf(v.f))
            jb_adds(x, b, isnan(v.f) ? "NaN" : v.f < 0 ? "-Infinity" : "Infinity");
        else
            jb_addfloat(x, b, v.f);
        break;
    case JV_INT:
    case JV_BIG:
        jv_repr(x, b, v);
        break;
    case JV_STR:
        json_str(x, b, v.s, st->ascii);
        break;
    case JV_LIST:
    case JV_TUPLE:
        json_list(x, b, v.l, st, level);
        break;
    case JV_DICT:
        json_dict(x, b, v.d, st, level);
        break;
    default:
        jx_fail(x, "Object of type %s is not JSON serializable", jv_type(v));
    }
    jx_leave(x);
}
