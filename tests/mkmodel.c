/*
 * mkmodel.c - writes a tiny Llama model with random weights as a GGUF file: mkmodel FILE
 * [name=value …]
 *
 * For tests that need a real file and a real engine but no sense in what it says. The
 * vocabulary is byte-level BPE: the 256 bytes, a few merges, and the control tokens of ChatML;
 * the template is ChatML. Same arguments, same file, everywhere: the random numbers are our
 * own.
 *
 * Names: layers embd heads kv ff ctx seed merges (numbers), type=f32|f16, tied=0|1,
 * template=0|1, version=2|3, scale (weights are drawn from -scale/1000 to scale/1000; default
 * 60).
 */
#include "base/mem.h"
#include "base/path.h"
#include "base/utf8.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    const char *name;
    uint32_t value;
} params[] = {{"layers", 2},  {"embd", 64},  {"heads", 4},  {"kv", 2},   {"ff", 128},
              {"ctx", 512},   {"seed", 1},   {"type", 0},   {"tied", 1}, {"template", 1},
              {"version", 3}, {"scale", 60}, {"merges", 20}};

static uint32_t param(const char *name) {
    for (size_t i = 0; i < sizeof params / sizeof *params; i++)
        if (strcmp(params[i].name, name) == 0)
            return params[i].value;
    abort();
}

static uint64_t random_state;

static float random_weight(void) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    uint32_t r = (uint32_t)(random_state * 0x2545f4914f6cdd1dull >> 40); /* 24 bits */
    return ((float)r / 8388608.0f - 1.0f) * (float)param("scale") / 1000.0f;
}

/* Round to nearest even, normal numbers and zero only: weights are small but not tiny. */
static uint16_t to_f16(float f) {
    uint32_t x;
    memcpy(&x, &f, 4);
    uint32_t sign = x >> 16 & 0x8000, e = x >> 23 & 255, m = x & 0x7fffff;
    if (e < 113)
        return (uint16_t)sign;
    uint32_t h = (e - 112) << 10 | m >> 13, rest = m & 0x1fff;
    h += rest > 0x1000 || (rest == 0x1000 && (h & 1));
    return (uint16_t)(sign | h);
}

/* -- GGUF -- */
static struct buf kv, info, data, tokens, types, merges;
static uint64_t n_kv, n_info;
static uint32_t n_tokens, n_merges;

static void u32(struct buf *b, uint32_t v) {
    buf_add(b, &v, 4);
}
static void u64(struct buf *b, uint64_t v) {
    buf_add(b, &v, 8);
}
static void str(struct buf *b, const char *s, size_t len) {
    u64(b, len);
    buf_add(b, s, len);
}
static void key(const char *k, uint32_t type) {
    str(&kv, k, strlen(k));
    u32(&kv, type);
    n_kv++;
}
static void key_u32(const char *k, uint32_t v) {
    key(k, 4);
    u32(&kv, v);
}
static void key_f32(const char *k, float v) {
    key(k, 6);
    buf_add(&kv, &v, 4);
}
static void key_str(const char *k, const char *v) {
    key(k, 8);
    str(&kv, v, strlen(v));
}

static void tensor(const char *name, uint32_t n, uint32_t k, bool norm) {
    bool f16 = param("type") == 1 && !norm;
    while (data.len % 32)
        buf_addc(&data, 0);
    str(&info, name, strlen(name));
    u32(&info, n ? 2 : 1);
    u64(&info, k); /* the fastest dimension first */
    if (n)
        u64(&info, n);
    u32(&info, f16 ? 1 : 0);
    u64(&info, data.len);
    n_info++;
    for (uint64_t i = 0; i < (uint64_t)(n ? n : 1) * k; i++) {
        float w = norm ? 1.0f + random_weight() : random_weight();
        if (f16) {
            uint16_t h = to_f16(w);
            buf_add(&data, &h, 2);
        } else {
            buf_add(&data, &w, 4);
        }
    }
}

/* The printable stand-in of a byte in byte-level BPE (GPT-2's table). */
static uint32_t byte_char(int b) {
    if ((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174)
        return (uint32_t)b;
    uint32_t n = 256;
    for (int i = 0; i < b; i++)
        n += !((i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174);
    return n;
}

static void token(const char *s, size_t len, uint32_t type) {
    str(&tokens, s, len);
    u32(&types, type);
    n_tokens++;
}

static void merge(const char *left, const char *right) {
    char *pair = xasprintf("%s %s", left, right), *both = xasprintf("%s%s", left, right);
    str(&merges, pair, strlen(pair));
    n_merges++;
    token(both, strlen(both), 1);
    free(pair);
    free(both);
}

static void vocabulary(void) {
    for (int b = 0; b < 256; b++) {
        char s[4];
        token(s, utf8_encode(byte_char(b), s), 1);
    }
    static const char *const pairs[][2] = {
        {"Ġ", "t"}, {"h", "e"}, {"i", "n"}, {"Ġ", "a"}, {"Ġt", "he"}, {"o", "u"}, {"e", "r"},
        {"r", "e"}, {"o", "n"}, {"Ġ", "s"}, {"a", "t"}, {"Ġ", "w"},   {"e", "n"}, {"Ġ", "o"},
        {"Ġ", "c"}, {"i", "t"}, {"i", "s"}, {"a", "n"}, {"o", "r"},   {"in", "g"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs && i < param("merges"); i++)
        merge(pairs[i][0], pairs[i][1]);
    static const char *const control[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    for (size_t i = 0; i < 3; i++)
        token(control[i], strlen(control[i]), 3);
}

static void array(const char *name, uint32_t type, uint32_t n, const struct buf *items) {
    key(name, 9);
    u32(&kv, type);
    u64(&kv, n);
    buf_add(&kv, items->p, items->len);
}

static void metadata(void) {
    uint32_t head_dim = param("embd") / param("heads");
    key_str("general.architecture", "llama");
    key_str("general.name", "Tiny test model");
    key_str("general.license", "mit");
    key_u32("llama.block_count", param("layers"));
    key_u32("llama.embedding_length", param("embd"));
    key_u32("llama.feed_forward_length", param("ff"));
    key_u32("llama.attention.head_count", param("heads"));
    key_u32("llama.attention.head_count_kv", param("kv"));
    key_u32("llama.rope.dimension_count", head_dim);
    key_u32("llama.context_length", param("ctx"));
    key_f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    key_f32("llama.rope.freq_base", 10000.0f);
    key_u32("llama.vocab_size", n_tokens);
    key_str("tokenizer.ggml.model", "gpt2");
    key_str("tokenizer.ggml.pre", "smollm");
    array("tokenizer.ggml.tokens", 8, n_tokens, &tokens);
    array("tokenizer.ggml.token_type", 5, n_tokens, &types);
    array("tokenizer.ggml.merges", 8, n_merges, &merges);
    key_u32("tokenizer.ggml.bos_token_id", n_tokens - 2);
    key_u32("tokenizer.ggml.eos_token_id", n_tokens - 1);
    if (param("template"))
        key_str("tokenizer.chat_template",
                "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
                "message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
                "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}");
}

static void weights(void) {
    uint32_t embd = param("embd"), ff = param("ff");
    uint32_t kv_dim = embd / param("heads") * param("kv");
    tensor("token_embd.weight", n_tokens, embd, false);
    for (uint32_t i = 0; i < param("layers"); i++) {
        const struct {
            const char *name;
            uint32_t n, k;
            bool norm;
        } parts[] = {{"attn_norm", 0, embd, true},       {"attn_q", embd, embd, false},
                     {"attn_k", kv_dim, embd, false},    {"attn_v", kv_dim, embd, false},
                     {"attn_output", embd, embd, false}, {"ffn_norm", 0, embd, true},
                     {"ffn_gate", ff, embd, false},      {"ffn_up", ff, embd, false},
                     {"ffn_down", embd, ff, false}};
        for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%u.%s.weight", i, parts[p].name);
            tensor(name, parts[p].n, parts[p].k, parts[p].norm);
        }
    }
    tensor("output_norm.weight", 0, embd, true);
    if (!param("tied"))
        tensor("output.weight", n_tokens, embd, false);
}

static bool set_param(const char *arg) {
    const char *eq = strchr(arg, '=');
    for (size_t i = 0; eq && i < sizeof params / sizeof *params; i++)
        if (strlen(params[i].name) == (size_t)(eq - arg) &&
            memcmp(params[i].name, arg, (size_t)(eq - arg)) == 0) {
            params[i].value = strcmp(eq + 1, "f16") == 0 ? 1
                              : strcmp(eq + 1, "f32") == 0
                                  ? 0
                                  : (uint32_t)strtoul(eq + 1, NULL, 10);
            return true;
        }
    return false;
}

int main(int argc, char **argv) {
    for (int i = 2; i < argc; i++)
        if (!set_param(argv[i]))
            return fprintf(stderr, "mkmodel: what is %s?\n", argv[i]), 2;
    if (argc < 2)
        return fprintf(stderr, "usage: mkmodel FILE [name=value ...]\n"), 2;
    random_state = param("seed") * 0x9e3779b97f4a7c15ull | 1;
    vocabulary();
    metadata();
    weights();
    struct buf out = {0};
    buf_adds(&out, "GGUF");
    u32(&out, param("version"));
    u64(&out, n_info);
    u64(&out, n_kv);
    buf_add(&out, kv.p, kv.len);
    buf_add(&out, info.p, info.len);
    while (out.len % 32)
        buf_addc(&out, 0);
    buf_add(&out, data.p, data.len);
    struct err err;
    enum status st = file_write_atomic(argv[1], out.p, out.len, &err);
    if (st != ST_OK)
        fprintf(stderr, "mkmodel: %s\n", err.msg);
    struct buf *all[] = {&kv, &info, &data, &tokens, &types, &merges, &out};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        buf_release(all[i]);
    return st != ST_OK;
}
