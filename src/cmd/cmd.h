/*
 * cmd.h - sub-commands: a table of commands, and one table of options for each.
 *
 * The tables feed the parser, --help, the man page and the shell completions, so that these
 * can't disagree. A command gets its arguments parsed and checked; it prints answers to
 * standard output and everything else to standard error, and returns an exit code: 0 done, 1
 * failed, 2 wrong usage, 130 interrupted.
 */
#ifndef LLMCHAT_CMD_CMD_H
#define LLMCHAT_CMD_CMD_H

#include "base/err.h"
#include "base/mem.h"
#include "chat/config.h"
#include "chat/settings.h"
#include <stdio.h>

enum opt_type {
    OPT_FLAG,
    OPT_TEXT,
    OPT_COUNT,
    OPT_CHOICE,
    OPT_TEXTS,
    OPT_COUNTS,
    OPT_SHARE,
    OPT_LAYERS,
    OPT_SIZE
};

struct opt {
    const char *name;   /* long name, without dashes; NULL ends a table */
    char letter;        /* short name or 0 */
    enum opt_type type; /* COUNT: a whole number >= min; CHOICE: one of the words of arg; TEXTS:
                           may come again; COUNTS: counts with commas between, may come again;
                           SHARE: a number above 0, at most 1; LAYERS: auto, or a number;
                           SIZE: as config_size() */
    const char *arg;  /* what the value is called in the help: "FILE", or "a|b|c" for CHOICE */
    long min;         /* COUNT, COUNTS */
    const char *help; /* one sentence without a full stop */
};

enum {
    CMD_SETTINGS = 1,
    CMD_CONFIG = 2
}; /* takes every setting of settings.h as an option; reads the configuration */

struct args;

struct command {
    const char *name;
    const char *usage;      /* positional arguments: "MODEL [PROMPT…]" */
    const char *summary;    /* one line, a sentence without a full stop */
    const char *details;    /* paragraphs for --help and the man page */
    int min_args, max_args; /* positional; -1: any number */
    int flags;
    const struct opt *opts;
    int (*run)(struct args *a);
};
extern const struct command
    cmd_table[]; /* main.c; the first is the interface, without a name; NULL summary ends */
extern const struct opt common_opts[];

struct args {
    const struct command *cmd;
    char **pos; /* [n_pos] */
    int n_pos;
    struct config
        config; /* with CMD_CONFIG or CMD_SETTINGS: file, then options of the command line */
    struct strlist set_names; /* settings that the command line named */
    struct {
        const struct opt *opt;
        const char *value;
    } * given; /* [n_given] in order */
    size_t n_given;
};

/* Finds the command, parses, runs it; returns the exit code. */
int cmd_main(int argc, char **argv);

/* What was given; names that the command's table lacks are a bug (assert). */
bool arg_flag(const struct args *a, const char *name);
const char *arg_text(const struct args *a, const char *name); /* NULL: not given */
long arg_count(const struct args *a, const char *name, long otherwise);
/* All counts of an OPT_COUNTS, in order; where none was given, `otherwise`. *out [n] is the
 * caller's to free. */
size_t arg_counts(const struct args *a, const char *name, long otherwise, long **out);
size_t arg_texts(const struct args *a, const char *name, const char **out, size_t max);

/* --help, the man page's command sections (roff), completions. */
void help_overview(FILE *f);
void help_command(FILE *f, const struct command *c);
void help_man(FILE *f);

/* -- output -- */
int fail(
    const struct err *err); /* prints "llmchat: MESSAGE", returns the exit code of err->code */
int failf(enum status st, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void note(const char *fmt, ...)
    __attribute__((format(printf, 1, 2))); /* one line to standard error */
/* That not all of a model is on a GPU that is there, where nobody asked for that. */
void note_device(const struct engine_info *m);
/* What --color says: "always", "never", "auto" or NULL; before anything is printed. */
void colour_set(const char *mode);
bool colour_wanted(FILE *f); /* a terminal, NO_COLOR unset, TERM not dumb */
/* Text from outside to standard output: as it is to a file or pipe, made safe on a terminal. */
void put_text(const char *s, size_t len);
/* The label as it is, then text from outside on one line, always made safe. */
void put_line(const char *label, const char *s);
/* The same of text that has lines of its own; they stand below one another. */
void put_lines(const char *label, const char *s);
void put_json(void *takes_json); /* a json_t, printed on one line */
/* A json_t of any bytes: what is no UTF-8 (a path, a damaged database) is mended. */
void *json_text(const char *s);
/* Bytes as "98.4 MB", a count as "134.5M". Static storage, eight deep. */
const char *show_bytes(uint64_t n);
const char *show_count(uint64_t n);
/* Milliseconds since 1970 as local "2026-11-23 14:05", and as ISO 8601 UTC. */
const char *show_time(int64_t unix_ms);
const char *show_iso(int64_t unix_ms);

/* The progress callback of models.h and engine.h: a bar with rate and ETA on standard error
 * after a second, nothing where that is no terminal; false once SIGINT came. user is ignored.
 */
bool progress_show(void *user, const char *what, uint64_t done, uint64_t total);
void progress_clear(void);

/* After this SIGINT and SIGTERM only set a flag and wake poll(). */
void interrupt_catch(void);
bool interrupted(void);
int interrupt_fd(void); /* readable once interrupted */

/* -- shared by commands -- */
struct store;
enum status open_store(struct store **out, struct err *err); /* the person's database */
enum status read_input(const char *path, size_t max_bytes, struct buf *out,
                       struct err *err); /* a file or pipe by its name; "-": stdin */
enum status parse_id(const char *s, int64_t *out, struct err *err);
/* What a command that computes takes; letter: of --threads, or 0. */
#define THREADS_HELP "Threads (default: one for each fast core this process may use)"
#define KV_TYPE_HELP                                                                           \
    "Type of the KV cache: auto is f16, bf16 where the processor multiplies that, or f32 for " \
    "weights of f32 or bf16; int8 and fp8 are half of f16, and less exact"
#define DEVICE_HELP                                                                            \
    "Where to compute: auto is an NVIDIA GPU, as far as it has room for the model, else the "  \
    "CPU"
#define LAYERS_HELP                                                                            \
    "Layers on the GPU, the last ones; the others and the embedding are on the CPU; 0 is the " \
    "CPU alone (default auto: as many as there is room for)"
#define UTILIZATION_HELP                                                                       \
    "The part of a GPU's memory that may be in use; what the model leaves becomes KV cache "   \
    "(default: four contexts, within 0.9)"
#define TENSOR_PARALLEL_HELP                                                                   \
    "GPUs that share each layer of the model, the first N, by NCCL (default 1)"
#define SWAP_HELP                                                                              \
    "Host memory for KV cache that a GPU has no room for, so that it is not computed again: "  \
    "4GB, 500M, 0 for none (default: 4GB, or a quarter of the memory)"
#define COMPUTE_OPTS(letter)                                                                   \
    {"threads", letter, OPT_COUNT, "N", 1, THREADS_HELP},                                      \
        {"kv-type", 0, OPT_CHOICE, KV_TYPE_WORDS, 0, KV_TYPE_HELP},                            \
        {"device", 0, OPT_CHOICE, DEVICE_WORDS, 0, DEVICE_HELP},                               \
        {"gpu-layers", 0, OPT_LAYERS, "N", 0, LAYERS_HELP},                                    \
        {"gpu-memory-utilization", 0, OPT_SHARE, "F", 0, UTILIZATION_HELP},                    \
        {"tensor-parallel", 0, OPT_COUNT, "N", 1, TENSOR_PARALLEL_HELP}, {                     \
        "swap-space", 0, OPT_SIZE, "SIZE", 0, SWAP_HELP                                        \
    }
/* Puts what these and --draft say into a->config. ST_USAGE or ST_FORMAT where two of them, or
 * two keys of the configuration, contradict each other. */
enum status use_compute_options(struct args *a, struct err *err);
/* The interface with a model (NULL: none named), as --chat and --continue say. The exit code.
 */
int open_interface(struct args *a, const char *model);

int cmd_ui(struct args *a);
int cmd_run(struct args *a);
int cmd_create(struct args *a);
int cmd_list(struct args *a);
int cmd_show(struct args *a);
int cmd_rm(struct args *a);
int cmd_cp(struct args *a);
int cmd_kv(struct args *a);
int cmd_chats(struct args *a);
int cmd_search(struct args *a);
int cmd_export(struct args *a);
int cmd_import(struct args *a);
int cmd_tokenize(struct args *a);
int cmd_template(struct args *a);
int cmd_eval(struct args *a);
int cmd_bench(struct args *a);
int cmd_doctor(struct args *a);
int cmd_help(struct args *a);

extern const struct opt ui_opts[], run_opts[], create_opts[], list_opts[], show_opts[],
    rm_opts[], cp_opts[], kv_opts[], chats_opts[], search_opts[], export_opts[], import_opts[],
    tokenize_opts[], template_opts[], eval_opts[], bench_opts[], doctor_opts[], help_opts[];

#endif
