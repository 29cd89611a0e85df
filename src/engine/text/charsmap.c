/*
 * charsmap.c - see charsmap.h.
 *
 * A unit holds a label (bits 0..7 and 31), a flag that it has a leaf (8) and the offset to its
 * children (10..30, times 256 where bit 9 is set). Each step is checked against the number of
 * units, and a leaf's value against the replacements, when they are used: a trie has 100,000
 * units of which a text touches few. A key is at most MAX_KEY bytes long, since a trie that is
 * made to be cyclic would otherwise be walked to the text's end from each character.
 */
#include "engine/text/charsmap.h"
#include "base/mem.h"
#include "base/utf8.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_KEY = 256, MAX_BYTES = 16 << 20 };

struct charsmap {
    uint32_t *unit; /* [n_unit] */
    size_t n_unit;
    char *text; /* [n_text + 1] replacements */
    size_t n_text;
    bool quiet[256]; /* no entry is this byte, or goes on with ASCII behind it */
};

static uint32_t le32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Every replacement is valid UTF-8, wherever it begins. */
static bool texts_valid(const char *p, size_t n) {
    for (size_t i = 0; i < n;) {
        size_t len = strnlen(p + i, n - i);
        if (!utf8_valid(p + i, len))
            return false;
        i += len + 1;
    }
    return true;
}

static size_t unit_offset(uint32_t unit) {
    return (size_t)(unit >> 10) << ((unit & (1u << 9)) >> 6);
}

/* Is there a unit of this byte among the children that begin at `at`? */
static bool has_unit(const struct charsmap *c, size_t at, unsigned b) {
    at ^= b;
    return at < c->n_unit && (c->unit[at] & (1u << 31 | 0xff)) == b;
}

static void find_quiet(struct charsmap *c) {
    memset(c->quiet, c->n_unit == 0, sizeof c->quiet);
    for (unsigned b = 1; b < 128 && c->n_unit > 0; b++) {
        size_t at = unit_offset(c->unit[0]);
        c->quiet[b] = true;
        if (!has_unit(c, at, b))
            continue;
        uint32_t unit = c->unit[at ^ b];
        c->quiet[b] = !(unit >> 8 & 1);
        for (unsigned next = 1; next < 128 && c->quiet[b]; next++)
            c->quiet[b] = !has_unit(c, at ^ b ^ unit_offset(unit), next);
    }
}

enum status charsmap_open(const uint8_t *p, size_t n, struct charsmap **out, struct err *err) {
    size_t trie = n >= 4 ? le32(p) : 0;
    *out = NULL;
    if (n > MAX_BYTES)
        return err_set(err, ST_LIMIT, "precompiled charsmap: %zu bytes, at most %d are allowed",
                       n, (int)MAX_BYTES);
    if (n > 0 && (n < 8 || trie % 4 != 0 || trie == 0 || trie > n - 4))
        return err_set(err, ST_FORMAT,
                       "precompiled charsmap: a trie of %zu bytes does not fit %zu", trie, n);
    struct charsmap *c = xcalloc(1, sizeof *c);
    c->n_unit = trie / 4;
    c->unit = xcalloc(c->n_unit + 1, sizeof *c->unit);
    for (size_t i = 0; i < c->n_unit; i++)
        c->unit[i] = le32(p + 4 + 4 * i);
    c->n_text = n > 0 ? n - 4 - trie : 0;
    c->text = xcalloc(c->n_text + 1, 1);
    if (c->n_text > 0)
        memcpy(c->text, p + 4 + trie, c->n_text);
    if (!texts_valid(c->text, c->n_text)) { /* of the copy: p may be a file that is cut */
        charsmap_close(c);
        return err_set(err, ST_FORMAT, "precompiled charsmap: replacements are not UTF-8");
    }
    find_quiet(c);
    *out = c;
    return ST_OK;
}

void charsmap_close(struct charsmap *c) {
    if (!c)
        return;
    free(c->unit);
    free(c->text);
    free(c);
}

static size_t find(const struct charsmap *c, const char *s, size_t len, bool shortest,
                   const char **to) {
    size_t best = 0, at = 0;
    if (c->n_unit == 0)
        return 0;
    at ^= unit_offset(c->unit[0]);
    for (size_t i = 0; i < len && i < MAX_KEY && s[i] != '\0'; i++) {
        unsigned char b = (unsigned char)s[i];
        at ^= b;
        if (at >= c->n_unit || (c->unit[at] & (1u << 31 | 0xff)) != b)
            break;
        bool leaf = c->unit[at] >> 8 & 1;
        at ^= unit_offset(c->unit[at]);
        if (!leaf)
            continue;
        size_t value = at < c->n_unit ? c->unit[at] & ~(1u << 31) : SIZE_MAX;
        if (value >= c->n_text || ((unsigned char)c->text[value] & 0xc0) == 0x80)
            break; /* outside, or inside a character */
        best = i + 1;
        *to = c->text + value;
        if (shortest)
            break;
    }
    return best;
}

size_t charsmap_longest(const struct charsmap *c, const char *s, size_t len, const char **to) {
    return find(c, s, len, false, to);
}

size_t charsmap_shortest(const struct charsmap *c, const char *s, size_t len, const char **to) {
    return find(c, s, len, true, to);
}

const bool *charsmap_quiet(const struct charsmap *c) {
    return c->quiet;
}
