/*
 * text.c - `llmchat tokenize` and `llmchat template`: what the model sees, for a person to look
 * at and for scripts that compare. Neither runs a model; a GGUF file without tensors is enough.
 */
#include "engine/text.h"
#include "base/path.h"
#include "base/utf8.h"
#include "cmd/cmd.h"
#include "engine/models.h"
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const struct opt tokenize_opts[] = {
    {"special", 0, OPT_FLAG, NULL, 0, "Let control tokens in the text become themselves"},
    {"bos", 0, OPT_FLAG, NULL, 0, "Begin with the model's begin token"},
    {"decode", 0, OPT_FLAG, NULL, 0,
     "Read ids, write text (control tokens too with --special)"},
    {"json", 0, OPT_FLAG, NULL, 0, "Print a JSON list"},
    {0},
};
const struct opt template_opts[] = {
    {"messages", 0, OPT_TEXT, "FILE", 0, "The messages, JSON; - is standard input"},
    {"template-file", 0, OPT_TEXT, "FILE", 0, "A template instead of the model's own"},
    {"template", 0, OPT_TEXT, "NAME", 0,
     "One of the model's own templates (default, tool_use), else a built-in one (chatml)"},
    {"tools", 0, OPT_TEXT, "FILE", 0, "A JSON list of tools"},
    {"no-generation-prompt", 0, OPT_FLAG, NULL, 0,
     "Do not open the assistant's turn at the end"},
    {"var", 0, OPT_TEXTS, "NAME=JSON", 0, "Set a further variable; may be given several times"},
    {"now", 0, OPT_TEXT, "TIME", 0,
     "What strftime_now sees: seconds since 1970, or YYYY-MM-DD[THH:MM[:SS]] local time"},
    {"json", 0, OPT_FLAG, NULL, 0, "Print {\"prompt\", \"template\", \"tokens\"}"},
    {0},
};

enum {
    MAX_VARS = 64,
    TEXT_MAX_BYTES = 1 << 30,
    JSON_MAX_BYTES = 64 << 20,
    TEMPLATE_MAX_BYTES = 4 << 20
};

/* The text model of a name from the list, or of a path. */
static enum status open_text(const char *name, struct text_model **out, struct err *err) {
    char *path; /* of a source, too: a tokenizer needs no tensors, and so no conversion */
    CHECK(models_find(name, &path, err));
    enum status st = text_open(path, out, err);
    free(path);
    return st;
}

/* Ids separated by blanks, or a JSON list of them. */
static enum status parse_ids(const struct text_model *t, const char *s, struct tok_list *out,
                             struct err *err) {
    int n_vocab = text_n_vocab(t);
    for (int n = 1;; n++) {
        s += strspn(s, " \t\r\n,[]");
        if (!*s)
            return ST_OK;
        char *end;
        errno = 0;
        long long id = strtoll(s, &end, 10);
        if (end == s || errno || (*end && !strchr(" \t\r\n,[]", *end)))
            return err_set(err, ST_FORMAT, "standard input: item %d is no token id: \"%.*s\"",
                           n, (int)strcspn(s, " \t\r\n,"), s);
        if (id < 0 || id >= n_vocab)
            return err_set(err, ST_FORMAT,
                           "standard input: token id %lld is outside the vocabulary of %d", id,
                           n_vocab);
        tok_list_add(out, (int32_t)id);
        s = end;
    }
}

static void print_ids(const struct tok_list *ids, bool json) {
    if (json)
        putchar('[');
    for (size_t i = 0; i < ids->n; i++)
        printf("%s%d", i ? (json ? "," : " ") : "", ids->v[i]);
    puts(json ? "]" : "");
}

int cmd_tokenize(struct args *a) {
    struct err err = {0};
    struct text_model *t = NULL;
    struct buf in = {0}, out = {0};
    struct tok_list ids = {0};
    enum status st;
    TRY(open_text(a->pos[0], &t, &err));
    TRY(read_input("-", TEXT_MAX_BYTES, &in, &err));
    if (arg_flag(a, "decode")) {
        if (strlen(buf_str(&in)) != in.len)
            TRY(err_set(&err, ST_FORMAT, "standard input: a NUL byte among token ids"));
        TRY(parse_ids(t, buf_str(&in), &ids, &err));
        text_decode_all(t, ids.v, ids.n, arg_flag(a, "special"), &out);
        put_text(buf_str(&out), out.len);
    } else {
        size_t good = utf8_valid_prefix(buf_str(&in), in.len);
        if (good < in.len)
            TRY(err_set(&err, ST_FORMAT, "standard input: invalid UTF-8 at byte %zu", good));
        struct encode_opts o = {.special = arg_flag(a, "special"), .bos = arg_flag(a, "bos")};
        TRY(text_encode(t, buf_str(&in), in.len, &o, &ids, &err));
        print_ids(&ids, arg_flag(a, "json"));
    }
out:
    tok_list_release(&ids);
    buf_release(&out);
    buf_release(&in);
    text_close(t);
    return st == ST_OK ? 0 : fail(&err);
}

static enum status parse_now(const char *s, int64_t *out, struct err *err) {
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (*s && !*end && !errno) {
        *out = v;
        return ST_OK;
    }
    static const char *const formats[] = {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S",
                                          "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%d"};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        struct tm tm = {.tm_isdst = -1};
        const char *rest = strptime(s, formats[i], &tm);
        if (rest && *rest == 'Z' && !rest[1]) {
            *out = (int64_t)timegm(&tm);
            return ST_OK;
        }
        if (rest && !*rest) {
            *out = (int64_t)mktime(&tm);
            return ST_OK;
        }
    }
    return err_set(err, ST_USAGE,
                   "--now %s: must be seconds since 1970 or YYYY-MM-DD[THH:MM[:SS]][Z]", s);
}

/* --var NAME=JSON, all of them as one JSON object. A value that is no JSON is a mistake, not a
 * string. */
static enum status parse_vars(const struct args *a, char **out, struct err *err) {
    const char *given[MAX_VARS + 1];
    size_t n = arg_texts(a, "var", given, MAX_VARS + 1);
    json_t *all = json_object();
    enum status st = ST_OK;
    if (n > MAX_VARS)
        st = err_set(err, ST_USAGE, "--var: at most %d may be given", MAX_VARS);
    for (size_t i = 0; i < n && st == ST_OK; i++) {
        const char *eq = strchr(given[i], '=');
        json_error_t why;
        json_t *v = eq ? json_loads(eq + 1, JSON_DECODE_ANY, &why) : NULL;
        if (!eq || eq == given[i]) {
            st = err_set(err, ST_USAGE, "--var %s: must be NAME=JSON", given[i]);
        } else if (!v) {
            st = err_set(err, ST_USAGE,
                         "--var %.*s: the value is no JSON (a string needs quotes): %s",
                         (int)(eq - given[i]), given[i], why.text);
        } else {
            char *name = xstrndup(given[i], (size_t)(eq - given[i]));
            json_object_set_new(all, name, v);
            free(name);
        }
    }
    *out = n && st == ST_OK ? json_dumps(all, JSON_COMPACT) : NULL;
    json_decref(all);
    return st;
}

/* Splits {"messages":…, "tools":…} into its parts; a list stays as it is. */
static enum status split_messages(const char *file, struct buf *messages, struct buf *tools,
                                  struct err *err) {
    json_error_t why;
    json_t *j = json_loadb(buf_str(messages), messages->len, 0, &why);
    if (!j)
        return err_set(err, ST_FORMAT, "%s:%d: %s", file, why.line, why.text);
    enum status st = ST_OK;
    if (json_is_object(j)) {
        json_t *m = json_object_get(j, "messages"), *t = json_object_get(j, "tools");
        if (!json_is_array(m)) {
            st = err_set(err, ST_FORMAT, "%s: the object has no list \"messages\"", file);
        } else {
            char *text = json_dumps(m, JSON_COMPACT | JSON_ENCODE_ANY);
            buf_clear(messages);
            buf_adds(messages, text);
            free(text);
            if (t && !json_is_null(t) && !tools->len) {
                text = json_dumps(t, JSON_COMPACT | JSON_ENCODE_ANY);
                buf_adds(tools, text);
                free(text);
            }
        }
    } else if (!json_is_array(j)) {
        st = err_set(err, ST_FORMAT, "%s: must be a JSON list of messages or an object", file);
    }
    json_decref(j);
    return st;
}

/* The tokens are those of a model's own tokenizer; without a model there are none. */
static enum status put_rendered(const struct text_model *t, const struct render_opts *o,
                                const struct rendered *r, const char *used, struct err *err) {
    struct tok_list ids = {0};
    if (t)
        CHECK(text_prompt(t, o, &ids, err));
    json_t *j =
        json_pack("{s:s%, s:s}", "prompt", buf_str(&r->text), r->text.len, "template", used);
    json_t *list = t ? json_array() : NULL;
    for (size_t i = 0; i < ids.n; i++)
        json_array_append_new(list, json_integer(ids.v[i]));
    if (list)
        json_object_set_new(j, "tokens", list);
    tok_list_release(&ids);
    put_json(j);
    return ST_OK;
}

/* What a person would not guess from the prompt alone. */
static void note_built_in(const struct text_model *t, const char *used, bool chosen,
                          bool tools) {
    if (strcmp(used, "file") == 0 || strncmp(used, "model", 5) == 0)
        return;
    if (t && chosen)
        note("the model has no chat template of its own; the built-in one %s is used", used);
    if (tools)
        note("the built-in template %s does not show tools", used);
}

int cmd_template(struct args *a) {
    struct err err = {0};
    const char *msg_file = arg_text(a, "messages"), *tpl_file = arg_text(a, "template-file");
    const char *name = arg_text(a, "template");
    if (!msg_file)
        return failf(ST_USAGE, "template needs --messages FILE (or - for standard input)");
    if (!a->n_pos && !tpl_file && !name)
        return failf(ST_USAGE,
                     "template needs a MODEL, --template-file FILE or --template NAME");
    if (tpl_file && name)
        return failf(ST_USAGE, "--template and --template-file exclude each other");
    struct text_model *t = NULL;
    struct buf messages = {0}, tools = {0}, tpl = {0};
    struct rendered r = {0};
    char *vars = NULL;
    const char *used = "";
    struct render_opts o = {.template_name = name,
                            .add_generation_prompt = !arg_flag(a, "no-generation-prompt")};
    enum status st;
    if (arg_text(a, "now"))
        TRY(parse_now(arg_text(a, "now"), &o.now_unix, &err));
    TRY(parse_vars(a, &vars, &err));
    if (a->n_pos)
        TRY(open_text(a->pos[0], &t, &err));
    TRY(read_input(msg_file, JSON_MAX_BYTES, &messages, &err));
    if (arg_text(a, "tools"))
        TRY(read_input(arg_text(a, "tools"), JSON_MAX_BYTES, &tools, &err));
    if (tpl_file)
        TRY(read_input(tpl_file, TEMPLATE_MAX_BYTES, &tpl, &err));
    TRY(split_messages(msg_file, &messages, &tools, &err));
    o.messages_json = buf_str(&messages);
    o.tools_json = tools.len ? tools.p : NULL;
    o.vars_json = vars;
    o.template_text = tpl_file ? buf_str(&tpl) : NULL;
    TRY(text_render(t, &o, &r, &used, &err));
    note_built_in(t, used, !name, tools.len > 0);
    if (arg_flag(a, "json")) {
        TRY(put_rendered(t, &o, &r, used, &err));
    } else {
        put_text(buf_str(&r.text), r.text.len);
        if (isatty(STDOUT_FILENO))
            putchar('\n');
    }
out:
    free(vars);
    rendered_release(&r);
    buf_release(&tpl);
    buf_release(&tools);
    buf_release(&messages);
    text_close(t);
    return st == ST_OK ? 0 : fail(&err);
}
