/*
 * layout_table.c - a table as columns, or as a list where there is no room for columns.
 *
 * Columns get what their widest cell needs while that fits. Else the widest are cut to one
 * common width, found by bisection, and their cells wrap. Below MIN_COLUMN cells a column can't
 * be read: then every row becomes a list of "head: cell" lines. All lines of a row stand for
 * the row's whole source, so that lines stay in the order of the source.
 */
#include "base/utf8.h"
#include "ui/layout_impl.h"
#include <stdlib.h>
#include <string.h>

#define MIN_COLUMN 6
#define BORDER     3 /* cells of " │ " */

static const struct mdoc_cell *cell_at(const struct layout *l, const struct mdoc_block *b,
                                       size_t row, size_t col) {
    return &l->doc.cell[b->cell + row * b->n_cols + col];
}

static int clamp_sum(const int *want, size_t n, int cap) {
    int sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += want[i] < cap ? want[i] : cap;
    return sum;
}

/* Widths of the columns in `room` cells; false: too narrow. want is changed to them. */
static bool fit_columns(int *want, size_t n, int room) {
    if (clamp_sum(want, n, MIN_COLUMN) > room)
        return false;
    int lo = MIN_COLUMN, hi = room;
    while (lo < hi) { /* the greatest common cap that fits */
        int mid = (lo + hi + 1) / 2;
        if (clamp_sum(want, n, mid) <= room)
            lo = mid;
        else
            hi = mid - 1;
    }
    int left = room - clamp_sum(want, n, lo);
    for (size_t i = 0; i < n; i++)
        if (want[i] > lo) {
            want[i] = lo + (left > 0);
            left -= left > 0;
        }
    return true;
}

/* Lines [first, n_line) show one row of the table: they get its whole source range. */
static void join_source(struct layout *l, size_t first) {
    uint32_t lo = UINT32_MAX, hi = 0;
    for (size_t i = first; i < l->n_line; i++)
        if (!l->line[i].decoration) {
            lo = l->line[i].src < lo ? l->line[i].src : lo;
            hi = l->line[i].src_end > hi ? l->line[i].src_end : hi;
        }
    for (size_t i = first; i < l->n_line && lo < hi; i++) {
        l->line[i].src = lo;
        l->line[i].src_end = hi;
        l->line[i].decoration = false;
    }
}

static void table_row(struct layout *l, const struct mdoc_block *b, size_t row,
                      const int *width) {
    size_t first_row[MDOC_MAX_COLS + 1], height = 1, first = l->n_line;
    uint32_t seg[MDOC_MAX_COLS];
    struct layout_rows rows = {0};
    for (size_t c = 0; c < b->n_cols; c++) {
        const struct mdoc_cell *cell = cell_at(l, b, row, c);
        first_row[c] = rows.n;
        seg[c] = cell->span.seg;
        layout_wrap(buf_str(&l->doc.text), cell->span.text, cell->span.text_end, width[c],
                    width[c], true, &rows);
        height = rows.n - first_row[c] > height ? rows.n - first_row[c] : height;
    }
    first_row[b->n_cols] = rows.n;
    for (size_t h = 0; h < height; h++) {
        layout_new_line(l, b, h > 0);
        for (size_t c = 0; c < b->n_cols; c++) {
            size_t i = first_row[c] + h;
            const struct layout_row none = {0};
            const struct layout_row *r = i < first_row[c + 1] ? &rows.v[i] : &none;
            int free_cells = width[c] - (int)r->cells;
            char align = cell_at(l, b, row, c)->align;
            int left = align == 'r' ? free_cells : align == 'c' ? free_cells / 2 : 0;
            if (c > 0)
                layout_add(l, STYLE_TABLE_BORDER, " │ ", BORDER);
            layout_pad(l, STYLE_TEXT, left);
            if (r->b > r->a)
                layout_add_row(l, r, &seg[c]);
            if (c + 1 < b->n_cols)
                layout_pad(l, STYLE_TEXT, free_cells - left);
        }
    }
    join_source(l, first);
    free(rows.v);
}

static void head_rule(struct layout *l, const struct mdoc_block *b, const int *width) {
    struct buf line = {0};
    int cells = 0;
    for (size_t c = 0; c < b->n_cols; c++) {
        buf_adds(&line, c > 0 ? "─┼─" : "");
        cells += c > 0 ? BORDER : 0;
        for (int i = 0; i < width[c]; i++)
            buf_adds(&line, "─");
        cells += width[c];
    }
    layout_new_line(l, b, false);
    layout_add(l, STYLE_TABLE_BORDER, buf_str(&line), cells);
    buf_release(&line);
}

/* "head: cell", the head without its source so that lines stay in the source's order. */
static void list_cell(struct layout *l, const struct mdoc_block *b, size_t row, size_t col) {
    const struct mdoc_cell *head = cell_at(l, b, 0, col), *cell = cell_at(l, b, row, col);
    int avail = layout_avail(l, b), label = 0;
    struct buf text = {0};
    if (row > 0) {
        size_t cells, len = head->span.text_end - head->span.text;
        const char *p = buf_str(&l->doc.text) + head->span.text;
        int room = avail * 2 / 3 < avail - 4 ? avail * 2 / 3 : avail - 4; /* ": " and a cell */
        buf_add(&text, p, utf8_fit(p, len, (size_t)room, &cells));
        buf_adds(&text, ": ");
        label = (int)cells + 2;
    }
    int indent = avail > 8 ? 2 : 0;
    struct layout_rows rows = {0};
    layout_wrap(buf_str(&l->doc.text), cell->span.text, cell->span.text_end, avail - label,
                avail - indent, true, &rows);
    uint32_t seg = cell->span.seg;
    for (size_t i = 0; i < rows.n; i++) {
        layout_new_line(l, b, i > 0);
        if (i == 0 && row > 0)
            layout_add(l, STYLE_TABLE_HEAD, buf_str(&text), label);
        else if (i > 0)
            layout_pad(l, STYLE_TEXT, indent);
        layout_add_row(l, &rows.v[i], &seg);
    }
    free(rows.v);
    buf_release(&text);
}

static void table_as_list(struct layout *l, const struct mdoc_block *b) {
    for (size_t row = b->n_rows > 1; row < b->n_rows; row++) {
        if (row > 1)
            layout_new_line(l, b, false);
        for (size_t c = 0; c < b->n_cols; c++)
            list_cell(l, b, row, c);
    }
}

void layout_table(struct layout *l, const struct mdoc_block *b) {
    int want[MDOC_MAX_COLS];
    size_t n = b->n_cols;
    for (size_t c = 0; c < n; c++) {
        want[c] = 1;
        for (size_t r = 0; r < b->n_rows; r++) {
            const struct mdoc_cell *cell = cell_at(l, b, r, c);
            size_t w = utf8_cells(buf_str(&l->doc.text) + cell->span.text,
                                  cell->span.text_end - cell->span.text);
            w = w < (size_t)l->width ? w : (size_t)l->width;
            want[c] = (int)w > want[c] ? (int)w : want[c];
        }
    }
    if (!fit_columns(want, n, layout_avail(l, b) - BORDER * ((int)n - 1))) {
        table_as_list(l, b);
        return;
    }
    for (size_t r = 0; r < b->n_rows; r++) {
        table_row(l, b, r, want);
        if (r == 0)
            head_rule(l, b, want);
    }
}
