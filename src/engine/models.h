/*
 * models.h - the models on disk: a folder of our own model files, one file each,
 * NAME.safetensors; and the states of conversations that were saved for them.
 *
 * A name is 1 to 100 characters of A-Z a-z 0-9 . _ : + - and does not start with a dot or a
 * dash.
 */
#ifndef LLMCHAT_ENGINE_MODELS_H
#define LLMCHAT_ENGINE_MODELS_H

#include "base/err.h"
#include "base/mem.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct model_info {
    char *name, *path;
    char *architecture, *license;
    char *quant, *head_quant; /* "nf4" …; where the source's numbers were kept, its own word:
                                 "Q4_K", "gptq-int4-g128"; "F16 and Q6_K" where embedding
                                 and head differ */
    char *title;              /* the name in the model's own metadata, "" when none */
    char *source;             /* base name of the file it was made from; a GGUF file's own */
    char *source_sha256;      /* hex, "" when unknown */
    char *chat_template;      /* "" when none */
    char *created;            /* ISO 8601, UTC; "" for a GGUF file or a folder */
    char *system;             /* the system prompt it was made with; "" none */
    char *settings;           /* JSON object of the sampling settings it suggests; "" none */
    char *notes;              /* lines on what `keep` could not keep exactly; "" mostly */
    uint64_t file_bytes, n_params;
    int n_layer, n_vocab, n_embd, n_ff, n_head, n_head_kv, head_dim, ctx_train;
    int n_expert, n_expert_used, n_ff_expert, n_ff_shared; /* 0: no experts; no shared one */
    double rope_base, norm_eps;                            /* rope_base 0: no RoPE */
};
void model_info_release(struct model_info *m);

struct model_list { /* {0} is empty; sorted by name */
    struct model_info *v;
    size_t n;
    struct strlist broken; /* "NAME: why" for files in the folder that could not be read */
};
void model_list_release(struct model_list *l);

bool models_name_ok(const char *name);
/* The models folder, made if missing. *out is the caller's to free. */
enum status models_dir(char **out, struct err *err);
enum status models_list(struct model_list *out, struct err *err);
/* name: one from the list, or a path to one of our files, a GGUF file or a folder. */
enum status models_info(const char *name, struct model_info *out, struct err *err);
enum status models_remove(const char *name, struct err *err);
enum status models_copy(const char *from, const char *to,
                        struct err *err); /* a reflink or hard link where possible */
/* What a person typed, as a path: the file of an installed model, else a file or folder that is
 * there. For a folder without config.json that holds one GGUF model, that file; for that of a
 * repository in the hub's cache, its newest snapshot. *out is the caller's to free. */
enum status models_find(const char *name_or_path, char **out, struct err *err);
/* The same for what a model is made from: a model in the current folder goes before an
 * installed one of its name. */
enum status models_find_source(const char *path_or_name, char **out, struct err *err);
/* The path engine_open() takes for what a person typed: the file of an installed model, or a
 * path to one of our files as it is; for a path to a GGUF file or a Hugging Face folder a
 * converted copy in the cache folder, made now when there is none for this very file (path,
 * size, time), with progress. A name that is not there is ST_NOT_FOUND and the message lists
 * what is installed. *out is the caller's to free. */
enum status models_resolve(const char *name_or_path,
                           bool (*progress)(void *user, const char *what, uint64_t done,
                                            uint64_t total),
                           void *user, char **out, struct err *err);

enum quant { QUANT_NF4, QUANT_INT8, QUANT_BF16, QUANT_F32, QUANT_KEEP, QUANT_N };
const char *quant_name(enum quant q);
bool quant_parse(const char *s, enum quant *out);

struct create_params {
    const char *name;      /* installed under this name; NULL with out_path */
    const char *out_path;  /* or written to this file */
    const char *from;      /* GGUF file, Hugging Face folder, or one of our models (a name or a
                              path), whose weights are taken as they are */
    enum quant quant;      /* all linear layers; QUANT_N: keep where the source is quantised,
                              else nf4. keep stores the source's own numbers, bit for bit */
    enum quant head_quant; /* token embedding and output head; QUANT_N: int8 beside nf4 and
                              int8, else as quant */
    /* What is to stand in the model in place of the source's own; NULL: that. */
    const char *system, *chat_template, *license;
    const char *settings; /* a JSON object; what it does not name is the source's */
    bool replace; /* an existing model of this name is replaced (atomically), else ST_EXISTS */
    bool (*progress)(void *user, const char *what, uint64_t done,
                     uint64_t total); /* bytes; false cancels */
    void *user;
};
/* Makes a model. Nothing is left behind when it fails or is cancelled (ST_CANCELLED). */
enum status models_create(const struct create_params *p, struct err *err);

/* Saved states: the keys and values of stored conversations, in the cache folder, so that they
 * are not computed again after a restart (engine.h: kv_dir, session_keep). What is removed is
 * only computed again. */
struct saved_state {
    char *path, *model;   /* model: its name */
    int64_t conversation; /* whose it is */
    int n_tok;
    uint64_t bytes;
    int64_t used_us; /* microseconds since 1970 */
};
struct saved_state_list { /* {0} is empty; the one that was used last first */
    struct saved_state *v;
    size_t n;
    struct strlist damaged; /* paths of files that are of no use to anybody */
    struct strlist broken;  /* of those that can't be read, or are of another version */
};
/* The folder, made if missing. *out is the caller's to free. */
enum status states_dir(char **out, struct err *err);
enum status states_list(struct saved_state_list *out, struct err *err);
void saved_state_list_release(struct saved_state_list *l);
enum status states_remove(const char *path, struct err *err);
/* Removes those of a conversation, and what is damaged; with an engine open engine_forget() does. */
void states_forget(int64_t conversation);

#endif
