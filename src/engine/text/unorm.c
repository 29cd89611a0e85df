/*
 * unorm.c - Unicode's normalization forms, see normalizer_steps.h.
 *
 * Most text is in the form already, so only stretches that may not be are worked on: from the
 * character before the first one that is not certain to the next certain one. Certain are
 * characters below a border that neither change nor combine with what is before them.
 *
 * utf8proc knows the decompositions and compositions. Its own ordering of combining marks is
 * quadratic for a long run of them, so that is done here, by counting.
 */
#include "base/utf8.h"
#include "engine/text/normalizer_steps.h"
#include "engine/text/unicode_data.h"
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { MAX_DECOMPOSED = 32 /* code points that one becomes, at most 18 */ };

struct points {
    utf8proc_int32_t *v; /* [n] */
    size_t n, cap;
};

static int class_of(utf8proc_int32_t cp) {
    return (int)utf8proc_get_property(cp)->combining_class;
}

/* A run v [n] of marks into the order of their classes, stable. */
static void order_marks(utf8proc_int32_t *v, size_t n) {
    size_t start[257] = {0};
    bool sorted = true;
    for (size_t i = 1; i < n && sorted; i++)
        sorted = class_of(v[i - 1]) <= class_of(v[i]);
    if (sorted)
        return;
    utf8proc_int32_t *tmp = xreallocarray(NULL, n, sizeof *tmp);
    for (size_t i = 0; i < n; i++)
        start[class_of(v[i]) + 1]++;
    for (size_t c = 1; c <= 256; c++)
        start[c] += start[c - 1];
    for (size_t i = 0; i < n; i++)
        tmp[start[class_of(v[i])]++] = v[i];
    memcpy(v, tmp, n * sizeof *v);
    free(tmp);
}

static void decompose(struct points *p, const char *s, size_t len, bool compat) {
    utf8proc_option_t options =
        (utf8proc_option_t)(UTF8PROC_DECOMPOSE | (compat ? UTF8PROC_COMPAT : 0));
    p->n = 0;
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        int boundclass = 0;
        i += utf8_decode(s + i, len - i, &cp);
        if (p->cap - p->n < MAX_DECOMPOSED) {
            p->cap = p->cap ? 2 * p->cap : 256;
            p->v = xreallocarray(p->v, p->cap, sizeof *p->v);
        }
        utf8proc_ssize_t k = -1;
        if (unicode_decomposes(cp))
            k = utf8proc_decompose_char((utf8proc_int32_t)cp, p->v + p->n, MAX_DECOMPOSED,
                                        options, &boundclass);
        if (k < 0 || k > MAX_DECOMPOSED) { /* stays; the second can't be */
            p->v[p->n] = (utf8proc_int32_t)cp;
            k = 1;
        }
        p->n += (size_t)k;
    }
    for (size_t i = 0; i < p->n;) {
        size_t end = i;
        while (end < p->n && class_of(p->v[end]) > 0)
            end++;
        order_marks(p->v + i, end - i);
        i = end + 1;
    }
}

static void stretch(const struct norm_step *s, struct points *p, const struct norm_text *in,
                    size_t from, size_t to, struct norm_text *out) {
    decompose(p, in->text.p + from, to - from, s->compat);
    utf8proc_ssize_t n = (utf8proc_ssize_t)p->n;
    if (s->compose)
        n = utf8proc_normalize_utf32(p->v, n,
                                     (utf8proc_option_t)(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
    size_t before = out->text.len;
    for (utf8proc_ssize_t i = 0; i < n; i++)
        buf_addcp(&out->text, (uint32_t)p->v[i]);
    if (out->has_marks) {
        unsigned char mark = 0;
        for (size_t i = from; i < to; i++)
            mark |= (unsigned char)in->marks.p[i];
        for (size_t i = before; i < out->text.len; i++)
            buf_addc(&out->marks, (char)mark);
    }
}

void norm_unicode(const struct norm_step *s, const struct norm_text *in,
                  struct norm_text *out) {
    /* Lead bytes below this one are certain: up to U+02FF for NFC, U+00BF for NFD. */
    unsigned certain = s->compat ? 0x80 : s->compose ? 0xcc : 0xc3;
    const unsigned char *t = (const unsigned char *)buf_str(&in->text);
    size_t len = in->text.len, done = 0, i = 0, last = 0;
    struct points p = {0};
    while (i < len) {
        if (t[i] < certain) {
            if ((t[i] & 0xc0) != 0x80)
                last = i;
            i++;
            continue;
        }
        size_t from = i > done ? (last > done ? last : done) : i;
        while (i < len && (t[i] >= certain || (t[i] & 0xc0) == 0x80))
            i++;
        norm_copy(out, in, done, from);
        stretch(s, &p, in, from, i, out);
        done = i;
    }
    norm_copy(out, in, done, len);
    free(p.v);
}
