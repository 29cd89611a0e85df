/*
 * chats.c - `llmchat chats`, `search`, `export`, `import`: stored conversations.
 */
#include "base/path.h"
#include "base/utf8.h"
#include "chat/export.h"
#include "cmd/cmd.h"
#include "store/store.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

const struct opt chats_opts[] = {
    {"json", 0, OPT_FLAG, NULL, 0, "Print a JSON list"},
    {"limit", 'n', OPT_COUNT, "N", 1, "Only the N latest"},
    {0},
};
const struct opt search_opts[] = {
    {"json", 0, OPT_FLAG, NULL, 0, "Print a JSON list"},
    {"limit", 'n', OPT_COUNT, "N", 1, "At most N hits (default 20)"},
    {0},
};
const struct opt export_opts[] = {
    {"format", 0, OPT_CHOICE, "md|json|jsonl|html|txt", 0, "The file's format"},
    {"output", 'o', OPT_TEXT, "FILE", 0, "Write to FILE instead of standard output"},
    {"tree", 0, OPT_FLAG, NULL, 0, "Every branch, not only the active one"},
    {"force", 'f', OPT_FLAG, NULL, 0, "Replace an existing FILE"},
    {0},
};
const struct opt import_opts[] = {
    {"json", 0, OPT_FLAG, NULL, 0, "Print a JSON list of the new numbers"},
    {0},
};

int cmd_chats(struct args *a) {
    struct err err = {0};
    struct store *s = NULL;
    struct conversation_list l = {0};
    enum status st = open_store(&s, &err);
    if (st == ST_OK)
        st = store_conv_list(s, (int)arg_count(a, "limit", 0), &l, &err);
    json_t *all = st == ST_OK && arg_flag(a, "json") ? json_array() : NULL;
    for (size_t i = 0; i < l.n; i++) {
        const struct conversation *c = &l.v[i];
        if (all) {
            json_array_append_new(
                all,
                json_pack("{s:I, s:o, s:o, s:s, s:s, s:i}", "id", (json_int_t)c->id, "title",
                          json_text(c->title), "model", json_text(path_base(c->model)),
                          "created", show_iso(c->created_ms), "updated",
                          show_iso(c->updated_ms), "messages", c->n_messages));
            continue;
        }
        printf("%5lld  %s  %4d  ", (long long)c->id, show_time(c->updated_ms), c->n_messages);
        struct buf line = {0};
        buf_adds(&line, *c->title ? c->title : "(no title)");
        if (*c->model)
            buf_addf(&line, "  [%s]", path_base(c->model));
        put_line("", line.p);
        buf_release(&line);
    }
    if (all)
        put_json(all);
    conversation_list_release(&l);
    store_close(s);
    return st == ST_OK ? 0 : fail(&err);
}

/* A snippet with its marks shown: bold on a terminal, nothing elsewhere. */
static void print_snippet(const char *s, bool colour) {
    struct buf safe = {0};
    for (const char *p = s; *p;) {
        size_t n = strcspn(p, "\x01\x02");
        utf8_terminal_safe(&safe, p, n, false);
        p += n;
        if (*p) {
            if (colour)
                buf_adds(&safe, *p == 1 ? "\x1b[1m" : "\x1b[0m");
            p++;
        }
    }
    puts(buf_str(&safe));
    buf_release(&safe);
}

static char *without_marks(const char *s) {
    struct buf b = {0};
    for (; *s; s++)
        if (*s != 1 && *s != 2)
            buf_addc(&b, *s);
    return buf_take(&b);
}

int cmd_search(struct args *a) {
    struct err err = {0};
    struct store *s = NULL;
    struct search_list hits = {0};
    struct buf words = {0};
    for (int i = 0; i < a->n_pos; i++) {
        /* An argument with blanks was quoted in the shell: a phrase. */
        bool phrase = a->n_pos > 1 && strchr(a->pos[i], ' ') && !strchr(a->pos[i], '"');
        buf_addf(&words, "%s%s%s%s", i ? " " : "", phrase ? "\"" : "", a->pos[i],
                 phrase ? "\"" : "");
    }
    enum status st = open_store(&s, &err);
    if (st == ST_OK)
        st = store_search(s, words.p, (int)arg_count(a, "limit", 20), &hits, &err);
    json_t *all = st == ST_OK && arg_flag(a, "json") ? json_array() : NULL;
    bool colour = colour_wanted(stdout);
    for (size_t i = 0; i < hits.n; i++) {
        const struct search_hit *h = &hits.v[i];
        const char *where = h->in_title ? "title" : role_name(h->role);
        if (all) {
            char *plain = without_marks(h->snippet);
            json_array_append_new(
                all, json_pack("{s:I, s:I, s:o, s:s, s:o, s:s}", "id", (json_int_t)h->conv,
                               "message", (json_int_t)h->message, "title", json_text(h->title),
                               "role", where, "snippet", json_text(plain), "created",
                               show_iso(h->created_ms)));
            free(plain);
            continue;
        }
        struct buf safe = {0};
        utf8_terminal_safe(&safe, h->title, strlen(h->title), false);
        printf("%5lld  %s  %s\n       %s: ", (long long)h->conv, show_time(h->created_ms),
               buf_str(&safe), where);
        buf_release(&safe);
        print_snippet(h->snippet, colour);
    }
    if (all)
        put_json(all);
    else if (st == ST_OK && !hits.n)
        note("Nothing was found.");
    buf_release(&words);
    search_list_release(&hits);
    store_close(s);
    return st == ST_OK ? 0 : fail(&err);
}

int cmd_export(struct args *a) {
    struct err err = {0};
    int64_t id;
    const char *file = arg_text(a, "output");
    enum export_format f = EXPORT_MD;
    if (parse_id(a->pos[0], &id, &err) != ST_OK)
        return fail(&err);
    if (arg_text(a, "format"))
        export_format_parse(arg_text(a, "format"), &f);
    else if (file && !export_format_of_path(file, &f))
        return failf(ST_USAGE, "%s: say which format with --format (the ending does not tell)",
                     file);
    struct store *s = NULL;
    struct buf text = {0};
    enum status st = open_store(&s, &err);
    if (st == ST_OK && file && strcmp(file, "-") != 0) {
        st = export_file(s, id, f, arg_flag(a, "tree"), file, arg_flag(a, "force"), &err);
    } else if (st == ST_OK) {
        st = export_conversation(s, id, f, arg_flag(a, "tree"), &text, &err);
        if (st == ST_OK)
            put_text(text.p, text.len);
    }
    buf_release(&text);
    store_close(s);
    return st == ST_OK ? 0 : fail(&err);
}

int cmd_import(struct args *a) {
    struct err err = {0};
    struct store *s = NULL;
    struct strlist ids = {0};
    enum status st = open_store(&s, &err);
    for (int i = 0; st == ST_OK && i < a->n_pos; i++) {
        struct buf text = {0};
        const char *name = strcmp(a->pos[i], "-") ? a->pos[i] : "standard input";
        st = read_input(a->pos[i], IMPORT_MAX_BYTES, &text, &err);
        if (st == ST_OK)
            st = import_text(s, buf_str(&text), text.len, name, &ids, &err);
        buf_release(&text);
    }
    json_t *all = arg_flag(a, "json") ? json_array() : NULL;
    for (size_t i = 0; i < ids.n; i++) {
        if (all)
            json_array_append_new(all, json_integer(strtoll(ids.v[i], NULL, 10)));
        else
            puts(ids.v[i]);
    }
    if (all)
        put_json(all);
    strlist_release(&ids);
    store_close(s);
    return st == ST_OK ? 0 : fail(&err);
}
