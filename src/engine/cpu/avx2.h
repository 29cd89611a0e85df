/*
 * avx2.h - what the AVX2 kernel files share: the products, and the kernels that need no VNNI.
 */
#ifndef LLMCHAT_ENGINE_CPU_AVX2_H
#define LLMCHAT_ENGINE_CPU_AVX2_H

#include "engine/cpu/cpu.h"

void avx2_quantize(const float *x, size_t ldx, int n, int K, bool sums, void *row);
void avx2_norm(enum norm_kind kind, const float *x, const float *g, const float *b, float eps,
               int K, float *y);
void avx2_rope(float *x, const float *c, const float *s, int n);
void avx2_act(enum act_kind kind, const float *g, const float *u, int n, float *y);
void avx2_cap(float cap, float *x, int n);
void avx2_axpby(float a, const float *x, float b, int n, float *y);
void avx2_kv_put(const struct kv_layer *kv, const float *k, const float *v, int slot,
                 void *dst_k, void *dst_v);
void avx2_att_chunk(const struct cpu_att *a, int row, int end, int key, int n, float *m,
                    float *l, float *o);
void avx2_matmul(const struct cpu_input *in, const struct weight *w, int tile, int n_tile,
                 float *y, size_t ldy, bool add, void *scratch);
void avx2_vnni_matmul(const struct cpu_input *in, const struct weight *w, int tile, int n_tile,
                      float *y, size_t ldy, bool add, void *scratch);
/* F32, BF16 and F16 weights */
void avx2_matmul_float(const struct cpu_input *in, const struct weight *w, int tile, int n_tile,
                       float *y, size_t ldy, bool add);

/* What goes row by row is the same in all of these sets. */
#define AVX2_ROWS                                                                              \
    .norm = avx2_norm, .rope = avx2_rope, .act = avx2_act, .cap = avx2_cap,                    \
    .axpby = avx2_axpby, .kv_put = avx2_kv_put, .kv_turn = avx2_kv_turn

#endif
