/*
 * quant.h - the quantisers: rows of f32 in, the numbers of a weight format out.
 *
 * NF4 is that of QLoRA (Dettmers et al. 2023, arXiv:2305.14314) as bitsandbytes computes it on
 * a CPU: the results are bit-equal to its quantize_4bit(quant_type="nf4", blocksize=64,
 * compress_statistics=True) where K is a multiple of 64, codes, scale codes, second scales and
 * offset alike (tests/golden/quant), where PyTorch runs on one thread: it adds up more than
 * 32768 scales for their mean in an order that depends on its threads. A K that is none: the
 * last group of each row is filled up with zeros.
 *
 * Input is finite; the caller has checked (quant_finite()).
 */
#ifndef LLMCHAT_ENGINE_QUANT_QUANT_H
#define LLMCHAT_ENGINE_QUANT_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern const float nf4_table[16]; /* rising, -1 … 1; entry 7 is 0 */
/* bitsandbytes' FP4: a sign bit, then eight magnitudes in the order of its codes. */
extern const float fp4_table[16];
extern const float
    quant_code_map[256]; /* the signed 8-bit dynamic map (arXiv:1511.04561), rising */

bool quant_finite(const float *x, size_t n);

/* One group: codes [64] of x [64] and returns their absmax. code = number of midpoints between
 * neighbouring table values that are below x / absmax. */
float nf4_quantise_group(const float *x, uint8_t *codes);

/* Double quantisation of n absmax values in blocks of 256: offset = their mean; codes [n] of
 * (absmax - offset) / absmax2 in the dynamic map; absmax2 [ceil(n / 256)]. absmax is
 * overwritten. */
void quant_double(float *absmax, size_t n, uint8_t *codes, float *absmax2, float *offset);
/* The sum of x [n] in the order in which PyTorch's CPU kernel adds on one thread (it adds in
 * f32, so the order shows). */
float quant_torch_sum(const float *x, size_t n);

/* One group of 64: q = round(x / scale) to even, in -127..127; returns scale = absmax / 127 (0
 * for a group of zeros). */
float int8_quantise_group(const float *x, int8_t *q);

uint16_t bf16_from_f32(float f); /* nearest, ties to even; NaN stays NaN */
float bf16_to_f32(uint16_t h);
/* Nearest, ties to even; from 65520 on infinite, NaN stays NaN. Back: f16_to_f32(),
 * ggml_types.h. */
uint16_t f16_from_f32(float f);

#endif
