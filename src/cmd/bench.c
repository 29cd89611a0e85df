/*
 * bench.c - `llmchat bench MODEL`: options, the model, and how much memory the measurement may
 * take.
 *
 * Two ways to measure: shapes (-p, -n, -b: bench_shapes.c), or a load of many requests
 * (--num-prompts: bench_serve.c). The model is opened once, with a context and a KV pool for
 * the largest of what is measured, so that no block is given up while it runs. A pool larger
 * than half of the machine's memory, or than a GPU has room for, is refused for shapes; a load
 * gets what there is, and its requests wait as they would in a server.
 */
#include "cmd/bench.h"
#include "base/path.h"
#include "cmd/cmd.h"
#include "engine/models.h"
#include "engine/text.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct opt bench_opts[] = {
    {"prompt", 'p', OPT_COUNTS, "N[,N...]", 1, "Tokens of the prompt (default 512)"},
    {"output", 'n', OPT_COUNTS, "N[,N...]", 2, "Tokens to generate (default 128)"},
    {"batch", 'b', OPT_COUNTS, "N[,N...]", 1, "Sequences at the same time, to 256 (default 1)"},
    {"depth", 'd', OPT_COUNTS, "N[,N...]", 0,
     "Tokens that are in the KV cache before (default 0): a later turn"},
    {"repeat", 'r', OPT_COUNT, "N", 1, "Runs that count (default 3)"},
    {"num-prompts", 0, OPT_COUNT, "N", 1,
     "Measure the throughput of N requests instead, as vLLM's benchmark does"},
    {"prompt-len", 0, OPT_COUNT, "N", 1,
     "With --num-prompts: tokens of each prompt (default 512)"},
    {"output-len", 0, OPT_COUNT, "N", 1,
     "With --num-prompts: tokens each generates (default 128)"},
    {"max-concurrency", 0, OPT_COUNT, "N", 1,
     "With --num-prompts: requests at the same time at most"},
    {"request-rate", 0, OPT_TEXT, "R", 0,
     "With --num-prompts: requests a second, at random (default inf: all at once)"},
    {"seed", 0, OPT_COUNT, "N", 0, "For prompts and arrivals (default 0)"},
    {"draft", 0, OPT_TEXT, "MODEL", 0, "A draft model; with --speculation"},
    {"speculation", 0, OPT_CHOICE, "off|auto|lookup|draft", 0,
     "Guess tokens (default off, with --draft draft): random prompts lead to answers that "
     "repeat themselves more than a person's"},
    COMPUTE_OPTS('t'),
    {"json", 0, OPT_FLAG, NULL, 0, "Print a JSON list"},
    {0},
};

void bench_prompt(struct bench *b, int32_t *tokens, int n) {
    const struct text_model *t = engine_text(b->engine);
    for (int i = 0; i < n; i++) {
        int tries = 1000; /* a vocabulary may have nothing else */
        do
            tokens[i] = (int32_t)(bench_random(&b->random) % (uint32_t)b->info->n_vocab);
        while (text_is_control(t, tokens[i]) && --tries);
    }
}

void bench_title(const struct bench *b) {
    printf("%s, %s, %s (%s), %d thread%s", b->model, b->info->quant, b->info->device_words,
           b->info->kernels, b->info->threads, b->info->threads == 1 ? "" : "s");
}

void *bench_json_start(const struct bench *b) {
    return json_pack("{s:o, s:s, s:s, s:i, s:i, s:s, s:i, s:s}", "model", json_text(b->model),
                     "quant", b->info->quant, "device", b->info->device, "gpus", b->info->n_gpu,
                     "gpu_layers", b->info->gpu_layers, "kernels", b->info->kernels, "threads",
                     b->info->threads, "version", LLMCHAT_VERSION);
}

void bench_json_add(void *json, void *takes_more) {
    json_object_update(json, takes_more);
    json_decref(takes_more);
}

enum { MAX_REQUESTS = 1000000, BLOCK_TOK = 16 /* of a block of the engine's KV pool */ };

/* What is measured, and what that needs. */
struct wanted {
    struct bench_lists lists;
    struct bench_load load; /* n_request 0: shapes */
    long *depth, *prompt, *output, *batch;
    int ctx_tok, n_seq;
};

static long largest(const long *v, size_t n) {
    long most = v[0];
    for (size_t i = 1; i < n; i++)
        most = v[i] > most ? v[i] : most;
    return most;
}

static enum status read_rate(const char *s, double *out, struct err *err) {
    char *end;
    *out = INFINITY;
    if (!s || strcmp(s, "inf") == 0)
        return ST_OK;
    *out = strtod(s, &end);
    if (end == s || *end || !isfinite(*out) || *out <= 0)
        return err_set(err, ST_USAGE,
                       "--request-rate %s: must be a number above 0, or inf (all at once)", s);
    return ST_OK;
}

static enum status read_options(const struct args *a, struct wanted *w, struct err *err) {
    static const char *const of_load[] = {"prompt-len", "output-len", "max-concurrency",
                                          "request-rate", NULL};
    static const char *const of_shapes[] = {"prompt", "output", "batch",
                                            "depth",  "repeat", NULL};
    w->load.n_request = (int)arg_count(a, "num-prompts", 0);
    const char *const *wrong = w->load.n_request ? of_shapes : of_load;
    for (; *wrong; wrong++)
        if (arg_text(a, *wrong))
            return err_set(err, ST_USAGE, "--%s %s with --num-prompts", *wrong,
                           w->load.n_request ? "doesn't go together" : "goes");
    if (w->load.n_request > MAX_REQUESTS)
        return err_set(err, ST_USAGE, "--num-prompts %d: must be at most %d", w->load.n_request,
                       MAX_REQUESTS);
    CHECK(read_rate(arg_text(a, "request-rate"), &w->load.rate, err));
    w->load.prompt = (int)arg_count(a, "prompt-len", 512);
    w->load.output = (int)arg_count(a, "output-len", 128);
    w->load.concurrency = (int)arg_count(a, "max-concurrency", 0);
    w->lists.n_prompt = arg_counts(a, "prompt", 512, &w->prompt);
    w->lists.n_output = arg_counts(a, "output", 128, &w->output);
    w->lists.n_batch = arg_counts(a, "batch", 1, &w->batch);
    w->lists.n_depth = arg_counts(a, "depth", 0, &w->depth);
    w->lists.depth = w->depth;
    w->lists.prompt = w->prompt;
    w->lists.output = w->output;
    w->lists.batch = w->batch;
    w->lists.repeat = (int)arg_count(a, "repeat", 3);
    return ST_OK;
}

/* The longest timeline and how many at once. */
static enum status size_up(struct wanted *w, int ctx_train, struct err *err) {
    const struct bench_lists *l = &w->lists;
    const struct bench_load *q = &w->load;
    long prompt = q->n_request ? q->prompt : largest(l->prompt, l->n_prompt);
    long output = q->n_request ? q->output : largest(l->output, l->n_output);
    long depth = q->n_request ? 0 : largest(l->depth, l->n_depth);
    long n_seq = largest(l->batch, l->n_batch);
    if (q->n_request) {
        n_seq = q->concurrency && q->concurrency < q->n_request ? q->concurrency : q->n_request;
        n_seq = n_seq < BENCH_MAX_BATCH ? n_seq : BENCH_MAX_BATCH;
    }
    if (n_seq > BENCH_MAX_BATCH)
        return err_set(err, ST_USAGE, "--batch %ld: must be at most %d", n_seq,
                       BENCH_MAX_BATCH);
    if (depth + prompt + output > ctx_train)
        return err_set(err, ST_LIMIT,
                       "%ld tokens of prompt and %ld of output are more than the model's "
                       "context of %d",
                       depth + prompt, output, ctx_train);
    w->ctx_tok = (int)(depth + prompt + output);
    w->n_seq = (int)n_seq;
    return ST_OK;
}

/* For a token, with 2 bytes a number. */
static size_t kv_bytes(const struct model_info *m) {
    return (size_t)m->n_layer * (size_t)m->n_head_kv * (size_t)m->head_dim * 2 * 2;
}

/* Bytes of KV for all sequences, also of a draft model (empty: none). The last block of each
 * may be partly filled, and one is to spare. Most models keep KV as 2 bytes a number, some as
 * 4; pages that nobody writes cost nothing, so the pool has room for 4. */
static enum status pool_bytes(const struct wanted *w, const struct model_info *m,
                              const struct model_info *draft, size_t *out, struct err *err) {
    size_t half = memory_bytes() / 2;
    size_t per_tok = kv_bytes(m) + kv_bytes(draft);
    size_t one = per_tok * (size_t)(w->ctx_tok + 32), all;
    if (mul_overflows(one, (size_t)w->n_seq, &all))
        all = SIZE_MAX / 2;
    if (half && all > half && w->load.n_request)
        all = half > one ? half : one;
    else if (half && all > half)
        return err_set(err, ST_LIMIT,
                       "the KV cache of %d sequences of %d tokens takes %s, more than half of "
                       "this machine's memory",
                       w->n_seq, w->ctx_tok, show_bytes(all));
    *out = all * 2;
    return ST_OK;
}

/* Where a GPU has less room than was asked for, sequences would wait for each other: times of
 * another shape. */
static enum status check_pool(const struct bench *b, const struct wanted *w, struct err *err) {
    int64_t one = (w->ctx_tok + BLOCK_TOK - 1) / BLOCK_TOK * BLOCK_TOK + BLOCK_TOK;
    if (w->load.n_request || one * w->n_seq <= b->info->kv_tok)
        return ST_OK;
    return err_set(err, ST_LIMIT,
                   "%s has room for %d tokens of KV cache beside the model, %d sequences of %d "
                   "take %lld",
                   b->info->device_words, b->info->kv_tok, w->n_seq, w->ctx_tok,
                   (long long)one * w->n_seq);
}

static enum status open_model(struct bench *b, const struct args *a, const char *path,
                              const char *draft, struct wanted *w, struct err *err) {
    struct engine_params ep = config_engine(&a->config);
    struct model_info m = {0}, d = {0};
    enum status st;
    TRY(models_info(path, &m, err));
    TRY(size_up(w, m.ctx_train, err));
    if (draft)
        TRY(models_info(draft, &d, err));
    TRY(pool_bytes(w, &m, &d, &ep.kv_bytes, err));
    ep.draft_path = draft;
    ep.progress = progress_show;
    ep.ctx_tok = w->ctx_tok;
    TRY(engine_open(path, &ep, &b->engine, err));
    progress_clear();
    b->info = engine_info(b->engine);
    note_device(b->info);
    TRY(check_pool(b, w, err));
out:
    model_info_release(&m);
    model_info_release(&d);
    return st;
}

static enum speculation speculation_of(const char *word) {
    const struct setting_def *d = setting_find("speculation");
    int i = 0;
    while (strcmp(word, setting_word(d, i)) != 0)
        i++; /* one of them: the table of options has the same words */
    return (enum speculation)i;
}

int cmd_bench(struct args *a) {
    struct err err = {0};
    struct bench b = {.model = path_base(a->pos[0]), .json = arg_flag(a, "json")};
    struct wanted w = {0};
    char *path = NULL, *draft = NULL;
    enum status st;
    interrupt_catch();
    TRY(use_compute_options(a, &err));
    bench_seed(&b.random, (uint64_t)arg_count(a, "seed", 0));
    TRY(read_options(a, &w, &err));
    if (arg_text(a, "draft"))
        b.speculation = SPECULATION_DRAFT;
    if (arg_text(a, "speculation"))
        b.speculation = speculation_of(arg_text(a, "speculation"));
    if (b.speculation == SPECULATION_DRAFT && !arg_text(a, "draft"))
        TRY(err_set(
            &err, ST_USAGE,
            "--speculation draft: there is no draft model; name one with --draft MODEL"));
    TRY(models_resolve(a->pos[0], progress_show, NULL, &path, &err));
    if (arg_text(a, "draft"))
        TRY(models_resolve(arg_text(a, "draft"), progress_show, NULL, &draft, &err));
    TRY(open_model(&b, a, path, draft, &w, &err));
    if (w.load.n_request) {
        st = bench_serve(&b, &w.load, &err);
    } else {
        if (b.info->gpu_layers == 0) /* of a GPU's memory nobody knows it */
            b.bandwidth = bench_bandwidth(b.info->threads);
        st = bench_shapes(&b, &w.lists, &err);
    }
out:
    engine_close(b.engine);
    free(w.depth);
    free(w.prompt);
    free(w.output);
    free(w.batch);
    free(path);
    free(draft);
    return st == ST_OK ? 0 : fail(&err);
}
