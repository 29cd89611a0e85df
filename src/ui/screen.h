/*
 * screen.h - drawing: text, lines and boxes at places on the screen, in styles.
 *
 * Everything is clipped to the screen and to the width given. Whatever text comes in, no
 * control character and no cluster wider than its place reaches the terminal: this is the last
 * step, and it does not trust the ones before. Drawing changes memory only; screen_show() sends
 * the difference to the terminal.
 */
#ifndef LLMCHAT_UI_SCREEN_H
#define LLMCHAT_UI_SCREEN_H

#include "chat/config.h"
#include "ui/style.h"
#include <stdbool.h>

/* The interface's own kinds of text, after those of style.h. */
enum {
    UI_BAR = STYLE_KIND_N, /* menu bar */
    UI_BAR_KEY,            /* the letter that opens a menu */
    UI_BAR_OPEN,           /* the open menu's name */
    UI_FRAME,              /* lines between the panes */
    UI_FRAME_FOCUS,        /* the same around the pane that has the keys */
    UI_STATUS,
    UI_STATUS_GOOD,
    UI_STATUS_WARN,
    UI_STATUS_BUSY,
    UI_TOAST,
    UI_PROMPT,       /* the > before the input */
    UI_LIST_HEAD,    /* Today, Yesterday */
    UI_LIST_CURRENT, /* the conversation that is open */
    UI_CURSOR,       /* the line that Enter would take */
    UI_DIALOG,       /* dialogs and menus */
    UI_DIALOG_FRAME,
    UI_DIALOG_TITLE,
    UI_DIALOG_KEY, /* key names on the right */
    UI_DIALOG_OFF, /* what can't be chosen now */
    UI_FIELD,      /* where text is typed */
    UI_FOUND,      /* letters that the filter matched */
    UI_KIND_N
};

struct rect {
    int y, x, h, w;
};
static inline bool rect_has(struct rect r, int y, int x) {
    return y >= r.y && y < r.y + r.h && x >= r.x && x < r.x + r.w;
}

/* Sets the colours: theme AUTO follows what term.h knows of the background. */
void screen_theme(enum theme theme);
/* curses attributes and colour pair of a style. */
void theme_look(uint16_t style, unsigned long *attrs, short *pair);

int screen_rows(void);
int screen_cols(void);
void screen_clear(void);
/* Text in at most w cells; returns the cells used. */
int screen_text(int y, int x, int w, uint16_t style, const char *text);
int screen_textn(int y, int x, int w, uint16_t style, const char *text, size_t len);
/* The same; what does not fit ends in "…". */
int screen_text_cut(int y, int x, int w, uint16_t style, const char *text);
/* The same with the end at column x + w. */
void screen_text_right(int y, int x, int w, uint16_t style, const char *text);
void screen_drawn(int y, int x, int w, const struct drawn *d);
void screen_fill(struct rect r, uint16_t style);
/* n cells of one character. */
void screen_hline(int y, int x, int n, uint16_t style, const char *glyph);
/* A frame with its inside cleared. title may be NULL. */
void screen_box(struct rect r, uint16_t frame, uint16_t inside, const char *title,
                uint16_t title_style);
/* Where the cursor is shown; the last call before screen_show() counts, none hides it. */
void screen_cursor(int y, int x);
void screen_show(void);
/* Everything is sent again at the next screen_show(). */
void screen_repaint(void);

#endif
