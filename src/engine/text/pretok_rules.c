/*
 * pretok_rules.c - the ways of cutting text into words that models name, see pretok.h.
 *
 * Names are the values of GGUF's tokenizer.ggml.pre; the expressions are those of the models'
 * own tokenizer files (Hugging Face pre_tokenizer, tiktoken pat_str). A model that cuts with
 * several pre-tokenizers has a stage for each, in their order. Left out: counting digits from
 * the right ("superbpe", "afmoe", "tiny_aya"; as a file's own expression regex.c knows it),
 * and vocabularies that are not byte-level ("gemma4"). Where an expression would try each start
 * of a long run of blanks in turn, it says that only the first start can match.
 */
#include "base/mem.h"
#include "engine/text/pretok.h"
#include <string.h>

/* Contractions; letters, numbers and other signs with one blank in front; blanks up to the one
 * before a word. */
#define GPT2                                                                                   \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* The family of cl100k. They differ in how many digits stay together. */
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define CL100K(digits)                                                                         \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits                                      \
                 "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* The family of o200k: words are also cut where lower case turns to upper case. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K(tail, digits)                                                                    \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" tail "|[^\\r\\n\\p{L}\\p{N}]?" UPPER          \
    "+" LOWER "*" tail "|" digits                                                              \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

#define BLOOM  " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+"
#define HAN    "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
#define CJK_V3 "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+"

#define DEEPSEEK_V3                                                                            \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?"       \
    "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* Letters of the scripts that have case, as DeepSeek LLM's tokenizer lists them. */
#define CASED                                                                                  \
    "["                                                                                        \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}"     \
    "-\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}"     \
    "\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}"     \
    "\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-"       \
    "\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}\\x{1d6b}-"             \
    "\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}\\x{1f20}-"             \
    "\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-"     \
    "\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}"     \
    "-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-"            \
    "\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-"     \
    "\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}"      \
    "\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}"     \
    "\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}"     \
    "-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-"            \
    "\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-"             \
    "\\x{ff5a}\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-"      \
    "\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"                \
    "]+"
#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

static const struct pretok_rule RULES[] = {
    {.names =
         NAMES("gpt-2", "", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling",
               "exaone4", "gigachat", "a.x-4.0", "mellum", "modern-bert", "jina-es", "jina-de",
               "jina-v2-es", "jina-v2-de", "jina-v1-en", "jina-v2-code", "roberta-bpe"),
     .stages = {GPT2}},
    {.names = NAMES("default"),
     .stages = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {.names = NAMES("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone",
                    "minerva-7b", "mellum2"),
     .stages = {"\\p{N}", GPT2}},
    {.names = NAMES("falcon"),
     .stages = {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {.names = NAMES("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral",
                    "midm-2.0", "lfm2", "jina-v5-nano"),
     .stages = {CL100K("\\p{N}{1,3}")},
     .whole_words = true,
     .bos = true},
    {.names = NAMES("dbrx", "smaug-bpe", "glm4", "chatglm-bpe"),
     .stages = {CL100K("\\p{N}{1,3}")}},
    {.names = NAMES("minicpm5"),
     .stages = {"\\p{N}{1,3}", CL100K("\\p{N}+")},
     .whole_words = true},
    {.names = NAMES("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2",
                    "hunyuan", "solar-open", "grok-2"),
     .stages = {CL100K("\\p{N}")}},
    {.names = NAMES("qwen35"),
     .stages = {CONTRACTIONS
                "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+"
                "[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {.names = NAMES("seed-coder"),
     .stages = {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+"
                             "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {.names = NAMES("bailingmoe", "bailingmoe2", "llada-moe"),
     .stages = {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}"
                "| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {.names = NAMES("gpt-4o", "o200k", "llama4", "kanana2", "minimax-m2"),
     .stages = {O200K(CONTRACTIONS "?", "\\p{N}{1,3}")}},
    {.names = NAMES("tekken"),
     .stages = {O200K("", "\\p{N}")},
     .whole_words = true,
     .bos = true},
    {.names = NAMES("kimi-k2"),
     .stages = {"[\\p{sc:Han}]+"
                "|[^\\r\\n\\p{L}\\p{N}]?(?:(?!\\p{sc:Han})" UPPER ")*(?:(?!\\p{sc:Han})" LOWER
                ")+" CONTRACTIONS "?|[^\\r\\n\\p{L}\\p{N}]?(?:(?!\\p{sc:Han})" UPPER
                ")+(?:(?!\\p{sc:Han})" LOWER ")*" CONTRACTIONS
                "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {.names = NAMES("deepseek-llm"),
     .stages =
         {"[\\r\\n]", "\\s?" CASED,
          "\\s?[!-/"
          ":-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+",
          "(?<!\\s)\\s++$", HAN, "\\p{N}"}},
    {.names = NAMES("deepseek-coder"),
     .stages = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", HAN, "\\p{N}"}},
    {.names = NAMES("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"),
     .stages = {"\\p{N}{1,3}", CJK_V3, DEEPSEEK_V3}},
    {.names = NAMES("bloom", "gpt3-finnish", "poro-chat"), .stages = {BLOOM}},
    {.names = NAMES("viking"), .stages = {BLOOM, "\\p{N}"}},
};

const struct pretok_rule *pretok_rules(size_t *n) {
    *n = sizeof RULES / sizeof *RULES;
    return RULES;
}

/* The first name of each rule; all of them would not fit a message. */
static enum status name_unknown(const char *name, struct err *err) {
    struct buf known = {0};
    for (size_t i = 0; i < sizeof RULES / sizeof *RULES; i++)
        buf_addf(&known, "%s%s", i ? ", " : "", RULES[i].names[0]);
    enum status st =
        err_set(err, ST_UNSUPPORTED,
                "tokenizer.ggml.pre: pre-tokenizer \"%.40s\" is not known; known are "
                "those of %s and their like",
                name, buf_str(&known));
    buf_release(&known);
    return st;
}

enum status pretok_rule(const char *name, const struct pretok_rule **out, struct err *err) {
    for (size_t i = 0; i < sizeof RULES / sizeof *RULES; i++)
        for (const char *const *p = RULES[i].names; *p; p++)
            if (strcmp(*p, name) == 0) {
                *out = &RULES[i];
                return ST_OK;
            }
    return name_unknown(name, err);
}
