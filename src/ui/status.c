/*
 * status.c - the last line: model, context, speed, KV reuse, whether all is saved.
 *
 * Parts are added from the left as long as they fit; what matters most comes first, and the
 * saved mark is always there.
 */
#include "base/utf8.h"
#include "ui/app.h"
#include <stdio.h>
#include <string.h>

struct line {
    struct rect r;
    int x, parts;
};

/* False when there is no room for it. */
static bool part(struct line *l, uint16_t style, const char *text) {
    int w = (int)utf8_cells(text, strlen(text));
    int sep = l->parts ? 3 : 0;
    if (l->x + sep + w > l->r.x + l->r.w - 1)
        return false;
    if (sep)
        screen_text(l->r.y, l->x, 3, UI_FRAME, " │ ");
    screen_text(l->r.y, l->x + sep, w, style, text);
    l->x += sep + w;
    l->parts++;
    return true;
}

/* The model condenses older turns: busy, and no reply is being written. */
static bool summarising(const struct app *a) {
    const struct message_list *l = chat_messages(a->chat);
    return chat_busy(a->chat) && (l->n == 0 || l->v[l->n - 1].state != MSG_STREAMING);
}

/* 980, 1.2k, 131k; sizes of contexts are powers of two: 8192 is 8k */
static void short_number(char out[16], int n) {
    if (n < 1000)
        snprintf(out, 16, "%d", n);
    else if (n % 1024 == 0)
        snprintf(out, 16, "%dk", n / 1024);
    else if (n < 10000 && n % 1000 >= 50)
        snprintf(out, 16, "%.1fk", n / 1000.0);
    else
        snprintf(out, 16, "%dk", (n + 500) / 1000);
}

static void model_part(struct app *a, struct line *l) {
    char text[320];
    const char *name = chat_model(a->chat);
    enum model_state st = chat_model_state(a->chat);
    const struct engine_info *info = chat_engine_info(a->chat);
    if (st == MODEL_LOADING) {
        if (chat_model_waits(a->chat))
            snprintf(text, sizeof text, "next: %.*s", utf8_cut(a->model_name, 40),
                     a->model_name);
        else if (a->model_share >= 0)
            snprintf(text, sizeof text, "%s %.0f%%", a->model_what, 100 * a->model_share);
        else
            snprintf(text, sizeof text, "%s …",
                     a->model_what[0] ? a->model_what : "loading the model");
        part(l, UI_STATUS_BUSY, text);
    } else if (info) {
        int n =
            snprintf(text, sizeof text, "%.*s·%.100s·", utf8_cut(name, 40), name, info->quant);
        snprintf(text + n, sizeof text - (size_t)n, "%s", info->device_words);
        if (!part(l, UI_STATUS, text)) {
            snprintf(text + n, sizeof text - (size_t)n, "%s", info->device);
            part(l, UI_STATUS, text);
        }
    } else {
        part(l, UI_STATUS_WARN, "no model");
    }
}

static void context_part(struct app *a, struct line *l) {
    int used, ctx;
    chat_context(a->chat, &used, &ctx);
    if (ctx <= 0)
        return;
    char text[100], u[16], c[16];
    short_number(u, used);
    short_number(c, ctx);
    int share = (int)(100.0 * used / ctx + 0.5), full = (share + 12) / 25;
    int n = snprintf(text, sizeof text, "ctx %s/%s %s%s %d%%", u, c,
                     &"▓▓▓▓"[3 * (4 - (full > 4 ? 4 : full))],
                     &"░░░░"[3 * (full > 4 ? 4 : full)], share);
    int out = chat_left_out(a->chat);
    if (out > 0) {
        short_number(u, out);
        snprintf(text + n, sizeof text - (size_t)n, ", %s forgotten", u);
    }
    part(l, share >= 90 ? UI_STATUS_WARN : UI_STATUS, text);
}

static void speed_part(struct app *a, struct line *l) {
    double decode, prefill;
    int reused;
    char text[100];
    chat_rates(a->chat, &decode, &prefill, &reused);
    if (summarising(a)) {
        part(l, UI_STATUS_BUSY, "summarising … Esc stops");
    } else if (chat_busy(a->chat) && a->prefill_total > 0 &&
               a->prefill_done < a->prefill_total) {
        snprintf(text, sizeof text, "reading %d%%",
                 (int)(100.0 * a->prefill_done / a->prefill_total));
        part(l, UI_STATUS_BUSY, text);
    } else if (decode > 0) {
        snprintf(text, sizeof text,
                 decode < 10 ? "%.1f tok/s (prefill %.0f)" : "%.0f tok/s (prefill %.0f)",
                 decode, prefill);
        uint16_t style = chat_busy(a->chat) ? UI_STATUS_BUSY : UI_STATUS;
        if (prefill <= 0 || !part(l, style, text)) {
            text[strcspn(text, "(") - 1] = 0; /* without the prefill */
            part(l, style, text);
        }
    } else if (chat_busy(a->chat)) {
        part(l, UI_STATUS_BUSY, "thinking …");
    }
    if (reused > 0) {
        snprintf(text, sizeof text, "kv reused %d", reused);
        part(l, UI_STATUS, text);
    }
}

void status_draw(struct app *a, struct rect r) {
    uint16_t frame = a->focus == FOCUS_INPUT ? UI_FRAME_FOCUS : UI_FRAME;
    bool unsaved = a->draft_due_us != 0 || chat_busy(a->chat);
    const char *mark = a->save_failed ? "! not saved" : unsaved ? "○ saving" : "● saved";
    int w = (int)utf8_cells(mark, strlen(mark)) + 3;
    screen_hline(r.y, r.x, r.w, frame, "─");
    screen_text(r.y, r.x, 2, frame, "└ ");
    struct line l = {.r = {r.y, r.x, 1, r.w - w}, .x = r.x + 2};
    model_part(a, &l);
    context_part(a, &l);
    speed_part(a, &l);
    l.r.w = r.w;
    part(&l, a->save_failed ? UI_STATUS_WARN : unsaved ? UI_STATUS_BUSY : UI_STATUS_GOOD, mark);
    screen_text(r.y, l.x, 1, frame, " ");
}
