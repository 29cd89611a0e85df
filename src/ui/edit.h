/*
 * edit.h - the input: a few lines of text, a cursor, and the keys people know from Emacs and
 * the shell.
 *
 * The buffer is valid UTF-8 and the cursor always stands on the border of a grapheme cluster.
 * Two views of the same text exist: the text itself, and its rows wrapped to a width, which the
 * screen draws and Up and Down move in. A long paste is one unit, drawn as `[pasted 42 lines]`,
 * that moves and is deleted as one character and opens up in edit_text().
 *
 * Every change can be undone; runs of typing are undone as one. Nothing here knows of keys or
 * screens.
 */
#ifndef LLMCHAT_UI_EDIT_H
#define LLMCHAT_UI_EDIT_H

#include "base/err.h"
#include "base/mem.h"
#include "ui/style.h"
#include <stdbool.h>

struct edit;

struct edit *edit_new(void);
void edit_free(struct edit *e); /* NULL is allowed */

/* The whole text with pastes opened up; the caller frees. This is what is sent, saved as a
 * draft, and edited outside. */
char *edit_text(const struct edit *e);
bool edit_empty(const struct edit *e);
/* A number that changes with every change of the text (to know when a draft must be saved). */
unsigned edit_version(const struct edit *e);
/* Replaces the text (invalid UTF-8 is mended), cursor at the end; can be undone. */
void edit_set(struct edit *e, const char *text);
/* As edit_set but begins anew: nothing to undo, no mark, the history position forgotten. For
 * another conversation. */
void edit_reset(struct edit *e, const char *text);

/* -- typing -- */
void edit_insert(struct edit *e, const char *text, size_t len);
/* Text from a bracketed paste: line ends become \n; more than PASTE_LINES lines or PASTE_BYTES
 * bytes make one unit. */
#define EDIT_PASTE_LINES 8
#define EDIT_PASTE_BYTES 1000
void edit_paste(struct edit *e, const char *text, size_t len);
/* Opens up the paste that the cursor stands at or behind; false when there is none. */
bool edit_paste_expand(struct edit *e);

/* -- commands without arguments, for the key table; each returns whether anything happened
 * (false: the screen may do something else with the key, history for Up on the first row) -- */
bool edit_left(struct edit *e);
bool edit_right(struct edit *e);
bool edit_word_left(struct edit *e);
bool edit_word_right(struct edit *e);
bool edit_line_start(struct edit *e); /* of the text's line */
bool edit_line_end(struct edit *e);
bool edit_start(struct edit *e);
bool edit_end(struct edit *e);
bool edit_up(struct edit *e); /* by rows of the last edit_layout(); false on the first */
bool edit_down(struct edit *e);
bool edit_backspace(struct edit *e);
bool edit_delete(struct edit *e);
bool edit_kill_word_left(struct edit *e);  /* Alt-Backspace: letters and digits */
bool edit_kill_blank_left(struct edit *e); /* Ctrl-W: to the blank before */
bool edit_kill_word_right(struct edit *e);
bool edit_kill_to_start(struct edit *e); /* Ctrl-U */
bool edit_kill_to_end(struct edit *e);   /* Ctrl-K; at the end of a line its newline */
bool edit_set_mark(struct edit *e);
bool edit_kill_region(struct edit *e);
bool edit_copy_region(struct edit *e);
bool edit_yank(struct edit *e);
bool edit_yank_pop(struct edit *e); /* after a yank: the kill before it instead */
bool edit_transpose(struct edit *e);
bool edit_transpose_words(struct edit *e);
bool edit_upcase_word(struct edit *e);
bool edit_downcase_word(struct edit *e);
bool edit_capitalize_word(struct edit *e);
bool edit_undo(struct edit *e);
bool edit_redo(struct edit *e);
bool edit_clear(struct edit *e); /* the whole text to the kill ring, so Ctrl-Y brings it back */

/* -- the view -- */
struct edit_view {
    int rows;             /* rows of the whole text at this width, at least 1 */
    int top, n;           /* the shown rows [top, top + n) */
    int cur_row, cur_col; /* cursor, row counted from top */
};
/* Wraps to width and scrolls so that the cursor is among at most max_rows rows. */
void edit_layout(struct edit *e, int width, int max_rows, struct edit_view *v);
/* Row i of the text (not counted from top) into d, which is cleared first. */
void edit_row(struct edit *e, int i, struct drawn *d);
/* Puts the cursor at a cell of the view (a mouse click). */
void edit_click(struct edit *e, int row, int col);

/* -- history of what was sent -- */
struct edit_history;
/* At most EDIT_HISTORY_MAX entries of at most EDIT_HISTORY_ENTRY bytes, one line each in a file
 * of mode 0600
 * ("\n" and "\\" escaped). path NULL: kept in memory only. A file that can't be read is an
 * error, the history is empty then and still usable. */
#define EDIT_HISTORY_MAX   500
#define EDIT_HISTORY_ENTRY (64 * 1024)
enum status edit_history_open(const char *path, struct edit_history **out, struct err *err);
void edit_history_free(struct edit_history *h);
/* Adds what was sent (blank texts and the same text twice in a row are left out) and writes the
 * file; entries that another process added meanwhile are kept. */
enum status edit_history_add(struct edit_history *h, const char *text, struct err *err);
size_t edit_history_len(const struct edit_history *h);
/* Steps through the history from the editor: the draft is kept and comes back behind the newest
 * entry. False at the ends. */
bool edit_history_prev(struct edit *e, struct edit_history *h);
bool edit_history_next(struct edit *e, struct edit_history *h);

#endif
