/*
 * fuzz_shards.c - any bytes as the index of a folder and one of its shards; the other shard is
 * right. Up to the first NUL the input is the index.
 */
#include "engine/model/shards.h"
#include "mem_folder.h"
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"a.safetensors", "b.safetensors",
                                    "model.safetensors.index.json"};

/* The shard that is right. */
static void put_right(void) {
    static const char header[] =
        "{\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}";
    char file[128] = {sizeof header - 1};
    memcpy(file + 8, header, sizeof header - 1);
    mem_folder_put(1, file, 8 + sizeof header - 1 + 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *dir;
    struct shards *s;
    struct err err;
    if (!dir) {
        dir = mem_folder_make(names, 3);
        put_right();
    }
    size_t n = size ? strnlen((const char *)data, size) : 0, rest = n < size ? n + 1 : n;
    mem_folder_put(2, data, n);
    mem_folder_put(0, data + rest, size - rest);
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
