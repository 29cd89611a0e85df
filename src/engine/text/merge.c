/*
 * merge.c - see merge.h.
 *
 * A binary heap of (rank, left symbol) in one 64-bit number each. Entries are never looked for
 * to be removed: an entry counts only while its rank is still the one that the left symbol has,
 * and a symbol that was joined into its left neighbour has none. A join changes two pairs, so n
 * symbols push fewer than 3 n entries and hold at most 2 n at once.
 *
 * Rejected: searching the best pair anew for each join. That is what most tokenizers do for
 * short words; it is quadratic for a word of a megabyte, and with the cache of words in
 * tokenizer.c the short ones no longer count.
 */
#include "engine/text/merge.h"
#include "base/mem.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

void merge_reserve(struct merge_work *w, size_t n) {
    if (n <= w->cap)
        return;
    size_t cap = w->cap ? w->cap : 64;
    while (cap < n)
        cap *= 2;
    free(w->sym);
    free(w->heap);
    w->sym = xreallocarray(NULL, cap, sizeof *w->sym);
    w->heap = xreallocarray(NULL, cap, 2 * sizeof *w->heap);
    w->cap = cap;
}

void merge_release(struct merge_work *w) {
    free(w->sym);
    free(w->heap);
    memset(w, 0, sizeof *w);
}

static void heap_down(uint64_t *h, size_t n, size_t i) {
    uint64_t v = h[i];
    for (;;) {
        size_t c = 2 * i + 1;
        if (c >= n)
            break;
        if (c + 1 < n && h[c + 1] < h[c])
            c++;
        if (h[c] >= v)
            break;
        h[i] = h[c];
        i = c;
    }
    h[i] = v;
}

static void heap_push(struct merge_work *w, uint64_t v) {
    assert(w->n_heap < 2 * w->cap);
    size_t i = w->n_heap++;
    while (i > 0 && w->heap[(i - 1) / 2] > v) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = v;
}

static uint64_t heap_pop(struct merge_work *w) {
    uint64_t top = w->heap[0];
    w->heap[0] = w->heap[--w->n_heap];
    heap_down(w->heap, w->n_heap, 0);
    return top;
}

/* Sets the rank of symbol l and its right neighbour; true when they may be joined. */
static bool merge_rate(struct merge_work *w, uint32_t l, uint32_t end, merge_pair_fn pair,
                       const void *ctx) {
    struct merge_sym *s = &w->sym[l];
    if (s->next != end && pair(ctx, w, l, s->next, &s->rank, &s->into))
        return true;
    s->rank = MERGE_NONE;
    return false;
}

void merge_run(struct merge_work *w, uint32_t end, merge_pair_fn pair, const void *ctx) {
    w->n_heap = 0;
    for (uint32_t i = 0; i != end; i = w->sym[i].next)
        if (merge_rate(w, i, end, pair, ctx))
            w->heap[w->n_heap++] = (uint64_t)w->sym[i].rank << 32 | i;
    for (size_t i = w->n_heap / 2; i-- > 0;)
        heap_down(w->heap, w->n_heap, i);
    while (w->n_heap > 0) {
        uint64_t top = heap_pop(w);
        uint32_t l = (uint32_t)top;
        struct merge_sym *s = &w->sym[l];
        if (s->rank != (uint32_t)(top >> 32))
            continue;
        struct merge_sym *gone = &w->sym[s->next];
        s->id = s->into;
        s->next = gone->next;
        gone->rank = MERGE_NONE;
        if (s->next != end)
            w->sym[s->next].prev = l;
        if (merge_rate(w, l, end, pair, ctx))
            heap_push(w, (uint64_t)s->rank << 32 | l);
        if (s->prev != MERGE_NONE && merge_rate(w, s->prev, end, pair, ctx))
            heap_push(w, (uint64_t)w->sym[s->prev].rank << 32 | s->prev);
    }
}
