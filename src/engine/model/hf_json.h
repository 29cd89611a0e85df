/*
 * hf_json.h - the JSON files of a Hugging Face folder: loaded with bounds, read with messages
 * that name file and key.
 *
 * A key may be a list of spellings, "hidden_size|n_embd|d_model": the first that is there
 * counts. A value null counts as missing. Getters leave *out alone when the key is missing and
 * not required.
 *
 * What Python writes beyond JSON loads: NaN and Infinity become strings of that name, so that
 * no getter takes them for numbers; integers beyond 64 bits become reals. Strings may hold NUL:
 * who reads one past hf_str() asks for json_string_length().
 */
#ifndef LLMCHAT_ENGINE_MODEL_HF_JSON_H
#define LLMCHAT_ENGINE_MODEL_HF_JSON_H

#include "base/err.h"
#include <jansson.h>
#include <stdbool.h>

struct hf_json {
    const char *file; /* for messages: "config.json" */
    json_t *root;     /* an object; owned by who loaded it, borrowed in children */
};

/* DIR/FILE, an object of at most max_bytes. Missing: ST_NOT_FOUND when required, else root is
 * NULL and every getter finds nothing. */
enum status hf_json_load(const char *dir, const char *file, bool required, size_t max_bytes,
                         struct hf_json *out, struct err *err);
/* The same from memory; file (for messages) lives as long as *out. */
enum status hf_json_parse(const char *p, size_t len, const char *file, struct hf_json *out,
                          struct err *err);
void hf_json_release(struct hf_json *j);

json_t *hf_get(const struct hf_json *j, const char *keys); /* NULL: missing or null */
/* A whole number min..max; 4096.0 is one too. */
enum status hf_int(const struct hf_json *j, const char *keys, bool required, int min, int max,
                   int *out, struct err *err);
enum status hf_num(const struct hf_json *j, const char *keys, bool required, float *out,
                   struct err *err);
enum status hf_bool(const struct hf_json *j, const char *keys, bool *out, struct err *err);
/* A borrowed string, terminated, without NUL inside. */
enum status hf_str(const struct hf_json *j, const char *keys, bool required, const char **out,
                   struct err *err);
/* A borrowed list; NULL when missing. */
enum status hf_list(const struct hf_json *j, const char *keys, const json_t **out,
                    struct err *err);
/* An object inside: *out borrows; root NULL when missing. */
enum status hf_child(const struct hf_json *j, const char *key, struct hf_json *out,
                     struct err *err);

#endif
