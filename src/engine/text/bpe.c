/*
 * bpe.c - byte-level BPE (GPT-2 and what came after it): tables and the tokens of one word.
 *
 * Files spell the 256 bytes as printable characters (alphabet.h). Here token texts are turned
 * back into bytes once, so text is looked up as it is. The merges become a hash from
 * a pair of tokens to its rank (place in the list), which is all that merging asks for.
 *
 * A byte for which the vocabulary has no token is left out before merging, as in Hugging Face's
 * library (vocabularies that were trained on a sample lack the bytes that UTF-8 never has, and
 * a few control characters); where the model has a token for the unknown it is not used for
 * that, since the published tokenizers don't either.
 */
#include "engine/text/alphabet.h"
#include "engine/text/tokenizer.h"
#include <stdlib.h>

struct bpe_maker {
    struct text_model *t;
    uint8_t *spelt; /* [n_tok] 1: a token of ordinary text, spelt in the alphabet */
    int32_t last;   /* token of the merge before */
    struct buf tmp;
};

/* Decoded texts of all tokens and the map of those that text may become. */
static enum status bpe_tokens(struct bpe_maker *m, const struct vocab_data *v,
                              struct err *err) {
    struct text_model *t = m->t;
    struct buf bytes = {0};
    buf_reserve(&bytes, v->tokens.off[t->n_tok] + 1u);
    for (uint32_t i = 0; i < t->n_tok; i++) {
        size_t len;
        const char *s = vocab_string(&v->tokens, i, &len);
        int type = v->types ? v->types[i] : VOCAB_NORMAL;
        t->off[i] = (uint32_t)bytes.len;
        if (!(t->flags[i] & TOKEN_CONTROL) && type != VOCAB_USER_DEFINED)
            m->spelt[i] = len > 0 && alphabet_decode(s, len, &bytes);
        if (!m->spelt[i])
            buf_add(&bytes, s, len);
    }
    t->off[t->n_tok] = (uint32_t)bytes.len;
    t->bytes = buf_take(&bytes);
    tokmap_init(&t->map, t->n_tok, t->bytes, t->off);
    size_t n_bytes = 0;
    for (uint32_t i = 0; i < t->n_tok; i++) {
        if (!m->spelt[i])
            continue;
        unsigned char c = (unsigned char)t->bytes[t->off[i]];
        if (t->off[i + 1] - t->off[i] == 1 && t->byte_id[c] < 0) {
            t->byte_id[c] = (int32_t)i;
            n_bytes++;
        }
    }
    tokmap_add(&t->map, m->spelt, t->n_tok);
    if (n_bytes == 0)
        return err_set(err, ST_FORMAT,
                       "tokenizer.ggml.tokens: no token of a single byte among %u, a "
                       "byte-level vocabulary has up to 256",
                       t->n_tok);
    return ST_OK;
}

static struct bpe_slot *pair_find(const struct text_model *t, int32_t a, int32_t b) {
    uint64_t h = hash_mix((uint64_t)(uint32_t)a << 32 | (uint32_t)b, t->pair_seed);
    for (size_t i = h & t->pair_mask;; i = (i + 1) & t->pair_mask) {
        struct bpe_slot *s = &t->pair[i];
        if (s->a < 0 || (s->a == a && s->b == b))
            return s;
    }
}

/* The token of a text; single bytes and, for the result of a merge, the token behind that of
 * the merge before it (most vocabularies are written in that order) are found without a search.
 */
static int32_t bpe_token(const struct bpe_maker *m, const char *s, size_t len, int32_t guess) {
    const struct text_model *t = m->t;
    if (len == 1)
        return t->byte_id[(unsigned char)s[0]];
    if (guess > 0 && (uint32_t)guess < t->n_tok && m->spelt[guess] &&
        t->off[guess + 1] - t->off[guess] == len &&
        memcmp(t->bytes + t->off[guess], s, len) == 0)
        return guess;
    return tokmap_get(&t->map, s, len);
}

/* Merge number rank, the text "A B" with a blank between the two tokens. */
static enum status bpe_merge_add(struct bpe_maker *m, uint32_t rank, const char *s, size_t len,
                                 struct err *err) {
    struct text_model *t = m->t;
    struct buf *tmp = &m->tmp;
    const char *blank = len > 1 ? memchr(s + 1, ' ', len - 1) : NULL;
    if (!blank || blank + 1 == s + len)
        return err_set(err, ST_FORMAT,
                       "tokenizer.ggml.merges: entry %u is \"%.*s\", wanted two tokens with a "
                       "blank between",
                       rank, (int)(len < 60 ? len : 60), s);
    buf_clear(tmp);
    size_t len_a = (size_t)(blank - s);
    t->merged[rank] = -1;
    if (!alphabet_decode(s, len_a, tmp))
        return ST_OK;
    size_t cut = tmp->len;
    if (!alphabet_decode(blank + 1, len - len_a - 1, tmp))
        return ST_OK;
    int32_t a = bpe_token(m, tmp->p, cut, -1);
    int32_t b = bpe_token(m, tmp->p + cut, tmp->len - cut, -1);
    int32_t ab = bpe_token(m, tmp->p, tmp->len, m->last + 1);
    if (a < 0 || b < 0 || ab < 0) /* can never be applied: one of the three is no token */
        return ST_OK;
    struct bpe_slot *slot = pair_find(t, a, b);
    if (slot->a < 0)
        *slot = (struct bpe_slot){a, b, rank};
    t->merged[rank] = ab;
    m->last = ab;
    return ST_OK;
}

enum status bpe_build(struct text_model *t, const struct vocab_data *v, struct err *err) {
    const struct pretok_rule *rule;
    CHECK(pretok_rule(v->pre, &rule, err));
    CHECK(pretok_open(rule->stages, &t->pretok, err));
    t->whole_words = rule->whole_words;
    t->adds_bos = v->add_bos < 0 ? rule->bos : v->add_bos > 0;
    uint32_t n = v->merges.n;
    size_t size = 16;
    while (size < 2 * (size_t)n)
        size *= 2;
    t->pair = xreallocarray(NULL, size, sizeof *t->pair);
    memset(t->pair, 0xff, size * sizeof *t->pair);
    t->pair_mask = size - 1;
    t->pair_seed = tokmap_seed();
    t->merged = xcalloc(n, sizeof *t->merged);
    struct bpe_maker m = {.t = t, .spelt = xcalloc(t->n_tok, 1), .last = -1};
    enum status st = bpe_tokens(&m, v, err);
    for (uint32_t i = 0; i < n && st == ST_OK; i++) {
        size_t len;
        const char *s = vocab_string(&v->merges, i, &len);
        st = bpe_merge_add(&m, i, s, len, err);
    }
    buf_release(&m.tmp);
    free(m.spelt);
    return st;
}

static bool bpe_pair(const void *ctx, const struct merge_work *w, uint32_t l, uint32_t r,
                     uint32_t *rank, int32_t *into) {
    const struct text_model *t = ctx;
    const struct bpe_slot *s = pair_find(t, w->sym[l].id, w->sym[r].id);
    if (s->a < 0)
        return false;
    *rank = s->rank;
    *into = t->merged[s->rank];
    return true;
}

void bpe_word(const struct text_model *t, struct merge_work *w, const char *word, size_t len,
              struct tok_list *out) {
    if (t->whole_words) {
        int32_t id = tokmap_get(&t->map, word, len);
        if (id >= 0) {
            tok_list_add(out, id);
            return;
        }
    }
    merge_reserve(w, len);
    uint32_t n = 0;
    for (size_t i = 0; i < len; i++) {
        int32_t id = t->byte_id[(unsigned char)word[i]];
        if (id >= 0) {
            w->sym[n] = (struct merge_sym){.id = id, .prev = n - 1, .next = n + 1};
            n++;
        }
    }
    if (n == 0)
        return;
    if (n > 1)
        merge_run(w, n, bpe_pair, t);
    for (uint32_t i = 0; i != n; i = w->sym[i].next)
        tok_list_add(out, w->sym[i].id);
}
