/*
 * stream.c - see stream.h.
 *
 * Text becomes valid first and is compared with the stop strings after that, so a stop string
 * is found whatever the borders of tokens are. Each stop string runs as its own
 * Knuth-Morris-Pratt automaton: `at` is the length of the longest end of the text so far that
 * is a beginning of the string. Held back is as much as the largest `at`; since a stop string
 * starts at a character's first byte, what is released ends at a character's border.
 *
 * Rejected: searching the held text anew for each token, which is quadratic for long stop
 * strings.
 */
#include "engine/text/stream.h"
#include "base/utf8.h"
#include <stdlib.h>
#include <string.h>

struct stream_stop {
    char *text;     /* [len] valid UTF-8 */
    uint32_t *back; /* [len] longest proper border of text[0..i] */
    size_t len, at;
};

static void stop_init(struct stream_stop *p, const char *s) {
    struct buf text = {0};
    utf8_scrub(&text, s, strlen(s));
    p->len = text.len;
    p->at = 0;
    p->text = buf_take(&text);
    p->back = xcalloc(p->len, sizeof *p->back);
    for (size_t i = 1, k = 0; i < p->len; i++) {
        while (k > 0 && p->text[i] != p->text[k])
            k = p->back[k - 1];
        if (p->text[i] == p->text[k])
            k++;
        p->back[i] = (uint32_t)k;
    }
}

void stream_init(struct stream *s, const char *const *stops, size_t n_stop) {
    memset(s, 0, sizeof *s);
    s->stops = xcalloc(n_stop, sizeof *s->stops);
    for (size_t i = 0; i < n_stop; i++)
        if (stops[i][0] != '\0')
            stop_init(&s->stops[s->n_stop++], stops[i]);
}

void stream_release(struct stream *s) {
    for (size_t i = 0; i < s->n_stop; i++) {
        free(s->stops[i].text);
        free(s->stops[i].back);
    }
    free(s->stops);
    buf_release(&s->held);
    memset(s, 0, sizeof *s);
}

/* One byte into every automaton. Returns the length of the longest stop string that is complete
 * now, or 0. */
static size_t stops_feed(struct stream *s, char c) {
    size_t hit = 0;
    for (size_t i = 0; i < s->n_stop; i++) {
        struct stream_stop *p = &s->stops[i];
        while (p->at > 0 && p->text[p->at] != c)
            p->at = p->back[p->at - 1];
        if (p->text[p->at] == c)
            p->at++;
        if (p->at == p->len && p->len > hit)
            hit = p->len;
        if (p->at == p->len) /* the automaton goes on only below its last state */
            p->at = p->back[p->len - 1];
    }
    return hit;
}

static size_t stops_held(const struct stream *s) {
    size_t most = 0;
    for (size_t i = 0; i < s->n_stop; i++)
        if (s->stops[i].at > most)
            most = s->stops[i].at;
    return most;
}

/* Valid text on its way out. */
static void stream_text(struct stream *s, const char *p, size_t len, struct buf *out) {
    if (s->n_stop == 0) {
        buf_add(out, p, len);
        return;
    }
    buf_add(&s->held, p, len);
    for (size_t i = 0; i < len; i++) {
        size_t hit = stops_feed(s, p[i]);
        if (hit > 0) {
            size_t end = s->held.len - len + i + 1 - hit;
            buf_add(out, s->held.p + s->out_len, end - s->out_len);
            buf_clear(&s->held);
            s->stopped = true;
            return;
        }
    }
    size_t end = s->held.len - stops_held(s);
    buf_add(out, s->held.p + s->out_len, end - s->out_len);
    s->out_len = end;
    if (s->out_len > s->held.len / 2) { /* moved rarely enough that it costs nothing a byte */
        memmove(s->held.p, s->held.p + s->out_len, s->held.len - s->out_len);
        buf_cut(&s->held, s->held.len - s->out_len);
        s->out_len = 0;
    }
}

bool stream_push(struct stream *s, const char *bytes, size_t len, struct buf *out) {
    if (s->stopped || len == 0)
        return s->stopped;
    struct buf in = {0}, text = {0};
    buf_add(&in, s->tail, s->tail_len);
    buf_add(&in, bytes, len);
    s->tail_len = utf8_incomplete_tail(in.p, in.len);
    memcpy(s->tail, in.p + in.len - s->tail_len, s->tail_len);
    utf8_scrub(&text, in.p, in.len - s->tail_len);
    if (text.len > 0)
        stream_text(s, text.p, text.len, out);
    buf_release(&text);
    buf_release(&in);
    return s->stopped;
}

bool stream_holds(const struct stream *s) {
    return !s->stopped && (s->tail_len > 0 || s->held.len > s->out_len);
}

void stream_flush(struct stream *s, struct buf *out) {
    if (s->stopped)
        return;
    if (s->tail_len > 0) {
        s->tail_len = 0;
        stream_text(s, "\xef\xbf\xbd", 3, out);
        if (s->stopped)
            return;
    }
    if (s->held.len > 0)
        buf_add(out, s->held.p + s->out_len, s->held.len - s->out_len);
    buf_clear(&s->held);
    s->out_len = 0;
    for (size_t i = 0; i < s->n_stop; i++)
        s->stops[i].at = 0;
}
