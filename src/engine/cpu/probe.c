/*
 * probe.c - what `doctor` tells about the processor.
 *
 * The name comes from /proc/cpuinfo where there is one; the features are those that choose
 * kernels, asked in the same way as detect.c asks them, so that the report can't promise what
 * is not used.
 */
#include "engine/cpu/cpu.h"
#include "engine/cpu/cores.h"
#include "engine/engine.h"
#include <stdio.h>
#include <string.h>

/* Appends the "model name" of the first processor, or the architecture. */
static void add_name(struct buf *out) {
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        line[strcspn(line, "\n")] = 0;
        buf_adds(out, colon + 1 + strspn(colon + 1, " \t"));
        break;
    }
    if (f)
        fclose(f);
#if defined(__x86_64__)
    buf_adds(out, out->len ? "" : "x86-64");
#else
    buf_adds(out, out->len ? "" : "unknown");
#endif
}

bool engine_cpu_features(struct buf *out) {
    add_name(out);
#if defined(__x86_64__)
    __builtin_cpu_init();
#define ADD(name)                                                                              \
    if (__builtin_cpu_supports(name))                                                          \
    buf_adds(out, ", " name)
    ADD("avx2");
    ADD("fma");
    ADD("f16c");
    ADD("avxvnni");
    ADD("avx512f");
    ADD("avx512bw");
    ADD("avx512vl");
    ADD("avx512dq");
    ADD("avx512vnni");
    ADD("avx512vbmi");
#undef ADD
#endif
    struct err err;
    const struct cpu_kernels *k;
    bool ok = cpu_choose(&k, &err) == ST_OK;
    if (ok)
        buf_addf(out, "; kernels %s", k->name);
    else
        buf_addf(out, "; %s", err.msg);
    return ok;
}

void engine_huge_pages(struct buf *out) {
    size_t bytes = cpu_huge_page_bytes();
    if (bytes)
        buf_addf(out, "of %zu kB for weights, where the system has them free", bytes / 1024);
    else
        buf_adds(out, "off (transparent_hugepage/enabled): weights are read more slowly");
}

int engine_usable_cores(void) {
    return cores_default();
}
