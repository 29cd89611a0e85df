/*
 * tokenizer.h - what a text model is made of; for the files of this folder.
 *
 * Built once by tokenizer_build() from a vocabulary, with copies of all it needs, immutable
 * after that. Token texts are kept as the bytes they stand for: the byte-level alphabet of
 * GPT-2 and the blank sign of SentencePiece are undone.
 */
#ifndef LLMCHAT_ENGINE_TEXT_TOKENIZER_H
#define LLMCHAT_ENGINE_TEXT_TOKENIZER_H

#include "base/err.h"
#include "base/mem.h"
#include "engine/text.h"
#include "engine/text/added.h"
#include "engine/text/decoder.h"
#include "engine/text/merge.h"
#include "engine/text/normalizer.h"
#include "engine/text/pretok.h"
#include "engine/text/tokmap.h"
#include "engine/text/unigram.h"
#include "engine/text/vocab.h"

enum {
    ENCODE_MAX_TEXT = 256 << 20, /* bytes of one text */
    ENCODE_MAX_WORD =
        8 << 20, /* bytes that are merged as one word; 36 times as much memory is needed */
};

enum token_flag { TOKEN_CONTROL = 1, TOKEN_EOG = 2, TOKEN_BYTE = 4, TOKEN_SHOWN = 8 };

struct bpe_slot { /* tokens a and b, neighbours, give merge number rank */
    int32_t a, b; /* a is -1: empty */
    uint32_t rank;
};

struct text_model {
    enum {
        TEXT_BPE,       /* symbols are bytes */
        TEXT_BPE_CHARS, /* symbols are characters */
        TEXT_SPM,       /* joined by score */
        TEXT_UNIGRAM,
    } kind;
    uint32_t n_tok;
    char *bytes;
    uint32_t *off;  /* [n_tok + 1] token i decodes to bytes[off[i]] .. bytes[off[i + 1]] */
    uint8_t *flags; /* [n_tok] enum token_flag */
    int32_t byte_id[256];  /* token of a single byte, -1: none */
    int32_t bos, eos, unk; /* -1: none */
    bool adds_bos, adds_eos;
    struct templates *templates; /* render.c */
    struct tokmap map;           /* tokens that ordinary text may become */
    struct added added;

    /* What Hugging Face's pipeline adds; dec is NULL for a tokenizer from GGUF. */
    struct normalizer *norm;
    struct decoder *dec;
    struct added keep;        /* what a SentencePiece normalizer leaves alone */
    struct added added_norm;  /* tokens that are looked for in normalized text */
    uint32_t *norm_at;        /* [n_tok] place in added_norm.v plus one, 0: none; or NULL */
    uint8_t *how;             /* [n_tok] enum vocab_added, or NULL */
    bool hidden_cover;        /* a control token that does not count covers its text anyway */
    int32_t *prefix, *suffix; /* [n_prefix], [n_suffix] around a whole text */
    size_t n_prefix, n_suffix;
    bool byte_fallback, fuse_unk;
    int32_t char_id[128]; /* BPE_CHARS: token of an ASCII character, -1: none */
    struct unigram *unigram;

    /* BPE */
    struct bpe_slot *pair; /* [pair_mask + 1] */
    size_t pair_mask;
    uint64_t pair_seed;
    int32_t *merged; /* [merges] what merge number rank gives */
    struct pretok *pretok;
    bool whole_words; /* a word that is a token is that token, whatever the merges say */

    /* SPM, BPE_CHARS, UNIGRAM, and wherever dec wants it */
    char *sp_bytes;   /* token texts as the file has them; map is over these */
    uint32_t *sp_off; /* [n_tok + 1] */
    float *score;     /* [n_tok] SPM */
    bool add_space_prefix;
    bool
        sp_words; /* no token has the blank sign behind something else, so blanks begin words */
};

/* bpe.c */
enum status bpe_build(struct text_model *t, const struct vocab_data *v, struct err *err);
/* One word [len]: appends its tokens. len <= ENCODE_MAX_WORD. */
void bpe_word(const struct text_model *t, struct merge_work *w, const char *word, size_t len,
              struct tok_list *out);

/* bpe_chars.c: merges as ids, over bytes (bpe_word()) or characters */
enum status bpe_ids_build(struct text_model *t, const struct vocab_data *v, bool bytes,
                          struct err *err);
void bpe_chars_word(const struct text_model *t, struct merge_work *w, const char *word,
                    size_t len, struct tok_list *out);

/* spm.c */
enum status spm_build(struct text_model *t, const struct vocab_data *v, struct err *err);
/* The tables over t->sp_bytes alone, for a model whose pipeline does the rest. */
enum status spm_tables(struct text_model *t, const struct vocab_data *v, struct err *err);
bool spm_inner_blank(const char *s, size_t len); /* U+2581 behind another character */
void spm_word(const struct text_model *t, struct merge_work *w, const char *word, size_t len,
              struct tok_list *out);
/* Appends s as SentencePiece sees it: blanks are U+2581, one in front where the model wants it.
 */
void spm_normalize(const struct text_model *t, const char *s, size_t len, struct buf *out);

/* pipeline.c: a vocabulary with a pipeline. */
enum status pipeline_build(struct text_model *t, const struct vocab_data *v, struct err *err);
/* The text of an added token behind the normalizer, which is what the library decodes; NULL for
 * any other. Not terminated. */
const char *pipeline_text(const struct text_model *t, uint32_t id, size_t *len);
/* Appends a token's text as its file has it ("<s>", "\u2581the"); byte-level ones as bytes. */
void token_spelling(const struct text_model *t, int32_t id, struct buf *out);

/* encode_pipeline.c: appends the tokens of valid text. word() gets what the model sees. */
struct pipeline_run;
struct pipeline_run *pipeline_run_new(const struct text_model *t); /* NULL: no memory */
void pipeline_run_free(struct pipeline_run *r);                    /* NULL is allowed */
enum status pipeline_encode(struct pipeline_run *r, const char *s, size_t len, bool special,
                            const uint8_t *plain, struct tok_list *out, pretok_word_fn word,
                            void *user, struct err *err);

/* True for text that models use to mark turns and ends, whatever type a file gives the token.
 */
bool token_looks_control(const char *s, size_t len);

void tokenizer_free(struct text_model *t); /* NULL is allowed */

#endif
