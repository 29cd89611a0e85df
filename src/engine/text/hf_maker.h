/*
 * hf_maker.h - a vocabulary while it is collected from the files of a Hugging Face folder; for
 * the readers of these files.
 */
#ifndef LLMCHAT_ENGINE_TEXT_HF_MAKER_H
#define LLMCHAT_ENGINE_TEXT_HF_MAKER_H

#include "engine/text/hf_scan.h"
#include "engine/text/vocab.h"
#include <jansson.h>

enum {
    HF_MAX_TOKENS = 1 << 22,
    HF_MAX_MERGES = 1 << 24,
    HF_MAX_TOKEN_BYTES = 1 << 16, /* of one token */
    HF_MAX_JSON = 256 << 20,      /* bytes of a tokenizer.json or vocab.json */
    HF_MAX_CONFIG = 16 << 20,
};

struct hf_tok {
    uint32_t off, len; /* in bytes.p */
    double score;
    uint8_t type;  /* enum vocab_token_type; VOCAB_UNDEFINED: no token has this id */
    uint8_t added; /* enum vocab_added */
};

struct hf_maker {
    struct vocab_data *v;
    const char *dir, *file; /* file: what is read, for messages */
    struct buf bytes;
    struct hf_tok *tok; /* [n] by id */
    uint32_t n, cap, n_set;
    int32_t *slot; /* [mask + 1] text to id, -1: empty */
    size_t mask;
    uint64_t seed;
    uint32_t *merge; /* [n_merge, 3] */
    size_t n_merge, cap_merge;
    bool scores;
    json_t *pipeline; /* the object that becomes vocab_data.pipeline */
    const char *model;
};

/* Token id gets this text. ST_FORMAT: the id is out of range, or another text has it. A text
 * that is there already with another id stays findable under that one. */
enum status hf_set(struct hf_maker *m, int64_t id, const char *s, size_t len, int type,
                   double score, struct err *err);
int32_t hf_find(const struct hf_maker *m, const char *s, size_t len); /* -1: no such token */
/* Joins a and b; ST_FORMAT when one of the three is no token. where: "merges: entry 5". */
enum status hf_merge(struct hf_maker *m, const char *where, size_t i, const char *a, size_t la,
                     const char *b, size_t lb, struct err *err);
/* An added token, of the vocabulary or beyond it. */
enum status hf_add(struct hf_maker *m, int64_t id, const char *s, size_t len, unsigned added,
                   bool special, struct err *err);
/* A JSON object {"content", "special", "lstrip", …}; id: what it has where it is new. */
enum status hf_add_json(struct hf_maker *m, int64_t id, const json_t *token, bool special,
                        struct err *err);

/* A JSON object of texts and ids, s on its brace. */
enum status hf_read_ids(struct hf_maker *m, struct hf_scan s, struct err *err);

/* Each reads a kind of vocabulary; hf_read_config() and what begins and ends comes after. */
enum status hf_read_tokenizer_json(struct hf_maker *m, struct err *err);
enum status hf_read_sentencepiece(struct hf_maker *m, struct err *err);
enum status hf_read_vocab_merges(struct hf_maker *m, struct err *err);
enum status hf_read_config(struct hf_maker *m, struct err *err);

#endif
