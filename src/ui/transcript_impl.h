/*
 * transcript_impl.h - shared by transcript.c (messages, place, moving), transcript_draw.c
 * (rows), transcript_find.c (search) and transcript_mark.c (selection and copying). Nobody else
 * includes it.
 *
 * A message's rows, from its top: a blank one before a user's turn, the label's own row on
 * narrow screens, its lines (at least one), and one for the footer. `row` in this code counts
 * from there.
 */
#ifndef LLMCHAT_UI_TRANSCRIPT_IMPL_H
#define LLMCHAT_UI_TRANSCRIPT_IMPL_H

#include "ui/layout.h"
#include "ui/transcript.h"

#define TR_LABEL  8  /* cells of the label column */
#define TR_NARROW 36 /* below this width the label has a row of its own */

struct tr_range { /* bytes of a message's source */
    uint32_t from, to;
};

struct tr_msg {
    int64_t id;
    enum tr_role role;
    struct layout *l;
    bool streaming, footer_error;
    char *footer; /* never NULL */
    int sibling, n_sibling;
    bool laid_out; /* its lines are cached */
    uint64_t used; /* when they were used last */
    size_t height; /* at height_width; an estimate above and below the view */
    int height_width;
    struct tr_range *match;
    size_t n_match, cap_match;
    uint64_t scanned_for; /* number of the query that the matches are for */
    size_t scanned_len;
};

struct tr_pos { /* a place in the source of a message */
    int64_t id;
    uint32_t from, to; /* the character there */
};

struct tr_cell { /* one row of the view */
    size_t msg, row;
};

struct transcript {
    struct tr_msg *v;
    size_t n, cap;
    bool markdown;
    int rows, width;
    size_t n_laid_out;
    uint64_t clock;

    bool follow;         /* the view stands at the tail */
    bool fresh_below;    /* text came since it left the tail */
    size_t top, top_row; /* anchor, when not following */
    bool top_is_line;    /* it is a line that shows source byte top_src */
    uint32_t top_src;
    bool moved;           /* the view's rows must be found again */
    struct tr_cell *view; /* [rows] */
    size_t n_view;

    int64_t selected;
    char *query;       /* as typed; "" none */
    struct buf folded; /* as it is compared */
    bool fold_marks;   /* the query has no Markdown marks: those of the text are skipped */
    uint64_t query_no;
    bool found; /* the match now stood on: */
    int64_t found_id;
    uint32_t found_at;

    bool marking;
    struct tr_pos mark_a, mark_b;
};

/* transcript.c */
size_t tr_index(const struct transcript *t, int64_t id); /* t->n: no such id */
size_t tr_before(const struct transcript *t, size_t i);  /* rows before its first line */
bool tr_narrow(const struct transcript *t);
int tr_text_width(const struct transcript *t);
struct layout *tr_layout(struct transcript *t, size_t i); /* with lines at the present width */
size_t tr_height(struct transcript *t, size_t i);
void tr_find_view(struct transcript *t); /* fills view */
void tr_set_top(struct transcript *t, size_t msg, size_t row);
void tr_show_row(struct transcript *t, size_t msg,
                 size_t row); /* scrolls only when it isn't seen */
/* Cells of "◂ 2/3 ▸" (0: none) and whether it stands in the first line's row (else in the
 * footer's). */
int tr_branch(struct transcript *t, size_t i, char out[48], bool *in_first);
bool tr_has_footer(struct transcript *t, size_t i);

/* transcript_find.c */
void tr_scan(struct transcript *t, struct tr_msg *m); /* matches of the query in one message */

/* transcript_mark.c */
/* The marked part of message i; false: none of it. */
bool tr_marked_range(const struct transcript *t, size_t i, struct tr_range *out);

#endif
