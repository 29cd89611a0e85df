/*
 * test_export.c - conversations to files and back.
 */
#include "chat/export.h"
#include "fake_engine.h"

#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "ok.h"

static struct store *s;
static int64_t conv, second_question;

static int64_t add(int64_t parent, enum role role, const char *text) {
    int64_t id;
    char *copy = strdup(text);
    struct message m = {.parent = parent,
                        .role = role,
                        .text = copy,
                        .model = role == ROLE_ASSISTANT ? (char[]){"smol"} : NULL,
                        .settings_json = (char[]){"{\"top_k\":7}"},
                        .finish = role == ROLE_ASSISTANT ? (char[]){"stop"} : NULL,
                        .seed = 11,
                        .completion_tok = 5,
                        .ttft_us = 99,
                        .created_ms = 1700000000000};
    OK(store_msg_add(s, conv, &m, &id, &e));
    free(copy);
    return id;
}

static int setup(void **state) {
    (void)state;
    OK(store_open(":memory:", &s, &e));
    OK(store_conv_new(s, "Tides & <moons>", "smol", &conv, &e));
    OK(store_conv_set_system(s, conv, "Be \"kind\".", &e));
    OK(store_conv_set_settings(s, conv, "{\"temperature\":0.7}", &e));
    int64_t u = add(0, ROLE_USER, "How <b>do</b> tides work?\n  two lines ☾");
    add(u, ROLE_ASSISTANT, "First answer.");
    int64_t a = add(
        u, ROLE_ASSISTANT,
        "# Head\n\n**Moon** <script>alert(1)</script>\n\n[ok](https://a.example/?a=1&b=\"2) "
        "[amp](https://c.example/?a=1&amp;b=2) "
        "[bad](javascript:alert(1)) ![pic](https://b.example/x.png)\n\n"
        "```c\nint a < b;\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n");
    second_question = add(a, ROLE_USER, "Thanks");
    OK(store_conv_set_keep_from(s, conv, second_question, &e));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    store_close(s);
    return 0;
}

static char *text(int64_t id, enum export_format f, bool tree) {
    struct buf b = {0};
    OK(export_conversation(s, id, f, tree, &b, &e));
    return buf_take(&b);
}

static void json_comes_back_without_loss(void **state) {
    (void)state;
    struct strlist ids = {0};
    char *one = text(conv, EXPORT_JSON, false);
    OK(import_text(s, one, strlen(one), "x.json", &ids, &e));
    assert_int_equal(ids.n, 1);
    int64_t made = atoll(ids.v[0]);
    assert_int_not_equal(made, conv);
    struct message_list a, b;
    struct conversation ca, cb;
    OK(store_msg_all(s, conv, &a, &e));
    OK(store_msg_all(s, made, &b, &e));
    OK(store_conv_get(s, conv, &ca, &e));
    OK(store_conv_get(s, made, &cb, &e));
    int64_t shift = b.v[0].id - a.v[0].id;
    assert_int_equal(a.n, b.n);
    for (size_t i = 0; i < a.n; i++) {
        const struct message *x = &a.v[i], *y = &b.v[i];
        assert_int_equal(x->id + shift, y->id);
        assert_int_equal(x->parent ? x->parent + shift : 0, y->parent);
        assert_string_equal(x->text, y->text);
        assert_string_equal(x->model, y->model);
        assert_string_equal(x->settings_json, y->settings_json);
        assert_string_equal(x->finish, y->finish);
        assert_int_equal(x->role * 10 + (int)x->state, y->role * 10 + (int)y->state);
        assert_int_equal(x->created_ms, y->created_ms);
        assert_int_equal(x->seed, y->seed);
        assert_int_equal(x->completion_tok, y->completion_tok);
        assert_int_equal(x->ttft_us, y->ttft_us);
        assert_int_equal(x->sibling, y->sibling);
    }
    assert_string_equal(ca.title, cb.title);
    assert_string_equal(ca.system, cb.system);
    assert_string_equal(ca.settings_json, cb.settings_json);
    assert_string_equal(ca.model, cb.model);
    assert_int_equal(ca.leaf + shift, cb.leaf);
    assert_int_equal(ca.keep_from + shift, cb.keep_from);
    assert_int_equal(ca.created_ms, cb.created_ms);
    assert_int_equal(ca.updated_ms, cb.updated_ms);
    struct search_list hits;
    OK(store_search(s, "thanks", 0, &hits, &e));
    assert_int_equal(hits.n, 2); /* what was imported is found */
    search_list_release(&hits);
    message_list_release(&a);
    message_list_release(&b);
    conversation_release(&ca);
    conversation_release(&cb);
    strlist_release(&ids);
    free(one);
}

static void jsonl_has_a_line_a_branch(void **state) {
    (void)state;
    char *branch = text(conv, EXPORT_JSONL, false), *tree = text(conv, EXPORT_JSONL, true);
    assert_int_equal(strcspn(branch, "\n") + 1, strlen(branch));
    json_t *o = json_loads(branch, 0, NULL);
    const json_t *list = json_object_get(o, "messages");
    assert_int_equal(json_array_size(list), 4);
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "role")),
                        "system");
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 3), "content")),
                        "Thanks");
    json_decref(o);
    int lines = 0;
    for (const char *p = tree; *p; p++)
        lines += *p == '\n';
    assert_int_equal(lines, 2);
    struct strlist ids = {0};
    OK(import_text(s, tree, strlen(tree), "x.jsonl", &ids, &e));
    assert_int_equal(ids.n, 2);
    struct conversation c;
    OK(store_conv_get(s, atoll(ids.v[1]), &c, &e));
    assert_string_equal(c.system, "Be \"kind\".");
    assert_string_equal(c.title, "How <b>do</b> tides work?");
    assert_int_equal(c.n_messages, 3);
    conversation_release(&c);
    strlist_release(&ids);
    free(branch);
    free(tree);
}

static void markdown_and_text_have_the_raw_text(void **state) {
    (void)state;
    char *md = text(conv, EXPORT_MD, false), *all = text(conv, EXPORT_MD, true);
    assert_memory_equal(
        md, "# Tides & <moons>\n\n## System prompt\n\nBe \"kind\".\n\n## You\n\nHow <b>do</b>",
        70);
    assert_non_null(strstr(md, "## llmchat (smol)\n\n# Head"));
    assert_null(strstr(md, "First answer"));
    assert_non_null(strstr(all, "## llmchat (smol) [branch 1 of 2]\n\nFirst answer."));
    char *txt = text(conv, EXPORT_TXT, false);
    assert_non_null(strstr(txt, "\nYou:\n\nHow <b>do</b> tides work?\n  two lines ☾\n"));
    free(md);
    free(all);
    free(txt);
}

static void html_is_safe_and_whole(void **state) {
    (void)state;
    char *html = text(conv, EXPORT_HTML, false);
    assert_non_null(strstr(html, "<title>Tides &amp; &lt;moons&gt;</title>"));
    assert_non_null(strstr(html, "How &lt;b&gt;do&lt;/b&gt; tides"));
    assert_non_null(strstr(html, "<h1>Head</h1>"));
    assert_non_null(
        strstr(html, "<strong>Moon</strong> &lt;script&gt;alert(1)&lt;/script&gt;"));
    assert_non_null(strstr(html, "href=\"https://a.example/?a=1&amp;b=&quot;2\""));
    assert_non_null(strstr(html, "href=\"https://c.example/?a=1&amp;b=2\""));
    assert_null(strstr(html, "javascript:"));
    assert_null(strstr(html, "<script"));
    assert_null(strstr(html, "<img"));
    assert_null(strstr(html, "b.example"));
    assert_non_null(strstr(html, "<pre><code>int a &lt; b;\n</code></pre>"));
    assert_non_null(strstr(html, "<td>1</td>"));
    assert_non_null(strstr(html, "prefers-color-scheme:dark"));
    assert_non_null(strstr(html, "</html>\n"));
    free(html);
}

static void other_forms_are_imported(void **state) {
    (void)state;
    static const char *const good[] = {
        "[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":null}]",
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}]}",
        "\n{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n\n{\"messages\":[{\"role\":"
        "\"user\","
        "\"content\":\"b\"}]}",
        "[{\"messages\":[{\"role\":\"developer\",\"content\":\"a\"}]}]",
        "\xef\xbb\xbf[{\"role\":\"user\",\"content\":\"a\"}]"}; /* a byte order mark */
    static const size_t n[] = {1, 1, 2, 1, 1};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct strlist ids = {0};
        OK(import_text(s, good[i], strlen(good[i]), "f", &ids, &e));
        assert_int_equal(ids.n, n[i]);
        strlist_release(&ids);
    }
}

#define OWN(messages)                                                                          \
    "{\"format\":\"llmchat-conversation\",\"version\":1,\"messages\":[" messages "]}"
#define MSG(id, parent)                                                                        \
    "{\"id\":" #id ",\"parent\":" #parent ",\"role\":\"user\",\"text\":\"x\"}"

static void hostile_input_is_refused_as_a_whole(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } bad[] = {
        {"", "f: the file is empty"},
        {" \n", "f: the file is empty"},
        {"hello", "f:1"},
        {"null", "f:1"},
        {"{}", "neither"},
        {"[]", "empty"},
        {"[1]", "message 1"},
        {"[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"wizard\",\"content\":\"b\"}]",
         "message 2: the role"},
        {"[{\"role\":\"user\",\"content\":5}]", "content"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n{\"messages\":[{}]}", "f:2"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n{broken", "f:2"},
        {OWN(MSG(1, 2) "," MSG(2, 1)), "names no message before it"}, /* a cycle */
        {OWN(MSG(1, 1)), "names no message before it"},
        {OWN(MSG(1, 0) "," MSG(1, 0)), "not greater"}, /* a double */
        {OWN(MSG(-5, 0)), "positive"},
        {OWN(MSG(1.5, 0)), "positive"},
        {OWN(MSG(1, "7")), "parent"},
        {OWN("{\"id\":1,\"role\":\"user\"}"), "text"},
        {OWN("{\"id\":1,\"role\":\"user\",\"text\":\"x\",\"state\":\"odd\"}"), "state"},
        {OWN("{\"id\":1,\"role\":\"user\",\"text\":\"x\",\"model\":[]}"),
         "\"model\" is no text"},
        {OWN("{\"id\":1,\"role\":\"user\",\"text\":\"x\",\"seed\":1e300}"),
         "\"seed\" is no whole"},
        {OWN("{\"id\":1,\"role\":\"user\",\"text\":\"x\",\"created\":9223372036854775807}"),
         "message 1: \"created\" is no time"},
        {"{\"format\":\"llmchat-conversation\",\"version\":1,\"created\":-1,\"messages\":[]}",
         "\"created\" or \"updated\" is no time"},
        {"{\"format\":\"llmchat-conversation\",\"version\":1,\"title\":5,\"messages\":[]}",
         "\"title\" is no text"},
        {"{\"format\":\"llmchat-conversation\",\"version\":2,\"messages\":[]}", "version"},
        {"{\"format\":\"llmchat-conversation\",\"version\":1,\"leaf\":9,\"messages\":[]}",
         "leaf"},
        {"{\"format\":\"llmchat-conversation\",\"version\":1,\"messages\":7}", "messages"},
    };
    struct conversation_list before, after;
    OK(store_conv_list(s, 0, &before, &e));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct strlist ids = {0};
        assert_int_equal(import_text(s, bad[i].text, strlen(bad[i].text), "f", &ids, &e),
                         ST_FORMAT);
        if (!strstr(e.msg, bad[i].want))
            fail_msg("%s: \"%s\" lacks \"%s\"", bad[i].text, e.msg, bad[i].want);
        assert_int_equal(ids.n, 0);
    }
    char *deep = malloc(200001);
    memset(deep, '[', 200000);
    deep[200000] = 0;
    assert_int_equal(import_text(s, deep, 200000, "f", NULL, &e), ST_FORMAT);
    free(deep);
    size_t n = (size_t)21 << 20; /* short values need much memory once they are read */
    char *many = malloc(2 * n + 1);
    for (size_t i = 0; i < n; i++)
        memcpy(many + 2 * i, "1,", 2);
    many[0] = '[';
    many[2 * n - 1] = ']';
    assert_int_equal(import_text(s, many, 2 * n, "f", NULL, &e), ST_FORMAT);
    assert_non_null(strstr(e.msg, "20 million values"));
    free(many);
    OK(store_conv_list(s, 0, &after, &e));
    assert_int_equal(before.n, after.n);
    conversation_list_release(&before);
    conversation_list_release(&after);
}

static void streaming_reply_becomes_interrupted(void **state) {
    (void)state;
    struct strlist ids = {0};
    static const char one[] =
        OWN("{\"id\":3,\"role\":\"assistant\",\"text\":\"x\",\"state\":\"streaming\"}");
    OK(import_text(s, one, sizeof one - 1, "f", &ids, &e));
    struct message_list l;
    OK(store_msg_all(s, atoll(ids.v[0]), &l, &e));
    assert_int_equal(l.v[0].state, MSG_INTERRUPTED);
    message_list_release(&l);
    strlist_release(&ids);
}

static void names_and_formats(void **state) {
    (void)state;
    static const char *const names[][2] = {{"Tides & moons?", "Tides-&-moons.md"},
                                           {"../../etc/passwd", "etc-passwd.md"},
                                           {".hidden", "hidden.md"},
                                           {"", "conversation.md"},
                                           {"\x1b[0m$(rm)", "[0m-(rm).md"},
                                           {"潮汐", "潮汐.md"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *name = export_file_name(names[i][0], EXPORT_MD);
        assert_string_equal(name, names[i][1]);
        free(name);
    }
    enum export_format f;
    assert_true(export_format_of_path("/a.b/x.MARKDOWN", &f) && f == EXPORT_MD);
    assert_true(export_format_of_path("x.htm", &f) && f == EXPORT_HTML);
    assert_true(export_format_parse("jsonl", &f) && f == EXPORT_JSONL);
    assert_false(export_format_of_path("/a.json/x", &f));
    assert_false(export_format_parse("pdf", &f));
    assert_false(export_format_parse("", &f));
}

static void where_a_model_lies_is_not_told(void **state) {
    (void)state;
    OK(store_conv_set_model(s, conv, "/home/me/secret/m.gguf", &e));
    struct message m = {.parent = second_question,
                        .role = ROLE_ASSISTANT,
                        .text = (char[]){"a"},
                        .model = (char[]){"/home/me/secret/m.gguf"}};
    int64_t id;
    OK(store_msg_add(s, conv, &m, &id, &e));
    for (int f = 0; f < EXPORT_N; f++) {
        char *out = text(conv, (enum export_format)f, true);
        assert_null(strstr(out, "/home/me"));
        if (f != EXPORT_JSONL)
            assert_non_null(strstr(out, "m.gguf"));
        free(out);
    }
}

static void pipe_is_written_and_stays_one(void **state) {
    (void)state;
    char dir[] = "/tmp/llmchat-export-XXXXXX", path[64], got[16] = "";
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/pipe", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    int fd = open(path, O_RDWR); /* so that nobody waits */
    OK(export_file(s, conv, EXPORT_TXT, false, path, true, &e));
    assert_int_equal(read(fd, got, 5), 5);
    assert_string_equal(got, "Tides");
    close(fd);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISFIFO(st.st_mode));
    unlink(path);
    rmdir(dir);
}

static void file_is_private_and_not_replaced_unasked(void **state) {
    (void)state;
    char path[] = "/tmp/llmchat-export-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(export_file(s, conv, EXPORT_TXT, false, path, false, &e), ST_EXISTS);
    OK(export_file(s, conv, EXPORT_TXT, false, path, true, &e));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(st.st_size > 0);
    unlink(path);
    assert_int_equal(export_file(s, 999, EXPORT_TXT, false, path, false, &e), ST_NOT_FOUND);
    assert_int_equal(access(path, F_OK), -1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(json_comes_back_without_loss),
        T(jsonl_has_a_line_a_branch),
        T(markdown_and_text_have_the_raw_text),
        T(html_is_safe_and_whole),
        T(other_forms_are_imported),
        T(hostile_input_is_refused_as_a_whole),
        T(streaming_reply_becomes_interrupted),
        T(names_and_formats),
        T(where_a_model_lies_is_not_told),
        T(pipe_is_written_and_stays_one),
        T(file_is_private_and_not_replaced_unasked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
