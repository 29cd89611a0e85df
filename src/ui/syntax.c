/*
 * syntax.c - see syntax.h.
 *
 * One table row per family: words, comment marks, quote characters. A line is cut into tokens
 * from left to right; what reaches over the end of a line is one of the four states below. A
 * real grammar per language was rejected: it would be many times this size, and half-written
 * code (a reply that streams) breaks grammars while it hardly troubles a scanner.
 */
#include "ui/syntax.h"
#include "ui/style.h"
#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

enum { CODE, IN_COMMENT, IN_TRIPLE_SINGLE, IN_TRIPLE_DOUBLE, IN_BACKTICK };

struct syntax {
    const char *names; /* blank before and after each */
    const char *words; /* keywords, likewise */
    const char *line;  /* starts a comment to the end of the line; "" none */
    const char *open;  /* block comment; "" none */
    const char *close;
    const char *quotes;    /* quote characters */
    bool triple;           /* Python's long strings */
    bool backtick;         /* strings over lines in backticks */
    bool hash_needs_blank; /* shell: a#b is a word */
    bool fold;             /* keywords in any case */
};

static const struct syntax table[] = {
    {" c h cpp c++ cc cxx hpp objc cuda java cs csharp c# kotlin kt swift scala dart glsl zig "
     "d ",
     " alignas auto bool break case catch char class const constexpr continue default delete "
     "do double"
     " else enum explicit extern false final finally float for friend fun func goto guard if "
     "implements"
     " import in inline int interface internal is let long namespace new nil noexcept null "
     "nullptr"
     " object operator out override package private protected public register restrict return "
     "sealed"
     " short signed sizeof static static_assert string struct super switch template this throw "
     "throws"
     " true try typedef typename union unsigned using val var virtual void volatile when where "
     "while"
     " size_t uint8_t uint16_t uint32_t uint64_t int8_t int16_t int32_t int64_t NULL"
     " #include #define #if #ifdef #ifndef #else #endif #pragma #undef #elif #error ",
     "//", "/*", "*/", "\"'", false, false, false, false},
    {" js javascript jsx ts typescript tsx mjs php go golang rust rs css scss json jsonc "
     "json5 ",
     " abstract any as async await bool boolean break case catch chan class const constructor "
     "continue"
     " crate debugger declare default defer delete do echo else enum export extends extern "
     "fallthrough"
     " false finally fn for from func function go goto if impl implements import in instanceof "
     "int"
     " interface let loop map match mod module move mut namespace new nil null number package "
     "private"
     " protected pub public range readonly ref return self Self set static str string struct "
     "super"
     " switch this throw trait true try type typeof u8 u16 u32 u64 i8 i16 i32 i64 f32 f64 usize"
     " undefined unsafe use var void where while yield ",
     "//", "/*", "*/", "\"'", false, true, false, false},
    {" python py python3 pyi ",
     " False None True and as assert async await break case class continue def del elif else "
     "except"
     " finally for from global if import in is lambda match nonlocal not or pass raise return "
     "self try"
     " while with yield ",
     "#", "", "", "\"'", true, false, false, false},
    {" sh bash zsh shell console fish dockerfile makefile make ksh ",
     " alias break case cd continue declare do done echo elif else esac eval exec exit export "
     "fi for"
     " function if in local read readonly return select set shift source test then trap unset "
     "until"
     " while sudo FROM RUN COPY ADD ENV CMD ENTRYPOINT WORKDIR EXPOSE ",
     "#", "", "", "\"'", false, false, true, false},
    {" yaml yml toml ini conf perl pl ruby rb r elixir ex nim ",
     " alias and begin break case class def defmodule do elsif else elsif end ensure false for "
     "foreach"
     " function if in last module my next nil no not null off on or our package print redo "
     "require"
     " rescue return self sub super then true undef unless until use when while yes yield "
     "FALSE NULL"
     " TRUE NA ",
     "#", "", "", "\"'", false, false, true, false},
    {" sql sqlite mysql postgres postgresql psql plsql ",
     " add all alter and as asc begin between by case cast check column commit constraint "
     "create"
     " cross default delete desc distinct drop else end except exists explain foreign from "
     "full group"
     " having if in index inner insert intersect into is join key left like limit not null "
     "offset on"
     " or order outer primary references replace right rollback select set table then "
     "transaction"
     " trigger union unique update using values view when where with ",
     "--", "/*", "*/", "\"'", false, false, false, true},
    {" lua haskell hs ada vhdl elm ",
     " and break case class data deriving do else elseif end false for function if import in "
     "instance"
     " let local module newtype nil not of or repeat return then true type until where while ",
     "--", "", "", "\"", false, false, false, false},
};

/* True when the words (blank before and after each) hold w. */
static bool holds(const char *words, const char *w, size_t len, bool fold) {
    char needle[24];
    if (len == 0 || len > sizeof needle - 3)
        return false;
    needle[0] = ' ';
    for (size_t i = 0; i < len; i++)
        needle[i + 1] = fold ? (char)tolower((unsigned char)w[i]) : w[i];
    needle[len + 1] = ' ';
    needle[len + 2] = 0;
    return memchr(w, ' ', len) == NULL && strstr(words, needle) != NULL;
}

const struct syntax *syntax_find(const char *lang, size_t len) {
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (holds(table[i].names, lang, len, true))
            return &table[i];
    return NULL;
}

static bool starts(const char *p, size_t len, size_t at, const char *what) {
    size_t n = strlen(what);
    return n > 0 && len - at >= n && memcmp(p + at, what, n) == 0;
}

/* The end of what state began, searched from `at`; the state ends where its mark is found. */
static size_t until_mark(int *state, const char *mark, const char *p, size_t len, size_t at) {
    const char *hit = len > at ? memmem(p + at, len - at, mark, strlen(mark)) : NULL;
    if (!hit)
        return len;
    *state = CODE;
    return (size_t)(hit - p) + strlen(mark);
}

static size_t string_end(const char *p, size_t len, size_t at) {
    char quote = p[at++];
    while (at < len && p[at] != quote)
        at += p[at] == '\\' && at + 1 < len ? 2 : 1;
    return at < len ? at + 1 : len;
}

static bool is_word(char c) {
    return isalnum((unsigned char)c) || c == '_' || (unsigned char)c >= 0x80;
}

/* Goes on with what an earlier line (or the token before) opened. */
static size_t continued(const struct syntax *s, int *state, const char *p, size_t len,
                        size_t at, uint16_t *style) {
    static const char *const marks[] = {"", "", "'''", "\"\"\"", "`"};
    *style = *state == IN_COMMENT ? STYLE_CODE_COMMENT : STYLE_CODE_STRING;
    return until_mark(state, *state == IN_COMMENT ? s->close : marks[*state], p, len, at);
}

/* Comments and strings; 0 when none starts here. */
static size_t quoted(const struct syntax *s, int *state, const char *p, size_t len, size_t at,
                     uint16_t *style) {
    if (starts(p, len, at, s->line) &&
        !(s->hash_needs_blank && at > 0 && !isspace((unsigned char)p[at - 1]))) {
        *style = STYLE_CODE_COMMENT;
        return len;
    }
    if (starts(p, len, at, s->open)) {
        *style = STYLE_CODE_COMMENT;
        *state = IN_COMMENT;
        return until_mark(state, s->close, p, len, at + strlen(s->open));
    }
    *style = STYLE_CODE_STRING;
    if (s->triple && (starts(p, len, at, "'''") || starts(p, len, at, "\"\"\""))) {
        *state = p[at] == '"' ? IN_TRIPLE_DOUBLE : IN_TRIPLE_SINGLE;
        return until_mark(state, p[at] == '"' ? "\"\"\"" : "'''", p, len, at + 3);
    }
    if (s->backtick && p[at] == '`') {
        *state = IN_BACKTICK;
        return until_mark(state, "`", p, len, at + 1);
    }
    return p[at] && strchr(s->quotes, p[at]) ? string_end(p, len, at) : 0;
}

size_t syntax_token(const struct syntax *s, int *state, const char *line, size_t len, size_t at,
                    uint16_t *style) {
    if (*state != CODE)
        return continued(s, state, line, len, at, style);
    size_t end = quoted(s, state, line, len, at, style);
    if (end > 0)
        return end;
    *style = STYLE_CODE_BLOCK;
    end = at + 1;
    if (isdigit((unsigned char)line[at])) {
        *style = STYLE_CODE_NUMBER;
        while (end < len && (is_word(line[end]) || line[end] == '.'))
            end++;
    } else if (is_word(line[at]) || line[at] == '#') {
        while (end < len && is_word(line[end]))
            end++;
        if (holds(s->words, line + at, end - at, s->fold))
            *style = STYLE_CODE_KEYWORD;
    } else {
        while (end < len && !is_word(line[end]) && line[end] != '#' &&
               strchr(" \t()[]{},;+*&|<>=!^?:.", line[end]) && line[end])
            end++;
    }
    return end;
}
