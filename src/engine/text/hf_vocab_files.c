/*
 * hf_vocab_files.c - vocab.json and merges.txt, how GPT-2 and its like were published before
 * tokenizer.json: byte-level BPE. These files do not say how text is cut into words; that is
 * known to the class that reads them.
 */
#include "base/path.h"
#include "engine/model/hf_json.h"
#include "engine/text/hf_maker.h"
#include <stdlib.h>
#include <string.h>

static const struct level_class {
    const char *name;       /* as in tokenizer_class, "Fast" may follow */
    const char *pattern;    /* NULL: GPT-2's */
    const char *normalizer; /* or NULL */
    const char *bos, *eos;  /* where nothing else is said */
} CLASSES[] = {
    {.name = "GPT2Tokenizer", .bos = "<|endoftext|>", .eos = "<|endoftext|>"},
    {.name = "Qwen2Tokenizer",
     .pattern = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
                "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     .normalizer = "NFC",
     .eos = "<|endoftext|>"},
    {.name = "CodeGenTokenizer", .bos = "<|endoftext|>", .eos = "<|endoftext|>"},
};

static enum status read_vocab(struct hf_maker *m, struct err *err) {
    char *path = path_join(m->dir, "vocab.json");
    struct buf text = {0};
    m->file = "vocab.json";
    enum status st = file_read(path, HF_MAX_JSON, &text, err);
    buf_adds(&text, "");
    if (st == ST_OK)
        st = hf_read_ids(m, (struct hf_scan){m->file, text.p, text.p + text.len, text.p}, err);
    buf_release(&text);
    free(path);
    return st;
}

/* A line for each merge, "A B"; a line of "#version" may stand in front. */
static enum status read_merges(struct hf_maker *m, struct err *err) {
    char *path = path_join(m->dir, "merges.txt");
    struct buf text = {0};
    m->file = "merges.txt";
    enum status st = file_read(path, HF_MAX_JSON, &text, err);
    const char *p = buf_str(&text), *end = p + text.len;
    for (size_t line = 1; p < end && st == ST_OK; line++) {
        const char *eol = memchr(p, '\n', (size_t)(end - p));
        const char *stop = eol ? eol : end;
        if (stop > p && stop[-1] == '\r')
            stop--;
        size_t len = stop > p ? (size_t)(stop - p) : 0;
        const char *blank = len > 0 ? memchr(p, ' ', len) : NULL;
        bool version = len >= 8 && memcmp(p, "#version", 8) == 0;
        if (len > 0 && !version && !blank)
            st = err_set(err, ST_FORMAT, "%s: line %zu has no blank between two tokens",
                         m->file, line);
        else if (len > 0 && !version)
            st = hf_merge(m, "line", line, p, (size_t)(blank - p), blank + 1,
                          (size_t)(stop - blank - 1), err);
        p = eol ? eol + 1 : end;
    }
    buf_release(&text);
    free(path);
    return st;
}

/* The class whose files these are: that of tokenizer_config.json, else the one that goes with
 * the model_type of config.json. */
static enum status find_class(struct hf_maker *m, const struct hf_json *config,
                              const struct level_class **out, struct err *err) {
    struct hf_json j;
    const char *name = "", *model = "";
    CHECK(hf_str(config, "tokenizer_class", false, &name, err));
    CHECK(hf_json_load(m->dir, "config.json", false, HF_MAX_CONFIG, &j, err));
    enum status st = hf_str(&j, "model_type", false, &model, err);
    bool qwen = strncmp(model, "qwen", 4) == 0;
    hf_json_release(&j);
    CHECK(st);
    size_t n = strlen(name);
    if (n > 4 && strcmp(name + n - 4, "Fast") == 0)
        n -= 4;
    *out = &CLASSES[qwen ? 1 : 0];
    if (n == 0)
        return ST_OK;
    for (size_t i = 0; i < sizeof CLASSES / sizeof *CLASSES; i++)
        if (strlen(CLASSES[i].name) == n && memcmp(CLASSES[i].name, name, n) == 0) {
            *out = &CLASSES[i];
            return ST_OK;
        }
    struct buf known = {0};
    for (size_t i = 0; i < sizeof CLASSES / sizeof *CLASSES; i++)
        buf_addf(&known, "%s%s", i ? ", " : "", CLASSES[i].name);
    err_set(err, ST_UNSUPPORTED,
            "%s: tokenizer_class \"%.60s\" is not known to read vocab.json and merges.txt "
            "(known are %s), and there is no tokenizer.json",
            config->file, name, buf_str(&known));
    buf_release(&known);
    return ST_UNSUPPORTED;
}

static void make_pipeline(struct hf_maker *m, const struct level_class *c, bool prefix) {
    json_t *level = json_pack("{s:s, s:b, s:b}", "type", "ByteLevel", "add_prefix_space",
                              prefix, "use_regex", c->pattern == NULL);
    if (c->pattern)
        level = json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence",
                          "pretokenizers", "type", "Split", "pattern", "Regex", c->pattern,
                          "behavior", "Isolated", "invert", 0, level);
    if (c->normalizer)
        json_object_set_new(m->pipeline, "normalizer",
                            json_pack("{s:s}", "type", c->normalizer));
    json_object_set_new(m->pipeline, "model", json_object());
    json_object_set_new(m->pipeline, "pre_tokenizer", level);
    json_object_set_new(m->pipeline, "decoder", json_pack("{s:s}", "type", "ByteLevel"));
}

/* text, or NULL, is special where the vocabulary has it. */
static enum status name_token(struct hf_maker *m, const char *text, int32_t *id,
                              struct err *err) {
    *id = text ? hf_find(m, text, strlen(text)) : -1;
    return *id >= 0 ? hf_add(m, *id, text, strlen(text), 0, true, err) : ST_OK;
}

enum status hf_read_vocab_merges(struct hf_maker *m, struct err *err) {
    struct hf_json j;
    const struct level_class *c;
    bool prefix = false;
    enum status st;
    CHECK(hf_json_load(m->dir, "tokenizer_config.json", false, HF_MAX_CONFIG, &j, err));
    TRY(find_class(m, &j, &c, err));
    TRY(hf_bool(&j, "add_prefix_space", &prefix, err));
    TRY(read_vocab(m, err));
    TRY(read_merges(m, err));
    make_pipeline(m, c, prefix);
    TRY(name_token(m, c->bos, &m->v->bos, err));
    TRY(name_token(m, c->eos, &m->v->eos, err));
    m->file = "vocab.json";
    m->model = "bpe";
out:
    hf_json_release(&j);
    return st;
}
