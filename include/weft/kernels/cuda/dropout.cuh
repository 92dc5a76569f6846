// Dropout whose mask is a function of key and logical element, so that backward and recompute make it again: word i % 4 of Philox
// block i / 4 belongs to element i, counted in row-major order. Srivastava et al. 2014.
#pragma once

#include <cmath>

#include "weft/kernels/cuda/dropout.hpp"
#include "weft/kernels/cuda/rows.cuh"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

/// V a multiple of 4 in contiguous views (N = 1), or 1.
template <class T, int V>
__global__ void __launch_bounds__(256)
    dropout_kernel(const __grid_constant__ Rows<const T> x, Index N, Index packs, std::uint32_t threshold, bool none, stat_t<T> scale,
                   RandomKey key, const __grid_constant__ Rows<T> y, int beta) {
  using S = stat_t<T>;
  for (Index item = thread_index(); item < N * packs; item += thread_count()) {
    const Index n = N == 1 ? 0 : divide(item, packs), c = (item - n * packs) * V;
    const auto block = static_cast<std::uint64_t>(item * V) / 4;
    S v[V];
    load<V>(x[n] + c, v);
    if constexpr (V == 1) {
      const PhiloxWords drawn = philox(key, block);
      const int at = static_cast<int>(item % 4);
      const std::uint32_t word = at == 0 ? drawn.w[0] : at == 1 ? drawn.w[1] : at == 2 ? drawn.w[2] : drawn.w[3];
      v[0] = word >= threshold && !none ? v[0] * scale : S(0);
    } else {
#pragma unroll
      for (int i = 0; i < V; i += 4) {
        const PhiloxWords drawn = philox(key, block + i / 4);
#pragma unroll
        for (int j = 0; j < 4; ++j) v[i + j] = drawn.w[j] >= threshold && !none ? v[i + j] * scale : S(0);
      }
    }
    store<V>(y[n] + c, v, beta);
  }
}

}  // namespace gpu

template <class T>
void dropout_forward(cuda, In<T, cuda> x, double rate, RandomKey key, Out<T, cuda> y) {
  using S = stat_t<T>;
  if (!y || y.numel() == 0) return;
  assert(rate >= 0 && rate <= 1);
  const double limit = rate * 0x1p32;
  const bool none = limit > 4294967295.0;  // no word reaches it
  const std::uint32_t threshold = none ? 0 : static_cast<std::uint32_t>(std::ceil(limit));
  const S scale = none ? S(0) : static_cast<S>(1 / (1 - rate));
  constexpr int V = sizeof(T) == 2 ? 8 : 4;
  const gpu::Extents at(y.shape, x.contiguous() && y.contiguous());
  const auto from = gpu::rows(x);
  const auto to = gpu::rows(y);
  if (at.N == 1 && at.C % V == 0 && from.template aligned<V>(true) && to.template aligned<V>(true))
    gpu::dropout_kernel<T, V>
        <<<gpu::blocks_for(at.C / V), 256, 0, gpu::stream()>>>(from, at.N, at.C / V, threshold, none, scale, key, to, y.beta);
  else
    gpu::dropout_kernel<T, 1>
        <<<gpu::blocks_for(at.N * at.C), 256, 0, gpu::stream()>>>(from, at.N, at.C, threshold, none, scale, key, to, y.beta);
  gpu::check_launch("dropout");
}

template <class T>
void dropout_backward(cuda, In<T, cuda> dy, double rate, RandomKey key, Out<T, cuda> dx) {
  dropout_forward<T>(cuda{}, dy, rate, key, dx);
}

}  // namespace weft::inline WEFT_ABI::kernels
