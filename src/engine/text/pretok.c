/*
 * pretok.c - see pretok.h.
 *
 * Steps are nested calls: a step hands each of its pieces to the next one, and the last one to
 * the caller, so no list of pieces is ever made. A step that changes a piece writes it into a
 * buffer of its own, which is free again when the steps behind it are done with the piece.
 *
 * A cutting step sees a piece as units in turn: a match, what lies between two matches, a match
 * … The behaviours differ in which neighbours they join; one held unit is enough for all of
 * them. An empty match is a unit too: it gives no word, but it cuts.
 */
#include "engine/text/pretok.h"
#include "base/mem.h"
#include "engine/text/alphabet.h"
#include "engine/text/pretok_steps.h"
#include <stdlib.h>
#include <string.h>

struct pretok {
    struct pretok_step step[PRETOK_MAX_STEPS]; /* [n] */
    size_t n;
    bool keep_bytes; /* the last step is left out */
};

struct pretok_run {
    const struct pretok *p;
    size_t n; /* steps that are taken */
    struct regex_run *regex;
    struct buf changed[PRETOK_MAX_STEPS]; /* [n] the piece as a step has changed it */
    pretok_word_fn word;
    void *user;
};

struct pretok *pretok_new(void) {
    return xcalloc(1, sizeof(struct pretok));
}

enum status pretok_add(struct pretok *p, const struct pretok_step *takes_step,
                       struct err *err) {
    if (p->n == PRETOK_MAX_STEPS) {
        regex_close(takes_step->regex);
        return err_set(err, ST_LIMIT, "more than %d steps", (int)PRETOK_MAX_STEPS);
    }
    p->step[p->n++] = *takes_step;
    return ST_OK;
}

enum status pretok_open(const char *const *stages, struct pretok **out, struct err *err) {
    struct pretok *p = pretok_new();
    enum status st = ST_OK;
    for (size_t i = 0; i < PRETOK_MAX_STAGES && stages[i] && st == ST_OK; i++) {
        struct pretok_step s = {.kind = PRETOK_SPLIT};
        st = regex_open(stages[i], strlen(stages[i]), REGEX_RULE, &s.regex, err);
        if (st == ST_OK)
            st = pretok_add(p, &s, err);
    }
    if (st != ST_OK) {
        pretok_close(p);
        return st;
    }
    *out = p;
    return ST_OK;
}

void pretok_close(struct pretok *p) {
    if (!p)
        return;
    for (size_t i = 0; i < p->n; i++)
        regex_close(p->step[i].regex);
    free(p);
}

bool pretok_spells_last(const struct pretok *p) {
    for (size_t i = 0; i + 1 < p->n; i++)
        if (p->step[i].kind == PRETOK_SPELL)
            return false;
    return p->n > 0 && p->step[p->n - 1].kind == PRETOK_SPELL;
}

void pretok_keep_bytes(struct pretok *p) {
    p->keep_bytes = true;
}

struct pretok_run *pretok_run_new(const struct pretok *p) {
    struct pretok_run *r = xcalloc(1, sizeof *r);
    r->p = p;
    r->n = p->n - p->keep_bytes;
    r->regex = regex_run_new();
    if (!r->regex) {
        pretok_run_free(r);
        return NULL;
    }
    return r;
}

void pretok_run_free(struct pretok_run *r) {
    if (!r)
        return;
    regex_run_free(r->regex);
    for (size_t i = 0; i < r->n; i++)
        buf_release(&r->changed[i]);
    free(r);
}

static enum status run_step(struct pretok_run *r, size_t i, const char *s, size_t len,
                            bool first, struct err *err);

/* ---- cutting ---- */

struct cut {
    struct pretok_run *r;
    size_t step;
    const char *s;
    bool first;
    size_t at, end;      /* the held unit, or units that were joined */
    bool held, is_match; /* is_match: the last of them */
};

static enum status cut_emit(struct cut *c, size_t at, size_t end, struct err *err) {
    if (end == at)
        return ST_OK;
    return run_step(c->r, c->step + 1, c->s + at, end - at, c->first && at == 0, err);
}

/* Does this unit belong to the held one? */
static bool cut_joins(const struct cut *c, enum pretok_behavior b, bool is_match) {
    switch (b) {
    case PRETOK_MERGED_WITH_PREVIOUS:
        return is_match && !c->is_match;
    case PRETOK_MERGED_WITH_NEXT:
        return !is_match && c->is_match;
    case PRETOK_CONTIGUOUS:
        return is_match == c->is_match;
    default:
        return false;
    }
}

static enum status cut_unit(struct cut *c, enum pretok_behavior b, size_t at, size_t end,
                            bool is_match, struct err *err) {
    if (b == PRETOK_ISOLATED || b == PRETOK_REMOVED)
        return is_match && b == PRETOK_REMOVED ? ST_OK : cut_emit(c, at, end, err);
    if (c->held && cut_joins(c, b, is_match)) {
        c->end = end;
    } else {
        size_t from = c->at, to = c->held ? c->end : c->at;
        c->held = true;
        c->at = at;
        c->end = end;
        CHECK(cut_emit(c, from, to, err));
    }
    c->is_match = is_match;
    return ST_OK;
}

/* Where the search goes on behind an empty match. */
static size_t next_char(const char *s, size_t len, size_t i) {
    for (i++; i < len && ((unsigned char)s[i] & 0xc0) == 0x80;)
        i++;
    return i;
}

static enum status cut_piece(struct pretok_run *r, size_t step, const char *s, size_t len,
                             bool first, struct err *err) {
    const struct pretok_step *p = &r->p->step[step];
    struct cut c = {.r = r, .step = step, .s = s, .first = first};
    size_t done = 0, from = 0;
    bool matched = false; /* a match ended at done */
    while (from < len) {  /* an empty match at the end cuts nothing */
        size_t at, end;
        bool found;
        CHECK(regex_find(p->regex, r->regex, s, len, from, &at, &end, &found, err));
        if (!found)
            break;
        if (at == end && matched && end == done) {
            from = next_char(s, len, from);
            continue;
        }
        if (at > done)
            CHECK(cut_unit(&c, p->behavior, done, at, p->invert, err));
        CHECK(cut_unit(&c, p->behavior, at, end, !p->invert, err));
        done = end;
        from = at == end ? next_char(s, len, end) : end; /* it would be found again */
        matched = true;
    }
    if (done < len)
        CHECK(cut_unit(&c, p->behavior, done, len, p->invert, err));
    return c.held ? cut_emit(&c, c.at, c.end, err) : ST_OK;
}

/* ---- changing ---- */

static bool starts_with(const char *s, size_t len, const char *with) {
    size_t n = strlen(with);
    return len >= n && memcmp(s, with, n) == 0;
}

static enum status change_piece(struct pretok_run *r, size_t step, const char *s, size_t len,
                                bool first, struct err *err) {
    const struct pretok_step *p = &r->p->step[step];
    struct buf *out = &r->changed[step];
    buf_clear(out);
    if (p->kind == PRETOK_SPELL) {
        alphabet_encode(s, len, out);
    } else if (p->kind == PRETOK_PREFIX_SPACE) {
        if (s[0] == ' ')
            return run_step(r, step + 1, s, len, first, err);
        buf_addc(out, ' ');
        buf_add(out, s, len);
    } else {
        bool marked = s[0] == ' ' || starts_with(s, len, p->mark);
        if (!marked && (p->prepend == PRETOK_ALWAYS || (p->prepend == PRETOK_FIRST && first)))
            buf_adds(out, p->mark);
        for (const char *end = s + len; s < end;) {
            const char *blank = memchr(s, ' ', (size_t)(end - s));
            buf_add(out, s, (size_t)((blank ? blank : end) - s));
            if (blank)
                buf_adds(out, p->mark);
            s = blank ? blank + 1 : end;
        }
    }
    return run_step(r, step + 1, out->p, out->len, first, err);
}

static enum status run_step(struct pretok_run *r, size_t i, const char *s, size_t len,
                            bool first, struct err *err) {
    if (i == r->n)
        return r->word(r->user, s, len, err);
    if (r->p->step[i].kind == PRETOK_SPLIT)
        return cut_piece(r, i, s, len, first, err);
    return change_piece(r, i, s, len, first, err);
}

enum status pretok_split(struct pretok_run *r, const char *text, size_t len, bool first,
                         pretok_word_fn word, void *user, struct err *err) {
    r->word = word;
    r->user = user;
    return len > 0 ? run_step(r, 0, text, len, first, err) : ST_OK;
}
