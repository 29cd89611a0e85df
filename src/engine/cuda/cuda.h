/*
 * cuda.h - the CUDA backend, and the module with its kernels.
 *
 * The module is looked for where LLMCHAT_CUDA_MODULE says, in the installation's library
 * folder, and beside the program (a build folder). It is opened once and stays.
 */
#ifndef LLMCHAT_ENGINE_CUDA_CUDA_H
#define LLMCHAT_ENGINE_CUDA_CUDA_H

#include "base/mem.h"
#include "engine/backend.h"

struct gpu;

/* Device `index` as a backend. ST_NOT_FOUND: this build or installation has no module, there is
 * no driver or no such device; ST_DEVICE: there is one that can't be used, since it is too old,
 * or the driver is, or a library of CUDA is missing. The message says which. */
enum status cuda_backend_open(int index, double utilization, struct backend **out,
                              struct err *err);
/* A backend over a device that is open; takes it. utilization: the part of the device's memory
 * that may be in use, by whom ever, when all is allocated (0..1). */
enum status cuda_backend_new(struct gpu *g, double utilization, struct backend **out,
                             struct err *err);

/* Which kernels it takes from how many tokens on: what the file has of this device; what it has
 * not is measured with the bound weights, if they are large enough, and kept there (that a file
 * can't be written is logged). When all is bound and reserved, before the first step. Without
 * it GPU_GEMM_TOK is the border. ST_DEVICE: the device failed. */
enum status cuda_learn_crossovers(struct backend *be, const char *file, struct err *err);

/* The device of a backend that cuda_backend_open() made. */
struct gpu *cuda_gpu(struct backend *be);

/* Opens device `index` behind the module; the calling thread is the one that uses it. */
enum status cuda_module_open(int index, struct gpu **out, struct err *err);

#endif
