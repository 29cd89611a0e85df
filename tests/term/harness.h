/*
 * harness.h - a program on a pty behind a terminal emulator: keys in, screen out.
 *
 * Waiting is always for a condition of the screen, with a generous limit that only a failure
 * reaches; no test depends on how fast the machine is. A failed wait prints the screen.
 */
#ifndef LLMCHAT_TESTS_TERM_HARNESS_H
#define LLMCHAT_TESTS_TERM_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define T_ESC    "\033"
#define T_ENTER  "\r"
#define T_TAB    "\t"
#define T_CTRL_A "\001"
#define T_CTRL_B "\002"
#define T_CTRL_C "\003"
#define T_CTRL_D "\004"
#define T_CTRL_E "\005"
#define T_CTRL_G "\007"
#define T_CTRL_K "\013"
#define T_CTRL_L "\014"
#define T_CTRL_N "\016"
#define T_CTRL_O "\017"
#define T_CTRL_P "\020"
#define T_CTRL_Q "\021"
#define T_CTRL_R "\022"
#define T_CTRL_S "\023"
#define T_CTRL_U "\025"
#define T_CTRL_W "\027"
#define T_CTRL_Y "\031"
#define T_UP     "\033OA"
#define T_DOWN   "\033OB"
#define T_RIGHT  "\033OC"
#define T_LEFT   "\033OD"
#define T_PGUP   "\033[5~"
#define T_PGDN   "\033[6~"
#define T_DEL    "\033[3~"
#define T_F1     "\033OP"
#define T_F2     "\033OQ"
#define T_F4     "\033OS"
#define T_F7     "\033[18~"
#define T_F8     "\033[19~"
#define T_F9     "\033[20~"
#define T_F10    "\033[21~"

struct tt;

/* A folder for LLMCHAT_HOME that goes with its contents. The caller frees the name. */
char *tt_home(void);
void tt_home_remove(char *takes_home);
/* Around each test: *state is its home. */
int tt_setup(void **state);
int tt_teardown(void **state);
/* Whether the program is there (NULL: no); says so where it is not: the tests are skipped then.
 * $TT_ONLY names the tests to run. */
bool tt_ready(const char *program);
/* Writes home/NAME (its folder must be one of config, data), for configurations. */
void tt_write(const char *home, const char *name, const char *text);
/* The program with the scripted engine: $UI_FAKE, else tests/term/ui_fake. */
const char *tt_ui(void);
/* Starts it with up to three arguments (NULL: none) at 80x24. */
struct tt *tt_ui_start(const char *home, const char *arg1, const char *arg2,
                       const char *const *env);

/* What the terminal answers when it is asked for its background ("ffff/ffff/ffff"); NULL:
 * nothing. */
extern const char *tt_background;

/* argv ends with NULL; env: "NAME=VALUE" or "NAME" (unset), ends with NULL, may be NULL. TERM
 * is xterm-256color and the locale C.UTF-8 unless env says otherwise. home: LLMCHAT_HOME. */
struct tt *tt_start(const char *home, const char *const *argv, const char *const *env, int rows,
                    int cols);
/* Ends the program if it still runs, frees. */
void tt_close(struct tt *t);

void tt_type(struct tt *t, const char *bytes);
void tt_typen(struct tt *t, const char *bytes, size_t len);
void tt_resize(struct tt *t, int rows, int cols);
void tt_signal(struct tt *t, int sig);
void tt_hang_up(struct tt *t); /* closes the terminal */
pid_t tt_pid(const struct tt *t);

/* The screen: rows joined by newlines, blanks at their ends gone. Lives until the next call. */
const char *tt_screen(struct tt *t);
bool tt_has(struct tt *t, const char *text); /* now, after what has come was taken */
/* Wait until the text is there, or gone; a test failure (with the screen printed) after the
 * limit. */
#define tt_wait(t, text)      tt_wait_at(t, text, true, __FILE__, __LINE__)
#define tt_wait_gone(t, text) tt_wait_at(t, text, false, __FILE__, __LINE__)
void tt_wait_at(struct tt *t, const char *text, bool there, const char *file, int line);
#define tt_wait_for(t, cond, user) tt_wait_cond(t, cond, user, #cond, __FILE__, __LINE__)
void tt_wait_cond(struct tt *t, bool (*cond)(struct tt *t, void *user), void *user,
                  const char *what, const char *file, int line);
/* Waits for the end; exit code, or 1000 + signal. */
#define tt_exit(t) tt_exit_at(t, __FILE__, __LINE__)
int tt_exit_at(struct tt *t, const char *file, int line);
/* Ctrl-Q: it must end well and leave the terminal as it was. Frees. */
#define tt_quit(t) tt_quit_at(t, __FILE__, __LINE__)
void tt_quit_at(struct tt *t, const char *file, int line);
/* Takes what comes until nothing has come for ms: for things that must not happen. */
void tt_settle(struct tt *t, int ms);

int tt_find_row(struct tt *t, const char *text); /* first row with it, -1 none */
int tt_find_col(struct tt *t, const char *text); /* its column, in cells */
struct tt_cell {
    unsigned fg, bg; /* 0xRRGGBB; default colours have bit 24 */
    bool bold, reverse, underline;
};
void tt_cell(struct tt *t, int row, int col, struct tt_cell *out);
bool tt_colored(struct tt *t); /* any cell with a colour that is not the default */
void tt_cursor(struct tt *t, int *row, int *col);

/* What the terminal was told: */
bool tt_alt_screen(const struct tt *t);
bool tt_cursor_visible(const struct tt *t);
const char *tt_title(const struct tt *t);     /* "" when none was set */
const char *tt_clipboard(const struct tt *t); /* last OSC 52, raw; "" none */
/* Whether the terminal's modes are as they were before the program. */
bool tt_modes_restored(struct tt *t);
/* All bytes the program wrote. */
const char *tt_output(const struct tt *t, size_t *len);

#endif
