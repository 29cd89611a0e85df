/*
 * commands.c - the command table, and which key means which command.
 *
 * A binding of the configuration replaces the default keys of its command. A key that then
 * belongs to two commands at the same place is a conflict: it is reported with the line of the
 * configuration, and the command that had the key keeps it.
 */
#include "ui/commands.h"
#include "base/utf8.h"
#include "ui/act.h"
#include <stdlib.h>
#include <string.h>

#define RUN(f)  .run = (f)
#define EDIT(f) .edit = (f)

const struct command commands[] = {
    /* Chat */
    {"new-chat", "New chat", "Starts a new conversation", "ctrl-n", EVERYWHERE, MENU_CHAT,
     RUN(act_new)},
    {"open-chat", "Open…", "Picks a conversation", "f4", EVERYWHERE, MENU_CHAT, RUN(act_open)},
    {"search-all", "Search all chats…", "Finds words in all conversations", "ctrl-s f3",
     EVERYWHERE, MENU_CHAT, RUN(act_search_all)},
    {"rename-chat", "Rename…", "Gives the conversation another title", "f2", EVERYWHERE,
     MENU_CHAT, RUN(act_rename)},
    {"delete-chat", "Delete", "Deletes the conversation (can be undone)", "f8", EVERYWHERE,
     MENU_CHAT, RUN(act_delete)},
    {"undelete-chat", "Undo delete", "Brings the deleted conversation back", "", EVERYWHERE,
     MENU_CHAT, RUN(act_undelete)},
    {"tree", "Branches…", "Shows every branch of the conversation", "alt-t", EVERYWHERE,
     MENU_CHAT, RUN(act_tree)},
    {"export", "Export…", "Writes the conversation to a file", "", EVERYWHERE, MENU_CHAT,
     RUN(act_export)},
    {"import", "Import…", "Reads conversations from a file", "", EVERYWHERE, MENU_CHAT,
     RUN(act_import)},
    {"suspend", "Suspend", "Back to the shell; fg continues", "ctrl-z", EVERYWHERE, MENU_NONE,
     RUN(act_suspend)},
    {"quit", "Quit", "Ends the program; everything is kept", "ctrl-q", EVERYWHERE, MENU_CHAT,
     RUN(act_quit)},

    /* Edit */
    {"send", "Send", "Sends what is typed", "enter", IN_INPUT, MENU_NONE, RUN(act_send)},
    {"newline", "New line", "Begins a new line in the message", "ctrl-j alt-enter", IN_INPUT,
     MENU_NONE, RUN(act_newline)},
    {"undo", "Undo typing", "Takes the last change of the draft back", "ctrl-_", IN_INPUT,
     MENU_EDIT, EDIT(edit_undo)},
    {"redo", "Redo typing", "Makes it again", "alt-_", IN_INPUT, MENU_EDIT, EDIT(edit_redo)},
    {"external-editor", "Draft in editor…", "Edits the draft in $VISUAL or $EDITOR", "ctrl-g",
     EVERYWHERE, MENU_EDIT, RUN(act_outside)},
    {"expand-paste", "Open up paste", "Shows the text of [pasted … lines]", "alt-p", IN_INPUT,
     MENU_EDIT, RUN(act_expand_paste)},
    {"regenerate", "Regenerate", "Another answer, as a new branch", "ctrl-r", EVERYWHERE,
     MENU_EDIT, RUN(act_regenerate)},
    {"edit-message", "Edit message…", "Changes the selected (or last) message, as a new branch",
     "ctrl-e e", IN_TRANSCRIPT, MENU_EDIT, RUN(act_edit_message)},
    {"copy-answer", "Copy answer", "Copies the last answer", "alt-w", EVERYWHERE, MENU_EDIT,
     RUN(act_copy_answer)},
    {"copy", "Copy selection", "Copies the selected text or message", "y", IN_TRANSCRIPT,
     MENU_EDIT, RUN(act_copy)},
    {"copy-code", "Copy code block",
     "Copies the last code block of the selected (or last) answer", "Y alt-k",
     IN_TRANSCRIPT | IN_INPUT, MENU_EDIT, RUN(act_copy_code)},
    {"interrupt", "Interrupt", "Stops the answer; clears the draft when idle; twice quits",
     "ctrl-c", EVERYWHERE, MENU_NONE, RUN(act_interrupt)},
    {"escape", "Stop or close",
     "Stops the answer and keeps what came; else closes what is open", "esc", EVERYWHERE,
     MENU_NONE, RUN(act_escape)},
    {"delete-char", "Delete character", "Deletes to the right; on an empty line quits",
     "ctrl-d", EVERYWHERE, MENU_NONE, RUN(act_delete_or_quit)},

    /* Model */
    {"choose-model", "Choose model…", "Picks among the installed models", "ctrl-o", EVERYWHERE,
     MENU_MODEL, RUN(act_choose_model)},
    {"model-info", "About the model", "What is loaded, and where it runs", "", EVERYWHERE,
     MENU_MODEL, RUN(act_model_info)},
    {"system-prompt", "System prompt…", "From the prompt library, or your own text", "f6",
     EVERYWHERE, MENU_MODEL, RUN(act_system)},
    {"stop", "Stop the answer", "What came is kept", "", EVERYWHERE, MENU_MODEL, RUN(act_stop)},

    /* Sampling */
    {"sampling", "All settings…", "Every sampling setting with its range and meaning", "f7",
     EVERYWHERE, MENU_SAMPLING, RUN(act_sampling)},
    {"preset-creative", "Preset: creative", "More variety", "", EVERYWHERE, MENU_SAMPLING,
     RUN(act_creative)},
    {"preset-balanced", "Preset: balanced", "The defaults for talking", "", EVERYWHERE,
     MENU_SAMPLING, RUN(act_balanced)},
    {"preset-precise", "Preset: precise", "Little variety", "", EVERYWHERE, MENU_SAMPLING,
     RUN(act_precise)},
    {"reset-sampling", "Back to defaults", "All settings as they were at first", "", EVERYWHERE,
     MENU_SAMPLING, RUN(act_reset_sampling)},

    /* View */
    {"toggle-list", "Conversation list", "Shows or hides the list", "f9", EVERYWHERE, MENU_VIEW,
     RUN(act_toggle_list), .checked = is_list_on},
    {"toggle-markdown", "Markdown", "Answers formatted or as they came", "alt-x", EVERYWHERE,
     MENU_VIEW, RUN(act_toggle_markdown), .checked = is_markdown_on},
    {"toggle-mouse", "Mouse", "Off: the terminal's own selection works", "f5", EVERYWHERE,
     MENU_VIEW, RUN(act_toggle_mouse), .checked = is_mouse_on},
    {"theme", "Theme…", "Dark, light, no colours, or as the terminal", "", EVERYWHERE,
     MENU_VIEW, RUN(act_theme)},
    {"find", "Find in this chat…", "Searches the conversation", "/ alt-/",
     EVERYWHERE & ~IN_LIST, MENU_VIEW, RUN(act_find)},
    {"find-next", "Next match", "Goes to the next match", "n", IN_TRANSCRIPT, MENU_NONE,
     RUN(act_find_next)},
    {"find-prev", "Previous match", "Goes to the match before", "N", IN_TRANSCRIPT, MENU_NONE,
     RUN(act_find_prev)},
    {"repaint", "Repaint", "Draws the screen anew", "ctrl-l", EVERYWHERE, MENU_VIEW,
     RUN(act_repaint)},
    {"next-pane", "Next pane", "To the list, transcript or input; completes a slash command",
     "tab", EVERYWHERE, MENU_NONE, RUN(act_tab)},
    {"previous-pane", "Previous pane", "The other way", "shift-tab", EVERYWHERE, MENU_NONE,
     RUN(act_tab_back)},
    {"page-up", "Page up", "Scrolls the conversation up", "pgup", EVERYWHERE, MENU_NONE,
     RUN(act_page_up)},
    {"page-down", "Page down", "Scrolls the conversation down", "pgdn", EVERYWHERE, MENU_NONE,
     RUN(act_page_down)},
    {"line-up", "Line up", "Scrolls up by a line", "k", IN_TRANSCRIPT, MENU_NONE,
     RUN(act_line_up)},
    {"line-down", "Line down", "Scrolls down by a line", "j", IN_TRANSCRIPT, MENU_NONE,
     RUN(act_line_down)},
    {"space-down", "Page down", "Scrolls down by a page", "space", IN_TRANSCRIPT, MENU_NONE,
     RUN(act_page_down)},
    {"top", "First message", "To the beginning", "g home", IN_TRANSCRIPT, MENU_NONE,
     RUN(act_top)},
    {"bottom", "Last message", "To the end, and follow it", "G end", IN_TRANSCRIPT, MENU_NONE,
     RUN(act_bottom)},
    {"follow", "Follow the answer", "To the end of the conversation", "alt->", EVERYWHERE,
     MENU_NONE, RUN(act_bottom)},
    {"message-up", "Message before", "Selects the message before", "up", IN_TRANSCRIPT,
     MENU_NONE, RUN(act_message_prev)},
    {"message-down", "Message after", "Selects the next message", "down", IN_TRANSCRIPT,
     MENU_NONE, RUN(act_message_next)},
    {"branch-prev", "Branch before", "Shows the branch before (◂)", "left", IN_TRANSCRIPT,
     MENU_NONE, RUN(act_branch_prev)},
    {"branch-next", "Branch after", "Shows the next branch (▸)", "right", IN_TRANSCRIPT,
     MENU_NONE, RUN(act_branch_next)},
    {"list-up", "Up in the list", "The conversation above", "up k", IN_LIST, MENU_NONE,
     RUN(act_list_up)},
    {"list-down", "Down in the list", "The conversation below", "down j", IN_LIST, MENU_NONE,
     RUN(act_list_down)},
    {"list-open", "Open from the list", "Opens the conversation", "enter", IN_LIST, MENU_NONE,
     RUN(act_list_open)},
    {"list-delete", "Delete from the list", "Deletes it (can be undone)", "del d", IN_LIST,
     MENU_NONE, RUN(act_delete)},
    {"list-filter", "Filter the list", "Shows only titles with these letters", "/", IN_LIST,
     MENU_NONE, RUN(act_list_filter)},

    /* Help */
    {"help", "Keys", "This table of keys", "f1 ?", EVERYWHERE, MENU_HELP, RUN(act_help)},
    {"palette", "Command palette…", "Every command, found by a few letters", "ctrl-p",
     EVERYWHERE, MENU_HELP, RUN(act_palette)},
    {"menu", "Menu", "Opens the menus", "f10", EVERYWHERE, MENU_NONE, RUN(act_menu)},
    {"about", "About llmchat", "What this program is and where it keeps things", "", EVERYWHERE,
     MENU_HELP, RUN(act_about)},

    /* Editing */
    {"history-back", "Up", "A row up; on the first row what was sent before", "up", IN_INPUT,
     MENU_NONE, RUN(act_up)},
    {"history-forward", "Down", "A row down; on the last row what was sent after", "down",
     IN_INPUT, MENU_NONE, RUN(act_down)},
    {"left", "Left", "A character left", "left ctrl-b", IN_INPUT, MENU_NONE, EDIT(edit_left)},
    {"right", "Right", "A character right", "right ctrl-f", IN_INPUT, MENU_NONE,
     EDIT(edit_right)},
    {"word-left", "Word left", "A word left", "alt-b ctrl-left alt-left", IN_INPUT, MENU_NONE,
     EDIT(edit_word_left)},
    {"word-right", "Word right", "A word right", "alt-f ctrl-right alt-right", IN_INPUT,
     MENU_NONE, EDIT(edit_word_right)},
    {"line-start", "Start of line", "To the start of the line", "ctrl-a home", IN_INPUT,
     MENU_NONE, EDIT(edit_line_start)},
    {"line-end", "End of line", "To the end of the line", "ctrl-e end", IN_INPUT, MENU_NONE,
     EDIT(edit_line_end)},
    {"text-start", "Start of text", "To the start of the message", "alt-< ctrl-home", IN_INPUT,
     MENU_NONE, EDIT(edit_start)},
    {"text-end", "End of text", "To the end of the message", "ctrl-end", IN_INPUT, MENU_NONE,
     EDIT(edit_end)},
    {"backspace", "Backspace", "Deletes to the left", "backspace", IN_INPUT, MENU_NONE,
     EDIT(edit_backspace)},
    {"delete", "Delete", "Deletes to the right", "del", IN_INPUT, MENU_NONE, EDIT(edit_delete)},
    {"kill-word-left", "Kill word left", "Cuts the word to the left", "alt-backspace", IN_INPUT,
     MENU_NONE, EDIT(edit_kill_word_left)},
    {"kill-blank-left", "Kill to blank", "Cuts to the blank on the left", "ctrl-w", IN_INPUT,
     MENU_NONE, EDIT(edit_kill_blank_left)},
    {"kill-word-right", "Kill word right", "Cuts the word to the right", "alt-d ctrl-del",
     IN_INPUT, MENU_NONE, EDIT(edit_kill_word_right)},
    {"kill-to-start", "Kill to start", "Cuts to the start of the line", "ctrl-u", IN_INPUT,
     MENU_NONE, EDIT(edit_kill_to_start)},
    {"kill-to-end", "Kill to end", "Cuts to the end of the line", "ctrl-k", IN_INPUT, MENU_NONE,
     EDIT(edit_kill_to_end)},
    {"set-mark", "Set mark", "Begins a region", "ctrl-space", IN_INPUT, MENU_NONE,
     EDIT(edit_set_mark)},
    {"kill-region", "Kill region", "Cuts the region", "shift-del", IN_INPUT, MENU_NONE,
     EDIT(edit_kill_region)},
    {"yank", "Yank", "Puts back what was cut", "ctrl-y", IN_INPUT, MENU_NONE, EDIT(edit_yank)},
    {"yank-pop", "Yank before", "After a yank: what was cut before it", "alt-y", IN_INPUT,
     MENU_NONE, EDIT(edit_yank_pop)},
    {"transpose", "Transpose", "Swaps two characters", "ctrl-t", IN_INPUT, MENU_NONE,
     EDIT(edit_transpose)},
    {"upcase-word", "Upper case", "Makes the word upper case", "alt-u", IN_INPUT, MENU_NONE,
     EDIT(edit_upcase_word)},
    {"downcase-word", "Lower case", "Makes the word lower case", "alt-l", IN_INPUT, MENU_NONE,
     EDIT(edit_downcase_word)},
};
const size_t n_commands = sizeof commands / sizeof *commands;

const struct command *command_find(const char *name) {
    for (size_t i = 0; i < n_commands; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static bool plain_character(key_code key) {
    return key < 0x110000;
}

/* Where a key of a command really counts. */
static int reach(const struct command *c, key_code key) {
    return plain_character(key) ? c->where & ~IN_INPUT : c->where;
}

static const struct command *owner(const struct bindings *b, key_code key, int where,
                                   size_t but) {
    for (size_t i = 0; i < n_commands; i++)
        for (int k = 0; k < BINDING_KEYS && i != but; k++)
            if (b->key[i][k] == key && (reach(&commands[i], key) & where))
                return &commands[i];
    return NULL;
}

static void add_key(struct bindings *b, size_t i, key_code key) {
    for (int k = 0; k < BINDING_KEYS; k++)
        if (b->key[i][k] == 0 || b->key[i][k] == key) {
            b->key[i][k] = key;
            return;
        }
}

static void add_defaults(struct bindings *b, size_t i) {
    const char *s = commands[i].keys;
    while (*s) {
        char name[KEY_NAME_MAX];
        size_t n = strcspn(s, " ");
        key_code key;
        memcpy(name, s, n);
        name[n] = 0;
        if (key_parse(name, &key))
            add_key(b, i, key);
        s += n + strspn(s + n, " ");
    }
}

static void problem(struct bindings *b, const struct config *config,
                    const struct key_binding *k, const char *what, const char *name) {
    struct buf line = {0};
    buf_addf(&line, "%s:%d: keys: %s: %s: %s%s", config->path ? config->path : "config.yaml",
             k->line, k->command, k->key, what, name);
    strlist_add(&b->problems, buf_str(&line));
    buf_release(&line);
}

static void bind_one(struct bindings *b, const struct config *config,
                     const struct key_binding *k) {
    const struct command *c = command_find(k->command);
    key_code key;
    if (!c) {
        problem(b, config, k, "no such command; the help screen names all of them", "");
    } else if (!key_parse(k->key, &key)) {
        problem(b, config, k, "no such key; names are like ctrl-n, alt-enter, f5, pgup", "");
    } else if (!reach(c, key)) {
        problem(b, config, k, "a plain character can't be a key where text is typed", "");
    } else {
        const struct command *had = owner(b, key, reach(c, key), (size_t)(c - commands));
        if (had)
            problem(b, config, k, "this key already belongs to ", had->name);
        else
            add_key(b, (size_t)(c - commands), key);
    }
}

void bindings_init(struct bindings *b, const struct config *config) {
    *b = (struct bindings){.key = xcalloc(n_commands, sizeof *b->key)};
    for (size_t i = 0; i < n_commands; i++) {
        bool rebound = false;
        for (size_t k = 0; config && k < config->n_keys; k++)
            rebound |= strcmp(config->keys[k].command, commands[i].name) == 0;
        if (!rebound)
            add_defaults(b, i);
    }
    for (size_t k = 0; config && k < config->n_keys; k++)
        bind_one(b, config, &config->keys[k]);
    for (size_t i = 0; i < n_commands; i++)
        if (b->key[i][0] == 0)
            add_defaults(
                b, i); /* none of its new keys could be used: better the old ones than none */
}

void bindings_release(struct bindings *b) {
    free(b->key);
    strlist_release(&b->problems);
    *b = (struct bindings){0};
}

const struct command *bindings_find(const struct bindings *b, key_code key, int where) {
    return key ? owner(b, key, where, (size_t)-1) : NULL;
}

const char *bindings_show(const struct bindings *b, const struct command *c,
                          char out[KEY_NAME_MAX]) {
    out[0] = 0;
    key_code key = c ? b->key[c - commands][0] : 0;
    return key ? key_show(key, out) : out;
}

bool bindings_edit(const struct bindings *b, struct edit *e, key_code key) {
    if (plain_character(key)) {
        char text[4];
        edit_insert(e, text, utf8_encode(key, text));
        return true;
    }
    const struct command *c = bindings_find(b, key, IN_INPUT);
    if (!c)
        return false;
    if (c->edit)
        c->edit(e);
    else if (c->run == act_delete_or_quit)
        edit_delete(e);
    else if (c->run == act_up)
        edit_up(e);
    else if (c->run == act_down)
        edit_down(e);
    else
        return false;
    return true;
}
