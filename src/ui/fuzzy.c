/*
 * fuzzy.c - see fuzzy.h.
 *
 * The best alignment by dynamic programming over (pattern letter, text letter), as for local
 * sequence alignment: two rows of scores, one where the letters so far end in a match right
 * here (runs get a bonus), one with the best so far. The greedy scan that many programs use was
 * rejected: it takes the first letters that fit and misses the word that is meant.
 */
#include "ui/fuzzy.h"
#include "base/utf8.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum {
    MATCH = 16,
    WORD_START = 24,
    FIRST = 8,    /* the text's first letter, on top */
    RUN = 18,     /* the letter before matched too */
    GAP = 1,      /* for each letter left out between matches */
    LEAD_MAX = 8, /* for letters before the first match */
};
#define NONE INT32_MIN

struct letter {
    uint32_t cp; /* case folded */
    uint32_t at; /* byte offset */
    bool start;  /* of a word */
};

static bool is_alnum(uint32_t cp) {
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NO;
}

static size_t letters(const char *s, struct letter *out, size_t max, bool skip_blanks) {
    size_t n = 0, i = 0, len = strlen(s);
    uint32_t before = ' ';
    while (i < len && n < max) {
        uint32_t cp, at = (uint32_t)i;
        i += utf8_decode(s + i, len - i, &cp);
        uint32_t lower = (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
        bool hump = lower != cp && is_alnum(before) &&
                    (uint32_t)utf8proc_tolower((utf8proc_int32_t)before) == before;
        if (!(skip_blanks && cp == ' '))
            out[n++] = (struct letter){
                .cp = lower, .at = at, .start = is_alnum(cp) && (!is_alnum(before) || hump)};
        before = cp;
    }
    return n;
}

/* score[i][j]: the best when pattern letter i is matched by text letter j; from[i][j]: where
 * letter i - 1 was then. */
struct table {
    int32_t *score;
    int16_t *from;
    size_t cols;
};

static void fill_row(struct table *t, const struct letter *p, size_t i, const struct letter *s,
                     size_t n) {
    int32_t best = NONE; /* of the row before, less the gap since; and where */
    int16_t best_at = -1;
    for (size_t j = 0; j < n; j++) {
        int32_t *out = &t->score[i * t->cols + j];
        int32_t before = NONE;
        int16_t from = -1;
        if (i == 0)
            before = -(int32_t)(j < LEAD_MAX ? j : LEAD_MAX);
        else if (j > 0) {
            int32_t run = t->score[(i - 1) * t->cols + j - 1];
            if (best != NONE)
                best -= GAP;
            before = best;
            from = best_at;
            if (run != NONE && (before == NONE || run + RUN >= before)) {
                before = run + RUN;
                from = (int16_t)(j - 1);
            }
            if (run != NONE && (best == NONE || run >= best)) {
                best = run;
                best_at = (int16_t)(j - 1);
            }
        }
        *out = NONE;
        t->from[i * t->cols + j] = from;
        if (s[j].cp == p[i].cp && before != NONE)
            *out = before + MATCH + (s[j].start ? WORD_START : 0) + (j == 0 ? FIRST : 0);
    }
}

int fuzzy_match(const char *pattern, const char *text, size_t *pos, size_t max_pos,
                size_t *n_pos) {
    struct letter p[FUZZY_MAX_PATTERN], s[FUZZY_MAX_TEXT];
    size_t m = letters(pattern, p, FUZZY_MAX_PATTERN, true);
    size_t n = letters(text, s, FUZZY_MAX_TEXT, false);
    if (n_pos)
        *n_pos = 0;
    if (m == 0)
        return 0;
    if (m > n)
        return -1;
    struct table t = {.cols = n};
    t.score = xreallocarray(NULL, m * n, sizeof *t.score);
    t.from = xreallocarray(NULL, m * n, sizeof *t.from);
    for (size_t i = 0; i < m; i++)
        fill_row(&t, p, i, s, n);
    int32_t best = NONE;
    size_t at = 0;
    for (size_t j = 0; j < n; j++)
        if (t.score[(m - 1) * n + j] > best) {
            best = t.score[(m - 1) * n + j];
            at = j;
        }
    if (best != NONE && pos && n_pos) {
        *n_pos = m < max_pos ? m : max_pos;
        for (size_t i = m; i-- > 0; at = (size_t)t.from[i * n + at])
            if (i < max_pos)
                pos[i] = s[at].at;
    }
    free(t.score);
    free(t.from);
    if (best == NONE)
        return -1;
    best = best * 4 - (int32_t)(n < 64 ? n : 64) / 4; /* of equals, the shorter text */
    return best > 0 ? best : 1;
}
