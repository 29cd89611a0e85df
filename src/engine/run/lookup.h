/*
 * lookup.h - where the end of a timeline was seen before.
 *
 * An index of the n-grams of one timeline: given that the text now ends in some tokens, it
 * finds the place where the longest run of the same tokens stood before, so that what followed
 * there can be proposed as what follows now ("prompt lookup"). Adding a token and asking take
 * constant time. Used by the engine thread only.
 */
#ifndef LLMCHAT_ENGINE_RUN_LOOKUP_H
#define LLMCHAT_ENGINE_RUN_LOOKUP_H

#include <stdint.h>

enum {
    LOOKUP_LONG = 3,   /* tokens of the n-gram that is looked for first */
    LOOKUP_SHORT = 2,  /* and when that was never seen: its last occurrence */
    LOOKUP_TRIES = 8,  /* places of it that are compared, newest first */
    LOOKUP_MATCH = 32, /* tokens that are compared at most */
};

struct lookup {         /* {0} is an empty one; open to nobody but lookup.c */
    int32_t *older;     /* [cap] end of the LONG n-gram with the same hash before this one's */
    int32_t *last_long; /* [n_bucket] end of the newest LONG n-gram of a hash, -1: none */
    int32_t *last_short;
    int n, cap, n_bucket; /* n-grams that end at 0 .. n-1 are in */
    int at, len;          /* what was found last: continues at `at`, len tokens were equal */
    int at_tok;           /* for a timeline of so many tokens */
};

void lookup_release(struct lookup *l);
/* Where the longest run that ends like tokens [n_tok] continues: 0 < result < n_tok, or -1.
 * *len is how many tokens before it are equal to the last ones, LOOKUP_SHORT .. LOOKUP_MATCH.
 * The timeline is that of the calls before, with tokens added. */
int lookup_find(struct lookup *l, const int32_t *tokens, int n_tok, int *len);

#endif
