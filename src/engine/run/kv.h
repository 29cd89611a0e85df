/*
 * kv.h - who owns which block of the KV pool.
 *
 * The pool has n_block blocks of KV_BLOCK tokens; their memory belongs to the graph, here are
 * only the numbers. A sequence is a list of tokens with a table of blocks that hold their keys
 * and values. A full block is published: found again through (the block before it, its 16
 * tokens), so equal prefixes are computed once and shared. A block is
 *
 *   free       nobody refers to it and nothing useful is in it
 *   cached     published, nobody refers to it; found again until the pool needs it (least
 * recently used first) referenced by one or more sequences
 *
 * Behind the pool there may be a store, in other memory (kv_set_store; swap.h has it in the
 * host's): what leaves the cache goes there, and comes back when a sequence continues with it
 * (kv_bring).
 *
 * A block that is published or shared is never written: who wants to write copies it first.
 *
 * A sequence has a kind (graph_kv_kind()): keys and values of the same tokens differ between
 * kinds, so that sequences of different kinds share nothing.
 *
 * When a sequence is too long, tokens in its middle can be left out (kv_shift). What lies
 * behind them knows of them and is not what the remaining tokens alone would give: it stays
 * with this sequence and its forks, and is neither published nor found.
 * Used by one thread.
 */
#ifndef LLMCHAT_ENGINE_RUN_KV_H
#define LLMCHAT_ENGINE_RUN_KV_H

#include <stdbool.h>
#include <stdint.h>

struct kv_pool;

/* Copies the first n_tok tokens of block src to block dst. */
typedef void kv_copy_fn(void *user, int dst, int src, int n_tok);

struct kv_pool *kv_pool_new(int n_block, kv_copy_fn *copy, void *user);

/* Where the store's memory is: in slots 0, 1, ... of a block each. */
struct kv_store {
    int max_slot;
    int (*grow)(void *user); /* adds slots behind those there are. How many; 0: there will be no
                                more */
    void (*out)(void *user, int slot, int block); /* copies a whole block to a slot, */
    void (*in)(void *user, int block, int slot);  /* and back */
    void *user;
};
/* Before the pool is used; *st is copied. */
void kv_set_store(struct kv_pool *p, const struct kv_store *st);
void kv_pool_free(struct kv_pool *p); /* NULL is allowed; every sequence was released before */
int kv_n_block(const struct kv_pool *p);
int kv_n_free(const struct kv_pool *p);
int kv_n_cached(const struct kv_pool *p);
int kv_n_stored(const struct kv_pool *p); /* blocks in the store */
/* Blocks that a sequence can get without taking one from another sequence: free and cached
 * ones. */
int kv_available(const struct kv_pool *p);

/* A timeline: {0} is an empty one. Open to readers; changed by the functions below only. */
struct kv_seq {
    int32_t *tokens; /* [n_tok] whose KV is in the blocks */
    int n_tok, cap_tok;
    int32_t *blocks; /* [n_block] at least ceil(n_tok / KV_BLOCK); more after kv_reserve() */
    int n_block, cap_block;
    int kind;       /* 0 or 1; changed by kv_set_kind() */
    int moved_from; /* > 0: tokens from here on moved up when others were left out, see
                       kv_shift() */
    bool
        hidden; /* set on an empty sequence: finds nothing and publishes nothing (evaluation) */
};

/* Tokens that a [n_a] and b [n_b] begin with alike. */
static inline int kv_common(const int32_t *a, int n_a, const int32_t *b, int n_b) {
    int n = n_a < n_b ? n_a : n_b, i = 0;
    while (i < n && a[i] == b[i])
        i++;
    return i;
}

/* Gives the blocks back: full ones stay in the cache, last ones first in the order of eviction,
 * so that no block leaves the cache before those that continue it. The sequence is empty after,
 * its storage stays. */
void kv_seq_clear(struct kv_pool *p, struct kv_seq *s);
/* As clear, and frees the storage. */
void kv_seq_release(struct kv_pool *p, struct kv_seq *s);

/* Empties s when it is of another kind. */
void kv_set_kind(struct kv_pool *p, struct kv_seq *s, int kind);

/* Prepares s to continue the prompt tokens [n_tok], n_tok >= 1: keeps the longest common prefix
 * with what it holds, goes on with published blocks that fit, and drops the rest. At least the
 * last prompt token is left to compute. Returns the tokens kept = s->n_tok. */
int kv_match(struct kv_pool *p, struct kv_seq *s, const int32_t *tokens, int n_tok);

/* After kv_match(): goes on with blocks that are in the store and fit, up to `most` of them, as
 * far as the pool has blocks for them. True when there are more. */
bool kv_bring(struct kv_pool *p, struct kv_seq *s, const int32_t *tokens, int n_tok, int most);

/* Blocks that kv_reserve() would take from the pool for n_more tokens, without the copy of a
 * last partial block. */
int kv_need(const struct kv_seq *s, int n_more);
/* Makes room for n_more tokens after n_tok in blocks that belong to s alone. False when the
 * pool has no block left: what was taken stays with s until a later reserve, match or clear. */
bool kv_reserve(struct kv_pool *p, struct kv_seq *s, int n_more);
/* Says that the KV of tokens [n] was written behind n_tok (reserved before); publishes the
 * blocks that became full. When an equal block is known already, s goes on with that one and
 * gives its own back. */
void kv_commit(struct kv_pool *p, struct kv_seq *s, const int32_t *tokens, int n);
/* Leaves out tokens from .. from + n - 1, whole blocks with KV behind the first one; those
 * behind them move up, to blocks that belong to s alone. Their keys still are those of the old
 * positions: the caller turns them. False when the pool does not have the kv_shift_need()
 * blocks that this copies for others' sake: nothing has changed. */
bool kv_shift(struct kv_pool *p, struct kv_seq *s, int from, int n);
int kv_shift_need(const struct kv_pool *p, const struct kv_seq *s, int from, int n);
/* Keeps the first n tokens at most. */
void kv_cut(struct kv_pool *p, struct kv_seq *s, int n);
/* Gives reserved blocks without tokens back. */
void kv_trim(struct kv_pool *p, struct kv_seq *s);

/* Makes the empty dst a second timeline with the same tokens; all blocks are shared. A last
 * partial block is copied by whoever writes to it first. */
void kv_fork(struct kv_pool *p, struct kv_seq *dst, const struct kv_seq *src);

/* Counts everything again and compares (for tests): every sequence of the pool in seqs [n]. */
bool kv_consistent(const struct kv_pool *p, const struct kv_seq *const *seqs, int n);

#endif
