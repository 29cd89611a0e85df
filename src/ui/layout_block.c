/*
 * layout_block.c - blocks of an mdoc to lines of runs.
 *
 * A stretch of text is first wrapped into rows (byte ranges), then each row is written as runs
 * along the segments that it crosses. Bullets and quote bars come from the chain of containers:
 * an item's bullet is drawn once, on the first line of its first block, blanks stand below it.
 * Where the chain takes more than half of the width its outer part is left out.
 *
 * Long lines of code are wrapped anywhere, with a mark in front of the rows that go on, and
 * copy as one line.
 */
#include "base/utf8.h"
#include "ui/layout_impl.h"
#include <stdlib.h>
#include <string.h>

#define ROW_MAX_BYTES 4096 /* a row of nothing but combining marks ends here */
#define CLUSTER_BYTES                                                                          \
    64 /* more marks than this on one character are a character of their own */
#define MIN_AVAIL       4 /* cells that containers leave to the text at least */
#define CONT_MARK       "↪ "
#define CONT_MARK_CELLS 2

/* -- wrapping -- */

static uint32_t cluster(const char *s, size_t len, int *cells) {
    unsigned char c = (unsigned char)s[0];
    if (c >= 0x20 && c < 0x7f && (len == 1 || (unsigned char)s[1] < 0x80)) {
        *cells = 1;
        return 1;
    }
    if (len > CLUSTER_BYTES) {
        len = CLUSTER_BYTES;
        while (len > 1 && ((unsigned char)s[len] & 0xc0) == 0x80)
            len--;
    }
    return (uint32_t)utf8_cluster(s, len, cells);
}

static size_t text_cells(const char *s, size_t len) {
    size_t sum = 0;
    while (len > 0) {
        int w;
        uint32_t n = cluster(s, len, &w);
        sum += (size_t)w;
        s += n;
        len -= n;
    }
    return sum;
}

/* Marks that don't begin a row (they close or end something), and marks that don't end one. */
static bool closes(const char *s, uint32_t n) {
    static const char marks[] =
        "、。，．：；？！）］｝」』】〉》〕…‥ーぁぃぅぇぉっゃゅょァィゥェォッャュョ";
    return n == 3 ? memmem(marks, sizeof marks - 1, s, 3) != NULL
                  : n == 1 && strchr(".,:;?!)]}", *s) != NULL;
}

static bool opens(const char *s, uint32_t n) {
    static const char marks[] = "（［｛「『【〈《〔";
    return n == 3 && memmem(marks, sizeof marks - 1, s, 3) != NULL;
}

static void add_row(struct layout_rows *out, const char *text, uint32_t a, uint32_t b,
                    uint32_t cells, bool cont, bool trim) {
    while (trim && b > a && text[b - 1] == ' ') {
        b--;
        cells--;
    }
    if (out->n == out->cap) {
        out->cap = out->cap ? 2 * out->cap : 16;
        out->v = xreallocarray(out->v, out->cap, sizeof *out->v);
    }
    out->v[out->n++] = (struct layout_row){.a = a, .b = b, .cells = cells, .cont = cont};
}

/* One line of text without '\n'. */
static void wrap_line(const char *text, uint32_t from, uint32_t to, int first, int rest,
                      bool words, struct layout_rows *out) {
    uint32_t a = from, i = from, at_break = from, cells = 0, cells_break = 0;
    uint32_t limit = (uint32_t)(first < 2 ? 2 : first);
    bool cont = false, seen = false, wide_before = false, open_before = false;
    while (i < to) {
        int w;
        uint32_t n = cluster(text + i, to - i, &w);
        bool blank = text[i] == ' ';
        if (words && seen && !blank && i > a && (w == 2 || wide_before) && !open_before &&
            !closes(text + i, n)) {
            at_break = i;
            cells_break = cells;
        }
        if ((cells + (uint32_t)w > limit && i > a) || i - a >= ROW_MAX_BYTES) {
            uint32_t end = i, used = cells;
            if (words && !blank && at_break > a) {
                end = at_break;
                used = cells_break;
            } else if (words && !cont &&
                       rest > first) { /* below there is more room for the word */
                end = i = a;
                used = cells;
            }
            add_row(out, text, a, end, used, cont, words);
            cont = true;
            limit = (uint32_t)(rest < 2 ? 2 : rest);
            cells -= used;
            a = at_break = end;
            while (words && blank && i < to && text[i] == ' ') /* the blanks at the break */
                a = at_break = ++i;
            seen = a < i;
            if (i == to && blank && words)
                return;
            continue;
        }
        cells += (uint32_t)w;
        i += n;
        seen |= !blank;
        if (words && blank && seen) {
            at_break = i;
            cells_break = cells;
        }
        wide_before = w == 2;
        open_before = opens(text + i - n, n);
    }
    add_row(out, text, a, to, cells, cont, words && seen);
}

void layout_wrap(const char *text, uint32_t from, uint32_t to, int first, int rest, bool words,
                 struct layout_rows *out) {
    for (;;) {
        const char *nl = to > from ? memchr(text + from, '\n', to - from) : NULL;
        uint32_t end = nl ? (uint32_t)(nl - text) : to;
        wrap_line(text, from, end, first, rest, words, out);
        if (!nl)
            return;
        from = end + 1;
    }
}

/* -- runs and lines -- */

struct layout_mark layout_mark(const struct layout *l) {
    return (struct layout_mark){.lines = l->n_line, .runs = l->n_run, .text = l->text.len};
}

static void add_run(struct layout *l, uint16_t style, const char *text, size_t len,
                    size_t cells, uint32_t src, uint32_t src_len) {
    if (len == 0)
        return;
    if (l->n_run == l->cap_run) {
        l->cap_run = l->cap_run ? 2 * l->cap_run : 64;
        l->run = xreallocarray(l->run, l->cap_run, sizeof *l->run);
    }
    struct layout_line *line = &l->line[l->n_line - 1];
    l->run[l->n_run++] = (struct layout_run){.off = (uint32_t)l->text.len,
                                             .len = (uint32_t)len,
                                             .src = src,
                                             .src_len = src_len,
                                             .style = style,
                                             .cells = (uint16_t)cells};
    buf_add(&l->text, text, len);
    line->n_run++;
    line->cells = (uint16_t)(line->cells + cells);
    if (src_len == 0)
        return;
    if (line->decoration) {
        line->src = src;
        line->decoration = false;
    }
    if (src + src_len > line->src_end)
        line->src_end = src + src_len;
    if (line->src_end > l->last_src)
        l->last_src = line->src_end;
}

void layout_add(struct layout *l, uint16_t style, const char *text, int cells) {
    add_run(l, style, text, strlen(text), (size_t)cells, 0, 0);
}

void layout_pad(struct layout *l, uint16_t style, int n) {
    static const char blanks[] = "                                ";
    for (; n > 0; n -= (int)sizeof blanks - 1) {
        size_t len = n < (int)sizeof blanks - 1 ? (size_t)n : sizeof blanks - 1;
        add_run(l, style, blanks, len, len, 0, 0);
    }
}

void layout_add_row(struct layout *l, const struct layout_row *row, uint32_t *seg) {
    const struct mdoc *d = &l->doc;
    while (*seg < d->n_seg && d->seg[*seg].off + d->seg[*seg].len <= row->a)
        ++*seg;
    for (; *seg < d->n_seg && d->seg[*seg].off < row->b; ++*seg) {
        const struct mdoc_seg *s = &d->seg[*seg];
        uint32_t a = s->off > row->a ? s->off : row->a,
                 b = s->off + s->len < row->b ? s->off + s->len : row->b;
        bool verbatim = !s->whole && s->src_len > 0;
        add_run(l, s->style, d->text.p + a, b - a, text_cells(d->text.p + a, b - a),
                s->src + (verbatim ? a - s->off : 0), verbatim ? b - a : s->src_len);
        l->run[l->n_run - 1].whole = s->whole;
        if (s->off + s->len > row->b)
            break;
    }
}

static void bare_line(struct layout *l, bool cont) {
    if (l->n_line == l->cap_line) {
        l->cap_line = l->cap_line ? 2 * l->cap_line : 32;
        l->line = xreallocarray(l->line, l->cap_line, sizeof *l->line);
    }
    l->line[l->n_line++] = (struct layout_line){.run = (uint32_t)l->n_run,
                                                .src = l->last_src,
                                                .src_end = l->last_src,
                                                .cont = cont,
                                                .decoration = true};
}

/* The containers of a block from outside in, without those for which there is no room; their
 * number. *cells: what they take, at most width - MIN_AVAIL. */
static int chain(const struct layout *l, const struct mdoc_block *b, int out[MDOC_MAX_DEPTH],
                 int *cells) {
    int all[MDOC_MAX_DEPTH], n = 0, used = 0;
    for (int c = b->cont; c >= 0 && n < MDOC_MAX_DEPTH; c = l->doc.cont[c].parent) {
        int w = l->doc.cont[c].quote ? 2 : l->doc.cont[c].cells;
        if (used + w > (n > 0 ? l->width / 2 : l->width - MIN_AVAIL))
            break;
        used += w;
        all[n++] = c;
    }
    for (int i = 0; i < n; i++)
        out[i] = all[n - 1 - i];
    *cells = used;
    return n;
}

int layout_avail(const struct layout *l, const struct mdoc_block *b) {
    int list[MDOC_MAX_DEPTH], cells;
    chain(l, b, list, &cells);
    return l->width - cells;
}

void layout_new_line(struct layout *l, const struct mdoc_block *b, bool cont) {
    int list[MDOC_MAX_DEPTH], cells;
    int n = chain(l, b, list, &cells);
    bare_line(l, cont);
    for (int i = 0; i < n; i++) {
        struct mdoc_cont *c = &l->doc.cont[list[i]];
        if (c->quote)
            layout_add(l, STYLE_QUOTE_BAR, "▌ ", 2);
        else if (c->shown)
            layout_pad(l, STYLE_TEXT, c->cells);
        else
            layout_add(l, STYLE_BULLET, c->marker, c->cells);
        c->shown = true;
    }
}

/* The blank line before block b: quote bars go on through it where both blocks are in the
 * quote. */
static void gap_line(struct layout *l, const struct mdoc_block *before,
                     const struct mdoc_block *b) {
    int list[MDOC_MAX_DEPTH], cells;
    int n = chain(l, b, list, &cells), blanks = 0;
    bare_line(l, false);
    for (int i = 0; i < n && before; i++) {
        bool shared = false;
        for (int c = before->cont; c >= 0; c = l->doc.cont[c].parent)
            shared |= c == list[i];
        if (!shared)
            return;
        if (!l->doc.cont[list[i]].quote) {
            blanks += l->doc.cont[list[i]].cells;
            continue;
        }
        layout_pad(l, STYLE_TEXT, blanks);
        blanks = 0;
        layout_add(l, STYLE_QUOTE_BAR, "▌ ", 2);
    }
}

/* -- blocks -- */

/* A paragraph or the lines of a code block. After cut_lines lines of the text (0: never)
 * *at_cut is set. */
static void text_lines(struct layout *l, const struct mdoc_block *b, size_t cut_lines,
                       struct layout_mark *at_cut, uint32_t *last_at_cut) {
    bool code = b->kind == MDOC_CODE;
    uint32_t from = b->span.text, to = b->span.text_end, seg = b->span.seg;
    int avail = layout_avail(l, b), rest = avail;
    bool mark = code && avail >= 12;
    if (mark)
        rest -= CONT_MARK_CELLS;
    if (code && to > from)
        to--; /* the newline behind the last line */
    else if (code)
        return;
    struct layout_rows rows = {0};
    layout_wrap(buf_str(&l->doc.text), from, to, avail, rest, !code, &rows);
    size_t lines = 0;
    for (size_t i = 0; i < rows.n; i++) {
        if (!rows.v[i].cont && lines++ == cut_lines && cut_lines > 0) {
            *at_cut = layout_mark(l);
            *last_at_cut = l->last_src;
        }
        layout_new_line(l, b, rows.v[i].cont);
        if (mark && rows.v[i].cont)
            layout_add(l, STYLE_MUTED, CONT_MARK, CONT_MARK_CELLS);
        layout_add_row(l, &rows.v[i], &seg);
    }
    free(rows.v);
}

static void fence_line(struct layout *l, const struct mdoc_block *b, const char *lang) {
    layout_new_line(l, b, false);
    layout_add(l, STYLE_CODE_FENCE, "```", 3);
    int room = layout_avail(l, b) - 3;
    size_t cells, n = utf8_fit(lang, strlen(lang), (size_t)(room > 0 ? room : 0), &cells);
    add_run(l, STYLE_CODE_FENCE, lang, n, cells, 0, 0);
}

static void rule(struct layout *l, const struct mdoc_block *b) {
    struct buf line = {0};
    int n = layout_avail(l, b);
    for (int i = 0; i < n; i++)
        buf_adds(&line, "─");
    layout_new_line(l, b, false);
    layout_add(l, STYLE_RULE, buf_str(&line), n);
    buf_release(&line);
}

void layout_blocks(struct layout *l, size_t from, size_t to, size_t cut_lines,
                   struct layout_mark *at_cut, uint32_t *last_at_cut) {
    for (size_t i = from; i < to; i++) {
        const struct mdoc_block *b = &l->doc.block[i];
        if (b->gap && !b->resumed && l->n_line > 0)
            gap_line(l, i > 0 ? b - 1 : NULL, b);
        size_t cut = i + 1 == to ? cut_lines : 0;
        switch (b->kind) {
        case MDOC_PARA:
            text_lines(l, b, cut, at_cut, last_at_cut);
            break;
        case MDOC_CODE:
            if (b->fenced && !b->resumed)
                fence_line(l, b, b->lang);
            text_lines(l, b, cut, at_cut, last_at_cut);
            if (b->fenced)
                fence_line(l, b, "");
            break;
        case MDOC_RULE:
            rule(l, b);
            break;
        case MDOC_TABLE:
            layout_table(l, b);
            break;
        }
    }
}
