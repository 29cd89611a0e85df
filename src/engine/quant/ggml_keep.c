/*
 * ggml_keep.c - tensors of GGUF types as a source gives them: rows as f32, and the codes,
 * scales and minima that `keep` stores. See source.h.
 *
 * A tensor is E * N rows of K values, each a whole number of blocks, one behind the other; so
 * row r starts at r times the bytes of a row. Block types are exact in our layouts as they are:
 * both say number * scale + min. Types with numbers of at most 4 bits become Q4 with the
 * format's table, the others I8. F64 alone loses bits.
 *
 * source_tensor.part[0] holds the type's row of ggml_types.h, num[0] the bytes of a row.
 */
#include "engine/model/source.h"
#include "engine/quant/ggml_types.h"

#include <assert.h>

static const struct ggml_type_row *row_of(const struct source_tensor *t) {
    return t->part[0];
}

static const unsigned char *row_data(const struct source_tensor *t, uint64_t row) {
    assert(row < t->E * t->N);
    return t->data + row * t->num[0];
}

static void ggml_rows(const struct source_tensor *t, const uint64_t *row, int n, float *out) {
    for (int i = 0; i < n; i++)
        ggml_dequant(row_of(t), row_data(t, row[i]), out + (uint64_t)i * t->K, (size_t)t->K);
}

static void ggml_codes(const struct source_tensor *t, const uint64_t *row, int n, uint8_t *code,
                       float *scale, float *min) {
    const struct ggml_type_row *type = row_of(t);
    size_t blocks = (size_t)t->K / type->block_elems, groups = type->block_elems / type->group;
    for (int i = 0; i < n; i++) {
        const unsigned char *p = row_data(t, row[i]);
        for (size_t b = 0; b < blocks; b++, p += type->block_bytes) {
            type->unpack(p, code, scale, min);
            code += type->block_elems;
            scale += groups;
            if (type->has_min)
                min += groups;
        }
    }
}

static const struct tensor_format plain_format = {ggml_rows, NULL};
static const struct tensor_format block_format = {ggml_rows, ggml_codes};

bool tensor_format_ggml(struct source_tensor *t) {
    enum { F16 = 1, F64 = 28, BF16 = 30 }; /* numbers of the format */
    const struct ggml_type_row *type = ggml_type_row(t->dtype);
    if (!type || !ggml_type_readable(type))
        return false;
    assert(t->K % type->block_elems == 0);
    t->type = type->name;
    t->part[0] = type;
    t->num[0] = t->K / type->block_elems * type->block_bytes;
    t->n_bytes = t->E * t->N * t->num[0];
    t->perm = NULL;
    t->inexact = NULL;
    t->quantised = type->unpack != NULL;
    t->keep_min = type->has_min;
    t->table = type->table;
    t->group = (int)type->group;
    if (type->unpack) {
        t->format = &block_format;
        t->keep = type->table ? WEIGHT_Q4 : WEIGHT_I8;
        return true;
    }
    t->format = &plain_format;
    t->keep = t->dtype == F16 ? WEIGHT_F16 : t->dtype == BF16 ? WEIGHT_BF16 : WEIGHT_F32;
    if (t->dtype == F64)
        t->inexact = "64-bit floats are rounded to 32 bits";
    return true;
}
