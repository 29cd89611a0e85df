/*
 * arch_files.h - the checkpoints of tests/golden/archs, made anew: a Hugging Face folder or a
 * GGUF file whose weights are a function of a tensor's name and an element's number, the same
 * as in tests/oracle/archs.py. For test programs only.
 *
 * The vocabulary is byte-level BPE without merges: the 256 bytes and 21 tokens that no text
 * has.
 */
#ifndef LLMCHAT_TESTS_ARCH_FILES_H
#define LLMCHAT_TESTS_ARCH_FILES_H

#include "gguf_build.h"
#include "hf_folder.h"
#include <jansson.h>
#include <math.h>

enum { AF_VOCAB = 277, AF_MAX_DIMS = 4 };

struct af_tensor {
    char name[160];
    int n_dims;
    uint64_t shape[AF_MAX_DIMS], n_elem; /* slowest dimension first */
};

/* "blk.0.attn_q.weight 72x24" */
static inline struct af_tensor af_parse(const char *text) {
    struct af_tensor t = {.n_elem = 1};
    size_t n = strcspn(text, " ");
    if (n >= sizeof t.name || !text[n])
        abort();
    memcpy(t.name, text, n);
    for (const char *p = text + n; *p; t.n_dims++) {
        char *end;
        if (t.n_dims == AF_MAX_DIMS)
            abort();
        t.shape[t.n_dims] = strtoull(p + 1, &end, 10);
        t.n_elem *= t.shape[t.n_dims];
        p = end;
    }
    return t;
}

/* 24 random bits from -1 to 1: FNV-1a of the name, then the finaliser of splitmix64. */
static inline float af_random(uint64_t hash, uint64_t i) {
    uint64_t x = hash + (i + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    return (float)(x >> 40) / 8388608.0f - 1.0f;
}

static inline float *af_values(const struct af_tensor *t) {
    float *v = xreallocarray(NULL, t->n_elem, sizeof *v);
    size_t n = strlen(t->name);
    uint64_t hash = 0xcbf29ce484222325u;
    bool weight = n > 7 && strcmp(t->name + n - 7, ".weight") == 0;
    bool norm = weight && (t->n_dims == 1 || strstr(t->name, "norm"));
    float row = (float)(2 / sqrt((double)t->shape[t->n_dims - 1]));
    for (const char *p = t->name; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 0x100000001b3u;
    for (uint64_t i = 0; i < t->n_elem; i++) {
        float u = af_random(hash, i), quarter = 0.25f * u;
        v[i] = norm ? 1.0f + quarter : t->n_dims == 1 ? quarter : u * row;
    }
    return v;
}

/* Token i as byte-level BPE writes it; text [16]. */
static inline const char *af_token(int i, char text[16]) {
    struct buf b = {0};
    int c = i;
    bool plain = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174;
    if (!plain) { /* the n-th byte that has no sign of its own */
        c = 256;
        for (int k = 0; k < i; k++)
            c += !((k >= 33 && k <= 126) || (k >= 161 && k <= 172) || k >= 174);
    }
    if (i >= 256)
        buf_addf(&b, "<extra_%d>", i - 256);
    else
        buf_addcp(&b, (uint32_t)c);
    snprintf(text, 16, "%s", buf_str(&b));
    buf_release(&b);
    return text;
}

static inline void af_tokenizer(void) {
    json_t *vocab = json_object(), *added = json_array();
    char text[16];
    for (int i = 0; i < AF_VOCAB; i++)
        json_object_set_new(vocab, af_token(i, text), json_integer(i));
    for (int i = 256; i < AF_VOCAB; i++)
        json_array_append_new(added, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", i,
                                               "content", af_token(i, text), "special", 1,
                                               "normalized", 0, "single_word", 0, "lstrip", 0,
                                               "rstrip", 0));
    json_t *level = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space",
                              0, "trim_offsets", 0, "use_regex", 1);
    json_t *all =
        json_pack("{s:s, s:o, s:n, s:O, s:n, s:o, s:{s:s, s:o, s:[]}}", "version", "1.0",
                  "added_tokens", added, "normalizer", "pre_tokenizer", level, "post_processor",
                  "decoder", level, "model", "type", "BPE", "vocab", vocab, "merges");
    char *s = json_dumps(all, 0);
    folder_text("tokenizer.json", s);
    free(s);
    json_decref(all);
}

/* config: the object; tensors: the list of texts. In the folder of hf_folder.h. */
static inline void af_folder(json_t *config, const json_t *tensors) {
    struct st_file file = {0};
    char *text = json_dumps(config, 0);
    folder_text("config.json", text);
    free(text);
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        struct af_tensor t = af_parse(json_string_value(json_array_get(tensors, i)));
        struct buf shape = {0};
        float *v = af_values(&t);
        for (int d = 0; d < t.n_dims; d++)
            buf_addf(&shape, "%c%llu", d ? ',' : '[', (unsigned long long)t.shape[d]);
        buf_addc(&shape, ']');
        st_add(&file, t.name, "F32", buf_str(&shape), v, t.n_elem * sizeof *v);
        buf_release(&shape);
        free(v);
    }
    folder_st("model.safetensors", &file);
    af_tokenizer();
}

static inline void af_kv(struct buf *b, const char *key, const json_t *v) {
    if (json_is_string(v)) {
        gb_kv_str(b, key, json_string_value(v));
    } else if (json_is_integer(v)) {
        gb_kv_u32(b, key, (uint32_t)json_integer_value(v));
    } else if (json_is_real(v)) {
        gb_kv_f32(b, key, (float)json_real_value(v));
    } else if (json_is_boolean(v)) {
        gb_key(b, key, GGUF_BOOL);
        buf_addc(b, json_is_true(v));
    } else { /* bools */
        gb_kv_array(b, key, GGUF_BOOL, json_array_size(v));
        for (size_t i = 0; i < json_array_size(v); i++)
            buf_addc(b, json_is_true(json_array_get(v, i)));
    }
}

static inline void af_gguf_vocab(struct buf *b) {
    char text[16];
    gb_kv_str(b, "tokenizer.ggml.model", "gpt2");
    gb_kv_str(b, "tokenizer.ggml.pre", "gpt-2");
    gb_kv_array(b, "tokenizer.ggml.tokens", GGUF_STR, AF_VOCAB);
    for (int i = 0; i < AF_VOCAB; i++)
        gb_str(b, af_token(i, text));
    gb_kv_array(b, "tokenizer.ggml.token_type", GGUF_I32, AF_VOCAB);
    for (int i = 0; i < AF_VOCAB; i++)
        gb_u32(b, i < 256 ? 1 : 3);
    gb_kv_array(b, "tokenizer.ggml.merges", GGUF_STR, 1);
    gb_str(b, "a b");
}

/* keys: the object of metadata. The file model.gguf in the folder of hf_folder.h. */
static inline void af_gguf(json_t *keys, const json_t *tensors) {
    struct buf b = {0}, data = {0};
    const char *key;
    json_t *value;
    gb_head(&b, 3, json_array_size(tensors), json_object_size(keys) + 5);
    json_object_foreach(keys, key, value) {
        af_kv(&b, key, value);
    }
    af_gguf_vocab(&b);
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        struct af_tensor t = af_parse(json_string_value(json_array_get(tensors, i)));
        float *v = af_values(&t);
        gb_align(&data, 32);
        gb_str(&b, t.name);
        gb_u32(&b, (uint32_t)t.n_dims);
        for (int d = t.n_dims; d-- > 0;)
            gb_u64(&b, t.shape[d]);
        gb_u32(&b, 0); /* F32 */
        gb_u64(&b, data.len);
        buf_add(&data, v, t.n_elem * sizeof *v);
        free(v);
    }
    gb_align(&b, 32);
    buf_add(&b, data.p, data.len);
    folder_put("model.gguf", b.p, b.len);
    buf_release(&data);
    buf_release(&b);
}

#endif
