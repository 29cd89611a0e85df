/*
 * jinja_format.c - '%s of %d' % (a, b), and '{} of {:>5}'.format(a, b).
 *
 * Both end in one function that lays out a number or a string by a specification: fill,
 * alignment, sign, width, grouping, precision, type. Digits are made by the C library; widths
 * and precisions are bounded before they get there.
 */
#include "base/utf8.h"
#include "engine/text/jinja_run.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_WIDTH = 1 << 20, MAX_PRECISION = 500 };

struct spec {
    uint32_t fill;
    uint8_t fill_mask; /* of the string that the fill is from */
    char align;        /* '<' '>' '^' '=', or 0: by the kind of value */
    char sign;         /* '-', '+' or ' ', or 0: none given, as '-' */
    bool alt, zero;
    bool no_minus_zero;       /* 'z' */
    int64_t width, precision; /* -1: none */
    char group;               /* ',' or '_', or 0 */
    char type;                /* 0: none given */
};

/* v with one more digit; what is too long for any string stays so. */
static int64_t decimal(int64_t v, char c) {
    return v > INT64_MAX / 20 ? v : v * 10 + (c - '0');
}

static void check_width(struct jx *x, const struct spec *sp) {
    if (sp->width > MAX_WIDTH)
        jx_limit(x, "a width beyond %d", MAX_WIDTH);
}

static void pad(struct jx *x, struct jb *b, const struct spec *sp, const struct jstr *sign,
                struct jstr *body, char dflt) {
    char align = sp->align ? sp->align : dflt;
    int64_t n = (int64_t)(js_cps(x, body) + sign->n), gap = sp->width > n ? sp->width - n : 0;
    int64_t left = align == '>' ? gap : align == '^' ? gap / 2 : 0;
    if (align == '=')
        jb_addstr(x, b, sign);
    for (int64_t i = 0; i < (align == '=' ? gap : left); i++)
        jb_addcp(x, b, sp->fill, sp->fill_mask);
    if (align != '=')
        jb_addstr(x, b, sign);
    jb_addstr(x, b, body);
    for (int64_t i = left; align != '=' && i < gap; i++)
        jb_addcp(x, b, sp->fill, sp->fill_mask);
    jx_step(x, (size_t)gap / 8);
}

static void lay_str(struct jx *x, struct jb *b, const struct spec *sp, struct jstr *s) {
    static const struct jstr none = {.p = ""};
    if (sp->precision >= 0)
        s = jv_sub(x, s, 0, js_offset(x, s, (size_t)sp->precision)).s;
    pad(x, b, sp, &none, s, '<');
}

/* Digits before the point in groups of n from the right. Where zeros fill up to a width they
 * are grouped too, and there may be one more than the width wants, since no group is empty. */
static void grouped(struct jx *x, struct jb *b, const char *t, char sep, size_t n,
                    size_t width) {
    size_t whole = strspn(t, n == 3 ? "0123456789" : "0123456789abcdefABCDEF");
    size_t rest = strlen(t + whole), all = whole;
    while (all + rest + (all ? (all - 1) / n : 0) < width)
        all++;
    for (size_t i = 0; i < all; i++) {
        if (i && (all - i) % n == 0)
            jb_addc(x, b, sep, 0);
        jb_addc(x, b, i < all - whole ? '0' : t[i - (all - whole)], 0);
    }
    jb_adds(x, b, t + whole);
    jx_step(x, all);
}

static void lay_number(struct jx *x, struct jb *b, struct spec sp, bool minus,
                       const char *prefix, const char *digits, size_t group) {
    struct jb sign = {0}, body = {0};
    if (minus || sp.sign == '+' || sp.sign == ' ')
        jb_addc(x, &sign, minus ? '-' : sp.sign, 0);
    jb_adds(x, &sign, prefix);
    if (sp.zero && !sp.align)
        sp.align = '=';
    size_t zeros = 0;
    bool finite = !strchr("inIN", digits[0]); /* zeros before inf and nan are not grouped */
    if (finite && sp.align == '=' && sp.fill == '0' && sp.width > (int64_t)sign.n)
        zeros = (size_t)sp.width - sign.n;
    if (sp.group)
        grouped(x, &body, digits, sp.group, group, zeros);
    else
        jb_adds(x, &body, digits);
    pad(x, b, &sp, jb_value(x, &sign).s, jb_value(x, &body).s, '>');
}

/* Of a number; a string is cut where it likes. */
static void check_precision(struct jx *x, const struct spec *sp) {
    if (sp->precision > MAX_PRECISION)
        jx_limit(x, "a precision beyond %d", MAX_PRECISION);
}

static void lay_int(struct jx *x, struct jb *b, const struct spec *sp, int64_t v) {
    char digits[MAX_PRECISION + 72];
    size_t least = sp->precision > 0 ? (size_t)sp->precision : 1;
    uint64_t u = v < 0 ? -(uint64_t)v : (uint64_t)v;
    unsigned base = sp->type == 'x' || sp->type == 'X' ? 16
                    : sp->type == 'o'                  ? 8
                    : sp->type == 'b'                  ? 2
                                                       : 10;
    const char *set = sp->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    size_t at = sizeof digits;
    check_precision(x, sp);
    digits[--at] = '\0';
    for (; u || sizeof digits - 1 - at < least; u /= base)
        digits[--at] = set[u % base];
    const char *prefix = !sp->alt     ? ""
                         : base == 16 ? (sp->type == 'X' ? "0X" : "0x")
                         : base == 8  ? "0o"
                         : base == 2  ? "0b"
                                      : "";
    lay_number(x, b, *sp, v < 0, prefix, digits + at, base == 10 ? 3 : 4);
}

/* A float by a precision without a type: as 'g', but what would be a whole number of so many
 * digits has an exponent, and one that has none has a point. */
static void short_float(char *out, size_t n, const struct spec *sp, int prec, double v) {
    char *e, *end;
    prec = prec ? prec : 1;
    snprintf(out, n, "%.*e", prec - 1, v);
    e = strchr(out, 'e');
    if (e && strtol(e + 1, NULL, 10) == prec - 1) {
        for (end = e; !sp->alt && memchr(out, '.', (size_t)(e - out)) && end[-1] == '0';)
            end--;
        end -= end[-1] == '.' && !sp->alt;
        memmove(end, e, strlen(e) + 1);
        return;
    }
    snprintf(out, n, sp->alt ? "%#.*g" : "%.*g", prec, v);
    if (!strpbrk(out, ".en"))
        strcat(out, ".0");
}

/* '#': there is a point whatever follows it. */
static void need_point(char *t) {
    char *e = strpbrk(t, "eE");
    if (strpbrk(t, ".nN"))
        return;
    e = e ? e : t + strlen(t);
    memmove(e + 1, e, strlen(e) + 1);
    *e = '.';
}

static void lay_float(struct jx *x, struct jb *b, const struct spec *sp, double f) {
    char type = sp->type == '%' ? 'f' : sp->type == 'n' ? 'g' : sp->type, form[16];
    int prec = sp->precision >= 0 ? (int)sp->precision : 6;
    double v = fabs(sp->type == '%' ? f * 100 : f);
    char *out = jx_alloc(x, 1024, 1); /* at most 309 digits, the point and the precision */
    check_precision(x, sp);
    if (!type && sp->precision < 0) {
        struct jb t = {0};
        jb_addfloat(x, &t, v);
        memcpy(out, t.p, t.n);
        out[t.n] = '\0';
    } else if (!type) {
        short_float(out, 1000, sp, prec, v);
    } else {
        snprintf(form, sizeof form, "%%%s.*%c", sp->alt ? "#" : "", type);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(out, 1000, form, prec, v);
#pragma GCC diagnostic pop
    }
    if (sp->alt)
        need_point(out);
    if (sp->type == '%')
        strcat(out, "%");
    bool minus = signbit(f) && !isnan(f);
    if (sp->no_minus_zero && isfinite(f) && !out[strcspn(out, "123456789")])
        minus = false;
    lay_number(x, b, *sp, minus, "", out, 3);
}

/* Python's ascii() of what repr() gave. */
static struct jstr *ascii(struct jx *x, const struct jstr *s) {
    struct jb b = {0};
    for (size_t i = 0, used; i < s->n; i += used) {
        uint32_t cp = js_decode(s->p + i, s->n - i, &used);
        const uint8_t *m = s->m ? s->m + i : NULL;
        char t[16];
        jx_step(x, 1);
        if (cp < 0x80) {
            jb_add(x, &b, s->p + i, m, 1);
            continue;
        }
        int n = snprintf(t, sizeof t, js_escape_form(cp), cp);
        jb_add(x, &b, t, m && *m ? jx_ones(x, (size_t)n) : NULL, (size_t)n);
    }
    return jb_value(x, &b).s;
}

/* A character that a number stands for. Where the number is from can't be seen, so it counts as
 * the user's. */
static struct jstr *char_of(struct jx *x, int64_t v) {
    struct jb b = {0};
    if (v < 0 || v > 0x10FFFF)
        jx_fail(x, "%%c arg not in range(0x110000)");
    if (v >= 0xD800 && v < 0xE000)
        jx_fail(x, "the surrogate U+%04X is no character", (unsigned)v);
    jb_addcp(x, &b, (uint32_t)v, 1);
    return jb_value(x, &b).s;
}

/* ---- % ---- */

struct percent {
    struct jx *x;
    const struct jstr *f;
    size_t at, next; /* next: of the arguments */
    struct jv args;
    struct jb out;
};

static char look(const struct percent *p) {
    return p->at < p->f->n ? p->f->p[p->at] : '\0';
}

static struct jv next_arg(struct percent *p) {
    if (p->args.kind == JV_TUPLE && p->next < p->args.l->n)
        return p->args.l->v[p->next++];
    if (p->args.kind != JV_TUPLE && p->next++ == 0)
        return p->args;
    jx_fail(p->x, "not enough arguments for format string");
}

static int64_t count(struct percent *p) {
    int64_t v = 0;
    if (look(p) == '*') {
        p->at++;
        return ja_int(p->x, next_arg(p), "* in a format");
    }
    for (; look(p) >= '0' && look(p) <= '9'; p->at++)
        v = decimal(v, look(p));
    return v;
}

static struct jv named_arg(struct percent *p) {
    size_t from = ++p->at;
    int depth = 1;
    for (; p->at < p->f->n; p->at++) {
        depth += (look(p) == '(') - (look(p) == ')');
        if (!depth)
            break;
    }
    if (p->at >= p->f->n)
        jx_fail(p->x, "incomplete format key");
    if (p->args.kind != JV_DICT)
        jx_fail(p->x, "format requires a mapping");
    const struct jv *hit = jd_find(p->x, p->args.d, jv_sub(p->x, p->f, from, p->at));
    p->at++;
    if (!hit)
        jx_fail(p->x, "a key of the format string is not in the mapping");
    return *hit;
}

static void percent_number(struct percent *p, struct spec *sp, struct jv v, char c) {
    struct jx *x = p->x;
    if (v.kind == JV_UNDEF)
        jv_fail_undef(x, v);
    if (!jv_is_num(v) || (v.kind == JV_FLOAT && strchr("xXo", c)))
        jx_fail(x, "%%%c format: a number is required, not %s", c, jv_type(v));
    if (strchr("eEfFgG", c)) {
        sp->type = c;
        lay_float(x, &p->out, sp, jv_f(v));
        return;
    }
    if (v.kind == JV_FLOAT && !(fabs(v.f) < 9.2e18))
        jx_limit(x, "an integer is beyond 64 bits");
    sp->type = strchr("xXo", c) ? c : 'd';
    lay_int(x, &p->out, sp, v.kind == JV_FLOAT ? (int64_t)v.f : jv_i(v));
}

static void percent_char(struct percent *p, struct spec *sp, struct jv v) {
    sp->precision = -1; /* has no meaning here */
    if (v.kind == JV_STR && js_cps(p->x, v.s) == 1)
        lay_str(p->x, &p->out, sp, v.s);
    else if (jv_is_int(v))
        lay_str(p->x, &p->out, sp, char_of(p->x, jv_i(v)));
    else
        jx_fail(p->x, "%%c requires int or char");
}

static void conversion(struct percent *p) {
    struct spec sp = {.fill = ' ', .align = '>', .width = -1, .precision = -1};
    struct jv v = {0};
    bool left = false;
    size_t from = p->at;
    if (look(p) == '(')
        v = named_arg(p);
    for (; look(p) && strchr("-+ 0#", look(p)); p->at++) {
        left |= look(p) == '-';
        sp.zero |= look(p) == '0';
        sp.alt |= look(p) == '#';
        if (look(p) == '+' || (look(p) == ' ' && sp.sign != '+'))
            sp.sign = look(p);
    }
    sp.width = count(p);
    if (sp.width < 0) {
        left = true;
        sp.width = sp.width < -MAX_WIDTH ? INT64_MAX : -sp.width;
    }
    if (look(p) == '.') {
        p->at++;
        sp.precision = count(p);
        sp.precision = sp.precision < 0 ? 0 : sp.precision;
    }
    check_width(p->x, &sp);
    while (look(p) && strchr("hlL", look(p)))
        p->at++;
    char c = look(p);
    if (!c)
        jx_fail(p->x, "incomplete format");
    p->at++;
    if (c == '%' && p->at == from + 1) { /* nothing may stand between the two */
        jb_addc(p->x, &p->out, '%', p->f->m ? p->f->m[p->at - 1] : 0);
        return;
    }
    if (!strchr("diouxXeEfFgGcrsa", c))
        jx_fail(p->x, "unsupported format character '%c'", c >= ' ' && c < 127 ? c : '?');
    if (v.kind == JV_MISSING)
        v = next_arg(p);
    sp.zero = sp.zero && !left && !strchr("rsac", c);
    sp.align = left ? '<' : sp.zero ? '=' : '>';
    sp.fill = sp.zero ? '0' : ' ';
    if (c == 's') {
        lay_str(p->x, &p->out, &sp, jv_text(p->x, v));
    } else if (c == 'r' || c == 'a') {
        struct jb b = {0};
        jv_repr(p->x, &b, v);
        struct jstr *s = jb_value(p->x, &b).s;
        lay_str(p->x, &p->out, &sp, c == 'a' ? ascii(p->x, s) : s);
    } else if (c == 'c') {
        percent_char(p, &sp, v);
    } else {
        percent_number(p, &sp, v, c);
    }
}

struct jv js_percent(struct jx *x, struct jstr *fmt, struct jv args) {
    struct percent p = {.x = x, .f = fmt, .args = args};
    while (p.at < fmt->n) {
        size_t from = p.at;
        const char *hit = memchr(fmt->p + from, '%', fmt->n - from);
        p.at = hit ? (size_t)(hit - fmt->p) : fmt->n;
        jb_add(x, &p.out, fmt->p + from, fmt->m ? fmt->m + from : NULL, p.at - from);
        if (p.at++ < fmt->n)
            conversion(&p);
        jx_step(x, 1);
    }
    bool subscripted = args.kind == JV_DICT || args.kind == JV_LIST || args.kind == JV_RANGE ||
                       args.kind == JV_UNDEF; /* Python lets these be ignored */
    bool left_over = args.kind == JV_TUPLE ? p.next < args.l->n : p.next == 0 && !subscripted;
    if (left_over)
        jx_fail(x, "not all arguments converted during string formatting");
    struct jv v = jb_value(x, &p.out);
    v.s->safe = fmt->safe;
    return v;
}

/* ---- str.format ---- */

struct braces {
    struct jx *x;
    const struct jargs *a;
    int64_t next; /* -1: fields are numbered by hand */
};

static struct spec parse_spec(struct jx *x, const struct jstr *s) {
    struct spec sp = {.fill = ' ', .width = -1, .precision = -1};
    size_t i = 0, used = 0;
    bool filled = false;
    if (s->n) {
        uint32_t cp = js_decode(s->p, s->n, &used);
        if (used < s->n && strchr("<>=^", s->p[used]) && s->p[used]) {
            filled = true;
            sp.fill = cp;
            sp.fill_mask = s->m ? s->m[0] : 0;
            sp.align = s->p[used];
            i = used + 1;
        } else if (strchr("<>=^", s->p[0]) && s->p[0]) {
            sp.align = s->p[0];
            i = 1;
        }
    }
    if (i < s->n && (s->p[i] == '+' || s->p[i] == '-' || s->p[i] == ' '))
        sp.sign = s->p[i++];
    if (i < s->n && s->p[i] == 'z')
        sp.no_minus_zero = s->p[i++];
    if (i < s->n && s->p[i] == '#')
        sp.alt = s->p[i++];
    if (i < s->n && s->p[i] == '0')
        sp.zero = s->p[i++];
    if (sp.zero && !filled)
        sp.fill = '0';
    for (; i < s->n && s->p[i] >= '0' && s->p[i] <= '9'; i++)
        sp.width = decimal(sp.width < 0 ? 0 : sp.width, s->p[i]);
    if (i < s->n && (s->p[i] == ',' || s->p[i] == '_'))
        sp.group = s->p[i++];
    if (i < s->n && s->p[i] == '.') {
        size_t from = ++i;
        sp.precision = 0;
        for (; i < s->n && s->p[i] >= '0' && s->p[i] <= '9'; i++)
            sp.precision = decimal(sp.precision, s->p[i]);
        if (i == from)
            jx_fail(x, "Format specifier missing precision");
    }
    if (i < s->n)
        sp.type = s->p[i++];
    if (i < s->n)
        jx_fail(x, "Invalid format specifier");
    check_width(x, &sp);
    return sp;
}

static void lay_value(struct jx *x, struct jb *b, struct jv v, const struct jstr *spec) {
    if (!spec->n) {
        jb_addstr(x, b, jv_text(x, v));
        return;
    }
    struct spec sp = parse_spec(x, spec);
    const char *types = v.kind == JV_STR     ? "s"
                        : v.kind == JV_FLOAT ? "eEfFgGn%"
                        : jv_is_int(v)       ? "bdoxXnceEfFgG%"
                                             : NULL;
    if (!types)
        jx_fail(x, "unsupported format string passed to %s.__format__", jv_type(v));
    if (sp.type && !strchr(types, sp.type))
        jx_fail(x, "Unknown format code '%c' for object of type '%s'",
                sp.type > 32 && sp.type < 127 ? sp.type : '?', jv_type(v));
    if (sp.group && sp.type && strchr(sp.group == ',' ? "ncsboxX" : "ncs", sp.type))
        jx_fail(x, "Cannot specify '%c' with '%c'.", sp.group, sp.type);
    if (v.kind == JV_STR) {
        if (sp.align == '=' || sp.sign || sp.group || sp.alt || sp.no_minus_zero)
            jx_fail(x, "this format specifier is not allowed for strings");
        lay_str(x, b, &sp, v.s);
    } else if (v.kind == JV_FLOAT || (sp.type && strchr("eEfFgG%", sp.type))) {
        lay_float(x, b, &sp, jv_f(v));
    } else if (sp.no_minus_zero) {
        jx_fail(x, "'z' is not allowed in an integer format specifier");
    } else if (sp.type == 'c') {
        if (sp.sign || sp.alt || sp.precision >= 0)
            jx_fail(x, "only a width is allowed with the format specifier 'c'");
        sp.align = sp.align ? sp.align : '>'; /* as a number */
        lay_str(x, b, &sp, char_of(x, jv_i(v)));
    } else {
        if (sp.precision >= 0)
            jx_fail(x, "Precision not allowed in integer format specifier");
        lay_int(x, b, &sp, jv_i(v));
    }
}

static struct jv positional(struct braces *f, int64_t i) {
    if (i < 0 || (size_t)i >= f->a->n)
        jx_fail(f->x, "Replacement index %lld out of range for positional args tuple",
                (long long)i);
    return f->a->v[i];
}

static bool number_of(const char *p, size_t n, int64_t *out) {
    int64_t v = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9' || v > INT32_MAX)
            return false;
        v = v * 10 + (p[i] - '0');
    }
    *out = v;
    return n > 0;
}

/* The value that a field's name stands for: first, then .attribute and [item]. */
static struct jv field(struct braces *f, const struct jstr *s, size_t from, size_t to) {
    struct jx *x = f->x;
    size_t i = from;
    int64_t num;
    struct jv v = {0};
    while (i < to && s->p[i] != '.' && s->p[i] != '[')
        i++;
    if (i == from || number_of(s->p + from, i - from, &num)) {
        bool automatic = i == from;
        if (automatic ? f->next < 0 : f->next > 0)
            jx_fail(x, "cannot mix automatic and manual field numbering");
        v = positional(f, automatic ? f->next++ : num);
        f->next = automatic ? f->next : -1;
    } else {
        const struct jstr *name = jx_intern(x, s->p + from, i - from);
        for (size_t k = 0; k < f->a->n_kw; k++)
            if (f->a->kw[k].name == name)
                v = f->a->kw[k].v;
        if (v.kind == JV_MISSING)
            jx_fail(x, "format(): no argument is called '%.*s'",
                    (int)(name->n < 60 ? name->n : 60), name->p);
    }
    while (i < to) {
        bool item = s->p[i] == '[';
        size_t a = ++i;
        while (i < to && (item ? s->p[i] != ']' : s->p[i] != '.' && s->p[i] != '['))
            i++;
        if (i == a || (item && i == to))
            jx_fail(x, "format(): an empty attribute or a missing ']'");
        if (!item)
            v = jo_attr(x, v, jx_intern(x, s->p + a, i - a));
        else
            v = jo_item(x, v,
                        number_of(s->p + a, i - a, &num) ? jv_int(num) : jv_sub(x, s, a, i));
        i += item;
    }
    return v;
}

static struct jv expand(struct braces *f, struct jstr *s, int depth);

static size_t replacement(struct braces *f, struct jb *b, struct jstr *s, size_t at,
                          int depth) {
    size_t name = at, end;
    int open = 0;
    for (; at < s->n && s->p[at] != '}' && s->p[at] != '!' && s->p[at] != ':'; at++)
        if (s->p[at] == '{')
            jx_fail(f->x, "unexpected '{' in field name");
    struct jv v = field(f, s, name, at);
    if (at + 1 < s->n && s->p[at] == '!') {
        struct jb r = {0};
        char c = s->p[at + 1];
        if (c == 'r' || c == 'a')
            jv_repr(f->x, &r, v);
        else if (c == 's')
            jv_print(f->x, &r, v);
        else
            jx_fail(f->x, "Unknown conversion specifier");
        v = jb_value(f->x, &r);
        if (c == 'a')
            v.s = ascii(f->x, v.s);
        at += 2;
    }
    size_t spec = at + (at < s->n && s->p[at] == ':');
    for (end = spec; end < s->n && (s->p[end] != '}' || open); end++)
        open += (s->p[end] == '{') - (s->p[end] == '}');
    if (end >= s->n || (spec == at && end != at))
        jx_fail(f->x, "expected '}' before end of string");
    lay_value(f->x, b, v, expand(f, jv_sub(f->x, s, spec, end).s, depth + 1).s);
    return end + 1;
}

static struct jv expand(struct braces *f, struct jstr *s, int depth) {
    struct jb b = {0};
    if (depth > 2)
        jx_fail(f->x, "Max string recursion exceeded");
    for (size_t i = 0; i < s->n;) {
        char c = s->p[i];
        jx_step(f->x, 1);
        if ((c == '{' || c == '}') && i + 1 < s->n && s->p[i + 1] == c && depth == 0)
            i++;
        else if (c == '{') {
            i = replacement(f, &b, s, i + 1, depth);
            continue;
        } else if (c == '}')
            jx_fail(f->x, "Single '}' encountered in format string");
        jb_addc(f->x, &b, c, s->m ? s->m[i] : 0);
        i++;
    }
    return jb_value(f->x, &b);
}

struct jv js_format(struct jx *x, struct jstr *fmt, const struct jargs *a) {
    struct braces f = {x, a, 0};
    return expand(&f, fmt, 0);
}
