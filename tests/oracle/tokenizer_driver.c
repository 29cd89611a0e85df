/*
 * tokenizer_driver.c - the C side of tests/oracle/tokenizer.py.
 *
 * Reads texts from standard input, each behind two 32-bit little-endian numbers (1: with
 * control tokens; length in bytes), and writes a line of token ids for each; with "bench" as
 * second argument reads one text, encodes it five times and writes the best megabytes per
 * second, and the milliseconds that opening took.
 *
 * Built with:
 *
 *     gcc -std=gnu17 -D_GNU_SOURCE -O2 -Isrc -DPKGDATADIR='""' -o tokenizer_driver
 *         tests/oracle/tokenizer_driver.c src/base/[a-z]*.c src/engine/quant/[a-z]*.c
 *         src/engine/text/{text,encode,tokenizer,bpe,spm,merge,added,tokmap}.c
 *         src/engine/text/pretok{,_rules,_unicode}.c
 *         src/engine/model/{gguf,gguf_get,vocab,container,container_write}.c
 *         -lpcre2-8 -lutf8proc -ljansson -lm
 */
#include "base/clock.h"
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
        struct tok_list out = {0};
        struct encode_opts opts = {.special = head[0] & 1};
        if (argc > 2 && bench(t, text, head[1]) != 0)
            return 1;
        if (argc == 2 && text_encode(t, text, head[1], &opts, &out, &err) != ST_OK)
            return fail(&err);
        for (size_t i = 0; i < out.n; i++)
            printf("%s%d", i ? " " : "", (int)out.v[i]);
        if (argc == 2)
            putchar('\n');
        fflush(stdout);
        tok_list_release(&out);
        free(text);
    }
    text_close(t);
    return 0;
}
