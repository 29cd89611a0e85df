/*
 * text_internal.h - the engine's own way to a text model, beside text.h.
 */
#ifndef LLMCHAT_ENGINE_TEXT_TEXT_INTERNAL_H
#define LLMCHAT_ENGINE_TEXT_TEXT_INTERNAL_H

#include "base/err.h"
#include "engine/text/vocab.h"

struct text_model;

/* A text model over v. It copies what it needs: v may be released and its file closed after.
 * text_close() frees it. ST_UNSUPPORTED names a tokenizer that is not known. */
enum status text_from_vocab(const struct vocab_data *v, struct text_model **out,
                            struct err *err);

/* The templates of a text model (render.c). t is complete but for them; v as above. */
struct templates;
struct templates *templates_new(const struct text_model *t, const struct vocab_data *v);
void templates_free(struct templates *s); /* NULL is allowed */

#endif
