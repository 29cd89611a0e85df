/*
 * act.h - the functions of the command table. Each does what its row in commands.c says.
 */
#ifndef LLMCHAT_UI_ACT_H
#define LLMCHAT_UI_ACT_H

#include "ui/app.h"

/* act_chat.c: conversations and turns */
void act_send(struct app *a);
void act_new(struct app *a);
void act_rename(struct app *a);
void act_delete(struct app *a);
void act_undelete(struct app *a);
void act_regenerate(struct app *a);
void act_edit_message(struct app *a);
void act_branch_prev(struct app *a);
void act_branch_next(struct app *a);
void act_escape(struct app *a);
void act_interrupt(struct app *a);
void act_stop(struct app *a);
void act_quit(struct app *a);
void act_delete_or_quit(struct app *a);
void act_suspend(struct app *a);
/* Makes the neighbour branch of a message the one that is shown. */
void switch_branch(struct app *a, int64_t message, int step);

/* act_find.c: finding, opening, exporting */
void act_open(struct app *a);
void act_search_all(struct app *a);
void act_tree(struct app *a);
void act_export(struct app *a);
void act_import(struct app *a);

/* act_edit.c: the input and the clipboard */
void act_newline(struct app *a);
void act_up(struct app *a);
void act_down(struct app *a);
void act_tab(struct app *a);
void act_tab_back(struct app *a);
void act_expand_paste(struct app *a);
void act_copy(struct app *a);
void act_copy_code(struct app *a);
void act_copy_answer(struct app *a);
void act_outside(struct app *a);

/* act_model.c: model, system prompt, sampling */
void act_choose_model(struct app *a);
void act_model_info(struct app *a);
void act_system(struct app *a);
void act_sampling(struct app *a);
void act_creative(struct app *a);
void act_balanced(struct app *a);
void act_precise(struct app *a);
void act_reset_sampling(struct app *a);
/* "" and what a preset, a prompt or a person gave: makes it the system prompt. False when it
 * could not be saved. */
bool use_system(struct app *a, const char *text);

/* act_view.c: what is seen */
void act_menu(struct app *a);
void act_palette(struct app *a);
void act_help(struct app *a);
void act_about(struct app *a);
void act_repaint(struct app *a);
void act_toggle_list(struct app *a);
void act_toggle_markdown(struct app *a);
void act_toggle_mouse(struct app *a);
void act_theme(struct app *a);
void act_page_up(struct app *a);
void act_page_down(struct app *a);
void act_line_up(struct app *a);
void act_line_down(struct app *a);
void act_top(struct app *a);
void act_bottom(struct app *a);
void act_message_prev(struct app *a);
void act_message_next(struct app *a);
void act_find(struct app *a);
void act_find_next(struct app *a);
void act_find_prev(struct app *a);
void act_list_up(struct app *a);
void act_list_down(struct app *a);
void act_list_open(struct app *a);
void act_list_filter(struct app *a);
bool is_list_on(const struct app *a);
bool is_markdown_on(const struct app *a);
bool is_mouse_on(const struct app *a);

#endif
