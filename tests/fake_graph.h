/*
 * fake_graph.h - a model without arithmetic, for tests of the engine: link it instead of
 * graph.c, the model reader and the tokenizer.
 *
 * Its KV memory holds the tokens themselves, written and read through the block tables. The
 * logits of a position are a function of the whole history as the blocks give it, so a wrong
 * block, a missing copy or a write into a shared block gives a wrong answer. Tokens 0..255 are
 * bytes, FAKE_EOG ends a generation, FAKE_CTL is a control token.
 */
#ifndef LLMCHAT_TESTS_FAKE_GRAPH_H
#define LLMCHAT_TESTS_FAKE_GRAPH_H

#include <semaphore.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FAKE_EOG = 256,
    FAKE_CTL = 257,
    FAKE_VOCAB = 260,
    FAKE_CTX_TRAIN = 4096,
    FAKE_BLOCK_BYTES = 1024,
    FAKE_PLACE = 512 /* what stands in the KV is the token + FAKE_PLACE * its position */
};

/* Set before engine_open() or while the engine is idle. */
extern struct fake {
    /* A history that contains '#' is continued with script behind its last '#', then FAKE_EOG.
     * Others get tokens that depend on everything before. */
    const char *script;
    int max_tok;           /* of the graph; 0: 512 */
    size_t kv_block_bytes; /* that are told; 0: FAKE_BLOCK_BYTES */
    bool gated;            /* each forward posts `entered` and waits for `go` */
    sem_t entered, go;
    int long_from; /* sequences that reach this many tokens have the other kind of KV; 0: none
                    */
    /* A clock that only the graph moves, for tests that have clock_us() return now_us: a batch
     * takes step_us and row_us for each token, one of the model "fake-draft" a draft_part-th.
     */
    int64_t now_us, step_us, row_us, draft_part;
    int draft_wrong; /* "fake-draft" guesses '!' where the token's number is a multiple of this;
                        0: it is always right */
    int foreign, more_tokens; /* a token of "fake-draft" that is another one, 0: none; tokens
                                 that it has beyond FAKE_VOCAB */
    const char *cannot_move;  /* why positions can't be moved, or NULL */
    bool host_blocks;    /* saved blocks are read straight to their places, none is swapped */
    int max_swap_chunk;  /* pieces of memory for swapped blocks that there are */
    int fail_at, nan_at; /* the forward with this number fails, those from this one on give no
                            numbers; 0: none */
    bool failed;         /* blocks that are read are nothing to keep */
    bool split;          /* the graph's first part is on the CPU; */
    int gpu_layers;      /* how many are not */
    /* what was seen; read while the engine is idle */
    int n_forward, n_tok, max_seq, n_block, n_copied, n_loaded;
    int n_moved;                   /* blocks */
    int n_out, n_in, n_swap_chunk; /* blocks that were swapped; pieces of memory for them */
    size_t swap_bytes;             /* in all pieces that were given */
    int longest;                   /* tokens of a sequence in a batch, with those in its KV */
    int n_settle;                  /* calls of graph_settle() */
    int n_draft;                   /* tokens of "fake-draft" */
    int n_starved; /* batches that left a decoding sequence out while it was in the batch before
                      and after */
} fake;

void fake_reset(void);
/* The best next token for a history. */
int32_t fake_next(const int32_t *tokens, size_t n);
/* The logits of the position behind it. */
void fake_logits(const int32_t *tokens, size_t n, float *logits);

/* A prompt of n tokens; two of one family begin alike, of different ones don't. */
void fake_prompt(int32_t *tokens, int n, int family);

#endif
