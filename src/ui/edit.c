/*
 * edit.c - see edit.h: the buffer, undo, kill ring and the commands.
 *
 * The text is one byte string; a person's input is small, so every change copies it whole for
 * undo (bounded in number and bytes) and moves bytes with memmove. A gap buffer or a rope was
 * rejected for that reason. Pastes that would make it large are kept beside it and stand in it
 * as one private-use code point.
 *
 * A unit is a grapheme cluster or a paste: what the cursor steps over and what a deletion
 * takes.
 */
#include "ui/edit.h"
#include "base/utf8.h"
#include "ui/edit_impl.h"
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define UNDO_MAX   256
#define UNDO_BYTES ((size_t)4 << 20)

/* -- units -- */

bool edit_is_paste(const char *s, size_t len, size_t *number) {
    uint32_t cp;
    if (len < PASTE_LEN || (unsigned char)s[0] != 0xf4 || utf8_decode(s, len, &cp) != PASTE_LEN)
        return false;
    *number = cp - PASTE_FIRST;
    return cp >= PASTE_FIRST && *number < PASTE_MAX;
}

size_t edit_next(const struct edit *e, size_t pos) {
    const char *s = buf_str(&e->text) + pos;
    size_t left = e->text.len - pos, number;
    int cells;
    if (edit_is_paste(s, left, &number))
        return pos + PASTE_LEN;
    return pos + utf8_cluster(s, left, &cells);
}

static size_t prev(const struct edit *e, size_t pos) {
    size_t at = utf8_prev(buf_str(&e->text), pos);
    while (at < pos && edit_next(e, at) < pos)
        at = edit_next(e, at);
    return at;
}

static uint32_t cp_at(const struct edit *e, size_t pos) {
    uint32_t cp = 0;
    utf8_decode(buf_str(&e->text) + pos, e->text.len - pos, &cp);
    return cp;
}

static bool is_word(uint32_t cp) {
    if (cp < 0x80)
        return (cp >= '0' && cp <= '9') || ((cp | 0x20) >= 'a' && (cp | 0x20) <= 'z') ||
               cp == '_';
    if (cp >= PASTE_FIRST && cp < PASTE_FIRST + PASTE_MAX)
        return true;
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NO);
}

static bool is_blank(uint32_t cp) {
    return cp == ' ' || cp == '\t' || cp == '\n' || cp == 0x3000;
}

static size_t line_start(const struct edit *e, size_t pos) {
    while (pos > 0 && e->text.p[pos - 1] != '\n')
        pos--;
    return pos;
}

static size_t line_end(const struct edit *e, size_t pos) {
    while (pos < e->text.len && e->text.p[pos] != '\n')
        pos++;
    return pos;
}

static size_t word_left(const struct edit *e, size_t pos, bool (*in)(uint32_t)) {
    while (pos > 0 && !in(cp_at(e, prev(e, pos))))
        pos = prev(e, pos);
    while (pos > 0 && in(cp_at(e, prev(e, pos))))
        pos = prev(e, pos);
    return pos;
}

static size_t word_right(const struct edit *e, size_t pos) {
    while (pos < e->text.len && !is_word(cp_at(e, pos)))
        pos = edit_next(e, pos);
    while (pos < e->text.len && is_word(cp_at(e, pos)))
        pos = edit_next(e, pos);
    return pos;
}

/* -- changes and undo -- */

static void snaps_clear(struct edit_snaps *s) {
    for (size_t i = 0; i < s->n; i++)
        free(s->v[i].text);
    s->n = s->bytes = 0;
}

static void snaps_push(struct edit_snaps *s, const struct edit *e) {
    while (s->n > 0 && (s->n >= UNDO_MAX || s->bytes + e->text.len > UNDO_BYTES)) {
        s->bytes -= s->v[0].len;
        free(s->v[0].text);
        memmove(s->v, s->v + 1, --s->n * sizeof *s->v);
    }
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 16;
        s->v = xreallocarray(s->v, s->cap, sizeof *s->v);
    }
    s->v[s->n++] = (struct edit_snap){
        .text = xstrndup(buf_str(&e->text), e->text.len), .len = e->text.len, .cur = e->cur};
    s->bytes += e->text.len;
}

static void changed(struct edit *e) {
    e->version++;
    e->has_mark = false;
    e->goal = -1;
}

/* Before a change: what is there can be undone to. Typing goes on with the change before it. */
static void begin_change(struct edit *e, bool typing) {
    if (!typing || e->last != LAST_TYPE)
        snaps_push(&e->undo, e);
    snaps_clear(&e->redo);
}

/* Moves the cursor off the inside of a cluster that a change has made. */
static void settle_cursor(struct edit *e) {
    size_t at = line_start(e, e->cur);
    while (at < e->cur)
        at = edit_next(e, at);
    e->cur = at;
}

static void splice(struct edit *e, size_t from, size_t to, const char *text, size_t len) {
    struct buf *t = &e->text;
    size_t tail = t->len - to;
    char *keep = xstrndup(buf_str(t) + to, tail);
    if (t->len > from)
        buf_cut(t, from);
    buf_add(t, text, len);
    buf_add(t, keep, tail);
    free(keep);
    e->cur = from + len;
    settle_cursor(e);
    changed(e);
}

void edit_replace_all(struct edit *e, const char *text, size_t len) {
    begin_change(e, false);
    splice(e, 0, e->text.len, text, len);
    e->last = LAST_OTHER;
}

static bool step_history(struct edit *e, struct edit_snaps *from, struct edit_snaps *to) {
    e->last = LAST_OTHER;
    if (from->n == 0)
        return false;
    snaps_push(to, e);
    struct edit_snap s = from->v[--from->n];
    from->bytes -= s.len;
    buf_clear(&e->text);
    buf_add(&e->text, s.text, s.len);
    e->cur = s.cur;
    free(s.text);
    changed(e);
    return true;
}

bool edit_undo(struct edit *e) {
    return step_history(e, &e->undo, &e->redo);
}

bool edit_redo(struct edit *e) {
    return step_history(e, &e->redo, &e->undo);
}

/* -- text in and out -- */

struct edit *edit_new(void) {
    struct edit *e = xcalloc(1, sizeof *e);
    e->width = 80;
    e->goal = -1;
    return e;
}

static void drop_pastes(struct edit *e) {
    for (size_t i = 0; i < e->n_paste; i++)
        free(e->paste[i]);
    free(e->paste);
    e->paste = NULL;
    e->n_paste = 0;
}

void edit_free(struct edit *e) {
    if (!e)
        return;
    drop_pastes(e);
    snaps_clear(&e->undo);
    snaps_clear(&e->redo);
    free(e->undo.v);
    free(e->redo.v);
    for (int i = 0; i < EDIT_KILLS; i++)
        free(e->kill[i]);
    free(e->row);
    free(e->draft);
    buf_release(&e->text);
    free(e);
}

/* Opens the pastes in text up. */
static char *expand(const struct edit *e, const char *text, size_t len) {
    struct buf out = {0};
    size_t i = 0, number;
    while (i < len) {
        if (edit_is_paste(text + i, len - i, &number) && number < e->n_paste) {
            buf_adds(&out, e->paste[number]);
            i += PASTE_LEN;
            continue;
        }
        const char *next = memchr(text + i + 1, 0xf4, len - i - 1);
        size_t end = next ? (size_t)(next - text) : len;
        buf_add(&out, text + i, end - i);
        i = end;
    }
    return out.p ? buf_take(&out) : xstrdup("");
}

char *edit_text(const struct edit *e) {
    return expand(e, buf_str(&e->text), e->text.len);
}

bool edit_empty(const struct edit *e) {
    return e->text.len == 0;
}

unsigned edit_version(const struct edit *e) {
    return e->version;
}

/* Text from outside in the buffer's form: valid, \n for every line end, no NUL, none of the
 * code points of pastes. */
static void clean(struct buf *out, const char *text, size_t len) {
    struct buf valid = {0};
    utf8_scrub(&valid, text, len);
    const char *s = buf_str(&valid);
    for (size_t i = 0; i < valid.len;) {
        size_t number, n = 1;
        if (s[i] == '\r') {
            buf_addc(out, '\n');
            n = i + 1 < valid.len && s[i + 1] == '\n' ? 2 : 1;
        } else if (edit_is_paste(s + i, valid.len - i, &number)) {
            buf_addcp(out, 0xfffd);
            n = PASTE_LEN;
        } else if (s[i]) {
            buf_addc(out, s[i]);
        }
        i += n;
    }
    buf_release(&valid);
}

void edit_set(struct edit *e, const char *text) {
    struct buf in = {0};
    clean(&in, text, strlen(text));
    edit_replace_all(e, buf_str(&in), in.len);
    buf_release(&in);
}

void edit_reset(struct edit *e, const char *text) {
    for (int i = 0; i < EDIT_KILLS; i++)
        if (e->kill[i]) { /* kills outlive the pastes that they name */
            char *open = expand(e, e->kill[i], strlen(e->kill[i]));
            free(e->kill[i]);
            e->kill[i] = open;
        }
    buf_clear(&e->text);
    e->cur = 0;
    drop_pastes(e);
    edit_set(e, text);
    snaps_clear(&e->undo);
    snaps_clear(&e->redo);
    free(e->draft);
    e->draft = NULL;
    e->history_pos = 0;
    e->top = 0;
}

void edit_insert(struct edit *e, const char *text, size_t len) {
    struct buf in = {0};
    clean(&in, text, len);
    bool typing = in.len > 0 && in.len <= 16 && !is_blank((unsigned char)in.p[0]);
    if (in.len > 0) {
        begin_change(e, typing);
        splice(e, e->cur, e->cur, in.p, in.len);
        e->last = in.len <= 16 ? LAST_TYPE : LAST_OTHER;
    }
    buf_release(&in);
}

void edit_paste(struct edit *e, const char *text, size_t len) {
    struct buf in = {0};
    size_t lines = 0;
    clean(&in, text, len);
    for (size_t i = 0; i < in.len; i++)
        lines += in.p[i] == '\n';
    if (in.len == 0)
        goto out;
    begin_change(e, false);
    if ((lines >= EDIT_PASTE_LINES || in.len > EDIT_PASTE_BYTES) && e->n_paste < PASTE_MAX) {
        char unit[4];
        size_t n = utf8_encode(PASTE_FIRST + (uint32_t)e->n_paste, unit);
        e->paste = xreallocarray(e->paste, e->n_paste + 1, sizeof *e->paste);
        e->paste[e->n_paste++] = buf_take(&in);
        splice(e, e->cur, e->cur, unit, n);
    } else {
        splice(e, e->cur, e->cur, in.p, in.len);
    }
    e->last = LAST_OTHER;
out:
    buf_release(&in);
}

bool edit_paste_expand(struct edit *e) {
    size_t number, at = e->cur;
    e->last = LAST_OTHER;
    if (!edit_is_paste(buf_str(&e->text) + at, e->text.len - at, &number)) {
        if (at < PASTE_LEN)
            return false;
        at -= PASTE_LEN;
        if (!edit_is_paste(buf_str(&e->text) + at, PASTE_LEN, &number))
            return false;
    }
    begin_change(e, false);
    splice(e, at, at + PASTE_LEN, e->paste[number], strlen(e->paste[number]));
    return true;
}

/* -- moving -- */

static bool move_to(struct edit *e, size_t pos) {
    e->last = LAST_OTHER;
    e->goal = -1;
    if (pos == e->cur)
        return false;
    e->cur = pos;
    return true;
}

bool edit_left(struct edit *e) {
    return move_to(e, e->cur > 0 ? prev(e, e->cur) : 0);
}

bool edit_right(struct edit *e) {
    return move_to(e, edit_next(e, e->cur));
}

bool edit_word_left(struct edit *e) {
    return move_to(e, word_left(e, e->cur, is_word));
}

bool edit_word_right(struct edit *e) {
    return move_to(e, word_right(e, e->cur));
}

bool edit_line_start(struct edit *e) {
    return move_to(e, line_start(e, e->cur));
}

bool edit_line_end(struct edit *e) {
    return move_to(e, line_end(e, e->cur));
}

bool edit_start(struct edit *e) {
    return move_to(e, 0);
}

bool edit_end(struct edit *e) {
    return move_to(e, e->text.len);
}

/* -- deleting and killing -- */

bool edit_backspace(struct edit *e) {
    if (e->cur == 0)
        return false;
    begin_change(e, false);
    e->last = LAST_OTHER;
    splice(e, prev(e, e->cur), e->cur, "", 0);
    return true;
}

bool edit_delete(struct edit *e) {
    if (e->cur == e->text.len)
        return false;
    begin_change(e, false);
    e->last = LAST_OTHER;
    splice(e, e->cur, edit_next(e, e->cur), "", 0);
    return true;
}

/* Puts [from, to) into the kill ring; kills in a row make one entry. */
static void keep_kill(struct edit *e, size_t from, size_t to) {
    const char *s = buf_str(&e->text) + from;
    bool before = to == e->cur && from < e->cur;
    if (e->last == LAST_KILL && e->n_kill > 0) {
        char *old = e->kill[e->kill_at];
        e->kill[e->kill_at] = before ? xasprintf("%.*s%s", (int)(to - from), s, old)
                                     : xasprintf("%s%.*s", old, (int)(to - from), s);
        free(old);
        return;
    }
    e->kill_at = (e->kill_at + 1) % EDIT_KILLS;
    free(e->kill[e->kill_at]);
    e->kill[e->kill_at] = xstrndup(s, to - from);
    if (e->n_kill < EDIT_KILLS)
        e->n_kill++;
}

static bool kill_range(struct edit *e, size_t from, size_t to) {
    if (from >= to)
        return false;
    keep_kill(e, from, to);
    begin_change(e, false);
    splice(e, from, to, "", 0);
    e->last = LAST_KILL;
    return true;
}

static bool not_blank(uint32_t cp) {
    return !is_blank(cp);
}

bool edit_kill_word_left(struct edit *e) {
    return kill_range(e, word_left(e, e->cur, is_word), e->cur);
}

bool edit_kill_blank_left(struct edit *e) {
    return kill_range(e, word_left(e, e->cur, not_blank), e->cur);
}

bool edit_kill_word_right(struct edit *e) {
    return kill_range(e, e->cur, word_right(e, e->cur));
}

bool edit_kill_to_start(struct edit *e) {
    return kill_range(e, line_start(e, e->cur), e->cur);
}

bool edit_kill_to_end(struct edit *e) {
    size_t end = line_end(e, e->cur);
    return kill_range(e, e->cur, end == e->cur && end < e->text.len ? end + 1 : end);
}

bool edit_clear(struct edit *e) {
    e->last = LAST_OTHER;
    return kill_range(e, 0, e->text.len);
}

bool edit_set_mark(struct edit *e) {
    e->mark = e->cur;
    e->has_mark = true;
    e->last = LAST_OTHER;
    return true;
}

static bool region(struct edit *e, size_t *from, size_t *to) {
    *from = e->mark < e->cur ? e->mark : e->cur;
    *to = e->mark < e->cur ? e->cur : e->mark;
    e->last = LAST_OTHER;
    return e->has_mark && *from < *to;
}

bool edit_kill_region(struct edit *e) {
    size_t from, to;
    return region(e, &from, &to) && kill_range(e, from, to);
}

bool edit_copy_region(struct edit *e) {
    size_t from, to;
    if (!region(e, &from, &to))
        return false;
    keep_kill(e, from, to);
    e->has_mark = false;
    return true;
}

static void yank_entry(struct edit *e, size_t from, size_t to) {
    const char *text = e->kill[(e->kill_at - e->yank_i + EDIT_KILLS) % EDIT_KILLS];
    begin_change(e, false);
    splice(e, from, to, text, strlen(text));
    e->yank_from = from;
    e->last = LAST_YANK;
}

bool edit_yank(struct edit *e) {
    if (e->n_kill == 0)
        return false;
    e->yank_i = 0;
    yank_entry(e, e->cur, e->cur);
    return true;
}

bool edit_yank_pop(struct edit *e) {
    if (e->last != LAST_YANK || e->n_kill < 2)
        return false;
    e->yank_i = (e->yank_i + 1) % e->n_kill;
    yank_entry(e, e->yank_from, e->cur);
    return true;
}

/* -- exchanging and case -- */

/* Exchanges [a, b) and [c, d), b <= c; the cursor goes behind them. */
static void exchange(struct edit *e, size_t a, size_t b, size_t c, size_t d) {
    const char *s = buf_str(&e->text);
    char *out = xasprintf("%.*s%.*s%.*s", (int)(d - c), s + c, (int)(c - b), s + b,
                          (int)(b - a), s + a);
    begin_change(e, false);
    e->last = LAST_OTHER;
    splice(e, a, d, out, d - a);
    free(out);
}

bool edit_transpose(struct edit *e) {
    size_t mid = e->cur;
    if (mid > 0 && (mid == e->text.len || e->text.p[mid] == '\n'))
        mid = prev(e, mid);
    if (mid == 0 || mid == e->text.len || e->text.p[mid - 1] == '\n')
        return false;
    exchange(e, prev(e, mid), mid, mid, edit_next(e, mid));
    return true;
}

bool edit_transpose_words(struct edit *e) {
    size_t d = word_right(e, e->cur), c = word_left(e, d, is_word),
           a = word_left(e, c, is_word), b = word_right(e, a);
    if (a >= b || b > c || c >= d)
        return false;
    exchange(e, a, b, c, d);
    return true;
}

enum casing { UPPER, LOWER, CAPITAL };

static bool case_word(struct edit *e, enum casing how) {
    size_t from = e->cur, to = word_right(e, from);
    if (from == to)
        return false;
    struct buf out = {0};
    bool first = true;
    for (size_t i = from; i < to;) {
        uint32_t cp;
        i += utf8_decode(e->text.p + i, to - i, &cp);
        bool up = how == UPPER || (how == CAPITAL && first);
        buf_addcp(&out, (uint32_t)(up ? utf8proc_toupper((utf8proc_int32_t)cp)
                                      : utf8proc_tolower((utf8proc_int32_t)cp)));
        first = first && !is_word(cp);
    }
    begin_change(e, false);
    e->last = LAST_OTHER;
    splice(e, from, to, out.p, out.len);
    buf_release(&out);
    return true;
}

bool edit_upcase_word(struct edit *e) {
    return case_word(e, UPPER);
}

bool edit_downcase_word(struct edit *e) {
    return case_word(e, LOWER);
}

bool edit_capitalize_word(struct edit *e) {
    return case_word(e, CAPITAL);
}
