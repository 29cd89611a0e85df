/*
 * sampler.c - see sampler.h.
 *
 * Data: `cand` holds the tokens that are still in the race. Logits are read once, in spans
 * whose largest ones are kept: the best token and top-k look only into spans that can hold what
 * they want. Nothing here sorts the vocabulary: top-k keeps a heap of the k best; top-p and
 * typical make a heap of all candidates (linear) and take the best one after the other until
 * they have enough. `score` is what a heap is ordered by, the lower token first among equals,
 * so the result never depends on how a heap happens to be arranged.
 *
 * Probabilities are float, their sums double. `sorted` remembers that the candidates lie in
 * falling order of logits.
 *
 * Rejected: a quickselect for top-k (k is small against the vocabulary: most logits lose
 * against the heap's root by one comparison); a full softmax before top-k (not needed for the
 * order).
 *
 * Threads: one for each scratch; a sampler belongs to who samples with it.
 */
#include "engine/run/sampler.h"

#include "base/mem.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

struct cand {
    float score, logit, p;
    int32_t token;
};

enum { SPAN = 64 };

struct sampler_scratch {
    int n_vocab;
    float *top;        /* [ceil(n_vocab / SPAN)] the largest logit of each span */
    struct cand *cand; /* [n_vocab], the first n are alive */
    int n;
    bool sorted;
    int32_t *count; /* [n_vocab] zeros between calls */
    float *raw; /* [n_vocab] logits before bias and penalties, when log probabilities are asked
                   for */
};

/* ---- random numbers ---- */

static uint64_t rotl(uint64_t x, int k) {
    return x << k | x >> (64 - k);
}

void rng_seed(struct rng *r, uint64_t seed) {
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += 0x9E3779B97F4A7C15u;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        r->s[i] = z ^ z >> 31;
    }
}

uint64_t rng_next(struct rng *r) {
    uint64_t *s = r->s;
    uint64_t result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

double rng_unit(struct rng *r) {
    return (double)(rng_next(r) >> 11) * 0x1p-53;
}

/* ---- settings ---- */

enum status sampling_check(const struct sampling *s, struct err *err) {
    const struct {
        const char *name;
        double value, low, high;
    } rules[] = {
        {"temperature", s->temperature, 0, 100},
        {"top_k", s->top_k, 0, INT32_MAX},
        {"top_p", s->top_p, 0, 1},
        {"min_p", s->min_p, 0, 1},
        {"typical_p", s->typical_p, 0, 1},
        {"repeat_penalty", s->repeat_penalty, 0.01, 100},
        {"repeat_last_n", s->repeat_last_n, -1, INT32_MAX},
        {"presence_penalty", s->presence_penalty, -100, 100},
        {"frequency_penalty", s->frequency_penalty, -100, 100},
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (!(rules[i].value >= rules[i].low && rules[i].value <= rules[i].high))
            return err_set(err, ST_USAGE, "%s is %g, wanted %g to %g", rules[i].name,
                           rules[i].value, rules[i].low, rules[i].high);
    if (s->seed < -1)
        return err_set(err, ST_USAGE, "seed is %lld, wanted -1 (a new one each time) or more",
                       (long long)s->seed);
    return ST_OK;
}

/* A short seed, so that a person can type it again. */
static int64_t draw_seed(void) {
    uint32_t seed;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        seed = (uint32_t)t.tv_nsec ^ (uint32_t)t.tv_sec << 10;
    }
    return seed;
}

void sampler_init(struct sampler *s, const struct sampling *set, const struct logit_bias *bias,
                  size_t n_bias, int n_logprobs) {
    assert(n_logprobs >= 0 && n_logprobs <= SAMPLER_MAX_LOGPROBS);
    *s =
        (struct sampler){.set = *set, .bias = bias, .n_bias = n_bias, .n_logprobs = n_logprobs};
    if (s->set.seed < 0)
        s->set.seed = draw_seed();
    rng_seed(&s->rng, (uint64_t)s->set.seed);
}

struct sampler_scratch *sampler_scratch_new(int n_vocab) {
    struct sampler_scratch *w = xcalloc(1, sizeof *w);
    w->n_vocab = n_vocab;
    w->top = xcalloc((size_t)n_vocab / SPAN + 1, sizeof *w->top);
    w->cand = xcalloc((size_t)n_vocab, sizeof *w->cand);
    w->count = xcalloc((size_t)n_vocab, sizeof *w->count);
    w->raw = xcalloc((size_t)n_vocab, sizeof *w->raw);
    return w;
}

void sampler_scratch_free(struct sampler_scratch *w) {
    if (!w)
        return;
    free(w->top);
    free(w->cand);
    free(w->count);
    free(w->raw);
    free(w);
}

/* ---- heaps of candidates ---- */

static bool beats(const struct cand *a, const struct cand *b) {
    return a->score > b->score || (a->score == b->score && a->token < b->token);
}

/* Moves c[i] down; the root is the best candidate, or with `worst` the worst one. */
static void sift_down(struct cand *c, int n, int i, bool worst) {
    struct cand x = c[i];
    for (;;) {
        int k = 2 * i + 1;
        if (k >= n)
            break;
        if (k + 1 < n && beats(&c[k + 1], &c[k]) != worst)
            k++;
        if (beats(&c[k], &x) == worst)
            break;
        c[i] = c[k];
        i = k;
    }
    c[i] = x;
}

static void heapify(struct cand *c, int n, bool worst) {
    for (int i = n / 2 - 1; i >= 0; i--)
        sift_down(c, n, i, worst);
}

/* Takes the root off: it goes to c[n - 1], the heap is c[0..n-1). */
static void pop_root(struct cand *c, int n, bool worst) {
    struct cand root = c[0];
    c[0] = c[n - 1];
    c[n - 1] = root;
    sift_down(c, n - 1, 0, worst);
}

/* The k best of logits [n], whose spans' largest are in top, sorted. */
static int best_k(struct cand *c, int k, const float *logits, int n, const float *top) {
    k = k < n ? k : n;
    for (int i = 0; i < k; i++)
        c[i] = (struct cand){.score = logits[i], .logit = logits[i], .token = i};
    heapify(c, k, true);
    float least = c[0].score;
    for (int i = k; i < n; i++) {
        if (top[i / SPAN] <= least)
            i = (i / SPAN + 1) * SPAN;
        if (i >= n)
            break;
        if (logits[i] <= least) /* among equals the lower token, which came first, stays */
            continue;
        c[0] = (struct cand){.score = logits[i], .logit = logits[i], .token = i};
        sift_down(c, k, 0, true);
        least = c[0].score;
    }
    for (int m = k; m > 1; m--)
        pop_root(c, m, true); /* the worst goes to the end: falling order remains */
    return k;
}

/* ---- the steps ---- */

static void apply_bias(const struct sampler *s, float *logits) {
    for (size_t i = 0; i < s->n_bias; i++)
        logits[s->bias[i].token] += s->bias[i].bias;
}

/* The part of a history that is punished: its last *n tokens, NULL where there are none. */
static const int32_t *punished(const struct sampling *set, const int32_t *history, size_t *n) {
    bool off =
        set->repeat_penalty == 1 && set->presence_penalty == 0 && set->frequency_penalty == 0;
    size_t from = 0;
    if (off || set->repeat_last_n == 0 || *n == 0)
        return NULL;
    if (set->repeat_last_n > 0 && (size_t)set->repeat_last_n < *n)
        from = *n - (size_t)set->repeat_last_n;
    *n -= from;
    return history + from;
}

static float penalty(const struct sampling *set, int count) {
    return (float)(count * set->frequency_penalty + set->presence_penalty);
}

static void apply_penalties(const struct sampler *s, struct sampler_scratch *w, float *logits,
                            const int32_t *history, size_t n) {
    const struct sampling *set = &s->set;
    const int32_t *last = punished(set, history, &n);
    for (size_t i = 0; last && i < n; i++)
        w->count[last[i]]++;
    for (size_t i = 0; last && i < n; i++) {
        int32_t t = last[i];
        if (w->count[t] == 0)
            continue;
        float x = logits[t], r = (float)set->repeat_penalty;
        x = x > 0 ? x / r : x * r;
        logits[t] = x - penalty(set, w->count[t]);
        w->count[t] = 0;
    }
}

static void softmax(struct sampler_scratch *w) {
    float max = w->cand[0].logit;
    for (int i = 1; i < w->n; i++)
        max = w->cand[i].logit > max ? w->cand[i].logit : max;
    double sum = 0;
    for (int i = 0; i < w->n; i++)
        sum += w->cand[i].p = expf(w->cand[i].logit - max);
    for (int i = 0; i < w->n; i++)
        w->cand[i].p = (float)(w->cand[i].p / sum);
}

/* Keeps the best candidates by score until their probabilities reach `enough` (or pass it, with
 * `beyond`); they lie in falling order of score after. */
static void keep_mass(struct sampler_scratch *w, double enough, bool beyond, bool in_order) {
    struct cand *c = w->cand;
    double mass = 0;
    int taken = 0;
    if (!in_order)
        heapify(c, w->n, false);
    while (taken < w->n && !(taken && (beyond ? mass > enough : mass >= enough))) {
        if (in_order) {
            mass += c[taken++].p;
        } else {
            pop_root(c, w->n - taken, false);
            taken++;
            mass += c[w->n - taken].p;
        }
    }
    if (!in_order) {
        for (int i = 0, j = w->n - 1; i < j; i++, j--) {
            struct cand x = c[i];
            c[i] = c[j];
            c[j] = x;
        }
    }
    w->n = taken;
}

/* Locally typical sampling (Meister et al., "Locally Typical Sampling", 2022): tokens whose
 * information is closest to the entropy, until their mass passes typical_p. */
static void keep_typical(struct sampler_scratch *w, double typical_p) {
    softmax(w);
    double entropy = 0;
    for (int i = 0; i < w->n; i++)
        if (w->cand[i].p > 0)
            entropy -= w->cand[i].p * log(w->cand[i].p);
    for (int i = 0; i < w->n; i++) {
        float p = w->cand[i].p;
        w->cand[i].score = p > 0 ? -(float)fabs(-log(p) - entropy) : -INFINITY;
    }
    keep_mass(w, typical_p, true, false);
    w->sorted = false;
}

static void keep_top_p(struct sampler_scratch *w, double top_p) {
    softmax(w);
    if (!w->sorted)
        for (int i = 0; i < w->n; i++)
            w->cand[i].score = w->cand[i].logit;
    keep_mass(w, top_p, false, w->sorted);
    w->sorted = true;
}

/* Min-p: tokens at least min_p times as likely as the best. */
static void keep_min_p(struct sampler_scratch *w, double min_p) {
    float max = w->cand[0].logit;
    for (int i = 1; i < w->n; i++)
        max = w->cand[i].logit > max ? w->cand[i].logit : max;
    double least = max + log(min_p);
    int n = 0;
    for (int i = 0; i < w->n; i++)
        if (w->cand[i].logit >= least)
            w->cand[n++] = w->cand[i];
    w->n = n;
}

/* Softmax of logits / temperature and one draw. */
static int32_t draw(struct sampler_scratch *w, double temperature, struct rng *rng) {
    float max = w->cand[0].logit;
    for (int i = 1; i < w->n; i++)
        max = w->cand[i].logit > max ? w->cand[i].logit : max;
    double sum = 0;
    for (int i = 0; i < w->n; i++) {
        w->cand[i].p = expf((float)((double)(w->cand[i].logit - max) / temperature));
        sum += w->cand[i].p;
    }
    double at = rng_unit(rng) * sum, acc = 0;
    int last = 0;
    for (int i = 0; i < w->n; i++) {
        if (w->cand[i].p <= 0)
            continue;
        last = i;
        acc += w->cand[i].p;
        if (at < acc)
            break;
    }
    return w->cand[last].token;
}

typedef float four __attribute__((vector_size(16)));

static inline four larger(four a, four b) {
    __auto_type more = a > b; /* -1 or 0 a lane */
    return (four)(((__typeof__(more))a & more) | ((__typeof__(more))b & ~more));
}

/* The largest of a whole span; *finite: whether all of it is finite. x times 0 is not 0 where x
 * is not finite. */
static float span_top(const float *x, bool *finite) {
    four v[2], top0, top1, zero0 = {0}, zero1 = {0};
    memcpy(&top0, x, sizeof top0);
    top1 = top0;
    for (int i = 0; i < SPAN; i += 8) {
        memcpy(v, x + i, sizeof v);
        top0 = larger(v[0], top0);
        top1 = larger(v[1], top1);
        zero0 += v[0] * 0.0f;
        zero1 += v[1] * 0.0f;
    }
    top0 = larger(top0, top1);
    zero0 += zero1;
    float a = top0[0] > top0[1] ? top0[0] : top0[1], b = top0[2] > top0[3] ? top0[2] : top0[3];
    *finite = zero0[0] + zero0[1] + zero0[2] + zero0[3] == 0;
    return a > b ? a : b;
}

int32_t sampler_best(const float *logits, int n) {
    int32_t best = 0;
    bool finite;
    for (int i = 0; i < n; i += SPAN) {
        if (i + SPAN <= n && span_top(logits + i, &finite) <= logits[best])
            continue;
        for (int j = i; j < i + SPAN && j < n; j++)
            best = logits[j] > logits[best] ? j : best;
    }
    return best;
}

/* Because of a token's logit: no number, +infinity, or -infinity where all are. */
static enum status no_token(float logit, int32_t token, struct err *err) {
    if (logit == -INFINITY)
        return err_set(err, ST_INTERNAL,
                       "no token is left to choose: all logits are -infinity");
    return err_set(err, ST_INTERNAL, "the model gave the logit %f for token %d", (double)logit,
                   token);
}

/* Fills w->top and tells the best logit's token, the first among equals; ST_INTERNAL when one
 * is not a number or nothing is left. */
static enum status scan(struct sampler_scratch *w, const float *logits, int32_t *best,
                        struct err *err) {
    int n = w->n_vocab, first = 0;
    for (int i = 0; i < n; i += SPAN) {
        bool finite = false;
        if (i + SPAN <= n)
            w->top[i / SPAN] = span_top(logits + i, &finite);
        for (int j = i; !finite && j < i + SPAN && j < n; j++) {
            if (!(logits[j] < INFINITY))
                return no_token(logits[j], j, err);
            w->top[i / SPAN] = j > i ? fmaxf(logits[j], w->top[i / SPAN]) : logits[j];
        }
        if (w->top[i / SPAN] > w->top[first])
            first = i / SPAN;
    }
    if (w->top[first] == -INFINITY)
        return no_token(-INFINITY, first * SPAN, err);
    for (*best = first * SPAN; logits[*best] != w->top[first];)
        (*best)++;
    return ST_OK;
}

static void keep_candidates(struct sampler *s, struct sampler_scratch *w, const float *logits) {
    const struct sampling *set = &s->set;
    int n = w->n_vocab;
    w->sorted = set->top_k > 0 && set->top_k < n;
    if (w->sorted) {
        w->n = best_k(w->cand, set->top_k, logits, n, w->top);
    } else {
        w->n = n;
        for (int i = 0; i < n; i++)
            w->cand[i] = (struct cand){.logit = logits[i], .token = i};
    }
    if (set->typical_p < 1)
        keep_typical(w, set->typical_p);
    if (set->top_p < 1)
        keep_top_p(w, set->top_p);
    if (set->min_p > 0)
        keep_min_p(w, set->min_p);
}

/* Alternatives and the normaliser of the raw logits. */
static double raw_logprobs(struct sampler *s, struct sampler_scratch *w, float max,
                           struct sampled *out) {
    double sum = 0;
    for (int i = 0; i < w->n_vocab; i++)
        sum += expf(w->raw[i] - max);
    double norm = max + log(sum);
    out->n_alt = best_k(w->cand, s->n_logprobs, w->raw, w->n_vocab, w->top);
    for (int i = 0; i < out->n_alt; i++) {
        out->alt[i].token = w->cand[i].token;
        out->alt[i].logprob = (float)(w->cand[i].logit - norm);
    }
    return norm;
}

enum status sampler_next(struct sampler *s, struct sampler_scratch *w, float *logits,
                         const int32_t *history, size_t n_history, struct sampled *out,
                         struct err *err) {
    int32_t best;
    double norm = 0;
    out->n_alt = 0;
    out->logprob = 0;
    if (s->n_logprobs) {
        CHECK(scan(w, logits, &best, err));
        memcpy(w->raw, logits, (size_t)w->n_vocab * sizeof *logits);
        norm = raw_logprobs(s, w, logits[best], out);
    }
    apply_bias(s, logits);
    apply_penalties(s, w, logits, history, n_history);
    CHECK(scan(w, logits, &best, err));
    if (s->set.temperature == 0) {
        out->token = best;
    } else {
        keep_candidates(s, w, logits);
        out->token = draw(w, s->set.temperature, &s->rng);
    }
    if (s->n_logprobs)
        out->logprob = (float)(w->raw[out->token] - norm);
    return ST_OK;
}

/* ---- on a device ---- */

bool sampler_can_lend(const struct sampler *s) {
    return s->n_logprobs == 0 && s->n_bias == 0 && s->set.typical_p >= 1;
}

bool sampler_lend(const struct sampler *s, struct sampler_scratch *w, const int32_t *history,
                  size_t n_history, struct sample_token *tokens, int room,
                  struct sample_row *row) {
    const struct sampling *set = &s->set;
    size_t n = n_history;
    const int32_t *last = punished(set, history, &n);
    *row = (struct sample_row){.tokens = tokens,
                               .repeat = (float)set->repeat_penalty,
                               .top_k = set->top_k,
                               .top_p = set->top_p,
                               .min_p = set->min_p,
                               .temperature = set->temperature};
    int n_token = 0;
    for (size_t i = 0; last && i < n; i++)
        n_token += w->count[last[i]]++ == 0;
    for (size_t i = 0; last && i < n; i++) {
        int32_t t = last[i];
        if (w->count[t] > 0 && n_token <= room)
            tokens[row->n_token++] =
                (struct sample_token){.token = t, .minus = penalty(set, w->count[t])};
        w->count[t] = 0;
    }
    return n_token <= room;
}

void sampler_lend_draw(struct sampler *s, struct sample_row *row) {
    row->unit = s->set.temperature > 0 ? rng_unit(&s->rng) : 0;
}

enum status sampler_lent(const struct sample_got *got, struct sampled *out, struct err *err) {
    out->token = got->token;
    out->logprob = 0;
    out->n_alt = 0;
    return got->token < 0 ? no_token(got->logit, -1 - got->token, err) : ST_OK;
}
