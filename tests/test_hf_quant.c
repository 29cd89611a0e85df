/*
 * test_hf_quant.c - quantised Hugging Face checkpoints: the values that their libraries make of
 * them, and the codes that are kept.
 *
 * tests/golden/hf_quant/CASE is a checkpoint folder, CASE.safetensors what the library says its
 * matrices are in f32 (tests/oracle/hf_quant.py). Values are compared bit for bit. Kept codes
 * are unpacked by weight.h's formula and compared as numbers, since a minimum turns -0 into 0.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* after the headers that it needs */
#include <cmocka.h>

#include "hf_quant_case.h"

/* -- values and codes ----------------------------------------------------------------- */

static void rows_are(const struct source_tensor *t, const float *golden) {
    float *out = malloc(SOURCE_ROWS * t->K * sizeof *out);
    uint64_t row[SOURCE_ROWS], N = t->E * t->N;
    for (uint64_t first = 0; first < N; first += SOURCE_ROWS) {
        int n = N - first < SOURCE_ROWS ? (int)(N - first) : SOURCE_ROWS;
        for (int i = 0; i < n; i++)
            row[i] = N - 1 - (first + (uint64_t)i); /* rows in any order */
        t->format->rows(t, row, n, out);
        for (int i = 0; i < n; i++)
            for (uint64_t k = 0; k < t->K; k++) {
                float want = golden[row[i] * t->K + k], got = out[(uint64_t)i * t->K + k];
                if (memcmp(&want, &got, sizeof want) != 0)
                    fail_msg("row %d column %d: %a, wanted %a", (int)row[i], (int)k,
                             (double)got, (double)want);
            }
    }
    free(out);
}

/* The largest difference between what is kept and the values, relative to the value. */
static double kept_error(const struct source_tensor *t, const float *golden) {
    uint64_t S = (uint64_t)t->group, G = (t->K + S - 1) / S, N = t->E * t->N;
    uint8_t *code = malloc(SOURCE_ROWS * t->K);
    float *scale = malloc(2 * SOURCE_ROWS * G * sizeof *scale), *min = scale + SOURCE_ROWS * G;
    double worst = 0;
    for (uint64_t n = 0; n < N; n += 2) {
        uint64_t row[2] = {n, n + 1 < N ? n + 1 : 0};
        t->format->codes(t, row, 2, code, scale, t->keep_min ? min : NULL);
        for (uint64_t i = 0; i < 2; i++)
            for (uint64_t k = 0; k < t->K; k++) {
                uint8_t q = code[i * t->K + k];
                assert_true(t->keep != WEIGHT_Q4 || q < 16);
                float level = t->keep == WEIGHT_Q4 ? t->table[q] : (float)(int8_t)q;
                float w = level * scale[i * G + k / S];
                if (t->keep_min)
                    w = w + min[i * G + k / S];
                float want = golden[row[i] * t->K + (t->perm ? (uint64_t)t->perm[k] : k)];
                double d = want == w ? 0 : ((double)w - (double)want) / (double)want;
                worst = d > worst ? d : -d > worst ? -d : worst;
            }
    }
    free(scale);
    free(code);
    return worst;
}

struct expected {
    const char *base, *word;
    enum weight_type keep;
    int group;
    bool min, perm, exact;
};

static void check_case(const char *name, const struct expected *want) {
    struct checkpoint c;
    struct container *golden;
    OK(container_open(golden_path(name, ".safetensors"), &golden, &e));
    open_checkpoint(&c, golden_path(name, ""));
    size_t n = 0;
    for (; want[n].base; n++) {
        const struct expected *x = &want[n];
        const struct ctensor *g = container_find(golden, x->base);
        struct source_tensor t = {0};
        bool found;
        print_message("  %s.%s\n", name, x->base);
        assert_non_null(g);
        OK(hf_quant_find(c.quant, c.shards, x->base, &found, &t, &e));
        assert_true(found);
        assert_string_equal(t.word, x->word);
        assert_true(t.quantised && t.type && t.n_bytes > t.E * t.N * t.K / 4);
        assert_int_equal(t.E * t.N, g->shape[0]);
        assert_int_equal(t.K, g->shape[1]);
        rows_are(&t, (const float *)(const void *)g->data);
        assert_int_equal(t.keep, x->keep);
        assert_int_equal(t.keep_min, x->min);
        assert_int_equal(t.perm != NULL, x->perm);
        assert_int_equal(t.inexact == NULL, x->exact);
        assert_int_equal(t.format->codes != NULL, x->group != 0);
        if (!x->group)
            continue;
        assert_int_equal(t.group, x->group);
        double worst = kept_error(&t, (const float *)(const void *)g->data);
        /* inexact: two roundings more than the value has, of 2^-24 each; where a minimum is
         * taken off, relative to the minimum: up to 15 times the value */
        if (worst > (x->exact ? 0 : x->min ? 0x1p-19 : 0x1p-23))
            fail_msg("%s.%s: kept with an error of %g", name, x->base, worst);
    }
    assert_int_equal(n, container_n_tensors(golden));
    for (size_t i = 0; i < shards_n(c.shards); i++) {
        bool used, plain;
        const struct ctensor *t = shards_tensor(c.shards, i, &used);
        plain = strncmp(t->name, "plain.", 6) == 0;
        if (used == plain)
            fail_msg("%s is %s", t->name, used ? "used" : "not used");
    }
    close_checkpoint(&c);
    container_close(golden);
}

static void bitsandbytes_4_bit_is_the_librarys(void **state) {
    (void)state;
    static const struct expected want[] = {
        {"nf4", "bnb-nf4", WEIGHT_Q4, 64, false, false, true},
        {"nf4_single", "bnb-nf4", WEIGHT_Q4, 64, false, false, true},
        {"nf4_nested", "bnb-nf4", WEIGHT_Q4, 32, false, false, true},
        {"nf4_b4096", "bnb-nf4", WEIGHT_Q4, 64, false, false, true},
        {"nf4_b128", "bnb-nf4", WEIGHT_Q4, 64, false, false, true},
        {"nf4_k96", "bnb-nf4", WEIGHT_Q4, 32, false, false, true},
        {"nf4_k80", "bnb-nf4", WEIGHT_Q4, 16, false, false, true},
        {"nf4_k72", "bnb-nf4", WEIGHT_F16, 0, false, false, false},
        {"nf4_k75", "bnb-nf4", WEIGHT_F32, 0, false, false, false},
        {"nf4_bf16", "bnb-nf4", WEIGHT_Q4, 64, false, false, true},
        {"nf4_f32", "bnb-nf4", WEIGHT_Q4, 64, false, false, true},
        {"fp4", "bnb-fp4", WEIGHT_Q4, 64, false, false, true},
        {"fp4_single", "bnb-fp4", WEIGHT_Q4, 64, false, false, true},
        {NULL}};
    check_case("bnb4", want);
}

static void bitsandbytes_8_bit_is_the_librarys(void **state) {
    (void)state;
    static const struct expected want[] = {
        {"a", "bnb-int8", WEIGHT_I8, 64, false, false, false},
        {"b", "bnb-int8", WEIGHT_I8, 64, false, false, false},
        {NULL}};
    check_case("bnb8", want);
}

static void gptq_with_either_zero_point_is_the_librarys(void **state) {
    (void)state;
    static const struct expected want[] = {
        {"sym", "gptq-int4-g32", WEIGHT_Q4, 32, false, false, true},
        {"asym", "gptq-int4-g32", WEIGHT_Q4, 32, true, false, true},
        {"act", "gptq-int4-g32", WEIGHT_Q4, 32, true, true, true},
        {"uneven", "gptq-int4-g30", WEIGHT_F16, 0, false, false, false},
        {"g128", "gptq-int4-g128", WEIGHT_Q4, 64, false, false, true},
        {"g64", "gptq-int4-g64", WEIGHT_Q4, 64, true, false, true},
        {"g48", "gptq-int4-g48", WEIGHT_Q4, 16, true, false, true},
        {"channel", "gptq-int4", WEIGHT_Q4, 64, true, false, true},
        {"noidx", "gptq-int4-g32", WEIGHT_Q4, 32, true, false, true},
        {"bf16", "gptq-int4-g32", WEIGHT_Q4, 32, true, false, true},
        {"f32", "gptq-int4-g32", WEIGHT_Q4, 32, false, false, true},
        {"f32_asym", "gptq-int4-g32", WEIGHT_Q4, 32, true, false, false},
        {NULL}};
    static const struct expected v2[] = {
        {"sym", "gptq-int4-g32", WEIGHT_Q4, 32, false, false, true},
        {"asym", "gptq-int4-g32", WEIGHT_Q4, 32, true, false, true},
        {"act", "gptq-int4-g32", WEIGHT_Q4, 32, true, true, true},
        {NULL}};
    check_case("gptq_v1", want);
    check_case("gptq_v2", v2);
}

static void gptq_of_other_widths_is_the_librarys(void **state) {
    (void)state;
    static const struct expected want[] = {
        {"sym8", "gptq-int8-g32", WEIGHT_I8, 32, false, false, true},
        {"asym8", "gptq-int8-g32", WEIGHT_I8, 32, true, false, true},
        {"act8", "gptq-int8-g32", WEIGHT_I8, 32, true, true, true},
        {"asym3", "gptq-int3-g32", WEIGHT_Q4, 32, true, false, true},
        {"sym3", "gptq-int3-g32", WEIGHT_Q4, 32, false, false, true},
        {"asym2", "gptq-int2-g32", WEIGHT_Q4, 32, true, false, true},
        {NULL}};
    check_case("gptq_widths_v1", want);
    check_case("gptq_widths_v2", want);
}

static void awq_is_the_librarys(void **state) {
    (void)state;
    static const struct expected want[] = {
        {"g64", "awq-int4-g64", WEIGHT_Q4, 64, true, false, true},
        {"g128", "awq-int4-g128", WEIGHT_Q4, 64, true, false, true},
        {"channel", "awq-int4", WEIGHT_Q4, 64, true, false, true},
        {"g32", "awq-int4-g32", WEIGHT_Q4, 32, true, false, true},
        {NULL}};
    check_case("awq", want);
}

static void compressed_tensors_are_the_librarys(void **state) {
    (void)state;
    static const struct expected packed[] = {
        {"g64", "ct-int4-g64", WEIGHT_Q4, 64, false, false, true},
        {"g32_asym", "ct-int4-g32", WEIGHT_Q4, 32, true, false, true},
        {"g128_asym", "ct-int4", WEIGHT_Q4, 64, true, false, true},
        {"channel", "ct-int4", WEIGHT_Q4, 64, false, false, true},
        {"channel_asym", "ct-int4", WEIGHT_Q4, 64, true, false, true},
        {"tensor", "ct-int4", WEIGHT_Q4, 64, false, false, true},
        {"g40", "ct-int4-g40", WEIGHT_F16, 0, false, false, false},
        {"int8", "ct-int8", WEIGHT_I8, 64, false, false, true},
        {"int8_asym", "ct-int8-g32", WEIGHT_I8, 32, true, false, true},
        {"int3", "ct-int3", WEIGHT_Q4, 64, true, false, true},
        {"int6", "ct-int6-g32", WEIGHT_I8, 32, false, false, true},
        {"f32", "ct-int4-g32", WEIGHT_Q4, 32, false, false, true},
        {"actorder", "ct-int4-g32", WEIGHT_Q4, 32, true, true, true},
        {NULL}};
    static const struct expected ints[] = {
        {"channel", "ct-int8", WEIGHT_I8, 64, false, false, true},
        {"tensor", "ct-int8", WEIGHT_I8, 64, false, false, true},
        {"asym", "ct-int8", WEIGHT_I8, 64, true, false, true},
        {"tensor_asym", "ct-int8", WEIGHT_I8, 64, true, false, true},
        {NULL}};
    static const struct expected floats[] = {
        {"tensor", "ct-fp8", WEIGHT_BF16, 0, false, false, false},
        {"channel", "ct-fp8", WEIGHT_BF16, 0, false, false, false},
        {"block", "ct-fp8-32x32", WEIGHT_BF16, 0, false, false, false},
        {"f32", "ct-fp8", WEIGHT_BF16, 0, false, false, false},
        {NULL}};
    check_case("ct_packed", packed);
    check_case("ct_int", ints);
    check_case("ct_float", floats);
}

static void floats_of_8_bits_in_blocks_are_the_librarys(void **state) {
    (void)state;
    static const struct expected want[] = {
        {"even", "fp8-32x32", WEIGHT_BF16, 0, false, false, false},
        {"bf16", "fp8-32x32", WEIGHT_BF16, 0, false, false, false},
        {"cut", "fp8-32x32", WEIGHT_BF16, 0, false, false, false},
        {NULL}};
    check_case("fp8", want);
}

static void mxfp4_experts_are_transformers(void **state) {
    (void)state;
    static const struct expected want[] = {
        {"experts", "mxfp4", WEIGHT_Q4, 32, false, false, true},
        {"wide", "mxfp4", WEIGHT_Q4, 32, false, false, true},
        {NULL}};
    check_case("mxfp4", want);
}

static void a_matrix_that_was_left_alone_is_not_found(void **state) {
    (void)state;
    static const char *const cases[] = {"bnb4", "gptq_v1", "ct_packed"};
    for (size_t i = 0; i < 3; i++) {
        struct checkpoint c;
        struct source_tensor t;
        bool found = true;
        open_checkpoint(&c, golden_path(cases[i], ""));
        OK(hf_quant_find(c.quant, c.shards, "plain", &found, &t, &e));
        assert_false(found);
        OK(hf_quant_find(c.quant, c.shards, "nothing", &found, &t, &e));
        assert_false(found);
        close_checkpoint(&c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bitsandbytes_4_bit_is_the_librarys),
        cmocka_unit_test(bitsandbytes_8_bit_is_the_librarys),
        cmocka_unit_test(gptq_with_either_zero_point_is_the_librarys),
        cmocka_unit_test(gptq_of_other_widths_is_the_librarys),
        cmocka_unit_test(awq_is_the_librarys),
        cmocka_unit_test(compressed_tensors_are_the_librarys),
        cmocka_unit_test(floats_of_8_bits_in_blocks_are_the_librarys),
        cmocka_unit_test(mxfp4_experts_are_transformers),
        cmocka_unit_test(a_matrix_that_was_left_alone_is_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
