/*
 * pipeline.c - a text model from a vocabulary that comes with a pipeline, see vocab.h.
 *
 * Which model it becomes: merges over bytes, where the pre-tokenizer's last step spells bytes
 * and the vocabulary has all of them, so that spelling and unspelling can be left out (GPT-2,
 * Llama 3, Qwen); else merges over characters, which is the library's own way; scores.
 *
 * As everywhere, control tokens are in no table that ordinary text is looked up in: merges that
 * touch one are dropped. The library would let a text become one through its merges.
 */
#include "engine/model/hf_json.h"
#include "engine/text/alphabet.h"
#include "engine/text/tokenizer.h"
#include <stdlib.h>

enum { MAX_PIPELINE = 8 << 20, MAX_AROUND = 16 };

struct maker {
    struct text_model *t;
    const struct vocab_data *v;
    json_t *root;
    struct hf_json model;
    struct regex_run *run;
    bool sentencepiece;
};

static enum status read_ids(const struct maker *m, const char *key, int32_t **out, size_t *n,
                            struct err *err) {
    const json_t *list = json_object_get(m->root, key);
    size_t len = json_array_size(list);
    if (len > MAX_AROUND)
        return err_set(err, ST_FORMAT, "tokenizer.pipeline: %s has %zu tokens", key, len);
    if (len == 0)
        return ST_OK;
    *out = xcalloc(len, sizeof **out);
    *n = len;
    for (size_t i = 0; i < len; i++) {
        json_int_t id = json_integer_value(json_array_get(list, i));
        if (id < 0 || id >= m->t->n_tok)
            return err_set(err, ST_FORMAT, "tokenizer.pipeline: %s names token %lld", key,
                           (long long)id);
        (*out)[i] = (int32_t)id;
    }
    return ST_OK;
}

static enum status read_options(struct maker *m, struct err *err) {
    struct text_model *t = m->t;
    int unk = -1;
    t->fuse_unk = false;
    CHECK(hf_bool(&m->model, "byte_fallback", &t->byte_fallback, err));
    CHECK(hf_bool(&m->model, "fuse_unk", &t->fuse_unk, err));
    CHECK(hf_bool(&m->model, "ignore_merges", &t->whole_words, err));
    CHECK(hf_bool(&m->model, "sentencepiece", &m->sentencepiece, err));
    CHECK(hf_int(&m->model, "unk", false, 0, (int)t->n_tok - 1, &unk, err));
    t->unk = unk;
    CHECK(read_ids(m, "prefix", &t->prefix, &t->n_prefix, err));
    return read_ids(m, "suffix", &t->suffix, &t->n_suffix, err);
}

static enum status read_parts(struct maker *m, struct err *err) {
    struct text_model *t = m->t;
    CHECK(normalizer_from_json(json_object_get(m->root, "normalizer"), m->v->charsmap,
                               m->v->n_charsmap, &t->norm, err));
    CHECK(pretok_from_json(json_object_get(m->root, "pre_tokenizer"), &t->pretok, err));
    CHECK(decoder_from_json(json_object_get(m->root, "decoder"), &t->dec, err));
    struct hf_json root = {"tokenizer.pipeline", m->root};
    CHECK(hf_child(&root, "model", &m->model, err));
    return read_options(m, err);
}

/* A token that is found in the text itself, as it is or as the normalizer makes it. */
static enum status add_found(struct maker *m, uint32_t id, struct norm_text tmp[2],
                             struct err *err) {
    struct text_model *t = m->t;
    size_t len;
    const char *s = vocab_string(&m->v->tokens, id, &len);
    struct added *to = &t->added;
    if (m->v->added[id] & VOCAB_NORMALIZED) {
        buf_clear(&tmp[0].text);
        buf_add(&tmp[0].text, s, len);
        if (!m->sentencepiece)
            CHECK(normalizer_run(t->norm, m->run, &tmp[0], &tmp[1], err));
        s = buf_str(&tmp[0].text);
        len = tmp[0].text.len;
        to = &t->added_norm;
    }
    if (len > ADDED_MAX_LEN)
        return err_set(err, ST_FORMAT, "added token %u has %zu bytes, at most %d are allowed",
                       id, len, (int)ADDED_MAX_LEN);
    if (len > 0)
        added_add(to, s, len, (int32_t)id, t->flags[id] & TOKEN_CONTROL);
    return ST_OK;
}

static enum status build_found(struct maker *m, struct err *err) {
    struct norm_text tmp[2] = {0};
    struct text_model *t = m->t;
    enum status st = ST_OK;
    if (m->v->added) {
        t->how = xmalloc(t->n_tok);
        memcpy(t->how, m->v->added, t->n_tok);
    }
    for (uint32_t i = 0; i < t->n_tok && m->v->added && st == ST_OK; i++)
        if (t->how[i] & VOCAB_ADDED)
            st = add_found(m, i, tmp, err);
    added_finish(&t->added);
    added_finish(&t->added_norm);
    if (t->added_norm.n > 0)
        t->norm_at = xcalloc(t->n_tok, sizeof *t->norm_at);
    for (size_t i = 0; i < t->added_norm.n; i++)
        t->norm_at[t->added_norm.v[i].id] = (uint32_t)i + 1;
    for (uint32_t i = 0; i < t->n_tok && m->sentencepiece && m->v->types; i++) {
        size_t len;
        const char *s = vocab_string(&m->v->tokens, i, &len);
        if (m->v->types[i] == VOCAB_USER_DEFINED && len > 0 && len <= ADDED_MAX_LEN)
            added_add(&t->keep, s, len, (int32_t)i, false);
    }
    added_finish(&t->keep);
    normalizer_keep(t->norm, &t->keep);
    norm_text_release(&tmp[0]);
    norm_text_release(&tmp[1]);
    return st;
}

static bool is_unused(const struct vocab_data *v, uint32_t id) {
    return v->types && v->types[id] == VOCAB_UNUSED;
}

/* May words become it? Added tokens that the model does not have are only ever found. */
static bool is_piece(const struct text_model *t, const struct vocab_data *v, uint32_t id) {
    return !(t->flags[id] & TOKEN_CONTROL) && !is_unused(v, id) &&
           !(t->how && (t->how[id] & VOCAB_BEYOND));
}

const char *pipeline_text(const struct text_model *t, uint32_t id, size_t *len) {
    if (!t->norm_at || t->norm_at[id] == 0)
        return NULL;
    const struct added_tok *a = &t->added_norm.v[t->norm_at[id] - 1];
    *len = a->len;
    return t->added_norm.bytes.p + a->off;
}

/* What each token decodes to, anywhere but at the beginning. */
static enum status build_bytes(struct maker *m, struct err *err) {
    struct text_model *t = m->t;
    struct buf bytes = {0};
    enum status st = ST_OK;
    buf_reserve(&bytes, m->v->tokens.off[t->n_tok] + 1u);
    for (uint32_t i = 0; i < t->n_tok && st == ST_OK; i++) {
        size_t len;
        bool is_byte = false;
        const char *s = t->how && (t->how[i] & VOCAB_ADDED) ? pipeline_text(t, i, &len) : NULL;
        t->off[i] = (uint32_t)bytes.len;
        if (!s)
            s = vocab_string(&m->v->tokens, i, &len);
        if (!is_unused(m->v, i))
            st = decoder_token(t->dec, m->run, s, len, false, &bytes, &is_byte, err);
        if (is_byte)
            t->flags[i] |= TOKEN_BYTE;
        if (bytes.len > INT32_MAX)
            st = err_set(err, ST_LIMIT, "decoder: tokens decode to more than %d bytes",
                         INT32_MAX);
    }
    t->off[t->n_tok] = (uint32_t)bytes.len;
    t->bytes = buf_take(&bytes);
    return st;
}

static void copy_texts(struct text_model *t, const struct vocab_data *v) {
    size_t total = v->tokens.off[t->n_tok];
    t->sp_bytes = xmalloc(total + 1);
    memcpy(t->sp_bytes, v->tokens.bytes, total);
    t->sp_off = xreallocarray(NULL, t->n_tok + 1u, sizeof *t->sp_off);
    memcpy(t->sp_off, v->tokens.off, (t->n_tok + 1u) * sizeof *t->sp_off);
}

/* The map of all that ordinary text may become, over the texts as they are in the file. */
static void build_map(struct text_model *t, const struct vocab_data *v) {
    uint8_t *piece = xcalloc(t->n_tok + 1u, 1);
    tokmap_init(&t->map, t->n_tok, t->sp_bytes, t->sp_off);
    for (uint32_t i = 0; i < t->n_tok; i++)
        piece[i] = is_piece(t, v, i) && t->sp_off[i + 1] > t->sp_off[i];
    tokmap_add(&t->map, piece, t->n_tok);
    free(piece);
}

/* The texts as bytes, for merging bytes; false, and nothing, when one of the 256 is missing
 * and something else than leaving it out is wanted then. */
static bool build_byte_map(struct maker *m) {
    struct text_model *t = m->t;
    struct buf bytes = {0};
    uint32_t *off = xreallocarray(NULL, t->n_tok + 1u, sizeof *off);
    uint8_t *spelt = xcalloc(t->n_tok, 1);
    int n_bytes = 0;
    memset(t->byte_id, 0xff, sizeof t->byte_id);
    buf_reserve(&bytes, m->v->tokens.off[t->n_tok] + 1u);
    for (uint32_t i = 0; i < t->n_tok; i++) {
        size_t len;
        const char *s = vocab_string(&m->v->tokens, i, &len);
        off[i] = (uint32_t)bytes.len;
        spelt[i] = len > 0 && is_piece(t, m->v, i) && alphabet_decode(s, len, &bytes);
        unsigned char c = (unsigned char)bytes.p[off[i]];
        if (spelt[i] && bytes.len - off[i] == 1 && t->byte_id[c] < 0) {
            t->byte_id[c] = (int32_t)i;
            n_bytes++;
        }
    }
    off[t->n_tok] = (uint32_t)bytes.len;
    bool ok = n_bytes > 0 && (n_bytes == 256 || (t->unk < 0 && !t->byte_fallback));
    if (ok) {
        t->sp_bytes = buf_take(&bytes);
        t->sp_off = off;
        tokmap_init(&t->map, t->n_tok, t->sp_bytes, t->sp_off);
        tokmap_add(&t->map, spelt, t->n_tok);
    } else {
        buf_release(&bytes);
        free(off);
    }
    free(spelt);
    return ok;
}

/* Merges without those that touch a control token; points to v's own when there are none. */
static struct vocab_data harmless_merges(const struct text_model *t, const struct vocab_data *v,
                                         uint32_t **own) {
    struct vocab_data out = *v;
    size_t n = 0;
    *own = NULL;
    for (size_t i = 0; i < 3 * (size_t)v->n_merge_ids && !*own; i++)
        if (t->flags[v->merge_ids[i]] & TOKEN_CONTROL)
            *own = xreallocarray(NULL, v->n_merge_ids, 3 * sizeof **own);
    for (size_t i = 0; i < v->n_merge_ids && *own; i++) {
        const uint32_t *m = v->merge_ids + 3 * i;
        if ((t->flags[m[0]] | t->flags[m[1]] | t->flags[m[2]]) & TOKEN_CONTROL)
            continue;
        memcpy(*own + 3 * n++, m, 3 * sizeof *m);
    }
    if (*own) {
        out.merge_ids = *own;
        out.n_merge_ids = (uint32_t)n;
    }
    return out;
}

static enum status build_bpe(struct maker *m, struct err *err) {
    struct text_model *t = m->t;
    bool first = decoder_rest(t->dec)->first_differs;
    bool bytes = !first && pretok_spells_last(t->pretok) && build_byte_map(m);
    if (bytes) {
        pretok_keep_bytes(t->pretok);
        t->kind = TEXT_BPE;
    } else {
        copy_texts(t, m->v);
        build_map(t, m->v);
    }
    uint32_t *own;
    struct vocab_data v = harmless_merges(t, m->v, &own);
    enum status st = bpe_ids_build(t, &v, bytes, err);
    free(own);
    return st;
}

/* The tokens "<0x00>" to "<0xFF>". */
static void byte_names(struct maker *m) {
    static const char digits[] = "0123456789ABCDEF";
    for (uint32_t i = 0; i < m->t->n_tok && m->t->byte_fallback; i++) {
        size_t len;
        const char *s = vocab_string(&m->v->tokens, i, &len), *hi, *lo;
        if (len == 6 && memcmp(s, "<0x", 3) == 0 && s[5] == '>' && is_piece(m->t, m->v, i) &&
            (hi = memchr(digits, s[3], 16)) && (lo = memchr(digits, s[4], 16)))
            m->t->byte_id[(hi - digits) * 16 + (lo - digits)] = (int32_t)i;
    }
}

static enum status build_model(struct maker *m, struct err *err) {
    struct text_model *t = m->t;
    if (strcmp(m->v->model, "bpe") == 0)
        return build_bpe(m, err);
    copy_texts(t, m->v);
    if (strcmp(m->v->model, "llama") == 0) {
        t->kind = TEXT_SPM;
        byte_names(m);
        return spm_tables(t, m->v, err);
    }
    if (strcmp(m->v->model, "unigram") == 0) {
        t->kind = TEXT_UNIGRAM;
        build_map(t, m->v);
        byte_names(m);
        return unigram_build(t, m->v, m->sentencepiece, &t->unigram, err);
    }
    return err_set(err, ST_UNSUPPORTED,
                   "tokenizer.model: \"%.40s\" is not known with a pipeline; known are bpe, "
                   "unigram and llama",
                   m->v->model);
}

enum status pipeline_build(struct text_model *t, const struct vocab_data *v, struct err *err) {
    struct maker m = {.t = t, .v = v, .run = regex_run_new()};
    size_t len = strlen(v->pipeline);
    enum status st = ST_OK;
    json_error_t why;
    if (!m.run)
        TRY(err_set(err, ST_NOMEM, "no memory for a tokenizer's expressions"));
    if (len > MAX_PIPELINE)
        TRY(err_set(err, ST_LIMIT, "tokenizer.pipeline: %zu bytes, at most %d are taken", len,
                    (int)MAX_PIPELINE));
    m.root = json_loadb(v->pipeline, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (!json_is_object(m.root))
        TRY(err_set(err, ST_FORMAT, "tokenizer.pipeline: no JSON object: %s",
                    m.root ? "" : why.text));
    TRY(read_parts(&m, err));
    TRY(build_found(&m, err));
    TRY(build_bytes(&m, err));
    TRY(build_model(&m, err));
    t->hidden_cover = !m.sentencepiece;
    t->adds_bos = v->add_bos > 0 || (v->add_bos < 0 && t->n_prefix > 0);
out:
    json_decref(m.root);
    regex_run_free(m.run);
    return st;
}
