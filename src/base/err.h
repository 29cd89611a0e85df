/*
 * err.h - how a failure travels.
 *
 * A function that can fail for a reason outside the program (files, input, the database, device
 * memory) returns enum status and fills a struct err that its caller owns. A bug of ours is an
 * assert; a small host allocation that fails ends the program (mem.h). Libraries never print
 * and never exit: only cmd/ and ui/ show a message.
 *
 * A message names the thing, what was found and what was wanted. It has no final full stop and
 * no newline.
 */
#ifndef LLMCHAT_BASE_ERR_H
#define LLMCHAT_BASE_ERR_H

#include <stdarg.h>
#include <stdbool.h>

/* The codes and their words, once. */
#define STATUS_LIST(X)                                                                         \
    X(OK, "ok")                                                                                \
    X(USAGE, "wrong usage")                                                                    \
    X(IO, "input/output error")                                                                \
    X(FORMAT, "malformed data")                                                                \
    X(UNSUPPORTED, "not supported")                                                            \
    X(NOT_FOUND, "not found")                                                                  \
    X(EXISTS, "already exists")                                                                \
    X(LIMIT, "limit exceeded")                                                                 \
    X(NOMEM, "out of memory")                                                                  \
    X(BUSY, "busy")                                                                            \
    X(QUEUE_FULL, "too many requests wait")                                                    \
    X(DB, "database error")                                                                    \
    X(DEVICE, "the device failed")                                                             \
    X(CANCELLED, "cancelled")                                                                  \
    X(CONTEXT_FULL, "context full")                                                            \
    X(INTERNAL, "internal error")

enum status {
#define X(name, words) ST_##name,
    STATUS_LIST(X)
#undef X
};

struct err {
    enum status code;
    char msg[512]; /* always terminated; valid UTF-8 without control characters */
};

/* The words of a code, a static string. */
const char *status_words(enum status st);

/* Fills e (which may be NULL) and returns code, so that `return err_set(e, ST_IO, …)` reads
 * well. Control characters and invalid UTF-8 in the formatted text become '?', a text too long
 * is cut at a character border. */
enum status err_set(struct err *e, enum status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
enum status err_setv(struct err *e, enum status code, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));

/* Puts "text: " before the message that e already holds; keeps the code. Returns the code. */
enum status err_prefix(struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Passes a failure on to the caller. */
#define CHECK(expr)                                                                            \
    do {                                                                                       \
        enum status check_st_ = (expr);                                                        \
        if (check_st_ != ST_OK)                                                                \
            return check_st_;                                                                  \
    } while (0)

/* Keeps a failure in the local `st` and leaves by the label `out:`, which releases in reverse
 * order. */
#define TRY(expr)                                                                              \
    do {                                                                                       \
        st = (expr);                                                                           \
        if (st != ST_OK)                                                                       \
            goto out;                                                                          \
    } while (0)

#endif
