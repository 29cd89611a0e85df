/*
 * fuzz_gguf.c - any bytes as a GGUF file: the reader, its accessors, the vocabulary, the values
 * of every tensor.
 */
#include "engine/model/gguf.h"
#include "engine/quant/ggml_types.h"
#include "engine/text/vocab.h"
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every accessor on every key; what they return is touched to its last byte. */
static unsigned touch_values(const struct gguf *g) {
    struct err err;
    unsigned sum = 0;
    for (uint64_t i = 0; i < gguf_n_kv(g); i++) {
        const struct gguf_kv *kv = gguf_kv(g, i);
        char *key = xstrndup(kv->key.p, kv->key.len);
        uint64_t u = 0, n;
        int64_t s = 0;
        double d = 0;
        bool b = false;
        struct gguf_str str = {0};
        struct gguf_str_iter it;
        const unsigned char *p;
        uint64_t us[4] = {0};
        double ds[4] = {0};
        gguf_get_u64s(g, key, true, kv->n < 4 ? (size_t)kv->n : 4, us, &err);
        gguf_get_f64s(g, key, true, kv->n < 4 ? (size_t)kv->n : 4, ds, &err);
        gguf_get_u64(g, key, true, &u, &err);
        gguf_get_i64(g, key, true, &s, &err);
        gguf_get_f64(g, key, true, &d, &err);
        gguf_get_bool(g, key, true, &b, &err);
        if (gguf_get_str(g, key, true, &str, &err) == ST_OK && str.len)
            sum += (unsigned char)str.p[str.len - 1];
        if (gguf_get_strings(g, key, true, &n, &it, &err) == ST_OK)
            while (gguf_next_string(&it, &str))
                sum += str.len ? (unsigned char)str.p[str.len - 1] : 0;
        if (gguf_get_i32s(g, key, true, &n, &p, &err) == ST_OK && n)
            sum += p[4 * n - 1];
        if (gguf_get_f32s(g, key, true, &n, &p, &err) == ST_OK && n)
            sum += p[4 * n - 1];
        free(key);
    }
    return sum;
}

static void touch_tensors(const struct gguf *g) {
    for (uint64_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        const struct ggml_type_row *row = ggml_type_row(t->type);
        if (!ggml_type_readable(row) || t->n_elem > 1 << 20)
            continue;
        float *v = xreallocarray(NULL, (size_t)t->n_elem, sizeof *v);
        ggml_dequant(row, t->data, v, (size_t)t->n_elem);
        free(v);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct gguf *g;
    struct err err;
    struct vocab_data v;
    static volatile unsigned sink;
    if (gguf_parse(data, size, "fuzz", &g, &err) != ST_OK)
        return 0;
    sink += touch_values(g);
    touch_tensors(g);
    if (vocab_from_gguf(&v, g, &err) == ST_OK)
        vocab_release(&v);
    gguf_close(g);
    return 0;
}
