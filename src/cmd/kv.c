/*
 * kv.c - `llmchat kv list` and `kv prune`: the states of conversations that were saved so that
 * they are not computed again.
 */
#include "base/clock.h"
#include "cmd/cmd.h"
#include "engine/models.h"
#include "store/store.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const struct opt kv_opts[] = {
    {"json", 0, OPT_FLAG, NULL, 0, "list: print a JSON list"},
    {"all", 0, OPT_FLAG, NULL, 0, "prune: remove all"},
    {"model", 0, OPT_TEXT, "NAME", 0, "prune: only those of this model"},
    {"older", 0, OPT_COUNT, "DAYS", 0, "prune: only those that were not used for so long"},
    {"to", 0, OPT_TEXT, "SIZE", 0,
     "prune: the least recently used, until the rest takes at most SIZE (500MB, 2G)"},
    {0},
};

/* The conversation's title, "" when it is not known; the caller frees. */
static char *title_of(struct store *s, int64_t id) {
    struct conversation c = {0};
    struct err ignored;
    char *title = xstrdup("");
    if (s && store_conv_get(s, id, &c, &ignored) == ST_OK) {
        free(title);
        title = xstrdup(c.title);
        conversation_release(&c);
    }
    return title;
}

static int list(struct args *a, const struct saved_state_list *l) {
    struct store *store = NULL;
    struct err ignored;
    uint64_t sum = 0;
    json_t *all = arg_flag(a, "json") ? json_array() : NULL;
    if (l->n && open_store(&store, &ignored) != ST_OK)
        store = NULL; /* titles are not worth an error */
    int width = 5;
    for (size_t i = 0; i < l->n; i++)
        width = (int)strlen(l->v[i].model) > width ? (int)strlen(l->v[i].model) : width;
    if (l->n && !all)
        printf("%-*s  %7s  %9s  %-16s  %s\n", width, "MODEL", "TOKENS", "SIZE", "LAST USED",
               "CONVERSATION");
    for (size_t i = 0; i < l->n; i++) {
        const struct saved_state *s = &l->v[i];
        char *title = title_of(store, s->conversation);
        sum += s->bytes;
        if (all) {
            json_array_append_new(all, json_pack("{s:o, s:i, s:I, s:s, s:I, s:o, s:o}", "model",
                                                 json_text(s->model), "tokens", s->n_tok,
                                                 "bytes", (json_int_t)s->bytes, "used",
                                                 show_iso(s->used_us / 1000), "conversation",
                                                 (json_int_t)s->conversation, "title",
                                                 json_text(title), "path", json_text(s->path)));
        } else {
            char *row = xasprintf("%-*s  %7d  %9s  %s  %lld %s", width, s->model, s->n_tok,
                                  show_bytes(s->bytes), show_time(s->used_us / 1000),
                                  (long long)s->conversation, title);
            put_line("", row);
            free(row);
        }
        free(title);
    }
    if (all)
        put_json(all);
    else if (l->n)
        note("%zu saved, %s", l->n, show_bytes(sum));
    else
        note("No states are saved.");
    store_close(store);
    return 0;
}

struct prune {
    bool all, none;    /* none: only what is damaged */
    const char *model; /* or NULL */
    int64_t before_us; /* used last before that */
    bool has_size;
    uint64_t size;
};

static enum status read_prune(const struct args *a, struct prune *p, struct err *err) {
    const char *to = arg_text(a, "to");
    long days = arg_count(a, "older", -1);
    *p = (struct prune){.all = arg_flag(a, "all"),
                        .model = arg_text(a, "model"),
                        .before_us = INT64_MAX,
                        .has_size = to != NULL};
    if (to && !config_size(to, &p->size))
        return err_set(err, ST_USAGE, "--to %s: must be a size like 500MB or 2G", to);
    if (days >= 0)
        p->before_us = (clock_unix_ms() - (int64_t)days * 86400000) * 1000;
    p->none = !p->all && !p->model && !to && days < 0;
    if (p->all && (p->model || to || days >= 0))
        return err_set(err, ST_USAGE, "--all leaves nothing to choose: no other option");
    return ST_OK;
}

/* How many of them could be removed. */
static size_t remove_all(const struct strlist *paths, uint64_t *freed, int *rc) {
    struct err err = {0};
    size_t n = 0;
    for (size_t i = 0; i < paths->n; i++) {
        struct stat s;
        uint64_t bytes = stat(paths->v[i], &s) == 0 ? (uint64_t)s.st_size : 0;
        if (states_remove(paths->v[i], &err) != ST_OK) {
            *rc = fail(&err);
            continue;
        }
        *freed += bytes;
        n++;
    }
    return n;
}

/* Model and age choose; of what they choose, the last used ones stay as far as --to has room
 * for them. What is damaged goes in any case. */
static int prune(struct args *a, const struct saved_state_list *l) {
    struct prune p;
    struct err err = {0};
    uint64_t kept = 0, freed = 0;
    size_t n = 0;
    bool full = false; /* what was used before this one goes */
    int rc = 0;
    if (read_prune(a, &p, &err) != ST_OK)
        return fail(&err);
    for (size_t i = 0; i < l->n && !p.none; i++) {
        const struct saved_state *s = &l->v[i];
        if ((p.model && strcmp(p.model, s->model) != 0) || s->used_us >= p.before_us)
            continue;
        full = full || !p.has_size || s->bytes > p.size - kept;
        if (!full) {
            kept += s->bytes;
            continue;
        }
        if (states_remove(s->path, &err) != ST_OK) {
            rc = fail(&err);
            continue;
        }
        freed += s->bytes;
        n++;
    }
    n += remove_all(&l->damaged, &freed, &rc);
    if (p.all)
        n += remove_all(&l->broken, &freed, &rc);
    if (p.none && !l->damaged.n)
        note("None is damaged. Say which are to go: --all, --model NAME, --older DAYS, or --to "
             "SIZE");
    else
        note("%zu removed, %s", n, show_bytes(freed));
    return rc;
}

int cmd_kv(struct args *a) {
    bool prunes = strcmp(a->pos[0], "prune") == 0;
    struct saved_state_list l;
    struct err err = {0};
    if (!prunes && strcmp(a->pos[0], "list") != 0)
        return failf(ST_USAGE, "kv %s: list or prune wanted", a->pos[0]);
    for (size_t i = 0; i < a->n_given; i++) {
        const struct opt *o = a->given[i].opt;
        bool ours = o >= kv_opts && o < kv_opts + sizeof kv_opts / sizeof *kv_opts;
        if (ours && (o == &kv_opts[0]) == prunes)
            return failf(ST_USAGE, "--%s is not for kv %s", o->name, a->pos[0]);
    }
    if (states_list(&l, &err) != ST_OK)
        return fail(&err);
    int rc = prunes ? prune(a, &l) : list(a, &l);
    for (size_t i = 0; i < l.damaged.n && !prunes; i++)
        note("llmchat: %s: damaged; llmchat kv prune removes it", l.damaged.v[i]);
    for (size_t i = 0; i < l.broken.n && !prunes; i++)
        note("llmchat: %s: no state that this version can read", l.broken.v[i]);
    saved_state_list_release(&l);
    return rc;
}
