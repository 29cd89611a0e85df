/*
 * test_ui_terminal.c - the terminal itself: sizes, colours, unknown types, hostile text, menus,
 * dialogs, settings.
 */
#include "harness.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct tt *start(void **state, const char *const *env) {
    struct tt *t = tt_ui_start(*state, NULL, NULL, env);
    tt_wait(t, "tiny·nf4·cpu");
    return t;
}

/* In what was written, whatever the lines looked like on the screen. */
static bool wrote(struct tt *t, const char *text) {
    size_t n;
    const char *out = tt_output(t, &n);
    return memmem(out, n, text, strlen(text)) != NULL;
}

/* Esc, and wait until what it closes is gone: the next key would make it Alt otherwise. */
static void escape(struct tt *t, const char *closes) {
    tt_wait(t, closes);
    tt_type(t, T_ESC);
    tt_wait_gone(t, closes);
}

static void unknown_term_is_a_clear_message(void **state) {
    const char *env[] = {"TERM=no-such-terminal", NULL};
    struct tt *t = tt_ui_start(*state, NULL, NULL, env);
    assert_int_equal(tt_exit(t), 1);
    assert_true(wrote(t, "'no-such-terminal' (TERM) is not known"));
    assert_true(wrote(t, "TERM=xterm-256color"));
    assert_true(tt_modes_restored(t));
    tt_close(t);
}

static void dumb_terminal_is_sent_to_run(void **state) {
    const char *env[] = {"TERM=dumb", NULL};
    struct tt *t = tt_ui_start(*state, NULL, NULL, env);
    assert_int_equal(tt_exit(t), 2);
    assert_true(wrote(t, "llmchat run MODEL PROMPT"));
    tt_close(t);
}

static void no_terminal_is_a_clear_message(void **state) {
    char command[400];
    snprintf(command, sizeof command,
             "LLMCHAT_HOME=%s TERM=xterm %s </dev/null 2>&1 >/dev/null", (char *)*state,
             tt_ui());
    FILE *p = popen(command, "r");
    assert_non_null(p);
    char line[300] = "";
    assert_non_null(fgets(line, sizeof line, p));
    assert_int_equal(WEXITSTATUS(pclose(p)), 2);
    assert_non_null(strstr(line, "needs a terminal"));
}

static void tiny_screens_say_what_is_needed_and_come_back(void **state) {
    const char *argv[] = {tt_ui(), NULL};
    struct tt *t = tt_start(*state, argv, NULL, 3, 10);
    tt_wait(t, "llmchat");
    tt_close(t);
    t = tt_start(*state, argv, NULL, 1, 1);
    tt_settle(t, 100);
    tt_type(t, "typed in the dark");
    tt_resize(t, 9, 39);
    tt_wait(t, "llmchat needs 40x10, this is 39x9");
    tt_resize(t, 10, 40);
    tt_wait(t, "> typed in the dark");
    tt_wait(t, "Chat  Edit");
    tt_resize(t, 24, 80);
    tt_wait(t, "┌ conversations ─");
    tt_quit(t);
}

static void a_crash_restores_the_terminal(void **state) {
    struct tt *t = start(state, NULL);
    tt_signal(t, SIGSEGV);
    assert_int_not_equal(tt_exit(t), 0);
    assert_true(tt_modes_restored(t));
    assert_false(tt_alt_screen(t));
    assert_true(wrote(t, "ended by an error of its own"));
    tt_close(t);
}

/* TERM=linux knows no bracketed paste: the lines come as keys, all at once. */
static void a_paste_that_comes_as_keys_is_not_sent_line_by_line(void **state) {
    const char *env[] = {"TERM=linux", NULL};
    struct tt *t = start(state, env);
    tt_type(t, "one pasted\rtwo pasted\rthree pasted");
    tt_wait(t, "three pasted");
    tt_wait(t, "> one pasted");
    assert_false(tt_has(t, "you "));
    tt_type(t, T_ENTER);
    tt_wait(t, "echo 1: one pasted");
    tt_quit(t);
}

static void marking_with_the_mouse_copies_the_text_and_not_the_screen(void **state) {
    struct tt *t = start(state, NULL);
    tt_type(t, "count 3" T_ENTER);
    tt_wait(t, "line 3 of 3");
    tt_wait(t, "● saved");
    char keys[120];
    int row = tt_find_row(t, "line 1 of 3"), col = tt_find_col(t, "line 1 of 3");
    int row2 = tt_find_row(t, "line 2 of 3");
    snprintf(keys, sizeof keys, T_ESC "[<0;%d;%dM" T_ESC "[<32;%d;%dM" T_ESC "[<0;%d;%dm",
             col + 1, row + 1, col + 6, row2 + 1, col + 6, row2 + 1);
    tt_type(t, keys);
    tt_wait(t, "Copied: the marked text");
    assert_string_equal(tt_clipboard(t), "52;c;bGluZSAxIG9mIDMKCmxpbmUgMg==");
    tt_quit(t);
}

static void the_mouse_can_be_left_to_the_terminal(void **state) {
    struct tt *t = start(state, NULL);
    assert_true(wrote(t, "\033[?1006h"));
    assert_false(wrote(t, "\033[?1006l"));
    tt_type(t, "\033[15~"); /* F5 */
    tt_wait(t, "The mouse is the terminal's");
    assert_true(wrote(t, "\033[?1006l"));
    tt_type(t, T_ESC "[<0;3;1M" T_ESC "[<0;3;1m");
    tt_settle(t, 60);
    assert_false(tt_has(t, "New chat"));
    tt_quit(t);
}

static void no_color_shows_no_colors(void **state) {
    const char *env[] = {"NO_COLOR=1", NULL};
    struct tt *t = start(state, env);
    tt_type(t, "markdown" T_ENTER);
    tt_wait(t, "done with markdown");
    assert_false(tt_colored(t));
    tt_quit(t);
    t = start(state, NULL);
    tt_settle(t, 50);
    assert_true(tt_colored(t));
    tt_quit(t);
}

static unsigned label_color(struct tt *t) {
    struct tt_cell cell;
    tt_cell(t, tt_find_row(t, "you     "), tt_find_col(t, "you     "), &cell);
    return cell.fg;
}

static unsigned luma(unsigned rgb) {
    return ((rgb >> 16 & 255) * 299 + (rgb >> 8 & 255) * 587 + (rgb & 255) * 114) / 1000;
}

static void light_terminals_get_dark_colors(void **state) {
    const char *light[] = {"COLORFGBG=0;15", NULL}, *dark[] = {"COLORFGBG=15;0", NULL};
    struct tt *t = start(state, light);
    tt_type(t, "hello" T_ENTER);
    tt_wait(t, "echo 1: hello");
    assert_true(luma(label_color(t)) < 130);
    tt_quit(t);
    t = tt_ui_start(*state, "-c", NULL, dark);
    tt_wait(t, "echo 1: hello");
    assert_true(luma(label_color(t)) > 130);
    tt_quit(t);
}

static void the_terminal_is_asked_for_its_background(void **state) {
    static const char *const backgrounds[] = {"ffff/ffff/ee00", "00/00/20"};
    for (int light = 1; light >= 0; light--) {
        tt_background = backgrounds[!light];
        struct tt *t = start(state, NULL);
        tt_background = NULL;
        tt_type(t, "hello" T_ENTER);
        tt_wait(t, "you     hello");
        assert_int_equal(luma(label_color(t)) < 130, light);
        tt_quit(t);
    }
}

static void eight_and_sixteen_colors_work(void **state) {
    static const char *const terms[] = {"TERM=xterm", "TERM=xterm-16color", "TERM=linux",
                                        "TERM=screen", "TERM=vt100"};
    for (size_t i = 0; i < sizeof terms / sizeof *terms; i++) {
        const char *env[] = {terms[i], NULL};
        struct tt *t = start(state, env);
        tt_type(t, "markdown" T_ENTER);
        tt_wait(t, "done with markdown");
        tt_quit(t);
    }
}

static void markdown_is_drawn(void **state) {
    struct tt *t = start(state, NULL);
    tt_type(t, "markdown" T_ENTER);
    tt_wait(t, "done with markdown");
    tt_resize(t, 50, 80);
    tt_wait(t, "• spring tide");
    tt_wait(t, "int main(void) {");
    tt_wait(t, "https://example.org/tides");
    assert_false(tt_has(t, "**Moon**"));
    tt_type(t, T_ESC "x");
    tt_wait(t, "**Moon**");
    tt_quit(t);
}

static void wide_text_keeps_the_columns(void **state) {
    struct tt *t = start(state, NULL);
    tt_type(t, "wide" T_ENTER);
    tt_wait(t, "end of wide");
    tt_wait(t, "汉字 kanji: 日本語テキスト|");
    tt_wait(t, "e\u0301a\u0308o\u0302|");
    int base = tt_find_col(t, "汉字");
    assert_int_equal(tt_find_col(t, "テキスト|") + 8 - base, 26);
    assert_int_equal(tt_find_col(t, "end of wide"), base);
    tt_type(t, "日本語" T_CTRL_B);
    tt_type(t, "x");
    tt_wait(t, "> 日本x語");
    tt_quit(t);
}

static void escape_sequences_in_answers_do_nothing(void **state) {
    struct tt *t = start(state, NULL);
    tt_type(t, "escape" T_ENTER);
    tt_wait(t, "end of escape");
    tt_wait(t, "● saved");
    assert_true(tt_has(t, "stolen")); /* as text */
    assert_true(tt_has(t, "before"));
    assert_string_equal(tt_title(t), "");
    assert_string_equal(tt_clipboard(t), "");
    tt_wait(t, "Chat  Edit");
    assert_false(wrote(t, "\033]0;"));
    assert_false(wrote(t, "\033]52;"));
    assert_false(wrote(t, "\xc2\x9b"));
    assert_false(wrote(t, "\xe2\x80\xae"));
    tt_quit(t);
}

static void menus_open_by_key_letter_and_mouse(void **state) {
    struct tt *t = start(state, NULL);
    tt_type(t, T_F10);
    tt_wait(t, "New chat");
    tt_wait(t, "Ctrl-N");
    tt_type(t, T_RIGHT T_RIGHT);
    tt_wait(t, "Choose model…");
    escape(t, "Choose model…");
    tt_type(t, T_ESC "v");
    tt_wait(t, "✓ Markdown");
    escape(t, "✓ Markdown");
    tt_type(t, T_ESC "[<0;3;1M" T_ESC "[<0;3;1m");
    tt_wait(t, "New chat");
    escape(t, "New chat");
    tt_quit(t);
}

/* A description that lacks the terminal's keys: their usual sequences count all the same. */
static void keys_that_term_does_not_know_work(void **state) {
    const char *env[] = {"TERM=vt100", NULL};
    struct tt *t = start(state, env);
    tt_type(t, T_F10);
    tt_wait(t, "New chat");
    escape(t, "New chat");
    tt_type(t, T_F7);
    tt_wait(t, "repeat_last_n");
    escape(t, "repeat_last_n");
    tt_quit(t);
}

static void finding_shows_the_words(void **state) {
    struct tt *t = start(state, NULL);
    tt_type(t, "count 60" T_ENTER);
    tt_wait(t, "line 60 of 60");
    tt_wait(t, "● saved");
    tt_type(t, T_ESC "/");
    tt_wait(t, "Find in this conversation");
    tt_type(t, "line 3 of" T_ENTER);
    tt_wait(t, "Found in 1 message");
    tt_wait(t, "line 3 of 60");
    tt_type(t, T_ESC "/");
    tt_wait(t, "Find in this conversation");
    tt_type(t, T_CTRL_U "not there" T_ENTER);
    tt_wait(t, "is not in this conversation");
    tt_quit(t);
}

static void news_that_is_long_is_shown_whole(void **state) {
    struct tt *t = start(state, NULL);
    tt_type(t, "hello" T_ENTER);
    tt_wait(t, "echo 1: hello");
    tt_wait(t, "● saved");
    tt_type(t, "/save" T_ENTER);
    tt_wait(t, "Everything is saved as you type");
    tt_wait(t, " title ");
    tt_quit(t);
}

static void switches_are_remembered(void **state) {
    struct tt *t = start(state, NULL);
    tt_type(t, T_F9);
    tt_wait_gone(t, "conversations ─");
    tt_type(t, T_ESC "v");
    tt_wait(t, "Theme…");
    tt_type(t, "t" T_ENTER);
    tt_wait(t, "for a light background");
    tt_type(t, "light" T_ENTER);
    tt_wait_gone(t, "for a light background");
    tt_quit(t);
    t = start(state, NULL);
    assert_false(tt_has(t, "conversations ─"));
    tt_type(t, T_ESC "v");
    tt_wait(t, "  Conversation list");
    tt_type(t, "t" T_ENTER);
    tt_wait(t, "● light");
    escape(t, "● light");
    tt_quit(t);
    tt_write(*state, "config/config.yaml", "theme: dark\n"); /* what is newer counts */
    t = start(state, NULL);
    tt_type(t, T_ESC "v");
    tt_wait(t, "Theme…");
    tt_type(t, "t" T_ENTER);
    tt_wait(t, "● dark");
    escape(t, "● dark");
    tt_quit(t);
}

static void the_palette_finds_settings(void **state) {
    struct tt *t = start(state, NULL);
    tt_type(t, T_CTRL_P);
    tt_wait(t, "Commands");
    tt_type(t, "temp");
    tt_wait(t, "temperature");
    tt_wait(t, "0.7");
    tt_type(t, T_ENTER);
    tt_wait(t, "0 to 5, default 0.7");
    escape(t, "0 to 5, default 0.7");
    tt_quit(t);
}

static void the_palette_finds_and_runs_commands(void **state) {
    struct tt *t = start(state, NULL);
    tt_type(t, T_CTRL_P);
    tt_wait(t, "Commands");
    tt_type(t, "conv list");
    tt_wait(t, "Conversation list (on)");
    tt_type(t, T_ENTER);
    tt_wait_gone(t, "conversations ─");
    tt_type(t, T_F9);
    tt_wait(t, "conversations ─");
    tt_quit(t);
}

static void help_lists_the_keys_of_the_table(void **state) {
    struct tt *t = start(state, NULL);
    tt_type(t, T_F1);
    tt_wait(t, "Starts a new conversation");
    tt_wait(t, "Ctrl-N");
    tt_type(t, "regen");
    tt_wait(t, "Another answer, as a new branch");
    escape(t, "Another answer");
    tt_type(t, T_TAB "?");
    escape(t, "Starts a new conversation");
    tt_quit(t);
}

static void keys_can_be_rebound_and_conflicts_are_named(void **state) {
    tt_write(
        *state, "config/config.yaml",
        "keys:\n  new-chat: alt-n\n  export: ctrl-p\n  dance: f3\n  rename-chat: hyper-x\n");
    struct tt *t = tt_ui_start(*state, NULL, NULL, NULL);
    tt_wait(t, "Key bindings");
    tt_wait(t, ":3: keys: export: ctrl-p:");
    tt_wait(t, "belongs to palette");
    tt_wait(t, ":4: keys: dance: f3: no such");
    tt_wait(t, ":5: keys: rename-chat: hyper-x:");
    escape(t, "Key bindings");
    tt_wait(t, "tiny·nf4·cpu");
    tt_type(t, T_F10);
    tt_wait(t, "Alt-N");
    assert_false(tt_has(t, "Ctrl-N"));
    escape(t, "Alt-N");
    tt_quit(t);
}

static void sampling_settings_change_with_arrows_and_typing_and_persist(void **state) {
    struct tt *t = start(state, NULL);
    tt_type(t, "hello" T_ENTER);
    tt_wait(t, "echo 1: hello");
    tt_type(t, T_F7);
    tt_wait(t, "Sampling");
    tt_wait(t, "default 0.7");
    tt_type(t, T_RIGHT);
    tt_wait(t, "changed");
    tt_type(t, "1.5" T_ENTER);
    tt_wait(t, "1.5");
    tt_type(t, "77" T_ENTER);
    tt_wait(t, "temperature: ");
    tt_type(t, T_DOWN "7" T_ENTER);
    tt_wait(t, "top_k               7");
    escape(t, "top_k");
    tt_quit(t);
    t = tt_ui_start(*state, "-c", NULL, NULL);
    tt_wait(t, "tiny·nf4·cpu");
    tt_type(t, T_F7);
    tt_wait(t, "temperature         1.5");
    tt_wait(t, "top_k               7");
    tt_type(t, T_DEL);
    tt_wait(t, "temperature         0.7");
    escape(t, "top_k");
    tt_quit(t);
}

static void models_are_switched_and_the_last_used_comes_back(void **state) {
    const char *two[] = {"SCRIPT_MODELS=small:nf4,large:int8", NULL};
    struct tt *t = tt_ui_start(*state, NULL, NULL, two);
    tt_wait(t, "small·nf4·cpu");
    tt_type(t, T_CTRL_O);
    tt_wait(t, "● small");
    tt_wait(t, "int8 · 101 MB");
    tt_type(t, "large" T_ENTER);
    tt_wait(t, "large·int8·cpu");
    tt_quit(t);
    t = tt_ui_start(*state, NULL, NULL, two);
    tt_wait(t, "large·int8·cpu");
    tt_type(t, T_ESC "m");
    tt_wait(t, "✓ large");
    escape(t, "✓ large");
    tt_quit(t);
}

static void a_model_chosen_while_an_answer_streams_comes_after_it(void **state) {
    const char *env[] = {"SCRIPT_MODELS=alpha:nf4,beta:int8,gamma:nf4", NULL};
    struct tt *t = tt_ui_start(*state, "--model", "alpha", env);
    tt_wait(t, "alpha·nf4·cpu");
    tt_type(t, "hold" T_ENTER);
    tt_wait(t, "these words came");
    tt_type(t, T_CTRL_O);
    tt_wait(t, "Models");
    tt_type(t, "beta" T_ENTER);
    tt_wait(t, "next: beta");
    tt_type(t, T_CTRL_O); /* another after all */
    tt_wait(t, "Models");
    tt_type(t, "gamma" T_ENTER);
    tt_wait(t, "next: gamma");
    tt_type(t, T_ESC);
    tt_wait(t, "stopped");
    tt_wait(t, "gamma·nf4·cpu");
    tt_type(t, "then" T_ENTER);
    tt_wait(t, "echo 2: then");
    tt_quit(t);
}

static void a_message_waits_for_the_model_that_loads(void **state) {
    const char *env[] = {"SCRIPT_LOAD_MS=1500", NULL};
    struct tt *t = tt_ui_start(*state, NULL, NULL, env);
    tt_wait(t, "│ >"); /* the screen is there before the model */
    tt_type(t, "early bird" T_ENTER);
    tt_wait(t, "you     early bird");
    tt_wait(t, "echo 1: early bird");
    tt_quit(t);
}

static void without_a_model_it_says_what_to_type(void **state) {
    const char *env[] = {"SCRIPT_MODELS=", NULL};
    struct tt *t = tt_ui_start(*state, NULL, NULL, env);
    tt_wait(t, "No model yet");
    tt_wait(t, "llmchat create NAME --from PATH");
    tt_type(t, "kept "); /* nobody asked for the dialog: typing is typing */
    tt_wait(t, "> kept");
    escape(t, "No model yet");
    tt_wait(t, "no model");
    tt_type(t, "all the same" T_ENTER);
    tt_wait(t, "you     kept all the same");
    tt_wait(t, "there is no model");
    tt_quit(t);
}

static void quitting_works_where_the_first_dialog_says_so(void **state) {
    const char *env[] = {"SCRIPT_MODELS=", NULL};
    struct tt *t = tt_ui_start(*state, NULL, NULL, env);
    tt_wait(t, "Leave with Ctrl-Q");
    tt_quit(t);
}

static void a_broken_model_is_a_dialog(void **state) {
    const char *env[] = {"SCRIPT_MODELS=broken:nf4", NULL};
    struct tt *t = tt_ui_start(*state, NULL, NULL, env);
    tt_wait(t, "The model could not be loaded");
    tt_wait(t, "the header is 12 bytes");
    escape(t, "The model could not");
    tt_wait(t, "no model");
    tt_quit(t);
}

static void search_finds_other_conversations(void **state) {
    struct tt *t = start(state, NULL);
    tt_type(t, "the zebra conversation" T_ENTER);
    tt_wait(t, "echo 1: the zebra");
    tt_wait(t, "● saved");
    tt_type(t, T_CTRL_N);
    tt_wait_gone(t, "echo 1");
    tt_type(t, "something else" T_ENTER);
    tt_wait(t, "echo 2: something");
    tt_wait(t, "● saved");
    tt_type(t, T_CTRL_S);
    tt_wait(t, "Search all conversations");
    tt_type(t, "zebra");
    tt_wait(t, "the zebra conversation");
    tt_type(t, T_ENTER);
    tt_wait(t, "echo 1: the zebra");
    tt_type(t, T_F2); /* and by a title whose words nobody said */
    tt_wait(t, "Title of the conversation");
    tt_type(t, T_CTRL_U "striped" T_ENTER);
    tt_wait(t, "▸ striped");
    tt_type(t, T_CTRL_N);
    tt_wait_gone(t, "echo 1");
    tt_type(t, T_CTRL_S);
    tt_wait(t, "Search all conversations");
    tt_type(t, "STRIP");
    tt_wait(t, "striped  striped");
    tt_type(t, T_ENTER);
    tt_wait(t, "echo 1: the zebra");
    tt_quit(t);
}

static void export_writes_a_file_and_asks_before_replacing(void **state) {
    struct tt *t = start(state, NULL);
    char path[300], command[400];
    snprintf(path, sizeof path, "%s/out.md", (char *)*state);
    snprintf(command, sizeof command, "/export %s" T_ENTER, path);
    tt_type(t, "to be exported" T_ENTER);
    tt_wait(t, "echo 1: to be");
    tt_wait(t, "● saved");
    tt_type(t, command);
    tt_wait(t, "Written: ");
    assert_int_equal(access(path, R_OK), 0);
    tt_type(t, command);
    tt_wait(t, "is there already");
    tt_type(t, "r");
    tt_wait(t, "Written: ");
    tt_quit(t);
}

static void an_export_is_named_after_the_title(void **state) {
    struct tt *t = start(state, NULL);
    tt_type(t, "汉字 und Ä" T_ENTER);
    tt_wait(t, "echo 1: ");
    tt_wait(t, "● saved");
    tt_type(t, "/export" T_ENTER);
    tt_wait(t, "Markdown, to read");
    tt_type(t, T_ENTER);
    tt_wait(t, "What should be in the file?");
    tt_type(t, T_ENTER);
    tt_wait(t, "汉字-und-Ä.md");
    escape(t, "汉字-und-Ä.md");
    tt_quit(t);
}

static void list_filter_and_narrow_screens(void **state) {
    struct tt *t = start(state, NULL);
    tt_type(t, "apples and pears" T_ENTER);
    tt_wait(t, "▸ apples");
    tt_wait(t, "● saved");
    tt_type(t, T_CTRL_N);
    tt_type(t, "bananas" T_ENTER);
    tt_wait(t, "▸ bananas");
    tt_wait(t, "● saved");
    tt_type(t, T_TAB T_TAB "/app");
    tt_wait(t, "/app");
    tt_wait_gone(t, "▸ bananas");
    tt_type(t, T_ENTER);
    tt_wait(t, "▸ apples");
    tt_wait(t, "echo 1: apples");
    tt_resize(t, 24, 50);
    tt_wait_gone(t, "conversations ─");
    tt_wait(t, "echo 1: apples");
    tt_type(t, T_F9);
    tt_wait(t, "conversations ─");
    tt_wait(t, "bananas");
    tt_type(t, T_DOWN T_DOWN T_ENTER);
    tt_wait_gone(t, "conversations ─");
    tt_quit(t);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, tt_setup, tt_teardown)
    const struct CMUnitTest tests[] = {
        T(unknown_term_is_a_clear_message),
        T(dumb_terminal_is_sent_to_run),
        T(no_terminal_is_a_clear_message),
        T(tiny_screens_say_what_is_needed_and_come_back),
        T(a_crash_restores_the_terminal),
        T(a_paste_that_comes_as_keys_is_not_sent_line_by_line),
        T(marking_with_the_mouse_copies_the_text_and_not_the_screen),
        T(the_mouse_can_be_left_to_the_terminal),
        T(no_color_shows_no_colors),
        T(light_terminals_get_dark_colors),
        T(the_terminal_is_asked_for_its_background),
        T(eight_and_sixteen_colors_work),
        T(markdown_is_drawn),
        T(wide_text_keeps_the_columns),
        T(escape_sequences_in_answers_do_nothing),
        T(menus_open_by_key_letter_and_mouse),
        T(keys_that_term_does_not_know_work),
        T(finding_shows_the_words),
        T(news_that_is_long_is_shown_whole),
        T(switches_are_remembered),
        T(the_palette_finds_settings),
        T(the_palette_finds_and_runs_commands),
        T(help_lists_the_keys_of_the_table),
        T(keys_can_be_rebound_and_conflicts_are_named),
        T(sampling_settings_change_with_arrows_and_typing_and_persist),
        T(models_are_switched_and_the_last_used_comes_back),
        T(a_model_chosen_while_an_answer_streams_comes_after_it),
        T(a_message_waits_for_the_model_that_loads),
        T(without_a_model_it_says_what_to_type),
        T(quitting_works_where_the_first_dialog_says_so),
        T(a_broken_model_is_a_dialog),
        T(search_finds_other_conversations),
        T(export_writes_a_file_and_asks_before_replacing),
        T(an_export_is_named_after_the_title),
        T(list_filter_and_narrow_screens),
    };
    if (!tt_ready(tt_ui()))
        return 77;
    return cmocka_run_group_tests_name("ui_terminal", tests, NULL, NULL);
}
