/*
 * app.h - the interface's state and the functions its files share. Only the files of this
 * folder that draw include it.
 *
 * One thread. app.c has the loop: it waits for keys, the chat, signals and timers, changes
 * state, and paints at most 30 times a second when something has changed. view.c draws the
 * panes; act_*.c are the commands.
 */
#ifndef LLMCHAT_UI_APP_H
#define LLMCHAT_UI_APP_H

#include "chat/chat.h"
#include "ui/commands.h"
#include "ui/edit.h"
#include "ui/overlay.h"
#include "ui/screen.h"
#include "ui/transcript.h"
#include "ui/ui.h"

enum focus { FOCUS_INPUT, FOCUS_TRANSCRIPT, FOCUS_LIST };

/* The conversation list (list.c). */
struct list_row {
    int64_t id; /* 0: a heading */
    char *text;
    size_t index; /* into all */
};
struct conv_list {
    struct conversation_list all;
    struct list_row *row;
    size_t n_row, at, top;
    char *filter; /* NULL: not filtering */
    bool typing;  /* the filter has the keys */
};

struct panes {
    struct rect menu, list, transcript, input, status;
    int split; /* row of the line above the input */
    bool small;
};

struct app {
    struct ui_params params;
    struct chat *chat;
    struct bindings keys;
    struct edit *edit;
    struct edit_history *history;
    struct transcript *tr;
    struct conv_list list;
    struct overlay *top; /* NULL: the panes have the keys */
    struct panes panes;
    enum focus focus;
    bool show_list, mouse;
    enum theme theme;

    bool quit, dirty;
    int burst; /* events that came at once, before this one */
    int64_t painted_us, store_checked_us;
    int64_t store_seen;   /* store_version() */
    unsigned draft_saved; /* edit_version() that is saved */
    unsigned draft_seen;
    int64_t draft_due_us; /* 0: nothing to save */
    int64_t guess_due_us; /* when typing has paused; 0: the draft was not changed */
    int64_t ctrl_c_us;    /* when Ctrl-C was pressed last; 0: other input came after it */
    int64_t quiet_us; /* until then Enter in a dialog that came by itself is typing; 0 now */
    int64_t renew_us; /* when the dialog that is open wants to be painted again; 0: not */
    bool save_failed;

    char toast[600];
    bool toast_bad;
    int64_t toast_until_us;

    int64_t deleted; /* conversation that "undo delete" brings back */
    int64_t waiting; /* message that waits for the model to be loaded */
    int64_t failed;  /* message whose failure is in fail_text */
    char fail_text[520];
    int left_out;      /* chat_left_out() that the transcript shows */
    bool context_full; /* the person must choose: asked by the main loop */
    bool model_failed;
    bool device_failed; /* a reply failed with the device it ran on, for device_error */
    char device_error[sizeof((struct err *)0)->msg];
    char *model_error;

    char model_name[4 * 60 + 1]; /* what loads */
    char model_what[4 * 60 + 1]; /* what is done for it */
    double model_share;          /* 0..1, -1 unknown */
    int prefill_done, prefill_total;

    /* the mouse */
    int64_t click_us;
    int click_y, click_x, clicks;
    bool dragging;
};

/* -- app.c -- */
/* Runs the loop until the overlay is done (its result) or the program ends (-1). */
int app_modal(struct app *a, struct overlay *o);
/* A line of news for a few seconds. */
void app_say(struct app *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void app_complain(struct app *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Says e when st is a failure; returns whether it was none. */
bool app_ok(struct app *a, enum status st, const struct err *e);
void app_paint(struct app *a);
/* Tells when what the settings want needs a draft model that is not there. */
void app_check_draft(struct app *a);
/* Handles what the chat has to tell; safe at any time. */
void app_chat_events(struct app *a);
/* Saves the draft now if it has changed. */
void app_save_draft(struct app *a);
/* Shows the conversation as it is now in the chat. */
void app_sync(struct app *a);
/* Opens a conversation (0: a new one) with its draft. */
bool app_open(struct app *a, int64_t id);
void app_focus(struct app *a, enum focus f);
void app_run_command(struct app *a, const struct command *c);

/* -- view.c, status.c -- */
void view_layout(struct app *a);
void view_draw(struct app *a);
void view_mouse(struct app *a, const struct input_event *e);
/* Sets the switches of the View menu as they were left last. */
void view_recall(struct app *a); /* act_view.c */
void status_draw(struct app *a, struct rect r);

/* -- list.c -- */
void list_load(struct app *a);
/* What a conversation is called (free()d by the caller): its title, or its draft when it holds
 * nothing else; NULL: it holds nothing at all and is not shown. */
char *list_title(const struct conversation *c);
void list_release(struct conv_list *l);
void list_draw(struct app *a, struct rect r);
void list_move(struct app *a, int step);
void list_key(struct app *a, key_code key); /* while the filter is typed */
void list_filter(struct app *a, bool on);
int64_t list_current(const struct app *a); /* conversation under the cursor, 0 none */
int64_t list_at(const struct app *a, int y);

/* -- menu.c -- */
void menu_open(struct app *a, enum menu m);
void menu_bar_draw(struct app *a, struct rect r, int open);
/* The menu whose name is at column x of the bar, or MENU_NONE. */
enum menu menu_at(int x);
enum menu menu_of_letter(key_code key);

/* -- the commands' work -- */
/* What of the typed text would be sent: all, or what follows a doubled slash; NULL: it is a
 * command. */
const char *message_of_input(const char *text); /* act_chat.c */
void send_input(struct app *a);
void load_model(struct app *a, const char *name); /* act_model.c */
void start_model(struct app *a);
void offer_cpu(struct app *a); /* after a device failed */
void say_no_model(struct app *a);
void ask_context_full(struct app *a);
void sampling_dialog(struct app *a, size_t setting); /* sampling.c */
void export_dialog(struct app *a, const char *path); /* path NULL: asks for everything */
void open_by_name(struct app *a,
                  const char *name); /* act_find.c: id, or letters of the title */
bool slash_command(struct app *a, const char *text); /* slash.c; false: keep the input */
void slash_complete(struct app *a);
void help_show(struct app *a); /* help.c */
void palette_show(struct app *a);
void edit_outside(struct app *a); /* outside.c */
/* To the clipboard: the terminal's (OSC 52) and that of the desktop where its tool is there.
 * what: "answer". */
void copy_text(struct app *a, const char *text, const char *what); /* clipboard.c */

#endif
