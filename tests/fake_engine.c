/*
 * fake_engine.c - see fake_engine.h. A thread a request; what it needs is copied when the request is made.
 */
#include "fake_engine.h"

#include "base/clock.h"
#include "base/mem.h"
#include "engine/models.h"
#include "engine/text.h"
#include <assert.h>
#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct fake fake;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct buf last_prompt, last_guess;
static atomic_int n_requests, n_sessions, n_engines, n_guesses, n_guesses_ended, n_on_gpu;

struct engine {
    struct engine_info info;
};
struct session {
    struct engine *e;
    struct buf held;
    pthread_t thread;
    bool running; /* a thread to join */
    bool guessed; /* by an idle request since the last one that counts */
    atomic_bool busy, cancel;
    struct mailbox *box;
    uint64_t id;
    struct buf prompt;
    char *reply;
    int max_tok, fail_after, token_us, ctx_tok;
    bool endless;
    int64_t seed, owner;
};

void fake_reset(void) {
    fake = (struct fake){
        .ctx_tok = 4096, .reply = "one two three", .summary_reply = "They talked.", .fail_after = -1,
        .installed = "smol"};
    n_requests = n_guesses = n_guesses_ended = 0;
}

const char *fake_guess(void) {
    return buf_str(&last_guess);
}

int fake_guesses(void) {
    return n_guesses;
}

int fake_guesses_ended(void) {
    return n_guesses_ended;
}

const char *fake_prompt(void) {
    return buf_str(&last_prompt);
}

int fake_requests(void) {
    return n_requests;
}

int fake_sessions(void) {
    return n_sessions;
}

int fake_engines(void) {
    return n_engines;
}

/* -- engine.h -- */

enum status engine_open(const char *path, const struct engine_params *params, struct engine **out,
                        struct err *err) {
    if (params->progress && !params->progress(params->user, "opening", 1, 2))
        return err_set(err, ST_CANCELLED, "cancelled");
    while (fake.load_hangs)
        if (!params->progress(params->user, "opening", 1, 2))
            return err_set(err, ST_CANCELLED, "cancelled");
        else
            usleep(1000);
    if (fake.load_fails)
        return err_set(err, ST_FORMAT, "%s: broken", path);
    bool room = fake.gpu && params->device != DEVICE_CPU && n_on_gpu == 0;
    if (fake.gpu && !room && params->device == DEVICE_CUDA)
        return err_set(err, ST_NOMEM, "%s: no room", path);
    if (room && fake.fails_on_gpu && strcmp(fake.fails_on_gpu, path) == 0)
        return err_set(err, ST_DEVICE, "%s: a fault", path);
    struct engine *e = xcalloc(1, sizeof *e);
    n_on_gpu += room;
    e->info = (struct engine_info){.path = "fake",
                                   .name = "fake",
                                   .architecture = "llama",
                                   .quant = "nf4",
                                   .device = room ? "cuda" : "cpu",
                                   .device_words = room ? "cuda" : "cpu",
                                   .device_note = fake.gpu && !room && params->device == DEVICE_AUTO
                                                      ? "on the CPU: no room"
                                                      : "",
                                   .gpu_layers = room,
                                   .kernels = "scalar",
                                   .license = "",
                                   .ctx_train = fake.ctx_tok,
                                   .ctx_tok = fake.ctx_tok,
                                   .n_vocab = 256,
                                   .bos = -1,
                                   .eos = -1,
                                   .chat_template = "",
                                   .system = "",
                                   .settings = "",
                                   .draft = ""};
    n_engines++;
    fake.kv_dir = params->kv_dir ? "states" : NULL;
    fake.kv_dir_bytes = params->kv_dir_bytes;
    fake.kv_type = params->kv_type;
    fake.device = params->device;
    fake.tensor_parallel = params->tensor_parallel;
    *out = e;
    return ST_OK;
}

void engine_close(struct engine *e) {
    n_engines -= e != NULL;
    n_on_gpu -= e && e->info.gpu_layers;
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
    return (const struct text_model *)e;
}

const char *finish_name(enum finish f) {
    static const char *const names[] = {"stop", "length", "cancel", "error"};
    return names[f];
}

void event_free(void *event) {
    struct event *e = event;
    free(e->text);
    free(e->alt);
    free(e);
}

struct session *session_new(struct engine *e) {
    struct session *s = xcalloc(1, sizeof *s);
    s->e = e;
    n_sessions++;
    return s;
}

static void end_thread(struct session *s) {
    if (s->running)
        pthread_join(s->thread, NULL);
    s->running = false;
}

void session_free(struct session *s) {
    if (!s)
        return;
    s->cancel = true;
    end_thread(s);
    if (s->owner) {
        fake.n_kept++;
        fake.kept = s->owner;
    }
    buf_release(&s->held);
    buf_release(&s->prompt);
    free(s->reply);
    free(s);
    n_sessions--;
}

enum status engine_can_stream(const struct engine *e, int stream_ctx, struct err *err) {
    (void)e;
    (void)stream_ctx;
    return fake.cannot_stream ? err_set(err, ST_UNSUPPORTED, "it has learned positions") : ST_OK;
}

void session_keep(struct session *s, int64_t owner) {
    s->owner = owner;
}

void engine_forget(struct engine *e, int64_t owner) {
    (void)e;
    fake.forgotten = owner;
}

void session_cancel(struct session *s) {
    s->cancel = true;
    n_guesses_ended += s->guessed;
    s->guessed = false;
}

static void put(struct session *s, struct event e) {
    struct event *copy = xmalloc(sizeof *copy);
    *copy = e;
    copy->request_id = s->id;
    mailbox_put(s->box, copy);
}

static void *generate(void *arg) {
    struct session *s = arg;
    struct event end = {.type = EVENT_FINISHED, .finish = FINISH_STOP, .seed = s->seed};
    /* an endless one leaves its reader time, also on a machine that has little */
    const int token_us = s->endless && s->token_us < 100 ? 100 : s->token_us;
    size_t common = 0;
    while (common < s->held.len && common < s->prompt.len && s->held.p[common] == s->prompt.p[common])
        common++;
    end.prompt_tok = (int)s->prompt.len;
    end.cached_tok = (int)common;
    end.prompt_us = 1000;
    if (s->ctx_tok && end.prompt_tok >= s->ctx_tok) { /* as many as would be left out at once */
        end.dropped_tok = end.prompt_tok - s->ctx_tok * 3 / 4;
        end.prompt_tok -= end.dropped_tok;
    }
    buf_clear(&s->held);
    buf_add(&s->held, buf_str(&s->prompt), s->prompt.len);
    put(s, (struct event){.type = EVENT_PREFILL, .n_done = end.prompt_tok, .n_total = end.prompt_tok,
                          .dropped_tok = end.dropped_tok});
    for (const char *p = s->reply; *p || s->endless; end.completion_tok++) {
        if (!*p)
            p = s->reply;
        for (int64_t until = clock_us() + token_us; clock_us() < until && !s->cancel;)
            usleep(200);
        if (s->cancel) {
            end.finish = FINISH_CANCEL;
            break;
        }
        if (end.completion_tok == s->max_tok) {
            end.finish = FINISH_LENGTH;
            break;
        }
        if (end.completion_tok == s->fail_after) {
            end.type = EVENT_ERROR;
            err_set(&end.err, ST_INTERNAL, "the fake engine failed");
            break;
        }
        size_t n = strcspn(p, " ") + strspn(p + strcspn(p, " "), " ");
        put(s, (struct event){.type = EVENT_TOKEN, .token = 7, .text = xstrndup(p, n),
                              .dropped_tok = end.dropped_tok});
        buf_add(&s->held, p, n);
        p += n;
    }
    end.decode_us = 1000 * end.completion_tok;
    s->busy = false;
    struct mailbox *box = s->box;
    put(s, end);
    mailbox_unref(box);
    return NULL;
}

static void guess(struct session *s, const struct request *r, uint64_t id, struct mailbox *events) {
    buf_clear(&s->held);
    for (size_t i = 0; i < r->n_tok; i++)
        buf_addc(&s->held, (char)r->tokens[i]);
    buf_clear(&last_guess);
    buf_adds(&last_guess, buf_str(&s->held));
    n_guesses++;
    s->guessed = true;
    s->box = events;
    s->id = id;
    put(s, (struct event){.type = EVENT_PREFILL, .n_done = (int)r->n_tok, .n_total = (int)r->n_tok});
    put(s, (struct event){.type = EVENT_FINISHED, .finish = FINISH_LENGTH, .prompt_tok = (int)r->n_tok});
}

enum status session_generate(struct session *s, const struct request *r, uint64_t request_id,
                             struct mailbox *events, struct err *err) {
    if (fake.generate_fails)
        return err_set(err, fake.generate_fails, "the fake engine refuses");
    if (s->busy)
        return err_set(err, ST_BUSY, "a request runs");
    if (r->stream && fake.cannot_stream)
        return err_set(err, ST_UNSUPPORTED, "it has learned positions");
    if ((int)r->n_tok >= s->e->info.ctx_tok && !r->stream)
        return err_set(err, ST_CONTEXT_FULL, "the prompt is too long");
    end_thread(s);
    if (r->priority == PRIORITY_IDLE) {
        assert(r->max_tok == 0);
        guess(s, r, request_id, events);
        return ST_OK;
    }
    s->guessed = false;
    buf_clear(&s->prompt);
    for (size_t i = 0; i < r->n_tok; i++)
        buf_addc(&s->prompt, (char)r->tokens[i]);
    pthread_mutex_lock(&lock);
    buf_clear(&last_prompt);
    buf_adds(&last_prompt, buf_str(&s->prompt));
    pthread_mutex_unlock(&lock);
    n_requests++;
    free(s->reply);
    s->reply = xstrdup(strstr(s->prompt.p, "\nSummarise ") ? fake.summary_reply : fake.reply);
    s->max_tok = r->max_tok;
    s->ctx_tok = r->stream ? r->stream_ctx : 0;
    fake.stream = r->stream;
    fake.keep_tok = r->keep_tok;
    fake.max_tok = r->max_tok;
    s->fail_after = fake.fail_after;
    s->token_us = fake.token_us;
    s->endless = fake.endless;
    s->seed = r->sampling.seed < 0 ? 42 : r->sampling.seed;
    s->id = request_id;
    s->box = mailbox_ref(events);
    s->busy = true;
    s->cancel = false;
    s->running = true;
    return pthread_create(&s->thread, NULL, generate, s) ? ST_INTERNAL : ST_OK;
}

/* -- text.h -- */

enum status text_prompt(const struct text_model *t, const struct render_opts *opts,
                        struct tok_list *out, struct err *err) {
    (void)t;
    json_t *list = json_loads(opts->messages_json, 0, NULL);
    assert(json_is_array(list));
    enum status st = ST_OK;
    for (size_t i = 0; i < json_array_size(list) && st == ST_OK; i++) {
        json_t *m = json_array_get(list, i);
        const char *role = json_string_value(json_object_get(m, "role"));
        if (fake.no_system && strcmp(role, "system") == 0)
            st = err_set(err, ST_FORMAT, "System role not supported");
        char *line = xasprintf("%s: %s\n", role, json_string_value(json_object_get(m, "content")));
        for (const char *p = line; *p; p++)
            tok_list_add(out, (unsigned char)*p);
        free(line);
    }
    for (const char *p = "assistant: "; *p; p++)
        tok_list_add(out, *p);
    json_decref(list);
    return st;
}

/* -- models.h -- */

enum status states_dir(char **out, struct err *err) {
    (void)err;
    *out = xstrdup("states");
    return ST_OK;
}

void states_forget(int64_t conversation) {
    fake.forgotten = conversation;
}

void model_list_release(struct model_list *l) {
    for (size_t i = 0; i < l->n; i++) {
        free(l->v[i].name);
        free(l->v[i].created);
    }
    free(l->v);
    *l = (struct model_list){0};
}

enum status models_list(struct model_list *out, struct err *err) {
    (void)err;
    *out = (struct model_list){0};
    for (const char *p = fake.installed; *p;) {
        size_t n = strcspn(p, " ");
        out->v = xreallocarray(out->v, out->n + 1, sizeof *out->v);
        out->v[out->n] = (struct model_info){.name = xstrndup(p, n),
                                             .created = xasprintf("2026-01-%02zu", out->n + 1)};
        out->n++;
        p += n;
        p += strspn(p, " ");
    }
    return ST_OK;
}

enum status models_resolve(const char *name_or_path,
                           bool (*progress)(void *user, const char *what, uint64_t done,
                                            uint64_t total),
                           void *user, char **out, struct err *err) {
    if (strcmp(name_or_path, "missing") == 0)
        return err_set(err, ST_NOT_FOUND, "missing: no such model");
    if (progress && !progress(user, "resolving", 1, 1))
        return err_set(err, ST_CANCELLED, "cancelled");
    *out = xstrdup(name_or_path);
    return ST_OK;
}
