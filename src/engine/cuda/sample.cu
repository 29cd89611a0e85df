/*
 * sample.cu - a token of each row of logits, as run/sampler.c takes it: penalties, top-k,
 * top-p, min-p, temperature, and a draw with a number that the host gives.
 *
 * Order. A logit becomes a key of 32 bits that orders as it does (key_of); what is no number,
 * or +infinity, has the largest key of all, so that finding the best token finds it too. Equal
 * logits are ordered by token, the lower first.
 *
 * Mass. exp((x - max) / T) as a multiple of 2^-43 in 64 bits: a float of 2^-20 and more is
 * exact so, smaller ones are cut off by less than 2^-43 each, which is 2^-23 of the best
 * token's mass in the largest vocabulary, 2^20. Sums of such numbers are exact: the same in any
 * order and for any split of the work, so that threads may add them up as they come. A token
 * below 2^-43 of the best is never drawn.
 *
 * A block of 1024 threads takes a row. It is bound by reading the row (608 KB for a vocabulary
 * of 152,000), once or more:
 *
 *   penalties  on the few tokens that have one, in place.
 *   best       1 pass. With temperature 0 that is all.
 *   in_order   no top-k, no top-p: the sampler draws by tokens in ascending order, those below
 *              min-p left out. 1 pass: warps add up runs of 1024 tokens; then the run and the
 *              token are found by prefix sums.
 *   by_rank    top-k up to 256, or top-p with a set that is not too flat. The first pass also
 *              gave the best of 256 shares of the row; at least m tokens reach the m-th of
 *              these, and not many more. 1 pass: they come to a list of up to 1024, a thread
 *              each, where each counts those that beat it. Borders are prefix sums.
 *   by_search  what does not fit there. A border (the k-th best, a mass) is found by its key:
 *              11, 11 and 10 bits in three passes, each a histogram in shared memory of the
 *              mass of what has the bits found so far. Tokens of one key have one mass, so that
 *              a division says which of equal tokens it is. 8 to 12 passes; the first of each
 *              search is bound by additions that meet in few bins.
 *
 * Rejected: sorting the vocabulary; several blocks for a row (they would wait for each other
 * between the passes, and a step of many sequences fills the device as it is).
 */
#include "engine/cuda/dev.h"

enum {
    THREADS = 1024,
    SHARES = 256, /* of a row, four threads each */
    LIST = THREADS,
    WANTED = 200, /* tokens that are listed for top-p alone, about twice as many come */
    BINS = 2048,
    RUN = 1024, /* tokens; a vocabulary has at most RUN runs */
    AHEAD = 8,  /* loads of a thread that are on their way at once */
    POINT = 43, /* bits of a mass behind the point */
};
static_assert(RUN == THREADS && BINS == 2 * THREADS && BACKEND_SAMPLE_VOCAB <= RUN * THREADS);
static_assert((uint64_t)BACKEND_SAMPLE_VOCAB << POINT <= (uint64_t)1 << 63);

/* The block's shared memory. */
struct sample_room {
    uint64_t bins[BINS]; /* histogram; masses of runs; the sorted list */
    uint64_t list[LIST]; /* orders (order_of) of listed tokens */
    uint64_t sums[32];   /* of warps */
    uint64_t rest;       /* what find() and others found, for all threads */
    uint32_t word;
    uint32_t n_list;
};

/* ---- keys and masses ---- */

DEVICE uint32_t key_of(float x) {
    uint32_t bits;
    if (!(x < INFINITY))
        return 0xffffffffu;
    x += 0.0f; /* -0 is 0 */
    memcpy(&bits, &x, 4);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

DEVICE float real_of(uint32_t key) {
    uint32_t bits = key >> 31 ? key & 0x7fffffffu : ~key;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* Larger: better. */
DEVICE uint64_t order_of(uint32_t key, int token) {
    return (uint64_t)key << 32 | ~(uint32_t)token;
}
DEVICE uint32_t order_key(uint64_t order) {
    return (uint32_t)(order >> 32);
}
DEVICE int order_token(uint64_t order) {
    return (int)~(uint32_t)order;
}

/* The key of the smallest float that is at least x. */
DEVICE uint32_t key_from(double x) {
    float f = (float)x;
    return key_of(f) + ((double)f < x ? 1 : 0);
}

/* p in [0, 1] in units of 2^-POINT. p is m 2^(e - 150). */
DEVICE uint64_t fixed(float p) {
    uint32_t bits;
    memcpy(&bits, &p, 4);
    int shift = (int)(bits >> 23) - 150 + POINT;
    uint64_t m = (bits & 0x7fffffu) | 0x800000u;
    if (shift <= -24)
        return 0;
    return shift < 0 ? m >> -shift : m << shift;
}

/* What a token counts in a sum: keys outside from .. to nothing; one each, or their mass. */
struct weigher {
    uint32_t from, to;
    bool count;
    float max, inv; /* inv: 1 / T */
};

DEVICE uint64_t weigh_key(const struct weigher &w, uint32_t key, float x) {
    if (key < w.from || key > w.to)
        return 0;
    return w.count ? 1 : fixed(expf((x - w.max) * w.inv));
}
DEVICE uint64_t weigh(const struct weigher &w, float x) {
    return weigh_key(w, key_of(x), x);
}

/* ---- sums of a block ---- */

/* The sum of v over the threads before this one; *total: over all. */
DEVICE uint64_t sum_before(struct sample_room *r, uint64_t v, uint64_t *total) {
    uint64_t sum = v, base = 0, all = 0;
    for (int d = 1; d < 32; d *= 2) {
        uint64_t other = shfl(sum, (lane_id() - d) & 31);
        sum += lane_id() >= d ? other : 0;
    }
    block_sync(); /* the last sums, and what find() left, were read */
    if (lane_id() == 31)
        sts(&r->sums[warp_id()], sum);
    block_sync();
    for (int i = 0; i < THREADS / 32; i++) {
        uint64_t part = lds(&r->sums[i]);
        base += i < warp_id() ? part : 0;
        all += part;
    }
    *total = all;
    return base + sum - v;
}

DEVICE uint64_t sum_all(struct sample_room *r, uint64_t v) {
    uint64_t total;
    sum_before(r, v, &total);
    return total;
}

/* The thread whose v, behind `before`, reaches beyond target, which is less than the sum of
 * all; *rest: how far its v goes to target. Behind sum_before(). */
DEVICE int find(struct sample_room *r, uint64_t before, uint64_t v, uint64_t target,
                uint64_t *rest) {
    if (before <= target && target - before < v) {
        sts(&r->word, (uint32_t)thread_x());
        sts(&r->rest, target - before);
    }
    block_sync();
    *rest = lds(&r->rest);
    return (int)lds(&r->word);
}

/* Where a draw falls in a mass. */
DEVICE uint64_t point_in(double unit, uint64_t mass) {
    uint64_t at = (uint64_t)(unit * (double)mass);
    return at < mass ? at : mass - 1;
}

/* ---- passes ---- */

/* body(i, x[i]) for every step-th i from `first` on. */
template <class F> DEVICE void each(const float *x, int first, int end, int step, F body) {
    for (int i = first; i < end; i += AHEAD * step) {
        float v[AHEAD];
        UNROLL
        for (int j = 0; j < AHEAD; j++)
            v[j] = i + j * step < end ? x[i + j * step] : 0;
        UNROLL
        for (int j = 0; j < AHEAD; j++)
            if (i + j * step < end)
                body(i + j * step, v[j]);
    }
}

/* The best of a row, and this thread's own. */
DEVICE uint64_t best(struct sample_room *r, const float *x, int n, uint64_t *mine) {
    uint32_t top = 0;
    int token = -1;
    each(x, thread_x(), n, THREADS, [&](int i, float v) {
        uint32_t key = key_of(v);
        token = key > top ? i : token;
        top = key > top ? key : top;
    });
    uint64_t all = *mine = token < 0 ? 0 : order_of(top, token);
    for (int i = 16; i > 0; i /= 2) {
        uint64_t other = shfl_xor(all, i);
        all = other > all ? other : all;
    }
    if (lane_id() == 0)
        sts(&r->sums[warp_id()], all);
    block_sync();
    for (int i = 0; i < THREADS / 32; i++) {
        uint64_t other = lds(&r->sums[i]);
        all = other > all ? other : all;
    }
    return all;
}

DEVICE uint64_t row_sum(struct sample_room *r, const float *x, int n, const struct weigher &w) {
    uint64_t sum = 0;
    each(x, thread_x(), n, THREADS, [&](int, float v) { sum += weigh(w, v); });
    return sum_all(r, sum);
}

/* The sums of runs in bins; returns the sum of all. */
DEVICE uint64_t run_sums(struct sample_room *r, const float *x, int n,
                         const struct weigher &w) {
    for (int run = warp_id(); run < (n + RUN - 1) / RUN; run += THREADS / 32) {
        int end = min_int(n, (run + 1) * RUN);
        uint64_t sum = 0;
        each(x, run * RUN + lane_id(), end, 32, [&](int, float v) { sum += weigh(w, v); });
        for (int i = 16; i > 0; i /= 2)
            sum += shfl_xor(sum, i);
        if (lane_id() == 0)
            sts(&r->bins[run], sum);
    }
    block_sync();
    int run = thread_x();
    return sum_all(r, run < (n + RUN - 1) / RUN ? lds(&r->bins[run]) : 0);
}

/* In ascending order of tokens: the one whose mass reaches beyond target. Behind run_sums(). */
DEVICE int in_order(struct sample_room *r, const float *x, int n, const struct weigher &w,
                    uint64_t target) {
    int run = thread_x();
    uint64_t v = run < (n + RUN - 1) / RUN ? lds(&r->bins[run]) : 0, all, rest;
    uint64_t before = sum_before(r, v, &all);
    run = find(r, before, v, target, &rest);
    int i = run * RUN + thread_x();
    v = i < n ? weigh(w, x[i]) : 0;
    before = sum_before(r, v, &all);
    return run * RUN + find(r, before, v, rest, &rest);
}

/* ---- a short list ---- */

/* A key that at least `want` tokens of a row reach, and few more; want <= SHARES, and n >
 * THREADS, so that every share has tokens. */
DEVICE uint32_t list_from(struct sample_room *r, uint64_t mine, int want) {
    for (int i = 1; i < THREADS / SHARES; i *= 2) {
        uint64_t other = shfl_xor(mine, i);
        mine = other > mine ? other : mine;
    }
    if (thread_x() % (THREADS / SHARES) == 0)
        sts(&r->list[thread_x() / (THREADS / SHARES)], mine);
    block_sync();
    if (thread_x() < SHARES) {
        uint64_t own = lds(&r->list[thread_x()]);
        int beaten_by = 0;
        for (int i = 0; i < SHARES; i++)
            beaten_by += lds(&r->list[i]) > own;
        if (beaten_by == want - 1)
            sts(&r->word, order_key(own));
    }
    block_sync();
    return lds(&r->word);
}

/* All tokens whose key is `from` or more, in no order; how many there are, which may be more
 * than the list holds. Threads whose best is below have none. With mass not NULL also the sum
 * of the row. */
DEVICE int list(struct sample_room *r, const float *x, int n, uint32_t from, uint64_t mine,
                const struct weigher &w, uint64_t *mass) {
    uint64_t sum = 0;
    if (thread_x() == 0)
        sts(&r->n_list, 0u);
    block_sync(); /* and the shares were read */
    if (mass || order_key(mine) >= from)
        each(x, thread_x(), n, THREADS, [&](int i, float v) {
            uint32_t key = key_of(v);
            sum += mass ? weigh_key(w, key, v) : 0;
            uint32_t at = key >= from ? sts_add(&r->n_list, 1u) : (uint32_t)LIST;
            if (at < LIST)
                sts(&r->list[at], order_of(key, i));
        });
    if (mass)
        *mass = sum_all(r, sum);
    block_sync();
    return (int)lds(&r->n_list);
}

/* The list's token number thread_x() by rank, the best first; 0 behind its end. */
DEVICE uint64_t ranked(struct sample_room *r, int n_list) {
    if (thread_x() < n_list) {
        uint64_t own = lds(&r->list[thread_x()]);
        int beaten_by = 0;
        for (int i = 0; i < n_list; i++)
            beaten_by += lds(&r->list[i]) > own;
        sts(&r->bins[beaten_by], own);
    }
    block_sync();
    return thread_x() < n_list ? lds(&r->bins[thread_x()]) : 0;
}

/* The mass that top-p wants of a mass. */
DEVICE uint64_t share_of(double top_p, uint64_t mass) {
    uint64_t want = (uint64_t)ceil(top_p * (double)mass);
    return want < mass ? want : mass;
}

/* Of a list that has the best k tokens, or k = n: as many as it needs for top-p. -1: it lacks
 * some. w: without temperature. */
DEVICE int by_rank(struct sample_room *r, const float *x, int n, int k, uint32_t from,
                   uint64_t mine, const struct gpu_sample &s, struct weigher w) {
    uint64_t row = 0, all, rest;
    bool whole = k < n || s.top_p >= 1; /* nothing behind the list counts */
    int n_list = list(r, x, n, from, mine, w, whole ? nullptr : &row);
    if (n_list > LIST)
        return -1;
    uint64_t own = ranked(r, n_list);
    bool in = thread_x() < min_int(k, n_list);
    float logit = real_of(order_key(own));
    if (s.top_p < 1) {
        uint64_t before = sum_before(r, in ? weigh_key(w, order_key(own), logit) : 0, &all);
        uint64_t want = share_of(s.top_p, whole ? all : row);
        if (all < want)
            return -1;
        in = in && (thread_x() == 0 || before < want);
    }
    w.from = key_from((double)w.max + s.log_min_p);
    w.inv = s.inv_temperature;
    uint64_t v = in ? weigh_key(w, order_key(own), logit) : 0;
    uint64_t before = sum_before(r, v, &all);
    int at = find(r, before, v, point_in(s.unit, all), &rest);
    return order_token(lds(&r->bins[at]));
}

/* ---- a search ---- */

/* What is left of a row: all keys above `key`, and the first n_equal tokens that have it. */
struct border {
    uint32_t key, n_equal;
};

/* Walking from the best down, the token whose weight reaches beyond target, as a border behind
 * it. */
DEVICE struct border search(struct sample_room *r, const float *x, int n,
                            const struct weigher &w, uint64_t target) {
    uint32_t found = 0; /* the key's first bits */
    for (int shift = 21, bits = 11; bits > 0; shift = max_int(shift - 11, 0)) {
        for (int i = thread_x(); i < BINS; i += THREADS)
            sts(&r->bins[i], (uint64_t)0);
        block_sync();
        each(x, thread_x(), n, THREADS, [&](int, float v) {
            uint32_t key = key_of(v);
            uint64_t have = weigh_key(w, key, v);
            if (have && (shift == 21 || key >> (shift + bits) == found))
                sts_add(&r->bins[(key >> shift) & ((1u << bits) - 1)], have);
        });
        block_sync();
        /* two bins a thread, the largest keys first */
        int bin = BINS - 1 - 2 * thread_x();
        uint64_t high = lds(&r->bins[bin]), low = lds(&r->bins[bin - 1]), all;
        uint64_t before = sum_before(r, high + low, &all);
        bin = BINS - 1 - 2 * find(r, before, high + low, target, &target);
        high = lds(&r->bins[bin]);
        if (target >= high) {
            target -= high;
            bin--;
        }
        found = found << bits | (uint32_t)bin;
        bits = shift == 21 ? 11 : shift == 10 ? 10 : 0;
        block_sync(); /* the bins were read */
    }
    return {found, (uint32_t)(target / weigh_key(w, found, real_of(found))) + 1};
}

/* The weight of what is left. */
DEVICE uint64_t mass_of(struct sample_room *r, const float *x, int n, struct weigher w,
                        struct border b) {
    w.from = b.key + 1;
    uint64_t sum = row_sum(r, x, n, w);
    w.from = 0;
    return b.n_equal ? sum + b.n_equal * weigh_key(w, b.key, real_of(b.key)) : sum;
}

DEVICE int by_search(struct sample_room *r, const float *x, int n, int k,
                     const struct gpu_sample &s, struct weigher w) {
    struct border b = {0, 0}; /* no token has key 0 */
    if (k < n) {
        w.count = true;
        b = search(r, x, n, w, (uint64_t)k - 1);
        w.count = false;
    }
    if (s.top_p < 1) {
        uint64_t want = share_of(s.top_p, mass_of(r, x, n, w, b));
        b = search(r, x, n, w, want ? want - 1 : 0);
    }
    uint32_t from = key_from((double)w.max + s.log_min_p);
    if (from > b.key)
        b = {from - 1, 0};
    w.inv = s.inv_temperature;
    b = search(r, x, n, w, point_in(s.unit, mass_of(r, x, n, w, b)));
    /* the token that was drawn is the last of its equals within the border */
    w = {b.key, b.key, true, w.max, w.inv};
    run_sums(r, x, n, w);
    return in_order(r, x, n, w, b.n_equal - 1);
}

/* ---- a row ---- */

DEVICE int draw(struct sample_room *r, const float *x, int n, const struct gpu_sample &s,
                float max, uint64_t mine) {
    struct weigher w = {0, 0xffffffffu, false, max, 1};
    int k = s.top_k > 0 && s.top_k < n ? s.top_k : n, token = -1;
    if (k == n && s.top_p >= 1) {
        w.from = key_from((double)max + s.log_min_p);
        w.inv = s.inv_temperature;
        uint64_t mass = run_sums(r, x, n, w);
        return in_order(r, x, n, w, point_in(s.unit, mass));
    }
    if (n <= LIST)
        token = by_rank(r, x, n, k, 0, mine, s, w);
    else if (k == n || k <= SHARES)
        token = by_rank(r, x, n, k, list_from(r, mine, k < n ? k : WANTED), mine, s, w);
    return token < 0 ? by_search(r, x, n, k, s, w) : token;
}

/* Block i: row i. */
KERNEL void BOUNDS(THREADS, 1)
    sample_kernel(const struct gpu_sample *rows, const struct sample_token *tokens, int n,
                  float *logits, struct sample_got *got) {
    wait_for_others();
    SHARED(shared);
    struct sample_room *r = (struct sample_room *)(void *)shared;
    struct gpu_sample s = rows[block_x()];
    float *x = logits + (size_t)block_x() * (size_t)n;
    for (int i = thread_x(); i < s.n_token; i += THREADS) {
        struct sample_token t = tokens[s.first + i];
        float v = x[t.token];
        v = v > 0 ? v / s.repeat : mul_rounded(v, s.repeat);
        x[t.token] = v - t.minus;
    }
    block_sync();
    uint64_t mine, top = best(r, x, n, &mine);
    int token = order_token(top);
    float max = x[token];
    if (!(max < INFINITY) || max == -INFINITY)
        token = -1 - token;
    else if (s.inv_temperature > 0)
        token = draw(r, x, n, s, max, mine);
    if (thread_x() == 0)
        got[block_x()] = {token, max};
}

static void sample(struct gpu *g, const struct gpu_sample *rows,
                   const struct sample_token *tokens, int n, int n_vocab, float *logits,
                   struct sample_got *got) {
    launch<sample_kernel>(g, "sample", dim3((unsigned)n), THREADS, sizeof(struct sample_room),
                          rows, tokens, n_vocab, logits, got);
}

void gpu_sample_kernels(struct gpu *g) {
    g->sample = sample;
}
