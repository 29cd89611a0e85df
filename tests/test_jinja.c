/*
 * test_jinja.c - the chat template interpreter.
 *
 * Truth is jinja2 as transformers sets it up (tests/oracle/templates.py): small templates of
 * ours for each feature of the language, and the templates of published models where their
 * folder lies beside the project. What jinja2 knows nothing of is tested by hand: where every
 * byte came from, the limits, the wording of errors.
 */
#include "base/path.h"
#include "engine/text/jinja.h"
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char *in_srcdir(const char *relative) {
    const char *dir = getenv("srcdir");
    return path_join(dir ? dir : ".", relative);
}

static json_t *load(const char *relative) {
    char *path = in_srcdir(relative);
    json_error_t e;
    json_t *j = json_load_file(path, 0, &e);
    if (!j)
        fail_msg("%s: %s", path, e.text);
    free(path);
    return j;
}

/* Renders; the text, or NULL with err filled. The caller frees. */
static char *render(const char *text, size_t len, const char *vars, struct err *err,
                    char **plain) {
    struct rendered r = {0};
    struct jinja_input in = {.template_text = text,
                             .template_len = len,
                             .messages_json = "[]",
                             .vars_json = vars,
                             .bos = "<s>",
                             .eos = "</s>",
                             .now_unix = 1750000000};
    if (jinja_render(&in, &r, err) != ST_OK) {
        assert_int_equal(r.text.len, 0);
        return NULL;
    }
    assert_int_equal(r.text.len, r.plain.len);
    if (plain) {
        for (size_t i = 0; i < r.plain.len; i++)
            r.plain.p[i] = r.plain.p[i] ? '1' : '0';
        *plain = xstrdup(buf_str(&r.plain));
    }
    buf_release(&r.plain);
    return r.text.p ? buf_take(&r.text) : xstrdup("");
}

static char *simple(const char *text, const char *vars, struct err *err) {
    return render(text, strlen(text), vars, err, NULL);
}

/* want: a string; null: any error; {"error": …}: this exception; {"bytes", "fnv1a"}: a long
 * text. */
static int differs(const char *name, const char *got, const struct err *err,
                   const json_t *want) {
    const char *message = json_string_value(json_object_get(want, "error"));
    if (message) {
        size_t n = strlen(message), have = got ? 0 : strlen(err->msg);
        if (have >= n && strcmp(err->msg + have - n, message) == 0)
            return 0;
    } else if (json_is_null(want)) {
        if (!got) /* Python's endless recursion is ST_LIMIT here */
            return 0;
    } else if (json_is_object(want) && got) {
        uint64_t h = 0xCBF29CE484222325u;
        char hex[20];
        for (const char *p = got; *p; p++)
            h = (h ^ (unsigned char)*p) * 0x100000001B3u;
        snprintf(hex, sizeof hex, "%016llx", (unsigned long long)h);
        if ((json_int_t)strlen(got) == json_integer_value(json_object_get(want, "bytes")) &&
            strcmp(hex, json_string_value(json_object_get(want, "fnv1a"))) == 0)
            return 0;
    } else if (json_is_string(want) && got && strcmp(got, json_string_value(want)) == 0) {
        return 0;
    }
    char *w = json_dumps(want, JSON_ENCODE_ANY);
    print_error("%s\n  got  %s\n  want %s\n", name, got ? got : err->msg, w);
    free(w);
    return 1;
}

static void language_matches_jinja2(void **state) {
    (void)state;
    json_t *j = load("tests/golden/templates/language.json"),
           *cases = json_object_get(j, "cases"), *c;
    char *vars = json_dumps(json_object_get(j, "vars"), 0);
    struct err err = {0};
    size_t i, bad = 0;
    assert_true(json_array_size(cases) > 60);
    json_array_foreach(cases, i, c) {
        const char *t = json_string_value(json_object_get(c, "template"));
        char *got = simple(t, vars, &err);
        bad += (size_t)differs(json_string_value(json_object_get(c, "name")), got, &err,
                               json_object_get(c, "want"));
        free(got);
    }
    assert_int_equal(bad, 0);
    free(vars);
    json_decref(j);
}

static void published_templates_match_jinja2(void **state) {
    (void)state;
    char *dir = in_srcdir("../shared/data/templates");
    if (access(dir, R_OK) != 0) {
        free(dir);
        skip();
    }
    json_t *j = load("tests/golden/templates/published.json"), *all, *want;
    const char *file, *name;
    size_t bad = 0, n = 0;
    all = json_object_get(j, "templates");
    void *tmp;
    json_object_foreach_safe(all, tmp, file, want) {
        char *path = path_join(dir, file);
        struct buf t = {0};
        struct err err = {0};
        if (access(path, R_OK) == 0)
            assert_int_equal(file_read(path, 1 << 20, &t, &err), ST_OK);
        json_t *w;
        json_object_foreach(want, name, w) {
            if (!t.len)
                break;
            char *vars = json_dumps(json_object_get(json_object_get(j, "chats"), name), 0);
            char *got = render(t.p, t.len, vars, &err, NULL);
            int d = differs(name, got, &err, w);
            if (d)
                print_error("  in %s\n", file);
            bad += (size_t)d;
            n++;
            free(got);
            free(vars);
        }
        buf_release(&t);
        free(path);
    }
    free(dir);
    json_decref(j);
    assert_int_equal(bad, 0);
    if (!n)
        skip();
}

static void chat_styles_match_jinja2(void **state) {
    (void)state;
    json_t *j = load("tests/golden/templates/styles.json"), *t, *w,
           *all = json_object_get(j, "templates");
    size_t i, bad = 0;
    const char *name;
    assert_true(json_array_size(all) >= 60);
    json_array_foreach(all, i, t) {
        const char *text = json_string_value(json_object_get(t, "text"));
        int here = 0;
        json_object_foreach(json_object_get(t, "want"), name, w) {
            struct err err = {0};
            char *vars = json_dumps(json_object_get(json_object_get(j, "chats"), name), 0);
            char *got = simple(text, vars, &err);
            here += differs(name, got, &err, w);
            free(got);
            free(vars);
        }
        if (here)
            print_error("  in %s\n", json_string_value(json_object_get(t, "name")));
        bad += (size_t)here;
    }
    json_decref(j);
    assert_int_equal(bad, 0);
}

/* ---- where bytes come from ---- */

static void marks(const char *text, const char *want_text, const char *want_plain) {
    struct err err = {0};
    char *plain = NULL;
    char *got = render(text, strlen(text),
                       "{\"a\": \"UV\", \"b\": \" <x>\\n y \", \"l\": [\"p\", \"q\"], \"o\": "
                       "{\"k\": \"w\\\"\"}}",
                       &err, &plain);
    if (!got)
        fail_msg("%s: %s", text, err.msg);
    assert_string_equal(got, want_text);
    assert_string_equal(plain, want_plain);
    free(got);
    free(plain);
}

static void variables_are_marked_and_the_template_is_not(void **state) {
    (void)state;
    marks("<{{ a }}>", "<UV>", "0110");
    marks("{{ bos_token }}{{ 'x' }}", "<s>x", "0000");
    marks("{{ '<' + a + '>' }}{{ 1 ~ a }}", "<UV>1UV", "0110011");
}

static void marks_follow_string_operations(void **state) {
    (void)state;
    marks("{{ ('<' ~ a ~ '>')[1:] }}", "UV>", "110");
    marks("{{ ('<' ~ a ~ '>')[::-1] }}", ">VU<", "0110");
    marks("{{ b.strip() }}{{ b|trim|upper }}", "<x>\n y<X>\n Y", "111111111111");
    marks("{{ ('-' ~ a ~ '-' ~ a).split('-')|join('+') }}", "+UV+UV", "011011");
    marks("{{ 'aUb'|replace('U', a) }}{{ a|replace('U', '<s>') }}", "aUVb<s>V", "01100001");
    marks("{{ '%s|%4s' % (a, a) }}{{ '{:>3}'.format(a) }}", "UV|  UV UV", "1100011011");
    marks("{{ l|join('<|>') }}{{ l }}", "p<|>q['p', 'q']", "100010010000100");
    marks("{{ o|tojson }}", "{\"k\": \"w\\\"\"}", "001000011100");
    marks("{{ b.strip()|indent(1) }}", "<x>\n  y", "1110011");
    marks("{% set x %}({{ a }}){% endset %}{{ x }}{{ x|length }}", "(UV)4", "01100");
    marks("{% macro m(v) %}[{{ v }}]{% endmacro %}{{ m(a)|e }}", "[UV]", "0110");
    marks("{% filter lower %}A{{ a }}{% endfilter %}", "auv", "011");
    marks("{{ a|safe ~ '<' }}{{ (a|e) + '<' }}", "UV<UV&lt;", "110110000");
}

/* ---- limits ---- */

static void stopped(const char *text) {
    struct err err = {0};
    char *got = simple(text, NULL, &err);
    assert_null(got);
    if (err.code != ST_LIMIT)
        fail_msg("%s: %s", text, err.msg);
}

static void endless_templates_are_stopped(void **state) {
    (void)state;
    stopped("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}");
    stopped("{% for a in range(99999) %}{% for b in range(99999) %}long text long text{% "
            "endfor %}{% endfor %}");
    stopped("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}");
    stopped("{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}");
    stopped("{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% "
            "endfor %}");
    stopped("{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] "
            "%}{% endfor %}{{ n.x }}");
    stopped("{% set n = namespace(x=[1]) %}{% for i in range(9999) %}{% set n.x = [n.x] %}{% "
            "endfor %}{{ n.x }}");
}

static void huge_values_are_refused(void **state) {
    (void)state;
    stopped("{{ 'a' * 1000000000 }}");
    stopped("{{ [1] * 1000000000 }}");
    stopped("{{ 9 ** 9 ** 9 }}");
    stopped("{{ 9223372036854775807 + 1 }}");
    stopped("{{ -9223372036854775807 - 2 }}");
    stopped("{{ range(100001) }}");
    stopped("{{ 'a'|center(10000000000) }}");
    stopped("{{ '%9999999s' % 'a' }}");
    stopped("{{ 1.5|tojson(indent=99999999) }}");
}

/* Each takes more than any machine has when it is done as it reads. All that these must do is
 * to come back: most are refused, some have a way that is short. */
static void searching_and_growing_end(void **state) {
    (void)state;
    static const char *const text[] = {
        "{% set s = 'a'*1000000 %}{{ s.rfind('a'*500000 ~ 'b' ~ 'a'*100) }}",
        "{{ ('a'*1000000).rsplit('b' ~ 'a'*500000)|length }}",
        "{{ ('<!-- >'*200000)|striptags }}{{ ('<'*1000000)|striptags }}",
        "{{ ('z'*9000000).strip('a'*1000000 ~ 'z') }}",
        "{% set s = 'a'*9000000 %}{% for i in range(99999) %}{{ 'b' in s }}{% endfor %}",
        "{{ ('x'*9000000)|wordwrap(1) }}",
        "{{ ('\\n'*900000)|indent('x'*1000, true, true) }}",
        "{% set n = namespace(s='aaaa') %}{% for i in range(99) %}{% set n.s = "
        "n.s|replace('a', 'aa') %}{% endfor %}",
        "{{ 'a'|center(10**9) }}",
        "{{ [1]|batch(10**9, 'x')|list|length }}",
        "{{ ['a', 'b']|join('x'*99999999) }}",
        "{{ range(10**12) }}",
        "{{ '{:{w}}'.format('a', w=10**9) }}",
        "{% macro f(n) %}{{ f(n - 1) ~ f(n - 1) if n else 'x' }}{% endmacro %}{{ f(99) }}",
        "{% set n = namespace(a=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}"
        "{% endfor %}{{ n.a|pprint }}",
        "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] "
        "%}{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}",
    };
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        struct err err = {0};
        char *got = simple(text[i], NULL, &err);
        if (!got && err.code != ST_LIMIT)
            fail_msg("%s: %s", text[i], err.msg);
        free(got);
    }
    struct buf b = {0};
    for (int i = 0; i < 100000; i++)
        buf_addf(&b, "{%% set a%d = 1 %%}", i);
    stopped(b.p);
    buf_release(&b);
}

static void deep_nesting_is_refused(void **state) {
    (void)state;
    static const char *const part[] = {"(", "[", "-", "not ", "{% if 1 %}"};
    for (size_t k = 0; k < 5; k++) {
        struct buf b = {0};
        if (k < 4)
            buf_adds(&b, "{{ ");
        for (int i = 0; i < 20000; i++)
            buf_adds(&b, part[k]);
        if (k == 2 || k == 3)
            buf_adds(&b, "1 }}");
        stopped(buf_str(&b));
        buf_release(&b);
    }
    struct buf b = {0};
    struct err err = {0};
    for (int i = 0; i < 100000; i++)
        buf_addc(&b, '[');
    assert_null(simple("x", buf_str(&b), &err));
    assert_int_equal(err.code, ST_LIMIT);
    buf_release(&b);
}

static void many_elifs_are_fine(void **state) {
    (void)state;
    struct buf b = {0};
    struct err err = {0};
    buf_adds(&b, "{% if n == -1 %}");
    for (int i = 0; i < 300; i++)
        buf_addf(&b, "{%% elif n == %d %%}%d", i, i);
    buf_adds(&b, "{% endif %}");
    char *got = simple(buf_str(&b), "{\"n\": 299}", &err);
    assert_string_equal(got, "299");
    free(got);
    buf_release(&b);
}

/* ---- errors ---- */

static void error(const char *text, const char *vars, const char *want) {
    struct err err = {0};
    assert_null(simple(text, vars, &err));
    assert_string_equal(err.msg, want);
}

static void errors_name_the_line(void **state) {
    (void)state;
    error("a\n{% if x %}\n{{ y.z }}{% endif %}", "{\"x\": 1}",
          "chat template: line 3: 'y' is undefined");
    error("a\n\n{{ d.k.j }}", "{\"d\": {}}",
          "chat template: line 3: 'dict object' has no attribute 'k'");
    error("{{ raise_exception('No.') }}", NULL, "chat template: line 1: No.");
    error("\n{% for %}", NULL, "chat template: line 2: %} found, an expression wanted");
    error("\n{{ 'a }}", NULL, "chat template: line 2: a string is not closed by '");
    error("{{ [1]|random }}", NULL,
          "chat template: line 1: the filters random and urlize are not offered to chat "
          "templates");
    error("{{ lipsum() }}", NULL,
          "chat template: line 1: lipsum() is not offered to chat templates: a prompt must be "
          "the same each time");
    error("\n\n{% include 'x' %}", NULL,
          "chat template: line 3: 'include' found, a tag that chat templates have wanted");
    error("\xff", NULL, "chat template: line 1: byte 0 is not valid UTF-8");
}

static void bad_json_is_named(void **state) {
    (void)state;
    error("x", "{\"a\": }", "template variables: JSON byte 6: '}' found, a value wanted");
    error("x", "{\"a\": 1", "template variables: the JSON ends at byte 7, ',' or '}' wanted");
    error("x", "[1]", "template variables: a list found, a dict wanted");
    error("x", "{\"a\": 01}", "template variables: JSON byte 8: '}' found, a number wanted");
    struct err err = {0};
    struct rendered r = {0};
    struct jinja_input in = {
        .template_text = "x", .template_len = 1, .messages_json = "[5]", .bos = "", .eos = ""};
    assert_int_equal(jinja_render(&in, &r, &err), ST_FORMAT);
    assert_string_equal(err.msg, "messages: message 0 is a int, not an object");
}

static void json_strings_and_numbers_survive(void **state) {
    (void)state;
    struct err err = {0};
    char *got = simple("{{ x|tojson }}",
                       "{\"x\": [\"\\u00e9\\ud83d\\ude00\\n\", -0.5, 1E2, "
                       "18446744073709551616, {\"b\": 1, \"a\": 2, \"b\": 3}, \"\\ud800\"]}",
                       &err);
    assert_string_equal(got, "[\"é😀\\n\", -0.5, 100.0, 18446744073709551616, {\"b\": 3, \"a\": "
                             "2}, \"\xEF\xBF\xBD\"]");
    free(got);
}

static void integers_beyond_64_bits_are_never_wrong(void **state) {
    (void)state;
    struct err err = {0};
    static const char vars[] = "{\"b\": 18446744073709551616, \"f\": 18446744073709551616.0}";
    char *got = simple("{{ b }} {{ b == f }} {{ b == f + 4096 }} {{ b == b }} {{ b|float }} "
                       "{{ b is integer }} {{ b|tojson }}",
                       vars, &err);
    assert_string_equal(got, "18446744073709551616 True False True 1.8446744073709552e+19 True "
                             "18446744073709551616");
    free(got);
    static const char *const text[] = {"{{ b + 1 }}", "{{ b < 1 }}", "{{ -b }}", "{{ b|abs }}"};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        assert_null(simple(text[i], vars, &err));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(language_matches_jinja2),
        cmocka_unit_test(published_templates_match_jinja2),
        cmocka_unit_test(chat_styles_match_jinja2),
        cmocka_unit_test(variables_are_marked_and_the_template_is_not),
        cmocka_unit_test(marks_follow_string_operations),
        cmocka_unit_test(endless_templates_are_stopped),
        cmocka_unit_test(huge_values_are_refused),
        cmocka_unit_test(searching_and_growing_end),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(many_elifs_are_fine),
        cmocka_unit_test(integers_beyond_64_bits_are_never_wrong),
        cmocka_unit_test(errors_name_the_line),
        cmocka_unit_test(bad_json_is_named),
        cmocka_unit_test(json_strings_and_numbers_survive),
    };
    setenv("TZ", "UTC", 1);
    tzset();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
