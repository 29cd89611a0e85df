/*
 * eval.c - `llmchat eval MODEL --text FILE`: perplexity, and how far two models or two sets of
 * kernels are apart.
 */
#include "base/utf8.h"
#include "cmd/cmd.h"
#include "engine/engine.h"
#include "engine/models.h"
#include "engine/text.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

const struct opt eval_opts[] = {
    {"text", 0, OPT_TEXT, "FILE", 0, "The text to measure on; - is standard input"},
    {"ctx", 0, OPT_COUNT, "N", 4,
     "Tokens of a window (default 512, or the model's context when that is less)"},
    {"save-logits", 0, OPT_TEXT, "FILE", 0, "Keep the log probabilities, for --kl-base"},
    {"kl-base", 0, OPT_TEXT, "FILE", 0,
     "Compare with kept ones: mean KL divergence, agreement on the best token"},
    COMPUTE_OPTS(0),
    {"json", 0, OPT_FLAG, NULL, 0, "Print a JSON object"},
    {0},
};

enum { EVAL_TEXT_MAX_BYTES = 1 << 30 };

static bool windows(void *user, int done, int total) {
    return progress_show(user, "windows", (uint64_t)done, (uint64_t)total);
}

static void print_result(const struct eval_result *r, bool json) {
    if (json) {
        json_t *j = json_pack("{s:f, s:I, s:i, s:f, s:f}", "perplexity", r->perplexity,
                              "tokens", (json_int_t)r->tokens, "windows", r->windows, "nll",
                              r->mean_nll, "nll_stderr", r->nll_stderr);
        json_object_set_new(j, "kl", r->has_kl ? json_real(r->kl) : json_null());
        json_object_set_new(j, "top1", r->has_kl ? json_real(r->top1) : json_null());
        put_json(j);
        return;
    }
    printf("perplexity %.4f +- %.4f (%lld tokens in %d windows)\n", r->perplexity,
           r->perplexity * r->nll_stderr, (long long)r->tokens, r->windows);
    if (r->has_kl)
        printf("KL divergence %.6f, same best token %.2f%%\n", r->kl, r->top1 * 100);
}

int cmd_eval(struct args *a) {
    struct err err = {0};
    const char *text = arg_text(a, "text");
    if (!text)
        return failf(ST_USAGE, "eval needs --text FILE (or - for standard input)");
    struct buf in = {0};
    struct tok_list ids = {0};
    struct engine *e = NULL;
    struct eval_result r = {0};
    char *path = NULL;
    enum status st;
    interrupt_catch();
    TRY(use_compute_options(a, &err));
    TRY(read_input(text, EVAL_TEXT_MAX_BYTES, &in, &err));
    size_t good = utf8_valid_prefix(buf_str(&in), in.len);
    if (good < in.len)
        TRY(err_set(&err, ST_FORMAT, "%s: invalid UTF-8 at byte %zu", text, good));
    TRY(models_resolve(a->pos[0], progress_show, NULL, &path, &err));
    struct eval_params p = {.ctx = (int)arg_count(a, "ctx", 0),
                            .save_logits = arg_text(a, "save-logits"),
                            .kl_base = arg_text(a, "kl-base"),
                            .progress = windows};
    struct engine_params ep = config_engine(&a->config);
    ep.ctx_tok = p.ctx;
    ep.progress = progress_show;
    TRY(engine_open(path, &ep, &e, &err));
    note_device(engine_info(e));
    /* The whole text begins as the model wants every text to begin, as in llama.cpp's tool. */
    struct encode_opts o = {.bos = text_adds_bos(engine_text(e))};
    TRY(text_encode(engine_text(e), buf_str(&in), in.len, &o, &ids, &err));
    TRY(engine_perplexity(e, ids.v, ids.n, &p, &r, &err));
    progress_clear();
    print_result(&r, arg_flag(a, "json"));
out:
    engine_close(e);
    tok_list_release(&ids);
    buf_release(&in);
    free(path);
    return st == ST_OK ? 0 : fail(&err);
}
