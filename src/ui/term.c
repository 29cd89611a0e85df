/*
 * term.c - entering and leaving the terminal.
 *
 * The one place with global state: a terminal, its modes and the signals belong to the process.
 * Signal handlers do two things only: set a bit and write a byte to a pipe that the event loop
 * polls. A crash (and the last-resort exit when memory ends) writes the restoring sequences
 * with plain write() and puts the saved terminal modes back, then lets the signal take its
 * course. SIGTSTP from outside is taken as a request, so that the screen is left properly
 * first.
 *
 * newterm() instead of initscr(): it returns when TERM is unknown, initscr() would end the
 * program. Modes that ncurses does not know (bracketed paste, SGR mouse reports with drags) are
 * switched by sequences that terminals without them ignore. ncurses' own mouse support was not
 * used: it reports no drags and its oldest protocol ends at column 223.
 *
 * The background colour is asked for with OSC 11, followed by a request that every terminal
 * answers (primary device attributes): whoever does not know the first does not make us wait
 * for it. Late answers are swallowed by input.c.
 */
#include "ui/term.h"
#include "base/clock.h"
#include "base/file_map.h"
#include "base/mem.h"
#include <curses.h>
#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <term.h>
#include <termios.h>
#include <unistd.h>

#define ASK_MS    120
#define MODES_ON  "\033[?2004h"
#define MODES_OFF "\033[?2004l"
#define MOUSE_ON  "\033[?1002h\033[?1006h"
#define MOUSE_OFF "\033[?1006l\033[?1002l"

static struct {
    struct term_info info;
    SCREEN *screen;
    struct termios before; /* as we found it */
    char leave[128];       /* what a crash writes */
    size_t n_leave;
    int pipe[2];
    volatile sig_atomic_t bits;
    volatile sig_atomic_t on_screen;
    bool mouse;
    struct sigaction old_crash[5];
} term;

static const int crash_signals[5] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};

const struct term_info *term_info(void) {
    return &term.info;
}

/* Safe in a signal handler. */
static void restore_now(void) {
    if (!term.on_screen)
        return;
    term.on_screen = 0;
    ssize_t n = write(STDOUT_FILENO, term.leave, term.n_leave);
    (void)n;
    tcsetattr(STDIN_FILENO, TCSANOW, &term.before);
}

static void on_crash(int sig, siginfo_t *info, void *context) {
    static const char said[] =
        "llmchat ended by an error of its own; conversations are saved\n";
    int saved = errno;
    (void)context;
    if (sig == SIGBUS && info->si_code > 0 && file_map_mend(info->si_addr))
        return;
    if (term.on_screen) {
        restore_now();
        ssize_t n = write(STDERR_FILENO, said, sizeof said - 1);
        (void)n;
    }
    for (int i = 0; i < 5; i++)
        if (crash_signals[i] == sig)
            sigaction(sig, &term.old_crash[i], NULL);
    errno = saved;
    if (info->si_code <= 0)
        raise(sig); /* it was sent, nothing would repeat it; else the instruction runs again */
}

static void on_signal(int sig) {
    int saved = errno;
    int bit = sig == SIGWINCH  ? TERM_RESIZED
              : sig == SIGCONT ? TERM_CONTINUED
              : sig == SIGCHLD ? TERM_CHILD
              : sig == SIGTSTP ? TERM_STOP
                               : TERM_HANGUP;
    term.bits |= bit;
    ssize_t n = write(term.pipe[1], "", 1);
    (void)n;
    errno = saved;
}

static void install_signals(void) {
    static const int ours[] = {SIGWINCH, SIGCONT, SIGCHLD, SIGTSTP,
                               SIGHUP,   SIGTERM, SIGINT,  SIGQUIT};
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigfillset(&sa.sa_mask);
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        sigaction(ours[i], &sa, NULL);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL);
    struct sigaction crash = {.sa_sigaction = on_crash, .sa_flags = SA_NODEFER | SA_SIGINFO};
    for (int i = 0; i < 5; i++)
        sigaction(crash_signals[i], &crash, &term.old_crash[i]);
}

static void uninstall_signals(void) {
    static const int ours[] = {SIGWINCH, SIGCONT, SIGCHLD, SIGTSTP, SIGINT, SIGQUIT};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        signal(ours[i], SIG_DFL);
    for (int i = 0; i < 5; i++)
        sigaction(crash_signals[i], &term.old_crash[i], NULL);
    /* SIGHUP and SIGTERM stay caught: what is being saved now must not be cut short by a second
     * one */
}

int term_signal_fd(void) {
    return term.pipe[0];
}

unsigned term_take_signals(void) {
    char sink[64];
    while (read(term.pipe[0], sink, sizeof sink) > 0)
        ;
    sigset_t all, old;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &old);
    unsigned bits = (unsigned)term.bits;
    term.bits = 0;
    sigprocmask(SIG_SETMASK, &old, NULL);
    return bits;
}

/* The locale decides which characters ncurses can write. A locale that is not UTF-8 gets UTF-8
 * characters all the same where the system has C.UTF-8: terminals that aren't UTF-8 have died
 * out, unset locales have not. */
static void set_locale(void) {
    setlocale(LC_ALL, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        setlocale(LC_CTYPE, "C.UTF-8");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        setlocale(LC_CTYPE, "en_US.UTF-8");
    setlocale(LC_NUMERIC, "C");
    term.info.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

/* "15;0": foreground and background of the 16 colours, as some terminals tell their children.
 */
static bool background_from_env(bool *light) {
    const char *s = getenv("COLORFGBG");
    s = s ? strrchr(s, ';') : NULL;
    if (!s || s[1] < '0' || s[1] > '9')
        return false;
    int n = atoi(s + 1);
    *light = n == 7 || (n >= 9 && n <= 15);
    return true;
}

/* One channel of "rgb:RRRR/GGGG/BBBB", 1 to 4 hex digits, as 0..1. */
static bool read_channel(const char **p, double *out) {
    char *end;
    unsigned long v = strtoul(*p, &end, 16);
    long digits = end - *p;
    if (digits < 1 || digits > 4)
        return false;
    *out = (double)v / (double)((1ul << (4 * digits)) - 1);
    *p = *end == '/' ? end + 1 : end;
    return true;
}

/* Takes the terminal's answers out of what came; the rest was typed. */
static void sort_answers(const char *got, size_t n) {
    for (size_t i = 0; i < n;) {
        size_t end = i;
        if (n - i >= 4 && memcmp(got + i, "\033]11", 4) == 0) {
            while (end < n && got[end] != '\a' && !(got[end] == '\\' && got[end - 1] == '\033'))
                end++;
            char text[64];
            size_t len = end - i < sizeof text ? end - i : sizeof text - 1;
            memcpy(text, got + i, len);
            text[len] = 0;
            const char *p = strstr(text, "rgb:");
            double r, g, b;
            if (p && (p += 4, read_channel(&p, &r)) && read_channel(&p, &g) &&
                read_channel(&p, &b))
                term.info.light = 0.299 * r + 0.587 * g + 0.114 * b > 0.5;
        } else if (n - i >= 3 && memcmp(got + i, "\033[?", 3) == 0) {
            end = i + 3;
            while (end < n && (got[end] < '@' || got[end] > '~'))
                end++;
        } else {
            if (term.info.n_type_ahead < sizeof term.info.type_ahead)
                term.info.type_ahead[term.info.n_type_ahead++] = got[i];
        }
        i = end + 1;
    }
}

static void ask_terminal(void) {
    static const char ask[] = "\033]11;?\033\\\033[c";
    struct termios mode = term.before;
    cfmakeraw(&mode);
    tcsetattr(STDIN_FILENO, TCSANOW, &mode);
    char got[512];
    size_t n = 0;
    int64_t until = clock_us() + ASK_MS * 1000;
    if (!term_write(ask, sizeof ask - 1))
        return;
    while (n < sizeof got) {
        int64_t left = (until - clock_us()) / 1000;
        struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
        if (left <= 0 || poll(&p, 1, (int)left) <= 0)
            break;
        ssize_t r = read(STDIN_FILENO, got + n, sizeof got - n);
        if (r <= 0)
            break;
        n += (size_t)r;
        const char *attrs = memmem(got, n, "\033[?", 3);
        if (attrs && memchr(attrs, 'c', (size_t)(got + n - attrs)))
            break;
    }
    sort_answers(got, n);
}

/* What a crash has to write, from the terminal's own description. */
static void prepare_leave(void) {
    const char *parts[] = {MOUSE_OFF MODES_OFF, tigetstr("sgr0"), tigetstr("cnorm"),
                           tigetstr("rmkx"), tigetstr("rmcup")};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!parts[i] || parts[i] == (char *)-1)
            continue;
        size_t len = strlen(parts[i]);
        if (term.n_leave + len <= sizeof term.leave) {
            memcpy(term.leave + term.n_leave, parts[i], len);
            term.n_leave += len;
        }
    }
}

static void enter_modes(void) {
    raw();
    noecho();
    nonl();
    typeahead(-1);
    intrflush(stdscr, FALSE);
    leaveok(stdscr, FALSE);
    term_write(MODES_ON, sizeof MODES_ON - 1);
    if (term.mouse)
        term_write(MOUSE_ON, sizeof MOUSE_ON - 1);
    term.on_screen = 1;
}

enum status term_open(bool ask_background, struct err *err) {
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return err_set(err, ST_USAGE,
                       "the interface needs a terminal on standard input and output; for pipes "
                       "and scripts "
                       "there is: llmchat run MODEL PROMPT");
    const char *name = getenv("TERM");
    if (!name || !*name || strcmp(name, "dumb") == 0)
        return err_set(err, ST_USAGE,
                       "TERM is '%s', a terminal without a screen; for plain text there is: "
                       "llmchat run MODEL PROMPT",
                       name ? name : "");
    set_locale();
    if (tcgetattr(STDIN_FILENO, &term.before) != 0 ||
        pipe2(term.pipe, O_CLOEXEC | O_NONBLOCK) != 0)
        return err_set(err, ST_IO, "terminal: %s", strerror(errno));
    const char *no_color = getenv("NO_COLOR");
    bool color = !no_color || !*no_color;
    if (color && ask_background && !background_from_env(&term.info.light) &&
        strncmp(name, "linux", 5) != 0)
        ask_terminal();
    set_escdelay(25);
    use_tioctl(TRUE);
    term.screen = newterm(NULL, stdout, stdin);
    if (!term.screen) {
        tcsetattr(STDIN_FILENO, TCSANOW, &term.before);
        return err_set(err, ST_UNSUPPORTED,
                       "the terminal type '%s' (TERM) is not known on this system; try "
                       "TERM=xterm-256color or "
                       "install its description",
                       name);
    }
    if (color && has_colors()) {
        start_color();
        use_default_colors();
        term.info.colors = COLORS;
    }
    const char *paste = tigetstr("BE");
    term.info.pastes = paste && paste != (char *)-1;
    prepare_leave();
    enter_modes();
    install_signals();
    mem_set_hook(restore_now);
    atexit(restore_now);
    return ST_OK;
}

void term_close(void) {
    if (!term.screen)
        return;
    if (term.on_screen)
        term_leave();
    uninstall_signals();
    delscreen(term.screen);
    term.screen = NULL;
}

void term_fit(void) {
    struct winsize ws;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_row > 0 && ws.ws_col > 0)
        resizeterm(ws.ws_row, ws.ws_col);
    clearok(curscr, TRUE);
}

void term_mouse(bool on) {
    term.mouse = on;
    if (on)
        term_write(MOUSE_ON, sizeof MOUSE_ON - 1);
    else
        term_write(MOUSE_OFF, sizeof MOUSE_OFF - 1);
}

void term_leave(void) {
    term_write(MOUSE_OFF MODES_OFF, sizeof MOUSE_OFF MODES_OFF - 1);
    def_prog_mode();
    endwin();
    tcsetattr(STDIN_FILENO, TCSADRAIN, &term.before);
    term.on_screen = 0;
}

void term_return(void) {
    reset_prog_mode();
    enter_modes();
    term_fit();
}

void term_suspend(void) {
    term_leave();
    struct sigaction old, dfl = {.sa_handler = SIG_DFL};
    sigaction(SIGTSTP, &dfl, &old);
    kill(0, SIGTSTP); /* the whole group, as the terminal does */
    sigaction(SIGTSTP, &old, NULL);
    term_return();
}

bool term_write(const char *p, size_t len) {
    while (len > 0) {
        ssize_t n = write(STDOUT_FILENO, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
            if (poll(&out, 1, 1000) <= 0)
                return false;
            continue;
        }
        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}
