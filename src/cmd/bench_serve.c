/*
 * bench_serve.c - throughput of many requests, told as vLLM's `bench serve` tells it: the same
 * words in the same order, and the JSON keys of its result file, so that figures can be set
 * side by side and scripts for the one read the other.
 *
 * Requests have random prompts of one length and go past any end token. They arrive all at
 * once, or as a Poisson process; at most --max-concurrency of them are in the engine, and at
 * most BENCH_MAX_BATCH, behind which they wait here as they would in a server. As there, the
 * time of a request counts from its arrival, or, under --max-concurrency, from when there is a
 * place. One request with the same prompt length warms up and does not count.
 *
 * TTFT: to the first token. TPOT: of one request, first to last token, a token. ITL: every gap
 * between two tokens of one request. Only requests that ended well count. "Peak concurrent
 * requests" is the exact maximum, where vLLM counts in whole seconds.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "cmd/bench.h"
#include "cmd/cmd.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct client {
    struct session *session; /* NULL: not in the engine now */
    int64_t due_us, asked_us, first_us, last_us;
    int n_tok;
};

struct serve {
    struct bench *b;
    const struct bench_load *load;
    struct client *clients; /* [n_request] */
    int32_t *tokens;        /* [prompt] scratch */
    struct mailbox *box;
    int n_sent, n_active, peak_active, n_done, n_failed, limit;
    int64_t begin_us, end_us;
    struct series ttft_ms, tpot_ms, itl_ms, e2el_ms, at_s; /* at_s: when each token came */
    struct err first_error;
};

static void plan_arrivals(struct serve *s) {
    double at = 0;
    for (int i = 0; i < s->load->n_request; i++) {
        s->clients[i].due_us = s->begin_us + (int64_t)(at * 1e6);
        if (isfinite(s->load->rate))
            at += bench_wait_s(&s->b->random, s->load->rate);
    }
}

static void count_failure(struct serve *s, const struct err *why) {
    if (!s->n_failed++)
        s->first_error = *why;
}

static void send_next(struct serve *s) {
    struct client *c = &s->clients[s->n_sent];
    struct request r = {.tokens = s->tokens,
                        .n_tok = (size_t)s->load->prompt,
                        .sampling = SAMPLING_DEFAULTS,
                        .max_tok = s->load->output,
                        .speculation = s->b->speculation,
                        .hidden = true,
                        .ignore_eos = true};
    struct err err;
    r.sampling.temperature = 0;
    bench_prompt(s->b, s->tokens, s->load->prompt);
    c->session = session_new(s->b->engine);
    c->asked_us = s->load->concurrency ? clock_us() : c->due_us;
    if (session_generate(c->session, &r, (uint64_t)s->n_sent++, s->box, &err) != ST_OK) {
        count_failure(s, &err);
        session_free(c->session);
        c->session = NULL;
        return;
    }
    s->n_active++;
    s->peak_active = s->n_active > s->peak_active ? s->n_active : s->peak_active;
}

static void hear_token(struct serve *s, struct client *c, const struct event *e) {
    if (c->n_tok++)
        series_add(&s->itl_ms, (double)(e->at_us - c->last_us) / 1000);
    else
        c->first_us = e->at_us;
    c->last_us = e->at_us;
    series_add(&s->at_s, (double)(e->at_us - s->begin_us) / 1e6);
}

static void hear_end(struct serve *s, struct client *c, const struct event *e) {
    session_free(c->session);
    c->session = NULL;
    s->n_active--;
    if (e->type == EVENT_ERROR) {
        count_failure(s, &e->err);
        return;
    }
    s->n_done++;
    s->end_us = c->last_us > s->end_us ? c->last_us : s->end_us;
    series_add(&s->ttft_ms, (double)(c->first_us - c->asked_us) / 1000);
    series_add(&s->e2el_ms, (double)(c->last_us - c->asked_us) / 1000);
    if (c->n_tok > 1)
        series_add(&s->tpot_ms, (double)(c->last_us - c->first_us) / 1000 / (c->n_tok - 1));
}

/* Milliseconds until the next request may be sent, at most 100. */
static int time_left(const struct serve *s) {
    if (s->n_sent == s->load->n_request || s->n_active >= s->limit)
        return 100;
    int64_t us = s->clients[s->n_sent].due_us - clock_us();
    return us <= 0 ? 0 : us > 100000 ? 100 : (int)((us + 999) / 1000);
}

static enum status run_load(struct serve *s, bool show, struct err *err) {
    int n = s->load->n_request;
    s->begin_us = s->end_us = clock_us();
    plan_arrivals(s);
    while (s->n_done + s->n_failed < n) {
        if (interrupted()) {
            s->end_us = clock_us();
            return err_set(err, ST_CANCELLED, "interrupted");
        }
        while (s->n_sent < n && s->n_active < s->limit &&
               s->clients[s->n_sent].due_us <= clock_us())
            send_next(s);
        struct event *e = mailbox_wait(s->box, time_left(s));
        for (; e; e = mailbox_take(s->box)) {
            struct client *c = &s->clients[e->request_id];
            if (e->type == EVENT_TOKEN && e->token >= 0)
                hear_token(s, c, e);
            else if (e->type == EVENT_FINISHED || e->type == EVENT_ERROR)
                hear_end(s, c, e);
            event_free(e);
        }
        if (show)
            progress_show(NULL, "requests", (uint64_t)s->n_done, (uint64_t)n);
    }
    return ST_OK;
}

static void serve_init(struct serve *s, struct bench *b, const struct bench_load *l) {
    *s = (struct serve){.b = b, .load = l, .limit = BENCH_MAX_BATCH};
    if (l->concurrency && l->concurrency < s->limit)
        s->limit = l->concurrency;
    s->clients = xcalloc((size_t)l->n_request, sizeof *s->clients);
    s->tokens = xcalloc((size_t)l->prompt, sizeof *s->tokens);
    s->box = mailbox_new(event_free);
}

static void serve_release(struct serve *s) {
    for (int i = 0; i < s->n_sent; i++)
        session_free(s->clients[i].session);
    mailbox_unref(s->box);
    free(s->clients);
    free(s->tokens);
    struct series *all[] = {&s->ttft_ms, &s->tpot_ms, &s->itl_ms, &s->e2el_ms, &s->at_s};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        series_release(all[i]);
}

/* -- output -- */

struct totals {
    double duration, request_throughput, output_throughput, total_throughput, peak_output;
    int64_t input, output;
};

/* Tokens of the fullest second. */
static double peak_output(struct series *at_s) {
    double peak = 0;
    series_summary(at_s); /* sorts */
    for (size_t i = 0, from = 0; i < at_s->n; i++) {
        if (i == 0 || (int64_t)at_s->v[i] != (int64_t)at_s->v[from])
            from = i;
        double n = (double)(i - from + 1);
        peak = n > peak ? n : peak;
    }
    return peak;
}

static struct totals count_totals(struct serve *s) {
    struct totals t = {.duration = (double)(s->end_us - s->begin_us) / 1e6,
                       .input = (int64_t)s->n_done * s->load->prompt,
                       .output = (int64_t)s->n_done * s->load->output};
    if (t.duration > 0) {
        t.request_throughput = s->n_done / t.duration;
        t.output_throughput = (double)t.output / t.duration;
        t.total_throughput = (double)(t.input + t.output) / t.duration;
    }
    t.peak_output = peak_output(&s->at_s);
    return t;
}

enum { BLOCK_CELLS = 50 };

static void print_centred(const char *text, char fill) {
    int left = (BLOCK_CELLS - (int)strlen(text)) / 2;
    int right = BLOCK_CELLS - left - (int)strlen(text);
    for (int i = 0; i < left; i++)
        putchar(fill);
    fputs(text, stdout);
    for (int i = 0; i < right; i++)
        putchar(fill);
    putchar('\n');
}

static void print_count(const char *name, int64_t n) {
    printf("%-40s %-10lld\n", name, (long long)n);
}
static void print_value(const char *name, double x) {
    printf("%-40s %-10.2f\n", name, x);
}

static void print_latency(const char *title, const char *name, const struct summary *m) {
    char label[48];
    print_centred(title, '-');
    snprintf(label, sizeof label, "Mean %s (ms):", name);
    print_value(label, m->mean);
    snprintf(label, sizeof label, "Median %s (ms):", name);
    print_value(label, m->median);
    snprintf(label, sizeof label, "P99 %s (ms):", name);
    print_value(label, m->p99);
}

static void print_result(struct serve *s, const struct totals *t) {
    struct summary ttft = series_summary(&s->ttft_ms), tpot = series_summary(&s->tpot_ms),
                   itl = series_summary(&s->itl_ms);
    bench_title(s->b);
    putchar('\n');
    print_centred(" Serving Benchmark Result ", '=');
    print_count("Successful requests:", s->n_done);
    print_count("Failed requests:", s->n_failed);
    if (s->load->concurrency)
        print_count("Maximum request concurrency:", s->load->concurrency);
    if (isfinite(s->load->rate))
        print_value("Request rate configured (RPS):", s->load->rate);
    print_value("Benchmark duration (s):", t->duration);
    print_count("Total input tokens:", t->input);
    print_count("Total generated tokens:", t->output);
    print_value("Request throughput (req/s):", t->request_throughput);
    print_value("Output token throughput (tok/s):", t->output_throughput);
    print_value("Peak output token throughput (tok/s):", t->peak_output);
    print_value("Peak concurrent requests:", s->peak_active);
    print_value("Total token throughput (tok/s):", t->total_throughput);
    print_latency("Time to First Token", "TTFT", &ttft);
    print_latency("Time per Output Token (excl. 1st token)", "TPOT", &tpot);
    print_latency("Inter-token Latency", "ITL", &itl);
    print_centred("", '=');
}

static void put_latency(json_t *j, const char *name, struct series *s) {
    struct summary m = series_summary(s);
    const struct {
        const char *start;
        double x;
    } parts[] = {{"mean", m.mean},
                 {"median", m.median},
                 {"std", m.stddev},
                 {"p95", m.p95},
                 {"p99", m.p99}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char key[32];
        snprintf(key, sizeof key, "%s_%s_ms", parts[i].start, name);
        json_object_set_new(j, key, json_real(parts[i].x));
    }
}

static void put_result(struct serve *s, const struct totals *t) {
    const struct bench_load *l = s->load;
    char date[32];
    time_t now = time(NULL);
    struct tm tm;
    strftime(date, sizeof date, "%Y%m%d-%H%M%S", localtime_r(&now, &tm));
    json_t *j = bench_json_start(s->b);
    bench_json_add(
        j, json_pack(
               "{s:s, s:s, s:o, s:o, s:i, s:i, s:i, s:o, s:o, s:f}", "date", date, "backend",
               "llmchat", "model_id", json_text(s->b->model), "tokenizer_id",
               json_text(s->b->model), "prompt_tokens", l->prompt, "output_tokens", l->output,
               "num_prompts", l->n_request, "request_rate",
               isfinite(l->rate) ? json_real(l->rate) : json_string("inf"), "max_concurrency",
               l->concurrency ? json_integer(l->concurrency) : json_null(), "burstiness", 1.0));
    bench_json_add(
        j, json_pack("{s:f, s:i, s:i, s:I, s:I, s:f, s:f, s:f, s:f, s:i}", "duration",
                     t->duration, "completed", s->n_done, "failed", s->n_failed,
                     "total_input_tokens", (json_int_t)t->input, "total_output_tokens",
                     (json_int_t)t->output, "request_throughput", t->request_throughput,
                     "output_throughput", t->output_throughput, "total_token_throughput",
                     t->total_throughput, "max_output_tokens_per_s", t->peak_output,
                     "max_concurrent_requests", s->peak_active));
    put_latency(j, "ttft", &s->ttft_ms);
    put_latency(j, "tpot", &s->tpot_ms);
    put_latency(j, "itl", &s->itl_ms);
    put_latency(j, "e2el", &s->e2el_ms);
    json_t *list = json_array();
    json_array_append_new(list, j);
    put_json(list);
}

enum status bench_serve(struct bench *b, const struct bench_load *l, struct err *err) {
    struct bench_load one = *l;
    struct serve warm, s;
    one.n_request = 1;
    one.rate = INFINITY;
    one.output = l->output < 8 ? l->output : 8;
    serve_init(&warm, b, &one);
    enum status st = run_load(&warm, false, err);
    serve_release(&warm);
    if (st != ST_OK)
        return st;
    serve_init(&s, b, l);
    st = run_load(&s, true, err);
    progress_clear();
    if (s.n_done) {
        struct totals t = count_totals(&s);
        if (b->json)
            put_result(&s, &t);
        else
            print_result(&s, &t);
    }
    if (st == ST_OK && s.n_failed)
        st = err_set(err, s.first_error.code, "%d of %d requests failed; the first: %s",
                     s.n_failed, l->n_request, s.first_error.msg);
    serve_release(&s);
    return st;
}
