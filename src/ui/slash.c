/*
 * slash.c - the words after a slash that people know from other programs.
 *
 * One table with the help text, the function and what Tab completes behind the word. Whatever
 * is not in the table is explained and stays in the input: a typing mistake is never sent to
 * the model. A second slash sends the text.
 */
#include "base/utf8.h"
#include "chat/export.h"
#include "engine/models.h"
#include "ui/act.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Returns whether the input is done with. arg: the rest of the line without blanks around it,
 * "" none. */
typedef bool slash_fn(struct app *a, const char *arg);

static bool do_help(struct app *a, const char *arg);

/* The first n bytes of s as far as they fit. */
static int shorter(size_t n, const char *s, size_t max_cells) {
    int most = utf8_cut(s, max_cells);
    return n < (size_t)most ? (int)n : most;
}

static bool do_set(struct app *a, const char *arg) {
    struct err err;
    char name[4 * 60 + 1];
    if (strncmp(arg, "parameter ", 10) == 0)
        arg += 10 + strspn(arg + 10, " ");
    size_t n = strcspn(arg, " \t=");
    const char *value = arg + n + strspn(arg + n, " \t=");
    if (n == 0) {
        sampling_dialog(a, 0);
        return true;
    }
    snprintf(name, sizeof name, "%.*s", shorter(n, arg, 60), arg);
    if (strcmp(name, "system") == 0) {
        return use_system(a, value);
    }
    const struct setting_def *d = setting_find(name);
    if (!d) {
        app_complain(a, "There is no setting called '%s'; /set alone shows all", name);
        return false;
    }
    if (!*value) {
        sampling_dialog(a, (size_t)(d - setting_defs));
        return true;
    }
    if (!app_ok(a, chat_set(a->chat, d->name, value, &err), &err))
        return false;
    struct buf now = {0};
    setting_show(chat_settings(a->chat), d, &now);
    app_say(a, "%s is %s now", d->name, buf_str(&now));
    if (strcmp(d->name, "speculation") == 0)
        app_check_draft(a);
    buf_release(&now);
    return true;
}

static bool do_show(struct app *a, const char *arg) {
    struct buf text = {0};
    if (strcmp(arg, "model") == 0 || strcmp(arg, "info") == 0) {
        act_model_info(a);
        return true;
    }
    const char *system = chat_system(a->chat);
    int used, ctx;
    chat_context(a->chat, &used, &ctx);
    buf_addf(&text, "Title      %s\n", *chat_title(a->chat) ? chat_title(a->chat) : "none yet");
    buf_addf(&text, "Model      %s\n", *chat_model(a->chat) ? chat_model(a->chat) : "none");
    buf_addf(&text, "Context    %d of %d tokens", used, ctx);
    if (chat_left_out(a->chat) > 0)
        buf_addf(&text, ", %d forgotten", chat_left_out(a->chat));
    buf_addc(&text, '\n');
    buf_addf(&text, "System     %s\n\n", system && *system ? system : "none");
    for (size_t i = 0; i < n_setting_defs; i++) {
        struct buf value = {0};
        setting_show(chat_settings(a->chat), &setting_defs[i], &value);
        buf_addf(&text, "%-18s %s\n", setting_defs[i].name, buf_str(&value));
        buf_release(&value);
    }
    dialog_message(a, "This conversation", buf_str(&text));
    buf_release(&text);
    return true;
}

static bool do_save(struct app *a, const char *arg) {
    struct err err;
    if (chat_id(a->chat) == 0)
        app_say(a, "This conversation is still empty");
    else if (!*arg)
        app_say(
            a, "Everything is saved as you type; /save NAME gives the conversation that title");
    else if (app_ok(a, chat_set_title(a->chat, arg, &err), &err)) {
        list_load(a);
        app_say(a, "Saved as “%.*s”", utf8_cut(arg, 80), arg);
    }
    return true;
}

static bool do_load(struct app *a, const char *arg) {
    edit_reset(a->edit, ""); /* the command is not the draft of the conversation that is left */
    if (*arg)
        open_by_name(a, arg);
    else
        act_open(a);
    return true;
}

static bool do_clear(struct app *a, const char *arg) {
    (void)arg;
    edit_reset(a->edit, "");
    act_new(a);
    return true;
}

static bool do_model(struct app *a, const char *arg) {
    if (*arg)
        load_model(a, arg);
    else
        act_choose_model(a);
    return true;
}

static bool do_system(struct app *a, const char *arg) {
    if (*arg)
        return use_system(a, strcmp(arg, "none") == 0 ? "" : arg);
    act_system(a);
    return true;
}

static bool do_regen(struct app *a, const char *arg) {
    (void)arg;
    edit_reset(a->edit, "");
    act_regenerate(a);
    return true;
}

static bool do_copy(struct app *a, const char *arg) {
    if (strcmp(arg, "code") == 0)
        act_copy_code(a);
    else
        act_copy_answer(a);
    return true;
}

static bool do_export(struct app *a, const char *arg) {
    export_dialog(a, *arg ? arg : NULL);
    return true;
}

static bool do_tree(struct app *a, const char *arg) {
    (void)arg;
    act_tree(a);
    return true;
}

static bool do_bye(struct app *a, const char *arg) {
    (void)arg;
    edit_reset(a->edit, "");
    act_quit(a);
    return true;
}

static const struct slash {
    const char *word, *args, *help;
    slash_fn *run;
} words[] = {
    {"set", "[NAME [VALUE]]", "changes a sampling setting; alone: all of them", do_set},
    {"show", "[model]", "what this conversation uses", do_show},
    {"save", "[TITLE]", "gives the conversation a title (it is saved anyway)", do_save},
    {"load", "[TITLE or ID]", "opens another conversation", do_load},
    {"clear", "", "begins a new conversation; this one is kept", do_clear},
    {"model", "[NAME]", "loads another model", do_model},
    {"system", "[TEXT or none]", "the system prompt; alone: the prompt library", do_system},
    {"regen", "", "another answer, as a new branch", do_regen},
    {"copy", "[code]", "copies the last answer, or its last code block", do_copy},
    {"export", "[FILE]", "writes the conversation to a file", do_export},
    {"tree", "", "shows every branch", do_tree},
    {"help", "", "this list", do_help},
    {"?", "", "this list", do_help},
    {"bye", "", "ends the program; everything is kept", do_bye},
    {"quit", "", "the same", do_bye},
    {"exit", "", "the same", do_bye},
};
#define N_WORDS (sizeof words / sizeof *words)

static bool do_help(struct app *a, const char *arg) {
    (void)arg;
    struct buf text = {0}, head = {0};
    for (size_t i = 0; i < N_WORDS; i++) {
        buf_clear(&head);
        buf_addf(&head, "/%s %s", words[i].word, words[i].args);
        buf_addf(&text, "%-24s %s\n", buf_str(&head), words[i].help);
    }
    buf_adds(&text, "//text                   sends a message that begins with a slash\n\n"
                    "Tab completes. F1 shows the keys, Ctrl-P every command.");
    dialog_message(a, "Words after a slash", buf_str(&text));
    buf_release(&head);
    buf_release(&text);
    return true;
}

bool slash_command(struct app *a, const char *text) {
    size_t n = strcspn(text + 1, " \t\n");
    const char *rest = text + 1 + n;
    rest += strspn(rest, " \t\n");
    char *arg = xstrdup(rest);
    for (size_t len = strlen(arg); len > 0 && strchr(" \t\n", arg[len - 1]); len--)
        arg[len - 1] = 0;
    bool done = false;
    size_t i = 0;
    while (i < N_WORDS &&
           (strlen(words[i].word) != n || strncmp(words[i].word, text + 1, n) != 0))
        i++;
    if (i < N_WORDS)
        done = words[i].run(a, arg);
    else
        app_complain(
            a, "/%.*s is not a command: /help lists them, a second slash (//) sends the text",
            shorter(n, text + 1, 40), text + 1);
    free(arg);
    return done;
}

/* -- Tab -- */

static void add_match(struct strlist *out, const char *typed, const char *word) {
    if (strncmp(word, typed, strlen(typed)) == 0)
        strlist_add(out, word);
}

/* What can follow the word: names of settings, models, formats. */
static void argument_matches(struct strlist *out, const char *word, const char *typed) {
    if (strcmp(word, "set") == 0) {
        for (size_t i = 0; i < n_setting_defs; i++)
            add_match(out, typed, setting_defs[i].name);
        add_match(out, typed, "system");
    } else if (strcmp(word, "model") == 0) {
        struct model_list list = {0};
        struct err err;
        if (models_list(&list, &err) == ST_OK)
            for (size_t i = 0; i < list.n; i++)
                add_match(out, typed, list.v[i].name);
        model_list_release(&list);
    } else if (strcmp(word, "show") == 0) {
        add_match(out, typed, "model");
    } else if (strcmp(word, "copy") == 0) {
        add_match(out, typed, "code");
    }
}

static size_t common_prefix(const struct strlist *l) {
    size_t n = strlen(l->v[0]);
    for (size_t i = 1; i < l->n; i++)
        for (size_t k = 0; k < n; k++)
            if (l->v[i][k] != l->v[0][k])
                n = k;
    return n;
}

static void say_matches(struct app *a, const struct strlist *l) {
    struct buf line = {0};
    for (size_t i = 0; i < l->n && line.len < 300; i++)
        buf_addf(&line, "%s%s", i ? "  " : "", l->v[i]);
    app_say(a, "%s", buf_str(&line));
    buf_release(&line);
}

void slash_complete(struct app *a) {
    char *text = edit_text(a->edit);
    size_t n = strcspn(text + 1, " ");
    bool in_word = text[1 + n] == 0;
    size_t at = in_word ? 1 : 1 + n + strspn(text + 1 + n, " ");
    struct strlist found = {0};
    if (in_word) {
        for (size_t i = 0; i < N_WORDS; i++)
            add_match(&found, text + 1, words[i].word);
    } else if (!strchr(text + at, ' ')) {
        char *word = xstrndup(text + 1, n);
        argument_matches(&found, word, text + at);
        free(word);
    }
    if (found.n > 0) {
        size_t common = common_prefix(&found);
        char *fresh = xasprintf("%.*s%.*s%s", (int)at, text, (int)common, found.v[0],
                                found.n == 1 ? " " : "");
        if (strcmp(fresh, text) != 0)
            edit_set(a->edit, fresh);
        if (found.n > 1)
            say_matches(a, &found);
        free(fresh);
    }
    strlist_release(&found);
    free(text);
}
