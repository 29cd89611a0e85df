/*
 * transcript_mark.c - the selection of text and what is copied.
 *
 * Both ends of a selection are places in the source of messages, so it stays where it is while
 * the view scrolls, the width changes or text streams. What is copied is a piece of the raw
 * text: line breaks of the screen, bullets, borders and the label column were never in it.
 */
#include "ui/transcript_impl.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* The place at a cell of the view; false: there are no messages. */
static bool place(struct transcript *t, int row, int col, struct tr_pos *out) {
    tr_find_view(t);
    if (t->n_view == 0)
        return false;
    bool below = row >= (int)t->n_view;
    struct tr_cell at = t->view[row < 0 ? 0 : below ? (int)t->n_view - 1 : row];
    struct layout *l = tr_layout(t, at.msg);
    size_t lines = layout_n_lines(l), before = tr_before(t, at.msg), len;
    layout_source(l, &len);
    *out = (struct tr_pos){.id = t->v[at.msg].id};
    if (below || at.row >= before + lines) {
        out->from = out->to = (uint32_t)len;
    } else if (at.row >= before) {
        size_t from, to;
        layout_pos(l, at.row - before, tr_narrow(t) ? col : col - TR_LABEL, &from, &to);
        out->from = (uint32_t)from;
        out->to = (uint32_t)to;
    }
    return true;
}

void transcript_mark_begin(struct transcript *t, int row, int col) {
    t->marking = place(t, row, col, &t->mark_a);
    t->mark_b = t->mark_a;
    t->mark_b.to = t->mark_a.to = t->mark_a.from; /* nothing yet: a click marks nothing */
}

void transcript_mark_to(struct transcript *t, int row, int col) {
    if (!t->marking)
        return;
    if (row < 0 || row >= t->rows) {
        transcript_scroll(t, row < 0 ? -1 : 1);
        row = row < 0 ? 0 : t->rows - 1;
    }
    place(t, row, col, &t->mark_b);
}

static bool in_word(char c) {
    return isalnum((unsigned char)c) || c == '_' || (unsigned char)c >= 0x80;
}

static void mark_around(struct transcript *t, int row, int col, bool word) {
    struct tr_pos at;
    t->marking = place(t, row, col, &at);
    if (!t->marking)
        return;
    size_t len, a = at.from, b = at.from;
    const char *s = transcript_message_text(t, at.id, &len);
    while (a > 0 && (word ? in_word(s[a - 1]) : s[a - 1] != '\n'))
        a--;
    while (b < len && (word ? in_word(s[b]) : s[b] != '\n'))
        b++;
    t->mark_a = (struct tr_pos){.id = at.id, .from = (uint32_t)a, .to = (uint32_t)a};
    t->mark_b = (struct tr_pos){.id = at.id, .from = (uint32_t)b, .to = (uint32_t)b};
}

void transcript_mark_word(struct transcript *t, int row, int col) {
    mark_around(t, row, col, true);
}

void transcript_mark_line(struct transcript *t, int row, int col) {
    mark_around(t, row, col, false);
}

void transcript_mark_clear(struct transcript *t) {
    t->marking = false;
}

/* The ends in order and the messages they are in; false: nothing is marked. */
static bool ends(const struct transcript *t, size_t *a, size_t *b, uint32_t *from,
                 uint32_t *to) {
    if (!t->marking)
        return false;
    const struct tr_pos *first = &t->mark_a, *last = &t->mark_b;
    *a = tr_index(t, first->id);
    *b = tr_index(t, last->id);
    if (*a > *b || (*a == *b && first->from > last->from)) {
        size_t index = *a;
        *a = *b;
        *b = index;
        first = &t->mark_b;
        last = &t->mark_a;
    }
    *from = first->from;
    *to = last->to;
    return *b < t->n;
}

bool tr_marked_range(const struct transcript *t, size_t i, struct tr_range *out) {
    size_t a, b, len;
    *out = (struct tr_range){0};
    if (!ends(t, &a, &b, &out->from, &out->to) || i < a || i > b)
        return false;
    layout_source(t->v[i].l, &len);
    if (i > a)
        out->from = 0;
    if (i < b || out->to > len)
        out->to = (uint32_t)len;
    return out->from < out->to;
}

bool transcript_marked(const struct transcript *t) {
    size_t a, b;
    uint32_t from, to;
    return ends(t, &a, &b, &from, &to) && (a < b || from < to);
}

char *transcript_marked_text(struct transcript *t) {
    struct buf out = {0};
    size_t a, b;
    uint32_t from, to;
    if (!ends(t, &a, &b, &from, &to))
        return xstrdup("");
    for (size_t i = a; i <= b; i++) {
        struct tr_range r;
        if (!tr_marked_range(t, i, &r))
            continue;
        size_t len;
        const char *s = layout_source(t->v[i].l, &len);
        if (out.len > 0)
            buf_adds(&out, "\n\n");
        buf_add(&out, s + r.from, r.to - r.from);
    }
    return out.len ? buf_take(&out) : xstrdup("");
}

/* -- code blocks -- */

struct fence {
    size_t len, indent;
    char mark;
    bool bare; /* nothing behind it: it may close */
};

static struct fence fence_in(const char *line, size_t len) {
    struct fence f = {0};
    while (f.indent < len && line[f.indent] == ' ')
        f.indent++;
    if (f.indent == len || (line[f.indent] != '`' && line[f.indent] != '~'))
        return f;
    f.mark = line[f.indent];
    while (f.indent + f.len < len && line[f.indent + f.len] == f.mark)
        f.len++;
    size_t i = f.indent + f.len;
    while (i < len && isspace((unsigned char)line[i]))
        i++;
    f.bare = i == len;
    if (f.len < 3 || (f.mark == '`' && memchr(line + i, '`', len - i)))
        f.len = 0;
    return f;
}

char *transcript_code_block(struct transcript *t, int64_t id, int n_from_end) {
    size_t len, at = 0;
    const char *s = transcript_message_text(t, id, &len);
    struct strlist blocks = {0};
    struct buf code = {0};
    struct fence open = {0};
    while (s && at < len) {
        const char *nl = memchr(s + at, '\n', len - at);
        size_t n = nl ? (size_t)(nl - s) - at : len - at;
        struct fence f = fence_in(s + at, n);
        if (open.len == 0 && f.len > 0) {
            open = f;
            buf_clear(&code);
        } else if (open.len > 0 && f.mark == open.mark && f.len >= open.len && f.bare) {
            strlist_addn(&blocks, buf_str(&code), code.len);
            open.len = 0;
        } else if (open.len > 0) {
            size_t skip = 0;
            while (skip < open.indent && skip < n && s[at + skip] == ' ')
                skip++;
            buf_add(&code, s + at + skip, n - skip);
            buf_addc(&code, '\n');
        }
        at += n + 1;
    }
    if (open.len > 0) /* still open: what is there */
        strlist_addn(&blocks, buf_str(&code), code.len);
    size_t want = n_from_end < 0 ? blocks.n : (size_t)n_from_end;
    char *out = want < blocks.n ? xstrdup(blocks.v[blocks.n - 1 - want]) : NULL;
    strlist_release(&blocks);
    buf_release(&code);
    return out;
}
