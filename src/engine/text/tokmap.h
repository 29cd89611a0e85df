/*
 * tokmap.h - token text to token id: an open-addressing hash over a run of bytes that the
 * caller keeps.
 */
#ifndef LLMCHAT_ENGINE_TEXT_TOKMAP_H
#define LLMCHAT_ENGINE_TEXT_TOKMAP_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct tokmap_slot {
    uint32_t tag; /* high half of the hash */
    int32_t id;   /* -1: empty */
};

struct tokmap {
    struct tokmap_slot *slot; /* [mask + 1] */
    size_t mask;
    uint64_t seed;       /* drawn when it is made, so that no file can be built of collisions */
    const char *bytes;   /* borrowed: token i is bytes[off[i]] .. bytes[off[i + 1]] */
    const uint32_t *off; /* borrowed */
    size_t max_len;      /* longest text in the map */
};

/* Room for n tokens. */
void tokmap_init(struct tokmap *m, size_t n, const char *bytes, const uint32_t *off);
void tokmap_release(struct tokmap *m);
/* Adds the tokens of n for which take is not 0, at most as many as there is room for; a text
 * that is there already keeps its first id. Many at once, because in a large vocabulary each is
 * a cache miss and these can overlap. */
void tokmap_add(struct tokmap *m, const uint8_t *take, size_t n);
/* -1 when there is no such token. */
int32_t tokmap_get(const struct tokmap *m, const char *s, size_t len);

/* A number that differs from one program run to the next. */
uint64_t tokmap_seed(void);

static inline uint64_t hash_mix(uint64_t a, uint64_t b) {
    __uint128_t r = (__uint128_t)(a ^ 0x9e3779b97f4a7c15u) * (b ^ 0xe7037ed1a0b428dbu);
    return (uint64_t)r ^ (uint64_t)(r >> 64);
}

/* Eight bytes at a time, the rest padded with zeros; the length is mixed in, so the padding is
 * unambiguous. */
static inline uint64_t hash_bytes(const char *s, size_t len, uint64_t seed) {
    uint64_t h = seed ^ len, v;
    for (; len >= 8; s += 8, len -= 8) {
        memcpy(&v, s, 8);
        h = hash_mix(h, v);
    }
    v = 0;
    if (len > 0)
        memcpy(&v, s, len);
    return hash_mix(h, v);
}

#endif
