/*
 * bench_shapes.c - prefill and decode of given shapes: so many prompt tokens, so many generated
 * ones, so many sequences together.
 *
 * A run has two halves, as in llama.cpp's batched-bench: first all sequences prefill and give
 * their first token, then, once all have, they decode together to the end, greedily and past
 * any end token. So neither half has a part of the other in it. Sequences are random and
 * hidden: nothing is shared, and what a run leaves is free for the next one. Times are the
 * engine's, taken when a token was chosen: prefill from the first request to the last first
 * token, decode from there on for the output - 1 tokens of each sequence. One run warms up, the
 * median of the others counts. It is of the same shape up to some length, because the first
 * touch of memory takes a system longer than filling it (on a virtual machine twenty times as
 * long) and is no part of what a program that is in use does.
 *
 * Bytes moved: a step reads the weights once and the KV of every sequence, on the average over
 * the output that of depth + prompt + output/2 tokens. With experts and a batch, and with
 * windows on attention, that is an estimate: a batch reads more experts, a window less KV.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "cmd/bench.h"
#include "cmd/cmd.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct seq {
    struct session *session;
    int32_t *tokens;         /* [depth + prompt + 1] */
    int64_t asked_us, at_us; /* of this half: the request, its last token */
};

struct shape {
    int depth, prompt, output, batch;
    struct seq *seqs; /* [batch] */
    struct mailbox *box;
    enum speculation speculation;
    int64_t drafted, accepted; /* of the last run */
};

/* Runs that counted. */
struct row {
    struct series prefill_us, decode_us, ttft_us, itl_us;
    struct series prefill, decode; /* tokens a second; not sorted before they are printed */
    int64_t drafted, accepted;     /* tokens that were guessed; of them right */
};

static void row_release(struct row *r) {
    struct series *all[] = {&r->prefill_us, &r->decode_us, &r->ttft_us,
                            &r->itl_us,     &r->prefill,   &r->decode};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        series_release(all[i]);
}

/* Asks every sequence for max_tok tokens after its first n_tok; sets *begin_us. */
static enum status ask_all(struct shape *h, int n_tok, int max_tok, int64_t *begin_us,
                           struct err *err) {
    for (int i = 0; i < h->batch; i++) {
        struct seq *q = &h->seqs[i];
        struct request r = {.tokens = q->tokens,
                            .n_tok = (size_t)n_tok,
                            .sampling = SAMPLING_DEFAULTS,
                            .max_tok = max_tok,
                            .speculation = h->speculation,
                            .hidden = true,
                            .ignore_eos = true};
        r.sampling.temperature = 0;
        q->at_us = q->asked_us = clock_us();
        if (i == 0)
            *begin_us = q->asked_us;
        CHECK(session_generate(q->session, &r, (uint64_t)i, h->box, err));
    }
    return ST_OK;
}

/* Until all have finished. Gaps between tokens go to itl_us, where it isn't NULL. */
static enum status hear_all(struct shape *h, int max_tok, struct series *itl_us,
                            struct err *err) {
    enum status st = ST_OK;
    for (int n_finished = 0; n_finished < h->batch && st == ST_OK;) {
        struct event *e = mailbox_wait(h->box, 100);
        if (interrupted())
            st = err_set(err, ST_CANCELLED, "interrupted");
        if (!e)
            continue;
        struct seq *q = &h->seqs[e->request_id];
        if (e->type == EVENT_TOKEN && e->token >= 0) {
            if (itl_us)
                series_add(itl_us, (double)(e->at_us - q->at_us));
            else
                q->tokens[h->depth + h->prompt] = e->token;
            q->at_us = e->at_us;
        } else if (e->type == EVENT_ERROR) {
            *err = e->err;
            st = e->err.code;
        } else if (e->type == EVENT_FINISHED) {
            n_finished++;
            h->drafted += e->drafted_tok;
            h->accepted += e->accepted_tok;
            if (e->completion_tok != max_tok)
                st = err_set(err, ST_LIMIT, "a sequence ended after %d of %d tokens",
                             e->completion_tok, max_tok);
        }
        event_free(e);
    }
    return st;
}

static int64_t last_token_us(const struct shape *h) {
    int64_t last = 0;
    for (int i = 0; i < h->batch; i++)
        last = h->seqs[i].at_us > last ? h->seqs[i].at_us : last;
    return last;
}

static double rate(double tokens, double us) {
    return us > 0 ? tokens / us * 1e6 : 0;
}

/* Both halves of one run; it goes into row unless that is NULL. */
static enum status run_halves(struct shape *h, struct row *row, struct err *err) {
    int64_t begin = 0;
    struct series itl = {0};
    enum status st;
    int all = h->depth + h->prompt;
    if (h->depth) { /* the token that comes behind it is overwritten by the next half's */
        TRY(ask_all(h, h->depth, 1, &begin, err));
        TRY(hear_all(h, 1, NULL, err));
    }
    TRY(ask_all(h, all, 1, &begin, err));
    TRY(hear_all(h, 1, NULL, err));
    double prefill_us = (double)(last_token_us(h) - begin), ttft_us = 0;
    for (int i = 0; i < h->batch; i++)
        ttft_us += (double)(h->seqs[i].at_us - h->seqs[i].asked_us) / h->batch;
    TRY(ask_all(h, all + 1, h->output - 1, &begin, err));
    TRY(hear_all(h, h->output - 1, &itl, err));
    double decode_us = (double)(last_token_us(h) - begin);
    if (!row)
        goto out;
    row->drafted += h->drafted;
    row->accepted += h->accepted;
    series_add(&row->prefill_us, prefill_us);
    series_add(&row->decode_us, decode_us);
    series_add(&row->ttft_us, ttft_us);
    series_add(&row->prefill, rate((double)h->prompt * h->batch, prefill_us));
    series_add(&row->decode, rate((double)(h->output - 1) * h->batch, decode_us));
    for (size_t i = 0; i < itl.n; i++)
        series_add(&row->itl_us, itl.v[i]);
out:
    series_release(&itl);
    return st;
}

static enum status run_once(struct bench *b, struct shape *h, struct row *row,
                            struct err *err) {
    h->seqs = xcalloc((size_t)h->batch, sizeof *h->seqs);
    h->box = mailbox_new(event_free);
    h->speculation = b->speculation;
    h->drafted = h->accepted = 0;
    for (int i = 0; i < h->batch; i++) {
        h->seqs[i].session = session_new(b->engine);
        h->seqs[i].tokens = xcalloc((size_t)(h->depth + h->prompt) + 1, sizeof(int32_t));
        bench_prompt(b, h->seqs[i].tokens, h->depth + h->prompt);
    }
    enum status st = run_halves(h, row, err);
    for (int i = 0; i < h->batch; i++) {
        session_free(h->seqs[i].session);
        free(h->seqs[i].tokens);
    }
    free(h->seqs);
    mailbox_unref(h->box);
    return st;
}

/* -- output -- */

/* Bytes that memory gives to one generated token. */
static double bytes_per_token(const struct bench *b, const struct shape *h) {
    double context = h->depth + h->prompt + h->output / 2.0;
    return (double)b->info->bytes_per_token / h->batch +
           (double)b->info->kv_bytes_per_tok * context;
}

/* 0 where it isn't known: a step that checks guesses makes any number of tokens. */
static double share_of_bandwidth(const struct bench *b, const struct shape *h,
                                 const struct row *r, double decode_tok_s) {
    if (b->bandwidth <= 0 || r->drafted)
        return 0;
    return decode_tok_s * bytes_per_token(b, h) / b->bandwidth;
}

static json_t *times(const struct series *s) {
    json_t *list = json_array();
    for (size_t i = 0; i < s->n; i++)
        json_array_append_new(list, json_real(s->v[i]));
    return list;
}

static void put_summary(json_t *j, const char *name, const struct summary *s) {
    const struct {
        const char *end;
        double x;
    } parts[] = {{"", s->median}, {"_min", s->min}, {"_max", s->max}, {"_stddev", s->stddev}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char key[64];
        snprintf(key, sizeof key, "%s%s", name, parts[i].end);
        json_object_set_new(j, key, json_real(parts[i].x));
    }
}

/* The lists of runs are in their order, so they go first: summaries sort. */
static json_t *row_json(const struct bench *b, const struct shape *h, struct row *r) {
    json_t *j = bench_json_start(b);
    bench_json_add(j, json_pack("{s:i, s:i, s:i, s:i, s:I, s:o, s:o, s:o}", "depth", h->depth,
                                "batch", h->batch, "prompt_tokens", h->prompt, "output_tokens",
                                h->output, "runs", (json_int_t)r->prefill.n, "prefill_runs_us",
                                times(&r->prefill_us), "decode_runs_us", times(&r->decode_us),
                                "ttft_runs_us", times(&r->ttft_us)));
    struct summary prefill = series_summary(&r->prefill), decode = series_summary(&r->decode),
                   ttft = series_summary(&r->ttft_us), itl = series_summary(&r->itl_us);
    double bytes = bytes_per_token(b, h);
    put_summary(j, "prefill_tok_s", &prefill);
    put_summary(j, "decode_tok_s", &decode);
    put_summary(j, "ttft_us", &ttft);
    double share = share_of_bandwidth(b, h, r, decode.median);
    bench_json_add(
        j, json_pack("{s:f, s:f, s:f, s:f, s:I, s:f, s:I, s:I, s:f, s:I, s:I}", "itl_mean_us",
                     itl.mean, "itl_p50_us", itl.median, "itl_p95_us", itl.p95, "itl_p99_us",
                     itl.p99, "bytes_per_token", (json_int_t)(bytes + 0.5), "bandwidth_share",
                     share, "weight_bytes_per_step", (json_int_t)b->info->bytes_per_token,
                     "kv_bytes_per_context_token", (json_int_t)b->info->kv_bytes_per_tok,
                     "bandwidth_bytes_s", b->bandwidth, "drafted_tokens",
                     (json_int_t)r->drafted, "accepted_tokens", (json_int_t)r->accepted));
    return j;
}

static void print_head(const struct bench *b, int repeat) {
    bench_title(b);
    printf(", median of %d\n", repeat);
    if (*b->info->draft)
        printf("draft model %s, %s more\n", b->info->draft, show_bytes(b->info->draft_bytes));
    printf("A step reads %s of weights and %s of KV for each token of context.\n",
           show_bytes(b->info->bytes_per_token), show_bytes(b->info->kv_bytes_per_tok));
    if (b->bandwidth > 0)
        printf("Memory gives %s/s to as many threads; \"read\" is decode's share of that.\n",
               show_bytes((uint64_t)b->bandwidth));
    printf("%9s %5s %3s %14s %14s %8s %7s %6s %4s\n", "prompt", "out", "seq", "prefill tok/s",
           "decode tok/s", "ttft ms", "itl p50", "p99", "read");
    fflush(stdout);
}

static void print_rate(const struct series *runs, const struct summary *s) {
    printf(" %8.1f", s->median);
    if (runs->n > 1 && s->median > 0)
        printf(" +-%2.0f%%", s->stddev / s->median * 100);
    else
        printf("%6s", "");
}

static void print_row(const struct bench *b, const struct shape *h, struct row *r) {
    struct summary prefill = series_summary(&r->prefill), decode = series_summary(&r->decode),
                   ttft = series_summary(&r->ttft_us), itl = series_summary(&r->itl_us);
    char prompt[32];
    snprintf(prompt, sizeof prompt, h->depth ? "%d @ %d" : "%d", h->prompt, h->depth);
    printf("%9s %5d %3d", prompt, h->output, h->batch);
    print_rate(&r->prefill, &prefill);
    print_rate(&r->decode, &decode);
    printf(" %8.1f %7.2f %6.2f", ttft.median / 1000, itl.median / 1000, itl.p99 / 1000);
    double share = share_of_bandwidth(b, h, r, decode.median);
    if (share > 0)
        printf(" %3.0f%%", share * 100);
    putchar('\n');
    if (b->speculation != SPECULATION_OFF)
        printf("%9s guessed %lld tokens, %lld of them right\n", "", (long long)r->drafted,
               (long long)r->accepted);
    fflush(stdout);
}

/* One row. What was measured when it fails is printed all the same. */
static enum status measure(struct bench *b, struct shape *h, int repeat, json_t *rows,
                           struct err *err) {
    struct row row = {0};
    struct shape warm = {.prompt = h->prompt < 512 ? h->prompt : 512,
                         .output = h->output < 128 ? h->output : 128,
                         .batch = h->batch};
    enum status st = run_once(b, &warm, NULL, err);
    for (int i = 0; i < repeat && st == ST_OK; i++)
        st = run_once(b, h, &row, err);
    if (row.prefill.n && b->json)
        json_array_append_new(rows, row_json(b, h, &row));
    else if (row.prefill.n)
        print_row(b, h, &row);
    row_release(&row);
    return st;
}

enum status bench_shapes(struct bench *b, const struct bench_lists *l, struct err *err) {
    enum status st = ST_OK;
    json_t *rows = json_array();
    if (!b->json)
        print_head(b, l->repeat);
    size_t n_rows = l->n_depth * l->n_prompt * l->n_output * l->n_batch;
    for (size_t i = 0; i < n_rows && st == ST_OK; i++) { /* the last list turns fastest */
        size_t k = i;
        struct shape h;
        h.batch = (int)l->batch[k % l->n_batch], k /= l->n_batch;
        h.output = (int)l->output[k % l->n_output], k /= l->n_output;
        h.prompt = (int)l->prompt[k % l->n_prompt], k /= l->n_prompt;
        h.depth = (int)l->depth[k];
        st = measure(b, &h, l->repeat, rows, err);
    }
    if (b->json && (st == ST_OK || json_array_size(rows)))
        put_json(rows);
    else
        json_decref(rows);
    return st;
}
