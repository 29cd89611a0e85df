/*
 * state_file.h - the keys and values of a conversation in a file: written once, read block by
 * block.
 *
 * Layout, in the byte order of the machine:
 *
 *   head      struct state_head
 *   sums      u64 [n_block]   XXH3 of each block
 *   tokens    i32 [n_tok]     whose keys and values these are
 *   name      [name_len]      the model's, for a person
 *   zeros up to head_bytes, a multiple of 4096
 *   blocks    [n_block][block_bytes] as graph_read_block() gives them; the last one may be
 *             partly used
 *
 * head.sum covers everything before the blocks. All layers of a block lie together, so that a
 * common beginning of two conversations is read without the rest.
 *
 * A file is hostile until checked: opening checks each number, that the file is as long as they
 * say, and the sum; reading a block checks its sum. Files are read with pread() and not mapped:
 * every byte is copied anyway, and of a file that is cut a read comes back short where a
 * mapping would fault.
 */
#ifndef LLMCHAT_ENGINE_RUN_STATE_FILE_H
#define LLMCHAT_ENGINE_RUN_STATE_FILE_H

#include "base/err.h"
#include "base/path.h"
#include <stddef.h>
#include <stdint.h>

enum { STATE_MAX_TOK = 1 << 24, STATE_MAX_BLOCK_BYTES = 1 << 30, STATE_MAX_NAME = 4096 };

/* Raise the last digit when the layout of the file changes, STATE_KV when that of a block or
 * what stands in it does. The rest stays: what does not begin with it was written by no
 * version, so that it is damage. */
#define STATE_MAGIC "llmkv\r\n1"
#define STATE_KV    "2"

struct state_head {
    char magic[8];
    uint64_t sum;        /* XXH3 of what is before the blocks, with zeros here */
    uint64_t model;      /* model_hash() */
    uint64_t form;       /* of what else the numbers in the blocks depend on (engine.c) */
    int64_t owner;       /* session_keep() */
    uint64_t head_bytes; /* where the blocks begin */
    uint64_t block_bytes;
    uint32_t n_tok, n_block, name_len;
    uint32_t kind; /* graph_kv_kind() */
};

/* Open for reading; all open to readers. */
struct state_file {
    int fd;
    char *path;
    struct state_head head;
    char *text;            /* what is before the blocks, owned */
    const uint64_t *sums;  /* [n_block] in text */
    const int32_t *tokens; /* [n_tok] in text */
    char *name;            /* owned, terminated */
    uint64_t n_bytes;      /* of the file */
    int64_t used_us;       /* when it was used last (microseconds since 1970): its time */
};
/* ST_NOT_FOUND, ST_IO, ST_FORMAT (damaged: which field, found, wanted), ST_UNSUPPORTED (of
 * another version). */
enum status state_open(struct state_file *f, const char *path, struct err *err);
/* Block i to out [block_bytes]; ST_FORMAT when it is damaged. */
enum status state_read_block(const struct state_file *f, uint32_t i, void *out,
                             struct err *err);
/* Says that it was used now. */
void state_touch(const struct state_file *f);
void state_close(struct state_file *f);

/* Writing: begin, each block in order, end; the file appears at the end or not at all. After a
 * failure abort. Not synced: what a power failure damages is found by its sums. */
struct state_writer {
    struct atomic_file file;
    struct state_head head;
    char *text;
    uint32_t n_written;
};
/* head: model, form, owner, block_bytes, n_tok and kind are given, the rest is filled; tokens
 * and name are copied. */
enum status state_write_begin(struct state_writer *w, const char *path,
                              const struct state_head *head, const int32_t *tokens,
                              const char *name, struct err *err);
enum status state_write_block(struct state_writer *w, const void *block, struct err *err);
enum status state_write_end(struct state_writer *w, struct err *err);
void state_write_abort(struct state_writer *w);

/* Bytes of a file with so many tokens. */
uint64_t state_file_bytes(uint64_t n_tok, uint64_t block_bytes, size_t name_len);

#endif
