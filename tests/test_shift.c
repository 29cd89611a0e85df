/*
 * test_shift.c - requests that stream beyond the context, over a fake graph (fake_graph.h): its
 * tokens follow from the whole history as the blocks give it, and a key at a wrong position is
 * another history. The test keeps a timeline of its own by the rule (shift.h), and every token
 * must be the one that follows from it. There is no engine thread, so that what is computed can
 * be counted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/run/sched.h"
#include "rand.h"
#include "sched_world.h"
#include <stdlib.h>
#include <string.h>

enum { CTX = 128, BLOCKS = CTX / KV_BLOCK, TEXT = 4096, TARGET = CTX - CTX / 4 };

int64_t clock_us(void) { /* instead of the system's: what pays is decided by the fake graph */
    return fake.now_us;
}

struct asker {
    struct session *session;
    struct mailbox *box;
    int32_t text[TEXT]; /* all that was said */
    int n_text;
    int32_t seen[TEXT]; /* what the model sees of it */
    int n_seen;
    bool busy, stream;
    int n_answer, prompt_tok, cached_tok, dropped_tok, accepted_tok;
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

static int setup(void **state) {
    (void)state;
    fake_reset();
    return 0;
}

/* n more tokens of the text. */
static void say(struct asker *a, int n, int family) {
    for (int i = 0; i < n; i++, a->n_text++)
        a->text[a->n_text] = 'A' + (a->n_text * 7 + family * 11 + a->n_text / 26) % 26;
}

static int surplus(int n) {
    return (n - TARGET + KV_BLOCK - 1) / KV_BLOCK * KV_BLOCK;
}

/* Of the text without out tokens behind the first `sinks`. */
static void see(struct asker *a, int sinks, int out) {
    memcpy(a->seen, a->text, (size_t)sinks * sizeof *a->seen);
    a->n_seen = a->n_text - out;
    memcpy(a->seen + sinks, a->text + sinks + out,
           (size_t)(a->n_seen - sinks) * sizeof *a->seen);
}

static struct task *make(const struct asker *a, int max_tok, enum speculation speculation) {
    const struct task_limits lim = {.n_vocab = FAKE_VOCAB, .ctx_tok = CTX};
    const struct request r = {
        .tokens = a->text,
        .n_tok = (size_t)a->n_text,
        .max_tok = max_tok,
        .stream = a->stream,
        .speculation = speculation,
        .sampling = {.top_p = 1, .typical_p = 1, .repeat_penalty = 1, .seed = 1}};
    struct task *t;
    struct err err;
    assert_int_equal(task_new(&r, &lim, &t, &err), ST_OK);
    return t;
}

static void submit(struct world *w, struct asker *a, struct task *t) {
    t->session = a->session;
    t->events = mailbox_ref(a->box);
    a->busy = true;
    a->n_answer = 0;
    sched_submit(w->sched, t);
}

/* Every token follows from what is seen, and what is seen is never more than the context. */
static void hear(struct asker *a) {
    for (struct event *e; (e = mailbox_take(a->box)); event_free(e)) {
        assert_int_not_equal(e->type, EVENT_ERROR);
        if (e->type == EVENT_TOKEN && e->token >= 0) {
            if (a->n_seen >= CTX) {
                int out = surplus(a->n_seen);
                a->n_seen -= out;
                memmove(a->seen + KV_BLOCK, a->seen + KV_BLOCK + out,
                        (size_t)(a->n_seen - KV_BLOCK) * sizeof *a->seen);
            }
            assert_int_equal(e->token, fake_next(a->seen, (size_t)a->n_seen));
            a->seen[a->n_seen++] = a->text[a->n_text++] = e->token;
            a->n_answer++;
        }
        if (e->type == EVENT_FINISHED) {
            a->busy = false;
            a->finish = e->finish;
            a->prompt_tok = e->prompt_tok;
            a->cached_tok = e->cached_tok;
            a->dropped_tok = e->dropped_tok;
            a->accepted_tok = e->accepted_tok;
            assert_int_equal(e->completion_tok, a->n_answer);
        }
    }
}

static void step(struct world *w, struct asker *a, int n) {
    sched_step(w->sched);
    assert_true(sched_consistent(w->sched));
    assert_true(fake.longest <= CTX);
    for (int i = 0; i < n; i++)
        hear(&a[i]);
}

static void finish(struct world *w, struct asker *a, int n) {
    for (int i = 0; sched_has_work(w->sched); i++) {
        assert_true(i < 20000);
        step(w, a, n);
    }
}

/* Asks with all of the text and waits for the answer. */
static void ask(struct world *w, struct asker *a, int max_tok) {
    submit(w, a, make(a, max_tok, SPECULATION_OFF));
    finish(w, a, 1);
    assert_int_equal(a->finish, FINISH_LENGTH);
    assert_int_equal(a->n_answer, max_tok);
}

/* An answer of n tokens to a prompt of 50 in a new session. */
static void begin(struct world *w, struct asker *a, int n) {
    asker_open(w, a);
    a->stream = true;
    say(a, 50, 1);
    see(a, 0, 0);
    ask(w, a, n);
}

/* ---- one session ---- */

static void shift_answer_goes_on_and_nothing_is_computed_twice(void **state) {
    (void)state;
    static struct asker a;
    struct world w = world_open(BLOCKS + 1, CTX);
    begin(&w, &a, 600);
    assert_int_equal(fake.n_tok, 50 + 600 - 1);
    assert_int_equal(a.prompt_tok, 50);
    assert_int_equal(a.dropped_tok, a.n_text - a.n_seen);
    assert_true(a.dropped_tok > 500 && a.n_seen <= CTX && fake.longest == CTX - 1);
    asker_close(&w, &a);
    world_close(&w);
}

static void shift_without_it_the_answer_ends_with_the_context(void **state) {
    (void)state;
    static struct asker a;
    struct world w = world_open(BLOCKS + 1, CTX);
    asker_open(&w, &a);
    say(&a, 50, 1);
    see(&a, 0, 0);
    submit(&w, &a, make(&a, -1, SPECULATION_OFF));
    finish(&w, &a, 1);
    assert_int_equal(a.n_text, CTX);
    assert_int_equal(a.dropped_tok, 0);
    assert_int_equal(fake.n_moved, 0);
    a.stream = true; /* and so does one that streams and has no limit, ten contexts later */
    submit(&w, &a, make(&a, -1, SPECULATION_OFF));
    see(&a, KV_BLOCK, surplus(a.n_text));
    finish(&w, &a, 1);
    assert_int_equal(a.n_answer, 10 * CTX);
    asker_close(&w, &a);
    world_close(&w);
}

static void shift_next_turn_computes_only_what_is_new(void **state) {
    (void)state;
    static struct asker a;
    struct world w = world_open(BLOCKS + 1, CTX);
    begin(&w, &a, 300);
    int out = a.n_text - a.n_seen;
    fake.n_tok = 0;
    say(&a, 10, 2);
    see(&a, KV_BLOCK, out); /* it may fit, or the oldest go */
    if (a.n_seen >= CTX)
        see(&a, KV_BLOCK, out + surplus(a.n_seen));
    ask(&w, &a, 1);
    assert_int_equal(fake.n_tok, 11); /* and the last one, which was never computed */
    assert_int_equal(a.cached_tok, a.prompt_tok - 11);
    fake.n_tok = fake.n_moved = 0;
    out = a.n_text - a.n_seen;
    say(&a, 60, 3); /* too many */
    int now = out + surplus(a.n_text - out);
    see(&a, KV_BLOCK, now);
    ask(&w, &a, 1);
    assert_int_equal(fake.n_tok, 61);
    assert_true(fake.n_moved > 0 && now > out);
    asker_close(&w, &a);
    world_close(&w);
}

static void shift_long_prompt_is_shown_by_its_ends(void **state) {
    (void)state;
    static struct asker a;
    struct world w = world_open(BLOCKS + 1, CTX);
    asker_open(&w, &a);
    a.stream = true;
    say(&a, 1000, 1);
    see(&a, KV_BLOCK, surplus(1000));
    int shown = a.n_seen;
    ask(&w, &a, 5);
    assert_int_equal(fake.n_tok, shown + 4);
    assert_int_equal(a.prompt_tok, shown);
    assert_int_equal(a.cached_tok, 0);
    assert_int_equal(fake.n_moved, 0);
    /* and goes on from there */
    fake.n_tok = 0;
    say(&a, 5, 2);
    see(&a, KV_BLOCK, surplus(1000));
    ask(&w, &a, 5);
    assert_int_equal(fake.n_tok, 6 + 4);
    asker_close(&w, &a);
    world_close(&w);
}

static void shift_keeps_the_system_prompt_up_to_a_quarter(void **state) {
    (void)state;
    static const struct {
        int keep, sinks;
    } cases[] = {{0, 16}, {4, 16}, {16, 16}, {17, 32}, {32, 32}, {33, 32}, {1 << 30, 32}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static struct asker a;
        struct world w = world_open(BLOCKS + 1, CTX);
        asker_open(&w, &a);
        a.stream = true;
        say(&a, 300, 1);
        see(&a, cases[i].sinks, surplus(300));
        struct task *t = make(&a, 1, SPECULATION_OFF);
        t->keep_tok = cases[i].keep;
        submit(&w, &a, t);
        finish(&w, &a, 1);
        assert_int_equal(a.n_answer, 1);
        assert_int_equal(a.session->map.sinks, cases[i].sinks);
        asker_close(&w, &a);
        world_close(&w);
    }
}

static void shift_edited_text_is_computed_anew(void **state) {
    (void)state;
    static struct asker a;
    struct world w = world_open(BLOCKS + 1, CTX);
    begin(&w, &a, 300);
    a.text[60] = '!'; /* in what was left out */
    see(&a, KV_BLOCK, surplus(a.n_text));
    ask(&w, &a, 3);
    assert_int_equal(a.cached_tok, KV_BLOCK); /* the sinks are as they were */
    /* the end of what is seen: all before it is kept */
    int out = a.n_text - a.n_seen, seen = a.n_seen;
    a.text[a.n_text - 4] = '!';
    see(&a, KV_BLOCK, out);
    ask(&w, &a, 3);
    assert_int_equal(a.cached_tok, seen - 4);
    asker_close(&w, &a);
    world_close(&w);
}

static void shift_may_leave_out_all_that_was_computed(void **state) {
    (void)state;
    static struct asker a;
    struct world w = world_open(BLOCKS + 1, CTX);
    asker_open(&w, &a);
    a.stream = true;
    say(&a, 64, 1);
    see(&a, 0, 0);
    ask(&w, &a, 0);
    say(&a, 80, 1);
    assert_int_equal(KV_BLOCK + surplus(144), 64);
    see(&a, KV_BLOCK, surplus(144));
    ask(&w, &a, 3);
    assert_int_equal(a.cached_tok, KV_BLOCK);
    asker_close(&w, &a);
    world_close(&w);
}

static void shift_text_that_fits_is_shown_whole(void **state) {
    (void)state;
    static struct asker a;
    struct world w = world_open(BLOCKS + 1, CTX);
    begin(&w, &a, 300);
    a.n_text = 100;
    see(&a, 0, 0);
    ask(&w, &a, 10);
    assert_int_equal(a.prompt_tok, 100);
    assert_int_equal(a.dropped_tok, 0);
    asker_close(&w, &a);
    world_close(&w);
}

/* ---- others ---- */

static void shift_moved_blocks_are_found_by_nobody(void **state) {
    (void)state;
    static struct asker a, b;
    struct world w = world_open(3 * BLOCKS, CTX);
    begin(&w, &a, 300);
    for (int stream = 0; stream < 2; stream++) {
        asker_open(&w, &b);
        b.stream = stream;
        memcpy(b.text, a.seen, sizeof b.text);
        b.n_text = a.n_seen < CTX - 4 ? a.n_seen : CTX - 4;
        see(&b, 0, 0);
        ask(&w, &b, 2);
        /* the second time the plain ones of the first */
        assert_int_equal(b.cached_tok,
                         stream ? (b.n_text - 3) / KV_BLOCK * KV_BLOCK : KV_BLOCK);
        asker_close(&w, &b);
    }
    /* nor by a request in the same session that does not stream */
    a.stream = false;
    memcpy(a.text, a.seen, sizeof a.text);
    a.n_text = CTX - 4 < a.n_seen ? CTX - 4 : a.n_seen;
    a.text[KV_BLOCK] = '!'; /* not what b computed */
    see(&a, 0, 0);
    ask(&w, &a, 2);
    assert_int_equal(a.cached_tok, KV_BLOCK);
    asker_close(&w, &a);
    world_close(&w);
}

/* All blocks of a session as they are. */
static uint8_t *blocks_of(const struct world *w, const struct asker *a, int n_tok) {
    uint8_t *all = xcalloc(BLOCKS, FAKE_BLOCK_BYTES);
    for (int i = 0; i * KV_BLOCK < n_tok; i++) {
        int n = n_tok - i * KV_BLOCK < KV_BLOCK ? n_tok - i * KV_BLOCK : KV_BLOCK;
        graph_read_block(w->graph, a->session->kv.blocks[i], n, all + i * FAKE_BLOCK_BYTES);
    }
    return all;
}

static void shift_leaves_the_blocks_of_others_alone(void **state) {
    (void)state;
    static struct asker a, fork;
    struct world w = world_open(3 * BLOCKS, CTX);
    begin(&w, &a, CTX - 50 - 5);
    fork = a;
    fork.session = xcalloc(1, sizeof *fork.session);
    fork.box = mailbox_new(event_free);
    sched_fork(w.sched, fork.session, a.session);
    int n = fork.session->kv.n_tok;
    uint8_t *before = blocks_of(&w, &fork, n);
    ask(&w, &a, 100); /* moves what both hold */
    assert_true(fake.n_moved > 0 && fake.n_copied > 0);
    uint8_t *after = blocks_of(&w, &fork, n);
    assert_memory_equal(before, after, BLOCKS * FAKE_BLOCK_BYTES);
    free(before);
    free(after);
    fork.stream = false;
    fake.n_tok = 0;
    ask(&w, &fork, 5);
    assert_int_equal(fake.n_tok, 5);
    /* a fork of what has moved goes on like it */
    static struct asker late;
    late = a;
    late.session = xcalloc(1, sizeof *late.session);
    late.box = mailbox_new(event_free);
    sched_fork(w.sched, late.session, a.session);
    fake.n_tok = 0;
    ask(&w, &late, 150);
    ask(&w, &a, 150);
    assert_int_equal(fake.n_tok, 2 * 150);
    asker_close(&w, &late);
    asker_close(&w, &fork);
    asker_close(&w, &a);
    world_close(&w);
}

static void shift_without_room_to_copy_computes_anew(void **state) {
    (void)state;
    static struct asker a[2];
    struct world w = world_open(BLOCKS + 2, CTX);
    begin(&w, &a[0], CTX - 50 - 1);
    a[1] = a[0];
    a[1].session = xcalloc(1, sizeof *a[1].session);
    a[1].box = mailbox_new(event_free);
    sched_fork(w.sched, a[1].session, a[0].session);
    for (int i = 0; i < 2; i++) /* both active: neither gives blocks up for the other */
        submit(&w, &a[i], make(&a[i], 200, SPECULATION_OFF));
    finish(&w, a, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(a[i].n_answer, 200);
        asker_close(&w, &a[i]);
    }
    world_close(&w);
}

static void shift_preempted_is_computed_from_what_it_sees(void **state) {
    (void)state;
    static struct asker a[2];
    struct world w = world_open(BLOCKS + 1, CTX);
    begin(&w, &a[0], 10);
    submit(&w, &a[0], make(&a[0], 400, SPECULATION_OFF));
    while (a[0].n_answer < 200)
        step(&w, a, 1);
    int seen = a[0].n_seen;
    asker_open(&w, &a[1]);
    say(&a[1], 100, 5);
    see(&a[1], 0, 0);
    struct task *t = make(&a[1], 20, SPECULATION_OFF);
    t->priority = PRIORITY_INTERACTIVE;
    fake.n_tok = 0;
    submit(&w, &a[1], t);
    finish(&w, a, 2);
    assert_int_equal(a[0].n_answer, 400);
    assert_int_equal(a[1].n_answer, 20);
    int again = fake.n_tok - 200 - 120;
    assert_true(again > seen / 2 && again <= seen);
    /* and its next turn finds what moved since */
    fake.n_tok = 0;
    int out = a[0].n_text - a[0].n_seen;
    say(&a[0], 1, 1);
    see(&a[0], KV_BLOCK, out + (a[0].n_seen + 1 >= CTX ? surplus(a[0].n_seen + 1) : 0));
    ask(&w, &a[0], 1);
    assert_int_equal(fake.n_tok, 2);
    asker_close(&w, &a[0]);
    asker_close(&w, &a[1]);
    world_close(&w);
}

static void shift_guesses_are_checked_across_it(void **state) {
    (void)state;
    static struct asker a;
    static char script[1200];
    for (size_t i = 0; i + 1 < sizeof script; i++)
        script[i] = "so it goes, "[i % 12];
    fake.script = script;
    fake.step_us = 1000;
    fake.row_us = 10;
    struct world w = world_open(BLOCKS + 1, CTX);
    asker_open(&w, &a);
    a.stream = true;
    say(&a, 10, 1);
    a.text[a.n_text++] = '#';
    see(&a, 0, 0);
    submit(&w, &a, make(&a, 600, SPECULATION_LOOKUP));
    finish(&w, &a, 1);
    assert_int_equal(a.n_answer, 600);
    assert_true(a.accepted_tok > 300);
    assert_true(fake.n_moved > 0);
    asker_close(&w, &a);
    world_close(&w);
}

/* ---- what can't ---- */

static void shift_is_refused_with_the_reason(void **state) {
    (void)state;
    struct err err;
    struct world w = world_open(BLOCKS + 1, CTX);
    assert_int_equal(shift_check(w.graph, SHIFT_MIN_CTX, &err), ST_OK);
    assert_int_equal(shift_check(w.graph, SHIFT_MIN_CTX - 1, &err), ST_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "63 tokens is too small"));
    fake.cannot_move = "its positions are learned";
    assert_int_equal(shift_check(w.graph, CTX, &err), ST_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "its positions are learned"));
    world_close(&w);
}

static void shift_engine_refuses_at_once(void **state) {
    (void)state;
    const struct engine_params p = {.ctx_tok = CTX};
    int32_t t[300];
    struct request r = {
        .tokens = t, .n_tok = 300, .stream = true, .sampling = SAMPLING_DEFAULTS};
    struct mailbox *box = mailbox_new(event_free);
    struct engine *en;
    struct err err;
    for (int i = 0; i < 300; i++)
        t[i] = 'a';
    assert_int_equal(engine_open("fake", &p, &en, &err), ST_OK);
    struct session *s = session_new(en);
    assert_int_equal(engine_can_stream(en, 0, &err), ST_OK);
    assert_int_equal(engine_can_stream(en, 63, &err), ST_UNSUPPORTED);
    fake.cannot_move = "its positions are learned";
    assert_int_equal(engine_can_stream(en, 0, &err), ST_UNSUPPORTED);
    assert_int_equal(session_generate(s, &r, 1, box, &err), ST_UNSUPPORTED);
    fake.cannot_move = NULL;
    r.keep_tok = -1;
    assert_int_equal(session_generate(s, &r, 1, box, &err), ST_USAGE);
    r.keep_tok = 0;
    r.stream = false;
    assert_int_equal(session_generate(s, &r, 1, box, &err), ST_CONTEXT_FULL);
    r.stream = true;
    r.stream_ctx = 64; /* less than the engine's */
    assert_int_equal(session_generate(s, &r, 1, box, &err), ST_OK);
    for (bool end = false; !end;) {
        struct event *e = mailbox_wait(box, -1);
        assert_int_equal(e->dropped_tok, 300 - 44);
        end = e->type == EVENT_FINISHED;
        assert_true(!end || e->prompt_tok == 44);
        event_free(e);
    }
    session_free(s);
    engine_close(en);
    mailbox_unref(box);
}

/* Random requests, forks, cancels and edits of several sessions in a small pool; hear() checks
 * every token, step() every block. The mirror of what is seen can't know when KV was lost, so
 * each request's is taken from its task. */
static void live(uint64_t seed, int n_block) {
    enum { N = 6, STEPS = 6000 };
    static struct asker a[N];
    struct world w = world_open(n_block, CTX);
    int ended = 0;
    rand_state = seed;
    fake.step_us = 1000;
    fake.row_us = 10;
    for (int i = 0; i < N; i++)
        asker_open(&w, &a[i]);
    for (int s = 0; s < STEPS || sched_has_work(w.sched); s++) {
        struct asker *x = &a[rand_u32() % N];
        int dice = (int)(rand_u32() % 100);
        assert_true(s < 3 * STEPS);
        if (x->busy && dice < 2) {
            sched_cancel(w.sched, x->session);
        } else if (!x->busy && dice < 4) {
            struct session *fork = xcalloc(1, sizeof *fork);
            sched_fork(w.sched, fork, x->session);
            sched_free_session(w.sched, x->session);
            x->session = fork;
        } else if (!x->busy && s < STEPS) {
            if (x->n_text > 1000)
                x->n_text = 1 + (int)(rand_u32() % 200);
            if (dice < 20 && x->n_text)
                x->text[rand_u32() % (unsigned)x->n_text] = '!';
            say(x, 1 + (int)(rand_u32() % (dice < 10 ? 200 : 20)), (int)(rand_u32() % 3));
            x->stream = x->n_text >= CTX || dice % 4;
            x->n_seen = 0;
            submit(&w, x, make(x, (int)(rand_u32() % 150), SPECULATION_LOOKUP));
            if (!x->stream)
                see(x, 0, 0);
        }
        step(&w, NULL, 0);
        for (int i = 0; i < N; i++) {
            bool was = a[i].busy;
            const struct task *t = a[i].session->task;
            const struct shift_map *m = &a[i].session->map;
            bool fitted = was && (t ? t->fitted : m->sinks + m->n_out <= a[i].n_text);
            if (fitted && a[i].n_seen == 0)
                see(&a[i], m->n_out ? m->sinks : 0, m->n_out);
            hear(&a[i]);
            ended += was && !a[i].busy && a[i].finish == FINISH_LENGTH;
        }
    }
    for (int i = 0; i < N; i++)
        asker_close(&w, &a[i]);
    assert_true(ended > 50 && fake.n_moved > 100);
    world_close(&w);
}

static void shift_random_life_ends_every_request_rightly(void **state) {
    (void)state;
    live(1, BLOCKS);
    live(2, BLOCKS + BLOCKS / 2);
    live(3, 6 * BLOCKS);
}

int main(void) {
#define T(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        T(shift_answer_goes_on_and_nothing_is_computed_twice),
        T(shift_without_it_the_answer_ends_with_the_context),
        T(shift_next_turn_computes_only_what_is_new),
        T(shift_long_prompt_is_shown_by_its_ends),
        T(shift_keeps_the_system_prompt_up_to_a_quarter),
        T(shift_edited_text_is_computed_anew),
        T(shift_may_leave_out_all_that_was_computed),
        T(shift_text_that_fits_is_shown_whole),
        T(shift_moved_blocks_are_found_by_nobody),
        T(shift_leaves_the_blocks_of_others_alone),
        T(shift_without_room_to_copy_computes_anew),
        T(shift_preempted_is_computed_from_what_it_sees),
        T(shift_guesses_are_checked_across_it),
        T(shift_is_refused_with_the_reason),
        T(shift_engine_refuses_at_once),
        T(shift_random_life_ends_every_request_rightly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
