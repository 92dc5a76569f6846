// Lines of partial results, folded into one: how a reduction ends that several blocks began, in an order that their number fixes.
#pragma once

#include "weft/kernels/cuda/elements.cuh"
#include "weft/kernels/scalar.hpp"

namespace weft::inline WEFT_ABI::kernels::gpu {

struct SumFold {
  template <class A>
  __host__ __device__ static constexpr A identity() {
    return A(0);
  }
  template <class A>
  __device__ static A combine(A a, A b) {
    return static_cast<A>(a + b);
  }
};
struct MaxFold {
  template <class A>
  __host__ __device__ static constexpr A identity() {
    using Limits = std::numeric_limits<A>;
    return Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
  }
  template <class A>
  __device__ static A combine(A a, A b) {
    return Max2{}(a, b);
  }
};
struct MinFold {
  template <class A>
  __host__ __device__ static constexpr A identity() {
    using Limits = std::numeric_limits<A>;
    return Limits::has_infinity ? Limits::infinity() : Limits::max();
  }
  template <class A>
  __device__ static A combine(A a, A b) {
    return Min2{}(a, b);
  }
};

/// A line of results and where it goes: out[c] (+)= element c, if anybody wants it.
template <class G>
struct LineTo {
  G* data = nullptr;
  Index stride = 1;
  int beta = 0;
  LineTo() = default;
  LineTo(const Out<G, cuda>& out) : data(out.data), stride(out.shape.rank() == 0 ? 1 : out.strides.back()), beta(out.beta) {}
  LineTo(G* data, Index stride, int beta) : data(data), stride(stride), beta(beta) {}
};

/// The first C columns go to one place, C more to the other. A block has 8 columns, so that a few of them already busy the GPU; a quarter
/// of a warp reads what lies together.
template <class Fold, class S, class G>
__global__ void __launch_bounds__(256)
    fold_lines_kernel(const S* from, Index lines, Index C, Index width, LineTo<G> first, LineTo<G> second) {
  __shared__ S shared[8][8];
  const int column = static_cast<int>(threadIdx.x) % 8, row = static_cast<int>(threadIdx.x) / 8;
  for (Index c0 = static_cast<Index>(blockIdx.x) * 8; c0 < width; c0 += static_cast<Index>(gridDim.x) * 8) {
    const Index c = c0 + column;
    S acc = Fold::template identity<S>();
    if (c < width)
#pragma unroll 16
      for (Index i = row; i < lines; i += 32) acc = Fold::template combine<S>(acc, from[i * width + c]);
    acc = Fold::template combine<S>(acc, shuffle_xor(acc, 8));
    acc = Fold::template combine<S>(acc, shuffle_xor(acc, 16));
    if (threadIdx.x % 32 < 8) shared[row / 4][column] = acc;
    __syncthreads();
    if (row == 0) {
      acc = shared[0][column];
#pragma unroll
      for (int w = 1; w < 8; ++w) acc = Fold::template combine<S>(acc, shared[w][column]);
      if (c < C && first.data != nullptr) put(first.data[c * first.stride], static_cast<stat_t<G>>(acc), first.beta);
      if (c >= C && c < width && second.data != nullptr)
        put(second.data[(c - C) * second.stride], static_cast<stat_t<G>>(acc), second.beta);
    }
    __syncthreads();
  }
}
template <class Fold, class S, class G>
void fold_lines(const S* from, Index lines, Index C, Index width, const LineTo<G>& first, const LineTo<G>& second = {}) {
  if ((first.data == nullptr && second.data == nullptr) || C == 0) return;
  fold_lines_kernel<Fold, S, G><<<blocks_for(width, 8), 256, 0, stream()>>>(from, lines, C, width, first, second);
  check_launch("fold_lines");
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu
