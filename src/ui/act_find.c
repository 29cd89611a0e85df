/*
 * act_find.c - finding and opening conversations, the tree of branches, export and import.
 */
#include "base/path.h"
#include "base/utf8.h"
#include "chat/export.h"
#include "ui/act.h"
#include "ui/fuzzy.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define IMPORT_MAX (256u << 20)
#define FOUND_MAX  60

static void show_day(char out[32], int64_t ms) {
    time_t t = (time_t)(ms / 1000);
    struct tm tm;
    localtime_r(&t, &tm);
    strftime(out, 32, "%Y-%m-%d", &tm);
}

void act_open(struct app *a) {
    struct picker p = {.title = "Conversations", .wide = true};
    list_load(a);
    for (size_t i = 0; i < a->list.all.n; i++) {
        const struct conversation *c = &a->list.all.v[i];
        char day[32], *title = list_title(c);
        show_day(day, c->updated_ms);
        if (title)
            picker_add(&p, title, c->model, day, c->id)->marked = c->id == chat_id(a->chat);
        free(title);
    }
    int at = picker_run(a, &p);
    int64_t id = at >= 0 ? p.v[at].id : 0;
    picker_release(&p);
    if (id && app_open(a, id))
        app_focus(a, FOCUS_INPUT);
}

void open_by_name(struct app *a, const char *name) {
    char *end;
    long long id = strtoll(name, &end, 10);
    const struct conversation *best = NULL;
    int best_score = -1;
    list_load(a);
    for (size_t i = 0; i < a->list.all.n; i++) {
        const struct conversation *c = &a->list.all.v[i];
        int score =
            *end == 0 && c->id == id ? 1 << 20 : fuzzy_match(name, c->title, NULL, 0, NULL);
        if (score > best_score) {
            best_score = score;
            best = c;
        }
    }
    if (!best)
        app_complain(a, "No conversation is called anything like “%.*s”", utf8_cut(name, 80),
                     name);
    else
        app_open(a, best->id);
}

/* -- search in all conversations -- */

static void search_query(struct app *a, struct picker *p, const char *text) {
    struct search_list *found = p->user;
    struct err err;
    picker_clear(p);
    search_list_release(found);
    if (!*text || !app_ok(a, store_search(a->params.store, text, FOUND_MAX, found, &err), &err))
        return;
    for (size_t i = 0; i < found->n; i++) {
        char *line = xstrdup(found->v[i].snippet), *to = line;
        for (const char *from = line; *from; from++)
            if (*from != 1 && *from != 2)
                *to++ = *from;
        *to = 0;
        char day[32];
        show_day(day, found->v[i].created_ms);
        picker_add(p, line, found->v[i].title, day, (int64_t)i);
        free(line);
    }
}

void act_search_all(struct app *a) {
    struct search_list found = {0};
    struct picker p = {.title = "Search all conversations",
                       .query = search_query,
                       .user = &found,
                       .wide = true};
    int at = picker_run(a, &p);
    if (at >= 0) {
        const struct search_hit *hit = &found.v[p.v[at].id];
        char *words = edit_text(p.field);
        int64_t message = hit->message;
        struct err err;
        if (app_open(a, hit->conv)) {
            if (!transcript_show(a->tr, message)) { /* on another branch */
                int64_t leaf;
                if (app_ok(a, store_msg_newest_leaf(a->params.store, message, &leaf, &err),
                           &err) &&
                    app_ok(a, store_conv_set_leaf(a->params.store, hit->conv, leaf, &err),
                           &err) &&
                    app_ok(a, chat_reload(a->chat, &err), &err))
                    app_sync(a);
            }
            app_focus(a, FOCUS_TRANSCRIPT);
            transcript_show(a->tr, message);
            transcript_select(a->tr, message);
            transcript_search(a->tr, words); /* last: it scrolls to the words */
        }
        free(words);
    }
    picker_release(&p);
    search_list_release(&found);
}

/* -- the tree -- */

struct node {
    int64_t id;
    size_t index, first, last,
        next; /* indices of children and the next sibling, SIZE_MAX none */
    int depth;
};

static int by_id(const void *x, const void *y) {
    int64_t a = ((const struct node *)x)->id, b = ((const struct node *)y)->id;
    return a < b ? -1 : a > b;
}

static size_t find_node(const struct node *sorted, size_t n, int64_t id) {
    struct node key = {.id = id};
    const struct node *hit = bsearch(&key, sorted, n, sizeof key, by_id);
    return hit ? hit->index : SIZE_MAX;
}

static void link_nodes(struct node *nodes, const struct message_list *l) {
    struct node *sorted = xcalloc(l->n + 1, sizeof *sorted);
    for (size_t i = 0; i <= l->n; i++) /* the last one stands for the root */
        nodes[i] = (struct node){i < l->n ? l->v[i].id : 0, i, SIZE_MAX, SIZE_MAX, SIZE_MAX, 0};
    memcpy(sorted, nodes, (l->n + 1) * sizeof *sorted);
    qsort(sorted, l->n + 1, sizeof *sorted, by_id);
    for (size_t i = 0; i < l->n; i++) {
        size_t up = find_node(sorted, l->n + 1, l->v[i].parent);
        if (up >=
            i) /* parents come first; whatever else a damaged tree has hangs from the root */
            up = l->n;
        if (nodes[up].last == SIZE_MAX)
            nodes[up].first = i;
        else
            nodes[nodes[up].last].next = i;
        nodes[up].last = i;
    }
    free(sorted);
}

static void add_node(struct app *a, struct picker *p, const struct message *m, int depth) {
    struct buf text = {0};
    for (int i = 0; i < depth && i < 20; i++)
        buf_adds(&text, "  ");
    buf_addf(&text, "%s: ",
             m->role == ROLE_ASSISTANT ? "llmchat"
             : m->role == ROLE_USER    ? "you"
                                       : role_name(m->role));
    size_t line = strcspn(m->text, "\n");
    buf_add(&text, m->text, line < 200 ? line : 200);
    char branch[40] = "";
    if (m->n_sibling > 1)
        snprintf(branch, sizeof branch, "%d/%d", m->sibling, m->n_sibling);
    bool active = false;
    const struct message_list *path = chat_messages(a->chat);
    for (size_t i = 0; i < path->n; i++)
        active |= path->v[i].id == m->id;
    picker_add(p, buf_str(&text), NULL, branch, m->id)->marked = active;
    buf_release(&text);
}

/* Depth first, without recursion: a conversation may be thousands of messages deep. */
static void add_tree(struct app *a, struct picker *p, struct node *nodes,
                     const struct message_list *l) {
    size_t *stack = xreallocarray(NULL, l->n + 1, sizeof *stack), n = 0;
    size_t at = nodes[l->n].first;
    while (at != SIZE_MAX || n > 0) {
        if (at == SIZE_MAX) {
            at = nodes[stack[--n]].next;
            continue;
        }
        size_t up = n ? stack[n - 1] : l->n;
        bool many = nodes[up].first != nodes[up].last;
        nodes[at].depth = (n ? nodes[up].depth : 0) + (many ? 1 : 0);
        add_node(a, p, &l->v[at], nodes[at].depth);
        stack[n++] = at;
        at = nodes[at].first;
    }
    free(stack);
}

void act_tree(struct app *a) {
    struct err err;
    int64_t conv = chat_id(a->chat);
    struct message_list l = {0};
    if (conv == 0 || chat_busy(a->chat)) {
        app_say(a, conv ? "Not while an answer is being written"
                        : "This conversation is still empty");
        return;
    }
    if (!app_ok(a, store_msg_all(a->params.store, conv, &l, &err), &err))
        return;
    struct node *nodes = xcalloc(l.n + 1, sizeof *nodes);
    link_nodes(nodes, &l);
    struct picker p = {.title = "Branches",
                       .wide = true,
                       .hint = "● shown now · Enter shows the branch · Esc"};
    add_tree(a, &p, nodes, &l);
    int at = picker_run(a, &p);
    int64_t id = at >= 0 ? p.v[at].id : 0, leaf;
    picker_release(&p);
    free(nodes);
    message_list_release(&l);
    if (id && app_ok(a, store_msg_newest_leaf(a->params.store, id, &leaf, &err), &err) &&
        app_ok(a, store_conv_set_leaf(a->params.store, conv, leaf ? leaf : id, &err), &err) &&
        app_ok(a, chat_reload(a->chat, &err), &err)) {
        app_sync(a);
        transcript_show(a->tr, id);
    }
}

/* -- export and import -- */

static int ask_format(struct app *a) {
    static const char *const what[EXPORT_N] = {
        "Markdown, to read", "everything, can be imported again",
        "lines of messages, for fine-tuning", "one page for a browser", "plain text"};
    struct picker p = {.title = "Export as"};
    for (int f = 0; f < EXPORT_N; f++)
        picker_add(&p, export_format_name(f), what[f], NULL, f);
    int at = picker_run(a, &p);
    int format = at >= 0 ? (int)p.v[at].id : -1;
    picker_release(&p);
    return format;
}

/* A file name from the title. */
static char *propose(struct app *a, enum export_format f) {
    struct buf name = {0};
    const char *title = chat_title(a->chat);
    for (const char *p = title; *p && name.len < 60; p++) {
        bool keep = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                    (*p >= '0' && *p <= '9') || (unsigned char)*p >= 0x80;
        if (keep)
            buf_addc(&name, *p);
        else if (name.len && name.p[name.len - 1] != '-')
            buf_addc(&name, '-');
    }
    buf_cut(&name, name.len - utf8_incomplete_tail(buf_str(&name), name.len));
    while (name.len && name.p[name.len - 1] == '-')
        buf_cut(&name, name.len - 1);
    if (name.len == 0)
        buf_adds(&name, "conversation");
    buf_addf(&name, ".%s", export_format_name(f));
    return buf_take(&name);
}

void export_dialog(struct app *a, const char *path) {
    static const char *const branches[] = {"What is shown", "Every branch"};
    static const char *const over[] = {"Keep it", "Replace it"};
    struct err err;
    enum export_format f = EXPORT_MD;
    if (chat_id(a->chat) == 0) {
        app_say(a, "This conversation is still empty");
        return;
    }
    bool known = path && export_format_of_path(path, &f);
    if (!known) {
        int picked = ask_format(a);
        if (picked < 0)
            return;
        f = (enum export_format)picked;
    }
    int tree = 0;
    if (f != EXPORT_JSON && !path)
        tree = dialog_ask(a, "Export", "What should be in the file?", branches, 2);
    if (tree < 0)
        return;
    char *given = path ? NULL : propose(a, f);
    char *typed = path ? xstrdup(path) : dialog_input(a, "Export", "File:", given, 1);
    free(given);
    if (!typed)
        return;
    char *file = path_expand(typed);
    int64_t conv = chat_id(a->chat);
    enum status st = export_file(a->params.store, conv, f, tree == 1, file, false, &err);
    if (st == ST_EXISTS) {
        char *text = xasprintf("%s is there already.", file);
        if (dialog_ask(a, "Export", text, over, 2) == 1)
            st = export_file(a->params.store, conv, f, tree == 1, file, true, &err);
        else
            app_say(a, "Nothing was written");
        free(text);
    }
    if (st == ST_OK)
        app_say(a, "Written: %s", file);
    else if (st != ST_EXISTS)
        app_ok(a, st, &err);
    free(file);
    free(typed);
}

void act_export(struct app *a) {
    export_dialog(a, NULL);
}

void act_import(struct app *a) {
    struct err err;
    char *typed = dialog_input(
        a, "Import", "File (our JSON, JSONL of messages, or a JSON list of messages):", "", 1);
    if (!typed)
        return;
    char *file = path_expand(typed);
    struct buf text = {0};
    struct strlist ids = {0};
    if (app_ok(a, file_read(file, IMPORT_MAX, &text, &err), &err) &&
        app_ok(
            a,
            import_text(a->params.store, buf_str(&text), text.len, path_base(file), &ids, &err),
            &err)) {
        list_load(a);
        app_say(a, "%zu conversation%s imported", ids.n, ids.n == 1 ? "" : "s");
        if (ids.n)
            app_open(a, strtoll(ids.v[0], NULL, 10));
    }
    strlist_release(&ids);
    buf_release(&text);
    free(file);
    free(typed);
}
