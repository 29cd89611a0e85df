/*
 * modelfile.c - see modelfile.h.
 *
 * One pass over the text: a word, then its value. Ollama's own templates are written in Go's
 * language and not in Jinja; such a one is refused rather than shown to the model as text, and
 * so are instructions that would change the weights or the history.
 */
#include "chat/modelfile.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/utf8.h"
#include "chat/settings.h"
#include "engine/text.h"

#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { MAX_BYTES = 4 << 20 };

struct reader {
    const char *path;
    const char *p, *end;
    int line;
    struct modelfile *out;
    json_t *settings; /* PARAMETER lines, checked */
};

static enum status wrong(const struct reader *r, enum status code, const char *what,
                         const char *word, struct err *err) {
    return err_set(err, code, "%s:%d: %s%.*s", r->path, r->line, what, utf8_cut(word, 60),
                   word);
}

static void skip_blanks(struct reader *r) {
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t'))
        r->p++;
}

/* To the next line that says something. */
static void skip_lines(struct reader *r) {
    for (;;) {
        skip_blanks(r);
        if (r->p < r->end && *r->p == '#')
            while (r->p < r->end && *r->p != '\n')
                r->p++;
        if (r->p < r->end && *r->p == '\r')
            r->p++;
        if (r->p == r->end || *r->p != '\n')
            return;
        r->p++;
        r->line++;
    }
}

static char *take_word(struct reader *r) {
    const char *from = r->p;
    while (r->p < r->end && !isspace((unsigned char)*r->p))
        r->p++;
    char *word = xstrndup(from, (size_t)(r->p - from));
    skip_blanks(r);
    return word;
}

static bool at(const struct reader *r, const char *s) {
    size_t n = strlen(s);
    return (size_t)(r->end - r->p) >= n && memcmp(r->p, s, n) == 0;
}

/* Text up to `close`, which is skipped; lines are counted. */
static enum status take_quoted(struct reader *r, const char *close, char **out,
                               struct err *err) {
    int first = r->line;
    const char *from = r->p += strlen(close);
    for (; r->p < r->end; r->p++) {
        if (at(r, close)) {
            *out = xstrndup(from, (size_t)(r->p - from));
            r->p += strlen(close);
            return ST_OK;
        }
        r->line += *r->p == '\n';
    }
    r->line = first;
    return wrong(r, ST_USAGE, "no closing ", close, err);
}

static enum status take_value(struct reader *r, char **out, struct err *err) {
    if (at(r, "\"\"\""))
        CHECK(take_quoted(r, "\"\"\"", out, err));
    else if (at(r, "\""))
        CHECK(take_quoted(r, "\"", out, err));
    else {
        const char *from = r->p;
        while (r->p < r->end && *r->p != '\n')
            r->p++;
        const char *to = r->p;
        while (to > from && isspace((unsigned char)to[-1]))
            to--;
        *out = xstrndup(from, (size_t)(to - from));
        return ST_OK;
    }
    skip_blanks(r);
    if (r->p < r->end && *r->p != '\n' && *r->p != '\r') {
        free(*out);
        *out = NULL;
        return wrong(r, ST_USAGE, "text behind the closing quotes", "", err);
    }
    return ST_OK;
}

/* Ollama's names of our settings. */
static const struct setting_def *find_parameter(const char *name) {
    static const char *const others[][2] = {{"num_ctx", "ctx"}, {"num_predict", "max_tokens"}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcasecmp(name, others[i][0]) == 0)
            return setting_find(others[i][1]);
    return setting_find(name);
}

static enum status parameter(struct reader *r, struct err *err) {
    char *name = take_word(r), *value = NULL;
    const struct setting_def *d = find_parameter(name);
    struct settings probe;
    enum status st;
    settings_init(&probe);
    if (!*name)
        TRY(wrong(r, ST_USAGE, "PARAMETER wants a name and a value", "", err));
    if (!d)
        TRY(wrong(r, ST_UNSUPPORTED, "no such parameter: ", name, err));
    TRY(take_value(r, &value, err));
    if (setting_set(&probe, d, value, err) != ST_OK)
        TRY(err_prefix(err, "%s:%d", r->path, r->line));
    if (d->type == SETTING_LIST) {
        json_t *list = json_object_get(r->settings, d->name);
        if (!list)
            json_object_set_new(r->settings, d->name, list = json_array());
        json_array_append_new(list, json_string(value));
    } else if (d->type == SETTING_REAL) {
        json_object_set_new(r->settings, d->name, json_real(setting_number(&probe, d)));
    } else if (d->type == SETTING_WORD) {
        json_object_set_new(r->settings, d->name, json_string(value));
    } else {
        json_object_set_new(r->settings, d->name, json_integer(strtoll(value, NULL, 10)));
    }
out:
    settings_release(&probe);
    free(value);
    free(name);
    return st;
}

/* Go's templates begin an action with a dot, a keyword of theirs, or a variable with a dollar.
 */
static bool is_go_template(const char *t) {
    static const char *const marks[] = {".", "$", "if ", "range ", "end", "else", "block "};
    for (; (t = strstr(t, "{{")); t += 2) {
        const char *p = t + 2;
        p += *p == '-';
        p += strspn(p, " \t\n");
        for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
            if (strncmp(p, marks[i], strlen(marks[i])) == 0)
                return true;
    }
    return false;
}

static enum status text_value(struct reader *r, const char *word, char **field,
                              struct err *err) {
    if (*field && field != &r->out->license)
        return wrong(r, ST_USAGE, "given twice: ", word, err);
    char *value;
    CHECK(take_value(r, &value, err));
    if (*field) { /* licences add up */
        char *both = xasprintf("%s\n\n%s", *field, value);
        free(value);
        value = both;
    }
    free(*field);
    *field = value;
    return ST_OK;
}

static enum status instruction(struct reader *r, const char *word, struct err *err) {
    struct modelfile *m = r->out;
    if (strcasecmp(word, "FROM") == 0)
        return text_value(r, word, &m->from, err);
    if (strcasecmp(word, "SYSTEM") == 0)
        return text_value(r, word, &m->system, err);
    if (strcasecmp(word, "LICENSE") == 0)
        return text_value(r, word, &m->license, err);
    if (strcasecmp(word, "PARAMETER") == 0)
        return parameter(r, err);
    if (strcasecmp(word, "TEMPLATE") == 0) {
        CHECK(text_value(r, word, &m->chat_template, err));
        if (is_go_template(m->chat_template))
            return wrong(
                r, ST_UNSUPPORTED,
                "TEMPLATE is written in Go's template language; a Jinja one is wanted, "
                "or none: models bring their own",
                "", err);
        if (text_template_check(m->chat_template, err) != ST_OK)
            return err_prefix(err, "%s: TEMPLATE", r->path);
        return ST_OK;
    }
    if (strcasecmp(word, "ADAPTER") == 0 || strcasecmp(word, "MESSAGE") == 0)
        return wrong(r, ST_UNSUPPORTED, "not supported: ", word, err);
    return wrong(r, ST_USAGE, "FROM, PARAMETER, SYSTEM, TEMPLATE or LICENSE wanted, not ", word,
                 err);
}

/* FROM is a path when a file is there, seen from the Modelfile's folder. */
static void settle_from(struct modelfile *m, const char *path) {
    char *dir = xstrdup(path), *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = 0;
    char *expanded = path_expand(m->from);
    char *there = *expanded == '/' ? xstrdup(expanded) : path_join(slash ? dir : ".", expanded);
    if (access(there, F_OK) == 0) {
        free(m->from);
        m->from = xstrdup(there);
    }
    free(there);
    free(expanded);
    free(dir);
}

enum status modelfile_parse(const char *text, size_t len, const char *path,
                            struct modelfile *out, struct err *err) {
    struct reader r = {.path = path, .p = text, .end = text + len, .line = 1, .out = out};
    enum status st = ST_OK;
    *out = (struct modelfile){0};
    r.settings = json_object();
    if (!utf8_valid(text, len) || memchr(text, 0, len))
        TRY(err_set(err, ST_FORMAT, "%s: not a text in UTF-8", path));
    for (skip_lines(&r); r.p < r.end; skip_lines(&r)) {
        char *word = take_word(&r);
        st = instruction(&r, word, err);
        free(word);
        TRY(st);
    }
    if (!out->from || !*out->from)
        TRY(err_set(err, ST_USAGE, "%s: no FROM, which says what to make the model from",
                    path));
    settle_from(out, path);
    if (json_object_size(r.settings))
        out->settings = json_dumps(r.settings, JSON_COMPACT | JSON_REAL_PRECISION(10));
out:
    json_decref(r.settings);
    if (st != ST_OK)
        modelfile_release(out);
    return st;
}

enum status modelfile_load(const char *path, struct modelfile *out, struct err *err) {
    struct buf text = {0};
    enum status st = file_read(path, MAX_BYTES, &text, err);
    if (st == ST_OK)
        st = modelfile_parse(buf_str(&text), text.len, path, out, err);
    buf_release(&text);
    return st;
}

void modelfile_release(struct modelfile *m) {
    free(m->from);
    free(m->system);
    free(m->chat_template);
    free(m->license);
    free(m->settings);
    *m = (struct modelfile){0};
}
