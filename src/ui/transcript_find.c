/*
 * transcript_find.c - search in the transcript.
 *
 * Text and query are folded: NFKD, case folded, runs of blanks and line ends to one blank, and
 * the marks * and ` left out unless the query has them, so that a query finds what the eye
 * reads ("bold text" in "**bold** text"). A map leads from folded bytes back to the source.
 * Texts are folded when they are searched and not kept: ten megabytes of conversation take some
 * tens of milliseconds, a second copy of everything would be there for ever. A text that
 * streams is scanned on from a bit before the end of the last scan.
 */
#include "base/utf8.h"
#include "ui/transcript_impl.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define MAX_QUERY 1024

struct folding {
    struct buf text;
    uint32_t *map; /* [text.len] source byte of each folded byte */
    size_t cap;
};

static void put(struct folding *f, const char *s, size_t n, uint32_t src) {
    if (f->text.len + n > f->cap) {
        f->cap = 2 * f->cap + n + 256;
        f->map = xreallocarray(f->map, f->cap, sizeof *f->map);
    }
    for (size_t i = 0; i < n; i++)
        f->map[f->text.len + i] = src;
    buf_add(&f->text, s, n);
}

static size_t put_wide(struct folding *f, const char *s, size_t len, uint32_t src) {
    utf8proc_int32_t out[32];
    uint32_t cp;
    int last = 0;
    size_t used = utf8_decode(s, len, &cp);
    utf8proc_ssize_t n = utf8proc_decompose_char(
        (utf8proc_int32_t)cp, out, 32,
        UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT | UTF8PROC_CASEFOLD | UTF8PROC_IGNORE, &last);
    for (utf8proc_ssize_t i = 0; i < n && n <= 32; i++) {
        char bytes[4];
        put(f, bytes, utf8_encode((uint32_t)out[i], bytes), src);
    }
    return used;
}

/* Folds s[0..len), which is source byte base and on. */
static void fold(struct folding *f, const char *s, size_t len, uint32_t base, bool skip_marks) {
    size_t i = 0;
    while (i < len) {
        unsigned char c = (unsigned char)s[i];
        uint32_t src = base + (uint32_t)i;
        if (c >= 0x80) {
            i += put_wide(f, s + i, len - i, src);
            continue;
        }
        i++;
        if (skip_marks && (c == '*' || c == '`'))
            continue;
        char lower = isspace(c) ? ' ' : (char)tolower(c);
        if (lower == ' ' && f->text.len > 0 && f->text.p[f->text.len - 1] == ' ')
            continue;
        put(f, &lower, 1, src);
    }
}

static void folding_release(struct folding *f) {
    buf_release(&f->text);
    free(f->map);
}

static void add_match(struct tr_msg *m, uint32_t from, uint32_t to) {
    if (m->n_match == m->cap_match) {
        m->cap_match = m->cap_match ? 2 * m->cap_match : 8;
        m->match = xreallocarray(m->match, m->cap_match, sizeof *m->match);
    }
    m->match[m->n_match++] = (struct tr_range){.from = from, .to = to};
}

void tr_scan(struct transcript *t, struct tr_msg *m) {
    size_t len, from = 0;
    const char *text = layout_source(m->l, &len);
    if (m->scanned_for == t->query_no && m->scanned_len == len)
        return;
    if (m->scanned_for != t->query_no || len < m->scanned_len || t->folded.len == 0) {
        m->n_match = 0;
    } else { /* it grew */
        size_t margin = 16 * t->folded.len + 256;
        from = m->scanned_len > margin ? m->scanned_len - margin : 0;
        while (m->n_match > 0 && m->match[m->n_match - 1].to > from)
            from = m->match[--m->n_match].from;
        while (from > 0 && ((unsigned char)text[from] & 0xc0) == 0x80)
            from--;
    }
    m->scanned_for = t->query_no;
    m->scanned_len = len;
    if (t->folded.len == 0)
        return;
    struct folding f = {0};
    fold(&f, text + from, len - from, (uint32_t)from, t->fold_marks);
    const char *p = buf_str(&f.text), *end = p + f.text.len;
    while (p < end && (p = memmem(p, (size_t)(end - p), t->folded.p, t->folded.len)) != NULL) {
        size_t at = (size_t)(p - f.text.p), last = at + t->folded.len - 1;
        uint32_t cp, to = f.map[last];
        to += (uint32_t)utf8_decode(text + to, len - to, &cp);
        add_match(m, f.map[at], to);
        p += t->folded.len;
    }
    folding_release(&f);
}

/* Goes to match k of message i. */
static void stand_on(struct transcript *t, size_t i, size_t k) {
    struct tr_msg *m = &t->v[i];
    uint32_t at = m->match[k].from;
    t->found = true;
    t->found_id = m->id;
    t->found_at = at;
    tr_show_row(t, i, tr_before(t, i) + layout_line_at(tr_layout(t, i), at));
}

/* The first match at or behind byte `at` of message i, going on around the end. */
static bool find_forward(struct transcript *t, size_t i, uint32_t at) {
    for (size_t n = 0; n <= t->n; n++, i = (i + 1) % t->n, at = 0) {
        tr_scan(t, &t->v[i]);
        for (size_t k = 0; k < t->v[i].n_match; k++)
            if (t->v[i].match[k].from >= at) {
                stand_on(t, i, k);
                return true;
            }
    }
    return false;
}

static bool find_backward(struct transcript *t, size_t i, uint32_t at) {
    for (size_t n = 0; n <= t->n; n++, i = (i + t->n - 1) % t->n, at = UINT32_MAX) {
        tr_scan(t, &t->v[i]);
        for (size_t k = t->v[i].n_match; k-- > 0;)
            if (t->v[i].match[k].from < at) {
                stand_on(t, i, k);
                return true;
            }
    }
    return false;
}

static void set_query(struct transcript *t, const char *query) {
    struct folding f = {0};
    size_t len = strnlen(query, MAX_QUERY);
    for (; len > 0 && isspace((unsigned char)*query); len--)
        query++;
    while (len > 0 && isspace((unsigned char)query[len - 1]))
        len--;
    t->fold_marks = !memchr(query, '*', len) && !memchr(query, '`', len);
    fold(&f, query, len, 0, false);
    buf_clear(&t->folded);
    buf_add(&t->folded, buf_str(&f.text), f.text.len);
    folding_release(&f);
    char *kept = xstrndup(query, len);
    free(t->query);
    t->query = kept;
    t->query_no++;
    t->found = false;
}

size_t transcript_search(struct transcript *t, const char *query) {
    set_query(t, query ? query : "");
    if (t->folded.len == 0 || t->n == 0)
        return 0;
    size_t hits = 0;
    for (size_t i = 0; i < t->n; i++) {
        tr_scan(t, &t->v[i]);
        hits += t->v[i].n_match > 0;
    }
    if (hits == 0)
        return 0;
    tr_find_view(t);
    size_t top = t->view[0].msg, before = tr_before(t, top), row = t->view[0].row;
    struct layout *l = tr_layout(t, top);
    uint32_t at = 0;
    if (row > before && layout_n_lines(l) > 0) {
        size_t line = row - before, last = layout_n_lines(l) - 1;
        at = layout_line(l, line < last ? line : last)->src;
    }
    find_forward(t, top, at);
    return hits;
}

const char *transcript_query(const struct transcript *t) {
    return t->query;
}

bool transcript_search_step(struct transcript *t, int step) {
    if (t->folded.len == 0 || t->n == 0)
        return false;
    tr_find_view(t);
    size_t i = t->found ? tr_index(t, t->found_id) : t->view[0].msg;
    uint32_t at = t->found ? t->found_at : 0;
    return step < 0 ? find_backward(t, i, at) : find_forward(t, i, at + t->found);
}
