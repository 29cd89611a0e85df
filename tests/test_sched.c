/*
 * test_sched.c - the scheduler step by step over a fake graph (fake_graph.h): who goes first,
 * who gives way, that everybody gets on, and that all answers are right meanwhile. There is no
 * engine thread here, so that steps can be counted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/run/sched.h"
#include "rand.h"
#include "sched_world.h"
#include <stdlib.h>
#include <string.h>

enum { CTX = 640, CTX_BLOCKS = CTX / KV_BLOCK };

/* ---- a world of a scheduler and those who ask it ---- */

struct asker {
    struct session *session;
    struct mailbox *box;
    enum priority priority; /* as asked */
    int32_t tokens[CTX];    /* prompt and answer so far */
    int n_prompt, n_tok, max_tok;
    bool busy, prompt_done;
    int asked_at, first_at, ended_at, cached_tok; /* steps */
    enum finish finish;
};

static void asker_open(struct world *w, struct asker *a) {
    memset(a, 0, sizeof *a);
    a->session = world_session(w);
    a->box = mailbox_new(event_free);
}

static void asker_close(struct world *w, struct asker *a) {
    sched_free_session(w->sched, a->session);
    mailbox_unref(a->box);
}

/* Asks for max_tok tokens behind the first n of a->tokens. */
static void ask(struct world *w, struct asker *a, enum priority p, int n, int max_tok) {
    const struct task_limits lim = {.n_vocab = FAKE_VOCAB, .ctx_tok = CTX};
    const struct request r = {
        .tokens = a->tokens,
        .n_tok = (size_t)n,
        .max_tok = max_tok,
        .priority = p,
        .sampling = {.top_p = 1, .typical_p = 1, .repeat_penalty = 1, .seed = 1}};
    struct task *t;
    struct err err;
    assert_int_equal(task_new(&r, &lim, &t, &err), ST_OK);
    t->session = a->session;
    t->events = mailbox_ref(a->box);
    a->priority = p;
    a->n_prompt = a->n_tok = n;
    a->max_tok = max_tok;
    a->busy = true;
    a->prompt_done = false;
    a->asked_at = w->step;
    a->first_at = a->ended_at = 0;
    sched_submit(w->sched, t);
}

/* Takes what came; every token must be the model's. */
static void hear(const struct world *w, struct asker *a) {
    for (struct event *e; (e = mailbox_take(a->box)); event_free(e)) {
        if (e->type == EVENT_PREFILL && e->n_done == e->n_total)
            a->prompt_done = true;
        if (e->type == EVENT_TOKEN && e->token >= 0) {
            assert_int_equal(e->token, fake_next(a->tokens, (size_t)a->n_tok));
            a->tokens[a->n_tok++] = e->token;
            if (!a->first_at)
                a->first_at = w->step;
        }
        assert_int_not_equal(e->type, EVENT_ERROR);
        if (e->type == EVENT_FINISHED) {
            a->busy = false;
            a->finish = e->finish;
            a->cached_tok = e->cached_tok;
            a->ended_at = w->step;
            if (e->finish == FINISH_LENGTH)
                assert_int_equal(a->n_tok - a->n_prompt, a->max_tok);
        }
    }
}

static void step(struct world *w, struct asker *a, int n) {
    w->step++;
    sched_step(w->sched);
    assert_true(sched_consistent(w->sched));
    for (int i = 0; i < n; i++)
        hear(w, &a[i]);
}

static void step_until_idle(struct world *w, struct asker *a, int n) {
    for (int i = 0; sched_has_work(w->sched); i++) {
        assert_true(i < 20000);
        step(w, a, n);
    }
}

static int held(const struct asker *a) {
    return atomic_load(&a->session->cached_tok);
}

static int setup(void **state) {
    (void)state;
    fake_reset();
    return 0;
}

/* ---- classes ---- */

static void sched_interactive_displaces_others_when_there_is_no_room(void **state) {
    (void)state;
    struct world w = world_open(CTX_BLOCKS + 1, CTX);
    struct asker a[3];
    for (int i = 0; i < 3; i++) {
        asker_open(&w, &a[i]);
        fake_prompt(a[i].tokens, CTX, i);
    }
    ask(&w, &a[0], PRIORITY_NORMAL, 280, 100);
    ask(&w, &a[1], PRIORITY_NORMAL, 280, 100);
    while (!a[0].prompt_done || !a[1].prompt_done)
        step(&w, a, 3);
    ask(&w, &a[2], PRIORITY_INTERACTIVE, 200, 20);
    while (!a[2].first_at)
        step(&w, a, 3);
    assert_true(a[2].first_at - a[2].asked_at <= 200 / SCHED_MIN_CHUNK);
    assert_true(a[0].busy && a[1].busy);
    assert_true(a[0].session->task->active); /* the newer one was enough */
    assert_false(a[1].session->task->active);
    step_until_idle(&w, a, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(a[i].finish, FINISH_LENGTH);
        asker_close(&w, &a[i]);
    }
    assert_true(a[2].ended_at < a[0].ended_at && a[0].ended_at < a[1].ended_at);
    world_close(&w);
}

static void sched_nobody_is_displaced_in_vain_or_by_an_equal(void **state) {
    (void)state;
    struct world w = world_open(CTX_BLOCKS + 1, CTX);
    struct asker a[3];
    for (int i = 0; i < 3; i++) {
        asker_open(&w, &a[i]);
        fake_prompt(a[i].tokens, CTX, i);
    }
    ask(&w, &a[0], PRIORITY_INTERACTIVE, 300, 100);
    ask(&w, &a[1], PRIORITY_NORMAL, 100, 100);
    while (!a[0].first_at || !a[1].first_at)
        step(&w, a, 3);
    ask(&w, &a[2], PRIORITY_INTERACTIVE, 500, 20); /* more than a[1] could give */
    for (int i = 0; i < 20; i++)
        step(&w, a, 3);
    assert_true(a[0].session->task->active && a[1].session->task->active);
    assert_false(a[2].session->task->active);
    step_until_idle(&w, a, 3);
    for (int i = 0; i < 3; i++)
        asker_close(&w, &a[i]);
    world_close(&w);
}

static void sched_better_class_gets_most_of_the_prefill_and_others_some(void **state) {
    (void)state;
    struct world w = world_open(4 * CTX_BLOCKS, CTX);
    struct asker a[3];
    for (int i = 0; i < 3; i++) {
        asker_open(&w, &a[i]);
        fake_prompt(a[i].tokens, CTX, i);
    }
    ask(&w, &a[0], PRIORITY_NORMAL, 600, 1);
    ask(&w, &a[1], PRIORITY_NORMAL, 600, 1);
    ask(&w, &a[2], PRIORITY_INTERACTIVE, 600, 1);
    while (!a[2].prompt_done) {
        step(&w, a, 3);
        if (a[2].prompt_done)
            break;
        assert_true(held(&a[0]) >= w.step && held(&a[1]) >= w.step);
        assert_true(held(&a[2]) >= 4 * held(&a[0]) && held(&a[2]) >= 4 * held(&a[1]));
    }
    assert_false(a[0].prompt_done || a[1].prompt_done);
    step_until_idle(&w, a, 3);
    for (int i = 0; i < 3; i++)
        asker_close(&w, &a[i]);
    world_close(&w);
}

/* A stream of interactive requests that never ends and takes all of the pool. */
static void sched_who_waits_long_is_raised(void **state) {
    (void)state;
    enum { STREAM = 4 };
    struct world w = world_open(CTX_BLOCKS + 1, CTX);
    struct asker a[STREAM + 1];
    for (int i = 0; i <= STREAM; i++) {
        asker_open(&w, &a[i]);
        fake_prompt(a[i].tokens, CTX, i);
    }
    struct asker *patient = &a[STREAM];
    for (int i = 0; i < 600 && !patient->ended_at; i++) {
        for (int j = 0; j < STREAM; j++)
            if (!a[j].busy)
                ask(&w, &a[j], PRIORITY_INTERACTIVE, 250 + i % 9, 40);
        if (i == 10)
            ask(&w, patient, PRIORITY_NORMAL, 400, 50);
        step(&w, a, STREAM + 1);
        if (i >= 10 && i < 10 + SCHED_AGE_STEPS - 1)
            assert_false(patient->first_at);
    }
    assert_true(patient->ended_at > 0);
    assert_int_equal(patient->finish, FINISH_LENGTH);
    for (int i = 0; i <= STREAM; i++)
        asker_close(&w, &a[i]);
    world_close(&w);
}

/* Before anything is measured a guess bounds the first step: few tokens of a large model, most
 * prompts whole of a small one. */
static void sched_first_step_is_as_long_as_expected(void **state) {
    (void)state;
    static const struct {
        double us_per_tok;
        int n_tok;
    } cases[] = {{1e6, SCHED_MIN_CHUNK}, {SCHED_ALONE_US / 48.0, 48}, {1, SCHED_FIRST_TOK}};
    for (int i = 0; i < 3; i++) {
        struct world w = world_open(CTX_BLOCKS, CTX);
        struct asker a;
        sched_expect(w.sched, cases[i].us_per_tok);
        asker_open(&w, &a);
        fake_prompt(a.tokens, CTX, 0);
        ask(&w, &a, PRIORITY_NORMAL, 600, 1);
        step(&w, &a, 1);
        assert_int_equal(held(&a), cases[i].n_tok);
        step_until_idle(&w, &a, 1);
        asker_close(&w, &a);
        world_close(&w);
    }
}

/* ---- idle requests ---- */

static void sched_idle_work_stands_still_while_there_is_other(void **state) {
    (void)state;
    struct world w = world_open(3 * CTX_BLOCKS, CTX);
    struct asker a[2];
    for (int i = 0; i < 2; i++) {
        asker_open(&w, &a[i]);
        fake_prompt(a[i].tokens, CTX, i);
    }
    ask(&w, &a[0], PRIORITY_IDLE, 600, 0);
    step(&w, a, 2);
    int before = held(&a[0]);
    assert_true(before > 0 && before < 600);
    ask(&w, &a[1], PRIORITY_NORMAL, 50, 100);
    int n_tok = fake.n_tok;
    while (a[1].busy || a[1].asked_at == w.step) {
        step(&w, a, 2);
        assert_int_equal(held(&a[0]), before);
    }
    assert_int_equal(fake.n_tok - n_tok, 50 + 99); /* nothing else was computed */
    assert_true(w.step > SCHED_AGE_STEPS + 1);     /* long enough to be raised, if it were */
    step_until_idle(&w, a, 2);
    assert_int_equal(a[0].finish, FINISH_LENGTH);
    assert_int_equal(held(&a[0]), 600);
    assert_int_equal(fake.n_tok, 600 + 50 + 99);
    for (int i = 0; i < 2; i++)
        asker_close(&w, &a[i]);
    world_close(&w);
}

static void sched_next_request_ends_the_guess_and_keeps_what_it_computed(void **state) {
    (void)state;
    struct world w = world_open(2 * CTX_BLOCKS, CTX);
    struct asker a;
    asker_open(&w, &a);
    fake_prompt(a.tokens, CTX, 0);
    ask(&w, &a, PRIORITY_IDLE, 300, 0);
    step(&w, &a, 1);
    int kept = held(&a);
    assert_true(kept > 0 && kept < 300);
    ask(&w, &a, PRIORITY_IDLE, 310, 0); /* the person typed on */
    struct event *e = mailbox_take(a.box);
    while (e && e->type == EVENT_PREFILL) {
        event_free(e);
        e = mailbox_take(a.box);
    }
    assert_non_null(e);
    assert_int_equal(e->finish, FINISH_CANCEL);
    event_free(e);
    while (a.busy)
        step(&w, &a, 1);
    assert_int_equal(a.cached_tok, kept);
    assert_int_equal(held(&a), 310);
    a.tokens[308] = '!';
    ask(&w, &a, PRIORITY_INTERACTIVE, 330, 30);
    step_until_idle(&w, &a, 1);
    assert_int_equal(a.cached_tok, 308);
    assert_int_equal(fake.n_tok, 310 + (330 - 308) + 29);
    asker_close(&w, &a);
    world_close(&w);
}

/* ---- ends ---- */

static void sched_cancel_ends_what_waits_and_what_prefills_at_once(void **state) {
    (void)state;
    struct world w = world_open(CTX_BLOCKS + 1, CTX);
    struct asker a[2];
    for (int i = 0; i < 2; i++) {
        asker_open(&w, &a[i]);
        fake_prompt(a[i].tokens, CTX, i);
        ask(&w, &a[i], PRIORITY_NORMAL, 600, 10);
    }
    step(&w, a, 2);
    assert_true(held(&a[0]) > 0 && !a[0].prompt_done);
    assert_int_equal(held(&a[1]), 0);
    sched_cancel(w.sched, a[1].session);
    sched_cancel(w.sched, a[0].session);
    int n_forward = fake.n_forward;
    for (int i = 0; i < 2; i++) {
        hear(&w, &a[i]);
        assert_false(a[i].busy);
        assert_int_equal(a[i].finish, FINISH_CANCEL);
    }
    assert_false(sched_has_work(w.sched));
    step(&w, a, 2);
    assert_int_equal(fake.n_forward, n_forward);
    for (int i = 0; i < 2; i++)
        asker_close(&w, &a[i]);
    world_close(&w);
}

/* ---- many ---- */

static void sched_256_answers_in_one_batch(void **state) {
    (void)state;
    enum { N = 300 };
    struct world w = world_open(N * 4, CTX);
    struct asker *a = xcalloc(N, sizeof *a);
    for (int i = 0; i < N; i++) {
        asker_open(&w, &a[i]);
        fake_prompt(a[i].tokens, CTX, i);
        a[i].tokens[0] = i % FAKE_EOG;
        a[i].tokens[1] = i / FAKE_EOG;
        ask(&w, &a[i], PRIORITY_NORMAL, 20, 40);
    }
    step_until_idle(&w, a, N);
    assert_int_equal(fake.max_seq, SCHED_MAX_ACTIVE);
    assert_int_equal(SCHED_MAX_ACTIVE, 256);
    for (int i = 0; i < N; i++) {
        assert_int_equal(a[i].n_tok, 60);
        asker_close(&w, &a[i]);
    }
    free(a);
    world_close(&w);
}

/* Answers that run don't stop a prompt, a prompt doesn't stop answers. */
static void sched_prompt_gets_on_beside_many_answers(void **state) {
    (void)state;
    enum { N = 200 };
    struct world w = world_open(N * 10 + CTX_BLOCKS, CTX);
    struct asker *a = xcalloc(N + 1, sizeof *a);
    for (int i = 0; i <= N; i++) {
        asker_open(&w, &a[i]);
        fake_prompt(a[i].tokens, CTX, i);
        a[i].tokens[0] = i;
        if (i < N)
            ask(&w, &a[i], PRIORITY_INTERACTIVE, 4, 150);
    }
    step(&w, a, N + 1);
    ask(&w, &a[N], PRIORITY_NORMAL, 600, 1);
    while (a[N].busy)
        step(&w, a, N + 1);
    assert_true(a[N].first_at - a[N].asked_at <= 600 / SCHED_MIN_CHUNK);
    assert_int_equal(fake.n_starved, 0);
    step_until_idle(&w, a, N + 1);
    for (int i = 0; i <= N; i++)
        asker_close(&w, &a[i]);
    free(a);
    world_close(&w);
}

static void sched_preempted_finds_the_blocks_that_nobody_took(void **state) {
    (void)state;
    struct world w = world_open(CTX_BLOCKS + 1, CTX);
    struct asker a[2];
    for (int i = 0; i < 2; i++) {
        asker_open(&w, &a[i]);
        fake_prompt(a[i].tokens, CTX, i);
    }
    ask(&w, &a[0], PRIORITY_NORMAL, 560, 60);
    while (!a[0].first_at)
        step(&w, a, 2);
    ask(&w, &a[1], PRIORITY_INTERACTIVE, 140, 4); /* nine blocks where there are five */
    step_until_idle(&w, a, 2);
    int once = 560 + 59 + 140 + 3;
    assert_true(a[1].ended_at < a[0].ended_at);
    assert_true(fake.n_tok > once);
    assert_true(fake.n_tok <= once + 6 * KV_BLOCK);
    for (int i = 0; i < 2; i++)
        asker_close(&w, &a[i]);
    world_close(&w);
}

/* ---- swapped blocks ---- */

/* Asks again behind what was said, with n more tokens. */
static void ask_more(struct world *w, struct asker *a, enum priority p, int n, int max_tok) {
    fake_prompt(a->tokens + a->n_tok, n, 7);
    ask(w, a, p, a->n_tok + n, max_tok);
}

/* Two conversations that don't fit together take turns. Returns the tokens that were computed
 * for the first one's second turn; *cached: what it reports. */
static int take_turns(size_t n_slot, int *cached) {
    struct world w = world_open(CTX_BLOCKS + 1, CTX);
    struct asker a[2];
    sched_swap(w.sched, FAKE_BLOCK_BYTES, n_slot * FAKE_BLOCK_BYTES);
    for (int i = 0; i < 2; i++) {
        asker_open(&w, &a[i]);
        fake_prompt(a[i].tokens, CTX, i);
        ask(&w, &a[i], PRIORITY_NORMAL, 500, 10);
        step_until_idle(&w, a, i + 1);
    }
    int before = fake.n_tok;
    ask_more(&w, &a[0], PRIORITY_NORMAL, 20, 10);
    step_until_idle(&w, a, 2);
    int computed = fake.n_tok - before;
    *cached = a[0].cached_tok;
    for (int i = 0; i < 2; i++)
        asker_close(&w, &a[i]);
    world_close(&w);
    return computed;
}

static void sched_what_was_swapped_out_is_not_computed_again(void **state) {
    (void)state;
    int cached, bare;
    int computed = take_turns(0, &bare);
    assert_int_equal(computed, 530 - bare + 9);
    assert_true(bare < 250); /* 41 blocks less the other's 32 */
    assert_int_equal(fake.n_out, 0);
    fake_reset();
    assert_int_equal(take_turns(100, &cached), 530 - 496 + 9);
    assert_int_equal(cached, 496); /* the full blocks of 509 tokens */
    assert_int_equal(fake.n_in, (496 - bare) / KV_BLOCK);
    assert_int_equal(fake.swap_bytes, 100 * FAKE_BLOCK_BYTES);
    assert_int_equal(fake.n_swap_chunk, 0); /* given back */
    fake_reset();
    take_turns(10, &cached); /* the rest is forgotten, as without */
    assert_true(cached > bare && cached < 496);
    fake_reset();
    fake.max_swap_chunk = 0; /* the host gives nothing */
    assert_int_equal(take_turns(100, &cached), computed);
    assert_int_equal(cached, bare);
    fake_reset();
    fake.host_blocks = true; /* it is the host's memory already */
    take_turns(100, &cached);
    assert_int_equal(cached, bare);
    assert_int_equal(fake.n_out, 0);
}

static void sched_preempted_gets_its_blocks_back(void **state) {
    (void)state;
    struct world w = world_open(CTX_BLOCKS + 1, CTX);
    struct asker a[2];
    sched_swap(w.sched, FAKE_BLOCK_BYTES, 100 * FAKE_BLOCK_BYTES);
    for (int i = 0; i < 2; i++) {
        asker_open(&w, &a[i]);
        fake_prompt(a[i].tokens, CTX, i);
    }
    ask(&w, &a[0], PRIORITY_NORMAL, 560, 60);
    while (!a[0].first_at)
        step(&w, a, 2);
    ask(&w, &a[1], PRIORITY_INTERACTIVE, 400, 4);
    step_until_idle(&w, a, 2);
    assert_true(a[1].ended_at < a[0].ended_at);
    assert_true(fake.n_in >= 20);
    assert_true(fake.n_tok < 560 + 59 + 400 + 3 + KV_BLOCK); /* its last, partial block */
    for (int i = 0; i < 2; i++)
        asker_close(&w, &a[i]);
    world_close(&w);
}

/* Blocks as large as two steps' worth, two of which are in a piece of memory: one comes back
 * between two steps, and who decodes gets on meanwhile. */
static void sched_large_blocks_come_back_one_by_one(void **state) {
    (void)state;
    const size_t block_bytes = 2 * (size_t)SCHED_LOAD_BYTES;
    struct world w = world_open(CTX_BLOCKS + 1, CTX);
    struct asker a[3];
    sched_swap(w.sched, block_bytes, 31 * block_bytes);
    for (int i = 0; i < 3; i++) {
        asker_open(&w, &a[i]);
        fake_prompt(a[i].tokens, CTX, i);
    }
    ask(&w, &a[0], PRIORITY_NORMAL, 320, 2);
    step_until_idle(&w, a, 3);
    ask(&w, &a[1], PRIORITY_NORMAL, 630, 2);
    step_until_idle(&w, a, 3);
    assert_int_equal(fake.n_out, 19);
    assert_int_equal(fake.n_swap_chunk, 10);
    ask(&w, &a[2], PRIORITY_NORMAL, 40, 100);
    while (!a[2].first_at)
        step(&w, a, 3);
    ask_more(&w, &a[0], PRIORITY_NORMAL, 20, 2);
    for (int had = a[2].n_tok; !a[0].first_at; had = a[2].n_tok) {
        int n_in = fake.n_in;
        step(&w, a, 3);
        assert_true(fake.n_in <= n_in + 1);
        assert_true(a[2].n_tok > had);
    }
    assert_true(a[0].first_at - a[0].asked_at >= 19);
    step_until_idle(&w, a, 3);
    assert_int_equal(a[0].cached_tok, 320);
    assert_true(fake.swap_bytes <= 31 * block_bytes);
    for (int i = 0; i < 3; i++)
        asker_close(&w, &a[i]);
    world_close(&w);
    assert_int_equal(fake.n_swap_chunk, 0);
}

/* Random arrivals of all classes with pauses, cancels, forks and sessions that end. hear()
 * checks every token, step() every block. */
static void live(uint64_t seed, int n_block, size_t n_slot) {
    enum { N = 20, ARRIVE = 4000, SLOWEST = 1500 };
    static struct asker a[N];
    rand_state = seed;
    struct world w = world_open(n_block, CTX);
    sched_swap(w.sched, FAKE_BLOCK_BYTES, n_slot * FAKE_BLOCK_BYTES);
    int ended[3] = {0}, slowest = 0;
    for (int i = 0; i < N; i++)
        asker_open(&w, &a[i]);
    while (w.step < ARRIVE || sched_has_work(w.sched)) {
        assert_true(w.step < ARRIVE + N * SLOWEST);
        struct asker *x = &a[rand_u32() % N];
        int dice = (int)(rand_u32() % 100);
        if (x->busy && dice < 4) {
            sched_cancel(w.sched, x->session);
        } else if (!x->busy && dice < 8) {
            struct session *fork = xcalloc(1, sizeof *fork);
            sched_fork(w.sched, fork, x->session);
            sched_free_session(w.sched, x->session);
            x->session = fork;
        } else if (w.step < ARRIVE && w.step % 1000 < 300 &&
                   (!x->busy || x->priority == PRIORITY_IDLE)) {
            if (x->busy)
                sched_cancel(w.sched, x->session);
            hear(&w, x);
            int n = 1 + (int)(rand_u32() % 500);
            fake_prompt(x->tokens, n, (int)(rand_u32() % 3));
            if (rand_u32() % 2)
                x->tokens[rand_u32() % (unsigned)n] = '!';
            enum priority p = (enum priority)((int)(rand_u32() % 3) + PRIORITY_IDLE);
            int most = (int)(rand_u32() % 100);
            ask(&w, x, p, n, p == PRIORITY_IDLE ? 0 : most);
        }
        step(&w, a, N);
        for (int i = 0; i < N; i++) {
            if (a[i].ended_at == w.step && a[i].finish == FINISH_LENGTH) {
                ended[a[i].priority - PRIORITY_IDLE]++;
                if (a[i].priority > PRIORITY_IDLE && w.step - a[i].asked_at > slowest)
                    slowest = w.step - a[i].asked_at;
            }
        }
    }
    for (int i = 0; i < N; i++) {
        assert_false(a[i].busy);
        asker_close(&w, &a[i]);
    }
    assert_true(ended[0] > 0 && ended[1] > 10 && ended[2] > 10);
    assert_true(slowest < SLOWEST);
    world_close(&w);
}

static void sched_random_life_ends_every_request_rightly(void **state) {
    (void)state;
    live(1, CTX_BLOCKS, 0);
    live(2, CTX_BLOCKS + CTX_BLOCKS / 2, 0);
    live(3, 6 * CTX_BLOCKS, 0);
    live(4, CTX_BLOCKS, 10);
    live(5, CTX_BLOCKS + CTX_BLOCKS / 2, 60);
    assert_true(fake.n_in > 100);
}

static void sched_weights_settle_while_tokens_are_decoded(void **state) {
    struct world w = world_open(2 * CTX_BLOCKS, CTX);
    struct asker a;
    (void)state;
    asker_open(&w, &a);
    fake_prompt(a.tokens, 500, 1);
    ask(&w, &a, PRIORITY_NORMAL, 500, 20);
    while (!a.prompt_done) {
        assert_int_equal(fake.n_settle, 0);
        step(&w, &a, 1);
    }
    step_until_idle(&w, &a, 1);
    /* not behind the prompt's step, which gave the first token, nor when the last is there */
    assert_int_equal(fake.n_settle, 18);
    asker_close(&w, &a);
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(sched_interactive_displaces_others_when_there_is_no_room, setup),
        cmocka_unit_test_setup(sched_nobody_is_displaced_in_vain_or_by_an_equal, setup),
        cmocka_unit_test_setup(sched_better_class_gets_most_of_the_prefill_and_others_some,
                               setup),
        cmocka_unit_test_setup(sched_who_waits_long_is_raised, setup),
        cmocka_unit_test_setup(sched_first_step_is_as_long_as_expected, setup),
        cmocka_unit_test_setup(sched_weights_settle_while_tokens_are_decoded, setup),
        cmocka_unit_test_setup(sched_idle_work_stands_still_while_there_is_other, setup),
        cmocka_unit_test_setup(sched_next_request_ends_the_guess_and_keeps_what_it_computed,
                               setup),
        cmocka_unit_test_setup(sched_cancel_ends_what_waits_and_what_prefills_at_once, setup),
        cmocka_unit_test_setup(sched_256_answers_in_one_batch, setup),
        cmocka_unit_test_setup(sched_prompt_gets_on_beside_many_answers, setup),
        cmocka_unit_test_setup(sched_preempted_finds_the_blocks_that_nobody_took, setup),
        cmocka_unit_test_setup(sched_what_was_swapped_out_is_not_computed_again, setup),
        cmocka_unit_test_setup(sched_preempted_gets_its_blocks_back, setup),
        cmocka_unit_test_setup(sched_large_blocks_come_back_one_by_one, setup),
        cmocka_unit_test_setup(sched_random_life_ends_every_request_rightly, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
