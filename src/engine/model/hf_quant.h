/*
 * hf_quant.h - the quantised tensors of Hugging Face checkpoints: bitsandbytes, GPTQ, AWQ,
 * compressed-tensors, FP8, MXFP4.
 *
 * Which method a checkpoint uses stands in config.json's quantization_config (for old GPTQ and
 * AWQ repositories in quantize_config.json or quant_config.json beside it). A quantised matrix
 * is several tensors with one base name; which of them are there decides matrix by matrix,
 * since some modules are always left alone.
 */
#ifndef LLMCHAT_ENGINE_MODEL_HF_QUANT_H
#define LLMCHAT_ENGINE_MODEL_HF_QUANT_H

#include "engine/model/shards.h"
#include "engine/model/source.h"

struct hf_quant;

/* *out NULL when the checkpoint is not quantised. ST_UNSUPPORTED: a method, or a setting of
 * one, that we cannot read, by name. */
enum status hf_quant_open(const char *dir, const struct hf_json *config, struct hf_quant **out,
                          struct err *err);
void hf_quant_free(struct hf_quant *q);
/* The matrix base ("model.layers.0.mlp.up_proj"), if it is quantised in this checkpoint: *found
 * and all of *out but its name. What it allocates belongs to q. */
enum status hf_quant_find(struct hf_quant *q, struct shards *s, const char *base, bool *found,
                          struct source_tensor *out, struct err *err);

#endif
