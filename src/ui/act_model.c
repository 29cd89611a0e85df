/*
 * act_model.c - the model, the system prompt and the prompt library, presets, and a context
 * that is full.
 */
#include "base/utf8.h"
#include "chat/prompts.h"
#include "engine/models.h"
#include "ui/act.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void say_no_model(struct app *a) {
    char *dir = NULL;
    struct err err;
    struct buf text = {0};
    buf_adds(&text,
             "No model is installed yet. Leave with Ctrl-Q and make one from a GGUF file\n"
             "or a Hugging Face folder:\n\n"
             "    llmchat create NAME --from PATH\n\n"
             "llmchat finds it by itself from then on.\n");
    if (models_dir(&dir, &err) == ST_OK)
        buf_addf(&text, "Models are kept in %s\n", dir);
    buf_adds(&text, "\nConversations can be read, searched and written meanwhile.");
    dialog_interrupt(a, "No model yet", buf_str(&text), NULL, 0); /* it opens at the start */
    free(dir);
    buf_release(&text);
}

/* Says in the status line that a model is being loaded. */
static void say_loading(struct app *a, const char *name) {
    snprintf(a->model_name, sizeof a->model_name, "%.*s", utf8_cut(name, 60), name);
    snprintf(a->model_what, sizeof a->model_what, "loading %.*s", utf8_cut(name, 50), name);
    a->model_share = -1;
    a->dirty = true;
}

void load_model(struct app *a, const char *name) {
    struct err err;
    if (chat_model_state(a->chat) == MODEL_LOADING && !chat_model_waits(a->chat)) {
        app_complain(a, "A model is being loaded; please wait for it");
        return;
    }
    if (chat_model_state(a->chat) == MODEL_READY && strcmp(name, chat_model(a->chat)) == 0 &&
        !chat_model_changed(a->chat)) {
        app_say(a, "%s is loaded", name);
        return;
    }
    if (app_ok(a, chat_load_model(a->chat, name, &err), &err))
        say_loading(a, name);
}

/* Nothing is lost with a device: what was said is in the database. */
void offer_cpu(struct app *a) {
    static const char *const answers[] = {"Load the model on the CPU", "Not now"};
    struct err err;
    if (dialog_interrupt(a, "The GPU failed", a->device_error, answers, 2) != 0)
        return;
    if (app_ok(a, chat_load_on_cpu(a->chat, &err), &err))
        say_loading(a, chat_model(a->chat));
}

void start_model(struct app *a) {
    struct err err;
    char *name = NULL;
    struct model_list installed = {0};
    enum status st = chat_choose_model(a->chat, a->params.model, &name, &err);
    if (st == ST_OK)
        load_model(a, name);
    else if (models_list(&installed, &(struct err){0}) == ST_OK && installed.n == 0 &&
             !a->params.model)
        say_no_model(a);
    else
        dialog_interrupt(a, "Model", err.msg, NULL, 0);
    model_list_release(&installed);
    free(name);
}

void act_choose_model(struct app *a) {
    struct model_list list = {0};
    struct err err;
    if (!app_ok(a, models_list(&list, &err), &err))
        return;
    if (list.n == 0 && list.broken.n == 0) {
        say_no_model(a);
        return;
    }
    struct picker p = {.title = "Models"};
    for (size_t i = 0; i < list.n; i++) {
        const struct model_info *m = &list.v[i];
        const char *title = m->title && *m->title ? m->title : m->architecture;
        char detail[4 * 60 + 60], right[64];
        snprintf(detail, sizeof detail, "%.*s · %.0fM parameters", utf8_cut(title, 60), title,
                 (double)m->n_params / 1e6);
        snprintf(right, sizeof right, "%s · %.0f MB", m->quant, (double)m->file_bytes / 1e6);
        picker_add(&p, m->name, detail, right, (int64_t)i)->marked =
            strcmp(m->name, chat_model(a->chat)) == 0;
    }
    for (size_t i = 0; i < list.broken.n; i++)
        picker_add(&p, list.broken.v[i], NULL, NULL, -1)->heading = true;
    int at = picker_run(a, &p);
    if (at >= 0)
        load_model(a, p.v[at].text);
    picker_release(&p);
    model_list_release(&list);
}

/* Appends what a GPU does just now, where that is known; in how many microseconds to ask
 * again. */
static int64_t gpu_load(struct app *a, const char *label, int index, struct buf *text) {
    struct buf load = {0};
    struct err err;
    enum status st = chat_gpu_load(a->chat, index, &load, &err);
    const char *s = buf_str(&load);
    size_t first = strcspn(s, ","); /* all of it is wider than the dialog */
    if (st == ST_OK && s[first])
        buf_addf(text, "%-16s%.*s,\n               %s\n", label, (int)first, s, s + first + 1);
    else if (st == ST_OK)
        buf_addf(text, "%-16s%s\n", label, s);
    buf_release(&load);
    return st == ST_OK ? 1000000 : st == ST_BUSY ? 100000 : 0;
}

/* The same of all that the model runs on. */
static int64_t gpu_loads(struct app *a, int n, struct buf *text) {
    int64_t again = 0;
    for (int i = 0; i < n; i++) {
        char label[24] = "The GPU now";
        if (n > 1)
            snprintf(label, sizeof label, "GPU %d now", i);
        int64_t us = gpu_load(a, label, i, text);
        if (us && (!again || us < again))
            again = us;
    }
    return again;
}

static int64_t model_info(struct app *a, struct buf *text) {
    const struct engine_info *m = chat_engine_info(a->chat);
    if (!m) { /* gone while it was looked at */
        buf_adds(text, "No model is loaded");
        return 0;
    }
    buf_addf(text, "%s (%s)\n\n", chat_model(a->chat), m->name);
    buf_addf(text, "Architecture    %s, %d layers, %d wide, %d heads (%d for keys)\n",
             m->architecture, m->n_layer, m->n_embd, m->n_head, m->n_head_kv);
    buf_addf(text, "Parameters      %.0f million, vocabulary %d\n", (double)m->n_params / 1e6,
             m->n_vocab);
    buf_addf(text, "Weights         %s, %.0f MB\n", m->quant, (double)m->weights_bytes / 1e6);
    buf_addf(text, "Context         %d tokens (trained with %d)\n", m->ctx_tok, m->ctx_train);
    buf_addf(text, "Runs on         %s, %s kernels", m->device_words, m->kernels);
    if (m->n_gpu < 2 && strcmp(m->device_words, "cuda") != 0) /* the CPU has a part */
        buf_addf(text, ", %d threads", m->threads);
    buf_addc(text, '\n');
    int64_t again = gpu_loads(a, m->n_gpu, text);
    buf_addf(text, "A token reads   %.0f MB of weights\n", (double)m->bytes_per_token / 1e6);
    buf_addf(text, "Licence         %s\n", m->license && *m->license ? m->license : "unknown");
    buf_addf(text, "File            %s", m->path);
    return again;
}

void act_model_info(struct app *a) {
    if (chat_engine_info(a->chat))
        dialog_live(a, "About the model", model_info);
    else
        app_say(a, "No model is loaded");
}

/* -- the system prompt -- */

bool use_system(struct app *a, const char *text) {
    struct err err;
    if (!app_ok(a, chat_set_system(a->chat, text, &err), &err))
        return false;
    app_sync(a);
    app_say(a, *text ? "System prompt set for this conversation"
                     : "This conversation has no system prompt now");
    return true;
}

/* Asks for the prompt's variables and applies it with its suggested settings. */
static void use_prompt(struct app *a, const struct prompt *p) {
    char **values = xcalloc(p->n_vars + 1, sizeof *values);
    bool go = true;
    for (size_t i = 0; i < p->n_vars && go; i++) {
        const struct prompt_var *v = &p->vars[i];
        values[i] = dialog_input(a, p->name,
                                 v->description && *v->description ? v->description : v->name,
                                 v->def ? v->def : "", 1);
        go = values[i] != NULL;
    }
    if (go) {
        char *text = prompt_fill(p, (const char *const *)values);
        use_system(a, text);
        free(text);
    }
    if (go && p->settings_json && *p->settings_json) {
        struct settings s;
        struct err err;
        settings_init(&s);
        settings_copy(&s, chat_settings(a->chat));
        if (app_ok(a, settings_from_json(&s, p->settings_json, &err), &err))
            app_ok(a, chat_set_all(a->chat, &s, &err), &err);
        settings_release(&s);
    }
    for (size_t i = 0; i < p->n_vars; i++)
        free(values[i]);
    free(values);
}

/* A text that could not be saved is shown again. */
static void type_system(struct app *a) {
    int rows = screen_rows() / 2;
    char *text = xstrdup(chat_system(a->chat) ? chat_system(a->chat) : "");
    bool done = false;
    while (text && !done) {
        char *typed = dialog_input(a, "System prompt",
                                   "What the model is told before the conversation:", text,
                                   rows > 3 ? rows : 3);
        free(text);
        text = typed;
        done = text && use_system(a, text);
    }
    free(text);
}

enum { OWN_TEXT = -1, NO_SYSTEM = -2 };

void act_system(struct app *a) {
    struct prompt_list list = {0};
    struct err err;
    if (!app_ok(a, prompts_load(&list, &err), &err))
        list = (struct prompt_list){0};
    const char *now = chat_system(a->chat);
    struct picker p = {.title = "System prompt", .wide = true};
    picker_add(&p, now && *now ? "Change the text…" : "Your own text…", "written here", NULL,
               OWN_TEXT);
    picker_add(&p, "None", "the model's own manner", NULL, NO_SYSTEM)->marked = !now || !*now;
    for (size_t i = 0; i < list.n; i++)
        picker_add(&p, list.v[i].name, list.v[i].description, list.v[i].own ? "yours" : "",
                   (int64_t)i);
    for (size_t i = 0; i < list.broken.n; i++)
        picker_add(&p, list.broken.v[i], NULL, NULL, 0)->heading = true;
    int at = picker_run(a, &p);
    int64_t id = at >= 0 ? p.v[at].id : 0;
    picker_release(&p);
    if (at >= 0 && id == NO_SYSTEM) {
        use_system(a, "");
    } else if (at >= 0 && id == OWN_TEXT) {
        type_system(a);
    } else if (at >= 0) {
        use_prompt(a, &list.v[id]);
    }
    prompt_list_release(&list);
}

/* -- sampling -- */

void act_sampling(struct app *a) {
    sampling_dialog(a, 0);
}

static void apply_preset(struct app *a, const char *name) {
    struct settings s;
    struct err err;
    for (size_t i = 0; i < n_presets; i++) {
        if (strcmp(presets[i].name, name) != 0)
            continue;
        settings_init(&s);
        settings_copy(&s, chat_settings(a->chat));
        settings_apply_preset(&s, &presets[i]);
        if (app_ok(a, chat_set_all(a->chat, &s, &err), &err))
            app_say(a, "%s: temperature %g, top_p %g, top_k %d, min_p %g", name,
                    s.sampling.temperature, s.sampling.top_p, s.sampling.top_k,
                    s.sampling.min_p);
        settings_release(&s);
    }
}

void act_creative(struct app *a) {
    apply_preset(a, "creative");
}

void act_balanced(struct app *a) {
    apply_preset(a, "balanced");
}

void act_precise(struct app *a) {
    apply_preset(a, "precise");
}

void act_reset_sampling(struct app *a) {
    struct settings s;
    struct err err;
    settings_init(&s);
    if (app_ok(a, chat_set_all(a->chat, &s, &err), &err))
        app_say(a, "All settings are at their defaults");
    settings_release(&s);
}

/* -- the context -- */

void ask_context_full(struct app *a) {
    static const char *const all[] = {"Summarise older turns", "Drop oldest turns", "Stream",
                                      "Stop"};
    static const enum overflow all_how[] = {OVERFLOW_SUMMARISE, OVERFLOW_DROP, OVERFLOW_STREAM,
                                            OVERFLOW_STOP};
    const char *answers[4];
    enum overflow how[4];
    int used, ctx, n = 0;
    struct err err, why;
    bool streams = chat_can_stream(a->chat, &why) == ST_OK;
    for (int i = 0; i < 4; i++) {
        answers[n] = all[i];
        how[n] = all_how[i];
        n += how[n] != OVERFLOW_STREAM || streams;
    }
    chat_context(a->chat, &used, &ctx);
    char *text = xasprintf(
        "This conversation has %d tokens. The model's context holds %d, and what remains is "
        "too "
        "little for an answer.\n\n"
        "Summarise: the model condenses the older turns, the summary is shown.\n"
        "Drop: the oldest turns are left out of what the model sees; the system prompt stays. "
        "Nothing is deleted.\n"
        "%s%s%s"
        "Stop: nothing is sent.",
        used, ctx,
        streams
            ? "Stream: the oldest words are left out as the conversation goes on, a quarter "
              "of the context at a time; nothing is deleted"
            : "Stream: not here, ",
        streams ? "" : why.msg, ".\n");
    int at = dialog_interrupt(a, "The context is full", text, answers, n);
    free(text);
    if (a->quit)
        return;
    enum overflow what = at < 0 ? OVERFLOW_STOP : how[at];
    if (app_ok(a, chat_resolve(a->chat, what, &err), &err) && what == OVERFLOW_STOP)
        app_say(a, "Nothing was sent; Ctrl-R asks again");
    app_sync(a);
}
