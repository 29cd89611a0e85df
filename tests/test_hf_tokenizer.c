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

/* One file of a case: text, an object, or bytes in hexadecimal. */
static void put_file(const char *dir, const char *name, json_t *x) {
    char *path = path_join(dir, name), *text = NULL;
    struct buf data = {0};
    struct err err;
    if (strcmp(name, "tokenizer.model") == 0) {
        for (const char *p = json_string_value(x); *p; p += 2)
            buf_addc(&data, (char)strtol((char[]){p[0], p[1], 0}, NULL, 16));
    } else {
        text = json_is_string(x) ? xstrdup(json_string_value(x)) : json_dumps(x, 0);
        buf_adds(&data, text);
    }
    assert_int_equal(file_write_atomic(path, data.p, data.len, &err), ST_OK);
    buf_release(&data);
    free(text);
    free(path);
}

static void check_ids(const char *what, const char *of, const struct tok_list *got,
                      const json_t *want) {
    bool same = got->n == json_array_size(want);
    for (size_t i = 0; i < got->n && same; i++)
        same = got->v[i] == (int32_t)json_integer_value(json_array_get(want, i));
    if (!same)
        fail_msg("%s: other ids for \"%s\"", what, of);
}

static int id_or_none(const json_t *id) {
    return json_is_integer(id) ? (int)json_integer_value(id) : -1;
}

static void check_folder(const char *dir, const json_t *one, const json_t *messages) {
    const char *what = json_string_value(json_object_get(one, "what"));
    struct text_model *t;
    struct tok_list got = {0};
    struct err err;
    json_t *row;
    size_t i;
    if (text_open(dir, &t, &err) != ST_OK)
        fail_msg("%s: %s", what, err.msg);
    assert_int_equal(text_bos(t), id_or_none(json_object_get(one, "bos")));
    assert_int_equal(text_eos(t), id_or_none(json_object_get(one, "eos")));
    json_array_foreach(json_object_get(one, "rows"), i, row) {
        const char *text = json_string_value(json_object_get(row, "text"));
        got.n = 0;
        assert_int_equal(text_encode(t, text, strlen(text),
                                     &(struct encode_opts){.special = true}, &got, &err),
                         ST_OK);
        check_ids(what, text, &got, json_object_get(row, "ids"));
    }
    char *list = json_dumps(messages, 0);
    got.n = 0;
    assert_int_equal(text_prompt(t, &(struct render_opts){.messages_json = list}, &got, &err),
                     ST_OK);
    check_ids(what, "the prompt", &got, json_object_get(one, "prompt"));
    tok_list_release(&got);
    text_close(t);
    free(list);
}

/* golden/tokenizer/hf/configs.json: folders whose small files change what tokens mean. */
static void small_files_mean_what_transformers_says(void **state) {
    (void)state;
    char *path = golden("configs.json");
    json_error_t at;
    json_t *root = json_load_file(path, 0, &at), *one, *x;
    const char *name;
    size_t i;
    assert_true(json_array_size(json_object_get(root, "cases")) >= 12);
    json_array_foreach(json_object_get(root, "cases"), i, one) {
        char dir[] = "/tmp/llmchat-tok-XXXXXX";
        assert_non_null(mkdtemp(dir));
        json_object_foreach(json_object_get(one, "files"), name, x) put_file(dir, name, x);
        check_folder(dir, one, json_object_get(root, "messages"));
        json_object_foreach(json_object_get(one, "files"), name, x) {
            char *file = path_join(dir, name);
            unlink(file);
            free(file);
        }
        rmdir(dir);
    }
    json_decref(root);
    free(path);
}

/* A tokenizer of one letter, with a further member, and beside it another file. */
static void values_of_a_wrong_type_are_named(void **state) {
    (void)state;
    static const struct {
        const char *more, *file, *text, *wanted;
    } cases[] = {
        {"\"added_tokens\":5", NULL, NULL, "tokenizer.json: added_tokens is 5"},
        {"\"added_tokens\":{\"id\":1}", NULL, NULL, "added_tokens is an object"},
        {"\"added_tokens\":[5]", NULL, NULL, "added_tokens: entry 0"},
        {"\"post_processor\":\"x\"", NULL, NULL, "tokenizer.json: post_processor is \"x\""},
        {"\"post_processor\":{\"type\":\"Sequence\",\"processors\":7}", NULL, NULL,
         "post_processor: processors"},
        {"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":\"$A\"}", NULL, NULL,
         "post_processor: single"},
        {"\"normalizer\":7", NULL, NULL, "normalizer"},
        {"\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":7}", NULL, NULL,
         "precompiled_charsmap"},
        {"\"pre_tokenizer\":[]", NULL, NULL, "pre_tokenizer"},
        {"\"decoder\":\"x\"", NULL, NULL, "decoder"},
        {"\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}", NULL, NULL,
         "tokenizer.json: model.vocab"},
        {"\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":{}}", NULL, NULL,
         "tokenizer.json: model.merges"},
        {"\"model\":{\"type\":\"Unigram\",\"vocab\":{\"a\":0}}", NULL, NULL, "model.vocab"},
        {NULL, "tokenizer_config.json", "{\"added_tokens_decoder\":[]}",
         "tokenizer_config.json: added_tokens_decoder"},
        {NULL, "tokenizer_config.json", "{\"bos_token\":5}",
         "tokenizer_config.json: bos_token"},
        {NULL, "tokenizer_config.json", "{\"eos_token\":{\"content\":5}}", "eos_token"},
        {NULL, "tokenizer_config.json", "{\"additional_special_tokens\":5}",
         "additional_special_tokens"},
        {NULL, "tokenizer_config.json", "{\"add_bos_token\":\"true\"}", "add_bos_token"},
        {NULL, "tokenizer_config.json", "{\"tokenizer_class\":7}", "tokenizer_class"},
        {NULL, "special_tokens_map.json", "{\"pad_token\":[]}",
         "special_tokens_map.json: pad_token"},
        {NULL, "special_tokens_map.json", "[]", "special_tokens_map.json"},
        {NULL, "added_tokens.json", "{\"x\":\"y\"}", "added_tokens.json"},
        {NULL, "generation_config.json", "{\"eos_token_id\":\"x\"}",
         "generation_config.json: eos_token_id"},
    };
    char dir[] = "/tmp/llmchat-tok-XXXXXX";
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *path = path_join(dir, cases[i].file ? cases[i].file : "none"), *json;
        bool model = cases[i].more && strncmp(cases[i].more, "\"model\"", 7) == 0;
        struct err err;
        json =
            xasprintf("{%s%s%s}",
                      model ? ""
                            : "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},"
                              "\"merges\":[]}",
                      cases[i].more && !model ? "," : "", cases[i].more ? cases[i].more : "");
        if (cases[i].file)
            assert_int_equal(
                file_write_atomic(path, cases[i].text, strlen(cases[i].text), &err), ST_OK);
        if (damaged(dir, json, strlen(json), &err) != ST_FORMAT ||
            !strstr(err.msg, cases[i].wanted))
            fail_msg("%s%s: \"%s\", wanted \"%s\"", json, cases[i].text ? cases[i].text : "",
                     err.msg, cases[i].wanted);
        remove(path);
        free(json);
        free(path);
    }
    char *path = path_join(dir, "tokenizer.json");
    remove(path);
    rmdir(dir);
    free(path);
}

/* vocab.json and merges.txt do not say how to cut, so the class must be known. */
static void vocabulary_files_of_an_unknown_class_are_refused(void **state) {
    (void)state;
    char dir[] = "/tmp/llmchat-tok-XXXXXX";
    static const char *const files[][2] = {
        {"vocab.json", "{\"a\":0}"},
        {"merges.txt", ""},
        {"tokenizer_config.json", "{\"tokenizer_class\":\"OddTokenizer\"}"}};
    struct text_model *t;
    struct err err;
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < 3; i++) {
        json_t *text = json_string(files[i][1]);
        put_file(dir, files[i][0], text);
        json_decref(text);
    }
    assert_int_equal(text_open(dir, &t, &err), ST_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "OddTokenizer"));
    for (size_t i = 0; i < 3; i++) {
        char *path = path_join(dir, files[i][0]);
        remove(path);
        free(path);
    }
    rmdir(dir);
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
/* A tokenizer of ones that cuts where a match of this expression, as JSON has it, is. */
static struct text_model *open_cutting(const char *dir, const char *regex) {
    char *path = path_join(dir, "tokenizer.json");
    char *json =
        xasprintf("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"1\":0,\"a\":1,\"11\":2,\"111\":3},"
                  "\"merges\":[\"1 1\",\"11 1\"]},\"pre_tokenizer\":{\"type\":\"Sequence\","
                  "\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},"
                  "\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\","
                  "\"add_prefix_space\":false,\"use_regex\":false}]}}",
                  regex);
    struct text_model *t;
    struct err err;
    assert_int_equal(file_write_atomic(path, json, strlen(json), &err), ST_OK);
    if (text_open(dir, &t, &err) != ST_OK)
        fail_msg("%s: %s", regex, err.msg);
    unlink(path);
    free(json);
    free(path);
    return t;
}

/* Groups of three from the right, for runs of any length: the first may be shorter. */
static void check_groups(const struct text_model *t, const char *text, size_t n) {
    static const int32_t of_len[] = {3, 0, 2};
    struct tok_list out = {0};
    struct err err;
    assert_int_equal(text_encode(t, text, n, &(struct encode_opts){0}, &out, &err), ST_OK);
    assert_int_equal(out.n, (n + 2) / 3);
    for (size_t i = 0; i < out.n; i++)
        assert_int_equal(out.v[i], i == 0 ? of_len[n % 3] : 3);
    tok_list_release(&out);
}

/* A long number that somebody pastes is cut; looking to its end for each group took quadratic
 * time, and was refused from 5000 digits on. */
static void digits_are_counted_from_the_right_in_linear_time(void **state) {
    (void)state;
    static const char *const expressions[] = {"\\\\d{1,3}(?=(?:\\\\d{3})*\\\\b)",
                                              "[0-9]{1,3}(?=(?:[0-9]{3})*\\\\b)",
                                              "(?=(\\\\d{3})+(?!\\\\d))"};
    enum { LEN = 1 << 20 };
    char dir[] = "/tmp/llmchat-tok-XXXXXX", *text = xmalloc(LEN);
    assert_non_null(mkdtemp(dir));
    memset(text, '1', LEN);
    for (size_t i = 0; i < sizeof expressions / sizeof *expressions; i++) {
        struct text_model *t = open_cutting(dir, expressions[i]);
        struct tok_list out = {0};
        struct err err;
        for (size_t n = 1; n < 40; n++)
            check_groups(t, text, n);
        clock_t start = clock();
        for (size_t n = LEN - 3; n < LEN; n++)
            check_groups(t, text, n);
        assert_true(clock() - start < 10 * CLOCKS_PER_SEC);
        /* a letter behind it is no border of a word */
        assert_int_equal(text_encode(t, "1111a1111", 9, &(struct encode_opts){0}, &out, &err),
                         ST_OK);
        int32_t whole[] = {2, 2, 1, 0, 3}, cut[] = {0, 3, 1, 0, 3};
        assert_int_equal(out.n, 5);
        assert_memory_equal(out.v, i < 2 ? whole : cut, sizeof cut);
        tok_list_release(&out);
        text_close(t);
    }
    rmdir(dir);
    free(text);
}

static void quadratic_expressions_end_in_an_error(void **state) {
    (void)state;
    enum { LEN = 1 << 20 };
    char dir[] = "/tmp/llmchat-tok-XXXXXX", *text = xmalloc(LEN);
    struct tok_list out = {0};
    struct err err;
    assert_non_null(mkdtemp(dir));
    clock_t start = clock();
    struct text_model *t = open_cutting(dir, "\\\\d{1,3}(?=(?:\\\\d{3})*\\\\D)");
    assert_true(clock() - start < 3 * CLOCKS_PER_SEC);
    memset(text, 'a', LEN);
    memset(text + LEN / 2, '1', 2000);
    assert_int_equal(text_encode(t, text, LEN, &(struct encode_opts){0}, &out, &err), ST_OK);
    assert_int_equal(out.n, LEN - 2000 + 667); /* the ones in groups of three */
    memset(text, '1', LEN);
    assert_int_equal(text_encode(t, text, LEN, &(struct encode_opts){0}, &out, &err), ST_LIMIT);
    assert_true(clock() - start < 60 * CLOCKS_PER_SEC);
    text_close(t);
    rmdir(dir);
    tok_list_release(&out);
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
        cmocka_unit_test(small_files_mean_what_transformers_says),
        cmocka_unit_test(values_of_a_wrong_type_are_named),
        cmocka_unit_test(vocabulary_files_of_an_unknown_class_are_refused),
        cmocka_unit_test(many_added_tokens_are_opened_in_linear_time),
        cmocka_unit_test(digits_are_counted_from_the_right_in_linear_time),
        cmocka_unit_test(quadratic_expressions_end_in_an_error),
        cmocka_unit_test(the_vocabulary_fills_the_embedding),
        cmocka_unit_test(damaged_files_are_refused_with_a_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
