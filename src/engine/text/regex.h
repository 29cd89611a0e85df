/*
 * regex.h - the regular expressions of tokenizers, run by PCRE2.
 *
 * Tokenizer files are written for Oniguruma (the `tokenizers` library) or, in our own rules
 * (pretok_rules.c), for PCRE2; regex_onig.c turns the first into the second. Both kinds get
 * character classes of the same Unicode, and limits on time.
 */
#ifndef LLMCHAT_ENGINE_TEXT_REGEX_H
#define LLMCHAT_ENGINE_TEXT_REGEX_H

#include "base/err.h"
#include "base/mem.h"
#include <stdbool.h>
#include <stddef.h>

enum { REGEX_MAX_PATTERN = 1 << 16 }; /* bytes */

enum regex_kind {
    REGEX_RULE,    /* one of pretok_rules.c: PCRE2, \s and \p{…} are widened */
    REGEX_ONIG,    /* Oniguruma: ^ and $ are those of lines, (?m) lets the dot match all */
    REGEX_LITERAL, /* the text itself */
};

struct regex;     /* compiled; immutable, for any thread */
struct regex_run; /* what one thread needs to match any number of them */

/* pattern [len], valid UTF-8. ST_FORMAT: not a regular expression; ST_LIMIT: too long;
 * ST_UNSUPPORTED: an operator that PCRE2 does not have. */
enum status regex_open(const char *pattern, size_t len, enum regex_kind kind,
                       struct regex **out, struct err *err);
void regex_close(struct regex *r); /* NULL is allowed */

struct regex_run *regex_run_new(void);    /* NULL: no memory */
void regex_run_free(struct regex_run *r); /* NULL is allowed */

/* The first match in s [len], valid UTF-8, at or behind `from`, which lies on the border of a
 * character; it may be empty. ST_LIMIT: it takes too long. */
enum status regex_find(const struct regex *re, struct regex_run *run, const char *s, size_t len,
                       size_t from, size_t *at, size_t *end, bool *found, struct err *err);

/* Appends the pattern in PCRE2's words (for PCRE2_UTF, UCP and MULTILINE, newlines are LF). */
enum status regex_from_onig(const char *pattern, size_t len, struct buf *out, struct err *err);

/* Ranges of White_Space, as they stand in a class. */
#define REGEX_WHITE_SPACE                                                                      \
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"

#endif
