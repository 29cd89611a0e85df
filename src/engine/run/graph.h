/*
 * graph.h - one step of the model: a batch of tokens of one or more sequences through all
 * layers.
 *
 * A graph owns the KV pool's memory and the scratch of a step, both allocated by the backend
 * when it is opened; nothing on the token path allocates. Which block belongs to whom is kv.h's
 * business: here a sequence brings its block table. Used by the engine thread only.
 */
#ifndef LLMCHAT_ENGINE_RUN_GRAPH_H
#define LLMCHAT_ENGINE_RUN_GRAPH_H

#include "base/err.h"
#include "engine/engine.h"
#include "engine/model/model.h"

enum { KV_BLOCK = 16 }; /* tokens in a KV block */
/* Blocks that n_tok tokens take. */
static inline int kv_blocks(int n_tok) {
    return (n_tok + KV_BLOCK - 1) / KV_BLOCK;
}

struct batch_seq {
    const int32_t
        *blocks;  /* [ceil((n_past + n_tok) / KV_BLOCK)] block table of this sequence */
    int n_past;   /* tokens whose KV is in the blocks already */
    int n_tok;    /* tokens of this sequence in the batch, at least 1 */
    int n_logits; /* logits wanted for the last n_logits of them: 0..n_tok */
    int n_total;  /* tokens the sequence is known to reach; 0: n_past + n_tok. RoPE that depends
                     on the length (rope.h) takes it from here */
};

struct batch {
    const int32_t *tokens;        /* [n_tok] sequence after sequence */
    int n_tok;                    /* sum over the sequences; at most graph_max_tok() */
    const struct batch_seq *seqs; /* [n_seq] */
    int n_seq;
};

enum { GRAPH_FIT = -1 };

struct graph_params {
    enum device device; /* DEVICE_AUTO is the CPU: the engine chooses */
    int threads;        /* 0: all */
    enum kv_type kv_type;
    int n_block; /* KV blocks in the pool */
    struct graph_room {
        double utilization; /* of a GPU's memory that may be in use then, 0..1; 0: all */
        int min_block;      /* fewer than this, where there is no room for n_block, won't do; 0
                               is 1 */
        size_t block_bytes; /* what a block takes there, others' included; 0: this graph's */
        size_t spare_bytes; /* room that others will need */
    } room;                 /* where the backend's memory is not the host's */
    int max_tok;            /* largest batch; 0: 512 */
    int max_logits;         /* largest sum of n_logits; 0: max_tok */
    /* With DEVICE_CUDA: how many layers the GPU computes, the last ones, and the head; those
     * before them and the embedding are the CPU's. 0, or n_layer and more: the whole model.
     * GRAPH_FIT: all that there is room for; ST_NOMEM only when not one layer has it. */
    int gpu_layers;
    int host_block;      /* most KV blocks where a part of the pool is the host's; 0: n_block */
    int tensor_parallel; /* more than 1: each layer is shared by so many GPUs, 0 .. (ranks.h),
                            and gpu_layers is 0; on the CPU, by threads: for tests */
    int device_index;    /* which GPU */
    const char *crossovers; /* file in which the borders between a GPU's kernels are kept once
                               they are measured (cuda/crossover.h); NULL: the usual ones */
    bool sum_on_host;       /* GPUs share without NCCL, over the host: for tests */
};

struct graph;
enum status graph_open(const struct model *m, const struct graph_params *p, struct graph **out,
                       struct err *err);
void graph_close(struct graph *g);
int graph_max_tok(const struct graph *g);
const char *graph_device(const struct graph *g);     /* "cpu"; of a split one the GPU's */
const char *graph_kernels(const struct graph *g);    /* "scalar", "avx2", "avx512"; likewise */
int graph_n_gpu(const struct graph *g);              /* GPUs that it runs on */
const char *graph_pci(const struct graph *g, int i); /* of one of them (backend.h) */
int graph_threads(const struct graph *g);
int graph_gpu_layers(const struct graph *g);       /* layers that a GPU computes */
bool graph_is_split(const struct graph *g);        /* the CPU computes the others, and embeds */
enum kv_type graph_kv_type(const struct graph *g); /* what KV_AUTO became */
int graph_n_block(const struct graph *g);          /* KV blocks in the pool */
/* Bytes one KV block takes in all layers together, known before a graph is opened. */
size_t graph_kv_block_bytes(const struct model *m, enum kv_type want);

/* Keys and values are computed in one of two kinds, 0 or 1, by how many tokens the sequence is
 * known to reach (batch_seq.n_total): LongRoPE has one set of frequencies up to a length and
 * another beyond. The kinds must not meet in one sequence; who crosses the border computes its
 * keys and values again, as transformers' generate() does. */
int graph_kv_kind(const struct graph *g, int n_total);
/* Whether the tokens of a sequence have the same angles when it is known to reach a or b
 * tokens: if so they may be computed in one batch instead of one by one. */
bool graph_same_angles(const struct graph *g, int a, int b);

/* Whether what is in the cache can move to another position: NULL, or why this model's can't.
 */
const char *graph_cannot_move(const struct graph *g);
/* Blocks [n] hold the tokens from position `from` on: makes them those of the positions from
 * `to` on. */
void graph_move_blocks(struct graph *g, const int32_t *blocks, int n, int from, int to);

/* Runs one batch; logits [sum of n_logits, n_vocab] in batch order. Tokens and block numbers
 * are the caller's to have checked (asserted here). */
enum status graph_forward(struct graph *g, const struct batch *b, float *logits,
                          struct err *err);
struct sample_row; /* backend.h */
struct sample_got;
/* Whether n rows can be sampled where they are computed, so that no logits leave the device. */
bool graph_can_sample(const struct graph *g, int n);
/* As graph_forward(), but tokens are wanted: rows and got [sum of n_logits], for which
 * graph_can_sample(); at most BACKEND_SAMPLE_TOKENS have penalties. */
enum status graph_sample(struct graph *g, const struct batch *b, const struct sample_row *rows,
                         struct sample_got *got, struct err *err);
/* To be called between steps while tokens are decoded: weights may move to where they are read
 * faster, a part in each call (backend.h, settle). True while there is more to do. */
bool graph_settle(struct graph *g);
/* Copies the first n_tok tokens of block src to block dst in every layer (a fork's last,
 * partial block). */
void graph_copy_block(struct graph *g, int dst, int src, int n_tok);
/* The same as a kv_copy_fn (kv.h). */
static inline void graph_kv_copy(void *graph, int dst, int src, int n_tok) {
    graph_copy_block(graph, dst, src, n_tok);
}
/* A block to host memory and back, graph_kv_block_bytes() in the layout of the pool: for each
 * layer its K, then its V. Of a block that is read, what lies behind the first n_tok tokens
 * comes as zeros: it may be left from another conversation. */
void graph_read_block(struct graph *g, int block, int n_tok, void *host);
/* A device has failed: what was read of blocks since is nothing to keep. */
bool graph_failed(const struct graph *g);
void graph_write_block(struct graph *g, int block, const void *host);
/* Where a block lies, in the same layout, for who fills it in its place; NULL when that is not
 * host memory. */
void *graph_host_block(struct graph *g, int block);
/* Blocks of a pool that is not host memory, out of it and back: to memory of graph_swap_alloc()
 * (NULL: the host gives no more), graph_kv_block_bytes() each in a layout of their own. In
 * order with the steps; neither waits, so the host may not look there. */
bool graph_can_swap(const struct graph *g);
void *graph_swap_alloc(struct graph *g, size_t bytes);
void graph_swap_free(struct graph *g, void *p); /* waits for copies */
void graph_swap_out(struct graph *g, int block, void *to);
void graph_swap_in(struct graph *g, int block, const void *from);

/* Host work between two steps on the backend's threads: body(ctx, item, thread) for all items,
 * thread below graph_threads(). */
void graph_parallel(struct graph *g, int n_item, void (*body)(void *ctx, int item, int thread),
                    void *ctx);

#endif
