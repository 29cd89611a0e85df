/*
 * test_logits.c - the default model's logits and greedy text against PyTorch
 * (tests/oracle/logits.py), through the whole path: GGUF, conversion, mapping, layer graph,
 * with each kernel set of this CPU but the scalar one.
 *
 * The bound for f32. Each of the 30 layers adds two terms to the residual stream, each off by
 * sums of up to 1536 products in another order: 2^-24 sqrt(1536) = 2.3e-6 relative, over 60
 * independent terms 1.8e-5, and the model amplifies by a few times between its first layers and
 * the logits. Logits reach 33: 33 * 1.8e-5 = 6e-4, times 5 is 3e-3. Greedy text then can differ
 * only where two logits are closer than that.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/path.h"
#include "engine/cpu/cpu.h"
#include "engine/model/model.h"
#include "engine/models.h"
#include "engine/run/graph.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_IDS = 128, N_BLOCK = 16, LOGIT_BOUND_E5 = 300 };

static struct model *model; /* the one that is open */
static char *model_path;
static char *expected;
static int32_t prompt[MAX_IDS], greedy[MAX_IDS];
static int n_prompt, n_greedy;
static int32_t blocks[N_BLOCK];
static float *logits; /* [MAX_IDS, n_vocab] */

static const char *gguf_path(void) {
    const char *path = getenv("LLMCHAT_TEST_GGUF");
    if (!path || !*path)
        skip();
    return path;
}

/* The line that begins with name and, unless pos < 0, pos; what follows them. */
static const char *line_of(const char *name, int pos) {
    char head[64];
    snprintf(head, sizeof head, pos < 0 ? "\n%s " : "\n%s %d ", name, pos);
    const char *p = strstr(expected, head);
    assert_non_null(p);
    return p + strlen(head);
}

static int read_ids(const char *p, int32_t *ids) {
    int n = 0;
    char *end;
    for (; n < MAX_IDS; n++, p = end) {
        ids[n] = (int32_t)strtol(p, &end, 10);
        if (end == p || *p == '\n')
            break;
    }
    return n;
}

static void open_model(enum quant quant) {
    struct err err = {0};
    const char *tmp = getenv("TMPDIR");
    model_path =
        xasprintf("%s/test_logits.%ld.safetensors", tmp ? tmp : "/tmp", (long)getpid());
    struct create_params p = {
        .out_path = model_path, .from = gguf_path(), .quant = quant, .head_quant = QUANT_N};
    if (models_create(&p, &err) != ST_OK || model_open(model_path, &model, &err) != ST_OK)
        fail_msg("%s", err.msg);
    unlink(model_path); /* the mapping stays */
    logits = xcalloc((size_t)MAX_IDS * (size_t)model->hp.n_vocab, sizeof *logits);
}

static int close_model(void **state) {
    (void)state;
    model_close(model);
    model = NULL;
    free(logits);
    free(model_path);
    logits = NULL;
    model_path = NULL;
    return 0;
}

static struct graph *open_graph(const char *kernels) {
    struct graph *g = NULL;
    struct err err = {0};
    struct graph_params p = {.n_block = N_BLOCK, .max_tok = MAX_IDS};
    setenv("LLMCHAT_CPU", kernels, 1);
    if (graph_open(model, &p, &g, &err) != ST_OK)
        fail_msg("%s", err.msg);
    unsetenv("LLMCHAT_CPU");
    return g;
}

static void forward(struct graph *g, const int32_t *ids, int n_past, int n, float *out) {
    struct batch_seq s = {.blocks = blocks, .n_past = n_past, .n_tok = n, .n_logits = n};
    struct err err = {0};
    assert_int_equal(graph_forward(g, &(struct batch){ids, n, &s, 1}, out, &err), ST_OK);
}

static double level(const float *x, int n) {
    double top = (double)x[0], sum = 0;
    for (int i = 1; i < n; i++)
        top = (double)x[i] > top ? (double)x[i] : top;
    for (int i = 0; i < n; i++)
        sum += exp((double)x[i] - top);
    return top + log(sum);
}

/* Every "top" and "level" line. */
static void compare_logits(const char *kernels) {
    const double bound = LOGIT_BOUND_E5 * 1e-5;
    int V = model->hp.n_vocab, n_line = 0;
    for (int pos = 0; pos < n_prompt; pos++) {
        char head[32];
        const float *row = logits + (size_t)pos * (size_t)V;
        snprintf(head, sizeof head, "\ntop %d ", pos);
        const char *p = strstr(expected, head);
        if (!p)
            continue;
        for (p += strlen(head); *p != '\n'; n_line++) {
            char *end;
            long id = strtol(p, &end, 10);
            double want = strtod(end + 1, &end);
            if (!(fabs((double)row[id] - want) <= bound))
                fail_msg("%s: logit %ld of position %d is %.6f, want %.6f +- %g", kernels, id,
                         pos, (double)row[id], want, bound);
            p = *end == ' ' ? end + 1 : end;
        }
        double want = strtod(line_of("level", pos), NULL);
        assert_true(fabs(level(row, V) - want) <= bound);
    }
    assert_true(n_line >= 5 * 32);
}

static int best_of(const float *x, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

static void f32_logits_and_greedy_text_equal_pytorch(void **state) {
    (void)state;
    const char *const kernels[] = {"avx512", "avx2"};
    const struct cpu_kernels *sets[8];
    int n_set = cpu_kernel_sets(sets), n_run = 0;
    open_model(QUANT_F32);
    for (size_t k = 0; k < sizeof kernels / sizeof *kernels; k++) {
        bool have = false;
        for (int i = 0; i < n_set; i++)
            have = have || strcmp(sets[i]->name, kernels[k]) == 0;
        if (!have)
            continue;
        n_run++;
        struct graph *g = open_graph(kernels[k]);
        forward(g, prompt, 0, n_prompt, logits);
        compare_logits(kernels[k]);
        const float *last = logits + (size_t)(n_prompt - 1) * (size_t)model->hp.n_vocab;
        for (int i = 0; i < n_greedy; i++) {
            int32_t id = best_of(last, model->hp.n_vocab);
            if (id != greedy[i])
                fail_msg("%s: greedy token %d is %d, want %d", kernels[k], i, id, greedy[i]);
            forward(g, &id, n_prompt + i, 1, logits);
            last = logits;
        }
        graph_close(g);
    }
    if (n_run == 0)
        skip();
}

/* What int16 activations and the int16 table cost, against the exact reference with the same
 * weights. Measured: 3e-6. */
static void nf4_kernels_move_the_model_by_less_than_2e_3(void **state) {
    (void)state;
    const struct cpu_kernels *sets[8];
    if (cpu_kernel_sets(sets) == 1)
        skip();
    open_model(QUANT_NF4);
    int V = model->hp.n_vocab;
    float *ref = xcalloc((size_t)n_prompt * (size_t)V, sizeof *ref);
    struct graph *g = open_graph("scalar");
    forward(g, prompt, 0, n_prompt, ref);
    graph_close(g);
    g = open_graph(sets[0]->name);
    forward(g, prompt, 0, n_prompt, logits);
    graph_close(g);
    double kl = 0;
    for (int t = 0; t < n_prompt; t++) {
        const float *a = ref + (size_t)t * (size_t)V, *b = logits + (size_t)t * (size_t)V;
        double la = level(a, V), lb = level(b, V);
        for (int i = 0; i < V; i++)
            kl += exp((double)a[i] - la) * ((double)a[i] - la - (double)b[i] + lb);
    }
    free(ref);
    print_message("KL divergence %.3g\n", kl / n_prompt);
    assert_true(kl / n_prompt < 2e-3);
}

static int setup(void **state) {
    (void)state;
    struct buf b = {0};
    struct err err = {0};
    const char *srcdir = getenv("srcdir");
    char *path = path_join(srcdir ? srcdir : ".", "tests/golden/logits/expected.txt");
    if (file_read(path, 1 << 20, &b, &err) != ST_OK) {
        print_error("%s\n", err.msg);
        return 1;
    }
    free(path);
    expected = buf_take(&b);
    n_prompt = read_ids(line_of("prompt", -1), prompt);
    n_greedy = read_ids(line_of("greedy", -1), greedy);
    for (int i = 0; i < N_BLOCK; i++)
        blocks[i] = N_BLOCK - 1 - i;
    return n_prompt < 8 || n_greedy < 64 || n_prompt + n_greedy > MAX_IDS;
}

static int teardown(void **state) {
    (void)state;
    free(expected);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(f32_logits_and_greedy_text_equal_pytorch, close_model),
        cmocka_unit_test_teardown(nf4_kernels_move_the_model_by_less_than_2e_3, close_model),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
