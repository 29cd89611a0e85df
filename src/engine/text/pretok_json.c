/*
 * pretok_json.c - the pre_tokenizer of a tokenizer.json as steps, see pretok.h.
 *
 * Each type is one to three steps. Classes of characters (blanks, digits, punctuation) are
 * regular expressions too, so there is one way of cutting. What is not known is refused by its
 * name.
 */
#include "engine/model/hf_json.h"
#include "engine/text/pretok_steps.h"
#include "engine/text/regex.h"
#include "engine/text/unicode_data.h"
#include <string.h>

enum { MAX_DEPTH = 8 };

#define GPT2                                                                                   \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

static enum status add_split(struct pretok *p, const char *pattern, size_t len,
                             enum regex_kind kind, enum pretok_behavior behavior, bool invert,
                             struct err *err) {
    struct pretok_step s = {.kind = PRETOK_SPLIT, .behavior = behavior, .invert = invert};
    CHECK(regex_open(pattern, len, kind, &s.regex, err));
    return pretok_add(p, &s, err);
}

static enum status split_on(struct pretok *p, const char *pattern,
                            enum pretok_behavior behavior, bool invert, struct err *err) {
    return add_split(p, pattern, strlen(pattern), REGEX_ONIG, behavior, invert, err);
}

static enum status add_plain(struct pretok *p, enum pretok_kind kind, struct err *err) {
    struct pretok_step s = {.kind = kind};
    return pretok_add(p, &s, err);
}

static enum status read_behavior(const struct hf_json *j, enum pretok_behavior *out,
                                 struct err *err) {
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *name = names[*out];
    CHECK(hf_str(j, "behavior", false, &name, err));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0) {
            *out = (enum pretok_behavior)i;
            return ST_OK;
        }
    return err_set(err, ST_UNSUPPORTED, "%s: behavior \"%.40s\" is not known", j->file, name);
}

static enum status byte_level(struct pretok *p, const struct hf_json *j, struct err *err) {
    bool prefix = true, use_regex = true;
    CHECK(hf_bool(j, "add_prefix_space", &prefix, err));
    CHECK(hf_bool(j, "use_regex", &use_regex, err));
    if (prefix)
        CHECK(add_plain(p, PRETOK_PREFIX_SPACE, err));
    if (use_regex)
        CHECK(split_on(p, GPT2, PRETOK_ISOLATED, false, err));
    return add_plain(p, PRETOK_SPELL, err);
}

static enum status split(struct pretok *p, const struct hf_json *j, struct err *err) {
    struct hf_json pattern;
    enum pretok_behavior behavior = PRETOK_ISOLATED;
    bool invert = false;
    CHECK(hf_child(j, "pattern", &pattern, err));
    CHECK(read_behavior(j, &behavior, err));
    CHECK(hf_bool(j, "invert", &invert, err));
    const json_t *re = pattern.root ? json_object_get(pattern.root, "Regex") : NULL,
                 *text = pattern.root ? json_object_get(pattern.root, "String") : NULL;
    if (!json_is_string(re) && !json_is_string(text))
        return err_set(err, ST_FORMAT, "%s: pattern is neither a String nor a Regex", j->file);
    const json_t *s = json_is_string(re) ? re : text;
    return add_split(p, json_string_value(s), json_string_length(s),
                     s == re ? REGEX_ONIG : REGEX_LITERAL, behavior, invert, err);
}

static enum status metaspace(struct pretok *p, const struct hf_json *j, struct err *err) {
    const char *mark = "\xe2\x96\x81", *scheme = NULL;
    bool prefix = true, cut = true;
    struct pretok_step s = {.kind = PRETOK_METASPACE};
    CHECK(hf_str(j, "replacement", false, &mark, err));
    CHECK(hf_str(j, "prepend_scheme", false, &scheme, err));
    CHECK(hf_bool(j, "add_prefix_space", &prefix, err)); /* of older files */
    CHECK(hf_bool(j, "split", &cut, err));
    if (!scheme)
        scheme = prefix ? "always" : "never";
    if (strcmp(scheme, "always") == 0)
        s.prepend = PRETOK_ALWAYS;
    else if (strcmp(scheme, "first") == 0)
        s.prepend = PRETOK_FIRST;
    else if (strcmp(scheme, "never") == 0)
        s.prepend = PRETOK_NEVER;
    else
        return err_set(err, ST_UNSUPPORTED,
                       "%s: prepend_scheme \"%.40s\", known are always, first and never",
                       j->file, scheme);
    if (!*mark || strlen(mark) >= sizeof s.mark)
        return err_set(err, ST_FORMAT, "%s: replacement is not one character", j->file);
    strcpy(s.mark, mark);
    CHECK(pretok_add(p, &s, err));
    return cut ? add_split(p, mark, strlen(mark), REGEX_LITERAL, PRETOK_MERGED_WITH_NEXT, false,
                           err)
               : ST_OK;
}

static enum status digits(struct pretok *p, const struct hf_json *j, struct err *err) {
    bool individual = false;
    CHECK(hf_bool(j, "individual_digits", &individual, err));
    /* of Unicode 17 */
    return split_on(p, "[\\p{N}\\x{11de0}-\\x{11de9}\\x{16ff4}-\\x{16ff6}]",
                    individual ? PRETOK_ISOLATED : PRETOK_CONTIGUOUS, false, err);
}

static enum status punctuation(struct pretok *p, const struct hf_json *j, struct err *err) {
    enum pretok_behavior behavior = PRETOK_ISOLATED;
    CHECK(read_behavior(j, &behavior, err));
    return split_on(p, unicode_punctuation(), behavior, false, err);
}

/* \w and \s of another engine, which takes joiners for parts of words, but no fractions. */
#define FRACTIONS "\\u00b2\\u00b3\\u00b9\\u00bc-\\u00be"

static enum status whitespace(struct pretok *p, const struct hf_json *j, struct err *err) {
    (void)j;
    return split_on(p,
                    "[\\w\\u200c\\u200d&&[^" FRACTIONS "]]+"
                    "|[[^\\w\\s\\u200c\\u200d]" FRACTIONS "]+",
                    PRETOK_REMOVED, true, err);
}

static enum status whitespace_split(struct pretok *p, const struct hf_json *j,
                                    struct err *err) {
    (void)j;
    return split_on(p, "\\s", PRETOK_REMOVED, false, err);
}

static enum status bert(struct pretok *p, const struct hf_json *j, struct err *err) {
    CHECK(whitespace_split(p, j, err));
    return split_on(p, unicode_punctuation(), PRETOK_ISOLATED, false, err);
}

static enum status delimiter(struct pretok *p, const struct hf_json *j, struct err *err) {
    const char *s;
    CHECK(hf_str(j, "delimiter", true, &s, err));
    return add_split(p, s, strlen(s), REGEX_LITERAL, PRETOK_REMOVED, false, err);
}

static const struct {
    const char *type;
    enum status (*add)(struct pretok *p, const struct hf_json *j, struct err *err);
} TYPES[] = {
    {"ByteLevel", byte_level},
    {"Split", split},
    {"Metaspace", metaspace},
    {"Digits", digits},
    {"Punctuation", punctuation},
    {"Whitespace", whitespace},
    {"WhitespaceSplit", whitespace_split},
    {"BertPreTokenizer", bert},
    {"CharDelimiterSplit", delimiter},
};

static enum status add_any(struct pretok *p, const json_t *json, int depth, struct err *err) {
    struct hf_json j = {"pre_tokenizer", (json_t *)json};
    const char *type;
    if (!json_is_object(json))
        return err_set(err, ST_FORMAT, "pre_tokenizer: is no object");
    CHECK(hf_str(&j, "type", true, &type, err));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(json, "pretokenizers");
        if (!json_is_array(list) || depth == MAX_DEPTH)
            return err_set(err, ST_FORMAT,
                           "pre_tokenizer: a Sequence without a list, or nested more than %d "
                           "deep",
                           (int)MAX_DEPTH);
        for (size_t i = 0; i < json_array_size(list); i++)
            CHECK(add_any(p, json_array_get(list, i), depth + 1, err));
        return ST_OK;
    }
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
        if (strcmp(TYPES[i].type, type) == 0)
            return TYPES[i].add(p, &j, err);
    struct buf known = {0};
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
        buf_addf(&known, ", %s", TYPES[i].type);
    err_set(err, ST_UNSUPPORTED,
            "pre_tokenizer: type \"%.40s\" is not supported; known are Sequence%s", type,
            buf_str(&known));
    buf_release(&known);
    return ST_UNSUPPORTED;
}

enum status pretok_from_json(const json_t *json, struct pretok **out, struct err *err) {
    struct pretok *p = pretok_new();
    enum status st = !json || json_is_null(json) ? ST_OK : add_any(p, json, 0, err);
    if (st != ST_OK) {
        if (err && strncmp(err->msg, "pre_tokenizer", 13) != 0)
            err_prefix(err, "pre_tokenizer");
        pretok_close(p);
        return st;
    }
    *out = p;
    return ST_OK;
}
