/*
 * states.h - the folder of saved states: MODEL-TOKENS.kv, two hashes of 16 hexadecimal digits,
 * so that the files of a model are told without opening them and a state that is written twice
 * has one name. A file's time says when it was used last.
 *
 * Other processes use the same folder: a file may go at any time, and what is there was written
 * whole. Nothing here is an error: what can't be read or removed is passed over. What other
 * rooms want of it is in models.h.
 */
#ifndef LLMCHAT_ENGINE_RUN_STATES_H
#define LLMCHAT_ENGINE_RUN_STATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The name of a state; the caller frees. */
char *states_name(uint64_t model, const int32_t *tokens, size_t n_tok, uint64_t form);
/* True when name is one; *model whose. */
bool states_parse_name(const char *name, uint64_t *model);
/* Every state in dir. fn may remove it. */
typedef void states_fn(void *user, const char *path, const char *name);
void states_each(const char *dir, states_fn *fn, void *user);
/* Removes what processes that are gone left half-written. */
void states_sweep(const char *dir);
/* Removes those that were not used for longest until n_bytes more are within max_bytes, and
 * within half of what the disk would have free without any. False when they can't be. */
bool states_make_room(const char *dir, uint64_t max_bytes, uint64_t n_bytes);
/* Those of an owner, and those that are damaged: whose they were nobody can say. */
void states_remove_owner(const char *dir, int64_t owner);
void states_remove_model(const char *dir, uint64_t model);

#endif
