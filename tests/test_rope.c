/*
 * test_rope.c - RoPE frequencies against those of PyTorch transformers (tests/oracle/rope.py),
 * and the tables of a step.
 *
 * Powers are rounded correctly nearly always on both sides, so that the frequencies are mostly
 * the same bits; where a pair differs it is by a step or two of the result (2^-23 of it each),
 * which the blends of YaRN and Llama 3 don't enlarge.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/run/rope.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DIM = 128 };

static float short_factors[MAX_DIM / 2], long_factors[MAX_DIM / 2];

/* What the oracle gave to LongRoPE. */
static void make_factors(void) {
    for (int i = 0; i < MAX_DIM / 2; i++) {
        short_factors[i] = 1 + 0.0625f * (float)i;
        long_factors[i] = 1.5f + 2.25f * (float)i;
    }
}

static void defaults(struct hparams *hp) {
    memset(hp, 0, sizeof *hp);
    hp->rope_scale = 1;
    hp->rope_beta_fast = 32;
    hp->rope_beta_slow = 1;
    hp->rope_truncate = 1;
    hp->rope_low_freq = 1;
    hp->rope_high_freq = 4;
}

static void set_field(struct hparams *hp, const char *name, double v) {
#define I(f, d)                                                                                \
    if (strcmp(name, #f) == 0) {                                                               \
        hp->f = (int)v;                                                                        \
        return;                                                                                \
    }
#define F(f, d)                                                                                \
    if (strcmp(name, #f) == 0) {                                                               \
        hp->f = (float)v;                                                                      \
        return;                                                                                \
    }
    HPARAM_LIST(I, F)
#undef I
#undef F
    fail_msg("no field %s", name);
}

/* One line of the golden file; returns how many frequencies have the same bits. */
static int check_line(char *line, int *n_freq) {
    static struct model m;
    struct rope r;
    char *rest = line, *fields = strsep(&rest, ";");
    defaults(&m.hp);
    for (char *f; (f = strsep(&fields, " "));)
        if (*f) {
            char *name = strsep(&f, "=");
            set_field(&m.hp, name, strtod(f, NULL));
        }
    bool factors = m.hp.rope_type == ROPE_LONG;
    m.rope_freqs = factors ? short_factors : NULL;
    m.rope_long = factors ? long_factors : NULL;
    int n_seq = (int)strtol(rest, &rest, 10), n_same = 0;
    rest = strchr(rest, ';') + 1;
    float factor = (float)strtod(rest, &rest);
    rest = strchr(rest, ';') + 1;
    rope_init(&r, &m);
    rope_set_length(&r, n_seq);
    assert_true(fabsf(r.factor / factor - 1) <= 0x1p-23f);
    for (int i = 0; i < m.hp.rope_dim / 2; i++) {
        float want = (float)strtod(rest, &rest);
        n_same += r.inv_freq[i] == want;
        if (!(fabsf(r.inv_freq[i] / want - 1) <= 2 * 0x1p-23f))
            fail_msg("type %d dim %d n_seq %d: inv_freq[%d] = %a, want %a", m.hp.rope_type,
                     m.hp.rope_dim, n_seq, i, (double)r.inv_freq[i], (double)want);
    }
    *n_freq += m.hp.rope_dim / 2;
    rope_release(&r);
    return n_same;
}

static void frequencies_equal_those_of_transformers(void **state) {
    (void)state;
    static char line[65536];
    const char *dir = getenv("srcdir");
    char path[4096];
    int n_line = 0, n_freq = 0, n_same = 0;
    snprintf(path, sizeof path, "%s/tests/golden/rope/rope.txt", dir ? dir : ".");
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (line[0] != '#') {
            n_same += check_line(line, &n_freq);
            n_line++;
        }
    fclose(f);
    print_message("%d of %d frequencies have the same bits\n", n_same, n_freq);
    assert_true(n_line >= 60 && n_same > n_freq * 9 / 10);
}

/* A short sequence after a long one has the short one's frequencies again. */
static void length_is_the_sequences_own(void **state) {
    (void)state;
    static struct model m;
    struct rope a, b;
    for (int type = ROPE_DYNAMIC; type <= ROPE_LONG; type += ROPE_LONG - ROPE_DYNAMIC) {
        defaults(&m.hp);
        m.hp.rope_dim = 64;
        m.hp.rope_base = 10000;
        m.hp.rope_scale = 4;
        m.hp.ctx_train = 1000;
        m.hp.rope_type = type;
        m.rope_freqs = type == ROPE_LONG ? short_factors : NULL;
        m.rope_long = type == ROPE_LONG ? long_factors : NULL;
        rope_init(&a, &m);
        rope_init(&b, &m);
        rope_set_length(&b, 1001);
        assert_memory_not_equal(a.inv_freq, b.inv_freq, 32 * sizeof *a.inv_freq);
        rope_set_length(&b, 1000);
        assert_memory_equal(a.inv_freq, b.inv_freq, 32 * sizeof *a.inv_freq);
        rope_release(&a);
        rope_release(&b);
    }
}

/* What turns a key from one position to another, applied to the angle of the first, is the
 * second's to the precision of floats, although the angles themselves are rounded (to 2^-14 at
 * 1000): they are the rounded ones that are met. */
static void a_move_leads_from_angle_to_angle(void **state) {
    (void)state;
    static const int from[] = {1000, 1015, 32, 16}, to[] = {40, 55, 16, 0};
    static struct model m;
    struct rope r;
    float c[8], s[8], c0[8], s0[8], c1[8], s1[8];
    defaults(&m.hp);
    m.hp.rope_dim = 8;
    m.hp.rope_base = 10000;
    m.hp.rope_base_local = 100;
    m.hp.rope_attn_factor = 0.5f;
    rope_init(&r, &m);
    assert_true(rope_can_move(&r));
    for (int i = 0; i < 8; i++) {
        enum rope_table t = i % 2 ? ROPE_LOCAL : ROPE_GLOBAL;
        rope_fill(&r, t, from[i / 2], c0, s0);
        rope_fill(&r, t, to[i / 2], c1, s1);
        rope_move(&r, t, from[i / 2], to[i / 2], c, s, 1);
        for (int d = 1; d < 8; d += 2) {
            assert_true(c[d] == c[d - 1] && s[d] == -s[d - 1]);
            assert_true(fabsf(c0[d] * c[d] - s0[d] * s[d] - c1[d]) < 0x1p-21f);
            assert_true(fabsf(s0[d] * c[d] + c0[d] * s[d] - s1[d]) < 0x1p-21f);
        }
    }
    m.hp.rope_type = ROPE_DYNAMIC;
    assert_false(rope_can_move(&r));
    rope_release(&r);
}

static void tables_hold_pairs_and_local_layers_have_no_scaling(void **state) {
    (void)state;
    static struct model m;
    struct rope r;
    float c[8], s[8];
    defaults(&m.hp);
    m.hp.rope_dim = 8;
    m.hp.rope_base = 1000000;
    m.hp.rope_base_local = 10000;
    m.hp.rope_type = ROPE_LINEAR;
    m.hp.rope_scale = 8;
    m.hp.rope_attn_factor = 0.5f;
    rope_init(&r, &m);
    for (int t = ROPE_GLOBAL; t <= ROPE_LOCAL; t++) {
        rope_fill(&r, (enum rope_table)t, 37, c, s);
        for (int i = 0; i < 4; i++) {
            float f = t == ROPE_LOCAL ? 1 / powf(10000, (float)i / 4)
                                      : 1 / powf(1000000, (float)i / 4) / 8;
            float k = t == ROPE_LOCAL ? 1 : 0.5f, a = 37 * f;
            assert_true(c[2 * i] == cosf(a) * k && c[2 * i + 1] == c[2 * i]);
            assert_true(s[2 * i + 1] == sinf(a) * k && s[2 * i] == -s[2 * i + 1]);
        }
    }
    rope_release(&r);
}

int main(void) {
    make_factors();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frequencies_equal_those_of_transformers),
        cmocka_unit_test(length_is_the_sequences_own),
        cmocka_unit_test(a_move_leads_from_angle_to_angle),
        cmocka_unit_test(tables_hold_pairs_and_local_layers_have_no_scaling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
