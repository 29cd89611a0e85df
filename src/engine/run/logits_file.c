/*
 * logits_file.c - see logits_file.h.
 *
 * Written front to back through an atomic file, read through a mapping whose whole size is
 * checked against the header before a row is looked at, so that reading needs no further
 * bounds. Numbers inside a row are checked as they are read: a file of the right size with a
 * step of NaN is refused, too.
 *
 * Rejected: float32 rows (twice the size for digits that no comparison shows); half floats (too
 * coarse far below the best token).
 */
#include "engine/run/logits_file.h"

#include "base/mem.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "this file format is written in the host's byte order, which must be little-endian"
#endif

enum { HEAD_BYTES = 24, ROW_HEAD_BYTES = 12, VERSION = 1, MAX_Q = 65535 };
static const char magic[8] = "LLMLOGIT";
static const float range_nats = 24;

static size_t row_bytes(uint32_t n_vocab) {
    return ROW_HEAD_BYTES + ((size_t)n_vocab + n_vocab % 2) * sizeof(uint16_t);
}

enum status logits_writer_open(struct logits_writer *w, const char *path,
                               const struct logits_shape *shape, struct err *err) {
    const uint32_t head[4] = {VERSION, shape->n_vocab, shape->ctx, shape->n_window};
    size_t n_tok = (size_t)shape->n_window * shape->ctx;
    *w = (struct logits_writer){.n_vocab = shape->n_vocab};
    CHECK(atomic_open(&w->file, path, err));
    w->row = xcalloc(1, row_bytes(shape->n_vocab));
    enum status st = ST_OK;
    TRY(atomic_write(&w->file, magic, sizeof magic, err));
    TRY(atomic_write(&w->file, head, sizeof head, err));
    TRY(atomic_write(&w->file, shape->tokens, n_tok * sizeof *shape->tokens, err));
    return ST_OK;
out:
    logits_writer_close(w, false, NULL);
    return st;
}

enum status logits_writer_add(struct logits_writer *w, const float *logp, uint32_t best,
                              struct err *err) {
    float top = logp[best], low = top;
    for (uint32_t i = 0; i < w->n_vocab; i++)
        low = logp[i] < low ? logp[i] : low;
    float range = top - low < range_nats ? top - low : range_nats;
    float step = range / MAX_Q;
    memcpy(w->row, &best, sizeof best);
    memcpy(w->row + 4, &top, sizeof top);
    memcpy(w->row + 8, &step, sizeof step);
    uint16_t *q = (uint16_t *)(w->row + ROW_HEAD_BYTES);
    for (uint32_t i = 0; i < w->n_vocab; i++) {
        float steps = step > 0 ? (top - logp[i]) / step + 0.5f : 0;
        q[i] = steps < MAX_Q ? (uint16_t)steps : MAX_Q;
    }
    return atomic_write(&w->file, w->row, row_bytes(w->n_vocab), err);
}

enum status logits_writer_close(struct logits_writer *w, bool keep, struct err *err) {
    enum status st = ST_OK;
    if (keep)
        st = atomic_commit(&w->file, err);
    else
        atomic_abort(&w->file);
    free(w->row);
    w->row = NULL;
    return st;
}

/* Compares the header with what this evaluation is; after it the file's sizes are our own. */
static enum status check_head(const unsigned char *p, const struct logits_shape *shape,
                              const char *name, struct err *err) {
    uint32_t head[4];
    memcpy(head, p + sizeof magic, sizeof head);
    if (head[0] != VERSION)
        return err_set(err, ST_FORMAT, "%s: version %u, wanted %d", name, head[0], VERSION);
    const struct {
        const char *what;
        uint32_t found, wanted;
    } fields[] = {{"vocabulary", head[1], shape->n_vocab},
                  {"window of tokens", head[2], shape->ctx},
                  {"number of windows", head[3], shape->n_window}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].found != fields[i].wanted)
            return err_set(err, ST_FORMAT, "%s: a %s of %u, this evaluation has %u", name,
                           fields[i].what, fields[i].found, fields[i].wanted);
    return ST_OK;
}

enum status logits_reader_parse(struct logits_reader *r, const void *p, size_t len,
                                const char *name, const struct logits_shape *shape,
                                struct err *err) {
    *r = (struct logits_reader){.n_vocab = shape->n_vocab};
    if (len < HEAD_BYTES || memcmp(p, magic, sizeof magic) != 0)
        return err_set(err, ST_FORMAT, "%s: not a file of saved logits", name);
    CHECK(check_head(p, shape, name, err));
    size_t tok_bytes = (size_t)shape->n_window * shape->ctx * sizeof(int32_t);
    size_t rows = (size_t)shape->n_window * (shape->ctx - shape->ctx / 2 - 1);
    size_t want, before = HEAD_BYTES + tok_bytes;
    if (mul_overflows(rows, row_bytes(shape->n_vocab), &want) ||
        add_overflows(want, before, &want))
        return err_set(err, ST_LIMIT, "%s: too large", name);
    if (len != want)
        return err_set(err, ST_FORMAT, "%s: %zu bytes, wanted %zu", name, len, want);
    const unsigned char *start = p;
    if (memcmp(start + HEAD_BYTES, shape->tokens, tok_bytes) != 0)
        return err_set(err, ST_FORMAT, "%s: saved for another text", name);
    r->next = start + before;
    return ST_OK;
}

enum status logits_reader_open(struct logits_reader *r, const char *path,
                               const struct logits_shape *shape, struct err *err) {
    struct file_map map;
    CHECK(file_map_open(&map, path, err));
    enum status st = logits_reader_parse(r, map.p, map.len, path, shape, err);
    if (st == ST_OK)
        r->map = map;
    else
        file_map_close(&map);
    return st;
}

enum status logits_reader_next(struct logits_reader *r, float *logp, uint32_t *best,
                               struct err *err) {
    float top, step;
    memcpy(best, r->next, sizeof *best);
    memcpy(&top, r->next + 4, sizeof top);
    memcpy(&step, r->next + 8, sizeof step);
    if (*best >= r->n_vocab || !(top <= 1e-3f && top > -100) || !(step >= 0 && step < 1))
        return err_set(err, ST_FORMAT, "saved logits: a row with best %u, top %g, step %g",
                       *best, (double)top, (double)step);
    for (uint32_t i = 0; i < r->n_vocab; i++) {
        uint16_t q;
        memcpy(&q, r->next + ROW_HEAD_BYTES + (size_t)i * sizeof q, sizeof q);
        logp[i] = top - step * q;
    }
    r->next += row_bytes(r->n_vocab);
    return ST_OK;
}

void logits_reader_close(struct logits_reader *r) {
    file_map_close(&r->map);
    r->next = NULL;
}
