/*
 * library.c - the folder of installed models, and what a person typed turned into a file. See
 * models.h.
 *
 * A model is one file, NAME.safetensors; it is never changed in place, so a copy is a hard link
 * and removing one never disturbs a process that has it mapped.
 *
 * A GGUF file or a Hugging Face folder named on the command line is converted once into the
 * cache folder, quantised weights kept and others to NF4: converted/BASE-KEY.safetensors, where
 * KEY is a hash of the real path, of size and time of the file or of each file in the folder,
 * and of our layout's version. Each use sets the copy's time; when the copies exceed 20 GB
 * together, those not used for longest are removed, never the one just made.
 */
#include "base/file_map.h"
#include "base/path.h"
#include "base/sha256.h"
#include "engine/model/model_file.h"
#include "engine/run/states.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint64_t converted_max_bytes = 20ull << 30;
static const char ending[] = ".safetensors";

void model_list_release(struct model_list *l) {
    for (size_t i = 0; i < l->n; i++)
        model_info_release(&l->v[i]);
    free(l->v);
    strlist_release(&l->broken);
    *l = (struct model_list){0};
}

bool models_name_ok(const char *name) {
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789._:+-";
    size_t n = strlen(name);
    return n >= 1 && n <= 100 && name[0] != '.' && name[0] != '-' && strspn(name, allowed) == n;
}

static bool has_ending(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n > m && strcmp(s + n - m, end) == 0;
}

/* Removes what killed processes left half-written: NAME.safetensors.tmp.PID of a process that
 * is gone. */
static void sweep(const char *dir) {
    DIR *d = opendir(dir);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        const char *tmp = strstr(e->d_name, ".safetensors.tmp.");
        if (!tmp)
            continue;
        char *end;
        long pid = strtol(tmp + strlen(".safetensors.tmp."), &end, 10);
        if (*end == 0 && pid > 0 && kill((pid_t)pid, 0) != 0 && errno == ESRCH)
            unlinkat(dirfd(d), e->d_name, 0);
    }
    closedir(d);
}

enum status models_dir(char **out, struct err *err) {
    char *probe;
    CHECK(path_in(PATH_DATA, "models/x", &probe, err)); /* makes the folder */
    *strrchr(probe, '/') = 0;
    sweep(probe);
    *out = probe;
    return ST_OK;
}

/* The same in the cache folder; no copy was ever made where it has no such folder. */
static void sweep_converted(void) {
    char *root;
    if (path_root(PATH_CACHE, &root, NULL) != ST_OK)
        return;
    char *dir = path_join(root, "converted");
    sweep(dir);
    free(dir);
    free(root);
}

/* DIR/NAME.safetensors; the caller frees. */
static enum status installed_path(const char *name, char **out, struct err *err) {
    char *dir;
    CHECK(models_dir(&dir, err));
    *out = xasprintf("%s/%s%s", dir, name, ending);
    free(dir);
    return ST_OK;
}

static enum status read_info(const char *path, struct model_info *out, struct err *err) {
    struct container *c = NULL;
    struct hparams hp;
    CHECK(container_open(path, &c, err));
    enum status st = model_meta_read(c, path, &hp, out, err);
    container_close(c);
    return st;
}

static int info_cmp(const void *a, const void *b) {
    return strcmp(((const struct model_info *)a)->name, ((const struct model_info *)b)->name);
}

static int text_cmp(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

enum status models_list(struct model_list *out, struct err *err) {
    char *dir;
    size_t cap = 0;
    *out = (struct model_list){0};
    CHECK(models_dir(&dir, err));
    sweep_converted();
    DIR *d = opendir(dir);
    if (!d) {
        enum status st = err_set(err, ST_IO, "%s: %s", dir, strerror(errno));
        free(dir);
        return st;
    }
    for (struct dirent *e; (e = readdir(d));) {
        struct err why = {0};
        struct model_info info;
        if (e->d_name[0] == '.' || !has_ending(e->d_name, ending))
            continue;
        char *path = path_join(dir, e->d_name);
        if (read_info(path, &info, &why) != ST_OK) {
            strlist_add(&out->broken, why.msg); /* begins with the file's name */
        } else {
            if (out->n == cap) {
                cap = cap ? 2 * cap : 8;
                out->v = xreallocarray(out->v, cap, sizeof *out->v);
            }
            out->v[out->n++] = info;
        }
        free(path);
    }
    closedir(d);
    free(dir);
    if (out->n)
        qsort(out->v, out->n, sizeof *out->v, info_cmp);
    if (out->broken.n)
        qsort(out->broken.v, out->broken.n, sizeof *out->broken.v, text_cmp);
    return ST_OK;
}

/* ST_NOT_FOUND with what there is. what: that was looked for. */
static enum status not_found(const char *what, const char *name, struct err *err) {
    struct model_list l;
    struct buf names = {0};
    CHECK(models_list(&l, err));
    for (size_t i = 0; i < l.n; i++)
        buf_addf(&names, "%s%s", i ? ", " : "", l.v[i].name);
    enum status st =
        l.n ? err_set(err, ST_NOT_FOUND, "there is no %s named \"%.120s\"; installed: %s", what,
                      name, buf_str(&names))
            : err_set(err, ST_NOT_FOUND,
                      "there is no %s named \"%.120s\"; none is installed (llmchat create NAME "
                      "--from "
                      "PATH makes one of a GGUF file or a Hugging Face folder)",
                      what, name);
    buf_release(&names);
    model_list_release(&l);
    return st;
}

/* The first bytes of a file; 0 when it can't be read. */
static size_t read_begin(const char *path, char *out, size_t n) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t got = fd >= 0 ? pread(fd, out, n, 0) : 0;
    if (fd >= 0)
        close(fd);
    return got > 0 ? (size_t)got : 0;
}

static bool is_gguf(const char *path) {
    char magic[4];
    return read_begin(path, magic, 4) == 4 && memcmp(magic, "GGUF", 4) == 0;
}

/* A file that a person named and that is neither kind by its first bytes: what to give instead
 * helps more than what is wrong with its header. */
static enum status check_kind(const char *path, const struct stat *sb, struct err *err) {
    char begin[9];
    if (!S_ISREG(sb->st_mode) || access(path, R_OK) != 0)
        return ST_OK; /* who opens it says why it can't */
    if (sb->st_size == 0)
        return err_set(err, ST_FORMAT, "%s: an empty file", path);
    size_t n = read_begin(path, begin, sizeof begin);
    if ((n >= 4 && memcmp(begin, "GGUF", 4) == 0) || (n == 9 && begin[8] == '{'))
        return ST_OK;
    return err_set(
        err, ST_FORMAT,
        "%s: neither a GGUF file (those begin with GGUF) nor a model of llmchat's; of "
        "a Hugging Face model the folder is wanted",
        path);
}

/* A later part of a split model, or the part of one that sees. */
static bool is_side_file(const char *name) {
    const char *of = strstr(name, "-of-");
    bool part = of && of - name > 6 && of[-6] == '-' && strspn(of - 5, "0123456789") == 5;
    return (part && strncmp(of - 5, "00001", 5) != 0) || strncmp(name, "mmproj", 6) == 0;
}

/* The hub's cache keeps a repository's files in snapshots/REVISION and the newest revision's
 * name in refs/main. *path, when it is such a repository's folder, becomes that snapshot's. */
static void find_snapshot_inside(char **path) {
    struct buf name = {0};
    struct stat sb;
    char *ref = path_join(*path, "refs/main");
    if (file_read(ref, 100, &name, NULL) == ST_OK && models_name_ok(buf_str(&name))) {
        char *there = xasprintf("%s/snapshots/%s", *path, buf_str(&name));
        if (stat(there, &sb) == 0 && S_ISDIR(sb.st_mode)) {
            free(*path);
            *path = there;
            there = NULL;
        }
        free(there);
    }
    buf_release(&name);
    free(ref);
}

/* People keep GGUF files in folders of their own. *path, a folder, becomes the file's path when
 * it holds one such model and is no Hugging Face folder. */
static enum status find_gguf_inside(char **path, struct err *err) {
    struct strlist found = {0};
    find_snapshot_inside(path);
    char *config = path_join(*path, "config.json");
    DIR *d = access(config, F_OK) != 0 ? opendir(*path) : NULL;
    enum status st = ST_OK;
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.' && has_ending(e->d_name, ".gguf") && !is_side_file(e->d_name))
            strlist_add(&found, e->d_name);
    if (d)
        closedir(d);
    if (found.n > 1) {
        qsort(found.v, found.n, sizeof *found.v, text_cmp);
        st = err_set(err, ST_USAGE, "%s: holds %zu GGUF models; name one: %s, %s%s", *path,
                     found.n, found.v[0], found.v[1], found.n > 2 ? ", …" : "");
    } else if (found.n == 1) {
        char *file = path_join(*path, found.v[0]);
        free(*path);
        *path = file;
    }
    strlist_release(&found);
    free(config);
    return st;
}

enum status models_find_source(const char *path, char **out, struct err *err) {
    struct stat sb;
    char *here = xasprintf("./%s", path);
    bool is = models_name_ok(path) && models_find(here, out, NULL) == ST_OK;
    free(here);
    if (is) { /* a folder that only has the name of a model is none */
        char *config = path_join(*out, "config.json");
        is = stat(*out, &sb) == 0 && (!S_ISDIR(sb.st_mode) || access(config, F_OK) == 0);
        free(config);
        if (is)
            return ST_OK;
        free(*out);
    }
    return models_find(path, out, err);
}

enum status models_find(const char *name, char **out, struct err *err) {
    struct stat sb;
    char *path;
    if (models_name_ok(name)) {
        CHECK(installed_path(name, &path, err));
        if (access(path, F_OK) == 0) {
            *out = path;
            return ST_OK;
        }
        free(path);
    }
    path = path_expand(name);
    if (*name && stat(path, &sb) == 0) {
        enum status st =
            S_ISDIR(sb.st_mode) ? find_gguf_inside(&path, err) : check_kind(path, &sb, err);
        if (st == ST_OK)
            *out = path;
        else
            free(path);
        return st;
    }
    int why = errno;
    free(path);
    if (strchr(name, '/')) /* a path, whatever the models are called */
        return err_set(err, why == ENOENT ? ST_NOT_FOUND : ST_IO, "%s: %s", name,
                       why == ENOENT ? "there is no such file or folder" : strerror(why));
    return not_found("model or file", name, err);
}

bool library_is_source(const char *path) {
    struct stat sb;
    return (stat(path, &sb) == 0 && S_ISDIR(sb.st_mode)) || is_gguf(path);
}

enum status models_info(const char *name, struct model_info *out, struct err *err) {
    char *path;
    CHECK(models_find(name, &path, err));
    enum status st =
        library_is_source(path) ? model_source_info(path, out, err) : read_info(path, out, err);
    free(path);
    return st;
}

/* Removes the states that were saved for a model. */
static void remove_states(uint64_t model) {
    char *dir;
    if (states_dir(&dir, NULL) != ST_OK)
        return;
    states_remove_model(dir, model);
    free(dir);
}

enum status models_remove(const char *name, struct err *err) {
    char *path;
    if (!models_name_ok(name))
        return not_found("model", name, err);
    CHECK(installed_path(name, &path, err));
    enum status st = ST_OK;
    struct stat sb;
    uint64_t model;
    bool last = stat(path, &sb) == 0 && sb.st_nlink == 1 &&
                model_file_hash(path, &model, NULL) == ST_OK;
    if (unlink(path) != 0)
        st = errno == ENOENT
                 ? not_found("model", name, err)
                 : err_set(err, ST_IO, "can't remove %s: %s", path, strerror(errno));
    else if (last) /* no copy of it has another name */
        remove_states(model);
    free(path);
    return st;
}

/* A whole second file, where a link is not possible. */
static enum status copy_bytes(const char *from, const char *to, struct err *err) {
    struct file_map map;
    struct atomic_file f;
    CHECK(file_map_open(&map, from, err));
    enum status st = atomic_open(&f, to, err);
    if (st == ST_OK) {
        st = atomic_write(&f, map.p, map.len, err);
        if (file_map_unchanged(map, from, st == ST_OK ? err : NULL) != ST_OK)
            st = ST_IO;
        if (st == ST_OK)
            st = atomic_commit(&f, err);
        else
            atomic_abort(&f);
    }
    file_map_close(&map);
    return st;
}

enum status models_copy(const char *from, const char *to, struct err *err) {
    char *src = NULL, *dst = NULL;
    struct model_info info;
    enum status st;
    if (!models_name_ok(to))
        return err_set(err, ST_USAGE, "\"%s\" is no model name", to);
    TRY(models_find(from, &src, err));
    if (library_is_source(src))
        TRY(err_set(err, ST_USAGE, "%s: no model; llmchat create makes one of it", src));
    TRY(read_info(src, &info, err)); /* only models get in */
    model_info_release(&info);
    TRY(installed_path(to, &dst, err));
    if (linkat(AT_FDCWD, src, AT_FDCWD, dst, AT_SYMLINK_FOLLOW) != 0)
        st = errno == EEXIST ? err_set(err, ST_EXISTS, "a model named %s exists already", to)
                             : copy_bytes(src, dst, err);
out:
    free(src);
    free(dst);
    return st;
}

/* A converted copy and when it was used. */
struct copy {
    char *path;
    uint64_t bytes;
    struct timespec used;
};

static int copy_cmp(const void *a, const void *b) {
    const struct timespec *x = &((const struct copy *)a)->used;
    const struct timespec *y = &((const struct copy *)b)->used;
    if (x->tv_sec != y->tv_sec)
        return x->tv_sec < y->tv_sec ? -1 : 1;
    return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

/* Removes the copies not used for longest until the rest is within bounds; keep stays. */
static void bound_cache(const char *dir, const char *keep) {
    struct copy *v = NULL;
    size_t n = 0, cap = 0;
    uint64_t total = 0;
    struct stat sb;
    DIR *d = opendir(dir);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        if (!has_ending(e->d_name, ending) || fstatat(dirfd(d), e->d_name, &sb, 0) != 0)
            continue;
        if (n == cap) {
            cap = cap ? 2 * cap : 8;
            v = xreallocarray(v, cap, sizeof *v);
        }
        v[n++] = (struct copy){path_join(dir, e->d_name), (uint64_t)sb.st_size, sb.st_mtim};
        total += (uint64_t)sb.st_size;
    }
    closedir(d);
    if (n)
        qsort(v, n, sizeof *v, copy_cmp);
    for (size_t i = 0; i < n; i++) {
        if (total > converted_max_bytes && strcmp(v[i].path, keep) != 0 &&
            unlink(v[i].path) == 0)
            total -= v[i].bytes;
        free(v[i].path);
    }
    free(v);
}

static void add_stamp(struct strlist *l, const char *name, const struct stat *sb) {
    char *line = xasprintf("%s\n%jd\n%jd.%09ld\n", name, (intmax_t)sb->st_size,
                           (intmax_t)sb->st_mtim.tv_sec, sb->st_mtim.tv_nsec);
    strlist_add(l, line);
    free(line);
}

/* What changes when a source does: size and time of the file, or of every file of a folder. */
static enum status stamp(const char *real, struct strlist *out, struct err *err) {
    struct stat sb;
    if (stat(real, &sb) != 0)
        return err_set(err, ST_IO, "%s: %s", real, strerror(errno));
    if (!S_ISDIR(sb.st_mode)) {
        add_stamp(out, real, &sb);
        return ST_OK;
    }
    DIR *d = opendir(real);
    if (!d)
        return err_set(err, ST_IO, "%s: %s", real, strerror(errno));
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.' && fstatat(dirfd(d), e->d_name, &sb, 0) == 0)
            add_stamp(out, e->d_name, &sb);
    closedir(d);
    if (out->n)
        qsort(out->v, out->n, sizeof *out->v, text_cmp);
    return ST_OK;
}

/* Where the converted copy of this very source belongs. */
static enum status converted_path(const char *source, char **out, struct err *err) {
    struct strlist lines = {0};
    struct sha256 s;
    char hex[65], layout[16], *real = realpath(source, NULL);
    if (!real)
        return err_set(err, ST_IO, "%s: %s", source, strerror(errno));
    enum status st = stamp(real, &lines, err);
    sha256_init(&s);
    snprintf(layout, sizeof layout, "%d\n", MODEL_LAYOUT);
    sha256_add(&s, layout, strlen(layout));
    sha256_add(&s, real, strlen(real));
    for (size_t i = 0; i < lines.n; i++)
        sha256_add(&s, lines.v[i], strlen(lines.v[i]));
    sha256_hex(&s, hex);
    const char *base = path_base(real);
    int len = (int)strlen(base) - (has_ending(base, ".gguf") ? 5 : 0);
    char *relative =
        xasprintf("converted/%.*s-%.16s%s", len < 100 ? len : 100, base, hex, ending);
    if (st == ST_OK)
        st = path_in(PATH_CACHE, relative, out, err);
    free(relative);
    free(real);
    strlist_release(&lines);
    return st;
}

static enum status convert(const char *source,
                           bool (*progress)(void *user, const char *what, uint64_t done,
                                            uint64_t total),
                           void *user, char **out, struct err *err) {
    struct model_info info;
    char *path;
    CHECK(converted_path(source, &path, err));
    enum status st = ST_OK;
    if (read_info(path, &info, NULL) == ST_OK) {
        model_info_release(&info);
        utimensat(AT_FDCWD, path, NULL, 0);
    } else {
        struct create_params p = {.out_path = path,
                                  .from = source,
                                  .quant = QUANT_N,
                                  .head_quant = QUANT_N,
                                  .replace = true,
                                  .progress = progress,
                                  .user = user};
        sweep_converted(); /* first: what is left may be what there is no room for */
        st = models_create(&p, err);
        if (st == ST_OK) {
            char *dir = xstrdup(path);
            *strrchr(dir, '/') = 0;
            bound_cache(dir, path);
            free(dir);
        }
    }
    if (st == ST_OK)
        *out = path;
    else
        free(path);
    return st;
}

enum status models_resolve(const char *name_or_path,
                           bool (*progress)(void *user, const char *what, uint64_t done,
                                            uint64_t total),
                           void *user, char **out, struct err *err) {
    char *path;
    CHECK(models_find(name_or_path, &path, err));
    if (!library_is_source(path)) {
        *out = path;
        return ST_OK;
    }
    enum status st = convert(path, progress, user, out, err);
    free(path);
    return st;
}
