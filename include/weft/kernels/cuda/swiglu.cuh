// The gate of SwiGLU, silu(gate) * up, element by element, and its gradient. Shazeer 2020.
#pragma once

#include "weft/kernels/cuda/hardware_math.cuh"
#include "weft/kernels/cuda/rows.cuh"
#include "weft/kernels/cuda/swiglu.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

template <class T, int V>
__global__ void __launch_bounds__(256)
    swiglu_forward_kernel(const __grid_constant__ Rows<const T> gate, const __grid_constant__ Rows<const T> up, Index N, Index packs,
                          const __grid_constant__ Rows<T> y, int beta) {
  using S = stat_t<T>;
  for (Index i = thread_index(); i < N * packs; i += thread_count()) {
    const Index n = N == 1 ? 0 : divide(i, packs), c = (i - n * packs) * V;
    const T *const gate_at = gate[n] + c, *const up_at = up[n] + c;  // first, so that no branch stands between the loads
    T* const to = y[n] + c;
    S g[V], u[V];
    load<V>(gate_at, g);
    load<V>(up_at, u);
#pragma unroll
    for (int v = 0; v < V; ++v) u[v] = g[v] * sigmoid_for<T>(g[v]) * u[v];
    store<V>(to, u, beta);
  }
}

template <class T, int V>
__global__ void __launch_bounds__(256)
    swiglu_backward_kernel(const __grid_constant__ Rows<const T> dy, const __grid_constant__ Rows<const T> gate,
                           const __grid_constant__ Rows<const T> up, Index N, Index packs, const __grid_constant__ Rows<T> dgate,
                           int dgate_beta, const __grid_constant__ Rows<T> dup, int dup_beta) {
  using S = stat_t<T>;
  for (Index i = thread_index(); i < N * packs; i += thread_count()) {
    const Index n = N == 1 ? 0 : divide(i, packs), c = (i - n * packs) * V;
    const T *const dy_at = dy[n] + c, *const gate_at = gate[n] + c, *const up_at = up[n] + c;
    S d[V], g[V], u[V];
    load<V>(dy_at, d);
    load<V>(gate_at, g);
    load<V>(up_at, u);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const S on = sigmoid_for<T>(g[v]), slope = on * math::fma(g[v], 1 - on, S(1));
      u[v] = d[v] * u[v] * slope;
      g[v] = d[v] * g[v] * on;
    }
    if (dup) store<V>(dup[n] + c, g, dup_beta);
    if (dgate) store<V>(dgate[n] + c, u, dgate_beta);
  }
}

}  // namespace gpu

template <class T>
void swiglu_forward(cuda, In<T, cuda> gate, In<T, cuda> up, Out<T, cuda> y) {
  if (!y || y.numel() == 0) return;
  constexpr int V = gpu::pack_of<T>;
  const gpu::Extents at(y.shape, gate.contiguous() && up.contiguous() && y.contiguous());
  const auto gate_rows = gpu::rows(gate), up_rows = gpu::rows(up);
  const auto y_rows = gpu::rows(y);
  if (at.C % V == 0 && gate_rows.template aligned<V>(at.N == 1) && up_rows.template aligned<V>(at.N == 1) &&
      y_rows.template aligned<V>(at.N == 1))
    gpu::swiglu_forward_kernel<T, V>
        <<<gpu::blocks_for(at.N * (at.C / V)), 256, 0, gpu::stream()>>>(gate_rows, up_rows, at.N, at.C / V, y_rows, y.beta);
  else
    gpu::swiglu_forward_kernel<T, 1>
        <<<gpu::blocks_for(at.N * at.C), 256, 0, gpu::stream()>>>(gate_rows, up_rows, at.N, at.C, y_rows, y.beta);
  gpu::check_launch("swiglu");
}

template <class T>
void swiglu_backward(cuda, In<T, cuda> dy, In<T, cuda> gate, In<T, cuda> up, Out<T, cuda> dgate, Out<T, cuda> dup) {
  if ((!dgate && !dup) || gate.numel() == 0) return;
  constexpr int V = gpu::pack_of<T>;
  const gpu::Extents at(
      gate.shape, dy.contiguous() && gate.contiguous() && up.contiguous() && (!dgate || dgate.contiguous()) && (!dup || dup.contiguous()));
  const auto dy_rows = gpu::rows(dy), gate_rows = gpu::rows(gate), up_rows = gpu::rows(up);
  const auto dgate_rows = gpu::rows(dgate), dup_rows = gpu::rows(dup);
  if (at.C % V == 0 && dy_rows.template aligned<V>(at.N == 1) && gate_rows.template aligned<V>(at.N == 1) &&
      up_rows.template aligned<V>(at.N == 1) && dgate_rows.template aligned<V>(at.N == 1) && dup_rows.template aligned<V>(at.N == 1))
    gpu::swiglu_backward_kernel<T, V><<<gpu::blocks_for(at.N * (at.C / V)), 256, 0, gpu::stream()>>>(
        dy_rows, gate_rows, up_rows, at.N, at.C / V, dgate_rows, dgate.beta, dup_rows, dup.beta);
  else
    gpu::swiglu_backward_kernel<T, 1><<<gpu::blocks_for(at.N * at.C), 256, 0, gpu::stream()>>>(dy_rows, gate_rows, up_rows, at.N, at.C,
                                                                                               dgate_rows, dgate.beta, dup_rows, dup.beta);
  gpu::check_launch("swiglu");
}

}  // namespace weft::inline WEFT_ABI::kernels
