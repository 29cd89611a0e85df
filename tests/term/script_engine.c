/*
 * script_engine.c - an engine that answers by script, behind the real engine's headers.
 *
 * Linked instead of src/engine for terminal tests: the interface, the chat and the store above
 * it are the real ones. A token is a byte of the conversation, so the last user's message can
 * be read back from the prompt; its first word says what is answered, at what pace, and whether
 * it ends. Replies come from one thread a request.
 *
 *   hold …      some words, then nothing until it is cancelled
 *   count N     "line 1" to "line N", a paragraph each, a token every few milliseconds
 *   tick N      the same, one word every 30 ms
 *   markdown    headings, a list, a table, a quote, code
 *   wide        Chinese, emoji, combining marks
 *   escape      sequences that would change the title, the clipboard and the screen
 *   fail        an error of the engine
 *   other       "echo K: MESSAGE", K counts requests
 *
 * Environment: SCRIPT_MODELS "tiny:nf4,other:int8" (default: tiny), SCRIPT_CTX tokens,
 * SCRIPT_LOAD_MS, SCRIPT_GUESSES: a file that gets a line for each idle request.
 */
#include "base/clock.h"
#include "engine/engine.h"
#include "engine/models.h"
#include "engine/text.h"
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct text_model {
    int unused;
};
struct engine {
    struct engine_info info;
    char *name;
    struct text_model text;
};
struct session {
    struct engine *engine;
    int32_t *tokens;
    size_t n_tok;
    pthread_t thread;
    bool running;
    atomic_bool cancel, done;
    struct mailbox *box;
    uint64_t id;
    int prompt_tok, cached_tok, dropped_tok;
    int64_t seed;
    char *message;
};

static atomic_int n_requests;

static int env_int(const char *name, int def) {
    const char *s = getenv(name);
    return s && *s ? atoi(s) : def;
}

/* -- models -- */

static void each_model(void (*fn)(void *user, const char *name, const char *quant),
                       void *user) {
    const char *s = getenv("SCRIPT_MODELS");
    char *copy = xstrdup(s ? s : "tiny:nf4"), *save = NULL;
    for (char *m = strtok_r(copy, ",", &save); m; m = strtok_r(NULL, ",", &save)) {
        char *colon = strchr(m, ':');
        if (colon)
            *colon = 0;
        fn(user, m, colon ? colon + 1 : "nf4");
    }
    free(copy);
}

static void fill_info(struct model_info *m, const char *name, const char *quant) {
    *m = (struct model_info){.name = xstrdup(name),
                             .path = xasprintf("/models/%s", name),
                             .architecture = xstrdup("script"),
                             .quant = xstrdup(quant),
                             .head_quant = xstrdup("int8"),
                             .license = xstrdup("MIT"),
                             .title = xstrdup("Scripted replies"),
                             .source = xstrdup(""),
                             .source_sha256 = xstrdup(""),
                             .chat_template = xstrdup(""),
                             .created = xstrdup(""),
                             .file_bytes = 101000000,
                             .n_params = 135000000};
}

static void add_info(void *user, const char *name, const char *quant) {
    struct model_list *l = user;
    l->v = xreallocarray(l->v, l->n + 1, sizeof *l->v);
    fill_info(&l->v[l->n++], name, quant);
}

enum status models_list(struct model_list *out, struct err *err) {
    (void)err;
    *out = (struct model_list){0};
    each_model(add_info, out);
    return ST_OK;
}

void model_info_release(struct model_info *m) {
    char **all[] = {&m->name,          &m->path,          &m->architecture, &m->quant,
                    &m->head_quant,    &m->license,       &m->title,        &m->source,
                    &m->source_sha256, &m->chat_template, &m->created};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(*all[i]);
    *m = (struct model_info){0};
}

void model_list_release(struct model_list *l) {
    for (size_t i = 0; i < l->n; i++)
        model_info_release(&l->v[i]);
    free(l->v);
    strlist_release(&l->broken);
    *l = (struct model_list){0};
}

enum status models_info(const char *name, struct model_info *out, struct err *err) {
    struct model_list l;
    models_list(&l, err);
    enum status st = ST_NOT_FOUND;
    for (size_t i = 0; i < l.n && st != ST_OK; i++)
        if (strcmp(l.v[i].name, name) == 0) {
            fill_info(out, name, l.v[i].quant);
            st = ST_OK;
        }
    model_list_release(&l);
    return st == ST_OK ? ST_OK
                       : err_set(err, ST_NOT_FOUND, "model '%s' is not installed", name);
}

enum status models_dir(char **out, struct err *err) {
    (void)err;
    *out = xstrdup("/models");
    return ST_OK;
}

bool models_name_ok(const char *name) {
    return *name != 0;
}

enum status models_resolve(const char *name,
                           bool (*progress)(void *user, const char *what, uint64_t done,
                                            uint64_t total),
                           void *user, char **out, struct err *err) {
    (void)progress;
    (void)user;
    struct model_info m;
    enum status st = models_info(name, &m, err);
    if (st != ST_OK)
        return st;
    *out = xasprintf("%s:%s", name, m.quant);
    model_info_release(&m);
    return ST_OK;
}

/* -- engine -- */

enum status engine_open(const char *path, const struct engine_params *params,
                        struct engine **out, struct err *err) {
    int load_ms = env_int("SCRIPT_LOAD_MS", 0);
    for (int i = 0; i < 10; i++) {
        if (params->progress && !params->progress(params->user, "loading", (uint64_t)i, 10))
            return err_set(err, ST_CANCELLED, "cancelled");
        if (load_ms)
            poll(NULL, 0, load_ms / 10);
    }
    if (strncmp(path, "broken", 6) == 0)
        return err_set(err, ST_FORMAT,
                       "broken.safetensors: the header is 12 bytes, 4096 were promised");
    struct engine *e = xcalloc(1, sizeof *e);
    e->name = xstrdup(path);
    char *colon = strrchr(e->name, ':');
    if (colon)
        *colon = 0;
    e->info = (struct engine_info){.path = e->name,
                                   .name = e->name,
                                   .architecture = "script",
                                   .quant = colon ? colon + 1 : "nf4",
                                   .device = "cpu",
                                   .device_words = "cpu",
                                   .device_note = "",
                                   .kernels = "none",
                                   .license = "MIT",
                                   .chat_template = "",
                                   .system = "",
                                   .settings = "",
                                   .draft = "",
                                   .n_vocab = 258,
                                   .ctx_train = 8192,
                                   .ctx_tok = env_int("SCRIPT_CTX", 8192),
                                   .threads = 1,
                                   .bos = -1,
                                   .eos = 257};
    *out = e;
    return ST_OK;
}

void engine_close(struct engine *e) {
    if (!e)
        return;
    free(e->name);
    free(e);
}

const struct engine_info *engine_info(const struct engine *e) {
    return &e->info;
}

enum status engine_gpu_load(const struct engine *e, int index, struct buf *out,
                            struct err *err) {
    (void)e;
    (void)index;
    (void)out;
    return err_set(err, ST_UNSUPPORTED, "the model runs on the CPU");
}

const struct text_model *engine_text(const struct engine *e) {
    return &e->text;
}

struct session *session_new(struct engine *e) {
    struct session *s = xcalloc(1, sizeof *s);
    s->engine = e;
    return s;
}

static void join(struct session *s) {
    if (s->running)
        pthread_join(s->thread, NULL);
    s->running = false;
}

void session_free(struct session *s) {
    if (!s)
        return;
    session_cancel(s);
    join(s);
    free(s->tokens);
    free(s->message);
    free(s);
}

int session_cached_tok(struct session *s) {
    return (int)s->n_tok;
}

void session_keep(struct session *s, int64_t owner) {
    (void)s;
    (void)owner;
}

void engine_forget(struct engine *e, int64_t owner) {
    (void)e;
    (void)owner;
}

enum status states_dir(char **out, struct err *err) {
    *out = NULL;
    return err_set(err, ST_IO, "no states here");
}

void states_forget(int64_t conversation) {
    (void)conversation;
}

void session_cancel(struct session *s) {
    atomic_store(&s->cancel, true);
}

const char *finish_name(enum finish f) {
    static const char *const names[] = {"stop", "length", "cancel", "error"};
    return names[f];
}

void event_free(void *event) {
    struct event *e = event;
    if (e) {
        free(e->text);
        free(e->alt);
    }
    free(e);
}

/* -- a reply -- */

static struct event *new_event(struct session *s, enum event_type type) {
    struct event *e = xcalloc(1, sizeof *e);
    e->type = type;
    e->request_id = s->id;
    return e;
}

/* Waits; false when cancelled. */
static bool pause_ms(struct session *s, int ms) {
    int64_t until = clock_us() + (int64_t)ms * 1000;
    while (!atomic_load(&s->cancel)) {
        int64_t left = (until - clock_us()) / 1000;
        if (left <= 0)
            return true;
        poll(NULL, 0, left > 5 ? 5 : (int)left);
    }
    return false;
}

static int n_given; /* of the reply that runs: one at a time in these tests */

static bool give(struct session *s, const char *text, size_t len, int ms) {
    if (!pause_ms(s, ms))
        return false;
    struct event *e = new_event(s, EVENT_TOKEN);
    e->text = xstrndup(text, len);
    e->token = 'x';
    n_given++;
    mailbox_put(s->box, e);
    return true;
}

/* A text, word by word. */
static bool give_words(struct session *s, const char *text, int ms) {
    while (*text) {
        size_t n = strcspn(text, " \n");
        n += text[n] ? 1 : 0;
        if (!give(s, text, n, ms))
            return false;
        text += n;
    }
    return true;
}

static const char markdown[] =
    "# Tides\n\nThe **Moon** pulls, the *Sun* helps. See [the "
    "list](https://example.org/tides).\n\n"
    "- spring tide\n- neap tide\n\n| body | pull |\n|------|------|\n| Moon | 2.2 |\n| Sun | "
    "1.0 |\n\n"
    "> a quote\n\n```c\nint main(void) {\n    return 42;\n}\n```\n\ndone with markdown";
static const char wide[] = "汉字 kanji: 日本語テキスト|\n\nemoji: "
                           "👩‍💻|🎉|❤️|🇩🇪|\n\ncombining: "
                           "e\u0301a\u0308o\u0302|\n\nend of wide";
static const char escape[] =
    "\033]0;stolen title\007\033]52;c;c3RvbGVu\007\033[2J\033[Hbefore\xc2\x9b"
    "31mafter "
    "\u202egnp.exe end of escape";

/* False when cancelled. */
static bool reply(struct session *s) {
    const char *m = s->message;
    char line[300];
    int n = 0, k = atomic_fetch_add(&n_requests, 1) + 1;
    if (strncmp(m, "hold", 4) == 0) {
        give_words(s, "these words came before the stop ", 1);
        while (pause_ms(s, 1000))
            ;
        return false;
    }
    bool tick = sscanf(m, "tick %d", &n) == 1;
    if (tick || sscanf(m, "count %d", &n) == 1) {
        for (int i = 1; i <= n; i++) {
            snprintf(line, sizeof line, "line %d of %d\n\n", i, n);
            if (tick ? !give(s, line, strlen(line), 30) : !give_words(s, line, 1))
                return false;
        }
        return true;
    }
    if (strncmp(m, "markdown", 8) == 0)
        return give_words(s, markdown, 1);
    if (strncmp(m, "wide", 4) == 0)
        return give_words(s, wide, 1);
    if (strncmp(m, "escape", 6) == 0)
        return give_words(s, escape, 1);
    snprintf(line, sizeof line, "echo %d: %.200s", k, m);
    return give_words(s, line, 1);
}

static void *run(void *user) {
    struct session *s = user;
    struct event *e = new_event(s, EVENT_PREFILL);
    int64_t start = clock_us();
    e->n_done = e->n_total = s->prompt_tok;
    mailbox_put(s->box, e);
    n_given = 0;
    if (strcmp(s->message, "fail") == 0) {
        e = new_event(s, EVENT_ERROR);
        err_set(&e->err, ST_INTERNAL, "the scripted failure");
    } else {
        bool whole = reply(s);
        e = new_event(s, EVENT_FINISHED);
        e->finish = whole ? FINISH_STOP : FINISH_CANCEL;
        e->prompt_tok = s->prompt_tok;
        e->cached_tok = s->cached_tok;
        e->dropped_tok = s->dropped_tok;
        e->completion_tok = n_given;
        e->prompt_us = 1000;
        e->decode_us = clock_us() - start;
        e->seed = s->seed;
    }
    atomic_store(&s->done, true);
    mailbox_put(s->box, e);
    mailbox_unref(s->box);
    return NULL;
}

/* The last message of a user: between \1 and \2 behind a 'u'. */
static char *last_message(const int32_t *tokens, size_t n) {
    size_t end = n;
    for (size_t i = n; i > 0; i--) {
        if (tokens[i - 1] == 2)
            end = i - 1;
        if (tokens[i - 1] == 1 && i >= 2 && tokens[i - 2] == 'u') {
            char *text = xcalloc(end - i + 1, 1);
            for (size_t k = i; k < end; k++)
                text[k - i] = (char)tokens[k];
            return text;
        }
    }
    return xstrdup("");
}

static void keep_tokens(struct session *s, const struct request *r) {
    s->tokens = xreallocarray(s->tokens, r->n_tok, sizeof *s->tokens);
    memcpy(s->tokens, r->tokens, r->n_tok * sizeof *s->tokens);
    s->n_tok = r->n_tok;
}

/* An idle request: computed at once, without a word. */
static void guess(struct session *s, const struct request *r) {
    const char *path = getenv("SCRIPT_GUESSES");
    FILE *f = path ? fopen(path, "a") : NULL;
    keep_tokens(s, r);
    if (f) {
        char *text = last_message(r->tokens, r->n_tok);
        fprintf(f, "%s\n", text);
        fclose(f);
        free(text);
    }
}

enum status engine_can_stream(const struct engine *e, int stream_ctx, struct err *err) {
    (void)e;
    (void)stream_ctx;
    return getenv("SCRIPT_NO_STREAM")
               ? err_set(err, ST_UNSUPPORTED,
                         "this model can't stream: it has learned positions")
               : ST_OK;
}

enum status session_generate(struct session *s, const struct request *r, uint64_t id,
                             struct mailbox *events, struct err *err) {
    if (s->running && !atomic_load(&s->done))
        return err_set(err, ST_BUSY, "busy");
    if (r->n_tok >= (size_t)s->engine->info.ctx_tok && !r->stream)
        return err_set(err, ST_CONTEXT_FULL, "%zu tokens, the context has %d", r->n_tok,
                       s->engine->info.ctx_tok);
    join(s);
    if (r->priority == PRIORITY_IDLE) {
        guess(s, r);
        return ST_OK;
    }
    s->cached_tok = 0;
    while ((size_t)s->cached_tok < s->n_tok && (size_t)s->cached_tok + 1 < r->n_tok &&
           s->tokens[s->cached_tok] == r->tokens[s->cached_tok])
        s->cached_tok++;
    keep_tokens(s, r);
    s->prompt_tok = (int)r->n_tok;
    s->dropped_tok = 0;
    if (s->prompt_tok >= s->engine->info.ctx_tok) {
        s->dropped_tok = s->prompt_tok - s->engine->info.ctx_tok * 3 / 4;
        s->prompt_tok -= s->dropped_tok;
    }
    s->seed = r->sampling.seed < 0 ? 1 : r->sampling.seed;
    free(s->message);
    s->message = last_message(r->tokens, r->n_tok);
    s->box = mailbox_ref(events);
    s->id = id;
    atomic_store(&s->cancel, false);
    atomic_store(&s->done, false);
    s->running = true;
    pthread_create(&s->thread, NULL, run, s);
    return ST_OK;
}

/* -- text -- */

enum status text_prompt(const struct text_model *t, const struct render_opts *opts,
                        struct tok_list *out, struct err *err) {
    (void)t;
    json_t *list = json_loads(opts->messages_json, 0, NULL), *m;
    size_t i;
    if (!list)
        return err_set(err, ST_FORMAT, "messages are not JSON");
    json_array_foreach(list, i, m) {
        const char *role = json_string_value(json_object_get(m, "role"));
        const char *text = json_string_value(json_object_get(m, "content"));
        tok_list_add(out, role ? role[0] : '?');
        tok_list_add(out, 1);
        for (const char *p = text ? text : ""; *p; p++)
            tok_list_add(out, (unsigned char)*p);
        tok_list_add(out, 2);
    }
    if (opts->add_generation_prompt)
        tok_list_add(out, 'a');
    json_decref(list);
    return ST_OK;
}
