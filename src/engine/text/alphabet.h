/*
 * alphabet.h - how byte-level vocabularies spell the 256 bytes as printable characters.
 *
 * Those that are printable in Latin-1 stand for themselves, the others are U+0100, U+0101, … in
 * the order of their values (GPT-2).
 */
#ifndef LLMCHAT_ENGINE_TEXT_ALPHABET_H
#define LLMCHAT_ENGINE_TEXT_ALPHABET_H

#include "base/mem.h"
#include <stdbool.h>
#include <stddef.h>

/* Appends the bytes that s spells; false (and nothing) when a character is not of the alphabet.
 */
bool alphabet_decode(const char *s, size_t len, struct buf *out);
/* Appends the characters that spell the bytes of s. */
void alphabet_encode(const char *s, size_t len, struct buf *out);

#endif
