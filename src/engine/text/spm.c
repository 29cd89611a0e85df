/*
 * spm.c - BPE as SentencePiece does it (Llama 1 and 2, Mistral, Gemma): tables and the tokens
 * of one word.
 *
 * Blanks are written as U+2581. Two neighbours may be joined when their text together is a
 * token; the pair with the highest score goes first. A character that is no token becomes the
 * tokens of its bytes ("<0xE2>"), or the unknown token in a vocabulary without those.
 *
 * SentencePiece has no words: it joins over the whole text. But where no token of the
 * vocabulary has a blank behind another character nothing is ever joined over such a border, so
 * the text can be cut there and gives the same tokens.
 */
#include "base/utf8.h"
#include "engine/text/tokenizer.h"
#include <math.h>
#include <stdlib.h>

#define SP "\xe2\x96\x81" /* U+2581 */

/* A blank sign behind something that is none. */
bool spm_inner_blank(const char *s, size_t len) {
    for (size_t i = 1; i + 3 <= len; i++)
        if (memcmp(s + i, SP, 3) == 0 && !(i >= 3 && memcmp(s + i - 3, SP, 3) == 0))
            return true;
    return false;
}

/* The byte of "<0xHH>", or -1. */
static int byte_token(const char *s, size_t len) {
    static const char digits[] = "0123456789ABCDEF";
    if (len != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>')
        return -1;
    const char *hi = memchr(digits, s[3], 16), *lo = memchr(digits, s[4], 16);
    return hi && lo ? (int)((hi - digits) * 16 + (lo - digits)) : -1;
}

static const char *find_sp(const char *s, size_t len) {
    const char *end = s + len;
    while ((s = memchr(s, SP[0], (size_t)(end - s))) &&
           !(end - s >= 3 && memcmp(s, SP, 3) == 0))
        s++;
    return s;
}

/* Appends what a token decodes to. */
static void add_decoded(struct buf *out, const char *s, size_t len) {
    while (len > 0) {
        const char *sp = find_sp(s, len);
        size_t n = sp ? (size_t)(sp - s) : len;
        buf_add(out, s, n);
        s += n;
        len -= n;
        if (sp) {
            buf_addc(out, ' ');
            s += 3;
            len -= 3;
        }
    }
}

/* Decoded texts, and which tokens are single bytes. */
static enum status spm_tokens(struct text_model *t, const struct vocab_data *v,
                              struct err *err) {
    struct buf bytes = {0};
    for (uint32_t i = 0; i < t->n_tok; i++) {
        size_t len;
        const char *s = vocab_string(&v->tokens, i, &len);
        t->off[i] = (uint32_t)bytes.len;
        if (v->types && v->types[i] == VOCAB_BYTE) {
            int byte = byte_token(s, len);
            if (byte < 0) {
                buf_release(&bytes);
                return err_set(err, ST_FORMAT,
                               "tokenizer.ggml.tokens: token %u of type byte is \"%.*s\", "
                               "wanted <0x00> to <0xFF>",
                               i, (int)(len < 60 ? len : 60), s);
            }
            t->byte_id[byte] = (int32_t)i;
            buf_addc(&bytes, (char)byte);
        } else if (t->flags[i] & TOKEN_CONTROL) {
            buf_add(&bytes, s, len);
        } else {
            add_decoded(&bytes, s, len);
        }
    }
    t->off[t->n_tok] = (uint32_t)bytes.len;
    buf_reserve(&bytes, 1);
    t->bytes = buf_take(&bytes);
    return ST_OK;
}

enum status spm_build(struct text_model *t, const struct vocab_data *v, struct err *err) {
    t->adds_bos = v->add_bos != 0;
    t->add_space_prefix = v->add_space_prefix != 0;
    CHECK(spm_tokens(t, v, err));
    size_t total = v->tokens.off[t->n_tok];
    t->sp_bytes = xmalloc(total);
    if (total > 0)
        memcpy(t->sp_bytes, v->tokens.bytes, total);
    t->sp_off = xreallocarray(NULL, t->n_tok + 1u, sizeof *t->sp_off);
    memcpy(t->sp_off, v->tokens.off, (t->n_tok + 1u) * sizeof *t->sp_off);
    return spm_tables(t, v, err);
}

enum status spm_tables(struct text_model *t, const struct vocab_data *v, struct err *err) {
    if (!v->scores)
        return err_set(err, ST_FORMAT,
                       "tokenizer.ggml.scores is missing, a \"llama\" "
                       "tokenizer needs a score for each token");
    t->score = xreallocarray(NULL, t->n_tok, sizeof *t->score);
    t->sp_words = true;
    tokmap_init(&t->map, t->n_tok, t->sp_bytes, t->sp_off);
    uint8_t *piece = xcalloc(t->n_tok + 1u, 1);
    for (uint32_t i = 0; i < t->n_tok; i++) {
        size_t len;
        const char *s = vocab_string(&v->tokens, i, &len);
        int type = v->types ? v->types[i] : VOCAB_NORMAL;
        t->score[i] = isnan(v->scores[i]) ? -INFINITY : v->scores[i];
        if (len == 0 || (t->flags[i] & TOKEN_CONTROL) || type == VOCAB_BYTE ||
            type == VOCAB_UNUSED || (v->added && (v->added[i] & VOCAB_BEYOND)))
            continue;
        piece[i] = 1;
        if (spm_inner_blank(s, len))
            t->sp_words = false;
    }
    tokmap_add(&t->map, piece, t->n_tok);
    free(piece);
    return ST_OK;
}

void spm_normalize(const struct text_model *t, const char *s, size_t len, struct buf *out) {
    if (t->add_space_prefix)
        buf_add(out, SP, 3);
    while (len > 0) {
        const char *blank = memchr(s, ' ', len);
        size_t n = blank ? (size_t)(blank - s) : len;
        buf_add(out, s, n);
        s += n;
        len -= n;
        if (blank) {
            buf_add(out, SP, 3);
            s++;
            len--;
        }
    }
}

struct spm_ctx {
    const struct text_model *t;
    const char *word;
};

/* Higher scores come out lower; the order of floats is that of their bits once the sign is
 * folded away. */
static uint32_t score_rank(float score) {
    uint32_t u;
    memcpy(&u, &score, sizeof u);
    u = u & 0x80000000u ? ~u : u | 0x80000000u;
    return ~u;
}

/* Symbols are numbered by their first byte in the word, so two neighbours are one run of bytes.
 */
static bool spm_pair(const void *ctx, const struct merge_work *w, uint32_t l, uint32_t r,
                     uint32_t *rank, int32_t *into) {
    const struct spm_ctx *c = ctx;
    int32_t id = tokmap_get(&c->t->map, c->word + l, w->sym[r].next - l);
    if (id < 0)
        return false;
    *rank = score_rank(c->t->score[id]);
    *into = id;
    return true;
}

/* A character that is no token: its bytes, or the unknown token, true then. fuse: not again. */
static bool spm_bytes(const struct text_model *t, const char *s, size_t len, bool fuse,
                      struct tok_list *out) {
    bool all = true;
    for (size_t i = 0; i < len; i++)
        all = all && t->byte_id[(unsigned char)s[i]] >= 0;
    for (size_t i = 0; all && i < len; i++)
        tok_list_add(out, t->byte_id[(unsigned char)s[i]]);
    if (!all && t->unk >= 0 && !fuse)
        tok_list_add(out, t->unk);
    return !all;
}

void spm_word(const struct text_model *t, struct merge_work *w, const char *word, size_t len,
              struct tok_list *out) {
    merge_reserve(w, len);
    uint32_t prev = MERGE_NONE;
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        size_t n = utf8_decode(word + i, len - i, &cp);
        w->sym[i] = (struct merge_sym){
            .id = tokmap_get(&t->map, word + i, n), .prev = prev, .next = (uint32_t)(i + n)};
        prev = (uint32_t)i;
        i += n;
    }
    struct spm_ctx ctx = {t, word};
    merge_run(w, (uint32_t)len, spm_pair, &ctx);
    bool unknown = false;
    for (uint32_t i = 0; i != len; i = w->sym[i].next) {
        bool fuse = unknown && t->fuse_unk;
        unknown = false;
        if (w->sym[i].id >= 0)
            tok_list_add(out, w->sym[i].id);
        else
            unknown = spm_bytes(t, word + i, w->sym[i].next - i, fuse, out);
    }
}
