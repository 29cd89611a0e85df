/*
 * sha256.c - SHA-256 from its specification, FIPS 180-4.
 *
 * Used to say which file a model was made from, so plain C is fast enough (it runs beside the
 * quantiser). The constants are the first 32 bits of the fractional parts of the square roots
 * of the first 8 primes (initial hash) and of the cube roots of the first 64 primes (round
 * constants).
 */
#include "base/sha256.h"

#include <stdio.h>
#include <string.h>

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
    0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
    0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
    0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
    0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
    0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
    0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
    0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
    0xc67178f2};

static uint32_t rotr(uint32_t x, int n) {
    return x >> n | x << (32 - n);
}

/* Round t + i: what the specification calls a lies in v[-i mod 8], so no round moves the other
 * seven. */
#define V(n, i) v[((n) - (i)) & 7]
#define ROUND(i)                                                                               \
    do {                                                                                       \
        uint32_t a_ = V(0, i), e_ = V(4, i);                                                   \
        uint32_t t1_ = V(7, i) + (rotr(e_, 6) ^ rotr(e_, 11) ^ rotr(e_, 25)) +                 \
                       ((e_ & V(5, i)) ^ (~e_ & V(6, i))) + K[t + i] + w[t + i];               \
        V(3, i) += t1_;                                                                        \
        V(7, i) = t1_ + (rotr(a_, 2) ^ rotr(a_, 13) ^ rotr(a_, 22)) +                          \
                  ((a_ & V(1, i)) ^ (a_ & V(2, i)) ^ (V(1, i) & V(2, i)));                     \
    } while (0)

static void add_block(struct sha256 *s, const unsigned char *p) {
    uint32_t w[64], v[8]; /* v: a … h, turned by one place a round */
    for (int t = 0; t < 16; t++, p += 4)
        w[t] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    for (int t = 16; t < 64; t++) {
        uint32_t a = w[t - 15], b = w[t - 2];
        w[t] = w[t - 16] + (rotr(a, 7) ^ rotr(a, 18) ^ a >> 3) + w[t - 7] +
               (rotr(b, 17) ^ rotr(b, 19) ^ b >> 10);
    }
    memcpy(v, s->h, sizeof v);
    for (int t = 0; t < 64; t += 8) {
        ROUND(0);
        ROUND(1);
        ROUND(2);
        ROUND(3);
        ROUND(4);
        ROUND(5);
        ROUND(6);
        ROUND(7);
    }
    for (int i = 0; i < 8; i++)
        s->h[i] += v[i];
}

void sha256_init(struct sha256 *s) {
    *s = (struct sha256){.h = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f,
                               0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void sha256_add(struct sha256 *s, const void *p, size_t len) {
    const unsigned char *in = p;
    size_t held = (size_t)(s->n_bytes % 64);
    s->n_bytes += len;
    if (held) {
        size_t take = len < 64 - held ? len : 64 - held;
        memcpy(s->block + held, in, take);
        in += take;
        len -= take;
        if (held + take < 64)
            return;
        add_block(s, s->block);
    }
    for (; len >= 64; in += 64, len -= 64)
        add_block(s, in);
    memcpy(s->block, in, len);
}

void sha256_hex(struct sha256 *s, char out[65]) {
    static const unsigned char end[64] = {0x80};
    unsigned char bits[8];
    for (int i = 0; i < 8; i++)
        bits[i] = (unsigned char)(s->n_bytes * 8 >> (56 - 8 * i));
    sha256_add(s, end, 1 + (size_t)((119 - s->n_bytes % 64) % 64));
    sha256_add(s, bits, sizeof bits);
    for (int i = 0; i < 8; i++)
        snprintf(out + 8 * i, 9, "%08x", s->h[i]);
}
