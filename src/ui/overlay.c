/*
 * overlay.c - frames, fields and the plain dialogs: a text to read, a question, a text to type.
 *
 * Each is laid out anew on every paint from the size of the screen, so a resize needs no code
 * of its own. The structs begin with their struct overlay.
 */
#include "ui/overlay.h"
#include "base/clock.h"
#include "base/utf8.h"
#include "ui/act.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rect overlay_frame(struct overlay *o, int h, int w, const char *title,
                          const char *hint) {
    int rows = screen_rows(), cols = screen_cols();
    if (h > rows)
        h = rows;
    if (w > cols)
        w = cols;
    o->rect = (struct rect){(rows - h) / 2, (cols - w) / 2, h, w};
    screen_box(o->rect, UI_DIALOG_FRAME, UI_DIALOG, title, UI_DIALOG_TITLE);
    if (hint && w > 8 && h > 1)
        screen_text_right(o->rect.y + h - 1, o->rect.x + 2, w - 4, UI_DIALOG_KEY, hint);
    return (struct rect){o->rect.y + 1, o->rect.x + 2, h > 2 ? h - 2 : 0, w > 4 ? w - 4 : 0};
}

void overlay_field(struct rect r, struct edit *e) {
    if (r.h < 1 || r.w < 2)
        return;
    struct edit_view v;
    edit_layout(e, r.w - 1, r.h, &v);
    screen_fill(r, UI_FIELD);
    struct drawn d = {0};
    for (int i = 0; i < v.n && i < r.h; i++) {
        edit_row(e, v.top + i, &d);
        for (size_t k = 0; k < d.n; k++)
            if (d.run[k].style == STYLE_TEXT)
                d.run[k].style = UI_FIELD;
        screen_drawn(r.y + i, r.x, r.w, &d);
    }
    drawn_release(&d);
    screen_cursor(r.y + v.cur_row, r.x + v.cur_col);
}

void overlay_wrap(struct strlist *out, const char *text, int width) {
    size_t w = width > 1 ? (size_t)width : 1;
    while (*text) {
        size_t line = strcspn(text, "\n"), cells;
        do {
            size_t n = utf8_fit(text, line, w, &cells);
            if (n < line) {
                size_t blank = n;
                while (blank > 0 && text[blank] != ' ')
                    blank--;
                n = blank > 0 ? blank : n;
            }
            if (n == 0) /* not even one character fits: it will be clipped */
                n = utf8_cluster(text, line, &(int){0});
            strlist_addn(out, text, n);
            while (n < line && n > 0 && text[n] == ' ')
                n++;
            text += n;
            line -= n;
        } while (line > 0);
        if (*text == '\n')
            text++;
    }
}

static int widest(const struct strlist *l) {
    size_t w = 0;
    for (size_t i = 0; i < l->n; i++) {
        size_t c = utf8_cells(l->v[i], strlen(l->v[i]));
        w = c > w ? c : w;
    }
    return (int)w;
}

/* Width for reading: not the whole of a wide screen. */
static int text_width(void) {
    int w = screen_cols() - 6;
    return w > 76 ? 76 : w < 1 ? 1 : w;
}

/* -- a text to read, and a question -- */

#define QUIET_US 600000

struct text_dialog {
    struct overlay base;
    const char *title, *text;
    const char *const *answers;
    int n, at, top, room, total;
    int first; /* answer that is drawn first: a narrow screen has no room for all */
    bool unasked;
    int64_t (*make)(struct app *a, struct buf *out); /* of a text that changes, or NULL */
    struct buf made;
    int64_t due_us; /* when it is made again; 0: never */
};

static int answer_cells(const struct text_dialog *t, int i) {
    return (int)utf8_cells(t->answers[i], strlen(t->answers[i])) + 4;
}

static void make_text(struct app *a, struct text_dialog *t) {
    buf_clear(&t->made);
    int64_t after = t->make(a, &t->made);
    t->text = buf_str(&t->made);
    a->renew_us = t->due_us = after ? clock_us() + after : 0;
}

static void text_draw(struct app *a, struct overlay *o) {
    struct text_dialog *t = (struct text_dialog *)o;
    struct strlist lines = {0};
    if (t->due_us && clock_us() >= t->due_us)
        make_text(a, t);
    overlay_wrap(&lines, t->text, text_width());
    int w = widest(&lines), buttons = 0;
    for (int i = 0; i < t->n; i++)
        buttons += answer_cells(t, i) + 2;
    w = w < buttons ? buttons : w;
    w = w < (int)strlen(t->title) + 2 ? (int)strlen(t->title) + 2 : w;
    t->total = (int)lines.n;
    const char *hint = t->unasked && a->quiet_us ? "typing goes to the message"
                       : t->n                    ? "Enter · Esc"
                                                 : "Esc closes";
    struct rect in = overlay_frame(o, (int)lines.n + (t->n ? 4 : 2), w + 4, t->title, hint);
    t->room = in.h - (t->n ? 2 : 0);
    if (t->top > t->total - t->room)
        t->top = t->total - t->room;
    if (t->top < 0)
        t->top = 0;
    for (int i = 0; i < t->room && t->top + i < t->total; i++)
        screen_text(in.y + i, in.x, in.w, UI_DIALOG, lines.v[t->top + i]);
    if (t->top + t->room < t->total)
        screen_text_right(in.y + in.h - (t->n ? 2 : 1), in.x, in.w, UI_DIALOG_KEY, " ↓ more");
    t->first = t->at;
    for (int w_all = t->n ? answer_cells(t, t->at) : 0; t->first > 0; t->first--) {
        w_all += answer_cells(t, t->first - 1) + 2;
        if (w_all > in.w)
            break;
    }
    int x = in.x;
    for (int i = t->first; i < t->n; i++) {
        char label[80];
        snprintf(label, sizeof label, "[ %s ]", t->answers[i]);
        x += screen_text(in.y + in.h - 1, x, in.x + in.w - x,
                         i == t->at ? UI_CURSOR : UI_DIALOG, label) +
             2;
    }
    strlist_release(&lines);
}

static void text_finish(struct text_dialog *t, int result) {
    t->base.result = result;
    t->base.done = true;
}

/* A dialog that nobody asked for comes in the middle of typing: characters go on to the draft,
 * and Enter counts only when the typing has paused (a->quiet_us). */
static bool interrupted_typing(struct app *a, key_code key) {
    if (key < 0x110000 || key == K_BACKSPACE) {
        bindings_edit(&a->keys, a->edit, key);
        a->quiet_us = clock_us() + QUIET_US;
        return true;
    }
    return key == K_ENTER && a->quiet_us;
}

static void text_paste(struct app *a, struct overlay *o, const char *text, size_t len) {
    if (!((struct text_dialog *)o)->unasked)
        return;
    edit_paste(a->edit, text, len);
    a->quiet_us = clock_us() + QUIET_US;
}

static void text_key(struct app *a, struct overlay *o, key_code key) {
    struct text_dialog *t = (struct text_dialog *)o;
    int page = t->room > 1 ? t->room - 1 : 1;
    const struct command *c = bindings_find(&a->keys, key, IN_LIST);
    if (t->unasked && interrupted_typing(a, key))
        return;
    if (c && c->run == act_quit) { /* there is nothing typed here that would be lost */
        act_quit(a);
        return;
    }
    switch (key) {
    case K_UP:
    case 'k':
        t->top--;
        return;
    case K_DOWN:
    case 'j':
        t->top++;
        return;
    case K_PGUP:
        t->top -= page;
        return;
    case K_PGDN:
    case ' ':
        t->top += page;
        return;
    case K_HOME:
        t->top = 0;
        return;
    case K_END:
        t->top = t->total;
        return;
    case K_LEFT:
    case K_TAB | MOD_SHIFT:
        t->at = t->n ? (t->at + t->n - 1) % t->n : 0;
        return;
    case K_RIGHT:
    case K_TAB:
        t->at = t->n ? (t->at + 1) % t->n : 0;
        return;
    case K_ENTER:
        text_finish(t, t->n ? t->at : 0);
        return;
    case K_ESC:
    case 'q':
        text_finish(t, -1);
        return;
    default:
        for (int i = 0; i < t->n; i++) /* an answer's first letter */
            if ((key | 32) == (key_code)(t->answers[i][0] | 32) && key < 128)
                text_finish(t, i);
    }
}

static void text_mouse(struct app *a, struct overlay *o, const struct input_event *e) {
    (void)a;
    struct text_dialog *t = (struct text_dialog *)o;
    if (e->kind == MOUSE_WHEEL_UP)
        t->top -= 3;
    else if (e->kind == MOUSE_WHEEL_DOWN)
        t->top += 3;
    else if (e->kind == MOUSE_PRESS && !rect_has(o->rect, e->y, e->x))
        text_finish(t, -1);
    else if (e->kind == MOUSE_PRESS && e->y == o->rect.y + o->rect.h - 2) {
        int x = o->rect.x + 2;
        for (int i = t->first; i < t->n; i++) {
            int w = answer_cells(t, i);
            if (e->x >= x && e->x < x + w)
                text_finish(t, i);
            x += w + 2;
        }
    }
}

static int run_text(struct app *a, const char *title, const char *text,
                    const char *const *answers, int n, bool unasked) {
    struct text_dialog t = {
        .base = {.draw = text_draw, .key = text_key, .paste = text_paste, .mouse = text_mouse},
        .title = title,
        .text = text,
        .answers = answers,
        .n = n,
        .unasked = unasked};
    if (unasked)
        a->quiet_us = clock_us() + QUIET_US;
    return app_modal(a, &t.base);
}

int dialog_ask(struct app *a, const char *title, const char *text, const char *const *answers,
               int n) {
    return run_text(a, title, text, answers, n, false);
}

int dialog_interrupt(struct app *a, const char *title, const char *text,
                     const char *const *answers, int n) {
    return run_text(a, title, text, answers, n, true);
}

void dialog_message(struct app *a, const char *title, const char *text) {
    dialog_ask(a, title, text, NULL, 0);
}

void dialog_live(struct app *a, const char *title,
                 int64_t (*make)(struct app *a, struct buf *out)) {
    struct text_dialog t = {.base = {.draw = text_draw, .key = text_key, .mouse = text_mouse},
                            .title = title,
                            .make = make};
    make_text(a, &t);
    app_modal(a, &t.base);
    a->renew_us = 0;
    buf_release(&t.made);
}

/* -- a text to type -- */

struct input_dialog {
    struct overlay base;
    const char *title, *label;
    struct edit *field;
    int rows;
};

static void input_draw(struct app *a, struct overlay *o) {
    (void)a;
    struct input_dialog *d = (struct input_dialog *)o;
    struct strlist lines = {0};
    overlay_wrap(&lines, d->label, text_width());
    struct rect in =
        overlay_frame(o, (int)lines.n + d->rows + 2, text_width() + 4, d->title,
                      d->rows > 1 ? "Enter ok · Alt-Enter new line · Esc" : "Enter ok · Esc");
    int room = in.h - d->rows; /* the field matters more than its explanation */
    for (int i = 0; i < room && i < (int)lines.n; i++)
        screen_text(in.y + i, in.x, in.w, UI_DIALOG, lines.v[i]);
    int at = room < 0 ? 0 : room < (int)lines.n ? room : (int)lines.n;
    overlay_field((struct rect){in.y + at, in.x, in.h - at, in.w}, d->field);
    strlist_release(&lines);
}

static void input_key(struct app *a, struct overlay *o, key_code key) {
    struct input_dialog *d = (struct input_dialog *)o;
    if (key == K_ENTER || key == K_ESC) {
        o->result = key == K_ENTER ? 0 : -1;
        o->done = true;
        return;
    }
    if (d->rows > 1 && (key == (K_ENTER | MOD_ALT) || key == ('j' | MOD_CTRL)))
        edit_insert(d->field, "\n", 1);
    else
        bindings_edit(&a->keys, d->field, key);
}

/* A field of one row takes no line ends. */
static void paste_into(struct edit *e, const char *text, size_t len, bool one_row) {
    if (!one_row) {
        edit_insert(e, text, len);
        return;
    }
    char *line = xstrndup(text, len);
    for (char *p = line; *p; p++)
        if (*p == '\n' || *p == '\t')
            *p = ' ';
    edit_insert(e, line, strlen(line));
    free(line);
}

static void input_paste(struct app *a, struct overlay *o, const char *text, size_t len) {
    (void)a;
    struct input_dialog *d = (struct input_dialog *)o;
    paste_into(d->field, text, len, d->rows == 1);
}

char *dialog_input(struct app *a, const char *title, const char *label, const char *text,
                   int rows) {
    struct input_dialog d = {
        .base = {.draw = input_draw, .key = input_key, .paste = input_paste},
        .title = title,
        .label = label,
        .field = edit_new(),
        .rows = rows};
    edit_reset(d.field, text ? text : "");
    char *out = app_modal(a, &d.base) == 0 ? edit_text(d.field) : NULL;
    edit_free(d.field);
    return out;
}
