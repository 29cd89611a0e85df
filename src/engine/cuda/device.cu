/*
 * device.cu - a CUDA device behind struct gpu: cudart and cuBLAS, and the module's door.
 *
 * Every call is checked; the first that fails is kept with what it was for. A kernel's fault
 * shows at some later call, and everything after it fails too: the device is lost to this
 * process until the program ends, which is why the interface offers the CPU then.
 *
 * LLMCHAT_CUDA_MANAGED=1 makes all device memory readable for the host once the stream is
 * synchronised: for tests, which look at what kernels wrote.
 *
 * cuBLAS gets f32 sums and no reduced-precision shortcuts; its workspace is its own.
 */
#include "engine/cuda/dev.h"

#include <cublas_v2.h>
#include <stdio.h>
#include <stdlib.h>

enum { OLDEST = 80 }; /* compute capability x 10 */

namespace {

struct cuda_device {
    struct gpu gpu;
    cudaStream_t stream;
    cublasHandle_t blas;
    cudaEvent_t mark[2];
    bool managed;
    char kernels[16];
};

cuda_device *device_of(struct gpu *g) {
    return (cuda_device *)(void *)g;
}

void fail(struct gpu *g, const char *what, const char *why) {
    if (g->failed)
        return;
    g->failed = true;
    snprintf(g->error, sizeof g->error, "%s: %s", what, why);
}

void check_blas(struct gpu *g, cublasStatus_t s, const char *what) {
    if (s == CUBLAS_STATUS_SUCCESS)
        return;
    fail(g, what, cublasGetStatusString(s));
}

void *dev_alloc(struct gpu *g, size_t bytes) {
    void *p = nullptr;
    cudaError_t e = device_of(g)->managed ? cudaMallocManaged(&p, bytes ? bytes : 1)
                                          : cudaMalloc(&p, bytes ? bytes : 1);
    if (e == cudaErrorMemoryAllocation)
        (void)cudaGetLastError(); /* no failure: the caller has others to ask */
    else
        gpu_check(g, e, "cudaMalloc");
    return e == cudaSuccess ? p : nullptr;
}

void dev_free(struct gpu *g, void *p) {
    if (p)
        gpu_check(g, cudaFree(p), "cudaFree");
}

size_t room(struct gpu *g) {
    size_t free_bytes = 0, total = 0;
    gpu_check(g, cudaMemGetInfo(&free_bytes, &total), "cudaMemGetInfo");
    return free_bytes;
}

void *alloc_pinned(struct gpu *g, size_t bytes) {
    void *p = nullptr;
    cudaError_t e = cudaHostAlloc(&p, bytes ? bytes : 1, cudaHostAllocPortable);
    if (e == cudaErrorMemoryAllocation)
        (void)cudaGetLastError();
    else
        gpu_check(g, e, "cudaHostAlloc");
    return e == cudaSuccess ? p : nullptr;
}

void free_pinned(struct gpu *g, void *p) {
    if (p)
        gpu_check(g, cudaFreeHost(p), "cudaFreeHost");
}

void move(struct gpu *g, void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
          const char *what) {
    g->copied = true;
    if (!g->failed)
        gpu_check(g, cudaMemcpyAsync(dst, src, bytes, kind, device_of(g)->stream), what);
}

void upload(struct gpu *g, void *dev, const void *pinned, size_t bytes) {
    move(g, dev, pinned, bytes, cudaMemcpyHostToDevice, "copy to the device");
}

void download(struct gpu *g, void *pinned, const void *dev, size_t bytes) {
    move(g, pinned, dev, bytes, cudaMemcpyDeviceToHost, "copy from the device");
}

void copy(struct gpu *g, void *dst, const void *src, size_t bytes) {
    move(g, dst, src, bytes, cudaMemcpyDeviceToDevice, "copy on the device");
}

void zero(struct gpu *g, void *p, size_t bytes) {
    g->copied = true;
    if (!g->failed)
        gpu_check(g, cudaMemsetAsync(p, 0, bytes, device_of(g)->stream), "memset");
}

void sync(struct gpu *g) {
    if (!g->failed)
        gpu_check(g, cudaStreamSynchronize(device_of(g)->stream), "a kernel");
}

void mark(struct gpu *g, int end) {
    cuda_device *d = device_of(g);
    if (!g->failed)
        gpu_check(g, cudaEventRecord(d->mark[end], d->stream), "an event");
}

double between_us(struct gpu *g) {
    cuda_device *d = device_of(g);
    float ms = 0;
    if (!g->failed)
        gpu_check(g, cudaEventSynchronize(d->mark[1]), "a kernel");
    if (!g->failed)
        gpu_check(g, cudaEventElapsedTime(&ms, d->mark[0], d->mark[1]), "an event");
    return (double)ms * 1000;
}

void record(struct gpu *g) {
    if (!g->failed)
        gpu_check(
            g, cudaStreamBeginCapture(device_of(g)->stream, cudaStreamCaptureModeThreadLocal),
            "recording a step");
}

void *recorded(struct gpu *g) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    /* also after a failure: the stream must leave its mode */
    cudaError_t e = cudaStreamEndCapture(device_of(g)->stream, &graph);
    gpu_check(g, e, "a recorded step");
    if (!g->failed)
        gpu_check(g, cudaGraphInstantiate(&exec, graph, 0), "a recorded step");
    if (graph)
        cudaGraphDestroy(graph);
    return g->failed ? nullptr : exec;
}

void replay(struct gpu *g, void *recording) {
    g->copied = true;
    if (!g->failed)
        gpu_check(g, cudaGraphLaunch((cudaGraphExec_t)recording, device_of(g)->stream),
                  "running a recorded step");
}

void free_recording(struct gpu *, void *recording) {
    if (recording)
        cudaGraphExecDestroy((cudaGraphExec_t)recording);
}

/* In cuBLAS's column order: y^T [n, T] = wb^T^T xb^T. */
void blas(struct gpu *g, const uint16_t *xb, const uint16_t *wb, bool f16, int T, int n, int Kp,
          float *y, size_t ldy, bool add) {
    cudaDataType_t type = f16 ? CUDA_R_16F : CUDA_R_16BF;
    const float one = 1, beta = add ? 1 : 0;
    if (!g->failed)
        check_blas(g,
                   cublasGemmEx(device_of(g)->blas, CUBLAS_OP_T, CUBLAS_OP_N, n, T, Kp, &one,
                                wb, type, Kp, xb, type, Kp, &beta, y, CUDA_R_32F, (int)ldy,
                                CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                   "cublasGemmEx");
}

void dev_close(struct gpu *g) {
    cuda_device *d = device_of(g);
    if (d->blas)
        cublasDestroy(d->blas);
    for (cudaEvent_t e : d->mark)
        if (e)
            cudaEventDestroy(e);
    if (d->stream)
        cudaStreamDestroy(d->stream);
    delete d;
}

/* False: error says why the device can't be used. */
bool look_at(struct gpu *g, int index) {
    cudaDeviceProp p;
    gpu_check(g, cudaSetDevice(index), "cudaSetDevice");
    gpu_check(g, cudaGetDeviceProperties(&p, index), "cudaGetDeviceProperties");
    gpu_check(g, cudaDeviceGetPCIBusId(g->info.pci, sizeof g->info.pci, index),
              "cudaDeviceGetPCIBusId");
    gpu_check(g, cudaRuntimeGetVersion(&g->info.runtime), "cudaRuntimeGetVersion");
    gpu_check(g, cudaDriverGetVersion(&g->info.driver), "cudaDriverGetVersion");
    if (g->failed)
        return false;
    cuda_device *d = device_of(g);
    snprintf(g->info.name, sizeof g->info.name, "%s", p.name);
    g->info.major = p.major;
    g->info.minor = p.minor;
    g->info.n_sm = p.multiProcessorCount;
    g->info.block_bytes = p.sharedMemPerBlockOptin;
    g->info.total_bytes = p.totalGlobalMem;
    snprintf(d->kernels, sizeof d->kernels, "sm_%d%d", p.major, p.minor);
    g->kernels = d->kernels;
    if (p.major * 10 + p.minor >= OLDEST)
        return true;
    fail(g, p.name, "its compute capability is below 8.0");
    return false;
}

bool open_device(struct gpu *g, int index) {
    cuda_device *d = device_of(g);
    if (!look_at(g, index))
        return false;
    gpu_check(g, cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking), "stream");
    for (cudaEvent_t &e : d->mark)
        gpu_check(g, cudaEventCreate(&e), "an event");
    if (!g->failed)
        check_blas(g, cublasCreate(&d->blas), "cublasCreate");
    if (!g->failed)
        check_blas(g, cublasSetStream(d->blas, d->stream), "cublasSetStream");
    g->stream = d->stream;
    return !g->failed;
}

} // namespace

void gpu_check(struct gpu *g, cudaError_t e, const char *what) {
    if (e == cudaSuccess)
        return;
    fail(g, what, cudaGetErrorString(e));
}

__attribute__((visibility("default"))) struct gpu *llmchat_gpu_open(int version, int index,
                                                                    char *error, bool *none) {
    int n = 0, driver = 0;
    *none = false;
    if (version != GPU_VERSION) {
        snprintf(error, 256, "the CUDA module is of another version of llmchat (%d, wanted %d)",
                 GPU_VERSION, version);
        return nullptr;
    }
    cudaError_t e = cudaGetDeviceCount(&n);
    bool no_driver = cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0;
    *none = no_driver || e == cudaErrorNoDevice || (e == cudaSuccess && index >= n);
    if (e != cudaSuccess || n == 0) {
        snprintf(error, 256, "%s", e == cudaSuccess ? "no CUDA device" : cudaGetErrorString(e));
        return nullptr;
    }
    if (index >= n) {
        snprintf(error, 256, "GPU %d is wanted, and there are %d, counted from 0", index, n);
        return nullptr;
    }
    cuda_device *d = new cuda_device();
    struct gpu *g = &d->gpu;
    g->info.n_device = n;
    const char *managed = getenv("LLMCHAT_CUDA_MANAGED");
    d->managed = managed && *managed == '1';
    g->close = dev_close;
    g->alloc = dev_alloc;
    g->free = dev_free;
    g->room = room;
    g->alloc_pinned = alloc_pinned;
    g->free_pinned = free_pinned;
    g->upload = upload;
    g->download = download;
    g->copy = copy;
    g->zero = zero;
    g->sync = sync;
    g->mark = mark;
    g->between_us = between_us;
    g->record = record;
    g->recorded = recorded;
    g->replay = replay;
    g->free_recording = free_recording;
    g->blas = blas;
    gpu_kernels(g);
    if (!open_device(g, index)) {
        snprintf(error, 256, "%s", g->error);
        dev_close(g);
        return nullptr;
    }
    return g;
}
