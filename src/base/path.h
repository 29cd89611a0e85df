/*
 * path.h - where things live, and files that are never half-written.
 *
 * LLMCHAT_HOME puts everything under one folder; otherwise the XDG variables; otherwise
 * $HOME/.config and so on; with no HOME the password database; with none of these an error that
 * says what to set. Folders are made 0700, files 0600.
 */
#ifndef LLMCHAT_BASE_PATH_H
#define LLMCHAT_BASE_PATH_H

#include "base/err.h"
#include "base/mem.h"

enum path_root { PATH_CONFIG, PATH_DATA, PATH_STATE, PATH_CACHE };

/* The folder of a root, made if missing; *out is the caller's to free. Under LLMCHAT_HOME all
 * four are that folder's sub-folders config, data, state and cache. */
enum status path_root(enum path_root root, char **out, struct err *err);
/* root/relative; missing folders on the way are made. *out is the caller's to free. */
enum status path_in(enum path_root root, const char *relative, char **out, struct err *err);
/* mkdir -p with mode 0700 for what is made. */
enum status path_make_dirs(const char *dir, struct err *err);
/* A leading "~/" becomes the home folder. The caller frees. */
char *path_expand(const char *path);
char *path_join(const char *dir, const char *name); /* the caller frees */
const char *path_base(const char *path);            /* inside path */

/* A file of ours that is installed beside the program ("prompts"): $LLMCHAT_SHARE/name, else
 * in the configured data folder, else in ../share/llmchat or ../share of the program's own
 * folder (an installation that was moved, a build folder beside the sources). The caller frees;
 * it need not exist. */
char *path_share(const char *name);

/* A whole file into out; at most max_bytes, else ST_LIMIT. */
enum status file_read(const char *path, size_t max_bytes, struct buf *out, struct err *err);

/* A file that appears whole or not at all: written beside its place (O_EXCL, mode 0600),
 * synced, renamed, folder synced. Replaces nothing but regular files. After open either commit
 * or abort; both release. A process killed between leaves only "NAME.tmp.PID", which the next
 * atomic_open of the same path removes when that process is gone. */
struct atomic_file {
    int fd;
    bool keep; /* may be set before the commit: fail with ST_EXISTS where a file is by then */
    bool fleeting; /* likewise: not synced, for files that are checked when they are read and
                      can be made again */
    char *path, *tmp;
};
enum status atomic_open(struct atomic_file *f, const char *path, struct err *err);
enum status atomic_write(struct atomic_file *f, const void *p, size_t len, struct err *err);
enum status atomic_commit(struct atomic_file *f, struct err *err);
void atomic_abort(struct atomic_file *f);
enum status file_write_atomic(const char *path, const void *p, size_t len, struct err *err);

/* Opens a regular file for reading; *size_bytes gets its size. ST_NOT_FOUND, or ST_IO. */
enum status file_open_regular(const char *path, int *fd, size_t *size_bytes, struct err *err);

#endif
