/*
 * session.c - sessions by conversation, so that a second turn computes only what is new, also
 * after another conversation was open in between.
 *
 * A handful of slots; the one that was not used for longest makes room. The blocks behind them
 * are the engine's: when its pool is full it takes them from idle sessions by itself, and the
 * next turn there computes its prompt anew, or finds it in a file: the states of conversations
 * that are stored are saved.
 */
#include "chat/chat_internal.h"

#include <string.h>

static struct session_slot *find(struct chat *c, int64_t conv) {
    for (int i = 0; i < N_SESSIONS; i++)
        if (c->slots[i].conv == conv)
            return &c->slots[i];
    return NULL;
}

struct session *session_find(struct chat *c, int64_t conv) {
    struct session_slot *s = find(c, conv);
    return s ? s->session : NULL;
}

/* What nobody stores leaves no trace. */
static void keep(struct chat *c, const struct session_slot *s) {
    if (s->conv > 0 && strcmp(store_path(c->store), ":memory:") != 0)
        session_keep(s->session, s->conv);
}

/* A conversation that another window deleted meanwhile must not come back as a file. */
static bool is_deleted(struct chat *c, int64_t conv) {
    struct conversation v = {0};
    struct err err;
    if (store_conv_get(c->store, conv, &v, &err) != ST_OK)
        return err.code == ST_NOT_FOUND;
    bool deleted = v.deleted;
    conversation_release(&v);
    return deleted;
}

static void let_go(struct chat *c, struct session_slot *s) {
    if (s->conv > 0 && is_deleted(c, s->conv))
        session_keep(s->session, 0);
    session_free(s->session);
    *s = (struct session_slot){0};
}

struct session *session_of(struct chat *c, int64_t conv) {
    struct session_slot *s = find(c, conv);
    if (!s && (s = find(c, CONV_NEW))) {
        s->conv = conv; /* mostly that one got a row: what its draft computed goes along */
        keep(c, s);
    }
    if (s) {
        s->used = ++c->clock;
        return s->session;
    }
    struct session_slot *oldest = &c->slots[0];
    for (int i = 1; i < N_SESSIONS; i++)
        if (c->slots[i].used < oldest->used)
            oldest = &c->slots[i];
    let_go(c, oldest);
    *oldest = (struct session_slot){
        .conv = conv, .session = session_new(c->engine), .used = ++c->clock};
    keep(c, oldest);
    return oldest->session;
}

void chat_forget(struct chat *c, int64_t conv) {
    for (int i = 0; i < N_SESSIONS && conv; i++)
        if (c->slots[i].conv == conv) {
            session_keep(c->slots[i].session, 0);
            session_free(c->slots[i].session);
            c->slots[i] = (struct session_slot){0};
        }
    if (c->engine && c->config->kv_cache)
        engine_forget(c->engine, conv);
    else /* of times when some were saved */
        states_forget(conv);
}

void sessions_release(struct chat *c) {
    for (int i = 0; i < N_SESSIONS; i++)
        let_go(c, &c->slots[i]);
}
