/*
 * mem.c - see mem.h.
 *
 * A program that streams an answer can't do anything useful with a failed allocation of a few
 * bytes, and code that pretends to is never tested. So small allocations end the program, after
 * a hook has saved what there is to save and restored the terminal. Large ones whose size comes
 * from outside (tensors, files) are not made here.
 */
#include "base/mem.h"
#include "base/utf8.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void (*mem_hook)(void);

uint64_t memory_bytes(void) {
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    return pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : 0;
}

void mem_set_hook(void (*hook)(void)) {
    mem_hook = hook;
}

static void out_of_memory(void) {
    void (*hook)(void) = mem_hook;
    mem_hook = NULL;
    if (hook)
        hook();
    static const char msg[] = "llmchat: out of memory\n";
    ssize_t ignored = write(STDERR_FILENO, msg, sizeof msg - 1);
    (void)ignored;
    _exit(1);
}

void *xmalloc(size_t size_bytes) {
    void *p = malloc(size_bytes ? size_bytes : 1);
    if (!p)
        out_of_memory();
    return p;
}

void *xcalloc(size_t n, size_t size_bytes) {
    void *p = calloc(n ? n : 1, size_bytes ? size_bytes : 1);
    if (!p)
        out_of_memory();
    return p;
}

void *xreallocarray(void *p, size_t n, size_t size_bytes) {
    size_t total;
    if (mul_overflows(n, size_bytes, &total))
        out_of_memory();
    void *q = realloc(p, total ? total : 1);
    if (!q)
        out_of_memory();
    return q;
}

void *xaligned(size_t n, size_t size_bytes) {
    size_t total, room;
    if (mul_overflows(n, size_bytes, &total) || add_overflows(total, 64, &room))
        out_of_memory();
    void *p = aligned_alloc(64, room / 64 * 64);
    if (!p)
        out_of_memory();
    return p;
}

char *xstrndup(const char *s, size_t len) {
    char *p = xmalloc(len + 1);
    if (len)
        memcpy(p, s, len);
    p[len] = 0;
    return p;
}

char *xstrdup(const char *s) {
    return xstrndup(s, strlen(s));
}

char *xasprintf(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char *p = NULL;
    int n = vasprintf(&p, fmt, ap);
    va_end(ap);
    if (n < 0)
        out_of_memory();
    return p;
}

void buf_release(struct buf *b) {
    free(b->p);
    *b = (struct buf){0};
}

void buf_clear(struct buf *b) {
    b->len = 0;
    if (b->p)
        b->p[0] = 0;
}

void buf_reserve(struct buf *b, size_t more_bytes) {
    size_t need;
    if (add_overflows(b->len, more_bytes, &need) || add_overflows(need, 1, &need))
        out_of_memory();
    if (need <= b->cap)
        return;
    size_t cap = b->cap < 32 ? 32 : b->cap;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    b->p = xreallocarray(b->p, cap, 1);
    b->cap = cap;
}

void buf_add(struct buf *b, const void *p, size_t len) {
    buf_reserve(b, len);
    if (len)
        memcpy(b->p + b->len, p, len);
    b->len += len;
    b->p[b->len] = 0;
}

void buf_adds(struct buf *b, const char *s) {
    buf_add(b, s, strlen(s));
}

void buf_addc(struct buf *b, char c) {
    buf_add(b, &c, 1);
}

void buf_addf(struct buf *b, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    char none[1];
    int n = vsnprintf(none, sizeof none, fmt, ap);
    va_end(ap);
    assert(n >= 0);
    buf_reserve(b, (size_t)n);
    vsnprintf(b->p + b->len, (size_t)n + 1, fmt, again);
    va_end(again);
    b->len += (size_t)n;
}

void buf_addcp(struct buf *b, uint32_t codepoint) {
    char tmp[4];
    buf_add(b, tmp, utf8_encode(codepoint, tmp));
}

void buf_cut(struct buf *b, size_t len) {
    assert(len <= b->len);
    b->len = len;
    if (b->p)
        b->p[len] = 0;
}

const char *buf_str(const struct buf *b) {
    return b->p ? b->p : "";
}

char *buf_take(struct buf *b) {
    char *p = b->p ? b->p : xstrdup("");
    *b = (struct buf){0};
    return p;
}

void strlist_addn(struct strlist *l, const char *s, size_t len) {
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 8;
        l->v = xreallocarray(l->v, l->cap, sizeof *l->v);
    }
    l->v[l->n++] = xstrndup(s, len);
}

void strlist_add(struct strlist *l, const char *s) {
    strlist_addn(l, s, strlen(s));
}

void strlist_release(struct strlist *l) {
    for (size_t i = 0; i < l->n; i++)
        free(l->v[i]);
    free(l->v);
    *l = (struct strlist){0};
}

void strlist_copy(struct strlist *dst, const struct strlist *src) {
    struct strlist fresh = {0};
    for (size_t i = 0; i < src->n; i++)
        strlist_add(&fresh, src->v[i]);
    strlist_release(dst);
    *dst = fresh;
}
