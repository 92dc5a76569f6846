// Which tile of which expert a block of a grouped product works on.
#pragma once

#include <cstdint>

#include "weft/kernels/cuda/launch.cuh"
#include "weft/kernels/math.hpp"

namespace weft::inline WEFT_ABI::kernels::gpu {

/// What the offsets cut: the rows of a and c (y = x w[e]), or the sum (dw[e] = x^T dy).
enum class Cut { rows, sum };

/// c (M, N) (+)= a (M, K) b (K, N) of each expert, where M or K is that of all experts together: `rows`. c has stride 1 along N. An operand
/// that the offsets cut may be read through a list: its row r is then row a_rows[r] (b_rows[r]) of a (b).
template <class TA, class TB, class TC>
struct Grouped {
  const TA* a;
  const TB* b;
  TC* c;
  const std::int64_t* offsets;
  Index M, N, K, E, rows;
  Index a_m, a_k, b_k, b_n, b_e, c_m, c_e;
  int beta;
  const int* a_rows = nullptr;
  const int* b_rows = nullptr;
};

/// One expert's product and a tile's corner in it. With a list, the operand begins where all experts' does and the list where the expert's
/// rows do.
template <class TA, class TB, class TC>
struct Place {
  const TA* a;
  const TB* b;
  TC* c;
  Index M, N, K, m0, n0;
  const int *a_rows, *b_rows;

  /// Of the expert whose cut begins at row `begin` of an operand with this stride from row to row.
  template <class T>
  __device__ static const T* from(const T* data, const int* list, Index begin, Index stride) {
    return list != nullptr ? data : data + begin * stride;
  }
  __device__ static const int* from(const int* list, Index begin) { return list != nullptr ? list + begin : nullptr; }
};

/// The i-th of an expert's tiles, in bands of 16 down the rows: blocks that run together then share rows of a and columns of b.
template <class I>
__device__ inline void tile_corner(I i, I m_tiles, I n_tiles, int tile_m, int tile_n, I& m0, I& n0) {
  constexpr I high = 16;
  const I band = i / (high * n_tiles), rest = i - band * high * n_tiles, left = m_tiles - band * high;
  const I rows = left < high ? left : high;
  m0 = (band * high + rest % rows) * tile_m;
  n0 = rest / rows * tile_n;
}

/// False past the last tile. All warps find the same. Offsets that do not rise from 0 to rows are cut to what lies inside: wrong, never out of bounds.
template <Cut cut, int tile_m, int tile_n, class TA, class TB, class TC>
__device__ inline bool find_place(const Grouped<TA, TB, TC>& g, Place<TA, TB, TC>& p) {
  constexpr unsigned all = 0xffffffffu;
  const auto begin_of = [&](Index e) { return min(max(static_cast<Index>(g.offsets[e]), Index{0}), g.rows); };
  const auto end_of = [&](Index e, Index begin) { return min(max(static_cast<Index>(g.offsets[e + 1]), begin), g.rows); };
  const Index n_tiles = (g.N + tile_n - 1) / tile_n;
  Index i = blockIdx.x;
  if constexpr (cut == Cut::sum) {
    const Index m_tiles = (g.M + tile_m - 1) / tile_m, e = i / (m_tiles * n_tiles);
    if (e >= g.E) return false;
    i %= m_tiles * n_tiles;
    const Index begin = begin_of(e), end = end_of(e, begin);
    using P = Place<TA, TB, TC>;
    p = {P::from(g.a, g.a_rows, begin, g.a_k), P::from(g.b, g.b_rows, begin, g.b_k), g.c + e * g.c_e, g.M, g.N, end - begin, 0, 0,
         P::from(g.a_rows, begin), P::from(g.b_rows, begin)};
    tile_corner(i, m_tiles, n_tiles, tile_m, tile_n, p.m0, p.n0);
    return true;
  } else {
    const int lane = static_cast<int>(threadIdx.x % 32);
    for (Index e0 = 0; e0 < g.E; e0 += 32) {  // a lane an expert
      Index begin = 0, count = 0;
      if (e0 + lane < g.E) {
        begin = begin_of(e0 + lane);
        count = end_of(e0 + lane, begin) - begin;
      }
      const Index tiles = (count + tile_m - 1) / tile_m * n_tiles;
      Index upto = tiles;
      for (int step = 1; step < 32; step *= 2) {
        const Index before = __shfl_up_sync(all, upto, step);
        if (lane >= step) upto += before;
      }
      const unsigned beyond = __ballot_sync(all, upto > i);
      if (beyond != 0) {
        const int owner = __ffs(static_cast<int>(beyond)) - 1;
        i -= __shfl_sync(all, upto - tiles, owner);
        begin = __shfl_sync(all, begin, owner);
        count = __shfl_sync(all, count, owner);
        const Index m_tiles = (count + tile_m - 1) / tile_m;
        using P = Place<TA, TB, TC>;
        p = {P::from(g.a, g.a_rows, begin, g.a_m), g.b + (e0 + owner) * g.b_e, g.c + begin * g.c_m, count, g.N, g.K, 0, 0,
             P::from(g.a_rows, begin), nullptr};
        tile_corner(i, m_tiles, n_tiles, tile_m, tile_n, p.m0, p.n0);
        return true;
      }
      i -= __shfl_sync(all, upto, 31);
    }
    return false;
  }
}

/// How tensor cores would read a grouped product's operands: in pieces of 16 bytes along one axis.
struct Reading {
  bool fits, b_along;  ///< b_along: b lies along K
};
/// Along K an operand whose K the offsets cut could start anywhere.
template <Cut cut, class T, class TC>
Reading reading_of(const Grouped<T, T, TC>& g) {
  constexpr Index most = 0x7fffffff;
  const auto aligned = [](const T* data, Index line, Index expert) {
    return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && line >= 0 && line < most && line % 8 == 0 && expert % 8 == 0;
  };
  const bool a_fits = cut == Cut::rows ? g.a_k == 1 && aligned(g.a, g.a_m, 0) : g.a_m == 1 && aligned(g.a, g.a_k, 0);
  const bool b_along = cut == Cut::rows && g.b_k == 1 && aligned(g.b, g.b_n, g.b_e);
  const bool one_list = cut == Cut::rows || g.a_rows == nullptr || g.b_rows == nullptr;
  return {a_fits && one_list && (b_along || (g.b_n == 1 && aligned(g.b, g.b_k, g.b_e))), b_along};
}

/// Blocks for as many tiles as there can be: each expert's last is at worst one row.
template <Cut cut, class G>
unsigned blocks_for_tiles(const G& g, Index tile) {
  const auto tiles = [tile](Index n) { return (n + tile - 1) / tile; };
  const Index high = cut == Cut::rows ? (g.rows + g.E * (tile - 1)) / tile : g.E * tiles(g.M);
  return static_cast<unsigned>(high * tiles(g.N));
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu
