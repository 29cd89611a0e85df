/*
 * args.c - from argv to struct args, driven by the option tables.
 *
 * getopt_long would need its own tables made from ours, and can't say "did you mean". What is
 * understood: --name VALUE,
 * --name=VALUE, -x VALUE, -xVALUE, single-letter flags run together, -- ends options; options
 * may come after positional arguments. Every setting of chat/settings.h is an option of the
 * commands that take settings, with dashes for underscores. Values are checked here, before a
 * command does anything.
 */
#include "base/log.h"
#include "cmd/cmd.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { COUNT_MAX = 1000000000 };

const struct opt common_opts[] = {
    {"help", 'h', OPT_FLAG, NULL, 0, "Show this help and exit"},
    {"color", 0, OPT_CHOICE, "auto|always|never", 0,
     "Colours; auto means on a terminal, unless NO_COLOR is set or TERM is dumb"},
    {0},
};

static const struct opt *find_opt(const struct command *c, const char *name, size_t len) {
    for (const struct opt *o = c->opts; o && o->name; o++)
        if (strlen(o->name) == len && memcmp(o->name, name, len) == 0)
            return o;
    for (const struct opt *o = common_opts; o->name; o++)
        if (strlen(o->name) == len && memcmp(o->name, name, len) == 0)
            return o;
    return NULL;
}

static const struct opt *find_letter(const struct command *c, char letter) {
    for (const struct opt *o = c->opts; o && o->name; o++)
        if (o->letter == letter)
            return o;
    return letter == 'h' ? &common_opts[0] : NULL;
}

/* Which of the words s is; -1: none. */
static int word_number(const char *words, const char *s) {
    size_t n = strlen(s);
    int i = 0;
    for (const char *p = words; n && p; i++) {
        size_t len = strcspn(p, "|");
        if (len == n && memcmp(p, s, n) == 0)
            return i;
        p = p[len] ? p + len + 1 : NULL;
    }
    return -1;
}

static enum status check_value(const struct opt *o, const char *value, struct err *err) {
    if (o->type == OPT_CHOICE && word_number(o->arg, value) < 0)
        return err_set(err, ST_USAGE, "--%s %s: must be one of %s", o->name, value, o->arg);
    for (const char *s = value; s && (o->type == OPT_COUNT || o->type == OPT_COUNTS);) {
        char *end;
        errno = 0;
        long v = strtol(s, &end, 10);
        bool more = o->type == OPT_COUNTS && *end == ',';
        if (end == s || (*end && !more) || errno || v < o->min || v > COUNT_MAX)
            return err_set(err, ST_USAGE, "--%s %s: must be %s of at least %ld%s", o->name,
                           value, o->type == OPT_COUNT ? "a whole number" : "whole numbers",
                           o->min, o->type == OPT_COUNT ? "" : ", with commas between");
        s = more ? end + 1 : NULL;
    }
    double share;
    if (o->type == OPT_SHARE && !config_share(value, &share))
        return err_set(err, ST_USAGE, "--%s %s: must be a number above 0, at most 1", o->name,
                       value);
    int layers;
    if (o->type == OPT_LAYERS && !config_layers(value, &layers))
        return err_set(err, ST_USAGE, "--%s %s: must be auto, or a whole number from 0 to %d",
                       o->name, value, MAX_LAYERS);
    uint64_t bytes;
    if (o->type == OPT_SIZE && !config_size(value, &bytes))
        return err_set(err, ST_USAGE, "--%s %s: must be a size like 4GB or 500M, or 0", o->name,
                       value);
    return ST_OK;
}

static void add_given(struct args *a, const struct opt *o, const char *value) {
    a->given = xreallocarray(a->given, a->n_given + 1, sizeof *a->given);
    a->given[a->n_given].opt = o;
    a->given[a->n_given++].value = value;
}

/* One --name; *i moves over a value that is an argument of its own. */
static enum status parse_long(struct args *a, int argc, char **argv, int *i, struct err *err) {
    const char *name = argv[*i] + 2, *eq = strchr(name, '=');
    size_t len = eq ? (size_t)(eq - name) : strlen(name);
    const struct opt *o = find_opt(a->cmd, name, len);
    const struct setting_def *d = NULL;
    if (!o && a->cmd->flags & CMD_SETTINGS) {
        char *key = xstrndup(name, len);
        if (!strchr(key, '_')) /* --top_k is no option */
            d = setting_find(key);
        free(key);
    }
    if (!o && !d)
        return err_set(err, ST_USAGE, "unknown option --%.*s (llmchat %s%s--help lists them)",
                       (int)len, name, a->cmd->name, *a->cmd->name ? " " : "");
    if (o && o->type == OPT_FLAG) {
        if (eq)
            return err_set(err, ST_USAGE, "--%s takes no value", o->name);
        add_given(a, o, NULL);
        return ST_OK;
    }
    const char *value = eq ? eq + 1 : *i + 1 < argc ? argv[++*i] : NULL;
    if (!value)
        return err_set(err, ST_USAGE, "--%.*s needs a value", (int)len, name);
    if (o) {
        CHECK(check_value(o, value, err));
        add_given(a, o, value);
        return ST_OK;
    }
    bool first_stop = d->type == SETTING_LIST;
    for (size_t k = 0; k < a->set_names.n; k++)
        first_stop = first_stop && strcmp(a->set_names.v[k], d->name) != 0;
    if (first_stop) /* a list on the command line replaces that of the configuration */
        CHECK(setting_set(&a->config.settings, d, "", err));
    if (setting_set(&a->config.settings, d, value, err) != ST_OK)
        return err->code = ST_USAGE;
    strlist_add(&a->set_names, d->name);
    return ST_OK;
}

/* One group of letters, -abc or -x VALUE. */
static enum status parse_short(struct args *a, int argc, char **argv, int *i, struct err *err) {
    for (const char *s = argv[*i] + 1; *s; s++) {
        const struct opt *o = find_letter(a->cmd, *s);
        if (!o)
            return err_set(err, ST_USAGE, "unknown option -%c (llmchat %s%s--help lists them)",
                           *s, a->cmd->name, *a->cmd->name ? " " : "");
        if (o->type == OPT_FLAG) {
            add_given(a, o, NULL);
            continue;
        }
        const char *value = s[1] ? s + 1 : *i + 1 < argc ? argv[++*i] : NULL;
        if (!value)
            return err_set(err, ST_USAGE, "-%c needs a value", *s);
        CHECK(check_value(o, value, err));
        add_given(a, o, value);
        break;
    }
    return ST_OK;
}

static enum status parse(struct args *a, int argc, char **argv, struct err *err) {
    bool options = true;
    for (int i = 0; i < argc; i++) {
        const char *s = argv[i];
        if (options && strcmp(s, "--") == 0)
            options = false;
        else if (options && s[0] == '-' && s[1] == '-')
            CHECK(parse_long(a, argc, argv, &i, err));
        else if (options && s[0] == '-' && s[1])
            CHECK(parse_short(a, argc, argv, &i, err));
        else
            a->pos[a->n_pos++] = argv[i];
    }
    return ST_OK;
}

static const struct command *find_command(const char *name) {
    for (const struct command *c = cmd_table; c->summary; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

static int run_command(const struct command *c, int argc, char **argv) {
    struct err err = {0};
    struct args a = {.cmd = c, .pos = xcalloc((size_t)argc + 1, sizeof *a.pos)};
    config_init(&a.config);
    enum status st = ST_OK;
    bool help = false;
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        help |= strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
    if (help) { /* even when the rest is wrong or the configuration is broken */
        help_command(stdout, c);
        goto out;
    }
    if (c->flags & (CMD_CONFIG | CMD_SETTINGS))
        TRY(config_load(NULL, &a.config, &err));
    TRY(parse(&a, argc, argv, &err));
    colour_set(arg_text(&a, "color"));
    if (a.n_pos < c->min_args || (c->max_args >= 0 && a.n_pos > c->max_args))
        TRY(err_set(&err, ST_USAGE, "%s arguments; usage: llmchat %s%s%s",
                    a.n_pos < c->min_args ? "missing" : "too many", c->name,
                    *c->name && *c->usage ? " " : "", c->usage));
out:;
    int rc = st != ST_OK ? fail(&err) : help ? 0 : c->run(&a);
    config_release(&a.config);
    strlist_release(&a.set_names);
    free(a.given);
    free(a.pos);
    return rc;
}

/* A closed descriptor 0, 1 or 2 would be given to the next file that is opened, and what is
 * meant for standard output would go into it. What takes its place fails, as it should. */
static void fill_standard_streams(void) {
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd)
            _exit(1);
}

/* What was buffered goes out; the exit code says when it could not. */
static int end_output(int rc) {
    bool before = ferror(stdout) != 0; /* then errno is of something else by now */
    if (fflush(stdout) == 0 && !before)
        return rc;
    int why = errno;
    if (rc)
        return rc;
    return before ? failf(ST_IO, "can't write to standard output")
                  : failf(ST_IO, "can't write to standard output: %s", strerror(why));
}

int cmd_main(int argc, char **argv) {
    fill_standard_streams();
    log_open();
    int rc;
    const char *first = argc > 1 ? argv[1] : "";
    const struct command *c = *first && first[0] != '-' ? find_command(first) : NULL;
    if (strcmp(first, "--version") == 0 || strcmp(first, "-V") == 0) {
        puts("llmchat " LLMCHAT_VERSION);
        rc = 0;
    } else if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0) {
        help_overview(stdout);
        rc = 0;
    } else if (c && c != cmd_table) {
        rc = run_command(c, argc - 2, argv + 2);
    } else if (*first && first[0] != '-') {
        rc = failf(ST_USAGE, "unknown command \"%s\" (llmchat --help lists them)", first);
    } else {
        rc = run_command(cmd_table, argc - 1, argv + 1);
    }
    rc = end_output(rc);
    log_close();
    return rc;
}

/* The table's row of a name; a name that is in no table is a mistake in a command. */
static const struct opt *own_opt(const struct args *a, const char *name) {
    const struct opt *o = find_opt(a->cmd, name, strlen(name));
    assert(o);
    return o;
}

bool arg_flag(const struct args *a, const char *name) {
    const struct opt *o = own_opt(a, name);
    for (size_t i = 0; i < a->n_given; i++)
        if (a->given[i].opt == o)
            return true;
    return false;
}

const char *arg_text(const struct args *a, const char *name) {
    const struct opt *o = own_opt(a, name);
    const char *value = NULL; /* the last one counts */
    for (size_t i = 0; i < a->n_given; i++)
        if (a->given[i].opt == o)
            value = a->given[i].value;
    return value;
}

/* What the command line says of devices takes back what the configuration says against it. */
static void settle_devices(struct args *a) {
    struct config *c = &a->config;
    bool device = arg_text(a, "device") != NULL, layers = arg_text(a, "gpu-layers") != NULL;
    struct err why;
    if (device && !layers && config_check_devices(c, &why) != ST_OK)
        c->gpu_layers = LAYERS_AUTO;
    if (layers && !device && c->gpu_layers == 0)
        c->device = DEVICE_CPU;
    bool ranks = arg_text(a, "tensor-parallel") != NULL;
    bool cpu = (device && c->device == DEVICE_CPU) || (layers && c->gpu_layers == 0);
    c->tensor_parallel = (int)arg_count(a, "tensor-parallel", c->tensor_parallel);
    if (!ranks && cpu)
        c->tensor_parallel = 1;
    if (ranks && c->tensor_parallel > 1 && !layers)
        c->gpu_layers = LAYERS_AUTO;
    if (!device && ((ranks && c->tensor_parallel > 1) || (layers && c->gpu_layers != 0)) &&
        c->device == DEVICE_CPU)
        c->device = DEVICE_AUTO;
}

/* Two that contradict each other come from the same place by now. */
static enum status check_devices(const struct args *a, struct err *err) {
    const char *device = arg_text(a, "device"), *layers = arg_text(a, "gpu-layers");
    if (config_check_devices(&a->config, err) == ST_OK)
        return ST_OK;
    if (!device || !layers)
        return err->code;
    return err_set(err, ST_USAGE,
                   "--gpu-layers %s is %s: it can't be combined with --device %s", layers,
                   a->config.gpu_layers == 0 ? "the CPU alone" : "for a GPU", device);
}

enum status use_compute_options(struct args *a, struct err *err) {
    const char *device = arg_text(a, "device");
    const char *share = arg_text(a, "gpu-memory-utilization");
    if (device)
        a->config.device = (enum device)word_number(DEVICE_WORDS, device);
    if (share)
        config_share(share, &a->config.gpu_memory_utilization);
    if (arg_text(a, "gpu-layers"))
        config_layers(arg_text(a, "gpu-layers"), &a->config.gpu_layers);
    settle_devices(a);
    CHECK(check_devices(a, err));
    if (arg_text(a, "swap-space"))
        config_size(arg_text(a, "swap-space"), &a->config.swap_space);
    if (find_opt(a->cmd, "draft", 5) && arg_text(a, "draft")) {
        free(a->config.draft_model);
        a->config.draft_model = xstrdup(arg_text(a, "draft"));
        a->config.draft_wanted = true;
    }
    if (arg_text(a, "kv-type"))
        a->config.kv_type = (enum kv_type)word_number(KV_TYPE_WORDS, arg_text(a, "kv-type"));
    a->config.threads = (int)arg_count(a, "threads", a->config.threads);
    return ST_OK;
}

long arg_count(const struct args *a, const char *name, long otherwise) {
    const char *s = arg_text(a, name);
    return s ? strtol(s, NULL, 10) : otherwise;
}

size_t arg_counts(const struct args *a, const char *name, long otherwise, long **out) {
    const struct opt *o = own_opt(a, name);
    size_t n = 0;
    *out = NULL;
    for (size_t i = 0; i < a->n_given; i++)
        for (const char *s = a->given[i].opt == o ? a->given[i].value : NULL; s;) {
            char *end;
            *out = xreallocarray(*out, n + 1, sizeof **out);
            (*out)[n++] = strtol(s, &end, 10);
            s = *end ? end + 1 : NULL;
        }
    if (n == 0) {
        *out = xreallocarray(NULL, 1, sizeof **out);
        (*out)[n++] = otherwise;
    }
    return n;
}

size_t arg_texts(const struct args *a, const char *name, const char **out, size_t max) {
    const struct opt *o = own_opt(a, name);
    size_t n = 0;
    for (size_t i = 0; i < a->n_given; i++)
        if (a->given[i].opt == o && n < max)
            out[n++] = a->given[i].value;
    return n;
}
