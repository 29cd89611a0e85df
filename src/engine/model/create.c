/*
 * create.c - a model of ours from a GGUF file.
 *
 * First everything is checked: hyperparameters, every tensor's type and shape, the vocabulary.
 * Then the header is written, and the tensors follow one by one, 16 rows at a time: values as
 * f32, quantised, packed into a tile, written. Only the scales of one tensor are held (a
 * thirty-second of its f32 size), since the second quantisation needs their mean. A second
 * thread hashes the source meanwhile; the hash is put into the header before the file gets its
 * name.
 *
 * The file is written beside its place, synced and renamed (base/path.h), so there is a whole
 * model or none. Rejected: quantising into memory and writing at the end (twice the memory),
 * and hashing first (a second pass over a file that may not fit into the page cache).
 */
#include "base/clock.h"
#include "base/sha256.h"
#include "base/utf8.h"
#include "engine/model/model_file.h"
#include "engine/model/vocab_store.h"
#include "engine/quant/ggml_types.h"
#include "engine/quant/pack.h"
#include "engine/quant/quant.h"
#include "engine/text.h"
#include "engine/text/text_internal.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct job {
    const struct create_params *p;
    struct gguf *g;
    const struct arch *arch;
    struct hparams hp;
    enum quant quant, head_quant;
    struct vocab_data vocab;
    struct container_writer *w;
    uint64_t n_params, done_bytes, total_bytes, shown_bytes;
    bool *used; /* [gguf_n_tensors] */

    pthread_t hasher;
    bool hashing;
    atomic_bool stop_hashing;
    char sha256[65];
};

typedef enum status visit_fn(struct job *j, const struct arch_tensor *t, const char *base,
                             const struct gguf_tensor *gt, struct err *err);

static enum status visit_one(struct job *j, visit_fn *visit, const struct arch_tensor *t,
                             const char *prefix, struct err *err) {
    char base[64], full[96];
    snprintf(base, sizeof base, "%s%s", prefix, t->name);
    snprintf(full, sizeof full, "%s.weight", base);
    const struct gguf_tensor *gt = gguf_find_tensor(j->g, full);
    if (!gt && t->optional)
        return ST_OK;
    if (!gt)
        return err_set(err, ST_FORMAT, "%s: tensor %s is missing", gguf_name(j->g), full);
    return visit(j, t, base, gt, err);
}

/* Calls visit for every tensor of the model, in the order of our file. */
static enum status visit_all(struct job *j, visit_fn *visit, struct err *err) {
    char prefix[32];
    for (const struct arch_tensor *t = j->arch->model; t->name; t++)
        CHECK(visit_one(j, visit, t, "", err));
    for (int l = 0; l < j->hp.n_layer; l++) {
        snprintf(prefix, sizeof prefix, "blk.%d.", l);
        for (const struct arch_tensor *t = j->arch->layer; t->name; t++)
            CHECK(visit_one(j, visit, t, prefix, err));
    }
    return ST_OK;
}

static enum status check_tensor(struct job *j, const struct arch_tensor *t, const char *base,
                                const struct gguf_tensor *gt, struct err *err) {
    uint64_t N = arch_dim(t->n, &j->hp), K = arch_dim(t->k, &j->hp);
    const struct ggml_type_row *row = ggml_type_row(gt->type);
    if (!row->dequant)
        return err_set(
            err, ST_UNSUPPORTED,
            "%s: tensor %s.weight has type %s, which is not supported; supported: %s",
            gguf_name(j->g), base, row->name, ggml_types_supported());
    if (gt->ne[0] != K || gt->ne[1] != N || gt->ne[2] != 1 || gt->ne[3] != 1)
        return err_set(err, ST_FORMAT,
                       "%s: tensor %s.weight is %" PRIu64 " x %" PRIu64 " x %" PRIu64
                       " x %" PRIu64 ", wanted %" PRIu64 " x %" PRIu64,
                       gguf_name(j->g), base, gt->ne[0], gt->ne[1], gt->ne[2], gt->ne[3], K, N);
    j->used[gt - gguf_tensor(j->g, 0)] = true;
    j->n_params += gt->n_elem;
    j->total_bytes += gt->n_bytes;
    return ST_OK;
}

static bool ends_with(struct gguf_str s, const char *end) {
    size_t n = strlen(end);
    return s.len >= n && memcmp(s.p + s.len - n, end, n) == 0;
}

/* Every tensor that the table knows is there and fits, and there is none that it does not know.
 */
static enum status check_source(struct job *j, struct err *err) {
    CHECK(arch_check(&j->hp, gguf_name(j->g), err));
    j->used = xcalloc(gguf_n_tensors(j->g), sizeof *j->used);
    CHECK(visit_all(j, check_tensor, err));
    for (uint64_t i = 0; i < gguf_n_tensors(j->g); i++) {
        struct gguf_str name = gguf_tensor(j->g, i)->name;
        if (!j->used[i])
            return err_set(err, ST_UNSUPPORTED,
                           "%s: tensor %.*s: %s not supported for %s models", gguf_name(j->g),
                           (int)name.len, name.p,
                           ends_with(name, ".bias") ? "biases are" : "it is", j->arch->name);
    }
    CHECK(vocab_from_gguf(&j->vocab, j->g, err));
    if (j->vocab.tokens.n != (uint32_t)j->hp.n_vocab)
        return err_set(err, ST_FORMAT,
                       "%s: tokenizer.ggml.tokens has %" PRIu32
                       " entries, token_embd.weight has %d rows",
                       gguf_name(j->g), j->vocab.tokens.n, j->hp.n_vocab);
    struct text_model *text; /* a tokenizer that could not be opened later is refused now */
    if (text_from_vocab(&j->vocab, &text, err) != ST_OK)
        return err_prefix(err, "%s", gguf_name(j->g));
    text_close(text);
    return ST_OK;
}

static enum status declare_tensor(struct job *j, const struct arch_tensor *t, const char *base,
                                  const struct gguf_tensor *gt, struct err *err) {
    (void)err;
    if (t->kind == TENSOR_VECTOR) {
        char name[96];
        snprintf(name, sizeof name, "%s.weight", base);
        container_writer_declare(j->w, name, DTYPE_F32, 1, gt->ne);
    } else {
        enum quant q = t->kind == TENSOR_HEAD ? j->head_quant : j->quant;
        weight_declare(j->w, base, quant_weight_type(q), (int)gt->ne[1], (int)gt->ne[0]);
    }
    return ST_OK;
}

/* A text of the GGUF's general metadata; left out when it is missing or no string. */
static void copy_text(struct job *j, const char *gguf_key, const char *key) {
    struct gguf_str s = {"", 0};
    if (gguf_get_str(j->g, gguf_key, false, &s, NULL) != ST_OK || s.len > 4096)
        return;
    char *text = xstrndup(s.p, s.len);
    container_writer_meta(j->w, key, text);
    free(text);
}

static enum status declare_all(struct job *j, struct err *err) {
    char when[32];
    struct tm tm;
    time_t now = (time_t)(clock_unix_ms() / 1000);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    j->w = container_writer_new();
    model_meta_write(j->w, &j->hp, j->quant, j->head_quant);
    container_writer_meta(j->w, "architecture", j->arch->name);
    container_writer_metaf(j->w, "n_params", "%" PRIu64, j->n_params);
    copy_text(j, "general.name", "title");
    copy_text(j, "general.license", "license");
    container_writer_meta(j->w, "source", gguf_name(j->g));
    container_writer_metaf(j->w, "source_sha256", "%064d", 0);
    container_writer_meta(j->w, "created", when);
    vocab_declare(j->w, &j->vocab);
    return visit_all(j, declare_tensor, err);
}

/* Counts source bytes; tells the caller about every megabyte and at the end. */
static enum status advance(struct job *j, uint64_t n_bytes, struct err *err) {
    j->done_bytes += n_bytes;
    if (j->done_bytes - j->shown_bytes < 1 << 20 && j->done_bytes != j->total_bytes)
        return ST_OK;
    j->shown_bytes = j->done_bytes;
    if (j->p->progress &&
        !j->p->progress(j->p->user, "quantising", j->done_bytes, j->total_bytes))
        return err_set(err, ST_CANCELLED, "cancelled");
    return ST_OK;
}

/* n elements of a tensor from element `first` on, as f32. */
static enum status values(struct job *j, const struct gguf_tensor *gt, uint64_t first, size_t n,
                          float *out, struct err *err) {
    const struct ggml_type_row *row = ggml_type_row(gt->type);
    row->dequant(gt->data + first / row->block_elems * row->block_bytes, out, n);
    if (!quant_finite(out, n))
        return err_set(err, ST_FORMAT,
                       "%s: tensor %.*s: a value among elements %" PRIu64 "..%" PRIu64
                       " is not finite",
                       gguf_name(j->g), GGUF_SHOW(gt->name), first, first + n - 1);
    return ST_OK;
}

static enum status write_vector(struct job *j, const struct gguf_tensor *gt, struct err *err) {
    float *v = xreallocarray(NULL, (size_t)gt->n_elem, sizeof *v);
    enum status st;
    TRY(values(j, gt, 0, (size_t)gt->n_elem, v, err));
    TRY(container_writer_put(j->w, v, (size_t)gt->n_elem * sizeof *v, err));
    TRY(container_writer_end_tensor(j->w, err));
    TRY(advance(j, gt->n_bytes, err));
out:
    free(v);
    return st;
}

/* The tiles of a matrix; scale [Np, G] gets the scales in row order. */
static enum status write_tiles(struct job *j, const struct gguf_tensor *gt, enum weight_type t,
                               float *scale, struct err *err) {
    int N = (int)gt->ne[1], K = (int)gt->ne[0], Kp = weight_pad_k(K), G = Kp / WEIGHT_GROUP;
    float *rows = xcalloc((size_t)WEIGHT_TILE * (size_t)Kp, sizeof *rows);
    void *tile = xmalloc(weight_tile_bytes(t, Kp));
    enum status st = ST_OK;
    for (int n = 0; n < N; n += WEIGHT_TILE) {
        int here = N - n < WEIGHT_TILE ? N - n : WEIGHT_TILE;
        for (int r = 0; r < here; r++)
            TRY(values(j, gt, (uint64_t)(n + r) * (uint64_t)K, (size_t)K, rows + (size_t)r * Kp,
                       err));
        for (int r = here; r < WEIGHT_TILE; r++)
            memset(rows + (size_t)r * Kp, 0, (size_t)Kp * sizeof *rows);
        weight_pack_tile(t, rows, Kp, tile, scale + (size_t)n * G);
        TRY(container_writer_put(j->w, tile, weight_tile_bytes(t, Kp), err));
        TRY(advance(j, gt->n_bytes / (uint64_t)N * (uint64_t)here, err));
    }
    TRY(container_writer_end_tensor(j->w, err));
out:
    free(tile);
    free(rows);
    return st;
}

static enum status write_scales(struct job *j, const float *scale, int Np, int G,
                                struct err *err) {
    float *out = xreallocarray(NULL, (size_t)G * WEIGHT_TILE, sizeof *out);
    enum status st = ST_OK;
    for (int n = 0; n < Np; n += WEIGHT_TILE) {
        weight_tile_scales(scale + (size_t)n * G, G, out);
        TRY(container_writer_put(j->w, out, (size_t)G * WEIGHT_TILE * sizeof *out, err));
    }
    TRY(container_writer_end_tensor(j->w, err));
out:
    free(out);
    return st;
}

/* The second quantisation: .code and .nested of a 4-bit matrix from its absmax values, which
 * are overwritten. */
static enum status write_nested(struct job *j, float *absmax, int N, int K, struct err *err) {
    int Np = weight_pad_n(N), G = weight_pad_k(K) / WEIGHT_GROUP;
    size_t n_absmax2 = weight_absmax2_len(N, K);
    uint8_t *code = xcalloc((size_t)Np, (size_t)G), *tile = xmalloc((size_t)G * WEIGHT_TILE);
    float *nested = xcalloc(16 + n_absmax2, sizeof *nested);
    enum status st = ST_OK;
    quant_double(absmax, (size_t)N * (size_t)G, code, nested + 16, nested);
    for (int n = 0; n < Np; n += WEIGHT_TILE) {
        weight_tile_codes(code + (size_t)n * G, G, tile);
        TRY(container_writer_put(j->w, tile, (size_t)G * WEIGHT_TILE, err));
    }
    TRY(container_writer_end_tensor(j->w, err));
    TRY(container_writer_put(j->w, nested, (16 + n_absmax2) * sizeof *nested, err));
    TRY(container_writer_end_tensor(j->w, err));
out:
    free(nested);
    free(tile);
    free(code);
    return st;
}

static enum status write_tensor(struct job *j, const struct arch_tensor *at, const char *base,
                                const struct gguf_tensor *gt, struct err *err) {
    (void)base;
    if (at->kind == TENSOR_VECTOR)
        return write_vector(j, gt, err);
    enum weight_type t = quant_weight_type(at->kind == TENSOR_HEAD ? j->head_quant : j->quant);
    int N = (int)gt->ne[1], K = (int)gt->ne[0];
    int Np = weight_pad_n(N), G = weight_pad_k(K) / WEIGHT_GROUP;
    float *scale = xcalloc((size_t)Np * (size_t)G, sizeof *scale);
    enum status st = write_tiles(j, gt, t, scale, err);
    if (st == ST_OK && t == WEIGHT_I8)
        st = write_scales(j, scale, Np, G, err);
    if (st == ST_OK && t == WEIGHT_Q4)
        st = write_nested(j, scale, N, K, err);
    free(scale);
    return st;
}

static void *hash_source(void *arg) {
    struct job *j = arg;
    struct file_map map = gguf_map(j->g);
    struct sha256 s;
    sha256_init(&s);
    for (size_t at = 0; at < map.len && !atomic_load(&j->stop_hashing);) {
        size_t n = map.len - at < 1 << 20 ? map.len - at : 1 << 20;
        sha256_add(&s, map.p + at, n);
        at += n;
    }
    sha256_hex(&s, j->sha256);
    return NULL;
}

static enum status write_all(struct job *j, const char *path, struct err *err) {
    CHECK(container_writer_begin(j->w, path, err));
    if (!j->p->replace) /* another process may be making one of this name */
        container_writer_keep(j->w);
    if (pthread_create(&j->hasher, NULL, hash_source, j) != 0)
        return err_set(err, ST_NOMEM, "can't start a thread");
    j->hashing = true;
    CHECK(vocab_write(j->w, &j->vocab, err));
    CHECK(visit_all(j, write_tensor, err));
    pthread_join(j->hasher, NULL);
    j->hashing = false;
    CHECK(container_writer_patch(j->w, "source_sha256", j->sha256, err));
    return container_writer_commit(j->w, err);
}

static void job_release(struct job *j) {
    if (j->hashing) {
        atomic_store(&j->stop_hashing, true);
        pthread_join(j->hasher, NULL);
    }
    container_writer_free(j->w);
    vocab_release(&j->vocab);
    gguf_close(j->g);
    free(j->used);
}

static enum status open_source(struct job *j, struct err *err) {
    struct gguf_str arch = {"", 0};
    uint64_t parts = 1;
    CHECK(gguf_open(j->p->from, &j->g, err));
    CHECK(gguf_get_u64(j->g, "split.count", false, &parts, err));
    if (parts > 1)
        return err_set(err, ST_UNSUPPORTED,
                       "%s: one of %" PRIu64
                       " parts of a split model, which is not supported; join them first",
                       gguf_name(j->g), parts);
    CHECK(gguf_get_str(j->g, "general.architecture", true, &arch, err));
    char *name = xstrndup(arch.p, arch.len);
    enum status st = arch_find(name, gguf_name(j->g), &j->arch, err);
    free(name);
    CHECK(st);
    return j->arch->from_gguf(j->g, &j->hp, err);
}

static char *text_of(const struct gguf *g, const char *key) {
    struct gguf_str s = {"", 0};
    struct buf clean = {0};
    gguf_get_str(g, key, false, &s, NULL);
    utf8_scrub(&clean, s.p, s.len);
    char *text = xstrdup(buf_str(&clean));
    buf_release(&clean);
    return text;
}

static char *type_of(const struct gguf *g, const char *tensor) {
    const struct gguf_tensor *t = gguf_find_tensor(g, tensor);
    return xstrdup(t ? ggml_type_row(t->type)->name : "");
}

enum status model_source_info(const char *path, struct model_info *out, struct err *err) {
    struct create_params p = {.from = path};
    struct job j = {.p = &p};
    enum status st;
    *out = (struct model_info){0};
    TRY(open_source(&j, err));
    TRY(arch_check(&j.hp, gguf_name(j.g), err));
    *out = (struct model_info){
        .name = xstrdup(gguf_name(j.g)),
        .path = xstrdup(path),
        .architecture = xstrdup(j.arch->name),
        .quant = type_of(j.g, "blk.0.ffn_up.weight"),
        .head_quant = type_of(j.g, "token_embd.weight"),
        .license = text_of(j.g, "general.license"),
        .title = text_of(j.g, "general.name"),
        .source = xstrdup(gguf_name(j.g)),
        .source_sha256 = xstrdup(""),
        .chat_template = text_of(j.g, "tokenizer.chat_template"),
        .created = xstrdup(""),
        .file_bytes = gguf_map(j.g).len,
    };
    for (uint64_t i = 0; i < gguf_n_tensors(j.g); i++)
        out->n_params += gguf_tensor(j.g, i)->n_elem;
    model_info_sizes(out, &j.hp);
out:
    job_release(&j);
    return st;
}

/* *out is the caller's to free, after a failure too. */
static enum status target_path(const struct create_params *p, char **out, struct err *err) {
    if (!p->name) {
        *out = xstrdup(p->out_path);
        return ST_OK;
    }
    if (!models_name_ok(p->name))
        return err_set(err, ST_USAGE,
                       "\"%s\" is no model name: wanted 1 to 100 of A-Z a-z 0-9 . _ : + -, not "
                       "beginning with . or -",
                       p->name);
    char *dir, *file;
    CHECK(models_dir(&dir, err));
    file = xasprintf("%s.safetensors", p->name);
    *out = path_join(dir, file);
    free(file);
    free(dir);
    if (!p->replace && access(*out, F_OK) == 0)
        return err_set(err, ST_EXISTS, "a model named %s exists already", p->name);
    return ST_OK;
}

enum status models_create(const struct create_params *p, struct err *err) {
    struct job j = {.p = p, .quant = p->quant, .head_quant = p->head_quant};
    char *path = NULL;
    enum status st;
    if (j.head_quant == QUANT_N)
        j.head_quant = p->quant == QUANT_NF4 ? QUANT_INT8 : p->quant;
    TRY(target_path(p, &path, err));
    TRY(open_source(&j, err));
    TRY(check_source(&j, err));
    TRY(declare_all(&j, err));
    TRY(write_all(&j, path, err));
out:
    job_release(&j);
    free(path);
    return st;
}
