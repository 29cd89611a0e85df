/*
 * keys.c - names of keys, both ways, from one table.
 *
 * Ctrl-I, Ctrl-M and Ctrl-[ are Tab, Enter and Esc to every terminal; their names are taken as
 * these keys so that a binding to "ctrl-m" does what the terminal will really send.
 */
#include "ui/keys.h"
#include "base/utf8.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct {
    const char *name;
    key_code key;
} names[] = {
    {"Enter", K_ENTER}, {"Return", K_ENTER},        {"Tab", K_TAB},    {"Esc", K_ESC},
    {"Escape", K_ESC},  {"Backspace", K_BACKSPACE}, {"Del", K_DELETE}, {"Delete", K_DELETE},
    {"Ins", K_INSERT},  {"Insert", K_INSERT},       {"Up", K_UP},      {"Down", K_DOWN},
    {"Left", K_LEFT},   {"Right", K_RIGHT},         {"Home", K_HOME},  {"End", K_END},
    {"PgUp", K_PGUP},   {"PageUp", K_PGUP},         {"PgDn", K_PGDN},  {"PageDown", K_PGDN},
    {"Space", ' '},
};

static const struct {
    const char *prefix;
    key_code mod;
} mods[] = {{"ctrl-", MOD_CTRL}, {"alt-", MOD_ALT}, {"meta-", MOD_ALT}, {"shift-", MOD_SHIFT}};

/* The key without modifiers. */
static bool parse_base(const char *s, key_code *out) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcasecmp(s, names[i].name) == 0) {
            *out = names[i].key;
            return true;
        }
    if ((s[0] == 'f' || s[0] == 'F') && s[1] >= '1' && s[1] <= '9') {
        char *end;
        long n = strtol(s + 1, &end, 10);
        if (*end == 0 && n <= 24) {
            *out = K_F0 + (key_code)n;
            return true;
        }
    }
    uint32_t cp;
    size_t n = utf8_decode(s, strlen(s), &cp);
    if (n == 0 || s[n] != 0 || cp == 0xFFFD || cp <= ' ' || cp == 127)
        return false;
    *out = cp;
    return true;
}

bool key_parse(const char *name, key_code *out) {
    key_code mod = 0;
    for (size_t i = 0; i < sizeof mods / sizeof *mods; i++) {
        size_t n = strlen(mods[i].prefix);
        if (strncasecmp(name, mods[i].prefix, n) == 0 && name[n] != 0) {
            mod |= mods[i].mod;
            name += n;
            i = (size_t)-1; /* more of them may follow */
        }
    }
    key_code key;
    if (!parse_base(name, &key))
        return false;
    if (mod & MOD_CTRL) {
        if (key >= 'A' && key <= 'Z')
            key += 'a' - 'A';
        if (key == 'i' || key == 'm' || key == '[') {
            key = key == 'i' ? K_TAB : key == 'm' ? K_ENTER : K_ESC;
            mod &= ~MOD_CTRL;
        } else if (key == '/' || key == '7') {
            key = '_';
        }
    }
    if ((mod & MOD_SHIFT) && key >= 'a' && key <= 'z') {
        key -= 'a' - 'A';
        mod &= ~MOD_SHIFT;
    }
    *out = key | mod;
    return true;
}

const char *key_show(key_code key, char out[KEY_NAME_MAX]) {
    key_code base = key & ~MOD_ALL;
    char word[8] = "";
    const char *s = word;
    if (base > K_F0 && base <= K_LAST) {
        snprintf(word, sizeof word, "F%u", (unsigned)(base - K_F0));
    } else {
        bool found = false;
        for (size_t i = 0; i < sizeof names / sizeof *names && !found; i++)
            if (names[i].key == base) {
                s = names[i].name;
                found = true;
            }
        if (!found) {
            if ((key & (MOD_CTRL | MOD_ALT)) && base >= 'a' && base <= 'z')
                base -= 'a' - 'A';
            word[utf8_encode(base, word)] = 0;
        }
    }
    snprintf(out, KEY_NAME_MAX, "%s%s%s%s", key & MOD_CTRL ? "Ctrl-" : "",
             key & MOD_ALT ? "Alt-" : "", key & MOD_SHIFT ? "Shift-" : "", s);
    return out;
}
