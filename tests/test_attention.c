/*
 * test_attention.c - attention of every kernel set, and of the CUDA kernels, with every type of
 * cache against its definition in double, and its bits however the tokens are cut.
 *
 * Bounds. Of the arithmetic, what stands in the cache being given: scores here are below 20; in
 * f32 they are off by D 2^-24 sum|q k| < 2e-5, which is the relative error of a weight; that
 * int8's scale is multiplied in afterwards changes nothing of it. The result is a mean of
 * values below 6, so 2e-4 covers it with exp, cap and the merging of chunks.
 *
 * Of the cache itself, x being what is stored: f16 has 11 significant bits, so that the nearest
 * is off by |x| 2^-11 at most (2^-25 below 2^-14), bf16 has 8: |x| 2^-8; int8 by half a step of
 * absmax / 127, absmax / 254, and by the roundings of the step and of x / step, 2^-23 of x
 * each; fp8 has 4 significant bits: |x| 2^-4, 2^-10 below 2^-6.
 *
 * Both together, against the definition with unrounded keys and values: a score is off by at
 * most d = scale sum|q_i| e_i, where e is the bound of its key's numbers; cap only shrinks
 * that. So each weight is off by a factor of at most exp(2d) (sum and all), a result by
 * (exp(2d) - 1) times the largest |v|, and by the bound of the values.
 *
 * A set that multiplies bf16 rounds queries, by 2^-8 of each: a score is off by d = scale 2^-8
 * sum|q k|, a weight by exp(2d). And it rounds the weights: each is off by 2^-8 of itself,
 * their sum, which divides, is that of the rounded ones; together by 2^-7 and the squares. CUDA
 * kernels do so for every type but f32, or as well as f16 does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cuda_device.h"
#include "engine/cpu/cpu.h"
#include "engine/quant/fp8.h"
#include "engine/quant/quant.h"
#include "rand.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 80, MAX_HEAD = 40 };

static const struct cpu_kernels *sets[8];
static int n_set;
static const struct cpu_kernels *const CUDA = NULL; /* in the place of a set */

/* Kernel set i, one more than there are: CUDA, where there is a device. */
static int n_device;
static const struct cpu_kernels *device(int i) {
    return i < n_set ? sets[i] : CUDA;
}
static const char *device_name(int i) {
    return i < n_set ? sets[i]->name : "cuda";
}
static bool multiplies_bf16(int i, enum kv_type type) {
    return type != KV_F32 && (i >= n_set || (type == KV_BF16 && sets[i]->kv == KV_BF16));
}

static const enum kv_type types[] = {KV_F32, KV_F16, KV_BF16, KV_I8, KV_FP8};
enum { N_TYPE = sizeof types / sizeof *types };
static const char *const type_names[] = {"", "f32", "f16", "bf16", "int8", "fp8"};

struct att_case {
    int H, Hkv, D, n_past, n_tok;
    float cap;
    int window;
    bool alibi, scaled, sinks;
};

/* What a case computes with: the same for every kernel set. */
struct world {
    const struct att_case *c;
    struct backend *be;
    struct kv_layer kv;
    struct att_op op;
    float *q, *k, *v, *pool; /* q [n_tok, H * D], k and v [n_past + n_tok, Hkv * D] */
    float slopes[MAX_HEAD], sinks[MAX_HEAD];
    int32_t blocks[BLOCKS];
    size_t ldq, ldk;
};

static float *matrix(struct backend *be, int T, int K, float scale) {
    size_t ld = (size_t)weight_pad_k(K);
    float *x = be->alloc(be, (size_t)T * ld * sizeof *x);
    for (int t = 0; t < T; t++)
        rand_fill(x + (size_t)t * ld, (size_t)K, scale);
    return x;
}

/* Bytes of a number, and of a head's keys in a block. */
static size_t number(enum kv_type t) {
    return t == KV_F32 ? 4 : t == KV_I8 || t == KV_FP8 ? 1 : 2;
}
static size_t head_part(const struct kv_layer *kv) {
    return (size_t)kv->D * 16 * number(kv->type) + (kv->type == KV_I8 ? 64 : 0);
}

static const float *bound(struct world *w, const float *x) {
    const void *dev = NULL;
    struct err err = {0};
    assert_int_equal(w->be->bind_data(w->be, x, MAX_HEAD * sizeof *x, &dev, &err), ST_OK);
    return dev;
}

/* Keys and values to the cache. */
static void write_case(struct world *w) {
    int n_all = w->c->n_past + w->c->n_tok;
    struct err err = {0};
    struct step_seq seq = {0, n_all, 0, w->blocks};
    struct step s = {.T = n_all, .seqs = &seq, .n_seq = 1};
    w->be->begin(w->be, &s);
    w->be->kv_write(w->be, &w->kv, w->k, w->v);
    assert_int_equal(w->be->finish(w->be, &err), ST_OK);
}

static void world_open(struct world *w, const struct cpu_kernels *kernels,
                       const struct att_case *c, enum kv_type type) {
    int n_all = c->n_past + c->n_tok, KV = c->Hkv * c->D;
    struct err err = {0};
    struct backend_limits lim = {n_all, 64, c->H, c->Hkv, c->D, false};
    *w = (struct world){
        .c = c, .ldq = (size_t)weight_pad_k(c->H * c->D), .ldk = (size_t)weight_pad_k(KV)};
    assert_true(n_all <= BLOCKS * 16 && c->H <= MAX_HEAD);
    if (kernels)
        assert_int_equal(cpu_backend_new(kernels, 2, &w->be, &err), ST_OK);
    else
        assert_non_null(w->be = cuda_open());
    assert_int_equal(w->be->reserve(w->be, &lim, &err), ST_OK);
    rand_state = 7;
    w->q = matrix(w->be, c->n_tok, c->H * c->D, 1);
    w->k = matrix(w->be, n_all, KV, 1.5f);
    w->v = matrix(w->be, n_all, KV, 1);
    rand_fill(w->sinks, MAX_HEAD, 2);
    for (int h = 0; h < MAX_HEAD; h++)
        w->slopes[h] = 1.0f / (float)(h + 2);
    w->kv = (struct kv_layer){.type = type, .Hkv = c->Hkv, .D = c->D};
    w->kv.stride = 2 * (size_t)c->Hkv * head_part(&w->kv) + 64; /* keys, values, a gap */
    size_t bytes = BLOCKS * w->kv.stride;
    w->kv.k = w->pool = w->be->alloc(w->be, bytes);
    w->kv.v = (char *)w->pool + (size_t)c->Hkv * head_part(&w->kv);
    assert_int_equal(w->be->finish(w->be, &err), ST_OK); /* the device is done with it */
    memset(w->pool, 0xff, bytes); /* NaN, or a scale of NaN: what isn't written isn't used */
    w->op = (struct att_op){.scale = c->D > 64 ? 0.08f : (float)(1 / sqrt(c->D)),
                            .cap = c->cap,
                            .window = c->window,
                            .slopes = c->alibi ? bound(w, w->slopes) : NULL,
                            .alibi_scaled = c->scaled,
                            .sinks = c->sinks ? bound(w, w->sinks) : NULL};
    for (int i = 0; i < BLOCKS; i++)
        w->blocks[i] = i ^ 5; /* not in order */
    write_case(w);
}

static void world_close(struct world *w) {
    struct backend *be = w->be;
    be->free(be, w->q);
    be->free(be, w->k);
    be->free(be, w->v);
    be->free(be, w->pool);
    be->close(be);
}

/* Attention of tokens from .. from + n - 1 of the case's own. */
static void run(struct world *w, int from, int n, float *out) {
    struct err err = {0};
    struct step_seq seq = {0, n, w->c->n_past + from, w->blocks};
    struct step s = {.T = n, .seqs = &seq, .n_seq = 1};
    w->be->begin(w->be, &s);
    w->be->attention(w->be, &w->kv, &w->op, w->c->H, w->q + (size_t)from * w->ldq, out);
    assert_int_equal(w->be->finish(w->be, &err), ST_OK);
}

/* What a code of fp8 is: sign, exponent and mantissa, or the multiples of 2^-9; NaN. */
static double fp8_value(int code) {
    int exponent = code >> 3 & 15, mantissa = code & 7;
    double a = exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9);
    a = (code & 0x7f) == 0x7f ? NAN : a;
    return code & 0x80 ? -a : a;
}

/* What was stored: number d of KV head h at a position. */
static double stored(const struct world *w, const float *x, int pos, int h, int d) {
    return (double)x[(size_t)pos * w->ldk + (size_t)(h * w->c->D + d)];
}

/* What the cache has of it: element `at` of the head's part of the block, by the layout that
 * backend.h describes. */
static double element(const struct world *w, const void *base, int pos, int h, int at) {
    const struct kv_layer *kv = &w->kv;
    size_t block = (size_t)w->blocks[pos / 16];
    const char *p = (const char *)base + block * kv->stride + (size_t)h * head_part(kv), *e;
    uint16_t half;
    float f;
    e = p + (size_t)at * number(kv->type);
    if (kv->type == KV_F32) {
        memcpy(&f, e, 4);
        return (double)f;
    }
    if (kv->type == KV_I8) {
        memcpy(&f, p + (size_t)kv->D * 16 + (size_t)(pos % 16) * 4, 4);
        return (double)f * (signed char)*e;
    }
    if (kv->type == KV_FP8)
        return fp8_value((unsigned char)*e);
    memcpy(&half, e, 2);
    return (double)(kv->type == KV_F16 ? cpu_f16_to_f32(half) : bf16_to_f32(half));
}

static double cached(const struct world *w, const float *x, int pos, int h, int d) {
    int slot = pos % 16, D = w->c->D;
    if (w->kv.type == KV_BF16) /* in pairs of numbers, in pairs of tokens */
        return x == w->k ? element(w, w->kv.k, pos, h, (d / 2 * 16 + slot) * 2 + d % 2)
                         : element(w, w->kv.v, pos, h, (slot / 2 * D + d) * 2 + slot % 2);
    return x == w->k ? element(w, w->kv.k, pos, h, d * 16 + slot)
                     : element(w, w->kv.v, pos, h, slot * D + d);
}

/* How far the two may be apart for any number of a head. */
static double type_error(const struct world *w, const float *x, int pos, int h) {
    double absmax = 0;
    for (int i = 0; i < w->c->D; i++)
        absmax = fmax(absmax, fabs(stored(w, x, pos, h, i)));
    switch (w->kv.type) {
    case KV_F16:
        return fmax(absmax * 0x1p-11, 0x1p-25);
    case KV_BF16:
        return absmax * 0x1p-8;
    case KV_FP8:
        return fmax(absmax * 0x1p-4, 0x1p-10);
    case KV_I8:
        return absmax / 254 + 2 * absmax * 0x1p-23;
    default:
        return 0;
    }
}

/* What keys and values are: [n_past + n_tok, Hkv * D] each. */
struct truth {
    double *k, *v;
    double k_error[MAX_HEAD], v_error[MAX_HEAD], v_top[MAX_HEAD]; /* the worst of a KV head */
};
typedef double number_fn(const struct world *w, const float *x, int pos, int h, int d);

static struct truth truth_of(const struct world *w, number_fn *of) {
    const struct att_case *c = w->c;
    size_t n = (size_t)(c->n_past + c->n_tok) * (size_t)(c->Hkv * c->D), at = 0;
    struct truth u = {xcalloc(n, sizeof *u.k), xcalloc(n, sizeof *u.v), {0}, {0}, {0}};
    for (int pos = 0; pos < c->n_past + c->n_tok; pos++)
        for (int h = 0; h < c->Hkv; h++)
            for (int d = 0; d < c->D; d++, at++) {
                u.k[at] = of(w, w->k, pos, h, d);
                u.v[at] = of(w, w->v, pos, h, d);
                u.v_top[h] = fmax(u.v_top[h], fabs(u.v[at]));
            }
    for (int pos = 0; pos < c->n_past + c->n_tok; pos++)
        for (int h = 0; h < c->Hkv; h++) {
            u.k_error[h] = fmax(u.k_error[h], type_error(w, w->k, pos, h));
            u.v_error[h] = fmax(u.v_error[h], type_error(w, w->v, pos, h));
        }
    return u;
}

static void truth_release(struct truth *u) {
    free(u->k);
    free(u->v);
}

/* The definition, head h of token t: out [D]. */
static void definition(const struct world *w, const struct truth *u, int t, int h,
                       double *out) {
    const struct att_case *c = w->c;
    int D = c->D, hk = h / (c->H / c->Hkv), pos = c->n_past + t;
    int from = c->window && pos + 1 > c->window ? pos + 1 - c->window : 0;
    double sum = c->sinks ? exp((double)w->sinks[h]) : 0;
    for (int d = 0; d < D; d++)
        out[d] = 0;
    for (int j = from; j <= pos; j++) {
        double s = 0, scale = (double)w->op.scale;
        for (int d = 0; d < D; d++)
            s += (double)w->q[(size_t)t * w->ldq + (size_t)(h * D + d)] *
                 u->k[(size_t)(j * c->Hkv + hk) * (size_t)D + (size_t)d];
        s *= scale;
        if (c->cap > 0)
            s = (double)c->cap * tanh(s / (double)c->cap);
        if (c->alibi && c->scaled) { /* the same shift for all: from the token's own position */
            s += scale * (double)bf16_to_f32(bf16_from_f32(w->slopes[h] * (float)j));
            s -= scale * (double)bf16_to_f32(bf16_from_f32(w->slopes[h] * (float)pos));
        } else if (c->alibi) {
            s += (double)w->slopes[h] * (j - pos);
        }
        sum += exp(s);
        for (int d = 0; d < D; d++)
            out[d] += exp(s) * u->v[(size_t)(j * c->Hkv + hk) * (size_t)D + (size_t)d];
    }
    for (int d = 0; d < D; d++)
        out[d] /= sum;
}

static const struct att_case cases[] = {
    {9, 3, 64, 0, 50, 0, 0, 0, 0, 0},
    {9, 3, 64, 0, 50, 0, 0, 0, 0, 0},
    {9, 3, 64, 300, 1, 0, 0, 0, 0, 0},
    {4, 4, 80, 17, 20, 0, 0, 0, 0, 0},
    {4, 4, 80, 255, 3, 0, 0, 0, 0, 0},
    {8, 1, 100, 5, 9, 0, 0, 0, 0, 0},
    {40, 1, 16, 30, 2, 0, 0, 0, 0, 0},
    {2, 1, 256, 3, 5, 0, 0, 0, 0, 0},
    {2, 2, 10, 250, 12, 0, 0, 0, 0, 0},
    {6, 2, 128, 511, 1, 0, 0, 0, 0, 0},
    {3, 3, 6, 0, 1, 0, 0, 0, 0, 0},
    {32, 2, 64, 600, 2, 0, 0, 0, 0, 0},
    {9, 3, 64, 250, 40, 0, 0, 0, 0, 0},
    {2, 1, 34, 767, 1, 0, 0, 0, 0, 0},
    /* windows: shorter and longer than the text, borders of blocks and chunks inside a tile */
    {4, 2, 32, 0, 40, 0, 1, 0, 0, 0},
    {4, 2, 32, 0, 60, 0, 17, 0, 0, 0},
    {4, 2, 32, 500, 40, 0, 16, 0, 0, 0},
    {4, 2, 32, 240, 60, 0, 20, 0, 0, 0},
    {4, 2, 96, 700, 70, 0, 256, 0, 0, 0},
    {4, 2, 96, 700, 70, 0, 257, 0, 0, 0},
    {8, 4, 64, 511, 1, 0, 300, 0, 0, 0},
    {8, 4, 64, 1000, 1, 0, 513, 0, 0, 0},
    {1, 1, 48, 1000, 3, 0, 2, 0, 0, 0},
    {2, 1, 80, 100, 30, 0, 5000, 0, 0, 0},
    /* soft caps, alone and with a window */
    {4, 2, 256, 40, 20, 50, 0, 0, 0, 0},
    {4, 2, 96, 300, 20, 2, 0, 0, 0, 0},
    {8, 4, 256, 500, 10, 5, 270, 0, 0, 0},
    /* ALiBi, scaled and not; heads of a group have slopes of their own */
    {6, 6, 64, 30, 20, 0, 0, true, false, 0},
    {6, 2, 64, 250, 20, 0, 0, true, false, 0},
    {7, 1, 64, 300, 20, 0, 0, true, true, 0},
    {4, 2, 80, 600, 1, 3, 100, true, true, 0},
    /* sinks */
    {8, 2, 64, 0, 20, 0, 0, 0, 0, true},
    {8, 2, 64, 700, 3, 0, 128, 0, 0, true},
    {4, 2, 64, 290, 30, 10, 33, 0, 0, true},
};
enum { N_CASE = sizeof cases / sizeof *cases };

typedef void check_fn(const struct att_case *c, enum kv_type t, int n);

static void every_case(check_fn *check) {
    for (int n = 0; n < N_CASE; n++)
        for (int t = 0; t < N_TYPE; t++)
            check(&cases[n], types[t], n);
}

/* How far head h of token t may be from the definition over what was stored, as derived above.
 */
static double worst(const struct world *w, const struct truth *u, int t, int h) {
    const struct att_case *c = w->c;
    int hk = h / (c->H / c->Hkv);
    double score = 0;
    for (int d = 0; d < c->D; d++)
        score += fabs((double)w->q[(size_t)t * w->ldq + (size_t)(h * c->D + d)]);
    score *= u->k_error[hk] * (double)w->op.scale;
    return (exp(2 * score) - 1) * u->v_top[hk] + u->v_error[hk] + 2e-4;
}

/* How far off it may be in addition for a set that multiplies bf16, as derived above. */
static double products(const struct world *w, const struct truth *u, int t, int h) {
    const struct att_case *c = w->c;
    int hk = h / (c->H / c->Hkv);
    double most = 0;
    for (int j = 0; j <= c->n_past + t; j++) {
        double sum = 0;
        for (int d = 0; d < c->D; d++)
            sum += fabs((double)w->q[(size_t)t * w->ldq + (size_t)(h * c->D + d)] *
                        u->k[(size_t)(j * c->Hkv + hk) * (size_t)c->D + (size_t)d]);
        most = fmax(most, sum);
    }
    most *= 0x1p-8 * (double)w->op.scale;
    return (exp(2 * most) * (1 + 0x1.02p-7) - 1) * u->v_top[hk];
}

/* All kernel sets have the same cache: what the answers should be is computed once. */
static void compare(const struct att_case *c, enum kv_type type, int n) {
    struct world w[9];
    float *out[9];
    double want[256], exact[256];
    for (int i = 0; i < n_device; i++) {
        world_open(&w[i], device(i), c, type);
        out[i] = w[i].be->alloc(w[i].be, (size_t)c->n_tok * w[i].ldq * sizeof **out);
        run(&w[i], 0, c->n_tok, out[i]);
    }
    struct truth have = truth_of(&w[0], cached), had = truth_of(&w[0], stored);
    for (int t = 0; t < c->n_tok; t++)
        for (int h = 0; h < c->H; h++) {
            double far = worst(&w[0], &had, t, h);
            double more = type != KV_F32 ? products(&w[0], &have, t, h) : 0;
            definition(&w[0], &have, t, h, want);
            if (type != KV_F32) /* else the same */
                definition(&w[0], &had, t, h, exact);
            for (int i = 0; i < n_device; i++) {
                const float *got = out[i] + (size_t)t * w[i].ldq + (size_t)(h * c->D);
                double off = multiplies_bf16(i, type) ? more : 0;
                for (int d = 0; d < c->D; d++)
                    if (!(fabs((double)got[d] - want[d]) <= 2e-4 + off) ||
                        (type != KV_F32 && !(fabs((double)got[d] - exact[d]) <= far + off)))
                        fail_msg(
                            "%s %s case %d token %d head %d [%d]: %g, want %g, or %g +- %g",
                            device_name(i), type_names[type], n, t, h, d, (double)got[d],
                            want[d], exact[d], far);
            }
        }
    truth_release(&have);
    truth_release(&had);
    for (int i = 0; i < n_device; i++) {
        w[i].be->free(w[i].be, out[i]);
        world_close(&w[i]);
    }
}

static void equals_its_definition(void **state) {
    (void)state;
    every_case(compare);
}

/* All at once, one by one, and in uneven pieces. */
static void cut_with(const struct cpu_kernels *set, const struct att_case *c,
                     enum kv_type type) {
    static const int pieces[] = {3, 1, 7, 16, 2, 30, 64};
    struct world w;
    world_open(&w, set, c, type);
    size_t bytes = (size_t)c->n_tok * w.ldq * sizeof(float);
    float *whole = w.be->alloc(w.be, bytes), *parts = w.be->alloc(w.be, bytes);
    run(&w, 0, c->n_tok, whole);
    for (int t = 0; t < c->n_tok; t++)
        run(&w, t, 1, parts + (size_t)t * w.ldq);
    assert_memory_equal(whole, parts, bytes);
    for (int t = 0, p = 0; t < c->n_tok; p++) {
        int k = pieces[p] < c->n_tok - t ? pieces[p] : c->n_tok - t;
        run(&w, t, k, parts + (size_t)t * w.ldq);
        t += k;
    }
    assert_memory_equal(whole, parts, bytes);
    w.be->free(w.be, whole);
    w.be->free(w.be, parts);
    world_close(&w);
}

static void cut(const struct att_case *c, enum kv_type type, int n) {
    (void)n;
    for (int i = 0; i < n_set; i++)
        cut_with(sets[i], c, type);
}

static void bits_do_not_depend_on_the_cut(void **state) {
    (void)state;
    every_case(cut);
}

/* What lies outside the window is not even read: it is poisoned here. */
static void keys_outside_the_window_are_not_used(void **state) {
    (void)state;
    static const struct att_case c = {4, 2, 64, 900, 20, 0, 40, 0, 0, 0};
    for (int i = 0; i < n_device; i++)
        for (int t = 0; t < N_TYPE; t++) {
            struct world w;
            world_open(&w, device(i), &c, types[t]);
            size_t n = (size_t)c.n_tok * w.ldq, block = (size_t)c.Hkv * head_part(&w.kv);
            float *out = w.be->alloc(w.be, n * sizeof *out), *again = w.be->alloc(w.be, n * 4);
            run(&w, 0, c.n_tok, out);
            for (int b = 0; b < (900 + 1 - 40) / 16; b++) {
                memset((char *)w.kv.k + (size_t)w.blocks[b] * w.kv.stride, 0xff, block);
                memset((char *)w.kv.v + (size_t)w.blocks[b] * w.kv.stride, 0xff, block);
            }
            run(&w, 0, c.n_tok, again);
            assert_memory_equal(out, again, n * sizeof *out);
            w.be->free(w.be, out);
            w.be->free(w.be, again);
            world_close(&w);
        }
}

/* Each number within its type's bound of what was stored. */
static void cache_holds_what_was_stored(void **state) {
    (void)state;
    for (int n = 0; n < N_CASE; n++)
        for (int t = 0; t < N_TYPE; t++) {
            struct world w;
            const struct att_case *c = &cases[n];
            world_open(&w, &cpu_scalar, c, types[t]);
            for (int pos = 0; pos < c->n_past + c->n_tok; pos++)
                for (int i = 0; i < 2 * c->Hkv * c->D; i++) {
                    const float *x = i % 2 ? w.k : w.v;
                    int h = i / 2 / c->D, d = i / 2 % c->D;
                    double off = fabs(cached(&w, x, pos, h, d) - stored(&w, x, pos, h, d));
                    if (!(off <= type_error(&w, x, pos, h)))
                        fail_msg("%s case %d token %d head %d [%d]: %g is off by %g",
                                 type_names[types[t]], n, pos, h, d, stored(&w, x, pos, h, d),
                                 off);
                }
            world_close(&w);
        }
}

/* The written cache is the same for every kernel set. */
static void cache_equals_that_of_the_reference(void **state) {
    (void)state;
    for (int n = 0; n < 12; n++)
        for (int t = 0; t < N_TYPE; t++) {
            struct world ref, w;
            world_open(&ref, &cpu_scalar, &cases[n], types[t]);
            for (int i = 0; i < n_device; i++) {
                world_open(&w, device(i), &cases[n], types[t]);
                assert_memory_equal(ref.pool, w.pool, BLOCKS * w.kv.stride);
                world_close(&w);
            }
            world_close(&ref);
        }
}

/* Ties, and what is no ordinary number: in all kernel sets what is written here. A cache of
 * int8 says so of a whole head when one of its numbers is not finite. */
static void odd_numbers_are_cached_alike(void **state) {
    (void)state;
    enum { D = 10 };
    static const struct {
        enum kv_type type;
        float x[D], want[D];
    } odd[] = {
        {KV_F16,
         {1e9f, -INFINITY, NAN, 0, 1e-9f, 1 + 0x1p-11f, 1 + 0x3p-11f, 3, -3, 65504},
         {65504, -65504, NAN, 0, 0, 1, 1 + 0x1p-9f, 3, -3, 65504}},
        {KV_BF16,
         {1e9f, -INFINITY, NAN, 0, 1e-39f, 1 + 0x1p-8f, 1 + 0x3p-8f, 3, -3, -1 - 0x1p-7f},
         {0x1.dcp29f, -INFINITY, NAN, 0, 0x1.6p-130f, 1, 1 + 0x1p-6f, 3, -3, -1 - 0x1p-7f}},
        {KV_FP8,
         {1e9f, -INFINITY, NAN, 0, 0x1p-10f, 1 + 0x1p-4f, 1 + 0x3p-4f, 3, -3, -0x3p-10f},
         {448, -448, NAN, 0, 0, 1, 1.25f, 3, -3, -0x1p-8f}},
        {KV_I8,
         {127, -127, 0.5f, 1.5f, -2.5f, 64.4f, 0, 3, -3, 1e-30f},
         {127, -127, 0, 2, -2, 64, 0, 3, -3, 0}},
        {KV_I8,
         {1, 2, INFINITY, 0, 0, 0, 0, 0, 0, 0},
         {NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN}},
        {KV_I8,
         {1, 2, 3, 0, 0, 0, 0, 0, 0, NAN},
         {NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN}},
        {KV_I8, {1e-31f, -1e-40f, 0, -0.0f, 0, 0, 0, 0, 0, 0}, {0}},
        {KV_I8, {254e35f, -128e35f, 0, 0, 0, 0, 0, 0, 0, 0}, {254e35f, -128e35f, 0}},
    };
    static const struct att_case c = {1, 1, D, 0, 1, 0, 0, 0, 0, 0};
    for (size_t n = 0; n < sizeof odd / sizeof *odd; n++)
        for (int i = 0; i < n_set; i++) {
            struct world w;
            world_open(&w, sets[i], &c, odd[n].type);
            sets[i]->kv_put(&w.kv, odd[n].x, odd[n].x, 0,
                            (char *)w.kv.k + (size_t)w.blocks[0] * w.kv.stride,
                            (char *)w.kv.v + (size_t)w.blocks[0] * w.kv.stride);
            for (int d = 0; d < D; d++) {
                double want = (double)odd[n].want[d], k = cached(&w, w.k, 0, 0, d);
                double v = cached(&w, w.v, 0, 0, d), most = fabs(want) * 0x1p-22;
                bool nan = isnan(want), same = k == v && (k == want || fabs(k - want) <= most);
                if (nan ? !isnan(k) || !isnan(v) : !same)
                    fail_msg("%s %zu [%d]: %g, %g, want %g", sets[i]->name, n, d, k, v, want);
            }
            world_close(&w);
        }
}

enum { FP8_D = 256, FP8_TOK = 16, FP8_N = FP8_D * FP8_TOK };
static const struct att_case fp8_case = {1, 1, FP8_D, 0, FP8_TOK, 0, 0, 0, 0, 0};

/* The nearest of the codes, the even one of two that are as near; by looking at all. */
static int fp8_code(float x) {
    int best = 0;
    double a = fmin(fabs((double)x), 448);
    if (isnan(x))
        return 0x7f;
    for (int c = 1; c < 0x7f; c++) {
        double more = fabs(fp8_value(c) - a) - fabs(fp8_value(best) - a);
        if (more < 0 || (more == 0 && c % 2 == 0))
            best = c;
    }
    return best | (signbit(x) ? 0x80 : 0);
}

/* Every number of fp8, what is in the middle of two, the floats beside those, and what fp8 has
 * no place for; then random ones of all sizes; of both signs. x [FP8_N] */
static void fp8_inputs(float *x) {
    static const float odd[] = {0,        NAN,        INFINITY, 448,      0x1.cp8f + 1,
                                464,      1e9f,       3.4e38f,  1e-40f,   0x1p-126f,
                                0x1p-10f, 0x1.8p-10f, 0x1p-6f,  0x1.fp-7f};
    int n = 0;
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        x[n++] = odd[i];
    for (int c = 0; c < 0x7e; c++) {
        float a = (float)fp8_value(c), middle = (a + (float)fp8_value(c + 1)) / 2;
        float some[] = {a, nextafterf(middle, 0), middle, nextafterf(middle, 1000)};
        for (int i = 0; i < 4; i++)
            x[n++] = some[i];
    }
    assert_true(n <= FP8_N / 4);
    for (; n < FP8_N / 2; n++)
        x[n] = ldexpf(1 + (float)(rand_u32() % 1000003) / 1000003, (int)(rand_u32() % 24) - 13);
    for (; n < FP8_N; n++)
        x[n] = -x[n - FP8_N / 2];
}

/* Codes [FP8_TOK, FP8_D] of what was stored in the case's keys, or values. */
static void fp8_codes(const struct world *w, bool keys, int *codes) {
    const unsigned char *base = (const unsigned char *)(keys ? w->kv.k : w->kv.v);
    for (int i = 0; i < FP8_N; i++) {
        int t = i / FP8_D, d = i % FP8_D;
        codes[i] = base[(size_t)w->blocks[0] * w->kv.stride +
                        (size_t)(keys ? d * 16 + t : t * FP8_D + d)];
    }
}

static void fp8_is_the_nearest_number(void **state) {
    (void)state;
    static float x[FP8_N];
    static int codes[FP8_N];
    fp8_inputs(x);
    for (int i = 0; i < FP8_N; i++)
        assert_int_equal(fp8_from_f32(x[i]) & (isnan(x[i]) ? 0x7f : 0xff), fp8_code(x[i]));
    for (int i = 0; i < n_device; i++) {
        struct world w;
        world_open(&w, device(i), &fp8_case, KV_FP8);
        size_t pitch = w.ldk;
        for (int j = 0; j < FP8_N; j++) {
            size_t at = (size_t)(j / FP8_D) * pitch + (size_t)(j % FP8_D);
            w.k[at] = x[j];
            w.v[at] = x[FP8_N - 1 - j];
        }
        write_case(&w);
        for (int keys = 0; keys < 2; keys++) {
            fp8_codes(&w, keys, codes);
            for (int j = 0; j < FP8_N; j++) {
                float from = x[keys ? j : FP8_N - 1 - j];
                int code = codes[j] & (isnan(from) ? 0x7f : 0xff);
                if (code != fp8_code(from))
                    fail_msg("%s: %a is %02x, want %02x", device_name(i), (double)from,
                             (unsigned)code, (unsigned)fp8_code(from));
            }
        }
        world_close(&w);
    }
}

/* A mean of equal values is that value (but for 2 FP8_TOK roundings of sums), so attention
 * reads all codes here; with a key that is NaN it is NaN. The kernels for one token and for
 * many, on a device; D of 250 in pieces of vectors and outside of tensor cores. */
static void fp8_is_read_as_what_it_is(void **state) {
    (void)state;
    for (int c = 0; c < 256; c++) {
        double have = (double)fp8_to_f32((uint8_t)c), want = fp8_value(c);
        assert_true(have == want ? signbit(have) == signbit(want) : isnan(have) && isnan(want));
    }
    for (int i = 0; i < 4 * n_device; i++) {
        struct att_case c = fp8_case;
        struct world w;
        c.D = i % 2 ? 250 : FP8_D;
        c.H = i / 2 % 2 ? 8 : 1; /* 128 rows, or 16 */
        world_open(&w, device(i / 4), &c, KV_FP8);
        float *out = w.be->alloc(w.be, (size_t)c.n_tok * w.ldq * sizeof *out);
        unsigned char *block = (unsigned char *)w.kv.v + (size_t)w.blocks[0] * w.kv.stride;
        for (int t = 0; t < 16; t++)
            for (int d = 0; d < c.D; d++)
                block[t * c.D + d] = (unsigned char)(d + 6);
        for (int bad = 0; bad < 2; bad++) {
            run(&w, 0, c.n_tok, out);
            for (int j = 0; j < c.n_tok * c.H * c.D; j++) {
                int t = j / (c.H * c.D), d = j % c.D;
                double want = bad && t >= 5 ? NAN : fp8_value((d + 6) % 256);
                double got = (double)out[(size_t)t * w.ldq + (size_t)(j % (c.H * c.D))];
                double most = fabs(want) * 2 * FP8_TOK * 0x1p-24;
                if (!(isnan(want) ? isnan(got) : fabs(got - want) <= most))
                    fail_msg("%s D %d H %d token %d [%d]: %g, want %g", device_name(i / 4), c.D,
                             c.H, t, d, got, want);
            }
            block = (unsigned char *)w.kv.k + (size_t)w.blocks[0] * w.kv.stride;
            block[3 * 16 + 5] = 0xff; /* of token 5 */
        }
        w.be->free(w.be, out);
        world_close(&w);
    }
}

int main(void) {
    setenv("LLMCHAT_SHIM_BLOCK_BYTES", "101376", 1); /* as small as any card's */
    n_set = cpu_kernel_sets(sets);
    n_device = n_set + cuda_is_here();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_its_definition),
        cmocka_unit_test(bits_do_not_depend_on_the_cut),
        cmocka_unit_test(keys_outside_the_window_are_not_used),
        cmocka_unit_test(cache_holds_what_was_stored),
        cmocka_unit_test(cache_equals_that_of_the_reference),
        cmocka_unit_test(odd_numbers_are_cached_alike),
        cmocka_unit_test(fp8_is_the_nearest_number),
        cmocka_unit_test(fp8_is_read_as_what_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
