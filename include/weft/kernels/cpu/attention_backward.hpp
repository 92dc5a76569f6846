// Attention's gradient: chunks of column blocks make the scores again and sum what they give to dk and dv.
#pragma once

#include <algorithm>

#include "weft/core/parallel.hpp"
#include "weft/core/scratch.hpp"
#include "weft/kernels/cpu/attention_tile_blocks.hpp"

namespace weft::inline WEFT_ABI::kernels::attention {

/// Column blocks whose contributions to dk and dv are summed one after the other; the partial sums of such chunks are
/// then added in order. At least 16 blocks, so that partial sums cost little, and at most 16 chunks, so that they are
/// few.
inline Index chunk_size(const Sizes& n) { return std::max<Index>(16, (n.column_blocks() + 15) / 16); }

template <class T>
struct Backward {
  using S = stat_t<T>;
  Sizes n;
  In<T, cpu> dy, q, k, v, y;
  In<S, cpu> lse;
  Out<T, cpu> dq, dk, dv;

  Index partial_size() const { return gemm::round_up(n.Tk, 16) * n.width(); }

  /// Adds the columns' contributions to dk and dv, (Tk, width) each; key blocks from `reached` on are written first
  /// here.
  void column_block(const Columns& columns, const KeyBlocks<T>& key_blocks, const KeyBlocks<T>& value_blocks, S* dk_sum, S* dv_sum, Index& reached) const {
    const Index D = n.D, width = n.width(), lanes = columns.lanes(), count = columns.count;
    const Scratch<S> scratch(block * (3 * D + 2 * block + 2 * width));
    S* q_t = scratch.data();               // (D, columns)
    S* dy_t = q_t + D * block;             // (D, columns)
    S* dq_t = dy_t + D * block;            // (D, columns); y before
    S* scores = dq_t + D * block;          // (keys, columns): s, then p
    S* gradient = scores + block * block;  // (keys, columns): dp, then ds
    S* q_rows = gradient + block * block;  // (columns, D)
    S* dy_rows = q_rows + block * width;   // (columns, D)
    const S scale = static_cast<S>(n.scale);
    alignas(64) S statistics[block] = {}, delta[block], scales[block];
    Mask<S> mask;
    Index at[block];

    columns.find(y.strides, at);
    pack_columns<T>({y.data, at, count, D}, 1, dq_t);
    columns.find(dy.strides, at);
    pack_columns<T>({dy.data, at, count, D}, 1, dy_t);
    if (dv) pack_rows<T>({dy.data, at, count, D}, 1, dy_rows, width);
    columns.find(q.strides, at);
    pack_columns<T>({q.data, at, count, D}, scale, q_t);
    if (dk) pack_rows<T>({q.data, at, count, D}, scale, q_rows, width);
    column_dots<S>(dq_t, dy_t, D, lanes, delta);
    for (Index c = 0; c < count; ++c) statistics[c] = lse.data[columns.find_statistic(lse.strides, c)];

    const Index begin = n.keys_from(columns.b, columns.first), end = n.keys_seen(columns.first + columns.count - 1);
    for (Index j = begin; j < end; j += block) {
      const Index keys = std::min(block, n.Tk - j);
      columns.mask(n, j, keys, mask);
      const auto key = key_blocks.at(j, keys), value = value_blocks.at(j, keys);
      for_steps(mask, keys, [&](Index from, Index to, Index start) {
        multiply<S>({to - from, lanes - start, D, key.data + from * key.stride, key.stride, 1, q_t + start, block,
                     scores + from * block + start, block});
        multiply<S>({to - from, lanes - start, D, value.data + from * value.stride, value.stride, 1, dy_t + start,
                     block, gradient + from * block + start, block});
      });
      if (mask.low) hide_before_first<S>(scores, keys, lanes, &mask);
      softmax_gradient<S>(scores, gradient, keys, lanes, &mask, statistics, delta);
      const bool again = j / block < reached;
      for_steps(mask, keys, [&](Index from, Index to, Index start) {
        const Index depth = std::max<Index>(0, count - start);
        if (dv)
          multiply<S>({to - from, D, depth, scores + from * block + start, block, 1, dy_rows + start * width, width,
                       dv_sum + (j + from) * width, width, again});
        if (dk)
          multiply<S>({to - from, D, depth, gradient + from * block + start, block, 1, q_rows + start * width, width,
                       dk_sum + (j + from) * width, width, again});
        if (dq)
          multiply<S>({D, lanes - start, to - from, key.data + from * key.stride, 1, key.stride,
                       gradient + from * block + start, block, dq_t + start, block, j + from > begin});
      });
    }
    reached = std::max(reached, (end + block - 1) / block);
    if (dq) {
      std::fill_n(scales, block, scale);
      if (end == 0) std::fill_n(dq_t, D * block, S(0));
      columns.find(dq.strides, at);
      unpack_columns<T>(dq_t, scales, {dq.data, at, count, D}, dq.beta);
    }
  }

  /// Key blocks from skip to reach are those that a chunk's columns see: the rest of its partial sums is never written. Neither falls from
  /// one chunk to the next.
  Index skip(Index b, Index chunk) const { return n.keys_from(b, chunk * chunk_size(n) * block) / block; }
  Index reach(Index chunk) const {
    if (n.columns() == 0) return 0;
    return (n.keys_until((chunk + 1) * chunk_size(n)) + block - 1) / block;
  }

  void chunk(Index b, Index kv_head, Index index, S* dk_sum, S* dv_sum) const {
    Index reached = 0;
    const Index size = chunk_size(n), begin = index * size, end = std::min(begin + size, n.column_blocks());
    if (begin == end) return;
#if defined(__x86_64__)
    if constexpr (for_tiles<T>)
      if (tiles_take<T>(n)) return backward_tiles<T>(*this, b, kv_head, begin, end, dk_sum, dv_sum);
#endif
    const Columns first(n, b, kv_head, begin);
    const Index from = n.keys_from(b, first.first), to = std::min(n.Tk, gemm::round_up(n.keys_until(end), block));
    const KeyBlocks<T> key_blocks(k, first, from, to, end - begin), value_blocks(v, first, from, to, end - begin);
    for (Index i = begin; i < end; ++i) column_block(Columns(n, b, kv_head, i), key_blocks, value_blocks, dk_sum, dv_sum, reached);
  }

  /// d = the sum over chunks of their partial sums, for one block of keys; the sum is formed in the first of them.
  void store(const Out<T, cpu>& d, Index b, Index kv_head, Index key_block, S* partial, Index step,
             Index chunks) const {
    if (!d) return;
    Index first = 0;
    while (first < chunks && reach(first) <= key_block) ++first;
    Index last = first;
    while (last < chunks && skip(b, last) <= key_block) ++last;
    const Index D = n.D, width = n.width(), from = key_block * block, to = std::min(n.Tk, from + block);
    T* out = d.data + b * d.strides[0] + kv_head * d.strides[2];
    const Index out_row = d.strides[1];
    const int beta = d.beta;
    S* sum = partial + first * step;
    if (first == last) {  // no query sees them
      sum = partial;
      std::fill(sum + from * width, sum + to * width, S(0));
    }
    simd([=]() WEFT_INLINE {
      for (Index chunk = 1; chunk < last - first; ++chunk) {
        const S* more = sum + chunk * step;
#pragma omp simd
        for (Index i = from * width; i < to * width; ++i) sum[i] += more[i];
      }
      for (Index j = from; j < to; ++j) {
        T* row = out + j * out_row;
        const S* x = sum + j * width;
#pragma omp simd
        for (Index i = 0; i < D; ++i) put(row[i], x[i], beta);
      }
    });
  }

  void run() const {
    if (n.K == 0) return;
    const Index heads = n.B * n.K, size = chunk_size(n),
                chunks = std::max<Index>(1, (n.column_blocks() + size - 1) / size);
    const Index step = 2 * partial_size();
    if (chunks == 1) {
      parallel(heads, [&](Index i) {
        const Scratch<S> partial(step);
        chunk(i / n.K, i % n.K, 0, partial.data(), partial.data() + partial_size());
        for (Index j = 0; j < n.key_blocks(); ++j) {
          store(dk, i / n.K, i % n.K, j, partial.data(), step, n.columns() > 0 ? 1 : 0);
          store(dv, i / n.K, i % n.K, j, partial.data() + partial_size(), step, n.columns() > 0 ? 1 : 0);
        }
      });
      return;
    }
    // A few heads at a time: about 32 pieces keep the threads busy and bound the memory of partial sums. Later chunks
    // see more keys and go first.
    const Index wave = std::min(heads, 32 / chunks);
    const Scratch<S> partials(wave * chunks * step);
    for (Index first = 0; first < heads; first += wave) {
      const Index count = std::min(wave, heads - first);
      parallel(count * chunks, [&](Index i) {
        const Index head = first + i % count, index = chunks - 1 - i / count;
        S* partial = partials.data() + ((head - first) * chunks + index) * step;
        chunk(head / n.K, head % n.K, index, partial, partial + partial_size());
      });
      parallel(count * n.key_blocks(), [&](Index i) {
        const Index head = first + i % count;
        S* partial = partials.data() + (head - first) * chunks * step;
        store(dk, head / n.K, head % n.K, i / count, partial, step, chunks);
        store(dv, head / n.K, head % n.K, i / count, partial + partial_size(), step, chunks);
      });
    }
  }
};

}  // namespace weft::inline WEFT_ABI::kernels::attention
