/*
 * state_file.c - see state_file.h.
 *
 * The head is read twice, first alone, because it says how much there is before the blocks; the
 * second reading is the one that counts, and must say the same.
 *
 * Sums are XXH3: they find damage (a torn write, a bad disk), at memory speed; against a person
 * who may write the folder there is nothing to defend, since a state is only numbers that a
 * model computes with.
 */
#include "engine/run/state_file.h"

#include "base/mem.h"
#include "engine/run/graph.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

enum { ALIGN = 4096, HEAD = sizeof(struct state_head) };

/* Bytes before the blocks. All are bounded, nothing overflows. */
static uint64_t text_bytes(uint64_t n_tok, uint64_t n_block, uint64_t name_len) {
    uint64_t n = HEAD + n_block * sizeof(uint64_t) + n_tok * sizeof(int32_t) + name_len;
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static uint64_t blocks_of(uint64_t n_tok) {
    return (n_tok + KV_BLOCK - 1) / KV_BLOCK;
}

uint64_t state_file_bytes(uint64_t n_tok, uint64_t block_bytes, size_t name_len) {
    uint64_t n_block = blocks_of(n_tok);
    return text_bytes(n_tok, n_block, name_len) + n_block * block_bytes;
}

/* ST_IO, and ST_FORMAT when the file ends before. */
static enum status read_at(const struct state_file *f, void *to, size_t len, uint64_t at,
                           struct err *err) {
    char *p = to;
    while (len > 0) {
        ssize_t n = pread(f->fd, p, len, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, ST_IO, "%s: %s", f->path, strerror(errno));
        if (n == 0)
            return err_set(err, ST_FORMAT, "%s: ends at byte %" PRIu64 ", %zu more are wanted",
                           f->path, at, len);
        p += n;
        at += (uint64_t)n;
        len -= (size_t)n;
    }
    return ST_OK;
}

static enum status bad(const struct state_file *f, const char *what, uint64_t found,
                       uint64_t wanted, struct err *err) {
    return err_set(err, ST_FORMAT, "%s: %s is %" PRIu64 ", wanted %" PRIu64, f->path, what,
                   found, wanted);
}

static enum status check_head(const struct state_file *f, struct err *err) {
    const struct state_head *h = &f->head;
    if (memcmp(h->magic, STATE_MAGIC, sizeof h->magic - 1) != 0)
        return err_set(err, ST_FORMAT, "%s: does not begin as a saved state does", f->path);
    if (memcmp(h->magic, STATE_MAGIC, sizeof h->magic) != 0)
        return err_set(err, ST_UNSUPPORTED, "%s: a saved state of another version", f->path);
    if (h->n_tok < 1 || h->n_tok > STATE_MAX_TOK)
        return bad(f, "n_tok", h->n_tok, STATE_MAX_TOK, err);
    if (h->n_block != blocks_of(h->n_tok))
        return bad(f, "n_block", h->n_block, blocks_of(h->n_tok), err);
    if (h->name_len > STATE_MAX_NAME)
        return bad(f, "name_len", h->name_len, STATE_MAX_NAME, err);
    if (h->kind > 1)
        return bad(f, "kind", h->kind, 1, err);
    if (h->block_bytes < 1 || h->block_bytes > STATE_MAX_BLOCK_BYTES)
        return bad(f, "block_bytes", h->block_bytes, STATE_MAX_BLOCK_BYTES, err);
    uint64_t text = text_bytes(h->n_tok, h->n_block, h->name_len);
    if (h->head_bytes != text)
        return bad(f, "head_bytes", h->head_bytes, text, err);
    uint64_t all = text + h->n_block * h->block_bytes;
    if (f->n_bytes != all)
        return bad(f, "the file's size", f->n_bytes, all, err);
    return ST_OK;
}

static uint64_t sum_of_text(char *text, size_t len) {
    memset(text + offsetof(struct state_head, sum), 0, sizeof(uint64_t));
    return XXH3_64bits(text, len);
}

/* All that is before the blocks. */
static enum status read_text(struct state_file *f, struct err *err) {
    struct state_head again;
    size_t len = (size_t)f->head.head_bytes;
    f->text = xmalloc(len); /* not more than the file has */
    CHECK(read_at(f, f->text, len, 0, err));
    memcpy(&again, f->text, HEAD);
    if (memcmp(&again, &f->head, HEAD) != 0)
        return err_set(err, ST_FORMAT, "%s: was changed while it was read", f->path);
    uint64_t sum = sum_of_text(f->text, len);
    if (sum != f->head.sum)
        return bad(f, "sum", f->head.sum, sum, err);
    const char *at = f->text + HEAD;
    f->sums = (const uint64_t *)(const void *)at;
    at += f->head.n_block * sizeof *f->sums;
    f->tokens = (const int32_t *)(const void *)at;
    at += f->head.n_tok * sizeof *f->tokens;
    f->name = xstrndup(at, f->head.name_len);
    return ST_OK;
}

enum status state_open(struct state_file *f, const char *path, struct err *err) {
    size_t size;
    struct stat sb;
    enum status st;
    *f = (struct state_file){.fd = -1};
    CHECK(file_open_regular(path, &f->fd, &size, err));
    f->path = xstrdup(path);
    f->n_bytes = size;
    if (fstat(f->fd, &sb) == 0)
        f->used_us = (int64_t)sb.st_mtim.tv_sec * 1000000 + sb.st_mtim.tv_nsec / 1000;
    TRY(read_at(f, &f->head, HEAD, 0, err));
    TRY(check_head(f, err));
    TRY(read_text(f, err));
    return ST_OK;
out:
    state_close(f);
    return st;
}

enum status state_read_block(const struct state_file *f, uint32_t i, void *out,
                             struct err *err) {
    assert(i < f->head.n_block);
    size_t len = (size_t)f->head.block_bytes;
    CHECK(read_at(f, out, len, f->head.head_bytes + i * f->head.block_bytes, err));
    if (XXH3_64bits(out, len) != f->sums[i])
        return err_set(err, ST_FORMAT, "%s: block %u is damaged", f->path, i);
    return ST_OK;
}

/* The clock's own time: what the kernel would set is some milliseconds coarse, too coarse for
 * an order. */
static void touch(int fd) {
    struct timespec t[2];
    clock_gettime(CLOCK_REALTIME, &t[0]);
    t[1] = t[0];
    futimens(fd, t);
}

void state_touch(const struct state_file *f) {
    touch(f->fd);
}

void state_close(struct state_file *f) {
    if (f->fd >= 0)
        close(f->fd);
    free(f->path);
    free(f->text);
    free(f->name);
    *f = (struct state_file){.fd = -1};
}

/* ---- writing ---- */

enum status state_write_begin(struct state_writer *w, const char *path,
                              const struct state_head *head, const int32_t *tokens,
                              const char *name, struct err *err) {
    size_t name_len = strlen(name);
    *w = (struct state_writer){.file.fd = -1, .head = *head};
    struct state_head *h = &w->head;
    assert(h->n_tok >= 1 && h->n_tok <= STATE_MAX_TOK);
    assert(h->block_bytes >= 1 && h->block_bytes <= STATE_MAX_BLOCK_BYTES);
    memcpy(h->magic, STATE_MAGIC, sizeof h->magic);
    h->n_block = (uint32_t)blocks_of(h->n_tok);
    h->name_len = (uint32_t)(name_len < STATE_MAX_NAME ? name_len : STATE_MAX_NAME);
    h->head_bytes = text_bytes(h->n_tok, h->n_block, h->name_len);
    w->text = xcalloc(1, (size_t)h->head_bytes);
    char *at = w->text + HEAD + h->n_block * sizeof(uint64_t);
    memcpy(at, tokens, h->n_tok * sizeof *tokens);
    memcpy(at + h->n_tok * sizeof *tokens, name, h->name_len);
    enum status st = atomic_open(&w->file, path, err);
    if (st == ST_OK) {
        w->file.fleeting = true;
        st = atomic_write(&w->file, w->text, (size_t)h->head_bytes, err); /* its place */
    }
    if (st != ST_OK)
        state_write_abort(w);
    return st;
}

enum status state_write_block(struct state_writer *w, const void *block, struct err *err) {
    size_t len = (size_t)w->head.block_bytes;
    assert(w->n_written < w->head.n_block);
    uint64_t sum = XXH3_64bits(block, len);
    memcpy(w->text + HEAD + w->n_written * sizeof sum, &sum, sizeof sum);
    w->n_written++;
    return atomic_write(&w->file, block, len, err);
}

enum status state_write_end(struct state_writer *w, struct err *err) {
    assert(w->n_written == w->head.n_block);
    size_t len = (size_t)w->head.head_bytes;
    memcpy(w->text, &w->head, HEAD);
    w->head.sum = sum_of_text(w->text, len);
    memcpy(w->text, &w->head, HEAD);
    enum status st = ST_OK;
    if (lseek(w->file.fd, 0, SEEK_SET) < 0)
        st = err_set(err, ST_IO, "can't write %s: %s", w->file.path, strerror(errno));
    if (st == ST_OK)
        st = atomic_write(&w->file, w->text, len, err);
    if (st == ST_OK)
        touch(w->file.fd);
    if (st == ST_OK)
        st = atomic_commit(&w->file, err);
    else
        atomic_abort(&w->file);
    free(w->text);
    w->text = NULL;
    return st;
}

void state_write_abort(struct state_writer *w) {
    atomic_abort(&w->file);
    free(w->text);
    w->text = NULL;
}
