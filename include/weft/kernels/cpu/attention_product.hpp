// Products of small matrices whose columns lie in vector lanes: attention's blocks.
#pragma once

#include <type_traits>

#include "weft/core/dtype.hpp"
#include "weft/core/simd.hpp"

namespace weft::inline WEFT_ABI::kernels::attention {

/// Rows (keys) and columns (queries) of a block of scores; scores are stored with this row stride.
inline constexpr Index block = 64;

/// A register of S on an instruction set; Loose is the same at any address. Halves and Bits hold as many lanes, for
/// widening bf16.
template <class S, Isa I>
struct Register;
// clang-format off
#define WEFT_REGISTER(S, I, bytes)                                                                                    \
  template <> struct Register<S, Isa::I> {                                                                            \
    typedef S Vector __attribute__((vector_size(bytes)));                                                             \
    typedef S Loose __attribute__((vector_size(bytes), aligned(sizeof(S)), may_alias));                               \
    typedef std::uint16_t Halves __attribute__((vector_size(2 * (bytes) / sizeof(S)), aligned(2), may_alias));        \
    typedef std::uint32_t Bits __attribute__((vector_size(4 * (bytes) / sizeof(S))));                                 \
    static constexpr Index lanes = (bytes) / sizeof(S);                                                               \
    static constexpr int columns = (bytes) == 64 ? 4 : 2; /* of a tile of 6 rows: its sums fill the registers */      \
  };
// clang-format on
WEFT_REGISTER(float, avx512, 64)
WEFT_REGISTER(float, avx2, 32)
WEFT_REGISTER(float, base, 16)
WEFT_REGISTER(double, avx512, 64)
WEFT_REGISTER(double, avx2, 32)
WEFT_REGISTER(double, base, 16)
#undef WEFT_REGISTER

#if !defined(__clang__) && defined(__x86_64__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"  // the built-ins become part of functions built for their instruction set
#endif
/// c += a b, in one rounding where the instruction set can.
template <class V>
WEFT_INLINE inline void add_product(V& c, const V& a, const V& b) {
#if defined(__clang__)
#pragma clang fp contract(fast)
  c = a * b + c;
#elif defined(__x86_64__)
  constexpr bool single = sizeof(a[0]) == 4;
  if constexpr (sizeof(V) == 64 && single) c = __builtin_ia32_vfmaddps512_mask(a, b, c, -1, 4);
  else if constexpr (sizeof(V) == 64) c = __builtin_ia32_vfmaddpd512_mask(a, b, c, -1, 4);
  else if constexpr (sizeof(V) == 32 && single) c = __builtin_ia32_vfmaddps256(a, b, c);
  else if constexpr (sizeof(V) == 32) c = __builtin_ia32_vfmaddpd256(a, b, c);
  else c = a * b + c;
#else
  c = a * b + c;
#endif
}
#if !defined(__clang__) && defined(__x86_64__)
#pragma GCC diagnostic pop
#endif

/// Runs body(isa) in a function built for the processor's instruction set, which the body knows as a constant.
template <class Body>
void at_isa(const Body& body) {
#if defined(__x86_64__)
  switch (isa()) {
    case Isa::avx512:
      return weft::detail::run_avx512([body]() WEFT_INLINE { body(std::integral_constant<Isa, Isa::avx512>{}); });
    case Isa::avx2:
      return weft::detail::run_avx2([body]() WEFT_INLINE { body(std::integral_constant<Isa, Isa::avx2>{}); });
    case Isa::base: break;
  }
#endif
  weft::detail::run_base([body]() WEFT_INLINE { body(std::integral_constant<Isa, Isa::base>{}); });
}

/// C (rows, columns) = A (rows, depth) B (depth, columns), added to factor * C where `add`. Rows of B and C are
/// contiguous and whole vectors of them are touched; A has any strides. Each element is one chain of fma in the order
/// of depth.
template <class S>
struct Product {
  Index rows, columns, depth;
  const S* a;
  Index a_row, a_depth;
  const S* b;
  Index b_row;
  S* c;
  Index c_row;
  bool add = false;
  const S* factor = nullptr;  ///< (columns), or 1
};

template <class S, Isa I, int R, int N>
WEFT_INLINE inline void multiply_tile(const Product<S>& p, Index row, Index column) {
  using V = typename Register<S, I>::Vector;
  using Loose = typename Register<S, I>::Loose;
  constexpr Index L = Register<S, I>::lanes;
  S* c = p.c + row * p.c_row + column;
  V sum[R][N];
  if (!p.add) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sum[r][n] = V{};
  } else {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sum[r][n] = *reinterpret_cast<const Loose*>(c + r * p.c_row + n * L);
    if (p.factor != nullptr) {
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        const V factor = *reinterpret_cast<const Loose*>(p.factor + column + n * L);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r][n] *= factor;
      }
    }
  }
  const S* a = p.a + row * p.a_row;
  const S* b = p.b + column;
  const Index a_row = p.a_row, a_depth = p.a_depth, b_row = p.b_row;
#pragma GCC unroll 2
  for (Index k = p.depth; k > 0; --k, a += a_depth, b += b_row) {
    V x[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) x[n] = *reinterpret_cast<const Loose*>(b + n * L);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V w = a[r * a_row] - V{};
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) add_product(sum[r][n], w, x[n]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) *reinterpret_cast<Loose*>(c + r * p.c_row + n * L) = sum[r][n];
}

template <class S, Isa I, int N>
WEFT_INLINE inline void multiply_panel(const Product<S>& p, Index column) {
  Index row = 0;
  // Tiles of few rows wait for their own sums, so a rest of two becomes two tiles of four.
  const Index sixes = p.rows % 6 == 2 && p.rows > 6 ? p.rows - 8 : p.rows - p.rows % 6;
  for (; row < sixes; row += 6) multiply_tile<S, I, 6, N>(p, row, column);
  for (; row + 4 <= p.rows; row += 4) multiply_tile<S, I, 4, N>(p, row, column);
  if (row + 3 == p.rows) return multiply_tile<S, I, 3, N>(p, row, column);
  for (; row + 2 <= p.rows; row += 2) multiply_tile<S, I, 2, N>(p, row, column);
  for (; row < p.rows; ++row) multiply_tile<S, I, 1, N>(p, row, column);
}

/// Computes the product.
template <class S>
void multiply(const Product<S>& product) {
  at_isa([product](auto chosen) WEFT_INLINE {
    constexpr Isa I = decltype(chosen)::value;
    constexpr Index L = Register<S, I>::lanes;
    constexpr int N = Register<S, I>::columns;
    const Product<S> p = product;
    Index column = 0;
    for (; column + (N - 1) * L < p.columns; column += N * L) multiply_panel<S, I, N>(p, column);
    if constexpr (N == 4) {
      if (column + 2 * L < p.columns) return multiply_panel<S, I, 3>(p, column);
      if (column + L < p.columns) return multiply_panel<S, I, 2>(p, column);
    }
    if (column < p.columns) multiply_panel<S, I, 1>(p, column);
  });
}

}  // namespace weft::inline WEFT_ABI::kernels::attention
