/*
 * prompts.c - the prompt library: one YAML file a prompt, ours and the person's.
 *
 * Ours are read first, then the person's, which replace ours of the same name. A file that
 * can't be read becomes a line in `broken` and the others stay. Variables stand in the text as
 * {{name}}; a name in braces that is no variable stays as it is, since prompts about templates
 * are prompts too.
 */
#include "chat/prompts.h"

#include "base/path.h"
#include "chat/settings.h"
#include "chat/ytree.h"
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PROMPT_BYTES = 256 << 10, MAX_PROMPTS = 2000, MAX_VARS = 32, MAX_BRACES = 200 };

void prompt_release(struct prompt *p) {
    for (size_t i = 0; i < p->n_vars; i++) {
        free(p->vars[i].name);
        free(p->vars[i].description);
        free(p->vars[i].def);
    }
    free(p->vars);
    free(p->name);
    free(p->description);
    free(p->text);
    free(p->path);
    free(p->settings_json);
    memset(p, 0, sizeof *p);
}

void prompt_list_release(struct prompt_list *l) {
    for (size_t i = 0; i < l->n; i++)
        prompt_release(&l->v[i]);
    free(l->v);
    strlist_release(&l->broken);
    memset(l, 0, sizeof *l);
}

/* -- one file -- */

static bool word_ok(const char *s) {
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
    return n > 0 && n <= 64 && !s[n];
}

static enum status read_var(struct prompt *p, const struct ynode *map, struct err *err) {
    static const char *const keys[] = {"name", "description", "default"};
    if (map->type != Y_MAP)
        return err_set(err, ST_FORMAT,
                       "%s:%d: variables: a map with name, description and "
                       "default wanted",
                       p->path, map->line);
    if (p->n_vars == MAX_VARS)
        return err_set(err, ST_FORMAT, "%s:%d: more than %d variables", p->path, map->line,
                       MAX_VARS);
    p->vars = xreallocarray(p->vars, p->n_vars + 1, sizeof *p->vars);
    struct prompt_var *v = &p->vars[p->n_vars++];
    memset(v, 0, sizeof *v);
    for (size_t i = 0; i < map->n; i++) {
        const struct ynode *c = &map->child[i];
        char **to = strcmp(c->key, "name") == 0          ? &v->name
                    : strcmp(c->key, "description") == 0 ? &v->description
                    : strcmp(c->key, "default") == 0     ? &v->def
                                                         : NULL;
        if (!to)
            return ytree_unknown(c, p->path, keys, 3, err);
        CHECK(ytree_text(c, p->path, to, err));
    }
    v->description = v->description ? v->description : xstrdup("");
    v->def = v->def ? v->def : xstrdup("");
    if (!v->name || !word_ok(v->name))
        return err_set(err, ST_FORMAT,
                       "%s:%d: variables: a name of letters, digits, _ and - "
                       "wanted",
                       p->path, map->line);
    for (size_t i = 0; i + 1 < p->n_vars; i++)
        if (strcmp(p->vars[i].name, v->name) == 0)
            return err_set(err, ST_FORMAT, "%s:%d: the variable %s is there twice", p->path,
                           map->line, v->name);
    return ST_OK;
}

static enum status read_vars(struct prompt *p, const struct ynode *v, struct err *err) {
    if (v->type == Y_SCALAR && !*v->text)
        return ST_OK;
    if (v->type != Y_LIST)
        return err_set(err, ST_FORMAT, "%s:%d: variables: a list wanted", p->path, v->line);
    for (size_t i = 0; i < v->n; i++)
        CHECK(read_var(p, &v->child[i], err));
    return ST_OK;
}

/* Checked as settings, kept as JSON of those that were given. */
static enum status read_settings(struct prompt *p, const struct ynode *v, struct err *err) {
    struct settings s;
    settings_init(&s);
    enum status st = ytree_settings(v, p->path, &s, err);
    if (st == ST_OK && v->type == Y_MAP && v->n > 0) {
        char *all = settings_to_json(&s);
        json_t *o = json_loads(all, 0, NULL), *given = json_object();
        for (size_t i = 0; i < v->n; i++) {
            const char *name = setting_find(v->child[i].key)->name;
            json_object_set(given, name, json_object_get(o, name));
        }
        free(p->settings_json);
        p->settings_json = json_dumps(given, JSON_COMPACT | JSON_REAL_PRECISION(10));
        json_decref(o);
        json_decref(given);
        free(all);
    }
    settings_release(&s);
    return st;
}

static enum status read_prompt(struct prompt *p, const struct ynode *root, struct err *err) {
    static const char *const keys[] = {"name", "description", "text", "variables", "settings"};
    if (root->type != Y_MAP)
        return err_set(err, ST_FORMAT, "%s:%d: a map with name, description and text wanted",
                       p->path, root->line);
    for (size_t i = 0; i < root->n; i++) {
        const struct ynode *v = &root->child[i];
        if (strcmp(v->key, "name") == 0)
            CHECK(ytree_text(v, p->path, &p->name, err));
        else if (strcmp(v->key, "description") == 0)
            CHECK(ytree_text(v, p->path, &p->description, err));
        else if (strcmp(v->key, "text") == 0)
            CHECK(ytree_text(v, p->path, &p->text, err));
        else if (strcmp(v->key, "variables") == 0)
            CHECK(read_vars(p, v, err));
        else if (strcmp(v->key, "settings") == 0)
            CHECK(read_settings(p, v, err));
        else
            return ytree_unknown(v, p->path, keys, 5, err);
    }
    if (!p->name || !word_ok(p->name))
        return err_set(err, ST_FORMAT, "%s:%d: name: a word of letters, digits, _ and - wanted",
                       p->path, root->line);
    if (!p->text || !p->text[strspn(p->text, " \t\r\n")])
        return err_set(err, ST_FORMAT, "%s:%d: text: the prompt itself is missing", p->path,
                       root->line);
    for (size_t n = strlen(p->text); n > 0 && strchr(" \t\r\n", p->text[n - 1]); n--)
        p->text[n - 1] = '\0';
    p->description = p->description ? p->description : xstrdup("");
    return ST_OK;
}

enum status prompt_parse(const char *yaml, size_t len, const char *path, struct prompt *out,
                         struct err *err) {
    struct ynode *root = NULL;
    memset(out, 0, sizeof *out);
    CHECK(ytree_parse(yaml, len, path, &root, err));
    out->path = xstrdup(path);
    out->settings_json = xstrdup("");
    enum status st = read_prompt(out, root, err);
    ytree_free(root);
    if (st != ST_OK)
        prompt_release(out);
    return st;
}

/* -- the folders -- */

static void put_prompt(struct prompt_list *l, struct prompt *takes_p) {
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->v[i].name, takes_p->name) == 0) {
            prompt_release(&l->v[i]);
            l->v[i] = *takes_p;
            return;
        }
    l->v = xreallocarray(l->v, l->n + 1, sizeof *l->v);
    l->v[l->n++] = *takes_p;
}

static void read_file(struct prompt_list *l, const char *path, bool own) {
    struct buf text = {0};
    struct prompt p;
    struct err err;
    enum status st = file_read(path, MAX_PROMPT_BYTES, &text, &err);
    if (st == ST_OK)
        st = prompt_parse(buf_str(&text), text.len, path, &p, &err);
    buf_release(&text);
    if (st != ST_OK) {
        strlist_add(&l->broken, err.msg);
        return;
    }
    p.own = own;
    put_prompt(l, &p);
}

static int yaml_file(const struct dirent *d) {
    const char *end = strrchr(d->d_name, '.');
    return d->d_name[0] != '.' && end &&
           (strcmp(end, ".yaml") == 0 || strcmp(end, ".yml") == 0);
}

static void read_folder(struct prompt_list *l, const char *dir, bool own) {
    struct dirent **names;
    int n = scandir(dir, &names, yaml_file, alphasort);
    if (n < 0) {
        if (errno != ENOENT) {
            char *line = xasprintf("%s: cannot be read: %s", dir, strerror(errno));
            strlist_add(&l->broken, line);
            free(line);
        }
        return;
    }
    for (int i = 0; i < n; i++) {
        char *path = path_join(dir, names[i]->d_name);
        if (i < MAX_PROMPTS)
            read_file(l, path, own);
        free(path);
        free(names[i]);
    }
    free(names);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct prompt *)a)->name, ((const struct prompt *)b)->name);
}

enum status prompts_load(struct prompt_list *out, struct err *err) {
    char *ours = path_share("prompts"), *own = NULL, *config = NULL;
    memset(out, 0, sizeof *out);
    enum status st = path_root(PATH_CONFIG, &config, err);
    if (st == ST_OK) {
        own = path_join(config, "prompts");
        read_folder(out, ours, false);
        read_folder(out, own, true);
        if (out->n)
            qsort(out->v, out->n, sizeof *out->v, by_name);
    }
    free(own);
    free(config);
    free(ours);
    return st;
}

const struct prompt *prompt_find(const struct prompt_list *l, const char *name) {
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->v[i].name, name) == 0)
            return &l->v[i];
    return NULL;
}

/* -- filling in -- */

/* The variable that {{ name }} at s stands for; *used gets the bytes of it all. */
static int var_at(const struct prompt *p, const char *s, size_t *used) {
    const char *end = memmem(s + 2, strnlen(s + 2, MAX_BRACES), "}}", 2);
    if (!end)
        return -1;
    const char *a = s + 2, *b = end;
    while (a < b && *a == ' ')
        a++;
    while (b > a && b[-1] == ' ')
        b--;
    *used = (size_t)(end + 2 - s);
    for (size_t i = 0; i < p->n_vars; i++)
        if (strlen(p->vars[i].name) == (size_t)(b - a) &&
            memcmp(p->vars[i].name, a, (size_t)(b - a)) == 0)
            return (int)i;
    return -1;
}

char *prompt_fill(const struct prompt *p, const char *const *values) {
    struct buf out = {0};
    for (const char *s = p->text; *s;) {
        size_t used = 0;
        int i = s[0] == '{' && s[1] == '{' ? var_at(p, s, &used) : -1;
        if (i < 0) {
            buf_addc(&out, *s++);
            continue;
        }
        buf_adds(&out, values && values[i] ? values[i] : p->vars[i].def);
        s += used;
    }
    return out.p ? buf_take(&out) : xstrdup("");
}
