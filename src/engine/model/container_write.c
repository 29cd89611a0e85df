/*
 * container_write.c - writes a safetensors file of ours. See container.h.
 *
 * All tensors are declared first, so that the header, which comes first in the file, is known
 * before any data: creating a model then streams tensor after tensor and never holds one.
 * Padding is a matter of this file alone: behind a tensor that does not end at a multiple of 64
 * a tensor "pad.N" of zero bytes is declared. The alternative, rounding shapes up, would show
 * readers elements that are not there.
 *
 * A hash over the source is known only when all of it was read; its place in the header is kept
 * by a value of the same length and overwritten in the file before the commit.
 *
 * Files are written in pieces of 2 MB at multiples of 2 MB: a write is what Linux makes one
 * page of in its cache, where the file system can (seen with 6.18 and ext4), and what it keeps
 * in such pages it maps so, which the kernels read up to half as fast again as small ones.
 */
#include "base/path.h"
#include "base/utf8.h"
#include "engine/model/container.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE_BYTES = 2 << 20 };

struct wtensor {
    uint64_t begin, n_bytes, pad;
};

struct container_writer {
    json_t *root, *meta;
    struct wtensor *tensors;
    size_t n, cap;
    uint64_t data_bytes;
    struct buf header; /* as in the file, with its length */
    struct atomic_file file;
    bool open;
    char *piece; /* [PIECE_BYTES] what is not in the file yet */
    size_t n_piece;
    size_t current;   /* tensor that is being written */
    uint64_t written; /* of it */
};

struct container_writer *container_writer_new(void) {
    struct container_writer *w = xcalloc(1, sizeof *w);
    w->root = json_object();
    w->meta = json_object();
    json_object_set(w->root, "__metadata__", w->meta);
    return w;
}

void container_writer_meta(struct container_writer *w, const char *key, const char *value) {
    struct buf clean = {0};
    utf8_scrub(&clean, value, strlen(value));
    json_object_set_new(w->meta, key, json_string(buf_str(&clean)));
    buf_release(&clean);
}

void container_writer_metaf(struct container_writer *w, const char *key, const char *fmt, ...) {
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    container_writer_meta(w, key, text);
}

static void add_entry(struct container_writer *w, const char *name, const char *dtype,
                      json_t *takes_shape, uint64_t n_bytes) {
    json_t *entry =
        json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", takes_shape, "data_offsets",
                  (json_int_t)w->data_bytes, (json_int_t)(w->data_bytes + n_bytes));
    assert(entry && !json_object_get(w->root, name));
    json_object_set_new(w->root, name, entry);
    w->data_bytes += n_bytes;
}

void container_writer_declare(struct container_writer *w, const char *name, enum dtype dtype,
                              int n_dims, const uint64_t *shape) {
    if (w->n == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 256;
        w->tensors = xreallocarray(w->tensors, w->cap, sizeof *w->tensors);
    }
    json_t *sizes = json_array();
    uint64_t n_bytes = dtype_size(dtype);
    for (int d = 0; d < n_dims; d++) {
        json_array_append_new(sizes, json_integer((json_int_t)shape[d]));
        n_bytes *= shape[d];
    }
    struct wtensor *t = &w->tensors[w->n];
    *t = (struct wtensor){w->data_bytes, n_bytes, -n_bytes % CONTAINER_ALIGN};
    add_entry(w, name, dtype_name(dtype), sizes, n_bytes);
    if (t->pad) {
        char pad[32];
        snprintf(pad, sizeof pad, "pad.%zu", w->n);
        add_entry(w, pad, "U8", json_pack("[I]", (json_int_t)t->pad), t->pad);
    }
    w->n++;
}

/* The metadata key with the longest value. */
static const char *longest_text(const struct container_writer *w) {
    const char *key, *longest = "none";
    json_t *v;
    size_t most = 0;
    json_object_foreach(w->meta, key, v) {
        if (json_string_length(v) > most) {
            most = json_string_length(v);
            longest = key;
        }
    }
    return longest;
}

static enum status write_piece(struct container_writer *w, struct err *err) {
    size_t n = w->n_piece;
    w->n_piece = 0;
    return atomic_write(&w->file, w->piece, n, err);
}

static enum status put(struct container_writer *w, const void *p, size_t len, struct err *err) {
    const char *from = p;
    while (len > 0) {
        size_t room = PIECE_BYTES - w->n_piece, n = len < room ? len : room;
        memcpy(w->piece + w->n_piece, from, n);
        w->n_piece += n;
        from += n;
        len -= n;
        if (w->n_piece == PIECE_BYTES)
            CHECK(write_piece(w, err));
    }
    return ST_OK;
}

enum status container_writer_begin(struct container_writer *w, const char *path,
                                   struct err *err) {
    char *text = json_dumps(w->root, JSON_COMPACT | JSON_PRESERVE_ORDER);
    assert(text);
    size_t len = strlen(text), pad = -(len + 8) % CONTAINER_ALIGN;
    if (len + pad > CONTAINER_MAX_HEADER) { /* no reader of ours would open it */
        free(text);
        return err_set(err, ST_LIMIT,
                       "%s: texts and tensors need a header of %zu bytes, wanted at most %d; "
                       "the longest text is %s",
                       path_base(path), len, CONTAINER_MAX_HEADER, longest_text(w));
    }
    for (int i = 0; i < 8; i++)
        buf_addc(&w->header, (char)((uint64_t)(len + pad) >> 8 * i));
    buf_add(&w->header, text, len);
    free(text);
    for (size_t i = 0; i < pad; i++)
        buf_addc(&w->header, ' ');
    CHECK(atomic_open(&w->file, path, err));
    w->open = true;
    w->piece = xcalloc(1, PIECE_BYTES);
    return put(w, w->header.p, w->header.len, err);
}

enum status container_writer_put(struct container_writer *w, const void *p, size_t len,
                                 struct err *err) {
    assert(w->current < w->n && len <= w->tensors[w->current].n_bytes - w->written);
    w->written += len;
    return put(w, p, len, err);
}

enum status container_writer_end_tensor(struct container_writer *w, struct err *err) {
    static const char zeros[CONTAINER_ALIGN];
    const struct wtensor *t = &w->tensors[w->current++];
    assert(w->written == t->n_bytes);
    w->written = 0;
    return put(w, zeros, (size_t)t->pad, err);
}

enum status container_writer_patch(struct container_writer *w, const char *key,
                                   const char *value, struct err *err) {
    struct buf want = {0};
    buf_addf(&want, "\"%s\":\"", key); /* inside a string the quotes would be escaped */
    char *at = memmem(w->header.p + 8, w->header.len - 8, want.p, want.len);
    assert(at);
    at += want.len;
    buf_release(&want);
    size_t len = strlen(value);
    assert(at[len] == '"' && !memchr(at, '"', len));
    memcpy(at, value, len);
    CHECK(write_piece(w, err)); /* the file's last, as a rule: nothing follows it */
    if (pwrite(w->file.fd, value, len, at - w->header.p) != (ssize_t)len)
        return err_set(err, ST_IO, "can't write %s: %s", w->file.path, strerror(errno));
    return ST_OK;
}

void container_writer_keep(struct container_writer *w) {
    assert(w->open);
    w->file.keep = true;
}

enum status container_writer_commit(struct container_writer *w, struct err *err) {
    assert(w->current == w->n);
    CHECK(write_piece(w, err));
    w->open = false;
    return atomic_commit(&w->file, err);
}

void container_writer_free(struct container_writer *w) {
    if (!w)
        return;
    if (w->open)
        atomic_abort(&w->file);
    json_decref(w->meta);
    json_decref(w->root);
    buf_release(&w->header);
    free(w->piece);
    free(w->tensors);
    free(w);
}
