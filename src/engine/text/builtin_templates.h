/*
 * builtin_templates.h - chat templates for models that bring none, and the rule that chooses.
 *
 * The rule is a table that is walked from its top; the first row whose conditions all hold
 * names the template: control tokens that the vocabulary must have, an architecture, words in
 * the model's name (letters and digits alone count there, case does not). Control tokens come
 * first, since nobody adds them without training on them; names come last and only where the
 * tokens say nothing. The same table is what the man page shows.
 */
#ifndef LLMCHAT_ENGINE_TEXT_BUILTIN_TEMPLATES_H
#define LLMCHAT_ENGINE_TEXT_BUILTIN_TEMPLATES_H

#include "engine/text.h"

/* What stands around what is said, as expressions of the template language. A pair that is not
 * given is that of the user's turn, but see kept. */
struct builtin_template {
    const char *name;    /* "chatml"; NULL ends the table */
    bool writes_bos;     /* it begins with the begin token; else the model's own wish counts */
    bool trim;           /* white space around what is said goes */
    const char *head;    /* in front of everything, behind the begin token */
    const char *user[2]; /* before, after; m is the message */
    const char *answer[2]; /* of the role assistant */
    const char *system[2];
    const char *kept[2]; /* no system turn: what it said stands between these in the next turn
                            of the user's */
    const char *prompt;  /* opens the answer */
};
extern const struct builtin_template builtin_templates[];

enum { BUILTIN_MARKS = 4, BUILTIN_WORDS = 2 };

struct builtin_rule {
    const char *use;                  /* a name above; NULL ends the table */
    const char *marks[BUILTIN_MARKS]; /* control tokens */
    const char *words[BUILTIN_WORDS]; /* of the name */
    const char *arch;                 /* NULL: any */
    bool bytes;                       /* the vocabulary is one of byte-level BPE */
    bool eos;                         /* it has an end token */
};
extern const struct builtin_rule builtin_rules[];

const struct builtin_template *builtin_find(const char *name); /* NULL: there is none */
/* Appends the template in its language. */
void builtin_text(const struct builtin_template *b, struct buf *out);
/* The template for a model; arch and name as in struct vocab_data. Never NULL. */
const struct builtin_template *builtin_choose(const struct text_model *t, const char *arch,
                                              const char *name, bool bytes);

#endif
