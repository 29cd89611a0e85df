/*
 * arch.h - the architectures that we know, as tables.
 *
 * An architecture is a row: its name, how its hyperparameters are read, and which tensors a
 * layer has, with their sizes in terms of the hyperparameters and the place in struct layer.
 * Creating a model and opening one walk the same table.
 */
#ifndef LLMCHAT_ENGINE_MODEL_ARCH_H
#define LLMCHAT_ENGINE_MODEL_ARCH_H

#include "engine/model/gguf.h"
#include "engine/model/model.h"

enum { MODEL_LAYOUT = 1 }; /* version of our file; newer ones are refused */

enum dim { DIM_ONE, DIM_EMBD, DIM_FF, DIM_Q, DIM_KV, DIM_VOCAB, DIM_ROPE_HALF };
enum tensor_kind {
    TENSOR_LINEAR, /* struct weight, quantised as the model is */
    TENSOR_HEAD,   /* struct weight, quantised as --head-quant says */
    TENSOR_VECTOR, /* const float *, f32 [K] */
};

struct arch_tensor {
    const char *name; /* "attn_q": behind "blk.N." for a layer's; ".weight" follows in GGUF */
    enum tensor_kind kind;
    enum dim n, k; /* [N, K]; N is DIM_ONE for vectors */
    size_t field;  /* in struct layer, or in struct model */
    bool optional;
};

struct arch {
    const char *name;
    const struct arch_tensor *layer, *model; /* each ends with a NULL name */
    enum status (*from_gguf)(const struct gguf *g, struct hparams *hp, struct err *err);
};

/* ST_UNSUPPORTED names the architecture and those that are supported; file stands in the
 * message. */
enum status arch_find(const char *name, const char *file, const struct arch **out,
                      struct err *err);
uint64_t arch_dim(enum dim d, const struct hparams *hp);
/* Bounds and relations of all hyperparameters, whatever file they come from. */
enum status arch_check(const struct hparams *hp, const char *file, struct err *err);

#endif
