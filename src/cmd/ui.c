/*
 * ui.c - `llmchat` without a command: opens the database and hands over to the interface.
 */
#include "ui/ui.h"
#include "cmd/cmd.h"
#include "store/store.h"

const struct opt ui_opts[] = {
    {"continue", 'c', OPT_FLAG, NULL, 0, "Continue the last conversation"},
    {"chat", 0, OPT_TEXT, "ID", 0, "Open this conversation"},
    {"model", 0, OPT_TEXT, "NAME", 0, "Use this model"},
    {"draft", 0, OPT_TEXT, "MODEL", 0,
     "A smaller model with the same vocabulary that guesses for this one (see --speculation)"},
    COMPUTE_OPTS(0),
    {"version", 'V', OPT_FLAG, NULL, 0, "Print the version and exit"},
    {0},
};

int open_interface(struct args *a, const char *model) {
    struct err err = {0};
    struct store *store = NULL;
    int64_t id = 0;
    const char *chat = arg_text(a, "chat");
    if (chat && parse_id(chat, &id, &err) != ST_OK)
        return fail(&err);
    if (open_store(&store, &err) != ST_OK)
        return fail(&err);
    int rc = ui_run(&(struct ui_params){.store = store,
                                        .config = &a->config,
                                        .model = model,
                                        .chat_id = id,
                                        .continue_last = arg_flag(a, "continue")});
    store_close(store);
    return rc;
}

int cmd_ui(struct args *a) {
    if (arg_flag(a, "version")) {
        puts("llmchat " LLMCHAT_VERSION);
        return 0;
    }
    struct err err = {0};
    if (use_compute_options(a, &err) != ST_OK)
        return fail(&err);
    return open_interface(a, arg_text(a, "model"));
}
