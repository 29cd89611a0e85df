/*
 * vec_math.h - tanh, erf and the activations over vectors, written once for every vector length
 * with the compiler's vector arithmetic.
 *
 * Included behind a target pragma by a file that defines VF (its vector of floats), V_SET(f)
 * and V_EXP(x); exp is the one function that needs an instruction set's own.
 *
 *   tanh  |x| < 0.625: x + x^3 P(x^2); else 1 - 2 / (exp(2 |x|) + 1) with the sign of x
 *   erf   |x| < 1:     x P(x^2);       else 1 - exp(P(|x|)) with the sign of x; 1 from 4 on
 *
 * The polynomials are fits by weighted least squares until the error was even: below 2e-10
 * (tanh) and 2e-9 (erf) before rounding. Errors with rounding are about one step of the result
 * (test_ops: 2e-7). NaN stays NaN.
 */
#ifndef LLMCHAT_ENGINE_CPU_VEC_MATH_H
#define LLMCHAT_ENGINE_CPU_VEC_MATH_H

#include "engine/cpu/simd.h"

typedef int32_t vec_mask __attribute__((vector_size(sizeof(VF))));

/* a where m is all ones, b where it is 0 */
static inline VF v_select(vec_mask m, VF a, VF b) {
    return (VF)(((vec_mask)a & m) | ((vec_mask)b & ~m));
}

static inline VF v_abs(VF x) {
    return (VF)((vec_mask)x & ~(vec_mask)V_SET(-0.0f));
}

/* |x| of a, the sign of b */
static inline VF v_sign_of(VF a, VF b) {
    vec_mask sign = (vec_mask)V_SET(-0.0f);
    return (VF)(((vec_mask)a & ~sign) | ((vec_mask)b & sign));
}

/* x, or top where it is larger; NaN stays */
static inline VF v_at_most(VF x, float top) {
    return v_select((vec_mask)(x > V_SET(top)), V_SET(top), x);
}

static inline VF v_tanh(VF x) {
    VF a = v_abs(x), z = x * x;
    VF p = V_SET(2.1474329e-3f);
    p = p * z + V_SET(-8.1825648e-3f);
    p = p * z + V_SET(2.1702925e-2f);
    p = p * z + V_SET(-5.3947195e-2f);
    p = p * z + V_SET(1.3333210e-1f);
    p = p * z + V_SET(-3.3333331e-1f);
    VF e = V_EXP(v_at_most(a, 10) * V_SET(2));
    VF large = v_sign_of(V_SET(1) - V_SET(2) / (e + V_SET(1)), x);
    return v_select((vec_mask)(a < V_SET(0.625f)), x + x * z * p, large);
}

static inline VF v_erf(VF x) {
    VF a = v_at_most(v_abs(x), 4), z = a * a;
    VF p = V_SET(7.8538542e-5f);
    p = p * z + V_SET(-8.0101914e-4f);
    p = p * z + V_SET(5.1883273e-3f);
    p = p * z + V_SET(-2.6853811e-2f);
    p = p * z + V_SET(1.1283585e-1f);
    p = p * z + V_SET(-3.7612626e-1f);
    p = p * z + V_SET(1.1283791f);
    VF q = V_SET(-2.1686850e-5f);
    q = q * a + V_SET(4.4133636e-4f);
    q = q * a + V_SET(-4.2045619e-3f);
    q = q * a + V_SET(2.5208257e-2f);
    q = q * a + V_SET(-1.0841858e-1f);
    q = q * a + V_SET(-6.3321990e-1f);
    q = q * a + V_SET(-1.1295785f);
    q = q * a + V_SET(1.8804023e-4f);
    VF large = v_sign_of(V_SET(1) - V_EXP(q), x);
    return v_select((vec_mask)(a < V_SET(1)), x * p, large);
}

static inline VF v_act(enum act_kind kind, VF x) {
    const VF half = V_SET(0.5f), one = V_SET(1), zero = V_SET(0);
    switch (kind) {
    case ACT_SILU:
        return x / (one + V_EXP(zero - x));
    case ACT_GELU_TANH:
        return half * x *
               (one + v_tanh(V_SET(GELU_TANH_A) * (x + V_SET(GELU_TANH_B) * x * x * x)));
    case ACT_GELU_ERF:
        return half * x * (one + v_erf(x * V_SET(GELU_ERF_A)));
    case ACT_RELU:
        return v_select((vec_mask)(x < zero), zero, x);
    case ACT_RELU2:
        return v_select((vec_mask)(x < zero), zero, x * x);
    case ACT_GPT_OSS:
        x = v_at_most(x, GPT_OSS_LIMIT);
        return x / (one + V_EXP(V_SET(-GPT_OSS_ALPHA) * x));
    }
    return V_SET(NAN);
}

/* What v_act() of the gate is multiplied by. */
static inline VF v_up(enum act_kind kind, VF u) {
    if (kind != ACT_GPT_OSS)
        return u;
    VF low = V_SET(-GPT_OSS_LIMIT), x = v_at_most(u, GPT_OSS_LIMIT);
    return V_SET(1) + v_select((vec_mask)(x < low), low, x);
}

#endif
