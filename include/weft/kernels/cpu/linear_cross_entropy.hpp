// Cross entropy of x weight^T against labels without the N x V logits: they are made for so many rows at a time that they fill at most
// 64 MiB, or for 256, and become their own gradient at once, so that no product is made twice.
#pragma once

#include "weft/kernels/arguments.hpp"
#include "weft/kernels/cpu/map.hpp"
#include "weft/kernels/cpu/matmul.hpp"
#include "weft/kernels/cpu/rows.hpp"
#include "weft/kernels/math.hpp"
#include "weft/kernels/scalar.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace detail {
/// Rows whose logits are in memory at a time: many, since weight is read and dweight read and written once for each such block. It decides
/// bits.
inline Index lce_rows(Index V, std::size_t logit_bytes) {
  constexpr Index most_bytes = Index{64} << 20, step = 128;
  return std::clamp(most_bytes / (std::max<Index>(V, 1) * static_cast<Index>(logit_bytes)) / step * step, 2 * step, Index{2048});
}

/// Rows [begin, end) of a matrix.
template <class View>
View row_range(View view, Index begin, Index end) {
  if (view.data != nullptr) view.data += begin * view.strides[0];
  view.shape[0] = end - begin;
  return view;
}
template <class View>
View transposed(View view) {
  std::swap(view.shape[0], view.shape[1]);
  std::swap(view.strides[0], view.strides[1]);
  return view;
}
}  // namespace detail

/// sum = the sum over rows whose label is not `ignore` of lse - logit[label], logits = x weight^T, kept in double until it is stored.
/// And, for each that is wanted, with dlogits = (exp(logits - lse) - onehot(label)) * scale, zero in ignored rows:
///   dx = dlogits weight, dweight = dlogits^T x.
/// x (N, C), weight (V, C), any strides; labels (N) contiguous, in [0, V) or `ignore`; dx (N, C), dweight (V, C): last stride 1. Logits are
/// of type T, as in a product of their own; the log-sum-exp is of these.
template <class T, class W>
void linear_cross_entropy(cpu, In<T, cpu> x, In<W, cpu> weight, In<std::int64_t, cpu> labels, Index ignore, GradientFactor scale,
                          Out<stat_t<T>, cpu> sum, Out<T, cpu> dx, Out<param_grad_t<W>, cpu> dweight) {
  using S = stat_t<T>;
  using G = param_grad_t<W>;
  const Index N = x.shape[0], V = weight.shape[0], high = std::min(N, detail::lce_rows(V, sizeof(T)));
  const bool gradients = dx || dweight;
  const Scratch<T> block(high * V);
  const Scratch<double> losses(N);
  T* const logits = block.data();
  const S d = scale.in<S>();
  for (Index n0 = 0; n0 < N; n0 += high) {
    const Index R = std::min(high, N - n0);
    const std::int64_t* const label = labels.data + n0;
    double* const loss = losses.data() + n0;
    const In<T, cpu> x_part = detail::row_range(x, n0, n0 + R);
    matmul<T, W, T>(cpu{}, x_part, detail::transposed(weight), Out<T, cpu>{logits, {R, V}, {V, 1}, 0});
    parallel_ranges(R, rows_a_piece(R, V), [&](Index begin, Index end) {
      simd([=]() WEFT_INLINE {
        for (Index n = begin; n < end; ++n) {
          T* const z = logits + n * V;
          const Index at = label[n];
          if (at == ignore) {
            loss[n] = 0;
            if (gradients) put_row(z, 0, V, 0, [](Index) WEFT_INLINE { return S(0); });
            continue;
          }
          assert(at >= 0 && at < V);
          const S top = max_row<S>(V, [=](Index v) WEFT_INLINE { return static_cast<S>(z[v]); });
          const S lse = top + math::log(sum_row<S>(V, [=](Index v) WEFT_INLINE { return math::exp(static_cast<S>(z[v]) - top); }));
          loss[n] = static_cast<double>(lse - static_cast<S>(z[at]));
          if (gradients)
            put_row(z, 0, V, 0, [=](Index v) WEFT_INLINE { return (math::exp(static_cast<S>(z[v]) - lse) - (v == at ? S(1) : S(0))) * d; });
        }
      });
    });
    const In<T, cpu> dlogits{logits, {R, V}, {V, 1}};
    if (dx) matmul<T, W, T>(cpu{}, dlogits, weight, detail::row_range(dx, n0, n0 + R));
    if (dweight) {
      Out<G, cpu> to = dweight;
      to.beta = n0 > 0 ? 1 : dweight.beta;
      matmul<T, T, G>(cpu{}, detail::transposed(dlogits), x_part, to);
    }
  }
  if (sum) put(*sum.data, static_cast<S>(tree_sum(losses.data(), N)), sum.beta);
  if (N == 0 && dweight) matmul<T, T, G>(cpu{}, In<T, cpu>{nullptr, {V, 0}, {1, V}}, x, dweight);  // a sum of nothing
}

/// x *= by / scale, by a scalar on the device; nothing where that is 1. x contiguous.
template <class T>
void rescale(cpu, Out<T, cpu> x, In<stat_t<T>, cpu> by, GradientFactor scale) {
  const auto factor = static_cast<stat_t<T>>(static_cast<double>(*by.data) / static_cast<double>(scale.in<stat_t<T>>()));
  if (factor == stat_t<T>(1) || x.numel() == 0) return;
  map<MulScalar, T, T>(cpu{}, MulScalar{static_cast<double>(factor)}, x, x);
}

}  // namespace weft::inline WEFT_ABI::kernels
