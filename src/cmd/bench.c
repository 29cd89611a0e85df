/*
 * bench.c - `llmchat bench MODEL`: prefill and decode speed, time to first token, bytes moved.
 *
 * A run opens `batch` new sessions, gives each its own random prompt (so that no block of the
 * KV cache can be shared) and decodes greedily past any end token. The engine's own clock tells
 * a single request's prefill and decode; for a batch the wall clock does: prefill until the
 * last first token, decode from there to the end. The median of the runs is reported after one
 * run that warms up and does not count. Bandwidth is measured by reading a buffer far larger
 * than the caches with as many threads; the share is (bytes of weights per token) x (tokens per
 * second) / bandwidth for a batch of one.
 */
#include "base/clock.h"
#include "base/path.h"
#include "cmd/cmd.h"
#include "engine/engine.h"
#include "engine/models.h"
#include "engine/text.h"
#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

const struct opt bench_opts[] = {
    {"prompt", 'p', OPT_COUNT, "N", 1, "Tokens of the prompt (default 512)"},
    {"output", 'n', OPT_COUNT, "N", 2, "Tokens to generate (default 128)"},
    {"batch", 'b', OPT_COUNT, "N", 1, "Sequences at the same time (default 1)"},
    {"repeat", 'r', OPT_COUNT, "N", 1, "Runs that count (default 3)"},
    {"draft", 0, OPT_TEXT, "MODEL", 0, "A draft model; with --speculation"},
    {"speculation", 0, OPT_CHOICE, "off|auto|lookup|draft", 0,
     "Guess tokens (default off, with --draft draft): random prompts lead to answers that "
     "repeat themselves more than a person's"},
    {"threads", 't', OPT_COUNT, "N", 1, "Threads (default: the cores this process may use)"},
    {"device", 0, OPT_CHOICE, "auto|cpu", 0, "Where to compute"},
    {"json", 0, OPT_FLAG, NULL, 0, "Print a JSON list"},
    {0},
};

struct sample {
    double prefill_tok_s, decode_tok_s, ttft_us, drafted, accepted;
};

struct plan {
    int prompt, output, batch, repeat;
    enum speculation speculation;
    struct engine *engine;
    uint64_t random;
};

/* xorshift64*: prompts need no better randomness. */
static uint32_t next_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (uint32_t)(*state * 0x2545f4914f6cdd1dull >> 32);
}

static enum status start_all(struct plan *p, struct session **sessions, struct mailbox *box,
                             struct err *err) {
    const struct text_model *t = engine_text(p->engine);
    int n_vocab = engine_info(p->engine)->n_vocab;
    int32_t *tokens = xcalloc((size_t)p->prompt, sizeof *tokens);
    enum status st = ST_OK;
    for (int b = 0; b < p->batch && st == ST_OK; b++) {
        for (int i = 0; i < p->prompt; i++)
            do
                tokens[i] = (int32_t)(next_random(&p->random) % (uint32_t)n_vocab);
            while (text_is_control(t, tokens[i]));
        sessions[b] = session_new(p->engine);
        struct request q = {.tokens = tokens,
                            .n_tok = (size_t)p->prompt,
                            .sampling = SAMPLING_DEFAULTS,
                            .max_tok = p->output,
                            .speculation = p->speculation,
                            .ignore_eos = true};
        q.sampling.temperature = 0;
        st = session_generate(sessions[b], &q, (uint64_t)b, box, err);
    }
    free(tokens);
    return st;
}

/* Runs one batch to its end. */
static enum status run_once(struct plan *p, struct sample *out, struct err *err) {
    struct session **sessions = xcalloc((size_t)p->batch, sizeof *sessions);
    bool *started = xcalloc((size_t)p->batch, sizeof *started);
    struct mailbox *box = mailbox_new(event_free);
    int n_started = 0, n_finished = 0, n_tok = 0;
    int64_t begin = clock_us(), all_started = 0, end = 0;
    double ttft_sum = 0, prompt_us = 0, decode_us = 0;
    enum status st = start_all(p, sessions, box, err);
    while (st == ST_OK && n_finished < p->batch) {
        struct event *e = mailbox_wait(box, 100);
        if (interrupted())
            st = err_set(err, ST_CANCELLED, "interrupted");
        if (!e)
            continue;
        if (e->type == EVENT_TOKEN && !started[e->request_id]) {
            started[e->request_id] = true;
            if (++n_started == p->batch)
                all_started = clock_us();
        }
        if (e->type == EVENT_ERROR) {
            *err = e->err;
            st = e->err.code;
        }
        if (e->type == EVENT_FINISHED) {
            n_finished++;
            n_tok += e->completion_tok - 1; /* the first token is the prefill's */
            out->drafted += e->drafted_tok;
            out->accepted += e->accepted_tok;
            ttft_sum += (double)e->ttft_us;
            prompt_us = (double)e->prompt_us;
            decode_us = (double)e->decode_us;
            end = clock_us();
            if (e->completion_tok < p->output && st == ST_OK)
                st = err_set(err, ST_LIMIT,
                             "the context of %d tokens is too short for -p %d -n %d",
                             engine_info(p->engine)->ctx_tok, p->prompt, p->output);
        }
        event_free(e);
    }
    if (p->batch > 1) {
        prompt_us = (double)(all_started - begin);
        decode_us = (double)(end - all_started);
    }
    out->prefill_tok_s = prompt_us > 0 ? (double)p->prompt * p->batch / prompt_us * 1e6 : 0;
    out->decode_tok_s = decode_us > 0 ? n_tok / decode_us * 1e6 : 0;
    out->ttft_us = ttft_sum / p->batch;
    for (int b = 0; b < p->batch; b++)
        session_free(sessions[b]);
    mailbox_unref(box);
    free(started);
    free(sessions);
    return st;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, by_size);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static enum status run_plan(struct plan *p, struct sample *out, struct err *err) {
    double *v = xcalloc((size_t)p->repeat * 3, sizeof *v);
    double drafted = 0, accepted = 0;
    enum status st = ST_OK;
    for (int i = -1; i < p->repeat && st == ST_OK; i++) { /* the first warms up */
        struct sample s = {0};
        st = run_once(p, &s, err);
        if (i < 0)
            continue;
        drafted += s.drafted;
        accepted += s.accepted;
        v[i] = s.prefill_tok_s;
        v[p->repeat + i] = s.decode_tok_s;
        v[2 * p->repeat + i] = s.ttft_us;
    }
    if (st == ST_OK)
        *out = (struct sample){median(v, p->repeat), median(v + p->repeat, p->repeat),
                               median(v + 2 * p->repeat, p->repeat), drafted, accepted};
    free(v);
    return st;
}

/* -- read bandwidth -- */

struct reader {
    pthread_t thread;
    const uint64_t *p;
    size_t n;
    uint64_t sum;
};

static void *read_all(void *arg) {
    struct reader *r = arg;
    uint64_t s[8] = {0};
    for (size_t i = 0; i + 8 <= r->n; i += 8)
        for (size_t k = 0; k < 8; k++)
            s[k] += r->p[i + k];
    for (size_t k = 0; k < 8; k++)
        r->sum += s[k];
    return NULL;
}

/* Bytes per second of the best of three passes over 512 MB, or 0 when there is no memory for
 * that. */
static double read_bandwidth(int threads) {
    enum { BYTES = 512 << 20 };
    uint64_t *p = malloc(BYTES);
    struct reader *r = calloc((size_t)threads, sizeof *r);
    double best = 0;
    if (p)
        memset(p, 1, BYTES);
    for (int pass = 0; p && r && pass < 3; pass++) {
        size_t part = BYTES / sizeof *p / (size_t)threads;
        int64_t begin = clock_us();
        int n = 0;
        for (; n < threads; n++) {
            r[n] = (struct reader){.p = p + part * (size_t)n, .n = part};
            if (pthread_create(&r[n].thread, NULL, read_all, &r[n]) != 0)
                break;
        }
        for (int i = 0; i < n; i++)
            pthread_join(r[i].thread, NULL);
        double rate = (double)part * sizeof *p * n / (double)(clock_us() - begin) * 1e6;
        best = rate > best ? rate : best;
    }
    free(r);
    free(p);
    return best;
}

/* The last block of each sequence may be partly filled, and one is to spare. */
static size_t kv_bytes(const struct plan *p, const struct model_info *m) {
    return (size_t)p->batch * (size_t)(p->prompt + p->output + 1 + 32) * (size_t)m->n_layer *
           (size_t)m->n_head_kv * (size_t)m->head_dim * 2 * sizeof(float);
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
    struct plan p = {.prompt = (int)arg_count(a, "prompt", 512),
                     .output = (int)arg_count(a, "output", 128),
                     .batch = (int)arg_count(a, "batch", 1),
                     .repeat = (int)arg_count(a, "repeat", 3),
                     .random = (uint64_t)clock_us() | 1};
    use_compute_options(a);
    struct engine_params ep = {
        .device = a->config.device, .threads = a->config.threads, .progress = progress_show};
    struct sample s = {0};
    char *path = NULL, *draft = NULL;
    enum status st;
    interrupt_catch();
    TRY(models_resolve(a->pos[0], progress_show, NULL, &path, &err));
    if (arg_text(a, "draft")) {
        p.speculation = SPECULATION_DRAFT;
        TRY(models_resolve(arg_text(a, "draft"), progress_show, NULL, &draft, &err));
    }
    ep.draft_path = draft;
    if (arg_text(a, "speculation"))
        p.speculation = speculation_of(arg_text(a, "speculation"));
    struct model_info m = {0};
    TRY(models_info(path, &m, &err));
    ep.ctx_tok = p.prompt + p.output + 1;
    ep.kv_bytes = kv_bytes(&p, &m);
    if (draft) {
        struct model_info d = {0};
        TRY(models_info(draft, &d, &err));
        ep.kv_bytes += kv_bytes(&p, &d);
        model_info_release(&d);
    }
    bool fits = ep.ctx_tok <= m.ctx_train;
    model_info_release(&m);
    if (!fits)
        TRY(err_set(&err, ST_LIMIT, "-p %d and -n %d are more than the model's context",
                    p.prompt, p.output));
    TRY(engine_open(path, &ep, &p.engine, &err));
    progress_clear();
    const struct engine_info *info = engine_info(p.engine);
    double bandwidth = read_bandwidth(info->threads);
    TRY(run_plan(&p, &s, &err));
    double share = bandwidth > 0 && p.batch == 1 && s.drafted == 0
                       ? s.decode_tok_s * (double)info->bytes_per_token / bandwidth
                       : 0;
    if (arg_flag(a, "json")) {
        put_json(json_pack("[{s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:I, s:f, "
                           "s:f, s:I, s:I}]",
                           "model", path_base(a->pos[0]), "quant", info->quant, "device",
                           info->device, "kernels", info->kernels, "threads", info->threads,
                           "batch", p.batch, "prompt_tokens", p.prompt, "output_tokens",
                           p.output, "prefill_tok_s", s.prefill_tok_s, "decode_tok_s",
                           s.decode_tok_s, "ttft_us", s.ttft_us, "bytes_per_token",
                           (json_int_t)info->bytes_per_token, "bandwidth_share", share,
                           "bandwidth_bytes_s", bandwidth, "drafted_tokens",
                           (json_int_t)s.drafted, "accepted_tokens", (json_int_t)s.accepted));
    } else {
        printf("%s, %s, %s (%s), %d threads, batch %d, median of %d\n", path_base(a->pos[0]),
               info->quant, info->device, info->kernels, info->threads, p.batch, p.repeat);
        printf("prefill  %9.1f tok/s  (%d tokens)\n", s.prefill_tok_s, p.prompt);
        printf("decode   %9.1f tok/s  (%d tokens)\n", s.decode_tok_s, p.output);
        if (*info->draft)
            printf("draft model %s, %s more\n", info->draft, show_bytes(info->draft_bytes));
        if (p.speculation != SPECULATION_OFF)
            printf("guessed  %9.0f tokens, %.0f of them right\n", s.drafted, s.accepted);
        printf("first token after %.1f ms\n", s.ttft_us / 1000);
        printf("weights read per token %s, measured read bandwidth %s/s",
               show_bytes(info->bytes_per_token), show_bytes((uint64_t)bandwidth));
        if (share > 0)
            printf(", decode uses %.0f%% of it", share * 100);
        putchar('\n');
    }
out:
    engine_close(p.engine);
    free(path);
    free(draft);
    return st == ST_OK ? 0 : fail(&err);
}
