/*
 * edit_history.c - what was sent before, in memory and in a file.
 *
 * One entry a line; '\n', '\r' and '\\' are written as two characters. The file is read again
 * before it is written, so that entries of another llmchat stay, and replaced whole. Each step
 * through the history is a change that can be undone: neither a draft nor a changed entry is
 * ever lost.
 */
#include "base/path.h"
#include "base/utf8.h"
#include "ui/edit_impl.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_MAX ((size_t)EDIT_HISTORY_MAX * (2 * EDIT_HISTORY_ENTRY + 1))

struct edit_history {
    char *path;          /* NULL: memory only */
    struct strlist list; /* oldest first */
};

static void unescape(struct strlist *out, const char *s, size_t len) {
    struct buf b = {0};
    for (size_t i = 0; i < len; i++) {
        char c = s[i];
        if (c == '\\' && i + 1 < len) {
            c = s[++i];
            c = c == 'n' ? '\n' : c == 'r' ? '\r' : c;
        }
        if (c)
            buf_addc(&b, c);
    }
    struct buf valid = {0};
    utf8_scrub(&valid, buf_str(&b), b.len);
    if (valid.len > 0 && valid.len <= EDIT_HISTORY_ENTRY)
        strlist_addn(out, valid.p, valid.len);
    buf_release(&valid);
    buf_release(&b);
}

static enum status read_file(const char *path, struct strlist *out, struct err *err) {
    struct buf b = {0};
    if (access(path, F_OK) != 0)
        return ST_OK;
    enum status st = file_read(path, FILE_MAX, &b, err);
    for (size_t at = 0; st == ST_OK && at < b.len;) {
        const char *nl = memchr(b.p + at, '\n', b.len - at);
        size_t end = nl ? (size_t)(nl - b.p) : b.len;
        unescape(out, b.p + at, end - at);
        at = end + 1;
    }
    buf_release(&b);
    return st;
}

static void trim(struct strlist *l) {
    size_t drop = l->n > EDIT_HISTORY_MAX ? l->n - EDIT_HISTORY_MAX : 0;
    for (size_t i = 0; i < drop; i++)
        free(l->v[i]);
    if (drop > 0)
        memmove(l->v, l->v + drop, (l->n - drop) * sizeof *l->v);
    l->n -= drop;
}

enum status edit_history_open(const char *path, struct edit_history **out, struct err *err) {
    struct edit_history *h = xcalloc(1, sizeof *h);
    *out = h;
    if (!path)
        return ST_OK;
    h->path = xstrdup(path);
    enum status st = read_file(path, &h->list, err);
    trim(&h->list);
    return st;
}

void edit_history_free(struct edit_history *h) {
    if (!h)
        return;
    free(h->path);
    strlist_release(&h->list);
    free(h);
}

static enum status write_file(const struct edit_history *h, struct err *err) {
    struct buf b = {0};
    for (size_t i = 0; i < h->list.n; i++) {
        for (const char *p = h->list.v[i]; *p; p++) {
            if (*p == '\n' || *p == '\r' || *p == '\\')
                buf_addc(&b, '\\');
            buf_addc(&b, *p == '\n' ? 'n' : *p == '\r' ? 'r' : *p);
        }
        buf_addc(&b, '\n');
    }
    enum status st = file_write_atomic(h->path, buf_str(&b), b.len, err);
    buf_release(&b);
    return st;
}

enum status edit_history_add(struct edit_history *h, const char *text, struct err *err) {
    size_t len = strlen(text);
    if (len > EDIT_HISTORY_ENTRY || strspn(text, " \t\r\n") == len)
        return ST_OK;
    enum status st = ST_OK;
    if (h->path) {
        struct strlist now = {0};
        st = read_file(h->path, &now, err);
        if (st == ST_OK && now.n > 0) {
            strlist_release(&h->list);
            h->list = now;
        } else {
            strlist_release(&now);
        }
    }
    if (h->list.n > 0 && strcmp(h->list.v[h->list.n - 1], text) == 0)
        return st;
    strlist_add(&h->list, text);
    trim(&h->list);
    return h->path && st == ST_OK ? write_file(h, err) : st;
}

size_t edit_history_len(const struct edit_history *h) {
    return h->list.n;
}

/* Shows entry pos (0: the draft). */
static void show(struct edit *e, const struct edit_history *h, size_t pos) {
    e->history_pos = pos;
    if (pos > 0) {
        edit_set(e, h->list.v[h->list.n - pos]);
        return;
    }
    edit_replace_all(e, e->draft ? e->draft : "", e->draft ? strlen(e->draft) : 0);
    free(e->draft);
    e->draft = NULL;
}

bool edit_history_prev(struct edit *e, struct edit_history *h) {
    if (e->history_pos >= h->list.n)
        return false;
    if (e->history_pos == 0) {
        free(e->draft);
        e->draft = xstrndup(buf_str(&e->text), e->text.len);
    }
    show(e, h, e->history_pos + 1);
    return true;
}

bool edit_history_next(struct edit *e, struct edit_history *h) {
    if (e->history_pos == 0)
        return false;
    show(e, h, e->history_pos - 1 < h->list.n ? e->history_pos - 1 : h->list.n);
    return true;
}
