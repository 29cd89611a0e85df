/*
 * ui.h - the terminal interface. Everything that knows ncurses is in this folder; nothing
 * outside needs more than this.
 */
#ifndef LLMCHAT_UI_UI_H
#define LLMCHAT_UI_UI_H

#include "chat/config.h"
#include "store/store.h"

struct ui_params {
    struct store *store;         /* borrowed */
    const struct config *config; /* borrowed */
    const char *model;           /* wanted by the person, or NULL */
    int64_t chat_id;             /* conversation to open; 0: a new one */
    bool continue_last;          /* or the last one */
};

/* Runs until the person quits. Returns the exit code: 0 done, 1 the terminal can't be used
 * (TERM unknown) or the conversation does not exist, 2 there is no terminal, or one that can't
 * show a screen. Messages go to stderr; the terminal is always restored, also after a crash. */
int ui_run(const struct ui_params *p);

#endif
