/*
 * test_hf_tokenizer.c - tokenizer.json files against what the tokenizers library made of texts
 * with them, and a tokenizer.model against sentencepiece: tests/golden/tokenizer/hf, written by
 * tests/oracle/hf_tokenizer.py.
 */
#include "base/path.h"
#include "engine/text.h"
#include "engine/text/hf_tokenizer.h"
#include "engine/text/text_internal.h"
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const kinds[] = {"behaviors", "deepseek3",     "llama2",
                                    "norms",     "unigram-plain", "sp-sums"};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static char *golden(const char *kind) {
    const char *top = getenv("srcdir");
    return xasprintf("%s/tests/golden/tokenizer/hf/%s", top ? top : ".", kind);
}

static json_t *rows_of(const char *folder, json_t **root) {
    char *path = path_join(folder, "expected.json");
    json_error_t at;
    *root = json_load_file(path, JSON_ALLOW_NUL, &at);
    if (!*root)
        fail_msg("%s: %s", path, at.text);
    free(path);
    return json_object_get(*root, "rows");
}

static void check_row(const struct text_model *t, const char *kind, size_t i, json_t *row) {
    json_t *text = json_object_get(row, "text"), *ids = json_object_get(row, "ids");
    json_t *decoded = json_object_get(row, "decoded");
    bool special = json_is_true(json_object_get(row, "special"));
    struct encode_opts o = {.special = special, .bos = special, .eos = special};
    struct tok_list got = {0};
    struct buf back = {0};
    struct err err;
    assert_int_equal(
        text_encode(t, json_string_value(text), json_string_length(text), &o, &got, &err),
        ST_OK);
    if (got.n != json_array_size(ids))
        fail_msg("%s, row %zu: %zu ids, wanted %zu", kind, i, got.n, json_array_size(ids));
    for (size_t k = 0; k < got.n; k++)
        if (got.v[k] != (int32_t)json_integer_value(json_array_get(ids, k)))
            fail_msg("%s, row %zu: id %zu is %d, wanted %d", kind, i, k, got.v[k],
                     (int)json_integer_value(json_array_get(ids, k)));
    text_decode_all(t, got.v, got.n, true, &back);
    if (back.len != json_string_length(decoded) ||
        memcmp(buf_str(&back), json_string_value(decoded), back.len) != 0)
        fail_msg("%s, row %zu: decoded as \"%s\", wanted \"%s\"", kind, i, buf_str(&back),
                 json_string_value(decoded));
    buf_release(&back);
    tok_list_release(&got);
}

static void ids_and_texts_are_the_librarys(void **state) {
    (void)state;
    for (int k = 0; k < N_KINDS; k++) {
        char *folder = golden(kinds[k]);
        struct text_model *t;
        struct err err;
        json_t *root, *rows = rows_of(folder, &root);
        if (text_open(folder, &t, &err) != ST_OK)
            fail_msg("%s: %s", folder, err.msg);
        assert_true(json_array_size(rows) >= (strcmp(kinds[k], "sp-sums") == 0 ? 1 : 50));
        for (size_t i = 0; i < json_array_size(rows); i++)
            check_row(t, kinds[k], i, json_array_get(rows, i));
        text_close(t);
        json_decref(root);
        free(folder);
    }
}

/* golden/tokenizer/hf/rules.json: a small tokenizer for each rule, and what it says. */
static void small_rules_are_the_librarys(void **state) {
    (void)state;
    char dir[] = "/tmp/llmchat-tok-XXXXXX", *path = golden("rules.json");
    json_error_t at;
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, &at),
           *cases = json_object_get(root, "cases");
    assert_non_null(mkdtemp(dir));
    assert_true(json_array_size(cases) >= 6);
    char *file = path_join(dir, "tokenizer.json");
    for (size_t k = 0; k < json_array_size(cases); k++) {
        json_t *one = json_array_get(cases, k), *rows = json_object_get(one, "rows");
        const char *what = json_string_value(json_object_get(one, "what"));
        struct text_model *t;
        struct err err;
        assert_int_equal(json_dump_file(json_object_get(one, "tokenizer"), file, 0), 0);
        if (text_open(dir, &t, &err) != ST_OK)
            fail_msg("%s: %s", what, err.msg);
        for (size_t i = 0; i < json_array_size(rows); i++)
            check_row(t, what, i, json_array_get(rows, i));
        text_close(t);
    }
    unlink(file);
    rmdir(dir);
    json_decref(root);
    free(file);
    free(path);
}

/* CPU seconds to open a tokenizer with n added tokens that are looked for in normalized text.
 */
static double open_with_added(const char *dir, int n) {
    struct buf text = {0};
    struct text_model *t;
    struct err err;
    char *path = path_join(dir, "tokenizer.json");
    buf_adds(&text, "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},"
                    "\"added_tokens\":[");
    for (int i = 1; i <= n; i++)
        buf_addf(&text, "%s{\"id\":%d,\"content\":\"<t%d>\",\"normalized\":true}",
                 i > 1 ? "," : "", i, i);
    buf_adds(&text, "]}");
    assert_int_equal(file_write_atomic(path, text.p, text.len, &err), ST_OK);
    clock_t start = clock();
    assert_int_equal(text_open(dir, &t, &err), ST_OK);
    double took = (double)(clock() - start) / CLOCKS_PER_SEC;
    text_close(t);
    unlink(path);
    free(path);
    buf_release(&text);
    return took;
}

/* Four times as many took 13 times as long when each was searched for in the list of all. */
static void many_added_tokens_are_opened_in_linear_time(void **state) {
    (void)state;
    char dir[] = "/tmp/llmchat-tok-XXXXXX";
    assert_non_null(mkdtemp(dir));
    double few = open_with_added(dir, 20000), many = open_with_added(dir, 80000);
    if (many > 9 * few)
        fail_msg("20000 added tokens: %.2f s, 80000: %.2f s", few, many);
    rmdir(dir);
}

/* An expression that looks to the end of a run for each match: published, and quadratic. JIT
 * took hours for a megabyte of digits, opening took seconds. */
static void quadratic_expressions_end_in_an_error(void **state) {
    (void)state;
    static const char json[] =
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"1\":0,\"a\":1},\"merges\":[]},"
        "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
        "\"pattern\":{\"Regex\":\"\\\\d{1,3}(?=(?:\\\\d{3})*\\\\b)\"},\"behavior\":"
        "\"Isolated\","
        "\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
        "\"use_regex\":false}]}}";
    enum { LEN = 1 << 20 };
    char dir[] = "/tmp/llmchat-tok-XXXXXX", *text = xmalloc(LEN);
    struct text_model *t;
    struct tok_list out = {0};
    struct err err;
    assert_non_null(mkdtemp(dir));
    char *path = path_join(dir, "tokenizer.json");
    assert_int_equal(file_write_atomic(path, json, sizeof json - 1, &err), ST_OK);
    clock_t start = clock();
    assert_int_equal(text_open(dir, &t, &err), ST_OK);
    assert_true(clock() - start < 3 * CLOCKS_PER_SEC);
    memset(text, 'a', LEN);
    memset(text + LEN / 2, '1', 2000);
    assert_int_equal(text_encode(t, text, LEN, &(struct encode_opts){0}, &out, &err), ST_OK);
    assert_int_equal(out.n, LEN);
    memset(text, '1', LEN);
    assert_int_equal(text_encode(t, text, LEN, &(struct encode_opts){0}, &out, &err), ST_LIMIT);
    assert_true(clock() - start < 60 * CLOCKS_PER_SEC);
    text_close(t);
    unlink(path);
    rmdir(dir);
    tok_list_release(&out);
    free(path);
    free(text);
}

static void the_vocabulary_fills_the_embedding(void **state) {
    (void)state;
    char *folder = golden("llama2");
    struct vocab_data v;
    struct err err;
    assert_int_equal(vocab_from_hf(&v, folder, 0, &err), ST_OK);
    uint32_t n = v.tokens.n;
    vocab_release(&v);
    assert_int_equal(vocab_from_hf(&v, folder, (int)n + 13, &err), ST_OK);
    assert_int_equal(v.tokens.n, n + 13);
    assert_int_equal(v.types[n + 12], VOCAB_UNUSED);
    vocab_release(&v);
    assert_int_equal(vocab_from_hf(&v, folder, (int)n - 1, &err), ST_FORMAT);
    free(folder);
}

/* tokenizer.json of the golden folder, damaged, in a folder of its own. */
static enum status damaged(const char *dir, const char *text, size_t len, struct err *err) {
    char *path = path_join(dir, "tokenizer.json");
    struct text_model *t = NULL;
    assert_int_equal(file_write_atomic(path, text, len, err), ST_OK);
    *err = (struct err){0};
    enum status st = text_open(dir, &t, err);
    if (st == ST_OK)
        text_close(t);
    free(path);
    return st;
}

static void damaged_files_are_refused_with_a_message(void **state) {
    (void)state;
    char dir[] = "/tmp/llmchat-tok-XXXXXX", *folder = golden("llama2");
    char *path = path_join(folder, "tokenizer.json");
    struct buf whole = {0};
    struct err err;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(file_read(path, 1 << 24, &whole, &err), ST_OK);
    assert_int_equal(damaged(dir, whole.p, whole.len, &err), ST_OK);
    for (size_t n = 0; n < whole.len; n += whole.len / 8) {
        assert_int_not_equal(damaged(dir, whole.p, n, &err), ST_OK);
        assert_true(*err.msg != 0);
    }
    static const char *const texts[] = {
        "{}",
        "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":4000000000},\"merges\":[]}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},"
        "\"normalizer\":{\"type\":\"Magic\"}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},"
        "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},"
        "\"behavior\":\"Isolated\",\"invert\":false}}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (damaged(dir, texts[i], strlen(texts[i]), &err) == ST_OK)
            fail_msg("taken: %s", texts[i]);
        assert_true(*err.msg != 0);
    }
    free(path);
    path = path_join(dir, "tokenizer.json");
    remove(path);
    remove(dir);
    free(path);
    free(folder);
    buf_release(&whole);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_and_texts_are_the_librarys),
        cmocka_unit_test(small_rules_are_the_librarys),
        cmocka_unit_test(many_added_tokens_are_opened_in_linear_time),
        cmocka_unit_test(quadratic_expressions_end_in_an_error),
        cmocka_unit_test(the_vocabulary_fills_the_embedding),
        cmocka_unit_test(damaged_files_are_refused_with_a_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
