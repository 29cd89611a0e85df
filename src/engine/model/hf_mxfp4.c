/*
 * hf_mxfp4.c - experts in MXFP4, as gpt-oss is published: E2M1 numbers with a power of two for
 * every 32 inputs (OCP Microscaling Formats 1.0).
 *
 *   NAME_blocks  U8 [E, N, K / 32, 16] or [E, N, K / 2]: byte i has input 2i in its low
 *                nibble, 2i + 1 in its high one
 *   NAME_scales  U8 [E, N, K / 32]: e stands for 2^(e - 127)
 *
 * The matrices lie as they multiply, [N, K], though the same stack in floats is turned. Q4
 * holds them exactly.
 */
#include "engine/model/hf_quant_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { GROUP = 32, GROUP_BYTES = 16 };

static const float e2m1[16] = {0,     0.5f,  1,  1.5f,  2,  3,  4,  6,
                               -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

static uint8_t code_at(const struct source_tensor *t, uint64_t row, uint64_t k) {
    uint8_t byte = t->data[row * (t->K / 2) + k / 2];
    return k % 2 ? byte >> 4 : byte & 15;
}

static float scale_at(const struct source_tensor *t, uint64_t row, uint64_t g) {
    const uint8_t *e = t->part[0];
    return ldexpf(1, e[row * (t->K / GROUP) + g] - 127);
}

static void mxfp4_rows(const struct source_tensor *t, const uint64_t *row, int n, float *out) {
    for (int i = 0; i < n; i++)
        for (uint64_t g = 0; g < t->K / GROUP; g++) {
            float scale = scale_at(t, row[i], g);
            for (uint64_t k = g * GROUP; k < (g + 1) * GROUP; k++)
                *out++ = e2m1[code_at(t, row[i], k)] * scale;
        }
}

static void mxfp4_codes(const struct source_tensor *t, const uint64_t *row, int n,
                        uint8_t *code, float *scale, float *min) {
    (void)min;
    for (int i = 0; i < n; i++) {
        for (uint64_t k = 0; k < t->K; k++)
            *code++ = code_at(t, row[i], k);
        for (uint64_t g = 0; g < t->K / GROUP; g++)
            *scale++ = scale_at(t, row[i], g);
    }
}

/* NAME_PART, or NULL. */
static const struct ctensor *part(struct hq *h, const char *suffix) {
    char *name = xasprintf("%s_%s", h->base, suffix);
    const struct ctensor *t = shards_has(h->s, name) ? shards_find(h->s, name) : NULL;
    free(name);
    if (t)
        h->n_bytes += t->n_bytes;
    return t;
}

static enum status check_parts(struct hq *h, const struct ctensor *blocks,
                               const struct ctensor *scales) {
    enum { MAX_EXPONENT = 127 + 99 }; /* as other scales: below 2^100 */
    const uint64_t *b = blocks->shape, *s = scales->shape;
    bool flat = blocks->n_dims == 3 && b[2] % GROUP_BYTES == 0;
    if (blocks->dtype != DTYPE_U8 || (!flat && (blocks->n_dims != 4 || b[3] != GROUP_BYTES)))
        return hq_wrong(h, blocks, "U8 of experts x rows x groups x %d", GROUP_BYTES);
    uint64_t groups = flat ? b[2] / GROUP_BYTES : b[2];
    if (b[0] < 1 || b[0] > INT32_MAX || groups > INT32_MAX / GROUP)
        return hq_wrong(h, blocks, "sizes of 1 to 2^31 - 1");
    CHECK(hq_check_sizes(h, blocks, b[1], groups * GROUP));
    if (scales->dtype != DTYPE_U8 || scales->n_dims != 3 || s[0] != b[0] || s[1] != b[1] ||
        s[2] != groups)
        return hq_wrong(h, scales, "U8 %" PRIu64 " x %" PRIu64 " x %" PRIu64, b[0], b[1],
                        groups);
    for (uint64_t i = 0; i < scales->n_elem; i++)
        if (scales->data[i] > MAX_EXPONENT)
            return err_set(h->err, ST_FORMAT,
                           "%s: tensor %s: scale %" PRIu64 " is 2^%d, wanted a number below "
                           "2^100",
                           shards_file(h->s, scales), scales->name, i, scales->data[i] - 127);
    return ST_OK;
}

enum status hq_mxfp4_open(struct hf_quant *q, const struct hf_json *c, struct err *err) {
    (void)q;
    (void)c;
    (void)err;
    return ST_OK;
}

enum status hq_mxfp4_find(struct hf_quant *q, struct shards *s, const char *base, bool *found,
                          struct source_tensor *out, struct err *err) {
    static const struct tensor_format format = {mxfp4_rows, mxfp4_codes};
    struct hq h = {q, s, base, err, 0};
    const struct ctensor *blocks = part(&h, "blocks"), *scales = part(&h, "scales");
    if (!blocks && !scales)
        return ST_OK;
    *found = true;
    if (!blocks || !scales)
        return err_set(err, ST_FORMAT, "there is a tensor %s_%s but no %s_%s, wanted both",
                       base, blocks ? "blocks" : "scales", base, blocks ? "scales" : "blocks");
    CHECK(check_parts(&h, blocks, scales));
    *out = (struct source_tensor){.type = "MXFP4",
                                  .word = "mxfp4",
                                  .format = &format,
                                  .E = scales->shape[0],
                                  .N = scales->shape[1],
                                  .K = scales->shape[2] * GROUP,
                                  .n_bytes = h.n_bytes,
                                  .keep = WEIGHT_Q4,
                                  .group = GROUP,
                                  .table = e2m1,
                                  .quantised = true,
                                  .data = blocks->data,
                                  .part = {scales->data}};
    return ST_OK;
}
