/*
 * unicode_data.h - where the tokenizers library's Unicode and ours differ.
 */
#ifndef LLMCHAT_ENGINE_TEXT_UNICODE_DATA_H
#define LLMCHAT_ENGINE_TEXT_UNICODE_DATA_H

#include <stdbool.h>
#include <stdint.h>

bool unicode_accent(uint32_t cp); /* what "StripAccents" takes away */
/* A character of a word: letters, marks, decimal digits, connectors, joiners. */
bool unicode_word(uint32_t cp);
uint32_t unicode_lower(uint32_t cp);  /* of one character */
bool unicode_decomposes(uint32_t cp); /* false: too young for the library to decompose it */
/* Punctuation as pre-tokenizers know it: a class of Oniguruma. */
const char *unicode_punctuation(void);

#endif
