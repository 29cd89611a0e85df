/*
 * menu.c - the menu bar and its menus, made from the command table.
 *
 * A menu lists the commands that name it, with their keys. Model, Sampling and View have rows
 * of their own below: the installed models, every setting with its value. An open menu is an
 * overlay; Left and Right go to the neighbours.
 */
#include "base/utf8.h"
#include "engine/models.h"
#include "ui/app.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const titles[MENU_N] = {"Chat", "Edit", "Model", "Sampling", "View", "Help"};

enum row_kind { ROW_COMMAND, ROW_SETTING, ROW_MODEL, ROW_LINE };
struct row {
    enum row_kind kind;
    const struct command *command;
    size_t setting;
    char *text, *right;
    bool checked;
};
struct menu_overlay {
    struct overlay base;
    enum menu menu;
    struct row *row;
    size_t n, at, top;
};

static int title_x(enum menu m) {
    int x = 1;
    for (int i = 0; i < (int)m; i++)
        x += (int)strlen(titles[i]) + 2;
    return x;
}

enum menu menu_at(int x) {
    for (int m = 0; m < MENU_N; m++)
        if (x >= title_x(m) - 1 && x < title_x(m) + (int)strlen(titles[m]) + 1)
            return m;
    return MENU_NONE;
}

enum menu menu_of_letter(key_code key) {
    for (int m = 0; m < MENU_N; m++)
        if ((key & ~MOD_ALL) == (key_code)(titles[m][0] | 32) && (key & MOD_ALL) == MOD_ALT)
            return m;
    return MENU_NONE;
}

void menu_bar_draw(struct app *a, struct rect r, int open) {
    screen_fill(r, UI_BAR);
    int end = 0;
    for (int m = 0; m < MENU_N; m++) {
        int x = r.x + title_x(m);
        int left = r.x + r.w - x;
        if (left <= 0)
            break;
        if (m == open) {
            screen_text(r.y, x - 1, left + 1, UI_BAR_OPEN, " ");
            screen_text(r.y, x, left, UI_BAR_OPEN, titles[m]);
            screen_text(r.y, x + (int)strlen(titles[m]), left - (int)strlen(titles[m]),
                        UI_BAR_OPEN, " ");
        } else {
            screen_textn(r.y, x, left, UI_BAR_KEY, titles[m], 1);
            screen_text(r.y, x + 1, left - 1, UI_BAR, titles[m] + 1);
        }
        end = x + (int)strlen(titles[m]) + 2;
    }
    char hint[100], k1[KEY_NAME_MAX], k2[KEY_NAME_MAX];
    snprintf(hint, sizeof hint, "%s menu · %s keys",
             bindings_show(&a->keys, command_find("menu"), k1),
             bindings_show(&a->keys, command_find("help"), k2));
    int w = (int)utf8_cells(hint, strlen(hint));
    if (end + w < r.x + r.w)
        screen_text_right(r.y, r.x + r.w - w - 1, w, UI_BAR, hint);
}

static struct row *add_row(struct menu_overlay *m) {
    m->row = xreallocarray(m->row, m->n + 1, sizeof *m->row);
    m->row[m->n] = (struct row){0};
    return &m->row[m->n++];
}

static void clear_rows(struct menu_overlay *m) {
    for (size_t i = 0; i < m->n; i++) {
        free(m->row[i].text);
        free(m->row[i].right);
    }
    free(m->row);
    m->row = NULL;
    m->n = 0;
}

static void add_settings(struct app *a, struct menu_overlay *m) {
    add_row(m)->kind = ROW_LINE;
    for (size_t i = 0; i < n_setting_defs; i++) {
        struct buf value = {0};
        setting_show(chat_settings(a->chat), &setting_defs[i], &value);
        struct row *r = add_row(m);
        r->kind = ROW_SETTING;
        r->setting = i;
        r->text = xstrdup(setting_defs[i].name);
        r->right = buf_take(&value);
        if (!r->right)
            r->right = xstrdup("");
    }
}

static void add_models(struct app *a, struct menu_overlay *m) {
    struct model_list list = {0};
    struct err err;
    if (models_list(&list, &err) != ST_OK)
        return;
    if (list.n)
        add_row(m)->kind = ROW_LINE;
    for (size_t i = 0; i < list.n && i < 12; i++) {
        struct row *r = add_row(m);
        r->kind = ROW_MODEL;
        r->text = xstrdup(list.v[i].name);
        r->right = xasprintf("%s %.0f MB", list.v[i].quant, (double)list.v[i].file_bytes / 1e6);
        r->checked = strcmp(list.v[i].name, chat_model(a->chat)) == 0;
    }
    model_list_release(&list);
}

static void fill(struct app *a, struct menu_overlay *m) {
    clear_rows(m);
    m->at = m->top = 0;
    for (size_t i = 0; i < n_commands; i++) {
        if (commands[i].menu != m->menu)
            continue;
        char key[KEY_NAME_MAX];
        struct row *r = add_row(m);
        r->kind = ROW_COMMAND;
        r->command = &commands[i];
        r->text = xstrdup(commands[i].title);
        r->right = xstrdup(bindings_show(&a->keys, &commands[i], key));
        r->checked = commands[i].checked && commands[i].checked(a);
    }
    if (m->menu == MENU_SAMPLING)
        add_settings(a, m);
    if (m->menu == MENU_MODEL)
        add_models(a, m);
}

static void menu_draw(struct app *a, struct overlay *o) {
    struct menu_overlay *m = (struct menu_overlay *)o;
    menu_bar_draw(a, (struct rect){0, 0, 1, screen_cols()}, m->menu);
    int w = 0;
    for (size_t i = 0; i < m->n; i++) {
        int n = m->row[i].text ? (int)(utf8_cells(m->row[i].text, strlen(m->row[i].text)) +
                                       utf8_cells(m->row[i].right, strlen(m->row[i].right)))
                               : 0;
        w = n > w ? n : w;
    }
    w += 8;
    int x = title_x(m->menu) - 1, h = (int)m->n + 2, rows = screen_rows(), cols = screen_cols();
    if (h > rows - 1)
        h = rows - 1;
    if (w > cols)
        w = cols;
    if (x + w > cols)
        x = cols - w;
    o->rect = (struct rect){1, x, h, w};
    screen_box(o->rect, UI_DIALOG_FRAME, UI_DIALOG, NULL, 0);
    int room = h - 2;
    if (room < 1)
        return;
    if (m->at < m->top)
        m->top = m->at;
    if (m->at >= m->top + (size_t)room)
        m->top = m->at - (size_t)room + 1;
    for (int i = 0; i < room && m->top + (size_t)i < m->n; i++) {
        const struct row *r = &m->row[m->top + (size_t)i];
        int y = o->rect.y + 1 + i;
        if (r->kind == ROW_LINE) {
            screen_hline(y, x + 1, w - 2, UI_DIALOG_FRAME, "─");
            continue;
        }
        bool here = m->top + (size_t)i == m->at;
        uint16_t style = here ? UI_CURSOR : UI_DIALOG;
        screen_fill((struct rect){y, x + 1, 1, w - 2}, style);
        screen_text(y, x + 1, 2, style, r->checked ? "✓" : " ");
        screen_text(y, x + 3, w - 5, style, r->text);
        screen_text_right(y, x + 3, w - 5, here ? UI_CURSOR : UI_DIALOG_KEY, r->right);
    }
}

static void menu_move(struct menu_overlay *m, int step) {
    if (m->n == 0)
        return;
    do
        m->at = (m->at + m->n + (size_t)step) % m->n;
    while (m->row[m->at].kind == ROW_LINE);
}

static void take(struct menu_overlay *m) {
    m->base.done = true;
    m->base.result = (int)m->at;
}

static void menu_key(struct app *a, struct overlay *o, key_code key) {
    struct menu_overlay *m = (struct menu_overlay *)o;
    enum menu other = menu_of_letter(key);
    if (key == K_LEFT || key == K_RIGHT)
        other = (m->menu + (key == K_LEFT ? MENU_N - 1 : 1)) % MENU_N;
    if (other != MENU_NONE) {
        m->menu = other;
        fill(a, m);
        return;
    }
    const struct command *c = bindings_find(&a->keys, key, IN_LIST);
    if (key == K_UP || key == 'k' || key == (K_TAB | MOD_SHIFT))
        menu_move(m, -1);
    else if (key == K_DOWN || key == 'j' || key == K_TAB)
        menu_move(m, 1);
    else if (key == K_ENTER || key == ' ')
        take(m);
    else if (key == K_HOME || key == K_END) {
        m->at = key == K_HOME ? 0 : m->n - 1;
    } else if (key == K_ESC || (c && strcmp(c->name, "menu") == 0)) {
        o->result = -1;
        o->done = true;
    } else if (key < 0x20000) { /* the next row that begins with the letter */
        for (size_t i = 1; i <= m->n; i++) {
            size_t k = (m->at + i) % m->n;
            uint32_t cp = 0;
            if (m->row[k].text)
                utf8_decode(m->row[k].text, strlen(m->row[k].text), &cp);
            if (cp && (cp | 32) == (key | 32)) {
                m->at = k;
                break;
            }
        }
    }
}

static void menu_mouse(struct app *a, struct overlay *o, const struct input_event *e) {
    struct menu_overlay *m = (struct menu_overlay *)o;
    if (e->kind == MOUSE_WHEEL_UP || e->kind == MOUSE_WHEEL_DOWN) {
        menu_move(m, e->kind == MOUSE_WHEEL_UP ? -1 : 1);
        return;
    }
    if (e->kind == MOUSE_RELEASE)
        return;
    enum menu other = e->y == 0 ? menu_at(e->x) : MENU_NONE;
    if (other != MENU_NONE && (other != m->menu || e->kind == MOUSE_DRAG)) {
        if (other != m->menu) {
            m->menu = other;
            fill(a, m);
        }
        return;
    }
    int row = e->y - o->rect.y - 1;
    if (rect_has(o->rect, e->y, e->x) && row >= 0 && m->top + (size_t)row < m->n &&
        row < o->rect.h - 2) {
        if (m->row[m->top + (size_t)row].kind == ROW_LINE)
            return;
        m->at = m->top + (size_t)row;
        if (e->kind == MOUSE_PRESS)
            take(m);
    } else if (e->kind == MOUSE_PRESS) {
        o->result = -1;
        o->done = true;
    }
}

void menu_open(struct app *a, enum menu which) {
    struct menu_overlay m = {.base = {.draw = menu_draw, .key = menu_key, .mouse = menu_mouse},
                             .menu = which};
    fill(a, &m);
    int at = app_modal(a, &m.base);
    if (at >= 0 && (size_t)at < m.n && !a->quit) {
        const struct row *r = &m.row[at];
        if (r->kind == ROW_COMMAND)
            app_run_command(a, r->command);
        else if (r->kind == ROW_SETTING)
            sampling_dialog(a, r->setting);
        else if (r->kind == ROW_MODEL)
            load_model(a, r->text);
    }
    clear_rows(&m);
}
