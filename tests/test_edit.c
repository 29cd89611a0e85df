/*
 * test_edit.c - the input: commands, undo, pastes, rows, history.
 *
 * A state is written as text with the cursor as '|'.
 */
#include "base/utf8.h"
#include "ui/edit.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* An editor with the cursor where '|' stands. */
static struct edit *make(const char *state) {
    const char *bar = strchr(state, '|');
    struct edit *e = edit_new();
    edit_reset(e, "");
    edit_insert(e, state, (size_t)(bar - state));
    size_t len = strlen(bar + 1), clusters = 0;
    edit_insert(e, bar + 1, len);
    for (size_t at = 0; at < len; clusters++) {
        int cells;
        at += utf8_cluster(bar + 1 + at, len - at, &cells);
    }
    for (; clusters > 0; clusters--)
        edit_left(e);
    return e;
}

/* The text with '|' at the cursor: a mark is typed, read and undone by deleting it. */
static void expect(struct edit *e, const char *want) {
    edit_insert(e, "|", 1);
    char *got = edit_text(e);
    edit_backspace(e);
    assert_string_equal(got, want);
    free(got);
}

/* The rows joined by newlines, the cursor's cell as row:col behind them. */
static void expect_rows(struct edit *e, int width, int max_rows, const char *want) {
    struct edit_view v;
    struct drawn d = {0};
    struct buf out = {0};
    edit_layout(e, width, max_rows, &v);
    for (int i = 0; i < v.n; i++) {
        edit_row(e, v.top + i, &d);
        buf_add(&out, buf_str(&d.text), d.text.len);
        buf_addc(&out, '\n');
    }
    buf_addf(&out, "%d:%d of %d", v.cur_row, v.cur_col, v.rows);
    assert_string_equal(buf_str(&out), want);
    buf_release(&out);
    drawn_release(&d);
}

struct step {
    bool (*command)(struct edit *e);
    const char *before, *after;
};

static void commands_do_what_emacs_does(void **state) {
    (void)state;
    static const struct step steps[] = {
        {edit_left, "ab|c", "a|bc"},
        {edit_right, "ab|c", "abc|"},
        {edit_left, "a👨‍👩‍👧‍👦|", "a|👨‍👩‍👧‍👦"},
        {edit_right, "|e\xcc\x81x", "e\xcc\x81|x"},
        {edit_word_left, "one two, |three", "one |two, three"},
        {edit_word_right, "one| two, three", "one two|, three"},
        {edit_word_right, "|Ünïcode wörd", "Ünïcode| wörd"},
        {edit_line_start, "a\nbc|d", "a\n|bcd"},
        {edit_line_end, "a|b\ncd", "ab|\ncd"},
        {edit_start, "a\nb|", "|a\nb"},
        {edit_end, "|a\nb", "a\nb|"},
        {edit_backspace, "日本|語", "日|語"},
        {edit_delete, "日|本語", "日|語"},
        {edit_kill_word_left, "one two-three|!", "one two-|!"},
        {edit_kill_blank_left, "one two-three |x", "one |x"},
        {edit_kill_word_right, "one| two three", "one| three"},
        {edit_kill_to_start, "a\nbc|d", "a\n|d"},
        {edit_kill_to_end, "a|bc\nd", "a|\nd"},
        {edit_kill_to_end, "a|\nd", "a|d"},
        {edit_transpose, "a|bc", "ba|c"},
        {edit_transpose, "abc|", "acb|"},
        {edit_transpose_words, "one| two three", "two one| three"},
        {edit_upcase_word, "|straw été x", "STRAW| été x"},
        {edit_downcase_word, "|ÄB cd", "äb| cd"},
        {edit_capitalize_word, "x |hELLO you", "x Hello| you"},
        {edit_clear, "a\nb|c", "|"},
    };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct edit *e = make(steps[i].before);
        assert_true(steps[i].command(e));
        expect(e, steps[i].after);
        edit_free(e);
    }
}

static void commands_at_the_ends_do_nothing(void **state) {
    (void)state;
    static bool (*const at_start[])(struct edit *) = {edit_left,
                                                      edit_word_left,
                                                      edit_line_start,
                                                      edit_start,
                                                      edit_backspace,
                                                      edit_kill_word_left,
                                                      edit_kill_blank_left,
                                                      edit_kill_to_start,
                                                      edit_up,
                                                      edit_transpose,
                                                      edit_yank,
                                                      edit_kill_region};
    static bool (*const at_end[])(struct edit *) = {
        edit_right, edit_word_right,  edit_line_end,        edit_end,         edit_delete,
        edit_down,  edit_kill_to_end, edit_kill_word_right, edit_upcase_word, edit_redo};
    for (size_t i = 0; i < sizeof at_start / sizeof *at_start; i++) {
        struct edit *e = make("|ab");
        assert_false(at_start[i](e));
        edit_free(e);
    }
    for (size_t i = 0; i < sizeof at_end / sizeof *at_end; i++) {
        struct edit *e = make("ab|");
        assert_false(at_end[i](e));
        edit_free(e);
    }
}

static void kills_in_a_row_are_one_and_come_back(void **state) {
    (void)state;
    struct edit *e = make("one two three| four");
    edit_kill_word_left(e);
    edit_kill_word_left(e);
    edit_kill_to_end(e);
    expect(e, "one |");
    edit_end(e);
    edit_yank(e);
    expect(e, "one two three four|");
    edit_free(e);
    e = make("a b|");
    edit_kill_word_left(e);
    edit_left(e); /* ends the row of kills */
    edit_kill_word_left(e);
    assert_true(edit_yank(e));
    assert_true(edit_yank_pop(e));
    expect(e, "b| ");
    assert_false(edit_yank_pop(e)); /* expect() typed in between */
    edit_free(e);
}

static void the_region_is_killed_and_copied(void **state) {
    (void)state;
    struct edit *e = make("one |two three");
    edit_set_mark(e);
    edit_word_right(e);
    assert_true(edit_copy_region(e));
    edit_end(e);
    edit_yank(e);
    expect(e, "one two threetwo|");
    edit_set_mark(e);
    edit_start(e);
    assert_true(edit_kill_region(e));
    expect(e, "|");
    edit_free(e);
}

static void typing_is_undone_by_words_and_done_again(void **state) {
    (void)state;
    struct edit *e = edit_new();
    for (const char *p = "one two three"; *p; p++)
        edit_insert(e, p, 1);
    static const char *const back[] = {"one two", "one", ""};
    for (int i = 0; i < 3; i++) {
        assert_true(edit_undo(e));
        char *got = edit_text(e);
        assert_string_equal(got, back[i]);
        free(got);
    }
    assert_false(edit_undo(e));
    while (edit_redo(e))
        ;
    expect(e, "one two three|");
    edit_free(e);
}

static void undo_brings_back_every_state(void **state) {
    (void)state;
    struct edit *e = make("some text here|");
    char *before = edit_text(e);
    edit_kill_blank_left(e);
    edit_kill_to_start(e);
    edit_yank(e);
    edit_transpose(e);
    edit_clear(e);
    edit_set(e, "other");
    char *now;
    for (int i = 0; i < 6; i++)
        assert_true(edit_undo(e));
    now = edit_text(e);
    assert_string_equal(now, before);
    free(now);
    free(before);
    edit_free(e);
}

static void bad_bytes_are_mended_and_line_ends_are_one(void **state) {
    (void)state;
    struct edit *e = edit_new();
    edit_insert(e, "a\xff\r\nb\rc\0d\xf4\x80\x80\x85", 13);
    expect(e, "a\xef\xbf\xbd\nb\ncd\xef\xbf\xbd|");
    edit_free(e);
}

static void the_cursor_stays_on_cluster_borders(void **state) {
    (void)state;
    struct edit *e = make("e|x");
    edit_insert(e, "\xcc\x81", 2); /* joins the e */
    edit_left(e);
    expect(e, "|e\xcc\x81x");
    edit_free(e);
}

/* "A paste sent line by line": it is one unit that opens up when sent. */
static void a_long_paste_is_one_unit(void **state) {
    (void)state;
    struct buf b = {0};
    for (int i = 0; i < 42; i++)
        buf_addf(&b, "%sline %d", i ? "\r\n" : "", i);
    struct edit *e = make("see |!");
    edit_paste(e, b.p, b.len);
    expect_rows(e, 40, 5, "see [pasted 42 lines]!\n0:21 of 1");
    edit_left(e);
    expect_rows(e, 40, 5, "see [pasted 42 lines]!\n0:4 of 1");
    edit_right(e);
    char *text = edit_text(e);
    assert_non_null(strstr(text, "see line 0\nline 1\n"));
    assert_non_null(strstr(text, "line 41!"));
    free(text);
    edit_backspace(e);
    expect(e, "see |!");
    edit_undo(e);
    edit_undo(e);
    edit_undo(e);
    assert_true(edit_paste_expand(e));
    struct edit_view v;
    edit_layout(e, 40, 5, &v);
    assert_int_equal(v.rows, 42);
    assert_int_equal(v.cur_row, 4);
    edit_reset(e, "");
    edit_paste(e, "short\r\npaste", 12);
    expect(e, "short\npaste|");
    edit_free(e);
    buf_release(&b);
}

static void a_killed_paste_can_be_yanked_after_a_reset(void **state) {
    (void)state;
    char big[2001];
    memset(big, 'x', 2000);
    big[2000] = 0;
    struct edit *e = edit_new();
    edit_paste(e, big, 2000);
    expect_rows(e, 40, 3, "[pasted 2000 bytes]\n0:19 of 1");
    edit_clear(e);
    edit_reset(e, "");
    edit_yank(e);
    char *text = edit_text(e);
    assert_string_equal(text, big);
    free(text);
    edit_free(e);
}

static void rows_wrap_and_the_cursor_has_a_cell(void **state) {
    (void)state;
    struct edit *e = make("hello wide world|\nx");
    expect_rows(e, 11, 9, "hello wide \nworld\nx\n1:5 of 3");
    edit_up(e);
    edit_line_start(e);
    expect_rows(e, 11, 9, "hello wide \nworld\nx\n0:0 of 3");
    edit_line_end(e);
    edit_up(e);
    expect_rows(e, 11, 9, "hello wide \nworld\nx\n0:5 of 3");
    edit_down(e);
    edit_down(e);
    expect_rows(e, 11, 9, "hello wide \nworld\nx\n2:1 of 3");
    edit_up(e); /* the column is remembered */
    expect_rows(e, 11, 9, "hello wide \nworld\nx\n1:5 of 3");
    edit_down(e);
    assert_false(edit_down(e));
    expect_rows(e, 11, 2, "world\nx\n1:1 of 3");
    edit_click(e, 0, 3);
    expect_rows(e, 11, 2, "world\nx\n0:3 of 3");
    edit_free(e);
    e = make("日本語日本語|");
    expect_rows(e, 8, 9, "日本語\n日本語\n1:6 of 2");
    edit_free(e);
    e = make("a\tb\x1b|");
    expect_rows(e, 20, 9, "a   b\xef\xbf\xbd\n0:6 of 1");
    edit_free(e);
}

static void the_view_scrolls_with_the_cursor(void **state) {
    (void)state;
    struct edit *e = make("1\n2\n3\n4\n5|");
    expect_rows(e, 20, 3, "3\n4\n5\n2:1 of 5");
    edit_start(e);
    expect_rows(e, 20, 3, "1\n2\n3\n0:0 of 5");
    edit_down(e);
    edit_down(e);
    edit_down(e);
    expect_rows(e, 20, 3, "2\n3\n4\n2:0 of 5");
    edit_set(e, "1");
    expect_rows(e, 20, 3, "1\n0:1 of 1");
    edit_free(e);
}

static void random_commands_keep_the_text_sound(void **state) {
    (void)state;
    static bool (*const all[])(struct edit *) = {edit_left,
                                                 edit_right,
                                                 edit_word_left,
                                                 edit_word_right,
                                                 edit_line_start,
                                                 edit_line_end,
                                                 edit_start,
                                                 edit_end,
                                                 edit_up,
                                                 edit_down,
                                                 edit_backspace,
                                                 edit_delete,
                                                 edit_kill_word_left,
                                                 edit_kill_blank_left,
                                                 edit_kill_word_right,
                                                 edit_kill_to_start,
                                                 edit_kill_to_end,
                                                 edit_set_mark,
                                                 edit_kill_region,
                                                 edit_copy_region,
                                                 edit_yank,
                                                 edit_yank_pop,
                                                 edit_transpose,
                                                 edit_transpose_words,
                                                 edit_upcase_word,
                                                 edit_downcase_word,
                                                 edit_capitalize_word,
                                                 edit_undo,
                                                 edit_redo,
                                                 edit_paste_expand};
    static const char *const texts[] = {"a",
                                        " ",
                                        "\n",
                                        "\t",
                                        "日本",
                                        "e\xcc\x81",
                                        "\xcc\x81",
                                        "👨‍👩‍👧‍👦",
                                        "\xf0\x9f\x87\xa9",
                                        "word",
                                        "\x1b",
                                        "İ",
                                        "\xff"};
    unsigned rng = 5;
    struct edit *e = edit_new();
    struct edit_view v;
    struct drawn d = {0};
    for (int i = 0; i < 6000; i++) {
        rng = rng * 1664525u + 1013904223u;
        unsigned r = rng >> 8;
        const char *text = texts[r / 7 % (sizeof texts / sizeof *texts)];
        if (r % 3 == 0)
            edit_insert(e, text, strlen(text));
        else if (r % 97 == 1)
            edit_paste(e, "1\n2\n3\n4\n5\n6\n7\n8\n9\n", 18);
        else
            all[r / 7 % (sizeof all / sizeof *all)](e);
        if (i % 500 == 499)
            edit_reset(e, "fresh");
        int width = 4 + (int)(r % 30);
        edit_layout(e, width, 5, &v);
        assert_in_range(v.cur_row, 0, v.n - 1);
        assert_in_range(v.cur_col, 0, width - 1);
        for (int k = 0; k < v.n; k++) {
            edit_row(e, v.top + k, &d);
            assert_in_range(d.cells, 0, width);
        }
        char *now = edit_text(e);
        assert_true(utf8_valid(now, strlen(now)));
        free(now);
    }
    drawn_release(&d);
    edit_free(e);
}

/* -- history -- */

static void history_keeps_the_draft(void **state) {
    (void)state;
    struct edit_history *h;
    struct err err;
    assert_int_equal(edit_history_open(NULL, &h, &err), ST_OK);
    edit_history_add(h, "first", &err);
    edit_history_add(h, "second\nline", &err);
    edit_history_add(h, "second\nline", &err);
    edit_history_add(h, "  \n", &err);
    assert_int_equal(edit_history_len(h), 2);
    struct edit *e = make("my draft|");
    assert_false(edit_history_next(e, h));
    assert_true(edit_history_prev(e, h));
    expect(e, "second\nline|");
    assert_true(edit_history_prev(e, h));
    expect(e, "first|");
    assert_false(edit_history_prev(e, h));
    assert_true(edit_history_next(e, h));
    assert_true(edit_history_next(e, h));
    expect(e, "my draft|");
    assert_false(edit_history_next(e, h));
    edit_free(e);
    edit_history_free(h);
}

static void history_is_bounded(void **state) {
    (void)state;
    struct edit_history *h;
    struct err err;
    assert_int_equal(edit_history_open(NULL, &h, &err), ST_OK);
    for (int i = 0; i < EDIT_HISTORY_MAX + 5; i++) {
        char text[16];
        snprintf(text, sizeof text, "n%d", i);
        assert_int_equal(edit_history_add(h, text, &err), ST_OK);
    }
    assert_int_equal(edit_history_len(h), EDIT_HISTORY_MAX);
    edit_history_free(h);
}

static void history_lives_in_a_private_file(void **state) {
    (void)state;
    char dir[] = "/tmp/llmchat-edit-XXXXXX", path[64];
    struct edit_history *a, *b;
    struct err err;
    struct stat st;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/history", dir);
    assert_int_equal(edit_history_open(path, &a, &err), ST_OK);
    assert_int_equal(edit_history_open(path, &b, &err), ST_OK);
    assert_int_equal(edit_history_add(a, "one\ntwo \\n three", &err), ST_OK);
    assert_int_equal(edit_history_add(b, "from another window", &err), ST_OK);
    assert_int_equal(edit_history_add(a, "last", &err), ST_OK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    edit_history_free(a);
    edit_history_free(b);
    assert_int_equal(edit_history_open(path, &a, &err), ST_OK);
    assert_int_equal(edit_history_len(a), 3);
    struct edit *e = edit_new();
    edit_history_prev(e, a);
    edit_history_prev(e, a);
    expect(e, "from another window|");
    edit_history_prev(e, a);
    expect(e, "one\ntwo \\n three|");
    edit_free(e);
    edit_history_free(a);
    unlink(path);
    rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_do_what_emacs_does),
        cmocka_unit_test(commands_at_the_ends_do_nothing),
        cmocka_unit_test(kills_in_a_row_are_one_and_come_back),
        cmocka_unit_test(the_region_is_killed_and_copied),
        cmocka_unit_test(typing_is_undone_by_words_and_done_again),
        cmocka_unit_test(undo_brings_back_every_state),
        cmocka_unit_test(bad_bytes_are_mended_and_line_ends_are_one),
        cmocka_unit_test(the_cursor_stays_on_cluster_borders),
        cmocka_unit_test(a_long_paste_is_one_unit),
        cmocka_unit_test(a_killed_paste_can_be_yanked_after_a_reset),
        cmocka_unit_test(rows_wrap_and_the_cursor_has_a_cell),
        cmocka_unit_test(the_view_scrolls_with_the_cursor),
        cmocka_unit_test(random_commands_keep_the_text_sound),
        cmocka_unit_test(history_keeps_the_draft),
        cmocka_unit_test(history_is_bounded),
        cmocka_unit_test(history_lives_in_a_private_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
