/*
 * hf_tokjson.c - tokenizer.json, the file of Hugging Face's tokenizers library.
 *
 * The vocabulary and the merges become ids; normalizer, pre_tokenizer and decoder stay the
 * JSON objects that they are (their readers check them when the tokenizer is built), but for
 * the precompiled charsmap, which becomes bytes; of the post_processor remains what it puts
 * around a text. Padding and truncation are not a chat program's business.
 */
#include "engine/model/hf_json.h"
#include "engine/text/hf_maker.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 8 };

/* ---- the model ---- */

static enum status read_bpe_vocab(struct hf_maker *m, const json_t *vocab, struct err *err) {
    const char *key;
    json_t *id;
    if (!json_is_object(vocab))
        return err_set(err, ST_FORMAT, "%s: model.vocab is no object", m->file);
    json_object_foreach((json_t *)vocab, key, id) {
        if (!json_is_integer(id))
            return err_set(err, ST_FORMAT, "%s: model.vocab: id of \"%.60s\" is no integer",
                           m->file, key);
        CHECK(hf_set(m, json_integer_value(id), key, strlen(key), VOCAB_NORMAL, 0, err));
    }
    return ST_OK;
}

/* "A B" or ["A", "B"]. */
static enum status read_merge(struct hf_maker *m, size_t i, const json_t *merge,
                              struct err *err) {
    if (json_is_string(merge)) {
        const char *s = json_string_value(merge);
        size_t len = json_string_length(merge);
        const char *blank = memchr(s, ' ', len);
        if (blank && !memchr(blank + 1, ' ', len - (size_t)(blank + 1 - s)))
            return hf_merge(m, "model.merges", i, s, (size_t)(blank - s), blank + 1,
                            len - (size_t)(blank + 1 - s), err);
    } else if (json_array_size(merge) == 2) {
        const json_t *a = json_array_get(merge, 0), *b = json_array_get(merge, 1);
        if (json_is_string(a) && json_is_string(b))
            return hf_merge(m, "model.merges", i, json_string_value(a), json_string_length(a),
                            json_string_value(b), json_string_length(b), err);
    }
    return err_set(err, ST_FORMAT, "%s: model.merges: entry %zu is no pair of tokens", m->file,
                   i);
}

static enum status refuse_text(const struct hf_json *j, const char *key, struct err *err) {
    const char *s = "";
    CHECK(hf_str(j, key, false, &s, err));
    return *s ? err_set(err, ST_UNSUPPORTED, "%s: model.%s \"%.40s\" is not supported", j->file,
                        key, s)
              : ST_OK;
}

static enum status read_bpe(struct hf_maker *m, const struct hf_json *j, json_t *options,
                            struct err *err) {
    float dropout = 0;
    const char *unk = NULL;
    const json_t *merges = json_object_get(j->root, "merges");
    CHECK(refuse_text(j, "continuing_subword_prefix", err));
    CHECK(refuse_text(j, "end_of_word_suffix", err));
    CHECK(hf_num(j, "dropout", false, &dropout, err));
    if (dropout != 0)
        return err_set(err, ST_UNSUPPORTED, "%s: model.dropout %g is not supported", m->file,
                       (double)dropout);
    CHECK(read_bpe_vocab(m, json_object_get(j->root, "vocab"), err));
    if (!json_is_array(merges))
        return err_set(err, ST_FORMAT, "%s: model.merges is no list", m->file);
    for (size_t i = 0; i < json_array_size(merges); i++)
        CHECK(read_merge(m, i, json_array_get(merges, i), err));
    CHECK(hf_str(j, "unk_token", false, &unk, err));
    int32_t id = unk ? hf_find(m, unk, strlen(unk)) : -1;
    if (id >= 0)
        json_object_set_new(options, "unk", json_integer(id));
    m->model = "bpe";
    return ST_OK;
}

static enum status read_unigram(struct hf_maker *m, const struct hf_json *j, json_t *options,
                                struct err *err) {
    const json_t *vocab = json_object_get(j->root, "vocab");
    int unk = -1;
    if (!json_is_array(vocab))
        return err_set(err, ST_FORMAT, "%s: model.vocab is no list", m->file);
    for (size_t i = 0; i < json_array_size(vocab); i++) {
        const json_t *e = json_array_get(vocab, i), *s = json_array_get(e, 0),
                     *score = json_array_get(e, 1);
        if (!json_is_string(s) || !json_is_number(score))
            return err_set(err, ST_FORMAT, "%s: model.vocab: entry %zu is no text and score",
                           m->file, i);
        CHECK(hf_set(m, (int64_t)i, json_string_value(s), json_string_length(s), VOCAB_NORMAL,
                     json_number_value(score), err));
    }
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

static enum status read_model(struct hf_maker *m, const struct hf_json *root, struct err *err) {
    struct hf_json j;
    const char *type = NULL;
    static const char *const flags[] = {"byte_fallback", "fuse_unk", "ignore_merges"};
    CHECK(hf_child(root, "model", &j, err));
    if (!j.root)
        return err_set(err, ST_FORMAT, "%s: has no model", m->file);
    j.file = m->file;
    CHECK(hf_str(&j, "type", false, &type, err));
    if (!type) /* files of the first versions */
        type = json_object_get(j.root, "merges") ? "BPE" : "Unigram";
    json_t *options = json_object();
    json_object_set_new(m->pipeline, "model", options);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool on = false;
        CHECK(hf_bool(&j, flags[i], &on, err));
        if (on)
            json_object_set_new(options, flags[i], json_true());
    }
    if (strcmp(type, "BPE") == 0)
        return read_bpe(m, &j, options, err);
    if (strcmp(type, "Unigram") == 0)
        return read_unigram(m, &j, options, err);
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
    if (!json_is_string(map))
        return ST_OK;
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

static enum status read_around(struct hf_maker *m, const json_t *post, struct err *err) {
    struct around a = {json_array(), json_array()};
    enum status st = json_is_object(post) ? read_post(m, post, 0, &a, err) : ST_OK;
    if (json_is_object(post)) {
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

static enum status read_added(struct hf_maker *m, const json_t *list, struct err *err) {
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
    struct hf_json j;
    enum status st;
    m->file = "tokenizer.json";
    TRY(hf_json_load(m->dir, m->file, true, HF_MAX_JSON, &j, err));
    TRY(read_model(m, &j, err));
    TRY(read_added(m, json_object_get(j.root, "added_tokens"), err));
    TRY(take_charsmap(m, json_object_get(j.root, "normalizer"), 0, err));
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        json_t *part = json_object_get(j.root, parts[i]);
        if (part && !json_is_null(part))
            json_object_set(m->pipeline, parts[i], part);
    }
    TRY(read_around(m, json_object_get(j.root, "post_processor"), err));
out:
    hf_json_release(&j);
    return st;
}
