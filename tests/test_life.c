/*
 * test_life.c - all parts of the engine's thread together over a fake graph (fake_graph.h):
 * classes and displacement, guesses of prompts that are being typed, speculation by lookup and
 * by a draft model, evaluation, saved states of two programs in one folder, in pools that are
 * too small, while files are damaged, requests are cancelled and sessions come and go.
 *
 * Every token must be the model's, every block in order after every step, every request must
 * end in a bounded number of steps, and no file may hold what was only typed or is forgotten.
 * LIFE_SEED=n gives other lives.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/run/sched.h"
#include "engine/run/state_file.h"
#include "engine/run/states.h"
#include "fake_graph.h"
#include "ok.h"
#include "rand.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CTX = 640,
    CTX_BLOCKS = CTX / KV_BLOCK,
    N_WORLD = 2,
    N = 8,          /* conversations of each */
    ARRIVE = 5000,  /* steps in which requests arrive */
    SLOWEST = 1500, /* steps until a request has ended */
    SECRET = 255,   /* a token that is typed and never sent */
    REST_US = 100000,
};

int64_t clock_us(void) {
    return fake.now_us;
}

int64_t clock_unix_ms(void) {
    return 0;
}

static char dir[64];

/* ---- a world: a scheduler with a keeper and a draft model ---- */

struct talk { /* a conversation */
    struct session *session;
    struct mailbox *box;
    int64_t owner;
    uint64_t id;
    enum priority priority;   /* as asked */
    int32_t tokens[CTX + 64]; /* history, with the answer so far */
    int n_tok;
    bool busy;
    int asked_at; /* step */
};

struct world {
    struct model *model, *draft_model;
    struct graph *graph, *draft_graph;
    struct draft *draft;
    struct sched *sched;
    int step, n_block;
    atomic_int n_waiting;
    struct talk talks[N];
    struct eval eval;
    struct mailbox *reply;
    int32_t eval_tokens[CTX];
    float *eval_out; /* [n_tok - first, FAKE_VOCAB], NULL: none runs */
};

static struct { int ended[3], drafted, accepted, cached, evals, failed, slowest, states; } seen;
enum { MAX_OWNER = 1 << 16 };
static int64_t last_owner;
static bool forgotten[MAX_OWNER];

static void wake(void *user) {
    (void)user; /* it is looked at in each step */
}

static void world_open(struct world *w, uint64_t max_bytes) {
    struct graph_params gp = {.n_block = w->n_block, .max_logits = SCHED_MAX_LOGITS};
    OK(model_open("fake", &w->model, &e));
    OK(model_open("fake-draft", &w->draft_model, &e));
    OK(graph_open(w->model, &gp, &w->graph, &e));
    gp.max_logits = SPEC_MAX_SEQ;
    OK(graph_open(w->draft_model, &gp, &w->draft_graph, &e));
    w->draft = draft_new(w->draft_model, w->draft_graph, w->n_block, FAKE_VOCAB);
    w->sched = sched_new(w->graph, NULL, FAKE_VOCAB, CTX, w->n_block, w->draft);
    struct keep_params kp = {.dir = dir,
                             .max_bytes = max_bytes,
                             .model = 0xFA4E,
                             .form = 7,
                             .name = "fake",
                             .block_bytes = FAKE_BLOCK_BYTES,
                             .wake = wake};
    sched_keep(w->sched, &kp, REST_US / 1000);
}

static void world_close(struct world *w) {
    sched_free(w->sched);
    draft_free(w->draft);
    graph_close(w->graph);
    graph_close(w->draft_graph);
    model_close(w->model);
    model_close(w->draft_model);
}

static void open_session(struct world *w, struct talk *t) {
    t->session = xcalloc(1, sizeof *t->session);
    sched_add_session(w->sched, t->session);
    sched_keep_session(w->sched, t->session, t->owner);
}

static void new_talk(struct talk *t) {
    t->owner = ++last_owner;
    assert_true(t->owner < MAX_OWNER);
    t->n_tok = 1 + (int)(rand_u32() % 300);
    fake_prompt(t->tokens, t->n_tok, (int)(rand_u32() % 3));
}

/* ---- what comes back ---- */

static void hear(struct world *w, struct talk *t) {
    for (struct event *ev; (ev = mailbox_take(t->box)); event_free(ev)) {
        if (ev->request_id != t->id)
            continue; /* a guess that the next request ended */
        assert_true(t->busy);
        if (ev->type == EVENT_TOKEN && ev->token >= 0) {
            assert_int_equal(ev->token, fake_next(t->tokens, (size_t)t->n_tok));
            t->tokens[t->n_tok++] = ev->token;
        }
        if (ev->type != EVENT_FINISHED && ev->type != EVENT_ERROR)
            continue;
        t->busy = false;
        seen.failed += ev->type == EVENT_ERROR;
        if (ev->type == EVENT_ERROR || ev->finish == FINISH_CANCEL)
            continue;
        seen.ended[t->priority - PRIORITY_IDLE]++;
        seen.drafted += ev->drafted_tok;
        seen.accepted += ev->accepted_tok;
        seen.cached += ev->cached_tok;
        if (t->priority != PRIORITY_IDLE && w->step - t->asked_at > seen.slowest)
            seen.slowest = w->step - t->asked_at;
    }
}

static void hear_eval(struct world *w) {
    float want[FAKE_VOCAB];
    if (!w->eval_out || !mailbox_take(w->reply))
        return;
    for (int i = w->eval.first; w->eval.st == ST_OK && i < w->eval.n_tok; i++) {
        fake_logits(w->eval_tokens, (size_t)i + 1, want);
        assert_memory_equal(w->eval_out + (size_t)(i - w->eval.first) * FAKE_VOCAB, want,
                            sizeof want);
    }
    seen.evals += w->eval.st == ST_OK;
    free(w->eval_out);
    w->eval_out = NULL;
}

static int n_busy(const struct world *w) {
    int n = 0;
    for (int i = 0; i < N; i++)
        n += w->talks[i].busy;
    return n;
}

static void hear_all(struct world *w) {
    for (int i = 0; i < N; i++)
        hear(w, &w->talks[i]);
    hear_eval(w);
    int n = atomic_load(&w->n_waiting);
    assert_true(n >= 0 && n <= n_busy(w));
}

/* ---- what is asked ---- */

static void ask(struct world *w, struct talk *t, enum priority p, const int32_t *tokens, int n,
                int max_tok) {
    const struct task_limits lim = {.n_vocab = FAKE_VOCAB, .ctx_tok = CTX};
    const struct request r = {
        .tokens = tokens,
        .n_tok = (size_t)n,
        .max_tok = max_tok,
        .priority = p,
        .speculation = (enum speculation)(rand_u32() % (SPECULATION_DRAFT + 1)),
        .sampling = {.top_p = 1, .typical_p = 1, .repeat_penalty = 1, .seed = 1}};
    struct task *task;
    OK(task_new(&r, &lim, &task, &e));
    task->session = t->session;
    task->events = mailbox_ref(t->box);
    task->request_id = ++t->id;
    task->queue = &w->n_waiting;
    atomic_fetch_add(&w->n_waiting, 1);
    t->priority = p;
    t->busy = true;
    t->asked_at = w->step;
    sched_submit(w->sched, task);
}

/* The history and a draft, of which only the beginning may be sent some time. */
static void type_in(struct world *w, struct talk *t) {
    static int32_t prompt[2 * CTX];
    int n = t->n_tok;
    memcpy(prompt, t->tokens, (size_t)n * sizeof *prompt);
    for (int i = (int)(rand_u32() % 40); i > 0; i--)
        prompt[n++] = 'A' + i % 26;
    for (int i = (int)(rand_u32() % 150); i > 0; i--)
        prompt[n++] = i % 3 ? SECRET : 'B';
    if (n < CTX)
        ask(w, t, PRIORITY_IDLE, prompt, n, 0);
}

static void say(struct world *w, struct talk *t) {
    if (rand_u32() % 8 == 0) /* an earlier message is edited */
        t->n_tok = 1 + (int)(rand_u32() % (unsigned)t->n_tok);
    if (t->n_tok > CTX - 150)
        new_talk(t); /* a long one is left for another, in the same session */
    for (int i = 1 + (int)(rand_u32() % 60); i > 0; i--)
        t->tokens[t->n_tok++] = 'A' + i % 26;
    if (rand_u32() % 2)
        t->tokens[t->n_tok++] = '#'; /* the answer will be the script */
    sched_keep_session(w->sched, t->session, t->owner);
    ask(w, t, rand_u32() % 2 ? PRIORITY_NORMAL : PRIORITY_INTERACTIVE, t->tokens, t->n_tok,
        (int)(rand_u32() % 80));
}

static void evaluate(struct world *w) {
    int n = 1 + (int)(rand_u32() % CTX), first = n - 1 - (int)(rand_u32() % (unsigned)n) / 8;
    for (int i = 0; i < n; i++)
        w->eval_tokens[i] = 'A' + (int)(rand_u32() % 26);
    w->eval_out = xcalloc((size_t)(n - first) * FAKE_VOCAB, sizeof *w->eval_out);
    w->eval = (struct eval){.tokens = w->eval_tokens,
                            .n_tok = n,
                            .first = first,
                            .out = w->eval_out,
                            .reply = mailbox_ref(w->reply)};
    sched_evaluate(w->sched, &w->eval);
}

static void leave(struct world *w, struct talk *t) {
    sched_free_session(w->sched, t->session);
    hear(w, t);
    open_session(w, t);
}

static void fork_talk(struct world *w, struct talk *t) {
    struct session *fork = xcalloc(1, sizeof *fork);
    sched_fork(w->sched, fork, t->session);
    sched_keep_session(w->sched, fork, t->owner);
    sched_free_session(w->sched, t->session);
    hear(w, t);
    t->session = fork;
}

/* The conversation is deleted. */
static void forget(struct world *w, struct talk *t) {
    sched_keep_session(w->sched, t->session, 0);
    sched_free_session(w->sched, t->session);
    sched_forget(w->sched, t->owner);
    forgotten[t->owner] = true;
    hear(w, t);
    new_talk(t);
    open_session(w, t);
}

static void do_something(struct world *w) {
    struct talk *t = &w->talks[rand_u32() % N];
    bool free_to_ask = !t->busy || t->priority == PRIORITY_IDLE;
    switch (rand_u32() % 40) {
    case 0:
        sched_cancel(w->sched, t->session);
        break;
    case 1:
        fork_talk(w, t);
        break;
    case 2:
        leave(w, t);
        break;
    case 3:
        if (rand_u32() % 4 == 0)
            forget(w, t);
        break;
    case 4:
        if (!w->eval_out && rand_u32() % 4 == 0)
            evaluate(w);
        break;
    case 5:
        if (w->eval_out && rand_u32() % 4 == 0)
            atomic_store(&w->eval.cancel, true);
        break;
    case 6:
    case 7:
    case 8:
        if (free_to_ask)
            type_in(w, t);
        break;
    case 9:
    case 10:
        if (free_to_ask)
            say(w, t);
        break;
    case 11:
        if (rand_u32() % 8 == 0)
            fake.fail_at = fake.n_forward + 1;
        break;
    default:
        break;
    }
}

/* ---- the folder ---- */

static void damage(void *user, const char *path, const char *name) {
    struct stat sb;
    (void)user;
    (void)name;
    if (rand_u32() % 4 || stat(path, &sb) != 0 || sb.st_size == 0)
        return;
    int fd;
    char c;
    off_t at = (off_t)(rand_u32() % (unsigned)sb.st_size);
    switch (rand_u32() % 3) {
    case 0:
        unlink(path);
        break;
    case 1:
        assert_true(truncate(path, at) == 0 || access(path, F_OK) != 0);
        break;
    default:
        fd = open(path, O_RDWR);
        if (fd >= 0 && pread(fd, &c, 1, at) == 1) {
            c++;
            assert_int_equal(pwrite(fd, &c, 1, at), 1);
        }
        if (fd >= 0)
            close(fd);
    }
}

/* Nothing in it that was not sent, or is forgotten. */
static void look_into(void *user, const char *path, const char *name) {
    struct state_file f;
    (void)user;
    (void)name;
    if (state_open(&f, path, &e) != ST_OK)
        return; /* damaged */
    assert_false(forgotten[f.head.owner]);
    for (uint32_t i = 0; i < f.head.n_tok; i++)
        assert_int_not_equal(f.tokens[i], SECRET);
    seen.states++;
    state_close(&f);
}

static void remove_file(void *user, const char *path, const char *name) {
    (void)user;
    (void)name;
    unlink(path);
}

static int setup(void **state) {
    (void)state;
    fake_reset();
    memset(&seen, 0, sizeof seen);
    snprintf(dir, sizeof dir, "/tmp/llmchat-test-life-XXXXXX");
    return !mkdtemp(dir);
}

static int teardown(void **state) {
    (void)state;
    states_each(dir, remove_file, NULL);
    return rmdir(dir); /* fails when a half-written file is left */
}

/* ---- life ---- */

static void step(struct world *w, bool arrive) {
    w->step++;
    if (arrive)
        do_something(w);
    sched_tend(w->sched);
    if (sched_has_work(w->sched))
        sched_step(w->sched);
    else
        fake.now_us += 1000;
    assert_true(sched_consistent(w->sched));
    assert_true(draft_consistent(w->draft));
    hear_all(w);
}

static void restart(struct world *w, uint64_t max_bytes) {
    world_close(w);
    hear_all(w);
    assert_int_equal(atomic_load(&w->n_waiting), 0);
    assert_int_equal(n_busy(w), 0);
    assert_null(w->eval_out);
    world_open(w, max_bytes);
    for (int i = 0; i < N; i++)
        open_session(w, &w->talks[i]);
}

static void live(uint64_t seed, int n_block, int long_from, uint64_t max_bytes) {
    static struct world worlds[N_WORLD];
    memset(worlds, 0, sizeof worlds);
    rand_state =
        seed + (getenv("LIFE_SEED") ? strtoull(getenv("LIFE_SEED"), NULL, 10) * 1000003 : 0);
    fake.script = "abcabcabcabcabcabcabcabcabc xyz xyz xyz xyz xyz xyz";
    fake.long_from = long_from;
    fake.step_us = 1000;
    fake.row_us = 20;
    fake.draft_part = 10;
    fake.draft_wrong = 5;
    for (int i = 0; i < N_WORLD; i++) {
        struct world *w = &worlds[i];
        w->n_block = n_block;
        w->reply = mailbox_new(NULL);
        world_open(w, max_bytes);
        for (int j = 0; j < N; j++) {
            w->talks[j].box = mailbox_new(event_free);
            new_talk(&w->talks[j]);
            open_session(w, &w->talks[j]);
        }
    }
    for (int i = 0; i < ARRIVE; i++) {
        for (int j = 0; j < N_WORLD; j++)
            step(&worlds[j], i % 500 < 400);
        if (rand_u32() % 200 == 0)
            states_each(dir, damage, NULL);
        if (rand_u32() % 400 == 0)
            restart(&worlds[rand_u32() % N_WORLD], max_bytes);
    }
    for (int j = 0; j < N_WORLD; j++) {
        struct world *w = &worlds[j];
        for (int i = 0; sched_has_work(w->sched); i++) {
            assert_true(i < N * SLOWEST);
            step(w, false);
        }
        restart(w, max_bytes);
        world_close(w);
        for (int i = 0; i < N; i++)
            mailbox_unref(w->talks[i].box);
        mailbox_unref(w->reply);
    }
    states_each(dir, look_into, NULL);
    assert_true(seen.slowest < SLOWEST);
}

static void life_in_little_room_is_right_and_ends(void **state) {
    (void)state;
    live(1, CTX_BLOCKS + 1, 0, 1 << 28);
    live(2, CTX_BLOCKS + CTX_BLOCKS / 2, 0, 1 << 28);
    for (int i = 0; i < 3; i++)
        assert_true(seen.ended[i] > 50);
    assert_true(seen.drafted > 100 && seen.accepted > 50 && seen.accepted < seen.drafted);
    assert_true(seen.cached > 0 && fake.n_loaded > 0 && seen.evals > 5 && seen.failed > 0);
    assert_true(seen.states > 0);
}

static void life_in_much_room_is_right_and_ends(void **state) {
    (void)state;
    live(3, 6 * CTX_BLOCKS, 0, 1 << 28);
}

static void life_with_two_kinds_of_kv_is_right_and_ends(void **state) {
    (void)state;
    live(4, 2 * CTX_BLOCKS, 200, 1 << 28);
}

/* States push one another out. */
static void life_in_a_small_folder_is_right_and_ends(void **state) {
    (void)state;
    live(5, 2 * CTX_BLOCKS, 0, 100 * FAKE_BLOCK_BYTES);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(life_in_little_room_is_right_and_ends),
        T(life_in_much_room_is_right_and_ends),
        T(life_with_two_kinds_of_kv_is_right_and_ends),
        T(life_in_a_small_folder_is_right_and_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
