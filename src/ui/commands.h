/*
 * commands.h - everything the interface can do, in one table.
 *
 * The table feeds the menus, the palette, the key bindings, the help screen and the names under
 * `keys:` in the configuration. A command works on the conversation and screen (run) or on a
 * text editor, the input's or a dialog's (edit).
 */
#ifndef LLMCHAT_UI_COMMANDS_H
#define LLMCHAT_UI_COMMANDS_H

#include "chat/config.h"
#include "ui/edit.h"
#include "ui/keys.h"

struct app;

/* Where a command's keys count. Plain characters never count in the input: there they are text.
 */
enum { IN_INPUT = 1, IN_TRANSCRIPT = 2, IN_LIST = 4, EVERYWHERE = 7 };

enum menu {
    MENU_CHAT,
    MENU_EDIT,
    MENU_MODEL,
    MENU_SAMPLING,
    MENU_VIEW,
    MENU_HELP,
    MENU_N,
    MENU_NONE
};

struct command {
    const char *name;  /* "new-chat" */
    const char *title; /* "New chat" */
    const char *help;  /* one sentence */
    const char *keys;  /* defaults, separated by blanks */
    int where;
    enum menu menu;
    void (*run)(struct app *a);
    bool (*edit)(struct edit *e);
    bool (*checked)(const struct app *a); /* NULL: not something that is on or off */
};
extern const struct command commands[];
extern const size_t n_commands;
const struct command *command_find(const char *name); /* NULL */

#define BINDING_KEYS 4
struct bindings {
    key_code (*key)[BINDING_KEYS]; /* [n_commands][BINDING_KEYS], 0: none */
    struct strlist problems;       /* one line each: unknown commands and keys, conflicts */
};
/* The defaults, changed by the configuration. A binding replaces all keys of its command;
 * several bindings of one command add up. */
void bindings_init(struct bindings *b, const struct config *config);
void bindings_release(struct bindings *b);
/* The command of a key at a place (one of IN_*), or NULL. */
const struct command *bindings_find(const struct bindings *b, key_code key, int where);
/* The first key of a command for showing, "" when it has none. */
const char *bindings_show(const struct bindings *b, const struct command *c,
                          char out[KEY_NAME_MAX]);
/* Gives a key to an editor (of the input or of a dialog): text is inserted, editing commands
 * are carried out. False when it is neither. */
bool bindings_edit(const struct bindings *b, struct edit *e, key_code key);

#endif
