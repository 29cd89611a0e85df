/*
 * engine.h - everything between text and text, seen from outside.
 *
 * An engine is a loaded model with its backend, its pool of KV blocks and one thread that runs
 * it. A session is one timeline of tokens with the KV state that belongs to it. A request asks
 * a session to continue a prompt; what happens comes back as events in a mailbox that the
 * caller owns. Callers never see tensors, blocks or threads.
 *
 * Beside this page the engine has two more: models.h (the models on disk) and text.h (tokens
 * and templates without running a model). Other rooms include only these three.
 *
 * Every function may be called from any thread; a session is used by one thread at a time.
 */
#ifndef LLMCHAT_ENGINE_ENGINE_H
#define LLMCHAT_ENGINE_ENGINE_H

#include "base/err.h"
#include "base/mailbox.h"
#include "base/mem.h"
#include <stddef.h>
#include <stdint.h>

enum device { DEVICE_AUTO, DEVICE_CPU, DEVICE_CUDA };
#define DEVICE_WORDS "auto|cpu|cuda" /* in the same order */

/* What a number of the KV cache is stored as. auto: f16, bf16 where the kernels multiply that,
 * and f32 for models whose weights are f32 or bf16. int8 has a scale for each token and head,
 * of K and of V; fp8 (e4m3, quant/fp8.h) has none. */
enum kv_type { KV_AUTO, KV_F32, KV_F16, KV_BF16, KV_I8, KV_FP8 };
#define KV_TYPE_WORDS "auto|f32|f16|bf16|int8|fp8" /* in the same order */

struct engine_params {
    enum device device; /* auto: a GPU if one has room for a layer, else the CPU */
    int gpu_layers; /* layers on a GPU, the last ones; those before them and the embedding are
                       on the CPU then. As many as the model has, or more: all of it. 0: as
                       many as there is room for. None is device CPU */
    double gpu_memory_utilization; /* the part of a GPU's memory that may be in use when all is
                                      allocated, 0..1; what the model leaves of it becomes the
                                      KV pool. 0: kv_bytes, or the default, within 0.9 of it */
    int tensor_parallel; /* GPUs that share each layer, the first ones; 0, 1: one. More: device
                            auto is cuda, all layers are there (gpu_layers that are fewer are
                            ST_USAGE), and the draft model is on the first alone */
    int threads; /* 0: one for each fast core this process may use (hyperthreads of a core
                    count once) */
    int ctx_tok; /* longest timeline of a session; 0: the model's, at most 8192 by default */
    bool crossovers; /* the borders between a GPU's kernels are measured on it once, in about a
                        tenth of a second, and kept in the state folder; else the usual ones */
    size_t kv_bytes; /* size of the KV pool; 0: room for about four full contexts, on the CPU
                        in an eighth of memory at most */
    uint64_t swap_bytes;  /* host memory that blocks of a GPU's KV pool may go to, in pieces as
                             it is needed; 0: none. Not for the draft model's, and not used where
                             the pool is the host's memory */
    enum kv_type kv_type; /* also of the draft model */
    const char *draft_path; /* one of our model files with the same vocabulary, smaller, that
                               guesses for this one; NULL: none. The KV pool is shared out so
                               that both hold as many tokens */
    const char *kv_dir; /* folder of saved states (models.h: states_dir); copied; NULL: none */
    uint64_t kv_dir_bytes; /* what it may hold, of all models together; 0: nothing is saved */
    int kv_rest_ms;  /* how long a session rests before its state is saved; 0: 20 seconds */
    int max_waiting; /* requests that wait for their first step; one more is refused. 0: 1024 */
    /* Called while a file is opened or converted, from the calling thread; false cancels. May
     * be NULL. */
    bool (*progress)(void *user, const char *what, uint64_t done, uint64_t total);
    void *user;
};

struct engine_info {
    const char *path, *name;  /* file, and the model's name from its metadata or its file */
    const char *architecture; /* "llama" */
    const char *quant;        /* "nf4", "int8", "bf16", "f32"; a kept source's own word */
    const char *device;       /* "cpu", "cuda"; "cuda" also where it has a part of the model */
    const char *device_words; /* for people: "cpu", "cuda", "cuda, 20 of 32 layers", "cuda, 2
                                 GPUs" */
    int n_gpu;                /* GPUs that it runs on */
    int gpu_layers;           /* layers on the GPU */
    const char *kernels;      /* "scalar", "avx2", "avx512"; "sm_90" */
    const char *device_note;  /* where the model is, and why, when not all of it found room on
                                 a GPU that is there; "" otherwise */
    const char *license;      /* "" when unknown */
    uint64_t n_params, weights_bytes;
    int n_layer, n_vocab, n_embd, n_head, n_head_kv, ctx_train, ctx_tok, threads;
    size_t kv_bytes_per_tok;
    int kv_tok; /* tokens that the KV pool holds; fewer than were asked for where a
                   GPU has no more room */
    uint64_t bytes_per_token;  /* weight bytes that one decoded token reads */
    const char *draft;         /* name of the draft model; "" none */
    uint64_t draft_bytes;      /* of its weights; its KV is in kv_bytes_per_tok */
    int bos, eos;              /* -1: none */
    const char *chat_template; /* "" when the model has none */
    const char *system;        /* the system prompt it was made with; "" none */
    const char *settings;      /* JSON object of the sampling settings it suggests; "" none */
};

struct engine;
struct session;

/* Opens one of our model files (models.h finds or makes it). Maps it and starts the thread;
 * nothing is repacked. */
enum status engine_open(const char *path, const struct engine_params *params,
                        struct engine **out, struct err *err);
/* Cancels what runs, frees sessions that are left, waits while states are saved (two seconds at
 * most), ends the thread, unmaps. NULL is allowed. */
void engine_close(struct engine *e);
const struct engine_info *engine_info(const struct engine *e); /* lives as long as the engine */
/* Appends one line: memory, load, temperature and power of GPU number `index` below n_gpu that
 * e runs on, at most a second older than the question before. Returns at once. ST_BUSY: they
 * are being read, ask again; ST_UNSUPPORTED: the card says nothing; ST_NOT_FOUND: NVIDIA's
 * management library is not there, or does not know the card. */
enum status engine_gpu_load(const struct engine *e, int index, struct buf *out,
                            struct err *err);

struct session *session_new(struct engine *e);
/* A second timeline with the same tokens; KV blocks are shared until one of the two writes to
 * them. */
struct session *session_fork(struct session *s);
void session_free(struct session *s); /* cancels; NULL is allowed */
/* Saves this session's state in kv_dir when it rests for a while, when it is freed and when the
 * engine is closed, in the background, for owner: the number of a stored conversation, greater
 * than 0. What is saved is found by every session that has the same tokens, also after a
 * restart. Without this call, or with 0, nothing of a session is ever written; and never what
 * only idle requests computed. */
void session_keep(struct session *s, int64_t owner);
/* Removes what was saved for owner, of any model, in the background. */
void engine_forget(struct engine *e, int64_t owner);
/* Tokens whose KV this session holds right now. */
int session_cached_tok(struct session *s);

/* Sampling settings; the names are those of the command line, the configuration and the menus.
 */
struct sampling {
    double temperature;       /* 0: greedy */
    int top_k;                /* 0: off */
    double top_p;             /* 1: off */
    double min_p;             /* 0: off */
    double typical_p;         /* 1: off */
    double repeat_penalty;    /* 1: off */
    int repeat_last_n;        /* tokens the penalties look at; 0: off, -1: all */
    double presence_penalty;  /* 0: off */
    double frequency_penalty; /* 0: off */
    int64_t seed;             /* -1: drawn anew for each request */
};
#define SAMPLING_DEFAULTS                                                                      \
    {                                                                                          \
        .temperature = 0.7, .top_k = 40, .top_p = 0.95, .min_p = 0.05, .typical_p = 1.0,       \
        .repeat_penalty = 1.0, .repeat_last_n = 64, .seed = -1                                 \
    }

/* Whether tokens are guessed and checked several at a time (run/spec.h). Never changes what is
 * answered (on a GPU within rounding), only how fast; each is used only while it pays. */
enum speculation {
    SPECULATION_OFF,
    SPECULATION_AUTO,   /* both of the following */
    SPECULATION_LOOKUP, /* guesses from what the timeline repeats */
    SPECULATION_DRAFT   /* guesses of the draft model, where one is open */
};

struct logit_bias {
    int32_t token;
    float bias; /* added to the logit; -INFINITY forbids the token */
};

/* Who goes first. Requests of a higher class are admitted first, get most of what a step has
 * for prompts, and give up their place last; who has waited long is raised, so that everybody
 * gets on. An idle request is a guess (the prompt that a person is still typing): it is
 * computed only while there is nothing else to do, and does not keep its session busy: the
 * session's next request ends it. */
enum priority {
    PRIORITY_IDLE = -1,
    PRIORITY_NORMAL,      /* programs */
    PRIORITY_INTERACTIVE, /* a person looks at the answer */
};

struct request {
    const int32_t *tokens; /* [n_tok] the whole prompt, copied; what the session holds already
                              is not computed again */
    size_t n_tok;
    enum priority priority;
    struct sampling sampling;
    int max_tok; /* tokens to generate at most; 0: only the prompt is computed; -1: until the
                    context is full, or with `stream` as many as ten contexts hold */
    const char *const
        *stop; /* [n_stop] texts that end the answer; they are not part of it; copied */
    size_t n_stop;
    const struct logit_bias *bias; /* [n_bias]; copied */
    size_t n_bias;
    int n_logprobs; /* 0: none; k: the chosen token's and the k best, 1..20 */
    enum speculation speculation;
    bool stream; /* prompt and answer may be longer than the context: the oldest tokens behind
                    the first keep_tok (a quarter of the context at most, rounded to blocks)
                    are left out, a quarter of the context at a time. The prompt is the whole
                    text: what the session left out of it before stays out, and what it holds
                    of the rest is not computed again */
    int stream_ctx; /* the context that it streams in, where less than the engine's; or 0 */
    int keep_tok;
    bool hidden; /* to a session that holds nothing: all of it is computed, and nothing of it
                    is found by other sessions or saved (benchmarks; a draft model's KV is
                    shared as always) */
    bool ignore_eos;   /* go on after an end-of-generation token (benchmarks) */
    bool special_text; /* let control tokens appear in the text (default: they are invisible) */
};

enum finish { FINISH_STOP, FINISH_LENGTH, FINISH_CANCEL, FINISH_ERROR };
const char *finish_name(enum finish f); /* "stop", "length", "cancel", "error" */

enum event_type {
    EVENT_PREFILL, /* n_done of n_total prompt tokens are computed (cached ones count as done)
                    */
    EVENT_TOKEN, /* one token; text may be empty while a character or a possible stop string is
                    incomplete */
    EVENT_FINISHED,
    EVENT_ERROR, /* err says why; no more events follow for this request */
};

struct event {
    enum event_type type;
    uint64_t request_id; /* as given to session_generate */
    int64_t at_us;       /* clock_us() when it was made */
    int n_done, n_total; /* PREFILL */
    int32_t token;       /* TOKEN; -1 when the event only releases held-back text */
    char *text;          /* TOKEN: valid UTF-8, never NULL; owned by the event */
    bool held;           /* TOKEN: text up to here is held back and comes later */
    float logprob;       /* TOKEN, when asked: natural log of the softmax of the raw logits */
    struct {
        int32_t token;
        float logprob;
    } * alt; /* [n_alt] TOKEN, when asked; best first; owned by the event */
    int n_alt;
    enum finish finish;                         /* FINISHED */
    int prompt_tok, cached_tok, completion_tok; /* of the prompt: those that were not left out
                                                   when the answer began */
    int dropped_tok; /* of prompt and answer so far, left out by now (request.stream) */
    int64_t prompt_us, decode_us,
        ttft_us;                   /* prefill; first to last token; request to first token */
    int64_t seed;                  /* the seed that was used */
    int drafted_tok, accepted_tok; /* FINISHED: guessed by speculation; of them right */
    struct err err;                /* ERROR */
};
void event_free(void *event);

/* Starts a request; its events go to `events` (a reference is taken), ending with FINISHED or
 * ERROR. At most one request a session at a time (ST_BUSY), idle ones excepted. When
 * max_waiting requests wait already: ST_QUEUE_FULL, at once. A prompt that leaves no room in
 * the context is ST_CONTEXT_FULL, at once, with the numbers in the message; an empty prompt or
 * a token outside the vocabulary is ST_USAGE; one that streams what engine_can_stream() says.
 */
enum status session_generate(struct session *s, const struct request *r, uint64_t request_id,
                             struct mailbox *events, struct err *err);
/* Asks the request to end; FINISHED with FINISH_CANCEL follows within one step. Nothing happens
 * when none runs. */
void session_cancel(struct session *s);
/* Whether requests can stream beyond the context: not with positions that can't be moved
 * (learned ones, frequencies that depend on the length), and not in a context of less than 64
 * tokens: ST_UNSUPPORTED with the reason. */
enum status engine_can_stream(const struct engine *e, int stream_ctx, struct err *err);

/* Computes logits for evaluation, blocking: tokens [n_tok] from an empty context, logits of
 * positions first..n_tok-1 go to out [n_tok - first, n_vocab] in order. n_tok <= ctx_tok. Uses
 * no session and leaves none changed. */
enum status engine_logits(struct engine *e, const int32_t *tokens, int n_tok, int first,
                          float *out, struct err *err);

/* For `doctor`: appends the processor's name, the features that choose the kernels and the set
 * that is chosen, or why none can be (then false); and the fast cores that this process may
 * use (affinity and container limits count). */
bool engine_cpu_features(struct buf *out);
/* Appends one line: whether weights can be read in huge pages. */
void engine_huge_pages(struct buf *out);
/* Appends one line: GPU number `index`, with its kernels and memory, of which the first ones
 * are used; false: why it can't be. To load another: its memory, load, temperature and power
 * just now, or why they are not known; nothing without a GPU. *n: how many GPUs there are, as
 * it was when that can't be found out. */
bool engine_gpu(int index, struct buf *out, struct buf *load, int *n);
int engine_usable_cores(void);

/* Perplexity as llama.cpp's tool defines it: the tokens are cut into windows of ctx that don't
 * overlap (a rest is dropped), each starts from an empty context, the first token of each is
 * the begin token where the model adds one, and the positions ctx/2 .. ctx-2 are scored on
 * their next token: exp of the mean of -log p. */
struct eval_params {
    int ctx; /* tokens of a window, 4..ctx_tok; 0: 512, or ctx_tok when that is less */
    const char *save_logits; /* or NULL: writes the log probabilities of the scored positions to
                                this file */
    const char *kl_base; /* or NULL: compares with a file that save_logits wrote for the same
                            tokens and ctx */
    /* Windows; called about ten times a second, from the calling thread; false cancels. May be
     * NULL. */
    bool (*progress)(void *user, int done, int total);
    void *user;
};
struct eval_result {
    double perplexity;
    double mean_nll, nll_stderr; /* nats a token, and the standard error of that mean */
    int64_t tokens;              /* positions scored */
    int windows;
    bool has_kl;
    double kl;   /* mean of KL(base || this model), nats */
    double top1; /* share of positions where both find the same token best, 0..1 */
};
/* Blocking. ST_USAGE when there are fewer tokens than one window or ctx is out of range;
 * ST_FORMAT when kl_base is not such a file or was written for other tokens, another ctx or
 * another vocabulary. */
enum status engine_perplexity(struct engine *e, const int32_t *tokens, size_t n_tok,
                              const struct eval_params *p, struct eval_result *out,
                              struct err *err);

/* The engine's own tokenizer and template, for text.h. */
struct text_model;
const struct text_model *engine_text(const struct engine *e);

#endif
