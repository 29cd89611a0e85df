/*
 * regex_onig.c - Oniguruma's regular expressions in PCRE2's words, see regex.h.
 *
 * One pass over the pattern. What differs between the two and is translated:
 *   - \h is a hexadecimal digit, \v is U+000B, \O any character, \uHHHH a code point;
 *   - \w, \d, \s, \b and \p{…} follow a newer Unicode, so they are spelt out as classes;
 *     \p{Han} is the script itself, not its extensions;
 *   - {n,m}+ is not possessive but repeats, {n}? means {0,n} of it, {,m} is {0,m};
 *   - (?m) is what PCRE2 calls (?s);
 *   - classes nest, "[a[^b]]", and intersect, "[a&&b]". A class becomes an alternative of
 *     simple classes, an intersection a look-ahead for each operand but the last.
 * What PCRE2 can't do at all (absent operators, text segments) is refused by name. Captures,
 * back references and look-arounds read the same.
 */
#include "engine/text/pretok_unicode.h"
#include "engine/text/regex.h"
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 64 };

struct onig {
    const char *p, *start, *end;
    struct buf *out;
    size_t atom;             /* where the last atom begins in out; SIZE_MAX: none */
    size_t group[MAX_DEPTH]; /* [depth] where the open groups begin */
    int depth;
    struct err *err;
};

static enum status refuse(struct onig *o, const char *what) {
    return err_set(o->err, ST_UNSUPPORTED,
                   "regular expression: %s is not supported, at offset %zu of %.200s", what,
                   (size_t)(o->p - o->start), o->start);
}

/* What a one-letter class is made of, as it stands in a class; NULL: no such letter. */
static const char *letter_class(char c) {
    switch (tolower((unsigned char)c)) {
    case 's':
        return REGEX_WHITE_SPACE;
    case 'h':
        return "0-9A-Fa-f";
    case 'd':
        return "\\p{Nd}";
    case 'w':
        return "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}"
               "\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}\\xb2\\xb3\\xb9\\xbc-\\xbe";
    default:
        return NULL;
    }
}

/* Members of the class with every \p{…} widened by what PCRE2 does not know yet. */
static void add_members(struct buf *out, const char *s) {
    while (*s) {
        const char *close = s[0] == '\\' && s[1] == 'p' ? strchr(s, '}') : NULL;
        if (close) {
            buf_add(out, s, (size_t)(close + 1 - s));
            buf_adds(out, pretok_young(s + 3, (size_t)(close - s) - 3));
            s = close + 1;
        } else {
            buf_addc(out, *s++);
        }
    }
}

/* Properties that are neither a script nor a general category. */
static bool binary_property(const char *name) {
    static const char *const names[] = {"any",
                                        "ascii",
                                        "alphabetic",
                                        "lowercase",
                                        "uppercase",
                                        "whitespace",
                                        "emoji",
                                        "emojipresentation",
                                        "emojimodifier",
                                        "emojimodifierbase",
                                        "emojicomponent",
                                        "extendedpictographic",
                                        "idstart",
                                        "idcontinue",
                                        "xidstart",
                                        "xidcontinue",
                                        "ideographic",
                                        "unifiedideograph",
                                        "math",
                                        "dash",
                                        "hexdigit",
                                        "asciihexdigit",
                                        "quotationmark",
                                        "diacritic",
                                        "extender",
                                        "joincontrol",
                                        "defaultignorablecodepoint",
                                        "regionalindicator"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* General categories by their long names, and the POSIX names; simple: without signs, lower
 * case. */
static const char *category(const char *simple) {
    static const char *const names[][2] = {{"letter", "L"},
                                           {"uppercaseletter", "Lu"},
                                           {"lowercaseletter", "Ll"},
                                           {"titlecaseletter", "Lt"},
                                           {"casedletter", "L&"},
                                           {"lc", "L&"},
                                           {"modifierletter", "Lm"},
                                           {"otherletter", "Lo"},
                                           {"mark", "M"},
                                           {"combiningmark", "M"},
                                           {"nonspacingmark", "Mn"},
                                           {"spacingmark", "Mc"},
                                           {"enclosingmark", "Me"},
                                           {"number", "N"},
                                           {"decimalnumber", "Nd"},
                                           {"digit", "Nd"},
                                           {"letternumber", "Nl"},
                                           {"othernumber", "No"},
                                           {"punctuation", "P"},
                                           {"connectorpunctuation", "Pc"},
                                           {"dashpunctuation", "Pd"},
                                           {"openpunctuation", "Ps"},
                                           {"closepunctuation", "Pe"},
                                           {"initialpunctuation", "Pi"},
                                           {"finalpunctuation", "Pf"},
                                           {"otherpunctuation", "Po"},
                                           {"symbol", "S"},
                                           {"mathsymbol", "Sm"},
                                           {"currencysymbol", "Sc"},
                                           {"modifiersymbol", "Sk"},
                                           {"othersymbol", "So"},
                                           {"separator", "Z"},
                                           {"spaceseparator", "Zs"},
                                           {"lineseparator", "Zl"},
                                           {"paragraphseparator", "Zp"},
                                           {"other", "C"},
                                           {"control", "Cc"},
                                           {"cntrl", "Cc"},
                                           {"format", "Cf"},
                                           {"surrogate", "Cs"},
                                           {"privateuse", "Co"},
                                           {"unassigned", "Cn"},
                                           {"alpha", "Alphabetic"},
                                           {"lower", "Lowercase"},
                                           {"upper", "Uppercase"},
                                           {"space", "White_Space"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i][0], simple) == 0)
            return names[i][1];
    return NULL;
}

static bool is_category(const char *simple) {
    static const char all[] = "l lu ll lt lm lo m mn mc me n nd nl no p pc pd ps pe pi pf po s "
                              "sm sc sk so z zs zl zp c cc cf cn co cs ";
    size_t n = strlen(simple);
    for (const char *p = all; *p; p = strchr(p, ' ') + 1)
        if (strncmp(p, simple, n) == 0 && p[n] == ' ')
            return true;
    return false;
}

/* \p{…}, \P{…} or \p{^…} at o->p (on the backslash); members gets what stands in a class. */
static enum status read_property(struct onig *o, struct buf *members, bool *negated) {
    const char *close = memchr(o->p, '}', (size_t)(o->end - o->p));
    char simple[64] = "", text[80];
    size_t n = 0;
    if (o->end - o->p < 4 || o->p[2] != '{' || !close)
        return refuse(o, "a property without braces");
    const char *s = o->p + 3;
    *negated = o->p[1] == 'P';
    if (*s == '^') {
        *negated = !*negated;
        s++;
    }
    const char *name = s;
    for (; s < close; s++) {
        if (!isalnum((unsigned char)*s) && !strchr("_ -=:", *s))
            return refuse(o, "this property");
        if (isalnum((unsigned char)*s) && n + 1 < sizeof simple)
            simple[n++] = (char)tolower((unsigned char)*s);
    }
    simple[n] = 0;
    if (close - name > 60)
        return refuse(o, "this property");
    const char *cat = category(simple);
    char proper[3] = {(char)toupper((unsigned char)simple[0]), simple[0] ? simple[1] : 0, 0};
    if (cat)
        snprintf(text, sizeof text, "\\p{%s}", cat);
    else if (is_category(simple))
        snprintf(text, sizeof text, "\\p{%s}", proper);
    else if (binary_property(simple) || memchr(name, '=', (size_t)(close - name)) ||
             memchr(name, ':', (size_t)(close - name)))
        snprintf(text, sizeof text, "\\p{%.*s}", (int)(close - name), name);
    else
        snprintf(text, sizeof text, "\\p{sc:%.*s}", (int)(close - name), name);
    if (cat && strcmp(cat, "White_Space") == 0)
        buf_adds(members, REGEX_WHITE_SPACE);
    else
        add_members(members, text);
    o->p = close + 1;
    return ST_OK;
}

/* A single escaped character at o->p (on the backslash), as PCRE2 writes it in or outside a
 * class; false: it is none. */
static bool read_char_escape(struct onig *o, struct buf *out) {
    size_t left = (size_t)(o->end - o->p);
    char c = left > 1 ? o->p[1] : 0;
    if (c == 'u' && left >= 6) {
        for (int i = 2; i < 6; i++)
            if (!isxdigit((unsigned char)o->p[i]))
                return false;
        buf_addf(out, "\\x{%.4s}", o->p + 2);
        o->p += 6;
        return true;
    }
    if (c == 'x' && left >= 4 && o->p[2] == '{') {
        const char *close = memchr(o->p, '}', left);
        if (!close)
            return false;
        buf_add(out, o->p, (size_t)(close + 1 - o->p));
        o->p = close + 1;
        return true;
    }
    if (c == 'x' && left >= 3 && isxdigit((unsigned char)o->p[2])) {
        size_t n = left >= 4 && isxdigit((unsigned char)o->p[3]) ? 4 : 3;
        if (n == 4 && o->p[2] > '7') /* a byte, not a character */
            return false;
        buf_add(out, o->p, n);
        o->p += n;
        return true;
    }
    if (c && strchr("nrtfae", c)) {
        buf_add(out, o->p, 2);
        o->p += 2;
        return true;
    }
    if (c == 'v') {
        buf_adds(out, "\\x0b");
        o->p += 2;
        return true;
    }
    if ((c && ispunct((unsigned char)c)) || c == ' ') {
        buf_add(out, o->p, 2);
        o->p += 2;
        return true;
    }
    return false;
}

/* ---- classes ---- */

struct operand {        /* of an intersection */
    struct buf members; /* of one simple class */
    struct buf others;  /* further atoms, each with '|' in front */
};

static enum status read_class(struct onig *o, struct buf *out, int depth);

/* The operand as one atom; empty: matches nothing. */
static void operand_atom(const struct operand *s, struct buf *out) {
    if (s->others.len == 0 && s->members.len == 0) {
        buf_adds(out, "(?!)");
    } else if (s->others.len == 0) {
        buf_addf(out, "[%s]", buf_str(&s->members));
    } else if (s->members.len == 0) {
        buf_addf(out, "(?:%s)", s->others.p + 1);
    } else {
        buf_addf(out, "(?:[%s]%s)", buf_str(&s->members), buf_str(&s->others));
    }
}

static enum status read_class_escape(struct onig *o, struct operand *s) {
    char c = o->p + 1 < o->end ? o->p[1] : 0;
    bool negated = false;
    struct buf members = {0};
    enum status st = ST_OK;
    if (c == 'p' || c == 'P') {
        st = read_property(o, &members, &negated);
    } else if (c && letter_class(c)) {
        add_members(&members, letter_class(c));
        negated = isupper((unsigned char)c);
        o->p += 2;
    } else if (c == 'b') {
        buf_adds(&members, "\\x08");
        o->p += 2;
    } else if (!read_char_escape(o, &members)) {
        st = refuse(o, "this escape in a class");
    }
    if (st == ST_OK && negated)
        buf_addf(&s->others, "|[^%s]", buf_str(&members));
    else if (st == ST_OK)
        buf_add(&s->members, buf_str(&members), members.len);
    buf_release(&members);
    return st;
}

/* [:name:] or [:^name:] at o->p; close is on its end. */
static enum status read_posix(struct onig *o, struct operand *s, const char *close) {
    static const char *const names[][2] = {
        {"alpha", "\\p{Alphabetic}"}, {"alnum", "\\p{Alphabetic}\\p{Nd}"},
        {"blank", "\\t\\p{Zs}"},      {"cntrl", "\\p{Cc}"},
        {"digit", "\\p{Nd}"},         {"lower", "\\p{Lowercase}"},
        {"punct", "\\p{P}\\p{S}"},    {"space", REGEX_WHITE_SPACE},
        {"upper", "\\p{Uppercase}"},  {"xdigit", "0-9A-Fa-f"}};
    const char *name = o->p + 2;
    bool negated = *name == '^';
    name += negated;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strlen(names[i][0]) != (size_t)(close - name) ||
            memcmp(names[i][0], name, (size_t)(close - name)) != 0)
            continue;
        o->p = close + 2;
        if (negated)
            buf_adds(&s->others, "|[^");
        add_members(negated ? &s->others : &s->members, names[i][1]);
        if (negated)
            buf_addc(&s->others, ']');
        return ST_OK;
    }
    return refuse(o, "this POSIX bracket");
}

/* One member of a class: nested, escaped, POSIX or a character. */
static enum status read_member(struct onig *o, struct operand *s, int depth) {
    if (*o->p == '[' && o->p + 1 < o->end && o->p[1] == ':') {
        const char *close = memmem(o->p, (size_t)(o->end - o->p), ":]", 2);
        if (close && close - o->p < 16)
            return read_posix(o, s, close);
    }
    if (*o->p == '[') {
        buf_addc(&s->others, '|');
        return read_class(o, &s->others, depth + 1);
    }
    if (*o->p == '\\')
        return read_class_escape(o, s);
    if (*o->p == '#' || *o->p == ' ') /* safe under (?x) too */
        buf_addc(&s->members, '\\');
    buf_addc(&s->members, *o->p++);
    return ST_OK;
}

static enum status read_operand(struct onig *o, struct operand *s, bool first, int depth) {
    while (o->p < o->end && (*o->p != ']' || first)) {
        if (o->end - o->p >= 2 && memcmp(o->p, "&&", 2) == 0)
            return ST_OK;
        if (first && *o->p == ']') {
            buf_adds(&s->members, "\\]");
            o->p++;
        } else {
            CHECK(read_member(o, s, depth));
        }
        first = false;
    }
    return o->p < o->end ? ST_OK : refuse(o, "a class without its end");
}

/* o->p is on the '['. */
static enum status read_class(struct onig *o, struct buf *out, int depth) {
    struct buf looks = {0}, last = {0};
    enum status st = ST_OK;
    if (depth > 16)
        return refuse(o, "a class nested this deep");
    o->p++;
    bool negated = o->p < o->end && *o->p == '^', simple = true;
    o->p += negated;
    for (bool first = true;; first = false) {
        struct operand s = {0};
        st = read_operand(o, &s, first, depth);
        simple = simple && s.others.len == 0 && s.members.len > 0;
        if (last.len > 0)
            buf_addf(&looks, "(?=%s)", buf_str(&last));
        buf_clear(&last);
        operand_atom(&s, &last);
        buf_release(&s.members);
        buf_release(&s.others);
        if (st != ST_OK || *o->p == ']')
            break;
        o->p += 2; /* && */
    }
    if (st == ST_OK)
        o->p++;
    if (negated && looks.len == 0 && simple)
        buf_addf(out, "[^%s", last.p + 1);
    else if (negated)
        buf_addf(out, "(?:(?!%s%s)(?s:.))", buf_str(&looks), buf_str(&last));
    else if (looks.len == 0)
        buf_adds(out, buf_str(&last));
    else
        buf_addf(out, "(?:%s%s)", buf_str(&looks), buf_str(&last));
    buf_release(&looks);
    buf_release(&last);
    return st;
}

/* ---- outside of classes ---- */

static void word_border(struct onig *o, bool negated) {
    struct buf w = {0};
    add_members(&w, letter_class('w'));
    const char *s = buf_str(&w);
    if (negated)
        buf_addf(o->out, "(?:(?<=[%s])(?=[%s])|(?<![%s])(?![%s]))", s, s, s, s);
    else
        buf_addf(o->out, "(?:(?<=[%s])(?![%s])|(?<![%s])(?=[%s]))", s, s, s, s);
    buf_release(&w);
}

static enum status read_escape(struct onig *o) {
    char c = o->p + 1 < o->end ? o->p[1] : 0;
    o->atom = o->out->len;
    if (c == 'p' || c == 'P' || (c && letter_class(c))) {
        struct buf members = {0};
        bool negated = c != 'p' && isupper((unsigned char)c);
        enum status st = ST_OK;
        if (c == 'p' || c == 'P') {
            st = read_property(o, &members, &negated);
        } else {
            add_members(&members, letter_class(c));
            o->p += 2;
        }
        buf_addf(o->out, negated ? "[^%s]" : "[%s]", buf_str(&members));
        buf_release(&members);
        return st;
    }
    if (c == 'b' || c == 'B') {
        word_border(o, c == 'B');
        o->p += 2;
        return ST_OK;
    }
    if (c == 'O') {
        buf_adds(o->out, "(?s:.)");
        o->p += 2;
        return ST_OK;
    }
    if (read_char_escape(o, o->out))
        return ST_OK;
    if (c && (strchr("AzZGRXNKkg", c) || isdigit((unsigned char)c))) {
        buf_add(o->out, o->p, 2);
        o->p += 2;
        return ST_OK;
    }
    return refuse(o, "this escape");
}

/* "(?imx-imx:" or "(?imx)" behind the "(?": Oniguruma's m is PCRE2's s. */
static enum status read_flags(struct onig *o) {
    for (; o->p < o->end && *o->p != ')' && *o->p != ':'; o->p++) {
        if (!strchr("imx-", *o->p))
            return refuse(o, "this option");
        buf_addc(o->out, *o->p == 'm' ? 's' : *o->p);
    }
    return ST_OK;
}

static enum status read_open(struct onig *o) {
    size_t at = o->out->len;
    const char *q = o->p + 1;
    buf_addc(o->out, '(');
    o->p++;
    if (q + 1 < o->end && q[0] == '?') {
        buf_addc(o->out, '?');
        o->p++;
        if (q[1] == '#') {
            const char *close = memchr(q, ')', (size_t)(o->end - q));
            if (!close)
                return refuse(o, "a comment without its end");
            buf_cut(o->out, at);
            o->p = close + 1;
            return ST_OK;
        }
        if (q[1] && strchr("imx-", q[1])) {
            CHECK(read_flags(o));
            if (o->p < o->end && *o->p == ')') { /* for the rest of the group */
                buf_addc(o->out, *o->p++);
                o->atom = SIZE_MAX;
                return ST_OK;
            }
        } else if (!strchr(":=!><", q[1])) {
            return refuse(o, "this kind of group");
        }
    } else if (q < o->end && q[0] == '*') {
        return refuse(o, "a verb");
    }
    if (o->depth == MAX_DEPTH)
        return refuse(o, "a group nested this deep");
    o->group[o->depth++] = at;
    o->atom = SIZE_MAX;
    return ST_OK;
}

/* {n}, {n,}, {,m}, {n,m} at o->p; false: the brace is a character. */
static bool read_interval(struct onig *o, char text[32]) {
    const char *s = o->p + 1;
    unsigned long low = 0, high = 0;
    int n_low = 0, n_high = 0;
    bool comma = false;
    for (; s < o->end && isdigit((unsigned char)*s) && n_low < 6; s++, n_low++)
        low = low * 10 + (unsigned long)(*s - '0');
    if (s < o->end && *s == ',') {
        comma = true;
        for (s++; s < o->end && isdigit((unsigned char)*s) && n_high < 6; s++, n_high++)
            high = high * 10 + (unsigned long)(*s - '0');
    }
    if (s >= o->end || *s != '}' || n_low + n_high == 0)
        return false;
    if (!comma)
        snprintf(text, 32, "{%lu}", low);
    else if (n_high)
        snprintf(text, 32, "{%lu,%lu}", low, high);
    else
        snprintf(text, 32, "{%lu,}", low);
    o->p = s + 1;
    return true;
}

/* The atom becomes a group of its own, so that what follows repeats all of it. */
static void wrap_atom(struct onig *o) {
    struct buf tail = {0};
    buf_adds(&tail, o->out->p + o->atom);
    buf_cut(o->out, o->atom);
    buf_addf(o->out, "(?:%s)", buf_str(&tail));
    buf_release(&tail);
}

static enum status read_brace(struct onig *o) {
    char text[32];
    if (o->atom == SIZE_MAX || !read_interval(o, text)) {
        o->atom = o->out->len;
        buf_adds(o->out, "\\{");
        o->p++;
        return ST_OK;
    }
    buf_adds(o->out, text);
    bool fixed = !strchr(text, ',');
    if (o->p < o->end && (*o->p == '+' || (*o->p == '?' && fixed)))
        wrap_atom(o);
    else if (o->p < o->end && *o->p == '?')
        buf_addc(o->out, *o->p++);
    return ST_OK;
}

enum status regex_from_onig(const char *pattern, size_t len, struct buf *out, struct err *err) {
    struct onig o = {.p = pattern, .start = pattern, .end = pattern + len, .out = out};
    o.atom = SIZE_MAX;
    o.err = err;
    while (o.p < o.end) {
        size_t here = out->len;
        switch (*o.p) {
        case '\\':
            CHECK(read_escape(&o));
            break;
        case '[':
            o.atom = here;
            CHECK(read_class(&o, out, 0));
            break;
        case '(':
            CHECK(read_open(&o));
            break;
        case ')':
            o.atom = o.depth > 0 ? o.group[--o.depth] : SIZE_MAX;
            buf_addc(out, *o.p++);
            break;
        case '{':
            CHECK(read_brace(&o));
            break;
        case '*':
        case '+':
        case '?': /* with the lazy or possessive sign behind it */
            buf_addc(out, *o.p++);
            if (o.p < o.end && (*o.p == '?' || *o.p == '+'))
                buf_addc(out, *o.p++);
            break;
        case '|':
            o.atom = SIZE_MAX;
            buf_addc(out, *o.p++);
            break;
        default: /* a character with all of its bytes */
            o.atom = here;
            do
                buf_addc(out, *o.p++);
            while (o.p < o.end && ((unsigned char)*o.p & 0xc0) == 0x80);
        }
    }
    return ST_OK;
}
