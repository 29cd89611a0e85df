/*
 * keep.h - keeps the states of conversations in files, so that nothing is computed twice, even
 * after a restart.
 *
 * Saving: the engine thread hands a timeline over (keep_save), of which the keeper holds a
 * fork; a thread of its own writes it. The blocks reach that thread in pieces that the engine
 * thread copies between its steps (keep_pump), so that only one thread ever uses the backend,
 * and the engine never waits for the disk. Loading: between two steps, and on the threads of the
 * backend, blocks of the file with the longest common beginning are read into a timeline, a
 * piece at a time (keep_load); straight to their places where these are host memory.
 *
 * All functions belong to the engine's thread, but for keep_open().
 */
#ifndef LLMCHAT_ENGINE_RUN_KEEP_H
#define LLMCHAT_ENGINE_RUN_KEEP_H

#include "engine/run/graph.h"
#include "engine/run/kv.h"

enum { KEEP_MIN_TOK = 64 }; /* shorter ones are computed as fast as they are read */

struct keep_params {
    const char *dir; /* copied; exists */
    uint64_t max_bytes;
    uint64_t model, form; /* what the numbers depend on, see state_file.h */
    const char *name;     /* the model's file, copied */
    size_t block_bytes;
    struct graph *graph; /* this and the pool: borrowed */
    struct kv_pool *pool;
    void (*wake)(void *user); /* from the keeper's thread: keep_pump() has something to do */
    void *user;
};

struct keep;
/* NULL when there can be none; the log says why. */
struct keep *keep_open(const struct keep_params *p);
/* Writes what waits, for two seconds at most, and ends. NULL is allowed. */
void keep_close(struct keep *k);

/* The first n_tok tokens of the timeline, for owner (not 0), unless they are few, a file has
 * all of them, or their KV depends on tokens that the timeline no longer has (kv_shift). */
void keep_save(struct keep *k, const struct kv_seq *kv, int n_tok, int64_t owner);
/* Gives up what waits to be written last, since the pool needs its blocks. False when nothing
 * holds any. */
bool keep_give_up(struct keep *k);
/* Hands the keeper's thread what it waits for, and takes back what it is done with. */
void keep_pump(struct keep *k);

/* Reads up to max_bytes behind what kv holds, as far as a file has the same tokens; the last of
 * tokens [n_tok] is left to compute. The pool has room. True when there is more to read. */
bool keep_load(struct keep *k, struct kv_seq *kv, const int32_t *tokens, int n_tok,
               size_t max_bytes);

/* Removes what is kept for owner, of any model; in the background. */
void keep_forget(struct keep *k, int64_t owner);

/* The timelines that wait to be written, the first `most` of them; how many there are (for
 * tests). NULL is allowed. */
int keep_seqs(struct keep *k, const struct kv_seq **out, int most);

#endif
