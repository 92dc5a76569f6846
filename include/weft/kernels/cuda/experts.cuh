// Moving rows to the experts that a router chose, and back. Sums over a row's k experts run in the order of its choices, each on one
// thread. One .cu file includes this: expert_plan is no template.
#pragma once

#include "weft/kernels/cuda/experts.hpp"
#include "weft/kernels/cuda/experts_sum.cuh"
#include "weft/kernels/cuda/sort.cuh"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

template <class Key>
__global__ void __launch_bounds__(256) expert_plan_kernel(const Key* keys, const Key* positions, Index n, Index E, std::int64_t* offsets,
                                                          std::int64_t* order, std::int64_t* position) {
  for (Index i = thread_index(); i <= E || i < n; i += thread_count()) {
    if (i <= E) offsets[i] = lower_bound(keys, n, static_cast<Key>(i));
    if (i < n) {
      order[i] = positions[i];
      position[positions[i]] = i;
    }
  }
}

template <class T, int V>
__global__ void __launch_bounds__(256)
    dispatch_forward_kernel(const T* x, Index sx, const std::int64_t* order, Index k, Index N, Index packs, T* y, Index sy) {
  for (Index item = thread_index(); item < N * packs; item += thread_count()) {
    const Index p = divide(item, packs), c = (item - p * packs) * V;
    stat_t<T> v[V];
    load<V>(x + divide(order[p], k) * sx + c, v);
    store<V>(y + p * sy + c, v, 0);
  }
}

/// A warp a sorted row p: dx[p] and the gradient of its weight.
template <class T, int V>
__global__ void __launch_bounds__(256)
    combine_backward_kernel(const T* dy, Index sdy, const T* x, Index sx, const stat_t<T>* weights, const std::int64_t* order, Index k,
                            Index rows, Index C, T* dx, Index sdx, int beta, stat_t<T>* dweights, Index sw, Index sw_k, int dweights_beta) {
  using S = stat_t<T>;
  using Row = Team<true>;
  for (Index p = Row::first_row(); p < rows; p += Row::row_step()) {
    const Index i = order[p], n = divide(i, k);
    const S w = weights[i];
    S dot = S(0);
#pragma unroll 2
    for (Index c = static_cast<Index>(Row::rank()) * V; c < C; c += 32 * V) {
      S g[V], v[V];
      load<V>(dy + n * sdy + c, g);
      if (dweights != nullptr) {
        load<V>(x + p * sx + c, v);
#pragma unroll
        for (int e = 0; e < V; ++e) dot += g[e] * v[e];
      }
      if (dx == nullptr) continue;
#pragma unroll
      for (int e = 0; e < V; ++e) g[e] *= w;
      store<V>(dx + p * sdx + c, g, beta);
    }
    if (dweights == nullptr) continue;
    dot = Row::sum(dot);
    if (Row::rank() == 0) put(dweights[n * sw + (i - n * k) * sw_k], dot, dweights_beta);
  }
}

}  // namespace gpu

void expert_plan(cuda, In<std::int64_t, cuda> experts, Index E, Out<std::int64_t, cuda> offsets, Out<std::int64_t, cuda> order,
                 Out<std::int64_t, cuda> position) {
  const Index n = experts.numel();
  const gpu::SortedIndices sorted(experts.data, 1, n, E);
  gpu::expert_plan_kernel<<<gpu::blocks_for(std::max(n, E + 1)), 256, 0, gpu::stream()>>>(sorted.keys(), sorted.positions(), n, E,
                                                                                          offsets.data, order.data, position.data);
  gpu::check_launch("expert_plan");
}

template <class T>
void expert_dispatch_forward(cuda, In<T, cuda> x, In<std::int64_t, cuda> order, Index k, Out<T, cuda> y) {
  constexpr int V = gpu::pack_of<T>;
  const Index N = y.shape[0], C = y.shape[1], sx = x.strides[0], sy = y.strides[0];
  if (N * C == 0) return;
  if (gpu::rows_in_packs<V>(x.data, sx, C) && gpu::rows_in_packs<V>(y.data, sy, C))
    gpu::dispatch_forward_kernel<T, V>
        <<<gpu::blocks_for(N * (C / V)), 256, 0, gpu::stream()>>>(x.data, sx, order.data, k, N, C / V, y.data, sy);
  else gpu::dispatch_forward_kernel<T, 1><<<gpu::blocks_for(N * C), 256, 0, gpu::stream()>>>(x.data, sx, order.data, k, N, C, y.data, sy);
  gpu::check_launch("expert_dispatch");
}

template <class T>
void expert_dispatch_backward(cuda, In<T, cuda> dy, In<std::int64_t, cuda> position, Index k, Out<T, cuda> dx) {
  if (!dx) return;
  gpu::combine<T>(dy, nullptr, position.data, k, dx, dx.beta);
}

template <class T>
void expert_combine_forward(cuda, In<T, cuda> x, In<stat_t<T>, cuda> weights, In<std::int64_t, cuda> position, Out<T, cuda> y) {
  gpu::combine<T>(x, weights.data, position.data, weights.shape[1], y, 0);
}

template <class T>
void expert_combine_backward(cuda, In<T, cuda> dy, In<T, cuda> x, In<stat_t<T>, cuda> weights, In<std::int64_t, cuda> order,
                             Out<T, cuda> dx, Out<stat_t<T>, cuda> dweights) {
  constexpr int V = gpu::pack_of<T>;
  const Index rows = x.shape[0], C = x.shape[1], k = weights.shape[1], sdy = dy.strides[0], sx = x.strides[0];
  if (rows == 0 || (!dx && !dweights)) return;
  const Index sdx = dx ? dx.strides[0] : 0, sw = dweights ? dweights.strides[0] : 0, sw_k = dweights ? dweights.strides[1] : 0;
  const unsigned blocks = gpu::blocks_for(rows, 8);
  if (gpu::rows_in_packs<V>(dy.data, sdy, C) && gpu::rows_in_packs<V>(x.data, sx, C) && gpu::rows_in_packs<V>(dx.data, sdx, C))
    gpu::combine_backward_kernel<T, V><<<blocks, 256, 0, gpu::stream()>>>(dy.data, sdy, x.data, sx, weights.data, order.data, k, rows, C,
                                                                          dx.data, sdx, dx.beta, dweights.data, sw, sw_k, dweights.beta);
  else
    gpu::combine_backward_kernel<T, 1><<<blocks, 256, 0, gpu::stream()>>>(dy.data, sdy, x.data, sx, weights.data, order.data, k, rows, C,
                                                                          dx.data, sdx, dx.beta, dweights.data, sw, sw_k, dweights.beta);
  gpu::check_launch("expert_combine");
}

}  // namespace weft::inline WEFT_ABI::kernels
