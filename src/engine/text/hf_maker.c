/*
 * hf_maker.c - see hf_maker.h.
 *
 * Tokens are kept by id, their texts in one run of bytes, and found by an open-addressing hash
 * with a seed of its own, so that no file can be built of collisions.
 */
#include "engine/text/hf_maker.h"
#include "engine/model/hf_json.h"
#include "engine/text/tokmap.h"
#include <math.h>
#include <stdlib.h>

static bool same_text(const struct hf_maker *m, int32_t id, const char *s, size_t len) {
    const struct hf_tok *t = &m->tok[id];
    return t->len == len && memcmp(m->bytes.p + t->off, s, len) == 0;
}

static int32_t *find_slot(const struct hf_maker *m, const char *s, size_t len) {
    size_t i = hash_bytes(s, len, m->seed) & m->mask;
    while (m->slot[i] >= 0 && !same_text(m, m->slot[i], s, len))
        i = (i + 1) & m->mask;
    return &m->slot[i];
}

int32_t hf_find(const struct hf_maker *m, const char *s, size_t len) {
    return m->slot ? *find_slot(m, s, len) : -1;
}

static void grow_map(struct hf_maker *m) {
    if (m->slot && 2 * (size_t)m->n_set < m->mask)
        return;
    size_t size = m->slot ? 2 * (m->mask + 1) : 1024;
    if (!m->slot)
        m->seed = tokmap_seed();
    free(m->slot);
    m->slot = xreallocarray(NULL, size, sizeof *m->slot);
    memset(m->slot, 0xff, size * sizeof *m->slot);
    m->mask = size - 1;
    for (uint32_t i = 0; i < m->n; i++) {
        int32_t *slot;
        if (m->tok[i].type == VOCAB_UNDEFINED)
            continue;
        slot = find_slot(m, m->bytes.p + m->tok[i].off, m->tok[i].len);
        if (*slot < 0)
            *slot = (int32_t)i;
    }
}

enum status hf_set(struct hf_maker *m, int64_t id, const char *s, size_t len, int type,
                   double score, struct err *err) {
    int shown = (int)(len < 60 ? len : 60);
    if (id < 0 || id >= HF_MAX_TOKENS)
        return err_set(err, ST_FORMAT, "%s: token \"%.*s\" has id %lld, wanted 0 to %d",
                       m->file, shown, s, (long long)id, HF_MAX_TOKENS - 1);
    if (len > HF_MAX_TOKEN_BYTES || m->bytes.len + len > INT32_MAX)
        return err_set(err, ST_LIMIT, "%s: token %lld has %zu bytes, at most %d are allowed",
                       m->file, (long long)id, len, HF_MAX_TOKEN_BYTES);
    if (id >= m->cap) {
        uint32_t cap = m->cap ? m->cap : 1024;
        while (cap <= id)
            cap *= 2;
        m->tok = xreallocarray(m->tok, cap, sizeof *m->tok);
        memset(m->tok + m->cap, 0, (cap - m->cap) * sizeof *m->tok);
        m->cap = cap;
    }
    if (id >= m->n)
        m->n = (uint32_t)id + 1;
    struct hf_tok *t = &m->tok[id];
    if (t->type != VOCAB_UNDEFINED && !same_text(m, (int32_t)id, s, len))
        return err_set(err, ST_FORMAT, "%s: tokens \"%.*s\" and \"%.*s\" both have id %lld",
                       m->file, (int)(t->len < 60 ? t->len : 60), m->bytes.p + t->off, shown, s,
                       (long long)id);
    if (t->type == VOCAB_UNDEFINED) {
        m->n_set++;
        *t = (struct hf_tok){(uint32_t)m->bytes.len, (uint32_t)len, score, (uint8_t)type, 0};
        buf_add(&m->bytes, s, len);
        grow_map(m);
    }
    int32_t *slot = find_slot(m, s, len);
    if (*slot < 0)
        *slot = (int32_t)id;
    return ST_OK;
}

enum status hf_merge(struct hf_maker *m, const char *where, size_t i, const char *a, size_t la,
                     const char *b, size_t lb, struct err *err) {
    char tmp[512], *joined = la + lb <= sizeof tmp ? tmp : xmalloc(la + lb);
    memcpy(joined, a, la);
    memcpy(joined + la, b, lb);
    int32_t ids[3] = {hf_find(m, a, la), hf_find(m, b, lb), hf_find(m, joined, la + lb)};
    if (joined != tmp)
        free(joined);
    if (ids[0] < 0 || ids[1] < 0 || ids[2] < 0)
        return err_set(err, ST_FORMAT,
                       "%s: %s: entry %zu joins \"%.*s\" and \"%.*s\", of which %s no token",
                       m->file, where, i, (int)(la < 60 ? la : 60), a, (int)(lb < 60 ? lb : 60),
                       b,
                       ids[0] < 0   ? "the first is"
                       : ids[1] < 0 ? "the second is"
                                    : "both together are");
    if (m->n_merge == HF_MAX_MERGES)
        return err_set(err, ST_LIMIT, "%s: %s: more than %d", m->file, where, HF_MAX_MERGES);
    if (m->n_merge == m->cap_merge) {
        m->cap_merge = m->cap_merge ? 2 * m->cap_merge : 4096;
        m->merge = xreallocarray(m->merge, m->cap_merge, 3 * sizeof *m->merge);
    }
    for (int k = 0; k < 3; k++)
        m->merge[3 * m->n_merge + (size_t)k] = (uint32_t)ids[k];
    m->n_merge++;
    return ST_OK;
}

enum status hf_add(struct hf_maker *m, int64_t id, const char *s, size_t len, unsigned added,
                   bool special, struct err *err) {
    int32_t there = hf_find(m, s, len);
    if (len == 0)
        return ST_OK; /* the library ignores it */
    unsigned beyond = 0;
    if (there < 0) {
        CHECK(hf_set(m, id, s, len, VOCAB_NORMAL, -INFINITY, err)); /* no piece of Unigram */
        there = (int32_t)id;
        beyond = VOCAB_BEYOND;
    }
    beyond |= m->tok[there].added & VOCAB_BEYOND;
    m->tok[there].type = special ? VOCAB_CONTROL : VOCAB_USER_DEFINED;
    m->tok[there].added = (uint8_t)(added | beyond | VOCAB_ADDED);
    return ST_OK;
}

enum status hf_add_json(struct hf_maker *m, int64_t id, const json_t *token, bool special,
                        struct err *err) {
    struct hf_json j = {m->file, (json_t *)token};
    const json_t *content = json_object_get(token, "content");
    bool lstrip = false, rstrip = false, single = false;
    if (!json_is_string(content))
        return err_set(err, ST_FORMAT, "%s: added token %lld has no content", m->file,
                       (long long)id);
    CHECK(hf_bool(&j, "special", &special, err));
    bool normalized = !special;
    CHECK(hf_bool(&j, "lstrip", &lstrip, err));
    CHECK(hf_bool(&j, "rstrip", &rstrip, err));
    CHECK(hf_bool(&j, "single_word", &single, err));
    CHECK(hf_bool(&j, "normalized", &normalized, err));
    unsigned added = (lstrip ? VOCAB_LSTRIP : 0u) | (rstrip ? VOCAB_RSTRIP : 0u) |
                     (single ? VOCAB_SINGLE_WORD : 0u) | (normalized ? VOCAB_NORMALIZED : 0u);
    return hf_add(m, id, json_string_value(content), json_string_length(content), added,
                  special, err);
}
