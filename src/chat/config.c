/*
 * config.c - the configuration file.
 *
 * One table of keys, each with its reader. The whole file is read into a tree first (ytree.c),
 * so that an error in its last line leaves no half-applied configuration. Key bindings are kept
 * as words with their lines: which commands and keys there are is known to the interface only.
 */
#include "chat/config.h"

#include "base/path.h"
#include "chat/prompts.h"
#include "chat/ytree.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_CONFIG_BYTES = 1 << 20, MAX_KEYS = 500 };
#define DEFAULT_KV_CACHE   4000000000u /* bytes */
#define DEFAULT_SWAP_SPACE 4000000000u /* bytes, or a quarter of the host's memory */

typedef enum status (*read_key)(struct config *c, const struct ynode *v, struct err *err);

static enum status read_model(struct config *c, const struct ynode *v, struct err *err) {
    return ytree_text(v, c->path, &c->model, err);
}

static enum status read_draft_model(struct config *c, const struct ynode *v, struct err *err) {
    return ytree_text(v, c->path, &c->draft_model, err);
}

static enum status read_system(struct config *c, const struct ynode *v, struct err *err) {
    return ytree_text(v, c->path, &c->system, err);
}

static enum status read_prompt(struct config *c, const struct ynode *v, struct err *err) {
    c->prompt_line = v->line;
    CHECK(ytree_text(v, c->path, &c->prompt, err));
    if (!*c->prompt) { /* "prompt:" alone asks for none */
        free(c->prompt);
        c->prompt = NULL;
    }
    return ST_OK;
}

static enum status read_device(struct config *c, const struct ynode *v, struct err *err) {
    static const char *const words[] = {"auto", "cpu", "cuda"};
    static const enum device values[] = {DEVICE_AUTO, DEVICE_CPU, DEVICE_CUDA};
    int i;
    CHECK(ytree_word(v, c->path, words, 3, &i, err));
    c->device = values[i];
    return ST_OK;
}

static enum status read_utilization(struct config *c, const struct ynode *v, struct err *err) {
    char *text = NULL;
    enum status st = ST_OK;
    CHECK(ytree_text(v, c->path, &text, err));
    if (!config_share(text, &c->gpu_memory_utilization))
        st = err_set(err, ST_FORMAT,
                     "%s:%d: gpu_memory_utilization: %s: a number above 0, at most 1, wanted",
                     c->path, v->line, text);
    free(text);
    return st;
}

static enum status read_layers(struct config *c, const struct ynode *v, struct err *err) {
    char *text = NULL;
    enum status st = ST_OK;
    c->layers_line = v->line;
    CHECK(ytree_text(v, c->path, &text, err));
    if (!config_layers(text, &c->gpu_layers))
        st = err_set(err, ST_FORMAT,
                     "%s:%d: gpu_layers: %s: auto, or a whole number from 0 to %d, wanted",
                     c->path, v->line, text, MAX_LAYERS);
    free(text);
    return st;
}

static enum status read_tensor_parallel(struct config *c, const struct ynode *v,
                                        struct err *err) {
    return ytree_int(v, c->path, 1, 64, &c->tensor_parallel, err);
}

static enum status read_threads(struct config *c, const struct ynode *v, struct err *err) {
    return ytree_int(v, c->path, 0, 1024, &c->threads, err);
}

static enum status read_kv_type(struct config *c, const struct ynode *v, struct err *err) {
    static const char *const words[] = {"auto", "f32", "f16", "bf16", "int8", "fp8"};
    int i;
    CHECK(ytree_word(v, c->path, words, 6, &i, err));
    c->kv_type = (enum kv_type)i;
    return ST_OK;
}

static enum status read_theme(struct config *c, const struct ynode *v, struct err *err) {
    static const char *const words[] = {"auto", "dark", "light", "mono"};
    int i;
    CHECK(ytree_word(v, c->path, words, 4, &i, err));
    c->theme = (enum theme)i;
    return ST_OK;
}

static enum status read_mouse(struct config *c, const struct ynode *v, struct err *err) {
    return ytree_bool(v, c->path, &c->mouse, err);
}

static enum status read_markdown(struct config *c, const struct ynode *v, struct err *err) {
    return ytree_bool(v, c->path, &c->markdown, err);
}

static enum status read_full(struct config *c, const struct ynode *v, struct err *err) {
    static const char *const words[] = {"ask", "summarise", "drop", "stream", "stop"};
    int i;
    CHECK(ytree_word(v, c->path, words, 5, &i, err));
    c->context_full = (enum overflow)i;
    return ST_OK;
}

bool config_size(const char *s, uint64_t *bytes) {
    static const char units[] = "kMGT";
    char *end;
    if (*s < '0' || *s > '9')
        return false;
    double v = strtod(s, &end);
    end += strspn(end, " ");
    const char *unit = *end == 'K' ? units : *end ? strchr(units, *end) : NULL;
    if (unit) {
        bool binary = end[1] == 'i';
        for (long n = unit - units; n >= 0; n--)
            v *= binary ? 1024 : 1000;
        end += binary ? 2 : 1;
    }
    end += *end == 'B';
    if (*end || !(v >= 0 && v < 1e18))
        return false;
    *bytes = (uint64_t)v;
    return true;
}

static enum status read_size(struct config *c, const struct ynode *v, uint64_t *bytes,
                             struct err *err) {
    char *text = NULL;
    CHECK(ytree_text(v, c->path, &text, err));
    enum status st = ST_OK;
    if (!config_size(text, bytes))
        st = err_set(err, ST_FORMAT,
                     "%s:%d: %s: a size like 4 GB or 500 MB wanted, or 0, not \"%s\"", c->path,
                     v->line, v->key, text);
    free(text);
    return st;
}

static enum status read_kv_cache(struct config *c, const struct ynode *v, struct err *err) {
    return read_size(c, v, &c->kv_cache, err);
}

static enum status read_swap_space(struct config *c, const struct ynode *v, struct err *err) {
    return read_size(c, v, &c->swap_space, err);
}

static enum status read_prefill_draft(struct config *c, const struct ynode *v,
                                      struct err *err) {
    return ytree_bool(v, c->path, &c->prefill_draft, err);
}

static enum status read_sampling(struct config *c, const struct ynode *v, struct err *err) {
    return ytree_settings(v, c->path, &c->settings, err);
}

static enum status add_key(struct config *c, const char *command, const struct ynode *v,
                           struct err *err) {
    if (v->type != Y_SCALAR)
        return err_set(err, ST_FORMAT, "%s:%d: keys: %s: a key or a list of keys wanted",
                       c->path, v->line, command);
    if (c->n_keys == MAX_KEYS)
        return err_set(err, ST_FORMAT, "%s:%d: keys: more than %d bindings", c->path, v->line,
                       MAX_KEYS);
    c->keys = xreallocarray(c->keys, c->n_keys + 1, sizeof *c->keys);
    c->keys[c->n_keys++] = (struct key_binding){
        .command = xstrdup(command), .key = xstrdup(v->text), .line = v->line};
    return ST_OK;
}

static enum status read_keys(struct config *c, const struct ynode *v, struct err *err) {
    if (v->type == Y_SCALAR && !*v->text)
        return ST_OK;
    if (v->type != Y_MAP)
        return err_set(err, ST_FORMAT, "%s:%d: keys: a map of command: key wanted", c->path,
                       v->line);
    for (size_t i = 0; i < v->n; i++) {
        const struct ynode *b = &v->child[i];
        if (b->type != Y_LIST) {
            CHECK(add_key(c, b->key, b, err));
            continue;
        }
        for (size_t k = 0; k < b->n; k++)
            CHECK(add_key(c, b->key, &b->child[k], err));
    }
    return ST_OK;
}

static const char *const key_names[] = {
    "model",        "draft_model",     "device",        "threads",
    "kv_type",      "theme",           "mouse",         "markdown",
    "context_full", "kv_cache",        "prefill_draft", "system",
    "prompt",       "sampling",        "keys",          "gpu_memory_utilization",
    "gpu_layers",   "tensor_parallel", "swap_space"};
static const read_key key_readers[] = {
    read_model,         read_draft_model, read_device,          read_threads,   read_kv_type,
    read_theme,         read_mouse,       read_markdown,        read_full,      read_kv_cache,
    read_prefill_draft, read_system,      read_prompt,          read_sampling,  read_keys,
    read_utilization,   read_layers,      read_tensor_parallel, read_swap_space};
enum { N_KEYS = sizeof key_names / sizeof *key_names };

static enum status apply(struct config *c, const struct ynode *root, struct err *err) {
    if (root->type != Y_MAP)
        return err_set(err, ST_FORMAT, "%s:%d: a map of key: value wanted", c->path,
                       root->line);
    for (size_t i = 0; i < root->n; i++) {
        const struct ynode *v = &root->child[i];
        int k = 0;
        while (k < N_KEYS && strcmp(v->key, key_names[k]) != 0)
            k++;
        if (k == N_KEYS)
            return ytree_unknown(v, c->path, key_names, N_KEYS, err);
        CHECK(key_readers[k](c, v, err));
    }
    if (c->system && c->prompt)
        return err_set(err, ST_FORMAT,
                       "%s:%d: prompt: system is given as well; one of them wanted", c->path,
                       c->prompt_line);
    return ST_OK;
}

/* The prompt that new conversations begin with must be in the library now: later there is
 * nobody to tell. */
static enum status check_prompt(const struct config *c, struct err *err) {
    struct prompt_list l = {0};
    struct buf known = {0};
    enum status st = ST_OK;
    if (!c->prompt)
        return ST_OK;
    TRY(prompts_load(&l, err));
    if (prompt_find(&l, c->prompt))
        goto out;
    for (size_t i = 0; i < l.n; i++)
        buf_addf(&known, "%s%s", i ? ", " : "; known are ", l.v[i].name);
    for (size_t i = 0; i < l.broken.n; i++)
        buf_addf(&known, "; %s", l.broken.v[i]);
    st = err_set(err, ST_FORMAT, "%s:%d: prompt: there is no prompt \"%s\" in the library%s",
                 c->path, c->prompt_line, c->prompt, buf_str(&known));
out:
    buf_release(&known);
    prompt_list_release(&l);
    return st;
}

enum status config_check_draft(const struct config *c, const struct settings *s,
                               const char *open, struct err *err) {
    bool named = c->draft_model && *c->draft_model;
    if (s->speculation != SPECULATION_DRAFT || (open ? *open != 0 : named))
        return ST_OK;
    if (named)
        return err_set(
            err, ST_NOT_FOUND,
            "speculation draft: nothing is guessed; the draft model %s is this model "
            "itself, or the log says why it is not used",
            c->draft_model);
    return err_set(
        err, ST_NOT_FOUND,
        "speculation draft: there is no draft model; name one with --draft MODEL, or "
        "draft_model in %s",
        c->path);
}

enum status config_check_devices(const struct config *c, struct err *err) {
    if (c->device == DEVICE_CUDA && c->gpu_layers == 0)
        return err_set(err, ST_FORMAT,
                       "%s:%d: gpu_layers: 0 is the CPU alone, and device is cuda; one of them "
                       "wanted",
                       c->path, c->layers_line);
    if (c->device == DEVICE_CPU && c->gpu_layers > 0)
        return err_set(err, ST_FORMAT,
                       "%s:%d: gpu_layers: %d are for a GPU, and device is cpu; one of them "
                       "wanted",
                       c->path, c->layers_line, c->gpu_layers);
    return ST_OK;
}

static uint64_t default_swap_space(void) {
    uint64_t quarter = memory_bytes() / 4;
    return quarter < DEFAULT_SWAP_SPACE ? quarter : DEFAULT_SWAP_SPACE;
}

void config_init(struct config *c) {
    *c = (struct config){.mouse = true,
                         .markdown = true,
                         .prefill_draft = true,
                         .kv_cache = DEFAULT_KV_CACHE,
                         .gpu_layers = LAYERS_AUTO,
                         .swap_space = default_swap_space()};
    settings_init(&c->settings);
}

void config_release(struct config *c) {
    free(c->path);
    free(c->model);
    free(c->draft_model);
    free(c->system);
    free(c->prompt);
    for (size_t i = 0; i < c->n_keys; i++) {
        free(c->keys[i].command);
        free(c->keys[i].key);
    }
    free(c->keys);
    settings_release(&c->settings);
    memset(c, 0, sizeof *c);
}

enum status config_parse(const char *yaml, size_t len, const char *path, struct config *out,
                         struct err *err) {
    struct ynode *root = NULL;
    config_init(out);
    out->path = xstrdup(path);
    enum status st = ytree_parse(yaml, len, path, &root, err);
    if (st == ST_OK)
        st = apply(out, root, err);
    ytree_free(root);
    if (st != ST_OK)
        config_release(out);
    return st;
}

enum status config_load(const char *path, struct config *out, struct err *err) {
    char *where = NULL;
    struct buf text = {0};
    enum status st = ST_OK;
    memset(out, 0, sizeof *out);
    if (path)
        where = xstrdup(path);
    else
        TRY(path_in(PATH_CONFIG, "config.yaml", &where, err));
    if (access(where, F_OK) == 0 || errno != ENOENT)
        TRY(file_read(where, MAX_CONFIG_BYTES, &text, err));
    TRY(config_parse(buf_str(&text), text.len, where, out, err));
    st = check_prompt(out, err);
    if (st != ST_OK)
        config_release(out);
out:
    buf_release(&text);
    free(where);
    return st;
}

bool config_share(const char *s, double *share) {
    char *end;
    double v = strtod(s, &end);
    bool ok = end != s && !*end && v > 0 && v <= 1;
    if (ok)
        *share = v;
    return ok;
}

bool config_layers(const char *s, int *layers) {
    char *end;
    if (strcmp(s, "auto") == 0) {
        *layers = LAYERS_AUTO;
        return true;
    }
    errno = 0;
    long n = strtol(s, &end, 10);
    bool ok = end != s && !*end && !errno && n >= 0 && n <= MAX_LAYERS;
    if (ok)
        *layers = (int)n;
    return ok;
}

struct engine_params config_engine(const struct config *c) {
    return (struct engine_params){.device = c->gpu_layers == 0 ? DEVICE_CPU : c->device,
                                  .gpu_layers = c->gpu_layers > 0 ? c->gpu_layers : 0,
                                  .gpu_memory_utilization = c->gpu_memory_utilization,
                                  .tensor_parallel = c->tensor_parallel,
                                  .threads = c->threads,
                                  .swap_bytes = c->swap_space,
                                  .crossovers = true,
                                  .kv_type = c->kv_type};
}
