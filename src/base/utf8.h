/*
 * utf8.h - UTF-8, grapheme clusters and the width of text in terminal cells.
 *
 * Text inside the program is UTF-8. What comes from outside may be anything: utf8_valid() asks,
 * utf8_scrub() mends. Widths follow utf8proc's tables with the rules terminals agree on: a
 * cluster is as wide as its widest code point, an emoji presentation selector (U+FE0F) or a
 * flag pair makes it 2 wide.
 */
#ifndef LLMCHAT_BASE_UTF8_H
#define LLMCHAT_BASE_UTF8_H

#include "base/mem.h"
#include <stdbool.h>

/* Decodes one code point of s[0..len). Returns the bytes used (1..4), or 0 when len is 0. An
 * invalid sequence gives *cp = 0xFFFD and uses its longest valid prefix (at least 1 byte), as
 * WHATWG and Unicode recommend. */
size_t utf8_decode(const char *s, size_t len, uint32_t *cp);
/* Writes cp to out[4]; returns the bytes written, 1..4. A surrogate or a value above 0x10FFFF
 * writes U+FFFD. */
size_t utf8_encode(uint32_t cp, char out[4]);
bool utf8_valid(const char *s, size_t len);
/* Offset of the first invalid byte, or len. */
size_t utf8_valid_prefix(const char *s, size_t len);
/* Appends s with every invalid sequence replaced by U+FFFD. */
void utf8_scrub(struct buf *out, const char *s, size_t len);
/* How many bytes at the end of s are the start of an unfinished but so far valid sequence:
 * 0..3. */
size_t utf8_incomplete_tail(const char *s, size_t len);

/* Bytes of the first extended grapheme cluster of s[0..len) (0 when len is 0); *cells gets its
 * width in cells: 0, 1 or 2 (a tab and control characters count 0: who draws them decides). */
size_t utf8_cluster(const char *s, size_t len, int *cells);
/* Width of a whole text in cells. */
size_t utf8_cells(const char *s, size_t len);
/* Longest prefix in whole clusters that is at most max_cells wide; *cells gets its width.
 * Returns its bytes. */
size_t utf8_fit(const char *s, size_t len, size_t max_cells, size_t *cells);
/* The same as a precision for printf's "%.*s"; at most 4 bytes a cell, so that the size of a
 * buffer is known. */
int utf8_cut(const char *s, size_t max_cells);
/* Start of the cluster before byte offset pos (0 at the start). */
size_t utf8_prev(const char *s, size_t pos);

/* Appends s made safe for a terminal: C0 and C1 control characters, DEL, bidirectional
 * overrides and isolates (U+202A..202E, U+2066..2069), and line and paragraph separators become
 * U+FFFD, invalid UTF-8 too; '\n' and '\t' stay when keep_newlines. The last step before
 * anything from outside is drawn or printed. */
void utf8_terminal_safe(struct buf *out, const char *s, size_t len, bool keep_newlines);

#endif
