/*
 * test_tokenizer.c - text to tokens and back.
 *
 * Three sources of truth: vocabularies small enough to work out by hand, built here; golden
 * files with the ids of Hugging Face's tokenizers (tests/oracle/tokenizer.py), for the default
 * model when LLMCHAT_TEST_GGUF names it; and llama.cpp's own vocabulary files with texts and
 * ids, when the folder ../shared/data/vocab lies beside the project.
 */
#include "base/file_map.h"
#include "base/path.h"
#include "base/utf8.h"
#include "engine/model/vocab_store.h"
#include "engine/text.h"
#include "engine/text/pretok.h"
#include "engine/text/text_internal.h"
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- small vocabularies ---- */

struct maker {
    struct buf tokens, merges;
    uint32_t token_off[1024], merge_off[64];
    uint32_t n_token, n_merge;
    int32_t types[1024];
    float scores[1024];
    struct vocab_data v;
};

static int32_t put(struct maker *m, const char *text, int type, float score) {
    buf_adds(&m->tokens, text);
    m->types[m->n_token] = type;
    m->scores[m->n_token] = score;
    m->token_off[++m->n_token] = (uint32_t)m->tokens.len;
    return (int32_t)m->n_token - 1;
}

static void put_merge(struct maker *m, const char *text) {
    buf_adds(&m->merges, text);
    m->merge_off[++m->n_merge] = (uint32_t)m->merges.len;
}

/* GPT-2's spelling of a byte: bytes that Latin-1 can print as themselves, the others as U+0100
 * and on. */
static void spell(int byte, char out[8]) {
    int next = 256, cp = byte;
    for (int b = 0; b <= byte; b++) {
        int printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xff && b != 0xad);
        if (!printable)
            cp = next++;
        else
            cp = b;
    }
    out[utf8_encode((uint32_t)cp, out)] = '\0';
}

static struct maker *maker_new(const char *model, const char *pre) {
    struct maker *m = xcalloc(1, sizeof *m);
    m->v.model = model;
    m->v.pre = pre;
    m->v.chat_template = "";
    m->v.bos = m->v.eos = m->v.eot = m->v.eom = m->v.unk = m->v.pad = -1;
    m->v.add_bos = m->v.add_eos = m->v.add_space_prefix = -1;
    return m;
}

/* Tokens 0..255 are the bytes, so the id of a byte is its value. */
static struct maker *maker_bytes(const char *pre) {
    struct maker *m = maker_new("gpt2", pre);
    for (int b = 0; b < 256; b++) {
        char text[8];
        spell(b, text);
        put(m, text, VOCAB_NORMAL, 0);
    }
    return m;
}

static enum status maker_open(struct maker *m, struct text_model **t, struct err *err) {
    m->v.tokens = (struct vocab_strings){m->n_token, buf_str(&m->tokens), m->token_off};
    m->v.merges = (struct vocab_strings){m->n_merge, buf_str(&m->merges), m->merge_off};
    m->v.types = m->types;
    m->v.scores = m->scores;
    enum status st = text_from_vocab(&m->v, t, err);
    buf_release(&m->tokens);
    buf_release(&m->merges);
    free(m);
    return st;
}

static struct text_model *maker_make(struct maker *m) {
    struct text_model *t;
    struct err err = {0};
    if (maker_open(m, &t, &err) != ST_OK)
        fail_msg("%s", err.msg);
    return t;
}

static struct tok_list encode(const struct text_model *t, const char *text, size_t len,
                              struct encode_opts opts) {
    struct tok_list out = {0};
    struct err err = {0};
    if (text_encode(t, text, len, &opts, &out, &err) != ST_OK)
        fail_msg("%s", err.msg);
    return out;
}

static void expect_ids(const struct text_model *t, const char *text, size_t len,
                       struct encode_opts opts, const int32_t *want, size_t n) {
    struct tok_list got = encode(t, text, len, opts);
    if (got.n != n || (n > 0 && memcmp(got.v, want, n * sizeof *want) != 0)) {
        print_message("text \"%.60s\":", text);
        for (size_t i = 0; i < got.n; i++)
            print_message(" %d", (int)got.v[i]);
        fail_msg(", wanted %zu other tokens", n);
    }
    tok_list_release(&got);
}

#define IDS(t, text, opts, ...)                                                                \
    expect_ids(t, text, sizeof(text) - 1, opts, (const int32_t[]){__VA_ARGS__},                \
               sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))
#define PLAIN  ((struct encode_opts){0})
#define MARKED ((struct encode_opts){.special = true})

static void merges_are_applied_in_the_order_of_the_list(void **state) {
    (void)state;
    struct maker *m = maker_bytes("gpt-2");
    int32_t bc = put(m, "bc", VOCAB_NORMAL, 0), ab = put(m, "ab", VOCAB_NORMAL, 0);
    int32_t abc = put(m, "abc", VOCAB_NORMAL, 0), aa = put(m, "aa", VOCAB_NORMAL, 0);
    put_merge(m, "b c");
    put_merge(m, "a b");
    put_merge(m, "a bc");
    put_merge(m, "a a");
    struct text_model *t = maker_make(m);
    IDS(t, "abc", PLAIN, abc); /* bc first, then a with bc */
    IDS(t, "ab", PLAIN, ab);
    IDS(t, "bcb", PLAIN, bc, 'b');
    IDS(t, "aaa", PLAIN, aa, 'a');       /* equal ranks: the leftmost */
    IDS(t, "aaab", PLAIN, aa, ab);       /* rank of "a b" is before "a a" */
    IDS(t, "ab bc", PLAIN, ab, ' ', bc); /* words are merged each by itself */
    text_close(t);
}

static void words_are_cut_by_the_expression_of_the_name(void **state) {
    (void)state;
    const struct {
        const char *pre;
        int n; /* tokens of "12", where only "1 2" can be merged */
    } cases[] = {{"gpt-2", 1},     {"", 1},      {"smollm", 2},
                 {"llama-bpe", 1}, {"qwen2", 2}, {"tekken", 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct maker *m = maker_bytes(cases[i].pre);
        put(m, "12", VOCAB_NORMAL, 0);
        put_merge(m, "1 2");
        struct text_model *t = maker_make(m);
        struct tok_list got = encode(t, "12", 2, PLAIN);
        /* tekken takes whole words first, but each digit is a word */
        assert_int_equal(got.n, cases[i].n);
        tok_list_release(&got);
        text_close(t);
    }
}

static enum status collect(void *user, const char *word, size_t len, struct err *err) {
    (void)err;
    buf_add(user, word, len);
    buf_addc(user, '|');
    return ST_OK;
}

static void expect_words(const char *pre, const char *text, const char *want) {
    const struct pretok_rule *rule;
    struct pretok *p;
    struct err err;
    struct buf out = {0};
    assert_int_equal(pretok_rule(pre, &rule, &err), ST_OK);
    assert_int_equal(pretok_open(rule->stages, &p, &err), ST_OK);
    struct pretok_run *r = pretok_run_new(p);
    assert_int_equal(pretok_split(r, text, strlen(text), true, collect, &out, &err), ST_OK);
    assert_string_equal(buf_str(&out), want);
    buf_release(&out);
    pretok_run_free(r);
    pretok_close(p);
}

static void words_of_known_models(void **state) {
    (void)state;
    expect_words("gpt-2", "I'll go  to 1234!\n\nx", "I|'ll| go| | to| 1234|!|\n|\n|x|");
    expect_words("smollm", "a  12", "a|  |1|2|"); /* a look-ahead ends at an earlier cut */
    expect_words("gpt-2", "a  12", "a| | 12|");
    expect_words("llama-bpe", "I'LL 12345 (x)\r\n y", "I|'LL| |123|45| (|x|)\r\n| y|");
    expect_words("qwen2", "a12", "a|1|2|");
    expect_words("gpt-4o", "HelloWorld's", "Hello|World's|");
    expect_words("falcon", "a+12345", "a|+|123|45|");
    expect_words("deepseek-llm", "a  \nb1", "a|  |\n|b|1|");
    expect_words("gpt-2", "\xe1\xa0\x8e x", "\xe1\xa0\x8e| x|"); /* U+180E is no blank */
    expect_words("gpt-2", "\xf0\xb1\x98\xaf's",
                 "\xf0\xb1\x98\xaf|'s|"); /* a letter of Unicode 15 */
}

static void every_rule_cuts_without_losing_text(void **state) {
    (void)state;
    static const char text[] =
        "Hello  w\xc3\xb6rld\t12345 \n\n x' s'S \xe6\xbc\xa2\xe5\xad\x97 "
        "\xe3\x81\x82\xf0\x9f\x99\x82 A.B,c!?() \r\n  ";
    size_t n;
    const struct pretok_rule *rules = pretok_rules(&n);
    for (size_t i = 0; i < n; i++) {
        struct pretok *p;
        struct err err = {0};
        struct buf out = {0};
        if (pretok_open(rules[i].stages, &p, &err) != ST_OK)
            fail_msg("%s: %s", rules[i].names[0], err.msg);
        struct pretok_run *r = pretok_run_new(p);
        assert_int_equal(pretok_split(r, text, sizeof text - 1, true, collect, &out, &err),
                         ST_OK);
        size_t k = 0, words = 0;
        for (size_t j = 0; j < out.len; j++) { /* '|' is not in the text */
            if (out.p[j] == '|')
                words++;
            else
                assert_int_equal(out.p[j], text[k++]);
        }
        assert_int_equal(k, sizeof text - 1);
        assert_true(words > 5);
        buf_release(&out);
        pretok_run_free(r);
        pretok_close(p);
    }
}

static void unknown_pre_tokenizer_is_named(void **state) {
    (void)state;
    struct text_model *t;
    struct err err;
    assert_int_equal(maker_open(maker_bytes("martian"), &t, &err), ST_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "martian"));
    assert_non_null(strstr(err.msg, "smollm"));
}

static void unknown_tokenizer_model_is_named(void **state) {
    (void)state;
    struct maker *m = maker_bytes("");
    struct text_model *t;
    struct err err;
    m->v.model = "bert";
    assert_int_equal(maker_open(m, &t, &err), ST_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "bert"));
}

static void broken_merges_are_refused(void **state) {
    (void)state;
    const char *bad[] = {"ab", "", "a ", " b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct maker *m = maker_bytes("");
        struct text_model *t;
        struct err err;
        put_merge(m, bad[i]);
        assert_int_equal(maker_open(m, &t, &err), ST_FORMAT);
        assert_non_null(strstr(err.msg, "tokenizer.ggml.merges"));
    }
}

static void bytes_without_a_token_are_left_out(void **state) {
    (void)state;
    struct maker *m = maker_new("gpt2", "gpt-2");
    int32_t a = put(m, "a", VOCAB_NORMAL, 0), aa = put(m, "aa", VOCAB_NORMAL, 0);
    put_merge(m, "a a");
    struct text_model *t = maker_make(m);
    IDS(t, "aba", PLAIN, aa); /* before merging: the neighbours meet */
    IDS(t, "a", PLAIN, a);
    expect_ids(t, "b", 1, PLAIN, NULL, 0);
    text_close(t);
}

static void invalid_utf8_becomes_replacement_characters(void **state) {
    (void)state;
    struct text_model *t = maker_make(maker_bytes("gpt-2"));
    IDS(t, "a\xff", PLAIN, 'a', 0xef, 0xbf, 0xbd);
    IDS(t, "\xe6\xbc(", PLAIN, 0xef, 0xbf, 0xbd, '(');
    IDS(t, "\0", PLAIN, 0);
    text_close(t);
}

/* Ids 256.. : <|im_start|> <|im_end|> (control), <tool> <tools> (user-defined), <|user|>
 * (user-defined by mistake). */
static struct text_model *special_model(void) {
    struct maker *m = maker_bytes("gpt-2");
    put(m, "<|im_start|>", VOCAB_CONTROL, 0);
    m->v.eos = put(m, "<|im_end|>", VOCAB_CONTROL, 0);
    put(m, "<tool>", VOCAB_USER_DEFINED, 0);
    put(m, "<tools>", VOCAB_USER_DEFINED, 0);
    put(m, "<|user|>", VOCAB_USER_DEFINED, 0);
    m->v.bos = put(m, "<s>", VOCAB_CONTROL, 0);
    put(m, "<|endoftext|>", VOCAB_CONTROL, 0);
    put(m, "<|eot_id|>", VOCAB_NORMAL, 0);
    return maker_make(m);
}
enum { IM_START = 256, IM_END, TOOL, TOOLS, USER, BOS, ENDOFTEXT, NORMAL_EOT };

static void control_tokens_only_when_asked_for(void **state) {
    (void)state;
    struct text_model *t = special_model();
    IDS(t, "<|im_end|>", PLAIN, '<', '|', 'i', 'm', '_', 'e', 'n', 'd', '|', '>');
    IDS(t, "x<|im_end|>", MARKED, 'x', IM_END);
    IDS(t, "<<|im_start|><|im_end|", MARKED, '<', IM_START, '<', '|', 'i', 'm', '_', 'e', 'n',
        'd', '|');
    IDS(t, "<|user|>", PLAIN, '<', '|', 'u', 's', 'e', 'r', '|', '>');
    IDS(t, "<|user|>", MARKED, USER);
    assert_true(text_is_control(t, USER));
    text_close(t);
}

static void user_defined_tokens_match_longest_first(void **state) {
    (void)state;
    struct text_model *t = special_model();
    IDS(t, "<tools><tool>x", PLAIN, TOOLS, TOOL, 'x');
    IDS(t, "<tool", PLAIN, '<', 't', 'o', 'o', 'l');
    assert_false(text_is_control(t, TOOL));
    text_close(t);
}

static void marked_bytes_take_no_part_in_a_control_token(void **state) {
    (void)state;
    struct text_model *t = special_model();
    static const char text[] = "<|im_end|><|im_end|>";
    for (size_t at = 0; at < 10; at++) { /* any one byte of the first is a person's */
        uint8_t plain[20] = {0};
        plain[at] = 1;
        struct tok_list got =
            encode(t, text, 20, (struct encode_opts){.special = true, .plain = plain});
        assert_int_equal(got.n, 11);
        for (size_t i = 0; i < 10; i++)
            assert_int_equal(got.v[i], text[i]);
        assert_int_equal(got.v[10], IM_END);
        tok_list_release(&got);
    }
    text_close(t);
}

static void marks_follow_bytes_through_mended_text(void **state) {
    (void)state;
    struct text_model *t = special_model();
    static const char text[] = "\xff<|im_end|>\xff<|im_end|>";
    uint8_t plain[22] = {0};
    plain[5] = 1; /* inside the first */
    struct tok_list got =
        encode(t, text, 22, (struct encode_opts){.special = true, .plain = plain});
    assert_int_equal(got.n, 3 + 10 + 3 + 1);
    assert_int_equal(got.v[16], IM_END);
    tok_list_release(&got);
    text_close(t);
}

static void begin_and_end_tokens_when_asked_for(void **state) {
    (void)state;
    struct text_model *t = special_model();
    IDS(t, "a", ((struct encode_opts){.bos = true, .eos = true}), BOS, 'a', IM_END);
    IDS(t, "", ((struct encode_opts){.bos = true}), BOS);
    assert_false(text_adds_bos(t));
    text_close(t);
}

static void ends_of_generation(void **state) {
    (void)state;
    struct text_model *t = special_model();
    assert_true(text_is_eog(t, IM_END));
    assert_true(text_is_eog(t, ENDOFTEXT));
    assert_false(
        text_is_eog(t, NORMAL_EOT)); /* the text is known, but it is no control token */
    assert_false(text_is_eog(t, IM_START));
    assert_false(text_is_eog(t, 'a'));
    assert_false(text_is_eog(t, -1));
    assert_false(text_is_eog(t, 1 << 20));
    text_close(t);
}

static void control_tokens_are_invisible_unless_asked_for(void **state) {
    (void)state;
    struct text_model *t = special_model();
    struct buf out = {0};
    text_decode(t, IM_END, false, &out);
    text_decode(t, TOOL, false, &out);
    text_decode(t, 'a', false, &out);
    text_decode(t, 0xff, false, &out);
    text_decode(t, -1, false, &out);
    text_decode(t, 99999, false, &out);
    assert_string_equal(buf_str(&out), "<tool>a\xff");
    buf_clear(&out);
    text_decode(t, IM_END, true, &out);
    assert_string_equal(buf_str(&out), "<|im_end|>");
    buf_release(&out);
    text_close(t);
}

/* Quadratic merging would take hours here. */
static void a_megabyte_without_a_break(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    struct maker *m = maker_bytes("gpt-2");
    int32_t a2 = put(m, "aa", VOCAB_NORMAL, 0), a4 = put(m, "aaaa", VOCAB_NORMAL, 0);
    put_merge(m, "a a");
    put_merge(m, "aa aa");
    struct text_model *t = maker_make(m);
    char *text = xmalloc(N);
    memset(text, 'a', N);
    struct tok_list got = encode(t, text, N - 1, PLAIN);
    assert_int_equal(got.n, N / 4 + 1); /* N - 1 = 4 * (N / 4 - 1) + 2 + 1 */
    assert_int_equal(got.v[0], a4);
    assert_int_equal(got.v[got.n - 2], a2);
    assert_int_equal(got.v[got.n - 1], 'a');
    tok_list_release(&got);
    const char runs[] = " \n.1\t";
    for (size_t i = 0; i < sizeof runs - 1; i++) {
        memset(text, runs[i], N);
        got = encode(t, text, N, PLAIN);
        assert_int_equal(got.n, N);
        tok_list_release(&got);
    }
    free(text);
    text_close(t);
}

static void runs_of_a_megabyte_pass_every_rule(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    static const char *const units[] = {" ", "\n", " \n",          "A",        "aB",
                                        "1", "!",  "\xe6\xbc\xa2", "\xcc\x81", "'"};
    size_t n;
    const struct pretok_rule *rules = pretok_rules(&n);
    char *text = xmalloc(N + 4);
    for (size_t i = 0; i < n; i++) {
        struct pretok *p;
        struct err err = {0};
        assert_int_equal(pretok_open(rules[i].stages, &p, &err), ST_OK);
        struct pretok_run *r = pretok_run_new(p);
        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            size_t step = strlen(units[u]), len = 0;
            for (; len + step <= N; len += step)
                memcpy(text + len, units[u], step);
            text[len++] = 'x';
            struct buf out = {0};
            if (pretok_split(r, text, len, true, collect, &out, &err) != ST_OK)
                fail_msg("%s, run of \"%s\": %s", rules[i].names[0], units[u], err.msg);
            assert_true(out.len > len);
            buf_release(&out);
        }
        pretok_run_free(r);
        pretok_close(p);
    }
    free(text);
}

static void absurd_texts_are_refused(void **state) {
    (void)state;
    struct text_model *t = maker_make(maker_bytes("gpt-2"));
    struct tok_list out = {0};
    struct err err;
    tok_list_add(&out, 7);
    assert_int_equal(text_encode(t, "", (size_t)1 << 40, &PLAIN, &out, &err), ST_LIMIT);
    size_t len = (size_t)9 << 20;
    char *word = xmalloc(len);
    memset(word, 'a', len);
    assert_int_equal(text_encode(t, word, len, &PLAIN, &out, &err), ST_LIMIT);
    assert_int_equal(out.n, 1); /* as it was */
    free(word);
    tok_list_release(&out);
    text_close(t);
}

static void words_from_the_cache_are_the_same(void **state) {
    (void)state;
    struct maker *m = maker_bytes("gpt-2");
    int32_t ab = put(m, "ab", VOCAB_NORMAL, 0);
    put_merge(m, "a b");
    struct text_model *t = maker_make(m);
    struct buf text = {0};
    for (int i = 0; i < 3000; i++)
        buf_adds(&text, i % 3 ? " ab" : " abab");
    struct tok_list got = encode(t, text.p, text.len, PLAIN);
    assert_int_equal(got.n, 1000 * 3 + 2000 * 2);
    for (size_t i = 0; i < got.n; i++)
        assert_true(got.v[i] == ' ' || got.v[i] == ab);
    struct buf back = {0};
    text_decode_all(t, got.v, got.n, false, &back);
    assert_string_equal(buf_str(&back), buf_str(&text));
    buf_release(&back);
    buf_release(&text);
    tok_list_release(&got);
    text_close(t);
}

/* ---- SentencePiece ---- */

#define SP "\xe2\x96\x81"

static struct text_model *spm_model(bool inner_blank) {
    struct maker *m = maker_new("llama", "default");
    m->v.unk = put(m, "<unk>", VOCAB_UNKNOWN, 0);
    m->v.bos = put(m, "<s>", VOCAB_CONTROL, 0);
    m->v.eos = put(m, "</s>", VOCAB_CONTROL, 0);
    for (int b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", b);
        put(m, text, VOCAB_BYTE, 0);
    }
    put(m, SP, VOCAB_NORMAL, -10);    /* 259 */
    put(m, "a", VOCAB_NORMAL, -11);   /* 260 */
    put(m, "b", VOCAB_NORMAL, -12);   /* 261 */
    put(m, "ab", VOCAB_NORMAL, -2);   /* 262 */
    put(m, SP "a", VOCAB_NORMAL, -1); /* 263 */
    put(m, "ba", VOCAB_NORMAL, -3);   /* 264 */
    if (inner_blank)
        put(m, "b" SP, VOCAB_NORMAL, -0.5f); /* 265 */
    return maker_make(m);
}

static void sentencepiece_joins_by_score(void **state) {
    (void)state;
    struct text_model *t = spm_model(false);
    IDS(t, "ab", PLAIN, 263, 261);       /* the blank in front takes the a */
    IDS(t, "bab", PLAIN, 259, 261, 262); /* "ab" is better than "ba" */
    IDS(t, "b ab", PLAIN, 259, 261, 263, 261);
    IDS(t, "b\xc3\xa9", PLAIN, 259, 261, 3 + 0xc3, 3 + 0xa9);
    IDS(t, "<0x41>", PLAIN, 259, 3 + '<', 3 + '0', 3 + 'x', 3 + '4', 3 + '1', 3 + '>');
    IDS(t, "</s>", MARKED, 2);
    assert_true(text_adds_bos(t));
    text_close(t);
    t = spm_model(true);
    IDS(t, "b ab", PLAIN, 259, 265, 262); /* joined over the blank */
    text_close(t);
}

static void sentencepiece_text_comes_back(void **state) {
    (void)state;
    struct text_model *t = spm_model(false);
    const char *texts[] = {"ab ab", " a", "  b\n\xc3\xa9", "x<0x41>", "a"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct tok_list ids =
            encode(t, texts[i], strlen(texts[i]), (struct encode_opts){.bos = true});
        struct buf out = {0};
        text_decode_all(t, ids.v, ids.n, false, &out);
        assert_string_equal(buf_str(&out), texts[i]);
        buf_release(&out);
        tok_list_release(&ids);
    }
    text_close(t);
}

/* ---- files that change ---- */

static void write_vocab(const struct vocab_data *v, const char *path) {
    struct err err = {0};
    struct container_writer *w = container_writer_new();
    vocab_declare(w, v);
    assert_int_equal(container_writer_begin(w, path, &err), ST_OK);
    assert_int_equal(vocab_write(w, v, &err), ST_OK);
    assert_int_equal(container_writer_commit(w, &err), ST_OK);
    container_writer_free(w);
}

/* A file of ours that is cut to `size` bytes after its vocabulary was checked, before a text
 * model is made of it. */
static void open_cut(const char *path, off_t size) {
    struct err err = {0};
    struct container *c;
    struct vocab_data v;
    struct text_model *t;
    assert_int_equal(container_open(path, &c, &err), ST_OK);
    assert_int_equal(vocab_from_container(&v, c, &err), ST_OK);
    assert_int_equal(truncate(path, size), 0);
    if (text_from_vocab(&v, &t, &err) == ST_OK) {
        struct tok_list ids = encode(t, "abc <0x41>", 10, (struct encode_opts){0});
        tok_list_release(&ids);
        text_close(t);
    }
    vocab_release(&v);
    container_close(c);
}

static void a_vocabulary_that_is_cut_has_no_wild_strings(void **state) {
    (void)state;
    file_map_guard();
    char dir[] = "/tmp/llmchat-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *path = xasprintf("%s/cut.safetensors", dir);
    for (int llama = 0; llama < 2; llama++) {
        struct maker *m = maker_bytes("gpt-2");
        m->v.model = llama ? "llama" : "gpt2";
        m->v.arch = m->v.name = m->v.pipeline = "";
        for (int i = 0; m->n_token < 1023; i++) {
            char text[64];
            snprintf(text, sizeof text, "%c%032d", 'a' + i % 26, i);
            put(m, text, i % 50 ? VOCAB_NORMAL : VOCAB_USER_DEFINED, (float)-i);
        }
        put_merge(m, "a b");
        m->v.tokens = (struct vocab_strings){m->n_token, buf_str(&m->tokens), m->token_off};
        m->v.merges = (struct vocab_strings){m->n_merge, buf_str(&m->merges), m->merge_off};
        m->v.types = m->types;
        m->v.scores = m->scores;
        struct stat sb = {.st_size = 1};
        for (off_t size = 4096; size < sb.st_size || size == 4096; size += 4096) {
            write_vocab(&m->v, path);
            assert_int_equal(stat(path, &sb), 0);
            open_cut(path, size);
        }
        buf_release(&m->tokens);
        buf_release(&m->merges);
        free(m);
    }
    unlink(path);
    rmdir(dir);
    free(path);
}

/* ---- real vocabularies ---- */

static struct text_model *open_model(const char *path) {
    struct text_model *t;
    struct err err = {0};
    if (text_open(path, &t, &err) != ST_OK)
        fail_msg("%s", err.msg);
    return t;
}

static char *from_srcdir(const char *relative) {
    const char *srcdir = getenv("srcdir");
    return path_join(srcdir ? srcdir : ".", relative);
}

static void golden_case(const struct text_model *t, const json_t *c) {
    const json_t *text = json_object_get(c, "text"), *ids = json_object_get(c, "ids");
    int repeat = (int)json_integer_value(json_object_get(c, "repeat"));
    struct buf all = {0};
    int32_t *want = xcalloc(json_array_size(ids), sizeof *want);
    for (int i = 0; i < (repeat ? repeat : 1); i++)
        buf_add(&all, json_string_value(text), json_string_length(text));
    for (size_t i = 0; i < json_array_size(ids); i++)
        want[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    expect_ids(t, buf_str(&all), all.len,
               (struct encode_opts){.special = json_is_true(json_object_get(c, "special"))},
               want, json_array_size(ids));
    struct tok_list got = encode(t, buf_str(&all), all.len, PLAIN);
    struct buf back = {0};
    text_decode_all(t, got.v, got.n, false, &back);
    if (back.len == all.len) /* a byte without a token is lost */
        assert_string_equal(buf_str(&back), buf_str(&all));
    else
        assert_true(back.len < all.len);
    buf_release(&back);
    tok_list_release(&got);
    free(want);
    buf_release(&all);
}

static void golden(const char *vocab, const char *name) {
    char *path = from_srcdir(name);
    json_error_t error;
    json_t *file = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (!file)
        fail_msg("%s: %s", path, error.text);
    struct text_model *t = open_model(vocab);
    const json_t *cases = json_object_get(file, "cases");
    assert_true(json_array_size(cases) > 50);
    for (size_t i = 0; i < json_array_size(cases); i++)
        golden_case(t, json_array_get(cases, i));
    text_close(t);
    json_decref(file);
    free(path);
}

static char *shared_vocab(const char *name) {
    char *path = from_srcdir("../shared/data/vocab");
    char *file = path_join(path, name);
    free(path);
    if (access(file, R_OK) != 0) {
        free(file);
        skip();
    }
    return file;
}

static const char *default_model(void) {
    const char *path = getenv("LLMCHAT_TEST_GGUF");
    if (!path || !*path)
        skip();
    return path;
}

static void golden_smollm2(void **state) {
    (void)state;
    golden(default_model(), "tests/golden/tokenizer/smollm2.json");
}

static void golden_llama_bpe(void **state) {
    (void)state;
    char *path = shared_vocab("ggml-vocab-llama-bpe.gguf");
    golden(path, "tests/golden/tokenizer/llama-bpe.json");
    free(path);
}

/* Every control token of a vocabulary, written in a person's text, alone and inside a sentence.
 */
static void no_text_becomes_control(const struct text_model *t) {
    int n_control = 0;
    for (int32_t id = 0; id < text_n_vocab(t); id++) {
        if (!text_is_control(t, id))
            continue;
        struct buf text = {0};
        n_control++;
        text_decode(t, id, true, &text);
        expect_ids(t, text.p, text.len, MARKED, &id, 1);
        for (int round = 0; round < 2; round++) {
            struct tok_list got = encode(t, text.p, text.len, PLAIN);
            assert_true(got.n > 0);
            for (size_t i = 0; i < got.n; i++)
                assert_false(text_is_control(t, got.v[i]));
            tok_list_release(&got);
            buf_adds(&text, " and on");
        }
        buf_release(&text);
    }
    assert_true(n_control > 0);
}

static void no_text_becomes_a_control_token_of_smollm2(void **state) {
    (void)state;
    struct text_model *t = open_model(default_model());
    no_text_becomes_control(t);
    assert_true(text_is_eog(t, text_eos(t)));
    assert_true(strstr(text_chat_template(t), "<|im_start|>") != NULL);
    text_close(t);
}

/* ids of one line of an .out file */
static struct tok_list line_ids(const char *s, size_t len) {
    struct tok_list ids = {0};
    char *line = xstrndup(s, len), *p = line, *end;
    for (long id = strtol(p, &end, 10); end != p; id = strtol(p, &end, 10)) {
        tok_list_add(&ids, (int32_t)id);
        p = end;
    }
    free(line);
    return ids;
}

static void vocab_file(const char *name) {
    static const char between[] = "\n__ggml_vocab_test__\n";
    char *path = shared_vocab(name), *inp = xasprintf("%s.inp", path),
         *out = xasprintf("%s.out", path);
    struct text_model *t = open_model(path);
    no_text_becomes_control(t);
    struct buf texts = {0}, lines = {0};
    struct err err;
    int n = 0;
    assert_int_equal(file_read(inp, 1 << 20, &texts, &err), ST_OK);
    assert_int_equal(file_read(out, 1 << 20, &lines, &err), ST_OK);
    const char *p = texts.p, *l = lines.p;
    while (p) {
        const char *end = strstr(p, between), *eol = strchrnul(l, '\n');
        struct tok_list want = line_ids(l, (size_t)(eol - l));
        expect_ids(t, p, end ? (size_t)(end - p) : strlen(p), PLAIN, want.v, want.n);
        tok_list_release(&want);
        p = end ? end + sizeof between - 1 : NULL;
        l = *eol ? eol + 1 : eol;
        n++;
    }
    assert_true(n > 40);
    assert_int_equal(*l, '\0'); /* as many lines as texts */
    buf_release(&texts);
    buf_release(&lines);
    text_close(t);
    free(path);
    free(inp);
    free(out);
}

static void vocabulary_of_gpt_2(void **state) {
    (void)state;
    vocab_file("ggml-vocab-gpt-2.gguf");
}

static void vocabulary_of_llama_bpe(void **state) {
    (void)state;
    vocab_file("ggml-vocab-llama-bpe.gguf");
}

static void vocabulary_of_deepseek_coder(void **state) {
    (void)state;
    vocab_file("ggml-vocab-deepseek-coder.gguf");
}

static void vocabulary_of_llama_spm(void **state) {
    (void)state;
    vocab_file("ggml-vocab-llama-spm.gguf");
}

static void vocabulary_of_gpt_neox(void **state) {
    (void)state;
    char *path = shared_vocab("ggml-vocab-gpt-neox.gguf");
    struct text_model *t = open_model(path);
    no_text_becomes_control(t);
    struct tok_list got =
        encode(t, "a    b", 6, PLAIN); /* four blanks are a user-defined token */
    assert_int_equal(got.n, 3);
    tok_list_release(&got);
    text_close(t);
    free(path);
}

static void what_cannot_be_opened_says_why(void **state) {
    (void)state;
    struct text_model *t;
    struct err err;
    assert_int_equal(text_open("/nonexistent/model.gguf", &t, &err), ST_NOT_FOUND);
    assert_int_equal(text_open("/", &t, &err), ST_NOT_FOUND);
    assert_int_equal(text_open("/dev/null", &t, &err), ST_FORMAT);
    assert_non_null(strstr(err.msg, "/dev/null"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_are_applied_in_the_order_of_the_list),
        cmocka_unit_test(words_are_cut_by_the_expression_of_the_name),
        cmocka_unit_test(words_of_known_models),
        cmocka_unit_test(every_rule_cuts_without_losing_text),
        cmocka_unit_test(unknown_pre_tokenizer_is_named),
        cmocka_unit_test(unknown_tokenizer_model_is_named),
        cmocka_unit_test(broken_merges_are_refused),
        cmocka_unit_test(bytes_without_a_token_are_left_out),
        cmocka_unit_test(invalid_utf8_becomes_replacement_characters),
        cmocka_unit_test(control_tokens_only_when_asked_for),
        cmocka_unit_test(user_defined_tokens_match_longest_first),
        cmocka_unit_test(marked_bytes_take_no_part_in_a_control_token),
        cmocka_unit_test(marks_follow_bytes_through_mended_text),
        cmocka_unit_test(begin_and_end_tokens_when_asked_for),
        cmocka_unit_test(ends_of_generation),
        cmocka_unit_test(control_tokens_are_invisible_unless_asked_for),
        cmocka_unit_test(a_megabyte_without_a_break),
        cmocka_unit_test(runs_of_a_megabyte_pass_every_rule),
        cmocka_unit_test(absurd_texts_are_refused),
        cmocka_unit_test(words_from_the_cache_are_the_same),
        cmocka_unit_test(sentencepiece_joins_by_score),
        cmocka_unit_test(sentencepiece_text_comes_back),
        cmocka_unit_test(golden_smollm2),
        cmocka_unit_test(golden_llama_bpe),
        cmocka_unit_test(no_text_becomes_a_control_token_of_smollm2),
        cmocka_unit_test(vocabulary_of_gpt_2),
        cmocka_unit_test(vocabulary_of_llama_bpe),
        cmocka_unit_test(vocabulary_of_deepseek_coder),
        cmocka_unit_test(vocabulary_of_llama_spm),
        cmocka_unit_test(vocabulary_of_gpt_neox),
        cmocka_unit_test(what_cannot_be_opened_says_why),
        cmocka_unit_test(a_vocabulary_that_is_cut_has_no_wild_strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
