/*
 * fuzz_hf_tokenizer.c - any bytes as the tokenizer of a Hugging Face folder, then a text
 * through it.
 *
 * The first byte says what the folder has: 'j' tokenizer.json, 'm' tokenizer.model, 'v'
 * vocab.json and merges.txt. Up to the first NUL follows tokenizer_config.json; the rest is the
 * file, for 'v' both with a NUL between. What must hold for what is opened: every id is in the
 * vocabulary, a text that a person wrote gives no control token (but the unknown one), and
 * decoding ends.
 */
#include "engine/text.h"
#include "engine/text/tokenizer.h"
#include "mem_folder.h"
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CONFIG, JSON, PROTO, VOCAB, MERGES, N_FILES };
static const char *const names[N_FILES] = {
    [CONFIG] = "tokenizer_config.json",
    [JSON] = "tokenizer.json",
    [PROTO] = "tokenizer.model",
    [VOCAB] = "vocab.json",
    [MERGES] = "merges.txt",
};

/* Letters of several scripts, combining marks, digits, blanks, controls, what is not assigned,
 * what is not UTF-8, and control tokens as people write them. */
static const char text[] =
    "  The caf\xc3\xa9's 12345 na\xc3\xafve\tIDEAS\r\n\n   "
    "\xe4\xb8\xad\xe6\x96\x87\xe3\x81\x82 "
    "e\xcc\x81\xcc\xa7 \xe0\xa4\xb9\xe0\xa4\xbf \xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x9a\x80"
    "\xef\xac\x81\xe2\x81\xb5 \xc4\xb0\xc3\x9f \xf4\x8f\xbf\xbf\xff\xc0 <s></s>[INST]<|end|>"
    "<0x41>\xe2\x96\x81\xc4\xa0 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/* Up to the next NUL, and behind it. */
static size_t part(const uint8_t **p, size_t *size) {
    size_t n = *size ? strnlen((const char *)*p, *size) : 0, step = n < *size ? n + 1 : n;
    *p += step;
    *size -= step;
    return n;
}

static void use(const struct text_model *t) {
    for (int special = 0; special < 2; special++) {
        struct encode_opts o = {.special = special, .bos = special, .eos = special};
        struct tok_list ids = {0};
        struct buf back = {0};
        struct err err;
        if (text_encode(t, text, sizeof text - 1, &o, &ids, &err) == ST_OK) {
            for (size_t i = 0; i < ids.n; i++)
                if (ids.v[i] < 0 || ids.v[i] >= text_n_vocab(t) ||
                    (!special && ids.v[i] != t->unk && text_is_control(t, ids.v[i])))
                    abort();
            text_decode_all(t, ids.v, ids.n, special, &back);
            for (size_t i = 0; i < ids.n; i++)
                text_decode(t, ids.v[i], special, &back);
        }
        buf_release(&back);
        tok_list_release(&ids);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *dir;
    struct text_model *t;
    struct err err;
    if (!dir)
        dir = mem_folder_make(names, N_FILES);
    if (size == 0)
        return 0;
    for (int i = 0; i < N_FILES; i++)
        mem_folder_hide(i);
    uint8_t kind = *data++;
    size--;
    const uint8_t *p = data;
    size_t n = part(&data, &size);
    mem_folder_put(CONFIG, p, n);
    if (kind == 'v') {
        p = data;
        n = part(&data, &size);
        mem_folder_put(VOCAB, p, n);
        mem_folder_put(MERGES, data, size);
    } else {
        mem_folder_put(kind == 'm' ? PROTO : JSON, data, size);
    }
    if (text_open(dir, &t, &err) != ST_OK)
        return 0;
    use(t);
    text_close(t);
    return 0;
}
