/*
 * fuzzy.h - how well a few typed letters match a name: the command palette and the filter of
 * the conversation list.
 *
 * The letters of the pattern must occur in the text in order (case folded; blanks in the
 * pattern are skipped). Better are matches at starts of words, in one piece, near the
 * beginning, and in short texts.
 */
#ifndef LLMCHAT_UI_FUZZY_H
#define LLMCHAT_UI_FUZZY_H

#include <stddef.h>

#define FUZZY_MAX_PATTERN 64  /* code points of the pattern that count */
#define FUZZY_MAX_TEXT    512 /* code points of the text that are looked at */

/* The score (greater is better), or -1 when the pattern doesn't match. An empty pattern matches
 * everything with 0. pos[0..max_pos) (may be NULL) gets the byte offsets in text of the matched
 * characters, *n_pos their number. */
int fuzzy_match(const char *pattern, const char *text, size_t *pos, size_t max_pos,
                size_t *n_pos);

#endif
