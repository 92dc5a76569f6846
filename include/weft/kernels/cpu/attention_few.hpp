// Attention of at most 16 columns of a head, as in decoding: columns would leave vector lanes empty, so these hold keys and then the head's
// width. The time goes into reading keys and values, each once, as they lie; heads that lie side by side go over the keys together, so that
// memory is read in order. Each element is the same chain of multiply-adds as in forward_block, so the bits are the same.
#pragma once

#include <limits>
#include <optional>

#include "weft/core/scratch.hpp"
#include "weft/kernels/cpu/attention_layout.hpp"
#include "weft/kernels/cpu/gemm_kernels.hpp"

namespace weft::inline WEFT_ABI::kernels::attention {

/// Whether columns are so few that lanes would be empty.
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
    Scratch<S> scores, packed, turned;
    explicit Room(const Sizes& n) : scores(block * block), packed(block * std::max(n.width(), block)), turned(16 * block) {}
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
    multiply_keys(key, value, k.strides[1], room);
    if (mask_.low) hide_before_first<S>(scores, keys, lanes, &mask_);
    alignas(64) S factor[block];
    bool moved;
    softmax_step<S>(scores, keys, lanes, &mask_, top_, sum_, factor, &moved);
    if (j > begin && moved) scale_rows<S>(y_.data(), columns.count, width_, factor);
    const S* rows = room.packed.data();
    Index stride = width_;
    if constexpr (std::is_same_v<T, S>)
      if (width_ == n.D) rows = value.data, stride = v.strides[1];
    if (rows == room.packed.data()) pack_rows<T>(value, 1, room.packed.data(), width_);
    multiply<S>({columns.count, n.D, keys, scores, 1, block, rows, stride, y_.data(), width_, j > begin});
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
  static constexpr bool by_columns = std::is_same_v<T, float> || std::is_same_v<T, bf16>;

  /// scores (keys, columns) = keys * queries. Meanwhile the values are fetched.
  void multiply_keys(const Rows<const T>& key, const Rows<const T>& value, Index stride, const Room& room) const {
    const Index count = columns.count, keys = key.count;
    S* const scores = room.scores.data();
    S* const turned = room.turned.data();  // (columns, keys)
    Index at[block];
    if constexpr (by_columns)
      if (gemm::columns_kernel<float, T>(1) != nullptr) {
        for (Index c = 0; c < count; ++c) at[c] = c * 16;
        const auto strip = [&](const T* rows, Index from_row_to_row, Index r) {
          for (Index c = 0; c < count; c += 8)
            gemm::columns_kernel<float, T>(std::min<Index>(8, count - c))(n.D, query_.data() + c * width_, width_, 1, rows, from_row_to_row,
                                                                          turned + c * 16, gemm::Into::assign);
          pack_columns<float>({turned, at, count, 16}, 1, scores + r * block);
        };
        Index r = 0;
        for (; r + 16 <= keys; r += 16) {
          fetch(value, r);
          strip(key.data + r * stride, stride, r);
        }
        if (r < keys) {
          T* const rest = reinterpret_cast<T*>(room.packed.data());
          std::fill_n(rest, 16 * n.D, T(0.0f));
          for (Index i = r; i < keys; ++i) std::copy_n(key.data + key.at[i], n.D, rest + (i - r) * n.D);
          strip(rest, n.D, r);
        }
        return;
      }
    S* const packed = room.packed.data();  // (D, keys)
    pack_columns<T>(key, 1, packed, 16 * stride);  // and fetch the next 16 keys
    for (Index r = 0; r < keys; r += 16) fetch(value, r);
    multiply<S>({count, keys, n.D, query_.data(), width_, 1, packed, block, turned, block});
    for (Index c = 0; c < count; ++c) at[c] = c * block;
    pack_columns<S>({turned, at, count, keys}, 1, scores);
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
