/*
 * log.c - see log.h.
 *
 * One line a call: time, process, level, text made safe to show. The file is opened for
 * appending so that several processes share it; when it has grown beyond its bound at the time
 * it is opened it becomes llmchat.log.1. A log that can't be written is not worth a word to the
 * person: it stays silent.
 */
#include "base/log.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/utf8.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LOG_MAX_BYTES = 1 << 20 };

static int log_fd = -1;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

void log_open(void) {
    char *path = NULL;
    if (path_in(PATH_STATE, "llmchat.log", &path, NULL) != ST_OK)
        return;
    struct stat st;
    if (stat(path, &st) == 0 && st.st_size > LOG_MAX_BYTES) {
        char *old = xasprintf("%s.1", path);
        rename(path, old);
        free(old);
    }
    pthread_mutex_lock(&log_lock);
    if (log_fd < 0)
        log_fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    pthread_mutex_unlock(&log_lock);
    free(path);
}

void log_close(void) {
    pthread_mutex_lock(&log_lock);
    if (log_fd >= 0)
        close(log_fd);
    log_fd = -1;
    pthread_mutex_unlock(&log_lock);
}

static void log_line(const char *level, const char *fmt, va_list ap)
    __attribute__((format(printf, 2, 0)));

static void log_line(const char *level, const char *fmt, va_list ap) {
    pthread_mutex_lock(&log_lock);
    if (log_fd >= 0) {
        char text[2048], stamp[32];
        vsnprintf(text, sizeof text, fmt, ap);
        time_t now = time(NULL);
        struct tm tm;
        gmtime_r(&now, &tm);
        strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &tm);
        struct buf line = {0};
        buf_addf(&line, "%s %ld %s ", stamp, (long)getpid(), level);
        utf8_terminal_safe(&line, text, strlen(text), false);
        buf_addc(&line, '\n');
        ssize_t ignored = write(log_fd, line.p, line.len);
        (void)ignored;
        buf_release(&line);
    }
    pthread_mutex_unlock(&log_lock);
}

void log_info(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    log_line("info", fmt, ap);
    va_end(ap);
}

void log_warn(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    log_line("warn", fmt, ap);
    va_end(ap);
}
