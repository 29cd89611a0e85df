/*
 * loader.c - opening a model without making anyone wait, and choosing which one.
 *
 * A thread a load: it resolves the name (which may convert a GGUF file) and opens the engine,
 * and reports to the chat's mailbox. Only the newest load counts; an older one is told to
 * cancel and what it opened is closed. The engine that is in use stays until the new one is
 * there and no reply streams: the switch happens between turns. Two models may not have room on
 * a GPU: when the new one did not find enough beside the one in use, that one is closed first,
 * and the load begins again; if it fails then, the one that made way is loaded again.
 *
 * A loader belongs to the chat from its start to the join after its last note; the thread only
 * writes its own fields and reads `cancel`.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/path.h"
#include "base/thread.h"
#include "chat/chat_internal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PROGRESS_US = 50000 };

struct loader {
    struct loader *next;
    pthread_t thread;
    bool joined;
    struct mailbox *box;
    char *name;
    const char *draft; /* the configuration's */
    bool draft_wanted;
    char *kv_dir;
    struct engine_params params;
    atomic_bool cancel;
    int64_t told_us;
    char *path; /* what the name led to */
    struct stat as;
    struct engine *engine; /* NULL when it failed or was taken */
    struct engine *before; /* to be closed first, with `engine`: the second attempt. Or NULL */
    bool again;            /* it is the second */
    struct err err;
};

void note_free(struct note *n) {
    free(n->text);
    free(n);
}

static void put_note(struct loader *l, int kind, const char *text, uint64_t done,
                     uint64_t total) {
    struct note *n = xcalloc(1, sizeof *n);
    *n = (struct note){.type = (enum event_type)NOTE_TYPE,
                       .kind = kind,
                       .loader = l,
                       .text = text ? xstrdup(text) : NULL,
                       .done = done,
                       .total = total};
    mailbox_put(l->box, n);
}

static bool progress(void *user, const char *what, uint64_t done, uint64_t total) {
    struct loader *l = user;
    int64_t now = clock_us();
    if (now - l->told_us >= PROGRESS_US || done == total) {
        l->told_us = now;
        put_note(l, NOTE_PROGRESS, what, done, total);
    }
    return !atomic_load(&l->cancel);
}

enum status chat_open_engine(const char *path, const char *draft, bool wanted,
                             struct engine_params *p, struct engine **out, struct err *err) {
    char *draft_path = NULL;
    enum status st = ST_OK;
    p->draft_path = NULL;
    bool named = draft && *draft;
    if (named)
        st = models_resolve(draft, p->progress, p->user, &draft_path, err);
    if (st == ST_OK) {
        bool itself = draft_path && strcmp(draft_path, path) == 0;
        p->draft_path = itself && !wanted ? NULL : draft_path;
        st = engine_open(path, p, out, err);
    }
    if (named && !wanted &&
        (st == ST_UNSUPPORTED || (st == ST_NOT_FOUND && !draft_path))) { /* a misfit */
        const struct err misfit = *err;
        p->draft_path = NULL;
        st = engine_open(path, p, out, err);
        if (st == ST_OK) /* else it was not the draft's fault */
            log_warn("%s is loaded without the draft model %s: %s", path_base(path), draft,
                     misfit.msg);
    }
    p->draft_path = NULL;
    free(draft_path);
    return st;
}

/* Makes room on the GPU. */
static void close_both(struct loader *l) {
    engine_close(l->engine);
    engine_close(l->before);
    l->engine = l->before = NULL;
}

static void *load(void *arg) {
    struct loader *l = arg;
    close_both(l);
    enum status st = models_resolve(l->name, progress, l, &l->path, &l->err);
    if (st == ST_OK && stat(l->path, &l->as) != 0)
        l->as = (struct stat){0};
    if (st == ST_OK)
        st = chat_open_engine(l->path, l->draft, l->draft_wanted, &l->params, &l->engine,
                              &l->err);
    if (st != ST_OK)
        l->engine = NULL;
    struct mailbox *box = l->box; /* l may be gone once the note is out */
    put_note(l, NOTE_LOADED, NULL, 0, 0);
    mailbox_unref(box);
    return NULL;
}

static void free_loader(struct loader *l) {
    free(l->kv_dir);
    free(l->path);
    free(l->name);
    free(l);
}

/* Its thread has sent its last note. Closes what it opened and nobody took. */
static void end_loader(struct chat *c, struct loader *l) {
    struct loader **p = &c->loaders;
    while (*p != l)
        p = &(*p)->next;
    *p = l->next;
    if (!l->joined)
        pthread_join(l->thread, NULL);
    engine_close(l->engine);
    free_loader(l);
}

enum status chat_load_model(struct chat *c, const char *name, struct err *err) {
    struct loader *l = xcalloc(1, sizeof *l);
    if (c->ready) { /* loaded, but not taken into use yet: it comes too late */
        end_loader(c, c->ready);
        c->ready = c->loading = NULL;
    }
    if (c->loading)
        atomic_store(&c->loading->cancel, true);
    *l = (struct loader){.next = c->loaders,
                         .box = mailbox_ref(c->box),
                         .name = xstrdup(name),
                         .draft = c->config->draft_model,
                         .draft_wanted = c->config->draft_wanted,
                         .params = config_engine(c->config)};
    if (c->on_cpu) {
        l->params.device = DEVICE_CPU;
        l->params.tensor_parallel = 1;
    }
    l->params.ctx_tok = c->settings.ctx;
    l->params.progress = progress;
    l->params.user = l;
    struct err no_dir;
    if (c->config->kv_cache && states_dir(&l->kv_dir, &no_dir) != ST_OK) {
        log_warn("states are not kept: %s", no_dir.msg);
        l->kv_dir = NULL;
    }
    l->params.kv_dir = l->kv_dir;
    l->params.kv_dir_bytes = c->config->kv_cache;
    if (pthread_create(&l->thread, NULL, load, l) != 0) {
        mailbox_unref(l->box);
        free_loader(l);
        return err_set(err, ST_INTERNAL, "no thread could be started to load %s", name);
    }
    c->loaders = l;
    c->loading = l;
    c->load_failed = c->fail_shown = c->made_way = false;
    return ST_OK;
}

enum status chat_load_on_cpu(struct chat *c, struct err *err) {
    c->on_cpu = true;
    return chat_load_model(c, chat_model(c), err);
}

/* A path is remembered in full, since the next start may be from elsewhere. */
static char *lasting_name(const char *name) {
    char *real = strchr(name, '/') ? realpath(name, NULL) : NULL;
    return real ? real : xstrdup(name);
}

static void *close_engine(void *engine) {
    engine_close(engine);
    return NULL;
}

/* Closes an engine that is not used any more. It may save states for a while; nobody waits. */
static void close_aside(struct chat *c, struct engine *e) {
    if (c->closing)
        pthread_join(c->closer, NULL);
    c->closing = e && thread_start(&c->closer, close_engine, e) == 0;
    if (!c->closing)
        engine_close(e);
}

/* Whether l lacked room on a GPU where the engine in use has some. */
static bool in_the_way(const struct chat *c, const struct loader *l) {
    if (l->again || !c->engine || engine_info(c->engine)->gpu_layers == 0)
        return false;
    return l->engine ? engine_info(l->engine)->device_note[0] : l->err.code == ST_NOMEM;
}

/* Loads once more, without the engine in use. False: no thread could be started. */
static bool load_again(struct chat *c, struct loader *l) {
    pthread_join(l->thread, NULL);
    l->joined = true;
    sessions_release(c);
    close_aside(c, NULL); /* the engine of before may be there, too */
    l->again = true;
    l->before = c->engine;
    l->box = mailbox_ref(c->box);
    free(l->path);
    l->path = NULL;
    if (pthread_create(&l->thread, NULL, load, l) != 0) {
        l->before = NULL;
        mailbox_unref(l->box);
        return false;
    }
    l->joined = false;
    c->engine = NULL;
    c->ready = NULL;
    return true;
}

static void load_failed(struct chat *c, struct loader *l) {
    c->ready = c->loading = NULL;
    c->load_failed = true;
    c->made_way = l->again;
    chat_queue(c, EV_MODEL, l->err.msg, 0, 0, &l->err, NULL);
    end_loader(c, l);
}

void loader_failure_shown(struct chat *c) {
    struct err err;
    if (c->engine)
        c->load_failed = false; /* the older model is still there */
    else if (c->made_way && chat_load_model(c, c->model, &err) != ST_OK)
        chat_queue(c, EV_MODEL, err.msg, 0, 0, &err, NULL);
    c->made_way = false;
}

void loader_adopt(struct chat *c) {
    struct loader *l = c->ready;
    struct err err;
    if (!l || c->turn.kind != TURN_NONE)
        return;
    if (in_the_way(c, l) && load_again(c, l))
        return;
    if (!l->engine) {
        load_failed(c, l);
        return;
    }
    sessions_release(c);
    close_aside(c, c->engine);
    c->engine = l->engine;
    l->engine = NULL;
    free(c->model);
    c->model = lasting_name(l->name);
    free(c->model_path);
    c->model_path = l->path;
    l->path = NULL;
    c->model_as = l->as;
    c->ready = NULL;
    c->loading = NULL;
    context_forget_count(c);
    turn_forget_rates(c);
    chat_follow_model(c);
    enum status st = store_setting_set(c->store, "last_model", c->model, &err);
    if (st == ST_OK && c->id)
        st = store_conv_set_model(c->store, c->id, c->model, &err);
    if (st != ST_OK)
        chat_queue(c, EV_STORE_FAILED, NULL, 0, 0, &err, NULL);
    chat_queue(c, EV_MODEL, c->model, 1, 1, NULL, NULL);
    end_loader(c, l);
}

void loader_note(struct chat *c, struct note *n) {
    struct loader *l = n->loader;
    if (n->kind == NOTE_PROGRESS) {
        if (l == c->loading)
            chat_queue(c, EV_MODEL, n->text, n->done, n->total, NULL, NULL);
    } else if (n->kind == NOTE_LOADED && l != c->loading) {
        end_loader(c, l);
    } else if (n->kind == NOTE_LOADED && (l->engine || in_the_way(c, l))) {
        c->ready = l;
        loader_adopt(c);
        if (c->ready)
            chat_queue(c, EV_MODEL, l->name, 1, 1, NULL, NULL);
    } else if (n->kind == NOTE_LOADED) {
        load_failed(c, l);
    }
    note_free(n);
}

void loader_end_all(struct chat *c) {
    for (struct loader *l = c->loaders; l; l = l->next)
        atomic_store(&l->cancel, true);
    while (c->loaders)
        end_loader(c, c->loaders);
    c->loading = c->ready = NULL;
    if (c->closing)
        pthread_join(c->closer, NULL);
    c->closing = false;
}

enum model_state chat_model_state(const struct chat *c) {
    if (c->loading)
        return MODEL_LOADING;
    if (c->load_failed)
        return MODEL_FAILED;
    return c->engine ? MODEL_READY : MODEL_NONE;
}

bool chat_model_waits(const struct chat *c) {
    return c->ready != NULL;
}

bool chat_model_changed(const struct chat *c) {
    const struct stat *as = &c->model_as;
    struct stat now;
    if (!c->model_path || !as->st_ino || stat(c->model_path, &now) != 0)
        return false; /* of a file that is gone the mapping is still whole */
    return now.st_dev != as->st_dev || now.st_ino != as->st_ino || now.st_size != as->st_size ||
           now.st_mtim.tv_sec != as->st_mtim.tv_sec ||
           now.st_mtim.tv_nsec != as->st_mtim.tv_nsec;
}

const char *chat_model(const struct chat *c) {
    return c->model ? c->model : "";
}

const struct engine_info *chat_engine_info(const struct chat *c) {
    return c->engine ? engine_info(c->engine) : NULL;
}

enum status chat_gpu_load(const struct chat *c, int index, struct buf *out, struct err *err) {
    return engine_gpu_load(c->engine, index, out, err);
}

enum status chat_check_draft(const struct chat *c, struct err *err) {
    if (!c->engine)
        return ST_OK;
    return config_check_draft(c->config, &c->settings, engine_info(c->engine)->draft, err);
}

/* -- which model -- */

static bool installed(const struct model_list *l, const char *name) {
    if (!name || !*name)
        return false;
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->v[i].name, name) == 0)
            return true;
    return strchr(name, '/') && access(name, R_OK) == 0;
}

enum status chat_choose_model(struct chat *c, const char *wanted, char **name,
                              struct err *err) {
    struct model_list l = {0};
    struct conversation conv = {0};
    char *last = NULL;
    enum status st = ST_OK;
    *name = NULL;
    if (!wanted || !*wanted)
        wanted = c->config->model;
    if (wanted && *wanted) {
        *name = xstrdup(wanted);
        return ST_OK;
    }
    TRY(models_list(&l, err));
    if (c->id)
        TRY(store_conv_get(c->store, c->id, &conv, err));
    TRY(store_setting_get(c->store, "last_model", &last, err));
    if (installed(&l, conv.model)) {
        *name = xstrdup(conv.model);
    } else if (installed(&l, last)) {
        *name = xstrdup(last);
    } else if (l.n > 0) { /* the only one, or the one that was made last */
        size_t newest = 0;
        for (size_t i = 1; i < l.n; i++)
            if (strcmp(l.v[i].created, l.v[newest].created) > 0)
                newest = i;
        *name = xstrdup(l.v[newest].name);
    } else {
        st = err_set(err, ST_NOT_FOUND,
                     "no model is installed; make one with: llmchat create NAME --from "
                     "PATH");
    }
out:
    free(last);
    conversation_release(&conv);
    model_list_release(&l);
    return st;
}
