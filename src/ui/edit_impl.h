/*
 * edit_impl.h - shared by edit.c (the buffer and its commands), edit_view.c (rows) and
 * edit_history.c. Nobody else includes it.
 */
#ifndef LLMCHAT_UI_EDIT_IMPL_H
#define LLMCHAT_UI_EDIT_IMPL_H

#include "ui/edit.h"
#include <stdint.h>

/* A paste in the text is one code point of the last private-use plane, PASTE_FIRST + its
 * number. Text from outside never holds one: they are mended on the way in. */
#define PASTE_FIRST 0x100000u
#define PASTE_MAX   4096u
#define PASTE_LEN   4 /* bytes of such a code point */

#define EDIT_KILLS 32

enum edit_last { LAST_OTHER, LAST_TYPE, LAST_KILL, LAST_YANK };

struct edit_snap {
    char *text;
    size_t len, cur;
};

struct edit_snaps {
    struct edit_snap *v;
    size_t n, cap, bytes;
};

struct edit_row { /* bytes [a, b) of the text; soft: the line goes on in the next row */
    size_t a, b;
    bool soft;
};

struct edit {
    struct buf text;
    size_t cur, mark;
    bool has_mark;
    unsigned version;
    char **paste;
    size_t n_paste;

    struct edit_snaps undo, redo;
    enum edit_last last;

    char *kill[EDIT_KILLS]; /* a ring; the newest is kill[kill_at] */
    int kill_at, n_kill;
    int yank_i; /* what was yanked last, counted back from the newest */
    size_t yank_from;

    struct edit_row *row;
    size_t n_row, cap_row;
    unsigned row_version; /* the text that the rows are of */
    bool row_valid;
    int width, top;
    int goal; /* column that Up and Down aim at; -1: the cursor's */

    size_t history_pos; /* 0: the draft; 1: the newest entry */
    char *draft;
};

/* edit.c */
bool edit_is_paste(const char *s, size_t len, size_t *number);
size_t edit_next(const struct edit *e, size_t pos); /* end of the unit at pos */
/* Replaces everything as one change; text is in the buffer's form. */
void edit_replace_all(struct edit *e, const char *text, size_t len);
/* edit_view.c */
void edit_rows(struct edit *e);

#endif
