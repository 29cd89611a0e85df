/*
 * encode.c - text to tokens.
 *
 * The text is made valid UTF-8, cut at added tokens, and what lies between is cut into words,
 * each of which is merged by itself. Real text repeats its words, so the tokens of short words
 * are remembered while one text is encoded: a direct-mapped cache whose values are places in
 * the output itself. It belongs to the call, so text models need no locks.
 */
#include "base/utf8.h"
#include "engine/text/tokenizer.h"
#include <stdlib.h>

enum {
    CACHE_SLOTS = 8192,
    CACHE_KEY = 31,        /* longest word that is remembered */
    CACHE_MIN_TEXT = 1024, /* bytes from which on a cache is worth its memory */
};

struct cache_slot {
    char key[CACHE_KEY];
    uint8_t len;    /* 0: empty */
    uint32_t at, n; /* tokens out->v[base + at] .. [base + at + n] */
};

struct encode_run {
    const struct text_model *t;
    struct tok_list *out;
    size_t base; /* out->n at the start */
    struct merge_work work;
    struct pretok_run *pretok;
    struct cache_slot *cache; /* [CACHE_SLOTS] or NULL */
};

static enum status encode_word(void *user, const char *word, size_t len, struct err *err) {
    struct encode_run *r = user;
    if (len > ENCODE_MAX_WORD)
        return err_set(err, ST_LIMIT,
                       "a piece of text without a break has %zu bytes, at most "
                       "%d can be tokenized",
                       len, (int)ENCODE_MAX_WORD);
    struct cache_slot *slot = NULL;
    if (r->cache && len <= CACHE_KEY) {
        slot = &r->cache[hash_bytes(word, len, 0) % CACHE_SLOTS];
        if (slot->len == len && memcmp(slot->key, word, len) == 0) {
            for (uint32_t i = 0; i < slot->n; i++)
                tok_list_add(r->out, r->out->v[r->base + slot->at + i]);
            return ST_OK;
        }
    }
    size_t before = r->out->n;
    if (r->t->kind == TEXT_BPE)
        bpe_word(r->t, &r->work, word, len, r->out);
    else
        spm_word(r->t, &r->work, word, len, r->out);
    if (slot) {
        memcpy(slot->key, word, len);
        slot->len = (uint8_t)len;
        slot->at = (uint32_t)(before - r->base);
        slot->n = (uint32_t)(r->out->n - before);
    }
    return ST_OK;
}

/* SentencePiece: words begin with their blanks, where the vocabulary allows cutting at all
 * (spm.c). */
static enum status encode_spm(struct encode_run *r, const char *s, size_t len,
                              struct err *err) {
    struct buf text = {0};
    spm_normalize(r->t, s, len, &text);
    enum status st = ST_OK;
    size_t start = 0;
    for (size_t i = 1; i < text.len && r->t->sp_words && st == ST_OK; i++) {
        if (memcmp(text.p + i, "\xe2\x96\x81", text.len - i < 3 ? text.len - i : 3) != 0)
            continue;
        if (i >= 3 && memcmp(text.p + i - 3, "\xe2\x96\x81", 3) == 0)
            continue;
        st = encode_word(r, text.p + start, i - start, err);
        start = i;
    }
    if (st == ST_OK)
        st = encode_word(r, text.p + start, text.len - start, err);
    buf_release(&text);
    return st;
}

/* Text without added tokens. */
static enum status encode_segment(struct encode_run *r, const char *s, size_t len,
                                  struct err *err) {
    if (len == 0)
        return ST_OK;
    if (r->t->kind == TEXT_SPM)
        return encode_spm(r, s, len, err);
    return pretok_split(r->pretok, s, len, encode_word, r, err);
}

static enum status encode_valid(struct encode_run *r, const char *s, size_t len, bool special,
                                const uint8_t *plain, struct err *err) {
    size_t start = 0;
    for (size_t i = 0; i < len;) {
        int32_t id;
        size_t n = added_match(&r->t->added, s, len, i, special, plain, &id);
        if (n == 0) {
            i++;
            continue;
        }
        CHECK(encode_segment(r, s + start, i - start, err));
        tok_list_add(r->out, id);
        i += n;
        start = i;
    }
    return encode_segment(r, s + start, len - start, err);
}

/* A copy of s with invalid UTF-8 replaced; plain, when given, follows its bytes. */
static void scrub_with_plain(const char *s, size_t len, const uint8_t *plain, struct buf *text,
                             struct buf *marks) {
    while (len > 0) {
        uint32_t cp;
        size_t used = utf8_decode(s, len, &cp), before = text->len;
        buf_addcp(text, cp);
        for (size_t i = before; plain && i < text->len; i++)
            buf_addc(marks, (char)plain[0]);
        s += used;
        len -= used;
        plain = plain ? plain + used : NULL;
    }
}

enum status text_encode(const struct text_model *t, const char *text, size_t len,
                        const struct encode_opts *opts, struct tok_list *out, struct err *err) {
    if (len > ENCODE_MAX_TEXT)
        return err_set(err, ST_LIMIT, "a text of %zu bytes, at most %d can be tokenized", len,
                       (int)ENCODE_MAX_TEXT);
    struct encode_run r = {.t = t, .out = out, .base = out->n};
    struct buf mended = {0}, marks = {0};
    const uint8_t *plain = opts->special ? opts->plain : NULL;
    if (opts->bos && t->bos >= 0)
        tok_list_add(out, t->bos);
    if (!utf8_valid(text, len)) {
        scrub_with_plain(text, len, plain, &mended, &marks);
        text = mended.p;
        len = mended.len;
        plain = plain ? (const uint8_t *)marks.p : NULL;
    }
    if (t->kind == TEXT_BPE)
        r.pretok = pretok_run_new(t->pretok);
    if (len >= CACHE_MIN_TEXT)
        r.cache = xcalloc(CACHE_SLOTS, sizeof *r.cache);
    enum status st = t->kind == TEXT_BPE && !r.pretok
                         ? err_set(err, ST_NOMEM, "no memory to cut a text into words")
                         : encode_valid(&r, text, len, opts->special, plain, err);
    if (st != ST_OK)
        out->n = r.base;
    else if (opts->eos && t->eos >= 0)
        tok_list_add(out, t->eos);
    free(r.cache);
    pretok_run_free(r.pretok);
    merge_release(&r.work);
    buf_release(&mended);
    buf_release(&marks);
    return st;
}
