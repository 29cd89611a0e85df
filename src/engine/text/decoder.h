/*
 * decoder.h - the text of tokens, by the "decoder" of a tokenizer.json.
 *
 * The library decodes a whole sequence. Nearly all of that works on each token by itself, so
 * the bytes of a token are made once, when the tokenizer is built; what depends on the place in
 * the sequence is in struct decoder_rest.
 */
#ifndef LLMCHAT_ENGINE_TEXT_DECODER_H
#define LLMCHAT_ENGINE_TEXT_DECODER_H

#include "base/err.h"
#include "base/mem.h"
#include "engine/text/regex.h"
#include <jansson.h>

struct decoder; /* immutable, for any thread */

struct decoder_rest {
    bool first_differs; /* the first token of a sequence is decoded another way */
    bool byte_runs;     /* a run of byte tokens that is not UTF-8 is a U+FFFD for each byte */
    char strip[8];      /* a character that is taken from the beginning of the text, strip_n
                           times at most */
    int strip_n;
};

/* null: tokens are joined with blanks. Messages begin with "decoder". */
enum status decoder_from_json(const json_t *json, struct decoder **out, struct err *err);
void decoder_close(struct decoder *d); /* NULL is allowed */
const struct decoder_rest *decoder_rest(const struct decoder *d);

/* Appends the bytes of a token's text s [len]; *is_byte (NULL is allowed): it stands for one
 * byte, like "<0xE2>". */
enum status decoder_token(const struct decoder *d, struct regex_run *run, const char *s,
                          size_t len, bool first, struct buf *out, bool *is_byte,
                          struct err *err);

#endif
