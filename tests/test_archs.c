/*
 * test_archs.c - every architecture against what transformers (and llama.cpp for GGUF files)
 * computes, see tests/oracle/archs.py and archs_gguf.py.
 *
 * Each file of tests/golden/archs is a test: the checkpoint is written, a model created from it
 * in f32, and the logits after the prompt, the 64 likeliest tokens one after the other, and the
 * logits at the end compared. The prompt in pieces must give the bits of the prompt in one.
 *
 * Bound of f32 logits: a layer has eight sums one behind the other (norm, q and k, scores,
 * values, output; norm, up, down). A sum of K terms that are rounded as it grows is off by
 * about sqrt(K) 2^-24 of its terms' size, on both sides of the comparison; errors of different
 * sums are independent, and a residual stream and norms neither damp nor amplify them much. The
 * angle by which RoPE turns at position P is a product rounded to P 2^-24. Doubled for luck in
 * the wrong direction: 4 (sqrt(8 layers + 2) sqrt(K) + P) 2^-24 of the largest logit, with K
 * the widest sum and P the last position. A golden file may state a wider bound with a reason
 * ("bound", "why").
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "arch_files.h"
#include "engine/models.h"
#include "engine/run/graph.h"

enum { N_BLOCK = 16, MAX_PROMPT = 128, CAP = 256 };

struct run {
    json_t *golden;
    struct model *m;
    struct graph *g;
    int32_t prompt[MAX_PROMPT];
    int n_prompt, n_past;
    float *logits; /* [n_vocab] */
};

static const int32_t straight[N_BLOCK] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static char *golden_dir(void) {
    const char *other = getenv("LLMCHAT_ARCHS"), *src = getenv("srcdir");
    return other ? xstrdup(other) : xasprintf("%s/tests/golden/archs", src ? src : ".");
}

static json_t *load(const char *name) {
    char *dir = golden_dir(), *path = path_join(dir, name);
    json_error_t why;
    json_t *j = json_load_file(path, 0, &why);
    if (!j)
        fail_msg("%s: %s", path, why.text);
    free(path);
    free(dir);
    return j;
}

/* The folder has the checkpoint; the model is made from it and opened. */
static void open_case(struct run *r, const char *name) {
    struct err err = {0};
    char *out = xasprintf("%s/model-out.safetensors", folder);
    char *from = xstrdup(folder);
    r->golden = load(name);
    json_t *config = json_object_get(r->golden, "config");
    const json_t *tensors = json_object_get(r->golden, "tensors");
    if (config) {
        af_folder(config, tensors);
    } else {
        free(from);
        from = xasprintf("%s/model.gguf", folder);
        af_gguf(json_object_get(r->golden, "gguf"), tensors);
    }
    struct create_params p = {.out_path = out,
                              .from = from,
                              .quant = QUANT_F32,
                              .head_quant = QUANT_F32,
                              .replace = true};
    if (models_create(&p, &err) != ST_OK || model_open(out, &r->m, &err) != ST_OK)
        fail_msg("%s", err.msg);
    struct graph_params gp = {.threads = 1, .n_block = N_BLOCK, .max_tok = MAX_PROMPT};
    if (graph_open(r->m, &gp, &r->g, &err) != ST_OK)
        fail_msg("%s", err.msg);
    r->logits = xcalloc((size_t)r->m->hp.n_vocab, sizeof *r->logits);
    const json_t *prompt = json_object_get(r->golden, "prompt");
    r->n_prompt = (int)json_array_size(prompt);
    assert_in_range(r->n_prompt, 1, MAX_PROMPT);
    for (int i = 0; i < r->n_prompt; i++)
        r->prompt[i] = (int32_t)json_integer_value(json_array_get(prompt, (size_t)i));
    free(out);
    free(from);
}

static void close_case(struct run *r) {
    free(r->logits);
    graph_close(r->g);
    model_close(r->m);
    json_decref(r->golden);
    folder_empty();
}

/* The next n tokens of a sequence that will be `total` long; logits after the last. */
static void step(struct run *r, const int32_t *tokens, int n, int total) {
    struct err err = {0};
    struct batch_seq seq = {
        .blocks = straight, .n_past = r->n_past, .n_tok = n, .n_logits = 1, .n_total = total};
    struct batch b = {.tokens = tokens, .n_tok = n, .seqs = &seq, .n_seq = 1};
    if (graph_forward(r->g, &b, r->logits, &err) != ST_OK)
        fail_msg("%s", err.msg);
    r->n_past += n;
}

static double bound_of(const struct run *r) {
    const struct hparams *hp = &r->m->hp;
    double widest = fmax(fmax(hp->n_ff, hp->n_embd), hp->n_head * hp->head_dim);
    double sums = sqrt(8 * hp->n_layer + 2) * sqrt(widest),
           angles = hp->rope_dim ? r->n_past : 0;
    const json_t *stated = json_object_get(r->golden, "bound");
    return stated ? json_number_value(stated) : 4 * (sums + angles) / 16777216;
}

/* Logits number `which` of the golden file, within the bound. */
static void compare(const struct run *r, int which) {
    const json_t *all = json_object_get(r->golden, "logits");
    size_t n = (size_t)r->m->hp.n_vocab;
    double worst = 0, scale = 0, bound = bound_of(r);
    assert_int_equal(json_array_size(all), 2 * n);
    for (size_t i = 0; i < n; i++) {
        double want = json_number_value(json_array_get(all, (size_t)which * n + i));
        scale = fmax(scale, fabs(want));
        worst = fmax(worst, fabs((double)r->logits[i] - want));
        assert_true(isfinite(r->logits[i]));
    }
    if (getenv("LLMCHAT_ARCHS_SHOW"))
        print_message("  error %.2g of %.3g, %.2g of the bound\n", worst, scale,
                      worst / scale / bound);
    if (worst > bound * scale)
        fail_msg("logits %d are off by %g of %g, at most %g", which, worst, scale,
                 bound * scale);
}

static int likeliest(const struct run *r) {
    int best = 0;
    for (int i = 1; i < r->m->hp.n_vocab; i++)
        if (r->logits[i] > r->logits[best])
            best = i;
    return best;
}

static void in_pieces(struct run *r) {
    static const int piece[] = {7, 1, 16, 3};
    size_t bytes = (size_t)r->m->hp.n_vocab * sizeof *r->logits;
    float *whole = xcalloc(1, bytes);
    memcpy(whole, r->logits, bytes);
    r->n_past = 0;
    for (size_t i = 0; r->n_past < r->n_prompt; i++) {
        int left = r->n_prompt - r->n_past, n = piece[i % 4] < left ? piece[i % 4] : left;
        step(r, r->prompt + r->n_past, n, r->n_prompt);
    }
    assert_memory_equal(whole, r->logits, bytes);
    free(whole);
}

static void computes_as_the_original(void **state) {
    struct run r = {0};
    open_case(&r, *state);
    step(&r, r.prompt, r.n_prompt, r.n_prompt);
    compare(&r, 0);
    in_pieces(&r);
    const json_t *greedy = json_object_get(r.golden, "greedy");
    for (size_t i = 0; i < json_array_size(greedy); i++) {
        int32_t token = (int32_t)json_integer_value(json_array_get(greedy, i));
        if (likeliest(&r) != token)
            fail_msg("token %zu is %d, wanted %d", i, likeliest(&r), (int)token);
        step(&r, &token, 1, 0);
    }
    compare(&r, 1);
    close_case(&r);
}

/* One that says a norm is longer than it is would have the graph read behind it. */
static void a_norm_that_does_not_fit_its_heads_is_refused(void **state) {
    static const char was[] = "\"qk_norm_rows\":\"0\"";
    static const char said[][sizeof was] = {"\"qk_norm_rows\":\"1\"", "\"qk_norm_rows\":\"2\""};
    char *path = xasprintf("%s/model-out.safetensors", folder);
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct run r = {0};
        struct buf file = {0};
        struct err err = {0};
        struct model *m = NULL;
        open_case(&r, "qwen3.json");
        assert_int_equal(file_read(path, 64u << 20, &file, &err), ST_OK);
        close_case(&r);
        char *at = memmem(file.p, file.len, was, sizeof was - 1);
        assert_non_null(at);
        memcpy(at, said[i], sizeof was - 1);
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(file.p, 1, file.len, f), file.len);
        fclose(f);
        assert_int_equal(model_open(path, &m, &err), ST_FORMAT);
        assert_non_null(strstr(err.msg, "blk.0.attn_q_norm has 20 values"));
        buf_release(&file);
        folder_empty();
    }
    free(path);
}

/* A configuration that claims a quantisation of which no tensor is: the weights are floats, and
 * are quantised as those are unless something else is asked for. */
static void a_quantisation_is_seen_in_the_tensors(void **state) {
    (void)state;
    static const char *const claims[] = {
        "{\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true}",
        "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 128}",
        "{\"quant_method\": \"compressed-tensors\", \"format\": \"dense\"}"};
    char *out = xasprintf("%s/model-out.safetensors", folder);
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++) {
        struct err err = {0};
        struct model_info info;
        struct model *m;
        json_t *golden = load("llama.json"), *config = json_object_get(golden, "config");
        json_object_set_new(config, "quantization_config", json_loads(claims[i], 0, NULL));
        af_folder(config, json_object_get(golden, "tensors"));
        if (models_info(folder, &info, &err) != ST_OK)
            fail_msg("%s", err.msg);
        assert_string_equal(info.quant, "F32");
        model_info_release(&info);
        struct create_params p = {
            .out_path = out, .from = folder, .quant = QUANT_N, .head_quant = QUANT_N};
        if (models_create(&p, &err) != ST_OK || model_open(out, &m, &err) != ST_OK)
            fail_msg("%s", err.msg);
        assert_string_equal(m->info.quant, "nf4");
        model_close(m);
        json_decref(golden);
        folder_empty();
    }
    free(out);
}

static void drop_tensor(json_t *tensors, const char *name) {
    size_t n = strlen(name), before = json_array_size(tensors), i;
    for (i = 0; i < before; i++) {
        const char *line = json_string_value(json_array_get(tensors, i));
        if (strncmp(line, name, n) == 0 && line[n] == ' ')
            break;
    }
    assert_int_equal(json_array_remove(tensors, i), 0);
}

/* One layer's bias is gone: what is left would compute something else. */
static void a_bias_that_was_lost_is_missed(void **state) {
    (void)state;
    static const struct {
        const char *golden, *tensor, *words;
    } cases[] = {{"gpt_oss.json", "model.layers.1.mlp.router.bias", "router.bias is missing"},
                 {"gpt_oss.json", "model.layers.2.mlp.experts.down_proj_bias",
                  "down_proj_bias is missing"},
                 {"qwen2.json", "model.layers.1.self_attn.q_proj.bias",
                  "tensor model.layers.0.self_attn.q_proj.bias but no bias beside "
                  "model.layers.1.self_attn.q_proj.weight"},
                 {"qwen2.json", "model.layers.0.self_attn.k_proj.bias",
                  "tensor model.layers.1.self_attn.k_proj.bias but no bias beside "
                  "model.layers.0.self_attn.k_proj.weight"}};
    char *out = xasprintf("%s/model-out.safetensors", folder);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err err = {0};
        json_t *golden = load(cases[i].golden), *tensors = json_object_get(golden, "tensors");
        drop_tensor(tensors, cases[i].tensor);
        af_folder(json_object_get(golden, "config"), tensors);
        struct create_params p = {
            .out_path = out, .from = folder, .quant = QUANT_F32, .head_quant = QUANT_F32};
        assert_int_equal(models_create(&p, &err), ST_FORMAT);
        if (!strstr(err.msg, cases[i].words))
            fail_msg("\"%s\" does not say \"%s\"", err.msg, cases[i].words);
        json_decref(golden);
        folder_empty();
    }
    free(out);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct CMUnitTest *)a)->name, ((const struct CMUnitTest *)b)->name);
}

int main(void) {
    static struct CMUnitTest tests[CAP];
    char *dir = golden_dir();
    size_t n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && n < CAP && (e = readdir(d));)
        if (strstr(e->d_name, ".json")) {
            char *name = xstrdup(e->d_name);
            tests[n++] = (struct CMUnitTest){name, computes_as_the_original, NULL, NULL, name};
        }
    if (d)
        closedir(d);
    if (n == 0) {
        fprintf(stderr, "%s has no golden files\n", dir);
        return 1;
    }
    qsort(tests, n, sizeof *tests, by_name);
    if (n < CAP)
        tests[n++] = (struct CMUnitTest){
            xstrdup("a_norm_that_does_not_fit_its_heads_is_refused"),
            a_norm_that_does_not_fit_its_heads_is_refused, NULL, NULL, NULL};
    if (n < CAP)
        tests[n++] =
            (struct CMUnitTest){xstrdup("a_quantisation_is_seen_in_the_tensors"),
                                a_quantisation_is_seen_in_the_tensors, NULL, NULL, NULL};
    if (n < CAP)
        tests[n++] = (struct CMUnitTest){xstrdup("a_bias_that_was_lost_is_missed"),
                                         a_bias_that_was_lost_is_missed, NULL, NULL, NULL};
    folder_make();
    int failed = _cmocka_run_group_tests("archs", tests, n, NULL, NULL);
    folder_drop();
    for (size_t i = 0; i < n; i++)
        free((char *)tests[i].name);
    free(dir);
    return failed;
}
