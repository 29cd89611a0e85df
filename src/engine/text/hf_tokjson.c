/*
 * hf_tokjson.c - tokenizer.json, the file of Hugging Face's tokenizers library.
 *
 * The vocabulary and the merges become ids; normalizer, pre_tokenizer and decoder stay the
 * JSON objects that they are (their readers check them when the tokenizer is built), but for
 * the precompiled charsmap, which becomes bytes; of the post_processor remains what it puts
 * around a text. Padding and truncation are not a chat program's business.
 */
#include "base/path.h"
#include "engine/model/hf_json.h"
#include "engine/text/hf_maker.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 8 };

/* ---- the model ---- */

/* The large values of "model", which are no part of the tree: p is NULL where one is missing.
 */
struct large {
    struct hf_scan vocab, merges; /* from p to end */
};

/* Finds a member of the object that s is on, NAME "vocab" or "merges", or both in "model". */
static enum status find_large(struct hf_scan *s, bool in_model, struct large *out,
                              struct err *err) {
    struct buf key = {0};
    enum status st;
    TRY(hf_scan_want(s, '{', err));
    if (hf_scan_take(s, '}'))
        goto out;
    do {
        struct hf_scan *to = NULL;
        TRY(hf_scan_string(s, &key, err));
        TRY(hf_scan_want(s, ':', err));
        if (in_model && key.len == 5 && memcmp(key.p, "vocab", 5) == 0)
            to = &out->vocab;
        else if (in_model && key.len == 6 && memcmp(key.p, "merges", 6) == 0)
            to = &out->merges;
        bool model = !in_model && key.len == 5 && memcmp(key.p, "model", 5) == 0;
        if (model && hf_scan_take(s, '{')) {
            s->p--;
            TRY(find_large(s, true, out, err));
            continue;
        }
        if (to && to->p)
            TRY(hf_scan_fail(s, "this key only once", err));
        struct hf_scan from = *s;
        TRY(hf_scan_skip(s, err));
        if (to) {
            *to = from;
            to->file = to == &out->vocab ? "tokenizer.json: model.vocab"
                                         : "tokenizer.json: model.merges";
            to->end = s->p;
        }
    } while (hf_scan_take(s, ','));
    TRY(hf_scan_want(s, '}', err));
out:
    buf_release(&key);
    return st;
}

/* The rest as a tree: the large values become null. */
static enum status load(struct hf_maker *m, const struct buf *text, struct large *large,
                        struct hf_json *out, struct err *err) {
    struct hf_scan s = {m->file, text->p, text->p + text->len, text->p};
    const struct hf_scan *spans[2] = {&large->vocab, &large->merges};
    struct buf small = {0};
    const char *from = text->p;
    CHECK(find_large(&s, false, large, err));
    if (spans[0]->p && spans[1]->p && spans[1]->p < spans[0]->p) {
        spans[0] = &large->merges;
        spans[1] = &large->vocab;
    }
    for (size_t i = 0; i < 2; i++) {
        if (!spans[i]->p)
            continue;
        buf_add(&small, from, (size_t)(spans[i]->p - from));
        buf_adds(&small, "null");
        from = spans[i]->end;
    }
    buf_add(&small, from, (size_t)(text->p + text->len - from));
    enum status st = hf_json_parse(small.p, small.len, m->file, out, err);
    buf_release(&small);
    return st;
}

enum status hf_read_ids(struct hf_maker *m, struct hf_scan s, struct err *err) {
    struct buf key = {0};
    int64_t id;
    enum status st;
    TRY(hf_scan_want(&s, '{', err));
    if (hf_scan_take(&s, '}'))
        goto out;
    do {
        TRY(hf_scan_string(&s, &key, err));
        TRY(hf_scan_want(&s, ':', err));
        TRY(hf_scan_int(&s, &id, err));
        TRY(hf_set(m, id, buf_str(&key), key.len, VOCAB_NORMAL, 0, err));
    } while (hf_scan_take(&s, ','));
    TRY(hf_scan_want(&s, '}', err));
out:
    buf_release(&key);
    return st;
}

/* "A B" or ["A", "B"]. */
static enum status read_merge(struct hf_maker *m, struct hf_scan *s, size_t i, struct buf *a,
                              struct buf *b, struct err *err) {
    if (hf_scan_take(s, '[')) {
        CHECK(hf_scan_string(s, a, err));
        CHECK(hf_scan_want(s, ',', err));
        CHECK(hf_scan_string(s, b, err));
        CHECK(hf_scan_want(s, ']', err));
        return hf_merge(m, "model.merges", i, buf_str(a), a->len, buf_str(b), b->len, err);
    }
    CHECK(hf_scan_string(s, a, err));
    const char *text = buf_str(a), *blank = memchr(text, ' ', a->len);
    size_t la = blank ? (size_t)(blank - text) : 0, lb = blank ? a->len - la - 1 : 0;
    if (!blank || memchr(blank + 1, ' ', lb))
        return err_set(err, ST_FORMAT,
                       "%s: model.merges: entry %zu is \"%.60s\", wanted two tokens with a "
                       "blank between",
                       m->file, i, text);
    return hf_merge(m, "model.merges", i, text, la, blank + 1, lb, err);
}

static enum status read_merges(struct hf_maker *m, struct hf_scan s, struct err *err) {
    struct buf a = {0}, b = {0};
    enum status st;
    size_t i = 0;
    TRY(hf_scan_want(&s, '[', err));
    if (hf_scan_take(&s, ']'))
        goto out;
    do {
        TRY(read_merge(m, &s, i++, &a, &b, err));
    } while (hf_scan_take(&s, ','));
    TRY(hf_scan_want(&s, ']', err));
out:
    buf_release(&a);
    buf_release(&b);
    return st;
}

/* [["text", score], …] */
static enum status read_scores(struct hf_maker *m, struct hf_scan s, struct err *err) {
    struct buf text = {0};
    enum status st;
    double score;
    int64_t id = 0;
    TRY(hf_scan_want(&s, '[', err));
    if (hf_scan_take(&s, ']'))
        goto out;
    do {
        TRY(hf_scan_want(&s, '[', err));
        TRY(hf_scan_string(&s, &text, err));
        TRY(hf_scan_want(&s, ',', err));
        TRY(hf_scan_number(&s, &score, err));
        TRY(hf_scan_want(&s, ']', err));
        TRY(hf_set(m, id++, buf_str(&text), text.len, VOCAB_NORMAL, score, err));
    } while (hf_scan_take(&s, ','));
    TRY(hf_scan_want(&s, ']', err));
out:
    buf_release(&text);
    return st;
}

static enum status refuse_text(const struct hf_json *j, const char *key, struct err *err) {
    const char *s = "";
    CHECK(hf_str(j, key, false, &s, err));
    return *s ? err_set(err, ST_UNSUPPORTED, "%s: model.%s \"%.40s\" is not supported", j->file,
                        key, s)
              : ST_OK;
}

static enum status read_bpe(struct hf_maker *m, const struct hf_json *j,
                            const struct large *large, json_t *options, struct err *err) {
    float dropout = 0;
    const char *unk = NULL;
    CHECK(refuse_text(j, "continuing_subword_prefix", err));
    CHECK(refuse_text(j, "end_of_word_suffix", err));
    CHECK(hf_num(j, "dropout", false, &dropout, err));
    if (dropout != 0)
        return err_set(err, ST_UNSUPPORTED, "%s: model.dropout %g is not supported", m->file,
                       (double)dropout);
    if (!large->vocab.p || !large->merges.p)
        return err_set(err, ST_FORMAT, "%s: model has no %s", m->file,
                       large->vocab.p ? "merges" : "vocab");
    CHECK(hf_read_ids(m, large->vocab, err));
    CHECK(read_merges(m, large->merges, err));
    CHECK(hf_str(j, "unk_token", false, &unk, err));
    int32_t id = unk ? hf_find(m, unk, strlen(unk)) : -1;
    if (id >= 0)
        json_object_set_new(options, "unk", json_integer(id));
    m->model = "bpe";
    return ST_OK;
}

static enum status read_unigram(struct hf_maker *m, const struct hf_json *j,
                                const struct large *large, json_t *options, struct err *err) {
    int unk = -1;
    if (!large->vocab.p)
        return err_set(err, ST_FORMAT, "%s: model has no vocab", m->file);
    CHECK(read_scores(m, large->vocab, err));
    CHECK(hf_int(j, "unk_id", false, 0, HF_MAX_TOKENS, &unk, err));
    if (unk >= (int)m->n)
        return err_set(err, ST_FORMAT, "%s: model.unk_id is %d, there are %u tokens", m->file,
                       unk, m->n);
    if (unk >= 0)
        json_object_set_new(options, "unk", json_integer(unk));
    json_object_set_new(options, "fuse_unk", json_true());
    m->model = "unigram";
    m->scores = true;
    return ST_OK;
}

static enum status read_model(struct hf_maker *m, const struct hf_json *root,
                              const struct large *large, struct err *err) {
    struct hf_json j;
    const char *type = NULL;
    static const char *const flags[] = {"byte_fallback", "fuse_unk", "ignore_merges"};
    CHECK(hf_child(root, "model", &j, err));
    if (!j.root)
        return err_set(err, ST_FORMAT, "%s: has no model", m->file);
    j.file = m->file;
    CHECK(hf_str(&j, "type", false, &type, err));
    if (!type) /* files of the first versions */
        type = large->merges.p ? "BPE" : "Unigram";
    json_t *options = json_object();
    json_object_set_new(m->pipeline, "model", options);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool on = false;
        CHECK(hf_bool(&j, flags[i], &on, err));
        if (on)
            json_object_set_new(options, flags[i], json_true());
    }
    if (strcmp(type, "BPE") == 0)
        return read_bpe(m, &j, large, options, err);
    if (strcmp(type, "Unigram") == 0)
        return read_unigram(m, &j, large, options, err);
    return err_set(err, ST_UNSUPPORTED,
                   "%s: model \"%.40s\" is not supported; known are BPE and Unigram", m->file,
                   type);
}

/* ---- the charsmap ---- */

static enum status from_base64(struct hf_maker *m, const char *s, size_t len, struct buf *out,
                               struct err *err) {
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits = 0;
    int n = 0;
    while (len > 0 && s[len - 1] == '=')
        len--;
    for (size_t i = 0; i < len; i++) {
        const char *d = s[i] ? strchr(digits, s[i]) : NULL;
        if (!d)
            return err_set(err, ST_FORMAT,
                           "%s: normalizer: precompiled_charsmap is no base64 at byte %zu",
                           m->file, i);
        bits = bits << 6 | (uint32_t)(d - digits);
        n += 6;
        if (n >= 8) {
            n -= 8;
            buf_addc(out, (char)(bits >> n & 0xff));
        }
    }
    return ST_OK;
}

/* Takes the charsmap out of a Precompiled normalizer, wherever it stands. */
static enum status take_charsmap(struct hf_maker *m, json_t *norm, int depth, struct err *err) {
    const json_t *map = json_object_get(norm, "precompiled_charsmap");
    json_t *list = json_object_get(norm, "normalizers");
    for (size_t i = 0; i < json_array_size(list) && depth < MAX_DEPTH; i++)
        CHECK(take_charsmap(m, json_array_get(list, i), depth + 1, err));
    if (!map || json_is_null(map))
        return ST_OK;
    if (!json_is_string(map))
        return err_set(err, ST_FORMAT, "%s: normalizer: precompiled_charsmap is no text",
                       m->file);
    struct buf bytes = {0};
    enum status st =
        from_base64(m, json_string_value(map), json_string_length(map), &bytes, err);
    if (st == ST_OK && m->v->n_charsmap > 0 &&
        (m->v->n_charsmap != bytes.len || memcmp(m->v->charsmap, bytes.p, bytes.len) != 0))
        st = err_set(err, ST_UNSUPPORTED, "%s: normalizer: two different charsmaps", m->file);
    if (st == ST_OK && m->v->n_charsmap == 0 && bytes.len > 0) {
        m->v->n_charsmap = bytes.len;
        m->v->charsmap = vocab_own(m->v, buf_take(&bytes));
    }
    buf_release(&bytes);
    json_object_del(norm, "precompiled_charsmap");
    return st;
}

/* ---- the post-processor ---- */

struct around {
    json_t *prefix, *suffix;
};

static enum status no_list(const struct hf_maker *m, const char *key, struct err *err) {
    return err_set(err, ST_FORMAT, "%s: post_processor: %s is no list", m->file, key);
}

static enum status template_part(struct hf_maker *m, const json_t *post, const json_t *part,
                                 json_t *to, struct err *err) {
    const char *name =
        json_string_value(json_object_get(json_object_get(part, "SpecialToken"), "id"));
    const json_t *ids = json_object_get(
        json_object_get(json_object_get(post, "special_tokens"), name ? name : ""), "ids");
    if (!name || !json_is_array(ids))
        return err_set(err, ST_FORMAT,
                       "%s: post_processor: a part is neither the text nor a token that "
                       "special_tokens has",
                       m->file);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= m->n)
            return err_set(err, ST_FORMAT, "%s: post_processor: token \"%.60s\" has no id",
                           m->file, name);
        json_array_append(to, (json_t *)id);
    }
    return ST_OK;
}

static enum status read_template(struct hf_maker *m, const json_t *post, struct around *a,
                                 struct err *err) {
    const json_t *single = json_object_get(post, "single");
    bool behind = false;
    if (!json_is_array(single))
        return no_list(m, "single", err);
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *part = json_array_get(single, i);
        if (json_object_get(part, "Sequence"))
            behind = true;
        else
            CHECK(template_part(m, post, part, behind ? a->suffix : a->prefix, err));
    }
    return behind ? ST_OK
                  : err_set(err, ST_FORMAT, "%s: post_processor: the text has no place in it",
                            m->file);
}

/* "cls" and "sep": a text and an id each. */
static enum status read_cls_sep(struct hf_maker *m, const json_t *post, struct around *a,
                                struct err *err) {
    const json_t *cls = json_array_get(json_object_get(post, "cls"), 1),
                 *sep = json_array_get(json_object_get(post, "sep"), 1);
    const json_t *ids[] = {cls, sep};
    for (size_t i = 0; i < 2; i++) {
        if (!json_is_integer(ids[i]) || json_integer_value(ids[i]) < 0 ||
            json_integer_value(ids[i]) >= m->n)
            return err_set(err, ST_FORMAT, "%s: post_processor: no id for %s", m->file,
                           i ? "sep" : "cls");
        json_array_append(i ? a->suffix : a->prefix, (json_t *)ids[i]);
    }
    return ST_OK;
}

/* Later processors put theirs around what the earlier ones made. */
static enum status read_post(struct hf_maker *m, const json_t *post, int depth,
                             struct around *a, struct err *err) {
    const char *type = json_string_value(json_object_get(post, "type"));
    struct around own = {json_array(), json_array()};
    enum status st = ST_OK;
    if (type && strcmp(type, "TemplateProcessing") == 0) {
        st = read_template(m, post, &own, err);
    } else if (type && (strcmp(type, "RobertaProcessing") == 0 ||
                        strcmp(type, "BertProcessing") == 0)) {
        st = read_cls_sep(m, post, &own, err);
    } else if (type && strcmp(type, "Sequence") == 0 && depth < MAX_DEPTH) {
        const json_t *list = json_object_get(post, "processors");
        if (!json_is_array(list))
            st = no_list(m, "processors", err);
        for (size_t i = 0; i < json_array_size(list) && st == ST_OK; i++)
            st = read_post(m, json_array_get(list, i), depth + 1, &own, err);
    } else if (!type || strcmp(type, "ByteLevel") != 0) {
        st = err_set(err, ST_UNSUPPORTED,
                     "%s: post_processor \"%.40s\" is not supported; known are "
                     "TemplateProcessing, ByteLevel, BertProcessing, RobertaProcessing and "
                     "Sequence",
                     m->file, type ? type : "");
    }
    json_array_extend(own.prefix, a->prefix);
    json_array_extend(a->suffix, own.suffix);
    json_decref(a->prefix);
    json_decref(own.suffix);
    a->prefix = own.prefix;
    return st;
}

static enum status read_around(struct hf_maker *m, const struct hf_json *root,
                               struct err *err) {
    struct hf_json post;
    CHECK(hf_child(root, "post_processor", &post, err));
    struct around a = {json_array(), json_array()};
    enum status st = post.root ? read_post(m, post.root, 0, &a, err) : ST_OK;
    if (post.root) {
        m->v->add_bos = json_array_size(a.prefix) > 0;
        m->v->add_eos = json_array_size(a.suffix) > 0;
    }
    if (json_array_size(a.prefix) > 0)
        json_object_set(m->pipeline, "prefix", a.prefix);
    if (json_array_size(a.suffix) > 0)
        json_object_set(m->pipeline, "suffix", a.suffix);
    json_decref(a.prefix);
    json_decref(a.suffix);
    return st;
}

static enum status read_added(struct hf_maker *m, const struct hf_json *root, struct err *err) {
    const json_t *list;
    CHECK(hf_list(root, "added_tokens", &list, err));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *token = json_array_get(list, i), *id = json_object_get(token, "id");
        if (!json_is_integer(id))
            return err_set(err, ST_FORMAT, "%s: added_tokens: entry %zu has no id", m->file, i);
        CHECK(hf_add_json(m, json_integer_value(id), token, false, err));
    }
    return ST_OK;
}

enum status hf_read_tokenizer_json(struct hf_maker *m, struct err *err) {
    static const char *const parts[] = {"normalizer", "pre_tokenizer", "decoder"};
    char *path = path_join(m->dir, "tokenizer.json");
    struct hf_json j = {0};
    struct large large = {0};
    struct buf text = {0};
    enum status st;
    m->file = "tokenizer.json";
    TRY(file_read(path, HF_MAX_JSON, &text, err));
    buf_adds(&text, "");
    TRY(load(m, &text, &large, &j, err));
    TRY(read_model(m, &j, &large, err));
    TRY(read_added(m, &j, err));
    TRY(take_charsmap(m, json_object_get(j.root, "normalizer"), 0, err));
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        json_t *part = json_object_get(j.root, parts[i]);
        if (part && !json_is_null(part))
            json_object_set(m->pipeline, parts[i], part);
    }
    TRY(read_around(m, &j, err));
out:
    hf_json_release(&j);
    buf_release(&text);
    free(path);
    return st;
}
