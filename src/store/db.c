/*
 * db.c - statements, transactions and errors of the store.
 *
 * Statements are prepared once and kept: a reply that streams is saved four times a second, a
 * list is read at every change. They are found by the address of their SQL text, a linear
 * search over some forty pointers.
 *
 * Writes begin with BEGIN IMMEDIATE, so that two processes queue up at the start of a
 * transaction (where the busy timeout waits) instead of failing in the middle of it.
 * store_begin() makes the writes inside it part of one transaction: they only count depth. When
 * SQLite rolled back by itself (disk full), the commit that follows is refused.
 *
 * An error's text has three parts: the file, what happened in plain words with what to do, and
 * SQLite's own words where they say more.
 */
#include "store/db.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum status db_error_code(const char *path, int rc, int sys_errno, const char *detail,
                          const char *doing, struct err *err) {
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return err_set(err, ST_DB,
                       "%s: the disk is full while %s; free some space, what was saved before "
                       "is safe",
                       path, doing);
    case SQLITE_READONLY:
        return err_set(err, ST_DB,
                       "%s: cannot be written while %s; check the permissions of the file and "
                       "its folder",
                       path, doing);
    case SQLITE_CANTOPEN:
        return err_set(err, ST_DB,
                       "%s: cannot be opened (%s); check the permissions of the file and its "
                       "folder",
                       path, sys_errno ? strerror(sys_errno) : detail);
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return err_set(err, ST_DB, "%s: access denied while %s; check the permissions", path,
                       doing);
    case SQLITE_NOTADB:
        return err_set(err, ST_DB,
                       "%s: is not a database of llmchat; move it away and a new one is made",
                       path);
    case SQLITE_CORRUPT:
        return err_set(err, ST_DB,
                       "%s: the database is damaged (%s); it was left as it is: copy it, then "
                       "try `sqlite3 COPY .recover`, or move it away and a new one is made",
                       path, detail);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return err_set(err, ST_BUSY,
                       "%s: another program has kept the database locked for %d s while %s; "
                       "close it or try again",
                       path, STORE_BUSY_MS / 1000, doing);
    case SQLITE_IOERR:
        return err_set(err, ST_DB,
                       "%s: input/output error while %s (%s); check the disk, what was saved "
                       "before is safe",
                       path, doing, sys_errno ? strerror(sys_errno) : detail);
    case SQLITE_NOMEM:
        return err_set(err, ST_NOMEM, "%s: out of memory while %s", path, doing);
    case SQLITE_TOOBIG:
        return err_set(err, ST_LIMIT, "%s: a text is too long while %s", path, doing);
    default:
        return err_set(err, ST_DB, "%s: %s while %s", path, detail, doing);
    }
}

enum status db_error(struct store *s, struct err *err, const char *doing) {
    int rc = sqlite3_extended_errcode(s->db);
    int sys = (rc & 0xff) == SQLITE_IOERR || (rc & 0xff) == SQLITE_CANTOPEN
                  ? sqlite3_system_errno(s->db)
                  : 0;
    return db_error_code(s->path, rc, sys, sqlite3_errmsg(s->db), doing, err);
}

/* What a statement does, for the message: its first word decides. */
static const char *doing(const char *sql) {
    return strncmp(sql, "SELECT", 6) == 0 || strncmp(sql, "WITH", 4) == 0 ||
                   strncmp(sql, "PRAGMA", 6) == 0
               ? "reading"
               : "saving";
}

static enum status stmt_find(struct store *s, const char *sql, sqlite3_stmt **out,
                             struct err *err) {
    for (int i = 0; i < s->n_stmt; i++)
        if (s->stmt[i].sql == sql) {
            *out = s->stmt[i].stmt;
            return ST_OK;
        }
    assert(s->n_stmt < STORE_MAX_STMT);
    if (sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL) != SQLITE_OK)
        return db_error(s, err, doing(sql));
    s->stmt[s->n_stmt].sql = sql;
    s->stmt[s->n_stmt++].stmt = *out;
    return ST_OK;
}

static int bind_all(sqlite3_stmt *q, const char *types, va_list ap) {
    int rc = SQLITE_OK;
    for (int i = 1; *types && rc == SQLITE_OK; types++, i++) {
        int64_t v;
        const char *p;
        switch (*types) {
        case 'i':
            rc = sqlite3_bind_int64(q, i, va_arg(ap, int64_t));
            break;
        case 'n':
            v = va_arg(ap, int64_t);
            rc = v ? sqlite3_bind_int64(q, i, v) : sqlite3_bind_null(q, i);
            break;
        case 's':
            p = va_arg(ap, const char *);
            rc = sqlite3_bind_text(q, i, p ? p : "", -1, SQLITE_STATIC);
            break;
        case 'b':
            p = va_arg(ap, const char *);
            rc = sqlite3_bind_text64(q, i, p, va_arg(ap, size_t), SQLITE_STATIC, SQLITE_UTF8);
            break;
        default:
            assert(!"unknown parameter type");
        }
    }
    return rc;
}

static enum status queryv(struct store *s, sqlite3_stmt **out, struct err *err, const char *sql,
                          const char *types, va_list ap) {
    *out = NULL;
    sqlite3_stmt *q;
    CHECK(stmt_find(s, sql, &q, err));
    sqlite3_reset(q);
    if (bind_all(q, types, ap) != SQLITE_OK) {
        enum status st = db_error(s, err, doing(sql));
        db_done(q);
        return st;
    }
    *out = q;
    return ST_OK;
}

enum status db_query(struct store *s, sqlite3_stmt **out, struct err *err, const char *sql,
                     const char *types, ...) {
    va_list ap;
    va_start(ap, types);
    enum status st = queryv(s, out, err, sql, types, ap);
    va_end(ap);
    return st;
}

enum status db_step(struct store *s, sqlite3_stmt *q, bool *row, struct err *err) {
    int rc = sqlite3_step(q);
    *row = rc == SQLITE_ROW;
    if (rc == SQLITE_ROW || rc == SQLITE_DONE)
        return ST_OK;
    return db_error(s, err, doing(sqlite3_sql(q)));
}

void db_done(sqlite3_stmt *q) {
    if (!q)
        return;
    sqlite3_reset(q);
    sqlite3_clear_bindings(q);
}

enum status db_number(struct store *s, sqlite3_stmt *q, int64_t *out, struct err *err) {
    bool row;
    enum status st = db_step(s, q, &row, err);
    *out = row ? sqlite3_column_int64(q, 0) : 0;
    db_done(q);
    return st;
}

enum status db_exec(struct store *s, int *changed, struct err *err, const char *sql,
                    const char *types, ...) {
    va_list ap;
    sqlite3_stmt *q;
    va_start(ap, types);
    enum status st = queryv(s, &q, err, sql, types, ap);
    va_end(ap);
    CHECK(st);
    bool row;
    do
        st = db_step(s, q, &row, err);
    while (st == ST_OK && row);
    if (changed)
        *changed = st == ST_OK ? sqlite3_changes(s->db) : 0;
    db_done(q);
    return st;
}

enum status db_script(struct store *s, const char *sql, struct err *err) {
    if (sqlite3_exec(s->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return db_error(s, err, doing(sql));
    return ST_OK;
}

char *db_text(sqlite3_stmt *q, int col) {
    const unsigned char *p = sqlite3_column_text(q, col);
    return xstrdup(p ? (const char *)p : "");
}

enum status txn_begin(struct store *s, struct err *err) {
    if (s->depth == 0)
        CHECK(db_script(s, "BEGIN IMMEDIATE", err));
    s->depth++;
    return ST_OK;
}

enum status txn_end(struct store *s, enum status st, struct err *err) {
    assert(s->depth > 0);
    if (--s->depth > 0)
        return st;
    if (st == ST_OK) {
        if (sqlite3_get_autocommit(s->db))
            return err_set(err, ST_DB, "%s: the transaction was undone before it ended",
                           s->path);
        st = db_script(s, "COMMIT", err);
    }
    if (!sqlite3_get_autocommit(s->db))
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return st;
}

enum status store_begin(struct store *s, struct err *err) {
    return txn_begin(s, err);
}

enum status store_commit(struct store *s, struct err *err) {
    return txn_end(s, ST_OK, err);
}

void store_rollback(struct store *s) {
    if (s->depth > 0)
        txn_end(s, ST_CANCELLED, NULL);
}
