/*
 * hf_config.c - what the small files of a Hugging Face folder say about tokens: which begin,
 * end and fill, and which are found in the text itself.
 *
 * As transformers has it: added_tokens_decoder of tokenizer_config.json counts more than what
 * the tokenizer's own file says about an added token; the named tokens (bos_token …) are
 * special even where no list of added tokens has them; a name that is no token of the
 * vocabulary means nothing. Ends of generation are those of generation_config.json, or of
 * config.json where that has none; ids beyond the vocabulary are passed over, since no model
 * can give them.
 *
 * clean_up_tokenization_spaces is ignored on purpose: it takes blanks out of the text, of
 * program code too.
 */
#include "engine/model/hf_json.h"
#include "engine/text/hf_maker.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *key;
    size_t field;
} NAMED[] = {
    {"bos_token", offsetof(struct vocab_data, bos)},
    {"eos_token", offsetof(struct vocab_data, eos)},
    {"unk_token", offsetof(struct vocab_data, unk)},
    {"pad_token", offsetof(struct vocab_data, pad)},
    {"sep_token", offsetof(struct vocab_data, sep)},
    {"cls_token", offsetof(struct vocab_data, cls)},
    {"mask_token", offsetof(struct vocab_data, mask)},
};

/* A named token: a text, or an object with "content". */
static enum status read_special(struct hf_maker *m, const json_t *token, int32_t *id,
                                struct err *err) {
    const json_t *text = json_is_object(token) ? json_object_get(token, "content") : token;
    if (!json_is_string(text))
        return ST_OK;
    int32_t there = hf_find(m, json_string_value(text), json_string_length(text));
    if (there < 0)
        return ST_OK;
    *id = there;
    if (m->tok[there].added && m->tok[there].type == VOCAB_CONTROL)
        return ST_OK;
    if (m->tok[there].added) /* as its list has it, but special */
        m->tok[there].type = VOCAB_CONTROL;
    else if (json_is_object(token))
        return hf_add_json(m, there, token, true, err);
    else
        return hf_add(m, there, json_string_value(text), json_string_length(text), 0, true,
                      err);
    return ST_OK;
}

static enum status read_named(struct hf_maker *m, const struct hf_json *j, struct err *err) {
    for (size_t i = 0; i < sizeof NAMED / sizeof *NAMED; i++) {
        int32_t *id = (int32_t *)(void *)((char *)m->v + NAMED[i].field), found = -1;
        const json_t *token = hf_get(j, NAMED[i].key);
        if (!token || *id >= 0)
            continue;
        CHECK(read_special(m, token, &found, err));
        *id = found;
    }
    const json_t *more = hf_get(j, "additional_special_tokens|extra_special_tokens");
    for (size_t i = 0; i < json_array_size(more); i++) {
        int32_t unused;
        CHECK(read_special(m, json_array_get(more, i), &unused, err));
    }
    return ST_OK;
}

/* {"32000": {"content": …}} */
static enum status read_added_decoder(struct hf_maker *m, const json_t *map, struct err *err) {
    const char *key;
    json_t *token;
    json_object_foreach((json_t *)map, key, token) {
        char *end;
        errno = 0;
        long id = strtol(key, &end, 10);
        if (end == key || *end || errno || id < 0 || id >= HF_MAX_TOKENS)
            return err_set(err, ST_FORMAT, "%s: added_tokens_decoder: \"%.40s\" is no id",
                           m->file, key);
        CHECK(hf_add_json(m, id, token, false, err));
    }
    return ST_OK;
}

/* {"<pad>": 32000} of older folders; special ones are named elsewhere. */
static enum status read_added_tokens(struct hf_maker *m, struct err *err) {
    struct hf_json j;
    const char *key;
    json_t *id;
    enum status st = hf_json_load(m->dir, "added_tokens.json", false, HF_MAX_CONFIG, &j, err);
    const char *file = m->file;
    m->file = "added_tokens.json";
    if (st == ST_OK && j.root)
        json_object_foreach(j.root, key, id) {
            if (st == ST_OK && !json_is_integer(id))
                st = err_set(err, ST_FORMAT, "%s: \"%.40s\" has no id", m->file, key);
            int32_t there = hf_find(m, key, strlen(key));
            if (st == ST_OK && (there < 0 || !m->tok[there].added))
                st = hf_add(m, json_integer_value(id), key, strlen(key), VOCAB_NORMALIZED,
                            false, err);
        }
    m->file = file;
    hf_json_release(&j);
    return st;
}

static enum status read_flag(const struct hf_json *j, const char *key, int8_t *out,
                             struct err *err) {
    bool on = *out > 0;
    CHECK(hf_bool(j, key, &on, err));
    if (hf_get(j, key))
        *out = on;
    return ST_OK;
}

static enum status read_tokenizer_config(struct hf_maker *m, struct err *err) {
    struct hf_json j = {0}, map = {0};
    enum status st;
    const char *file = m->file;
    TRY(hf_json_load(m->dir, "tokenizer_config.json", false, HF_MAX_CONFIG, &j, err));
    m->file = j.file;
    TRY(read_added_decoder(m, hf_get(&j, "added_tokens_decoder"), err));
    m->file = file;
    TRY(read_added_tokens(m, err));
    m->file = j.file;
    TRY(read_named(m, &j, err));
    TRY(read_flag(&j, "add_bos_token", &m->v->add_bos, err));
    TRY(read_flag(&j, "add_eos_token", &m->v->add_eos, err));
    TRY(hf_json_load(m->dir, "special_tokens_map.json", false, HF_MAX_CONFIG, &map, err));
    m->file = map.file;
    TRY(read_named(m, &map, err));
out:
    m->file = file;
    hf_json_release(&j);
    hf_json_release(&map);
    return st;
}

void hf_read_eog(struct hf_maker *m, const json_t *ids, int32_t *first) {
    size_t n = json_is_array(ids) ? json_array_size(ids) : json_is_integer(ids);
    if (n == 0 || m->v->n_eog > 0)
        return;
    int32_t *eog = vocab_own(m->v, xcalloc(n, sizeof *eog));
    uint32_t k = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(ids) ? json_array_get(ids, i) : ids;
        json_int_t x = json_is_integer(id) ? json_integer_value(id) : -1;
        if (x >= 0 && x < m->n)
            eog[k++] = (int32_t)x;
    }
    m->v->eog = eog;
    m->v->n_eog = k;
    if (*first < 0 && k > 0)
        *first = eog[0];
}

static enum status read_ends(struct hf_maker *m, struct err *err) {
    static const char *const files[] = {"generation_config.json", "config.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct hf_json j;
        CHECK(hf_json_load(m->dir, files[i], false, HF_MAX_CONFIG, &j, err));
        const json_t *bos = j.root ? hf_get(&j, "bos_token_id") : NULL;
        if (j.root)
            hf_read_eog(m, hf_get(&j, "eos_token_id"), &m->v->eos);
        if (m->v->bos < 0 && json_is_integer(bos) && json_integer_value(bos) >= 0 &&
            json_integer_value(bos) < m->n)
            m->v->bos = (int32_t)json_integer_value(bos);
        hf_json_release(&j);
    }
    return ST_OK;
}

enum status hf_read_config(struct hf_maker *m, struct err *err) {
    CHECK(read_tokenizer_config(m, err));
    return read_ends(m, err);
}
