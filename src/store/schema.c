/*
 * schema.c - the tables, and the way from an older version to this one.
 *
 * The version is SQLite's user_version. Step i of the table brings a database from version i to
 * i + 1; a new database takes all of them, so there is one way only and the tests walk it. All
 * steps run in one transaction, after a copy of the database was made beside it: a migration
 * that fails leaves everything as it was.
 *
 * message.parent is NULL for a root and always smaller than the message's own id: a tree can
 * have no cycle, and "order by id" puts parents before children. Its reference is deferred, not
 * cascading: SQLite cascades recursively and gives up at a depth of 1000, a conversation may be
 * deeper; a purge deletes all messages of a conversation in one statement.
 *
 * message_fts holds the words of finished messages as words.c folds them. It keeps its own
 * content: a table without content must be told the old text to delete a row, word for word,
 * and a new utf8proc may fold it differently.
 */
#include "store/db.h"

#include "base/path.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct schema_step schema_steps[] = {
    {.sql = "CREATE TABLE conversation ("
            "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
            "  title TEXT NOT NULL DEFAULT '',"
            "  model TEXT NOT NULL DEFAULT '',"
            "  system TEXT NOT NULL DEFAULT '',"
            "  settings TEXT NOT NULL DEFAULT '',"
            "  draft TEXT NOT NULL DEFAULT '',"
            "  leaf INTEGER REFERENCES message(id) DEFERRABLE INITIALLY DEFERRED,"
            "  keep_from INTEGER NOT NULL DEFAULT 0," /* message id, 0: the model sees all */
            "  created INTEGER NOT NULL,"             /* Unix ms, as all times */
            "  updated INTEGER NOT NULL,"
            "  deleted INTEGER NOT NULL DEFAULT 0" /* when, 0: not */
            ") STRICT;"
            "CREATE INDEX conversation_updated ON conversation(updated, id) WHERE deleted = 0;"
            "CREATE INDEX conversation_leaf ON conversation(leaf);"
            "CREATE TABLE message ("
            "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
            "  conv INTEGER NOT NULL REFERENCES conversation(id),"
            "  parent INTEGER REFERENCES message(id) DEFERRABLE INITIALLY DEFERRED,"
            "  role TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant', 'tool')),"
            "  text TEXT NOT NULL,"
            "  state TEXT NOT NULL CHECK (state IN"
            "    ('complete', 'streaming', 'stopped', 'interrupted', 'failed')),"
            "  created INTEGER NOT NULL,"
            "  model TEXT NOT NULL DEFAULT '',"
            "  settings TEXT NOT NULL DEFAULT '',"
            "  finish TEXT NOT NULL DEFAULT '',"
            "  writer TEXT NOT NULL DEFAULT ''," /* the process that streams, writer.c */
            "  seed INTEGER NOT NULL DEFAULT 0,"
            "  prompt_tok INTEGER NOT NULL DEFAULT 0,"
            "  cached_tok INTEGER NOT NULL DEFAULT 0,"
            "  completion_tok INTEGER NOT NULL DEFAULT 0,"
            "  prompt_us INTEGER NOT NULL DEFAULT 0,"
            "  decode_us INTEGER NOT NULL DEFAULT 0,"
            "  ttft_us INTEGER NOT NULL DEFAULT 0,"
            "  CHECK (parent IS NULL OR parent < id)"
            ") STRICT;"
            "CREATE INDEX message_conv ON message(conv);"
            "CREATE INDEX message_tree ON message(parent, conv);"
            "CREATE INDEX message_streaming ON message(id) WHERE state = 'streaming';"
            "CREATE VIRTUAL TABLE message_fts USING fts5("
            "  words, tokenize = \"unicode61 remove_diacritics 0 categories 'L* N* M* Co'\");"
            "CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;"},
};
const int n_schema_steps = sizeof schema_steps / sizeof schema_steps[0];

static enum status pragma_int(struct store *s, const char *sql, int64_t *out, struct err *err) {
    sqlite3_stmt *q;
    CHECK(db_query(s, &q, err, sql, ""));
    return db_number(s, q, out, err);
}

/* Copies page by page through a second, read-only connection: the first one holds the write
 * lock, so that the copy is exactly what the migration starts from. */
static enum status copy_pages(struct store *s, const char *to, struct err *err) {
    sqlite3 *src = NULL, *dst = NULL;
    enum status st = ST_OK;
    int rc = sqlite3_open_v2(s->path, &src, SQLITE_OPEN_READONLY, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_open_v2(to, &dst, SQLITE_OPEN_READWRITE, NULL);
    if (rc == SQLITE_OK) {
        sqlite3_backup *b = sqlite3_backup_init(dst, "main", src, "main");
        if (b) {
            sqlite3_backup_step(b, -1);
            rc = sqlite3_backup_finish(b);
        } else {
            rc = sqlite3_errcode(dst);
        }
    }
    if (rc != SQLITE_OK)
        st = db_error_code(to, rc, 0, sqlite3_errstr(rc), "copying before a migration", err);
    sqlite3_close(dst);
    sqlite3_close(src);
    return st;
}

static enum status copy_before(struct store *s, int64_t version, struct err *err) {
    char *to = xasprintf("%s.v%d.bak", s->path, (int)version);
    char *tmp = xasprintf("%s.tmp", to);
    enum status st;
    TRY(file_write_atomic(tmp, "", 0, err)); /* mode 0600 from the first byte on */
    TRY(copy_pages(s, tmp, err));
    if (rename(tmp, to) != 0)
        st = err_set(err, ST_IO, "%s: cannot be put in place: %s", to, strerror(errno));
out:
    if (st != ST_OK)
        unlink(tmp);
    free(tmp);
    free(to);
    return st;
}

static enum status run_steps(struct store *s, const struct schema_step *steps, int64_t from,
                             int n, struct err *err) {
    for (int64_t v = from; v < n; v++) {
        CHECK(db_script(s, steps[v].sql, err));
        if (steps[v].run)
            CHECK(steps[v].run(s, err));
    }
    char sql[128];
    snprintf(sql, sizeof sql, "PRAGMA application_id = %d; PRAGMA user_version = %d;",
             STORE_APPLICATION_ID, n);
    return db_script(s, sql, err);
}

enum status schema_migrate(struct store *s, const struct schema_step *steps, int n,
                           struct err *err) {
    int64_t app, version, objects;
    CHECK(pragma_int(s, "PRAGMA application_id", &app, err));
    CHECK(pragma_int(s, "PRAGMA user_version", &version, err));
    if (app == STORE_APPLICATION_ID && version == n)
        return ST_OK;
    /* Another process may be at it at this moment: lock first, then look again. */
    CHECK(txn_begin(s, err));
    enum status st = ST_OK;
    TRY(pragma_int(s, "PRAGMA application_id", &app, err));
    TRY(pragma_int(s, "PRAGMA user_version", &version, err));
    TRY(pragma_int(s, "SELECT count(*) FROM sqlite_schema", &objects, err));
    if (app != STORE_APPLICATION_ID && (app != 0 || version != 0 || objects != 0)) {
        st = err_set(err, ST_DB,
                     "%s: is a database of another program (application id 0x%x), not of "
                     "llmchat; it was left as it is, move it away or name another file",
                     s->path, (unsigned)app);
        goto out;
    }
    if (version > n) {
        st = err_set(err, ST_DB,
                     "%s: made by a newer llmchat (format %d, this one knows %d); it was left "
                     "as it is, update llmchat to open it",
                     s->path, (int)version, n);
        goto out;
    }
    if (version < n && objects != 0 && strcmp(s->path, ":memory:") != 0)
        TRY(copy_before(s, version, err));
    if (version < n || app == 0)
        TRY(run_steps(s, steps, version, n, err));
out:
    return txn_end(s, st, err);
}
