/*
 * prompts.h - the prompt library: YAML files in share/prompts and in the person's own folder
 * (…/config/llmchat/prompts).
 *
 *   name: proofreader
 *   description: Corrects a text and lists what was changed
 *   text: You are a careful proofreader. Write in {{language}}. …
 *   variables:
 *     - { name: language, description: Language of the text, default: English }
 *   settings: { temperature: 0.2 }
 *
 * The person's own prompt of the same name comes before ours. A file that can't be read does
 * not hide the others.
 */
#ifndef LLMCHAT_CHAT_PROMPTS_H
#define LLMCHAT_CHAT_PROMPTS_H

#include "base/err.h"
#include "base/mem.h"

struct prompt_var {
    char *name, *description, *def;
};
struct prompt {
    char *name, *description, *text, *path;
    struct prompt_var *vars;
    size_t n_vars;
    char *settings_json; /* "" none: names and values of settings.h */
    bool own;            /* from the person's folder */
};
struct prompt_list {
    struct prompt *v;
    size_t n;
    struct strlist broken; /* "FILE:LINE: why" */
};
enum status prompts_load(struct prompt_list *out, struct err *err);
void prompt_list_release(struct prompt_list *l);
const struct prompt *prompt_find(const struct prompt_list *l, const char *name);
/* The text with {{name}} replaced; values[i] for vars[i], NULL: the default. The caller frees.
 */
char *prompt_fill(const struct prompt *p, const char *const *values);
/* Reads one file (fuzz entry). */
enum status prompt_parse(const char *yaml, size_t len, const char *path, struct prompt *out,
                         struct err *err);
void prompt_release(struct prompt *p);

#endif
