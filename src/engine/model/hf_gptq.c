/*
 * hf_gptq.c - GPTQ (Frantar et al. 2022, arXiv:2210.17323) as AutoGPTQ and GPTQModel store it.
 *
 *   qweight I32 [ceil(K * bits / 32), N]  column n is a stream of bits: code k of output n at
 *                                         bit k * bits, lowest first
 *   qzeros  I32 [G, ceil(N * bits / 32)]  row g is such a stream over n
 *   scales  F16 [G, N]                    or BF16, F32
 *   g_idx   I32 [K]                       group of a column; may be missing: k / group_size,
 *                                         unless desc_act says that columns are in any order
 *
 * Widths 2, 4 and 8 fill words evenly; 3 runs across their borders, which reading a stream of
 * bits covers. Other widths are laid out in planes ("gptq_p") and refused.
 *
 * Zero points. checkpoint_format "gptq_v2" stores them as they are. The older "gptq", which is
 * meant when nothing is said, stores them less one. GPTQModel makes one from the other by
 * adding or subtracting 1 in all fields of a word at once, with carries; a zero point of 0 has
 * borrowed from its neighbour in the file then, and only the same addition gives all of them
 * back. So words are added here, too. With 3 bits it works field by field, and so do we.
 */
#include "engine/model/hf_quant_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const int widths[] = {4, 8, 3, 2};

static uint64_t words_for(uint64_t n, int bits) {
    return (n * (uint64_t)bits + 31) / 32;
}

static void gptq_unpack(const struct hq_ints *m, uint64_t n, uint8_t *q) {
    const unsigned char *column = m->code->data + 4 * n;
    uint32_t mask = (1u << m->bits) - 1;
    uint64_t left = 0; /* bits not yet used, the next one lowest */
    int have = 0;
    for (uint64_t k = 0, w = 0; k < m->K; k++) {
        if (have < m->bits) {
            left |= (uint64_t)hq_word(column, w++ * m->N) << have;
            have += 32;
        }
        q[k] = (uint8_t)(left & mask);
        left >>= m->bits;
        have -= m->bits;
    }
}

static int gptq_zero(const struct hq_ints *m, uint64_t n, uint64_t g) {
    uint64_t words = m->zeros->shape[1], bit = n * (uint64_t)m->bits, w = bit / 32;
    const unsigned char *row = m->zeros->data + 4 * g * words;
    uint32_t mask = (1u << m->bits) - 1;
    uint64_t word = hq_word(row, w);
    if (m->zeros_less_one && 32 % m->bits == 0)
        word = (uint32_t)word + 0xffffffffu / mask;
    else if (w + 1 < words)
        word |= (uint64_t)hq_word(row, w + 1) << 32;
    uint32_t z = (uint32_t)(word >> bit % 32) & mask;
    return (int)(m->zeros_less_one && 32 % m->bits != 0 ? (z + 1) & mask : z);
}

enum status hq_gptq_open(struct hf_quant *q, const struct hf_json *c, struct err *err) {
    const char *format = "gptq", *rotation = NULL;
    bool marlin = false, act = false, fixed = false;
    int bits = 4, group = 128;
    CHECK(hf_int(c, "bits|w_bit|wbits", true, 2, 8, &bits, err));
    CHECK(hf_int(c, "group_size|q_group_size", false, -1, INT32_MAX, &group, err));
    CHECK(hf_str(c, "checkpoint_format|format", false, &format, err));
    CHECK(hf_bool(c, "is_marlin_format", &marlin, err));
    CHECK(hf_str(c, "rotation", false, &rotation, err));
    CHECK(hf_bool(c, "desc_act", &act, err));
    CHECK(hf_bool(c, "static_groups", &fixed, err));
    if (marlin || (strcmp(format, "gptq") != 0 && strcmp(format, "gptq_v2") != 0))
        return err_set(err, ST_UNSUPPORTED,
                       "%s: GPTQ in the format \"%s\"; supported: gptq, gptq_v2", c->file,
                       marlin ? "marlin" : format);
    if (rotation)
        return err_set(err, ST_UNSUPPORTED, "%s: GPTQ with rotation \"%s\"; supported: none",
                       c->file, rotation);
    if (bits > 4 && bits != 8)
        return err_set(err, ST_UNSUPPORTED, "%s: GPTQ with %d bits; supported: 2, 3, 4, 8",
                       c->file, bits);
    q->bits[q->n_bits++] = bits;
    q->group = group < 1 ? 0 : group;
    q->zeros_less_one = strcmp(format, "gptq") == 0;
    q->any_order = act && !fixed;
    return ST_OK;
}

/* The width that fits the shapes: the configuration's, or, since it may be another one for
 * some modules ("dynamic"), one of the others. */
static enum status gptq_width(struct hq *h, struct hq_ints *m) {
    if (hq_is(m->zeros, DTYPE_I32, m->G, words_for(m->N, h->q->bits[0]))) {
        m->bits = h->q->bits[0];
        return ST_OK;
    }
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        if (hq_is(m->zeros, DTYPE_I32, m->G, words_for(m->N, widths[i]))) {
            m->bits = widths[i];
            return ST_OK;
        }
    return hq_wrong(h, m->zeros, "I32 %" PRIu64 " x %" PRIu64 " (%d bits)", m->G,
                    words_for(m->N, h->q->bits[0]), h->q->bits[0]);
}

/* K, which is g_idx's length or else all that there is room for, and the groups. */
static enum status gptq_columns(struct hq *h, struct hq_ints *m) {
    char *name = xasprintf("%s.g_idx", h->base);
    const struct ctensor *idx = shards_find(h->s, name);
    free(name);
    m->K = idx && idx->n_dims == 1 ? idx->shape[0] : m->code->shape[0] * 32 / (uint64_t)m->bits;
    CHECK(hq_check_sizes(h, m->code, m->N, m->K));
    if (!hq_is(m->code, DTYPE_I32, words_for(m->K, m->bits), m->N))
        return hq_wrong(h, m->code,
                        "I32 %" PRIu64 " x %" PRIu64 " (%" PRIu64 " codes of %d bits)",
                        words_for(m->K, m->bits), m->N, m->K, m->bits);
    if (!idx && h->q->any_order && m->G > 1)
        return err_set(h->err, ST_FORMAT,
                       "there is a tensor %s.qweight but no %s.g_idx, wanted both, since "
                       "desc_act is true",
                       h->base, h->base);
    CHECK(hq_group_index(h, m, "g_idx"));
    if (m->g_idx)
        return ST_OK;
    m->group = h->q->group ? (uint64_t)h->q->group : m->K;
    if ((m->K + m->group - 1) / m->group != m->G && m->G && m->K % m->G == 0)
        m->group = m->K / m->G;
    if ((m->K + m->group - 1) / m->group != m->G)
        return hq_wrong(h, m->scale,
                        "%" PRIu64 " rows, one for %" PRIu64 " of %" PRIu64 " columns",
                        (m->K + m->group - 1) / m->group, m->group, m->K);
    return ST_OK;
}

enum status hq_gptq_find(struct hf_quant *q, struct shards *s, const char *base, bool *found,
                         struct source_tensor *out, struct err *err) {
    static const char *const types[9] = {
        [2] = "GPTQ 2-bit", [3] = "GPTQ 3-bit", [4] = "GPTQ 4-bit", [8] = "GPTQ 8-bit"};
    struct hq h = {q, s, base, err, 0};
    if (!hq_has(&h, "qweight"))
        return ST_OK;
    *found = true;
    struct hq_ints *m = hq_alloc(q, 1, sizeof *m);
    *m = (struct hq_ints){.unpack = gptq_unpack,
                          .zero_of = gptq_zero,
                          .zeros_less_one = q->zeros_less_one,
                          .scale_n = 1};
    m->code = hq_part(&h, "qweight");
    CHECK(hq_need(&h, "scales", "qweight", &m->scale));
    CHECK(hq_need(&h, "qzeros", "qweight", &m->zeros));
    if (m->code->dtype != DTYPE_I32 || m->code->n_dims != 2)
        return hq_wrong(&h, m->code, "I32 and two dimensions");
    m->N = m->code->shape[1];
    if (m->scale->n_dims != 2 || m->scale->shape[1] != m->N || m->scale->shape[0] == 0)
        return hq_wrong(&h, m->scale, "groups x %" PRIu64, m->N);
    m->G = m->scale->shape[0];
    m->scale_g = m->N;
    CHECK(gptq_width(&h, m));
    CHECK(gptq_columns(&h, m));
    return hq_ints_tensor(&h, m, "gptq", types[m->bits], out);
}
