/*
 * cuda_device.h - the CUDA backend in tests: over the module that TEST_CUDA_MODULE names, which
 * is the host shim, or the real one on a machine with a GPU. Device memory is readable for the
 * test once the backend's finish() has returned.
 */
#ifndef LLMCHAT_TESTS_CUDA_DEVICE_H
#define LLMCHAT_TESTS_CUDA_DEVICE_H

#include "engine/cuda/cuda.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* With a sanitizer the shim takes several times as long: loops over kinds take fewer of them
 * there, and all without. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SLOWLY = 1 };
#else
enum { SLOWLY = 0 };
#endif

/* False: this build has no shim (no C++ compiler). */
static inline bool cuda_is_here(void) {
    const char *module = getenv("TEST_CUDA_MODULE");
    if (!module || !*module || access(module, R_OK) != 0)
        return false;
    setenv("LLMCHAT_CUDA_MODULE", module, 1);
    setenv("LLMCHAT_CUDA_MANAGED", "1", 1);
    return true;
}

/* Two devices, of the host shim or real ones. */
static inline bool two_devices_are_here(void) {
    struct backend *be = NULL;
    struct err err;
#if defined(__SANITIZE_THREAD__)
    return false; /* it does not know the shim's fibres */
#endif
    if (!cuda_is_here())
        return false;
    setenv("LLMCHAT_SHIM_DEVICES", "2", 1);
    if (cuda_backend_open(1, 1, &be, &err) != ST_OK)
        return false;
    be->close(be);
    return true;
}

/* NULL: no backend, and why is printed. */
static inline struct backend *cuda_open(void) {
    struct backend *be = NULL;
    struct err err = {0};
    if (cuda_backend_open(0, 1, &be, &err) != ST_OK)
        fprintf(stderr, "%s\n", err.msg);
    return be;
}

/* A function of the shim (tests/shim/shim.h), or NULL: it is a real device. */
static inline void *shim_function(const char *name) {
    void *so = dlopen(getenv("LLMCHAT_CUDA_MODULE"), RTLD_NOW | RTLD_LOCAL);
    return so ? dlsym(so, name) : NULL;
}

/* And NCCL, or over the shim its stand-in. */
static inline bool nccl_is_here(void) {
    const char *path = getenv("TEST_NCCL");
    if (!two_devices_are_here())
        return false;
    if (!shim_function("shim_replays"))
        return true;
    if (!path || access(path, R_OK) != 0)
        return false;
    setenv("LLMCHAT_NCCL", path, 1);
    return true;
}

#endif
