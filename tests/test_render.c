/*
 * test_render.c - conversations to prompts: which template is used, what the model's own tokens
 * are, and that a person's text never becomes a control token. The vocabulary is a small one
 * made here: the 256 bytes (an id is its byte) and marks. The default model's template is held
 * against transformers (tests/oracle/templates.py) when LLMCHAT_TEST_GGUF is set.
 */
#include "base/path.h"
#include "base/utf8.h"
#include "engine/text.h"
#include "engine/text/text_internal.h"
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BOS = 256, START, END, EOS };

static void add_token(struct buf *b, uint32_t *off, uint32_t *n, const char *text) {
    buf_adds(b, text);
    off[++*n] = (uint32_t)b->len;
}

/* chat: the marks of ChatML are in the vocabulary. */
static struct text_model *model(const char *chat_template, bool chat, int add_bos) {
    struct buf tokens = {0}, merges = {0};
    uint32_t off[300] = {0}, none[1] = {0}, n = 0;
    int32_t types[300];
    int next = 256;
    for (int b = 0; b < 256; b++) { /* GPT-2's spelling of bytes */
        char t[8];
        bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xff && b != 0xad);
        t[utf8_encode(printable ? (uint32_t)b : (uint32_t)next, t)] = '\0';
        next += !printable;
        add_token(&tokens, off, &n, t);
    }
    static const char *const mark[] = {"<s>", "<|im_start|>", "<|im_end|>", "</s>"};
    for (int i = 0; i < 4; i++)
        add_token(&tokens, off, &n,
                  chat || i == 0 || i == 3 ? mark[i]
                  : i == 1                 ? "<x>"
                                           : "<y>");
    for (int i = 0; i < 300; i++)
        types[i] = i < 256 ? VOCAB_NORMAL : VOCAB_CONTROL;
    struct vocab_data v = {.model = "gpt2",
                           .pre = "gpt-2",
                           .chat_template = chat_template,
                           .bos = BOS,
                           .eos = EOS,
                           .eot = -1,
                           .eom = -1,
                           .unk = -1,
                           .pad = -1,
                           .add_bos = add_bos,
                           .add_eos = -1,
                           .add_space_prefix = -1,
                           .types = types};
    v.tokens = (struct vocab_strings){n, buf_str(&tokens), off};
    v.merges = (struct vocab_strings){0, buf_str(&merges), none};
    struct text_model *t = NULL;
    struct err err = {0};
    if (text_from_vocab(&v, &t, &err) != ST_OK)
        fail_msg("%s", err.msg);
    buf_release(&tokens);
    return t;
}

static void renders(const struct text_model *t, const struct render_opts *o,
                    const char *want_used, const char *want) {
    struct rendered r = {0};
    struct err err = {0};
    const char *used = NULL;
    if (text_render(t, o, &r, &used, &err) != ST_OK)
        fail_msg("%s", err.msg);
    assert_string_equal(buf_str(&r.text), want);
    assert_string_equal(used, want_used);
    assert_int_equal(r.text.len, r.plain.len);
    rendered_release(&r);
}

static void prompt_is(const struct text_model *t, const struct render_opts *o,
                      const int32_t *want, size_t n) {
    struct tok_list l = {0};
    struct err err = {0};
    if (text_prompt(t, o, &l, &err) != ST_OK)
        fail_msg("%s", err.msg);
    for (size_t i = 0; l.n != n && i < l.n; i++)
        print_message("%d ", (int)l.v[i]);
    assert_int_equal(l.n, n);
    assert_memory_equal(l.v, want, n * sizeof *want);
    tok_list_release(&l);
}

#define PROMPT(t, o, ...)                                                                      \
    prompt_is(t, o, (const int32_t[]){__VA_ARGS__},                                            \
              sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static const char talk[] =
    "[{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", \"content\": "
    "[{\"type\": \"text\", \"text\": \"U\"}]}]";
static const char hi[] = "[{\"role\": \"user\", \"content\": \"a\"}]";

static void models_own_template_knows_its_tokens(void **state) {
    (void)state;
    struct text_model *t =
        model("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", true, 1);
    renders(t, &(struct render_opts){.messages_json = hi}, "model", "<s>a</s>");
    PROMPT(t, &(struct render_opts){.messages_json = hi}, BOS, 'a', EOS);
    text_close(t);
}

static void template_alone_decides_about_bos(void **state) {
    (void)state;
    struct text_model *t = model("{{ messages[0].content }}", true, 1);
    PROMPT(t, &(struct render_opts){.messages_json = hi}, 'a');
    text_close(t);
}

static void callers_template_wins(void **state) {
    (void)state;
    struct text_model *t = model("own", true, 0);
    struct render_opts o = {.messages_json = hi,
                            .template_text = "{{ q }}{{ tools[0].n }}{{ bos_token }}",
                            .tools_json = "[{\"n\": 5}]",
                            .vars_json = "{\"q\": \"Q\"}"};
    renders(t, &o, "file", "Q5<s>");
    renders(NULL, &o, "file", "Q5");
    text_close(t);
}

static void no_template_with_marks_is_chatml(void **state) {
    (void)state;
    struct text_model *t = model("", true, 0);
    struct render_opts o = {.messages_json = talk, .add_generation_prompt = true};
    renders(t, &o, "chatml",
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>"
            "assistant\n");
    o.add_generation_prompt = false;
    o.messages_json = hi;
    PROMPT(t, &o, START, 'u', 's', 'e', 'r', '\n', 'a', END, '\n');
    text_close(t);
}

static void no_template_without_marks_is_plain(void **state) {
    (void)state;
    struct text_model *t = model("", false, 1);
    struct render_opts o = {.messages_json = talk, .add_generation_prompt = true};
    renders(t, &o, "plain", "S\n\nU\n\n");
    o.add_generation_prompt = false;
    renders(t, &o, "plain", "S\n\nU");
    o.messages_json = "[{\"role\": \"assistant\", \"content\": null}]";
    renders(t, &o, "plain", "");
    o.messages_json = hi;
    PROMPT(t, &o, BOS, 'a');
    text_close(t);
}

static void users_marks_stay_text(void **state) {
    (void)state;
    struct text_model *t = model("", true, 0);
    struct render_opts o = {.messages_json = "[{\"role\": \"user\", \"content\": \"<s>\"}]"};
    PROMPT(t, &o, START, 'u', 's', 'e', 'r', '\n', '<', 's', '>', END, '\n');
    o.template_text =
        "<{{ messages[0].content[1:] }}"; /* half from the template, half from the user */
    PROMPT(t, &o, '<', 's', '>');
    o.template_text = "<{{ 's>' }}";
    PROMPT(t, &o, BOS);
    text_close(t);
}

/* Each spells <s> with the user's s between the template's < and >. */
static void users_letters_stay_text_however_they_come(void **state) {
    (void)state;
    static const char *const ways[] = {
        "{{ '<'.ljust(2, c) }}>",
        "<{{ '>'.rjust(2, c) }}",
        "<{{ ''.center(1, c) }}>",
        "<{{ ('{:' ~ c ~ '<1}').format('') }}>",
        "<{{ '{:{}>1}'.format('', c) }}>",
        "{{ '<%c>' % c }}",
        "{{ '<%c>' % messages[0].number }}",
        "{{ '<{:c}>'.format(messages[0].number) }}",
        "{% for k in dict(**messages[0].keys_) %}<{{ k }}>{% endfor %}",
        "{% macro m() %}<{{ kwargs|first }}>{% endmacro %}{{ m(**messages[0].keys_) }}",
        "{% macro m() %}<{{ kwargs|first }}>{% endmacro %}"
        "{% call m(**messages[0].keys_) %}{% endcall %}",
    };
    struct text_model *t = model("", true, 0);
    struct render_opts o = {.messages_json = "[{\"role\": \"user\", \"content\": \"s\", "
                                             "\"number\": 115, \"keys_\": {\"s\": 1}}]"};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct buf b = {0};
        buf_addf(&b, "{%% set c = messages[0].content %%}%s", ways[i]);
        o.template_text = b.p;
        PROMPT(t, &o, '<', 's', '>');
        buf_release(&b);
    }
    text_close(t);
}

static void nothing_to_render_with_is_an_error(void **state) {
    (void)state;
    struct rendered r = {0};
    struct err err = {0};
    assert_int_equal(
        text_render(NULL, &(struct render_opts){.messages_json = hi}, &r, NULL, &err),
        ST_USAGE);
    struct render_opts o = {.messages_json = "{}", .template_text = "x"};
    assert_int_equal(text_render(NULL, &o, &r, NULL, &err), ST_FORMAT);
    assert_string_equal(err.msg, "messages: a dict found, a list wanted");
    rendered_release(&r);
}

static void default_model_matches_transformers(void **state) {
    (void)state;
    const char *gguf = getenv("LLMCHAT_TEST_GGUF"), *dir = getenv("srcdir");
    struct text_model *t;
    struct err err = {0};
    json_error_t e;
    size_t i;
    if (!gguf)
        skip();
    char *path = path_join(dir ? dir : ".", "tests/golden/templates/smollm2.json");
    json_t *j = json_load_file(path, 0, &e), *c, *cases = json_object_get(j, "cases");
    assert_int_equal(json_array_size(cases), 10);
    if (text_open(gguf, &t, &err) != ST_OK)
        fail_msg("%s", err.msg);
    json_array_foreach(cases, i, c) {
        json_t *chat = json_object_get(c, "chat"),
               *gp = json_object_get(chat, "add_generation_prompt");
        char *messages = json_dumps(json_object_get(chat, "messages"), 0);
        json_t *tools_json = json_object_get(chat, "tools");
        char *tools = tools_json ? json_dumps(tools_json, 0) : NULL;
        renders(t,
                &(struct render_opts){.messages_json = messages,
                                      .tools_json = tools,
                                      .add_generation_prompt = !json_is_false(gp)},
                "model", json_string_value(json_object_get(c, "want")));
        free(messages);
        free(tools);
    }
    text_close(t);
    json_decref(j);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_own_template_knows_its_tokens),
        cmocka_unit_test(template_alone_decides_about_bos),
        cmocka_unit_test(callers_template_wins),
        cmocka_unit_test(no_template_with_marks_is_chatml),
        cmocka_unit_test(no_template_without_marks_is_plain),
        cmocka_unit_test(users_marks_stay_text),
        cmocka_unit_test(users_letters_stay_text_however_they_come),
        cmocka_unit_test(nothing_to_render_with_is_an_error),
        cmocka_unit_test(default_model_matches_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
