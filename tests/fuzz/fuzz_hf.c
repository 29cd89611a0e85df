/*
 * fuzz_hf.c - any bytes as config.json and model.safetensors of a Hugging Face folder: opened,
 * every tensor of the architecture asked for, the last row of each read. Up to the first NUL
 * the input is config.json, and generation_config.json and the model card, too.
 */
#include "engine/model/source.h"
#include "engine/model/view.h"
#include "mem_folder.h"
#include <stdatomic.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"config.json", "model.safetensors",
                                    "generation_config.json", "README.md"};
enum { N_FILES = sizeof names / sizeof *names };

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
    static const char *dir;
    struct source *s;
    struct err err;
    if (!dir)
        dir = mem_folder_make(names, N_FILES);
    size_t n = size ? strnlen((const char *)data, size) : 0, rest = n < size ? n + 1 : n;
    mem_folder_put(0, data, n);
    mem_folder_put(2, data, n);
    mem_folder_put(3, data, n);
    mem_folder_put(1, data + rest, size - rest);
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
