/*
 * pretok.h - cutting text into words before it is given to the model.
 *
 * A sequence of steps, each of which works on every piece that the step before it made: most
 * cut a piece where a regular expression matches, some change it. A step sees a piece as a text
 * by itself, so a look-ahead does not see across an earlier cut. The steps come from a name
 * (GGUF: tokenizer.ggml.pre; pretok_rules.c) or from the pre_tokenizer of a tokenizer.json
 * (pretok_json.c).
 */
#ifndef LLMCHAT_ENGINE_TEXT_PRETOK_H
#define LLMCHAT_ENGINE_TEXT_PRETOK_H

#include "base/err.h"
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum { PRETOK_MAX_STAGES = 8, PRETOK_MAX_STEPS = 48 };

struct pretok_rule {          /* one way of cutting */
    const char *const *names; /* NULL at the end */
    const char
        *stages[PRETOK_MAX_STAGES]; /* PCRE2, UTF and UCP; \s is White_Space; NULL at the end */
    bool whole_words;               /* a word that is a token is not merged ("ignore_merges") */
    bool bos; /* such models want a begin token where the file does not say */
};

/* The rule of a name; "" is GPT-2's. ST_UNSUPPORTED names the known ones. */
enum status pretok_rule(const char *name, const struct pretok_rule **out, struct err *err);
const struct pretok_rule *pretok_rules(size_t *n);

struct pretok;     /* compiled; immutable, for any thread */
struct pretok_run; /* what one thread needs while it cuts */

/* The stages of a rule. */
enum status pretok_open(const char *const *stages, struct pretok **out, struct err *err);
/* A pre_tokenizer of the tokenizers library; null: the text is one word. Messages begin with
 * "pre_tokenizer". */
enum status pretok_from_json(const json_t *json, struct pretok **out, struct err *err);
void pretok_close(struct pretok *p); /* NULL is allowed */

/* True when the last step, and no other, spells bytes in the alphabet of byte-level models.
 * pretok_keep_bytes() leaves that step out: words are the bytes themselves. */
bool pretok_spells_last(const struct pretok *p);
void pretok_keep_bytes(struct pretok *p);

/* NULL when the system has no memory for it. */
struct pretok_run *pretok_run_new(const struct pretok *p);
void pretok_run_free(struct pretok_run *r); /* NULL is allowed */

typedef enum status (*pretok_word_fn)(void *user, const char *word, size_t len,
                                      struct err *err);
/* Calls word() for each word of text [len], valid UTF-8, in order. first: nothing of the whole
 * text lies in front of it. A regular expression that exceeds its limits is ST_LIMIT, a failure
 * of word() is passed on. */
enum status pretok_split(struct pretok_run *r, const char *text, size_t len, bool first,
                         pretok_word_fn word, void *user, struct err *err);

#endif
