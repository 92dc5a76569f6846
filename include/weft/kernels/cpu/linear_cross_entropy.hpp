// Cross entropy of x weight^T against labels without the N x V logits: they are made a block of at most 2048 x 2048 at
// a time, and made again by the backward, which needs only the log-sum-exp of each row.
#pragma once

#include "weft/kernels/cpu/matmul.hpp"
#include "weft/kernels/cpu/rows.hpp"
#include "weft/kernels/math.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace detail {
/// The block of logits: 16 MiB in float. High, so that weight and dweight are read seldom; wide, so that dx is.
inline constexpr Index lce_rows = 2048, lce_columns = 2048;

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

/// sum = the sum over rows whose label is not `ignore` of lse - logit[label], logits = x weight^T. x (N, C), weight (V,
/// C), any strides; labels (N) contiguous, in [0, V) or `ignore`; lse_N (N) contiguous, overwritten, 0 in ignored rows;
/// sum a scalar, kept in double until it is stored.
template <class T, class W>
void linear_cross_entropy_forward(cpu, In<T, cpu> x, In<W, cpu> weight, In<std::int64_t, cpu> labels, Index ignore,
                                  Out<stat_t<T>, cpu> lse_N, Out<stat_t<T>, cpu> sum) {
  using S = stat_t<T>;
  const Index N = x.shape[0], V = weight.shape[0];
  const Index high = std::min(N, detail::lce_rows), wide = std::min(V, detail::lce_columns);
  const Scratch<S> block(high * wide), per_row(3 * high);
  S *const logits = block.data(), *const tops = per_row.data(), *const sums = tops + high, *const picked = sums + high;
  const Scratch<double> losses(N);
  double* const loss = losses.data();
  S* const lses = lse_N.data;

  for (Index n0 = 0; n0 < N; n0 += high) {
    const Index R = std::min(high, N - n0);
    const std::int64_t* const label = labels.data + n0;
    for (Index v0 = 0; v0 < V; v0 += wide) {
      const Index U = std::min(wide, V - v0);
      matmul<T, W, S>(cpu{}, detail::row_range(x, n0, n0 + R),
                      detail::transposed(detail::row_range(weight, v0, v0 + U)),
                      Out<S, cpu>{logits, {R, U}, {U, 1}, 0});
      parallel_ranges(R, rows_a_piece(U), [&](Index begin, Index end) {
        simd([=]() WEFT_INLINE {
          for (Index n = begin; n < end; ++n) {
            if (label[n] == ignore) continue;
            assert(label[n] >= 0 && label[n] < V);
            const S* const z = logits + n * U;
            const S block_top = max_row<S>(U, [=](Index v) WEFT_INLINE { return z[v]; });
            const S top = v0 > 0 && tops[n] > block_top ? tops[n] : block_top;
            const S here = sum_row<S>(U, [=](Index v) WEFT_INLINE { return math::exp(z[v] - top); });
            sums[n] = v0 > 0 ? sums[n] * math::exp(tops[n] - top) + here : here;
            tops[n] = top;
            const Index at = label[n] - v0;
            if (at >= 0 && at < U) picked[n] = z[at];
          }
        });
      });
    }
    for (Index n = 0; n < R; ++n) {
      const bool counts = label[n] != ignore;
      const S lse = counts ? tops[n] + math::log(sums[n]) : S(0);
      loss[n0 + n] = counts ? static_cast<double>(lse - picked[n]) : 0.0;
      if (lses != nullptr) lses[n0 + n] = lse;
    }
  }
  if (sum) put(*sum.data, static_cast<S>(tree_sum(loss, N)), sum.beta);
}

/// With dlogits = (exp(x weight^T - lse) - onehot(label)) * dsum, zero in ignored rows:
///   dx = dlogits weight, dweight = dlogits^T x.
/// dsum is a scalar on the device. dx (N, C), dweight (V, C): last stride 1.
template <class T, class W>
void linear_cross_entropy_backward(cpu, In<stat_t<T>, cpu> dsum, In<T, cpu> x, In<W, cpu> weight,
                                   In<std::int64_t, cpu> labels, Index ignore, In<stat_t<T>, cpu> lse_N, Out<T, cpu> dx,
                                   Out<param_grad_t<W>, cpu> dweight) {
  using S = stat_t<T>;
  using G = param_grad_t<W>;
  const Index N = x.shape[0], C = x.shape[1], V = weight.shape[0];
  if (!dx && !dweight) return;
  const Index high = std::min(N, detail::lce_rows), wide = std::min(V, detail::lce_columns);
  constexpr bool direct = std::is_same_v<T, S>;  // a narrower dx would be rounded once a block
  const Scratch<S> block(high * wide), wide_dx(direct || !dx ? 0 : high * C);
  S* const logits = block.data();
  const S *const lses = lse_N.data, *const scale = dsum.data;

  for (Index n0 = 0; n0 < N; n0 += high) {
    const Index R = std::min(high, N - n0);
    const std::int64_t* const label = labels.data + n0;
    const In<T, cpu> x_part = detail::row_range(x, n0, n0 + R);
    const Out<T, cpu> dx_part = dx ? detail::row_range(dx, n0, n0 + R) : Out<T, cpu>{};
    for (Index v0 = 0; v0 < V; v0 += wide) {
      const Index U = std::min(wide, V - v0);
      const In<W, cpu> weight_part = detail::row_range(weight, v0, v0 + U);
      matmul<T, W, S>(cpu{}, x_part, detail::transposed(weight_part), Out<S, cpu>{logits, {R, U}, {U, 1}, 0});
      parallel_ranges(R, rows_a_piece(U), [&](Index begin, Index end) {
        simd([=]() WEFT_INLINE {
          const S d = *scale;
          for (Index n = begin; n < end; ++n) {
            S* const z = logits + n * U;
            const S lse = lses[n0 + n];
            const Index at = label[n] - v0;
            if (label[n] == ignore) put_row(z, 0, U, 0, [](Index) WEFT_INLINE { return S(0); });
            else
              put_row(z, 0, U, 0,
                      [=](Index v) WEFT_INLINE { return (math::exp(z[v] - lse) - (v == at ? S(1) : S(0))) * d; });
          }
        });
      });
      const In<S, cpu> dlogits{logits, {R, U}, {U, 1}};
      if (dx) {
        Out<S, cpu> to;
        if constexpr (direct) to = {dx_part.data, dx_part.shape, dx_part.strides, v0 > 0 ? 1 : dx.beta};
        else to = {wide_dx.data(), {R, C}, {C, 1}, v0 > 0 ? 1 : 0};
        matmul<S, W, S>(cpu{}, dlogits, weight_part, to);
      }
      if (dweight) {
        Out<G, cpu> to = detail::row_range(dweight, v0, v0 + U);
        to.beta = n0 > 0 ? 1 : dweight.beta;
        matmul<S, T, G>(cpu{}, detail::transposed(dlogits), x_part, to);
      }
    }
    if (!direct && dx) {
      const S* const from = wide_dx.data();
      parallel_ranges(R, rows_a_piece(C), [&](Index begin, Index end) {
        for (Index n = begin; n < end; ++n)
          for (Index c = 0; c < C; ++c)
            put(dx_part.data[n * dx_part.strides[0] + c * dx_part.strides[1]], from[n * C + c], dx.beta);
      });
    }
  }
  if (N == 0 && dweight && dweight.beta == 0)
    for (Index v = 0; v < V; ++v)
      for (Index c = 0; c < C; ++c) dweight.data[v * dweight.strides[0] + c * dweight.strides[1]] = G(0);
}

}  // namespace weft::inline WEFT_ABI::kernels
