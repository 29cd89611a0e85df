/*
 * doctor.c - `llmchat doctor`: what was found on this machine, for a person with a problem and
 * for a report.
 *
 * It only looks: it opens the database as the program does (which creates it), runs SQLite's
 * checks on it, and reads the headers of the installed models. Exit code 1 when something is
 * wrong that stops llmchat from working.
 */
#include "base/path.h"
#include "cmd/cmd.h"
#include "engine/engine.h"
#include "engine/models.h"
#include "store/store.h"
#include <curses.h>
#include <jansson.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <utf8proc.h>
#include <xxhash.h>
#include <yaml.h>

const struct opt doctor_opts[] = {
    {"json", 0, OPT_FLAG, NULL, 0, "Print a JSON object"},
    {"device", 0, OPT_CHOICE, DEVICE_WORDS, 0,
     "With cuda, that no GPU can be used is a problem"},
    {0},
};

struct report {
    json_t *all;
    bool json, bad;
    int n_wanted; /* GPUs, by the command line, or the configuration */
};

/* One finding; ok false counts as a problem. */
static void finding(struct report *r, const char *section, const char *key, bool ok,
                    const char *fmt, ...) __attribute__((format(printf, 5, 6)));

static void finding(struct report *r, const char *section, const char *key, bool ok,
                    const char *fmt, ...) {
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    r->bad |= !ok;
    if (!r->json) {
        char *label = xasprintf("%s %-10s %-12s ", ok ? "ok  " : "BAD ", section, key);
        put_line(label, text);
        free(label);
        return;
    }
    json_t *s = json_object_get(r->all, section);
    if (!s) {
        s = json_object();
        json_object_set_new(r->all, section, s);
    }
    json_object_set_new(s, key, json_pack("{s:b, s:o}", "ok", ok, "found", json_text(text)));
}

/* Every GPU that there is, and the first that is wanted and is not there. */
static void gpus(struct report *r) {
    bool there = true;
    int n = 1;
    for (int i = 0; there && (i < n || i < r->n_wanted); i++) {
        struct buf b = {0}, load = {0};
        char key[32] = "gpu", of_load[32] = "gpu load";
        if (i > 0) {
            snprintf(key, sizeof key, "gpu %d", i);
            snprintf(of_load, sizeof of_load, "gpu %d load", i);
        }
        bool usable = engine_gpu(i, &b, &load, &n);
        finding(r, "machine", key, usable || i >= r->n_wanted, "%s", buf_str(&b));
        if (usable)
            finding(r, "machine", of_load, true, "%s", buf_str(&load));
        there = usable || i + 1 < n;
        buf_release(&load);
        buf_release(&b);
    }
}

static void processor(struct report *r) {
    struct buf b = {0};
    bool usable = engine_cpu_features(&b);
    finding(r, "machine", "processor", usable, "%s", buf_str(&b));
    buf_clear(&b);
    engine_huge_pages(&b);
    finding(r, "machine", "hugepages", true, "%s", buf_str(&b));
    finding(r, "machine", "cores", true, "%d usable", engine_usable_cores());
    finding(r, "machine", "memory", true, "%s", show_bytes(memory_bytes()));
    buf_release(&b);
    gpus(r);
}

static void libraries(struct report *r) {
    char v[64];
    finding(r, "libraries", "sqlite", true, "%s", store_library());
    finding(r, "libraries", "ncurses", true, "%s", curses_version());
    pcre2_config(PCRE2_CONFIG_VERSION, v);
    uint32_t jit = 0;
    pcre2_config(PCRE2_CONFIG_JIT, &jit);
    finding(r, "libraries", "pcre2", true, "%s%s", v, jit ? ", JIT" : ", no JIT");
    finding(r, "libraries", "utf8proc", true, "%s", utf8proc_version());
    finding(r, "libraries", "jansson", true, "%s", JANSSON_VERSION);
    unsigned x = XXH_versionNumber();
    finding(r, "libraries", "xxhash", true, "%u.%u.%u", x / 10000, x / 100 % 100, x % 100);
    finding(r, "libraries", "libyaml", true, "%s", yaml_get_version_string());
}

static void folders(struct report *r) {
    static const struct {
        enum path_root root;
        const char *name;
    } roots[] = {{PATH_CONFIG, "config"},
                 {PATH_DATA, "data"},
                 {PATH_STATE, "state"},
                 {PATH_CACHE, "cache"}};
    for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
        struct err err = {0};
        char *dir = NULL;
        if (path_root(roots[i].root, &dir, &err) != ST_OK) {
            finding(r, "folders", roots[i].name, false, "%s", err.msg);
            continue;
        }
        struct statvfs fs;
        bool writable = access(dir, W_OK) == 0;
        finding(r, "folders", roots[i].name, writable, "%s%s, %s free", dir,
                writable ? "" : " (not writable)",
                statvfs(dir, &fs) == 0 ? show_bytes((uint64_t)fs.f_bavail * fs.f_frsize) : "?");
        free(dir);
    }
    char *share = path_share("prompts");
    bool there = access(share, R_OK) == 0;
    finding(r, "folders", "prompts", there, "%s%s", share, there ? "" : " (missing)");
    free(share);
}

static void database(struct report *r) {
    struct err err = {0};
    struct store *s = NULL;
    if (open_store(&s, &err) != ST_OK) {
        finding(r, "database", "chats", false, "%s", err.msg);
        return;
    }
    struct buf b = {0};
    struct conversation_list l = {0};
    bool checked = store_check(s, &b, &err) == ST_OK;
    bool ok = checked && strcmp(buf_str(&b), "ok") == 0;
    if (store_conv_list(s, 0, &l, &err) == ST_OK && ok)
        finding(r, "database", "chats", true, "%s: sound, %zu conversations", store_path(s),
                l.n);
    else
        finding(r, "database", "chats", false, "%s: %s", store_path(s),
                checked ? buf_str(&b) : err.msg);
    conversation_list_release(&l);
    buf_release(&b);
    store_close(s);
}

static void models(struct report *r) {
    struct err err = {0};
    struct model_list l = {0};
    if (models_list(&l, &err) != ST_OK) {
        finding(r, "models", "folder", false, "%s", err.msg);
        return;
    }
    for (size_t i = 0; i < l.n; i++)
        finding(r, "models", l.v[i].name, true, "%s, %s, %s", l.v[i].architecture, l.v[i].quant,
                show_bytes(l.v[i].file_bytes));
    for (size_t i = 0; i < l.broken.n; i++) {
        char key[32];
        snprintf(key, sizeof key, "broken %zu", i + 1);
        finding(r, "models", key, false, "%s", l.broken.v[i]);
    }
    if (!l.n)
        finding(r, "models", "none", true,
                "no model is installed: llmchat create NAME --from PATH");
    model_list_release(&l);
}

static void configuration(struct report *r, const struct config *c, bool ok,
                          const struct err *err) {
    const char *path = c->path ? c->path : "";
    finding(r, "config", "file", ok, "%s",
            !ok                       ? err->msg
            : access(path, F_OK) == 0 ? path
                                      : "none, defaults are used");
}

/* GPUs that must be there for a model to run, by --device (or NULL) and the configuration
 * (NULL: nothing is known of it). */
static int wanted_gpus(const char *device, const struct config *c) {
    int ranks = c && c->tensor_parallel > 1 ? c->tensor_parallel : 1;
    if (device)
        return strcmp(device, "cuda") == 0 ? ranks : 0;
    return ranks > 1 || (c && c->device == DEVICE_CUDA && c->gpu_layers != 0) ? ranks : 0;
}

int cmd_doctor(struct args *a) {
    struct report r = {.json = arg_flag(a, "json")};
    struct config c;
    struct err err = {0};
    config_init(&c);
    bool ok = config_load(NULL, &c, &err) == ST_OK && config_check_devices(&c, &err) == ST_OK;
    r.n_wanted = wanted_gpus(arg_text(a, "device"), ok ? &c : NULL);
    r.all = json_pack("{s:s}", "version", LLMCHAT_VERSION);
    if (!r.json)
        printf("     llmchat    version      %s\n", LLMCHAT_VERSION);
    processor(&r);
    libraries(&r);
    folders(&r);
    configuration(&r, &c, ok, &err);
    config_release(&c);
    database(&r);
    models(&r);
    if (r.json)
        put_json(r.all);
    else
        json_decref(r.all);
    return r.bad ? 1 : 0;
}
