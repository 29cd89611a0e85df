/*
 * lookup.c - see lookup.h.
 *
 * Data: a hash of the last three tokens of a place picks a bucket with the newest place of that
 * hash; `older` leads from there to the ones before, as in an LZ77 packer. Hashes only pick
 * candidates: tokens are compared, backwards, for the longest run. Of pairs only the newest
 * place is kept. The place that was right last time goes on being right as long as the text
 * follows it, whatever newer places there are: it is asked first, and a long run is taken
 * without looking further.
 *
 * The n-gram at the very end is entered only when a token follows it, so that nothing finds
 * itself. Buckets are doubled and filled again when there are as many places as buckets.
 *
 * Rejected: suffix automata and trees (constant time as well, with 20 and more bytes a token,
 * and no better proposals than the longest of eight places); a scan of the history each step
 * (0.1 ms in a context of 32k tokens, paid whether it finds something or not).
 */
#include "engine/run/lookup.h"

#include "base/mem.h"
#include <stdlib.h>
#include <string.h>

enum { MIN_BUCKETS = 256 };

void lookup_release(struct lookup *l) {
    free(l->older);
    free(l->last_long);
    free(l->last_short);
    *l = (struct lookup){0};
}

/* Bucket of the n tokens that end at (and include) end. */
static int bucket_of(const struct lookup *l, const int32_t *end, int n) {
    uint64_t h = 0;
    for (int i = 0; i < n; i++) {
        h = (h ^ (uint32_t)end[-i]) * 0x9E3779B97F4A7C15u;
        h ^= h >> 29;
    }
    return (int)(h & (uint64_t)(l->n_bucket - 1));
}

static void enter(struct lookup *l, const int32_t *tokens, int i) {
    l->older[i] = -1;
    if (i >= LOOKUP_SHORT - 1)
        l->last_short[bucket_of(l, tokens + i, LOOKUP_SHORT)] = i;
    if (i >= LOOKUP_LONG - 1) {
        int32_t *b = &l->last_long[bucket_of(l, tokens + i, LOOKUP_LONG)];
        l->older[i] = *b;
        *b = i;
    }
}

static void grow(struct lookup *l, int n) {
    if (n > l->cap) {
        l->cap = n > 2 * l->cap ? n : 2 * l->cap;
        l->older = xreallocarray(l->older, (size_t)l->cap, sizeof *l->older);
    }
    if (n <= l->n_bucket)
        return;
    l->n_bucket = l->n_bucket ? l->n_bucket : MIN_BUCKETS;
    while (l->n_bucket < n && l->n_bucket < 1 << 29)
        l->n_bucket *= 2;
    size_t n_bucket = (size_t)l->n_bucket, size = n_bucket * sizeof *l->last_long;
    l->last_long = xreallocarray(l->last_long, n_bucket, sizeof *l->last_long);
    l->last_short = xreallocarray(l->last_short, n_bucket, sizeof *l->last_short);
    memset(l->last_long, -1, size);
    memset(l->last_short, -1, size);
    l->n = 0; /* all go in again */
}

/* Equal tokens that end at a and at the end b > a. */
static int run_length(const int32_t *tokens, int a, int b) {
    int n = 0;
    while (n < LOOKUP_MATCH && n <= a && tokens[a - n] == tokens[b - n])
        n++;
    return n;
}

static int search(const struct lookup *l, const int32_t *tokens, int end, int *len) {
    int best = -1;
    *len = 0;
    if (end >= LOOKUP_LONG) {
        int at = l->last_long[bucket_of(l, tokens + end, LOOKUP_LONG)];
        for (int i = 0; at >= 0 && i < LOOKUP_TRIES && *len < LOOKUP_MATCH;
             i++, at = l->older[at]) {
            int n = run_length(tokens, at, end);
            if (n > *len) {
                *len = n;
                best = at;
            }
        }
    }
    if (*len < LOOKUP_SHORT) {
        best = l->last_short[bucket_of(l, tokens + end, LOOKUP_SHORT)];
        *len = best >= 0 ? run_length(tokens, best, end) : 0;
    }
    return *len >= LOOKUP_SHORT ? best : -1;
}

int lookup_find(struct lookup *l, const int32_t *tokens, int n_tok, int *len) {
    int end = n_tok - 1, old = -1, old_len = 0;
    *len = 0;
    if (n_tok <= LOOKUP_SHORT)
        return -1;
    grow(l, n_tok);
    for (; l->n < end; l->n++)
        enter(l, tokens, l->n);
    if (l->len && n_tok > l->at_tok) { /* where the last one would be now */
        old = l->at + (n_tok - l->at_tok) - 1;
        old_len = run_length(tokens, old, end);
    }
    int best = old;
    *len = old_len;
    if (old_len < LOOKUP_MATCH / 2) {
        best = search(l, tokens, end, len);
        if (old_len >= *len && old_len >= LOOKUP_SHORT) {
            best = old;
            *len = old_len;
        }
    }
    l->at = best + 1;
    l->len = best >= 0 ? *len : 0;
    l->at_tok = n_tok;
    return best < 0 ? -1 : best + 1;
}
