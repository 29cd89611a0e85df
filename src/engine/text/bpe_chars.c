/*
 * bpe_chars.c - BPE whose merges are given as ids, and whose symbols may be characters (Llama
 * 2 and Gemma as Hugging Face has them), see tokenizer.h.
 *
 * A character that is no token becomes the tokens of its bytes, the unknown token or nothing;
 * runs of the unknown are one with fuse_unk. All of that happens before merging, and in the
 * library's order: a pending unknown is written when the next known character comes, behind
 * bytes that were written between.
 *
 * Where no merge gives a text with U+2581 behind another character, nothing is ever joined
 * over such a border, so a text without words can be cut there and cached (see spm.c).
 */
#include "base/utf8.h"
#include "engine/text/tokenizer.h"
#include <stdio.h>
#include <stdlib.h>

static struct bpe_slot *pair_slot(struct text_model *t, int32_t a, int32_t b) {
    uint64_t h = hash_mix((uint64_t)(uint32_t)a << 32 | (uint32_t)b, t->pair_seed);
    for (size_t i = h & t->pair_mask;; i = (i + 1) & t->pair_mask) {
        struct bpe_slot *s = &t->pair[i];
        if (s->a < 0 || (s->a == a && s->b == b))
            return s;
    }
}

/* A pair that is listed twice has its last rank, as in the library. */
static void build_pairs(struct text_model *t, const struct vocab_data *v) {
    size_t size = 16, n = v->n_merge_ids;
    while (size < 2 * n)
        size *= 2;
    t->pair = xreallocarray(NULL, size, sizeof *t->pair);
    memset(t->pair, 0xff, size * sizeof *t->pair);
    t->pair_mask = size - 1;
    t->pair_seed = tokmap_seed();
    t->merged = xcalloc(n, sizeof *t->merged);
    for (size_t i = 0; i < n; i++) {
        const uint32_t *m = v->merge_ids + 3 * i;
        *pair_slot(t, (int32_t)m[0], (int32_t)m[1]) =
            (struct bpe_slot){(int32_t)m[0], (int32_t)m[1], (uint32_t)i};
        t->merged[i] = (int32_t)m[2];
    }
}

/* Tokens of single characters and bytes. */
static void build_symbols(struct text_model *t) {
    for (int c = 0; c < 128; c++) {
        char s = (char)c;
        t->char_id[c] = tokmap_get(&t->map, &s, 1);
    }
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        t->byte_id[b] = tokmap_get(&t->map, name, 6);
    }
}

static bool may_cut(const struct text_model *t, const struct vocab_data *v) {
    if (t->whole_words || tokmap_get(&t->map, "\xe2\x96\x81", 3) < 0)
        return false;
    for (uint32_t i = 0; i < v->n_merge_ids; i++) {
        uint32_t id = v->merge_ids[3 * (size_t)i + 2];
        if (spm_inner_blank(t->sp_bytes + t->sp_off[id], t->sp_off[id + 1] - t->sp_off[id]))
            return false;
    }
    return true;
}

enum status bpe_ids_build(struct text_model *t, const struct vocab_data *v, bool bytes,
                          struct err *err) {
    build_pairs(t, v);
    if (bytes)
        return ST_OK;
    t->kind = TEXT_BPE_CHARS;
    build_symbols(t);
    t->sp_words = may_cut(t, v);
    (void)err;
    return ST_OK;
}

static int32_t char_token(const struct text_model *t, const char *s, size_t n) {
    return n == 1 ? t->char_id[(unsigned char)*s] : tokmap_get(&t->map, s, n);
}

struct symbols {
    struct merge_work *w;
    uint32_t n;
    int pending; /* unknown tokens to be written: 0 or 1 */
};

static void add_symbol(struct symbols *y, int32_t id) {
    y->w->sym[y->n] = (struct merge_sym){.id = id, .prev = y->n - 1, .next = y->n + 1};
    y->n++;
}

static void unknown_char(const struct text_model *t, struct symbols *y, const char *s,
                         size_t n) {
    bool all = t->byte_fallback;
    for (size_t i = 0; i < n && all; i++)
        all = t->byte_id[(unsigned char)s[i]] >= 0;
    for (size_t i = 0; i < n && all; i++)
        add_symbol(y, t->byte_id[(unsigned char)s[i]]);
    if (all || t->unk < 0)
        return;
    if (y->pending && !t->fuse_unk)
        add_symbol(y, t->unk);
    y->pending = 1;
}

static bool chars_pair(const void *ctx, const struct merge_work *w, uint32_t l, uint32_t r,
                       uint32_t *rank, int32_t *into) {
    const struct text_model *t = ctx;
    uint64_t key = (uint64_t)(uint32_t)w->sym[l].id << 32 | (uint32_t)w->sym[r].id;
    for (size_t i = hash_mix(key, t->pair_seed) & t->pair_mask;; i = (i + 1) & t->pair_mask) {
        const struct bpe_slot *s = &t->pair[i];
        if (s->a < 0)
            return false;
        if (s->a == w->sym[l].id && s->b == w->sym[r].id) {
            *rank = s->rank;
            *into = t->merged[s->rank];
            return true;
        }
    }
}

void bpe_chars_word(const struct text_model *t, struct merge_work *w, const char *word,
                    size_t len, struct tok_list *out) {
    int32_t whole = t->whole_words ? tokmap_get(&t->map, word, len) : -1;
    if (whole >= 0) {
        tok_list_add(out, whole);
        return;
    }
    merge_reserve(w, len + 1);
    struct symbols y = {.w = w};
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        size_t n = (unsigned char)word[i] < 0x80 ? 1 : utf8_decode(word + i, len - i, &cp);
        int32_t id = char_token(t, word + i, n);
        if (id < 0) {
            unknown_char(t, &y, word + i, n);
        } else {
            if (y.pending)
                add_symbol(&y, t->unk);
            y.pending = 0;
            add_symbol(&y, id);
        }
        i += n;
    }
    if (y.pending)
        add_symbol(&y, t->unk);
    if (y.n > 1)
        merge_run(w, y.n, chars_pair, t);
    for (uint32_t i = 0; y.n > 0 && i != y.n; i = w->sym[i].next)
        tok_list_add(out, w->sym[i].id);
}
