/*
 * layout.h - a text, Markdown or plain, as lines of styled runs for a given width.
 *
 * A struct layout owns its source text and grows at the end (a streamed reply). Lines are made
 * when they are asked for. Top-level Markdown blocks that no later text can change are frozen:
 * they are parsed and laid out once per width; an append costs work in the size of the
 * unfinished tail only, and where that tail is itself large (one list of 100 KB) it is parsed
 * again only each time it has grown by a sixteenth, with the newest text shown plain meanwhile.
 * layout_finish() says that no more text comes; after it the lines depend on the text and the
 * width alone, not on how the text came.
 *
 * Every run knows the bytes of the source that it shows, so a range of the screen can be copied
 * as raw text and a match in the source found on the screen. Decoration (bullets, borders,
 * quote bars) has no source.
 *
 * Bounds: whatever the input is (10,000 '>' deep, lines of a megabyte, thousands of table
 * columns) time is linear in its size and so is memory; what goes past a limit is shown as
 * plain text. Texts above LAYOUT_MAX_BYTES are cut, with a line that says so.
 */
#ifndef LLMCHAT_UI_LAYOUT_H
#define LLMCHAT_UI_LAYOUT_H

#include "base/mem.h"
#include "ui/style.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LAYOUT_MAX_BYTES ((size_t)64 << 20)
#define LAYOUT_MIN_WIDTH 8 /* a smaller width is taken as this */

struct layout_run {
    uint32_t off, len;     /* bytes of its safe text, see layout_text() */
    uint32_t src, src_len; /* bytes of the source it shows; src_len 0: decoration */
    uint16_t style;
    uint16_t cells;
    bool whole; /* stands for its source as a whole (a tab, an entity, a mended character); else
                 * its text is the source's, byte for byte */
};

struct layout_line {
    uint32_t run, n_run; /* its runs, see layout_run() */
    uint32_t src,
        src_end; /* the range of the source it shows; empty for blank and rule lines */
    uint16_t cells;
    bool cont; /* goes on with the line before: the break is the screen's, not the text's */
    bool decoration; /* no source at all (blank line between blocks, fence, border) */
};

struct layout;

struct layout *layout_new(bool markdown);
void layout_free(struct layout *l); /* NULL is allowed */
void layout_append(struct layout *l, const char *text, size_t len);
void layout_finish(struct layout *l);
/* The source text so far, as it came; valid until the next append. */
const char *layout_source(const struct layout *l, size_t *len);
/* Sets the width in cells; lines of another width are dropped and made again when asked for. */
void layout_set_width(struct layout *l, int width);
int layout_width(const struct layout *l);

/* Lines at the present width; the pointers live until the next append, finish or set_width. */
size_t layout_n_lines(struct layout *l);
const struct layout_line *layout_line(struct layout *l, size_t i);
const struct layout_run *layout_runs(struct layout *l, const struct layout_line *line);
const char *layout_text(struct layout *l, const struct layout_run *run);

/* The line that shows source byte pos (the last one that starts at or before it). */
size_t layout_line_at(struct layout *l, size_t pos);
/* The source bytes [*start, *end) of the character at column col of line i. Left of the text:
 * the beginning of the line (of the source's line when the screen line starts one); right of
 * it: an empty range at the line's end. */
void layout_pos(struct layout *l, size_t i, int col, size_t *start, size_t *end);

/* Frees the lines (not the text); they are made again when asked for. */
void layout_drop(struct layout *l);

/* How many source bytes were given to the Markdown parser since layout_new(), and how many
 * lines are frozen: for the tests of the promise above. */
size_t layout_parsed_bytes(const struct layout *l);
size_t layout_frozen_lines(struct layout *l);

#endif
