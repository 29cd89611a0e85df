/*
 * charsmap.h - SentencePiece's precompiled normalizer: a trie of texts and what each becomes.
 *
 * Layout (sentencepiece, normalizer.cc): the trie's size in bytes as 32 bits, little endian;
 * the trie, units of 32 bits as darts-clone writes them; the replacements, each ended by NUL.
 */
#ifndef LLMCHAT_ENGINE_TEXT_CHARSMAP_H
#define LLMCHAT_ENGINE_TEXT_CHARSMAP_H

#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct charsmap; /* immutable, for any thread */

/* Copies p [n]. n = 0 gives one that maps nothing. ST_FORMAT: sizes that do not fit, or text
 * that is not UTF-8. */
enum status charsmap_open(const uint8_t *p, size_t n, struct charsmap **out, struct err *err);
void charsmap_close(struct charsmap *c); /* NULL is allowed */
/* [256] A byte that is quiet is found in no entry's beginning, unless one that is not, of a
 * longer character, stands behind it. */
const bool *charsmap_quiet(const struct charsmap *c);

/* The longest (or the shortest) entry that s [len] begins with: its bytes, 0 when there is
 * none, and in *to, terminated, what it becomes. */
size_t charsmap_longest(const struct charsmap *c, const char *s, size_t len, const char **to);
size_t charsmap_shortest(const struct charsmap *c, const char *s, size_t len, const char **to);

#endif
