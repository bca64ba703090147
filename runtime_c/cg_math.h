/* Scalar functions of one float, shared by the portable kernels. cg_<op>_f32(x, parameters...).
 * Part of the generated library; C11, no state. */
#ifndef CG_MATH_H
#define CG_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Binary operators by name; arguments are plain variables, so evaluating one twice is harmless. */
#define CG_ADD(a, b) ((a) + (b))
#define CG_SUB(a, b) ((a) - (b))
#define CG_MUL(a, b) ((a) * (b))
#define CG_DIV(a, b) ((a) / (b))
#define CG_MAX(a, b) ((a) > (b) ? (a) : (b))
#define CG_MIN(a, b) ((a) < (b) ? (a) : (b))
#define CG_PRELU(a, b) ((a) < 0 ? (a) * (b) : (a))
#define CG_EQUAL(a, b) ((a) == (b))
#define CG_LESS(a, b) ((a) < (b))
#define CG_LESS_EQUAL(a, b) ((a) <= (b))
#define CG_GREATER(a, b) ((a) > (b))
#define CG_GREATER_EQUAL(a, b) ((a) >= (b))
#define CG_AND(a, b) ((a) & (b))
#define CG_OR(a, b) ((a) | (b))
#define CG_XOR(a, b) ((a) ^ (b))

static inline float cg_relu_f32(float x) { return x > 0.0f ? x : 0.0f; }
/* min(max(x, lo), hi) in this order: where lo > hi the result is hi, as ONNX has it. */
static inline float cg_clip_f32(float x, float lo, float hi)
{
    x = x < lo ? lo : x;
    return x > hi ? hi : x;
}
static inline float cg_sigmoid_f32(float x) { return 1.0f / (1.0f + expf(-x)); }
/* x rounded to the nearest integer, ties to even, and not beyond low or high; 0 for NaN. */
static inline int32_t cg_code_f32(float x, int32_t low, int32_t high)
{
    x = x == x ? rintf(x) : 0.0f;
    x = x < (float)low ? (float)low : x;
    return (int32_t)(x > (float)high ? (float)high : x);
}
static inline float cg_silu_f32(float x) { return x / (1.0f + expf(-x)); }
static inline float cg_hardsigmoid_f32(float x, float alpha, float beta)
{
    return cg_clip_f32(alpha * x + beta, 0.0f, 1.0f);
}
static inline float cg_hardswish_f32(float x) { return x * cg_clip_f32(x * (1.0f / 6.0f) + 0.5f, 0.0f, 1.0f); }
static inline float cg_leaky_relu_f32(float x, float alpha) { return x < 0.0f ? alpha * x : x; }
static inline float cg_prelu_f32(float x, float slope) { return x < 0.0f ? slope * x : x; }
static inline float cg_elu_f32(float x, float alpha) { return x < 0.0f ? alpha * expm1f(x) : x; }
static inline float cg_celu_f32(float x, float alpha) { return x < 0.0f ? alpha * expm1f(x / alpha) : x; }
static inline float cg_selu_f32(float x, float alpha, float gamma)
{
    return gamma * (x > 0.0f ? x : alpha * expm1f(x));
}
static inline float cg_softplus_f32(float x) { return x > 0.0f ? x + log1pf(expf(-x)) : log1pf(expf(x)); }
static inline float cg_softsign_f32(float x) { return x / (1.0f + fabsf(x)); }
static inline float cg_thresholded_relu_f32(float x, float alpha) { return x > alpha ? x : 0.0f; }
static inline float cg_mish_f32(float x) { return x * tanhf(cg_softplus_f32(x)); }
static inline float cg_tanh_f32(float x) { return tanhf(x); }
static inline float cg_exp_f32(float x) { return expf(x); }
static inline float cg_log_f32(float x) { return logf(x); }
static inline float cg_sqrt_f32(float x) { return sqrtf(x); }
static inline float cg_reciprocal_f32(float x) { return 1.0f / x; }
static inline float cg_erf_f32(float x) { return erff(x); }
static inline float cg_abs_f32(float x) { return fabsf(x); }
static inline float cg_neg_f32(float x) { return -x; }
static inline float cg_floor_f32(float x) { return floorf(x); }
static inline float cg_ceil_f32(float x) { return ceilf(x); }
static inline float cg_round_f32(float x) { return rintf(x); } /* half to even, as ONNX Round */
static inline float cg_sign_f32(float x) { return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x; }
static inline float cg_sin_f32(float x) { return sinf(x); }
static inline float cg_cos_f32(float x) { return cosf(x); }

#endif
