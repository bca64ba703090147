/* Vector counterparts of cg_math.h: cg_<op>_f32x4(x, parameters...). Part of the generated library.
 * On AArch64 the compiler's own arm_neon.h; elsewhere the SIMDe headers stand in for it, so that the same
 * code can be run and debugged on the developer's machine. */
#ifndef CG_NEON_H
#define CG_NEON_H

#if defined(__aarch64__)
#include <arm_neon.h>
#else
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/arm/neon.h>
#endif

#include "cg_math.h"

static inline float32x4_t cg_relu_f32x4(float32x4_t x) { return vmaxq_f32(x, vdupq_n_f32(0.0f)); }

static inline float32x4_t cg_clip_f32x4(float32x4_t x, float lo, float hi)
{
    return vminq_f32(vmaxq_f32(x, vdupq_n_f32(lo)), vdupq_n_f32(hi));
}

/* `count` codes, at most 4, less their zero point. */
static inline float32x4_t cg_codes_f32x4(const int8_t *x, int32_t zero, size_t count)
{
    int32_t codes = 0;
    memcpy(&codes, x, count);
    const int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(codes)));
    return vcvtq_f32_s32(vsubq_s32(vmovl_s16(vget_low_s16(wide)), vdupq_n_s32(zero)));
}

/* x / divisor, correctly rounded where it is less than 2^15 and not tiny; some number beyond that where it is not.
 * `inverse` is 1 / divisor, correctly rounded. q = x inverse is off by at most 2 units in the last place; a
 * correction q + (x - q divisor) inverse brings it within one, and then another is exact (P. Markstein,
 * Computation of elementary functions on the IBM RISC System/6000 processor, 1990). That needs fused multiply-
 * adds, which what stands in for NEON elsewhere does not have. */
static inline float32x4_t cg_quotient_f32x4(float32x4_t x, float32x4_t divisor, float32x4_t inverse)
{
#if defined(__aarch64__)
    const float32x4_t q = vmulq_f32(x, inverse);
    const float32x4_t near = vfmaq_f32(q, vfmsq_f32(x, q, divisor), inverse);
    const float32x4_t exact = vfmaq_f32(near, vfmsq_f32(x, near, divisor), inverse);
    return vbslq_f32(vcaltq_f32(q, vdupq_n_f32(32768.0f)), exact, q);
#else
    (void)inverse;
    return vdivq_f32(x, divisor);
#endif
}

/* 8 numbers saturated to 16 bits. */
static inline int16x8_t cg_narrow_i16x8(int32x4_t a, int32x4_t b) { return vqmovn_high_s32(vqmovn_s32(a), b); }

/* 16 rounded values to codes: with zeros[1] added, from zeros[2] to zeros[3]. */
static inline int8x16_t cg_codes_i8x16(int16x8_t a, int16x8_t b, const int32_t *zeros)
{
    const int16x8_t zero = vdupq_n_s16((int16_t)zeros[1]);
    const int8x16_t codes = vqmovn_high_s16(vqmovn_s16(vqaddq_s16(a, zero)), vqaddq_s16(b, zero));
    return vminq_s8(vmaxq_s8(codes, vdupq_n_s8((int8_t)zeros[2])), vdupq_n_s8((int8_t)zeros[3]));
}

/* exp(x), relative error below 2 ulp. x is clamped to [-87.3, 88.3], where the result is a normal number.
 * x = n ln 2 + r with ln 2 in two parts; polynomial of degree 5 for exp(r) from Cephes (expf.c, S. Moshier). */
static inline float32x4_t cg_exp_f32x4(float32x4_t x)
{
    x = vminq_f32(vmaxq_f32(x, vdupq_n_f32(-87.3f)), vdupq_n_f32(88.3f));
    float32x4_t n = vrndnq_f32(vmulq_f32(x, vdupq_n_f32(1.44269504f)));
    float32x4_t r = vfmsq_f32(x, n, vdupq_n_f32(0.693359375f));
    r = vfmsq_f32(r, n, vdupq_n_f32(-2.12194440e-4f));
    float32x4_t p = vdupq_n_f32(1.9875691500e-4f);
    p = vfmaq_f32(vdupq_n_f32(1.3981999507e-3f), p, r);
    p = vfmaq_f32(vdupq_n_f32(8.3334519073e-3f), p, r);
    p = vfmaq_f32(vdupq_n_f32(4.1665795894e-2f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.6666665459e-1f), p, r);
    p = vfmaq_f32(vdupq_n_f32(5.0000001201e-1f), p, r);
    p = vfmaq_f32(vaddq_f32(r, vdupq_n_f32(1.0f)), p, vmulq_f32(r, r));
    int32x4_t scale = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23);
    return vmulq_f32(p, vreinterpretq_f32_s32(scale));
}

/* 1 / x for x >= 1, relative error below 2 ulp; 0 beyond 2^126. An estimate and two steps of Newton's method, for the
 * cores divide one lane after the other. */
static inline float32x4_t cg_reciprocal_f32x4(float32x4_t x)
{
    float32x4_t r = vrecpeq_f32(x);
    r = vmulq_f32(r, vrecpsq_f32(x, r));
    return vmulq_f32(r, vrecpsq_f32(x, r));
}

/* 1 / (1 + exp(-x)): absolute error below 3e-7. */
static inline float32x4_t cg_sigmoid_f32x4(float32x4_t x)
{
    return cg_reciprocal_f32x4(vaddq_f32(vdupq_n_f32(1.0f), cg_exp_f32x4(vnegq_f32(x))));
}

static inline float32x4_t cg_silu_f32x4(float32x4_t x) { return vmulq_f32(x, cg_sigmoid_f32x4(x)); }

/* 1 - 2 / (exp(2x) + 1): absolute error below 3e-7 everywhere. */
static inline float32x4_t cg_tanh_f32x4(float32x4_t x)
{
    float32x4_t one = vdupq_n_f32(1.0f);
    float32x4_t e = cg_exp_f32x4(vaddq_f32(x, x));
    return vfmsq_f32(one, vdupq_n_f32(2.0f), cg_reciprocal_f32x4(vaddq_f32(e, one)));
}

static inline float32x4_t cg_hardsigmoid_f32x4(float32x4_t x, float alpha, float beta)
{
    return cg_clip_f32x4(vfmaq_f32(vdupq_n_f32(beta), x, vdupq_n_f32(alpha)), 0.0f, 1.0f);
}

static inline float32x4_t cg_hardswish_f32x4(float32x4_t x)
{
    return vmulq_f32(x, cg_hardsigmoid_f32x4(x, 1.0f / 6.0f, 0.5f));
}

static inline float32x4_t cg_prelu_f32x4(float32x4_t x, float32x4_t slope)
{
    return vbslq_f32(vcltq_f32(x, vdupq_n_f32(0.0f)), vmulq_f32(x, slope), x);
}

static inline float32x4_t cg_leaky_relu_f32x4(float32x4_t x, float alpha)
{
    return cg_prelu_f32x4(x, vdupq_n_f32(alpha));
}

static inline float32x4_t cg_elu_f32x4(float32x4_t x, float alpha)
{
    float32x4_t low = vmulq_n_f32(vsubq_f32(cg_exp_f32x4(x), vdupq_n_f32(1.0f)), alpha);
    return vbslq_f32(vcltq_f32(x, vdupq_n_f32(0.0f)), low, x);
}

static inline float32x4_t cg_abs_f32x4(float32x4_t x) { return vabsq_f32(x); }
static inline float32x4_t cg_neg_f32x4(float32x4_t x) { return vnegq_f32(x); }
static inline float32x4_t cg_sqrt_f32x4(float32x4_t x) { return vsqrtq_f32(x); }

/* Rows become columns. */
static inline void cg_transpose_f32x4x4(float32x4_t v[4])
{
    const float32x4_t ab = vtrn1q_f32(v[0], v[1]), ab2 = vtrn2q_f32(v[0], v[1]);
    const float32x4_t cd = vtrn1q_f32(v[2], v[3]), cd2 = vtrn2q_f32(v[2], v[3]);
    v[0] = vcombine_f32(vget_low_f32(ab), vget_low_f32(cd));
    v[1] = vcombine_f32(vget_low_f32(ab2), vget_low_f32(cd2));
    v[2] = vcombine_f32(vget_high_f32(ab), vget_high_f32(cd));
    v[3] = vcombine_f32(vget_high_f32(ab2), vget_high_f32(cd2));
}

/* The first n (1..3) floats at p; the rest of the vector is zero. Never reads beyond them. */
static inline float32x4_t cg_load_part_f32x4(const float *p, int n)
{
    float t[4] = {p[0], n > 1 ? p[1] : 0.0f, n > 2 ? p[2] : 0.0f, 0.0f};
    return vld1q_f32(t);
}

/* Store the first n (1..3) lanes. */
static inline void cg_store_part_f32x4(float *p, float32x4_t v, int n)
{
    vst1q_lane_f32(p, v, 0);
    if (n > 1)
        vst1q_lane_f32(p + 1, v, 1);
    if (n > 2)
        vst1q_lane_f32(p + 2, v, 2);
}

#endif
