/*
 * encode_pipeline.c - text to words, as Hugging Face's tokenizers library goes about it; see
 * tokenizer.h.
 *
 * Added tokens that are looked for in the text itself cut it into segments. Each segment is
 * normalized by itself, added tokens that are looked for in normalized text cut it again, and
 * what is left goes through the pre-tokenizer to the model.
 *
 * Of added tokens the leftmost and then longest counts; one that has to be a whole word and is
 * none is passed over, with all of its text; so is a control token that does not count. (Where
 * only a part of the text is a person's, the longest that counts is taken instead, or a person
 * could hide a template's token by what comes behind it.) Blanks in front and behind go with a
 * token that asks for them, but not those that the token before took.
 */
#include "base/utf8.h"
#include "engine/text/tokenizer.h"
#include "engine/text/unicode_data.h"
#include <stdlib.h>

struct pipeline_run {
    const struct text_model *t;
    struct pretok_run *pretok;
    struct regex_run *regex;
    struct norm_text text, tmp;
    /* of the call */
    bool special;
    struct tok_list *out;
    pretok_word_fn word;
    void *user;
};

struct pipeline_run *pipeline_run_new(const struct text_model *t) {
    struct pipeline_run *r = xcalloc(1, sizeof *r);
    r->t = t;
    r->pretok = pretok_run_new(t->pretok);
    r->regex = regex_run_new();
    if (!r->pretok || !r->regex) {
        pipeline_run_free(r);
        return NULL;
    }
    return r;
}

void pipeline_run_free(struct pipeline_run *r) {
    if (!r)
        return;
    pretok_run_free(r->pretok);
    regex_run_free(r->regex);
    norm_text_release(&r->text);
    norm_text_release(&r->tmp);
    free(r);
}

static bool is_space(uint32_t cp) {
    return (cp >= 9 && cp <= 13) || cp == ' ' || cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 || cp == 0x202f ||
           cp == 0x205f || cp == 0x3000;
}

static size_t char_before(const char *s, size_t at, uint32_t *cp) {
    size_t i = at;
    while (i > 0 && ((unsigned char)s[--i] & 0xc0) == 0x80)
        ;
    utf8_decode(s + i, at - i, cp);
    return i;
}

static bool alone(const char *s, size_t len, size_t at, size_t end) {
    uint32_t cp;
    if (at > 0) {
        char_before(s, at, &cp);
        if (unicode_word(cp))
            return false;
    }
    if (end < len) {
        utf8_decode(s + end, len - end, &cp);
        if (unicode_word(cp))
            return false;
    }
    return true;
}

static size_t spaces_before(const char *s, size_t at, size_t floor) {
    uint32_t cp;
    while (at > floor) {
        size_t i = char_before(s, at, &cp);
        if (!is_space(cp))
            break;
        at = i;
    }
    return at < floor ? floor : at;
}

static size_t spaces_behind(const char *s, size_t len, size_t end) {
    uint32_t cp;
    while (end < len) {
        size_t n = utf8_decode(s + end, len - end, &cp);
        if (!is_space(cp))
            break;
        end += n;
    }
    return end;
}

typedef enum status (*segment_fn)(struct pipeline_run *r, const char *s, size_t len, bool first,
                                  const uint8_t *plain, struct err *err);

/* Cuts s at the tokens of `a`; `first`: s begins where the whole text does. */
static enum status cut(struct pipeline_run *r, const struct added *a, const char *s, size_t len,
                       bool first, const uint8_t *plain, segment_fn segment, struct err *err) {
    size_t done = 0;
    bool special = r->special || r->t->hidden_cover;
    for (size_t i = 0; i < len && a->n > 0;) {
        int32_t id;
        size_t n = added_match(a, s, len, i, special, plain, &id), at = i, end = i + n;
        if (n == 0) {
            i++;
            continue;
        }
        i = end;
        if (!r->special && (r->t->flags[id] & TOKEN_CONTROL))
            continue;
        uint8_t how = r->t->how[id];
        if ((how & VOCAB_SINGLE_WORD) && !alone(s, len, at, end))
            continue;
        if (how & VOCAB_LSTRIP)
            at = at > done ? spaces_before(s, at, done) : done;
        if (how & VOCAB_RSTRIP)
            end = spaces_behind(s, len, end);
        if (at > done)
            CHECK(segment(r, s + done, at - done, first && done == 0,
                          plain ? plain + done : NULL, err));
        if (at < end) /* not what the token before took as its blanks */
            tok_list_add(r->out, id);
        done = end;
    }
    if (done < len)
        CHECK(segment(r, s + done, len - done, first && done == 0, plain ? plain + done : NULL,
                      err));
    return ST_OK;
}

static enum status normal_segment(struct pipeline_run *r, const char *s, size_t len, bool first,
                                  const uint8_t *plain, struct err *err) {
    (void)plain;
    return pretok_split(r->pretok, s, len, first, r->word, r->user, err);
}

static enum status raw_segment(struct pipeline_run *r, const char *s, size_t len, bool first,
                               const uint8_t *plain, struct err *err) {
    const struct text_model *t = r->t;
    bool marks = plain && t->added_norm.n > 0;
    if (!normalizer_empty(t->norm)) {
        buf_clear(&r->text.text);
        buf_clear(&r->text.marks);
        buf_add(&r->text.text, s, len);
        r->text.has_marks = marks;
        r->text.moved = false;
        r->text.first = first;
        if (marks)
            buf_add(&r->text.marks, plain, len);
        CHECK(normalizer_run(t->norm, r->regex, &r->text, &r->tmp, err));
        s = buf_str(&r->text.text);
        len = r->text.text.len;
        plain = marks ? (const uint8_t *)r->text.marks.p : NULL;
        first = first && !r->text.moved;
    }
    return cut(r, &t->added_norm, s, len, first, plain, normal_segment, err);
}

enum status pipeline_encode(struct pipeline_run *r, const char *s, size_t len, bool special,
                            const uint8_t *plain, struct tok_list *out, pretok_word_fn word,
                            void *user, struct err *err) {
    r->special = special;
    r->out = out;
    r->word = word;
    r->user = user;
    return cut(r, &r->t->added, s, len, true, plain, raw_segment, err);
}
