/*
 * model_file.h - what our model file holds, as creating and opening share it.
 *
 * Metadata: "llmchat.layout" (version of all this), "architecture", the hyperparameters,
 * "quant" and "head_quant", "title", "license", "source", "source_sha256", "created",
 * "n_params", and the vocabulary's (vocab_store.h).
 *
 * A weight matrix "blk.0.attn_q" is up to three tensors, tiled as weight.h says, T = Np / 16
 * tiles, G = Kp / 64 groups: .weight   F32 [T, Kp, 16] | BF16 [T, Kp/2, 16, 2] | I8 [T, Kp/4,
 * 16, 4] | U8 [T, Kp/8, 16, 4] .scale    F32 [T, G, 16]            int8 .code     U8 [T, G, 16]
 * NF4 .nested   F32 [1 + L/16, 16]        NF4: row 0 begins with the offset, then absmax2, L =
 * weight_absmax2_len() A vector "blk.0.attn_norm" is .weight F32 [K].
 */
#ifndef LLMCHAT_ENGINE_MODEL_MODEL_FILE_H
#define LLMCHAT_ENGINE_MODEL_MODEL_FILE_H

#include "engine/model/arch.h"
#include "engine/model/container.h"

enum weight_type quant_weight_type(enum quant q);

void weight_declare(struct container_writer *w, const char *base, enum weight_type t, int N,
                    int K);
/* Points w into the mapping. */
enum status weight_bind(struct weight *w, const struct container *c, const char *base,
                        enum weight_type t, int N, int K, struct err *err);

/* Metadata of a model: hyperparameters are checked, all strings of info are filled ("" where
 * unknown). quants: [0] of the linear layers, [1] of embedding and head. */
void model_meta_write(struct container_writer *w, const struct hparams *hp, enum quant quant,
                      enum quant head_quant);
enum status model_meta_read(const struct container *c, const char *path, struct hparams *hp,
                            enum quant quants[2], struct model_info *info, struct err *err);

/* What hp says into its fields of info. */
void model_info_sizes(struct model_info *info, const struct hparams *hp);
/* What a GGUF file is, as models_info() gives it of our files: nothing is converted, and quant
 * is the type of a matrix of the first layer. */
enum status model_source_info(const char *path, struct model_info *out, struct err *err);
#endif
