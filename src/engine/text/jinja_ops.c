/*
 * jinja_ops.c - operators, subscripts and attributes, by Python's rules.
 *
 * Integers are 64 bits wide; Python's have no end. Where a result does not fit this says so
 * instead of wrapping or turning into a float. Attributes are those of the tables; of.name
 * tries a method first and a dictionary's key second, of['name'] the other way round. What is
 * not there is undefined, not an error: that comes when it is used.
 */
#include "engine/text/jinja_run.h"
#include <math.h>

static void too_big(struct jx *x) __attribute__((noreturn));
static void too_big(struct jx *x) {
    jx_limit(x, "an integer is beyond 64 bits");
}

static void bad_operands(struct jx *x, enum jtok op, struct jv a, struct jv b)
    __attribute__((noreturn));
static void bad_operands(struct jx *x, enum jtok op, struct jv a, struct jv b) {
    if (a.kind == JV_UNDEF)
        jv_fail_undef(x, a);
    if (b.kind == JV_UNDEF)
        jv_fail_undef(x, b);
    if (a.kind == JV_BIG || b.kind == JV_BIG)
        too_big(x);
    jx_fail(x, "unsupported operand type(s) for %s: '%s' and '%s'", jl_name(op), jv_type(a),
            jv_type(b));
}

static int64_t floor_div(struct jx *x, int64_t a, int64_t b) {
    if (a == INT64_MIN && b == -1)
        too_big(x);
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

static int64_t floor_mod(int64_t a, int64_t b) {
    if (b == -1)
        return 0;
    int64_t m = a % b;
    return m && (m < 0) != (b < 0) ? m + b : m;
}

static double float_mod(double a, double b) {
    double m = fmod(a, b);
    if (m == 0)
        return copysign(0, b);
    return (m < 0) != (b < 0) ? m + b : m;
}

/* Python's divmod: the quotient is made from the remainder, so that both agree. */
static double float_floor_div(double a, double b) {
    double m = fmod(a, b), d = (a - m) / b;
    if (m != 0 && (m < 0) != (b < 0))
        d -= 1;
    if (d == 0)
        return copysign(0, a / b);
    double f = floor(d);
    return d - f > 0.5 ? f + 1 : f;
}

static struct jv int_pow(struct jx *x, int64_t a, int64_t b) {
    int64_t r = 1;
    if (b < 0) {
        if (a == 0)
            jx_fail(x, "0.0 cannot be raised to a negative power");
        return jv_float(pow((double)a, (double)b));
    }
    for (; b; b >>= 1) {
        if ((b & 1) && __builtin_mul_overflow(r, a, &r))
            too_big(x);
        if (b > 1 && __builtin_mul_overflow(a, a, &a))
            too_big(x);
    }
    return jv_int(r);
}

static struct jv int_op(struct jx *x, enum jtok op, int64_t a, int64_t b) {
    int64_t r;
    bool over = false;
    if (b == 0 && (op == JT_DIV || op == JT_FLOORDIV || op == JT_MOD))
        jx_fail(x, "division by zero");
    switch (op) {
    case JT_ADD:
        over = __builtin_add_overflow(a, b, &r);
        break;
    case JT_SUB:
        over = __builtin_sub_overflow(a, b, &r);
        break;
    case JT_MUL:
        over = __builtin_mul_overflow(a, b, &r);
        break;
    case JT_DIV: /* the quotient of the exact values, rounded once where 64 bits of mantissa do
                  */
        return jv_float((double)((long double)a / (long double)b));
    case JT_FLOORDIV:
        r = floor_div(x, a, b);
        break;
    case JT_MOD:
        r = floor_mod(a, b);
        break;
    default:
        return int_pow(x, a, b);
    }
    if (over)
        too_big(x);
    return jv_int(r);
}

static struct jv float_op(struct jx *x, enum jtok op, double a, double b) {
    if (b == 0 && (op == JT_DIV || op == JT_FLOORDIV || op == JT_MOD))
        jx_fail(x, "division by zero");
    switch (op) {
    case JT_ADD:
        return jv_float(a + b);
    case JT_SUB:
        return jv_float(a - b);
    case JT_MUL:
        return jv_float(a * b);
    case JT_DIV:
        return jv_float(a / b);
    case JT_FLOORDIV:
        return jv_float(float_floor_div(a, b));
    case JT_MOD:
        return jv_float(float_mod(a, b));
    default:
        break;
    }
    if (a == 0 && b < 0)
        jx_fail(x, "0.0 cannot be raised to a negative power");
    if (a < 0 && b != floor(b))
        jx_fail(x, "complex numbers are not supported");
    double r = pow(a, b);
    if (isinf(r) && !isinf(a) && !isinf(b))
        jx_fail(x, "the result of ** is too large");
    return jv_float(r);
}

static struct jv join_lists(struct jx *x, struct jv a, struct jv b) {
    struct jv r = jv_seq(x, a.kind, a.l->n + b.l->n);
    for (size_t i = 0; i < a.l->n; i++)
        jv_push(x, r.l, a.l->v[i]);
    for (size_t i = 0; i < b.l->n; i++)
        jv_push(x, r.l, b.l->v[i]);
    return r;
}

static struct jv repeat(struct jx *x, struct jv a, int64_t times) {
    if (a.kind == JV_STR)
        return js_repeat(x, a.s, times);
    struct jv r = jv_seq(x, a.kind, 0);
    for (int64_t t = 0; t < times && a.l->n; t++)
        for (size_t i = 0; i < a.l->n; i++)
            jv_push(x, r.l, a.l->v[i]);
    return r;
}

struct jv jo_binary(struct jx *x, enum jtok op, struct jv a, struct jv b) {
    if (jv_is_int(a) && jv_is_int(b))
        return int_op(x, op, jv_i(a), jv_i(b));
    if (jv_is_num(a) && jv_is_num(b))
        return float_op(x, op, jv_f(a), jv_f(b));
    if (op == JT_ADD && a.kind == JV_STR && b.kind == JV_STR)
        return js_plus(x, a.s, b.s);
    if (op == JT_ADD && jv_is_seq(a) && a.kind == b.kind)
        return join_lists(x, a, b);
    if (op == JT_MUL && (a.kind == JV_STR || jv_is_seq(a)) && jv_is_int(b))
        return repeat(x, a, jv_i(b));
    if (op == JT_MUL && (b.kind == JV_STR || jv_is_seq(b)) && jv_is_int(a))
        return repeat(x, b, jv_i(a));
    if (op == JT_MOD && a.kind == JV_STR)
        return js_percent(x, a.s, b);
    bad_operands(x, op, a, b);
}

struct jv jo_negate(struct jx *x, struct jv v, bool minus) {
    if (v.kind == JV_UNDEF)
        jv_fail_undef(x, v);
    if (v.kind == JV_BIG)
        too_big(x);
    if (v.kind == JV_FLOAT)
        return jv_float(minus ? -v.f : v.f);
    if (!jv_is_int(v))
        jx_fail(x, "bad operand type for unary %c: '%s'", minus ? '-' : '+', jv_type(v));
    if (minus && jv_i(v) == INT64_MIN)
        too_big(x);
    return jv_int(minus ? -jv_i(v) : jv_i(v));
}

bool jo_compare(struct jx *x, enum jtok op, struct jv a, struct jv b) {
    int c;
    switch (op) {
    case JT_EQ:
        return jv_eq(x, a, b);
    case JT_NE:
        return !jv_eq(x, a, b);
    case JT_NAME:
        return jv_contains(x, a, b);
    case JT_SUB:
        return !jv_contains(x, a, b);
    case JT_LT:
        return jv_cmp(x, a, b, "<") == -1;
    case JT_GT:
        return jv_cmp(x, a, b, ">") == 1;
    case JT_LE:
        c = jv_cmp(x, a, b, "<=");
        return c == -1 || c == 0;
    default:
        c = jv_cmp(x, a, b, ">=");
        return c == 1 || c == 0;
    }
}

/* ---- subscripts ---- */

static struct jv at_index(struct jx *x, struct jv of, int64_t i, struct jv key) {
    int64_t n = (int64_t)jv_len(x, of);
    i += i < 0 ? n : 0;
    if (i < 0 || i >= n)
        return jv_undef(x, key, of.kind);
    if (of.kind == JV_RANGE)
        return jv_int(of.r->start + i * of.r->step);
    if (of.kind != JV_STR)
        return of.l->v[i];
    size_t from = js_offset(x, of.s, (size_t)i), used;
    js_decode(of.s->p + from, of.s->n - from, &used);
    return jv_sub(x, of.s, from, from + used);
}

struct jv jo_item(struct jx *x, struct jv of, struct jv key) {
    if (of.kind == JV_UNDEF)
        jv_fail_undef(x, of);
    if (of.kind == JV_DICT && key.kind != JV_LIST && key.kind != JV_DICT) {
        const struct jv *hit = jd_find(x, of.d, key);
        if (hit)
            return *hit;
    }
    bool indexed = of.kind == JV_STR || jv_is_seq(of) || of.kind == JV_RANGE;
    if (indexed && jv_is_int(key))
        return at_index(x, of, jv_i(key), key);
    if (key.kind == JV_STR) {
        struct jv m = jo_member(x, of, key.s->p, key.s->n);
        if (m.kind != JV_MISSING)
            return m;
    }
    return jv_undef(x, key, of.kind);
}

struct jv jo_attr(struct jx *x, struct jv of, const struct jstr *name) {
    if (of.kind == JV_UNDEF)
        jv_fail_undef(x, of);
    struct jv m = jo_member(x, of, name->p, name->n);
    if (m.kind != JV_MISSING)
        return m;
    struct jv key = {.kind = JV_STR, .s = js_new(x, name->p, NULL, name->n)};
    if (of.kind == JV_DICT) {
        const struct jv *hit = jd_find(x, of.d, key);
        if (hit)
            return *hit;
    }
    return jv_undef(x, key, of.kind);
}

static struct jv macro_member(struct jx *x, const struct jmacro *m, const char *name) {
    if (!strcmp(name, "name"))
        return m->name ? jv_str(x, m->name->p, m->name->n) : jv_none();
    if (!strcmp(name, "caller"))
        return jv_bool(m->node->uses_caller);
    if (!strcmp(name, "catch_kwargs"))
        return jv_bool(m->node->uses_kwargs);
    if (!strcmp(name, "catch_varargs"))
        return jv_bool(m->node->uses_varargs);
    if (strcmp(name, "arguments"))
        return (struct jv){0};
    struct jv t = jv_seq(x, JV_TUPLE, m->node->n_param);
    for (size_t i = 0; i < m->node->n_param; i++) {
        const struct jstr *p = m->node->param[i].name;
        jv_push(x, t.l, jv_str(x, p->p, p->n));
    }
    return t;
}

static struct jv number_member(struct jv v, const char *name) {
    bool f = v.kind == JV_FLOAT;
    if (!strcmp(name, "real"))
        return f ? v : jv_int(jv_i(v));
    if (!strcmp(name, "imag"))
        return f ? jv_float(0) : jv_int(0);
    if (!f && !strcmp(name, "numerator"))
        return jv_int(jv_i(v));
    if (!f && !strcmp(name, "denominator"))
        return jv_int(1);
    return (struct jv){0};
}

static struct jv property(struct jx *x, struct jv of, const char *name) {
    if (jv_is_num(of))
        return number_member(of, name);
    if (of.kind == JV_LOOP)
        return jr_loop_attr(x, of.loop, name);
    if (of.kind == JV_MACRO)
        return macro_member(x, of.macro, name);
    if (of.kind == JV_CYCLER && !strcmp(name, "current"))
        return of.cyc->v[of.cyc->pos];
    if (of.kind == JV_TUPLE && of.l->grouped)
        for (int i = 0; i < 2; i++)
            if (!strcmp(name, i ? "list" : "grouper"))
                return of.l->v[i];
    return (struct jv){0};
}

struct jv jo_member(struct jx *x, struct jv of, const char *name, size_t len) {
    static const struct jfn *const methods[JV_JOINER + 1] = {
        [JV_STR] = jb_str_methods,     [JV_DICT] = jb_dict_methods,
        [JV_LIST] = jb_list_methods,   [JV_BOOL] = jb_num_methods,
        [JV_INT] = jb_num_methods,     [JV_FLOAT] = jb_num_methods,
        [JV_TUPLE] = jb_tuple_methods, [JV_RANGE] = jb_tuple_methods,
        [JV_LOOP] = jb_loop_methods,   [JV_CYCLER] = jb_cycler_methods};
    char z[32];
    if (of.kind == JV_NS) {
        struct jstr key = {.p = name, .n = len, .cps = SIZE_MAX};
        const struct jv *hit = jd_find(x, of.d, (struct jv){.kind = JV_STR, .s = &key});
        return hit ? *hit : (struct jv){0};
    }
    if (len >= sizeof z)
        return (struct jv){0};
    memcpy(z, name, len);
    z[len] = '\0';
    if (len > 4 && z[0] == '_' && z[1] == '_' && z[len - 1] == '_' && z[len - 2] == '_' &&
        of.kind != JV_DICT)
        return jv_undef_hint(x, "access to an attribute that starts with '__' is unsafe");
    const struct jfn *f = methods[of.kind] ? jb_find(methods[of.kind], z, len) : NULL;
    if (!f)
        return property(x, of, z);
    if (!f->call)
        return jv_undef_hint(x, "a template can't change a list or a dictionary");
    struct jmethod *m = jx_alloc(x, 1, sizeof *m);
    *m = (struct jmethod){of, f};
    return (struct jv){.kind = JV_METHOD, .meth = m};
}

/* ---- slices ---- */

static void slice_int(struct jx *x, struct jv v) {
    if (v.kind != JV_NONE && !jv_is_int(v))
        jx_fail(x, "slice indices must be integers or None, not %s", jv_type(v));
}

/* One end of a slice of n things, Python's PySlice_AdjustIndices. */
static int64_t slice_end(struct jv v, int64_t n, bool back, int64_t dflt) {
    if (v.kind == JV_NONE)
        return dflt;
    int64_t i = jv_i(v);
    if (i < 0) {
        i = i < -n ? -1 : i + n;
        return i < 0 ? (back ? -1 : 0) : i;
    }
    return i >= n ? (back ? n - 1 : n) : i;
}

static struct jv slice_str(struct jx *x, struct jstr *s, int64_t from, int64_t step,
                           int64_t count) {
    if (step == 1) {
        size_t lo = js_offset(x, s, (size_t)from), hi = js_offset(x, s, (size_t)(from + count));
        return jv_sub(x, s, lo, hi);
    }
    const struct jlist *c = jv_items(x, (struct jv){.kind = JV_STR, .s = s});
    struct jb b = {0};
    for (int64_t k = 0, i = from; k < count; k++, i += step) {
        jx_step(x, 1);
        jb_addstr(x, &b, c->v[i].s);
    }
    struct jv v = jb_value(x, &b);
    v.s->safe = s->safe;
    return v;
}

struct jv jo_slice(struct jx *x, struct jv of, struct jv from, struct jv to, struct jv step_v) {
    if (of.kind == JV_UNDEF)
        jv_fail_undef(x, of);
    if (of.kind != JV_STR && !jv_is_seq(of) && of.kind != JV_RANGE)
        jx_fail(x, "'%s' object can't be sliced", jv_type(of));
    slice_int(x, from);
    slice_int(x, to);
    slice_int(x, step_v);
    int64_t n = (int64_t)jv_len(x, of), step = step_v.kind == JV_NONE ? 1 : jv_i(step_v);
    if (step == 0)
        jx_fail(x, "slice step cannot be zero");
    bool back = step < 0;
    int64_t lo = slice_end(from, n, back, back ? n - 1 : 0);
    int64_t hi = slice_end(to, n, back, back ? -1 : n);
    step = step > n ? n + 1 : step < -n ? -n - 1 : step; /* the same items, and no overflow */
    int64_t span = back ? lo - hi : hi - lo, stride = back ? -step : step;
    int64_t count = span > 0 ? (span - 1) / stride + 1 : 0;
    if (of.kind == JV_STR)
        return count ? slice_str(x, of.s, lo, step, count) : jv_cstr(x, "");
    if (of.kind == JV_RANGE) {
        struct jrange *r = jx_alloc(x, 1, sizeof *r);
        int64_t by = count > 1 ? of.r->step * step : of.r->step; /* one item has no step */
        int64_t at = of.r->start + lo * of.r->step, end;
        if (__builtin_mul_overflow(by, count, &end) || __builtin_add_overflow(at, end, &end))
            too_big(x);
        *r = (struct jrange){at, end, by, (size_t)count};
        return (struct jv){.kind = JV_RANGE, .r = r};
    }
    struct jv r = jv_seq(x, of.kind, 0);
    if (step == 1 && count) { /* shares the items */
        *r.l = (struct jlist){.v = of.l->v + lo, .n = (size_t)count, .cap = (size_t)count};
        return r;
    }
    for (int64_t k = 0, i = lo; k < count; k++, i += step)
        jv_push(x, r.l, of.l->v[i]);
    return r;
}
