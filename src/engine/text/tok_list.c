/*
 * tok_list.c - see text.h: a growing list of tokens.
 *
 * A file of its own, without the tokenizer behind it: tests link it with an engine that is
 * made up, and so need no second one.
 */
#include "engine/text.h"
#include <stdlib.h>

void tok_list_add(struct tok_list *l, int32_t token) {
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 64;
        l->v = xreallocarray(l->v, l->cap, sizeof *l->v);
    }
    l->v[l->n++] = token;
}

void tok_list_release(struct tok_list *l) {
    free(l->v);
    *l = (struct tok_list){0};
}
