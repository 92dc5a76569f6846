// What a matrix product is, for the kernels that share it out: strides, the pieces of K that decide bits, the rounding of what was summed.
#pragma once

#include <algorithm>
#include <bit>

#include "weft/core/view.hpp"
#include "weft/kernels/cpu/gemm_micro.hpp"

namespace weft::inline WEFT_ABI::kernels::gemm {

constexpr Index pieces(Index n, Index size) { return (n + size - 1) / size; }
constexpr Index round_up(Index n, Index to) { return pieces(n, to) * to; }

/// c (M, N) = a (M, K) b (K, N) + bias (N), by strides; beta as in Out.
template <class TA, class TB, class TC>
struct Problem {
  Index M, N, K;
  const TA* a;
  Index a_m, a_k;
  const TB* b;
  Index b_k, b_n;
  const TB* bias;
  TC* c;
  Index c_m;
  int beta;
};

/// How many elements of a panel K makes, those of a whole step where panels hold whole steps.
template <class P>
constexpr Index panel_depth(Index K) {
  return std::is_same_v<P, SplitPair> ? round_up(K, 32) / 2 : pieces(K, group<P>);
}

/// c (rows, columns) = sums + bias: added and rounded once.
template <class TC, class TB>
void finish(TC* c, Index c_row, const stat_t<TC>* sums, Index row, Index rows, Index columns, const TB* bias,
            int beta) {
  using T = stat_t<TC>;
  simd([=]() WEFT_INLINE {
    for (Index r = 0; r < rows; ++r) {
      TC* to = c + r * c_row;
      const T* sum = sums + r * row;
      if (bias)
#pragma omp simd
        for (Index j = 0; j < columns; ++j) put(to[j], sum[j] + static_cast<T>(bias[j]), beta);
      else
#pragma omp simd
        for (Index j = 0; j < columns; ++j) put(to[j], sum[j], beta);
    }
  });
}

/// Calls block(first row, rows, log2 of the rows) over m rows, in the sizes that micro kernels have.
template <class T, class Block>
void row_blocks(const MicroKernels<T>& micro, Index m, Block block) {
  int log = std::countr_zero(static_cast<std::uint64_t>(micro.rows));
  for (Index i = 0; i < m; i += Index{1} << log) {
    while ((Index{1} << log) > m - i) --log;
    block(i, Index{1} << log, log);
  }
}

/// Up to so many rows the time goes into reading b.
template <class P> inline constexpr Index few_rows_most = std::is_same_v<P, SplitPair> ? 16 : 32;

/// Rows of a that a micro kernel can read as they are, as elements of a panel of P; null where they must be packed.
template <class P, class TA, class TB, class TC>
const P* few_rows_as_is(const Problem<TA, TB, TC>& p) {
  if constexpr (std::is_same_v<TA, P>) return p.a;
  else if constexpr (std::is_same_v<P, Pair>) return p.a_k == 1 && p.a_m % 2 == 0 && p.K % 2 == 0 ? reinterpret_cast<const Pair*>(p.a) : nullptr;
  else return nullptr;
}
/// The same for many rows: columns of a large a lie in too many pages and lines to be read as they are.
template <class P, class TA, class TB, class TC>
const P* rows_as_is(const Problem<TA, TB, TC>& p) {
  return p.a_k == 1 || p.M * p.K <= Index{1} << 19 ? few_rows_as_is<P>(p) : nullptr;
}

}  // namespace weft::inline WEFT_ABI::kernels::gemm
