/* jinja_parse.h - what the two halves of the parser share: jinja_parse.c (statements),
 * jinja_expr.c (expressions). */
#ifndef LLMCHAT_ENGINE_TEXT_JINJA_PARSE_H
#define LLMCHAT_ENGINE_TEXT_JINJA_PARSE_H

#include "engine/text/jinja_ast.h"

struct jparser {
    struct jx *x;
    struct jtoken *t; /* the current token; JT_EOF is never passed */
    int n_loop;       /* loops around us that break and continue may leave */
    bool saw_caller, saw_varargs, saw_kwargs;
};

void jp_fail_at(struct jparser *p, const char *want) __attribute__((noreturn));
void jp_expect(struct jparser *p, enum jtok type);
bool jp_skip(struct jparser *p, enum jtok type);
bool jp_at_name(const struct jparser *p, const char *name);
bool jp_skip_name(struct jparser *p, const char *name);
struct jn *jp_node(struct jparser *p, enum jop op);
void jp_add(struct jparser *p, struct jbody *b, struct jn *n);

/* An expression; cond: `a if b` is allowed here. */
struct jn *jp_expr(struct jparser *p, bool cond);
/* One expression, or a tuple of several without parentheses; stop: a name that ends it. */
struct jn *jp_tuple(struct jparser *p, bool cond, const char *stop, bool parens);
/* What can be assigned to: a name, a tuple of targets, with ns also name.attr. */
struct jn *jp_target(struct jparser *p, const char *stop, bool ns);
/* One filter without its '|', applied to of (NULL: the text of a block). */
struct jn *jp_filter(struct jparser *p, struct jn *of);
struct jn *jp_filters(struct jparser *p,
                      struct jn *of); /* all that follow, each with its '|' */

#endif
