/*
 * hf_ints.c - matrices of integers with scales and zero points: what GPTQ, AWQ and
 * compressed-tensors have in common. See hf_quant_impl.h.
 *
 * The libraries compute w = (q - z) * s in the type of s: q - z is at most 255 and exact in all
 * of F16, BF16 and F32, so there is one rounding, that of the product. In f32 a product of a
 * number of 8 bits and an F16 (11 bits) or BF16 (8 bits) is exact, and rounding it to the type
 * of s gives the library's own result bit for bit (tests/oracle/hf_quant.py checks that).
 *
 * Kept, a weight is table[code] * s + min. With one zero point in the whole matrix, as all
 * symmetric quantisation has, the table is code - z and there is no minimum: the same product.
 * Else the table is the code itself and min = -z * s. Then the two products must be exact for
 * their sum to be rounded only once, from the same number as above: code and z have up to 4
 * bits for Q4, so a scale of at most 20 significant bits does; for I8 the code less 128 has 7
 * bits and a sign (128 is a power of two), so 17. F16 and BF16 always do; an F32 scale that
 * doesn't is said to be inexact. That scales are below 2^100 keeps all of this finite.
 *
 * desc_act: columns belong to groups in any order. Sorted by group they are what our layout
 * wants, and the input is sorted the same way when the model runs (perm). That fits when every
 * group begins at a multiple of 16 in that order.
 */
#include "engine/model/hf_quant_impl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* table of a matrix with zero point z, 0..31: steps + 31 - z */
static const float steps[] = {-31, -30, -29, -28, -27, -26, -25, -24, -23, -22, -21, -20,
                              -19, -18, -17, -16, -15, -14, -13, -12, -11, -10, -9,  -8,
                              -7,  -6,  -5,  -4,  -3,  -2,  -1,  0,   1,   2,   3,   4,
                              5,   6,   7,   8,   9,   10,  11,  12,  13,  14,  15};
enum { STEPS_ZERO = 31 };

static uint64_t group_of(const struct hq_ints *m, uint64_t k) {
    return m->g_idx ? (uint64_t)m->g_idx[k] : k / m->group;
}

static int zero_at(const struct hq_ints *m, uint64_t n, uint64_t g) {
    return m->one_zero ? m->zero : m->zero_of(m, n, g);
}

static float scale_at(const struct hq_ints *m, uint64_t n, uint64_t g) {
    return hq_value(m->scale, n * m->scale_n + g * m->scale_g);
}

/* -- values --------------------------------------------------------------------------- */

static void ints_rows(const struct source_tensor *t, const uint64_t *row, int n, float *out) {
    const struct hq_ints *m = t->part[0];
    uint8_t *q = xmalloc(m->K);
    float *scale = xreallocarray(NULL, m->G, 2 * sizeof *scale), *zero = scale + m->G;
    for (int i = 0; i < n; i++, out += m->K) {
        m->unpack(m, row[i], q);
        for (uint64_t g = 0; g < m->G; g++) {
            scale[g] = scale_at(m, row[i], g);
            zero[g] = (float)zero_at(m, row[i], g);
        }
        for (uint64_t k = 0; k < m->K; k++) {
            uint64_t g = group_of(m, k);
            out[k] = ((float)q[k] - zero[g]) * scale[g];
        }
    }
    free(scale);
    free(q);
}

static void ints_codes(const struct source_tensor *t, const uint64_t *row, int n, uint8_t *code,
                       float *scale, float *min) {
    const struct hq_ints *m = t->part[0];
    uint64_t S = (uint64_t)t->group, groups = (m->K + S - 1) / S;
    uint8_t *q = xmalloc(m->K);
    for (int i = 0; i < n; i++, code += m->K, scale += groups) {
        m->unpack(m, row[i], q);
        for (uint64_t k = 0; k < m->K; k++)
            code[k] = (uint8_t)(q[m->perm ? (uint64_t)m->perm[k] : k] - m->subtracted);
        for (uint64_t j = 0; j < groups; j++) {
            uint64_t g = group_of(m, m->perm ? (uint64_t)m->perm[j * S] : j * S);
            scale[j] = scale_at(m, row[i], g);
            if (min)
                min[j] = (float)(m->subtracted - zero_at(m, row[i], g)) * scale[j];
        }
        if (min)
            min += groups;
    }
    free(q);
}

/* -- groups --------------------------------------------------------------------------- */

/* Columns sorted by group; columns of one group stay in order. */
static int32_t *sort_columns(struct hq *h, const struct hq_ints *m) {
    int32_t *perm = hq_alloc(h->q, m->K, sizeof *perm);
    uint64_t *next = xcalloc(m->G + 1, sizeof *next);
    for (uint64_t k = 0; k < m->K; k++)
        next[m->g_idx[k] + 1]++;
    for (uint64_t g = 0; g < m->G; g++)
        next[g + 1] += next[g];
    for (uint64_t k = 0; k < m->K; k++)
        perm[next[m->g_idx[k]]++] = (int32_t)k;
    free(next);
    return perm;
}

static int64_t index_at(const struct ctensor *t, uint64_t i) {
    int64_t wide;
    if (t->dtype == DTYPE_I32)
        return (int32_t)hq_word(t->data, i);
    memcpy(&wide, t->data + 8 * i, sizeof wide);
    return wide;
}

enum status hq_group_index(struct hq *h, struct hq_ints *m, const char *suffix) {
    const struct ctensor *t = hq_part(h, suffix);
    bool none = true, rising = true;
    if (!t)
        return ST_OK;
    if ((t->dtype != DTYPE_I32 && t->dtype != DTYPE_I64) || t->n_dims != 1 ||
        t->shape[0] != m->K)
        return hq_wrong(h, t, "I32 %" PRIu64, m->K);
    for (uint64_t k = 0; k < m->K && none; k++)
        none = index_at(t, k) == -1;
    if (none)
        return ST_OK;
    int32_t *g_idx = hq_alloc(h->q, m->K, sizeof *g_idx);
    for (uint64_t k = 0; k < m->K; k++) {
        int64_t g = index_at(t, k);
        if (g < 0 || (uint64_t)g >= m->G)
            return err_set(h->err, ST_FORMAT,
                           "%s: tensor %s: column %" PRIu64 " is in group %" PRId64
                           ", wanted 0 to %" PRIu64,
                           shards_file(h->s, t), t->name, k, g, m->G - 1);
        g_idx[k] = (int32_t)g;
        rising &= k == 0 || g >= g_idx[k - 1];
    }
    m->g_idx = g_idx;
    m->perm = rising ? NULL : sort_columns(h, m);
    return ST_OK;
}

/* The largest of 64, 32 and 16 at whose multiples alone the group changes; 0: none of them. */
static int common_group(const struct hq_ints *m) {
    uint64_t borders = 64;
    if (!m->g_idx && m->group >= m->K)
        return 64;
    for (uint64_t k = 1; k < m->K; k++) {
        uint64_t here = m->perm ? (uint64_t)m->perm[k] : k,
                 before = m->perm ? (uint64_t)m->perm[k - 1] : k - 1;
        if (group_of(m, here) != group_of(m, before))
            borders |= k;
    }
    uint64_t lowest = borders & -borders;
    return lowest >= 16 ? (int)lowest : 0;
}

static void settle_zeros(struct hq_ints *m) {
    m->one_zero = true;
    if (!m->zeros)
        return;
    m->zero = m->zero_of(m, 0, 0);
    for (uint64_t n = 0; n < m->N && m->one_zero; n++)
        for (uint64_t g = 0; g < m->G && m->one_zero; g++)
            m->one_zero = m->zero_of(m, n, g) == m->zero;
}

/* How codes are kept; *scale_bits is what the scales need at most for it to be exact. */
static void settle_layout(struct hq_ints *m, struct source_tensor *t, int *scale_bits) {
    int most = (1 << m->bits) - 1;
    t->keep = m->bits <= 4 ? WEIGHT_Q4 : WEIGHT_I8;
    t->keep_min = !m->one_zero;
    *scale_bits = 24;
    if (t->keep == WEIGHT_Q4) {
        t->table = steps + STEPS_ZERO - (m->one_zero ? m->zero : 0);
        *scale_bits = m->one_zero ? 24 : 20;
        return;
    }
    m->subtracted = m->zero;
    if (!m->one_zero || m->zero > 128 || most - m->zero > 127) {
        m->subtracted = 128;
        t->keep_min = true;
        *scale_bits = 17;
    }
}

/* How many inputs share a scale: the columns of the first group, which is a whole one. Of one
 * group for all only the configuration knows that it would have been larger. 0: a whole row. */
static uint64_t shown_group(const struct hq *h, const struct hq_ints *m) {
    uint64_t named = (uint64_t)h->q->group, n = 0;
    if (m->G == 1)
        return named >= m->K ? named : 0;
    for (uint64_t k = 0; k < m->K; k++)
        n += group_of(m, k) == 0;
    return n;
}

static const char *word_of(const struct hq *h, const struct hq_ints *m, const char *method) {
    uint64_t group = shown_group(h, m);
    return group ? hq_word_for(h->q, "%s-int%d-g%" PRIu64, method, m->bits, group)
                 : hq_word_for(h->q, "%s-int%d", method, m->bits);
}

enum status hq_ints_tensor(struct hq *h, struct hq_ints *m, const char *method,
                           const char *type, struct source_tensor *out) {
    static const struct tensor_format kept = {ints_rows, ints_codes},
                                      floats = {ints_rows, NULL};
    int bits, bits_allowed;
    CHECK(hq_check_scales(h, m->scale, &bits));
    settle_zeros(m);
    *out = (struct source_tensor){.type = type,
                                  .word = word_of(h, m, method),
                                  .format = &kept,
                                  .E = 1,
                                  .N = m->N,
                                  .K = m->K,
                                  .n_bytes = h->n_bytes,
                                  .quantised = true,
                                  .perm = m->perm,
                                  .data = m->code->data,
                                  .dtype = m->code->dtype,
                                  .part = {m}};
    settle_layout(m, out, &bits_allowed);
    out->group = common_group(m);
    if (bits > bits_allowed)
        out->inexact = "with scales of 32 bits and several zero points a value may differ in "
                       "the last bit of a float";
    if (out->group == 0) {
        out->format = &floats;
        out->keep = hq_float_layout(m->scale->dtype);
        out->keep_min = false;
        out->table = NULL;
        out->perm = NULL;
        out->inexact = "its groups are no multiples of 16, so it is stored as floats";
    }
    return ST_OK;
}
