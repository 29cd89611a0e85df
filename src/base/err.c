/*
 * err.c - see err.h.
 *
 * Messages often quote names that come from outside (a tensor's name, a path, a key), and they
 * end on a terminal or in a dialog. So the one place that formats them also makes them safe:
 * control characters and broken UTF-8 become '?'.
 */
#include "base/err.h"
#include "base/utf8.h"
#include <stdio.h>
#include <string.h>

const char *status_words(enum status st) {
    static const char *const words[] = {
#define X(name, w) [ST_##name] = w,
        STATUS_LIST(X)
#undef X
    };
    return (size_t)st < sizeof words / sizeof *words ? words[st] : "unknown status";
}

/* Copies src into dst[size], safe to show, cut at a character border. */
static void copy_clean(char *dst, size_t size, const char *src) {
    size_t n = 0, len = strlen(src);
    while (len > 0) {
        uint32_t cp;
        size_t used = utf8_decode(src, len, &cp);
        bool bad = cp < 0x20 || (cp >= 0x7f && cp < 0xa0) || cp == 0xfffd;
        size_t want = bad ? 1 : used;
        if (n + want >= size)
            break;
        if (bad)
            dst[n] = '?';
        else
            memcpy(dst + n, src, used);
        n += want;
        src += used;
        len -= used;
    }
    dst[n] = 0;
}

enum status err_setv(struct err *e, enum status code, const char *fmt, va_list ap) {
    if (!e)
        return code;
    char raw[1024];
    vsnprintf(raw, sizeof raw, fmt, ap);
    e->code = code;
    copy_clean(e->msg, sizeof e->msg, raw);
    return code;
}

enum status err_set(struct err *e, enum status code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    err_setv(e, code, fmt, ap);
    va_end(ap);
    return code;
}

enum status err_prefix(struct err *e, const char *fmt, ...) {
    if (!e)
        return ST_INTERNAL;
    char raw[512], whole[1100];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(raw, sizeof raw, fmt, ap);
    va_end(ap);
    snprintf(whole, sizeof whole, "%s: %s", raw, e->msg);
    copy_clean(e->msg, sizeof e->msg, whole);
    return e->code;
}
