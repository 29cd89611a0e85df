/*
 * fuzz_hf_quant.c - any bytes as a quantised Hugging Face checkpoint: the first line is its
 * config.json, the rest its model.safetensors. Every name is tried as a part of a matrix, and
 * the first and last rows of what is found are read.
 */
#include "engine/model/hf_json.h"
#include "engine/model/hf_quant.h"
#include "mem_folder.h"
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"model.safetensors"};

static void read_ends(const struct source_tensor *t) {
    uint64_t row[2] = {0, t->E * t->N - 1}, G = t->group ? (t->K + 15) / 16 : 0;
    float *out = xreallocarray(NULL, t->K + 2 * G, 2 * sizeof *out);
    t->format->rows(t, row, 2, out);
    if (t->format->codes) {
        uint8_t *code = xreallocarray(NULL, t->K, 2);
        t->format->codes(t, row, 2, code, out, t->keep_min ? out + 2 * G : NULL);
        free(code);
    }
    free(out);
}

/* The name of a tensor less its last one, two and three words, and less what MXFP4 adds. */
static void find_all(struct hf_quant *q, struct shards *s) {
    struct err err;
    for (size_t i = 0; i < shards_n(s); i++) {
        bool used, found;
        struct source_tensor t;
        char *base = xstrdup(shards_tensor(s, i, &used)->name), *dot = strrchr(base, '_');
        if (dot) {
            char *stack = xstrndup(base, (size_t)(dot - base));
            if (hf_quant_find(q, s, stack, &found, &t, &err) == ST_OK && found)
                read_ends(&t);
            free(stack);
        }
        for (int cut = 0; cut < 3 && (dot = strrchr(base, '.')); cut++) {
            *dot = '\0';
            if (hf_quant_find(q, s, base, &found, &t, &err) == ST_OK && found)
                read_ends(&t);
        }
        free(base);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *line = size ? memchr(data, '\n', size) : NULL;
    size_t n = line ? (size_t)(line - data) : size;
    static const char *dir;
    struct hf_json config;
    struct hf_quant *q = NULL;
    struct shards *s;
    struct err err;
    if (!dir)
        dir = mem_folder_make(names, 1);
    if (hf_json_parse((const char *)data, n, "config.json", &config, &err) != ST_OK)
        return 0;
    if (hf_quant_open(dir, &config, &q, &err) == ST_OK && q && line) {
        mem_folder_put(0, line + 1, size - n - 1);
        if (shards_open(dir, &s, &err) == ST_OK) {
            find_all(q, s);
            shards_close(s);
        }
    }
    hf_quant_free(q);
    hf_json_release(&config);
    return 0;
}
