/*
 * weight_kinds.h - every kind of weight that a product may meet, with random numbers: a type, a
 * table, a group size, with or without minimums.
 */
#ifndef LLMCHAT_TESTS_WEIGHT_KINDS_H
#define LLMCHAT_TESTS_WEIGHT_KINDS_H

#include "base/mem.h"
#include "engine/quant/pack.h"
#include "engine/quant/quant.h"
#include "rand.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const float from_zero[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static const float q4_0[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
static const float iq4_nl[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                 1,    13,   25,  38,  53,  69,  89,  113};
static const float mxfp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
static const float uneven[16] = {-1.7f, 0.3f,  0.001f, 5.25f, -3.1f, 0.7f,  2.2f, -0.9f,
                                 4.4f,  -2.6f, 1.1f,   0,     3.3f,  -4.8f, 0.2f, 1.9f};

enum how { PACKED, BY_SCALE, BY_CODE };
struct kind {
    const char *name;
    enum weight_type type;
    enum how how;
    int group;
    bool min;
    const float *table;
    double half_step; /* of the table */
};

#define EACH_GROUP(name, type, table, half_step)                                               \
    {name " 64", type, BY_SCALE, 64, false, table, half_step},                                 \
        {name " 64 min", type, BY_SCALE, 64, true, table, half_step},                          \
        {name " 32", type, BY_SCALE, 32, false, table, half_step},                             \
        {name " 32 min", type, BY_SCALE, 32, true, table, half_step},                          \
        {name " 16", type, BY_SCALE, 16, false, table, half_step}, {                           \
        name " 16 min", type, BY_SCALE, 16, true, table, half_step                             \
    }

static const struct kind kinds[] = {
    {"f32", WEIGHT_F32, PACKED, 64, false, NULL, 0},
    {"bf16", WEIGHT_BF16, PACKED, 64, false, NULL, 0},
    {"f16", WEIGHT_F16, PACKED, 64, false, NULL, 0},
    {"int8", WEIGHT_I8, PACKED, 64, false, NULL, 0},
    {"nf4", WEIGHT_Q4, PACKED, 64, false, nf4_table, 1 / 8190.0},
    {"fp4 code", WEIGHT_Q4, BY_CODE, 64, false, fp4_table, 0},
    EACH_GROUP("i8", WEIGHT_I8, NULL, 0),
    EACH_GROUP("0..15", WEIGHT_Q4, from_zero, 0),
    EACH_GROUP("nf4 scale", WEIGHT_Q4, nf4_table, 1 / 8190.0),
    {"q4_0 32", WEIGHT_Q4, BY_SCALE, 32, false, q4_0, 0},
    {"iq4_nl 32", WEIGHT_Q4, BY_SCALE, 32, false, iq4_nl, 0},
    {"mxfp4 32", WEIGHT_Q4, BY_SCALE, 32, false, mxfp4, 0},
    {"fp4 64", WEIGHT_Q4, BY_SCALE, 64, false, fp4_table, 0},
    {"uneven 16 min", WEIGHT_Q4, BY_SCALE, 16, true, uneven, 5.25 / 8190},
};
enum { N_KIND = sizeof kinds / sizeof *kinds };

/* Random codes, scales and minimums. The codes of padding inputs are random too, as a file may
 * have them; a group that is all padding has scale and minimum 0. */
static void codes_make(struct weight *w, const struct kind *kind, int N, int K) {
    size_t Kp = (size_t)weight_pad_k(K), G = Kp / (size_t)kind->group, n = (size_t)N * G;
    uint8_t *code = xcalloc((size_t)N, Kp);
    float *scale = xcalloc(n, sizeof *scale), *min = xcalloc(n, sizeof *min);
    for (size_t i = 0; i < (size_t)N * Kp; i++)
        code[i] = (uint8_t)(kind->type == WEIGHT_Q4 ? rand_u32() & 15 : rand_u32() & 255);
    for (size_t i = 0; i < n; i++)
        if ((int)(i % G) * kind->group < K) {
            scale[i] = rand_normal() * 0.01f;
            min[i] = rand_normal() * 0.05f;
        }
    weight_pack_codes(w, kind->type, N, (int)Kp, kind->group, code, scale,
                      kind->min ? min : NULL, kind->table);
    w->K = K;
    free(code);
    free(scale);
    free(min);
}

static void weight_make(struct weight *w, const struct kind *kind, int N, int K) {
    if (kind->how == BY_SCALE) {
        codes_make(w, kind, N, K);
        return;
    }
    float *x = xcalloc((size_t)N * (size_t)K, sizeof *x);
    rand_fill(x, (size_t)N * (size_t)K, 0.1f);
    weight_pack(w, kind->type, x, N, K);
    if (kind->how == BY_CODE)
        memcpy(w->table, kind->table, sizeof w->table);
    free(x);
}

#endif
