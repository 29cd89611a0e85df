/*
 * test_prompts.c - the prompt library: the files we ship, the person's own, and broken ones.
 */
#include "base/path.h"
#include "chat/prompts.h"
#include "chat/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct err e;
static char dir[64];

static int setup(void **state) {
    (void)state;
    const char *src = getenv("srcdir");
    char *share = xasprintf("%s/share", src ? src : ".");
    setenv("LLMCHAT_SHARE", share, 1);
    free(share);
    strcpy(dir, "/tmp/llmchat-test-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    return setenv("LLMCHAT_HOME", dir, 1);
}

static int teardown(void **state) {
    (void)state;
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

static void write_own(const char *name, const char *text) {
    char *path, *relative = xasprintf("prompts/%s", name);
    assert_int_equal(path_in(PATH_CONFIG, relative, &path, &e), ST_OK);
    assert_int_equal(file_write_atomic(path, text, strlen(text), &e), ST_OK);
    free(path);
    free(relative);
}

static void shipped_prompts_are_sound(void **state) {
    (void)state;
    struct prompt_list l;
    assert_int_equal(prompts_load(&l, &e), ST_OK);
    for (size_t i = 0; i < l.broken.n; i++)
        fail_msg("%s", l.broken.v[i]);
    assert_true(l.n >= 8);
    for (size_t i = 0; i < l.n; i++) {
        struct settings s;
        const struct prompt *p = &l.v[i];
        settings_init(&s);
        assert_true(*p->description && *p->text && !p->own);
        assert_int_equal(settings_from_json(&s, p->settings_json, &e), ST_OK);
        settings_release(&s);
        char *text = prompt_fill(p, NULL); /* every variable has a default and is used */
        assert_null(strstr(text, "{{"));
        for (size_t k = 0; k < p->n_vars; k++)
            assert_non_null(strstr(text, p->vars[k].def));
        free(text);
        if (i)
            assert_true(strcmp(l.v[i - 1].name, p->name) < 0);
    }
    assert_non_null(prompt_find(&l, "translator"));
    assert_null(prompt_find(&l, "none"));
    prompt_list_release(&l);
}

static void own_prompt_comes_first_and_a_broken_file_hides_nothing(void **state) {
    (void)state;
    write_own("mine.yaml", "name: translator\ntext: Mine.\nsettings: { top_k: 3 }\n");
    write_own("bad.yaml", "name: bad\ntexxt: x\n");
    write_own("notes.txt", "not a prompt");
    struct prompt_list l;
    assert_int_equal(prompts_load(&l, &e), ST_OK);
    const struct prompt *p = prompt_find(&l, "translator");
    assert_true(p->own);
    assert_string_equal(p->text, "Mine.");
    assert_string_equal(p->settings_json, "{\"top_k\":3}");
    assert_int_equal(l.broken.n, 1);
    assert_non_null(
        strstr(l.broken.v[0], "bad.yaml:2: unknown key \"texxt\"; did you mean \"text\"?"));
    assert_non_null(prompt_find(&l, "coder"));
    prompt_list_release(&l);
}

static void variables_are_filled_in(void **state) {
    (void)state;
    static const char yaml[] = "name: p\ntext: \"{{a}} {{ b }} {{c}} {{a {{a}}\"\n"
                               "variables: [{name: a, default: A}, {name: b}]\n";
    struct prompt p;
    assert_int_equal(prompt_parse(yaml, sizeof yaml - 1, "p.yaml", &p, &e), ST_OK);
    char *text = prompt_fill(&p, NULL);
    assert_string_equal(text, "A  {{c}} {{a A");
    free(text);
    text = prompt_fill(&p, (const char *const[]){"{{b}}", "x"});
    assert_string_equal(text, "{{b}} x {{c}} {{a {{b}}"); /* values are not filled again */
    free(text);
    prompt_release(&p);
}

static void mistakes_are_named(void **state) {
    (void)state;
    static const char *const bad[][2] = {
        {"text: x\n", "p.yaml:1: name"},
        {"name: a b\ntext: x\n", "p.yaml:1: name"},
        {"name: a\n", "p.yaml:1: text"},
        {"name: a\ntext: \" \"\n", "p.yaml:1: text"},
        {"name: a\ntext: x\nvariables: [5]\n", "p.yaml:3: variables"},
        {"name: a\ntext: x\nvariables: [{name: v}, {name: v}]\n", "p.yaml:3: the variable v"},
        {"name: a\ntext: x\nsettings: { top_k: x }\n", "p.yaml:3: top_k"},
        {"5\n", "p.yaml:1: a map"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct prompt p;
        assert_int_equal(prompt_parse(bad[i][0], strlen(bad[i][0]), "p.yaml", &p, &e),
                         ST_FORMAT);
        if (strncmp(e.msg, bad[i][1], strlen(bad[i][1])) != 0)
            fail_msg("%s: %s", bad[i][0], e.msg);
    }
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(shipped_prompts_are_sound),
        T(own_prompt_comes_first_and_a_broken_file_hides_nothing),
        T(variables_are_filled_in),
        T(mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
