/*
 * model_file.c - the names, shapes and metadata of our model file, written and read. See
 * model_file.h.
 *
 * Numbers stand in the metadata as text, since safetensors allows nothing else there; floats
 * with nine digits, which gives every f32 back.
 */
#include "engine/model/model_file.h"
#include "engine/quant/pack.h"
#include "engine/quant/quant.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const quant_names[QUANT_N] = {"nf4", "int8", "bf16", "f32"};

const char *quant_name(enum quant q) {
    return (unsigned)q < QUANT_N ? quant_names[q] : "?";
}

bool quant_parse(const char *s, enum quant *out) {
    for (int i = 0; i < QUANT_N; i++)
        if (strcasecmp(s, quant_names[i]) == 0) {
            *out = (enum quant)i;
            return true;
        }
    return false;
}

enum weight_type quant_weight_type(enum quant q) {
    static const enum weight_type types[QUANT_N] = {WEIGHT_Q4, WEIGHT_I8, WEIGHT_BF16,
                                                    WEIGHT_F32};
    return types[q];
}

/* Shape of NAME.weight. */
static int data_shape(enum weight_type t, int N, int K, enum dtype *dtype, uint64_t shape[4]) {
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_I8, DTYPE_U8};
    static const uint64_t inputs[] = {1, 2, 4, 8}; /* in 64 bytes of 16 rows */
    static const uint64_t cells[] = {1, 2, 4, 4};  /* elements these are stored in */
    *dtype = dtypes[t];
    shape[0] = (uint64_t)weight_pad_n(N) / WEIGHT_TILE;
    shape[1] = (uint64_t)weight_pad_k(K) / inputs[t];
    shape[2] = WEIGHT_TILE;
    shape[3] = cells[t];
    return t == WEIGHT_F32 ? 3 : 4;
}

static void scale_shape(int N, int K, uint64_t shape[3]) {
    shape[0] = (uint64_t)weight_pad_n(N) / WEIGHT_TILE;
    shape[1] = (uint64_t)weight_pad_k(K) / WEIGHT_GROUP;
    shape[2] = WEIGHT_TILE;
}

static void nested_shape(int N, int K, uint64_t shape[2]) {
    shape[0] = 1 + weight_absmax2_len(N, K) / 16;
    shape[1] = 16;
}

static const char *join(char (*buf)[96], const char *base, const char *suffix) {
    snprintf(*buf, sizeof *buf, "%s%s", base, suffix);
    return *buf;
}

void weight_declare(struct container_writer *w, const char *base, enum weight_type t, int N,
                    int K) {
    char name[96];
    uint64_t shape[4];
    enum dtype dtype;
    int n = data_shape(t, N, K, &dtype, shape);
    container_writer_declare(w, join(&name, base, ".weight"), dtype, n, shape);
    scale_shape(N, K, shape);
    if (t == WEIGHT_I8)
        container_writer_declare(w, join(&name, base, ".scale"), DTYPE_F32, 3, shape);
    if (t != WEIGHT_Q4)
        return;
    container_writer_declare(w, join(&name, base, ".code"), DTYPE_U8, 3, shape);
    nested_shape(N, K, shape);
    container_writer_declare(w, join(&name, base, ".nested"), DTYPE_F32, 2, shape);
}

enum status weight_bind(struct weight *w, const struct container *c, const char *base,
                        enum weight_type t, int N, int K, struct err *err) {
    char name[96];
    uint64_t shape[4];
    enum dtype dtype;
    const struct ctensor *ct = NULL;
    *w = (struct weight){
        .type = t, .N = N, .K = K, .Np = weight_pad_n(N), .Kp = weight_pad_k(K)};
    int n = data_shape(t, N, K, &dtype, shape);
    CHECK(container_need(c, join(&name, base, ".weight"), dtype, n, shape, &ct, err));
    w->data = ct->data;
    scale_shape(N, K, shape);
    if (t == WEIGHT_I8) {
        CHECK(container_need(c, join(&name, base, ".scale"), DTYPE_F32, 3, shape, &ct, err));
        w->scale = (const float *)(const void *)ct->data;
    }
    if (t != WEIGHT_Q4)
        return ST_OK;
    CHECK(container_need(c, join(&name, base, ".code"), DTYPE_U8, 3, shape, &ct, err));
    w->code = ct->data;
    nested_shape(N, K, shape);
    CHECK(container_need(c, join(&name, base, ".nested"), DTYPE_F32, 2, shape, &ct, err));
    w->offset = *(const float *)(const void *)ct->data;
    w->absmax2 = (const float *)(const void *)ct->data + 16;
    w->code_map = quant_code_map;
    memcpy(w->table, nf4_table, sizeof w->table);
    return ST_OK;
}

/* The hyperparameters' keys, once. */
static const struct {
    const char *key;
    size_t field; /* in struct hparams */
    bool is_float;
} hp_fields[] = {
#define I(f)                                                                                   \
    { #f, offsetof(struct hparams, f), false }
#define F(f)                                                                                   \
    { #f, offsetof(struct hparams, f), true }
    I(n_layer),  I(n_vocab),   I(n_embd),   I(n_ff),     I(n_head),    I(n_head_kv),
    I(head_dim), I(ctx_train), I(rope_dim), F(norm_eps), F(rope_base), F(rope_scale),
#undef I
#undef F
};

void model_meta_write(struct container_writer *w, const struct hparams *hp, enum quant quant,
                      enum quant head_quant) {
    container_writer_metaf(w, "llmchat.layout", "%d", MODEL_LAYOUT);
    container_writer_meta(w, "quant", quant_name(quant));
    container_writer_meta(w, "head_quant", quant_name(head_quant));
    for (size_t i = 0; i < sizeof hp_fields / sizeof *hp_fields; i++) {
        const char *at = (const char *)hp + hp_fields[i].field;
        if (hp_fields[i].is_float)
            container_writer_metaf(w, hp_fields[i].key, "%.9g",
                                   (double)*(const float *)(const void *)at);
        else
            container_writer_metaf(w, hp_fields[i].key, "%d", *(const int *)(const void *)at);
    }
}

static char *text_of(const struct container *c, const char *key) {
    const char *s = container_meta(c, key);
    return xstrdup(s ? s : "");
}

static enum status read_quant(const struct container *c, const char *key, enum quant *out,
                              struct err *err) {
    const char *s = container_meta(c, key);
    if (!s || !quant_parse(s, out))
        return err_set(err, ST_UNSUPPORTED,
                       "%s: metadata %s is \"%.40s\", wanted nf4, int8, bf16 or f32",
                       container_name(c), key, s ? s : "");
    return ST_OK;
}

static enum status read_hparams(const struct container *c, struct hparams *hp,
                                struct err *err) {
    for (size_t i = 0; i < sizeof hp_fields / sizeof *hp_fields; i++) {
        char *at = (char *)hp + hp_fields[i].field;
        double d;
        int64_t n;
        if (hp_fields[i].is_float) {
            CHECK(container_meta_num(c, hp_fields[i].key, 0, 1e30, &d, err));
            *(float *)(void *)at = (float)d;
        } else {
            CHECK(container_meta_int(c, hp_fields[i].key, 1, 1 << 30, &n, err));
            *(int *)(void *)at = (int)n;
        }
    }
    return arch_check(hp, container_name(c), err);
}

/* The model's name: the file's without its ending. */
static char *name_of(const char *path) {
    const char *base = path_base(path), *dot = strrchr(base, '.');
    return dot && dot != base && strcmp(dot, ".safetensors") == 0
               ? xstrndup(base, (size_t)(dot - base))
               : xstrdup(base);
}

void model_info_sizes(struct model_info *info, const struct hparams *hp) {
    info->n_layer = hp->n_layer;
    info->n_vocab = hp->n_vocab;
    info->n_embd = hp->n_embd;
    info->n_ff = hp->n_ff;
    info->n_head = hp->n_head;
    info->n_head_kv = hp->n_head_kv;
    info->head_dim = hp->head_dim;
    info->ctx_train = hp->ctx_train;
    info->rope_base = (double)hp->rope_base;
    info->norm_eps = (double)hp->norm_eps;
}

static void fill_info(const struct container *c, const char *path, const struct hparams *hp,
                      const enum quant quants[2], struct model_info *info) {
    *info = (struct model_info){
        .name = name_of(path),
        .path = xstrdup(path),
        .architecture = text_of(c, "architecture"),
        .quant = xstrdup(quant_name(quants[0])),
        .head_quant = xstrdup(quant_name(quants[1])),
        .license = text_of(c, "license"),
        .title = text_of(c, "title"),
        .source = text_of(c, "source"),
        .source_sha256 = text_of(c, "source_sha256"),
        .chat_template = text_of(c, "chat_template"),
        .created = text_of(c, "created"),
        .file_bytes = container_bytes(c),
    };
    model_info_sizes(info, hp);
}

enum status model_meta_read(const struct container *c, const char *path, struct hparams *hp,
                            enum quant quants[2], struct model_info *info, struct err *err) {
    int64_t layout, n_params;
    *hp = (struct hparams){0};
    if (!container_meta(c, "llmchat.layout"))
        return err_set(err, ST_FORMAT,
                       "%s: a safetensors file, but not one of llmchat's models (no metadata "
                       "llmchat.layout)",
                       container_name(c));
    CHECK(container_meta_int(c, "llmchat.layout", 1, INT32_MAX, &layout, err));
    if (layout > MODEL_LAYOUT)
        return err_set(err, ST_UNSUPPORTED,
                       "%s: layout %" PRId64 " is newer than this program's (%d)",
                       container_name(c), layout, MODEL_LAYOUT);
    CHECK(read_quant(c, "quant", &quants[0], err));
    CHECK(read_quant(c, "head_quant", &quants[1], err));
    CHECK(read_hparams(c, hp, err));
    CHECK(container_meta_int(c, "n_params", 0, INT64_MAX, &n_params, err));
    fill_info(c, path, hp, quants, info);
    info->n_params = (uint64_t)n_params;
    return ST_OK;
}

void model_info_release(struct model_info *m) {
    free(m->name);
    free(m->path);
    free(m->architecture);
    free(m->quant);
    free(m->head_quant);
    free(m->license);
    free(m->title);
    free(m->source);
    free(m->source_sha256);
    free(m->chat_template);
    free(m->created);
    *m = (struct model_info){0};
}
