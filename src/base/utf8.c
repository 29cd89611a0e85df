/*
 * utf8.c - see utf8.h.
 *
 * Decoding follows the table of well-formed sequences in the Unicode standard (table 3-7):
 * overlong forms, surrogates and values above U+10FFFF are never accepted, and a broken
 * sequence uses up its longest valid prefix. Cluster borders are utf8proc's (UAX #29 with its
 * state); the width of a cluster is that of its widest code point, with two exceptions that
 * terminals share: U+FE0F and a pair of regional indicators make it two cells wide.
 */
#include "base/utf8.h"
#include <string.h>
#include <utf8proc.h>

size_t utf8_decode(const char *s, size_t len, uint32_t *cp) {
    const unsigned char *p = (const unsigned char *)s;
    if (len == 0)
        return 0;
    unsigned b = p[0];
    *cp = 0xfffd;
    if (b < 0x80) {
        *cp = b;
        return 1;
    }
    size_t need;
    unsigned lo = 0x80, hi = 0xbf; /* what the second byte may be */
    uint32_t v;
    if (b >= 0xc2 && b <= 0xdf) {
        need = 2;
        v = b & 0x1f;
    } else if (b >= 0xe0 && b <= 0xef) {
        need = 3;
        v = b & 0x0f;
        if (b == 0xe0)
            lo = 0xa0;
        if (b == 0xed)
            hi = 0x9f;
    } else if (b >= 0xf0 && b <= 0xf4) {
        need = 4;
        v = b & 0x07;
        if (b == 0xf0)
            lo = 0x90;
        if (b == 0xf4)
            hi = 0x8f;
    } else {
        return 1;
    }
    for (size_t i = 1; i < need; i++) {
        if (i >= len || p[i] < lo || p[i] > hi)
            return i;
        v = v << 6 | (p[i] & 0x3f);
        lo = 0x80;
        hi = 0xbf;
    }
    *cp = v;
    return need;
}

size_t utf8_encode(uint32_t cp, char out[4]) {
    if (cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
        cp = 0xfffd;
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xe0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3f));
        out[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3f));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3f));
    out[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}

/* True when the decoded (cp, used) at s is a mend and not a real U+FFFD in the text. */
static bool is_mend(const char *s, size_t used, uint32_t cp) {
    return cp == 0xfffd && !(used == 3 && memcmp(s, "\xef\xbf\xbd", 3) == 0);
}

size_t utf8_valid_prefix(const char *s, size_t len) {
    size_t i = 0;
    while (i < len) {
        uint32_t cp;
        size_t used = utf8_decode(s + i, len - i, &cp);
        if (is_mend(s + i, used, cp))
            break;
        i += used;
    }
    return i;
}

bool utf8_valid(const char *s, size_t len) {
    return utf8_valid_prefix(s, len) == len;
}

void utf8_scrub(struct buf *out, const char *s, size_t len) {
    while (len > 0) {
        size_t good = utf8_valid_prefix(s, len);
        buf_add(out, s, good);
        s += good;
        len -= good;
        if (len > 0) {
            uint32_t cp;
            size_t used = utf8_decode(s, len, &cp);
            buf_addcp(out, 0xfffd);
            s += used;
            len -= used;
        }
    }
}

size_t utf8_incomplete_tail(const char *s, size_t len) {
    for (size_t n = 1; n <= 3 && n <= len; n++) {
        unsigned char b = (unsigned char)s[len - n];
        if (b < 0x80)
            return 0;
        if (b < 0xc0)
            continue;
        size_t need = b >= 0xf0 && b <= 0xf4 ? 4 : b >= 0xe0 ? 3 : b >= 0xc2 ? 2 : 0;
        if (b > 0xf4 || need <= n)
            return 0;
        uint32_t cp; /* a valid prefix is used up whole by the decoder */
        return utf8_decode(s + len - n, n, &cp) == n ? n : 0;
    }
    return 0;
}

static int codepoint_cells(uint32_t cp) {
    if (cp < 0x20 || (cp >= 0x7f && cp < 0xa0))
        return 0;
    if (cp < 0x300)
        return 1;
    int w = utf8proc_charwidth((utf8proc_int32_t)cp);
    return w < 0 ? 0 : w > 2 ? 2 : w;
}

static bool is_regional(uint32_t cp) {
    return cp >= 0x1f1e6 && cp <= 0x1f1ff;
}

size_t utf8_cluster(const char *s, size_t len, int *cells) {
    uint32_t cp;
    size_t pos = utf8_decode(s, len, &cp);
    *cells = 0;
    if (pos == 0)
        return 0;
    *cells = codepoint_cells(cp);
    /* Two ASCII characters in a row: the first is a cluster by itself (CR LF is not text in a
     * cell). */
    if (cp < 0x80 && (pos == len || (unsigned char)s[pos] < 0x80))
        return pos;
    utf8proc_int32_t state = 0;
    uint32_t prev = cp;
    int n_regional = is_regional(cp);
    while (pos < len) {
        uint32_t next;
        size_t used = utf8_decode(s + pos, len - pos, &next);
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)prev, (utf8proc_int32_t)next,
                                             &state))
            break;
        n_regional += is_regional(next);
        int w = next == 0xfe0f && *cells == 1 ? 2 : codepoint_cells(next);
        if (w > *cells)
            *cells = w;
        prev = next;
        pos += used;
    }
    if (n_regional == 2)
        *cells = 2;
    return pos;
}

size_t utf8_cells(const char *s, size_t len) {
    size_t sum = 0;
    while (len > 0) {
        int w;
        size_t used = utf8_cluster(s, len, &w);
        sum += (size_t)w;
        s += used;
        len -= used;
    }
    return sum;
}

size_t utf8_fit(const char *s, size_t len, size_t max_cells, size_t *cells) {
    size_t pos = 0, sum = 0;
    while (pos < len) {
        int w;
        size_t used = utf8_cluster(s + pos, len - pos, &w);
        if (sum + (size_t)w > max_cells)
            break;
        sum += (size_t)w;
        pos += used;
    }
    if (cells)
        *cells = sum;
    return pos;
}

int utf8_cut(const char *s, size_t max_cells) {
    size_t len = strlen(s), pos = 0, cells = 0, used;
    int w;
    while (pos < len && (used = utf8_cluster(s + pos, len - pos, &w)) <= 4 * max_cells - pos &&
           (cells += (size_t)w) <= max_cells)
        pos += used;
    return (int)pos;
}

size_t utf8_prev(const char *s, size_t pos) {
    if (pos == 0)
        return 0;
    /* Clusters can't be found backwards; start at a border that is certain: after an ASCII
     * control or at most 256 bytes back (longer clusters are not text that a person edits). */
    size_t start = pos > 256 ? pos - 256 : 0;
    for (size_t i = pos - 1; i > start; i--)
        if (s[i - 1] == '\n') {
            start = i;
            break;
        }
    while (start > 0 && start < pos && ((unsigned char)s[start] & 0xc0) == 0x80)
        start++;
    size_t at = start;
    while (at < pos) {
        int w;
        size_t used = utf8_cluster(s + at, pos - at, &w);
        if (at + used >= pos)
            return at;
        at += used;
    }
    return start;
}

/* Characters that act on a terminal or on the order of text around them. */
static bool is_unsafe(uint32_t cp, bool keep_newlines) {
    if (cp == '\n' || cp == '\t')
        return !keep_newlines;
    return cp < 0x20 || (cp >= 0x7f && cp < 0xa0) || (cp >= 0x202a && cp <= 0x202e) ||
           (cp >= 0x2066 && cp <= 0x2069) || cp == 0x2028 || cp == 0x2029;
}

void utf8_terminal_safe(struct buf *out, const char *s, size_t len, bool keep_newlines) {
    while (len > 0) {
        uint32_t cp;
        size_t used = utf8_decode(s, len, &cp);
        if (is_unsafe(cp, keep_newlines) || is_mend(s, used, cp))
            buf_addcp(out, 0xfffd);
        else
            buf_add(out, s, used);
        s += used;
        len -= used;
    }
}
