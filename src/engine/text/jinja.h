/*
 * jinja.h - chat templates: the Jinja that model templates are written in, as transformers runs
 * them.
 *
 * The language of jinja2 3.1 in its immutable sandbox with trim_blocks, lstrip_blocks, loop
 * controls, raise_exception, strftime_now, transformers' own tojson, and `generation` blocks,
 * which are transparent. Refused by name: other templates (include, import, extends),
 * autoescaping, the filters random and urlize, lipsum(). Integers are 64 bits wide; what does
 * not fit is an error, never a wrong number. A template sees its variables and nothing else: no
 * files, no objects, no attribute that starts with "__".
 *
 * A render ends in bounded time and memory whatever the template does: steps, bytes and depth
 * are counted, and what goes beyond is ST_LIMIT. A malformed template, an error while it runs
 * and raise_exception() are ST_FORMAT; the message names the line. Any thread may render;
 * nothing is shared.
 *
 * Inside: jinja_value.h (values and memory), jinja_ast.h (text to tree), jinja_run.h (tree to
 * text, built-ins).
 */
#ifndef LLMCHAT_ENGINE_TEXT_JINJA_H
#define LLMCHAT_ENGINE_TEXT_JINJA_H

#include "engine/text.h"

struct jinja_input {
    const char *template_text; /* [template_len] UTF-8 */
    size_t template_len;
    const char *messages_json; /* a list of objects */
    const char *tools_json;    /* or NULL: none */
    const char *vars_json;     /* or NULL; an object; its names win over all others */
    const char *bos, *eos;     /* the model's own text: not marked as plain */
    bool add_generation_prompt;
    int64_t now_unix;
    bool check_only; /* that the template can be parsed; it is not run */
};

/* Appends to out->text and out->plain; nothing on failure. */
enum status jinja_render(const struct jinja_input *in, struct rendered *out, struct err *err);

#endif
