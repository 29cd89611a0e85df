/*
 * test_spec.c - speculation over a fake graph (fake_graph.h), whose logits depend on every
 * token that the KV blocks hold: a guess that left a trace would change the answer.
 *
 * The scheduler is part of this program, so that its tasks and blocks can be looked at after
 * each step; time is the graph's own, so that what pays is the test's to say.
 */
#include "engine/run/sched.c" /* before cmocka.h, which has a macro fail() */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/run/event.h"
#include "fake_graph.h"
#include <math.h>

int64_t clock_us(void) {
    return fake.now_us;
}

int64_t clock_unix_ms(void) {
    return 0;
}

static uint32_t rand_next(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* ---- an engine without its thread ---- */

enum { MANY = 10, MAX_ANSWER = 2048 };

struct world {
    struct model *model, *draft_model;
    struct graph *graph, *draft_graph;
    struct draft *draft;
    struct sched *s;
    struct mailbox *box;
    struct session *sessions[MANY];
    int ctx_tok;
};

static void open_world(struct world *w, int ctx_tok, int n_block, const char *draft) {
    struct err err;
    struct graph_params gp = {.n_block = n_block, .max_logits = SCHED_MAX_LOGITS};
    *w = (struct world){.ctx_tok = ctx_tok};
    assert_int_equal(model_open("fake", &w->model, &err), ST_OK);
    assert_int_equal(graph_open(w->model, &gp, &w->graph, &err), ST_OK);
    if (draft) {
        gp.max_logits = SPEC_MAX_SEQ;
        assert_int_equal(model_open(draft, &w->draft_model, &err), ST_OK);
        assert_int_equal(draft_check(w->draft_model, w->model, &err), ST_OK);
        assert_int_equal(graph_open(w->draft_model, &gp, &w->draft_graph, &err), ST_OK);
        w->draft = draft_new(w->draft_model, w->draft_graph, n_block, FAKE_VOCAB);
    }
    w->s = sched_new(w->graph, NULL, FAKE_VOCAB, ctx_tok, n_block, w->draft);
    w->box = mailbox_new(event_free);
}

static void close_world(struct world *w) {
    sched_free(w->s);
    draft_free(w->draft);
    graph_close(w->graph);
    model_close(w->model);
    if (w->draft) {
        graph_close(w->draft_graph);
        model_close(w->draft_model);
    }
    mailbox_unref(w->box);
}

static struct session *session_at(struct world *w, int i) {
    if (!w->sessions[i]) {
        w->sessions[i] = xcalloc(1, sizeof *w->sessions[i]);
        sched_add_session(w->s, w->sessions[i]);
    }
    return w->sessions[i];
}

static void free_session(struct world *w, int i) {
    if (w->sessions[i])
        sched_free_session(w->s, w->sessions[i]);
    w->sessions[i] = NULL;
}

/* Submits; returns the task, which lives until its last event. */
static struct task *submit(struct world *w, int i, const struct request *r) {
    const struct task_limits lim = {.n_vocab = FAKE_VOCAB, .ctx_tok = w->ctx_tok};
    struct task *t;
    struct err err;
    if (task_new(r, &lim, &t, &err) != ST_OK)
        fail_msg("%s", err.msg);
    t->session = session_at(w, i);
    t->request_id = (uint64_t)i;
    t->events = mailbox_ref(w->box);
    sched_submit(w->s, t);
    return t;
}

static void assert_consistent(const struct world *w) {
    const struct kv_seq *seqs[MANY];
    int n = 0;
    for (int i = 0; i < MANY; i++) {
        if (!w->sessions[i])
            continue;
        const struct kv_seq *kv = seqs[n++] = &w->sessions[i]->kv;
        assert_int_equal(kv->n_block, (kv->n_tok + KV_BLOCK - 1) / KV_BLOCK);
    }
    assert_true(kv_consistent(w->s->pool, seqs, n));
    assert_true(!w->draft || draft_consistent(w->draft));
}

struct answer {
    int32_t tokens[MAX_ANSWER];
    float logprobs[MAX_ANSWER];
    int n;
    bool ended;
    struct buf text;
    struct event last; /* its pointers are not valid */
};

/* Events that came, by session. */
static void take_events(struct world *w, struct answer *a) {
    for (struct event *e; (e = mailbox_take(w->box));) {
        struct answer *x = &a[e->request_id];
        if (e->type == EVENT_TOKEN) {
            assert_false(x->ended);
            if (e->token >= 0) {
                x->logprobs[x->n] = e->logprob;
                x->tokens[x->n++] = e->token;
            }
            buf_adds(&x->text, e->text);
        } else if (e->type == EVENT_FINISHED || e->type == EVENT_ERROR) {
            x->ended = true;
            x->last = *e;
        }
        event_free(e);
    }
}

static void ask(struct world *w, struct answer *a, const struct request *r) {
    *a = (struct answer){0};
    submit(w, 0, r);
    while (sched_has_work(w->s)) {
        sched_step(w->s);
        assert_consistent(w);
        take_events(w, a);
    }
    assert_true(a->ended);
}

/* What a request is answered without any engine: the sampler over the model's logits. */
static void expect(struct answer *a, const struct request *r, int ctx_tok) {
    struct sampler s;
    struct sampler_scratch *w = sampler_scratch_new(FAKE_VOCAB);
    static int32_t history[8192];
    float logits[FAKE_VOCAB];
    int n = (int)r->n_tok;
    memcpy(history, r->tokens, r->n_tok * sizeof *history);
    sampler_init(&s, &r->sampling, r->bias, r->n_bias, r->n_logprobs);
    *a = (struct answer){0};
    while ((r->max_tok < 0 || a->n < r->max_tok) && n < ctx_tok) {
        struct sampled next;
        struct err err;
        fake_logits(history, (size_t)n, logits);
        assert_int_equal(sampler_next(&s, w, logits, history, (size_t)n, &next, &err), ST_OK);
        if (next.token == FAKE_EOG && !r->ignore_eos)
            break;
        a->logprobs[a->n] = next.logprob;
        a->tokens[a->n++] = history[n++] = next.token;
    }
    sampler_scratch_free(w);
}

static void assert_same(const struct answer *a, const struct answer *b) {
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->tokens, b->tokens, (size_t)a->n * sizeof *a->tokens);
    assert_memory_equal(a->logprobs, b->logprobs, (size_t)a->n * sizeof *a->logprobs);
}

static int text_tokens(int32_t *tokens, const char *text) {
    int n = 0;
    for (; text[n]; n++)
        tokens[n] = (unsigned char)text[n];
    return n;
}

/* A prompt that holds what the model will say: "the text#". */
#define COPY                                                                                   \
    "the quick brown fox jumps over the lazy dog while seven wizards quietly bake bread; "

static struct request request(const int32_t *tokens, int n, int max_tok, double temperature,
                              int64_t seed) {
    return (struct request){.tokens = tokens,
                            .n_tok = (size_t)n,
                            .max_tok = max_tok,
                            .speculation = SPECULATION_AUTO,
                            .sampling = {.temperature = temperature,
                                         .top_p = 1,
                                         .typical_p = 1,
                                         .repeat_penalty = 1,
                                         .repeat_last_n = 64,
                                         .seed = seed}};
}

/* Rows cost little beside a step: guesses pay whenever there are some. */
static int cheap_rows(void **state) {
    (void)state;
    fake_reset();
    fake.step_us = 1000;
    fake.row_us = 1;
    fake.draft_part = 100;
    return 0;
}

/* ---- lookup ---- */

static void lookup_finds_the_longest_run(void **state) {
    (void)state;
    struct lookup l = {0};
    int32_t p[200];
    int len, n = text_tokens(p, "xabcdE_abcdF_zbcdG_abcd");
    int at = lookup_find(&l, p, n, &len);
    assert_int_equal(len, 5); /* "_abcd" */
    assert_int_equal(p[at], 'F');
    p[n++] = 'F'; /* it goes on being right */
    assert_int_equal(lookup_find(&l, p, n, &len), at + 1);
    assert_int_equal(len, 6);
    n += text_tokens(p + n, "?zb");
    at = lookup_find(&l, p, n, &len); /* a pair only */
    assert_int_equal(len, 2);
    assert_int_equal(p[at], 'c');
    p[n++] = '!';
    assert_int_equal(lookup_find(&l, p, n, &len), -1);
    lookup_release(&l);
}

static void lookup_of_random_text_is_always_a_real_match(void **state) {
    (void)state;
    static int32_t p[6000];
    uint64_t random = 5;
    for (int letters = 2; letters < 40; letters *= 2) {
        struct lookup l = {0};
        int n_found = 0, n_missed = 0;
        for (int n = 1; n < 6000; n += 1 + (int)(rand_next(&random) % 3)) {
            int len, longest = 0;
            for (int i = 0; i < 6000 && n == 1; i++)
                p[i] = (int32_t)(rand_next(&random) % (uint64_t)letters);
            int at = lookup_find(&l, p, n, &len);
            for (int i = n - 2; i >= 0 && n < 1500; i--) {
                int k = 0;
                while (k < LOOKUP_MATCH && k <= i && p[i - k] == p[n - 1 - k])
                    k++;
                longest = k > longest ? k : longest;
            }
            n_missed += at < 0 && longest >= LOOKUP_LONG;
            if (at < 0)
                continue;
            n_found++;
            assert_true(at > 0 && at < n && len >= LOOKUP_SHORT && len <= at);
            assert_memory_equal(p + at - len, p + n - len, (size_t)len * sizeof *p);
            assert_true(len == LOOKUP_MATCH || at == len || p[at - len - 1] != p[n - len - 1]);
        }
        assert_true(n_found > 1000 && n_missed == 0);
        lookup_release(&l);
    }
}

/* ---- the same answer ---- */

static void spec_answers_are_those_without(void **state) {
    (void)state;
    static struct answer got, want;
    int drafted = 0, accepted = 0;
    static int32_t p[2000];
    fake.script = COPY COPY "and so on; " COPY;
    for (int mode = SPECULATION_AUTO; mode <= SPECULATION_LOOKUP; mode++)
        for (int64_t seed = 0; seed < 40; seed++) {
            struct world w;
            open_world(&w, 1500, 100, NULL);
            int n = text_tokens(p, seed % 2 ? COPY "#" : "nothing to copy#");
            struct request r = request(p, n, seed % 5 ? -1 : (int)seed,
                                       seed % 4 ? (double)(seed % 4) / 2 : 0, seed);
            r.sampling.top_k = seed % 3 ? 0 : 20;
            r.sampling.repeat_penalty = seed % 7 ? 1 : 1.2;
            r.sampling.frequency_penalty = seed % 6 ? 0 : .3;
            r.n_logprobs = seed % 3 ? 0 : 2;
            r.speculation = (enum speculation)mode;
            ask(&w, &got, &r);
            expect(&want, &r, 1500);
            assert_same(&got, &want);
            drafted += got.last.drafted_tok;
            accepted += got.last.accepted_tok;
            assert_int_equal(got.last.completion_tok, want.n);
            buf_release(&got.text);
            close_world(&w);
        }
    assert_true(accepted > 2000 && drafted > accepted + 500);
}

static void spec_off_guesses_nothing(void **state) {
    (void)state;
    static struct answer got;
    int32_t p[200];
    struct world w;
    fake.script = COPY COPY;
    open_world(&w, 500, 40, "fake");
    int n = text_tokens(p, COPY "#");
    struct request r = request(p, n, -1, 0, 1);
    r.speculation = SPECULATION_OFF;
    ask(&w, &got, &r);
    assert_int_equal(got.last.drafted_tok, 0);
    assert_int_equal(fake.n_tok, n + got.n); /* each token once */
    buf_release(&got.text);
    close_world(&w);
}

/* Stop strings, end tokens and limits inside of a run that was guessed right: nothing behind
 * them is said, and the timeline's KV has no token behind them. */
static void spec_ends_inside_of_a_run(void **state) {
    (void)state;
    static struct answer got, want;
    int32_t p[400];
    struct world w;
    fake.script = COPY "wizards quietly";
    open_world(&w, 500, 40, NULL);
    int n = text_tokens(p, COPY COPY "#");
    const char *stop = "wizards qui";
    for (int cut = 1; cut < 90; cut++) {
        struct request r = request(p, n, cut, 0, 1);
        ask(&w, &got, &r);
        expect(&want, &r, 500);
        assert_same(&got, &want);
        assert_int_equal(got.n, cut);
        assert_int_equal(got.last.finish, FINISH_LENGTH);
        assert_int_equal(w.sessions[0]->kv.n_tok, n + cut - 1);
        buf_release(&got.text);
        free_session(&w, 0);
    }
    struct request r = request(p, n, -1, 0, 1);
    r.stop = &stop;
    r.n_stop = 1;
    ask(&w, &got, &r);
    assert_string_equal(buf_str(&got.text),
                        "the quick brown fox jumps over the lazy dog while seven ");
    assert_int_equal(got.last.finish, FINISH_STOP);
    assert_int_equal(w.sessions[0]->kv.n_tok, n + got.n - 1);
    assert_true(got.last.accepted_tok > 30);
    buf_release(&got.text);
    free_session(&w, 0);
    r.n_stop = 0;
    ask(&w, &got, &r); /* the end token itself */
    assert_string_equal(buf_str(&got.text), fake.script);
    assert_int_equal(got.last.finish, FINISH_STOP);
    buf_release(&got.text);
    close_world(&w);
}

/* The context's end is as with any answer. */
static void spec_fills_the_context_exactly(void **state) {
    (void)state;
    static struct answer got, want;
    int32_t p[400];
    fake.script = COPY COPY COPY;
    for (int ctx = 190; ctx < 210; ctx++) {
        struct world w;
        open_world(&w, ctx, 14, NULL);
        int n = text_tokens(p, COPY "#");
        struct request r = request(p, n, -1, 0, 1);
        ask(&w, &got, &r);
        expect(&want, &r, ctx);
        assert_same(&got, &want);
        assert_int_equal(got.last.finish, FINISH_LENGTH);
        assert_true(fake.longest <= ctx);
        buf_release(&got.text);
        close_world(&w);
    }
}

/* A batch must not lie across the border between two kinds of keys. */
static void spec_stops_at_another_kind_of_kv(void **state) {
    (void)state;
    static struct answer got, want;
    int32_t p[400];
    fake.script = COPY COPY COPY;
    for (fake.long_from = 120; fake.long_from < 140; fake.long_from++) {
        struct world w;
        open_world(&w, 500, 40, "fake-draft");
        int n = text_tokens(p, COPY "#");
        struct request r = request(p, n, -1, 0, 1);
        ask(&w, &got, &r);
        expect(&want, &r, 500);
        assert_same(&got, &want);
        assert_true(got.last.accepted_tok > 150);
        buf_release(&got.text);
        close_world(&w);
    }
}

static void spec_logits_that_are_no_numbers_end_the_request(void **state) {
    (void)state;
    static struct answer got;
    int32_t p[400];
    struct world w;
    fake.script = COPY COPY COPY;
    open_world(&w, 500, 40, "fake");
    int n = text_tokens(p, COPY COPY "#");
    struct request r = request(p, n, -1, 0, 1);
    fake.nan_at = 24;
    ask(&w, &got, &r);
    assert_int_equal(got.last.type, EVENT_ERROR);
    buf_release(&got.text);
    fake.nan_at = 0;
    fake.fail_at = fake.n_forward + 12;
    ask(&w, &got, &r);
    fake.fail_at = 0;
    buf_release(&got.text);
    ask(&w, &got, &r);
    assert_string_equal(buf_str(&got.text), fake.script);
    buf_release(&got.text);
    close_world(&w);
}

/* ---- many, and little room ---- */

struct job {
    struct request r;
    int32_t tokens[700];
    bool runs, cancelled;
};

static void new_job(struct job *j, uint64_t *random) {
    static const char *const words[] = {"one ", "two ", "three ", "four and five ", "#"};
    struct buf b = {0};
    int n_word = 1 + (int)(rand_next(random) % 60);
    for (int i = 0; i < n_word; i++)
        buf_adds(&b, words[rand_next(random) % 4]);
    if (rand_next(random) % 2)
        buf_addf(&b, "%s#", COPY);
    int n = text_tokens(j->tokens, buf_str(&b));
    buf_release(&b);
    j->r = request(j->tokens, n, (int)(rand_next(random) % 120),
                   (double)(rand_next(random) % 3) / 2, (int64_t)(rand_next(random) % 1000));
    j->r.speculation = (enum speculation)(rand_next(random) % 4);
    j->runs = true;
    j->cancelled = false;
}

static void check_job(struct job *j, struct answer *a) {
    static struct answer want;
    expect(&want, &j->r, 700);
    if (j->cancelled)
        want.n = a->n < want.n ? a->n : want.n;
    assert_same(a, &want);
    buf_release(&a->text);
    j->runs = false;
}

static void one_change(struct world *w, struct job *jobs, struct answer *a, uint64_t *random) {
    int i = (int)(rand_next(random) % MANY), what = (int)(rand_next(random) % 40);
    if (!jobs[i].runs && what < 10) {
        a[i] = (struct answer){0};
        new_job(&jobs[i], random);
        submit(w, i, &jobs[i].r);
    } else if (jobs[i].runs && what == 11) {
        jobs[i].cancelled = true;
        sched_cancel(w->s, w->sessions[i]);
    } else if (what == 12) {
        jobs[i].cancelled = jobs[i].runs;
        free_session(w, i);
    } else if (what == 13 && !w->sessions[i]) {
        int from = (int)(rand_next(random) % MANY);
        if (w->sessions[from]) {
            w->sessions[i] = xcalloc(1, sizeof *w->sessions[i]);
            sched_fork(w->s, w->sessions[i], w->sessions[from]);
        }
    }
}

/* Ten sessions in a pool of one context and a little, with cancels, forks, preemption. */
static void spec_random_lives_leave_no_trace(void **state) {
    (void)state;
    static struct job jobs[MANY];
    static struct answer a[MANY];
    const char *const drafts[] = {NULL, "fake", "fake-draft"};
    fake.script = COPY "one two three four and five " COPY;
    fake.draft_wrong = 3;
    for (int life = 0; life < 6; life++) {
        struct world w;
        uint64_t random = 77 + (uint64_t)life;
        long accepted = 0, drafted = 0;
        fake.row_us = life < 3 ? 1 : 30;
        open_world(&w, 700, life % 2 ? 46 : 120, drafts[life % 3]);
        memset(jobs, 0, sizeof jobs);
        memset(a, 0, sizeof a);
        for (int step = 0; step < 4000; step++) {
            one_change(&w, jobs, a, &random);
            sched_step(w.s);
            assert_consistent(&w);
            take_events(&w, a);
            for (int i = 0; i < MANY; i++)
                if (jobs[i].runs && a[i].ended) {
                    accepted += a[i].last.accepted_tok;
                    drafted += a[i].last.drafted_tok;
                    check_job(&jobs[i], &a[i]);
                }
        }
        assert_true(accepted > 200 && drafted > accepted);
        for (int i = 0; i < MANY; i++)
            buf_release(&a[i].text);
        close_world(&w);
    }
}

/* ---- the distribution ---- */

enum { LETTERS = 26 };

struct tally {
    long n[LETTERS], total;
};

static void count(struct tally *t, int32_t token) {
    if (token < 'a' ||
        token > 'z') /* of a guess; the model says it once in ten million times */
        return;
    t->n[token - 'a']++;
    t->total++;
}

static double chi_squared(const struct tally *t, const double *p) {
    double x = 0;
    for (int i = 0; i < LETTERS; i++) {
        double e = p[i] * (double)t->total;
        x += ((double)t->n[i] - e) * ((double)t->n[i] - e) / e;
    }
    return x;
}

/* Tokens at places of one distribution (the script has the same letter there, and the history's
 * length the same rest by 26) where a guess was in the batch. The exact probabilities are a
 * softmax; the statistic of 25 degrees of freedom is beyond 74.7 once in a million (Wilson and
 * Hilferty's approximation, z = 4.7534). Had every guess been taken the same data would be far
 * beyond it. */
static void spec_sampled_tokens_have_the_models_distribution(void **state) {
    (void)state;
    enum { PLACE = 9, N_PROMPT = 26 * 20 + 1 };
    const double T = 1.2, k = 2.0 / (9 * 25), beyond = 25 * pow(1 - k + 4.7534 * sqrt(k), 3);
    struct tally taken = {0}, guessed = {0};
    static struct answer got;
    static int32_t p[N_PROMPT];
    char script[261];
    float logits[FAKE_VOCAB];
    double prob[LETTERS], sum = 0;
    for (int i = 0; i < 260; i++)
        script[i] = (char)('a' + i * 7 % 26);
    script[260] = 0;
    fake.script = script;
    fake.row_us = 0;
    uint64_t random = 9;
    for (int run = 0; run < 700; run++) {
        struct world w;
        open_world(&w, 1024, 70, NULL);
        for (int i = 0; i < N_PROMPT - 1; i++)
            p[i] = rand_next(&random) % 2 ? script[i % 260]
                                          : 'a' + (int32_t)(rand_next(&random) % 26);
        p[N_PROMPT - 1] = '#';
        got = (struct answer){0};
        struct request r = request(p, N_PROMPT, 220, T, run);
        struct task *t = submit(&w, 0, &r);
        for (;;) {
            int before = t->n_tok;
            sched_step(w.s);
            take_events(&w, &got);
            if (got.ended)
                break;
            for (int i = before; i < t->n_tok && i - before < t->spec.n_draft; i++)
                if ((i - N_PROMPT) % 26 == PLACE) {
                    count(&taken, t->tokens[i]);
                    count(&guessed, t->spec.draft[i - before]);
                }
        }
        buf_release(&got.text);
        close_world(&w);
    }
    static int32_t history[N_PROMPT + PLACE];
    memcpy(history, p, sizeof p);
    fake_logits(history, N_PROMPT + PLACE, logits);
    for (int i = 0; i < LETTERS; i++)
        sum += prob[i] = exp(logits['a' + i] / T);
    for (int i = 0; i < LETTERS; i++) {
        prob[i] /= sum;
        assert_true(prob[i] * (double)taken.total > 5); /* the statistic is one */
    }
    assert_true(taken.total > 1500);
    assert_true(chi_squared(&taken, prob) < beyond);
    assert_true(chi_squared(&guessed, prob) > 2 * beyond);
}

/* ---- what pays ---- */

static int64_t time_of(struct request *r, enum speculation mode, const char *draft,
                       struct answer *a) {
    struct world w;
    open_world(&w, 4000, 260, draft);
    int64_t start = fake.now_us;
    r->speculation = mode;
    ask(&w, a, r);
    buf_release(&a->text);
    close_world(&w);
    return fake.now_us - start;
}

static void spec_pays_where_text_repeats_and_rows_are_cheap(void **state) {
    (void)state;
    static struct answer a;
    static int32_t p[3000];
    fake.row_us = 50; /* a row for a twentieth of a step */
    fake.script = COPY COPY COPY COPY COPY COPY COPY COPY;
    int n = text_tokens(p, COPY "#");
    struct request r = request(p, n, -1, 0, 1);
    int64_t off = time_of(&r, SPECULATION_OFF, NULL, &a);
    int64_t on = time_of(&r, SPECULATION_AUTO, NULL, &a);
    assert_true(on * 4 < off);
}

/* Text that only looks as if it repeated itself: pairs are followed by something else each
 * time. */
static void spec_costs_next_to_nothing_where_it_does_not_pay(void **state) {
    (void)state;
    static struct answer a;
    static int32_t p[3000];
    const int64_t row_us[] = {50, 200, 500, 1000};
    for (int i = 0; i < 1000; i++)
        p[i] = 'a' + (i * i / 7 + i) % 26;
    for (int i = 0; i < 4; i++)
        for (int greedy = 0; greedy < 2; greedy++) {
            fake.row_us = row_us[i];
            struct request r = request(p, 1000, 2000, greedy ? 0 : 3, 1);
            int64_t off = time_of(&r, SPECULATION_OFF, NULL, &a);
            int64_t on = time_of(&r, SPECULATION_AUTO, NULL, &a);
            assert_int_equal(a.n, 2000);
            assert_true((double)on < 1.01 * (double)off);
        }
}

/* Where a row costs as much as a step of one, even right guesses gain nothing. */
static void spec_is_off_where_rows_cost_what_steps_do(void **state) {
    (void)state;
    static struct answer a;
    static int32_t p[3000];
    fake.step_us = 0;
    fake.row_us = 1000;
    fake.script = COPY COPY COPY COPY COPY COPY COPY COPY;
    int n = text_tokens(p, COPY "#");
    struct request r = request(p, n, -1, 0, 1);
    int64_t off = time_of(&r, SPECULATION_OFF, NULL, &a);
    int64_t on = time_of(&r, SPECULATION_AUTO, NULL, &a);
    assert_true((double)on < 1.01 * (double)off);
    assert_true(a.last.drafted_tok < a.n / 10); /* tries */
}

static void spec_is_off_with_many_tasks(void **state) {
    (void)state;
    static struct answer a[MANY];
    static int32_t p[200];
    struct world w;
    fake.script = COPY COPY;
    open_world(&w, 500, 32 * MANY, "fake");
    memset(a, 0, sizeof a);
    int n = text_tokens(p, COPY "#");
    struct request r = request(p, n, -1, 0, 1);
    for (int i = 0; i < MANY; i++)
        submit(&w, i, &r);
    while (sched_has_work(w.s)) {
        sched_step(w.s);
        take_events(&w, a);
    }
    for (int i = 0; i < MANY; i++) {
        assert_string_equal(buf_str(&a[i].text), fake.script);
        assert_int_equal(a[i].last.drafted_tok, 0);
        buf_release(&a[i].text);
    }
    close_world(&w);
}

/* ---- the draft model ---- */

static void draft_that_is_the_model_is_always_right(void **state) {
    (void)state;
    static struct answer got, want;
    int32_t p[300];
    struct world w;
    open_world(&w, 600, 40, "fake");
    int n = text_tokens(p, "no script here");
    struct request r = request(p, n, 500, 0, 1);
    r.speculation = SPECULATION_DRAFT;
    fake.draft_part = 0;
    ask(&w, &got, &r);
    expect(&want, &r, 600);
    assert_same(&got, &want);
    assert_int_equal(got.last.accepted_tok, got.last.drafted_tok);
    assert_true(got.last.accepted_tok > 0);
    buf_release(&got.text);
    close_world(&w);
}

/* After wrong guesses as well, and after steps that it took no part in: its KV is that of the
 * timeline and of nothing else. */
static void draft_guesses_its_greedy_text(void **state) {
    (void)state;
    static struct answer a[3];
    static int32_t p[600];
    struct world w;
    int n_guess = 0, n_right = 0;
    fake.script = COPY COPY COPY;
    open_world(&w, 600, 40, "fake-draft");
    for (int turn = 0; turn < 20; turn++) {
        int n = text_tokens(p, turn % 2 ? "this is the one" : COPY "is the other prompt#");
        struct request r = request(p, n, 300, turn % 4 ? 1.5 : .7, turn);
        r.speculation = turn % 3 ? SPECULATION_AUTO : SPECULATION_DRAFT;
        memset(a, 0, sizeof a);
        struct task *t = submit(&w, turn % 3, &r);
        for (;;) {
            int before = t->n_tok;
            memcpy(p, t->tokens, (size_t)before * sizeof *p);
            sched_step(w.s);
            assert_consistent(&w);
            take_events(&w, a);
            if (a[turn % 3].ended)
                break;
            for (int i = 0; t->spec.from == SPEC_DRAFT && i < t->spec.n_draft; i++, n_guess++) {
                assert_int_equal(t->spec.draft[i], fake_next(p, (size_t)(before + i)));
                p[before + i] = t->spec.draft[i];
            }
            n_right += t->spec.accepted > 0;
        }
        buf_release(&a[turn % 3].text);
    }
    assert_true(n_guess > 500 && n_right > 50);
    close_world(&w);
}

static void draft_that_is_cheap_and_right_pays(void **state) {
    (void)state;
    static struct answer a;
    static int32_t p[300];
    int n = text_tokens(p, "no script here");
    struct request r = request(p, n, 1000, 0, 1);
    fake.draft_part = 20;
    int64_t off = time_of(&r, SPECULATION_OFF, "fake-draft", &a);
    int64_t on = time_of(&r, SPECULATION_AUTO, "fake-draft", &a);
    assert_true(on * 4 < off);
    fake.draft_wrong = 1; /* always wrong */
    on = time_of(&r, SPECULATION_DRAFT, "fake-draft", &a);
    assert_true((double)on < 1.06 * (double)off);
    assert_int_equal(a.last.accepted_tok, 0);
    assert_true(a.last.drafted_tok > 0 && a.last.drafted_tok < 150);
    fake.draft_wrong = 0;
    fake.draft_part = 1; /* as slow as the model */
    on = time_of(&r, SPECULATION_DRAFT, "fake-draft", &a);
    assert_true((double)on < 1.06 * (double)off);
}

static void draft_of_another_vocabulary_is_refused(void **state) {
    (void)state;
    struct model *m, *d;
    struct err err;
    assert_int_equal(model_open("fake", &m, &err), ST_OK);
    assert_int_equal(model_open("fake-draft", &d, &err), ST_OK);
    assert_int_equal(draft_check(d, m, &err), ST_OK);
    fake.more_tokens = 2; /* padding */
    assert_int_equal(draft_check(d, m, &err), ST_OK);
    fake.more_tokens = 30;
    assert_int_equal(draft_check(d, m, &err), ST_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "290 tokens, the model 260"));
    fake.more_tokens = 0;
    fake.foreign = 'q';
    assert_int_equal(draft_check(d, m, &err), ST_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "token 113 is \"foreign\" in the draft model and \"q\""));
    model_close(m);
    model_close(d);
}

/* A prompt is longer than what the draft model computes in one step. */
static void draft_catches_up_with_a_long_prompt(void **state) {
    (void)state;
    static struct answer got, want;
    static int32_t p[2000];
    struct world w;
    open_world(&w, 2600, 170, "fake-draft");
    fake_prompt(p, 2000, 0);
    struct request r = request(p, 2000, 300, 0, 1);
    ask(&w, &got, &r);
    expect(&want, &r, 2600);
    assert_same(&got, &want);
    assert_true(got.last.accepted_tok > 200);
    buf_release(&got.text);
    int before = fake.n_draft;
    r.max_tok = 301;
    ask(&w, &got, &r); /* again: its KV is there */
    assert_true(before > 2000 && fake.n_draft - before < 800);
    buf_release(&got.text);
    close_world(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lookup_finds_the_longest_run),
        cmocka_unit_test(lookup_of_random_text_is_always_a_real_match),
        cmocka_unit_test_setup(spec_answers_are_those_without, cheap_rows),
        cmocka_unit_test_setup(spec_off_guesses_nothing, cheap_rows),
        cmocka_unit_test_setup(spec_ends_inside_of_a_run, cheap_rows),
        cmocka_unit_test_setup(spec_fills_the_context_exactly, cheap_rows),
        cmocka_unit_test_setup(spec_stops_at_another_kind_of_kv, cheap_rows),
        cmocka_unit_test_setup(spec_logits_that_are_no_numbers_end_the_request, cheap_rows),
        cmocka_unit_test_setup(spec_random_lives_leave_no_trace, cheap_rows),
        cmocka_unit_test_setup(spec_sampled_tokens_have_the_models_distribution, cheap_rows),
        cmocka_unit_test_setup(spec_pays_where_text_repeats_and_rows_are_cheap, cheap_rows),
        cmocka_unit_test_setup(spec_costs_next_to_nothing_where_it_does_not_pay, cheap_rows),
        cmocka_unit_test_setup(spec_is_off_where_rows_cost_what_steps_do, cheap_rows),
        cmocka_unit_test_setup(spec_is_off_with_many_tasks, cheap_rows),
        cmocka_unit_test_setup(draft_that_is_the_model_is_always_right, cheap_rows),
        cmocka_unit_test_setup(draft_guesses_its_greedy_text, cheap_rows),
        cmocka_unit_test_setup(draft_that_is_cheap_and_right_pays, cheap_rows),
        cmocka_unit_test_setup(draft_of_another_vocabulary_is_refused, cheap_rows),
        cmocka_unit_test_setup(draft_catches_up_with_a_long_prompt, cheap_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
