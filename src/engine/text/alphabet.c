/*
 * alphabet.c - see alphabet.h.
 *
 * All of the alphabet lies below U+0800, so a character has one or two bytes of UTF-8.
 */
#include "engine/text/alphabet.h"
#include <stdint.h>

/* The byte of a character of the alphabet, or -1. */
static int alphabet_byte(uint32_t cp) {
    if ((cp >= 33 && cp <= 126) || (cp >= 161 && cp <= 172) || (cp >= 174 && cp <= 255))
        return (int)cp;
    if (cp >= 256 && cp < 256 + 33)
        return (int)(cp - 256); /* 0..32 */
    if (cp >= 289 && cp < 289 + 34)
        return (int)(cp - 289 + 127); /* 127..160 */
    return cp == 323 ? 173 : -1;
}

bool alphabet_decode(const char *s, size_t len, struct buf *out) {
    size_t start = out->len;
    for (size_t i = 0; i < len; i++) {
        uint32_t cp = (unsigned char)s[i];
        if (cp >= 0xc2 && cp <= 0xc5 && i + 1 < len && (s[i + 1] & 0xc0) == 0x80)
            cp = (cp & 0x1f) << 6 | ((unsigned char)s[++i] & 0x3f);
        else if (cp >= 0x80)
            cp = UINT32_MAX;
        int byte = alphabet_byte(cp);
        if (byte < 0) {
            buf_cut(out, start);
            return false;
        }
        buf_addc(out, (char)byte);
    }
    return true;
}

static uint32_t alphabet_char(unsigned char c) {
    if ((c >= 33 && c <= 126) || (c >= 161 && c != 173))
        return c;
    if (c <= 32)
        return 256u + c;
    return c == 173 ? 323 : 289u + (c - 127u);
}

void alphabet_encode(const char *s, size_t len, struct buf *out) {
    for (size_t i = 0; i < len; i++)
        buf_addcp(out, alphabet_char((unsigned char)s[i]));
}
