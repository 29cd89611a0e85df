/*
 * model_file.c - the names, shapes and metadata of our model file, written and read. See
 * model_file.h.
 *
 * Numbers stand in the metadata as text, since safetensors allows nothing else there; floats
 * with nine digits, which gives every f32 back.
 */
#include "engine/model/model_file.h"
#include "base/path.h"
#include "engine/quant/pack.h"
#include "engine/quant/quant.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const quant_names[QUANT_N] = {"nf4", "int8", "bf16", "f32", "keep"};

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

struct weight_form quant_form(enum quant q) {
    static const struct weight_form forms[QUANT_N] = {
        [QUANT_NF4] = {WEIGHT_Q4, WEIGHT_GROUP, true, false},
        [QUANT_INT8] = {WEIGHT_I8, WEIGHT_GROUP, false, false},
        [QUANT_BF16] = {WEIGHT_BF16, 0, false, false},
        [QUANT_F32] = {WEIGHT_F32, 0, false, false},
    };
    return forms[q];
}

/* Shape of NAME.weight. */
static int data_shape(enum weight_type t, int N, int K, enum dtype *dtype, uint64_t shape[4]) {
    static const struct {
        enum dtype dtype;
        uint64_t inputs, cells; /* inputs in 64 bytes of 16 rows; elements they are stored in */
    } rows[] = {
        [WEIGHT_F32] = {DTYPE_F32, 1, 1}, [WEIGHT_BF16] = {DTYPE_BF16, 2, 2},
        [WEIGHT_F16] = {DTYPE_F16, 2, 2}, [WEIGHT_I8] = {DTYPE_I8, 4, 4},
        [WEIGHT_Q4] = {DTYPE_U8, 8, 4},
    };
    *dtype = rows[t].dtype;
    shape[0] = (uint64_t)weight_pad_n(N) / WEIGHT_TILE;
    shape[1] = (uint64_t)weight_pad_k(K) / rows[t].inputs;
    shape[2] = WEIGHT_TILE;
    shape[3] = rows[t].cells;
    return t == WEIGHT_F32 ? 3 : 4;
}

static void scale_shape(int N, int K, int group, uint64_t shape[3]) {
    shape[0] = (uint64_t)weight_pad_n(N) / WEIGHT_TILE;
    shape[1] = (uint64_t)(weight_pad_k(K) / group);
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

static const uint64_t table_shape[1] = {16};

void weight_declare(struct container_writer *w, const char *base, const struct weight_form *f,
                    int N, int K) {
    char name[96];
    uint64_t shape[4];
    enum dtype dtype;
    int n = data_shape(f->type, N, K, &dtype, shape);
    container_writer_declare(w, join(&name, base, ".weight"), dtype, n, shape);
    if (f->type != WEIGHT_I8 && f->type != WEIGHT_Q4)
        return;
    scale_shape(N, K, f->group, shape);
    if (f->nested) {
        container_writer_declare(w, join(&name, base, ".code"), DTYPE_U8, 3, shape);
        nested_shape(N, K, shape);
        container_writer_declare(w, join(&name, base, ".nested"), DTYPE_F32, 2, shape);
        return;
    }
    container_writer_declare(w, join(&name, base, ".scale"), DTYPE_F32, 3, shape);
    if (f->min)
        container_writer_declare(w, join(&name, base, ".min"), DTYPE_F32, 3, shape);
    if (f->type == WEIGHT_Q4)
        container_writer_declare(w, join(&name, base, ".table"), DTYPE_F32, 1, table_shape);
}

/* A part of a matrix, as floats. */
static enum status bind_part(const struct container *c, const char *base, const char *suffix,
                             int n_dims, const uint64_t *shape, const float **out,
                             struct err *err) {
    char name[96];
    const struct ctensor *ct = NULL;
    CHECK(container_need(c, join(&name, base, suffix), DTYPE_F32, n_dims, shape, &ct, err));
    *out = (const float *)(const void *)ct->data;
    return ST_OK;
}

static enum status bind_nested(struct weight *w, const struct container *c, const char *base,
                               struct err *err) {
    char name[96];
    uint64_t shape[4];
    const struct ctensor *ct = NULL;
    const float *nested;
    w->group = WEIGHT_GROUP;
    scale_shape(w->N, w->K, w->group, shape);
    CHECK(container_need(c, join(&name, base, ".code"), DTYPE_U8, 3, shape, &ct, err));
    w->code = ct->data;
    nested_shape(w->N, w->K, shape);
    CHECK(bind_part(c, base, ".nested", 2, shape, &nested, err));
    w->offset = nested[0];
    w->absmax2 = nested + 16;
    w->code_map = quant_code_map;
    memcpy(w->table, nf4_table, sizeof w->table);
    return ST_OK;
}

/* .scale, .min and .table; the shape of .scale tells how many inputs share one. */
static enum status bind_scales(struct weight *w, const struct container *c, const char *base,
                               struct err *err) {
    char name[96];
    uint64_t shape[4];
    const float *table;
    const struct ctensor *ct = container_find(c, join(&name, base, ".scale"));
    w->group = WEIGHT_GROUP;
    for (int g = 16; g <= WEIGHT_GROUP && ct && ct->n_dims == 3; g *= 2)
        if (ct->shape[1] == (uint64_t)(w->Kp / g))
            w->group = g;
    scale_shape(w->N, w->K, w->group, shape);
    CHECK(bind_part(c, base, ".scale", 3, shape, &w->scale, err));
    if (container_find(c, join(&name, base, ".min")))
        CHECK(bind_part(c, base, ".min", 3, shape, &w->min, err));
    if (w->type != WEIGHT_Q4)
        return ST_OK;
    CHECK(bind_part(c, base, ".table", 1, table_shape, &table, err));
    memcpy(w->table, table, sizeof w->table);
    return ST_OK;
}

enum status weight_bind(struct weight *w, const struct container *c, const char *base, int N,
                        int K, struct err *err) {
    static const enum weight_type types[DTYPE_N] = {
        [DTYPE_F32] = WEIGHT_F32, [DTYPE_BF16] = WEIGHT_BF16, [DTYPE_F16] = WEIGHT_F16,
        [DTYPE_I8] = WEIGHT_I8,   [DTYPE_U8] = WEIGHT_Q4,
    };
    char name[96];
    uint64_t shape[4];
    enum dtype dtype;
    const struct ctensor *ct = container_find(c, join(&name, base, ".weight"));
    *w = (struct weight){.N = N, .K = K, .Np = weight_pad_n(N), .Kp = weight_pad_k(K)};
    w->type =
        ct ? types[ct->dtype] : WEIGHT_F32; /* a type that is none of these: F32 is wanted */
    int n = data_shape(w->type, N, K, &dtype, shape);
    CHECK(container_need(c, name, dtype, n, shape, &ct, err));
    w->data = ct->data;
    if (w->type != WEIGHT_I8 && w->type != WEIGHT_Q4)
        return ST_OK;
    if (w->type == WEIGHT_Q4 && container_find(c, join(&name, base, ".code")))
        return bind_nested(w, c, base, err);
    return bind_scales(w, c, base, err);
}

/* The hyperparameters' keys, once. */
static const struct {
    const char *key;
    size_t field; /* in struct hparams */
    bool is_float, needed;
} hp_fields[] = {
#define I(f, d) {#f, offsetof(struct hparams, f), false, (d) == HP_NEEDED},
#define F(f, d) {#f, offsetof(struct hparams, f), true, (d) == HP_NEEDED},
    HPARAM_LIST(I, F)
#undef I
#undef F
};

void model_meta_write(struct container_writer *w, const struct hparams *hp) {
    char layers[MODEL_MAX_LAYER + 1] = "";
    container_writer_metaf(w, "llmchat.layout", "%d", MODEL_LAYOUT);
    for (size_t i = 0; i < sizeof hp_fields / sizeof *hp_fields; i++) {
        const char *at = (const char *)hp + hp_fields[i].field;
        if (hp_fields[i].is_float)
            container_writer_metaf(w, hp_fields[i].key, "%.9g",
                                   (double)*(const float *)(const void *)at);
        else
            container_writer_metaf(w, hp_fields[i].key, "%d", *(const int *)(const void *)at);
    }
    for (int i = 0; i < hp->n_layer; i++)
        layers[i] = "0123456789abcdef"[hp->layer[i] & 15];
    container_writer_meta(w, "layers", layers);
}

static char *text_of(const struct container *c, const char *key) {
    const char *s = container_meta(c, key);
    return xstrdup(s ? s : "");
}

static enum status read_number(const struct container *c, size_t i, struct hparams *hp,
                               struct err *err) {
    const char *key = hp_fields[i].key;
    char *at = (char *)hp + hp_fields[i].field;
    double d;
    int64_t n;
    if (!hp_fields[i].needed && !container_meta(c, key))
        return ST_OK; /* the default */
    if (hp_fields[i].is_float) {
        CHECK(container_meta_num(c, key, 0, 1e30, &d, err));
        *(float *)(void *)at = (float)d;
    } else {
        CHECK(container_meta_int(c, key, 0, 1 << 30, &n, err));
        *(int *)(void *)at = (int)n;
    }
    return ST_OK;
}

static enum status read_hparams(const struct container *c, struct hparams *hp,
                                struct err *err) {
    arch_defaults(hp);
    for (size_t i = 0; i < sizeof hp_fields / sizeof *hp_fields; i++)
        CHECK(read_number(c, i, hp, err));
    const char *layers = container_meta(c, "layers");
    size_t n = layers ? strlen(layers) : 0;
    if (n > MODEL_MAX_LAYER || (layers && n != (size_t)hp->n_layer))
        return err_set(err, ST_FORMAT, "%s: metadata layers has %zu digits, wanted %d",
                       container_name(c), n, hp->n_layer);
    for (size_t i = 0; i < n; i++) {
        const char *digits = "0123456789abcdef", *at = strchr(digits, layers[i]);
        if (!at)
            return err_set(err, ST_FORMAT, "%s: metadata layers: '%c' is no digit",
                           container_name(c), layers[i]);
        hp->layer[i] = (uint8_t)(at - digits);
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
    info->n_expert = hp->n_expert;
    info->n_expert_used = hp->n_expert_used;
    info->n_ff_expert = hp->n_ff_expert;
    info->n_ff_shared = hp->n_expert ? hp->n_ff_shared : 0;
    info->rope_base = hp->rope_dim ? (double)hp->rope_base : 0;
    info->norm_eps = (double)hp->norm_eps;
}

static void fill_info(const struct container *c, const char *path, const struct hparams *hp,
                      struct model_info *info) {
    *info = (struct model_info){
        .name = name_of(path),
        .path = xstrdup(path),
        .architecture = text_of(c, "architecture"),
        .quant = text_of(c, "quant"),
        .head_quant = text_of(c, "head_quant"),
        .license = text_of(c, "license"),
        .title = text_of(c, "title"),
        .source = text_of(c, "source"),
        .source_sha256 = text_of(c, "source_sha256"),
        .chat_template = text_of(c, "chat_template"),
        .created = text_of(c, "created"),
        .system = text_of(c, "system"),
        .settings = text_of(c, "settings"),
        .notes = text_of(c, "notes"),
        .file_bytes = container_bytes(c),
    };
    model_info_sizes(info, hp);
}

enum status model_meta_read(const struct container *c, const char *path, struct hparams *hp,
                            struct model_info *info, struct err *err) {
    int64_t layout, n_params;
    if (!container_meta(c, "llmchat.layout"))
        return err_set(err, ST_FORMAT,
                       "%s: a safetensors file, but not one of llmchat's models (no metadata "
                       "llmchat.layout); of a Hugging Face model the folder is wanted",
                       container_name(c));
    CHECK(container_meta_int(c, "llmchat.layout", 1, INT32_MAX, &layout, err));
    if (layout > MODEL_LAYOUT)
        return err_set(err, ST_UNSUPPORTED,
                       "%s: layout %" PRId64 " is newer than this program's (%d)",
                       container_name(c), layout, MODEL_LAYOUT);
    CHECK(read_hparams(c, hp, err));
    CHECK(container_meta_int(c, "n_params", 0, INT64_MAX, &n_params, err));
    fill_info(c, path, hp, info);
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
    free(m->system);
    free(m->settings);
    free(m->notes);
    *m = (struct model_info){0};
}
