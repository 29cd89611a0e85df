/*
 * chat.h - what a conversation does: a turn, branches, settings, the choice of a model.
 *
 * A struct chat is one open conversation with a store and (once loaded) an engine. `ui`, `run`
 * and later `serve` differ only in where text comes from and where events go. All calls come
 * from one thread; nothing here blocks on the engine: what happens is fetched with chat_poll()
 * when chat_fd() is readable (or at least every 250 ms while chat_busy()).
 *
 * A turn: the user's message is committed, the history of the active branch goes through the
 * template, the reply row exists before the first token, it is saved at least every 250 ms
 * while it streams, and ends complete, stopped, interrupted or failed. Sessions are kept per
 * conversation, so that a second turn computes only what is new, also after another
 * conversation was open in between.
 */
#ifndef LLMCHAT_CHAT_CHAT_H
#define LLMCHAT_CHAT_CHAT_H

#include "chat/config.h"
#include "chat/settings.h"
#include "engine/engine.h"
#include "store/store.h"

struct chat;

/* store and config are borrowed and outlive the chat. The conversation is a new one that
 * reaches the store with its first message (or draft). */
struct chat *chat_new(struct store *store, const struct config *config);
/* Stops what runs (the reply is kept as `stopped`), saves, closes the engine. NULL is allowed.
 */
void chat_free(struct chat *c);

/* -- the model -- */
enum model_state { MODEL_NONE, MODEL_LOADING, MODEL_READY, MODEL_FAILED };
/* Loads in a background thread; the old model stays until the new one is there, unless it has
 * the room on a GPU that the new one needs. EV_MODEL events follow. */
enum status chat_load_model(struct chat *c, const char *name, struct err *err);
/* From now on models run on the CPU, whatever the configuration says: loads the one in use
 * there. */
enum status chat_load_on_cpu(struct chat *c, struct err *err);
enum model_state chat_model_state(const struct chat *c);
/* The new model is loaded, and is taken into use when the reply that runs has ended. */
bool chat_model_waits(const struct chat *c);
/* The file of the model in use was written or replaced since it was opened: loading it again
 * is another model. */
bool chat_model_changed(const struct chat *c);
/* Opens the model at `path` with a draft model (a name; NULL or "": none), for p, which
 * says the rest. One that nobody asked for in so many words (`wanted`) is left out when it
 * is this model itself, does not fit it, or is not there. */
enum status chat_open_engine(const char *path, const char *draft, bool wanted,
                             struct engine_params *p, struct engine **out, struct err *err);
const char *chat_model(const struct chat *c);                     /* name; "" none */
const struct engine_info *chat_engine_info(const struct chat *c); /* NULL until one is ready */
/* engine_gpu_load() of the model in use, which there is. */
enum status chat_gpu_load(const struct chat *c, int index, struct buf *out, struct err *err);
/* What config_check_draft() says of the settings and the model in use; ST_OK without one. */
enum status chat_check_draft(const struct chat *c, struct err *err);
/* What to load at start: wanted (or NULL), else the configuration's, else the conversation's,
 * else the last used, else the only one installed. ST_NOT_FOUND when nothing is installed, with
 * what to type. The caller frees *name. */
enum status chat_choose_model(struct chat *c, const char *wanted, char **name, struct err *err);

/* -- the conversation -- */
enum status chat_open(struct chat *c, int64_t conv, struct err *err); /* 0: a new one */
/* Removes what was saved of a conversation's state for a quick return; not the conversation. */
void chat_forget(struct chat *c, int64_t conv);
int64_t chat_id(const struct chat *c); /* 0: not stored yet */
const char *chat_title(const struct chat *c);
enum status chat_set_title(struct chat *c, const char *title, struct err *err);
const char *chat_system(const struct chat *c);
enum status chat_set_system(struct chat *c, const char *system, struct err *err);
const char *chat_draft(const struct chat *c);
enum status chat_set_draft(struct chat *c, const char *text, struct err *err);
const struct settings *chat_settings(const struct chat *c);
enum status chat_set(struct chat *c, const char *name, const char *value,
                     struct err *err); /* one setting, saved */
enum status chat_set_all(struct chat *c, const struct settings *s, struct err *err);
/* The active branch, system prompt not included; valid until the next call that changes the
 * conversation or chat_poll(). The last message's text grows while it streams. */
const struct message_list *chat_messages(const struct chat *c);
/* Reads the conversation again after another process changed it. */
enum status chat_reload(struct chat *c, struct err *err);

/* -- a turn -- */
/* Commits the message, then starts the reply. ST_BUSY while one runs; without a model the
 * message is stored and ST_NOT_FOUND returned. ST_CONTEXT_FULL: stored, and the person must
 * choose: chat_resolve(). */
enum status chat_send(struct chat *c, const char *text, struct err *err);
/* A new branch: another reply to the user's message before `message` (a reply, or a user's
 * message that has none). */
enum status chat_regenerate(struct chat *c, int64_t message, struct err *err);
/* A new branch: the user's message with another text, and a reply to it. */
enum status chat_edit(struct chat *c, int64_t message, const char *text, struct err *err);
/* Makes the neighbour branch (step +1, -1) of a message active. ST_NOT_FOUND at the end. */
enum status chat_switch_branch(struct chat *c, int64_t message, int step, struct err *err);
/* Ends the reply that streams; it is kept, marked `stopped`. */
void chat_stop(struct chat *c);
bool chat_busy(const struct chat *c);
/* Tries once more to save what the store did not take (EV_STORE_FAILED); true when something is
 * in memory only still. */
bool chat_unsaved(struct chat *c);
/* The draft, a moment after it was changed: the prompt it will be part of is computed as far as
 * it stands, while nothing else is to do (config: prefill_draft). No events; "" ends it. */
void chat_prefill_draft(struct chat *c, const char *text);
/* What the conversation costs: tokens of the history as the model sees it, and the context's
 * size (0: no model). */
void chat_context(const struct chat *c, int *used_tok, int *ctx_tok);
/* After ST_CONTEXT_FULL or EV_CONTEXT_FULL. SUMMARISE: the model condenses the older turns
 * (events as in a turn, the summary is stored as a message of the tree and shown); DROP: oldest
 * turns are left out of the prompt from now on (the system prompt stays, nothing is deleted);
 * STREAM: the oldest words are left out as the conversation goes on, until another one is
 * opened (engine.h, request.stream); STOP: nothing is sent. */
enum status chat_resolve(struct chat *c, enum overflow how, struct err *err);
/* Whether this model can stream: ST_UNSUPPORTED with the reason when it can't. */
enum status chat_can_stream(const struct chat *c, struct err *err);
/* Tokens of the conversation that streaming has left out. */
int chat_left_out(const struct chat *c);
/* Messages at the front of the branch that are left out whole by that; where it is not 0, a
 * part of the next one mostly is, too. */
int chat_forgotten(const struct chat *c);
/* Messages at the front of the branch that the model no longer sees since turns were dropped or
 * summarised. */
int chat_dropped(const struct chat *c);

/* -- events -- */
enum chat_event_type {
    EV_NONE,
    EV_MODEL,   /* loading progress, ready or failed: text, done, total; chat_model_state() */
    EV_PREFILL, /* done of total tokens */
    EV_TEXT,    /* the reply grew by text */
    EV_TOKEN,   /* only when chat_want_tokens(): one token with its text (also when empty) */
    EV_DONE,    /* the reply is complete or stopped; result */
    EV_FAILED,  /* the reply failed: err */
    EV_CONTEXT_FULL, /* the context filled up while it streamed; what came is kept */
    EV_STORE_FAILED, /* saving failed (disk full …): err; text stays in memory and is tried
                        again */
};
struct chat_event {
    enum chat_event_type type;
    char *text;
    int32_t token; /* EV_TOKEN: -1 when text only was held back before */
    bool held;     /* EV_TOKEN: text up to here is held back and comes later */
    uint64_t done, total;
    const struct event
        *result; /* EV_DONE: counts, timings, seed; valid until the next chat_poll */
    struct err err;
};
/* Handles what has come and gives one event; false when there is none now. chat_event_release()
 * after each. */
bool chat_poll(struct chat *c, struct chat_event *out);
void chat_event_release(struct chat_event *e);
int chat_fd(const struct chat *c); /* readable when chat_poll() has something */
void chat_want_tokens(struct chat *c, bool want);
/* Live figures for the status line: decode and prefill tokens per second of the current or last
 * reply of this model, tokens of its prompt taken from the KV cache; 0: not known (yet). */
void chat_rates(const struct chat *c, double *decode_tok_s, double *prefill_tok_s,
                int *reused_tok);

#endif
