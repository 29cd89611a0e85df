/*
 * md.c - see md.h.
 *
 * md4c calls back for blocks, spans and text; this file writes down what it says as flat
 * arrays. Raw HTML is off in the parser, so tags arrive as text. A soft line break stays a line
 * break: models write poems, addresses and logs that way.
 *
 * Where a segment's bytes come from is known by the pointer that md4c hands over: inside the
 * input it is a range of the source, else (a newline, an indentation, a resolved entity) it is
 * ours.
 *
 * The border. Block structure is decided line by line, so only the last top-level block can
 * still change. md4c doesn't say where a block begins, but a paragraph, heading or table whose
 * first text stands in a line after a blank one begins in that line: nothing inside one of them
 * follows a blank line. Other last blocks give no border, the one before counts. Link
 * definitions that come later than their use are the exception; layout.c parses the whole text
 * again when such may exist.
 *
 * The cut. A long code block would otherwise be one unfinished block: while its fence is open
 * all lines but the last are final. The fence is open when every line behind it is one of the
 * block's. Where it stands is counted back from the block's first text, the only place that is
 * known: counted from the end, the fence that closes a block of n lines looks like the one that
 * opens n blank lines.
 *
 * Rejected: an own scanner for safe borders (it has to know the list rules twice); a second
 * parser for code.
 */
#include "ui/md.h"
#include "base/utf8.h"
#include "ui/md_impl.h"
#include "ui/style.h"
#include <md4c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void mdoc_release(struct mdoc *d) {
    buf_release(&d->text);
    free(d->seg);
    free(d->cont);
    free(d->block);
    free(d->cell);
    *d = (struct mdoc){0};
}

static void mdoc_clear(struct mdoc *d) {
    buf_clear(&d->text);
    d->n_seg = d->n_cont = d->n_block = d->n_cell = 0;
    d->has_border = d->has_cut = d->fence_resumed = false;
    d->border = d->cut = d->fence = 0;
    d->border_block = d->cut_lines = 0;
    d->cut_state = 0;
}

static uint16_t style_now(const struct parse *p) {
    unsigned s = p->block_style;
    if (p->link)
        s = STYLE_LINK;
    if (p->code)
        s = STYLE_CODE;
    return (uint16_t)(s | (p->strong ? STYLE_BOLD : 0) | (p->em ? STYLE_ITALIC : 0) |
                      (p->del ? STYLE_STRIKE : 0));
}

/* -- blocks -- */

static bool blank_line_before(const char *in, size_t line) {
    if (line == 0)
        return false;
    size_t i = line - 1;
    if (i > 0 && in[i] == '\n' && in[i - 1] == '\r')
        i--;
    while (i > 0 && (in[i - 1] == ' ' || in[i - 1] == '\t'))
        i--;
    return i == 0 || in[i - 1] == '\n' || in[i - 1] == '\r';
}

static bool fence_char(char c) {
    return c == '`' || c == '~';
}

/* Is the line at `at` read as it would be alone? Where it ends an item with an open fence md4c
 * takes it for a closing one first, and passes over its "`" when it is none: "`# T" is a
 * heading then, and "```c" text. */
static bool read_as_it_is(const struct parse *p, size_t at) {
    const struct mdoc_block *before = p->top_block > 0 ? &p->d->block[p->top_block - 1] : NULL;
    bool in_item = before && before->kind == MDOC_CODE && before->fenced && before->cont >= 0;
    return !in_item || !fence_char(p->in[at]);
}

/* The first text of a top-level block that came from the source at s: perhaps a border. */
static void top_text(struct parse *p, const char *s, size_t len) {
    uint32_t src;
    if (!mdoc_source_of(p, s, len, &src))
        return;
    p->top_seen = true;
    if (p->top != MD_BLOCK_P && p->top != MD_BLOCK_H && p->top != MD_BLOCK_TABLE)
        return;
    size_t line = (size_t)(s - p->in);
    while (line > 0 && p->in[line - 1] != '\n' && p->in[line - 1] != '\r')
        line--;
    size_t left = p->in_len - (size_t)(s - p->in), indent = line;
    while (p->in[indent] == ' ')
        indent++;
    if (indent - line > 3 || p->in[indent] == '\t')
        return; /* alone it would be code */
    if (!read_as_it_is(p, indent))
        return;
    if (line <= p->skip || !blank_line_before(p->in, line) || !memchr(s, '\n', left))
        return; /* the last line may still become anything: "1." an item, "``" a fence */
    p->d->has_border = true;
    p->d->border = p->base + (uint32_t)(line - p->skip);
    p->d->border_block = p->top_block;
}

static struct list *innermost(struct parse *p) {
    return &p->list[(p->n_list < MAX_LISTS ? p->n_list : MAX_LISTS) - 1];
}

/* No span reaches from one text into the next, though md4c leaves some links ("www..b" in a
 * table's head) without saying so. */
static void begin_text(struct parse *p) {
    p->em = p->strong = p->del = p->code = p->link = 0;
    p->tab_at = p->d->text.len;
    p->tab_col = 0;
}

static struct mdoc_block *begin_block(struct parse *p, enum mdoc_kind kind) {
    struct mdoc *d = p->d;
    GROW(d->block, d->n_block, d->cap_block);
    struct mdoc_block *b = &d->block[d->n_block++];
    bool tight = p->n_list > 0 && innermost(p)->tight;
    *b = (struct mdoc_block){.kind = kind, .cont = p->cont};
    b->gap = p->fresh ? p->fresh_gap : !tight;
    p->fresh = false;
    b->span.text = (uint32_t)d->text.len;
    b->span.seg = (uint32_t)d->n_seg;
    b->span.text_end = b->span.text;
    b->span.seg_end = b->span.seg;
    begin_text(p);
    return b;
}

static void end_block(struct parse *p) {
    struct mdoc_block *b = &p->d->block[p->d->n_block - 1];
    b->span.text_end = (uint32_t)p->d->text.len;
    b->span.seg_end = (uint32_t)p->d->n_seg;
    p->leaf = p->implicit = false;
    p->block_style = STYLE_TEXT;
}

static void push_list(struct parse *p, struct list l) {
    if (p->n_list < MAX_LISTS)
        p->list[p->n_list] = l;
    p->n_list++;
    if (p->n_list > MAX_LISTS) /* too deep: they share the last */
        p->list[MAX_LISTS - 1].tight = l.tight;
}

static struct mdoc_cont *push_cont(struct parse *p, bool quote) {
    struct mdoc *d = p->d;
    int depth = p->cont < 0 ? 1 : d->cont[p->cont].depth + 1;
    if (depth > MDOC_MAX_DEPTH) {
        p->over++;
        return NULL;
    }
    GROW(d->cont, d->n_cont, d->cap_cont);
    struct mdoc_cont *c = &d->cont[d->n_cont];
    *c = (struct mdoc_cont){.parent = p->cont, .depth = depth, .quote = quote};
    p->cont = (int)d->n_cont++;
    return c;
}

static void pop_cont(struct parse *p) {
    if (p->over > 0)
        p->over--;
    else
        p->cont = p->d->cont[p->cont].parent;
}

static void enter_item(struct parse *p, const MD_BLOCK_LI_DETAIL *li) {
    static const char *const bullets[] = {"• ", "◦ ", "▪ "};
    struct list *l = innermost(p);
    if (!p->fresh) {
        const struct list *outer = p->n_list > 1 && p->n_list <= MAX_LISTS ? l - 1 : NULL;
        p->fresh_gap = l->used ? !l->tight : !(outer && outer->tight);
        p->fresh = true;
    }
    l->used = true;
    unsigned number = l->next++;
    struct mdoc_cont *c = push_cont(p, false);
    if (!c)
        return;
    int level = 0; /* items around it */
    for (int o = c->parent; o >= 0; o = p->d->cont[o].parent)
        level += !p->d->cont[o].quote;
    if (l->ordered)
        snprintf(c->marker, sizeof c->marker, "%u%c ", number, l->delimiter);
    else
        snprintf(c->marker, sizeof c->marker, "%s", bullets[level % 3]);
    if (li->is_task) {
        size_t at = l->ordered ? strlen(c->marker) : 0;
        snprintf(c->marker + at, sizeof c->marker - at, "%s",
                 li->task_mark == ' ' ? "☐ " : "☑ ");
    }
    c->cells = (int)utf8_cells(c->marker, strlen(c->marker));
}

/* An item without any block still shows its bullet. */
static void leave_item(struct parse *p) {
    if (p->fresh) {
        begin_block(p, MDOC_PARA);
        end_block(p);
    }
    pop_cont(p);
}

static void enter_code(struct parse *p, const MD_BLOCK_CODE_DETAIL *code) {
    bool resumed = p->resumes && p->d->n_block == 0;
    struct mdoc_block *b = begin_block(p, MDOC_CODE);
    b->resumed = resumed;
    b->fenced = code->fence_char != 0;
    struct buf safe = {0};
    utf8_terminal_safe(&safe, code->lang.text, code->lang.size, false);
    size_t n = utf8_fit(buf_str(&safe), safe.len, 20, NULL);
    if (n < sizeof b->lang)
        memcpy(b->lang, buf_str(&safe), n);
    buf_release(&safe);
    p->leaf = true;
    p->block_style = STYLE_CODE_BLOCK;
    p->code_lines = 0;
    p->code_seen = false;
}

static int enter_table(struct parse *p, const MD_BLOCK_TABLE_DETAIL *t) {
    struct mdoc_block *b = begin_block(p, MDOC_TABLE);
    b->cell = (uint32_t)p->d->n_cell;
    b->n_cols = t->col_count;
    p->leaf = true;
    return t->col_count == 0 || t->col_count > MDOC_MAX_COLS;
}

static int enter_cell(struct parse *p, const MD_BLOCK_TD_DETAIL *td, bool head) {
    struct mdoc *d = p->d;
    if (d->n_cell >= MAX_CELLS)
        return 1;
    GROW(d->cell, d->n_cell, d->cap_cell);
    struct mdoc_cell *c = &d->cell[d->n_cell++];
    *c = (struct mdoc_cell){0};
    c->align = td->align == MD_ALIGN_CENTER ? 'c' : td->align == MD_ALIGN_RIGHT ? 'r' : 'l';
    c->span.text = (uint32_t)d->text.len;
    c->span.seg = (uint32_t)d->n_seg;
    p->block_style = head ? STYLE_TABLE_HEAD : STYLE_TEXT;
    begin_text(p);
    return 0;
}

static void leave_cell(struct parse *p) {
    struct mdoc_cell *c = &p->d->cell[p->d->n_cell - 1];
    c->span.text_end = (uint32_t)p->d->text.len;
    c->span.seg_end = (uint32_t)p->d->n_seg;
}

/* -- callbacks of the parser; anything but 0 ends the parse -- */

static int on_enter_block(MD_BLOCKTYPE type, void *detail, void *user) {
    struct parse *p = user;
    if (type == MD_BLOCK_DOC)
        return 0;
    if (p->implicit)
        end_block(p);
    if (p->depth++ == 0) {
        p->top = type;
        p->top_block = p->d->n_block;
        p->top_seen = false;
    }
    switch (type) {
    case MD_BLOCK_QUOTE:
        push_list(p, (struct list){0});
        push_cont(p, true);
        return 0;
    case MD_BLOCK_UL:
        push_list(p, (struct list){.tight = ((MD_BLOCK_UL_DETAIL *)detail)->is_tight});
        return 0;
    case MD_BLOCK_OL: {
        const MD_BLOCK_OL_DETAIL *ol = detail;
        push_list(p, (struct list){.tight = ol->is_tight,
                                   .ordered = true,
                                   .next = ol->start,
                                   .delimiter = ol->mark_delimiter});
        return 0;
    }
    case MD_BLOCK_LI:
        enter_item(p, detail);
        return 0;
    case MD_BLOCK_HR:
        begin_block(p, MDOC_RULE);
        return 0;
    case MD_BLOCK_H:
        p->block_style = (uint16_t)(STYLE_H1 + ((MD_BLOCK_H_DETAIL *)detail)->level - 1);
        begin_block(p, MDOC_PARA);
        p->leaf = true;
        return 0;
    case MD_BLOCK_P:
        begin_block(p, MDOC_PARA);
        p->leaf = true;
        return 0;
    case MD_BLOCK_CODE:
        enter_code(p, detail);
        return 0;
    case MD_BLOCK_TABLE:
        return enter_table(p, detail);
    case MD_BLOCK_TR:
        p->d->block[p->d->n_block - 1].n_rows++;
        return 0;
    case MD_BLOCK_TH:
    case MD_BLOCK_TD:
        return enter_cell(p, detail, type == MD_BLOCK_TH);
    default:
        return 0;
    }
}

static int on_leave_block(MD_BLOCKTYPE type, void *detail, void *user) {
    struct parse *p = user;
    (void)detail;
    if (type == MD_BLOCK_DOC)
        return 0;
    if (p->implicit)
        end_block(p);
    p->depth--;
    if (type == MD_BLOCK_QUOTE || type == MD_BLOCK_UL || type == MD_BLOCK_OL)
        p->n_list--;
    if (type == MD_BLOCK_QUOTE)
        pop_cont(p);
    else if (type == MD_BLOCK_LI)
        leave_item(p);
    else if (type == MD_BLOCK_TH || type == MD_BLOCK_TD)
        leave_cell(p);
    else if (type == MD_BLOCK_CODE)
        mdoc_colour_code(p, &p->d->block[p->d->n_block - 1]);
    if (type == MD_BLOCK_H || type == MD_BLOCK_P || type == MD_BLOCK_CODE ||
        type == MD_BLOCK_TABLE)
        end_block(p);
    return 0;
}

/* Does the address stand right behind its link's text, "](" before it? Only then it is shown as
 * part of the source; one in a definition stands somewhere else. Looks at nothing but the bytes
 * before it: what came earlier is not there when a parse begins at a border. */
static bool behind_link_text(const struct parse *p, const char *url) {
    const char *first = p->in + p->skip, *s = url;
    if (s > first && s[-1] == '<')
        s--;
    while (s > first && url - s < MAX_LEAD && (s[-1] == ' ' || s[-1] == '\t'))
        s--;
    return s - first >= 2 && s[-1] == '(' && s[-2] == ']';
}

/* An address of a link whose text doesn't show it already. */
static void add_url(struct parse *p, const MD_ATTRIBUTE *url, size_t text_from) {
    const struct buf *t = &p->d->text;
    size_t n = t->len - text_from, lead = url->size >= n ? url->size - n : 0;
    bool same = url->size >= n && n > 0 && memcmp(url->text + lead, t->p + text_from, n) == 0;
    if (url->size == 0 || (same && lead == 0) ||
        (same && lead == 7 &&
         (memcmp(url->text, "mailto:", 7) == 0 || memcmp(url->text, "http://", 7) == 0)))
        return;
    uint32_t src = 0;
    bool known = mdoc_source_of(p, url->text, url->size, &src) && src > p->last_src &&
                 behind_link_text(p, url->text);
    mdoc_add_seg(p->d, n > 0 ? " <" : "<", n > 0 ? 2 : 1, 0, 0, STYLE_URL);
    mdoc_add_text_at(p, url->text, url->size, known, src, STYLE_URL);
    mdoc_add_seg(p->d, ">", 1, 0, 0, STYLE_URL);
}

static int on_enter_span(MD_SPANTYPE type, void *detail, void *user) {
    struct parse *p = user;
    (void)detail;
    if (!p->leaf) {
        begin_block(p, MDOC_PARA);
        p->leaf = p->implicit = true;
    }
    p->em += type == MD_SPAN_EM;
    p->strong += type == MD_SPAN_STRONG;
    p->del += type == MD_SPAN_DEL;
    p->code += type == MD_SPAN_CODE;
    if (type == MD_SPAN_A || type == MD_SPAN_IMG) {
        if (p->link < MAX_LINKS)
            p->link_text[p->link] = p->d->text.len;
        p->link++;
    }
    return 0;
}

static int on_leave_span(MD_SPANTYPE type, void *detail, void *user) {
    struct parse *p = user;
    p->em -= type == MD_SPAN_EM && p->em > 0;
    p->strong -= type == MD_SPAN_STRONG && p->strong > 0;
    p->del -= type == MD_SPAN_DEL && p->del > 0;
    p->code -= type == MD_SPAN_CODE && p->code > 0;
    if ((type == MD_SPAN_A || type == MD_SPAN_IMG) && p->link > 0) {
        const MD_ATTRIBUTE *url = type == MD_SPAN_A ? &((MD_SPAN_A_DETAIL *)detail)->href
                                                    : &((MD_SPAN_IMG_DETAIL *)detail)->src;
        p->link--;
        if (p->link < MAX_LINKS)
            add_url(p, url, p->link_text[p->link]);
    }
    return p->d->text.len > p->budget;
}

/* Remembers where the first text of a code block stands; see find_cut(). */
static void code_text(struct parse *p, const char *s, size_t len) {
    uint32_t src;
    if (p->code_seen || !mdoc_source_of(p, s, len, &src))
        return;
    p->code_seen = true;
    p->code_text = (size_t)(s - p->in);
    p->code_before = p->code_lines;
}

static int on_text(MD_TEXTTYPE type, const MD_CHAR *s, MD_SIZE len, void *user) {
    struct parse *p = user;
    if (!p->leaf) { /* a tight list's text has no paragraph around it */
        begin_block(p, MDOC_PARA);
        p->leaf = p->implicit = true;
    }
    if (!p->top_seen)
        top_text(p, s, len);
    uint16_t style = style_now(p);
    if (type == MD_TEXT_NULLCHAR) {
        mdoc_add_seg(p->d, "\xef\xbf\xbd", 3, 0, 0, style);
    } else if (type == MD_TEXT_BR || type == MD_TEXT_SOFTBR) {
        mdoc_add_newline(p);
    } else if (type == MD_TEXT_ENTITY) {
        mdoc_add_entity(p, s, len, style);
    } else if (type == MD_TEXT_CODE && len == 1 && *s == '\n') {
        mdoc_add_newline(p);
        p->code_lines++;
    } else {
        if (type == MD_TEXT_CODE)
            code_text(p, s, len);
        mdoc_add_text(p, s, len, style);
    }
    return p->d->text.len > p->budget;
}

/* -- the cut of an open code block -- */

static bool is_nl(char c) {
    return c == '\n' || c == '\r';
}

/* Start of the line before the one that starts at `line` (> 0). */
static size_t line_before(const char *in, size_t line) {
    size_t i = line - 1;
    if (i > 0 && in[i] == '\n' && in[i - 1] == '\r')
        i--;
    while (i > 0 && !is_nl(in[i - 1]))
        i--;
    return i;
}

static size_t line_start(const char *in, size_t at) {
    while (at > 0 && !is_nl(in[at - 1]))
        at--;
    return at;
}

/* Where the fence of the code block stands: as many lines before its first text as it had by
 * then, and one more. */
static size_t opening_fence(const struct parse *p) {
    size_t line = line_start(p->in, p->code_text);
    for (size_t n = p->code_before + 1; n > 0 && line > 0; n--)
        line = line_before(p->in, line);
    return line;
}

/* Would the line open a fence where nothing stands before it? md4c takes some others for
 * fences, by what was open before them. */
static bool is_fence(const struct parse *p, size_t line) {
    size_t at = line, len = p->in_len;
    while (at < line + 3 && at < len && p->in[at] == ' ')
        at++;
    char c = at < len ? p->in[at] : 0;
    size_t from = at;
    while (at < len && p->in[at] == c)
        at++;
    if (!fence_char(c) || at - from < 3 || !read_as_it_is(p, from))
        return false;
    while (at < len && !is_nl(p->in[at]) && (c == '~' || p->in[at] != c))
        at++;
    return at < len && is_nl(p->in[at]);
}

/* Lines that begin behind the one at `line`. */
static size_t lines_after(const struct parse *p, size_t line) {
    size_t n = 0;
    for (size_t i = line; i < p->in_len; i++)
        if (is_nl(p->in[i])) {
            if (p->in[i] == '\r' && i + 1 < p->in_len && p->in[i + 1] == '\n')
                i++;
            n++;
        }
    return n;
}

static void find_cut(struct parse *p) {
    struct mdoc *d = p->d;
    const struct mdoc_block *b = d->n_block ? &d->block[d->n_block - 1] : NULL;
    if (!b || b->kind != MDOC_CODE || !b->fenced || b->cont >= 0 || p->code_lines < 2 ||
        !p->code_seen || is_nl(p->in[p->in_len - 1]))
        return;
    size_t line = opening_fence(p), last = line_start(p->in, p->in_len);
    if (!is_fence(p, line) || lines_after(p, line) != p->code_lines || last <= p->skip)
        return;
    d->has_cut = true;
    d->cut = p->base + (uint32_t)(last - p->skip);
    d->cut_lines = p->code_lines - 1;
    d->fence_resumed = line < p->skip;
    d->fence = d->fence_resumed ? 0 : p->base + (uint32_t)(line - p->skip);
}

/* -- entry points -- */

/* What stands before a text that is parsed from `base` on: the fence line that it is behind,
 * and before that newlines, so that the text's offsets are what they would be in the whole,
 * modulo 256. md4c 0.4.8 reads a line's offset as the type of a block where two blank lines
 * follow a list item's text: it ends the item when the low byte is that of MD_BLOCK_LI. */
static void add_before(struct buf *out, uint32_t base, const char *fence) {
    size_t n = fence ? strlen(fence) : 0;
    for (size_t pad = (base - n) % 256; pad > 0; pad--)
        buf_addc(out, '\n');
    buf_add(out, fence, n);
}

void mdoc_parse(struct mdoc *d, const char *src, size_t len, uint32_t base, const char *fence,
                int fence_state) {
    static const MD_PARSER parser = {
        .flags = MD_DIALECT_GITHUB | MD_FLAG_NOHTML,
        .enter_block = on_enter_block,
        .leave_block = on_leave_block,
        .enter_span = on_enter_span,
        .leave_span = on_leave_span,
        .text = on_text,
    };
    mdoc_clear(d);
    if (len == 0)
        return;
    struct buf joined = {0};
    struct parse p = {.d = d, .in = src, .in_len = len, .base = base, .cont = -1};
    p.resumes = fence != NULL;
    p.fence_state = fence_state;
    p.last_src = base;
    add_before(&joined, base, fence);
    p.skip = joined.len;
    if (p.skip > 0) {
        buf_add(&joined, src, len);
        p.in = joined.p;
        p.in_len = joined.len;
    }
    p.budget = 8 * len + ((size_t)1 << 20);
    if (md_parse(p.in, (MD_SIZE)p.in_len, &parser, &p) == 0) {
        find_cut(&p);
    } else {
        mdoc_plain(d, src, len, base);
        d->has_cut = false;
    }
    buf_release(&joined);
}

void mdoc_plain(struct mdoc *d, const char *src, size_t len, uint32_t base) {
    mdoc_clear(d);
    if (len == 0)
        return;
    struct parse p = {.d = d, .in = src, .in_len = len, .base = base, .cont = -1};
    begin_block(&p, MDOC_PARA)->gap = false;
    size_t at = 0, n = 0, last = 0;
    while (at < len) {
        const char *nl = memchr(src + at, '\n', len - at);
        size_t end = nl ? (size_t)(nl - src) : len, text_end = end;
        if (text_end > at && src[text_end - 1] == '\r' && nl)
            text_end--;
        last = at;
        mdoc_add_text(&p, src + at, text_end - at, STYLE_TEXT);
        at = end + (nl != NULL);
        if (at < len)
            mdoc_add_newline(&p);
        n++;
    }
    end_block(&p);
    if (n > 1 && src[len - 1] != '\n') {
        d->has_cut = true;
        d->cut = base + (uint32_t)last;
        d->cut_lines = n - 1;
    }
}
