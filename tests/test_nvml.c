/*
 * test_nvml.c - NVML as the program reads it, over fake_nvml.c: values, each of them missing,
 * libraries that are none, and a watch.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "engine/cuda/nvml.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CARD "0000:0f:00.0"

static void *fake; /* open all the time, so that its counters stay */

static int count(const char *name) {
    int (*f)(void) = NULL;
    void *at = dlsym(fake, name);
    assert_non_null(at);
    memcpy(&f, &at, sizeof f);
    return f();
}

static int setup(void **state) {
    (void)state;
    const char *so = getenv("FAKE_NVML_SO");
    if (!so)
        return -1;
    unsetenv("FAKE_NVML");
    setenv("LLMCHAT_NVML", so, 1);
    fake = dlopen(so, RTLD_NOW | RTLD_LOCAL);
    return fake ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    int left = count("fake_nvml_open");
    dlclose(fake);
    unsetenv("FAKE_NVML");
    return left; /* what was started was shut down */
}

/* What is said where `fails` fails; NULL: nothing. */
static enum status line(const char *fails, struct buf *out, struct err *err) {
    struct nvml *n = NULL;
    struct nvml_load load;
    setenv("FAKE_NVML", fails, 1);
    enum status st = nvml_open(CARD, &n, err);
    if (st == ST_OK)
        st = nvml_read(n, &load, err);
    buf_clear(out);
    if (st == ST_OK)
        nvml_text(&load, out);
    nvml_close(n);
    return st;
}

static void every_value_is_read(void **state) {
    (void)state;
    struct nvml *n = NULL;
    struct nvml_load load;
    struct err err;
    struct buf text = {0};
    assert_int_equal(nvml_open(CARD, &n, &err), ST_OK);
    assert_int_equal(nvml_read(n, &load, &err), ST_OK);
    assert_int_equal(load.used_bytes, 20ll << 30);
    assert_int_equal(load.total_bytes, 80ll << 30);
    assert_int_equal(load.busy, 37);
    assert_int_equal(load.memory_busy, 12);
    assert_int_equal(load.celsius, 60 + count("fake_nvml_reads"));
    assert_int_equal(load.milliwatt, 310400);
    assert_int_equal(load.limit_milliwatt, 700000);
    load.celsius = 61;
    nvml_text(&load, &text);
    assert_string_equal(buf_str(&text), "20.0 of 80.0 GiB in use, 37 % busy (memory 12 %), "
                                        "61 °C, 310 of 700 W");
    buf_release(&text);
    nvml_close(n);
}

static void a_value_that_fails_is_left_out(void **state) {
    (void)state;
    static const struct {
        const char *fails, *begins, *ends;
    } cases[] = {{"memory", "37 % busy (memory 12 %), ", " °C, 310 of 700 W"},
                 {"busy", "20.0 of 80.0 GiB in use, 6", " °C, 310 of 700 W"},
                 {"temperature", "20.0 of", "(memory 12 %), 310 of 700 W"},
                 {"power", "20.0 of", " °C"},
                 {"limit", "20.0 of", " °C, 310 W"},
                 {"memory busy temperature", "310 of 700 W", "310 of 700 W"}};
    struct buf text = {0};
    struct err err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(line(cases[i].fails, &text, &err), ST_OK);
        const char *s = buf_str(&text), *end = cases[i].ends;
        if (strncmp(s, cases[i].begins, strlen(cases[i].begins)) != 0 ||
            strlen(s) < strlen(end) || strcmp(s + strlen(s) - strlen(end), end) != 0)
            fail_msg("without %s: %s", cases[i].fails, s);
    }
    buf_release(&text);
}

static void what_can_not_be_read_says_why(void **state) {
    (void)state;
    struct buf text = {0};
    struct err err;
    struct nvml *n = NULL;
    assert_int_equal(line("memory busy temperature power", &text, &err), ST_UNSUPPORTED);
    assert_string_equal(err.msg, "no NVML: the card says nothing: Not Supported");
    assert_int_equal(line("init", &text, &err), ST_NOT_FOUND);
    assert_string_equal(err.msg, "no NVML: Driver Not Loaded");
    unsetenv("FAKE_NVML");
    assert_int_equal(nvml_open("0000:10:00.0", &n, &err), ST_NOT_FOUND);
    assert_string_equal(err.msg, "no NVML: GPU 0000:10:00.0: Not Found");
    setenv("LLMCHAT_NVML", "/nowhere/libnvidia-ml.so.1", 1);
    assert_int_equal(nvml_open(CARD, &n, &err), ST_NOT_FOUND);
    assert_non_null(strstr(err.msg, "no NVML: /nowhere/libnvidia-ml.so.1"));
    setenv("LLMCHAT_NVML", "libm.so.6", 1);
    assert_int_equal(nvml_open(CARD, &n, &err), ST_NOT_FOUND);
    assert_string_equal(err.msg, "no NVML: libm.so.6 has no nvmlErrorString");
    assert_null(n);
    buf_release(&text);
}

static void nap(void) {
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

/* The first answer of a watch that is not ST_BUSY. */
static enum status wait_for(struct nvml_watch *w, struct nvml_load *load, struct err *err) {
    enum status st;
    while ((st = nvml_watch_get(w, load, err)) == ST_BUSY)
        nap();
    return st;
}

/* However often it is asked, and by however many: a reading for each second that has passed. */
static void *asks(void *watch) {
    struct nvml_load load;
    struct err err;
    for (int i = 0; i < 300; i++, nap())
        nvml_watch_get(watch, &load, &err);
    return NULL;
}

static void a_watch_reads_at_most_once_a_second(void **state) {
    (void)state;
    struct nvml_watch *w = nvml_watch_new(CARD);
    struct nvml_load load;
    struct err err;
    pthread_t other;
    int before = count("fake_nvml_reads");
    int64_t start = clock_us();
    assert_int_equal(nvml_watch_get(w, &load, &err), ST_BUSY); /* it does not wait */
    assert_int_equal(wait_for(w, &load, &err), ST_OK);
    assert_int_equal(load.celsius, 60 + before + 1);
    assert_int_equal(pthread_create(&other, NULL, asks, w), 0);
    while (wait_for(w, &load, &err) == ST_OK && load.celsius == 60 + before + 1)
        nap(); /* until it has read again */
    pthread_join(other, NULL);
    nvml_watch_free(w);
    int reads = count("fake_nvml_reads") - before;
    assert_true(reads >= 2);
    assert_true(reads <= 1 + (clock_us() - start) / 1000000);
}

static void a_watch_that_nobody_asks_opens_nothing(void **state) {
    (void)state;
    int before = count("fake_nvml_reads");
    nvml_watch_free(nvml_watch_new(CARD));
    assert_int_equal(count("fake_nvml_reads"), before);
}

static void a_watch_says_why_it_has_nothing(void **state) {
    (void)state;
    struct nvml_load load;
    struct err err;
    setenv("FAKE_NVML", "init", 1);
    struct nvml_watch *w = nvml_watch_new(CARD);
    assert_int_equal(wait_for(w, &load, &err), ST_NOT_FOUND);
    assert_string_equal(err.msg, "no NVML: Driver Not Loaded");
    nvml_watch_free(w);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(every_value_is_read),
        T(a_value_that_fails_is_left_out),
        T(what_can_not_be_read_says_why),
        T(a_watch_reads_at_most_once_a_second),
        T(a_watch_that_nobody_asks_opens_nothing),
        T(a_watch_says_why_it_has_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
