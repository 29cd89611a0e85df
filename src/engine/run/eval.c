/*
 * eval.c - perplexity, and the comparison with saved logits.
 *
 * Each window is one evaluation job of the engine thread (eval.h); rows of logits are scored
 * there as they come, so that no more than a chunk of them is ever in memory. The struct score
 * belongs to the engine thread while a job runs and to the caller between jobs.
 *
 * Sums are double. The log of the normaliser is taken once a row; for a file the whole row
 * becomes log probabilities.
 */
#include "engine/run/eval.h"

#include "base/mem.h"
#include "engine/run/logits_file.h"
#include "engine/text.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_CTX = 512, MIN_CTX = 4 };

struct score {
    const int32_t *targets; /* [ctx] the window as it was given */
    int n_vocab, ctx;
    double nll, nll2, kl;
    int64_t n, n_same;
    float *logp, *base_logp; /* [n_vocab] */
    bool save, compare;
    struct logits_writer writer;
    struct logits_reader reader;
};

/* Fills logp; best is the most likely token, the lowest of equal ones. */
static enum status normalise(struct score *s, int pos, const float *logits, uint32_t *best,
                             struct err *err) {
    uint32_t at = 0;
    for (int i = 0; i < s->n_vocab; i++) {
        if (!(fabsf(logits[i]) < INFINITY))
            return err_set(err, ST_INTERNAL,
                           "the model gave the logit %f for token %d at position %d",
                           (double)logits[i], i, pos);
        if (logits[i] > logits[at])
            at = (uint32_t)i;
    }
    double sum = 0, max = logits[at];
    for (int i = 0; i < s->n_vocab; i++)
        sum += expf(logits[i] - (float)max);
    double norm = max + log(sum);
    for (int i = 0; i < s->n_vocab; i++)
        s->logp[i] = (float)(logits[i] - norm);
    *best = at;
    return ST_OK;
}

static enum status compare(struct score *s, uint32_t best, struct err *err) {
    uint32_t base_best;
    CHECK(logits_reader_next(&s->reader, s->base_logp, &base_best, err));
    /* What was rounded for the file is normalised again: then the divergence of a model from
     * itself is zero up to the square of the rounding, and never negative. */
    double sum = 0, kl = 0;
    for (int i = 0; i < s->n_vocab; i++) {
        double p = exp(s->base_logp[i]);
        sum += p;
        kl += p * ((double)s->base_logp[i] - s->logp[i]);
    }
    s->kl += kl / sum - log(sum);
    s->n_same += base_best == best;
    return ST_OK;
}

static enum status score_row(void *user, int pos, const float *logits, struct err *err) {
    struct score *s = user;
    uint32_t best = 0;
    if (pos == s->ctx - 1) /* the last token of the window has no next one */
        return ST_OK;
    CHECK(normalise(s, pos, logits, &best, err));
    double nll = -(double)s->logp[s->targets[pos + 1]];
    s->nll += nll;
    s->nll2 += nll * nll;
    s->n++;
    if (s->compare)
        CHECK(compare(s, best, err));
    if (s->save)
        CHECK(logits_writer_add(&s->writer, s->logp, best, err));
    return ST_OK;
}

struct waiting {
    const struct eval_params *p;
    int done, total;
};

static bool go_on(void *user) {
    struct waiting *w = user;
    return !w->p->progress || w->p->progress(w->p->user, w->done, w->total);
}

static enum status score_windows(struct engine *e, const int32_t *tokens, int n_window,
                                 const struct eval_params *p, struct score *s,
                                 struct err *err) {
    const struct text_model *text = engine_text(e);
    int32_t *window = xcalloc((size_t)s->ctx, sizeof *window);
    struct waiting w = {.p = p, .total = n_window};
    enum status st = ST_OK;
    for (; w.done < n_window; w.done++) {
        if (!go_on(&w))
            TRY(err_set(err, ST_CANCELLED, "cancelled"));
        s->targets = tokens + (size_t)w.done * (size_t)s->ctx;
        memcpy(window, s->targets, (size_t)s->ctx * sizeof *window);
        if (text_adds_bos(text) && text_bos(text) >= 0)
            window[0] = text_bos(text);
        struct eval job = {.tokens = window,
                           .n_tok = s->ctx,
                           .first = s->ctx / 2,
                           .row = score_row,
                           .user = s};
        TRY(engine_evaluate(e, &job, go_on, &w, err));
    }
    go_on(&w);
out:
    free(window);
    return st;
}

static enum status check(const struct engine_info *info, const int32_t *tokens, size_t n_tok,
                         int ctx, struct err *err) {
    if (ctx < MIN_CTX || ctx > info->ctx_tok)
        return err_set(err, ST_USAGE, "a window of %d tokens, wanted %d to %d", ctx, MIN_CTX,
                       info->ctx_tok);
    if (n_tok < (size_t)ctx)
        return err_set(err, ST_USAGE, "the text has %zu tokens, a window needs %d", n_tok, ctx);
    if (n_tok / (size_t)ctx > INT32_MAX)
        return err_set(err, ST_LIMIT, "the text has %zu tokens, too many", n_tok);
    for (size_t i = 0; i < n_tok; i++)
        if (tokens[i] < 0 || tokens[i] >= info->n_vocab)
            return err_set(err, ST_USAGE, "token %zu is %d, the vocabulary has %d", i,
                           tokens[i], info->n_vocab);
    return ST_OK;
}

enum status engine_perplexity(struct engine *e, const int32_t *tokens, size_t n_tok,
                              const struct eval_params *p, struct eval_result *out,
                              struct err *err) {
    const struct engine_info *info = engine_info(e);
    int ctx = p->ctx ? p->ctx : DEFAULT_CTX < info->ctx_tok ? DEFAULT_CTX : info->ctx_tok;
    CHECK(check(info, tokens, n_tok, ctx, err));
    int n_window = (int)(n_tok / (size_t)ctx);
    const struct logits_shape shape = {.n_vocab = (uint32_t)info->n_vocab,
                                       .ctx = (uint32_t)ctx,
                                       .n_window = (uint32_t)n_window,
                                       .tokens = tokens};
    struct score s = {.n_vocab = info->n_vocab, .ctx = ctx};
    enum status st = ST_OK;
    s.logp = xcalloc((size_t)s.n_vocab, sizeof *s.logp);
    s.base_logp = xcalloc((size_t)s.n_vocab, sizeof *s.base_logp);
    if (p->kl_base) {
        TRY(logits_reader_open(&s.reader, p->kl_base, &shape, err));
        s.compare = true;
    }
    if (p->save_logits) {
        TRY(logits_writer_open(&s.writer, p->save_logits, &shape, err));
        s.save = true;
    }
    TRY(score_windows(e, tokens, n_window, p, &s, err));
    double n = (double)s.n, mean = s.nll / n, var = s.nll2 / n - mean * mean;
    *out = (struct eval_result){.perplexity = exp(mean),
                                .mean_nll = mean,
                                .nll_stderr = s.n > 1 && var > 0 ? sqrt(var / (n - 1)) : 0,
                                .tokens = s.n,
                                .windows = n_window,
                                .has_kl = s.compare,
                                .kl = s.compare ? s.kl / n : 0,
                                .top1 = s.compare ? (double)s.n_same / n : 0};
out:
    if (s.save) {
        enum status closed = logits_writer_close(&s.writer, st == ST_OK, err);
        st = st == ST_OK ? closed : st;
    }
    if (s.compare)
        logits_reader_close(&s.reader);
    free(s.logp);
    free(s.base_logp);
    return st;
}
