/*
 * edit_view.c - the rows of the input: wrapping, the cursor's cell, Up and Down, the mouse.
 *
 * Every byte of the text belongs to one row. Rows break behind a blank where there is one, else
 * anywhere. The last column is left free, so that a cursor behind a full row has a cell.
 */
#include "base/utf8.h"
#include "ui/edit_impl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TAB 4

static void paste_label(const struct edit *e, size_t number, char out[64]) {
    const char *s = number < e->n_paste ? e->paste[number] : "";
    size_t lines = 0, len = strlen(s);
    for (size_t i = 0; i < len; i++)
        lines += s[i] == '\n' || i + 1 == len;
    if (lines > 1)
        snprintf(out, 64, "[pasted %zu lines]", lines);
    else
        snprintf(out, 64, "[pasted %zu bytes]", len);
}

/* Cells of the unit [pos, end) at column col. */
static int unit_cells(const struct edit *e, size_t pos, size_t end, int col) {
    const char *s = buf_str(&e->text) + pos;
    size_t number;
    char label[64];
    if (*s == '\n')
        return 0;
    if (*s == '\t')
        return TAB - col % TAB;
    if ((unsigned char)*s < 0x20 || *s == 0x7f)
        return 1;
    if (edit_is_paste(s, end - pos, &number)) {
        paste_label(e, number, label);
        int n = (int)strlen(label);
        return n < e->width - 1 ? n : e->width - 1;
    }
    struct buf safe = {0};
    utf8_terminal_safe(&safe, s, end - pos, false);
    int cells = (int)utf8_cells(buf_str(&safe), safe.len);
    buf_release(&safe);
    return cells;
}

static void add_row(struct edit *e, size_t a, size_t b, bool soft) {
    if (e->n_row == e->cap_row) {
        e->cap_row = e->cap_row ? 2 * e->cap_row : 16;
        e->row = xreallocarray(e->row, e->cap_row, sizeof *e->row);
    }
    e->row[e->n_row++] = (struct edit_row){.a = a, .b = b, .soft = soft};
}

void edit_rows(struct edit *e) {
    if (e->row_valid && e->row_version == e->version)
        return;
    e->row_valid = true;
    e->row_version = e->version;
    e->n_row = 0;
    size_t a = 0, i = 0, at_break = 0;
    int cells = 0, limit = e->width - 1;
    while (i < e->text.len) {
        if (e->text.p[i] == '\n') {
            add_row(e, a, i, false);
            a = at_break = ++i;
            cells = 0;
            continue;
        }
        size_t end = edit_next(e, i);
        int w = unit_cells(e, i, end, cells);
        int room =
            e->text.p[i] == ' ' ? limit + 1 : limit; /* a blank may end in the free column */
        if (cells + w > room && i > a) {
            size_t cut = at_break > a && e->text.p[i] != ' ' ? at_break : i;
            add_row(e, a, cut, true);
            a = i = at_break = cut;
            cells = 0;
            continue;
        }
        cells += w;
        if (e->text.p[i] == ' ' || e->text.p[i] == '\t')
            at_break = end;
        i = end;
    }
    add_row(e, a, e->text.len, false);
}

static size_t row_of(const struct edit *e, size_t pos) {
    size_t r = 0;
    while (r + 1 < e->n_row && e->row[r + 1].a <= pos)
        r++;
    return r;
}

static int col_of(const struct edit *e, size_t row, size_t pos) {
    int col = 0;
    for (size_t i = e->row[row].a; i < pos && i < e->row[row].b;) {
        size_t end = edit_next(e, i);
        col += unit_cells(e, i, end, col);
        i = end;
    }
    return col;
}

/* The place in a row that is nearest to column col. */
static size_t pos_at(const struct edit *e, size_t row, int col) {
    const struct edit_row *r = &e->row[row];
    size_t i = r->a;
    int at = 0;
    while (i < r->b) {
        size_t end = edit_next(e, i);
        int w = unit_cells(e, i, end, at);
        if (col < at + (w + 1) / 2 || (r->soft && end == r->b))
            break;
        at += w;
        i = end;
    }
    return i;
}

static void set_width(struct edit *e, int width) {
    width = width < 4 ? 4 : width;
    if (width != e->width)
        e->row_valid = false;
    e->width = width;
    edit_rows(e);
}

void edit_layout(struct edit *e, int width, int max_rows, struct edit_view *v) {
    set_width(e, width);
    int rows = (int)e->n_row, cur = (int)row_of(e, e->cur);
    int n = rows < max_rows ? rows : max_rows < 1 ? 1 : max_rows;
    if (cur < e->top)
        e->top = cur;
    if (cur >= e->top + n)
        e->top = cur - n + 1;
    if (e->top > rows - n)
        e->top = rows - n;
    int col = col_of(e, (size_t)cur, e->cur);
    if (col >= e->width) /* behind a blank in the free column */
        col = e->width - 1;
    *v = (struct edit_view){
        .rows = rows, .top = e->top, .n = n, .cur_row = cur - e->top, .cur_col = col};
}

void edit_row(struct edit *e, int i, struct drawn *d) {
    drawn_clear(d);
    edit_rows(e);
    if (i < 0 || (size_t)i >= e->n_row)
        return;
    size_t from = e->mark < e->cur ? e->mark : e->cur, to = e->mark < e->cur ? e->cur : e->mark;
    for (size_t pos = e->row[i].a; pos < e->row[i].b;) {
        size_t end = edit_next(e, pos), number;
        const char *s = e->text.p + pos;
        uint16_t flags = e->has_mark && pos >= from && pos < to ? STYLE_SELECTED : 0;
        int w = unit_cells(e, pos, end, d->cells);
        if (*s == '\t') {
            drawn_pad(d, STYLE_TEXT | flags, w);
        } else if (edit_is_paste(s, end - pos, &number)) {
            char label[64];
            paste_label(e, number, label);
            drawn_put(d, STYLE_PASTE | flags, label, w);
        } else {
            struct buf safe = {0};
            utf8_terminal_safe(&safe, s, end - pos, false);
            drawn_add(d, STYLE_TEXT | flags, buf_str(&safe), safe.len, w);
            buf_release(&safe);
        }
        pos = end;
    }
}

static bool move_rows(struct edit *e, int step) {
    edit_rows(e);
    size_t r = row_of(e, e->cur);
    e->last = LAST_OTHER;
    if ((step < 0 && r == 0) || (step > 0 && r + 1 == e->n_row))
        return false;
    int goal = e->goal >= 0 ? e->goal : col_of(e, r, e->cur);
    e->cur = pos_at(e, step < 0 ? r - 1 : r + 1, goal);
    e->goal = goal;
    return true;
}

bool edit_up(struct edit *e) {
    return move_rows(e, -1);
}

bool edit_down(struct edit *e) {
    return move_rows(e, 1);
}

void edit_click(struct edit *e, int row, int col) {
    edit_rows(e);
    size_t r = (size_t)(e->top + (row < 0 ? 0 : row));
    e->cur = pos_at(e, r < e->n_row ? r : e->n_row - 1, col);
    e->goal = -1;
    e->last = LAST_OTHER;
}
