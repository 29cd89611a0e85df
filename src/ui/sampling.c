/*
 * sampling.c - the dialog of all settings: value, range, meaning, default.
 *
 * Everything comes from the table in chat/settings.h. A change takes effect and is saved with
 * the conversation at once. Arrows change by the setting's step, digits begin typing, Del goes
 * back to the default.
 */
#include "base/utf8.h"
#include "ui/app.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_CELLS 20

struct sampling_dialog {
    struct overlay base;
    size_t at, top;
    int room;
    struct edit *field; /* while a value is typed */
    char error[512];
};

static const struct setting_def *def_at(const struct sampling_dialog *d) {
    return &setting_defs[d->at];
}

static void set(struct app *a, struct sampling_dialog *d, const char *value) {
    struct err err;
    d->error[0] = 0;
    enum status st = chat_set(a->chat, def_at(d)->name, value, &err);
    if (st == ST_OK && strcmp(def_at(d)->name, "speculation") == 0)
        st = chat_check_draft(a->chat, &err);
    if (st != ST_OK)
        snprintf(d->error, sizeof d->error, "%s", err.msg);
}

static void set_number(struct app *a, struct sampling_dialog *d, double to) {
    const struct setting_def *s = def_at(d);
    char text[40];
    if (s->type == SETTING_WORD)
        snprintf(text, sizeof text, "%s", setting_word(s, (int)to));
    else
        snprintf(text, sizeof text, s->type == SETTING_INT ? "%.0f" : "%.6g", to);
    set(a, d, text);
}

/* The next value on the grid of the setting's step. */
static void step_value(struct app *a, struct sampling_dialog *d, int dir) {
    const struct setting_def *s = def_at(d);
    if (s->type == SETTING_LIST)
        return;
    double step = s->step > 0 ? s->step : 1, now = setting_number(chat_settings(a->chat), s);
    double to = (floor(now / step + 1e-9) + dir) * step;
    if (dir < 0 && now / step - floor(now / step + 1e-9) > 1e-6)
        to += step; /* it was between two steps: first down to the grid */
    to = to < s->min ? s->min : to > s->max ? s->max : to;
    set_number(a, d, to);
}

static void to_default(struct app *a, struct sampling_dialog *d) {
    if (def_at(d)->type == SETTING_LIST)
        set(a, d, "");
    else
        set_number(a, d, def_at(d)->def);
}

static void start_typing(struct sampling_dialog *d, const char *text) {
    d->field = edit_new();
    edit_reset(d->field, text);
    d->error[0] = 0;
}

static void stop_typing(struct app *a, struct sampling_dialog *d, bool take) {
    char *text = edit_text(d->field);
    if (take)
        set(a, d, text);
    free(text);
    edit_free(d->field);
    d->field = NULL;
}

static void draw_explanation(const struct sampling_dialog *d, struct rect in, int y) {
    const struct setting_def *s = def_at(d);
    struct strlist lines = {0};
    char range[200] = "";
    overlay_wrap(&lines, s->help, in.w);
    if (s->type == SETTING_WORD)
        snprintf(range, sizeof range, "%s, default %s", s->off, setting_word(s, (int)s->def));
    else if (s->type != SETTING_LIST)
        snprintf(range, sizeof range, "%.10g to %.10g, default %.6g%s%s", s->min, s->max,
                 s->def, s->off ? "; " : "", s->off ? s->off : "");
    else
        snprintf(range, sizeof range, "a list; what is typed is added, Del empties it");
    screen_hline(y, in.x, in.w, UI_DIALOG_FRAME, "─");
    int n = 0;
    for (; n < (int)lines.n && n < 2; n++)
        screen_text(y + 1 + n, in.x, in.w, UI_DIALOG, lines.v[n]);
    if (d->error[0])
        screen_text(y + 3, in.x, in.w, STYLE_ERROR, d->error);
    else
        screen_text(y + 3, in.x, in.w, UI_DIALOG_KEY, range);
    strlist_release(&lines);
}

static void sampling_draw(struct app *a, struct overlay *o) {
    struct sampling_dialog *d = (struct sampling_dialog *)o;
    int w = screen_cols() - 2 > 76 ? 76 : screen_cols() - 2;
    struct rect in = overlay_frame(o, (int)n_setting_defs + 6, w, "Sampling",
                                   d->field ? "Enter takes · Esc"
                                            : "←→ change · type a value · Del default · Esc");
    d->room = in.h - 4;
    if (d->room < 1)
        return;
    if (d->at < d->top)
        d->top = d->at;
    if (d->at >= d->top + (size_t)d->room)
        d->top = d->at - (size_t)d->room + 1;
    for (int i = 0; i < d->room && d->top + (size_t)i < n_setting_defs; i++) {
        size_t k = d->top + (size_t)i;
        const struct setting_def *s = &setting_defs[k];
        bool here = k == d->at;
        struct buf value = {0};
        setting_show(chat_settings(a->chat), s, &value);
        uint16_t style = here ? UI_CURSOR : UI_DIALOG;
        screen_fill((struct rect){in.y + i, in.x, 1, in.w}, style);
        screen_text(in.y + i, in.x + 1, NAME_CELLS, style, s->name);
        screen_text(in.y + i, in.x + NAME_CELLS + 1, in.w - NAME_CELLS - 1, style,
                    buf_str(&value));
        if (s->type != SETTING_LIST && setting_number(chat_settings(a->chat), s) != s->def)
            screen_text_right(in.y + i, in.x, in.w - 1, here ? UI_CURSOR : UI_DIALOG_KEY,
                              "changed");
        if (here && d->field)
            overlay_field(
                (struct rect){in.y + i, in.x + NAME_CELLS + 1, 1, in.w - NAME_CELLS - 2},
                d->field);
        buf_release(&value);
    }
    draw_explanation(d, in, in.y + d->room);
}

static void move_to(struct sampling_dialog *d, long at) {
    long last = (long)n_setting_defs - 1;
    d->at = (size_t)(at < 0 ? 0 : at > last ? last : at);
    d->error[0] = 0;
}

static void sampling_key(struct app *a, struct overlay *o, key_code key) {
    struct sampling_dialog *d = (struct sampling_dialog *)o;
    if (d->field) {
        if (key == K_ENTER || key == K_ESC || key == K_UP || key == K_DOWN)
            stop_typing(a, d, key != K_ESC);
        else
            bindings_edit(&a->keys, d->field, key);
        if (key != K_UP && key != K_DOWN)
            return;
    }
    switch (key) {
    case K_UP:
    case 'k':
        move_to(d, (long)d->at - 1);
        break;
    case K_DOWN:
    case 'j':
    case K_TAB:
        move_to(d, (long)d->at + 1);
        break;
    case K_LEFT:
    case 'h':
        step_value(a, d, -1);
        break;
    case K_RIGHT:
    case 'l':
        step_value(a, d, 1);
        break;
    case K_DELETE:
    case K_BACKSPACE:
        to_default(a, d);
        break;
    case K_ENTER: {
        struct buf value = {0};
        if (def_at(d)->type != SETTING_LIST)
            setting_show(chat_settings(a->chat), def_at(d), &value);
        start_typing(d, buf_str(&value));
        buf_release(&value);
        break;
    }
    case K_ESC:
    case 'q':
        o->done = true;
        break;
    default:
        if (key < 0x110000) {
            char text[5] = {0};
            utf8_encode(key, text);
            start_typing(d, text);
        }
    }
}

static void sampling_mouse(struct app *a, struct overlay *o, const struct input_event *e) {
    (void)a;
    struct sampling_dialog *d = (struct sampling_dialog *)o;
    if (d->field)
        return;
    if (e->kind == MOUSE_WHEEL_UP || e->kind == MOUSE_WHEEL_DOWN)
        move_to(d, (long)d->at + (e->kind == MOUSE_WHEEL_UP ? -1 : 1));
    else if (e->kind == MOUSE_PRESS && !rect_has(o->rect, e->y, e->x))
        o->done = true;
    else if (e->kind == MOUSE_PRESS && e->y > o->rect.y && e->y <= o->rect.y + d->room)
        move_to(d, (long)d->top + e->y - o->rect.y - 1);
}

void sampling_dialog(struct app *a, size_t setting) {
    struct sampling_dialog d = {
        .base = {.draw = sampling_draw, .key = sampling_key, .mouse = sampling_mouse},
        .at = setting};
    app_modal(a, &d.base);
    edit_free(d.field);
}
