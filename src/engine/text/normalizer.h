/*
 * normalizer.h - what is done to a text before it is cut into words.
 *
 * A sequence of steps over the whole piece, as the "normalizer" of a tokenizer.json lists them.
 * Marks follow the bytes: what came from a marked byte is marked.
 */
#ifndef LLMCHAT_ENGINE_TEXT_NORMALIZER_H
#define LLMCHAT_ENGINE_TEXT_NORMALIZER_H

#include "base/err.h"
#include "base/mem.h"
#include "engine/text/charsmap.h"
#include "engine/text/regex.h"
#include <jansson.h>

struct norm_text {
    struct buf text;  /* valid UTF-8 */
    struct buf marks; /* [text.len] of 0 and 1, when has_marks */
    bool has_marks;
    bool moved; /* something at the very beginning was taken away */
    bool first; /* the piece begins where the whole text does */
};
void norm_text_release(struct norm_text *t);

struct normalizer; /* immutable, for any thread */

/* A normalizer of the tokenizers library; null does nothing. Beyond its types there is
 * "SentencePiece" {"add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces",
 * "suffix", "first_only"}, which does what that library does. charsmap is copied. Messages
 * begin with "normalizer". */
enum status normalizer_from_json(const json_t *json, const uint8_t *charsmap, size_t n_charsmap,
                                 struct normalizer **out, struct err *err);
void normalizer_close(struct normalizer *n); /* NULL is allowed */
/* Texts that "SentencePiece" leaves as they are, borrowed. */
struct added;
void normalizer_keep(struct normalizer *n, const struct added *texts);
bool normalizer_empty(const struct normalizer *n);

/* Changes t; tmp is scratch, reused from call to call. ST_LIMIT: too long, or an expression
 * takes too long. */
enum status normalizer_run(const struct normalizer *n, struct regex_run *run,
                           struct norm_text *t, struct norm_text *tmp, struct err *err);

#endif
