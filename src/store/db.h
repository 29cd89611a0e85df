/*
 * db.h - inside the store: the handle, statements, transactions, the schema's steps.
 *
 * Only src/store and its tests include this. A statement is prepared once a handle and found
 * again by the address of its SQL text, which therefore is always a constant.
 */
#ifndef LLMCHAT_STORE_DB_H
#define LLMCHAT_STORE_DB_H

#include "store/store.h"
#include <sqlite3.h>

#define STORE_APPLICATION_ID 0x6c6c6d63 /* "llmc" */
#define STORE_BUSY_MS        5000
#define STORE_MAX_STMT       64

struct store {
    sqlite3 *db;
    char *path;
    int depth; /* of store_begin and the writes inside it; 0: no transaction */
    int n_stmt;
    struct {
        const char *sql;
        sqlite3_stmt *stmt;
    } stmt[STORE_MAX_STMT];
};

/* Turns what SQLite said last into a message that tells the person what to do. Returns its
 * code: ST_DB or ST_BUSY. */
enum status db_error(struct store *s, struct err *err, const char *doing);
/* The same for a handle that never became a store. */
enum status db_error_code(const char *path, int rc, int sys_errno, const char *detail,
                          const char *doing, struct err *err);

/* A statement, ready to step, with its parameters bound after the letters of `types`: i
 * int64_t, n int64_t where 0 means NULL, s string (NULL counts as ""), b bytes (const char *,
 * size_t) as text. Strings must live until db_done(). */
enum status db_query(struct store *s, sqlite3_stmt **out, struct err *err, const char *sql,
                     const char *types, ...);
/* *row is false at the end. After an error or the end db_done() is still due. */
enum status db_step(struct store *s, sqlite3_stmt *q, bool *row, struct err *err);
void db_done(sqlite3_stmt *q); /* NULL is allowed */
/* The number that a statement's first row begins with, 0 without a row; ends with db_done(). */
enum status db_number(struct store *s, sqlite3_stmt *q, int64_t *out, struct err *err);
/* A statement without rows, not in a transaction of its own; *changed (may be NULL) gets the
 * rows it changed. */
enum status db_exec(struct store *s, int *changed, struct err *err, const char *sql,
                    const char *types, ...);
/* Several statements of text that need no parameters. */
enum status db_script(struct store *s, const char *sql, struct err *err);
/* A column as text that the caller frees; NULL becomes "". */
char *db_text(sqlite3_stmt *q, int col);

/* One write: BEGIN IMMEDIATE unless a transaction is open already. txn_end() commits when st is
 * ST_OK, rolls back otherwise, and returns what came of it. */
enum status txn_begin(struct store *s, struct err *err);
enum status txn_end(struct store *s, enum status st, struct err *err);

/* -- schema -- */
struct schema_step {
    const char *sql; /* brings a database from version i to i + 1, i being the step's place in
                        the table */
    enum status (*run)(struct store *s, struct err *err); /* after sql; may be NULL */
};
extern const struct schema_step schema_steps[];
extern const int n_schema_steps;
/* Brings the open database to version n, after a copy was made beside it ("FILE.v1.bak"). A new
 * one gets all steps. */
enum status schema_migrate(struct store *s, const struct schema_step *steps, int n,
                           struct err *err);
/* store_open() with a table of steps of the caller's. */
enum status store_open_steps(const char *path, const struct schema_step *steps, int n,
                             struct store **out, struct err *err);

/* -- who writes -- */
/* This process as text: boot id, pid, start time of the process. */
void writer_self(char out[128]);
/* Whether the process that writer names lives on. What can't be told counts as gone. */
bool writer_alive(const char *writer);

/* -- index -- */
/* Puts text into the search index under the message's id, replacing what was there. */
enum status index_put(struct store *s, int64_t id, const char *text, struct err *err);
enum status index_remove(struct store *s, int64_t id, struct err *err);

#endif
