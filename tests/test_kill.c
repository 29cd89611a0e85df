/*
 * test_kill.c - kill -9 while a reply streams, 200 times at random moments.
 *
 * A child sends a message and writes down in a pipe what it was promised: the message is stored
 * (S), the reply has shown so much text and that was so long ago (T). Then it is killed. What
 * must be there: every message of a user that was acknowledged, every reply up to what was
 * shown 250 ms before the death, a sound database, the reply marked interrupted.
 *
 * Half of the rounds write through the store alone, where every save that returned must be
 * there to the byte; the other half through chat/ with an engine that plays a script. The
 * moments come from a seed that is printed on failure.
 */
#include "base/clock.h"
#include "chat/chat.h"
#include "fake_engine.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "ok.h"

enum { STORE_ROUNDS = 140, CHAT_ROUNDS = 60, PROMISE_US = 250000 };

static char dir[64], path[128];

/* What the child promises. */
struct promise {
    char kind; /* 'S': the message msg is stored; 'T': len bytes of the reply msg were shown or
                  saved */
    int64_t conv, msg, len, when_us;
};

static int setup(void **state) {
    (void)state;
    strcpy(dir, "/tmp/llmchat-test-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    setenv("LLMCHAT_HOME", dir, 1);
    snprintf(path, sizeof path, "%s/chats.db", dir);
    struct store *s;
    OK(store_open(path, &s, &e));
    store_close(s);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

/* The n-th byte of every reply. */
static char letter(int64_t n) {
    return (char)(n % 6 == 5 ? ' ' : 'a' + n % 26);
}

static void promise(int fd, char kind, int64_t conv, int64_t msg, int64_t len) {
    struct promise p = {kind, conv, msg, len, clock_us()};
    if (write(fd, &p, sizeof p) != sizeof p)
        _exit(3);
}

/* -- the children -- */

static void stream_through_store(int fd) {
    struct store *s;
    int64_t conv, user, reply;
    static char text[100000];
    if (store_open(path, &s, NULL) != ST_OK ||
        store_conv_new(s, "t", "m", &conv, NULL) != ST_OK)
        _exit(1);
    for (;;) {
        struct message m = {.role = ROLE_USER, .text = (char[]){"a question"}};
        if (store_msg_add(s, conv, &m, &user, NULL) != ST_OK)
            _exit(1);
        promise(fd, 'S', conv, user, 0);
        struct message r = {.parent = user, .role = ROLE_ASSISTANT, .state = MSG_STREAMING};
        if (store_msg_add(s, conv, &r, &reply, NULL) != ST_OK)
            _exit(1);
        size_t len = 0;
        for (int save = 0; save < 20; save++) {
            for (int i = 0; i < 400; i++, len++)
                text[len] = letter((int64_t)len);
            if (store_msg_text(s, reply, text, len, NULL) != ST_OK)
                _exit(1);
            promise(fd, 'T', conv, reply, (int64_t)len);
        }
        text[len] = '\0';
        struct message end = {.text = text, .state = MSG_COMPLETE};
        if (store_msg_finish(s, reply, &end, NULL) != ST_OK)
            _exit(1);
    }
}

static void stream_through_chat(int fd) {
    static char script[4097];
    struct store *s;
    struct config config;
    for (int i = 0; i < 4096; i++)
        script[i] = letter(i);
    fake_reset();
    fake.ctx_tok = 100000;
    fake.reply = script;
    fake.token_us = 300;
    config_init(&config);
    if (store_open(path, &s, NULL) != ST_OK)
        _exit(1);
    struct chat *c = chat_new(s, &config);
    chat_load_model(c, "smol", NULL);
    for (;;) {
        struct chat_event ev;
        struct pollfd p = {.fd = chat_fd(c), .events = POLLIN};
        poll(&p, 1, 250);
        while (chat_poll(c, &ev)) {
            const struct message_list *l = chat_messages(c);
            if (ev.type == EV_TEXT)
                promise(fd, 'T', chat_id(c), l->v[l->n - 1].id,
                        (int64_t)strlen(l->v[l->n - 1].text));
            chat_event_release(&ev);
        }
        if (chat_model_state(c) != MODEL_READY || chat_busy(c))
            continue;
        struct err err;
        if (chat_send(c, "a question", &err) != ST_OK)
            _exit(1);
        const struct message_list *l = chat_messages(c);
        promise(fd, 'S', chat_id(c), l->v[l->n - 2].id, 0);
    }
}

/* -- the judge -- */

static void check_reply(struct store *s, int64_t id, int64_t promised, int *interrupted) {
    struct message m;
    OK(store_msg_get(s, id, &m, &e));
    int64_t len = (int64_t)strlen(m.text);
    if (len < promised)
        fail_msg("reply %lld has %lld bytes, %lld were promised", (long long)id, (long long)len,
                 (long long)promised);
    for (int64_t i = 0; i < len; i++)
        assert_int_equal(m.text[i], letter(i));
    assert_true(m.state == MSG_COMPLETE || m.state == MSG_INTERRUPTED);
    *interrupted += m.state == MSG_INTERRUPTED;
    message_release(&m);
}

static void check_round(int fd, int64_t killed_us, int64_t grace_us, int *interrupted) {
    struct store *s;
    struct promise p;
    struct message m;
    int64_t reply = 0, promised = 0;
    OK(store_open(path, &s, &e));
    OK(store_recover(s, NULL, &e));
    while (read(fd, &p, sizeof p) == sizeof p) {
        if (p.kind == 'S') {
            OK(store_msg_get(s, p.msg, &m, &e));
            assert_string_equal(m.text, "a question");
            assert_int_equal(m.role, ROLE_USER);
            message_release(&m);
            continue;
        }
        if (p.msg != reply && reply)
            check_reply(s, reply, promised, interrupted);
        promised = p.msg == reply ? promised : 0;
        reply = p.msg;
        if (p.when_us <= killed_us - grace_us)
            promised = p.len;
    }
    if (reply)
        check_reply(s, reply, promised, interrupted);
    struct buf found = {0};
    OK(store_check(s, &found, &e));
    assert_string_equal(buf_str(&found), "ok");
    buf_release(&found);
    store_close(s);
}

static void kill_rounds(int rounds, void (*child)(int), int64_t grace_us, int max_ms) {
    int interrupted = 0;
    unsigned seed = 20260101u;
    for (int i = 0; i < rounds; i++) {
        int fd[2];
        assert_int_equal(pipe(fd), 0);
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            close(fd[0]);
            child(fd[1]);
            _exit(0);
        }
        close(fd[1]);
        /* Read while it writes: a full pipe would hold it up. */
        int64_t until = clock_us() + 1000LL * (rand_r(&seed) % (unsigned)max_ms);
        FILE *kept = tmpfile();
        assert_non_null(kept);
        for (int64_t left; (left = until - clock_us()) > 0;) {
            struct pollfd p = {.fd = fd[0], .events = POLLIN};
            struct promise got;
            if (poll(&p, 1, (int)(left / 1000 + 1)) == 1) {
                if (read(fd[0], &got, sizeof got) != sizeof got)
                    fail_msg("round %d: the child ended by itself", i);
                fwrite(&got, sizeof got, 1, kept);
            }
        }
        int64_t killed = clock_us();
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        struct promise got;
        while (read(fd[0], &got, sizeof got) == sizeof got)
            fwrite(&got, sizeof got, 1, kept);
        close(fd[0]);
        fflush(kept);
        rewind(kept);
        lseek(fileno(kept), 0, SEEK_SET);
        check_round(fileno(kept), killed, grace_us, &interrupted);
        fclose(kept);
    }
    assert_true(interrupted > 0); /* else nothing was killed in the middle */
}

static void every_acknowledged_save_survives(void **state) {
    (void)state;
    /* A save that returned is there at once: no grace; promises made before the kill count. */
    kill_rounds(STORE_ROUNDS, stream_through_store, 0, 100);
}

static void chat_loses_at_most_250_ms(void **state) {
    (void)state;
    kill_rounds(CHAT_ROUNDS, stream_through_chat, PROMISE_US, 500);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_acknowledged_save_survives, setup, teardown),
        cmocka_unit_test_setup_teardown(chat_loses_at_most_250_ms, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
