/*
 * avx2_vnni.c - AVX2 with AVX-VNNI (Alder Lake and later without AVX-512, Zen 5): vpdpwssd adds
 * two int16 products to an int32 at once, vpmaddwd and vpaddd in one. The kernels without dot
 * products are those of avx2.c.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx2,fma,f16c,avxvnni")

#include "engine/cpu/avx2.h"
#define DOT_VNNI 1
#define MATMUL   avx2_vnni_matmul
#include "engine/cpu/avx2_int16.h"

const struct cpu_kernels cpu_avx2_vnni = {
    .name = "avx2",
    .kv = KV_F16,
    .block = 1,
    .block_bytes = cpu_row16_bytes,
    .quantize = avx2_quantize,
    .matmul = avx2_vnni_matmul,
    AVX2_ROWS,
    .att_chunk = avx2_att_chunk,
};
#endif
