/*
 * toy_hparams.h - numbers of a small Llama, for tests that make one in memory.
 */
#ifndef LLMCHAT_TESTS_TOY_HPARAMS_H
#define LLMCHAT_TESTS_TOY_HPARAMS_H

#include "engine/model/model.h"

struct toy_sizes {
    int n_layer, n_vocab, n_embd, n_ff, n_head, n_head_kv, head_dim;
};

static inline struct hparams toy_hparams(struct toy_sizes s) {
    return (struct hparams){.n_layer = s.n_layer,
                            .n_vocab = s.n_vocab,
                            .n_embd = s.n_embd,
                            .n_ff = s.n_ff,
                            .n_head = s.n_head,
                            .n_head_kv = s.n_head_kv,
                            .head_dim = s.head_dim,
                            .ctx_train = 1024,
                            .rope_dim = s.head_dim,
                            .norm_eps = 1e-5f,
                            .rope_base = 10000,
                            .rope_scale = 1,
                            .embd_scale = 1,
                            .residual_scale = 1,
                            .logit_scale = 1};
}

#endif
