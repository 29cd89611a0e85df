/*
 * render.c - a conversation to the text, and the tokens, that a model expects.
 *
 * Which template: the caller's, else the model's own, else one of the two below. ChatML is
 * right for a model whose vocabulary has its two marks, since nobody adds them without training
 * on them. What is left are base models, which continue text: they get the contents, blank
 * lines between, and the answer begins after a blank line. Roles are not written there: "User:"
 * lines teach a base model to write the user's next line as well.
 *
 * The begin token: a template writes it or means to have none, so nothing is added to what it
 * wrote, as transformers does it. The built-in templates write none, so there the model's own
 * wish counts.
 */
#include "base/clock.h"
#include "engine/text/jinja.h"
#include <string.h>

/* Content may be a string, null, or a list of parts of which the text is used. */
#define CONTENT                                                                                \
    "{%- macro said(c) -%}"                                                                    \
    "{%- if c is string -%}{{ c }}{%- elif c is not none and c is not mapping -%}"             \
    "{%- for part in c -%}"                                                                    \
    "{%- if part is mapping and part.text is defined -%}{{ part.text }}{%- endif -%}"          \
    "{%- endfor -%}{%- endif -%}"                                                              \
    "{%- endmacro -%}"

static const char chatml[] =
    CONTENT "{%- for m in messages -%}"
            "{{ '<|im_start|>' ~ m.role ~ '\\n' ~ said(m.content) ~ '<|im_end|>\\n' }}"
            "{%- endfor -%}"
            "{{ '<|im_start|>assistant\\n' if add_generation_prompt else '' }}";

static const char plain[] = CONTENT
    "{%- for m in messages -%}"
    "{{ said(m.content) ~ ('\\n\\n' if not loop.last or add_generation_prompt else '') }}"
    "{%- endfor -%}";

void rendered_release(struct rendered *r) {
    buf_release(&r->text);
    buf_release(&r->plain);
}

static bool has_mark(const struct text_model *t, const char *mark) {
    struct tok_list l = {0};
    struct err e;
    bool one = text_encode(t, mark, strlen(mark), &(struct encode_opts){.special = true}, &l,
                           &e) == ST_OK &&
               l.n == 1 && text_is_control(t, l.v[0]);
    tok_list_release(&l);
    return one;
}

/* The template that opts and t give, and what it is called. */
static const char *choose(const struct text_model *t, const struct render_opts *opts,
                          const char **name) {
    *name = "file";
    if (opts->template_text)
        return opts->template_text;
    *name = "model";
    const char *own = text_chat_template(t);
    if (*own)
        return own;
    bool marks = has_mark(t, "<|im_start|>") && has_mark(t, "<|im_end|>");
    *name = marks ? "chatml" : "plain";
    return marks ? chatml : plain;
}

static void token_text(const struct text_model *t, int token, struct buf *out) {
    if (t && token >= 0)
        text_decode(t, token, true, out);
}

enum status text_render(const struct text_model *t, const struct render_opts *opts,
                        struct rendered *out, const char **used, struct err *err) {
    const char *name;
    struct buf bos = {0}, eos = {0};
    if (!t && !opts->template_text)
        return err_set(err, ST_USAGE,
                       "a chat template or a model is needed to render messages");
    const char *text = choose(t, opts, &name);
    token_text(t, t ? text_bos(t) : -1, &bos);
    token_text(t, t ? text_eos(t) : -1, &eos);
    struct jinja_input in = {
        .template_text = text,
        .template_len = strlen(text),
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
    if (st == ST_OK && used)
        *used = name;
    return st;
}

enum status text_prompt(const struct text_model *t, const struct render_opts *opts,
                        struct tok_list *out, struct err *err) {
    struct rendered r = {0};
    const char *used = "";
    enum status st = text_render(t, opts, &r, &used, err);
    if (st == ST_OK) {
        bool built_in = strcmp(used, "chatml") == 0 || strcmp(used, "plain") == 0;
        struct encode_opts eo = {.special = true,
                                 .plain = (const uint8_t *)buf_str(&r.plain),
                                 .bos = built_in && text_adds_bos(t)};
        st = text_encode(t, buf_str(&r.text), r.text.len, &eo, out, err);
    }
    rendered_release(&r);
    return st;
}
