/*
 * test_settle.c - weights that move while they are used: whatever their form, they are copied
 * whole, in pieces of any length, and no longer depend on the file that they came from.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file_map.h"
#include "base/mem.h"
#include "engine/cpu/cpu_internal.h"
#include "engine/quant/pack.h"
#include "rand.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N = 333, K = 328 };

static struct backend *open_backend(int threads) {
    struct backend *be;
    struct err err;
    assert_int_equal(cpu_backend_new(&cpu_scalar, threads, &be, &err), ST_OK);
    cpu_of(be)->settle.always = true;
    return be;
}

/* Every form that a weight has. */
enum { N_FORM = 8 };
static void make(struct weight *w, int form) {
    static const enum weight_type packed[] = {WEIGHT_F32, WEIGHT_BF16, WEIGHT_F16, WEIGHT_I8,
                                              WEIGHT_Q4};
    static const float table[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
    enum { G = (K + 31) / 32 };
    float *x = xcalloc((size_t)N * K, sizeof *x), *scale = x, *min = x + N * G;
    uint8_t *code = xcalloc(N, K);
    rand_fill(x, (size_t)N * K, 1);
    for (int i = 0; i < N * K; i++)
        code[i] = rand_u32() & 15;
    if (form < 5)
        weight_pack(w, packed[form], x, N, K);
    else
        weight_pack_codes(w, form == 5 ? WEIGHT_I8 : WEIGHT_Q4, N, K, 32, code, scale,
                          form == 7 ? NULL : min, table);
    free(x);
    free(code);
}

static void equal(const struct weight *a, const struct weight *b) {
    static float x[K], y[K];
    for (int n = 0; n < weight_pad_n(N); n++) {
        weight_unpack_row(a, n, x);
        weight_unpack_row(b, n, y);
        assert_memory_equal(x, y, sizeof x);
    }
}

static bool in_arena(const struct settle *s, const void *p) {
    for (int i = 0; i < s->n_arena; i++)
        if ((const char *)p >= s->arenas[i].p &&
            (const char *)p < s->arenas[i].p + s->arenas[i].bytes)
            return (uintptr_t)p % 64 == 0;
    return !p;
}

static void moved(struct backend *be, const struct weight *w) {
    const struct settle *s = &cpu_of(be)->settle;
    assert_true(w->data && in_arena(s, w->data) && in_arena(s, w->scale));
    assert_true(in_arena(s, w->min) && in_arena(s, w->code) && in_arena(s, w->absmax2));
}

static void every_form_is_copied_whole_in_pieces_of_any_length(void **state) {
    static const size_t pieces[] = {61, 1000, 12345, SIZE_MAX};
    struct weight host[N_FORM];
    (void)state;
    for (int f = 0; f < N_FORM; f++)
        make(&host[f], f);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        struct backend *be = open_backend(i % 2 ? 3 : 1);
        for (int f = 0; f < N_FORM; f++) {
            struct weight w;
            struct err err;
            assert_int_equal(be->bind(be, &host[f], &w, &err), ST_OK);
            for (bool done = false; !done;) {
                size_t left = pieces[i];
                assert_ptr_equal(w.data, host[f].data); /* read there until all is copied */
                done = be->settle(be, &w, &left);
                assert_true(done || left == 0);
            }
            moved(be, &w);
            equal(&w, &host[f]);
        }
        be->close(be);
    }
    for (int f = 0; f < N_FORM; f++)
        weight_pack_release(&host[f]);
}

static void with_several_nodes_a_weight_is_copied_at_once(void **state) {
    struct backend *be = open_backend(2);
    struct weight host, w;
    struct err err;
    size_t left = 100;
    (void)state;
    cpu_of(be)->settle.nodes = 2;
    make(&host, 4);
    assert_int_equal(be->bind(be, &host, &w, &err), ST_OK);
    assert_true(be->settle(be, &w, &left));
    assert_int_equal(left, 0);
    moved(be, &w);
    equal(&w, &host);
    be->close(be);
    weight_pack_release(&host);
}

/* More than an arena, and more than fits behind the weight before. */
static void large_weights_get_room_of_their_own(void **state) {
    static const int rows[] = {1024, 2048, 5120, 512, 16};
    struct backend *be = open_backend(2);
    struct weight w[5];
    float *data[5];
    (void)state;
    for (int i = 0; i < 5; i++) {
        size_t n = (size_t)rows[i] * 4096;
        data[i] = xcalloc(n, sizeof **data);
        for (size_t j = 0; j < n; j += 777)
            data[i][j] = (float)(j + (size_t)i);
        w[i] = (struct weight){.type = WEIGHT_F32,
                               .N = rows[i],
                               .Np = rows[i],
                               .K = 4096,
                               .Kp = 4096,
                               .data = data[i]};
        size_t left = SIZE_MAX;
        assert_true(be->settle(be, &w[i], &left));
        moved(be, &w[i]);
    }
    for (int i = 0; i < 5; i++) {
        assert_memory_equal(w[i].data, data[i], (size_t)rows[i] * 4096 * sizeof **data);
        free(data[i]);
    }
    be->close(be);
}

static void what_was_moved_does_not_need_its_file(void **state) {
    char path[] = "/tmp/llmchat-settle-XXXXXX";
    struct backend *be = open_backend(2);
    struct file_map m;
    struct weight host, w;
    struct err err;
    size_t left = SIZE_MAX, len;
    (void)state;
    file_map_guard();
    make(&host, 0);
    len = (size_t)host.Np * (size_t)host.Kp * sizeof(float);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, host.data, len), len);
    assert_int_equal(file_map_open(&m, path, &err), ST_OK);
    w = host;
    w.data = m.p;
    assert_true(be->settle(be, &w, &left));
    moved(be, &w);
    assert_int_equal(ftruncate(fd, 0), 0);
    equal(&w, &host);
    assert_int_equal(file_map_intact(m, "m", &err), ST_OK);
    assert_int_equal(m.p[0], 0); /* the rest of the file is read, and is not there */
    assert_int_equal(file_map_intact(m, "m", &err), ST_IO);
    equal(&w, &host);
    be->close(be);
    file_map_close(&m);
    close(fd);
    unlink(path);
    weight_pack_release(&host);
}

static void few_weights_stay(void **state) {
    struct backend *be = open_backend(1);
    struct weight host, w;
    struct err err;
    size_t left = 1000;
    (void)state;
    cpu_of(be)->settle.always = false;
    make(&host, 4);
    assert_int_equal(be->bind(be, &host, &w, &err), ST_OK);
    assert_true(be->settle(be, &w, &left));
    assert_int_equal(left, 1000);
    assert_memory_equal(&w, &host, sizeof w);
    be->close(be);
    weight_pack_release(&host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_is_copied_whole_in_pieces_of_any_length),
        cmocka_unit_test(with_several_nodes_a_weight_is_copied_at_once),
        cmocka_unit_test(large_weights_get_room_of_their_own),
        cmocka_unit_test(what_was_moved_does_not_need_its_file),
        cmocka_unit_test(few_weights_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
