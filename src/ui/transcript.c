/*
 * transcript.c - messages, the place of the view, and moving it; see transcript.h.
 *
 * The text of a message lives in its layout. Lines are kept for the messages seen last
 * (MAX_LAID_OUT of them) and dropped for the others. The view is found from its anchor
 * downwards, or, at the tail, from the last message upwards: the cost is what is seen, whatever
 * the conversation's length. No total height is kept; transcript_extent() estimates.
 *
 * The anchor is a message and a row in it. Where the lines above that row change (another
 * width, a block that is now read in another way) the row follows the source byte that it
 * shows.
 */
#include "ui/transcript.h"
#include "ui/transcript_impl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LAID_OUT 128

struct transcript *transcript_new(void) {
    struct transcript *t = xcalloc(1, sizeof *t);
    t->markdown = t->follow = t->moved = true;
    t->rows = 24;
    t->width = 80;
    t->query = xstrdup("");
    return t;
}

static void msg_release(struct transcript *t, struct tr_msg *m) {
    t->n_laid_out -= m->laid_out;
    layout_free(m->l);
    free(m->footer);
    free(m->match);
}

void transcript_free(struct transcript *t) {
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++)
        msg_release(t, &t->v[i]);
    free(t->v);
    free(t->view);
    free(t->query);
    buf_release(&t->folded);
    free(t);
}

size_t tr_index(const struct transcript *t, int64_t id) {
    for (size_t i = t->n; i-- > 0;)
        if (t->v[i].id == id)
            return i;
    return t->n;
}

/* -- geometry -- */

bool tr_narrow(const struct transcript *t) {
    return t->width < TR_NARROW;
}

int tr_text_width(const struct transcript *t) {
    int w = tr_narrow(t) ? t->width : t->width - TR_LABEL;
    return w < LAYOUT_MIN_WIDTH ? LAYOUT_MIN_WIDTH : w;
}

static void drop_oldest(struct transcript *t, size_t keep) {
    size_t oldest = t->n;
    for (size_t i = 0; i < t->n; i++)
        if (t->v[i].laid_out && i != keep &&
            (oldest == t->n || t->v[i].used < t->v[oldest].used))
            oldest = i;
    if (oldest == t->n)
        return;
    layout_drop(t->v[oldest].l);
    t->v[oldest].laid_out = false;
    t->n_laid_out--;
}

struct layout *tr_layout(struct transcript *t, size_t i) {
    struct tr_msg *m = &t->v[i];
    layout_set_width(m->l, tr_text_width(t));
    m->used = ++t->clock;
    if (!m->laid_out) {
        m->laid_out = true;
        if (++t->n_laid_out > MAX_LAID_OUT + (size_t)t->rows)
            drop_oldest(t, i);
    }
    return m->l;
}

static bool has_gap(const struct transcript *t, size_t i) {
    return i > 0 && t->v[i].role == TR_USER && t->v[i - 1].role != TR_SYSTEM;
}

static bool has_label_row(const struct transcript *t, size_t i) {
    return tr_narrow(t) && t->v[i].role != TR_NOTICE;
}

size_t tr_before(const struct transcript *t, size_t i) {
    return (size_t)has_gap(t, i) + has_label_row(t, i);
}

int tr_branch(struct transcript *t, size_t i, char out[48], bool *in_first) {
    const struct tr_msg *m = &t->v[i];
    if (m->n_sibling < 2)
        return 0;
    int cells =
        snprintf(out, 48, "◂ %d/%d ▸", m->sibling, m->n_sibling) - 4; /* two of 3 bytes */
    struct layout *l = tr_layout(t, i);
    int text = layout_n_lines(l) > 0 ? layout_line(l, 0)->cells : 0;
    *in_first = has_label_row(t, i) || text + 2 + cells <= tr_text_width(t);
    return cells;
}

bool tr_has_footer(struct transcript *t, size_t i) {
    char branch[48];
    bool in_first = true;
    return t->v[i].footer[0] || (tr_branch(t, i, branch, &in_first) > 0 && !in_first);
}

size_t tr_height(struct transcript *t, size_t i) {
    size_t lines = layout_n_lines(tr_layout(t, i));
    size_t h = tr_before(t, i) + (lines ? lines : 1) + tr_has_footer(t, i);
    t->v[i].height = h;
    t->v[i].height_width = t->width;
    return h;
}

/* -- the view -- */

/* The top row when the last row of the last message is the last of the view. */
static struct tr_cell tail_top(struct transcript *t) {
    size_t need = (size_t)t->rows;
    for (size_t i = t->n; i-- > 0;) {
        size_t h = tr_height(t, i);
        if (h >= need)
            return (struct tr_cell){.msg = i, .row = h - need};
        need -= h;
    }
    return (struct tr_cell){0};
}

void tr_set_top(struct transcript *t, size_t msg, size_t row) {
    struct layout *l = tr_layout(t, msg);
    size_t before = tr_before(t, msg), lines = layout_n_lines(l);
    t->top = msg;
    t->top_row = row;
    t->top_is_line = row >= before && row - before < lines;
    t->top_src = t->top_is_line ? layout_line(l, row - before)->src : 0;
    t->moved = true;
}

/* Lets the anchor's row follow its source byte. */
static void settle_anchor(struct transcript *t) {
    if (t->top >= t->n) {
        t->top = t->n ? t->n - 1 : 0;
        t->top_row = 0;
        t->top_is_line = false;
    }
    if (t->n == 0)
        return;
    struct layout *l = tr_layout(t, t->top);
    size_t before = tr_before(t, t->top), lines = layout_n_lines(l), h = tr_height(t, t->top);
    if (t->top_is_line && lines > 0) {
        size_t line = t->top_row - before;
        bool same =
            t->top_row >= before && line < lines && layout_line(l, line)->src == t->top_src;
        if (!same)
            t->top_row = before + layout_line_at(l, t->top_src);
    }
    if (t->top_row >= h)
        t->top_row = h - 1;
}

static bool is_before(struct tr_cell a, struct tr_cell b) {
    return a.msg != b.msg ? a.msg < b.msg : a.row < b.row;
}

void tr_find_view(struct transcript *t) {
    if (!t->moved)
        return;
    t->moved = false;
    t->n_view = 0;
    t->view = xreallocarray(t->view, (size_t)t->rows, sizeof *t->view);
    if (t->n == 0)
        return;
    struct tr_cell at;
    if (!t->follow) {
        settle_anchor(t);
        at = (struct tr_cell){.msg = t->top, .row = t->top_row};
        /* Less than a view of text below the anchor: that is the tail. */
        size_t below = 0;
        for (size_t i = at.msg; i < t->n && below < at.row + (size_t)t->rows; i++)
            below += tr_height(t, i);
        t->follow = below <= at.row + (size_t)t->rows;
    }
    if (t->follow) {
        at = tail_top(t);
        t->top = at.msg;
        t->top_row = at.row;
        t->fresh_below = false;
    }
    for (; at.msg < t->n && t->n_view < (size_t)t->rows; at.msg++, at.row = 0)
        for (size_t h = tr_height(t, at.msg); at.row < h && t->n_view < (size_t)t->rows;
             at.row++)
            t->view[t->n_view++] = at;
}

void transcript_set_size(struct transcript *t, int rows, int width) {
    rows = rows < 1 ? 1 : rows > 1000 ? 1000 : rows;
    width = width < LAYOUT_MIN_WIDTH ? LAYOUT_MIN_WIDTH : width > 4096 ? 4096 : width;
    if (rows == t->rows && width == t->width)
        return;
    bool in_narrow = tr_narrow(t);
    t->rows = rows;
    t->width = width;
    t->moved = true;
    if (in_narrow != tr_narrow(t) && !t->top_is_line)
        t->top_row = 0;
}

void transcript_set_markdown(struct transcript *t, bool on) {
    if (t->markdown == on)
        return;
    t->markdown = on;
    for (size_t i = 0; i < t->n; i++) {
        struct tr_msg *m = &t->v[i];
        if (m->role != TR_MODEL)
            continue;
        size_t len;
        const char *text = layout_source(m->l, &len);
        struct layout *l = layout_new(on);
        layout_append(l, text, len);
        if (!m->streaming)
            layout_finish(l);
        layout_free(m->l);
        m->l = l;
    }
    t->moved = true;
}

bool transcript_markdown(const struct transcript *t) {
    return t->markdown;
}

/* -- messages -- */

void transcript_clear(struct transcript *t) {
    transcript_sync(t, NULL, 0);
    t->follow = true;
    t->fresh_below = false;
    t->selected = 0;
    t->marking = t->found = false;
    t->top = t->top_row = 0;
}

static void msg_init(struct transcript *t, struct tr_msg *m, const struct tr_message *from) {
    *m = (struct tr_msg){.id = from->id, .role = from->role};
    m->l = layout_new(t->markdown && from->role == TR_MODEL);
    m->footer = xstrdup("");
}

/* Brings m to what the caller says; true when its text grew or is another. */
static bool msg_update(struct transcript *t, struct tr_msg *m, const struct tr_message *from) {
    size_t len;
    const char *have = layout_source(m->l, &len);
    size_t want = from->len < LAYOUT_MAX_BYTES ? from->len : LAYOUT_MAX_BYTES;
    bool grows = want >= len && (len == 0 || memcmp(have, from->text, len) == 0);
    bool changed = !grows || want > len;
    if (!grows) {
        layout_free(m->l);
        m->l = layout_new(t->markdown && m->role == TR_MODEL);
        m->scanned_for = 0;
        len = 0;
    }
    if (want > len)
        layout_append(m->l, from->text + len, from->len - len);
    if (!from->streaming)
        layout_finish(m->l);
    m->streaming = from->streaming;
    m->footer_error = from->footer_error;
    m->sibling = from->sibling;
    m->n_sibling = from->n_sibling;
    free(m->footer);
    m->footer = xstrdup(from->footer ? from->footer : "");
    return changed;
}

struct old_msg {
    int64_t id;
    size_t at;
};

static int by_id(const void *a, const void *b) {
    int64_t x = ((const struct old_msg *)a)->id, y = ((const struct old_msg *)b)->id;
    return (x > y) - (x < y);
}

void transcript_sync(struct transcript *t, const struct tr_message *v, size_t n) {
    struct old_msg *index = xreallocarray(NULL, t->n + 1, sizeof *index);
    for (size_t i = 0; i < t->n; i++)
        index[i] = (struct old_msg){.id = t->v[i].id, .at = i};
    qsort(index, t->n, sizeof *index, by_id);
    int64_t top_id = t->top < t->n ? t->v[t->top].id : 0;
    struct tr_msg *now = xreallocarray(NULL, n + 1, sizeof *now);
    bool changed = false;
    for (size_t i = 0; i < n; i++) {
        struct old_msg key = {.id = v[i].id};
        struct old_msg *o = bsearch(&key, index, t->n, sizeof *index, by_id);
        struct tr_msg *old = o && o->at < t->n ? &t->v[o->at] : NULL;
        if (old && old->l && old->role == v[i].role) {
            now[i] = *old;
            old->l = NULL; /* taken over */
        } else {
            msg_init(t, &now[i], &v[i]);
        }
        changed |= msg_update(t, &now[i], &v[i]);
    }
    for (size_t i = 0; i < t->n; i++)
        if (t->v[i].l)
            msg_release(t, &t->v[i]);
    free(t->v);
    free(index);
    t->v = now;
    t->n = n;
    t->cap = n + 1;
    t->moved = true;
    size_t top = tr_index(t, top_id);
    if (top < n)
        t->top = top;
    else
        t->top_is_line = false;
    if (!t->follow && changed)
        t->fresh_below = true;
    if (t->selected && tr_index(t, t->selected) == n)
        t->selected = 0;
    if (t->marking && (tr_index(t, t->mark_a.id) == n || tr_index(t, t->mark_b.id) == n))
        t->marking = false;
    if (t->found && tr_index(t, t->found_id) == n)
        t->found = false;
}

bool transcript_append(struct transcript *t, int64_t id, const char *text, size_t len) {
    size_t i = tr_index(t, id);
    if (i == t->n)
        return false;
    layout_append(t->v[i].l, text, len);
    t->moved = true;
    if (!t->follow && len > 0)
        t->fresh_below = true;
    return true;
}

size_t transcript_n(const struct transcript *t) {
    return t->n;
}

size_t transcript_n_laid_out(const struct transcript *t) {
    return t->n_laid_out;
}

const char *transcript_message_text(const struct transcript *t, int64_t id, size_t *len) {
    size_t i = tr_index(t, id);
    *len = 0;
    return i == t->n ? NULL : layout_source(t->v[i].l, len);
}

/* -- moving -- */

bool transcript_more_below(struct transcript *t) {
    tr_find_view(t);
    return !t->follow && t->fresh_below;
}

bool transcript_at_tail(struct transcript *t) {
    tr_find_view(t);
    return t->follow;
}

void transcript_scroll(struct transcript *t, int rows) {
    tr_find_view(t);
    if (t->n == 0 || rows == 0 || (rows > 0 && t->follow))
        return;
    struct tr_cell at = {.msg = t->top, .row = t->top_row};
    for (; rows < 0; rows++) {
        if (at.row > 0)
            at.row--;
        else if (at.msg > 0)
            at.row = tr_height(t, --at.msg) - 1;
        else
            break;
    }
    for (; rows > 0; rows--) {
        if (at.row + 1 < tr_height(t, at.msg))
            at.row++;
        else if (at.msg + 1 < t->n)
            at = (struct tr_cell){.msg = at.msg + 1};
        else
            break;
    }
    t->follow = !is_before(at, tail_top(t));
    tr_set_top(t, at.msg, at.row);
}

void transcript_page(struct transcript *t, int half_pages) {
    int page = t->rows > 2 ? t->rows - 1 : t->rows; /* one row is seen on both pages */
    int half = page / 2 > 0 ? page / 2 : 1;
    transcript_scroll(t, half_pages % 2 ? half_pages * half : half_pages / 2 * page);
}

void transcript_top(struct transcript *t) {
    if (t->n == 0)
        return;
    t->follow = false;
    tr_set_top(t, 0, 0);
    tr_find_view(t);
}

void transcript_bottom(struct transcript *t) {
    t->follow = t->moved = true;
    t->fresh_below = false;
}

void tr_show_row(struct transcript *t, size_t msg, size_t row) {
    tr_find_view(t);
    struct tr_cell want = {.msg = msg, .row = row};
    if (t->n_view > 0 && !is_before(want, t->view[0]) &&
        !is_before(t->view[t->n_view - 1], want))
        return;
    t->follow = false;
    tr_set_top(t, msg, row);
    tr_find_view(t);
    if (!t->follow && t->rows > 3)
        transcript_scroll(t, -(t->rows / 3));
}

bool transcript_show(struct transcript *t, int64_t id) {
    size_t i = tr_index(t, id);
    if (i == t->n)
        return false;
    tr_find_view(t);
    size_t row = tr_before(t, i);
    struct tr_cell want = {.msg = i, .row = row};
    if (t->n_view > 0 && !is_before(want, t->view[0]) &&
        !is_before(t->view[t->n_view - 1], want))
        return true;
    t->follow = false;
    tr_set_top(t, i, has_label_row(t, i) ? row - 1 : row);
    tr_find_view(t);
    return true;
}

void transcript_extent(struct transcript *t, size_t *above, size_t *seen, size_t *below) {
    tr_find_view(t);
    size_t width = (size_t)tr_text_width(t), all = 0;
    *above = 0;
    *seen = t->n_view;
    for (size_t i = 0; i < t->n; i++) {
        struct tr_msg *m = &t->v[i];
        size_t len;
        layout_source(m->l, &len);
        if (i == t->top)
            *above = all + t->top_row;
        all += m->height_width == t->width ? m->height : 1 + len / width;
    }
    *below = all > *above + *seen ? all - *above - *seen : 0;
}

/* -- the selected message -- */

int64_t transcript_selected(const struct transcript *t) {
    return t->selected;
}

bool transcript_select(struct transcript *t, int64_t id) {
    if (id != 0 && !transcript_show(t, id))
        return false;
    t->selected = id;
    return true;
}

bool transcript_select_step(struct transcript *t, int step) {
    tr_find_view(t);
    if (t->n == 0)
        return false;
    size_t i = t->selected ? tr_index(t, t->selected) : t->n;
    if (i == t->n)
        i = t->n_view ? t->view[t->n_view - 1].msg : t->n - 1;
    else if ((step < 0 && i == 0) || (step > 0 && i + 1 == t->n))
        return false;
    else
        i = step < 0 ? i - 1 : i + 1;
    return transcript_select(t, t->v[i].id);
}

int64_t transcript_message_at(struct transcript *t, int row) {
    tr_find_view(t);
    return row >= 0 && (size_t)row < t->n_view ? t->v[t->view[row].msg].id : 0;
}
