/*
 * ytree.h - a small YAML file as a tree of nodes with their lines; inside chat/ only.
 *
 * Scalars, lists and maps with scalar keys. What a configuration never needs is refused by file
 * and line: anchors, aliases, tags, several documents, a key twice in one map. Size, depth and
 * number of nodes are bounded.
 */
#ifndef LLMCHAT_CHAT_YTREE_H
#define LLMCHAT_CHAT_YTREE_H

#include "base/err.h"
#include "base/mem.h"
#include <stdbool.h>

enum ynode_type { Y_SCALAR, Y_LIST, Y_MAP };
struct ynode {
    enum ynode_type type;
    int line;
    char *text; /* scalar; valid UTF-8 without NUL */
    bool plain; /* a scalar without quotes */
    char *key;  /* inside a map */
    int key_line;
    struct ynode *child; /* [n] */
    size_t n, cap;
};
/* path is only named in messages ("FILE:LINE: …"). An empty document is an empty map. */
enum status ytree_parse(const char *text, size_t len, const char *path, struct ynode **out,
                        struct err *err);
void ytree_free(struct ynode *root);

/* Readers that name file, line, key and what was wanted. */
enum status ytree_text(const struct ynode *v, const char *path, char **out, struct err *err);
enum status ytree_bool(const struct ynode *v, const char *path, bool *out, struct err *err);
enum status ytree_int(const struct ynode *v, const char *path, int min, int max, int *out,
                      struct err *err);
/* One of n words; *out its index. */
enum status ytree_word(const struct ynode *v, const char *path, const char *const *words, int n,
                       int *out, struct err *err);
/* "FILE:LINE: unknown key …; did you mean …?" with the nearest of n known ones. */
enum status ytree_unknown(const struct ynode *v, const char *path, const char *const *known,
                          int n, struct err *err);
struct settings;
/* A map of sampling settings. */
enum status ytree_settings(const struct ynode *map, const char *path, struct settings *s,
                           struct err *err);

#endif
