/*
 * pretok_steps.h - the steps of a pre-tokenizer; for pretok.c and who builds one.
 */
#ifndef LLMCHAT_ENGINE_TEXT_PRETOK_STEPS_H
#define LLMCHAT_ENGINE_TEXT_PRETOK_STEPS_H

#include "engine/text/pretok.h"
#include "engine/text/regex.h"

enum pretok_kind {
    PRETOK_SPLIT,
    PRETOK_PREFIX_SPACE, /* a blank in front of a piece that has none */
    PRETOK_SPELL,        /* bytes become characters of the byte-level alphabet */
    PRETOK_METASPACE,    /* blanks become `mark`, and one is put in front */
};
enum pretok_behavior { /* what becomes of matches, as the tokenizers library names it */
                       PRETOK_ISOLATED,
                       PRETOK_REMOVED,
                       PRETOK_MERGED_WITH_PREVIOUS,
                       PRETOK_MERGED_WITH_NEXT,
                       PRETOK_CONTIGUOUS,
};
enum pretok_scheme { PRETOK_ALWAYS, PRETOK_FIRST, PRETOK_NEVER };

struct pretok_step {
    enum pretok_kind kind;
    struct regex *regex; /* SPLIT */
    enum pretok_behavior behavior;
    bool invert;  /* what lies between matches counts as a match, and the reverse */
    char mark[8]; /* METASPACE: one character, terminated */
    enum pretok_scheme prepend; /* METASPACE */
};

/* An empty one; adding: ST_LIMIT when there are too many. The regex is taken in any case. */
struct pretok *pretok_new(void);
enum status pretok_add(struct pretok *p, const struct pretok_step *takes_step, struct err *err);

#endif
