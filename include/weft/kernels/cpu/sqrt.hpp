// The square root of an array. A loop's own sqrt stays scalar: compilers turn it into vector code only without errno, a
// flag that a header cannot ask of its user.
#pragma once

#include <cmath>

#include "weft/core/simd.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace detail {
#if defined(__x86_64__)
#define WEFT_SQRT_LOOP(bytes, ps, pd, constraint)                                      \
  typedef S Vector __attribute__((vector_size(bytes), may_alias, aligned(sizeof(S)))); \
  constexpr Index lanes = bytes / static_cast<Index>(sizeof(S));                       \
  for (; i + lanes <= n; i += lanes) {                                                 \
    Vector v = *reinterpret_cast<const Vector*>(x + i);                                \
    if constexpr (sizeof(S) == 4) asm(ps : "=" constraint(v) : constraint(v));         \
    else asm(pd : "=" constraint(v) : constraint(v));                                  \
    *reinterpret_cast<Vector*>(y + i) = v;                                             \
  }
template <class S>
WEFT_AVX512 inline Index sqrt_avx512(const S* x, S* y, Index n, Index i = 0) {
  WEFT_SQRT_LOOP(64, "vsqrtps %1, %0", "vsqrtpd %1, %0", "v")
  return i;
}
template <class S>
WEFT_AVX2 inline Index sqrt_avx2(const S* x, S* y, Index n, Index i = 0) {
  WEFT_SQRT_LOOP(32, "vsqrtps %1, %0", "vsqrtpd %1, %0", "x")
  return i;
}
template <class S>
inline Index sqrt_base(const S* x, S* y, Index n, Index i = 0) {
  WEFT_SQRT_LOOP(16, "sqrtps %1, %0", "sqrtpd %1, %0", "x")
  return i;
}
#undef WEFT_SQRT_LOOP
#endif
}  // namespace detail

/// y[i] = sqrt(x[i]) for n elements one after the other, correctly rounded on every instruction set; y may be x.
template <class S>
void sqrt_range(const S* x, S* y, Index n) {
  Index i = 0;
#if defined(__x86_64__)
  switch (isa()) {
    case Isa::avx512: i = detail::sqrt_avx512(x, y, n); break;
    case Isa::avx2: i = detail::sqrt_avx2(x, y, n); break;
    case Isa::base: i = detail::sqrt_base(x, y, n); break;
  }
#endif
  for (; i < n; ++i) y[i] = std::sqrt(x[i]);
}

}  // namespace weft::inline WEFT_ABI::kernels
