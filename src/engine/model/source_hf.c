/*
 * source_hf.c - a Hugging Face folder as a source. See source.h.
 *
 * Three parts put together: the architecture and its hyperparameters from config.json (arch.h),
 * the tensors of all files by name (shards.h), and, for a checkpoint that is quantised, which
 * of them make up one matrix (hf_quant.h). Here names are resolved: the same model is saved
 * with its outermost module's name before all others or without it, and a language model that
 * is a part of something bigger under one more name. What was found is kept in a hash table,
 * since a stack of experts is asked for once for each expert.
 *
 * The head is a matter of its own. A model whose config.json ties it to the embedding may have
 * it in the file all the same: then it counts when it differs, as it does for transformers, and
 * when only the head is there, it is the embedding too. When it is neither tied nor there, the
 * model is incomplete: transformers would go on with random numbers.
 *
 * One thread uses a source, but for hash(), which only reads the mappings.
 */
#include "base/path.h"
#include "base/sha256.h"
#include "engine/model/hf_card.h"
#include "engine/model/hf_generation.h"
#include "engine/model/hf_quant.h"
#include "engine/text/hf_tokenizer.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_BUCKETS = 1 << 14, NAME_BYTES = 256, MAX_SPELLINGS = 8 };
static const size_t max_config_bytes = 8u << 20;

struct found {
    struct found *next;
    char *wanted;
    struct source_tensor t;
    float *values; /* of a tensor that is a list in config.json; owned */
};

struct hf_source {
    char *dir, *base;
    char *title, *license, *settings; /* NULL when there is none */
    struct hf_json config, text;      /* text: the language model's part, or all of it */
    struct shards *shards;
    struct hf_quant *quant; /* or NULL */
    struct found *found[N_BUCKETS];
    bool head_is_embd;  /* they are tied, and equal or one of them is not there */
    bool head_has_bias; /* then it is a matrix of its own to us, though it is tied */
    bool embd_is_head;  /* they are tied and only the head is there */
};

static struct hf_source *of(const struct source *s) {
    return s->priv;
}

static void hf_source_close(struct source *s) {
    struct hf_source *p = of(s);
    for (size_t i = 0; i < N_BUCKETS; i++)
        for (struct found *f = p->found[i], *next; f; f = next) {
            next = f->next;
            free(f->wanted);
            free(f->values);
            free(f);
        }
    hf_quant_free(p->quant);
    shards_close(p->shards);
    hf_json_release(&p->config);
    free(p->dir);
    free(p->base);
    free(p->title);
    free(p->license);
    free(p->settings);
    free(p);
}

/* -- tensors by name ------------------------------------------------------------------ */

struct spellings {
    int n;
    char v[MAX_SPELLINGS][NAME_BYTES];
};

static void spell(struct spellings *out, const char *prefix, size_t prefix_len,
                  const char *more, const char *stem) {
    if (out->n == MAX_SPELLINGS)
        return;
    int len =
        snprintf(out->v[out->n], NAME_BYTES, "%.*s%s%s", (int)prefix_len, prefix, more, stem);
    if (len < NAME_BYTES)
        out->n++;
}

/* The names that a tensor may have in a checkpoint; `wanted` is the table's. */
static void spell_all(const struct arch *a, const char *wanted, struct spellings *out) {
    const char *list = a->hf_prefix ? a->hf_prefix : "", *dot = strchr(wanted, '.');
    size_t own = strcspn(list, "|");
    out->n = 0;
    spell(out, "", 0, "", wanted);
    if (own && strncmp(wanted, list, own) == 0)
        for (const char *p = list + own; *p == '|'; p += strcspn(p, "|")) {
            p++;
            spell(out, p, strcspn(p, "|"), "", wanted + own);
        }
    spell(out, "", 0, "language_model.", wanted);
    if (!dot || !strchr(dot + 1, '.')) /* "lm_head.weight" belongs to no module */
        return;
    spell(out, "", 0, "", dot + 1);
    spell(out, "", 0, "model.language_model.", dot + 1);
}

static struct found **bucket(struct hf_source *p, const char *name) {
    uint32_t h = 2166136261u; /* FNV-1a */
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 16777619u;
    return &p->found[h % N_BUCKETS];
}

/* One, two or three sizes of a plain tensor as E, N, K. */
static enum status plain_tensor(const struct hf_source *p, const struct ctensor *c,
                                struct source_tensor *t, struct err *err) {
    const char *file = shards_file(p->shards, c);
    if (c->n_dims > 3 || c->n_elem == 0)
        return err_set(err, ST_FORMAT,
                       "%s: tensor %s has %d dimensions and %" PRIu64
                       " values, wanted at most 3 and at least 1",
                       file, c->name, c->n_dims, c->n_elem);
    uint64_t size[3] = {1, 1, 1};
    for (int d = 0; d < c->n_dims; d++)
        size[3 - c->n_dims + d] = c->shape[d];
    *t = (struct source_tensor){.name = c->name,
                                .E = size[0],
                                .N = size[1],
                                .K = size[2],
                                .n_bytes = c->n_bytes,
                                .data = c->data,
                                .dtype = c->dtype};
    if (!tensor_format_plain(t))
        return err_set(err, ST_UNSUPPORTED,
                       "%s: tensor %s has type %s, which is no type of "
                       "weights; supported: F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I8, U8",
                       file, c->name, dtype_name(c->dtype));
    return ST_OK;
}

/* The tensor of this very name. */
static enum status exact_tensor(struct hf_source *p, const char *name, bool *is,
                                struct source_tensor *t, struct err *err) {
    static const char ending[] = ".weight";
    size_t n = strlen(name), m = sizeof ending - 1;
    *is = false;
    if (p->quant && n > m && strcmp(name + n - m, ending) == 0) {
        char *base = xstrndup(name, n - m);
        enum status st = hf_quant_find(p->quant, p->shards, base, is, t, err);
        free(base);
        if (st != ST_OK || *is)
            return st;
    }
    const struct ctensor *c = shards_find(p->shards, name);
    *is = c != NULL;
    return c ? plain_tensor(p, c, t, err) : ST_OK;
}

static struct found *keep(struct hf_source *p, const char *wanted) {
    struct found *f = xcalloc(1, sizeof *f), **at = bucket(p, wanted);
    f->wanted = xstrdup(wanted);
    f->next = *at;
    return *at = f;
}

/* Factors that a config.json lists, as a vector. */
static enum status config_tensor(struct source *s, const char *wanted, const char *key,
                                 const struct source_tensor **out, struct err *err) {
    struct hf_source *p = of(s);
    int n = 0, max = s->hp.rope_dim / 2;
    float *values = xcalloc((size_t)max + 1, sizeof *values);
    enum status st = arch_rope_factors(&p->config, key, max, values, &n, err);
    if (st != ST_OK || n == 0) {
        free(values);
        return st;
    }
    struct found *f = keep(p, wanted);
    f->values = values;
    f->t = (struct source_tensor){.name = f->wanted,
                                  .E = 1,
                                  .N = 1,
                                  .K = (uint64_t)n,
                                  .n_bytes = (uint64_t)n * sizeof *values,
                                  .data = (const unsigned char *)values,
                                  .dtype = DTYPE_F32};
    tensor_format_plain(&f->t);
    *out = &f->t;
    return ST_OK;
}

static enum status lookup(struct source *s, const char *wanted,
                          const struct source_tensor **out, struct err *err) {
    struct hf_source *p = of(s);
    struct spellings names;
    *out = NULL;
    for (const struct found *f = *bucket(p, wanted); f; f = f->next)
        if (strcmp(f->wanted, wanted) == 0) {
            *out = &f->t;
            return ST_OK;
        }
    if (strncmp(wanted, "config.json:", 12) == 0)
        return config_tensor(s, wanted, wanted + 12, out, err);
    spell_all(s->arch, wanted, &names);
    for (int i = 0; i < names.n; i++) {
        struct source_tensor t = {0};
        bool is;
        CHECK(exact_tensor(p, names.v[i], &is, &t, err));
        if (!is)
            continue;
        struct found *f = keep(p, wanted);
        f->t = t;
        if (!t.name)
            f->t.name = f->wanted;
        *out = &f->t;
        return ST_OK;
    }
    return ST_OK;
}

/* -- the embedding and the head ------------------------------------------------------- */

/* The tensor of the model's field (embd or head) at any of its places; ending ".weight" or
 * ".bias". */
static enum status lookup_field(struct source *s, size_t field, const char *ending,
                                const struct source_tensor **out, struct err *err) {
    *out = NULL;
    for (const struct arch_tensor *t = s->arch->model; t->name; t++)
        for (int i = 0; t->field == field && i < ARCH_PLACES && t->hf[i].name; i++) {
            char name[NAME_BYTES];
            snprintf(name, sizeof name, "%s%s", t->hf[i].name, ending);
            CHECK(lookup(s, name, out, err));
            if (*out)
                return ST_OK;
        }
    return ST_OK;
}

static bool is_field(const struct source *s, size_t field, const char *name) {
    size_t n = strlen(name);
    if (n < 7 || strcmp(name + n - 7, ".weight") != 0)
        return false;
    for (const struct arch_tensor *t = s->arch->model; t->name; t++)
        for (int i = 0; t->field == field && i < ARCH_PLACES && t->hf[i].name; i++)
            if (strlen(t->hf[i].name) == n - 7 && strncmp(t->hf[i].name, name, n - 7) == 0)
                return true;
    return false;
}

/* Whether config.json ties the head to the embedding: itself, or, where it doesn't say, the
 * architecture. Of a model around a text model the outer part counts alone, and ties where it
 * doesn't say: the head belongs to it. */
static enum status says_tied(const struct source *s, bool *tied, struct err *err) {
    const struct hf_source *p = of(s);
    struct hf_json defaults = {.file = "config.json"};
    *tied = false;
    if (s->arch->hf_defaults)
        CHECK(hf_json_parse(s->arch->hf_defaults, strlen(s->arch->hf_defaults), "config.json",
                            &defaults, err));
    enum status st = hf_bool(&defaults, "tie_word_embeddings", tied, err);
    hf_json_release(&defaults);
    CHECK(st);
    if (p->text.root != p->config.root)
        *tied = true;
    return hf_bool(&p->config, "tie_word_embeddings", tied, err);
}

static bool same_values(const struct source_tensor *a, const struct source_tensor *b) {
    return !a->quantised && !b->quantised && a->dtype == b->dtype && a->E == b->E &&
           a->N == b->N && a->K == b->K && memcmp(a->data, b->data, (size_t)a->n_bytes) == 0;
}

static enum status settle_head(struct source *s, struct err *err) {
    struct hf_source *p = of(s);
    const struct source_tensor *embd, *head, *bias;
    bool tied;
    CHECK(says_tied(s, &tied, err));
    CHECK(lookup_field(s, offsetof(struct model, embd), ".weight", &embd, err));
    CHECK(lookup_field(s, offsetof(struct model, head), ".weight", &head, err));
    CHECK(lookup_field(s, offsetof(struct model, head), ".bias", &bias, err));
    if (!embd && !head)
        return err_set(err, ST_FORMAT, "%s: has no embedding, wanted tensors of a %s model",
                       p->base, s->arch->name);
    if (!tied && !head)
        return err_set(err, ST_FORMAT,
                       "%s: has no head of its own (lm_head.weight), and config.json doesn't "
                       "say that tie_word_embeddings is true",
                       p->base);
    p->head_is_embd = tied && (!head || !embd || same_values(embd, head));
    p->embd_is_head = tied && !embd;
    p->head_has_bias = bias != NULL;
    return ST_OK;
}

static enum status hf_source_find(struct source *s, const char *name,
                                  const struct source_tensor **out, struct err *err) {
    const struct hf_source *p = of(s);
    if (p->head_is_embd && is_field(s, offsetof(struct model, head), name)) {
        size_t weights =
            p->embd_is_head ? offsetof(struct model, head) : offsetof(struct model, embd);
        *out = NULL;
        return p->head_has_bias ? lookup_field(s, weights, ".weight", out, err) : ST_OK;
    }
    if (p->embd_is_head && is_field(s, offsetof(struct model, embd), name))
        return lookup_field(s, offsetof(struct model, head), ".weight", out, err);
    return lookup(s, name, out, err);
}

/* -- what was not asked for ----------------------------------------------------------- */

static bool in_list(const char *name, const char *list,
                    bool (*fits)(const char *name, const char *word)) {
    char word[NAME_BYTES];
    for (; list && *list; list += strspn(list, " ")) {
        size_t n = strcspn(list, " ");
        snprintf(word, sizeof word, "%.*s", (int)n, list);
        if (n && n < sizeof word && fits(name, word))
            return true;
        list += n;
    }
    return false;
}

static bool holds(const char *name, const char *word) {
    return strstr(name, word) != NULL;
}

static bool begins(const char *name, const char *word) {
    return strncmp(name, word, strlen(word)) == 0;
}

/* Parts that see and hear: the text of a model with several parts is computed without them. */
static bool other_sense(const struct hf_source *p, const char *name) {
    static const char parts[] = "vision_tower. vision_model. multi_modal_projector. visual. "
                                "audio_tower. embed_vision. embed_audio.";
    if (p->text.root == p->config.root)
        return false;
    return in_list(begins(name, "model.") ? name + 6 : name, parts, begins);
}

static enum status hf_source_all_used(struct source *s, struct err *err) {
    const struct hf_source *p = of(s);
    for (size_t i = 0; i < shards_n(p->shards); i++) {
        bool used;
        const struct ctensor *t = shards_tensor(p->shards, i, &used);
        if (!used && !in_list(t->name, s->arch->hf_ignored, holds) && !other_sense(p, t->name))
            return err_set(err, ST_UNSUPPORTED,
                           "%s: tensor %s: it is not supported for %s models",
                           shards_file(p->shards, t), t->name, s->arch->name);
    }
    return ST_OK;
}

/* -- the rest ------------------------------------------------------------------------- */

static const char *hf_source_text(const struct source *s, const char *what) {
    const struct hf_source *p = of(s);
    return strcmp(what, "title") == 0      ? p->title
           : strcmp(what, "license") == 0  ? p->license
           : strcmp(what, "settings") == 0 ? p->settings
                                           : NULL;
}

static enum status hf_source_vocab(struct source *s, struct vocab_data *out, struct err *err) {
    return vocab_from_hf(out, of(s)->dir, s->hp.n_vocab, err);
}

static void hf_source_hash(const struct source *s, char hex[65], const _Atomic bool *stop) {
    const struct hf_source *p = of(s);
    struct sha256 sum;
    sha256_init(&sum);
    for (size_t i = 0; i < shards_n_files(p->shards); i++) {
        struct file_map map = shards_map(p->shards, i);
        for (size_t at = 0, n; at < map.len && !atomic_load(stop); at += n) {
            n = map.len - at < 1 << 20 ? map.len - at : 1 << 20;
            sha256_add(&sum, map.p + at, n);
        }
    }
    sha256_hex(&sum, hex);
}

static enum status hf_source_intact(const struct source *s, bool at_end, struct err *err) {
    return shards_intact(of(s)->shards, at_end, err);
}

static const struct source_ops hf_ops = {
    .close = hf_source_close,
    .find = hf_source_find,
    .all_used = hf_source_all_used,
    .text = hf_source_text,
    .vocab = hf_source_vocab,
    .hash = hf_source_hash,
    .intact = hf_source_intact,
};

static enum status open_config(struct hf_source *p, struct err *err) {
    enum status st =
        hf_json_load(p->dir, "config.json", true, max_config_bytes, &p->config, err);
    struct hf_json adapter;
    if (st == ST_NOT_FOUND && hf_json_load(p->dir, "adapter_config.json", true,
                                           max_config_bytes, &adapter, NULL) == ST_OK) {
        hf_json_release(&adapter);
        return err_set(err, ST_UNSUPPORTED,
                       "%s: is an adapter (it has adapter_config.json and no config.json), "
                       "wanted a whole model: merge it into its base model",
                       p->base);
    }
    CHECK(st);
    CHECK(hf_child(&p->config, "text_config", &p->text, err));
    if (!p->text.root)
        p->text = p->config;
    return ST_OK;
}

enum status source_open_hf(const char *dir, struct source *s, struct err *err) {
    struct hf_source *p = s->priv = xcalloc(1, sizeof *p);
    s->ops = &hf_ops; /* from here on source_close() frees */
    char *whole = realpath(dir, NULL);
    p->dir = xstrdup(dir);
    p->base = xstrdup(whole && whole[1] ? path_base(whole) : dir);
    s->file = p->base;
    p->title = hf_title(whole ? whole : dir);
    free(whole);
    p->license = hf_license(dir);
    CHECK(hf_generation(dir, &p->settings, err));
    CHECK(open_config(p, err));
    CHECK(arch_of_config(&p->config, &s->arch, err));
    s->interleaved = s->arch->hf_interleaved;
    CHECK(arch_from_hf(s->arch, &p->config, &s->hp, err));
    CHECK(hf_quant_open(dir, &p->config, &p->quant, err));
    CHECK(shards_open(dir, &p->shards, err));
    for (size_t i = 0; i < shards_n_files(p->shards); i++)
        s->file_bytes += shards_map(p->shards, i).len;
    return settle_head(s, err);
}
