/*
 * jinja_object.c - the methods of lists, tuples, dictionaries, numbers, loops and cyclers, and
 * the global functions.
 *
 * Rows without a function name methods that Python has and that would change their object:
 * refused. Besides namespaces only loops (changed), cyclers and joiners remember anything
 * between two calls.
 */
#include "engine/text/jinja_run.h"
#include <math.h>
#include <time.h>

enum { MAX_RANGE = 100000 }; /* jinja2's sandbox has the same */

#define METHOD(name)                                                                           \
    static struct jv name(__attribute__((unused)) struct jx *x,                                \
                          __attribute__((unused)) struct jv self,                              \
                          __attribute__((unused)) struct jv *arg,                              \
                          __attribute__((unused)) const struct jargs *raw)

METHOD(m_list_count) {
    const struct jlist *l = jv_items(x, self);
    int64_t n = 0;
    for (size_t i = 0; i < l->n; i++)
        n += jv_eq(x, l->v[i], arg[0]);
    return jv_int(n);
}

METHOD(m_list_index) {
    const struct jlist *l = jv_items(x, self);
    size_t lo, hi;
    ja_bounds(x, arg[1], arg[2], l->n, &lo, &hi);
    for (size_t i = lo; i < hi; i++)
        if (jv_eq(x, l->v[i], arg[0]))
            return jv_int((int64_t)i);
    jx_fail(x, "the value is not in the %s", jv_type(self));
}

METHOD(m_list_copy) {
    return self;
}

METHOD(m_get) {
    const struct jv *hit = jd_find(x, self.d, arg[0]);
    return hit ? *hit : arg[1].kind == JV_MISSING ? jv_none() : arg[1];
}

static struct jv view(struct jx *x, struct jv self, int what) {
    static const char *const name[] = {"dict_keys", "dict_values", "dict_items"};
    const struct jdict *d = self.d;
    struct jv v = jv_seq(x, JV_VIEW, d->n);
    v.l->what = name[what];
    for (size_t i = 0; i < d->n; i++)
        jv_push(x, v.l,
                what == 0   ? d->key[i]
                : what == 1 ? d->val[i]
                            : jv_pair(x, d->key[i], d->val[i]));
    return v;
}

METHOD(m_keys) {
    return view(x, self, 0);
}

METHOD(m_values) {
    return view(x, self, 1);
}

METHOD(m_items) {
    return view(x, self, 2);
}

METHOD(m_dict_copy) {
    return self;
}

METHOD(m_fromkeys) {
    struct jv d = jv_dict(x);
    const struct jlist *l = jv_items(x, arg[0]);
    for (size_t i = 0; i < l->n; i++)
        jd_put(x, d.d, l->v[i], arg[1].kind == JV_MISSING ? jv_none() : arg[1]);
    return d;
}

METHOD(m_is_integer) {
    if (self.kind != JV_FLOAT)
        jx_fail(x, "'int' object has no attribute 'is_integer'");
    return jv_bool(isfinite(self.f) && self.f == floor(self.f));
}

METHOD(m_bit_length) {
    if (self.kind == JV_FLOAT)
        jx_fail(x, "'float' object has no attribute 'bit_length'");
    int64_t i = jv_i(self);
    uint64_t u = i < 0 ? -(uint64_t)i : (uint64_t)i;
    return jv_int(u ? 64 - __builtin_clzll(u) : 0);
}

METHOD(m_cycle) {
    if (!raw->n)
        jx_fail(x, "no items for cycling given");
    return raw->v[(uint64_t)self.loop->index0 % raw->n];
}

METHOD(m_changed) {
    struct jv t = jv_seq(x, JV_TUPLE, raw->n);
    for (size_t i = 0; i < raw->n; i++)
        jv_push(x, t.l, raw->v[i]);
    struct jv *last = &self.loop->last_changed;
    if (last->kind != JV_MISSING && jv_eq(x, *last, t))
        return jv_bool(false);
    *last = t;
    return jv_bool(true);
}

METHOD(m_next) {
    struct jcycler *c = self.cyc;
    struct jv v = c->v[c->pos];
    c->pos = (c->pos + 1) % c->n;
    return v;
}

METHOD(m_reset) {
    self.cyc->pos = 0;
    return jv_none();
}

const struct jfn jb_list_methods[] = {
    {"append", "", 0, NULL},       {"clear", "", 0, NULL},
    {"copy", "/", 0, m_list_copy}, {"count", "/value", 1, m_list_count},
    {"extend", "", 0, NULL},       {"index", "/value start stop", 1, m_list_index},
    {"insert", "", 0, NULL},       {"pop", "", 0, NULL},
    {"remove", "", 0, NULL},       {"reverse", "", 0, NULL},
    {"sort", "", 0, NULL},         {0}};

const struct jfn jb_tuple_methods[] = {
    {"count", "/value", 1, m_list_count}, {"index", "/value start stop", 1, m_list_index}, {0}};

const struct jfn jb_dict_methods[] = {{"clear", "", 0, NULL},
                                      {"copy", "/", 0, m_dict_copy},
                                      {"fromkeys", "/iterable value", 1, m_fromkeys},
                                      {"get", "/key default", 1, m_get},
                                      {"items", "/", 0, m_items},
                                      {"keys", "/", 0, m_keys},
                                      {"pop", "", 0, NULL},
                                      {"popitem", "", 0, NULL},
                                      {"setdefault", "", 0, NULL},
                                      {"update", "", 0, NULL},
                                      {"values", "/", 0, m_values},
                                      {0}};

const struct jfn jb_num_methods[] = {
    {"is_integer", "/", 0, m_is_integer}, {"bit_length", "/", 0, m_bit_length}, {0}};

const struct jfn jb_loop_methods[] = {
    {"cycle", "*", 0, m_cycle}, {"changed", "*", 0, m_changed}, {0}};

const struct jfn jb_cycler_methods[] = {
    {"next", "/", 0, m_next}, {"reset", "/", 0, m_reset}, {0}};

/* ---- globals ---- */

METHOD(g_range) {
    int64_t a = ja_int(x, arg[0], "range()"), b = a, step = 1;
    if (arg[1].kind == JV_MISSING)
        a = 0;
    else
        b = ja_int(x, arg[1], "range()");
    if (arg[2].kind != JV_MISSING)
        step = ja_int(x, arg[2], "range()");
    if (step == 0)
        jx_fail(x, "range() arg 3 must not be zero");
    uint64_t span = step > 0 ? (b > a ? (uint64_t)b - (uint64_t)a : 0)
                             : (a > b ? (uint64_t)a - (uint64_t)b : 0);
    uint64_t by = step > 0 ? (uint64_t)step : -(uint64_t)step;
    uint64_t n = span ? (span - 1) / by + 1 : 0;
    if (n > MAX_RANGE)
        jx_limit(x, "range() of more than %d items", MAX_RANGE);
    struct jrange *r = jx_alloc(x, 1, sizeof *r);
    *r = (struct jrange){a, b, step, (size_t)n};
    return (struct jv){.kind = JV_RANGE, .r = r};
}

static struct jv make_dict(struct jx *x, const struct jargs *a) {
    struct jv d = jv_dict(x);
    if (a->n > 1)
        jx_fail(x, "dict() takes at most 1 positional argument");
    if (a->n && a->v[0].kind == JV_UNDEF)
        jv_fail_undef(x, a->v[0]);
    if (a->n && a->v[0].kind == JV_DICT) {
        for (size_t i = 0; i < a->v[0].d->n; i++)
            jd_put(x, d.d, a->v[0].d->key[i], a->v[0].d->val[i]);
    } else if (a->n) {
        const struct jlist *l = jv_items(x, a->v[0]);
        for (size_t i = 0; i < l->n; i++) {
            const struct jlist *two = jv_items(x, l->v[i]);
            if (two->n != 2)
                jx_fail(x, "dict() needs pairs, item %zu has %zu values", i, two->n);
            jd_put(x, d.d, two->v[0], two->v[1]);
        }
    }
    for (size_t i = 0; i < a->n_kw; i++)
        jd_put(x, d.d, jv_keyword(x, &a->kw[i]), a->kw[i].v);
    return d;
}

METHOD(g_dict) {
    return make_dict(x, raw);
}

METHOD(g_namespace) {
    struct jv d = make_dict(x, raw);
    for (size_t i = 0; i < d.d->n; i++)
        if (d.d->key[i].kind == JV_STR && d.d->key[i].s->n && d.d->key[i].s->p[0] == '_')
            jx_fail(x, "an attribute of a namespace can't start with an underscore");
    d.kind = JV_NS;
    return d;
}

METHOD(g_lipsum) {
    jx_fail(x,
            "lipsum() is not offered to chat templates: a prompt must be the same each time");
}

static struct jv copy_items(struct jx *x, enum jv_kind kind, const struct jv *v, size_t n) {
    struct jcycler *c = jx_alloc(x, 1, sizeof *c);
    c->v = jx_alloc(x, n, sizeof *c->v);
    memcpy(c->v, v, n * sizeof *v);
    c->n = n;
    return (struct jv){.kind = (uint8_t)kind, .cyc = c};
}

METHOD(g_cycler) {
    if (!raw->n || raw->n_kw)
        jx_fail(x, "cycler(): at least one item has to be provided");
    return copy_items(x, JV_CYCLER, raw->v, raw->n);
}

METHOD(g_joiner) {
    struct jv sep = arg[0].kind == JV_MISSING ? jv_cstr(x, ", ") : arg[0];
    return copy_items(x, JV_JOINER, &sep, 1);
}

METHOD(g_raise) {
    const struct jstr *s = jv_text(x, arg[0]);
    jx_fail(x, "%.*s", (int)(s->n < 400 ? s->n : 400), s->p);
}

METHOD(g_strftime) {
    const struct jstr *f = ja_str(x, arg[0], "strftime_now()");
    char *z = jx_alloc(x, f->n + 2, 1), out[1024];
    struct tm tm;
    time_t now = (time_t)x->now_unix;
    memcpy(z, f->p, f->n);
    z[f->n] = ' '; /* an empty result and a result too long can't be told apart otherwise */
    if (!localtime_r(&now, &tm))
        jx_fail(x, "strftime_now(): the time is out of range");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    size_t n = strftime(out, sizeof out, z, &tm);
#pragma GCC diagnostic pop
    if (!n)
        jx_fail(x, "strftime_now(): the result is longer than %zu bytes", sizeof out - 2);
    struct jb b = {0};
    jb_add(x, &b, out, f->m ? jx_ones(x, n) : NULL, n - 1);
    return jb_value(x, &b);
}

const struct jfn jb_globals[] = {{"range", "/start stop step", 1, g_range},
                                 {"dict", "*", 0, g_dict},
                                 {"namespace", "*", 0, g_namespace},
                                 {"cycler", "*", 0, g_cycler},
                                 {"joiner", "sep", 0, g_joiner},
                                 {"lipsum", "*", 0, g_lipsum},
                                 {"raise_exception", "message", 1, g_raise},
                                 {"strftime_now", "format", 1, g_strftime},
                                 {0}};

const struct jfn *jb_find(const struct jfn *table, const char *name, size_t len) {
    for (; table->name; table++)
        if (table->name[0] == (len ? name[0] : '\0') && strlen(table->name) == len &&
            memcmp(table->name, name, len) == 0)
            return table;
    return NULL;
}
