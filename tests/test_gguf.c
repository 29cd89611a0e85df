/*
 * test_gguf.c - the GGUF reader: what it gives, and that hostile files get a message instead of
 * a crash.
 *
 * Files are built here byte by byte. Each is copied to heap storage of exactly its size before
 * it is parsed, so that the address sanitizer sees any byte read behind the end.
 */
#include "base/path.h"
#include "gguf_build.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
/* after the headers that it needs */
#include <cmocka.h>

static enum status parse(const struct buf *b, size_t len, struct gguf **g, unsigned char **copy,
                         struct err *err) {
    *copy = malloc(len ? len : 1);
    if (len)
        memcpy(*copy, b->p, len);
    *err = (struct err){0};
    return gguf_parse(*copy, len, "test.gguf", g, err);
}

/* b must be refused with this status and a message that holds `word`; b is released. */
static void refused(struct buf *b, enum status want, const char *word) {
    struct gguf *g = NULL;
    struct err err;
    unsigned char *copy;
    enum status st = parse(b, b->len, &g, &copy, &err);
    if (st != want || !strstr(err.msg, word) || strncmp(err.msg, "test.gguf: ", 11) != 0)
        fail_msg("got %d \"%s\", wanted %d with \"%s\"", st, err.msg, want, word);
    assert_null(g);
    free(copy);
    buf_release(b);
}

/* A small file with every value type, nested arrays and two tensors. */
static void build_small(struct buf *b) {
    gb_head(b, 3, 2, 15);
    gb_key(b, "u8", GGUF_U8);
    buf_addc(b, (char)200);
    gb_key(b, "i8", GGUF_I8);
    buf_addc(b, (char)-5);
    gb_key(b, "u16", GGUF_U16);
    buf_add(b, "\xff\xff", 2);
    gb_key(b, "i16", GGUF_I16);
    buf_add(b, "\xfe\xff", 2);
    gb_kv_u32(b, "u32", 4000000000u);
    gb_key(b, "i32", GGUF_I32);
    gb_u32(b, (uint32_t)-7);
    gb_kv_f32(b, "f32", 1.5f);
    gb_key(b, "bool", GGUF_BOOL);
    buf_addc(b, 1);
    gb_kv_str(b, "str", "text");
    gb_key(b, "u64", GGUF_U64);
    gb_u64(b, UINT64_MAX);
    gb_key(b, "i64", GGUF_I64);
    gb_u64(b, (uint64_t)INT64_MIN);
    gb_key(b, "f64", GGUF_F64);
    double d = -0.25;
    buf_add(b, &d, 8);
    gb_kv_array(b, "strings", GGUF_STR, 3);
    gb_str(b, "a");
    gb_str(b, "");
    gb_str(b, "ccc");
    gb_kv_array(b, "nested", GGUF_ARR, 2);
    for (uint32_t i = 0; i < 2; i++) {
        gb_u32(b, GGUF_I32);
        gb_u64(b, i);
        if (i)
            gb_u32(b, 1);
    }
    gb_kv_array(b, "floats", GGUF_F32, 2);
    gb_f32(b, 1);
    gb_f32(b, 2);
    gb_tensor(b, "a.weight", 2, 32, 2, 2, 0); /* Q4_0: 36 bytes */
    gb_tensor(b, "b.weight", 1, 3, 0, 0, 64); /* F32: 12 bytes */
    gb_align(b, 32);
    for (int i = 0; i < 64 + 12; i++)
        buf_addc(b, (char)i);
}

static void every_value_type_is_read(void **state) {
    (void)state;
    struct buf b = {0};
    struct gguf *g;
    struct err err;
    unsigned char *copy;
    uint64_t u = 0;
    int64_t i = 0;
    double d = 0;
    bool t = false;
    struct gguf_str s;
    build_small(&b);
    assert_int_equal(parse(&b, b.len, &g, &copy, &err), ST_OK);
    assert_int_equal(gguf_n_kv(g), 15);
    assert_int_equal(gguf_get_u64(g, "u8", true, &u, &err), ST_OK);
    assert_int_equal(u, 200);
    assert_int_equal(gguf_get_u64(g, "u16", true, &u, &err), ST_OK);
    assert_int_equal(u, 65535);
    assert_int_equal(gguf_get_u64(g, "u32", true, &u, &err), ST_OK);
    assert_int_equal(u, 4000000000u);
    assert_int_equal(gguf_get_u64(g, "u64", true, &u, &err), ST_OK);
    assert_true(u == UINT64_MAX);
    assert_int_equal(gguf_get_i64(g, "i8", true, &i, &err), ST_OK);
    assert_int_equal(i, -5);
    assert_int_equal(gguf_get_i64(g, "i16", true, &i, &err), ST_OK);
    assert_int_equal(i, -2);
    assert_int_equal(gguf_get_i64(g, "i32", true, &i, &err), ST_OK);
    assert_int_equal(i, -7);
    assert_int_equal(gguf_get_i64(g, "i64", true, &i, &err), ST_OK);
    assert_true(i == INT64_MIN);
    assert_int_equal(gguf_get_f64(g, "f32", true, &d, &err), ST_OK);
    assert_true(d == 1.5);
    assert_int_equal(gguf_get_f64(g, "f64", true, &d, &err), ST_OK);
    assert_true(d == -0.25);
    assert_int_equal(gguf_get_f64(g, "i32", true, &d, &err), ST_OK);
    assert_true(d == -7);
    assert_int_equal(gguf_get_bool(g, "bool", true, &t, &err), ST_OK);
    assert_true(t);
    assert_int_equal(gguf_get_str(g, "str", true, &s, &err), ST_OK);
    assert_int_equal(s.len, 4);
    assert_memory_equal(s.p, "text", 4);
    gguf_close(g);
    free(copy);
    buf_release(&b);
}

static void arrays_and_tensors_are_read(void **state) {
    (void)state;
    struct buf b = {0};
    struct gguf *g;
    struct err err;
    unsigned char *copy;
    struct gguf_str s;
    struct gguf_str_iter it;
    const unsigned char *p;
    uint64_t n;
    build_small(&b);
    assert_int_equal(parse(&b, b.len, &g, &copy, &err), ST_OK);
    assert_int_equal(gguf_get_strings(g, "strings", true, &n, &it, &err), ST_OK);
    assert_int_equal(n, 3);
    assert_true(gguf_next_string(&it, &s) && s.len == 1 && *s.p == 'a');
    assert_true(gguf_next_string(&it, &s) && s.len == 0);
    assert_true(gguf_next_string(&it, &s) && s.len == 3);
    assert_false(gguf_next_string(&it, &s));
    assert_int_equal(gguf_get_f32s(g, "floats", true, &n, &p, &err), ST_OK);
    assert_int_equal(n, 2);
    float f;
    memcpy(&f, p + 4, 4);
    assert_true(f == 2);
    const struct gguf_tensor *t = gguf_find_tensor(g, "a.weight");
    assert_non_null(t);
    assert_int_equal(t->n_elem, 64);
    assert_int_equal(t->n_bytes, 36);
    assert_int_equal(t->offset % 32, 0);
    assert_int_equal(t->data[1], 1);
    t = gguf_find_tensor(g, "b.weight");
    assert_int_equal(t->data[0], 64);
    assert_int_equal(t->ne[1], 1);
    assert_null(gguf_find_tensor(g, "c.weight"));
    gguf_close(g);
    free(copy);
    buf_release(&b);
}

static void wrong_kinds_are_named(void **state) {
    (void)state;
    struct buf b = {0};
    struct gguf *g;
    struct err err;
    unsigned char *copy;
    uint64_t u = 77, n;
    int64_t i;
    bool t;
    struct gguf_str s;
    struct gguf_str_iter it;
    build_small(&b);
    assert_int_equal(parse(&b, b.len, &g, &copy, &err), ST_OK);
    assert_int_equal(gguf_get_u64(g, "missing", false, &u, &err), ST_OK);
    assert_int_equal(u, 77);
    assert_int_equal(gguf_get_u64(g, "missing", true, &u, &err), ST_FORMAT);
    assert_string_equal(err.msg, "test.gguf: key missing is missing");
    assert_int_equal(gguf_get_u64(g, "str", true, &u, &err), ST_FORMAT);
    assert_string_equal(err.msg, "test.gguf: key str: type string, wanted an integer");
    assert_int_equal(gguf_get_u64(g, "i8", true, &u, &err), ST_FORMAT);
    assert_non_null(strstr(err.msg, "-5"));
    assert_int_equal(gguf_get_i64(g, "u64", true, &i, &err), ST_FORMAT);
    assert_int_equal(gguf_get_bool(g, "u8", true, &t, &err), ST_FORMAT);
    assert_int_equal(gguf_get_str(g, "strings", true, &s, &err), ST_FORMAT);
    assert_non_null(strstr(err.msg, "an array of string"));
    assert_int_equal(gguf_get_strings(g, "floats", true, &n, &it, &err), ST_FORMAT);
    gguf_close(g);
    free(copy);
    buf_release(&b);
}

static void truncation_at_every_byte_is_refused(void **state) {
    (void)state;
    struct buf b = {0};
    build_small(&b);
    for (size_t len = 0; len < b.len; len++) {
        struct gguf *g = NULL;
        struct err err;
        unsigned char *copy;
        if (parse(&b, len, &g, &copy, &err) != ST_FORMAT || !*err.msg)
            fail_msg("%zu of %zu bytes: \"%s\"", len, b.len, err.msg);
        free(copy);
    }
    buf_release(&b);
}

static void every_flipped_byte_is_survived(void **state) {
    (void)state;
    struct buf b = {0};
    build_small(&b);
    for (size_t i = 0; i < b.len; i++)
        for (int v = 1; v < 256; v *= 2) {
            struct gguf *g = NULL;
            struct err err;
            unsigned char *copy;
            b.p[i] ^= (char)v;
            enum status st = parse(&b, b.len, &g, &copy, &err);
            assert_true(st == ST_OK || *err.msg);
            gguf_close(g);
            free(copy);
            b.p[i] ^= (char)v;
        }
    buf_release(&b);
}

static void files_of_other_kinds_are_refused(void **state) {
    (void)state;
    struct buf b = {0};
    buf_add(&b, "PK\3\4 something else entirely", 28);
    refused(&b, ST_FORMAT, "not a GGUF file");
    gb_head(&b, 1, 0, 0);
    refused(&b, ST_UNSUPPORTED, "version 1");
    gb_head(&b, 4, 0, 0);
    refused(&b, ST_UNSUPPORTED, "version 4");
    gb_head(&b, 0x03000000, 0, 0);
    refused(&b, ST_UNSUPPORTED, "big-endian");
}

static void version_2_and_files_without_tensors_open(void **state) {
    (void)state;
    struct buf b = {0};
    struct gguf *g;
    struct err err;
    unsigned char *copy;
    gb_head(&b, 2, 0, 1);
    gb_kv_str(&b, "tokenizer.ggml.model", "gpt2");
    assert_int_equal(parse(&b, b.len, &g, &copy, &err), ST_OK);
    assert_int_equal(gguf_n_tensors(g), 0);
    assert_null(gguf_find_tensor(g, "x"));
    gguf_close(g);
    free(copy);
    buf_release(&b);
}

static void absurd_counts_are_refused_at_once(void **state) {
    (void)state;
    static const uint64_t counts[] = {1ull << 63, UINT64_MAX, 1ull << 32, 1000};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct buf b = {0};
        gb_head(&b, 3, 0, counts[i]);
        gb_kv_u32(&b, "x", 1);
        refused(&b, ST_FORMAT, "keys can't fit");
        gb_head(&b, 3, counts[i], 1);
        gb_kv_u32(&b, "x", 1);
        refused(&b, ST_FORMAT, "tensors can't fit");
        gb_head(&b, 3, 0, 1);
        gb_kv_array(&b, "x", GGUF_STR, counts[i]);
        refused(&b, ST_FORMAT, "array of");
        gb_head(&b, 3, 0, 1);
        gb_kv_array(&b, "x", GGUF_F64, counts[i]);
        refused(&b, ST_FORMAT, "array of");
        gb_head(&b, 3, 0, 1);
        gb_key(&b, "x", GGUF_STR);
        gb_u64(&b, counts[i]);
        refused(&b, ST_FORMAT, "bytes, the file has");
        gb_head(&b, 3, 0, 1);
        gb_u64(&b, counts[i]); /* length of a key */
        buf_adds(&b, "xxxxxxxxxxxxxxxx");
        refused(&b, ST_FORMAT, "bytes, the file has");
    }
}

static void nesting_is_limited(void **state) {
    (void)state;
    struct buf b = {0};
    gb_head(&b, 3, 0, 1);
    gb_key(&b, "deep", GGUF_ARR);
    for (int i = 0; i < 100000; i++) {
        gb_u32(&b, GGUF_ARR);
        gb_u64(&b, 1);
    }
    refused(&b, ST_LIMIT, "nested");
}

static void unknown_value_types_are_refused(void **state) {
    (void)state;
    struct buf b = {0};
    gb_head(&b, 3, 0, 1);
    gb_key(&b, "x", (enum gguf_type)13);
    gb_u64(&b, 0);
    refused(&b, ST_FORMAT, "unknown value type 13");
    gb_head(&b, 3, 0, 1);
    gb_kv_array(&b, "x", (enum gguf_type)99, 0);
    refused(&b, ST_FORMAT, "unknown array element type 99");
    gb_head(&b, 3, 0, 1);
    gb_key(&b, "x", GGUF_BOOL);
    buf_addc(&b, 2);
    refused(&b, ST_FORMAT, "bool of value 2");
    gb_head(&b, 3, 0, 1);
    gb_kv_u32(&b, "", 1);
    refused(&b, ST_FORMAT, "0 bytes long");
}

static void duplicates_are_refused(void **state) {
    (void)state;
    struct buf b = {0};
    gb_head(&b, 3, 0, 3);
    gb_kv_u32(&b, "same", 1);
    gb_kv_u32(&b, "other", 1);
    gb_kv_u32(&b, "same", 2);
    refused(&b, ST_FORMAT, "key same occurs twice");
    gb_head(&b, 3, 2, 0);
    gb_tensor(&b, "t", 1, 8, 0, 0, 0);
    gb_tensor(&b, "t", 1, 8, 0, 0, 32);
    gb_align(&b, 32);
    gb_align(&b, 256);
    refused(&b, ST_FORMAT, "tensor t occurs twice");
}

/* A file with one tensor and `room` bytes of data. */
static void one_tensor(struct buf *b, const char *name, int n_dims, uint64_t ne0, uint64_t ne1,
                       uint32_t type, uint64_t offset, int room) {
    gb_head(b, 3, 1, 0);
    gb_tensor(b, name, n_dims, ne0, ne1, type, offset);
    gb_align(b, 32);
    for (int i = 0; i < room; i++)
        buf_addc(b, 0);
}

static void tensors_that_do_not_fit_are_refused(void **state) {
    (void)state;
    struct buf b = {0};
    one_tensor(&b, "t", 1, 9, 0, 0, 0, 32);
    refused(&b, ST_FORMAT, "9 elements of F32 need 36 bytes, the file has 32 left");
    one_tensor(&b, "t", 1, 8, 0, 0, 32, 32);
    refused(&b, ST_FORMAT, "has 0 left");
    one_tensor(&b, "t", 1, 8, 0, 0, UINT64_MAX - 31, 32);
    refused(&b, ST_FORMAT, "has 0 left");
    one_tensor(&b, "t", 1, 8, 0, 0, 1ull << 63, 32);
    refused(&b, ST_FORMAT, "has 0 left");
    one_tensor(&b, "t", 1, 2, 0, 0, 8, 32);
    refused(&b, ST_FORMAT, "offset 8 is no multiple of 32");
    one_tensor(&b, "t", 2, 1ull << 32, 1ull << 32, 0, 0, 32);
    refused(&b, ST_FORMAT, "dimension 1");
    one_tensor(&b, "t", 1, 1ull << 63, 0, 0, 0, 32);
    refused(&b, ST_FORMAT, "dimension 0");
    one_tensor(&b, "t", 1, 1ull << 62, 0, 0, 0,
               32); /* the bytes overflow, the elements don't */
    refused(&b, ST_FORMAT, "too many");
    one_tensor(&b, "t", 1, 0, 0, 0, 0, 32);
    refused(&b, ST_FORMAT, "dimension 0 of 0");
    one_tensor(&b, "t", 1, 33, 0, 2, 0, 64);
    refused(&b, ST_FORMAT, "Q4_0 wants a multiple of 32");
    one_tensor(&b, "t", 1, 8, 0, 77, 0, 64);
    refused(&b, ST_UNSUPPORTED, "unknown type 77");
    one_tensor(&b, "", 1, 8, 0, 0, 0, 64);
    refused(&b, ST_FORMAT, "name of 0 bytes");
    one_tensor(&b, "a-name-of-more-than-sixty-four-bytes-which-the-format-does-not-allow", 1, 8,
               0, 0, 0, 64);
    refused(&b, ST_FORMAT, "wanted 1..64");
    gb_head(&b, 3, 1, 0);
    gb_str(&b, "t");
    gb_u32(&b, 5);
    for (int i = 0; i < 10; i++)
        gb_u64(&b, 1);
    refused(&b, ST_FORMAT, "5 dimensions");
}

static void overlapping_tensors_are_refused(void **state) {
    (void)state;
    struct buf b = {0};
    gb_head(&b, 3, 2, 0);
    gb_tensor(&b, "first", 1, 9, 0, 0, 0);
    gb_tensor(&b, "second", 1, 8, 0, 0, 32);
    gb_align(&b, 32);
    for (int i = 0; i < 64; i++)
        buf_addc(&b, 0);
    refused(&b, ST_FORMAT, "tensors first and second overlap");
}

static void alignment_is_checked(void **state) {
    (void)state;
    static const uint32_t wrong[] = {0, 3, 48, 1u << 31, UINT32_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct buf b = {0};
        gb_head(&b, 3, 0, 1);
        gb_kv_u32(&b, "general.alignment", wrong[i]);
        refused(&b, ST_FORMAT, "general.alignment");
    }
    struct buf b = {0};
    gb_head(&b, 3, 0, 1);
    gb_kv_str(&b, "general.alignment", "32");
    refused(&b, ST_FORMAT, "wanted an integer");
}

static void known_but_unreadable_types_open(void **state) {
    (void)state;
    struct buf b = {0};
    struct gguf *g;
    struct err err;
    unsigned char *copy;
    one_tensor(&b, "t", 1, 256, 0, 16, 0, 96); /* IQ2_XXS: 66 bytes */
    assert_int_equal(parse(&b, b.len, &g, &copy, &err), ST_OK);
    assert_int_equal(gguf_tensor(g, 0)->n_bytes, 66);
    gguf_close(g);
    free(copy);
    buf_release(&b);
}

static void values_of_layers_are_read(void **state) {
    (void)state;
    struct buf b = {0};
    struct gguf *g;
    struct err err;
    unsigned char *copy;
    uint64_t u[3] = {9, 9, 9};
    double d[3];
    gb_head(&b, 3, 0, 6);
    gb_kv_u32(&b, "one", 4);
    gb_kv_array(&b, "ints", GGUF_I16, 3);
    buf_add(&b, "\1\0\2\0\3\1", 6);
    gb_kv_array(&b, "bools", GGUF_BOOL, 3);
    buf_add(&b, "\1\0\1", 3);
    gb_kv_array(&b, "signed", GGUF_I8, 3);
    buf_add(&b, "\1\xff\1", 3);
    gb_kv_array(&b, "floats", GGUF_F32, 3);
    gb_f32(&b, 1);
    gb_f32(&b, 2.5);
    gb_f32(&b, INFINITY);
    gb_kv_array(&b, "strings", GGUF_STR, 3);
    for (int i = 0; i < 3; i++)
        gb_str(&b, "");
    assert_int_equal(parse(&b, b.len, &g, &copy, &err), ST_OK);
    assert_int_equal(gguf_get_u64s(g, "missing", false, 3, u, &err), ST_OK);
    assert_true(u[0] == 9 && u[2] == 9);
    assert_int_equal(gguf_get_u64s(g, "one", true, 3, u, &err), ST_OK);
    assert_true(u[0] == 4 && u[1] == 4 && u[2] == 4);
    assert_int_equal(gguf_get_u64s(g, "ints", true, 3, u, &err), ST_OK);
    assert_true(u[0] == 1 && u[1] == 2 && u[2] == 259);
    assert_int_equal(gguf_get_u64s(g, "bools", true, 3, u, &err), ST_OK);
    assert_true(u[0] == 1 && u[1] == 0 && u[2] == 1);
    assert_int_equal(gguf_get_f64s(g, "signed", true, 3, d, &err), ST_OK);
    assert_true(d[0] == 1 && d[1] == -1);
    assert_int_equal(gguf_get_f64s(g, "one", true, 3, d, &err), ST_OK);
    assert_true(d[0] == 4 && d[2] == 4);
    assert_int_equal(gguf_get_u64s(g, "missing", true, 3, u, &err), ST_FORMAT);
    assert_int_equal(gguf_get_u64s(g, "signed", true, 3, u, &err), ST_FORMAT);
    assert_non_null(strstr(err.msg, "layer 1 has -1"));
    assert_int_equal(gguf_get_u64s(g, "ints", true, 4, u, &err), ST_FORMAT);
    assert_non_null(strstr(err.msg, "an array of 3, wanted one for each of 4 layers"));
    assert_int_equal(gguf_get_u64s(g, "floats", true, 3, u, &err), ST_FORMAT);
    assert_int_equal(gguf_get_f64s(g, "floats", true, 3, d, &err), ST_FORMAT);
    assert_non_null(strstr(err.msg, "layer 2 has no finite number"));
    assert_int_equal(gguf_get_u64s(g, "strings", true, 3, u, &err), ST_FORMAT);
    assert_int_equal(gguf_get_f64s(g, "strings", true, 3, d, &err), ST_FORMAT);
    gguf_close(g);
    free(copy);
    buf_release(&b);
}

/* -- split models --------------------------------------------------------------------- */

static char split_dir[64];

static char *in_split_dir(const char *name) {
    return xasprintf("%s/%s", split_dir, name);
}

/* A part as a file in split_dir: its place, and a tensor of one number, named `tensor`. */
static void write_part(const char *name, uint32_t no, uint32_t count, const char *tensor,
                       float value) {
    struct buf b = {0};
    struct err err;
    gb_head(&b, 3, 1, count ? 3 : 0);
    if (count) {
        gb_kv_u32(&b, "split.no", no);
        gb_kv_u32(&b, "split.count", count);
        gb_kv_u32(&b, "split.tensors.count", 3);
    }
    gb_tensor(&b, tensor, 1, 1, 0, 0, 0);
    gb_align(&b, 32);
    gb_f32(&b, value);
    char *path = in_split_dir(name);
    if (file_write_atomic(path, b.p, b.len, &err) != ST_OK)
        fail_msg("%s", err.msg);
    free(path);
    buf_release(&b);
}

static const char *const part_name[] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf",
                                        "m-00003-of-00003.gguf"};

static int make_split(void **state) {
    (void)state;
    strcpy(split_dir, "/tmp/llmchat-split-XXXXXX");
    assert_non_null(mkdtemp(split_dir));
    write_part(part_name[0], 0, 3, "b", 1);
    write_part(part_name[1], 1, 3, "a", 2);
    write_part(part_name[2], 2, 3, "c", 3);
    return 0;
}

static int remove_split(void **state) {
    (void)state;
    static const char *const more[] = {"m.gguf", "other.gguf"};
    for (size_t i = 0; i < 5; i++) {
        char *path = in_split_dir(i < 3 ? part_name[i] : more[i - 3]);
        unlink(path);
        free(path);
    }
    return rmdir(split_dir);
}

/* Opening `name` in split_dir must fail with this status and a message that holds `word`. */
static void set_refused(const char *name, enum status want, const char *word) {
    struct gguf_set *s = NULL;
    struct err err = {0};
    char *path = in_split_dir(name);
    enum status st = gguf_set_open(path, &s, &err);
    if (st != want || !strstr(err.msg, word))
        fail_msg("got %d \"%s\", wanted %d with \"%s\"", st, err.msg, want, word);
    assert_null(s);
    free(path);
}

static float only_value(const struct gguf_tensor *t) {
    float f;
    assert_non_null(t);
    memcpy(&f, t->data, sizeof f);
    return f;
}

static void split_files_open_as_one(void **state) {
    (void)state;
    struct gguf_set *s;
    struct err err;
    const struct gguf *in = NULL;
    char *path = in_split_dir(part_name[0]);
    assert_int_equal(gguf_set_open(path, &s, &err), ST_OK);
    assert_int_equal(gguf_set_n_files(s), 3);
    assert_ptr_equal(gguf_set_main(s), gguf_set_file(s, 0));
    assert_string_equal(gguf_name(gguf_set_main(s)), part_name[0]);
    assert_true(only_value(gguf_set_find(s, "a", &in)) == 2);
    assert_ptr_equal(in, gguf_set_file(s, 1));
    assert_true(only_value(gguf_set_find(s, "b", &in)) == 1);
    assert_ptr_equal(in, gguf_set_main(s));
    assert_true(only_value(gguf_set_find(s, "c", NULL)) == 3);
    assert_null(gguf_set_find(s, "d", &in));
    assert_null(gguf_set_find(s, "", &in));
    gguf_set_close(s);
    free(path);
}

static void a_file_that_is_not_split_is_a_set_of_one(void **state) {
    (void)state;
    struct gguf_set *s;
    struct err err;
    char *path = in_split_dir("m.gguf");
    write_part("m.gguf", 0, 0, "t", 5);
    assert_int_equal(gguf_set_open(path, &s, &err), ST_OK);
    assert_int_equal(gguf_set_n_files(s), 1);
    assert_true(only_value(gguf_set_find(s, "t", NULL)) == 5);
    gguf_set_close(s);
    gguf_set_close(NULL);
    free(path);
}

static void missing_parts_are_named(void **state) {
    (void)state;
    char *path = in_split_dir(part_name[1]);
    unlink(path);
    free(path);
    set_refused(part_name[0], ST_NOT_FOUND, "m-00002-of-00003.gguf: part 2 of 3 is missing");
    set_refused("m-00001-of-00004.gguf", ST_NOT_FOUND, "m-00001-of-00004.gguf");
}

static void parts_that_do_not_belong_are_refused(void **state) {
    (void)state;
    set_refused(part_name[1], ST_FORMAT, "part 2 of 3; open the first");
    write_part("other.gguf", 0, 3, "b", 1);
    set_refused("other.gguf", ST_FORMAT, "its name must end in -00001-of-00003.gguf");
    write_part(part_name[1], 2, 3, "a", 1);
    set_refused(part_name[0], ST_FORMAT,
                "m-00002-of-00003.gguf: says it is part 3 of 3, wanted part 2 of 3");
    write_part(part_name[1], 1, 4, "a", 1);
    set_refused(part_name[0], ST_FORMAT, "part 2 of 4, wanted part 2 of 3");
    write_part(part_name[1], 0, 0, "a", 1);
    set_refused(part_name[0], ST_FORMAT, "part 1 of 1, wanted part 2 of 3");
    write_part(part_name[1], 1, 3, "c", 1);
    set_refused(part_name[0], ST_FORMAT, "tensor c is in m-0000");
    write_part("m.gguf", 7, 3, "c", 1);
    set_refused("m.gguf", ST_FORMAT, "split.no is 7, wanted less than 3");
    write_part("m.gguf", 0, 100000, "c", 1);
    set_refused("m.gguf", ST_LIMIT, "split into 100000 files");
}

static void tensors_of_all_parts_are_counted(void **state) {
    (void)state;
    struct buf b = {0};
    struct err err;
    gb_head(&b, 3, 0, 2);
    gb_kv_u32(&b, "split.no", 1);
    gb_kv_u32(&b, "split.count", 3);
    char *path = in_split_dir(part_name[1]);
    assert_int_equal(file_write_atomic(path, b.p, b.len, &err), ST_OK);
    set_refused(part_name[0], ST_FORMAT,
                "the 3 files have 2 tensors, split.tensors.count is 3");
    free(path);
    buf_release(&b);
}

static void missing_files_say_so(void **state) {
    (void)state;
    struct gguf *g = NULL;
    struct err err = {0};
    assert_int_equal(gguf_open("/nowhere/at/all.gguf", &g, &err), ST_NOT_FOUND);
    assert_int_equal(gguf_open("/", &g, &err), ST_IO);
    assert_null(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_type_is_read),
        cmocka_unit_test(arrays_and_tensors_are_read),
        cmocka_unit_test(wrong_kinds_are_named),
        cmocka_unit_test(truncation_at_every_byte_is_refused),
        cmocka_unit_test(every_flipped_byte_is_survived),
        cmocka_unit_test(files_of_other_kinds_are_refused),
        cmocka_unit_test(version_2_and_files_without_tensors_open),
        cmocka_unit_test(absurd_counts_are_refused_at_once),
        cmocka_unit_test(nesting_is_limited),
        cmocka_unit_test(unknown_value_types_are_refused),
        cmocka_unit_test(duplicates_are_refused),
        cmocka_unit_test(tensors_that_do_not_fit_are_refused),
        cmocka_unit_test(overlapping_tensors_are_refused),
        cmocka_unit_test(alignment_is_checked),
        cmocka_unit_test(known_but_unreadable_types_open),
        cmocka_unit_test(values_of_layers_are_read),
        cmocka_unit_test_setup_teardown(split_files_open_as_one, make_split, remove_split),
        cmocka_unit_test_setup_teardown(a_file_that_is_not_split_is_a_set_of_one, make_split,
                                        remove_split),
        cmocka_unit_test_setup_teardown(missing_parts_are_named, make_split, remove_split),
        cmocka_unit_test_setup_teardown(parts_that_do_not_belong_are_refused, make_split,
                                        remove_split),
        cmocka_unit_test_setup_teardown(tensors_of_all_parts_are_counted, make_split,
                                        remove_split),
        cmocka_unit_test(missing_files_say_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
