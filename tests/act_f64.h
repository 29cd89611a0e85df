/* act_f64.h - the activations by their definition (model.h), in double. */
#ifndef LLMCHAT_TESTS_ACT_F64_H
#define LLMCHAT_TESTS_ACT_F64_H

#include "engine/model/model.h"
#include <math.h>

static inline double act_f64(enum act_kind kind, double x) {
    switch (kind) {
    case ACT_SILU:
        return x / (1 + exp(-x));
    case ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ACT_GELU_ERF:
        return 0.5 * x * (1 + erf(x / sqrt(2)));
    case ACT_RELU:
        return x > 0 ? x : 0;
    case ACT_RELU2:
        return x > 0 ? x * x : 0;
    case ACT_GPT_OSS:
        return fmin(x, 7) / (1 + exp(-1.702 * fmin(x, 7)));
    }
    return NAN;
}

static inline double up_f64(enum act_kind kind, double u) {
    return kind == ACT_GPT_OSS ? 1 + fmax(-7, fmin(u, 7)) : u;
}

#endif
