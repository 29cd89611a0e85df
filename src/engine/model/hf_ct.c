/*
 * hf_ct.c - compressed-tensors: integers packed into words or as they are, and 8-bit floats.
 *
 * pack-quantized, b bits:
 *   weight_packed     I32 [N, ceil(K * b / 32)]  row n is a stream of bits, lowest first: code
 *                                                k at bit k * b, with 2^(b-1) added
 *   weight_shape      I64 [2]                    N, K
 *   weight_scale      [N, G], [N, 1], [N] or one: by group, channel or matrix
 *   weight_zero_point I32 [ceil(N * b / 32), G]  column g is such a stream over n; absent: 0.
 *                     I8, as many as scales      for one zero point a matrix
 *   weight_g_idx      I32 [K]                    group of a column; absent or -1: in order
 * int-quantized: weight I8 [N, K] with weight_scale and an I8 weight_zero_point.
 * float-quantized: weight F8_E4M3 [N, K] with weight_scale by matrix, channel or block.
 *
 * The configuration lists groups of modules with regular expressions for their names. We need
 * neither: the parts that are there say what a matrix is, but for its width and, for blocks,
 * their size, which are taken from the list where they fit. Where no group is symmetric, every
 * matrix of integers has zero points. How activations are quantised is
 * no matter of the weights.
 *
 * Widths other than 1, 2, 4 and 8 were packed into words without crossing their borders by
 * early versions; their rows are longer, and so refused by their shape.
 */
#include "engine/model/hf_quant_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const formats[] = {"pack-quantized",  "int-quantized",   "float-quantized",
                                      "naive-quantized", "mixed-precision", "dense"};

static uint64_t words_for(uint64_t n, int bits) {
    return (n * (uint64_t)bits + 31) / 32;
}

/* Code i of a stream of words that are `step` words apart. */
static int code_at(const unsigned char *p, uint64_t n_words, uint64_t step, int bits,
                   uint64_t i) {
    uint64_t bit = i * (uint64_t)bits, w = bit / 32, word = hq_word(p, w * step);
    if (bit % 32 + (uint64_t)bits > 32 && w + 1 < n_words)
        word |= (uint64_t)hq_word(p, (w + 1) * step) << 32;
    return (int)(word >> bit % 32 & ((1u << bits) - 1));
}

static void packed_unpack(const struct hq_ints *m, uint64_t n, uint8_t *q) {
    uint64_t words = m->code->shape[1];
    const unsigned char *row = m->code->data + 4 * n * words;
    if (m->bits == 4) {
        for (uint64_t k = 0; k < m->K; k++)
            q[k] = row[k / 2] >> 4 * (k % 2) & 15;
        return;
    }
    for (uint64_t k = 0; k < m->K; k++)
        q[k] = (uint8_t)code_at(row, words, 1, m->bits, k);
}

static void bytes_unpack(const struct hq_ints *m, uint64_t n, uint8_t *q) {
    const unsigned char *row = m->code->data + n * m->K;
    for (uint64_t k = 0; k < m->K; k++)
        q[k] = row[k] ^ 128; /* 128 added */
}

static int packed_zero(const struct hq_ints *m, uint64_t n, uint64_t g) {
    uint64_t G = m->zeros->shape[1], words = m->zeros->shape[0];
    return code_at(m->zeros->data + 4 * g, words, G, m->bits, n);
}

/* I8, one for each scale. */
static int bytes_zero(const struct hq_ints *m, uint64_t n, uint64_t g) {
    return (int8_t)m->zeros->data[n * m->scale_n + g * m->scale_g] + (1 << (m->bits - 1));
}

/* -- the configuration ---------------------------------------------------------------- */

static enum status check_format(const char *file, const char *format, struct err *err) {
    struct buf list = {0};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(formats[i], format) == 0) {
            buf_release(&list);
            return ST_OK;
        }
        buf_addf(&list, "%s%s", i ? ", " : "", formats[i]);
    }
    enum status st = err_set(err, ST_UNSUPPORTED,
                             "%s: compressed-tensors in the format \"%s\"; supported: %s", file,
                             format, buf_str(&list));
    buf_release(&list);
    return st;
}

/* [rows, columns] of a block. */
static enum status read_block(struct hf_quant *q, const struct hf_json *w, struct err *err) {
    json_t *list = hf_get(w, "block_structure");
    if (!list)
        return ST_OK;
    for (size_t i = 0; i < 2; i++) {
        json_int_t n = json_integer_value(json_array_get(list, i));
        if (json_array_size(list) != 2 || n < 1 || n > INT32_MAX)
            return err_set(err, ST_FORMAT, "%s: block_structure: wanted two whole numbers",
                           w->file);
        q->block[i] = (uint64_t)n;
    }
    return ST_OK;
}

static enum status read_group(struct hf_quant *q, const struct hf_json *group,
                              struct err *err) {
    const char *format = "dense", *type = "int";
    struct hf_json w;
    bool symmetric = true;
    int bits = 8, size = 0;
    CHECK(hf_str(group, "format", false, &format, err));
    CHECK(check_format(group->file, format, err));
    CHECK(hf_child(group, "weights", &w, err));
    if (!w.root)
        return ST_OK;
    CHECK(hf_int(&w, "num_bits", false, 1, 64, &bits, err));
    CHECK(hf_int(&w, "group_size", false, -1, INT32_MAX, &size, err));
    CHECK(hf_str(&w, "type", false, &type, err));
    CHECK(hf_bool(&w, "symmetric", &symmetric, err));
    CHECK(read_block(q, &w, err));
    if (strcmp(type, "int") == 0 ? bits > 8 : bits != 8)
        return err_set(
            err, ST_UNSUPPORTED,
            "%s: weights of type %s with %d bits; supported: int with up to 8, float "
            "with 8",
            w.file, type, bits);
    if (!q->group && size > 0)
        q->group = size;
    if (strcmp(type, "int") != 0)
        return ST_OK;
    q->has_zeros = !symmetric && (q->has_zeros || q->n_bits == 0);
    if (q->n_bits < HQ_MAX_WIDTHS)
        q->bits[q->n_bits++] = bits;
    return ST_OK;
}

/* What changes the weights beyond their numbers. */
static enum status check_extras(const struct hf_json *c, struct err *err) {
    struct hf_json sparsity, transform;
    const char *format = "dense";
    CHECK(hf_child(c, "sparsity_config", &sparsity, err));
    CHECK(hf_str(&sparsity, "format", false, &format, err));
    if (strcmp(format, "dense") != 0)
        return err_set(err, ST_UNSUPPORTED,
                       "%s: compressed-tensors with sparsity \"%s\"; supported: dense", c->file,
                       format);
    CHECK(hf_child(c, "transform_config", &transform, err));
    if (json_object_size(hf_get(&transform, "config_groups")) > 0)
        return err_set(err, ST_UNSUPPORTED,
                       "%s: compressed-tensors with transforms of activations "
                       "(transform_config); supported: none",
                       c->file);
    return ST_OK;
}

enum status hq_ct_open(struct hf_quant *q, const struct hf_json *c, struct err *err) {
    const char *format = "dense", *key;
    struct hf_json groups;
    json_t *v;
    CHECK(hf_str(c, "format", false, &format, err));
    CHECK(check_format(c->file, format, err));
    CHECK(check_extras(c, err));
    CHECK(hf_child(c, "config_groups", &groups, err));
    json_object_foreach(groups.root, key, v) {
        struct hf_json group = {c->file, v};
        if (!json_is_object(v))
            return err_set(err, ST_FORMAT, "%s: config_groups: %s is no object", c->file, key);
        CHECK(read_group(q, &group, err));
    }
    return ST_OK;
}

/* -- matrices ------------------------------------------------------------------------- */

/* What scales and zero points a matrix of N x K has. */
static enum status find_scales(struct hq *h, struct hq_ints *m, const char *beside) {
    CHECK(hq_need(h, "weight_scale", beside, &m->scale));
    const struct ctensor *t = m->scale;
    m->G = 1;
    if (t->n_elem == 1) {
        m->group = m->K;
    } else if (t->n_dims >= 1 && t->n_dims <= 2 && t->shape[0] == m->N && t->n_elem) {
        m->G = t->n_elem / m->N;
        m->scale_n = m->G;
        m->scale_g = 1;
        if (m->K % m->G)
            return hq_wrong(h, t, "a number of groups that divides %" PRIu64, m->K);
        m->group = m->K / m->G;
    } else
        return hq_wrong(h, t, "%" PRIu64 " x groups, or one", m->N);
    CHECK(hq_group_index(h, m, "weight_g_idx"));
    m->zero = 1 << (m->bits - 1);
    m->zeros = hq_part(h, "weight_zero_point");
    if (!m->zeros && h->q->has_zeros)
        return hq_need(h, "weight_zero_point", beside, &m->zeros);
    if (!m->zeros)
        return ST_OK;
    if (hq_is(m->zeros, DTYPE_I32, words_for(m->N, m->bits), m->G))
        m->zero_of = packed_zero;
    else if (m->zeros->dtype == DTYPE_I8 && m->zeros->n_elem == t->n_elem)
        m->zero_of = bytes_zero;
    else
        return hq_wrong(h, m->zeros,
                        "I32 %" PRIu64 " x %" PRIu64 ", or I8 and the scale's shape",
                        words_for(m->N, m->bits), m->G);
    return ST_OK;
}

static int64_t shape_at(const struct ctensor *t, size_t i) {
    int64_t wide;
    if (t->dtype == DTYPE_I32)
        return (int32_t)hq_word(t->data, i);
    memcpy(&wide, t->data + 8 * i, sizeof wide);
    return wide;
}

static enum status packed_matrix(struct hq *h, struct hq_ints *m, struct source_tensor *out) {
    static const char *const types[9] = {NULL,          "int1 packed", "int2 packed",
                                         "int3 packed", "int4 packed", "int5 packed",
                                         "int6 packed", "int7 packed", "int8 packed"};
    const struct ctensor *shape;
    m->code = hq_part(h, "weight_packed");
    CHECK(hq_need(h, "weight_shape", "weight_packed", &shape));
    if ((shape->dtype != DTYPE_I64 && shape->dtype != DTYPE_I32) || shape->n_elem != 2)
        return hq_wrong(h, shape, "I64 2");
    m->N = (uint64_t)shape_at(shape, 0);
    m->K = (uint64_t)shape_at(shape, 1);
    CHECK(hq_check_sizes(h, shape, m->N, m->K));
    if (!h->q->n_bits)
        return hq_wrong(h, m->code, "a group in config_groups that names its num_bits");
    for (int i = 0; i < h->q->n_bits && !m->bits; i++)
        if (hq_is(m->code, DTYPE_I32, m->N, words_for(m->K, h->q->bits[i])))
            m->bits = h->q->bits[i];
    if (!m->bits)
        return hq_wrong(h, m->code, "I32 %" PRIu64 " x %" PRIu64 " (%d bits)", m->N,
                        words_for(m->K, h->q->bits[0]), h->q->bits[0]);
    m->unpack = packed_unpack;
    CHECK(find_scales(h, m, "weight_packed"));
    return hq_ints_tensor(h, m, "ct", types[m->bits], out);
}

static enum status byte_matrix(struct hq *h, struct hq_ints *m, struct source_tensor *out) {
    m->code = hq_part(h, "weight");
    if (m->code->n_dims != 2)
        return hq_wrong(h, m->code, "two dimensions");
    m->N = m->code->shape[0];
    m->K = m->code->shape[1];
    m->bits = 8;
    m->unpack = bytes_unpack;
    CHECK(hq_check_sizes(h, m->code, m->N, m->K));
    CHECK(find_scales(h, m, "weight"));
    return hq_ints_tensor(h, m, "ct", "int8", out);
}

enum status hq_ct_find(struct hf_quant *q, struct shards *s, const char *base, bool *found,
                       struct source_tensor *out, struct err *err) {
    static const char *const activations[] = {"input_scale", "input_zero_point",
                                              "input_global_scale", "output_scale",
                                              "output_zero_point"};
    struct hq h = {q, s, base, err, 0};
    struct hq_ints *m;
    *found = hq_has(&h, "weight_packed") || hq_has(&h, "weight_scale");
    if (!*found)
        return ST_OK;
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
        hq_part(&h, activations[i]);
    h.n_bytes = 0; /* those are no part of the weights */
    if (hq_has(&h, "weight_packed")) {
        m = hq_alloc(q, 1, sizeof *m);
        return packed_matrix(&h, m, out);
    }
    const struct ctensor *t;
    CHECK(hq_need(&h, "weight", "weight_scale", &t));
    h.n_bytes = 0;
    if (t->dtype == DTYPE_F8_E4M3)
        return hq_fp8_tensor(&h, "weight_scale", "ct-fp8", out);
    if (t->dtype != DTYPE_I8)
        return hq_wrong(&h, t, "I8 or F8_E4M3, since there is a scale beside it");
    m = hq_alloc(q, 1, sizeof *m);
    return byte_matrix(&h, m, out);
}
