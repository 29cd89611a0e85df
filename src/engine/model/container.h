/*
 * container.h - safetensors files: our model file, whose tensors lie as the kernels read them,
 * and those that others wrote.
 *
 * Layout (safetensors): u64 header length, little-endian; a JSON object of that length; the
 * data. Each entry of the object is a tensor {"dtype", "shape", "data_offsets": [begin, end)},
 * "__metadata__" is an object of strings. The format allows neither overlaps nor holes. Ours
 * adds: every tensor begins at a multiple of 64 in the file. The header is padded with blanks
 * for that, and behind a tensor whose size is no multiple of 64 follows a tensor of zero bytes
 * named "pad.N" (U8), so that any safetensors reader opens the file. Readers skip "pad."
 * tensors (U8, digits behind the point).
 *
 * Reading maps the file and checks everything at once; then pointers go into the mapping.
 * Immutable after opening.
 */
#ifndef LLMCHAT_ENGINE_MODEL_CONTAINER_H
#define LLMCHAT_ENGINE_MODEL_CONTAINER_H

#include "base/err.h"
#include "base/file_map.h"
#include "base/mem.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CONTAINER_ALIGN = 64, CONTAINER_MAX_DIMS = 8, CONTAINER_MAX_HEADER = 32 << 20 };

enum dtype {
    DTYPE_BOOL,
    DTYPE_U8,
    DTYPE_I8,
    DTYPE_F8_E4M3, /* 4 bits of exponent (bias 7), 3 of mantissa, no infinities */
    DTYPE_F8_E5M2, /* the high byte of an F16 */
    DTYPE_F8_E8M0, /* powers of two */
    DTYPE_I16,
    DTYPE_U16,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_I32,
    DTYPE_U32,
    DTYPE_F32,
    DTYPE_F64,
    DTYPE_I64,
    DTYPE_U64,
    DTYPE_N
};
const char *dtype_name(enum dtype t); /* "F32" */
size_t dtype_size(enum dtype t);      /* bytes of an element */

struct ctensor {
    const char *name;
    enum dtype dtype;
    int n_dims;
    uint64_t shape[CONTAINER_MAX_DIMS]; /* slowest dimension first */
    uint64_t n_elem, n_bytes;
    const unsigned char *data; /* [n_bytes] in the mapping; in files that are not ours at any
                                  alignment */
};

struct container;

/* ST_NOT_FOUND, ST_IO, ST_FORMAT. Any safetensors file opens; what makes it one of ours is
 * model.c's business. */
enum status container_open(const char *path, struct container **out, struct err *err);
/* The same over memory that the caller keeps alive; name stands in messages. */
enum status container_parse(const void *p, size_t len, const char *name, struct container **out,
                            struct err *err);
void container_close(struct container *c); /* NULL is allowed */

const char *container_name(const struct container *c); /* base name of the file, for messages */
uint64_t container_bytes(const struct container *c);   /* size of the file */
struct file_map container_map(const struct container *c); /* lives as long as c */
enum status container_intact(const struct container *c, struct err *err); /* file_map.h */
size_t container_n_tensors(const struct container *c);                    /* without padding */
const struct ctensor *container_tensor(const struct container *c, size_t i); /* by place */
const struct ctensor *container_find(const struct container *c, const char *name); /* or NULL */
/* The named tensor, which must have this type and shape (n_dims sizes) and begin at a multiple
 * of 64; ST_FORMAT says what was found and what was wanted. */
enum status container_need(const struct container *c, const char *name, enum dtype dtype,
                           int n_dims, const uint64_t *shape, const struct ctensor **out,
                           struct err *err);
/* A value of __metadata__, or NULL. */
const char *container_meta(const struct container *c, const char *key);
/* Every value of __metadata__. */
void container_meta_each(const struct container *c,
                         void (*each)(void *user, const char *key, const char *value),
                         void *user);
enum status container_meta_int(const struct container *c, const char *key, int64_t min,
                               int64_t max, int64_t *out, struct err *err);
enum status container_meta_num(const struct container *c, const char *key, double min,
                               double max, double *out, struct err *err);

/* Writing: declare everything, begin (writes the header), then the data of each tensor in the
 * order declared. The file appears when container_writer_commit() succeeds; abort at any time
 * leaves nothing. */
struct container_writer;
struct container_writer *container_writer_new(void);
void container_writer_meta(struct container_writer *w, const char *key, const char *value);
void container_writer_metaf(struct container_writer *w, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void container_writer_declare(struct container_writer *w, const char *name, enum dtype dtype,
                              int n_dims, const uint64_t *shape);
enum status container_writer_begin(struct container_writer *w, const char *path,
                                   struct err *err);
/* The next bytes of the data; a tensor's padding is written by container_writer_end_tensor(),
 * which also asserts that the tensor got exactly its bytes. */
enum status container_writer_put(struct container_writer *w, const void *p, size_t len,
                                 struct err *err);
enum status container_writer_end_tensor(struct container_writer *w, struct err *err);
/* Overwrites the value of a key declared before with one of the same length that needs no
 * escapes in JSON (a hash that is known only after the data). */
enum status container_writer_patch(struct container_writer *w, const char *key,
                                   const char *value, struct err *err);
/* The commit is to fail with ST_EXISTS where a file is by then. */
void container_writer_keep(struct container_writer *w);
enum status container_writer_commit(struct container_writer *w, struct err *err);
void container_writer_free(
    struct container_writer *w); /* aborts when not committed; NULL is allowed */

#endif
