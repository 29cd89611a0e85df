/*
 * hf_tokenizer.c - see hf_tokenizer.h.
 *
 * One of three readers collects tokens, merges and the pipeline (hf_maker.h), the small files
 * say what the tokens mean (hf_config.c), and here the whole becomes a vocabulary. Last the
 * tokenizer is built once, so that a folder whose pipeline is not known is refused when it is
 * opened, and not when a model has been made of it.
 */
#include "engine/text/hf_tokenizer.h"
#include "base/path.h"
#include "engine/text.h"
#include "engine/text/hf_maker.h"
#include "engine/text/hf_templates.h"
#include "engine/text/text_internal.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool has_file(const char *dir, const char *name) {
    char *path = path_join(dir, name);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

static enum status read_files(struct hf_maker *m, struct err *err) {
    if (has_file(m->dir, "tokenizer.json"))
        return hf_read_tokenizer_json(m, err);
    if (has_file(m->dir, "tokenizer.model"))
        return hf_read_sentencepiece(m, err);
    if (has_file(m->dir, "vocab.json") && has_file(m->dir, "merges.txt"))
        return hf_read_vocab_merges(m, err);
    return err_set(err, ST_NOT_FOUND,
                   "%s: has no tokenizer: no tokenizer.json, no tokenizer.model, and not both "
                   "of vocab.json and merges.txt",
                   m->dir);
}

/* Ids without a token become unused ones, up to n_vocab. */
static enum status count_tokens(struct hf_maker *m, int n_vocab, struct err *err) {
    if (m->n == 0)
        return err_set(err, ST_FORMAT, "%s: the vocabulary is empty", m->file);
    if (m->n > 65536 && m->n / 2 > m->n_set)
        return err_set(err, ST_FORMAT, "%s: ids go up to %u, but there are only %u tokens",
                       m->file, m->n - 1, m->n_set);
    if (n_vocab > 0 && m->n > (uint32_t)n_vocab)
        return err_set(err, ST_FORMAT, "%s: has %u tokens, the model's embedding has %d rows",
                       m->file, m->n, n_vocab);
    return ST_OK;
}

static void fill_scores(struct hf_maker *m, uint32_t n) {
    float *f = vocab_own(m->v, xcalloc(n, sizeof *f));
    double *d = xcalloc(n, sizeof *d);
    bool exact = true;
    for (uint32_t i = 0; i < m->n; i++) {
        d[i] = m->tok[i].score;
        f[i] = (float)d[i];
        exact = exact && (double)f[i] == d[i];
    }
    m->v->scores = f;
    if (exact)
        free(d);
    else
        m->v->scores64 = vocab_own(m->v, d);
}

static void fill(struct hf_maker *m, uint32_t n) {
    struct vocab_data *v = m->v;
    struct buf bytes = {0};
    uint32_t *off = vocab_own(v, xreallocarray(NULL, n + 1u, sizeof *off));
    int32_t *types = vocab_own(v, xreallocarray(NULL, n, sizeof *types));
    uint8_t *added = vocab_own(v, xcalloc(n, 1));
    buf_reserve(&bytes, m->bytes.len + 1);
    for (uint32_t i = 0; i < n; i++) {
        off[i] = (uint32_t)bytes.len;
        types[i] = VOCAB_UNUSED;
        if (i >= m->n || m->tok[i].type == VOCAB_UNDEFINED)
            continue;
        types[i] = m->tok[i].type;
        added[i] = m->tok[i].added;
        buf_add(&bytes, m->bytes.p + m->tok[i].off, m->tok[i].len);
    }
    off[n] = (uint32_t)bytes.len;
    v->tokens = (struct vocab_strings){n, vocab_own(v, buf_take(&bytes)), off};
    v->types = types;
    v->added = added;
    if (m->n_merge > 0) {
        v->merge_ids = vocab_own(v, m->merge);
        v->n_merge_ids = (uint32_t)m->n_merge;
        m->merge = NULL;
    }
    if (m->scores)
        fill_scores(m, n);
    v->model = m->model;
    v->pipeline = vocab_own(v, json_dumps(m->pipeline, JSON_COMPACT | JSON_SORT_KEYS));
}

static void maker_release(struct hf_maker *m) {
    buf_release(&m->bytes);
    free(m->tok);
    free(m->slot);
    free(m->merge);
    json_decref(m->pipeline);
}

/* Is everything in it known? */
static enum status try_out(const struct vocab_data *v, const char *file, struct err *err) {
    struct text_model *t;
    if (text_from_vocab(v, &t, err) != ST_OK)
        return err_prefix(err, "%s", file);
    text_close(t);
    return ST_OK;
}

enum status vocab_from_hf(struct vocab_data *v, const char *dir, int n_vocab, struct err *err) {
    struct hf_maker m = {.v = v, .dir = dir, .pipeline = json_object(), .model = ""};
    enum status st;
    vocab_init(v);
    TRY(read_files(&m, err));
    TRY(hf_read_config(&m, err));
    TRY(count_tokens(&m, n_vocab, err));
    fill(&m, n_vocab > 0 ? (uint32_t)n_vocab : m.n);
    TRY(hf_templates(v, dir, err));
    TRY(try_out(v, m.file, err));
out:
    maker_release(&m);
    if (st != ST_OK)
        vocab_release(v);
    return st;
}
