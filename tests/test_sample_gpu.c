/*
 * test_sample_gpu.c - sampling by the kernel beside the sampler itself (run/sampler.c), and
 * through the whole engine: the same seeds give the same tokens.
 *
 * Both must take the same token unless a border lies within rounding of where the draw, or
 * top-p, falls. With a = (x - max) / T of a token and p = exp(a), eps = 2^-24:
 *   a     x - max is the same. The sampler rounds a once; the kernel 1 / T and the product:
 * both are off by at most 3 eps |a| from each other, p by that factor exp   within 1 unit in
 * the last place (2 eps) here, 2 units (4 eps) on a device; together 6 sums  the sampler's in
 * double. The kernel cuts each p off by less than 2^-43: 2^-25 for 2^18 tokens, the best having
 * 1: eps / 2 So a part of the mass, or all of it, is off by (3 |a| + 7) eps, |a| being the mean
 * by p; their quotient by twice that: `near`. For top-p T is 1, so that a is the same, and the
 * sampler rounds each p / sum to float: 15 eps.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cuda_device.h"
#include "engine/backend.h"
#include "engine/run/sampler.h"
#include "rand.h"
#include "toy_file.h"
#include <math.h>
#include <string.h>

#define EPS 0x1p-24
/* Passes of an access to shared memory, on average. Tokens go to their ranks, and masses to the
 * bins of their logits: 16 numbers of 8 bytes that fall to 16 places at random meet 3.1 times
 * at the fullest. */
#define MAX_CONFLICT 3.3

enum { MAX_ROWS = 40, MAX_HISTORY = 300 };

static struct backend *dev;
static int n_checked, n_near; /* tokens; those that differ, where a border is near */

static int open_device(void **state) {
    (void)state;
    struct err err = {0};
    struct backend_limits lim = {16, 64, 1, 1, 64, false};
    dev = cuda_open();
    return dev && dev->reserve(dev, &lim, &err) == ST_OK ? 0 : -1;
}

static int close_device(void **state) {
    (void)state;
    dev->close(dev);
    return 0;
}

static void begin(void) {
    static const int32_t zeros[1];
    const struct step_seq seq = {.n_tok = 1, .blocks = zeros};
    const struct step s = {.T = 1, .seqs = &seq, .n_seq = 1, .tokens = zeros, .pos = zeros};
    dev->begin(dev, &s);
}

static void finish(void) {
    struct err err = {0};
    if (dev->finish(dev, &err) != ST_OK)
        fail_msg("%s", err.msg);
}

/* ---- rows ---- */

enum shape {
    NORMAL,
    WIDE,
    FLAT,
    PEAKED,
    ZIPF,
    STEPS, /* few different logits */
    EQUAL,
    MASKED, /* most are -infinity */
    ONE,    /* all but one */
    ZEROS,  /* 0 and -0, which are equal */
    N_SHAPE
};

static void fill(float *x, int n, enum shape shape) {
    for (int i = 0; i < n; i++) {
        float v = rand_normal(), part = (float)(rand_u32() % 1000);
        x[i] = shape == NORMAL   ? 3 * v
               : shape == WIDE   ? 40 * v
               : shape == FLAT   ? v / 1000
               : shape == ZIPF   ? -1.1f * logf((float)(rand_u32() % (uint32_t)n) + 1)
               : shape == STEPS  ? floorf(2 * v) / 2
               : shape == EQUAL  ? -3
               : shape == MASKED ? (part < 950 ? -INFINITY : 2 * v)
               : shape == ONE    ? -INFINITY
               : shape == ZEROS  ? (part < 500 ? 0.0f : -0.0f)
                                 : v;
    }
    if (shape == PEAKED || shape == MASKED || shape == ONE)
        x[rand_u32() % (uint32_t)n] = shape == PEAKED ? 14 : 5;
}

/* A row, how it is sampled, and the sampler's answer. */
struct row {
    float *x, *done; /* [n] logits; behind bias and penalties, as the sampler leaves them */
    struct sampling set;
    int32_t history[MAX_HISTORY];
    int n_history;
    double unit;
    enum status st;
    struct sampled want;
    struct err err;
};

static struct sampling plain(void) {
    return (struct sampling){.temperature = 1,
                             .top_p = 1,
                             .typical_p = 1,
                             .repeat_penalty = 1,
                             .repeat_last_n = -1,
                             .seed = 1};
}

static double one_of(const double *of, size_t n) {
    return of[rand_u32() % n];
}
#define ONE_OF(...)                                                                            \
    one_of((const double[]){__VA_ARGS__}, sizeof((double[]){__VA_ARGS__}) / sizeof(double))

/* Shares of equal tokens are no whole numbers of them, where rounding would decide. */
static struct sampling any_setting(int n) {
    struct sampling s = plain();
    s.temperature = ONE_OF(0, 1e-9, 0.1, 0.7, 1, 1, 1.5, 100);
    s.top_k = (int)ONE_OF(0, 0, 0, 1, 2, 40, 256, 257, 700, n - 1, n, n + 5);
    s.top_p = ONE_OF(1, 1, 0, 0.3017, 0.9003, 0.9501, 0.99907);
    s.min_p = ONE_OF(0, 0, 1e-6, 0.05, 0.4, 1);
    s.seed = rand_u32();
    if (rand_u32() % 3 == 0) {
        s.repeat_penalty = ONE_OF(1, 1.1, 1.5, 0.7);
        s.presence_penalty = ONE_OF(0, 0.5, -1);
        s.frequency_penalty = ONE_OF(0, 0.3, -0.2);
        s.repeat_last_n = (int)ONE_OF(0, 1, 64, 10000, -1);
    }
    return s;
}

static void make_row(struct row *r, int n, enum shape shape, const struct sampling *set) {
    *r = (struct row){.set = *set};
    r->x = xcalloc((size_t)n, sizeof *r->x);
    r->done = xcalloc((size_t)n, sizeof *r->x);
    fill(r->x, n, shape);
    r->n_history = (int)(rand_u32() % (MAX_HISTORY + 1));
    for (int i = 0; i < r->n_history; i++)
        r->history[i] = (int32_t)(rand_u32() % (rand_u32() % 2 ? (uint32_t)n : 1));
}

static void ask_sampler(struct row *r, int n) {
    struct sampler_scratch *w = sampler_scratch_new(n);
    struct sampler s;
    sampler_init(&s, &r->set, NULL, 0, 0);
    memcpy(r->done, r->x, (size_t)n * sizeof *r->x);
    r->st = sampler_next(&s, w, r->done, r->history, (size_t)r->n_history, &r->want, &r->err);
    sampler_scratch_free(w);
}

/* All rows in one call. */
static void ask_device(struct row *rows, int n_row, int n, struct sample_got *got) {
    static struct sample_token tokens[BACKEND_SAMPLE_TOKENS];
    struct sample_row lent[MAX_ROWS];
    struct sampler_scratch *w = sampler_scratch_new(n);
    size_t bytes = (size_t)n * sizeof(float);
    char *x = dev->alloc(dev, (size_t)n_row * bytes);
    int used = 0;
    for (int i = 0; i < n_row; i++) {
        struct sampler s;
        sampler_init(&s, &rows[i].set, NULL, 0, 0);
        assert_true(sampler_can_lend(&s));
        assert_true(sampler_lend(&s, w, rows[i].history, (size_t)rows[i].n_history,
                                 tokens + used, BACKEND_SAMPLE_TOKENS - used, &lent[i]));
        sampler_lend_draw(&s, &lent[i]);
        rows[i].unit = lent[i].unit;
        used += lent[i].n_token;
        dev->upload(dev, x + (size_t)i * bytes, rows[i].x, bytes);
    }
    begin();
    dev->sample(dev, lent, n_row, n, (float *)(void *)x, got);
    memset(lent, 0x7f, sizeof lent); /* they may change */
    memset(tokens, 0x7f, (size_t)used * sizeof *tokens);
    finish();
    dev->free(dev, x);
    sampler_scratch_free(w);
}

/* ---- the definition, in double ---- */

struct cand {
    float logit;
    int32_t token;
};

static int by_logit(const void *a, const void *b) {
    const struct cand *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit < y->logit ? 1 : -1;
    return x->token < y->token ? -1 : 1;
}

/* Whether a draw from the first n candidates may give the token. */
static bool may_draw(const struct cand *c, int n, const struct row *r, int32_t token) {
    double all = 0, before = 0, a_mean = 0, least = (double)c[0].logit, own = -1, own_at = 0;
    for (int i = 1; i < n; i++)
        least = fmax(least, (double)c[i].logit);
    double max = least;
    least += log(r->set.min_p);
    for (int i = 0; i < n; i++) {
        double a = ((double)c[i].logit - max) / r->set.temperature, p = exp(a);
        if ((double)c[i].logit < least)
            continue;
        if (c[i].token == token) {
            own = p;
            own_at = before;
        }
        before = all += p;
        a_mean += p > 0 ? p * -a : 0;
    }
    double near = 2 * (3 * a_mean / all + 7) * EPS, at = r->unit * all;
    return own > 0 && at >= own_at - near * all && at <= own_at + own + near * all;
}

/* Whether rounding may be why the kernel took another token than the sampler. */
static bool within_rounding(const struct row *r, int n, int32_t token) {
    const struct sampling *s = &r->set;
    struct cand *c = xcalloc((size_t)n, sizeof *c);
    bool may = false, limited = s->top_k > 0 && s->top_k < n;
    int kept = limited ? s->top_k : n;
    for (int i = 0; i < n; i++)
        c[i] = (struct cand){r->done[i], i};
    if (limited || s->top_p < 1)
        qsort(c, (size_t)n, sizeof *c, by_logit);
    if (s->top_p >= 1) {
        may = may_draw(c, kept, r, token);
    } else {
        double all = 0, mass = 0;
        for (int i = 0; i < kept; i++)
            all += exp((double)c[i].logit - (double)c[0].logit);
        for (int i = 0; i < kept && mass / all < s->top_p + 30 * EPS; i++) {
            mass += exp((double)c[i].logit - (double)c[0].logit);
            if (mass / all >= s->top_p - 30 * EPS || i + 1 == kept) /* the last may be this */
                may = may || may_draw(c, i + 1, r, token);
        }
    }
    free(c);
    return may;
}

static void check(struct row *rows, int n_row, int n) {
    struct sample_got got[MAX_ROWS];
    for (int i = 0; i < n_row; i++)
        ask_sampler(&rows[i], n);
    ask_device(rows, n_row, n, got);
    for (int i = 0; i < n_row; i++) {
        struct row *r = &rows[i];
        const struct sampling *s = &r->set;
        struct sampled have;
        struct err err = {0};
        enum status st = sampler_lent(&got[i], &have, &err);
        n_checked++;
        if (st != r->st)
            fail_msg("row %d of %d: status %d, wanted %d", i, n, st, r->st);
        if (st != ST_OK)
            assert_string_equal(err.msg, r->err.msg);
        if (st == ST_OK && have.token != r->want.token) {
            bool near = s->temperature > 0 && within_rounding(r, n, have.token);
            n_near += near;
            if (!near)
                fail_msg("%d tokens, row %d: token %d (logit %g), wanted %d (%g); temperature "
                         "%g top_k %d top_p %g min_p %g unit %.17g",
                         n, i, have.token, (double)r->done[have.token], r->want.token,
                         (double)r->done[r->want.token], s->temperature, s->top_k, s->top_p,
                         s->min_p, r->unit);
        }
        free(r->x);
        free(r->done);
    }
}

static void check_one(int n, enum shape shape, const struct sampling *set) {
    struct row r;
    make_row(&r, n, shape, set);
    check(&r, 1, n);
}

/* ---- tests ---- */

static void few_are_near(void) {
    print_message("%d of %d tokens differ, where a border is within rounding\n", n_near,
                  n_checked);
    assert_true(n_near * 100 <= n_checked);
    n_checked = n_near = 0;
}

static void tokens_are_those_of_the_sampler(void **state) {
    (void)state;
    static const int sizes[][2] = {/* n_vocab, calls */ {1, 10},
                                   {2, 20},
                                   {31, 60},
                                   {1000, 60},
                                   {1023, 20},
                                   {1024, 20},
                                   {1025, 40},
                                   {5003, 60},
                                   {49152, 10},
                                   {151937, 5}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int call = 0; call < sizes[i][1]; call++) {
            struct row rows[8];
            int n = sizes[i][0], n_row = 1 + call % 8;
            for (int j = 0; j < n_row; j++) {
                struct sampling set = any_setting(n);
                make_row(&rows[j], n, (enum shape)((call + j) % N_SHAPE), &set);
            }
            check(rows, n_row, n);
        }
    few_are_near();
}

/* Every shape in every way that the kernel has: the best; by tokens; a list; a search. */
static void every_shape_goes_every_way(void **state) {
    (void)state;
    enum { N = 7001 };
    const struct {
        double temperature;
        int top_k;
        double top_p, min_p;
    } ways[] = {{0, 0, 1, 0},       {1, 0, 1, 0},
                {1.3, 0, 1, 0.01},  {0.7, 40, 0.95, 0.05},
                {1, 256, 1, 0},     {1, 256, 0.9, 0.01},
                {1, 257, 1, 0},     {0.8, 3000, 0.9713, 0.002},
                {1, 6999, 0.5, 0},  {1, 0, 0.95, 0},
                {0.5, 0, 0.9, 0.1}, {2, 0, 0.9999, 0},
                {1, 0, 0.99, 1e-4}, {1e-300, 300, 0.9, 0},
                {100, 0, 0.8, 0.5}, {1, 1, 0.1, 1},
                {1, 500, 0, 0}};
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++)
        for (int shape = 0; shape < N_SHAPE; shape++) {
            struct row rows[3];
            for (int j = 0; j < 3; j++) {
                struct sampling set = plain();
                set.temperature = ways[w].temperature;
                set.top_k = ways[w].top_k;
                set.top_p = ways[w].top_p;
                set.min_p = ways[w].min_p;
                set.seed = rand_u32();
                make_row(&rows[j], N, (enum shape)shape, &set);
            }
            check(rows, 3, N);
        }
    few_are_near();
}

static void penalties_are_those_of_the_sampler(void **state) {
    (void)state;
    for (int i = 0; i < 200; i++) {
        struct sampling set = plain();
        set.temperature = i % 4 ? 0 : 1;
        set.repeat_penalty = ONE_OF(0.5, 1.3, 2);
        set.presence_penalty = ONE_OF(0, 1, -2);
        set.frequency_penalty = ONE_OF(0, 0.7, -0.4);
        set.repeat_last_n = (int)ONE_OF(1, 7, 64, -1);
        check_one(60, (enum shape)(i % N_SHAPE), &set);
    }
    few_are_near();
}

/* Forty rows, some of which have no token: the others have theirs. */
static void rows_do_not_touch_each_other(void **state) {
    (void)state;
    enum { N = 1500 };
    static const float bad[] = {NAN, -NAN, INFINITY};
    struct row rows[MAX_ROWS];
    for (int i = 0; i < MAX_ROWS; i++) {
        struct sampling set = any_setting(N);
        make_row(&rows[i], N, (enum shape)(i % N_SHAPE), &set);
        if (i % 4 == 1) {
            rows[i].x[(i * 37 + 1) % N] = bad[i / 4 % 3];
            rows[i].x[(i * 119 + 5) % N] = bad[(i / 4 + 1) % 3];
        }
        if (i % 8 == 2)
            for (int j = 0; j < N; j++)
                rows[i].x[j] = -INFINITY;
    }
    check(rows, MAX_ROWS, N);
    few_are_near();
}

/* Several calls of a step, as for more rows than logits have room. */
static void a_step_has_several_parts(void **state) {
    (void)state;
    enum { N = 300 };
    struct sample_got got[3] = {{0, 0}};
    struct sample_row lent = {.repeat = 1, .top_p = 1};
    float x[N], *on[3];
    begin();
    for (int i = 0; i < 3; i++) {
        fill(x, N, NORMAL);
        x[100 + i] = 50;
        on[i] = dev->alloc(dev, sizeof x);
        dev->upload(dev, on[i], x, sizeof x);
        dev->sample(dev, &lent, 1, N, on[i], &got[i]);
    }
    finish();
    for (int i = 0; i < 3; i++) {
        assert_int_equal(got[i].token, 100 + i);
        dev->free(dev, on[i]);
    }
}

static void what_a_device_lacks_is_not_lent(void **state) {
    (void)state;
    struct sampling set = plain();
    struct logit_bias bias = {1, 1};
    struct sample_token tokens[3];
    struct sample_row row;
    struct sampler s;
    struct sampler_scratch *w = sampler_scratch_new(10);
    const int32_t history[] = {1, 2, 3, 3, 4};
    sampler_init(&s, &set, &bias, 1, 0);
    assert_false(sampler_can_lend(&s));
    sampler_init(&s, &set, NULL, 0, 1);
    assert_false(sampler_can_lend(&s));
    set.typical_p = 0.9;
    sampler_init(&s, &set, NULL, 0, 0);
    assert_false(sampler_can_lend(&s));
    set.typical_p = 1;
    set.presence_penalty = 1;
    sampler_init(&s, &set, NULL, 0, 0);
    assert_true(sampler_can_lend(&s));
    assert_false(sampler_lend(&s, w, history, 5, tokens, 3, &row));
    assert_true(sampler_lend(&s, w, history, 4, tokens, 3, &row)); /* counts were cleared */
    assert_int_equal(row.n_token, 3);
    assert_int_equal(tokens[2].token, 3);
    assert_true(tokens[2].minus == 1);
    sampler_scratch_free(w);
}

static void the_kernel_races_nowhere_and_rarely_waits_for_banks(void **state) {
    void (*trace)(bool on) = NULL;
    int (*races)(void) = NULL;
    double (*conflict)(char where[64]) = NULL;
    char where[64];
    void *f[] = {shim_function("shim_trace"), shim_function("shim_races"),
                 shim_function("shim_worst_conflict")};
    if (!f[0])
        skip();
    memcpy(&trace, &f[0], sizeof trace);
    memcpy(&races, &f[1], sizeof races);
    memcpy(&conflict, &f[2], sizeof conflict);
    trace(true);
    rows_do_not_touch_each_other(state);
    static const struct {
        int top_k;
        double top_p;
    } ways[] = {{0, 1}, {40, 0.9}, {600, 0.9}, {0, 0.9}, {0, 0.9999}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        for (int j = 0; j < 2; j++) {
            struct sampling set = plain();
            set.top_k = ways[i].top_k;
            set.top_p = ways[i].top_p;
            check_one(3000, j ? NORMAL : FLAT, &set);
        }
    assert_int_equal(races(), 0);
    double worst = conflict(where);
    if (worst > MAX_CONFLICT)
        fail_msg("%s: %.2f passes in the place of one", where, worst);
    trace(false);
}

/* ---- the engine ---- */

enum { PROMPT = 40, ANSWER = 20 };

static struct engine *open_engine(const char *path, int n_gpu) {
    const struct engine_params p = {
        .ctx_tok = 256, .device = DEVICE_CUDA, .tensor_parallel = n_gpu};
    struct engine *e = NULL;
    struct err err = {0};
    if (engine_open(path, &p, &e, &err) != ST_OK)
        fail_msg("%s", err.msg);
    return e;
}

/* Asks n sessions at once for max_tok tokens; out [n][ANSWER], how many came in n_out, -1: it
 * failed, and err says why. */
static void ask(struct session **s, const struct sampling *set, int n, int max_tok,
                int n_logprobs, int32_t out[][ANSWER], int *n_out, struct err *err) {
    struct mailbox *m = mailbox_new(event_free);
    for (int i = 0; i < n; i++) {
        int32_t prompt[PROMPT];
        for (int j = 0; j < PROMPT; j++)
            prompt[j] = (j * 31 + set[i].seed * 17) % 250;
        struct request r = {.tokens = prompt,
                            .n_tok = PROMPT,
                            .max_tok = max_tok,
                            .ignore_eos = true,
                            .sampling = set[i],
                            .n_logprobs = n_logprobs};
        n_out[i] = 0;
        if (session_generate(s[i], &r, (uint64_t)i, m, err) != ST_OK)
            fail_msg("%s", err->msg);
    }
    for (int ended = 0; ended < n;) {
        struct event *ev = mailbox_wait(m, -1);
        int i = (int)ev->request_id;
        if (ev->type == EVENT_TOKEN && ev->token >= 0 && n_out[i] < ANSWER)
            out[i][n_out[i]++] = ev->token;
        if (ev->type == EVENT_ERROR) {
            n_out[i] = -1;
            *err = ev->err;
        }
        ended += ev->type == EVENT_FINISHED || ev->type == EVENT_ERROR;
        event_free(ev);
    }
    mailbox_unref(m);
}

/* Log probabilities are the host's business, so that asking for them moves all sampling there.
 * Prompts are computed alone first: batches of up to four tokens have the bits of one, and so
 * both answers have the same logits, whoever comes to a step. */
static void says_the_same(const char *settings, int n_gpu) {
    enum { N = 4 };
    char dir[] = "/tmp/llmchat-test-sample-XXXXXX";
    char *path = toy_file(dir, settings, QUANT_NF4);
    assert_non_null(path);
    struct engine *e = open_engine(path, n_gpu);
    struct err err = {0};
    struct session *s[N];
    struct sampling set[N];
    int32_t host[N][ANSWER], device[N][ANSWER];
    int n_host[N], n_device[N];
    for (int i = 0; i < N; i++) {
        set[i] = (struct sampling)SAMPLING_DEFAULTS;
        set[i].seed = 11 + i;
        s[i] = session_new(e);
    }
    set[1].temperature = 0;
    set[2].top_k = 0;
    set[2].repeat_penalty = 1.3;
    set[3].top_k = 0;
    set[3].top_p = 1;
    set[3].frequency_penalty = 0.5;
    for (int i = 0; i < N; i++)
        ask(s + i, set + i, 1, 0, 0, host + i, n_host + i, &err);
    ask(s, set, N, ANSWER, 1, host, n_host, &err);
    ask(s, set, N, ANSWER, 0, device, n_device, &err);
    for (int i = 0; i < N; i++) {
        assert_int_equal(n_host[i], ANSWER);
        assert_int_equal(n_device[i], ANSWER);
        assert_memory_equal(host[i], device[i], sizeof host[i]);
    }
    if (shim_function("shim_trace")) { /* it was the kernel, and it was not */
        setenv("LLMCHAT_SHIM_FAIL", "sample", 1);
        ask(s, set, N, ANSWER, 1, host, n_host, &err);
        assert_int_equal(n_host[0], ANSWER);
        ask(s, set, 1, ANSWER, 0, device, n_device, &err);
        assert_int_equal(n_device[0], -1);
        assert_non_null(strstr(err.msg, "sample: the shim was told to fail"));
        unsetenv("LLMCHAT_SHIM_FAIL");
    }
    for (int i = 0; i < N; i++)
        session_free(s[i]);
    engine_close(e);
    toy_file_free(dir, path);
}

static void an_engine_says_the_same_either_way(void **state) {
    (void)state;
    if (!getenv("MKMODEL"))
        skip();
    says_the_same("ctx=512", 1);
}

static void so_does_one_over_two_devices(void **state) {
    (void)state;
    if (!getenv("MKMODEL") || !nccl_is_here())
        skip();
    says_the_same("ctx=512 embd=128 ff=256", 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_those_of_the_sampler),
        cmocka_unit_test(every_shape_goes_every_way),
        cmocka_unit_test(penalties_are_those_of_the_sampler),
        cmocka_unit_test(rows_do_not_touch_each_other),
        cmocka_unit_test(a_step_has_several_parts),
        cmocka_unit_test(what_a_device_lacks_is_not_lent),
        cmocka_unit_test(the_kernel_races_nowhere_and_rarely_waits_for_banks),
        cmocka_unit_test(an_engine_says_the_same_either_way),
        cmocka_unit_test(so_does_one_over_two_devices),
    };
    if (!cuda_is_here()) {
        print_message("no C++ compiler: kernels do not run on the host\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, open_device, close_device);
}
