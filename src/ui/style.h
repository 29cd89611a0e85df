/*
 * style.h - what a run of drawn text is, apart from any terminal.
 *
 * Layout, editor and transcript say what a piece of text is (a heading, a link's URL, the
 * language keyword of a code block); the screen decides which colour and attribute that gets. A
 * style is one `uint16_t`: a kind in the low byte and flags above it, so that a link in bold in
 * a selection is one value.
 *
 * `struct drawn` is one row, ready to be put on the screen: safe text (no control characters,
 * valid UTF-8, tabs gone) and its runs from left to right without gaps.
 */
#ifndef LLMCHAT_UI_STYLE_H
#define LLMCHAT_UI_STYLE_H

#include "base/mem.h"
#include <stdint.h>

enum style_kind {
    STYLE_TEXT,
    STYLE_CODE,         /* inline code */
    STYLE_CODE_BLOCK,   /* code in a block: what has no class below */
    STYLE_CODE_KEYWORD, /* syntax classes of code blocks */
    STYLE_CODE_STRING,
    STYLE_CODE_COMMENT,
    STYLE_CODE_NUMBER,
    STYLE_CODE_FENCE, /* the line that opens or closes a block, with its language */
    STYLE_H1,         /* heading levels; STYLE_H1 + level - 1 */
    STYLE_H2,
    STYLE_H3,
    STYLE_H4,
    STYLE_H5,
    STYLE_H6,
    STYLE_QUOTE_BAR,
    STYLE_BULLET, /* list bullets, numbers, task boxes */
    STYLE_LINK,   /* a link's text */
    STYLE_URL,    /* a link's address */
    STYLE_TABLE_BORDER,
    STYLE_TABLE_HEAD,
    STYLE_RULE,
    STYLE_MUTED,     /* footers, marks of continued lines, hints */
    STYLE_ROLE_USER, /* the role labels */
    STYLE_ROLE_MODEL,
    STYLE_ROLE_SYSTEM,
    STYLE_BRANCH, /* ◂ 2/3 ▸ */
    STYLE_PASTE,  /* [pasted 42 lines] in the input */
    STYLE_ERROR,
    STYLE_KIND_N
};

#define STYLE_KIND(s)   ((enum style_kind)((s)&0xff))
#define STYLE_BOLD      0x0100u
#define STYLE_ITALIC    0x0200u
#define STYLE_STRIKE    0x0400u
#define STYLE_MATCH     0x0800u /* found by the search */
#define STYLE_MATCH_NOW 0x1000u /* the match that the search stands on */
#define STYLE_SELECTED  0x2000u /* inside the mouse or keyboard selection */
#define STYLE_CURRENT   0x4000u /* belongs to the selected message (its label) */

struct drawn_run {
    uint32_t off, len; /* bytes in drawn.text */
    uint16_t style;
    uint16_t cells;
};

struct drawn { /* {0} is an empty row; drawn_clear() keeps the storage for the next */
    struct buf text;
    struct drawn_run *run;
    size_t n, cap;
    int cells;
};
void drawn_clear(struct drawn *d);
void drawn_release(struct drawn *d);
/* Adds text that is already safe and cells wide; joins the run before it when the style is the
 * same. */
void drawn_add(struct drawn *d, uint16_t style, const char *text, size_t len, int cells);
/* Adds text from anywhere: made safe, measured, cut at max_cells (-1: no limit). */
void drawn_put(struct drawn *d, uint16_t style, const char *text, int max_cells);
/* Adds n blanks. */
void drawn_pad(struct drawn *d, uint16_t style, int n);

#endif
