// Scaled dot-product attention without a (T, T) tensor (FlashAttention: Dao et al., 2022): blocks of 64 keys by 64
// columns, online softmax, blocks above the diagonal skipped. A column is a query of one of the heads that share a
// key/value head, so that these share their keys' way through the cache. Keys are cut at multiples of 64 from key 0,
// and a column's arithmetic knows nothing of the other columns.
#pragma once

#include <algorithm>
#include <limits>

#include "weft/core/parallel.hpp"
#include "weft/core/scratch.hpp"
#include "weft/kernels/cpu/attention_backward.hpp"
#include "weft/kernels/cpu/attention_few.hpp"
#include "weft/kernels/cpu/attention_few_tiles.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace attention {

/// One block of columns: y = (p v) / sum(p) and lse.
template <class T>
void forward_block(const Sizes& n, const In<T, cpu>& q, const KeyBlocks<T>& key_blocks, const KeyBlocks<T>& value_blocks, const Out<T, cpu>& y,
                   const Out<stat_t<T>, cpu>& lse, const Columns& columns) {
  using S = stat_t<T>;
  const Index D = n.D, width = n.width(), lanes = columns.lanes(), count = columns.count;
  const Scratch<S> scratch(block * (2 * width + block));
  S* q_t = scratch.data();          // (D, columns)
  S* y_t = q_t + width * block;     // (D, columns)
  S* scores = y_t + width * block;  // (keys, columns)
  alignas(64) S top[block], sum[block], factor[block];
  Mask<S> mask;
  Index at[block];

  columns.find(q.strides, at);
  pack_columns<T>({q.data, at, count, D}, static_cast<S>(n.scale), q_t);
  // A column whose first keys are hidden meets blocks of which it sees nothing: -infinity less itself would be no number.
  std::fill_n(top, block, n.limited() ? std::numeric_limits<S>::lowest() : -std::numeric_limits<S>::infinity());
  std::fill_n(sum, block, S(0));
  const Index begin = n.keys_from(columns.b, columns.first), end = n.keys_seen(columns.first + count - 1);
  if (end == 0) std::fill_n(y_t, width * block, S(0));
  for (Index j = begin; j < end; j += block) {
    const Index keys = std::min(block, end - j);
    columns.mask(n, j, keys, mask);
    const auto key = key_blocks.at(j, keys);
    for_steps(mask, keys, [&](Index from, Index to, Index start) {
      multiply<S>({to - from, lanes - start, D, key.data + from * key.stride, key.stride, 1, q_t + start, block,
                   scores + from * block + start, block});
    });
    if (mask.low) hide_before_first<S>(scores, keys, lanes, &mask);
    bool moved;
    softmax_step<S>(scores, keys, lanes, &mask, top, sum, factor, &moved);
    const auto value = value_blocks.at(j, keys);
    for_steps(mask, keys, [&](Index from, Index to, Index start) {
      multiply<S>({D, lanes - start, to - from, value.data + from * value.stride, 1, value.stride, scores + from * block + start, block,
                   y_t + start, block, j + from > begin, from == 0 && moved ? factor + start : nullptr});
    });
  }
  softmax_end<S>(top, sum, factor);
  if (y) {
    columns.find(y.strides, at);
    unpack_columns<T>(y_t, factor, {y.data, at, count, D}, y.beta);
  }
  if (lse)
    for (Index c = 0; c < count; ++c) put(lse.data[columns.find_statistic(lse.strides, c)], top[c], lse.beta);
}

}  // namespace attention

/// y[b,i,h,:] = sum_j softmax_j(scale q[b,i,h,:].k[b,j,h/(H/K),:]) v[b,j,h/(H/K),:]. q (B, Tq, H, D), k and v (B, Tk,
/// K, D) with H a multiple of K (grouped-query attention: Ainslie et al., 2023) -> y (B, Tq, H, D) and lse (B, H,
/// Tq), the log of the sum of exp(scores), which backward needs. Causal: query i sees keys j <= i + (Tk - Tq), with
/// Tq <= Tk, so that the queries are the last ones of a cache. The last axis has stride 1, others any: views into a
/// fused tensor are fine. A query's bits do not depend on Tq, on its place among the queries or on keys it does not
/// see: decoding with a cache gives the bits of the prefill, where the keys it does not see hold finite numbers. With starts (B, Tk), for
/// each position its document's first, a query sees no key before that of its own position; they never fall, and with them or a window
/// attention is causal.
template <class T>
void attention_forward(cpu, In<T, cpu> q, In<T, cpu> k, In<T, cpu> v, Out<T, cpu> y, Out<stat_t<T>, cpu> lse,
                       AttentionOptions options, In<std::int32_t, cpu> starts = {}) {
  const attention::Sizes n(q, k, options, starts);
  if (n.B * n.Tq * n.H == 0) return;
  bool tiles = false;
#if defined(__x86_64__)
  if constexpr (attention::for_tiles<T>) tiles = attention::tiles_take<T>(n);
#endif
  if (attention::few(n) && (!tiles || n.D % 16 == 0)) {
    Index parts = std::clamp<Index>(gemm::pieces(threads(), n.B), 1, n.K);  // few, so that heads lie side by side in them, but no thread waits
    while (parts < n.K && n.B * parts < 4 * threads() && n.B * parts % threads() != 0) ++parts;
    return parallel(n.B * parts, [&](Index i) {
      const Index b = i / parts, first = i % parts * n.K / parts, last = (i % parts + 1) * n.K / parts;
#if defined(__x86_64__)
      if constexpr (attention::for_tiles<T>)
        if (tiles) return attention::few_tiles<T>(n, q, k, v, y, lse, b, first, last);
#endif
      attention::few_columns<T>(n, q, k, v, y, lse, b, first, last);
    });
  }
  const Index blocks = n.column_blocks();
  // A head's blocks in as few parts as keep all threads busy: each part packs its keys, and where they lie changes no bit.
  const Index parts = std::clamp<Index>(gemm::pieces(8 * threads(), n.B * n.K), 1, blocks);
  parallel(n.B * n.K * parts, [&](Index i) {
    // Long ones first: later queries see more keys.
    const Index b = i / parts / n.K, kv_head = i / parts % n.K, part = parts - 1 - i % parts, begin = part * blocks / parts, end = (part + 1) * blocks / parts;
#if defined(__x86_64__)
    if constexpr (attention::for_tiles<T>)
      if (tiles) return attention::forward_tiles<T>(n, q, k, v, y, lse, b, kv_head, begin, end);
#endif
    const attention::Columns first(n, b, kv_head, begin);
    const Index from = n.keys_from(b, first.first), to = n.keys_until(end);
    const attention::KeyBlocks<T> keys(k, first, from, to, end - begin), values(v, first, from, to, end - begin);
    for (Index c = end; c-- > begin;) attention::forward_block<T>(n, q, keys, values, y, lse, attention::Columns(n, b, kv_head, c));
  });
}

/// dq, dk and dv from dy, the inputs, y and lse of attention_forward, with the scores computed again: p = exp(s -
/// lse), dv = p^T dy, ds = p (dy v^T - rowsum(dy y)), dq = scale ds k, dk = scale ds^T q. The same strides are
/// accepted. dk and dv sum over the columns (query, head of the group) in this order, in chunks whose size depends on
/// Tq H / K alone and whose sums are added in order.
template <class T>
void attention_backward(cpu, In<T, cpu> dy, In<T, cpu> q, In<T, cpu> k, In<T, cpu> v, In<T, cpu> y,
                        In<stat_t<T>, cpu> lse, Out<T, cpu> dq, Out<T, cpu> dk, Out<T, cpu> dv,
                        AttentionOptions options, In<std::int32_t, cpu> starts = {}) {
  attention::Backward<T>{attention::Sizes(q, k, options, starts), dy, q, k, v, y, lse, dq, dk, dv}.run();
}

}  // namespace weft::inline WEFT_ABI::kernels
