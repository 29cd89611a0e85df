/*
 * test_sampler.c - the sampler on distributions small enough to work out by hand, and draws
 * against their probabilities.
 *
 * The chi-squared tests use fixed seeds, so they always give the same number; the limits are
 * the 99.9 % points of the distribution for the degrees of freedom at hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/run/sampler.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct sampling plain = {.temperature = 1,
                                      .top_p = 1,
                                      .typical_p = 1,
                                      .repeat_penalty = 1,
                                      .repeat_last_n = -1,
                                      .seed = 1};

/* Draws n times from logits and counts; the settings' seed runs on through the draws. */
static void count_draws(const struct sampling *set, const float *logits, int n_vocab, int n,
                        int *count) {
    struct sampler_scratch *w = sampler_scratch_new(n_vocab);
    float *copy = xcalloc((size_t)n_vocab, sizeof *copy);
    struct sampler s;
    sampler_init(&s, set, NULL, 0, 0);
    memset(count, 0, (size_t)n_vocab * sizeof *count);
    for (int i = 0; i < n; i++) {
        struct sampled out;
        struct err err;
        memcpy(copy, logits, (size_t)n_vocab * sizeof *copy);
        assert_int_equal(sampler_next(&s, w, copy, NULL, 0, &out, &err), ST_OK);
        count[out.token]++;
    }
    free(copy);
    sampler_scratch_free(w);
}

static int32_t next(const struct sampling *set, const float *logits, int n_vocab,
                    const int32_t *history, size_t n_history, const struct logit_bias *bias,
                    size_t n_bias) {
    struct sampler_scratch *w = sampler_scratch_new(n_vocab);
    float *copy = xcalloc((size_t)n_vocab, sizeof *copy);
    memcpy(copy, logits, (size_t)n_vocab * sizeof *copy);
    struct sampler s;
    struct sampled out;
    struct err err;
    sampler_init(&s, set, bias, n_bias, 0);
    assert_int_equal(sampler_next(&s, w, copy, history, n_history, &out, &err), ST_OK);
    free(copy);
    sampler_scratch_free(w);
    return out.token;
}

static double chi_squared(const int *count, const double *p, int n_vocab, int n) {
    double x = 0;
    for (int i = 0; i < n_vocab; i++) {
        if (p[i] == 0) {
            assert_int_equal(count[i], 0);
            continue;
        }
        double want = p[i] * n;
        x += (count[i] - want) * (count[i] - want) / want;
    }
    return x;
}

static void logs(float *logits, const double *p, int n) {
    for (int i = 0; i < n; i++)
        logits[i] = p[i] > 0 ? (float)log(p[i]) : -INFINITY;
}

/* First outputs for the state {1, 2, 3, 4}, worked out by hand from the published definition:
 * rotl(2 * 5, 7) * 9 = 1280 * 9 = 11520; then s[1] = 2 ^ (3 ^ 1) = 0 gives 0. */
static void rng_follows_the_published_definition(void **state) {
    (void)state;
    struct rng r = {{1, 2, 3, 4}};
    assert_int_equal(rng_next(&r), 11520);
    assert_int_equal(rng_next(&r), 0);
    assert_int_equal(rng_next(&r), 1509978240);
}

static void sampler_draws_as_often_as_the_probabilities_say(void **state) {
    (void)state;
    const double p[6] = {0.4, 0.25, 0.2, 0.1, 0.05, 0};
    float logits[6];
    int count[6];
    logs(logits, p, 6);
    count_draws(&plain, logits, 6, 20000, count);
    assert_true(chi_squared(count, p, 6, 20000) < 18.47); /* 4 degrees of freedom */
}

static void sampler_temperature_sharpens_and_flattens(void **state) {
    (void)state;
    const double p[3] = {0.5, 0.3, 0.2};
    float logits[3];
    int count[3];
    logs(logits, p, 3);
    const double temperature[2] = {0.5, 2};
    for (int t = 0; t < 2; t++) {
        struct sampling set = plain;
        set.temperature = temperature[t];
        double q[3], sum = 0;
        for (int i = 0; i < 3; i++)
            sum += q[i] = pow(p[i], 1 / temperature[t]);
        for (int i = 0; i < 3; i++)
            q[i] /= sum;
        count_draws(&set, logits, 3, 20000, count);
        assert_true(chi_squared(count, q, 3, 20000) < 13.82); /* 2 */
    }
}

static void sampler_same_seed_gives_same_tokens(void **state) {
    (void)state;
    float logits[50];
    int a[50], b[50], c[50];
    for (int i = 0; i < 50; i++)
        logits[i] = (float)(i % 7) / 3;
    struct sampling set = plain;
    count_draws(&set, logits, 50, 300, a);
    count_draws(&set, logits, 50, 300, b);
    set.seed = 2;
    count_draws(&set, logits, 50, 300, c);
    assert_memory_equal(a, b, sizeof a);
    assert_memory_not_equal(a, c, sizeof a);
}

static void sampler_draws_a_seed_when_it_is_minus_one(void **state) {
    (void)state;
    struct sampling set = plain;
    set.seed = -1;
    struct sampler a, b;
    sampler_init(&a, &set, NULL, 0, 0);
    sampler_init(&b, &set, NULL, 0, 0);
    assert_true(a.set.seed >= 0 && b.set.seed >= 0);
    struct sampler again;
    sampler_init(&again, &a.set, NULL, 0, 0);
    assert_int_equal(rng_next(&again.rng), rng_next(&a.rng));
}

static void sampler_greedy_takes_the_best_and_the_lower_of_equals(void **state) {
    (void)state;
    struct sampling set = plain;
    set.temperature = 0;
    const float logits[5] = {-1, 3, 0.5f, 3, 2};
    assert_int_equal(next(&set, logits, 5, NULL, 0, NULL, 0), 1);
}

static void sampler_top_k_keeps_the_k_best(void **state) {
    (void)state;
    const double p[6] = {0.05, 0.4, 0.1, 0.2, 0.25, 0};
    const double q[6] = {0, 0.4 / 0.85, 0, 0.2 / 0.85, 0.25 / 0.85, 0};
    float logits[6];
    int count[6];
    logs(logits, p, 6);
    struct sampling set = plain;
    set.top_k = 3;
    count_draws(&set, logits, 6, 20000, count);
    assert_true(chi_squared(count, q, 6, 20000) < 13.82);
}

static int by_value_down(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Against a full sort, with many equal logits: every token drawn is among the k best values. */
static void sampler_top_k_agrees_with_a_full_sort(void **state) {
    (void)state;
    enum { N = 3000 };
    float logits[N], sorted[N];
    static int count[N];
    uint32_t r = 7;
    for (int i = 0; i < N; i++) {
        r = r * 1664525u + 1013904223u;
        sorted[i] = logits[i] = (float)(r >> 20) / 4096 * 2;
    }
    qsort(sorted, N, sizeof *sorted, by_value_down);
    const int ks[] = {1, 2, 40, 700, N - 1};
    for (size_t k = 0; k < sizeof ks / sizeof *ks; k++) {
        struct sampling set = plain;
        set.top_k = ks[k];
        set.temperature = 5;
        count_draws(&set, logits, N, 2000, count);
        int kinds = 0;
        for (int i = 0; i < N; i++) {
            kinds += count[i] > 0;
            if (count[i])
                assert_true(logits[i] >= sorted[ks[k] - 1]);
        }
        assert_true(kinds <= ks[k] && kinds >= (ks[k] < 40 ? ks[k] : 40));
    }
}

/* Probabilities are powers of two, so the sums are exact: 1/2 + 1/4 reaches 0.75 with two
 * tokens. */
static void sampler_top_p_keeps_the_smallest_set_that_reaches_p(void **state) {
    (void)state;
    const double p[5] = {0.125, 0.5, 0.0625, 0.25, 0.0625};
    float logits[5];
    int count[5];
    logs(logits, p, 5);
    const struct {
        double top_p;
        int top_k;
        bool kept[5];
    } cases[] = {
        {0.7, 0, {0, 1, 0, 1, 0}},  {0.5, 0, {0, 1, 0, 0, 0}}, {0.76, 0, {1, 1, 0, 1, 0}},
        {0.9, 0, {1, 1, 1, 1, 0}},  {0, 0, {0, 1, 0, 0, 0}},   {0.7, 4, {0, 1, 0, 1, 0}},
        {0.55, 3, {0, 1, 0, 0, 0}}, /* after top-k 3 the best has 0.5 / 0.875 = 0.571 */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sampling set = plain;
        set.top_p = cases[i].top_p;
        set.top_k = cases[i].top_k;
        count_draws(&set, logits, 5, 2000, count);
        for (int t = 0; t < 5; t++)
            assert_int_equal(count[t] > 0, cases[i].kept[t]);
    }
}

static void sampler_min_p_is_relative_to_the_best(void **state) {
    (void)state;
    const double p[5] = {0.1, 0.5, 0.04, 0.3, 0.06};
    float logits[5];
    int count[5];
    logs(logits, p, 5);
    struct sampling set = plain;
    set.min_p = 0.15; /* 0.075 and more */
    count_draws(&set, logits, 5, 2000, count);
    const bool kept[5] = {1, 1, 0, 1, 0};
    for (int t = 0; t < 5; t++)
        assert_int_equal(count[t] > 0, kept[t]);
}

/* p = {0.7, 0.1, 0.1, 0.05, 0.05}: the entropy is 1.010 nats; -log p - entropy is
 * -0.653, 1.293, 1.293, 1.986, 1.986. Nearest is token 0 with 0.7; 0.75 is passed with the
 * next, the lower of the equal ones. */
static void sampler_typical_takes_the_nearest_to_the_entropy(void **state) {
    (void)state;
    const double p[5] = {0.7, 0.1, 0.1, 0.05, 0.05};
    float logits[5];
    int count[5];
    logs(logits, p, 5);
    struct sampling set = plain;
    set.typical_p = 0.6;
    count_draws(&set, logits, 5, 1000, count);
    assert_int_equal(count[0], 1000);
    set.typical_p = 0.75;
    count_draws(&set, logits, 5, 1000, count);
    assert_int_equal(count[0] + count[1], 1000);
    assert_true(count[1] > 50);

    /* The most likely token need not be typical: with 0.3 and 14 times 0.05 the entropy
     * is 2.458, so 0.05 (2.996, 0.538 away) is nearer than 0.3 (1.204, 1.254 away). */
    double q[15];
    float flat[15];
    int c[15];
    q[0] = 0.3;
    for (int i = 1; i < 15; i++)
        q[i] = 0.05;
    logs(flat, q, 15);
    set.typical_p = 0.5;
    count_draws(&set, flat, 15, 2000, c);
    assert_int_equal(c[0], 0);
    assert_true(c[1] > 0 && c[10] > 0 && c[12] == 0); /* 0.05 * 11 > 0.5, float sums aside */
}

static void sampler_penalties_follow_the_window(void **state) {
    (void)state;
    struct sampling set = plain;
    set.temperature = 0;
    const int32_t history[] = {2, 0, 0, 1};
    const float logits[4] = {2.0f, 1.9f, 1.8f, -1.0f};
    assert_int_equal(next(&set, logits, 4, history, 4, NULL, 0), 0);
    set.repeat_penalty = 2; /* 1.0, 0.95, 0.9, -1 */
    assert_int_equal(next(&set, logits, 4, history, 4, NULL, 0), 0);
    set.repeat_last_n = 3; /* token 2 is not in the window */
    assert_int_equal(next(&set, logits, 4, history, 4, NULL, 0), 2);
    set.repeat_last_n = 1;
    assert_int_equal(next(&set, logits, 4, history, 4, NULL, 0), 0);
    set.repeat_last_n = 0;
    assert_int_equal(next(&set, logits, 4, history, 4, NULL, 0), 0);

    set.repeat_penalty = 1;
    set.repeat_last_n = -1;
    set.presence_penalty = 0.5; /* 1.5, 1.4, 1.3: once, however often it came */
    assert_int_equal(next(&set, logits, 4, history, 4, NULL, 0), 0);
    set.presence_penalty = 0;
    set.frequency_penalty = 0.15; /* 1.7, 1.75, 1.65 */
    assert_int_equal(next(&set, logits, 4, history, 4, NULL, 0), 1);
}

/* A negative logit is multiplied, so the penalty always makes a token less likely. */
static void sampler_repeat_penalty_lowers_negative_logits(void **state) {
    (void)state;
    struct sampling set = plain;
    set.temperature = 0;
    set.repeat_penalty = 1.5;
    const int32_t history[] = {0};
    const float logits[2] = {-1.0f, -1.2f};
    assert_int_equal(next(&set, logits, 2, history, 1, NULL, 0), 1);
}

static void sampler_bias_raises_and_forbids(void **state) {
    (void)state;
    struct sampling set = plain;
    set.temperature = 0;
    const float logits[3] = {1, 2, 3};
    const struct logit_bias up = {0, 2.5f}, ban[2] = {{2, -INFINITY}, {1, -1.5f}};
    assert_int_equal(next(&set, logits, 3, NULL, 0, &up, 1), 0);
    assert_int_equal(next(&set, logits, 3, NULL, 0, ban, 2), 0);
}

static void sampler_logprobs_are_of_the_raw_logits(void **state) {
    (void)state;
    const double p[4] = {0.1, 0.2, 0.4, 0.3};
    float logits[4];
    logs(logits, p, 4);
    for (int i = 0; i < 4; i++)
        logits[i] += 7; /* a shift changes nothing */
    struct sampler_scratch *w = sampler_scratch_new(4);
    const struct logit_bias bias = {0, 50};
    struct sampling set = plain;
    set.temperature = 0.1;
    struct sampler s;
    struct sampled out;
    struct err err;
    sampler_init(&s, &set, &bias, 1, 3);
    assert_int_equal(sampler_next(&s, w, logits, NULL, 0, &out, &err), ST_OK);
    assert_int_equal(out.token, 0);
    assert_float_equal(out.logprob, log(0.1), 1e-5);
    assert_int_equal(out.n_alt, 3);
    const int32_t best[3] = {2, 3, 1};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(out.alt[i].token, best[i]);
        assert_float_equal(out.alt[i].logprob, log(p[best[i]]), 1e-5);
    }
    sampler_scratch_free(w);
}

static void sampler_names_a_logit_that_is_no_number(void **state) {
    (void)state;
    struct sampler_scratch *w = sampler_scratch_new(4);
    const float bad[3] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        float logits[4] = {0, 1, 2, 3};
        struct sampler s;
        struct sampled out;
        struct err err = {0};
        logits[2] = bad[i];
        sampler_init(&s, &plain, NULL, 0, 2);
        enum status st = sampler_next(&s, w, logits, NULL, 0, &out, &err);
        assert_int_equal(st, i < 2 ? ST_INTERNAL : ST_OK);
        if (i < 2)
            assert_non_null(strstr(err.msg, "token 2"));
    }
    float none[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    struct sampler s;
    struct sampled out;
    struct err err;
    sampler_init(&s, &plain, NULL, 0, 0);
    assert_int_equal(sampler_next(&s, w, none, NULL, 0, &out, &err), ST_INTERNAL);
    sampler_scratch_free(w);
}

/* A best logit, a tie behind it and something that is no number, at every place of a vocabulary
 * of whole spans and a part of one. */
static void sampler_sees_every_place_of_a_vocabulary(void **state) {
    (void)state;
    enum { N = 64 * 3 + 17 };
    struct sampling set = plain;
    set.temperature = 0;
    for (int at = 0; at < N; at++) {
        float logits[N];
        for (int i = 0; i < N; i++)
            logits[i] = i % 3 ? -(float)i - 1 : -INFINITY;
        logits[at] = 1;
        if (at % 2 && at + 5 < N)
            logits[at + 5] = 1;
        assert_int_equal(next(&set, logits, N, NULL, 0, NULL, 0), at);
        assert_int_equal(sampler_best(logits, N), at);
        const float wrong[] = {NAN, -NAN, INFINITY};
        struct sampler_scratch *w = sampler_scratch_new(N);
        struct sampler s;
        struct sampled out;
        struct err err;
        sampler_init(&s, &set, NULL, 0, 0);
        logits[at] = wrong[at % 3];
        assert_int_equal(sampler_next(&s, w, logits, NULL, 0, &out, &err), ST_INTERNAL);
        sampler_scratch_free(w);
    }
}

static void sampler_check_names_the_setting(void **state) {
    (void)state;
    struct err err;
    struct sampling set = SAMPLING_DEFAULTS;
    assert_int_equal(sampling_check(&set, &err), ST_OK);
    set.top_p = 1.5;
    assert_int_equal(sampling_check(&set, &err), ST_USAGE);
    assert_string_equal(err.msg, "top_p is 1.5, wanted 0 to 1");
    set = plain;
    set.temperature = NAN;
    assert_int_equal(sampling_check(&set, &err), ST_USAGE);
    assert_non_null(strstr(err.msg, "temperature"));
    set = plain;
    set.seed = -2;
    assert_int_equal(sampling_check(&set, &err), ST_USAGE);
}

/* Everything at once on a large vocabulary with ugly logits: a token always comes. */
static void sampler_survives_every_mix_of_settings(void **state) {
    (void)state;
    enum { N = 5000 };
    struct sampler_scratch *w = sampler_scratch_new(N);
    static float logits[N];
    uint32_t r = 99;
    for (int mix = 0; mix < 400; mix++) {
        int32_t history[64];
        for (int i = 0; i < N; i++) {
            r = r * 1664525u + 1013904223u;
            logits[i] = r % 11 == 0 ? -INFINITY : ((float)(r >> 8) / (1 << 24) - 0.5f) * 60;
        }
        for (int i = 0; i < 64; i++)
            history[i] = (int)((r >> (i % 16)) % N);
        struct sampling set = {.temperature = mix % 5 == 0 ? 1e-6 : mix % 7,
                               .top_k = mix % 3 ? mix * 13 : 0,
                               .top_p = mix % 4 / 3.0,
                               .min_p = mix % 6 / 5.0,
                               .typical_p = mix % 8 / 7.0,
                               .repeat_penalty = 0.5 + mix % 9,
                               .repeat_last_n = mix % 70 - 1,
                               .presence_penalty = mix % 3,
                               .frequency_penalty = mix % 2,
                               .seed = mix};
        struct sampler s;
        struct sampled out;
        struct err err;
        assert_int_equal(sampling_check(&set, &err), ST_OK);
        sampler_init(&s, &set, NULL, 0, mix % 21);
        assert_int_equal(sampler_next(&s, w, logits, history, 64, &out, &err), ST_OK);
        assert_in_range(out.token, 0, N - 1);
        assert_true(logits[out.token] > -INFINITY);
    }
    sampler_scratch_free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rng_follows_the_published_definition),
        cmocka_unit_test(sampler_draws_as_often_as_the_probabilities_say),
        cmocka_unit_test(sampler_temperature_sharpens_and_flattens),
        cmocka_unit_test(sampler_same_seed_gives_same_tokens),
        cmocka_unit_test(sampler_draws_a_seed_when_it_is_minus_one),
        cmocka_unit_test(sampler_greedy_takes_the_best_and_the_lower_of_equals),
        cmocka_unit_test(sampler_top_k_keeps_the_k_best),
        cmocka_unit_test(sampler_top_k_agrees_with_a_full_sort),
        cmocka_unit_test(sampler_top_p_keeps_the_smallest_set_that_reaches_p),
        cmocka_unit_test(sampler_min_p_is_relative_to_the_best),
        cmocka_unit_test(sampler_typical_takes_the_nearest_to_the_entropy),
        cmocka_unit_test(sampler_penalties_follow_the_window),
        cmocka_unit_test(sampler_repeat_penalty_lowers_negative_logits),
        cmocka_unit_test(sampler_bias_raises_and_forbids),
        cmocka_unit_test(sampler_logprobs_are_of_the_raw_logits),
        cmocka_unit_test(sampler_names_a_logit_that_is_no_number),
        cmocka_unit_test(sampler_sees_every_place_of_a_vocabulary),
        cmocka_unit_test(sampler_check_names_the_setting),
        cmocka_unit_test(sampler_survives_every_mix_of_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
