/*
 * arch.h - the architectures that we know, as one table.
 *
 * An architecture is a row (arch_table.c): its names, how its hyperparameters are read from
 * GGUF metadata and from a config.json, and which tensors it has: our name, sizes in terms of
 * the hyperparameters, the place in struct layer or struct model, and where GGUF files and
 * Hugging Face checkpoints keep it. Creating a model, opening one and binding it to a device
 * walk the same rows with arch_visit().
 *
 * Our names are those of GGUF: "blk.3.attn_q". A matrix NAME is up to the tensors NAME.weight,
 * NAME.scale … of our file (model_file.h) and, where the source has one, NAME.bias.
 */
#ifndef LLMCHAT_ENGINE_MODEL_ARCH_H
#define LLMCHAT_ENGINE_MODEL_ARCH_H

#include "engine/model/gguf.h"
#include "engine/model/hf_json.h"
#include "engine/model/model.h"

enum { MODEL_LAYOUT = 2 }; /* version of our file; 1 is read too, newer ones are refused */

enum dim {
    DIM_ONE,
    DIM_EMBD,
    DIM_WORD, /* columns of the token embedding where it has its own: n_embd_word, else n_embd
               */
    DIM_WORD_OWN, /* n_embd_word: 0 where it has not */
    DIM_FF,
    DIM_Q,    /* n_head * head_dim */
    DIM_KV,   /* n_head_kv * head_dim */
    DIM_HEAD, /* head_dim */
    DIM_Q_EACH,
    DIM_KV_EACH, /* DIM_Q, DIM_KV where each head has a norm of its own, else 0 */
    DIM_VOCAB,
    DIM_POS,
    DIM_ROPE_HALF, /* rope_dim / 2 */
    DIM_N_HEAD,
    DIM_EXPERTS,
    DIM_FF_EXPERT,
    DIM_FF_SHARED,
};

enum tensor_kind {
    TENSOR_LINEAR,  /* struct linear, quantised as the model is */
    TENSOR_EXPERTS, /* struct linear *, n_expert of them, each quantised as the model is */
    TENSOR_HEAD,    /* struct linear, quantised as --head-quant says */
    TENSOR_EXACT,   /* struct linear, never quantised: a router, a position embedding */
    TENSOR_NORM,    /* struct norm */
    TENSOR_VECTOR,  /* const float *, [K] */
};

enum { /* struct arch_tensor, flags */
       T_OPTIONAL = 1,
       T_ROTATED = 2, /* rows (or a norm's K) are head dimensions that RoPE rotates: sorted from
                         half-split to interleaved pairs when the source is half-split */
       T_PLUS_ONE = 4, /* a norm's gain is stored less 1 (in Hugging Face checkpoints) */
       T_DENSE = 8,    /* only in layers without LAYER_EXPERTS */
       T_SPARSE = 16,  /* only in layers with LAYER_EXPERTS */
       T_ONES = 32,    /* a norm that no source stores: its gain is 1 */
       T_BIASED = 64,  /* a matrix that is never without its bias */
};

/* Which rows of a source's tensor are ours; Q, KV the sizes of queries and of keys. */
enum rows {
    ROWS_ALL,
    ROWS_Q, /* of [Q + KV + KV] */
    ROWS_K,
    ROWS_V,
    ROWS_GROUP_Q, /* of [n_head_kv][n_head / n_head_kv + 2][head_dim]: GPT-NeoX, Falcon */
    ROWS_GROUP_K,
    ROWS_GROUP_V,
    ROWS_FIRST_HALF, /* of [2 N] */
    ROWS_SECOND_HALF,
    ROWS_EVEN, /* rows 0, 2, 4 … of [2 N] */
    ROWS_ODD,
    ROWS_HEADS,  /* a norm [heads][head_dim]; with "%d" in the name one tensor for each head */
    ROWS_FROM_2, /* without the first two: OPT's positions */
};
enum { ROWS_TRANSPOSED = 64 }; /* or'ed: the source holds [K, N] (GPT-2's Conv1D) */

/* Where a source keeps a tensor. In names of experts "%d" stands for the expert; a name without
 * it is a tensor of all experts [n_expert, …]. With ROWS_HEADS "%d" stands for the head. */
struct place {
    const char *name; /* behind the layer's prefix, without ".weight"; a name that ends with '!'
                         is complete without ".weight" (and has no bias) */
    unsigned rows;    /* enum rows, perhaps with ROWS_TRANSPOSED */
    const char *bias; /* NULL: the name with ".bias"; or its name, complete */
};

enum { ARCH_PLACES = 3 };

struct arch_tensor {
    const char *name; /* ours, behind "blk.N." for a layer's; NULL ends the list */
    enum tensor_kind kind;
    enum dim n, k; /* [N, K]; N is DIM_ONE for vectors and norms */
    size_t field;  /* in struct layer, or in struct model */
    unsigned flags;
    struct place hf[ARCH_PLACES];   /* tried in this order; no name: it is never there */
    struct place gguf[ARCH_PLACES]; /* the same; all empty: our name */
};

/* What no file says and the architecture means. */
struct arch_traits {
    enum norm_kind norm;
    enum act_kind act; /* in GGUF files; a config.json names its own */
    enum residual_kind residual;
    enum { POS_ROPE, POS_LEARNED, POS_ALIBI } pos;
    bool norm_rows;   /* q_norm and k_norm over whole rows */
    bool expert_norm; /* weights of the chosen experts sum to 1 */
};

struct arch {
    const char *name;                        /* ours, and GGUF's general.architecture */
    const char *hf_types;                    /* model_type of config.json: "llama mistral" */
    const struct arch_tensor *layer, *model; /* each ends with a NULL name */
    const char *hf_layer;                    /* "model.layers.%d." */
    const char *hf_prefix; /* names of the table begin with the first of these: a checkpoint may
                              have another one in its place: "transformer.|"; NULL: no other */
    const char *hf_ignored; /* parts of names of tensors that mean nothing: "rotary_emb" */
    bool hf_interleaved, gguf_interleaved; /* RoPE pairs of the source are (2i, 2i + 1) */
    struct arch_traits traits;
    const char *hf_defaults; /* JSON: what a missing key of config.json means here; or NULL */
    const char *hf_keys;     /* of the keys that only some families have (arch_hf.c) those that
                                this one knows, beside the ones in hf_defaults; or NULL */
    const char *hf_refused;  /* keys that must be missing, null, false, 0 or empty; or NULL */
    /* What only this architecture has; NULL: nothing. *hp has all that they have in common,
     * config the defaults. What a file asks for and the graph does not do is ST_UNSUPPORTED, by
     * name, never ignored. */
    enum status (*gguf_special)(const struct gguf *g, struct hparams *hp, struct err *err);
    enum status (*hf_special)(const struct hf_json *config, struct hparams *hp,
                              struct err *err);
};

/* All hyperparameters, checked by arch_check(). */
enum status arch_from_gguf(const struct arch *a, const struct gguf *g, struct hparams *hp,
                           struct err *err);
/* config: what config.json holds; of a model with several parts it is the text part that
 * counts, whose model_type arch_find_hf() was asked for. */
enum status arch_from_hf(const struct arch *a, const struct hf_json *config, struct hparams *hp,
                         struct err *err);
/* The architecture of a config.json: model_type of it, or of its text_config. */
enum status arch_of_config(const struct hf_json *config, const struct arch **out,
                           struct err *err);
/* RoPE factors that a config.json lists (a place named "config.json:short_factor!"): out
 * [max] and *n how many; *n 0 when there are none. */
enum status arch_rope_factors(const struct hf_json *config, const char *which, int max,
                              float *out, int *n, struct err *err);

/* ST_UNSUPPORTED names the architecture and those that are supported; file stands in the
 * message. */
enum status arch_find(const char *name, const char *file, const struct arch **out,
                      struct err *err);
/* hf types: a model_type of config.json. */
enum status arch_find_hf(const char *model_type, const char *file, const struct arch **out,
                         struct err *err);
uint64_t arch_dim(enum dim d, const struct hparams *hp);
void arch_defaults(struct hparams *hp);
/* Bounds and relations of all hyperparameters, whatever file they come from. */
enum status arch_check(const struct hparams *hp, const char *file, struct err *err);

/* One tensor of a model. */
struct arch_slot {
    const struct arch_tensor *t;
    int layer, expert; /* -1: none */
    char name[64];     /* "blk.3.ffn_gate.7" */
};
typedef enum status arch_visit_fn(void *user, const struct arch_slot *s, struct err *err);
/* Calls visit for every tensor the architecture may have, in the order of our file: those of
 * the model, then layer by layer, experts one by one. */
enum status arch_visit(const struct arch *a, const struct hparams *hp, arch_visit_fn *visit,
                       void *user, struct err *err);
/* m->layers and the expert arrays in them, all zero, as m->hp says; model_free_layers() frees
 * both. */
void model_alloc_layers(struct model *m);
void model_free_layers(struct model *m);
/* The slot's struct linear, struct norm or const float * in m, whose layers are allocated. */
void *arch_field(struct model *m, const struct arch_slot *s);

#endif
