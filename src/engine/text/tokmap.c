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

static struct tokmap_slot *tokmap_find(const struct tokmap *m, const char *s, size_t len,
                                       uint32_t *tag) {
    uint64_t h = hash_bytes(s, len, m->seed);
    *tag = (uint32_t)(h >> 32);
    for (size_t i = h & m->mask;; i = (i + 1) & m->mask) {
        struct tokmap_slot *slot = &m->slot[i];
        if (slot->id < 0)
            return slot;
        if (slot->tag != *tag)
            continue;
        uint32_t at = m->off[slot->id];
        if (m->off[slot->id + 1] - at == len && memcmp(m->bytes + at, s, len) == 0)
            return slot;
    }
}

void tokmap_add(struct tokmap *m, int32_t id) {
    uint32_t tag;
    size_t len = m->off[id + 1] - m->off[id];
    struct tokmap_slot *slot = tokmap_find(m, m->bytes + m->off[id], len, &tag);
    if (slot->id >= 0)
        return;
    slot->id = id;
    slot->tag = tag;
    if (len > m->max_len)
        m->max_len = len;
}

int32_t tokmap_get(const struct tokmap *m, const char *s, size_t len) {
    uint32_t tag;
    return len > m->max_len || len == 0 ? -1 : tokmap_find(m, s, len, &tag)->id;
}
