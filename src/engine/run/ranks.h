/*
 * ranks.h - several graphs as one: tensor parallelism over GPUs.
 *
 * Each rank has a part of every layer (shard.h) in a graph of its own on a device of its own;
 * twice a layer they add up (comm.h). Rank 0 runs in the thread that calls, the others in
 * threads of theirs. KV blocks have the same numbers everywhere, and each rank holds the keys
 * and values of its heads: who reads or writes a block sees that of the whole model, so that
 * saved states don't depend on how many devices there are.
 *
 * The door is a struct graph: callers of graph.h see no difference. A rank that fails stops
 * all: every later step fails with what it said.
 */
#ifndef LLMCHAT_ENGINE_RUN_RANKS_H
#define LLMCHAT_ENGINE_RUN_RANKS_H

#include "engine/run/graph.h"

struct ranks;

/* As graph_open(); also ST_UNSUPPORTED: the model can't be shared by so many, ST_NOT_FOUND:
 * there are fewer GPUs, or no NCCL. */
enum status ranks_open(const struct model *m, const struct graph_params *p, struct graph **out,
                       struct err *err);
void ranks_close(struct graph *door);

int ranks_number(const struct ranks *rs);
const char *ranks_pci(const struct ranks *rs, int rank);

/* The functions of graph.h, for all ranks. */
enum status ranks_forward(struct ranks *rs, const struct batch *b, float *logits,
                          struct err *err);
enum status ranks_sample(struct ranks *rs, const struct batch *b, const struct sample_row *rows,
                         struct sample_got *got, struct err *err);
bool ranks_settle(struct ranks *rs);
void ranks_copy_block(struct ranks *rs, int dst, int src, int n_tok);
void ranks_move_blocks(struct ranks *rs, const int32_t *blocks, int n, int from, int to);
bool ranks_failed(const struct ranks *rs);
void ranks_read_block(struct ranks *rs, int block, int n_tok, void *host);
void ranks_write_block(struct ranks *rs, int block, const void *host);
void ranks_swap_out(struct ranks *rs, int block, void *to);
void ranks_swap_in(struct ranks *rs, int block, const void *from);
void ranks_swap_wait(struct ranks *rs); /* until all copies have been made */

/* The comm of a rank, so that tests can make it fail. */
struct comm *ranks_comm(struct ranks *rs, int rank);

#endif
