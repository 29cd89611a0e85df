/*
 * fuzz_shards.c - any bytes as the index of a folder and one of its shards; the other shard is
 * right. Up to the first NUL the input is the index.
 */
#include "engine/model/shards.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The folder's files exist in memory only: links to these. */
static const char *const names[] = {"a.safetensors", "b.safetensors",
                                    "model.safetensors.index.json"};
enum { N_FILES = sizeof names / sizeof *names };
static char dir[64];
static int files[N_FILES];

static void clean(void) {
    char path[128];
    for (int i = 0; i < N_FILES; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}

static void start(void) {
    char path[128], target[64];
    strcpy(dir, "/tmp/llmchat-fuzz-XXXXXX");
    if (!mkdtemp(dir))
        abort();
    atexit(clean);
    for (int i = 0; i < N_FILES; i++) {
        files[i] = memfd_create(names[i], 0);
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        snprintf(target, sizeof target, "/proc/self/fd/%d", files[i]);
        if (files[i] < 0 || symlink(target, path) != 0)
            abort();
    }
}

static void put(int i, const void *p, size_t len) {
    if (ftruncate(files[i], 0) != 0 || pwrite(files[i], p, len, 0) != (ssize_t)len)
        abort();
}

/* The shard that is right. */
static void put_right(void) {
    static const char header[] =
        "{\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}";
    char file[128] = {sizeof header - 1};
    memcpy(file + 8, header, sizeof header - 1);
    put(1, file, 8 + sizeof header - 1 + 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct shards *s;
    struct err err;
    if (!dir[0]) {
        start();
        put_right();
    }
    size_t n = size ? strnlen((const char *)data, size) : 0, rest = n < size ? n + 1 : n;
    put(2, data, n);
    put(0, data + rest, size - rest);
    if (shards_open(dir, &s, &err) != ST_OK)
        return 0;
    volatile unsigned sum = 0; /* so that the reads stay */
    for (size_t i = 0; i < shards_n(s); i++) {
        bool used;
        const struct ctensor *t = shards_tensor(s, i, &used);
        if (used || shards_find(s, t->name) != t || !shards_file(s, t))
            abort();
        if (t->n_bytes)
            sum += t->data[0] + t->data[t->n_bytes - 1];
    }
    shards_close(s);
    return 0;
}
