/*
 * outside.c - the draft in the person's own editor.
 *
 * The text goes through a file of mode 0600 in the state folder, which is removed again. While
 * the editor has the terminal an answer goes on streaming and is saved: the loop here waits for
 * the child and for the chat, and draws nothing. $VISUAL and $EDITOR may hold arguments, so a
 * shell runs them, with the file name as its argument.
 */
#include "base/path.h"
#include "ui/app.h"
#include "ui/term.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define DRAFT_MAX (16u << 20)

static const char *editor(void) {
    const char *e = getenv("VISUAL");
    if (!e || !*e)
        e = getenv("EDITOR");
    return e && *e ? e : "vi";
}

static enum status write_draft(const char *text, char **path, struct err *err) {
    char *name = xasprintf("draft-%ld.md", (long)getpid());
    enum status st = path_in(PATH_STATE, name, path, err);
    free(name);
    if (st == ST_OK)
        st = file_write_atomic(*path, text, strlen(text), err);
    return st;
}

static pid_t start_editor(const char *path) {
    char *line = xasprintf("exec %s \"$1\"", editor());
    pid_t pid = fork();
    if (pid != 0) {
        free(line);
        return pid;
    }
    for (int sig = 1; sig < 32; sig++)
        signal(sig, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execl("/bin/sh", "sh", "-c", line, "sh", path, (char *)NULL);
    _exit(127);
}

/* Exit status of the editor, as waitpid() gives it. */
static int wait_for(struct app *a, pid_t pid) {
    int status = 0;
    for (;;) {
        pid_t got = waitpid(pid, &status, WNOHANG);
        if (got == pid || (got < 0 && errno != EINTR))
            return status;
        struct pollfd p[2] = {{.fd = term_signal_fd(), .events = POLLIN},
                              {.fd = chat_fd(a->chat), .events = POLLIN}};
        poll(p, 2, chat_busy(a->chat) ? 250 : 1000);
        if (term_take_signals() & TERM_HANGUP) {
            a->quit = true;
            kill(pid, SIGHUP);
        }
        app_chat_events(a);
    }
}

void edit_outside(struct app *a) {
    struct err err;
    char *text = edit_text(a->edit), *path = NULL;
    if (!app_ok(a, write_draft(text, &path, &err), &err))
        goto out;
    term_leave();
    pid_t pid = start_editor(path);
    int status = pid < 0 ? -1 : wait_for(a, pid);
    term_return();
    struct buf back = {0};
    if (pid < 0) {
        app_complain(a, "the editor could not be started: %s", strerror(errno));
    } else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        app_complain(
            a,
            "'%s' ended with status %d; the draft is as it was. $VISUAL or $EDITOR says which "
            "editor is used",
            editor(), WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    } else if (app_ok(a, file_read(path, DRAFT_MAX, &back, &err), &err)) {
        size_t n = back.len;
        while (n > 0 && back.p[n - 1] == '\n') /* editors end the last line */
            n--;
        buf_cut(&back, n);
        if (strcmp(buf_str(&back), text) != 0)
            edit_set(a->edit, buf_str(&back));
        app_focus(a, FOCUS_INPUT);
    }
    buf_release(&back);
    unlink(path);
out:
    free(path);
    free(text);
    a->dirty = true;
}
