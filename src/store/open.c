/*
 * open.c - opening a database safely: what is it, may it be written, is it of our version.
 *
 * Before anything else the first 100 bytes are looked at through a read-only connection: a file
 * that is no database, of another program, or of a newer llmchat is refused before SQLite could
 * roll back a journal in it. The bytes are read through SQLite's own file object and not with
 * open(2): closing a descriptor of ours would drop the POSIX locks that another handle of this
 * process holds on the same file.
 *
 * A new file is made beside its place with mode 0600 and linked in, so that it is never there
 * with other permissions and no descriptor of it is closed later.
 *
 * Journal: SQLite before 3.51.3 can corrupt a WAL database when two connections reset the log
 * at once, so there the rollback journal is used. TRUNCATE and not DELETE: with
 * synchronous=FULL the truncation is synced, the removal of a directory entry is not. Triggers
 * and views are switched off, we have none and a prepared database shall not run any.
 */
#include "base/log.h"
#include "base/path.h"
#include "store/db.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_BYTES = 100, WAL_SAFE_VERSION = 3051003 };

static bool is_memory(const char *path) {
    return strcmp(path, ":memory:") == 0;
}

static enum status make_file(const char *path, struct err *err) {
    if (access(path, F_OK) == 0)
        return ST_OK;
    char *tmp = xasprintf("%s.new.%ld", path, (long)getpid());
    enum status st = ST_OK;
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        st = err_set(err, ST_DB, "%s: cannot be made: %s; check that the folder can be written",
                     path, strerror(errno));
        goto out;
    }
    close(fd);
    if (link(tmp, path) != 0 && errno != EEXIST) {
        /* A file system without links: the name may appear twice in a race, O_EXCL sees to one
         * of them. */
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd >= 0)
            close(fd);
        else if (errno != EEXIST)
            st = err_set(err, ST_DB, "%s: cannot be made: %s", path, strerror(errno));
    }
    unlink(tmp);
out:
    free(tmp);
    return st;
}

static uint32_t be32(const unsigned char *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static enum status judge_header(const char *path, const unsigned char *h, int version,
                                struct err *err) {
    if (memcmp(h, "SQLite format 3", 16) != 0)
        return db_error_code(path, SQLITE_NOTADB, 0, "", "opening", err);
    uint32_t app = be32(h + 68), user = be32(h + 60);
    if (app != STORE_APPLICATION_ID && app != 0)
        return err_set(err, ST_DB,
                       "%s: is a database of another program (application id 0x%x), not of "
                       "llmchat; it was left as it is, move it away or name another file",
                       path, app);
    if (app == STORE_APPLICATION_ID && user > (uint32_t)version)
        return err_set(
            err, ST_DB,
            "%s: made by a newer llmchat (format %u, this one knows %d); it was left "
            "as it is, update llmchat to open it",
            path, user, version);
    return ST_OK;
}

static enum status check_header(const char *path, int version, struct err *err) {
    sqlite3 *db = NULL;
    unsigned char head[HEADER_BYTES];
    struct stat info = {0};
    sqlite3_file *f = NULL;
    enum status st = ST_OK;
    int rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &f);
    if (rc == SQLITE_OK && (!f || !f->pMethods))
        rc = SQLITE_CANTOPEN;
    if (rc == SQLITE_OK && stat(path, &info) != 0) /* xFileSize says 0 for one byte */
        rc = SQLITE_CANTOPEN;
    if (rc == SQLITE_OK && info.st_size > 0) {
        memset(head, 0, sizeof head);
        rc = f->pMethods->xRead(f, head, sizeof head, 0);
        if (rc == SQLITE_IOERR_SHORT_READ)
            rc = SQLITE_OK; /* judged as what it is, no database */
    }
    if (rc != SQLITE_OK)
        st = db_error_code(path, rc, sqlite3_system_errno(db), sqlite3_errstr(rc), "opening",
                           err);
    else if (info.st_size > 0)
        st = judge_header(path, head, version, err);
    sqlite3_close(db);
    return st;
}

/* A folder or a device in the place of the file. */
static enum status check_kind(const char *path, struct err *err) {
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return err_set(err, ST_DB, "%s: is %s, a database file wanted; move it away", path,
                       S_ISDIR(info.st_mode) ? "a folder" : "no regular file");
    return ST_OK;
}

static enum status check_folder(const char *path, struct err *err) {
    char *dir = xstrdup(path);
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = '\0';
    enum status st = ST_OK;
    if (faccessat(AT_FDCWD, slash ? dir : ".", W_OK | X_OK, AT_EACCESS) != 0)
        st = err_set(err, ST_DB,
                     "%s: the folder cannot be written (%s), and a database needs its journal "
                     "beside it; change its permissions or set LLMCHAT_HOME",
                     path, strerror(errno));
    free(dir);
    return st;
}

static enum status configure(struct store *s, struct err *err) {
    sqlite3_extended_result_codes(s->db, 1);
    sqlite3_busy_timeout(s->db, STORE_BUSY_MS);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_DQS_DML, 0, NULL);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_DQS_DDL, 0, NULL);
    CHECK(db_script(s,
                    "PRAGMA mmap_size = 0; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
                    "PRAGMA cell_size_check = ON; PRAGMA secure_delete = FAST;"
                    "PRAGMA temp_store = MEMORY;",
                    err));
    if (is_memory(s->path))
        return ST_OK;
    bool wal = sqlite3_libversion_number() >= WAL_SAFE_VERSION;
    const char *sql = wal ? "PRAGMA journal_mode = WAL" : "PRAGMA journal_mode = TRUNCATE";
    enum status st = db_script(s, sql, err);
    if (st ==
        ST_BUSY) { /* another process holds a database of the other mode: works as it is */
        log_warn("%s: the journal mode could not be changed now", s->path);
        st = ST_OK;
    }
    return st;
}

enum status store_open_steps(const char *path, const struct schema_step *steps, int n,
                             struct store **out, struct err *err) {
    *out = NULL;
    bool memory = is_memory(path);
    if (!memory) {
        CHECK(check_kind(path, err));
        CHECK(make_file(path, err));
        CHECK(check_header(path, n, err));
        CHECK(check_folder(path, err));
    }
    struct store *s = xcalloc(1, sizeof *s);
    s->path = xstrdup(path);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE |
                (memory ? SQLITE_OPEN_MEMORY : 0);
    enum status st = ST_OK;
    if (sqlite3_open_v2(path, &s->db, flags, NULL) != SQLITE_OK)
        TRY(db_error(s, err, "opening"));
    if (sqlite3_db_readonly(s->db, "main") == 1) {
        st =
            err_set(err, ST_DB, "%s: the file cannot be written; change its permissions", path);
        goto out;
    }
    TRY(configure(s, err));
    TRY(schema_migrate(s, steps, n, err));
out:
    if (st != ST_OK) {
        store_close(s);
        return st;
    }
    *out = s;
    return ST_OK;
}

enum status store_open(const char *path, struct store **out, struct err *err) {
    return store_open_steps(path, schema_steps, n_schema_steps, out, err);
}

void store_close(struct store *s) {
    if (!s)
        return;
    store_rollback(s);
    for (int i = 0; i < s->n_stmt; i++)
        sqlite3_finalize(s->stmt[i].stmt);
    sqlite3_close(s->db);
    free(s->path);
    free(s);
}

const char *store_path(const struct store *s) {
    return s->path;
}

const char *store_library(void) {
    return sqlite3_libversion();
}

enum status store_version(struct store *s, int64_t *version, struct err *err) {
    sqlite3_stmt *q;
    *version = 0;
    CHECK(db_query(s, &q, err, "PRAGMA data_version", ""));
    return db_number(s, q, version, err);
}

enum status store_check(struct store *s, struct buf *out, struct err *err) {
    sqlite3_stmt *q;
    bool row;
    enum status st;
    size_t start = out->len;
    CHECK(db_query(s, &q, err, "PRAGMA quick_check(20)", ""));
    while ((st = db_step(s, q, &row, err)) == ST_OK && row) {
        const char *line = (const char *)sqlite3_column_text(q, 0);
        if (line && strcmp(line, "ok") != 0)
            buf_addf(out, "%s%s", out->len > start ? "\n" : "", line);
    }
    db_done(q);
    CHECK(st);
    CHECK(db_query(s, &q, err, "PRAGMA foreign_key_check", ""));
    for (int n = 0; n < 20 && (st = db_step(s, q, &row, err)) == ST_OK && row; n++)
        buf_addf(out, "%srow %lld of table %s points to a missing row of %s",
                 out->len > start ? "\n" : "", (long long)sqlite3_column_int64(q, 1),
                 (const char *)sqlite3_column_text(q, 0),
                 (const char *)sqlite3_column_text(q, 2));
    db_done(q);
    CHECK(st);
    /* quick_check does not look into the word index: a damaged one makes every save fail. */
    struct err why;
    if (db_exec(s, NULL, &why, "INSERT INTO message_fts(message_fts) VALUES('integrity-check')",
                "") != ST_OK)
        buf_addf(out, "%sthe index of words: %s", out->len > start ? "\n" : "", why.msg);
    if (out->len == start)
        buf_adds(out, "ok");
    return ST_OK;
}
