/*
 * graph_internal.h - what the files of the layer graph share: graph.c opens it and runs a step,
 * split.c says how much of a model goes to a GPU, bind.c takes the model's tensors to the
 * device, layer.c is a layer, experts.c a mixture of experts; ranks.c makes several graphs one.
 *
 * A struct graph is a part of a model on one device: some of its layers, with all that a step
 * needs there. Mostly the part is the whole model. One that is split has two, and `next` of the
 * first is who goes on with the residual stream; callers of graph.h know the first alone. A
 * rank has a part of every layer instead, which here is a whole model, and is never split.
 */
#ifndef LLMCHAT_ENGINE_RUN_GRAPH_INTERNAL_H
#define LLMCHAT_ENGINE_RUN_GRAPH_INTERNAL_H

#include "engine/backend.h"
#include "engine/run/graph.h"
#include "engine/run/rope.h"

/* Which expert computes which tokens, filled anew for each layer. */
struct routing {
    /* host memory */
    float *logits;   /* [max_tok, n_expert] of the router; row stride as on the device */
    float *gate;     /* [max_tok] weight of the shared expert */
    int32_t *choice; /* [max_tok, n_expert_used] experts of a token, best first */
    float *weight;   /* [max_tok, n_expert_used] theirs */
    int *first;      /* [n_expert + 1] where an expert's tokens begin in rows; one more entry
                        is needed while they are sorted */
    int32_t *rows;   /* [max_tok * n_expert_used] tokens, sorted by expert, ascending */
    float *of_row;   /* the same order: weight of the expert for the token */
    int32_t *all;    /* [max_tok] 0, 1, 2 … */
    /* memory of the backend */
    float *dev,
        *dev_gate;   /* [max_tok, n_expert], [max_tok, 1] as the routers' matmul left them */
    float *in, *sum; /* [max_tok, n_embd] rows of one expert; all experts together */
};

struct comm;
struct ranks;

struct graph {
    const struct model *model;
    struct comm *comm;   /* of a rank: where its sums meet those of others; NULL: none do */
    struct ranks *ranks; /* of the door to several graphs (ranks.h): its other fields are those
                            of rank 0, and only read; NULL: this is a graph itself */
    struct backend *be;
    int first, end;     /* layers first .. end - 1 are here */
    bool embeds;        /* and the embedding; the last part has the head */
    struct graph *next; /* NULL: this is the last */
    struct model
        dev; /* embd with its projections, pos, head, norms, layers as the backend bound them */
    struct linear *exp; /* [n] all experts of dev's layers */
    float *slopes_host; /* [n_head] */
    const float *slopes;
    struct {
        struct weight **w; /* [n] those of dev that are read whole, in the order of a step */
        int n, cap, next;  /* next: the first that has not settled */
        size_t bytes;      /* of all */
        int n_call;
    } settle;
    bool perm, row_scaled; /* some linear of the model has a perm; some weight is */
    int max_tok, max_logits, n_block;
    enum kv_type kv_type;
    void *kv;        /* [n_block] of kv_block bytes: [end - first][2] parts of kv_part bytes */
    size_t kv_block; /* all layers here */
    size_t kv_part;  /* K or V of a layer */

    float *scratch; /* the matrices below, one behind the other */
    float *x, *xn;  /* [max_tok, n_embd] residual stream, normalised */
    float *tmp;     /* [max_tok, n_embd] what a block adds, where it needs more than a sum */
    float *word;    /* [max_tok, n_embd_word] words that are not as wide as the stream */
    float *q, *att; /* [max_tok, n_head * D] */
    float *k, *v;   /* [max_tok, n_head_kv * D] */
    float *h, *u;   /* [max_tok, widest feed-forward]; u only where ffn can't be fused */
    float *px;      /* [max_tok, widest input] permuted; only with perm */
    float *logits;  /* [GRAPH_LOGIT_ROWS, n_vocab] where the head is, when the backend's memory
                       is not the host's */
    struct routing route;

    /* Of the first part alone: what a step's data is made from, for all parts. */
    struct rope rope;
    float *rope_cos, *rope_sin; /* [BACKEND_ROPES][max_tok, rope_dim] */
    int n_rope;                 /* tables that layers use */
    int32_t *rows;              /* [max_tok] rows whose logits are wanted */
    int32_t *pos;               /* [max_tok] position of a token in its sequence */
    struct step_seq *seqs;      /* [max_tok] */
};

static inline size_t row_floats(int K) {
    return (size_t)weight_pad_k(K);
}

enum { GRAPH_LOGIT_ROWS = 32 }; /* logits computed at once for a device */

/* bind.c: fills dev, exp, slopes, perm and what may settle. */
enum status graph_bind(struct graph *g, struct err *err);
void graph_unbind(struct graph *g);
/* What binding this part to a device will make of it. */
struct graph_bound {
    size_t bytes;    /* taken */
    bool perm;       /* some linear has one */
    bool row_scaled; /* some weight is (weight.h) */
};
struct graph_bound graph_count_bound(const struct graph *g);

/* split.c. Shares of a model that a GPU may have: 1 .. n_layer last layers with the head, and
 * as n_layer + 1 the embedding too. */
void graph_take_share(struct graph *g, int share); /* sets first, end, embeds and kv_block */
/* The largest share for which a backend has room, with r->min_block blocks of KV and what
 * others want; 0: none, and err says what the smallest one would take. */
int graph_share_that_fits(struct graph *g, const struct graph_room *r, struct err *err);
/* Bytes of a block that others want beside this graph's. */
size_t graph_others_block(const struct graph *g, const struct graph_room *r);

/* layer.c */
struct kv_layer graph_kv(const struct graph *g, int layer);
/* Says that the attention of a layer comes next; of none if it is behind the last. */
void graph_expect(struct graph *g, int layer);
/* x normalised in xn, or x itself where there is no norm. */
const float *graph_norm(struct graph *g, const struct norm *n, const float *x, int T,
                        float *xn);
/* y[i] = x w[i]^T + bias for up to BACKEND_MAX_OUT linears of the same K */
void graph_matmul(struct graph *g, const float *x, int T, const struct linear *const w[],
                  float *const y[], int n);
/* h = act(x gate^T) * (x up^T), or act(x up^T) where there is no gate (w.N = 0, or NULL) */
void graph_hidden(struct graph *g, const struct linear *gate, const struct linear *up,
                  const float *x, int T, float *h);
/* One layer; with rows [n_rows] only those go on behind the attention. */
void graph_layer(struct graph *g, int i, int T, const int32_t *rows, int n_rows);

/* experts.c */
/* Floats of device scratch that a mixture of experts needs. */
size_t experts_floats(const struct graph *g);
void experts_init(struct graph *g, float *scratch); /* takes experts_floats() of it */
void experts_release(struct graph *g);
/* route.sum = what the experts of a layer make of x [T, n_embd] */
void experts_run(struct graph *g, const struct layer *l, const float *x, int T);

#endif
