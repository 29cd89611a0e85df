/*
 * hf_generation.h - what the makers of a model suggest for sampling: generation_config.json.
 */
#ifndef LLMCHAT_ENGINE_MODEL_HF_GENERATION_H
#define LLMCHAT_ENGINE_MODEL_HF_GENERATION_H

#include "base/err.h"

/* *out: a JSON object with the names of our settings, the caller's to free; NULL when the
 * folder has no such file or the file suggests nothing that differs from transformers'
 * defaults. ST_FORMAT: a value that no number of its kind can be. */
enum status hf_generation(const char *dir, char **out, struct err *err);

#endif
