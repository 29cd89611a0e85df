/*
 * hf_scan.h - the large parts of a tokenizer's JSON, read without making a tree of them.
 *
 * A vocabulary of 260,000 tokens and 500,000 merges would be two million nodes; here they are
 * read in one pass, each text into the same buffer. Keys may hold NUL, which tokens do and
 * jansson's keys can't.
 */
#ifndef LLMCHAT_ENGINE_TEXT_HF_SCAN_H
#define LLMCHAT_ENGINE_TEXT_HF_SCAN_H

#include "base/err.h"
#include "base/mem.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hf_scan { /* a place in a JSON text, which is terminated */
    const char *file, *p, *end, *start;
};

/* Functions move p behind what they read and leave blanks behind it. ST_FORMAT names the file
 * and the place. */
enum status hf_scan_fail(const struct hf_scan *s, const char *wanted, struct err *err);
/* True, and p behind it, when the next sign is c. */
bool hf_scan_take(struct hf_scan *s, char c);
enum status hf_scan_want(struct hf_scan *s, char c, struct err *err);
/* Replaces out by the text of a string. */
enum status hf_scan_string(struct hf_scan *s, struct buf *out, struct err *err);
enum status hf_scan_int(struct hf_scan *s, int64_t *out, struct err *err);
enum status hf_scan_number(struct hf_scan *s, double *out, struct err *err);
/* Any value; the signs are balanced afterwards, more is not checked. */
enum status hf_scan_skip(struct hf_scan *s, struct err *err);

#endif
