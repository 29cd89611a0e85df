/*
 * jinja_run.c - statements: scopes, loops, macros.
 *
 * A body is run by walking its nodes; break and continue travel up as return values. A loop
 * asks for its next item as late as jinja2 does (its filter may look at what the body changed)
 * and as early: loop.last peeks one ahead, loop.length of a filtered loop runs the filter to
 * the end. A pass's scope is used again for the next one unless a macro was made in it.
 */
#include "engine/text/jinja_run.h"

struct jscope *jr_scope(struct jx *x, struct jscope *up) {
    struct jscope *sc = jx_alloc(x, 1, sizeof *sc);
    sc->up = up;
    return sc;
}

void jr_set(struct jx *x, struct jscope *sc, const struct jstr *name, struct jv v) {
    jx_step(x, sc->n / 32);
    for (size_t i = 0; i < sc->n; i++)
        if (sc->name[i] == name) {
            sc->val[i] = v;
            return;
        }
    if (sc->n == sc->cap) {
        size_t cap = sc->cap ? 2 * sc->cap : 4;
        const struct jstr **names = jx_alloc(x, cap, sizeof *names);
        struct jv *vals = jx_alloc(x, cap, sizeof *vals);
        if (sc->n) {
            memcpy(names, sc->name, sc->n * sizeof *names);
            memcpy(vals, sc->val, sc->n * sizeof *vals);
        }
        sc->name = names;
        sc->val = vals;
        sc->cap = cap;
    }
    sc->name[sc->n] = name;
    sc->val[sc->n++] = v;
}

/* A scope that was used up, again if nobody holds it. */
static struct jscope *renew(struct jx *x, struct jscope *sc) {
    if (sc->kept)
        return jr_scope(x, sc->up);
    sc->n = 0;
    return sc;
}

static void keep(struct jscope *sc) {
    for (; sc && !sc->kept; sc = sc->up)
        sc->kept = true;
}

static void assign_ns(struct jx *x, struct jscope *sc, const struct jn *t, struct jv v) {
    for (; sc; sc = sc->up)
        for (size_t i = 0; i < sc->n; i++)
            if (sc->name[i] == t->name) {
                if (sc->val[i].kind != JV_NS)
                    jx_fail(x, "cannot assign attribute on non-namespace object");
                if (t->attr->n && t->attr->p[0] == '_')
                    jx_fail(x, "an attribute of a namespace can't start with an underscore");
                struct jv key = {.kind = JV_STR, .s = js_new(x, t->attr->p, NULL, t->attr->n)};
                jd_put(x, sc->val[i].d, key, v);
                return;
            }
    jx_fail(x, "cannot assign attribute on non-namespace object");
}

void jr_assign(struct jx *x, struct jscope *sc, const struct jn *t, struct jv v) {
    if (t->op == JN_NAME) {
        jr_set(x, sc, t->name, v);
    } else if (t->op == JN_NSREF) {
        assign_ns(x, sc, t, v);
    } else {
        if (!jv_iterable(v))
            jx_fail(x, "cannot unpack non-iterable %s object", jv_type(v));
        const struct jlist *l = jv_items(x, v);
        if (l->n != t->kids.n)
            jx_fail(x, "%s values to unpack (expected %zu, got %zu)",
                    l->n < t->kids.n ? "not enough" : "too many", t->kids.n, l->n);
        jx_enter(x);
        for (size_t i = 0; i < l->n; i++)
            jr_assign(x, sc, t->kids.v[i], l->v[i]);
        jx_leave(x);
    }
}

/* ---- loops ---- */

static bool loop_raw_next(struct jx *x, struct jloop *l, struct jv *out) {
    for (;;) {
        jx_step(x, 1);
        if (l->src.kind == JV_RANGE) {
            const struct jrange *r = l->src.r;
            if (l->pos >= r->n)
                return false;
            *out = jv_int(r->start + (int64_t)l->pos * r->step);
        } else {
            if (l->pos >= l->src.l->n)
                return false;
            *out = l->src.l->v[l->pos];
        }
        l->pos++;
        if (!l->filtered)
            return true;
        struct jscope *sc = jr_scope(x, l->scope);
        jr_assign(x, sc, l->node->a, *out);
        if (jv_truth(x, jr_eval(x, sc, l->node->c)))
            return true;
    }
}

static bool loop_peek(struct jx *x, struct jloop *l) {
    if (l->after.kind == JV_MISSING && !loop_raw_next(x, l, &l->after))
        l->after = (struct jv){0};
    return l->after.kind != JV_MISSING;
}

static int64_t loop_length(struct jx *x, struct jloop *l) {
    if (l->length >= 0)
        return l->length;
    struct jv rest = jv_seq(x, JV_LIST, 0), v;
    bool peeked = l->after.kind != JV_MISSING;
    while (loop_raw_next(x, l, &v))
        jv_push(x, rest.l, v);
    l->src = rest;
    l->pos = 0;
    l->filtered = false;
    return l->length = (int64_t)rest.l->n + l->index0 + 1 + peeked;
}

bool jr_loop_next(struct jx *x, struct jloop *l, struct jv *out) {
    if (l->after.kind != JV_MISSING) {
        *out = l->after;
        l->after = (struct jv){0};
    } else if (!loop_raw_next(x, l, out)) {
        return false;
    }
    l->index0++;
    l->before = l->current;
    l->current = *out;
    return true;
}

int64_t jv_loop_at(struct jx *x, struct jloop *l, bool length) {
    return length ? loop_length(x, l) : l->index0 + 1;
}

struct jv jr_loop_attr(struct jx *x, struct jloop *l, const char *name) {
    if (!strcmp(name, "index"))
        return jv_int(l->index0 + 1);
    if (!strcmp(name, "index0"))
        return jv_int(l->index0);
    if (!strcmp(name, "first"))
        return jv_bool(l->index0 == 0);
    if (!strcmp(name, "last"))
        return jv_bool(!loop_peek(x, l));
    if (!strcmp(name, "length"))
        return jv_int(loop_length(x, l));
    if (!strcmp(name, "revindex"))
        return jv_int(loop_length(x, l) - l->index0);
    if (!strcmp(name, "revindex0"))
        return jv_int(loop_length(x, l) - l->index0 - 1);
    if (!strcmp(name, "depth"))
        return jv_int(l->depth0 + 1);
    if (!strcmp(name, "depth0"))
        return jv_int(l->depth0);
    if (!strcmp(name, "previtem"))
        return l->index0 ? l->before : jv_undef_hint(x, "there is no previous item");
    if (!strcmp(name, "nextitem"))
        return loop_peek(x, l) ? l->after : jv_undef_hint(x, "there is no next item");
    return (struct jv){0};
}

static void loop_run(struct jx *x, struct jscope *sc, struct jb *out, const struct jn *n,
                     struct jv items, int64_t depth0) {
    struct jloop *l = jx_alloc(x, 1, sizeof *l);
    l->node = n;
    l->scope = sc;
    l->filtered = n->c != NULL;
    l->index0 = -1;
    l->depth0 = depth0;
    bool sized = items.kind != JV_GEN && !n->c;
    l->src = items;
    if (items.kind != JV_RANGE) {
        l->src = (struct jv){.kind = JV_LIST, .l = jv_items(x, items)};
        l->length = sized ? (int64_t)l->src.l->n : -1;
    } else {
        l->length = sized ? (int64_t)items.r->n : -1;
    }
    static const char word[] = "loop";
    const struct jstr *name = jx_intern(x, word, sizeof word - 1);
    struct jscope *in = jr_scope(x, sc);
    struct jv v;
    bool completed = false; /* jinja2 runs the else part unless a pass came to its end */
    while (jr_loop_next(x, l, &v)) {
        in = renew(x, in);
        jr_set(x, in, name, (struct jv){.kind = JV_LOOP, .loop = l});
        jr_assign(x, in, n->a, v);
        enum jflow f = jr_body(x, in, out, &n->body);
        completed |= f == JF_NEXT;
        if (f == JF_BREAK)
            break;
    }
    if (!completed)
        jr_body(x, jr_scope(x, sc), out, &n->orelse);
}

struct jv jr_loop_again(struct jx *x, struct jloop *l, struct jv items, int64_t depth0) {
    struct jb b = {0};
    if (!l->node->flag)
        jx_fail(x, "the loop must have the 'recursive' marker to be called recursively");
    jx_enter(x);
    loop_run(x, l->scope, &b, l->node, items, depth0);
    jx_leave(x);
    return jb_value(x, &b);
}

/* ---- macros ---- */

static struct jv take_kw(struct jx *x, struct jargs *a, const struct jstr *name) {
    jx_step(x, a->n_kw / 32);
    for (size_t i = 0; i < a->n_kw; i++)
        if (a->kw[i].name == name) {
            struct jv v = a->kw[i].v;
            memmove(&a->kw[i], &a->kw[i + 1], (a->n_kw - i - 1) * sizeof *a->kw);
            a->n_kw--;
            return v;
        }
    return (struct jv){0};
}

static void macro_params(struct jx *x, const struct jmacro *m, struct jscope *sc,
                         const struct jargs *a, struct jargs *rest) {
    const struct jn *n = m->node;
    for (size_t i = 0; i < n->n_param; i++) {
        const struct jstr *name = n->param[i].name;
        struct jv v = i < a->n ? a->v[i] : take_kw(x, rest, name);
        if (v.kind == JV_MISSING && n->param[i].dflt)
            v = jr_eval(x, sc, n->param[i].dflt);
        if (v.kind == JV_MISSING) {
            struct jb b = {0};
            jb_adds(x, &b, "parameter '");
            jb_addstr(x, &b, name);
            jb_adds(x, &b, "' was not provided");
            jb_addc(x, &b, '\0', 0);
            v = jv_undef_hint(x, b.p);
        }
        jr_set(x, sc, name, v);
    }
}

static bool has_param(const struct jn *n, const struct jstr *name) {
    for (size_t i = 0; i < n->n_param; i++)
        if (n->param[i].name == name)
            return true;
    return false;
}

/* caller, kwargs and varargs, where the body names them; what is left over otherwise is an
 * error. */
static void macro_rest(struct jx *x, const struct jmacro *m, struct jscope *sc,
                       const struct jargs *a, struct jargs *rest) {
    const struct jn *n = m->node;
    const struct jstr *caller = jx_intern(x, "caller", 6), *kwargs = jx_intern(x, "kwargs", 6),
                      *varargs = jx_intern(x, "varargs", 7);
    const char *name = m->name ? m->name->p : "caller";
    int len = m->name ? (int)(m->name->n < 60 ? m->name->n : 60) : 6;
    if (n->uses_caller && !has_param(n, caller)) {
        struct jv c = take_kw(x, rest, caller);
        if (c.kind == JV_MISSING || c.kind == JV_NONE)
            c = jv_undef_hint(x, "No caller defined");
        jr_set(x, sc, caller, c);
    }
    if (n->uses_kwargs && !has_param(n, kwargs)) {
        struct jv d = jv_dict(x);
        for (size_t i = 0; i < rest->n_kw; i++)
            jd_put(x, d.d, jv_keyword(x, &rest->kw[i]), rest->kw[i].v);
        jr_set(x, sc, kwargs, d);
    } else if (rest->n_kw) {
        const struct jstr *k = rest->kw[0].name;
        jx_fail(x, "macro '%.*s' takes no keyword argument '%.*s'", len, name,
                (int)(k->n < 60 ? k->n : 60), k->p);
    }
    if (n->uses_varargs && !has_param(n, varargs)) {
        struct jv t = jv_seq(x, JV_TUPLE, 0);
        for (size_t i = n->n_param; i < a->n; i++)
            jv_push(x, t.l, a->v[i]);
        jr_set(x, sc, varargs, t);
    } else if (a->n > n->n_param) {
        jx_fail(x, "macro '%.*s' takes not more than %zu argument(s)", len, name, n->n_param);
    }
}

struct jv jr_macro(struct jx *x, const struct jmacro *m, const struct jargs *a) {
    struct jscope *sc = jr_scope(x, m->scope);
    struct jargs rest = {.n_kw = a->n_kw};
    struct jb b = {0};
    jx_enter(x);
    if (a->n_kw) {
        rest.kw = jx_alloc(x, a->n_kw, sizeof *rest.kw);
        memcpy(rest.kw, a->kw, a->n_kw * sizeof *rest.kw);
    }
    macro_params(x, m, sc, a, &rest);
    macro_rest(x, m, sc, a, &rest);
    jr_body(x, sc, &b, &m->node->body);
    jx_leave(x);
    return jb_value(x, &b);
}

static struct jv new_macro(struct jx *x, struct jscope *sc, const struct jn *n) {
    struct jmacro *m = jx_alloc(x, 1, sizeof *m);
    *m = (struct jmacro){n, sc, n->name};
    keep(sc);
    return (struct jv){.kind = JV_MACRO, .macro = m};
}

/* ---- statements ---- */

/* The text of a body in a scope of its own. */
static struct jv captured(struct jx *x, struct jscope *sc, const struct jbody *body) {
    struct jb b = {0};
    jr_body(x, sc, &b, body);
    return jb_value(x, &b);
}

/* What a block of its own gives must be a string; nothing is converted here. */
static void print_str(struct jx *x, struct jb *out, struct jv v) {
    if (v.kind != JV_STR)
        jx_fail(x, "a filter or call block gives %s, not a string", jv_type(v));
    jb_addstr(x, out, v.s);
}

static void run_call(struct jx *x, struct jscope *sc, struct jb *out, const struct jn *n) {
    struct jv caller = new_macro(x, sc, n), f = jr_eval(x, sc, n->a->a);
    struct jargs a;
    jr_args(x, sc, n->a->args, &a);
    struct jkw *kw = jx_alloc(x, a.n_kw + 1, sizeof *kw);
    if (a.n_kw)
        memcpy(kw, a.kw, a.n_kw * sizeof *kw);
    kw[a.n_kw] = (struct jkw){jx_intern(x, "caller", 6), caller, NULL};
    a.kw = kw;
    a.n_kw++;
    print_str(x, out, jr_call(x, f, &a));
}

static void run_with(struct jx *x, struct jscope *sc, struct jb *out, const struct jn *n) {
    struct jscope *in = jr_scope(x, sc);
    for (size_t i = 0; i < n->kids.n; i += 2) /* values see the outer names only */
        jr_assign(x, in, n->kids.v[i], jr_eval(x, sc, n->kids.v[i + 1]));
    jr_body(x, in, out, &n->body);
}

static void run_for(struct jx *x, struct jscope *sc, struct jb *out, const struct jn *n) {
    struct jv items = jr_eval(x, sc, n->b);
    x->line = n->line;
    loop_run(x, sc, out, n, items, 0);
}

static enum jflow statement(struct jx *x, struct jscope *sc, struct jb *out,
                            const struct jn *n) {
    struct jv v;
    switch (n->op) {
    case JN_DATA:
        jb_addstr(x, out, n->v.s);
        break;
    case JN_PRINT:
        for (size_t i = 0; i < n->kids.n; i++)
            jv_print(x, out, jr_eval(x, sc, n->kids.v[i]));
        break;
    case JN_IF:
        return jr_body(x, sc, out, jv_truth(x, jr_eval(x, sc, n->a)) ? &n->body : &n->orelse);
    case JN_FOR:
        run_for(x, sc, out, n);
        break;
    case JN_SET:
        jr_assign(x, sc, n->a, jr_eval(x, sc, n->b));
        break;
    case JN_SET_BLOCK: {
        struct jscope *in = jr_scope(x, sc);
        v = captured(x, in, &n->body);
        jr_assign(x, sc, n->a, n->b ? jr_filters(x, in, n->b, v) : v);
        break;
    }
    case JN_FILTER_BLOCK: {
        struct jscope *in = jr_scope(x, sc);
        v = captured(x, in, &n->body);
        print_str(x, out, jr_filters(x, in, n->b, v));
        break;
    }
    case JN_WITH:
        run_with(x, sc, out, n);
        break;
    case JN_MACRO:
        jr_set(x, sc, n->name, new_macro(x, sc, n));
        break;
    case JN_CALL_BLOCK:
        run_call(x, sc, out, n);
        break;
    case JN_SCOPE:
        return jr_body(x, jr_scope(x, sc), out, &n->body);
    case JN_BREAK:
        return JF_BREAK;
    case JN_CONTINUE:
        return JF_CONTINUE;
    default:
        jx_fail(x, "an expression stands where a statement should");
    }
    return JF_NEXT;
}

enum jflow jr_body(struct jx *x, struct jscope *sc, struct jb *out, const struct jbody *b) {
    enum jflow f = JF_NEXT;
    jx_enter(x);
    for (size_t i = 0; i < b->n && f == JF_NEXT; i++) {
        x->line = b->v[i]->line;
        jx_step(x, 1);
        f = statement(x, sc, out, b->v[i]);
    }
    jx_leave(x);
    return f;
}
