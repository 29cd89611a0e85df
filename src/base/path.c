/*
 * path.c - see path.h.
 *
 * Where files live is decided once, here, from the environment, at each call (tests change it).
 * Folders that we make are private; folders that exist are left as they are. atomic_open()
 * names its temporary file after the process, so that two processes that write the same file
 * don't meet, and so that the leavings of a dead one can be told and removed.
 */
#include "base/path.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *path_join(const char *dir, const char *name) {
    size_t n = strlen(dir);
    return xasprintf("%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
}

const char *path_base(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* $HOME, else the password database, else NULL. A relative HOME does not count. */
static const char *home_dir(void) {
    const char *home = getenv("HOME");
    if (home && home[0] == '/')
        return home;
    const struct passwd *pw = getpwuid(getuid());
    return pw && pw->pw_dir && pw->pw_dir[0] == '/' ? pw->pw_dir : NULL;
}

char *path_expand(const char *path) {
    const char *home;
    if (path[0] == '~' && (path[1] == '/' || !path[1]) && (home = home_dir()))
        return xasprintf("%s%s", home, path + 1);
    return xstrdup(path);
}

/* name below dir/between, if it is there; NULL otherwise. */
static char *share_below(const char *dir, const char *between, const char *name) {
    char *p = xasprintf("%s%s%s", dir, between, name);
    if (access(p, F_OK) == 0)
        return p;
    free(p);
    return NULL;
}

char *path_share(const char *name) {
    const char *dir = getenv("LLMCHAT_SHARE");
    if (dir && *dir)
        return path_join(dir, name);
    char *p = share_below(PKGDATADIR, "/", name), exe[4096];
    ssize_t n = p ? -1 : readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n > 0) {
        exe[n] = 0;
        char *slash = strrchr(exe, '/');
        if (slash)
            *slash = 0;
        p = share_below(exe, "/../share/llmchat/", name);
        if (!p)
            p = share_below(exe, "/../share/", name);
    }
    return p ? p : path_join(PKGDATADIR, name);
}

enum status path_make_dirs(const char *dir, struct err *err) {
    char *p = xstrdup(dir);
    enum status st = ST_OK;
    for (char *s = p + 1;; s++) {
        if (*s && *s != '/')
            continue;
        char keep = *s;
        *s = 0;
        if (mkdir(p, 0700) != 0 && errno != EEXIST) {
            int why = errno;
            struct stat sb;
            if (stat(p, &sb) != 0 || !S_ISDIR(sb.st_mode)) {
                st = err_set(err, ST_IO, "can't make the folder %s: %s", p, strerror(why));
                break;
            }
        }
        *s = keep;
        if (!keep)
            break;
    }
    free(p);
    struct stat sb;
    if (st == ST_OK && (stat(dir, &sb) != 0 || !S_ISDIR(sb.st_mode)))
        st = err_set(err, ST_IO, "%s is not a folder", dir);
    return st;
}

enum status path_root(enum path_root root, char **out, struct err *err) {
    static const struct {
        const char *var, *below_home, *name;
    } roots[] = {
        [PATH_CONFIG] = {"XDG_CONFIG_HOME", ".config", "config"},
        [PATH_DATA] = {"XDG_DATA_HOME", ".local/share", "data"},
        [PATH_STATE] = {"XDG_STATE_HOME", ".local/state", "state"},
        [PATH_CACHE] = {"XDG_CACHE_HOME", ".cache", "cache"},
    };
    const char *all = getenv("LLMCHAT_HOME"), *xdg = getenv(roots[root].var), *home;
    char *dir;
    if (all && *all)
        dir = path_join(all, roots[root].name);
    else if (xdg && xdg[0] == '/') /* the specification: relative paths are ignored */
        dir = path_join(xdg, "llmchat");
    else if ((home = home_dir()))
        dir = xasprintf("%s/%s/llmchat", home, roots[root].below_home);
    else
        return err_set(
            err, ST_IO,
            "no home folder: set HOME, or LLMCHAT_HOME to a folder for llmchat's files");
    enum status st = path_make_dirs(dir, err);
    if (st == ST_OK)
        *out = dir;
    else
        free(dir);
    return st;
}

enum status path_in(enum path_root root, const char *relative, char **out, struct err *err) {
    char *dir;
    CHECK(path_root(root, &dir, err));
    char *path = path_join(dir, relative);
    free(dir);
    char *slash = strrchr(path, '/');
    *slash = 0;
    enum status st = path_make_dirs(path, err);
    *slash = '/';
    if (st == ST_OK)
        *out = path;
    else
        free(path);
    return st;
}

enum status file_open_regular(const char *path, int *fd, size_t *size_bytes, struct err *err) {
    int f = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (f < 0)
        return err_set(err, errno == ENOENT ? ST_NOT_FOUND : ST_IO, "%s: %s", path,
                       strerror(errno));
    struct stat sb;
    if (fstat(f, &sb) != 0 || !S_ISREG(sb.st_mode)) {
        close(f);
        return err_set(err, ST_IO, "%s: not a regular file", path);
    }
    *fd = f;
    *size_bytes = (size_t)sb.st_size;
    return ST_OK;
}

enum status file_read(const char *path, size_t max_bytes, struct buf *out, struct err *err) {
    int fd;
    size_t size;
    CHECK(file_open_regular(path, &fd, &size, err));
    enum status st = ST_OK;
    size_t got = 0;
    char tmp[65536];
    if (size > max_bytes) { /* said before the reading; a file can grow meanwhile, too */
        close(fd);
        return err_set(err, ST_LIMIT, "%s: %zu bytes, larger than the %zu bytes that are read",
                       path, size, max_bytes);
    }
    for (;;) {
        ssize_t n = read(fd, tmp, sizeof tmp);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            st = err_set(err, ST_IO, "%s: %s", path, strerror(errno));
            break;
        }
        if (n == 0)
            break;
        got += (size_t)n;
        if (got > max_bytes) {
            st = err_set(err, ST_LIMIT, "%s: larger than the %zu bytes that are read", path,
                         max_bytes);
            break;
        }
        buf_add(out, tmp, (size_t)n);
    }
    close(fd);
    return st;
}

/* Removes "BASE.tmp.PID" files of processes that are gone. */
static void remove_leavings(const char *path) {
    char *dir = xstrdup(path);
    char *slash = strrchr(dir, '/');
    const char *base = path_base(path);
    if (slash)
        slash[slash == dir] = 0;
    const char *where = slash ? dir : ".";
    DIR *d = opendir(where);
    size_t n = strlen(base);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strncmp(e->d_name, base, n) != 0 || strncmp(e->d_name + n, ".tmp.", 5) != 0)
            continue;
        char *end;
        long pid = strtol(e->d_name + n + 5, &end, 10);
        if (*end || pid <= 0 || pid == (long)getpid())
            continue;
        if (kill((pid_t)pid, 0) != 0 && errno == ESRCH)
            unlinkat(dirfd(d), e->d_name, 0);
    }
    if (d)
        closedir(d);
    free(dir);
}

enum status atomic_open(struct atomic_file *f, const char *path, struct err *err) {
    struct stat sb;
    *f = (struct atomic_file){.fd = -1};
    if (stat(path, &sb) == 0 && !S_ISREG(sb.st_mode)) /* root would replace /dev/null */
        return err_set(err, ST_IO, "can't write %s: %s", path,
                       S_ISDIR(sb.st_mode) ? strerror(EISDIR) : "not a regular file");
    remove_leavings(path);
    f->path = xstrdup(path);
    f->tmp = xasprintf("%s.tmp.%ld", path, (long)getpid());
    unlink(f->tmp);
    f->fd = open(f->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (f->fd < 0) {
        enum status st = err_set(err, ST_IO, "can't write %s: %s", path, strerror(errno));
        free(f->path);
        free(f->tmp);
        *f = (struct atomic_file){.fd = -1};
        return st;
    }
    return ST_OK;
}

enum status atomic_write(struct atomic_file *f, const void *p, size_t len, struct err *err) {
    const char *s = p;
    while (len > 0) {
        size_t piece = len < (1u << 30) ? len : (1u << 30);
        ssize_t n = write(f->fd, s, piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, ST_IO, "can't write %s: %s", f->path, strerror(errno));
        s += n;
        len -= (size_t)n;
    }
    return ST_OK;
}

static void sync_folder_of(const char *path) {
    char *dir = xstrdup(path);
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = 0;
    int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(dir);
}

/* Gives the file its name. */
static bool put_in_place(const struct atomic_file *f) {
    if (!f->keep)
        return rename(f->tmp, f->path) == 0;
    if (renameat2(AT_FDCWD, f->tmp, AT_FDCWD, f->path, RENAME_NOREPLACE) == 0)
        return true;
    if (errno != EINVAL && errno != ENOSYS)
        return false;
    /* a file system that can't do it in one step */
    return link(f->tmp, f->path) == 0 && unlink(f->tmp) == 0;
}

enum status atomic_commit(struct atomic_file *f, struct err *err) {
    bool failed = !f->fleeting && fsync(f->fd) != 0;
    int why = errno;
    if (close(f->fd) != 0 && !failed) {
        failed = true;
        why = errno;
    }
    f->fd = -1;
    if (!failed && !put_in_place(f)) {
        failed = true;
        why = errno;
    }
    enum status st = ST_OK;
    if (failed) {
        st = err_set(err, why == EEXIST ? ST_EXISTS : ST_IO, "can't write %s: %s", f->path,
                     strerror(why));
        unlink(f->tmp);
    } else if (!f->fleeting) {
        sync_folder_of(f->path);
    }
    free(f->path);
    free(f->tmp);
    *f = (struct atomic_file){.fd = -1};
    return st;
}

void atomic_abort(struct atomic_file *f) {
    if (f->fd >= 0)
        close(f->fd);
    if (f->tmp)
        unlink(f->tmp);
    free(f->path);
    free(f->tmp);
    *f = (struct atomic_file){.fd = -1};
}

enum status file_write_atomic(const char *path, const void *p, size_t len, struct err *err) {
    struct atomic_file f;
    CHECK(atomic_open(&f, path, err));
    enum status st = atomic_write(&f, p, len, err);
    if (st != ST_OK) {
        atomic_abort(&f);
        return st;
    }
    return atomic_commit(&f, err);
}
