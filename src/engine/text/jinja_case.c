/*
 * jinja_case.c - upper, lower and title case, and case folding, as Python's str has them.
 *
 * utf8proc maps one code point to one. Where Unicode's SpecialCasing says more than one (a
 * sharp s becomes SS, ligatures their letters) the table below does, and a capital sigma at the
 * end of a word becomes a final one. Every code point that comes out has the mark of the one it
 * was.
 */
#include "engine/text/jinja_run.h"
#include <stdlib.h>
#include <utf8proc.h>

enum { TO_UP, TO_LOW, TO_TITLE };
enum { SIGMA = 0x3A3, SMALL_SIGMA = 0x3C3, FINAL_SIGMA = 0x3C2 };

static const struct special {
    uint32_t cp, up[3], title[3];
} specials[] = {{0xDF, {0x53, 0x53}, {0x53, 0x73}},
                {0x149, {0x2BC, 0x4E}, {0x2BC, 0x4E}},
                {0x1F0, {0x4A, 0x30C}, {0x4A, 0x30C}},
                {0x390, {0x399, 0x308, 0x301}, {0x399, 0x308, 0x301}},
                {0x3B0, {0x3A5, 0x308, 0x301}, {0x3A5, 0x308, 0x301}},
                {0x587, {0x535, 0x552}, {0x535, 0x582}},
                {0x1E96, {0x48, 0x331}, {0x48, 0x331}},
                {0x1E97, {0x54, 0x308}, {0x54, 0x308}},
                {0x1E98, {0x57, 0x30A}, {0x57, 0x30A}},
                {0x1E99, {0x59, 0x30A}, {0x59, 0x30A}},
                {0x1E9A, {0x41, 0x2BE}, {0x41, 0x2BE}},
                {0x1F50, {0x3A5, 0x313}, {0x3A5, 0x313}},
                {0x1F52, {0x3A5, 0x313, 0x300}, {0x3A5, 0x313, 0x300}},
                {0x1F54, {0x3A5, 0x313, 0x301}, {0x3A5, 0x313, 0x301}},
                {0x1F56, {0x3A5, 0x313, 0x342}, {0x3A5, 0x313, 0x342}},
                {0x1F80, {0x1F08, 0x399}, {0x1F88}},
                {0x1F81, {0x1F09, 0x399}, {0x1F89}},
                {0x1F82, {0x1F0A, 0x399}, {0x1F8A}},
                {0x1F83, {0x1F0B, 0x399}, {0x1F8B}},
                {0x1F84, {0x1F0C, 0x399}, {0x1F8C}},
                {0x1F85, {0x1F0D, 0x399}, {0x1F8D}},
                {0x1F86, {0x1F0E, 0x399}, {0x1F8E}},
                {0x1F87, {0x1F0F, 0x399}, {0x1F8F}},
                {0x1F88, {0x1F08, 0x399}, {0x1F88}},
                {0x1F89, {0x1F09, 0x399}, {0x1F89}},
                {0x1F8A, {0x1F0A, 0x399}, {0x1F8A}},
                {0x1F8B, {0x1F0B, 0x399}, {0x1F8B}},
                {0x1F8C, {0x1F0C, 0x399}, {0x1F8C}},
                {0x1F8D, {0x1F0D, 0x399}, {0x1F8D}},
                {0x1F8E, {0x1F0E, 0x399}, {0x1F8E}},
                {0x1F8F, {0x1F0F, 0x399}, {0x1F8F}},
                {0x1F90, {0x1F28, 0x399}, {0x1F98}},
                {0x1F91, {0x1F29, 0x399}, {0x1F99}},
                {0x1F92, {0x1F2A, 0x399}, {0x1F9A}},
                {0x1F93, {0x1F2B, 0x399}, {0x1F9B}},
                {0x1F94, {0x1F2C, 0x399}, {0x1F9C}},
                {0x1F95, {0x1F2D, 0x399}, {0x1F9D}},
                {0x1F96, {0x1F2E, 0x399}, {0x1F9E}},
                {0x1F97, {0x1F2F, 0x399}, {0x1F9F}},
                {0x1F98, {0x1F28, 0x399}, {0x1F98}},
                {0x1F99, {0x1F29, 0x399}, {0x1F99}},
                {0x1F9A, {0x1F2A, 0x399}, {0x1F9A}},
                {0x1F9B, {0x1F2B, 0x399}, {0x1F9B}},
                {0x1F9C, {0x1F2C, 0x399}, {0x1F9C}},
                {0x1F9D, {0x1F2D, 0x399}, {0x1F9D}},
                {0x1F9E, {0x1F2E, 0x399}, {0x1F9E}},
                {0x1F9F, {0x1F2F, 0x399}, {0x1F9F}},
                {0x1FA0, {0x1F68, 0x399}, {0x1FA8}},
                {0x1FA1, {0x1F69, 0x399}, {0x1FA9}},
                {0x1FA2, {0x1F6A, 0x399}, {0x1FAA}},
                {0x1FA3, {0x1F6B, 0x399}, {0x1FAB}},
                {0x1FA4, {0x1F6C, 0x399}, {0x1FAC}},
                {0x1FA5, {0x1F6D, 0x399}, {0x1FAD}},
                {0x1FA6, {0x1F6E, 0x399}, {0x1FAE}},
                {0x1FA7, {0x1F6F, 0x399}, {0x1FAF}},
                {0x1FA8, {0x1F68, 0x399}, {0x1FA8}},
                {0x1FA9, {0x1F69, 0x399}, {0x1FA9}},
                {0x1FAA, {0x1F6A, 0x399}, {0x1FAA}},
                {0x1FAB, {0x1F6B, 0x399}, {0x1FAB}},
                {0x1FAC, {0x1F6C, 0x399}, {0x1FAC}},
                {0x1FAD, {0x1F6D, 0x399}, {0x1FAD}},
                {0x1FAE, {0x1F6E, 0x399}, {0x1FAE}},
                {0x1FAF, {0x1F6F, 0x399}, {0x1FAF}},
                {0x1FB2, {0x1FBA, 0x399}, {0x1FBA, 0x345}},
                {0x1FB3, {0x391, 0x399}, {0x1FBC}},
                {0x1FB4, {0x386, 0x399}, {0x386, 0x345}},
                {0x1FB6, {0x391, 0x342}, {0x391, 0x342}},
                {0x1FB7, {0x391, 0x342, 0x399}, {0x391, 0x342, 0x345}},
                {0x1FBC, {0x391, 0x399}, {0x1FBC}},
                {0x1FC2, {0x1FCA, 0x399}, {0x1FCA, 0x345}},
                {0x1FC3, {0x397, 0x399}, {0x1FCC}},
                {0x1FC4, {0x389, 0x399}, {0x389, 0x345}},
                {0x1FC6, {0x397, 0x342}, {0x397, 0x342}},
                {0x1FC7, {0x397, 0x342, 0x399}, {0x397, 0x342, 0x345}},
                {0x1FCC, {0x397, 0x399}, {0x1FCC}},
                {0x1FD2, {0x399, 0x308, 0x300}, {0x399, 0x308, 0x300}},
                {0x1FD3, {0x399, 0x308, 0x301}, {0x399, 0x308, 0x301}},
                {0x1FD6, {0x399, 0x342}, {0x399, 0x342}},
                {0x1FD7, {0x399, 0x308, 0x342}, {0x399, 0x308, 0x342}},
                {0x1FE2, {0x3A5, 0x308, 0x300}, {0x3A5, 0x308, 0x300}},
                {0x1FE3, {0x3A5, 0x308, 0x301}, {0x3A5, 0x308, 0x301}},
                {0x1FE4, {0x3A1, 0x313}, {0x3A1, 0x313}},
                {0x1FE6, {0x3A5, 0x342}, {0x3A5, 0x342}},
                {0x1FE7, {0x3A5, 0x308, 0x342}, {0x3A5, 0x308, 0x342}},
                {0x1FF2, {0x1FFA, 0x399}, {0x1FFA, 0x345}},
                {0x1FF3, {0x3A9, 0x399}, {0x1FFC}},
                {0x1FF4, {0x38F, 0x399}, {0x38F, 0x345}},
                {0x1FF6, {0x3A9, 0x342}, {0x3A9, 0x342}},
                {0x1FF7, {0x3A9, 0x342, 0x399}, {0x3A9, 0x342, 0x345}},
                {0x1FFC, {0x3A9, 0x399}, {0x1FFC}},
                {0xFB00, {0x46, 0x46}, {0x46, 0x66}},
                {0xFB01, {0x46, 0x49}, {0x46, 0x69}},
                {0xFB02, {0x46, 0x4C}, {0x46, 0x6C}},
                {0xFB03, {0x46, 0x46, 0x49}, {0x46, 0x66, 0x69}},
                {0xFB04, {0x46, 0x46, 0x4C}, {0x46, 0x66, 0x6C}},
                {0xFB05, {0x53, 0x54}, {0x53, 0x74}},
                {0xFB06, {0x53, 0x54}, {0x53, 0x74}},
                {0xFB13, {0x544, 0x546}, {0x544, 0x576}},
                {0xFB14, {0x544, 0x535}, {0x544, 0x565}},
                {0xFB15, {0x544, 0x53B}, {0x544, 0x56B}},
                {0xFB16, {0x54E, 0x546}, {0x54E, 0x576}},
                {0xFB17, {0x544, 0x53D}, {0x544, 0x56D}}};

/* Letters by use and not by category: superscripts, Roman numerals, letters in circles
 * (Unicode's Other_Lowercase, Other_Uppercase). */
static const struct {
    uint32_t from, to;
    enum js_case is;
} others[] = {
    {0xAA, 0xAA, JS_LOWER},       {0xBA, 0xBA, JS_LOWER},       {0x2B0, 0x2B8, JS_LOWER},
    {0x2C0, 0x2C1, JS_LOWER},     {0x2E0, 0x2E4, JS_LOWER},     {0x345, 0x345, JS_LOWER},
    {0x37A, 0x37A, JS_LOWER},     {0x1D2C, 0x1D6A, JS_LOWER},   {0x1D78, 0x1D78, JS_LOWER},
    {0x1D9B, 0x1DBF, JS_LOWER},   {0x2071, 0x2071, JS_LOWER},   {0x207F, 0x207F, JS_LOWER},
    {0x2090, 0x209C, JS_LOWER},   {0x2160, 0x216F, JS_UPPER},   {0x2170, 0x217F, JS_LOWER},
    {0x24B6, 0x24CF, JS_UPPER},   {0x24D0, 0x24E9, JS_LOWER},   {0x2C7C, 0x2C7D, JS_LOWER},
    {0xA69C, 0xA69D, JS_LOWER},   {0xA770, 0xA770, JS_LOWER},   {0xA7F8, 0xA7F9, JS_LOWER},
    {0xAB5C, 0xAB5F, JS_LOWER},   {0x1F130, 0x1F149, JS_UPPER}, {0x1F150, 0x1F169, JS_UPPER},
    {0x1F170, 0x1F189, JS_UPPER},
};

enum js_case js_case_of(uint32_t cp) {
    int c = (int)utf8proc_category((utf8proc_int32_t)cp);
    if (c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL || c == UTF8PROC_CATEGORY_LT)
        return c == UTF8PROC_CATEGORY_LU   ? JS_UPPER
               : c == UTF8PROC_CATEGORY_LL ? JS_LOWER
                                           : JS_TITLE;
    for (size_t i = 0; cp >= 0x80 && i < sizeof others / sizeof *others; i++)
        if (cp >= others[i].from && cp <= others[i].to)
            return others[i].is;
    return JS_UNCASED;
}

bool js_is_cased(const struct jstr *s, bool upper) {
    bool any = false;
    for (size_t i = 0, used; i < s->n; i += used) {
        enum js_case c = js_case_of(js_decode(s->p + i, s->n - i, &used));
        if (c == JS_TITLE || c == (upper ? JS_LOWER : JS_UPPER))
            return false;
        any |= c != JS_UNCASED;
    }
    return any;
}

static bool cased(uint32_t cp) {
    return js_case_of(cp) != JS_UNCASED;
}

/* What may stand between a letter and a sigma without ending the word. */
static bool ignorable(uint32_t cp) {
    static const uint16_t marks[] = {0x27,   0x2E,   0x3A,   0xB7,   0x387,  0x55F,
                                     0x5F4,  0x2018, 0x2019, 0x2024, 0x2027, 0xFE13,
                                     0xFE52, 0xFE55, 0xFF07, 0xFF0E, 0xFF1A};
    int c = (int)utf8proc_category((utf8proc_int32_t)cp);
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (marks[i] == cp)
            return true;
    return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_ME ||
           c == UTF8PROC_CATEGORY_CF || c == UTF8PROC_CATEGORY_LM || c == UTF8PROC_CATEGORY_SK;
}

/* Whether the sigma at byte i, 2 bytes long, ends a word of s. */
static bool final_sigma(struct jx *x, const struct jstr *s, size_t i) {
    size_t p = i, used;
    bool before = false;
    while (p > 0) {
        for (p--; p > 0 && ((unsigned char)s->p[p] & 0xC0) == 0x80; p--)
            ;
        uint32_t cp = js_decode(s->p + p, s->n - p, &used);
        jx_step(x, 1);
        before = cased(cp);
        if (before || !ignorable(cp))
            break;
    }
    for (p = i + 2; before && p < s->n; p += used) {
        uint32_t cp = js_decode(s->p + p, s->n - p, &used);
        jx_step(x, 1);
        if (!ignorable(cp))
            return !cased(cp);
    }
    return before;
}

static int by_cp(const void *key, const void *row) {
    uint32_t k = *(const uint32_t *)key, cp = ((const struct special *)row)->cp;
    return k < cp ? -1 : k > cp;
}

static void add_special(struct jx *x, struct jb *b, const uint32_t *to, uint8_t m) {
    for (int i = 0; i < 3 && to[i]; i++)
        jb_addcp(x, b, to[i], m);
}

/* The character cp at byte i of s. */
static void add_mapped(struct jx *x, struct jb *b, const struct jstr *s, size_t i, uint32_t cp,
                       int to) {
    uint8_t m = s->m ? s->m[i] : 0;
    utf8proc_int32_t c = (utf8proc_int32_t)cp;
    if (cp < 0x80) {
        bool low = cp >= 'a' && cp <= 'z', up = cp >= 'A' && cp <= 'Z';
        jb_addc(x, b, (char)(to == TO_LOW ? cp + (up ? 32 : 0) : cp - (low ? 32 : 0)), m);
        return;
    }
    if (to == TO_LOW) {
        if (cp == SIGMA)
            cp = final_sigma(x, s, i) ? FINAL_SIGMA : SMALL_SIGMA;
        else
            cp = cp == 0x130 ? 'i' : (uint32_t)utf8proc_tolower(c);
        jb_addcp(x, b, cp, m);
        if (c == 0x130) /* the dot of a Turkish I stays above */
            jb_addcp(x, b, 0x307, m);
        return;
    }
    const struct special *row =
        bsearch(&cp, specials, sizeof specials / sizeof *specials, sizeof *specials, by_cp);
    if (row)
        add_special(x, b, to == TO_UP ? row->up : row->title, m);
    else
        jb_addcp(x, b, (uint32_t)(to == TO_UP ? utf8proc_toupper(c) : utf8proc_totitle(c)), m);
}

static struct jv finish(struct jx *x, struct jb *b, const struct jstr *s) {
    jx_step(x, s->n / 8);
    struct jv v = jb_value(x, b);
    v.s->safe = s->safe;
    return v;
}

/* first: how the first character is mapped, rest: the others. */
static struct jv mapped(struct jx *x, const struct jstr *s, int first, int rest) {
    struct jb b = {0};
    for (size_t i = 0, used; i < s->n; i += used)
        add_mapped(x, &b, s, i, js_decode(s->p + i, s->n - i, &used), i ? rest : first);
    return finish(x, &b, s);
}

struct jv js_upper(struct jx *x, const struct jstr *s) {
    return mapped(x, s, TO_UP, TO_UP);
}

struct jv js_lower(struct jx *x, const struct jstr *s) {
    return mapped(x, s, TO_LOW, TO_LOW);
}

struct jv js_capital(struct jx *x, const struct jstr *s) {
    return mapped(x, s, TO_TITLE, TO_LOW);
}

struct jv js_title(struct jx *x, const struct jstr *s) {
    struct jb b = {0};
    bool inside = false;
    for (size_t i = 0, used; i < s->n; i += used) {
        uint32_t cp = js_decode(s->p + i, s->n - i, &used);
        add_mapped(x, &b, s, i, cp, inside ? TO_LOW : TO_TITLE);
        inside = cased(cp);
    }
    return finish(x, &b, s);
}

struct jv js_swapcase(struct jx *x, const struct jstr *s) {
    struct jb b = {0};
    for (size_t i = 0, used; i < s->n; i += used) {
        uint32_t cp = js_decode(s->p + i, s->n - i, &used);
        enum js_case c = js_case_of(cp);
        if (c == JS_TITLE || c == JS_UNCASED)
            jb_add(x, &b, s->p + i, s->m ? s->m + i : NULL, used);
        else
            add_mapped(x, &b, s, i, cp, c == JS_UPPER ? TO_LOW : TO_UP);
    }
    return finish(x, &b, s);
}

struct jv js_casefold(struct jx *x, const struct jstr *s) {
    struct jb b = {0};
    for (size_t i = 0, used; i < s->n; i += used) {
        utf8proc_int32_t to[4];
        uint32_t cp = js_decode(s->p + i, s->n - i, &used);
        utf8proc_ssize_t n =
            utf8proc_decompose_char((utf8proc_int32_t)cp, to, 4, UTF8PROC_CASEFOLD, NULL);
        for (utf8proc_ssize_t k = 0; k < n && k < 4; k++)
            jb_addcp(x, &b, (uint32_t)to[k], s->m ? s->m[i] : 0);
    }
    return finish(x, &b, s);
}
