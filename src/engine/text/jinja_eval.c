/*
 * jinja_eval.c - expressions: one switch over the nodes, and the calls.
 *
 * A call's arguments become a struct jargs; built-ins get them bound to named parameters
 * (jr_builtin), so that `x|indent(4, true)` and `x|indent(width=4, first=true)` are one thing
 * to the built-in.
 */
#include "engine/text/jinja_run.h"

static struct jv lookup(struct jx *x, struct jscope *sc, const struct jstr *name) {
    for (; sc; sc = sc->up) {
        jx_step(x, sc->n / 32);
        for (size_t i = 0; i < sc->n; i++)
            if (sc->name[i] == name)
                return sc->val[i];
    }
    return jv_undef(x, (struct jv){.kind = JV_STR, .s = js_new(x, name->p, NULL, name->n)},
                    JV_MISSING);
}

static void starstar_args(struct jx *x, struct jargs *out, struct jv v, size_t n_kw) {
    if (v.kind != JV_DICT)
        jx_fail(x, "the argument after ** must be a mapping, not %s", jv_type(v));
    struct jkw *kw = jx_alloc(x, n_kw + v.d->n, sizeof *kw);
    if (n_kw)
        memcpy(kw, out->kw, n_kw * sizeof *kw);
    for (size_t i = 0; i < v.d->n; i++) {
        struct jv k = v.d->key[i];
        if (k.kind != JV_STR)
            jx_fail(x, "keywords must be strings");
        jx_step(x, n_kw / 32 + 1);
        kw[n_kw + i] = (struct jkw){jx_intern(x, k.s->p, k.s->n), v.d->val[i], k.s};
        for (size_t j = 0; j < n_kw; j++)
            if (kw[j].name == kw[n_kw + i].name)
                jx_fail(x, "a keyword argument is given twice");
    }
    out->kw = kw;
    out->n_kw = n_kw + v.d->n;
}

void jr_args(struct jx *x, struct jscope *sc, const struct jcallargs *src, struct jargs *out) {
    *out = (struct jargs){0};
    if (!src)
        return;
    struct jv all = jv_seq(x, JV_LIST, src->n_pos);
    for (size_t i = 0; i < src->n_pos; i++)
        jv_push(x, all.l, jr_eval(x, sc, src->pos[i]));
    if (src->star) {
        const struct jlist *more = jv_items(x, jr_eval(x, sc, src->star));
        for (size_t i = 0; i < more->n; i++)
            jv_push(x, all.l, more->v[i]);
    }
    out->v = all.l->v;
    out->n = all.l->n;
    if (src->n_kw)
        out->kw = jx_alloc(x, src->n_kw, sizeof *out->kw);
    for (size_t i = 0; i < src->n_kw; i++)
        out->kw[i] = (struct jkw){src->kw_name[i], jr_eval(x, sc, src->kw[i]), NULL};
    out->n_kw = src->n_kw;
    if (src->starstar)
        starstar_args(x, out, jr_eval(x, sc, src->starstar), src->n_kw);
}

/* Which of the blank-separated params is called name; -1: none. */
static int param_index(const char *params, const struct jstr *name) {
    int at = 0;
    for (const char *p = params; *p; at++) {
        size_t n = strcspn(p, " ");
        if (n == name->n && memcmp(p, name->p, n) == 0)
            return at;
        p += n + (p[n] == ' ');
    }
    return -1;
}

static int param_count(const char *params) {
    int n = *params != '\0';
    for (const char *p = params; *p; p++)
        n += *p == ' ';
    return n;
}

struct jv jr_builtin(struct jx *x, const struct jfn *fn, struct jv self,
                     const struct jargs *a) {
    struct jv arg[JX_MAX_ARGS] = {0};
    if (fn->params[0] == '*')
        return fn->call(x, self, arg, a);
    bool pos_only = fn->params[0] == '/';
    const char *params = fn->params + pos_only;
    int n = param_count(params);
    if (a->n > (size_t)n)
        jx_fail(x, "%s() takes at most %d arguments (%zu given)", fn->name, n, a->n);
    for (size_t i = 0; i < a->n; i++)
        arg[i] = a->v[i];
    for (size_t i = 0; i < a->n_kw; i++) {
        const struct jstr *k = a->kw[i].name;
        int at = pos_only ? -1 : param_index(params, k), len = (int)(k->n < 60 ? k->n : 60);
        if (at < 0)
            jx_fail(x, "%s() got an unexpected keyword argument '%.*s'", fn->name, len, k->p);
        if (arg[at].kind != JV_MISSING)
            jx_fail(x, "%s() got two values for argument '%.*s'", fn->name, len, k->p);
        arg[at] = a->kw[i].v;
    }
    for (int i = 0; i < fn->need; i++)
        if (arg[i].kind == JV_MISSING)
            jx_fail(x, "%s() needs %d argument(s)", fn->name, fn->need);
    return fn->call(x, self, arg, a);
}

static struct jv call_joiner(struct jx *x, struct jcycler *j, const struct jargs *a) {
    if (a->n || a->n_kw)
        jx_fail(x, "a joiner takes no arguments");
    if (j->used)
        return j->v[0];
    j->used = true;
    return jv_cstr(x, "");
}

struct jv jr_call(struct jx *x, struct jv f, const struct jargs *a) {
    jx_step(x, 1);
    switch (f.kind) {
    case JV_FUNC:
        return jr_builtin(x, f.fn, (struct jv){0}, a);
    case JV_METHOD:
        return jr_builtin(x, f.meth->fn, f.meth->self, a);
    case JV_MACRO:
        return jr_macro(x, f.macro, a);
    case JV_LOOP:
        if (a->n != 1 || a->n_kw)
            jx_fail(x, "loop() takes one argument");
        return jr_loop_again(x, f.loop, a->v[0], f.loop->depth0 + 1);
    case JV_JOINER:
        return call_joiner(x, f.cyc, a);
    case JV_UNDEF:
        jv_fail_undef(x, f);
    default:
        jx_fail(x, "'%s' object is not callable", jv_type(f));
    }
}

static struct jv eval_call(struct jx *x, struct jscope *sc, const struct jn *n) {
    struct jargs a;
    struct jv f = jr_eval(x, sc, n->a);
    jr_args(x, sc, n->args, &a);
    x->line = n->line;
    return jr_call(x, f, &a);
}

static struct jv eval_test(struct jx *x, struct jscope *sc, const struct jn *n) {
    struct jargs a;
    struct jv v = jr_eval(x, sc, n->a);
    jr_args(x, sc, n->args, &a);
    x->line = n->line;
    return jv_bool(jb_test(x, n->name, v, &a));
}

struct jv jr_filters(struct jx *x, struct jscope *sc, const struct jn *n, struct jv text) {
    struct jargs a;
    struct jv v = text;
    jx_enter(x);
    if (n->a)
        v = text.kind != JV_MISSING && n->a->op == JN_FILTER ? jr_filters(x, sc, n->a, text)
                                                             : jr_eval(x, sc, n->a);
    jr_args(x, sc, n->args, &a);
    x->line = n->line;
    v = jb_filter(x, n->name, v, &a);
    jx_leave(x);
    return v;
}

static struct jv eval_compare(struct jx *x, struct jscope *sc, const struct jn *n) {
    struct jv a = jr_eval(x, sc, n->kids.v[0]);
    for (size_t i = 1; i < n->kids.n; i++) {
        struct jv b = jr_eval(x, sc, n->kids.v[i]);
        x->line = n->line;
        if (!jo_compare(x, n->tok[i - 1], a, b))
            return jv_bool(false);
        a = b;
    }
    return jv_bool(true);
}

static struct jv eval_seq(struct jx *x, struct jscope *sc, const struct jn *n) {
    struct jv v = jv_seq(x, n->op == JN_LIST ? JV_LIST : JV_TUPLE, n->kids.n);
    for (size_t i = 0; i < n->kids.n; i++)
        jv_push(x, v.l, jr_eval(x, sc, n->kids.v[i]));
    return v;
}

static struct jv eval_dict(struct jx *x, struct jscope *sc, const struct jn *n) {
    struct jv d = jv_dict(x);
    for (size_t i = 0; i < n->kids.n; i += 2) {
        struct jv k = jr_eval(x, sc, n->kids.v[i]);
        jd_put(x, d.d, k, jr_eval(x, sc, n->kids.v[i + 1]));
    }
    return d;
}

static struct jv eval_slice(struct jx *x, struct jscope *sc, const struct jn *n) {
    struct jv v[4];
    for (int i = 0; i < 4; i++)
        v[i] = n->kids.v[i] ? jr_eval(x, sc, n->kids.v[i]) : jv_none();
    x->line = n->line;
    return jo_slice(x, v[0], v[1], v[2], v[3]);
}

static struct jv eval_concat(struct jx *x, struct jscope *sc, const struct jn *n) {
    struct jb b = {0};
    for (size_t i = 0; i < n->kids.n; i++)
        jv_print(x, &b, jr_eval(x, sc, n->kids.v[i]));
    return jb_value(x, &b);
}

static struct jv eval_cond(struct jx *x, struct jscope *sc, const struct jn *n) {
    if (jv_truth(x, jr_eval(x, sc, n->b)))
        return jr_eval(x, sc, n->a);
    if (n->c)
        return jr_eval(x, sc, n->c);
    return jv_undef_hint(x, "the inline if-expression evaluated to false and no else section "
                            "was defined");
}

static struct jv eval_two(struct jx *x, struct jscope *sc, const struct jn *n) {
    struct jv a = jr_eval(x, sc, n->a), b = jr_eval(x, sc, n->b);
    x->line = n->line;
    return n->op == JN_ITEM ? jo_item(x, a, b) : jo_binary(x, n->tok[0], a, b);
}

static struct jv eval(struct jx *x, struct jscope *sc, const struct jn *n) {
    struct jv v;
    switch (n->op) {
    case JN_CONST:
        return n->v;
    case JN_NAME:
        return lookup(x, sc, n->name);
    case JN_TUPLE:
    case JN_LIST:
        return eval_seq(x, sc, n);
    case JN_DICT:
        return eval_dict(x, sc, n);
    case JN_COND:
        return eval_cond(x, sc, n);
    case JN_OR:
    case JN_AND:
        v = jr_eval(x, sc, n->a);
        return jv_truth(x, v) == (n->op == JN_OR) ? v : jr_eval(x, sc, n->b);
    case JN_NOT:
        return jv_bool(!jv_truth(x, jr_eval(x, sc, n->a)));
    case JN_COMPARE:
        return eval_compare(x, sc, n);
    case JN_CONCAT:
        return eval_concat(x, sc, n);
    case JN_BINARY:
    case JN_ITEM:
        return eval_two(x, sc, n);
    case JN_NEG:
    case JN_POS:
        return jo_negate(x, jr_eval(x, sc, n->a), n->op == JN_NEG);
    case JN_ATTR:
        v = jr_eval(x, sc, n->a);
        x->line = n->line;
        return jo_attr(x, v, n->name);
    case JN_SLICE:
        return eval_slice(x, sc, n);
    case JN_CALL:
        return eval_call(x, sc, n);
    case JN_FILTER:
        return jr_filters(x, sc, n, (struct jv){0});
    case JN_TEST:
        return eval_test(x, sc, n);
    default:
        jx_fail(x, "a statement stands where an expression should");
    }
}

struct jv jr_eval(struct jx *x, struct jscope *sc, const struct jn *n) {
    jx_enter(x);
    jx_step(x, 1);
    x->line = n->line;
    struct jv v = eval(x, sc, n);
    jx_leave(x);
    return v;
}
