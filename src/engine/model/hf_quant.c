/*
 * hf_quant.c - which method a checkpoint is quantised with, and the parts of its matrices. See
 * hf_quant.h.
 *
 * The configuration is an object in config.json, at its top or in the language model's part;
 * repositories from before that have it in a file of its own beside it. A method that we have
 * no row for is refused by name when the folder is opened: its tensors would look like unknown
 * ones, or, worse, like plain bytes.
 *
 * Used by one thread; what was found is immutable.
 */
#include "engine/model/hf_quant_impl.h"

#include "engine/quant/ggml_types.h"
#include "engine/quant/quant.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t max_config_bytes = 8u << 20;

static const struct hq_method methods[] = {
    {"bitsandbytes", "SCB or weight.absmax", hq_bnb_open, hq_bnb_find},
    {"gptq", "scales", hq_gptq_open, hq_gptq_find},
    {"awq", "scales", hq_awq_open, hq_awq_find},
    {"compressed-tensors", "weight_scale", hq_ct_open, hq_ct_find},
    {"fp8", "weight_scale_inv", hq_fp8_open, hq_fp8_find},
    {"fbgemm_fp8", "weight_scale", hq_fp8_open, hq_fp8_find},
    {"mxfp4", "scales", hq_mxfp4_open, hq_mxfp4_find},
};

struct hq_memory {
    struct hq_memory *next;
    max_align_t bytes[];
};

void *hq_alloc(struct hf_quant *q, size_t n, size_t size_bytes) {
    size_t len;
    if (mul_overflows(n, size_bytes, &len) ||
        add_overflows(len, sizeof(struct hq_memory), &len))
        len = SIZE_MAX; /* fails as any allocation does */
    struct hq_memory *m = xcalloc(1, len);
    m->next = q->memory;
    q->memory = m;
    return m->bytes;
}

const char *hq_word_for(struct hf_quant *q, const char *fmt, ...) {
    char word[64];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(word, sizeof word, fmt, ap);
    va_end(ap);
    return strcpy(hq_alloc(q, strlen(word) + 1, 1), word);
}

/* -- parts ---------------------------------------------------------------------------- */

static const struct ctensor *look_up(struct shards *s, const char *base, const char *suffix,
                                     bool mark) {
    char *name = xasprintf("%s.%s", base, suffix);
    const struct ctensor *t = mark                  ? shards_find(s, name)
                              : shards_has(s, name) ? shards_find(s, name)
                                                    : NULL;
    free(name);
    return t;
}

bool hq_has(const struct hq *h, const char *suffix) {
    char *name = xasprintf("%s.%s", h->base, suffix);
    bool is = shards_has(h->s, name);
    free(name);
    return is;
}

const struct ctensor *hq_part(struct hq *h, const char *suffix) {
    const struct ctensor *t = look_up(h->s, h->base, suffix, true);
    if (t)
        h->n_bytes += t->n_bytes;
    return t;
}

enum status hq_need(struct hq *h, const char *suffix, const char *beside,
                    const struct ctensor **out) {
    *out = hq_part(h, suffix);
    return *out
               ? ST_OK
               : err_set(h->err, ST_FORMAT, "there is a tensor %s.%s but no %s.%s, wanted both",
                         h->base, beside, h->base, suffix);
}

static void shape_words(const struct ctensor *t, char out[128]) {
    size_t at = (size_t)snprintf(out, 128, "%s", dtype_name(t->dtype));
    for (int d = 0; d < t->n_dims && at < 100; d++)
        at += (size_t)snprintf(out + at, 128 - at, "%s%" PRIu64, d ? " x " : " ", t->shape[d]);
}

enum status hq_wrong(struct hq *h, const struct ctensor *t, const char *fmt, ...) {
    char is[128], wanted[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(wanted, sizeof wanted, fmt, ap);
    va_end(ap);
    shape_words(t, is);
    return err_set(h->err, ST_FORMAT, "%s: tensor %s is %s, wanted %s", shards_file(h->s, t),
                   t->name, is, wanted);
}

bool hq_is(const struct ctensor *t, enum dtype dtype, uint64_t rows, uint64_t columns) {
    return t->dtype == dtype && t->n_dims == 2 && t->shape[0] == rows && t->shape[1] == columns;
}

enum status hq_check_sizes(struct hq *h, const struct ctensor *t, uint64_t N, uint64_t K) {
    if (N >= 1 && K >= 1 && N <= INT32_MAX && K <= INT32_MAX)
        return ST_OK;
    return hq_wrong(
        h, t, "a matrix of 1 to 2^31 - 1 rows and columns, not %" PRIu64 " x %" PRIu64, N, K);
}

float hq_value(const struct ctensor *t, uint64_t i) {
    const unsigned char *p = t->data + i * dtype_size(t->dtype);
    uint16_t h;
    float f;
    switch (t->dtype) {
    case DTYPE_F16:
        memcpy(&h, p, sizeof h);
        return f16_to_f32(h);
    case DTYPE_BF16:
        memcpy(&h, p, sizeof h);
        return bf16_to_f32(h);
    case DTYPE_F8_E8M0:
        return *p == 255 ? NAN : ldexpf(1, *p - 127);
    default:
        memcpy(&f, p, sizeof f);
        return f;
    }
}

uint32_t hq_word(const unsigned char *p, uint64_t i) {
    p += 4 * i;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static int significant_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    bits &= 0x7fffff;
    return bits ? 24 - __builtin_ctz(bits) : 1;
}

enum status hq_check_scales(struct hq *h, const struct ctensor *t, int *bits) {
    *bits = 1;
    if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_F16 && t->dtype != DTYPE_BF16 &&
        t->dtype != DTYPE_F8_E8M0)
        return hq_wrong(h, t, "F32, F16, BF16 or F8_E8M0");
    for (uint64_t i = 0; i < t->n_elem; i++) {
        float f = hq_value(t, i);
        if (!(fabsf(f) < 0x1p100f))
            return err_set(h->err, ST_FORMAT,
                           "%s: tensor %s: scale %" PRIu64
                           " is %g, wanted a number below 2^100",
                           shards_file(h->s, t), t->name, i, (double)f);
        int n = t->dtype == DTYPE_F32 ? significant_bits(f) : 11;
        *bits = n > *bits ? n : *bits;
    }
    return ST_OK;
}

enum weight_type hq_float_layout(enum dtype dtype) {
    return dtype == DTYPE_F16 ? WEIGHT_F16 : dtype == DTYPE_F32 ? WEIGHT_F32 : WEIGHT_BF16;
}

/* -- the configuration ---------------------------------------------------------------- */

static enum status refuse(const char *file, const char *method, struct err *err) {
    struct buf list = {0};
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        buf_addf(&list, "%s%s", i ? ", " : "", methods[i].name);
    enum status st =
        err_set(err, ST_UNSUPPORTED, "%s: quantised by the method \"%s\"; supported: %s", file,
                method, buf_str(&list));
    buf_release(&list);
    return st;
}

/* The method of an object that may be too old to name it. */
static enum status method_name(const struct hf_json *c, const char *of_file, const char **out,
                               struct err *err) {
    bool four = false, eight = false;
    *out = of_file;
    CHECK(hf_str(c, "quant_method", false, out, err));
    if (*out)
        return ST_OK;
    CHECK(hf_bool(c, "load_in_4bit", &four, err));
    CHECK(hf_bool(c, "load_in_8bit", &eight, err));
    *out = four || eight                ? "bitsandbytes"
           : hf_get(c, "config_groups") ? "compressed-tensors"
                                        : NULL;
    if (!*out)
        return err_set(err, ST_FORMAT, "%s: the quantisation has no quant_method", c->file);
    return ST_OK;
}

static enum status open_with(const struct hf_json *c, const char *of_file,
                             struct hf_quant **out, struct err *err) {
    const char *name;
    CHECK(method_name(c, of_file, &name, err));
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (strcmp(methods[i].name, name) == 0) {
            struct hf_quant *q = xcalloc(1, sizeof *q);
            q->method = &methods[i];
            enum status st = q->method->open(q, c, err);
            if (st != ST_OK)
                hf_quant_free(q);
            else
                *out = q;
            return st;
        }
    return refuse(c->file, name, err);
}

/* Repositories older than config.json's object. */
static enum status open_old(const char *dir, const char *file, const char *method,
                            struct hf_quant **out, struct err *err) {
    struct hf_json c;
    CHECK(hf_json_load(dir, file, false, max_config_bytes, &c, err));
    enum status st = c.root ? open_with(&c, method, out, err) : ST_OK;
    hf_json_release(&c);
    return st;
}

enum status hf_quant_open(const char *dir, const struct hf_json *config, struct hf_quant **out,
                          struct err *err) {
    struct hf_json c, text;
    *out = NULL;
    CHECK(hf_child(config, "quantization_config|compression_config", &c, err));
    if (!c.root) {
        CHECK(hf_child(config, "text_config", &text, err));
        CHECK(hf_child(&text, "quantization_config|compression_config", &c, err));
    }
    if (c.root)
        return open_with(&c, NULL, out, err);
    CHECK(open_old(dir, "quantize_config.json", "gptq", out, err));
    return *out ? ST_OK : open_old(dir, "quant_config.json", "awq", out, err);
}

void hf_quant_free(struct hf_quant *q) {
    if (!q)
        return;
    for (struct hq_memory *m = q->memory, *next; m; m = next) {
        next = m->next;
        free(m);
    }
    free(q);
}

/* Scales of a quantised KV cache lie beside the attention's matrices. Ours is not, so that they
 * say nothing about the model. */
static void pass_over_cache_scales(struct shards *s, const char *base) {
    static const char ending[] = ".k_proj";
    size_t n = strlen(base), m = sizeof ending - 1;
    if (n <= m || strcmp(base + n - m, ending) != 0)
        return;
    char *attention = xstrndup(base, n - m);
    static const char *const parts[] = {"k_scale",
                                        "v_scale",
                                        "q_scale",
                                        "k_zero_point",
                                        "v_zero_point",
                                        "k_proj.output_scale",
                                        "v_proj.output_scale"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        look_up(s, attention, parts[i], true);
    free(attention);
}

/* A weight of 8 bits that is none of the method's matrices. Its numbers are codes, since a
 * checkpoint that is quantised leaves nothing else so small; without their scales they would
 * pass for values. */
static enum status check_left_alone(const struct hf_quant *q, struct shards *s,
                                    const char *base, struct err *err) {
    const struct ctensor *t = look_up(s, base, "weight", false);
    if (!t || (t->dtype != DTYPE_I8 && t->dtype != DTYPE_U8 && t->dtype != DTYPE_F8_E4M3 &&
               t->dtype != DTYPE_F8_E5M2))
        return ST_OK;
    return err_set(err, ST_FORMAT, "%s: tensor %s is %s and has no scales, wanted %s beside it",
                   shards_file(s, t), t->name, dtype_name(t->dtype), q->method->scales);
}

enum status hf_quant_find(struct hf_quant *q, struct shards *s, const char *base, bool *found,
                          struct source_tensor *out, struct err *err) {
    *found = false;
    pass_over_cache_scales(s, base);
    CHECK(q->method->find(q, s, base, found, out, err));
    return *found ? ST_OK : check_left_alone(q, s, base, err);
}
