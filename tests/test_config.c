/*
 * test_config.c - the configuration file: what it sets, and that every mistake is named with
 * its line.
 */
#include "base/path.h"
#include "chat/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "ok.h"

static enum status parse(const char *yaml, struct config *c) {
    return config_parse(yaml, strlen(yaml), "c.yaml", c, &e);
}

static void everything_is_read(void **state) {
    (void)state;
    struct config c;
    if (parse("# mine\nmodel: smol\ndraft_model: smaller\ndevice: cuda\nthreads: 3\nkv_type: "
              "bf16\ntheme: "
              "light\nmouse: no\n"
              "markdown: off\nprefill_draft: off\ncontext_full: drop\nsystem: |\n  Be kind.\n  "
              "Always.\n"
              "sampling: { temperature: 0.2, stop: [a, \"b\"], seed: 9007199254740993, "
              "speculation: off }\n"
              "keys:\n  send: enter\n  new-chat: [ctrl-n, f2]\n"
              "gpu_memory_utilization: 0.5\ngpu_layers: 20\n"
              "tensor_parallel: 4\n",
              &c) != ST_OK)
        fail_msg("%s", e.msg);
    assert_string_equal(c.model, "smol");
    assert_string_equal(c.draft_model, "smaller");
    assert_false(c.draft_wanted);
    assert_int_equal(c.device, DEVICE_CUDA);
    assert_true(c.gpu_memory_utilization == 0.5);
    assert_int_equal(c.gpu_layers, 20);
    assert_int_equal(c.tensor_parallel, 4);
    assert_int_equal(config_engine(&c).tensor_parallel, 4);
    assert_int_equal(c.threads, 3);
    assert_int_equal(c.kv_type, KV_BF16);
    assert_int_equal(c.theme, THEME_LIGHT);
    assert_false(c.mouse);
    assert_false(c.markdown);
    assert_false(c.prefill_draft);
    assert_int_equal(c.context_full, OVERFLOW_DROP);
    assert_string_equal(c.system, "Be kind.\nAlways.\n");
    assert_true(c.settings.sampling.temperature == 0.2);
    assert_true(c.settings.sampling.seed == 9007199254740993LL);
    assert_int_equal(c.settings.stop.n, 2);
    assert_int_equal(c.settings.speculation, SPECULATION_OFF);
    assert_int_equal(c.n_keys, 3);
    assert_string_equal(c.keys[2].command, "new-chat");
    assert_string_equal(c.keys[2].key, "f2");
    assert_int_equal(c.keys[2].line, 18);
    config_release(&c);
}

static void ways_out_of_a_full_context_have_names(void **state) {
    (void)state;
    static const char *const names[] = {"ask", "summarise", "drop", "stream", "stop"};
    static const enum overflow ways[] = {OVERFLOW_ASK, OVERFLOW_SUMMARISE, OVERFLOW_DROP,
                                         OVERFLOW_STREAM, OVERFLOW_STOP};
    for (int i = 0; i < 5; i++) {
        struct config c;
        char text[40];
        snprintf(text, sizeof text, "context_full: %s\n", names[i]);
        assert_int_equal(parse(text, &c), ST_OK);
        assert_int_equal(c.context_full, ways[i]);
        config_release(&c);
    }
}

static void missing_and_empty_files_are_no_errors(void **state) {
    (void)state;
    struct config c;
    assert_int_equal(config_load("/nonexistent-folder/config.yaml", &c, &e), ST_OK);
    assert_true(c.mouse && c.markdown && c.prefill_draft);
    assert_string_equal(c.path, "/nonexistent-folder/config.yaml");
    assert_null(c.model);
    assert_true(c.settings.sampling.temperature == 0.7);
    config_release(&c);
    static const char *const empty[] = {"",      "# nothing\n",        "\n\n",
                                        "---\n", "sampling:\nkeys:\n", "prompt:\nsystem: x\n"};
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        if (parse(empty[i], &c) != ST_OK)
            fail_msg("%s: %s", empty[i], e.msg);
        config_release(&c);
    }
}

static void layers_on_the_gpu_may_be_none_some_or_auto(void **state) {
    (void)state;
    static const struct {
        const char *yaml;
        enum device device;
        int layers;
    } said[] = {{"device: cuda\n", DEVICE_CUDA, 0},
                {"gpu_layers: auto\n", DEVICE_AUTO, 0},
                {"gpu_layers: 7\n", DEVICE_AUTO, 7},
                {"gpu_layers: 7\ndevice: cuda\n", DEVICE_CUDA, 7},
                {"gpu_layers: 0\n", DEVICE_CPU, 0}};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        struct config c;
        assert_int_equal(parse(said[i].yaml, &c), ST_OK);
        struct engine_params p = config_engine(&c);
        assert_int_equal(p.device, said[i].device);
        assert_int_equal(p.gpu_layers, said[i].layers);
        config_release(&c);
    }
}

static void a_device_and_layers_that_it_lacks_contradict_each_other(void **state) {
    (void)state;
    static const struct {
        const char *yaml, *want; /* NULL: nothing is wrong */
    } said[] = {{"device: cuda\ngpu_layers: 0\n", "c.yaml:2: gpu_layers: 0 is the CPU alone"},
                {"gpu_layers: 7\ndevice: cpu\n", "c.yaml:1: gpu_layers: 7 are for a GPU"},
                {"device: cpu\ngpu_layers: 0\n", NULL},
                {"device: cpu\ngpu_layers: auto\n", NULL},
                {"device: cuda\ngpu_layers: auto\n", NULL},
                {"device: cuda\ngpu_layers: 7\n", NULL},
                {"device: auto\ngpu_layers: 0\n", NULL}};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        struct config c;
        struct err err = {0};
        assert_int_equal(parse(said[i].yaml, &c), ST_OK);
        assert_int_equal(config_check_devices(&c, &err), said[i].want ? ST_FORMAT : ST_OK);
        if (said[i].want)
            assert_non_null(strstr(err.msg, said[i].want));
        config_release(&c);
    }
}

static void mistakes_are_named_with_their_line(void **state) {
    (void)state;
    static const struct {
        const char *yaml, *want;
    } bad[] = {
        {"mdoel: x\n", "c.yaml:1: unknown key \"mdoel\"; did you mean \"model\"?"},
        {"\n\nzzzzzzzz: x\n", "c.yaml:3: unknown key \"zzzzzzzz\"; known are model"},
        {"model: a\nmodel: b\n", "c.yaml:2: the key \"model\" was given on line 1 already"},
        {"gpu_memory_utilization: 1.1\n", "c.yaml:1: gpu_memory_utilization: 1.1"},
        {"gpu_layers: -1\n", "c.yaml:1: gpu_layers: -1: auto, or a whole number"},
        {"gpu_layers: most\n", "c.yaml:1: gpu_layers: most"},
        {"gpu_layers: 99999999999999999999\n", "c.yaml:1: gpu_layers"},
        {"gpu_memory_utilization: half\n", "c.yaml:1: gpu_memory_utilization: half"},
        {"tensor_parallel: 0\n", "c.yaml:1"},
        {"tensor_parallel: two\n", "c.yaml:1"},
        {"threads: many\n",
         "c.yaml:1: threads: many given, a whole number from 0 to 1024 wanted"},
        {"threads: 99999999999999999999\n", "c.yaml:1: threads"},
        {"model: x\nkv_cache: much\n", "c.yaml:2: kv_cache: a size like 4 GB or 500 MB wanted"},
        {"kv_cache: -1\n", "c.yaml:1: kv_cache"},
        {"kv_type: int4\n",
         "c.yaml:1: kv_type: int4 given, auto, f32, f16, bf16, int8 or fp8 wanted"},
        {"kv_cache: 1e30\n", "c.yaml:1: kv_cache"},
        {"swap_space: lots\n", "c.yaml:1: swap_space: a size like 4 GB or 500 MB wanted"},
        {"mouse: perhaps\n", "c.yaml:1: mouse: perhaps given, true or false wanted"},
        {"theme: pink\n", "c.yaml:1: theme: pink given, auto, dark, light or mono wanted"},
        {"model: [a]\n", "c.yaml:1: model: a list given, a text wanted"},
        {"a b c\n", "c.yaml:1: a map"},
        {"- a\n", "c.yaml:1: a map"},
        {"sampling:\n  temprature: 1\n",
         "c.yaml:2: unknown key \"temprature\"; did you mean \"temperature\"?"},
        {"sampling:\n  top_k: 5\n  top_p: 7\n", "c.yaml:3: top_p: 7 given"},
        {"sampling: 5\n", "c.yaml:1: sampling"},
        {"sampling: { speculation: maybe }\n",
         "c.yaml:1: speculation: maybe given, one of off|auto|lookup|draft wanted"},
        {"sampling: { speculation: [off] }\n", "c.yaml:1: speculation: a list given, a word"},
        {"draft_model: [a]\n", "c.yaml:1: draft_model: a list given, a text wanted"},
        {"sampling: { top_k: [1] }\n", "c.yaml:1: top_k"},
        {"keys: { send: { a: b } }\n", "c.yaml:1: keys: send"},
        {"keys: [a]\n", "c.yaml:1: keys"},
        {"model: &a x\nsystem: *a\n", "c.yaml:1: anchors"},
        {"model: *a\n", "c.yaml:1: aliases"},
        {"model: !!str x\n", "c.yaml:1: tags"},
        {"model: a\n---\nmodel: b\n", "c.yaml:2: a second document"},
        {"model: \"a\n", "c.yaml:2"},
        {"model: \"a\\0b\"\n", "c.yaml:1: a text that is not valid UTF-8"},
        {"? [a]\n: b\n", "c.yaml:1: a key"},
        {"prompt: coder\nsystem: x\n", "c.yaml:1: prompt: system is given as well"},
        {"keys: [[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]\n", "c.yaml:1: nested too deeply"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct config c;
        enum status st = parse(bad[i].yaml, &c);
        if (st != ST_FORMAT || strncmp(e.msg, bad[i].want, strlen(bad[i].want)) != 0)
            fail_msg("%s: \"%s\" wanted, \"%s\" found", bad[i].yaml, bad[i].want, e.msg);
    }
}

static void sizes_are_read(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},
                {"12345", 12345},
                {"500MB", 500000000},
                {"500 M", 500000000},
                {"2G", 2000000000},
                {"1.5 GB", 1500000000},
                {"4 GiB", 4ull << 30},
                {"3k", 3000},
                {"3 KiB", 3072},
                {"1T", 1000000000000},
                {"7 B", 7}};
    static const char *const bad[] = {"",     "-1", "G",   "4 GBs", "4 X",
                                      "1e19", "0x", "nan", "4 i",   " "};
    uint64_t bytes;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(config_size(good[i].text, &bytes));
        assert_int_equal(bytes, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (config_size(bad[i], &bytes))
            fail_msg("\"%s\" is taken for a size", bad[i]);
    struct config c;
    OK(parse("kv_cache: 2 GB\n", &c));
    assert_int_equal(c.kv_cache, 2000000000);
    config_release(&c);
    OK(parse("swap_space: 3 GiB\n", &c));
    assert_int_equal(c.swap_space, (uint64_t)3 << 30);
    assert_int_equal(config_engine(&c).swap_bytes, (uint64_t)3 << 30);
    config_release(&c);
    OK(parse("", &c));
    assert_int_equal(c.kv_cache, 4000000000);
    uint64_t quarter = (uint64_t)sysconf(_SC_PHYS_PAGES) / 4 * (uint64_t)sysconf(_SC_PAGESIZE);
    assert_int_equal(c.swap_space, quarter < 4000000000 ? quarter : 4000000000);
    config_release(&c);
}

static void prompt_must_be_in_the_library(void **state) {
    (void)state;
    struct config c;
    char dir[] = "/tmp/llmchat-config-XXXXXX", file[64], own[64];
    assert_non_null(mkdtemp(dir));
    setenv("LLMCHAT_HOME", dir, 1);
    setenv("LLMCHAT_SHARE", dir, 1);
    snprintf(file, sizeof file, "%s/c.yaml", dir);
    OK(file_write_atomic(file, "\n\nprompt: mine\n", 15, &e));
    assert_int_equal(config_load(file, &c, &e), ST_FORMAT);
    assert_non_null(strstr(e.msg, "c.yaml:3: prompt: there is no prompt \"mine\""));
    snprintf(own, sizeof own, "%s/config/prompts", dir);
    OK(path_make_dirs(own, &e));
    snprintf(own, sizeof own, "%s/config/prompts/mine.yaml", dir);
    OK(file_write_atomic(own, "name: mine\ntxet: Hi\n", 20, &e));
    assert_int_equal(config_load(file, &c, &e), ST_FORMAT);
    assert_non_null(
        strstr(e.msg, "mine.yaml:2: unknown key \"txet\"")); /* why it is not there */
    OK(file_write_atomic(own, "name: mine\ntext: Hi\n", 20, &e));
    OK(config_load(file, &c, &e));
    assert_string_equal(c.prompt, "mine");
    config_release(&c);
    char cmd[64];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    assert_int_equal(system(cmd), 0);
}

static void size_is_bounded(void **state) {
    (void)state;
    struct config c;
    size_t n = (2 << 20) + 1;
    char *big = malloc(n);
    memset(big, '#', n);
    assert_int_equal(config_parse(big, n, "c.yaml", &c, &e), ST_LIMIT);
    for (size_t i = 0; i + 2 < n; i += 2) /* many values */
        memcpy(big + i, i ? "a," : "[ ", 2);
    assert_int_equal(config_parse(big, 1 << 19, "c.yaml", &c, &e), ST_FORMAT);
    assert_non_null(strstr(e.msg, "too many values"));
    free(big);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_read),
        cmocka_unit_test(ways_out_of_a_full_context_have_names),
        cmocka_unit_test(missing_and_empty_files_are_no_errors),
        cmocka_unit_test(layers_on_the_gpu_may_be_none_some_or_auto),
        cmocka_unit_test(a_device_and_layers_that_it_lacks_contradict_each_other),
        cmocka_unit_test(mistakes_are_named_with_their_line),
        cmocka_unit_test(sizes_are_read),
        cmocka_unit_test(prompt_must_be_in_the_library),
        cmocka_unit_test(size_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
