/*
 * jinja_seq.c - filters on sequences and dictionaries, and the tests.
 *
 * map, select, reject, unique, batch, slice, items and reverse of a list give what can be
 * walked once, as in jinja2. They are computed at once: their functions see only the item, so
 * when they run makes no difference. Sorting is a stable merge sort on keys that are made once.
 */
#include "engine/text/jinja_run.h"

#define FILTER(name)                                                                           \
    static struct jv name(__attribute__((unused)) struct jx *x,                                \
                          __attribute__((unused)) struct jv self,                              \
                          __attribute__((unused)) struct jv *arg,                              \
                          __attribute__((unused)) const struct jargs *raw)

static bool flag(struct jx *x, struct jv v) {
    return v.kind != JV_MISSING && jv_truth(x, v);
}

static struct jv ignore_case(struct jx *x, struct jv v) {
    return v.kind == JV_STR ? js_lower(x, v.s) : v;
}

/* "a.b.0" looked up part by part; an integer is an index; none: the item itself. dflt stands
 * for what is undefined. */
static struct jv path(struct jx *x, struct jv item, struct jv attr, struct jv dflt) {
    if (!ja_given(attr))
        return item;
    if (attr.kind != JV_STR) {
        item = jo_item(x, item, attr);
        return item.kind == JV_UNDEF && ja_given(dflt) ? dflt : item;
    }
    size_t at = 0;
    for (;;) {
        const char *dot = attr.s->n > at ? memchr(attr.s->p + at, '.', attr.s->n - at) : NULL;
        size_t end = dot ? (size_t)(dot - attr.s->p) : attr.s->n;
        struct jv key = jv_sub(x, attr.s, at, end);
        int64_t num = 0;
        bool digits = end > at && end - at < 18;
        for (size_t i = at; digits && i < end; i++) {
            digits = attr.s->p[i] >= '0' && attr.s->p[i] <= '9';
            num = num * 10 + (attr.s->p[i] - '0');
        }
        item = jo_item(x, item, digits ? jv_int(num) : key);
        if (item.kind == JV_UNDEF && ja_given(dflt))
            item = dflt;
        if (!dot)
            return item;
        at = end + 1;
    }
}

static int plain_order(struct jx *x, struct jv a, struct jv b) {
    return jv_cmp(x, a, b, "<");
}

void jr_sort(struct jx *x, struct jv *item, struct jv *key, size_t n, bool reverse,
             int (*order)(struct jx *x, struct jv a, struct jv b)) {
    order = order ? order : plain_order;
    struct jv *ti = jx_alloc(x, n, sizeof *ti), *tk = jx_alloc(x, n, sizeof *tk);
    for (size_t w = 1; w < n; w *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * w) {
            size_t mid = lo + w < n ? lo + w : n, hi = mid + w < n ? mid + w : n;
            for (size_t i = lo, j = mid, k = lo; k < hi; k++) {
                bool right = j < hi;
                if (right && i < mid)
                    right = (reverse ? order(x, key[i], key[j]) : order(x, key[j], key[i])) < 0;
                size_t from = right ? j++ : i++;
                ti[k] = item[from];
                tk[k] = key[from];
            }
        }
        memcpy(item, ti, n * sizeof *item);
        memcpy(key, tk, n * sizeof *key);
    }
}

static struct jv list_of(struct jx *x, const struct jlist *l) {
    struct jv r = jv_seq(x, JV_LIST, l->n);
    for (size_t i = 0; i < l->n; i++)
        jv_push(x, r.l, l->v[i]);
    return r;
}

/* "a,b" gives the list of both: what sort compares by. */
static struct jv multi_key(struct jx *x, struct jv item, struct jv attr, bool fold) {
    struct jv l = jv_seq(x, JV_LIST, 1);
    struct jlist *parts = jv_seq(x, JV_LIST, 0).l;
    if (attr.kind == JV_STR) {
        struct jargs a = {.v = &(struct jv){.kind = JV_STR, .s = jv_cstr(x, ",").s}, .n = 1};
        parts = jr_builtin(x, jb_find(jb_str_methods, "split", 5), attr, &a).l;
    } else {
        jv_push(x, parts, attr);
    }
    for (size_t i = 0; i < parts->n; i++) {
        struct jv k = path(x, item, parts->v[i], (struct jv){0});
        jv_push(x, l.l, fold ? ignore_case(x, k) : k);
    }
    return l;
}

FILTER(f_sort) {
    struct jv l = list_of(x, jv_items(x, self)), k = jv_seq(x, JV_LIST, l.l->n);
    for (size_t i = 0; i < l.l->n; i++)
        jv_push(x, k.l, multi_key(x, l.l->v[i], arg[2], !flag(x, arg[1])));
    jr_sort(x, l.l->v, k.l->v, l.l->n, flag(x, arg[0]), NULL);
    return l;
}

static struct jlist *dict_items(struct jx *x, struct jv d) {
    return jr_builtin(x, jb_find(jb_dict_methods, "items", 5), d, &(struct jargs){0}).l;
}

FILTER(f_dictsort) {
    bool value = arg[1].kind == JV_STR && js_is(arg[1].s, "value");
    if (arg[1].kind != JV_MISSING && !value &&
        !(arg[1].kind == JV_STR && js_is(arg[1].s, "key")))
        jx_fail(x, "You can only sort by either \"key\" or \"value\"");
    if (self.kind == JV_UNDEF)
        jv_fail_undef(x, self);
    if (self.kind != JV_DICT)
        jx_fail(x, "'%s' object has no attribute 'items'", jv_type(self));
    struct jv l = list_of(x, dict_items(x, self)), k = jv_seq(x, JV_LIST, l.l->n);
    for (size_t i = 0; i < l.l->n; i++) {
        struct jv v = l.l->v[i].l->v[value];
        jv_push(x, k.l, flag(x, arg[0]) ? v : ignore_case(x, v));
    }
    jr_sort(x, l.l->v, k.l->v, l.l->n, flag(x, arg[2]), NULL);
    return l;
}

static bool seen(struct jx *x, struct jdict *d, struct jv key) {
    if (jd_find(x, d, key))
        return true;
    jd_put(x, d, key, jv_none());
    return false;
}

FILTER(f_unique) {
    const struct jlist *l = jv_items(x, self);
    struct jv g = jv_gen(x, "generator"), known = jv_dict(x);
    for (size_t i = 0; i < l->n; i++) {
        struct jv k = path(x, l->v[i], arg[1], (struct jv){0});
        if (!seen(x, known.d, flag(x, arg[0]) ? k : ignore_case(x, k)))
            jv_push(x, g.l, l->v[i]);
    }
    return g;
}

static struct jv extreme(struct jx *x, struct jv self, const struct jv *arg, bool max) {
    const struct jlist *l = jv_items(x, self);
    if (!l->n)
        return jv_undef_hint(x, "No aggregated item, sequence was empty.");
    struct jv best = l->v[0], best_key = {0};
    for (size_t i = 0; i < l->n; i++) {
        struct jv k = path(x, l->v[i], arg[1], (struct jv){0});
        k = flag(x, arg[0]) ? k : ignore_case(x, k);
        if (i && jv_cmp(x, k, best_key, max ? ">" : "<") != (max ? 1 : -1))
            continue;
        best = l->v[i];
        best_key = k;
    }
    return best;
}

FILTER(f_min) {
    return extreme(x, self, arg, false);
}

FILTER(f_max) {
    return extreme(x, self, arg, true);
}

FILTER(f_groupby) {
    struct jv l = list_of(x, jv_items(x, self)), k = jv_seq(x, JV_LIST, l.l->n);
    struct jv out = jv_seq(x, JV_LIST, 0), last = {0};
    bool fold = !flag(x, arg[2]);
    for (size_t i = 0; i < l.l->n; i++) {
        struct jv key = path(x, l.l->v[i], arg[0], arg[1]);
        jv_push(x, k.l, fold ? ignore_case(x, key) : key);
    }
    jr_sort(x, l.l->v, k.l->v, l.l->n, false, NULL);
    for (size_t i = 0; i < l.l->n; i++) {
        if (!i || !jv_eq(x, k.l->v[i], k.l->v[i - 1])) {
            last = jv_seq(x, JV_LIST, 0);
            struct jv pair = jv_pair(x, path(x, l.l->v[i], arg[0], arg[1]), last);
            pair.l->grouped = true;
            jv_push(x, out.l, pair);
        }
        jv_push(x, last.l, l.l->v[i]);
    }
    return out;
}

FILTER(f_sum) {
    const struct jlist *l = jv_items(x, self);
    struct jv sum = arg[1].kind == JV_MISSING ? jv_int(0) : arg[1];
    if (sum.kind == JV_STR)
        jx_fail(x, "sum() can't sum strings");
    for (size_t i = 0; i < l->n; i++)
        sum = jo_binary(x, JT_ADD, sum, path(x, l->v[i], arg[0], (struct jv){0}));
    return sum;
}

FILTER(f_join) {
    const struct jlist *l = jv_items(x, self);
    struct jv mapped = jv_seq(x, JV_LIST, 0);
    for (size_t i = 0; ja_given(arg[1]) && i < l->n; i++)
        jv_push(x, mapped.l, path(x, l->v[i], arg[1], (struct jv){0}));
    const struct jstr *sep = arg[0].kind == JV_MISSING ? jv_cstr(x, "").s : jv_text(x, arg[0]);
    return js_join(x, sep, ja_given(arg[1]) ? mapped.l : l, true);
}

FILTER(f_first) {
    if (self.kind == JV_GEN && self.l->pos < self.l->n)
        return self.l->v[self.l->pos++];
    if (self.kind == JV_STR && self.s->n) { /* iterated, so no longer safe */
        size_t used;
        js_decode(self.s->p, self.s->n, &used);
        struct jv c = jv_sub(x, self.s, 0, used);
        c.s->safe = false;
        return c;
    }
    const struct jlist *l = jv_items(x, self);
    return l->n ? l->v[0] : jv_undef_hint(x, "No first item, sequence was empty.");
}

FILTER(f_last) {
    if (self.kind == JV_GEN)
        jx_fail(x, "'generator' object is not reversible");
    if (self.kind == JV_UNDEF)
        return jv_undef_hint(x, "No last item, sequence was empty.");
    if (self.kind == JV_STR || self.kind == JV_RANGE)
        return jv_len(x, self) ? jo_item(x, self, jv_int(-1))
                               : jv_undef_hint(x, "No last item, sequence was empty.");
    const struct jlist *l = jv_items(x, self);
    return l->n ? l->v[l->n - 1] : jv_undef_hint(x, "No last item, sequence was empty.");
}

FILTER(f_reverse) {
    if (self.kind == JV_STR)
        return jo_slice(x, self, jv_none(), jv_none(), jv_int(-1));
    const struct jlist *l = jv_items(x, self);
    struct jv g =
        self.kind == JV_GEN ? jv_seq(x, JV_LIST, l->n) : jv_gen(x, "list_reverseiterator");
    for (size_t i = l->n; i-- > 0;)
        jv_push(x, g.l, l->v[i]);
    return g;
}

FILTER(f_list) {
    return list_of(x, jv_items(x, self));
}

FILTER(f_length) {
    return jv_int((int64_t)jv_len(x, self));
}

FILTER(f_items) {
    struct jv g = jv_gen(x, "generator");
    if (self.kind == JV_UNDEF)
        return g;
    if (self.kind != JV_DICT)
        jx_fail(x, "Can only get item pairs from a mapping.");
    const struct jlist *l = dict_items(x, self);
    for (size_t i = 0; i < l->n; i++)
        jv_push(x, g.l, l->v[i]);
    return g;
}

FILTER(f_default) {
    if (self.kind == JV_UNDEF || (flag(x, arg[1]) && !jv_truth(x, self)))
        return arg[0].kind == JV_MISSING ? jv_cstr(x, "") : arg[0];
    return self;
}

FILTER(f_attr) {
    const struct jstr *name = ja_str(x, arg[0], "attr(): the name");
    if (self.kind == JV_UNDEF)
        jv_fail_undef(x, self);
    struct jv m = jo_member(x, self, name->p, name->n);
    return m.kind == JV_MISSING ? jv_undef(x, arg[0], self.kind) : m;
}

FILTER(f_batch) {
    const struct jlist *l = jv_items(x, self);
    int64_t n = ja_int(x, arg[0], "batch(): linecount");
    struct jv g = jv_gen(x, "generator"), row = jv_seq(x, JV_LIST, 0);
    for (size_t i = 0; i < l->n; i++) {
        if ((int64_t)row.l->n == n) {
            jv_push(x, g.l, row);
            row = jv_seq(x, JV_LIST, 0);
        }
        jv_push(x, row.l, l->v[i]);
    }
    while (ja_given(arg[1]) && row.l->n && (int64_t)row.l->n < n)
        jv_push(x, row.l, arg[1]);
    if (row.l->n)
        jv_push(x, g.l, row);
    return g;
}

FILTER(f_slice) {
    const struct jlist *l = jv_items(x, self);
    int64_t n = ja_int(x, arg[0], "slice(): slices");
    struct jv g = jv_gen(x, "generator");
    if (n == 0)
        jx_fail(x, "integer division or modulo by zero");
    if (n < 0)
        return g;
    size_t each = l->n / (size_t)n, extra = l->n % (size_t)n, at = 0;
    for (int64_t k = 0; k < n; k++) {
        struct jv row = jv_seq(x, JV_LIST, 0);
        size_t end = at + each + ((size_t)k < extra);
        for (; at < end; at++)
            jv_push(x, row.l, l->v[at]);
        if (ja_given(arg[1]) && (size_t)k >= extra)
            jv_push(x, row.l, arg[1]);
        jv_push(x, g.l, row);
    }
    return g;
}

static struct jargs rest_of(const struct jargs *a, size_t from) {
    struct jargs r = *a;
    r.n = a->n > from ? a->n - from : 0;
    r.v = r.n ? a->v + from : NULL;
    return r;
}

static struct jv keyword(struct jx *x, const struct jargs *a, const char *name) {
    for (size_t i = 0; i < a->n_kw; i++)
        if (js_is(a->kw[i].name, name))
            return a->kw[i].v;
    (void)x;
    return (struct jv){0};
}

FILTER(f_map) {
    struct jv g = jv_gen(x, "generator");
    if (!jv_truth(x, self))
        return g;
    const struct jlist *l = jv_items(x, self);
    struct jv attr = keyword(x, raw, "attribute"), dflt = keyword(x, raw, "default");
    bool by_attr = !raw->n && attr.kind != JV_MISSING;
    struct jargs rest = rest_of(raw, 1);
    if (!by_attr && !raw->n)
        jx_fail(x, "map requires a filter argument");
    if (by_attr && raw->n_kw > 1u + (dflt.kind != JV_MISSING))
        jx_fail(x, "map got an unexpected keyword argument");
    const struct jstr *name = by_attr ? NULL : ja_str(x, raw->v[0], "map(): the filter's name");
    for (size_t i = 0; i < l->n; i++)
        jv_push(x, g.l,
                by_attr ? path(x, l->v[i], attr, dflt) : jb_filter(x, name, l->v[i], &rest));
    return g;
}

static struct jv choose(struct jx *x, struct jv self, const struct jargs *raw, bool want,
                        bool attr) {
    struct jv g = jv_gen(x, "generator");
    if (!jv_truth(x, self))
        return g;
    if (attr && !raw->n)
        jx_fail(x, "Missing parameter for attribute name");
    const struct jlist *l = jv_items(x, self);
    struct jargs rest = rest_of(raw, attr + 1);
    const struct jstr *test = NULL;
    if (raw->n > (size_t)attr)
        test = ja_str(x, raw->v[attr], "select(): the test's name");
    for (size_t i = 0; i < l->n; i++) {
        struct jv v = attr ? path(x, l->v[i], raw->v[0], (struct jv){0}) : l->v[i];
        if ((test ? jb_test(x, test, v, &rest) : jv_truth(x, v)) == want)
            jv_push(x, g.l, l->v[i]);
        jx_step(x, 1);
    }
    return g;
}

FILTER(f_select) {
    return choose(x, self, raw, true, false);
}

FILTER(f_reject) {
    return choose(x, self, raw, false, false);
}

FILTER(f_selectattr) {
    return choose(x, self, raw, true, true);
}

FILTER(f_rejectattr) {
    return choose(x, self, raw, false, true);
}

const struct jfn jb_filters_seq[] = {
    {"attr", "name", 1, f_attr},
    {"batch", "linecount fill_with", 1, f_batch},
    {"count", "/", 0, f_length},
    {"d", "default_value boolean", 0, f_default},
    {"default", "default_value boolean", 0, f_default},
    {"dictsort", "case_sensitive by reverse", 0, f_dictsort},
    {"first", "", 0, f_first},
    {"groupby", "attribute default case_sensitive", 1, f_groupby},
    {"items", "", 0, f_items},
    {"join", "d attribute", 0, f_join},
    {"last", "", 0, f_last},
    {"length", "/", 0, f_length},
    {"list", "", 0, f_list},
    {"map", "*", 0, f_map},
    {"max", "case_sensitive attribute", 0, f_max},
    {"min", "case_sensitive attribute", 0, f_min},
    {"reject", "*", 0, f_reject},
    {"rejectattr", "*", 0, f_rejectattr},
    {"reverse", "", 0, f_reverse},
    {"select", "*", 0, f_select},
    {"selectattr", "*", 0, f_selectattr},
    {"slice", "slices fill_with", 1, f_slice},
    {"sort", "reverse case_sensitive attribute", 0, f_sort},
    {"sum", "attribute start", 0, f_sum},
    {"unique", "case_sensitive attribute", 0, f_unique},
    {0}};
