/*
 * picker.c - a list that narrows while one types: palette, models, prompts, conversations,
 * search, formats.
 *
 * Items are filtered by letters in order (fuzzy.h), best first, or made anew for what was typed
 * (query). Headings are shown only while nothing is typed, and never hold the cursor.
 */
#include "base/utf8.h"
#include "ui/app.h"
#include "ui/fuzzy.h"
#include <stdlib.h>
#include <string.h>

struct pick_item *picker_add(struct picker *p, const char *text, const char *detail,
                             const char *right, int64_t id) {
    if (p->n == p->cap) {
        p->cap = p->cap ? 2 * p->cap : 32;
        p->v = xreallocarray(p->v, p->cap, sizeof *p->v);
    }
    struct pick_item *it = &p->v[p->n++];
    *it = (struct pick_item){.text = xstrdup(text),
                             .detail = detail && *detail ? xstrdup(detail) : NULL,
                             .right = right && *right ? xstrdup(right) : NULL,
                             .id = id};
    return it;
}

void picker_clear(struct picker *p) {
    for (size_t i = 0; i < p->n; i++) {
        free(p->v[i].text);
        free(p->v[i].detail);
        free(p->v[i].right);
    }
    p->n = 0;
}

void picker_release(struct picker *p) {
    picker_clear(p);
    free(p->v);
    free(p->shown);
    free(p->score);
    edit_free(p->field);
    *p = (struct picker){0};
}

static const int *sort_score; /* qsort has no argument; one thread */

static int by_score(const void *x, const void *y) {
    size_t a = *(const size_t *)x, b = *(const size_t *)y;
    if (sort_score[a] != sort_score[b])
        return sort_score[a] > sort_score[b] ? -1 : 1;
    return a < b ? -1 : 1;
}

static bool can_choose(const struct picker *p, size_t row) {
    return row < p->n_shown && !p->v[p->shown[row]].heading;
}

/* Puts the cursor on an item that can be chosen, looking in direction step first. */
static void settle(struct picker *p, int step) {
    if (p->n_shown == 0) {
        p->at = 0;
        return;
    }
    if (p->at >= p->n_shown)
        p->at = p->n_shown - 1;
    size_t i = p->at;
    while (!can_choose(p, i) && (step > 0 ? i + 1 < p->n_shown : i > 0))
        i += step > 0 ? 1 : (size_t)-1;
    while (!can_choose(p, i) && (step > 0 ? i > 0 : i + 1 < p->n_shown))
        i += step > 0 ? (size_t)-1 : 1;
    p->at = i;
}

static void filter(struct app *a, struct picker *p) {
    char *typed = edit_text(p->field);
    if (p->query)
        p->query(a, p, typed);
    p->shown = xreallocarray(p->shown, p->n + 1, sizeof *p->shown);
    p->score = xreallocarray(p->score, p->n + 1, sizeof *p->score);
    p->n_shown = 0;
    for (size_t i = 0; i < p->n; i++) {
        int score = 0;
        if (*typed && !p->query) {
            score = p->v[i].heading ? -1 : fuzzy_match(typed, p->v[i].text, NULL, 0, NULL);
            if (score < 0 && p->v[i].detail && !p->v[i].heading &&
                strcasestr(p->v[i].detail, typed))
                score = 0;
        }
        p->score[i] = score;
        if (score >= 0)
            p->shown[p->n_shown++] = i;
    }
    if (*typed && !p->query) {
        sort_score = p->score;
        qsort(p->shown, p->n_shown, sizeof *p->shown, by_score);
    }
    p->at = p->top = 0;
    if (!*typed)
        for (size_t i = 0; i < p->n_shown; i++)
            if (p->v[p->shown[i]].marked)
                p->at = i;
    settle(p, 1);
    p->version = edit_version(p->field);
    free(typed);
}

/* The item's text with the letters that matched the filter made visible. */
static int draw_matched(int y, int x, int w, uint16_t style, const char *typed,
                        const char *text) {
    size_t pos[FUZZY_MAX_PATTERN], n_pos = 0;
    if (*typed && fuzzy_match(typed, text, pos, FUZZY_MAX_PATTERN, &n_pos) < 0)
        n_pos = 0;
    int used = 0;
    size_t len = strlen(text), k = 0;
    for (size_t i = 0; i < len;) {
        int cells;
        size_t n = utf8_cluster(text + i, len - i, &cells);
        while (k < n_pos && pos[k] < i)
            k++;
        bool hit = k < n_pos && pos[k] < i + n;
        int got = screen_textn(y, x + used, w - used, hit ? UI_FOUND : style, text + i, n);
        if (got < cells)
            break;
        used += got;
        i += n;
    }
    return used;
}

static void draw_item(const struct picker *p, size_t row, const char *typed, struct rect line) {
    const struct pick_item *it = &p->v[p->shown[row]];
    bool here = row == p->at && !it->heading;
    uint16_t style = here ? UI_CURSOR : it->heading ? UI_DIALOG_OFF : UI_DIALOG;
    screen_fill(line, style);
    int right = 0;
    if (it->right) {
        right = (int)utf8_cells(it->right, strlen(it->right)) + 1;
        if (right > line.w / 2)
            right = line.w / 2;
        screen_text_right(line.y, line.x + line.w - right, right,
                          here ? UI_CURSOR : UI_DIALOG_KEY, it->right);
    }
    int x = line.x, w = line.w - right;
    if (!it->heading)
        x += screen_text(line.y, x, w, style, it->marked ? "● " : "  ");
    if (here || it->heading || p->query)
        x += screen_text_cut(line.y, x, line.x + w - x, style, it->text);
    else
        x += draw_matched(line.y, x, line.x + w - x, style, typed, it->text);
    if (it->detail && x + 3 < line.x + w)
        screen_text_cut(line.y, x + 2, line.x + w - x - 2, here ? UI_CURSOR : UI_DIALOG_KEY,
                        it->detail);
}

static void picker_draw(struct app *a, struct overlay *o) {
    (void)a;
    struct picker *p = (struct picker *)o;
    int cols = screen_cols(), rows = screen_rows();
    int w = cols - 4 > (p->wide ? 100 : 72) ? (p->wide ? 100 : 72) : cols - 2;
    int want = (int)(p->n < 4 ? 4 : p->n > 30 ? 30 : p->n) + 4;
    struct rect in = overlay_frame(o, want < rows - 2 ? want : rows - 2, w, p->title,
                                   p->hint ? p->hint : "type to filter · Enter · Esc");
    overlay_field((struct rect){in.y, in.x, 1, in.w}, p->field);
    int room = in.h - 2;
    if (room < 1)
        return;
    if (p->at < p->top)
        p->top = p->at;
    if (p->at >= p->top + (size_t)room)
        p->top = p->at - (size_t)room + 1;
    if (p->top == 1 && p->v[p->shown[0]].heading && p->at < (size_t)room)
        p->top = 0;
    char *typed = edit_text(p->field);
    for (int i = 0; i < room && p->top + (size_t)i < p->n_shown; i++)
        draw_item(p, p->top + (size_t)i, typed, (struct rect){in.y + 2 + i, in.x, 1, in.w});
    if (p->n_shown == 0)
        screen_text(in.y + 2, in.x, in.w, UI_DIALOG_OFF,
                    *typed     ? "nothing matches"
                    : p->query ? "type what you are looking for"
                               : "nothing here");
    free(typed);
}

static void pick(struct picker *p) {
    if (!can_choose(p, p->at))
        return;
    p->base.result = (int)p->shown[p->at];
    p->base.done = true;
}

static void picker_move(struct picker *p, int step) {
    if (p->n_shown == 0)
        return;
    long to = (long)p->at + step, last = (long)p->n_shown - 1;
    p->at = (size_t)(to < 0 ? 0 : to > last ? last : to);
    settle(p, step);
}

static void picker_key(struct app *a, struct overlay *o, key_code key) {
    struct picker *p = (struct picker *)o;
    int page = o->rect.h > 6 ? o->rect.h - 5 : 1;
    switch (key) {
    case K_UP:
    case 'p' | MOD_CTRL:
    case K_TAB | MOD_SHIFT:
        picker_move(p, -1);
        return;
    case K_DOWN:
    case 'n' | MOD_CTRL:
    case K_TAB:
        picker_move(p, 1);
        return;
    case K_PGUP:
        picker_move(p, -page);
        return;
    case K_PGDN:
        picker_move(p, page);
        return;
    case K_ENTER:
        pick(p);
        return;
    case K_ESC:
        o->result = -1;
        o->done = true;
        return;
    default:
        bindings_edit(&a->keys, p->field, key);
        if (edit_version(p->field) != p->version)
            filter(a, p);
    }
}

static void picker_paste(struct app *a, struct overlay *o, const char *text, size_t len) {
    struct picker *p = (struct picker *)o;
    size_t line = strcspn(text, "\n");
    edit_insert(p->field, text, line < len ? line : len);
    filter(a, p);
}

static void picker_mouse(struct app *a, struct overlay *o, const struct input_event *e) {
    (void)a;
    struct picker *p = (struct picker *)o;
    if (e->kind == MOUSE_WHEEL_UP || e->kind == MOUSE_WHEEL_DOWN) {
        picker_move(p, e->kind == MOUSE_WHEEL_UP ? -3 : 3);
        return;
    }
    if (e->kind != MOUSE_PRESS)
        return;
    if (!rect_has(o->rect, e->y, e->x)) {
        o->result = -1;
        o->done = true;
        return;
    }
    int row = e->y - o->rect.y - 3;
    if (row < 0 || row >= o->rect.h - 4 || p->top + (size_t)row >= p->n_shown)
        return;
    p->at = p->top + (size_t)row;
    pick(p);
}

int picker_run(struct app *a, struct picker *p) {
    p->base = (struct overlay){
        .draw = picker_draw, .key = picker_key, .paste = picker_paste, .mouse = picker_mouse};
    if (!p->field)
        p->field = edit_new();
    filter(a, p);
    return app_modal(a, &p->base);
}
