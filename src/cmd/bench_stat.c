/*
 * bench_stat.c - medians, percentiles and random numbers for `llmchat bench`.
 *
 * Percentiles interpolate as numpy does, so that they can be set beside other benchmarks'.
 */
#include "base/mem.h"
#include "cmd/bench.h"
#include <math.h>
#include <stdlib.h>

void series_add(struct series *s, double x) {
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 64;
        s->v = xreallocarray(s->v, s->cap, sizeof *s->v);
    }
    s->v[s->n++] = x;
}

void series_release(struct series *s) {
    free(s->v);
    *s = (struct series){0};
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double percentile(const double *sorted, size_t n, double q) {
    if (n == 0)
        return 0;
    double at = q * (double)(n - 1);
    size_t low = (size_t)at;
    if (low + 1 >= n)
        return sorted[n - 1];
    return sorted[low] + (at - (double)low) * (sorted[low + 1] - sorted[low]);
}

struct summary series_summary(struct series *s) {
    struct summary r = {0};
    if (s->n == 0)
        return r;
    qsort(s->v, s->n, sizeof *s->v, by_size);
    double n = (double)s->n, squares = 0;
    for (size_t i = 0; i < s->n; i++)
        r.mean += s->v[i] / n;
    for (size_t i = 0; i < s->n; i++)
        squares += (s->v[i] - r.mean) * (s->v[i] - r.mean);
    r.stddev = s->n > 1 ? sqrt(squares / (n - 1)) : 0;
    r.min = s->v[0];
    r.max = s->v[s->n - 1];
    r.median = percentile(s->v, s->n, 0.5);
    r.p95 = percentile(s->v, s->n, 0.95);
    r.p99 = percentile(s->v, s->n, 0.99);
    return r;
}

/* The finaliser of splitmix64: neighbouring seeds give states far apart, and none gives 0. */
void bench_seed(uint64_t *state, uint64_t seed) {
    uint64_t z = seed + 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    *state = (z ^ z >> 31) | 1;
}

/* xorshift64*: prompts need no better randomness. */
uint32_t bench_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (uint32_t)(*state * 0x2545f4914f6cdd1dull >> 32);
}

double bench_wait_s(uint64_t *state, double rate) {
    double uniform = ((double)bench_random(state) + 1) / 4294967296.0; /* over 0, up to 1 */
    return -log(uniform) / rate;
}
