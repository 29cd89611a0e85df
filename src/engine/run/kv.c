/*
 * kv.c - block ownership: reference counts, the table of published blocks, least recently used
 * eviction.
 *
 * Data: one struct block per block of the pool. `ref` counts the sequences whose table names
 * it. A published block has a serial, a number that is never used twice, and the serial of the
 * block before it (at the start of a timeline the root of its kind); (parent serial, 16 tokens)
 * is its key in a chained hash table. Keys are compared in full, and a serial stands for one
 * exact history, so a hash collision can never hand out a wrong prefix; the hash only picks a
 * bucket, with a random start value so that nobody can aim for one bucket.
 *
 * Cached blocks (published, ref 0) are on a doubly linked list, oldest first; free ones on a
 * singly linked one through `next`. A sequence gives its blocks back last one first and takes
 * them first one first; therefore a cached block is always older on the list than the block
 * before it, and eviction never strands blocks that can't be reached any more. For the same
 * reason a published block is copied rather than overwritten even when one sequence alone
 * refers to it: the cached blocks behind it (another branch of the conversation) stay
 * reachable. Only when the pool has nothing left is it taken back in place; then nothing is
 * cached, so nothing is stranded.
 *
 * The store (kv_set_store) has slots with the same struct block, behind those of the pool:
 * number n_block is slot 0. A block that leaves the cache takes its key and its serial to a
 * slot, and comes back with them; so the table finds what is in either place, a key is in one
 * of them only, and what continues a block names it wherever it is. Slots in use are on a list
 * as cached blocks are, and since the cache gives up the last blocks of a timeline first, a
 * slot is older than the one that holds the block before it, or that block is in the pool. A
 * block of the pool never continues one that is in a slot.
 *
 * Blocks that moved up (kv_shift) have no serial, so nothing that continues them can have a key
 * either. The others of their sequence, in front of those that were left out, stay published.
 *
 * Rejected: a chain of 64-bit hashes as the key, where the parent's hash stands for its whole
 * history (a collision gives a wrong answer without a trace); a radix tree over tokens (splits
 * nodes, finds no more than the table does at block size); keeping a slot while its block is in
 * the pool (saves a copy when that leaves the cache again, and takes from the store what the
 * pool holds already).
 *
 * Thread: the engine's only.
 */
#include "engine/run/kv.h"

#include "base/mem.h"
#include "engine/run/graph.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { NONE = -1 };

/* Parents of first blocks; serials start above them. */
enum { ROOT_0 = 0, ROOT_1 = 1, FIRST_SERIAL = 2 };

struct block {
    int ref;
    int prev, next;          /* list of cached blocks, of slots in use; `next` of free ones */
    int chain;               /* next block in the same bucket */
    uint64_t serial, parent; /* serial 0: not published */
    int32_t tokens[KV_BLOCK];
};

struct lru {
    int oldest, newest, n;
};

struct kv_pool {
    struct block *blocks; /* [n_block + store.n_slot] */
    int n_block;
    int free_head, n_free;
    struct lru cached;
    struct {
        struct kv_store of;
        int n_slot, free_head, n_free;
        bool full; /* gets no more slots */
        struct lru used;
    } store;
    int *buckets; /* [n_bucket] first block of the chain */
    uint32_t n_bucket;
    uint64_t hash_start, next_serial;
    kv_copy_fn *copy;
    void *user;
};

/* An empty table for n blocks. */
static void new_table(struct kv_pool *p, int n) {
    p->n_bucket = 64;
    while (p->n_bucket < (uint32_t)n * 2u && p->n_bucket < 1u << 30)
        p->n_bucket *= 2;
    p->buckets = xreallocarray(p->buckets, p->n_bucket, sizeof *p->buckets);
    for (uint32_t i = 0; i < p->n_bucket; i++)
        p->buckets[i] = NONE;
}

struct kv_pool *kv_pool_new(int n_block, kv_copy_fn *copy, void *user) {
    assert(n_block > 0);
    struct kv_pool *p = xcalloc(1, sizeof *p);
    p->n_block = n_block;
    p->blocks = xcalloc((size_t)n_block, sizeof *p->blocks);
    new_table(p, n_block);
    p->free_head = NONE;
    for (int b = n_block - 1; b >= 0; b--) {
        p->blocks[b].next = p->free_head;
        p->free_head = b;
    }
    p->n_free = n_block;
    p->cached = p->store.used = (struct lru){NONE, NONE, 0};
    p->store.free_head = NONE;
    p->store.full = true;
    p->next_serial = FIRST_SERIAL;
    if (getrandom(&p->hash_start, sizeof p->hash_start, GRND_NONBLOCK) < 0)
        p->hash_start = (uint64_t)(uintptr_t)p;
    p->copy = copy;
    p->user = user;
    return p;
}

void kv_set_store(struct kv_pool *p, const struct kv_store *st) {
    assert(kv_n_free(p) == p->n_block && p->store.n_slot == 0);
    p->store.of = *st;
    p->store.full = false;
    new_table(p, p->n_block + st->max_slot);
}

void kv_pool_free(struct kv_pool *p) {
    if (!p)
        return;
    assert(kv_available(p) == p->n_block);
    free(p->blocks);
    free(p->buckets);
    free(p);
}

int kv_n_block(const struct kv_pool *p) {
    return p->n_block;
}

int kv_n_free(const struct kv_pool *p) {
    return p->n_free;
}

int kv_n_cached(const struct kv_pool *p) {
    return p->cached.n;
}

int kv_n_stored(const struct kv_pool *p) {
    return p->store.used.n;
}

int kv_available(const struct kv_pool *p) {
    return p->n_free + p->cached.n;
}

/* ---- the table of published blocks ---- */

static int *bucket_of(const struct kv_pool *p, uint64_t parent, const int32_t *tokens) {
    uint64_t h = p->hash_start ^ parent;
    for (int i = 0; i < KV_BLOCK; i++) {
        h ^= (uint32_t)tokens[i];
        h *= 0x9E3779B97F4A7C15u;
        h ^= h >> 29;
    }
    return &p->buckets[h & (p->n_bucket - 1)];
}

static int find(const struct kv_pool *p, uint64_t parent, const int32_t *tokens) {
    for (int b = *bucket_of(p, parent, tokens); b != NONE; b = p->blocks[b].chain) {
        const struct block *k = &p->blocks[b];
        if (k->parent == parent && memcmp(k->tokens, tokens, sizeof k->tokens) == 0)
            return b;
    }
    return NONE;
}

static void publish(struct kv_pool *p, int b, uint64_t parent, const int32_t *tokens) {
    struct block *k = &p->blocks[b];
    assert(k->serial == 0);
    k->serial = p->next_serial++;
    k->parent = parent;
    memcpy(k->tokens, tokens, sizeof k->tokens);
    int *bucket = bucket_of(p, parent, tokens);
    k->chain = *bucket;
    *bucket = b;
}

/* Where the table names a published block. */
static int *place_of(const struct kv_pool *p, int b) {
    int *at = bucket_of(p, p->blocks[b].parent, p->blocks[b].tokens);
    while (*at != b)
        at = &p->blocks[*at].chain;
    return at;
}

static void unpublish(struct kv_pool *p, int b) {
    struct block *k = &p->blocks[b];
    *place_of(p, b) = k->chain;
    k->serial = k->parent = 0;
}

/* Block b is published in the place of `from`, with its serial. */
static void take_over(struct kv_pool *p, int b, int from) {
    struct block *k = &p->blocks[b], *f = &p->blocks[from];
    assert(k->serial == 0);
    *place_of(p, from) = b;
    k->serial = f->serial;
    k->parent = f->parent;
    k->chain = f->chain;
    memcpy(k->tokens, f->tokens, sizeof k->tokens);
    f->serial = f->parent = 0;
}

/* ---- lists ---- */

static void lru_push(struct kv_pool *p, struct lru *l, int b) {
    struct block *k = &p->blocks[b];
    k->prev = l->newest;
    k->next = NONE;
    if (l->newest != NONE)
        p->blocks[l->newest].next = b;
    else
        l->oldest = b;
    l->newest = b;
    l->n++;
}

static void lru_remove(struct kv_pool *p, struct lru *l, int b) {
    struct block *k = &p->blocks[b];
    if (k->prev != NONE)
        p->blocks[k->prev].next = k->next;
    else
        l->oldest = k->next;
    if (k->next != NONE)
        p->blocks[k->next].prev = k->prev;
    else
        l->newest = k->prev;
    l->n--;
}

/* ---- the store ---- */

static bool in_store(const struct kv_pool *p, int b) {
    return b >= p->n_block;
}

static void slot_free(struct kv_pool *p, int b) {
    p->blocks[b].next = p->store.free_head;
    p->store.free_head = b;
    p->store.n_free++;
}

static void store_grow(struct kv_pool *p) {
    int had = p->n_block + p->store.n_slot, n = p->store.of.grow(p->store.of.user);
    p->store.full = n == 0;
    p->store.n_slot += n;
    p->blocks = xreallocarray(p->blocks, (size_t)(had + n), sizeof *p->blocks);
    memset(p->blocks + had, 0, (size_t)n * sizeof *p->blocks);
    for (int b = had + n - 1; b >= had; b--)
        slot_free(p, b);
}

/* A slot for a block, on no list: a free one, a new one, or the one that was filled longest
 * ago. NONE: the store has no slots. */
static int slot_take(struct kv_pool *p) {
    if (p->store.free_head == NONE && !p->store.full)
        store_grow(p);
    int b = p->store.free_head;
    if (b != NONE) {
        p->store.free_head = p->blocks[b].next;
        p->store.n_free--;
        return b;
    }
    b = p->store.used.oldest;
    if (b != NONE) {
        lru_remove(p, &p->store.used, b);
        unpublish(p, b);
    }
    return b;
}

/* A published block of the pool is about to be written: what it holds goes to the store, if
 * there is one. */
static void retire(struct kv_pool *p, int b) {
    int slot = slot_take(p);
    if (slot == NONE) {
        unpublish(p, b);
        return;
    }
    p->store.of.out(p->store.of.user, slot - p->n_block, b);
    take_over(p, slot, b);
    lru_push(p, &p->store.used, slot);
}

/* ---- cached and free blocks ---- */

static int block_alloc(struct kv_pool *p) {
    int b = p->free_head;
    if (b != NONE) {
        p->free_head = p->blocks[b].next;
        p->n_free--;
    } else {
        b = p->cached.oldest;
        if (b == NONE)
            return NONE;
        lru_remove(p, &p->cached, b);
        retire(p, b);
    }
    p->blocks[b].ref = 1;
    return b;
}

static void block_ref(struct kv_pool *p, int b) {
    struct block *k = &p->blocks[b];
    if (k->ref++ == 0)
        lru_remove(p, &p->cached, b);
}

static void block_unref(struct kv_pool *p, int b) {
    struct block *k = &p->blocks[b];
    assert(k->ref > 0);
    if (--k->ref > 0)
        return;
    if (k->serial) {
        lru_push(p, &p->cached, b);
    } else {
        k->next = p->free_head;
        p->free_head = b;
        p->n_free++;
    }
}

/* ---- sequences ---- */

static void drop_blocks(struct kv_pool *p, struct kv_seq *s, int keep) {
    while (s->n_block > keep)
        block_unref(p, s->blocks[--s->n_block]);
}

static void push_block(struct kv_seq *s, int b) {
    if (s->n_block == s->cap_block) {
        s->cap_block = s->cap_block ? s->cap_block * 2 : 16;
        s->blocks = xreallocarray(s->blocks, (size_t)s->cap_block, sizeof *s->blocks);
    }
    s->blocks[s->n_block++] = b;
}

static void push_tokens(struct kv_seq *s, const int32_t *tokens, int n) {
    if (n == 0)
        return;
    if (s->n_tok + n > s->cap_tok) {
        s->cap_tok = s->n_tok + n > s->cap_tok * 2 ? s->n_tok + n : s->cap_tok * 2;
        s->tokens = xreallocarray(s->tokens, (size_t)s->cap_tok, sizeof *s->tokens);
    }
    memcpy(s->tokens + s->n_tok, tokens, (size_t)n * sizeof *tokens);
    s->n_tok += n;
}

/* The serial that block i of the sequence continues. */
static uint64_t parent_of(const struct kv_pool *p, const struct kv_seq *s, int i) {
    if (i > 0)
        return p->blocks[s->blocks[i - 1]].serial;
    return s->kind ? ROOT_1 : ROOT_0;
}

void kv_cut(struct kv_pool *p, struct kv_seq *s, int n) {
    s->n_tok = n < s->n_tok ? n : s->n_tok;
    drop_blocks(p, s, kv_blocks(s->n_tok));
    if (s->n_tok <= s->moved_from)
        s->moved_from = 0;
}

void kv_seq_clear(struct kv_pool *p, struct kv_seq *s) {
    kv_cut(p, s, 0);
}

void kv_set_kind(struct kv_pool *p, struct kv_seq *s, int kind) {
    assert(kind == 0 || kind == 1);
    if (kind != s->kind)
        kv_seq_clear(p, s);
    s->kind = kind;
}

void kv_seq_release(struct kv_pool *p, struct kv_seq *s) {
    kv_seq_clear(p, s);
    free(s->tokens);
    free(s->blocks);
    *s = (struct kv_seq){0};
}

int kv_match(struct kv_pool *p, struct kv_seq *s, const int32_t *tokens, int n_tok) {
    assert(n_tok >= 1);
    int lcp = kv_common(s->tokens, s->n_tok, tokens, n_tok);
    int full = lcp / KV_BLOCK;
    struct kv_seq found = {0};
    uint64_t parent = parent_of(p, s, full);
    bool finds = !s->hidden && (s->moved_from == 0 || lcp <= s->moved_from);
    for (int i = full; finds && (i + 1) * KV_BLOCK <= n_tok; i++) {
        int b = find(p, parent, tokens + i * KV_BLOCK);
        if (b == NONE || in_store(p, b))
            break;
        block_ref(p, b);
        push_block(&found, b);
        parent = p->blocks[b].serial;
    }
    if (found.n_block) {
        drop_blocks(p, s, full);
        for (int i = 0; i < found.n_block; i++)
            push_block(s, found.blocks[i]);
        lcp = s->n_block * KV_BLOCK;
    }
    free(found.blocks);
    if (lcp > n_tok - 1)
        lcp = n_tok - 1;
    if (lcp <= s->moved_from || finds)
        s->moved_from = 0;
    drop_blocks(p, s, kv_blocks(lcp));
    s->n_tok = 0;
    push_tokens(s, tokens, lcp);
    return lcp;
}

/* The slot with the block of tokens [n_tok] that continues s; NONE: the store has none. */
static int stored_next(const struct kv_pool *p, const struct kv_seq *s, const int32_t *tokens,
                       int n_tok) {
    int i = s->n_tok / KV_BLOCK, b;
    if (s->hidden || s->moved_from || (i + 1) * KV_BLOCK > n_tok || s->n_tok == n_tok - 1)
        return NONE;
    b = find(p, parent_of(p, s, i), tokens + i * KV_BLOCK);
    return in_store(p, b) ? b : NONE;
}

/* The slots from there on as far as they continue one another become those that were used last,
 * so that what is about to come back is not given up for what makes place for it. */
static void refresh(struct kv_pool *p, int slot, const int32_t *tokens, int n_tok) {
    struct kv_seq chain = {0};
    for (int i = 0; in_store(p, slot); i += KV_BLOCK) {
        push_block(&chain, slot);
        if (i + KV_BLOCK > n_tok)
            break;
        slot = find(p, p->blocks[slot].serial, tokens + i);
    }
    for (int i = chain.n_block; i-- > 0;) {
        lru_remove(p, &p->store.used, chain.blocks[i]);
        lru_push(p, &p->store.used, chain.blocks[i]);
    }
    free(chain.blocks);
}

/* A slot's block in the pool again, as block_alloc() gives it. The slot is on no list
 * meanwhile: the block that makes place may go to any other. */
static int bring_back(struct kv_pool *p, int slot) {
    lru_remove(p, &p->store.used, slot);
    int b = block_alloc(p);
    assert(b != NONE);
    p->store.of.in(p->store.of.user, b, slot - p->n_block);
    take_over(p, b, slot);
    slot_free(p, slot);
    return b;
}

bool kv_bring(struct kv_pool *p, struct kv_seq *s, const int32_t *tokens, int n_tok, int most) {
    int slot = stored_next(p, s, tokens, n_tok);
    if (slot != NONE) {
        int behind = (s->n_tok / KV_BLOCK + 1) * KV_BLOCK;
        refresh(p, slot, tokens + behind, n_tok - behind);
    }
    for (; most > 0 && slot != NONE; most--) {
        int i = s->n_tok / KV_BLOCK, end = (i + 1) * KV_BLOCK;
        kv_trim(p, s);
        bool gives = i < s->n_block && p->blocks[s->blocks[i]].ref == 1;
        if (kv_available(p) == 0 && !gives)
            return false;
        kv_cut(p, s, i * KV_BLOCK); /* a part of the same block */
        push_block(s, bring_back(p, slot));
        push_tokens(s, tokens + s->n_tok, (end < n_tok ? end : n_tok - 1) - s->n_tok);
        slot = stored_next(p, s, tokens, n_tok);
    }
    return slot != NONE;
}

int kv_need(const struct kv_seq *s, int n_more) {
    int more = kv_blocks(s->n_tok + n_more) - s->n_block;
    return more > 0 ? more : 0;
}

/* The block that the next token goes to, when it holds tokens already, becomes the sequence's
 * own. */
static bool own_last(struct kv_pool *p, struct kv_seq *s) {
    int i = s->n_tok / KV_BLOCK, used = s->n_tok % KV_BLOCK;
    if (used == 0)
        return true;
    int old = s->blocks[i];
    if (p->blocks[old].ref == 1 && !p->blocks[old].serial)
        return true;
    int b = block_alloc(p);
    if (b == NONE) {
        if (p->blocks[old].ref > 1)
            return false;
        retire(p, old);
        return true;
    }
    p->copy(p->user, b, old, used);
    s->blocks[i] = b;
    block_unref(p, old);
    return true;
}

bool kv_reserve(struct kv_pool *p, struct kv_seq *s, int n_more) {
    if (n_more == 0)
        return true;
    if (!own_last(p, s))
        return false;
    int want = kv_blocks(s->n_tok + n_more);
    while (s->n_block < want) {
        int b = block_alloc(p);
        if (b == NONE)
            return false;
        push_block(s, b);
    }
    return true;
}

void kv_commit(struct kv_pool *p, struct kv_seq *s, const int32_t *tokens, int n) {
    assert(kv_blocks(s->n_tok + n) <= s->n_block);
    int first = s->n_tok / KV_BLOCK;
    push_tokens(s, tokens, n);
    if (s->hidden || s->moved_from)
        return;
    for (int i = first; (i + 1) * KV_BLOCK <= s->n_tok; i++) {
        uint64_t parent = parent_of(p, s, i);
        int b = s->blocks[i], twin = find(p, parent, s->tokens + i * KV_BLOCK);
        if (twin == NONE) {
            publish(p, b, parent, s->tokens + i * KV_BLOCK);
        } else if (in_store(p, twin)) {
            lru_remove(p, &p->store.used, twin);
            take_over(p, b, twin);
            slot_free(p, twin);
        } else {
            block_ref(p, twin);
            s->blocks[i] = twin;
            block_unref(p, b);
        }
    }
}

/* How many of the blocks from i on others refer to, too. */
static int n_shared(const struct kv_pool *p, const struct kv_seq *s, int i) {
    int n = 0;
    for (int end = kv_blocks(s->n_tok); i < end; i++)
        n += p->blocks[s->blocks[i]].ref > 1;
    return n;
}

int kv_shift_need(const struct kv_pool *p, const struct kv_seq *s, int from, int n) {
    return n_shared(p, s, (from + n) / KV_BLOCK);
}

/* Block i of the sequence becomes its own and unpublished. The last ones come first, and those
 * that others share come last (who shares a block shares those before it), so that cached
 * blocks stay reachable as in own_last(). */
static void own_block(struct kv_pool *p, struct kv_seq *s, int i) {
    int old = s->blocks[i], used = s->n_tok - i * KV_BLOCK, b;
    if (p->blocks[old].ref == 1 && !p->blocks[old].serial)
        return;
    b = block_alloc(p);
    if (b == NONE) {
        assert(p->blocks[old].ref == 1);
        retire(p, old);
        return;
    }
    p->copy(p->user, b, old, used < KV_BLOCK ? used : KV_BLOCK);
    s->blocks[i] = b;
    block_unref(p, old);
}

bool kv_shift(struct kv_pool *p, struct kv_seq *s, int from, int n) {
    assert(from > 0 && n > 0 && from % KV_BLOCK == 0 && n % KV_BLOCK == 0);
    assert(from + n <= s->n_tok && (s->moved_from == 0 || s->moved_from == from));
    int first = from / KV_BLOCK, end = first + n / KV_BLOCK;
    kv_trim(p, s);
    if (kv_available(p) < n_shared(p, s, end))
        return false;
    for (int i = s->n_block - 1; i >= end; i--)
        own_block(p, s, i);
    for (int i = end - 1; i >= first; i--)
        block_unref(p, s->blocks[i]);
    memmove(s->blocks + first, s->blocks + end, (size_t)(s->n_block - end) * sizeof *s->blocks);
    memmove(s->tokens + from, s->tokens + from + n,
            (size_t)(s->n_tok - from - n) * sizeof *s->tokens);
    s->n_block -= end - first;
    s->n_tok -= n;
    s->moved_from = s->n_tok > from ? from : 0;
    return true;
}

void kv_trim(struct kv_pool *p, struct kv_seq *s) {
    drop_blocks(p, s, kv_blocks(s->n_tok));
}

void kv_fork(struct kv_pool *p, struct kv_seq *dst, const struct kv_seq *src) {
    assert(dst->n_tok == 0 && dst->n_block == 0);
    int n = kv_blocks(src->n_tok);
    for (int i = 0; i < n; i++) {
        block_ref(p, src->blocks[i]);
        push_block(dst, src->blocks[i]);
    }
    push_tokens(dst, src->tokens, src->n_tok);
    dst->kind = src->kind;
    dst->moved_from = src->moved_from;
    dst->hidden = src->hidden;
}

/* ---- for tests ---- */

/* Each published block is in the table, once, and what it continues is there, too. */
static bool table_consistent(const struct kv_pool *p) {
    int n = p->n_block + p->store.n_slot, published = 0, chained = 0;
    for (uint32_t i = 0; i < p->n_bucket; i++)
        for (int b = p->buckets[i]; b != NONE; b = p->blocks[b].chain) {
            if (!p->blocks[b].serial || chained++ > n)
                return false;
        }
    for (int b = 0; b < n; b++) {
        if (!p->blocks[b].serial)
            continue;
        published++;
        if (find(p, p->blocks[b].parent, p->blocks[b].tokens) != b)
            return false;
    }
    return published == chained;
}

/* Every block of a list can be reached: the one before it is published and, when on the same
 * list, younger; of a block in the pool it is there, too. */
static bool list_consistent(const struct kv_pool *p, const struct lru *l, int from, int end) {
    int n = 0;
    for (int b = l->oldest; b != NONE; b = p->blocks[b].next, n++) {
        const struct block *k = &p->blocks[b];
        if (n > end - from || b < from || b >= end || k->ref || !k->serial)
            return false;
        bool parent_ok = k->parent < FIRST_SERIAL;
        for (int y = k->next; y != NONE && !parent_ok; y = p->blocks[y].next)
            parent_ok = p->blocks[y].serial == k->parent;
        for (int y = 0; y < p->n_block && !parent_ok; y++)
            parent_ok =
                p->blocks[y].serial == k->parent && (p->blocks[y].ref > 0 || in_store(p, b));
        if (!parent_ok)
            return false;
    }
    return n == l->n;
}

static bool store_consistent(const struct kv_pool *p) {
    int n_free = 0;
    for (int b = p->store.free_head; b != NONE; b = p->blocks[b].next, n_free++)
        if (n_free > p->store.n_slot || !in_store(p, b) || p->blocks[b].serial)
            return false;
    return n_free == p->store.n_free && n_free + p->store.used.n == p->store.n_slot &&
           list_consistent(p, &p->store.used, p->n_block, p->n_block + p->store.n_slot);
}

bool kv_consistent(const struct kv_pool *p, const struct kv_seq *const *seqs, int n) {
    int *ref = xcalloc((size_t)p->n_block, sizeof *ref);
    int held = 0;
    bool ok = table_consistent(p) && list_consistent(p, &p->cached, 0, p->n_block) &&
              store_consistent(p);
    for (int i = 0; i < n; i++) {
        ok = ok && seqs[i]->n_block >= kv_blocks(seqs[i]->n_tok);
        for (int j = seqs[i]->moved_from / KV_BLOCK; seqs[i]->moved_from && ok; j++) {
            if (j == kv_blocks(seqs[i]->n_tok))
                break;
            ok = p->blocks[seqs[i]->blocks[j]].serial == 0;
        }
        for (int j = 0; j < seqs[i]->n_block; j++)
            ref[seqs[i]->blocks[j]]++;
    }
    for (int b = 0; b < p->n_block; b++) {
        ok = ok && ref[b] == p->blocks[b].ref;
        held += ref[b] > 0;
    }
    free(ref);
    return ok && held + p->n_free + p->cached.n == p->n_block;
}
