/*
 * fuzz_state.c - a saved state: any bytes as the file, and the same with its sum made right,
 * so that what stands behind the sum is met as well.
 */
#include "engine/run/state_file.h"
#include "mem_folder.h"
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_BLOCK = 1 << 16 };

static void read_all(const char *path) {
    static char block[MAX_BLOCK];
    struct state_file f;
    struct err err;
    if (state_open(&f, path, &err) != ST_OK)
        return;
    if (f.head.n_tok == 0 || strlen(f.name) > f.head.name_len)
        abort();
    int64_t sum = 0;
    for (uint32_t i = 0; i < f.head.n_tok; i++)
        sum += f.tokens[i];
    for (uint32_t i = 0; i < f.head.n_block && f.head.block_bytes <= MAX_BLOCK; i++)
        if (state_read_block(&f, i, block, &err) == ST_OK)
            sum += block[0];
    volatile int64_t seen = sum;
    (void)seen;
    state_close(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"0000000000000001-0000000000000002.kv"};
    static const char *dir;
    char path[128];
    struct state_head h;
    if (!dir)
        dir = mem_folder_make(names, 1);
    mem_folder_put(0, data, size);
    mem_folder_path(0, path);
    read_all(path);
    if (size < sizeof h)
        return 0;
    uint8_t *copy = malloc(size);
    memcpy(copy, data, size);
    memcpy(&h, copy, sizeof h);
    h.sum = 0;
    memcpy(copy, &h, sizeof h);
    h.sum = XXH3_64bits(copy, h.head_bytes < size ? (size_t)h.head_bytes : size);
    memcpy(copy, &h, sizeof h);
    mem_folder_put(0, copy, size);
    read_all(path);
    free(copy);
    return 0;
}
