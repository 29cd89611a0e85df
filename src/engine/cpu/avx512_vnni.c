/*
 * avx512_vnni.c - AVX-512 with VNNI (Ice Lake, Zen 4 and later): vpdpwssd adds two int16
 * products to an int32 at once. The kernels without dot products are those of avx512.c.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512cd,avx512vnni,fma,f16c")

#define DOT_VNNI 1
#define MATMUL   vnni_matmul
#include "engine/cpu/avx512_int16.h"

const struct cpu_kernels cpu_avx512_vnni = {
    .name = "avx512",
    .kv = KV_F16,
    .block = 1,
    .block_bytes = cpu_row16_bytes,
    .quantize = avx512_quantize,
    .matmul = vnni_matmul,
    AVX512_ROWS,
    .att_chunk = avx512_att_chunk,
};
#endif
