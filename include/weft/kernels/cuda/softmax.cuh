// Softmax and log-softmax over the last axis, and their gradients from the output: a row is read once and kept in registers where it
// fits.
#pragma once

#include "weft/kernels/cuda/hardware_math.cuh"
#include "weft/kernels/cuda/rows.cuh"
#include "weft/kernels/cuda/softmax.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

template <bool logarithm, class T, int V, int R, bool warp>
__global__ void __launch_bounds__(row_bounds<V, warp>)
    softmax_forward_kernel(const __grid_constant__ Rows<const T> x, Index N, Index C, const __grid_constant__ Rows<T> y, int beta) {
  using S = stat_t<T>;
  using Row = Team<warp>;
  for (Index n = Row::first_row(); n < N; n += Row::row_step()) {
    const Held<T, V, R, warp> row(x[n], C);
    S top = -std::numeric_limits<S>::infinity(), sum = S(0);
    for_columns<V, R, warp>(C, [&](int r, Index c) {
      S v[V];
      row.read(r, c, v);
#pragma unroll
      for (int i = 0; i < V; ++i) top = v[i] > top ? v[i] : top;
    });
    top = Row::max(top);
    S kept[R > 0 && !logarithm ? R : 1][V];  // the exponentials
    for_columns<V, R, warp>(C, [&](int r, Index c) {
      S v[V];
      row.read(r, c, v);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        v[i] = exp_for<T>(v[i] - top);
        sum += v[i];
        if constexpr (R > 0 && !logarithm) kept[r][i] = v[i];
      }
    });
    sum = Row::sum(sum);
    const S log_sum = logarithm ? math::log(sum) : S(0), scale = logarithm ? S(0) : 1 / sum;
    T* const to = y[n];
    for_columns<V, R, warp>(C, [&](int r, Index c) {
      S v[V];
      if constexpr (R == 0 || logarithm) row.read(r, c, v);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        if constexpr (logarithm) v[i] = (v[i] - top) - log_sum;
        else if constexpr (R > 0) v[i] = kept[r][i] * scale;
        else v[i] = exp_for<T>(v[i] - top) * scale;
      }
      store<V>(to + c, v, beta);
    });
  }
}

template <bool logarithm, class T, int V, int R, bool warp>
__global__ void __launch_bounds__(row_bounds<V, warp>)
    softmax_backward_kernel(const __grid_constant__ Rows<const T> dy, const __grid_constant__ Rows<const T> y, Index N, Index C,
                            const __grid_constant__ Rows<T> dx, int beta) {
  using S = stat_t<T>;
  using Row = Team<warp>;
  for (Index n = Row::first_row(); n < N; n += Row::row_step()) {
    const Held<T, V, R, warp> dy_row(dy[n], C), y_row(y[n], C);
    S sum = S(0);
    for_columns<V, R, warp>(C, [&](int r, Index c) {
      S d[V], v[V];
      dy_row.read(r, c, d);
      if constexpr (!logarithm) y_row.read(r, c, v);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        if constexpr (logarithm) sum += d[i];
        else sum += d[i] * v[i];
      }
    });
    sum = Row::sum(sum);
    T* const to = dx[n];
    for_columns<V, R, warp>(C, [&](int r, Index c) {
      S d[V], v[V];
      dy_row.read(r, c, d);
      y_row.read(r, c, v);
#pragma unroll
      for (int i = 0; i < V; ++i) v[i] = logarithm ? d[i] - exp_for<T>(v[i]) * sum : v[i] * (d[i] - sum);
      store<V>(to + c, v, beta);
    });
  }
}

template <bool logarithm, class T>
void softmax_forward(const In<T, cuda>& x, const Out<T, cuda>& y) {
  constexpr int V = pack_of<T>;
  const Index N = row_count(x.shape), C = row_width(x.shape);
  if (!y || N * C == 0) return;
  const Rows<const T> x_rows = rows(x);
  const Rows<T> y_rows = rows(y);
  const RowPlan plan(C, V, C % V == 0 && x_rows.template aligned<V>() && y_rows.template aligned<V>());
  plan.choose<V>([&](auto v, auto r, auto warp) {
    softmax_forward_kernel<logarithm, T, v(), r(), warp()><<<plan.blocks(N), plan.threads, 0, stream()>>>(x_rows, N, C, y_rows, y.beta);
  });
  check_launch("softmax");
}

template <bool logarithm, class T>
void softmax_backward(const In<T, cuda>& dy, const In<T, cuda>& y, const Out<T, cuda>& dx) {
  constexpr int V = pack_of<T>;
  const Index N = row_count(y.shape), C = row_width(y.shape);
  if (!dx || N * C == 0) return;
  const Rows<const T> dy_rows = rows(dy), y_rows = rows(y);
  const Rows<T> dx_rows = rows(dx);
  const RowPlan plan(C, V, C % V == 0 && dy_rows.template aligned<V>() && y_rows.template aligned<V>() && dx_rows.template aligned<V>());
  plan.choose<V>([&](auto v, auto r, auto warp) {
    softmax_backward_kernel<logarithm, T, v(), r(), warp()>
        <<<plan.blocks(N), plan.threads, 0, stream()>>>(dy_rows, y_rows, N, C, dx_rows, dx.beta);
  });
  check_launch("softmax");
}

}  // namespace gpu

template <class T>
void softmax_forward(cuda, In<T, cuda> x, Out<T, cuda> y) {
  gpu::softmax_forward<false, T>(x, y);
}

template <class T>
void softmax_backward(cuda, In<T, cuda> dy, In<T, cuda> y, Out<T, cuda> dx) {
  gpu::softmax_backward<false, T>(dy, y, dx);
}

template <class T>
void log_softmax_forward(cuda, In<T, cuda> x, Out<T, cuda> y) {
  gpu::softmax_forward<true, T>(x, y);
}

template <class T>
void log_softmax_backward(cuda, In<T, cuda> dy, In<T, cuda> y, Out<T, cuda> dx) {
  gpu::softmax_backward<true, T>(dy, y, dx);
}

}  // namespace weft::inline WEFT_ABI::kernels
