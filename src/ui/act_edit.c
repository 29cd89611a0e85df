/*
 * act_edit.c - commands on the input, and copying.
 */
#include "ui/act.h"
#include <stdlib.h>
#include <string.h>

void act_newline(struct app *a) {
    edit_insert(a->edit, "\n", 1);
}

void act_up(struct app *a) {
    if (!edit_up(a->edit))
        edit_history_prev(a->edit, a->history);
}

void act_down(struct app *a) {
    if (!edit_down(a->edit))
        edit_history_next(a->edit, a->history);
}

static void next_focus(struct app *a, int step) {
    app_focus(a, (enum focus)((a->focus + 3 + step) % 3));
}

void act_tab(struct app *a) {
    char *text = edit_text(a->edit);
    if (a->focus == FOCUS_INPUT && text[0] == '/' && text[1] != '/')
        slash_complete(a);
    else
        next_focus(a, 1);
    free(text);
}

void act_tab_back(struct app *a) {
    next_focus(a, -1);
}

void act_expand_paste(struct app *a) {
    if (!edit_paste_expand(a->edit))
        app_say(a, "The cursor is not at a paste");
}

void act_outside(struct app *a) {
    edit_outside(a);
}

/* The last reply, 0 when there is none. */
static int64_t last_answer(const struct app *a) {
    const struct message_list *l = chat_messages(a->chat);
    for (size_t i = l->n; i > 0; i--)
        if (l->v[i - 1].role == ROLE_ASSISTANT)
            return l->v[i - 1].id;
    return 0;
}

static void copy_message(struct app *a, int64_t id, const char *what) {
    size_t len = 0;
    const char *text = id ? transcript_message_text(a->tr, id, &len) : NULL;
    char *copy = xstrndup(text ? text : "", len);
    copy_text(a, copy, what);
    free(copy);
}

void act_copy(struct app *a) {
    if (transcript_marked(a->tr)) {
        char *text = transcript_marked_text(a->tr);
        copy_text(a, text, "the marked text");
        free(text);
        transcript_mark_clear(a->tr);
    } else if (transcript_selected(a->tr)) {
        copy_message(a, transcript_selected(a->tr), "the message");
    } else {
        act_copy_answer(a);
    }
}

void act_copy_answer(struct app *a) {
    copy_message(a, last_answer(a), "the answer");
}

void act_copy_code(struct app *a) {
    int64_t id = transcript_selected(a->tr);
    if (id <= 0)
        id = last_answer(a);
    char *code = id ? transcript_code_block(a->tr, id, 0) : NULL;
    if (code)
        copy_text(a, code, "the code block");
    else
        app_say(a, "There is no code block in it");
    free(code);
}
