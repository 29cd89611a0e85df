/* test_bench.c - the statistics of `llmchat bench`: what other benchmarks compute, too. */
#include "cmd/bench.h"
#include <math.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define NEAR(a, b) assert_true(fabs((a) - (b)) < 1e-9)

static void percentiles_interpolate_as_numpy_does(void **state) {
    (void)state;
    const double v[] = {1, 2, 4, 8, 16};
    NEAR(percentile(v, 5, 0), 1);
    NEAR(percentile(v, 5, 1), 16);
    NEAR(percentile(v, 5, 0.5), 4);
    NEAR(percentile(v, 5, 0.3), 2.4); /* numpy.percentile([1, 2, 4, 8, 16], 30) */
    NEAR(percentile(v, 5, 0.99), 15.68);
    NEAR(percentile(v, 1, 0.99), 1);
    NEAR(percentile(v, 0, 0.5), 0);
}

static void summary_of_an_even_number_is_between_the_middle_two(void **state) {
    (void)state;
    struct series s = {0};
    const double v[] = {9, 1, 4, 2};
    for (int i = 0; i < 4; i++)
        series_add(&s, v[i]);
    struct summary m = series_summary(&s);
    NEAR(m.median, 3);
    NEAR(m.mean, 4);
    NEAR(m.min, 1);
    NEAR(m.max, 9);
    NEAR(m.stddev, sqrt(38.0 / 3)); /* of a sample */
    series_release(&s);
}

static void summary_of_one_has_no_spread_and_of_none_is_zero(void **state) {
    (void)state;
    struct series s = {0};
    NEAR(series_summary(&s).median, 0);
    series_add(&s, 7);
    struct summary m = series_summary(&s);
    NEAR(m.median, 7);
    NEAR(m.p99, 7);
    NEAR(m.stddev, 0);
    series_release(&s);
}

static void a_seed_gives_the_same_numbers_and_another_gives_others(void **state) {
    (void)state;
    uint64_t a, b, c;
    int same = 0;
    bench_seed(&a, 0);
    bench_seed(&b, 0);
    bench_seed(&c, 1);
    for (int i = 0; i < 100; i++) {
        uint32_t x = bench_random(&a);
        assert_int_equal(x, bench_random(&b));
        same += x == bench_random(&c);
    }
    assert_true(same < 3);
}

/* The mean of 100,000 waits at 4 a second is 0.25 s, give or take 0.25 / sqrt(100000) = 0.0008;
 * six times that would be luck once in 10^9. Of an exponential distribution
 * 1/e of the waits are longer than the mean: 0.3679, give or take 0.0015. */
static void arrivals_are_a_poisson_process(void **state) {
    (void)state;
    enum { N = 100000 };
    uint64_t r;
    double sum = 0;
    int longer = 0;
    bench_seed(&r, 5);
    for (int i = 0; i < N; i++) {
        double s = bench_wait_s(&r, 4);
        assert_true(s >= 0);
        sum += s;
        longer += s > 0.25;
    }
    assert_true(fabs(sum / N - 0.25) < 6 * 0.0008);
    assert_true(fabs((double)longer / N - exp(-1)) < 6 * 0.0015);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_interpolate_as_numpy_does),
        cmocka_unit_test(summary_of_an_even_number_is_between_the_middle_two),
        cmocka_unit_test(summary_of_one_has_no_spread_and_of_none_is_zero),
        cmocka_unit_test(a_seed_gives_the_same_numbers_and_another_gives_others),
        cmocka_unit_test(arrivals_are_a_poisson_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
