// What attention works on: 64 columns of one key/value head by 64 keys, where their rows lie and which keys a column sees.
#pragma once

#include <algorithm>
#include <cassert>
#include <cmath>

#include "weft/core/scratch.hpp"
#include "weft/kernels/arguments.hpp"
#include "weft/kernels/cpu/attention_block.hpp"
#include "weft/kernels/cpu/attention_softmax.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace attention {

/// The extents of one call.
struct Sizes {
  Index B, Tq, Tk, H, K, D;
  bool causal;
  double scale;
  Index window;
  In<std::int32_t, cpu> starts;

  template <class T>
  Sizes(const In<T, cpu>& q, const In<T, cpu>& k, const AttentionOptions& options, const In<std::int32_t, cpu>& starts_)
      : B(q.shape[0]),
        Tq(q.shape[1]),
        Tk(k.shape[1]),
        H(q.shape[2]),
        K(k.shape[2]),
        D(q.shape[3]),
        causal(options.causal),
        scale(options.scale != 0 ? options.scale : 1 / std::sqrt(static_cast<double>(D))),
        window(options.window),
        starts(starts_) {
    assert(q.shape.rank() == 4 && k.shape.rank() == 4);
    assert(k.shape[0] == B && k.shape[3] == D);
    assert(K == 0 ? H == 0 : H % K == 0);
    assert(!causal || Tq <= Tk);
    assert(causal || !limited());
    assert(D <= 1 || (q.strides[3] == 1 && k.strides[3] == 1));
  }

  Index group() const { return H / K; }           ///< query heads per key/value head
  Index columns() const { return Tq * group(); }  ///< per key/value head
  Index key_blocks() const { return (Tk + block - 1) / block; }
  Index column_blocks() const { return (columns() + block - 1) / block; }
  Index width() const { return (D + 15) / 16 * 16; }  ///< of a packed row
  /// How many keys a column's query sees.
  Index keys_seen(Index column) const { return causal ? column / group() + 1 + Tk - Tq : Tk; }
  /// How many the last column of the blocks before `end` sees: none sees more.
  Index keys_until(Index end) const { return keys_seen(std::min(end * block, columns()) - 1); }
  bool limited() const { return window > 0 || starts; }
  /// The first key that a query sees. It never falls from one query to the next.
  Index first_key(Index b, Index query) const {
    const Index position = query + Tk - Tq, from = window > 0 ? std::max<Index>(0, position - window + 1) : 0;
    return starts ? std::max<Index>(from, starts.data[b * starts.strides[0] + position * starts.strides[1]]) : from;
  }
  /// The first key that is seen from a column on, down to the start of its block of keys.
  Index keys_from(Index b, Index column) const { return limited() ? first_key(b, column / group()) / block * block : 0; }
};

/// 64 columns (or the rest) of one key/value head: column c is query (first + c) / group of head (first + c) % group.
struct Columns {
  Index b, kv_head, first, count;
  Index query[block], head[block];

  Columns(const Sizes& n, Index b_, Index kv_head_, Index index)
      : b(b_), kv_head(kv_head_), first(index * block), count(std::min(block, n.columns() - first)) {
    const Index group = n.group();
    for (Index c = 0, i = first / group, g = first % group; c < count; ++c) {
      query[c] = i;
      head[c] = kv_head * group + g;
      if (++g == group) g = 0, ++i;
    }
  }
  Index lanes() const { return (count + 15) / 16 * 16; }

  /// Where this block's rows of a (B, Tq, H, D) tensor start.
  void find(const Strides& strides, Index* at) const {
    for (Index c = 0; c < count; ++c) at[c] = b * strides[0] + query[c] * strides[1] + head[c] * strides[2];
  }
  /// Where column c's element of a (B, H, Tq) tensor lies.
  Index find_statistic(const Strides& strides, Index c) const {
    return b * strides[0] + head[c] * strides[1] + query[c] * strides[2];
  }

  template <class S>
  void mask(const Sizes& n, Index first_key, Index keys, Mask<S>& mask) const {
    const Index shift = n.Tk - n.Tq - first_key;  // query i sees keys up to i + shift of this block
    const bool cut = n.causal && query[0] + shift < keys - 1;
    mask.step = cut ? 16 : block;
    for (Index r = 0; r < block; r += 16)
      mask.start[r / 16] = cut ? std::clamp<Index>((r - shift) * n.group() - first, 0, lanes()) / 16 * 16 : 0;
    if (cut)
      for (Index c = 0; c < lanes(); ++c)
        mask.limit[c] = static_cast<S>(c < count ? std::clamp<Index>(query[c] + shift, -1, block) : block);
    mask.low = n.limited() && n.first_key(b, query[count - 1]) > first_key;
    if (mask.low)
      for (Index c = 0; c < lanes(); ++c)
        mask.first[c] = static_cast<S>(c < count ? std::clamp<Index>(n.first_key(b, query[c]) - first_key, 0, block) : 0);
  }
};

/// The rows of a block of keys or values.
template <class T>
struct KeyRows : Rows<const T> {
  Index offsets[block];

  KeyRows(const In<T, cpu>& x, const Columns& columns, Index first, Index count_)
      : Rows<const T>{x.data + columns.b * x.strides[0] + first * x.strides[1] + columns.kv_head * x.strides[2],
                      offsets, count_, x.shape[3]} {
    for (Index r = 0; r < count_; ++r) offsets[r] = r * x.strides[1];
  }
  KeyRows(const KeyRows&) = delete;
  KeyRows& operator=(const KeyRows&) = delete;
};

/// The keys or the values that `uses` blocks of columns of one head see, block by block as operands in S: in place where they are, else
/// packed, all at once where that pays. Where they lie changes no bit.
template <class T>
class KeyBlocks {
 public:
  using S = stat_t<T>;
  struct Block {
    const S* data;
    Index stride;
  };

  /// Those from key `begin` to `end`, of the columns' head.
  KeyBlocks(const In<T, cpu>& x, const Columns& columns, Index begin, Index end, Index uses)
      : x_(x), columns_(columns), begin_(begin), width_((x.shape[3] + 15) / 16 * 16),
        // Rows that lie far apart, as in a fused tensor, share a few sets of the caches.
        apart_(x.strides[1] > 2 * width_), all_((apart_ || !in_place) && uses > 2 && (end - begin) * width_ <= most),
        pack_(all_ || !in_place || (apart_ && x.shape[1] >= 2048)),
        packed_(pack_ ? (all_ ? end - begin : block) * width_ : 0) {
    for (Index j = begin; all_ && j < end; j += block) pack(j, std::min(block, end - j), packed_.data() + (j - begin) * width_);
  }

  /// `count` rows from j on. Another call may overwrite them.
  Block at(Index j, Index count) const {
    if constexpr (std::is_same_v<T, S>)
      if (!pack_) return {KeyRows<T>(x_, columns_, j, 0).data, x_.strides[1]};
    if (all_) return {packed_.data() + (j - begin_) * width_, width_};
    pack(j, count, packed_.data());
    return {packed_.data(), width_};
  }

 private:
  void pack(Index j, Index count, S* to) const { pack_rows<T>(KeyRows<T>(x_, columns_, j, count), 1, to, width_); }

  static constexpr bool in_place = std::is_same_v<T, S>;
  static constexpr Index most = Index{1} << 21;  // elements that are packed at once: keys and values 16 MiB of a thread

  const In<T, cpu> x_;
  const Columns& columns_;
  Index begin_, width_;
  bool apart_, all_, pack_;
  Scratch<S> packed_;
};

/// Calls step(from, to, start) for the ranges of keys that the mask tells apart.
template <class S, class Step>
void for_steps(const Mask<S>& mask, Index keys, Step&& step) {
  for (Index from = 0; from < keys; from += mask.step)
    step(from, std::min(keys, from + mask.step), mask.start[from / 16]);
}

}  // namespace attention

}  // namespace weft::inline WEFT_ABI::kernels
