/*
 * input.c - bytes of the terminal to events.
 *
 * ncurses recognises the terminal's own keys (its description knows them); everything else is
 * decoded here from single bytes: UTF-8 whatever the locale is, Alt as a leading Esc, the
 * modified cursor keys of xterm, SGR mouse reports, bracketed pastes, and late answers of the
 * terminal (OSC, DCS), which are swallowed. wgetch() and not get_wch() is used, because the
 * latter drops bytes that the locale does not like.
 *
 * A paste is collected over many calls, so a slow or endless one never blocks the program: it
 * ends at its closing sequence, or when nothing came for two seconds. ncurses' key recognition
 * is off meanwhile, so that pasted escape sequences stay text; they are stripped of control
 * characters when the paste is complete.
 */
#include "ui/input.h"
#include "base/clock.h"
#include "base/utf8.h"
#include "ui/term.h"
#include <curses.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define PASTE_SILENCE_MS 2000
#define SEQUENCE_MAX     256
#define SEQUENCE_MS      25

static struct {
    WINDOW *win; /* a pad: wgetch() would paint a window as a side effect */
    unsigned char back[SEQUENCE_MAX]; /* bytes to read again, last first */
    size_t n_back;
    bool pasting;
    struct buf raw, clean;
    int64_t last_us;
} in;

void input_init(void) {
    in.win = newpad(1, 1);
    keypad(in.win, TRUE);
    nodelay(in.win, TRUE);
    keyok(KEY_MOUSE, FALSE); /* after keypad(): that is when ncurses learns its keys */
    const struct term_info *t = term_info();
    for (size_t i = t->n_type_ahead; i > 0 && in.n_back < sizeof in.back; i--)
        in.back[in.n_back++] = (unsigned char)t->type_ahead[i - 1];
}

void input_release(void) {
    buf_release(&in.raw);
    buf_release(&in.clean);
    delwin(in.win);
    in.win = NULL;
}

/* A byte, a KEY_* of ncurses, or ERR. */
static int next_code(void) {
    return in.n_back > 0 ? in.back[--in.n_back] : wgetch(in.win);
}

/* The same inside a sequence, whose rest may still be on its way. */
static int more_code(void) {
    int c = next_code();
    if (c != ERR)
        return c;
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&p, 1, SEQUENCE_MS) > 0 ? next_code() : ERR;
}

static void put_back(int c) {
    if (c >= 0 && c < 256 && in.n_back < sizeof in.back)
        in.back[in.n_back++] = (unsigned char)c;
}

/* -- keys that ncurses knows -- */

static const struct {
    int code;
    key_code key;
} curses_keys[] = {
    {KEY_UP, K_UP},
    {KEY_DOWN, K_DOWN},
    {KEY_LEFT, K_LEFT},
    {KEY_RIGHT, K_RIGHT},
    {KEY_HOME, K_HOME},
    {KEY_END, K_END},
    {KEY_PPAGE, K_PGUP},
    {KEY_NPAGE, K_PGDN},
    {KEY_DC, K_DELETE},
    {KEY_IC, K_INSERT},
    {KEY_BACKSPACE, K_BACKSPACE},
    {KEY_ENTER, K_ENTER},
    {KEY_BTAB, K_TAB | MOD_SHIFT},
    {KEY_SLEFT, K_LEFT | MOD_SHIFT},
    {KEY_SRIGHT, K_RIGHT | MOD_SHIFT},
    {KEY_SR, K_UP | MOD_SHIFT},
    {KEY_SF, K_DOWN | MOD_SHIFT},
    {KEY_SHOME, K_HOME | MOD_SHIFT},
    {KEY_SEND, K_END | MOD_SHIFT},
    {KEY_SDC, K_DELETE | MOD_SHIFT},
    {KEY_SPREVIOUS, K_PGUP | MOD_SHIFT},
    {KEY_SNEXT, K_PGDN | MOD_SHIFT},
    {KEY_A1, K_HOME},
    {KEY_A3, K_PGUP},
    {KEY_C1, K_END},
    {KEY_C3, K_PGDN},
};

/* xterm's modified keys get numbers from ncurses at run time; their names tell: kLFT5 is
 * Ctrl-Left. */
static key_code extended_key(int code) {
    static const struct {
        const char *name;
        key_code key;
    } stems[] = {{"kLFT", K_LEFT},  {"kRIT", K_RIGHT}, {"kUP", K_UP},    {"kDN", K_DOWN},
                 {"kHOM", K_HOME},  {"kEND", K_END},   {"kPRV", K_PGUP}, {"kNXT", K_PGDN},
                 {"kDC", K_DELETE}, {"kIC", K_INSERT}};
    const char *name = keyname(code);
    if (!name)
        return 0;
    for (size_t i = 0; i < sizeof stems / sizeof *stems; i++) {
        size_t n = strlen(stems[i].name);
        if (strncmp(name, stems[i].name, n) != 0)
            continue;
        int m = name[n] ? name[n] - '1' : 1; /* kUP alone is shifted */
        if (m < 1 || m > 7)
            return 0;
        return stems[i].key | (m & 1 ? MOD_SHIFT : 0) | (m & 2 ? MOD_ALT : 0) |
               (m & 4 ? MOD_CTRL : 0);
    }
    return 0;
}

static key_code key_of_curses(int code) {
    if (code >= KEY_F(1) && code <= KEY_F(24))
        return K_F0 + (key_code)(code - KEY_F0);
    for (size_t i = 0; i < sizeof curses_keys / sizeof *curses_keys; i++)
        if (curses_keys[i].code == code)
            return curses_keys[i].key;
    return extended_key(code);
}

/* -- bytes -- */

static key_code key_of_control(int c) {
    switch (c) {
    case '\r':
        return K_ENTER;
    case '\t':
        return K_TAB;
    case 27:
        return K_ESC;
    case 8:
    case 127:
        return K_BACKSPACE;
    case 0:
        return ' ' | MOD_CTRL;
    default:
        return (key_code)(c < 27 ? c + 'a' - 1 : c + '@') | MOD_CTRL;
    }
}

/* A character that begins with byte c; 0 when it is malformed. */
static key_code read_char(int c) {
    char bytes[4] = {(char)c};
    size_t want = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1, n = 1;
    while (n < want) {
        int d = more_code();
        if (d < 0x80 || d > 0xBF) {
            put_back(d);
            return 0;
        }
        bytes[n++] = (char)d;
    }
    uint32_t cp;
    utf8_decode(bytes, n, &cp);
    return cp == 0xFFFD || (cp >= 0x80 && cp < 0xA0) ? 0 : cp;
}

/* Skips an OSC, DCS or APC string: up to BEL or ST. */
static void skip_string(void) {
    for (int i = 0; i < 4096; i++) {
        int c = more_code();
        if (c == ERR || c == '\a')
            return;
        if (c == 27) {
            c = more_code();
            if (c != '\\')
                put_back(c);
            return;
        }
    }
}

/* "\033[<b;x;y" with M or m at its end. */
static bool mouse_event(const char *args, char final, struct input_event *e) {
    int v[3] = {0}, n = 0;
    for (const char *p = args; *p && n < 3; p++) {
        if (*p >= '0' && *p <= '9')
            v[n] = v[n] < 100000 ? v[n] * 10 + (*p - '0') : v[n];
        else if (*p == ';')
            n++;
        else
            return false;
    }
    if (n != 2 || v[1] < 1 || v[2] < 1)
        return false;
    int b = v[0];
    e->type = IN_MOUSE;
    e->x = v[1] - 1;
    e->y = v[2] - 1;
    e->mods = (b & 4 ? MOD_SHIFT : 0) | (b & 8 ? MOD_ALT : 0) | (b & 16 ? MOD_CTRL : 0);
    e->button = (b & 3) + 1;
    if (b & 64) {
        e->kind = b & 1 ? MOUSE_WHEEL_DOWN : MOUSE_WHEEL_UP;
        e->button = 0;
        return (b & 2) == 0; /* the sideways wheel is not used */
    }
    e->kind = final == 'm' ? MOUSE_RELEASE : b & 32 ? MOUSE_DRAG : MOUSE_PRESS;
    return (b & 3) != 3;
}

/* Of "\033[21~": terminals agree on these numbers, whatever TERM says. 0: none. */
static key_code function_key(const char *args) {
    static const unsigned char number[] = {11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 23, 24};
    int v = 0;
    for (; *args >= '0' && *args <= '9' && v < 100; args++)
        v = 10 * v + (*args - '0');
    for (size_t i = 0; i < sizeof number; i++)
        if (number[i] == v && (*args == 0 || *args == ';'))
            return K_F0 + 1 + (key_code)i;
    return 0;
}

/* "\033[…" that ncurses did not know: mouse, paste, modified keys of xterm; others are
 * swallowed. */
static bool csi_event(struct input_event *e) {
    char args[64];
    size_t n = 0;
    int c;
    while ((c = more_code()) != ERR && (c < '@' || c > '~')) {
        if (c < ' ' || c > '?' || n + 1 >= sizeof args) {
            put_back(c);
            return false;
        }
        args[n++] = (char)c;
    }
    args[n] = 0;
    if (c == ERR)
        return false;
    if (args[0] == '<')
        return mouse_event(args + 1, (char)c, e);
    if (c == '~' && strcmp(args, "200") == 0) {
        in.pasting = true;
        in.last_us = clock_us();
        buf_clear(&in.raw);
        keypad(in.win, FALSE);
        return false;
    }
    static const struct {
        char final;
        key_code key;
    } finals[] = {{'A', K_UP},   {'B', K_DOWN}, {'C', K_RIGHT},          {'D', K_LEFT},
                  {'H', K_HOME}, {'F', K_END},  {'Z', K_TAB | MOD_SHIFT}};
    static const key_code tilde[] = {0,      K_HOME, K_INSERT, K_DELETE, K_END,
                                     K_PGUP, K_PGDN, K_HOME,   K_END};
    key_code key = 0;
    for (size_t i = 0; i < sizeof finals / sizeof *finals; i++)
        if (finals[i].final == c)
            key = finals[i].key;
    if (c == '~' && args[0] >= '1' && args[0] <= '8' && (args[1] == 0 || args[1] == ';'))
        key = tilde[args[0] - '0'];
    else if (c == '~')
        key = function_key(args);
    if (!key)
        return false;
    const char *semi = strchr(args, ';');
    int m = semi && semi[1] >= '1' && semi[1] <= '8' ? semi[1] - '1' : 0;
    e->type = IN_KEY;
    e->key = key | (m & 1 ? MOD_SHIFT : 0) | (m & 2 ? MOD_ALT : 0) | (m & 4 ? MOD_CTRL : 0);
    return true;
}

/* Of "\033OP", "\033OA" and such; 0 when it was Alt-O. */
static key_code ss3_key(void) {
    static const struct {
        char final;
        key_code key;
    } keys[] = {{'A', K_UP},     {'B', K_DOWN},   {'C', K_RIGHT}, {'D', K_LEFT},
                {'H', K_HOME},   {'F', K_END},    {'M', K_ENTER}, {'P', K_F0 + 1},
                {'Q', K_F0 + 2}, {'R', K_F0 + 3}, {'S', K_F0 + 4}};
    int c = next_code();
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (keys[i].final == c)
            return keys[i].key;
    put_back(c);
    return 0;
}

/* After an Esc: a key with Alt, a sequence, or Esc alone. */
static bool escape_event(struct input_event *e) {
    e->type = IN_KEY;
    int c = next_code();
    if (c == ERR || c == 27) {
        put_back(c);
        e->key = K_ESC;
        return true;
    }
    if (c == '[')
        return csi_event(e);
    if (c == 'O' && (e->key = ss3_key()))
        return true;
    if (c == ']' || c == 'P' || c == '_' || c == '^') {
        int d = next_code(); /* alone it is Alt with that character */
        put_back(d);
        if (d != ERR) {
            skip_string();
            return false;
        }
    }
    key_code key = c >= 256              ? key_of_curses(c)
                   : c < ' ' || c == 127 ? key_of_control(c)
                                         : read_char(c);
    e->key = key | MOD_ALT;
    return key != 0;
}

/* -- pastes -- */

/* Line ends become '\n', control characters go; tabs stay. */
static void clean_paste(void) {
    buf_clear(&in.clean);
    struct buf valid = {0};
    utf8_scrub(&valid, buf_str(&in.raw), in.raw.len);
    for (size_t i = 0; i < valid.len;) {
        uint32_t cp;
        size_t n = utf8_decode(valid.p + i, valid.len - i, &cp);
        if (cp == '\r') {
            buf_addc(&in.clean, '\n');
            if (i + 1 < valid.len && valid.p[i + 1] == '\n')
                i++;
        } else if (cp == '\n' || cp == '\t' ||
                   (cp >= ' ' && cp != 127 && !(cp >= 0x80 && cp < 0xA0))) {
            buf_add(&in.clean, valid.p + i, n);
        }
        i += n;
    }
    buf_release(&valid);
}

static bool paste_event(struct input_event *e) {
    static const char end[] = "\033[201~";
    const size_t n_end = sizeof end - 1;
    int c;
    bool complete = false;
    while (!complete && (c = next_code()) != ERR) {
        in.last_us = clock_us();
        if (c > 255)
            continue;
        if (in.raw.len >= INPUT_PASTE_MAX) { /* keep only as much as finds the end */
            char *tail = in.raw.p + in.raw.len - n_end;
            memmove(tail, tail + 1, n_end - 1);
            in.raw.len--;
        }
        buf_addc(&in.raw, (char)c);
        complete =
            in.raw.len >= n_end && memcmp(in.raw.p + in.raw.len - n_end, end, n_end) == 0;
    }
    if (!complete && clock_us() - in.last_us < PASTE_SILENCE_MS * 1000)
        return false;
    if (complete)
        buf_cut(&in.raw, in.raw.len - n_end);
    in.pasting = false;
    keypad(in.win, TRUE);
    clean_paste();
    e->type = IN_PASTE;
    e->paste = buf_str(&in.clean);
    e->n_paste = in.clean.len;
    return true;
}

bool input_waiting(void) {
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    return in.n_back > 0 || poll(&p, 1, 0) > 0;
}

int input_timeout_ms(void) {
    return in.pasting ? PASTE_SILENCE_MS : in.n_back > 0 ? 0 : -1;
}

bool input_next(struct input_event *e) {
    for (;;) {
        *e = (struct input_event){.type = IN_NONE};
        if (in.pasting)
            return paste_event(e);
        int c = next_code();
        if (c == ERR)
            return false;
        if (c == 27) {
            if (escape_event(e))
                return true;
            continue;
        }
        e->type = IN_KEY;
        e->key = c >= 256              ? key_of_curses(c)
                 : c < ' ' || c == 127 ? key_of_control(c)
                                       : read_char(c);
        if (e->key)
            return true;
    }
}
