/*
 * transcript_draw.c - rows of the view: label column, text, branch marks, footer; and where the
 * mouse hits the marks.
 *
 * A run of text is cut where a match of the search or the selection begins or ends; a run that
 * stands for its source as a whole (a tab, an entity) is inside when any part of it is.
 */
#include "base/utf8.h"
#include "ui/transcript_impl.h"
#include <string.h>

static const struct {
    const char *label;
    uint16_t style;
} roles[] = {
    [TR_SYSTEM] = {"system", STYLE_ROLE_SYSTEM},   [TR_USER] = {"you", STYLE_ROLE_USER},
    [TR_MODEL] = {"llmchat", STYLE_ROLE_MODEL},    [TR_TOOL] = {"tool", STYLE_ROLE_SYSTEM},
    [TR_SUMMARY] = {"summary", STYLE_ROLE_SYSTEM}, [TR_NOTICE] = {"", STYLE_MUTED},
};

/* The flags of source byte pos and, in *next, where they may change (up to end). [from, to) is
 * the marked part. */
static uint16_t overlay(const struct transcript *t, const struct tr_msg *m,
                        const struct tr_range *mark, uint32_t pos, uint32_t *next) {
    unsigned flags = 0;
    if (pos < mark->from)
        *next = mark->from < *next ? mark->from : *next;
    else if (pos < mark->to) {
        flags |= STYLE_SELECTED;
        *next = mark->to < *next ? mark->to : *next;
    }
    size_t lo = 0, hi = m->n_match;
    while (lo < hi) { /* the first match that ends behind pos */
        size_t mid = (lo + hi) / 2;
        if (m->match[mid].to <= pos)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == m->n_match)
        return (uint16_t)flags;
    const struct tr_range *r = &m->match[lo];
    if (pos < r->from) {
        *next = r->from < *next ? r->from : *next;
    } else {
        flags |= STYLE_MATCH;
        if (t->found && t->found_id == m->id && t->found_at == r->from)
            flags |= STYLE_MATCH_NOW;
        *next = r->to < *next ? r->to : *next;
    }
    return (uint16_t)flags;
}

static void draw_run(const struct transcript *t, const struct tr_msg *m,
                     const struct tr_range *mark, const struct layout_run *r, const char *text,
                     struct drawn *d) {
    uint32_t end = r->src + r->src_len, pos = r->src;
    bool quiet = m->role == TR_NOTICE || m->role == TR_SYSTEM || m->role == TR_SUMMARY;
    uint16_t style =
        quiet && STYLE_KIND(r->style) == STYLE_TEXT ? r->style | STYLE_MUTED : r->style;
    if (r->src_len == 0) {
        drawn_add(d, style, text, r->len, r->cells);
        return;
    }
    if (r->whole) {
        unsigned flags = 0;
        while (pos < end) {
            uint32_t next = end;
            flags |= overlay(t, m, mark, pos, &next);
            pos = next;
        }
        drawn_add(d, (uint16_t)(style | flags), text, r->len, r->cells);
        return;
    }
    int cells = 0;
    while (pos < end) {
        uint32_t next = end;
        uint16_t flags = overlay(t, m, mark, pos, &next);
        const char *p = text + (pos - r->src);
        int w = next == end ? r->cells - cells : (int)utf8_cells(p, next - pos);
        drawn_add(d, (uint16_t)(style | flags), p, next - pos, w);
        cells += w;
        pos = next;
    }
}

static void draw_label(const struct transcript *t, const struct tr_msg *m, struct drawn *d) {
    uint16_t style = roles[m->role].style;
    if (t->selected && t->selected == m->id)
        style |= STYLE_CURRENT;
    const char *label = roles[m->role].label;
    drawn_add(d, style, label, strlen(label), (int)strlen(label));
}

static void draw_branch(const char *branch, int cells, int width, struct drawn *d) {
    drawn_pad(d, STYLE_TEXT, width - cells - d->cells);
    drawn_add(d, STYLE_BRANCH, branch, strlen(branch), cells);
}

static void draw_line(struct transcript *t, size_t msg, size_t line, struct drawn *d) {
    struct tr_msg *m = &t->v[msg];
    struct layout *l = tr_layout(t, msg);
    struct tr_range mark = {0};
    tr_scan(t, m);
    tr_marked_range(t, msg, &mark);
    if (line >= layout_n_lines(l)) { /* nothing has come yet */
        drawn_put(d, STYLE_MUTED, m->streaming ? "…" : "", -1);
        return;
    }
    const struct layout_line *ll = layout_line(l, line);
    const struct layout_run *r = layout_runs(l, ll);
    for (uint32_t k = 0; k < ll->n_run; k++)
        draw_run(t, m, &mark, &r[k], layout_text(l, &r[k]), d);
}

void transcript_row(struct transcript *t, int row, struct drawn *d) {
    drawn_clear(d);
    tr_find_view(t);
    if (row < 0 || (size_t)row >= t->n_view)
        return;
    struct tr_cell at = t->view[row];
    struct tr_msg *m = &t->v[at.msg];
    size_t before = tr_before(t, at.msg), lines = layout_n_lines(tr_layout(t, at.msg));
    char branch[48];
    bool in_first = false, narrow = tr_narrow(t);
    int cells = tr_branch(t, at.msg, branch, &in_first);
    bool label_row = narrow && m->role != TR_NOTICE && at.row + 1 == before;
    bool first = at.row == before, footer = at.row >= before + (lines ? lines : 1);
    if (at.row < before && !label_row)
        return;
    if (label_row || (first && !narrow))
        draw_label(t, m, d);
    if (!narrow)
        drawn_pad(d, STYLE_TEXT, TR_LABEL - d->cells);
    if (footer)
        drawn_put(d, m->footer_error ? STYLE_ERROR : STYLE_MUTED, m->footer,
                  t->width - d->cells - (cells && !in_first ? cells + 1 : 0));
    else if (!label_row)
        draw_line(t, at.msg, at.row - before, d);
    if (cells > 0 && ((footer && !in_first) || (in_first && (narrow ? label_row : first))))
        draw_branch(branch, cells, t->width, d);
}

int transcript_branch_at(struct transcript *t, int row, int col, int64_t *id) {
    struct drawn d = {0};
    transcript_row(t, row, &d);
    int at = 0, hit = 0;
    for (size_t i = 0; i < d.n; i++) {
        int end = at + d.run[i].cells;
        if (d.run[i].style == STYLE_BRANCH && col >= at && col < end)
            hit = col < at + 2 ? -1 : col >= end - 2 ? 1 : 0;
        at = end;
    }
    drawn_release(&d);
    if (hit)
        *id = transcript_message_at(t, row);
    return hit;
}
