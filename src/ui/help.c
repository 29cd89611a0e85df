/*
 * help.c - the help screen and the palette, both made from the command table: what they say is
 * what the keys do.
 */
#include "ui/act.h"
#include "ui/app.h"
#include <stdio.h>
#include <string.h>

static void all_keys(struct buf *out, const struct bindings *b, size_t i) {
    for (int k = 0; k < BINDING_KEYS && b->key[i][k]; k++) {
        char name[KEY_NAME_MAX];
        buf_addf(out, "%s%s", k ? " · " : "", key_show(b->key[i][k], name));
    }
}

static const struct {
    int where;
    const char *title;
} sections[] = {{EVERYWHERE, "Everywhere"},
                {IN_INPUT, "In the input"},
                {IN_TRANSCRIPT, "In the conversation"},
                {IN_LIST, "In the list"}};

static int section_of(const struct command *c) {
    if (c->where == IN_INPUT || c->where == IN_LIST || c->where == IN_TRANSCRIPT)
        return c->where == IN_INPUT ? 1 : c->where == IN_TRANSCRIPT ? 2 : 3;
    return c->where == EVERYWHERE ? 0 : 2;
}

/* Ids behind the commands are settings. */
static void run_picked(struct app *a, struct picker *p) {
    int at = picker_run(a, p);
    size_t id = at >= 0 ? (size_t)p->v[at].id : SIZE_MAX;
    picker_release(p);
    if (id < n_commands)
        app_run_command(a, &commands[id]);
    else if (id < n_commands + n_setting_defs)
        sampling_dialog(a, id - n_commands);
}

void help_show(struct app *a) {
    struct picker p = {
        .title = "Keys", .hint = "type to filter · Enter does it · Esc", .wide = true};
    for (int s = 0; s < 4; s++) {
        picker_add(&p, sections[s].title, NULL, NULL, -1)->heading = true;
        for (size_t i = 0; i < n_commands; i++) {
            struct buf keys = {0};
            all_keys(&keys, &a->keys, i);
            if (section_of(&commands[i]) == s && keys.len)
                picker_add(&p, commands[i].help, commands[i].name, buf_str(&keys), (int64_t)i);
            buf_release(&keys);
        }
    }
    run_picked(a, &p);
}

void palette_show(struct app *a) {
    struct picker p = {.title = "Commands", .wide = true};
    for (size_t i = 0; i < n_commands; i++) {
        const struct command *c = &commands[i];
        if (c->edit && c->menu == MENU_NONE)
            continue; /* single keys of the editor are for the help screen */
        struct buf keys = {0};
        all_keys(&keys, &a->keys, i);
        struct buf text = {0};
        buf_addf(&text, "%s", c->title);
        if (c->checked)
            buf_adds(&text, c->checked(a) ? " (on)" : " (off)");
        picker_add(&p, buf_str(&text), c->help, buf_str(&keys), (int64_t)i);
        buf_release(&text);
        buf_release(&keys);
    }
    for (size_t i = 0; i < n_setting_defs; i++) {
        struct buf value = {0};
        setting_show(chat_settings(a->chat), &setting_defs[i], &value);
        picker_add(&p, setting_defs[i].name, setting_defs[i].help, buf_str(&value),
                   (int64_t)(n_commands + i));
        buf_release(&value);
    }
    run_picked(a, &p);
}
