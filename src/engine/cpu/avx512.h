/*
 * avx512.h - what the two AVX-512 kernel sets share: the kernels that need no VNNI.
 */
#ifndef LLMCHAT_ENGINE_CPU_AVX512_H
#define LLMCHAT_ENGINE_CPU_AVX512_H

#include "engine/cpu/cpu.h"

void avx512_quantize(const float *x, size_t ldx, int n, int K, bool sums, void *row);
void avx512_norm(enum norm_kind kind, const float *x, const float *g, const float *b, float eps,
                 int K, float *y);
void avx512_rope(float *x, const float *c, const float *s, int n);
void avx512_act(enum act_kind kind, const float *g, const float *u, int n, float *y);
void avx512_cap(float cap, float *x, int n);
void avx512_axpby(float a, const float *x, float b, int n, float *y);
void avx512_kv_put(const struct kv_layer *kv, const float *k, const float *v, int slot,
                   void *dst_k, void *dst_v);
void avx512_att_chunk(const struct cpu_att *a, int row, int end, int key, int n, float *m,
                      float *l, float *o);
/* avx512_vbmi.c */
enum { VBMI_BLOCK = 16 };
size_t vbmi_block_bytes(int Kp);
void vbmi_quantize(const float *x, size_t ldx, int n, int K, bool sums, void *to);
void vbmi_matmul(const struct cpu_input *in, const struct weight *w, int tile, int n_tile,
                 float *y, size_t ldy, bool add, void *scratch);
/* F32, BF16 and F16 weights */
void avx512_matmul_float(const struct cpu_input *in, const struct weight *w, int tile,
                         int n_tile, float *y, size_t ldy, bool add);

/* What goes row by row is the same in all of these sets. */
#define AVX512_ROWS                                                                            \
    .norm = avx512_norm, .rope = avx512_rope, .act = avx512_act, .cap = avx512_cap,            \
    .axpby = avx512_axpby, .kv_put = avx512_kv_put, .kv_turn = avx2_kv_turn

#endif
