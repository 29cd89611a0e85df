/*
 * nccl.h - sums over GPUs by NCCL, which is opened at run time: libnccl.so.2, or what
 * LLMCHAT_NCCL names.
 *
 * Not yet run on a machine with several GPUs: tests have a library of their own in its place.
 */
#ifndef LLMCHAT_ENGINE_CUDA_NCCL_H
#define LLMCHAT_ENGINE_CUDA_NCCL_H

#include "engine/run/comm.h"

struct gpu;

/* Connects devices 0 .. n - 1. ST_NOT_FOUND: there is no NCCL. ST_DEVICE: what it says. */
enum status nccl_open(struct gpu *const gpus[], int n, struct comm_stop *stop,
                      struct comm *out[], struct err *err);

#endif
