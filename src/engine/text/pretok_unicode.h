/*
 * pretok_unicode.h - what the regular expression engine's Unicode tables lack.
 */
#ifndef LLMCHAT_ENGINE_TEXT_PRETOK_UNICODE_H
#define LLMCHAT_ENGINE_TEXT_PRETOK_UNICODE_H

#include <stddef.h>

/* Ranges, as they stand in a bracket, to add to a property ("L", "Nd"); "" for none. */
const char *pretok_young(const char *name, size_t len);

#endif
