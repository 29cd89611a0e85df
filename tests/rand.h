/* rand.h - the same random numbers everywhere, for tests of arithmetic. */
#ifndef LLMCHAT_TESTS_RAND_H
#define LLMCHAT_TESTS_RAND_H

#include <stddef.h>
#include <stdint.h>

static uint64_t rand_state = 1;

static inline uint32_t rand_u32(void) {
    rand_state ^= rand_state >> 12;
    rand_state ^= rand_state << 25;
    rand_state ^= rand_state >> 27;
    return (uint32_t)(rand_state * 0x2545f4914f6cdd1dull >> 32);
}

/* About normal, mean 0, deviation 1: a sum of four uniform numbers. */
static inline float rand_normal(void) {
    float s = 0;
    for (int i = 0; i < 4; i++)
        s += (float)(rand_u32() >> 8) * 0x1p-24f - 0.5f;
    return s * 1.7320508f;
}

static inline void rand_fill(float *x, size_t n, float scale) {
    for (size_t i = 0; i < n; i++)
        x[i] = rand_normal() * scale;
}

#endif
