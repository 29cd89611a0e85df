/*
 * md_text.c - text that the parser hands over, as safe text with segments.
 *
 * A segment that shows its source byte for byte stays one; every character that a terminal must
 * not get, every tab and every entity is a segment of its own that stands for its source as a
 * whole. The lines of a code block are cut once more at the tokens of its language.
 */
#include "base/utf8.h"
#include "ui/md_impl.h"
#include "ui/style.h"
#include "ui/syntax.h"
#include <string.h>

#define TAB 4

void mdoc_add_seg(struct mdoc *d, const char *text, size_t len, uint32_t src, size_t src_len,
                  uint16_t style) {
    GROW(d->seg, d->n_seg, d->cap_seg);
    d->seg[d->n_seg++] = (struct mdoc_seg){.off = (uint32_t)d->text.len,
                                           .len = (uint32_t)len,
                                           .src = src,
                                           .src_len = (uint32_t)src_len,
                                           .style = style};
    buf_add(&d->text, text, len);
}

/* Text of ours that stands for source bytes. */
static void add_whole(struct mdoc *d, const char *text, size_t len, uint32_t src,
                      size_t src_len, uint16_t style) {
    mdoc_add_seg(d, text, len, src, src_len, style);
    d->seg[d->n_seg - 1].whole = src_len > 0;
}

void mdoc_add_newline(struct parse *p) {
    buf_addc(&p->d->text, '\n');
    p->tab_at = p->d->text.len;
    p->tab_col = 0;
}

static void add_tab(struct parse *p, uint32_t src, size_t src_len, uint16_t style) {
    struct buf *t = &p->d->text;
    size_t col = p->tab_col + utf8_cells(t->p + p->tab_at, t->len - p->tab_at);
    size_t n = TAB - col % TAB;
    add_whole(p->d, "    ", n, src, src_len, style);
    p->tab_at = t->len;
    p->tab_col = col + n;
}

bool mdoc_source_of(const struct parse *p, const char *s, size_t len, uint32_t *src) {
    const char *first = p->in + p->skip, *end = p->in + p->in_len;
    if (s < first || s >= end || len > (size_t)(end - s))
        return false;
    *src = p->base + (uint32_t)(s - first);
    return true;
}

static bool is_plain_ascii(const char *s, size_t len) {
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)s[i] < 0x20 || (unsigned char)s[i] >= 0x7f)
            return false;
    return true;
}

/* Text with characters that a terminal must not get, or tabs: a segment for each and for what
 * is between. */
static void add_hostile(struct parse *p, const char *s, size_t len, bool known, uint32_t src,
                        uint16_t style) {
    struct buf safe = {0};
    size_t done = 0, i = 0;
    while (i < len) {
        uint32_t cp;
        size_t used = utf8_decode(s + i, len - i, &cp);
        buf_clear(&safe);
        utf8_terminal_safe(&safe, s + i, used, false);
        bool good = safe.len == used && memcmp(safe.p, s + i, used) == 0;
        if (!good) {
            uint32_t at = known ? src + (uint32_t)i : 0;
            if (i > done)
                mdoc_add_seg(p->d, s + done, i - done, known ? src + (uint32_t)done : 0,
                             known ? i - done : 0, style);
            if (cp == '\t')
                add_tab(p, at, known ? used : 0, style);
            else
                add_whole(p->d, safe.p, safe.len, at, known ? used : 0, style);
            done = i + used;
        }
        i += used;
    }
    if (len > done)
        mdoc_add_seg(p->d, s + done, len - done, known ? src + (uint32_t)done : 0,
                     known ? len - done : 0, style);
    buf_release(&safe);
}

void mdoc_add_text_at(struct parse *p, const char *s, size_t len, bool known, uint32_t src,
                      uint16_t style) {
    if (len == 0)
        return;
    bool clean = is_plain_ascii(s, len);
    if (!clean && !memchr(s, '\t', len)) {
        struct buf safe = {0};
        utf8_terminal_safe(&safe, s, len, false);
        clean = safe.len == len && memcmp(safe.p, s, len) == 0;
        buf_release(&safe);
    }
    if (clean)
        mdoc_add_seg(p->d, s, len, src, known ? len : 0, style);
    else
        add_hostile(p, s, len, known, src, style);
    if (known)
        p->last_src = src + (uint32_t)len;
}

void mdoc_add_text(struct parse *p, const char *s, size_t len, uint16_t style) {
    uint32_t src = 0;
    bool known = mdoc_source_of(p, s, len, &src);
    mdoc_add_text_at(p, s, len, known, src, style);
}

static const struct {
    const char *name;
    uint32_t cp;
} entities[] = {
    {"&amp;", '&'},      {"&lt;", '<'},        {"&gt;", '>'},       {"&quot;", '"'},
    {"&apos;", '\''},    {"&nbsp;", 0xa0},     {"&copy;", 0xa9},    {"&reg;", 0xae},
    {"&deg;", 0xb0},     {"&plusmn;", 0xb1},   {"&middot;", 0xb7},  {"&frac12;", 0xbd},
    {"&times;", 0xd7},   {"&divide;", 0xf7},   {"&ndash;", 0x2013}, {"&mdash;", 0x2014},
    {"&lsquo;", 0x2018}, {"&rsquo;", 0x2019},  {"&ldquo;", 0x201c}, {"&rdquo;", 0x201d},
    {"&bull;", 0x2022},  {"&hellip;", 0x2026}, {"&euro;", 0x20ac},  {"&trade;", 0x2122},
    {"&larr;", 0x2190},  {"&uarr;", 0x2191},   {"&rarr;", 0x2192},  {"&darr;", 0x2193},
    {"&minus;", 0x2212}, {"&infin;", 0x221e},  {"&ne;", 0x2260},    {"&le;", 0x2264},
    {"&ge;", 0x2265},    {"&pi;", 0x3c0},      {"&check;", 0x2713},
};

/* An entity as a code point; 0: not one we know. */
static uint32_t entity(const char *s, size_t len) {
    char word[16];
    if (len < 4 || len >= sizeof word)
        return 0;
    memcpy(word, s, len);
    word[len] = 0;
    if (word[1] == '#') {
        bool hex = word[2] == 'x' || word[2] == 'X';
        unsigned long v = strtoul(word + (hex ? 3 : 2), NULL, hex ? 16 : 10);
        return v == 0 || v > 0x10ffff ? 0xfffd : (uint32_t)v;
    }
    for (size_t i = 0; i < sizeof entities / sizeof entities[0]; i++)
        if (strcmp(entities[i].name, word) == 0)
            return entities[i].cp;
    return 0;
}

void mdoc_add_entity(struct parse *p, const char *s, size_t len, uint16_t style) {
    uint32_t cp = entity(s, len), src = 0;
    bool known = mdoc_source_of(p, s, len, &src);
    if (cp == 0) {
        mdoc_add_text(p, s, len, style);
        return;
    }
    char raw[4];
    struct buf safe = {0};
    utf8_terminal_safe(&safe, raw, utf8_encode(cp, raw), false);
    add_whole(p->d, safe.p, safe.len, src, known ? len : 0, style);
    buf_release(&safe);
    if (known)
        p->last_src = src + (uint32_t)len;
}

/* The part of segment s inside the token [a, z), in the token's style. Segments that stand for
 * their source as a whole (a tab, a mended character) go to the token in which they begin. */
static void colour_part(struct mdoc *d, struct mdoc_seg s, uint32_t a, uint32_t z,
                        uint16_t style) {
    uint32_t from = s.off > a ? s.off : a, to = s.off + s.len < z ? s.off + s.len : z;
    if (s.whole && from != s.off)
        return;
    if (!s.whole) {
        s.src += s.src_len ? from - s.off : 0;
        s.src_len = s.src_len ? to - from : 0;
        s.off = from;
        s.len = to - from;
    }
    s.style = style;
    struct mdoc_seg *before = d->n_seg > 0 ? &d->seg[d->n_seg - 1] : NULL;
    if (before && before->style == style && before->off + before->len == s.off &&
        before->whole == s.whole && !s.whole && (before->src_len > 0) == (s.src_len > 0) &&
        before->src + before->src_len == s.src) {
        before->len += s.len;
        before->src_len += s.src_len;
        return;
    }
    GROW(d->seg, d->n_seg, d->cap_seg);
    d->seg[d->n_seg++] = s;
}

void mdoc_colour_code(struct parse *p, const struct mdoc_block *b) {
    struct mdoc *d = p->d;
    const struct syntax *syn = syntax_find(b->lang, strlen(b->lang));
    size_t n_old = d->n_seg - b->span.seg, k = 0;
    int state = b->resumed ? p->fence_state : 0;
    if (!syn)
        return;
    d->cut_state = state;
    struct mdoc_seg *old = xreallocarray(NULL, n_old + 1, sizeof *old);
    if (n_old)
        memcpy(old, d->seg + b->span.seg, n_old * sizeof *old);
    d->n_seg = b->span.seg;
    size_t at = b->span.text, end = d->text.len;
    while (at < end) {
        const char *line = d->text.p + at, *nl = memchr(line, '\n', end - at);
        size_t len = nl ? (size_t)(nl - line) : end - at, tok = 0;
        d->cut_state = state; /* ends as the state before the last line */
        while (tok < len) {
            uint16_t style;
            size_t tok_end = syntax_token(syn, &state, line, len, tok, &style);
            uint32_t a = (uint32_t)(at + tok), z = (uint32_t)(at + tok_end);
            for (; k < n_old && old[k].off < z; k++) {
                colour_part(d, old[k], a, z, style);
                if (old[k].off + old[k].len > z)
                    break;
            }
            tok = tok_end;
        }
        at += len + 1;
    }
    free(old);
}
