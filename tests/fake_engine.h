/*
 * fake_engine.h - an engine without a model, for tests of the rooms above it.
 *
 * It implements engine.h, models.h and text.h as far as chat/ uses them. A token is a byte of the prompt text, which is
 * "role: content\n" for each message and "assistant: " at the end: what the model would see can be read and counted. A
 * session keeps its tokens, so cached tokens are those of the real longest common prefix.
 */
#ifndef LLMCHAT_TESTS_FAKE_ENGINE_H
#define LLMCHAT_TESTS_FAKE_ENGINE_H

#include "engine/engine.h"
#include <stdatomic.h>

struct fake {
    int ctx_tok;               /* 4096 */
    const char *reply;         /* a token a word; "one two three" */
    const char *summary_reply; /* to prompts that ask for a summary */
    int token_us;              /* pause before each token */
    int fail_after;            /* tokens until EVENT_ERROR; -1 never */
    enum status generate_fails; /* what session_generate returns */
    atomic_bool load_hangs;    /* set while a load runs, too */
    bool load_fails, no_system; /* no_system: the template refuses system messages */
    bool cannot_stream;
    const char *fails_on_gpu;  /* the model that fails where the GPU has room for it */
    bool gpu;                  /* one that has room for a single engine; the next is on the CPU, or fails for device cuda */
    bool endless;              /* repeats the reply until a limit */
    const char *installed;     /* model names, blanks between */
    /* what was seen */
    bool stream;               /* of the last request */
    int keep_tok, max_tok;
    const char *kv_dir;        /* of the engine opened last; NULL or "states" */
    uint64_t kv_dir_bytes;
    enum kv_type kv_type;
    enum device device;
    int tensor_parallel;
    int n_kept;                /* sessions freed whose state would be saved */
    int64_t kept;              /* for whom the last of them */
    int64_t forgotten;         /* the last conversation whose states were removed */
};
extern struct fake fake;
void fake_reset(void);
/* The prompt of the last request; lives until the next one. */
const char *fake_prompt(void);
int fake_requests(void);
/* Of idle requests: the last prompt, how many came, how many were cancelled. A guess is computed at once. */
const char *fake_guess(void);
int fake_guesses(void);
int fake_guesses_ended(void);
int fake_sessions(void); /* alive */
int fake_engines(void);

#endif
