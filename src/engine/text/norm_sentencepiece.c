/*
 * norm_sentencepiece.c - SentencePiece's normalizer, as two libraries apply it; see
 * normalizer_steps.h.
 *
 * SentencePiece replaces the longest entry of the charsmap at each place, squeezes blanks, puts
 * one in front and writes them as U+2581. The tokenizers library ("Precompiled") looks at a
 * grapheme of less than six bytes first, and takes the shortest entry that it begins with for
 * all of it; else at its characters one by one.
 */
#include "base/utf8.h"
#include "engine/text/normalizer_steps.h"
#include <string.h>

#define MARK "\xe2\x96\x81" /* U+2581 */

/* The character or grapheme in from .. to-1 as the charsmap has it; false: it has none. */
static bool replaced(const struct norm_step *s, const struct norm_text *in, size_t from,
                     size_t to, struct norm_text *out) {
    const char *with;
    if (charsmap_shortest(s->chars, in->text.p + from, to - from, &with) == 0)
        return false;
    norm_emit(out, in, with, strlen(with), from, to);
    return true;
}

void norm_precompiled(const struct norm_step *s, const struct norm_text *in,
                      struct norm_text *out) {
    const char *t = buf_str(&in->text);
    size_t len = in->text.len;
    for (size_t i = 0; i < len;) {
        int cells;
        bool alone = (unsigned char)t[i] < 0x80 && t[i] != '\r' &&
                     (i + 1 == len || (unsigned char)t[i + 1] < 0x80);
        bool crlf = t[i] == '\r' && i + 1 < len &&
                    t[i + 1] == '\n'; /* utf8_cluster() keeps them apart */
        size_t n = crlf ? 2 : alone ? 1 : utf8_cluster(t + i, len - i, &cells);
        if (n < 6 && replaced(s, in, i, i + n, out)) {
            i += n;
            continue;
        }
        for (size_t end = i + n; i < end;) {
            uint32_t cp;
            size_t k = utf8_decode(t + i, end - i, &cp);
            if (!replaced(s, in, i, i + k, out))
                norm_copy(out, in, i, i + k);
            i += k;
        }
    }
}

/* What stands at `at`: *to [*n], and the bytes of the input that it takes. */
static size_t next_piece(const struct norm_step *s, const struct norm_text *in, size_t at,
                         const char **to, size_t *n) {
    size_t left = in->text.len - at, used = 0;
    int32_t id;
    if (s->keep && s->keep->n > 0)
        used = added_match(s->keep, in->text.p, in->text.len, at, true, NULL, &id);
    if (used > 0) {
        *to = in->text.p + at;
        return *n = used;
    }
    used = charsmap_longest(s->chars, in->text.p + at, left, to);
    if (used > 0) {
        *n = strlen(*to);
        return used;
    }
    uint32_t cp;
    *to = in->text.p + at;
    return *n = utf8_decode(in->text.p + at, left, &cp);
}

/* Bytes in front of the next blank that stay as they are; 0: it takes a closer look. */
static size_t plain_run(const struct norm_step *s, const struct norm_text *in, size_t at) {
    const bool *quiet = charsmap_quiet(s->chars);
    const uint32_t *kept = s->keep && s->keep->n > 0 ? s->keep->first : NULL;
    const unsigned char *p = (const unsigned char *)in->text.p + at;
    size_t i = 0, len = in->text.len - at;
    while (i < len && p[i] != ' ' && quiet[p[i]] && !(kept && kept[p[i]] < kept[p[i] + 1]))
        i++;
    return i > 0 && i < len && p[i] >= 0x80 && !quiet[p[i]] ? i - 1 : i;
}

void norm_sentencepiece(const struct norm_step *s, const struct norm_text *in,
                        struct norm_text *out) {
    const char *blank = s->escape ? MARK : " ", *p = "";
    size_t n_blank = strlen(blank), at = 0, n = 0, len = in->text.len;
    while (s->squeeze && at < len) {
        size_t used = next_piece(s, in, at, &p, &n);
        if (n != 1 || *p != ' ')
            break;
        at += used;
    }
    if (at == len)
        return;
    bool prefix = s->prefix && (in->first || !s->first_only);
    if (prefix && !s->suffix)
        norm_emit(out, in, blank, n_blank, at, at);
    bool after_blank = s->squeeze;
    while (at < len) {
        size_t run = plain_run(s, in, at);
        if (run > 0) {
            norm_copy(out, in, at, at + run);
            after_blank = false;
            at += run;
            continue;
        }
        size_t used = next_piece(s, in, at, &p, &n);
        for (; after_blank && n > 0 && *p == ' '; n--)
            p++;
        if (n > 0)
            after_blank = s->squeeze && p[n - 1] == ' ';
        while (n > 0) {
            const char *gap = memchr(p, ' ', n);
            size_t m = gap ? (size_t)(gap - p) : n;
            if (m > 0)
                norm_emit(out, in, p, m, at, at + used);
            if (gap)
                norm_emit(out, in, blank, n_blank, at, at + used);
            m += gap != NULL;
            p += m;
            n -= m;
        }
        at += used;
    }
    while (s->squeeze && out->text.len >= n_blank &&
           memcmp(out->text.p + out->text.len - n_blank, blank, n_blank) == 0) {
        buf_cut(&out->text, out->text.len - n_blank);
        if (out->has_marks)
            buf_cut(&out->marks, out->text.len);
    }
    if (prefix && s->suffix)
        norm_emit(out, in, blank, n_blank, len, len);
}
