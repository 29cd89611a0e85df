/*
 * jinja_value.h - the values of a chat template, and the memory they live in.
 *
 * A render owns one arena (struct jx): every value, scope and string of a template lives there
 * and goes with it. The arena counts bytes and steps; what exceeds a limit, and every other
 * error, leaves through jx_fail(), which jumps back to jinja_render(). Nothing between the two
 * owns anything, so nothing is lost on the way. This is the one place of the program that
 * jumps: an interpreter whose every operator may fail reads better so.
 *
 * Values are Python's, as far as templates can see them. A string is UTF-8 and carries a mask
 * beside its bytes: 1 for a byte that came from a message, a tool or a variable, 0 for the
 * template's own. No mask means all 0. Strings share bytes (a slice points into its source) and
 * are never changed; only namespaces, loops, cyclers and generators change.
 *
 * Prefixes: jx_ the render, jv_ any value, js_ strings, jb_ string builders, jd_ dictionaries.
 */
#ifndef LLMCHAT_ENGINE_TEXT_JINJA_VALUE_H
#define LLMCHAT_ENGINE_TEXT_JINJA_VALUE_H

#include "base/err.h"
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum jv_kind {
    JV_MISSING, /* no argument given; never seen by a template */
    JV_UNDEF,
    JV_NONE,
    JV_BOOL,
    JV_INT,
    JV_BIG, /* an integer of the input beyond 64 bits: can be printed and compared for equality
               only */
    JV_FLOAT,
    JV_STR,
    JV_LIST,
    JV_TUPLE,
    JV_DICT,
    JV_GEN,  /* what map, select and the like give: can be walked once */
    JV_VIEW, /* dict.keys(), values(), items() */
    JV_RANGE,
    JV_NS,
    JV_FUNC,
    JV_METHOD,
    JV_MACRO,
    JV_LOOP,
    JV_CYCLER,
    JV_JOINER,
};

struct jstr {
    const char *p;    /* [n] UTF-8, not terminated */
    const uint8_t *m; /* [n] or NULL: all 0 */
    size_t n;         /* bytes */
    size_t cps;       /* code points; SIZE_MAX: not counted yet */
    bool safe;        /* went through |safe or |escape: what is joined to it gets escaped */
};

struct jv {
    uint8_t kind; /* enum jv_kind */
    union {
        bool b;
        int64_t i;
        double f;
        struct jstr *s; /* JV_STR, JV_BIG: its digits */
        struct jlist *l;
        struct jdict *d; /* JV_DICT, JV_NS */
        struct jrange *r;
        struct jundef *u;
        const struct jfn *fn;
        struct jmethod *meth;
        struct jmacro *macro;
        struct jloop *loop;
        struct jcycler *cyc;
    };
};

struct jlist {
    struct jv *v; /* [n] */
    size_t n, cap;
    size_t pos;       /* JV_GEN: what was taken already */
    const char *what; /* JV_GEN, JV_VIEW: the type's name as Python prints it */
    bool grouped;     /* a tuple of groupby: has .grouper and .list */
};

struct jdict {
    struct jv *key, *val; /* [n] in the order of insertion */
    size_t n, cap;
    uint32_t *slot; /* [n_slot] open addressing, index + 1; NULL while small */
    size_t n_slot;
};

struct jrange {
    int64_t start, stop, step; /* stop: as it was given, for printing */
    size_t n;
};

struct jundef {
    const char *hint; /* or NULL: made from the two below */
    struct jv name;   /* what was asked for */
    uint8_t of;       /* kind of the value it was asked of; JV_MISSING: a variable */
};

struct jcycler {
    struct jv *v;
    size_t n, pos;
    bool used; /* joiner */
};

/* Arguments of a call. */
struct jkw {
    const struct jstr *name; /* interned: can be compared by address, has no mask */
    struct jv v;
    struct jstr *spelling; /* of a ** argument: its name with the mask; or NULL */
};
struct jargs {
    struct jv *v; /* [n] */
    size_t n;
    struct jkw *kw; /* [n_kw] */
    size_t n_kw;
};

struct jx;
/* A built-in: a filter, a test, a method or a global. params names its arguments, separated by
 * blanks, the first `need` of which must be given; a leading '/' makes them positional only;
 * "*" takes anything and reads it from raw. */
struct jfn {
    const char *name, *params;
    int need;
    struct jv (*call)(struct jx *x, struct jv self, struct jv *arg, const struct jargs *raw);
};
struct jmethod {
    struct jv self;
    const struct jfn *fn;
};

enum { JX_MAX_ARGS = 8 };

struct jx_chunk;
struct jx {
    jmp_buf fail;
    struct err *err;
    struct jx_chunk *chunk;
    size_t mem_used, mem_max;
    uint64_t steps, steps_max;
    int depth, depth_max;
    int line;        /* of the template, for messages; 0: none */
    const char *doc; /* what `line` and messages are about: "chat template", "messages" */
    uint8_t *ones;   /* [n_ones] a mask of 1 to share */
    size_t n_ones;
    struct jstr *one_char[128]; /* interned strings of one ASCII character */
    const struct jstr **names;  /* interned names, open addressing */
    size_t n_names, cap_names;
    int64_t now_unix;
    struct jscope *globals; /* of the interpreter */
};

void jx_init(struct jx *x, struct err *err);
void jx_release(struct jx *x);
void *jx_alloc(struct jx *x, size_t n, size_t size_bytes); /* zeroed; never NULL */
void jx_step_over(struct jx *x) __attribute__((noreturn));
/* Leaves the render: "chat template: line 3: …". */
void jx_fail(struct jx *x, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), noreturn));
void jx_limit(struct jx *x, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), noreturn));
static inline void jx_step(struct jx *x, size_t n) {
    x->steps += n;
    if (x->steps > x->steps_max)
        jx_step_over(x);
}
/* Guards recursion: in pairs. */
void jx_enter(struct jx *x);
static inline void jx_leave(struct jx *x) {
    x->depth--;
}

/* Strings. */
struct jstr *js_new(struct jx *x, const char *p, const uint8_t *m, size_t n); /* borrows p, m */
struct jv jv_str(struct jx *x, const char *p, size_t n);  /* borrows p; mask 0 */
struct jv jv_cstr(struct jx *x, const char *s);           /* borrows s */
struct jv jv_keyword(struct jx *x, const struct jkw *kw); /* its name */
struct jv jv_sub(struct jx *x, const struct jstr *s, size_t from,
                 size_t to);                    /* bytes; shares */
const uint8_t *jx_ones(struct jx *x, size_t n); /* [n] of 1 */
size_t js_cps(struct jx *x, struct jstr *s);
size_t js_offset(struct jx *x, struct jstr *s, size_t cp); /* byte offset of code point cp */
bool js_eq(const struct jstr *a, const struct jstr *b);
bool js_is(const struct jstr *a, const char *s);
const struct jstr *jx_intern(struct jx *x, const char *p, size_t n);
uint32_t js_decode(const char *p, size_t n, size_t *used); /* valid UTF-8 only */
bool js_space(uint32_t cp);                                /* Python's str.isspace */
bool js_printable(uint32_t cp);                            /* its str.isprintable */
bool js_in_name(uint32_t cp, bool first);                  /* of an identifier */
/* How Python escapes a character beyond ASCII: a format for printf, which takes the character.
 */
#define js_escape_form(cp) ((cp) < 0x100 ? "\\x%02x" : (cp) < 0x10000 ? "\\u%04x" : "\\U%08x")

/* A string that grows. {0} is an empty one. */
struct jb {
    char *p;
    uint8_t *m; /* NULL until a byte of mask 1 comes */
    size_t n, cap;
};
void jb_add(struct jx *x, struct jb *b, const char *p, const uint8_t *m, size_t n);
void jb_adds(struct jx *x, struct jb *b, const char *s);
void jb_addc(struct jx *x, struct jb *b, char c, uint8_t m);
void jb_addcp(struct jx *x, struct jb *b, uint32_t cp, uint8_t m);
void jb_addstr(struct jx *x, struct jb *b, const struct jstr *s);
void jb_fill(struct jx *x, struct jb *b, char c, uint8_t m, size_t n);
struct jv jb_value(struct jx *x, struct jb *b);

/* Lists and tuples. */
struct jv jv_seq(struct jx *x, enum jv_kind kind, size_t cap);
void jv_push(struct jx *x, struct jlist *l, struct jv v);
struct jv jv_pair(struct jx *x, struct jv a, struct jv b);
struct jv jv_gen(struct jx *x, const char *what);

/* Dictionaries. */
struct jv jv_dict(struct jx *x);
void jd_put(struct jx *x, struct jdict *d, struct jv key, struct jv val);
struct jv *jd_find(struct jx *x, const struct jdict *d, struct jv key); /* NULL: not there */
struct jv *jd_finds(struct jx *x, const struct jdict *d, const char *key);

/* Small ones. */
static inline struct jv jv_none(void) {
    return (struct jv){.kind = JV_NONE};
}
static inline struct jv jv_bool(bool b) {
    return (struct jv){.kind = JV_BOOL, .b = b};
}
static inline struct jv jv_int(int64_t i) {
    return (struct jv){.kind = JV_INT, .i = i};
}
static inline struct jv jv_float(double f) {
    return (struct jv){.kind = JV_FLOAT, .f = f};
}
static inline bool jv_is_int(struct jv v) {
    return v.kind == JV_INT || v.kind == JV_BOOL;
}
static inline bool jv_is_num(struct jv v) {
    return jv_is_int(v) || v.kind == JV_FLOAT;
}
static inline int64_t jv_i(struct jv v) {
    return v.kind == JV_BOOL ? v.b : v.i;
}
static inline double jv_f(struct jv v) {
    return v.kind == JV_FLOAT ? v.f : (double)jv_i(v);
}
static inline bool jv_is_seq(struct jv v) { /* has a jlist */
    return v.kind == JV_LIST || v.kind == JV_TUPLE;
}

struct jv jv_undef(struct jx *x, struct jv name, enum jv_kind of);
struct jv jv_undef_hint(struct jx *x, const char *hint);
/* Fails with the message of an undefined value. */
void jv_fail_undef(struct jx *x, struct jv v) __attribute__((noreturn));

int64_t jv_loop_at(struct jx *x, struct jloop *l, bool length); /* its index, or its length */
const char *jv_type(struct jv v);                               /* Python's name of the type */
bool jv_truth(struct jx *x, struct jv v);
bool jv_eq(struct jx *x, struct jv a, struct jv b);
int jv_cmp(struct jx *x, struct jv a, struct jv b,
           const char *op); /* <0, 0, >0; 2: unordered (NaN) */
size_t jv_len(struct jx *x, struct jv v);
/* What iterating gives, as a list that the caller must not change; a generator is used up by
 * it. */
struct jlist *jv_items(struct jx *x, struct jv v);
bool jv_iterable(struct jv v);
bool jv_contains(struct jx *x, struct jv needle, struct jv hay);

/* Text (jinja_print.c). */
struct jstr *jv_text(struct jx *x, struct jv v); /* str() */
void jv_print(struct jx *x, struct jb *b, struct jv v);
void jv_repr(struct jx *x, struct jb *b, struct jv v);
struct json_style {
    const struct jstr *indent; /* NULL: one line */
    const struct jstr *item_sep, *key_sep;
    bool ascii, sort;
};
void jv_json(struct jx *x, struct jb *b, struct jv v, const struct json_style *st, int level);
void jb_addfloat(struct jx *x, struct jb *b, double f);

/* A JSON text as a value whose strings are all marked 1 (jinja_json.c). Fails through x. */
struct jv jv_from_json(struct jx *x, const char *text, size_t len);

#endif
