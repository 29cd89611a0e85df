/*
 * test_ggml_types.c - GGUF's tensor types: values, and the codes that `keep` stores.
 *
 * tests/golden/ggml/types.bin is made by tests/oracle/ggml.py (versions in its first line) and
 * read as records: u32 length, bytes; three a type: its number, blocks, their values by the
 * gguf package. Everything here is equal bit by bit, without tolerances; what is not a number
 * there must not be one here, and its bits don't matter.
 */
#include "base/path.h"
#include "engine/model/source.h"
#include "engine/quant/ggml_types.h"
#include "engine/quant/pack.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* after the headers that it needs */
#include <cmocka.h>

enum { N_TYPES = 17 };

static struct golden {
    const struct ggml_type_row *row;
    unsigned char *raw; /* [n_bytes] exactly, so that the address sanitizer sees its end */
    float *value;       /* [n] */
    size_t n, n_bytes;
} golden[N_TYPES];

static unsigned char *record(const struct buf *b, size_t *at, size_t *len) {
    uint32_t n;
    assert_true(b->len - *at >= 4);
    memcpy(&n, b->p + *at, 4);
    assert_true(n > 0 && b->len - *at - 4 >= n);
    unsigned char *p = xmalloc(n);
    memcpy(p, b->p + *at + 4, n);
    *at += 4 + n;
    *len = n;
    return p;
}

static int load_golden(void **state) {
    (void)state;
    struct buf b = {0};
    struct err err = {0};
    const char *dir = getenv("srcdir");
    char *path = xasprintf("%s/tests/golden/ggml/types.bin", dir ? dir : ".");
    if (file_read(path, 1 << 20, &b, &err) != ST_OK)
        fail_msg("%s", err.msg);
    free(path);
    size_t at = (size_t)((char *)memchr(b.p, '\n', b.len) - b.p) + 1, len;
    for (int i = 0; i < N_TYPES; i++) {
        struct golden *g = &golden[i];
        uint32_t type;
        unsigned char *number = record(&b, &at, &len);
        memcpy(&type, number, sizeof type);
        free(number);
        g->row = ggml_type_row(type);
        assert_non_null(g->row);
        g->raw = record(&b, &at, &g->n_bytes);
        unsigned char *values = record(&b, &at, &len);
        g->n = len / sizeof *g->value;
        g->value = xreallocarray(NULL, g->n, sizeof *g->value);
        memcpy(g->value, values, len);
        free(values);
        assert_int_equal(g->n % g->row->block_elems, 0);
        assert_int_equal(g->n / g->row->block_elems * g->row->block_bytes, g->n_bytes);
    }
    assert_int_equal(at, b.len);
    buf_release(&b);
    return 0;
}

static int free_golden(void **state) {
    (void)state;
    for (int i = 0; i < N_TYPES; i++) {
        free(golden[i].raw);
        free(golden[i].value);
    }
    return 0;
}

static void same_bits(const struct golden *g, const char *what, size_t i, float got) {
    float want = g->value[i];
    if (isnan(want) ? !isnan(got) : memcmp(&got, &want, sizeof got) != 0)
        fail_msg("%s %s: element %zu is %a, wanted %a", g->row->name, what, i, (double)got,
                 (double)want);
}

static void values_equal_the_gguf_package(void **state) {
    (void)state;
    for (int i = 0; i < N_TYPES; i++) {
        const struct golden *g = &golden[i];
        float *got = xreallocarray(NULL, g->n, sizeof *got);
        assert_true(ggml_type_readable(g->row));
        ggml_dequant(g->row, g->raw, got, g->n);
        for (size_t k = 0; k < g->n; k++)
            same_bits(g, "value", k, got[k]);
        free(got);
    }
}

/* The golden blocks as a stack of E matrices [N, K], a multiple of 64 inputs where they allow.
 */
static struct source_tensor tensor_of(const struct golden *g) {
    struct source_tensor t = {.name = "t", .data = g->raw, .dtype = g->row->type, .E = 2};
    t.K = g->row->block_elems == 1 ? 11 : g->row->block_elems == 32 ? 96 : 256;
    if (g->n % (2 * t.K))
        t.K = g->row->block_elems;
    t.N = g->n / t.K / 2;
    assert_int_equal(t.E * t.N * t.K, g->n);
    return t;
}

static void rows_are_found_in_any_order(void **state) {
    (void)state;
    for (int i = 0; i < N_TYPES; i++) {
        const struct golden *g = &golden[i];
        struct source_tensor t = tensor_of(g);
        assert_true(tensor_format_ggml(&t));
        assert_int_equal(t.n_bytes, g->n_bytes);
        assert_string_equal(t.type, g->row->name);
        uint64_t last = t.E * t.N - 1, row[SOURCE_ROWS] = {last, 0, last, last / 2};
        for (uint64_t r = 4; r < SOURCE_ROWS; r++)
            row[r] = r * 7 % (last + 1);
        float *got = xreallocarray(NULL, SOURCE_ROWS * (size_t)t.K, sizeof *got);
        t.format->rows(&t, row, SOURCE_ROWS, got);
        for (size_t r = 0; r < SOURCE_ROWS; r++)
            for (size_t k = 0; k < t.K; k++)
                same_bits(g, "row", row[r] * t.K + k, got[r * t.K + k]);
        free(got);
    }
}

/* What create stores of such a tensor, unpacked by the reference for all kernels. */
static void check_kept(const struct golden *g, const struct source_tensor *t) {
    size_t rows = (size_t)(t->E * t->N), K = (size_t)t->K, G = K / (size_t)t->group;
    uint8_t *code = xmalloc(rows * K);
    float *scale = xreallocarray(NULL, rows * G, sizeof *scale), *min = NULL;
    float *got = xreallocarray(NULL, K, sizeof *got);
    if (t->keep_min)
        min = xreallocarray(NULL, rows * G, sizeof *min);
    for (size_t r = 0; r < rows; r += 2) { /* two at a time; there is an even number */
        uint64_t row[2] = {r, r + 1};
        t->format->codes(t, row, 2, code + r * K, scale + r * G, min ? min + r * G : NULL);
    }
    for (size_t i = 0; t->keep == WEIGHT_Q4 && i < rows * K; i++)
        assert_true(code[i] < 16);
    struct weight w;
    weight_pack_codes(&w, t->keep, (int)rows, (int)K, t->group, code, scale, min, t->table);
    for (size_t r = 0; r < rows; r++) {
        weight_unpack_row(&w, (int)r, got);
        for (size_t k = 0; k < K; k++)
            same_bits(g, "kept", r * K + k, got[k]);
    }
    weight_pack_release(&w);
    free(min);
    free(got);
    free(scale);
    free(code);
}

static void kept_codes_hold_the_values_bit_for_bit(void **state) {
    (void)state;
    int n_block_types = 0;
    for (int i = 0; i < N_TYPES; i++) {
        struct source_tensor t = tensor_of(&golden[i]);
        assert_true(tensor_format_ggml(&t));
        assert_true((t.format->codes != NULL) == t.quantised);
        if (t.format->codes) {
            check_kept(&golden[i], &t);
            n_block_types++;
        }
    }
    assert_int_equal(n_block_types, 13);
}

static void each_type_has_its_place_in_our_layouts(void **state) {
    (void)state;
    static const struct {
        const char *name;
        enum weight_type keep;
        int group;
        bool min;
    } want[N_TYPES] = {
        {"F32", WEIGHT_F32, 0, false},    {"F16", WEIGHT_F16, 0, false},
        {"BF16", WEIGHT_BF16, 0, false},  {"F64", WEIGHT_F32, 0, false},
        {"Q4_0", WEIGHT_Q4, 32, false},   {"Q4_1", WEIGHT_Q4, 32, true},
        {"Q5_0", WEIGHT_I8, 32, false},   {"Q5_1", WEIGHT_I8, 32, true},
        {"Q8_0", WEIGHT_I8, 32, false},   {"Q2_K", WEIGHT_Q4, 16, true},
        {"Q3_K", WEIGHT_Q4, 16, false},   {"Q4_K", WEIGHT_Q4, 32, true},
        {"Q5_K", WEIGHT_I8, 32, true},    {"Q6_K", WEIGHT_I8, 16, false},
        {"IQ4_NL", WEIGHT_Q4, 32, false}, {"IQ4_XS", WEIGHT_Q4, 32, false},
        {"MXFP4", WEIGHT_Q4, 32, false},
    };
    for (int i = 0; i < N_TYPES; i++) {
        struct source_tensor t = tensor_of(&golden[i]);
        assert_true(tensor_format_ggml(&t));
        assert_string_equal(t.type, want[i].name);
        assert_int_equal(t.keep, want[i].keep);
        assert_int_equal(t.group, want[i].group);
        assert_int_equal(t.keep_min, want[i].min);
        assert_int_equal(t.quantised, want[i].group != 0);
        assert_true((t.table != NULL) == (want[i].keep == WEIGHT_Q4));
        assert_true((t.inexact != NULL) == (strcmp(want[i].name, "F64") == 0));
        assert_non_null(strstr(ggml_types_supported(), want[i].name));
    }
}

/* Sizes of blocks must hold for what can't be read, too: such files open. */
static void types_that_cannot_be_read_have_a_name(void **state) {
    (void)state;
    static const uint32_t numbers[] = {9,  15, 16, 17, 18, 19, 21, 22, 24,
                                       25, 26, 27, 29, 34, 35, 40, 41, 42};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const struct ggml_type_row *row = ggml_type_row(numbers[i]);
        struct source_tensor t = {.dtype = numbers[i], .E = 1, .N = 1, .K = 256};
        assert_non_null(row);
        assert_false(ggml_type_readable(row));
        assert_null(strstr(ggml_types_supported(), row->name));
        assert_false(tensor_format_ggml(&t));
    }
    struct source_tensor t = {.dtype = 4, .E = 1, .N = 1, .K = 256};
    assert_null(ggml_type_row(4)); /* removed from the format */
    assert_null(ggml_type_row(UINT32_MAX));
    assert_false(tensor_format_ggml(&t));
    assert_string_equal(ggml_type_row(16)->name, "IQ2_XXS");
}

static void f16_special_values(void **state) {
    (void)state;
    assert_true(f16_to_f32(0x3c00) == 1.0f);
    assert_true(f16_to_f32(0x0001) == 0x1p-24f);
    assert_true(f16_to_f32(0x83ff) == -0x3ffp-24f);
    assert_true(f16_to_f32(0x7bff) == 65504.0f);
    assert_true(isinf(f16_to_f32(0x7c00)) && f16_to_f32(0xfc00) < 0);
    assert_true(isnan(f16_to_f32(0x7e00)));
    assert_true(f16_to_f32(0x8000) == 0 && signbit(f16_to_f32(0x8000)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_equal_the_gguf_package),
        cmocka_unit_test(rows_are_found_in_any_order),
        cmocka_unit_test(kept_codes_hold_the_values_bit_for_bit),
        cmocka_unit_test(each_type_has_its_place_in_our_layouts),
        cmocka_unit_test(types_that_cannot_be_read_have_a_name),
        cmocka_unit_test(f16_special_values),
    };
    return cmocka_run_group_tests(tests, load_golden, free_golden);
}
