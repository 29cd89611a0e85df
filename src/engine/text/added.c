/*
 * added.c - see added.h.
 *
 * The tokens are sorted by their bytes. All that begin with what was read so far are one range
 * of the list, and each further byte of the text narrows it by binary search; the shorter text
 * comes first in a range, so a complete match is always its first entry. At most positions of a
 * text the table of first bytes ends the search at once. Time at one position is bounded by
 * ADDED_MAX_LEN.
 *
 * Rejected: an Aho-Corasick automaton, which is faster only for texts made of near misses and
 * takes twenty times the memory.
 */
#include "engine/text/added.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

void added_add(struct added *a, const char *text, size_t len, int32_t id, bool control) {
    assert(len > 0 && len <= ADDED_MAX_LEN);
    if (a->n == a->cap) {
        a->cap = a->cap ? 2 * a->cap : 64;
        a->v = xreallocarray(a->v, a->cap, sizeof *a->v);
    }
    a->v[a->n++] = (struct added_tok){(uint32_t)a->bytes.len, (uint32_t)len, id, control};
    buf_add(&a->bytes, text, len);
}

static int added_compare(const void *x, const void *y, void *user) {
    const struct added_tok *s = x, *t = y;
    const char *bytes = user;
    int c = memcmp(bytes + s->off, bytes + t->off, s->len < t->len ? s->len : t->len);
    if (c == 0)
        c = s->len < t->len ? -1 : s->len > t->len;
    return c ? c : (s->id > t->id) - (s->id < t->id);
}

void added_finish(struct added *a) {
    if (a->n > 0)
        qsort_r(a->v, a->n, sizeof *a->v, added_compare, a->bytes.p);
    memset(a->first, 0, sizeof a->first);
    for (size_t i = 0; i < a->n; i++) {
        unsigned char c = (unsigned char)a->bytes.p[a->v[i].off];
        a->first[c + 1] = (uint32_t)(i + 1);
        if (!a->v[i].control)
            a->user[c] = true;
    }
    for (size_t c = 1; c <= 256; c++) /* bytes that begin no token: an empty range */
        if (a->first[c] < a->first[c - 1])
            a->first[c] = a->first[c - 1];
}

void added_release(struct added *a) {
    free(a->v);
    buf_release(&a->bytes);
    memset(a, 0, sizeof *a);
}

static unsigned char added_byte(const struct added *a, size_t i, size_t depth) {
    return (unsigned char)a->bytes.p[a->v[i].off + depth];
}

/* First entry of v[lo..hi) whose byte at depth is at least c. */
static size_t added_lower(const struct added *a, size_t lo, size_t hi, size_t depth,
                          unsigned c) {
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (added_byte(a, mid, depth) < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

size_t added_match(const struct added *a, const char *text, size_t len, size_t pos,
                   bool special, const uint8_t *plain, int32_t *id) {
    unsigned char c = (unsigned char)text[pos];
    if (!special && !a->user[c])
        return 0;
    size_t lo = a->first[c], hi = a->first[c + 1], best = 0;
    bool control_ok = special;
    for (size_t depth = 1; lo < hi; depth++) {
        if (plain && plain[pos + depth - 1])
            control_ok = false;
        bool taken = false;
        for (; lo < hi && a->v[lo].len == depth; lo++) {
            if (taken || (a->v[lo].control && !control_ok))
                continue;
            taken = true;
            best = depth;
            *id = a->v[lo].id;
        }
        if (pos + depth >= len)
            break;
        c = (unsigned char)text[pos + depth];
        lo = added_lower(a, lo, hi, depth, c);
        hi = added_lower(a, lo, hi, depth, c + 1u);
    }
    return best;
}
