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
    struct pipeline_run *pipeline;
    struct unigram_work *unigram;
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
    switch (r->t->kind) {
    case TEXT_BPE:
        bpe_word(r->t, &r->work, word, len, r->out);
        break;
    case TEXT_BPE_CHARS:
        bpe_chars_word(r->t, &r->work, word, len, r->out);
        break;
    case TEXT_SPM:
        spm_word(r->t, &r->work, word, len, r->out);
        break;
    case TEXT_UNIGRAM:
        unigram_word(r->t, r->unigram, word, len, r->out);
        break;
    }
    if (slot) {
        memcpy(slot->key, word, len);
        slot->len = (uint8_t)len;
        slot->at = (uint32_t)(before - r->base);
        slot->n = (uint32_t)(r->out->n - before);
    }
    return ST_OK;
}

/* Blanks written as U+2581 begin words, where the vocabulary allows cutting at all (spm.c). */
static enum status encode_marked(void *user, const char *s, size_t len, struct err *err) {
    struct encode_run *r = user;
    size_t start = 0;
    bool after_mark = len >= 3 && memcmp(s, "\xe2\x96\x81", 3) == 0;
    for (size_t i = after_mark ? 3 : 1; i < len && r->t->sp_words;) {
        bool mark = len - i >= 3 && memcmp(s + i, "\xe2\x96\x81", 3) == 0;
        if (mark && !after_mark) {
            CHECK(encode_word(r, s + start, i - start, err));
            start = i;
        }
        after_mark = mark;
        i += mark ? 3 : 1;
    }
    return start < len ? encode_word(r, s + start, len - start, err) : ST_OK;
}

static enum status encode_spm(struct encode_run *r, const char *s, size_t len,
                              struct err *err) {
    struct buf text = {0};
    spm_normalize(r->t, s, len, &text);
    enum status st = encode_marked(r, buf_str(&text), text.len, err);
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
    return pretok_split(r->pretok, s, len, true, encode_word, r, err);
}

static enum status encode_valid(struct encode_run *r, const char *s, size_t len, bool special,
                                const uint8_t *plain, struct err *err) {
    if (r->pipeline)
        return pipeline_encode(r->pipeline, s, len, special, plain, r->out,
                               r->t->sp_words ? encode_marked : encode_word, r, err);
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

/* The model's token, or the tokens its pipeline puts around a text. */
static void add_around(struct tok_list *out, int32_t token, const int32_t *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        tok_list_add(out, list[i]);
    if (n == 0 && token >= 0)
        tok_list_add(out, token);
}

static enum status run_open(struct encode_run *r, size_t len, struct err *err) {
    const struct text_model *t = r->t;
    bool ok = true;
    if (t->dec)
        ok = (r->pipeline = pipeline_run_new(t)) != NULL;
    else if (t->kind == TEXT_BPE)
        ok = (r->pretok = pretok_run_new(t->pretok)) != NULL;
    if (t->kind == TEXT_UNIGRAM)
        r->unigram = unigram_work_new();
    if (len >= CACHE_MIN_TEXT)
        r->cache = xcalloc(CACHE_SLOTS, sizeof *r->cache);
    return ok ? ST_OK : err_set(err, ST_NOMEM, "no memory to cut a text into words");
}

static void run_close(struct encode_run *r) {
    free(r->cache);
    pipeline_run_free(r->pipeline);
    pretok_run_free(r->pretok);
    unigram_work_free(r->unigram);
    merge_release(&r->work);
}

enum status text_encode(const struct text_model *t, const char *text, size_t len,
                        const struct encode_opts *opts, struct tok_list *out, struct err *err) {
    if (len > ENCODE_MAX_TEXT)
        return err_set(err, ST_LIMIT, "a text of %zu bytes, at most %d can be tokenized", len,
                       (int)ENCODE_MAX_TEXT);
    struct encode_run r = {.t = t, .out = out, .base = out->n};
    struct buf mended = {0}, marks = {0};
    const uint8_t *plain = opts->special ? opts->plain : NULL;
    if (opts->bos)
        add_around(out, t->bos, t->prefix, t->n_prefix);
    if (!utf8_valid(text, len)) {
        scrub_with_plain(text, len, plain, &mended, &marks);
        text = mended.p;
        len = mended.len;
        plain = plain ? (const uint8_t *)marks.p : NULL;
    }
    enum status st = run_open(&r, len, err);
    if (st == ST_OK)
        st = encode_valid(&r, text, len, opts->special, plain, err);
    if (st != ST_OK)
        out->n = r.base;
    else if (opts->eos)
        add_around(out, t->eos, t->suffix, t->n_suffix);
    run_close(&r);
    buf_release(&mended);
    buf_release(&marks);
    return st;
}
