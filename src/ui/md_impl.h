/*
 * md_impl.h - shared by md.c (blocks and spans) and md_text.c (text into segments). Nobody else
 * includes it.
 */
#ifndef LLMCHAT_UI_MD_IMPL_H
#define LLMCHAT_UI_MD_IMPL_H

#include "ui/md.h"
#include <md4c.h>
#include <stdlib.h>

#define MAX_LISTS 32
#define MAX_LINKS 4
#define MAX_CELLS 100000
#define MAX_LEAD  64 /* bytes between a link's "](" and its address */

struct list {
    bool tight, ordered, used;
    unsigned next;
    char delimiter;
};

struct parse {
    struct mdoc *d;
    const char *in;
    size_t in_len, skip; /* in[0..skip) was put before the text, see add_before() */
    uint32_t base;
    size_t budget;     /* bytes of text that may come out */
    uint32_t last_src; /* end of the last source range */
    /* blocks */
    int depth;
    int cont, over; /* innermost container; how many more there are past the depth limit */
    struct list list[MAX_LISTS];
    int n_list;
    bool fresh, fresh_gap; /* the next block is the first of an item; a blank line before it */
    bool leaf, implicit, in_cell;
    uint16_t block_style;
    size_t code_lines, code_before; /* of the open code block; how many before its first text */
    size_t code_text;               /* where in `in` that is */
    bool code_seen;
    bool resumes; /* the text begins inside a code block */
    int fence_state;
    /* the top-level block that is open */
    MD_BLOCKTYPE top;
    size_t top_block;
    bool top_seen;
    /* spans */
    int em, strong, del, code, link;
    size_t link_text[MAX_LINKS];
    /* tabs: the column that text offset tab_at has in its line */
    size_t tab_at, tab_col;
};

/* Room for one more in a growing array. */
#define GROW(array, n, cap)                                                                    \
    do {                                                                                       \
        if ((n) == (cap)) {                                                                    \
            (cap) = (cap) ? 2 * (cap) : 16;                                                    \
            (array) = xreallocarray(array, cap, sizeof *(array));                              \
        }                                                                                      \
    } while (0)

/* Text without '\n' in the current block. add_text finds out where in the source it is;
 * add_text_at is told (known). */
void mdoc_add_seg(struct mdoc *d, const char *text, size_t len, uint32_t src, size_t src_len,
                  uint16_t style);
void mdoc_add_text(struct parse *p, const char *s, size_t len, uint16_t style);
void mdoc_add_text_at(struct parse *p, const char *s, size_t len, bool known, uint32_t src,
                      uint16_t style);
void mdoc_add_newline(struct parse *p);
void mdoc_add_entity(struct parse *p, const char *s, size_t len, uint16_t style);
/* Where s lies in the source; false: it is no part of it. */
bool mdoc_source_of(const struct parse *p, const char *s, size_t len, uint32_t *src);
/* Cuts the segments of a code block at the tokens of its lines. */
void mdoc_colour_code(struct parse *p, const struct mdoc_block *b);

#endif
