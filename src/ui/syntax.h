/*
 * syntax.h - which parts of a line of code are keywords, strings, comments and numbers: enough
 * to read a code block by, for the languages that models write most. Languages are families in
 * a table, not grammars.
 */
#ifndef LLMCHAT_UI_SYNTAX_H
#define LLMCHAT_UI_SYNTAX_H

#include <stddef.h>
#include <stdint.h>

struct syntax;

/* The language of a fence's info word ("c", "python", "js"), case-insensitive; NULL when it is
 * not known. */
const struct syntax *syntax_find(const char *lang, size_t len);
/* The token of line[0..len) that starts at `at`: returns its end and sets *style (a
 * STYLE_CODE_… kind). *state carries what goes on over lines (block comments, long strings); 0
 * at the start of a block. */
size_t syntax_token(const struct syntax *s, int *state, const char *line, size_t len, size_t at,
                    uint16_t *style);

#endif
