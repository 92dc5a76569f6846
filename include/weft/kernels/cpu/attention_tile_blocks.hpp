// Attention's blocks on tile registers: some blocks of columns go over the keys together, so that keys come from far and are taken once for all
// of them. Which columns go together changes no bit.
#pragma once

#include <optional>

#include "weft/kernels/cpu/attention_tiles.hpp"

namespace weft::inline WEFT_ABI::kernels::attention {

#if defined(__x86_64__)

inline constexpr Index together_most = 16;
/// How many blocks of columns go together: those whose `bytes` stay in the second cache.
inline Index together(Index bytes) { return std::clamp<Index>((Index{1} << 20) / bytes, 1, together_most); }

/// What columns are scaled by before products along D, and scores after them: bf16 would be rounded.
template <class T> float scale_before(const Sizes& n) { return std::is_same_v<T, float> ? static_cast<float>(n.scale) : 1; }
template <class T> float scale_after(const Sizes& n) { return std::is_same_v<T, float> ? 1 : static_cast<float>(n.scale); }

/// A block of columns on its way over the keys, with its online softmax.
template <class T>
class SoftmaxColumns {
 public:
  const Sizes& n;
  Columns columns;
  Index begin, end;  ///< of the keys

  SoftmaxColumns(const Sizes& n_, const In<T, cpu>& q, Index b, Index kv_head, Index index)
      : n(n_), columns(n, b, kv_head, index), begin(n.keys_from(b, columns.first)), end(n.keys_seen(columns.first + columns.count - 1)),
        y_(block * depth_), query_(block * depth_ / 2) {
    take_along_width<T>(query_.data(), q, columns, scale_before<T>(n), y_.data());
    std::fill_n(top_, block, n.limited() ? std::numeric_limits<float>::lowest() : -std::numeric_limits<float>::infinity());
    if (end == 0) std::fill_n(y_.data(), block * depth_, 0.0f);
  }
  static Index bytes(const Sizes& n) { return block * round_up(n.D, tile_step) * static_cast<Index>(4 + sizeof(Parts<T>) / 2); }

 protected:
  /// From a block of scores its probabilities, zero where a column sees none; what was summed before is to be scaled by factor where true.
  bool step(const Seen& seen, float* scores, float* factor) {
    scale_block(scores, seen.keys, seen.lanes, scale_after<T>(n));
    if (mask_.low) hide_before_first<float>(scores, seen.keys, seen.lanes, &mask_);
    bool moved;
    softmax_step<float>(scores, seen.keys, seen.lanes, &mask_, top_, sum_, factor, &moved);
    seen.clear_rest(scores);
    return moved;
  }
  /// After the last step lse, and y, which unpack(factor, rows) scales and stores.
  template <class Unpack>
  void store_by(const Out<T, cpu>& y, const Out<float, cpu>& lse, Unpack unpack) {
    alignas(64) float factor[block];
    Index at[block];
    softmax_end<float>(top_, sum_, factor);
    columns.find(y.strides, at);
    if (y) unpack(factor, Rows<T>{y.data, at, columns.count, n.D});
    if (lse)
      for (Index c = 0; c < columns.count; ++c) put(lse.data[columns.find_statistic(lse.strides, c)], top_[c], lse.beta);
  }

  Index depth_ = round_up(n.D, tile_step);
  Scratch<float> y_;
  Scratch<Parts<T>> query_;
  alignas(64) float top_[block], sum_[block] = {};
  Mask<float> mask_;
};

template <class T>
class ForwardColumns : public SoftmaxColumns<T> {
 public:
  using SoftmaxColumns<T>::SoftmaxColumns, SoftmaxColumns<T>::n, SoftmaxColumns<T>::columns, SoftmaxColumns<T>::begin, SoftmaxColumns<T>::end;

  /// One block of keys; room for scores (64, 64) and for their parts.
  void see(Index j, const Parts<T>* key, const Parts<T>* value, float* scores, Parts<T>* p) {
    const Index keys = std::min(block, end - j), lanes = columns.lanes(), width = n.width();
    float* const y_t = y_.data();  // (D, columns)
    columns.mask(n, j, keys, mask_);
    const Seen seen{mask_, keys, lanes};
    multiply_tiles<true>(round_up(keys, 32), lanes, depth_, key, query_.data(), scores, block, false, seen.along_width(depth_));
    alignas(64) float factor[block];
    if (this->step(seen, scores, factor) && j > begin)
      simd([=, f = factor]() WEFT_INLINE {
        for (Index d = 0; d < width; ++d)
#pragma omp simd
          for (Index c = 0; c < lanes; ++c) y_t[d * block + c] *= f[c];
      });
    take_columns(p, scores, block, block, lanes);
    multiply_tiles(width, lanes, block, value, p, y_t, block, j > begin, seen.along_keys());
  }

  void store(const Out<T, cpu>& y, const Out<float, cpu>& lse) {
    this->store_by(y, lse, [&](const float* factor, const Rows<T>& rows) { unpack_columns<T>(y_.data(), factor, rows, y.beta); });
  }

 private:
  using SoftmaxColumns<T>::depth_, SoftmaxColumns<T>::y_, SoftmaxColumns<T>::query_, SoftmaxColumns<T>::mask_;
};

/// y and lse of the blocks of columns from first to last.
template <class T>
void forward_tiles(const Sizes& n, const In<T, cpu>& q, const In<T, cpu>& k, const In<T, cpu>& v, const Out<T, cpu>& y, const Out<float, cpu>& lse,
                   Index b, Index kv_head, Index first, Index last) {
  const gemm::TileShapesInUse shapes;
  const Index depth = round_up(n.D, tile_step), most = together(ForwardColumns<T>::bytes(n));
  const Scratch<float> floats(block * std::max(depth, block));  // a block on its way, then scores
  const Scratch<Parts<T>> parts(block * (2 * depth + block) / 2);
  Parts<T> *const key = parts.data(), *const value = key + block * depth / 2, *const p = value + block * depth / 2;
  for (Index count = 0; first < last; first += count) {
    count = std::min(most, last - first);
    std::optional<ForwardColumns<T>> columns[together_most];
    for (Index i = 0; i < count; ++i) columns[i].emplace(n, q, b, kv_head, first + i);
    for (Index j = columns[0]->begin, end = columns[count - 1]->end; j < end; j += block) {
      take_keys<T>(key, k, columns[0]->columns, j, std::min(block, end - j), false, floats.data());
      take_keys<T>(value, v, columns[0]->columns, j, std::min(block, end - j), true, floats.data());
      for (Index i = 0; i < count; ++i)
        if (columns[i]->begin <= j && j < columns[i]->end) columns[i]->see(j, key, value, floats.data(), p);
    }
    for (Index i = 0; i < count; ++i) columns[i]->store(y, lse);
  }
}

/// A block of columns on its way over the keys, for the gradients of a Backward b.
template <class T, class Backward>
class BackwardColumns {
 public:
  const Backward& backward;
  const Sizes& n;
  Columns columns;
  Index begin, end;  ///< of the keys

  BackwardColumns(const Backward& p, Index b, Index kv_head, Index index, float* room)
      : backward(p), n(p.n), columns(n, b, kv_head, index), begin(n.keys_from(b, columns.first)), end(n.keys_seen(columns.first + columns.count - 1)),
        dq_t_(block * depth_), parts_(4 * block * depth_ / 2) {
    const Index count = columns.count;
    Index at[block];
    columns.find(p.y.strides, at);
    pack_columns<T>({p.y.data, at, count, n.D}, 1, dq_t_.data());
    take_along_columns<T>(query_rows(), p.q, columns, scale_before<T>(n), room);
    take_along_columns<T>(dy_rows(), p.dy, columns, 1, room);
    take_along_width<T>(query(), p.q, columns, scale_before<T>(n), room);
    take_along_width<T>(dy(), p.dy, columns, 1, room);
    column_dots<float>(dq_t_.data(), room, n.D, columns.lanes(), delta_);
    for (Index c = 0; c < count; ++c) statistics_[c] = p.lse.data[columns.find_statistic(p.lse.strides, c)];
    if (end == 0) std::fill_n(dq_t_.data(), n.width() * block, 0.0f);
  }
  static Index bytes(const Sizes& n) { return block * round_up(n.D, tile_step) * static_cast<Index>(4 + 2 * sizeof(Parts<T>)); }

  /// One block of keys and what it adds to their dk and dv (keys up to a multiple of 16, D), which are written where not `again`; room for
  /// scores and their gradient (64, 64), and for parts of one of them.
  void see(Index j, const Parts<T>* key, const Parts<T>* value, const Parts<T>* turned_key, float* dk_sum, float* dv_sum, bool again, float* scores,
           float* gradient, Parts<T>* operand) {
    const Index keys = std::min(block, n.Tk - j), rows = round_up(keys, 16), lanes = columns.lanes(), along = round_up(lanes, tile_step), width = n.width();
    columns.mask(n, j, keys, mask_);
    const Seen seen{mask_, keys, lanes};
    multiply_tiles<true>(round_up(keys, 32), lanes, depth_, key, query(), scores, block, false, seen.along_width(depth_));
    multiply_tiles(round_up(keys, 32), lanes, depth_, value, dy(), gradient, block, false, seen.along_width(depth_));
    scale_block(scores, keys, lanes, scale_after<T>(n));
    if (mask_.low) hide_before_first<float>(scores, keys, lanes, &mask_);
    softmax_gradient<float>(scores, gradient, keys, lanes, &mask_, statistics_, delta_);
    scale_block(gradient, keys, lanes, scale_after<T>(n));
    seen.clear_rest(scores);
    seen.clear_rest(gradient);
    if (backward.dv) {
      take_rows(operand, scores, block, rows, along);
      multiply_tiles(rows, width, along, operand, dy_rows(), dv_sum, width, again, seen.along_columns());
    }
    if (backward.dk) {
      take_rows(operand, gradient, block, rows, along);
      multiply_tiles(rows, width, along, operand, query_rows(), dk_sum, width, again, seen.along_columns());
    }
    if (backward.dq) {
      take_columns(operand, gradient, block, block, lanes);
      multiply_tiles(width, lanes, block, turned_key, operand, dq_t_.data(), block, j > begin, seen.along_keys());
    }
  }

  void store() const {
    if (!backward.dq) return;
    const Out<T, cpu>& dq = backward.dq;
    alignas(64) float scales[block];
    Index at[block];
    std::fill_n(scales, block, scale_before<T>(n));
    columns.find(dq.strides, at);
    unpack_columns<T>(dq_t_.data(), scales, {dq.data, at, columns.count, n.D}, dq.beta);
  }

 private:
  Parts<T>* part(Index i) const { return parts_.data() + i * block * depth_ / 2; }
  Parts<T>* query() const { return part(0); }
  Parts<T>* query_rows() const { return part(1); }
  Parts<T>* dy() const { return part(2); }
  Parts<T>* dy_rows() const { return part(3); }

  Index depth_ = round_up(n.D, tile_step);
  Scratch<float> dq_t_;  // (D, columns); y before
  Scratch<Parts<T>> parts_;
  alignas(64) float statistics_[block] = {}, delta_[block];
  Mask<float> mask_;
};

/// dq of the blocks of columns from first to last, and what they give to dk and dv, (keys up to a multiple of 16, D) each.
template <class T, class Backward>
void backward_tiles(const Backward& backward, Index b, Index kv_head, Index first, Index last, float* dk_sum, float* dv_sum) {
  const gemm::TileShapesInUse shapes;
  const Sizes& n = backward.n;
  const Index depth = round_up(n.D, tile_step), width = n.width(), most = together(BackwardColumns<T, Backward>::bytes(n));
  const Scratch<float> floats(2 * block * std::max(depth, block));
  float *const scores = floats.data(), *const gradient = scores + block * block;
  const Scratch<Parts<T>> parts(block * (3 * depth + block) / 2);
  Parts<T> *const key = parts.data(), *const value = key + block * depth / 2, *const turned = value + block * depth / 2, *const operand = turned + block * depth / 2;
  Index reached = 0;  // keys whose sums are written
  for (Index count = 0; first < last; first += count) {
    count = std::min(most, last - first);
    std::optional<BackwardColumns<T, Backward>> columns[together_most];
    for (Index i = 0; i < count; ++i) columns[i].emplace(backward, b, kv_head, first + i, floats.data());
    const Index end = columns[count - 1]->end;
    for (Index j = columns[0]->begin; j < end; j += block) {
      const Index keys = std::min(block, n.Tk - j);
      take_keys<T>(key, backward.k, columns[0]->columns, j, keys, false, floats.data());
      take_keys<T>(value, backward.v, columns[0]->columns, j, keys, false, floats.data());
      if (backward.dq) take_keys<T>(turned, backward.k, columns[0]->columns, j, keys, true, floats.data());
      for (Index i = 0; i < count; ++i)
        if (columns[i]->begin <= j && j < columns[i]->end) {
          columns[i]->see(j, key, value, turned, dk_sum + j * width, dv_sum + j * width, j < reached, scores, gradient, operand);
          reached = std::max(reached, j + block);
        }
    }
    for (Index i = 0; i < count; ++i) columns[i]->store();
  }
}

#endif

}  // namespace weft::inline WEFT_ABI::kernels::attention
