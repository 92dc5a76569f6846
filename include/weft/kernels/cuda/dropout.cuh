// Dropout whose mask is a function of key and logical element, so that backward and recompute make it again: word i % 4 of Philox
// block i / 4 belongs to element i, counted in row-major order. Srivastava et al. 2014.
#pragma once

#include <cmath>

#include "weft/core/graph.hpp"
#include "weft/kernels/cuda/dropout.hpp"
#include "weft/kernels/cuda/rows.cuh"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

struct DropoutRule {
  RandomKey key;
  std::uint32_t threshold;  // words below it drop their element
  bool none;                // no word reaches it
  const std::uint32_t* step;  // in place of the key's, where that is recorded

  __device__ RandomKey key_now() const {
    RandomKey now = key;
    if (step != nullptr) now.step = *step;
    return now;
  }
};

/// Packs of V, a multiple of 4, which lie together; a thread has `each` of them, under way together.
template <class T, int V, int each>
__global__ void __launch_bounds__(256) dropout_packs(const T* x, Index packs, DropoutRule rule, stat_t<T> scale, T* y, int beta) {
  const RandomKey key = rule.key_now();
  for (Index at = static_cast<Index>(blockIdx.x) * (256 * each) + threadIdx.x; at < packs;
       at += static_cast<Index>(gridDim.x) * (256 * each)) {
    Words<T, V> words[each];
#pragma unroll
    for (int k = 0; k < each; ++k)
      if (at + k * 256 < packs) words[k] = Words<T, V>::read(x + (at + k * 256) * V);
#pragma unroll
    for (int k = 0; k < each; ++k) {
      const Index pack = at + k * 256;
      if (pack >= packs) break;
      bool kept[V];
#pragma unroll
      for (int i = 0; i < V; i += 4) {
        const PhiloxWords drawn = philox(key, static_cast<std::uint64_t>(pack) * (V / 4) + i / 4);
#pragma unroll
        for (int j = 0; j < 4; ++j) kept[i + j] = drawn.w[j] >= rule.threshold && !rule.none;
      }
      stat_t<T> v[V];
      words[k].widen(v);
#pragma unroll
      for (int i = 0; i < V; ++i) v[i] = kept[i] ? v[i] * scale : stat_t<T>(0);
      store<V>(y + pack * V, v, beta);
    }
  }
}

/// The elements of N rows of C at any place.
template <class T>
__global__ void __launch_bounds__(256) dropout_any(const __grid_constant__ Rows<const T> x, Index N, Index C, DropoutRule rule,
                                                   stat_t<T> scale, const __grid_constant__ Rows<T> y, int beta) {
  using S = stat_t<T>;
  const RandomKey key = rule.key_now();
  for (Index item = thread_index(); item < N * C; item += thread_count()) {
    const Index n = N == 1 ? 0 : divide(item, C), c = item - n * C;
    const PhiloxWords drawn = philox(key, static_cast<std::uint64_t>(item) / 4);
    const int at = static_cast<int>(item % 4);
    const std::uint32_t word = at == 0 ? drawn.w[0] : at == 1 ? drawn.w[1] : at == 2 ? drawn.w[2] : drawn.w[3];
    put(y[n][c], word >= rule.threshold && !rule.none ? static_cast<S>(x[n][c]) * scale : S(0), beta);
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
  const gpu::DropoutRule rule{key, threshold, none, weft::gpu::launch_step(key.step)};
  constexpr int V = sizeof(T) == 2 ? 8 : 4, each = 2;
  const gpu::Extents at(y.shape, x.contiguous() && y.contiguous());
  if (sizeof(T) <= 4 && at.N == 1 && at.C % V == 0 && gpu::is_aligned<V>(x.data) && gpu::is_aligned<V>(y.data)) {
    if constexpr (sizeof(T) <= 4)
      gpu::dropout_packs<T, V, each>
          <<<gpu::blocks_for(at.C / V, 256 * each), 256, 0, gpu::stream()>>>(x.data, at.C / V, rule, scale, y.data, y.beta);
  } else {
    gpu::dropout_any<T>
        <<<gpu::blocks_for(at.N * at.C), 256, 0, gpu::stream()>>>(gpu::rows(x), at.N, at.C, rule, scale, gpu::rows(y), y.beta);
  }
  gpu::check_launch("dropout");
}

template <class T>
void dropout_backward(cuda, In<T, cuda> dy, double rate, RandomKey key, Out<T, cuda> dx) {
  dropout_forward<T>(cuda{}, dy, rate, key, dx);
}

}  // namespace weft::inline WEFT_ABI::kernels
