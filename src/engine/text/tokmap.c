/*
 * tokmap.c - see tokmap.h.
 *
 * Linear probing at a load of at most one half. A slot holds half of the hash beside the id, so
 * the text is compared (a cache miss in a large vocabulary) only when the token is almost
 * certainly the right one. Built once, read by any thread.
 */
#include "engine/text/tokmap.h"
#include "base/clock.h"
#include "base/mem.h"
#include <stdlib.h>
#include <sys/random.h>

uint64_t tokmap_seed(void) {
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != (ssize_t)sizeof seed)
        seed = (uint64_t)clock_us();
    return seed;
}

void tokmap_init(struct tokmap *m, size_t n, const char *bytes, const uint32_t *off) {
    size_t size = 16;
    while (size < 2 * n)
        size *= 2;
    m->slot = xreallocarray(NULL, size, sizeof *m->slot);
    memset(m->slot, 0xff, size * sizeof *m->slot); /* id -1 everywhere */
    m->mask = size - 1;
    m->seed = tokmap_seed();
    m->bytes = bytes;
    m->off = off;
    m->max_len = 0;
}

void tokmap_release(struct tokmap *m) {
    free(m->slot);
    memset(m, 0, sizeof *m);
}

/* h: hash_bytes() of the text. */
static struct tokmap_slot *tokmap_find(const struct tokmap *m, const char *s, size_t len,
                                       uint64_t h) {
    uint32_t tag = (uint32_t)(h >> 32);
    for (size_t i = h & m->mask;; i = (i + 1) & m->mask) {
        struct tokmap_slot *slot = &m->slot[i];
        if (slot->id < 0)
            return slot;
        if (slot->tag != tag)
            continue;
        uint32_t at = m->off[slot->id];
        if (m->off[slot->id + 1] - at == len && memcmp(m->bytes + at, s, len) == 0)
            return slot;
    }
}

static void add(struct tokmap *m, int32_t id, uint64_t h) {
    size_t len = m->off[id + 1] - m->off[id];
    struct tokmap_slot *slot = tokmap_find(m, m->bytes + m->off[id], len, h);
    if (slot->id >= 0)
        return;
    slot->id = id;
    slot->tag = (uint32_t)(h >> 32);
    if (len > m->max_len)
        m->max_len = len;
}

/* The hash of a token's text, with its slot on the way into the cache. */
static uint64_t hash_ahead(const struct tokmap *m, size_t id) {
    uint64_t h = hash_bytes(m->bytes + m->off[id], m->off[id + 1] - m->off[id], m->seed);
    __builtin_prefetch(&m->slot[h & m->mask], 1);
    return h;
}

void tokmap_add(struct tokmap *m, const uint8_t *take, size_t n) {
    enum { AHEAD = 16 };
    uint64_t h[AHEAD];
    for (size_t i = 0; i < n + AHEAD; i++) {
        if (i >= AHEAD && take[i - AHEAD])
            add(m, (int32_t)(i - AHEAD), h[i % AHEAD]);
        if (i < n && take[i])
            h[i % AHEAD] = hash_ahead(m, i);
    }
}

int32_t tokmap_get(const struct tokmap *m, const char *s, size_t len) {
    if (len > m->max_len || len == 0)
        return -1;
    return tokmap_find(m, s, len, hash_bytes(s, len, m->seed))->id;
}
