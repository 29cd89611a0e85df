/*
 * jinja_mem.c - a render's arena, limits and errors, and its strings.
 *
 * The arena is a list of chunks; an allocation is a pointer that moves up in the newest.
 * Nothing is freed before the render ends, so every byte counts against mem_max: a template
 * that piles up data ends with an error, not with the machine's memory. The one thing that
 * grows in place is a string builder at the tip of the newest chunk.
 *
 * Steps stand for time: every node evaluated, element visited and 64 bytes scanned or copied is
 * about one. A limit in seconds was rejected: the same input must give the same result on every
 * machine.
 */
#include "base/mem.h"
#include "base/utf8.h"
#include "engine/text/jinja_value.h"
#include <stdalign.h>
#include <stdlib.h>

enum { CHUNK_BYTES = 64 << 10 };

struct jx_chunk {
    struct jx_chunk *next;
    size_t used, size;
    alignas(16) char data[];
};

void jx_init(struct jx *x, struct err *err) {
    *x = (struct jx){.err = err, .doc = "chat template"};
}

void jx_release(struct jx *x) {
    while (x->chunk) {
        struct jx_chunk *c = x->chunk;
        x->chunk = c->next;
        free(c);
    }
}

static void fail_now(struct jx *x, enum status code, const char *fmt, va_list ap) {
    err_setv(x->err, code, fmt, ap);
    if (x->line > 0)
        err_prefix(x->err, "%s: line %d", x->doc, x->line);
    else
        err_prefix(x->err, "%s", x->doc);
    longjmp(x->fail, (int)code);
}

void jx_fail(struct jx *x, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fail_now(x, ST_FORMAT, fmt, ap);
    va_end(ap);
    abort(); /* fail_now does not come back */
}

void jx_limit(struct jx *x, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fail_now(x, ST_LIMIT, fmt, ap);
    va_end(ap);
    abort();
}

void jx_step_over(struct jx *x) {
    jx_limit(x, "it needs more than %llu steps", (unsigned long long)x->steps_max);
}

void jx_enter(struct jx *x) {
    if (++x->depth > x->depth_max)
        jx_limit(x, "it is nested deeper than %d levels", x->depth_max);
}

void *jx_alloc(struct jx *x, size_t n, size_t size_bytes) {
    size_t want, used;
    if (mul_overflows(n, size_bytes, &want) || want > x->mem_max ||
        (used = x->mem_used + want) > x->mem_max)
        jx_limit(x, "it needs more than %zu MiB of memory", x->mem_max >> 20);
    x->mem_used = used;
    want = (want + 15) & ~(size_t)15;
    if (!x->chunk || x->chunk->size - x->chunk->used < want) {
        size_t size = want > CHUNK_BYTES / 4 ? want : CHUNK_BYTES;
        struct jx_chunk *c = xcalloc(1, sizeof *c + size);
        c->size = size;
        if (size != CHUNK_BYTES &&
            x->chunk) { /* a large one stands alone: keep filling the newest */
            c->next = x->chunk->next;
            x->chunk->next = c;
            c->used = size;
            return c->data;
        }
        c->next = x->chunk;
        x->chunk = c;
    }
    void *p = x->chunk->data + x->chunk->used;
    x->chunk->used += want;
    return p;
}

/* ---- strings ---- */

struct jstr *js_new(struct jx *x, const char *p, const uint8_t *m, size_t n) {
    struct jstr *s = jx_alloc(x, 1, sizeof *s);
    *s = (struct jstr){p, m, n, n ? SIZE_MAX : 0, false};
    return s;
}

struct jv jv_str(struct jx *x, const char *p, size_t n) {
    return (struct jv){.kind = JV_STR, .s = js_new(x, p, NULL, n)};
}

struct jv jv_cstr(struct jx *x, const char *s) {
    return jv_str(x, s, strlen(s));
}

struct jv jv_keyword(struct jx *x, const struct jkw *kw) {
    if (kw->spelling)
        return (struct jv){.kind = JV_STR, .s = kw->spelling};
    return jv_str(x, kw->name->p, kw->name->n);
}

struct jv jv_sub(struct jx *x, const struct jstr *s, size_t from, size_t to) {
    struct jstr *r = js_new(x, s->p + from, s->m ? s->m + from : NULL, to - from);
    if (s->cps == s->n)
        r->cps = r->n;
    r->safe = s->safe;
    return (struct jv){.kind = JV_STR, .s = r};
}

const uint8_t *jx_ones(struct jx *x, size_t n) {
    if (n > x->n_ones) {
        x->ones = jx_alloc(x, 2 * n + 1024, 1);
        x->n_ones = 2 * n + 1024;
        memset(x->ones, 1, x->n_ones);
    }
    return x->ones;
}

size_t js_cps(struct jx *x, struct jstr *s) {
    if (s->cps == SIZE_MAX) {
        size_t c = 0;
        for (size_t i = 0; i < s->n; i++)
            c += ((unsigned char)s->p[i] & 0xC0) != 0x80;
        s->cps = c;
        jx_step(x, s->n / 64);
    }
    return s->cps;
}

size_t js_offset(struct jx *x, struct jstr *s, size_t cp) {
    if (cp >= js_cps(x, s))
        return s->n;
    if (s->cps == s->n)
        return cp;
    size_t i = 0;
    for (; cp; cp--)
        for (i++; i < s->n && ((unsigned char)s->p[i] & 0xC0) == 0x80; i++)
            ;
    jx_step(x, i / 64);
    return i;
}

bool js_eq(const struct jstr *a, const struct jstr *b) {
    return a == b || (a->n == b->n && (a->n == 0 || memcmp(a->p, b->p, a->n) == 0));
}

bool js_is(const struct jstr *a, const char *s) {
    return a->n == strlen(s) && memcmp(a->p, s, a->n) == 0;
}

uint32_t js_decode(const char *p, size_t n, size_t *used) {
    uint32_t cp = (unsigned char)p[0];
    if (cp < 0x80) {
        *used = 1;
        return cp;
    }
    *used = utf8_decode(p, n, &cp);
    return cp;
}

bool js_space(uint32_t cp) {
    if (cp < 0x80)
        return cp == ' ' || (cp >= 9 && cp <= 13) || (cp >= 0x1C && cp <= 0x1F);
    return cp == 0x85 || cp == 0xA0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) ||
           cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

static uint32_t hash_bytes(const char *p, size_t n) { /* FNV-1a */
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)p[i]) * 16777619u;
    return h;
}

static void names_grow(struct jx *x) {
    size_t cap = x->cap_names ? 2 * x->cap_names : 256;
    const struct jstr **t = jx_alloc(x, cap, sizeof *t);
    for (size_t i = 0; i < x->cap_names; i++) {
        const struct jstr *s = x->names[i];
        if (!s)
            continue;
        size_t at = hash_bytes(s->p, s->n) & (cap - 1);
        while (t[at])
            at = (at + 1) & (cap - 1);
        t[at] = s;
    }
    x->names = t;
    x->cap_names = cap;
}

const struct jstr *jx_intern(struct jx *x, const char *p, size_t n) {
    if (2 * (x->n_names + 1) > x->cap_names)
        names_grow(x);
    size_t at = hash_bytes(p, n) & (x->cap_names - 1);
    for (; x->names[at]; at = (at + 1) & (x->cap_names - 1))
        if (x->names[at]->n == n && memcmp(x->names[at]->p, p, n) == 0)
            return x->names[at];
    x->n_names++;
    return x->names[at] = js_new(x, p, NULL, n);
}

/* ---- string builder ---- */

static void *grow(struct jx *x, void *old, size_t used, size_t cap, size_t want) {
    struct jx_chunk *c = x->chunk;
    char *tip = c ? c->data + c->used : NULL;
    size_t cap16 = (cap + 15) & ~(size_t)15, want16 = (want + 15) & ~(size_t)15;
    if (old && tip && (char *)old + cap16 == tip && c->size - c->used >= want16 - cap16 &&
        x->mem_max - x->mem_used >= want - cap) {
        c->used += want16 - cap16;
        x->mem_used += want - cap;
        return old;
    }
    void *p = jx_alloc(x, want, 1);
    if (used)
        memcpy(p, old, used);
    jx_step(x, used / 64);
    return p;
}

static void jb_room(struct jx *x, struct jb *b, size_t more, bool mask) {
    size_t want;
    if (add_overflows(b->n, more, &want) || want > x->mem_max)
        jx_limit(x, "it needs more than %zu MiB of memory", x->mem_max >> 20);
    if (want > b->cap) {
        size_t cap = b->cap ? 2 * b->cap : 64;
        cap = cap < want ? want : cap;
        b->p = grow(x, b->p, b->n, b->cap, cap);
        if (b->m)
            b->m = grow(x, b->m, b->n, b->cap, cap);
        b->cap = cap;
    }
    if (mask && !b->m)
        b->m = jx_alloc(x, b->cap, 1);
}

void jb_add(struct jx *x, struct jb *b, const char *p, const uint8_t *m, size_t n) {
    if (!n)
        return;
    jb_room(x, b, n, m != NULL);
    memcpy(b->p + b->n, p, n);
    if (m)
        memcpy(b->m + b->n, m, n);
    else if (b->m)
        memset(b->m + b->n, 0, n);
    b->n += n;
    jx_step(x, n / 64);
}

void jb_adds(struct jx *x, struct jb *b, const char *s) {
    jb_add(x, b, s, NULL, strlen(s));
}

void jb_addc(struct jx *x, struct jb *b, char c, uint8_t m) {
    jb_add(x, b, &c, m ? &m : NULL, 1);
}

void jb_addcp(struct jx *x, struct jb *b, uint32_t cp, uint8_t m) {
    static const uint8_t ones[4] = {1, 1, 1, 1};
    char u[4];
    size_t n = utf8_encode(cp, u);
    jb_add(x, b, u, m ? ones : NULL, n);
}

void jb_addstr(struct jx *x, struct jb *b, const struct jstr *s) {
    jb_add(x, b, s->p, s->m, s->n);
}

void jb_fill(struct jx *x, struct jb *b, char c, uint8_t m, size_t n) {
    if (!n)
        return;
    jb_room(x, b, n, m);
    memset(b->p + b->n, c, n);
    if (b->m)
        memset(b->m + b->n, m, n);
    b->n += n;
    jx_step(x, n / 64);
}

struct jv jb_value(struct jx *x, struct jb *b) {
    struct jstr *s = js_new(x, b->p ? b->p : "", b->m, b->n);
    return (struct jv){.kind = JV_STR, .s = s};
}
