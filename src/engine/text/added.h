/*
 * added.h - tokens that are found in the text itself, before it is cut into words: control
 * tokens ("<|im_end|>") and user-defined ones ("<tool_call>", runs of blanks).
 */
#ifndef LLMCHAT_ENGINE_TEXT_ADDED_H
#define LLMCHAT_ENGINE_TEXT_ADDED_H

#include "base/mem.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ADDED_MAX_LEN = 1024 }; /* longest text of an added token in bytes */

struct added_tok {
    uint32_t off, len; /* in bytes.p */
    int32_t id;
    bool control;
};

struct added {
    struct added_tok *v; /* [n] sorted by text, then id */
    size_t n, cap;
    struct buf bytes;
    uint32_t first[257]; /* v[first[c]] .. v[first[c + 1]] begin with byte c */
    bool user[256];      /* some user-defined token begins with this byte */
};

/* {0} is empty. Text of 1..ADDED_MAX_LEN bytes. */
void added_add(struct added *a, const char *text, size_t len, int32_t id, bool control);
void added_finish(struct added *a); /* after the last added_add() */
void added_release(struct added *a);

/* The longest added token at text[pos], 0 when there is none, else its length and *id.
 * User-defined tokens always count; control tokens when special is set and no byte of them is
 * marked in plain [len] (or plain is NULL). */
size_t added_match(const struct added *a, const char *text, size_t len, size_t pos,
                   bool special, const uint8_t *plain, int32_t *id);

#endif
