/*
 * test_base.c - UTF-8, widths, buffers, paths, files and the mailbox.
 */
#include "base/clock.h"
#include "base/err.h"
#include "base/file_map.h"
#include "base/mailbox.h"
#include "base/path.h"
#include "base/utf8.h"
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
/* after the headers that it needs */
#include <cmocka.h>

static char tmp_dir[64];

static int make_tmp(void **state) {
    (void)state;
    strcpy(tmp_dir, "/tmp/llmchat-base-XXXXXX");
    return mkdtemp(tmp_dir) ? 0 : -1;
}

static int drop_tmp(void **state) {
    (void)state;
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf %s", tmp_dir);
    return system(cmd);
}

static void utf8_decode_refuses_overlong_and_surrogates(void **state) {
    (void)state;
    static const struct {
        const char *s;
        size_t used;
        uint32_t cp;
    } cases[] = {
        {"A", 1, 'A'},
        {"\xc3\xa9", 2, 0xe9},
        {"\xe2\x82\xac", 3, 0x20ac},
        {"\xf0\x9f\x98\x80", 4, 0x1f600},
        {"\xc0\x80", 1, 0xfffd}, /* overlong NUL */
        {"\xe0\x80\x80", 1, 0xfffd},
        {"\xed\xa0\x80", 1, 0xfffd},     /* surrogate */
        {"\xf4\x90\x80\x80", 1, 0xfffd}, /* above U+10FFFF */
        {"\xf0\x9f\x98", 3, 0xfffd},     /* cut short: the whole prefix */
        {"\xe2\x82"
         "A",
         2, 0xfffd},
        {"\xff", 1, 0xfffd},
        {"\x80", 1, 0xfffd},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t cp;
        assert_int_equal(utf8_decode(cases[i].s, strlen(cases[i].s), &cp), cases[i].used);
        assert_int_equal(cp, cases[i].cp);
    }
}

static void utf8_every_codepoint_makes_the_round_trip(void **state) {
    (void)state;
    for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
        char s[4];
        uint32_t back;
        size_t n = utf8_encode(cp, s);
        assert_int_equal(utf8_decode(s, n, &back), n);
        if (cp >= 0xd800 && cp <= 0xdfff)
            assert_int_equal(back, 0xfffd);
        else
            assert_int_equal(back, cp);
    }
}

static void utf8_incomplete_tail_is_what_more_bytes_could_complete(void **state) {
    (void)state;
    assert_int_equal(utf8_incomplete_tail("a\xf0\x9f\x98", 4), 3);
    assert_int_equal(utf8_incomplete_tail("a\xe2", 2), 1);
    assert_int_equal(utf8_incomplete_tail("a\xe2\x82\xac", 4), 0);
    assert_int_equal(utf8_incomplete_tail("a\xff", 2), 0);
    assert_int_equal(utf8_incomplete_tail("\xed\xa0", 2), 0); /* can only be a surrogate */
    assert_int_equal(utf8_incomplete_tail("", 0), 0);
}

static void utf8_scrub_mends_only_what_is_broken(void **state) {
    (void)state;
    struct buf b = {0};
    utf8_scrub(&b, "ok \xff\xe2\x82 \xef\xbf\xbd.", 11);
    assert_string_equal(b.p, "ok \xef\xbf\xbd\xef\xbf\xbd \xef\xbf\xbd.");
    buf_release(&b);
}

static void utf8_widths_are_those_of_terminals(void **state) {
    (void)state;
    static const struct {
        const char *s;
        size_t cells;
    } cases[] = {
        {"abc", 3},
        {"日本", 4},
        {"e\xcc\x81", 1},                /* combining acute */
        {"👨‍👩‍👧", 2},       /* joined family */
        {"🇩🇪", 2},                       /* flag */
        {"\xe2\x9d\xa4\xef\xb8\x8f", 2}, /* heart + VS16 */
        {"한", 2},                       /* Hangul syllable */
        {"\xef\xbd\xb1", 1},             /* halfwidth katakana */
        {"", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(utf8_cells(cases[i].s, strlen(cases[i].s)), cases[i].cells);
    size_t cells;
    assert_int_equal(utf8_fit("a日b", 5, 2, &cells), 1); /* a wide one is never halved */
    assert_int_equal(cells, 1);
}

static void utf8_cut_keeps_characters_whole(void **state) {
    (void)state;
    assert_int_equal(utf8_cut("abc", 2), 2);
    assert_int_equal(utf8_cut("abc", 60), 3);
    assert_int_equal(utf8_cut("a日本", 4), 4);
    assert_int_equal(utf8_cut("ae\xcc\x81", 2), 4);
    char marks[2 * 100 + 3] = "xy"; /* one cell, more bytes than there is room for */
    for (int i = 0; i < 100; i++)
        memcpy(marks + 2 + 2 * i, "\xcc\x81", 3);
    assert_int_equal(utf8_cut(marks, 10), 1);
}

static void utf8_prev_steps_over_whole_clusters(void **state) {
    (void)state;
    const char *s = "a👨‍👩‍👧e\xcc\x81";
    size_t end = strlen(s);
    size_t p = utf8_prev(s, end);
    assert_int_equal(end - p, 3);
    p = utf8_prev(s, p);
    assert_int_equal(p, 1);
    assert_int_equal(utf8_prev(s, p), 0);
    assert_int_equal(utf8_prev(s, 0), 0);
}

static void utf8_terminal_safe_lets_no_control_through(void **state) {
    (void)state;
    struct buf b = {0};
    const char evil[] = "a\x1b]0;title\x07\xc2\x9b"
                        "31m\xe2\x80\xae\r\n\tz\x7f";
    utf8_terminal_safe(&b, evil, sizeof evil - 1, true);
    for (size_t i = 0; i < b.len;) {
        uint32_t cp;
        i += utf8_decode(b.p + i, b.len - i, &cp);
        assert_true(cp == '\n' || cp == '\t' || (cp >= 0x20 && cp < 0x7f) || cp >= 0xa0);
        assert_int_not_equal(cp, 0x202e);
    }
    assert_non_null(strstr(b.p, "title"));
    buf_release(&b);
}

static void err_messages_are_safe_to_show(void **state) {
    (void)state;
    struct err e;
    assert_int_equal(err_set(&e, ST_FORMAT, "tensor \"%s\": bad", "x\x1b[2J\xff"), ST_FORMAT);
    assert_string_equal(e.msg, "tensor \"x?[2J?\": bad");
    err_prefix(&e, "file %d", 7);
    assert_string_equal(e.msg, "file 7: tensor \"x?[2J?\": bad");
    assert_string_equal(status_words(ST_CONTEXT_FULL), "context full");
    assert_int_equal(err_set(NULL, ST_IO, "nobody listens"), ST_IO);
}

static void atomic_file_is_there_whole_or_not_at_all(void **state) {
    (void)state;
    struct err e;
    char *path = path_join(tmp_dir, "note");
    assert_int_equal(file_write_atomic(path, "one", 3, &e), ST_OK);
    struct atomic_file f;
    assert_int_equal(atomic_open(&f, path, &e), ST_OK);
    assert_int_equal(atomic_write(&f, "two", 3, &e), ST_OK);
    atomic_abort(&f);
    struct buf b = {0};
    assert_int_equal(file_read(path, 100, &b, &e), ST_OK);
    assert_string_equal(b.p, "one");
    buf_clear(&b);
    assert_int_equal(file_read(path, 2, &b, &e), ST_LIMIT);
    buf_release(&b);
    struct stat sb;
    assert_int_equal(stat(path, &sb), 0);
    assert_int_equal(sb.st_mode & 0777, 0600);
    int n = 0;
    DIR *d = opendir(tmp_dir);
    for (struct dirent *ent; (ent = readdir(d));)
        n += ent->d_name[0] != '.';
    closedir(d);
    assert_int_equal(n, 1);
    free(path);
}

static void atomic_file_leaves_nothing_when_the_disk_is_full(void **state) {
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit old, small = {.rlim_cur = 1000};
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_FSIZE, &small);
    struct err e;
    char *path = path_join(tmp_dir, "big");
    static const char data[5000];
    enum status st = file_write_atomic(path, data, sizeof data, &e);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(st, ST_IO);
    assert_non_null(strstr(e.msg, "big"));
    assert_int_equal(access(path, F_OK), -1);
    free(path);
}

static void atomic_file_replaces_nothing_but_files(void **state) {
    (void)state;
    struct err e;
    struct stat sb;
    char *fifo = path_join(tmp_dir, "fifo"), *link = path_join(tmp_dir, "link");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(symlink(fifo, link), 0);
    assert_int_equal(file_write_atomic(fifo, "x", 1, &e), ST_IO);
    assert_non_null(strstr(e.msg, "not a regular file"));
    assert_int_equal(file_write_atomic(link, "x", 1, &e), ST_IO);
    assert_int_equal(file_write_atomic(tmp_dir, "x", 1, &e), ST_IO);
    assert_int_equal(stat(fifo, &sb), 0);
    assert_true(S_ISFIFO(sb.st_mode));
    free(fifo);
    free(link);
}

static void leavings_of_a_dead_process_are_removed(void **state) {
    (void)state;
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    char *path = path_join(tmp_dir, "model");
    char *dead = xasprintf("%s.tmp.%d", path, (int)pid);
    waitpid(pid, NULL, 0);
    close(open(dead, O_CREAT | O_WRONLY, 0600));
    struct err e;
    assert_int_equal(file_write_atomic(path, "x", 1, &e), ST_OK);
    assert_int_equal(access(dead, F_OK), -1);
    free(dead);
    free(path);
}

static void write_pages(const char *path, size_t n) {
    struct err err = {0};
    struct buf b = {0};
    for (size_t i = 0; i < n * (size_t)sysconf(_SC_PAGESIZE); i++)
        buf_addc(&b, 'x');
    assert_int_equal(file_write_atomic(path, b.p, b.len, &err), ST_OK);
    buf_release(&b);
}

static void a_mapped_file_that_is_cut_reads_as_zeros_and_says_so(void **state) {
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *path = path_join(tmp_dir, "cut"), *other = path_join(tmp_dir, "other");
    struct file_map m, whole;
    struct err err = {0};
    file_map_guard();
    write_pages(path, 4);
    write_pages(other, 2);
    assert_int_equal(file_map_open(&whole, other, &err), ST_OK);
    for (int round = 0; round < 2; round++) { /* a mark does not stay for the next mapping */
        write_pages(path, 4);
        assert_int_equal(file_map_open(&m, path, &err), ST_OK);
        assert_int_equal(file_map_unchanged(m, "cut", &err), ST_OK);
        assert_int_equal(truncate(path, (off_t)page), 0);
        assert_int_equal(m.p[page - 1], 'x');
        assert_int_equal(file_map_intact(m, "cut", &err), ST_OK);
        assert_int_equal(m.p[3 * page], 0);
        assert_int_equal(m.p[2 * page], 0);
        assert_int_equal(file_map_intact(m, "cut", &err), ST_IO);
        assert_int_equal(strncmp(err.msg, "cut: ", 5), 0);
        assert_int_equal(m.p[0], 'x');
        file_map_close(&m);
    }
    assert_int_equal(file_map_intact(whole, "other", &err), ST_OK);
    assert_int_equal(unlink(other), 0); /* the mapping is still whole */
    assert_int_equal(file_map_unchanged(whole, "other", &err), ST_OK);
    write_pages(other, 1);
    assert_int_equal(file_map_unchanged(whole, "other", &err), ST_OK);
    file_map_close(&whole);
    assert_int_equal(file_map_open(&whole, other, &err), ST_OK);
    assert_int_equal(truncate(other, (off_t)page - 1), 0); /* no page is gone: no fault */
    assert_int_equal(file_map_intact(whole, "other", &err), ST_OK);
    assert_int_equal(file_map_unchanged(whole, "other", &err), ST_IO);
    assert_non_null(strstr(err.msg, "changed"));
    file_map_close(&whole);
    free(path);
    free(other);
}

static void file_map_gives_pages_back_of_mapped_files_alone(void **state) {
    enum { LEN = 3 * 4096 + 100 };
    char path[] = "/tmp/llmchat-drop-XXXXXX";
    char *memory = aligned_alloc(4096, 4 * 4096);
    struct file_map m;
    struct err err;
    (void)state;
    int fd = mkstemp(path);
    assert_true(fd >= 0 && memory);
    for (int j = 0; j < 4 * 4096; j++)
        memory[j] = (char)(j * 7 + 1);
    assert_int_equal(write(fd, memory, LEN), LEN);
    close(fd);
    assert_int_equal(file_map_open(&m, path, &err), ST_OK);
    file_map_huge(m);
    assert_memory_equal(m.p, memory, LEN);
    file_map_drop(m.p + 1, 2 * 4096);
    file_map_drop(m.p, LEN);
    file_map_drop(m.p + 100, LEN); /* more than there is */
    assert_memory_equal(m.p, memory, LEN);
    file_map_drop(memory, 4 * 4096); /* no file's: it would be zeros now */
    for (int j = 0; j < 4 * 4096; j++)
        assert_true(memory[j] == (char)(j * 7 + 1));
    file_map_close(&m);
    unlink(path);
    free(memory);
}

/* What is no mapping of ours is left to the handler before. */
static void faults_of_others_still_end_the_program(void **state) {
    (void)state;
    int how;
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGBUS, SIG_DFL); /* not the test's */
        file_map_guard();
        FILE *f = tmpfile();
        volatile char *p = mmap(NULL, 1, PROT_READ, MAP_SHARED, fileno(f), 0);
        _exit(p[0]);
    }
    assert_int_equal(waitpid(pid, &how, 0), pid);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGBUS);
}

static void a_file_too_large_is_not_read(void **state) {
    (void)state;
    char *path = path_join(tmp_dir, "large");
    struct buf b = {0};
    struct err err = {0};
    write_pages(path, 1);
    assert_int_equal(truncate(path, (off_t)1 << 40), 0); /* reading it would take minutes */
    assert_int_equal(file_read(path, (size_t)1 << 39, &b, &err), ST_LIMIT);
    assert_int_equal(b.len, 0);
    free(path);
}

static void paths_follow_the_environment(void **state) {
    (void)state;
    struct err e;
    char *p = NULL, *want;
    setenv("LLMCHAT_HOME", tmp_dir, 1);
    assert_int_equal(path_in(PATH_DATA, "models/a", &p, &e), ST_OK);
    want = xasprintf("%s/data/models/a", tmp_dir);
    assert_string_equal(p, want);
    free(p);
    free(want);
    want = xasprintf("%s/data/models", tmp_dir);
    struct stat sb;
    assert_int_equal(stat(want, &sb), 0);
    assert_int_equal(sb.st_mode & 0777, 0700);
    free(want);
    unsetenv("LLMCHAT_HOME");
    setenv("XDG_CACHE_HOME", tmp_dir, 1);
    assert_int_equal(path_root(PATH_CACHE, &p, &e), ST_OK);
    want = path_join(tmp_dir, "llmchat");
    assert_string_equal(p, want);
    free(p);
    free(want);
    unsetenv("XDG_CACHE_HOME");
    setenv("LLMCHAT_HOME", "/proc/nothing/here", 1);
    assert_int_equal(path_root(PATH_CACHE, &p, &e), ST_IO);
    assert_non_null(strstr(e.msg, "/proc/nothing"));
    unsetenv("LLMCHAT_HOME");
}

static void *put_many(void *arg) {
    for (intptr_t i = 1; i <= 10000; i++)
        mailbox_put(arg, (void *)i);
    return NULL;
}

static void mailbox_keeps_order_and_wakes(void **state) {
    (void)state;
    struct mailbox *m = mailbox_new(NULL);
    struct pollfd p = {.fd = mailbox_fd(m), .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 0);
    assert_null(mailbox_wait(m, 1));
    pthread_t t;
    pthread_create(&t, NULL, put_many, m);
    for (intptr_t i = 1; i <= 10000; i++)
        assert_int_equal((intptr_t)mailbox_wait(m, -1), i);
    pthread_join(t, NULL);
    assert_int_equal(poll(&p, 1, 0), 0);
    mailbox_put(m, m);
    assert_int_equal(poll(&p, 1, 0), 1);
    mailbox_unref(m);
}

static void mailbox_wakes_once_for_many(void **state) {
    (void)state;
    int a, b, c;
    struct mailbox *m = mailbox_new(NULL);
    struct pollfd p = {.fd = mailbox_fd(m), .events = POLLIN};
    mailbox_wake(m); /* nothing is there to wake for */
    assert_int_equal(poll(&p, 1, 0), 0);
    mailbox_add(m, &a);
    mailbox_add(m, &b);
    assert_int_equal(poll(&p, 1, 0), 0);
    mailbox_wake(m);
    mailbox_wake(m);
    assert_int_equal(poll(&p, 1, 0), 1);
    assert_ptr_equal(mailbox_take(m), &a);
    assert_int_equal(poll(&p, 1, 0), 1);
    assert_ptr_equal(mailbox_take(m), &b);
    assert_int_equal(poll(&p, 1, 0), 0);
    mailbox_add(m, &a); /* who looks finds it before it is told of */
    assert_ptr_equal(mailbox_take(m), &a);
    mailbox_add(m, &b);
    mailbox_put(m, &c);
    assert_int_equal(poll(&p, 1, 0), 1);
    assert_ptr_equal(mailbox_wait(m, -1), &b);
    assert_ptr_equal(mailbox_wait(m, -1), &c);
    assert_int_equal(poll(&p, 1, 0), 0);
    mailbox_unref(m);
}

static int n_dropped;
static void count_drop(void *msg) {
    (void)msg;
    n_dropped++;
}

static void mailbox_drops_what_is_left(void **state) {
    (void)state;
    struct mailbox *m = mailbox_new(count_drop);
    mailbox_ref(m);
    mailbox_put(m, m);
    mailbox_put(m, m);
    mailbox_unref(m);
    assert_int_equal(n_dropped, 0);
    mailbox_unref(m);
    assert_int_equal(n_dropped, 2);
}

static void buffers_and_lists_own_what_they_hold(void **state) {
    (void)state;
    struct buf b = {0};
    assert_string_equal(buf_str(&b), "");
    for (int i = 0; i < 1000; i++)
        buf_addf(&b, "%d,", i);
    assert_int_equal(strlen(b.p), b.len);
    buf_cut(&b, 4);
    assert_string_equal(b.p, "0,1,");
    char *taken = buf_take(&b);
    assert_string_equal(taken, "0,1,");
    free(taken);
    struct strlist l = {0}, copy = {0};
    strlist_add(&l, "a");
    strlist_addn(&l, "bcd", 2);
    strlist_copy(&copy, &l);
    strlist_release(&l);
    assert_int_equal(copy.n, 2);
    assert_string_equal(copy.v[1], "bc");
    strlist_release(&copy);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(utf8_decode_refuses_overlong_and_surrogates),
        cmocka_unit_test(utf8_every_codepoint_makes_the_round_trip),
        cmocka_unit_test(utf8_incomplete_tail_is_what_more_bytes_could_complete),
        cmocka_unit_test(utf8_scrub_mends_only_what_is_broken),
        cmocka_unit_test(utf8_widths_are_those_of_terminals),
        cmocka_unit_test(utf8_cut_keeps_characters_whole),
        cmocka_unit_test(utf8_prev_steps_over_whole_clusters),
        cmocka_unit_test(utf8_terminal_safe_lets_no_control_through),
        cmocka_unit_test(err_messages_are_safe_to_show),
        cmocka_unit_test_setup_teardown(atomic_file_is_there_whole_or_not_at_all, make_tmp,
                                        drop_tmp),
        cmocka_unit_test_setup_teardown(atomic_file_leaves_nothing_when_the_disk_is_full,
                                        make_tmp, drop_tmp),
        cmocka_unit_test_setup_teardown(atomic_file_replaces_nothing_but_files, make_tmp,
                                        drop_tmp),
        cmocka_unit_test_setup_teardown(leavings_of_a_dead_process_are_removed, make_tmp,
                                        drop_tmp),
        cmocka_unit_test_setup_teardown(a_mapped_file_that_is_cut_reads_as_zeros_and_says_so,
                                        make_tmp, drop_tmp),
        cmocka_unit_test(file_map_gives_pages_back_of_mapped_files_alone),
        cmocka_unit_test(faults_of_others_still_end_the_program),
        cmocka_unit_test_setup_teardown(a_file_too_large_is_not_read, make_tmp, drop_tmp),
        cmocka_unit_test_setup_teardown(paths_follow_the_environment, make_tmp, drop_tmp),
        cmocka_unit_test(mailbox_keeps_order_and_wakes),
        cmocka_unit_test(mailbox_wakes_once_for_many),
        cmocka_unit_test(mailbox_drops_what_is_left),
        cmocka_unit_test(buffers_and_lists_own_what_they_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
