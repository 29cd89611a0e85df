/*
 * unigram.h - the tokens of a text with the best sum of scores (Kudo 2018, "Subword
 * Regularization"), as the tokenizers library and SentencePiece find them.
 */
#ifndef LLMCHAT_ENGINE_TEXT_UNIGRAM_H
#define LLMCHAT_ENGINE_TEXT_UNIGRAM_H

#include "base/err.h"
#include "engine/text.h"
#include <stddef.h>
#include <stdint.h>

struct text_model;
struct vocab_data;

struct unigram;      /* immutable, for any thread */
struct unigram_work; /* what one thread needs; reused from word to word */

/* From t->sp_bytes and v's scores, over the tokens that text may become. as_sentencepiece:
 * sums in f32, and user-defined tokens that win nearly always. ST_FORMAT: no scores. */
enum status unigram_build(const struct text_model *t, const struct vocab_data *v,
                          bool as_sentencepiece, struct unigram **out, struct err *err);
void unigram_free(struct unigram *u); /* NULL is allowed */

struct unigram_work *unigram_work_new(void);
void unigram_work_free(struct unigram_work *w); /* NULL is allowed */
void unigram_word(const struct text_model *t, struct unigram_work *w, const char *word,
                  size_t len, struct tok_list *out);

#endif
