// Packing for products of split floats: see SplitPair.
#pragma once

#include "weft/kernels/cpu/gemm_pack.hpp"
#include "weft/kernels/cpu/gemm_problem.hpp"

namespace weft::inline WEFT_ABI::kernels::gemm {

#if defined(__x86_64__)

/// The n parts of 32 lines of so many columns, as a panel has them. What lies `ahead` is fetched.
template <int n = 3>
WEFT_TILES inline void split_lines(Pair* to, const float* from, Index row, Index columns, Index ahead) {
  for (Index i = 0; i < 16; ++i)
    for (Index j = 0; j < columns; j += 16) {
      const float *const low = from + i * row + j, *const high = low + 16 * row;
      __builtin_prefetch(low + ahead, 0, 2);
      __builtin_prefetch(high + ahead, 0, 2);
      split<n>(low, high, to + 16 * j + 16 * i, 16 * columns);
    }
}
/// The n parts of so many rows of 32 columns, as a block has them.
template <int n = 3>
WEFT_TILES inline void split_rows(Pair* to, const float* from, Index row, Index rows, Index ahead) {
  for (Index r = 0; r < rows; ++r) {
    const float *const low = from + r * row, *const high = low + 16;
    __builtin_prefetch(low + ahead, 0, 2);
    __builtin_prefetch(high + ahead, 0, 2);
    split<n>(low, high, to + 16 * r, 16 * rows);
  }
}

/// K floats, `step` apart, become one column of panels, words `row` apart.
WEFT_TILES inline void split_column(Pair* to, Index row, const float* from, Index step, Index K) {
  alignas(64) float x[32];
  alignas(64) Pair parts[3 * 16];
  for (Index k = 0; k < K; k += 32, to += 3 * 16 * row) {
    const Index valid = std::min<Index>(32, K - k);
    for (Index i = 0; i < valid; ++i) x[i] = from[(k + i) * step];
    std::fill(x + valid, x + 32, 0.0f);
    split(x, x + 16, parts, 16);
    for (Index i = 0; i < 3 * 16; ++i) to[i * row] = parts[i];
  }
}

/// Room for (rows, columns), at most 32 x 32, where they lie as they must to be split: copied, and filled up with zeros to (to_rows, to_row).
struct Straightened {
  alignas(64) float room[32 * 32];

  const float* operator()(const float* from, Index row, Index column, Index rows, Index columns, Index to_rows, Index to_row, Index ahead) {
    if (rows < to_rows || columns < to_row) std::fill(room, room + to_rows * to_row, 0.0f);
    const Index lines = column == 1 ? rows : columns, line = column == 1 ? row : column;
    for (Index i = 0; i < lines; ++i) {
      __builtin_prefetch(from + i * line + ahead, 0, 2);
      __builtin_prefetch(from + i * line + ahead + 16, 0, 2);
    }
    simd([to = room, to_row, from, row, column, rows, columns]() WEFT_INLINE { copy_block(to, to_row, from, row, column, rows, columns); });
    return room;
  }
};

inline void pack_columns(SplitPair* to, const float* from, Index k, Index n, Index b_k, Index b_n, const MicroKernels<SplitPair>& micro, Index begin,
                         Index end, Index missing = 0, Index /*ahead: it fetches by itself*/ = 0) {
  Straightened straight;
  const auto pack = [&](Index i, Index j, Index wide, Index ahead) {
    const Index columns = std::min(wide, n - j), valid = std::min<Index>(32, 2 * (k - i) - missing);
    const float* const source = from + 2 * i * b_k + j * b_n;
    Pair* const panel = words(to + j * k + i * wide);
    if (b_n == 1 && columns == wide && valid == 32) split_lines(panel, source, b_k, wide, ahead);
    else split_lines(panel, straight(source, b_k, b_n, valid, columns, 32, wide, ahead), wide, wide, 0);
  };
  const auto panels = [&](auto f) {
    for (Index j = 0, wide = 0; j < end; j += wide) {
      wide = micro.panel(n - j);
      if (j >= begin) f(j, wide);
    }
  };
  // In the order in which the source lies, and what comes next of it is fetched.
  if (b_n == 1)
    for (Index i = 0; i < k; i += tile_pairs) panels([&](Index j, Index wide) { pack(i, j, wide, 32 * b_k); });
  else
    panels([&](Index j, Index wide) { for (Index i = 0; i < k; i += tile_pairs) pack(i, j, wide, wide * b_n); });
}

inline void pack_rows(SplitPair* to, const float* from, Index m, Index k, Index a_m, Index a_k, Index rows, Index missing = 0) {
  Straightened straight;
  const auto pack = [&](Index r, Index i, Index high) {
    const float* const source = from + r * a_m + 2 * i * a_k;
    const Index valid = std::min<Index>(32, 2 * (k - i) - missing);
    Pair* const block = words(to + r * k + i * high);
    if (a_k == 1 && valid == 32) split_rows(block, source, a_m, high, 2 * k);
    else split_rows(block, straight(source, a_m, a_k, high, valid, high, 32, 32 * a_k), 32, high, 0);
  };
  MicroKernels<SplitPair> blocks = micro_kernels<SplitPair>();
  blocks.rows = rows;
  if (a_m == 1)
    for (Index i = 0; i < k; i += tile_pairs) row_blocks(blocks, m, [&](Index r, Index high, int) { pack(r, i, high); });
  else
    row_blocks(blocks, m, [&](Index r, Index high, int) {
      for (Index i = 0; i < k; i += tile_pairs) pack(r, i, high);
    });
}

#endif

}  // namespace weft::inline WEFT_ABI::kernels::gemm
