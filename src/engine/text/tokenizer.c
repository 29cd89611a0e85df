/*
 * tokenizer.c - a vocabulary becomes a text model.
 *
 * What a token is for ordinary text is decided here, once: control tokens are in no table that
 * ordinary text is looked up in, so no text can become one. A file's own types are followed,
 * with one exception: user-defined tokens that are written like turn markers ("<|user|>",
 * "<end_of_turn>") count as control tokens, since files get their type wrong and a person's
 * text must not open a turn.
 */
#include "engine/text/tokenizer.h"
#include "engine/text/text_internal.h"
#include <stdlib.h>

/* Ends of a turn or of a text, by the names that models give them. */
static const char *const EOG_TEXTS[] = {"<|im_end|>",
                                        "<|eot_id|>",
                                        "<|eom_id|>",
                                        "<|endoftext|>",
                                        "<|end_of_text|>",
                                        "<|end|>",
                                        "<|return|>",
                                        "<|call|>",
                                        "<|EOT|>",
                                        "<end_of_turn>",
                                        "<end_of_utterance>",
                                        "<eos>",
                                        "</s>",
                                        "<EOT>",
                                        "_<EOT>",
                                        "[EOT]",
                                        "[EOS]",
                                        "<\xef\xbd\x9c"
                                        "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"};

/* Turn markers that are not written between bars. */
static const char *const TURN_TEXTS[] = {
    "<start_of_turn>", "<end_of_turn>", "<s>",      "</s>",  "<bos>", "<eos>", "[INST]",
    "[/INST]",         "<<SYS>>",       "<</SYS>>", "[BOS]", "[EOS]", "[EOT]", "<EOT>"};

#define BAR "\xef\xbd\x9c" /* U+FF5C, DeepSeek's bar */

static bool text_in(const char *s, size_t len, const char *const *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (strlen(list[i]) == len && memcmp(list[i], s, len) == 0)
            return true;
    return false;
}

bool token_looks_control(const char *s, size_t len) {
    if (len >= 5 && memcmp(s, "<|", 2) == 0 && memcmp(s + len - 2, "|>", 2) == 0)
        return true;
    if (len >= 9 && memcmp(s, "<" BAR, 4) == 0 && memcmp(s + len - 4, BAR ">", 4) == 0)
        return true;
    return text_in(s, len, TURN_TEXTS, sizeof TURN_TEXTS / sizeof *TURN_TEXTS);
}

static void build_flags(struct text_model *t, const struct vocab_data *v) {
    const int32_t named[] = {v->bos, v->eos, v->eot, v->eom};
    for (uint32_t i = 0; i < t->n_tok; i++) {
        size_t len;
        const char *s = vocab_string(&v->tokens, i, &len);
        int type = v->types ? v->types[i] : VOCAB_NORMAL;
        if (type == VOCAB_CONTROL || type == VOCAB_UNKNOWN ||
            (type == VOCAB_USER_DEFINED && token_looks_control(s, len)))
            t->flags[i] |= TOKEN_CONTROL;
        /* the tokenizers library hides only what its file calls special */
        if (type == VOCAB_USER_DEFINED && v->pipeline && *v->pipeline)
            t->flags[i] |= TOKEN_SHOWN;
        if ((t->flags[i] & TOKEN_CONTROL) &&
            text_in(s, len, EOG_TEXTS, sizeof EOG_TEXTS / sizeof *EOG_TEXTS))
            t->flags[i] |= TOKEN_EOG;
    }
    for (size_t k = 0; k < sizeof named / sizeof *named; k++) {
        if (named[k] < 0)
            continue;
        if (!v->types) /* a file without types: the named ones are all we know */
            t->flags[named[k]] |= TOKEN_CONTROL;
        if (k > 0)
            t->flags[named[k]] |= TOKEN_EOG;
    }
    for (uint32_t i = 0; i < v->n_eog; i++)
        t->flags[v->eog[i]] |= TOKEN_EOG;
}

static enum status build_added(struct text_model *t, const struct vocab_data *v,
                               struct err *err) {
    for (uint32_t i = 0; i < t->n_tok; i++) {
        size_t len;
        const char *s = vocab_string(&v->tokens, i, &len);
        bool control = t->flags[i] & TOKEN_CONTROL;
        if (len == 0 || (!control && !(v->types && v->types[i] == VOCAB_USER_DEFINED)))
            continue;
        if (len > ADDED_MAX_LEN)
            return err_set(
                err, ST_FORMAT,
                "tokenizer.ggml.tokens: token %u is a %s token of %zu bytes, at most "
                "%d are allowed",
                i, control ? "control" : "user-defined", len, (int)ADDED_MAX_LEN);
        added_add(&t->added, s, len, (int32_t)i, control);
    }
    added_finish(&t->added);
    return ST_OK;
}

enum status text_from_vocab(const struct vocab_data *v, struct text_model **out,
                            struct err *err) {
    struct text_model *t = xcalloc(1, sizeof *t);
    enum status st;
    t->n_tok = v->tokens.n;
    t->off = xcalloc(t->n_tok + 1u, sizeof *t->off);
    t->flags = xcalloc(t->n_tok, 1);
    memset(t->byte_id, 0xff, sizeof t->byte_id);
    t->bos = v->bos;
    t->eos = v->eos;
    t->unk = v->unk;
    build_flags(t, v);
    if (v->pipeline && *v->pipeline) {
        TRY(pipeline_build(t, v, err));
    } else if (strcmp(v->model, "gpt2") == 0) {
        t->kind = TEXT_BPE;
        TRY(build_added(t, v, err));
        TRY(bpe_build(t, v, err));
    } else if (strcmp(v->model, "llama") == 0) {
        t->kind = TEXT_SPM;
        TRY(build_added(t, v, err));
        TRY(spm_build(t, v, err));
    } else {
        TRY(err_set(
            err, ST_UNSUPPORTED,
            "tokenizer.ggml.model: tokenizer \"%.40s\" is not known; known are \"gpt2\" "
            "(byte-level BPE) and \"llama\" (SentencePiece BPE)",
            v->model));
    }
    t->adds_bos = t->adds_bos && (t->bos >= 0 || t->n_prefix > 0);
    t->adds_eos = v->add_eos > 0 && (t->eos >= 0 || t->n_suffix > 0);
    t->templates = templates_new(t, v);
    *out = t;
    t = NULL;
out:
    tokenizer_free(t);
    return st;
}

void tokenizer_free(struct text_model *t) {
    if (!t)
        return;
    tokmap_release(&t->map);
    added_release(&t->added);
    added_release(&t->added_norm);
    added_release(&t->keep);
    normalizer_close(t->norm);
    decoder_close(t->dec);
    unigram_free(t->unigram);
    free(t->norm_at);
    free(t->how);
    free(t->prefix);
    free(t->suffix);
    pretok_close(t->pretok);
    free(t->bytes);
    free(t->off);
    free(t->flags);
    templates_free(t->templates);
    free(t->pair);
    free(t->merged);
    free(t->sp_bytes);
    free(t->sp_off);
    free(t->score);
    free(t);
}
