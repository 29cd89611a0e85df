/*
 * shard.h - one rank's part of a model: tensor parallelism (Megatron-LM, arXiv:1909.08053).
 *
 * Rank r of n has heads r H / n .. (r + 1) H / n - 1 with their KV heads, and as many n-ths of
 * each feed-forward's columns, those of experts too: of wq, wk, wv, gate and up some outputs,
 * of wo and down the inputs that these give. What wo and down make of them is a part of a sum
 * over the ranks (comm.h), twice a layer. Their biases are rank 0's alone. Embedding, norms
 * and routers are whole on each rank; the head is on rank 0, whose logits are used.
 *
 * A shard is a struct model like any other, that borrows from the whole one: outputs are taken
 * by address where they begin and end with a tile (weight.h), other cuts are copies.
 */
#ifndef LLMCHAT_ENGINE_RUN_SHARD_H
#define LLMCHAT_ENGINE_RUN_SHARD_H

#include "engine/model/model.h"

struct shard;

enum { SHARD_MOST = 64 }; /* ranks */

/* Whether n ranks can share a model: ST_UNSUPPORTED says what can't be cut, by name. */
enum status shard_check(const struct model *m, int n, struct err *err);
/* Rank's part of a model that shard_check() let pass. ST_NOMEM. m outlives it. */
enum status shard_new(const struct model *m, int rank, int n, struct shard **out,
                      struct err *err);
void shard_free(struct shard *s); /* NULL is allowed */
const struct model *shard_model(const struct shard *s);
/* Frees what was copied: a device has it, and nobody reads the shard's weights again. */
void shard_drop_copies(struct shard *s);

#endif
