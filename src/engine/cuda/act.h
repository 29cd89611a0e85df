/*
 * act.h - activations, for kernels.
 */
#ifndef LLMCHAT_ENGINE_CUDA_ACT_H
#define LLMCHAT_ENGINE_CUDA_ACT_H

#include "engine/cuda/dev.h"

/* PyTorch's functions of these names, and gpt-oss's (model.h). */
DEVICE float act_of(enum act_kind kind, float x) {
    switch (kind) {
    case ACT_SILU:
        return x / (1 + expf(-x));
    case ACT_GELU_TANH:
        return 0.5f * x * (1 + tanhf(0.797884561f * (x + 0.044715f * x * x * x)));
    case ACT_GELU_ERF:
        return 0.5f * x * (1 + erff(x * 0.707106781f));
    case ACT_RELU:
        return x < 0 ? 0 : x;
    case ACT_RELU2:
        return x < 0 ? 0 : x * x;
    case ACT_GPT_OSS:
        x = x > 7 ? 7 : x;
        return x / (1 + expf(-1.702f * x));
    }
    return NAN;
}

/* What act_of() of the gate is multiplied by: u; gpt-oss's is clamped and counts one more. */
DEVICE float act_up(enum act_kind kind, float u) {
    return kind == ACT_GPT_OSS ? 1 + (u > 7 ? 7 : u < -7 ? -7 : u) : u;
}

#endif
