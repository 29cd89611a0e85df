/*
 * fuzz_logits.c - a file of saved logits, as `eval --kl-base` reads it: any bytes, against a
 * small fixed evaluation.
 */
#include "engine/run/logits_file.h"
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    enum { VOCAB = 5, CTX = 8, WINDOWS = 2, ROWS = WINDOWS * (CTX - CTX / 2 - 1) };
    static const int32_t tokens[WINDOWS * CTX] = {0, 1, 2, 3, 4, 0, 1, 2,
                                                  3, 4, 0, 1, 2, 3, 4, 0};
    const struct logits_shape shape = {
        .n_vocab = VOCAB, .ctx = CTX, .n_window = WINDOWS, .tokens = tokens};
    struct logits_reader r;
    struct err err;
    if (logits_reader_parse(&r, data, size, "fuzz", &shape, &err) != ST_OK)
        return 0;
    for (int i = 0; i < ROWS; i++) {
        float logp[VOCAB];
        uint32_t best;
        if (logits_reader_next(&r, logp, &best, &err) == ST_OK && best >= VOCAB)
            abort();
    }
    return 0;
}
