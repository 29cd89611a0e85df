/*
 * input.h - what the person did: keys, pastes and the mouse, from the bytes of the terminal.
 */
#ifndef LLMCHAT_UI_INPUT_H
#define LLMCHAT_UI_INPUT_H

#include "base/mem.h"
#include "ui/keys.h"

enum input_type { IN_NONE, IN_KEY, IN_PASTE, IN_MOUSE };
enum mouse_kind { MOUSE_PRESS, MOUSE_DRAG, MOUSE_RELEASE, MOUSE_WHEEL_UP, MOUSE_WHEEL_DOWN };

struct input_event {
    enum input_type type;
    key_code key;      /* IN_KEY */
    const char *paste; /* IN_PASTE: UTF-8, lines end with '\n', no other control characters but
                          tabs; valid until the next input_next() */
    size_t n_paste;
    enum mouse_kind kind; /* IN_MOUSE */
    int button;           /* 1 left, 2 middle, 3 right; 0 for the wheel */
    int y, x;             /* cell, 0-based */
    key_code mods;
};

#define INPUT_PASTE_MAX (16u << 20) /* more is cut off */

/* After term_open(). */
void input_init(void);
void input_release(void);
/* The next event; false when nothing complete is there now. Never waits longer than the 25 ms
 * of a lone Esc. */
bool input_next(struct input_event *e);
/* True when more has come already. */
bool input_waiting(void);
/* How long to wait at the latest before calling input_next() again, in ms: 0 when bytes were
 * read ahead, longer inside a paste; -1: no limit. */
int input_timeout_ms(void);

#endif
