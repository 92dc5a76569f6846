// Element types: their names, the type that statistics and sums are kept in, and the two of 16 bits, bf16 and f16.
#pragma once

#include <bit>
#include <cmath>
#include <string_view>
#include <type_traits>

#include "weft/core/config.hpp"

namespace weft::inline WEFT_ABI {

/// bfloat16: the upper half of a float. Arithmetic happens in float; storing rounds to nearest, ties to even.
struct bf16 {
  std::uint16_t bits = 0;

  bf16() = default;
  WEFT_INLINE explicit constexpr bf16(float x) : bits(round(x)) {}
  WEFT_INLINE constexpr operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

 private:
  WEFT_INLINE static constexpr std::uint16_t round(float x) {
    const auto u = std::bit_cast<std::uint32_t>(x);
    const std::uint32_t rounded = u + 0x7fffu + ((u >> 16) & 1u);
    const std::uint32_t nan = u | 0x400000u;  // stays a NaN: rounding could carry it to infinity
    return static_cast<std::uint16_t>(((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded) >> 16);
  }
};

/// IEEE's binary16: 5 bits of exponent, 10 of fraction, so 11 significant bits from 6.1e-5 to 65,504, and fewer down to 6e-8. Arithmetic
/// happens in float; storing rounds to nearest, ties to even, from 65,520 on to infinity.
struct f16 {
  std::uint16_t bits = 0;

  f16() = default;
  WEFT_INLINE explicit constexpr f16(float x) : bits(round(x)) {}
  WEFT_INLINE constexpr operator float() const {
#if defined(__CUDA_ARCH__)
    if (!std::is_constant_evaluated()) {
      float y;
      asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(bits));
      return y;
    }
#endif
    const std::uint32_t rest = bits & 0x7fffu;
    const std::uint32_t moved = (rest << 13) + (rest < 0x7c00u ? bias : 2 * bias);  // infinity and NaN stay at the top
    const std::uint32_t small = std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<std::int32_t>(rest)) * 0x1p-24f);
    const std::uint32_t is_small = 0u - static_cast<std::uint32_t>(rest < 0x400u);  // a choice would be a branch, and no vector
    return std::bit_cast<float>((small & is_small) | (moved & ~is_small) | (bits & 0x8000u) << 16);
  }

 private:
  static constexpr std::uint32_t bias = (127u - 15u) << 23;  // between the two exponents, where a float has its own

  WEFT_INLINE static constexpr std::uint16_t round(float x) {
#if defined(__CUDA_ARCH__)
    if (!std::is_constant_evaluated()) {
      std::uint16_t y;
      asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
      return y;
    }
#endif
    // Without branches, so that loops over elements become vectors.
    const auto u = std::bit_cast<std::uint32_t>(x);
    const std::uint32_t rest = u & 0x7fffffffu;
    const std::uint32_t large = (rest - bias + 0xfffu + ((rest >> 13) & 1u)) >> 13;
    // Below 2^-14 the place of the last bit stays, and more of the fraction is cut off.
    const std::uint32_t exponent = rest >> 23, cut = 126u - (exponent < 113u ? exponent : 112u), shift = cut < 31u ? cut : 31u;
    const std::uint32_t fraction = (rest & 0x7fffffu) | 0x800000u;
    const std::uint32_t small = (fraction + (1u << (shift - 1)) - 1u + ((fraction >> shift) & 1u)) >> shift;
    const std::uint32_t nan = 0x7e00u | ((rest >> 13) & 0x3ffu);
    const std::uint32_t finite = rest < 0x38800000u ? small : rest < 0x477ff000u ? large : 0x7c00u;
    return static_cast<std::uint16_t>((rest > 0x7f800000u ? nan : finite) | (u >> 16 & 0x8000u));
  }
};

/// x to one of its two neighbours in bf16: away from zero iff the half that is cut off and `random`, 16 uniform bits, carry. So the
/// mean is x, and what bf16 holds stays as it is, NaN too. Gupta et al. 2015, "Deep learning with limited numerical precision".
WEFT_INLINE constexpr bf16 round_stochastically(float x, std::uint32_t random) {
  const auto u = std::bit_cast<std::uint32_t>(x);
  const bool nan = (u & 0x7fffffffu) > 0x7f800000u;  // a carry could reach its sign
  bf16 y;
  y.bits = static_cast<std::uint16_t>((nan ? u | 0x400000u : u + random) >> 16);
  return y;
}

enum class Dtype : std::uint8_t { f32, f64, bf16, f16, i32, i64, u8, boolean };

template <class T> struct dtype_traits;
template <> struct dtype_traits<float> { static constexpr Dtype code = Dtype::f32; static constexpr const char* name = "float"; };
template <> struct dtype_traits<double> { static constexpr Dtype code = Dtype::f64; static constexpr const char* name = "double"; };
template <> struct dtype_traits<bf16> { static constexpr Dtype code = Dtype::bf16; static constexpr const char* name = "bf16"; };
template <> struct dtype_traits<f16> { static constexpr Dtype code = Dtype::f16; static constexpr const char* name = "f16"; };
template <> struct dtype_traits<std::int32_t> { static constexpr Dtype code = Dtype::i32; static constexpr const char* name = "int32"; };
template <> struct dtype_traits<std::int64_t> { static constexpr Dtype code = Dtype::i64; static constexpr const char* name = "int64"; };
template <> struct dtype_traits<std::uint8_t> { static constexpr Dtype code = Dtype::u8; static constexpr const char* name = "uint8"; };
template <> struct dtype_traits<bool> { static constexpr Dtype code = Dtype::boolean; static constexpr const char* name = "bool"; };

template <class T> inline constexpr Dtype dtype_of = dtype_traits<T>::code;
template <class T> inline constexpr const char* dtype_name = dtype_traits<T>::name;

/// The element types of a tensor.
template <class T> concept Element = requires { dtype_traits<T>::code; };
/// Those of 16 bits, which are stored and multiplied, but summed and computed with in float.
template <class T> concept Narrow = std::is_same_v<T, bf16> || std::is_same_v<T, f16>;
/// Those that can carry a gradient.
template <class T> concept Real = std::is_same_v<T, float> || std::is_same_v<T, double> || Narrow<T>;

/// Statistics of norms, softmax, router and loss, and what kernels compute in: double for double, else float; an integer
/// type stands for itself.
template <class T> using stat_t = std::conditional_t<Narrow<T>, float, T>;
/// Gradients of parameters of type W: float wherever W is narrower.
template <class W> using param_grad_t = stat_t<W>;

}  // namespace weft::inline WEFT_ABI
