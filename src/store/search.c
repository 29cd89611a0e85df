/*
 * search.c - finding messages by their words.
 *
 * message_fts has one row a finished message, under the message's id, with the folded words of
 * its text (words.c). It is written in the transaction that writes the message. A query becomes
 * quoted FTS5 phrases, so nothing a person types is syntax. Terms without any word in them (an
 * arrow, an emoji) are looked for in the raw text of the messages that the other terms leave,
 * or of all when there is no other term.
 *
 * Hits come as ids in the order of bm25, newest first among equals; text and snippet are read
 * only for those returned.
 *
 * A title is found as well, and such a conversation comes first, unless a message of it is a
 * hit already (most titles are the beginning of the first question). Titles are few and short:
 * they are read and compared one by one, which needs no second index that renaming could
 * forget.
 */
#include "base/utf8.h"
#include "store/db.h"
#include "store/words.h"

#include <stdlib.h>
#include <string.h>

enum { SNIPPET_BEFORE = 40, SNIPPET_AFTER = 120, SNIPPET_HIT = 200 }; /* code points */

enum status index_remove(struct store *s, int64_t id, struct err *err) {
    return db_exec(s, NULL, err, "DELETE FROM message_fts WHERE rowid = ?", "i", id);
}

enum status index_put(struct store *s, int64_t id, const char *text, struct err *err) {
    struct buf words = {0};
    words_index(&words, text, strlen(text));
    enum status st = index_remove(s, id, err);
    if (st == ST_OK && words.len > 0)
        st = db_exec(s, NULL, err, "INSERT INTO message_fts(rowid, words) VALUES(?, ?)", "ib",
                     id, buf_str(&words), words.len);
    buf_release(&words);
    return st;
}

void search_list_release(struct search_list *l) {
    for (size_t i = 0; i < l->n; i++) {
        free(l->v[i].title);
        free(l->v[i].snippet);
    }
    free(l->v);
    memset(l, 0, sizeof *l);
}

/* Appends s on one line: runs of blanks and control characters become one blank. */
static void add_line(struct buf *out, const char *s, size_t len) {
    uint32_t cp;
    for (size_t at = 0, n; at < len; at += n) {
        n = utf8_decode(s + at, len - at, &cp);
        if (cp > ' ' && !(cp >= 0x7f && cp < 0xa0) && cp != 0x2028 && cp != 0x2029)
            buf_addcp(out, cp);
        else if (out->len && out->p[out->len - 1] != ' ')
            buf_addc(out, ' ');
    }
}

static size_t forward(const char *s, size_t len, size_t at, int n) {
    uint32_t cp;
    while (n-- > 0 && at < len)
        at += utf8_decode(s + at, len - at, &cp);
    return at;
}

static size_t backward(const char *s, size_t at, int n) {
    while (n-- > 0 && at > 0) {
        at--;
        for (int k = 0; k < 3 && at > 0 && ((unsigned char)s[at] & 0xc0) == 0x80; k++)
            at--;
    }
    return at;
}

static char *snippet(const struct terms *t, const char *s) {
    size_t len = strlen(s), start = 0, end = 0;
    bool found = terms_find(t, s, len, &start, &end);
    size_t limit = forward(s, len, start, SNIPPET_HIT);
    if (end > limit)
        end = limit;
    size_t from = backward(s, start, SNIPPET_BEFORE);
    size_t to = forward(s, len, end, SNIPPET_AFTER);
    for (size_t i = from; from > 0 && i < start;
         i++) /* begin with a whole word where there is one */
        if (s[i] == ' ' || s[i] == '\n') {
            from = i + 1;
            break;
        }
    struct buf out = {0};
    if (from > 0)
        buf_adds(&out, "…");
    add_line(&out, s + from, start - from);
    if (found)
        buf_addc(&out, '\1');
    add_line(&out, s + start, end - start);
    if (found)
        buf_addc(&out, '\2');
    add_line(&out, s + end, to - end);
    if (to < len)
        buf_adds(&out, "…");
    return out.p ? buf_take(&out) : xstrdup("");
}

/* Whether the terms that the index can't answer occur in the text. */
static bool literals_occur(const struct terms *t, const char *s) {
    for (size_t i = 0; i < t->n; i++)
        if (t->v[i].literal && !strstr(s, t->v[i].literal))
            return false;
    return true;
}

static enum status start_query(struct store *s, const struct terms *t, const struct buf *match,
                               sqlite3_stmt **q, struct err *err) {
#define HIT "SELECT m.id, m.conv, c.title, m.role, m.created "
    if (match->len > 0)
        return db_query(s, q, err,
                        HIT "FROM message_fts f JOIN message m ON m.id = f.rowid "
                            "JOIN conversation c ON c.id = m.conv "
                            "WHERE message_fts MATCH ? AND c.deleted = 0 "
                            "ORDER BY f.rank, m.id DESC",
                        "s", match->p);
    return db_query(s, q, err,
                    HIT "FROM message m JOIN conversation c ON c.id = m.conv "
                        "WHERE instr(m.text, ?) > 0 AND c.deleted = 0 ORDER BY m.id DESC",
                    "s", t->v[0].literal);
#undef HIT
}

static enum status read_text(struct store *s, int64_t id, char **out, struct err *err) {
    sqlite3_stmt *q;
    bool row;
    *out = NULL;
    CHECK(db_query(s, &q, err, "SELECT text FROM message WHERE id = ?", "i", id));
    enum status st = db_step(s, q, &row, err);
    if (st == ST_OK)
        *out = row ? db_text(q, 0) : xstrdup("");
    db_done(q);
    return st;
}

static struct search_hit *new_hit(struct search_list *out) {
    if ((out->n & (out->n - 1)) == 0)
        out->v = xreallocarray(out->v, out->n ? out->n * 2 : 1, sizeof *out->v);
    return &out->v[out->n++];
}

static void add_hit(struct search_list *out, sqlite3_stmt *q, char *takes_snippet) {
    struct search_hit *h = new_hit(out);
    const char *role = (const char *)sqlite3_column_text(q, 3);
    *h = (struct search_hit){
        .message = sqlite3_column_int64(q, 0),
        .conv = sqlite3_column_int64(q, 1),
        .title = db_text(q, 2),
        .role = ROLE_USER,
        .created_ms = sqlite3_column_int64(q, 4),
        .snippet = takes_snippet,
    };
    role_parse(role ? role : "", &h->role);
}

/* -- titles -- */

struct id_set {
    int64_t *v; /* rising */
    size_t n, cap;
};

static int compare_ids(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Conversations with a message that has the words of the query. */
static enum status found_convs(struct store *s, const struct terms *t, const struct buf *match,
                               struct id_set *out, struct err *err) {
    sqlite3_stmt *q;
    bool row;
    enum status st;
    if (match->len > 0)
        CHECK(db_query(s, &q, err,
                       "SELECT DISTINCT m.conv FROM message_fts f JOIN message m "
                       "ON m.id = f.rowid WHERE message_fts MATCH ? ORDER BY m.conv",
                       "s", match->p));
    else
        CHECK(
            db_query(s, &q, err,
                     "SELECT DISTINCT conv FROM message WHERE instr(text, ?) > 0 ORDER BY conv",
                     "s", t->v[0].literal));
    while ((st = db_step(s, q, &row, err)) == ST_OK && row) {
        if (out->n == out->cap) {
            out->cap = out->cap ? out->cap * 2 : 32;
            out->v = xreallocarray(out->v, out->cap, sizeof *out->v);
        }
        out->v[out->n++] = sqlite3_column_int64(q, 0);
    }
    db_done(q);
    return st;
}

/* A row of search_titles. The message to show is where the conversation stands. */
static void add_title(struct search_list *out, sqlite3_stmt *q, const struct terms *t,
                      const char *title) {
    struct search_hit *h = new_hit(out);
    const char *role = (const char *)sqlite3_column_text(q, 3);
    *h = (struct search_hit){.conv = sqlite3_column_int64(q, 0),
                             .message = sqlite3_column_int64(q, 2),
                             .title = xstrdup(title),
                             .role = ROLE_USER,
                             .in_title = true,
                             .created_ms = sqlite3_column_int64(q, 4),
                             .snippet = snippet(t, title)};
    role_parse(role ? role : "", &h->role);
}

static enum status search_titles(struct store *s, const struct terms *t, size_t limit,
                                 const struct buf *match, struct search_list *out,
                                 struct err *err) {
    sqlite3_stmt *q;
    struct id_set known = {0};
    bool row, asked = false;
    enum status st = ST_OK;
    CHECK(db_query(s, &q, err,
                   "SELECT c.id, c.title, coalesce(c.leaf, 0), m.role, c.updated "
                   "FROM conversation c LEFT JOIN message m ON m.id = c.leaf "
                   "WHERE c.deleted = 0 ORDER BY c.updated DESC, c.id DESC",
                   ""));
    while (out->n < limit && (st = db_step(s, q, &row, err)) == ST_OK && row) {
        int64_t conv = sqlite3_column_int64(q, 0);
        const char *title = (const char *)sqlite3_column_text(q, 1);
        if (!title || !terms_all_in(t, title, strlen(title)))
            continue;
        if (!asked)
            TRY(found_convs(s, t, match, &known, err));
        asked = true;
        if (!known.n || !bsearch(&conv, known.v, known.n, sizeof conv, compare_ids))
            add_title(out, q, t, title);
    }
out:
    db_done(q);
    free(known.v);
    return st;
}

enum status store_search(struct store *s, const char *words, int limit, struct search_list *out,
                         struct err *err) {
    struct terms t;
    struct buf match = {0};
    sqlite3_stmt *q = NULL;
    bool row;
    enum status st = ST_OK;
    memset(out, 0, sizeof *out);
    terms_parse(&t, words);
    if (t.n == 0)
        goto out;
    terms_match(&t, &match);
    TRY(search_titles(s, &t, limit > 0 ? (size_t)limit : SIZE_MAX, &match, out, err));
    TRY(start_query(s, &t, &match, &q, err));
    while ((limit <= 0 || out->n < (size_t)limit) && (st = db_step(s, q, &row, err)) == ST_OK &&
           row) {
        char *text;
        TRY(read_text(s, sqlite3_column_int64(q, 0), &text, err));
        if (literals_occur(&t, text))
            add_hit(out, q, snippet(&t, text));
        free(text);
    }
out:
    db_done(q);
    if (st != ST_OK)
        search_list_release(out);
    buf_release(&match);
    terms_release(&t);
    return st;
}
