/*
 * mem.h - small host allocations, growable buffers, string lists.
 *
 * The x* functions never return NULL: when the system has no memory left they call the hook
 * (the ui restores the terminal in it, the chat saves what streams) and end the program. Sizes
 * that come from outside are bounded by their reader before they get here.
 */
#ifndef LLMCHAT_BASE_MEM_H
#define LLMCHAT_BASE_MEM_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

void *xmalloc(size_t size_bytes);
void *xcalloc(size_t n, size_t size_bytes);
/* Room for n items of size_bytes; the product is checked. */
void *xreallocarray(void *p, size_t n, size_t size_bytes);
/* The same on a 64-byte border, for numbers; not for realloc(). */
void *xaligned(size_t n, size_t size_bytes);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t len);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* What the machine has; 0: it does not say. */
uint64_t memory_bytes(void);
/* Called once, before the program ends for want of memory. */
void mem_set_hook(void (*hook)(void));

/* True when a * b or a + b overflows size_t; the result is in *out otherwise. */
static inline int mul_overflows(size_t a, size_t b, size_t *out) {
    return __builtin_mul_overflow(a, b, out);
}
static inline int add_overflows(size_t a, size_t b, size_t *out) {
    return __builtin_add_overflow(a, b, out);
}

/* A growable byte string. {0} is an empty one. p is always terminated by a NUL beyond len once
 * anything was added; buf_str() gives "" for an empty one. */
struct buf {
    char *p;
    size_t len, cap;
};
void buf_release(struct buf *b); /* frees the storage and empties b */
void buf_clear(struct buf *b);   /* keeps the storage */
void buf_reserve(struct buf *b, size_t more_bytes);
void buf_add(struct buf *b, const void *p, size_t len);
void buf_adds(struct buf *b, const char *s);
void buf_addc(struct buf *b, char c);
void buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_addcp(struct buf *b, uint32_t codepoint); /* as UTF-8 */
void buf_cut(struct buf *b, size_t len);           /* shortens to len */
const char *buf_str(const struct buf *b);
char *buf_take(struct buf *b); /* the caller frees; b is empty after */

/* An owned list of owned strings. {0} is an empty one. */
struct strlist {
    char **v;
    size_t n, cap;
};
void strlist_add(struct strlist *l, const char *s);
void strlist_addn(struct strlist *l, const char *s, size_t len);
void strlist_release(struct strlist *l);
void strlist_copy(struct strlist *dst, const struct strlist *src); /* dst is replaced */

#endif
