/*
 * test_container.c - our safetensors container: what is written is read back, and wrong files
 * are refused by field.
 */
#include "engine/model/container.h"
#include "engine/model/vocab_store.h"
#include "gguf_build.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* after the headers that it needs */
#include <cmocka.h>

static char dir[64], path[96];

static int make_dir(void **state) {
    (void)state;
    strcpy(dir, "/tmp/llmchat-container-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/m.safetensors", dir);
    return 0;
}

static int drop_dir(void **state) {
    (void)state;
    unlink(path);
    return rmdir(dir);
}

/* Three tensors of 5, 256 and 12 bytes. */
static void write_three(void) {
    struct err err = {0};
    struct container_writer *w = container_writer_new();
    uint64_t five = 5, square[] = {8, 8}, three = 3;
    float f[64];
    container_writer_meta(w, "quote", "a \"b\" \\ \n \xff\xc3\xa9");
    container_writer_meta(w, "decoy", "\"hash\":\"zzzz\"");
    container_writer_meta(w, "hash", "0000");
    container_writer_metaf(w, "n", "%d", 42);
    container_writer_metaf(w, "eps", "%.9g", 1e-5);
    container_writer_declare(w, "bytes", DTYPE_U8, 1, &five);
    container_writer_declare(w, "square", DTYPE_F32, 2, square);
    container_writer_declare(w, "ints", DTYPE_I32, 1, &three);
    assert_int_equal(container_writer_begin(w, path, &err), ST_OK);
    assert_int_equal(container_writer_put(w, "hello", 5, &err), ST_OK);
    assert_int_equal(container_writer_end_tensor(w, &err), ST_OK);
    for (int i = 0; i < 64; i++)
        f[i] = (float)i;
    assert_int_equal(container_writer_put(w, f, 100, &err), ST_OK);
    assert_int_equal(container_writer_put(w, (char *)f + 100, 156, &err), ST_OK);
    assert_int_equal(container_writer_end_tensor(w, &err), ST_OK);
    assert_int_equal(container_writer_put(w, "\1\0\0\0\2\0\0\0\3\0\0\0", 12, &err), ST_OK);
    assert_int_equal(container_writer_end_tensor(w, &err), ST_OK);
    assert_int_equal(container_writer_patch(w, "hash", "cafe", &err), ST_OK);
    assert_int_equal(container_writer_commit(w, &err), ST_OK);
    container_writer_free(w);
}

static void what_is_written_is_read_back(void **state) {
    (void)state;
    struct err err = {0};
    struct container *c;
    const struct ctensor *t;
    uint64_t square[] = {8, 8};
    int64_t n;
    double d;
    write_three();
    assert_int_equal(container_open(path, &c, &err), ST_OK);
    assert_int_equal(container_n_tensors(c), 3);
    assert_string_equal(container_tensor(c, 0)->name, "bytes");
    assert_memory_equal(container_tensor(c, 0)->data, "hello", 5);
    assert_int_equal(container_need(c, "square", DTYPE_F32, 2, square, &t, &err), ST_OK);
    for (int i = 0; i < 64; i++)
        assert_true(((const float *)(const void *)t->data)[i] == (float)i);
    assert_int_equal(container_find(c, "ints")->data[8], 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal((uintptr_t)container_tensor(c, i)->data % CONTAINER_ALIGN, 0);
    assert_string_equal(container_meta(c, "quote"), "a \"b\" \\ \n \xef\xbf\xbd\xc3\xa9");
    assert_string_equal(container_meta(c, "hash"), "cafe");
    assert_string_equal(container_meta(c, "decoy"), "\"hash\":\"zzzz\"");
    assert_int_equal(container_meta_int(c, "n", 0, 100, &n, &err), ST_OK);
    assert_int_equal(n, 42);
    assert_int_equal(container_meta_num(c, "eps", 0, 1, &d, &err), ST_OK);
    assert_true(d == 1e-5);
    assert_null(container_find(c, "pad.0"));
    assert_null(container_meta(c, "none"));
    container_close(c);
}

/* Longer than the writer's pieces, put in lengths that don't divide them. */
static void what_is_longer_than_a_piece_is_read_back(void **state) {
    enum { LEN = (5 << 20) + 77, STEP = 12345 };
    struct err err = {0};
    struct container_writer *w = container_writer_new();
    struct container *c;
    uint64_t len = LEN;
    unsigned char *x = xcalloc(1, LEN);
    (void)state;
    for (uint32_t i = 0, r = 1; i < LEN; i++, r = r * 1664525u + 1013904223u)
        x[i] = (unsigned char)(r >> 24);
    container_writer_meta(w, "hash", "0000");
    container_writer_declare(w, "long", DTYPE_U8, 1, &len);
    assert_int_equal(container_writer_begin(w, path, &err), ST_OK);
    for (size_t i = 0; i < LEN; i += STEP)
        assert_int_equal(container_writer_put(w, x + i, LEN - i < STEP ? LEN - i : STEP, &err),
                         ST_OK);
    assert_int_equal(container_writer_end_tensor(w, &err), ST_OK);
    assert_int_equal(container_writer_patch(w, "hash", "cafe", &err), ST_OK);
    assert_int_equal(container_writer_commit(w, &err), ST_OK);
    container_writer_free(w);
    assert_int_equal(container_open(path, &c, &err), ST_OK);
    const struct ctensor *t = container_find(c, "long");
    assert_non_null(t);
    assert_int_equal(t->n_bytes, LEN);
    assert_memory_equal(t->data, x, LEN);
    assert_string_equal(container_meta(c, "hash"), "cafe");
    container_close(c);
    free(x);
}

static void wants_are_compared_with_what_is_found(void **state) {
    (void)state;
    struct err err = {0};
    struct container *c;
    const struct ctensor *t;
    uint64_t wrong[] = {64, 1};
    int64_t n;
    double d;
    write_three();
    assert_int_equal(container_open(path, &c, &err), ST_OK);
    assert_int_equal(container_need(c, "square", DTYPE_F32, 2, wrong, &t, &err), ST_FORMAT);
    assert_string_equal(err.msg,
                        "m.safetensors: tensor square: is F32 [8, 8], wanted F32 [64, 1]");
    assert_int_equal(container_need(c, "square", DTYPE_I32, 2, wrong, &t, &err), ST_FORMAT);
    assert_int_equal(container_need(c, "cube", DTYPE_F32, 2, wrong, &t, &err), ST_FORMAT);
    assert_string_equal(err.msg, "m.safetensors: tensor cube is missing");
    assert_int_equal(container_meta_int(c, "n", 43, 100, &n, &err), ST_FORMAT);
    assert_int_equal(container_meta_int(c, "quote", 0, 100, &n, &err), ST_FORMAT);
    assert_int_equal(container_meta_int(c, "none", 0, 100, &n, &err), ST_FORMAT);
    assert_int_equal(container_meta_num(c, "quote", 0, 1, &d, &err), ST_FORMAT);
    container_close(c);
}

static void an_aborted_file_leaves_nothing(void **state) {
    (void)state;
    struct err err = {0};
    uint64_t n = 64;
    struct container_writer *w = container_writer_new();
    unlink(path);
    container_writer_declare(w, "t", DTYPE_U8, 1, &n);
    assert_int_equal(container_writer_begin(w, path, &err), ST_OK);
    container_writer_free(w);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(rmdir(dir), 0); /* no temporary file either */
    assert_int_equal(mkdir(dir, 0700), 0);
}

/* A file with this header and n zero bytes of data must be refused with a message that holds
 * `word` (NULL: accepted). */
static void header_case(const char *header, size_t n_data, enum status want, const char *word) {
    struct buf b = {0};
    struct err err = {0};
    struct container *c = NULL;
    gb_u64(&b, strlen(header));
    buf_adds(&b, header);
    for (size_t i = 0; i < n_data; i++)
        buf_addc(&b, 0);
    unsigned char *copy = malloc(b.len);
    memcpy(copy, b.p, b.len);
    enum status st = container_parse(copy, b.len, "x.st", &c, &err);
    if (st != want || (word && !strstr(err.msg, word)))
        fail_msg("%s: got %d \"%s\", wanted %d with \"%s\"", header, st, err.msg, want, word);
    container_close(c);
    free(copy);
    buf_release(&b);
}

static void the_formats_own_rules_hold(void **state) {
    (void)state;
#define T(dtype, shape, offsets)                                                               \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
    header_case("{}", 0, ST_OK, NULL);
    header_case("{}   ", 0, ST_OK, NULL);
    header_case("{\"a\":" T("F32", "[2]", "[0,8]") "}", 8, ST_OK, NULL);
    header_case("{\"a\":" T("F32", "[]", "[0,4]") "}", 4, ST_OK, NULL);
    header_case("{\"a\":" T("F32", "[0]", "[0,0]") "}", 0, ST_OK, NULL);
    header_case("{}", 1, ST_FORMAT, "end at 0");
    header_case(" {}", 0, ST_FORMAT, "'{'");
    header_case("[]", 0, ST_FORMAT, "'{'");
    header_case("{", 0, ST_FORMAT, "header");
    header_case("{\"a\":1}", 0, ST_FORMAT, "tensor a");
    header_case("{\"a\":" T("F32", "[2]", "[0,8]") ",\"a\":" T("F32", "[2]", "[0,8]") "}", 8,
                ST_FORMAT, "duplicate");
    header_case("{\"a\":" T("F33", "[2]", "[0,8]") "}", 8, ST_UNSUPPORTED, "F33");
    header_case("{\"a\":" T("F32", "[2]", "[0,7]") "}", 7, ST_FORMAT, "its shape needs 8");
    header_case("{\"a\":" T("F32", "[2]", "[0,8]") "}", 7, ST_FORMAT,
                "ends at byte 8 of the data, the file has 7");
    header_case("{\"a\":" T("F32", "[2]", "[8,0]") "}", 8, ST_FORMAT, "data_offsets");
    header_case("{\"a\":" T("F32", "[-2]", "[0,8]") "}", 8, ST_FORMAT, "shape");
    header_case("{\"a\":" T("F32", "[2.0]", "[0,8]") "}", 8, ST_FORMAT, "shape");
    header_case("{\"a\":" T("F32", "2", "[0,8]") "}", 8, ST_FORMAT, "shape");
    header_case("{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]") "}", 8, ST_FORMAT, "shape");
    header_case("{\"a\":" T("F32", "[4294967296,4294967296]", "[0,0]") "}", 0, ST_FORMAT,
                "does not fit");
    header_case("{\"a\":" T("F32", "[4611686018427387904]", "[0,0]") "}", 0, ST_FORMAT,
                "does not fit");
    header_case("{\"a\":" T("F32", "[99999999999999999999]", "[0,0]") "}", 0, ST_FORMAT, "");
    header_case("{\"a\":" T("U8", "[4]", "[0,4]") ",\"b\":" T("U8", "[4]", "[2,6]") "}", 6,
                ST_FORMAT, "overlap");
    header_case("{\"a\":" T("U8", "[4]", "[0,4]") ",\"b\":" T("U8", "[4]", "[6,10]") "}", 10,
                ST_FORMAT, "hole");
    header_case("{\"a\":" T("U8", "[4]", "[2,6]") "}", 6, ST_FORMAT, "hole");
    header_case("{\"__metadata__\":{\"a\":\"b\"}}", 0, ST_OK, NULL);
    header_case("{\"__metadata__\":{\"a\":1}}", 0, ST_FORMAT, "__metadata__");
    header_case("{\"__metadata__\":[]}", 0, ST_FORMAT, "__metadata__");
    header_case("{\"a\":" T("F32", "[2]", "[0,8],\"x\":1") "}", 8, ST_FORMAT, "wanted dtype");
#undef T
}

static void headers_that_do_not_fit_are_refused(void **state) {
    (void)state;
    static const uint64_t lengths[] = {0, 3, 1ull << 31, 1ull << 63, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct buf b = {0};
        struct err err = {0};
        struct container *c = NULL;
        gb_u64(&b, lengths[i]);
        buf_adds(&b, "{}");
        assert_int_equal(container_parse(b.p, b.len, "x.st", &c, &err), ST_FORMAT);
        assert_non_null(strstr(err.msg, "x.st: not a safetensors file"));
        for (size_t len = 0; len < 8; len++)
            assert_int_equal(container_parse(b.p, len, "x.st", &c, &err), ST_FORMAT);
        buf_release(&b);
    }
}

static void deep_nesting_is_refused(void **state) {
    (void)state;
    struct buf b = {0};
    buf_adds(&b, "{\"a\":");
    for (int i = 0; i < 100000; i++)
        buf_addc(&b, '[');
    header_case(buf_str(&b), 0, ST_FORMAT, "header: nested more than 3 deep");
    buf_release(&b);
}

/* jansson would make gigabytes of it. */
static void a_header_of_nothing_but_lists_is_refused(void **state) {
    (void)state;
    struct buf b = {0};
    buf_adds(&b, "{\"a\":[");
    for (int i = 0; i < 1000000; i++)
        buf_adds(&b, "[],");
    buf_adds(&b, "[]]}");
    header_case(buf_str(&b), 0, ST_LIMIT, "more than 300000 tensors");
    buf_release(&b);
}

static void brackets_in_names_are_no_lists(void **state) {
    (void)state;
    header_case("{\"[[[{{\\\"[[\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1,
                ST_OK, NULL);
}

/* A file of n tensors of one byte each, "layer.I.weight". */
static void build_many(struct buf *b, size_t n) {
    struct buf header = {0};
    buf_addc(&header, '{');
    for (size_t i = 0; i < n; i++)
        buf_addf(&header,
                 "%s\"model.layers.%zu.mlp.experts.0.gate_proj.weight\":{\"dtype\":\"U8\","
                 "\"shape\":[1,1],\"data_offsets\":[%zu,%zu]}",
                 i ? "," : "", i, i, i + 1);
    buf_addc(&header, '}');
    gb_u64(b, header.len);
    buf_add(b, header.p, header.len);
    for (size_t i = 0; i < n; i++)
        buf_addc(b, (char)i);
    buf_release(&header);
}

static void a_hundred_thousand_tensors_open(void **state) {
    (void)state;
    enum { N = 100000 };
    struct buf b = {0};
    struct err err = {0};
    struct container *c;
    build_many(&b, N);
    assert_int_equal(container_parse(b.p, b.len, "x.st", &c, &err), ST_OK);
    assert_int_equal(container_n_tensors(c), N);
    const struct ctensor *t =
        container_find(c, "model.layers.77777.mlp.experts.0.gate_proj.weight");
    assert_int_equal(t->data[0], 77777 % 256);
    container_close(c);
    buf_release(&b);
}

static void files_of_others_need_no_alignment(void **state) {
    (void)state;
    static const char header[] = "{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[3],"
                                 "\"data_offsets\":[0,3]},\"b\":{\"dtype\":\"F8_E5M2\","
                                 "\"shape\":[1],\"data_offsets\":[3,4]},\"pad.x\":{"
                                 "\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}";
    struct buf b = {0};
    struct err err = {0};
    struct container *c;
    const struct ctensor *t;
    const uint64_t one = 1;
    gb_u64(&b, strlen(header));
    buf_adds(&b, header);
    buf_add(&b, "\1\2\3\4\5\6\7\10", 8);
    assert_int_equal(container_parse(b.p, b.len, "x.st", &c, &err), ST_OK);
    assert_int_equal(container_n_tensors(c), 3); /* pad.x is no padding of ours */
    assert_int_equal(container_find(c, "a")->dtype, DTYPE_F8_E4M3);
    assert_int_equal(container_find(c, "b")->data[0], 4);
    assert_int_equal(container_need(c, "b", DTYPE_F8_E5M2, 1, &one, &t, &err), ST_FORMAT);
    assert_non_null(strstr(err.msg, "no multiple of 64"));
    container_close(c);
    buf_release(&b);
}

static void every_cut_is_refused(void **state) {
    (void)state;
    struct buf b = {0};
    struct err err = {0};
    struct container *c;
    build_many(&b, 4);
    for (size_t len = 0; len < b.len; len++) {
        unsigned char *copy = malloc(len ? len : 1); /* its end is seen by ASan */
        memcpy(copy, b.p, len);
        if (container_parse(copy, len, "x.st", &c, &err) != ST_FORMAT)
            fail_msg("cut to %zu of %zu bytes it was taken", len, b.len);
        free(copy);
    }
    buf_release(&b);
}

/* A vocabulary of three tokens as GGUF. */
static void build_vocab(struct buf *b, uint32_t eos) {
    gb_head(b, 3, 0, 9);
    gb_kv_str(b, "tokenizer.ggml.model", "gpt2");
    gb_kv_str(b, "tokenizer.ggml.pre", "smollm");
    gb_kv_str(b, "tokenizer.chat_template", "{{ x }}\xff");
    gb_kv_array(b, "tokenizer.ggml.tokens", GGUF_STR, 3);
    gb_str(b, "a");
    gb_str(b, "");
    gb_str(b, "bcd");
    gb_kv_array(b, "tokenizer.ggml.merges", GGUF_STR, 1);
    gb_str(b, "b c");
    gb_kv_array(b, "tokenizer.ggml.token_type", GGUF_I32, 3);
    for (uint32_t i = 1; i <= 3; i++)
        gb_u32(b, i);
    gb_kv_array(b, "tokenizer.ggml.scores", GGUF_F32, 3);
    for (int i = 0; i < 3; i++)
        gb_f32(b, -0.5f * (float)i);
    gb_kv_u32(b, "tokenizer.ggml.eos_token_id", eos);
    gb_key(b, "tokenizer.ggml.add_bos_token", GGUF_BOOL);
    buf_addc(b, 0);
}

static void check_vocab(const struct vocab_data *v) {
    size_t len;
    assert_string_equal(v->model, "gpt2");
    assert_string_equal(v->pre, "smollm");
    assert_string_equal(v->chat_template, "{{ x }}\xef\xbf\xbd");
    assert_int_equal(v->tokens.n, 3);
    assert_int_equal(v->merges.n, 1);
    const char *s = vocab_string(&v->tokens, 2, &len);
    assert_int_equal(len, 3);
    assert_memory_equal(s, "bcd", 3);
    vocab_string(&v->tokens, 1, &len);
    assert_int_equal(len, 0);
    s = vocab_string(&v->merges, 0, &len);
    assert_memory_equal(s, "b c", 3);
    assert_int_equal(v->types[2], 3);
    assert_true(v->scores[2] == -1.0f);
    assert_null(v->charsmap);
    assert_int_equal(v->eos, 2);
    assert_int_equal(v->bos, -1);
    assert_int_equal(v->add_bos, 0);
    assert_int_equal(v->add_eos, -1);
}

static void a_vocabulary_survives_both_files(void **state) {
    (void)state;
    struct buf b = {0};
    struct err err = {0};
    struct gguf *g;
    struct container *c;
    struct vocab_data v, again;
    build_vocab(&b, 2);
    assert_int_equal(gguf_parse(b.p, b.len, "v.gguf", &g, &err), ST_OK);
    assert_int_equal(vocab_from_gguf(&v, g, &err), ST_OK);
    check_vocab(&v);
    struct container_writer *w = container_writer_new();
    vocab_declare(w, &v);
    assert_int_equal(container_writer_begin(w, path, &err), ST_OK);
    assert_int_equal(vocab_write(w, &v, &err), ST_OK);
    assert_int_equal(container_writer_commit(w, &err), ST_OK);
    container_writer_free(w);
    assert_int_equal(container_open(path, &c, &err), ST_OK);
    assert_int_equal(vocab_from_container(&again, c, &err), ST_OK);
    check_vocab(&again);
    vocab_release(&again);
    container_close(c);
    vocab_release(&v);
    gguf_close(g);
    buf_release(&b);
}

static void wrong_vocabularies_are_refused(void **state) {
    (void)state;
    struct buf b = {0};
    struct err err = {0};
    struct gguf *g;
    struct vocab_data v;
    build_vocab(&b, 3);
    assert_int_equal(gguf_parse(b.p, b.len, "v.gguf", &g, &err), ST_OK);
    assert_int_equal(vocab_from_gguf(&v, g, &err), ST_FORMAT);
    assert_non_null(strstr(err.msg, "eos_token_id is 3"));
    gguf_close(g);
    buf_clear(&b);
    build_vocab(&b, UINT32_MAX); /* how writers spell "none" */
    assert_int_equal(gguf_parse(b.p, b.len, "v.gguf", &g, &err), ST_OK);
    assert_int_equal(vocab_from_gguf(&v, g, &err), ST_OK);
    assert_int_equal(v.eos, -1);
    vocab_release(&v);
    gguf_close(g);
    buf_clear(&b);
    gb_head(&b, 3, 0, 3);
    gb_kv_str(&b, "tokenizer.ggml.model", "gpt2");
    gb_kv_array(&b, "tokenizer.ggml.tokens", GGUF_STR, 1);
    gb_str(&b, "a");
    gb_kv_array(&b, "tokenizer.ggml.token_type", GGUF_I32, 0);
    assert_int_equal(gguf_parse(b.p, b.len, "v.gguf", &g, &err), ST_OK);
    assert_int_equal(vocab_from_gguf(&v, g, &err), ST_FORMAT);
    assert_non_null(strstr(err.msg, "token_type has 0 entries, the vocabulary has 1"));
    gguf_close(g);
    buf_clear(&b);
    gb_head(&b, 3, 0, 0);
    assert_int_equal(gguf_parse(b.p, b.len, "v.gguf", &g, &err), ST_OK);
    assert_int_equal(vocab_from_gguf(&v, g, &err), ST_NOT_FOUND);
    gguf_close(g);
    buf_release(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(what_is_longer_than_a_piece_is_read_back),
        cmocka_unit_test(wants_are_compared_with_what_is_found),
        cmocka_unit_test(an_aborted_file_leaves_nothing),
        cmocka_unit_test(the_formats_own_rules_hold),
        cmocka_unit_test(headers_that_do_not_fit_are_refused),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(a_header_of_nothing_but_lists_is_refused),
        cmocka_unit_test(brackets_in_names_are_no_lists),
        cmocka_unit_test(a_hundred_thousand_tensors_open),
        cmocka_unit_test(files_of_others_need_no_alignment),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(a_vocabulary_survives_both_files),
        cmocka_unit_test(wrong_vocabularies_are_refused),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
