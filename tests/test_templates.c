/*
 * test_templates.c - which chat template a model gets: those that a Hugging Face folder, a GGUF
 * file or one of ours bring, the one for tools, and the built-in ones with the rule that
 * chooses. The built-in formats are held against texts written down here by hand.
 */
#include "base/path.h"
#include "base/utf8.h"
#include "engine/model/container.h"
#include "engine/model/gguf.h"
#include "engine/model/vocab_store.h"
#include "engine/text.h"
#include "engine/text/builtin_templates.h"
#include "engine/text/hf_templates.h"
#include "engine/text/text_internal.h"
#include "gguf_build.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char *dir;

static void write_file(const char *name, const char *text, size_t len) {
    char *path = path_join(dir, name);
    struct err err = {0};
    if (file_write_atomic(path, text, len, &err) != ST_OK)
        fail_msg("%s", err.msg);
    free(path);
}

static void put(const char *name, const char *text) {
    write_file(name, text, strlen(text));
}

static int new_folder(void **state) {
    (void)state;
    char name[] = "/tmp/test_templates.XXXXXX";
    dir = xstrdup(mkdtemp(name));
    char *more = path_join(dir, "additional_chat_templates");
    int rc = mkdir(more, 0700);
    free(more);
    return rc;
}

static int remove_folder(void **state) {
    (void)state;
    struct buf cmd = {0};
    buf_addf(&cmd, "rm -rf %s", dir);
    int rc = system(cmd.p);
    buf_release(&cmd);
    free(dir);
    return rc;
}

/* ---- folders ---- */

static const char *template_of(const struct vocab_data *v, const char *name) {
    static char text[256];
    for (uint32_t i = 0; i < v->template_names.n; i++) {
        size_t n, len;
        const char *p = vocab_string(&v->template_names, i, &n);
        if (n == strlen(name) && memcmp(p, name, n) == 0) {
            p = vocab_string(&v->template_texts, i, &len);
            snprintf(text, sizeof text, "%.*s", (int)len, p);
            return text;
        }
    }
    return NULL;
}

static void folder_has(const char *dflt, const char *tool_use, uint32_t n) {
    struct vocab_data v;
    struct err err = {0};
    vocab_init(&v);
    if (hf_templates(&v, dir, &err) != ST_OK)
        fail_msg("%s", err.msg);
    assert_string_equal(v.chat_template, dflt);
    assert_int_equal(v.template_names.n, n);
    assert_int_equal(v.template_texts.n, n);
    if (tool_use)
        assert_string_equal(template_of(&v, "tool_use"), tool_use);
    vocab_release(&v);
}

static void folder_fails(enum status want, const char *word) {
    struct vocab_data v;
    struct err err = {0};
    vocab_init(&v);
    assert_int_equal(hf_templates(&v, dir, &err), want);
    if (!strstr(err.msg, word))
        fail_msg("\"%s\" is not in \"%s\"", word, err.msg);
    vocab_release(&v);
}

static void folder_without_a_template_is_fine(void **state) {
    (void)state;
    folder_has("", NULL, 0);
    put("tokenizer_config.json", "{\"chat_template\": null}");
    folder_has("", NULL, 0);
}

static void key_may_be_a_text_or_a_list(void **state) {
    (void)state;
    put("tokenizer_config.json", "{\"chat_template\": \"gr\\u00fcn\"}");
    folder_has("gr\xc3\xbcn", NULL, 0);
    put("tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"default\", \"template\": \"D\"}, {\"name\": "
        "\"tool_use\", \"template\": \"T\"}, {\"name\": \"rag\", \"template\": \"R\"}]}");
    folder_has("D", "T", 2);
    put("tokenizer_config.json", "{\"chat_template\": {\"tool_use\": \"T2\"}}");
    folder_has("", "T2", 1);
}

static void files_come_before_keys(void **state) {
    (void)state;
    put("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"default\", \"template\": "
                                 "\"D\"}, {\"name\": \"rag\", "
                                 "\"template\": \"R\"}]}");
    put("chat_template.json", "{\"chat_template\": \"old\"}");
    put("additional_chat_templates/tool_use.jinja", "T");
    put("additional_chat_templates/notes.txt", "\xff");
    folder_has("", "T", 1);
    put("chat_template.jinja", "F");
    folder_has("F", "T", 1);
}

static void old_file_comes_last(void **state) {
    (void)state;
    put("chat_template.json", "{\"chat_template\": \"old\"}");
    folder_has("old", NULL, 0);
    put("tokenizer_config.json", "{\"chat_template\": \"key\"}");
    folder_has("key", NULL, 0);
}

static void names_of_a_folder_are_known(void **state) {
    (void)state;
    struct vocab_data v;
    struct err err = {0};
    put("config.json", "{\"model_type\": \"gpt2\"}");
    struct buf with_slash = {0};
    buf_addf(&with_slash, "%s//", dir);
    vocab_init(&v);
    assert_int_equal(hf_templates(&v, with_slash.p, &err), ST_OK);
    assert_string_equal(v.arch, "gpt2");
    assert_string_equal(v.name, path_base(dir));
    vocab_release(&v);
    buf_release(&with_slash);
}

static void bad_templates_are_named(void **state) {
    (void)state;
    write_file("chat_template.jinja", "a\xff", 2);
    folder_fails(ST_FORMAT, "chat_template.jinja: chat template default is not valid UTF-8");
    write_file("chat_template.jinja", "a\0b", 3);
    folder_fails(ST_FORMAT, "at byte 1");
    char *big = xcalloc(1, VOCAB_TEMPLATE_BYTES + 1);
    memset(big, 'x', VOCAB_TEMPLATE_BYTES + 1);
    write_file("chat_template.jinja", big, VOCAB_TEMPLATE_BYTES + 1);
    free(big);
    folder_fails(ST_LIMIT, "chat_template.jinja");
    put("chat_template.jinja", "D");
    put("additional_chat_templates/default.jinja", "D");
    folder_fails(ST_FORMAT, "default is there twice");
}

static void bad_keys_are_named(void **state) {
    (void)state;
    put("tokenizer_config.json", "{\"chat_template\": 5}");
    folder_fails(ST_FORMAT, "tokenizer_config.json: chat template default is no text");
    put("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"a\"}]}");
    folder_fails(ST_FORMAT, "chat template a is no text");
    put("tokenizer_config.json", "{\"chat_template\": [\"x\"]}");
    folder_fails(ST_FORMAT, "without a name");
    put("tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"a b\", \"template\": \"\"}]}");
    folder_fails(ST_FORMAT, "\"a b\" is no name");
    put("tokenizer_config.json", "{\"chat_template\": \"a\\u0000b\"}");
    folder_fails(ST_FORMAT, "at byte 1");
    struct buf many = {0};
    buf_adds(&many, "{\"chat_template\": {\"a\": \"x\"");
    for (int i = 0; i < VOCAB_TEMPLATES; i++)
        buf_addf(&many, ", \"t%d\": \"\"", i);
    buf_adds(&many, "}}");
    put("tokenizer_config.json", many.p);
    buf_release(&many);
    folder_fails(ST_LIMIT, "more than 64 chat templates");
}

/* ---- files ---- */

static void build_gguf(struct buf *b, const char *second) {
    gb_head(b, 3, 0, 8);
    gb_kv_str(b, "general.architecture", "llama");
    gb_kv_str(b, "general.name", "A Name");
    gb_kv_str(b, "tokenizer.ggml.model", "gpt2");
    gb_kv_str(b, "tokenizer.chat_template", "D");
    gb_kv_array(b, "tokenizer.chat_templates", GGUF_STR, 2);
    gb_str(b, "rag");
    gb_str(b, second);
    gb_kv_str(b, "tokenizer.chat_template.rag", "R");
    gb_kv_str(b, "tokenizer.chat_template.tool_use", "T");
    gb_kv_array(b, "tokenizer.ggml.tokens", GGUF_STR, 1);
    gb_str(b, "a");
}

static void check_file(const struct vocab_data *v) {
    assert_string_equal(v->arch, "llama");
    assert_string_equal(v->name, "A Name");
    assert_string_equal(v->chat_template, "D");
    assert_int_equal(v->template_names.n, 2);
    assert_string_equal(template_of(v, "rag"), "R");
    assert_string_equal(template_of(v, "tool_use"), "T");
}

static void named_templates_survive_both_files(void **state) {
    (void)state;
    struct buf b = {0};
    struct err err = {0};
    struct gguf *g;
    struct container *c;
    struct vocab_data v, again;
    char *path = path_join(dir, "v.safetensors");
    build_gguf(&b, "tool_use");
    assert_int_equal(gguf_parse(b.p, b.len, "v.gguf", &g, &err), ST_OK);
    if (vocab_from_gguf(&v, g, &err) != ST_OK)
        fail_msg("%s", err.msg);
    check_file(&v);
    struct container_writer *w = container_writer_new();
    vocab_declare(w, &v);
    assert_int_equal(container_writer_begin(w, path, &err), ST_OK);
    assert_int_equal(vocab_write(w, &v, &err), ST_OK);
    assert_int_equal(container_writer_commit(w, &err), ST_OK);
    container_writer_free(w);
    assert_int_equal(container_open(path, &c, &err), ST_OK);
    if (vocab_from_container(&again, c, &err) != ST_OK)
        fail_msg("%s", err.msg);
    check_file(&again);
    vocab_release(&again);
    container_close(c);
    vocab_release(&v);
    gguf_close(g);
    buf_release(&b);
    free(path);
}

static void a_name_without_its_text_is_refused(void **state) {
    (void)state;
    struct buf b = {0};
    struct err err = {0};
    struct gguf *g;
    struct vocab_data v;
    build_gguf(&b, "other");
    assert_int_equal(gguf_parse(b.p, b.len, "v.gguf", &g, &err), ST_OK);
    assert_int_not_equal(vocab_from_gguf(&v, g, &err), ST_OK);
    assert_non_null(strstr(err.msg, "tokenizer.chat_template.other"));
    gguf_close(g);
    buf_release(&b);
}

/* ---- a text model ---- */

enum { BOS = 256, EOS, FIRST_MARK, MAX_TOKENS = 300 };

/* The 256 bytes, <s>, </s> and the marks (NULL ends them). */
static struct text_model *model(struct vocab_data v, const char *const *marks) {
    struct buf tokens = {0};
    uint32_t off[MAX_TOKENS + 1] = {0}, none[1] = {0}, n = 0;
    int32_t types[MAX_TOKENS];
    int next = 256;
    for (int b = 0; b < 256; b++) { /* GPT-2's spelling of bytes */
        bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xff && b != 0xad);
        buf_addcp(&tokens, (uint32_t)(printable ? b : next));
        next += !printable;
        off[++n] = (uint32_t)tokens.len;
    }
    static const char *const ends[] = {"<s>", "</s>"};
    for (int i = 0; i < 2 || (marks && marks[i - 2]); i++) {
        buf_adds(&tokens, i < 2 ? ends[i] : marks[i - 2]);
        off[++n] = (uint32_t)tokens.len;
    }
    for (int i = 0; i < MAX_TOKENS; i++)
        types[i] = i < 256 ? VOCAB_NORMAL : VOCAB_CONTROL;
    struct vocab_data empty;
    vocab_init(&empty);
    void *owned = empty.owned;
    empty.chat_template = v.chat_template ? v.chat_template : "";
    empty.arch = v.arch ? v.arch : "";
    empty.name = v.name ? v.name : "";
    empty.template_names = v.template_names;
    empty.template_texts = v.template_texts;
    empty.model = "gpt2";
    empty.pre = "gpt-2";
    empty.bos = BOS;
    empty.eos = EOS;
    empty.types = types;
    empty.tokens = (struct vocab_strings){n, buf_str(&tokens), off};
    empty.merges = (struct vocab_strings){0, "", none};
    empty.owned = owned;
    struct text_model *t = NULL;
    struct err err = {0};
    if (text_from_vocab(&empty, &t, &err) != ST_OK)
        fail_msg("%s", err.msg);
    vocab_release(&empty);
    buf_release(&tokens);
    return t;
}

#define MARKS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define BAR        "\xef\xbd\x9c"

static void built_in_is(const char *want, struct vocab_data v, const char *const *marks) {
    struct text_model *t = model(v, marks);
    assert_string_equal(text_builtin_template(t), want);
    text_close(t);
}

static void control_tokens_choose_first(void **state) {
    (void)state;
    struct vocab_data v = {.arch = "gpt2", .name = "vicuna"};
    built_in_is("chatml", v, MARKS("<|im_start|>", "<|im_end|>"));
    built_in_is("phi4", v, MARKS("<|im_start|>", "<|im_end|>", "<|im_sep|>"));
    built_in_is("llama3", v, MARKS("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"));
    built_in_is("llama4", v, MARKS("<|header_start|>", "<|header_end|>", "<|eot|>"));
    built_in_is("gemma", v, MARKS("<start_of_turn>", "<end_of_turn>"));
    built_in_is("phi3", v, MARKS("<|user|>", "<|assistant|>", "<|end|>"));
    built_in_is("zephyr", v, MARKS("<|user|>", "<|assistant|>", "<|system|>"));
    built_in_is("glm4", v, MARKS("[gMASK]", "<sop>", "<|user|>", "<|assistant|>"));
    built_in_is("mistral-tekken", v, MARKS("[INST]", "[/INST]"));
    built_in_is("mistral-v7-tekken", v,
                MARKS("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"));
    built_in_is("deepseek", v, MARKS("<" BAR "User" BAR ">", "<" BAR "Assistant" BAR ">"));
    built_in_is("granite", v, MARKS("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"));
    built_in_is("harmony", v, MARKS("<|start|>", "<|channel|>", "<|message|>", "<|end|>"));
    built_in_is("kimi", v,
                MARKS("<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>"));
    built_in_is("exaone", v, MARKS("[|user|]", "[|assistant|]", "[|endofturn|]"));
    built_in_is("openchat", v, MARKS("<|end_of_turn|>"));
    built_in_is("command-r", v,
                MARKS("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>",
                      "<|CHATBOT_TOKEN|>"));
}

static void names_and_architecture_choose_next(void **state) {
    (void)state;
    built_in_is("llama2", (struct vocab_data){.arch = "llama", .name = "Llama-2-7b-Chat-hf"},
                NULL);
    built_in_is("plain", (struct vocab_data){.arch = "llama", .name = "Llama-2-7b-hf"}, NULL);
    built_in_is("vicuna", (struct vocab_data){.arch = "llama", .name = "vicuna-7b-v1.5"}, NULL);
    built_in_is("alpaca", (struct vocab_data){.name = "Alpaca"}, NULL);
    built_in_is("zephyr", (struct vocab_data){.name = "TinyLlama 1.1B Chat"}, NULL);
    built_in_is("mistral", (struct vocab_data){.name = "Mixtral_8x7B Instruct"}, NULL);
    built_in_is("eos-joined", (struct vocab_data){.arch = "gpt2", .name = "DialoGPT"}, NULL);
    built_in_is("plain", (struct vocab_data){.arch = "llama"}, NULL);
    built_in_is("plain", (struct vocab_data){0}, MARKS("<|im_start|>"));
}

static const char talk[] = "[{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", "
                           "\"content\": \"U \"}, {\"role\": \"assistant\", \"content\": "
                           "\"A\"}, {\"role\": \"user\", \"content\": \"V\"}]";

static void renders(const struct text_model *t, const struct render_opts *o, const char *used,
                    const char *want) {
    struct rendered r = {0};
    struct err err = {0};
    const char *got = "";
    if (text_render(t, o, &r, &got, &err) != ST_OK)
        fail_msg("%s", err.msg);
    assert_string_equal(buf_str(&r.text), want);
    assert_string_equal(got, used);
    rendered_release(&r);
}

static void built_in_formats(void **state) {
    (void)state;
    static const struct {
        const char *name, *want;
    } c[] = {
        {"chatml", "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU "
                   "<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nV"
                   "<|im_end|>\n<|im_start|>assistant\n"},
        {"llama2", "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A </s><s>[INST] V [/INST]"},
        {"llama3", "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
                   "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>"
                   "<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>"
                   "<|start_header_id|>user<|end_header_id|>\n\nV<|eot_id|>"
                   "<|start_header_id|>assistant<|end_header_id|>\n\n"},
        {"llama4", "<s><|header_start|>system<|header_end|>\n\nS<|eot|>"
                   "<|header_start|>user<|header_end|>\n\nU<|eot|>"
                   "<|header_start|>assistant<|header_end|>\n\nA<|eot|>"
                   "<|header_start|>user<|header_end|>\n\nV<|eot|>"
                   "<|header_start|>assistant<|header_end|>\n\n"},
        {"gemma",
         "<s><start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\n"
         "A<end_of_turn>\n<start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\n"},
        {"phi3",
         "<|system|>\nS<|end|>\n<|user|>\nU <|end|>\n<|assistant|>\nA<|end|>\n<|user|>\n"
         "V<|end|>\n<|assistant|>\n"},
        {"phi4", "<|im_start|>system<|im_sep|>S<|im_end|><|im_start|>user<|im_sep|>U "
                 "<|im_end|><|im_start|>assistant<|im_sep|>A<|im_end|><|im_start|>user"
                 "<|im_sep|>V<|im_end|><|im_start|>assistant<|im_sep|>"},
        {"mistral", "<s>[INST] S\n\nU[/INST] A</s>[INST] V[/INST]"},
        {"mistral-tekken", "<s>[INST]S\n\nU[/INST]A</s>[INST]V[/INST]"},
        {"mistral-v7",
         "<s>[SYSTEM_PROMPT] S[/SYSTEM_PROMPT][INST] U[/INST] A</s>[INST] V[/INST]"},
        {"mistral-v7-tekken",
         "<s>[SYSTEM_PROMPT]S[/SYSTEM_PROMPT][INST]U[/INST]A</s>[INST]V[/INST]"},
        {"zephyr",
         "<|system|>\nS</s>\n<|user|>\nU </s>\n<|assistant|>\nA</s>\n<|user|>\nV</s>\n"
         "<|assistant|>\n"},
        {"deepseek", "<s>S<" BAR "User" BAR ">U <" BAR "Assistant" BAR ">A</s><" BAR "User" BAR
                     ">V<" BAR "Assistant" BAR ">"},
        {"command-r", "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|>"
                      "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>U<|END_OF_TURN_TOKEN|>"
                      "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>A<|END_OF_TURN_TOKEN|>"
                      "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>V<|END_OF_TURN_TOKEN|>"
                      "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"},
        {"granite", "<|start_of_role|>system<|end_of_role|>S<|end_of_text|>\n"
                    "<|start_of_role|>user<|end_of_role|>U <|end_of_text|>\n"
                    "<|start_of_role|>assistant<|end_of_role|>A<|end_of_text|>\n"
                    "<|start_of_role|>user<|end_of_role|>V<|end_of_text|>\n"
                    "<|start_of_role|>assistant<|end_of_role|>"},
        {"harmony", "<|start|>developer<|message|># Instructions\n\nS<|end|><|start|>user"
                    "<|message|>U <|end|><|start|>assistant<|channel|>final<|message|>A<|end|>"
                    "<|start|>user<|message|>V<|end|><|start|>assistant"},
        {"kimi", "<|im_system|>system<|im_middle|>S<|im_end|><|im_user|>user<|im_middle|>U "
                 "<|im_end|><|im_assistant|>assistant<|im_middle|>A<|im_end|><|im_user|>user"
                 "<|im_middle|>V<|im_end|><|im_assistant|>assistant<|im_middle|>"},
        {"glm4", "[gMASK]<sop><|system|>\nS<|user|>\nU <|assistant|>\nA<|user|>\nV"
                 "<|assistant|>"},
        {"exaone", "[|system|]S[|endofturn|]\n[|user|]U \n[|assistant|]A[|endofturn|]\n[|user|]"
                   "V\n[|assistant|]"},
        {"openchat", "<s>S<|end_of_turn|>GPT4 Correct User: U <|end_of_turn|>GPT4 Correct "
                     "Assistant: A<|end_of_turn|>GPT4 Correct User: V<|end_of_turn|>GPT4 "
                     "Correct Assistant:"},
        {"vicuna", "S\n\nUSER: U\nASSISTANT: A</s>\nUSER: V\nASSISTANT:"},
        {"alpaca", "S\n\n### Instruction:\nU\n\n### Response:\nA</s>\n\n### Instruction:\nV\n\n"
                   "### Response:\n"},
        {"eos-joined", "S</s>U </s>A</s>V</s>"},
        {"plain", "S\n\nU \n\nA\n\nV\n\n"},
    };
    struct text_model *t = model((struct vocab_data){0}, NULL);
    for (size_t i = 0; i < sizeof c / sizeof *c; i++)
        renders(t,
                &(struct render_opts){.messages_json = talk,
                                      .template_name = c[i].name,
                                      .add_generation_prompt = true},
                c[i].name, c[i].want);
    size_t n = 0;
    while (builtin_templates[n].name)
        n++;
    assert_int_equal(n, sizeof c / sizeof *c); /* a new one needs a text here */
    text_close(t);
}

static void system_message_alone_is_not_lost(void **state) {
    (void)state;
    struct render_opts o = {.messages_json = "[{\"role\": \"system\", \"content\": \"S\"}]",
                            .template_name = "gemma"};
    renders(NULL, &o, "gemma", "<start_of_turn>user\nS<end_of_turn>\n");
    o.messages_json = "[{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"system\", "
                      "\"content\": [{\"text\": \"T\"}]}, {\"content\": null}]";
    renders(NULL, &o, "gemma", "<start_of_turn>user\nS\n\nT\n\n<end_of_turn>\n");
}

static void rules_name_templates_that_exist(void **state) {
    (void)state;
    for (const struct builtin_rule *r = builtin_rules; r->use; r++)
        assert_non_null(builtin_find(r->use));
}

static void manual_names_every_built_in(void **state) {
    (void)state;
    const char *src = getenv("srcdir");
    char *path = path_join(src ? src : ".", "man/llmchat.1.in");
    struct buf page = {0}, plain = {0};
    struct err err = {0};
    if (file_read(path, 1 << 20, &page, &err) != ST_OK)
        fail_msg("%s", err.msg);
    for (const char *p = page.p; *p; p++)
        if (*p != '\\')
            buf_addc(&plain, *p);
    for (const struct builtin_rule *r = builtin_rules; r->use; r++) {
        if (!strstr(plain.p, r->use))
            fail_msg("%s is not in the manual", r->use);
        for (int i = 0; i < BUILTIN_MARKS && r->marks[i]; i++)
            if (!strstr(r->marks[i], BAR) && !strstr(plain.p, r->marks[i]))
                fail_msg("%s is not in the manual", r->marks[i]);
    }
    buf_release(&plain);
    buf_release(&page);
    free(path);
}

static void begin_token_is_there_once(void **state) {
    (void)state;
    static const char hi[] = "[{\"role\": \"user\", \"content\": \"\"}]";
    struct text_model *t =
        model((struct vocab_data){0}, MARKS("<start_of_turn>", "<end_of_turn>"));
    struct tok_list l = {0};
    struct err err = {0};
    struct render_opts o = {.messages_json = hi};
    assert_int_equal(text_prompt(t, &o, &l, &err), ST_OK);
    assert_int_equal(l.v[0], BOS);
    assert_int_equal(l.v[1], FIRST_MARK);
    tok_list_release(&l);
    text_close(t);
}

static void tools_take_their_own_template(void **state) {
    (void)state;
    struct vocab_data keep, v = {.chat_template = "D"};
    struct strlist names = {0}, texts = {0};
    strlist_add(&names, "rag");
    strlist_add(&names, "tool_use");
    strlist_add(&texts, "R");
    strlist_add(&texts, "T{{ tools[0].n }}");
    vocab_init(&keep);
    vocab_own_strings(&keep, &v.template_names, &names);
    vocab_own_strings(&keep, &v.template_texts, &texts);
    struct text_model *t = model(v, NULL);
    struct render_opts o = {.messages_json = "[]"};
    renders(t, &o, "model", "D");
    o.tools_json = "[{\"n\": 1}]";
    renders(t, &o, "model:tool_use", "T1");
    o.template_name = "rag";
    renders(t, &o, "model:rag", "R");
    o.template_name = "default";
    renders(t, &o, "model", "D");
    o.template_name = "plain";
    renders(t, &o, "plain", "");
    o.template_text = "X";
    renders(t, &o, "file", "X");
    assert_string_equal(text_template_name(t, 0), "rag");
    assert_string_equal(text_template_name(t, 1), "tool_use");
    assert_null(text_template_name(t, 2));
    text_close(t);

    struct rendered r = {0};
    struct err err = {0};
    v.chat_template = "";
    t = model(v, NULL);
    o = (struct render_opts){.messages_json = "[]"};
    assert_int_equal(text_render(t, &o, &r, NULL, &err), ST_NOT_FOUND);
    assert_non_null(strstr(err.msg, "rag, tool_use"));
    o.template_name = "default";
    assert_int_equal(text_render(t, &o, &r, NULL, &err), ST_NOT_FOUND);
    o.template_name = "nosuch";
    assert_int_equal(text_render(t, &o, &r, NULL, &err), ST_NOT_FOUND);
    assert_non_null(strstr(err.msg, "nosuch"));
    assert_non_null(strstr(err.msg, "chatml"));
    text_close(t);
    strlist_release(&names);
    strlist_release(&texts);
    vocab_release(&keep);
}

#define IN_FOLDER(f) cmocka_unit_test_setup_teardown(f, new_folder, remove_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(folder_without_a_template_is_fine),
        IN_FOLDER(key_may_be_a_text_or_a_list),
        IN_FOLDER(files_come_before_keys),
        IN_FOLDER(old_file_comes_last),
        IN_FOLDER(names_of_a_folder_are_known),
        IN_FOLDER(bad_templates_are_named),
        IN_FOLDER(bad_keys_are_named),
        IN_FOLDER(named_templates_survive_both_files),
        cmocka_unit_test(a_name_without_its_text_is_refused),
        cmocka_unit_test(control_tokens_choose_first),
        cmocka_unit_test(names_and_architecture_choose_next),
        cmocka_unit_test(built_in_formats),
        cmocka_unit_test(system_message_alone_is_not_lost),
        cmocka_unit_test(rules_name_templates_that_exist),
        cmocka_unit_test(manual_names_every_built_in),
        cmocka_unit_test(begin_token_is_there_once),
        cmocka_unit_test(tools_take_their_own_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
