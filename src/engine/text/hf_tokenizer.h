/*
 * hf_tokenizer.h - the tokenizer of a Hugging Face folder.
 *
 * Read is what is there of: tokenizer.json; else tokenizer.model (SentencePiece); else
 * vocab.json and merges.txt (GPT-2). Beside it tokenizer_config.json, special_tokens_map.json,
 * added_tokens.json, generation_config.json and config.json say which tokens begin and end
 * what, and the chat templates come along (hf_templates.h).
 */
#ifndef LLMCHAT_ENGINE_TEXT_HF_TOKENIZER_H
#define LLMCHAT_ENGINE_TEXT_HF_TOKENIZER_H

#include "engine/text/vocab.h"

/* n_vocab: rows of the model's embedding; a smaller vocabulary is filled up with unused tokens,
 * a larger one is ST_FORMAT and names both. 0: as many as the tokenizer has. v is released on
 * failure. ST_NOT_FOUND: no tokenizer in the folder; ST_UNSUPPORTED names the part that is not
 * known; ST_FORMAT names file and entry. */
enum status vocab_from_hf(struct vocab_data *v, const char *dir, int n_vocab, struct err *err);

#endif
