/*
 * fuzz_hf.c - any bytes as config.json and model.safetensors of a Hugging Face folder: opened,
 * every tensor of the architecture asked for, the last row of each read. Up to the first NUL
 * the input is config.json.
 */
#include "engine/model/source.h"
#include "engine/model/view.h"
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The folder's files exist in memory only: links to these. */
static const char *const names[] = {"config.json", "model.safetensors"};
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

static void touch(const struct source_tensor *t) {
    size_t groups = t->group ? (size_t)t->K / (size_t)t->group + 1 : 1;
    float *row = xreallocarray(NULL, (size_t)t->K, sizeof *row);
    float *scale = xreallocarray(NULL, groups, 2 * sizeof *scale);
    uint8_t *code = xmalloc((size_t)t->K);
    uint64_t last = t->E * t->N - 1;
    t->format->rows(t, &last, 1, row);
    if (t->format->codes)
        t->format->codes(t, &last, 1, code, scale, scale + groups);
    free(code);
    free(scale);
    free(row);
}

static enum status ask(void *user, const struct arch_slot *slot, struct err *err) {
    struct view v;
    CHECK(view_find(user, slot, &v, err));
    if (v.t)
        touch(v.t);
    if (v.bias)
        touch(v.bias);
    view_release(&v);
    return ST_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct source *s;
    struct err err;
    if (!dir[0])
        start();
    size_t n = size ? strnlen((const char *)data, size) : 0, rest = n < size ? n + 1 : n;
    put(0, data, n);
    put(1, data + rest, size - rest);
    if (source_open(dir, &s, &err) != ST_OK)
        return 0;
    char hex[65];
    _Atomic bool stop = false;
    if (arch_visit(s->arch, &s->hp, ask, s, &err) == ST_OK)
        source_all_used(s, &err);
    source_hash(s, hex, &stop);
    source_close(s);
    return 0;
}
