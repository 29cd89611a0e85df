/*
 * avx2.c - AVX2 with FMA and F16C: the table of the set, and quantising activations. Products
 * with weights are in avx2_matmul.c, rows in avx2_rows.c, attention in avx2_att.c.
 *
 * Rows end with masked loads and stores.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx2,fma,f16c")

#include "engine/cpu/avx2.h"
#include "engine/cpu/avx2_inline.h"

void avx2_quantize(const float *x, size_t ldx, int n, int K, bool sums, void *row) {
    (void)ldx;
    (void)n; /* one row is a block */
    const __m256 no_sign = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    const int Kp = weight_pad_k(K);
    const struct row16 to = cpu_row16(row, Kp);
    for (int k = 0; k < Kp; k += 64) {
        __m256 v[8];
        __m256i top = _mm256_setzero_si256(); /* as integers NaN is larger than all */
        for (int i = 0; i < 8; i++) {
            int left = K - k - i * 8;
            v[i] = left > 0 ? _mm256_maskload_ps(x + k + i * 8, first8(left))
                            : _mm256_setzero_ps();
            top = _mm256_max_epi32(top, _mm256_castps_si256(_mm256_and_ps(v[i], no_sign)));
        }
        float absmax = largest8(top);
        __m256 inv = _mm256_set1_ps(absmax > 1e-30f ? X_STEPS / absmax : 0);
        for (int i = 0; i < 8; i += 2) { /* packing works within 128 bits: quarters 0 2 1 3 */
            __m256i r0 = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inv));
            __m256i r1 = _mm256_cvtps_epi32(_mm256_mul_ps(v[i + 1], inv));
            __m256i r = _mm256_permute4x64_epi64(_mm256_packs_epi32(r0, r1), 0xd8);
            _mm256_storeu_si256((__m256i *)(to.q + k + i * 8), r);
        }
        to.scale[k / 64] = absmax / X_STEPS;
    }
    if (sums)
        cpu_row16_sums(to, Kp);
}

const struct cpu_kernels cpu_avx2 = {
    .name = "avx2",
    .kv = KV_F16,
    .block = 1,
    .block_bytes = cpu_row16_bytes,
    .quantize = avx2_quantize,
    .matmul = avx2_matmul,
    AVX2_ROWS,
    .att_chunk = avx2_att_chunk,
};
#endif
