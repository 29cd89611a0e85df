/*
 * jinja_run.h - running a parsed template: scopes, loops, macros, operators, and the tables of
 * built-ins.
 *
 * A scope is a list of names and a way up. Loops (each pass), macros, call and filter blocks,
 * block sets and `with` open one; `if` does not; what is set inside is not seen outside. That
 * is why templates carry state in namespaces. Lookup goes by name at run time; jinja2's
 * compiler decides by the text, and the two agree wherever a template does not set a name in
 * one branch and read it in another scope before.
 */
#ifndef LLMCHAT_ENGINE_TEXT_JINJA_RUN_H
#define LLMCHAT_ENGINE_TEXT_JINJA_RUN_H

#include "engine/text/jinja_ast.h"

struct jscope {
    struct jscope *up;
    const struct jstr **name; /* [n] interned */
    struct jv *val;           /* [n] */
    size_t n, cap;
    bool kept; /* a macro or a loop object may still look here: not to be reused */
};
struct jscope *jr_scope(struct jx *x, struct jscope *up);
void jr_set(struct jx *x, struct jscope *sc, const struct jstr *name, struct jv v);

struct jmacro {
    const struct jn *node; /* JN_MACRO or JN_CALL_BLOCK */
    struct jscope *scope;
    const struct jstr *name; /* NULL: a caller */
};

struct jloop {
    struct jv src; /* JV_RANGE, or a list */
    size_t pos;
    const struct jn *node; /* JN_FOR; its c is the filter */
    struct jscope *scope;  /* where the loop stands */
    bool filtered;         /* the filter is still to be asked */
    struct jv after;       /* JV_MISSING: nothing was peeked */
    struct jv before, current;
    int64_t index0, length; /* length -1: not known yet */
    int64_t depth0;
    struct jv last_changed; /* JV_MISSING: changed() was not called */
};
bool jr_loop_next(struct jx *x, struct jloop *l, struct jv *out);
struct jv jr_loop_attr(struct jx *x, struct jloop *l,
                       const char *name); /* JV_MISSING: none such */
/* A recursive loop's body over other items, as text. */
struct jv jr_loop_again(struct jx *x, struct jloop *l, struct jv items, int64_t depth0);

enum jflow { JF_NEXT, JF_BREAK, JF_CONTINUE };
enum jflow jr_body(struct jx *x, struct jscope *sc, struct jb *out, const struct jbody *b);
void jr_assign(struct jx *x, struct jscope *sc, const struct jn *target, struct jv v);

/* Expressions. text: what a filter without an operand applies to (a block's text); JV_MISSING
 * elsewhere. */
struct jv jr_eval(struct jx *x, struct jscope *sc, const struct jn *n);
struct jv jr_filters(struct jx *x, struct jscope *sc, const struct jn *n, struct jv text);
struct jv jr_call(struct jx *x, struct jv f, const struct jargs *a);
struct jv jr_macro(struct jx *x, const struct jmacro *m, const struct jargs *a);
/* Binds a built-in's arguments to its parameters and calls it. */
struct jv jr_builtin(struct jx *x, const struct jfn *fn, struct jv self, const struct jargs *a);
void jr_args(struct jx *x, struct jscope *sc, const struct jcallargs *src, struct jargs *out);

/* Operators (jinja_ops.c). */
struct jv jo_binary(struct jx *x, enum jtok op, struct jv a, struct jv b);
struct jv jo_negate(struct jx *x, struct jv v, bool minus);
bool jo_compare(struct jx *x, enum jtok op, struct jv a, struct jv b);
struct jv jo_item(struct jx *x, struct jv of, struct jv key);           /* of[key] */
struct jv jo_attr(struct jx *x, struct jv of, const struct jstr *name); /* of.name */
struct jv jo_slice(struct jx *x, struct jv of, struct jv from, struct jv to, struct jv step);
/* A method or a property of a value; JV_MISSING: none such. */
struct jv jo_member(struct jx *x, struct jv of, const char *name, size_t len);

/* Strings (jinja_str.c, jinja_format.c). */
struct jv js_percent(struct jx *x, struct jstr *fmt, struct jv args);
struct jv js_format(struct jx *x, struct jstr *fmt, const struct jargs *a);
struct jv js_escape(struct jx *x, const struct jstr *s); /* HTML; the result is safe */
struct jv js_plus(struct jx *x, struct jstr *a, struct jstr *b);
struct jv js_upper(struct jx *x, const struct jstr *s);
struct jv js_lower(struct jx *x, const struct jstr *s);
struct jv js_capital(struct jx *x, const struct jstr *s); /* first up, the rest down */
struct jv js_title(struct jx *x, const struct jstr *s);   /* each word so */
struct jv js_swapcase(struct jx *x, const struct jstr *s);
struct jv js_casefold(struct jx *x, const struct jstr *s);
struct jv js_strip(struct jx *x, const struct jstr *s, const struct jstr *chars, int sides);
struct jv js_replace(struct jx *x, const struct jstr *s, const struct jstr *from,
                     const struct jstr *to, int64_t max);
struct jv js_join(struct jx *x, const struct jstr *sep, const struct jlist *l, bool any);
/* The first place of w in p[0..n), w not empty; NULL: none. */
const char *js_find(const char *p, size_t n, const struct jstr *w);
struct jlist *js_lines(struct jx *x, const struct jstr *s, bool keep);
struct jv js_center(struct jx *x, struct jstr *s, int64_t width, uint32_t fill, uint8_t mask,
                    int side); /* mask: of the fill */
struct jv js_repeat(struct jx *x, struct jstr *s, int64_t times);
enum js_case { JS_UNCASED, JS_LOWER, JS_UPPER, JS_TITLE };
enum js_case js_case_of(uint32_t cp);
bool js_is_cased(const struct jstr *s, bool upper); /* Python's isupper, islower */
bool js_alnum(uint32_t cp);
bool js_decimal(uint32_t cp);

/* What an argument must be; fails otherwise. */
struct jstr *ja_str(struct jx *x, struct jv v, const char *what);
int64_t ja_int(struct jx *x, struct jv v, const char *what);
static inline bool ja_given(struct jv v) {
    return v.kind != JV_MISSING && v.kind != JV_NONE;
}
/* A slice's or find's bounds, Python's way: negative counts from the end, all clamped to 0..n.
 */
void ja_bounds(struct jx *x, struct jv from, struct jv to, size_t n, size_t *lo, size_t *hi);

/* Sorts items by keys, both [n], stable; reverse keeps equal items in their order, as Python
 * does. order gives <0, 0, >0 (2: unordered) or fails; NULL: the order of values. */
void jr_sort(struct jx *x, struct jv *item, struct jv *key, size_t n, bool reverse,
             int (*order)(struct jx *x, struct jv a, struct jv b));

/* Tables, ended by a NULL name. A method whose call is NULL exists in Python but changes its
 * object: refused. */
extern const struct jfn jb_filters_text[], jb_filters_seq[], jb_filters_wrap[], jb_tests[],
    jb_globals[];
const struct jfn *jb_find_filter(const char *name, size_t len); /* NULL: there is none */
extern const struct jfn jb_str_methods[], jb_dict_methods[], jb_list_methods[],
    jb_tuple_methods[], jb_num_methods[], jb_loop_methods[], jb_cycler_methods[];
const struct jfn *jb_find(const struct jfn *table, const char *name, size_t len);
struct jv jb_filter(struct jx *x, const struct jstr *name, struct jv self,
                    const struct jargs *a);
bool jb_test(struct jx *x, const struct jstr *name, struct jv self, const struct jargs *a);

#endif
