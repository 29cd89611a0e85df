/*
 * theme.c - which colours and attributes a style gets: one table for dark and light, 256 and 16
 * colours.
 *
 * The terminal's own foreground and background are the base everywhere, so both kinds of
 * terminals stay readable; colours are added only where the table knows one that reads well on
 * that background. With eight colours the bright ones become bold. Without colours (NO_COLOR,
 * mono, old terminals) attributes carry the meaning: the last column.
 */
#include "ui/screen.h"
#include "ui/term.h"
#include <curses.h>

#define D (-1) /* the terminal's default */

struct look {
    int kind;
    short dark, dark16, light, light16; /* foreground: of 256, of 16 */
    short dark_bg, light_bg;            /* background, of 256 */
    attr_t attrs;                       /* with colours */
    attr_t mono; /* without, or where 16 colours have no background for it */
};

static const struct look looks[] = {
    {STYLE_TEXT, D, D, D, D, D, D, 0, 0},
    {STYLE_CODE, 180, 11, 130, 5, D, D, 0, A_BOLD},
    {STYLE_CODE_BLOCK, D, D, D, D, D, D, 0, 0},
    {STYLE_CODE_KEYWORD, 110, 12, 25, 4, D, D, 0, A_BOLD},
    {STYLE_CODE_STRING, 108, 10, 28, 2, D, D, 0, 0},
    {STYLE_CODE_COMMENT, 245, 8, 243, 8, D, D, 0, A_DIM},
    {STYLE_CODE_NUMBER, 173, 11, 130, 1, D, D, 0, 0},
    {STYLE_CODE_FENCE, 245, 8, 243, 8, D, D, 0, A_DIM},
    {STYLE_H1, 81, 14, 25, 4, D, D, A_BOLD | A_UNDERLINE, A_BOLD | A_UNDERLINE},
    {STYLE_H2, 81, 14, 25, 4, D, D, A_BOLD, A_BOLD},
    {STYLE_H3, 81, 14, 25, 4, D, D, A_BOLD, A_BOLD},
    {STYLE_H4, 81, 14, 25, 4, D, D, 0, A_UNDERLINE},
    {STYLE_H5, 81, 14, 25, 4, D, D, 0, A_UNDERLINE},
    {STYLE_H6, 81, 14, 25, 4, D, D, 0, A_UNDERLINE},
    {STYLE_QUOTE_BAR, 245, 8, 243, 8, D, D, 0, A_DIM},
    {STYLE_BULLET, 75, 14, 25, 4, D, D, 0, A_BOLD},
    {STYLE_LINK, 75, 12, 25, 4, D, D, A_UNDERLINE, A_UNDERLINE},
    {STYLE_URL, 245, 8, 243, 8, D, D, 0, A_DIM},
    {STYLE_TABLE_BORDER, 242, 8, 246, 8, D, D, 0, A_DIM},
    {STYLE_TABLE_HEAD, D, D, D, D, D, D, A_BOLD, A_BOLD},
    {STYLE_RULE, 242, 8, 246, 8, D, D, 0, A_DIM},
    {STYLE_MUTED, 245, 8, 243, 8, D, D, 0, A_DIM},
    {STYLE_ROLE_USER, 114, 10, 28, 2, D, D, A_BOLD, A_BOLD},
    {STYLE_ROLE_MODEL, 81, 14, 25, 4, D, D, A_BOLD, A_BOLD},
    {STYLE_ROLE_SYSTEM, 176, 13, 90, 5, D, D, A_BOLD, A_BOLD},
    {STYLE_BRANCH, 179, 11, 130, 5, D, D, 0, A_BOLD},
    {STYLE_PASTE, 16, D, 16, D, 180, 180, 0, A_REVERSE},
    {STYLE_ERROR, 203, 9, 160, 1, D, D, A_BOLD, A_BOLD},
    {UI_BAR, 252, D, 235, D, 237, 252, 0, A_REVERSE},
    {UI_BAR_KEY, 252, D, 235, D, 237, 252, A_UNDERLINE, A_REVERSE | A_UNDERLINE},
    {UI_BAR_OPEN, 16, D, 231, D, 75, 25, 0, A_BOLD},
    {UI_FRAME, 242, 8, 246, 8, D, D, 0, 0},
    {UI_FRAME_FOCUS, 75, 14, 25, 4, D, D, 0, A_BOLD},
    {UI_STATUS, 247, D, 241, D, D, D, 0, 0},
    {UI_STATUS_GOOD, 114, 10, 28, 2, D, D, 0, 0},
    {UI_STATUS_WARN, 203, 9, 160, 1, D, D, A_BOLD, A_BOLD},
    {UI_STATUS_BUSY, 179, 11, 130, 5, D, D, 0, A_BOLD},
    {UI_TOAST, 222, 11, 94, 5, D, D, A_BOLD, A_BOLD},
    {UI_PROMPT, 114, 10, 28, 2, D, D, A_BOLD, A_BOLD},
    {UI_LIST_HEAD, 245, 8, 243, 8, D, D, 0, A_DIM},
    {UI_LIST_CURRENT, 81, 14, 25, 4, D, D, A_BOLD, A_BOLD},
    {UI_CURSOR, 16, D, 231, D, 75, 25, 0, A_REVERSE},
    {UI_DIALOG, 252, D, 235, D, 236, 254, 0, 0},
    {UI_DIALOG_FRAME, 247, D, 241, D, 236, 254, 0, 0},
    {UI_DIALOG_TITLE, 81, 14, 25, 4, 236, 254, A_BOLD, A_BOLD},
    {UI_DIALOG_KEY, 247, 8, 241, 8, 236, 254, 0, A_DIM},
    {UI_DIALOG_OFF, 243, 8, 246, 8, 236, 254, 0, A_DIM},
    {UI_FIELD, 255, D, 232, D, 239, 250, 0, A_UNDERLINE},
    {UI_FOUND, 222, 11, 94, 5, 236, 254, A_BOLD, A_BOLD | A_UNDERLINE},
};

#define N_LOOKS        (sizeof looks / sizeof *looks)
#define PAIR_MATCH     (UI_KIND_N + 1)
#define PAIR_MATCH_NOW (UI_KIND_N + 2)

static struct {
    attr_t attrs[UI_KIND_N];
    short pair[UI_KIND_N];
    bool color;
} current;

static void set_look(const struct look *l, bool light) {
    current.attrs[l->kind] = l->mono;
    current.pair[l->kind] = 0;
    if (!current.color)
        return;
    bool many = COLORS >= 256;
    short fg = many ? (light ? l->light : l->dark) : (light ? l->light16 : l->dark16);
    short bg = many ? (light ? l->light_bg : l->dark_bg) : D;
    bool wants_bg = (light ? l->light_bg : l->dark_bg) != D;
    current.attrs[l->kind] = many || !wants_bg ? l->attrs : l->mono;
    if (!many && COLORS < 16 && fg >= 8) {
        current.attrs[l->kind] |= fg == 8 ? A_DIM : A_BOLD;
        fg = fg == 8 ? D : fg - 8;
    }
    if (fg == D && bg == D)
        return;
    short pair = (short)(l->kind + 1);
    if (pair < COLOR_PAIRS && init_pair(pair, fg, bg) == OK)
        current.pair[l->kind] = pair;
}

void screen_theme(enum theme theme) {
    const struct term_info *t = term_info();
    bool light = theme == THEME_LIGHT || (theme == THEME_AUTO && t->light);
    current.color = t->colors >= 8 && theme != THEME_MONO;
    for (size_t i = 0; i < N_LOOKS; i++)
        set_look(&looks[i], light);
    if (current.color && PAIR_MATCH_NOW < COLOR_PAIRS) {
        init_pair(PAIR_MATCH, COLOR_BLACK, COLOR_YELLOW);
        init_pair(PAIR_MATCH_NOW, COLOR_BLACK, COLOR_CYAN);
    }
    screen_repaint();
}

void theme_look(uint16_t style, unsigned long *attrs, short *pair) {
    int kind = style & 0xff;
    if (kind >= UI_KIND_N)
        kind = STYLE_TEXT;
    attr_t a = current.attrs[kind];
    short p = current.pair[kind];
    bool match_pairs = current.color && PAIR_MATCH_NOW < COLOR_PAIRS;
    if (style & STYLE_BOLD)
        a |= A_BOLD;
    if (style & STYLE_ITALIC)
        a |= A_ITALIC;
    if (style & STYLE_STRIKE)
        a |= A_DIM; /* curses knows no line through */
    if (style & (STYLE_MATCH | STYLE_MATCH_NOW)) {
        if (match_pairs)
            p = style & STYLE_MATCH_NOW ? PAIR_MATCH_NOW : PAIR_MATCH;
        else
            a |= A_REVERSE | (style & STYLE_MATCH_NOW ? A_BOLD : 0);
    }
    if (style & (STYLE_SELECTED | STYLE_CURRENT))
        a ^= A_REVERSE;
    *attrs = a;
    *pair = p;
}
