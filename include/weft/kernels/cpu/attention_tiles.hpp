// Attention's blocks of bf16 on tile registers (Intel AMX): probabilities and the gradients of scores are rounded to bf16 for their products,
// all sums and the softmax are float. Products run over whole blocks of keys, with zeros where a column sees none, so that a column's bits
// know nothing of the others.
#pragma once

#include "weft/core/scratch.hpp"
#include "weft/kernels/cpu/attention_layout.hpp"
#include "weft/kernels/cpu/gemm_pack.hpp"
#include "weft/kernels/cpu/gemm_problem.hpp"

namespace weft::inline WEFT_ABI::kernels::attention {

using gemm::Pair;

/// True iff the functions below are used: it depends on the head's width alone.
inline bool tiles_take(const Sizes& n) { return bf16_tiles() && n.D > 0 && n.D % 2 == 0; }

/// c (rows, columns) = or += a (rows, pairs) b (pairs, columns), columns a multiple of 16.
inline void multiply_pairs(Index rows, Index columns, Index pairs, const Pair* a, Index a_row, const Pair* b, Index b_row, float* c, Index c_row,
                           bool add) {
  const gemm::MicroKernels<Pair> micro = gemm::micro_kernels<Pair>();
  for (Index j = 0, wide = 0; j < columns; j += wide) {
    wide = micro.panel(columns - j);
    gemm::row_blocks(micro, rows, [&](Index i, Index, int log) {
      micro.block[wide / micro.width - 1][log](pairs, a + i * a_row, a_row, 1, b + j, b_row, c + i * c_row + j, c_row,
                                               add ? gemm::Into::resume : gemm::Into::assign, b);
    });
  }
}

/// The rows of 64 columns: as they are, in pairs along D with a column each, and in pairs of columns.
struct ColumnRows {
  Index depth, width;   ///< pairs along D, and D rounded up to 16
  bf16* rows;           ///< (columns, D)
  Pair* along_width;    ///< (depth, 64)
  Pair* along_columns;  ///< (32, width)

  static Index size(const Sizes& n) { return block * n.D / 2 + n.D / 2 * block + block / 2 * n.width(); }

  ColumnRows(const Sizes& n, Pair* memory)
      : depth(n.D / 2), width(n.width()), rows(reinterpret_cast<bf16*>(memory)), along_width(memory + block * depth),
        along_columns(along_width + depth * block) {}

  void read(const In<bf16, cpu>& x, const Columns& columns, bool pairs_of_columns) {
    Index at[block];
    columns.find(x.strides, at);
    const Index lanes = columns.lanes(), D = 2 * depth;
    for (Index c = 0; c < columns.count; ++c) std::copy_n(x.data + at[c], D, rows + c * D);
    std::fill_n(rows + columns.count * D, (lanes - columns.count) * D, bf16(0.0f));
    simd([=, this]() WEFT_INLINE {
      gemm::copy_block(reinterpret_cast<float*>(along_width), block, reinterpret_cast<const float*>(rows), 1, depth, depth, lanes);
      if (!pairs_of_columns) return;
      gemm::copy_pairs(along_columns, width, rows, D, 1, lanes / 2, D, false);
      for (Index i = 0; i < lanes / 2; ++i) std::fill_n(along_columns + i * width + D, width - D, Pair{});
    });
  }
};

/// A block of keys or values, its rows in pairs along D: in place where they are, else copied to `packed`.
struct KeyPairs {
  const Pair* data;
  Index row;

  KeyPairs(const In<bf16, cpu>& x, const Columns& columns, Index first, Index count, Pair* packed) {
    const KeyRows<bf16> rows(x, columns, first, count);
    data = reinterpret_cast<const Pair*>(rows.data);
    row = x.strides[1] / 2;
    if (x.strides[1] % 2 == 0) return;
    for (Index r = 0; r < count; ++r) std::copy_n(rows.data + rows.at[r], rows.width, reinterpret_cast<bf16*>(packed) + r * rows.width);
    data = packed;
    row = rows.width / 2;
  }
};

/// turned (D, 32): its rows run along the keys, in pairs.
inline void turn_keys(const In<bf16, cpu>& x, const Columns& columns, Index first, Index count, Pair* turned) {
  const KeyRows<bf16> rows(x, columns, first, count);
  gemm::turn_pairs(turned, block / 2, rows.data, rows.width, (count + 1) / 2, x.strides[1], count % 2 != 0);
}

/// The scores of the columns that the mask leaves, of a block of keys, times scale; or without it.
inline void scores_of(const KeyPairs& key, const ColumnRows& columns, Index keys, Index lanes, const Mask<float>& mask, float scale, float* scores) {
  for_steps(mask, keys, [&](Index from, Index to, Index start) {
    multiply_pairs(to - from, lanes - start, columns.depth, key.data + from * key.row, key.row, columns.along_width + start, block,
                   scores + from * block + start, block, false);
    if (scale == 1) return;
    simd([=]() WEFT_INLINE {
      for (Index r = from; r < to; ++r)
#pragma omp simd
        for (Index c = start; c < lanes; ++c) scores[r * block + c] *= scale;
    });
  });
}

/// f(c) for columns start..lanes, both multiples of 16, without a rest that no vector holds.
template <class F>
WEFT_INLINE inline void each_lane(Index start, Index lanes, F f) {
  Index c = start;
  for (; c + 32 <= lanes; c += 32)
#pragma omp simd simdlen(32)
    for (Index l = 0; l < 32; ++l) f(c + l);
  for (; c < lanes; c += 16)
#pragma omp simd simdlen(16)
    for (Index l = 0; l < 16; ++l) f(c + l);
}

/// scale times the scores in bf16, 0 where the mask hides whole steps: `rows` (keys, 32) in pairs of columns and `pairs` (32, 64) in pairs of
/// keys; either may be null.
inline void round_scores(const float* scores, Index keys, Index lanes, const Mask<float>* mask, float scale, Pair* rows, Pair* pairs) {
  simd([=]() WEFT_INLINE {
    for (Index r = 0; r < keys; ++r) {
      const Index start = mask->start[r / mask->step * mask->step / 16];
      const float *const low = scores + r * block, *const high = low + block;
      if (rows) {
        typedef std::uint16_t Bits __attribute__((may_alias));
        auto* const to = reinterpret_cast<Bits*>(rows + r * (block / 2));
        each_lane(start, lanes, [=](Index c) WEFT_INLINE { to[c] = bf16(scale * low[c]).bits; });
        std::fill_n(to, start, std::uint16_t{0});
      }
      if (pairs && r % 2 == 0) {
        typedef std::uint32_t Word __attribute__((may_alias));
        auto* const to = reinterpret_cast<Word*>(pairs + r / 2 * block);
        if (r + 1 < keys)
          each_lane(start, lanes, [=](Index c) WEFT_INLINE {
            to[c] = bf16(scale * low[c]).bits | static_cast<std::uint32_t>(bf16(scale * high[c]).bits) << 16;
          });
        else each_lane(start, lanes, [=](Index c) WEFT_INLINE { to[c] = bf16(scale * low[c]).bits; });
        std::fill_n(to, start, 0u);
      }
    }
  });
}

/// As forward_block.
inline void forward_block_tiles(const Sizes& n, const In<bf16, cpu>& q, const In<bf16, cpu>& k, const In<bf16, cpu>& v, const Out<bf16, cpu>& y,
                                const Out<float, cpu>& lse, const Columns& columns) {
  const gemm::TileShapesInUse shapes;
  const Index D = n.D, lanes = columns.lanes(), count = columns.count;
  const Scratch<float> floats(block * (D + block));
  float *const y_t = floats.data(), *const scores = y_t + D * block;  // (D, columns), (keys, columns)
  const Scratch<Pair> memory(ColumnRows::size(n) + block * D / 2 + D * block / 2 + block / 2 * block);
  ColumnRows query(n, memory.data());
  Pair *const packed = memory.data() + ColumnRows::size(n), *const turned = packed + block * D / 2, *const pairs = turned + D * block / 2;
  alignas(64) float top[block], sum[block], factor[block];
  Mask<float> mask;

  query.read(q, columns, false);
  std::fill_n(top, block, n.limited() ? std::numeric_limits<float>::lowest() : -std::numeric_limits<float>::infinity());
  std::fill_n(sum, block, 0.0f);
  const Index begin = n.keys_from(columns.b, columns.first), end = n.keys_seen(columns.first + count - 1);
  if (end == 0) std::fill_n(y_t, D * block, 0.0f);
  for (Index j = begin; j < end; j += block) {
    const Index keys = std::min(block, end - j);
    columns.mask(n, j, keys, mask);
    scores_of(KeyPairs(k, columns, j, keys, packed), query, keys, lanes, mask, static_cast<float>(n.scale), scores);
    if (mask.low) hide_before_first<float>(scores, keys, lanes, &mask);
    softmax_step<float>(scores, keys, lanes, &mask, top, sum, factor);
    if (j > begin)
      simd([=, f = factor]() WEFT_INLINE {
        for (Index d = 0; d < D; ++d)
#pragma omp simd
          for (Index c = 0; c < lanes; ++c) y_t[d * block + c] *= f[c];
      });
    round_scores(scores, keys, lanes, &mask, 1, nullptr, pairs);
    turn_keys(v, columns, j, keys, turned);
    multiply_pairs(D, lanes, (keys + 1) / 2, turned, block / 2, pairs, block, y_t, block, j > begin);
  }
  softmax_end<float>(top, sum, factor);
  if (y) {
    Index at[block];
    columns.find(y.strides, at);
    unpack_columns<bf16>(y_t, factor, {y.data, at, count, D}, y.beta);
  }
  if (lse)
    for (Index c = 0; c < count; ++c) put(lse.data[columns.find_statistic(lse.strides, c)], top[c], lse.beta);
}

/// As Backward::column_block, of a Backward p.
template <class P>
void column_block_tiles(const P& p, const Columns& columns, float* dk_sum, float* dv_sum, Index& reached) {
  const gemm::TileShapesInUse shapes;
  const Sizes& n = p.n;
  const Index D = n.D, width = n.width(), lanes = columns.lanes(), count = columns.count;
  const Scratch<float> floats(block * (2 * D + 2 * block));
  float *const dq_t = floats.data(), *const dy_t = dq_t + D * block;  // (D, columns)
  float *const scores = dy_t + D * block, *const gradient = scores + block * block;  // (keys, columns): s, then p; dp, then ds
  const Scratch<Pair> memory(2 * ColumnRows::size(n) + 2 * block * D / 2 + D * block / 2 + 3 * (block / 2 * block));
  ColumnRows query(n, memory.data()), dy(n, memory.data() + ColumnRows::size(n));
  Pair *const packed_k = memory.data() + 2 * ColumnRows::size(n), *const packed_v = packed_k + block * D / 2, *const turned = packed_v + block * D / 2;
  Pair *const p_rows = turned + D * block / 2, *const ds_rows = p_rows + block * block / 2, *const ds_pairs = ds_rows + block * block / 2;
  const auto scale = static_cast<float>(n.scale);
  alignas(64) float statistics[block] = {}, delta[block], ones[block];
  Mask<float> mask;
  Index at[block];

  columns.find(p.y.strides, at);
  pack_columns<bf16>({p.y.data, at, count, D}, 1, dq_t);
  columns.find(p.dy.strides, at);
  pack_columns<bf16>({p.dy.data, at, count, D}, 1, dy_t);
  column_dots<float>(dq_t, dy_t, D, lanes, delta);
  dy.read(p.dy, columns, true);
  query.read(p.q, columns, true);
  for (Index c = 0; c < count; ++c) statistics[c] = p.lse.data[columns.find_statistic(p.lse.strides, c)];

  const Index begin = n.keys_from(columns.b, columns.first), end = n.keys_seen(columns.first + count - 1);
  for (Index j = begin; j < end; j += block) {
    const Index keys = std::min(block, n.Tk - j);
    columns.mask(n, j, keys, mask);
    scores_of(KeyPairs(p.k, columns, j, keys, packed_k), query, keys, lanes, mask, scale, scores);
    scores_of(KeyPairs(p.v, columns, j, keys, packed_v), dy, keys, lanes, mask, 1, gradient);
    if (mask.low) hide_before_first<float>(scores, keys, lanes, &mask);
    softmax_gradient<float>(scores, gradient, keys, lanes, &mask, statistics, delta);
    const bool again = j / block < reached;
    if (p.dv) {
      round_scores(scores, keys, lanes, &mask, 1, p_rows, nullptr);
      multiply_pairs(keys, width, lanes / 2, p_rows, block / 2, dy.along_columns, width, dv_sum + j * width, width, again);
    }
    round_scores(gradient, keys, lanes, &mask, scale, p.dk ? ds_rows : nullptr, p.dq ? ds_pairs : nullptr);
    if (p.dk) multiply_pairs(keys, width, lanes / 2, ds_rows, block / 2, query.along_columns, width, dk_sum + j * width, width, again);
    if (p.dq) {
      turn_keys(p.k, columns, j, keys, turned);
      multiply_pairs(D, lanes, (keys + 1) / 2, turned, block / 2, ds_pairs, block, dq_t, block, j > begin);
    }
  }
  reached = std::max(reached, (end + block - 1) / block);
  if (p.dq) {
    std::fill_n(ones, block, 1.0f);
    if (end == 0) std::fill_n(dq_t, D * block, 0.0f);
    columns.find(p.dq.strides, at);
    unpack_columns<bf16>(dq_t, ones, {p.dq.data, at, count, D}, p.dq.beta);
  }
}

}  // namespace weft::inline WEFT_ABI::kernels::attention
