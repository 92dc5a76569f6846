// Moving rows to the experts that a router chose, and back. Sums over a row's k experts run in the order of its choices.
#pragma once

#include "weft/core/scratch.hpp"
#include "weft/kernels/cpu/rows.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// A counting sort of N k choices by expert, stable: expert e gets the sorted rows offsets[e] .. offsets[e + 1]; order[p] is the
/// choice at sorted row p, position its inverse. All contiguous; experts in [0, E).
inline void expert_plan(cpu, In<std::int64_t, cpu> experts, Index E, Out<std::int64_t, cpu> offsets, Out<std::int64_t, cpu> order,
                        Out<std::int64_t, cpu> position) {
  const Index n = experts.numel();
  const Scratch<std::int64_t> next(E + 1);
  for (Index e = 0; e <= E; ++e) offsets.data[e] = 0;
  for (Index i = 0; i < n; ++i) ++offsets.data[experts.data[i] + 1];
  for (Index e = 0; e < E; ++e) offsets.data[e + 1] += offsets.data[e];
  for (Index e = 0; e < E; ++e) next[e] = offsets.data[e];
  for (Index i = 0; i < n; ++i) {
    const Index p = next[experts.data[i]]++;
    order.data[p] = i;
    position.data[i] = p;
  }
}

namespace detail {
/// Calls row(n) for rows of C elements, grouped so that a piece is worth starting.
template <class F>
void for_rows(Index N, Index C, F&& row) {
  parallel_ranges(N, rows_a_piece(N, C), [&](Index begin, Index end) {
    for (Index n = begin; n < end; ++n) row(n);
  });
}
}  // namespace detail

/// y[p] = x[order[p] / k]. x (N, C) with last stride 1, y (N k, C).
template <class T>
void expert_dispatch_forward(cpu, In<T, cpu> x, In<std::int64_t, cpu> order, Index k, Out<T, cpu> y) {
  const Index C = y.shape[1], step = x.strides[0], y_step = y.strides[0];
  detail::for_rows(y.shape[0], C, [&](Index p) {
    const T* from = x.data + order.data[p] / k * step;
    std::copy(from, from + C, y.data + p * y_step);
  });
}

/// dx[n] (+)= sum over s of dy[position[n k + s]].
template <class T>
void expert_dispatch_backward(cpu, In<T, cpu> dy, In<std::int64_t, cpu> position, Index k, Out<T, cpu> dx) {
  using S = stat_t<T>;
  if (!dx) return;
  const Index C = dx.shape[1], step = dy.strides[0], dx_step = dx.strides[0];
  const int beta = dx.beta;
  detail::for_rows(dx.shape[0], C * k, [&](Index n) {
    const std::int64_t* at = position.data + n * k;
    const T* from = dy.data;
    T* to = dx.data + n * dx_step;
    simd([=]() WEFT_INLINE {
#pragma omp simd
      for (Index c = 0; c < C; ++c) {
        S total = 0;
        for (Index s = 0; s < k; ++s) total += static_cast<S>(from[at[s] * step + c]);
        put(to[c], total, beta);
      }
    });
  });
}

/// y[n] = sum over s of weights[n k + s] x[position[n k + s]]. x (N k, C), y (N, C), last strides 1; weights contiguous.
template <class T>
void expert_combine_forward(cpu, In<T, cpu> x, In<stat_t<T>, cpu> weights, In<std::int64_t, cpu> position, Out<T, cpu> y) {
  using S = stat_t<T>;
  const Index C = y.shape[1], k = weights.shape[1], step = x.strides[0], y_step = y.strides[0];
  detail::for_rows(y.shape[0], C * k, [&](Index n) {
    const std::int64_t* at = position.data + n * k;
    const S* w = weights.data + n * k;
    const T* from = x.data;
    T* to = y.data + n * y_step;
    simd([=]() WEFT_INLINE {
#pragma omp simd
      for (Index c = 0; c < C; ++c) {
        S total = 0;
        for (Index s = 0; s < k; ++s) total += w[s] * static_cast<S>(from[at[s] * step + c]);
        to[c] = static_cast<T>(total);
      }
    });
  });
}

/// dx[p] (+)= weights[order[p]] dy[order[p] / k]; dweights[i] (+)= dy[i / k] . x[p], i = order[p].
template <class T>
void expert_combine_backward(cpu, In<T, cpu> dy, In<T, cpu> x, In<stat_t<T>, cpu> weights, In<std::int64_t, cpu> order, Out<T, cpu> dx,
                             Out<stat_t<T>, cpu> dweights) {
  using S = stat_t<T>;
  const Index C = x.shape[1], k = weights.shape[1], step = x.strides[0], dy_step = dy.strides[0];
  detail::for_rows(x.shape[0], C, [&](Index p) {
    const Index i = order.data[p];
    const T *from = x.data + p * step, *g = dy.data + i / k * dy_step;
    T* to = dx ? dx.data + p * dx.strides[0] : nullptr;
    S* dw = dweights ? dweights.data + i / k * dweights.strides[0] + i % k * dweights.strides[1] : nullptr;
    const S w = weights.data[i];
    const int beta = dx.beta, dw_beta = dweights.beta;
    simd([=]() WEFT_INLINE {
      if (to != nullptr) {
#pragma omp simd
        for (Index c = 0; c < C; ++c) put(to[c], w * static_cast<S>(g[c]), beta);
      }
      if (dw != nullptr)
        put(*dw, sum_row<S>(C, [=](Index c) WEFT_INLINE { return static_cast<S>(g[c]) * static_cast<S>(from[c]); }), dw_beta);
    });
  });
}

}  // namespace weft::inline WEFT_ABI::kernels
