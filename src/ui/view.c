/*
 * view.c - the panes: where they are, and the mouse on them.
 *
 *    Chat  Edit  Model …                                    menu bar
 *   ┌ conversations ─────┐ you     How do tides work?       list and transcript
 *   ├────────────────────┴────────────────────────────      the line: news, where one is, "new
 * text below" │ > _                                                   input, at most a third of
 * the screen └ smollm2·nf4·cpu │ ctx …                               status
 *
 * The list is beside the transcript from 70 columns on; on a narrower screen it takes the
 * transcript's place while it has the keys. Below 40x10 a message is shown instead; typing goes
 * on.
 */
#include "base/clock.h"
#include "base/utf8.h"
#include "ui/act.h"
#include "ui/app.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIN_ROWS  10
#define MIN_COLS  40
#define LIST_FROM 70
#define CLICK_US  400000

void view_layout(struct app *a) {
    struct panes *p = &a->panes;
    int rows = screen_rows(), cols = screen_cols();
    *p = (struct panes){.small = rows < MIN_ROWS || cols < MIN_COLS};
    if (p->small)
        return;
    struct edit_view v;
    edit_layout(a->edit, cols - 5, rows / 3, &v);
    p->menu = (struct rect){0, 0, 1, cols};
    p->status = (struct rect){rows - 1, 0, 1, cols};
    p->input = (struct rect){rows - 1 - v.n, 0, v.n, cols};
    p->split = p->input.y - 1;
    int main_h = p->split - 1;
    bool wide = cols >= LIST_FROM;
    if (!wide && a->focus == FOCUS_LIST) {
        p->list = (struct rect){1, 0, main_h, cols};
    } else {
        int w = 0;
        if (wide && (a->show_list || a->focus == FOCUS_LIST)) {
            w = cols / 4 < 22 ? 22 : cols / 4 > 34 ? 34 : cols / 4;
            p->list = (struct rect){1, 0, main_h, w};
        }
        p->transcript = (struct rect){1, w + (w > 0), main_h, cols - w - (w > 0)};
    }
    if (p->transcript.w > 0)
        transcript_set_size(a->tr, p->transcript.h, p->transcript.w);
}

/* News that is too long for the line goes over the rows above it: what is cut can't
 * help. w: cells at the right of the line that are taken. */
static void draw_long_toast(const struct app *a, int w) {
    struct strlist lines = {0};
    uint16_t style = a->toast_bad ? STYLE_ERROR : UI_TOAST;
    int cols = screen_cols(), room = a->panes.split / 2;
    overlay_wrap(&lines, a->toast, cols - 6 - w);
    int n = (int)lines.n < room ? (int)lines.n : room;
    for (int i = 0; i < n; i++) {
        struct rect r = {a->panes.split - n + 1 + i, 2, 1, cols - 4 - w};
        screen_fill(r, style);
        screen_text(r.y, r.x + 1, r.w - 2, style, lines.v[i]);
    }
    strlist_release(&lines);
}

static void draw_split(struct app *a) {
    const struct panes *p = &a->panes;
    int y = p->split, cols = screen_cols();
    uint16_t frame = a->focus == FOCUS_INPUT ? UI_FRAME_FOCUS : UI_FRAME;
    screen_hline(y, 0, cols, frame, "─");
    screen_text(y, 0, 1, frame, p->list.w ? "├" : "┌");
    if (p->list.w && p->list.w < cols)
        screen_text(y, p->list.w - 1, 1, frame, "┴");
    char right[64] = "";
    if (p->transcript.w && transcript_more_below(a->tr)) {
        snprintf(right, sizeof right, " ↓ new text below ");
    } else if (p->transcript.w && !transcript_at_tail(a->tr)) {
        size_t above, seen, below;
        transcript_extent(a->tr, &above, &seen, &below);
        size_t all = above + below;
        snprintf(right, sizeof right, " %zu%% ", all ? above * 100 / all : 100);
    }
    int w = (int)utf8_cells(right, strlen(right));
    screen_text_right(y, cols - 1 - w, w, UI_TOAST, right);
    if (a->toast[0] && (int)utf8_cells(a->toast, strlen(a->toast)) > cols - 6 - w) {
        draw_long_toast(a, w);
    } else if (a->toast[0]) {
        int room = cols - 6 - w;
        uint16_t style = a->toast_bad ? STYLE_ERROR : UI_TOAST;
        int n = screen_text(y, 2, room, style, " ");
        n += screen_text_cut(y, 2 + n, room - n, style, a->toast);
        screen_text(y, 2 + n, 1, style, " ");
    }
}

static void draw_input(struct app *a) {
    struct rect r = a->panes.input;
    uint16_t frame = a->focus == FOCUS_INPUT ? UI_FRAME_FOCUS : UI_FRAME;
    struct edit_view v;
    struct drawn d = {0};
    edit_layout(a->edit, r.w - 5, r.h, &v);
    for (int i = 0; i < v.n && i < r.h; i++) {
        screen_text(r.y + i, 0, 1, frame, "│");
        if (v.top + i == 0)
            screen_text(r.y, 2, 1, UI_PROMPT, ">");
        edit_row(a->edit, v.top + i, &d);
        screen_drawn(r.y + i, 4, r.w - 4, &d);
    }
    drawn_release(&d);
    if (edit_empty(a->edit) && a->focus == FOCUS_INPUT && transcript_n(a->tr) == 0)
        screen_text(r.y, 5, r.w - 6, STYLE_MUTED,
                    "type a message, Enter sends; / for commands");
    if (a->focus == FOCUS_INPUT && !a->top)
        screen_cursor(r.y + v.cur_row, 4 + v.cur_col);
}

static void draw_transcript(struct app *a) {
    struct rect r = a->panes.transcript;
    struct drawn d = {0};
    for (int i = 0; i < r.h; i++) {
        transcript_row(a->tr, i, &d);
        screen_drawn(r.y + i, r.x, r.w, &d);
    }
    drawn_release(&d);
}

void view_draw(struct app *a) {
    const struct panes *p = &a->panes;
    if (p->small) {
        char text[100];
        snprintf(text, sizeof text, "llmchat needs %dx%d, this is %dx%d", MIN_COLS, MIN_ROWS,
                 screen_cols(), screen_rows());
        struct strlist lines = {0};
        overlay_wrap(&lines, text, screen_cols());
        for (size_t i = 0; i < lines.n && (int)i < screen_rows(); i++)
            screen_text((int)i, 0, screen_cols(), STYLE_TEXT, lines.v[i]);
        strlist_release(&lines);
        return;
    }
    menu_bar_draw(a, p->menu, -1);
    if (p->list.w)
        list_draw(a, p->list);
    if (p->transcript.w)
        draw_transcript(a);
    draw_split(a);
    draw_input(a);
    status_draw(a, p->status);
}

/* -- the mouse -- */

/* Counts clicks at one place: 1, 2, 3, 1 … */
static int count_clicks(struct app *a, const struct input_event *e) {
    int64_t now = clock_us();
    bool same = now - a->click_us < CLICK_US && a->click_y == e->y && a->click_x == e->x;
    a->clicks = same ? a->clicks % 3 + 1 : 1;
    a->click_us = now;
    a->click_y = e->y;
    a->click_x = e->x;
    return a->clicks;
}

static void press_transcript(struct app *a, const struct input_event *e, int row, int col) {
    int64_t id;
    int branch = transcript_branch_at(a->tr, row, col, &id);
    if (branch) {
        switch_branch(a, id, branch);
        return;
    }
    int clicks = count_clicks(a, e);
    transcript_mark_clear(a->tr);
    if (clicks == 2)
        transcript_mark_word(a->tr, row, col);
    else if (clicks == 3)
        transcript_mark_line(a->tr, row, col);
    else
        transcript_mark_begin(a->tr, row, col);
    a->dragging = clicks == 1;
    if (clicks == 1 && a->focus == FOCUS_TRANSCRIPT)
        transcript_select(a->tr, transcript_message_at(a->tr, row));
}

static void press(struct app *a, const struct input_event *e) {
    const struct panes *p = &a->panes;
    if (e->y == p->menu.y) {
        enum menu m = menu_at(e->x);
        if (m != MENU_NONE)
            menu_open(a, m);
    } else if (rect_has(p->transcript, e->y, e->x)) {
        press_transcript(a, e, e->y - p->transcript.y, e->x - p->transcript.x);
    } else if (rect_has(p->list, e->y, e->x)) {
        int64_t id = list_at(a, e->y);
        if (id && app_open(a, id))
            app_focus(a, FOCUS_INPUT);
    } else if (rect_has(p->input, e->y, e->x)) {
        app_focus(a, FOCUS_INPUT);
        edit_click(a->edit, e->y - p->input.y, e->x - 4);
    } else if (e->y == p->split && transcript_more_below(a->tr)) {
        transcript_bottom(a->tr);
    }
}

static void release(struct app *a) {
    if (!a->dragging && a->clicks < 2)
        return;
    a->dragging = false;
    char *text = transcript_marked_text(a->tr);
    if (utf8_cells(text, strlen(text)) > 1)
        copy_text(a, text, "the marked text");
    else
        transcript_mark_clear(a->tr);
    free(text);
}

void view_mouse(struct app *a, const struct input_event *e) {
    const struct panes *p = &a->panes;
    if (p->small)
        return;
    switch (e->kind) {
    case MOUSE_WHEEL_UP:
    case MOUSE_WHEEL_DOWN: {
        int step = e->kind == MOUSE_WHEEL_UP ? -3 : 3;
        if (rect_has(p->list, e->y, e->x))
            list_move(a, step);
        else
            transcript_scroll(a->tr, step);
        break;
    }
    case MOUSE_PRESS:
        if (e->button == 1)
            press(a, e);
        break;
    case MOUSE_DRAG:
        if (a->dragging)
            transcript_mark_to(a->tr, e->y - p->transcript.y, e->x - p->transcript.x);
        break;
    case MOUSE_RELEASE:
        release(a);
        break;
    }
}
