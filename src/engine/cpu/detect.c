/*
 * detect.c - which kernel sets this CPU can run, and which one is used.
 *
 * __builtin_cpu_supports() reads cpuid once and asks xgetbv whether the operating system keeps
 * the wide registers, so a CPU with AVX-512 under a kernel without it counts as AVX2.
 */
#include "engine/cpu/cpu.h"
#include <stdlib.h>
#include <string.h>

int cpu_kernel_sets(const struct cpu_kernels *out[8]) {
    int n = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("fma");
    bool vbmi =
        avx512 && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
    if (vbmi && __builtin_cpu_supports("avx512bf16"))
        out[n++] = &cpu_avx512_bf16;
    if (vbmi)
        out[n++] = &cpu_avx512_vbmi;
    if (avx512 && __builtin_cpu_supports("avx512vnni"))
        out[n++] = &cpu_avx512_vnni;
    if (avx512)
        out[n++] = &cpu_avx512;
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                __builtin_cpu_supports("f16c");
    if (avx2 && __builtin_cpu_supports("avxvnni"))
        out[n++] = &cpu_avx2_vnni;
    if (avx2)
        out[n++] = &cpu_avx2;
#endif
    out[n++] = &cpu_scalar;
    return n;
}

enum status cpu_choose(const struct cpu_kernels **out, struct err *err) {
    const struct cpu_kernels *sets[8];
    const char *want = getenv("LLMCHAT_CPU");
    int n = cpu_kernel_sets(sets);
    *out = sets[0];
    if (!want || !*want)
        return ST_OK;
    for (int i = 0; i < n; i++)
        if (strcmp(sets[i]->name, want) == 0) {
            *out = sets[i];
            return ST_OK;
        }
    bool known = strcmp(want, "avx2") == 0 || strcmp(want, "avx512") == 0;
    if (!known)
        return err_set(err, ST_UNSUPPORTED,
                       "LLMCHAT_CPU is \"%s\"; it can be scalar, avx2 or avx512", want);
    return err_set(err, ST_UNSUPPORTED,
                   "LLMCHAT_CPU asks for %s, which this CPU lacks; the best it has is %s", want,
                   sets[0]->name);
}
