/*
 * run.c - `llmchat run MODEL [PROMPT…]`: one turn without the interface.
 *
 * The same chat room that the interface uses, over the person's database when the turn belongs
 * to a stored conversation
 * (--chat, -c, --save) and over one in memory when it does not. So an answer that is cut off by
 * a closed terminal is kept here as there. --raw goes to the engine directly: no template, no
 * conversation.
 */
#include "base/utf8.h"
#include "chat/chat.h"
#include "cmd/cmd.h"
#include "engine/models.h"
#include "engine/text.h"
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct opt run_opts[] = {
    {"json", 0, OPT_FLAG, NULL, 0, "Print one JSON object a line: tokens, then done"},
    {"chat", 0, OPT_TEXT, "ID", 0, "Continue this stored conversation"},
    {"continue", 'c', OPT_FLAG, NULL, 0, "Continue the last conversation"},
    {"save", 0, OPT_FLAG, NULL, 0, "Store the conversation"},
    {"system", 0, OPT_TEXT, "TEXT", 0, "System prompt"},
    {"raw", 0, OPT_FLAG, NULL, 0, "Give the prompt to the model as it is, without a template"},
    {"verbose", 'v', OPT_FLAG, NULL, 0, "Print speed and counts to standard error at the end"},
    {"draft", 0, OPT_TEXT, "MODEL", 0,
     "A smaller model with the same vocabulary that guesses for this one (see --speculation)"},
    COMPUTE_OPTS(0),
    {0},
};

enum { PROMPT_MAX_BYTES = 64 << 20 };

struct run {
    bool json, verbose;
    char last;            /* last byte of the answer that was printed */
    json_t *kept;         /* line of a token whose text may still grow, NULL: none */
    struct err store_err; /* the last time that saving failed; it is tried again */
};

static void print_kept(struct run *r) {
    if (r->kept)
        put_json(r->kept);
    r->kept = NULL;
}

/* A line a token, no more and no less: what was held back to the end (half a character, the
 * beginning of a stop string) belongs to the last one, which therefore waits while it is. */
static void print_token(struct run *r, int32_t token, const char *text, bool held) {
    if (token < 0 && r->kept) {
        const char *before = json_string_value(json_object_get(r->kept, "text"));
        char *whole = xasprintf("%s%s", before, text);
        json_object_set_new(r->kept, "text", json_string(whole));
        free(whole);
        return;
    }
    print_kept(r);
    r->kept = json_pack("{s:s, s:i, s:s}", "type", "token", "id", (int)token, "text", text);
    if (!held)
        print_kept(r);
}

static void print_text(struct run *r, const char *text) {
    if (!*text)
        return;
    put_text(text, strlen(text));
    fflush(stdout);
    r->last = text[strlen(text) - 1];
}

static void print_done(struct run *r, const struct event *e) {
    double prefill_s = (double)e->prompt_us / 1e6, decode_s = (double)e->decode_us / 1e6;
    print_kept(r);
    if (r->json)
        put_json(json_pack("{s:s, s:s, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:i, s:i, s:i}",
                           "type", "done", "finish_reason", finish_name(e->finish),
                           "prompt_tokens", e->prompt_tok, "cached_tokens", e->cached_tok,
                           "completion_tokens", e->completion_tok, "prompt_us",
                           (json_int_t)e->prompt_us, "decode_us", (json_int_t)e->decode_us,
                           "ttft_us", (json_int_t)e->ttft_us, "seed", (json_int_t)e->seed,
                           "drafted_tokens", e->drafted_tok, "accepted_tokens", e->accepted_tok,
                           "dropped_tokens", e->dropped_tok));
    else if (r->last != '\n' && isatty(STDOUT_FILENO))
        putchar('\n');
    fflush(stdout);
    if (r->verbose && e->dropped_tok)
        note("%d tokens did not fit the context and were left out", e->dropped_tok);
    if (r->verbose && e->drafted_tok)
        note("guessed %d tokens, %d of them right", e->drafted_tok, e->accepted_tok);
    if (r->verbose)
        note("prompt %d tokens (%d cached) in %.3f s, answer %d tokens in %.3f s (%.1f tok/s), "
             "first after %.3f s, seed %lld, finish %s",
             e->prompt_tok, e->cached_tok, prefill_s, e->completion_tok, decode_s,
             decode_s > 0 ? (e->completion_tok - 1) / decode_s : 0.0, (double)e->ttft_us / 1e6,
             (long long)e->seed, finish_name(e->finish));
}

/* The words of the command line, then standard input where it is no terminal. */
static enum status gather_prompt(struct args *a, struct buf *out, struct err *err) {
    for (int i = 1; i < a->n_pos; i++)
        buf_addf(out, "%s%s", i > 1 ? " " : "", a->pos[i]);
    if (!isatty(STDIN_FILENO)) {
        struct buf in = {0};
        enum status st = read_input("-", PROMPT_MAX_BYTES, &in, err);
        if (st == ST_OK && in.len)
            buf_addf(out, "%s", out->len ? "\n\n" : "");
        if (st == ST_OK)
            buf_add(out, buf_str(&in), in.len);
        buf_release(&in);
        CHECK(st);
    }
    size_t good = utf8_valid_prefix(buf_str(out), out->len);
    if (good < out->len)
        return err_set(err, ST_FORMAT, "the prompt is invalid UTF-8 at byte %zu", good);
    if (strlen(buf_str(out)) != out->len)
        return err_set(err, ST_FORMAT, "the prompt holds a NUL byte at byte %zu",
                       strlen(buf_str(out)));
    if (!out->len)
        return err_set(err, ST_USAGE, "the prompt is empty");
    return ST_OK;
}

/* Guesses that only a draft model could make: without one an error where the command line asks
 * for them, */
static enum status check_speculation(const struct args *a, struct err *err) {
    struct err why;
    for (size_t i = 0; i < a->set_names.n; i++)
        if (strcmp(a->set_names.v[i], "speculation") == 0 &&
            config_check_draft(&a->config, &a->config.settings, NULL, &why) != ST_OK)
            return err_set(err, ST_USAGE, "--%s", why.msg);
    return ST_OK;
}

/* and news where the configuration or the conversation does; and of a GPU that is not used, or
 * not for all. */
static void note_model(const struct args *a, const struct settings *s,
                       const struct engine_info *m) {
    struct err why;
    note_device(m);
    if (config_check_draft(&a->config, s, m->draft, &why) != ST_OK)
        note("%s", why.msg);
}

/* -- raw: the engine alone -- */

static enum status raw_events(struct run *r, struct session *s, struct mailbox *box,
                              bool *cancelled, struct err *err) {
    for (;;) {
        struct pollfd p[2] = {{.fd = mailbox_fd(box), .events = POLLIN},
                              {.fd = interrupt_fd(), .events = POLLIN}};
        poll(p, *cancelled ? 1 : 2, -1);
        if ((interrupted() || ferror(stdout)) && !*cancelled) {
            *cancelled = true;
            session_cancel(s);
        }
        for (struct event *e; (e = mailbox_take(box));) {
            enum event_type type = e->type;
            if (type == EVENT_TOKEN && r->json)
                print_token(r, e->token, e->text, e->held);
            else if (type == EVENT_TOKEN)
                print_text(r, e->text);
            else if (type == EVENT_FINISHED)
                print_done(r, e);
            else if (type == EVENT_ERROR && err)
                *err = e->err;
            event_free(e);
            if (type == EVENT_ERROR)
                return err->code;
            if (type == EVENT_FINISHED)
                return ST_OK;
        }
    }
}

/* The answer may be longer than the context where the configuration has it stream. The other
 * ways leave out turns of a conversation: here are none. */
static enum status raw_request(const struct args *a, struct engine *e, struct session *session,
                               const struct tok_list *ids, struct mailbox *box,
                               struct err *err) {
    const struct settings *s = &a->config.settings;
    struct err why = {0};
    struct request q = {.tokens = ids->v,
                        .n_tok = ids->n,
                        .sampling = s->sampling,
                        .max_tok = s->max_tokens > 0 ? s->max_tokens : -1,
                        .stop = (const char *const *)s->stop.v,
                        .n_stop = s->stop.n,
                        .speculation = (enum speculation)s->speculation};
    if (a->config.context_full == OVERFLOW_STREAM)
        q.stream = engine_can_stream(e, 0, &why) == ST_OK;
    enum status st = session_generate(session, &q, 1, box, err);
    if (st != ST_CONTEXT_FULL)
        return st;
    struct err full = *err;
    if (why.code)
        return err_set(err, st, "%s; %s", full.msg, why.msg);
    return err_set(err, st, "%s: set context_full to stream in %s, or raise ctx", full.msg,
                   a->config.path);
}

static enum status run_raw(struct args *a, struct run *r, const char *prompt, bool *cancelled,
                           struct err *err) {
    struct settings *s = &a->config.settings;
    struct engine_params p = config_engine(&a->config);
    char *path = NULL;
    struct engine *e = NULL;
    struct session *session = NULL;
    struct mailbox *box = mailbox_new(event_free);
    struct tok_list ids = {0};
    enum status st;
    p.ctx_tok = s->ctx;
    p.progress = progress_show;
    TRY(models_resolve(a->pos[0], progress_show, NULL, &path, err));
    TRY(chat_open_engine(path, a->config.draft_model, a->config.draft_wanted, &p, &e, err));
    settings_suggest(s, engine_info(e)->settings);
    progress_clear();
    note_model(a, s, engine_info(e));
    struct encode_opts o = {.bos = text_adds_bos(engine_text(e))};
    TRY(text_encode(engine_text(e), prompt, strlen(prompt), &o, &ids, err));
    session = session_new(e);
    TRY(raw_request(a, e, session, &ids, box, err));
    TRY(raw_events(r, session, box, cancelled, err));
out:
    session_free(session);
    engine_close(e);
    mailbox_unref(box);
    tok_list_release(&ids);
    free(path);
    return st;
}

/* -- a turn of a conversation -- */

static enum status wait_for_model(struct chat *c, struct err *err) {
    while (chat_model_state(c) == MODEL_LOADING) {
        struct pollfd p[2] = {{.fd = chat_fd(c), .events = POLLIN},
                              {.fd = interrupt_fd(), .events = POLLIN}};
        poll(p, 2, 250);
        if (interrupted())
            return err_set(err, ST_CANCELLED, "interrupted");
        struct chat_event e;
        while (chat_poll(c, &e)) {
            if (e.type == EV_MODEL && e.total)
                progress_show(NULL, e.text ? e.text : "loading", e.done, e.total);
            if (e.type == EV_MODEL && chat_model_state(c) == MODEL_FAILED)
                *err = e.err;
            chat_event_release(&e);
        }
    }
    progress_clear();
    return chat_model_state(c) == MODEL_READY ? ST_OK : err->code ? err->code : ST_INTERNAL;
}

/* Prints what comes until the turn ends. */
static enum status turn_events(struct run *r, struct chat *c, bool *cancelled,
                               struct err *err) {
    for (;;) {
        struct pollfd p[2] = {{.fd = chat_fd(c), .events = POLLIN},
                              {.fd = interrupt_fd(), .events = POLLIN}};
        poll(p, *cancelled ? 1 : 2, 250);
        if ((interrupted() || ferror(stdout)) && !*cancelled) { /* nobody reads it any more */
            *cancelled = true;
            chat_stop(c);
        }
        struct chat_event e;
        while (chat_poll(c, &e)) {
            enum chat_event_type type = e.type;
            if (type == EV_TOKEN && r->json)
                print_token(r, e.token, e.text ? e.text : "", e.held);
            else if (type == EV_TEXT && !r->json)
                print_text(r, e.text);
            else if (type == EV_DONE)
                print_done(r, e.result);
            else if (type == EV_STORE_FAILED)
                r->store_err = e.err;
            else if (type == EV_FAILED)
                *err = e.err;
            chat_event_release(&e);
            if (type == EV_FAILED)
                return err->code;
            if (type == EV_DONE)
                return ST_OK;
        }
        if (!chat_busy(c))
            return ST_OK;
    }
}

/* What the command line says comes before what the conversation remembers, and before what the
 * configured prompt suggests. */
static enum status use_given_settings(const struct args *a, struct chat *c, struct err *err) {
    struct settings s;
    if (!a->set_names.n)
        return ST_OK;
    settings_init(&s);
    settings_copy(&s, chat_settings(c));
    for (size_t i = 0; i < a->set_names.n; i++)
        setting_copy(&s, &a->config.settings, setting_find(a->set_names.v[i]));
    enum status st = chat_set_all(c, &s, err);
    settings_release(&s);
    return st;
}

static enum status run_turn(struct args *a, struct run *r, const char *prompt, bool *cancelled,
                            struct err *err) {
    struct store *store = NULL;
    struct chat *c = NULL;
    int64_t id = 0;
    enum status st;
    const char *chat_arg = arg_text(a, "chat");
    bool stored = chat_arg || arg_flag(a, "continue") || arg_flag(a, "save");
    TRY(stored ? open_store(&store, err) : store_open(":memory:", &store, err));
    if (chat_arg)
        TRY(parse_id(chat_arg, &id, err));
    else if (arg_flag(a, "continue"))
        TRY(store_conv_last(store, &id, err));
    c = chat_new(store, &a->config);
    chat_want_tokens(c, r->json);
    if (id)
        TRY(chat_open(c, id, err));
    TRY(use_given_settings(a, c, err));
    if (arg_text(a, "system"))
        TRY(chat_set_system(c, arg_text(a, "system"), err));
    TRY(chat_load_model(c, a->pos[0], err));
    TRY(wait_for_model(c, err));
    note_model(a, chat_settings(c), chat_engine_info(c));
    st = chat_send(c, prompt, err);
    if (st == ST_CONTEXT_FULL && a->config.context_full != OVERFLOW_ASK &&
        a->config.context_full != OVERFLOW_STOP && a->config.context_full != OVERFLOW_STREAM)
        st = chat_resolve(c, a->config.context_full, err);
    if (st == ST_CONTEXT_FULL) { /* here nobody can be asked */
        struct err full = *err;
        bool streams = a->config.context_full == OVERFLOW_STREAM; /* as far as it can */
        err_set(err, st, "%s: set context_full to summarise%s in %s", full.msg,
                streams ? " or drop" : ", drop or stream", a->config.path);
    }
    TRY(st);
    TRY(turn_events(r, c, cancelled, err));
    if (chat_unsaved(c)) { /* the answer was printed, but a script must know */
        *err = r->store_err;
        TRY(err->code ? err->code
                      : err_set(err, ST_DB, "%s: the answer was not saved", store_path(store)));
    }
    if (stored && !id)
        note("stored as conversation %lld", (long long)chat_id(c));
out:
    chat_free(c);
    store_close(store);
    return st;
}

/* A model and no prompt on a terminal: the person wants to talk. */
static int talk(struct args *a) {
    const char *system = arg_text(a, "system");
    if (system) { /* of new conversations; before what the configuration says */
        free(a->config.system);
        a->config.system = xstrdup(system);
    }
    return open_interface(a, a->pos[0]);
}

int cmd_run(struct args *a) {
    struct err err = {0};
    if (use_compute_options(a, &err) != ST_OK)
        return fail(&err);
    struct run r = {.json = arg_flag(a, "json"), .verbose = arg_flag(a, "verbose")};
    bool terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    bool raw = arg_flag(a, "raw"), chat = arg_text(a, "chat") || arg_flag(a, "continue");
    if (raw && (chat || arg_flag(a, "save") || arg_text(a, "system")))
        return failf(ST_USAGE, "--raw knows no conversation: not with --chat, --continue, "
                               "--save or --system");
    if (check_speculation(a, &err) != ST_OK)
        return fail(&err);
    if (a->n_pos == 1 && terminal && !r.json && !raw)
        return talk(a);
    interrupt_catch();
    struct buf prompt = {0};
    bool cancelled = false;
    enum status st = gather_prompt(a, &prompt, &err);
    if (st == ST_OK)
        st = raw ? run_raw(a, &r, prompt.p, &cancelled, &err)
                 : run_turn(a, &r, prompt.p, &cancelled, &err);
    buf_release(&prompt);
    print_kept(&r);
    if (st != ST_OK)
        return fail(&err);
    return cancelled && interrupted() ? 130 : 0; /* cmd_main tells of a broken output */
}
