/*
 * render.c - a conversation to the text, and the tokens, that a model expects.
 *
 * Which template: the caller's text, the one the caller names, the model's own for tools when
 * there are tools, the model's default, and last a built-in one that was chosen from the
 * vocabulary when the model was opened (builtin_templates.h).
 *
 * The begin token: a template writes it or means to have none, so nothing is added to what it
 * wrote, as transformers does it. Most built-in templates write none, so there the model's own
 * wish counts.
 */
#include "base/clock.h"
#include "engine/text/builtin_templates.h"
#include "engine/text/jinja.h"
#include "engine/text/text_internal.h"
#include "engine/text/tokenizer.h"
#include <stdlib.h>
#include <string.h>

struct templates {
    char *dflt;                        /* "" when the model has none */
    struct strlist names, texts, used; /* used: "model:NAME" */
    const struct builtin_template *builtin;
};

struct templates *templates_new(const struct text_model *t, const struct vocab_data *v) {
    struct templates *s = xcalloc(1, sizeof *s);
    s->dflt = xstrdup(v->chat_template ? v->chat_template : "");
    for (uint32_t i = 0; i < v->template_names.n; i++) {
        struct buf used = {0};
        size_t len;
        const char *p = vocab_string(&v->template_names, i, &len);
        strlist_addn(&s->names, p, len);
        buf_adds(&used, "model:");
        buf_add(&used, p, len);
        strlist_addn(&s->used, used.p, used.len);
        buf_release(&used);
        p = vocab_string(&v->template_texts, i, &len);
        strlist_addn(&s->texts, p, len);
    }
    s->builtin =
        builtin_choose(t, v->arch ? v->arch : "", v->name ? v->name : "", t->kind == TEXT_BPE);
    return s;
}

void templates_free(struct templates *s) {
    if (!s)
        return;
    free(s->dflt);
    strlist_release(&s->names);
    strlist_release(&s->texts);
    strlist_release(&s->used);
    free(s);
}

const char *text_chat_template(const struct text_model *t) {
    return t->templates->dflt;
}

const char *text_template_name(const struct text_model *t, size_t i) {
    return i < t->templates->names.n ? t->templates->names.v[i] : NULL;
}

const char *text_builtin_template(const struct text_model *t) {
    return t->templates->builtin->name;
}

void rendered_release(struct rendered *r) {
    buf_release(&r->text);
    buf_release(&r->plain);
}

/* What is rendered: a text, or a built-in one. */
struct choice {
    const char *text, *used;
    const struct builtin_template *builtin; /* text is NULL then */
};

static enum status builtin(const struct builtin_template *b, struct choice *out) {
    *out = (struct choice){NULL, b->name, b};
    return ST_OK;
}

static enum status not_there(const struct templates *s, const char *name, struct err *err) {
    struct buf b = {0};
    if (name)
        buf_addf(&b, "there is no chat template %.80s", name);
    else
        buf_adds(&b, "the model has several chat templates and no default one");
    for (size_t i = 0; s && i < s->names.n; i++)
        buf_addf(&b, "%s%s", i ? ", " : "; the model's are: ", s->names.v[i]);
    if (s && *s->dflt)
        buf_adds(&b, s->names.n ? ", default" : "; the model's is: default");
    buf_adds(&b, "; built in are: ");
    for (const struct builtin_template *t = builtin_templates; t->name; t++)
        buf_addf(&b, "%s%s", t == builtin_templates ? "" : ", ", t->name);
    enum status st = err_set(err, ST_NOT_FOUND, "%s", b.p);
    buf_release(&b);
    return st;
}

static enum status by_name(const struct templates *s, const char *name, struct choice *out,
                           struct err *err) {
    for (size_t i = 0; s && i < s->names.n; i++)
        if (strcmp(s->names.v[i], name) == 0) {
            *out = (struct choice){s->texts.v[i], s->used.v[i], NULL};
            return ST_OK;
        }
    if (s && *s->dflt && strcmp(name, "default") == 0) {
        *out = (struct choice){s->dflt, "model", NULL};
        return ST_OK;
    }
    const struct builtin_template *b = builtin_find(name);
    return b ? builtin(b, out) : not_there(s, name, err);
}

static bool has_name(const struct templates *s, const char *name) {
    for (size_t i = 0; i < s->names.n; i++)
        if (strcmp(s->names.v[i], name) == 0)
            return true;
    return false;
}

static enum status choose(const struct text_model *t, const struct render_opts *opts,
                          struct choice *out, struct err *err) {
    const struct templates *s = t ? t->templates : NULL;
    *out = (struct choice){opts->template_text, "file", NULL};
    if (opts->template_text)
        return ST_OK;
    if (opts->template_name)
        return by_name(s, opts->template_name, out, err);
    if (!s)
        return err_set(err, ST_USAGE,
                       "a chat template or a model is needed to render messages");
    if (opts->tools_json && strcmp(opts->tools_json, "null") != 0 && has_name(s, "tool_use"))
        return by_name(s, "tool_use", out, err);
    if (*s->dflt)
        return by_name(s, "default", out, err);
    return s->names.n ? not_there(s, NULL, err) : builtin(s->builtin, out);
}

static void token_text(const struct text_model *t, int token, struct buf *out) {
    if (t && token >= 0)
        token_spelling(t, token, out);
}

static enum status render(const struct text_model *t, const struct render_opts *opts,
                          const struct choice *c, struct rendered *out, struct err *err) {
    struct buf bos = {0}, eos = {0}, text = {0};
    token_text(t, t ? text_bos(t) : -1, &bos);
    token_text(t, t ? text_eos(t) : -1, &eos);
    if (c->builtin)
        builtin_text(c->builtin, &text);
    const char *source = c->builtin ? text.p : c->text;
    struct jinja_input in = {
        .template_text = source,
        .template_len = strlen(source),
        .messages_json = opts->messages_json,
        .tools_json = opts->tools_json,
        .vars_json = opts->vars_json,
        .bos = buf_str(&bos),
        .eos = buf_str(&eos),
        .add_generation_prompt = opts->add_generation_prompt,
        .now_unix = opts->now_unix ? opts->now_unix : clock_unix_ms() / 1000,
    };
    enum status st = jinja_render(&in, out, err);
    buf_release(&bos);
    buf_release(&eos);
    buf_release(&text);
    return st;
}

enum status text_render(const struct text_model *t, const struct render_opts *opts,
                        struct rendered *out, const char **used, struct err *err) {
    struct choice c;
    CHECK(choose(t, opts, &c, err));
    CHECK(render(t, opts, &c, out, err));
    if (used)
        *used = c.used;
    return ST_OK;
}

enum status text_template_check(const char *template_text, struct err *err) {
    struct rendered none = {0};
    const struct jinja_input in = {.template_text = template_text,
                                   .template_len = strlen(template_text),
                                   .messages_json = "[]",
                                   .bos = "",
                                   .eos = "",
                                   .check_only = true};
    return jinja_render(&in, &none, err);
}

enum status text_prompt(const struct text_model *t, const struct render_opts *opts,
                        struct tok_list *out, struct err *err) {
    struct rendered r = {0};
    struct choice c;
    CHECK(choose(t, opts, &c, err));
    enum status st = render(t, opts, &c, &r, err);
    if (st == ST_OK) {
        struct encode_opts eo = {
            .special = true,
            .plain = (const uint8_t *)buf_str(&r.plain),
            .bos = c.builtin && !c.builtin->writes_bos && text_adds_bos(t),
        };
        st = text_encode(t, buf_str(&r.text), r.text.len, &eo, out, err);
    }
    rendered_release(&r);
    return st;
}
