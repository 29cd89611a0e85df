/*
 * test_ui_chat.c - talking in the terminal: keystrokes and the screens they must give. The
 * interface, the chat and the store are the real ones; replies are scripted (script_engine.c).
 */
#include "harness.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

static struct tt *start(void **state) {
    struct tt *t = tt_ui_start(*state, NULL, NULL, NULL);
    tt_wait(t, "tiny·nf4·cpu");
    return t;
}

static void shows_menu_bar_list_input_and_status(void **state) {
    struct tt *t = start(state);
    tt_wait(t, " Chat  Edit  Model  Sampling  View  Help");
    tt_wait(t, "F10 menu · F1 keys");
    tt_wait(t, "┌ conversations ─");
    tt_wait(t, "│ >");
    tt_wait(t, "● saved");
    tt_quit(t);
}

static void a_message_is_answered_and_listed(void **state) {
    struct tt *t = start(state);
    tt_type(t, "What are tides?" T_ENTER);
    tt_wait(t, "you     What are tides?");
    tt_wait(t, "llmchat echo 1: What are tides?");
    tt_wait(t, "Today");
    tt_wait(t, "▸ What are tides?");
    tt_wait(t, "● saved");
    tt_quit(t);
}

static void everything_is_there_after_reopening(void **state) {
    struct tt *t = start(state);
    tt_type(t, "first question" T_ENTER);
    tt_wait(t, "echo 1: first question");
    tt_wait(t, "● saved");
    tt_type(t, "an unsent draft");
    tt_wait(t, "> an unsent draft");
    tt_quit(t);
    t = tt_ui_start(*state, "-c", NULL, NULL);
    tt_wait(t, "echo 1: first question");
    tt_wait(t, "> an unsent draft");
    tt_quit(t);
}

static void killed_while_streaming_keeps_what_came(void **state) {
    struct tt *t = start(state);
    tt_type(t, "tick 500" T_ENTER);
    tt_wait(t, "line 40 of 500");
    tt_signal(t, SIGKILL);
    assert_int_equal(tt_exit(t), 1000 + SIGKILL);
    tt_close(t);
    t = tt_ui_start(*state, "-c", NULL, NULL);
    tt_wait(t, "interrupted");
    tt_wait(t, "of 500");
    tt_type(t, T_ESC "x" T_TAB "g"); /* Alt-X, then the transcript's beginning */
    tt_wait(t, "tick 500");
    tt_quit(t);
}

static void killed_while_typing_keeps_all_but_the_newest_words(void **state) {
    struct tt *t = start(state);
    for (int i = 0; i < 12; i++) { /* never a pause of a second */
        char word[24];
        snprintf(word, sizeof word, " word%d", i);
        tt_type(t, word);
        tt_wait(t, word);
        usleep(150000);
    }
    tt_signal(t, SIGKILL);
    assert_int_equal(tt_exit(t), 1000 + SIGKILL);
    tt_close(t);
    t = tt_ui_start(*state, "-c", NULL, NULL);
    tt_wait(t, "word0 word1 word2 word3");
    tt_quit(t);
}

static void hang_up_saves_draft_and_stops_the_answer(void **state) {
    struct tt *t = start(state);
    tt_type(t, "hold on" T_ENTER);
    tt_wait(t, "these words came");
    tt_type(t, "typed meanwhile");
    tt_wait(t, "> typed meanwhile");
    tt_hang_up(t);
    int code = tt_exit(t);
    assert_true(code == 0);
    tt_close(t);
    t = tt_ui_start(*state, "-c", NULL, NULL);
    tt_wait(t, "these words came before the stop");
    tt_wait(t, "stopped");
    tt_wait(t, "> typed meanwhile");
    tt_quit(t);
}

static void sigterm_saves_and_restores(void **state) {
    struct tt *t = start(state);
    tt_type(t, "not sent yet");
    tt_wait(t, "> not sent yet");
    tt_signal(t, SIGTERM);
    assert_int_equal(tt_exit(t), 0);
    assert_true(tt_modes_restored(t));
    assert_false(tt_alt_screen(t));
    tt_close(t);
    t = tt_ui_start(*state, "-c", NULL, NULL);
    tt_wait(t, "> not sent yet");
    tt_quit(t);
}

static void esc_keeps_the_partial_answer_and_the_draft(void **state) {
    struct tt *t = start(state);
    tt_type(t, "hold" T_ENTER);
    tt_wait(t, "these words came before the stop");
    tt_type(t, "next thought");
    tt_wait(t, "> next thought");
    tt_type(t, T_ESC);
    tt_wait(t, "stopped");
    tt_wait(t, "these words came before the stop");
    tt_wait(t, "> next thought");
    tt_quit(t);
}

static void ctrl_c_stops_then_clears_then_quits(void **state) {
    struct tt *t = start(state);
    tt_type(t, "hold" T_ENTER);
    tt_wait(t, "these words came before the stop");
    tt_type(t, "a draft");
    tt_wait(t, "> a draft");
    tt_type(t, T_CTRL_C);
    tt_wait(t, "stopped");
    tt_wait(t, "> a draft");
    tt_type(t, T_CTRL_C);
    tt_wait_gone(t, "> a draft");
    tt_wait(t, "Ctrl-C again quits");
    tt_type(t, T_CTRL_Y);
    tt_wait(t, "> a draft");
    tt_type(t, T_CTRL_C); /* not the second in a row: clears again */
    tt_wait_gone(t, "> a draft");
    tt_type(t, "still here");
    tt_wait(t, "> still here");
    tt_type(t, T_CTRL_C);
    tt_type(t, T_CTRL_C);
    assert_int_equal(tt_exit(t), 0);
    assert_true(tt_modes_restored(t));
    tt_close(t);
}

static void ctrl_d_quits_only_on_an_empty_line(void **state) {
    struct tt *t = start(state);
    tt_type(t, "ab" T_CTRL_A);
    tt_type(t, T_CTRL_D);
    tt_wait(t, "> b");
    tt_type(t, T_CTRL_D);
    tt_wait_gone(t, "> b");
    tt_type(t, T_CTRL_D);
    assert_int_equal(tt_exit(t), 0);
    tt_close(t);
}

static void a_paste_of_42_lines_is_one_placeholder_and_one_message(void **state) {
    struct tt *t = start(state);
    tt_type(t, T_ESC "[200~");
    for (int i = 1; i <= 42; i++) {
        char line[40];
        snprintf(line, sizeof line, "pasted line %d\r", i);
        tt_type(t, line);
    }
    tt_type(t, T_ESC "[201~");
    tt_wait(t, "[pasted 42 lines]");
    assert_false(tt_has(t, "pasted line 2"));
    assert_false(tt_has(t, "you     "));
    tt_type(t, T_ENTER);
    tt_wait(t, "echo 1: pasted line 1");
    tt_wait(t, "pasted line 42");
    assert_false(tt_has(t, "echo 2"));
    tt_quit(t);
}

static void escape_sequences_in_a_paste_stay_text(void **state) {
    struct tt *t = start(state);
    tt_type(t, T_ESC "[200~a" T_ESC "[A" T_ESC "OPb\003c" T_ESC "[201~");
    tt_wait(t, "> a[AOPbc");
    tt_quit(t);
}

static void scrolling_is_not_stolen_while_text_streams(void **state) {
    struct tt *t = start(state);
    tt_type(t, "tick 400" T_ENTER);
    tt_wait(t, "line 30 of 400");
    tt_type(t, T_PGUP T_PGUP T_PGUP T_PGUP T_PGUP T_PGUP);
    tt_wait(t, "you     tick 400");
    tt_wait(t, "new text below");
    int row = tt_find_row(t, "line 1 of 400");
    tt_settle(t, 150); /* more lines come; the place must stay */
    assert_true(row >= 0);
    assert_int_equal(tt_find_row(t, "line 1 of 400"), row);
    assert_true(tt_has(t, "you     tick 400"));
    tt_type(t, T_ESC ">"); /* back to the end */
    tt_wait_gone(t, "you     tick 400");
    tt_wait_gone(t, "new text below");
    tt_quit(t);
}

static void resizing_while_streaming_neither_loses_nor_doubles(void **state) {
    struct tt *t = start(state);
    static const int size[][2] = {{10, 40}, {50, 200}, {3, 10},  {24, 80}, {1, 1},
                                  {11, 41}, {30, 69},  {30, 70}, {5, 200}, {60, 30}};
    tt_type(t, "tick 60" T_ENTER);
    tt_wait(t, "line 3 of 60");
    for (int i = 0; i < 30; i++) {
        tt_resize(t, size[i % 10][0], size[i % 10][1]);
        tt_settle(t, 10);
    }
    tt_resize(t, 200, 100);
    tt_wait(t, "line 60 of 60");
    tt_wait(t, "● saved");
    const char *screen = tt_screen(t);
    for (int i = 1; i <= 60; i++) {
        char line[40];
        snprintf(line, sizeof line, "line %d of 60", i);
        const char *first = strstr(screen, line);
        assert_non_null(first);
        assert_null(strstr(first + 1, line));
    }
    tt_quit(t);
}

static void regenerating_makes_branches_to_switch_between(void **state) {
    struct tt *t = start(state);
    tt_type(t, "question" T_ENTER);
    tt_wait(t, "echo 1: question");
    tt_wait(t, "● saved");
    tt_type(t, T_CTRL_R);
    tt_wait(t, "echo 2: question");
    tt_wait(t, "◂ 2/2 ▸");
    tt_wait(t, "● saved");
    tt_type(t, T_TAB T_LEFT);
    tt_wait(t, "echo 1: question");
    tt_wait(t, "◂ 1/2 ▸");
    tt_type(t, T_RIGHT);
    tt_wait(t, "◂ 2/2 ▸");
    int row = tt_find_row(t, "◂ 2/2 ▸"), col = tt_find_col(t, "◂ 2/2 ▸");
    char click[60];
    snprintf(click, sizeof click, T_ESC "[<0;%d;%dM" T_ESC "[<0;%d;%dm", col + 1, row + 1,
             col + 1, row + 1);
    tt_type(t, click);
    tt_wait(t, "◂ 1/2 ▸");
    tt_quit(t);
}

static void editing_a_message_begins_a_branch(void **state) {
    struct tt *t = start(state);
    tt_type(t, "old words" T_ENTER);
    tt_wait(t, "echo 1: old words");
    tt_wait(t, "● saved");
    tt_type(t, T_TAB);
    tt_type(t, T_CTRL_E);
    tt_wait(t, "Edit message");
    tt_type(t, T_CTRL_U);
    tt_type(t, "new words" T_ENTER);
    tt_wait(t, "echo 2: new words");
    tt_wait(t, "you     new words");
    tt_wait(t, "2/2");
    assert_false(tt_has(t, "old words\n"));
    tt_quit(t);
}

static void a_failed_answer_says_why(void **state) {
    struct tt *t = start(state);
    tt_type(t, "fail" T_ENTER);
    tt_wait(t, "the scripted failure");
    tt_type(t, "go on" T_ENTER);
    tt_wait(t, "echo");
    tt_quit(t);
}

static void two_slashes_send_one_and_mistakes_are_not_sent(void **state) {
    struct tt *t = start(state);
    tt_type(t, "/tepmerature 1" T_ENTER);
    tt_wait(t, "/tepmerature is not a command");
    tt_wait(t, "> /tepmerature 1");
    tt_type(t, T_CTRL_U);
    tt_type(t, "//etc is a folder" T_ENTER);
    tt_wait(t, "you     /etc is a folder");
    tt_wait(t, "echo 1: /etc");
    tt_quit(t);
}

static void slash_set_changes_and_keeps_a_setting(void **state) {
    struct tt *t = start(state);
    tt_type(t, "hello" T_ENTER);
    tt_wait(t, "echo 1: hello");
    tt_type(t, "/set temp" T_TAB);
    tt_wait(t, "/set temperature");
    tt_type(t, "0.25" T_ENTER);
    tt_wait(t, "temperature is 0.25 now");
    tt_type(t, "/set temperature 99" T_ENTER);
    tt_wait(t, "temperature");
    tt_wait(t, "99");
    tt_quit(t);
    t = tt_ui_start(*state, "-c", NULL, NULL);
    tt_wait(t, "echo 1: hello");
    tt_type(t, T_ESC "s");
    tt_wait(t, "temperature");
    tt_wait(t, "0.25");
    tt_type(t, T_ESC);
    tt_wait_gone(t, "top_k");
    tt_quit(t);
}

static void guesses_without_a_draft_model_are_told(void **state) {
    struct tt *t = start(state);
    tt_type(t, "/set speculation draft" T_ENTER);
    tt_wait(t, "there is no draft model; name one with");
    tt_type(t, "hello" T_ENTER);
    tt_wait(t, "echo 1: hello");
    tt_quit(t);
    t = tt_ui_start(*state, "-c", NULL, NULL);
    tt_wait(t, "there is no draft model");
    tt_type(t, "/set speculation auto" T_ENTER);
    tt_wait(t, "speculation is auto now");
    tt_wait_gone(t, "there is no draft model");
    tt_type(t, "/set speculation" T_ENTER);
    tt_wait(t, "Guesses several tokens");
    tt_type(t, T_RIGHT T_RIGHT);
    tt_wait(t, "there is no draft model");
    tt_type(t, T_LEFT);
    tt_wait_gone(t, "there is no draft model");
    tt_type(t, T_ESC);
    tt_wait_gone(t, "Guesses several tokens");
    tt_quit(t);
    tt_write(*state, "config/config.yaml", "sampling: {speculation: draft}\n");
    t = start(state);
    tt_wait(t, "there is no draft model");
    tt_quit(t);
}

static void history_comes_back_with_up(void **state) {
    struct tt *t = start(state);
    tt_type(t, "one" T_ENTER);
    tt_wait(t, "echo 1: one");
    tt_wait(t, "● saved");
    tt_type(t, "two" T_ENTER);
    tt_wait(t, "echo 2: two");
    tt_type(t, T_UP T_UP);
    tt_wait(t, "> one");
    tt_type(t, T_DOWN);
    tt_wait(t, "> two");
    tt_type(t, T_DOWN);
    tt_wait_gone(t, "> two");
    tt_quit(t);
}

static void a_draft_is_listed_by_its_words(void **state) {
    struct tt *t = start(state);
    tt_type(t, "half a thought that waits");
    tt_wait(t, "● saved");
    tt_type(t, T_CTRL_N);
    tt_wait_gone(t, "half a thought that waits");
    tt_type(t, T_F4); /* the list beside the conversation has no room for all of it */
    tt_wait(t, "draft: half a thought that waits");
    tt_type(t, T_ENTER);
    tt_wait(t, "> half a thought that waits");
    tt_quit(t);
}

static void deleting_can_be_undone(void **state) {
    struct tt *t = start(state);
    tt_type(t, "precious" T_ENTER);
    tt_wait(t, "▸ precious");
    tt_wait(t, "● saved");
    tt_type(t, T_F8);
    tt_wait(t, "Deleted “precious”");
    tt_wait(t, "none yet");
    tt_type(t, T_CTRL_P);
    tt_type(t, "undo delete" T_ENTER);
    tt_wait(t, "▸ precious");
    tt_wait(t, "echo 1: precious");
    tt_quit(t);
}

static void news_cut_long_names_between_characters(void **state) {
    char word[256] = "x", text[300];
    struct tt *t = start(state);
    for (int i = 0; i < 45; i++)
        strcat(word, "潮"); /* 91 cells, 136 bytes */
    tt_type(t, "hello" T_ENTER);
    tt_wait(t, "echo 1: hello");
    snprintf(text, sizeof text, "/save %s" T_ENTER, word);
    tt_type(t, text);
    tt_wait(t, "Saved as");
    tt_wait(t, "潮”");
    tt_type(t, T_F8);
    snprintf(text, sizeof text, "Deleted “%.*s”", 1 + 3 * 29, word); /* 59 cells of 60 */
    tt_wait(t, text);
    tt_type(t, "/");
    tt_type(t, word);
    tt_type(t, T_ENTER);
    tt_wait(t, "潮 is not a command");
    tt_type(t, T_CTRL_C);
    tt_quit(t);
}

static void two_windows_see_each_others_conversations(void **state) {
    struct tt *a = start(state), *b = start(state);
    tt_type(a, "from the first" T_ENTER);
    tt_wait(a, "echo 1: from the first");
    tt_wait(b, "  from the first");
    tt_type(b, "from the other" T_ENTER);
    tt_wait(b, "echo 1: from the other");
    tt_wait(a, "  from the other");
    tt_quit(a);
    tt_quit(b);
}

static void the_external_editor_changes_the_draft(void **state) {
    const char *env[] = {"EDITOR=sed -i s/cat/dog/", NULL};
    struct tt *t = tt_ui_start(*state, NULL, NULL, env);
    tt_wait(t, "tiny·nf4·cpu");
    tt_type(t, "my cat");
    tt_wait(t, "> my cat");
    tt_type(t, T_CTRL_G);
    tt_wait(t, "> my dog");
    tt_wait(t, "● saved");
    tt_quit(t);
}

static void copying_reaches_the_clipboard_only_when_asked(void **state) {
    struct tt *t = start(state);
    tt_type(t, "say this" T_ENTER);
    tt_wait(t, "echo 1: say this");
    tt_wait(t, "● saved");
    assert_string_equal(tt_clipboard(t), "");
    tt_type(t, T_ESC "w");
    tt_wait(t, "Copied: the answer, 16 bytes");
    assert_string_equal(tt_clipboard(t), "52;c;ZWNobyAxOiBzYXkgdGhpcw==");
    tt_quit(t);
}

static bool asked_or_answered(struct tt *t, void *user) {
    const char *screen = tt_screen(t);
    return strstr(screen, "The context is full") ||
           (strstr(screen, user) && strstr(screen, "● saved"));
}

static void a_full_context_asks_and_goes_on(void **state) {
    const char *env[] = {"SCRIPT_CTX=700", NULL};
    struct tt *t = tt_ui_start(*state, NULL, NULL, env);
    tt_wait(t, "tiny·nf4·cpu");
    for (int i = 1; i <= 6 && !tt_has(t, "The context is full"); i++) {
        char text[160], answer[40];
        snprintf(text, sizeof text,
                 "%d of many words that fill up the context of the model little by little%s", i,
                 T_ENTER);
        snprintf(answer, sizeof answer, "echo %d: %d of many", i, i);
        tt_type(t, text);
        tt_wait_for(t, asked_or_answered, answer);
    }
    tt_wait(t, "The context is full");
    tt_wait(t, "[ Summarise older turns ]");
    tt_wait(t, "Enter · Esc"); /* has been there for a while: nevertheless */
    tt_type(t, "typed on");    /* is typing and not an answer */
    tt_wait(t, "> typed on");
    tt_type(t, T_ESC "[200~, pasted on" T_ESC "[201~");
    tt_wait(t, "> typed on, pasted on");
    tt_wait(t, "Enter · Esc"); /* typing has paused: Enter is an answer again */
    tt_type(t, T_RIGHT T_ENTER);
    tt_wait(t, "the model no longer sees");
    tt_wait(t, "● saved");
    tt_wait(t, "> typed on, pasted on");
    tt_quit(t);
}

/* A chat whose second question fills the context. */
static struct tt *start_full(void *state, const char *const env[]) {
    char text[600];
    struct tt *t = tt_ui_start(state, NULL, NULL, env);
    tt_wait(t, "tiny·nf4·cpu");
    snprintf(text, sizeof text, "begin %0400d" T_ENTER, 0);
    tt_type(t, text);
    tt_wait(t, "echo 1: begin");
    tt_wait(t, "● saved");
    snprintf(text, sizeof text, "and on %0300d" T_ENTER, 0);
    tt_type(t, text);
    tt_wait(t, "The context is full");
    return t;
}

static void a_full_context_streams_on(void **state) {
    const char *env[] = {"SCRIPT_CTX=700", NULL};
    struct tt *t = start_full(*state, env);
    tt_wait(t, "Stream: the oldest words are left out");
    tt_wait(t, "[ Summarise older turns ]");
    tt_wait(t, "[ Stream ]");
    tt_wait(t, "[ Stop ]");
    tt_wait(t, "Enter · Esc");
    tt_type(t, T_RIGHT T_RIGHT T_ENTER);
    tt_wait(t, "echo 2: and on");
    tt_wait(t, "forgotten");
    tt_wait(t, "● saved");
    tt_type(t, T_TAB "g"); /* its first words are what goes first */
    tt_wait(t, "the model no longer sees all of the message below");
    tt_type(t, T_TAB T_TAB "once more" T_ENTER); /* nobody asks again */
    tt_wait(t, "echo 3: once more");
    tt_wait(t, "● saved");
    tt_type(t, T_TAB "g");
    tt_wait(t, "the model no longer sees what is above this");
    tt_wait_gone(t, "the model no longer sees all of the message below");
    tt_quit(t);
}

static void a_model_that_cannot_stream_says_why(void **state) {
    const char *env[] = {"SCRIPT_CTX=700", "SCRIPT_NO_STREAM=1", NULL};
    struct tt *t = start_full(*state, env);
    tt_wait(t, "it has learned positions");
    tt_wait_gone(t, "[ Stream ]");
    tt_wait(t, "Enter · Esc");
    tt_type(t, T_RIGHT T_ENTER);
    tt_wait(t, "the model no longer sees");
    tt_wait(t, "● saved");
    tt_quit(t);
}

/* No file of the program may grow any more. */
static void disk_full(struct tt *t, bool on) {
    struct rlimit l = {on ? 1 : RLIM_INFINITY, RLIM_INFINITY};
    assert_int_equal(prlimit(tt_pid(t), RLIMIT_FSIZE, &l, NULL), 0);
}

static void a_full_disk_loses_nothing_typed(void **state) {
    struct tt *t = start(state);
    tt_type(t, "before" T_ENTER);
    tt_wait(t, "echo 1: before");
    tt_wait(t, "● saved");
    tt_type(t, T_ESC "m");
    tt_wait(t, "System prompt…");
    tt_type(t, "sy" T_ENTER);
    tt_wait(t, "Your own text…");
    tt_type(t, "your own" T_ENTER);
    tt_wait(t, "What the model is told");
    disk_full(t, true);
    tt_type(t, "be brief" T_ENTER); /* refused: shown again */
    tt_wait(t, "while saving");
    tt_wait(t, "│ be brief");
    tt_type(t, T_ESC);
    tt_wait_gone(t, "│ be brief");
    tt_type(t, "typed then");
    tt_wait(t, "! not saved");
    tt_type(t, T_CTRL_N); /* the draft would be gone: it stays */
    tt_type(t, T_ENTER);  /* and can't be sent */
    tt_type(t, T_CTRL_Q);
    tt_wait(t, "[ Stay ]  [ Quit ]");
    tt_type(t, T_ENTER);
    tt_wait_gone(t, "[ Stay ]");
    tt_wait(t, "> typed then");
    tt_wait(t, "echo 1: before");
    disk_full(t, false);
    tt_wait(t, "● saved");
    tt_type(t, T_ENTER);
    tt_wait(t, "echo 2: typed then");
    tt_quit(t);
}

static void an_edit_that_is_too_long_is_shown_again(void **state) {
    const char *env[] = {"SCRIPT_CTX=400", NULL};
    struct tt *t = tt_ui_start(*state, NULL, NULL, env);
    char text[600];
    tt_wait(t, "tiny·nf4·cpu");
    tt_type(t, "short" T_ENTER);
    tt_wait(t, "echo 1: short");
    tt_wait(t, "● saved");
    tt_type(t, T_TAB "e");
    tt_wait(t, "Edit message");
    snprintf(text, sizeof text, " and long %0400d." T_ENTER, 0);
    tt_type(t, text);
    tt_wait(t, "the context holds 400");
    tt_wait(t, "Edit message");
    tt_wait(t, "short and long");
    for (int i = 0; i < 300; i++)
        tt_type(t, "\177");
    tt_type(t, T_ENTER);
    tt_wait(t, "echo 2: short and long");
    tt_quit(t);
}

static void a_stopped_context_is_told_and_can_be_asked_again(void **state) {
    const char *env[] = {"SCRIPT_CTX=1200", NULL}; /* tokens are bytes; a quarter is kept */
    char text[600];
    struct tt *t = tt_ui_start(*state, NULL, NULL, env);
    tt_wait(t, "tiny·nf4·cpu");
    snprintf(text, sizeof text, "begin %0500d" T_ENTER, 0);
    tt_type(t, text);
    tt_wait(t, "echo 1: begin");
    tt_wait(t, "● saved");
    snprintf(text, sizeof text, "one more question %0300d" T_ENTER, 0);
    tt_type(t, text);
    tt_wait(t, "The context is full");
    tt_wait(t, "holds 1200");
    tt_wait(t, "Enter · Esc");
    tt_resize(t, 10, 40); /* where the answers do not fit beside each other */
    tt_wait_gone(t, "[ Stop ]");
    tt_type(t, T_RIGHT T_RIGHT T_RIGHT);
    tt_wait(t, "[ Stop ]");
    tt_resize(t, 24, 80);
    tt_type(t, T_ENTER);
    tt_wait(t, "Nothing was sent; Ctrl-R asks again");
    tt_wait(t, "you     one more question");
    tt_type(t, T_CTRL_R);
    tt_wait(t, "The context is full");
    tt_wait(t, "Enter · Esc");
    tt_type(t, T_ENTER);
    tt_wait(t, "summary echo 3: Summary of what came before");
    tt_wait(t, "llmchat echo 4: one more question");
    tt_quit(t);
}

/* The prompts that were computed without being sent, a line each; "" none. */
static const char *guesses(const char *home) {
    static char text[2000];
    char path[300];
    snprintf(path, sizeof path, "%s/guesses", home);
    FILE *f = fopen(path, "r");
    text[f ? fread(text, 1, sizeof text - 1, f) : 0] = 0;
    if (f)
        fclose(f);
    return text;
}

static struct tt *start_guessing(const char *home) {
    static char set[300];
    const char *const env[] = {set, NULL};
    snprintf(set, sizeof set, "SCRIPT_GUESSES=%s/guesses", home);
    struct tt *t = tt_ui_start(home, NULL, NULL, env);
    tt_wait(t, "tiny·nf4·cpu");
    return t;
}

static bool guessed_tides(struct tt *t, void *home) {
    (void)t;
    return strcmp(guesses(home), "What about the tides\n") == 0;
}

static void a_pause_in_typing_computes_the_prompt(void **state) {
    struct tt *t = start_guessing(*state);
    tt_type(t, "What about the tides");
    tt_wait_for(t, guessed_tides, *state);
    tt_type(t, "?" T_ENTER);
    tt_wait(t, "echo 1: What about the tides?");
    tt_resize(t, 24, 120); /* room for all figures */
    tt_wait(t, "kv reused");
    tt_type(t, "/set temperature 0.5"); /* a command is no prompt */
    tt_settle(t, 600);
    tt_quit(t);
    assert_null(strstr(guesses(*state), "temperature"));
}

static void no_prompt_is_computed_when_switched_off(void **state) {
    tt_write(*state, "config/config.yaml", "prefill_draft: false\n");
    struct tt *t = start_guessing(*state);
    tt_type(t, "What about the tides");
    tt_wait(t, "> What about the tides");
    tt_settle(t, 600);
    tt_quit(t);
    assert_string_equal(guesses(*state), "");
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, tt_setup, tt_teardown)
    const struct CMUnitTest tests[] = {
        T(shows_menu_bar_list_input_and_status),
        T(a_message_is_answered_and_listed),
        T(everything_is_there_after_reopening),
        T(killed_while_streaming_keeps_what_came),
        T(killed_while_typing_keeps_all_but_the_newest_words),
        T(hang_up_saves_draft_and_stops_the_answer),
        T(sigterm_saves_and_restores),
        T(esc_keeps_the_partial_answer_and_the_draft),
        T(ctrl_c_stops_then_clears_then_quits),
        T(ctrl_d_quits_only_on_an_empty_line),
        T(a_paste_of_42_lines_is_one_placeholder_and_one_message),
        T(escape_sequences_in_a_paste_stay_text),
        T(scrolling_is_not_stolen_while_text_streams),
        T(resizing_while_streaming_neither_loses_nor_doubles),
        T(regenerating_makes_branches_to_switch_between),
        T(editing_a_message_begins_a_branch),
        T(a_failed_answer_says_why),
        T(two_slashes_send_one_and_mistakes_are_not_sent),
        T(slash_set_changes_and_keeps_a_setting),
        T(guesses_without_a_draft_model_are_told),
        T(history_comes_back_with_up),
        T(a_draft_is_listed_by_its_words),
        T(deleting_can_be_undone),
        T(news_cut_long_names_between_characters),
        T(two_windows_see_each_others_conversations),
        T(the_external_editor_changes_the_draft),
        T(copying_reaches_the_clipboard_only_when_asked),
        T(a_full_context_asks_and_goes_on),
        T(a_full_context_streams_on),
        T(a_model_that_cannot_stream_says_why),
        T(a_full_disk_loses_nothing_typed),
        T(an_edit_that_is_too_long_is_shown_again),
        T(a_stopped_context_is_told_and_can_be_asked_again),
        T(a_pause_in_typing_computes_the_prompt),
        T(no_prompt_is_computed_when_switched_off),
    };
    if (!tt_ready(tt_ui()))
        return 77;
    return cmocka_run_group_tests_name("ui_chat", tests, NULL, NULL);
}
