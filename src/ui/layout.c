/*
 * layout.c - see layout.h: the text that grows, and which of its lines are final.
 *
 * The lines are one array in three parts: frozen lines (of source [0, frozen_src)), lines of
 * the tail as it was parsed last (up to parsed_to), and, when the tail is large and hasn't
 * grown enough to be parsed again, the newest text as plain lines. An update cuts the array
 * back to one of the two marks and goes on from there.
 *
 * Another width drops everything: the source is parsed again from its start when a line is
 * asked for. Keeping parsed blocks for that was rejected, they take several times the memory of
 * the text and a width changes seldom.
 */
#include "ui/layout.h"
#include "base/utf8.h"
#include "ui/layout_impl.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define LARGE_TAIL ((size_t)32 << 10) /* from here on a tail isn't parsed for every token */
#define GROWTH     16                 /* but when it has grown by a 16th */
#define MAX_FENCE  256

struct layout *layout_new(bool markdown) {
    struct layout *l = xcalloc(1, sizeof *l);
    l->markdown = markdown;
    l->width = 80;
    l->dirty = true;
    return l;
}

void layout_free(struct layout *l) {
    if (!l)
        return;
    buf_release(&l->src);
    buf_release(&l->text);
    free(l->run);
    free(l->line);
    free(l->fence);
    mdoc_release(&l->doc);
    free(l);
}

static void cut_back(struct layout *l, struct layout_mark m, uint32_t last_src) {
    l->n_line = m.lines;
    l->n_run = m.runs;
    if (l->text.len > m.text)
        buf_cut(&l->text, m.text);
    l->last_src = last_src;
}

static void drop_lines(struct layout *l) {
    l->frozen = l->parsed = (struct layout_mark){0};
    l->frozen_src = l->parsed_to = 0;
    l->frozen_last = l->parsed_last = 0;
    cut_back(l, l->frozen, 0);
    free(l->fence);
    l->fence = NULL;
    l->fence_state = 0;
    l->dirty = true;
}

void layout_append(struct layout *l, const char *text, size_t len) {
    size_t room = LAYOUT_MAX_BYTES - l->src.len;
    if (len > room) {
        len = room;
        l->too_long = true;
    }
    buf_add(&l->src, text, len);
    l->finished = false;
    l->dirty = true;
}

void layout_drop(struct layout *l) {
    drop_lines(l);
    buf_release(&l->text);
    free(l->run);
    free(l->line);
    l->run = NULL;
    l->line = NULL;
    l->cap_run = l->cap_line = 0;
    mdoc_release(&l->doc);
}

/* Might the text hold link definitions, "[name]: address"? They reach back over borders. That
 * "x[1]: y" in code looks the same costs one more parse of the text, once. */
static bool may_define_links(const struct buf *src) {
    return src->len > 0 && memmem(src->p, src->len, "]:", 2) != NULL;
}

void layout_finish(struct layout *l) {
    if (l->finished)
        return;
    l->finished = true;
    l->dirty = true;
    if (l->markdown && l->frozen_src > 0 && may_define_links(&l->src))
        drop_lines(l);
}

const char *layout_source(const struct layout *l, size_t *len) {
    *len = l->src.len;
    return buf_str(&l->src);
}

void layout_set_width(struct layout *l, int width) {
    width = width < LAYOUT_MIN_WIDTH ? LAYOUT_MIN_WIDTH : width > 4096 ? 4096 : width;
    if (width == l->width)
        return;
    l->width = width;
    drop_lines(l);
}

int layout_width(const struct layout *l) {
    return l->width;
}

/* The fence line at source byte `at` as a string with a newline; NULL: not one to keep. */
static char *fence_at(const struct layout *l, size_t at) {
    size_t n = 0;
    while (at + n < l->src.len && l->src.p[at + n] != '\n' && l->src.p[at + n] != '\r')
        n++;
    if (n > MAX_FENCE || memchr(l->src.p + at, 0, n))
        return NULL;
    return xasprintf("%.*s\n", (int)n, l->src.p + at);
}

static void freeze(struct layout *l, size_t src, struct layout_mark m, uint32_t last_src) {
    l->frozen_src = src;
    l->frozen = m;
    l->frozen_last = last_src;
}

/* Lines up to what the document calls final are frozen. */
static void lay_out_tail(struct layout *l) {
    const struct mdoc *d = &l->doc;
    struct layout_mark m = {0};
    uint32_t last = 0;
    size_t first = d->has_border ? d->border_block : 0;
    layout_blocks(l, 0, first, 0, &m, &last);
    if (d->has_border)
        freeze(l, d->border, layout_mark(l), l->last_src);
    bool cut = d->has_cut;
    char *fence = NULL;
    if (cut && l->markdown && !d->fence_resumed) {
        fence = fence_at(l, d->fence);
        cut = fence != NULL;
    }
    layout_blocks(l, first, d->n_block, cut ? d->cut_lines : 0, &m, &last);
    if (cut) {
        freeze(l, d->cut, m, last);
        l->fence_state = d->cut_state;
    }
    if (fence || (d->has_border && !(cut && d->fence_resumed))) {
        free(l->fence);
        l->fence = fence;
    }
}

/* Parses [frozen_src, end) and lays it out. */
static void parse_tail(struct layout *l) {
    size_t from = l->frozen_src, len = l->src.len - from;
    cut_back(l, l->frozen, l->frozen_last);
    if (l->markdown)
        mdoc_parse(&l->doc, buf_str(&l->src) + from, len, (uint32_t)from, l->fence,
                   l->fence_state);
    else
        mdoc_plain(&l->doc, buf_str(&l->src) + from, len, (uint32_t)from);
    l->parsed_bytes += len;
    lay_out_tail(l);
    l->parsed_to = l->src.len;
    l->parsed = layout_mark(l);
    l->parsed_last = l->last_src;
}

/* The newest text behind a large tail, as plain lines. */
static void plain_rest(struct layout *l) {
    struct layout_mark m;
    uint32_t last;
    cut_back(l, l->parsed, l->parsed_last);
    mdoc_plain(&l->doc, l->src.p + l->parsed_to, l->src.len - l->parsed_to,
               (uint32_t)l->parsed_to);
    layout_blocks(l, 0, l->doc.n_block, 0, &m, &last);
}

static void note_too_long(struct layout *l) {
    static const char note[] = "[the rest of this text is too long to be shown]";
    const struct mdoc_block plain = {.cont = -1};
    size_t cells, n = utf8_fit(note, strlen(note), (size_t)l->width, &cells);
    char *text = xstrndup(note, n);
    layout_new_line(l, &plain, false);
    layout_add(l, STYLE_MUTED, text, (int)cells);
    free(text);
}

static void update(struct layout *l) {
    if (!l->dirty)
        return;
    l->dirty = false;
    size_t tail = l->parsed_to - l->frozen_src, fresh = l->src.len - l->parsed_to;
    if (!l->finished && l->parsed_to > l->frozen_src && tail > LARGE_TAIL &&
        fresh < tail / GROWTH)
        plain_rest(l);
    else
        parse_tail(l);
    if (l->too_long)
        note_too_long(l);
}

size_t layout_n_lines(struct layout *l) {
    update(l);
    return l->n_line;
}

const struct layout_line *layout_line(struct layout *l, size_t i) {
    update(l);
    assert(i < l->n_line);
    return &l->line[i];
}

const struct layout_run *layout_runs(struct layout *l, const struct layout_line *line) {
    return l->run + line->run;
}

const char *layout_text(struct layout *l, const struct layout_run *run) {
    return l->text.p + run->off;
}

size_t layout_line_at(struct layout *l, size_t pos) {
    update(l);
    size_t lo = 0, hi = l->n_line;
    while (lo < hi) { /* the first line that starts behind pos */
        size_t mid = (lo + hi) / 2;
        if (l->line[mid].src <= pos)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo > 0 ? lo - 1 : 0;
}

/* The character at column col of a run that starts at column 0. */
static void pos_in_run(struct layout *l, const struct layout_run *r, int col, size_t *start,
                       size_t *end) {
    *start = r->src;
    *end = r->src + r->src_len;
    if (r->whole)
        return;
    const char *p = layout_text(l, r);
    size_t at = 0;
    int cells = 0;
    while (at < r->len) {
        int w;
        size_t n = utf8_cluster(p + at, r->len - at, &w);
        if (col < cells + w || at + n >= r->len) {
            *start = r->src + at;
            *end = r->src + at + n;
            return;
        }
        cells += w;
        at += n;
    }
}

static size_t source_line_start(const struct layout *l, size_t pos) {
    while (pos > 0 && l->src.p[pos - 1] != '\n')
        pos--;
    return pos;
}

void layout_pos(struct layout *l, size_t i, int col, size_t *start, size_t *end) {
    const struct layout_line *line = layout_line(l, i);
    const struct layout_run *r = layout_runs(l, line);
    int at = 0;
    size_t behind = line->src_end; /* where the position is when no text follows */
    bool seen = false;
    for (uint32_t k = 0; k < line->n_run; at += r[k].cells, k++) {
        if (r[k].src_len == 0)
            continue;
        if (col < at) { /* in decoration, before this run */
            *start = *end = seen         ? behind
                            : line->cont ? r[k].src
                                         : source_line_start(l, r[k].src);
            return;
        }
        seen = true;
        if (col < at + r[k].cells) {
            pos_in_run(l, &r[k], col - at, start, end);
            return;
        }
        behind = r[k].src + r[k].src_len;
    }
    *start = *end = seen ? behind : line->src;
}

size_t layout_parsed_bytes(const struct layout *l) {
    return l->parsed_bytes;
}

size_t layout_frozen_lines(struct layout *l) {
    update(l);
    return l->frozen.lines;
}
