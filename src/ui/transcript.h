/*
 * transcript.h - the conversation on the screen: which rows are seen, which message is
 * selected, what is found or marked.
 *
 * Virtual: messages keep their texts, only those that are seen have lines (a bounded number is
 * cached). The place is an anchor (message, line): nothing that is laid out above or streams
 * below moves what is seen. The view follows the tail only while it stands at the tail; else
 * new text sets transcript_more_below().
 *
 *   you     How do tides work?                                          label column of 8
 * cells; below 36 cells of llmchat The Moon's gravity pulls …                       ◂ 2/3 ▸
 * width the label has a row of its own instead
 *
 * Rows are counted from the top of the view, columns from its left edge; the caller sets the
 * size first.
 */
#ifndef LLMCHAT_UI_TRANSCRIPT_H
#define LLMCHAT_UI_TRANSCRIPT_H

#include "base/mem.h"
#include "ui/style.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tr_role {
    TR_SYSTEM,
    TR_USER,
    TR_MODEL,
    TR_TOOL,
    TR_SUMMARY, /* by the model, of what it no longer sees */
    TR_NOTICE   /* of the program; label empty, shown muted */
};

/* What the caller tells of a message; strings are copied. */
struct tr_message {
    int64_t id; /* unique; 0 is allowed for one message that has no id yet (the system prompt:
                   -1) */
    enum tr_role role;
    const char *text;
    size_t len;
    bool streaming; /* more text comes */
    const char
        *footer; /* "stopped", "interrupted", …; NULL or "" none; shown muted below the text */
    bool footer_error;      /* the footer is an error */
    int sibling, n_sibling; /* branch i of n; n < 2: not shown */
};

struct transcript;

struct transcript *transcript_new(void);
void transcript_free(struct transcript *t); /* NULL is allowed */
/* Markdown for replies (users' messages are always plain). */
void transcript_set_markdown(struct transcript *t, bool on);
bool transcript_markdown(const struct transcript *t);
void transcript_set_size(struct transcript *t, int rows, int width);

/* -- the messages -- */
void transcript_clear(struct transcript *t); /* and to the tail */
/* Makes the transcript show exactly these, in order. Messages with the same id and role keep
 * their lines when their text is the same or longer; the place and the selected message are
 * kept where they still exist. */
void transcript_sync(struct transcript *t, const struct tr_message *v, size_t n);
/* Adds text to the end of a message that streams. False when there is no such id. */
bool transcript_append(struct transcript *t, int64_t id, const char *text, size_t len);
size_t transcript_n(const struct transcript *t);
/* The raw text of a message, NULL when there is no such id. */
const char *transcript_message_text(const struct transcript *t, int64_t id, size_t *len);

/* -- drawing -- */
/* Row `row` of the view into d (cleared first). */
void transcript_row(struct transcript *t, int row, struct drawn *d);
/* True when the last message's end is below the view and text has come since the view left the
 * tail. */
bool transcript_more_below(struct transcript *t);
bool transcript_at_tail(struct transcript *t);
/* Where the view is, for a scroll bar: estimated lines above, in, and below it. */
void transcript_extent(struct transcript *t, size_t *above, size_t *seen, size_t *below);

/* How many messages have lines now: for the test that only those near the view do. */
size_t transcript_n_laid_out(const struct transcript *t);

/* -- moving -- */
void transcript_scroll(struct transcript *t, int rows); /* down when positive */
void transcript_page(struct transcript *t,
                     int half_pages); /* 2: a page down, -1: half a page up */
void transcript_top(struct transcript *t);
void transcript_bottom(struct transcript *t); /* and follow the tail again */
/* Brings a message into view (its first line to the top when it isn't seen); false: no such id.
 */
bool transcript_show(struct transcript *t, int64_t id);

/* -- the selected message -- */
int64_t transcript_selected(const struct transcript *t);  /* 0: none */
bool transcript_select(struct transcript *t, int64_t id); /* 0: none; brings it into view */
/* The next (step 1) or previous (-1) message; from none: the last one seen. False at the ends.
 */
bool transcript_select_step(struct transcript *t, int step);
/* The message at a row of the view; 0: none. */
int64_t transcript_message_at(struct transcript *t, int row);
/* -1 or +1 when (row, col) hits the ◂ or ▸ of a message (its id in *id), else 0. */
int transcript_branch_at(struct transcript *t, int row, int col, int64_t *id);

/* -- search: case-insensitive, normalised (NFKD, case folded); a blank in the query matches any
 * run of blanks and line ends, and the marks * and ` of the text are skipped unless the query
 * has them -- */
/* Sets the query ("" or NULL ends the search), goes to the first match at or after the top of
 * the view. Number of messages with a match. */
size_t transcript_search(struct transcript *t, const char *query);
const char *transcript_query(const struct transcript *t); /* "" none */
/* To the next (1) or previous (-1) match, around the ends. False when there is none. */
bool transcript_search_step(struct transcript *t, int step);

/* -- selection of text, by cells of the view -- */
void transcript_mark_begin(struct transcript *t, int row, int col);
/* Moves the other end; a row outside the view scrolls by one. */
void transcript_mark_to(struct transcript *t, int row, int col);
/* The word, or the paragraph (source line), at a cell: double and triple click. */
void transcript_mark_word(struct transcript *t, int row, int col);
void transcript_mark_line(struct transcript *t, int row, int col);
void transcript_mark_clear(struct transcript *t);
bool transcript_marked(const struct transcript *t);
/* The raw text of the selection: no label column, no line breaks of the screen; texts of
 * different messages are separated by a blank line. The caller frees; "" when nothing is
 * marked. */
char *transcript_marked_text(struct transcript *t);
/* The n-th fenced code block (0-based) of a message counted from its end, for "copy code"; NULL
 * none. The caller frees. */
char *transcript_code_block(struct transcript *t, int64_t id, int n_from_end);

#endif
