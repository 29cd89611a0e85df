/*
 * swap.h - host memory behind the KV pool of a device: the store of kv.h.
 *
 * A block that the pool needs for others goes to the host instead of being forgotten, and comes
 * back when a request continues with it: its bytes are copied, where computing it reads the
 * model. Copies are ordered with the steps of the device, and nobody waits for them. The engine
 * thread's alone.
 */
#ifndef LLMCHAT_ENGINE_RUN_SWAP_H
#define LLMCHAT_ENGINE_RUN_SWAP_H

#include "engine/run/graph.h"
#include "engine/run/kv.h"

struct swap;

/* Up to max_bytes, for a pool that was not used yet; both are borrowed and outlive it. NULL
 * when the pool's memory is the host's already, or max_bytes is less than a block. */
struct swap *swap_open(struct graph *g, struct kv_pool *p, size_t block_bytes,
                       uint64_t max_bytes);
/* The pool may not be used any more. NULL is allowed. */
void swap_close(struct swap *w);

/* What it holds of tokens [n_tok] behind what kv has, as kv_bring(): up to max_bytes, one block
 * at least. NULL is allowed. True when there is more. */
bool swap_bring(struct swap *w, struct kv_seq *kv, const int32_t *tokens, int n_tok,
                size_t max_bytes);

#endif
