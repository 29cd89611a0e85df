/*
 * export.c - a conversation as Markdown, JSON, JSONL and plain text, and files of it.
 *
 * JSON holds everything and is what import reads: messages in the order of their ids, parents
 * before children, texts as they are (invalid UTF-8 is mended, JSON can't carry it). The other
 * formats are for people and other programs: the active branch, or every message of the tree
 * with a word about the branch it is on.
 */
#include "chat/export.h"

#include "base/path.h"
#include "base/utf8.h"
#include "chat/export_internal.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static const char *const format_names[EXPORT_N] = {"md", "json", "jsonl", "html", "txt"};

const char *export_format_name(enum export_format f) {
    return format_names[f];
}

bool export_format_parse(const char *s, enum export_format *out) {
    static const char *const alias[] = {"markdown", "", "", "htm", "text"};
    for (int i = 0; i < EXPORT_N; i++)
        if (strcasecmp(s, format_names[i]) == 0 ||
            (*alias[i] && strcasecmp(s, alias[i]) == 0)) {
            *out = (enum export_format)i;
            return true;
        }
    return false;
}

bool export_format_of_path(const char *path, enum export_format *out) {
    const char *dot = strrchr(path_base(path), '.');
    return dot && export_format_parse(dot + 1, out);
}

char *export_file_name(const char *title, enum export_format f) {
    struct buf b = {0};
    uint32_t cp;
    for (size_t at = 0, n, len = strlen(title); at < len && b.len < 80; at += n) {
        n = utf8_decode(title + at, len - at, &cp);
        bool bad = cp < 0x20 || cp == 0x7f || cp == 0xfffd ||
                   (cp < 0x80 && strchr("/\\:*?\"<>|'`$", (int)cp));
        if (bad || cp == ' ')
            cp = '-';
        if (cp == '-' && (b.len == 0 || b.p[b.len - 1] == '-'))
            continue;
        if (cp == '.' && b.len == 0)
            continue;
        buf_addcp(&b, cp);
    }
    while (b.len && strchr("-. ", b.p[b.len - 1]))
        buf_cut(&b, b.len - 1);
    char *name = xasprintf("%s.%s", b.len ? b.p : "conversation", format_names[f]);
    buf_release(&b);
    return name;
}

const char *export_speaker(const struct message *m) {
    static const char *const names[] = {"System", "You", "llmchat", "Tool"};
    return m->role == ROLE_SYSTEM && strcmp(m->finish, "summary") == 0 ? "Summary"
                                                                       : names[m->role];
}

/* -- JSON -- */

static json_t *text_json(const char *s) {
    struct buf b = {0};
    utf8_scrub(&b, s, strlen(s));
    json_t *v = json_stringn(buf_str(&b), b.len);
    buf_release(&b);
    return v;
}

/* Settings are JSON already; what is not stays a text. */
static json_t *settings_value(const char *s) {
    json_t *v = *s ? json_loads(s, 0, NULL) : NULL;
    return v ? v : text_json(s);
}

static json_t *message_json(const struct message *m) {
    json_t *o = json_object();
    json_object_set_new(o, "id", json_integer(m->id));
    json_object_set_new(o, "parent", m->parent ? json_integer(m->parent) : json_null());
    json_object_set_new(o, "role", json_string(role_name(m->role)));
    json_object_set_new(o, "text", text_json(m->text));
    json_object_set_new(o, "state", json_string(msg_state_name(m->state)));
    json_object_set_new(o, "created", json_integer(m->created_ms));
    json_object_set_new(o, "model", text_json(path_base(m->model)));
    json_object_set_new(o, "settings", settings_value(m->settings_json));
    json_object_set_new(o, "finish", text_json(m->finish));
    json_object_set_new(o, "seed", json_integer(m->seed));
    json_object_set_new(o, "prompt_tokens", json_integer(m->prompt_tok));
    json_object_set_new(o, "cached_tokens", json_integer(m->cached_tok));
    json_object_set_new(o, "completion_tokens", json_integer(m->completion_tok));
    json_object_set_new(o, "prompt_us", json_integer(m->prompt_us));
    json_object_set_new(o, "decode_us", json_integer(m->decode_us));
    json_object_set_new(o, "ttft_us", json_integer(m->ttft_us));
    return o;
}

static void export_json(const struct conversation *c, const struct message_list *l,
                        struct buf *out) {
    json_t *o = json_object(), *list = json_array();
    json_object_set_new(o, "format", json_string(EXPORT_FORMAT_NAME));
    json_object_set_new(o, "version", json_integer(EXPORT_VERSION));
    json_object_set_new(o, "title", text_json(c->title));
    /* where a file lies here means nothing elsewhere, and tells more than was asked for */
    json_object_set_new(o, "model", text_json(path_base(c->model)));
    json_object_set_new(o, "system", text_json(c->system));
    json_object_set_new(o, "settings", settings_value(c->settings_json));
    json_object_set_new(o, "draft", text_json(c->draft));
    json_object_set_new(o, "created", json_integer(c->created_ms));
    json_object_set_new(o, "updated", json_integer(c->updated_ms));
    json_object_set_new(o, "leaf", c->leaf ? json_integer(c->leaf) : json_null());
    json_object_set_new(o, "keep_from",
                        c->keep_from ? json_integer(c->keep_from) : json_null());
    for (size_t i = 0; i < l->n; i++)
        json_array_append_new(list, message_json(&l->v[i]));
    json_object_set_new(o, "messages", list);
    char *text = json_dumps(o, JSON_INDENT(1) | JSON_REAL_PRECISION(10));
    buf_adds(out, text);
    buf_addc(out, '\n');
    free(text);
    json_decref(o);
}

/* -- JSONL -- */

static void add_line(const struct conversation *c, const struct message_list *l,
                     struct buf *out) {
    json_t *o = json_object(), *list = json_array();
    if (*c->system)
        json_array_append_new(
            list, json_pack("{s:s, s:o}", "role", "system", "content", text_json(c->system)));
    for (size_t i = 0; i < l->n; i++) {
        const struct message *m = &l->v[i];
        bool summary = m->role == ROLE_SYSTEM && strcmp(m->finish, "summary") == 0;
        if (!summary && *m->text)
            json_array_append_new(list, json_pack("{s:s, s:o}", "role", role_name(m->role),
                                                  "content", text_json(m->text)));
    }
    json_object_set_new(o, "messages", list);
    char *text = json_dumps(o, JSON_COMPACT);
    buf_adds(out, text);
    buf_addc(out, '\n');
    free(text);
    json_decref(o);
}

/* The list is in the order of its ids; n when the id is not in it. */
static size_t index_of(const struct message_list *l, int64_t id) {
    size_t lo = 0, hi = l->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (l->v[mid].id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < l->n && l->v[lo].id == id ? lo : l->n;
}

static enum status export_jsonl(struct store *s, const struct conversation *c,
                                const struct message_list *l, bool tree, struct buf *out,
                                struct err *err) {
    if (!tree) {
        add_line(c, l, out);
        return ST_OK;
    }
    /* A message that is nobody's parent ends a branch. */
    bool *has_child = xcalloc(l->n + 1, sizeof *has_child);
    enum status st = ST_OK;
    for (size_t i = 0; i < l->n; i++)
        if (l->v[i].parent)
            has_child[index_of(l, l->v[i].parent)] = true;
    for (size_t i = 0; i < l->n && st == ST_OK; i++) {
        struct message_list branch = {0};
        if (has_child[i])
            continue;
        st = store_msg_path(s, c->id, l->v[i].id, &branch, err);
        if (st == ST_OK)
            add_line(c, &branch, out);
        message_list_release(&branch);
    }
    free(has_child);
    return st;
}

/* -- text -- */

static void add_scrubbed(struct buf *out, const char *s) {
    utf8_scrub(out, s, strlen(s));
}

static void add_title(struct buf *out, const struct conversation *c) {
    struct buf line = {0};
    const char *title = *c->title ? c->title : "Conversation";
    utf8_terminal_safe(&line, title, strlen(title), false);
    buf_add(out, buf_str(&line), line.len);
    buf_release(&line);
}

static void add_note(struct buf *out, const struct message *m, bool tree) {
    if (m->role == ROLE_ASSISTANT && *m->model) {
        buf_adds(out, " (");
        add_scrubbed(out, path_base(m->model));
        buf_adds(out, m->state == MSG_COMPLETE ? ")" : ", ");
        if (m->state != MSG_COMPLETE)
            buf_addf(out, "%s)", msg_state_name(m->state));
    }
    if (tree && m->n_sibling > 1)
        buf_addf(out, " [branch %d of %d]", m->sibling, m->n_sibling);
}

static void export_text(const struct conversation *c, const struct message_list *l, bool md,
                        bool tree, struct buf *out) {
    const char *mark = md ? "## " : "", *end = md ? "" : ":";
    buf_adds(out, md ? "# " : "");
    add_title(out, c);
    buf_adds(out, "\n");
    if (*c->system) {
        buf_addf(out, "\n%sSystem prompt%s\n\n", mark, end);
        add_scrubbed(out, c->system);
        buf_adds(out, "\n");
    }
    for (size_t i = 0; i < l->n; i++) {
        buf_addf(out, "\n%s%s", mark, export_speaker(&l->v[i]));
        add_note(out, &l->v[i], tree);
        buf_addf(out, "%s\n\n", end);
        add_scrubbed(out, l->v[i].text);
        if (out->p[out->len - 1] != '\n')
            buf_addc(out, '\n');
    }
}

/* -- all -- */

enum status export_conversation(struct store *s, int64_t conv, enum export_format f,
                                bool whole_tree, struct buf *out, struct err *err) {
    struct conversation c;
    struct message_list l = {0};
    bool all = whole_tree || f == EXPORT_JSON;
    enum status st;
    CHECK(store_conv_get(s, conv, &c, err));
    TRY(all ? store_msg_all(s, conv, &l, err) : store_msg_path(s, conv, 0, &l, err));
    if (f == EXPORT_JSON)
        export_json(&c, &l, out);
    else if (f == EXPORT_JSONL)
        st = export_jsonl(s, &c, &l, whole_tree, out, err);
    else if (f == EXPORT_HTML)
        export_html(&c, &l, whole_tree, out);
    else
        export_text(&c, &l, f == EXPORT_MD, whole_tree, out);
out:
    message_list_release(&l);
    conversation_release(&c);
    return st;
}

/* A terminal, /dev/null or a pipe is written to; a file put in its place would be a disaster.
 */
static enum status write_special(const char *path, const struct buf *b, struct err *err) {
    FILE *f = fopen(path, "we");
    bool failed = !f || fwrite(buf_str(b), 1, b->len, f) != b->len;
    if (f && fclose(f) != 0)
        failed = true;
    return failed ? err_set(err, ST_IO, "can't write %s: %s", path, strerror(errno)) : ST_OK;
}

enum status export_file(struct store *s, int64_t conv, enum export_format f, bool whole_tree,
                        const char *path, bool replace, struct err *err) {
    struct buf b = {0};
    enum status st;
    struct stat info;
    bool there = stat(path, &info) == 0;
    bool special = there && (S_ISCHR(info.st_mode) || S_ISFIFO(info.st_mode));
    if (there && !special && !replace)
        return err_set(err, ST_EXISTS, "%s: exists already", path);
    st = export_conversation(s, conv, f, whole_tree, &b, err);
    if (st == ST_OK)
        st = special ? write_special(path, &b, err)
                     : file_write_atomic(path, buf_str(&b), b.len, err);
    buf_release(&b);
    return st;
}
