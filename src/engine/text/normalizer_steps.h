/*
 * normalizer_steps.h - the steps of a normalizer; for the normalizer's own files.
 */
#ifndef LLMCHAT_ENGINE_TEXT_NORMALIZER_STEPS_H
#define LLMCHAT_ENGINE_TEXT_NORMALIZER_STEPS_H

#include "engine/text/added.h"
#include "engine/text/normalizer.h"

struct norm_step {
    void (*run)(const struct norm_step *s, const struct norm_text *in, struct norm_text *out);
    char *text; /* [len] what is put in front or in the place of a match; owned */
    size_t len;
    struct regex *regex;          /* of "Replace", which has no run(); owned */
    const struct charsmap *chars; /* borrowed */
    bool left, right, compose, compat;
    bool prefix, squeeze, escape, suffix, first_only; /* SentencePiece */
    const struct added *keep;                         /* or NULL; borrowed */
};

/* Appends s [n], made from bytes from .. to-1 of in. */
void norm_emit(struct norm_text *out, const struct norm_text *in, const char *s, size_t n,
               size_t from, size_t to);
/* Appends bytes from .. to-1 of in as they are. */
void norm_copy(struct norm_text *out, const struct norm_text *in, size_t from, size_t to);

/* unorm.c: NFC, NFD, NFKC, NFKD by compose and compat */
void norm_unicode(const struct norm_step *s, const struct norm_text *in, struct norm_text *out);
/* norm_sentencepiece.c */
void norm_precompiled(const struct norm_step *s, const struct norm_text *in,
                      struct norm_text *out);
void norm_sentencepiece(const struct norm_step *s, const struct norm_text *in,
                        struct norm_text *out);

#endif
