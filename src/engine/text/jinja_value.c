/*
 * jinja_value.c - lists, dictionaries, and what every value can be asked: truth, length,
 * equality, order, membership, iteration. The rules are Python's: 1, 1.0 and true are one key,
 * a string never equals a number, an order between kinds that have none is an error.
 *
 * A dictionary keeps its entries in the order of insertion, as Python does and templates rely
 * on; from nine entries on an open-addressing index finds them. Recursion over nested values is
 * bounded by jx_enter(), work by jx_step(): a list that holds itself twice, thirty times over,
 * is small in memory and large to walk.
 */
#include "engine/text/jinja_value.h"
#include <math.h>
#include <stdio.h>

enum { DICT_LINEAR = 8 };

struct jv jv_seq(struct jx *x, enum jv_kind kind, size_t cap) {
    struct jlist *l = jx_alloc(x, 1, sizeof *l);
    if (cap)
        l->v = jx_alloc(x, cap, sizeof *l->v);
    l->cap = cap;
    return (struct jv){.kind = (uint8_t)kind, .l = l};
}

void jv_push(struct jx *x, struct jlist *l, struct jv v) {
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 8;
        struct jv *nv = jx_alloc(x, cap, sizeof *nv);
        if (l->n)
            memcpy(nv, l->v, l->n * sizeof *nv);
        l->v = nv;
        l->cap = cap;
    }
    l->v[l->n++] = v;
    jx_step(x, 1);
}

struct jv jv_pair(struct jx *x, struct jv a, struct jv b) {
    struct jv t = jv_seq(x, JV_TUPLE, 2);
    t.l->v[0] = a;
    t.l->v[1] = b;
    t.l->n = 2;
    return t;
}

struct jv jv_gen(struct jx *x, const char *what) {
    struct jv g = jv_seq(x, JV_GEN, 0);
    g.l->what = what;
    return g;
}

/* ---- undefined ---- */

struct jv jv_undef(struct jx *x, struct jv name, enum jv_kind of) {
    struct jundef *u = jx_alloc(x, 1, sizeof *u);
    *u = (struct jundef){NULL, name, (uint8_t)of};
    return (struct jv){.kind = JV_UNDEF, .u = u};
}

struct jv jv_undef_hint(struct jx *x, const char *hint) {
    struct jundef *u = jx_alloc(x, 1, sizeof *u);
    u->hint = hint;
    return (struct jv){.kind = JV_UNDEF, .u = u};
}

void jv_fail_undef(struct jx *x, struct jv v) {
    const struct jundef *u = v.u;
    if (u->hint)
        jx_fail(x, "%s", u->hint);
    struct jb b = {0};
    jv_repr(x, &b, u->name);
    int n = b.n < 80 ? (int)b.n : 80;
    if (u->of == JV_MISSING)
        jx_fail(x, "%.*s is undefined", n, b.p);
    const char *type = jv_type((struct jv){.kind = u->of});
    if (u->name.kind == JV_STR)
        jx_fail(x, "'%s object' has no attribute %.*s", type, n, b.p);
    jx_fail(x, "%s object has no element %.*s", type, n, b.p);
}

/* ---- dictionaries ---- */

static uint32_t hash_value(struct jx *x, struct jv v) {
    uint32_t h = 2166136261u;
    switch (v.kind) {
    case JV_STR:
    case JV_BIG:
        jx_step(x, v.s->n / 64);
        for (size_t i = 0; i < v.s->n; i++)
            h = (h ^ (unsigned char)v.s->p[i]) * 16777619u;
        return h;
    case JV_BOOL:
    case JV_INT:
    case JV_FLOAT: {
        double f = jv_f(v); /* equal numbers of all kinds hash alike */
        uint64_t bits;
        f = f == 0 ? 0 : f;
        memcpy(&bits, &f, sizeof bits);
        return (uint32_t)((bits * 0x9E3779B97F4A7C15u) >> 32);
    }
    case JV_TUPLE:
        jx_enter(x);
        for (size_t i = 0; i < v.l->n; i++) {
            jx_step(x, 1);
            h = (h ^ hash_value(x, v.l->v[i])) * 16777619u;
        }
        jx_leave(x);
        return h;
    case JV_LIST:
    case JV_DICT:
        jx_fail(x, "unhashable type: '%s'", jv_type(v));
    default:
        return v.kind;
    }
}

struct jv jv_dict(struct jx *x) {
    return (struct jv){.kind = JV_DICT, .d = jx_alloc(x, 1, sizeof(struct jdict))};
}

static void dict_index(struct jdict *d, uint32_t h, size_t at) {
    size_t i = h & (d->n_slot - 1);
    while (d->slot[i])
        i = (i + 1) & (d->n_slot - 1);
    d->slot[i] = (uint32_t)at + 1;
}

static void dict_grow(struct jx *x, struct jdict *d) {
    size_t cap = d->cap ? 2 * d->cap : 4;
    if (cap > UINT32_MAX / 2)
        jx_limit(x, "a dictionary has too many entries");
    struct jv *k = jx_alloc(x, cap, sizeof *k), *v = jx_alloc(x, cap, sizeof *v);
    if (d->n) {
        memcpy(k, d->key, d->n * sizeof *k);
        memcpy(v, d->val, d->n * sizeof *v);
    }
    d->key = k;
    d->val = v;
    d->cap = cap;
    if (cap <= DICT_LINEAR)
        return;
    d->n_slot = 2 * cap;
    d->slot = jx_alloc(x, d->n_slot, sizeof *d->slot);
    for (size_t i = 0; i < d->n; i++)
        dict_index(d, hash_value(x, d->key[i]), i);
}

struct jv *jd_find(struct jx *x, const struct jdict *d, struct jv key) {
    uint32_t h = hash_value(x, key); /* also refuses what can't be a key */
    jx_step(x, 1);
    if (!d->slot) {
        for (size_t i = 0; i < d->n; i++)
            if (jv_eq(x, d->key[i], key))
                return &d->val[i];
        return NULL;
    }
    for (size_t i = h & (d->n_slot - 1); d->slot[i]; i = (i + 1) & (d->n_slot - 1)) {
        size_t at = d->slot[i] - 1;
        jx_step(x, 1);
        if (jv_eq(x, d->key[at], key))
            return &d->val[at];
    }
    return NULL;
}

struct jv *jd_finds(struct jx *x, const struct jdict *d, const char *key) {
    struct jstr s = {.p = key, .n = strlen(key), .cps = SIZE_MAX};
    return jd_find(x, d, (struct jv){.kind = JV_STR, .s = &s});
}

void jd_put(struct jx *x, struct jdict *d, struct jv key, struct jv val) {
    struct jv *old = jd_find(x, d, key);
    if (old) {
        *old = val;
        return;
    }
    if (d->n == d->cap)
        dict_grow(x, d);
    d->key[d->n] = key;
    d->val[d->n] = val;
    if (d->slot)
        dict_index(d, hash_value(x, key), d->n);
    d->n++;
}

/* ---- what all values can be asked ---- */

const char *jv_type(struct jv v) {
    static const char *const name[] = {
        [JV_MISSING] = "missing",  [JV_UNDEF] = "Undefined", [JV_NONE] = "NoneType",
        [JV_BOOL] = "bool",        [JV_INT] = "int",         [JV_BIG] = "int",
        [JV_FLOAT] = "float",      [JV_STR] = "str",         [JV_LIST] = "list",
        [JV_TUPLE] = "tuple",      [JV_DICT] = "dict",       [JV_GEN] = "generator",
        [JV_VIEW] = "dict view",   [JV_RANGE] = "range",     [JV_NS] = "Namespace",
        [JV_FUNC] = "function",    [JV_METHOD] = "method",   [JV_MACRO] = "Macro",
        [JV_LOOP] = "LoopContext", [JV_CYCLER] = "Cycler",   [JV_JOINER] = "Joiner",
    };
    return name[v.kind];
}

bool jv_truth(struct jx *x, struct jv v) {
    switch (v.kind) {
    case JV_UNDEF:
    case JV_NONE:
        return false;
    case JV_BOOL:
        return v.b;
    case JV_INT:
        return v.i != 0;
    case JV_FLOAT:
        return v.f != 0;
    case JV_STR:
    case JV_LIST:
    case JV_TUPLE:
    case JV_DICT:
    case JV_VIEW:
    case JV_RANGE:
    case JV_LOOP:
        return jv_len(x, v) != 0;
    default:
        return true;
    }
}

static bool eq_lists(struct jx *x, const struct jlist *a, const struct jlist *b) {
    if (a->n != b->n)
        return false;
    jx_enter(x);
    bool same = true;
    for (size_t i = 0; same && i < a->n; i++)
        same = jv_eq(x, a->v[i], b->v[i]);
    jx_leave(x);
    return same;
}

static bool eq_dicts(struct jx *x, const struct jdict *a, const struct jdict *b) {
    if (a->n != b->n)
        return false;
    jx_enter(x);
    bool same = true;
    for (size_t i = 0; same && i < a->n; i++) {
        const struct jv *o = jd_find(x, b, a->key[i]);
        same = o && jv_eq(x, a->val[i], *o);
    }
    jx_leave(x);
    return same;
}

/* An integer beyond 64 bits and a float: the float's exact digits. */
static bool eq_big(struct jv big, double f) {
    char t[400];
    size_t n = (size_t)snprintf(t, sizeof t, "%.0f", f);
    return isfinite(f) && f == floor(f) && n == big.s->n && memcmp(t, big.s->p, n) == 0;
}

bool jv_eq(struct jx *x, struct jv a, struct jv b) {
    jx_step(x, 1);
    if (a.kind == JV_BIG && b.kind == JV_FLOAT)
        return eq_big(a, b.f);
    if (a.kind == JV_FLOAT && b.kind == JV_BIG)
        return eq_big(b, a.f);
    if (jv_is_num(a) && jv_is_num(b)) {
        if (jv_is_int(a) && jv_is_int(b))
            return jv_i(a) == jv_i(b);
        return jv_cmp(x, a, b, "==") == 0;
    }
    if (a.kind != b.kind)
        return false;
    switch (a.kind) {
    case JV_UNDEF:
    case JV_NONE:
        return true;
    case JV_STR:
    case JV_BIG:
        jx_step(x, a.s->n == b.s->n ? a.s->n / 64 : 0);
        return js_eq(a.s, b.s);
    case JV_LIST:
    case JV_TUPLE:
        return a.l == b.l || eq_lists(x, a.l, b.l);
    case JV_DICT:
        return a.d == b.d || eq_dicts(x, a.d, b.d);
    case JV_RANGE:
        return a.r->n == b.r->n && (a.r->n == 0 || (a.r->start == b.r->start &&
                                                    (a.r->n == 1 || a.r->step == b.r->step)));
    case JV_METHOD:
        return a.meth->fn == b.meth->fn && jv_eq(x, a.meth->self, b.meth->self);
    default:
        return a.l == b.l; /* the same object */
    }
}

static int cmp_lists(struct jx *x, const struct jlist *a, const struct jlist *b,
                     const char *op) {
    size_t n = a->n < b->n ? a->n : b->n;
    int c = 0;
    jx_enter(x);
    for (size_t i = 0; i < n && c == 0; i++)
        if (!jv_eq(x, a->v[i], b->v[i]))
            c = jv_cmp(x, a->v[i], b->v[i], op);
    jx_leave(x);
    return c ? c : a->n < b->n ? -1 : a->n > b->n;
}

int jv_cmp(struct jx *x, struct jv a, struct jv b, const char *op) {
    jx_step(x, 1);
    if (a.kind == JV_UNDEF)
        jv_fail_undef(x, a);
    if (b.kind == JV_UNDEF)
        jv_fail_undef(x, b);
    if (jv_is_int(a) && jv_is_int(b))
        return jv_i(a) < jv_i(b) ? -1 : jv_i(a) > jv_i(b);
    if (jv_is_num(a) && jv_is_num(b)) { /* 64 bits of mantissa hold every int64 exactly */
        long double p = a.kind == JV_FLOAT ? (long double)a.f : (long double)jv_i(a);
        long double q = b.kind == JV_FLOAT ? (long double)b.f : (long double)jv_i(b);
        return isnan(p) || isnan(q) ? 2 : p < q ? -1 : p > q;
    }
    if (a.kind == JV_STR && b.kind == JV_STR) { /* the order of UTF-8 is that of code points */
        size_t n = a.s->n < b.s->n ? a.s->n : b.s->n;
        jx_step(x, n / 64);
        int c = n ? memcmp(a.s->p, b.s->p, n) : 0;
        return c ? (c < 0 ? -1 : 1) : a.s->n < b.s->n ? -1 : a.s->n > b.s->n;
    }
    if (jv_is_seq(a) && a.kind == b.kind)
        return cmp_lists(x, a.l, b.l, op);
    if (a.kind == JV_BIG || b.kind == JV_BIG)
        jx_limit(x, "an integer is beyond 64 bits");
    jx_fail(x, "'%s' not supported between instances of '%s' and '%s'", op, jv_type(a),
            jv_type(b));
}

size_t jv_len(struct jx *x, struct jv v) {
    switch (v.kind) {
    case JV_UNDEF:
        return 0;
    case JV_STR:
        return js_cps(x, v.s);
    case JV_LIST:
    case JV_TUPLE:
    case JV_VIEW:
        return v.l->n;
    case JV_DICT:
        return v.d->n;
    case JV_RANGE:
        return v.r->n;
    case JV_LOOP:
        return (size_t)jv_loop_at(x, v.loop, true);
    default:
        jx_fail(x, "object of type '%s' has no len()", jv_type(v));
    }
}

bool jv_iterable(struct jv v) {
    return v.kind == JV_UNDEF || v.kind == JV_STR || v.kind == JV_LIST || v.kind == JV_TUPLE ||
           v.kind == JV_DICT || v.kind == JV_GEN || v.kind == JV_VIEW || v.kind == JV_RANGE ||
           v.kind == JV_LOOP;
}

static struct jlist *chars_of(struct jx *x, struct jstr *s) {
    struct jlist *l = jv_seq(x, JV_LIST, js_cps(x, s)).l;
    for (size_t i = 0, used; i < s->n; i += used) {
        js_decode(s->p + i, s->n - i, &used);
        struct jv c = jv_sub(x, s, i, i + used);
        c.s->safe = false;
        jv_push(x, l, c);
    }
    return l;
}

struct jlist *jv_items(struct jx *x, struct jv v) {
    struct jlist *l;
    switch (v.kind) {
    case JV_LIST:
    case JV_TUPLE:
    case JV_VIEW:
        return v.l;
    case JV_UNDEF:
        return jv_seq(x, JV_LIST, 0).l;
    case JV_STR:
        return chars_of(x, v.s);
    case JV_DICT:
        l = jv_seq(x, JV_LIST, 0).l;
        *l = (struct jlist){.v = v.d->key, .n = v.d->n, .cap = v.d->n};
        return l;
    case JV_GEN:
        l = jv_seq(x, JV_LIST, 0).l;
        *l = (struct jlist){.v = v.l->v + v.l->pos, .n = v.l->n - v.l->pos};
        l->cap = l->n;
        v.l->pos = v.l->n;
        return l;
    case JV_RANGE:
        l = jv_seq(x, JV_LIST, v.r->n).l;
        for (size_t i = 0; i < v.r->n; i++)
            jv_push(x, l, jv_int(v.r->start + (int64_t)i * v.r->step));
        return l;
    default:
        jx_fail(x, "'%s' object is not iterable", jv_type(v));
    }
}

static bool range_has(const struct jrange *r, struct jv v) {
    for (size_t i = 0; jv_is_num(v) && i < r->n; i++)
        if (jv_f(v) == (double)(r->start + (int64_t)i * r->step))
            return true;
    return false;
}

bool jv_contains(struct jx *x, struct jv needle, struct jv hay) {
    switch (hay.kind) {
    case JV_STR:
        if (needle.kind != JV_STR)
            jx_fail(x, "'in <string>' requires string as left operand, not %s",
                    jv_type(needle));
        jx_step(x, hay.s->n / 64);
        return needle.s->n == 0 ||
               (hay.s->n && memmem(hay.s->p, hay.s->n, needle.s->p, needle.s->n));
    case JV_DICT:
        return jd_find(x, hay.d, needle) != NULL;
    case JV_RANGE:
        jx_step(x, hay.r->n);
        return range_has(hay.r, needle);
    case JV_GEN:
        while (hay.l->pos < hay.l->n)
            if (jv_eq(x, hay.l->v[hay.l->pos++], needle))
                return true;
        return false;
    default: {
        if (!jv_iterable(hay))
            jx_fail(x, "argument of type '%s' is not iterable", jv_type(hay));
        const struct jlist *l = jv_items(x, hay);
        for (size_t i = 0; i < l->n; i++)
            if (jv_eq(x, l->v[i], needle))
                return true;
        return false;
    }
    }
}
