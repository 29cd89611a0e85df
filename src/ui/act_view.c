/*
 * act_view.c - commands on what is seen: scrolling, finding, the panes, themes, help.
 */
#include "base/log.h"
#include "base/path.h"
#include "base/utf8.h"
#include "ui/act.h"
#include "ui/term.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void act_menu(struct app *a) {
    menu_open(a, MENU_CHAT);
}

void act_palette(struct app *a) {
    palette_show(a);
}

void act_help(struct app *a) {
    help_show(a);
}

void act_about(struct app *a) {
    struct buf text = {0};
    struct err err;
    char *models = NULL;
    buf_adds(&text, "llmchat " LLMCHAT_VERSION
                    " runs language models on this machine, in this terminal.\n\n");
    buf_addf(&text, "Conversations: %s\n", store_path(a->params.store));
    if (path_in(PATH_DATA, "models", &models, &err) == ST_OK)
        buf_addf(&text, "Models: %s\n", models);
    buf_addf(&text, "Configuration: %s\n\n",
             a->params.config->path ? a->params.config->path : "none");
    buf_adds(&text, "Nothing that is typed or answered leaves this machine.");
    dialog_message(a, "About llmchat", buf_str(&text));
    free(models);
    buf_release(&text);
}

void act_repaint(struct app *a) {
    term_fit();
    screen_repaint();
    a->dirty = true;
}

bool is_list_on(const struct app *a) {
    return a->show_list;
}

bool is_markdown_on(const struct app *a) {
    return transcript_markdown(a->tr);
}

bool is_mouse_on(const struct app *a) {
    return a->mouse;
}

/* -- switches that last -- */

enum { SWITCH_LIST, SWITCH_MARKDOWN, SWITCH_MOUSE, SWITCH_THEME, N_SWITCH };
static const char *const switch_keys[N_SWITCH] = {"ui.list", "ui.markdown", "ui.mouse",
                                                  "ui.theme"};

static void switch_values(const struct app *a, int now[N_SWITCH], int configured[N_SWITCH]) {
    const struct config *c = a->params.config;
    const int n[] = {a->show_list, transcript_markdown(a->tr), a->mouse, (int)a->theme};
    const int k[] = {1, c->markdown, c->mouse, (int)c->theme};
    memcpy(now, n, sizeof n);
    memcpy(configured, k, sizeof k);
}

/* Beside the value stands what the configuration said then: when that is changed it counts
 * again. */
static void remember(struct app *a, int which) {
    int now[N_SWITCH], configured[N_SWITCH];
    char text[40];
    struct err err;
    switch_values(a, now, configured);
    snprintf(text, sizeof text, "%d %d", now[which], configured[which]);
    if (store_setting_set(a->params.store, switch_keys[which], text, &err) != ST_OK)
        log_warn("%s: %s", switch_keys[which], err.msg);
}

void view_recall(struct app *a) {
    int now[N_SWITCH], configured[N_SWITCH];
    switch_values(a, now, configured);
    for (int i = 0; i < N_SWITCH; i++) {
        char *text = NULL;
        struct err err;
        int value, then;
        if (store_setting_get(a->params.store, switch_keys[i], &text, &err) == ST_OK && text &&
            sscanf(text, "%d %d", &value, &then) == 2 && then == configured[i])
            now[i] = value;
        free(text);
    }
    a->show_list = now[SWITCH_LIST];
    transcript_set_markdown(a->tr, now[SWITCH_MARKDOWN]);
    a->mouse = now[SWITCH_MOUSE];
    if (now[SWITCH_THEME] >= THEME_AUTO && now[SWITCH_THEME] <= THEME_MONO)
        a->theme = (enum theme)now[SWITCH_THEME];
}

void act_toggle_list(struct app *a) {
    if (screen_cols() < 70) { /* there the list is seen while it has the keys */
        app_focus(a, a->focus == FOCUS_LIST ? FOCUS_INPUT : FOCUS_LIST);
        return;
    }
    a->show_list = !a->show_list;
    if (!a->show_list && a->focus == FOCUS_LIST)
        app_focus(a, FOCUS_INPUT);
    remember(a, SWITCH_LIST);
}

void act_toggle_markdown(struct app *a) {
    transcript_set_markdown(a->tr, !transcript_markdown(a->tr));
    remember(a, SWITCH_MARKDOWN);
    app_say(a, transcript_markdown(a->tr) ? "Markdown is formatted"
                                          : "Answers are shown as they came");
}

void act_toggle_mouse(struct app *a) {
    a->mouse = !a->mouse;
    a->dragging = false;
    term_mouse(a->mouse);
    remember(a, SWITCH_MOUSE);
    app_say(a, a->mouse ? "The mouse works here"
                        : "The mouse is the terminal's: select and copy as usual");
}

void act_theme(struct app *a) {
    static const char *const names[] = {"auto", "dark", "light", "mono"};
    static const char *const what[] = {"as the terminal says", "for a dark background",
                                       "for a light background", "no colours"};
    struct picker p = {.title = "Theme"};
    for (int i = 0; i < 4; i++)
        picker_add(&p, names[i], what[i], NULL, i)->marked = (int)a->theme == i;
    int at = picker_run(a, &p);
    if (at >= 0) {
        a->theme = (enum theme)p.v[at].id;
        screen_theme(a->theme);
        remember(a, SWITCH_THEME);
    }
    picker_release(&p);
}

void act_page_up(struct app *a) {
    transcript_page(a->tr, -2);
}

void act_page_down(struct app *a) {
    transcript_page(a->tr, 2);
}

void act_line_up(struct app *a) {
    transcript_scroll(a->tr, -1);
}

void act_line_down(struct app *a) {
    transcript_scroll(a->tr, 1);
}

void act_top(struct app *a) {
    transcript_top(a->tr);
}

void act_bottom(struct app *a) {
    transcript_bottom(a->tr);
}

void act_message_prev(struct app *a) {
    transcript_select_step(a->tr, -1);
}

void act_message_next(struct app *a) {
    transcript_select_step(a->tr, 1);
}

void act_find(struct app *a) {
    char *words =
        dialog_input(a, "Find in this conversation", "Words:", transcript_query(a->tr), 1);
    if (!words)
        return;
    enum focus before = a->focus;
    app_focus(a, FOCUS_TRANSCRIPT); /* first: it selects a message, which may scroll */
    size_t n = transcript_search(a->tr, words);
    if (n == 0)
        app_focus(a, before);
    if (*words && n == 0)
        app_complain(a, "“%.*s” is not in this conversation", utf8_cut(words, 100), words);
    else if (*words) {
        app_say(a, "Found in %zu message%s · n next, N before, Esc ends", n, n == 1 ? "" : "s");
    }
    free(words);
}

static void find_step(struct app *a, int step) {
    if (!*transcript_query(a->tr))
        act_find(a);
    else
        transcript_search_step(a->tr, step);
}

void act_find_next(struct app *a) {
    find_step(a, 1);
}

void act_find_prev(struct app *a) {
    find_step(a, -1);
}

void act_list_up(struct app *a) {
    list_move(a, -1);
}

void act_list_down(struct app *a) {
    list_move(a, 1);
}

void act_list_open(struct app *a) {
    int64_t id = list_current(a);
    if (id && app_open(a, id))
        app_focus(a, FOCUS_INPUT);
}

void act_list_filter(struct app *a) {
    list_filter(a, true);
}
