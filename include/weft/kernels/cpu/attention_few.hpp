// Attention of at most 16 columns of a head, as in decoding, without tile registers: columns would leave vector lanes empty, so these hold keys
// and then the head's width. The time goes into reading keys and values, each once; heads that lie side by side go over the keys together, so
// that memory is read in order. Each element is the same chain of multiply-adds as in forward_block, so the bits are the same.
#pragma once

#include <limits>
#include <optional>

#include "weft/core/scratch.hpp"
#include "weft/kernels/cpu/attention_layout.hpp"
#include "weft/kernels/cpu/gemm_kernels.hpp"

namespace weft::inline WEFT_ABI::kernels::attention {

/// Whether columns fill no more than a vector.
inline bool few(const Sizes& n) { return n.columns() <= 16; }

/// The columns of a head on their way over the keys.
template <class T>
class FewColumns {
 public:
  using S = stat_t<T>;
  const Sizes& n;
  Columns columns;
  Index begin, end;  ///< of the keys

  /// What one block of keys needs, for one head after the other.
  struct Room {
    Scratch<S> scores, packed, turned;  // (keys, columns); keys or values, (width, keys) or turned; (columns, keys)
    Scratch<T> rest;                    // fewer than 16 keys
    explicit Room(const Sizes& n) : scores(block * block), packed(block * std::max(n.width(), block)), turned(16 * block), rest(16 * n.D) {}
  };

  FewColumns(const Sizes& n_, const In<T, cpu>& q, Index b, Index kv_head)
      : n(n_), columns(n, b, kv_head, 0), begin(n.keys_from(b, 0)), end(n.keys_seen(columns.count - 1)), width_(n.width()),
        query_(columns.count * width_), y_(columns.count * width_) {
    Index at[block];
    columns.find(q.strides, at);
    pack_rows<T>({q.data, at, columns.count, n.D}, static_cast<S>(n.scale), query_.data(), width_);
    // A column whose first keys are hidden meets blocks of which it sees nothing: -infinity less itself would be no number.
    std::fill_n(top_, block, n.limited() ? std::numeric_limits<S>::lowest() : -std::numeric_limits<S>::infinity());
    if (end == 0) std::fill_n(y_.data(), columns.count * width_, S(0));
  }

  /// One block of keys.
  void see(Index j, const In<T, cpu>& k, const In<T, cpu>& v, const Room& room) {
    const Index keys = std::min(block, end - j), lanes = columns.lanes();
    const KeyRows<T> key(k, columns, j, keys), value(v, columns, j, keys);
    S* const scores = room.scores.data();  // (keys, columns)
    columns.mask(n, j, keys, mask_);
    if constexpr (by_strips) {
      if (gemm::columns_kernel<float, T>(1) != nullptr) multiply_strips(key, value, k.strides[1], room);
      else multiply_packed(key, value, k.strides[1], room);
    } else {
      multiply_packed(key, value, k.strides[1], room);
    }
    if (mask_.low) hide_before_first<S>(scores, keys, lanes, &mask_);
    alignas(64) S factor[block];
    bool moved;
    softmax_step<S>(scores, keys, lanes, &mask_, top_, sum_, factor, &moved);
    if (j > begin && moved) scale_rows<S>(y_.data(), columns.count, width_, factor);
    const auto multiply_values = [&](const S* rows, Index stride) {
      multiply<S>({columns.count, n.D, keys, scores, 1, block, rows, stride, y_.data(), width_, j > begin});
    };
    if constexpr (std::is_same_v<T, S>)
      if (width_ == n.D) return multiply_values(value.data, v.strides[1]);
    pack_rows<T>(value, 1, room.packed.data(), width_);
    multiply_values(room.packed.data(), width_);
  }

  void store(const Out<T, cpu>& y, const Out<S, cpu>& lse) {
    alignas(64) S factor[block];
    Index at[block];
    softmax_end<S>(top_, sum_, factor);
    columns.find(y.strides, at);
    if (y) unpack_rows<T>(y_.data(), width_, factor, {y.data, at, columns.count, n.D}, y.beta);
    if (lse)
      for (Index c = 0; c < columns.count; ++c) put(lse.data[columns.find_statistic(lse.strides, c)], top_[c], lse.beta);
  }

 private:
  static constexpr bool by_strips = std::is_same_v<T, float> || std::is_same_v<T, bf16>;

  /// scores (keys, columns) = keys * queries, 16 keys at a time, which are read as they lie and turned in registers. Meanwhile the values are
  /// fetched.
  void multiply_strips(const Rows<const T>& key, const Rows<const T>& value, Index stride, const Room& room) const {
    const Index count = columns.count, keys = key.count;
    Index at[16];
    for (Index c = 0; c < count; ++c) at[c] = c * 16;
    float* const turned = room.turned.data();  // (columns, 16)
    const auto strip = [&](const T* rows, Index row, Index r) {
      for (Index c = 0; c < count; c += 8)
        gemm::columns_kernel<float, T>(std::min<Index>(8, count - c))(n.D, query_.data() + c * width_, width_, 1, rows, row, turned + c * 16,
                                                                      gemm::Into::assign);
      pack_columns<float>({turned, at, count, 16}, 1, room.scores.data() + r * block);
    };
    Index r = 0;
    for (; r + 16 <= keys; r += 16) {
      fetch(value, r);
      strip(key.data + r * stride, stride, r);
    }
    if (r == keys) return;
    fetch(value, r);
    T* const rest = room.rest.data();
    std::fill_n(rest, 16 * n.D, T(0.0f));
    for (Index i = r; i < keys; ++i) std::copy_n(key.data + key.at[i], n.D, rest + (i - r) * n.D);
    strip(rest, n.D, r);
  }
  /// The same with keys that are packed first.
  void multiply_packed(const Rows<const T>& key, const Rows<const T>& value, Index stride, const Room& room) const {
    const Index count = columns.count, keys = key.count;
    S *const packed = room.packed.data(), *const turned = room.turned.data();  // (D, keys) and (columns, keys)
    pack_columns<T>(key, 1, packed, 16 * stride);  // and fetch the next 16 keys
    for (Index r = 0; r < keys; r += 16) fetch(value, r);
    multiply<S>({count, keys, n.D, query_.data(), width_, 1, packed, block, turned, block});
    Index at[16];
    for (Index c = 0; c < count; ++c) at[c] = c * block;
    pack_columns<S>({turned, at, count, keys}, 1, room.scores.data());
  }
  static void fetch(const Rows<const T>& from, Index r0) {
    for (Index r = r0; r < std::min(r0 + 16, from.count); ++r)
      for (Index d = 0; d < from.width; d += 64 / static_cast<Index>(sizeof(T))) __builtin_prefetch(from.data + from.at[r] + d, 0, 2);
  }

  Index width_;
  Scratch<S> query_, y_;  // (columns, width)
  alignas(64) S top_[block], sum_[block] = {};
  Mask<S> mask_;
};

/// y and lse of the heads from first to last, which lie side by side in memory, of at most 16 columns each.
template <class T>
void few_columns(const Sizes& n, const In<T, cpu>& q, const In<T, cpu>& k, const In<T, cpu>& v, const Out<T, cpu>& y, const Out<stat_t<T>, cpu>& lse,
                 Index b, Index first, Index last) {
  constexpr Index most = 16;
  const typename FewColumns<T>::Room room(n);
  for (Index count = 0; first < last; first += count) {
    count = std::min(most, last - first);
    std::optional<FewColumns<T>> heads[most];
    for (Index i = 0; i < count; ++i) heads[i].emplace(n, q, b, first + i);
    for (Index j = heads[0]->begin; j < heads[0]->end; j += block)
      for (Index i = 0; i < count; ++i) heads[i]->see(j, k, v, room);
    for (Index i = 0; i < count; ++i) heads[i]->store(y, lse);
  }
}

}  // namespace weft::inline WEFT_ABI::kernels::attention
