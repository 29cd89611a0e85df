/*
 * fuzz_markdown.c - any bytes as a streamed reply: the first byte is the width, the second the
 * size of the pieces.
 *
 * Checks what the screen relies on: safe valid text, runs inside their buffers, lines not wider
 * than the width, sources in bounds and in order; and that text which came in pieces gives the
 * lines of the same text in one piece.
 */
#include "base/utf8.h"
#include "ui/layout.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int ok) {
    if (!ok)
        abort();
}

static void check(struct layout *l, int width) {
    size_t len, n = layout_n_lines(l);
    const char *source = layout_source(l, &len);
    uint32_t last = 0;
    for (size_t i = 0; i < n; i++) {
        const struct layout_line *line = layout_line(l, i);
        const struct layout_run *r = layout_runs(l, line);
        require(line->cells <= width && line->src >= last && line->src_end <= len);
        last = line->src;
        for (uint32_t k = 0; k < line->n_run; k++) {
            const char *text = layout_text(l, &r[k]);
            struct buf safe = {0};
            utf8_terminal_safe(&safe, text, r[k].len, false);
            require(safe.len == r[k].len && memcmp(safe.p, text, safe.len) == 0);
            buf_release(&safe);
            require((size_t)r[k].src + r[k].src_len <= len);
            if (r[k].src_len > 0 && !r[k].whole)
                require(memcmp(text, source + r[k].src, r[k].len) == 0);
        }
        size_t from, to;
        layout_pos(l, i, (int)(i % 50) - 2, &from, &to);
        require(from <= to && to <= len);
    }
    if (n > 0)
        require(layout_line_at(l, len / 2) < n);
}

static void same(struct layout *a, struct layout *b) {
    size_t n = layout_n_lines(a);
    require(n == layout_n_lines(b));
    for (size_t i = 0; i < n; i++) {
        const struct layout_line *x = layout_line(a, i), *y = layout_line(b, i);
        require(x->src == y->src && x->src_end == y->src_end && x->cells == y->cells &&
                x->cont == y->cont && x->n_run == y->n_run);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    int width = 8 + data[0] % 120;
    size_t piece = 1 + data[1] % 64, len = size - 2;
    const char *text = (const char *)data + 2;
    for (int markdown = 0; markdown < 2; markdown++) {
        struct layout *whole = layout_new(markdown), *grown = layout_new(markdown);
        layout_set_width(whole, width);
        layout_set_width(grown, width);
        layout_append(whole, text, len);
        layout_finish(whole);
        check(whole, width);
        for (size_t at = 0; at < len; at += piece) {
            layout_append(grown, text + at, len - at < piece ? len - at : piece);
            layout_n_lines(grown);
        }
        layout_finish(grown);
        check(grown, width);
        same(whole, grown);
        layout_free(whole);
        layout_free(grown);
    }
    return 0;
}
