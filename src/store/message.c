/*
 * message.c - the tree of messages of a conversation.
 *
 * A message's parent is older than itself, so "order by id" is "parents before children",
 * siblings are ordered by id, and the newest message of a subtree is always one of its leaves.
 * The index message_tree(parent, conv) with the row id at its end answers who the siblings are;
 * roots have no parent and are told apart by their conversation.
 *
 * A reply that streams carries its writer (writer.c). Its text is saved often and not indexed
 * for the search until it ends, or until store_recover() finds its writer dead. A reply that
 * was marked `interrupted` although its writer lives (another container) becomes `streaming`
 * again with the writer's next save.
 */
#include "base/clock.h"
#include "store/db.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const char *const role_names[] = {"system", "user", "assistant", "tool"};
static const char *const state_names[] = {"complete", "streaming", "stopped", "interrupted",
                                          "failed"};

const char *role_name(enum role r) {
    return role_names[r];
}

const char *msg_state_name(enum msg_state st) {
    return state_names[st];
}

static int name_index(const char *s, const char *const *names, int n) {
    for (int i = 0; i < n; i++)
        if (strcmp(s, names[i]) == 0)
            return i;
    return -1;
}

bool role_parse(const char *s, enum role *out) {
    int i = name_index(s, role_names, sizeof role_names / sizeof *role_names);
    if (i >= 0)
        *out = (enum role)i;
    return i >= 0;
}

bool msg_state_parse(const char *s, enum msg_state *out) {
    int i = name_index(s, state_names, sizeof state_names / sizeof *state_names);
    if (i >= 0)
        *out = (enum msg_state)i;
    return i >= 0;
}

void message_release(struct message *m) {
    free(m->text);
    free(m->model);
    free(m->settings_json);
    free(m->finish);
    memset(m, 0, sizeof *m);
}

void message_list_release(struct message_list *l) {
    for (size_t i = 0; i < l->n; i++)
        message_release(&l->v[i]);
    free(l->v);
    memset(l, 0, sizeof *l);
}

static enum status not_found(struct store *s, int64_t id, struct err *err) {
    return err_set(err, ST_NOT_FOUND, "%s: there is no message %lld", s->path, (long long)id);
}

/* -- writing -- */

static enum status insert(struct store *s, int64_t conv, const struct message *m, int64_t *id,
                          struct err *err) {
    char writer[128] = "";
    if (m->state == MSG_STREAMING)
        writer_self(writer);
    int64_t created = m->created_ms ? m->created_ms : clock_unix_ms();
    int changed;
    /* The parent must be of the same conversation: one statement asks and inserts. */
    CHECK(db_exec(
        s, &changed, err,
        "INSERT INTO message(conv, parent, role, text, state, created, model, settings, "
        "finish, writer, seed, prompt_tok, cached_tok, completion_tok, prompt_us, "
        "decode_us, ttft_us) "
        "SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, "
        "?17 WHERE EXISTS (SELECT 1 FROM conversation WHERE id = ?1) AND (?2 IS NULL OR "
        "EXISTS (SELECT 1 FROM message WHERE id = ?2 AND conv = ?1))",
        "insssissssiiiiiii", conv, m->parent, role_name(m->role), m->text,
        msg_state_name(m->state), created, m->model, m->settings_json, m->finish, writer,
        m->seed, (int64_t)m->prompt_tok, (int64_t)m->cached_tok, (int64_t)m->completion_tok,
        m->prompt_us, m->decode_us, m->ttft_us));
    if (changed == 0)
        return err_set(err, ST_NOT_FOUND,
                       "%s: there is no conversation %lld with a message %lld", s->path,
                       (long long)conv, (long long)m->parent);
    *id = sqlite3_last_insert_rowid(s->db);
    return ST_OK;
}

enum status store_msg_add(struct store *s, int64_t conv, const struct message *m, int64_t *id,
                          struct err *err) {
    int64_t made = 0;
    enum status st = ST_OK;
    *id = 0;
    CHECK(txn_begin(s, err));
    TRY(insert(s, conv, m, &made, err));
    /* One that was deleted meanwhile, by another process, comes back: or the message would go
     * with it, unseen. */
    TRY(db_exec(s, NULL, err,
                "UPDATE conversation SET leaf = ?, updated = ?, deleted = 0 WHERE id = ?",
                "iii", made, clock_unix_ms(), conv));
    if (m->state != MSG_STREAMING)
        TRY(index_put(s, made, m->text ? m->text : "", err));
out:
    st = txn_end(s, st, err);
    if (st == ST_OK)
        *id = made;
    return st;
}

enum status store_msg_text(struct store *s, int64_t id, const char *text, size_t len,
                           struct err *err) {
    char writer[128];
    int changed = 0;
    writer_self(writer);
    CHECK(txn_begin(s, err));
    enum status st = db_exec(s, &changed, err,
                             "UPDATE message SET text = ?, state = 'streaming' "
                             "WHERE id = ? AND writer = ?",
                             "bis", text, len, id, writer);
    if (st == ST_OK && changed == 0)
        st = err_set(err, ST_NOT_FOUND, "%s: message %lld is no reply that streams from here",
                     s->path, (long long)id);
    return txn_end(s, st, err);
}

enum status store_msg_finish(struct store *s, int64_t id, const struct message *m,
                             struct err *err) {
    int changed = 0;
    enum status st = ST_OK;
    assert(m->state != MSG_STREAMING);
    CHECK(txn_begin(s, err));
    TRY(db_exec(s, &changed, err,
                "UPDATE message SET text = ?, state = ?, finish = ?, writer = '', seed = ?, "
                "prompt_tok = ?, cached_tok = ?, completion_tok = ?, prompt_us = ?, "
                "decode_us = ?, ttft_us = ? WHERE id = ?",
                "sssiiiiiiii", m->text, msg_state_name(m->state), m->finish, m->seed,
                (int64_t)m->prompt_tok, (int64_t)m->cached_tok, (int64_t)m->completion_tok,
                m->prompt_us, m->decode_us, m->ttft_us, id));
    if (changed == 0)
        TRY(not_found(s, id, err));
    TRY(index_put(s, id, m->text ? m->text : "", err));
    TRY(db_exec(s, NULL, err,
                "UPDATE conversation SET updated = ? "
                "WHERE id = (SELECT conv FROM message WHERE id = ?)",
                "ii", clock_unix_ms(), id));
out:
    return txn_end(s, st, err);
}

/* One dead writer's reply; text is read before anything is changed. */
static enum status interrupt_one(struct store *s, int64_t id, struct err *err) {
    sqlite3_stmt *q;
    bool row;
    char *text = NULL;
    CHECK(db_query(s, &q, err, "SELECT text FROM message WHERE id = ?", "i", id));
    enum status st = db_step(s, q, &row, err);
    if (st == ST_OK && row)
        text = db_text(q, 0);
    db_done(q);
    if (text) {
        st = db_exec(s, NULL, err, "UPDATE message SET state = 'interrupted' WHERE id = ?", "i",
                     id);
        if (st == ST_OK)
            st = index_put(s, id, text, err);
    }
    free(text);
    return st;
}

/* The replies whose writers are dead; *dead is the caller's to free. */
static enum status find_dead(struct store *s, int64_t **dead, size_t *n, struct err *err) {
    sqlite3_stmt *q = NULL;
    bool row;
    enum status st;
    *dead = NULL;
    *n = 0;
    CHECK(db_query(s, &q, err, "SELECT id, writer FROM message WHERE state = 'streaming'", ""));
    while ((st = db_step(s, q, &row, err)) == ST_OK && row) {
        const char *writer = (const char *)sqlite3_column_text(q, 1);
        if (writer && writer_alive(writer))
            continue;
        *dead = xreallocarray(*dead, *n + 1, sizeof **dead);
        (*dead)[(*n)++] = sqlite3_column_int64(q, 0);
    }
    db_done(q);
    return st;
}

enum status store_recover(struct store *s, int *n, struct err *err) {
    int64_t *dead;
    size_t n_dead;
    if (n)
        *n = 0;
    enum status st = find_dead(s, &dead, &n_dead, err);
    free(dead);
    if (st != ST_OK || n_dead == 0) /* nearly always: nobody's lock is waited for */
        return st;
    CHECK(txn_begin(s, err)); /* the lock keeps a writer from ending its reply meanwhile */
    st = find_dead(s, &dead, &n_dead, err);
    for (size_t i = 0; i < n_dead && st == ST_OK; i++)
        st = interrupt_one(s, dead[i], err);
    st = txn_end(s, st, err);
    if (n && st == ST_OK)
        *n = (int)n_dead;
    free(dead);
    return st;
}

/* -- reading -- */

#define MSG_COLUMNS                                                                            \
    "m.id, m.conv, m.parent, m.role, m.text, m.state, m.created, m.model, m.settings, "        \
    "m.finish, m.seed, m.prompt_tok, m.cached_tok, m.completion_tok, m.prompt_us, "            \
    "m.decode_us, m.ttft_us"
#define MSG_SIBLINGS                                                                           \
    "(SELECT count(*) FROM message b WHERE b.parent IS m.parent AND b.conv = m.conv "          \
    " AND b.id <= m.id), "                                                                     \
    "(SELECT count(*) FROM message b WHERE b.parent IS m.parent AND b.conv = m.conv)"

static void read_row(sqlite3_stmt *q, struct message *out) {
    const char *role = (const char *)sqlite3_column_text(q, 3);
    const char *state = (const char *)sqlite3_column_text(q, 5);
    *out = (struct message){
        .id = sqlite3_column_int64(q, 0),
        .conv = sqlite3_column_int64(q, 1),
        .parent = sqlite3_column_int64(q, 2),
        .role = ROLE_USER,
        .text = db_text(q, 4),
        .state = MSG_COMPLETE,
        .created_ms = sqlite3_column_int64(q, 6),
        .model = db_text(q, 7),
        .settings_json = db_text(q, 8),
        .finish = db_text(q, 9),
        .seed = sqlite3_column_int64(q, 10),
        .prompt_tok = sqlite3_column_int(q, 11),
        .cached_tok = sqlite3_column_int(q, 12),
        .completion_tok = sqlite3_column_int(q, 13),
        .prompt_us = sqlite3_column_int64(q, 14),
        .decode_us = sqlite3_column_int64(q, 15),
        .ttft_us = sqlite3_column_int64(q, 16),
        .sibling = sqlite3_column_int(q, 17),
        .n_sibling = sqlite3_column_int(q, 18),
    };
    role_parse(role ? role : "", &out->role);
    msg_state_parse(state ? state : "", &out->state);
}

static enum status read_list(struct store *s, sqlite3_stmt *q, struct message_list *out,
                             struct err *err) {
    size_t cap = 0;
    bool row;
    enum status st;
    while ((st = db_step(s, q, &row, err)) == ST_OK && row) {
        if (out->n == cap) {
            cap = cap ? cap * 2 : 32;
            out->v = xreallocarray(out->v, cap, sizeof *out->v);
        }
        read_row(q, &out->v[out->n++]);
    }
    db_done(q);
    if (st != ST_OK)
        message_list_release(out);
    return st;
}

enum status store_msg_get(struct store *s, int64_t id, struct message *out, struct err *err) {
    sqlite3_stmt *q;
    bool row;
    memset(out, 0, sizeof *out);
    CHECK(db_query(s, &q, err,
                   "SELECT " MSG_COLUMNS ", " MSG_SIBLINGS " FROM message m WHERE m.id = ?",
                   "i", id));
    enum status st = db_step(s, q, &row, err);
    if (st == ST_OK && row)
        read_row(q, out);
    else if (st == ST_OK)
        st = not_found(s, id, err);
    db_done(q);
    return st;
}

enum status store_msg_path(struct store *s, int64_t conv, int64_t leaf,
                           struct message_list *out, struct err *err) {
    sqlite3_stmt *q;
    memset(out, 0, sizeof *out);
    /* A parent is older: ids fall on the way up, even in a database that someone prepared. */
    CHECK(
        db_query(s, &q, err,
                 "WITH RECURSIVE up(id, parent) AS ("
                 " SELECT id, parent FROM message WHERE conv = ?1 AND id = CASE ?2 WHEN 0 THEN"
                 "  (SELECT leaf FROM conversation WHERE id = ?1) ELSE ?2 END"
                 " UNION ALL"
                 " SELECT p.id, p.parent FROM up JOIN message p ON p.id = up.parent"
                 "  WHERE p.id < up.id AND p.conv = ?1)"
                 " SELECT " MSG_COLUMNS ", " MSG_SIBLINGS
                 " FROM up CROSS JOIN message m ON m.id = up.id ORDER BY m.id",
                 "ii", conv, leaf));
    return read_list(s, q, out, err);
}

enum status store_msg_all(struct store *s, int64_t conv, struct message_list *out,
                          struct err *err) {
    sqlite3_stmt *q;
    memset(out, 0, sizeof *out);
    CHECK(db_query(s, &q, err,
                   "SELECT " MSG_COLUMNS
                   ", row_number() OVER (PARTITION BY m.parent ORDER BY m.id),"
                   " count(*) OVER (PARTITION BY m.parent)"
                   " FROM message m WHERE m.conv = ? ORDER BY m.id",
                   "i", conv));
    return read_list(s, q, out, err);
}

enum status store_msg_sibling(struct store *s, int64_t id, int step, int64_t *out,
                              struct err *err) {
    sqlite3_stmt *q;
    *out = 0;
    const char *sql = step > 0 ? "SELECT b.id FROM message m JOIN message b"
                                 " ON b.parent IS m.parent AND b.conv = m.conv"
                                 " WHERE m.id = ? AND b.id > m.id ORDER BY b.id LIMIT 1"
                               : "SELECT b.id FROM message m JOIN message b"
                                 " ON b.parent IS m.parent AND b.conv = m.conv"
                                 " WHERE m.id = ? AND b.id < m.id ORDER BY b.id DESC LIMIT 1";
    CHECK(db_query(s, &q, err, sql, "i", id));
    return db_number(s, q, out, err);
}

enum status store_msg_newest_leaf(struct store *s, int64_t id, int64_t *out, struct err *err) {
    sqlite3_stmt *q;
    *out = 0;
    CHECK(db_query(s, &q, err,
                   "WITH RECURSIVE down(id) AS ("
                   " SELECT id FROM message WHERE id = ?"
                   " UNION ALL"
                   " SELECT c.id FROM down JOIN message c ON c.parent = down.id"
                   "  WHERE c.id > down.id)"
                   " SELECT max(id) FROM down",
                   "i", id));
    return db_number(s, q, out, err);
}
