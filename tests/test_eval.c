/*
 * test_eval.c - perplexity and saved logits over the fake graph, whose logits are known, so
 * that the results can be computed here a second time, in double and without windows, chunks or
 * files.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/path.h"
#include "engine/engine.h"
#include "fake_graph.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CTX = 64, N_TOK = 300 };

static char dir[] = "/tmp/llmchat-test-eval-XXXXXX";

static struct engine *open_engine(void) {
    struct engine_params p = {.ctx_tok = 256, .kv_bytes = 40 * FAKE_BLOCK_BYTES};
    struct engine *e;
    struct err err = {0};
    if (engine_open("fake", &p, &e, &err) != ST_OK)
        fail_msg("%s", err.msg);
    return e;
}

static void text(int32_t *tokens) {
    for (int i = 0; i < N_TOK; i++)
        tokens[i] = 'a' + (i * i + i / 7) % 26;
}

/* log p of all tokens behind n tokens of a window */
static void logp_of(const int32_t *tokens, int n, double *logp) {
    float logits[FAKE_VOCAB];
    double sum = 0;
    fake_logits(tokens, (size_t)n, logits);
    for (int i = 0; i < FAKE_VOCAB; i++)
        sum += exp(logits[i]);
    for (int i = 0; i < FAKE_VOCAB; i++)
        logp[i] = logits[i] - log(sum);
}

static int setup(void **state) {
    (void)state;
    fake_reset();
    return 0;
}

static void perplexity_scores_the_second_half_of_each_window(void **state) {
    (void)state;
    struct engine *e = open_engine();
    int32_t t[N_TOK];
    struct err err;
    struct eval_result r;
    text(t);
    double nll = 0, logp[FAKE_VOCAB];
    int n = 0;
    for (int w = 0; w < N_TOK / CTX; w++)
        for (int at = CTX / 2; at <= CTX - 2; at++, n++) {
            logp_of(t + w * CTX, at + 1, logp);
            nll -= logp[t[w * CTX + at + 1]];
        }
    const struct eval_params p = {.ctx = CTX};
    assert_int_equal(engine_perplexity(e, t, N_TOK, &p, &r, &err), ST_OK);
    assert_int_equal(r.windows, 4);
    assert_int_equal(r.tokens, 4 * 31);
    assert_int_equal(n, 4 * 31);
    assert_float_equal(r.mean_nll, nll / n, 1e-5);
    assert_float_equal(r.perplexity, exp(nll / n), 1e-3);
    assert_true(r.nll_stderr > 0);
    assert_false(r.has_kl);
    engine_close(e);
}

static void perplexity_names_a_text_that_is_too_short(void **state) {
    (void)state;
    struct engine *e = open_engine();
    int32_t t[N_TOK];
    struct err err;
    struct eval_result r;
    text(t);
    struct eval_params p = {.ctx = CTX};
    assert_int_equal(engine_perplexity(e, t, CTX - 1, &p, &r, &err), ST_USAGE);
    assert_non_null(strstr(err.msg, "63 tokens"));
    p.ctx = 257;
    assert_int_equal(engine_perplexity(e, t, N_TOK, &p, &r, &err), ST_USAGE);
    t[10] = FAKE_VOCAB;
    p.ctx = 0; /* the default is cut to the context */
    assert_int_equal(engine_perplexity(e, t, N_TOK, &p, &r, &err), ST_USAGE);
    t[10] = 'a';
    assert_int_equal(engine_perplexity(e, t, N_TOK, &p, &r, &err), ST_OK);
    assert_int_equal(r.tokens, 127);
    engine_close(e);
}

static bool until_two(void *user, int done, int total) {
    assert_int_equal(total, 4);
    *(int *)user = done;
    return done < 2;
}

static void perplexity_can_be_cancelled_and_leaves_no_file(void **state) {
    (void)state;
    struct engine *e = open_engine();
    int32_t t[N_TOK];
    int done = 0;
    struct err err;
    struct eval_result r;
    text(t);
    char *path = path_join(dir, "cancelled");
    const struct eval_params p = {
        .ctx = CTX, .progress = until_two, .user = &done, .save_logits = path};
    assert_int_equal(engine_perplexity(e, t, N_TOK, &p, &r, &err), ST_CANCELLED);
    assert_int_equal(done, 2);
    assert_int_equal(access(path, F_OK), -1);
    free(path);
    engine_close(e);
}

static void perplexity_fails_with_the_step(void **state) {
    (void)state;
    struct engine *e = open_engine();
    int32_t t[N_TOK];
    struct err err;
    struct eval_result r;
    text(t);
    const struct eval_params p = {.ctx = CTX};
    fake.fail_at = 3;
    assert_int_equal(engine_perplexity(e, t, N_TOK, &p, &r, &err), ST_NOMEM);
    fake.fail_at = 0;
    fake.nan_at = fake.n_forward + 1;
    assert_int_equal(engine_perplexity(e, t, CTX, &p, &r, &err), ST_INTERNAL);
    fake.nan_at = 0;
    assert_int_equal(engine_perplexity(e, t, N_TOK, &p, &r, &err), ST_OK);
    engine_close(e);
}

/* The second model differs by fake.script alone: where the history holds '#', another token is
 * best. */
static void divergence_is_that_of_the_two_models(void **state) {
    (void)state;
    int32_t t[N_TOK];
    struct err err;
    struct eval_result r;
    double base[FAKE_VOCAB], mine[FAKE_VOCAB], kl = 0;
    int n = 0, same = 0;
    text(t);
    t[20] = '#';
    t[150] = '#';
    char *path = path_join(dir, "base");
    struct eval_params save = {.ctx = CTX, .save_logits = path};
    struct eval_params compare = {.ctx = CTX, .kl_base = path};

    struct engine *e = open_engine();
    assert_int_equal(engine_perplexity(e, t, N_TOK, &save, &r, &err), ST_OK);
    assert_int_equal(engine_perplexity(e, t, N_TOK, &compare, &r, &err), ST_OK);
    assert_true(r.has_kl);
    assert_float_equal(r.kl, 0, 1e-7);
    assert_float_equal(r.top1, 1, 0);

    fake.script =
        "the quick brown fox jumps over the lazy dog and then some more of it goes on";
    assert_int_equal(engine_perplexity(e, t, N_TOK, &compare, &r, &err), ST_OK);
    for (int w = 0; w < N_TOK / CTX; w++)
        for (int at = CTX / 2; at <= CTX - 2; at++, n++) {
            const char *script = fake.script;
            logp_of(t + w * CTX, at + 1, mine);
            int32_t best = fake_next(t + w * CTX, (size_t)at + 1);
            fake.script = NULL;
            logp_of(t + w * CTX, at + 1, base);
            same += best == fake_next(t + w * CTX, (size_t)at + 1);
            fake.script = script;
            for (int v = 0; v < FAKE_VOCAB; v++)
                kl += exp(base[v]) * (base[v] - mine[v]);
        }
    assert_true(kl > 1);
    /* a log p is off by half a step at most, 24 / 65535 / 2 = 0.0002 nats */
    assert_float_equal(r.kl, kl / n, 2e-4);
    assert_float_equal(r.top1, (double)same / n, 1e-9);
    engine_close(e);
    free(path);
}

static void a_base_of_another_kind_is_refused_by_name(void **state) {
    (void)state;
    int32_t t[N_TOK];
    struct err err;
    struct eval_result r;
    text(t);
    char *path = path_join(dir, "file"), *bad = path_join(dir, "bad");
    struct engine *e = open_engine();
    struct eval_params p = {.ctx = CTX, .save_logits = path};
    assert_int_equal(engine_perplexity(e, t, N_TOK, &p, &r, &err), ST_OK);
    struct buf good = {0};
    assert_int_equal(file_read(path, 1 << 20, &good, &err), ST_OK);
    const struct {
        size_t at; /* this byte is changed; 0: none */
        size_t len;
        const char *words;
    } cases[] = {
        {1, good.len, "not a file of saved logits"},
        {8, good.len, "version"},
        {12, good.len, "vocabulary"},
        {16, good.len, "window of tokens"},
        {20, good.len, "number of windows"},
        {24 + 4, good.len, "another text"},
        {0, good.len - 1, "bytes, wanted"},
        {0, 10, "not a file of saved logits"},
        {0, 0, "not a file of saved logits"},
        {24 + 4 * 256 + 3, good.len, "a row with best"}, /* the number of the best token */
    };
    struct eval_params compare = {.ctx = CTX, .kl_base = bad};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *copy = xmalloc(good.len);
        memcpy(copy, good.p, good.len);
        copy[cases[i].at] ^= cases[i].at ? 0x40 : 0;
        assert_int_equal(file_write_atomic(bad, copy, cases[i].len, &err), ST_OK);
        assert_int_equal(engine_perplexity(e, t, N_TOK, &compare, &r, &err), ST_FORMAT);
        assert_non_null(strstr(err.msg, cases[i].words));
        free(copy);
    }
    unlink(bad);
    assert_int_not_equal(engine_perplexity(e, t, N_TOK, &compare, &r, &err), ST_OK);
    compare.kl_base = path;
    compare.ctx = 32;
    assert_int_equal(engine_perplexity(e, t, N_TOK, &compare, &r, &err), ST_FORMAT);
    buf_release(&good);
    free(path);
    free(bad);
    engine_close(e);
}

static int remove_dir(void **state) {
    (void)state;
    const char *names[] = {"base", "file", "bad", "cancelled"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = path_join(dir, names[i]);
        unlink(path);
        free(path);
    }
    return rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(perplexity_scores_the_second_half_of_each_window, setup),
        cmocka_unit_test_setup(perplexity_names_a_text_that_is_too_short, setup),
        cmocka_unit_test_setup(perplexity_can_be_cancelled_and_leaves_no_file, setup),
        cmocka_unit_test_setup(perplexity_fails_with_the_step, setup),
        cmocka_unit_test_setup(divergence_is_that_of_the_two_models, setup),
        cmocka_unit_test_setup(a_base_of_another_kind_is_refused_by_name, setup),
    };
    if (!mkdtemp(dir))
        return 1;
    return cmocka_run_group_tests(tests, NULL, remove_dir);
}
