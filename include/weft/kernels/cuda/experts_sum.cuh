// The sum of a row's results from its k experts, in the order of its choices, each on one thread.
#pragma once

#include "weft/kernels/cuda/rows.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

/// y[n] (+)= the sum over s of weights[n k + s] x[position[n k + s]]; all weights are 1 where they are null.
template <class T, int V>
__global__ void __launch_bounds__(256) combine_kernel(const T* x, Index sx, const stat_t<T>* weights, const std::int64_t* position, Index k,
                                                      Index N, Index packs, T* y, Index sy, int beta) {
  using S = stat_t<T>;
  for (Index item = thread_index(); item < N * packs; item += thread_count()) {
    const Index n = divide(item, packs), c = (item - n * packs) * V;
    S total[V];
#pragma unroll
    for (int i = 0; i < V; ++i) total[i] = S(0);
#pragma unroll 2
    for (Index s = n * k; s < n * k + k; ++s) {
      S v[V];
      load<V>(x + position[s] * sx + c, v);
      const S w = weights != nullptr ? weights[s] : S(1);
#pragma unroll
      for (int i = 0; i < V; ++i) total[i] += w * v[i];
    }
    store<V>(y + n * sy + c, total, beta);
  }
}

/// True iff rows of C elements that lie `stride` apart can be read in packs of V.
template <int V, class T>
bool rows_in_packs(const T* data, Index stride, Index C) {
  return C % V == 0 && stride % V == 0 && is_aligned<V>(data);
}

template <class T>
void combine(const In<T, cuda>& x, const stat_t<T>* weights, const std::int64_t* position, Index k, const Out<T, cuda>& y, int beta) {
  constexpr int V = pack_of<T>;
  const Index N = y.shape[0], C = y.shape[1], sx = x.strides[0], sy = y.strides[0];
  if (N * C == 0) return;
  if (rows_in_packs<V>(x.data, sx, C) && rows_in_packs<V>(y.data, sy, C))
    combine_kernel<T, V><<<blocks_for(N * (C / V)), 256, 0, stream()>>>(x.data, sx, weights, position, k, N, C / V, y.data, sy, beta);
  else combine_kernel<T, 1><<<blocks_for(N * C), 256, 0, stream()>>>(x.data, sx, weights, position, k, N, C, y.data, sy, beta);
  check_launch("expert_combine");
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu
