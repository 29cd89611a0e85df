/*
 * vocab.h - a vocabulary as it lies in a file: what a tokenizer is made from, whichever file it
 * comes from.
 *
 * Filled from a GGUF file or from one of our model files (engine/model/vocab.c); text.c makes a
 * text model of it. Strings are kept as one run of bytes and an offset for each, 0 and one more
 * than there are strings: string i is bytes[off[i]] .. bytes[off[i + 1]]. From our files
 * the bytes are used where they are mapped.
 *
 * Guarantees after filling: offsets rise and stay inside the bytes, n_tokens is 1..4194304, ids
 * are -1 or below n_tokens, types and scores are NULL or have n_tokens entries. Token text may
 * be any bytes and may occur twice; merges are "A B" texts as the file has them, unchecked.
 */
#ifndef LLMCHAT_ENGINE_TEXT_VOCAB_H
#define LLMCHAT_ENGINE_TEXT_VOCAB_H

#include "base/err.h"
#include "base/mem.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum vocab_token_type { /* the numbers of GGUF's tokenizer.ggml.token_type */
                        VOCAB_UNDEFINED,
                        VOCAB_NORMAL = 1,
                        VOCAB_UNKNOWN = 2,
                        VOCAB_CONTROL = 3,
                        VOCAB_USER_DEFINED = 4,
                        VOCAB_UNUSED = 5,
                        VOCAB_BYTE = 6,
};

/* Named ids; the field's name in vocab_data, the key behind "tokenizer.ggml.", in the same
 * order everywhere. */
#define VOCAB_ID_LIST(X)                                                                       \
    X(bos, "bos_token_id")                                                                     \
    X(eos, "eos_token_id")                                                                     \
    X(eot, "eot_token_id")                                                                     \
    X(eom, "eom_token_id")                                                                     \
    X(unk, "unknown_token_id")                                                                 \
    X(pad, "padding_token_id")                                                                 \
    X(sep, "seperator_token_id")                                                               \
    X(cls, "cls_token_id")                                                                     \
    X(mask, "mask_token_id")                                                                   \
    X(fim_pre, "fim_pre_token_id")                                                             \
    X(fim_suf, "fim_suf_token_id")                                                             \
    X(fim_mid, "fim_mid_token_id")

/* Flags; -1 when the file does not say. */
#define VOCAB_FLAG_LIST(X)                                                                     \
    X(add_bos, "add_bos_token")                                                                \
    X(add_eos, "add_eos_token")                                                                \
    X(add_space_prefix, "add_space_prefix")                                                    \
    X(remove_extra_whitespaces, "remove_extra_whitespaces")

struct vocab_strings {
    uint32_t n;
    const char *bytes;
    const uint32_t *off; /* [n + 1] */
};

static inline const char *vocab_string(const struct vocab_strings *s, uint32_t i, size_t *len) {
    *len = s->off[i + 1] - s->off[i];
    return s->bytes + s->off[i];
}

enum vocab_added { /* a token that is found in the text itself, and how (Hugging Face) */
                   VOCAB_ADDED = 1,
                   VOCAB_LSTRIP = 2, /* takes the blanks in front of it */
                   VOCAB_RSTRIP = 4, /* and behind it */
                   VOCAB_SINGLE_WORD = 8,
                   VOCAB_NORMALIZED = 16, /* looked for behind the normalizer */
                   VOCAB_BEYOND = 32,     /* no token of the model: joining never gives it */
};

/*
 * A vocabulary with a pipeline is used as Hugging Face's tokenizers library does it. The
 * pipeline is a JSON object with the library's own objects "normalizer", "pre_tokenizer" and
 * "decoder" (see pipeline.h), and the model's options:
 *   "model": {"byte_fallback", "fuse_unk", "ignore_merges": bool, "unk": id, "sentencepiece"},
 *   "prefix", "suffix": lists of ids around a text that asks for its begin and end.
 * model is then "bpe" (merge_ids), "unigram" (scores) or "llama" (scores).
 */
struct vocab_data {
    const char *model; /* tokenizer.ggml.model: "gpt2", "llama", … ; terminated */
    const char *pre;   /* tokenizer.ggml.pre: "smollm", … ; "" when the file does not say */
    const char *chat_template; /* the default one: valid UTF-8; "" when there is none */
    const char *arch; /* what the file calls its architecture ("llama", "gpt2"); "" unknown */
    const char *name; /* what the file calls the model ("DialoGPT-small"); "" unknown */
    /* Further templates: names ("tool_use"; distinct, never "default", VOCAB_TEMPLATE_NAME
     * bytes at most) and texts, valid UTF-8 without NUL; n = 0 when there are none. */
    struct vocab_strings template_names, template_texts;
    struct vocab_strings tokens;
    struct vocab_strings merges; /* n = 0 when there are none */
    const int32_t *types;        /* [tokens.n] enum vocab_token_type, or NULL */
    const float *scores;         /* [tokens.n], or NULL */
    const double *scores64;      /* [tokens.n], or NULL: where f32 does not hold the scores */
    const char *pipeline;        /* JSON, see above; "" when there is none */
    const uint8_t *added;        /* [tokens.n] enum vocab_added bits, or NULL */
    const uint32_t *merge_ids; /* [n_merge_ids, 3] ids: a and b give c; the first goes first */
    uint32_t n_merge_ids;
    const int32_t *eog; /* [n_eog] further tokens that end a generation */
    uint32_t n_eog;
    const uint8_t
        *charsmap; /* [n_charsmap] precompiled normaliser of Unigram models, or NULL */
    size_t n_charsmap;
#define X(field, key) int32_t field;
    VOCAB_ID_LIST(X)
#undef X
#define X(field, key) int8_t field;
    VOCAB_FLAG_LIST(X)
#undef X
    void *owned; /* what vocab_release() frees */
};

enum { /* of the chat templates that a model brings */
       VOCAB_TEMPLATES = 64,
       VOCAB_TEMPLATE_NAME = 64,
       VOCAB_TEMPLATE_BYTES = 4 << 20,
};

struct gguf;
struct container;

/* For those who fill one: an empty vocabulary (ids and flags -1, texts ""); memory that
 * vocab_release() frees with it; a copy of the strings of l in such memory (the bytes of each
 * are terminated by the next one's or by nothing: strings are read by length). */
void vocab_init(struct vocab_data *v);
void *vocab_own(struct vocab_data *v, void *takes_p);
void vocab_own_strings(struct vocab_data *v, struct vocab_strings *out,
                       const struct strlist *l);
/* Adds a template; "default" sets chat_template. ST_FORMAT for a name or a text that is not
 * valid or there twice, ST_LIMIT for too many or too much; messages begin with `where`. The
 * lists are collected in names and texts and end in v by vocab_own_strings(). */
enum status vocab_add_template(struct vocab_data *v, struct strlist *names,
                               struct strlist *texts, const char *where, const char *name,
                               const char *text, size_t len, struct err *err);

/* Both leave v released on failure. Pointers live until vocab_release() AND as long as the file
 * is open. ST_FORMAT names the key; ST_NOT_FOUND: the file has no tokenizer. */
enum status vocab_from_gguf(struct vocab_data *v, const struct gguf *g, struct err *err);
enum status vocab_from_container(struct vocab_data *v, const struct container *c,
                                 struct err *err);
void vocab_release(struct vocab_data *v);

#endif
