/*
 * hf_scan.c - see hf_scan.h.
 *
 * Numbers are read as the library's own JSON reader does it (serde_json): all digits as an
 * integer, divided by a power of ten. That is off by one unit in the last place now and then,
 * and of segmentations with equal sums of scores it decides. What is skipped is given to
 * jansson later, which checks it.
 */
#include "engine/text/hf_scan.h"
#include "base/utf8.h"
#include <string.h>

enum { MAX_DEPTH = 512 };

enum status hf_scan_fail(const struct hf_scan *s, const char *wanted, struct err *err) {
    return err_set(err, ST_FORMAT, "%s: wanted %s at byte %zu, found \"%.*s\"", s->file, wanted,
                   (size_t)(s->p - s->start), (int)(s->end - s->p < 20 ? s->end - s->p : 20),
                   s->p);
}

static void skip_blanks(struct hf_scan *s) {
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
        s->p++;
}

bool hf_scan_take(struct hf_scan *s, char c) {
    skip_blanks(s);
    if (s->p == s->end || *s->p != c)
        return false;
    s->p++;
    return true;
}

enum status hf_scan_want(struct hf_scan *s, char c, struct err *err) {
    return hf_scan_take(s, c) ? ST_OK : hf_scan_fail(s, (char[]){'\'', c, '\'', 0}, err);
}

/* Four hexadecimal digits, or -1. */
static int32_t hex4(const char *p, const char *end) {
    static const char digits[] = "0123456789abcdefABCDEF";
    int32_t v = 0;
    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        const char *d = p[i] ? strchr(digits, p[i]) : NULL;
        if (!d)
            return -1;
        v = v << 4 | (int32_t)(d - digits < 16 ? d - digits : d - digits - 6);
    }
    return v;
}

/* The escape at s->p, on the backslash. */
static enum status read_escape(struct hf_scan *s, struct buf *out, struct err *err) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = s->end - s->p > 1 ? s->p[1] : 0;
    const char *plain = c ? strchr(from, c) : NULL;
    if (plain) {
        buf_addc(out, to[plain - from]);
        s->p += 2;
        return ST_OK;
    }
    int32_t cp = c == 'u' ? hex4(s->p + 2, s->end) : -1;
    if (cp < 0)
        return hf_scan_fail(s, "an escape", err);
    if (cp >= 0xd800 && cp < 0xe000) {
        bool pair = cp < 0xdc00 && s->end - s->p >= 12 && s->p[6] == '\\' && s->p[7] == 'u';
        int32_t low = pair ? hex4(s->p + 8, s->end) : -1;
        if (low < 0xdc00 || low > 0xdfff)
            return hf_scan_fail(s, "a pair of surrogates", err);
        cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
        s->p += 6;
    }
    buf_addcp(out, (uint32_t)cp);
    s->p += 6;
    return ST_OK;
}

enum status hf_scan_string(struct hf_scan *s, struct buf *out, struct err *err) {
    buf_clear(out);
    if (!hf_scan_take(s, '"'))
        return hf_scan_fail(s, "a string", err);
    for (;;) {
        const char *q = s->p;
        while (q < s->end && *q != '"' && *q != '\\' && (unsigned char)*q >= 0x20)
            q++;
        if (!utf8_valid(s->p, (size_t)(q - s->p)))
            return hf_scan_fail(s, "valid UTF-8", err);
        buf_add(out, s->p, (size_t)(q - s->p));
        s->p = q;
        if (hf_scan_take(s, '"'))
            return ST_OK;
        if (s->p == s->end || *s->p != '\\')
            return hf_scan_fail(s, "the end of a string", err);
        CHECK(read_escape(s, out, err));
    }
}

enum status hf_scan_int(struct hf_scan *s, int64_t *out, struct err *err) {
    skip_blanks(s);
    const char *q = s->p + (s->p < s->end && *s->p == '-');
    int64_t v = 0;
    int n = 0;
    for (; q < s->end && *q >= '0' && *q <= '9' && n < 18; q++, n++)
        v = 10 * v + (*q - '0');
    if (n == 0 || (q < s->end && (strchr(".eE", *q) || (*q >= '0' && *q <= '9'))))
        return hf_scan_fail(s, "an integer", err);
    *out = *s->p == '-' ? -v : v;
    s->p = q;
    return ST_OK;
}

static double scaled(uint64_t digits, int exponent) {
    double f = (double)digits, power = 1;
    for (; exponent < -308 && f != 0; exponent += 308)
        f /= 1e308;
    for (int i = exponent < 0 ? -exponent : exponent; i > 0; i--)
        power *= 10; /* exact up to 10^22, and scores have no more digits */
    return exponent < 0 ? f / power : f * power;
}

/* The exponent behind 'e' at *p. */
static int read_exponent(const char **p, const char *end) {
    const char *q = *p + 1;
    bool minus = q < end && *q == '-';
    int e = 0;
    if (q < end && (*q == '-' || *q == '+'))
        q++;
    for (; q < end && *q >= '0' && *q <= '9'; q++)
        e = e < 100000 ? 10 * e + (*q - '0') : e;
    *p = q;
    return minus ? -e : e;
}

enum status hf_scan_number(struct hf_scan *s, double *out, struct err *err) {
    skip_blanks(s);
    const char *q = s->p;
    uint64_t digits = 0;
    int exponent = 0, n = 0;
    bool minus = q < s->end && *q == '-', point = false;
    for (q += minus; q < s->end && ((*q >= '0' && *q <= '9') || (*q == '.' && !point)); q++) {
        if (*q == '.') {
            point = true;
            continue;
        }
        uint64_t d = (uint64_t)(*q - '0');
        n++;
        if (digits > (UINT64_MAX - d) / 10)
            exponent += !point; /* beyond what counts */
        else {
            digits = 10 * digits + d;
            exponent -= point;
        }
        if (n > 1000)
            break;
    }
    if (n > 0 && q < s->end && (*q == 'e' || *q == 'E'))
        exponent += read_exponent(&q, s->end);
    if (n == 0 || n > 1000 || exponent > 300)
        return hf_scan_fail(s, "a number", err);
    *out = minus ? -scaled(digits, exponent) : scaled(digits, exponent);
    s->p = q;
    return ST_OK;
}

static enum status skip_string(struct hf_scan *s, struct err *err) {
    for (s->p++; s->p < s->end && *s->p != '"'; s->p++)
        if (*s->p == '\\' && s->p + 1 < s->end)
            s->p++;
    if (s->p == s->end)
        return hf_scan_fail(s, "the end of a string", err);
    s->p++;
    return ST_OK;
}

enum status hf_scan_skip(struct hf_scan *s, struct err *err) {
    int depth = 0;
    skip_blanks(s);
    do {
        if (s->p == s->end)
            return hf_scan_fail(s, "a value", err);
        char c = *s->p;
        if (c == '"') {
            CHECK(skip_string(s, err));
        } else if (c == '{' || c == '[') {
            if (++depth > MAX_DEPTH)
                return hf_scan_fail(s, "less depth", err);
            s->p++;
        } else if (c == '}' || c == ']') {
            if (--depth < 0)
                return hf_scan_fail(s, "a value", err);
            s->p++;
        } else if (depth == 0) { /* a number or a word */
            size_t n = strcspn(s->p, ",]} \t\r\n");
            if (n == 0 || n > (size_t)(s->end - s->p))
                return hf_scan_fail(s, "a value", err);
            s->p += n;
        } else {
            s->p++;
        }
    } while (depth > 0);
    return ST_OK;
}
