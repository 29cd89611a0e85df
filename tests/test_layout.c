/*
 * test_layout.c - Markdown and plain text as lines: the screens they give, streaming, source
 * ranges, hostile input.
 */
#include "base/utf8.h"
#include "ui/layout.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct layout *lay_out(const char *text, size_t len, int width, bool markdown) {
    struct layout *l = layout_new(markdown);
    layout_append(l, text, len);
    layout_finish(l);
    layout_set_width(l, width);
    return l;
}

/* The lines as text; rows that go on with the one before begin with '+', others with ' '. */
static char *screen(struct layout *l) {
    struct buf out = {0};
    for (size_t i = 0; i < layout_n_lines(l); i++) {
        const struct layout_line *line = layout_line(l, i);
        const struct layout_run *r = layout_runs(l, line);
        size_t from = out.len;
        buf_addc(&out, line->cont ? '+' : ' ');
        for (uint32_t k = 0; k < line->n_run; k++)
            buf_add(&out, layout_text(l, &r[k]), r[k].len);
        while (out.len > from + 1 && out.p[out.len - 1] == ' ')
            buf_cut(&out, out.len - 1);
        buf_addc(&out, '\n');
    }
    return out.p ? buf_take(&out) : xstrdup("");
}

/* Everything there is to know about the lines, to compare two layouts. */
static char *dump(struct layout *l) {
    struct buf out = {0};
    for (size_t i = 0; i < layout_n_lines(l); i++) {
        const struct layout_line *line = layout_line(l, i);
        const struct layout_run *r = layout_runs(l, line);
        buf_addf(&out, "%u-%u %u%s%s:", line->src, line->src_end, line->cells,
                 line->cont ? "+" : "", line->decoration ? "d" : "");
        for (uint32_t k = 0; k < line->n_run; k++) {
            buf_addf(&out, " %x,%u+%u,%u[", r[k].style, r[k].src, r[k].src_len, r[k].cells);
            buf_add(&out, layout_text(l, &r[k]), r[k].len);
            buf_addc(&out, ']');
        }
        buf_addc(&out, '\n');
    }
    return out.p ? buf_take(&out) : xstrdup("");
}

static void expect(const char *text, int width, bool markdown, const char *want) {
    struct layout *l = lay_out(text, strlen(text), width, markdown);
    char *got = screen(l);
    assert_string_equal(got, want);
    free(got);
    layout_free(l);
}

static void paragraphs_wrap_between_words(void **state) {
    (void)state;
    expect("The Moon's gravity pulls the sea.\n\nSo it rises.", 16, true,
           " The Moon's\n"
           "+gravity pulls\n"
           "+the sea.\n"
           " \n"
           " So it rises.\n");
}

static void long_words_and_urls_are_broken(void **state) {
    (void)state;
    expect("see https://example.org/a/very/long/path now", 16, true,
           " see\n"
           "+https://example.\n"
           "+org/a/very/long/\n"
           "+path now\n");
}

static void wide_text_breaks_between_characters_but_not_before_marks(void **state) {
    (void)state;
    expect("月の引力が海を引く。それで満ちる。", 12, true,
           " 月の引力が海\n"
           "+を引く。それ\n"
           "+で満ちる。\n");
    expect("ああああああ。い", 12, true,
           " あああああ\n"
           "+あ。い\n");
}

static void clusters_are_never_cut(void **state) {
    (void)state;
    /* a family of four joined by U+200D, and e with a combining accent */
    expect("👨‍👩‍👧‍👦👨‍👩‍👧‍👦👨‍👩‍👧‍👦👨‍👩‍👧‍👦👨‍👩‍"
           "👧"
           "‍"
           "👦",
           8, true,
           " 👨‍👩‍👧‍👦👨‍👩‍👧‍👦👨‍👩‍👧‍👦👨‍👩‍👧"
           "‍"
           "👦"
           "\n"
           "+👨‍👩‍👧‍👦\n");
    expect("e\xcc\x81"
           "e\xcc\x81"
           "eeeeeeee",
           8, true,
           " e\xcc\x81"
           "e\xcc\x81"
           "eeeeee\n"
           "+ee\n");
}

static void lists_nest_and_hang(void **state) {
    (void)state;
    expect("- one\n- two words that wrap\n  - inner\n    more\n\n7. seven\n8. eight", 16, true,
           " • one\n"
           " • two words that\n"
           "+  wrap\n"
           "   ◦ inner\n"
           "     more\n"
           " \n"
           " 7. seven\n"
           " 8. eight\n");
}

static void tight_and_loose_lists_differ(void **state) {
    (void)state;
    expect("- a\n- b", 20, true, " • a\n • b\n");
    expect("- a\n\n- b", 20, true, " • a\n \n • b\n");
    expect("-\n- b", 20, true, " •\n • b\n");
}

static void task_lists_show_boxes(void **state) {
    (void)state;
    expect("- [x] done\n- [ ] open", 20, true, " ☑ done\n ☐ open\n");
}

static void quotes_have_bars_on_every_row(void **state) {
    (void)state;
    expect("> a quote that wraps\n>\n> - item\n> > inner", 14, true,
           " ▌ a quote that\n"
           "+▌ wraps\n"
           " ▌\n"
           " ▌ • item\n"
           " ▌\n"
           " ▌ ▌ inner\n");
}

static void code_wraps_anywhere_with_a_mark(void **state) {
    (void)state;
    expect("```c\nint main(void) { return 0; }\n\n\tx;\n```\nend", 20, true,
           " ```c\n"
           " int main(void) { ret\n"
           "+↪ urn 0; }\n"
           " \n"
           "     x;\n"
           " ```\n"
           " \n"
           " end\n");
}

static void tables_fit_the_width(void **state) {
    (void)state;
    static const char table[] = "| Name | Meaning | N |\n|:--|:-:|--:|\n"
                                "| sea | a lot of salt water | 1 |\n| moon | rock | 22 |\n";
    expect(table, 40, true,
           " Name │       Meaning       │  N\n"
           " ─────┼─────────────────────┼───\n"
           " sea  │ a lot of salt water │  1\n"
           " moon │        rock         │ 22\n");
    expect(table, 24, true,
           " Name │   Meaning    │  N\n"
           " ─────┼──────────────┼───\n"
           " sea  │   a lot of   │  1\n"
           "+     │  salt water  │\n"
           " moon │     rock     │ 22\n");
    expect(table, 12, true,
           " Name: sea\n"
           " Meaning: a\n"
           "+  lot of\n"
           "+  salt water\n"
           " N: 1\n"
           " \n"
           " Name: moon\n"
           " Meaning:\n"
           "+  rock\n"
           " N: 22\n");
}

static void links_show_text_and_address(void **state) {
    (void)state;
    expect("[tides](http://a.b/c) <http://x.y> me@a.b ![pic](p.png) [](u)", 80, true,
           " tides <http://a.b/c> http://x.y me@a.b pic <p.png> <u>\n");
}

static void html_is_text_and_entities_are_characters(void **state) {
    (void)state;
    expect("<b>x</b> &amp; &lt;y&gt; &#65; &nosuch;\n\n<div>\nz\n</div>", 80, true,
           " <b>x</b> & <y> A &nosuch;\n \n <div>\n z\n </div>\n");
}

static void headings_and_rules(void **state) {
    (void)state;
    expect("# One\ntext\n\n---\n\nTwo\n---\n", 10, true,
           " One\n \n text\n \n ──────────\n \n Two\n");
}

static void control_characters_never_come_out(void **state) {
    (void)state;
    static const char text[] = "a\x1b]0;title\x07 b\xc2\x9b"
                               "31m \xff\xfe \xe2\x80\xae `c\x1b[2J`\n\n```\n\x1b[H\tx\n```\n";
    for (int markdown = 0; markdown < 2; markdown++) {
        struct layout *l = lay_out(text, sizeof text - 1, 30, markdown);
        char *got = screen(l);
        assert_true(utf8_valid(got, strlen(got)));
        for (const char *p = got; *p; p++)
            assert_true((unsigned char)*p >= 0x20 || *p == '\n');
        assert_null(strstr(got, "\xc2\x9b"));
        assert_null(strstr(got, "\xe2\x80\xae"));
        assert_non_null(strstr(got, "title"));
        free(got);
        layout_free(l);
    }
}

static void plain_text_is_left_alone(void **state) {
    (void)state;
    expect("# no *heading*\n    kept  blanks\n\n- x\n", 40, false,
           " # no *heading*\n     kept  blanks\n \n - x\n");
}

/* -- styles -- */

static uint16_t style_of(struct layout *l, const char *text) {
    for (size_t i = 0; i < layout_n_lines(l); i++) {
        const struct layout_line *line = layout_line(l, i);
        const struct layout_run *r = layout_runs(l, line);
        for (uint32_t k = 0; k < line->n_run; k++)
            if (r[k].len == strlen(text) && !memcmp(layout_text(l, &r[k]), text, r[k].len))
                return r[k].style;
    }
    fail_msg("no run is \"%s\"", text);
    return 0;
}

static void runs_carry_their_styles(void **state) {
    (void)state;
    static const char text[] = "## head\n**b** *i* ***bi*** ~~s~~ `c` [t](u)\n\n```c\nint f; "
                               "// note\n\"str\" 12\n```\n";
    struct layout *l = lay_out(text, sizeof text - 1, 80, true);
    assert_int_equal(style_of(l, "head"), STYLE_H2);
    assert_int_equal(style_of(l, "b"), STYLE_TEXT | STYLE_BOLD);
    assert_int_equal(style_of(l, "i"), STYLE_TEXT | STYLE_ITALIC);
    assert_int_equal(style_of(l, "bi"), STYLE_TEXT | STYLE_BOLD | STYLE_ITALIC);
    assert_int_equal(style_of(l, "s"), STYLE_TEXT | STYLE_STRIKE);
    assert_int_equal(style_of(l, "c"), STYLE_CODE);
    assert_int_equal(style_of(l, "t"), STYLE_LINK);
    assert_int_equal(style_of(l, "u"), STYLE_URL);
    assert_int_equal(style_of(l, "int"), STYLE_CODE_KEYWORD);
    assert_int_equal(style_of(l, "// note"), STYLE_CODE_COMMENT);
    assert_int_equal(style_of(l, "\"str\""), STYLE_CODE_STRING);
    assert_int_equal(style_of(l, "12"), STYLE_CODE_NUMBER);
    layout_free(l);
}

/* -- source ranges -- */

static const char document[] =
    "# Tides *and* moons\n"
    "The **Moon** pulls; see [this](http://a.b/c) &amp; `that`.\n"
    "second line 日本語の文章です。\n\n"
    "- one\n- two\n  - deep **er** and a rather long line that wraps\n\n"
    "    para in item\n\n  ```py\n  x = '''a\n  b''' # c\n  ```\n- [x] done\n\n"
    "3) three\n4) four\n\n"
    "> quote\n> > inner\nlazy\n\n"
    "| A | B |\n|---|--:|\n| `x` | 1 |\n| long cell text here | 22 |\n\n"
    "Setext\n===\n\n"
    "```c\n/* a comment\n\n over lines */ int a;\n\n\tint b = \"```\";\n```\n"
    "~~~~\n```\nnot closed by this\n~~~~\n\n"
    "para right after\n***\n"
    "   indented para\nlast 👨‍👩‍👧‍👦 e\xcc\x81 line\n\n"
    "~~~js\nlet s = `multi\n\nline`;\nopen to the end\nmore\n";

static void verbatim_runs_are_the_source(void **state) {
    (void)state;
    for (int width = 10; width < 90; width += 7) {
        struct layout *l = lay_out(document, strlen(document), width, true);
        uint32_t last = 0;
        for (size_t i = 0; i < layout_n_lines(l); i++) {
            const struct layout_line *line = layout_line(l, i);
            const struct layout_run *r = layout_runs(l, line);
            unsigned cells = 0;
            assert_true(line->src >= last); /* lines are in the order of the source */
            last = line->src;
            assert_true(line->cells <= width);
            for (uint32_t k = 0; k < line->n_run; k++) {
                cells += r[k].cells;
                if (r[k].src_len == 0)
                    continue;
                assert_true(r[k].src + r[k].src_len <= strlen(document));
                if (!r[k].whole)
                    assert_memory_equal(layout_text(l, &r[k]), document + r[k].src, r[k].len);
            }
            assert_int_equal(cells, line->cells);
        }
        layout_free(l);
    }
}

static void positions_lead_to_the_source(void **state) {
    (void)state;
    static const char text[] = "ab **cd** 日本 &amp; x\n\n```\n  code\n```\n";
    struct layout *l = lay_out(text, sizeof text - 1, 40, true);
    size_t from, to;
    layout_pos(l, 0, 0, &from, &to);
    assert_int_equal(from, 0);
    assert_int_equal(to, 1);
    layout_pos(l, 0, 3, &from, &to); /* the c of **cd** */
    assert_int_equal(from, 5);
    layout_pos(l, 0, 7, &from, &to); /* the second cell of 日 */
    assert_int_equal(from, 10);
    assert_int_equal(to, 13);
    layout_pos(l, 0, 11, &from, &to); /* & stands for &amp; */
    assert_int_equal(to - from, 5);
    layout_pos(l, 0, 39, &from, &to);
    assert_int_equal(from, strchr(text, '\n') - text);
    assert_int_equal(layout_line_at(l, (size_t)(strstr(text, "code") - text)), 3);
    layout_free(l);
}

/* -- streaming -- */

static unsigned rng_state;
static unsigned rng(void) { /* a fixed sequence */
    rng_state = rng_state * 1664525u + 1013904223u;
    return rng_state >> 8;
}

static char *streamed(const char *text, size_t len, int width, bool markdown, bool look,
                      size_t max_piece) {
    struct layout *l = layout_new(markdown);
    layout_set_width(l, width);
    for (size_t at = 0; at < len;) {
        size_t n = 1 + rng() % max_piece;
        if (n > len - at)
            n = len - at;
        layout_append(l, text + at, n);
        at += n;
        if (look)
            layout_n_lines(l);
    }
    layout_finish(l);
    char *out = dump(l);
    layout_free(l);
    return out;
}

static void assert_streams_equal(const char *text, size_t len, int width, bool markdown) {
    struct layout *l = lay_out(text, len, width, markdown);
    char *whole = dump(l);
    char *a = streamed(text, len, width, markdown, true, 1 + rng() % 12);
    assert_string_equal(a, whole);
    free(a);
    free(whole);
    layout_free(l);
}

static void a_streamed_text_gives_the_same_lines(void **state) {
    (void)state;
    rng_state = 1;
    for (int round = 0; round < 40; round++) {
        assert_streams_equal(document, strlen(document), 20 + round, true);
        assert_streams_equal(document, strlen(document), 20 + round, false);
    }
}

/* Any order of pieces of Markdown, also such as no person writes. */
static void random_markdown_streams_equal(void **state) {
    (void)state;
    static const char *const pieces[] = {
        "word",        " ",      "\n",
        "\n\n",        "- ",     "  ",
        "    ",        "1. ",    "> ",
        "```",         "```c\n", "~~~",
        "\n```\n",     "# ",     "| a | b |\n|---|---|\n",
        "| 1 | 2 |\n", "**",     "*",
        "`",           "[x](y)", "[r]: http://z\n",
        "[r]",         "---\n",  "===\n",
        "\r\n",        "\t",     "日本",
        "&lt;",        "<b>",    "\n\npara\n\n",
        "- [ ] ",      "\\",     "\n- item\n",
        "[](u)",       "|\n",    "[`a`]( <v>)",
    };
    rng_state = 7;
    for (int round = 0; round < 1500; round++) {
        struct buf b = {0};
        for (unsigned n = 3 + rng() % 40; n > 0; n--)
            buf_adds(&b, pieces[rng() % (sizeof pieces / sizeof *pieces)]);
        assert_streams_equal(b.p, b.len, 10 + (int)(rng() % 40), true);
        buf_release(&b);
    }
}

/* Each was once laid out otherwise when it came byte by byte. */
static void hard_texts_stream_equal(void **state) {
    (void)state;
    static const char *const texts[] = {
        /* whether an address counts as source must not depend on what stood before the border
         */
        "\n[](u)|\n",
        "a\n\n[](u) b\n\n[](<v>)\n\nc\n",
        "a\n\n[]( u)\n[](w)\nb\n\nc\n",
        "x\n\n[a](\nu)\n\n[![](p)](q)\n",
        /* a link that the parser leaves without saying so */
        "www..b|\n---\n\n|\n",
        /* a fence that closes n lines of code and n blank lines later is not one that opens */
        "```\n\n\n```\n\n\n>",
        "```c\n````-\n\n```",
        "```\n\n\n```\n\n\t",
        /* lines that are fences or none, by what is before them */
        "|\n    ```\n\n-",
        "- ```\n\n```=\n",
        "1. ```\n\n```c\n",
        "- ```\n`~~~\n\n-",
        "- ```\n\n`# T\n",
        "- ```\n````~~~\n\n```",
        "> ```\n\n~1. T\n",
        /* the parser's bug with an offset of 4, modulo 256 */
        "\n)\n- m\n\n\n  )",
        ")\n\n)\n- m\n\n\n  )\n\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        size_t len = strlen(texts[i]);
        struct layout *l = lay_out(texts[i], len, 16, true);
        char *whole = dump(l), *grown = streamed(texts[i], len, 16, true, true, 1);
        assert_string_equal(grown, whole);
        free(grown);
        free(whole);
        layout_free(l);
    }
}

/* A table that becomes a list, and an item's number, leave room for the text. */
static void lines_of_marks_and_heads_fit_the_least_width(void **state) {
    (void)state;
    static const char *const texts[] = {
        "| a long head | b |\n|---|---|\n| 月 | x y |\n",
        "- - | a long head | b |\n    |---|---|\n    | 月 | x |\n", "123456789. [ ] 月 x\n",
        "> 12345. 月 x\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        for (int width = LAYOUT_MIN_WIDTH; width < 24; width++) {
            struct layout *l = lay_out(texts[i], strlen(texts[i]), width, true);
            for (size_t k = 0; k < layout_n_lines(l); k++)
                assert_true(layout_line(l, k)->cells <= width);
            layout_free(l);
        }
}

static void a_token_costs_the_unfinished_tail_only(void **state) {
    (void)state;
    struct layout *l = layout_new(true);
    size_t worst = 0, before = 0;
    for (int block = 0; block < 200; block++) {
        static const char para[] = "Some **words** of a paragraph that is not long.\n\n"
                                   "- a list\n- of two\n\n";
        for (const char *p = para; *p; p++) {
            layout_append(l, p, 1);
            layout_n_lines(l);
            size_t now = layout_parsed_bytes(l);
            worst = now - before > worst ? now - before : worst;
            before = now;
        }
    }
    /* The tail is at most one paragraph with the list behind it and the next paragraph's first
     * letters. */
    assert_true(worst < 3 * 80);
    assert_true(layout_frozen_lines(l) > 150 * 5);
    layout_free(l);
}

static void open_code_blocks_are_frozen_line_by_line(void **state) {
    (void)state;
    struct layout *l = layout_new(true);
    layout_append(l, "```c\n", 5);
    size_t worst = 0, before = 0;
    for (int line = 0; line < 2000; line++) {
        static const char code[] = "int a_line_of_code = 1; /* x */\n";
        for (const char *p = code; *p; p += 4) {
            layout_append(l, p, 4);
            layout_n_lines(l);
            size_t now = layout_parsed_bytes(l);
            worst = now - before > worst ? now - before : worst;
            before = now;
        }
    }
    assert_true(worst < 4 * 32);
    assert_true(layout_frozen_lines(l) > 1990);
    layout_free(l);
}

static void one_endless_block_costs_a_bounded_multiple(void **state) {
    (void)state;
    struct layout *l = layout_new(true);
    size_t total = 0;
    for (int i = 0; i < 20000; i++) { /* a list of 20,000 items, never finished */
        layout_append(l, "- an item of it\n", 16);
        total += 16;
        if (i % 4 == 0)
            layout_n_lines(l);
    }
    /* Below LARGE_TAIL (32 KiB) each of 512 looks parses at most 32 KiB, then the tail at most
     * once a 16th of growth: the sum of a geometric series, 17 times the text. */
    assert_true(layout_parsed_bytes(l) < (size_t)512 * (32 << 10) + 18 * total);
    layout_free(l);
}

static void a_width_change_lays_out_again(void **state) {
    (void)state;
    struct layout *l = layout_new(true);
    for (const char *p = document; *p; p++) {
        layout_append(l, p, 1);
        layout_set_width(l, 20 + (int)((p - document) / 40));
        layout_n_lines(l);
    }
    layout_finish(l);
    layout_set_width(l, 33);
    char *got = dump(l);
    struct layout *whole = lay_out(document, strlen(document), 33, true);
    char *want = dump(whole);
    assert_string_equal(got, want);
    layout_drop(l);
    free(got);
    got = dump(l);
    assert_string_equal(got, want);
    free(got);
    free(want);
    layout_free(l);
    layout_free(whole);
}

static void link_definitions_reach_back(void **state) {
    (void)state;
    rng_state = 3;
    char *got = streamed("see [t][r]\n\nmore\n\n[r]: http://z\n", 33, 40, true, true, 3);
    assert_non_null(strstr(got, "http://z"));
    free(got);
}

/* -- hostile input -- */

static void repeat(struct buf *b, const char *what, size_t n) {
    for (size_t i = 0; i < n; i++)
        buf_adds(b, what);
}

static size_t lines_of(const struct buf *b, int width) {
    struct layout *l = lay_out(b->p, b->len, width, true);
    size_t n = layout_n_lines(l);
    for (size_t i = 0; i < n; i++)
        assert_true(layout_line(l, i)->cells <= width);
    layout_free(l);
    return n;
}

static void deep_nesting_is_bounded(void **state) {
    (void)state;
    static const char *const marks[] = {">",  "> ",  "*", "- ", "[",  "**a ", "`",    "~",  "_",
                                        "![", "1. ", "<", "&",  "\\", "| ",   "*a_ ", "[]("};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        struct buf b = {0};
        repeat(&b, marks[i], 10000);
        buf_adds(&b, "x\n\nend");
        assert_true(lines_of(&b, 40) >= 1);
        buf_release(&b);
    }
}

static void a_line_of_a_megabyte_wraps(void **state) {
    (void)state;
    struct buf b = {0};
    repeat(&b, "abcdefgh", 131072);
    assert_int_equal(lines_of(&b, 64), 1048576 / 64);
    buf_clear(&b);
    repeat(&b, "\xcc\x81", 500000); /* nothing but combining marks */
    assert_true(lines_of(&b, 64) < 1000);
    buf_release(&b);
}

static void thousands_of_columns_are_shown_as_text(void **state) {
    (void)state;
    struct buf b = {0};
    repeat(&b, "|a", 5000);
    buf_adds(&b, "\n");
    repeat(&b, "|-", 5000);
    buf_adds(&b, "\n");
    repeat(&b, "|\n", 5000);
    assert_true(lines_of(&b, 80) < 10000);
    buf_release(&b);
}

static void a_link_address_used_often_does_not_multiply(void **state) {
    (void)state;
    struct buf b = {0};
    buf_adds(&b, "[a]: http://");
    repeat(&b, "x", 100000);
    buf_adds(&b, "\n\n");
    repeat(&b, "[a] ", 50000);
    struct layout *l = lay_out(b.p, b.len, 80, true);
    assert_true(layout_n_lines(l) < 16 * b.len / 80 + 20000);
    layout_free(l);
    buf_release(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paragraphs_wrap_between_words),
        cmocka_unit_test(long_words_and_urls_are_broken),
        cmocka_unit_test(wide_text_breaks_between_characters_but_not_before_marks),
        cmocka_unit_test(clusters_are_never_cut),
        cmocka_unit_test(lists_nest_and_hang),
        cmocka_unit_test(tight_and_loose_lists_differ),
        cmocka_unit_test(task_lists_show_boxes),
        cmocka_unit_test(quotes_have_bars_on_every_row),
        cmocka_unit_test(code_wraps_anywhere_with_a_mark),
        cmocka_unit_test(tables_fit_the_width),
        cmocka_unit_test(links_show_text_and_address),
        cmocka_unit_test(html_is_text_and_entities_are_characters),
        cmocka_unit_test(headings_and_rules),
        cmocka_unit_test(control_characters_never_come_out),
        cmocka_unit_test(plain_text_is_left_alone),
        cmocka_unit_test(runs_carry_their_styles),
        cmocka_unit_test(verbatim_runs_are_the_source),
        cmocka_unit_test(positions_lead_to_the_source),
        cmocka_unit_test(a_streamed_text_gives_the_same_lines),
        cmocka_unit_test(random_markdown_streams_equal),
        cmocka_unit_test(hard_texts_stream_equal),
        cmocka_unit_test(lines_of_marks_and_heads_fit_the_least_width),
        cmocka_unit_test(a_token_costs_the_unfinished_tail_only),
        cmocka_unit_test(open_code_blocks_are_frozen_line_by_line),
        cmocka_unit_test(one_endless_block_costs_a_bounded_multiple),
        cmocka_unit_test(a_width_change_lays_out_again),
        cmocka_unit_test(link_definitions_reach_back),
        cmocka_unit_test(deep_nesting_is_bounded),
        cmocka_unit_test(a_line_of_a_megabyte_wraps),
        cmocka_unit_test(thousands_of_columns_are_shown_as_text),
        cmocka_unit_test(a_link_address_used_often_does_not_multiply),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
