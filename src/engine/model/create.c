/*
 * create.c - a model of ours from a checkpoint: a GGUF file or a Hugging Face folder.
 *
 * First everything is checked: hyperparameters, every tensor's type and shape, the vocabulary.
 * Then the header is written, and the tensors follow one by one, 16 rows at a time: values as
 * f32, quantised, packed into a tile, written; or, where they are kept, the source's own codes
 * and scales, placed as they are. Only the scales of one tensor are held, since the second
 * quantisation needs their mean, and a transposed tensor while it is turned: memory does not
 * grow with the model. A second thread hashes the source meanwhile; the hash is put into the
 * header before the file gets its name.
 *
 * The file is written beside its place, synced and renamed (base/path.h), so there is a whole
 * model or none. Rejected: quantising into memory and writing at the end (twice the memory),
 * and hashing first (a second pass over a file that may not fit into the page cache).
 */
#include "base/path.h"
#include "base/utf8.h"
#include "engine/model/model_file.h"
#include "engine/model/view.h"
#include "engine/model/vocab_store.h"
#include "engine/quant/pack.h"
#include "engine/quant/quant.h"
#include "engine/text.h"
#include "engine/text/text_internal.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A tensor of the model to be made. */
struct piece {
    struct arch_slot slot;
    struct view view; /* t NULL: a norm that no source stores */
    struct weight_form form;
    bool keep; /* the source's codes are placed as they are */
};

struct job {
    const struct create_params *p;
    struct source *s;
    enum quant quant, head_quant;
    struct vocab_data vocab;
    struct container_writer *w;
    struct piece *pieces; /* in the order of our file */
    size_t n_piece, cap_piece;
    uint64_t n_params, done, total, shown; /* elements */

    pthread_t hasher;
    bool hashing;
    atomic_bool stop_hashing;
    char sha256[65];
};

static bool is_matrix(const struct piece *p) {
    return p->slot.t->kind != TENSOR_NORM && p->slot.t->kind != TENSOR_VECTOR;
}

static const char *word_of(const struct piece *p) {
    const struct source_tensor *t = p->view.t;
    return t->word ? t->word : t->type;
}

/* A matrix of the layers themselves, for which --quant is meant. */
static bool is_body(const struct piece *p) {
    return is_matrix(p) && p->slot.t->kind != TENSOR_HEAD && p->slot.t->kind != TENSOR_EXACT;
}

/* The layout of a kept matrix: the source's own where ours holds it, else floats. */
static struct weight_form kept_form(struct piece *p) {
    const struct source_tensor *t = p->view.t;
    bool codes = t->keep == WEIGHT_I8 || t->keep == WEIGHT_Q4;
    p->keep = codes && view_has_codes(&p->view);
    if (p->keep)
        return (struct weight_form){t->keep, t->group, false, t->keep_min};
    return (struct weight_form){codes ? WEIGHT_F32 : t->keep, 0, false, false};
}

static enum status add_piece(void *user, const struct arch_slot *slot, struct err *err) {
    struct job *j = user;
    struct piece p = {.slot = *slot};
    CHECK(view_find(j->s, slot, &p.view, err));
    if (!p.view.t && !(slot->t->flags & T_ONES))
        return ST_OK;
    if (j->n_piece == j->cap_piece) {
        j->cap_piece = j->cap_piece ? 2 * j->cap_piece : 64;
        j->pieces = xreallocarray(j->pieces, j->cap_piece, sizeof *j->pieces);
    }
    j->pieces[j->n_piece++] = p;
    j->total += p.view.t ? p.view.N * p.view.K : 0;
    j->n_params += p.view.t ? p.view.N * p.view.K : 0;
    if (p.view.bias)
        j->n_params += p.view.vector ? p.view.K : p.view.N;
    return ST_OK;
}

/* A matrix has its bias in all layers or in none: one that is missing somewhere was lost. */
static enum status check_biases(const struct job *j, struct err *err) {
    enum { ROWS = 64 }; /* of a layer; the longest table has half of that */
    const struct piece *first[ROWS] = {NULL};
    for (size_t i = 0; i < j->n_piece; i++) {
        const struct piece *p = &j->pieces[i];
        size_t row = p->slot.layer >= 0 ? (size_t)(p->slot.t - j->s->arch->layer) : ROWS;
        if (!p->view.t || row >= ROWS)
            continue;
        if (!first[row])
            first[row] = p;
        if (!first[row]->view.bias == !p->view.bias)
            continue;
        const struct piece *with = p->view.bias ? p : first[row];
        return err_set(
            err, ST_FORMAT,
            "%s: there is a tensor %s but no bias beside %s, wanted one in each layer "
            "or in none",
            j->s->file, with->view.bias->name, (p->view.bias ? first[row] : p)->view.t->name);
    }
    return ST_OK;
}

/* Every tensor that the table knows is there and fits, and there is none that it does not know.
 */
static enum status check_source(struct job *j, struct err *err) {
    CHECK(arch_visit(j->s->arch, &j->s->hp, add_piece, j, err));
    CHECK(check_biases(j, err));
    CHECK(source_all_used(j->s, err));
    CHECK(source_vocab(j->s, &j->vocab, err));
    if (j->vocab.tokens.n != (uint32_t)j->s->hp.n_vocab)
        return err_set(err, ST_FORMAT,
                       "%s: the tokenizer has %" PRIu32
                       " tokens, the token embedding has %d rows",
                       j->s->file, j->vocab.tokens.n, j->s->hp.n_vocab);
    struct text_model *text; /* a tokenizer that could not be opened later is refused now */
    if (text_from_vocab(&j->vocab, &text, err) != ST_OK)
        return err_prefix(err, "%s", j->s->file);
    text_close(text);
    return ST_OK;
}

/* Why a matrix is not stored as its source has it, though that was asked for; NULL: it is. */
static const char *why_not_kept(const struct job *j, const struct piece *p) {
    enum quant q = p->slot.t->kind == TENSOR_HEAD ? j->head_quant : j->quant;
    if (!is_matrix(p) || p->slot.t->kind == TENSOR_EXACT || q != QUANT_KEEP)
        return NULL;
    return p->view.t->inexact;
}

/* What a person has to know, a line for each kind of tensor. */
static char *notes(const struct job *j) {
    struct buf out = {0};
    for (size_t i = 0; i < j->n_piece; i++) {
        const char *why = why_not_kept(j, &j->pieces[i]);
        const char *type = why ? j->pieces[i].view.t->type : NULL;
        size_t same = 0, before = 0;
        for (size_t k = 0; why && k < j->n_piece; k++)
            if (why_not_kept(j, &j->pieces[k]) == why && j->pieces[k].view.t->type == type) {
                same++;
                before += k < i;
            }
        if (why && !before)
            buf_addf(&out, "%s%zu %s of type %s, the first is %s: %s", out.len ? "\n" : "",
                     same, same == 1 ? "matrix" : "matrices", type, j->pieces[i].slot.name,
                     why);
    }
    char *text = xstrdup(buf_str(&out));
    buf_release(&out);
    return text;
}

static void declare_floats(struct job *j, const char *base, const char *suffix, uint64_t n,
                           enum dtype dtype) {
    char name[96];
    snprintf(name, sizeof name, "%s%s", base, suffix);
    container_writer_declare(j->w, name, dtype, 1, &n);
}

static void declare_piece(struct job *j, const struct piece *p) {
    const struct hparams *hp = &j->s->hp;
    uint64_t N = arch_dim(p->slot.t->n, hp), K = arch_dim(p->slot.t->k, hp);
    if (is_matrix(p))
        weight_declare(j->w, p->slot.name, &p->form, (int)N, (int)K);
    else
        declare_floats(j, p->slot.name, ".weight", K, DTYPE_F32);
    if (p->keep && p->view.t->perm)
        declare_floats(j, p->slot.name, ".perm", K, DTYPE_I32);
    if (p->view.bias)
        declare_floats(j, p->slot.name, ".bias", is_matrix(p) ? N : K, DTYPE_F32);
}

static void copy_text(struct job *j, const char *what) {
    const char *text = source_text(j->s, what);
    if (text)
        container_writer_meta(j->w, what, text);
}

/* What most of the layers' weights are in the source, by the tensors that were found: what a
 * file says about itself, in its configuration or its metadata, is often something else. */
static const char *main_word(const struct job *j) {
    enum { WORDS = 64 }; /* further ones are not the main one */
    struct {
        const char *word;
        uint64_t n; /* elements */
    } of[WORDS] = {{"", 0}};
    size_t n = 1, best = 0;
    for (size_t i = 0; i < j->n_piece; i++) {
        const struct piece *p = &j->pieces[i];
        size_t k = 0;
        if (!is_body(p))
            continue;
        while (k < n && strcmp(of[k].word, word_of(p)) != 0)
            k++;
        if (k == WORDS)
            continue;
        if (k == n)
            of[n++].word = word_of(p);
        of[k].n += p->view.N * p->view.K;
        best = of[k].n > of[best].n ? k : best;
    }
    return of[best].word;
}

/* Metadata "quant" or "head_quant": the quantiser's name, or the source's word for what was
 * kept; both words where embedding and head differ, in this order. The caller frees. */
static char *quant_word(const struct job *j, enum quant q, bool head) {
    const char *kept[2] = {NULL, NULL}; /* embedding, head */
    if (q != QUANT_KEEP)
        return xstrdup(quant_name(q));
    if (!head)
        return xstrdup(main_word(j));
    for (size_t i = 0; i < j->n_piece; i++)
        if (j->pieces[i].slot.t->kind == TENSOR_HEAD)
            kept[j->pieces[i].slot.t->field == offsetof(struct model, head)] =
                word_of(&j->pieces[i]);
    if (kept[0] && kept[1] && strcmp(kept[0], kept[1]) != 0)
        return xasprintf("%s and %s", kept[0], kept[1]);
    return xstrdup(kept[0] ? kept[0] : kept[1] ? kept[1] : "");
}

static void declare_all(struct job *j) {
    j->w = container_writer_new();
    model_meta_write(j->w, &j->s->hp);
    container_writer_meta(j->w, "architecture", j->s->arch->name);
    char *quant = quant_word(j, j->quant, false), *head = quant_word(j, j->head_quant, true);
    container_writer_meta(j->w, "quant", quant);
    container_writer_meta(j->w, "head_quant", head);
    free(head);
    free(quant);
    container_writer_metaf(j->w, "n_params", "%" PRIu64, j->n_params);
    copy_text(j, "title");
    copy_text(j, "license");
    container_writer_meta(j->w, "source", j->s->file);
    container_writer_metaf(j->w, "source_sha256", "%064d", 0);
    model_meta_created(j->w);
    model_meta_overrides(j->w, j->p, source_text(j->s, "settings"));
    char *lines = notes(j);
    if (*lines)
        container_writer_meta(j->w, "notes", lines);
    free(lines);
    vocab_declare(j->w, &j->vocab);
    for (size_t i = 0; i < j->n_piece; i++)
        declare_piece(j, &j->pieces[i]);
}

/* Counts elements; tells the caller about every megabyte and at the end. */
static enum status advance(struct job *j, uint64_t n, struct err *err) {
    uint64_t bytes = j->s->file_bytes;
    j->done += n;
    if (j->done - j->shown < 1 << 20 && j->done != j->total)
        return ST_OK;
    j->shown = j->done;
    if (j->p->progress &&
        !j->p->progress(j->p->user, "quantising",
                        (uint64_t)((double)bytes * ((double)j->done / (double)j->total)),
                        bytes))
        return err_set(err, ST_CANCELLED, "cancelled");
    return ST_OK;
}

static enum status check_finite(const struct job *j, const struct piece *p, const float *v,
                                size_t n, const char *what, struct err *err) {
    if (quant_finite(v, n))
        return ST_OK;
    return err_set(err, ST_FORMAT, "%s: tensor %s: %s is not finite", j->s->file,
                   p->view.t->name, what);
}

/* What is rounded to 16 bits must not become infinite there. */
static enum status check_range(const struct job *j, const struct piece *p, const float *v,
                               size_t n, const char *what, struct err *err) {
    enum weight_type t = p->form.type;
    float end = t == WEIGHT_F16 ? 65520 : t == WEIGHT_BF16 ? 0x1.ffp127f : INFINITY;
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(v[i]) < end))
            return err_set(err, ST_FORMAT,
                           "%s: tensor %s: %s is %g, wanted a number that %s holds; --quant "
                           "f32 holds it",
                           j->s->file, p->view.t->name, what, (double)v[i],
                           t == WEIGHT_F16 ? "F16" : "BF16");
    return ST_OK;
}

static enum status put_tensor(struct job *j, const void *v, size_t len, struct err *err) {
    CHECK(container_writer_put(j->w, v, len, err));
    return container_writer_end_tensor(j->w, err);
}

static enum status write_vector(struct job *j, struct piece *p, struct err *err) {
    size_t K = (size_t)arch_dim(p->slot.t->k, &j->s->hp);
    float *v = xreallocarray(NULL, K, sizeof *v);
    enum status st;
    for (size_t i = 0; i < K; i++)
        v[i] = 1;
    if (p->view.t) {
        view_vector(&p->view, v);
        TRY(check_finite(j, p, v, K, "a value", err));
    }
    TRY(put_tensor(j, v, K * sizeof *v, err));
    if (p->view.t)
        TRY(advance(j, p->view.K, err));
out:
    free(v);
    return st;
}

static enum status write_bias(struct job *j, struct piece *p, struct err *err) {
    size_t n = (size_t)(p->view.vector ? p->view.K : p->view.N);
    float *v = xreallocarray(NULL, n, sizeof *v);
    enum status st;
    view_bias(&p->view, v);
    TRY(check_finite(j, p, v, n, "its bias", err));
    TRY(put_tensor(j, v, n * sizeof *v, err));
out:
    free(v);
    return st;
}

/* The tiles of a matrix, quantised; scale [Np, G] gets the scales in row order. */
static enum status write_tiles(struct job *j, struct piece *p, float *scale, struct err *err) {
    enum weight_type t = p->form.type;
    int N = (int)p->view.N, K = (int)p->view.K, Kp = weight_pad_k(K);
    int G = p->form.group ? Kp / p->form.group : 0;
    float *rows = xcalloc((size_t)WEIGHT_TILE * (size_t)Kp, sizeof *rows);
    float *in = xreallocarray(NULL, (size_t)WEIGHT_TILE * (size_t)K, sizeof *in);
    void *tile = xmalloc(weight_tile_bytes(t, Kp));
    char where[64];
    enum status st = ST_OK;
    for (int n = 0; n < N; n += WEIGHT_TILE) {
        int here = N - n < WEIGHT_TILE ? N - n : WEIGHT_TILE;
        view_rows(&p->view, (uint64_t)n, here, in);
        snprintf(where, sizeof where, "a value among rows %d..%d", n, n + here - 1);
        TRY(check_finite(j, p, in, (size_t)here * (size_t)K, where, err));
        TRY(check_range(j, p, in, (size_t)here * (size_t)K, where, err));
        for (int r = 0; r < here; r++)
            memcpy(rows + (size_t)r * Kp, in + (size_t)r * K, (size_t)K * sizeof *rows);
        for (int r = here; r < WEIGHT_TILE; r++)
            memset(rows + (size_t)r * Kp, 0, (size_t)Kp * sizeof *rows);
        weight_pack_tile(t, rows, Kp, tile, scale + (size_t)n * G);
        TRY(container_writer_put(j->w, tile, weight_tile_bytes(t, Kp), err));
        TRY(advance(j, (uint64_t)here * (uint64_t)K, err));
    }
    TRY(container_writer_end_tensor(j->w, err));
out:
    free(tile);
    free(in);
    free(rows);
    return st;
}

/* One tile's numbers of a kept matrix into rows of whole groups: in [n, groups of K]. */
static void spread(const float *in, int n, int used, int G, float *out) {
    for (int r = 0; r < n; r++)
        memcpy(out + (size_t)r * G, in + (size_t)r * used, (size_t)used * sizeof *out);
}

/* Scales and minimums, and the largest values they make of codes: a scale near the end of the
 * range is finite where its product is not. */
static enum status check_scales(const struct job *j, const struct piece *p, int first, int n,
                                const float *scale, const float *min, size_t len,
                                struct err *err) {
    float top = p->form.type == WEIGHT_I8 ? 128 : 0;
    for (int i = 0; i < 16 && p->form.type == WEIGHT_Q4; i++)
        top = fmaxf(top, fabsf(p->view.t->table[i]));
    bool finite = quant_finite(scale, len) && (!min || quant_finite(min, len));
    for (size_t i = 0; i < len && finite; i++)
        finite = isfinite(fabsf(scale[i]) * top + (min ? fabsf(min[i]) : 0));
    if (finite)
        return ST_OK;
    return err_set(err, ST_FORMAT, "%s: tensor %s: a value among rows %d..%d is not finite",
                   j->s->file, p->view.t->name, first, first + n - 1);
}

/* The tiles of a kept matrix; scale and min [Np, G] are zero and get its own, in row order. */
static enum status write_codes(struct job *j, struct piece *p, float *scale, float *min,
                               struct err *err) {
    enum weight_type t = p->form.type;
    int N = (int)p->view.N, K = (int)p->view.K, Kp = weight_pad_k(K), g = p->form.group;
    int G = Kp / g, used = (K + g - 1) / g;
    size_t rows = WEIGHT_TILE, part = rows * (size_t)used;
    uint8_t *in = xcalloc(rows, (size_t)K), *code = xcalloc(rows, (size_t)Kp);
    float *s = xcalloc(2 * part, sizeof *s), *m = p->form.min ? s + part : NULL;
    void *tile = xmalloc(weight_tile_bytes(t, Kp));
    enum status st = ST_OK;
    for (int n = 0; n < N; n += WEIGHT_TILE) {
        int here = N - n < WEIGHT_TILE ? N - n : WEIGHT_TILE;
        view_codes(&p->view, (uint64_t)n, here, in, s, m);
        TRY(check_scales(j, p, n, here, s, m, (size_t)here * (size_t)used, err));
        for (int r = 0; r < here; r++)
            memcpy(code + (size_t)r * Kp, in + (size_t)r * K, (size_t)K);
        spread(s, here, used, G, scale + (size_t)n * G);
        if (m)
            spread(m, here, used, G, min + (size_t)n * G);
        weight_place_codes(t, code, Kp, tile);
        TRY(container_writer_put(j->w, tile, weight_tile_bytes(t, Kp), err));
        TRY(advance(j, (uint64_t)here * (uint64_t)K, err));
    }
    TRY(container_writer_end_tensor(j->w, err));
out:
    free(tile);
    free(s);
    free(code);
    free(in);
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

/* What follows the tiles of a matrix. */
static enum status write_parts(struct job *j, struct piece *p, float *scale, const float *min,
                               struct err *err) {
    int N = (int)p->view.N, K = (int)p->view.K, Np = weight_pad_n(N);
    if (!p->form.group)
        return ST_OK;
    if (p->form.nested)
        return write_nested(j, scale, N, K, err);
    CHECK(write_scales(j, scale, Np, weight_pad_k(K) / p->form.group, err));
    if (p->form.min)
        CHECK(write_scales(j, min, Np, weight_pad_k(K) / p->form.group, err));
    if (p->form.type == WEIGHT_Q4)
        CHECK(put_tensor(j, p->view.t->table, 16 * sizeof(float), err));
    return ST_OK;
}

static enum status write_matrix(struct job *j, struct piece *p, struct err *err) {
    size_t Np = (size_t)weight_pad_n((int)p->view.N), Kp = (size_t)weight_pad_k((int)p->view.K);
    size_t groups = p->form.group ? Np * (Kp / (size_t)p->form.group) : 1;
    float *scale = xcalloc(groups, sizeof *scale), *min = NULL;
    enum status st;
    if (p->form.min)
        min = xcalloc(groups, sizeof *min);
    TRY(p->keep ? write_codes(j, p, scale, min, err) : write_tiles(j, p, scale, err));
    TRY(write_parts(j, p, scale, min, err));
    if (p->keep && p->view.t->perm)
        TRY(put_tensor(j, p->view.t->perm, (size_t)p->view.K * sizeof(int32_t), err));
out:
    view_release(&p->view);
    free(min);
    free(scale);
    return st;
}

static enum status write_piece(struct job *j, struct piece *p, struct err *err) {
    CHECK(is_matrix(p) ? write_matrix(j, p, err) : write_vector(j, p, err));
    return p->view.bias ? write_bias(j, p, err) : ST_OK;
}

static void *hash_source(void *arg) {
    struct job *j = arg;
    source_hash(j->s, j->sha256, &j->stop_hashing);
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
    for (size_t i = 0; i < j->n_piece; i++) {
        enum status st = write_piece(j, &j->pieces[i], err);
        CHECK(source_intact(j->s, false, err)); /* the better reason where both failed */
        CHECK(st);
    }
    pthread_join(j->hasher, NULL);
    j->hashing = false;
    CHECK(source_intact(j->s, true, err)); /* what was hashed, too */
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
    for (size_t i = 0; i < j->n_piece; i++)
        view_release(&j->pieces[i].view);
    free(j->pieces);
    source_close(j->s);
}

static char *text_or_empty(const struct source *s, const char *what) {
    const char *text = source_text(s, what);
    return xstrdup(text ? text : "");
}

enum status model_source_info(const char *path, struct model_info *out, struct err *err) {
    struct create_params p = {.from = path};
    struct job j = {.p = &p, .quant = QUANT_KEEP, .head_quant = QUANT_KEEP};
    enum status st;
    *out = (struct model_info){0};
    TRY(source_open(path, &j.s, err));
    TRY(arch_visit(j.s->arch, &j.s->hp, add_piece, &j, err));
    TRY(source_vocab(j.s, &j.vocab, err));
    *out = (struct model_info){
        .name = xstrdup(j.s->file),
        .path = xstrdup(path),
        .architecture = xstrdup(j.s->arch->name),
        .quant = quant_word(&j, QUANT_KEEP, false),
        .head_quant = quant_word(&j, QUANT_KEEP, true),
        .license = text_or_empty(j.s, "license"),
        .title = text_or_empty(j.s, "title"),
        .source = xstrdup(j.s->file),
        .source_sha256 = xstrdup(""),
        .chat_template = xstrdup(j.vocab.chat_template),
        .created = xstrdup(""),
        .system = xstrdup(""),
        .settings = text_or_empty(j.s, "settings"),
        .notes = notes(&j),
        .file_bytes = j.s->file_bytes,
        .n_params = j.n_params,
    };
    model_info_sizes(out, &j.s->hp);
out:
    job_release(&j);
    return st;
}

/* *out is the caller's to free, after a failure too. ST_EXISTS without a message. */
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
    return !p->replace && access(*out, F_OK) == 0 ? ST_EXISTS : ST_OK;
}

/* What "as the source suggests" and the head's default mean for this source. It comes quantised
 * when one of its matrices does, whatever its configuration says: another quantisation of that
 * would lose more. */
static void settle_quants(struct job *j) {
    bool quantised = false;
    for (size_t i = 0; i < j->n_piece; i++)
        quantised |= is_body(&j->pieces[i]) && j->pieces[i].view.t->quantised;
    j->quant = j->p->quant;
    if (j->quant == QUANT_N)
        j->quant = quantised ? QUANT_KEEP : QUANT_NF4;
    j->head_quant = j->p->head_quant;
    if (j->head_quant == QUANT_N)
        j->head_quant = j->quant == QUANT_NF4 ? QUANT_INT8 : j->quant;
}

static void choose_forms(struct job *j) {
    for (size_t i = 0; i < j->n_piece; i++) {
        struct piece *p = &j->pieces[i];
        enum quant q = p->slot.t->kind == TENSOR_EXACT  ? QUANT_F32
                       : p->slot.t->kind == TENSOR_HEAD ? j->head_quant
                                                        : j->quant;
        if (is_matrix(p))
            p->form = q == QUANT_KEEP ? kept_form(p) : quant_form(q);
    }
}

static void use_template(struct job *j) {
    static const uint32_t none[1] = {0};
    if (!j->p->chat_template)
        return;
    j->vocab.chat_template = j->p->chat_template;
    j->vocab.template_names = j->vocab.template_texts = (struct vocab_strings){0, "", none};
}

enum status models_create(const struct create_params *p, struct err *err) {
    struct job j = {.p = p};
    char *path = NULL, *from = NULL;
    enum status st;
    TRY(target_path(p, &path, err));
    TRY(models_find_source(p->from, &from, err));
    if (!library_is_source(from)) {
        st = model_derive(p, from, path, err);
        goto out;
    }
    TRY(source_open(from, &j.s, err));
    TRY(check_source(&j, err));
    settle_quants(&j);
    choose_forms(&j);
    use_template(&j);
    declare_all(&j);
    TRY(write_all(&j, path, err));
out:
    if (st == ST_EXISTS && p->name) /* found before or after the work */
        err_set(err, st, "a model named %s exists already", p->name);
    job_release(&j);
    free(from);
    free(path);
    return st;
}
