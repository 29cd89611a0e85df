/*
 * module.c - finds and opens llmchat-cuda.so, the kernels and what they are linked to.
 *
 * The program itself knows nothing of CUDA, so one package runs on machines with and without
 * it. The module is never closed: cudart keeps threads of its own. It is opened when an engine
 * is, or by the doctor: a driver takes a tenth of a second and more to start.
 *
 * A wrong module can't be told from a right one before its code runs; it comes from the
 * installation, or from whoever sets this process's environment.
 */
#include "engine/cuda/cuda.h"

#include "base/path.h"
#include "engine/cuda/gpu.h"
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODULE   "llmchat-cuda.so"
#define DOOR     "llmchat_gpu_open"
#define UNUSABLE "the GPU can't be used: "

/* DIR/relative of the program's own folder. The caller frees; NULL: not known. */
static char *beside_program(const char *relative) {
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    char *slash = n > 0 ? (exe[n] = 0, strrchr(exe, '/')) : NULL;
    if (!slash)
        return NULL;
    *slash = 0;
    return path_join(exe, relative);
}

/* The first module that is there, or where it would have been installed. */
static char *find(bool *there) {
    static const char *const beside[] = {"../lib/llmchat/" MODULE, MODULE};
    char *p = path_join(PKGLIBDIR, MODULE);
    *there = access(p, R_OK) == 0;
    for (size_t i = 0; !*there && i < sizeof beside / sizeof *beside; i++) {
        char *other = beside_program(beside[i]);
        if (other && access(other, R_OK) == 0) {
            free(p);
            p = other;
            *there = true;
        } else {
            free(other);
        }
    }
    return p;
}

/* Opening the module maps the whole of cuBLAS; without a driver that would be for nothing. */
static bool driver_there(void) {
    void *so = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (so)
        dlclose(so);
    return so != NULL;
}

static enum status open_module(const char *path, int index, struct gpu **out, struct err *err) {
    struct gpu *(*door)(int version, int index, char *error, bool *none) = NULL;
    char why[256] = "";
    bool none = false;
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *symbol = so ? dlsym(so, DOOR) : NULL;
    if (!so && access(path, R_OK) != 0)
        return err_set(err, ST_NOT_FOUND, "no GPU: the CUDA module can't be opened: %s",
                       dlerror());
    if (!so)
        return err_set(err, ST_DEVICE, UNUSABLE "the CUDA module can't be opened: %s",
                       dlerror());
    if (!symbol)
        return err_set(err, ST_DEVICE, UNUSABLE "%s is no CUDA module of llmchat", path);
    memcpy(&door, &symbol, sizeof door);
    *out = door(GPU_VERSION, index, why, &none);
    if (*out)
        return ST_OK;
    return err_set(err, none ? ST_NOT_FOUND : ST_DEVICE,
                   index > 0 ? "%s"
                   : none    ? "no GPU: %s"
                             : UNUSABLE "%s",
                   why);
}

enum status cuda_module_open(int index, struct gpu **out, struct err *err) {
    const char *told = getenv("LLMCHAT_CUDA_MODULE");
    bool there;
    if (told && *told)
        return open_module(told, index, out, err);
    char *path = find(&there);
    enum status st =
        !there            ? err_set(err, ST_NOT_FOUND,
                                    "no GPU: this build has no CUDA module (%s): build it where nvcc is",
                                    path)
        : !driver_there() ? err_set(err, ST_NOT_FOUND,
                                    "no GPU: NVIDIA's driver is not installed (libcuda.so.1)")
                          : open_module(path, index, out, err);
    free(path);
    return st;
}
