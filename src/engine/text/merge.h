/*
 * merge.h - the merging at the heart of both kinds of BPE: of all neighbours that may be
 * joined, those with the lowest rank are joined first, the leftmost of them when there are
 * several, until nothing can be joined.
 */
#ifndef LLMCHAT_ENGINE_TEXT_MERGE_H
#define LLMCHAT_ENGINE_TEXT_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MERGE_NONE UINT32_MAX /* no symbol; no rank */

struct merge_sym {
    int32_t id;          /* the token, or -1 where there is none for a single character */
    uint32_t prev, next; /* neighbours; prev of the first is MERGE_NONE */
    uint32_t rank;       /* of joining this symbol with the next one, or MERGE_NONE */
    int32_t into;        /* what that would give */
};

struct merge_work {        /* {0} is empty; reused from word to word, by one thread */
    struct merge_sym *sym; /* [cap] numbered by the caller: 0 is the first */
    uint64_t *heap;        /* [2 * cap] rank << 32 | left symbol */
    size_t cap, n_heap;
};

/* Room for symbols 0..n-1; their contents are lost. */
void merge_reserve(struct merge_work *w, size_t n);
void merge_release(struct merge_work *w);

/* May symbols l and r (neighbours) be joined? Then the rank and the token that comes out. */
typedef bool (*merge_pair_fn)(const void *ctx, const struct merge_work *w, uint32_t l,
                              uint32_t r, uint32_t *rank, int32_t *into);

/* Joins what can be joined in the list of symbols that starts at 0; next of the last is `end`.
 * What is left is walked by following next from 0 to end. O(n log n) calls of pair() for n
 * symbols at most. */
void merge_run(struct merge_work *w, uint32_t end, merge_pair_fn pair, const void *ctx);

#endif
