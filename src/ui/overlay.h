/*
 * overlay.h - what lies above the panes and has all keys: menus, dialogs, the palette, help.
 *
 * app_modal() shows an overlay and runs the event loop until it is done, so that a sequence of
 * questions reads as ordinary code while answers go on streaming behind it. Overlays live on
 * the stack of who asks. They are only opened by commands and by the main loop, never from
 * inside event handling.
 */
#ifndef LLMCHAT_UI_OVERLAY_H
#define LLMCHAT_UI_OVERLAY_H

#include "ui/edit.h"
#include "ui/input.h"
#include "ui/screen.h"

struct app;

struct overlay {
    struct overlay *below;
    void (*draw)(struct app *a, struct overlay *o);
    void (*key)(struct app *a, struct overlay *o, key_code key);
    void (*paste)(struct app *a, struct overlay *o, const char *text,
                  size_t len); /* may be NULL */
    void (*mouse)(struct app *a, struct overlay *o,
                  const struct input_event *e); /* may be NULL */
    struct rect rect;                           /* where it was drawn last */
    bool done;
    int result; /* -1: closed without an answer */
};

/* -- dialogs; each returns when the person is done -- */

/* A text to read, with scrolling. */
void dialog_message(struct app *a, const char *title, const char *text);
/* The same for a text that changes: make() writes it, and again as long as the dialog is open
 * after the microseconds that it returned; 0: not again. */
void dialog_live(struct app *a, const char *title,
                 int64_t (*make)(struct app *a, struct buf *out));
/* A question with up to four answers; returns the number of the answer, -1 for Esc. The first
 * is the default. */
int dialog_ask(struct app *a, const char *title, const char *text, const char *const *answers,
               int n);
/* The same for a dialog that an event opens while the person may be typing: what is typed goes
 * to the draft, answers are taken with the arrows and Enter. n may be 0: a text to read. */
int dialog_interrupt(struct app *a, const char *title, const char *text,
                     const char *const *answers, int n);
/* Asks for a text; several rows when rows > 1. The caller frees; NULL for Esc. */
char *dialog_input(struct app *a, const char *title, const char *label, const char *text,
                   int rows);

/* -- picker: a list with a filter, for everything that is chosen -- */

struct pick_item {
    char *text;   /* what is shown and matched */
    char *detail; /* shown muted behind it, and matched as well; may be NULL */
    char *right;  /* shown at the right edge; may be NULL */
    bool heading; /* can't be chosen */
    bool marked;  /* the present value */
    int64_t id;   /* the caller's */
};
struct picker {
    struct overlay base;
    const char *title, *hint; /* hint: shown in the frame below; may be NULL */
    struct pick_item *v;
    size_t n, cap;
    /* Makes the items anew for what was typed (a search); NULL: the items are filtered by
     * letters. */
    void (*query)(struct app *a, struct picker *p, const char *text);
    void *user;
    bool wide;
    /* inside */
    struct edit *field;
    unsigned version;
    size_t *shown;
    int *score;
    size_t n_shown, at, top;
};
struct pick_item *picker_add(struct picker *p, const char *text, const char *detail,
                             const char *right, int64_t id);
void picker_clear(struct picker *p);
/* Runs it; the index of the chosen item or -1. picker_release() afterwards. */
int picker_run(struct app *a, struct picker *p);
void picker_release(struct picker *p);

/* -- for those who draw overlays -- */

/* A centred frame that fits the screen; returns the inside. */
struct rect overlay_frame(struct overlay *o, int h, int w, const char *title, const char *hint);
/* A field with an editor in one or more rows; sets the cursor. */
void overlay_field(struct rect r, struct edit *e);
/* Wraps a text to width into lines (clusters, at blanks where possible); appends to out. */
void overlay_wrap(struct strlist *out, const char *text, int width);

#endif
