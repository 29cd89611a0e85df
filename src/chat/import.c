/*
 * import.c - conversations from files that anyone may have made.
 *
 * Three forms are told apart by their content: our own JSON (an object with "format"), one
 * object or list of lines with "messages", and a bare list of messages. Everything of a file
 * goes into one transaction, so a mistake in its last line leaves nothing behind.
 *
 * Bounds: the size of the file, the number of values (jansson needs some fifty bytes for each,
 * however short), the number of messages, and jansson's own limit of nesting. In our JSON ids
 * must rise and a parent must have come before its children: that excludes cycles and doubles
 * without a second look. A field may be missing, one of the wrong type is an error.
 */
#include "chat/chat_internal.h"
#include "chat/export_internal.h"

#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_MESSAGES = 1000000, MAX_VALUES = 20000000 };
#define MAX_TIME_MS 253402300799999 /* the end of the year 9999 */

struct importer {
    struct store *s;
    const char *name;
    int line; /* of JSONL; 0: the whole file */
    struct strlist *ids;
    struct err *err;
};

static enum status bad(const struct importer *in, size_t message, const char *what) {
    char place[64] = "";
    if (in->line)
        snprintf(place, sizeof place, ":%d", in->line);
    if (message)
        return err_set(in->err, ST_FORMAT, "%s%s: message %zu: %s", in->name, place, message,
                       what);
    return err_set(in->err, ST_FORMAT, "%s%s: %s", in->name, place, what);
}

static enum status done(struct importer *in, int64_t conv) {
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)conv);
    if (in->ids)
        strlist_add(in->ids, text);
    return ST_OK;
}

/* -- lists of {role, content} -- */

/* A text, or OpenAI's list of parts, of which the texts count. The caller frees; NULL when it
 * is neither. */
static char *content_text(const json_t *v) {
    struct buf b = {0};
    if (!v || json_is_null(v))
        return xstrdup("");
    if (json_is_string(v))
        return xstrdup(json_string_value(v));
    if (!json_is_array(v))
        return NULL;
    for (size_t i = 0; i < json_array_size(v); i++) {
        const char *t = json_string_value(json_object_get(json_array_get(v, i), "text"));
        if (t)
            buf_addf(&b, "%s%s", b.len ? "\n" : "", t);
    }
    return b.p ? buf_take(&b) : xstrdup("");
}

static bool openai_role(const char *s, enum role *out) {
    if (strcmp(s, "developer") == 0)
        s = "system";
    else if (strcmp(s, "function") == 0)
        s = "tool";
    return role_parse(s, out);
}

static enum status add_listed(struct importer *in, int64_t conv, const json_t *m, size_t i,
                              int64_t *parent, bool *titled) {
    const char *role_text = json_string_value(json_object_get(m, "role"));
    enum role role;
    enum status st = ST_OK;
    if (!json_is_object(m) || !role_text)
        return bad(in, i + 1, "an object with \"role\" and \"content\" wanted");
    if (!openai_role(role_text, &role))
        return bad(in, i + 1, "the role is none of system, user, assistant, tool");
    char *text = content_text(json_object_get(m, "content"));
    if (!text)
        return bad(in, i + 1, "\"content\" is no text");
    if (i == 0 && role == ROLE_SYSTEM) {
        st = store_conv_set_system(in->s, conv, text, in->err);
    } else {
        struct message row = {.parent = *parent, .role = role, .text = text};
        st = store_msg_add(in->s, conv, &row, parent, in->err);
    }
    if (st == ST_OK && role == ROLE_USER && !*titled) {
        char *title = chat_title_from(text);
        st = store_conv_set_title(in->s, conv, title, in->err);
        *titled = true;
        free(title);
    }
    free(text);
    return st;
}

static enum status import_list(struct importer *in, const json_t *list) {
    int64_t conv, parent = 0;
    bool titled = false;
    if (json_array_size(list) == 0)
        return bad(in, 0, "the list of messages is empty");
    if (json_array_size(list) > MAX_MESSAGES)
        return bad(in, 0, "more than a million messages");
    CHECK(store_conv_new(in->s, "", "", &conv, in->err));
    for (size_t i = 0; i < json_array_size(list); i++)
        CHECK(add_listed(in, conv, json_array_get(list, i), i, &parent, &titled));
    return done(in, conv);
}

/* -- our own JSON -- */

struct id_map {
    int64_t old, made;
};

static const struct id_map *find_id(const struct id_map *map, size_t n, int64_t old) {
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (map[mid].old == old)
            return &map[mid];
        if (map[mid].old < old)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

/* Fields that every conversation or message may have, null or of this type. */
static enum status check_types(const struct importer *in, const json_t *o, size_t message,
                               const char *const *texts, const char *const *numbers) {
    char what[80];
    for (; *texts; texts++) {
        const json_t *v = json_object_get(o, *texts);
        snprintf(what, sizeof what, "\"%s\" is no text", *texts);
        if (v && !json_is_null(v) && !json_is_string(v))
            return bad(in, message, what);
    }
    for (; *numbers; numbers++) {
        const json_t *v = json_object_get(o, *numbers);
        snprintf(what, sizeof what, "\"%s\" is no whole number", *numbers);
        if (v && !json_is_null(v) && !json_is_integer(v))
            return bad(in, message, what);
    }
    return ST_OK;
}

static bool time_ok(const json_t *o, const char *key) {
    json_int_t v = json_integer_value(json_object_get(o, key));
    return v >= 0 && v <= MAX_TIME_MS;
}

static char *text_of(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return xstrdup(s ? s : "");
}

static char *settings_of(const json_t *o) {
    const json_t *v = json_object_get(o, "settings");
    char *s = json_is_object(v) ? json_dumps(v, JSON_COMPACT | JSON_REAL_PRECISION(10)) : NULL;
    return s ? s : text_of(o, "settings");
}

static int small(const json_t *o, const char *key) {
    json_int_t v = json_integer_value(json_object_get(o, key));
    return v < 0 ? 0 : v > INT_MAX ? INT_MAX : (int)v;
}

static int64_t whole(const json_t *o, const char *key) {
    return json_integer_value(json_object_get(o, key));
}

static enum status read_message(struct importer *in, const json_t *o, size_t i,
                                const struct id_map *map, struct message *out) {
    const char *role = json_string_value(json_object_get(o, "role"));
    const char *state = json_string_value(json_object_get(o, "state"));
    const json_t *id = json_object_get(o, "id"), *parent = json_object_get(o, "parent");
    static const char *const texts[] = {"role", "state", "model", "finish", NULL};
    static const char *const numbers[] = {"created",       "seed",      "prompt_tokens",
                                          "cached_tokens", "prompt_us", "completion_tokens",
                                          "decode_us",     "ttft_us",   NULL};
    memset(out, 0, sizeof *out);
    CHECK(check_types(in, o, i + 1, texts, numbers));
    if (!time_ok(o, "created"))
        return bad(in, i + 1, "\"created\" is no time in milliseconds");
    if (!json_is_integer(id) || json_integer_value(id) <= 0)
        return bad(in, i + 1, "\"id\" is no positive whole number");
    if (i > 0 && json_integer_value(id) <= map[i - 1].old)
        return bad(in, i + 1, "\"id\" is not greater than the one before");
    if (parent && !json_is_null(parent) && !json_is_integer(parent))
        return bad(in, i + 1, "\"parent\" is no whole number");
    if (whole(o, "parent") != 0) {
        const struct id_map *p = find_id(map, i, whole(o, "parent"));
        if (!p)
            return bad(in, i + 1, "\"parent\" names no message before it");
        out->parent = p->made;
    }
    if (!role || !role_parse(role, &out->role))
        return bad(in, i + 1, "the role is none of system, user, assistant, tool");
    if (!json_is_string(json_object_get(o, "text")))
        return bad(in, i + 1, "\"text\" is no text");
    if (state && !msg_state_parse(state, &out->state))
        return bad(in, i + 1, "\"state\" is unknown");
    if (out->state == MSG_STREAMING) /* nobody writes it here */
        out->state = MSG_INTERRUPTED;
    out->id = json_integer_value(id);
    out->text = text_of(o, "text");
    out->created_ms = whole(o, "created");
    out->model = text_of(o, "model");
    out->settings_json = settings_of(o);
    out->finish = text_of(o, "finish");
    out->seed = whole(o, "seed");
    out->prompt_tok = small(o, "prompt_tokens");
    out->cached_tok = small(o, "cached_tokens");
    out->completion_tok = small(o, "completion_tokens");
    out->prompt_us = whole(o, "prompt_us");
    out->decode_us = whole(o, "decode_us");
    out->ttft_us = whole(o, "ttft_us");
    return ST_OK;
}

static enum status add_messages(struct importer *in, int64_t conv, const json_t *list,
                                struct id_map *map) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct message m;
        enum status st = read_message(in, json_array_get(list, i), i, map, &m);
        if (st == ST_OK) {
            map[i].old = m.id;
            st = store_msg_add(in->s, conv, &m, &map[i].made, in->err);
        }
        message_release(&m);
        CHECK(st);
    }
    return ST_OK;
}

static enum status set_fields(struct importer *in, int64_t conv, const json_t *o) {
    char *system = text_of(o, "system"), *settings = settings_of(o),
         *draft = text_of(o, "draft");
    enum status st = store_conv_set_system(in->s, conv, system, in->err);
    if (st == ST_OK)
        st = store_conv_set_settings(in->s, conv, settings, in->err);
    if (st == ST_OK)
        st = store_conv_set_draft(in->s, conv, draft, in->err);
    free(system);
    free(settings);
    free(draft);
    return st;
}

/* The active leaf and where the visible part begins, under their new ids. */
static enum status set_places(struct importer *in, int64_t conv, const json_t *o,
                              const struct id_map *map, size_t n) {
    int64_t leaf = whole(o, "leaf"), keep = whole(o, "keep_from");
    const struct id_map *l = find_id(map, n, leaf), *k = find_id(map, n, keep);
    if ((leaf && !l) || (keep && !k))
        return bad(in, 0, "\"leaf\" or \"keep_from\" names no message");
    if (l)
        CHECK(store_conv_set_leaf(in->s, conv, l->made, in->err));
    return k ? store_conv_set_keep_from(in->s, conv, k->made, in->err) : ST_OK;
}

static enum status import_own(struct importer *in, const json_t *o) {
    const json_t *list = json_object_get(o, "messages");
    static const char *const texts[] = {"title", "model", "system", "draft", NULL};
    static const char *const numbers[] = {"created", "updated", "leaf", "keep_from", NULL};
    int64_t conv;
    enum status st;
    if (whole(o, "version") != EXPORT_VERSION)
        return bad(in, 0, "\"version\" is not 1: made by another llmchat");
    CHECK(check_types(in, o, 0, texts, numbers));
    if (!time_ok(o, "created") || !time_ok(o, "updated"))
        return bad(in, 0, "\"created\" or \"updated\" is no time in milliseconds");
    if (!json_is_array(list) || json_array_size(list) > MAX_MESSAGES)
        return bad(in, 0, "\"messages\" is no list of at most a million messages");
    char *title = text_of(o, "title"), *model = text_of(o, "model");
    struct id_map *map = xcalloc(json_array_size(list) + 1, sizeof *map);
    TRY(store_conv_new(in->s, title, model, &conv, in->err));
    TRY(set_fields(in, conv, o));
    TRY(add_messages(in, conv, list, map));
    TRY(set_places(in, conv, o, map, json_array_size(list)));
    if (whole(o, "created") > 0 && whole(o, "updated") > 0)
        TRY(store_conv_set_times(in->s, conv, whole(o, "created"), whole(o, "updated"),
                                 in->err));
    st = done(in, conv);
out:
    free(map);
    free(title);
    free(model);
    return st;
}

/* -- which of them -- */

static enum status import_value(struct importer *in, const json_t *v) {
    const json_t *first = json_array_get(v, 0);
    const char *format = json_string_value(json_object_get(v, "format"));
    if (format && strcmp(format, EXPORT_FORMAT_NAME) == 0)
        return import_own(in, v);
    if (json_is_object(v) && json_is_array(json_object_get(v, "messages")))
        return import_list(in, json_object_get(v, "messages"));
    if (json_is_array(v) &&
        (json_object_get(first, "messages") || json_object_get(first, "format"))) {
        for (size_t i = 0; i < json_array_size(v); i++) {
            const json_t *one = json_array_get(v, i);
            if (!json_is_object(one))
                return bad(in, 0, "the list holds something that is no conversation");
            CHECK(import_value(in, one));
        }
        return ST_OK;
    }
    if (json_is_array(v))
        return import_list(in, v);
    return bad(in, 0,
               "neither a conversation of llmchat, nor a list of messages, nor lines of "
               "{\"messages\":[...]}");
}

static enum status not_json(struct importer *in, const json_error_t *at) {
    return err_set(in->err, ST_FORMAT, "%s:%d: %s", in->name, in->line ? in->line : at->line,
                   at->text);
}

/* Every value but the first of a list or object follows one of these, outside of texts. */
static bool too_many_values(const char *s, size_t len) {
    size_t n = 0;
    bool text = false;
    for (size_t i = 0; i < len; i++)
        if (s[i] == '"')
            text = !text;
        else if (text)
            i += s[i] == '\\';
        else
            n += s[i] == ',' || s[i] == '[' || s[i] == '{' || s[i] == ':';
    return n > MAX_VALUES;
}

static enum status import_json(struct importer *in, const char *text, size_t len) {
    json_error_t at;
    if (too_many_values(text, len))
        return bad(in, 0, "more than 20 million values");
    json_t *v = json_loadb(text, len, 0, &at);
    enum status st = v ? import_value(in, v) : not_json(in, &at);
    json_decref(v);
    return st;
}

static enum status import_lines(struct importer *in, const char *text, size_t len) {
    const char *end = text + len;
    for (in->line = 1; text < end; in->line++) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        size_t n = (size_t)((stop ? stop : end) - text), blank = 0;
        while (blank < n && strchr(" \t\r", text[blank]) && text[blank])
            blank++;
        if (blank < n)
            CHECK(import_json(in, text, n));
        text += n + 1;
    }
    return ST_OK;
}

/* More than one line, and the first is a whole value. */
static bool is_lines(const char *text, size_t len) {
    const char *stop = memchr(text, '\n', len);
    if (!stop || stop + 1 == text + len)
        return false;
    size_t n = (size_t)(stop - text);
    json_t *v = too_many_values(text, n) ? NULL : json_loadb(text, n, 0, NULL);
    bool whole_line = json_is_object(v);
    json_decref(v);
    return whole_line;
}

static enum status import_all(struct importer *in, const char *text, size_t len) {
    if (len == 0)
        return bad(in, 0, "the file is empty");
    return is_lines(text, len) ? import_lines(in, text, len) : import_json(in, text, len);
}

enum status import_text(struct store *s, const char *text, size_t len, const char *name,
                        struct strlist *ids, struct err *err) {
    struct strlist made = {0};
    struct importer in = {.s = s, .name = name, .ids = &made, .err = err};
    if (len > IMPORT_MAX_BYTES)
        return err_set(err, ST_LIMIT, "%s: %zu bytes, at most %d are read", name, len,
                       IMPORT_MAX_BYTES);
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) /* a byte order mark */
        text += 3, len -= 3;
    while (len > 0 && text[0] && strchr(" \t\r\n", text[0]))
        text++, len--;
    CHECK(store_begin(s, err));
    enum status st = import_all(&in, text, len);
    if (st == ST_OK)
        st = store_commit(s, err);
    else
        store_rollback(s);
    for (size_t i = 0; st == ST_OK && ids && i < made.n; i++)
        strlist_add(ids, made.v[i]);
    strlist_release(&made);
    return st;
}
