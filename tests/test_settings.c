/*
 * test_settings.c - the table of settings and values to and from text.
 */
#include "chat/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct err e;
static struct settings s;

static int setup(void **state) {
    (void)state;
    settings_init(&s);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    settings_release(&s);
    return 0;
}

static enum status set(const char *name, const char *value) {
    const struct setting_def *d = setting_find(name);
    assert_non_null(d);
    return setting_set(&s, d, value, &e);
}

static void table_agrees_with_the_defaults(void **state) {
    (void)state;
    for (size_t i = 0; i < n_setting_defs; i++) {
        const struct setting_def *d = &setting_defs[i];
        assert_non_null(d->help);
        assert_ptr_equal(setting_find(d->name), d);
        if (d->type == SETTING_LIST)
            continue;
        assert_true(setting_number(&s, d) == d->def);
        assert_true(d->min <= d->def && d->def <= d->max && d->step > 0);
    }
    assert_int_equal(n_setting_defs, 14);
}

static void words_are_one_of_the_tables(void **state) {
    (void)state;
    const struct setting_def *d = setting_find("speculation");
    struct settings t;
    struct buf b = {0};
    assert_int_equal(s.speculation, SPECULATION_AUTO);
    assert_string_equal(setting_word(d, SPECULATION_OFF), "off");
    assert_string_equal(setting_word(d, SPECULATION_LOOKUP), "lookup");
    assert_string_equal(setting_word(d, SPECULATION_DRAFT), "draft");
    assert_string_equal(setting_word(d, 4), "");
    const char *const bad[] = {"", "of", "offf", "off|auto", "1", "Off"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(set("speculation", bad[i]), ST_USAGE);
        assert_non_null(strstr(e.msg, "off|auto|lookup|draft"));
    }
    assert_int_equal(set("speculation", "draft"), ST_OK);
    setting_show(&s, d, &b);
    assert_string_equal(buf_str(&b), "draft");
    buf_release(&b);
    char *json = settings_to_json(&s);
    assert_non_null(strstr(json, "\"speculation\":\"draft\""));
    settings_init(&t);
    assert_int_equal(settings_from_json(&t, json, &e), ST_OK);
    assert_int_equal(t.speculation, SPECULATION_DRAFT);
    assert_int_equal(settings_from_json(&t, "{\"speculation\":2}", &e), ST_USAGE);
    settings_release(&t);
    free(json);
}

static void dashes_count_as_underscores(void **state) {
    (void)state;
    assert_ptr_equal(setting_find("top-k"), setting_find("top_k"));
    assert_null(setting_find("top"));
    assert_null(setting_find("top_k_"));
    assert_null(setting_find(""));
}

static void values_are_checked_and_named(void **state) {
    (void)state;
    static const char *const bad[][2] = {{"temperature", "hot"},
                                         {"temperature", "-1"},
                                         {"temperature", "nan"},
                                         {"temperature", "inf"},
                                         {"temperature", ""},
                                         {"temperature", "0x1p1"},
                                         {"temperature", "1 "},
                                         {"top_p", "1.5"},
                                         {"top_k", "2.5"},
                                         {"top_k", "-1"},
                                         {"top_k", "99999999999"},
                                         {"seed", "-2"},
                                         {"seed", "9223372036854775808"},
                                         {"max_tokens", "-2"},
                                         {"ctx", "1e3"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(set(bad[i][0], bad[i][1]), ST_USAGE);
        assert_memory_equal(e.msg, bad[i][0], strlen(bad[i][0]));
        assert_non_null(strstr(e.msg, "wanted"));
    }
    assert_int_equal(set("temperature", "0"), ST_OK);
    assert_int_equal(set("seed", "9223372036854775807"), ST_OK);
    assert_true(s.sampling.seed == INT64_MAX);
    assert_int_equal(set("presence_penalty", "-2"), ST_OK);
    assert_int_equal(set("repeat_last_n", "-1"), ST_OK);
}

static void stop_is_a_bounded_list(void **state) {
    (void)state;
    assert_int_equal(set("stop", "###"), ST_OK);
    assert_int_equal(set("stop", "###"), ST_OK); /* twice is once */
    assert_int_equal(s.stop.n, 1);
    assert_int_equal(set("stop", "\xff"), ST_USAGE);
    char text[16], *big = malloc(400);
    for (int i = 0; i < 15; i++) {
        snprintf(text, sizeof text, "%d", i);
        assert_int_equal(set("stop", text), ST_OK);
    }
    assert_int_equal(set("stop", "one more"), ST_USAGE);
    assert_int_equal(set("stop", ""), ST_OK);
    assert_int_equal(s.stop.n, 0);
    memset(big, 'x', 399);
    big[399] = '\0';
    assert_int_equal(set("stop", big), ST_USAGE);
    free(big);
}

static void json_comes_back(void **state) {
    (void)state;
    struct settings t;
    set("seed", "9007199254740993"); /* not a double */
    set("temperature", "0.123456");
    set("stop", "a\"b\n");
    char *json = settings_to_json(&s);
    settings_init(&t);
    assert_int_equal(settings_from_json(&t, json, &e), ST_OK);
    assert_true(t.sampling.seed == 9007199254740993LL);
    assert_true(t.sampling.temperature == 0.123456);
    assert_string_equal(t.stop.v[0], "a\"b\n");
    settings_release(&t);
    free(json);
}

static void json_is_taken_in_part_and_as_a_whole(void **state) {
    (void)state;
    assert_int_equal(settings_from_json(&s, "", &e), ST_OK);
    assert_int_equal(settings_from_json(&s, "{\"top_k\":5.0,\"future\":1,\"stop\":\"x\"}", &e),
                     ST_OK);
    assert_int_equal(s.sampling.top_k, 5);
    assert_int_equal(s.stop.n, 1);
    assert_true(s.sampling.top_p == 0.95);
    /* One wrong value and nothing changes. */
    assert_int_equal(settings_from_json(&s, "{\"temperature\":0.1,\"top_k\":-5}", &e),
                     ST_USAGE);
    assert_true(s.sampling.temperature == 0.7);
    assert_int_equal(settings_from_json(&s, "{\"top_k\":\"5\"}", &e), ST_USAGE);
    assert_int_equal(settings_from_json(&s, "{\"stop\":[1]}", &e), ST_USAGE);
    assert_int_equal(settings_from_json(&s, "[]", &e), ST_FORMAT);
    assert_int_equal(settings_from_json(&s, "{", &e), ST_FORMAT);
}

static void presets_change_what_they_name(void **state) {
    (void)state;
    assert_int_equal(n_presets, 3);
    set("seed", "5");
    settings_apply_preset(&s, &presets[2]);
    assert_string_equal(presets[2].name, "precise");
    assert_true(s.sampling.temperature == presets[2].temperature);
    assert_int_equal(s.sampling.seed, 5);
    settings_apply_preset(&s, &presets[1]); /* balanced are the defaults */
    struct settings d;
    settings_init(&d);
    assert_true(s.sampling.temperature == d.sampling.temperature);
    assert_true(s.sampling.top_p == d.sampling.top_p && s.sampling.min_p == d.sampling.min_p);
    assert_int_equal(s.sampling.top_k, d.sampling.top_k);
    settings_release(&d);
}

static void values_are_shown_as_typed(void **state) {
    (void)state;
    struct buf b = {0};
    set("stop", "a");
    set("stop", "b");
    setting_show(&s, setting_find("temperature"), &b);
    buf_adds(&b, "|");
    setting_show(&s, setting_find("seed"), &b);
    buf_adds(&b, "|");
    setting_show(&s, setting_find("stop"), &b);
    assert_string_equal(b.p, "0.7|-1|\"a\" \"b\"");
    buf_release(&b);
}

static void one_setting_is_copied_and_a_list_replaced(void **state) {
    (void)state;
    struct settings d;
    settings_init(&d);
    assert_int_equal(setting_set(&d, setting_find("stop"), "old", &e), ST_OK);
    set("stop", "a \"b\"");
    set("stop", "c");
    set("seed", "9007199254740993");
    set("temperature", "1.5");
    set("top_k", "3");
    static const char *const names[] = {"stop", "seed", "temperature"};
    for (int i = 0; i < 3; i++)
        setting_copy(&d, &s, setting_find(names[i]));
    assert_int_equal(d.stop.n, 2);
    assert_string_equal(d.stop.v[0], "a \"b\"");
    assert_true(d.sampling.seed == 9007199254740993LL);
    assert_true(d.sampling.temperature == 1.5);
    assert_int_equal(d.sampling.top_k, 40);
    settings_release(&d);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(table_agrees_with_the_defaults),
        T(words_are_one_of_the_tables),
        T(dashes_count_as_underscores),
        T(values_are_checked_and_named),
        T(stop_is_a_bounded_list),
        T(json_comes_back),
        T(json_is_taken_in_part_and_as_a_whole),
        T(presets_change_what_they_name),
        T(values_are_shown_as_typed),
        T(one_setting_is_copied_and_a_list_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
