// The squared norm of a gradient in fixed pieces: a block sums a piece, in an order that does not depend on where the gradient lies. And what
// becomes of the pieces: their sum, and which gradients are finite. One .cu file includes this: not all are templates.
#pragma once

#include <limits>

#include "weft/kernels/cuda/adamw.hpp"
#include "weft/kernels/cuda/elements.cuh"
#include "weft/kernels/cuda/fault.cuh"
#include "weft/kernels/cuda/parts.cuh"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

template <class G>
struct NormElements {
  const G* grad;
  Index n;
  double* sums;
};

/// A block a piece: thread t has the elements 4 t .. 4 t + 3 of each 1,024.
template <class G>
__global__ void __launch_bounds__(256) squared_norm_kernel(const __grid_constant__ Parts<NormElements<G>> parts) {
  static_assert(norm_piece % 1024 == 0);
  __shared__ double shared[32];
  int piece;
  const NormElements<G>& part = parts.here(piece);
  const bool packs = is_aligned<4>(part.grad);
  double sum = 0;
#pragma unroll
  for (int k = 0; k < norm_piece / 1024; ++k) {
    const Index i = piece * norm_piece + k * 1024 + threadIdx.x * 4;
    stat_t<G> value[4];
    if (packs && i + 4 <= part.n) {
      load<4>(part.grad + i, value);
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e) value[e] = i + e < part.n ? static_cast<stat_t<G>>(part.grad[i + e]) : stat_t<G>(0);
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) sum = math::fma(static_cast<double>(value[e]), static_cast<double>(value[e]), sum);
  }
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) part.sums[piece] = sum;
}

struct Sums {
  const double* data;
  Index n;
};
/// A block a part.
__global__ void __launch_bounds__(1024) finite_factors_kernel(const __grid_constant__ Parts<Sums> parts, const weft::gpu::Fault* fault, float* factors) {
  const Sums& sums = parts.of[blockIdx.x];
  bool bad = faulty(fault);
#pragma unroll 8
  for (Index i = threadIdx.x; i < sums.n; i += blockDim.x) bad |= !(sums.data[i] - sums.data[i] == 0);
  bad = __syncthreads_or(bad);
  if (threadIdx.x == 0) factors[blockIdx.x] = bad ? std::numeric_limits<float>::quiet_NaN() : 1.0f;
}

/// tree_sum's tree over n values in shared memory; the sum is values[0].
__device__ inline void fold_tree(double* values, int n) {
  for (int step = 1; step < n; step *= 2) {
    __syncthreads();
    for (int i = 2 * step * static_cast<int>(threadIdx.x); i + step < n; i += 2 * step * static_cast<int>(blockDim.x)) values[i] += values[i + step];
  }
}
inline constexpr int tree_width = 2048;
/// Sums of tree_width values each, which are a level of the tree.
__global__ void __launch_bounds__(256) tree_level_kernel(const double* x, Index n, double* sums) {
  __shared__ double values[tree_width];
  const Index begin = Index{blockIdx.x} * tree_width;
  const int count = static_cast<int>(n - begin < tree_width ? n - begin : tree_width);
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) values[i] = x[begin + i];
  fold_tree(values, count);
  if (threadIdx.x == 0) sums[blockIdx.x] = values[0];
}
/// sum = x's sum in tree_sum's tree.
inline void launch_tree_sum(const double* x, Index n, double* sum) {
  if (n == 0) return check(cudaMemsetAsync(sum, 0, sizeof *sum, stream()), "tree_sum");
  const auto level = [](const double* from, Index count, double* to) {
    tree_level_kernel<<<static_cast<unsigned>((count + tree_width - 1) / tree_width), 256, 0, stream()>>>(from, count, to);
    check_launch("tree_sum");
  };
  if (n <= tree_width) return level(x, n, sum);
  const Index above = (n + tree_width - 1) / tree_width;
  const Scratch<double> sums(above);
  level(x, n, sums.data());
  launch_tree_sum(sums.data(), above, sum);
}

}  // namespace gpu

void tree_sum(cuda, In<double, cuda> x, Out<double, cuda> sum) { gpu::launch_tree_sum(x.data, x.numel(), sum.data); }

template <class G>
void squared_norm(cuda, std::span<const NormPart<G, cuda>> parts) {
  using Elements = gpu::NormElements<G>;
  const auto each = [&](auto&& add) {
    for (const auto& p : parts)
      if (const Index n = p.grad.numel(); n > 0) add({p.grad.data, n, p.pieces.data}, (n + norm_piece - 1) / norm_piece);
  };
  gpu::launch_parts<Elements>(each, [](const gpu::Parts<Elements>& some) {
    gpu::squared_norm_kernel<G><<<static_cast<unsigned>(some.blocks), 256, 0, gpu::stream()>>>(some);
    gpu::check_launch("squared_norm");
  });
}

void finite_factors(cuda, std::span<const In<double, cuda>> sums, Out<float, cuda> factors) {
  float* to = factors.data;
  const auto each = [&](auto&& add) {
    for (const auto& x : sums) add({x.data, x.numel()}, 1);
  };
  gpu::launch_parts<gpu::Sums>(each, [&](const gpu::Parts<gpu::Sums>& some) {
    gpu::finite_factors_kernel<<<static_cast<unsigned>(some.count), 1024, 0, gpu::stream()>>>(some, &weft::gpu::fault(), to);
    gpu::check_launch("finite_factors");
    to += some.count;
  });
}

}  // namespace weft::inline WEFT_ABI::kernels
