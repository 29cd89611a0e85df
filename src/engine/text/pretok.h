/*
 * pretok.h - cutting text into words before byte-pair merging, by the model's own regular
 * expressions.
 *
 * A model names its way of cutting (GGUF: tokenizer.ggml.pre). Each way is a sequence of
 * stages; a stage is a regular expression that cuts every piece of the stage before it into its
 * matches and what lies between them. A stage sees a piece as a text by itself, so a look-ahead
 * does not see across an earlier cut.
 */
#ifndef LLMCHAT_ENGINE_TEXT_PRETOK_H
#define LLMCHAT_ENGINE_TEXT_PRETOK_H

#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>

enum { PRETOK_MAX_STAGES = 8 };

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

enum status pretok_open(const char *const *stages, struct pretok **out, struct err *err);
void pretok_close(struct pretok *p); /* NULL is allowed */

/* NULL when the system has no memory for it. */
struct pretok_run *pretok_run_new(const struct pretok *p);
void pretok_run_free(struct pretok_run *r); /* NULL is allowed */

typedef enum status (*pretok_word_fn)(void *user, const char *word, size_t len,
                                      struct err *err);
/* Calls word() for each word of text [len], valid UTF-8, in order; together they are the text.
 * A regular expression that exceeds its limits is ST_LIMIT, a failure of word() is passed on.
 */
enum status pretok_split(struct pretok_run *r, const char *text, size_t len,
                         pretok_word_fn word, void *user, struct err *err);

#endif
