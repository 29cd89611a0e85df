/*
 * clipboard.c - copying, always because the person asked for it.
 *
 * Two ways at once, since neither always works: the terminal's OSC 52 sequence (works over ssh;
 * terminals may refuse it) and the desktop's own tool where there is a desktop. This is the
 * only place of the program that writes an OSC sequence with text in it, and the text is
 * base64: nothing in an answer can reach the terminal as a sequence of its own.
 */
#include "ui/app.h"
#include "ui/term.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define OSC52_MAX 100000 /* bytes; terminals drop longer ones */

static void base64(struct buf *out, const char *s, size_t len) {
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = (const unsigned char *)s;
    for (size_t i = 0; i < len; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < len ? (uint32_t)p[i + 1] << 8 : 0) |
                     (i + 2 < len ? p[i + 2] : 0);
        buf_addc(out, digits[v >> 18]);
        buf_addc(out, digits[v >> 12 & 63]);
        buf_addc(out, i + 1 < len ? digits[v >> 6 & 63] : '=');
        buf_addc(out, i + 2 < len ? digits[v & 63] : '=');
    }
}

static bool to_terminal(const char *text, size_t len) {
    if (len > OSC52_MAX)
        return false;
    struct buf seq = {0};
    buf_adds(&seq, "\033]52;c;");
    base64(&seq, text, len);
    buf_addc(&seq, '\a');
    bool ok = term_write(seq.p, seq.len);
    buf_release(&seq);
    return ok;
}

/* Runs a tool with the text on its standard input. The tools keep running in the background to
 * serve the clipboard, so only their first process is waited for; one that takes no text for
 * two seconds is given up. */
static bool to_tool(const char *const *argv, const char *text, size_t len) {
    int fd[2];
    if (pipe2(fd, O_CLOEXEC) != 0)
        return false;
    pid_t pid = fork();
    if (pid == 0) {
        for (int sig = 1; sig < 32; sig++)
            signal(sig, SIG_DFL);
        int null = open("/dev/null", O_RDWR);
        dup2(fd[0], STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(fd[0]);
    if (pid < 0) {
        close(fd[1]);
        return false;
    }
    fcntl(fd[1], F_SETFL, O_NONBLOCK);
    bool ok = true;
    while (ok && len > 0) {
        struct pollfd p = {.fd = fd[1], .events = POLLOUT};
        ssize_t n = poll(&p, 1, 2000) > 0 ? write(fd[1], text, len) : -1;
        ok = n > 0;
        text += ok ? n : 0;
        len -= ok ? (size_t)n : 0;
    }
    close(fd[1]);
    int status = 0;
    for (int i = 0; i < 200 && waitpid(pid, &status, WNOHANG) == 0; i++) {
        poll(NULL, 0, 10);
        if (i == 199) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
        }
    }
    return ok && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void copy_text(struct app *a, const char *text, const char *what) {
    static const char *const wayland[] = {"wl-copy", NULL};
    static const char *const x11[] = {"xclip", "-selection", "clipboard", NULL};
    static const char *const mac[] = {"pbcopy", NULL};
    size_t len = strlen(text);
    if (len == 0) {
        app_say(a, "Nothing to copy");
        return;
    }
    bool terminal = to_terminal(text, len), tool;
    if (getenv("WAYLAND_DISPLAY"))
        tool = to_tool(wayland, text, len);
    else if (getenv("DISPLAY"))
        tool = to_tool(x11, text, len);
    else
        tool = access("/usr/bin/pbcopy", X_OK) == 0 && to_tool(mac, text, len);
    if (terminal || tool)
        app_say(a, "Copied: %s, %zu bytes", what, len);
    else
        app_complain(a,
                     "%s is too long for the terminal's clipboard (%zu bytes, at most %d); "
                     "Export writes it "
                     "to a file",
                     what, len, OSC52_MAX);
}
