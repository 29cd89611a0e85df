/*
 * store.h - conversations in SQLite: everything that must never be lost.
 *
 * A conversation is a tree of messages: a message knows its parent, branches share ancestors,
 * and the conversation knows its active leaf. The user's message is committed before the first
 * token is computed; a reply is inserted empty in state `streaming`, grows, and ends in one of
 * the other states. A reply whose writer died (its process is gone) is marked `interrupted` by
 * store_recover(); replies of living processes are left alone.
 *
 * A struct store is one SQLite handle, used by one thread. Several processes may use one
 * database at the same time. Texts are stored raw, as they came. Times are Unix milliseconds.
 * The strings of returned structs belong to the struct and go with its release function.
 */
#ifndef LLMCHAT_STORE_STORE_H
#define LLMCHAT_STORE_STORE_H

#include "base/err.h"
#include "base/mem.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store;

/* path: the database file (made when missing, mode 0600), or ":memory:". Checks application id
 * and user_version (a newer or foreign database is refused, untouched), migrates after a copy
 * was made beside it. ST_DB with what to do. */
enum status store_open(const char *path, struct store **out, struct err *err);
void store_close(struct store *s);
/* Marks replies of dead processes `interrupted`; *n their number (may be NULL). */
enum status store_recover(struct store *s, int *n, struct err *err);
/* "ok", or what PRAGMA quick_check and the foreign-key check found. out is appended to. */
enum status store_check(struct store *s, struct buf *out, struct err *err);
const char *store_path(const struct store *s);
const char *store_library(void); /* the library's version */
/* A number that changes when another connection has changed the database. */
enum status store_version(struct store *s, int64_t *version, struct err *err);

enum role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL };
const char *role_name(enum role r); /* "system", "user", "assistant", "tool" */
bool role_parse(const char *s, enum role *out);
enum msg_state { MSG_COMPLETE, MSG_STREAMING, MSG_STOPPED, MSG_INTERRUPTED, MSG_FAILED };
const char *msg_state_name(enum msg_state st);
bool msg_state_parse(const char *s, enum msg_state *out);

struct message {
    int64_t id, conv, parent; /* parent 0: a root of the tree */
    enum role role;
    char *text;
    enum msg_state state;
    int64_t created_ms;
    char *model;         /* replies: which model, "" otherwise */
    char *settings_json; /* replies: the settings in force; "" otherwise */
    char *finish;        /* "stop", "length", "cancel", "error" or "" */
    int64_t seed;
    int prompt_tok, cached_tok, completion_tok;
    int64_t prompt_us, decode_us, ttft_us;
    int sibling,
        n_sibling; /* this is branch sibling (1-based) of n_sibling below the same parent */
};
void message_release(struct message *m);
struct message_list { /* {0} is empty */
    struct message *v;
    size_t n;
};
void message_list_release(struct message_list *l);

struct conversation {
    int64_t id;
    char *title;         /* "" until it has one */
    char *model;         /* last used */
    char *system;        /* system prompt, "" none */
    char *settings_json; /* sampling settings of this conversation; "" none */
    char *draft;         /* text typed and not sent */
    int64_t leaf;        /* active message, 0: empty */
    int64_t keep_from; /* what the model sees of a branch begins with this message; 0: whole */
    int64_t created_ms, updated_ms;
    int n_messages; /* in the whole tree */
    bool deleted;
};
void conversation_release(struct conversation *c);
struct conversation_list { /* {0} is empty */
    struct conversation *v;
    size_t n;
};
void conversation_list_release(struct conversation_list *l);

enum status store_conv_new(struct store *s, const char *title, const char *model, int64_t *id,
                           struct err *err);
enum status store_conv_get(struct store *s, int64_t id, struct conversation *out,
                           struct err *err);
/* Newest first, without deleted ones; limit 0: all. Drafts and system prompts are included. */
enum status store_conv_list(struct store *s, int limit, struct conversation_list *out,
                            struct err *err);
enum status store_conv_last(struct store *s, int64_t *id,
                            struct err *err); /* 0: there is none */
enum status store_conv_set_title(struct store *s, int64_t id, const char *title,
                                 struct err *err);
enum status store_conv_set_model(struct store *s, int64_t id, const char *model,
                                 struct err *err);
enum status store_conv_set_system(struct store *s, int64_t id, const char *system,
                                  struct err *err);
enum status store_conv_set_settings(struct store *s, int64_t id, const char *json,
                                    struct err *err);
enum status store_conv_set_draft(struct store *s, int64_t id, const char *draft,
                                 struct err *err);
enum status store_conv_set_leaf(struct store *s, int64_t id, int64_t message, struct err *err);
/* A branch that holds `message` is shown to the model from there on (0: whole); other branches
 * are not touched by it. */
enum status store_conv_set_keep_from(struct store *s, int64_t id, int64_t message,
                                     struct err *err);
/* For imports: when the conversation began and last changed. */
enum status store_conv_set_times(struct store *s, int64_t id, int64_t created_ms,
                                 int64_t updated_ms, struct err *err);
/* A deleted conversation is kept, hidden, until it is purged: undo is store_conv_undelete. */
enum status store_conv_delete(struct store *s, int64_t id, struct err *err);
enum status store_conv_undelete(struct store *s, int64_t id, struct err *err);
enum status store_conv_purge(struct store *s, int64_t older_than_ms, struct err *err);

/* Inserts a message below parent and makes it the conversation's leaf, in one transaction; a
 * deleted conversation comes back. Of m
 * all but id, conv and the sibling numbers is used (NULL strings count as ""); created_ms 0:
 * now. */
enum status store_msg_add(struct store *s, int64_t conv, const struct message *m, int64_t *id,
                          struct err *err);
/* Replaces the text of a reply that streams (the whole text so far). */
enum status store_msg_text(struct store *s, int64_t id, const char *text, size_t len,
                           struct err *err);
/* Ends a reply: text, state, finish, counts, timings and seed of m are written in one
 * transaction. */
enum status store_msg_finish(struct store *s, int64_t id, const struct message *m,
                             struct err *err);
enum status store_msg_get(struct store *s, int64_t id, struct message *out, struct err *err);
/* From the root to the message `leaf` (0: the active leaf), in order. */
enum status store_msg_path(struct store *s, int64_t conv, int64_t leaf,
                           struct message_list *out, struct err *err);
/* Every message of the tree, parents before children. */
enum status store_msg_all(struct store *s, int64_t conv, struct message_list *out,
                          struct err *err);
/* The neighbour branch of a message (step +1 or -1), 0 at the end; and the newest leaf below a
 * message. */
enum status store_msg_sibling(struct store *s, int64_t id, int step, int64_t *out,
                              struct err *err);
enum status store_msg_newest_leaf(struct store *s, int64_t id, int64_t *out, struct err *err);

struct search_hit {
    int64_t conv,
        message; /* message: for a title the active leaf, 0: the conversation is empty */
    char *title;
    enum role role; /* of the message */
    bool in_title;  /* the title was found, and no message of the conversation */
    char *snippet;  /* one line around the hit; the hit between U+0001 and U+0002 */
    int64_t created_ms;
};
struct search_list { /* {0} is empty */
    struct search_hit *v;
    size_t n;
};
void search_list_release(struct search_list *l);
/* In messages and titles. All words must occur; "a phrase" in quotes; a word also finds words
 * that begin with it; Chinese and Japanese text is found by any run of its characters. Any
 * input is allowed, nothing is query syntax but the quotes. Best first. */
enum status store_search(struct store *s, const char *words, int limit, struct search_list *out,
                         struct err *err);

/* Program-wide settings that the program itself remembers ("last_model", …). get gives NULL in
 * *value when unset. */
enum status store_setting_get(struct store *s, const char *key, char **value, struct err *err);
enum status store_setting_set(struct store *s, const char *key, const char *value,
                              struct err *err);

/* Several writes in one transaction (imports). */
enum status store_begin(struct store *s, struct err *err);
enum status store_commit(struct store *s, struct err *err);
void store_rollback(struct store *s);

#endif
