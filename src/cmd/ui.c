/*
 * ui.c - `llmchat` without a command: opens the database and hands over to the interface.
 */
#include "ui/ui.h"
#include "cmd/cmd.h"
#include "store/store.h"
#include <string.h>

const struct opt ui_opts[] = {
    {"continue", 'c', OPT_FLAG, NULL, 0, "Continue the last conversation"},
    {"chat", 0, OPT_TEXT, "ID", 0, "Open this conversation"},
    {"model", 0, OPT_TEXT, "NAME", 0, "Use this model"},
    {"threads", 0, OPT_COUNT, "N", 1, "Threads (default: the cores this process may use)"},
    {"device", 0, OPT_CHOICE, "auto|cpu", 0, "Where to compute"},
    {"version", 'V', OPT_FLAG, NULL, 0, "Print the version and exit"},
    {0},
};

int cmd_ui(struct args *a) {
    struct err err = {0};
    int64_t id = 0;
    if (arg_flag(a, "version")) {
        puts("llmchat " LLMCHAT_VERSION);
        return 0;
    }
    if (arg_text(a, "chat") && parse_id(arg_text(a, "chat"), &id, &err) != ST_OK)
        return fail(&err);
    if (arg_text(a, "device"))
        a->config.device = strcmp(arg_text(a, "device"), "cpu") == 0 ? DEVICE_CPU : DEVICE_AUTO;
    a->config.threads = (int)arg_count(a, "threads", a->config.threads);
    struct store *store = NULL;
    if (open_store(&store, &err) != ST_OK)
        return fail(&err);
    int rc = ui_run(&(struct ui_params){.store = store,
                                        .config = &a->config,
                                        .model = arg_text(a, "model"),
                                        .chat_id = id,
                                        .continue_last = arg_flag(a, "continue")});
    store_close(store);
    return rc;
}
