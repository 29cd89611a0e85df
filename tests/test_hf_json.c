/*
 * test_hf_json.c - JSON files of a Hugging Face folder: what Python writes loads, and getters
 * take nothing for what it isn't.
 */
#include "engine/model/hf_json.h"
#include "hf_folder.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
/* after the headers that it needs */
#include "ok.h"
#include <cmocka.h>

static int make_folder(void **state) {
    (void)state;
    folder_make();
    return 0;
}

static int drop_folder(void **state) {
    (void)state;
    folder_drop();
    return 0;
}

static struct hf_json parsed(const char *text) {
    struct hf_json j;
    OK(hf_json_parse(text, strlen(text), "config.json", &j, &e));
    return j;
}

static void getters_find_values_under_any_spelling(void **state) {
    (void)state;
    struct hf_json j = parsed("{\"n_embd\": 64, \"d_model\": 65, \"eps\": 1e-5, \"tie\": true,"
                              "\"act\": \"silu\", \"none\": null, \"whole\": 4096.0}"),
                   child;
    int n = 0;
    float f = 0;
    bool b = false;
    const char *s = NULL;
    OK(hf_int(&j, "hidden_size|n_embd|d_model", true, 1, 100, &n, &e));
    assert_int_equal(n, 64);
    OK(hf_int(&j, "none|d_model", true, 1, 100, &n, &e));
    assert_int_equal(n, 65);
    OK(hf_int(&j, "whole", true, 1, 4096, &n, &e));
    assert_int_equal(n, 4096);
    OK(hf_num(&j, "eps", true, &f, &e));
    assert_true(f == 1e-5f);
    OK(hf_bool(&j, "tie", &b, &e));
    assert_true(b);
    OK(hf_str(&j, "act", true, &s, &e));
    assert_string_equal(s, "silu");
    assert_null(hf_get(&j, "none"));
    assert_null(hf_get(&j, "absent|none"));
    OK(hf_int(&j, "absent", false, 1, 2, &n, &e));
    assert_int_equal(n, 4096);
    OK(hf_child(&j, "absent", &child, &e));
    assert_null(child.root);
    OK(hf_int(&child, "anything", false, 1, 2, &n, &e));
    hf_json_release(&j);
}

static void wrong_values_are_named(void **state) {
    (void)state;
    struct hf_json j = parsed("{\"size\": \"x\", \"big\": 262145, \"half\": 1.5, \"list\": [1],"
                              "\"flag\": 1, \"object\": {}, \"nul\": \"a\\u0000b\"}"),
                   child;
    int n = 7;
    float f = 7;
    bool b = true;
    const char *s = "seven";
#define WRONG(call, text)                                                                      \
    assert_int_equal(call, ST_FORMAT);                                                         \
    assert_string_equal(e.msg, text)
    WRONG(hf_int(&j, "absent|other", true, 1, 9, &n, &e), "config.json: absent is missing");
    WRONG(hf_int(&j, "size", true, 1, 262144, &n, &e),
          "config.json: size is \"x\", wanted an integer 1..262144");
    WRONG(hf_int(&j, "big", false, 1, 262144, &n, &e),
          "config.json: big is 262145, wanted an integer 1..262144");
    WRONG(hf_int(&j, "half", false, 1, 9, &n, &e),
          "config.json: half is 1.5, wanted an integer 1..9");
    WRONG(hf_int(&j, "list", false, 1, 9, &n, &e),
          "config.json: list is a list, wanted an integer 1..9");
    WRONG(hf_num(&j, "size", false, &f, &e), "config.json: size is \"x\", wanted a number");
    WRONG(hf_bool(&j, "flag", &b, &e), "config.json: flag is 1, wanted true or false");
    WRONG(hf_str(&j, "big", false, &s, &e), "config.json: big is 262145, wanted a text");
    WRONG(hf_str(&j, "object", false, &s, &e),
          "config.json: object is an object, wanted a text");
    WRONG(hf_str(&j, "absent", true, &s, &e), "config.json: absent is missing");
    assert_int_equal(hf_str(&j, "nul", false, &s, &e), ST_FORMAT);
    WRONG(hf_child(&j, "list", &child, &e), "config.json: list is a list, wanted an object");
#undef WRONG
    assert_int_equal(n, 7);
    assert_true(f == 7 && b);
    assert_string_equal(s, "seven");
    hf_json_release(&j);
}

/* model_max_length of a tokenizer without a limit, as transformers writes it. */
static void pythons_numbers_load_and_are_taken_for_nothing_else(void **state) {
    (void)state;
    struct hf_json j = parsed(
        "{\"model_max_length\": 1000000000000000019884624838656, \"a\": NaN, \"b\": Infinity,"
        "\"c\": [0.0, -Infinity], \"text\": \"NaN Infinity 99999999999999999999\","
        "\"max\": 9223372036854775807, \"min\": -9223372036854775807,"
        "\"over\": 9223372036854775808, \"esc\": \"\\\"NaN\", \"n\": 5}");
    int n = 0;
    float f = 0;
    const char *s;
    assert_true(json_real_value(hf_get(&j, "model_max_length")) == 1e30);
    assert_int_equal(hf_int(&j, "model_max_length", true, 1, INT32_MAX, &n, &e), ST_FORMAT);
    assert_int_equal(hf_num(&j, "a", true, &f, &e), ST_FORMAT);
    assert_string_equal(e.msg, "config.json: a is \"NaN\", wanted a number");
    assert_int_equal(hf_num(&j, "b", true, &f, &e), ST_FORMAT);
    assert_false(json_is_number(json_array_get(hf_get(&j, "c"), 1)));
    OK(hf_str(&j, "text", true, &s, &e));
    assert_string_equal(s, "NaN Infinity 99999999999999999999");
    OK(hf_str(&j, "esc", true, &s, &e));
    assert_string_equal(s, "\"NaN");
    assert_true(json_integer_value(hf_get(&j, "max")) == INT64_MAX);
    assert_true(json_integer_value(hf_get(&j, "min")) == -INT64_MAX);
    assert_true(json_real_value(hf_get(&j, "over")) == 0x1p63);
    OK(hf_int(&j, "n", true, 1, 9, &n, &e));
    assert_int_equal(n, 5);
    hf_json_release(&j);
    struct buf long_int = {0};
    buf_adds(&long_int, "{\"n\":-");
    for (int i = 0; i < 5000; i++)
        buf_addc(&long_int, '9');
    buf_adds(&long_int, "}");
    j = parsed(buf_str(&long_int));
    assert_string_equal(json_string_value(hf_get(&j, "n")), "-Infinity");
    hf_json_release(&j);
    buf_release(&long_int);
}

static void what_is_no_json_is_refused(void **state) {
    (void)state;
    static const char *const wrong[] = {"",
                                        "{",
                                        "[]",
                                        "[1, 2]",
                                        "7",
                                        "{\"a\": 1, \"a\": 2}",
                                        "{\"a\": NaNNaN}",
                                        "{\"a\": 1Infinity}",
                                        "{\"a\": 0999999999999999999999}",
                                        "{\"a\": \"\xff\"}",
                                        "{\"a\": \"",
                                        "{\"a\": \"\\",
                                        "{\"a\": -",
                                        "{\"a\": -Infinit",
                                        "{\"a\": Na",
                                        "{\"a\\u0000b\": 1}",
                                        "{} x"};
    struct hf_json j;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        size_t len = strlen(wrong[i]);
        char *exact = malloc(len + 1);
        memcpy(exact, wrong[i], len);
        if (hf_json_parse(exact, len, "f.json", &j, &e) != ST_FORMAT || j.root)
            fail_msg("%s was taken", wrong[i]);
        assert_memory_equal(e.msg, "f.json: ", 8);
        free(exact);
    }
    struct buf deep = {0};
    buf_adds(&deep, "{\"a\":");
    for (int i = 0; i < 1000000; i++)
        buf_addc(&deep, '[');
    assert_int_equal(hf_json_parse(deep.p, deep.len, "f.json", &j, &e), ST_FORMAT);
    for (int i = 0; i < 1500000; i++)
        buf_adds(&deep, "],[");
    assert_int_equal(hf_json_parse(deep.p, deep.len, "f.json", &j, &e), ST_FORMAT);
    for (int i = 0; i < 1000000; i++)
        buf_adds(&deep, "{}");
    assert_int_equal(hf_json_parse(deep.p, deep.len, "f.json", &j, &e), ST_LIMIT);
    buf_release(&deep);
}

static void files_are_bounded_and_may_be_missing(void **state) {
    (void)state;
    struct hf_json j;
    folder_text("a.json", "{\"a\": 1}");
    OK(hf_json_load(folder, "a.json", true, 8, &j, &e));
    hf_json_release(&j);
    assert_int_equal(hf_json_load(folder, "a.json", true, 7, &j, &e), ST_LIMIT);
    assert_int_equal(hf_json_load(folder, "a.json", false, 7, &j, &e), ST_LIMIT);
    OK(hf_json_load(folder, "b.json", false, 8, &j, &e));
    assert_null(j.root);
    assert_null(hf_get(&j, "a"));
    assert_int_equal(hf_json_load(folder, "b.json", true, 8, &j, &e), ST_NOT_FOUND);
    assert_non_null(strstr(e.msg, "has no file b.json"));
    hf_json_release(&j);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(getters_find_values_under_any_spelling),
        cmocka_unit_test(wrong_values_are_named),
        cmocka_unit_test(pythons_numbers_load_and_are_taken_for_nothing_else),
        cmocka_unit_test(what_is_no_json_is_refused),
        cmocka_unit_test(files_are_bounded_and_may_be_missing),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
