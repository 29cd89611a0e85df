/*
 * test_matmul.c - products with every kind of weight, in every kernel set that this CPU has.
 *
 * A kind is a type, a table, a group size, with or without minimums. Each is held against sums
 * in double over weight_unpack_row(), and its bits over every way to cut 40 tokens in two and
 * tiles in ones.
 *
 * Bound of y = sum over k of (t[k] s + m) x[k] with K inputs in G groups, eps = 2^-24, A = sum
 * of (|t s| + |m|) |x|:
 *   scalar, floats   unpacking rounds twice, then K products and K sums: (K + 3) eps A
 *   int16            x is off by at most absmax / (2 * 8191) of its 64: times |t s + m|
 *                    t by half a step of the table where it is not exact: times |s x|
 *                    scale times step, times scale of x, the int32 sum to f32, two additions a
 *                    group: (2 G + 6) eps A
 *   8 bits           the same with absmax / (2 * 127) of its 64 without outliers, and the error
 *                    of the bytes of the table; three operations a unit
 *   scales by code   a formula instead of the map: 1e-6 A
 * 1.01 covers products of two of these.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/cpu/simd.h"
#include "engine/quant/pack.h"
#include "weight_kinds.h"
#include <stdlib.h>

enum { T_MAX = 40, GUARD = 5 };
#define EPS 0x1p-24

static const struct cpu_kernels *sets[8];
static int n_set;

/* Tokens as a backend hands them to a kernel. */
struct tokens {
    float *x;
    char *rows; /* of the last input_from() */
    int K, Kp;
};

static void tokens_make(struct tokens *a, const struct cpu_kernels *k, int K) {
    size_t Kp = (size_t)weight_pad_k(K);
    *a = (struct tokens){.K = K, .Kp = (int)Kp};
    a->x = xcalloc(T_MAX * Kp, sizeof *a->x);
    a->rows = xaligned(T_MAX, k->quantize ? k->block_bytes(a->Kp) : 64);
    for (size_t t = 0; t < T_MAX; t++) {
        rand_fill(a->x + t * Kp, (size_t)K, t % 5 == 4 ? 1e-3f : 1);
        if (t == 7)
            memset(a->x + t * Kp, 0, (size_t)K * sizeof *a->x);
        if (t % 3 == 1) /* groups far above the rest, other ones for other tokens */
            for (size_t i = t % 4 * 16; i < (size_t)K; i += 160)
                a->x[t * Kp + i] *= 30;
        if (t == 10) /* more in a group than it may have outliers */
            for (size_t i = 0; i < 20 && i < (size_t)K; i++)
                a->x[t * Kp + i] *= (float)(i + 2);
    }
}

static void tokens_release(struct tokens *a) {
    free(a->x);
    free(a->rows);
}

/* Tokens t .. t + T - 1 as a matmul of their own gets them. */
static struct cpu_input input_from(const struct tokens *a, const struct cpu_kernels *k, int t,
                                   int T) {
    size_t Kp = (size_t)a->Kp;
    struct cpu_input in = {.x = a->x + (size_t)t * Kp, .ldx = Kp, .T = T, .K = a->K};
    if (!k->quantize)
        return in;
    in.rows = a->rows;
    in.block_bytes = k->block_bytes(a->Kp);
    for (int i = 0; i < T; i += k->block)
        k->quantize(in.x + (size_t)i * Kp, Kp, T - i < k->block ? T - i : k->block, a->K, true,
                    a->rows + (size_t)(i / k->block) * in.block_bytes);
    return in;
}

/* What the 8-bit set does to a table: the largest error of a value, and a step. */
static double byte_error(const struct weight *w, double *step) {
    uint8_t byte[16];
    float f;
    double zero = q4_bytes(w, byte, &f) ? (double)NF4_BYTE_ZERO : 128, most = 0;
    for (int i = 0; i < 16; i++)
        most = fmax(most, fabs((byte[i] - zero) * (double)f - (double)w->table[i]));
    *step = (double)f;
    return most;
}

/* What an outlier of the row is above, and a little, for the rounding of the mean. */
static double outlier_from(const float *x, int K) {
    double mean = 0, top = 0;
    int G = (K + 63) / 64;
    for (int i = 0; i < K; i++) {
        top = fmax(i % 64 ? top : 0, fabs((double)x[i]));
        mean += i % 64 == 63 || i == K - 1 ? top / G : 0;
    }
    return (double)CPU_OUTLIER_FROM * mean * 1.000001;
}

/* The largest activation of a group that has 8 bits; where it is a close thing whether its
 * outliers, 8 at most, are left out, the largest of all. */
static double top_left(const float *x, int n, double from) {
    double top = 0, left;
    int out;
    for (;; from *= 2) {
        left = out = 0;
        for (int i = 0; i < n && i < 64; i++) {
            double ax = fabs((double)x[i]);
            top = fmax(top, ax);
            left = fmax(left, ax > from ? 0 : ax);
            out += ax > from;
        }
        if (out <= 8)
            break;
    }
    double worth = top * top - left * left - (double)CPU_OUTLIER_GAIN * out * from * from;
    return worth > 1e-4 * top * top ? left : top;
}

/* The bound for the set whose activations have 8 bits, but for outliers. */
static double bound8_of(const struct kind *kind, const struct weight *w, int n,
                        const float *row, const float *x) {
    double A = 0, steps = 0, byte_step = 0, table = 0;
    double tops[9], from = outlier_from(x, w->K);
    assert_true(w->K <= 9 * 64);
    if (w->type == WEIGHT_Q4)
        table = byte_error(w, &byte_step);
    for (int g = 0; g * 64 < w->K; g++)
        tops[g] = top_left(x + g * 64, w->K - g * 64, from);
    for (int i = 0; i < w->K; i++) {
        double t = tops[i / 64], ax = fabs((double)x[i]), aw = fabs((double)row[i]);
        double s = fabs((double)weight_group_scale(w, n, i / w->group));
        double m = fabs((double)weight_group_min(w, n, i / w->group));
        A += (aw + 2 * m) * ax;
        if (ax <= t)
            steps += aw * t / (2 * X8_STEPS) + table * s * (ax + t / (2 * X8_STEPS));
        if (i % w->group == 0) /* where an accumulator starts is rounded, for NF4 */
            steps += 0.5 * t / X8_STEPS * byte_step * s;
    }
    return 1.01 *
           (steps + (3 * w->Kp / 16 + 6) * EPS * A + (kind->how != BY_SCALE ? 1e-6 * A : 0));
}

static double bound_of(const struct kind *kind, const struct cpu_kernels *k,
                       const struct weight *w, int n, const float *row, const float *x) {
    bool floats = w->type != WEIGHT_I8 && w->type != WEIGHT_Q4;
    if (!floats && k->block > 1)
        return bound8_of(kind, w, n, row, x);
    int G = w->Kp / w->group, ops = floats || !k->quantize ? w->K + 3 : 2 * G + 6;
    double A = 0, steps = 0;
    for (int at = 0; at < w->K; at += w->group) {
        double m = fabs((double)weight_group_min(w, n, at / w->group)), top = 0;
        double s = fabs((double)weight_group_scale(w, n, at / w->group));
        for (int i = at / 64 * 64; i < at / 64 * 64 + 64 && i < w->K; i++)
            top = fmax(top, fabs((double)x[i]));
        for (int i = at; i < at + w->group && i < w->K; i++) {
            double ax = fabs((double)x[i]), aw = fabs((double)row[i]);
            A += (aw + 2 * m) * ax; /* |t s| <= |w| + |m| */
            steps += aw * top / (2 * X_STEPS) + kind->half_step * s * ax;
        }
    }
    double exact = ops * EPS * A + (kind->how != BY_SCALE && !floats ? 1e-6 * A : 0);
    return 1.01 * (exact + (floats || !k->quantize ? 0 : steps));
}

/* y [T_MAX, N] against sums in double. */
static void check_values(const struct kind *kind, const struct cpu_kernels *k,
                         const struct weight *w, const struct tokens *a, const float *y,
                         size_t ldy) {
    float *row = xcalloc((size_t)w->K, sizeof *row);
    for (int n = 0; n < w->N; n++) {
        weight_unpack_row(w, n, row);
        for (int t = 0; t < T_MAX; t++) {
            const float *x = a->x + (size_t)t * (size_t)a->Kp;
            double want = 0, bound = bound_of(kind, k, w, n, row, x);
            for (int i = 0; i < w->K; i++)
                want += (double)row[i] * (double)x[i];
            double got = (double)y[(size_t)t * ldy + (size_t)n];
            if (!(fabs(got - want) <= bound))
                fail_msg("%s, %s, N %d K %d: y[%d, %d] = %.9g, want %.9g +- %g", k->name,
                         kind->name, w->N, w->K, t, n, got, want, bound);
        }
    }
    free(row);
}

static void check_bits(const char *how, const struct kind *kind, const struct cpu_kernels *k,
                       const struct weight *w, int T, const float *y, const float *z,
                       size_t n) {
    if (memcmp(y, z, n * sizeof *y) != 0)
        fail_msg("%s, %s, N %d K %d: other bits for %s %d", k->name, kind->name, w->N, w->K,
                 how, T);
}

static void check_kind(const struct kind *kind, const struct cpu_kernels *k, int N, int K) {
    struct weight w;
    struct tokens a;
    weight_make(&w, kind, N, K);
    tokens_make(&a, k, K);
    size_t ldy = (size_t)N + GUARD, n = T_MAX * ldy;
    float *y = xcalloc(n, sizeof *y), *z = xcalloc(n, sizeof *z);
    void *scratch = xaligned(1, cpu_scratch_bytes(K));
    struct cpu_input all = input_from(&a, k, 0, T_MAX);
    int tiles = w.Np / 16;
    for (size_t i = 0; i < n; i++)
        y[i] = z[i] = 12345;
    k->matmul(&all, &w, 0, tiles, y, ldy, false, scratch);
    check_values(kind, k, &w, &a, y, ldy);
    for (size_t i = 0; i < n; i++)
        assert_true(i % ldy < (size_t)N || y[i] == 12345);
    for (int t = 1; t < T_MAX; t++) { /* 40 tokens in two calls */
        struct cpu_input head = input_from(&a, k, 0, t);
        k->matmul(&head, &w, 0, tiles, z, ldy, false, scratch);
        struct cpu_input tail = input_from(&a, k, t, T_MAX - t);
        k->matmul(&tail, &w, 0, tiles, z + (size_t)t * ldy, ldy, false, scratch);
        check_bits("tokens cut at", kind, k, &w, t, y, z, n);
    }
    memset(z, 0, n * sizeof *z);
    for (size_t i = 0; i < n; i++)
        z[i] = i % ldy < (size_t)N ? 0 : 12345;
    for (int t = 0; t < T_MAX; t += 20) { /* one tile a call, added to 0 */
        struct cpu_input part = input_from(&a, k, t, 20);
        for (int i = 0; i < tiles; i++)
            k->matmul(&part, &w, i, 1, z + (size_t)t * ldy + i * 16, ldy, true, scratch);
    }
    for (size_t i = 0; i < n; i++) /* adding to 0 makes +0 of -0 */
        y[i] += 0.0f;
    check_bits("tiles one by one, tokens", kind, k, &w, 20, y, z, n);
    for (size_t i = 0; i < n; i++)
        z[i] = i % ldy < (size_t)N ? 0.5f : 12345;
    all = input_from(&a, k, 0, T_MAX);
    k->matmul(&all, &w, 0, tiles, z, ldy, true, scratch);
    for (size_t i = 0; i < n; i++)
        assert_true(z[i] == (i % ldy < (size_t)N ? y[i] + 0.5f : 12345));
    free(scratch);
    free(y);
    free(z);
    tokens_release(&a);
    weight_pack_release(&w);
}

static void every_kind_of_weight_in_every_shape(void **state) {
    (void)state;
    static const int shapes[][2] = {{16, 64},  {1, 1},    {33, 72}, {90, 200},
                                    {48, 576}, {70, 129}, {17, 330}};
    for (int i = 0; i < n_set; i++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            for (int j = 0; j < N_KIND; j++)
                check_kind(&kinds[j], sets[i], shapes[s][0], shapes[s][1]);
}

/* The largest codes against the largest activations: the int32 sum of a group comes to 2^31 -
 * 786368 and no further. */
static void sums_of_a_group_fit_int32(void **state) {
    (void)state;
    enum { N = 16, K = 128, T = 13 };
    static const float top[16] = {Q4_STEPS, -Q4_STEPS};
    for (int i = 0; i < n_set; i++)
        for (int type = WEIGHT_I8; type <= WEIGHT_Q4; type++) {
            uint8_t code[N * K];
            float scale[N * 2], y[T * N], step[] = {-128, Q4_STEPS};
            struct weight w;
            struct tokens a;
            memset(code, type == WEIGHT_I8 ? 0x80 : 0, sizeof code);
            for (int j = 0; j < N * 2; j++)
                scale[j] = 0.25f;
            weight_pack_codes(&w, (enum weight_type)type, N, K, 64, code, scale, NULL, top);
            tokens_make(&a, sets[i], K);
            for (int t = 0; t < T; t++)
                for (int k = 0; k < K; k++)
                    a.x[t * K + k] = 1;
            struct cpu_input in = input_from(&a, sets[i], 0, T);
            void *scratch = xaligned(1, cpu_scratch_bytes(K));
            sets[i]->matmul(&in, &w, 0, 1, y, N, false, scratch);
            /* an activation is off by its scale's rounding alone */
            for (int j = 0; j < T * N; j++)
                assert_true(fabsf(y[j] / (step[type - WEIGHT_I8] * 0.25f * K) - 1) < 0x1p-20f);
            free(scratch);
            tokens_release(&a);
            weight_pack_release(&w);
        }
}

/* Rows as long as logits are written past the cache where they can be. */
static void long_rows_hold_what_short_ones_do(void **state) {
    (void)state;
    enum { N = 90, K = 72, T = 37, LONG = 40000 };
    float *y = xaligned((size_t)T * LONG + 16, sizeof *y), z[T * N];
    for (int i = 0; i < n_set; i++)
        for (int off = 0; off <= 1; off++) {
            struct weight w;
            struct tokens a;
            weight_make(&w, &kinds[4], N, K);
            tokens_make(&a, sets[i], K);
            struct cpu_input in = input_from(&a, sets[i], 0, T);
            void *scratch = xaligned(1, cpu_scratch_bytes(K));
            for (size_t j = 0; j < (size_t)T * LONG + 16; j++)
                y[j] = 12345;
            sets[i]->matmul(&in, &w, 0, w.Np / 16, y + off, LONG, false, scratch);
            sets[i]->matmul(&in, &w, 0, w.Np / 16, z, N, false, scratch);
            for (size_t t = 0; t < T; t++) {
                assert_memory_equal(y + off + t * LONG, z + t * N, N * sizeof *z);
                assert_true(y[off + t * LONG + N] == 12345);
            }
            free(scratch);
            tokens_release(&a);
            weight_pack_release(&w);
        }
    free(y);
}

/* It is not lost when activations are rounded to integers, and stays with its token. */
static void what_is_not_a_number_shows(void **state) {
    (void)state;
    enum { N = 33, K = 129, T = 14 };
    static const int places[] = {0, 17, 70, 128};
    for (int i = 0; i < n_set; i++)
        for (int j = 0; j < N_KIND; j++)
            for (size_t p = 0; p < sizeof places / sizeof *places; p++) {
                struct weight w;
                struct tokens a;
                float y[T * N];
                weight_make(&w, &kinds[j], N, K);
                tokens_make(&a, sets[i], K);
                a.x[3 * a.Kp + places[p]] = NAN;
                struct cpu_input in = input_from(&a, sets[i], 0, T);
                void *scratch = xaligned(1, cpu_scratch_bytes(K));
                sets[i]->matmul(&in, &w, 0, w.Np / 16, y, N, false, scratch);
                for (int at = 0; at < T * N; at++)
                    if (isnan(y[at]) != (at / N == 3))
                        fail_msg("%s, %s, NaN at %d: y[%d, %d] = %g", sets[i]->name,
                                 kinds[j].name, places[p], at / N, at % N, (double)y[at]);
                free(scratch);
                tokens_release(&a);
                weight_pack_release(&w);
            }
}

/* Sums over 16, 32 and 64 inputs, whatever order a kernel set keeps its q in. */
static void sums_of_activations_are_exact(void **state) {
    (void)state;
    enum { K = 200 };
    for (int i = 0; i < n_set; i++) {
        struct tokens a;
        if (sets[i]->block_bytes != cpu_row16_bytes)
            continue;
        tokens_make(&a, sets[i], K);
        input_from(&a, sets[i], 0, 1);
        struct row16 r = cpu_row16(a.rows, a.Kp);
        for (int S = 16; S <= 64; S *= 2)
            for (int g = 0; g < a.Kp / S; g++) {
                int64_t sum = 0;
                double x = 0;
                for (int k = g * S; k < g * S + S; k++) {
                    sum += r.q[k];
                    x += (double)a.x[k];
                }
                float got = r.sum[cpu_sum_at(a.Kp, S) + (size_t)g];
                assert_true(got == r.scale[g * S / 64] * (float)sum);
                /* the order of q stays within 16: half a step for each */
                assert_true(fabs((double)got - x) <= S * 0.51 * (double)r.scale[g * S / 64]);
            }
        tokens_release(&a);
    }
}

static void tables_become_exact_words_where_they_can(void **state) {
    (void)state;
    static const float halves[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, 0, -0.5f, -1, -6};
    static const float coprime[16] = {0.06f, 0.1f, -0.15f};
    static const float tiny[16] = {0x3p-140f, 0x5p-140f};
    static const float huge[16] = {0x1p127f, -0x1p126f};
    static const float zero[16] = {0};
    const float *exact[] = {from_zero, q4_0,    iq4_nl, mxfp4, fp4_table,
                            halves,    coprime, tiny,   huge,  zero};
    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++) {
        struct weight w = {0};
        int16_t word[16];
        float step;
        memcpy(w.table, exact[i], sizeof w.table);
        q4_words(&w, word, &step);
        for (int j = 0; j < 16; j++) /* a rounding of the step, and one of the value */
            assert_true(fabs((double)word[j] * (double)step - (double)w.table[j]) <=
                        0x1p-22 * fabs((double)w.table[j]));
    }
    const float *rounded[] = {nf4_table, uneven};
    const double top[] = {1, 5.25};
    for (size_t i = 0; i < 2; i++) {
        struct weight w = {0};
        int16_t word[16];
        float step;
        memcpy(w.table, rounded[i], sizeof w.table);
        q4_words(&w, word, &step);
        for (int j = 0; j < 16; j++) {
            assert_true(word[j] >= -Q4_STEPS && word[j] <= Q4_STEPS);
            assert_true(fabs((double)word[j] * (double)step - (double)w.table[j]) <=
                        1.001 * top[i] / (2 * Q4_STEPS));
        }
    }
}

int main(void) {
    n_set = cpu_kernel_sets(sets);
    for (int i = 0; i < n_set; i++)
        print_message("kernel set %d: %s\n", i, sets[i]->name);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_weight_in_every_shape),
        cmocka_unit_test(sums_of_a_group_fit_int32),
        cmocka_unit_test(sums_of_activations_are_exact),
        cmocka_unit_test(long_rows_hold_what_short_ones_do),
        cmocka_unit_test(what_is_not_a_number_shows),
        cmocka_unit_test(tables_become_exact_words_where_they_can),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
