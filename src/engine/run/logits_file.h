/*
 * logits_file.h - log probabilities on disk, to compare two models token by token.
 *
 * The file, little-endian, everything without gaps:
 *
 *     0   8 bytes  "LLMLOGIT"
 *     8   uint32   version, 1
 *    12   uint32   n_vocab
 *    16   uint32   ctx, tokens of a window
 *    20   uint32   n_window
 *    24   int32    tokens[n_window * ctx]
 *         rows     n_window * (ctx - ctx/2 - 1) of them, in order of position:
 *             uint32  best            the most likely token
 *             float   top             its log probability
 *             float   step
 *             uint16  q[n_vocab]      log p = top - step * q; one more uint16 of 0 where
 * n_vocab is odd
 *
 * Log probabilities more than 24 nats under the best are stored as 24 (together they weigh
 * under 1e-5 even in a vocabulary of a quarter million). The step is then at most 24 / 65535,
 * and the reader, having normalised the row again, gets a KL divergence of a model from itself
 * under (step / 2)^2 = 4e-8, and others to four digits.
 */
#ifndef LLMCHAT_ENGINE_RUN_LOGITS_FILE_H
#define LLMCHAT_ENGINE_RUN_LOGITS_FILE_H

#include "base/err.h"
#include "base/file_map.h"
#include "base/path.h"
#include <stddef.h>
#include <stdint.h>

/* What both sides must agree on. */
struct logits_shape {
    uint32_t n_vocab, ctx, n_window;
    const int32_t *tokens; /* [n_window * ctx], borrowed */
};

struct logits_writer {
    struct atomic_file file;
    uint32_t n_vocab;
    uint8_t *row;
};
enum status logits_writer_open(struct logits_writer *w, const char *path,
                               const struct logits_shape *shape, struct err *err);
/* logp [n_vocab] */
enum status logits_writer_add(struct logits_writer *w, const float *logp, uint32_t best,
                              struct err *err);
/* Ends the file, or with keep false leaves nothing behind. Releases w either way. */
enum status logits_writer_close(struct logits_writer *w, bool keep, struct err *err);

struct logits_reader {
    struct file_map map; /* of the file; empty when the memory is the caller's */
    const unsigned char *next;
    uint32_t n_vocab;
};
/* ST_FORMAT names what is wrong: not such a file, newer, truncated, or of another shape or
 * other tokens. */
enum status logits_reader_open(struct logits_reader *r, const char *path,
                               const struct logits_shape *shape, struct err *err);
/* The same over memory that the caller keeps alive; name stands in messages. */
enum status logits_reader_parse(struct logits_reader *r, const void *p, size_t len,
                                const char *name, const struct logits_shape *shape,
                                struct err *err);
/* The next row, at most n_window * (ctx - ctx/2 - 1) times: logp [n_vocab]. ST_FORMAT for
 * numbers that can't be. */
enum status logits_reader_next(struct logits_reader *r, float *logp, uint32_t *best,
                               struct err *err);
void logits_reader_close(struct logits_reader *r);

#endif
