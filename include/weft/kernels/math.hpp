// exp, log, tanh, erf, normal_cdf, sigmoid and sqrt without branches, so that a loop over them becomes vector code and a call alone
// gives the same bits as one inside a loop. Results that would be denormal are zero; denormal arguments count as zero.
// The stated errors are the largest over all floats. The polynomials are minimax fits (Lawson's iteration on Chebyshev
// nodes), rounded coefficient by coefficient.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "weft/core/config.hpp"

namespace weft::inline WEFT_ABI::kernels::math {

namespace detail {
inline constexpr float ln2_high = 0x1.62e4p-1f;  // 15 bits, so that its products with exponents are exact
inline constexpr float ln2_low = 1.42860677e-6f;

/// x = n ln 2 + r with |r| <= ln(2)/2. Adding 1.5 * 2^23 rounds to an integer, whose low bits are then n's.
struct Reduced {
  float r;
  std::uint32_t exponent;  // n << 23, to be added to a float's bits
};
WEFT_INLINE inline Reduced reduce(float x) {
  constexpr float shift = 0x1.8p23f;
  const float t = __builtin_fmaf(x, 0x1.715476p0f, shift);
  const float n = t - shift;
  return {__builtin_fmaf(-n, ln2_low, __builtin_fmaf(-n, ln2_high, x)), std::bit_cast<std::uint32_t>(t) << 23};
}

/// e^r - 1 for |r| <= ln(2)/2, relative error 2^-26.
WEFT_INLINE inline float expm1_reduced(float r) {
  float q = 0.00138703175f;
  q = __builtin_fmaf(q, r, 0.00836626161f);
  q = __builtin_fmaf(q, r, 0.041667439f);
  q = __builtin_fmaf(q, r, 0.166665465f);
  q = __builtin_fmaf(q, r, 0.49999997f);
  return __builtin_fmaf(r * r, q, r);
}

/// e^x + more where x is known to be NaN or within [-87, 88]: for more = -1 with as small a relative error.
WEFT_INLINE inline float exp_within(float x, float more) {
  const Reduced at = reduce(x);
  const float scale = std::bit_cast<float>(0x3f800000u + at.exponent);
  return __builtin_fmaf(scale, expm1_reduced(at.r), scale + more);
}
}  // namespace detail

/// a / b; on the GPU within 2 ulp, where the exact quotient takes longer than all around it. b below 2^126.
WEFT_INLINE inline float divide(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fdividef(a, b);
#else
  return a / b;
#endif
}
WEFT_INLINE inline double divide(double a, double b) { return a / b; }

/// e^x. At most 1.04 ulp from the exact value; on the GPU, by its own 2^x, at most 3.
WEFT_INLINE inline float exp(float x) {
#if defined(__CUDA_ARCH__)
  x = x > 200.0f ? 200.0f : x;  // written so that a NaN stays
  x = x < -200.0f ? -200.0f : x;
  const float t = x * 0x1.715476p0f;
  const float rest = __builtin_fmaf(x, 0x1.4ae0cp-26f, __builtin_fmaf(x, 0x1.715476p0f, -t));  // of x log2 e
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(t));
  return y * __builtin_fmaf(rest, 0.693147181f, 1.0f);
#else
  const detail::Reduced at = detail::reduce(x);
  const float p = 1 + detail::expm1_reduced(at.r);
  float y = std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + at.exponent);
  y = x > 0x1.62e42ep6f ? __builtin_inff() : y;  // ln of the largest float
  y = x < -0x1.5d589ep6f ? 0.0f : y;             // ln of the smallest that is not denormal
  return x == x ? y : x;
#endif
}
WEFT_INLINE inline double exp(double x) { return std::exp(x); }

/// e^x where x is known to be NaN or within [-87, 88]: without exp's limits, as good.
WEFT_INLINE inline float exp_within(float x) {
#if defined(__CUDA_ARCH__)
  return exp(x);
#else
  return detail::exp_within(x, 0);
#endif
}
WEFT_INLINE inline double exp_within(double x) { return std::exp(x); }

/// ln x; -inf at zero, NaN below. At most 0.86 ulp from the exact value.
WEFT_INLINE inline float log(float x) {
  constexpr std::uint32_t root_half = 0x3f3504f3u;  // mantissas from sqrt(1/2), so that x near 1 has exponent 0
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t u = bits - root_half;
  const float n = static_cast<float>(static_cast<std::int32_t>(u) >> 23);
  const float f = std::bit_cast<float>((u & 0x7fffffu) + root_half) - 1;
  float q = -0.0763625279f;
  q = __builtin_fmaf(q, f, 0.127621293f);
  q = __builtin_fmaf(q, f, -0.131596237f);
  q = __builtin_fmaf(q, f, 0.142015874f);
  q = __builtin_fmaf(q, f, -0.166234091f);
  q = __builtin_fmaf(q, f, 0.200012416f);
  q = __builtin_fmaf(q, f, -0.250008196f);
  q = __builtin_fmaf(q, f, 0.333333313f);
  const float f2 = f * f;
  q = __builtin_fmaf(n, detail::ln2_low, f2 * (f * q));
  q = __builtin_fmaf(-0.5f, f2, q) + f;
  float special = bits >= 0x7f800000u ? x : 0.0f;                     // inf and NaN stay
  special = bits > 0x80000000u ? __builtin_nanf("") : special;        // negative
  special = bits << 1 < 0x01000000u ? -__builtin_inff() : special;    // zero, by bits and added: g++ 12 leaves a loop
  return __builtin_fmaf(n, detail::ln2_high, q) + special;            // that selects the sum itself scalar
}
WEFT_INLINE inline double log(double x) { return std::log(x); }

/// tanh x = m / (m + 2) with m = e^(2|x|) - 1. At most 2.6 ulp from the exact value.
WEFT_INLINE inline float tanh(float x) {
  const float a = __builtin_fabsf(x);
#if defined(__CUDA_ARCH__)
  const float x2 = x * x;
  const float small = __builtin_fmaf(x * x2, __builtin_fmaf(x2, __builtin_fmaf(x2, -0.0539682540f, 0.133333333f), -0.333333333f), x);
  const float large = 1 - divide(2.0f, exp(2 * (a > 9.1f ? 9.1f : a)) + 1);
  return a < 0.25f ? small : __builtin_copysignf(large, x);
#else
  const float m = detail::exp_within(2 * (a > 9.1f ? 9.1f : a), -1);  // written so that a NaN stays
  return __builtin_copysignf(m / (m + 2), x);
#endif
}
WEFT_INLINE inline double tanh(double x) { return std::tanh(x); }

/// erf x: an odd polynomial below 0.85, 1 - e^p(|x|) above. At most 1.2 ulp from the exact value.
WEFT_INLINE inline float erf(float x) {
  const float a = __builtin_fabsf(x);
  const float x2 = x * x;
  float s = -0.000634851865f;
  s = __builtin_fmaf(s, x2, 0.0050577037f);
  s = __builtin_fmaf(s, x2, -0.0268072877f);
  s = __builtin_fmaf(s, x2, 0.11282865f);
  s = __builtin_fmaf(s, x2, -0.376125902f);
  s = __builtin_fmaf(s, x2, 0.128379166f);
  const float near = __builtin_fmaf(x, s, x);
  const float c = a > 3.95f ? 3.95f : a;  // erf rounds to 1 there
  float q = 0.000203682837f;
  q = __builtin_fmaf(q, c, -0.00311789801f);
  q = __builtin_fmaf(q, c, 0.0225191936f);
  q = __builtin_fmaf(q, c, -0.104526184f);
  q = __builtin_fmaf(q, c, -0.636518657f);
  q = __builtin_fmaf(q, c, -1.12806118f);
  q = __builtin_fmaf(q, c, -0.000104480605f);
  const float far = __builtin_copysignf(1 - exp_within(q), x);
  return a < 0.85f ? near : far;
}
WEFT_INLINE inline double erf(double x) { return std::erf(x); }

/// Phi(x) = (1 + erf(x / sqrt 2)) / 2, the standard normal distribution: e^p(|x|) on the left, with -ln 2 in p, and 1 less that on the
/// right. At most 1.3 2^-24 from the exact value; 0 below -5.62, where it is less than 2^-26.
WEFT_INLINE inline float normal_cdf(float x) {
  const float a = __builtin_fabsf(x), c = a > 5.62f ? 5.62f : a;  // written so that a NaN stays
  float p = -1.9713068e-06f;
  p = __builtin_fmaf(p, c, 2.73692767e-05f);
  p = __builtin_fmaf(p, c, -0.00012940231f);
  p = __builtin_fmaf(p, c, -9.40739628e-05f);
  p = __builtin_fmaf(p, c, 0.00489489641f);
  p = __builtin_fmaf(p, c, -0.0363868251f);
  p = __builtin_fmaf(p, c, -0.318299115f);
  p = __builtin_fmaf(p, c, -0.797885299f);
  p = __builtin_fmaf(p, c, -0.693147181f);
  const float tail = exp_within(p), left = a > 5.62f ? 0.0f : tail;
  return x < 0 ? left : 1 - left;
}
WEFT_INLINE inline double normal_cdf(double x) { return 0.5 * std::erfc(-0.70710678118654752 * x); }

/// 1 / (1 + e^-x). At most 2.5 ulp from the exact value.
WEFT_INLINE inline float sigmoid(float x) { return divide(1.0f, 1 + exp(-x)); }
WEFT_INLINE inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// The square root, correctly rounded as IEEE's: std::sqrt may set errno, which keeps a loop over it scalar.
/// Newton's iteration on 1/sqrt(x) from the bit trick, then two corrections with the exact residual (Markstein 1990).
WEFT_INLINE inline float sqrt(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  float special = bits >= 0x7f800000u ? x : -0.0f;              // inf and NaN stay; -0 + -0 keeps a zero's sign
  special = bits > 0x80000000u ? __builtin_nanf("") : special;  // negative
  special = bits << 1 < 0x01000000u ? 0 * x : special;          // zero
  const std::uint32_t safe = bits - 0x00800000u < 0x7f000000u ? bits : 0x3f800000u;
  const bool small = safe < 0x20000000u;  // the residual of a small x would be denormal
  const float v = std::bit_cast<float>(safe) * (small ? 0x1p64f : 1.0f);
  float r = std::bit_cast<float>(0x5f375a86u - (std::bit_cast<std::uint32_t>(v) >> 1));
  const float half = 0.5f * v;
  r = r * __builtin_fmaf(-half * r, r, 1.5f);
  r = r * __builtin_fmaf(-half * r, r, 1.5f);
  r = r * __builtin_fmaf(-half * r, r, 1.5f);
  float g = v * r, h = 0.5f * r;
  const float e = __builtin_fmaf(-g, h, 0.5f);
  g = __builtin_fmaf(g, e, g);
  h = __builtin_fmaf(h, e, h);
  g = __builtin_fmaf(__builtin_fmaf(-g, g, v), h, g);
  const float keep = bits - 0x00800000u < 0x7f000000u ? (small ? 0x1p-32f : 1.0f) : -0.0f;
  return __builtin_fmaf(g, keep, special);
}
WEFT_INLINE inline double sqrt(double x) { return std::sqrt(x); }

/// condition ? a : b by bits: g++ moves what only one side needs behind a branch, which keeps a loop scalar.
WEFT_INLINE inline float select(bool condition, float a, float b) {
  const std::uint32_t mask = 0u - static_cast<std::uint32_t>(condition);
  return std::bit_cast<float>((std::bit_cast<std::uint32_t>(a) & mask) | (std::bit_cast<std::uint32_t>(b) & ~mask));
}
WEFT_INLINE inline double select(bool condition, double a, double b) {
  const std::uint64_t mask = 0u - static_cast<std::uint64_t>(condition);
  return std::bit_cast<double>((std::bit_cast<std::uint64_t>(a) & mask) | (std::bit_cast<std::uint64_t>(b) & ~mask));
}
template <class S>
WEFT_INLINE inline S select(bool condition, S a, S b) { return condition ? a : b; }

/// a * b + c, rounded once.
WEFT_INLINE inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
WEFT_INLINE inline double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }

}  // namespace weft::inline WEFT_ABI::kernels::math
