// Attention's blocks of float and bf16 on tile registers (Intel AMX). All sums and the softmax are float; for their products floats are split
// into three parts (gemm_split.hpp), and of bf16 the probabilities and the gradients of scores are rounded. Products leave out steps of 32 along
// K only where all their elements are zero, so that a column's bits know nothing of the others.
#pragma once

#include "weft/core/scratch.hpp"
#include "weft/kernels/cpu/attention_layout.hpp"
#include "weft/kernels/cpu/gemm_pack_split.hpp"

namespace weft::inline WEFT_ABI::kernels::attention {

template <class T> inline constexpr bool for_tiles = std::is_same_v<T, float> || std::is_same_v<T, bf16>;
/// True iff the functions below are used.
inline bool tiles_take(const Sizes& n) { return bf16_tiles() && n.D > 0; }

#if defined(__x86_64__)

/// What products on tile registers take instead of two elements of T.
template <class T> using Parts = gemm::Parts<std::is_same_v<T, float> ? 3 : 1>;
using gemm::round_up;

inline constexpr Index tile_step = 32;  ///< along K, of the tile registers: what products run along is filled up to its multiples with zeros

/// The left operand of products along `depth`: rows, a multiple of 16, of floats whose parts are taken.
template <int n>
void take_rows(gemm::Parts<n>* to, const float* from, Index stride, Index rows, Index depth) {
  for (Index r = 0; r < rows; r += 32) {
    const Index high = std::min<Index>(32, rows - r);
    for (Index k = 0; k < depth; k += tile_step) gemm::split_rows<n>(gemm::words(to + (r * depth + k * high) / 2), from + r * stride + k, stride, high, 0);
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

/// c (rows, columns) = or += a (rows, depth) b (depth, columns) in the steps that of(row, column) tells for a block from there on.
template <int n, class Of>
void multiply_tiles(Index rows, Index columns, Index depth, const gemm::Parts<n>* a, const gemm::Parts<n>* b, float* c, Index c_row, bool add, Of of) {
  constexpr gemm::Micro<gemm::Parts<n>> micro[2][2] = {{gemm::micro_split<16, 1, n>, gemm::micro_split<16, 2, n>},
                                                       {gemm::micro_split<32, 1, n>, gemm::micro_split<32, 2, n>}};
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

/// The keys or values that `uses` blocks of columns of one head see, block by block as left operands: along D, or turned, along the keys. All
/// at once where that pays.
template <class T>
class KeyTiles {
 public:
  KeyTiles(const In<T, cpu>& x, const Columns& columns, Index begin, Index end, Index uses, bool turned)
      : x_(x), columns_(columns), begin_(begin), depth_(round_up(x.shape[3], tile_step)), turned_(turned),
        all_(uses > 1 && (end - begin) * depth_ <= most), parts_((all_ ? round_up(end - begin, block) : block) * depth_ / 2) {
    for (Index j = begin; all_ && j < end; j += block) take(j, std::min(block, end - j), at(j));
  }

  /// `count` of them from j on. Another call may overwrite them.
  const Parts<T>* at(Index j, Index count) const {
    if (!all_) take(j, count, parts_.data());
    return at(j);
  }

 private:
  Parts<T>* at(Index j) const { return parts_.data() + (all_ ? (j - begin_) * depth_ / 2 : 0); }

  void take(Index j, Index count, Parts<T>* to) const {
    const KeyRows<T> rows(x_, columns_, j, count);
    const Index D = rows.width;
    const Scratch<float> room(block * depth_);
    if (turned_) {
      if (count < block) std::fill_n(room.data(), D * block, 0.0f);
      pack_columns<T>(rows, 1, room.data(), block * x_.strides[1]);
      std::fill(room.data() + D * block, room.data() + depth_ * block, 0.0f);
      take_rows(to, room.data(), block, round_up(D, 16), block);
    } else {
      pack_rows<T>(rows, 1, room.data(), depth_, block * x_.strides[1]);
      std::fill(room.data() + count * depth_, room.data() + block * depth_, 0.0f);
      take_rows(to, room.data(), depth_, block, depth_);
    }
  }

  static constexpr Index most = Index{1} << 20;  // elements that are taken at once: 6 MiB of a thread for each of keys and values

  const In<T, cpu> x_;
  const Columns& columns_;
  Index begin_, depth_;
  bool turned_, all_;
  Scratch<Parts<T>> parts_;
};

inline void scale_block(float* scores, Index keys, Index lanes, float scale) {
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

  /// Zeros where the mask hides whole steps of keys, and beside the columns up to a whole step.
  void clear_rest(float* scores) const {
    for (Index r = 0; r < block; ++r) {
      float* const row = scores + r * block;
      std::fill_n(row, r < keys ? mask.start[r / 16] : lanes, 0.0f);
      std::fill(row + lanes, row + round_up(lanes, tile_step), 0.0f);
    }
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

/// As forward_block.
template <class T>
void forward_block_tiles(const Sizes& n, const In<T, cpu>& q, const KeyTiles<T>& key_tiles, const KeyTiles<T>& value_tiles, const Out<T, cpu>& y,
                         const Out<float, cpu>& lse, const Columns& columns) {
  const gemm::TileShapesInUse shapes;
  const Index width = n.width(), depth = round_up(n.D, tile_step), lanes = columns.lanes(), count = columns.count;
  const float scale = static_cast<float>(n.scale);
  constexpr bool split = std::is_same_v<T, float>;  // else scale would round q
  const Scratch<float> floats(block * (depth + block));
  float *const y_t = floats.data(), *const scores = y_t + depth * block;  // (D, columns), (keys, columns)
  const Scratch<Parts<T>> parts(block * (depth + block) / 2);
  Parts<T> *const query = parts.data(), *const p = query + block * depth / 2;
  alignas(64) float top[block], sum[block], factor[block];
  Mask<float> mask;

  take_along_width<T>(query, q, columns, split ? scale : 1, y_t);
  std::fill_n(top, block, n.limited() ? std::numeric_limits<float>::lowest() : -std::numeric_limits<float>::infinity());
  std::fill_n(sum, block, 0.0f);
  const Index begin = n.keys_from(columns.b, columns.first), end = n.keys_seen(columns.first + count - 1);
  if (end == 0) std::fill_n(y_t, width * block, 0.0f);
  for (Index j = begin; j < end; j += block) {
    const Index keys = std::min(block, end - j);
    columns.mask(n, j, keys, mask);
    const Seen seen{mask, keys, lanes};
    multiply_tiles(round_up(keys, 32), lanes, depth, key_tiles.at(j, keys), query, scores, block, false, seen.along_width(depth));
    if (!split) scale_block(scores, keys, lanes, scale);
    if (mask.low) hide_before_first<float>(scores, keys, lanes, &mask);
    bool moved;
    softmax_step<float>(scores, keys, lanes, &mask, top, sum, factor, &moved);
    if (j > begin && moved)
      simd([=, f = factor]() WEFT_INLINE {
        for (Index d = 0; d < width; ++d)
#pragma omp simd
          for (Index c = 0; c < lanes; ++c) y_t[d * block + c] *= f[c];
      });
    seen.clear_rest(scores);
    take_columns(p, scores, block, block, lanes);
    multiply_tiles(width, lanes, block, value_tiles.at(j, keys), p, y_t, block, j > begin, seen.along_keys());
  }
  softmax_end<float>(top, sum, factor);
  if (y) {
    Index at[block];
    columns.find(y.strides, at);
    unpack_columns<T>(y_t, factor, {y.data, at, count, n.D}, y.beta);
  }
  if (lse)
    for (Index c = 0; c < count; ++c) put(lse.data[columns.find_statistic(lse.strides, c)], top[c], lse.beta);
}

/// As Backward::column_block, of a Backward b. The sums have rows up to a multiple of 16.
template <class T, class Backward>
void column_block_tiles(const Backward& b, const Columns& columns, const KeyTiles<T>& key_tiles, const KeyTiles<T>& value_tiles,
                        const KeyTiles<T>& turned_keys, float* dk_sum, float* dv_sum, Index& reached) {
  const gemm::TileShapesInUse shapes;
  const Sizes& n = b.n;
  const Index D = n.D, width = n.width(), depth = round_up(D, tile_step), lanes = columns.lanes(), count = columns.count;
  const float scale = static_cast<float>(n.scale);
  constexpr bool split = std::is_same_v<T, float>;
  const Scratch<float> floats(block * (2 * depth + 2 * block));
  float *const dq_t = floats.data(), *const room = dq_t + depth * block;  // (D, columns)
  float *const scores = room + depth * block, *const gradient = scores + block * block;  // (keys, columns): s, then p; dp, then ds
  const Scratch<Parts<T>> parts(block * (4 * depth + block) / 2);
  Parts<T> *const query = parts.data(), *const query_rows = query + block * depth / 2, *const dy = query_rows + block * depth / 2;
  Parts<T> *const dy_rows = dy + block * depth / 2, *const operand = dy_rows + block * depth / 2;  // of scores or gradient
  alignas(64) float statistics[block] = {}, delta[block], scales[block];
  Mask<float> mask;
  Index at[block];

  columns.find(b.y.strides, at);
  pack_columns<T>({b.y.data, at, count, D}, 1, dq_t);
  take_along_columns<T>(query_rows, b.q, columns, split ? scale : 1, room);
  take_along_columns<T>(dy_rows, b.dy, columns, 1, room);
  take_along_width<T>(query, b.q, columns, split ? scale : 1, room);
  take_along_width<T>(dy, b.dy, columns, 1, room);
  column_dots<float>(dq_t, room, D, lanes, delta);
  for (Index c = 0; c < count; ++c) statistics[c] = b.lse.data[columns.find_statistic(b.lse.strides, c)];

  const Index begin = n.keys_from(columns.b, columns.first), end = n.keys_seen(columns.first + count - 1);
  for (Index j = begin; j < end; j += block) {
    const Index keys = std::min(block, n.Tk - j), rows = round_up(keys, 16);
    columns.mask(n, j, keys, mask);
    const Seen seen{mask, keys, lanes};
    multiply_tiles(round_up(keys, 32), lanes, depth, key_tiles.at(j, keys), query, scores, block, false, seen.along_width(depth));
    multiply_tiles(round_up(keys, 32), lanes, depth, value_tiles.at(j, keys), dy, gradient, block, false, seen.along_width(depth));
    if (!split) scale_block(scores, keys, lanes, scale);
    if (mask.low) hide_before_first<float>(scores, keys, lanes, &mask);
    softmax_gradient<float>(scores, gradient, keys, lanes, &mask, statistics, delta);
    if (!split) scale_block(gradient, keys, lanes, scale);
    seen.clear_rest(scores);
    seen.clear_rest(gradient);
    const Index along = round_up(lanes, tile_step);
    const bool again = j / block < reached;
    if (b.dv) {
      take_rows(operand, scores, block, rows, along);
      multiply_tiles(rows, width, along, operand, dy_rows, dv_sum + j * width, width, again, seen.along_columns());
    }
    if (b.dk) {
      take_rows(operand, gradient, block, rows, along);
      multiply_tiles(rows, width, along, operand, query_rows, dk_sum + j * width, width, again, seen.along_columns());
    }
    if (b.dq) {
      take_columns(operand, gradient, block, block, lanes);
      multiply_tiles(width, lanes, block, turned_keys.at(j, keys), operand, dq_t, block, j > begin, seen.along_keys());
    }
  }
  reached = std::max(reached, (end + block - 1) / block);
  if (b.dq) {
    std::fill_n(scales, block, split ? scale : 1);
    if (end == 0) std::fill_n(dq_t, width * block, 0.0f);
    columns.find(b.dq.strides, at);
    unpack_columns<T>(dq_t, scales, {b.dq.data, at, count, D}, b.dq.beta);
  }
}

#endif

}  // namespace weft::inline WEFT_ABI::kernels::attention
