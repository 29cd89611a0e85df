/*
 * style.c - one row of runs, built from left to right; see style.h.
 *
 * The text of a row is copied once into its own buffer, so that what it came from may change
 * while the row is drawn.
 */
#include "ui/style.h"
#include "base/utf8.h"
#include <stdlib.h>
#include <string.h>

void drawn_clear(struct drawn *d) {
    buf_clear(&d->text);
    d->n = 0;
    d->cells = 0;
}

void drawn_release(struct drawn *d) {
    buf_release(&d->text);
    free(d->run);
    *d = (struct drawn){0};
}

void drawn_add(struct drawn *d, uint16_t style, const char *text, size_t len, int cells) {
    if (len == 0)
        return;
    if (d->n > 0 && d->run[d->n - 1].style == style) {
        d->run[d->n - 1].len += (uint32_t)len;
        d->run[d->n - 1].cells = (uint16_t)(d->run[d->n - 1].cells + cells);
    } else {
        if (d->n == d->cap) {
            d->cap = d->cap ? 2 * d->cap : 8;
            d->run = xreallocarray(d->run, d->cap, sizeof *d->run);
        }
        d->run[d->n++] = (struct drawn_run){.off = (uint32_t)d->text.len,
                                            .len = (uint32_t)len,
                                            .style = style,
                                            .cells = (uint16_t)cells};
    }
    buf_add(&d->text, text, len);
    d->cells += cells;
}

void drawn_put(struct drawn *d, uint16_t style, const char *text, int max_cells) {
    struct buf safe = {0};
    utf8_terminal_safe(&safe, text, strlen(text), false);
    size_t cells = 0, n = safe.len;
    if (max_cells >= 0)
        n = utf8_fit(buf_str(&safe), safe.len, (size_t)max_cells, &cells);
    else
        cells = utf8_cells(buf_str(&safe), safe.len);
    drawn_add(d, style, buf_str(&safe), n, (int)cells);
    buf_release(&safe);
}

void drawn_pad(struct drawn *d, uint16_t style, int n) {
    static const char blanks[] = "                                ";
    for (; n > 0; n -= (int)sizeof blanks - 1) {
        int k = n < (int)sizeof blanks - 1 ? n : (int)sizeof blanks - 1;
        drawn_add(d, style, blanks, (size_t)k, k);
    }
}
