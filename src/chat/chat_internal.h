/*
 * chat_internal.h - the state of an open conversation, shared by the files of chat/.
 *
 * chat.c      life cycle, the conversation's own values, the event queue
 * loader.c    a model is opened in a background thread
 * session.c   which KV timeline belongs to which conversation
 * context.c   what the model is shown, and what to leave out when it is too much
 * summary.c   the model condenses older turns
 * turn.c      a reply from its request to its last save
 * draft.c     the prompt is computed while it is typed
 */
#ifndef LLMCHAT_CHAT_CHAT_INTERNAL_H
#define LLMCHAT_CHAT_CHAT_INTERNAL_H

#include "chat/chat.h"
#include "engine/models.h"
#include "engine/text.h"
#include <pthread.h>
#include <sys/stat.h>

#define SUMMARY_FINISH "summary" /* message.finish of a summary in the tree */

/* Messages of ours in the mailbox begin like a struct event, with a type that the engine never
 * uses. */
enum { NOTE_TYPE = 1000 };
struct note {
    enum event_type type; /* NOTE_TYPE */
    enum { NOTE_WAKE, NOTE_PROGRESS, NOTE_LOADED } kind;
    struct loader *loader;
    char *text;
    uint64_t done, total;
};

struct loader; /* loader.c */

enum { N_SESSIONS = 8, CONV_NEW = -1 };
struct session_slot {
    int64_t conv; /* 0: free; CONV_NEW: the one that has no row yet */
    struct session *session;
    uint64_t used;
};

struct queued {
    struct chat_event ev;
    struct event *result; /* owned */
    struct queued *next;
};

/* A reply, or one round of a summary, that the engine computes. */
struct turn {
    enum { TURN_NONE, TURN_REPLY, TURN_SUMMARY } kind;
    uint64_t request;
    struct session *session; /* borrowed for a reply, owned for a summary */
    int64_t msg;             /* the reply's row */
    struct buf text;         /* all that came */
    size_t saved_len;        /* of text, in the store */
    int64_t saved_us, start_us, first_us;
    int n_tok, prompt_tok, limit_tok; /* limit_tok: what max_tok was in the request */
    int left_out;                     /* tokens of both, by streaming */
    bool limited_by_ctx;
};

/* What a summary still has to read. */
struct summary {
    size_t from, to; /* of the branch's messages, still to condense */
    size_t round_to; /* what the running round condenses ends here */
    char *so_far;    /* summary of what was before; NULL none */
    bool then_reply;
};

/* A reply that ended and could not be saved yet. */
struct unsaved {
    struct unsaved *next;
    struct message m;
};

struct context_count {
    bool valid;
    int used, left_out;
    int forgotten, forgotten_for; /* chat_forgotten() for so many left out, 0: not known, */
    int64_t forgotten_leaf;       /* of this branch */
};

struct chat {
    struct store *store;
    const struct config *config;
    struct mailbox *box;
    struct queued *queue, *queue_last;
    struct event *result; /* of the event that was given last */
    bool in_poll, want_tokens;
    bool tail_attached; /* the last message's text is the turn's buffer */

    /* model */
    bool on_cpu; /* chat_load_on_cpu() was called */
    struct engine *engine;
    char *model;
    char *model_path;       /* the file that was opened, */
    struct stat model_as;   /* and what it was then; zeros when unknown */
    struct loader *loaders; /* all whose threads are not joined */
    struct loader *loading; /* the one that counts; NULL none */
    struct loader *ready;   /* loaded, waits for the end of the turn */
    pthread_t closer;       /* closes the engine that was in use before, when `closing` */
    bool closing;
    bool load_failed;
    bool fail_shown; /* the failure was given as an event */
    bool made_way;   /* the older model did, for the one that failed */

    /* conversation */
    int64_t id, leaf, keep_from;
    char *title, *system, *draft;
    struct settings settings;
    bool own_settings; /* differ from the configuration's: saved with the conversation */
    struct message_list msgs;
    struct session_slot slots[N_SESSIONS];
    uint64_t clock;

    struct turn turn;
    struct summary summary;
    struct unsaved *unsaved;
    int64_t retry_us;      /* when saving is tried again after a failure, 0: no failure */
    bool full;             /* the person must choose: chat_resolve() */
    bool streams;          /* was chosen, for as long as this conversation is open */
    bool full_reply;       /* and then a reply to the leaf is due */
    int64_t full_old_leaf; /* what was active before */
    uint64_t last_request;
    int64_t guess; /* session slot that computes a draft, or did so last; 0: none */

    struct context_count *count;
    double decode_tok_s, prefill_tok_s;
    int reused_tok;
};

/* -- chat.c -- */
/* Appends an event; text is copied; takes result. */
void chat_queue(struct chat *c, enum chat_event_type type, const char *text, uint64_t done,
                uint64_t total, const struct err *err, struct event *takes_result);
/* Hands what came in the mailbox to who it is for. */
void chat_message(struct chat *c, void *takes_msg);
/* Reads the branch that ends in `leaf` and makes it the one that is shown. */
enum status chat_read_branch(struct chat *c, int64_t leaf, struct err *err);
/* The conversation's row, made when there is none yet. */
enum status chat_ensure(struct chat *c, struct err *err);
/* Lets the last message's text be the growing text of the turn, and back to a copy of its own.
 */
void chat_attach_tail(struct chat *c);
void chat_detach_tail(struct chat *c);
/* The first line of a text as a title: at most 60 cells, cut between words. The caller frees.
 */
char *chat_title_from(const char *text);
/* Settings that nobody chose become those that the model in use suggests. */
void chat_follow_model(struct chat *c);
/* Index of a message in the branch; -1. */
int chat_index(const struct chat *c, int64_t message);

/* -- loader.c -- */
void loader_note(struct chat *c, struct note *n);
/* Makes a model that is loaded and waits the one in use, unless a turn runs. */
void loader_adopt(struct chat *c);
/* Between two events, the first of which told of a failed load: what was in use is again. */
void loader_failure_shown(struct chat *c);
void loader_end_all(struct chat *c);
void note_free(struct note *n);

/* -- session.c -- */
struct session *session_of(struct chat *c, int64_t conv);
struct session *session_find(struct chat *c, int64_t conv); /* NULL when it has none */
void sessions_release(struct chat *c);

/* -- context.c -- */
int context_size(const struct chat *c); /* tokens; 0 without a model */
/* Whether requests of this conversation go on beyond the context. */
bool context_streams(const struct chat *c);
/* Tokens at the front of a prompt that come before the conversation itself. */
int context_head_tok(const struct chat *c, const struct tok_list *prompt);
size_t context_common(const struct tok_list *a, const struct tok_list *b);
/* Room that is kept for an answer; one that streams finds its own. */
int context_reserve(const struct chat *c);
/* Where the visible part of the branch begins; *summary the index of the summary in force, -1
 * none. */
size_t context_start(const struct chat *c, int *summary);
/* Tokens of the branch from `start` on (of its first n messages), with `extra` (may be NULL) as
 * a further message of the user. */
enum status context_tokens(const struct chat *c, size_t start, size_t n, const char *extra,
                           struct tok_list *out, struct err *err);
/* Tokens of a list of our own. */
enum status context_render(const struct chat *c, const char *messages_json,
                           struct tok_list *out, struct err *err);
enum status context_too_long(const struct chat *c, size_t n_tok, struct err *err);
/* Leaves the oldest turns out until there is room again; stored with the conversation. */
enum status context_drop(struct chat *c, struct err *err);
void context_forget_count(struct chat *c);

/* -- summary.c -- */
enum status summary_start(struct chat *c, bool then_reply, struct err *err);
/* A round ended; its text is in the turn. */
void summary_round_done(struct chat *c, struct event *takes_e);
void summary_release(struct chat *c);

/* -- draft.c -- */
/* Nobody wants what is being guessed any more. */
void draft_end(struct chat *c);

/* -- turn.c -- */
/* A reply below the active leaf. overflow: what to do when the history does not fit. */
enum status turn_start(struct chat *c, enum overflow overflow, struct err *err);
/* Hands tokens to the engine. session: owned by the turn when kind is a summary. */
enum status turn_request(struct chat *c, const struct request *r, struct session *session,
                         struct err *err);
void turn_event(struct chat *c, struct event *takes_e);
/* Saves what is due; `now`: all that is unsaved. */
void turn_save(struct chat *c, bool now);
/* A request for this prompt streams, when the conversation does. */
void turn_stream(struct chat *c, const struct tok_list *prompt, struct request *r);
/* Cancels and waits until the reply has ended and is saved. */
void turn_stop_and_wait(struct chat *c);
void turn_clear(struct chat *c);
/* chat_rates() of a reply that begins, or of a model that has not replied. */
void turn_forget_rates(struct chat *c);

#endif
