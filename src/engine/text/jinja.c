/*
 * jinja.c - one render from end to end: variables, parse, run, copy out.
 *
 * The template is parsed for every render. That takes well under a millisecond for the longest
 * published templates, far less than tokenizing what comes out, so a cache of parsed templates
 * would buy nothing but a lifetime to manage.
 *
 * Limits grow with the input, so that a long conversation is not taken for an attack. Numbers
 * are read and printed with the "C" locale's point, whatever the program's locale is: the
 * thread's locale is changed for the time of the render.
 */
#include "engine/text/jinja.h"
#include "engine/text/jinja_run.h"
#include <locale.h>

enum {
    MEM_BASE = 128 << 20,
    MEM_PER_BYTE = 64, /* of input */
    STEPS_BASE = 6000000,
    STEPS_PER_BYTE = 16,
    DEPTH_JSON = 400,
    DEPTH_PARSE = 400,
    DEPTH_RUN = 1600,
    MAX_INPUT = 64 << 20,
};

static const struct jstr *name_of(struct jx *x, const char *s) {
    return jx_intern(x, s, strlen(s));
}

static struct jv read_json(struct jx *x, const char *what, const char *text,
                           enum jv_kind want) {
    x->doc = what;
    x->line = 0;
    x->depth_max = DEPTH_JSON;
    struct jv v = jv_from_json(x, text, strlen(text));
    if (v.kind != (uint8_t)want && v.kind != JV_NONE)
        jx_fail(x, "a %s found, a %s wanted", jv_type(v), want == JV_DICT ? "dict" : "list");
    return v;
}

/* What the template sees: built-ins below, variables above, so that a variable may hide a
 * built-in. */
static struct jscope *variables(struct jx *x, const struct jinja_input *in) {
    struct jscope *built_in = jr_scope(x, NULL), *sc = jr_scope(x, built_in);
    for (const struct jfn *f = jb_globals; f->name; f++)
        jr_set(x, built_in, name_of(x, f->name), (struct jv){.kind = JV_FUNC, .fn = f});
    built_in->kept = sc->kept = true;
    struct jv messages = read_json(x, "messages", in->messages_json, JV_LIST);
    if (messages.kind != JV_LIST)
        jx_fail(x, "null found, a list wanted");
    for (size_t i = 0; i < messages.l->n; i++)
        if (messages.l->v[i].kind != JV_DICT)
            jx_fail(x, "message %zu is a %s, not an object", i, jv_type(messages.l->v[i]));
    struct jv tools = jv_none();
    if (in->tools_json)
        tools = read_json(x, "tools", in->tools_json, JV_LIST);
    jr_set(x, sc, name_of(x, "messages"), messages);
    jr_set(x, sc, name_of(x, "tools"), tools);
    jr_set(x, sc, name_of(x, "documents"), jv_none());
    jr_set(x, sc, name_of(x, "add_generation_prompt"), jv_bool(in->add_generation_prompt));
    jr_set(x, sc, name_of(x, "bos_token"), jv_cstr(x, in->bos));
    jr_set(x, sc, name_of(x, "eos_token"), jv_cstr(x, in->eos));
    if (!in->vars_json)
        return sc;
    struct jv vars = read_json(x, "template variables", in->vars_json, JV_DICT);
    for (size_t i = 0; vars.kind == JV_DICT && i < vars.d->n; i++)
        jr_set(x, sc, jx_intern(x, vars.d->key[i].s->p, vars.d->key[i].s->n), vars.d->val[i]);
    return sc;
}

static void limits(struct jx *x, const struct jinja_input *in) {
    size_t n = strlen(in->messages_json) + (in->tools_json ? strlen(in->tools_json) : 0) +
               (in->vars_json ? strlen(in->vars_json) : 0) + in->template_len;
    if (n > MAX_INPUT) {
        x->line = 0;
        jx_limit(x, "template and input have %zu bytes, at most %d are taken", n, MAX_INPUT);
    }
    x->mem_max = MEM_BASE + (size_t)MEM_PER_BYTE * n;
    x->steps_max = STEPS_BASE + (uint64_t)STEPS_PER_BYTE * n;
}

/* Everything that may jump out. */
static void render(struct jx *x, const struct jinja_input *in, struct jb *out) {
    limits(x, in);
    x->now_unix = in->now_unix;
    struct jscope *sc = variables(x, in);
    x->doc = "chat template";
    x->depth_max = DEPTH_PARSE;
    struct jbody body = jp_parse(x, jl_lex(x, in->template_text, in->template_len));
    x->depth_max = DEPTH_RUN;
    x->depth = 0;
    if (!in->check_only)
        jr_body(x, sc, out, &body);
}

static enum status guarded(struct jx *x, const struct jinja_input *in, struct jb *out) {
    int code = setjmp(x->fail);
    if (code)
        return (enum status)code;
    render(x, in, out);
    return ST_OK;
}

enum status jinja_render(const struct jinja_input *in, struct rendered *out, struct err *err) {
    struct jx x;
    struct jb text = {0};
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!c)
        return err_set(err, ST_INTERNAL, "chat template: the \"C\" locale can't be made");
    locale_t before = uselocale(c);
    jx_init(&x, err);
    enum status st = guarded(&x, in, &text);
    if (st == ST_OK && text.n) {
        buf_add(&out->text, text.p, text.n);
        if (text.m) {
            buf_add(&out->plain, text.m, text.n);
        } else {
            buf_reserve(&out->plain, text.n);
            for (size_t i = 0; i < text.n; i++)
                buf_addc(&out->plain, 0);
        }
    }
    jx_release(&x);
    uselocale(before);
    freelocale(c);
    return st;
}
