/*
 * spm_proto.c - tokenizer.model, a SentencePiece model: a protocol buffer (sentencepiece's
 * sentencepiece_model.proto), of which a handful of fields matters.
 *
 * The reader knows the wire format and no schema: a field is a number, a kind and a value, and
 * messages inside lie in their parent's bytes, so a length is checked once, against the end of
 * what it lies in. What has other numbers is passed over.
 *
 * What comes out is a vocabulary whose pipeline does as that library does: its normalizer in
 * front, joining by score or the best path behind. Control pieces are found in the text only
 * where a template wrote them; pieces that the trainer was told to keep whole are found behind
 * the normalizer.
 */
#include "base/path.h"
#include "base/utf8.h"
#include "engine/model/hf_json.h"
#include "engine/text/hf_maker.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE = 256 << 20 };
enum { WIRE_VARINT, WIRE_64, WIRE_BYTES, WIRE_32 = 5 };
enum { TYPE_UNIGRAM = 1, TYPE_BPE, TYPE_WORD, TYPE_CHAR };

struct wire { /* a message, and the field that was read last */
    const unsigned char *p, *end, *start;
    uint64_t field;
    int kind;
    uint64_t number; /* VARINT, 32 and 64 */
    const unsigned char *bytes;
    size_t len;
};

struct proto {
    struct hf_maker *m;
    const unsigned char *file;
    int64_t type;
    bool byte_fallback, suffix, prefix, squeeze, escape;
    const unsigned char *charsmap, *bos, *eos, *pad;
    size_t n_charsmap, n_bos, n_eos, n_pad;
    int32_t unk;
    int64_t n_piece;
};

static enum status broken(const struct proto *o, const struct wire *w, const char *what,
                          struct err *err) {
    return err_set(err, ST_FORMAT, "%s: %s at byte %zu", o->m->file, what,
                   (size_t)(w->p - o->file));
}

static enum status read_varint(const struct proto *o, struct wire *w, uint64_t *out,
                               struct err *err) {
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (w->p == w->end)
            return broken(o, w, "a number that is cut off", err);
        unsigned char b = *w->p++;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80)) {
            *out = v;
            return ST_OK;
        }
    }
    return broken(o, w, "a number of more than ten bytes", err);
}

static enum status read_fixed(const struct proto *o, struct wire *w, size_t n,
                              struct err *err) {
    if ((size_t)(w->end - w->p) < n)
        return broken(o, w, "a number that is cut off", err);
    w->number = 0;
    for (size_t i = 0; i < n; i++)
        w->number |= (uint64_t)w->p[i] << (8 * i);
    w->p += n;
    return ST_OK;
}

/* The next field of a message; w->p is before its end. */
static enum status read_field(const struct proto *o, struct wire *w, struct err *err) {
    uint64_t tag, len;
    CHECK(read_varint(o, w, &tag, err));
    w->field = tag >> 3;
    w->kind = (int)(tag & 7);
    switch (w->kind) {
    case WIRE_VARINT:
        return read_varint(o, w, &w->number, err);
    case WIRE_64:
        return read_fixed(o, w, 8, err);
    case WIRE_32:
        return read_fixed(o, w, 4, err);
    case WIRE_BYTES:
        CHECK(read_varint(o, w, &len, err));
        if (len > (uint64_t)(w->end - w->p))
            return broken(o, w, "a field that is longer than what it lies in", err);
        w->bytes = w->p;
        w->len = (size_t)len;
        w->p += len;
        return ST_OK;
    default:
        return broken(o, w, "a field of unknown kind", err);
    }
}

static struct wire inside(const struct wire *w) {
    return (struct wire){.p = w->bytes, .end = w->bytes + w->len, .start = w->bytes};
}

/* SentencePiece: piece 1, score 2, type 3 */
static enum status read_piece(struct proto *o, struct wire w, struct err *err) {
    const char *text = "";
    size_t len = 0;
    float score = 0;
    uint64_t type = VOCAB_NORMAL;
    while (w.p < w.end) {
        CHECK(read_field(o, &w, err));
        if (w.field == 1 && w.kind == WIRE_BYTES) {
            text = (const char *)w.bytes;
            len = w.len;
        } else if (w.field == 2 && w.kind == WIRE_32) {
            uint32_t bits = (uint32_t)w.number;
            memcpy(&score, &bits, sizeof score);
        } else if (w.field == 3 && w.kind == WIRE_VARINT) {
            type = w.number;
        }
    }
    int64_t id = o->n_piece++;
    if (type < VOCAB_NORMAL || type > VOCAB_BYTE)
        return err_set(err, ST_FORMAT, "%s: piece %lld has type %llu, wanted 1 to 6",
                       o->m->file, (long long)id, (unsigned long long)type);
    if (!utf8_valid(text, len))
        return err_set(err, ST_FORMAT, "%s: piece %lld is not valid UTF-8", o->m->file,
                       (long long)id);
    if (type == VOCAB_UNKNOWN && o->unk < 0)
        o->unk = (int32_t)id;
    CHECK(hf_set(o->m, id, text, len, (int)type, (double)score, err));
    bool whole = type == VOCAB_USER_DEFINED;
    if (type == VOCAB_CONTROL || type == VOCAB_UNKNOWN)
        o->m->tok[id].added = VOCAB_ADDED;
    if (whole && len > 0)
        o->m->tok[id].added = VOCAB_ADDED | VOCAB_NORMALIZED;
    return ST_OK;
}

/* TrainerSpec: model_type 3, treat_whitespace_as_suffix 24, byte_fallback 35, bos_piece 46,
 * eos_piece 47, pad_piece 48 */
static enum status read_trainer(struct proto *o, struct wire w, struct err *err) {
    while (w.p < w.end) {
        CHECK(read_field(o, &w, err));
        if (w.kind == WIRE_VARINT) {
            if (w.field == 3)
                o->type = (int64_t)w.number;
            else if (w.field == 24)
                o->suffix = w.number != 0;
            else if (w.field == 35)
                o->byte_fallback = w.number != 0;
        } else if (w.kind == WIRE_BYTES && w.field >= 46 && w.field <= 48) {
            const unsigned char **p = w.field == 46   ? &o->bos
                                      : w.field == 47 ? &o->eos
                                                      : &o->pad;
            size_t *n = w.field == 46 ? &o->n_bos : w.field == 47 ? &o->n_eos : &o->n_pad;
            *p = w.bytes;
            *n = w.len;
        }
    }
    return ST_OK;
}

/* NormalizerSpec: precompiled_charsmap 2, add_dummy_prefix 3, remove_extra_whitespaces 4,
 * escape_whitespaces 5 */
static enum status read_normalizer(struct proto *o, struct wire w, struct err *err) {
    while (w.p < w.end) {
        CHECK(read_field(o, &w, err));
        if (w.field == 2 && w.kind == WIRE_BYTES) {
            o->charsmap = w.bytes;
            o->n_charsmap = w.len;
        } else if (w.kind == WIRE_VARINT && w.field >= 3 && w.field <= 5) {
            bool *flag = w.field == 3 ? &o->prefix : w.field == 4 ? &o->squeeze : &o->escape;
            *flag = w.number != 0;
        }
    }
    return ST_OK;
}

static enum status read_model(struct proto *o, const struct buf *text, struct err *err) {
    struct wire w = {.p = o->file, .end = o->file + text->len, .start = o->file};
    while (w.p < w.end) {
        CHECK(read_field(o, &w, err));
        if (w.kind != WIRE_BYTES)
            continue;
        if (w.field == 1)
            CHECK(read_piece(o, inside(&w), err));
        else if (w.field == 2)
            CHECK(read_trainer(o, inside(&w), err));
        else if (w.field == 3)
            CHECK(read_normalizer(o, inside(&w), err));
    }
    if (o->type != TYPE_UNIGRAM && o->type != TYPE_BPE)
        return err_set(err, ST_UNSUPPORTED,
                       "%s: a model of type %s is not supported; known are unigram and bpe",
                       o->m->file,
                       o->type == TYPE_WORD   ? "word"
                       : o->type == TYPE_CHAR ? "char"
                                              : "unknown");
    if (o->n_piece == 0)
        return err_set(err, ST_FORMAT, "%s: holds no pieces", o->m->file);
    return ST_OK;
}

/* "legacy" false: no blank is put in front of what follows a control token;
 * "add_prefix_space" false: of no text at all. */
static enum status read_blanks(struct proto *o, bool *legacy, struct err *err) {
    struct hf_json j;
    bool prefix = true;
    CHECK(hf_json_load(o->m->dir, "tokenizer_config.json", false, HF_MAX_CONFIG, &j, err));
    enum status st = hf_bool(&j, "legacy", legacy, err);
    if (st == ST_OK)
        st = hf_bool(&j, "add_prefix_space", &prefix, err);
    o->prefix = o->prefix && prefix;
    hf_json_release(&j);
    return st;
}

static void make_pipeline(struct proto *o, bool legacy) {
    struct hf_maker *m = o->m;
    json_t *model = json_pack("{s:b, s:b, s:b}", "byte_fallback", o->byte_fallback, "fuse_unk",
                              1, "sentencepiece", 1);
    if (o->unk >= 0)
        json_object_set_new(model, "unk", json_integer(o->unk));
    json_object_set_new(m->pipeline, "model", model);
    json_object_set_new(m->pipeline, "normalizer",
                        json_pack("{s:s, s:b, s:b, s:b, s:b, s:b}", "type", "SentencePiece",
                                  "add_dummy_prefix", o->prefix, "remove_extra_whitespaces",
                                  o->squeeze, "escape_whitespaces", o->escape, "suffix",
                                  o->suffix, "first_only", !legacy));
    json_t *steps = json_array();
    json_array_append_new(steps, json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern",
                                           "String", "\xe2\x96\x81", "content", " "));
    json_array_append_new(steps, json_pack("{s:s}", "type", "ByteFallback"));
    json_array_append_new(steps, json_pack("{s:s}", "type", "Fuse"));
    if ((o->prefix && !o->suffix) || o->squeeze)
        json_array_append_new(steps,
                              json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ",
                                        "start", o->squeeze ? 1000 : 1, "stop", 0));
    json_object_set_new(m->pipeline, "decoder",
                        json_pack("{s:s, s:o}", "type", "Sequence", "decoders", steps));
}

static int32_t named(const struct proto *o, const unsigned char *p, size_t n,
                     const char *missing) {
    int32_t id =
        p ? hf_find(o->m, (const char *)p, n) : hf_find(o->m, missing, strlen(missing));
    return id >= 0 && o->m->tok[id].type == VOCAB_CONTROL ? id : -1;
}

static void fill(struct proto *o, bool legacy) {
    struct hf_maker *m = o->m;
    make_pipeline(o, legacy);
    m->scores = true;
    m->model = o->type == TYPE_BPE ? "llama" : "unigram";
    if (o->n_charsmap > 0) {
        void *copy = vocab_own(m->v, xmalloc(o->n_charsmap));
        m->v->charsmap = memcpy(copy, o->charsmap, o->n_charsmap);
        m->v->n_charsmap = o->n_charsmap;
    }
    m->v->bos = named(o, o->bos, o->n_bos, "<s>");
    m->v->eos = named(o, o->eos, o->n_eos, "</s>");
    m->v->pad = named(o, o->pad, o->n_pad, "<pad>");
    m->v->unk = o->unk;
    m->v->add_bos = o->type == TYPE_BPE && m->v->bos >= 0; /* Llama's way; the config may say */
    /* Best-path models weigh whole pieces against others; they are not cut out before. */
    for (uint32_t i = 0; i < m->n && o->type == TYPE_UNIGRAM; i++)
        if (m->tok[i].type == VOCAB_USER_DEFINED)
            m->tok[i].added = 0;
}

enum status hf_read_sentencepiece(struct hf_maker *m, struct err *err) {
    char *path = path_join(m->dir, "tokenizer.model");
    struct buf text = {0};
    bool legacy = true;
    enum status st;
    m->file = "tokenizer.model";
    TRY(file_read(path, MAX_FILE, &text, err));
    struct proto o = {.m = m,
                      .file = (const unsigned char *)buf_str(&text),
                      .type = TYPE_UNIGRAM,
                      .prefix = true,
                      .squeeze = true,
                      .escape = true,
                      .unk = -1};
    TRY(read_model(&o, &text, err));
    TRY(read_blanks(&o, &legacy, err));
    fill(&o, legacy);
out:
    buf_release(&text);
    free(path);
    return st;
}
