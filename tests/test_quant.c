/*
 * test_quant.c - the quantisers, the tiled layouts.
 *
 * The golden files are made by tests/oracle/quant.py (versions in their first line) and read as
 * records: u32 length, bytes. Where they say so the results must be equal bit by bit; there are
 * no tolerances for them.
 */
#include "base/path.h"
#include "engine/quant/ggml_types.h"
#include "engine/quant/pack.h"
#include "engine/quant/quant.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* after the headers that it needs */
#include <cmocka.h>

struct golden {
    struct buf b;
    size_t at;
};

static void golden_open(struct golden *g, const char *name) {
    struct err err = {0};
    const char *dir = getenv("srcdir");
    char *path = xasprintf("%s/tests/golden/quant/%s", dir ? dir : ".", name);
    *g = (struct golden){0};
    if (file_read(path, 1 << 20, &g->b, &err) != ST_OK)
        fail_msg("%s", err.msg);
    free(path);
    g->at = (size_t)((char *)memchr(g->b.p, '\n', g->b.len) - g->b.p) + 1;
}

/* The next record, copied to storage that is aligned; the caller frees. */
static void *golden_next(struct golden *g, size_t *len) {
    uint32_t n;
    assert_true(g->b.len - g->at >= 4);
    memcpy(&n, g->b.p + g->at, 4);
    assert_true(g->b.len - g->at - 4 >= n);
    void *p = xmalloc(n + 1);
    memcpy(p, g->b.p + g->at + 4, n);
    g->at += 4 + n;
    *len = n;
    return p;
}

/* As in quant.py. */
static float *generate(uint32_t seed, size_t n) {
    float *x = xreallocarray(NULL, n, sizeof *x);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        double t = (double)(seed >> 8) / 8388608.0 - 1.0;
        x[i] = (float)(t * t * t);
    }
    return x;
}

/* The input of nf4.bin. */
static float *nf4_input(void) {
    enum { N = 130, K = 320 };
    float *x = generate(1, N * K);
    memset(x + 3 * K + 64, 0, 64 * sizeof *x);
    for (int k = 0; k < K; k++) {
        x[5 * K + k] *= 0x1p-20f;
        x[7 * K + k] *= 1000;
    }
    return x;
}

static void nf4_is_bit_equal_to_bitsandbytes(void **state) {
    (void)state;
    enum { N = 130, K = 320, G = K / 64 };
    struct golden g;
    size_t len;
    golden_open(&g, "nf4.bin");
    float *table = golden_next(&g, &len), *map = golden_next(&g, &len);
    assert_memory_equal(table, nf4_table, sizeof nf4_table);
    assert_memory_equal(map, quant_code_map, sizeof quant_code_map);
    uint8_t *packed = golden_next(&g, &len);
    assert_int_equal(len, N * K / 2);
    uint8_t *scale_codes = golden_next(&g, &len);
    assert_int_equal(len, N * G);
    float *absmax2 = golden_next(&g, &len);
    assert_int_equal(len, 3 * sizeof(float));
    float *offset = golden_next(&g, &len);

    float *x = nf4_input();
    struct weight w;
    weight_pack(&w, WEIGHT_Q4, x, N, K);
    for (int n = 0; n < N; n++)
        for (int k = 0; k < K; k++) {
            int i = n * K + k, want = i % 2 ? packed[i / 2] & 15 : packed[i / 2] >> 4;
            const uint8_t *data = w.data; /* [Np/16][Kp/8][16][4] */
            uint8_t byte = data[((n / 16 * (K / 8) + k / 8) * 16 + n % 16) * 4 + k % 4];
            int got = k % 8 < 4 ? byte & 15 : byte >> 4;
            if (got != want)
                fail_msg("row %d input %d: code %d, wanted %d", n, k, got, want);
        }
    for (int n = 0; n < N; n++)
        for (int gr = 0; gr < G; gr++)
            assert_int_equal(w.code[(n / 16 * G + gr) * 16 + n % 16], scale_codes[n * G + gr]);
    assert_memory_equal(w.absmax2, absmax2, 3 * sizeof *absmax2);
    assert_memory_equal(&w.offset, offset, sizeof *offset);
    weight_pack_release(&w);
    free(x);
    free(offset);
    free(absmax2);
    free(scale_codes);
    free(packed);
    free(map);
    free(table);
    buf_release(&g.b);
}

static void values_are_bit_equal_to_bitsandbytes(void **state) {
    (void)state;
    enum { N = 130, K = 320, N4 = 20, K4 = 128 };
    struct golden g;
    size_t len;
    float row[K], *x = nf4_input();
    struct weight w;
    golden_open(&g, "dequant.bin");
    float *nf4 = golden_next(&g, &len), *table = golden_next(&g, &len);
    uint8_t *packed = golden_next(&g, &len), code[N4 * K4];
    float *absmax = golden_next(&g, &len), *fp4 = golden_next(&g, &len);
    assert_int_equal(len, sizeof(float) * N4 * K4);
    weight_pack(&w, WEIGHT_Q4, x, N, K);
    for (int i = 0; i < 20; i++) {
        weight_unpack_row(&w, i < 10 ? i : 110 + i, row);
        assert_memory_equal(row, nf4 + (size_t)i * K, sizeof row);
    }
    weight_pack_release(&w);
    assert_memory_equal(table, fp4_table, sizeof fp4_table);
    for (int i = 0; i < N4 * K4; i++)
        code[i] = i % 2 ? packed[i / 2] & 15 : packed[i / 2] >> 4;
    weight_pack_codes(&w, WEIGHT_Q4, N4, K4, 64, code, absmax, NULL, fp4_table);
    for (int i = 0; i < N4; i++) {
        weight_unpack_row(&w, i, row);
        assert_memory_equal(row, fp4 + (size_t)i * K4, K4 * sizeof *row);
    }
    weight_pack_release(&w);
    free(x);
    free(nf4);
    free(table);
    free(packed);
    free(absmax);
    free(fp4);
    buf_release(&g.b);
}

static void sums_are_bit_equal_to_torch(void **state) {
    (void)state;
    struct golden g;
    size_t len;
    golden_open(&g, "nf4.bin");
    for (int i = 0; i < 6; i++)
        free(golden_next(&g, &len));
    uint32_t *sizes = golden_next(&g, &len);
    size_t n = len / sizeof *sizes;
    float *means = golden_next(&g, &len);
    float *x = generate(2, sizes[n - 1]);
    for (size_t i = 0; i < sizes[n - 1]; i++)
        x[i] = fabsf(x[i]);
    for (size_t i = 0; i < n; i++) {
        float got = quant_torch_sum(x, sizes[i]) / (float)sizes[i];
        if (memcmp(&got, &means[i], sizeof got) != 0)
            fail_msg("mean of %u: %a, wanted %a", sizes[i], (double)got, (double)means[i]);
    }
    free(x);
    free(means);
    free(sizes);
    buf_release(&g.b);
}

static void nf4_codes_are_the_nearest_values(void **state) {
    (void)state;
    float *x = generate(3, 64 * 50);
    for (int b = 0; b < 50; b++) {
        uint8_t codes[64];
        float absmax = nf4_quantise_group(x + b * 64, codes);
        for (int i = 0; i < 64; i++) {
            /* A value is at most half the widest step (0.304 of absmax, between entries 0 and
             * 1) from what it becomes; 2^-20 is room for the rounding of the products. */
            float got = nf4_table[codes[i]] * absmax, v = x[b * 64 + i];
            assert_true(fabsf(got - v) <= absmax * (0.3038072f / 2 + 0x1p-20f));
            for (int c = 0; c < 16; c++) /* no other entry is nearer, rounding aside */
                assert_true(fabsf(got - v) <=
                            fabsf(nf4_table[c] * absmax - v) + absmax * 0x1p-20f);
        }
    }
    free(x);
}

static void double_quantisation_of_equal_scales_is_exact(void **state) {
    (void)state;
    float absmax[300];
    uint8_t codes[300];
    float absmax2[2], offset;
    for (int i = 0; i < 300; i++)
        absmax[i] = 0.5f;
    quant_double(absmax, 300, codes, absmax2, &offset);
    for (int i = 0; i < 300; i++)
        assert_true(quant_code_map[codes[i]] * absmax2[i / 256] + offset == 0.5f);
}

static void int8_rounds_to_nearest_and_keeps_zero_groups(void **state) {
    (void)state;
    float x[64] = {0};
    int8_t q[64];
    assert_true(int8_quantise_group(x, q) == 0);
    for (int i = 0; i < 64; i++)
        assert_int_equal(q[i], 0);
    x[0] = -127;
    x[1] = 0.5f; /* ties go to even */
    x[2] = 1.5f;
    x[3] = 2.5f;
    x[4] = -2.5f;
    x[5] = 126.6f;
    assert_true(int8_quantise_group(x, q) == 1);
    const int8_t want[] = {-127, 0, 2, 2, -2, 127};
    assert_memory_equal(q, want, sizeof want);
    x[0] = 0x1p-149f; /* its scale is 0 in f32 */
    for (int i = 1; i < 64; i++)
        x[i] = 0;
    assert_true(int8_quantise_group(x, q) == 0);
}

static void bf16_rounds_to_nearest_even(void **state) {
    (void)state;
    assert_int_equal(bf16_from_f32(1.0f), 0x3f80);
    assert_int_equal(bf16_from_f32(0x1.01p0f), 0x3f80);       /* half-way, down to even */
    assert_int_equal(bf16_from_f32(0x1.03p0f), 0x3f82);       /* half-way, up to even */
    assert_int_equal(bf16_from_f32(0x1.010002p0f), 0x3f81);   /* just above */
    assert_int_equal(bf16_from_f32(0x1.fffffep127f), 0x7f80); /* overflows to infinity */
    assert_true(isnan(bf16_to_f32(bf16_from_f32(NAN))));
}

static void finite_finds_infinities_and_nans(void **state) {
    (void)state;
    float x[100] = {0};
    assert_true(quant_finite(x, 100));
    x[99] = INFINITY;
    assert_false(quant_finite(x, 100));
    assert_true(quant_finite(x, 99));
    x[3] = NAN;
    assert_false(quant_finite(x, 99));
}

/* What unpacking must give: the value's own rounding in each format, derived without the packed
 * layout. */
static void check_round_trip(enum weight_type t, int N, int K) {
    float *x = generate((uint32_t)(N * 1000 + K), (size_t)N * (size_t)K);
    float *row = xreallocarray(NULL, (size_t)K, sizeof *row);
    struct weight w;
    weight_pack(&w, t, x, N, K);
    assert_int_equal(w.Np % 16, 0);
    assert_int_equal(w.Kp % 64, 0);
    assert_true(w.Np >= N && w.Np < N + 16 && w.Kp >= K && w.Kp < K + 64);
    for (int n = 0; n < w.Np; n++) {
        weight_unpack_row(&w, n, row);
        for (int k0 = 0; k0 < K; k0 += 64) {
            float group[64] = {0}, want[64];
            int len = K - k0 < 64 ? K - k0 : 64;
            if (n < N)
                memcpy(group, x + (size_t)n * (size_t)K + k0, (size_t)len * sizeof *x);
            uint8_t codes[64];
            int8_t q[64];
            float scale = weight_group_scale(&w, n, k0 / 64);
            if (t == WEIGHT_Q4)
                nf4_quantise_group(group, codes);
            if (t == WEIGHT_I8)
                assert_true(int8_quantise_group(group, q) == scale);
            for (int i = 0; i < len; i++) {
                want[i] = t == WEIGHT_F32    ? group[i]
                          : t == WEIGHT_BF16 ? bf16_to_f32(bf16_from_f32(group[i]))
                          : t == WEIGHT_F16  ? f16_to_f32(f16_from_f32(group[i]))
                          : t == WEIGHT_I8   ? (float)q[i] * scale
                                             : nf4_table[codes[i]] * scale;
                if (row[k0 + i] != want[i])
                    fail_msg("%s %dx%d: [%d, %d] is %a, wanted %a", weight_type_name(t), N, K,
                             n, k0 + i, (double)row[k0 + i], (double)want[i]);
            }
        }
    }
    weight_pack_release(&w);
    free(row);
    free(x);
}

static void packing_round_trips_odd_sizes(void **state) {
    (void)state;
    static const int sizes[][2] = {{1, 1}, {16, 64}, {17, 65}, {15, 63}, {33, 200}, {48, 1000}};
    for (int t = WEIGHT_F32; t <= WEIGHT_Q4; t++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            check_round_trip((enum weight_type)t, sizes[i][0], sizes[i][1]);
}

static void padding_inputs_are_zero(void **state) {
    (void)state;
    enum { N = 3, K = 10 };
    float *x = generate(9, N * K);
    for (int t = WEIGHT_F32; t <= WEIGHT_Q4; t++) {
        struct weight w;
        float row[64];
        weight_pack(&w, (enum weight_type)t, x, N, K);
        w.K = 64; /* look at the padding too */
        for (int n = 0; n < 16; n++) {
            weight_unpack_row(&w, n, row);
            for (int k = n < N ? K : 0; k < 64; k++)
                assert_true(row[k] == 0);
        }
        weight_pack_release(&w);
    }
    free(x);
}

/* A matrix of ready codes: each value is table[code] * scale + min, the product and the sum
 * rounded one after the other (volatile: the test must not fuse them either). */
static void check_codes(enum weight_type t, int group, bool with_min, int N, int K) {
    size_t n = (size_t)((K + group - 1) / group), count = (size_t)N * n;
    float *x = generate((uint32_t)(K + group), 2 * count), *min = with_min ? x + count : NULL;
    float *noise = generate(5, (size_t)N * (size_t)K), *row = xcalloc((size_t)K, sizeof *row);
    uint8_t *code = xcalloc((size_t)N, (size_t)K);
    struct weight w;
    for (size_t i = 0; i < (size_t)N * (size_t)K; i++) /* all codes, -128 and 127 too */
        code[i] = (uint8_t)((int)((noise[i] + 1) * 1000003) & (t == WEIGHT_Q4 ? 15 : 255));
    weight_pack_codes(&w, t, N, K, group, code, x, min, fp4_table);
    assert_int_equal(w.group, group);
    for (int r = 0; r < N; r++) {
        weight_unpack_row(&w, r, row);
        for (int k = 0; k < K; k++) {
            uint8_t c = code[(size_t)r * (size_t)K + (size_t)k];
            size_t g = (size_t)r * n + (size_t)(k / group);
            volatile float product = (t == WEIGHT_Q4 ? fp4_table[c] : (float)(int8_t)c) * x[g];
            float want = with_min ? product + min[g] : product;
            if (row[k] != want)
                fail_msg("%s, group %d, min %d: [%d, %d] is %a, wanted %a", weight_type_name(t),
                         group, with_min, r, k, (double)row[k], (double)want);
            assert_true(weight_group_scale(&w, r, k / group) == x[g]);
            assert_true(weight_group_min(&w, r, k / group) == (with_min ? min[g] : 0));
        }
    }
    for (int r = 0; r < w.Np; r++) /* groups that are all padding */
        for (int g = r < N ? (int)n : 0; g < w.Kp / group; g++) {
            assert_true(weight_group_scale(&w, r, g) == 0);
            assert_true(weight_group_min(&w, r, g) == 0);
        }
    weight_pack_release(&w);
    free(x);
    free(noise);
    free(row);
    free(code);
}

static void codes_unpack_to_table_times_scale_plus_min(void **state) {
    (void)state;
    static const int sizes[][2] = {{1, 1}, {16, 64}, {17, 65}, {15, 63}, {33, 200}, {48, 1000}};
    for (int t = WEIGHT_I8; t <= WEIGHT_Q4; t++)
        for (int group = 16; group <= 64; group *= 2)
            for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
                check_codes((enum weight_type)t, group, false, sizes[i][0], sizes[i][1]);
                check_codes((enum weight_type)t, group, true, sizes[i][0], sizes[i][1]);
            }
}

/* The layout that weight.h draws, spelled out. */
static void codes_lie_where_the_layout_says(void **state) {
    (void)state;
    enum { N = 17, K = 80, KP = 128 };
    uint8_t code[N * K];
    float scale[N * 5] = {0}, table[16] = {0};
    for (int i = 0; i < N * K; i++)
        code[i] = (uint8_t)(i * 7 / 3);
    struct weight w;
    weight_pack_codes(&w, WEIGHT_I8, N, K, 16, code, scale, NULL, NULL);
    for (int n = 0; n < N; n++)
        for (int k = 0; k < K; k++)
            assert_int_equal(
                ((const uint8_t(*)[KP / 4][16][4]) w.data)[n / 16][k / 4][n % 16][k % 4],
                code[n * K + k]);
    weight_pack_release(&w);
    for (int i = 0; i < N * K; i++)
        code[i] &= 15;
    weight_pack_codes(&w, WEIGHT_Q4, N, K, 16, code, scale, NULL, table);
    for (int n = 0; n < N; n++)
        for (int k = 0; k < K; k++) {
            uint8_t two =
                ((const uint8_t(*)[KP / 8][16][4]) w.data)[n / 16][k / 8][n % 16][k % 4];
            assert_int_equal(k % 8 < 4 ? two & 15 : two >> 4, code[n * K + k]);
        }
    weight_pack_release(&w);
}

static void f16_rounds_to_nearest_even(void **state) {
    (void)state;
    static const struct {
        float f;
        uint16_t h;
    } known[] = {{0, 0},
                 {-0.0f, 0x8000},
                 {1, 0x3c00},
                 {65504, 0x7bff},
                 {65519, 0x7bff},
                 {65520, 0x7c00},
                 {-1e30f, 0xfc00},
                 {INFINITY, 0x7c00},
                 {0x1p-24f, 1},
                 {0x1p-25f, 0},
                 {0x1.8p-24f, 2},
                 {-0x1p-14f, 0x8400},
                 {0x1.ffbffep-15f, 0x3ff},
                 {0x1.ffcp-15f, 0x400},
                 {2049, 0x6800},
                 {2051, 0x6802}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        assert_int_equal(f16_from_f32(known[i].f), known[i].h);
    for (uint32_t h = 0; h < 0x10000; h++)
        if ((h & 0x7fff) <= 0x7c00)
            assert_int_equal(f16_from_f32(f16_to_f32((uint16_t)h)), h);
    assert_true(isnan(f16_to_f32(f16_from_f32(NAN))));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nf4_is_bit_equal_to_bitsandbytes),
        cmocka_unit_test(values_are_bit_equal_to_bitsandbytes),
        cmocka_unit_test(sums_are_bit_equal_to_torch),
        cmocka_unit_test(nf4_codes_are_the_nearest_values),
        cmocka_unit_test(double_quantisation_of_equal_scales_is_exact),
        cmocka_unit_test(int8_rounds_to_nearest_and_keeps_zero_groups),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(f16_rounds_to_nearest_even),
        cmocka_unit_test(finite_finds_infinities_and_nans),
        cmocka_unit_test(packing_round_trips_odd_sizes),
        cmocka_unit_test(padding_inputs_are_zero),
        cmocka_unit_test(codes_unpack_to_table_times_scale_plus_min),
        cmocka_unit_test(codes_lie_where_the_layout_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
