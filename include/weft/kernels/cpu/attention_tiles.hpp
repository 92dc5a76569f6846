// Attention's blocks of float and bf16 on tile registers (Intel AMX). All sums and the softmax are float; for their products floats are split
// into three parts (gemm_split.hpp), and of bf16 the probabilities and the gradients of scores are rounded. Products leave out steps of 32 along
// K only where all their elements are zero, so that a column's bits know nothing of the others.
#pragma once

#include "weft/core/scratch.hpp"
#include "weft/kernels/cpu/attention_layout.hpp"
#include "weft/kernels/cpu/gemm_pack_split.hpp"
#include "weft/kernels/cpu/gemm_tiles.hpp"

namespace weft::inline WEFT_ABI::kernels::attention {

template <class T> inline constexpr bool for_tiles = std::is_same_v<T, float> || std::is_same_v<T, bf16>;
/// True iff the functions below are used: the head's width alone decides. Of float, narrow heads are as quick by multiply-adds, and short
/// contexts of them quicker.
template <class T> bool tiles_take(const Sizes& n) { return bf16_tiles() && n.D > (std::is_same_v<T, float> ? 32 : 0); }

#if defined(__x86_64__)

/// What products on tile registers take instead of two elements of T.
template <class T> using Parts = gemm::Parts<gemm::parts_of<T>>;
using gemm::round_up;

inline constexpr Index tile_step = 32;  ///< along K, of the tile registers: what products run along is filled up to its multiples with zeros

/// The left operand of products along `depth`: rows, a multiple of 16, of floats whose parts are taken. Fetches what lies `ahead` of them.
template <int n>
void take_rows(gemm::Parts<n>* to, const float* from, Index stride, Index rows, Index depth, Index ahead = 0) {
  for (Index r = 0; r < rows; r += 32) {
    const Index high = std::min<Index>(32, rows - r);
    for (Index k = 0; k < depth; k += tile_step) gemm::split_rows<n>(gemm::words(to + (r * depth + k * high) / 2), from + r * stride + k, stride, high, ahead);
  }
}
/// The right operand: columns, a multiple of 16.
template <int n>
void take_columns(gemm::Parts<n>* to, const float* from, Index stride, Index depth, Index columns) {
  for (Index j = 0; j < columns; j += 32) {
    const Index wide = std::min<Index>(32, columns - j);
    for (Index k = 0; k < depth; k += tile_step) gemm::split_lines<n>(gemm::words(to + (j * depth + k * wide) / 2), from + k * stride + j, stride, wide, 0);
  }
}

/// A range of what a product runs along, in steps.
struct Steps {
  Index begin, end;
};

/// c (rows, columns) = or += a (rows, depth) b (depth, columns) in the steps that of(row, column) tells for a block from there on. `turned`: the
/// bits are those of the transposed product.
template <bool turned = false, int n, class Of>
void multiply_tiles(Index rows, Index columns, Index depth, const gemm::Parts<n>* a, const gemm::Parts<n>* b, float* c, Index c_row, bool add, Of of) {
  constexpr gemm::Micro<gemm::Parts<n>> micro[2][2] = {{gemm::micro_split<16, 1, n, turned>, gemm::micro_split<16, 2, n, turned>},
                                                       {gemm::micro_split<32, 1, n, turned>, gemm::micro_split<32, 2, n, turned>}};
  for (Index j = 0; j < columns; j += 32)
    for (Index i = 0; i < rows; i += 32) {
      const Steps steps = of(i, j);
      const Index count = std::max<Index>(0, steps.end - steps.begin), high = std::min<Index>(32, rows - i), wide = std::min<Index>(32, columns - j);
      if (add && count == 0) continue;
      micro[high / 32][wide / 32](count * tile_step / 2, a + (i * depth + steps.begin * tile_step * high) / 2, 0, 0,
                                  b + (j * depth + steps.begin * tile_step * wide) / 2, 0, c + i * c_row + j, c_row,
                                  add ? gemm::Into::resume : gemm::Into::assign, a + (i + 32) * depth / 2);
    }
}

/// A block of columns, times scale, as the right operand of products along D; room for (D in whole steps, 64).
template <class T>
void take_along_width(Parts<T>* to, const In<T, cpu>& x, const Columns& columns, float scale, float* room) {
  const Index D = x.shape[3], depth = round_up(D, tile_step);
  Index at[block];
  columns.find(x.strides, at);
  pack_columns<T>({x.data, at, columns.count, D}, scale, room);
  std::fill(room + D * block, room + depth * block, 0.0f);
  take_columns(to, room, block, depth, columns.lanes());
}
/// The same along the columns; room for (64, D up to a multiple of 16).
template <class T>
void take_along_columns(Parts<T>* to, const In<T, cpu>& x, const Columns& columns, float scale, float* room) {
  const Index D = x.shape[3], width = round_up(D, 16), depth = round_up(columns.count, tile_step);
  Index at[block];
  columns.find(x.strides, at);
  pack_rows<T>({x.data, at, columns.count, D}, scale, room, width);
  std::fill(room + columns.count * width, room + depth * width, 0.0f);
  take_columns(to, room, width, depth, width);
}

/// A block of keys or values of one head as left operand: along D, or turned, along the keys. What follows it is fetched.
template <class T>
void take_keys(Parts<T>* to, const In<T, cpu>& x, const Columns& columns, Index first, Index count, bool turned, float* room) {
  const KeyRows<T> rows(x, columns, first, count);
  const Index D = rows.width, depth = round_up(D, tile_step), ahead = block * x.strides[1];
  if (turned) {
    if (count < block) std::fill_n(room, D * block, 0.0f);
    pack_columns<T>(rows, 1, room, ahead);
    std::fill(room + D * block, room + depth * block, 0.0f);
    take_rows(to, room, block, round_up(D, 16), block);
  } else {
    if constexpr (std::is_same_v<T, float>)
      if (D == depth && count == block) return take_rows(to, rows.data, x.strides[1], block, depth, ahead);
    pack_rows<T>(rows, 1, room, depth, ahead);
    std::fill(room + count * depth, room + block * depth, 0.0f);
    take_rows(to, room, depth, block, depth);
  }
}

inline void scale_block(float* scores, Index keys, Index lanes, float scale) {
  if (scale == 1) return;
  simd([=]() WEFT_INLINE {
    for (Index r = 0; r < keys; ++r)
#pragma omp simd
      for (Index c = 0; c < lanes; ++c) scores[r * block + c] *= scale;
  });
}

/// A block of (keys, columns) and which of it is not zero.
struct Seen {
  const Mask<float>& mask;
  Index keys, lanes;

  /// Zeros where the mask hides whole steps of keys, in rows past the keys, and beside the columns up to a whole step.
  void clear_rest(float* scores) const {
    if (mask.step < block)
      for (Index r = 0; r < keys; ++r) std::fill_n(scores + r * block, mask.start[r / 16], 0.0f);
    if (keys < block) std::fill(scores + keys * block, scores + block * block, 0.0f);
    if (const Index wide = round_up(lanes, tile_step); lanes < wide)
      for (Index r = 0; r < keys; ++r) std::fill(scores + r * block + lanes, scores + r * block + wide, 0.0f);
  }
  /// Of a sum over D, for a block of keys and of columns.
  auto along_width(Index depth) const {
    return [=, this](Index key, Index column) -> Steps { return {0, mask.start[key / 16] < column + 32 ? depth / tile_step : 0}; };
  }
  /// Of a sum over the keys, for a block of columns.
  auto along_keys() const {
    return [this](Index, Index column) -> Steps {
      Index end = 0;
      while (end * tile_step < keys && mask.start[end * tile_step / 16] < column + 32) ++end;
      return {0, end};
    };
  }
  /// Of a sum over the columns, for a block of keys.
  auto along_columns() const {
    return [this](Index key, Index) -> Steps { return {mask.start[key / 16] / tile_step, (lanes + tile_step - 1) / tile_step}; };
  }
};

#endif

}  // namespace weft::inline WEFT_ABI::kernels::attention
