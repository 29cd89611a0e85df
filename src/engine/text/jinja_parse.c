/*
 * jinja_parse.c - tokens to statements; jinja_expr.c parses the expressions in them.
 *
 * A statement's body ends at one of its end tags. What a chat template has no use for (extends,
 * include, import, i18n) is refused by name; `block` renders in place; transformers' own
 * `generation` is a scope. For a macro the parser notes whether its body names caller, varargs
 * or kwargs, because that decides which surplus arguments it takes.
 */
#include "engine/text/jinja_parse.h"

void jp_fail_at(struct jparser *p, const char *want) {
    const struct jtoken *t = p->t;
    p->x->line = t->line;
    if (t->type == JT_NAME)
        jx_fail(p->x, "'%.*s' found, %s wanted", (int)(t->name->n < 60 ? t->name->n : 60),
                t->name->p, want);
    jx_fail(p->x, "%s found, %s wanted", jl_name(t->type), want);
}

void jp_expect(struct jparser *p, enum jtok type) {
    if (p->t->type != type)
        jp_fail_at(p, jl_name(type));
    p->t++;
}

bool jp_skip(struct jparser *p, enum jtok type) {
    if (p->t->type != type)
        return false;
    p->t++;
    return true;
}

bool jp_at_name(const struct jparser *p, const char *name) {
    return p->t->type == JT_NAME && js_is(p->t->name, name);
}

bool jp_skip_name(struct jparser *p, const char *name) {
    if (!jp_at_name(p, name))
        return false;
    p->t++;
    return true;
}

struct jn *jp_node(struct jparser *p, enum jop op) {
    struct jn *n = jx_alloc(p->x, 1, sizeof *n);
    n->op = op;
    n->line = p->t->line;
    return n;
}

void jp_add(struct jparser *p, struct jbody *b, struct jn *n) {
    if (b->n == b->cap) {
        size_t cap = b->cap ? 2 * b->cap : 4;
        struct jn **v = jx_alloc(p->x, cap, sizeof *v);
        if (b->n)
            memcpy(v, b->v, b->n * sizeof(struct jn *));
        b->v = v;
        b->cap = cap;
    }
    b->v[b->n++] = n;
}

static struct jn *statement(struct jparser *p);

/* Statements up to an end tag of `ends` (names separated by blanks; NULL: the end of the
 * template), which stays the current token. */
static struct jbody body_until(struct jparser *p, const char *ends) {
    struct jbody b = {0};
    jx_enter(p->x);
    while (p->t->type != JT_EOF) {
        p->x->line = p->t->line;
        if (p->t->type == JT_DATA) {
            struct jn *n = jp_node(p, JN_DATA);
            n->v = p->t++->v;
            jp_add(p, &b, n);
        } else if (jp_skip(p, JT_VAR_BEGIN)) {
            struct jn *n = jp_node(p, JN_PRINT);
            jp_add(p, &n->kids, jp_tuple(p, true, NULL, false));
            jp_expect(p, JT_VAR_END);
            jp_add(p, &b, n);
        } else {
            jp_expect(p, JT_BLOCK_BEGIN);
            for (const char *e = ends; e && p->t->type == JT_NAME;) {
                size_t n = strcspn(e, " ");
                if (p->t->name->n == n && memcmp(p->t->name->p, e, n) == 0) {
                    jx_leave(p->x);
                    return b;
                }
                e = e[n] ? e + n + 1 : NULL;
            }
            jp_add(p, &b, statement(p));
            jp_expect(p, JT_BLOCK_END);
        }
    }
    if (ends)
        jx_fail(p->x, "the template ends, but a block still waits for %s", ends);
    jx_leave(p->x);
    return b;
}

/* The rest of a statement's tag, then its body. */
static struct jbody body(struct jparser *p, const char *ends) {
    jp_skip(p, JT_COLON);
    jp_expect(p, JT_BLOCK_END);
    return body_until(p, ends);
}

static struct jbody body_drop(struct jparser *p, const char *end) {
    struct jbody b = body(p, end);
    p->t++;
    return b;
}

static struct jn *parse_if(struct jparser *p) {
    struct jn *first = jp_node(p, JN_IF), *n = first;
    for (;;) {
        p->t++;
        n->a = jp_tuple(p, false, NULL, false);
        n->body = body(p, "elif else endif");
        if (!jp_at_name(p, "elif"))
            break;
        struct jn *next = jp_node(p, JN_IF);
        jp_add(p, &n->orelse, next);
        n = next;
    }
    if (jp_skip_name(p, "else"))
        n->orelse = body_drop(p, "endif");
    else
        p->t++;
    return first;
}

static struct jn *parse_for(struct jparser *p) {
    struct jn *n = jp_node(p, JN_FOR);
    p->t++;
    n->a = jp_target(p, "in", false);
    if (!jp_skip_name(p, "in"))
        jp_fail_at(p, "'in'");
    n->b = jp_tuple(p, false, "recursive", false);
    if (jp_skip_name(p, "if"))
        n->c = jp_expr(p, true);
    n->flag = jp_skip_name(p, "recursive");
    p->n_loop++;
    n->body = body(p, "endfor else");
    p->n_loop--;
    if (jp_skip_name(p, "else"))
        n->orelse = body_drop(p, "endfor");
    else
        p->t++;
    return n;
}

static struct jn *parse_set(struct jparser *p) {
    struct jn *n = jp_node(p, JN_SET);
    p->t++;
    n->a = jp_target(p, NULL, true);
    if (jp_skip(p, JT_ASSIGN)) {
        n->b = jp_tuple(p, true, NULL, false);
        return n;
    }
    n->op = JN_SET_BLOCK;
    n->b = jp_filters(p, NULL);
    n->body = body_drop(p, "endset");
    return n;
}

static struct jn *parse_with(struct jparser *p) {
    struct jn *n = jp_node(p, JN_WITH);
    p->t++;
    while (p->t->type != JT_BLOCK_END) {
        if (n->kids.n)
            jp_expect(p, JT_COMMA);
        jp_add(p, &n->kids, jp_target(p, NULL, false));
        jp_expect(p, JT_ASSIGN);
        jp_add(p, &n->kids, jp_expr(p, true));
    }
    n->body = body_drop(p, "endwith");
    return n;
}

/* (a, b=1) of a macro or a call block. */
static void signature(struct jparser *p, struct jn *n) {
    size_t cap = 0;
    jp_expect(p, JT_LPAREN);
    while (p->t->type != JT_RPAREN) {
        if (n->n_param)
            jp_expect(p, JT_COMMA);
        if (p->t->type != JT_NAME)
            jp_fail_at(p, "the name of a parameter");
        if (n->n_param == cap) {
            struct jparam *v = jx_alloc(p->x, cap = cap ? 2 * cap : 4, sizeof *v);
            if (n->n_param)
                memcpy(v, n->param, n->n_param * sizeof *v);
            n->param = v;
        }
        struct jparam *q = &n->param[n->n_param++];
        q->name = p->t++->name;
        if (jp_skip(p, JT_ASSIGN))
            q->dflt = jp_expr(p, true);
        else if (n->n_param > 1 && q[-1].dflt)
            jx_fail(p->x, "a parameter without a default follows one with a default");
    }
    p->t++;
}

/* A body with a scope of its own whose text someone asks for later: macro, call block. */
static void macro_body(struct jparser *p, struct jn *n, const char *end) {
    bool caller = p->saw_caller, varargs = p->saw_varargs, kwargs = p->saw_kwargs;
    int loops = p->n_loop;
    p->saw_caller = p->saw_varargs = p->saw_kwargs = false;
    p->n_loop = 0;
    n->body = body_drop(p, end);
    p->n_loop = loops;
    n->uses_caller = p->saw_caller;
    n->uses_varargs = p->saw_varargs;
    n->uses_kwargs = p->saw_kwargs;
    p->saw_caller |= caller;
    p->saw_varargs |= varargs;
    p->saw_kwargs |= kwargs;
}

static struct jn *parse_macro(struct jparser *p) {
    struct jn *n = jp_node(p, JN_MACRO);
    p->t++;
    if (p->t->type != JT_NAME)
        jp_fail_at(p, "the name of a macro");
    n->name = p->t++->name;
    signature(p, n);
    macro_body(p, n, "endmacro");
    return n;
}

static struct jn *parse_call(struct jparser *p) {
    struct jn *n = jp_node(p, JN_CALL_BLOCK);
    p->t++;
    if (p->t->type == JT_LPAREN)
        signature(p, n);
    n->a = jp_expr(p, true);
    if (n->a->op != JN_CALL)
        jx_fail(p->x, "a call block needs a call");
    macro_body(p, n, "endcall");
    return n;
}

static struct jn *parse_filter(struct jparser *p) {
    struct jn *n = jp_node(p, JN_FILTER_BLOCK);
    p->t++;
    n->b = jp_filter(p, NULL);
    n->b = jp_filters(p, n->b);
    n->body = body_drop(p, "endfilter");
    return n;
}

static struct jn *parse_print(struct jparser *p) {
    struct jn *n = jp_node(p, JN_PRINT);
    p->t++;
    while (p->t->type != JT_BLOCK_END) {
        if (n->kids.n)
            jp_expect(p, JT_COMMA);
        jp_add(p, &n->kids, jp_expr(p, true));
    }
    return n;
}

static struct jn *parse_generation(struct jparser *p) {
    struct jn *n = jp_node(p, JN_SCOPE);
    int loops = p->n_loop;
    p->t++;
    p->n_loop = 0;
    n->body = body_drop(p, "endgeneration");
    p->n_loop = loops;
    return n;
}

static struct jn *parse_block(struct jparser *p) {
    struct jn *n = jp_node(p, JN_SCOPE);
    int loops = p->n_loop;
    p->t++;
    if (p->t->type != JT_NAME)
        jp_fail_at(p, "the name of a block");
    const struct jstr *name = p->t++->name;
    jp_skip_name(p, "scoped");
    p->n_loop = 0;
    n->body = body_drop(p, "endblock");
    p->n_loop = loops;
    if (p->t->type == JT_NAME && p->t->name == name)
        p->t++;
    return n;
}

static struct jn *parse_autoescape(struct jparser *p) {
    struct jn *n = jp_node(p, JN_SCOPE);
    p->t++;
    struct jn *on = jp_expr(p, true);
    if (on->op != JN_CONST || on->v.kind != JV_BOOL || on->v.b)
        jx_fail(p->x, "autoescape can only be false in a chat template");
    n->body = body_drop(p, "endautoescape");
    return n;
}

static struct jn *parse_leave(struct jparser *p) {
    struct jn *n = jp_node(p, jp_at_name(p, "break") ? JN_BREAK : JN_CONTINUE);
    if (!p->n_loop)
        jx_fail(p->x, "%s outside of a loop", n->op == JN_BREAK ? "break" : "continue");
    p->t++;
    return n;
}

static const struct {
    const char *word;
    struct jn *(*parse)(struct jparser *p);
} tags[] = {
    {"if", parse_if},
    {"for", parse_for},
    {"set", parse_set},
    {"with", parse_with},
    {"macro", parse_macro},
    {"call", parse_call},
    {"filter", parse_filter},
    {"print", parse_print},
    {"break", parse_leave},
    {"continue", parse_leave},
    {"block", parse_block},
    {"generation", parse_generation},
    {"autoescape", parse_autoescape},
};

static struct jn *statement(struct jparser *p) {
    if (p->t->type != JT_NAME)
        jp_fail_at(p, "the name of a tag");
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (js_is(p->t->name, tags[i].word))
            return tags[i].parse(p);
    jp_fail_at(p, "a tag that chat templates have");
}

struct jbody jp_parse(struct jx *x, struct jtoken *tokens) {
    struct jparser p = {.x = x, .t = tokens};
    return body_until(&p, NULL);
}
