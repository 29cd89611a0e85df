/*
 * ytree.c - libyaml's events to a bounded tree, and readers of its values.
 *
 * The recursion goes as deep as the text nests, at most MAX_DEPTH. libyaml bounds nothing
 * itself, but gives events one by one, so a hostile file is left as soon as it goes too far.
 * Aliases are refused, not followed: a few lines of them stand for billions of nodes.
 *
 * The nearest known key is found by Levenshtein distance, at most a third of the word's length
 * away.
 */
#include "chat/ytree.h"

#include "base/utf8.h"
#include "chat/settings.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { MAX_BYTES = 1 << 20, MAX_DEPTH = 8, MAX_NODES = 20000, MAX_KEY = 200 };

struct reader {
    yaml_parser_t parser;
    const char *path;
    int n_nodes;
    struct err *err;
};

static void node_release(struct ynode *n) {
    for (size_t i = 0; i < n->n; i++)
        node_release(&n->child[i]);
    free(n->child);
    free(n->text);
    free(n->key);
}

void ytree_free(struct ynode *root) {
    if (root)
        node_release(root);
    free(root);
}

static enum status bad(const struct reader *r, int line, const char *what) {
    return err_set(r->err, ST_FORMAT, "%s:%d: %s", r->path, line, what);
}

static enum status next(struct reader *r, yaml_event_t *e) {
    if (yaml_parser_parse(&r->parser, e))
        return ST_OK;
    const yaml_parser_t *p = &r->parser;
    size_t line = p->problem_mark.line ? p->problem_mark.line : p->context_mark.line;
    return err_set(r->err, ST_FORMAT, "%s:%zu: %s%s%s", r->path, line + 1,
                   p->problem ? p->problem : "not YAML", p->context ? " " : "",
                   p->context ? p->context : "");
}

static struct ynode *add_child(struct ynode *parent) {
    if (parent->n == parent->cap) {
        parent->cap = parent->cap ? parent->cap * 2 : 8;
        parent->child = xreallocarray(parent->child, parent->cap, sizeof *parent->child);
    }
    struct ynode *c = &parent->child[parent->n++];
    memset(c, 0, sizeof *c);
    return c;
}

static enum status read_scalar(struct reader *r, const yaml_event_t *e, char **out) {
    const char *s = (const char *)e->data.scalar.value;
    size_t len = e->data.scalar.length;
    int line = (int)e->start_mark.line + 1;
    if (e->data.scalar.anchor)
        return bad(r, line, "anchors are not allowed here");
    if (e->data.scalar.tag)
        return bad(r, line, "tags are not allowed here");
    if (memchr(s, '\0', len) || !utf8_valid(s, len))
        return bad(r, line, "a text that is not valid UTF-8");
    *out = xstrndup(s, len);
    return ST_OK;
}

static enum status read_node(struct reader *r, const yaml_event_t *e, int depth,
                             struct ynode *out);

static enum status read_items(struct reader *r, int depth, struct ynode *out) {
    for (;;) {
        yaml_event_t e;
        CHECK(next(r, &e));
        enum status st = e.type == YAML_SEQUENCE_END_EVENT
                             ? ST_OK
                             : read_node(r, &e, depth + 1, add_child(out));
        bool end = e.type == YAML_SEQUENCE_END_EVENT;
        yaml_event_delete(&e);
        if (end || st != ST_OK)
            return st;
    }
}

static enum status check_key(struct reader *r, const struct ynode *map, const struct ynode *c) {
    if (strlen(c->key) > MAX_KEY)
        return bad(r, c->key_line, "a key of more than 200 bytes");
    for (size_t i = 0; i + 1 < map->n; i++)
        if (strcmp(map->child[i].key, c->key) == 0)
            return err_set(r->err, ST_FORMAT,
                           "%s:%d: the key \"%s\" was given on line %d already", r->path,
                           c->key_line, c->key, map->child[i].key_line);
    return ST_OK;
}

static enum status read_pair(struct reader *r, const yaml_event_t *key, int depth,
                             struct ynode *out) {
    if (key->type != YAML_SCALAR_EVENT)
        return bad(r, (int)key->start_mark.line + 1, "a key must be a plain word");
    struct ynode *c = add_child(out);
    c->key_line = (int)key->start_mark.line + 1;
    CHECK(read_scalar(r, key, &c->key));
    if (out->n > 500) /* duplicates are looked for one by one */
        return bad(r, c->key_line, "more than 500 keys in one map");
    CHECK(check_key(r, out, c));
    yaml_event_t e;
    CHECK(next(r, &e));
    enum status st = read_node(r, &e, depth + 1, c);
    yaml_event_delete(&e);
    return st;
}

static enum status read_pairs(struct reader *r, int depth, struct ynode *out) {
    for (;;) {
        yaml_event_t e;
        CHECK(next(r, &e));
        bool end = e.type == YAML_MAPPING_END_EVENT;
        enum status st = end ? ST_OK : read_pair(r, &e, depth, out);
        yaml_event_delete(&e);
        if (end || st != ST_OK)
            return st;
    }
}

static enum status read_node(struct reader *r, const yaml_event_t *e, int depth,
                             struct ynode *out) {
    int line = (int)e->start_mark.line + 1;
    out->line = line;
    if (depth > MAX_DEPTH)
        return bad(r, line, "nested too deeply");
    if (++r->n_nodes > MAX_NODES)
        return bad(r, line, "too many values in one file");
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        out->type = Y_SCALAR;
        out->plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        return read_scalar(r, e, &out->text);
    case YAML_SEQUENCE_START_EVENT:
        out->type = Y_LIST;
        if (e->data.sequence_start.anchor || e->data.sequence_start.tag)
            return bad(r, line, "anchors and tags are not allowed here");
        return read_items(r, depth, out);
    case YAML_MAPPING_START_EVENT:
        out->type = Y_MAP;
        if (e->data.mapping_start.anchor || e->data.mapping_start.tag)
            return bad(r, line, "anchors and tags are not allowed here");
        return read_pairs(r, depth, out);
    case YAML_ALIAS_EVENT:
        return bad(r, line, "aliases (*name) are not allowed here; a text with * needs quotes");
    default:
        return bad(r, line, "a value is missing");
    }
}

/* Everything between the start of the stream and its end. */
static enum status read_stream(struct reader *r, struct ynode *root) {
    root->type = Y_MAP;
    root->line = 1;
    int documents = 0;
    for (;;) {
        yaml_event_t e;
        CHECK(next(r, &e));
        yaml_event_type_t type = e.type;
        enum status st = ST_OK;
        if (type == YAML_DOCUMENT_START_EVENT && ++documents > 1)
            st = bad(r, (int)e.start_mark.line + 1, "a second document; one is allowed");
        else if (type != YAML_STREAM_START_EVENT && type != YAML_STREAM_END_EVENT &&
                 type != YAML_DOCUMENT_START_EVENT && type != YAML_DOCUMENT_END_EVENT)
            st = read_node(r, &e, 1, root);
        yaml_event_delete(&e);
        if (type == YAML_STREAM_END_EVENT || st != ST_OK)
            return st;
    }
}

enum status ytree_parse(const char *text, size_t len, const char *path, struct ynode **out,
                        struct err *err) {
    struct reader r = {.path = path, .err = err};
    *out = NULL;
    if (len > MAX_BYTES)
        return err_set(err, ST_LIMIT, "%s: %zu bytes, at most %d are read", path, len,
                       MAX_BYTES);
    if (!yaml_parser_initialize(&r.parser))
        return err_set(err, ST_NOMEM, "%s: out of memory", path);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    struct ynode *root = xcalloc(1, sizeof *root);
    enum status st = read_stream(&r, root);
    /* A file of comments only may give one empty plain scalar. */
    if (st == ST_OK && root->type == Y_SCALAR && root->plain && !*root->text)
        root->type = Y_MAP;
    yaml_parser_delete(&r.parser);
    if (st == ST_OK)
        *out = root;
    else
        ytree_free(root);
    return st;
}

/* -- values -- */

static const char *found(const struct ynode *v) {
    return v->type == Y_LIST ? "a list" : v->type == Y_MAP ? "a map" : v->text;
}

static enum status wrong(const struct ynode *v, const char *path, const char *wanted,
                         struct err *err) {
    return err_set(err, ST_FORMAT, "%s:%d: %s: %s given, %s wanted", path, v->line,
                   v->key ? v->key : "the file", *found(v) ? found(v) : "nothing", wanted);
}

enum status ytree_text(const struct ynode *v, const char *path, char **out, struct err *err) {
    if (v->type != Y_SCALAR)
        return wrong(v, path, "a text", err);
    free(*out);
    *out = xstrdup(v->text);
    return ST_OK;
}

enum status ytree_bool(const struct ynode *v, const char *path, bool *out, struct err *err) {
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on"};
    for (int i = 0; v->type == Y_SCALAR && i < 6; i++)
        if (strcasecmp(v->text, words[i]) == 0) {
            *out = i % 2;
            return ST_OK;
        }
    return wrong(v, path, "true or false", err);
}

enum status ytree_int(const struct ynode *v, const char *path, int min, int max, int *out,
                      struct err *err) {
    char wanted[80], *end = NULL;
    snprintf(wanted, sizeof wanted, "a whole number from %d to %d", min, max);
    errno = 0;
    long n = v->type == Y_SCALAR ? strtol(v->text, &end, 10) : 0;
    if (!end || end == v->text || *end || errno || n < min || n > max)
        return wrong(v, path, wanted, err);
    *out = (int)n;
    return ST_OK;
}

enum status ytree_word(const struct ynode *v, const char *path, const char *const *words, int n,
                       int *out, struct err *err) {
    struct buf wanted = {0};
    for (int i = 0; i < n; i++) {
        if (v->type == Y_SCALAR && strcmp(v->text, words[i]) == 0) {
            *out = i;
            buf_release(&wanted);
            return ST_OK;
        }
        buf_addf(&wanted, "%s%s", i == 0 ? "" : i + 1 < n ? ", " : " or ", words[i]);
    }
    enum status st = wrong(v, path, buf_str(&wanted), err);
    buf_release(&wanted);
    return st;
}

static size_t distance(const char *a, const char *b) {
    enum { N = 64 };
    size_t row[N + 1], la = strlen(a), lb = strlen(b);
    if (la > N || lb > N)
        return N;
    for (size_t j = 0; j <= lb; j++)
        row[j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t corner = row[0];
        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t best = corner + (a[i - 1] != b[j - 1]);
            corner = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[lb];
}

enum status ytree_unknown(const struct ynode *v, const char *path, const char *const *known,
                          int n, struct err *err) {
    const char *nearest = NULL;
    size_t best = strlen(v->key) / 3 + 2;
    for (int i = 0; i < n; i++) {
        size_t d = distance(v->key, known[i]);
        if (d < best) {
            best = d;
            nearest = known[i];
        }
    }
    if (nearest)
        return err_set(err, ST_FORMAT, "%s:%d: unknown key \"%s\"; did you mean \"%s\"?", path,
                       v->key_line, v->key, nearest);
    struct buf all = {0};
    for (int i = 0; i < n; i++)
        buf_addf(&all, "%s%s", i ? ", " : "", known[i]);
    enum status st = err_set(err, ST_FORMAT, "%s:%d: unknown key \"%s\"; known are %s", path,
                             v->key_line, v->key, buf_str(&all));
    buf_release(&all);
    return st;
}

static enum status one_setting(const struct ynode *v, const char *path, struct settings *s,
                               struct err *err) {
    const struct setting_def *d = setting_find(v->key);
    struct err why;
    enum status st = ST_OK;
    if (!d) {
        const char *names[32];
        for (size_t i = 0; i < n_setting_defs; i++)
            names[i] = setting_defs[i].name;
        return ytree_unknown(v, path, names, (int)n_setting_defs, err);
    }
    if (d->type == SETTING_LIST)
        st = setting_set(s, d, "", &why);
    if (st == ST_OK && v->type == Y_SCALAR)
        st = setting_set(s, d, v->text, &why);
    else if (st == ST_OK && (d->type != SETTING_LIST || v->type != Y_LIST))
        return wrong(v, path,
                     d->type == SETTING_LIST   ? "a text or a list of texts"
                     : d->type == SETTING_WORD ? "a word"
                                               : "a number",
                     err);
    for (size_t i = 0; st == ST_OK && v->type == Y_LIST && i < v->n; i++) {
        if (v->child[i].type != Y_SCALAR)
            return wrong(v, path, "a list of texts", err);
        if (*v->child[i].text)
            st = setting_set(s, d, v->child[i].text, &why);
    }
    if (st != ST_OK)
        return err_set(err, ST_FORMAT, "%s:%d: %s", path, v->line, why.msg);
    return ST_OK;
}

enum status ytree_settings(const struct ynode *map, const char *path, struct settings *s,
                           struct err *err) {
    if (map->type == Y_SCALAR && !*map->text)
        return ST_OK;
    if (map->type != Y_MAP)
        return wrong(map, path, "a map of settings", err);
    for (size_t i = 0; i < map->n; i++)
        CHECK(one_setting(&map->child[i], path, s, err));
    return ST_OK;
}
