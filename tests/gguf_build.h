/*
 * gguf_build.h - GGUF files made in a test, right ones and wrong ones.
 *
 * Bytes are appended in the file's order; counts can be overwritten afterwards. For test
 * programs only.
 */
#ifndef LLMCHAT_TESTS_GGUF_BUILD_H
#define LLMCHAT_TESTS_GGUF_BUILD_H

#include "base/mem.h"
#include "engine/model/gguf.h"
#include <string.h>

static inline void gb_u32(struct buf *b, uint32_t v) {
    for (int i = 0; i < 4; i++)
        buf_addc(b, (char)(v >> 8 * i));
}

static inline void gb_u64(struct buf *b, uint64_t v) {
    for (int i = 0; i < 8; i++)
        buf_addc(b, (char)(v >> 8 * i));
}

static inline void gb_f32(struct buf *b, float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    gb_u32(b, bits);
}

static inline void gb_str(struct buf *b, const char *s) {
    gb_u64(b, strlen(s));
    buf_adds(b, s);
}

static inline void gb_head(struct buf *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv) {
    buf_adds(b, "GGUF");
    gb_u32(b, version);
    gb_u64(b, n_tensors);
    gb_u64(b, n_kv);
}

static inline void gb_key(struct buf *b, const char *key, enum gguf_type type) {
    gb_str(b, key);
    gb_u32(b, type);
}

static inline void gb_kv_str(struct buf *b, const char *key, const char *value) {
    gb_key(b, key, GGUF_STR);
    gb_str(b, value);
}

static inline void gb_kv_u32(struct buf *b, const char *key, uint32_t v) {
    gb_key(b, key, GGUF_U32);
    gb_u32(b, v);
}

static inline void gb_kv_f32(struct buf *b, const char *key, float v) {
    gb_key(b, key, GGUF_F32);
    gb_f32(b, v);
}

static inline void gb_kv_array(struct buf *b, const char *key, enum gguf_type elem,
                               uint64_t n) {
    gb_key(b, key, GGUF_ARR);
    gb_u32(b, elem);
    gb_u64(b, n);
}

static inline void gb_tensor(struct buf *b, const char *name, int n_dims, uint64_t ne0,
                             uint64_t ne1, uint32_t type, uint64_t offset) {
    gb_str(b, name);
    gb_u32(b, (uint32_t)n_dims);
    if (n_dims > 0)
        gb_u64(b, ne0);
    if (n_dims > 1)
        gb_u64(b, ne1);
    gb_u32(b, type);
    gb_u64(b, offset);
}

/* Zero bytes up to a multiple of n. */
static inline void gb_align(struct buf *b, size_t n) {
    while (b->len % n)
        buf_addc(b, 0);
}

static inline void gb_patch_u64(struct buf *b, size_t at, uint64_t v) {
    for (int i = 0; i < 8; i++)
        b->p[at + (size_t)i] = (char)(v >> 8 * i);
}

#endif
