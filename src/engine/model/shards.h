/*
 * shards.h - the safetensors files of a Hugging Face folder as one set of tensors.
 *
 * model.safetensors, else model.safetensors.index.json with its shards (the order in which
 * transformers looks), else the only *.safetensors file of the folder. The index is checked
 * against the files: every shard that it names is there, every tensor is in the shard that it
 * names, no tensor is in two shards. File names with a slash are refused.
 */
#ifndef LLMCHAT_ENGINE_MODEL_SHARDS_H
#define LLMCHAT_ENGINE_MODEL_SHARDS_H

#include "engine/model/container.h"

struct shards;

/* ST_NOT_FOUND names the missing file; ST_UNSUPPORTED: only pytorch_model.bin is there (pickle,
 * which is code: we don't run it). */
enum status shards_open(const char *dir, struct shards **out, struct err *err);
void shards_close(struct shards *s); /* NULL is allowed */

/* NULL: there is none. Marks it used. */
const struct ctensor *shards_find(struct shards *s, const char *name);
bool shards_has(const struct shards *s, const char *name); /* without marking */
size_t shards_n(const struct shards *s);
const struct ctensor *shards_tensor(const struct shards *s, size_t i, bool *used);
/* Base name of the file that holds a tensor, for messages. */
const char *shards_file(const struct shards *s, const struct ctensor *t);
/* The files in order of their names. */
size_t shards_n_files(const struct shards *s);
struct file_map shards_map(const struct shards *s, size_t i);
enum status shards_intact(const struct shards *s, bool at_end,
                          struct err *err); /* source_intact() */

#endif
