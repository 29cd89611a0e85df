/*
 * test_kv.c - the KV pool: every claim is held with contents, not only with numbers. The
 * "memory" of the pool here is an array of tokens; a block copy copies them, a write stores the
 * token, and a sequence is right when reading through its table gives its own tokens in order.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/run/graph.h"
#include "engine/run/kv.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_BLOCK = 64, MAX_SLOT = 1024 };

static int32_t memory[MAX_BLOCK][KV_BLOCK];
static int n_copied;

/* The store's memory: max_slot slots, of which has_slot are there. */
static struct {
    int32_t memory[MAX_SLOT][KV_BLOCK];
    int has_slot, max_slot, part; /* slots that it grows by */
    int n_out, n_in, n_grow;
} store;

static void copy(void *user, int dst, int src, int n_tok) {
    (void)user;
    memcpy(memory[dst], memory[src], (size_t)n_tok * sizeof(int32_t));
    for (int i = n_tok; i < KV_BLOCK; i++)
        memory[dst][i] = -1;
    n_copied++;
}

static struct kv_pool *pool_new(int n_block) {
    memset(memory, -1, sizeof memory);
    n_copied = 0;
    return kv_pool_new(n_block, copy, NULL);
}

static int grow(void *user) {
    (void)user;
    int left = store.max_slot - store.has_slot, n = left < store.part ? left : store.part;
    store.has_slot += n;
    store.n_grow++;
    return n;
}

static void out(void *user, int slot, int block) {
    (void)user;
    assert_true(slot >= 0 && slot < store.has_slot);
    memcpy(store.memory[slot], memory[block], sizeof memory[block]);
    store.n_out++;
}

static void in(void *user, int block, int slot) {
    (void)user;
    assert_true(slot >= 0 && slot < store.has_slot);
    memcpy(memory[block], store.memory[slot], sizeof memory[block]);
    memset(store.memory[slot], -1, sizeof store.memory[slot]); /* is not there any more */
    store.n_in++;
}

static struct kv_pool *pool_with_store(int n_block, int n_slot) {
    struct kv_pool *p = pool_new(n_block);
    assert_true(n_slot <= MAX_SLOT);
    memset(&store, 0, sizeof store);
    memset(store.memory, -1, sizeof store.memory);
    store.max_slot = n_slot;
    store.part = 3;
    kv_set_store(p, &(struct kv_store){.max_slot = n_slot, .grow = grow, .out = out, .in = in});
    return p;
}

static void assert_reads_back(const struct kv_seq *s) {
    for (int i = 0; i < s->n_tok; i++)
        assert_int_equal(memory[s->blocks[i / KV_BLOCK]][i % KV_BLOCK], s->tokens[i]);
}

static bool write_more(struct kv_pool *p, struct kv_seq *s, const int32_t *tokens, int n) {
    if (!kv_reserve(p, s, n))
        return false;
    for (int i = 0; i < n; i++) {
        int at = s->n_tok + i;
        memory[s->blocks[at / KV_BLOCK]][at % KV_BLOCK] = tokens[i];
    }
    kv_commit(p, s, tokens, n);
    assert_reads_back(s);
    return true;
}

/* Matches and computes the whole prompt; returns what was kept or brought back. */
static int prompt(struct kv_pool *p, struct kv_seq *s, const int32_t *tokens, int n) {
    kv_match(p, s, tokens, n);
    assert_reads_back(s);
    kv_bring(p, s, tokens, n, n);
    assert_reads_back(s);
    int kept = s->n_tok;
    assert_true(write_more(p, s, tokens + kept, n - kept));
    return kept;
}

static void ramp(int32_t *tokens, int n, int start) {
    for (int i = 0; i < n; i++)
        tokens[i] = start + i;
}

static void kv_second_turn_keeps_what_was_computed(void **state) {
    (void)state;
    struct kv_pool *p = pool_new(16);
    struct kv_seq s = {0};
    int32_t t[100];
    ramp(t, 100, 0);
    assert_int_equal(prompt(p, &s, t, 37), 0);
    assert_int_equal(prompt(p, &s, t, 60), 37);
    /* the very same prompt: only its last token is computed again */
    assert_int_equal(prompt(p, &s, t, 60), 59);
    kv_seq_release(p, &s);
    kv_pool_free(p);
}

static void kv_equal_prefixes_share_blocks(void **state) {
    (void)state;
    struct kv_pool *p = pool_new(16);
    struct kv_seq a = {0}, b = {0};
    int32_t t[60];
    ramp(t, 60, 0);
    prompt(p, &a, t, 50);
    assert_int_equal(kv_available(p), 16 - 4);
    t[49] = 999;
    assert_int_equal(prompt(p, &b, t, 50), 48);
    assert_int_equal(kv_available(p), 16 - 5);
    for (int i = 0; i < 3; i++)
        assert_int_equal(a.blocks[i], b.blocks[i]);
    assert_int_not_equal(a.blocks[3], b.blocks[3]);
    kv_seq_release(p, &a);
    assert_reads_back(&b);
    kv_seq_release(p, &b);
    kv_pool_free(p);
}

/* What a block holds depends on all that came before it, so equal tokens alone are not enough.
 */
static void kv_same_tokens_after_another_history_are_not_shared(void **state) {
    (void)state;
    struct kv_pool *p = pool_new(16);
    struct kv_seq a = {0}, b = {0}, c = {0};
    int32_t t[33], u[33];
    ramp(t, 33, 0);
    memcpy(u, t, sizeof u);
    u[3] = 999; /* the second blocks are equal */
    prompt(p, &a, t, 33);
    assert_int_equal(prompt(p, &b, u, 33), 0);
    assert_int_not_equal(a.blocks[1], b.blocks[1]);
    assert_int_equal(prompt(p, &c, t + 16, 17),
                     0); /* and so is this one, at another position */
    kv_seq_release(p, &a);
    kv_seq_release(p, &b);
    kv_seq_release(p, &c);
    kv_pool_free(p);
}

static void kv_twins_computed_at_once_become_one(void **state) {
    (void)state;
    struct kv_pool *p = pool_new(16);
    struct kv_seq a = {0}, b = {0};
    int32_t t[32];
    ramp(t, 32, 0);
    assert_int_equal(kv_match(p, &a, t, 32), 0);
    assert_int_equal(kv_match(p, &b, t, 32), 0);
    assert_true(write_more(p, &a, t, 32));
    assert_true(write_more(p, &b, t, 32));
    assert_int_equal(a.blocks[0], b.blocks[0]);
    assert_int_equal(a.blocks[1], b.blocks[1]);
    assert_int_equal(kv_available(p), 14);
    kv_seq_release(p, &a);
    kv_seq_release(p, &b);
    kv_pool_free(p);
}

static void kv_released_blocks_are_found_again(void **state) {
    (void)state;
    struct kv_pool *p = pool_new(16);
    struct kv_seq s = {0};
    int32_t t[60];
    ramp(t, 60, 0);
    prompt(p, &s, t, 50);
    kv_seq_release(p, &s);
    assert_int_equal(kv_n_cached(p), 3);
    assert_int_equal(kv_n_free(p), 13);
    assert_int_equal(prompt(p, &s, t, 60), 48);
    kv_seq_release(p, &s);
    kv_pool_free(p);
}

static void kv_shared_prefix_survives_eviction(void **state) {
    (void)state;
    struct kv_pool *p = pool_new(8);
    struct kv_seq a = {0}, b = {0}, c = {0};
    int32_t t[64], u[64];
    ramp(t, 64, 0);
    prompt(p, &a, t, 64); /* 4 blocks */
    ramp(u, 64, 500);
    memcpy(u, t, 32 * sizeof *t);
    assert_int_equal(prompt(p, &b, u, 48), 32); /* the first 2 shared, 1 own */
    kv_seq_release(p, &a);                      /* 2 cached, the prefix is still held by b */
    assert_int_equal(kv_n_cached(p), 2);
    ramp(u, 64, 900);
    assert_int_equal(prompt(p, &c, u, 64),
                     0); /* 3 free ones and 1 evicted: the last one of a */
    assert_int_equal(kv_n_cached(p), 1);
    assert_reads_back(&b);
    kv_seq_release(p, &c);
    assert_int_equal(prompt(p, &a, t, 64),
                     48); /* b's prefix, and the block that was not evicted */
    kv_seq_release(p, &a);
    kv_seq_release(p, &b);
    kv_pool_free(p);
}

static void kv_eviction_takes_the_oldest_and_the_tail_first(void **state) {
    (void)state;
    struct kv_pool *p = pool_new(6);
    struct kv_seq s = {0};
    int32_t old[48], young[48], other[16];
    ramp(old, 48, 0);
    ramp(young, 48, 100);
    ramp(other, 16, 200);
    prompt(p, &s, old, 48);
    kv_seq_clear(p, &s);
    prompt(p, &s, young, 48);
    kv_seq_clear(p, &s);
    prompt(p, &s, other, 16);
    kv_seq_clear(p, &s);
    assert_int_equal(kv_match(p, &s, young, 48), 47);
    kv_seq_clear(p, &s);
    assert_int_equal(kv_match(p, &s, old, 48), 32);
    kv_seq_release(p, &s);
    kv_pool_free(p);
}

static void kv_fork_shares_all_and_copies_the_last_partial_block_on_write(void **state) {
    (void)state;
    struct kv_pool *p = pool_new(16);
    struct kv_seq a = {0}, b = {0};
    int32_t t[40], x[2] = {1000, 1001}, y[2] = {2000, 2001};
    ramp(t, 40, 0);
    prompt(p, &a, t, 40);
    kv_fork(p, &b, &a);
    assert_int_equal(kv_available(p), 13);
    assert_int_equal(n_copied, 0);
    assert_true(write_more(p, &b, x, 2));
    assert_int_equal(n_copied, 1);
    assert_int_equal(kv_available(p), 12);
    assert_true(write_more(p, &a, y, 2)); /* alone with its block again: no copy */
    assert_int_equal(n_copied, 1);
    assert_reads_back(&a);
    assert_reads_back(&b);
    assert_int_equal(a.blocks[1], b.blocks[1]);
    kv_seq_release(p, &a);
    kv_seq_release(p, &b);
    kv_pool_free(p);
}

static void kv_divergence_inside_a_shared_block_copies_before_write(void **state) {
    (void)state;
    struct kv_pool *p = pool_new(16);
    struct kv_seq a = {0}, b = {0};
    int32_t t[64];
    ramp(t, 64, 0);
    prompt(p, &a, t, 64);
    kv_fork(p, &b, &a);
    t[40] = 777;
    assert_int_equal(prompt(p, &b, t, 64), 40);
    assert_int_equal(n_copied, 1);
    assert_reads_back(&a);
    assert_int_equal(a.tokens[40], 40);
    assert_int_equal(b.tokens[40], 777);
    kv_seq_release(p, &a);
    kv_seq_release(p, &b);
    kv_pool_free(p);
}

static void kv_the_other_branch_of_one_session_stays_in_the_cache(void **state) {
    (void)state;
    struct kv_pool *p = pool_new(16);
    struct kv_seq s = {0};
    int32_t t[80], u[80];
    ramp(t, 80, 0);
    ramp(u, 80, 0);
    u[20] = 777;
    prompt(p, &s, t, 80);
    assert_int_equal(prompt(p, &s, u, 80), 20);
    assert_int_equal(prompt(p, &s, t, 80), 79); /* back: nothing of the old branch was lost */
    kv_seq_release(p, &s);
    kv_pool_free(p);
}

static void kv_one_sequence_may_fill_the_pool_and_rewrite_it(void **state) {
    (void)state;
    struct kv_pool *p = pool_new(4);
    struct kv_seq s = {0};
    int32_t t[64];
    ramp(t, 64, 0);
    prompt(p, &s, t, 64);
    assert_int_equal(kv_available(p), 0);
    assert_int_equal(prompt(p, &s, t, 64), 63); /* no block for a copy: taken back in place */
    assert_int_equal(n_copied, 0);
    t[60] = 777;
    assert_int_equal(prompt(p, &s, t, 64), 60);
    kv_seq_release(p, &s);
    kv_pool_free(p);
}

static void kv_exhaustion_is_reported_and_leaves_all_sound(void **state) {
    (void)state;
    struct kv_pool *p = pool_new(4);
    struct kv_seq a = {0}, b = {0};
    const struct kv_seq *all[2] = {&a, &b};
    int32_t t[64], u[64];
    ramp(t, 64, 0);
    ramp(u, 64, 100);
    prompt(p, &a, t, 40);
    assert_int_equal(kv_match(p, &b, u, 30), 0);
    assert_int_equal(kv_need(&b, 30), 2);
    assert_false(kv_reserve(p, &b, 30));
    assert_true(kv_consistent(p, all, 2));
    kv_trim(p, &b);
    assert_int_equal(kv_available(p), 1);
    kv_seq_clear(p, &a);
    assert_true(write_more(p, &b, u, 30));
    kv_seq_release(p, &a);
    kv_seq_release(p, &b);
    kv_pool_free(p);
}

static void kv_hidden_sequences_neither_find_nor_publish(void **state) {
    (void)state;
    struct kv_pool *p = pool_new(16);
    struct kv_seq a = {0}, h = {.hidden = true};
    int32_t t[48];
    ramp(t, 48, 0);
    assert_int_equal(prompt(p, &h, t, 48), 0);
    assert_int_equal(prompt(p, &a, t, 48), 0);
    kv_seq_release(p, &h);
    assert_int_equal(kv_n_cached(p), 0);
    kv_seq_release(p, &a);
    kv_pool_free(p);
}

static void kv_of_different_kinds_is_not_shared(void **state) {
    (void)state;
    struct kv_pool *p = pool_new(16);
    struct kv_seq a = {0}, b = {0}, c = {0};
    int32_t t[48];
    ramp(t, 48, 0);
    kv_set_kind(p, &b, 1);
    assert_int_equal(prompt(p, &a, t, 40), 0);
    assert_int_equal(prompt(p, &b, t, 40), 0);
    kv_fork(p, &c, &b);
    assert_int_equal(c.kind, 1);
    assert_int_equal(prompt(p, &c, t, 48), 40);
    kv_set_kind(p, &b, 1); /* nothing changes */
    assert_int_equal(b.n_tok, 40);
    kv_set_kind(p, &b, 0);
    assert_int_equal(b.n_tok, 0);
    assert_int_equal(prompt(p, &b, t, 40), 32); /* the blocks of a */
    assert_int_equal(b.blocks[0], a.blocks[0]);
    kv_seq_release(p, &a);
    kv_seq_release(p, &b);
    kv_seq_release(p, &c);
    const struct kv_seq *none[1];
    assert_true(kv_consistent(p, none, 0));
    kv_pool_free(p);
}

/* 100 tokens without those from 16 to 47. */
static void without_middle(int32_t *t) {
    ramp(t, 16, 0);
    ramp(t + 16, 52, 48);
}

static void kv_shift_moves_up_what_lies_behind(void **state) {
    (void)state;
    struct kv_pool *p = pool_new(16);
    struct kv_seq a = {0}, f = {0}, b = {0};
    const struct kv_seq *all[3] = {&a, &f, &b};
    int32_t t[120], u[68];
    ramp(t, 120, 0);
    without_middle(u);
    prompt(p, &a, t, 100);
    kv_fork(p, &f, &a);
    assert_int_equal(kv_shift_need(p, &a, 16, 32), 4);
    assert_true(kv_shift(p, &a, 16, 32));
    assert_int_equal(a.n_tok, 68);
    assert_int_equal(a.n_block, 5);
    assert_memory_equal(a.tokens, u, sizeof u);
    assert_reads_back(&a);
    assert_int_equal(n_copied, 4);
    for (int i = 1; i < 5; i++) /* its own */
        for (int j = 0; j < f.n_block; j++)
            assert_int_not_equal(a.blocks[i], f.blocks[j]);
    assert_reads_back(&f);
    assert_int_equal(f.n_tok, 100);
    assert_true(kv_consistent(p, all, 3));
    /* once more: nothing is shared, nothing is copied */
    assert_true(write_more(p, &a, t, 30));
    assert_int_equal(kv_shift_need(p, &a, 16, 16), 0);
    assert_true(kv_shift(p, &a, 16, 16));
    assert_int_equal(n_copied, 4);
    assert_int_equal(a.n_tok, 82);
    assert_int_equal(a.tokens[16], 64);
    assert_true(kv_consistent(p, all, 3));
    kv_seq_release(p, &a);
    kv_seq_release(p, &f);
    assert_int_equal(prompt(p, &b, t, 100), 96); /* the plain ones are all there */
    kv_seq_release(p, &b);
    kv_pool_free(p);
}

static void kv_moved_is_neither_published_nor_found(void **state) {
    (void)state;
    struct kv_pool *p = pool_new(32);
    struct kv_seq a = {0}, b = {0}, f = {0};
    int32_t t[100], u[100];
    ramp(t, 100, 0);
    without_middle(u);
    ramp(u + 68, 32, 200);
    prompt(p, &a, t, 100);
    assert_true(kv_shift(p, &a, 16, 32));
    assert_int_equal(kv_match(p, &a, u, 100), 68); /* it goes on itself */
    assert_true(write_more(p, &a, u + 68, 32));
    assert_int_equal(prompt(p, &b, u, 100), 16); /* others have what lies before */
    assert_int_not_equal(a.blocks[2], b.blocks[2]);
    kv_fork(p, &f, &a);
    assert_int_equal(f.moved_from, 16);
    assert_int_equal(kv_match(p, &f, u, 90), 89);
    assert_int_not_equal(f.blocks[2], b.blocks[2]);
    /* cut to what lies before, it is like any other */
    kv_cut(p, &f, 16);
    assert_int_equal(f.moved_from, 0);
    assert_int_equal(kv_match(p, &f, u, 100), 96);
    assert_int_equal(f.blocks[2], b.blocks[2]);
    u[20] = 7;
    assert_int_equal(kv_match(p, &a, u, 100), 20); /* in the first block that moved */
    assert_int_equal(a.moved_from, 16);
    u[16] = 7;
    assert_int_equal(kv_match(p, &a, u, 100), 16);
    assert_int_equal(a.moved_from, 0);
    kv_seq_release(p, &a);
    kv_seq_release(p, &b);
    kv_seq_release(p, &f);
    kv_pool_free(p);
}

static void kv_shift_needs_room_for_shared_blocks_only(void **state) {
    (void)state;
    struct kv_pool *p = pool_new(7);
    struct kv_seq a = {0}, f = {0};
    const struct kv_seq *all[2] = {&a, &f};
    int32_t t[100];
    ramp(t, 100, 0);
    prompt(p, &a, t, 100);
    kv_fork(p, &f, &a);
    assert_false(kv_shift(p, &a, 16, 32));
    assert_int_equal(a.n_tok, 100);
    assert_int_equal(a.moved_from, 0);
    assert_true(kv_consistent(p, all, 2));
    kv_seq_clear(p, &f);
    assert_int_equal(kv_available(p), 0);
    assert_true(kv_shift(p, &a, 16, 32)); /* published, but nobody else's */
    assert_int_equal(n_copied, 0);
    assert_reads_back(&a);
    assert_true(kv_consistent(p, all, 2));
    assert_int_equal(kv_available(p), 2);
    kv_seq_release(p, &a);
    kv_seq_release(p, &f);
    kv_pool_free(p);
}

/* ---- the store ---- */

static void kv_what_left_the_cache_comes_back(void **state) {
    (void)state;
    struct kv_pool *p = pool_with_store(5, 20);
    struct kv_seq a = {0}, b = {0};
    const struct kv_seq *all[2] = {&a, &b};
    int32_t t[80], u[80];
    ramp(t, 80, 0);
    ramp(u, 80, 500);
    prompt(p, &a, t, 80);
    assert_int_equal(store.n_grow, 0); /* nothing is taken before it is needed */
    kv_seq_clear(p, &a);
    assert_int_equal(prompt(p, &b, u, 70), 0); /* all five blocks */
    assert_int_equal(kv_n_stored(p), 5);
    assert_int_equal(store.has_slot, 6);
    kv_seq_clear(p, &b);
    for (int turn = 0; turn < 10; turn++) {
        assert_int_equal(prompt(p, &a, t, 80), 79);
        assert_true(kv_consistent(p, all, 2));
        kv_seq_clear(p, &a);
        assert_int_equal(prompt(p, &b, u, 70), 64);
        assert_true(kv_consistent(p, all, 2));
        kv_seq_clear(p, &b);
    }
    assert_true(store.has_slot <= 9); /* both conversations are 9 blocks */
    kv_seq_release(p, &a);
    kv_seq_release(p, &b);
    kv_pool_free(p);
}

static void kv_bring_takes_what_it_may_and_what_the_pool_has(void **state) {
    (void)state;
    struct kv_pool *p = pool_with_store(6, 20);
    struct kv_seq a = {0}, b = {0};
    int32_t t[96], u[96];
    ramp(t, 96, 0);
    ramp(u, 96, 500);
    prompt(p, &a, t, 90);
    kv_seq_clear(p, &a);
    prompt(p, &b, u, 90);
    kv_seq_clear(p, &b);
    assert_int_equal(kv_match(p, &a, t, 90), 0);
    assert_true(kv_bring(p, &a, t, 90, 2));
    assert_int_equal(a.n_tok, 32);
    assert_true(kv_bring(p, &a, t, 90, 2));
    assert_false(kv_bring(p, &a, t, 90, 2));
    assert_int_equal(a.n_tok, 80);
    assert_reads_back(&a);
    kv_seq_clear(p, &a);
    prompt(p, &b, u, 64); /* 4 of the 6 */
    assert_int_equal(kv_match(p, &a, t, 90), 16);
    assert_false(kv_bring(p, &a, t, 90, 5));
    assert_int_equal(a.n_tok, 32);
    assert_int_equal(kv_available(p), 0);
    assert_reads_back(&a);
    const struct kv_seq *all[2] = {&a, &b};
    assert_true(kv_consistent(p, all, 2));
    kv_seq_release(p, &a);
    kv_seq_release(p, &b);
    kv_pool_free(p);
}

/* The last prompt token is left to compute, and a block that is brought takes the place of a
 * part of it that the sequence computed itself. */
static void kv_bring_goes_on_inside_a_block(void **state) {
    (void)state;
    struct kv_pool *p = pool_with_store(8, 20);
    struct kv_seq a = {0}, b = {0};
    const struct kv_seq *all[2] = {&a, &b};
    int32_t t[128];
    ramp(t, 128, 0);
    prompt(p, &a, t, 48);
    kv_seq_clear(p, &a);
    ramp(t, 128, 500);
    prompt(p, &a, t, 128); /* takes all */
    kv_seq_clear(p, &a);
    ramp(t, 48, 0);
    assert_int_equal(kv_match(p, &b, t, 20), 0);
    assert_true(write_more(p, &b, t, 20)); /* computed once more: block 0 leaves the store */
    assert_int_equal(kv_match(p, &b, t, 32), 20);
    kv_bring(p, &b, t, 32, 9);
    assert_int_equal(b.n_tok, 31);
    assert_int_equal(kv_match(p, &b, t, 32), 31);
    int before = store.n_in;
    kv_bring(p, &b, t, 32, 9); /* nothing to gain */
    assert_int_equal(store.n_in, before);
    assert_true(write_more(p, &b, t + 31, 1));
    assert_int_equal(kv_match(p, &b, t, 48), 32);
    kv_bring(p, &b, t, 48, 9);
    assert_int_equal(b.n_tok, 47);
    assert_reads_back(&b);
    assert_true(kv_consistent(p, all, 2));
    kv_seq_release(p, &a);
    kv_seq_release(p, &b);
    kv_pool_free(p);
}

static void kv_store_gives_up_the_oldest_and_the_tail_first(void **state) {
    (void)state;
    struct kv_pool *p = pool_with_store(4, 6);
    struct kv_seq s = {0};
    const struct kv_seq *all[1] = {&s};
    int32_t t[3][64];
    for (int i = 0; i < 3; i++) {
        ramp(t[i], 64, 100 * i);
        prompt(p, &s, t[i], 64);
        assert_true(kv_consistent(p, all, 1));
        kv_seq_clear(p, &s);
    }
    /* the pool has 2; of 0 and 1, 8 blocks, the store has 6: the last two of 0 are gone */
    assert_int_equal(kv_n_stored(p), 6);
    assert_int_equal(prompt(p, &s, t[0], 64), 32);
    kv_seq_clear(p, &s);
    assert_int_equal(prompt(p, &s, t[2], 64), 63);
    kv_seq_release(p, &s);
    kv_pool_free(p);
}

static void kv_branches_come_back_behind_their_prefix(void **state) {
    (void)state;
    struct kv_pool *p = pool_with_store(6, 40);
    struct kv_seq a = {0}, f = {0};
    const struct kv_seq *all[2] = {&a, &f};
    int32_t t[80], u[80], x[96];
    ramp(t, 80, 0);
    ramp(u, 80, 0);
    ramp(u + 40, 40, 500); /* another way from the third block on */
    ramp(x, 96, 900);
    prompt(p, &a, t, 40);
    kv_fork(p, &f, &a);
    prompt(p, &f, u, 80);
    kv_seq_clear(p, &f);
    prompt(p, &a, t, 80);
    kv_seq_clear(p, &a);
    prompt(p, &f, x, 96); /* all are out */
    kv_seq_clear(p, &f);
    assert_int_equal(prompt(p, &a, t, 80), 79);
    assert_true(kv_consistent(p, all, 2));
    kv_seq_clear(p, &a); /* the other branch stands behind blocks that are in the pool */
    assert_int_equal(prompt(p, &f, u, 80), 79);
    assert_true(kv_consistent(p, all, 2));
    kv_seq_release(p, &a);
    kv_seq_release(p, &f);
    kv_pool_free(p);
}

/* Who computes what the store has without asking it publishes under the same name. */
static void kv_computed_again_takes_the_stores_place(void **state) {
    (void)state;
    struct kv_pool *p = pool_with_store(5, 20);
    struct kv_seq a = {0}, b = {0};
    const struct kv_seq *all[2] = {&a, &b};
    int32_t t[80], u[80];
    ramp(t, 80, 0);
    ramp(u, 80, 500);
    prompt(p, &a, t, 80);
    kv_seq_clear(p, &a);
    prompt(p, &b, u, 80);
    kv_seq_clear(p, &b);
    assert_int_equal(kv_match(p, &a, t, 80), 0);
    assert_true(write_more(p, &a, t, 40));
    assert_int_equal(store.n_in, 0);
    assert_int_equal(kv_n_stored(p), 5 - 2 + 3);
    assert_true(kv_consistent(p, all, 2));
    kv_cut(p, &a, 32);
    kv_bring(p, &a, t, 80, 9); /* what lies behind is still found */
    assert_int_equal(a.n_tok, 79);
    assert_reads_back(&a);
    kv_seq_release(p, &a);
    kv_seq_release(p, &b);
    kv_pool_free(p);
}

static void kv_written_in_place_is_stored_before(void **state) {
    (void)state;
    struct kv_pool *p = pool_with_store(4, 8);
    struct kv_seq s = {0};
    const struct kv_seq *all[1] = {&s};
    int32_t t[64], u[64];
    ramp(t, 64, 0);
    ramp(u, 64, 0);
    ramp(u + 50, 14, 500);
    prompt(p, &s, t, 64);
    assert_int_equal(prompt(p, &s, u, 64), 50); /* the pool has no block for a copy */
    assert_int_equal(n_copied, 0);
    assert_int_equal(kv_n_stored(p), 1);
    assert_true(kv_consistent(p, all, 1));
    assert_int_equal(prompt(p, &s, t, 64), 63);
    assert_int_equal(prompt(p, &s, u, 64), 63);
    assert_true(kv_consistent(p, all, 1));
    kv_seq_release(p, &s);
    kv_pool_free(p);
}

static void kv_moved_and_hidden_are_not_stored(void **state) {
    (void)state;
    struct kv_pool *p = pool_with_store(6, 20);
    struct kv_seq a = {0}, h = {.hidden = true}, b = {0};
    const struct kv_seq *all[3] = {&a, &h, &b};
    int32_t t[96], u[96];
    ramp(t, 96, 0);
    ramp(u, 96, 0);
    ramp(u + 16, 48, 48); /* t without 16 .. 47 */
    prompt(p, &a, t, 96);
    assert_true(kv_shift(p, &a, 16, 32)); /* in place: the blocks were published */
    assert_true(kv_consistent(p, all, 3));
    assert_int_equal(kv_n_stored(p), 3);
    assert_int_equal(kv_match(p, &a, u, 64), 63);
    kv_bring(p, &a, t, 96, 9); /* with the others' tokens: it finds nothing */
    assert_int_equal(a.n_tok, 63);
    assert_reads_back(&a);
    kv_seq_clear(p, &a);
    assert_int_equal(prompt(p, &h, t, 96), 0);
    assert_true(kv_consistent(p, all, 3));
    kv_seq_clear(p, &h);
    assert_int_equal(prompt(p, &b, u, 64), 16); /* what moved is nowhere */
    kv_seq_clear(p, &b);
    assert_int_equal(prompt(p, &b, t, 96), 95); /* where it came from is */
    kv_seq_release(p, &a);
    kv_seq_release(p, &h);
    kv_seq_release(p, &b);
    kv_pool_free(p);
}

static void kv_store_tells_kinds_apart(void **state) {
    (void)state;
    struct kv_pool *p = pool_with_store(4, 20);
    struct kv_seq a = {0}, b = {.kind = 1};
    int32_t t[64];
    ramp(t, 64, 0);
    prompt(p, &a, t, 64);
    kv_seq_clear(p, &a);
    assert_int_equal(prompt(p, &b, t, 64), 0);
    kv_seq_clear(p, &b);
    assert_int_equal(kv_n_stored(p), 4);
    assert_int_equal(prompt(p, &a, t, 64), 63);
    kv_seq_clear(p, &a);
    assert_int_equal(prompt(p, &b, t, 64), 63);
    kv_seq_release(p, &a);
    kv_seq_release(p, &b);
    kv_pool_free(p);
}

static void kv_store_that_gets_no_memory_is_none(void **state) {
    (void)state;
    struct kv_pool *p = pool_with_store(4, 20);
    struct kv_seq s = {0};
    const struct kv_seq *all[1] = {&s};
    int32_t t[64], u[64];
    store.max_slot = 0;
    ramp(t, 64, 0);
    ramp(u, 64, 500);
    prompt(p, &s, t, 64);
    kv_seq_clear(p, &s);
    assert_int_equal(prompt(p, &s, u, 48), 0);
    assert_true(kv_consistent(p, all, 1));
    assert_int_equal(store.n_grow, 1); /* it is not asked for each block */
    kv_seq_clear(p, &s);
    assert_int_equal(prompt(p, &s, t, 64), 16);
    kv_seq_release(p, &s);
    kv_pool_free(p);
}

/* A store of one slot: what comes back leaves no other for the block that makes place. */
static void kv_store_of_one_slot(void **state) {
    (void)state;
    struct kv_pool *p = pool_with_store(2, 1);
    struct kv_seq s = {0};
    const struct kv_seq *all[1] = {&s};
    int32_t t[32], u[32];
    ramp(t, 32, 0);
    ramp(u, 32, 500);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(prompt(p, &s, t, 32), i ? 16 : 0);
        assert_true(kv_consistent(p, all, 1));
        kv_seq_clear(p, &s);
        assert_int_equal(prompt(p, &s, u, 32), i ? 16 : 0);
        kv_seq_clear(p, &s);
    }
    kv_seq_release(p, &s);
    kv_pool_free(p);
}

/* Prompts of a family of branching texts, one at a time, with a store that holds all: of each
 * comes back what the longest common beginning with any earlier one has in whole blocks. */
static void kv_store_with_room_forgets_nothing(void **state) {
    (void)state;
    enum { N = 400, LEN = 180, POOL = 12 };
    static int32_t past[N][LEN];
    static int len[N];
    struct kv_pool *p = pool_with_store(POOL, MAX_SLOT);
    struct kv_seq s = {0};
    const struct kv_seq *all[1] = {&s};
    uint32_t r = 4711;
    int brought = 0;
    for (int i = 0; i < N; i++) {
        r = r * 1664525u + 1013904223u;
        int n = 1 + (int)(r >> 7) % LEN, turn = (int)(r >> 16) % 8 * 20,
            branch = (int)(r >> 24) % 4;
        int expect = 0;
        for (int k = 0; k < n; k++)
            past[i][k] = k < turn ? k : k + 1000 * branch;
        len[i] = n;
        for (int j = 0; j < i; j++) {
            int same = kv_common(past[i], n, past[j], len[j]) / KV_BLOCK * KV_BLOCK;
            same = same < n ? same : n - 1;
            expect = same > expect ? same : expect;
        }
        kv_seq_clear(p, &s);
        int in_before = store.n_in;
        assert_int_equal(prompt(p, &s, past[i], n), expect);
        brought += store.n_in - in_before;
        assert_true(kv_consistent(p, all, 1));
    }
    assert_true(brought > N);
    kv_seq_release(p, &s);
    kv_pool_free(p);
}

/* Random life: prompts from a small family of branching texts, appends, forks, clears; contents
 * and counts hold always. */
static void random_life(struct kv_pool *p) {
    enum { N = 6 };
    struct kv_seq s[N] = {{0}};
    const struct kv_seq *all[N];
    uint32_t r = 12345;
    int refused = 0, kept = 0, shifted = 0;
    for (int i = 0; i < N; i++)
        all[i] = &s[i];
    for (int step = 0; step < 20000; step++) {
        r = r * 1664525u + 1013904223u;
        int i = (int)(r >> 8) % N, j = (int)(r >> 16) % N, what = (int)(r >> 24) % 8;
        int32_t t[200];
        if (what < 4) {
            int n = 1 + (int)(r >> 7) % 150, turn = (int)(r >> 11) % 100,
                branch = (int)(r >> 21) % 3;
            for (int k = 0; k < n; k++)
                t[k] = k < turn ? k : k + 1000 * branch;
            int had = kv_match(p, &s[i], t, n);
            kept += had;
            assert_reads_back(&s[i]);
            kv_bring(p, &s[i], t, n, (int)(r >> 5) % 8);
            assert_true(s[i].n_tok >= had && s[i].n_tok < n);
            had = s[i].n_tok;
            assert_memory_equal(s[i].tokens, t, (size_t)had * sizeof *t);
            refused += !write_more(p, &s[i], t + had, n - had);
        } else if (what < 6 && s[i].n_tok < 160) {
            ramp(t, 20, (int)(r >> 10) % 50);
            refused += !write_more(p, &s[i], t, 1 + (int)(r >> 12) % 20);
        } else if (what == 6 && i != j && (r & 64)) {
            int n = (1 + (int)(r >> 10) % 4) * KV_BLOCK;
            if (n + KV_BLOCK <= s[i].n_tok)
                shifted += kv_shift(p, &s[i], KV_BLOCK, n);
        } else if (what == 6 && i != j) {
            kv_seq_clear(p, &s[i]);
            kv_fork(p, &s[i], &s[j]);
        } else {
            kv_seq_clear(p, &s[i]);
        }
        for (int k = 0; k < N; k++)
            assert_reads_back(&s[k]);
        if (step % 16 == 0)
            assert_true(kv_consistent(p, all, N));
    }
    assert_true(refused > 100); /* the pool was too small often enough */
    assert_true(kept > 100000);
    assert_true(shifted > 300);
    for (int i = 0; i < N; i++)
        kv_seq_release(p, &s[i]);
    assert_int_equal(kv_available(p), 26);
    kv_pool_free(p);
}

static void kv_stays_sound_through_a_random_life(void **state) {
    (void)state;
    random_life(pool_new(26));
    static const int n_slot[] = {1, 7, 40, MAX_SLOT};
    for (int i = 0; i < 4; i++) {
        random_life(pool_with_store(26, n_slot[i]));
        assert_true(store.n_out > 1000 && store.n_in > 50);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kv_second_turn_keeps_what_was_computed),
        cmocka_unit_test(kv_equal_prefixes_share_blocks),
        cmocka_unit_test(kv_same_tokens_after_another_history_are_not_shared),
        cmocka_unit_test(kv_twins_computed_at_once_become_one),
        cmocka_unit_test(kv_released_blocks_are_found_again),
        cmocka_unit_test(kv_shared_prefix_survives_eviction),
        cmocka_unit_test(kv_eviction_takes_the_oldest_and_the_tail_first),
        cmocka_unit_test(kv_fork_shares_all_and_copies_the_last_partial_block_on_write),
        cmocka_unit_test(kv_divergence_inside_a_shared_block_copies_before_write),
        cmocka_unit_test(kv_the_other_branch_of_one_session_stays_in_the_cache),
        cmocka_unit_test(kv_one_sequence_may_fill_the_pool_and_rewrite_it),
        cmocka_unit_test(kv_exhaustion_is_reported_and_leaves_all_sound),
        cmocka_unit_test(kv_hidden_sequences_neither_find_nor_publish),
        cmocka_unit_test(kv_of_different_kinds_is_not_shared),
        cmocka_unit_test(kv_shift_moves_up_what_lies_behind),
        cmocka_unit_test(kv_moved_is_neither_published_nor_found),
        cmocka_unit_test(kv_shift_needs_room_for_shared_blocks_only),
        cmocka_unit_test(kv_what_left_the_cache_comes_back),
        cmocka_unit_test(kv_bring_takes_what_it_may_and_what_the_pool_has),
        cmocka_unit_test(kv_bring_goes_on_inside_a_block),
        cmocka_unit_test(kv_store_gives_up_the_oldest_and_the_tail_first),
        cmocka_unit_test(kv_branches_come_back_behind_their_prefix),
        cmocka_unit_test(kv_computed_again_takes_the_stores_place),
        cmocka_unit_test(kv_written_in_place_is_stored_before),
        cmocka_unit_test(kv_moved_and_hidden_are_not_stored),
        cmocka_unit_test(kv_store_tells_kinds_apart),
        cmocka_unit_test(kv_store_that_gets_no_memory_is_none),
        cmocka_unit_test(kv_store_of_one_slot),
        cmocka_unit_test(kv_store_with_room_forgets_nothing),
        cmocka_unit_test(kv_stays_sound_through_a_random_life),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
