/*
 * stream.h - bytes of tokens in, text that may be shown out.
 *
 * A token's bytes may end inside a character, and a stop string may lie across tokens. The
 * stream gives out only complete, valid UTF-8 (what can't become valid is U+FFFD), and holds
 * back what may still turn out to be the start of a stop string. The time for a byte does not
 * depend on how much is held back.
 *
 *     struct stream s;
 *     stream_init(&s, stops, n_stop);
 *     for each token: text_decode(...) -> bytes;  if (stream_push(&s, bytes, len, &out)) break;
 *     stream_flush(&s, &out);
 *     stream_release(&s);
 */
#ifndef LLMCHAT_ENGINE_TEXT_STREAM_H
#define LLMCHAT_ENGINE_TEXT_STREAM_H

#include "base/mem.h"
#include <stdbool.h>
#include <stddef.h>

struct stream_stop; /* one stop string and how much of it the text's end matches */

struct stream {
    struct stream_stop *stops; /* [n_stop], owned */
    size_t n_stop;
    char tail[4]; /* an unfinished character, tail_len bytes */
    size_t tail_len;
    struct buf held; /* valid text that may be the start of a stop string */
    size_t out_len;  /* bytes of held that are out already */
    bool stopped;
};

/* stops [n_stop] are copied; empty ones are ignored. n_stop may be 0. */
void stream_init(struct stream *s, const char *const *stops, size_t n_stop);
void stream_release(struct stream *s);

/* Takes the bytes of a token and appends to out what may be shown now, possibly nothing. True
 * when a stop string is complete: the text before it has been released, it and what follows are
 * dropped, and every later call gives nothing and true. */
bool stream_push(struct stream *s, const char *bytes, size_t len, struct buf *out);
/* Whether text is held back that a later push or flush may give. */
bool stream_holds(const struct stream *s);
/* The answer ended without a stop string: appends what was held back; an unfinished character
 * becomes U+FFFD. After it the stream is as after stream_init. Does nothing when a stop string
 * was found. */
void stream_flush(struct stream *s, struct buf *out);

#endif
