/*
 * layout_impl.h - shared by layout.c (the text and what of it is laid out), layout_block.c
 * (blocks to lines) and layout_table.c. Nobody else includes it.
 */
#ifndef LLMCHAT_UI_LAYOUT_IMPL_H
#define LLMCHAT_UI_LAYOUT_IMPL_H

#include "ui/layout.h"
#include "ui/md.h"

struct layout_mark { /* how much there is of everything: a place to cut back to */
    size_t lines, runs, text;
};

struct layout {
    struct buf src;
    bool markdown, finished, too_long, dirty;
    int width;

    struct buf text; /* of the runs */
    struct layout_run *run;
    size_t n_run, cap_run;
    struct layout_line *line;
    size_t n_line, cap_line;
    uint32_t last_src; /* end of the source shown so far: where lines without source stand */

    size_t frozen_src; /* source bytes whose lines are final */
    struct layout_mark frozen;
    uint32_t frozen_last;
    char *fence; /* the frozen part ends inside the code block that this line opened; NULL: it
                    doesn't */
    int fence_state;

    size_t parsed_to; /* source bytes that the lines before `parsed` show */
    struct layout_mark parsed;
    uint32_t parsed_last;
    size_t parsed_bytes;
    struct mdoc doc; /* storage for parses */
};

struct layout_row { /* of a wrapped stretch of text: bytes [a, b) of mdoc.text */
    uint32_t a, b;
    uint32_t cells;
    bool cont;
};
struct layout_rows {
    struct layout_row *v;
    size_t n, cap;
};

/* Wraps bytes [from, to) of text; '\n' ends a row. The rows of one line after the first get
 * rest cells. words: break between words and beside wide characters, else anywhere. Rows are
 * added to out. */
void layout_wrap(const char *text, uint32_t from, uint32_t to, int first, int rest, bool words,
                 struct layout_rows *out);

/* Lines of blocks [from, to) of l->doc. stop_lines > 0: of the last block only the first so
 * many lines of its text. The next call goes on with skip_lines of them left out. */
struct layout_mark layout_mark(const struct layout *l);
void layout_blocks(struct layout *l, size_t from, size_t to, size_t cut_lines,
                   struct layout_mark *at_cut, uint32_t *last_at_cut);

/* For layout_table.c: a new line (with the block's bullets and bars), text without source,
 * blanks, and the part [a, b) of the document's text, whose segments are searched from *seg on.
 */
void layout_new_line(struct layout *l, const struct mdoc_block *b, bool cont);
void layout_add(struct layout *l, uint16_t style, const char *text, int cells);
void layout_pad(struct layout *l, uint16_t style, int n);
void layout_add_row(struct layout *l, const struct layout_row *row, uint32_t *seg);
int layout_avail(const struct layout *l, const struct mdoc_block *b);
void layout_table(struct layout *l, const struct mdoc_block *b);

#endif
