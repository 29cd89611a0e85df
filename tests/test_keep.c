/*
 * test_keep.c - states in files, over a fake graph whose answers depend on every token that the
 * KV blocks hold: what is read wrongly gives a wrong answer. What counts are tokens computed
 * and blocks loaded, never time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/path.h"
#include "engine/engine.h"
#include "engine/models.h"
#include "engine/run/keep.h"
#include "engine/run/state_file.h"
#include "engine/run/states.h"
#include "fake_graph.h"
#include "ok.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PLENTY = 1 << 28 };

static char dir[64];

/* ---- the folder ---- */

static struct {
    int n;
    char path[256]; /* of the last one */
    uint64_t bytes;
} found;

static void see(void *user, const char *path, const char *name) {
    struct stat sb;
    (void)user;
    (void)name;
    assert_int_equal(stat(path, &sb), 0);
    assert_int_equal(sb.st_mode & 0777, 0600);
    found.n++;
    found.bytes += (uint64_t)sb.st_size;
    snprintf(found.path, sizeof found.path, "%s", path);
}

static int files(void) {
    memset(&found, 0, sizeof found);
    states_each(dir, see, NULL);
    return found.n;
}

static void wait_for_files(int n) {
    int64_t until = clock_us() + 60 * 1000000LL;
    while (files() != n) {
        assert_true(clock_us() < until);
        usleep(1000);
    }
}

static void remove_file(void *user, const char *path, const char *name) {
    (void)user;
    (void)name;
    unlink(path);
}

static int setup(void **state) {
    (void)state;
    fake_reset();
    snprintf(dir, sizeof dir, "/tmp/llmchat-test-keep-XXXXXX");
    return !mkdtemp(dir);
}

static int setup_host(void **state) {
    int rc = setup(state);
    fake.host_blocks = true;
    return rc;
}

static int teardown(void **state) {
    (void)state;
    states_each(dir, remove_file, NULL);
    return rmdir(dir); /* fails when a half-written file is left */
}

/* ---- the engine ---- */

struct answer {
    int32_t tokens[512];
    int n_tok, cached;
    enum event_type last;
};

static struct engine *open_with(struct engine_params p) {
    struct engine *en;
    p.ctx_tok = 512;
    p.kv_bytes = p.kv_bytes ? p.kv_bytes : 80 * FAKE_BLOCK_BYTES;
    p.kv_dir = dir;
    p.kv_dir_bytes = p.kv_dir_bytes ? p.kv_dir_bytes : PLENTY;
    OK(engine_open("fake", &p, &en, &e));
    return en;
}

static struct engine *open_engine(void) {
    return open_with((struct engine_params){0});
}

static void ask(struct answer *a, struct session *s, const int32_t *tokens, int n, int max) {
    struct mailbox *m = mailbox_new(event_free);
    const struct request r = {
        .tokens = tokens,
        .n_tok = (size_t)n,
        .max_tok = max,
        .sampling = {.top_p = 1, .typical_p = 1, .repeat_penalty = 1, .seed = 1}};
    *a = (struct answer){0};
    OK(session_generate(s, &r, 1, m, &e));
    for (bool end = false; !end;) {
        struct event *ev = mailbox_wait(m, -1);
        if (ev->type == EVENT_TOKEN && ev->token >= 0)
            a->tokens[a->n_tok++] = ev->token;
        end = ev->type == EVENT_FINISHED || ev->type == EVENT_ERROR;
        a->last = ev->type;
        a->cached = ev->cached_tok;
        event_free(ev);
    }
    mailbox_unref(m);
    /* each answer is what the model says to that history */
    int32_t *want = xreallocarray(NULL, (size_t)(n + max), sizeof *want);
    memcpy(want, tokens, (size_t)n * sizeof *want);
    assert_int_equal(a->last, EVENT_FINISHED);
    assert_int_equal(a->n_tok, max);
    for (int i = 0; i < max; i++) {
        want[n + i] = fake_next(want, (size_t)(n + i));
        assert_int_equal(a->tokens[i], want[n + i]);
    }
    free(want);
}

static enum kv_type kv_type; /* of turn() */

/* One turn of conversation `owner` in an engine of its own, as a program that is started for
 * it; history [*n] grows by the answer. */
static void turn(struct answer *a, int64_t owner, int32_t *history, int *n, int max) {
    struct engine *en = open_with((struct engine_params){.kv_type = kv_type});
    struct session *s = session_new(en);
    session_keep(s, owner);
    ask(a, s, history, *n, max);
    memcpy(history + *n, a->tokens, (size_t)a->n_tok * sizeof *history);
    *n += a->n_tok;
    session_free(s);
    engine_close(en);
}

/* ---- tests ---- */

static void after_a_restart_only_new_tokens_are_computed(void **state) {
    (void)state;
    struct answer a;
    int32_t t[512];
    int n = 300;
    fake_prompt(t, n, 0);
    turn(&a, 5, t, &n, 20);
    assert_int_equal(a.cached, 0);
    assert_int_equal(files(), 1);
    fake_prompt(t + n, 10, 3);
    int before = fake.n_tok;
    n += 10;
    turn(&a, 5, t, &n, 5);
    assert_int_equal(a.cached, 319); /* the last token of an answer is never computed */
    assert_int_equal(fake.n_tok - before, 11 + 4);
    assert_int_equal(fake.n_loaded, 20);
    assert_int_equal(files(), 1); /* the longer one took the place of the first */
}

/* f16 and bf16 have blocks of one size: only what the file says it is keeps them apart. */
static void states_of_another_type_of_cache_are_not_used(void **state) {
    (void)state;
    struct answer a;
    int32_t t[512];
    int n = 200;
    fake_prompt(t, n, 0);
    turn(&a, 5, t, &n, 4);
    kv_type = KV_BF16;
    turn(&a, 5, t, &n, 4);
    assert_int_equal(a.cached, 0);
    assert_int_equal(fake.n_loaded, 0);
    turn(&a, 5, t, &n, 4);
    assert_int_equal(a.cached, 207);
    kv_type = KV_AUTO;
    turn(&a, 5, t, &n, 4);
    assert_true(a.cached < 205); /* nothing but what the first turn saved, if that */
    kv_type = KV_F16;            /* which is what auto means for this model */
    turn(&a, 5, t, &n, 4);
    assert_int_equal(a.cached, 215);
    kv_type = KV_FP8;
    turn(&a, 5, t, &n, 4);
    assert_int_equal(a.cached, 0);
    turn(&a, 5, t, &n, 4);
    assert_int_equal(a.cached, 223);
    kv_type = KV_I8; /* a byte each, too */
    turn(&a, 5, t, &n, 4);
    assert_int_equal(a.cached, 0);
    kv_type = KV_AUTO;
}

static void state_is_whole_to_the_last_token(void **state) {
    (void)state;
    struct answer a;
    struct state_file f;
    int32_t t[512];
    int n = 100;
    fake_prompt(t, n, 0);
    turn(&a, 5, t, &n, 4);
    assert_int_equal(files(), 1);
    OK(state_open(&f, found.path, &e));
    assert_int_equal(f.head.n_tok, 103);
    assert_int_equal(f.head.owner, 5);
    assert_memory_equal(f.tokens, t, 103 * sizeof *t);
    assert_string_equal(f.name, "fake");
    char block[FAKE_BLOCK_BYTES];
    OK(state_read_block(&f, 6, block, &e));
    int32_t last[16];
    memcpy(last, block, sizeof last);
    for (int i = 0; i < 7; i++)
        assert_int_equal(last[i] % FAKE_PLACE, t[96 + i]);
    assert_int_equal(last[7], 0); /* nothing of others behind the last token */
    state_close(&f);
}

static void edited_history_takes_what_is_common(void **state) {
    (void)state;
    struct answer a;
    int32_t t[512];
    int n = 300;
    fake_prompt(t, n, 0);
    turn(&a, 5, t, &n, 5);
    t[203] = '!';
    n = 300;
    int before = fake.n_tok;
    turn(&a, 5, t, &n, 5);
    assert_int_equal(a.cached, 203);
    assert_int_equal(fake.n_loaded, 13); /* and no block behind it is read */
    assert_int_equal(fake.n_tok - before, 97 + 4);
    assert_int_equal(files(), 2); /* two branches */
    t[203] = 'A' + (203 * 7 + 203 / 26) % 26;
    before = fake.n_tok;
    turn(&a, 5, t, &n, 5);
    assert_int_equal(a.cached, 300); /* the other one is still there, and what followed in it */
}

/* The prompt is all in the file: its last token is computed, nothing else. */
static void same_prompt_computes_one_token(void **state) {
    (void)state;
    struct answer a;
    int32_t t[512];
    int n = 160;
    fake_prompt(t, n, 0);
    turn(&a, 5, t, &n, 5);
    int before = fake.n_tok;
    n = 160;
    turn(&a, 6, t, &n, 1);
    assert_int_equal(a.cached, 159);
    assert_int_equal(fake.n_tok - before, 1);
    assert_int_equal(files(), 1); /* another conversation, the same tokens: nothing to write */
}

static void nothing_is_written_unasked(void **state) {
    (void)state;
    struct answer a;
    int32_t t[512];
    fake_prompt(t, 300, 0);
    struct engine *en = open_engine();
    struct session *s = session_new(en), *short_one = session_new(en);
    ask(&a, s, t, 300, 5);
    session_free(s);
    session_keep(short_one, 7);
    ask(&a, short_one, t + 100, 40, 2);
    s = session_new(en);
    session_keep(s, 8);
    ask(&a, s, t + 7, 200, 2);
    session_keep(s, 0); /* changed his mind */
    session_free(s);
    engine_close(en);
    assert_int_equal(files(), 0);
}

static void type_in(struct session *s, const int32_t *tokens, int n) {
    struct mailbox *m = mailbox_new(event_free);
    const struct request r = {.tokens = tokens,
                              .n_tok = (size_t)n,
                              .priority = PRIORITY_IDLE,
                              .sampling = {.top_p = 1, .typical_p = 1, .repeat_penalty = 1}};
    OK(session_generate(s, &r, 1, m, &e));
    for (bool end = false; !end;) {
        struct event *ev = mailbox_wait(m, -1);
        end = ev->type == EVENT_FINISHED;
        event_free(ev);
    }
    mailbox_unref(m);
}

/* What was typed and not sent is in memory only, whatever a file or the session had before. */
static void drafts_are_not_written(void **state) {
    (void)state;
    struct answer a;
    struct state_file f;
    int32_t t[512], draft[512];
    fake_prompt(t, 200, 0);
    struct engine *en = open_engine();
    struct session *s = session_new(en);
    session_keep(s, 1);
    type_in(s, t, 200);
    assert_int_equal(session_cached_tok(s), 200);
    session_free(s); /* nothing was ever sent */
    engine_close(en);
    assert_int_equal(files(), 0);

    en = open_with((struct engine_params){.kv_rest_ms = 1});
    s = session_new(en);
    session_keep(s, 1);
    ask(&a, s, t, 200, 5);
    memcpy(t + 200, a.tokens, 5 * sizeof *t);
    wait_for_files(1);
    memcpy(draft, t, 205 * sizeof *t);
    fake_prompt(draft + 205, 200, 3);
    type_in(s, draft, 405);
    struct session *fork = session_fork(s);
    session_keep(fork, 2);
    session_free(fork);
    draft[150] = '!'; /* an earlier message is edited */
    type_in(s, draft, 405);
    ask(&a, s, t, 200, 5);
    draft[0] = '!'; /* that one is in the pool already when it is typed here */
    type_in(session_new(en), draft, 405);
    type_in(s, draft, 405);
    session_free(s);
    engine_close(en);
    assert_int_equal(files(), 1);
    OK(state_open(&f, found.path, &e));
    assert_int_equal(f.head.n_tok, 204);
    assert_memory_equal(f.tokens, t, 204 * sizeof *t);
    state_close(&f);

    en = open_engine(); /* what is sent is kept, also where it was typed before */
    s = session_new(en);
    session_keep(s, 1);
    fake_prompt(draft + 205, 100, 3);
    memcpy(draft, t, 205 * sizeof *t);
    type_in(s, draft, 400);
    ask(&a, s, draft, 300, 5);
    assert_int_equal(a.cached, 299);
    session_free(s);
    engine_close(en);
    assert_int_equal(files(), 1);
    OK(state_open(&f, found.path, &e));
    assert_int_equal(f.head.n_tok, 304);
    state_close(&f);
}

static void two_conversations_are_two_files(void **state) {
    (void)state;
    struct answer a;
    int32_t t[512], u[512];
    struct engine *en = open_engine();
    struct session *s[2];
    fake_prompt(t, 200, 0);
    fake_prompt(u, 200, 1);
    for (int i = 0; i < 2; i++) {
        s[i] = session_new(en);
        session_keep(s[i], i + 1);
        ask(&a, s[i], i ? u : t, 200, 5);
    }
    session_free(s[0]);
    engine_close(en); /* frees the other */
    assert_int_equal(files(), 2);
    en = open_engine();
    for (int i = 0; i < 2; i++) {
        s[i] = session_new(en);
        ask(&a, s[i], i ? u : t, 200, 5);
        assert_int_equal(a.cached, 199);
    }
    engine_close(en);
}

/* What a killed program had: it rests, and is written. */
static void state_is_written_when_a_conversation_rests(void **state) {
    (void)state;
    struct answer a;
    int32_t t[512];
    fake_prompt(t, 300, 0);
    struct engine *en = open_with((struct engine_params){.kv_rest_ms = 1});
    struct session *s = session_new(en);
    session_keep(s, 1);
    ask(&a, s, t, 200, 10);
    wait_for_files(1);
    memcpy(t + 200, a.tokens, 10 * sizeof *t);
    ask(&a, s, t, 215, 5);                /* too little is new: not before it is left */
    struct engine *other = open_engine(); /* a second program */
    struct session *there = session_new(other);
    ask(&a, there, t, 215, 5);
    assert_int_equal(a.cached, 209);
    engine_close(en);
    assert_int_equal(files(), 1);
    memcpy(t + 215, a.tokens, 5 * sizeof *t);
    struct session *again = session_new(other); /* finds what was written since */
    fake_prompt(t + 220, 20, 9);
    session_free(there);
    ask(&a, again, t, 240, 5);
    assert_true(a.cached >= 219);
    engine_close(other);
}

static void damage(const char *path, off_t at) {
    int fd = open(path, O_RDWR);
    char c;
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &c, 1, at), 1);
    c ^= 1;
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

static void damaged_block_is_computed(void **state) {
    (void)state;
    struct answer a;
    int32_t t[512];
    int n = 300;
    fake_prompt(t, n, 0);
    turn(&a, 5, t, &n, 5);
    assert_int_equal(files(), 1);
    damage(found.path, 8192 + 10 * FAKE_BLOCK_BYTES + 3); /* the head has one or two pages */
    n = 300;
    struct engine *en = open_engine();
    ask(&a, session_new(en), t, n, 5);
    assert_true(a.cached < 300 && a.cached % 16 == 0); /* the good blocks before it are used */
    assert_true(a.cached >= 96);
    engine_close(en);
    assert_int_equal(files(), 0);
}

/* A block in which the session has tokens already goes by way of a copy: it may be damaged. */
static void blocks_are_read_in_their_places(void **state) {
    (void)state;
    struct answer a;
    int32_t t[512];
    int n = 300;
    fake_prompt(t, n, 0);
    turn(&a, 5, t, &n, 5);
    struct engine *en = open_engine();
    struct session *s = session_new(en);
    ask(&a, s, t, 300, 5);
    assert_int_equal(a.cached, 299);
    assert_int_equal(fake.n_loaded, 0);
    engine_close(en);
    en = open_engine();
    s = session_new(en);
    ask(&a, s, t, 20, 1);
    ask(&a, s, t, 300, 5);
    assert_int_equal(a.cached, 299);
    assert_int_equal(fake.n_loaded, 1);
    engine_close(en);
}

static void damaged_head_is_no_state(void **state) {
    (void)state;
    struct answer a;
    int32_t t[512];
    static const off_t places[] = {0, 6, 9, 17, 25, 33, 41, 49, 56, 60, 64, 68, 75, 300, 1500};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        int n = 300;
        fake_prompt(t, n, (int)i);
        turn(&a, 5, t, &n, 5);
        assert_int_equal(files(), 1);
        damage(found.path, places[i]);
        n = 300;
        struct engine *en = open_engine();
        ask(&a, session_new(en), t, n, 5);
        assert_int_equal(a.cached, 0);
        engine_close(en);
        assert_int_equal(files(), 0);
    }
}

/* Whose it was nobody can say: it must not outlive the conversation. */
static void damaged_head_goes_with_any_conversation(void **state) {
    (void)state;
    struct answer a;
    int32_t t[512];
    int n = 300;
    fake_prompt(t, n, 0);
    turn(&a, 5, t, &n, 5);
    assert_int_equal(files(), 1);
    states_remove_owner(dir, 6);
    assert_int_equal(files(), 1);
    damage(found.path, 33);
    states_remove_owner(dir, 6);
    assert_int_equal(files(), 0);
}

/* Another version of the program may still use it. */
static void state_of_another_version_stays(void **state) {
    (void)state;
    struct answer a;
    int32_t t[512];
    int n = 300;
    fake_prompt(t, n, 0);
    turn(&a, 5, t, &n, 5);
    assert_int_equal(files(), 1);
    damage(found.path, 7);
    struct engine *en = open_engine();
    ask(&a, session_new(en), t, 300, 5);
    assert_int_equal(a.cached, 0);
    engine_close(en);
    assert_int_equal(files(), 1);
}

static void folder_that_is_gone_is_made_again(void **state) {
    (void)state;
    struct answer a;
    int32_t t[512];
    fake_prompt(t, 300, 0);
    struct engine *en = open_engine();
    struct session *s = session_new(en);
    session_keep(s, 1);
    ask(&a, s, t, 300, 5);
    assert_int_equal(rmdir(dir), 0);
    engine_close(en);
    assert_int_equal(files(), 1);
}

static void file_that_is_cut_is_no_state(void **state) {
    (void)state;
    struct answer a;
    int32_t t[512];
    int n = 300;
    fake_prompt(t, n, 0);
    turn(&a, 5, t, &n, 5);
    assert_int_equal(files(), 1);
    struct state_file f;
    OK(state_open(&f, found.path, &e));
    off_t half = (off_t)(f.head.head_bytes + 5 * f.head.block_bytes + 100);
    struct engine *en = open_engine();
    struct session *s = session_new(en);
    ask(&a, s, t + 20, 30, 1); /* the index is read; then the file is cut */
    assert_int_equal(truncate(found.path, half), 0);
    char block[FAKE_BLOCK_BYTES];
    OK(state_read_block(&f, 4, block, &e));
    assert_int_equal(state_read_block(&f, 5, block, &e), ST_FORMAT);
    state_close(&f);
    ask(&a, s, t, 300, 5);
    assert_true(a.cached <= 80);
    engine_close(en);
}

static void other_numbers_are_not_taken(void **state) {
    (void)state;
    struct answer a;
    struct state_writer w;
    int32_t t[512];
    char block[FAKE_BLOCK_BYTES] = {0};
    fake_prompt(t, 300, 0);
    for (int i = 0; i < 3; i++) { /* another model, another form, another size */
        struct state_head h = {.model = 0xFA4E + (i == 0),
                               .form = 77,
                               .owner = 1,
                               .n_tok = 80,
                               .block_bytes = FAKE_BLOCK_BYTES - (uint64_t)(i == 2)};
        char *name = states_name(0xFA4E, t, (size_t)(80 + i), 77);
        char *path = path_join(dir, name);
        OK(state_write_begin(&w, path, &h, t, "x", &e));
        for (int b = 0; b < 5; b++)
            OK(state_write_block(&w, block, &e));
        OK(state_write_end(&w, &e));
        free(path);
        free(name);
    }
    struct engine *en = open_engine();
    ask(&a, session_new(en), t, 300, 5);
    assert_int_equal(a.cached, 0);
    engine_close(en);
    assert_int_equal(files(), 3);
}

static void least_recently_used_make_room(void **state) {
    (void)state;
    struct answer a;
    int32_t t[3][512];
    uint64_t one = 0;
    for (int i = 0; i < 3; i++) {
        struct engine *en =
            open_with((struct engine_params){.kv_dir_bytes = i ? 2 * one : PLENTY});
        struct session *s = session_new(en);
        session_keep(s, i + 1);
        fake_prompt(t[i], 200, i);
        if (i == 2) /* the first one is used again: the second is the oldest */
            ask(&a, session_new(en), t[0], 200, 1);
        ask(&a, s, t[i], 200, 2);
        engine_close(en);
        files();
        one = i ? one : found.bytes;
        assert_true(found.bytes <= 2 * one);
    }
    assert_int_equal(files(), 2);
    struct engine *en = open_engine();
    static const int cached[] = {199, 0, 199};
    for (int i = 0; i < 3; i++) {
        ask(&a, session_new(en), t[i], 200, 1);
        assert_int_equal(a.cached, cached[i]);
    }
    engine_close(en);
    en = open_with((struct engine_params){.kv_dir_bytes = one / 2});
    struct session *s = session_new(en);
    session_keep(s, 9);
    ask(&a, s, t[1], 200, 2); /* larger than all: it is left out, the others stay */
    engine_close(en);
    assert_int_equal(files(), 2);
}

static void forgotten_conversation_leaves_no_file(void **state) {
    (void)state;
    struct answer a;
    int32_t t[512], u[512];
    int n = 200, m = 200;
    fake_prompt(t, n, 0);
    fake_prompt(u, m, 1);
    turn(&a, 1, t, &n, 5);
    turn(&a, 2, u, &m, 5);
    t[100] = '!';
    turn(&a, 1, t, &n, 5);
    assert_int_equal(files(), 3);
    struct engine *en = open_engine();
    struct session *s = session_new(en);
    session_keep(s, 1);
    ask(&a, s, t, 200, 5);
    session_free(s); /* waits to be written, perhaps */
    engine_forget(en, 1);
    engine_close(en);
    assert_int_equal(files(), 1);
    struct state_file f;
    OK(state_open(&f, found.path, &e));
    assert_int_equal(f.head.owner, 2);
    state_close(&f);
}

/* Each conversation is left while the next one needs its blocks: what waits to be written gives
 * way, and no answer suffers. */
static void full_pool_is_for_answers_first(void **state) {
    (void)state;
    struct answer a;
    int32_t t[512];
    struct engine *en = open_with((struct engine_params){.kv_bytes = 34 * FAKE_BLOCK_BYTES});
    for (int i = 0; i < 40; i++) {
        struct session *s = session_new(en);
        session_keep(s, i + 1);
        fake_prompt(t, 480, i);
        ask(&a, s, t, 480, 20);
        session_free(s);
    }
    engine_close(en);
    assert_true(files() >= 1); /* the last one at least */
}

/* What moved up when others were left out is not what a prompt gives: it is never written, and
 * what is written is not read behind it. */
static void streams_are_not_written(void **state) {
    (void)state;
    struct engine *en = open_engine();
    struct session *s = session_new(en);
    struct mailbox *m = mailbox_new(event_free);
    int32_t t[1200];
    struct request r = {
        .tokens = t,
        .n_tok = 100,
        .max_tok = 1000,
        .stream = true,
        .sampling = {.top_p = 1, .typical_p = 1, .repeat_penalty = 1, .seed = 1}};
    fake_prompt(t, 100, 0);
    session_keep(s, 5);
    for (int round = 0; round < 2; round++) {
        OK(session_generate(s, &r, 1, m, &e));
        for (bool end = false; !end;) {
            struct event *ev = mailbox_wait(m, -1);
            if (ev->type == EVENT_TOKEN && ev->token >= 0)
                t[r.n_tok++] = ev->token;
            end = ev->type == EVENT_FINISHED;
            assert_int_not_equal(ev->type, EVENT_ERROR);
            if (end && round == 1)
                assert_int_equal(ev->cached_tok, ev->prompt_tok - 1);
            event_free(ev);
        }
        assert_true(fake.n_moved > 0);
        r.max_tok = 1;
    }
    session_free(s);
    engine_close(en);
    mailbox_unref(m);
    assert_int_equal(files(), 0);
}

static void kinds_of_kv_do_not_meet(void **state) {
    (void)state;
    struct answer a;
    int32_t t[512];
    int n = 150;
    fake.long_from = 200;
    fake_prompt(t, 400, 0);
    turn(&a, 5, t, &n, 5);
    n = 300;
    fake_prompt(t, 400, 0);
    turn(&a, 5, t, &n, 5);
    assert_int_equal(a.cached, 0);
    assert_int_equal(files(), 2);
    n = 300;
    turn(&a, 5, t, &n, 1);
    assert_int_equal(a.cached, 299);
    n = 150;
    turn(&a, 5, t, &n, 1);
    assert_int_equal(a.cached, 149);
}

static void full_disk_leaves_no_file(void **state) {
    (void)state;
    struct answer a;
    int32_t t[512];
    int n = 300;
    struct rlimit old, little;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    little = old;
    little.rlim_cur = 10000;
    fake_prompt(t, n, 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
    turn(&a, 5, t, &n, 5);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(files(), 0); /* nor half of one: teardown */
}

static void leavings_of_the_dead_are_removed(void **state) {
    (void)state;
    char *path = xasprintf("%s/0000000000000001-0000000000000002.kv.tmp.%d", dir, 0x7ffffff0);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    close(fd);
    engine_close(open_engine());
    assert_int_equal(access(path, F_OK), -1);
    free(path);
}

/* ---- the keeper alone ---- */

static void no_copy(void *user, int dst, int src, int n_tok) {
    graph_copy_block(user, dst, src, n_tok);
}

static void nobody(void *user) {
    (void)user;
}

/* A large state comes in pieces, between which others have their steps. */
/* A keeper without an engine. */
static struct keep *keeper(struct graph *g, struct kv_pool *pool, uint64_t model,
                           uint64_t form) {
    struct keep *k = keep_open(&(struct keep_params){.dir = dir,
                                                     .max_bytes = PLENTY,
                                                     .model = model,
                                                     .form = form,
                                                     .name = "fake",
                                                     .block_bytes = FAKE_BLOCK_BYTES,
                                                     .graph = g,
                                                     .pool = pool,
                                                     .wake = nobody});
    assert_non_null(k);
    return k;
}

/* A keeper with a pool of its own that reads what a conversation of 300 tokens left. */
struct reader {
    int32_t t[512];
    struct graph *g;
    struct kv_pool *pool;
    struct keep *k;
    struct kv_seq kv;
};

static void reader_open(struct reader *r, int n_block) {
    struct answer a;
    struct state_file f;
    int n = 300;
    *r = (struct reader){0};
    fake_prompt(r->t, n, 0);
    turn(&a, 5, r->t, &n, 5);
    assert_int_equal(files(), 1);
    OK(state_open(&f, found.path, &e));
    OK(graph_open(NULL, &(struct graph_params){.n_block = n_block}, &r->g, &e));
    r->pool = kv_pool_new(n_block, no_copy, r->g);
    r->k = keeper(r->g, r->pool, f.head.model, f.head.form);
    state_close(&f);
}

static void reader_close(struct reader *r) {
    kv_seq_release(r->pool, &r->kv);
    keep_close(r->k);
    kv_pool_free(r->pool);
    graph_close(r->g);
}

static void state_is_read_in_pieces(void **state) {
    (void)state;
    struct reader r;
    int pieces = 1;
    reader_open(&r, 64);
    for (; keep_load(r.k, &r.kv, r.t, 304, 3 * FAKE_BLOCK_BYTES); pieces++) {
        assert_int_equal(r.kv.n_tok, pieces * 3 * 16);
        if (pieces == 2) /* somebody took the blocks meanwhile: it begins again where it is */
            kv_match(r.pool, &r.kv, r.t, 304);
    }
    assert_int_equal(pieces, 7);
    assert_int_equal(r.kv.n_tok, 303);
    assert_memory_equal(r.kv.tokens, r.t, 303 * sizeof *r.t);
    reader_close(&r);
}

/* Not the pool's fault that it is small: what it has room for is read. */
static void state_is_read_as_far_as_there_is_room(void **state) {
    (void)state;
    struct reader r;
    reader_open(&r, 10);
    assert_false(keep_load(r.k, &r.kv, r.t, 304, 64 * FAKE_BLOCK_BYTES));
    assert_int_equal(r.kv.n_tok, 160);
    reader_close(&r);
}

/* Nobody hands blocks to the keeper's thread here: all that waits keeps its own until the pool
 * wants them, and then nothing of it is written. */
static void blocks_that_wait_come_back(void **state) {
    (void)state;
    struct graph *g;
    int32_t t[512];
    struct kv_seq kv = {0};
    OK(graph_open(NULL, &(struct graph_params){.n_block = 64}, &g, &e));
    struct kv_pool *pool = kv_pool_new(64, no_copy, g);
    struct keep *k = keeper(g, pool, 1, 2);
    for (int i = 0; i < 2; i++) {
        fake_prompt(t, 480, i);
        assert_true(kv_reserve(pool, &kv, 480));
        kv_commit(pool, &kv, t, 480);
        keep_save(k, &kv, kv.n_tok, i + 1);
        kv_seq_clear(pool, &kv);
    }
    assert_int_equal(kv_available(pool), 4);
    assert_true(keep_give_up(k));
    assert_int_equal(kv_available(pool), 34);
    assert_true(keep_give_up(k));
    assert_int_equal(kv_available(pool), 64);
    assert_false(keep_give_up(k));
    keep_close(k);
    assert_int_equal(files(), 0);
    kv_seq_release(pool, &kv);
    kv_pool_free(pool);
    graph_close(g);
}

static void state_list_says_what_there_is(void **state) {
    (void)state;
    struct answer a;
    struct saved_state_list l;
    int32_t t[512];
    int n = 300;
    char *home = xstrdup(dir), *real;
    setenv("LLMCHAT_HOME", dir, 1);
    OK(states_dir(&real, &e));
    snprintf(dir, sizeof dir, "%s", real);
    fake_prompt(t, n, 0);
    turn(&a, 5, t, &n, 5);
    t[0] = '!';
    turn(&a, 6, t, &n, 5);
    OK(states_list(&l, &e));
    assert_int_equal(l.n, 2);
    assert_int_equal(l.v[0].conversation, 6);
    assert_int_equal(l.v[0].n_tok, 309);
    assert_int_equal(l.v[1].conversation, 5);
    assert_string_equal(l.v[0].model, "fake");
    files();
    assert_int_equal(l.v[0].bytes + l.v[1].bytes, found.bytes);
    struct rlimit files_open, none;
    struct saved_state_list unread;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files_open), 0);
    none = files_open;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    enum status st = states_list(&unread, &e);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files_open), 0);
    assert_int_equal(st, ST_IO); /* a folder that can't be read is not an empty one */
    OK(states_remove(l.v[0].path, &e));
    OK(states_remove(l.v[0].path, &e)); /* another program was faster */
    saved_state_list_release(&l);
    states_forget(5);
    assert_int_equal(files(), 0);
    rmdir(dir);
    *strrchr(dir, '/') = 0;
    rmdir(dir);
    unsetenv("LLMCHAT_HOME");
    snprintf(dir, sizeof dir, "%s", home);
    free(real);
    free(home);
}

static void names_of_states_are_told(void **state) {
    (void)state;
    uint64_t model = 0;
    assert_true(states_parse_name("00000000000000ff-0123456789abcdef.kv", &model));
    assert_int_equal(model, 255);
    static const char *const others[] = {"00000000000000ff-0123456789abcdef.kv.tmp.1",
                                         "00000000000000fg-0123456789abcdef.kv",
                                         "00000000000000ff_0123456789abcdef.kv",
                                         "00000000000000ff-0123456789abcdeF.kv",
                                         "00000000000000ff-0123456789abcdef.kw",
                                         "",
                                         "x.kv"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(states_parse_name(others[i], &model));
}

/* What comes back from the host's memory is in no file: it is saved like what was computed. */
static void what_was_swapped_is_written(void **state) {
    (void)state;
    struct engine *en = open_with((struct engine_params){.kv_bytes = 34 * FAKE_BLOCK_BYTES,
                                                         .swap_bytes = 100 * FAKE_BLOCK_BYTES,
                                                         .kv_rest_ms = 1});
    struct session *s = session_new(en), *other = session_new(en);
    int32_t t[512], u[400];
    struct answer a;
    fake_prompt(t, 512, 1);
    fake_prompt(u, 400, 2);
    ask(&a, s, t, 300, 1);
    ask(&a, other, u, 400, 1);
    session_keep(s, 7);
    ask(&a, s, t, 310, 1);
    assert_int_equal(a.cached, 288);
    assert_true(fake.n_in > 0);
    wait_for_files(1);
    session_free(s);
    session_free(other);
    engine_close(en);
}

int main(void) {
#define T(f)      cmocka_unit_test_setup_teardown(f, setup, teardown)
#define T_HOST(f) cmocka_unit_test_setup_teardown(f, setup_host, teardown)
    const struct CMUnitTest tests[] = {
        T(after_a_restart_only_new_tokens_are_computed),
        T(states_of_another_type_of_cache_are_not_used),
        T(state_is_whole_to_the_last_token),
        T(edited_history_takes_what_is_common),
        T(same_prompt_computes_one_token),
        T(nothing_is_written_unasked),
        T(drafts_are_not_written),
        T(two_conversations_are_two_files),
        T(state_is_written_when_a_conversation_rests),
        T(what_was_swapped_is_written),
        T(damaged_block_is_computed),
        T_HOST(blocks_are_read_in_their_places),
        T_HOST(damaged_block_is_computed),
        T_HOST(file_that_is_cut_is_no_state),
        T(damaged_head_is_no_state),
        T(damaged_head_goes_with_any_conversation),
        T(state_of_another_version_stays),
        T(folder_that_is_gone_is_made_again),
        T(file_that_is_cut_is_no_state),
        T(other_numbers_are_not_taken),
        T(least_recently_used_make_room),
        T(forgotten_conversation_leaves_no_file),
        T(full_pool_is_for_answers_first),
        T(streams_are_not_written),
        T(kinds_of_kv_do_not_meet),
        T(full_disk_leaves_no_file),
        T(leavings_of_the_dead_are_removed),
        T(state_is_read_in_pieces),
        T(state_is_read_as_far_as_there_is_room),
        T_HOST(state_is_read_as_far_as_there_is_room),
        T(blocks_that_wait_come_back),
        T(state_list_says_what_there_is),
        T(names_of_states_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
