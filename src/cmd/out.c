/*
 * out.c - what commands print: messages, numbers for people, the progress bar, and the
 * interrupt flag.
 *
 * The bar appears only after a second and only on a terminal; it is redrawn at most ten times a
 * second on one line. The signal handler does nothing but set a flag and write a byte to a
 * pipe, so that a poll() in a command wakes up.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/path.h"
#include "base/utf8.h"
#include "cmd/cmd.h"
#include "store/store.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int failf(enum status st, const char *fmt, ...) {
    struct err e;
    va_list ap;
    va_start(ap, fmt);
    err_setv(&e, st, fmt, ap);
    va_end(ap);
    return fail(&e);
}

int fail(const struct err *err) {
    progress_clear();
    fflush(stdout);
    fprintf(stderr, "llmchat: %s\n", err->msg);
    switch (err->code) {
    case ST_USAGE:
        return 2;
    case ST_CANCELLED:
        return 130;
    default:
        return 1;
    }
}

void note(const char *fmt, ...) {
    progress_clear();
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

void note_device(const struct engine_info *m) {
    if (m->device_note[0])
        note("%s", m->device_note);
}

static bool colour_always;

void colour_set(const char *mode) {
    if (!mode || strcmp(mode, "auto") == 0)
        return;
    colour_always = strcmp(mode, "always") == 0;
    if (colour_always)
        unsetenv("NO_COLOR");
    else
        setenv("NO_COLOR", "1", 1); /* the interface reads it too */
}

bool colour_wanted(FILE *f) {
    if (colour_always)
        return true;
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(fileno(f)) && !(no && *no) && term && strcmp(term, "dumb") != 0;
}

void put_text(const char *s, size_t len) {
    if (!isatty(STDOUT_FILENO)) {
        fwrite(s, 1, len, stdout);
        return;
    }
    struct buf b = {0};
    utf8_terminal_safe(&b, s, len, true);
    fwrite(buf_str(&b), 1, b.len, stdout);
    buf_release(&b);
}

void put_line(const char *label, const char *s) {
    struct buf b = {0};
    utf8_terminal_safe(&b, s, strlen(s), false);
    printf("%s%s\n", label, buf_str(&b));
    buf_release(&b);
}

void put_lines(const char *label, const char *s) {
    size_t len = strlen(s), indent = strlen(label), n;
    while (len && s[len - 1] == '\n')
        len--;
    for (const char *end = s + len; s <= end; s += n + 1, label = "") {
        const char *line_end = memchr(s, '\n', (size_t)(end - s));
        n = (size_t)((line_end ? line_end : end) - s);
        char *line = xstrndup(s, n - (n && s[n - 1] == '\r'));
        printf("%*s", *label ? 0 : (int)indent, "");
        put_line(label, line);
        free(line);
    }
}

void *json_text(const char *s) {
    struct buf b = {0};
    utf8_scrub(&b, s, strlen(s));
    json_t *v = json_stringn(buf_str(&b), b.len);
    buf_release(&b);
    return v;
}

void put_json(void *takes_json) {
    json_t *j = takes_json;
    json_dumpf(j, stdout, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(9));
    fputc('\n', stdout);
    fflush(stdout);
    json_decref(j);
}

static char *slot(void) {
    static char slots[8][48];
    static int next;
    return slots[next++ % 8];
}

static const char *scaled(uint64_t n, const char *const *units) {
    char *s = slot();
    double v = (double)n;
    int u = 0;
    while (v >= 999.5 && u < 4) {
        v /= 1000;
        u++;
    }
    snprintf(s, 48,
             u == 0      ? "%.0f%s"
             : v < 9.95  ? "%.2f%s"
             : v < 99.95 ? "%.1f%s"
                         : "%.0f%s",
             v, units[u]);
    return s;
}

const char *show_bytes(uint64_t n) {
    static const char *const units[] = {" B", " kB", " MB", " GB", " TB"};
    return scaled(n, units);
}

const char *show_count(uint64_t n) {
    static const char *const units[] = {"", "k", "M", "B", "T"};
    return scaled(n, units);
}

const char *show_time(int64_t unix_ms) {
    char *s = slot();
    time_t t = (time_t)(unix_ms / 1000);
    struct tm tm;
    if (!localtime_r(&t, &tm) || !strftime(s, 48, "%Y-%m-%d %H:%M", &tm))
        strcpy(s, "?"); /* a year that no int holds */
    return s;
}

const char *show_iso(int64_t unix_ms) {
    char *s = slot();
    time_t t = (time_t)(unix_ms / 1000);
    struct tm tm;
    if (!gmtime_r(&t, &tm) || !strftime(s, 48, "%Y-%m-%dT%H:%M:%SZ", &tm))
        strcpy(s, "?");
    return s;
}

static struct {
    int64_t start_us, drawn_us;
    char what[64];
    bool visible;
} bar;

/* Redrawing one line takes a terminal that can. */
static bool bar_wanted(void) {
    const char *term = getenv("TERM");
    return isatty(STDERR_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

void progress_clear(void) {
    if (bar.visible)
        fputs("\r\x1b[K", stderr);
    bar.visible = false;
}

bool progress_show(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)user;
    if (interrupted())
        return false;
    int64_t now = clock_us();
    if (strncmp(bar.what, what, sizeof bar.what - 1) != 0 || !bar.start_us) {
        progress_clear();
        bar.start_us = now;
        bar.drawn_us = 0;
        snprintf(bar.what, sizeof bar.what, "%s", what);
    }
    if (done >= total) {
        progress_clear();
        bar.start_us = 0;
        return true;
    }
    if (now - bar.start_us < 1000000 || now - bar.drawn_us < 100000 || !bar_wanted())
        return true;
    bar.drawn_us = now;
    double seconds = (double)(now - bar.start_us) / 1e6, part = (double)done / (double)total;
    double rate = (double)done / seconds, left = part > 0 ? seconds / part - seconds : 0;
    struct winsize ws;
    int cols = ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col ? ws.ws_col : 80;
    char tail[96];
    snprintf(tail, sizeof tail, " %3.0f%% %s/s, %.0f s left", part * 100,
             show_bytes((uint64_t)rate), left);
    int room = cols - (int)strlen(bar.what) - (int)strlen(tail) - 5;
    fprintf(stderr, "\r%s ", bar.what);
    if (room >= 8) {
        int full = (int)(part * room);
        fputc('[', stderr);
        for (int i = 0; i < room; i++)
            fputc(i < full ? '#' : '.', stderr);
        fputc(']', stderr);
    }
    fprintf(stderr, "%s\x1b[K", tail);
    bar.visible = true;
    return true;
}

static volatile sig_atomic_t interrupt_flag;
static int interrupt_pipe[2] = {-1, -1};

static void on_interrupt(int sig) {
    (void)sig;
    int keep = errno;
    interrupt_flag = 1;
    ssize_t ignored = write(interrupt_pipe[1], "", 1);
    (void)ignored;
    errno = keep;
}

void interrupt_catch(void) {
    if (interrupt_pipe[0] >= 0 || pipe2(interrupt_pipe, O_CLOEXEC | O_NONBLOCK) != 0)
        return;
    struct sigaction sa = {.sa_handler = on_interrupt};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
}

bool interrupted(void) {
    return interrupt_flag != 0;
}

int interrupt_fd(void) {
    return interrupt_pipe[0];
}

enum status open_store(struct store **out, struct err *err) {
    char *path;
    CHECK(path_in(PATH_DATA, "chats.db", &path, err));
    enum status st = store_open(path, out, err);
    free(path);
    if (st != ST_OK)
        return st;
    struct err why; /* what can't be mended now can still be read */
    if (store_recover(*out, NULL, &why) != ST_OK)
        log_warn("replies of dead processes: %s", why.msg);
    return ST_OK;
}

static enum status read_stream(int fd, const char *name, size_t max_bytes, struct buf *out,
                               struct err *err) {
    char tmp[65536];
    for (;;) {
        ssize_t n = read(fd, tmp, sizeof tmp);
        if (n < 0 && errno == EINTR && !interrupted())
            continue;
        if (interrupted())
            return err_set(err, ST_CANCELLED, "interrupted");
        if (n < 0)
            return err_set(err, ST_IO, "%s: %s", name, strerror(errno));
        if (n == 0)
            return ST_OK;
        if (out->len + (size_t)n > max_bytes)
            return err_set(err, ST_LIMIT, "%s: more than the %s that are read", name,
                           show_bytes(max_bytes));
        buf_add(out, tmp, (size_t)n);
    }
}

enum status read_input(const char *path, size_t max_bytes, struct buf *out, struct err *err) {
    if (strcmp(path, "-") == 0)
        return read_stream(STDIN_FILENO, "standard input", max_bytes, out, err);
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISFIFO(info.st_mode))
        return file_read(path, max_bytes, out, err);
    int fd = open(path, O_RDONLY | O_CLOEXEC); /* a shell's <(command) */
    if (fd < 0)
        return err_set(err, ST_IO, "%s: %s", path, strerror(errno));
    enum status st = read_stream(fd, path, max_bytes, out, err);
    close(fd);
    return st;
}

enum status parse_id(const char *s, int64_t *out, struct err *err) {
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (!*s || *end || errno || v <= 0)
        return err_set(err, ST_USAGE,
                       "\"%s\" is no conversation number (llmchat chats lists them)", s);
    *out = v;
    return ST_OK;
}
