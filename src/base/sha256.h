/* sha256.h - the SHA-256 hash (FIPS 180-4). */
#ifndef LLMCHAT_BASE_SHA256_H
#define LLMCHAT_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

struct sha256 {
    uint32_t h[8];
    uint64_t n_bytes;
    unsigned char block[64]; /* n_bytes % 64 bytes wait here */
};
void sha256_init(struct sha256 *s);
void sha256_add(struct sha256 *s, const void *p, size_t len);
void sha256_hex(struct sha256 *s, char out[65]); /* ends the hash */

#endif
