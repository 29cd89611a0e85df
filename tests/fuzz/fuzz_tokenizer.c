/*
 * fuzz_tokenizer.c - arbitrary text through small vocabularies of both kinds, and token bytes
 * through the stream.
 *
 * The first byte chooses the pre-tokenizer (from 0xc0 on: SentencePiece), the second what is
 * encoded with control tokens; the rest is the text, and the odd bytes of it are marked as a
 * person's. What must hold: every id is in the vocabulary, marked text gives no control token,
 * decoding gives the mended text back, and the stream's text is valid.
 */
#include "base/utf8.h"
#include "engine/text.h"
#include "engine/text/pretok.h"
#include "engine/text/stream.h"
#include "engine/text/text_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(x)                                                                                \
    do {                                                                                       \
        if (!(x)) {                                                                            \
            fprintf(stderr, "fuzz_tokenizer: %s does not hold\n", #x);                         \
            abort();                                                                           \
        }                                                                                      \
    } while (0)

enum { MAX_TOKENS = 320 };

static const struct text_model *spm_model;

static void put(struct buf *bytes, uint32_t *off, int32_t *types, uint32_t *n, const char *text,
                int type) {
    buf_adds(bytes, text);
    types[*n] = type;
    off[++*n] = (uint32_t)bytes->len;
}

/* GPT-2's spelling of the 256 bytes in the order of their values. */
static void put_bytes(struct buf *bytes, uint32_t *off, int32_t *types, uint32_t *n) {
    uint32_t next = 256;
    for (uint32_t b = 0; b < 256; b++) {
        int printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b != 0xad);
        char text[5] = {0};
        utf8_encode(printable ? b : next++, text);
        put(bytes, off, types, n, text, VOCAB_NORMAL);
    }
}

static struct text_model *make(const char *pre, bool spm) {
    uint32_t off[MAX_TOKENS + 1] = {0}, merge_off[8] = {0}, n = 0;
    int32_t types[MAX_TOKENS];
    float scores[MAX_TOKENS];
    struct buf bytes = {0}, merges = {0};
    const char *words[] = {"th", "the", "aa", "aaaa", "11"};
    const char *joins[] = {"t h", "th e", "a a", "aa aa", "1 1"};
    if (spm) {
        for (int b = 0; b < 256; b++) {
            char text[8];
            snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
            put(&bytes, off, types, &n, text, VOCAB_BYTE);
        }
        put(&bytes, off, types, &n, "\xe2\x96\x81", VOCAB_NORMAL);
        put(&bytes, off, types, &n, "t", VOCAB_NORMAL);
    } else {
        put_bytes(&bytes, off, types, &n);
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        put(&bytes, off, types, &n, words[i], VOCAB_NORMAL);
        buf_adds(&merges, joins[i]);
        merge_off[i + 1] = (uint32_t)merges.len;
    }
    put(&bytes, off, types, &n, "<|end|>", VOCAB_CONTROL);
    put(&bytes, off, types, &n, "<|", VOCAB_CONTROL);
    put(&bytes, off, types, &n, "<tool>", VOCAB_USER_DEFINED);
    for (uint32_t i = 0; i < n; i++)
        scores[i] = -(float)(i % 7);
    struct vocab_data v = {.model = spm ? "llama" : "gpt2",
                           .pre = pre,
                           .chat_template = "",
                           .tokens = {n, bytes.p, off},
                           .merges = {5, merges.p, merge_off},
                           .types = types,
                           .scores = scores,
                           .bos = -1,
                           .eos = -1,
                           .eot = -1,
                           .eom = -1,
                           .unk = -1,
                           .add_bos = -1,
                           .add_eos = -1,
                           .add_space_prefix = -1};
    struct text_model *t;
    struct err err;
    MUST(text_from_vocab(&v, &t, &err) == ST_OK);
    buf_release(&bytes);
    buf_release(&merges);
    return t;
}

/* SentencePiece puts a blank behind every added token too, and its own blank sign in a text
 * reads as a blank. */
static bool comes_back(const struct text_model *t, const struct tok_list *ids,
                       const struct buf *text) {
    if (t != spm_model)
        return true;
    for (size_t i = 0; i < ids->n; i++)
        if (ids->v[i] >= text_n_vocab(t) - 3)
            return false;
    return !memmem(buf_str(text), text->len, "\xe2\x96\x81", 3);
}

/* Decoded tokens, all in one and through the stream, token by token. */
static void check_text(const struct text_model *t, const struct tok_list *ids, const char *text,
                       size_t len) {
    static const char *const stops[] = {"the", "\n\n", "aab"};
    struct buf all = {0}, mended = {0}, shown = {0}, piece = {0};
    struct stream s;
    stream_init(&s, stops, 3);
    for (size_t i = 0; i < ids->n; i++) {
        buf_clear(&piece);
        text_decode(t, ids->v[i], true, &piece);
        stream_push(&s, buf_str(&piece), piece.len, &shown);
        MUST(utf8_valid(buf_str(&shown), shown.len));
    }
    stream_flush(&s, &shown);
    text_decode_all(t, ids->v, ids->n, true, &all);
    utf8_scrub(&mended, text, len);
    if (comes_back(t, ids, &mended))
        MUST(all.len == mended.len && memcmp(buf_str(&all), buf_str(&mended), all.len) == 0);
    for (size_t i = 0; i < 3; i++)
        MUST(!memmem(buf_str(&shown), shown.len, stops[i], strlen(stops[i])));
    stream_release(&s);
    buf_release(&piece);
    buf_release(&shown);
    buf_release(&mended);
    buf_release(&all);
}

static struct text_model *model_of(unsigned choice) {
    static struct text_model *models[64]; /* kept for the whole run */
    size_t n;
    const struct pretok_rule *rules = pretok_rules(&n);
    size_t i = choice >= 0xc0 ? n : choice % n;
    if (!models[i])
        models[i] = make(i < n ? rules[i].names[0] : "", i == n);
    if (i == n)
        spm_model = models[i];
    return models[i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    const struct text_model *t = model_of(data[0]);
    bool special = data[1] & 1, all_plain = data[1] & 2;
    const char *text = (const char *)data + 2;
    size_t len = size - 2;
    uint8_t *plain = xcalloc(len, 1);
    for (size_t i = 0; i < len; i++)
        plain[i] = all_plain || (data[i + 2] & 1);
    struct tok_list ids = {0};
    struct err err;
    struct encode_opts opts = {.special = special, .plain = plain};
    MUST(text_encode(t, text, len, &opts, &ids, &err) == ST_OK);
    for (size_t i = 0; i < ids.n; i++) {
        MUST(ids.v[i] >= 0 && ids.v[i] < text_n_vocab(t));
        MUST((special && !all_plain) || !text_is_control(t, ids.v[i]));
    }
    if (len > 0)
        check_text(t, &ids, text, len);
    tok_list_release(&ids);
    free(plain);
    return 0;
}
