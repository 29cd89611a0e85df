/*
 * act_chat.c - commands on conversations and turns.
 *
 * What a turn can answer at once is the same for sending, regenerating and editing, so one
 * function (turn_begun) deals with it: no model yet (the message waits for it), the context is
 * full (the person is asked), or it goes.
 */
#include "base/clock.h"
#include "base/utf8.h"
#include "ui/act.h"
#include "ui/term.h"
#include <stdlib.h>
#include <string.h>

#define TWICE_US 2000000

static int64_t last_message(const struct app *a) {
    const struct message_list *l = chat_messages(a->chat);
    return l->n ? l->v[l->n - 1].id : 0;
}

static const struct message *message_of(const struct app *a, int64_t id) {
    const struct message_list *l = chat_messages(a->chat);
    for (size_t i = 0; i < l->n; i++)
        if (l->v[i].id == id)
            return &l->v[i];
    return NULL;
}

/* The message that a command is about: the selected one, else the last. */
static int64_t target(const struct app *a) {
    int64_t id = transcript_selected(a->tr);
    return id > 0 ? id : last_message(a);
}

/* True when the turn's message is stored, whatever happens to its answer. */
static bool turn_begun(struct app *a, enum status st, const struct err *err) {
    enum model_state model = chat_model_state(a->chat);
    switch (st) {
    case ST_OK:
        break;
    case ST_BUSY:
        app_complain(a, "An answer is still being written; Esc stops it");
        return false;
    case ST_CONTEXT_FULL:
        a->context_full = true;
        break;
    case ST_NOT_FOUND:
        if (model == MODEL_READY)
            return app_ok(a, st, err);
        a->waiting = last_message(a);
        if (model == MODEL_LOADING)
            app_say(a, "Saved; the answer begins when the model is loaded");
        else
            app_complain(a, "Saved, but there is no model to answer: Model > Choose model");
        break;
    default:
        return app_ok(a, st, err);
    }
    app_sync(a);
    transcript_bottom(a->tr);
    list_load(a);
    return true;
}

static bool blank(const char *s) {
    return s[strspn(s, " \t\n")] == 0;
}

const char *message_of_input(const char *text) {
    if (text[0] != '/')
        return text;
    return text[1] == '/' ? text + 1 : NULL;
}

void send_input(struct app *a) {
    struct err err;
    char *text = edit_text(a->edit);
    const char *body = message_of_input(text);
    bool sent = false;
    if (blank(text))
        goto out;
    if (!body) {
        unsigned before = edit_version(a->edit);
        sent = slash_command(a, text) && edit_version(a->edit) == before;
    } else {
        a->toast[0] = 0;
        sent = turn_begun(a, chat_send(a->chat, body, &err), &err);
    }
    if (sent) {
        enum status st = edit_history_add(a->history, text, &err);
        edit_reset(a->edit, "");
        app_save_draft(a);
        app_ok(a, st, &err);
    }
out:
    free(text);
}

/* A terminal that does not mark pastes types them: an Enter between characters that all came at
 * once is a line of a paste, which must not be sent by itself. */
void act_send(struct app *a) {
    if (!term_info()->pastes && a->burst >= 3 && input_waiting())
        edit_insert(a->edit, "\n", 1);
    else
        send_input(a);
}

void act_new(struct app *a) {
    if (app_open(a, 0))
        app_focus(a, FOCUS_INPUT);
}

void act_rename(struct app *a) {
    struct err err;
    if (chat_id(a->chat) == 0) {
        app_say(a, "This conversation is still empty");
        return;
    }
    char *title =
        dialog_input(a, "Rename", "Title of the conversation:", chat_title(a->chat), 1);
    if (title && !blank(title) && app_ok(a, chat_set_title(a->chat, title, &err), &err))
        list_load(a);
    free(title);
}

void act_delete(struct app *a) {
    struct err err;
    int64_t id = a->focus == FOCUS_LIST ? list_current(a) : chat_id(a->chat);
    if (id == 0) {
        app_say(a, "There is no conversation to delete");
        return;
    }
    app_save_draft(a);
    struct conversation conv = {0};
    if (!app_ok(a, store_conv_get(a->params.store, id, &conv, &err), &err))
        return;
    bool here = id == chat_id(a->chat);
    if ((!here || app_open(a, 0)) &&
        app_ok(a, store_conv_delete(a->params.store, id, &err), &err)) {
        a->deleted = id;
        chat_forget(a->chat, id);
        list_load(a);
        app_say(a, "Deleted “%.*s” · Chat > Undo delete brings it back",
                utf8_cut(conv.title, 60), conv.title);
    }
    conversation_release(&conv);
}

void act_undelete(struct app *a) {
    struct err err;
    int64_t id = a->deleted;
    if (id == 0) {
        app_say(a, "Nothing was deleted since the program was started");
        return;
    }
    if (app_ok(a, store_conv_undelete(a->params.store, id, &err), &err) && app_open(a, id)) {
        a->deleted = 0;
        app_say(a, "It is back");
    }
}

void act_regenerate(struct app *a) {
    struct err err;
    int64_t id = target(a);
    if (id == 0)
        app_say(a, "There is no message to answer yet");
    else
        turn_begun(a, chat_regenerate(a->chat, id, &err), &err);
}

/* The user's message at or before id. */
static const struct message *own_message(const struct app *a, int64_t id) {
    const struct message_list *l = chat_messages(a->chat);
    const struct message *found = NULL;
    for (size_t i = 0; i < l->n; i++) {
        if (l->v[i].role == ROLE_USER)
            found = &l->v[i];
        if (l->v[i].id == id)
            break;
    }
    return found;
}

void act_edit_message(struct app *a) {
    struct err err;
    const struct message *m = own_message(a, target(a));
    if (chat_busy(a->chat)) {
        turn_begun(a, ST_BUSY, &err);
        return;
    }
    if (!m) {
        app_say(a, "There is no message of yours to change yet");
        return;
    }
    int64_t id = m->id;
    int rows = screen_rows() / 2;
    char *text = xstrdup(m->text);
    bool begun = false;
    while (text && !begun) { /* what can't be sent is shown again: it is someone's work */
        char *typed = dialog_input(
            a, "Edit message", "The changed message begins a new branch; the old one stays.",
            text, rows > 3 ? rows : 3);
        free(text);
        text = typed;
        if (text && blank(text))
            break;
        begun = text && turn_begun(a, chat_edit(a->chat, id, text, &err), &err);
    }
    if (begun)
        app_focus(a, FOCUS_INPUT);
    free(text);
}

void switch_branch(struct app *a, int64_t message, int step) {
    struct err err;
    size_t at = 0;
    const struct message_list *l = chat_messages(a->chat);
    while (at < l->n && l->v[at].id != message)
        at++;
    enum status st = chat_switch_branch(a->chat, message, step, &err);
    if (st == ST_NOT_FOUND) {
        app_say(a, step < 0 ? "This is the first branch" : "This is the last branch");
        return;
    }
    if (!app_ok(a, st, &err))
        return;
    app_sync(a);
    l = chat_messages(a->chat);
    if (at >= l->n)
        return;
    if (a->focus == FOCUS_TRANSCRIPT)
        transcript_select(a->tr, l->v[at].id);
    else
        transcript_show(a->tr, l->v[at].id);
}

static void branch(struct app *a, int step) {
    const struct message *m = message_of(a, target(a));
    if (m && m->n_sibling > 1)
        switch_branch(a, m->id, step);
    else
        app_say(a, "This message has one branch; Ctrl-R makes another answer");
}

void act_branch_prev(struct app *a) {
    branch(a, -1);
}

void act_branch_next(struct app *a) {
    branch(a, 1);
}

void act_stop(struct app *a) {
    a->waiting = 0;
    chat_stop(a->chat);
}

void act_escape(struct app *a) {
    if (chat_busy(a->chat)) {
        act_stop(a);
    } else if (a->waiting) {
        a->waiting = 0;
        app_say(a, "It will not be answered by itself; Ctrl-R asks for an answer");
    } else if (transcript_marked(a->tr)) {
        transcript_mark_clear(a->tr);
    } else if (*transcript_query(a->tr)) {
        transcript_search(a->tr, NULL);
    } else if (a->list.filter) {
        list_filter(a, false);
    } else if (a->focus != FOCUS_INPUT) {
        app_focus(a, FOCUS_INPUT);
    } else {
        a->toast[0] = 0;
    }
}

void act_interrupt(struct app *a) {
    int64_t now = clock_us();
    if (chat_busy(a->chat)) {
        act_stop(a);
        a->ctrl_c_us = 0;
    } else if (a->ctrl_c_us && now - a->ctrl_c_us < TWICE_US) {
        act_quit(a);
    } else {
        a->ctrl_c_us = now;
        if (!edit_empty(a->edit)) {
            edit_clear(a->edit);
            app_say(a, "Cleared; Ctrl-Y brings it back, Ctrl-C again quits");
        } else {
            app_say(a, "Ctrl-C again quits");
        }
    }
}

void act_quit(struct app *a) {
    static const char *const answers[] = {"Stay", "Quit"};
    app_save_draft(a);
    a->quit = (!chat_unsaved(a->chat) && !a->save_failed) ||
              dialog_ask(a, "Not saved", "What came last could not be saved and would be lost.",
                         answers, 2) == 1;
}

void act_delete_or_quit(struct app *a) {
    if (edit_empty(a->edit))
        act_quit(a);
    else if (a->focus == FOCUS_INPUT)
        edit_delete(a->edit);
}

void act_suspend(struct app *a) {
    app_save_draft(a);
    term_suspend();
    a->dirty = true;
}
