/*
 * gguf.h - reader of GGUF files, versions 2 and 3 (little-endian), the format of llama.cpp's
 * models.
 *
 * The file is mapped, its directory is checked once and kept as indexes into the mapping;
 * nothing is copied but the tables. Everything is bounded by the file's size before it is used:
 * after gguf_open() every string, array and tensor that an accessor returns lies inside the
 * mapping. A file with metadata and no tensors opens (tokenizers, templates). Borrowed pointers
 * live until gguf_close(). Immutable after opening, so any thread may read.
 *
 * Format: the GGUF specification in the ggml repository (docs/gguf.md).
 */
#ifndef LLMCHAT_ENGINE_MODEL_GGUF_H
#define LLMCHAT_ENGINE_MODEL_GGUF_H

#include "base/err.h"
#include "base/file_map.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum gguf_type { /* the numbers of the format */
                 GGUF_U8,
                 GGUF_I8,
                 GGUF_U16,
                 GGUF_I16,
                 GGUF_U32,
                 GGUF_I32,
                 GGUF_F32,
                 GGUF_BOOL,
                 GGUF_STR,
                 GGUF_ARR,
                 GGUF_U64,
                 GGUF_I64,
                 GGUF_F64,
                 GGUF_TYPE_N
};
const char *gguf_type_name(enum gguf_type t); /* "u8" … "f64" */
size_t gguf_type_bytes(enum gguf_type t); /* 0: strings and arrays, which have no fixed size */

struct gguf_str { /* not terminated, any bytes */
    const char *p;
    size_t len;
};

/* The two arguments of "%.*s", cut to what a message can hold. */
#define GGUF_SHOW(s) (int)((s).len < 80 ? (s).len : 80), (s).p

struct gguf_kv {
    struct gguf_str key;
    enum gguf_type type;
    const unsigned char
        *value;          /* the value's bytes in the file; a string's or array's contents */
    enum gguf_type elem; /* ARR: type of the elements */
    uint64_t n;          /* STR: bytes; ARR: elements; else 1 */
};

struct gguf_tensor {
    struct gguf_str name; /* 1..64 bytes */
    int n_dims;           /* 1..4 (0 is read as one element) */
    uint64_t ne[4];       /* fastest dimension first; 1 beyond n_dims */
    uint32_t type;        /* ggml type number, one that ggml_type_row() knows */
    uint64_t n_elem;
    uint64_t n_bytes;
    uint64_t offset;           /* in the file */
    const unsigned char *data; /* [n_bytes] */
};

struct gguf;

/* ST_NOT_FOUND, ST_IO, ST_FORMAT, ST_UNSUPPORTED (version 1, big-endian, unknown tensor type).
 */
enum status gguf_open(const char *path, struct gguf **out, struct err *err);
/* The same over memory that the caller keeps alive; name stands in messages. */
enum status gguf_parse(const void *p, size_t len, const char *name, struct gguf **out,
                       struct err *err);
void gguf_close(struct gguf *g); /* NULL is allowed */

const char *gguf_name(const struct gguf *g);    /* base name of the file, for messages */
struct file_map gguf_map(const struct gguf *g); /* the whole file */
uint64_t gguf_n_kv(const struct gguf *g);
const struct gguf_kv *gguf_kv(const struct gguf *g, uint64_t i);
uint64_t gguf_n_tensors(const struct gguf *g);
const struct gguf_tensor *gguf_tensor(const struct gguf *g, uint64_t i);
/* NULL: there is none. In the main file of a set it finds tensors of all parts. */
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name);
struct gguf_set;
/* Makes g the main file of a set that lives as long as g is used. */
void gguf_join(struct gguf *g, const struct gguf_set *set);
const struct gguf_kv *gguf_find(const struct gguf *g, const char *key); /* or NULL */

/* A value by key. *out is left as it was (the caller's default) and ST_OK returned when the key
 * is missing; a value of another kind, or one that does not fit, is ST_FORMAT. Integers convert
 * among all integer types, floats take integers and both float types. `required` makes a
 * missing key ST_FORMAT. */
enum status gguf_get_u64(const struct gguf *g, const char *key, bool required, uint64_t *out,
                         struct err *err);
enum status gguf_get_i64(const struct gguf *g, const char *key, bool required, int64_t *out,
                         struct err *err);
enum status gguf_get_f64(const struct gguf *g, const char *key, bool required, double *out,
                         struct err *err);
enum status gguf_get_bool(const struct gguf *g, const char *key, bool required, bool *out,
                          struct err *err);
enum status gguf_get_str(const struct gguf *g, const char *key, bool required,
                         struct gguf_str *out, struct err *err);

/* An array of strings, walked in order: strings lie one behind the other, so going through all
 * of them is linear. */
struct gguf_str_iter {
    const unsigned char *p;
    uint64_t left;
};
/* *n is the number of strings; 0 when the key is missing. */
enum status gguf_get_strings(const struct gguf *g, const char *key, bool required, uint64_t *n,
                             struct gguf_str_iter *it, struct err *err);
/* The next string; false at the end. */
bool gguf_next_string(struct gguf_str_iter *it, struct gguf_str *out);

/* Arrays of i32 (or u32) and f32: *v gets the first element, 1-byte aligned in the file (read
 * with memcpy); *n the number, 0 when the key is missing. */
enum status gguf_get_i32s(const struct gguf *g, const char *key, bool required, uint64_t *n,
                          const unsigned char **v, struct err *err);
enum status gguf_get_f32s(const struct gguf *g, const char *key, bool required, uint64_t *n,
                          const unsigned char **v, struct err *err);

/* A number for each of n layers: out [n]. A single value stands for all of them; an array must
 * have n elements. Bools are read as 0 and 1. Types and a missing key as in gguf_get_u64() and
 * gguf_get_f64(). */
enum status gguf_get_u64s(const struct gguf *g, const char *key, bool required, size_t n,
                          uint64_t *out, struct err *err);
enum status gguf_get_f64s(const struct gguf *g, const char *key, bool required, size_t n,
                          double *out, struct err *err);

/* A model split over several files, NAME-00001-of-0000N.gguf and so on: the first has the
 * metadata, each has some of the tensors. A file that is not split is a set of one. */

/* path: the first file. All parts are opened and checked: that they are parts of the same
 * split, their order, their number of tensors, that no tensor is in two of them. ST_NOT_FOUND
 * names a missing part; else as gguf_open(). */
enum status gguf_set_open(const char *path, struct gguf_set **out, struct err *err);
void gguf_set_close(struct gguf_set *s);                    /* NULL is allowed */
const struct gguf *gguf_set_main(const struct gguf_set *s); /* the one with the metadata */
size_t gguf_set_n_files(const struct gguf_set *s);
const struct gguf *gguf_set_file(const struct gguf_set *s, size_t i); /* 0: the main one */
/* The tensor and the file that it is in (in_file may be NULL), or NULL. */
const struct gguf_tensor *gguf_set_find(const struct gguf_set *s, const char *name,
                                        const struct gguf **in_file);

#endif
