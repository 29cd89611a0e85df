/*
 * jinja_ast.h - from template text to tokens to a tree.
 *
 * The lexer follows jinja2 with trim_blocks and lstrip_blocks on (as transformers sets them);
 * the parser follows its grammar, so `a is b c`, `-x|abs` and `x if y` mean what they mean
 * there. Names are interned: two nodes that name the same thing hold the same pointer.
 * Prefixes: jl_ lexer, jp_ parser.
 */
#ifndef LLMCHAT_ENGINE_TEXT_JINJA_AST_H
#define LLMCHAT_ENGINE_TEXT_JINJA_AST_H

#include "engine/text/jinja_value.h"

enum jtok {
    JT_EOF,
    JT_DATA,
    JT_BLOCK_BEGIN,
    JT_BLOCK_END,
    JT_VAR_BEGIN,
    JT_VAR_END,
    JT_NAME,
    JT_STRING,
    JT_INT,
    JT_FLOAT,
    JT_ADD,
    JT_SUB,
    JT_MUL,
    JT_DIV,
    JT_FLOORDIV,
    JT_MOD,
    JT_POW,
    JT_TILDE,
    JT_EQ,
    JT_NE,
    JT_GT,
    JT_GE,
    JT_LT,
    JT_LE,
    JT_ASSIGN,
    JT_DOT,
    JT_COLON,
    JT_PIPE,
    JT_COMMA,
    JT_SEMICOLON,
    JT_LPAREN,
    JT_RPAREN,
    JT_LBRACKET,
    JT_RBRACKET,
    JT_LBRACE,
    JT_RBRACE,
};

struct jtoken {
    enum jtok type;
    int line;
    struct jv v;             /* literals and data */
    const struct jstr *name; /* JT_NAME */
};

/* All tokens of a template, ended by JT_EOF. */
struct jtoken *jl_lex(struct jx *x, const char *src, size_t len);
const char *jl_name(enum jtok t); /* for messages */

enum jop {
    /* expressions */
    JN_CONST,
    JN_NAME,  /* name */
    JN_TUPLE, /* kids */
    JN_LIST,
    JN_DICT, /* kids: key, value, key, value … */
    JN_COND, /* a if b else c (c may be NULL) */
    JN_OR,
    JN_AND,
    JN_NOT,
    JN_COMPARE, /* kids: first, then one for each operator in tok[] */
    JN_CONCAT,  /* kids */
    JN_BINARY,  /* a tok[0] b */
    JN_NEG,
    JN_POS,
    JN_ATTR,   /* a.name */
    JN_ITEM,   /* a[b] */
    JN_SLICE,  /* kids: of, start, stop, step; the last three may be NULL */
    JN_CALL,   /* a(args) */
    JN_FILTER, /* a|name(args); a NULL: the text of the block */
    JN_TEST,   /* a is name(args) */
    JN_NSREF,  /* name.attr, as a target only */
    /* statements */
    JN_DATA,         /* v */
    JN_PRINT,        /* kids */
    JN_IF,           /* a, body, orelse */
    JN_FOR,          /* a target, b what, c filter, body, orelse, flag recursive */
    JN_SET,          /* a target, b value */
    JN_SET_BLOCK,    /* a target, b filter or NULL, body */
    JN_WITH,         /* kids: target, value, target, value …; body */
    JN_MACRO,        /* name, params, body */
    JN_CALL_BLOCK,   /* a call, params, body */
    JN_FILTER_BLOCK, /* b filter, body */
    JN_SCOPE,        /* body in a scope of its own */
    JN_BREAK,
    JN_CONTINUE,
};

struct jbody {
    struct jn **v;
    size_t n, cap;
};

struct jcallargs {
    struct jn **pos;
    size_t n_pos;
    const struct jstr **kw_name;
    struct jn **kw;
    size_t n_kw;
    struct jn *star, *starstar; /* NULL: none */
};

struct jparam {
    const struct jstr *name;
    struct jn *dflt; /* NULL: none */
};

struct jn {
    enum jop op;
    int line;
    bool flag;
    struct jn *a, *b, *c;
    struct jbody kids;
    enum jtok *tok; /* JN_COMPARE: [kids.n - 1]; JT_NAME there is `in`, JT_SUB `not in` */
    struct jv v;
    const struct jstr *name, *attr;
    struct jcallargs *args;
    struct jbody body, orelse;
    struct jparam *param; /* [n_param] */
    size_t n_param;
    bool uses_caller, uses_varargs, uses_kwargs; /* macros: the body names these */
};

/* The statements of a template. */
struct jbody jp_parse(struct jx *x, struct jtoken *tokens);

#endif
