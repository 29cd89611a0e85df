/*
 * hf_awq.c - AWQ (Lin et al. 2023, arXiv:2306.00978) in AutoAWQ's layout "gemm".
 *
 *   qweight I32 [K, N / 8]   word c of row k: the codes of outputs 8c .. 8c + 7
 *   qzeros  I32 [G, N / 8]   the same of zero points
 *   scales  F16 [G, N]       or BF16, F32
 *
 * The eight codes of a word lie, from the lowest nibble on, in the order 0 2 4 6 1 3 5 7, which
 * suits the way GPUs widen nibbles. Zero points are stored as they are. G divides K. The other
 * layouts ("gemv", "gemv_fast", "marlin", "exllama", "llm-awq") are refused by name.
 */
#include "engine/model/hf_quant_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const int shift_of[8] = {0, 16, 4, 20, 8, 24, 12, 28}; /* of output n % 8 */

static void awq_unpack(const struct hq_ints *m, uint64_t n, uint8_t *q) {
    const unsigned char *p = m->code->data + 4 * (n / 8);
    int shift = shift_of[n % 8];
    for (uint64_t k = 0; k < m->K; k++)
        q[k] = hq_word(p, k * (m->N / 8)) >> shift & 15;
}

static int awq_zero(const struct hq_ints *m, uint64_t n, uint64_t g) {
    return hq_word(m->zeros->data, g * (m->N / 8) + n / 8) >> shift_of[n % 8] & 15;
}

enum status hq_awq_open(struct hf_quant *q, const struct hf_json *c, struct err *err) {
    const char *version = "gemm";
    int bits = 4, group = 128;
    CHECK(hf_int(c, "bits|w_bit", false, 1, 16, &bits, err));
    CHECK(hf_int(c, "group_size|q_group_size", false, -1, INT32_MAX, &group, err));
    CHECK(hf_str(c, "version|checkpoint_format|format", false, &version, err));
    if (strcasecmp(version, "gemm") != 0)
        return err_set(err, ST_UNSUPPORTED, "%s: AWQ in the layout \"%s\"; supported: gemm",
                       c->file, version);
    if (bits != 4)
        return err_set(err, ST_UNSUPPORTED, "%s: AWQ with %d bits; supported: 4", c->file,
                       bits);
    q->group = group < 1 ? 0 : group;
    return ST_OK;
}

enum status hq_awq_find(struct hf_quant *q, struct shards *s, const char *base, bool *found,
                        struct source_tensor *out, struct err *err) {
    struct hq h = {q, s, base, err, 0};
    if (!hq_has(&h, "qweight"))
        return ST_OK;
    *found = true;
    struct hq_ints *m = hq_alloc(q, 1, sizeof *m);
    *m = (struct hq_ints){.bits = 4, .unpack = awq_unpack, .zero_of = awq_zero, .scale_n = 1};
    m->code = hq_part(&h, "qweight");
    CHECK(hq_need(&h, "scales", "qweight", &m->scale));
    CHECK(hq_need(&h, "qzeros", "qweight", &m->zeros));
    if (m->scale->n_dims != 2 || m->scale->shape[0] == 0 || m->scale->shape[1] % 8)
        return hq_wrong(&h, m->scale, "groups x outputs, a multiple of 8");
    m->G = m->scale->shape[0];
    m->N = m->scale_g = m->scale->shape[1];
    if (m->code->n_dims != 2 || !hq_is(m->code, DTYPE_I32, m->code->shape[0], m->N / 8))
        return hq_wrong(&h, m->code, "I32 inputs x %" PRIu64, m->N / 8);
    m->K = m->code->shape[0];
    CHECK(hq_check_sizes(&h, m->code, m->N, m->K));
    if (m->K % m->G)
        return hq_wrong(&h, m->scale, "a number of groups that divides %" PRIu64, m->K);
    m->group = m->K / m->G;
    if (!hq_is(m->zeros, DTYPE_I32, m->G, m->N / 8))
        return hq_wrong(&h, m->zeros, "I32 %" PRIu64 " x %" PRIu64, m->G, m->N / 8);
    return hq_ints_tensor(&h, m, "awq", "AWQ 4-bit", out);
}
