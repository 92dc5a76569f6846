// Random values for parameters: element i is a function of key and i alone. A thread makes the four elements of one Philox block.
#pragma once

#include <cmath>

#include "weft/kernels/cuda/elements.cuh"
#include "weft/kernels/cuda/random.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

struct Normal {
  double mean, std;
  __device__ void operator()(const PhiloxWords& drawn, double (&value)[4]) const {
#pragma unroll
    for (int pair = 0; pair < 4; pair += 2) {
      const double radius = std::sqrt(weft::detail::minus_two_log(drawn.w[pair]));
      const NormalPair at = weft::detail::turn(drawn.w[pair + 1]);
      value[pair] = mean + this->std * (radius * at.first);
      value[pair + 1] = mean + this->std * (radius * at.second);
    }
  }
};
struct Uniform {
  double low, high;
  __device__ void operator()(const PhiloxWords& drawn, double (&value)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) value[i] = low + (high - low) * uniform01(drawn.w[i]);
  }
};

/// y[i] is value i + first; blocks [first / 4, first / 4 + blocks) cover them.
template <class T, class Make>
__global__ void __launch_bounds__(256) random_kernel(Make make, RandomKey key, Index first, Index blocks, Index n, T* y, int beta) {
  for (Index b = thread_index(); b < blocks; b += thread_count()) {
    const Index block = first / 4 + b, at = 4 * block - first;
    double value[4];
    make(philox(key, static_cast<std::uint64_t>(block)), value);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (at + i >= 0 && at + i < n) put(y[at + i], static_cast<stat_t<T>>(value[i]), beta);
  }
}

template <class T, class Make>
void random_fill(Make make, const RandomKey& key, Index first, const Out<T, cuda>& y) {
  const Index n = y.numel(), blocks = (first + n + 3) / 4 - first / 4;
  if (!y || n == 0) return;
  assert(y.contiguous() && first >= 0);
  random_kernel<T, Make><<<blocks_for(blocks), 256, 0, stream()>>>(make, key, first, blocks, n, y.data, y.beta);
  check_launch("random");
}

}  // namespace gpu

template <class T>
void normal_fill(cuda, RandomKey key, double mean, double std, Index first_element, Out<T, cuda> y) {
  gpu::random_fill<T>(gpu::Normal{mean, std}, key, first_element, y);
}

template <class T>
void uniform_fill(cuda, RandomKey key, double low, double high, Index first_element, Out<T, cuda> y) {
  gpu::random_fill<T>(gpu::Uniform{low, high}, key, first_element, y);
}

}  // namespace weft::inline WEFT_ABI::kernels
