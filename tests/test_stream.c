/*
 * test_stream.c - token bytes to shown text: always valid UTF-8, stop strings whatever the
 * borders of tokens are.
 *
 * Every text is pushed in pieces of each length from one byte to all of it; what comes out must
 * not depend on it.
 */
#include "base/utf8.h"
#include "engine/text/stream.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Pushes text in pieces of `step` bytes; true when stopped. Every piece that comes out must be
 * valid. */
static bool push_all(struct stream *s, const char *text, size_t len, size_t step,
                     struct buf *out) {
    bool stopped = false;
    for (size_t i = 0; i < len; i += step) {
        size_t before = out->len;
        stopped = stream_push(s, text + i, len - i < step ? len - i : step, out);
        assert_true(utf8_valid(buf_str(out) + before, out->len - before));
    }
    return stopped;
}

static void expect(const char *const *stops, size_t n_stop, const char *text, size_t len,
                   const char *want, bool want_stopped) {
    for (size_t step = 1; step <= len; step++) {
        struct stream s;
        struct buf out = {0};
        stream_init(&s, stops, n_stop);
        bool stopped = push_all(&s, text, len, step, &out);
        stream_flush(&s, &out);
        assert_string_equal(buf_str(&out), want);
        assert_int_equal(stopped, want_stopped);
        stream_release(&s);
        buf_release(&out);
    }
}

#define EXPECT(text, want, want_stopped, ...)                                                  \
    do {                                                                                       \
        const char *stops_[] = {__VA_ARGS__};                                                  \
        expect(stops_, sizeof stops_ / sizeof *stops_, text, sizeof(text) - 1, want,           \
               want_stopped);                                                                  \
    } while (0)

static void characters_come_out_whole(void **state) {
    (void)state;
    expect(NULL, 0, "a\xc3\xa9\xe6\xbc\xa2\xf0\x9f\x99\x82z", 11,
           "a\xc3\xa9\xe6\xbc\xa2\xf0\x9f\x99\x82z", false);
}

static void incomplete_character_is_held_back(void **state) {
    (void)state;
    struct stream s;
    struct buf out = {0};
    stream_init(&s, NULL, 0);
    stream_push(&s, "x\xf0\x9f", 3, &out);
    assert_string_equal(buf_str(&out), "x");
    stream_push(&s, "\x99", 1, &out);
    assert_string_equal(buf_str(&out), "x");
    assert_true(stream_holds(&s));
    stream_push(&s, "\x82", 1, &out);
    assert_string_equal(buf_str(&out), "x\xf0\x9f\x99\x82");
    assert_false(stream_holds(&s));
    stream_release(&s);
    buf_release(&out);
}

static void invalid_bytes_are_replaced(void **state) {
    (void)state;
    EXPECT("a\xff"
           "b",
           "a\xef\xbf\xbd"
           "b",
           false, "never");
    EXPECT("\xc3(", "\xef\xbf\xbd(", false, "never");
    EXPECT("\xe6\xbc", "\xef\xbf\xbd", false, "never"); /* at the end */
    EXPECT("\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", false,
           "never"); /* surrogate */
}

static void stop_string_ends_the_text(void **state) {
    (void)state;
    EXPECT("hello STOP world", "hello ", true, "STOP");
    EXPECT("STOP", "", true, "STOP");
    EXPECT("hello", "hello", false, "STOP");
    EXPECT("hello STO", "hello STO", false, "STOP"); /* released when the answer ends */
    EXPECT("hello STOOP", "hello STOOP", false, "STOP");
}

static void stop_string_may_overlap_itself(void **state) {
    (void)state;
    EXPECT("aaab", "a", true, "aab");
    EXPECT("ababac", "ab", true, "abac");
    EXPECT("\n\n\nUser:", "\n", true, "\n\nUser:");
}

static void first_complete_stop_string_wins(void **state) {
    (void)state;
    EXPECT("xabcd", "xa", true, "abcd", "bc");
    EXPECT("xabcd", "x", true, "abc", "bc"); /* both end here: the longer one began earlier */
    EXPECT("xyz", "xyz", false, "", "q");    /* empty ones are ignored */
}

static void stop_string_of_several_byte_characters(void **state) {
    (void)state;
    EXPECT("\xe6\xbc\xa2\xe5\xad\x97\xe3\x80\x82x", "\xe6\xbc\xa2\xe5\xad\x97", true,
           "\xe3\x80\x82");
    EXPECT("\xe3\x80\x81", "\xe3\x80\x81", false, "\xe3\x80\x82"); /* shares two bytes */
}

static void possible_stop_string_is_held_back_and_released(void **state) {
    (void)state;
    const char *stops[] = {"</s>"};
    struct stream s;
    struct buf out = {0};
    stream_init(&s, stops, 1);
    stream_push(&s, "a</", 3, &out);
    assert_string_equal(buf_str(&out), "a");
    assert_true(stream_holds(&s));
    stream_push(&s, "b", 1, &out);
    assert_string_equal(buf_str(&out), "a</b");
    assert_false(stream_holds(&s));
    stream_release(&s);
    buf_release(&out);
}

static void nothing_comes_after_a_stop(void **state) {
    (void)state;
    const char *stops[] = {"."};
    struct stream s;
    struct buf out = {0};
    stream_init(&s, stops, 1);
    assert_true(stream_push(&s, "a.b", 3, &out));
    assert_true(stream_push(&s, "c", 1, &out));
    stream_flush(&s, &out);
    assert_string_equal(buf_str(&out), "a");
    stream_release(&s);
    buf_release(&out);
}

/* A stop string of many equal letters against nearly the same text: linear, else this takes
 * minutes. */
static void long_stop_strings_are_fed_in_linear_time(void **state) {
    (void)state;
    enum { N = 200000 };
    char *stop = xmalloc(N + 2);
    memset(stop, 'a', N);
    strcpy(stop + N, "b");
    const char *stops[] = {stop};
    struct stream s;
    struct buf out = {0};
    stream_init(&s, stops, 1);
    for (int i = 0; i < 3 * N; i++)
        assert_false(stream_push(&s, "a", 1, &out));
    assert_int_equal(out.len, 2 * N);
    assert_true(stream_push(&s, "b", 1, &out));
    assert_int_equal(out.len, 2 * N);
    stream_release(&s);
    buf_release(&out);
    free(stop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(characters_come_out_whole),
        cmocka_unit_test(incomplete_character_is_held_back),
        cmocka_unit_test(invalid_bytes_are_replaced),
        cmocka_unit_test(stop_string_ends_the_text),
        cmocka_unit_test(stop_string_may_overlap_itself),
        cmocka_unit_test(first_complete_stop_string_wins),
        cmocka_unit_test(stop_string_of_several_byte_characters),
        cmocka_unit_test(possible_stop_string_is_held_back_and_released),
        cmocka_unit_test(nothing_comes_after_a_stop),
        cmocka_unit_test(long_stop_strings_are_fed_in_linear_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
