/*
 * hf_vocab_files.c - vocab.json and merges.txt, how GPT-2 and its like were published before
 * tokenizer.json: byte-level BPE with GPT-2's way of cutting.
 */
#include "base/path.h"
#include "engine/model/hf_json.h"
#include "engine/text/hf_maker.h"
#include <stdlib.h>
#include <string.h>

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

enum status hf_read_vocab_merges(struct hf_maker *m, struct err *err) {
    struct hf_json j;
    bool prefix = false;
    CHECK(read_vocab(m, err));
    CHECK(read_merges(m, err));
    CHECK(hf_json_load(m->dir, "tokenizer_config.json", false, HF_MAX_CONFIG, &j, err));
    enum status st = j.root ? hf_bool(&j, "add_prefix_space", &prefix, err) : ST_OK;
    hf_json_release(&j);
    CHECK(st);
    json_object_set_new(m->pipeline, "model", json_object());
    json_object_set_new(m->pipeline, "pre_tokenizer",
                        json_pack("{s:s, s:b, s:b}", "type", "ByteLevel", "add_prefix_space",
                                  prefix, "use_regex", 1));
    json_object_set_new(m->pipeline, "decoder", json_pack("{s:s}", "type", "ByteLevel"));
    m->file = "vocab.json";
    m->model = "bpe";
    return ST_OK;
}
