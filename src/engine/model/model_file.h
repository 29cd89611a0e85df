/*
 * model_file.h - what our model file holds, as creating and opening share it.
 *
 * Metadata: "llmchat.layout" (version of all this), "architecture", the hyperparameters (names
 * as in HPARAM_LIST; one that is missing has its default), "layers" (a hexadecimal digit of
 * LAYER_ flags for each), "quant" and "head_quant" (words for a person), "title", "license",
 * "source", "source_sha256", "created", "notes", "system", "settings" (JSON), "n_params", and
 * the vocabulary's (vocab_store.h).
 *
 * A weight matrix "blk.0.attn_q" is several tensors, tiled as weight.h says, T = Np / 16 tiles,
 * G = Kp / S groups; what is there says how it is stored:
 *
 *   .weight   F32 [T, Kp, 16] | BF16, F16 [T, Kp/2, 16, 2] | I8 [T, Kp/4, 16, 4] |
 *             U8 [T, Kp/8, 16, 4] for 4 bits
 *   .scale    F32 [T, G, 16]      I8, and Q4 without .code; G tells S
 *   .min      F32 [T, G, 16]      beside .scale, where groups have a minimum
 *   .table    F32 [16]            Q4 without .code
 *   .code     U8 [T, G, 16]       Q4, double-quantised NF4
 *   .nested   F32 [1 + L/16, 16]  Q4: row 0 begins with the offset, then absmax2, L =
 *                                 weight_absmax2_len()
 *   .perm     I32 [K]             where inputs are in another order
 *   .bias     F32 [N]
 *
 * A norm or vector "blk.0.attn_norm" is .weight F32 [K], a norm perhaps with .bias F32 [K].
 */
#ifndef LLMCHAT_ENGINE_MODEL_MODEL_FILE_H
#define LLMCHAT_ENGINE_MODEL_MODEL_FILE_H

#include "engine/model/arch.h"
#include "engine/model/container.h"

/* How a matrix is stored. */
struct weight_form {
    enum weight_type type;
    int group;   /* I8, Q4: inputs that share a scale */
    bool nested; /* Q4: scales are double-quantised */
    bool min;    /* I8, Q4: groups have a minimum */
};
/* The form in which a quantiser of ours stores; not for QUANT_KEEP. */
struct weight_form quant_form(enum quant q);

void weight_declare(struct container_writer *w, const char *base, const struct weight_form *f,
                    int N, int K);
/* Points w into the mapping. */
enum status weight_bind(struct weight *w, const struct container *c, const char *base, int N,
                        int K, struct err *err);

/* Metadata of a model: hyperparameters are checked, all strings of info are filled ("" where
 * unknown). */
void model_meta_write(struct container_writer *w, const struct hparams *hp);
enum status model_meta_read(const struct container *c, const char *path, struct hparams *hp,
                            struct model_info *info, struct err *err);

/* "created", now; and what the person gave in place of the source's own. */
void model_meta_created(struct container_writer *w);
void model_meta_overrides(struct container_writer *w, const struct create_params *p,
                          const char *source_settings);
/* Two JSON objects of settings as one, over's values first; the caller frees. */
char *settings_merge(const char *base, const char *over);
/* A copy of one of our models at `from`, with what p gives in place of its own. */
enum status model_derive(const struct create_params *p, const char *from, const char *to,
                         struct err *err);
/* What a model is made from, and not a model: a GGUF file or a folder. */
bool library_is_source(const char *path);
/* What hp says into its fields of info. */
void model_info_sizes(struct model_info *info, const struct hparams *hp);
/* What a GGUF file or a folder is, as models_info() gives it of our files: nothing is
 * converted. */
enum status model_source_info(const char *path, struct model_info *out, struct err *err);
#endif
