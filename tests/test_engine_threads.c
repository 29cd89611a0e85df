/*
 * test_engine_threads.c - the whole engine with a tiny random model (mkmodel), asked from
 * several threads at once: an answer is the same token by token whoever else asks, however many
 * threads compute, and whatever was cancelled or guessed meanwhile. Also what the thread
 * sanitizer looks at: every part that threads share is in use.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/engine.h"
#include "toy_file.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ASKERS = 5, TURNS = 6, PROMPT = 90, ANSWER = 24, CTX = 256 };

static char dir[] = "/tmp/llmchat-test-threads-XXXXXX";
static char *model_path;

static struct engine *open_engine(int threads) {
    const struct engine_params p = {.ctx_tok = CTX, .threads = threads};
    struct engine *e;
    struct err err = {0};
    if (engine_open(model_path, &p, &e, &err) != ST_OK)
        fail_msg("%s", err.msg);
    return e;
}

/* The prompts of an asker's turns begin alike, so that KV is shared and cut. */
static void fill(int32_t *tokens, int asker, int turn) {
    for (int i = 0; i < PROMPT; i++)
        tokens[i] = (i * 31 + (i > 40 ? asker * 17 : 0) + (i > 60 ? turn * 5 : 0)) % 250;
}

static struct request request_for(const int32_t *tokens, int turn) {
    return (struct request){.tokens = tokens,
                            .n_tok = PROMPT,
                            .max_tok = ANSWER,
                            .ignore_eos = true,
                            .priority = (enum priority)(turn % 2),
                            .sampling = {.temperature = 1,
                                         .top_p = 0.95,
                                         .typical_p = 1,
                                         .repeat_penalty = 1.1,
                                         .repeat_last_n = 32,
                                         .seed = turn + 1}};
}

/* Returns the tokens that came until the last event of request id; -1 when it failed. */
static int collect(struct mailbox *m, uint64_t id, int32_t *out) {
    int n = 0;
    for (bool end = false; !end;) {
        struct event *e = mailbox_wait(m, -1);
        bool mine = e->request_id == id;
        if (mine && e->type == EVENT_TOKEN && e->token >= 0 && n < ANSWER)
            out[n++] = e->token;
        end = mine && (e->type == EVENT_FINISHED || e->type == EVENT_ERROR);
        if (mine && e->type == EVENT_ERROR)
            n = -1;
        event_free(e);
    }
    return n;
}

static int ask(struct session *s, struct mailbox *m, const struct request *r, uint64_t id,
               int32_t *out) {
    struct err err;
    if (session_generate(s, r, id, m, &err) != ST_OK)
        return -1;
    return collect(m, id, out);
}

struct asker {
    pthread_t thread;
    struct engine *engine;
    int index;
    int32_t answer[TURNS][ANSWER];
    int n[TURNS];
};

/* Before each turn a guess at its prompt, and now and then a request that is cancelled, in a
 * fork. */
static void *live(void *arg) {
    struct asker *a = arg;
    struct session *s = session_new(a->engine);
    struct mailbox *m = mailbox_new(event_free);
    for (int turn = 0; turn < TURNS; turn++) {
        int32_t p[PROMPT], drop[ANSWER];
        struct err err;
        fill(p, a->index, turn);
        struct request r = request_for(p, turn), guess = r;
        guess.priority = PRIORITY_IDLE;
        guess.max_tok = 0;
        guess.n_tok = PROMPT - 7;
        session_generate(s, &guess, 1000, m, &err);
        if ((turn + a->index) % 3 == 0) {
            struct session *f = session_fork(s);
            if (session_generate(f, &r, 2000, m, &err) == ST_OK) {
                session_cancel(f);
                collect(m, 2000, drop);
            }
            session_free(f);
        }
        a->n[turn] = ask(s, m, &r, (uint64_t)turn, a->answer[turn]);
        session_cached_tok(s);
    }
    session_free(s);
    mailbox_unref(m);
    return NULL;
}

static void engine_answers_do_not_depend_on_company(void **state) {
    (void)state;
    static struct asker a[ASKERS];
    struct engine *e = open_engine(3);
    for (int i = 0; i < ASKERS; i++) {
        a[i] = (struct asker){.engine = e, .index = i};
        assert_int_equal(pthread_create(&a[i].thread, NULL, live, &a[i]), 0);
    }
    for (int i = 0; i < ASKERS; i++)
        pthread_join(a[i].thread, NULL);
    engine_close(e);

    struct engine *alone = open_engine(1);
    struct mailbox *m = mailbox_new(event_free);
    for (int i = 0; i < ASKERS; i++)
        for (int turn = 0; turn < TURNS; turn++) {
            int32_t p[PROMPT], want[ANSWER];
            fill(p, i, turn);
            struct request r = request_for(p, turn);
            struct session *s = session_new(alone);
            assert_int_equal(ask(s, m, &r, 1, want), ANSWER);
            assert_int_equal(a[i].n[turn], ANSWER);
            assert_memory_equal(a[i].answer[turn], want, sizeof want);
            session_free(s);
        }
    mailbox_unref(m);
    engine_close(alone);
}

/* Closed while everybody asks: every request has its last event. */
static void engine_close_answers_everybody(void **state) {
    (void)state;
    struct engine *e = open_engine(2);
    struct mailbox *m = mailbox_new(event_free);
    struct err err;
    for (int i = 0; i < ASKERS; i++) {
        int32_t p[PROMPT];
        fill(p, i, 0);
        struct request r = request_for(p, i);
        r.max_tok = -1;
        assert_int_equal(session_generate(session_new(e), &r, (uint64_t)i, m, &err), ST_OK);
    }
    engine_close(e);
    int n = 0;
    for (struct event *ev; (ev = mailbox_take(m)); event_free(ev))
        n += ev->type == EVENT_FINISHED;
    assert_int_equal(n, ASKERS);
    mailbox_unref(m);
}

static int make(void **state) {
    (void)state;
    return (model_path = toy_file(dir, "ctx=512", QUANT_NF4)) ? 0 : -1;
}

static int clean(void **state) {
    (void)state;
    toy_file_free(dir, model_path);
    return 0;
}

int main(void) {
    if (!getenv("MKMODEL"))
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(engine_answers_do_not_depend_on_company),
        cmocka_unit_test(engine_close_answers_everybody),
    };
    return cmocka_run_group_tests(tests, make, clean);
}
