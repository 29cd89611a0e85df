/*
 * test_transcript.c - the view of a conversation: rows as drawn, following, the anchor, search,
 * selection.
 */
#include "ui/layout.h"
#include "ui/transcript.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct tr_message msg(int64_t id, enum tr_role role, const char *text) {
    return (struct tr_message){.id = id, .role = role, .text = text, .len = strlen(text)};
}

static struct transcript *make(int rows, int width, const struct tr_message *v, size_t n) {
    struct transcript *t = transcript_new();
    transcript_set_size(t, rows, width);
    transcript_sync(t, v, n);
    return t;
}

/* The view as text; runs with one of the flags are put into [ ]. */
static char *screen(struct transcript *t, int rows, uint16_t flags) {
    struct buf out = {0};
    struct drawn d = {0};
    for (int i = 0; i < rows; i++) {
        size_t from = out.len;
        transcript_row(t, i, &d);
        for (size_t k = 0; k < d.n; k++) {
            bool mark = d.run[k].style & flags;
            buf_adds(&out, mark ? "[" : "");
            buf_add(&out, d.text.p + d.run[k].off, d.run[k].len);
            buf_adds(&out, mark ? "]" : "");
        }
        while (out.len > from && out.p[out.len - 1] == ' ')
            buf_cut(&out, out.len - 1);
        buf_addc(&out, '\n');
    }
    drawn_release(&d);
    return buf_take(&out);
}

static void expect(struct transcript *t, int rows, uint16_t flags, const char *want) {
    char *got = screen(t, rows, flags);
    assert_string_equal(got, want);
    free(got);
}

static void expect_copy(struct transcript *t, const char *want) {
    char *got = transcript_marked_text(t);
    assert_string_equal(got, want);
    free(got);
}

static void roles_stand_in_their_column(void **state) {
    (void)state;
    struct tr_message v[] = {
        msg(-1, TR_SYSTEM, "You are helpful."), msg(1, TR_USER, "How do *tides* work?"),
        msg(2, TR_MODEL, "The **Moon** pulls at the sea.\n\n```c\nint x;\n```"),
        msg(3, TR_USER, "Thanks"), msg(4, TR_MODEL, "")};
    v[2].sibling = 2;
    v[2].n_sibling = 3;
    v[2].footer = "stopped";
    v[4].streaming = true;
    struct transcript *t = make(11, 44, v, 5);
    expect(t, 11, 0,
           "system  You are helpful.\n"
           "you     How do *tides* work?\n"
           "llmchat The Moon pulls at the sea.   ◂ 2/3 ▸\n"
           "\n"
           "        ```c\n"
           "        int x;\n"
           "        ```\n"
           "        stopped\n"
           "\n"
           "you     Thanks\n"
           "llmchat …\n");
    int64_t id = 0;
    assert_int_equal(transcript_branch_at(t, 2, 37, &id), -1);
    assert_int_equal(id, 2);
    assert_int_equal(transcript_branch_at(t, 2, 43, &id), 1);
    assert_int_equal(transcript_branch_at(t, 2, 10, &id), 0);
    assert_int_equal(transcript_message_at(t, 5), 2);
    transcript_free(t);
}

static void branch_marks_go_below_a_full_line(void **state) {
    (void)state;
    struct tr_message v[] = {msg(1, TR_MODEL, "a line that fills up the whole width")};
    v[0].sibling = 1;
    v[0].n_sibling = 2;
    struct transcript *t = make(2, 44, v, 1);
    expect(t, 2, 0,
           "llmchat a line that fills up the whole width\n"
           "                                     ◂ 1/2 ▸\n");
    transcript_free(t);
}

static void narrow_screens_put_labels_above(void **state) {
    (void)state;
    struct tr_message v[] = {msg(1, TR_USER, "How do tides work?"), msg(2, TR_MODEL, "Well.")};
    struct transcript *t = make(5, 12, v, 2);
    expect(t, 5, 0, "you\nHow do tides\nwork?\nllmchat\nWell.\n");
    transcript_free(t);
}

static char *numbered(int from, int to) {
    struct buf b = {0};
    for (int i = from; i <= to; i++)
        buf_addf(&b, "%sline %d", i > from ? "\n" : "", i);
    return buf_take(&b);
}

/* "Scrolling stolen while text streams" */
static void streaming_below_moves_nothing_when_scrolled_up(void **state) {
    (void)state;
    char *long_text = numbered(1, 50);
    struct tr_message v[] = {msg(1, TR_USER, long_text), msg(2, TR_MODEL, "a")};
    v[1].streaming = true;
    struct transcript *t = make(4, 40, v, 2);
    assert_true(transcript_at_tail(t));
    expect(t, 4, 0, "        line 48\n        line 49\n        line 50\nllmchat a\n");
    transcript_append(t, 2, "\nb", 2);
    expect(t, 4, 0, "        line 49\n        line 50\nllmchat a\n        b\n");
    transcript_scroll(t, -3);
    assert_false(transcript_at_tail(t));
    assert_false(transcript_more_below(t));
    char *before = screen(t, 4, 0);
    for (int i = 0; i < 30; i++) {
        transcript_append(t, 2, "\nmore", 5);
        expect(t, 4, 0, before);
    }
    assert_true(transcript_more_below(t));
    v[1].text = "a\nb and other text";
    v[1].len = strlen(v[1].text);
    transcript_sync(t, v, 2);
    expect(t, 4, 0, before);
    transcript_bottom(t);
    assert_false(transcript_more_below(t));
    expect(t, 4, 0, "        line 49\n        line 50\nllmchat a\n        b and other text\n");
    free(before);
    free(long_text);
    transcript_free(t);
}

static void scrolling_back_to_the_tail_follows_again(void **state) {
    (void)state;
    char *text = numbered(1, 20);
    struct tr_message v[] = {msg(1, TR_USER, text)};
    struct transcript *t = make(4, 40, v, 1);
    transcript_page(t, -2);
    expect(t, 4, 0, "        line 14\n        line 15\n        line 16\n        line 17\n");
    assert_false(transcript_at_tail(t));
    transcript_page(t, 2);
    assert_true(transcript_at_tail(t));
    transcript_top(t);
    expect(t, 1, 0, "you     line 1\n");
    transcript_scroll(t, -5);
    expect(t, 1, 0, "you     line 1\n");
    size_t above, seen, below;
    transcript_extent(t, &above, &seen, &below);
    assert_int_equal(above, 0);
    assert_int_equal(seen, 4);
    assert_int_equal(below, 16);
    free(text);
    transcript_free(t);
}

/* "A resize that loses or doubles text" */
static void a_resize_keeps_the_place(void **state) {
    (void)state;
    struct buf b = {0};
    for (int i = 0; i < 40; i++)
        buf_addf(&b, "Paragraph %d has some words in it so that it wraps.\n\n", i);
    struct tr_message v[] = {msg(1, TR_MODEL, buf_str(&b)), msg(2, TR_USER, "x")};
    struct transcript *t = make(5, 40, v, 2);
    transcript_top(t);
    char *row;
    do {
        transcript_scroll(t, 1);
        row = screen(t, 1, 0);
        bool here = strstr(row, "Paragraph 20") != NULL;
        free(row);
        if (here)
            break;
    } while (!transcript_at_tail(t));
    for (int width = 100; width > 12; width -= 7) {
        transcript_set_size(t, 5, width);
        row = screen(t, 1, 0);
        assert_non_null(strstr(row, width < 24 ? "Paragraph" : "Paragraph 20"));
        free(row);
    }
    buf_release(&b);
    transcript_free(t);
}

static void sync_keeps_place_and_selection(void **state) {
    (void)state;
    char *text = numbered(1, 30);
    struct tr_message v[] = {msg(1, TR_USER, text), msg(2, TR_MODEL, text),
                             msg(3, TR_USER, text)};
    struct transcript *t = make(3, 40, v, 3);
    assert_true(transcript_select(t, 2));
    assert_int_equal(transcript_selected(t), 2);
    char *before = screen(t, 3, 0);
    assert_non_null(strstr(before, "llmchat line 1\n"));
    v[2] = msg(9, TR_USER, "another branch");
    transcript_sync(t, v, 3);
    expect(t, 3, 0, before);
    assert_int_equal(transcript_selected(t), 2);
    assert_true(transcript_select_step(t, 1));
    assert_int_equal(transcript_selected(t), 9);
    assert_false(transcript_select_step(t, 1));
    transcript_sync(t, v, 2);
    assert_int_equal(transcript_selected(t), 0);
    assert_false(transcript_show(t, 9));
    free(before);
    free(text);
    transcript_free(t);
}

/* "Slow long chats": what is not seen is not laid out. */
static void only_what_is_seen_is_laid_out(void **state) {
    (void)state;
    enum { N = 10000 };
    struct tr_message *v = calloc(N + 1, sizeof *v);
    struct buf big = {0};
    for (int i = 0; i < 30000; i++)
        buf_addf(&big, "paragraph %d of a long answer\n\n", i);
    for (int i = 0; i < N; i++)
        v[i] = msg(i + 1, i % 2 ? TR_MODEL : TR_USER, i == N / 2 + 1 ? buf_str(&big) : "text");
    struct transcript *t = make(24, 80, v, N);
    struct drawn d = {0};
    for (int i = 0; i < 200; i++) {
        transcript_append(t, N, "\n\nx", 3);
        transcript_row(t, 23, &d);
        transcript_scroll(t, i % 3 ? -3 : 2);
        transcript_row(t, 0, &d);
    }
    assert_true(transcript_n_laid_out(t) < 200);
    transcript_top(t);
    assert_true(transcript_show(t, N / 2 + 2)); /* the long one, in the midst */
    char *got = screen(t, 3, 0);
    assert_string_equal(got, "llmchat paragraph 0 of a long answer\n\n"
                             "        paragraph 1 of a long answer\n");
    free(got);
    for (int i = 0; i < 400; i++) { /* ten thousand rows up */
        transcript_page(t, -2);
        transcript_row(t, 0, &d);
    }
    assert_true(transcript_n_laid_out(t) < 200);
    drawn_release(&d);
    buf_release(&big);
    free(v);
    transcript_free(t);
}

static void search_finds_what_the_eye_reads(void **state) {
    (void)state;
    struct tr_message v[] = {msg(1, TR_USER,
                                 "Stra\xc3\x9f"
                                 "e und CAFE\xcc\x81"),
                             msg(2, TR_MODEL, "some **bold** text\nover lines"),
                             msg(3, TR_USER, "nothing")};
    struct transcript *t = make(5, 40, v, 3);
    assert_int_equal(transcript_search(t, "STRASSE"), 1);
    expect(t, 1, STYLE_MATCH, "you     [Straße] und CAFE\xcc\x81\n");
    assert_int_equal(transcript_search(t, "caf\xc3\xa9"), 1);
    assert_int_equal(transcript_search(t, "bold text over"), 1);
    expect(t, 3, STYLE_MATCH_NOW,
           "you     Straße und CAFE\xcc\x81\n"
           "llmchat some [bold][ text]\n"
           "        [over] lines\n");
    assert_int_equal(transcript_search(t, "**bold"), 1);
    assert_int_equal(transcript_search(t, "absent"), 0);
    assert_false(transcript_search_step(t, 1));
    assert_int_equal(transcript_search(t, NULL), 0);
    assert_string_equal(transcript_query(t), "");
    transcript_free(t);
}

static void search_steps_through_all_and_around(void **state) {
    (void)state;
    char *text = numbered(1, 100); /* "line 7" is in 7, 70 … 79 */
    struct tr_message v[] = {msg(1, TR_USER, text), msg(2, TR_MODEL, "and line 7 again")};
    struct transcript *t = make(3, 40, v, 2);
    transcript_top(t);
    assert_int_equal(transcript_search(t, "line 7"), 2);
    char *got = screen(t, 3, STYLE_MATCH_NOW);
    assert_non_null(strstr(got, "[line 7]\n"));
    free(got);
    for (int i = 0; i < 11; i++)
        assert_true(transcript_search_step(t, 1));
    got = screen(t, 3, STYLE_MATCH_NOW);
    assert_non_null(strstr(got, "and [line 7] again"));
    free(got);
    assert_true(transcript_search_step(t, 1)); /* around */
    got = screen(t, 3, STYLE_MATCH_NOW);
    assert_non_null(strstr(got, "[line 7]\n"));
    free(got);
    assert_true(transcript_search_step(t, -1));
    got = screen(t, 3, STYLE_MATCH_NOW);
    assert_non_null(strstr(got, "and [line 7] again"));
    free(got);
    free(text);
    transcript_free(t);
}

static void matches_appear_in_text_that_streams(void **state) {
    (void)state;
    struct tr_message v[] = {msg(1, TR_MODEL, "needle ")};
    v[0].streaming = true;
    struct transcript *t = make(2, 60, v, 1);
    assert_int_equal(transcript_search(t, "needle"), 1);
    static const char more[] = "nee dle needle x needle";
    for (const char *p = more; *p; p++) {
        transcript_append(t, 1, p, 1);
        char *s = screen(t, 2, 0);
        free(s);
    }
    expect(t, 1, STYLE_MATCH, "llmchat [needle] nee dle [needle] x [needle]\n");
    transcript_free(t);
}

/* "No way to select and copy, or copies with line breaks of the screen" */
static void copies_have_no_line_breaks_of_the_screen(void **state) {
    (void)state;
    struct tr_message v[] = {
        msg(1, TR_USER, "one two three four five six seven"),
        msg(2, TR_MODEL, "A *very* long line of prose here.\n\n```c\n  int a;\n\tb;\n```")};
    struct transcript *t = make(12, 24 + 16, v, 2);
    expect(t, 8, 0,
           "you     one two three four five six\n"
           "        seven\n"
           "llmchat A very long line of prose here.\n"
           "\n"
           "        ```c\n"
           "          int a;\n"
           "            b;\n"
           "        ```\n");
    transcript_mark_begin(t, 0, 12);
    assert_false(transcript_marked(t));
    transcript_mark_to(t, 1, 10);
    assert_true(transcript_marked(t));
    expect_copy(t, "two three four five six sev");
    expect(t, 2, STYLE_SELECTED,
           "you     one [two three four five six]\n"
           "        [sev]en\n");
    transcript_mark_begin(t, 6, 30); /* backwards */
    transcript_mark_to(t, 5, 0);
    expect_copy(t, "  int a;\n\tb;");
    transcript_mark_begin(t, 1, 0);
    transcript_mark_to(t, 2, 13);
    expect_copy(t, "seven\n\nA *very");
    transcript_mark_word(t, 2, 21);
    expect_copy(t, "line");
    transcript_mark_line(t, 1, 9);
    expect_copy(t, "one two three four five six seven");
    transcript_mark_clear(t);
    expect_copy(t, "");
    char *code = transcript_code_block(t, 2, 0);
    assert_string_equal(code, "  int a;\n\tb;\n");
    free(code);
    assert_null(transcript_code_block(t, 2, 1));
    transcript_free(t);
}

static void a_selection_stays_while_text_streams(void **state) {
    (void)state;
    struct tr_message v[] = {msg(1, TR_USER, "mark this"), msg(2, TR_MODEL, "x")};
    v[1].streaming = true;
    struct transcript *t = make(3, 40, v, 2);
    transcript_mark_word(t, 0, 8);
    for (int i = 0; i < 20; i++)
        transcript_append(t, 2, "\n\ny", 3);
    expect_copy(t, "mark");
    transcript_set_size(t, 3, 20);
    expect_copy(t, "mark");
    transcript_free(t);
}

static void an_empty_transcript_answers_everything(void **state) {
    (void)state;
    struct transcript *t = make(3, 40, NULL, 0);
    expect(t, 3, 0, "\n\n\n");
    transcript_scroll(t, -1);
    transcript_page(t, 2);
    transcript_top(t);
    transcript_bottom(t);
    transcript_mark_begin(t, 0, 0);
    transcript_mark_to(t, 5, 0);
    expect_copy(t, "");
    assert_int_equal(transcript_search(t, "x"), 0);
    assert_false(transcript_search_step(t, 1));
    assert_false(transcript_select_step(t, 1));
    assert_int_equal(transcript_message_at(t, 0), 0);
    assert_false(transcript_append(t, 1, "x", 1));
    assert_true(transcript_at_tail(t));
    transcript_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(roles_stand_in_their_column),
        cmocka_unit_test(branch_marks_go_below_a_full_line),
        cmocka_unit_test(narrow_screens_put_labels_above),
        cmocka_unit_test(streaming_below_moves_nothing_when_scrolled_up),
        cmocka_unit_test(scrolling_back_to_the_tail_follows_again),
        cmocka_unit_test(a_resize_keeps_the_place),
        cmocka_unit_test(sync_keeps_place_and_selection),
        cmocka_unit_test(only_what_is_seen_is_laid_out),
        cmocka_unit_test(search_finds_what_the_eye_reads),
        cmocka_unit_test(search_steps_through_all_and_around),
        cmocka_unit_test(matches_appear_in_text_that_streams),
        cmocka_unit_test(copies_have_no_line_breaks_of_the_screen),
        cmocka_unit_test(a_selection_stays_while_text_streams),
        cmocka_unit_test(an_empty_transcript_answers_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
