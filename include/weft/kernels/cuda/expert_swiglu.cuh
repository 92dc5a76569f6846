// A mixture's experts on the GPU. Their products read rows of x and dy through the list of the plan, and a row's weight is a factor of its
// hidden layer, so that no pass moves rows to the experts or multiplies them by weights: only the sum of a row's k results is one.
#pragma once

#include <utility>

#include "weft/kernels/cuda/expert_swiglu.hpp"
#include "weft/kernels/cuda/experts_sum.cuh"
#include "weft/kernels/cuda/grouped_matmul.cuh"
#include "weft/kernels/cuda/hardware_math.cuh"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

template <class S>
__global__ void __launch_bounds__(256) expert_rows_kernel(const std::int64_t* order, const S* weights, Index k, Index R, int* rows, S* scales) {
  for (Index p = thread_index(); p < R; p += thread_count()) {
    const Index i = order[p];
    rows[p] = static_cast<int>(divide(i, k));
    scales[p] = weights[i];
  }
}

/// hidden = scale silu(gate) up; all contiguous rows of `packs` packs.
template <class T, int V>
__global__ void __launch_bounds__(256)
    scaled_swiglu_kernel(const T* gate, const T* up, const stat_t<T>* scales, Index R, Index packs, T* hidden) {
  using S = stat_t<T>;
  for (Index i = thread_index(); i < R * packs; i += thread_count()) {
    S g[V], u[V];
    load<V>(gate + i * V, g);
    load<V>(up + i * V, u);
    const S scale = scales[divide(i, packs)];
#pragma unroll
    for (int v = 0; v < V; ++v) u[v] = scale * (g[v] * sigmoid_for<T>(g[v]) * u[v]);
    store<V>(hidden + i * V, u, 0);
  }
}

/// A team a row: gate and up become their gradients, and dweights of the row's choice is the product of d and silu(gate) up.
template <class T, int V, bool warp>
__global__ void __launch_bounds__(256)
    scaled_swiglu_backward_kernel(const T* d_RF, const stat_t<T>* scales, const std::int64_t* order, Index k, Index R, Index F, T* gate, T* up,
                                  stat_t<T>* dweights, Index sw, Index sw_k, int beta) {
  using S = stat_t<T>;
  for (Index p = Team<warp>::first_row(); p < R; p += Team<warp>::row_step()) {
    const S scale = scales[p];
    S dot = S(0);
    for_columns<V, 0, warp>(F, [&](int, Index c) {
      const Index at = p * F + c;
      S d[V], g[V], u[V];
      load<V>(d_RF + at, d);
      load<V>(gate + at, g);
      load<V>(up + at, u);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const S on = sigmoid_for<T>(g[v]), slope = on * math::fma(g[v], 1 - on, S(1)), silu = g[v] * on;
        dot += d[v] * (silu * u[v]);
        d[v] *= scale;
        u[v] *= d[v] * slope;
        g[v] = d[v] * silu;
      }
      store<V>(gate + at, u, 0);
      store<V>(up + at, g, 0);
    });
    if (dweights == nullptr) continue;
    dot = Team<warp>::sum(dot);
    if (Team<warp>::rank() == 0) {
      const Index i = order[p], n = divide(i, k);
      put(dweights[n * sw + (i - n * k) * sw_k], dot, beta);
    }
  }
}

/// Memory of (R, C) as a tensor.
template <class T>
Out<T, cuda> whole(T* data, Index R, Index C) {
  return {data, {R, C}, {C, 1}, 0};
}

template <class W>
In<W, cuda> turned(In<W, cuda> w) {
  std::swap(w.shape[1], w.shape[2]);
  std::swap(w.strides[1], w.strides[2]);
  return w;
}

}  // namespace gpu

template <class T, class W>
void expert_swiglu_forward(cuda, In<T, cuda> x, In<stat_t<T>, cuda> weights, In<W, cuda> gate, In<W, cuda> up, In<std::int64_t, cuda> offsets,
                           In<std::int64_t, cuda> order, Out<std::int32_t, cuda> rows, Out<stat_t<T>, cuda> scales, Out<T, cuda> gate_RF,
                           Out<T, cuda> up_RF, Out<T, cuda> hidden_RF) {
  const Index R = order.numel(), F = gate.shape[1];
  if (R == 0) return;
  gpu::expert_rows_kernel<stat_t<T>>
      <<<gpu::blocks_for(R), 256, 0, gpu::stream()>>>(order.data, weights.data, weights.shape[1], R, rows.data, scales.data);
  gpu::check_launch("expert_swiglu");
  if (F == 0) return;
  const In<W, cuda> gate_turned = gpu::turned(gate), up_turned = gpu::turned(up);
  if constexpr (std::is_same_v<T, bf16> && std::is_same_v<W, bf16>)
    if (gate.strides == up.strides && gpu::grouped_wgmma<gpu::Cut::rows, gpu::warpgroups::Form::gated>(
                                          gpu::grouped_of_rows<T, W, T>(x, rows.data, gate_turned, offsets.data, gate_RF),
                                          {.b = up.data, .c = up_RF.data, .hidden = hidden_RF.data, .scales = scales.data}))
      return;
  gpu::grouped_rows<T, W, T>(x, rows.data, gate_turned, offsets.data, gate_RF);
  gpu::grouped_rows<T, W, T>(x, rows.data, up_turned, offsets.data, up_RF);
  constexpr int V = gpu::pack_of<T>;
  if (F % V == 0)
    gpu::scaled_swiglu_kernel<T, V>
        <<<gpu::blocks_for(R * F / V), 256, 0, gpu::stream()>>>(gate_RF.data, up_RF.data, scales.data, R, F / V, hidden_RF.data);
  else
    gpu::scaled_swiglu_kernel<T, 1>
        <<<gpu::blocks_for(R * F), 256, 0, gpu::stream()>>>(gate_RF.data, up_RF.data, scales.data, R, F, hidden_RF.data);
  gpu::check_launch("expert_swiglu");
}

template <class T, class W>
void expert_swiglu_output(cuda, In<T, cuda> hidden_RF, In<W, cuda> down, In<std::int64_t, cuda> offsets, In<std::int64_t, cuda> position,
                          Out<T, cuda> y) {
  const Index N = y.shape[0], C = y.shape[1], R = position.numel();
  if (N * C == 0) return;
  const gpu::Scratch<T> results(R * C);
  const Out<T, cuda> each = gpu::whole(results.data(), R, C);
  gpu::grouped_rows<T, W, T>(hidden_RF, nullptr, gpu::turned(down), offsets.data, each);
  gpu::combine<T>(each, nullptr, position.data, R / N, y, y.beta);
}

template <class T, class W>
void expert_swiglu_backward(cuda, In<T, cuda> dy, const ExpertSwiglu<T, W>& kept, Out<T, cuda> dx, Out<stat_t<T>, cuda> dweights,
                            Out<param_grad_t<W>, cuda> dgate, Out<param_grad_t<W>, cuda> dup, Out<param_grad_t<W>, cuda> ddown) {
  using G = param_grad_t<W>;
  const Index R = kept.order.numel(), N = kept.x.shape[0], C = kept.x.shape[1], F = kept.gate.shape[1];
  const std::int64_t* const offsets = kept.offsets.data;
  const int* const list = kept.rows.data;
  gpu::grouped_sum<T, T, G>(dy, list, kept.hidden_RF, nullptr, offsets, R, ddown);
  if (!dx && !dweights && !dgate && !dup) return;
  if (R > 0) {
    const gpu::Scratch<T> d(std::max<Index>(R * F, 1));
    gpu::grouped_rows<T, W, T>(dy, list, kept.down, offsets, gpu::whole(d.data(), R, F));
    const Index sw = dweights ? dweights.strides[0] : 0, sw_k = dweights ? dweights.strides[1] : 0;
    constexpr int V = gpu::pack_of<T>;
    const auto launch = [&](auto kernel, Index teams) {
      kernel<<<gpu::blocks_for(R, teams), 256, 0, gpu::stream()>>>(d.data(), kept.scales.data, kept.order.data, R / N, R, F, kept.gate_RF.data,
                                                                   kept.up_RF.data, dweights.data, sw, sw_k, dweights.beta);
      gpu::check_launch("expert_swiglu");
    };
    if (F % V != 0) launch(gpu::scaled_swiglu_backward_kernel<T, 1, true>, 8);
    else if (F <= 2048) launch(gpu::scaled_swiglu_backward_kernel<T, V, true>, 8);
    else launch(gpu::scaled_swiglu_backward_kernel<T, V, false>, 1);
  }
  gpu::grouped_sum<T, T, G>(kept.gate_RF, nullptr, kept.x, list, offsets, R, dgate);
  gpu::grouped_sum<T, T, G>(kept.up_RF, nullptr, kept.x, list, offsets, R, dup);
  if (!dx || N * C == 0) return;
  const gpu::Scratch<T> results(R * C);
  const Out<T, cuda> each = gpu::whole(results.data(), R, C);
  gpu::grouped_two_rows<T, W, T>(kept.gate_RF, kept.gate, kept.up_RF, kept.up, offsets, each);
  gpu::combine<T>(each, nullptr, kept.position.data, R / N, dx, dx.beta);
}

}  // namespace weft::inline WEFT_ABI::kernels
