/*
 * words.c - what a word is, and how words are folded.
 *
 * Categories come from utf8proc: letters, numbers and private use start or continue a word,
 * marks continue it, all else ends it. ASCII, by far the most frequent, never calls utf8proc.
 *
 * Folding: compatibility decomposition with case folding (full-width letters become plain ones,
 * half-width kana full), then the marks of U+0300..036F, 1AB0..1AFF, 1DC0..1DFF and 20D0..20FF
 * are dropped, then composition. The FTS5 tokenizer below it gets "remove_diacritics 0": the
 * folding happens here once, so that marks in a hit agree with the index.
 *
 * Tried and rejected: FTS5's trigram tokenizer, which finds no Chinese word of two characters
 * and makes an index of three times the text.
 */
#include "store/words.h"

#include "base/utf8.h"
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { MAX_TERMS = 32, MAX_TERM_WORDS = 64 };

enum kind { KIND_NONE, KIND_LETTER, KIND_SINGLE, KIND_MARK };

static const struct {
    uint32_t first, last;
} single_ranges[] = {
    {0x0e00, 0x0eff},   /* Thai, Lao */
    {0x1000, 0x109f},   /* Myanmar */
    {0x1780, 0x17ff},   /* Khmer */
    {0x2e80, 0x2fdf},   /* radicals */
    {0x3005, 0x3007},   /* iteration mark, zero */
    {0x3021, 0x3029},   /* Hangzhou numerals */
    {0x3031, 0x30ff},   /* kana */
    {0x3100, 0x312f},   /* bopomofo */
    {0x31a0, 0x31bf},   /* bopomofo */
    {0x31f0, 0x31ff},   /* kana */
    {0x3400, 0x4dbf},   /* Han */
    {0x4e00, 0x9fff},   /* Han */
    {0xac00, 0xd7a3},   /* Hangul */
    {0xf900, 0xfaff},   /* Han */
    {0xff66, 0xff9d},   /* half-width kana */
    {0x1b000, 0x1b16f}, /* kana */
    {0x20000, 0x3ffff}, /* Han */
};

static bool is_single(uint32_t cp) {
    if (cp < single_ranges[0].first)
        return false;
    for (size_t i = 0; i < sizeof single_ranges / sizeof *single_ranges; i++)
        if (cp >= single_ranges[i].first && cp <= single_ranges[i].last)
            return true;
    return false;
}

static enum kind kind_of(uint32_t cp) {
    if (cp < 0x80)
        return (cp >= '0' && cp <= '9') || ((cp | 32) >= 'a' && (cp | 32) <= 'z') ? KIND_LETTER
                                                                                  : KIND_NONE;
    if (cp == 0xff9e || cp == 0xff9f) /* half-width voicing marks are letters by category */
        return KIND_MARK;
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
        return KIND_MARK;
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
    case UTF8PROC_CATEGORY_CO:
        return is_single(cp) ? KIND_SINGLE : KIND_LETTER;
    default:
        return KIND_NONE;
    }
}

bool words_next(const char *s, size_t len, size_t *pos, struct word *out) {
    size_t at = *pos;
    uint32_t cp;
    enum kind k = KIND_NONE;
    for (; at < len; at += utf8_decode(s + at, len - at, &cp)) {
        utf8_decode(s + at, len - at, &cp);
        k = kind_of(cp);
        if (k == KIND_LETTER || k == KIND_SINGLE)
            break;
    }
    if (at >= len) {
        *pos = len;
        return false;
    }
    *out = (struct word){.start = at, .single = k == KIND_SINGLE};
    at += utf8_decode(s + at, len - at, &cp);
    while (at < len) {
        size_t n = utf8_decode(s + at, len - at, &cp);
        enum kind next = kind_of(cp);
        if (next != KIND_MARK && (out->single || next != KIND_LETTER))
            break;
        at += n;
    }
    out->end = *pos = at;
    return true;
}

static bool fold_ascii(struct buf *out, const char *s, size_t len) {
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)s[i] >= 0x80)
            return false;
    buf_reserve(out, len);
    for (size_t i = 0; i < len; i++)
        buf_addc(out, s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] + 32) : s[i]);
    return true;
}

static bool is_diacritic(uint32_t cp) {
    return (cp >= 0x300 && cp <= 0x36f) || (cp >= 0x1ab0 && cp <= 0x1aff) ||
           (cp >= 0x1dc0 && cp <= 0x1dff) || (cp >= 0x20d0 && cp <= 0x20ff);
}

void words_fold(struct buf *out, const char *s, size_t len) {
    if (fold_ascii(out, s, len))
        return;
    utf8proc_uint8_t *wide = NULL, *composed = NULL;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)len, &wide,
                                      UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT |
                                          UTF8PROC_CASEFOLD);
    if (n < 0) { /* words hold valid UTF-8 only, so this is want of memory */
        buf_add(out, s, len);
        return;
    }
    struct buf plain = {0};
    for (utf8proc_ssize_t at = 0; at < n;) {
        uint32_t cp;
        size_t used = utf8_decode((char *)wide + at, (size_t)(n - at), &cp);
        if (!is_diacritic(cp))
            buf_add(&plain, wide + at, used);
        at += (utf8proc_ssize_t)used;
    }
    n = utf8proc_map((const utf8proc_uint8_t *)buf_str(&plain), (utf8proc_ssize_t)plain.len,
                     &composed, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (n > 0)
        buf_add(out, composed, (size_t)n);
    free(composed);
    free(wide);
    buf_release(&plain);
}

void words_index(struct buf *out, const char *s, size_t len) {
    struct word w;
    for (size_t pos = 0; words_next(s, len, &pos, &w);) {
        if (out->len)
            buf_addc(out, ' ');
        words_fold(out, s + w.start, w.end - w.start);
    }
}

/* -- queries -- */

static size_t blank_at(const char *s, size_t len) {
    uint32_t cp;
    size_t n = utf8_decode(s, len, &cp);
    bool blank =
        cp <= ' ' || cp == 0x7f ||
        (cp >= 0x80 && utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_ZS);
    return n && blank ? n : 0;
}

static void term_add(struct terms *out, const char *s, size_t len, bool quoted) {
    if (len == 0 || out->n == MAX_TERMS)
        return;
    struct term t = {0};
    struct word w = {0};
    for (size_t pos = 0; t.words.n < MAX_TERM_WORDS && words_next(s, len, &pos, &w);) {
        struct buf folded = {0};
        words_fold(&folded, s + w.start, w.end - w.start);
        strlist_addn(&t.words, buf_str(&folded), folded.len);
        buf_release(&folded);
    }
    if (t.words.n == 0)
        t.literal = xstrndup(s, len);
    else
        t.prefix = !quoted && !w.single;
    out->v = xreallocarray(out->v, out->n + 1, sizeof *out->v);
    out->v[out->n++] = t;
}

void terms_parse(struct terms *out, const char *query) {
    size_t len = strlen(query), at = 0;
    memset(out, 0, sizeof *out);
    while (at < len) {
        size_t blank = blank_at(query + at, len - at);
        if (blank) {
            at += blank;
            continue;
        }
        bool quoted = query[at] == '"';
        at += quoted;
        size_t start = at;
        while (at < len && query[at] != '"' && (quoted || !blank_at(query + at, len - at)))
            at++;
        size_t end = at;
        if (quoted && at < len)
            at++;
        while (quoted && end > start && query[end - 1] == ' ')
            end--;
        term_add(out, query + start, end - start, quoted);
    }
}

void terms_release(struct terms *t) {
    for (size_t i = 0; i < t->n; i++) {
        strlist_release(&t->v[i].words);
        free(t->v[i].literal);
    }
    free(t->v);
    memset(t, 0, sizeof *t);
}

void terms_match(const struct terms *t, struct buf *out) {
    for (size_t i = 0; i < t->n; i++) {
        const struct term *m = &t->v[i];
        if (m->words.n == 0)
            continue;
        buf_adds(out, out->len ? " \"" : "\"");
        for (size_t k = 0; k < m->words.n; k++) {
            if (k)
                buf_addc(out, ' ');
            for (const char *p = m->words.v[k]; *p; p++)
                buf_adds(out, *p == '"' ? "\"\"" : (char[]){*p, 0});
        }
        buf_adds(out, m->prefix ? "\"*" : "\"");
    }
}

static bool word_equal(const char *s, const struct word *w, const char *want, bool prefix) {
    struct buf folded = {0};
    words_fold(&folded, s + w->start, w->end - w->start);
    bool equal = prefix ? strncmp(buf_str(&folded), want, strlen(want)) == 0
                        : strcmp(buf_str(&folded), want) == 0;
    buf_release(&folded);
    return equal;
}

/* Whether the term's words follow each other from `pos` on, where a word begins. */
static bool term_at(const struct term *t, const char *s, size_t len, size_t pos, size_t *end) {
    struct word w;
    for (size_t k = 0; k < t->words.n; k++) {
        if (!words_next(s, len, &pos, &w) ||
            !word_equal(s, &w, t->words.v[k], t->prefix && k + 1 == t->words.n))
            return false;
    }
    *end = pos;
    return true;
}

static bool term_in(const struct term *t, const char *s, size_t len) {
    struct word w;
    size_t end;
    if (t->words.n == 0)
        return t->literal && memmem(s, len, t->literal, strlen(t->literal));
    for (size_t pos = 0; words_next(s, len, &pos, &w);)
        if (term_at(t, s, len, w.start, &end))
            return true;
    return false;
}

bool terms_all_in(const struct terms *t, const char *s, size_t len) {
    for (size_t i = 0; i < t->n; i++)
        if (!term_in(&t->v[i], s, len))
            return false;
    return true;
}

bool terms_find(const struct terms *t, const char *s, size_t len, size_t *start, size_t *end) {
    struct word w;
    for (size_t pos = 0; words_next(s, len, &pos, &w);)
        for (size_t i = 0; i < t->n; i++)
            if (t->v[i].words.n > 0 && term_at(&t->v[i], s, len, w.start, end)) {
                *start = w.start;
                return true;
            }
    for (size_t i = 0; i < t->n; i++) {
        const char *lit = t->v[i].literal;
        const char *hit = lit ? memmem(s, len, lit, strlen(lit)) : NULL;
        if (hit) {
            *start = (size_t)(hit - s);
            *end = *start + strlen(lit);
            return true;
        }
    }
    return false;
}
