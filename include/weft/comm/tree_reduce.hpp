// Several arrays into one, element by element, in a fixed tree over the arrays: what ranks and micro-batches are summed with.
#pragma once

#include <bit>
#include <cassert>

#include "weft/core/parallel.hpp"
#include "weft/core/simd.hpp"
#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI {

enum class Reduce : std::uint8_t { sum, max };

namespace comm {

namespace detail {
inline constexpr Index tree_block = 512, tree_levels = 16;
}

/// y[i] = x[0][i] + x[1][i] + ..., of n elements each. Node (k, j) of the tree covers arrays [j 2^k, (j + 1) 2^k), the left child
/// first, and the last node of a level ends with the arrays. Summed in stat_t<T>, rounded once; y may be one of the arrays; at most
/// 2^15 of them. With Reduce::max the largest, NaN where any is NaN.
template <class T>
void tree_reduce(Reduce how, const T* const* x, Index count, T* y, Index n) {
  using S = stat_t<T>;
  assert(count > 0 && count < (Index{1} << 15));
  parallel_ranges(n, piece_size, [&](Index begin, Index end) {
    alignas(64) S stack[detail::tree_levels * detail::tree_block];  // nodes that wait for their right sibling, the largest first
    S* const nodes = stack;
    simd([=]() WEFT_INLINE {
      for (Index from = begin; from < end; from += detail::tree_block) {
        const Index m = end - from < detail::tree_block ? end - from : detail::tree_block;
        Index depth = 0;
        for (Index k = 0; k < count; ++k) {
          const T* const leaf = x[k] + from;
          S* const node = nodes + depth++ * detail::tree_block;
#pragma omp simd
          for (Index i = 0; i < m; ++i) node[i] = static_cast<S>(leaf[i]);
          // After array k its completed subtrees merge; after the last all that wait do, from the right.
          const Index merges = k + 1 == count ? depth - 1 : std::countr_one(static_cast<std::uint64_t>(k));
          for (Index merge = 0; merge < merges; ++merge, --depth) {
            S* const left = nodes + (depth - 2) * detail::tree_block;
            const S* const right = left + detail::tree_block;
            if (how == Reduce::sum) {
#pragma omp simd
              for (Index i = 0; i < m; ++i) left[i] = static_cast<S>(left[i] + right[i]);
            } else {
#pragma omp simd
              for (Index i = 0; i < m; ++i) left[i] = ((left[i] > right[i]) | (left[i] != left[i])) ? left[i] : right[i];
            }
          }
        }
#pragma omp simd
        for (Index i = 0; i < m; ++i) y[from + i] = static_cast<T>(nodes[i]);
      }
    });
  });
}

}  // namespace comm
}  // namespace weft::inline WEFT_ABI
