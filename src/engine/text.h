/*
 * text.h - tokens and chat templates, with or without a running model.
 *
 * A text model is the tokenizer and the chat template of a model. It is immutable after it is
 * opened, so any thread may use it. Text that a person or a tool wrote is tokenized without
 * control tokens; only the template's own text may contain them: the interpreter marks every
 * byte of its output with where it came from.
 */
#ifndef LLMCHAT_ENGINE_TEXT_H
#define LLMCHAT_ENGINE_TEXT_H

#include "base/err.h"
#include "base/mem.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text_model;

/* From one of our model files, a GGUF file (one without tensors will do), or a Hugging Face
 * folder. */
enum status text_open(const char *path, struct text_model **out, struct err *err);
void text_close(struct text_model *t); /* not for one that belongs to an engine */

struct tok_list { /* {0} is empty */
    int32_t *v;
    size_t n, cap;
};
void tok_list_add(struct tok_list *l, int32_t token);
void tok_list_release(struct tok_list *l);

struct encode_opts {
    bool special;         /* control tokens in the text become themselves */
    const uint8_t *plain; /* [len] or NULL; with special: bytes that are 1 never take part in a
                             control token */
    bool bos, eos;        /* add the model's begin / end token (where the model has one) */
};
/* Appends the tokens of text[0..len), any bytes (invalid UTF-8 becomes U+FFFD). ST_LIMIT for
 * absurd input. */
enum status text_encode(const struct text_model *t, const char *text, size_t len,
                        const struct encode_opts *opts, struct tok_list *out, struct err *err);
/* Appends the bytes of one token; control tokens only when special. The bytes of single tokens
 * need not be valid UTF-8. */
void text_decode(const struct text_model *t, int32_t token, bool special, struct buf *out);
/* Appends the text of a whole sequence from its beginning: as text_decode() of each, without
 * the blank that SentencePiece models put in front of every text. */
void text_decode_all(const struct text_model *t, const int32_t *tokens, size_t n, bool special,
                     struct buf *out);
int text_n_vocab(const struct text_model *t);
int text_bos(const struct text_model *t); /* -1: none */
int text_eos(const struct text_model *t); /* -1: none */
bool text_adds_bos(
    const struct text_model *t); /* the model wants a begin token in front of every prompt */
bool text_is_eog(const struct text_model *t,
                 int32_t token); /* ends a generation: eos, eot, eom */
bool text_is_control(const struct text_model *t, int32_t token);
const char *text_chat_template(const struct text_model *t); /* the default one; "" when none */
/* The names of further templates that the model brings, i = 0, 1 …; NULL behind the last. */
const char *text_template_name(const struct text_model *t, size_t i);
/* The built-in template that is used where the model brings none: "chatml", "llama3", "plain"
 * …; chosen by its control tokens, architecture and name (text/builtin_templates.h). */
const char *text_builtin_template(const struct text_model *t);

/* What a template renders. messages and tools are JSON texts (lists), since tool calls and
 * content parts are free-form. */
struct render_opts {
    const char *messages_json; /* a list of {"role":…, "content":…, …} */
    const char *tools_json;    /* or NULL */
    const char *vars_json;     /* or NULL: an object of further template variables */
    const char *template_text; /* NULL: the model's own, or a built-in one */
    const char *template_name; /* NULL, or which: one of the model's ("default", "tool_use"),
                                  else a built-in one ("chatml"); ST_NOT_FOUND lists them */
    bool add_generation_prompt;
    int64_t now_unix; /* for strftime_now; 0: the clock */
};
struct rendered {
    struct buf text;
    struct buf plain; /* [text.len] 1: this byte came from a message, a tool or a variable */
};
void rendered_release(struct rendered *r);
/* t may be NULL when template_text is given or template_name is built in (bos and eos are ""
 * then). Which template: template_text, else template_name, else the model's "tool_use" when it
 * has one and tools are given, else its default, else text_builtin_template(). A model with
 * several templates and no default is ST_NOT_FOUND. *used, when not NULL, names what was used:
 * "file", "model", "model:NAME" for a further one of the model's, or the built-in one's name;
 * it lives as long as t. Built-in templates do not show tools. */
enum status text_render(const struct text_model *t, const struct render_opts *opts,
                        struct rendered *out, const char **used, struct err *err);
/* ST_FORMAT, naming the line, for a text that is no template; ST_LIMIT. Nothing is run. */
enum status text_template_check(const char *template_text, struct err *err);
/* Renders and encodes as the model expects a chat prompt (its begin token once, never twice).
 */
enum status text_prompt(const struct text_model *t, const struct render_opts *opts,
                        struct tok_list *out, struct err *err);

#endif
