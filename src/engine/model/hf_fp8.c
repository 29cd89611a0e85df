/*
 * hf_fp8.c - 8-bit floats with scales: DeepSeek's and Qwen's blocks, and the float-quantized
 * matrices of compressed-tensors.
 *
 *   weight            F8_E4M3 [N, K]
 *   weight_scale_inv  [ceil(N / block rows), ceil(K / block columns)], in spite of its name
 *                     what a weight is multiplied by
 *   weight_scale      the same, or [N, 1], [N] or one number
 *
 * w = weight * scale. In f32 that product is rounded once; the libraries compute it in the
 * scale's type (compressed-tensors) or in f32 and round it to the model's (transformers), which
 * is the same as rounding ours. None of our layouts holds such products: an E4M3 has 4 bits but
 * 16 binary orders of magnitude. Stored as BF16, or F16 where the scales are, they are what
 * the libraries compute with.
 *
 * The size of a block stands in the configuration, since the last ones may be cut off; where it
 * doesn't fit the number of scales, they divide the matrix evenly.
 */
#include "engine/model/hf_quant_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct blocks {
    struct source_tensor plain; /* the weight alone */
    const struct ctensor *scale;
    uint64_t rows, columns, across; /* of a block; blocks in a row */
};

static void fp8_rows(const struct source_tensor *t, const uint64_t *row, int n, float *out) {
    const struct blocks *b = t->part[0];
    b->plain.format->rows(&b->plain, row, n, out);
    for (int i = 0; i < n; i++, out += t->K)
        for (uint64_t k = 0, c = 0; k < t->K; c++) {
            float scale = hq_value(b->scale, row[i] / b->rows * b->across + c);
            uint64_t end = t->K - k < b->columns ? t->K : k + b->columns;
            for (; k < end; k++)
                out[k] *= scale;
        }
}

static uint64_t parts(uint64_t n, uint64_t size) {
    return (n + size - 1) / size;
}

/* Scales for blocks, rows or all of a matrix of N x K. */
static enum status settle_blocks(struct hq *h, struct blocks *b, uint64_t N, uint64_t K) {
    const struct ctensor *t = b->scale;
    const uint64_t *size = h->q->block;
    uint64_t down = t->n_dims ? t->shape[0] : 1, across = t->n_dims > 1 ? t->shape[1] : 1;
    b->across = across;
    if (t->n_dims > 2 || t->n_elem == 0)
        return hq_wrong(h, t, "a scale for each block, each row, or all");
    if (size[0] && down == parts(N, size[0]) && across == parts(K, size[1])) {
        b->rows = size[0];
        b->columns = size[1];
        return ST_OK;
    }
    if (N % down || K % across)
        return hq_wrong(
            h, t, "%" PRIu64 " x %" PRIu64 ", or numbers that divide %" PRIu64 " x %" PRIu64,
            size[0] ? parts(N, size[0]) : N, size[1] ? parts(K, size[1]) : 1, N, K);
    b->rows = N / down;
    b->columns = K / across;
    return ST_OK;
}

/* With the size of a block, where a scale is for one and not for a row or all. */
static const char *word_of(struct hq *h, const struct blocks *b, const char *word, uint64_t N,
                           uint64_t K) {
    bool all = b->rows == N && b->columns == K, row = b->rows == 1 && b->columns == K;
    return all || row ? word
                      : hq_word_for(h->q, "%s-%" PRIu64 "x%" PRIu64, word, b->rows, b->columns);
}

enum status hq_fp8_tensor(struct hq *h, const char *suffix, const char *word,
                          struct source_tensor *out) {
    static const struct tensor_format format = {fp8_rows, NULL};
    struct blocks *b = hq_alloc(h->q, 1, sizeof *b);
    const struct ctensor *t = hq_part(h, "weight");
    int bits;
    CHECK(hq_need(h, suffix, "weight", &b->scale));
    if (t->n_dims != 2)
        return hq_wrong(h, t, "two dimensions");
    bool half = b->scale->dtype == DTYPE_F16;
    uint64_t N = t->shape[0], K = t->shape[1];
    CHECK(hq_check_sizes(h, t, N, K));
    CHECK(hq_check_scales(h, b->scale, &bits));
    CHECK(settle_blocks(h, b, N, K));
    b->plain =
        (struct source_tensor){.E = 1, .N = N, .K = K, .data = t->data, .dtype = t->dtype};
    tensor_format_plain(&b->plain);
    *out = (struct source_tensor){
        .type = "FP8",
        .word = word_of(h, b, word, N, K),
        .format = &format,
        .E = 1,
        .N = N,
        .K = K,
        .n_bytes = h->n_bytes,
        .keep = half ? WEIGHT_F16 : WEIGHT_BF16,
        .quantised = true,
        .inexact = half ? "it is stored as F16, the type that its library computes with"
                        : "it is stored as BF16, the type that its library computes with",
        .data = t->data,
        .dtype = t->dtype,
        .part = {b}};
    return ST_OK;
}

enum status hq_fp8_open(struct hf_quant *q, const struct hf_json *c, struct err *err) {
    json_t *list = hf_get(c, "weight_block_size");
    const char *fmt = "e4m3";
    CHECK(hf_str(c, "fmt", false, &fmt, err));
    if (strcmp(fmt, "e4m3") != 0 && strcmp(fmt, "float8_e4m3fn") != 0)
        return err_set(err, ST_UNSUPPORTED,
                       "%s: 8-bit floats of the kind \"%s\"; supported: e4m3", c->file, fmt);
    for (size_t i = 0; list && i < 2; i++) {
        json_int_t n = json_integer_value(json_array_get(list, i));
        if (json_array_size(list) != 2 || n < 1 || n > INT32_MAX)
            return err_set(err, ST_FORMAT, "%s: weight_block_size: wanted two whole numbers",
                           c->file);
        q->block[i] = (uint64_t)n;
    }
    return ST_OK;
}

enum status hq_fp8_find(struct hf_quant *q, struct shards *s, const char *base, bool *found,
                        struct source_tensor *out, struct err *err) {
    struct hq h = {q, s, base, err, 0};
    const struct ctensor *t;
    const char *suffix = hq_has(&h, "weight_scale_inv") ? "weight_scale_inv"
                         : hq_has(&h, "weight_scale")   ? "weight_scale"
                                                        : NULL;
    if (!suffix)
        return ST_OK;
    *found = true;
    hq_part(&h, "input_scale");
    hq_part(&h, "activation_scale");
    CHECK(hq_need(&h, "weight", suffix, &t));
    h.n_bytes = 0;
    if (t->dtype != DTYPE_F8_E4M3)
        return hq_wrong(&h, t, "F8_E4M3, since there is a scale beside it");
    return hq_fp8_tensor(&h, suffix, "fp8", out);
}
