/*
 * decode.c - tokens to text, see text.h.
 *
 * A token's bytes were made when the tokenizer was built. What depends on the place in a
 * sequence is done here, for whole sequences only: the blank that SentencePiece puts in front
 * of a text, a first token that is decoded otherwise, and bytes that together are no UTF-8.
 */
#include "base/utf8.h"
#include "engine/text/tokenizer.h"

static bool shown(const struct text_model *t, int32_t token, bool special) {
    if (token < 0 || (uint32_t)token >= t->n_tok)
        return false;
    return special || !(t->flags[token] & TOKEN_CONTROL) || (t->flags[token] & TOKEN_SHOWN);
}

void text_decode(const struct text_model *t, int32_t token, bool special, struct buf *out) {
    if (shown(t, token, special))
        buf_add(out, t->bytes + t->off[token], t->off[token + 1] - t->off[token]);
}

void token_spelling(const struct text_model *t, int32_t id, struct buf *out) {
    if (id < 0 || (uint32_t)id >= t->n_tok)
        return;
    if (t->sp_bytes && t->kind != TEXT_BPE)
        buf_add(out, t->sp_bytes + t->sp_off[id], t->sp_off[id + 1] - t->sp_off[id]);
    else
        text_decode(t, id, true, out);
}

/* SentencePiece from GGUF: without the first blank of the text. */
static void decode_spm(const struct text_model *t, const int32_t *tokens, size_t n,
                       bool special, struct buf *out) {
    bool first = t->kind == TEXT_SPM && t->add_space_prefix;
    for (size_t i = 0; i < n; i++) {
        size_t before = out->len;
        text_decode(t, tokens[i], special, out);
        if (!first || out->len == before || text_is_control(t, tokens[i]))
            continue;
        first = false;
        if (out->p[before] == ' ') {
            memmove(out->p + before, out->p + before + 1, out->len - before - 1);
            buf_cut(out, out->len - 1);
        }
    }
}

/* The first token of a sequence, where it is decoded another way. */
static void decode_first(const struct text_model *t, int32_t token, struct buf *out) {
    struct regex_run *run = regex_run_new();
    struct err err;
    size_t len, before = out->len;
    const char *s = t->how ? pipeline_text(t, (uint32_t)token, &len) : NULL;
    if (!s) {
        s = t->sp_bytes + t->sp_off[token];
        len = t->sp_off[token + 1] - t->sp_off[token];
    }
    if (!run || decoder_token(t->dec, run, s, len, true, out, NULL, &err) != ST_OK) {
        buf_cut(out, before);
        text_decode(t, token, true, out);
    }
    regex_run_free(run);
}

/* The run of byte tokens that begins at `at` is over: not UTF-8, it is U+FFFD for each. */
static void end_byte_run(struct buf *out, size_t at) {
    size_t n = out->len - at;
    if (utf8_valid(out->p + at, n))
        return;
    buf_cut(out, at);
    while (n-- > 0)
        buf_adds(out, "\xef\xbf\xbd");
}

static void strip_start(const struct decoder_rest *rest, struct buf *out, size_t from) {
    size_t n = strlen(rest->strip), gone = 0;
    for (int i = 0; i < rest->strip_n && out->len - from - gone >= n &&
                    memcmp(out->p + from + gone, rest->strip, n) == 0;
         i++)
        gone += n;
    if (gone == 0)
        return;
    memmove(out->p + from, out->p + from + gone, out->len - from - gone);
    buf_cut(out, out->len - gone);
}

static void decode_pipeline(const struct text_model *t, const int32_t *tokens, size_t n,
                            bool special, struct buf *out) {
    const struct decoder_rest *rest = decoder_rest(t->dec);
    size_t start = out->len, bytes_at = SIZE_MAX;
    bool first = rest->first_differs;
    for (size_t i = 0; i < n; i++) {
        if (!shown(t, tokens[i], special))
            continue;
        bool is_byte = rest->byte_runs && (t->flags[tokens[i]] & TOKEN_BYTE);
        if (!is_byte && bytes_at != SIZE_MAX) {
            end_byte_run(out, bytes_at);
            bytes_at = SIZE_MAX;
        }
        if (is_byte && bytes_at == SIZE_MAX)
            bytes_at = out->len;
        if (first)
            decode_first(t, tokens[i], out);
        else
            text_decode(t, tokens[i], special, out);
        first = false;
    }
    if (bytes_at != SIZE_MAX)
        end_byte_run(out, bytes_at);
    strip_start(rest, out, start);
}

void text_decode_all(const struct text_model *t, const int32_t *tokens, size_t n, bool special,
                     struct buf *out) {
    if (t->dec)
        decode_pipeline(t, tokens, n, special, out);
    else
        decode_spm(t, tokens, n, special, out);
}
