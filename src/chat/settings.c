/*
 * settings.c - the table of settings, and values to and from text and JSON.
 *
 * The numbers live in struct settings at the offset that the table names: a double, an int, or
 * (seed) an int64_t. One reader checks every value, whether it comes from the command line, the
 * configuration, a menu or the database.
 *
 * Whole numbers are parsed as such and not through a double: a seed has 63 bits. A JSON object
 * may hold a part of the settings only; names it does not know are left to a newer program.
 */
#include "chat/settings.h"

#include "base/log.h"
#include "base/utf8.h"
#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STOP = 16, MAX_STOP_BYTES = 256 };

#define SAMPLING(field) offsetof(struct settings, sampling.field)

const struct setting_def setting_defs[] = {
    {"temperature", SETTING_REAL, SAMPLING(temperature), false, 0, 5, 0.7, 0.1,
     "0 = always the likeliest",
     "How freely the next word is chosen: low values stay with what is likely, high ones "
     "surprise."},
    {"top_k", SETTING_INT, SAMPLING(top_k), false, 0, 1000, 40, 5, "0 = off",
     "Only this many of the likeliest tokens are considered at each step."},
    {"top_p", SETTING_REAL, SAMPLING(top_p), false, 0, 1, 0.95, 0.05, "1 = off",
     "Only the likeliest tokens that together reach this probability are considered."},
    {"min_p", SETTING_REAL, SAMPLING(min_p), false, 0, 1, 0.05, 0.01, "0 = off",
     "Tokens less likely than this share of the likeliest one are left out."},
    {"typical_p", SETTING_REAL, SAMPLING(typical_p), false, 0, 1, 1, 0.05, "1 = off",
     "Keeps the tokens that are about as surprising as the text usually is, up to this "
     "probability."},
    {"repeat_penalty", SETTING_REAL, SAMPLING(repeat_penalty), false, 0.1, 5, 1, 0.05,
     "1 = off",
     "Above 1, tokens that were used lately become less likely, which breaks loops."},
    {"repeat_last_n", SETTING_INT, SAMPLING(repeat_last_n), false, -1, 1000000, 64, 16,
     "0 = off, -1 = all", "How many of the last tokens the penalties look at."},
    {"presence_penalty", SETTING_REAL, SAMPLING(presence_penalty), false, -2, 2, 0, 0.1,
     "0 = off",
     "Above 0, every token that was used already becomes less likely by the same amount."},
    {"frequency_penalty", SETTING_REAL, SAMPLING(frequency_penalty), false, -2, 2, 0, 0.1,
     "0 = off", "Above 0, a token becomes less likely with every time it was used."},
    {"seed", SETTING_INT, SAMPLING(seed), true, -1, 9223372036854775807.0, -1, 1,
     "-1 = a new one each time",
     "The same seed with the same settings and model gives the same answer again."},
    {"max_tokens", SETTING_INT, offsetof(struct settings, max_tokens), false, -1, 10000000,
     2048, 64, "-1 or 0 = no limit",
     "The longest answer in tokens; a token is about three quarters of a word."},
    {"stop", SETTING_LIST, offsetof(struct settings, stop), false, 0, 0, 0, 0, "empty = off",
     "Texts at which the answer ends; they are not part of it."},
    {"speculation", SETTING_WORD, offsetof(struct settings, speculation), false, 0, 3,
     SPECULATION_AUTO, 1, "off|auto|lookup|draft",
     "Guesses several tokens at once where that is faster, from text that repeats (lookup) or "
     "by a draft model; the answer stays the same."},
    {"ctx", SETTING_INT, offsetof(struct settings, ctx), false, 0, 10000000, 0, 1024,
     "0 = the model's, at most 8192",
     "How many tokens of the conversation the model can see; more need more memory, and a "
     "change takes effect when the model is loaded again."},
};
const size_t n_setting_defs = sizeof setting_defs / sizeof *setting_defs;

const struct preset presets[] = {
    {"creative", "Lively and varied, for stories and ideas.", 1.1, 0.98, 0.03, 100},
    {"balanced", "The defaults, for conversation.", 0.7, 0.95, 0.05, 40},
    {"precise", "Sober and repeatable, for facts, code and translation.", 0.2, 0.9, 0.1, 20},
};
const size_t n_presets = sizeof presets / sizeof *presets;

void settings_init(struct settings *s) {
    *s = (struct settings){
        .sampling = SAMPLING_DEFAULTS, .max_tokens = 2048, .speculation = SPECULATION_AUTO};
}

void settings_release(struct settings *s) {
    strlist_release(&s->stop);
}

void settings_copy(struct settings *dst, const struct settings *src) {
    if (dst == src)
        return;
    strlist_copy(&dst->stop, &src->stop);
    dst->sampling = src->sampling;
    dst->max_tokens = src->max_tokens;
    dst->ctx = src->ctx;
    dst->speculation = src->speculation;
    dst->given = src->given;
}

const struct setting_def *setting_find(const char *name) {
    for (size_t i = 0; i < n_setting_defs; i++) {
        const char *a = setting_defs[i].name, *b = name;
        while (*a && (*a == *b || (*a == '_' && *b == '-')))
            a++, b++;
        if (!*a && !*b)
            return &setting_defs[i];
    }
    return NULL;
}

/* -- numbers -- */

static void *field(const struct settings *s, const struct setting_def *d) {
    return (char *)s + d->offset;
}

static void put_int(struct settings *s, const struct setting_def *d, int64_t v) {
    if (d->is_int64)
        *(int64_t *)field(s, d) = v;
    else
        *(int *)field(s, d) = (int)v;
}

static int64_t get_int(const struct settings *s, const struct setting_def *d) {
    return d->is_int64 ? *(const int64_t *)field(s, d) : *(const int *)field(s, d);
}

double setting_number(const struct settings *s, const struct setting_def *d) {
    assert(d->type != SETTING_LIST);
    return d->type == SETTING_REAL ? *(const double *)field(s, d) : (double)get_int(s, d);
}

static enum status refuse(const struct setting_def *d, const char *value, struct err *err) {
    const char *kind = d->type == SETTING_INT ? "a whole number" : "a number";
    if (d->is_int64)
        return err_set(err, ST_USAGE, "%s: %s given, %s from %g on wanted", d->name, value,
                       kind, d->min);
    return err_set(err, ST_USAGE, "%s: %s given, %s from %g to %.10g wanted", d->name, value,
                   kind, d->min, d->max);
}

/* What the table's range allows, as whole numbers. */
static bool int_in_range(const struct setting_def *d, int64_t v) {
    return v >= (int64_t)d->min && (d->is_int64 || v <= (int64_t)d->max);
}

static enum status set_int(struct settings *s, const struct setting_def *d, const char *value,
                           struct err *err) {
    char *end;
    errno = 0;
    long long v = strtoll(value, &end, 10);
    if (end == value || *end || errno || !int_in_range(d, v))
        return refuse(d, value, err);
    put_int(s, d, v);
    return ST_OK;
}

const char *setting_word(const struct setting_def *d, int i) {
    static _Thread_local char word[32];
    const char *w = d->off;
    for (; i > 0 && *w; i--) {
        w += strcspn(w, "|");
        w += *w == '|';
    }
    snprintf(word, sizeof word, "%.*s", (int)strcspn(w, "|"), w);
    return word;
}

static enum status set_word(struct settings *s, const struct setting_def *d, const char *value,
                            struct err *err) {
    for (int i = 0; i <= (int)d->max; i++)
        if (strcmp(value, setting_word(d, i)) == 0) {
            put_int(s, d, i);
            return ST_OK;
        }
    return err_set(err, ST_USAGE, "%s: %s given, one of %s wanted", d->name, value, d->off);
}

/* A decimal number and nothing else: strtod would also take "0x1p3", "inf" and "nan". */
static bool parse_real(const char *value, double *out) {
    char *end;
    if (!*value || value[strspn(value, "0123456789+-.eE")])
        return false;
    *out = strtod(value, &end);
    return end != value && !*end && isfinite(*out);
}

static enum status set_real(struct settings *s, const struct setting_def *d, const char *value,
                            struct err *err) {
    double v;
    if (!parse_real(value, &v) || v < d->min || v > d->max)
        return refuse(d, value, err);
    *(double *)field(s, d) = v;
    return ST_OK;
}

static enum status add_stop(struct settings *s, const struct setting_def *d, const char *value,
                            struct err *err) {
    struct strlist *l = field(s, d);
    if (!*value) {
        strlist_release(l);
        return ST_OK;
    }
    if (strlen(value) > MAX_STOP_BYTES)
        return err_set(err, ST_USAGE, "%s: a text of %zu bytes given, at most %d wanted",
                       d->name, strlen(value), MAX_STOP_BYTES);
    if (!utf8_valid(value, strlen(value)))
        return err_set(err, ST_USAGE, "%s: \"%s\" is not valid UTF-8", d->name, value);
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->v[i], value) == 0)
            return ST_OK;
    if (l->n == MAX_STOP)
        return err_set(err, ST_USAGE, "%s: more than %d texts given", d->name, MAX_STOP);
    strlist_add(l, value);
    return ST_OK;
}

static uint32_t given_bit(const struct setting_def *d) {
    return 1u << (d - setting_defs);
}

enum status setting_set(struct settings *s, const struct setting_def *d, const char *value,
                        struct err *err) {
    CHECK(d->type == SETTING_LIST   ? add_stop(s, d, value, err)
          : d->type == SETTING_INT  ? set_int(s, d, value, err)
          : d->type == SETTING_WORD ? set_word(s, d, value, err)
                                    : set_real(s, d, value, err));
    s->given |= given_bit(d);
    return ST_OK;
}

void setting_copy(struct settings *dst, const struct settings *src,
                  const struct setting_def *d) {
    if (d->type == SETTING_LIST)
        strlist_copy(field(dst, d), field(src, d));
    else if (d->type == SETTING_REAL)
        *(double *)field(dst, d) = setting_number(src, d);
    else
        put_int(dst, d, get_int(src, d));
    dst->given = (dst->given & ~given_bit(d)) | (src->given & given_bit(d));
}

void setting_show(const struct settings *s, const struct setting_def *d, struct buf *out) {
    if (d->type == SETTING_REAL) {
        buf_addf(out, "%.6g", setting_number(s, d));
    } else if (d->type == SETTING_WORD) {
        buf_adds(out, setting_word(d, (int)get_int(s, d)));
    } else if (d->type == SETTING_INT) {
        buf_addf(out, "%lld", (long long)get_int(s, d));
    } else {
        const struct strlist *l = field(s, d);
        for (size_t i = 0; i < l->n; i++)
            buf_addf(out, "%s\"%s\"", i ? " " : "", l->v[i]);
    }
}

void settings_apply_preset(struct settings *s, const struct preset *p) {
    s->sampling.temperature = p->temperature;
    s->sampling.top_p = p->top_p;
    s->sampling.min_p = p->min_p;
    s->sampling.top_k = p->top_k;
    static const char *const names[] = {"temperature", "top_p", "min_p", "top_k"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        s->given |= given_bit(setting_find(names[i]));
}

/* -- JSON -- */

static json_t *list_json(const struct strlist *l) {
    json_t *a = json_array();
    for (size_t i = 0; i < l->n; i++)
        json_array_append_new(a, json_string(l->v[i]));
    return a;
}

char *settings_to_json(const struct settings *s) {
    json_t *o = json_object();
    for (size_t i = 0; i < n_setting_defs; i++) {
        const struct setting_def *d = &setting_defs[i];
        json_t *v = d->type == SETTING_LIST   ? list_json(field(s, d))
                    : d->type == SETTING_REAL ? json_real(setting_number(s, d))
                    : d->type == SETTING_WORD ? json_string(setting_word(d, (int)get_int(s, d)))
                                              : json_integer(get_int(s, d));
        json_object_set_new(o, d->name, v);
    }
    char *text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(10));
    json_decref(o);
    assert(text);
    return text;
}

static enum status list_from_json(struct settings *s, const struct setting_def *d,
                                  const json_t *v, struct err *err) {
    CHECK(setting_set(s, d, "", err));
    if (json_is_string(v))
        return add_stop(s, d, json_string_value(v), err);
    if (!json_is_array(v))
        return err_set(err, ST_USAGE, "%s: a text or a list of texts wanted", d->name);
    for (size_t i = 0; i < json_array_size(v); i++) {
        const char *text = json_string_value(json_array_get(v, i));
        if (!text)
            return err_set(err, ST_USAGE, "%s: item %zu is no text", d->name, i + 1);
        if (*text)
            CHECK(add_stop(s, d, text, err));
    }
    return ST_OK;
}

static enum status value_from_json(struct settings *s, const struct setting_def *d,
                                   const json_t *v, struct err *err) {
    char text[64];
    if (d->type == SETTING_LIST)
        return list_from_json(s, d, v, err);
    if (d->type == SETTING_WORD)
        return json_is_string(v) ? setting_set(s, d, json_string_value(v), err)
                                 : err_set(err, ST_USAGE, "%s: a word wanted", d->name);
    if (json_is_integer(v))
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v) && d->type == SETTING_INT &&
             json_real_value(v) == rint(json_real_value(v)) && fabs(json_real_value(v)) < 1e15)
        snprintf(text, sizeof text, "%.0f", json_real_value(v)); /* 40.0 */
    else if (json_is_real(v))
        snprintf(text, sizeof text, "%.17g", json_real_value(v));
    else
        return err_set(err, ST_USAGE, "%s: a number wanted", d->name);
    return setting_set(s, d, text, err);
}

enum status settings_from_json(struct settings *s, const char *json, struct err *err) {
    if (!*json)
        return ST_OK;
    json_error_t at;
    struct settings copy;
    enum status st = ST_OK;
    json_t *o = json_loads(json, JSON_REJECT_DUPLICATES, &at);
    settings_init(&copy);
    settings_copy(&copy, s);
    if (!json_is_object(o)) {
        st = err_set(err, ST_FORMAT, "settings: not a JSON object%s%s", o ? "" : ": ",
                     o ? "" : at.text);
        goto out;
    }
    for (size_t i = 0; i < n_setting_defs; i++) {
        const json_t *v = json_object_get(o, setting_defs[i].name);
        if (v)
            TRY(value_from_json(&copy, &setting_defs[i], v, err));
    }
    settings_copy(s, &copy);
out:
    settings_release(&copy);
    json_decref(o);
    return st;
}

void settings_suggest(struct settings *s, const char *model_json) {
    struct settings base;
    struct err err;
    settings_init(&base);
    if (settings_from_json(&base, model_json, &err) != ST_OK)
        log_warn("what the model suggests: %s", err.msg);
    for (size_t i = 0; i < n_setting_defs; i++)
        if (!(s->given & given_bit(&setting_defs[i]))) {
            setting_copy(s, &base, &setting_defs[i]);
            s->given &= ~given_bit(&setting_defs[i]);
        }
    settings_release(&base);
}
