/*
 * term.h - the terminal itself: entering and leaving it, signals, suspending, programs that
 * borrow it.
 *
 * There is one terminal in a process, so this file has the one global state of the interface
 * (static, in term.c). After term_open() the terminal is in raw mode on its second screen;
 * term_close(), a crash and exit() restore it.
 */
#ifndef LLMCHAT_UI_TERM_H
#define LLMCHAT_UI_TERM_H

#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>

struct term_info {
    bool utf8;            /* the locale's character set; else only ASCII is drawn */
    int colors;           /* 0: none, or NO_COLOR is set */
    bool light;           /* the background is light, as far as is known */
    char type_ahead[256]; /* what was typed while the terminal was asked for its colours */
    size_t n_type_ahead;
    bool pastes; /* it is known to mark pastes */
};

/* ask_background: find out whether the background is light (COLORFGBG, else the terminal is
 * asked, at most 120 ms). ST_USAGE: no terminal, or one without a screen (dumb);
 * ST_UNSUPPORTED: TERM is unknown. */
enum status term_open(bool ask_background, struct err *err);
void term_close(void);
const struct term_info *term_info(void);

/* Signals arrive as bits, through a descriptor for poll(). */
enum { TERM_RESIZED = 1, TERM_HANGUP = 2, TERM_CONTINUED = 4, TERM_CHILD = 8, TERM_STOP = 16 };
int term_signal_fd(void);
unsigned term_take_signals(void); /* and empties the descriptor */
/* Tells ncurses the size that the terminal has now. */
void term_fit(void);
/* Mouse reports (clicks, drags, wheel) on or off. */
void term_mouse(bool on);
/* Leaves the screen, stops the process as Ctrl-Z does, and comes back when it is continued. */
void term_suspend(void);
/* Gives the terminal to another program, and takes it back. */
void term_leave(void);
void term_return(void);
/* Writes bytes to the terminal beside ncurses (OSC 52). False when it failed. */
bool term_write(const char *p, size_t len);

#endif
