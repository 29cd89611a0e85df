/*
 * avx2.h - what the AVX2 kernel files share: masks for the ends of rows, exp, and the parts of
 * the kernel set.
 */
#ifndef LLMCHAT_ENGINE_CPU_AVX2_H
#define LLMCHAT_ENGINE_CPU_AVX2_H

#include "engine/cpu/cpu.h"

void avx2_matmul(const struct cpu_input *in, const struct weight *w, int tile, int n_tile,
                 float *y, size_t ldy, bool add, void *scratch);
void avx2_att_chunk(const struct cpu_att *a, int row, int key, int n, float *m, float *l,
                    float *o);

#endif
