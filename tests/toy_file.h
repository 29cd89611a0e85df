/*
 * toy_file.h - a tiny model as a file of ours in a folder of its own: mkmodel (the environment
 * variable MKMODEL) writes a GGUF file, which is converted.
 */
#ifndef LLMCHAT_TESTS_TOY_FILE_H
#define LLMCHAT_TESTS_TOY_FILE_H

#include "base/mem.h"
#include "base/path.h"
#include "engine/models.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* dir: a template for mkdtemp(). Its path, or NULL: why is printed. */
static inline char *toy_file(char *dir, const char *settings, enum quant quant) {
    struct err err = {0};
    if (!mkdtemp(dir))
        return NULL;
    char *gguf = path_join(dir, "tiny.gguf"), *path = path_join(dir, "tiny.safetensors");
    char *command = xasprintf("'%s' '%s' %s", getenv("MKMODEL"), gguf, settings);
    const struct create_params p = {
        .out_path = path, .from = gguf, .quant = quant, .head_quant = QUANT_N};
    bool ok = system(command) == 0 && models_create(&p, &err) == ST_OK;
    if (!ok) {
        fprintf(stderr, "%s: %s\n", command, err.msg);
        free(path);
        path = NULL;
    }
    unlink(gguf);
    free(command);
    free(gguf);
    return path;
}

static inline void toy_file_free(char *dir, char *path) {
    unlink(path);
    free(path);
    rmdir(dir);
}

#endif
