/*
 * jinja_expr.c - tokens to expressions, by recursive descent.
 *
 * From loose to tight, as jinja2 has it: a if b else c, or, and, not, comparisons (chained), +
 * and -, ~, the other arithmetic, **(to the left, unlike Python's), unary signs, then
 * postfixes, filters and tests. A sign takes postfixes but no filters: -x|abs is (-x)|abs. The
 * argument of a test without parentheses is one primary: `a is b c`.
 */
#include "engine/text/jinja_parse.h"

static struct jn *parse_unary(struct jparser *p, bool with_filter);
static struct jn *parse_primary(struct jparser *p, bool ns);
static struct jn *parse_postfix(struct jparser *p, struct jn *n);

static struct jn *binary(struct jparser *p, enum jop op, struct jn *a, struct jn *b) {
    struct jn *n = jp_node(p, op);
    n->line = a->line;
    n->a = a;
    n->b = b;
    return n;
}

static struct jn *math(struct jparser *p, struct jn *a, enum jtok tok, struct jn *b) {
    struct jn *n = binary(p, JN_BINARY, a, b);
    n->tok = jx_alloc(p->x, 1, sizeof *n->tok);
    n->tok[0] = tok;
    return n;
}

static struct jn *parse_pow(struct jparser *p) {
    struct jn *n = parse_unary(p, true);
    while (jp_skip(p, JT_POW))
        n = math(p, n, JT_POW, parse_unary(p, true));
    return n;
}

static struct jn *parse_term(struct jparser *p) {
    struct jn *n = parse_pow(p);
    while (p->t->type == JT_MUL || p->t->type == JT_DIV || p->t->type == JT_FLOORDIV ||
           p->t->type == JT_MOD) {
        enum jtok tok = p->t++->type;
        n = math(p, n, tok, parse_pow(p));
    }
    return n;
}

static struct jn *parse_concat(struct jparser *p) {
    struct jn *first = parse_term(p);
    if (p->t->type != JT_TILDE)
        return first;
    struct jn *n = jp_node(p, JN_CONCAT);
    jp_add(p, &n->kids, first);
    while (jp_skip(p, JT_TILDE))
        jp_add(p, &n->kids, parse_term(p));
    return n;
}

static struct jn *parse_sum(struct jparser *p) {
    struct jn *n = parse_concat(p);
    while (p->t->type == JT_ADD || p->t->type == JT_SUB) {
        enum jtok tok = p->t++->type;
        n = math(p, n, tok, parse_concat(p));
    }
    return n;
}

/* The comparison operator here, passed; JT_EOF: none. */
static enum jtok compare_op(struct jparser *p) {
    enum jtok t = p->t->type;
    if (t >= JT_EQ && t <= JT_LE) {
        p->t++;
        return t;
    }
    if (jp_skip_name(p, "in"))
        return JT_NAME;
    if (jp_at_name(p, "not") && p->t[1].type == JT_NAME && js_is(p->t[1].name, "in")) {
        p->t += 2;
        return JT_SUB;
    }
    return JT_EOF;
}

static struct jn *parse_compare(struct jparser *p) {
    struct jn *first = parse_sum(p), *n = NULL;
    size_t cap = 0;
    for (enum jtok op; (op = compare_op(p)) != JT_EOF;) {
        if (!n) {
            n = jp_node(p, JN_COMPARE);
            jp_add(p, &n->kids, first);
        }
        if (n->kids.n > cap) {
            enum jtok *v = jx_alloc(p->x, cap = 2 * n->kids.n, sizeof *v);
            if (n->tok)
                memcpy(v, n->tok, (n->kids.n - 1) * sizeof *v);
            n->tok = v;
        }
        n->tok[n->kids.n - 1] = op;
        jp_add(p, &n->kids, parse_sum(p));
    }
    return n ? n : first;
}

static struct jn *parse_not(struct jparser *p) {
    if (!jp_at_name(p, "not"))
        return parse_compare(p);
    struct jn *n = jp_node(p, JN_NOT);
    p->t++;
    jx_enter(p->x);
    n->a = parse_not(p);
    jx_leave(p->x);
    return n;
}

static struct jn *parse_and(struct jparser *p) {
    struct jn *n = parse_not(p);
    while (jp_skip_name(p, "and"))
        n = binary(p, JN_AND, n, parse_not(p));
    return n;
}

static struct jn *parse_or(struct jparser *p) {
    struct jn *n = parse_and(p);
    while (jp_skip_name(p, "or"))
        n = binary(p, JN_OR, n, parse_and(p));
    return n;
}

struct jn *jp_expr(struct jparser *p, bool cond) {
    jx_enter(p->x);
    p->x->line = p->t->line;
    struct jn *n = parse_or(p);
    while (cond && jp_skip_name(p, "if")) {
        struct jn *c = jp_node(p, JN_COND);
        c->a = n;
        c->b = parse_or(p);
        if (jp_skip_name(p, "else"))
            c->c = jp_expr(p, true);
        n = c;
    }
    jx_leave(p->x);
    return n;
}

static bool tuple_end(struct jparser *p, const char *stop) {
    enum jtok t = p->t->type;
    return t == JT_VAR_END || t == JT_BLOCK_END || t == JT_RPAREN ||
           (stop && jp_at_name(p, stop));
}

/* Items separated by commas; simple: primaries only, as in targets. */
static struct jn *tuple(struct jparser *p, bool cond, const char *stop, bool parens,
                        bool simple, bool ns) {
    struct jn *n = jp_node(p, JN_TUPLE);
    bool comma = false;
    jx_enter(p->x);
    for (;;) {
        if (n->kids.n)
            jp_expect(p, JT_COMMA);
        if (tuple_end(p, stop))
            break;
        jp_add(p, &n->kids, simple ? parse_primary(p, ns) : jp_expr(p, cond));
        if (p->t->type != JT_COMMA)
            break;
        comma = true;
    }
    jx_leave(p->x);
    if (!comma && n->kids.n)
        return n->kids.v[0];
    if (!comma && !parens)
        jp_fail_at(p, "an expression");
    return n;
}

struct jn *jp_tuple(struct jparser *p, bool cond, const char *stop, bool parens) {
    return tuple(p, cond, stop, parens, false, false);
}

static void check_target(struct jparser *p, const struct jn *n) {
    if (n->op == JN_TUPLE)
        for (size_t i = 0; i < n->kids.n; i++)
            check_target(p, n->kids.v[i]);
    else if (n->op != JN_NAME && n->op != JN_NSREF)
        jx_fail(p->x, "this can't be assigned to");
}

struct jn *jp_target(struct jparser *p, const char *stop, bool ns) {
    struct jn *n = tuple(p, true, stop, false, true, ns);
    check_target(p, n);
    return n;
}

static struct jn *parse_list(struct jparser *p) {
    struct jn *n = jp_node(p, JN_LIST);
    p->t++;
    while (p->t->type != JT_RBRACKET) {
        if (n->kids.n)
            jp_expect(p, JT_COMMA);
        if (p->t->type == JT_RBRACKET)
            break;
        jp_add(p, &n->kids, jp_expr(p, true));
    }
    p->t++;
    return n;
}

static struct jn *parse_dict(struct jparser *p) {
    struct jn *n = jp_node(p, JN_DICT);
    p->t++;
    while (p->t->type != JT_RBRACE) {
        if (n->kids.n)
            jp_expect(p, JT_COMMA);
        if (p->t->type == JT_RBRACE)
            break;
        jp_add(p, &n->kids, jp_expr(p, true));
        jp_expect(p, JT_COLON);
        jp_add(p, &n->kids, jp_expr(p, true));
    }
    p->t++;
    return n;
}

static bool constant(const struct jstr *s, struct jv *v) {
    if (js_is(s, "true") || js_is(s, "True") || js_is(s, "false") || js_is(s, "False"))
        *v = jv_bool((s->p[0] | 32) == 't');
    else if (js_is(s, "none") || js_is(s, "None"))
        *v = jv_none();
    else
        return false;
    return true;
}

static struct jn *parse_name(struct jparser *p, bool ns) {
    struct jn *n = jp_node(p, JN_NAME);
    n->name = p->t++->name;
    if (constant(n->name, &n->v)) {
        n->op = JN_CONST;
        return n;
    }
    if (ns && jp_skip(p, JT_DOT)) {
        if (p->t->type != JT_NAME)
            jp_fail_at(p, "the name of an attribute");
        n->op = JN_NSREF;
        n->attr = p->t++->name;
        return n;
    }
    p->saw_caller |= js_is(n->name, "caller");
    p->saw_varargs |= js_is(n->name, "varargs");
    p->saw_kwargs |= js_is(n->name, "kwargs");
    return n;
}

static struct jn *parse_string(struct jparser *p) {
    struct jn *n = jp_node(p, JN_CONST);
    n->v = p->t++->v;
    if (p->t->type != JT_STRING)
        return n;
    struct jb b = {0}; /* neighbours are one string */
    jb_addstr(p->x, &b, n->v.s);
    while (p->t->type == JT_STRING)
        jb_addstr(p->x, &b, p->t++->v.s);
    n->v = jb_value(p->x, &b);
    return n;
}

static struct jn *parse_primary(struct jparser *p, bool ns) {
    struct jn *n;
    switch (p->t->type) {
    case JT_NAME:
        return parse_name(p, ns);
    case JT_STRING:
        return parse_string(p);
    case JT_INT:
    case JT_FLOAT:
        n = jp_node(p, JN_CONST);
        n->v = p->t++->v;
        return n;
    case JT_LPAREN:
        p->t++;
        n = tuple(p, true, NULL, true, false, false);
        jp_expect(p, JT_RPAREN);
        return n;
    case JT_LBRACKET:
        return parse_list(p);
    case JT_LBRACE:
        return parse_dict(p);
    default:
        jp_fail_at(p, "an expression");
    }
}

/* One subscript: an expression, or start:stop:step, which gives a JN_SLICE without its object.
 */
static struct jn *subscribed(struct jparser *p) {
    struct jn *part[3] = {0}, *s = jp_node(p, JN_SLICE);
    if (p->t->type != JT_COLON) {
        part[0] = jp_expr(p, true);
        if (p->t->type != JT_COLON)
            return part[0];
    }
    p->t++;
    for (int i = 1; i < 3; i++) {
        if (i == 2 && !jp_skip(p, JT_COLON))
            break;
        if (p->t->type != JT_COLON && p->t->type != JT_RBRACKET && p->t->type != JT_COMMA)
            part[i] = jp_expr(p, true);
    }
    jp_add(p, &s->kids, NULL);
    for (int i = 0; i < 3; i++)
        jp_add(p, &s->kids, part[i]);
    return s;
}

static bool is_open_slice(const struct jn *n) {
    return n->op == JN_SLICE && !n->kids.v[0];
}

static struct jn *parse_item(struct jparser *p, struct jn *of) {
    struct jn *n = jp_node(p, JN_ITEM), *args = jp_node(p, JN_TUPLE);
    n->a = of;
    p->t++;
    while (p->t->type != JT_RBRACKET) {
        if (args->kids.n)
            jp_expect(p, JT_COMMA);
        jp_add(p, &args->kids, subscribed(p));
    }
    p->t++;
    n->b = args->kids.n == 1 ? args->kids.v[0] : args;
    for (size_t i = 0; n->b == args && i < args->kids.n; i++)
        if (is_open_slice(args->kids.v[i]))
            jx_fail(p->x, "a slice can't be one of several subscripts");
    if (is_open_slice(n->b)) {
        n->b->kids.v[0] = of;
        return n->b;
    }
    return n;
}

static struct jn *parse_attr(struct jparser *p, struct jn *of) {
    struct jn *n = jp_node(p, JN_ATTR);
    n->a = of;
    p->t++;
    if (p->t->type == JT_INT) {
        n->op = JN_ITEM;
        n->b = jp_node(p, JN_CONST);
        n->b->v = p->t++->v;
        return n;
    }
    if (p->t->type != JT_NAME)
        jp_fail_at(p, "a name or a number");
    n->name = p->t++->name;
    return n;
}

static void keyword(struct jparser *p, struct jcallargs *a, const struct jstr *name,
                    struct jn *v) {
    const struct jstr **names = jx_alloc(p->x, a->n_kw + 1, sizeof *names);
    struct jn **vals = jx_alloc(p->x, a->n_kw + 1, sizeof(struct jn *));
    for (size_t i = 0; i < a->n_kw; i++) {
        if (a->kw_name[i] == name)
            jx_fail(p->x, "a keyword argument is given twice");
        names[i] = a->kw_name[i];
        vals[i] = a->kw[i];
    }
    names[a->n_kw] = name;
    vals[a->n_kw++] = v;
    a->kw_name = names;
    a->kw = vals;
}

static struct jcallargs *call_args(struct jparser *p) {
    struct jcallargs *a = jx_alloc(p->x, 1, sizeof *a);
    struct jbody pos = {0};
    bool more = false;
    jp_expect(p, JT_LPAREN);
    while (p->t->type != JT_RPAREN) {
        if (more)
            jp_expect(p, JT_COMMA);
        if (p->t->type == JT_RPAREN)
            break;
        more = true;
        bool ok = !a->starstar;
        if (jp_skip(p, JT_MUL)) {
            ok = ok && !a->star;
            a->star = jp_expr(p, true);
        } else if (jp_skip(p, JT_POW)) {
            a->starstar = jp_expr(p, true);
        } else if (p->t->type == JT_NAME && p->t[1].type == JT_ASSIGN) {
            const struct jstr *name = p->t->name;
            p->t += 2;
            keyword(p, a, name, jp_expr(p, true));
        } else {
            ok = ok && !a->star && !a->n_kw;
            jp_add(p, &pos, jp_expr(p, true));
        }
        if (!ok)
            jx_fail(p->x, "the arguments of a call are in an order that is not allowed");
    }
    p->t++;
    a->pos = pos.v;
    a->n_pos = pos.n;
    return a;
}

static struct jn *parse_call(struct jparser *p, struct jn *of) {
    struct jn *n = jp_node(p, JN_CALL);
    n->a = of;
    n->args = call_args(p);
    return n;
}

static struct jn *parse_postfix(struct jparser *p, struct jn *n) {
    for (;;) {
        if (p->t->type == JT_DOT)
            n = parse_attr(p, n);
        else if (p->t->type == JT_LBRACKET)
            n = parse_item(p, n);
        else if (p->t->type == JT_LPAREN)
            n = parse_call(p, n);
        else
            return n;
    }
}

/* The name of a filter or a test, which may have dots in it. */
static const struct jstr *dotted(struct jparser *p) {
    if (p->t->type != JT_NAME)
        jp_fail_at(p, "the name of a filter or a test");
    const struct jstr *name = p->t++->name;
    if (p->t->type == JT_DOT)
        jx_fail(p->x, "no filter or test has a dot in its name");
    return name;
}

struct jn *jp_filter(struct jparser *p, struct jn *of) {
    struct jn *n = jp_node(p, JN_FILTER);
    n->a = of;
    n->name = dotted(p);
    if (p->t->type == JT_LPAREN)
        n->args = call_args(p);
    return n;
}

struct jn *jp_filters(struct jparser *p, struct jn *of) {
    while (jp_skip(p, JT_PIPE))
        of = jp_filter(p, of);
    return of;
}

static struct jn *parse_test(struct jparser *p, struct jn *of) {
    p->t++;
    bool negated = jp_skip_name(p, "not");
    struct jn *n = jp_node(p, JN_TEST);
    n->a = of;
    n->name = dotted(p);
    enum jtok t = p->t->type;
    if (t == JT_LPAREN) {
        n->args = call_args(p);
    } else if (t == JT_STRING || t == JT_INT || t == JT_FLOAT || t == JT_LBRACKET ||
               t == JT_LBRACE ||
               (t == JT_NAME && !jp_at_name(p, "else") && !jp_at_name(p, "or") &&
                !jp_at_name(p, "and"))) {
        if (jp_at_name(p, "is"))
            jx_fail(p->x, "tests with 'is' can't be chained");
        n->args = jx_alloc(p->x, 1, sizeof *n->args);
        struct jbody one = {0};
        jp_add(p, &one, parse_postfix(p, parse_primary(p, false)));
        n->args->pos = one.v;
        n->args->n_pos = 1;
    }
    if (!negated)
        return n;
    struct jn *no = jp_node(p, JN_NOT);
    no->a = n;
    return no;
}

static struct jn *parse_unary(struct jparser *p, bool with_filter) {
    struct jn *n;
    jx_enter(p->x);
    if (p->t->type == JT_SUB || p->t->type == JT_ADD) {
        n = jp_node(p, p->t->type == JT_SUB ? JN_NEG : JN_POS);
        p->t++;
        n->a = parse_unary(p, false);
    } else {
        n = parse_primary(p, false);
    }
    n = parse_postfix(p, n);
    while (with_filter) {
        if (p->t->type == JT_PIPE)
            n = jp_filters(p, n);
        else if (jp_at_name(p, "is"))
            n = parse_test(p, n);
        else if (p->t->type == JT_LPAREN)
            n = parse_call(p, n);
        else
            break;
    }
    jx_leave(p->x);
    return n;
}
