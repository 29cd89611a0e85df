/*
 * chat.c - an open conversation: its life, its own values, its branches, its events.
 *
 * Everything runs in the caller's thread. What comes from the engine and from a loading model
 * lies in one mailbox; chat_poll takes one message, hands it to turn.c or loader.c, and gives
 * out the events that these appended to the queue. Calls that make events outside of chat_poll
 * put an empty note into the mailbox, so that chat_fd() is readable whenever there is something
 * to fetch.
 *
 * A new conversation has id 0 and lives in memory until its first message or draft; one that is
 * left without either is deleted again. Values that a conversation has of its own (settings,
 * system prompt) are written as they change.
 */
#include "base/log.h"
#include "base/utf8.h"
#include "chat/chat_internal.h"
#include "chat/prompts.h"

#include <stdlib.h>
#include <string.h>

enum { TITLE_CELLS = 60 };

/* -- events -- */

static void drop_message(void *msg) {
    if (*(enum event_type *)msg == (enum event_type)NOTE_TYPE)
        note_free(msg);
    else
        event_free(msg);
}

void chat_queue(struct chat *c, enum chat_event_type type, const char *text, uint64_t done,
                uint64_t total, const struct err *err, struct event *takes_result) {
    struct queued *q = xcalloc(1, sizeof *q);
    q->ev = (struct chat_event){
        .type = type, .text = text ? xstrdup(text) : NULL, .done = done, .total = total};
    if (err)
        q->ev.err = *err;
    q->result = takes_result;
    q->ev.result = takes_result;
    if (c->queue_last)
        c->queue_last->next = q;
    else
        c->queue = q;
    c->queue_last = q;
    if (!c->in_poll) {
        struct note *n = xcalloc(1, sizeof *n);
        *n = (struct note){.type = (enum event_type)NOTE_TYPE, .kind = NOTE_WAKE};
        mailbox_put(c->box, n);
    }
}

void chat_message(struct chat *c, void *takes_msg) {
    if (*(enum event_type *)takes_msg == (enum event_type)NOTE_TYPE)
        loader_note(c, takes_msg);
    else
        turn_event(c, takes_msg);
}

static struct queued *pop(struct chat *c) {
    struct queued *q = c->queue;
    if (q) {
        c->queue = q->next;
        if (!c->queue)
            c->queue_last = NULL;
    }
    return q;
}

static void free_queued(struct queued *q) {
    chat_event_release(&q->ev);
    if (q->result)
        event_free(q->result);
    free(q);
}

/* Events of a turn make no sense once another conversation is shown. */
static void forget_turn_events(struct chat *c) {
    struct queued *all = c->queue, *next;
    c->queue = c->queue_last = NULL;
    for (struct queued *q = all; q; q = next) {
        next = q->next;
        q->next = NULL;
        if (q->ev.type != EV_MODEL && q->ev.type != EV_STORE_FAILED) {
            free_queued(q);
        } else {
            if (c->queue_last)
                c->queue_last->next = q;
            else
                c->queue = q;
            c->queue_last = q;
        }
    }
}

bool chat_poll(struct chat *c, struct chat_event *out) {
    void *msg;
    c->in_poll = true;
    if (c->result)
        event_free(c->result);
    c->result = NULL;
    if (c->fail_shown)
        loader_failure_shown(c);
    turn_save(c, false);
    while (!c->queue && (msg = mailbox_take(c->box)))
        chat_message(c, msg);
    c->in_poll = false;
    struct queued *q = pop(c);
    if (!q) {
        memset(out, 0, sizeof *out);
        return false;
    }
    *out = q->ev;
    c->result = q->result;
    c->fail_shown = c->fail_shown || (q->ev.type == EV_MODEL && q->ev.err.code != ST_OK);
    free(q);
    return true;
}

void chat_event_release(struct chat_event *e) {
    free(e->text);
    memset(e, 0, sizeof *e);
}

int chat_fd(const struct chat *c) {
    return mailbox_fd(c->box);
}

void chat_want_tokens(struct chat *c, bool want) {
    c->want_tokens = want;
}

/* -- the conversation in memory -- */

int chat_index(const struct chat *c, int64_t message) {
    for (size_t i = c->msgs.n; i-- > 0;)
        if (c->msgs.v[i].id == message)
            return (int)i;
    return -1;
}

static struct message *tail(struct chat *c) {
    if (c->turn.kind != TURN_REPLY || c->msgs.n == 0 ||
        c->msgs.v[c->msgs.n - 1].id != c->turn.msg)
        return NULL;
    return &c->msgs.v[c->msgs.n - 1];
}

void chat_attach_tail(struct chat *c) {
    struct message *m = tail(c);
    if (!m)
        return;
    buf_add(&c->turn.text, "", 0); /* so that there is a text to point to */
    if (!c->tail_attached)
        free(m->text);
    m->text = c->turn.text.p;
    c->tail_attached = true;
}

void chat_detach_tail(struct chat *c) {
    struct message *m = tail(c);
    if (m && c->tail_attached)
        m->text = xstrdup(buf_str(&c->turn.text));
    c->tail_attached = false;
}

enum status chat_read_branch(struct chat *c, int64_t leaf, struct err *err) {
    struct message_list l = {0};
    if (c->id)
        CHECK(store_msg_path(c->store, c->id, leaf, &l, err));
    chat_detach_tail(c);
    message_list_release(&c->msgs);
    c->msgs = l;
    c->leaf = l.n ? l.v[l.n - 1].id : 0;
    context_forget_count(c);
    chat_attach_tail(c);
    return ST_OK;
}

static void set_text(char **field, const char *value) {
    char *copy = xstrdup(value ? value : "");
    free(*field);
    *field = copy;
}

void chat_follow_model(struct chat *c) {
    settings_suggest(&c->settings, c->engine ? engine_info(c->engine)->settings : "");
}

/* What the configuration says for new conversations. */
static void set_defaults(struct chat *c) {
    set_text(&c->title, "");
    set_text(&c->draft, "");
    set_text(&c->system, c->config->system);
    settings_copy(&c->settings, &c->config->settings);
    c->own_settings = false;
    c->id = c->leaf = c->keep_from = 0;
    c->streams = false;
    chat_follow_model(c);
    if (!c->config->prompt || c->config->system)
        return;
    struct prompt_list prompts;
    struct err err;
    if (prompts_load(&prompts, &err) != ST_OK) {
        log_warn("%s", err.msg);
        return;
    }
    const struct prompt *p = prompt_find(&prompts, c->config->prompt);
    if (p) {
        free(c->system);
        c->system = prompt_fill(p, NULL);
        if (settings_from_json(&c->settings, p->settings_json, &err) != ST_OK)
            log_warn("prompt %s: %s", p->name, err.msg);
    } else {
        log_warn("the prompt %s of the configuration is not in the library", c->config->prompt);
    }
    prompt_list_release(&prompts);
}

struct chat *chat_new(struct store *store, const struct config *config) {
    struct chat *c = xcalloc(1, sizeof *c);
    c->store = store;
    c->config = config;
    c->box = mailbox_new(drop_message);
    c->count = xcalloc(1, sizeof *c->count);
    settings_init(&c->settings);
    set_defaults(c);
    return c;
}

/* A draft that was taken back leaves no empty conversation behind. */
static void discard_if_empty(struct chat *c) {
    struct conversation conv;
    struct err err;
    if (!c->id || c->msgs.n || *c->draft || *c->title)
        return;
    if (store_conv_get(c->store, c->id, &conv, &err) != ST_OK)
        return;
    if (conv.n_messages == 0 && !*conv.draft && !*conv.title)
        store_conv_delete(c->store, c->id, &err);
    conversation_release(&conv);
}

void chat_free(struct chat *c) {
    if (!c)
        return;
    turn_stop_and_wait(c);
    turn_save(c, true);
    discard_if_empty(c);
    loader_end_all(c);
    sessions_release(c);
    engine_close(c->engine);
    mailbox_unref(c->box);
    for (struct queued *q; (q = pop(c));)
        free_queued(q);
    if (c->result)
        event_free(c->result);
    for (struct unsaved *u; (u = c->unsaved);) {
        c->unsaved = u->next;
        message_release(&u->m);
        free(u);
    }
    summary_release(c);
    message_list_release(&c->msgs);
    settings_release(&c->settings);
    free(c->count);
    free(c->model);
    free(c->model_path);
    free(c->title);
    free(c->system);
    free(c->draft);
    free(c);
}

static enum status read_row(struct chat *c, int64_t id, struct err *err) {
    struct conversation conv;
    struct err bad;
    CHECK(store_conv_get(c->store, id, &conv, err));
    c->streams = c->streams && c->id == id;
    c->id = id;
    c->keep_from = conv.keep_from;
    set_text(&c->title, conv.title);
    set_text(&c->system, conv.system);
    set_text(&c->draft, conv.draft);
    settings_copy(&c->settings, &c->config->settings);
    c->own_settings = *conv.settings_json;
    if (settings_from_json(&c->settings, conv.settings_json, &bad) != ST_OK)
        log_warn("conversation %lld: %s", (long long)id, bad.msg);
    chat_follow_model(c);
    conversation_release(&conv);
    return ST_OK;
}

enum status chat_open(struct chat *c, int64_t conv, struct err *err) {
    struct conversation probe;
    if (conv) { /* a conversation that is not there leaves everything as it is */
        CHECK(store_conv_get(c->store, conv, &probe, err));
        conversation_release(&probe);
    }
    turn_stop_and_wait(c);
    turn_save(c, true);
    draft_end(c);
    if (conv != c->id)
        discard_if_empty(c);
    forget_turn_events(c);
    c->full = false;
    c->reused_tok = 0;
    if (conv)
        CHECK(read_row(c, conv, err));
    else
        set_defaults(c);
    return chat_read_branch(c, 0, err);
}

enum status chat_reload(struct chat *c, struct err *err) {
    if (!c->id)
        return ST_OK;
    CHECK(read_row(c, c->id, err));
    return chat_read_branch(c, c->turn.kind == TURN_REPLY ? c->turn.msg : 0, err);
}

enum status chat_ensure(struct chat *c, struct err *err) {
    int64_t id = 0;
    enum status st;
    if (c->id)
        return ST_OK;
    CHECK(store_begin(c->store, err));
    TRY(store_conv_new(c->store, c->title, chat_model(c), &id, err));
    TRY(store_conv_set_system(c->store, id, c->system, err));
    if (c->own_settings) {
        char *json = settings_to_json(&c->settings);
        st = store_conv_set_settings(c->store, id, json, err);
        free(json);
    }
out:
    if (st != ST_OK) {
        store_rollback(c->store);
        return st;
    }
    CHECK(store_commit(c->store, err));
    c->id = id;
    return ST_OK;
}

int64_t chat_id(const struct chat *c) {
    return c->id;
}

const char *chat_title(const struct chat *c) {
    return c->title;
}

const char *chat_system(const struct chat *c) {
    return c->system;
}

const char *chat_draft(const struct chat *c) {
    return c->draft;
}

const struct settings *chat_settings(const struct chat *c) {
    return &c->settings;
}

const struct message_list *chat_messages(const struct chat *c) {
    return &c->msgs;
}

enum status chat_set_title(struct chat *c, const char *title, struct err *err) {
    if (c->id)
        CHECK(store_conv_set_title(c->store, c->id, title, err));
    set_text(&c->title, title);
    return ST_OK;
}

enum status chat_set_system(struct chat *c, const char *system, struct err *err) {
    if (c->id)
        CHECK(store_conv_set_system(c->store, c->id, system, err));
    set_text(&c->system, system);
    context_forget_count(c);
    return ST_OK;
}

enum status chat_set_draft(struct chat *c, const char *text, struct err *err) {
    if (strcmp(text, c->draft) == 0)
        return ST_OK;
    CHECK(chat_ensure(c, err));
    CHECK(store_conv_set_draft(c->store, c->id, text, err));
    set_text(&c->draft, text);
    return ST_OK;
}

enum status chat_set_all(struct chat *c, const struct settings *s, struct err *err) {
    if (c->id) {
        char *json = settings_to_json(s);
        enum status st = store_conv_set_settings(c->store, c->id, json, err);
        free(json);
        CHECK(st);
    }
    settings_copy(&c->settings, s);
    c->own_settings = true;
    return ST_OK;
}

enum status chat_set(struct chat *c, const char *name, const char *value, struct err *err) {
    const struct setting_def *d = setting_find(name);
    struct settings s;
    if (!d)
        return err_set(err, ST_USAGE, "there is no setting \"%s\"", name);
    settings_init(&s);
    settings_copy(&s, &c->settings);
    enum status st = setting_set(&s, d, value, err);
    if (st == ST_OK)
        st = chat_set_all(c, &s, err);
    settings_release(&s);
    return st;
}

/* -- sending, branches -- */

char *chat_title_from(const char *text) {
    struct buf line = {0};
    text += strspn(text, " \t\r\n");
    utf8_terminal_safe(&line, text, strcspn(text, "\r\n"), false);
    const char *s = buf_str(&line);
    size_t cells, n = utf8_fit(s, line.len, TITLE_CELLS, &cells);
    struct buf out = {0};
    if (n < line.len) { /* cut between words, unless the first one is longer than that */
        n = utf8_fit(s, line.len, TITLE_CELLS - 1, &cells);
        size_t border = n;
        while (border > 0 && s[border] != ' ')
            border--;
        if (border > n / 2)
            n = border;
        while (n > 0 && s[n - 1] == ' ')
            n--;
        buf_add(&out, s, n);
        buf_adds(&out, "…");
    } else {
        while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t'))
            n--;
        buf_add(&out, s, n);
    }
    buf_release(&line);
    return out.p ? buf_take(&out) : xstrdup("");
}

/* What can be refused before anything is stored: the text then still is in the caller's hands.
 */
static enum status check_size(struct chat *c, const char *text, bool alone, struct err *err) {
    struct tok_list t = {0};
    int summary;
    size_t start = alone ? c->msgs.n : context_start(c, &summary);
    enum status st = context_tokens(c, start, c->msgs.n, text, &t, err);
    if (st == ST_OK && t.n > (size_t)(context_size(c) - context_reserve(c)))
        st = alone ? context_too_long(c, t.n, err)
                   : err_set(err, ST_LIMIT,
                             "the conversation would have %zu tokens; the context holds %d, of "
                             "which %d are kept for the answer (context_full: stop)",
                             t.n, context_size(c), context_reserve(c));
    tok_list_release(&t);
    return st;
}

/* The message, the title of a first one, and the empty draft, all or nothing. */
static enum status store_user(struct chat *c, int64_t parent, const char *text, int64_t *id,
                              struct err *err) {
    char *title = NULL, *copy = xstrdup(text);
    int64_t old_id = c->id;
    enum status st = store_begin(c->store, err);
    if (st != ST_OK)
        goto out;
    struct message m = {.parent = parent, .role = ROLE_USER, .text = copy};
    st = chat_ensure(c, err);
    if (st == ST_OK)
        st = store_msg_add(c->store, c->id, &m, id, err);
    if (st == ST_OK && !*c->title) {
        title = chat_title_from(text);
        st = store_conv_set_title(c->store, c->id, title, err);
    }
    if (st == ST_OK && c->model)
        st = store_conv_set_model(c->store, c->id, c->model, err);
    if (st == ST_OK && *c->draft)
        st = store_conv_set_draft(c->store, c->id, "", err);
    if (st == ST_OK)
        st = store_commit(c->store, err);
    else
        store_rollback(c->store);
    if (st != ST_OK) {
        c->id = old_id;
        goto out;
    }
    set_text(&c->draft, "");
    if (title)
        set_text(&c->title, title);
out:
    free(title);
    free(copy);
    return st;
}

static enum status busy(const struct chat *c, struct err *err) {
    return c->turn.kind == TURN_NONE
               ? ST_OK
               : err_set(err, ST_BUSY, "an answer is still being written; stop it first");
}

enum status chat_send(struct chat *c, const char *text, struct err *err) {
    int64_t id;
    CHECK(busy(c, err));
    if (!text[strspn(text, " \t\r\n")])
        return err_set(err, ST_USAGE, "the message is empty");
    if (c->engine)
        CHECK(check_size(c, text, true, err));
    if (c->engine && c->config->context_full == OVERFLOW_STOP)
        CHECK(check_size(c, text, false, err));
    c->full = false;
    CHECK(store_user(c, c->leaf, text, &id, err));
    CHECK(chat_read_branch(c, id, err));
    return turn_start(c, c->config->context_full, err);
}

/* Starts a reply after the branch was changed; goes back to the old branch when it can't begin.
 */
static enum status start_on_branch(struct chat *c, int64_t old_leaf, struct err *err) {
    struct err ignored;
    enum status st = turn_start(c, c->config->context_full, err);
    c->full_old_leaf = st == ST_CONTEXT_FULL ? old_leaf : 0;
    if (st != ST_OK && st != ST_CONTEXT_FULL && old_leaf)
        chat_read_branch(c, old_leaf, &ignored);
    return st;
}

static enum status message_here(struct chat *c, int64_t id, struct message *out,
                                struct err *err) {
    CHECK(store_msg_get(c->store, id, out, err));
    if (out->conv == c->id)
        return ST_OK;
    message_release(out);
    return err_set(err, ST_NOT_FOUND, "message %lld is not of this conversation",
                   (long long)id);
}

enum status chat_regenerate(struct chat *c, int64_t message, struct err *err) {
    struct message m;
    CHECK(busy(c, err));
    CHECK(message_here(c, message, &m, err));
    int64_t parent = m.role == ROLE_USER ? m.id : m.role == ROLE_ASSISTANT ? m.parent : 0;
    message_release(&m);
    if (!parent)
        return err_set(err, ST_USAGE, "only a reply can be written anew");
    if (!c->engine)
        return err_set(err, ST_NOT_FOUND, "no model is loaded");
    int64_t old = c->leaf;
    c->full = false;
    CHECK(chat_read_branch(c, parent, err));
    return start_on_branch(c, old, err);
}

enum status chat_edit(struct chat *c, int64_t message, const char *text, struct err *err) {
    struct message m;
    int64_t id;
    CHECK(busy(c, err));
    if (!text[strspn(text, " \t\r\n")])
        return err_set(err, ST_USAGE, "the message is empty");
    CHECK(message_here(c, message, &m, err));
    enum role role = m.role;
    int64_t parent = m.parent;
    message_release(&m);
    if (role != ROLE_USER)
        return err_set(err, ST_USAGE, "only your own messages can be edited");
    if (c->engine)
        CHECK(check_size(c, text, true, err));
    c->full = false;
    CHECK(store_user(c, parent, text, &id, err));
    CHECK(chat_read_branch(c, id, err));
    return start_on_branch(c, 0, err);
}

enum status chat_switch_branch(struct chat *c, int64_t message, int step, struct err *err) {
    int64_t sibling, leaf;
    CHECK(busy(c, err));
    CHECK(store_msg_sibling(c->store, message, step, &sibling, err));
    if (!sibling)
        return err_set(err, ST_NOT_FOUND, "there is no further branch here");
    CHECK(store_msg_newest_leaf(c->store, sibling, &leaf, err));
    CHECK(store_conv_set_leaf(c->store, c->id, leaf, err));
    c->full = false;
    return chat_read_branch(c, leaf, err);
}

enum status chat_resolve(struct chat *c, enum overflow how, struct err *err) {
    CHECK(busy(c, err));
    if (!c->full || how == OVERFLOW_ASK)
        return err_set(err, ST_USAGE, "there is nothing to decide");
    bool reply = c->full_reply;
    int64_t old = c->full_old_leaf;
    c->full = false;
    switch (how) {
    case OVERFLOW_SUMMARISE:
        return summary_start(c, reply, err);
    case OVERFLOW_STREAM:
        c->full = true; /* until it is known that it can */
        CHECK(chat_can_stream(c, err));
        c->full = false;
        c->streams = true;
        return reply ? turn_start(c, how, err) : ST_OK;
    case OVERFLOW_DROP:
        CHECK(context_drop(c, err));
        return reply ? turn_start(c, OVERFLOW_STOP, err) : ST_OK;
    default:
        return old ? chat_read_branch(c, old, err) : ST_OK;
    }
}
