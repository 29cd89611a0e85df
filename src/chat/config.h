/*
 * config.h - the configuration file, $XDG_CONFIG_HOME/llmchat/config.yaml.
 *
 *   model: smollm2              # used when nothing else says which
 *   draft_model: NAME           # a smaller one with the same vocabulary that guesses for it
 *   device: auto                # auto | cpu | cuda
 *   gpu_memory_utilization: 0.9 # part of a GPU's memory that may be in use
 *   gpu_layers: auto            # layers on a GPU; auto: as many as there is room for; 0: none
 *   tensor_parallel: 1          # GPUs that share each layer of a model
 *   threads: 0                  # 0: one for each fast core
 *   swap_space: 4 GB            # host memory for KV of a GPU that has no room for it; 0: none
 *   kv_type: auto               # auto | f32 | f16 | bf16 | int8 | fp8
 *   theme: auto                 # auto | dark | light | mono
 *   mouse: true
 *   markdown: true
 *   context_full: ask           # ask | summarise | drop | stream | stop
 *   kv_cache: 4 GB              # saved states of conversations may take; 0: none are saved
 *   prefill_draft: true         # compute the prompt while it is typed
 *   system: You are …           # system prompt of new conversations
 *   prompt: NAME                # or one from the prompt library
 *   sampling: { temperature: 0.7, … }   # the names of settings.h
 *   keys: { send: enter, new-chat: ctrl-n, … }   # command: key or list of keys
 *
 * Unknown keys and wrong values are errors that name file and line; a missing file is no error.
 */
#ifndef LLMCHAT_CHAT_CONFIG_H
#define LLMCHAT_CHAT_CONFIG_H

#include "chat/settings.h"

enum theme { THEME_AUTO, THEME_DARK, THEME_LIGHT, THEME_MONO };
enum overflow {
    OVERFLOW_ASK,
    OVERFLOW_SUMMARISE,
    OVERFLOW_DROP,
    OVERFLOW_STREAM,
    OVERFLOW_STOP
};

enum { LAYERS_AUTO = -1, MAX_LAYERS = 100000 };

struct key_binding {
    char *command, *key;
    int line; /* in the file, for messages */
};

struct config {
    char *path;                    /* the file that was read, or would have been */
    char *model, *system, *prompt; /* NULL when not given */
    char *draft_model;
    bool draft_wanted; /* the command line named it: a model that it doesn't fit is an error.
                          Without, such a model is loaded alone */
    int prompt_line, layers_line; /* in the file, for messages */
    enum device device;
    int threads;
    double gpu_memory_utilization; /* 0: not said */
    int gpu_layers;                /* LAYERS_AUTO, or how many */
    int tensor_parallel;           /* GPUs; 0: not said */
    enum kv_type kv_type;
    enum theme theme;
    bool mouse, markdown, prefill_draft;
    enum overflow context_full;
    uint64_t kv_cache;   /* bytes */
    uint64_t swap_space; /* bytes */
    struct settings settings;
    struct key_binding *keys;
    size_t n_keys;
};
/* path NULL: the default place. A prompt that the library lacks is an error as well. */
enum status config_load(const char *path, struct config *out, struct err *err);
/* Reads a text that is there already; path is named in messages. On failure out is released. */
enum status config_parse(const char *yaml, size_t len, const char *path, struct config *out,
                         struct err *err);
/* Whether what the settings want can be: ST_NOT_FOUND with what to do when only a draft model
 * is to guess and none is there. open: engine_info's draft; NULL: no model is open yet. */
enum status config_check_draft(const struct config *c, const struct settings *s,
                               const char *open, struct err *err);
/* ST_FORMAT where device and gpu_layers contradict each other. */
enum status config_check_devices(const struct config *c, struct err *err);
void config_init(struct config *c);
void config_release(struct config *c);
/* "4 GB", "500M", "0": a number with a unit (k, M, G, T; a B or iB may follow, a thousand or
 * 1024), without one of bytes. False when it is something else. */
bool config_size(const char *s, uint64_t *bytes);
/* A part of a whole: above 0, at most 1. False when it is something else. */
bool config_share(const char *s, double *share);
/* "auto", or a number of layers from 0 to MAX_LAYERS. False when it is something else. */
bool config_layers(const char *s, int *layers);

/* What the configuration says of how to open an engine; the rest is zero. */
struct engine_params config_engine(const struct config *c);

#endif
