/*
 * bench_memory.c - how fast this machine's memory can be read.
 *
 * Each thread owns a part of a buffer far larger than the caches and touches it first, so that
 * on machines with several memories it is near. All threads then read together, several times,
 * by sums of 16-byte vectors (written as such: at -O2 gcc 12 leaves a plain loop's sums in
 * memory): once from front to back, once as four streams, because which of the two is faster
 * depends on the processor's prefetcher; the median of the better one counts. The best pass
 * would be a burst: on a shared host single passes of 20 ms were seen at twice what lasts. Huge
 * pages are asked for, as the best case.
 *
 * Measured and left out: 64-byte vectors and prefetch instructions, which read no faster.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "cmd/bench.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PASSES = 16, STREAMS = 4 };

typedef uint64_t vec __attribute__((vector_size(16)));

struct reader {
    pthread_t thread;
    pthread_mutex_t *gate; /* open once all threads are there */
    pthread_barrier_t *together;
    vec *p; /* [n] */
    size_t n;
    int64_t begin[PASSES], end[PASSES];
    vec sum; /* so that nothing is left out */
};

static vec read_forward(const vec *p, size_t n) {
    vec a = {0}, b = {0}, c = {0}, d = {0};
    for (size_t i = 0; i + 16 <= n; i += 16) {
        a += p[i] + p[i + 1];
        b += p[i + 2] + p[i + 3];
        c += p[i + 4] + p[i + 5];
        d += p[i + 6] + p[i + 7];
        a += p[i + 8] + p[i + 9];
        b += p[i + 10] + p[i + 11];
        c += p[i + 12] + p[i + 13];
        d += p[i + 14] + p[i + 15];
    }
    return a + b + c + d;
}

static vec read_streams(const vec *p, size_t n) {
    vec a = {0}, b = {0}, c = {0}, d = {0};
    size_t part = n / STREAMS;
    const vec *q = p + part, *r = q + part, *s = r + part;
    for (size_t i = 0; i + 4 <= part; i += 4) {
        a += (p[i] + p[i + 1]) + (p[i + 2] + p[i + 3]);
        b += (q[i] + q[i + 1]) + (q[i + 2] + q[i + 3]);
        c += (r[i] + r[i + 1]) + (r[i + 2] + r[i + 3]);
        d += (s[i] + s[i + 1]) + (s[i + 2] + s[i + 3]);
    }
    return a + b + c + d;
}

static void *read_all(void *arg) {
    struct reader *r = arg;
    pthread_mutex_lock(r->gate);
    pthread_mutex_unlock(r->gate);
    memset(r->p, 1, r->n * sizeof *r->p);
    for (int i = 0; i < PASSES; i++) {
        pthread_barrier_wait(r->together);
        r->begin[i] = clock_us();
        r->sum += i % 2 ? read_streams(r->p, r->n) : read_forward(r->p, r->n);
        r->end[i] = clock_us();
    }
    return NULL;
}

/* From the first thread's begin to the last one's end. */
static double pass_rate(const struct reader *r, int n, int pass) {
    int64_t begin = r[0].begin[pass], end = r[0].end[pass];
    size_t bytes = 0;
    for (int i = 0; i < n; i++) {
        begin = r[i].begin[pass] < begin ? r[i].begin[pass] : begin;
        end = r[i].end[pass] > end ? r[i].end[pass] : end;
        bytes += r[i].n * sizeof(vec);
    }
    return end > begin ? (double)bytes / (double)(end - begin) * 1e6 : 0;
}

static double better_median(const struct reader *r, int n) {
    double best = 0;
    for (int kind = 0; kind < 2; kind++) {
        struct series rates = {0};
        for (int pass = kind; pass < PASSES; pass += 2)
            series_add(&rates, pass_rate(r, n, pass));
        double median = series_summary(&rates).median;
        best = median > best ? median : best;
        series_release(&rates);
    }
    return best;
}

static double read_buffer(char *buffer, size_t bytes, int threads) {
    struct reader *r = xcalloc((size_t)threads, sizeof *r);
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_barrier_t together;
    size_t part = bytes / (size_t)threads / sizeof(vec) / (16 * STREAMS) * (16 * STREAMS);
    int n = 0;
    pthread_mutex_lock(&gate);
    for (; n < threads; n++) {
        r[n].gate = &gate;
        r[n].together = &together;
        r[n].p = (vec *)buffer + part * (size_t)n;
        r[n].n = part;
        if (pthread_create(&r[n].thread, NULL, read_all, &r[n]) != 0)
            break; /* those that are there measure */
    }
    if (n)
        pthread_barrier_init(&together, NULL, (unsigned)n);
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < n; i++)
        pthread_join(r[i].thread, NULL);
    double rate = n ? better_median(r, n) : 0;
    if (n)
        pthread_barrier_destroy(&together);
    free(r);
    return rate;
}

double bench_bandwidth(int threads) {
    long pages = sysconf(_SC_AVPHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    bool plenty = pages > 0 && page_bytes > 0 && pages > (2L << 30) / page_bytes;
    size_t bytes = plenty ? 512u << 20 : 128u << 20;
    char *buffer =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED)
        return 0;
#ifdef MADV_HUGEPAGE
    madvise(buffer, bytes, MADV_HUGEPAGE);
#endif
    double rate = read_buffer(buffer, bytes, threads);
    munmap(buffer, bytes);
    return rate;
}
