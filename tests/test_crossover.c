/*
 * test_crossover.c - borders between kernels: what follows from times that are made up, the
 * file, and what a device does with both. No test reads a clock: the shim's counts launches
 * (tests/shim/device.cc), and on a real device only that a border is one is looked at.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/path.h"
#include "cuda_device.h"
#include "engine/cuda/crossover.h"
#include "ok.h"
#include "weight_kinds.h"
#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char dir[] = "/tmp/llmchat-crossover-XXXXXX";
static char *file; /* dir/crossovers */
static bool device_here;

static int setup(void **state) {
    (void)state;
    device_here = cuda_is_here();
    if (!mkdtemp(dir))
        return -1;
    file = path_join(dir, "crossovers");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    unlink(file);
    free(file);
    return rmdir(dir); /* nothing else is left there */
}

static void write_file(const char *text) {
    OK(file_write_atomic(file, text, strlen(text), &e));
}

/* The caller frees. */
static char *read_file(void) {
    struct buf b = {0};
    OK(file_read(file, 1 << 20, &b, &e));
    buf_addc(&b, 0);
    return buf_take(&b);
}

/* ---- times ---- */

static void the_border_is_where_the_curves_cross(void **state) {
    (void)state;
    static const struct {
        double fused[CROSSOVER_POINTS], other[CROSSOVER_POINTS];
        int border;
    } cases[] = {
        {{1, 2, 3, 4, 5, 6}, {7, 7, 7, 7, 7, 7}, GPU_GEMM_TOK},
        {{8, 8, 8, 8, 8, 8}, {7, 7, 7, 7, 7, 7}, GPU_GEMV_TOK},
        {{1, 2, 3, 4, 5, 6}, {3.5, 3.5, 3.5, 3.5, 3.5, 3.5}, 24},
        {{1, 2, 3, 4, 5, 6}, {1.5, 1.5, 1.5, 1.5, 1.5, 1.5}, 8},
        {{1, 1, 1, 1, 1, 9}, {2, 2, 2, 2, 2, 2}, 48},
        {{5, 5, 5, 5, 5, 5}, {5, 5, 5, 5, 5, 5}, GPU_GEMM_TOK}, /* as good: read once */
        {{1, 1, 5, 5, 5, 9}, {2, 2, 5, 5, 5, 5}, 48},
        /* crossing three times: 6.1 with 24, 7 with 8, 8 with 4 */
        {{1, 1.1, 1, 2, 2, 2}, {2, 1, 2, 1, 1, 1}, 24},
        /* 6.5 with 8, 7.5 with 4, 8 with 24 */
        {{1, 3, 1, 2, 2, 2}, {2, 1, 1.5, 1, 1, 1}, 8},
        /* relative: 8 tokens in 1 us or 3 count for more than 64 in 100 or 120 */
        {{1, 20, 40, 60, 80, 120}, {3, 19, 39, 59, 79, 100}, 8},
        /* faster from 16 to 48 alone: 7 with 48, 9 with 4, 12 with 64 */
        {{2, 1, 1, 1, 1, 6}, {1, 2, 2, 2, 1, 1}, 48},
        /* the same, but 10 with 48 and 9 with 4 */
        {{5, 1, 1, 1, 1, 6}, {1, 2, 2, 2, 1, 1}, GPU_GEMV_TOK},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(crossover_border(cases[i].fused, cases[i].other), cases[i].border);
}

static void no_other_border_would_cost_less(void **state) {
    (void)state;
    for (int round = 0; round < 1000; round++) {
        double t[2][CROSSOVER_POINTS], least = INFINITY, got = INFINITY;
        for (int i = 0; i < CROSSOVER_POINTS; i++)
            for (int way = 0; way < 2; way++)
                t[way][i] = 1 + rand_u32() % 64;
        int border = crossover_border(t[0], t[1]);
        for (int n = -1; n < CROSSOVER_POINTS; n++) {
            int tok = n < 0 ? GPU_GEMV_TOK : crossover_points[n];
            double sum = 0;
            for (int i = 0; i < CROSSOVER_POINTS; i++) {
                double mine = crossover_points[i] <= tok ? t[0][i] : t[1][i];
                sum += mine / (t[0][i] < t[1][i] ? t[0][i] : t[1][i]);
            }
            least = fmin(least, sum);
            got = tok == border ? sum : got;
        }
        assert_true(got <= least + 1e-12);
    }
}

static void times_that_are_none_give_no_border(void **state) {
    (void)state;
    const double bad[] = {0, -1, NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (int at = 0; at < 2 * CROSSOVER_POINTS; at++) {
            double t[2][CROSSOVER_POINTS];
            for (int j = 0; j < 2 * CROSSOVER_POINTS; j++)
                t[j / CROSSOVER_POINTS][j % CROSSOVER_POINTS] = j == at ? bad[i] : 1 + j;
            assert_int_equal(crossover_border(t[0], t[1]), 0);
        }
}

/* A device whose runs take what a function says. */
struct clocked {
    struct gpu gpu;
    double (*us)(int turn, bool fused);
    int n_run;
    double last;
};

static void run_clocked(void *user, int T, bool fused) {
    struct clocked *c = user;
    (void)T;
    c->last = c->us(c->n_run++ / (2 * CROSSOVER_POINTS), fused);
}
static void not_timed(void *user) {
    (void)user;
}
static void no_mark(struct gpu *g, int end) {
    (void)g;
    (void)end;
}
static double last_us(struct gpu *g) {
    return ((struct clocked *)(void *)g)->last;
}

/* The first turn loads kernels, the second meets somebody else's work on the card. */
static double disturbed(int turn, bool fused) {
    return turn == 0 ? 50000 : fused ? (turn == 1 ? 1000 : 10) : 20;
}
static double long_runs(int turn, bool fused) {
    (void)turn;
    return fused ? 20000 : 10000;
}

static void loading_kernels_leaves_time_to_measure(void **state) {
    (void)state;
    struct clocked c = {.gpu = {.mark = no_mark, .between_us = last_us}, .us = disturbed};
    const struct crossover_trial trial = {not_timed, run_clocked, &c};
    assert_int_equal(crossover_measure(&c.gpu, &trial), GPU_GEMM_TOK);
    c.us = long_runs;
    c.n_run = 0;
    assert_int_equal(crossover_measure(&c.gpu, &trial), GPU_GEMV_TOK);
    assert_int_equal(c.n_run, 2 * 2 * CROSSOVER_POINTS);
}

static void each_weight_has_its_kind(void **state) {
    (void)state;
    static const float min = 0;
    static const struct {
        struct weight w;
        enum crossover_kind kind;
    } cases[] = {
        {{.type = WEIGHT_Q4, .group = 64}, CROSSOVER_Q4},
        {{.type = WEIGHT_Q4, .group = 32}, CROSSOVER_Q4},
        {{.type = WEIGHT_Q4, .group = 16}, CROSSOVER_Q4_MIN},
        {{.type = WEIGHT_Q4, .group = 32, .min = &min}, CROSSOVER_Q4_MIN},
        {{.type = WEIGHT_I8, .group = 32}, CROSSOVER_I8},
        {{.type = WEIGHT_I8, .group = 64, .min = &min}, CROSSOVER_I8},
        {{.type = WEIGHT_I8, .group = 64, .row_scaled = true}, CROSSOVER_I8_ROWS},
        {{.type = WEIGHT_BF16}, CROSSOVER_16},
        {{.type = WEIGHT_F16}, CROSSOVER_16},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(crossover_kind(&cases[i].w), cases[i].kind);
}

/* ---- the file ---- */

static const struct gpu_info card = {
    .name = "NVIDIA H200", .major = 9, .runtime = 12080, .driver = 12090};

static void expect(const struct gpu_info *info, struct crossover want) {
    struct crossover x = {0};
    crossover_read(file, info, &x);
    assert_memory_equal(&x, &want, sizeof x);
}

static void what_is_written_is_read(void **state) {
    (void)state;
    const struct crossover all = {{4, 8, 48, 64, 24}}, one = {{[CROSSOVER_I8] = 16}};
    unlink(file);
    expect(&card, (struct crossover){0});
    OK(crossover_write(file, &card, &one, &e));
    expect(&card, one);
    OK(crossover_write(file, &card, &all, &e));
    expect(&card, all);
    OK(crossover_write(file, &card, &one, &e)); /* others stay */
    expect(&card, (struct crossover){{4, 8, 16, 64, 24}});
    struct stat st;
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    char *text = read_file(), *last = strstr(text, "int8 16 ");
    assert_non_null(last);
    assert_string_equal(last + 8, LLMCHAT_VERSION " 4 12080 12090 9.0 NVIDIA H200\n");
    free(text);
    /* what is not in the file stays what it was */
    struct crossover mine = {{[CROSSOVER_Q4] = 32}};
    unlink(file);
    OK(crossover_write(file, &card, &one, &e));
    crossover_read(file, &card, &mine);
    assert_int_equal(mine.tok[CROSSOVER_Q4], 32);
    assert_int_equal(mine.tok[CROSSOVER_I8], 16);
}

static void each_device_has_its_own(void **state) {
    (void)state;
    const struct crossover here = {{8, 8, 8, 8, 8}}, there = {{48, 48, 48, 48, 48}};
    struct gpu_info other[5] = {card, card, card, card, card};
    snprintf(other[0].name, sizeof other[0].name, "NVIDIA H20");
    other[1].major = 8;
    other[2].minor = 1;
    other[3].runtime++;
    other[4].driver++;
    for (int i = 0; i < 5; i++) {
        unlink(file);
        OK(crossover_write(file, &card, &here, &e));
        expect(&other[i], (struct crossover){0});
        OK(crossover_write(file, &other[i], &there, &e));
        expect(&other[i], there);
        expect(&card, here);
    }
}

static void a_name_can_not_break_a_line(void **state) {
    (void)state;
    const struct crossover x = {{[CROSSOVER_Q4] = 16}};
    struct gpu_info odd = card;
    snprintf(odd.name, sizeof odd.name, "A\nq4 8 B");
    unlink(file);
    OK(crossover_write(file, &odd, &x, &e));
    expect(&odd, x);
    char *text = read_file();
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    free(text);
}

_Static_assert(GPU_VERSION == 4, "the lines below, and those in test_cli.sh, have it");
#define OWN LLMCHAT_VERSION " 4 12080 12090 9.0 NVIDIA H200"

static void damaged_lines_are_passed_over(void **state) {
    (void)state;
    static const char *const damaged[] = {
        "",
        " ",
        "q4",
        "q4 ",
        "q4 16",
        "q4 16 ",
        "q4 16\t" OWN,
        "q4 16x " OWN,
        "q4 -16 " OWN,
        "q4 +16 " OWN,
        "q4  16 " OWN,
        "q4 016 " OWN,
        "q4 0x10 " OWN,
        "q4 3 " OWN,
        "q4 65 " OWN,
        "q4 99999999999999999999 " OWN,
        "q 16 " OWN,
        "q44 16 " OWN,
        " q4 16 " OWN,
        "Q4 16 " OWN,
        "16 q4 " OWN,
        "# q4 16 " OWN,
        "q4 16 0.0 2 12080 12090 9.0 NVIDIA H200",                 /* another program's, */
        "q4 16 " LLMCHAT_VERSION " 1 12080 12090 9.0 NVIDIA H200", /* of another table */
        "q4 16 " OWN " ",
        "q4 16 " OWN "\r",
    };
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        char *text = xasprintf("int8 24 " OWN "\n%s\n16-bit 32 " OWN "\n", damaged[i]);
        write_file(text);
        expect(&card, (struct crossover){{[CROSSOVER_I8] = 24, [CROSSOVER_16] = 32}});
        free(text);
    }
    for (int tok = 0; tok < 100; tok++) { /* borders that can be */
        char *text = xasprintf("q4 %d " OWN "\n", tok);
        write_file(text);
        expect(&card, (struct crossover){{tok >= 4 && tok <= 64 ? tok : 0}});
        free(text);
    }
}

static void a_file_that_is_not_ours_is_measured_again(void **state) {
    (void)state;
    const struct crossover x = {{[CROSSOVER_Q4] = 16}};
    write_file("int8 24 " OWN "\nq4 16 " OWN); /* cut: perhaps it was another name */
    expect(&card, (struct crossover){{[CROSSOVER_I8] = 24}});
    static const char zero[] = "q4 16 " OWN "\0\nint8 \0 24 " OWN "\n16-bit 32 " OWN "\n";
    OK(file_write_atomic(file, zero, sizeof zero - 1, &e));
    expect(&card, (struct crossover){{[CROSSOVER_16] = 32}});
    struct buf b = {0};
    buf_adds(&b, "q4 32 " OWN "\nq4 16 ");
    for (int i = 0; i < 500; i++)
        buf_addc(&b, 'x');
    buf_adds(&b, "\nq4 8 x\n");
    write_file(b.p);
    OK(crossover_write(file, &card, &x, &e)); /* others' lines stay, the long one goes */
    char *text = read_file();
    assert_string_equal(text, "q4 8 x\nq4 16 " OWN "\n");
    free(text);
    while (b.len < 1 << 17)
        buf_adds(&b, "q4 32 " OWN "\n");
    write_file(b.p);
    expect(&card, (struct crossover){0});
    OK(crossover_write(file, &card, &x, &e));
    expect(&card, x);
    buf_release(&b);
}

static void where_no_file_can_be_is_an_error(void **state) {
    (void)state;
    const struct crossover x = {{[CROSSOVER_Q4] = 16}};
    unlink(file);
    assert_int_equal(mkdir(file, 0700), 0);
    expect(&card, (struct crossover){0});
    assert_int_equal(crossover_write(file, &card, &x, &e), ST_IO);
    assert_int_equal(rmdir(file), 0);
    char *nowhere = path_join(dir, "none/crossovers");
    assert_int_not_equal(crossover_write(nowhere, &card, &x, &e), ST_OK);
    free(nowhere);
}

static void the_oldest_lines_go(void **state) {
    (void)state;
    enum { CARDS = 60, LEFT = 50 };
    const struct crossover x = {{8, 16}}, none = {0};
    struct gpu_info info = card;
    unlink(file);
    for (int i = 0; i < CARDS; i++) {
        info.driver = i + 1;
        OK(crossover_write(file, &info, &x, &e));
    }
    for (int i = 0; i < CARDS; i++) {
        info.driver = i + 1;
        expect(&info, i < CARDS - LEFT ? none : x);
    }
}

/* A reader never sees a part of what one of two writers wrote. */
static void writers_replace_the_whole_file(void **state) {
    (void)state;
    enum { WRITES = 60 };
    const struct crossover x[2] = {{{8, 8, 8, 8, 8}}, {{48, 48, 48, 48, 48}}};
    pid_t child[2];
    unlink(file);
    OK(crossover_write(file, &card, &x[0], &e));
    for (int i = 0; i < 2; i++) {
        child[i] = fork();
        assert_true(child[i] >= 0);
        for (int n = 0; child[i] == 0; n++) {
            struct err err = {0};
            if (n == WRITES)
                _exit(0);
            if (crossover_write(file, &card, &x[i], &err) != ST_OK)
                _exit(1);
        }
    }
    for (int done = 0; done < 2;) {
        struct crossover got = {0};
        int status = 0;
        crossover_read(file, &card, &got);
        assert_true(memcmp(&got, &x[0], sizeof got) == 0 ||
                    memcmp(&got, &x[1], sizeof got) == 0);
        if (waitpid(-1, &status, WNOHANG) > 0) {
            assert_int_equal(status, 0);
            done++;
        }
    }
}

/* ---- on a device ---- */

enum { MAX_K = 1024 };

/* With one scale a row. */
static void row_scaled_make(struct weight *w, int N, int K) {
    static const struct kind kind = {"rows", WEIGHT_I8, BY_SCALE, 64, false, NULL, 0};
    size_t n = (size_t)N * (size_t)weight_pad_k(K), G = (size_t)weight_pad_k(K) / 64;
    uint8_t *code = xcalloc(n, 1);
    float *scale = xcalloc((size_t)N * G, sizeof *scale);
    for (size_t i = 0; i < n; i++)
        code[i] = (uint8_t)(rand_u32() & 255);
    for (size_t i = 0; i < (size_t)N * G; i++)
        scale[i] = 0.001f * (float)(i / G % 7 + 1);
    weight_pack_codes(w, kind.type, N, (int)(n / (size_t)N), 64, code, scale, NULL, NULL);
    w->K = K;
    free(code);
    free(scale);
}

static const struct kind min_32 = {"min", WEIGHT_Q4, BY_SCALE, 32, true, from_zero, 0};

static void kind_make(struct weight *w, enum crossover_kind kind, int N, int K) {
    static const struct kind nf4 = {"nf4", WEIGHT_Q4, PACKED, 64, false, nf4_table, 0};
    static const struct kind int8 = {"int8", WEIGHT_I8, PACKED, 64, false, NULL, 0};
    static const struct kind bf16 = {"bf16", WEIGHT_BF16, PACKED, 64, false, NULL, 0};
    static const struct kind *const made[CROSSOVER_KINDS] = {&nf4, &min_32, &int8, NULL, &bf16};
    if (kind == CROSSOVER_I8_ROWS)
        row_scaled_make(w, N, K);
    else
        weight_make(w, made[kind], N, K);
}

/* A device with one weight of a kind; the caller closes and releases. */
static struct backend *open_with(enum crossover_kind kind, int N, int K, int max_tok,
                                 struct weight *w, struct weight *bound) {
    struct backend_limits lim = {max_tok, MAX_K, 8, 8, 128, true};
    struct backend *be = cuda_open();
    assert_non_null(be);
    kind_make(w, kind, N, K);
    OK(be->bind(be, w, bound, &e));
    assert_int_equal(crossover_kind(bound), kind);
    OK(be->reserve(be, &lim, &e));
    return be;
}

static bool shim_here(void) {
    return device_here && shim_function("shim_trace") != NULL;
}

/* Whether a product of T tokens asks for a kernel, which fails then; each time on a device of
 * its own, since a failure stays. */
static bool asks_for(const char *kernel, enum crossover_kind kind, int T) {
    enum { N = 40, K = 192, LDY = 64 };
    struct weight w, bound;
    struct backend *be = open_with(kind, N, K, 64, &w, &bound);
    float *x = be->alloc(be, 64 * K * sizeof *x), *y = be->alloc(be, 64 * LDY * sizeof *y);
    OK(cuda_learn_crossovers(be, file, &e));
    setenv("LLMCHAT_SHIM_FAIL", kernel, 1);
    be->matmul(be, x, T, K, &(struct matmul_out){&bound, y, LDY, NULL}, 1);
    unsetenv("LLMCHAT_SHIM_FAIL");
    bool failed = be->finish(be, &e) != ST_OK;
    be->free(be, x);
    be->free(be, y);
    be->close(be);
    weight_pack_release(&w);
    return failed;
}

static const struct {
    enum crossover_kind kind;
    const char *fused, *other;
} ways[] = {
    {CROSSOVER_Q4, "q4gemm", "unpack"},  {CROSSOVER_Q4_MIN, "gemm", "unpack"},
    {CROSSOVER_I8, "gemm", "unpack"},    {CROSSOVER_16, "gemm", "unpack"},
    {CROSSOVER_I8_ROWS, "gemm", "w8a8"},
};
enum { N_WAYS = sizeof ways / sizeof *ways };

static struct gpu_info device_info(void) {
    struct backend *be = cuda_open();
    assert_non_null(be);
    struct gpu_info info = cuda_gpu(be)->info;
    be->close(be);
    return info;
}

static void a_kept_border_decides(void **state) {
    (void)state;
    if (!shim_here())
        skip();
    struct gpu_info info = device_info();
    for (int i = 0; i < N_WAYS; i++)
        for (int tok = 4; tok <= 24; tok += 20) {
            struct crossover x = {{0}};
            x.tok[ways[i].kind] = tok;
            unlink(file);
            OK(crossover_write(file, &info, &x, &e));
            assert_false(asks_for(ways[i].other, ways[i].kind, tok));
            assert_true(asks_for(ways[i].other, ways[i].kind, tok + 1));
            assert_false(asks_for(ways[i].fused, ways[i].kind, tok + 1));
            assert_true(tok == 4 || asks_for(ways[i].fused, ways[i].kind, tok));
        }
}

static void small_weights_leave_the_usual_border(void **state) {
    (void)state;
    if (!shim_here())
        skip();
    unlink(file);
    for (int i = 0; i < N_WAYS; i++) {
        assert_false(asks_for(ways[i].other, ways[i].kind, 64));
        assert_true(asks_for(ways[i].fused, ways[i].kind, 64));
    }
    assert_int_not_equal(access(file, F_OK), 0);
    struct weight w, bound; /* nor may there be fewer tokens than are tried */
    struct backend *be = open_with(CROSSOVER_16, 1024, 1024, 63, &w, &bound);
    OK(cuda_learn_crossovers(be, file, &e));
    assert_int_not_equal(access(file, F_OK), 0);
    be->close(be);
    weight_pack_release(&w);
}

/* What the device measures of a kind; `slow` is. */
static enum status measured(enum crossover_kind kind, const char *slow, struct crossover *x,
                            struct err *err) {
    struct weight w, bound;
    struct backend *be = open_with(kind, 1024, 1024, 64, &w, &bound);
    if (slow)
        setenv("LLMCHAT_SHIM_SLOW", slow, 1);
    enum status st = cuda_learn_crossovers(be, file, err);
    unsetenv("LLMCHAT_SHIM_SLOW");
    crossover_read(file, &cuda_gpu(be)->info, x);
    be->close(be);
    weight_pack_release(&w);
    return st;
}

/* On the shim the fused way has fewer launches (to_16 or to_pairs and one), or as many as
 * w8a8(). */
static void a_device_measures(void **state) {
    (void)state;
    if (!device_here)
        skip();
    for (int i = 0; i < N_WAYS; i += shim_here() ? N_WAYS : 1) {
        struct crossover x = {{0}};
        unlink(file);
        OK(measured(ways[i].kind, NULL, &x, &e));
        int tok = x.tok[ways[i].kind];
        bool possible = tok == GPU_GEMV_TOK;
        for (int p = 0; p < CROSSOVER_POINTS; p++)
            possible = possible || tok == crossover_points[p];
        assert_true(possible);
        for (int k = 0; k < CROSSOVER_KINDS; k++)
            assert_true(k == (int)ways[i].kind || x.tok[k] == 0);
        if (shim_here())
            assert_int_equal(tok, GPU_GEMM_TOK);
        else
            print_message("%s against %s: up to %d tokens\n", ways[i].fused, ways[i].other,
                          tok);
    }
}

/* And stays so when it is no longer slow, since it is not measured again. */
static void a_slow_kernel_is_avoided(void **state) {
    (void)state;
    if (!shim_here())
        skip();
    for (int i = 0; i < N_WAYS; i += SLOWLY ? N_WAYS : 2) {
        struct crossover x = {{0}}, again = {{0}};
        unlink(file);
        OK(measured(ways[i].kind, ways[i].fused, &x, &e));
        assert_int_equal(x.tok[ways[i].kind], GPU_GEMV_TOK);
        OK(measured(ways[i].kind, NULL, &again, &e));
        assert_memory_equal(&x, &again, sizeof x);
        assert_true(asks_for(ways[i].other, ways[i].kind, 5));
    }
}

static void what_can_not_be_kept_is_used(void **state) {
    (void)state;
    struct weight w, bound;
    if (!shim_here())
        skip();
    unlink(file);
    char *nowhere = path_join(dir, "none/crossovers");
    struct backend *be = open_with(CROSSOVER_16, 1024, 1024, 64, &w, &bound);
    float *x = be->alloc(be, 64 * 1024 * 4), *y = be->alloc(be, 64 * 1024 * 4);
    setenv("LLMCHAT_SHIM_SLOW", "gemm", 1);
    OK(cuda_learn_crossovers(be, nowhere, &e));
    unsetenv("LLMCHAT_SHIM_SLOW");
    setenv("LLMCHAT_SHIM_FAIL", "gemm", 1);
    be->matmul(be, x, 5, 1024, &(struct matmul_out){&bound, y, 1024, NULL}, 1);
    unsetenv("LLMCHAT_SHIM_FAIL");
    OK(be->finish(be, &e));
    be->free(be, x);
    be->free(be, y);
    be->close(be);
    weight_pack_release(&w);
    free(nowhere);
}

static void a_device_that_fails_has_no_border(void **state) {
    (void)state;
    struct crossover x = {{0}};
    if (!shim_here())
        skip();
    unlink(file);
    setenv("LLMCHAT_SHIM_FAIL", "unpack", 1);
    enum status st = measured(CROSSOVER_16, NULL, &x, &e);
    unsetenv("LLMCHAT_SHIM_FAIL");
    assert_int_equal(st, ST_DEVICE);
    assert_non_null(strstr(e.msg, "unpack"));
    assert_int_not_equal(access(file, F_OK), 0);
}

/* Largest magnitude of the 64 inputs that k is one of. */
static double group_top(const float *x, int k) {
    double top = 0;
    for (int i = k / 64 * 64; i < k / 64 * 64 + 64; i++)
        top = fmax(top, fabs((double)x[i]));
    return top;
}

/* Both ways, from 5 tokens on. With A = sum of |w| |x|, eps = 2^-24: f32 sums are off by
 * (K + 8) eps A at most; activations and weights in bf16 by 2^-8 of each factor, 0x1.01p-7 A
 * together; with digits an activation by half a step of its group, its largest / 254. Scales
 * and minimums are added to weights in f32, which eps covers with what they consist of. */
static void products_are_right_on_both_sides(void **state) {
    (void)state;
    enum { N = 40, K = 192, LDY = 64, T_MAX = 33 };
    static const int tokens[] = {5, 8, 9, T_MAX};
    if (!device_here)
        skip();
    struct gpu_info info = device_info();
    for (int i = 0; i < 2 * N_WAYS; i++) {
        enum crossover_kind kind = ways[i / 2].kind;
        struct crossover cross = {{0}};
        struct weight w, bound;
        float x[T_MAX * K], y[T_MAX * LDY], row[K];
        cross.tok[kind] = i % 2 ? GPU_GEMV_TOK : GPU_GEMM_TOK;
        unlink(file);
        OK(crossover_write(file, &info, &cross, &e));
        struct backend *be = open_with(kind, N, K, 64, &w, &bound);
        float *dx = be->alloc(be, sizeof x), *dy = be->alloc(be, sizeof y);
        OK(cuda_learn_crossovers(be, file, &e));
        rand_fill(x, T_MAX * K, 1);
        be->upload(be, dx, x, sizeof x);
        for (size_t j = 0; j < sizeof tokens / sizeof *tokens; j++) {
            be->matmul(be, dx, tokens[j], K, &(struct matmul_out){&bound, dy, LDY, NULL}, 1);
            be->download(be, y, dy, sizeof y);
            OK(be->finish(be, &e));
            for (int n = 0; n < N; n++) {
                weight_unpack_row(&w, n, row);
                for (int t = 0; t < tokens[j]; t++) {
                    double want = 0, A = 0, step = 0;
                    for (int k = 0; k < K; k++) {
                        double m =
                            w.min ? fabs((double)weight_group_min(&w, n, k / w.group)) : 0;
                        double v = (double)row[k], u = (double)x[t * K + k];
                        want += v * u;
                        A += (fabs(v) + 2 * m) * fabs(u);
                        step += fabs(v) * group_top(x + t * K, k) / 254;
                    }
                    double off = (K + 8) * 0x1p-24 * A + 1e-6 +
                                 (kind == CROSSOVER_I8_ROWS && i % 2 ? step : 0x1.01p-7 * A);
                    assert_true(fabs((double)y[t * LDY + n] - want) <= off);
                }
            }
        }
        be->free(be, dx);
        be->free(be, dy);
        be->close(be);
        weight_pack_release(&w);
    }
}

/* The second and third step of eight sequences; whether the third was a recording. */
static bool third_is_recorded(enum crossover_kind kind) {
    enum { T = 8, N = 40, K = 192, LDY = 64 };
    static const int32_t zeros[T], block[1];
    struct step_seq seqs[T];
    struct weight w, bound;
    struct backend *be = open_with(kind, N, K, 64, &w, &bound);
    float *x = be->alloc(be, T * K * sizeof *x), *y = be->alloc(be, T * LDY * sizeof *y);
    bool again = false;
    for (int i = 0; i < T; i++)
        seqs[i] = (struct step_seq){i, 1, 0, block};
    const struct step s = {.T = T,
                           .seqs = seqs,
                           .n_seq = T,
                           .tokens = zeros,
                           .pos = zeros,
                           .rows = zeros,
                           .n_rows = T};
    OK(cuda_learn_crossovers(be, file, &e));
    for (int i = 0; i < 3; i++) {
        be->begin(be, &s);
        again = be->step_again(be);
        if (!again) {
            be->matmul(be, x, T, K, &(struct matmul_out){&bound, y, LDY, NULL}, 1);
            be->step_over(be);
        }
        OK(be->finish(be, &e));
    }
    be->free(be, x);
    be->free(be, y);
    be->close(be);
    weight_pack_release(&w);
    return again;
}

static void steps_with_cublas_are_not_recorded(void **state) {
    (void)state;
    if (!device_here)
        skip();
    struct gpu_info info = device_info();
    for (int i = 0; i < N_WAYS; i++) {
        struct crossover x = {{0}};
        x.tok[ways[i].kind] = 8;
        unlink(file);
        OK(crossover_write(file, &info, &x, &e));
        assert_true(third_is_recorded(ways[i].kind));
        x.tok[ways[i].kind] = 4;
        OK(crossover_write(file, &info, &x, &e));
        assert_int_equal(third_is_recorded(ways[i].kind), ways[i].kind == CROSSOVER_I8_ROWS);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_border_is_where_the_curves_cross),
        cmocka_unit_test(no_other_border_would_cost_less),
        cmocka_unit_test(times_that_are_none_give_no_border),
        cmocka_unit_test(loading_kernels_leaves_time_to_measure),
        cmocka_unit_test(each_weight_has_its_kind),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(each_device_has_its_own),
        cmocka_unit_test(a_name_can_not_break_a_line),
        cmocka_unit_test(damaged_lines_are_passed_over),
        cmocka_unit_test(a_file_that_is_not_ours_is_measured_again),
        cmocka_unit_test(where_no_file_can_be_is_an_error),
        cmocka_unit_test(the_oldest_lines_go),
        cmocka_unit_test(writers_replace_the_whole_file),
        cmocka_unit_test(a_kept_border_decides),
        cmocka_unit_test(small_weights_leave_the_usual_border),
        cmocka_unit_test(a_device_measures),
        cmocka_unit_test(a_slow_kernel_is_avoided),
        cmocka_unit_test(what_can_not_be_kept_is_used),
        cmocka_unit_test(a_device_that_fails_has_no_border),
        cmocka_unit_test(products_are_right_on_both_sides),
        cmocka_unit_test(steps_with_cublas_are_not_recorded),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
