/*
 * test_fuzzy.c - which of two names a few typed letters mean.
 */
#include "ui/fuzzy.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static int score(const char *pattern, const char *text) {
    return fuzzy_match(pattern, text, NULL, 0, NULL);
}

static void letters_must_occur_in_order(void **state) {
    (void)state;
    assert_true(score("nc", "New chat") > 0);
    assert_int_equal(score("cn", "New chat"), -1);
    assert_int_equal(score("neww", "New chat"), -1);
    assert_int_equal(score("", "New chat"), 0);
    assert_int_equal(score("a", ""), -1);
    assert_int_equal(score("", ""), 0);
}

static void case_and_blanks_do_not_count(void **state) {
    (void)state;
    assert_true(score("NEW CHAT", "New chat") > 0);
    assert_int_equal(score("new chat", "New chat"), score("newchat", "New chat"));
    assert_true(score("übung", "ÜBUNG") > 0);
}

static void better_matches_score_higher(void **state) {
    (void)state;
    assert_true(score("ec", "Export chat") > score("ec", "Select model"));     /* word starts */
    assert_true(score("chat", "New chat") > score("chat", "Macho fat"));       /* one piece */
    assert_true(score("mo", "Model") > score("mo", "Choose model"));           /* beginning */
    assert_true(score("quit", "Quit") > score("quit", "Quit without saving")); /* short */
    assert_true(score("bar", "fooBar") > score("bar", "foobar"));              /* camelCase */
}

static void positions_are_the_best_ones(void **state) {
    (void)state;
    size_t pos[8], n;
    /* not the first c and h that come, but the word */
    assert_true(fuzzy_match("chat", "Choose chat", pos, 8, &n) > 0);
    assert_int_equal(n, 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pos[i], 7 + i);
    assert_true(fuzzy_match("b", "éb", pos, 8, &n) > 0);
    assert_int_equal(pos[0], 2);
    assert_true(fuzzy_match("chat", "Choose chat", pos, 2, &n) > 0);
    assert_int_equal(n, 2);
}

static void long_and_broken_input_is_bounded(void **state) {
    (void)state;
    char text[4096], pattern[512];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = 0;
    memset(pattern, 'a', sizeof pattern - 1);
    pattern[sizeof pattern - 1] = 0;
    size_t pos[512], n;
    assert_true(fuzzy_match(pattern, text, pos, 512, &n) > 0);
    assert_int_equal(n, FUZZY_MAX_PATTERN);
    for (size_t i = 1; i < n; i++)
        assert_true(pos[i] > pos[i - 1]);
    assert_int_equal(score("b", "\xff\xfe"), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(letters_must_occur_in_order),
        cmocka_unit_test(case_and_blanks_do_not_count),
        cmocka_unit_test(better_matches_score_higher),
        cmocka_unit_test(positions_are_the_best_ones),
        cmocka_unit_test(long_and_broken_input_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
