/*
 * export_html.c - a conversation as one HTML file: no scripts, no outside resources, light and
 * dark by the reader's own preference.
 *
 * Replies are Markdown and go through md4c with callbacks of our own: raw HTML is off in the
 * parser, so tags arrive as text and are escaped like all text. A link keeps its address only
 * when it begins with http, https or mailto; an image becomes its description, since it would
 * be fetched from elsewhere. A content security policy in the head says the same once more.
 * What people wrote is shown as they wrote it.
 */
#include "base/path.h"
#include "base/utf8.h"
#include "chat/export_internal.h"

#include <md4c.h>
#include <string.h>
#include <strings.h>

void html_escape(struct buf *out, const char *s, size_t len) {
    uint32_t cp;
    for (size_t at = 0, n; at < len; at += n) {
        n = utf8_decode(s + at, len - at, &cp);
        switch (cp) {
        case '<':
            buf_adds(out, "&lt;");
            break;
        case '>':
            buf_adds(out, "&gt;");
            break;
        case '&':
            buf_adds(out, "&amp;");
            break;
        case '"':
            buf_adds(out, "&quot;");
            break;
        case '\'':
            buf_adds(out, "&#39;");
            break;
        default:
            buf_addcp(out, (cp < 0x20 && cp != '\n' && cp != '\t') || cp == 0x7f ? 0xfffd : cp);
        }
    }
}

/* -- Markdown -- */

struct writer {
    struct buf *out;
    int image; /* depth: inside an image only its description is written */
};

static bool link_ok(const char *s, size_t len) {
    static const char *const schemes[] = {"http://", "https://", "mailto:"};
    for (int i = 0; i < 3; i++)
        if (len > strlen(schemes[i]) && strncasecmp(s, schemes[i], strlen(schemes[i])) == 0)
            return true;
    return false;
}

static const char *block_tag(MD_BLOCKTYPE type) {
    switch (type) {
    case MD_BLOCK_QUOTE:
        return "blockquote";
    case MD_BLOCK_UL:
        return "ul";
    case MD_BLOCK_OL:
        return "ol";
    case MD_BLOCK_LI:
        return "li";
    case MD_BLOCK_P:
        return "p";
    case MD_BLOCK_TABLE:
        return "table";
    case MD_BLOCK_THEAD:
        return "thead";
    case MD_BLOCK_TBODY:
        return "tbody";
    case MD_BLOCK_TR:
        return "tr";
    case MD_BLOCK_TH:
        return "th";
    case MD_BLOCK_TD:
        return "td";
    default:
        return NULL;
    }
}

static int enter_block(MD_BLOCKTYPE type, void *detail, void *user) {
    struct buf *out = ((struct writer *)user)->out;
    const char *tag = block_tag(type);
    if (type == MD_BLOCK_H)
        buf_addf(out, "<h%u>", ((MD_BLOCK_H_DETAIL *)detail)->level % 10);
    else if (type == MD_BLOCK_CODE)
        buf_adds(out, "<pre><code>");
    else if (type == MD_BLOCK_HR)
        buf_adds(out, "<hr>\n");
    else if (type == MD_BLOCK_OL)
        buf_addf(out, "<ol start=\"%u\">", ((MD_BLOCK_OL_DETAIL *)detail)->start);
    else if (tag)
        buf_addf(out, "<%s>", tag);
    if (type == MD_BLOCK_LI && ((MD_BLOCK_LI_DETAIL *)detail)->is_task)
        buf_adds(out, ((MD_BLOCK_LI_DETAIL *)detail)->task_mark == ' ' ? "☐ " : "☑ ");
    return 0;
}

static int leave_block(MD_BLOCKTYPE type, void *detail, void *user) {
    struct buf *out = ((struct writer *)user)->out;
    const char *tag = block_tag(type);
    if (type == MD_BLOCK_H)
        buf_addf(out, "</h%u>\n", ((MD_BLOCK_H_DETAIL *)detail)->level % 10);
    else if (type == MD_BLOCK_CODE)
        buf_adds(out, "</code></pre>\n");
    else if (tag)
        buf_addf(out, "</%s>\n", tag);
    return 0;
}

static const char *span_tag(MD_SPANTYPE type) {
    switch (type) {
    case MD_SPAN_EM:
        return "em";
    case MD_SPAN_STRONG:
        return "strong";
    case MD_SPAN_CODE:
        return "code";
    case MD_SPAN_DEL:
        return "del";
    default:
        return NULL;
    }
}

/* Entities of the source stay what they are, all else is escaped. */
static void add_attribute(struct buf *out, const MD_ATTRIBUTE *a) {
    for (int i = 0; a->substr_offsets[i] < a->size; i++) {
        const char *s = a->text + a->substr_offsets[i];
        MD_SIZE n = a->substr_offsets[i + 1] - a->substr_offsets[i];
        if (a->substr_types[i] == MD_TEXT_ENTITY)
            buf_add(out, s, n);
        else
            html_escape(out, s, n);
    }
}

static int enter_span(MD_SPANTYPE type, void *detail, void *user) {
    struct writer *w = user;
    if (type == MD_SPAN_IMG) {
        w->image++;
        buf_adds(w->out, "[");
    } else if (w->image) {
        return 0;
    } else if (type == MD_SPAN_A) {
        const MD_ATTRIBUTE *href = &((MD_SPAN_A_DETAIL *)detail)->href;
        buf_adds(w->out, "<a");
        if (link_ok(href->text, href->size)) {
            buf_adds(w->out, " rel=\"noreferrer noopener\" href=\"");
            add_attribute(w->out, href);
            buf_adds(w->out, "\"");
        }
        buf_adds(w->out, ">");
    } else if (span_tag(type)) {
        buf_addf(w->out, "<%s>", span_tag(type));
    }
    return 0;
}

static int leave_span(MD_SPANTYPE type, void *detail, void *user) {
    struct writer *w = user;
    (void)detail;
    if (type == MD_SPAN_IMG) {
        w->image--;
        buf_adds(w->out, "]");
    } else if (!w->image && type == MD_SPAN_A) {
        buf_adds(w->out, "</a>");
    } else if (!w->image && span_tag(type)) {
        buf_addf(w->out, "</%s>", span_tag(type));
    }
    return 0;
}

static int add_text(MD_TEXTTYPE type, const MD_CHAR *text, MD_SIZE size, void *user) {
    struct writer *w = user;
    if (type == MD_TEXT_NULLCHAR)
        buf_addcp(w->out, 0xfffd);
    else if (type == MD_TEXT_BR || type == MD_TEXT_SOFTBR)
        buf_adds(w->out, type == MD_TEXT_BR && !w->image ? "<br>\n" : "\n");
    else if (type == MD_TEXT_ENTITY) /* md4c has checked its form: &name; or &#number; */
        buf_add(w->out, text, size);
    else
        html_escape(w->out, text, size);
    return 0;
}

void html_markdown(struct buf *out, const char *s, size_t len) {
    struct writer w = {.out = out};
    MD_PARSER parser = {.flags = MD_DIALECT_GITHUB | MD_FLAG_NOHTML,
                        .enter_block = enter_block,
                        .leave_block = leave_block,
                        .enter_span = enter_span,
                        .leave_span = leave_span,
                        .text = add_text};
    size_t start = out->len;
    if (len <= UINT32_MAX / 2 && md_parse(s, (MD_SIZE)len, &parser, &w) == 0)
        return;
    buf_cut(out, start); /* out of its limits: as plain text */
    buf_adds(out, "<pre>");
    html_escape(out, s, len);
    buf_adds(out, "</pre>");
}

/* -- the page -- */

static const char head[] =
    "<meta charset=\"utf-8\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
    "'unsafe-inline'\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<style>\n"
    ":root{color-scheme:light dark;--ink:#1d1f21;--paper:#fff;--soft:#f2f3f5;--line:#d5d8dc;"
    "--name:#57606a;--link:#0a58ca}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#e4e6e9;--paper:#16181b;--soft:#22262b;"
    "--line:#3a4047;--name:#9aa4af;--link:#7db3ff}}\n"
    "body{max-width:46rem;margin:2rem auto;padding:0 1rem;font:1rem/1.55 system-ui,sans-serif;"
    "color:var(--ink);background:var(--paper)}\n"
    "article{border-top:1px solid var(--line);padding:.5rem 0}\n"
    ".user,.system{background:var(--soft);padding:.5rem 1rem;border-radius:.4rem}\n"
    ".name{color:var(--name);font-size:.85rem;margin:.2rem 0}\n"
    ".plain{white-space:pre-wrap;overflow-wrap:anywhere}\n"
    "pre{background:var(--soft);padding:.7rem;overflow-x:auto;border-radius:.3rem}\n"
    "code{font-family:ui-monospace,monospace;font-size:.92em}\n"
    "table{border-collapse:collapse}td,th{border:1px solid var(--line);padding:.2rem .6rem}\n"
    "blockquote{border-left:.2rem solid var(--line);margin-left:0;padding-left:1rem}\n"
    "a{color:var(--link)}\n"
    "</style>\n";

static void add_article(struct buf *out, const char *class, const char *name, const char *note,
                        const char *text, bool markdown) {
    buf_addf(out, "<article class=\"%s\"><p class=\"name\">%s", class, name);
    html_escape(out, note, strlen(note));
    buf_adds(out, "</p>\n");
    if (markdown) {
        html_markdown(out, text, strlen(text));
    } else {
        buf_adds(out, "<div class=\"plain\">");
        html_escape(out, text, strlen(text));
        buf_adds(out, "</div>\n");
    }
    buf_adds(out, "</article>\n");
}

void export_html(const struct conversation *c, const struct message_list *l, bool tree,
                 struct buf *out) {
    const char *title = *c->title ? c->title : "Conversation";
    buf_addf(out, "<!doctype html>\n<html>\n<head>\n%s<title>", head);
    html_escape(out, title, strlen(title));
    buf_adds(out, "</title>\n</head>\n<body>\n<h1>");
    html_escape(out, title, strlen(title));
    buf_adds(out, "</h1>\n");
    if (*c->system)
        add_article(out, "system", "System prompt", "", c->system, false);
    for (size_t i = 0; i < l->n; i++) {
        const struct message *m = &l->v[i];
        struct buf note = {0};
        if (m->role == ROLE_ASSISTANT && *m->model)
            buf_addf(&note, " · %s", path_base(m->model));
        if (m->state != MSG_COMPLETE)
            buf_addf(&note, " · %s", msg_state_name(m->state));
        if (tree && m->n_sibling > 1)
            buf_addf(&note, " · branch %d of %d", m->sibling, m->n_sibling);
        add_article(out, role_name(m->role), export_speaker(m), buf_str(&note), m->text,
                    m->role == ROLE_ASSISTANT);
        buf_release(&note);
    }
    buf_adds(out, "</body>\n</html>\n");
}
