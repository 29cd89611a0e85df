/*
 * mem_folder.h - a folder for fuzz entries whose reader wants one: its files exist in memory
 * only, the folder holds links to them, and goes when the program ends.
 */
#ifndef LLMCHAT_FUZZ_MEM_FOLDER_H
#define LLMCHAT_FUZZ_MEM_FOLDER_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MEM_FOLDER_MAX = 8 };

static struct {
    const char *const *names; /* borrowed */
    int n;
    char dir[64];
    int fd[MEM_FOLDER_MAX];
    bool linked[MEM_FOLDER_MAX];
} mem_folder;

static void mem_folder_path(int i, char path[128]) {
    snprintf(path, 128, "%s/%s", mem_folder.dir, mem_folder.names[i]);
}

/* The file is not in the folder until it is put there again. */
static void mem_folder_hide(int i) {
    char path[128];
    mem_folder_path(i, path);
    if (mem_folder.linked[i] && unlink(path) != 0)
        abort();
    mem_folder.linked[i] = false;
}

static void mem_folder_clean(void) {
    for (int i = 0; i < mem_folder.n; i++)
        mem_folder_hide(i);
    rmdir(mem_folder.dir);
}

/* Once, before the others. No file is there yet. */
static const char *mem_folder_make(const char *const *names, int n) {
    mem_folder.names = names;
    mem_folder.n = n;
    strcpy(mem_folder.dir, "/tmp/llmchat-fuzz-XXXXXX");
    if (n > MEM_FOLDER_MAX || !mkdtemp(mem_folder.dir))
        abort();
    atexit(mem_folder_clean);
    for (int i = 0; i < n; i++)
        if ((mem_folder.fd[i] = memfd_create(names[i], 0)) < 0)
            abort();
    return mem_folder.dir;
}

static void mem_folder_put(int i, const void *p, size_t len) {
    char path[128], target[64];
    if (ftruncate(mem_folder.fd[i], 0) != 0 ||
        pwrite(mem_folder.fd[i], p, len, 0) != (ssize_t)len)
        abort();
    if (mem_folder.linked[i])
        return;
    mem_folder_path(i, path);
    snprintf(target, sizeof target, "/proc/self/fd/%d", mem_folder.fd[i]);
    if (symlink(target, path) != 0)
        abort();
    mem_folder.linked[i] = true;
}

#endif
