/*
 * hf_bnb.c - bitsandbytes: NF4 and FP4 (QLoRA, Dettmers et al. 2023, arXiv:2305.14314) and
 * LLM.int8 (Dettmers et al. 2022, arXiv:2208.07339).
 *
 * 4 bits. The matrix is taken as one long row of N * K values, cut into blocks with a scale:
 *   weight                  [ceil(N * K / 2), 1] bytes, value 2i in the high nibble of byte i;
 *                           of type U8, or of any other as a mere container (quant_storage)
 *   weight.absmax           F32 [blocks]; or U8, then scales are quantised too:
 *   weight.nested_absmax    F32 [blocks / nested_blocksize, rounded up]
 *   weight.nested_quant_map F32 [256]: scale = map[code] * nested_absmax + nested_offset
 *   weight.quant_map        F32 [16]
 *   weight.quant_state.bitsandbytes__nf4 or __fp4: a JSON object as U8
 * and w = table[code] * scale, each step rounded to f32. The library uses its own tables,
 * whatever the file says; so do we, and refuse a file with others.
 *
 * On a CPU with AVX-512 the library (0.50.2) takes a neighbour's scale where blocks end inside
 * of rows; its code for GPUs and its fallback don't, and these we follow.
 *
 * Blocks fit our groups when 16, 32 or 64 divides both a block and a row. Otherwise a group of
 * ours would hold two scales, and the matrix is stored in the type that the library computes it
 * in (quant_state's dtype).
 *
 * 8 bits: weight I8 [N, K], SCB F32 [N] the largest magnitude of a row, w = q * SCB * (1/127),
 * in this order. Kept, 1/127 is multiplied into the scale, since that is what a scale is: a
 * value may then differ in its last bit. The library itself never makes these values when it
 * runs; it multiplies the integers. weight_format is 0: rows in order.
 */
#include "engine/model/hf_quant_impl.h"

#include "engine/quant/quant.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const float one_127th = 7.874015718698502e-3f;

struct fours {
    const unsigned char *code;
    const float *table;
    uint64_t N, K, block, nested_block;
    const struct ctensor *absmax, *nested, *map; /* nested, map NULL: absmax is F32 */
    float offset;
};

static float block_scale(const struct fours *m, uint64_t b) {
    if (!m->nested)
        return hq_value(m->absmax, b);
    float s = hq_value(m->map, m->absmax->data[b]) * hq_value(m->nested, b / m->nested_block);
    return s + m->offset;
}

static int code_at(const struct fours *m, uint64_t i) {
    return i % 2 ? m->code[i / 2] & 15 : m->code[i / 2] >> 4;
}

static void fours_rows(const struct source_tensor *t, const uint64_t *row, int n, float *out) {
    const struct fours *m = t->part[0];
    for (int r = 0; r < n; r++)
        for (uint64_t i = row[r] * m->K, end = i + m->K; i < end;) {
            float scale = block_scale(m, i / m->block);
            uint64_t stop = i - i % m->block + m->block;
            for (stop = stop < end ? stop : end; i < stop; i++)
                *out++ = m->table[code_at(m, i)] * scale;
        }
}

static void fours_codes(const struct source_tensor *t, const uint64_t *row, int n,
                        uint8_t *code, float *scale, float *min) {
    const struct fours *m = t->part[0];
    (void)min; /* there is none */
    for (int r = 0; r < n; r++) {
        uint64_t first = row[r] * m->K;
        for (uint64_t k = 0; k < m->K; k++)
            *code++ = (uint8_t)code_at(m, first + k);
        for (uint64_t k = 0; k < m->K; k += (uint64_t)t->group)
            *scale++ = block_scale(m, (first + k) / m->block);
    }
}

static void bytes_rows(const struct source_tensor *t, const uint64_t *row, int n, float *out) {
    const struct ctensor *scb = t->part[0];
    for (int r = 0; r < n; r++) {
        const unsigned char *q = t->data + row[r] * t->K;
        float most = hq_value(scb, row[r]);
        for (uint64_t k = 0; k < t->K; k++) {
            float f = (float)(int8_t)q[k] * most;
            *out++ = f * one_127th;
        }
    }
}

static void bytes_codes(const struct source_tensor *t, const uint64_t *row, int n,
                        uint8_t *code, float *scale, float *min) {
    const struct ctensor *scb = t->part[0];
    (void)min; /* there is none */
    for (int r = 0; r < n; r++) {
        memcpy(code + (uint64_t)r * t->K, t->data + row[r] * t->K, t->K);
        for (uint64_t k = 0; k < t->K; k += (uint64_t)t->group)
            *scale++ = hq_value(scb, row[r]) * one_127th;
    }
}

/* -- 8 bits --------------------------------------------------------------------------- */

static enum status find_bytes(struct hq *h, const struct ctensor *w,
                              struct source_tensor *out) {
    static const struct tensor_format format = {bytes_rows, bytes_codes};
    const struct ctensor *scb, *order = hq_part(h, "weight_format");
    int bits;
    CHECK(hq_need(h, "SCB", "weight", &scb));
    if (w->dtype != DTYPE_I8 || w->n_dims != 2)
        return hq_wrong(h, w, "I8 and two dimensions, since there is %s.SCB beside it",
                        h->base);
    CHECK(hq_check_sizes(h, w, w->shape[0], w->shape[1]));
    if (scb->n_elem != w->shape[0])
        return hq_wrong(h, scb, "F32 %" PRIu64, w->shape[0]);
    CHECK(hq_check_scales(h, scb, &bits));
    if (order && (order->dtype != DTYPE_U8 || order->n_elem != 1))
        return hq_wrong(h, order, "U8 with one value");
    if (order && order->data[0] != 0)
        return err_set(h->err, ST_UNSUPPORTED,
                       "%s: tensor %s is %d, a layout of one kind of GPU; supported: 0 (rows)",
                       shards_file(h->s, order), order->name, order->data[0]);
    *out = (struct source_tensor){
        .type = "LLM.int8",
        .word = "bnb-int8",
        .format = &format,
        .E = 1,
        .N = w->shape[0],
        .K = w->shape[1],
        .n_bytes = h->n_bytes,
        .keep = WEIGHT_I8,
        .group = 64,
        .quantised = true,
        .inexact =
            "its integers are kept; scale and 1/127 are multiplied first, so a value may "
            "differ in the last bit of a float",
        .data = w->data,
        .dtype = w->dtype,
        .part = {scb}};
    return ST_OK;
}

/* -- 4 bits --------------------------------------------------------------------------- */

struct state { /* of quant_state */
    uint64_t N, K;
    int block, nested_block;
    float offset;
    enum dtype dtype;
    bool fp4;
};

static enum status read_shape(const struct hf_json *j, struct state *st, struct err *err) {
    json_t *shape = hf_get(j, "shape");
    json_int_t n[2] = {0, 0};
    for (size_t i = 0; i < 2; i++)
        n[i] = json_integer_value(json_array_get(shape, i));
    if (json_array_size(shape) != 2 || n[0] < 1 || n[1] < 1 || n[0] > INT32_MAX ||
        n[1] > INT32_MAX)
        return err_set(err, ST_FORMAT, "%s: shape: wanted two whole numbers", j->file);
    st->N = (uint64_t)n[0];
    st->K = (uint64_t)n[1];
    return ST_OK;
}

static enum status read_state(const struct hf_json *j, struct state *st, struct err *err) {
    const char *type = NULL, *dtype = NULL, *nested = "float32";
    CHECK(hf_str(j, "quant_type", true, &type, err));
    CHECK(hf_str(j, "dtype", true, &dtype, err));
    CHECK(hf_str(j, "nested_dtype", false, &nested, err));
    CHECK(hf_int(j, "blocksize", true, 1, 1 << 24, &st->block, err));
    CHECK(hf_int(j, "nested_blocksize", false, 1, 1 << 24, &st->nested_block, err));
    CHECK(hf_num(j, "nested_offset", false, &st->offset, err));
    CHECK(read_shape(j, st, err));
    if (!(fabsf(st->offset) < 0x1p100f)) /* as hq_check_scales() */
        return err_set(err, ST_FORMAT, "%s: nested_offset is %g, wanted a number below 2^100",
                       j->file, (double)st->offset);
    st->fp4 = strcmp(type, "fp4") == 0;
    if (!st->fp4 && strcmp(type, "nf4") != 0)
        return err_set(err, ST_UNSUPPORTED, "%s: quant_type \"%s\"; supported: nf4, fp4",
                       j->file, type);
    if (strcmp(nested, "float32") != 0)
        return err_set(err, ST_UNSUPPORTED, "%s: nested_dtype \"%s\"; supported: float32",
                       j->file, nested);
    st->dtype = strcmp(dtype, "float16") == 0    ? DTYPE_F16
                : strcmp(dtype, "bfloat16") == 0 ? DTYPE_BF16
                                                 : DTYPE_F32;
    return ST_OK;
}

static enum status find_state(struct hq *h, struct state *st) {
    static const char *const suffixes[] = {"weight.quant_state.bitsandbytes__nf4",
                                           "weight.quant_state.bitsandbytes__fp4"};
    const struct ctensor *t = hq_part(h, suffixes[0]);
    struct hf_json j;
    if (!t)
        CHECK(hq_need(h, suffixes[1], "weight.absmax", &t));
    if (t->dtype != DTYPE_U8)
        return hq_wrong(h, t, "U8, the bytes of a JSON object");
    CHECK(hf_json_parse((const char *)t->data, t->n_bytes, t->name, &j, h->err));
    enum status result = read_state(&j, st, h->err);
    hf_json_release(&j);
    return result;
}

/* The file's table is the library's. */
static enum status check_table(struct hq *h, const float *table) {
    const struct ctensor *t;
    CHECK(hq_need(h, "weight.quant_map", "weight", &t));
    if (t->dtype != DTYPE_F32 || t->n_elem != 16)
        return hq_wrong(h, t, "F32 16");
    for (uint64_t i = 0; i < 16; i++)
        if (!(fabsf(hq_value(t, i) - table[i]) < 1e-5f))
            return err_set(h->err, ST_UNSUPPORTED,
                           "%s: tensor %s: value %" PRIu64 " is %g, wanted %g of %s",
                           shards_file(h->s, t), t->name, i, (double)hq_value(t, i),
                           (double)table[i], table == nf4_table ? "nf4" : "fp4");
    return ST_OK;
}

static enum status find_scales(struct hq *h, struct fours *m, const struct state *st) {
    uint64_t blocks = (m->N * m->K + m->block - 1) / m->block, outer;
    int bits;
    CHECK(hq_need(h, "weight.absmax", "weight", &m->absmax));
    if (m->absmax->n_elem != blocks)
        return hq_wrong(h, m->absmax, "%" PRIu64 " values, one for %" PRIu64 " of %" PRIu64,
                        blocks, m->block, m->N * m->K);
    if (m->absmax->dtype != DTYPE_U8)
        return hq_check_scales(h, m->absmax, &bits);
    m->nested_block = (uint64_t)st->nested_block;
    m->offset = st->offset;
    CHECK(hq_need(h, "weight.nested_absmax", "weight.absmax", &m->nested));
    CHECK(hq_need(h, "weight.nested_quant_map", "weight.absmax", &m->map));
    if (!m->nested_block)
        return err_set(h->err, ST_FORMAT, "%s.weight.quant_state: has no nested_blocksize",
                       h->base);
    outer = (blocks + m->nested_block - 1) / m->nested_block;
    if (m->nested->dtype != DTYPE_F32 || m->nested->n_elem != outer)
        return hq_wrong(h, m->nested, "F32 %" PRIu64, outer);
    if (m->map->dtype != DTYPE_F32 || m->map->n_elem != 256)
        return hq_wrong(h, m->map, "F32 256");
    CHECK(hq_check_scales(h, m->nested, &bits));
    return hq_check_scales(h, m->map, &bits);
}

static enum status find_fours(struct hq *h, const struct ctensor *w,
                              struct source_tensor *out) {
    static const struct tensor_format kept = {fours_rows, fours_codes},
                                      floats = {fours_rows, NULL};
    struct fours *m = hq_alloc(h->q, 1, sizeof *m);
    struct state st = {0};
    CHECK(find_state(h, &st));
    *m = (struct fours){.code = w->data,
                        .table = st.fp4 ? fp4_table : nf4_table,
                        .N = st.N,
                        .K = st.K,
                        .block = (uint64_t)st.block};
    if (w->n_bytes != (m->N * m->K + 1) / 2)
        return hq_wrong(h, w, "%" PRIu64 " bytes, two values each of %" PRIu64 " x %" PRIu64,
                        (m->N * m->K + 1) / 2, m->N, m->K);
    CHECK(check_table(h, m->table));
    CHECK(find_scales(h, m, &st));
    *out = (struct source_tensor){.type = st.fp4 ? "bitsandbytes FP4" : "bitsandbytes NF4",
                                  .word = st.fp4 ? "bnb-fp4" : "bnb-nf4",
                                  .format = &kept,
                                  .E = 1,
                                  .N = m->N,
                                  .K = m->K,
                                  .n_bytes = h->n_bytes,
                                  .keep = WEIGHT_Q4,
                                  .table = m->table,
                                  .quantised = true,
                                  .data = w->data,
                                  .dtype = w->dtype,
                                  .part = {m}};
    uint64_t both = m->block | m->K, lowest = both & -both;
    out->group = lowest >= 64 ? 64 : (int)lowest;
    if (lowest < 16) {
        out->format = &floats;
        out->keep = hq_float_layout(st.dtype);
        out->group = 0;
        out->table = NULL;
        out->inexact = "its blocks run across rows, so it is stored in the type of floats that "
                       "its library computes with";
    }
    return ST_OK;
}

/* The parts of a matrix say it all. */
enum status hq_bnb_open(struct hf_quant *q, const struct hf_json *c, struct err *err) {
    (void)q;
    (void)c;
    (void)err;
    return ST_OK;
}

enum status hq_bnb_find(struct hf_quant *q, struct shards *s, const char *base, bool *found,
                        struct source_tensor *out, struct err *err) {
    struct hq h = {q, s, base, err, 0};
    bool four = hq_has(&h, "weight.absmax") ||
                hq_has(&h, "weight.quant_state.bitsandbytes__nf4") ||
                hq_has(&h, "weight.quant_state.bitsandbytes__fp4"),
         eight = hq_has(&h, "SCB");
    const struct ctensor *w;
    if (!four && !eight)
        return ST_OK;
    *found = true;
    CHECK(hq_need(&h, "weight", four ? "weight.absmax" : "SCB", &w));
    return four ? find_fours(&h, w, out) : find_bytes(&h, w, out);
}
