/*
 * crossover.c - borders between kernels: from times, and in a file.
 *
 * A line of the file is a kind of weight, a border, and whom it holds for, up to the line's
 * end: versions of program, table of kernels, CUDA and driver, compute capability, name.
 *
 *     q4 48 0.1.0 2 12080 12090 9.0 NVIDIA H200
 *
 * The newest lines stand last. When there are more than MOST_LINES the first ones go, so that
 * what old versions left does not stay for ever.
 *
 * Measuring. All points and both ways take turns, so that a clock that rises meanwhile is no
 * advantage of one; the first turn, in which kernels are loaded, does not count. The best of
 * the others does: what disturbs a run makes it longer.
 */
#include "engine/cuda/crossover.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/path.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TURNS = 6, BUDGET_US = 15000, MOST_LINES = 100, LINE_BYTES = 400, FILE_BYTES = 1 << 16 };

const int crossover_points[CROSSOVER_POINTS] = {8, 16, 24, 32, 48, GPU_GEMM_TOK};

static const char *const kind_names[CROSSOVER_KINDS] = {"q4", "q4-min", "int8", "int8-rows",
                                                        "16-bit"};

enum crossover_kind crossover_kind(const struct weight *w) {
    assert(w->type != WEIGHT_F32);
    if (w->type == WEIGHT_Q4)
        return !w->min && w->group >= 32 ? CROSSOVER_Q4 : CROSSOVER_Q4_MIN;
    if (w->type == WEIGHT_I8)
        return w->row_scaled ? CROSSOVER_I8_ROWS : CROSSOVER_I8;
    return CROSSOVER_16;
}

/* ---- times ---- */

int crossover_border(const double fused_us[CROSSOVER_POINTS],
                     const double other_us[CROSSOVER_POINTS]) {
    double least = INFINITY;
    int border = 0;
    for (int i = 0; i < CROSSOVER_POINTS; i++)
        if (!(isfinite(fused_us[i]) && fused_us[i] > 0 && isfinite(other_us[i]) &&
              other_us[i] > 0))
            return 0;
    for (int n = CROSSOVER_POINTS; n >= 0; n--) { /* points of the fused kernel */
        double sum = 0;
        for (int i = 0; i < CROSSOVER_POINTS; i++)
            sum += (i < n ? fused_us[i] : other_us[i]) / fmin(fused_us[i], other_us[i]);
        if (sum < least) {
            least = sum;
            border = n ? crossover_points[n - 1] : GPU_GEMV_TOK;
        }
    }
    return border;
}

static double time_of(struct gpu *g, const struct crossover_trial *trial, int T, bool fused) {
    trial->before(trial->user);
    g->mark(g, 0);
    trial->run(trial->user, T, fused);
    g->mark(g, 1);
    return g->between_us(g);
}

int crossover_measure(struct gpu *g, const struct crossover_trial *trial) {
    double best[2][CROSSOVER_POINTS], all = 0;
    for (int turn = 0; turn < TURNS && (turn < 2 || all < BUDGET_US); turn++)
        for (int i = 0; i < 2 * CROSSOVER_POINTS; i++) {
            double *at = &best[i % 2][i / 2];
            double us = time_of(g, trial, crossover_points[i / 2], i % 2 == 0);
            *at = turn < 2 ? us : fmin(*at, us);
            all += turn > 0 ? us : 0; /* loading may take longer than all the rest */
        }
    return g->failed ? 0 : crossover_border(best[0], best[1]);
}

/* ---- the file ---- */

/* Whom a border holds for; the caller frees. */
static char *holder(const struct gpu_info *info) {
    char *s = xasprintf(LLMCHAT_VERSION " %d %d %d %d.%d %s", GPU_VERSION, info->runtime,
                        info->driver, info->major, info->minor, info->name);
    for (char *p = s; *p; p++)
        if ((unsigned char)*p < ' ')
            *p = '?';
    return s;
}

struct line {
    enum crossover_kind kind;
    int tok;
    const char *holder; /* in the line */
};

/* False: this is no line of ours. */
static bool parse(const char *s, struct line *out) {
    int kind = 0;
    size_t n = strcspn(s, " ");
    char *end;
    while (kind < CROSSOVER_KINDS &&
           (strlen(kind_names[kind]) != n || strncmp(s, kind_names[kind], n) != 0))
        kind++;
    if (kind == CROSSOVER_KINDS || s[n] != ' ' || s[n + 1] < '1' || s[n + 1] > '9')
        return false;
    long tok = strtol(s + n + 1, &end, 10);
    *out = (struct line){(enum crossover_kind)kind, (int)tok, end + 1};
    return tok >= GPU_GEMV_TOK && tok <= GPU_GEMM_TOK && *end == ' ' && end[1];
}

/* The lines that are whole and ours, in their order. */
static void read_lines(const char *path, struct strlist *lines) {
    struct buf b = {0};
    struct err err = {0};
    enum status st = file_read(path, FILE_BYTES, &b, &err);
    if (st != ST_OK && st != ST_NOT_FOUND)
        log_warn("borders between the GPU's kernels: %s", err.msg);
    for (size_t at = 0, n; st == ST_OK && at < b.len; at += n + 1) {
        char *s = b.p + at, *end = memchr(s, '\n', b.len - at);
        struct line l;
        if (!end)
            break;
        *end = 0;
        n = (size_t)(end - s);
        if (n < LINE_BYTES && strlen(s) == n && parse(s, &l))
            strlist_add(lines, s);
    }
    buf_release(&b);
}

void crossover_read(const char *path, const struct gpu_info *info, struct crossover *x) {
    struct strlist lines = {0};
    char *mine = holder(info);
    read_lines(path, &lines);
    for (size_t i = 0; i < lines.n; i++) {
        struct line l;
        if (parse(lines.v[i], &l) && strcmp(l.holder, mine) == 0)
            x->tok[l.kind] = l.tok;
    }
    strlist_release(&lines);
    free(mine);
}

enum status crossover_write(const char *path, const struct gpu_info *info,
                            const struct crossover *x, struct err *err) {
    struct strlist lines = {0}, all = {0};
    struct buf out = {0};
    char *mine = holder(info);
    read_lines(path, &lines);
    for (size_t i = 0; i < lines.n; i++) {
        struct line l;
        bool old = parse(lines.v[i], &l) && strcmp(l.holder, mine) == 0 && x->tok[l.kind];
        if (!old)
            strlist_add(&all, lines.v[i]);
    }
    for (int i = 0; i < CROSSOVER_KINDS; i++)
        if (x->tok[i]) {
            buf_clear(&out);
            buf_addf(&out, "%s %d %s", kind_names[i], x->tok[i], mine);
            strlist_add(&all, buf_str(&out));
        }
    buf_clear(&out);
    for (size_t i = all.n > MOST_LINES ? all.n - MOST_LINES : 0; i < all.n; i++)
        buf_addf(&out, "%s\n", all.v[i]);
    enum status st = file_write_atomic(path, buf_str(&out), out.len, err);
    buf_release(&out);
    strlist_release(&lines);
    strlist_release(&all);
    free(mine);
    return st;
}
