/*
 * pool.h - a persistent team of threads for parallel loops.
 *
 * pool_run() calls the body once for each item and returns when all are done; the calling
 * thread works too. Each thread begins with its own part of the items, the same part of every
 * loop, and they are claimed one at a time: a worker that the system holds back delays nothing
 * but its own item. Between loops workers spin for some tens of microseconds
 * (loops of one step follow each other closely), then sleep.
 */
#ifndef LLMCHAT_ENGINE_CPU_POOL_H
#define LLMCHAT_ENGINE_CPU_POOL_H

struct pool;

/* thread: 0 .. pool_threads() - 1, for per-thread scratch; 0 is the caller. */
typedef void pool_body(void *ctx, int item, int thread);

/* threads 0: cores_default(). A thread that can't be started is done without: pool_threads()
 * tells.
 */
struct pool *pool_new(int threads);
void pool_free(struct pool *p); /* NULL is allowed */
int pool_threads(const struct pool *p);
/* One loop at a time; n_item < 2^20. Not from inside a body. */
void pool_run(struct pool *p, int n_item, pool_body *body, void *ctx);

#endif
