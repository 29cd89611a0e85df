/*
 * product.c - which kernels multiply, by tokens and types.
 *
 * Few tokens read the weights as fast as memory gives them: q4gemv.cu where it can,
 * else gemv.cu up to four. Some more are multiplied on tensor cores from the quantised weights
 * (q4gemm.cu, gemm.cu), and for many a slice of the weight is unpacked to 16 bits and cuBLAS
 * multiplies. f32 weights are for exact answers and always take gemv.cu. Many tokens meet int8
 * weights with one scale a row in int8 (w8a8.cu); with fewer bytes read are what counts, and
 * bf16 loses less. What is many is measured (crossover.h), or GPU_GEMM_TOK. Steps in which
 * cuBLAS has a part are not recorded: in a recording it would take memory of its own.
 */
#include "engine/cuda/cuda_internal.h"

#include "base/log.h"
#include "base/mem.h"
#include <assert.h>
#include <stdlib.h>

enum {
    MOST_ROWS = 65520,       /* that are unpacked at once: a grid's limit */
    TRIAL_LEAST = 1 << 20,   /* numbers of a weight that products are timed with, */
    TRIAL_OUTPUTS = 1 << 15, /* and its outputs at most: wider ones are vocabularies */
};

/* x in 16 bits, made once for all outputs of a call. */
struct input {
    const float *x;
    int T, K;
    bool made[2], quantised;
};

static const uint16_t *input_16(struct cuda *c, struct input *in, bool f16) {
    if (!in->made[f16])
        c->g->to_16(c->g, in->x, in->T, in->K, f16, c->xb[f16]);
    in->made[f16] = true;
    return c->xb[f16];
}

/* x in digits: laid out for its own T and K, so that each product's tokens lie together. */
static struct gpu_digits input_digits(struct cuda *c, struct input *in) {
    struct gpu_digits d = c->digits;
    assert(c->lim.row_scaled);
    d.T8 = (in->T + 7) / 8 * 8;
    if (!in->quantised)
        c->g->quantise(c->g, in->x, in->T, in->K, d);
    in->quantised = true;
    return d;
}

/* Many tokens: as many rows as the workspace holds are unpacked and multiplied. */
static void by_slices(struct cuda *c, struct input *in, const struct matmul_out *o, bool add) {
    struct gpu *g = c->g;
    const struct weight *w = o->w;
    bool f16 = w->type == WEIGHT_F16;
    const uint16_t *xb = input_16(c, in, f16);
    int most = (int)(CUDA_WORK_BYTES / sizeof(uint16_t) / (size_t)w->Kp) / 16 * 16;
    most = most < 16 ? 16 : most > MOST_ROWS ? MOST_ROWS : most;
    for (int n = 0; n < w->N; n += most) {
        int part = w->N - n < most ? w->N - n : most;
        g->unpack(g, w, n, (part + 15) / 16 * 16, c->work);
        g->blas(g, xb, c->work, f16, in->T, part, w->Kp, o->y + n, o->ldy, add);
    }
    if (o->bias)
        g->bias(g, o->bias, in->T, w->N, o->y, o->ldy);
}

/* In one launch from 4-bit weights; false: others have to. */
static bool few_products(struct cuda *c, const struct gpu_input *in,
                         const struct matmul_out *out, int n_out, bool add) {
    if (c->g->q4gemv(c->g, in, out, n_out, add))
        return true;
    for (int i = 0; i < n_out; i++)
        if (out[i].w->type != WEIGHT_Q4 ||
            in->T > crossover_tok(&c->cross, crossover_kind(out[i].w)))
            return false;
    return c->g->q4gemm(c->g, in, c->q4, out, n_out, add);
}

/* The input goes to xn, normalised. */
static void normalise(struct cuda *c, struct gpu_input *in, float *xn) {
    c->g->norm(c->g, in->norm, in->x, in->T, xn);
    *in = (struct gpu_input){xn, in->T, in->K, NULL};
}

/* xn: where the input is normalised if no kernel does that on the way. */
static void multiply(struct cuda *c, struct gpu_input in, float *xn,
                     const struct matmul_out *out, int n_out, bool add) {
    struct gpu *g = c->g;
    if (in.T == 0 || few_products(c, &in, out, n_out, add))
        return;
    if (in.norm) {
        normalise(c, &in, xn);
        multiply(c, in, NULL, out, n_out, add);
        return;
    }
    struct input made = {.x = in.x, .T = in.T, .K = in.K};
    for (int i = 0; i < n_out; i++) {
        const struct matmul_out *o = &out[i];
        bool exact = o->w->type == WEIGHT_F32;
        bool many = !exact && in.T > crossover_tok(&c->cross, crossover_kind(o->w));
        assert(o->w->K == in.K && in.T <= c->lim.max_tok && in.K <= c->lim.max_k);
        if (many && o->w->row_scaled)
            g->w8a8(g, input_digits(c, &made), in.T, o, add);
        else if (many)
            by_slices(c, &made, o, add);
        else if (!exact && in.T > GPU_GEMV_TOK)
            g->gemm(g, input_16(c, &made, o->w->type == WEIGHT_F16), in.T, o, add);
        else
            for (int t = 0; t < in.T; t += GPU_GEMV_TOK) {
                struct matmul_out part = *o;
                int n = in.T - t < GPU_GEMV_TOK ? in.T - t : GPU_GEMV_TOK;
                part.y += (size_t)t * o->ldy;
                g->gemv(g, in.x + (size_t)t * (size_t)weight_pad_k(in.K), n, &part, add);
            }
    }
}

void product_matmul(struct backend *be, const float *x, int T, int K,
                    const struct matmul_out *out, int n_out) {
    multiply(cuda_of(be), (struct gpu_input){x, T, K, NULL}, NULL, out, n_out, false);
}

void product_norm_matmul(struct backend *be, const struct norm_op *n, const float *x, int T,
                         int K, float *xn, const struct matmul_out *out, int n_out) {
    multiply(cuda_of(be), (struct gpu_input){x, T, K, n}, xn, out, n_out, false);
}

void product_matmul_add(struct backend *be, const float *x, int T, int K,
                        const struct matmul_out *out) {
    multiply(cuda_of(be), (struct gpu_input){x, T, K, NULL}, NULL, out, 1, true);
}

static void feed_forward(struct cuda *c, struct gpu_input in, float *xn, enum act_kind kind,
                         const struct linear *gate, const struct linear *up, float *y) {
    struct gpu *g = c->g;
    size_t ld = (size_t)weight_pad_k(up->w.N);
    struct matmul_out out[] = {{&up->w, gate ? c->rows : y, ld, up->bias},
                               {gate ? &gate->w : NULL, y, ld, gate ? gate->bias : NULL}};
    const struct matmul_out fused = {&up->w, y, ld, up->bias};
    int n_out = gate ? 2 : 1;
    if (in.T == 0 || (gate && g->q4ffn(g, kind, &in, &fused, &out[1])))
        return;
    if (in.norm && !few_products(c, &in, out, n_out, false)) {
        normalise(c, &in, xn);
        feed_forward(c, in, NULL, kind, gate, up, y);
        return;
    }
    if (!in.norm)
        multiply(c, in, NULL, out, n_out, false);
    g->act(g, kind, y, gate ? c->rows : NULL, in.T, up->w.N, y);
}

void product_ffn(struct backend *be, enum act_kind kind, const float *x, int T, int K,
                 const struct linear *gate, const struct linear *up, float *y) {
    feed_forward(cuda_of(be), (struct gpu_input){x, T, K, NULL}, NULL, kind, gate, up, y);
}

void product_norm_ffn(struct backend *be, const struct norm_op *n, enum act_kind kind,
                      const float *x, int T, int K, float *xn, const struct linear *gate,
                      const struct linear *up, float *y) {
    feed_forward(cuda_of(be), (struct gpu_input){x, T, K, n}, xn, kind, gate, up, y);
}

/* ---- crossovers ---- */

/* Of each kind there is one to time products with. */
void product_note(struct cuda *c, const struct weight *w) {
    if (w->type == WEIGHT_F32)
        return;
    enum crossover_kind kind = crossover_kind(w);
    struct weight *trial = &c->trial[kind];
    bool fits = w->N <= TRIAL_OUTPUTS && (size_t)w->N * (size_t)w->K >= TRIAL_LEAST;
    c->bound[kind] = true;
    if (fits && trial->N == 0)
        *trial = *w;
}

/* Whether a product of so many tokens may be cuBLAS's. */
bool product_needs_blas(const struct cuda *c, int T) {
    for (int i = 0; i < CROSSOVER_KINDS; i++)
        if (c->bound[i] && i != CROSSOVER_I8_ROWS &&
            T > crossover_tok(&c->cross, (enum crossover_kind)i))
            return true;
    return false;
}

/* A product with the kind's weight. */
struct trial {
    struct cuda *c;
    enum crossover_kind kind;
    float *x, *y; /* [GPU_GEMM_TOK, Kp], [GPU_GEMM_TOK, Np] */
};

/* In a step other weights were read since this one was: so the caches have something else, as
 * far as the workspace is larger than they are. */
static void spoil_caches(void *user) {
    struct cuda *c = ((struct trial *)user)->c;
    c->g->zero(c->g, c->work, CUDA_WORK_BYTES);
}

static void try_product(void *user, int T, bool fused) {
    struct trial *t = user;
    const struct weight *w = &t->c->trial[t->kind];
    const struct matmul_out o = {w, t->y, (size_t)w->Np, NULL};
    t->c->cross.tok[t->kind] = fused ? GPU_GEMM_TOK : GPU_GEMV_TOK;
    multiply(t->c, (struct gpu_input){t->x, T, w->K, NULL}, NULL, &o, 1, false);
}

/* Numbers between -1 and 1, and in a column of each 1024 larger ones, as models have. */
static void fill_trial(struct cuda *c, float *x, int K) {
    size_t ld = (size_t)weight_pad_k(K), bytes = GPU_GEMM_TOK * ld * sizeof *x;
    float *host = xcalloc(GPU_GEMM_TOK * ld, sizeof *host);
    uint32_t r = 1;
    for (size_t t = 0; t < GPU_GEMM_TOK; t++)
        for (size_t k = 0; k < (size_t)K; k++) {
            r = r * 1664525 + 1013904223;
            float v = (float)(r >> 8) * 0x1p-23f - 1;
            host[t * ld + k] = k % 1024 == 5 ? 16 * v : v;
        }
    cuda_upload(&c->be, x, host, bytes);
    free(host);
}

/* 0: it can't be measured here. */
static int measure(struct cuda *c, enum crossover_kind kind) {
    struct gpu *g = c->g;
    const struct weight *w = &c->trial[kind];
    size_t x_bytes = GPU_GEMM_TOK * (size_t)w->Kp * sizeof(float);
    size_t y_bytes = GPU_GEMM_TOK * (size_t)w->Np * sizeof(float);
    int tok = 0;
    if (w->N == 0 || w->K > c->lim.max_k || c->lim.max_tok < GPU_GEMM_TOK)
        return 0;
    struct trial t = {c, kind, g->alloc(g, x_bytes), g->alloc(g, y_bytes)};
    if (t.x && t.y) {
        fill_trial(c, t.x, w->K);
        tok = crossover_measure(g, &(struct crossover_trial){spoil_caches, try_product, &t});
    }
    g->sync(g);
    g->free(g, t.x);
    g->free(g, t.y);
    return tok;
}

enum status cuda_learn_crossovers(struct backend *be, const char *file, struct err *err) {
    struct cuda *c = cuda_of(be);
    struct err why = {0};
    int n = 0;
    crossover_read(file, &c->g->info, &c->cross);
    for (int i = 0; i < CROSSOVER_KINDS; i++)
        if (c->cross.tok[i] == 0) {
            c->cross.tok[i] = measure(c, (enum crossover_kind)i);
            n += c->cross.tok[i] != 0;
        }
    if (c->g->failed)
        return cuda_failure(c->g, err);
    if (n && crossover_write(file, &c->g->info, &c->cross, &why) != ST_OK)
        log_warn("borders between the GPU's kernels will be measured again: %s", why.msg);
    return ST_OK;
}
