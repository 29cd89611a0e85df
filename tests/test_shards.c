/*
 * test_shards.c - the safetensors files of a folder as one set: which files count, and that
 * an index is held to what the files have.
 */
#include "engine/model/shards.h"
#include "hf_folder.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
/* after the headers that it needs */
#include "ok.h"
#include <cmocka.h>

#define INDEX "model.safetensors.index.json"

static int make_folder(void **state) {
    (void)state;
    folder_make();
    return 0;
}

static int empty_folder(void **state) {
    (void)state;
    folder_empty();
    return 0;
}

static int drop_folder(void **state) {
    (void)state;
    folder_drop();
    return 0;
}

/* A file with one or two vectors of two numbers. */
static void put(const char *file, const char *a, const char *b) {
    struct st_file s = {0};
    st_count(&s, a, "[2]", 2, 1);
    if (b)
        st_count(&s, b, "[1,2]", 2, 3);
    folder_st(file, &s);
}

static void two_shards(void) {
    put("b.safetensors", "z", "m");
    put("a.safetensors", "y", "n");
}

static struct shards *opened(void) {
    struct shards *s = NULL;
    OK(shards_open(folder, &s, &e));
    return s;
}

/* Opening must fail so, with this in the message. */
static void fails(enum status want, const char *words) {
    struct shards *s = NULL;
    struct err err = {0};
    enum status st = shards_open(folder, &s, &err);
    if (st != want || !strstr(err.msg, words))
        fail_msg("got %d \"%s\", wanted %d with \"%s\"", st, err.msg, want, words);
}

static void a_single_file_is_a_set(void **state) {
    (void)state;
    put("model.safetensors", "a", "b");
    struct shards *s = opened();
    bool used;
    assert_int_equal(shards_n(s), 2);
    assert_int_equal(shards_n_files(s), 1);
    assert_true(shards_has(s, "b"));
    assert_false(shards_has(s, "c"));
    assert_null(shards_find(s, "c"));
    assert_string_equal(shards_tensor(s, 1, &used)->name, "b");
    assert_false(used);
    const struct ctensor *t = shards_find(s, "b");
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->shape[1], 2);
    float v[2];
    memcpy(v, t->data, sizeof v);
    assert_true(v[0] == 3 && v[1] == 4);
    shards_tensor(s, 1, &used);
    assert_true(used);
    shards_tensor(s, 0, &used);
    assert_false(used);
    shards_close(s);
}

static void shards_are_joined_and_their_files_sorted(void **state) {
    (void)state;
    two_shards();
    folder_text(INDEX, "{\"metadata\":{\"total_size\":32},\"weight_map\":{\"z\":"
                       "\"b.safetensors\",\"m\":\"b.safetensors\",\"y\":\"a.safetensors\","
                       "\"n\":\"a.safetensors\"}}");
    struct shards *s = opened();
    static const char *const names[] = {"m", "n", "y", "z"}, *const files[] = {"b", "a", "a",
                                                                               "b"};
    assert_int_equal(shards_n(s), 4);
    for (size_t i = 0; i < 4; i++) {
        bool used;
        const struct ctensor *t = shards_tensor(s, i, &used);
        assert_string_equal(t->name, names[i]);
        assert_int_equal(shards_file(s, t)[0], files[i][0]);
    }
    assert_int_equal(shards_n_files(s), 2);
    struct container *a;
    char path[128];
    snprintf(path, sizeof path, "%s/a.safetensors", folder);
    OK(container_open(path, &a, &e));
    assert_int_equal(shards_map(s, 0).len, container_bytes(a));
    assert_memory_equal(shards_map(s, 0).p, container_map(a).p, container_bytes(a));
    container_close(a);
    shards_close(s);
}

static void a_tensor_that_the_index_does_not_list_is_there(void **state) {
    (void)state;
    two_shards();
    folder_text(INDEX, "{\"weight_map\":{\"z\":\"b.safetensors\"}}");
    struct shards *s = opened();
    assert_int_equal(shards_n_files(s), 1);
    assert_true(shards_has(s, "m"));
    assert_false(shards_has(s, "y"));
    shards_close(s);
}

static void the_whole_file_counts_before_an_index(void **state) {
    (void)state;
    two_shards();
    put("model.safetensors", "whole", NULL);
    folder_text(INDEX, "{\"weight_map\":{\"z\":\"b.safetensors\"}}");
    struct shards *s = opened();
    assert_int_equal(shards_n(s), 1);
    assert_true(shards_has(s, "whole"));
    shards_close(s);
}

static void the_only_file_counts_whatever_its_name_is(void **state) {
    (void)state;
    put("model.fp16.safetensors", "a", NULL);
    folder_text("pytorch_model.bin", "x");
    struct shards *s = opened();
    assert_true(shards_has(s, "a"));
    shards_close(s);
    put("other.safetensors", "a", NULL);
    fails(ST_FORMAT, "has 2 files *.safetensors, model.fp16.safetensors among them");
}

static void folders_without_safetensors_are_told_apart(void **state) {
    (void)state;
    fails(ST_NOT_FOUND, "has neither model.safetensors nor " INDEX);
    folder_text("pytorch_model-00001-of-00002.bin", "x");
    fails(ST_UNSUPPORTED, "pickle");
    folder_empty();
    folder_text("consolidated.00.pth", "x");
    fails(ST_UNSUPPORTED, "pickle");
    struct shards *s;
    assert_int_equal(shards_open("/nonexistent/folder", &s, &e), ST_NOT_FOUND);
}

static void an_index_is_held_to_the_files(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum status want;
        const char *words;
    } cases[] = {
        {"{\"weight_map\":{\"z\":\"c.safetensors\"}}", ST_NOT_FOUND,
         INDEX ": lists c.safetensors, which is not in "},
        {"{\"weight_map\":{\"z\":\"a.safetensors\",\"m\":\"b.safetensors\"}}", ST_FORMAT,
         "tensor z is in b.safetensors, wanted in a.safetensors"},
        {"{\"weight_map\":{\"z\":\"a.safetensors\"}}", ST_FORMAT,
         "tensor z is not in a.safetensors"},
        {"{\"weight_map\":{\"q\":\"a.safetensors\"}}", ST_FORMAT,
         "tensor q is not in a.safetensors"},
        {"{\"weight_map\":{\"z\":\"../b.safetensors\"}}", ST_FORMAT, "../b.safetensors"},
        {"{\"weight_map\":{\"z\":\"/etc/x.safetensors\"}}", ST_FORMAT, "/etc/x.safetensors"},
        {"{\"weight_map\":{\"z\":\"..\"}}", ST_FORMAT, "tensor z is in .."},
        {"{\"weight_map\":{\"z\":\"\"}}", ST_FORMAT, "tensor z"},
        {"{\"weight_map\":{\"z\":\"b.safetensors\\u0000\"}}", ST_FORMAT, "tensor z"},
        {"{\"weight_map\":{\"z\":\"config.json\"}}", ST_FORMAT, "config.json"},
        {"{\"weight_map\":{\"z\":1}}", ST_FORMAT, "no text"},
        {"{\"weight_map\":{\"z\":\"b.safetensors\",\"z\":\"a.safetensors\"}}", ST_FORMAT,
         "duplicate"},
        {"{\"weight_map\":{}}", ST_FORMAT, "missing or empty"},
        {"{\"weight_map\":[]}", ST_FORMAT, "weight_map is a list"},
        {"{}", ST_FORMAT, "missing or empty"},
        {"[]", ST_FORMAT, "wanted an object"},
        {"", ST_FORMAT, INDEX},
    };
    two_shards();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        folder_text(INDEX, cases[i].text);
        fails(cases[i].want, cases[i].words);
    }
}

static void a_tensor_in_two_shards_is_refused(void **state) {
    (void)state;
    put("b.safetensors", "z", "m");
    put("a.safetensors", "z", "n");
    folder_text(INDEX, "{\"weight_map\":{\"m\":\"b.safetensors\",\"n\":\"a.safetensors\"}}");
    fails(ST_FORMAT, "tensor z is in ");
}

static void broken_files_are_named(void **state) {
    (void)state;
    struct st_file st = {0};
    struct buf file = {0};
    two_shards();
    folder_text(INDEX, "{\"weight_map\":{\"m\":\"b.safetensors\",\"n\":\"a.safetensors\"}}");
    st_count(&st, "m", "[64]", 64, 0);
    st_end(&st, &file);
    for (size_t eighth = 0; eighth < 8; eighth++) {
        folder_put("b.safetensors", file.p, file.len * eighth / 8);
        fails(ST_FORMAT, "b.safetensors: ");
    }
    folder_put("b.safetensors", file.p, file.len);
    shards_close(opened());
    buf_release(&file);
}

int main(void) {
#define T(f) cmocka_unit_test_setup(f, empty_folder)
    const struct CMUnitTest tests[] = {
        T(a_single_file_is_a_set),
        T(shards_are_joined_and_their_files_sorted),
        T(a_tensor_that_the_index_does_not_list_is_there),
        T(the_whole_file_counts_before_an_index),
        T(the_only_file_counts_whatever_its_name_is),
        T(folders_without_safetensors_are_told_apart),
        T(an_index_is_held_to_the_files),
        T(a_tensor_in_two_shards_is_refused),
        T(broken_files_are_named),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
