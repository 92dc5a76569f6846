// Products of float on tile registers, which multiply bf16 some ten times as fast as other units multiply float. A float is the sum of
// three bf16 parts (8 bits of its 24 each), and of the nine products of parts the six largest are added, the largest last. What is left out is
// at most 2^-24 of a product of two floats, a float's own rounding, and 2^-27 by the median. The running sum is rounded six times in 32 products,
// those within a step at their own, smaller size. At the ends of the range: infinite operands give NaN, as infinity times a part that is zero,
// and so may products above 2^127; parts and their products below 2^-126 count as zero, of operands below 2^-103, of results below 2^-102.
// After "Leveraging the bfloat16 artificial intelligence datatype for higher-precision computations" (Henry, Tang, Heinecke 2019).
#pragma once

#include "weft/kernels/cpu/gemm_micro.hpp"

namespace weft::inline WEFT_ABI::kernels::gemm {

#if defined(__x86_64__)

// Is any element of the vectors a and b infinite or NaN?
#define WEFT_ANY_NOT_FINITE(any, a, b) \
  __asm__("vfpclassps $0x99, %1, %%k1\n\tvfpclassps $0x99, %2, %%k2\n\tkortestw %%k2, %%k1" : "=@ccnz"(any) : "v"(a), "v"(b) : "k1", "k2")

/// The n parts of low[i] and high[i], i < 16, as pairs i at to, to + part and to + 2 part; of one part, rounded to nearest, ties to even.
template <int n = 3>
WEFT_TILES WEFT_INLINE inline void split(const float* low, const float* high, Pair* to, [[maybe_unused]] Index part) {
  typedef float Vec __attribute__((vector_size(64), aligned(4), may_alias));
  typedef std::uint32_t Words __attribute__((vector_size(64), aligned(4), may_alias));
  constexpr std::uint32_t sign = 0x80000000, upper = 0xffff0000, rounds_to_infinity = 0x7f7f8000, infinity = 0x7f800000, quiet = 0x00400000;
  const Vec x[] = {*reinterpret_cast<const Vec*>(low), *reinterpret_cast<const Vec*>(high)};
  if constexpr (n == 1) {
    Words rounded[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const Words bits = reinterpret_cast<Words>(x[i]);
      rounded[i] = (bits & ~sign) > infinity ? bits | quiet : bits + 0x7fff + (bits >> 16 & 1);
    }
    *reinterpret_cast<Words*>(to) = rounded[0] >> 16 | (rounded[1] & upper);
    return;
  }
  Words first[2], second[2], third[2];
  Vec rest[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) first[i] = (reinterpret_cast<Words>(x[i]) + 0x8000) & upper, rest[i] = x[i] - reinterpret_cast<Vec>(first[i]);
  bool special;
  WEFT_ANY_NOT_FINITE(special, rest[0], rest[1]);
  if (special) [[unlikely]]
    for (int i = 0; i < 2; ++i) {
      const Words bits = reinterpret_cast<Words>(x[i]);
      first[i] = (bits & ~sign) < rounds_to_infinity ? first[i] : bits & upper;
      rest[i] = x[i] - reinterpret_cast<Vec>(first[i]);
    }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    second[i] = (reinterpret_cast<Words>(rest[i]) + 0x8000) & upper;
    third[i] = reinterpret_cast<Words>(rest[i] - reinterpret_cast<Vec>(second[i]));
  }
  *reinterpret_cast<Words*>(to) = first[0] >> 16 | first[1];
  *reinterpret_cast<Words*>(to + part) = second[0] >> 16 | second[1];
  *reinterpret_cast<Words*>(to + 2 * part) = third[0] >> 16 | (third[1] & upper);
}
#undef WEFT_ANY_NOT_FINITE
template <int n>
WEFT_TILES WEFT_INLINE inline void split(const bf16* low, const bf16* high, Pair* to, Index) {
  typedef std::uint16_t Halves __attribute__((vector_size(32), aligned(2), may_alias));
  typedef std::uint32_t Words __attribute__((vector_size(64), aligned(4), may_alias));
  static_assert(n == 1);
  const auto words_of = [](const bf16* x, Words& w) WEFT_INLINE { w = __builtin_convertvector(*reinterpret_cast<const Halves*>(x), Words); };
  Words first, second;
  words_of(low, first), words_of(high, second);
  *reinterpret_cast<Words*>(to) = first | second << 16;
}

#endif

}  // namespace weft::inline WEFT_ABI::kernels::gemm
