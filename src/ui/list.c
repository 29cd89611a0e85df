/*
 * list.c - the conversation list: newest first, grouped by day, with a filter.
 *
 * The list is read from the store when something in it may have changed, never while painting.
 * Rows are headings (id 0) and conversations; the cursor stays on the same conversation over a
 * reload.
 */
#include "base/utf8.h"
#include "ui/app.h"
#include "ui/fuzzy.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LIST_MAX 2000

void list_release(struct conv_list *l) {
    conversation_list_release(&l->all);
    for (size_t i = 0; i < l->n_row; i++)
        free(l->row[i].text);
    free(l->row);
    free(l->filter);
    *l = (struct conv_list){0};
}

/* Days are the calendar's, in the person's time zone. */
static const char *group_of(int64_t ms) {
    time_t now = time(NULL), then = (time_t)(ms / 1000);
    struct tm t;
    localtime_r(&now, &t);
    t.tm_hour = t.tm_min = t.tm_sec = 0;
    time_t today = mktime(&t);
    if (then >= today)
        return "Today";
    if (then >= today - 86400)
        return "Yesterday";
    if (then >= today - 7 * 86400)
        return "Last 7 days";
    return then >= today - 30 * 86400 ? "Last 30 days" : "Older";
}

static void add_row(struct conv_list *l, int64_t id, const char *text, size_t index) {
    l->row = xreallocarray(l->row, l->n_row + 1, sizeof *l->row);
    l->row[l->n_row++] = (struct list_row){.id = id, .text = xstrdup(text), .index = index};
}

char *list_title(const struct conversation *c) {
    if (c->title && *c->title)
        return xstrdup(c->title);
    if (c->draft && *c->draft)
        return xasprintf("draft: %.*s", (int)strcspn(c->draft, "\n"), c->draft);
    return c->n_messages > 0 ? xstrdup("untitled") : NULL;
}

static void make_rows(struct conv_list *l) {
    int64_t keep = l->at < l->n_row ? l->row[l->at].id : 0;
    for (size_t i = 0; i < l->n_row; i++)
        free(l->row[i].text);
    l->n_row = 0;
    const char *group = "";
    for (size_t i = 0; i < l->all.n; i++) {
        const struct conversation *c = &l->all.v[i];
        char *title = list_title(c);
        bool shown = title && (!l->filter || !*l->filter ||
                               fuzzy_match(l->filter, title, NULL, 0, NULL) >= 0);
        const char *g = group_of(c->updated_ms);
        if (shown && strcmp(g, group) != 0)
            add_row(l, 0, group = g, 0);
        if (shown)
            add_row(l, c->id, title, i);
        free(title);
    }
    size_t first = 0;
    while (first < l->n_row && l->row[first].id == 0)
        first++;
    l->at = first;
    for (size_t i = 0; i < l->n_row; i++)
        if (keep && l->row[i].id == keep)
            l->at = i;
}

void list_load(struct app *a) {
    struct conversation_list fresh = {0};
    struct err err;
    if (!app_ok(a, store_conv_list(a->params.store, LIST_MAX, &fresh, &err), &err))
        return;
    conversation_list_release(&a->list.all);
    a->list.all = fresh;
    make_rows(&a->list);
    a->dirty = true;
}

int64_t list_current(const struct app *a) {
    return a->list.at < a->list.n_row ? a->list.row[a->list.at].id : 0;
}

void list_move(struct app *a, int step) {
    struct conv_list *l = &a->list;
    long at = (long)l->at, last = (long)l->n_row - 1;
    int dir = step < 0 ? -1 : 1;
    for (int left = abs(step); left > 0; left--) {
        long to = at + dir;
        while (to >= 0 && to <= last && l->row[to].id == 0)
            to += dir;
        if (to < 0 || to > last)
            break;
        at = to;
    }
    if (at >= 0 && at <= last)
        l->at = (size_t)at;
    if (dir < 0 && l->at <= 1)
        l->top = 0;
}

void list_filter(struct app *a, bool on) {
    struct conv_list *l = &a->list;
    l->typing = on;
    if (on && !l->filter)
        l->filter = xstrdup("");
    if (!on) {
        free(l->filter);
        l->filter = NULL;
    }
    make_rows(l);
}

void list_key(struct app *a, key_code key) {
    struct conv_list *l = &a->list;
    if (key == K_UP || key == K_DOWN) {
        list_move(a, key == K_UP ? -1 : 1);
    } else if (key == K_ENTER) {
        int64_t id = list_current(a);
        list_filter(a, false);
        if (id && app_open(a, id))
            app_focus(a, FOCUS_INPUT);
    } else if (key == K_ESC || key == ('c' | MOD_CTRL) || key == K_TAB) {
        list_filter(a, false);
    } else if (key == K_BACKSPACE && *l->filter) {
        l->filter[utf8_prev(l->filter, strlen(l->filter))] = 0;
        make_rows(l);
    } else if (key < 0x110000 && strlen(l->filter) < 200) {
        char c[5] = {0};
        utf8_encode(key, c);
        char *more = xasprintf("%s%s", l->filter, c);
        free(l->filter);
        l->filter = more;
        make_rows(l);
    }
}

/* First row of conversations on the screen. */
static int first_y(const struct app *a) {
    return a->panes.list.y + 1 + (a->list.filter ? 1 : 0);
}

int64_t list_at(const struct app *a, int y) {
    const struct conv_list *l = &a->list;
    int row = y - first_y(a);
    return row >= 0 && l->top + (size_t)row < l->n_row ? l->row[l->top + (size_t)row].id : 0;
}

void list_draw(struct app *a, struct rect r) {
    struct conv_list *l = &a->list;
    bool here = a->focus == FOCUS_LIST;
    uint16_t frame = here ? UI_FRAME_FOCUS : UI_FRAME;
    for (int i = 1; i < r.h; i++) {
        screen_text(r.y + i, r.x, 1, frame, "│");
        screen_text(r.y + i, r.x + r.w - 1, 1, frame, "│");
    }
    screen_hline(r.y, r.x, r.w, frame, "─");
    screen_text(r.y, r.x, 1, frame, "┌");
    screen_text(r.y, r.x + r.w - 1, 1, frame, "┐");
    screen_text(r.y, r.x + 1, r.w - 3, frame, " conversations ");
    if (l->filter) {
        int x = r.x + 2, w = r.w - 4;
        screen_fill((struct rect){r.y + 1, r.x + 1, 1, r.w - 2}, UI_FIELD);
        int n = screen_text(r.y + 1, x, w, UI_FIELD, "/");
        n += screen_text(r.y + 1, x + n, w - n, UI_FIELD, l->filter);
        if (l->typing && !a->top)
            screen_cursor(r.y + 1, x + (n < w ? n : w));
    }
    int y0 = first_y(a), room = r.y + r.h - y0;
    if (room < 1)
        return;
    if (l->at < l->top)
        l->top = l->at;
    if (l->at >= l->top + (size_t)room)
        l->top = l->at - (size_t)room + 1;
    if (l->n_row <= (size_t)room)
        l->top = 0;
    for (int i = 0; i < room && l->top + (size_t)i < l->n_row; i++) {
        size_t k = l->top + (size_t)i;
        const struct list_row *row = &l->row[k];
        bool open = row->id != 0 && row->id == chat_id(a->chat);
        uint16_t style = row->id == 0 ? UI_LIST_HEAD : open ? UI_LIST_CURRENT : STYLE_TEXT;
        if (here && k == l->at && row->id) {
            style = UI_CURSOR;
            screen_fill((struct rect){y0 + i, r.x + 1, 1, r.w - 2}, style);
        }
        if (row->id)
            screen_text(y0 + i, r.x + 2, 2, style, open ? "▸ " : "  ");
        screen_text_cut(y0 + i, r.x + (row->id ? 4 : 2), r.w - (row->id ? 5 : 3), style,
                        row->text);
    }
    if (l->n_row == 0)
        screen_text(y0, r.x + 2, r.w - 3, UI_LIST_HEAD,
                    l->filter ? "nothing matches" : "none yet");
}
