/*
 * screen.c - grapheme clusters into cells.
 *
 * ncurses and the terminal count widths by code point, the layout by cluster (base/utf8.h), and
 * terminals differ among each other. So a cluster is drawn as something all of them agree on:
 * its first character with its zero-width marks, in as many cells as the layout gave it. A
 * joined emoji sequence shows its first picture; a variation selector or a skin tone that would
 * change the width is left out; the spacing vowel signs of Indic scripts stay, since text
 * without them is wrong. What is copied, saved and exported is the text itself, not what is
 * drawn. Since each cell is written at its own position, a terminal that still disagrees
 * damages one line at most.
 *
 * Where the locale has no UTF-8, lines become ASCII and other characters '?'.
 */
#include "ui/screen.h"
#include "base/utf8.h"
#include "ui/term.h"
#include <curses.h>
#include <string.h>
#include <utf8proc.h>
#include <wchar.h>

static struct {
    int cursor_y, cursor_x;
    bool cursor;
} screen;

int screen_rows(void) {
    return LINES;
}

int screen_cols(void) {
    return COLS;
}

void screen_clear(void) {
    erase();
    screen.cursor = false;
}

/* For locales without UTF-8. */
static wchar_t ascii_for(uint32_t cp) {
    static const struct {
        uint32_t cp;
        char c;
    } map[] = {{0x2500, '-'}, {0x2502, '|'},  {0x25CF, '*'}, {0x25CB, 'o'}, {0x25C2, '<'},
               {0x25B8, '>'}, {0x2193, 'v'},  {0x2026, '.'}, {0x2593, '#'}, {0x2591, '.'},
               {0x2022, '*'}, {0x00B7, '-'},  {0x2713, 'x'}, {0x2191, '^'}, {0x201C, '"'},
               {0x201D, '"'}, {0x2019, '\''}, {0x2014, '-'}};
    if (cp < 127)
        return (wchar_t)cp;
    if (cp >= 0x2500 && cp < 0x2580 && cp != 0x2500 && cp != 0x2502)
        return '+';
    for (size_t i = 0; i < sizeof map / sizeof *map; i++)
        if (map[i].cp == cp)
            return map[i].c;
    return '?';
}

static bool forbidden(uint32_t cp) {
    return cp < ' ' || (cp >= 127 && cp < 160) || (cp >= 0x202A && cp <= 0x202E) ||
           (cp >= 0x2066 && cp <= 0x2069) || cp == 0x2028 || cp == 0x2029;
}

/* One cluster of `cells` cells into the cell at (y, x). */
static void put_cluster(int y, int x, attr_t attrs, short pair, const char *s, size_t len,
                        int cells) {
    wchar_t wc[CCHARW_MAX + 1] = {0};
    int n = 0;
    bool utf8 = term_info()->utf8;
    for (size_t i = 0; i < len && n < CCHARW_MAX;) {
        uint32_t cp;
        i += utf8_decode(s + i, len - i, &cp);
        if (n == 0) {
            int w = forbidden(cp) ? -1 : wcwidth((wchar_t)cp);
            if (!utf8)
                wc[n++] = ascii_for(cp);
            else if (w == 0)
                wc[n++] = ' ', wc[n++] = (wchar_t)cp;
            else
                wc[n++] = w < 0 || w > cells ? 0xFFFD : (wchar_t)cp;
            continue;
        }
        if (!utf8 || cp == 0x200D) /* the rest of a joined sequence */
            break;
        if (forbidden(cp) || (cp == 0xFE0F && wcwidth(wc[0]) < cells))
            continue;
        if (wcwidth((wchar_t)cp) == 0 ||
            utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_MC)
            wc[n++] = (wchar_t)cp;
    }
    cchar_t cc;
    wchar_t first[2] = {wc[0], 0};
    if (setcchar(&cc, first, attrs, pair, NULL) != OK)
        return;
    for (int i = 1; i < n; i++)
        cc.chars[i] = wc[i];
    mvadd_wch(y, x, &cc);
    if (wc[0] != 0 && wcwidth(wc[0]) < cells) { /* a blank for the second cell */
        setcchar(&cc, L" ", attrs, pair, NULL);
        mvadd_wch(y, x + 1, &cc);
    }
}

/* A flag is two letters of one cell each: every terminal shows at least these. */
static bool is_flag(const char *s, size_t len) {
    uint32_t a, b;
    size_t n = utf8_decode(s, len, &a);
    return n < len && utf8_decode(s + n, len - n, &b) + n == len && a >= 0x1F1E6 &&
           a <= 0x1F1FF && b >= 0x1F1E6 && b <= 0x1F1FF && wcwidth((wchar_t)a) == 1;
}

int screen_textn(int y, int x, int w, uint16_t style, const char *text, size_t len) {
    if (y < 0 || y >= LINES || x < 0 || w <= 0)
        return 0;
    unsigned long attrs;
    short pair;
    theme_look(style, &attrs, &pair);
    int limit = x + w < COLS ? w : COLS - x, used = 0;
    for (size_t i = 0; i < len;) {
        int cells;
        size_t n = utf8_cluster(text + i, len - i, &cells);
        uint32_t cp;
        utf8_decode(text + i, n, &cp);
        if (forbidden(cp))
            cells = 1;
        if (used + cells > limit)
            break;
        if (cells == 2 && is_flag(text + i, n)) {
            put_cluster(y, x + used, attrs, pair, text + i, n / 2, 1);
            put_cluster(y, x + used + 1, attrs, pair, text + i + n / 2, n / 2, 1);
        } else if (cells > 0) {
            put_cluster(y, x + used, attrs, pair, text + i, n, cells);
        }
        used += cells;
        i += n;
    }
    return used;
}

int screen_text(int y, int x, int w, uint16_t style, const char *text) {
    return screen_textn(y, x, w, style, text, strlen(text));
}

int screen_text_cut(int y, int x, int w, uint16_t style, const char *text) {
    size_t len = strlen(text), cells;
    if (w < 2 || utf8_cells(text, len) <= (size_t)w)
        return screen_textn(y, x, w, style, text, len);
    size_t n = utf8_fit(text, len, (size_t)w - 1, &cells);
    screen_textn(y, x, w - 1, style, text, n);
    return (int)cells + screen_text(y, x + (int)cells, 1, style, "…");
}

void screen_text_right(int y, int x, int w, uint16_t style, const char *text) {
    size_t cells;
    size_t n = utf8_fit(text, strlen(text), w > 0 ? (size_t)w : 0, &cells);
    screen_textn(y, x + w - (int)cells, (int)cells, style, text, n);
}

void screen_drawn(int y, int x, int w, const struct drawn *d) {
    int at = 0;
    for (size_t i = 0; i < d->n && at < w; i++) {
        const struct drawn_run *r = &d->run[i];
        screen_textn(y, x + at, w - at, r->style, d->text.p + r->off, r->len);
        at += r->cells;
    }
}

void screen_hline(int y, int x, int n, uint16_t style, const char *glyph) {
    for (int i = 0; i < n; i++)
        screen_text(y, x + i, 1, style, glyph);
}

void screen_fill(struct rect r, uint16_t style) {
    for (int y = r.y; y < r.y + r.h; y++)
        screen_hline(y, r.x, r.w, style, " ");
}

void screen_box(struct rect r, uint16_t frame, uint16_t inside, const char *title,
                uint16_t title_style) {
    if (r.h < 2 || r.w < 2)
        return;
    screen_fill(r, inside);
    for (int i = 0; i < 2; i++) {
        int y = i ? r.y + r.h - 1 : r.y;
        screen_hline(y, r.x + 1, r.w - 2, frame, "─");
        screen_text(y, r.x, 1, frame, i ? "└" : "┌");
        screen_text(y, r.x + r.w - 1, 1, frame, i ? "┘" : "┐");
    }
    for (int y = r.y + 1; y < r.y + r.h - 1; y++) {
        screen_text(y, r.x, 1, frame, "│");
        screen_text(y, r.x + r.w - 1, 1, frame, "│");
    }
    if (title && *title && r.w > 6) {
        int n = screen_text(r.y, r.x + 2, r.w - 5, title_style, title);
        screen_text(r.y, r.x + 1, 1, frame, " ");
        screen_text(r.y, r.x + 2 + n, 1, frame, " ");
    }
}

void screen_cursor(int y, int x) {
    screen.cursor = y >= 0 && y < LINES && x >= 0 && x < COLS;
    screen.cursor_y = y;
    screen.cursor_x = x;
}

void screen_show(void) {
    curs_set(screen.cursor ? 1 : 0);
    if (screen.cursor)
        move(screen.cursor_y, screen.cursor_x);
    refresh();
}

void screen_repaint(void) {
    clearok(curscr, TRUE);
}
