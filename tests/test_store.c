/*
 * test_store.c - the store: what is promised about conversations, and about bad databases.
 */
#include "base/clock.h"
#include "base/path.h"
#include "store/db.h"
#include "store/words.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "ok.h"

static char dir[64], path[128];

static int setup(void **state) {
    (void)state;
    strcpy(dir, "/tmp/llmchat-test-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/chats.db", dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

static struct store *open_store(void) {
    struct store *s;
    OK(store_open(path, &s, &e));
    return s;
}

static int64_t new_conv(struct store *s, const char *title) {
    int64_t id;
    OK(store_conv_new(s, title, "m", &id, &e));
    return id;
}

static int64_t add(struct store *s, int64_t conv, int64_t parent, enum role role,
                   const char *text) {
    int64_t id;
    char copy[512];
    snprintf(copy, sizeof copy, "%s", text);
    OK(store_msg_add(s, conv, &(struct message){.parent = parent, .role = role, .text = copy},
                     &id, &e));
    return id;
}

static int64_t add_streaming(struct store *s, int64_t conv, int64_t parent) {
    int64_t id;
    OK(store_msg_add(
        s, conv,
        &(struct message){.parent = parent, .role = ROLE_ASSISTANT, .state = MSG_STREAMING},
        &id, &e));
    return id;
}

static int hits(struct store *s, const char *words) {
    struct search_list l;
    OK(store_search(s, words, 0, &l, &e));
    int n = (int)l.n;
    search_list_release(&l);
    return n;
}

static void assert_sound(struct store *s) {
    struct buf b = {0};
    OK(store_check(s, &b, &e));
    assert_string_equal(buf_str(&b), "ok");
    buf_release(&b);
}

/* -- conversations and messages -- */

static void new_file_is_private_and_marked(void **state) {
    (void)state;
    struct store *s = open_store();
    new_conv(s, "x");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    store_close(s);
    unsigned char head[100];
    int fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, head, 100), 100);
    close(fd);
    assert_memory_equal(head + 68, "llmc", 4);
    assert_int_equal(head[63], n_schema_steps);
}

static void conversation_keeps_every_field(void **state) {
    (void)state;
    struct store *s = open_store();
    int64_t id = new_conv(s, "Tides");
    OK(store_conv_set_title(s, id, "Tides ☾", &e));
    OK(store_conv_set_model(s, id, "smol", &e));
    OK(store_conv_set_system(s, id, "be kind", &e));
    OK(store_conv_set_settings(s, id, "{\"top_k\":1}", &e));
    OK(store_conv_set_draft(s, id, "half a sent", &e));
    int64_t m = add(s, id, 0, ROLE_USER, "hi");
    OK(store_conv_set_keep_from(s, id, m, &e));
    store_close(s);
    s = open_store();
    struct conversation c;
    OK(store_conv_get(s, id, &c, &e));
    assert_string_equal(c.title, "Tides ☾");
    assert_string_equal(c.model, "smol");
    assert_string_equal(c.system, "be kind");
    assert_string_equal(c.settings_json, "{\"top_k\":1}");
    assert_string_equal(c.draft, "half a sent");
    assert_int_equal(c.leaf, m);
    assert_int_equal(c.keep_from, m);
    assert_int_equal(c.n_messages, 1);
    assert_false(c.deleted);
    assert_true(c.created_ms > 0 && c.updated_ms >= c.created_ms);
    conversation_release(&c);
    store_close(s);
}

static void message_keeps_every_field(void **state) {
    (void)state;
    struct store *s = open_store();
    int64_t id = new_conv(s, ""), r;
    int64_t u = add(s, id, 0, ROLE_USER, "q\r\n\ttext \xff raw");
    struct message in = {.parent = u,
                         .role = ROLE_ASSISTANT,
                         .state = MSG_STREAMING,
                         .model = (char[]){"smol"},
                         .settings_json = (char[]){"{}"},
                         .seed = 7};
    OK(store_msg_add(s, id, &in, &r, &e));
    OK(store_msg_text(s, r, "par", 3, &e));
    struct message end = {.text = (char[]){"part"},
                          .state = MSG_STOPPED,
                          .finish = (char[]){"cancel"},
                          .seed = INT64_MAX,
                          .prompt_tok = 1,
                          .cached_tok = 2,
                          .completion_tok = 3,
                          .prompt_us = 4,
                          .decode_us = 5,
                          .ttft_us = 6};
    OK(store_msg_finish(s, r, &end, &e));
    struct message m;
    OK(store_msg_get(s, r, &m, &e));
    assert_string_equal(m.text, "part");
    assert_int_equal(m.state, MSG_STOPPED);
    assert_string_equal(m.finish, "cancel");
    assert_string_equal(m.model, "smol");
    assert_string_equal(m.settings_json, "{}");
    assert_true(m.seed == INT64_MAX);
    assert_int_equal(m.parent, u);
    assert_int_equal(m.prompt_tok + 10 * m.cached_tok + 100 * m.completion_tok, 321);
    assert_int_equal(m.prompt_us + 10 * m.decode_us + 100 * m.ttft_us, 654);
    message_release(&m);
    OK(store_msg_get(s, u, &m, &e));
    assert_string_equal(m.text, "q\r\n\ttext \xff raw");
    message_release(&m);
    store_close(s);
}

static void branches_share_ancestors(void **state) {
    (void)state;
    struct store *s = open_store();
    int64_t c = new_conv(s, ""), other = new_conv(s, "");
    add(s, other, 0, ROLE_USER, "another root");
    int64_t u1 = add(s, c, 0, ROLE_USER, "u1"), a1 = add(s, c, u1, ROLE_ASSISTANT, "a1");
    int64_t a2 = add(s, c, u1, ROLE_ASSISTANT, "a2"), u2 = add(s, c, a1, ROLE_USER, "u2");
    int64_t root2 = add(s, c, 0, ROLE_USER, "u1 edited");
    struct message_list l;
    OK(store_msg_path(s, c, u2, &l, &e));
    assert_int_equal(l.n, 3);
    assert_int_equal(l.v[0].id, u1);
    assert_int_equal(l.v[1].id, a1);
    assert_int_equal(l.v[2].id, u2);
    assert_int_equal(l.v[0].sibling, 1);
    assert_int_equal(l.v[0].n_sibling,
                     2); /* the root of the other conversation doesn't count */
    assert_int_equal(l.v[1].sibling, 1);
    assert_int_equal(l.v[1].n_sibling, 2);
    assert_int_equal(l.v[2].n_sibling, 1);
    message_list_release(&l);
    OK(store_msg_path(s, c, 0, &l, &e)); /* the active leaf: the last one added */
    assert_int_equal(l.n, 1);
    assert_int_equal(l.v[0].id, root2);
    assert_int_equal(l.v[0].sibling, 2);
    message_list_release(&l);
    OK(store_msg_all(s, c, &l, &e));
    assert_int_equal(l.n, 5);
    assert_int_equal(l.v[2].id, a2);
    assert_int_equal(l.v[2].sibling, 2);
    assert_int_equal(l.v[2].n_sibling, 2);
    message_list_release(&l);
    int64_t to;
    OK(store_msg_sibling(s, a1, 1, &to, &e));
    assert_int_equal(to, a2);
    OK(store_msg_sibling(s, a2, 1, &to, &e));
    assert_int_equal(to, 0);
    OK(store_msg_sibling(s, root2, -1, &to, &e));
    assert_int_equal(to, u1);
    OK(store_msg_newest_leaf(s, u1, &to, &e));
    assert_int_equal(to, u2);
    store_close(s);
}

static void foreign_parents_and_leaves_are_refused(void **state) {
    (void)state;
    struct store *s = open_store();
    int64_t a = new_conv(s, ""), b = new_conv(s, ""), id;
    int64_t m = add(s, a, 0, ROLE_USER, "x");
    assert_int_equal(store_msg_add(s, b, &(struct message){.parent = m}, &id, &e),
                     ST_NOT_FOUND);
    assert_int_equal(store_msg_add(s, 999, &(struct message){.parent = 0}, &id, &e),
                     ST_NOT_FOUND);
    assert_int_equal(store_conv_set_leaf(s, b, m, &e), ST_NOT_FOUND);
    assert_int_equal(store_conv_set_title(s, 999, "x", &e), ST_NOT_FOUND);
    assert_int_equal(store_msg_get(s, 999, &(struct message){0}, &e), ST_NOT_FOUND);
    store_close(s);
}

static void long_conversation_is_read_in_one_go(void **state) {
    (void)state;
    enum { N = 10000 };
    struct store *s = open_store();
    int64_t c = new_conv(s, ""), parent = 0, first = 0;
    OK(store_begin(s, &e));
    for (int i = 0; i < N; i++) {
        parent = add(s, c, parent, i % 2 ? ROLE_ASSISTANT : ROLE_USER, "word");
        first = first ? first : parent;
    }
    OK(store_commit(s, &e));
    struct message_list l;
    /* The work is counted in SQLite's own steps: linear in the length, no time is measured. */
    sqlite3_stmt *q;
    OK(store_msg_path(s, c, 0, &l, &e));
    assert_int_equal(l.n, N);
    assert_int_equal(l.v[N - 1].n_sibling, 1);
    message_list_release(&l);
    for (q = sqlite3_next_stmt(s->db, NULL); q; q = sqlite3_next_stmt(s->db, q))
        if (strstr(sqlite3_sql(q), "up(id, parent)"))
            assert_true(sqlite3_stmt_status(q, SQLITE_STMTSTATUS_VM_STEP, 0) < 200 * N);
    OK(store_msg_all(s, c, &l, &e));
    assert_int_equal(l.n, N);
    message_list_release(&l);
    int64_t leaf;
    OK(store_msg_newest_leaf(s, first, &leaf, &e));
    assert_int_equal(leaf, parent);
    OK(store_conv_delete(s, c, &e));
    OK(store_conv_purge(s, 0, &e)); /* deeper than SQLite cascades */
    assert_int_equal(store_conv_get(s, c, &(struct conversation){0}, &e), ST_NOT_FOUND);
    assert_sound(s);
    store_close(s);
}

static void list_is_newest_first_without_deleted(void **state) {
    (void)state;
    struct store *s = open_store();
    int64_t a = new_conv(s, "a"), b = new_conv(s, "b"), d = new_conv(s, "d"), last;
    OK(store_conv_set_times(s, a, 1, 3000, &e));
    OK(store_conv_set_times(s, b, 1, 2000, &e));
    OK(store_conv_set_times(s, d, 1, 4000, &e));
    OK(store_conv_delete(s, d, &e));
    struct conversation_list l;
    OK(store_conv_list(s, 0, &l, &e));
    assert_int_equal(l.n, 2);
    assert_string_equal(l.v[0].title, "a");
    conversation_list_release(&l);
    OK(store_conv_list(s, 1, &l, &e));
    assert_int_equal(l.n, 1);
    conversation_list_release(&l);
    OK(store_conv_undelete(s, d, &e));
    OK(store_conv_last(s, &last, &e));
    assert_int_equal(last, d);
    OK(store_conv_purge(s, 0, &e)); /* nothing is deleted now */
    OK(store_conv_list(s, 0, &l, &e));
    assert_int_equal(l.n, 3);
    conversation_list_release(&l);
    store_close(s);
}

static void settings_of_the_program_are_kept(void **state) {
    (void)state;
    struct store *s = open_store();
    char *v;
    OK(store_setting_get(s, "last_model", &v, &e));
    assert_null(v);
    OK(store_setting_set(s, "last_model", "a", &e));
    OK(store_setting_set(s, "last_model", "b", &e));
    OK(store_setting_get(s, "last_model", &v, &e));
    assert_string_equal(v, "b");
    free(v);
    store_close(s);
}

static void rollback_undoes_all_writes_inside(void **state) {
    (void)state;
    struct store *s = open_store();
    OK(store_begin(s, &e));
    int64_t c = new_conv(s, "x");
    add(s, c, 0, ROLE_USER, "findme");
    store_rollback(s);
    struct conversation_list l;
    OK(store_conv_list(s, 0, &l, &e));
    assert_int_equal(l.n, 0);
    assert_int_equal(hits(s, "findme"), 0);
    conversation_list_release(&l);
    store_close(s);
}

/* -- recovery -- */

static void reply_of_a_dead_process_is_interrupted(void **state) {
    (void)state;
    struct store *s = open_store();
    int64_t c = new_conv(s, ""), u = add(s, c, 0, ROLE_USER, "q");
    store_close(s);
    int pipe_fd[2];
    assert_int_equal(pipe(pipe_fd), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int64_t id;
        if (store_open(path, &s, NULL) != ST_OK ||
            store_msg_add(
                s, c,
                &(struct message){.parent = u, .role = ROLE_ASSISTANT, .state = MSG_STREAMING},
                &id, NULL) != ST_OK ||
            store_msg_text(s, id, "zebra half", 10, NULL) != ST_OK ||
            write(pipe_fd[1], &id, sizeof id) != sizeof id)
            _exit(1);
        for (;;)
            pause();
    }
    int64_t id, own;
    int n;
    assert_int_equal(read(pipe_fd[0], &id, sizeof id), sizeof id);
    s = open_store();
    own = add_streaming(s, c, u);
    OK(store_recover(s, &n, &e)); /* both writers live */
    assert_int_equal(n, 0);
    assert_int_equal(hits(s, "zebra"), 0);
    kill(pid, SIGKILL);
    siginfo_t info;
    waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT); /* dead, its entry still there */
    OK(store_recover(s, &n, &e));
    assert_int_equal(n, 1);
    waitpid(pid, NULL, 0);
    struct message m;
    OK(store_msg_get(s, id, &m, &e));
    assert_int_equal(m.state, MSG_INTERRUPTED);
    assert_string_equal(m.text, "zebra half");
    message_release(&m);
    assert_int_equal(hits(s, "zebra"), 1);
    OK(store_msg_get(s, own, &m, &e));
    assert_int_equal(m.state, MSG_STREAMING);
    message_release(&m);
    store_close(s);
    close(pipe_fd[0]);
    close(pipe_fd[1]);
}

static void used_again_pid_and_other_boot_count_as_dead(void **state) {
    (void)state;
    char self[128], other[160];
    writer_self(self);
    assert_true(writer_alive(self));
    snprintf(other, sizeof other, "%s1", self); /* another start time */
    assert_false(writer_alive(other));
    snprintf(other, sizeof other, "x%s", self);
    assert_false(writer_alive(other));
    assert_false(writer_alive(""));
    assert_false(writer_alive("nonsense"));
    assert_false(writer_alive("-/-1/0"));
}

static void wrongly_interrupted_reply_heals_with_its_next_save(void **state) {
    (void)state;
    struct store *s = open_store();
    int64_t c = new_conv(s, ""), r = add_streaming(s, c, add(s, c, 0, ROLE_USER, "q"));
    OK(db_script(s, "UPDATE message SET state = 'interrupted' WHERE state = 'streaming'", &e));
    OK(store_msg_text(s, r, "on", 2, &e));
    struct message m;
    OK(store_msg_get(s, r, &m, &e));
    assert_int_equal(m.state, MSG_STREAMING);
    message_release(&m);
    struct message end = {.text = (char[]){"one"}, .state = MSG_COMPLETE};
    OK(store_msg_finish(s, r, &end, &e));
    OK(store_msg_finish(s, r, &end, &e)); /* twice does no harm */
    assert_int_equal(hits(s, "one"), 1);
    assert_int_equal(store_msg_text(s, r, "x", 1, &e), ST_NOT_FOUND); /* it has ended */
    store_close(s);
}

/* -- two processes -- */

static void two_processes_write_and_see_each_other(void **state) {
    (void)state;
    enum { N = 40 };
    struct store *s = open_store();
    int64_t v0, v1;
    OK(store_version(s, &v0, &e));
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct store *t; /* a handle must not cross a fork: it is left alone */
        int64_t c, m;
        if (store_open(path, &t, NULL) != ST_OK ||
            store_conv_new(t, "child", "", &c, NULL) != ST_OK)
            _exit(1);
        struct message in = {.text = (char[]){"from the child"}};
        for (int i = 0; i < N; i++)
            if (store_msg_add(t, c, &in, &m, NULL) != ST_OK)
                _exit(2);
        store_close(t);
        _exit(0);
    }
    int64_t c = new_conv(s, "parent");
    for (int i = 0; i < N; i++)
        add(s, c, 0, ROLE_USER, "from the parent");
    int status;
    waitpid(pid, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    OK(store_version(s, &v1, &e));
    assert_true(v0 != v1);
    struct conversation_list l;
    OK(store_conv_list(s, 0, &l, &e));
    assert_int_equal(l.n, 2);
    assert_int_equal(l.v[0].n_messages, N);
    assert_int_equal(l.v[1].n_messages, N);
    conversation_list_release(&l);
    assert_int_equal(hits(s, "child"), N);
    assert_sound(s);
    store_close(s);
}

static void own_writes_leave_the_version_alone(void **state) {
    (void)state;
    struct store *s = open_store();
    int64_t v0, v1;
    OK(store_version(s, &v0, &e));
    new_conv(s, "x");
    OK(store_version(s, &v1, &e));
    assert_true(v0 == v1);
    store_close(s);
}

/* -- search -- */

static void search_finds_words_prefixes_and_phrases(void **state) {
    (void)state;
    struct store *s = open_store();
    int64_t c = new_conv(s, "t");
    add(s, c, 0, ROLE_USER,
        "The Moon's gravity pulls the résumé of std::vector, snake_case too");
    assert_int_equal(hits(s, "moon"), 1);
    assert_int_equal(hits(s, "GRAV"), 1);
    assert_int_equal(hits(s, "avity"), 0); /* not the middle of a word */
    assert_int_equal(hits(s, "gravity moon"), 1);
    assert_int_equal(hits(s, "gravity sun"), 0);
    assert_int_equal(hits(s, "\"gravity pulls\""), 1);
    assert_int_equal(hits(s, "\"pulls gravity\""), 0);
    assert_int_equal(hits(s, "\"gravity pul\""), 0); /* quoted: whole words */
    assert_int_equal(hits(s, "resume"), 1);
    assert_int_equal(hits(s, "RÉSUMÉ"), 1);
    assert_int_equal(hits(s, "re\xcc\x81sume\xcc\x81"), 1); /* decomposed */
    assert_int_equal(hits(s, "std::vector"), 1);
    assert_int_equal(hits(s, "vector::std"), 0);
    assert_int_equal(hits(s, "snake_ca"), 1);
    assert_int_equal(hits(s, "Ｍｏｏｎ"), 1); /* full width */
    store_close(s);
}

static void search_finds_any_run_of_cjk(void **state) {
    (void)state;
    struct store *s = open_store();
    int64_t c = new_conv(s, "t");
    add(s, c, 0, ROLE_USER, "我喜欢学习机器学习和自然语言处理。");
    add(s, c, 0, ROLE_USER, "東京タワーはパリの塔よりガラスが高い。ｶﾞﾗｽ");
    add(s, c, 0, ROLE_USER, "서울대학교에서 공부합니다");
    add(s, c, 0, ROLE_USER, "ภาษาไทยไม่มีช่องว่าง");
    add(s, c, 0, ROLE_USER, "Pythonで書く");
    assert_int_equal(hits(s, "机器"), 1);
    assert_int_equal(hits(s, "器学"), 1);
    assert_int_equal(hits(s, "机学"), 0);
    assert_int_equal(hits(s, "语言 学习"), 1);
    assert_int_equal(hits(s, "京タワ"), 1);
    assert_int_equal(hits(s, "塔"), 1);
    assert_int_equal(hits(s, "ガラス"), 1);
    assert_int_equal(hits(s, "カラス"), 0); /* voicing marks count */
    assert_int_equal(hits(s, "か\xe3\x82\x99ラス"), 0);
    assert_int_equal(hits(s, "カ\xe3\x82\x99ラス"), 1); /* decomposed */
    assert_int_equal(hits(s, "대학교"), 1);
    assert_int_equal(hits(s, "ไทย"), 1);
    assert_int_equal(hits(s, "pythonで"), 1);
    store_close(s);
}

static void message_brings_a_deleted_conversation_back(void **state) {
    (void)state;
    struct store *here = open_store(), *there = open_store();
    int64_t conv = new_conv(here, "x"), first = add(here, conv, 0, ROLE_USER, "first");
    OK(store_conv_delete(there, conv, &e));
    add(here, conv, first, ROLE_USER, "typed while it was deleted elsewhere");
    OK(store_conv_purge(there, 0, &e));
    struct conversation c;
    OK(store_conv_get(here, conv, &c, &e));
    assert_false(c.deleted);
    assert_int_equal(c.n_messages, 2);
    conversation_release(&c);
    assert_int_equal(hits(here, "elsewhere"), 1);
    store_close(there);
    store_close(here);
}

static void search_finds_titles_once(void **state) {
    (void)state;
    struct store *s = open_store();
    int64_t titled = new_conv(s, "Purple élephants → zoo");
    int64_t leaf = add(s, titled, 0, ROLE_USER, "something else");
    int64_t empty = new_conv(s, "Elephant draft");
    int64_t both = new_conv(s, "Elephants by the sea →");
    add(s, both, 0, ROLE_USER, "Elephants by the sea → and the tides");
    int64_t deleted = new_conv(s, "Elephants gone");
    OK(store_conv_delete(s, deleted, &e));
    struct search_list l;
    OK(store_search(s, "elephant", 0, &l, &e));
    assert_int_equal(l.n, 3);
    for (size_t i = 0; i < l.n; i++) {
        const struct search_hit *h = &l.v[i];
        assert_true(h->in_title == (h->conv != both)); /* a message says more than a title */
        assert_true((h->conv == titled && h->message == leaf) ||
                    (h->conv == empty && h->message == 0) || h->conv == both);
        if (h->conv == titled)
            assert_string_equal(h->snippet, "Purple \1élephants\2 → zoo");
    }
    assert_int_equal(l.v[2].conv, both); /* titles first */
    search_list_release(&l);
    assert_int_equal(hits(s, "elephants purple"), 1); /* every word, in any order */
    assert_int_equal(hits(s, "purple tides"), 0);
    assert_int_equal(hits(s, "→"), 2); /* no word at all: one title, one message */
    OK(store_conv_set_title(s, titled, "Renamed", &e));
    assert_int_equal(hits(s, "purple"), 0);
    assert_int_equal(hits(s, "rename"), 1);
    OK(store_search(s, "elephant", 1, &l, &e));
    assert_int_equal(l.n, 1);
    search_list_release(&l);
    store_close(s);
}

static void search_takes_any_input(void **state) {
    (void)state;
    struct store *s = open_store();
    int64_t c = new_conv(s, "t");
    add(s, c, 0, ROLE_USER, "C++ → NEAR(a) AND \"quoted\" text:x* 🌊");
    static const char *const hostile[] = {
        "\"",      "\"\"",     "AND",     "NOT NOT", "NEAR(a b, 3)", "words:",     "*",
        "a*b",     "(((",      "col : x", "^a",      "-x",           "'; DROP",    "+",
        "{a b}:c", "\xff\xfe", "\\",      "OR",      "% _",          "\"a\"\"b\"", "a\"b",
        "\x01",    "",         "   ",     "\"  ",    "\xf0\x9f\x8c"};
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++)
        hits(s, hostile[i]);
    assert_int_equal(hits(s, "AND"), 1); /* a word as any other */
    assert_int_equal(hits(s, "c++"), 1);
    assert_int_equal(hits(s, "→"), 1);
    assert_int_equal(hits(s, "🌊"), 1);
    assert_int_equal(hits(s, "quoted 🌊"), 1);
    assert_int_equal(hits(s, "quoted 🌋"), 0);
    assert_int_equal(hits(s, ""), 0);
    char *many = malloc(20001);
    for (int i = 0; i < 10000; i++)
        memcpy(many + 2 * i, i % 3 ? "a " : "机 ", 2);
    many[20000] = '\0';
    hits(s, many);
    free(many);
    store_close(s);
}

static void snippet_is_one_line_with_the_hit_marked(void **state) {
    (void)state;
    struct store *s = open_store();
    int64_t c = new_conv(s, "Title"), m;
    m = add(s, c, 0, ROLE_ASSISTANT,
            "one two three four five six seven eight nine ten eleven twelve\n\n\tthe "
            "\x02NEEDLE\x01 sits\x1b[31m here");
    struct search_list l;
    OK(store_search(s, "needle", 10, &l, &e));
    assert_int_equal(l.n, 1);
    assert_int_equal(l.v[0].message, m);
    assert_int_equal(l.v[0].conv, c);
    assert_int_equal(l.v[0].role, ROLE_ASSISTANT);
    assert_string_equal(l.v[0].title, "Title");
    assert_string_equal(l.v[0].snippet,
                        "…eight nine ten eleven twelve the \1NEEDLE\2 sits [31m here");
    search_list_release(&l);
    OK(store_conv_delete(s, c, &e));
    assert_int_equal(hits(s, "needle"), 0);
    OK(store_conv_undelete(s, c, &e));
    assert_int_equal(hits(s, "needle"), 1);
    OK(store_conv_delete(s, c, &e));
    OK(store_conv_purge(s, 0, &e));
    assert_int_equal(hits(s, "needle"), 0);
    store_close(s);
}

static void best_hit_comes_first_and_limit_holds(void **state) {
    (void)state;
    struct store *s = open_store();
    int64_t c = new_conv(s, "t");
    add(s, c, 0, ROLE_USER,
        "a long text in which the word otter is only one among very many other words");
    int64_t best = add(s, c, 0, ROLE_USER, "otter otter otter");
    add(s, c, 0, ROLE_USER,
        "another long text in which the word otter is one among many words");
    struct search_list l;
    OK(store_search(s, "otter", 2, &l, &e));
    assert_int_equal(l.n, 2);
    assert_int_equal(l.v[0].message, best);
    search_list_release(&l);
    store_close(s);
}

static void streaming_reply_is_indexed_when_it_ends(void **state) {
    (void)state;
    struct store *s = open_store();
    int64_t c = new_conv(s, "t"), r = add_streaming(s, c, add(s, c, 0, ROLE_USER, "q"));
    OK(store_msg_text(s, r, "walrus", 6, &e));
    assert_int_equal(hits(s, "walrus"), 0);
    struct message end = {.text = (char[]){"walrus and more"}, .state = MSG_COMPLETE};
    OK(store_msg_finish(s, r, &end, &e));
    assert_int_equal(hits(s, "walrus"), 1);
    store_close(s);
}

/* -- databases that are not as they should be -- */

static void write_file(const char *p, const void *data, size_t len) {
    int fd = open(p, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    close(fd);
}

static struct buf slurp(const char *p) {
    struct buf b = {0};
    OK(file_read(p, 1 << 26, &b, &e));
    return b;
}

/* Opening must fail with a message that contains want, and leave the file as it is. */
static void assert_refused(const char *want) {
    struct buf before = slurp(path), after;
    struct store *s = NULL;
    assert_int_equal(store_open(path, &s, &e), ST_DB);
    assert_null(s);
    if (!strstr(e.msg, want))
        fail_msg("\"%s\" lacks \"%s\"", e.msg, want);
    assert_non_null(strstr(e.msg, path));
    after = slurp(path);
    assert_int_equal(before.len, after.len);
    assert_memory_equal(buf_str(&before), buf_str(&after), before.len);
    buf_release(&before);
    buf_release(&after);
}

static void file_that_is_no_database_is_refused(void **state) {
    (void)state;
    write_file(path, "Dear diary, this is no database at all. It is a text.", 53);
    assert_refused("not a database of llmchat");
    write_file(path, "x", 1);
    assert_refused("not a database of llmchat");
    char zeros[4096] = "";
    write_file(path, zeros, sizeof zeros);
    assert_refused("not a database of llmchat");
}

static void raw_sql(const char *sql) {
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void foreign_database_is_refused_untouched(void **state) {
    (void)state;
    raw_sql("PRAGMA application_id = 4711; CREATE TABLE theirs(x);");
    assert_refused("another program");
    unlink(path);
    raw_sql("CREATE TABLE theirs(x);"); /* no application id at all */
    assert_refused("another program");
}

static void newer_database_is_refused_untouched(void **state) {
    (void)state;
    struct store *s = open_store();
    new_conv(s, "x");
    store_close(s);
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA user_version = %d", n_schema_steps + 1);
    raw_sql(sql);
    assert_refused("newer llmchat");
}

static void empty_database_file_is_taken(void **state) {
    (void)state;
    write_file(path, "", 0);
    struct store *s = open_store();
    new_conv(s, "x");
    store_close(s);
}

static void damaged_database_is_named_as_such(void **state) {
    (void)state;
    struct store *s = open_store();
    int64_t c = new_conv(s, "x");
    OK(store_begin(s, &e));
    for (int i = 0; i < 2000; i++)
        add(s, c, 0, ROLE_USER, "some text that fills pages of the database");
    OK(store_commit(s, &e));
    store_close(s);
    struct buf b = slurp(path);
    memset(b.p + 8192, 0xa5, b.len - 8192);
    write_file(path, b.p, b.len);
    enum status st = store_open(path, &s, &e);
    if (st == ST_OK) { /* the first pages are whole: the damage shows when it is read */
        struct message_list l;
        st = store_msg_all(s, c, &l, &e);
        struct buf found = {0};
        if (store_check(s, &found, NULL) == ST_OK)
            assert_string_not_equal(buf_str(&found), "ok");
        buf_release(&found);
        store_close(s);
    }
    assert_int_equal(st, ST_DB);
    assert_non_null(strstr(e.msg, "damaged"));
    assert_non_null(strstr(e.msg, ".recover"));
    struct buf after = slurp(path);
    assert_int_equal(after.len, b.len);
    assert_memory_equal(after.p, b.p, b.len);
    buf_release(&after);
    /* Cut off in the middle of a page. */
    write_file(path, b.p, 4096 + 100);
    assert_int_equal(store_open(path, &s, &e), ST_DB);
    buf_release(&b);
}

/* Runs in a child without the rights of root, for whom no file is read-only. */
static void in_child_without_rights(void (*f)(void)) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (geteuid() == 0 && (chmod(dir, 0755) != 0 || seteuid(65534) != 0))
            _exit(77);
        f();
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void expect_cannot_be_written(void) {
    struct store *s;
    if (store_open(path, &s, &e) != ST_DB || !strstr(e.msg, "written")) {
        fprintf(stderr, "message: %s\n", e.msg);
        _exit(1);
    }
}

static void damaged_word_index_is_found_by_the_check(void **state) {
    (void)state;
    struct store *s = open_store();
    add(s, new_conv(s, "x"), 0, ROLE_USER, "tides and moons");
    assert_sound(s);
    store_close(s);
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(db, "UPDATE message_fts_data SET block = zeroblob(9) WHERE id > 10", NULL,
                     NULL, NULL),
        SQLITE_OK);
    sqlite3_close(db);
    s = open_store();
    struct buf b = {0};
    OK(store_check(s, &b, &e));
    assert_non_null(strstr(buf_str(&b), "the index of words"));
    buf_release(&b);
    store_close(s);
}

static void folder_in_place_of_the_file_is_named(void **state) {
    (void)state;
    struct store *s;
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(store_open(path, &s, &e), ST_DB);
    assert_non_null(strstr(e.msg, "is a folder"));
}

static void read_only_file_and_folder_are_named(void **state) {
    (void)state;
    struct store *s = open_store();
    new_conv(s, "x");
    store_close(s);
    assert_int_equal(chmod(path, 0444), 0);
    in_child_without_rights(expect_cannot_be_written);
    assert_int_equal(chmod(path, 0666), 0);
    assert_int_equal(chmod(dir, 0555), 0);
    in_child_without_rights(expect_cannot_be_written);
    assert_int_equal(unlink(path), geteuid() == 0 ? 0 : -1);
    in_child_without_rights(expect_cannot_be_written);
    assert_int_equal(chmod(dir, 0755), 0);
}

static void full_disk_keeps_what_was_saved(void **state) {
    (void)state;
    struct store *s = open_store();
    int64_t c = new_conv(s, "x"), kept = add(s, c, 0, ROLE_USER, "kept"), lost;
    char sql[64];
    int pages = 0;
    sqlite3_stmt *q;
    assert_int_equal(sqlite3_prepare_v2(s->db, "PRAGMA page_count", -1, &q, NULL), SQLITE_OK);
    if (sqlite3_step(q) == SQLITE_ROW)
        pages = sqlite3_column_int(q, 0);
    sqlite3_finalize(q);
    snprintf(sql, sizeof sql, "PRAGMA max_page_count = %d", pages);
    OK(db_script(s, sql, &e));
    char *big = malloc(100001);
    memset(big, 'b', 100000);
    big[100000] = '\0';
    struct message m = {.parent = kept, .text = big};
    assert_int_equal(store_msg_add(s, c, &m, &lost, &e), ST_DB);
    assert_non_null(strstr(e.msg, "the disk is full"));
    assert_non_null(strstr(e.msg, "free some space"));
    /* Inside a transaction SQLite may undo all of it: then the end must fail too, and the
     * handle must go on working. */
    OK(store_begin(s, &e));
    assert_int_equal(store_msg_add(s, c, &m, &lost, &e), ST_DB);
    store_rollback(s);
    OK(db_script(s, "PRAGMA max_page_count = 100000", &e));
    OK(store_msg_add(s, c, &m, &lost, &e));
    struct message_list l;
    OK(store_msg_path(s, c, 0, &l, &e));
    assert_int_equal(l.n, 2);
    assert_string_equal(l.v[0].text, "kept");
    message_list_release(&l);
    assert_sound(s);
    store_close(s);
    free(big);
}

static void file_size_limit_is_reported_and_survived(void **state) {
    (void)state;
    struct store *s = open_store();
    int64_t c = new_conv(s, "x");
    add(s, c, 0, ROLE_USER, "kept");
    store_close(s);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct stat st;
        signal(SIGXFSZ, SIG_IGN);
        if (store_open(path, &s, NULL) != ST_OK || stat(path, &st) != 0 ||
            setrlimit(RLIMIT_FSIZE, &(struct rlimit){(rlim_t)st.st_size, (rlim_t)st.st_size}))
            _exit(1);
        char *big = xmalloc(300001);
        memset(big, 'b', 300000);
        big[300000] = '\0';
        int64_t id;
        struct message m = {.text = big};
        enum status got = store_msg_add(s, c, &m, &id, &e);
        _exit(got == ST_DB && strstr(e.msg, "what was saved before is safe") ? 0 : 2);
    }
    int status;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    s = open_store();
    struct message_list l;
    OK(store_msg_path(s, c, 0, &l, &e));
    assert_int_equal(l.n, 1);
    message_list_release(&l);
    assert_sound(s);
    store_close(s);
}

static void missing_folder_is_named(void **state) {
    (void)state;
    struct store *s;
    assert_int_equal(store_open("/nonexistent-folder/x/chats.db", &s, &e), ST_DB);
    assert_non_null(strstr(e.msg, "/nonexistent-folder/x/chats.db: cannot be made"));
}

static void locked_database_is_busy_not_broken(void **state) {
    (void)state;
    struct store *a = open_store(), *b = open_store();
    sqlite3_busy_timeout(b->db, 20);
    OK(store_begin(a, &e));
    new_conv(a, "x");
    int64_t id;
    assert_int_equal(store_conv_new(b, "y", "", &id, &e), ST_BUSY);
    OK(store_commit(a, &e));
    OK(store_conv_new(b, "y", "", &id, &e));
    store_close(a);
    store_close(b);
}

/* -- migrations: a table of steps of our own on top of the real first ones -- */

static enum status fill_colour(struct store *s, struct err *err) {
    return db_script(s, "UPDATE conversation SET colour = 'blue'", err);
}

static enum status fail_step(struct store *s, struct err *err) {
    (void)s;
    return err_set(err, ST_DB, "the step failed");
}

static void migration_copies_and_converts(void **state) {
    (void)state;
    enum { N = 8 };
    struct schema_step steps[N];
    int n = n_schema_steps;
    assert_true(n + 1 < N);
    for (int i = 0; i < n; i++)
        steps[i] = schema_steps[i];
    steps[n] = (struct schema_step){
        .sql = "ALTER TABLE conversation ADD COLUMN colour TEXT NOT NULL DEFAULT ''",
        .run = fill_colour};
    struct store *s = open_store();
    int64_t c = new_conv(s, "old");
    store_close(s);
    struct buf before = slurp(path);
    /* A step that fails changes nothing. */
    struct schema_step bad[N];
    memcpy(bad, steps, sizeof bad);
    bad[n].run = fail_step;
    assert_int_equal(store_open_steps(path, bad, n + 1, &s, &e), ST_DB);
    s = open_store();
    store_close(s);
    OK(store_open_steps(path, steps, n + 1, &s, &e));
    sqlite3_stmt *q;
    assert_int_equal(sqlite3_prepare_v2(s->db, "SELECT colour FROM conversation", -1, &q, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(q), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(q, 0), "blue");
    sqlite3_finalize(q);
    struct conversation conv;
    OK(store_conv_get(s, c, &conv, &e));
    assert_string_equal(conv.title, "old");
    conversation_release(&conv);
    store_close(s);
    /* The copy is the database as it was, private as it was; this version opens it, and refuses
     * the new one. */
    char copy[192];
    struct stat st;
    snprintf(copy, sizeof copy, "%s.v%d.bak", path, n);
    assert_int_equal(stat(copy, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_refused("newer llmchat");
    OK(store_open(copy, &s, &e));
    OK(store_conv_get(s, c, &conv, &e));
    assert_string_equal(conv.title, "old");
    conversation_release(&conv);
    store_close(s);
    buf_release(&before);
}

static void memory_database_works(void **state) {
    (void)state;
    struct store *s;
    OK(store_open(":memory:", &s, &e));
    int64_t c = new_conv(s, "x");
    add(s, c, 0, ROLE_USER, "hello");
    assert_int_equal(hits(s, "hel"), 1);
    assert_sound(s);
    store_close(s);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(new_file_is_private_and_marked),
        T(conversation_keeps_every_field),
        T(message_keeps_every_field),
        T(branches_share_ancestors),
        T(foreign_parents_and_leaves_are_refused),
        T(long_conversation_is_read_in_one_go),
        T(list_is_newest_first_without_deleted),
        T(settings_of_the_program_are_kept),
        T(rollback_undoes_all_writes_inside),
        T(reply_of_a_dead_process_is_interrupted),
        T(used_again_pid_and_other_boot_count_as_dead),
        T(wrongly_interrupted_reply_heals_with_its_next_save),
        T(two_processes_write_and_see_each_other),
        T(own_writes_leave_the_version_alone),
        T(search_finds_words_prefixes_and_phrases),
        T(search_finds_any_run_of_cjk),
        T(message_brings_a_deleted_conversation_back),
        T(search_finds_titles_once),
        T(search_takes_any_input),
        T(snippet_is_one_line_with_the_hit_marked),
        T(best_hit_comes_first_and_limit_holds),
        T(streaming_reply_is_indexed_when_it_ends),
        T(file_that_is_no_database_is_refused),
        T(foreign_database_is_refused_untouched),
        T(newer_database_is_refused_untouched),
        T(empty_database_file_is_taken),
        T(damaged_database_is_named_as_such),
        T(damaged_word_index_is_found_by_the_check),
        T(folder_in_place_of_the_file_is_named),
        T(read_only_file_and_folder_are_named),
        T(full_disk_keeps_what_was_saved),
        T(file_size_limit_is_reported_and_survived),
        T(missing_folder_is_named),
        T(locked_database_is_busy_not_broken),
        T(migration_copies_and_converts),
        T(memory_database_works),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
