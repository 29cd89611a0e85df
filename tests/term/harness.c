/*
 * harness.c - the program under test on a pty (forkpty), its output into libvterm, its screen
 * as text.
 *
 * One thread, no sleeping: pump() polls the pty and feeds the emulator; what the emulator
 * answers (device attributes) goes back. The limit of a wait is long because the machine may be
 * busy; it is reached only when a test fails.
 */
#include "harness.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <ftw.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <vterm.h>

#define FRAME_MS 12 /* less than the time between two pictures of a program that streams */
#define LIMIT_MS (getenv("TT_LIMIT_MS") ? atoi(getenv("TT_LIMIT_MS")) : 30000)

struct tt {
    int fd;
    pid_t pid;
    bool ended;
    int status;
    VTerm *vt;
    VTermScreen *screen;
    int rows, cols;
    bool alt, cursor;
    char title[256], clip[4096];
    struct termios before;
    char *text, *out;
    size_t n_out, cap_out;
};

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int on_prop(VTermProp prop, VTermValue *val, void *user) {
    struct tt *t = user;
    if (prop == VTERM_PROP_ALTSCREEN)
        t->alt = val->boolean;
    else if (prop == VTERM_PROP_CURSORVISIBLE)
        t->cursor = val->boolean;
    else if (prop == VTERM_PROP_TITLE || prop == VTERM_PROP_ICONNAME)
        snprintf(t->title, sizeof t->title, "%s", val->string);
    return 1;
}

const char *tt_background;

static void write_all(struct tt *t, const char *p, size_t len);

static int on_osc(const char *command, size_t len, void *user) {
    struct tt *t = user;
    if (len >= 3 && memcmp(command, "52;", 3) == 0)
        snprintf(t->clip, sizeof t->clip, "%.*s", (int)len, command);
    if (tt_background && len >= 4 && memcmp(command, "11;?", 4) == 0) {
        char answer[80];
        int n = snprintf(answer, sizeof answer, "\033]11;rgb:%s\033\\", tt_background);
        write_all(t, answer, (size_t)n);
    }
    return 1;
}

static void on_output(const char *s, size_t len, void *user) {
    write_all(user, s, len);
}

static const VTermScreenCallbacks screen_callbacks = {.settermprop = on_prop};
static const VTermParserCallbacks fallbacks = {.osc = on_osc};

static void child(const char *home, const char *const *argv, const char *const *env) {
    static const char *const gone[] = {"NO_COLOR", "COLORFGBG", "LC_ALL",          "LC_CTYPE",
                                       "VISUAL",   "EDITOR",    "WAYLAND_DISPLAY", "DISPLAY",
                                       "LINES",    "COLUMNS"};
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
        unsetenv(gone[i]);
    setenv("TERM", "xterm-256color", 1);
    setenv("LANG", "C.UTF-8", 1);
    setenv("LLMCHAT_HOME", home, 1);
    for (; env && *env; env++) {
        const char *eq = strchr(*env, '=');
        char name[64];
        snprintf(name, sizeof name, "%.*s", eq ? (int)(eq - *env) : (int)strlen(*env), *env);
        if (eq)
            setenv(name, eq + 1, 1);
        else
            unsetenv(name);
    }
    execv(argv[0], (char *const *)(uintptr_t)argv);
    fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
    _exit(126);
}

struct tt *tt_start(const char *home, const char *const *argv, const char *const *env, int rows,
                    int cols) {
    struct tt *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->rows = rows;
    t->cols = cols;
    t->cursor = true;
    t->vt = vterm_new(rows, cols);
    vterm_set_utf8(t->vt, 1);
    vterm_output_set_callback(t->vt, on_output, t);
    t->screen = vterm_obtain_screen(t->vt);
    vterm_screen_set_callbacks(t->screen, &screen_callbacks, t);
    vterm_screen_set_unrecognised_fallbacks(t->screen, &fallbacks, t);
    vterm_screen_enable_altscreen(t->screen, 1);
    vterm_screen_reset(t->screen, 1);
    struct winsize ws = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)cols};
    t->pid = forkpty(&t->fd, NULL, NULL, &ws);
    assert_true(t->pid >= 0);
    if (t->pid == 0)
        child(home, argv, env);
    tcgetattr(t->fd, &t->before);
    return t;
}

char *tt_home(void) {
    char name[] = "/tmp/llmchat-term-XXXXXX";
    assert_non_null(mkdtemp(name));
    return strdup(name);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void tt_home_remove(char *home) {
    nftw(home, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(home);
}

int tt_setup(void **state) {
    *state = tt_home();
    return 0;
}

int tt_teardown(void **state) {
    tt_home_remove(*state);
    return 0;
}

bool tt_ready(const char *program) {
    if (getenv("TT_ONLY"))
        cmocka_set_test_filter(getenv("TT_ONLY"));
    bool there = program && access(program, X_OK) == 0;
    if (!there)
        fprintf(stderr, "%s is not there\n", program ? program : "a program");
    return there;
}

void tt_write(const char *home, const char *name, const char *text) {
    char path[300];
    snprintf(path, sizeof path, "%s/%s", home, name);
    *strrchr(path, '/') = 0;
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/%s", home, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

const char *tt_ui(void) {
    const char *p = getenv("UI_FAKE");
    return p && *p ? p : "tests/term/ui_fake";
}

struct tt *tt_ui_start(const char *home, const char *arg1, const char *arg2,
                       const char *const *env) {
    const char *argv[] = {tt_ui(), arg1, arg1 ? arg2 : NULL, NULL};
    return tt_start(home, argv, env, 24, 80);
}

/* Takes what comes within ms; false when nothing came. */
static bool pump(struct tt *t, int ms) {
    if (t->fd < 0)
        return false;
    struct pollfd p = {.fd = t->fd, .events = POLLIN};
    if (poll(&p, 1, ms) <= 0)
        return false;
    char buf[16384];
    ssize_t n = read(t->fd, buf, sizeof buf);
    if (n <= 0) {
        t->ended = true;
        return false;
    }
    if (t->n_out + (size_t)n + 1 > t->cap_out) {
        t->cap_out = 2 * (t->n_out + (size_t)n + 1);
        t->out = realloc(t->out, t->cap_out);
        assert_non_null(t->out);
    }
    memcpy(t->out + t->n_out, buf, (size_t)n);
    t->n_out += (size_t)n;
    t->out[t->n_out] = 0;
    vterm_input_write(t->vt, buf, (size_t)n);
    return true;
}

static void pump_all(struct tt *t) {
    while (pump(t, 0))
        ;
}

void tt_settle(struct tt *t, int ms) {
    while (pump(t, ms))
        ;
}

static void write_all(struct tt *t, const char *p, size_t len) {
    while (len > 0 && t->fd >= 0) {
        struct pollfd w = {.fd = t->fd, .events = POLLOUT | POLLIN};
        if (poll(&w, 1, LIMIT_MS) <= 0)
            fail_msg("the program does not read its terminal");
        if ((w.revents & POLLIN) && !(w.revents & POLLOUT)) {
            pump(t, 0);
            continue;
        }
        ssize_t n = write(t->fd, p, len > 512 ? 512 : len);
        if (n <= 0)
            return; /* it has ended */
        p += n;
        len -= (size_t)n;
    }
}

void tt_typen(struct tt *t, const char *bytes, size_t len) {
    write_all(t, bytes, len);
}

void tt_type(struct tt *t, const char *bytes) {
    write_all(t, bytes, strlen(bytes));
}

void tt_resize(struct tt *t, int rows, int cols) {
    pump_all(t);
    t->rows = rows;
    t->cols = cols;
    vterm_set_size(t->vt, rows, cols);
    struct winsize ws = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)cols};
    ioctl(t->fd, TIOCSWINSZ, &ws);
}

void tt_signal(struct tt *t, int sig) {
    kill(t->pid, sig);
}

void tt_hang_up(struct tt *t) {
    close(t->fd);
    t->fd = -1;
}

pid_t tt_pid(const struct tt *t) {
    return t->pid;
}

void tt_close(struct tt *t) {
    if (!t)
        return;
    if (t->pid > 0) {
        kill(t->pid, SIGKILL);
        waitpid(t->pid, NULL, 0);
    }
    if (t->fd >= 0)
        close(t->fd);
    vterm_free(t->vt);
    free(t->text);
    free(t->out);
    free(t);
}

/* -- the screen -- */

static size_t put_utf8(char *out, uint32_t c) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

/* One row as text; col_of (may be NULL) gets the column of each byte. */
static size_t row_text(struct tt *t, int row, char *out, int *col_of) {
    size_t n = 0, end = 0;
    for (int col = 0; col < t->cols;) {
        VTermScreenCell cell;
        VTermPos pos = {row, col};
        vterm_screen_get_cell(t->screen, pos, &cell);
        size_t from = n;
        if (cell.chars[0] == 0 || cell.chars[0] == (uint32_t)-1)
            out[n++] = ' ';
        else
            for (int i = 0; i < VTERM_MAX_CHARS_PER_CELL && cell.chars[i]; i++)
                n += put_utf8(out + n, cell.chars[i]);
        for (size_t k = from; col_of && k < n; k++)
            col_of[k] = col;
        if (out[n - 1] != ' ')
            end = n;
        col += cell.width > 1 ? cell.width : 1;
    }
    out[end] = 0;
    return end;
}

#define ROW_BYTES(t) ((size_t)(t)->cols * 4 * VTERM_MAX_CHARS_PER_CELL + 2)

const char *tt_screen(struct tt *t) {
    free(t->text);
    t->text = malloc(ROW_BYTES(t) * (size_t)t->rows + 1);
    assert_non_null(t->text);
    size_t n = 0;
    for (int row = 0; row < t->rows; row++) {
        n += row_text(t, row, t->text + n, NULL);
        t->text[n++] = '\n';
    }
    t->text[n] = 0;
    return t->text;
}

bool tt_has(struct tt *t, const char *text) {
    pump_all(t);
    return strstr(tt_screen(t), text) != NULL;
}

static void find(struct tt *t, const char *text, int *row, int *col) {
    char *line = malloc(ROW_BYTES(t));
    int *cols = calloc(ROW_BYTES(t), sizeof *cols);
    assert_non_null(line);
    assert_non_null(cols);
    *row = *col = -1;
    for (int r = 0; r < t->rows && *row < 0; r++) {
        row_text(t, r, line, cols);
        const char *hit = strstr(line, text);
        if (hit) {
            *row = r;
            *col = cols[hit - line];
        }
    }
    free(line);
    free(cols);
}

int tt_find_row(struct tt *t, const char *text) {
    int row, col;
    find(t, text, &row, &col);
    return row;
}

int tt_find_col(struct tt *t, const char *text) {
    int row, col;
    find(t, text, &row, &col);
    return col;
}

static unsigned rgb(struct tt *t, VTermColor c) {
    unsigned def =
        VTERM_COLOR_IS_DEFAULT_FG(&c) || VTERM_COLOR_IS_DEFAULT_BG(&c) ? 1u << 24 : 0;
    vterm_screen_convert_color_to_rgb(t->screen, &c);
    return def | (unsigned)c.rgb.red << 16 | (unsigned)c.rgb.green << 8 | c.rgb.blue;
}

void tt_cell(struct tt *t, int row, int col, struct tt_cell *out) {
    VTermScreenCell cell;
    vterm_screen_get_cell(t->screen, (VTermPos){row, col}, &cell);
    *out = (struct tt_cell){.fg = rgb(t, cell.fg),
                            .bg = rgb(t, cell.bg),
                            .bold = cell.attrs.bold,
                            .reverse = cell.attrs.reverse,
                            .underline = cell.attrs.underline != 0};
}

bool tt_colored(struct tt *t) {
    for (int r = 0; r < t->rows; r++)
        for (int c = 0; c < t->cols; c++) {
            struct tt_cell cell;
            tt_cell(t, r, c, &cell);
            if (!(cell.fg >> 24) || !(cell.bg >> 24))
                return true;
        }
    return false;
}

void tt_cursor(struct tt *t, int *row, int *col) {
    VTermPos pos;
    vterm_state_get_cursorpos(vterm_obtain_state(t->vt), &pos);
    *row = pos.row;
    *col = pos.col;
}

bool tt_alt_screen(const struct tt *t) {
    return t->alt;
}

bool tt_cursor_visible(const struct tt *t) {
    return t->cursor;
}

const char *tt_title(const struct tt *t) {
    return t->title;
}

const char *tt_clipboard(const struct tt *t) {
    return t->clip;
}

bool tt_modes_restored(struct tt *t) {
    struct termios now;
    if (tcgetattr(t->fd, &now) != 0)
        return false;
    return now.c_iflag == t->before.c_iflag && now.c_oflag == t->before.c_oflag &&
           now.c_lflag == t->before.c_lflag;
}

const char *tt_output(const struct tt *t, size_t *len) {
    *len = t->n_out;
    return t->out ? t->out : "";
}

/* -- waiting -- */

static void give_up(struct tt *t, const char *what, const char *file, int line) {
    fprintf(stderr, "%s:%d: %s; the screen:\n%s----\n", file, line, what, tt_screen(t));
    _fail(file, line);
}

void tt_wait_cond(struct tt *t, bool (*cond)(struct tt *t, void *user), void *user,
                  const char *what, const char *file, int line) {
    int64_t until = now_ms() + LIMIT_MS;
    for (;;) {
        pump_all(t);
        if (cond(t, user) && !pump(t, FRAME_MS))
            return; /* and not in the middle of a picture */
        if (t->ended || now_ms() > until) {
            char text[200];
            snprintf(text, sizeof text, "waited for: %s%s", what,
                     t->ended ? " (the program has ended)" : "");
            give_up(t, text, file, line);
        }
        pump(t, 100);
    }
}

struct text_cond {
    const char *text;
    bool there;
};

static bool text_cond(struct tt *t, void *user) {
    const struct text_cond *c = user;
    return (strstr(tt_screen(t), c->text) != NULL) == c->there;
}

void tt_wait_at(struct tt *t, const char *text, bool there, const char *file, int line) {
    struct text_cond c = {text, there};
    char what[200];
    snprintf(what, sizeof what, "'%s' to be %s", text, there ? "there" : "gone");
    tt_wait_cond(t, text_cond, &c, what, file, line);
}

int tt_exit_at(struct tt *t, const char *file, int line) {
    int64_t until = now_ms() + LIMIT_MS;
    while (t->pid > 0) {
        pid_t got = waitpid(t->pid, &t->status, WNOHANG);
        if (got == t->pid) {
            t->pid = -1;
            break;
        }
        if (now_ms() > until)
            give_up(t, "waited for the program to end", file, line);
        if (!pump(t, 20) && t->ended)
            poll(NULL, 0, 5);
    }
    pump_all(t);
    return WIFEXITED(t->status) ? WEXITSTATUS(t->status) : 1000 + WTERMSIG(t->status);
}

void tt_quit_at(struct tt *t, const char *file, int line) {
    tt_type(t, T_CTRL_Q);
    _assert_int_equal(tt_exit_at(t, file, line), 0, file, line);
    if (!tt_modes_restored(t) || tt_alt_screen(t) || !tt_cursor_visible(t))
        give_up(t, "the terminal is not as it was", file, line);
    tt_close(t);
}
