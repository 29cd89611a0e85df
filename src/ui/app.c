/*
 * app.c - the event loop: keys, the chat, signals and timers in; one picture out.
 *
 * Everything happens in one thread, in step(): wait with poll() until something has come or a
 * timer is due, handle it, paint when something changed and the last painting is a thirtieth of
 * a second old. Tokens only mark the picture as out of date, so a fast model costs no more
 * painting than a slow one. When nothing happens the only timer is a look every two seconds
 * whether another process has changed the database.
 *
 * A modal overlay runs step() in a loop of its own (app_modal). Whatever has to ask the person
 * something because of an event (context full, a model that failed) sets a flag; the outermost
 * loop asks when no overlay is open.
 */
#include "ui/app.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/path.h"
#include "base/utf8.h"
#include "ui/act.h"
#include "ui/term.h"
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAINT_US       33333
#define DRAFT_US       500000
#define DRAFT_RETRY_US 5000000
#define GUESS_US       300000
#define STORE_US       2000000
#define BUSY_US        250000
#define TOAST_US       8000000
#define COMPLAINT_US   20000000

static void say(struct app *a, bool bad, const char *fmt, va_list ap) {
    vsnprintf(a->toast, sizeof a->toast, fmt, ap);
    a->toast_bad = bad;
    a->toast_until_us = clock_us() + (bad ? COMPLAINT_US : TOAST_US);
    a->dirty = true;
}

void app_say(struct app *a, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    say(a, false, fmt, ap);
    va_end(ap);
}

void app_complain(struct app *a, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    say(a, true, fmt, ap);
    va_end(ap);
}

bool app_ok(struct app *a, enum status st, const struct err *e) {
    if (st != ST_OK)
        app_complain(a, "%s", e->msg[0] ? e->msg : status_words(st));
    return st == ST_OK;
}

void app_check_draft(struct app *a) {
    struct err err;
    app_ok(a, chat_check_draft(a->chat, &err), &err);
}

/* -- the draft -- */

void app_save_draft(struct app *a) {
    a->draft_due_us = 0;
    if (edit_version(a->edit) == a->draft_saved)
        return;
    char *text = edit_text(a->edit);
    struct err err;
    enum status st = chat_set_draft(a->chat, text, &err);
    free(text);
    if (st == ST_OK && transcript_n(a->tr) == 0)
        list_load(a); /* the draft is all there is of it */
    if (st == ST_OK)
        a->draft_saved = a->draft_seen = edit_version(a->edit);
    else
        a->draft_due_us = clock_us() + DRAFT_RETRY_US;
    if ((st != ST_OK) != a->save_failed) {
        a->save_failed = st != ST_OK;
        app_ok(a, st, &err);
    }
    a->dirty = true;
}

/* The time of saving is not put off by more typing: who types without a pause for minutes must
 * not lose all of it. */
static void watch_draft(struct app *a) {
    unsigned v = edit_version(a->edit);
    if (v == a->draft_seen)
        return;
    a->draft_seen = v;
    if (v == a->draft_saved)
        a->draft_due_us = 0;
    else if (a->draft_due_us == 0)
        a->draft_due_us = clock_us() + DRAFT_US;
    a->guess_due_us = clock_us() + GUESS_US;
    a->dirty = true;
}

static void guess_prompt(struct app *a) {
    char *text = edit_text(a->edit);
    const char *body = message_of_input(text);
    a->guess_due_us = 0;
    chat_prefill_draft(a->chat, body ? body : "");
    free(text);
}

/* -- the conversation on the screen -- */

static const char *footer_of(const struct app *a, const struct message *m, bool *bad) {
    *bad = false;
    if (m->role != ROLE_ASSISTANT)
        return NULL;
    switch (m->state) {
    case MSG_STOPPED:
        return "stopped";
    case MSG_INTERRUPTED:
        return "interrupted";
    case MSG_FAILED:
        *bad = true;
        return m->id == a->failed && a->fail_text[0] ? a->fail_text : "failed";
    default:
        return m->finish && strcmp(m->finish, "length") == 0 ? "ended at the limit of tokens"
                                                             : NULL;
    }
}

/* What stands between the messages where the model's sight begins, before message *at; NULL: it
 * sees all. */
static const char *seen_notice(const struct app *a, size_t *at) {
    size_t dropped = (size_t)chat_dropped(a->chat);
    *at = dropped;
    if (chat_left_out(a->chat) == 0)
        return dropped ? "the model no longer sees what is above this line" : NULL;
    *at = (size_t)chat_forgotten(a->chat);
    return *at ? "the model no longer sees what is above this line, nor all of the message "
                 "below"
               : "the model no longer sees all of the message below";
}

void app_sync(struct app *a) {
    static const enum tr_role roles[] = {TR_SYSTEM, TR_USER, TR_MODEL, TR_TOOL};
    const struct message_list *l = chat_messages(a->chat);
    size_t n = 0, seen_from;
    const char *notice = seen_notice(a, &seen_from);
    struct tr_message *v = xcalloc(l->n + 2, sizeof *v);
    const char *system = chat_system(a->chat);
    if (system && *system)
        v[n++] = (struct tr_message){
            .id = -1, .role = TR_SYSTEM, .text = system, .len = strlen(system)};
    if (notice && seen_from == 0)
        v[n++] = (struct tr_message){
            .id = -2, .role = TR_NOTICE, .text = notice, .len = strlen(notice)};
    for (size_t i = 0; i < l->n; i++) {
        const struct message *m = &l->v[i];
        bool bad;
        const char *footer = footer_of(a, m, &bad);
        bool summary = m->role == ROLE_SYSTEM && m->finish && strcmp(m->finish, "summary") == 0;
        v[n++] = (struct tr_message){.id = m->id,
                                     .role = summary ? TR_SUMMARY : roles[m->role],
                                     .text = m->text,
                                     .len = strlen(m->text),
                                     .streaming = m->state == MSG_STREAMING,
                                     .footer = footer,
                                     .footer_error = bad,
                                     .sibling = m->sibling,
                                     .n_sibling = m->n_sibling};
        if (notice && i + 1 == seen_from)
            v[n++] = (struct tr_message){
                .id = -2, .role = TR_NOTICE, .text = notice, .len = strlen(notice)};
    }
    transcript_sync(a->tr, v, n);
    free(v);
    a->left_out = chat_left_out(a->chat);
    a->dirty = true;
}

bool app_open(struct app *a, int64_t id) {
    static const char *const answers[] = {"Stop it", "Let it go on"};
    struct err err;
    if (chat_busy(a->chat)) {
        if (id && id == chat_id(a->chat))
            return true;
        if (dialog_ask(a, "An answer is being written",
                       "Opening another conversation stops it. What came so far is kept.",
                       answers, 2) != 0)
            return false;
    }
    app_save_draft(a);
    if (edit_version(a->edit) != a->draft_saved) /* it was told why: stay with what is typed */
        return false;
    if (!app_ok(a, chat_open(a->chat, id, &err), &err))
        return false;
    a->waiting = 0;
    a->context_full = false;
    edit_reset(a->edit, chat_draft(a->chat));
    a->draft_saved = a->draft_seen = edit_version(a->edit);
    a->draft_due_us = 0;
    transcript_clear(a->tr);
    app_sync(a);
    transcript_bottom(a->tr);
    list_load(a);
    app_check_draft(a);
    return true;
}

void app_focus(struct app *a, enum focus f) {
    a->focus = f;
    if (f == FOCUS_TRANSCRIPT && transcript_selected(a->tr) == 0)
        transcript_select_step(a->tr, -1);
    if (f != FOCUS_TRANSCRIPT)
        transcript_select(a->tr, 0);
    a->dirty = true;
}

/* -- events of the chat -- */

static void note_device(struct app *a, const char *note) {
    if (note[0]) /* it begins with "on" */
        app_say(a, "O%s", note + 1);
}

static void model_event(struct app *a, const struct chat_event *e) {
    const char *what;
    switch (chat_model_state(a->chat)) {
    case MODEL_LOADING:
        what = e->text && *e->text ? e->text : "loading";
        snprintf(a->model_what, sizeof a->model_what, "%.*s", utf8_cut(what, 60), what);
        a->model_share = e->total ? (double)e->done / (double)e->total : -1;
        break;
    case MODEL_READY:
        a->model_what[0] = 0;
        app_check_draft(a);
        note_device(a, chat_engine_info(a->chat)->device_note);
        break;
    case MODEL_FAILED:
        free(a->model_error);
        a->model_error = xstrdup(e->err.msg[0] ? e->err.msg : "the model could not be loaded");
        a->model_failed = true;
        a->model_what[0] = 0;
        break;
    default:
        break;
    }
}

static void text_event(struct app *a, const struct chat_event *e) {
    const struct message_list *l = chat_messages(a->chat);
    a->prefill_total = 0;
    if (l->n && e->text &&
        !transcript_append(a->tr, l->v[l->n - 1].id, e->text, strlen(e->text)))
        app_sync(a);
}

static void handle_event(struct app *a, const struct chat_event *e) {
    a->dirty = true;
    switch (e->type) {
    case EV_MODEL:
        model_event(a, e);
        break;
    case EV_PREFILL:
        a->prefill_done = (int)e->done;
        a->prefill_total = (int)e->total;
        break;
    case EV_TEXT:
        text_event(a, e);
        break;
    case EV_DONE:
    case EV_CONTEXT_FULL:
        a->prefill_total = 0;
        a->save_failed = false;
        a->context_full |= e->type == EV_CONTEXT_FULL;
        app_sync(a);
        list_load(a);
        break;
    case EV_FAILED: {
        const struct message_list *l = chat_messages(a->chat);
        a->prefill_total = 0;
        a->failed = l->n ? l->v[l->n - 1].id : 0;
        snprintf(a->fail_text, sizeof a->fail_text, "failed: %s", e->err.msg);
        if (e->err.code == ST_DEVICE) {
            a->device_failed = true;
            memcpy(a->device_error, e->err.msg, sizeof a->device_error);
        }
        app_sync(a);
        app_complain(a, "%s", e->err.msg);
        break;
    }
    case EV_STORE_FAILED:
        a->save_failed = true;
        app_complain(a, "not saved, will be tried again: %s", e->err.msg);
        break;
    default:
        break;
    }
}

void app_chat_events(struct app *a) {
    struct chat_event e;
    while (chat_poll(a->chat, &e)) {
        handle_event(a, &e);
        chat_event_release(&e);
    }
    if (a->waiting && chat_model_state(a->chat) == MODEL_READY && !chat_busy(a->chat)) {
        int64_t id = a->waiting;
        struct err err;
        a->waiting = 0;
        enum status st = chat_regenerate(a->chat, id, &err);
        a->context_full |= st == ST_CONTEXT_FULL;
        if (st != ST_CONTEXT_FULL)
            app_ok(a, st, &err);
        app_sync(a);
    }
}

/* Another window may have written to the database, or have died while it wrote a reply. */
static void look_at_store(struct app *a) {
    int64_t now;
    struct err err;
    int n_dead = 0;
    a->store_checked_us = clock_us();
    store_recover(a->params.store, &n_dead, &err); /* what fails is tried again soon */
    if (store_version(a->params.store, &now, &err) != ST_OK)
        return;
    bool news = a->store_seen != 0 && now != a->store_seen;
    a->store_seen = now;
    if (!news && n_dead == 0)
        return;
    list_load(a);
    if (chat_id(a->chat) && !chat_busy(a->chat) && chat_reload(a->chat, &err) == ST_OK)
        app_sync(a);
}

/* -- keys -- */

static int place(const struct app *a) {
    return a->focus == FOCUS_INPUT  ? IN_INPUT
           : a->focus == FOCUS_LIST ? IN_LIST
                                    : IN_TRANSCRIPT;
}

void app_run_command(struct app *a, const struct command *c) {
    if (c->edit) {
        app_focus(a, FOCUS_INPUT);
        c->edit(a->edit);
    } else {
        c->run(a);
    }
    a->dirty = true;
}

static void panes_key(struct app *a, key_code key) {
    if (a->list.typing && a->focus == FOCUS_LIST) {
        list_key(a, key);
        return;
    }
    const struct command *c = bindings_find(&a->keys, key, place(a));
    if (c) {
        app_run_command(a, c);
        return;
    }
    enum menu m = menu_of_letter(key);
    if (a->focus == FOCUS_INPUT && bindings_edit(&a->keys, a->edit, key) && m == MENU_NONE)
        return;
    if (m != MENU_NONE)
        menu_open(a, m);
}

static void handle_input(struct app *a, const struct input_event *e) {
    int64_t ctrl_c_us = a->ctrl_c_us;
    a->dirty = true;
    if (e->type == IN_KEY && a->top) {
        const struct command *c = bindings_find(&a->keys, e->key, IN_LIST);
        if (c && (c->run == act_repaint || c->run == act_suspend))
            c->run(a);
        else
            a->top->key(a, a->top, e->key == ('c' | MOD_CTRL) ? K_ESC : e->key);
    } else if (e->type == IN_KEY) {
        panes_key(a, e->key);
    } else if (e->type == IN_PASTE && a->top) {
        if (a->top->paste)
            a->top->paste(a, a->top, e->paste, e->n_paste);
    } else if (e->type == IN_PASTE) {
        app_focus(a, FOCUS_INPUT);
        edit_paste(a->edit, e->paste, e->n_paste);
    } else if (e->type == IN_MOUSE && a->mouse) {
        if (!a->top)
            view_mouse(a, e);
        else if (a->top->mouse)
            a->top->mouse(a, a->top, e);
    }
    if (a->ctrl_c_us == ctrl_c_us)
        a->ctrl_c_us = 0; /* something else came: only two in a row quit */
    watch_draft(a);
}

static void handle_signals(struct app *a) {
    unsigned bits = term_take_signals();
    if (bits & TERM_HANGUP)
        a->quit = true;
    if (bits & TERM_RESIZED)
        term_fit();
    if (bits & TERM_CONTINUED)
        screen_repaint();
    if (bits & TERM_STOP)
        act_suspend(a);
    if (bits)
        a->dirty = true;
}

/* -- painting and waiting -- */

static void draw_overlays(struct app *a, struct overlay *o) {
    if (!o)
        return;
    draw_overlays(a, o->below);
    o->draw(a, o);
}

void app_paint(struct app *a) {
    if (chat_left_out(a->chat) != a->left_out)
        app_sync(a);
    screen_clear();
    view_layout(a);
    view_draw(a);
    if (!a->panes.small)
        draw_overlays(a, a->top);
    screen_show();
    a->painted_us = clock_us();
    a->dirty = false;
}

static void sooner(int64_t *due, int64_t t) {
    if (t && t < *due)
        *due = t;
}

static int wait_ms(const struct app *a, int64_t now) {
    int64_t due = a->store_checked_us + STORE_US;
    sooner(&due, a->draft_due_us);
    sooner(&due, a->guess_due_us);
    sooner(&due, a->toast_until_us);
    sooner(&due, a->quiet_us);
    sooner(&due, a->renew_us);
    if (a->dirty)
        sooner(&due, a->painted_us + PAINT_US);
    if (chat_busy(a->chat))
        sooner(&due, now + BUSY_US);
    if (input_timeout_ms() >= 0)
        sooner(&due, now + input_timeout_ms() * (int64_t)1000);
    return due <= now ? 0 : (int)((due - now + 999) / 1000);
}

static void run_timers(struct app *a, int64_t now) {
    if (a->draft_due_us && now >= a->draft_due_us)
        app_save_draft(a);
    if (a->guess_due_us && now >= a->guess_due_us)
        guess_prompt(a);
    if (a->quiet_us && now >= a->quiet_us) {
        a->quiet_us = 0;
        a->dirty = true;
    }
    if (a->renew_us && now >= a->renew_us) {
        a->renew_us = 0;
        a->dirty = true;
    }
    if (a->toast_until_us && now >= a->toast_until_us) {
        a->toast_until_us = 0;
        a->toast[0] = 0;
        a->dirty = true;
    }
    if (now >= a->store_checked_us + STORE_US)
        look_at_store(a);
}

/* One round. Returns when something may have changed. */
static void step(struct app *a) {
    if (a->dirty && clock_us() - a->painted_us >= PAINT_US)
        app_paint(a);
    struct pollfd p[3] = {{.fd = STDIN_FILENO, .events = POLLIN},
                          {.fd = term_signal_fd(), .events = POLLIN},
                          {.fd = chat_fd(a->chat), .events = POLLIN}};
    poll(p, 3, wait_ms(a, clock_us()));
    if (p[1].revents)
        handle_signals(a);
    if (p[0].revents & (POLLHUP | POLLERR | POLLNVAL))
        a->quit = true;
    struct overlay *top = a->top;
    struct input_event e;
    a->burst = 0;
    while (!a->quit && a->top == top && !(top && top->done) && input_next(&e)) {
        handle_input(a, &e);
        a->burst++;
    }
    app_chat_events(a);
    run_timers(a, clock_us());
}

int app_modal(struct app *a, struct overlay *o) {
    o->below = a->top;
    o->done = false;
    o->result = -1;
    a->top = o;
    a->dirty = true;
    while (!o->done && !a->quit)
        step(a);
    a->top = o->below;
    a->dirty = true;
    return o->done ? o->result : -1;
}

/* What must be asked or told because of an event. */
static void ask_what_waits(struct app *a) {
    if (a->model_failed) {
        a->model_failed = false;
        dialog_interrupt(a, "The model could not be loaded", a->model_error, NULL, 0);
    }
    if (a->context_full && !chat_busy(a->chat)) {
        a->context_full = false;
        ask_context_full(a);
    }
    if (a->device_failed && !chat_busy(a->chat)) {
        a->device_failed = false;
        offer_cpu(a);
    }
}

static void say_config_problems(struct app *a) {
    if (a->keys.problems.n == 0)
        return;
    struct buf text = {0};
    for (size_t i = 0; i < a->keys.problems.n; i++)
        buf_addf(&text, "%s\n", a->keys.problems.v[i]);
    dialog_interrupt(a, "Key bindings", buf_str(&text), NULL, 0);
    buf_release(&text);
}

/* -- beginning and end -- */

static void open_history(struct app *a) {
    char *path = NULL;
    struct err err;
    enum status st = path_in(PATH_STATE, "history", &path, &err);
    if (st == ST_OK)
        st = edit_history_open(path, &a->history, &err);
    else
        edit_history_open(NULL, &a->history, &err);
    if (st != ST_OK)
        log_warn("history: %s", err.msg);
    free(path);
}

static enum status open_first(struct app *a, struct err *err) {
    int64_t id = a->params.chat_id;
    if (id == 0 && a->params.continue_last)
        CHECK(store_conv_last(a->params.store, &id, err));
    if (id != 0)
        CHECK(chat_open(a->chat, id, err));
    return ST_OK;
}

static void start(struct app *a) {
    edit_reset(a->edit, chat_draft(a->chat));
    a->draft_saved = a->draft_seen = edit_version(a->edit);
    app_sync(a);
    transcript_bottom(a->tr);
    list_load(a);
    app_paint(a); /* before anything slow */
    look_at_store(a);
    start_model(a);
    say_config_problems(a);
}

int ui_run(const struct ui_params *p) {
    struct app a = {.params = *p, .show_list = true, .model_share = -1};
    struct err err = {0};
    a.chat = chat_new(p->store, p->config);
    enum status st = open_first(&a, &err);
    if (st == ST_OK)
        st = term_open(p->config->theme == THEME_AUTO, &err);
    if (st != ST_OK) {
        fprintf(stderr, "llmchat: %s\n", err.msg);
        chat_free(a.chat);
        return st == ST_USAGE ? 2 : 1;
    }
    input_init();
    a.theme = p->config->theme;
    a.mouse = p->config->mouse;
    bindings_init(&a.keys, p->config);
    a.edit = edit_new();
    a.tr = transcript_new();
    transcript_set_markdown(a.tr, p->config->markdown);
    view_recall(&a);
    screen_theme(a.theme);
    term_mouse(a.mouse);
    open_history(&a);
    start(&a);
    while (!a.quit) {
        step(&a);
        ask_what_waits(&a);
    }
    app_save_draft(&a);
    input_release();
    term_close();
    chat_free(a.chat); /* after the screen is gone: closing an engine may take a moment */
    edit_history_free(a.history);
    edit_free(a.edit);
    transcript_free(a.tr);
    list_release(&a.list);
    bindings_release(&a.keys);
    free(a.model_error);
    return 0;
}
