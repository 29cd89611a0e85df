/*
 * md.h - Markdown to a flat list of blocks, independent of any width: the first half of
 * layout.c.
 *
 * The text of all blocks is one buffer of safe text (no control characters, valid UTF-8, tabs
 * expanded; '\n' where a line of the text ends) with segments over it that carry a style and
 * the source bytes they show. Nesting is a tree of containers (quotes and list items) that
 * blocks point into.
 *
 * After a parse the document also says where later text can't reach back to: `border`, the
 * start of the last top-level block that is certain to be one, and `cut`, the last line of a
 * fenced code block that is still open.
 */
#ifndef LLMCHAT_UI_MD_H
#define LLMCHAT_UI_MD_H

#include "base/mem.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MDOC_MAX_DEPTH 10  /* containers deeper than this share the last one */
#define MDOC_MAX_COLS  128 /* a table with more columns is shown as its source */

enum mdoc_kind { MDOC_PARA, MDOC_CODE, MDOC_RULE, MDOC_TABLE };

struct mdoc_seg {
    uint32_t off, len;     /* in text */
    uint32_t src, src_len; /* in the source; src_len 0: added by us */
    uint16_t style;
    bool whole; /* stands for its source as a whole; else it is the source's bytes, or ours */
};

struct mdoc_cont {
    int parent;      /* index, -1: none */
    int depth;       /* 1: outermost */
    bool quote;      /* else a list item */
    char marker[24]; /* "• ", "12. ", "☐ " */
    int cells;       /* width of the marker or bar */
    bool shown;      /* for the layout: its marker has been drawn */
};

struct mdoc_span { /* a stretch of text with its segments */
    uint32_t text, text_end;
    uint32_t seg, seg_end;
};

struct mdoc_cell {
    struct mdoc_span span;
    char align; /* 'l' 'c' 'r' */
};

struct mdoc_block {
    enum mdoc_kind kind;
    int cont;     /* innermost container, -1: none */
    bool gap;     /* a blank line before it */
    bool resumed; /* code: goes on with a block whose first lines were laid out before */
    struct mdoc_span span;
    char lang[32]; /* code: the fence's info word, safe; "" none */
    bool fenced;
    uint32_t cell, n_cols, n_rows; /* table: cells row by row, the header first */
};

struct mdoc {
    struct buf text;
    struct mdoc_seg *seg;
    size_t n_seg, cap_seg;
    struct mdoc_cont *cont;
    size_t n_cont, cap_cont;
    struct mdoc_block *block;
    size_t n_block, cap_block;
    struct mdoc_cell *cell;
    size_t n_cell, cap_cell;

    bool has_border; /* everything before source byte `border` is final, as are the blocks
                        before border_block */
    uint32_t border;
    size_t border_block;
    bool has_cut; /* the last block is open code: its first cut_lines lines are final */
    uint32_t cut; /* source byte where the line after these starts */
    size_t cut_lines;
    uint32_t fence;     /* source byte of the opening fence's line */
    bool fence_resumed; /* it is the one that was given to the parse */
    int cut_state;      /* of the syntax at the cut */
};

/* {0} is an empty document; both functions replace what it holds. */
void mdoc_release(struct mdoc *d);
/* Parses src[0..len), whose first byte is byte `base` of the whole source. fence (may be NULL):
 * the text goes on inside a code block that this line (with its newline) opened, in syntax
 * state fence_state. What the parser's limits refuse is shown as plain text. */
void mdoc_parse(struct mdoc *d, const char *src, size_t len, uint32_t base, const char *fence,
                int fence_state);
/* The same for plain text: a paragraph with the text's own line ends; the border is the start
 * of the last line. */
void mdoc_plain(struct mdoc *d, const char *src, size_t len, uint32_t base);

#endif
