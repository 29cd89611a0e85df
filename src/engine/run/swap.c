/*
 * swap.c - see swap.h.
 *
 * Data: chunks of slots, of one block each, in memory that the device copies from and to by
 * itself (pinned). It takes long to get, since each page is found and locked at once, and
 * others can't have it: so it comes a chunk at a time, when the pool first needs one, and
 * stays. When the host gives no more, the store stays as large as it is.
 *
 * Rejected: memory of the heap (each copy then goes through a pinned buffer, and waits);
 * copying on a stream of its own (a step that writes to the block would have to wait for it:
 * the same time, and order to get wrong).
 */
#include "engine/run/swap.h"

#include "base/log.h"
#include "base/mem.h"
#include <assert.h>
#include <stdlib.h>

enum { CHUNK_BYTES = 64 << 20, MAX_SLOTS = 1 << 26 };

struct swap {
    struct graph *graph;
    struct kv_pool *pool;
    size_t block_bytes;
    int max_slot, n_slot;
    int per_chunk;        /* slots; the last chunk may have fewer */
    char **chunks;        /* [ceil(n_slot / per_chunk)] */
    uint64_t n_out, n_in; /* blocks that were copied */
};

static int n_chunk(const struct swap *w) {
    return (w->n_slot + w->per_chunk - 1) / w->per_chunk;
}

static void *slot_memory(const struct swap *w, int slot) {
    assert(slot >= 0 && slot < w->n_slot);
    return w->chunks[slot / w->per_chunk] + (size_t)(slot % w->per_chunk) * w->block_bytes;
}

static int grow(void *user) {
    struct swap *w = user;
    int left = w->max_slot - w->n_slot, n = left < w->per_chunk ? left : w->per_chunk;
    int at = n_chunk(w);
    char *chunk = n > 0 ? graph_swap_alloc(w->graph, (size_t)n * w->block_bytes) : NULL;
    if (!chunk) {
        if (n > 0)
            log_info("engine: the host gives no more memory for swapped KV blocks: %d of %d",
                     w->n_slot, w->max_slot);
        return 0;
    }
    w->chunks = xreallocarray(w->chunks, (size_t)at + 1, sizeof *w->chunks);
    w->chunks[at] = chunk;
    w->n_slot += n;
    return n;
}

static void out(void *user, int slot, int block) {
    struct swap *w = user;
    graph_swap_out(w->graph, block, slot_memory(w, slot));
    w->n_out++;
}

static void in(void *user, int block, int slot) {
    struct swap *w = user;
    graph_swap_in(w->graph, block, slot_memory(w, slot));
    w->n_in++;
}

struct swap *swap_open(struct graph *g, struct kv_pool *p, size_t block_bytes,
                       uint64_t max_bytes) {
    uint64_t max = max_bytes / block_bytes;
    size_t per = CHUNK_BYTES / block_bytes;
    if (!graph_can_swap(g) || max == 0)
        return NULL;
    struct swap *w = xcalloc(1, sizeof *w);
    w->graph = g;
    w->pool = p;
    w->block_bytes = block_bytes;
    w->max_slot = max < MAX_SLOTS ? (int)max : MAX_SLOTS;
    w->per_chunk = per > 0 ? (int)per : 1;
    kv_set_store(p, &(struct kv_store){w->max_slot, grow, out, in, w});
    log_info("engine: up to %d KV blocks of %zu bytes are swapped to the host", w->max_slot,
             block_bytes);
    return w;
}

void swap_close(struct swap *w) {
    if (!w)
        return;
    log_info(
        "engine: %llu KV blocks went to the host, %llu came back; it had room for %d of %d",
        (unsigned long long)w->n_out, (unsigned long long)w->n_in, w->n_slot, w->max_slot);
    for (int i = 0; i < n_chunk(w); i++)
        graph_swap_free(w->graph, w->chunks[i]);
    free(w->chunks);
    free(w);
}

bool swap_bring(struct swap *w, struct kv_seq *kv, const int32_t *tokens, int n_tok,
                size_t max_bytes) {
    if (!w)
        return false;
    size_t most = max_bytes / w->block_bytes;
    most = most > 0 ? most : 1;
    return kv_bring(w->pool, kv, tokens, n_tok, most < MAX_SLOTS ? (int)most : MAX_SLOTS);
}
