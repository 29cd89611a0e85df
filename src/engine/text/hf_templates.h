/*
 * hf_templates.h - the chat templates of a Hugging Face folder.
 *
 * Where they are looked for, as transformers does it; the first place that has any counts:
 *   1. chat_template.jinja, the default one, and additional_chat_templates/NAME.jinja;
 *   2. tokenizer_config.json, key chat_template: a text, or a list of {"name", "template"};
 *   3. chat_template.json, key chat_template, of older processors.
 */
#ifndef LLMCHAT_ENGINE_TEXT_HF_TEMPLATES_H
#define LLMCHAT_ENGINE_TEXT_HF_TEMPLATES_H

#include "engine/text/vocab.h"

/* Sets v's chat_template, template_names and template_texts, and, where they are still "", arch
 * (model_type of config.json) and name (the folder's). A folder without any template is no
 * error. ST_FORMAT, ST_LIMIT: invalid UTF-8, names twice, too many, too large; the message
 * names file and template. v was made by vocab_init(); the caller releases it. */
enum status hf_templates(struct vocab_data *v, const char *dir, struct err *err);

#endif
