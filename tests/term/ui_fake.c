/*
 * ui_fake.c - the interface with the scripted engine: what the terminal tests run.
 *
 * Takes the options of `llmchat` alone: -c, --chat ID, --model NAME. Folders are those of
 * LLMCHAT_HOME.
 */
#include "base/log.h"
#include "base/path.h"
#include "ui/ui.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    struct ui_params p = {0};
    struct config config;
    struct err err;
    char *path = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-c") == 0)
            p.continue_last = true;
        else if (strcmp(argv[i], "--chat") == 0 && i + 1 < argc)
            p.chat_id = atoll(argv[++i]);
        else if (strcmp(argv[i], "--model") == 0 && i + 1 < argc)
            p.model = argv[++i];
    }
    signal(SIGXFSZ, SIG_IGN); /* as in llmchat itself: a failed write */
    log_open();
    if (config_load(NULL, &config, &err) != ST_OK ||
        path_in(PATH_DATA, "chats.db", &path, &err) != ST_OK ||
        store_open(path, &p.store, &err) != ST_OK) {
        fprintf(stderr, "ui_fake: %s\n", err.msg);
        return 1;
    }
    p.config = &config;
    int code = ui_run(&p);
    store_close(p.store);
    config_release(&config);
    free(path);
    log_close();
    return code;
}
