/*
 * fuzz_ggml_types.c - any bytes as a tensor of any GGUF type: no read outside, and what `keep`
 * stores gives the values bit for bit.
 *
 * The first byte chooses the type, the second the length of a row; the rest are blocks.
 */
#include "base/mem.h"
#include "engine/model/source.h"
#include "engine/quant/ggml_types.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool same(float a, float b) {
    return (a != a && b != b) || memcmp(&a, &b, sizeof a) == 0;
}

static void check_codes(const struct source_tensor *t, uint64_t row, const float *value) {
    size_t K = (size_t)t->K, G = K / (size_t)t->group;
    uint8_t *code = xmalloc(K);
    float *scale = xreallocarray(NULL, G, sizeof *scale);
    float *min = t->keep_min ? xreallocarray(NULL, G, sizeof *min) : NULL;
    t->format->codes(t, &row, 1, code, scale, min);
    for (size_t k = 0; k < K; k++) {
        size_t g = k / (size_t)t->group;
        if (t->keep == WEIGHT_Q4 && code[k] > 15)
            abort();
        volatile float v =
            (t->keep == WEIGHT_Q4 ? t->table[code[k]] : (float)(int8_t)code[k]) * scale[g];
        if (!same(min ? v + min[g] : v, value[k]))
            abort();
    }
    free(min);
    free(scale);
    free(code);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    const struct ggml_type_row *type = ggml_type_row(data[0] % 48);
    if (!type)
        return 0;
    uint64_t blocks = (size - 2) / type->block_bytes, a_row = 1 + data[1] % 8;
    struct source_tensor t = {
        .dtype = type->type, .E = 1, .N = blocks / a_row, .K = a_row * type->block_elems};
    t.data = data + 2;
    if (t.N == 0 || !tensor_format_ggml(&t))
        return 0;
    float *value = xreallocarray(NULL, (size_t)t.K, sizeof *value);
    for (uint64_t r = 0; r < t.N; r++) {
        t.format->rows(&t, &r, 1, value);
        if (t.format->codes)
            check_codes(&t, r, value);
    }
    free(value);
    return 0;
}
