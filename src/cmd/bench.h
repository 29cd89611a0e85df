/*
 * bench.h - what the parts of `llmchat bench` share.
 *
 * bench.c reads the options and opens the model; bench_shapes.c measures prefill and decode of
 * given shapes, bench_serve.c the throughput of many requests; bench_stat.c has the statistics
 * and the random numbers, bench_memory.c the read bandwidth. All of it runs on the main thread,
 * beside the engine's. Times are microseconds of clock_us().
 */
#ifndef LLMCHAT_CMD_BENCH_H
#define LLMCHAT_CMD_BENCH_H

#include "engine/engine.h"

struct bench {
    struct engine *engine;
    const struct engine_info *info;
    const char *model; /* as it was typed, without folders */
    uint64_t random;   /* state of bench_random() */
    double bandwidth;  /* bytes a second that memory gives; 0: not measured, as for a GPU */
    enum speculation speculation;
    bool json;
};
/* n random tokens that are no control tokens; never the same twice. */
void bench_prompt(struct bench *b, int32_t *tokens /* [n] */, int n);
/* The first line for people: model, quantisation, device, threads; without its end. */
void bench_title(const struct bench *b);
void *bench_json_start(const struct bench *b);     /* a json_t with the same */
void bench_json_add(void *json, void *takes_more); /* the members of another object */

/* -- shapes: every prompt with every output and every batch -- */
struct bench_lists {
    const long *depth, *prompt, *output, *batch; /* depth: tokens in the KV cache before */
    size_t n_depth, n_prompt, n_output, n_batch;
    int repeat;
};
/* Prints a row for each; when it fails or is interrupted, those that were measured. */
enum status bench_shapes(struct bench *b, const struct bench_lists *l, struct err *err);

/* -- requests, as vLLM's benchmark sends them -- */
struct bench_load {
    int n_request, prompt, output;
    int concurrency; /* requests at the same time; 0: no limit */
    double rate;     /* requests a second; INFINITY: all at once */
};
enum { BENCH_MAX_BATCH = 256 };
enum status bench_serve(struct bench *b, const struct bench_load *l, struct err *err);

/* -- statistics -- */
struct series { /* {0} is empty */
    double *v;  /* [n] */
    size_t n, cap;
};
struct summary {
    double mean, median, stddev, min, max, p95, p99; /* stddev of the sample: n - 1 */
};
void series_add(struct series *s, double x);
void series_release(struct series *s);
struct summary series_summary(struct series *s); /* sorts it; of an empty one all are 0 */
/* Of sorted values, q from 0 to 1, linear between neighbours: what numpy.percentile() gives. */
double percentile(const double *sorted /* [n] */, size_t n, double q);

void bench_seed(uint64_t *state, uint64_t seed);
uint32_t bench_random(uint64_t *state);
double bench_wait_s(uint64_t *state,
                    double rate); /* to the next arrival of a Poisson process */

/* Bytes a second that `threads` threads read from memory; 0 when there is no memory for that.
 */
double bench_bandwidth(int threads);

#endif
