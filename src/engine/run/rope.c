/*
 * rope.c - see rope.h.
 *
 * Where the original computes with Python's numbers these are double here, where it computes
 * with tensors they are float. Kinds whose frequencies don't depend on the length are computed
 * once; the others when the length changes, which costs a few dozen powers a step.
 *
 * More exact angles (double, or reduced before the product) were rejected: they differ from the
 * model's own at long positions.
 */
#include "engine/run/rope.h"

#include "base/mem.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* 1 / base^(2i / dim), divided by what the file says */
static void plain(float *inv, int dim, float base, const float *divisors) {
    for (int i = 0; i < dim / 2; i++) {
        inv[i] = 1.0f / powf(base, (float)(2 * i) / (float)dim);
        if (divisors)
            inv[i] /= divisors[i];
    }
}

/* Low frequencies are divided by the factor, high ones stay, those between are blended. */
static void llama3(const struct hparams *hp, float *inv, int orig_ctx) {
    float low = (float)(orig_ctx / (double)hp->rope_low_freq);
    float high = (float)(orig_ctx / (double)hp->rope_high_freq);
    float between = (float)((double)hp->rope_high_freq - (double)hp->rope_low_freq);
    for (int i = 0; i < hp->rope_dim / 2; i++) {
        float wavelen = (float)(2 * M_PI) / inv[i];
        if (wavelen > low) {
            inv[i] /= hp->rope_scale;
        } else if (!(wavelen < high)) {
            float smooth = ((float)orig_ctx / wavelen - hp->rope_low_freq) / between;
            float slow = (1 - smooth) * inv[i] / hp->rope_scale, fast = smooth * inv[i];
            inv[i] = slow + fast;
        }
    }
}

/* The dimension that turns n times within the context (YaRN, arXiv:2309.00071, eq. 17). */
static double yarn_dim(const struct hparams *hp, double n, int orig_ctx) {
    return hp->rope_dim * log(orig_ctx / (n * 2 * M_PI)) / (2 * log((double)hp->rope_base));
}

static void yarn(const struct hparams *hp, float *inv, int orig_ctx, const float *divisors) {
    int dim = hp->rope_dim;
    double low = yarn_dim(hp, (double)hp->rope_beta_fast, orig_ctx);
    double high = yarn_dim(hp, (double)hp->rope_beta_slow, orig_ctx);
    if (hp->rope_truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, dim - 1);
    if (low == high)
        high += 0.001;
    for (int i = 0; i < dim / 2; i++) {
        float freq = powf(hp->rope_base, (float)(2 * i) / (float)dim);
        float extended = 1.0f / freq, interpolated = 1.0f / (hp->rope_scale * freq);
        float ramp = ((float)i - (float)low) / (float)(high - low);
        float keep = 1 - fminf(fmaxf(ramp, 0), 1);
        float slow = interpolated * (1 - keep), fast = extended * keep;
        inv[i] = slow + fast;
        if (divisors)
            inv[i] /= divisors[i];
    }
}

static double yarn_mscale(double scale, double mscale) {
    return scale <= 1 ? 1 : 0.1 * mscale * log(scale) + 1;
}

static float attention_factor(const struct hparams *hp, int orig_ctx) {
    double scale = (double)hp->rope_scale, all = (double)hp->rope_mscale_all_dim;
    if (hp->rope_attn_factor > 0)
        return hp->rope_attn_factor;
    if (hp->rope_type == ROPE_YARN && hp->rope_mscale != 0 && all != 0)
        return (float)(yarn_mscale(scale, (double)hp->rope_mscale) / yarn_mscale(scale, all));
    if (hp->rope_type == ROPE_YARN)
        return (float)yarn_mscale(scale, 1);
    if (hp->rope_type == ROPE_LONG && scale > 1)
        return (float)sqrt(1 + log(scale) / log(orig_ctx));
    return 1;
}

/* The base grows with the length beyond the context of training ("NTK-aware"). */
static void dynamic(const struct rope *r, int n_seq, int ctx) {
    const struct hparams *hp = r->hp;
    float base = hp->rope_base, scale = hp->rope_scale;
    if (n_seq > ctx && hp->rope_dim > 2) {
        float grown = scale * (float)n_seq / (float)ctx - (float)((double)scale - 1);
        base *= powf(grown, (float)((double)hp->rope_dim / (hp->rope_dim - 2)));
    }
    plain(r->inv_freq, hp->rope_dim, base, r->freqs);
}

static int orig_ctx_of(const struct hparams *hp) {
    return hp->rope_orig_ctx > 0 ? hp->rope_orig_ctx : hp->ctx_train;
}

int rope_kind(const struct rope *r, int n_seq) {
    return r->hp->rope_type == ROPE_LONG && n_seq > orig_ctx_of(r->hp);
}

bool rope_same(const struct rope *r, int a, int b) {
    int ctx = orig_ctx_of(r->hp);
    if (r->hp->rope_type == ROPE_DYNAMIC)
        return a == b || (a <= ctx && b <= ctx);
    return rope_kind(r, a) == rope_kind(r, b);
}

/* LongRoPE (arXiv:2402.13753): a set of divisors up to the first context, another beyond. */
static void long_rope(const struct rope *r, int n_seq) {
    const struct hparams *hp = r->hp;
    const float *divisors = rope_kind(r, n_seq) ? r->freqs_long : r->freqs;
    for (int i = 0; i < hp->rope_dim / 2; i++) {
        float freq = powf(hp->rope_base, (float)(2 * i) / (float)hp->rope_dim);
        r->inv_freq[i] = 1.0f / (divisors ? divisors[i] * freq : freq);
    }
}

static void compute(struct rope *r, int n_seq) {
    const struct hparams *hp = r->hp;
    int ctx = orig_ctx_of(hp);
    r->n_seq = n_seq;
    switch ((enum rope_type)hp->rope_type) {
    case ROPE_DYNAMIC:
        dynamic(r, n_seq, ctx);
        break;
    case ROPE_LONG:
        long_rope(r, n_seq);
        break;
    case ROPE_YARN:
        yarn(hp, r->inv_freq, ctx, r->freqs);
        break;
    case ROPE_DEFAULT:
    case ROPE_LINEAR:
    case ROPE_LLAMA3:
        plain(r->inv_freq, hp->rope_dim, hp->rope_base, r->freqs);
        if (hp->rope_type == ROPE_LLAMA3)
            llama3(hp, r->inv_freq, ctx);
        for (int i = 0; hp->rope_type == ROPE_LINEAR && i < hp->rope_dim / 2; i++)
            r->inv_freq[i] /= hp->rope_scale > 0 ? hp->rope_scale : 1;
        break;
    }
}

void rope_init(struct rope *r, const struct model *m) {
    const struct hparams *hp = &m->hp;
    size_t n = (size_t)hp->rope_dim / 2 + 1;
    *r = (struct rope){.hp = hp, .freqs = m->rope_freqs, .freqs_long = m->rope_long};
    r->inv_freq = xcalloc(n, sizeof *r->inv_freq);
    r->inv_freq_local = xcalloc(n, sizeof *r->inv_freq_local);
    if (hp->rope_dim == 0)
        return;
    r->factor = attention_factor(hp, orig_ctx_of(hp));
    compute(r, 1);
    if (hp->rope_base_local > 0)
        plain(r->inv_freq_local, hp->rope_dim, hp->rope_base_local, NULL);
}

void rope_release(struct rope *r) {
    free(r->inv_freq);
    free(r->inv_freq_local);
}

void rope_set_length(struct rope *r, int n_seq) {
    bool depends = r->hp->rope_type == ROPE_DYNAMIC || r->hp->rope_type == ROPE_LONG;
    if (depends && n_seq != r->n_seq && r->hp->rope_dim > 0)
        compute(r, n_seq);
}

static const float *freqs_of(const struct rope *r, enum rope_table t) {
    return t == ROPE_LOCAL ? r->inv_freq_local : r->inv_freq;
}

void rope_fill(const struct rope *r, enum rope_table t, int pos, float *c, float *s) {
    const float *inv = freqs_of(r, t);
    float factor = t == ROPE_LOCAL ? 1 : r->factor;
    for (int d = 0; d < r->hp->rope_dim; d += 2) {
        float angle = (float)pos * inv[d / 2];
        c[d] = c[d + 1] = cosf(angle) * factor;
        s[d + 1] = sinf(angle) * factor;
        s[d] = -s[d + 1];
    }
}

bool rope_can_move(const struct rope *r) {
    return r->hp->rope_type != ROPE_DYNAMIC && r->hp->rope_type != ROPE_LONG;
}

/* The difference of the two angles as they were rounded, so that the key arrives at the angle
 * that the model gives a key of that position. The factor is in the key already. */
void rope_move(const struct rope *r, enum rope_table t, int from, int to, float *c, float *s,
               size_t stride) {
    const float *inv = freqs_of(r, t);
    for (int d = 0; d < r->hp->rope_dim; d += 2, c += 2 * stride, s += 2 * stride) {
        float old_angle = (float)from * inv[d / 2], angle = (float)to * inv[d / 2];
        double turn = (double)angle - (double)old_angle;
        c[0] = c[stride] = (float)cos(turn);
        s[stride] = (float)sin(turn);
        s[0] = -s[stride];
    }
}
