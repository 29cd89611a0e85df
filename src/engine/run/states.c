/*
 * states.c - see states.h. Sizes and times come from stat() each time, since other processes
 * write here as well; a folder has some hundreds of files at most.
 */
#include "engine/run/states.h"

#include "base/mem.h"
#include "base/path.h"
#include "engine/models.h"
#include "engine/run/state_file.h"
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

static const char ending[] = ".kv";
enum { DIGITS = 16, NAME_LEN = DIGITS + 1 + DIGITS + sizeof ending - 1 };

char *states_name(uint64_t model, const int32_t *tokens, size_t n_tok, uint64_t form) {
    uint64_t h = XXH3_64bits_withSeed(tokens, n_tok * sizeof *tokens, form);
    return xasprintf("%016" PRIx64 "-%016" PRIx64 "%s", model, h, ending);
}

bool states_parse_name(const char *name, uint64_t *model) {
    static const char hex[] = "0123456789abcdef";
    if (strlen(name) != NAME_LEN || strspn(name, hex) != DIGITS || name[DIGITS] != '-' ||
        strspn(name + DIGITS + 1, hex) != DIGITS || strcmp(name + NAME_LEN - 3, ending) != 0)
        return false;
    *model = strtoull(name, NULL, 16); /* ends at the dash */
    return true;
}

void states_each(const char *dir, states_fn *fn, void *user) {
    uint64_t model;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (!states_parse_name(e->d_name, &model))
            continue;
        char *path = path_join(dir, e->d_name);
        fn(user, path, e->d_name);
        free(path);
    }
    if (d)
        closedir(d);
}

void states_sweep(const char *dir) {
    static const char mark[] = ".kv.tmp.";
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        const char *tmp = strstr(e->d_name, mark);
        if (!tmp)
            continue;
        char *end;
        long pid = strtol(tmp + strlen(mark), &end, 10);
        if (*end == 0 && pid > 0 && kill((pid_t)pid, 0) != 0 && errno == ESRCH)
            unlinkat(dirfd(d), e->d_name, 0);
    }
    if (d)
        closedir(d);
}

/* ---- the bound ---- */

struct held {
    char *path;
    uint64_t n_bytes;
    int64_t used_ns;
};

struct held_list {
    struct held *v;
    size_t n;
    uint64_t n_bytes;
};

static void hold(void *user, const char *path, const char *name) {
    struct held_list *l = user;
    struct stat sb;
    (void)name;
    if (lstat(path, &sb) != 0 || !S_ISREG(sb.st_mode))
        return;
    l->v = xreallocarray(l->v, l->n + 1, sizeof *l->v);
    l->v[l->n++] =
        (struct held){.path = xstrdup(path),
                      .n_bytes = (uint64_t)sb.st_size,
                      .used_ns = (int64_t)sb.st_mtim.tv_sec * 1000000000 + sb.st_mtim.tv_nsec};
    l->n_bytes += (uint64_t)sb.st_size;
}

static int older_first(const void *a, const void *b) {
    const struct held *x = a, *y = b;
    return (x->used_ns > y->used_ns) - (x->used_ns < y->used_ns);
}

bool states_make_room(const char *dir, uint64_t max_bytes, uint64_t n_bytes) {
    struct held_list l = {0};
    struct statvfs fs;
    states_each(dir, hold, &l);
    if (statvfs(dir, &fs) == 0) {
        uint64_t half = ((uint64_t)fs.f_bavail * fs.f_frsize + l.n_bytes) / 2;
        max_bytes = half < max_bytes ? half : max_bytes;
    }
    bool fits = n_bytes <= max_bytes;
    if (l.n)
        qsort(l.v, l.n, sizeof *l.v, older_first);
    for (size_t i = 0; i < l.n && fits && l.n_bytes > max_bytes - n_bytes; i++) {
        unlink(l.v[i].path); /* else another process was faster */
        l.n_bytes -= l.v[i].n_bytes;
    }
    for (size_t i = 0; i < l.n; i++)
        free(l.v[i].path);
    free(l.v);
    return fits;
}

/* ---- removing ---- */

static void remove_if_owned(void *user, const char *path, const char *name) {
    const int64_t *owner = user;
    struct state_file f;
    struct err err;
    (void)name;
    enum status st = state_open(&f, path, &err);
    bool goes = st == ST_FORMAT || (st == ST_OK && f.head.owner == *owner);
    state_close(&f);
    if (goes)
        unlink(path);
}

void states_remove_owner(const char *dir, int64_t owner) {
    states_each(dir, remove_if_owned, &owner);
}

static void remove_if_of(void *user, const char *path, const char *name) {
    const uint64_t *wanted = user;
    uint64_t model;
    if (states_parse_name(name, &model) && model == *wanted)
        unlink(path);
}

void states_remove_model(const char *dir, uint64_t model) {
    states_each(dir, remove_if_of, &model);
}

/* ---- models.h ---- */

enum status states_dir(char **out, struct err *err) {
    CHECK(path_in(PATH_CACHE, "kv/x", out, err)); /* makes the folder */
    *strrchr(*out, '/') = 0;
    return ST_OK;
}

void states_forget(int64_t conversation) {
    char *dir;
    if (states_dir(&dir, NULL) != ST_OK)
        return;
    states_remove_owner(dir, conversation);
    free(dir);
}

/* "nf4" of ".../models/nf4.safetensors" */
static char *shown_name(const char *model) {
    static const char end[] = ".safetensors";
    const char *base = path_base(model);
    size_t n = strlen(base), m = strlen(end);
    return xstrndup(base, n > m && strcmp(base + n - m, end) == 0 ? n - m : n);
}

static void list_one(void *user, const char *path, const char *name) {
    struct saved_state_list *l = user;
    struct state_file f;
    struct err err;
    (void)name;
    if (state_open(&f, path, &err) != ST_OK) {
        if (err.code != ST_NOT_FOUND) /* else another program was faster */
            strlist_add(err.code == ST_FORMAT ? &l->damaged : &l->broken, path);
        return;
    }
    l->v = xreallocarray(l->v, l->n + 1, sizeof *l->v);
    l->v[l->n++] = (struct saved_state){.path = xstrdup(path),
                                        .model = shown_name(f.name),
                                        .conversation = f.head.owner,
                                        .n_tok = (int)f.head.n_tok,
                                        .bytes = f.n_bytes,
                                        .used_us = f.used_us};
    state_close(&f);
}

static int newer_first(const void *a, const void *b) {
    const struct saved_state *x = a, *y = b;
    if (x->used_us != y->used_us)
        return x->used_us < y->used_us ? 1 : -1;
    return strcmp(x->path, y->path);
}

enum status states_list(struct saved_state_list *out, struct err *err) {
    char *dir;
    *out = (struct saved_state_list){0};
    CHECK(states_dir(&dir, err));
    DIR *d = opendir(dir);
    if (!d) { /* that is not the same as nothing there */
        err_set(err, ST_IO, "can't read the folder %s: %s", dir, strerror(errno));
        free(dir);
        return ST_IO;
    }
    closedir(d);
    states_sweep(dir);
    states_each(dir, list_one, out);
    if (out->n)
        qsort(out->v, out->n, sizeof *out->v, newer_first);
    free(dir);
    return ST_OK;
}

void saved_state_list_release(struct saved_state_list *l) {
    for (size_t i = 0; i < l->n; i++) {
        free(l->v[i].path);
        free(l->v[i].model);
    }
    free(l->v);
    strlist_release(&l->damaged);
    strlist_release(&l->broken);
    *l = (struct saved_state_list){0};
}

enum status states_remove(const char *path, struct err *err) {
    if (unlink(path) != 0 && errno != ENOENT)
        return err_set(err, ST_IO, "can't remove %s: %s", path, strerror(errno));
    return ST_OK;
}
