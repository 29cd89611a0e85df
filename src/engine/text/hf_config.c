/*
 * hf_config.c - what the small files of a Hugging Face folder say about tokens: which begin,
 * end and fill, and which are found in the text itself.
 *
 * As transformers has it: added_tokens_decoder of tokenizer_config.json counts more than what
 * the tokenizer's own file says about an added token, and a folder that has it needs no other
 * file; of older folders special_tokens_map.json counts more than tokenizer_config.json. The
 * named tokens (bos_token …) are special even where no list of added tokens has them; a name
 * that is no token of the vocabulary means nothing, and null that there is none. Ends of
 * generation are those of generation_config.json, or of config.json where that has none; ids
 * beyond the vocabulary are passed over, since no model can give them.
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

/* Lists of tokens that are special without a meaning of their own. */
static const char *const MORE[] = {"additional_special_tokens", "extra_special_tokens"};

struct configs {
    struct hf_json config, map; /* tokenizer_config.json, special_tokens_map.json */
    struct hf_json decoder;     /* added_tokens_decoder of the first; root NULL: it has none */
};

/* What a named token is called: a text, or an object with "content"; NULL: it has no name. */
static enum status token_text(const struct hf_json *j, const char *key, const json_t *token,
                              const json_t **text, struct err *err) {
    *text = json_is_object(token) ? json_object_get(token, "content") : token;
    if (json_is_string(*text))
        return ST_OK;
    if (!json_is_null(*text) || json_is_object(token))
        return err_set(err, ST_FORMAT, "%s: %s is neither a text nor a token with \"content\"",
                       j->file, key);
    *text = NULL;
    return ST_OK;
}

/* Makes a named token special; *id stays as it is where the vocabulary has none of its text. */
static enum status read_special(struct hf_maker *m, const struct hf_json *j, const char *key,
                                const json_t *token, int32_t *id, struct err *err) {
    const json_t *text;
    CHECK(token_text(j, key, token, &text, err));
    if (!text)
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

/* The further special tokens: lists, or an object of names and tokens. */
static enum status read_more(struct hf_maker *m, const struct hf_json *j, struct err *err) {
    for (size_t i = 0; i < sizeof MORE / sizeof *MORE; i++) {
        json_t *more = hf_get(j, MORE[i]), *token;
        const char *name;
        size_t k;
        int32_t unused;
        if (more && !json_is_array(more) && !json_is_object(more))
            return err_set(err, ST_FORMAT, "%s: %s is no list of tokens", j->file, MORE[i]);
        json_array_foreach(more, k, token)
            CHECK(read_special(m, j, MORE[i], token, &unused, err));
        json_object_foreach(more, name, token)
            CHECK(read_special(m, j, MORE[i], token, &unused, err));
    }
    return ST_OK;
}

/* What j names goes before what was named so far; null: there is no such token. */
static enum status read_named(struct hf_maker *m, const struct hf_json *j, struct err *err) {
    for (size_t i = 0; i < sizeof NAMED / sizeof *NAMED; i++) {
        int32_t *id = (int32_t *)(void *)((char *)m->v + NAMED[i].field);
        const json_t *token = json_object_get(j->root, NAMED[i].key);
        if (json_is_null(token))
            *id = -1;
        else if (token)
            CHECK(read_special(m, j, NAMED[i].key, token, id, err));
    }
    return read_more(m, j, err);
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

static bool is_text(const json_t *token, const char *text) {
    const json_t *s = json_is_object(token) ? json_object_get(token, "content") : token;
    return json_is_string(s) && strcmp(json_string_value(s), text) == 0;
}

/* Does j name a special token of this text? */
static bool names(const struct hf_json *j, const char *text) {
    bool found = false;
    for (size_t i = 0; i < sizeof NAMED / sizeof *NAMED; i++)
        found = found || is_text(hf_get(j, NAMED[i].key), text);
    for (size_t i = 0; i < sizeof MORE / sizeof *MORE; i++) {
        json_t *more = hf_get(j, MORE[i]), *token;
        size_t k;
        json_array_foreach(more, k, token) found = found || is_text(token, text);
    }
    return found;
}

/* {"<pad>": 32000} of older folders; whether one is special is said elsewhere. */
static enum status read_added_tokens(struct hf_maker *m, const struct configs *c,
                                     struct err *err) {
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
            bool special = names(&c->config, key) || names(&c->map, key);
            if (st == ST_OK && (there < 0 || !m->tok[there].added))
                st = hf_add(m, json_integer_value(id), key, strlen(key),
                            special ? 0 : VOCAB_NORMALIZED, special, err);
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

/* Two generations of folders: where tokenizer_config.json has an added_tokens_decoder, that is
 * all; else added_tokens.json adds tokens, and special_tokens_map.json names them, and what it
 * names goes before. */
static enum status read_tokens(struct hf_maker *m, const struct configs *c, struct err *err) {
    m->file = c->config.file;
    if (c->decoder.root)
        CHECK(read_added_decoder(m, c->decoder.root, err));
    else
        CHECK(read_added_tokens(m, c, err));
    CHECK(read_named(m, &c->config, err));
    CHECK(read_flag(&c->config, "add_bos_token", &m->v->add_bos, err));
    CHECK(read_flag(&c->config, "add_eos_token", &m->v->add_eos, err));
    m->file = c->map.file;
    return c->decoder.root ? ST_OK : read_named(m, &c->map, err);
}

/* A tokenizer_config.json for a class that has no tokens of its own says which there are. */
static enum status names_all(const struct hf_json *config, bool *all, struct err *err) {
    const char *name = "";
    CHECK(hf_str(config, "tokenizer_class", false, &name, err));
    *all =
        strcmp(name, "PreTrainedTokenizerFast") == 0 || strcmp(name, "TokenizersBackend") == 0;
    return ST_OK;
}

/* Whether bos and eos, if not named, may be those of the model's configuration. */
struct open_names {
    bool bos, eos;
};

static enum status read_tokenizer_config(struct hf_maker *m, struct open_names *open,
                                         struct err *err) {
    struct configs c = {0};
    bool all = false;
    enum status st;
    const char *file = m->file;
    TRY(hf_json_load(m->dir, "tokenizer_config.json", false, HF_MAX_CONFIG, &c.config, err));
    TRY(hf_json_load(m->dir, "special_tokens_map.json", false, HF_MAX_CONFIG, &c.map, err));
    TRY(hf_child(&c.config, "added_tokens_decoder", &c.decoder, err));
    TRY(names_all(&c.config, &all, err));
    TRY(read_tokens(m, &c, err));
    open->bos = !all && !json_is_null(json_object_get(c.config.root, "bos_token"));
    open->eos = !all && !json_is_null(json_object_get(c.config.root, "eos_token"));
out:
    m->file = file;
    hf_json_release(&c.config);
    hf_json_release(&c.map);
    return st;
}

static bool is_token(const struct hf_maker *m, const json_t *id) {
    return json_is_integer(id) && json_integer_value(id) >= 0 && json_integer_value(id) < m->n;
}

/* The tokens that end a generation: an id, or a list of them. */
static enum status read_eog(struct hf_maker *m, const struct hf_json *j, struct err *err) {
    const json_t *ids = hf_get(j, "eos_token_id");
    size_t n = json_is_array(ids) ? json_array_size(ids) : ids != NULL;
    if (n == 0 || m->v->n_eog > 0)
        return ST_OK;
    int32_t *eog = vocab_own(m->v, xcalloc(n, sizeof *eog));
    m->v->eog = eog;
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(ids) ? json_array_get(ids, i) : ids;
        if (!json_is_integer(id))
            return err_set(err, ST_FORMAT,
                           "%s: eos_token_id is neither an id nor a list of ids", j->file);
        if (is_token(m, id))
            eog[m->v->n_eog++] = (int32_t)json_integer_value(id);
    }
    return ST_OK;
}

static enum status read_ends(struct hf_maker *m, struct open_names open, struct err *err) {
    static const char *const files[] = {"generation_config.json", "config.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct hf_json j;
        CHECK(hf_json_load(m->dir, files[i], false, HF_MAX_CONFIG, &j, err));
        const json_t *bos = hf_get(&j, "bos_token_id");
        enum status st = read_eog(m, &j, err);
        if (open.bos && m->v->bos < 0 && is_token(m, bos))
            m->v->bos = (int32_t)json_integer_value(bos);
        hf_json_release(&j);
        CHECK(st);
    }
    if (open.eos && m->v->eos < 0 && m->v->n_eog > 0)
        m->v->eos = m->v->eog[0];
    return ST_OK;
}

enum status hf_read_config(struct hf_maker *m, struct err *err) {
    struct open_names open;
    CHECK(read_tokenizer_config(m, &open, err));
    return read_ends(m, open, err);
}
