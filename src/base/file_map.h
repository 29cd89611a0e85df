/*
 * file_map.h - files that are read where they are mapped.
 *
 * A mapped file that another program cuts, or that lies on a disk that fails, is a SIGBUS where
 * it is next read. After file_map_guard() such a place reads as zeros instead and the mapping
 * is marked: who works on mapped data asks file_map_intact() after a piece of work and throws
 * the piece away when it fails. A file that was written to while it was read is no fault at
 * all: file_map_unchanged() asks for that too, where something is made of the whole.
 */
#ifndef LLMCHAT_BASE_FILE_MAP_H
#define LLMCHAT_BASE_FILE_MAP_H

#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>

/* A read-only mapping of a whole regular file. Empty files map to p = "" and len = 0. */
struct file_map {
    const unsigned char *p;
    size_t len;
};
enum status file_map_open(struct file_map *m, const char *path, struct err *err);
void file_map_close(struct file_map *m);

/* All of it will be read, again and again: pages of it that come from the disk from now on come
 * as huge ones where the system has these for files. */
void file_map_huge(struct file_map m);
/* Whole pages of mapped files between p and p + len, which is nobody's who still reads them:
 * the process gives them back. They come again when they are read. Does nothing where p is not
 * in a mapping of ours. */
void file_map_drop(const void *p, size_t len);

/* ST_IO naming the file when a part of it could not be read since it was opened. name: what
 * the message calls it. For memory that is no mapping of ours it is ST_OK. Any thread. */
enum status file_map_intact(struct file_map m, const char *name, struct err *err);
/* The same, and ST_IO when the file was written to since. A name that was removed or given to
 * another file does not matter: the mapping is of the old one. */
enum status file_map_unchanged(struct file_map m, const char *name, struct err *err);

/* Takes SIGBUS, for the whole program, once; others' faults go on to the handler before. */
void file_map_guard(void);
/* For a later handler of SIGBUS: true when addr was in a mapping, which can now be read. Safe
 * in a signal handler. */
bool file_map_mend(void *addr);

#endif
