/*
 * conv.c - conversations and the program's own settings.
 *
 * A row a conversation. `updated` moves when a message is added or finished, not when a draft
 * or a title changes: it is what the list is sorted by, and typing must not shuffle it. A
 * deleted conversation keeps everything and holds the time of its deletion until it is purged.
 *
 * The number of messages is counted when a list is read: an index holds it, and a counter
 * beside the rows could go wrong.
 */
#include "base/clock.h"
#include "store/db.h"

#include <stdlib.h>
#include <string.h>

void conversation_release(struct conversation *c) {
    free(c->title);
    free(c->model);
    free(c->system);
    free(c->settings_json);
    free(c->draft);
    memset(c, 0, sizeof *c);
}

void conversation_list_release(struct conversation_list *l) {
    for (size_t i = 0; i < l->n; i++)
        conversation_release(&l->v[i]);
    free(l->v);
    memset(l, 0, sizeof *l);
}

#define CONV_COLUMNS                                                                           \
    "id, title, model, system, settings, draft, leaf, created, updated, deleted, keep_from, "  \
    "(SELECT count(*) FROM message m WHERE m.conv = conversation.id)"

static void read_row(sqlite3_stmt *q, struct conversation *out) {
    *out = (struct conversation){
        .id = sqlite3_column_int64(q, 0),
        .title = db_text(q, 1),
        .model = db_text(q, 2),
        .system = db_text(q, 3),
        .settings_json = db_text(q, 4),
        .draft = db_text(q, 5),
        .leaf = sqlite3_column_int64(q, 6),
        .created_ms = sqlite3_column_int64(q, 7),
        .updated_ms = sqlite3_column_int64(q, 8),
        .deleted = sqlite3_column_int64(q, 9) != 0,
        .keep_from = sqlite3_column_int64(q, 10),
        .n_messages = sqlite3_column_int(q, 11),
    };
}

static enum status not_found(struct store *s, int64_t id, struct err *err) {
    return err_set(err, ST_NOT_FOUND, "%s: there is no conversation %lld", s->path,
                   (long long)id);
}

enum status store_conv_new(struct store *s, const char *title, const char *model, int64_t *id,
                           struct err *err) {
    int64_t now = clock_unix_ms();
    CHECK(txn_begin(s, err));
    enum status st =
        db_exec(s, NULL, err,
                "INSERT INTO conversation(title, model, created, updated) VALUES(?, ?, ?, ?)",
                "ssii", title, model, now, now);
    int64_t made = sqlite3_last_insert_rowid(s->db);
    st = txn_end(s, st, err);
    *id = st == ST_OK ? made : 0;
    return st;
}

enum status store_conv_get(struct store *s, int64_t id, struct conversation *out,
                           struct err *err) {
    sqlite3_stmt *q;
    bool row;
    memset(out, 0, sizeof *out);
    CHECK(db_query(s, &q, err, "SELECT " CONV_COLUMNS " FROM conversation WHERE id = ?", "i",
                   id));
    enum status st = db_step(s, q, &row, err);
    if (st == ST_OK && row)
        read_row(q, out);
    else if (st == ST_OK)
        st = not_found(s, id, err);
    db_done(q);
    return st;
}

enum status store_conv_list(struct store *s, int limit, struct conversation_list *out,
                            struct err *err) {
    sqlite3_stmt *q;
    bool row;
    size_t cap = 0;
    enum status st;
    memset(out, 0, sizeof *out);
    CHECK(db_query(s, &q, err,
                   "SELECT " CONV_COLUMNS " FROM conversation WHERE deleted = 0 "
                   "ORDER BY updated DESC, id DESC LIMIT ?",
                   "i", (int64_t)(limit > 0 ? limit : -1)));
    while ((st = db_step(s, q, &row, err)) == ST_OK && row) {
        if (out->n == cap) {
            cap = cap ? cap * 2 : 32;
            out->v = xreallocarray(out->v, cap, sizeof *out->v);
        }
        read_row(q, &out->v[out->n++]);
    }
    db_done(q);
    if (st != ST_OK)
        conversation_list_release(out);
    return st;
}

enum status store_conv_last(struct store *s, int64_t *id, struct err *err) {
    sqlite3_stmt *q;
    *id = 0;
    CHECK(db_query(s, &q, err,
                   "SELECT id FROM conversation WHERE deleted = 0 "
                   "ORDER BY updated DESC, id DESC LIMIT 1",
                   ""));
    return db_number(s, q, id, err);
}

/* One column of one conversation; sql has the value first and the id second. */
static enum status set_text(struct store *s, const char *sql, int64_t id, const char *value,
                            struct err *err) {
    int changed = 0;
    CHECK(txn_begin(s, err));
    enum status st = db_exec(s, &changed, err, sql, "si", value, id);
    if (st == ST_OK && changed == 0)
        st = not_found(s, id, err);
    return txn_end(s, st, err);
}

static enum status set_number(struct store *s, const char *sql, int64_t id, int64_t value,
                              struct err *err) {
    int changed = 0;
    CHECK(txn_begin(s, err));
    enum status st = db_exec(s, &changed, err, sql, "ii", value, id);
    if (st == ST_OK && changed == 0)
        st = not_found(s, id, err);
    return txn_end(s, st, err);
}

enum status store_conv_set_title(struct store *s, int64_t id, const char *title,
                                 struct err *err) {
    return set_text(s, "UPDATE conversation SET title = ? WHERE id = ?", id, title, err);
}

enum status store_conv_set_model(struct store *s, int64_t id, const char *model,
                                 struct err *err) {
    return set_text(s, "UPDATE conversation SET model = ? WHERE id = ?", id, model, err);
}

enum status store_conv_set_system(struct store *s, int64_t id, const char *system,
                                  struct err *err) {
    return set_text(s, "UPDATE conversation SET system = ? WHERE id = ?", id, system, err);
}

enum status store_conv_set_settings(struct store *s, int64_t id, const char *json,
                                    struct err *err) {
    return set_text(s, "UPDATE conversation SET settings = ? WHERE id = ?", id, json, err);
}

enum status store_conv_set_draft(struct store *s, int64_t id, const char *draft,
                                 struct err *err) {
    return set_text(s, "UPDATE conversation SET draft = ? WHERE id = ?", id, draft, err);
}

enum status store_conv_set_keep_from(struct store *s, int64_t id, int64_t message,
                                     struct err *err) {
    return set_number(s, "UPDATE conversation SET keep_from = ? WHERE id = ?", id, message,
                      err);
}

enum status store_conv_set_times(struct store *s, int64_t id, int64_t created_ms,
                                 int64_t updated_ms, struct err *err) {
    CHECK(txn_begin(s, err));
    enum status st =
        db_exec(s, NULL, err, "UPDATE conversation SET created = ?, updated = ? WHERE id = ?",
                "iii", created_ms, updated_ms, id);
    return txn_end(s, st, err);
}

enum status store_conv_set_leaf(struct store *s, int64_t id, int64_t message, struct err *err) {
    int changed = 0;
    CHECK(txn_begin(s, err));
    enum status st =
        db_exec(s, &changed, err,
                "UPDATE conversation SET leaf = ?1 WHERE id = ?2 AND (?1 IS NULL OR "
                "EXISTS (SELECT 1 FROM message WHERE id = ?1 AND conv = ?2))",
                "ni", message, id);
    if (st == ST_OK && changed == 0)
        st = err_set(err, ST_NOT_FOUND, "%s: conversation %lld has no message %lld", s->path,
                     (long long)id, (long long)message);
    return txn_end(s, st, err);
}

enum status store_conv_delete(struct store *s, int64_t id, struct err *err) {
    return set_number(s, "UPDATE conversation SET deleted = ? WHERE id = ?", id,
                      clock_unix_ms(), err);
}

enum status store_conv_undelete(struct store *s, int64_t id, struct err *err) {
    return set_number(s, "UPDATE conversation SET deleted = ? WHERE id = ?", id, 0, err);
}

enum status store_conv_purge(struct store *s, int64_t older_than_ms, struct err *err) {
    int64_t before = clock_unix_ms() - older_than_ms;
#define PURGED "(SELECT id FROM conversation WHERE deleted > 0 AND deleted <= ?)"
    CHECK(txn_begin(s, err));
    enum status st = ST_OK;
    TRY(db_exec(s, NULL, err,
                "DELETE FROM message_fts WHERE rowid IN "
                "(SELECT id FROM message WHERE conv IN " PURGED ")",
                "i", before));
    TRY(db_exec(s, NULL, err,
                "UPDATE conversation SET leaf = NULL WHERE deleted > 0 AND deleted <= ?", "i",
                before));
    TRY(db_exec(s, NULL, err, "DELETE FROM message WHERE conv IN " PURGED, "i", before));
    TRY(db_exec(s, NULL, err, "DELETE FROM conversation WHERE deleted > 0 AND deleted <= ?",
                "i", before));
#undef PURGED
out:
    return txn_end(s, st, err);
}

enum status store_setting_get(struct store *s, const char *key, char **value, struct err *err) {
    sqlite3_stmt *q;
    bool row;
    *value = NULL;
    CHECK(db_query(s, &q, err, "SELECT value FROM setting WHERE key = ?", "s", key));
    enum status st = db_step(s, q, &row, err);
    if (st == ST_OK && row)
        *value = db_text(q, 0);
    db_done(q);
    return st;
}

enum status store_setting_set(struct store *s, const char *key, const char *value,
                              struct err *err) {
    CHECK(txn_begin(s, err));
    enum status st = db_exec(s, NULL, err,
                             "INSERT INTO setting(key, value) VALUES(?, ?) "
                             "ON CONFLICT(key) DO UPDATE SET value = excluded.value",
                             "ss", key, value);
    return txn_end(s, st, err);
}
