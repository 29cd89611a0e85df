/*
 * test_engine.c - the engine over a fake graph (fake_graph.h): what is answered depends on
 * every token in the KV blocks, so each test of an answer is one of the block tables, too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "engine/engine.h"
#include "fake_graph.h"
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ---- helpers ---- */

struct answer {
    int32_t tokens[4096];
    int n_tok, n_prefill, n_events;
    struct buf text;
    struct event last; /* of FINISHED or ERROR; text and alt are not valid */
};

static struct engine *open_engine(int ctx_tok, int n_block) {
    struct engine_params p = {.ctx_tok = ctx_tok,
                              .kv_bytes = (size_t)n_block * FAKE_BLOCK_BYTES};
    struct engine *e;
    struct err err = {0};
    if (engine_open("fake", &p, &e, &err) != ST_OK)
        fail_msg("%s", err.msg);
    return e;
}

static struct request greedy(const int32_t *tokens, size_t n, int max_tok) {
    return (struct request){
        .tokens = tokens,
        .n_tok = n,
        .max_tok = max_tok,
        .sampling = {.top_p = 1, .typical_p = 1, .repeat_penalty = 1, .seed = 1}};
}

/* Takes one event into the answer; true when it was the last. */
static bool take(struct answer *a, struct event *e, uint64_t id) {
    assert_int_equal(e->request_id, id);
    a->n_events++;
    assert_true(utf8_valid(e->text, strlen(e->text)));
    if (e->type == EVENT_PREFILL) {
        assert_int_equal(a->n_tok, 0);
        a->n_prefill++;
        assert_true(e->n_done > 0 && e->n_done <= e->n_total);
    } else if (e->type == EVENT_TOKEN) {
        if (e->token >= 0)
            a->tokens[a->n_tok++] = e->token;
        buf_adds(&a->text, e->text);
    }
    bool end = e->type == EVENT_FINISHED || e->type == EVENT_ERROR;
    if (end)
        a->last = *e;
    event_free(e);
    return end;
}

static void collect(struct answer *a, struct mailbox *m, uint64_t id) {
    memset(a, 0, sizeof *a);
    while (!take(a, mailbox_wait(m, -1), id))
        ;
}

static void ask(struct answer *a, struct session *s, const struct request *r) {
    struct mailbox *m = mailbox_new(event_free);
    struct err err = {0};
    if (session_generate(s, r, 7, m, &err) != ST_OK)
        fail_msg("%s", err.msg);
    collect(a, m, 7);
    assert_null(mailbox_take(m));
    mailbox_unref(m);
}

/* What the model says greedily: appends max_tok tokens at most, stops at the end token. */
static int expected(int32_t *tokens, int n, int max_tok) {
    int i = 0;
    for (; i < max_tok; i++) {
        int32_t t = fake_next(tokens, (size_t)n + (size_t)i);
        if (t == FAKE_EOG)
            break;
        tokens[n + i] = t;
    }
    return i;
}

static void assert_answer(const struct answer *a, const int32_t *prompt, int n, int max_tok) {
    static _Thread_local int32_t want[8192];
    memcpy(want, prompt, (size_t)n * sizeof *prompt);
    int n_want = expected(want, n, max_tok);
    assert_int_equal(a->n_tok, n_want);
    assert_memory_equal(a->tokens, want + n, (size_t)n_want * sizeof *want);
    assert_int_equal(a->last.type, EVENT_FINISHED);
    assert_int_equal(a->last.completion_tok, n_want);
    assert_int_equal(a->last.prompt_tok, n);
}

static int text_tokens(int32_t *tokens, const char *text) {
    int n = 0;
    for (; text[n]; n++)
        tokens[n] = (unsigned char)text[n];
    return n;
}

static int setup(void **state) {
    (void)state;
    fake_reset();
    return 0;
}

/* ---- answers ---- */

static void engine_answers_what_the_model_says(void **state) {
    (void)state;
    struct engine *e = open_engine(512, 64);
    struct session *s = session_new(e);
    struct answer a;
    int32_t p[300];
    fake_prompt(p, 300, 0);
    struct request r = greedy(p, 300, 50);
    ask(&a, s, &r);
    assert_answer(&a, p, 300, 50);
    assert_int_equal(a.last.finish, FINISH_LENGTH);
    assert_int_equal(a.last.cached_tok, 0);
    assert_true(a.n_prefill > 1); /* more than one chunk */
    assert_int_equal(a.text.len, 50);
    assert_int_equal(session_cached_tok(s), 349); /* the last token was not computed */
    buf_release(&a.text);
    session_free(s);
    engine_close(e);
}

static void engine_second_turn_computes_only_new_tokens(void **state) {
    (void)state;
    struct engine *e = open_engine(512, 64);
    struct session *s = session_new(e), *other = session_new(e);
    struct answer a;
    int32_t p[400];
    fake_prompt(p, 100, 0);
    struct request r = greedy(p, 100, 20);
    ask(&a, s, &r);
    buf_release(&a.text);
    int n = 100 + expected(p, 100, 20);
    fake_prompt(p + n, 30, 1);
    int32_t q[90];
    fake_prompt(q, 90, 5);
    struct request r2 = greedy(q, 90, 20);
    ask(&a, other, &r2); /* another conversation between the turns */
    buf_release(&a.text);
    int before = fake.n_tok;
    r = greedy(p, (size_t)n + 30, 10);
    ask(&a, s, &r);
    assert_answer(&a, p, n + 30, 10);
    assert_int_equal(a.last.cached_tok, 119);
    assert_int_equal(fake.n_tok - before, 31 + 9);
    buf_release(&a.text);
    engine_close(e);
}

/* It goes on with its own, and nobody else does. */
static void engine_hidden_sessions_share_nothing(void **state) {
    (void)state;
    struct engine *e = open_engine(512, 64);
    struct answer a;
    int32_t p[200];
    fake_prompt(p, 200, 0);
    for (int i = 0; i < 4; i++) { /* the last one is not hidden */
        struct session *s = session_new(e);
        struct request r = greedy(p, 190, 5);
        r.hidden = i < 3;
        ask(&a, s, &r);
        assert_answer(&a, p, 190, 5);
        assert_int_equal(a.last.cached_tok, 0);
        buf_release(&a.text);
        r.n_tok = 200;
        ask(&a, s, &r);
        assert_true(a.last.cached_tok >= 189);
        buf_release(&a.text);
        session_free(s);
    }
    struct session *s = session_new(e);
    struct request r = greedy(p, 190, 5);
    ask(&a, s, &r);
    assert_int_equal(a.last.cached_tok, 176);
    buf_release(&a.text);
    engine_close(e);
}

static void engine_equal_prefixes_are_computed_once(void **state) {
    (void)state;
    struct engine *e = open_engine(512, 64);
    struct answer a;
    int32_t p[200];
    fake_prompt(p, 200, 0);
    struct session *first = session_new(e), *second = session_new(e);
    struct request r = greedy(p, 200, 5);
    ask(&a, first, &r);
    buf_release(&a.text);
    session_free(first); /* freed sessions' blocks are found, too */
    p[190] = '!';
    int before = fake.n_tok;
    r = greedy(p, 200, 5);
    ask(&a, second, &r);
    assert_answer(&a, p, 200, 5);
    assert_int_equal(a.last.cached_tok, 176); /* 11 full blocks */
    assert_int_equal(fake.n_tok - before, 24 + 4);
    buf_release(&a.text);
    engine_close(e);
}

/* With LongRoPE all KV changes at some length. An answer that grows beyond it is computed again
 * once and goes on; short and long prompts of the same tokens share nothing, and those who were
 * there before find their own again. */
static void engine_answer_that_outgrows_its_kind_of_kv_goes_on(void **state) {
    (void)state;
    fake.long_from = 101;
    struct engine *e = open_engine(512, 64);
    struct session *s = session_new(e), *other = session_new(e);
    struct answer a;
    int32_t p[300];
    fake_prompt(p, 300, 0);
    struct request r = greedy(p, 80, 60), longer = greedy(p, 120, 5);
    ask(&a, s, &r);
    assert_answer(&a, p, 80, 60);
    assert_true(fake.n_tok >= 80 + 20 + 101 + 38 && fake.n_tok <= 80 + 20 + 101 + 40);
    buf_release(&a.text);
    ask(&a, other, &longer);
    assert_answer(&a, p, 120, 5);
    assert_int_equal(a.last.cached_tok, 80); /* what s computed again is of this kind */
    buf_release(&a.text);
    ask(&a, other, &r);
    assert_answer(&a, p, 80, 60);
    assert_int_equal(a.last.cached_tok, 79); /* the first 80, of the short kind */
    buf_release(&a.text);
    session_free(s);
    session_free(other);
    engine_close(e);
}

static void engine_fork_goes_its_own_way(void **state) {
    (void)state;
    struct engine *e = open_engine(512, 64);
    struct answer a;
    int32_t p[200], q[200];
    fake_prompt(p, 150, 0);
    struct session *s = session_new(e);
    struct request r = greedy(p, 105, 4);
    ask(&a, s, &r);
    buf_release(&a.text);
    struct session *f = session_fork(s);
    assert_int_equal(session_cached_tok(f), 108);
    memcpy(q, p, sizeof q);
    fake_prompt(q + 106, 40, 9);
    r = greedy(q, 146, 30);
    ask(&a, f, &r);
    assert_answer(&a, q, 146, 30);
    assert_int_equal(a.last.cached_tok, 105);
    buf_release(&a.text);
    expected(p, 105, 4);
    fake_prompt(p + 109, 20, 2);
    r = greedy(p, 129, 30);
    ask(&a, s, &r);
    assert_answer(&a, p, 129, 30);
    assert_int_equal(a.last.cached_tok, 108);
    assert_true(fake.n_copied > 0);
    buf_release(&a.text);
    session_free(f);
    session_free(s);
    engine_close(e);
}

static void engine_same_seed_gives_same_tokens(void **state) {
    (void)state;
    struct engine *e = open_engine(512, 64);
    struct answer a, b, c;
    int32_t p[50];
    fake_prompt(p, 50, 0);
    struct request r = greedy(p, 50, 60);
    r.sampling.temperature = 2;
    r.sampling.seed = 42;
    struct session *s = session_new(e), *t = session_new(e);
    ask(&a, s, &r);
    ask(&b, t, &r);
    r.sampling.seed = -1;
    ask(&c, t, &r);
    assert_int_equal(a.last.seed, 42);
    assert_memory_equal(a.tokens, b.tokens, 60 * sizeof *a.tokens);
    assert_true(c.last.seed >= 0);
    buf_release(&b.text);
    r.sampling.seed = c.last.seed;
    ask(&b, s, &r);
    assert_memory_equal(b.tokens, c.tokens, 60 * sizeof *a.tokens);
    assert_memory_not_equal(a.tokens, c.tokens, 60 * sizeof *a.tokens);
    buf_release(&a.text);
    buf_release(&b.text);
    buf_release(&c.text);
    engine_close(e);
}

static void engine_gives_log_probabilities(void **state) {
    (void)state;
    struct engine *e = open_engine(512, 64);
    struct session *s = session_new(e);
    struct mailbox *m = mailbox_new(event_free);
    int32_t p[20];
    float logits[FAKE_VOCAB];
    struct err err;
    fake_prompt(p, 20, 0);
    struct request r = greedy(p, 20, 1);
    r.n_logprobs = 4;
    assert_int_equal(session_generate(s, &r, 1, m, &err), ST_OK);
    fake_logits(p, 20, logits);
    double sum = 0;
    for (int i = 0; i < FAKE_VOCAB; i++)
        sum += exp(logits[i]);
    int n_token = 0;
    for (bool end = false; !end;) {
        struct event *ev = mailbox_wait(m, -1);
        end = ev->type == EVENT_FINISHED;
        if (ev->type == EVENT_TOKEN) {
            n_token++;
            assert_float_equal(ev->logprob, 5 - log(sum), 1e-5);
            assert_int_equal(ev->n_alt, 4);
            assert_int_equal(ev->alt[0].token, ev->token);
            for (int i = 0; i < 4; i++)
                assert_float_equal(ev->alt[i].logprob, logits[ev->alt[i].token] - log(sum),
                                   1e-5);
        }
        event_free(ev);
    }
    assert_int_equal(n_token, 1);
    mailbox_unref(m);
    engine_close(e);
}

/* ---- ends ---- */

static void engine_stops_at_a_string_across_tokens(void **state) {
    (void)state;
    fake.script = "one two ST ST-OP three";
    struct engine *e = open_engine(512, 64);
    struct session *s = session_new(e);
    struct answer a;
    int32_t p[10];
    const char *stop[2] = {"never", "ST-OP"};
    int n = text_tokens(p, "hello#");
    struct request r = greedy(p, (size_t)n, 100);
    r.stop = stop;
    r.n_stop = 2;
    ask(&a, s, &r);
    assert_string_equal(buf_str(&a.text), "one two ST ");
    assert_int_equal(a.last.finish, FINISH_STOP);
    assert_int_equal(a.last.completion_tok, 16);
    buf_release(&a.text);
    /* held back, but then no stop string after all: released at the end */
    stop[1] = "threeX";
    ask(&a, s, &r);
    assert_string_equal(buf_str(&a.text), fake.script);
    assert_int_equal(a.last.finish, FINISH_STOP);
    buf_release(&a.text);
    engine_close(e);
}

static void engine_text_is_valid_utf8_at_every_cut(void **state) {
    (void)state;
    fake.script = "a\xc3\xa9\xe4\xbd\xa0\xf0\x9f\x98\x80z\xff!";
    struct engine *e = open_engine(512, 64);
    struct session *s = session_new(e);
    int32_t p[4];
    int n = text_tokens(p, "x#");
    const char *want[] = {"",
                          "a",
                          "a\xef\xbf\xbd",
                          "a\xc3\xa9",
                          "a\xc3\xa9\xef\xbf\xbd",
                          "a\xc3\xa9\xef\xbf\xbd",
                          "a\xc3\xa9\xe4\xbd\xa0"};
    for (int cut = 0; cut < 14; cut++) {
        struct answer a;
        struct request r = greedy(p, (size_t)n, cut);
        ask(&a, s, &r);
        assert_int_equal(a.n_tok, cut < 13 ? cut : 13);
        assert_int_equal(a.last.finish, FINISH_LENGTH);
        if (cut < 7)
            assert_string_equal(buf_str(&a.text), want[cut]);
        buf_release(&a.text);
    }
    engine_close(e);
}

static void engine_end_tokens_end_unless_ignored(void **state) {
    (void)state;
    fake.script = "abc";
    struct engine *e = open_engine(512, 64);
    struct session *s = session_new(e);
    struct answer a;
    int32_t p[4];
    int n = text_tokens(p, "x#");
    struct request r = greedy(p, (size_t)n, -1);
    ask(&a, s, &r);
    assert_string_equal(buf_str(&a.text), "abc");
    assert_int_equal(a.last.finish, FINISH_STOP);
    assert_int_equal(a.last.completion_tok, 3);
    buf_release(&a.text);
    r.max_tok = 10;
    r.ignore_eos = true;
    ask(&a, s, &r);
    assert_int_equal(a.n_tok, 10);
    assert_int_equal(a.tokens[3], FAKE_EOG);
    assert_string_equal(buf_str(&a.text), "abc");
    assert_int_equal(a.last.finish, FINISH_LENGTH);
    buf_release(&a.text);
    engine_close(e);
}

static void engine_control_tokens_are_invisible_unless_asked_for(void **state) {
    (void)state;
    struct engine *e = open_engine(512, 64);
    struct session *s = session_new(e);
    int32_t p[2] = {'x', 'y'};
    const struct logit_bias only = {FAKE_CTL, 1000};
    struct answer a;
    struct request r = greedy(p, 2, 2);
    r.bias = &only;
    r.n_bias = 1;
    ask(&a, s, &r);
    assert_int_equal(a.tokens[0], FAKE_CTL);
    assert_int_equal(a.text.len, 0);
    buf_release(&a.text);
    r.special_text = true;
    ask(&a, s, &r);
    assert_string_equal(buf_str(&a.text), "<ctl><ctl>");
    buf_release(&a.text);
    engine_close(e);
}

static void engine_full_context_ends_the_answer(void **state) {
    (void)state;
    struct engine *e = open_engine(100, 8);
    struct session *s = session_new(e);
    struct answer a;
    int32_t p[100];
    fake_prompt(p, 100, 0);
    struct request r = greedy(p, 90, -1);
    ask(&a, s, &r);
    assert_answer(&a, p, 90, 10);
    assert_int_equal(a.last.finish, FINISH_LENGTH);
    buf_release(&a.text);
    struct mailbox *m = mailbox_new(event_free);
    struct err err;
    r.n_tok = 100;
    assert_int_equal(session_generate(s, &r, 1, m, &err), ST_CONTEXT_FULL);
    assert_non_null(strstr(err.msg, "100"));
    r.n_tok = 99;
    ask(&a, s, &r);
    assert_answer(&a, p, 99, 1);
    buf_release(&a.text);
    mailbox_unref(m);
    engine_close(e);
}

static void engine_zero_tokens_only_computes_the_prompt(void **state) {
    (void)state;
    struct engine *e = open_engine(512, 64);
    struct session *s = session_new(e);
    struct answer a;
    int32_t p[70];
    fake_prompt(p, 70, 0);
    struct request r = greedy(p, 70, 0);
    ask(&a, s, &r);
    assert_int_equal(a.n_tok, 0);
    assert_int_equal(a.last.finish, FINISH_LENGTH);
    assert_int_equal(session_cached_tok(s), 70);
    assert_true(a.last.ttft_us == 0 && a.last.prompt_us >= 0);
    engine_close(e);
}

/* ---- cancel, close, errors ---- */

static void engine_cancel_is_seen_after_one_step(void **state) {
    (void)state;
    fake.gated = true;
    struct engine *e = open_engine(4000, 300);
    struct session *s = session_new(e);
    struct mailbox *m = mailbox_new(event_free);
    struct err err;
    static int32_t p[3000];
    fake_prompt(p, 3000, 0);
    for (int decoding = 0; decoding < 2; decoding++) {
        struct request r = greedy(p, decoding ? 20 : 3000, -1);
        assert_int_equal(session_generate(s, &r, 1, m, &err), ST_OK);
        for (int step = 0; step < 3; step++) {
            sem_wait(&fake.entered);
            if (step < 2)
                sem_post(&fake.go);
        }
        session_cancel(s); /* while the third step runs */
        sem_post(&fake.go);
        struct answer a;
        collect(&a, m, 1);
        assert_int_equal(fake.n_forward, 3 * (decoding + 1));
        assert_int_equal(a.last.finish, FINISH_CANCEL);
        if (decoding)
            assert_answer(&a, p, 20, 3 - (a.n_prefill - 1));
        else
            assert_int_equal(a.n_prefill, 3);
        buf_release(&a.text);
    }
    session_cancel(s); /* nothing runs: nothing happens */
    mailbox_unref(m);
    engine_close(e);
}

static void engine_one_request_a_session(void **state) {
    (void)state;
    fake.gated = true;
    struct engine *e = open_engine(512, 64);
    struct session *s = session_new(e);
    struct mailbox *m = mailbox_new(event_free);
    struct err err;
    int32_t p[20];
    fake_prompt(p, 20, 0);
    struct request r = greedy(p, 20, 1);
    assert_int_equal(session_generate(s, &r, 1, m, &err), ST_OK);
    assert_int_equal(session_generate(s, &r, 2, m, &err), ST_BUSY);
    sem_post(&fake.go);
    struct answer a;
    collect(&a, m, 1);
    buf_release(&a.text);
    sem_post(&fake.go);
    assert_int_equal(session_generate(s, &r, 3, m, &err),
                     ST_OK); /* at once after the last event */
    collect(&a, m, 3);
    buf_release(&a.text);
    mailbox_unref(m);
    engine_close(e);
}

/* A request that runs does not count, one that is cancelled makes room, a guess counts. */
static void engine_refuses_more_waiting_requests_than_allowed(void **state) {
    (void)state;
    fake.gated = true;
    struct engine_params params = {
        .ctx_tok = 512, .kv_bytes = 33 * FAKE_BLOCK_BYTES, .max_waiting = 2};
    struct engine *e;
    struct err err;
    assert_int_equal(engine_open("fake", &params, &e, &err), ST_OK);
    struct mailbox *m = mailbox_new(event_free);
    struct session *s[4];
    int32_t p[400];
    for (int i = 0; i < 4; i++) {
        s[i] = session_new(e);
        fake_prompt(p, 400, i);
        struct request r = greedy(p, 400, 1);
        r.priority = i == 2 ? PRIORITY_IDLE : PRIORITY_NORMAL;
        enum status st = session_generate(s[i], &r, (uint64_t)i, m, &err);
        assert_int_equal(st, i < 3 ? ST_OK : ST_QUEUE_FULL);
        if (i == 0)
            sem_wait(&fake.entered);
    }
    assert_non_null(strstr(err.msg, "2 requests"));
    session_cancel(s[1]);
    fake.gated = false; /* read by the engine only after the gate below */
    sem_post(&fake.go);
    int n_end = 0, n_cancelled = 0;
    while (n_end < 3) {
        struct event *ev = mailbox_wait(m, -1);
        n_end += ev->type == EVENT_FINISHED;
        if (ev->type == EVENT_FINISHED && ev->finish == FINISH_CANCEL) {
            n_cancelled++;
            assert_int_equal(ev->request_id, 1);
        }
        event_free(ev);
    }
    assert_int_equal(n_cancelled, 1);
    struct answer a;
    fake_prompt(p, 400, 3);
    struct request r = greedy(p, 400, 3);
    ask(&a, s[3], &r);
    assert_answer(&a, p, 400, 3);
    buf_release(&a.text);
    mailbox_unref(m);
    engine_close(e);
}

/* While a person types the session is not busy; the request that counts ends the guess. */
static void engine_guess_leaves_its_session_free(void **state) {
    (void)state;
    fake.gated = true;
    struct engine *e = open_engine(512, 64);
    struct session *s = session_new(e);
    struct mailbox *m = mailbox_new(event_free), *guesses = mailbox_new(event_free);
    struct err err;
    int32_t p[400];
    fake_prompt(p, 400, 0);
    struct request r = greedy(p, 400, 0);
    r.priority = PRIORITY_IDLE;
    assert_int_equal(session_generate(s, &r, 1, guesses, &err), ST_OK);
    sem_wait(&fake.entered);
    assert_int_equal(session_generate(s, &r, 2, guesses, &err), ST_OK);
    r = greedy(p, 400, 5);
    assert_int_equal(session_generate(s, &r, 3, m, &err), ST_OK);
    assert_int_equal(session_generate(s, &r, 4, m, &err), ST_BUSY);
    r.priority = PRIORITY_IDLE;
    assert_int_equal(session_generate(s, &r, 5, m, &err), ST_BUSY);
    fake.gated = false;
    sem_post(&fake.go);
    struct answer a;
    collect(&a, m, 3);
    assert_answer(&a, p, 400, 5);
    assert_true(a.last.cached_tok > 0); /* the step that ran is not lost */
    buf_release(&a.text);
    for (uint64_t id = 1; id <= 2; id++) {
        collect(&a, guesses, id);
        assert_int_equal(a.last.finish, FINISH_CANCEL);
        buf_release(&a.text);
    }
    mailbox_unref(guesses);
    mailbox_unref(m);
    engine_close(e);
}

static void engine_close_ends_what_runs_and_what_waits(void **state) {
    (void)state;
    fake.gated = true;
    struct engine *e = open_engine(4000, 252); /* room for one full context and a little more */
    struct mailbox *m = mailbox_new(event_free), *gone = mailbox_new(event_free);
    struct err err;
    int32_t p[390];
    for (int i = 0; i < 6; i++) {
        fake_prompt(p, 390, i);
        struct request r = greedy(p, 390, -1);
        struct session *s = session_new(e);
        assert_int_equal(session_generate(s, &r, (uint64_t)i, i < 3 ? m : gone, &err), ST_OK);
    }
    mailbox_unref(gone); /* their events go nowhere */
    sem_wait(&fake.entered);
    fake.gated = false; /* read by the engine only after the gate below */
    sem_post(&fake.go);
    engine_close(e);
    int n_cancelled = 0, n_finished = 0;
    for (struct event *ev; (ev = mailbox_take(m));) {
        n_finished += ev->type == EVENT_FINISHED;
        n_cancelled += ev->type == EVENT_FINISHED && ev->finish == FINISH_CANCEL;
        event_free(ev);
    }
    assert_int_equal(n_finished, 3);
    assert_true(n_cancelled >=
                1); /* all six together would take more than ten thousand steps */
    mailbox_unref(m);
}

static void engine_step_failure_reaches_its_requests_only(void **state) {
    (void)state;
    struct engine *e = open_engine(512, 64);
    struct session *s = session_new(e);
    struct answer a;
    int32_t p[20];
    fake_prompt(p, 20, 0);
    struct request r = greedy(p, 20, 10);
    fake.fail_at = 4;
    ask(&a, s, &r);
    assert_int_equal(a.last.type, EVENT_ERROR);
    assert_int_equal(a.last.err.code, ST_NOMEM);
    assert_string_equal(a.last.err.msg, "the device has no memory left");
    buf_release(&a.text);
    ask(&a, s, &r);
    assert_answer(&a, p, 20, 10);
    buf_release(&a.text);
    fake.nan_at = fake.n_forward + 2;
    ask(&a, s, &r);
    assert_int_equal(a.last.type, EVENT_ERROR);
    assert_int_equal(a.last.err.code, ST_INTERNAL);
    fake.nan_at = 0;
    buf_release(&a.text);
    ask(&a, s, &r);
    assert_answer(&a, p, 20, 10);
    buf_release(&a.text);
    engine_close(e);
}

static void engine_refuses_nonsense_by_name(void **state) {
    (void)state;
    struct engine *e = open_engine(512, 64);
    struct session *s = session_new(e);
    struct mailbox *m = mailbox_new(event_free);
    struct err err;
    int32_t p[3] = {'a', FAKE_VOCAB, 'c'};
    struct request r = greedy(p, 3, 5);
    assert_int_equal(session_generate(s, &r, 1, m, &err), ST_USAGE);
    assert_non_null(strstr(err.msg, "260"));
    r.n_tok = 0;
    assert_int_equal(session_generate(s, &r, 1, m, &err), ST_USAGE);
    p[1] = 'b';
    r = greedy(p, 3, -2);
    assert_int_equal(session_generate(s, &r, 1, m, &err), ST_USAGE);
    r = greedy(p, 3, 5);
    r.sampling.top_k = -1;
    assert_int_equal(session_generate(s, &r, 1, m, &err), ST_USAGE);
    assert_non_null(strstr(err.msg, "top_k"));
    const struct logit_bias bad[2] = {{FAKE_VOCAB, 1}, {3, NAN}};
    for (int i = 0; i < 2; i++) {
        r = greedy(p, 3, 5);
        r.bias = &bad[i];
        r.n_bias = 1;
        assert_int_equal(session_generate(s, &r, 1, m, &err), ST_USAGE);
    }
    r = greedy(p, 3, 5);
    r.n_logprobs = 21;
    assert_int_equal(session_generate(s, &r, 1, m, &err), ST_USAGE);
    r = greedy(p, 3, 5);
    r.priority = (enum priority)2;
    assert_int_equal(session_generate(s, &r, 1, m, &err), ST_USAGE);
    assert_null(mailbox_take(m));
    mailbox_unref(m);

    struct engine *none;
    struct engine_params params = {.ctx_tok = FAKE_CTX_TRAIN + 1};
    assert_int_equal(engine_open("fake", &params, &none, &err), ST_LIMIT);
    assert_non_null(strstr(err.msg, "4097"));
    assert_non_null(strstr(err.msg, "4096"));
    params = (struct engine_params){.ctx_tok = 512, .kv_bytes = 32 * FAKE_BLOCK_BYTES};
    assert_int_equal(engine_open("fake", &params, &none, &err), ST_LIMIT);
    assert_int_equal(engine_open("nothing", NULL, &none, &err), ST_NOT_FOUND);
    engine_close(e);
}

static bool refuse(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)what;
    (void)total;
    return done < *(uint64_t *)user;
}

static void engine_open_can_be_cancelled(void **state) {
    (void)state;
    for (uint64_t at = 0; at < 2; at++) {
        struct engine *none;
        struct engine_params params = {.progress = refuse, .user = &at};
        struct err err;
        assert_int_equal(engine_open("fake", &params, &none, &err), ST_CANCELLED);
    }
}

static void engine_describes_itself(void **state) {
    (void)state;
    struct engine *e;
    struct err err;
    assert_int_equal(engine_open("fake", NULL, &e, &err), ST_OK);
    const struct engine_info *i = engine_info(e);
    assert_string_equal(i->name, "fake");
    assert_string_equal(i->license, "");
    assert_int_equal(i->ctx_tok, FAKE_CTX_TRAIN);
    assert_int_equal(i->kv_bytes_per_tok, FAKE_BLOCK_BYTES / 16);
    /* 272 rows of 64 bf16; a 64 x 64 matrix of 4 bits, 64 codes, 1 scale in a row of 16;
     * three norms of 64 f32 */
    uint64_t head = 272 * 64 * 2, layer = 64 * 64 / 2 + 64 + 64 + 3 * 64 * 4;
    assert_int_equal(i->weights_bytes, head + layer);
    assert_int_equal(i->bytes_per_token, head + layer + 64 * 2);
    assert_int_equal(fake.n_block, 4 * (FAKE_CTX_TRAIN / 16 + 1));
    engine_close(e);
    engine_close(NULL);
    session_free(NULL);
}

/* A GPU has memory of its own. */
static void engine_pool_of_the_host_is_a_part_of_its_memory(void **state) {
    (void)state;
    const int one = FAKE_CTX_TRAIN / 16 + 1;
    const struct engine_params on[] = {{.device = DEVICE_CPU}, {.device = DEVICE_CUDA}};
    fake.kv_block_bytes = memory_bytes() / 8 / (size_t)(2 * one);
    for (int i = 0; i < 2; i++) {
        struct engine *e;
        struct err err;
        assert_int_equal(engine_open("fake", &on[i], &e, &err), ST_OK);
        assert_int_equal(fake.n_block, i == 0 ? 2 * one : 4 * one);
        assert_int_equal(engine_info(e)->kv_tok, fake.n_block * 16);
        engine_close(e);
    }
}

/* Layers in the middle of a model are in test_cli.sh: this one has one. */
static void engine_says_where_a_split_model_is(void **state) {
    (void)state;
    const struct engine_params by_hand = {.gpu_layers = 1};
    struct engine *e;
    struct err err;
    fake.split = true;
    for (int layers = 0; layers <= 1; layers++) {
        fake.gpu_layers = layers;
        assert_int_equal(engine_open("fake", NULL, &e, &err), ST_OK);
        const struct engine_info *i = engine_info(e);
        assert_int_equal(i->gpu_layers, layers);
        assert_string_equal(i->device_words,
                            layers ? "fake, 1 of 1 layers" : "fake, 0 of 1 layers");
        assert_string_equal(
            i->device_note,
            layers ? "on the GPU are all layers, it has no room for the embedding, which is on "
                     "the CPU"
                   : "on the GPU are 0 of 1 layers, it has no room for more; the others are on "
                     "the CPU");
        engine_close(e);
    }
    assert_int_equal(engine_open("fake", &by_hand, &e, &err), ST_OK);
    assert_string_equal(engine_info(e)->device_note, "");
    engine_close(e);
}

/* ---- many at once ---- */

enum { MANY = 12 };

static void ask_many(struct engine *e, int n_prompt, int max_tok, bool same_prefix) {
    static struct answer a[MANY];
    static int32_t p[MANY][600];
    struct session *s[MANY];
    struct mailbox *m[MANY];
    struct err err;
    for (int i = 0; i < MANY; i++) {
        fake_prompt(p[i], n_prompt, same_prefix ? 0 : i);
        p[i][n_prompt - 1 - i] = '0' + i;
        s[i] = session_new(e);
        m[i] = mailbox_new(event_free);
        struct request r = greedy(p[i], (size_t)n_prompt, max_tok);
        assert_int_equal(session_generate(s[i], &r, (uint64_t)i, m[i], &err), ST_OK);
    }
    for (int i = 0; i < MANY; i++) {
        collect(&a[i], m[i], (uint64_t)i);
        assert_answer(&a[i], p[i], n_prompt, max_tok);
        buf_release(&a[i].text);
        mailbox_unref(m[i]);
        session_free(s[i]);
    }
}

static void engine_many_sessions_answer_in_one_batch(void **state) {
    (void)state;
    struct engine *e = open_engine(600, MANY * 38 + 1);
    ask_many(e, 200, 100, false);
    assert_true(fake.max_seq > 1);
    ask_many(e, 200, 100, true);
    engine_close(e);
}

static void engine_short_of_blocks_requests_wait_and_all_are_answered(void **state) {
    (void)state;
    struct engine *e = open_engine(600, 60); /* a context and a half for twelve requests */
    ask_many(e, 150, 300, false);
    assert_true(fake.max_seq > 1);
    ask_many(e, 250, 200, true);
    engine_close(e);
}

static void engine_pool_of_one_context_is_enough(void **state) {
    (void)state;
    struct engine *e = open_engine(592, 38);
    ask_many(e, 500, 92, false);
    ask_many(e, 500, 92, true);
    engine_close(e);
}

static void engine_idle_sessions_give_way_and_recompute(void **state) {
    (void)state;
    struct engine *e = open_engine(320, 22);
    struct session *a = session_new(e), *b = session_new(e);
    struct answer ans;
    int32_t p[300], q[300];
    fake_prompt(p, 300, 0);
    fake_prompt(q, 300, 1);
    struct request rp = greedy(p, 300, 5), rq = greedy(q, 300, 5);
    ask(&ans, a, &rp);
    buf_release(&ans.text);
    ask(&ans, b, &rq);
    assert_answer(&ans, q, 300, 5);
    buf_release(&ans.text);
    assert_int_equal(session_cached_tok(a), 0);
    ask(&ans, a, &rp);
    assert_answer(&ans, p, 300, 5);
    buf_release(&ans.text);
    engine_close(e);
}

static void engine_decoding_never_starves(void **state) {
    (void)state;
    struct engine *e = open_engine(4000, 600);
    struct session *fast = session_new(e), *slow = session_new(e);
    struct mailbox *mf = mailbox_new(event_free), *ms = mailbox_new(event_free);
    struct err err;
    static int32_t p[3900];
    static struct answer a;
    fake_prompt(p, 3900, 0);
    struct request r1 = greedy(p, 20, 2000), r2 = greedy(p + 1, 3800, 5);
    assert_int_equal(session_generate(fast, &r1, 1, mf, &err), ST_OK);
    struct event *ev = mailbox_wait(mf, -1);
    event_free(ev); /* it runs */
    assert_int_equal(session_generate(slow, &r2, 2, ms, &err), ST_OK);
    collect(&a, ms, 2);
    assert_true(a.n_prefill > 3);
    buf_release(&a.text);
    session_cancel(fast);
    collect(&a, mf, 1);
    buf_release(&a.text);
    assert_int_equal(fake.n_starved, 0);
    mailbox_unref(mf);
    mailbox_unref(ms);
    engine_close(e);
}

/* One thread of four: its own sessions on the shared engine, random prompts of one family,
 * random cancels and forks. */
static void *live(void *arg) {
    void **args = arg;
    struct engine *e = args[0];
    uint32_t r = (uint32_t)(uintptr_t)args[1] * 7919u + 3;
    static _Thread_local struct answer a;
    static _Thread_local int32_t p[512];
    struct session *s = session_new(e);
    struct mailbox *m = mailbox_new(event_free);
    long failures = 0;
    for (int turn = 0; turn < 60; turn++) {
        struct err err;
        r = r * 1664525u + 1013904223u;
        int n = 1 + (int)((r >> 8) % 300), max_tok = (int)((r >> 18) % 60);
        fake_prompt(p, n, 0);
        p[n / 2] = '0' + (int)((r >> 12) % 4);
        if ((r >> 28) == 0) {
            struct session *f = session_fork(s);
            session_free(s);
            s = f;
        }
        struct request q = greedy(p, (size_t)n, max_tok);
        failures += session_generate(s, &q, (uint64_t)turn, m, &err) != ST_OK;
        bool cancel = (r >> 25) % 4 == 0;
        int after = (int)((r >> 21) % 8);
        memset(&a, 0, sizeof a);
        for (;;) {
            if (cancel && a.n_events >= after) {
                session_cancel(s);
                cancel = false;
            }
            if (take(&a, mailbox_wait(m, -1), (uint64_t)turn))
                break;
        }
        if (a.last.finish == FINISH_CANCEL)
            max_tok = a.n_tok;
        int want = expected(p, n, max_tok);
        failures += a.n_tok != want || memcmp(a.tokens, p + n, (size_t)want * sizeof *p) != 0;
        buf_release(&a.text);
    }
    session_free(s);
    mailbox_unref(m);
    return (void *)failures;
}

static void engine_serves_threads_with_random_cancels_and_forks(void **state) {
    (void)state;
    struct engine *e = open_engine(400, 60);
    pthread_t threads[4];
    void *args[4][2];
    for (int i = 0; i < 4; i++) {
        args[i][0] = e;
        args[i][1] = (void *)(uintptr_t)i;
        assert_int_equal(pthread_create(&threads[i], NULL, live, args[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *failures;
        pthread_join(threads[i], &failures);
        assert_null(failures);
    }
    engine_close(e);
}

/* ---- evaluation ---- */

static void engine_logits_are_those_of_each_position(void **state) {
    (void)state;
    fake.max_tok = 96;
    struct engine *e = open_engine(512, 64);
    int32_t p[300];
    struct err err;
    fake_prompt(p, 300, 0);
    float *got = xcalloc(300, FAKE_VOCAB * sizeof *got), want[FAKE_VOCAB];
    struct session *s = session_new(e);
    struct mailbox *m = mailbox_new(event_free);
    struct request r = greedy(p, 300, 150);
    const int firsts[] = {0, 130, 299};
    for (int i = 0; i < 3; i++) {
        int first = firsts[i];
        assert_int_equal(session_generate(s, &r, 1, m, &err), ST_OK); /* beside it */
        assert_int_equal(engine_logits(e, p, 300, first, got, &err), ST_OK);
        for (int at = first; at < 300; at++) {
            fake_logits(p, (size_t)at + 1, want);
            assert_memory_equal(got + (size_t)(at - first) * FAKE_VOCAB, want, sizeof want);
        }
        static struct answer a;
        collect(&a, m, 1);
        assert_answer(&a, p, 300, 150);
        buf_release(&a.text);
    }
    assert_int_equal(engine_logits(e, p, 300, 300, got, &err), ST_USAGE);
    p[5] = -1;
    assert_int_equal(engine_logits(e, p, 300, 0, got, &err), ST_USAGE);
    mailbox_unref(m);
    free(got);
    engine_close(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(engine_answers_what_the_model_says, setup),
        cmocka_unit_test_setup(engine_second_turn_computes_only_new_tokens, setup),
        cmocka_unit_test_setup(engine_hidden_sessions_share_nothing, setup),
        cmocka_unit_test_setup(engine_equal_prefixes_are_computed_once, setup),
        cmocka_unit_test_setup(engine_answer_that_outgrows_its_kind_of_kv_goes_on, setup),
        cmocka_unit_test_setup(engine_fork_goes_its_own_way, setup),
        cmocka_unit_test_setup(engine_same_seed_gives_same_tokens, setup),
        cmocka_unit_test_setup(engine_gives_log_probabilities, setup),
        cmocka_unit_test_setup(engine_stops_at_a_string_across_tokens, setup),
        cmocka_unit_test_setup(engine_text_is_valid_utf8_at_every_cut, setup),
        cmocka_unit_test_setup(engine_end_tokens_end_unless_ignored, setup),
        cmocka_unit_test_setup(engine_control_tokens_are_invisible_unless_asked_for, setup),
        cmocka_unit_test_setup(engine_full_context_ends_the_answer, setup),
        cmocka_unit_test_setup(engine_zero_tokens_only_computes_the_prompt, setup),
        cmocka_unit_test_setup(engine_cancel_is_seen_after_one_step, setup),
        cmocka_unit_test_setup(engine_one_request_a_session, setup),
        cmocka_unit_test_setup(engine_refuses_more_waiting_requests_than_allowed, setup),
        cmocka_unit_test_setup(engine_guess_leaves_its_session_free, setup),
        cmocka_unit_test_setup(engine_close_ends_what_runs_and_what_waits, setup),
        cmocka_unit_test_setup(engine_step_failure_reaches_its_requests_only, setup),
        cmocka_unit_test_setup(engine_refuses_nonsense_by_name, setup),
        cmocka_unit_test_setup(engine_open_can_be_cancelled, setup),
        cmocka_unit_test_setup(engine_describes_itself, setup),
        cmocka_unit_test_setup(engine_pool_of_the_host_is_a_part_of_its_memory, setup),
        cmocka_unit_test_setup(engine_says_where_a_split_model_is, setup),
        cmocka_unit_test_setup(engine_many_sessions_answer_in_one_batch, setup),
        cmocka_unit_test_setup(engine_short_of_blocks_requests_wait_and_all_are_answered,
                               setup),
        cmocka_unit_test_setup(engine_pool_of_one_context_is_enough, setup),
        cmocka_unit_test_setup(engine_idle_sessions_give_way_and_recompute, setup),
        cmocka_unit_test_setup(engine_decoding_never_starves, setup),
        cmocka_unit_test_setup(engine_serves_threads_with_random_cancels_and_forks, setup),
        cmocka_unit_test_setup(engine_logits_are_those_of_each_position, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
