/*
 * vocab_store.h - a vocabulary into one of our model files. Its counterpart is
 * vocab_from_container() in text/vocab.h.
 *
 * Tensors: "tokenizer.tokens" U8 and "tokenizer.tokens.offsets" U32 [n + 1], the same for
 * merges, "tokenizer.types" I32 [n], "tokenizer.scores" F32 [n], "tokenizer.charsmap" U8,
 * "chat_templates.names" and "chat_templates" U8 with offsets where there are named ones.
 * Metadata: "tokenizer.model", "tokenizer.pre", "tokenizer.arch", "tokenizer.name",
 * "chat_template" and the ids and flags as "tokenizer.bos_token_id" and so on. Tensors rather
 * than JSON, since they are used where they are mapped: parsing 50,000 JSON strings at every
 * start would take longer than everything else together.
 */
#ifndef LLMCHAT_ENGINE_MODEL_VOCAB_STORE_H
#define LLMCHAT_ENGINE_MODEL_VOCAB_STORE_H

#include "engine/model/container.h"
#include "engine/text/vocab.h"

void vocab_declare(struct container_writer *w, const struct vocab_data *v);
/* In the order of vocab_declare(). */
enum status vocab_write(struct container_writer *w, const struct vocab_data *v,
                        struct err *err);
/* Is this tensor a part of the named chat templates? */
bool vocab_is_template(const char *name);

#endif
