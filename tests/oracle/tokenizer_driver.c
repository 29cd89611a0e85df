/*
 * tokenizer_driver.c - the C side of tests/oracle/tokenizer.py.
 *
 * Reads jobs from standard input, each behind two 32-bit little-endian numbers: what to do, and
 * a length in bytes. Bit 0: control tokens in the text count; bit 1: with begin and end tokens;
 * bit 2: what follows are ids (32 bits each), to be decoded. For each job it writes a line: the
 * ids, or the text in hexadecimal. With "bench" as second argument it reads one text, encodes
 * it five times and writes the best megabytes per second, and the milliseconds that opening
 * took.
 *
 * Built with:
 *
 *     gcc -std=gnu17 -D_GNU_SOURCE -O2 -Isrc -DPKGDATADIR='""' -o tokenizer_driver
 *         tests/oracle/tokenizer_driver.c src/base/[a-z]*.c src/engine/quant/[a-z]*.c
 *         src/engine/text/[a-z]*.c
 *         src/engine/model/{gguf,gguf_get,vocab,container,container_write,hf_json}.c
 *         -lpcre2-8 -lutf8proc -ljansson -lm
 */
#include "base/clock.h"
#include "base/mem.h"
#include "engine/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const struct err *err) {
    fprintf(stderr, "%s: %s\n", status_words(err->code), err->msg);
    return 1;
}

static int bench(const struct text_model *t, const char *text, size_t len) {
    int64_t best = INT64_MAX;
    for (int i = 0; i < 5; i++) {
        struct tok_list out = {0};
        struct err err;
        int64_t start = clock_us();
        if (text_encode(t, text, len, &(struct encode_opts){0}, &out, &err) != ST_OK)
            return fail(&err);
        int64_t took = clock_us() - start;
        best = took < best ? took : best;
        tok_list_release(&out);
    }
    printf("%.1f MB/s\n", (double)len / (double)best);
    return 0;
}

/* One job; false: it failed. */
static bool job(const struct text_model *t, uint32_t what, const char *data, size_t len) {
    struct err err;
    if (what & 4) {
        struct buf out = {0};
        text_decode_all(t, (const int32_t *)(const void *)data, len / 4, what & 1, &out);
        for (size_t i = 0; i < out.len; i++)
            printf("%02x", (unsigned char)out.p[i]);
        buf_release(&out);
    } else {
        struct tok_list out = {0};
        struct encode_opts opts = {.special = what & 1, .bos = what & 2, .eos = what & 2};
        if (text_encode(t, data, len, &opts, &out, &err) != ST_OK)
            return fail(&err), false;
        for (size_t i = 0; i < out.n; i++)
            printf("%s%d", i ? " " : "", (int)out.v[i]);
        tok_list_release(&out);
    }
    putchar('\n');
    fflush(stdout);
    return true;
}

int main(int argc, char **argv) {
    struct text_model *t;
    struct err err;
    int64_t start = clock_us();
    if (argc < 2)
        return 2;
    if (text_open(argv[1], &t, &err) != ST_OK)
        return fail(&err);
    if (argc > 2)
        printf("open %.1f ms\n", (double)(clock_us() - start) / 1000);
    uint32_t head[2];
    while (fread(head, sizeof head, 1, stdin) == 1) {
        char *text = malloc(head[1] + 1u);
        if (!text || fread(text, 1, head[1], stdin) != head[1])
            return 1;
        if (argc > 2 ? bench(t, text, head[1]) != 0 : !job(t, head[0], text, head[1]))
            return 1;
        free(text);
    }
    text_close(t);
    return 0;
}
