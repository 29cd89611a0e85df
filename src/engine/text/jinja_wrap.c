/*
 * jinja_wrap.c - filters that lay text out in lines: wordwrap and pprint.
 *
 * wordwrap is Python's textwrap, as jinja2 calls it (tabs and line ends stay, each line is
 * wrapped for itself): a line is cut into chunks, blanks and what may not be separated, and
 * chunks are put on lines as long as they fit. pprint is Python's pprint.pformat with a width
 * of 80: keys in order, and what does not fit on a line goes one item a line; long strings are
 * cut at blanks.
 *
 * Both work on code points. A line under wordwrap is held as one array of them with their byte
 * offsets; chunks are positions there, so cutting a long word costs nothing.
 */
#include "engine/text/jinja_run.h"

#define FILTER(name)                                                                           \
    static struct jv name(struct jx *x, struct jv self,                                        \
                          __attribute__((unused)) struct jv *arg,                              \
                          __attribute__((unused)) const struct jargs *raw)

enum { PPRINT_WIDTH = 80 };

/* ---- wordwrap ---- */

struct line { /* a line of text and its chunks */
    struct jx *x;
    const struct jstr *s;
    uint32_t *cp, *at; /* [n], [n + 1] code points and their byte offsets */
    size_t n;
    size_t *chunk; /* [n_chunk + 1] where chunks begin */
    size_t n_chunk;
};

static bool blank(uint32_t cp) { /* what textwrap separates at */
    return cp == ' ' || (cp >= '\t' && cp <= '\r');
}

static bool word(uint32_t cp) {
    return cp == '_' || js_alnum(cp);
}

static bool letter(const struct line *l, size_t i) {
    return i < l->n && word(l->cp[i]) && !js_decimal(l->cp[i]);
}

/* Where a dash of two or more between words ends; 0: there is none at i. */
static size_t dash(const struct line *l, size_t i) {
    uint32_t before = i ? l->cp[i - 1] : ' ';
    size_t end = i;
    if (!word(before) && (before >= 0x80 || !strchr("!\"'&.,?", (int)before)))
        return 0;
    while (end < l->n && l->cp[end] == '-')
        end++;
    jx_step(l->x, 1);
    return end - i >= 2 && end < l->n && word(l->cp[end]) ? end : 0;
}

/* A hyphen at i that a word may be broken behind: letters on both sides of it. */
static bool hyphen(const struct line *l, size_t i) {
    if (l->cp[i] != '-' || i < 2 || !letter(l, i - 1))
        return false;
    bool before = letter(l, i - 2) || (i >= 3 && l->cp[i - 2] == '-' && letter(l, i - 3));
    if (!before || !letter(l, i + 1))
        return false;
    return letter(l, i + 2) || (i + 2 < l->n && l->cp[i + 2] == '-' && letter(l, i + 3));
}

/* The end of the chunk that begins at i. */
static size_t chunk_end(const struct line *l, size_t i, bool hyphens) {
    size_t end = i;
    if (blank(l->cp[i])) {
        while (end < l->n && blank(l->cp[end]))
            end++;
        return end;
    }
    if (hyphens && (end = dash(l, i)) != 0)
        return end;
    for (end = i + 1; end < l->n && !blank(l->cp[end]); end++) {
        if (hyphens && hyphen(l, end))
            return end + 1;
        if (hyphens && l->cp[end] == '-' && l->cp[end - 1] != '-' && dash(l, end))
            return end;
    }
    return end;
}

static void cut_chunks(struct line *l, const struct jstr *s, bool hyphens) {
    struct jx *x = l->x;
    l->s = s;
    l->n = l->n_chunk = 0;
    l->cp = jx_alloc(x, s->n + 1, sizeof *l->cp);
    l->at = jx_alloc(x, s->n + 1, sizeof *l->at);
    l->chunk = jx_alloc(x, s->n + 1, sizeof *l->chunk);
    for (size_t i = 0, used; i < s->n; i += used) {
        l->at[l->n] = (uint32_t)i;
        l->cp[l->n++] = js_decode(s->p + i, s->n - i, &used);
    }
    l->at[l->n] = (uint32_t)s->n;
    for (size_t i = 0; i < l->n; i = chunk_end(l, i, hyphens))
        l->chunk[l->n_chunk++] = i;
    l->chunk[l->n_chunk] = l->n;
    jx_step(x, s->n / 2);
}

static bool all_space(const struct line *l, size_t from, size_t to) {
    for (; from < to; from++)
        if (!js_space(l->cp[from]))
            return false;
    return true;
}

struct wrap_style {
    size_t width;
    bool break_words, hyphens;
};

/* How much of the long word [from, to) goes on a line that has room for `room`. */
static size_t long_word_end(const struct line *l, size_t from, size_t to, size_t room,
                            bool hyphens) {
    size_t end = from + room, hit = 0;
    if (!hyphens || to - from <= room)
        return end < to ? end : to;
    for (size_t i = end; i > from && !hit; i--)
        hit = l->cp[i - 1] == '-' ? i : 0;
    for (size_t i = from; hit && i + 1 < hit; i++)
        if (l->cp[i] != '-')
            return hit;
    return end;
}

/* One line of the source to lines of out. A line that is being filled is the span [from, to) of
 * the source: chunks only ever go at its ends. */
static void wrap_line(const struct line *l, const struct wrap_style *w, struct jlist *out) {
    size_t k = 0, at = 0; /* next chunk, and what of it is done */
    bool first = true;
    while (k < l->n_chunk) {
        at = at > l->chunk[k] ? at : l->chunk[k];
        if (!first && all_space(l, at, l->chunk[k + 1]))
            at = l->chunk[++k];
        size_t from = at, to = at,
               last = at; /* last: where the last chunk on the line begins */
        while (k < l->n_chunk && l->chunk[k + 1] - from <= w->width) {
            last = to;
            to = at = l->chunk[++k];
        }
        if (k < l->n_chunk && l->chunk[k + 1] - at > w->width) {
            size_t room = w->width - (to - from);
            if (w->break_words) {
                last = to;
                to = at = long_word_end(l, at, l->chunk[k + 1], room, w->hyphens);
            } else if (to == from) {
                last = to;
                to = at = l->chunk[++k];
            }
        }
        if (to > last && all_space(l, last, to))
            to = last;
        if (to > from) {
            jv_push(l->x, out, jv_sub(l->x, l->s, l->at[from], l->at[to]));
            first = false;
        }
        jx_step(l->x, 1);
    }
}

FILTER(f_wordwrap) {
    struct jstr *s = ja_str(x, self, "wordwrap(): the value");
    int64_t width = arg[0].kind == JV_MISSING ? 79 : ja_int(x, arg[0], "wordwrap(): width");
    const struct jstr *sep =
        ja_given(arg[2]) ? ja_str(x, arg[2], "wordwrap(): wrapstring") : jv_cstr(x, "\n").s;
    struct wrap_style w = {
        .width = width > 0 ? (size_t)width : 0,
        .break_words = arg[1].kind == JV_MISSING || jv_truth(x, arg[1]),
        .hyphens = arg[3].kind == JV_MISSING || jv_truth(x, arg[3]),
    };
    struct line *l = jx_alloc(x, 1, sizeof *l);
    struct jv all = jv_seq(x, JV_LIST, 0);
    l->x = x;
    const struct jlist *lines = js_lines(x, s, false);
    if (lines->n && !w.width)
        jx_fail(x, "invalid width %lld (must be > 0)", (long long)width);
    for (size_t i = 0; i < lines->n; i++) {
        struct jlist *wrapped = jv_seq(x, JV_LIST, 0).l;
        cut_chunks(l, lines->v[i].s, w.hyphens);
        wrap_line(l, &w, wrapped);
        jv_push(x, all.l, js_join(x, sep, wrapped, false));
    }
    return js_join(x, sep, all.l, false);
}

/* ---- pprint ---- */

struct printer {
    struct jx *x;
    struct jb *b;
};

static size_t width_of(struct jx *x, const struct jb *b) {
    struct jstr s = {.p = b->p ? b->p : "", .n = b->n, .cps = SIZE_MAX};
    return js_cps(x, &s);
}

/* The order of keys: their own, and by the names of their types where they have none. */
static int key_order(struct jx *x, struct jv a, struct jv b) {
    bool ordered = (jv_is_num(a) && jv_is_num(b)) || (a.kind == JV_STR && b.kind == JV_STR);
    return ordered ? jv_cmp(x, a, b, "<") : strcmp(jv_type(a), jv_type(b));
}

/* d with its keys in order, and what is in it likewise: what is printed. */
static struct jv in_order(struct jx *x, struct jv v) {
    jx_enter(x);
    if (jv_is_seq(v)) {
        struct jv r = jv_seq(x, v.kind, v.l->n);
        for (size_t i = 0; i < v.l->n; i++)
            jv_push(x, r.l, in_order(x, v.l->v[i]));
        v = r;
    } else if (v.kind == JV_DICT && v.d->n) {
        struct jv items = jv_seq(x, JV_LIST, v.d->n), keys = jv_seq(x, JV_LIST, v.d->n);
        struct jv r = jv_dict(x);
        for (size_t i = 0; i < v.d->n; i++) {
            jv_push(x, keys.l, v.d->key[i]);
            jv_push(x, items.l, in_order(x, v.d->val[i]));
        }
        jr_sort(x, items.l->v, keys.l->v, v.d->n, false, key_order);
        for (size_t i = 0; i < v.d->n; i++)
            jd_put(x, r.d, keys.l->v[i], items.l->v[i]);
        v = r;
    }
    jx_leave(x);
    return v;
}

static void new_line(struct printer *p, size_t indent) {
    jb_addc(p->x, p->b, '\n', 0);
    jb_fill(p->x, p->b, ' ', 0, indent);
}

static size_t repr_width(struct jx *x, struct jv v) {
    struct jb r = {0};
    jv_repr(x, &r, v);
    return width_of(x, &r);
}

static void push_repr(struct jx *x, struct jlist *out, struct jv v) {
    struct jb r = {0};
    jv_repr(x, &r, v);
    jv_push(x, out, jb_value(x, &r));
}

/* The end of the run of non-blanks and then blanks that begins at byte i. */
static size_t part_end(const struct jstr *s, size_t i) {
    size_t used;
    bool in_blanks = false;
    while (i < s->n) {
        bool sp = js_space(js_decode(s->p + i, s->n - i, &used));
        if (in_blanks && !sp)
            break;
        in_blanks = sp;
        i += used;
    }
    return i;
}

/* A line of a string in pieces that fit. end: how much less room the very last piece has. */
static void string_parts(struct jx *x, const struct jstr *line, int64_t max, int64_t end,
                         struct jlist *out) {
    size_t from = 0, to = 0;
    while (to < line->n) {
        size_t next = part_end(line, to);
        int64_t room = next == line->n ? max - end : max;
        if ((int64_t)repr_width(x, jv_sub(x, line, from, next)) > room && to > from) {
            push_repr(x, out, jv_sub(x, line, from, to));
            from = to;
        }
        to = next;
    }
    if (to > from)
        push_repr(x, out, jv_sub(x, line, from, to));
}

/* A string that does not fit. Alone it stands in brackets. */
static void print_string(struct printer *p, struct jv v, int64_t indent, int64_t allowance,
                         bool alone) {
    struct jx *x = p->x;
    struct jlist *chunks = jv_seq(x, JV_LIST, 0).l;
    const struct jlist *lines = js_lines(x, v.s, true);
    indent += alone;
    allowance += alone;
    int64_t max = PPRINT_WIDTH - indent;
    for (size_t i = 0; i < lines->n; i++) {
        int64_t end = i + 1 == lines->n ? allowance : 0;
        struct jv line = jv_sub(x, lines->v[i].s, 0, lines->v[i].s->n);
        line.s->safe = false;
        if ((int64_t)repr_width(x, line) <= max - end)
            push_repr(x, chunks, line);
        else
            string_parts(x, line.s, max, end, chunks);
    }
    bool brackets = alone && chunks->n > 1;
    jb_adds(x, p->b, brackets ? "(" : "");
    for (size_t i = 0; i < chunks->n; i++) {
        if (i)
            new_line(p, (size_t)indent);
        jb_addstr(x, p->b, chunks->v[i].s);
    }
    jb_adds(x, p->b, brackets ? ")" : "");
}

/* v where the line is indented so far, allowance columns are needed behind it, inside `level`
 * brackets. */
static void print_value(struct printer *p, struct jv v, int64_t indent, int64_t allowance,
                        int level) {
    struct jx *x = p->x;
    struct jb rep = {0};
    jx_enter(x);
    jv_repr(x, &rep, v);
    bool fits = (int64_t)width_of(x, &rep) <= PPRINT_WIDTH - indent - allowance;
    if (fits || (v.kind != JV_DICT && v.kind != JV_STR && !jv_is_seq(v)) ||
        (v.kind == JV_STR && v.s->safe)) {
        jb_add(x, p->b, rep.p, rep.m, rep.n);
    } else if (v.kind == JV_STR) {
        print_string(p, v, indent, allowance, level == 0);
    } else if (v.kind == JV_DICT) {
        jb_adds(x, p->b, "{");
        for (size_t i = 0; i < v.d->n; i++) {
            if (i) {
                jb_adds(x, p->b, ",");
                new_line(p, (size_t)indent + 1);
            }
            jv_repr(x, p->b, v.d->key[i]);
            jb_adds(x, p->b, ": ");
            int64_t key = (int64_t)repr_width(x, v.d->key[i]);
            print_value(p, v.d->val[i], indent + 1 + key + 2,
                        i + 1 == v.d->n ? allowance + 1 : 1, level + 1);
        }
        jb_adds(x, p->b, "}");
    } else {
        bool one = v.kind == JV_TUPLE && v.l->n == 1;
        jb_adds(x, p->b, v.kind == JV_LIST ? "[" : "(");
        for (size_t i = 0; i < v.l->n; i++) {
            if (i) {
                jb_adds(x, p->b, ",");
                new_line(p, (size_t)indent + 1);
            }
            print_value(p, v.l->v[i], indent + 1, i + 1 == v.l->n ? allowance + 1 + one : 1,
                        level + 1);
        }
        jb_adds(x, p->b, v.kind == JV_LIST ? "]" : one ? ",)" : ")");
    }
    jx_leave(x);
}

FILTER(f_pprint) {
    struct jb b = {0};
    struct printer p = {x, &b};
    print_value(&p, in_order(x, self), 0, 0, 0);
    return jb_value(x, &b);
}

const struct jfn jb_filters_wrap[] = {
    {"pprint", "/", 0, f_pprint},
    {"wordwrap", "width break_long_words wrapstring break_on_hyphens", 0, f_wordwrap},
    {0}};
