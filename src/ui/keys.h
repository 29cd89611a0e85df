/*
 * keys.h - keys: their codes and their names.
 *
 * A key is one number: a Unicode code point or one of KEY_* below, with modifier bits. Ctrl
 * with a letter is the lower case letter and MOD_CTRL, never a control code. Names are those of
 * the configuration: "ctrl-n", "alt-enter", "f10", "pgup", "?", "space"; upper case letters are
 * themselves ("G"), modifiers may be in any case.
 */
#ifndef LLMCHAT_UI_KEYS_H
#define LLMCHAT_UI_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint32_t key_code;

#define MOD_CTRL  0x01000000u
#define MOD_ALT   0x02000000u
#define MOD_SHIFT 0x04000000u
#define MOD_ALL   (MOD_CTRL | MOD_ALT | MOD_SHIFT)

/* Keys without a character: beyond Unicode, below the modifiers. */
enum {
    K_ENTER = 0x200000,
    K_TAB,
    K_ESC,
    K_BACKSPACE,
    K_DELETE,
    K_INSERT,
    K_UP,
    K_DOWN,
    K_LEFT,
    K_RIGHT,
    K_HOME,
    K_END,
    K_PGUP,
    K_PGDN,
    K_F0, /* K_F0 + n is function key n, 1..24 */
    K_LAST = K_F0 + 24
};

/* False when the name is not one of a key. */
bool key_parse(const char *name, key_code *out);
/* The name for menus and help: "Ctrl-N", "Alt-Enter", "PgUp", "G". Returns out. */
#define KEY_NAME_MAX 32
const char *key_show(key_code key, char out[KEY_NAME_MAX]);

#endif
