/* Half precision arithmetic (FEAT_FP16) of the generated library: cg_<op>_f16x8(x, parameters...), as cg_neon.h has
 * them for float. What is steep, or a sum of many, goes through float. */
#ifndef CG_FP16_H
#define CG_FP16_H

#include "cg_neon.h"

/* acc += w * a[lane]; `acc` is a variable, `lane` a number. Of vfmaq_laneq_f16, gcc (12, 13) makes a DUP and an FMLA. */
#define CG_FMLA_LANE_F16X8(acc, w, a, lane) \
    __asm__("fmla %0.8h, %1.8h, %2.h[" #lane "]" : "+w"(acc) : "w"(w), "x"(a))

/* The halves of a vector as floats, and back. */
static inline float32x4_t cg_low_f16x8(float16x8_t x) { return vcvt_f32_f16(vget_low_f16(x)); }
static inline float32x4_t cg_high_f16x8(float16x8_t x) { return vcvt_high_f32_f16(x); }
static inline float16x8_t cg_join_f16x8(float32x4_t low, float32x4_t high)
{
    return vcvt_high_f16_f32(vcvt_f16_f32(low), high);
}


/* Sums of halves in float. */
static inline float32x4x2_t cg_wide_f16x8(float16x8_t x)
{
    return (float32x4x2_t){{cg_low_f16x8(x), cg_high_f16x8(x)}};
}
static inline float32x4x2_t cg_add_f32x8(float32x4x2_t sum, float16x8_t x)
{
    return (float32x4x2_t){{vaddq_f32(sum.val[0], cg_low_f16x8(x)), vaddq_f32(sum.val[1], cg_high_f16x8(x))}};
}
static inline float16x8_t cg_scaled_f16x8(float32x4x2_t sum, float scale)
{
    return cg_join_f16x8(vmulq_n_f32(sum.val[0], scale), vmulq_n_f32(sum.val[1], scale));
}

static inline float16x8_t cg_relu_f16x8(float16x8_t x) { return vmaxq_f16(x, vdupq_n_f16((float16_t)0.0f)); }

static inline float16x8_t cg_clip_f16x8(float16x8_t x, float lo, float hi)
{
    return vminq_f16(vmaxq_f16(x, vdupq_n_f16((float16_t)lo)), vdupq_n_f16((float16_t)hi));
}

static inline float16x8_t cg_hardsigmoid_f16x8(float16x8_t x, float alpha, float beta)
{
    float16x8_t line = vfmaq_f16(vdupq_n_f16((float16_t)beta), x, vdupq_n_f16((float16_t)alpha));
    return cg_clip_f16x8(line, 0.0f, 1.0f);
}

static inline float16x8_t cg_hardswish_f16x8(float16x8_t x)
{
    return vmulq_f16(x, cg_hardsigmoid_f16x8(x, 1.0f / 6.0f, 0.5f));
}

static inline float16x8_t cg_prelu_f16x8(float16x8_t x, float16x8_t slope)
{
    return vbslq_f16(vcltq_f16(x, vdupq_n_f16((float16_t)0.0f)), vmulq_f16(x, slope), x);
}

static inline float16x8_t cg_leaky_relu_f16x8(float16x8_t x, float alpha)
{
    return cg_prelu_f16x8(x, vdupq_n_f16((float16_t)alpha));
}

static inline float16x8_t cg_abs_f16x8(float16x8_t x) { return vabsq_f16(x); }
static inline float16x8_t cg_neg_f16x8(float16x8_t x) { return vnegq_f16(x); }
static inline float16x8_t cg_sqrt_f16x8(float16x8_t x) { return vsqrtq_f16(x); }

static inline float16x8_t cg_exp_f16x8(float16x8_t x)
{
    return cg_join_f16x8(cg_exp_f32x4(cg_low_f16x8(x)), cg_exp_f32x4(cg_high_f16x8(x)));
}

static inline float16x8_t cg_sigmoid_f16x8(float16x8_t x)
{
    return cg_join_f16x8(cg_sigmoid_f32x4(cg_low_f16x8(x)), cg_sigmoid_f32x4(cg_high_f16x8(x)));
}

static inline float16x8_t cg_silu_f16x8(float16x8_t x)
{
    return cg_join_f16x8(cg_silu_f32x4(cg_low_f16x8(x)), cg_silu_f32x4(cg_high_f16x8(x)));
}

static inline float16x8_t cg_tanh_f16x8(float16x8_t x)
{
    return cg_join_f16x8(cg_tanh_f32x4(cg_low_f16x8(x)), cg_tanh_f32x4(cg_high_f16x8(x)));
}

static inline float16x8_t cg_elu_f16x8(float16x8_t x, float alpha)
{
    return cg_join_f16x8(cg_elu_f32x4(cg_low_f16x8(x), alpha), cg_elu_f32x4(cg_high_f16x8(x), alpha));
}

/* The first n (1..7) lanes at p; the rest of the vector is zero. Never reads beyond them. */
static inline float16x8_t cg_load_part_f16x8(const float16_t *p, int n)
{
    float16x8_t v = vdupq_n_f16((float16_t)0.0f);
    if (n >= 4)
        v = vcombine_f16(vld1_f16(p), vget_low_f16(v));
    else
        v = vld1q_lane_f16(p, v, 0);
    if (n == 2 || n == 3)
        v = vld1q_lane_f16(p + 1, v, 1);
    if (n == 3)
        v = vld1q_lane_f16(p + 2, v, 2);
    if (n > 4)
        v = vld1q_lane_f16(p + 4, v, 4);
    if (n > 5)
        v = vld1q_lane_f16(p + 5, v, 5);
    if (n > 6)
        v = vld1q_lane_f16(p + 6, v, 6);
    return v;
}

/* Store the first n (1..7) lanes. */
static inline void cg_store_part_f16x8(float16_t *p, float16x8_t v, int n)
{
    if (n >= 4)
        vst1_f16(p, vget_low_f16(v));
    else
        vst1q_lane_f16(p, v, 0);
    if (n == 2 || n == 3)
        vst1q_lane_f16(p + 1, v, 1);
    if (n == 3)
        vst1q_lane_f16(p + 2, v, 2);
    if (n > 4)
        vst1q_lane_f16(p + 4, v, 4);
    if (n > 5)
        vst1q_lane_f16(p + 5, v, 5);
    if (n > 6)
        vst1q_lane_f16(p + 6, v, 6);
}

/* Rows become columns. */
static inline void cg_transpose_f16x8x8(float16x8_t v[8])
{
    float16x8_t pair[8];
    float32x4_t quad[8];
    #pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        pair[i] = vtrn1q_f16(v[i], v[i + 1]);
        pair[i + 1] = vtrn2q_f16(v[i], v[i + 1]);
    }
    #pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const int at = i / 2 * 4 + i % 2;
        quad[at] = vtrn1q_f32(vreinterpretq_f32_f16(pair[at]), vreinterpretq_f32_f16(pair[at + 2]));
        quad[at + 2] = vtrn2q_f32(vreinterpretq_f32_f16(pair[at]), vreinterpretq_f32_f16(pair[at + 2]));
    }
    #pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        v[i] = vreinterpretq_f16_f64(vtrn1q_f64(vreinterpretq_f64_f32(quad[i]), vreinterpretq_f64_f32(quad[i + 4])));
        v[i + 4] = vreinterpretq_f16_f64(vtrn2q_f64(vreinterpretq_f64_f32(quad[i]), vreinterpretq_f64_f32(quad[i + 4])));
    }
}

#endif
