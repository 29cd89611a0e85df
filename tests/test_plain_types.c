/*
 * test_plain_types.c - arrays of numbers become the f32 that PyTorch makes of them
 * (tests/oracle/plain.py), and say truly which of our layouts holds them.
 */
#include "engine/model/container.h"
#include "engine/model/source.h"
#include "engine/quant/ggml_types.h"
#include "engine/quant/quant.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the headers that it needs */
#include "ok.h"
#include <cmocka.h>

static struct container *golden;

static int open_golden(void **state) {
    (void)state;
    const char *dir = getenv("srcdir");
    char path[512];
    snprintf(path, sizeof path, "%s/tests/golden/plain/plain.safetensors", dir ? dir : ".");
    return container_open(path, &golden, &e) == ST_OK ? 0 : -1;
}

static int close_golden(void **state) {
    (void)state;
    container_close(golden);
    return 0;
}

static struct source_tensor vector(const struct ctensor *c) {
    return (struct source_tensor){.E = 1,
                                  .N = 1,
                                  .K = c->n_elem,
                                  .data = c->data,
                                  .dtype = c->dtype,
                                  .n_bytes = c->n_bytes};
}

static const char *const types[] = {"F64",     "F32",     "F16", "BF16",
                                    "F8_E4M3", "F8_E5M2", "I8",  "U8"};
enum { N_TYPES = sizeof types / sizeof *types };

static void values_are_those_of_pytorch(void **state) {
    (void)state;
    for (int i = 0; i < N_TYPES; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s.float", types[i]);
        const struct ctensor *c = container_find(golden, types[i]);
        const struct ctensor *want = container_find(golden, name);
        assert_non_null(c);
        assert_non_null(want);
        struct source_tensor t = vector(c);
        assert_true(tensor_format_plain(&t));
        assert_string_equal(t.type, types[i]);
        assert_false(t.quantised);
        float *got = malloc((size_t)t.K * sizeof *got), wanted;
        uint64_t row = 0;
        t.format->rows(&t, &row, 1, got);
        for (size_t k = 0; k < t.K; k++) {
            memcpy(&wanted, want->data + 4 * k, 4);
            bool equal = isnan(wanted) ? isnan(got[k]) : memcmp(&wanted, &got[k], 4) == 0;
            if (!equal)
                fail_msg("%s: number %zu is %.9g, wanted %.9g", types[i], k, (double)got[k],
                         (double)wanted);
        }
        free(got);
    }
}

/* Stored in the layout that `keep` names and read again, a value is the same, unless the
 * format says why it isn't. */
static void keep_holds_every_value(void **state) {
    (void)state;
    for (int i = 0; i < N_TYPES; i++) {
        const struct ctensor *c = container_find(golden, types[i]);
        struct source_tensor t = vector(c);
        assert_true(tensor_format_plain(&t));
        assert_int_equal(t.inexact != NULL, strcmp(types[i], "F64") == 0);
        float *v = malloc((size_t)t.K * sizeof *v);
        uint64_t row = 0;
        t.format->rows(&t, &row, 1, v);
        for (size_t k = 0; k < t.K; k++) {
            float back = v[k];
            if (t.keep == WEIGHT_BF16)
                back = bf16_to_f32(bf16_from_f32(v[k]));
            else if (t.keep == WEIGHT_F16)
                back = f16_to_f32(((const uint16_t *)(const void *)c->data)[k]);
            else
                assert_int_equal(t.keep, WEIGHT_F32);
            if (!isnan(v[k]) && memcmp(&back, &v[k], 4) != 0)
                fail_msg("%s: %.9g becomes %.9g", types[i], (double)v[k], (double)back);
        }
        free(v);
    }
}

/* Three rows of five bytes at an odd address, asked for out of order. */
static void rows_are_found_at_any_address(void **state) {
    (void)state;
    unsigned char bytes[1 + 3 * 5 * 2];
    for (size_t i = 0; i < 15; i++) {
        uint16_t h = bf16_from_f32((float)i);
        memcpy(bytes + 1 + 2 * i, &h, 2);
    }
    struct source_tensor t = {
        .E = 1, .N = 3, .K = 5, .data = bytes + 1, .dtype = DTYPE_BF16, .n_bytes = 30};
    const uint64_t rows[] = {2, 0, 2};
    float out[15];
    assert_true(tensor_format_plain(&t));
    t.format->rows(&t, rows, 3, out);
    for (size_t i = 0; i < 15; i++)
        assert_true(out[i] == (float)(rows[i / 5] * 5 + i % 5));
}

static void wide_integers_and_flags_are_no_weights(void **state) {
    (void)state;
    static const enum dtype refused[] = {DTYPE_BOOL, DTYPE_I16,     DTYPE_U16,
                                         DTYPE_I32,  DTYPE_U32,     DTYPE_I64,
                                         DTYPE_U64,  DTYPE_F8_E8M0, DTYPE_N};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct source_tensor t = {.dtype = refused[i]};
        assert_false(tensor_format_plain(&t));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_those_of_pytorch),
        cmocka_unit_test(keep_holds_every_value),
        cmocka_unit_test(rows_are_found_at_any_address),
        cmocka_unit_test(wide_integers_and_flags_are_no_weights),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
