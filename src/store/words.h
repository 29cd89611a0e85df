/*
 * words.h - text to words, the same way for the index, for a query and for the marks in a hit.
 *
 * A word is a run of letters, digits and the marks that belong to them. Scripts that write no
 * blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) and Hangul count every
 * character as a word, so that any run of characters is found as a phrase. Folding makes words
 * that look alike equal: case, width, ligatures, and the diacritics of Latin, Greek and
 * Cyrillic (resume finds résumé); the voicing marks of kana and the vowels of Indic scripts
 * stay.
 */
#ifndef LLMCHAT_STORE_WORDS_H
#define LLMCHAT_STORE_WORDS_H

#include "base/mem.h"
#include <stdbool.h>

struct word {
    size_t start, end; /* bytes in the text */
    bool single;       /* one character of a script without blanks */
};
/* The next word at or after *pos, which moves behind it; false at the end. Any bytes are
 * allowed. */
bool words_next(const char *s, size_t len, size_t *pos, struct word *out);
/* Appends the folded form of one word. */
void words_fold(struct buf *out, const char *s, size_t len);
/* Appends all words of a text, folded, with blanks between: what the index holds. */
void words_index(struct buf *out, const char *s, size_t len);

/* A query: terms that must all occur. */
struct term {
    struct strlist words; /* folded, in sequence; none: `literal` counts */
    bool prefix;          /* the last word may go on */
    char *literal; /* text without any word in it ("→"), looked for as it is; NULL otherwise */
};
struct terms { /* {0} is empty */
    struct term *v;
    size_t n;
};
/* Any input; what goes beyond 32 terms or 64 words a term is left out. */
void terms_parse(struct terms *out, const char *query);
void terms_release(struct terms *t);
/* The terms as an FTS5 query, empty when there is none with words. */
void terms_match(const struct terms *t, struct buf *out);
/* The first place where a term occurs in a text. */
bool terms_find(const struct terms *t, const char *s, size_t len, size_t *start, size_t *end);
/* Whether every term occurs in a text. */
bool terms_all_in(const struct terms *t, const char *s, size_t len);

#endif
